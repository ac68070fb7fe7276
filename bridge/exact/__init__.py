"""ONNX QDQ to int8 .tflite with every trained scale kept; numpy, onnx and flatbuffers only."""
