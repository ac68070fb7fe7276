"""ONNX in the spellings of its opsets and producers; everything leaves in one: Q/DQ of the standard domain."""
