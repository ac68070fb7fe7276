"""How far a conversion is from ONNX Runtime at its outputs, whatever their type: codes, real numbers, clamped inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from bridge.exact.arithmetic import quantize
from bridge.exact.convert import Options, convert
from bridge.exact.graph import Graph, Tensor
from bridge.verifying import onnx_runtime
from bridge.verifying.litert import Runner

Arrays = dict[str, np.ndarray]


def apart(model: onnx.ModelProto, inputs: Arrays, options: Options | None = None, kernels: str = "xnnpack") -> int:
    """The worst distance of any output, in steps of its scale; `inputs` fill the model's own shapes any number of times.

    Weights are kept as trained: what is made safe for ARM is another question. Raises `BridgeError` where the conversion is refused.
    """
    done = convert(model, replace(options or Options(), weights="keep"))
    tensors = done.graph.tensors
    session = onnx_runtime.session(model)
    sizes = {value.name: value.type.tensor_type.shape.dim[0].dim_value for value in model.graph.input}
    count = min(len(inputs[name]) // size for name, size in sizes.items())
    worst = 0
    for sample in range(count):
        fed = {name: inputs[name][sample * size : (sample + 1) * size] for name, size in sizes.items()}
        expected = dict(zip(done.graph.outputs, session.run(list(done.graph.outputs), fed), strict=True))
        got = Runner(done.tflite, kernels)({name: _stored(tensors[name], array) for name, array in fed.items()})
        for name, array in expected.items():
            wanted = _stored(tensors[name], np.atleast_1d(array)).reshape(got[name].shape)
            step = _step(done.graph, name)
            worst = max(worst, int(np.rint(np.abs(got[name].astype(np.float64) - wanted).max() / step)))
    return worst


def _step(graph: Graph, name: str) -> float:
    """What counts as one: a code, or for real numbers the scale of the codes that were dequantized at the end."""
    if graph.tensors[name].qparams is not None:
        return 1.0
    last = graph.producers()[name]
    assert last.op == "DEQUANTIZE", f"'{name}' was never quantized"
    return float(graph.tensors[last.inputs[0]].q.scale)


def _stored(tensor: Tensor, array: np.ndarray) -> np.ndarray:
    """As the .tflite holds it: real numbers as codes, unsigned codes 128 lower."""
    arranged = array if tensor.origin is None else tensor.origin.arrange(array, tensor.shape)
    if array.dtype == np.uint8:
        arranged = (arranged.astype(np.int16) - 128).astype(np.int8)
    if tensor.qparams is None or array.dtype.kind in "iu":
        return np.ascontiguousarray(arranged).astype(tensor.dtype)
    return quantize(arranged, tensor.qparams)
