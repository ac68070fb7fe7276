"""Cases nobody wrote by hand: random graphs, mutants of ONNX and .tflite files, and who is right about each."""
