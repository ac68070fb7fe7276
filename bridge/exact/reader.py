"""ONNX file to `Graph`: everything a stranger's file can do wrong is found here, before any pass runs."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper, shape_inference

from bridge.errors import BridgeError
from bridge.exact.attributes import check_attributes, check_output_types
from bridge.exact.budget import Budget, size_of
from bridge.exact.ceil_mode import settle_ceil_mode
from bridge.exact.element_types import refuse_unnamed_types
from bridge.exact.functions import inlined
from bridge.exact.graph import Graph, Node, Tensor
from bridge.exact.guard import MOST_AXES, first_sentence, guard
from bridge.exact.names import free_name, reserved
from bridge.exact.passes.fold import SMALL, fold
from bridge.exact.readers.opsets import check_opset, settled
from bridge.exact.readers.order import in_order
from bridge.exact.readers.qoperator import as_qdq
from bridge.exact.remarks import remarks
from bridge.exact.sparse import dense
from bridge.exact.tools import tool_of
from bridge.exact.unwritten import of_other_domains


def read(
    path: Path,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    budget: Budget | None = None,
    known: Container[str] | None = None,
) -> Graph:
    """The graph of an ONNX file, every tensor with its fixed shape; nothing folded, nothing quantized yet.

    `input_shapes` fixes what the file leaves open; operators outside `known` are refused before their shapes are inferred. Raises `BridgeError` for a file that is missing, cut short, not
    ONNX, inconsistent, of an opset outside 10 to the newest known, with dimensions left open, larger than `budget`
    allows, or whose external data lies outside its folder.
    """
    try:
        model = parse(path)
        check_opset(model, path.name)  # before its data is loaded
        _load_external_data(model, path)
        return from_model(model, path.name, input_shapes, budget, known)
    except UnicodeDecodeError as error:  # protobuf decodes a name when it is first looked at
        raise _no_text(path.name) from error


def _no_text(where: str) -> BridgeError:
    return BridgeError(
        where=where, problem="holds a name that is no UTF-8 text", remedy="The file is damaged; export it again."
    )


def _refuse_no_text(model: onnx.ModelProto, file: str) -> None:
    """protobuf gives a name that is no UTF-8 text as bytes; onnx 1.23 raises TypeError where it is asked about one."""
    bodies = (model.graph.node, *(function.node for function in model.functions))
    for node in (node for body in bodies for node in body):
        if any(isinstance(name, bytes) for name in (node.op_type, node.domain, node.name, *node.input, *node.output)):
            raise _no_text(file)


def from_model(
    model: onnx.ModelProto,
    file: str = "model",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    budget: Budget | None = None,
    known: Container[str] | None = None,
) -> Graph:
    """As `read`, for a model in memory whose tensor data is complete; `model` may be changed."""
    budget = budget or Budget()
    _refuse_counts(model, file, budget)
    _refuse_no_text(model, file)
    tool = tool_of(model)
    model = inlined(model, file, budget)
    refuse_unnamed_types(model, file)
    in_order(model)
    settled(model, file)
    model = as_qdq(model, file)
    _fix_inputs(model, file, input_shapes or {})
    constants = dict(_take_constants(model, budget))
    budget.stored = sum(array.size for array in constants.values())
    check_attributes(model, file)
    check_output_types(model, constants, file)
    refuse_not_finite(constants, file)
    _refuse_beyond_int32(model, constants, file)
    propagate = guard(model, tuple(_nodes(model, file)), constants, file, budget, known)
    while True:
        settle_ceil_mode(model, lambda: _shapes(_infer(model, constants, file, propagate, strict=False)))
        graph = _described(model, constants, file, propagate)
        for name, tensor in graph.tensors.items():
            budget.refuse_tensor(size_of(tensor.shape), f"{file}, tensor '{name}'")
        unknown = [
            node for node in graph.nodes if any(-1 in graph.tensors[name].shape for name in node.outputs if name)
        ]
        if not unknown:
            return replace(graph, notes=remarks(model, graph), tool=tool)
        # Shapes computed inside the model (Shape, Gather, Mul, ...): fold what is known by now, and infer again.
        folded = fold(graph, budget)
        found = {name: data for name, data in _arithmetic(graph, folded) if name not in constants}
        if not found:
            raise BridgeError(
                where=f"{file}, {unknown[0]}",
                problem="has an output whose shape depends on the data",
                remedy="Export with fixed shapes; integer kernels are planned for them.",
            )
        constants.update(found)
        kept = [node for node in model.graph.node if not set(node.output) & set(found)]
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _arithmetic(graph: Graph, folded: Graph) -> Iterator[tuple[str, np.ndarray]]:
    """What folding found out, without Q/DQ: those constants must keep their scales until the passes run."""
    for node in graph.nodes:
        for name in node.outputs:
            tensor = folded.tensors.get(name)
            if tensor is None or tensor.data is None or tensor.data.size > SMALL or tensor.qparams is not None:
                continue
            if node.op not in ("QuantizeLinear", "DequantizeLinear"):
                yield name, tensor.data


def _described(model: onnx.ModelProto, constants: Mapping[str, np.ndarray], file: str, propagate: bool) -> Graph:
    inferred = _infer(model, constants, file, propagate)
    tensors = {name: Tensor(name, array.shape, array.dtype, array) for name, array in constants.items()}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        if value.name not in tensors:
            tensors[value.name] = Tensor(value.name, _shape(value), _dtype(value.type.tensor_type.elem_type))
    nodes = _nodes(model, file)
    for node in nodes:
        for name in node.outputs:
            if name and name not in tensors:
                tensors[name] = Tensor(name, (-1,), np.dtype(np.float32))
    inputs = tuple(value.name for value in model.graph.input if value.name not in constants)
    return Graph(nodes, tensors, inputs, tuple(value.name for value in model.graph.output))


def parse(path: Path) -> onnx.ModelProto:
    """The model as it stands in the file, external data not loaded; raises `BridgeError` when it is not ONNX."""
    try:
        _refuse_unbounded(path)
        data = path.read_bytes()
    except OSError as error:
        raise BridgeError(
            where=str(path),
            problem=f"cannot be read ({error.strerror})",
            remedy="Check the path; the bridge reads one .onnx file.",
        ) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
        whole = bool(model.graph.node) and bool(model.opset_import)
    except DecodeError:
        whole = False
    if not whole:
        raise BridgeError(
            where=path.name,
            problem=f"not a readable ONNX file ({len(data)} bytes read)",
            remedy="The export or download was probably cut short; export it again. No file was written.",
        )
    return model


_LARGEST_FILE = 2**31 - 1
"""protobuf reads no more (protobuf.dev, "Proto Limits")."""


def _refuse_unbounded(path: Path) -> None:
    """A pipe never ends, /dev/zero neither, and protobuf has its own end; raises `OSError` where there is no file."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):  # a folder's own error is clear
        raise BridgeError(
            where=str(path),
            problem="is not a regular file (a device, a pipe or a socket)",
            remedy="Write the model to a file first; the bridge reads one .onnx file.",
        )
    if found.st_size > _LARGEST_FILE:
        raise BridgeError(
            where=str(path),
            problem=f"has {found.st_size:,} bytes; one ONNX file holds at most {_LARGEST_FILE:,}",
            remedy="Save it with its weights beside it: onnx.save(model, path, save_as_external_data=True).",
        )


def parse_whole(path: Path) -> onnx.ModelProto:
    """As `parse`, with the data that the exporter put into files beside the model's.

    Raises `BridgeError` as `parse` does, and for data that is missing, too short, or said to lie outside the folder.
    """
    model = parse(path)
    _load_external_data(model, path)
    return model


def files_of(path: Path) -> tuple[Path, ...]:
    """The files beside the model that hold its data; none where the model cannot be read."""
    try:
        tensors = parse(path).graph.initializer
    except (BridgeError, UnicodeDecodeError):
        return ()
    entries = (entry for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    return tuple(path.parent / name for name in dict.fromkeys(entry.value for entry in entries) if "\0" not in name)


_TIMES_READ = 16
"""How often the bytes of the data files may be read in all; tensors that are tied share theirs."""


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    folder = path.resolve().parent
    sizes: dict[Path, int] = {}
    read = 0
    for tensor in model.graph.initializer:
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        where = f"{path.name}, tensor '{tensor.name}'"
        target = (folder / location.replace("\0", "?")).resolve()
        if not location or not target.is_relative_to(folder):
            raise BridgeError(
                where=where,
                problem=f"its data is said to lie in '{location}', outside the model's folder",
                remedy="Do not trust this file; a genuine export keeps its data beside the model.",
            )
        try:
            found = target.stat()
            sizes[target] = found.st_size
            read += _extent(tensor, found)
            if read > _TIMES_READ * sum(sizes.values()):
                raise BridgeError(
                    where=where,
                    problem=f"and the tensors before read {read:,} bytes of files that have {sum(sizes.values()):,}",
                    remedy="Export again; each tensor has its own part of the data file.",
                )
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise BridgeError(
                where=where,
                problem=f"its data file '{location}' is missing or too short",
                remedy="Copy the data file beside the model, or export again in one file.",
            ) from error
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _extent(tensor: onnx.TensorProto, found: os.stat_result) -> int:
    """Bytes that will be read; `ValueError` for an offset or length that the file does not have, or for no file."""
    numbers = {entry.key: int(entry.value) for entry in tensor.external_data if entry.key in ("offset", "length")}
    offset = numbers.get("offset", 0)
    if not stat.S_ISREG(found.st_mode) or not 0 <= offset <= offset + numbers.get("length", 0) <= found.st_size:
        raise ValueError(numbers)
    return numbers.get("length", 0) or found.st_size - offset


def _fix_inputs(model: onnx.ModelProto, file: str, input_shapes: Mapping[str, Sequence[int]]) -> None:
    given = dict(input_shapes)
    constant = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in constant:
            continue
        if isinstance(value.name, str) and "\0" in value.name:
            raise BridgeError(
                where=f"{file}, input '{value.name}'",
                problem="has a name with a NUL character, which ends a name in a .tflite",
                remedy="The file is damaged or was edited by hand; export it again.",
            )
        if value.type.tensor_type.elem_type not in onnx.TensorProto.DataType.values()[1:]:
            raise BridgeError(
                where=f"{file}, input '{value.name}'",
                problem="does not say what type it is",
                remedy="The file is damaged or was edited by hand; export it again.",
            )
        dims = value.type.tensor_type.shape.dim
        if value.name in given:
            wanted = tuple(given.pop(value.name))
            fits = len(wanted) == len(dims) and all(
                size > 0 and dim.dim_value in (0, size) for size, dim in zip(wanted, dims, strict=False)
            )
            if not fits:
                raise BridgeError(
                    where=f"{file}, input '{value.name}'",
                    problem=f"shape {wanted} does not fit {_shown(value)}",
                    remedy="Give one positive number for each dimension; those that the file fixes stay as they are.",
                )
            for dim, size in zip(dims, wanted, strict=True):
                dim.dim_value = size
        if not value.type.tensor_type.HasField("shape") or any(dim.dim_value <= 0 for dim in dims):
            raise BridgeError(
                where=f"{file}, input '{value.name}'",
                problem=f"has a dynamic shape, {_shown(value)}; integer kernels are planned for fixed ones",
                remedy=f"Export with fixed shapes, or pass --input-shape {value.name}=1,3,224,224 (your numbers).",
            )
    if given:
        raise BridgeError(
            where=f"{file}, input '{next(iter(given))}'",
            problem="is not an input of this model",
            remedy=f"Its inputs: {', '.join(v.name for v in model.graph.input if v.name not in constant)}.",
        )


def _shown(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "(" + ", ".join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims) + ")"


def _refuse_counts(model: onnx.ModelProto, file: str, budget: Budget) -> None:
    """Before anything walks over them."""
    budget.refuse_nodes(len(model.graph.node) + sum(len(function.node) for function in model.functions), file)
    for what, listed in (
        ("constants", model.graph.initializer),
        ("described tensors", model.graph.value_info),
        ("inputs", model.graph.input),
        ("outputs", model.graph.output),
        ("local functions", model.functions),
    ):
        budget.refuse_nodes(len(listed), file, what)


def _take_constants(model: onnx.ModelProto, budget: Budget) -> Iterator[tuple[str, np.ndarray]]:
    """Initializers and Constant nodes as arrays; they leave the model, so that its data is held once."""
    seen: set[str] = set()

    def first(name: str) -> str:
        if name in seen:
            raise BridgeError(
                where=f"constant '{name}'",
                problem="is in the file twice",
                remedy="The tool that wrote it left it broken; export again.",
            )
        seen.add(name)
        return name

    while model.graph.initializer:
        tensor = model.graph.initializer.pop()
        yield first(tensor.name), _array(tensor)
    while model.graph.sparse_initializer:
        sparse = model.graph.sparse_initializer.pop()
        yield first(sparse.values.name), dense(sparse, sparse.values.name, budget)
    kept = []
    seen.update(value.name for value in model.graph.input)  # a default is an initializer, and no node writes an input
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.attribute) == 1:
            yield first(node.output[0] if node.output else ""), _constant_value(node, budget)
        else:
            kept.append(node)
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    if external_data_helper.uses_external_data(tensor) or tensor.data_type == onnx.TensorProto.STRING:
        raise BridgeError(
            where=f"constant '{tensor.name}'",
            problem="holds text, or has its data in another file although it is no initializer",
            remedy="Export again in one file, with numbers only.",
        )
    listed = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    available = 2 * len(tensor.raw_data) + 2 * sum(len(numbers) for numbers in listed)  # int4 packs two in a number
    try:
        if size_of(tensor.dims) > available:
            raise ValueError(available)  # noqa: TRY301 - said as what NumPy finds
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise BridgeError(
            where=f"initializer '{tensor.name}'",
            problem=f"its data does not fit its shape {tuple(tensor.dims)[:MOST_AXES]}",
            remedy="The file is damaged; export it again.",
        ) from error
    if array.shape != tuple(tensor.dims):  # NumPy takes -1 for the rest
        raise BridgeError(
            where=f"initializer '{tensor.name}'",
            problem=f"has shape {tuple(tensor.dims)}",
            remedy="The file is damaged; export it again.",
        )
    return array


def _constant_value(node: onnx.NodeProto, budget: Budget) -> np.ndarray:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return _array(attribute.t)
    if attribute.name == "sparse_value":
        return dense(attribute.sparse_tensor, node.output[0], budget)
    value = onnx.helper.get_attribute_value(attribute)
    try:
        return np.array(value, np.float32 if attribute.name.startswith("value_float") else np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise BridgeError(
            where=f"Constant '{node.name}', attribute '{attribute.name}'",
            problem="holds text or a model, and no number",
            remedy="Export the model for inference; the kernels compute with numbers only.",
        ) from error


def _shapes(inferred: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    return {value.name: _shape(value) for value in values}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sizes, -1 for an unknown one; (-1,) where not even the number of axes is known."""
    if not value.type.tensor_type.HasField("shape"):
        return (-1,)
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


def _infer(
    model: onnx.ModelProto, constants: Mapping[str, np.ndarray], file: str, propagate: bool, *, strict: bool = True
) -> onnx.ModelProto:
    """Shapes by onnx's own inference, on a copy in which a large constant is only its shape; types checked on the way.

    The types of Q/DQ operands are left to passes/fold.py and passes/qdq.py, whose sentences name the tensor.
    """
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    present = {value.name for value in slim.graph.input}
    for name, array in constants.items():
        if array.size <= SMALL:
            slim.graph.initializer.append(numpy_helper.from_array(array, name))
        elif name not in present:
            elem_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            slim.graph.input.append(onnx.helper.make_tensor_value_info(name, elem_type, array.shape))
    _tame_slices(slim, constants)
    try:
        onnx.checker.check_model(slim)
        try:
            return shape_inference.infer_shapes(slim, check_type=True, strict_mode=strict, data_prop=propagate)
        except shape_inference.InferenceError as error:
            if not re.search(r"op_type:(Q|Deq)uantizeLinear", str(error)):
                raise
            return shape_inference.infer_shapes(slim, check_type=False, strict_mode=strict, data_prop=propagate)
    except (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError) as error:
        raise BridgeError(
            where=file,
            problem=f"is not a consistent ONNX graph: {first_sentence(error)}",
            remedy="The tool that wrote it left it broken; export again, or ask onnx.checker for the whole story.",
        ) from error


def _tame_slices(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> None:
    """Starts, ends and steps of Slice within 2^30, which mean the same: no axis is longer.

    onnx 1.19.1 counts from start to end in 32 bits (data propagation of Slice): larger steps wrap around, and it never
    ends, or ends the process.
    """
    largest = 2**30
    for node in model.graph.node:
        if node.op_type != "Slice":
            continue
        for place in (1, 2, 4):
            name = node.input[place] if place < len(node.input) else ""
            array = constants.get(name)
            if array is None or array.dtype != np.int64 or not (np.abs(array.astype(np.float64)) > largest).any():
                continue
            tamed = f"{name}/within bounds"
            while tamed in constants:
                tamed += "'"
            if all(tensor.name != tamed for tensor in model.graph.initializer):
                clipped = np.clip(array, -largest, largest)
                model.graph.initializer.append(numpy_helper.from_array(clipped, tamed))
            node.input[place] = tamed


def refuse_not_finite(constants: Mapping[str, np.ndarray], file: str) -> None:
    for name, array in constants.items():
        if array.dtype.kind == "f" and array.ndim > 0 and not np.isfinite(array).all():
            raise BridgeError(
                where=f"{file}, constant '{name}'",
                problem="holds NaN or infinity",
                remedy="The training diverged, or the file is damaged; no integer can stand for these values.",
            )


_SHAPE_OPERAND = {"Reshape": 1, "Expand": 1, "Resize": 3}


def _refuse_beyond_int32(model: onnx.ModelProto, constants: Mapping[str, np.ndarray], file: str) -> None:
    """TFLite counts elements in int32; and onnx's shape inference counts some of such an axis step by step."""
    asked = [(f"input '{value.name}'", max(_shape(value), default=0)) for value in model.graph.input]
    for node in model.graph.node:
        place = _SHAPE_OPERAND.get(node.op_type, len(node.input))
        shape = constants.get(node.input[place]) if place < len(node.input) else None
        if shape is not None and shape.dtype.kind == "i" and shape.size:
            asked.append((f"{node.op_type} '{node.name}'", int(shape.max())))
    for where, size in asked:
        if size > np.iinfo(np.int32).max:
            raise BridgeError(
                where=f"{file}, {where}",
                problem=f"has a dimension of {size} elements, more than TFLite can count",
                remedy="The file is damaged; export it again.",
            )


def _dtype(elem_type: int) -> np.dtype:
    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except (KeyError, TypeError):
        return np.dtype(np.float32)


def _nodes(model: onnx.ModelProto, file: str) -> tuple[Node, ...]:
    """Every node under a name of its own: ONNX lets several share one, or have none."""
    with reserved([node.name for node in model.graph.node]):
        return tuple(_read_nodes(model, file))


def _read_nodes(model: onnx.ModelProto, file: str) -> Iterator[Node]:
    seen: set[str] = set()
    others = [
        (node.domain, node.op_type, node.name or str(index))
        for index, node in enumerate(model.graph.node)
        if node.domain not in ("", "ai.onnx")
    ]
    if others:
        raise of_other_domains(others, file)
    for index, node in enumerate(model.graph.node):
        attrs = {attribute.name: _attribute(attribute) for attribute in node.attribute}
        name = node.name
        if not name or name in seen:
            name = free_name(name or f"{node.op_type}_{index}")
        seen.add(name)
        yield Node(node.op_type, name, _without_end(node.input), _without_end(node.output), attrs)


def _without_end(names: Sequence[str]) -> tuple[str, ...]:
    """Operands by name; those left out at the end are not there, one way or the other (ONNX IR, optional inputs)."""
    return tuple(names[: max((place + 1 for place, name in enumerate(names) if name), default=0)])


def _attribute(attribute: onnx.AttributeProto) -> Any:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _array(attribute.t)
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value
