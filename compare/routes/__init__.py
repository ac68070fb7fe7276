"""The ways from a form of a subject to a .tflite."""
