"""What is measured of a .tflite: outputs, distance, speed, and where in it the distance arises."""
