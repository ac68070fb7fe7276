"""An ONNX model and the .tflite made from it, compared number by number without inputs."""

from compare.explaining.side_by_side.comparison import Comparison, Difference, Unchecked, compare_files

__all__ = ["Comparison", "Difference", "Unchecked", "compare_files"]
