"""One rule per ONNX operator: what it is in TensorFlow when every Q/DQ pair is a FakeQuant operator.

Feature maps are NHWC here, NCHW in ONNX. Rules take a `Step` and return what the node's output has become. Where two
TensorFlow ways exist, the docstring says which one the converter takes (TensorFlow 2.19, measured).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from bridge.errors import BridgeError

# What a name of the ONNX graph can stand for, beside a constant (a numpy array).


@dataclass(frozen=True)
class Grid:
    """The 256 codes of an activation: real = scale * (code - zero_point), codes from `lowest` (0 or -128) on."""

    scale: np.float32
    zero_point: int
    lowest: int

    @property
    def highest(self) -> int:
        return self.lowest + 255

    def real(self, code: int) -> np.float32:
        """Rounded once, from double precision: FakeQuant's nudging then finds the same zero point again."""
        return np.float32((code - self.zero_point) * float(self.scale))


@dataclass(frozen=True, eq=False)
class Activation:
    """A TensorFlow tensor; `grid` is known while its values lie on one.

    `chw` is set when the features of a flattened map stand in H, W, C order where ONNX has C, H, W.
    """

    tensor: Any
    grid: Grid | None = None
    rectified: bool = False
    chw: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Codes:
    """What QuantizeLinear makes of an activation, before DequantizeLinear; `top` is the largest code let through."""

    of: Activation
    grid: Grid
    top: int


@dataclass(frozen=True, eq=False)
class Weight:
    """int8 codes with zero point 0; `scale` is float32 (1,) or, along `axis`, (channels,)."""

    name: str
    codes: np.ndarray
    scale: np.ndarray
    axis: int | None


@dataclass(frozen=True)
class Product:
    """A MatMul that waits for the Add of its bias; `plus` makes the layer, with a bias or with None."""

    plus: Callable[[np.ndarray | None], Activation]


@dataclass
class Notebook:
    """What the rules have to say beside the tensors they return."""

    clamped: dict[str, int] = field(default_factory=dict)  # by weight: how many codes were -128
    wanted: list[tuple[str, np.ndarray, int]] = field(default_factory=list)  # tensor, scales, int8 zero point
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Step:
    """One ONNX node and what its operands have become; the accessors refuse what a rule cannot take."""

    node: onnx.NodeProto
    where: str
    attrs: Mapping[str, Any]
    operands: tuple[Any, ...]
    book: Notebook
    tf: Any

    def refusal(self, problem: str, remedy: str = "Convert it with the exact bridge.") -> BridgeError:
        return BridgeError(where=self.where, problem=problem, remedy=remedy)

    def require(self, **expected: Any) -> None:
        for name, value in expected.items():
            if self.attrs.get(name, value) != value:
                raise self.refusal(f"attribute {name} is {self.attrs[name]!r}; only {value!r} is covered")

    def activation(self, index: int = 0) -> Activation:
        found = self.operands[index]
        if isinstance(found, Product):
            return found.plus(None)
        if not isinstance(found, Activation):
            kind = {Codes: "integer codes", Weight: "a weight"}.get(type(found), "a constant")
            raise self.refusal(f"operand '{self.node.input[index]}' is {kind}; only activations are covered")
        return found

    def in_order(self, index: int = 0) -> Activation:
        found = self.activation(index)
        if found.chw is not None:
            raise self.refusal("takes a flattened map, whose features stand in another order in NHWC; only Gemm can")
        return found

    def grid(self) -> Grid:
        """Of the first operand: where TFLite's operator needs one, and training must have given it."""
        grid = self.activation().grid
        if grid is None:
            problem = f"operand '{self.node.input[0]}' has no trained scale"
            raise self.refusal(problem, "Put a fake-quant in front of this layer, fine-tune, and export again.")
        return grid

    def constant(self, index: int) -> np.ndarray | None:
        found = self.operands[index] if index < len(self.operands) else None
        if found is not None and not isinstance(found, np.ndarray):
            raise self.refusal(f"operand '{self.node.input[index]}' is not a constant")
        return found

    def scale(self) -> np.ndarray:
        scale = self.constant(1)
        if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
            raise self.refusal(f"scale {scale} is not positive and finite", "Export the model again after training.")
        return scale.reshape(-1).astype(np.float32)

    def weight(self, channel_axis: int, rank: int) -> Weight:
        """The weight with codes in -127..127; TFLite's range has no -128 (8-bit specification; M04)."""
        found = self.operands[1]
        if not isinstance(found, Weight):
            problem = f"weight '{self.node.input[1]}' has no Q/DQ pair, so no trained scale"
            raise self.refusal(problem, "Prepare this layer for QAT, fine-tune, and export again.")
        if found.codes.ndim != rank or found.axis not in {None, channel_axis}:
            problem = f"weight '{found.name}' has shape {found.codes.shape} and its scales along axis {found.axis}"
            raise self.refusal(f"{problem}; expected rank {rank}, axis {channel_axis}")
        self.book.clamped[found.name] = int((found.codes == -128).sum())
        return replace(found, codes=np.maximum(found.codes, -127))


Rule = Callable[[Step], Any]
RULES: dict[str, Rule] = {}


def _rebuilds(*operators: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for operator in operators:
            if operator in RULES:
                raise AssertionError(f"two rules for {operator}")
            RULES[operator] = rule
        return rule

    return register


@_rebuilds("QuantizeLinear")
def _quantize(step: Step) -> Codes | np.ndarray:
    """On a constant the codes themselves: round half to even, then saturate (ONNX, QuantizeLinear)."""
    x, zero_point = step.operands[0], step.constant(2)
    if isinstance(x, np.ndarray) and zero_point is not None and zero_point.dtype == np.int8:
        scale, zero_point = (_along(array, step.attrs.get("axis", 1), x.ndim) for array in (step.scale(), zero_point))
        codes: np.ndarray = np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8)
        return codes
    grid = _grid(step)
    return Codes(step.activation(), grid, grid.highest)


@_rebuilds("DequantizeLinear")
def _dequantize(step: Step) -> Activation | Weight | np.ndarray:
    """A fake-quant over 256 codes, because its range alone decides the scale; a Clip comes on top.

    uint8 codes limited to 127 keep their values in int8, which then saturates where training did (M02); what is left
    of that Clip is the limit at code 0, a MAXIMUM (the converter writes RELU where it is 0.0), and behind a ReLU nothing.
    """
    codes = step.operands[0]
    if isinstance(codes, np.ndarray):
        return _dequantized_constant(step, codes)
    if not isinstance(codes, Codes) or codes.grid != _grid(step):
        raise step.refusal("does not undo a QuantizeLinear of the same scale, zero point and type")
    grid = replace(codes.grid, lowest=-128) if codes.top <= 127 else codes.grid
    low, high = codes.grid.real(codes.grid.lowest), codes.grid.real(codes.top)

    def fake_quant(x: Any) -> Any:
        limits = grid.real(grid.lowest), grid.real(grid.highest)
        return step.tf.quantization.fake_quant_with_min_max_vars(x, *limits)

    x, name = fake_quant(codes.of.tensor), step.node.output[0]
    if grid.lowest < codes.grid.lowest and not (codes.of.rectified and low == 0):
        x = fake_quant(step.tf.maximum(x, low))
        step.book.notes.append(f"'{name}': its lower limit, code {codes.grid.lowest}, is an operator of its own")
    if grid.highest > codes.top:
        x = fake_quant(step.tf.minimum(x, high))
        step.book.notes.append(f"'{name}': its upper limit, code {codes.top}, is an operator of its own")
    step.book.wanted.append((name, np.array([grid.scale]), grid.zero_point - grid.lowest - 128))
    return replace(codes.of, tensor=x, grid=grid)


def _dequantized_constant(step: Step, codes: np.ndarray) -> np.ndarray | Weight:
    """A weight, or an int32 bias as the floats that the converter quantizes back, to the same codes below 2**24."""
    name, scale, zero_point = step.node.input[0], step.scale(), step.constant(2)
    if codes.dtype not in (np.int8, np.int32) or (zero_point is not None and zero_point.any()):
        problem = f"constant '{name}' is {codes.dtype} with zero point {zero_point}; TFLite has int8 weights with 0"
        raise step.refusal(problem, "Train with a symmetric weight observer, for example qconfig 'tflite'.")
    axis = step.attrs.get("axis", 1) % codes.ndim if scale.size > 1 else None
    if codes.dtype == np.int8:
        return Weight(name, codes, scale, axis)
    return np.asarray(codes * _along(scale, axis or 0, codes.ndim).astype(np.float64), np.float32)


def _grid(step: Step) -> Grid:
    scale, zero_point = step.scale(), step.constant(2)
    zero_point = np.zeros((), np.uint8) if zero_point is None else zero_point
    if scale.size != 1 or zero_point.dtype not in (np.uint8, np.int8):
        raise step.refusal("only 8-bit codes and one scale per activation are covered")
    return Grid(np.float32(scale.item()), int(zero_point.item()), int(np.iinfo(zero_point.dtype).min))


def _along(array: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector shaped to broadcast along one axis; a single number stays one."""
    return array.reshape(()) if array.size == 1 else array.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


@_rebuilds("Clip")
def _clip(step: Step) -> Codes | Activation:
    low, high = (None if (limit := step.constant(i)) is None else limit.item() for i in (1, 2))
    codes = step.operands[0]
    if isinstance(codes, Codes) and low in {None, codes.grid.lowest} and high is not None:
        return replace(codes, top=min(codes.top, high))
    if (low, high) != (0, 6):
        raise step.refusal(f"limits {low}, {high} are not covered; 0, 6 and an upper one between Q and DQ are")
    return replace(step.activation(), tensor=step.tf.nn.relu6(step.activation().tensor), grid=None, rectified=True)


@_rebuilds("Cast")
def _cast(step: Step) -> Codes:
    codes = step.operands[0]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(step.attrs["to"])
    if not isinstance(codes, Codes) or dtype != {0: np.uint8, -128: np.int8}[codes.grid.lowest]:
        raise step.refusal("only a Cast between Q and DQ that changes nothing is covered")
    return codes


@_rebuilds("Identity", "Dropout")
def _pass_on(step: Step) -> Any:
    return step.operands[0]


@_rebuilds("Transpose")
def _transpose(step: Step) -> Any:
    order = step.attrs.get("perm", [])
    if not order or order != sorted(order):
        raise step.refusal(f"permutation {order} is not covered; only one that changes nothing is")
    return step.operands[0]


@_rebuilds("Conv")
def _conv(step: Step) -> Activation:
    """conv2d, whose groups follow from the shapes; depthwise is the operator of its own that TFLite has for it.

    The fake-quant stands before the reshape to TensorFlow's depthwise weight (H, W, channels, multiplier), because it
    needs the output channels in one dimension, the last. Without that reshape the file has a CONV_2D of many groups.
    """
    step.require(auto_pad=b"NOTSET")
    step.grid()
    weight = step.weight(channel_axis=0, rank=4)
    hwio = weight.codes.transpose(2, 3, 1, 0)
    height, width, per_group, _ = hwio.shape
    x, padding = _pad(step, (height, width), fill=0.0)
    strides, dilations = step.attrs.get("strides", [1, 1]), step.attrs.get("dilations", [1, 1])
    kernel = _fake_quantized(step, weight, hwio)
    if per_group == 1 and step.attrs.get("group", 1) == x.shape[-1] > 1:
        kernel = step.tf.reshape(kernel, (height, width, x.shape[-1], -1))
        y = step.tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=kernel, strides=[1, *strides, 1], dilations=[1, *dilations, 1], padding=padding
        )
    else:
        y = step.tf.nn.conv2d(x, kernel, strides, padding, dilations=dilations)
    return Activation(_add_bias(step, y, weight, step.constant(2)))


@_rebuilds("Gemm")
def _gemm(step: Step) -> Activation:
    step.require(alpha=1.0, beta=1.0, transA=0)
    return _dense(step, step.constant(2))


@_rebuilds("MatMul")
def _matmul(step: Step) -> Product:
    return Product(lambda bias: _dense(step, bias))


def _dense(step: Step, bias: np.ndarray | None) -> Activation:
    """matmul; per channel a 1x1 convolution (M29). Behind a flattened map the weight's inputs are permuted (M18)."""
    step.grid()
    x, transposed = step.activation(), bool(step.attrs.get("transB", 0))
    weight = step.weight(channel_axis=0 if transposed else 1, rank=2)
    if len(x.tensor.shape) != 2:
        raise step.refusal(f"an input of shape {x.tensor.shape} is not covered; (N, features) is")
    codes = weight.codes.T if transposed else weight.codes
    inputs, outputs = codes.shape
    if x.chw is not None:
        codes = codes.reshape(*x.chw, outputs).transpose(1, 2, 0, 3).reshape(inputs, outputs)
    if weight.scale.size == 1:
        y = step.tf.matmul(x.tensor, _fake_quantized(step, weight, codes))
        return Activation(_add_bias(step, y, weight, bias))
    kernel = _fake_quantized(step, weight, codes.reshape(1, 1, inputs, outputs))
    y = step.tf.nn.conv2d(step.tf.reshape(x.tensor, (-1, 1, 1, inputs)), kernel, 1, "VALID")
    return Activation(step.tf.reshape(_add_bias(step, y, weight, bias), (-1, outputs)))


def _fake_quantized(step: Step, weight: Weight, channels_last: np.ndarray) -> Any:
    """Range +-127 * scale, narrow: 254 steps, so (max - min) / 254 is the scale, and the zero point is 0."""
    step.book.wanted.append((weight.name, weight.scale, 0))
    scale = weight.scale.astype(np.float64)
    reach, real = (127 * scale).astype(np.float32), (channels_last * scale).astype(np.float32)
    if weight.scale.size == 1:
        return step.tf.quantization.fake_quant_with_min_max_vars(real, -reach[0], reach[0], narrow_range=True)
    return step.tf.quantization.fake_quant_with_min_max_vars_per_channel(real, -reach, reach, narrow_range=True)


def _add_bias(step: Step, y: Any, weight: Weight, bias: np.ndarray | None) -> Any:
    """The converter derives the int32 codes, and does two things in silence (measured; each is a test).

    It saturates codes beyond int32 (M05). And a bias of one number in all channels is quantized with the scale of the
    first channel in all of them; one ulp more in the last channel prevents that and changes no code.
    """
    if bias is None:
        return y
    vector = np.broadcast_to(bias.reshape(-1), y.shape[-1]).astype(np.float32)
    codes = vector / (weight.scale.astype(np.float64) * step.grid().scale)
    worst = int(np.abs(codes).argmax())
    if abs(codes[worst]) > np.iinfo(np.int32).max:
        problem = f"bias channel {worst}: {codes[worst]:.3g} does not fit int32"
        raise step.refusal(problem, "That weight channel is almost all zero: prune it (catalogue entry M05).")
    if vector[0] and (vector == vector[0]).all():
        vector[-1] = np.nextafter(vector[-1], np.float32(np.inf))
    return step.tf.nn.bias_add(y, vector)


@_rebuilds("MaxPool", "AveragePool")
def _pool(step: Step) -> Activation:
    """A maximum is padded with the lowest number of its grid; an average with zeros, or not at all (SAME)."""
    grid, kernel = step.grid(), step.attrs["kernel_shape"]
    step.require(auto_pad=b"NOTSET", dilations=[1, 1])
    pool, fill = step.tf.nn.max_pool2d, float(grid.real(grid.lowest))
    if step.node.op_type == "AveragePool":
        step.require(ceil_mode=0)
        pool, fill = step.tf.nn.avg_pool2d, 0.0
    x, padding = _pad(step, kernel, fill)
    return replace(step.activation(), tensor=pool(x, kernel, step.attrs.get("strides", [1, 1]), padding))


def _pad(step: Step, kernel: Sequence[int], fill: float) -> tuple[Any, str]:
    """(tensor, "SAME" or "VALID"): a padding operator only where TensorFlow's SAME is not what ONNX asks for.

    SAME is that of tensorflow.org/api_docs/python/tf/nn, "Notes on padding"; `ceil_mode` that of ONNX, MaxPool.
    """
    x = step.activation().tensor
    if len(x.shape) != 4:
        raise step.refusal(f"an input of rank {len(x.shape)} is not covered; images are")
    pads, strides = step.attrs.get("pads", [0] * 4), step.attrs.get("strides", [1, 1])
    asked, same = [], []
    for axis in (0, 1):
        size, stride, begin, end = x.shape[axis + 1], strides[axis], pads[axis], pads[axis + 2]
        reach = (kernel[axis] - 1) * step.attrs.get("dilations", [1, 1])[axis] + 1
        if step.attrs.get("ceil_mode", 0):
            last = -(-(size + begin + end - reach) // stride) * stride  # where the last window starts
            last -= stride if last >= size + begin else 0
            end = max(end, last + reach - size - begin)
        missing = max((-(-size // stride) - 1) * stride + reach - size, 0)
        asked.append((begin, end))
        same.append((missing // 2, missing - missing // 2))
    if not np.any(asked):
        return x, "VALID"
    counted = bool(step.attrs.get("count_include_pad", 0))
    if asked == same and not counted:
        return x, "SAME"
    if step.node.op_type == "AveragePool" and not counted:
        raise step.refusal(f"an average that leaves out padding {asked} is not covered; SAME padding is")
    amounts = [(0, 0), *asked, (0, 0)]
    return step.tf.pad(x, amounts, constant_values=fill) if fill else step.tf.pad(x, amounts), "VALID"


@_rebuilds("GlobalAveragePool", "ReduceMean")
def _mean(step: Step) -> Activation:
    """Without a Q/DQ pair behind it the converter gives MEAN the scale of its input."""
    axes = step.constant(1)
    axes = step.attrs.get("axes", [2, 3]) if axes is None else axes.tolist()
    step.grid()
    x = step.activation()
    if len(x.tensor.shape) != 4 or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise step.refusal(f"a mean over axes {axes} is not covered; over H, W of an image it is")
    return replace(x, tensor=step.tf.reduce_mean(x.tensor, (1, 2), keepdims=bool(step.attrs.get("keepdims", 1))))


@_rebuilds("Relu", "Sigmoid")
def _elementwise(step: Step) -> Activation:
    function = {"Relu": step.tf.nn.relu, "Sigmoid": step.tf.sigmoid}[step.node.op_type]
    return replace(step.activation(), tensor=function(step.activation().tensor), grid=None, rectified=True)


@_rebuilds("Softmax")
def _softmax(step: Step) -> Activation:
    x = step.in_order().tensor
    rank = len(x.shape)
    if step.attrs.get("axis", -1) % rank != (1 if rank == 4 else rank - 1):
        raise step.refusal("only a softmax over channels or features is covered")
    step.book.notes.append(f"'{step.node.output[0]}': scale 1/256 and zero point -128 are TFLite's, not trained")
    return Activation(step.tf.nn.softmax(x))


@_rebuilds("Add", "Mul")
def _binary(step: Step) -> Activation:
    for product, bias in (step.operands, step.operands[::-1]):
        if isinstance(product, Product) and isinstance(bias, np.ndarray) and step.node.op_type == "Add":
            return product.plus(bias)
    a, b = step.activation(0), step.activation(1)
    if len(a.tensor.shape) != len(b.tensor.shape) or a.chw != b.chw:
        raise step.refusal("operands of different rank or feature order are not covered")
    function = {"Add": step.tf.add, "Mul": step.tf.multiply}[step.node.op_type]
    return Activation(function(a.tensor, b.tensor), chw=a.chw)


@_rebuilds("Concat")
def _concat(step: Step) -> Activation:
    tensors = [step.in_order(index).tensor for index in range(len(step.operands))]
    rank = len(tensors[0].shape)
    axis = step.attrs["axis"] % rank
    return Activation(step.tf.concat(tensors, (0, 3, 1, 2)[axis] if rank == 4 else axis))


@_rebuilds("Flatten", "Reshape")
def _flatten(step: Step) -> Activation:
    """To (N, features). TensorFlow reads a map in H, W, C order; `chw` tells the dense layer behind it (M18)."""
    step.require(axis=1)
    x, target = step.activation(), step.constant(1)
    batch, *rest = x.tensor.shape
    features = int(np.prod(rest))
    shape = [batch, -1] if target is None else target.tolist()
    if len(shape) != 2 or shape[0] not in {batch, -1} or shape[1] not in {features, -1}:
        raise step.refusal(f"shape {shape} is not covered; [{batch}, {features}] is")
    if len(rest) != 3:
        return replace(x, tensor=step.tf.reshape(x.tensor, (batch, features)))
    height, width, channels = rest
    chw = (channels, height, width) if height * width > 1 and channels > 1 else None
    return replace(x, tensor=step.tf.reshape(x.tensor, (batch, features)), chw=chw)
