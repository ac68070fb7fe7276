"""How far a .tflite is from what it should say: both runtimes, end to end and operator by operator."""
