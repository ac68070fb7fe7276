"""ONNX operators to TFLite's, one file for each family; importing this registers all of them."""

from bridge.exact.lowering import conv, elementwise, linear, pooling, rearrange
from bridge.exact.lowering.registry import LOWERINGS, lower

__all__ = ["LOWERINGS", "conv", "elementwise", "linear", "lower", "pooling", "rearrange"]
