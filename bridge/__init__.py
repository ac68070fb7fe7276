"""Model to int8 .tflite: nothing in here trains or judges."""
