"""A converter with a fault that no entry of the catalogue knows: one tap of the convolution is lost."""

from dataclasses import replace

from bridge.exact.convert import convert as convert_exactly
from compare.tflite.edit import with_tensors
from compare.tflite.graph import open_tflite


def convert(source, _variant, _calibration):
    content = convert_exactly(source.onnx).tflite
    graph = open_tflite(content).graph
    (first, *_) = [node for node in graph.nodes if node.op == "CONV_2D"]
    weight = graph.tensors[first.inputs[1]]
    damaged = weight.values.copy()
    damaged[:, 1, 1] = 0
    return with_tensors(content, {weight.name: replace(weight, data=damaged)})
