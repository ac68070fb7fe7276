"""Structure-aware mutants of an ONNX model: one to three changes that a damaged, edited or hostile file could have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

T = TypeVar("T")
Random = np.random.Generator
Mutation = Callable[[onnx.ModelProto, Random], None]

MUTATIONS: dict[str, Mutation] = {}

_INTEGERS = (0, 1, -1, 2, 3, 7, 127, 128, 255, 2**16, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, -(2**63))
_FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 6.0)
_STRINGS = (
    "NOTSET",
    "SAME_UPPER",
    "VALID",
    "constant",
    "reflect",
    "linear",
    "nearest",
    "floor",
    "",
    "\x1b[31mred",
    "é",
)


class Unsuitable(Exception):  # noqa: N818 - a draw to throw away
    """The mutation does not fit this model."""


def mutant(model: onnx.ModelProto, random: Random) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a changed copy, and the names of what was done to it."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    done: list[str] = []
    wanted = int(random.choice([1, 1, 1, 2, 3]))
    for _ in range(20):
        if len(done) == wanted:
            break
        name = pick(tuple(MUTATIONS), random)
        before = made.SerializeToString()
        try:
            MUTATIONS[name](made, random)
            done.append(name)
        except (Unsuitable, ValueError, TypeError, IndexError, OverflowError):
            made = onnx.ModelProto()
            made.ParseFromString(before)
    content = made.SerializeToString()
    if random.random() < 0.04:
        content, name = _damaged(content, random)
        done.append(name)
    return content, tuple(done)


def pick(options: Sequence[T], random: Random) -> T:
    if not options:
        raise Unsuitable
    return options[int(random.integers(len(options)))]


def mutation(function: Mutation) -> Mutation:
    MUTATIONS[function.__name__] = function
    return function


def _damaged(content: bytes, random: Random) -> tuple[bytes, str]:
    if random.random() < 0.3:
        return content[: int(random.integers(len(content)))], "cut short"
    data = bytearray(content)
    for _ in range(int(random.integers(1, 6))):
        data[int(random.integers(len(data)))] = int(random.integers(256))
    return bytes(data), "bytes changed"


def _node(model: onnx.ModelProto, random: Random) -> onnx.NodeProto:
    return pick(list(model.graph.node), random)


def _tensors(model: onnx.ModelProto) -> list[str]:
    outputs = [name for node in model.graph.node for name in node.output if name]
    return [*outputs, *(tensor.name for tensor in model.graph.initializer), *(v.name for v in model.graph.input)]


# Attributes


@mutation
def attribute_value(model: onnx.ModelProto, random: Random) -> None:
    node = pick([node for node in model.graph.node if node.attribute], random)
    attribute = pick(list(node.attribute), random)
    _set(node, attribute.name, _other_value(helper.get_attribute_value(attribute), random))


def _other_value(value: Any, random: Random) -> Any:
    if isinstance(value, (list, tuple)):
        numbers = list(value)
        if not numbers or random.random() < 0.2:
            return [*numbers, pick(_INTEGERS, random)] if random.random() < 0.5 else numbers[:-1]
        numbers[int(random.integers(len(numbers)))] = _other_value(numbers[0], random)
        return numbers
    if isinstance(value, bytes):
        return pick(_STRINGS, random)
    if isinstance(value, float):
        return pick(_FLOATS, random)
    if isinstance(value, int):
        return pick((*_INTEGERS[:6], *_INTEGERS), random)
    raise Unsuitable


def _set(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    made = helper.make_attribute(name, value)
    del node.attribute[:]
    node.attribute.extend([*kept, made])


@mutation
def attribute_of_schema(model: onnx.ModelProto, random: Random) -> None:
    """An attribute that the operator may have, at another value than usual."""
    node = _node(model, random)
    if not onnx.defs.has(node.op_type):  # a local function that an earlier change made
        raise Unsuitable
    schema = onnx.defs.get_schema(node.op_type, max(model.opset_import[0].version, 13))
    name = pick(sorted(schema.attributes), random)
    kinds: dict[Any, Any] = {
        onnx.defs.OpSchema.AttrType.INT: pick((0, 1, 2, -1, 3), random),
        onnx.defs.OpSchema.AttrType.FLOAT: pick(_FLOATS, random),
        onnx.defs.OpSchema.AttrType.STRING: pick(_STRINGS, random),
        onnx.defs.OpSchema.AttrType.INTS: [int(n) for n in random.integers(0, 3, int(random.integers(0, 5)))],
    }
    value = kinds.get(schema.attributes[name].type)
    if value is None or value == []:
        raise Unsuitable
    _set(node, name, value)


@mutation
def attribute_removed(model: onnx.ModelProto, random: Random) -> None:
    node = pick([node for node in model.graph.node if node.attribute], random)
    del node.attribute[int(random.integers(len(node.attribute)))]


@mutation
def attribute_unknown(model: onnx.ModelProto, random: Random) -> None:
    _set(_node(model, random), pick(("foo", "axis", "axes", "training_mode", "alpha"), random), pick((0, 1), random))


# Wires


@mutation
def input_replaced(model: onnx.ModelProto, random: Random) -> None:
    node = pick([node for node in model.graph.node if node.input], random)
    place = int(random.integers(len(node.input)))
    node.input[place] = pick([*_tensors(model), "", "nowhere"], random)


@mutation
def inputs_swapped(model: onnx.ModelProto, random: Random) -> None:
    node = pick([node for node in model.graph.node if len(node.input) > 1], random)
    i, j = random.choice(len(node.input), 2, replace=False)
    node.input[i], node.input[j] = node.input[j], node.input[i]


@mutation
def input_dropped(model: onnx.ModelProto, random: Random) -> None:
    node = pick([node for node in model.graph.node if node.input], random)
    del node.input[int(random.integers(len(node.input)))]


@mutation
def input_added(model: onnx.ModelProto, random: Random) -> None:
    _node(model, random).input.append(pick([*_tensors(model), ""], random))


@mutation
def node_removed(model: onnx.ModelProto, random: Random) -> None:
    """The node goes; its readers read its first input instead."""
    index = int(random.integers(len(model.graph.node)))
    node = model.graph.node[index]
    old, new = node.output[0], node.input[0]
    del model.graph.node[index]
    for other in model.graph.node:
        other.input[:] = [new if name == old else name for name in other.input]
    for output in model.graph.output:
        if output.name == old:
            output.name = new


@mutation
def node_twice(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [f"{name}_again" for name in node.output]
    index = list(model.graph.node).index(node)
    model.graph.node.insert(index + 1, copy)
    if random.random() < 0.5 and model.graph.output:
        model.graph.output.append(onnx.ValueInfoProto(name=copy.output[0]))


@mutation
def nodes_reordered(model: onnx.ModelProto, random: Random) -> None:
    nodes = list(model.graph.node)
    i, j = random.choice(len(nodes), 2, replace=False)
    nodes[i], nodes[j] = nodes[j], nodes[i]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


_BETWEEN = ("Identity", "Relu", "Neg", "Abs", "Flatten", "Dropout", "Sigmoid", "Transpose", "Clip", "Floor", "Softmax")


@mutation
def node_inserted(model: onnx.ModelProto, random: Random) -> None:
    node = pick([node for node in model.graph.node if node.input], random)
    place = int(random.integers(len(node.input)))
    made = f"inserted_{len(model.graph.node)}"
    op = pick((*_BETWEEN, "Cast", "Mul", "Add"), random)
    inputs = [node.input[place]]
    attrs: dict[str, Any] = {}
    if op == "Cast":
        attrs["to"] = pick((1, 2, 3, 6, 7, 10, 9), random)
    if op in ("Mul", "Add"):
        array = np.asarray(pick((0.0, 1.0, -1.0, 0.5, 3.0), random), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, f"{made}_by"))
        inputs.append(f"{made}_by")
    index = list(model.graph.node).index(node)
    node.input[place] = made
    model.graph.node.insert(index, helper.make_node(op, inputs, [made], **attrs))


@mutation
def pair_removed(model: onnx.ModelProto, random: Random) -> None:
    """A QuantizeLinear and the DequantizeLinear behind it."""
    nodes = list(model.graph.node)
    first = pick([node for node in nodes if node.op_type == "QuantizeLinear"], random)
    ends = [node for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] == first.output[0]]
    for node in nodes:
        for end in ends:
            node.input[:] = [first.input[0] if name == end.output[0] else name for name in node.input]
    kept = [node for node in nodes if node is not first and node not in ends]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(copies)


@mutation
def operator_changed(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    alike = {
        1: (*_BETWEEN, "Tanh", "HardSwish", "GlobalAveragePool", "ReduceMean", "Shape", "Size", "Exp", "Sqrt", "Elu"),
        2: ("Add", "Sub", "Mul", "Div", "Min", "Max", "PRelu", "MatMul", "Pow", "Reshape", "Gather", "Expand", "Tile"),
        3: ("Conv", "ConvTranspose", "Gemm", "Clip", "Pad", "QuantizeLinear", "DequantizeLinear", "Where", "Slice"),
    }
    node.op_type = pick(alike.get(len(node.input), ("Concat", "Sum")), random)


@mutation
def domain_changed(model: onnx.ModelProto, random: Random) -> None:
    _node(model, random).domain = pick(("com.microsoft", "ai.onnx.ml", "ai.onnx", "my.own"), random)


# Names


@mutation
def name_changed(model: onnx.ModelProto, random: Random) -> None:
    """A tensor under a name that a converter might use itself."""
    old = pick(_tensors(model), random)
    nodes = [node.name for node in model.graph.node if node.name] or ["n"]
    new = pick([*nodes, *_tensors(model)], random) + pick(("/bias", "/weight", "/shape", "/float", "/0", ""), random)
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info):
        if value.name == old:
            value.name = new


@mutation
def node_name_changed(model: onnx.ModelProto, random: Random) -> None:
    _node(model, random).name = pick(["", *_tensors(model), *(node.name for node in model.graph.node)], random)


@mutation
def odd_name(model: onnx.ModelProto, random: Random) -> None:
    old = pick(_tensors(model), random)
    new = pick(
        ("\x1b]0;owned\x07", "a\nb", "\u202eevil", "x" * 3000, " ", "\x00", "../../etc/passwd", "<script>"), random
    )
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if value.name == old:
            value.name = new


# Constants


def _constant(model: onnx.ModelProto, random: Random) -> tuple[TensorProto, np.ndarray]:
    """One whose data is in the file: an earlier change may have moved another's to a file that is not there."""
    inside = [tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
    tensor = pick(inside, random)
    return tensor, numpy_helper.to_array(tensor).copy()


def _store(tensor: TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), tensor.name))


@mutation
def constant_entry(model: onnx.ModelProto, random: Random) -> None:
    tensor, array = _constant(model, random)
    flat = array.reshape(-1)
    place = int(random.integers(flat.size))
    if array.dtype.kind == "f":
        flat[place] = pick((*_FLOATS, float(flat[place]) * 10, -float(flat[place])), random)
    else:
        info = np.iinfo(array.dtype)
        value = int(flat[place])
        flat[place] = int(np.clip(pick((*_INTEGERS, value + 1, value - 1, -value), random), info.min, info.max))
    _store(tensor, array)


@mutation
def constant_filled(model: onnx.ModelProto, random: Random) -> None:
    tensor, array = _constant(model, random)
    if array.dtype.kind == "f":
        array[...] = pick((0.0, 1e-30, 1e30, 1.0), random)
    else:
        info = np.iinfo(array.dtype)
        array[...] = pick((0, info.min, info.max), random)
    _store(tensor, array)


@mutation
def constant_shape(model: onnx.ModelProto, random: Random) -> None:
    tensor, array = _constant(model, random)
    way = pick(("one more axis", "one less axis", "first entry", "twice", "flat", "none", "scalar"), random)
    if way == "one more axis":
        array = array[..., None] if random.random() < 0.5 else array[None]
    elif way == "one less axis":
        array = array[0]
    elif way == "first entry":
        array = array.reshape(-1)[:1]
    elif way == "twice":
        array = np.concatenate([array, array])
    elif way == "flat":
        array = array.reshape(-1)
    elif way == "none":
        array = array.reshape(-1)[:0]
    else:
        array = array.reshape(-1)[:1].reshape(())
    _store(tensor, np.asarray(array))


@mutation
def constant_type(model: onnx.ModelProto, random: Random) -> None:
    tensor, array = _constant(model, random)
    with np.errstate(all="ignore"):
        _store(
            tensor, array.astype(pick((np.int8, np.uint8, np.int32, np.int64, np.float32, np.float64, bool), random))
        )


@mutation
def constant_dims_lie(model: onnx.ModelProto, random: Random) -> None:
    tensor = pick(list(model.graph.initializer), random)
    dims = list(tensor.dims) or [1]
    dims[int(random.integers(len(dims)))] = pick((0, 1, 5, 2**31, 2**40, -1), random)
    tensor.dims[:] = dims


@mutation
def scale_changed(model: onnx.ModelProto, random: Random) -> None:
    """A scale or zero point of one Q/DQ node alone, so that a pair contradicts itself, or both."""
    node = pick(
        [n for n in model.graph.node if n.op_type.endswith("quantizeLinear") or "ntizeLinear" in n.op_type], random
    )
    place = 1 if random.random() < 0.6 or len(node.input) < 3 else 2
    source = next((t for t in model.graph.initializer if t.name == node.input[place]), None)
    if source is None or source.data_location == TensorProto.EXTERNAL:
        raise Unsuitable
    array = numpy_helper.to_array(source).copy()
    if place == 1:
        array = (array * pick((2.0, 0.5, 0.0, -1.0, 1e-20, 1e20), random)).astype(array.dtype)
    else:
        info = np.iinfo(array.dtype)
        array = np.clip(array.astype(np.int64) + pick((1, -1, 64, -300, 300), random), info.min, info.max).astype(
            array.dtype
        )
    if random.random() < 0.5:
        _store(source, array)
    else:
        name = f"scale_{len(model.graph.initializer)}"
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        node.input[place] = name


@mutation
def constant_elsewhere(model: onnx.ModelProto, random: Random) -> None:
    """As a Constant node, a graph input with a default, a sparse initializer, or in a file beside."""
    tensor, array = _constant(model, random)
    way = pick(("node", "input", "sparse", "external", "removed"), random)
    copy = TensorProto()
    copy.CopyFrom(tensor)
    if way == "input":
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape))
        return
    if way == "external":
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", pick(("weights.bin", "../../etc/passwd", "/dev/zero", ""), random)
        tensor.data_location = TensorProto.EXTERNAL
        return
    model.graph.initializer.remove(tensor)
    if way == "node":
        model.graph.node.insert(0, helper.make_node("Constant", [], [copy.name], value=copy))
    elif way == "sparse":
        flat = array.reshape(-1)
        places = np.flatnonzero(flat)
        values = numpy_helper.from_array(flat[places], copy.name)
        indices = numpy_helper.from_array(places.astype(np.int64), f"{copy.name}_indices")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, list(array.shape)))


# The model as a whole


@mutation
def opset_changed(model: onnx.ModelProto, random: Random) -> None:
    model.opset_import[0].version = int(pick((1, 7, 11, 12, 13, 15, 17, 18, 19, 20, 21, 22, 23, 24, 99), random))


@mutation
def input_shape(model: onnx.ModelProto, random: Random) -> None:
    value = pick([v for v in model.graph.input if v.type.tensor_type.shape.dim], random)
    dim = pick(list(value.type.tensor_type.shape.dim), random)
    if random.random() < 0.2:
        dim.dim_param = "N"
    else:
        dim.dim_value = int(pick((0, 1, 2, 5, 2**20, 2**31, 2**40, -1), random))


@mutation
def value_type(model: onnx.ModelProto, random: Random) -> None:
    value = pick([*model.graph.input, *model.graph.output], random)
    value.type.tensor_type.elem_type = int(pick((1, 2, 3, 6, 7, 9, 10, 11, 8, 0, 99), random))


@mutation
def output_changed(model: onnx.ModelProto, random: Random) -> None:
    """An inner tensor as an output too, or instead; one output twice; none."""
    inner = pick([name for node in model.graph.node for name in node.output if name], random)
    way = random.random()
    if way < 0.5:
        model.graph.output.append(onnx.ValueInfoProto(name=inner))
    elif way < 0.8:
        model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name=inner))
    elif way < 0.9:
        model.graph.output.append(model.graph.output[0])
    else:
        del model.graph.output[:]


@mutation
def into_function(model: onnx.ModelProto, random: Random) -> None:
    """A node moved into a local function; now and then one that calls itself, or that bears a standard name."""
    node = pick([node for node in model.graph.node if node.output and all(node.input)], random)
    domain = pick(("local", ""), random)
    name = pick(("Part", node.op_type), random) if domain else node.op_type
    body = onnx.NodeProto.FromString(node.SerializeToString())
    inputs = [f"in{i}" for i in range(len(node.input))]
    outputs = [f"out{i}" for i in range(len(node.output))]
    body.input[:], body.output[:] = inputs, outputs
    if random.random() < 0.2:
        body.op_type, body.domain = name, domain
        del body.attribute[:]
    function = helper.make_function(
        domain, name, inputs, outputs, [body], [helper.make_opsetid("", model.opset_import[0].version)]
    )
    if random.random() < 0.2:
        function.node.append(helper.make_node("Neg", ["in0"], ["unused"]))
    model.functions.append(function)
    if not any(each.domain == domain for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(domain, 1))
    node.op_type, node.domain = name, domain
    del node.attribute[:]


@mutation
def initializer_twice(model: onnx.ModelProto, random: Random) -> None:
    model.graph.initializer.append(pick(list(model.graph.initializer), random))


@mutation
def large_constant(model: onnx.ModelProto, random: Random) -> None:
    """A few bytes that ask for much: Expand, ConstantOfShape, Range, Tile behind a constant."""
    node = pick([node for node in model.graph.node if node.input], random)
    place = int(random.integers(len(node.input)))
    name = f"large_{len(model.graph.node)}"
    size = int(pick((2**12, 2**24, 2**33, 2**40), random))
    way = pick(("ConstantOfShape", "Expand", "Range", "Tile"), random)
    shape = numpy_helper.from_array(np.array([size], np.int64), f"{name}_size")
    one = numpy_helper.from_array(np.array([1], np.float32), f"{name}_one")
    scalars = [numpy_helper.from_array(np.array(n, np.int64), f"{name}_{i}") for i, n in enumerate((0, size, 1))]
    model.graph.initializer.extend([shape, one, *scalars])
    inputs = {
        "ConstantOfShape": [shape.name], "Expand": [one.name, shape.name], "Tile": [one.name, shape.name],
        "Range": [each.name for each in scalars],
    }[way]  # fmt: skip
    model.graph.node.insert(0, helper.make_node(way, inputs, [name]))
    node.input[place] = name
