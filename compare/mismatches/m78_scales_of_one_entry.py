"""M78: onnx2tf before 1.26.7 takes a scale of shape [1] for one per channel and stops at the bias."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from compare.mismatches import m11_scales_of_shape_1
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import version_of
from compare.mismatches.parts.models import conv_relu
from compare.mismatches.parts.two_forms import constants
from compare.subjects.case import Case

BEYOND_THE_RANK = re.compile(r"shape_broadcast = [^\n]*\n(?:[ \t~^]*\n)?(IndexError: tuple index out of range)")
"""ops/DequantizeLinear.py, line 105 of onnx2tf 1.20.0 and 1.25.14: a vector, and the default axis of 1."""
ONE_FOR_MANY = re.compile(
    r"ops/(?:Dequantize|Quantize)Linear\.py\", line \d+, in make_node\n(?:(?!Traceback)[^\n]*\n){0,12}?"
    r"[^\n]*(Input to reshape is a tensor with 1 values, but the requested shape has \d+)"
)
"""The next line, where the axis is within the rank: one scale for several channels."""
NODE = re.compile(r"onnx_op_name: (\S+)")
REPAIRED_IN, SEEN_FROM = (1, 26, 7), (1, 20, 0)
REMEDY = (
    "Convert with python -m bridge; or make the scales and zero points of shape [1] scalars, or use onnx2tf 1.26.7."
)


def detect(case: Case) -> Iterator[Sighting]:
    """The traceback in the log; or onnx2tf before 1.26.7 beside such a node."""
    said = BEYOND_THE_RANK.search(case.log) or ONE_FOR_MANY.search(case.log)
    if said:
        node = NODE.search(case.log)
        yield Sighting(
            where=f"onnx2tf at '{node[1]}'" if node else "onnx2tf at a Q/DQ node", fact=f"'{said[1]}'", remedy=REMEDY
        )
        return
    version = version_of(case, "onnx2tf")
    release = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if not release or release >= REPAIRED_IN or case.onnx_model is None:
        return
    refused = [each for each in _scales_of_one_entry(case.onnx_model) if each.said_by_onnx2tf()]
    if refused:
        yield Sighting(
            where=f"{refused[0].op} '{refused[0].name}'",
            fact=f"{len(refused)} nodes have a scale of shape [1], here for a tensor of shape "
            f"{list(refused[0].shape)} with axis {refused[0].axis}; onnx2tf {version} takes it for one per channel"
            + ("" if release >= SEEN_FROM else " if it does as 1.20.0 and 1.25.14 do"),
            remedy=REMEDY,
            sure=release >= SEEN_FROM,
        )


@dataclass(frozen=True)
class _OneEntry:
    """A DequantizeLinear whose scale has shape [1]."""

    op: str
    name: str
    shape: tuple[int, ...]
    """Of the tensor that is dequantized."""
    axis: int

    def said_by_onnx2tf(self) -> str:
        """The error that onnx2tf 1.20.0 and 1.25.14 end with at this node; empty where they do not."""
        try:
            _broadcast(np.ones(1, np.float32), self.shape, self.axis)
        except (IndexError, ValueError):
            return traceback.format_exc()
        return ""


def _broadcast(scale: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """The scale, shaped to be multiplied with a tensor, as those releases do it for every scale with one dimension."""
    rank = len(shape)
    shape_broadcast = [1] * axis + [shape[axis]] + [1] * (rank - axis - 1)
    return scale.reshape(shape_broadcast)


def _scales_of_one_entry(model: onnx.ModelProto) -> Iterator[_OneEntry]:
    known, shapes = constants(model), _shapes(model)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[1] not in known or node.input[0] not in shapes:
            continue
        if list(known[node.input[1]].dims) == [1]:
            axis = next((int(each.i) for each in node.attribute if each.name == "axis"), 1)
            shape = shapes[node.input[0]]
            yield _OneEntry(node.op_type, node.name or node.output[0], shape, axis if axis >= 0 else axis + len(shape))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of constants, and of computed tensors as far as ONNX infers them."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    found = {name: tuple(tensor.dims) for name, tensor in constants(model).items()}
    for value in (*inferred.value_info, *inferred.input):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return found


def _log(content: bytes) -> str:
    model = onnx.load_from_string(content)
    return "".join(each.said_by_onnx2tf() for each in _scales_of_one_entry(model))


def reproduce() -> Case:
    """A convolution whose int32 bias has a scale of shape [1], as converted PyTorch models have; the node's shape and
    axis are evaluated as onnx2tf 1.20.0 and 1.25.14 do, which are not installed here.
    """
    model = onnx.load_from_string(conv_relu(int32_bias=True))
    for tensor in model.graph.initializer:
        if tensor.name in ("sb", "zb"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).reshape(1), tensor.name))
    content = model.SerializeToString()
    return Case(onnx=content, packages={"onnx2tf": "1.25.14"}, log=_log(content))


def repair(case: Case) -> Case:
    """Scalars instead, in every QuantizeLinear and DequantizeLinear."""
    mended = m11_scales_of_shape_1.repair(case)
    return replace(mended, log=_log(mended.onnx or b""))


def measure(broken: Case, repaired: Case) -> float:
    """Conversions that stop."""
    return float(bool(broken.log)) - float(bool(repaired.log))


MISMATCH = Mismatch(
    id="M78",
    name="onnx2tf stops at scales of shape [1]",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 1.20.0 and 1.25.14; 1.26.7 brought the repair, 1.29.24 converts. "
    "The reproduction evaluates the node as those releases do",
    source="onnx2tf#733, PR#735 (release 1.26.7); seen with PyTorch's converted int8 model",
    cause="PyTorch writes the scales of per-tensor weights and biases with shape [1]. onnx2tf takes every scale with one "
    "dimension for one per channel and looks up the size of the axis, 1 where nothing is said: a bias has no second "
    "axis, and it ends with 'IndexError: tuple index out of range' and exit code 1. An explicit axis=0 only leads "
    "to the next line, which cannot reshape one scale to all channels.",
    way_out="Convert with python -m bridge. With scalars in place of shape [1] those releases do write a file, but with its "
    "biases in another order (M44) and pairs as arithmetic (M17); 1.29.24 still has M44.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("conversions that stop", 1.0),
)
