"""What ONNX Runtime says: the outputs of a model, and the real values of every tensor of the graph it became."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from bridge.errors import BridgeError
from bridge.exact.arithmetic import dequantize
from bridge.exact.graph import Graph, Tensor
from bridge.exact.readers.opsets import settled
from bridge.exact.readers.qoperator import as_qdq, holds_qoperators
from bridge.verifying import onnx_runtime
from bridge.verifying.batches import Arrays, arranged, batches, joined, stored_codes


class Session:
    """ONNX Runtime on a model, unoptimized, with some of its tensors as outputs; of a file, with the outputs it has."""

    def __init__(self, model: Path | onnx.ModelProto, wanted: Sequence[str], where: str) -> None:
        self._wanted = list(dict.fromkeys(wanted))
        self._where = where
        extra = () if isinstance(model, Path) else self._wanted
        self._session = onnx_runtime.session(model, extra_outputs=extra, where=where)
        self._integer = {
            each.name: np.dtype(each.type[len("tensor(") : -1])
            for each in self._session.get_inputs()
            if each.type in ("tensor(int8)", "tensor(uint8)")
        }

    def __call__(self, batch: Arrays, graph: Graph) -> dict[str, np.ndarray]:
        """The wanted tensors on real inputs in ONNX layout; an input that the model takes as codes is quantized."""
        feeds = {name: self._fed(name, values, graph) for name, values in batch.items()}
        try:
            values = self._session.run(self._wanted, feeds)
        except Exception as error:  # onnxruntime has no public type for what it raises
            raise BridgeError(
                where=self._where,
                problem=f"ONNX Runtime does not run it: {str(error).strip().splitlines()[0]}",
                remedy="Compare with the fake-quant model or PyTorch's int8 engine instead (bridge.verify).",
            ) from error
        return dict(zip(self._wanted, values, strict=True))

    def _fed(self, name: str, values: np.ndarray, graph: Graph) -> np.ndarray:
        dtype = self._integer.get(name)
        if dtype is None:
            return values
        held = quantized_input(graph, name)
        codes = stored_codes(held, values).astype(np.int16)
        shift = (128 if dtype == np.uint8 else 0) - (128 if held.dtype == np.uint8 else 0)
        return (codes + shift).astype(dtype)


def loaded(onnx_file: Path) -> onnx.ModelProto:
    """The model with its external data, its local functions inlined and QOperators spelled as the conversion reads them."""
    model = onnx.load(onnx_file)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    if holds_qoperators(model):
        settled(model, onnx_file.name)  # what they are written as is of opset 13 and newer
    return as_qdq(model, onnx_file.name)


def asked(onnx_file: Path, model: onnx.ModelProto) -> Path | onnx.ModelProto:
    """The file as it is; `model`, as `loaded`, where ONNX Runtime does not compute what its integer operators say."""
    return model if asked_as_qdq(onnx.load(onnx_file, load_external_data=False)) else onnx_file


def asked_as_qdq(model: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime's own integer operators saturate on this processor, or refuse the model's weights.

    A QLinearConv has no unoptimized form: x86 without VNNI adds its products in 16 bits whatever the session's options
    (M80). It takes one zero point for all output channels of its weight only (ONNX Runtime 1.23, qlinearconv.cc,
    `ComputeOffset`).
    """
    if not holds_qoperators(model):
        return False
    return onnx_runtime.saturates() or any(_has_several_zero_points(node, model) for node in model.graph.node)


def _has_several_zero_points(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    if node.op_type != "QLinearConv" or len(node.input) < 6:
        return False
    held = (tensor for tensor in model.graph.initializer if tensor.name == node.input[5])
    return any(
        tensor.data_location != onnx.TensorProto.EXTERNAL and np.unique(onnx.numpy_helper.to_array(tensor)).size > 1
        for tensor in held
    )


def quantized_input(graph: Graph, name: str) -> Tensor:
    """The tensor in which an input of the file is first held as codes; the input itself where it never is."""
    if graph.tensors[name].qparams is not None:
        return graph.tensors[name]
    for node in graph.nodes:
        if node.op == "QUANTIZE" and node.inputs[0] == name:
            return graph.output(node)
    return graph.tensors[name]


def reference_values(onnx_file: Path, graph: Graph, inputs: Arrays) -> dict[str, np.ndarray]:
    """ONNX Runtime's real values of every tensor of a lowered graph, float32, samples along axis 0, arranged as stored.

    A quantized tensor's values lie on its grid. Raises `BridgeError` as `verify` does.
    """
    model = loaded(onnx_file)
    names = sources(model, graph)
    session = Session(model, [name for name in names.values() if name not in graph.inputs], onnx_file.name)
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches(graph, inputs):
        values = session(batch, graph) | batch
        for name, source in names.items():
            tensor = graph.tensors[name]
            if values[source].dtype.kind != "f":
                continue
            real = arranged(tensor, values[source])
            on_grid = real if tensor.qparams is None else dequantize(stored_codes(tensor, real), tensor.q)
            found.setdefault(name, []).append(on_grid)
    return {name: joined(parts) for name, parts in found.items()}


def sources(model: onnx.ModelProto, graph: Graph) -> dict[str, str]:
    """Which tensor of the ONNX file each tensor of the graph holds, where it holds one."""
    produced = {name for node in model.graph.node for name in node.output}
    there = produced | {each.name for each in model.graph.input}
    found = {}
    for name, tensor in graph.tensors.items():
        if tensor.is_constant or (tensor.origin is None and name not in graph.inputs):
            continue
        source = tensor.origin.name if tensor.origin is not None and tensor.origin.name in there else name
        if source in there:
            found[name] = source
    return found
