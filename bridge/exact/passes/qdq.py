"""Q/DQ nodes become parameters on tensors: every tensor that training gave a scale carries it from here on.

x -> QuantizeLinear -> [Cast | Clip] -> DequantizeLinear -> y      becomes one int8 tensor x with QParams
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact import operators
from bridge.exact.graph import (
    Graph,
    Limits,
    Node,
    Origin,
    QParams,
    Tensor,
    add_made,
    constant,
    per_tensor,
    without_unused,
)
from bridge.exact.names import free_name
from bridge.exact.operators.record import Vanishes
from bridge.exact.passes.fold import qparams_of, refuse_training


def attach(graph: Graph) -> Graph:
    """Turn Q/DQ pairs on activations into `QParams`, and drop the nodes that only hand a tensor on.

    What stays is a `Quantize` node wherever a tensor that has one scale is rescaled to another, or a tensor that stays
    float is quantized. Raises `BridgeError` when a pair contradicts itself.
    """
    coded = _code_tensors(graph)
    return without_unused(_into_producers(without_unused(coded)))


def _code_tensors(graph: Graph) -> Graph:
    """`QuantizeLinear` outputs as int8 tensors, each `DequantizeLinear` output as another name for its input."""
    tensors = dict(graph.tensors)
    alias: dict[str, str] = {}
    written_as: dict[str, tuple[QParams, np.dtype]] = {}
    real: set[str] = set()  # other names of codes that the file reads as real numbers: a Clip there has real limits
    gives_codes = any(graph.tensors[name].dtype.kind in "iu" for name in graph.outputs)
    limits: dict[str, tuple[int, int]] = {}  # of codes that a Clip went over, as the file numbers them
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        is_real = bool(node.inputs) and node.inputs[0] in real
        coded = [
            name in written_as or _holds_integers(tensors[name]) if name and was not in real else False
            for was, name in zip(node.inputs, inputs, strict=True)
        ]
        node = replace(node, inputs=inputs)
        operands = [tensors[name] if name else None for name in inputs]
        first, output = inputs[0] if inputs else "", node.outputs[0]
        on_codes = first in written_as and not is_real
        vanishes = operators.of(node).vanishes
        if vanishes not in (Vanishes.COPY, Vanishes.CAST):
            _refuse_arithmetic_on_codes(node, coded, is_real, tensors, written_as)
        casts_nothing = vanishes is Vanishes.CAST and _casts_nothing(node, tensors, written_as, on_codes)
        if vanishes is Vanishes.COPY or casts_nothing:
            if node.op == "Dropout":
                refuse_training(node, operands)
                _refuse_mask(node, graph)
            alias[output] = first
            if is_real:
                real.add(output)
        elif node.op == "QuantizeLinear":
            if first in graph.inputs and first not in written_as and tensors[first].dtype != np.float32:
                raise BridgeError(
                    where=f"{node}, input '{first}'",
                    problem=f"is {tensors[first].dtype}; a QuantizeLinear takes real numbers, in float32",
                    remedy="Export the model with a float32 input.",
                )
            qparams, dtype = _one_scale(node, operands, tensors[first])
            tensors[output] = Tensor(output, tensors[first].shape, np.dtype(np.int8), None, qparams)
            written_as[output] = (qparams, dtype)
            kept.append(Node("Quantize", node.name, (first,), (output,)))
        elif node.op == "Clip" and on_codes:
            written_as[output] = written_as[first]
            limits[output] = low, high = _limits_of_codes(node, operands, written_as[first][1], limits.get(first))
            source = next((before for before in kept if before.outputs == (first,) and before.op == "Quantize"), None)
            if source is None:  # codes that were moved in between
                moved = tensors[first].q
                open_end = QParams(moved.scale, moved.zero_point, moved.axis)
                tensors[output] = replace(tensors[first], name=output, qparams=open_end)
                within = _real_limits(low, high, *written_as[first])
                kept.append(Node("Limit", node.name, (first,), (output,), limits=within))
            else:  # several readers of the unclipped codes are possible, so the clip gets a Quantize of its own
                tensors[output] = replace(
                    tensors[first], name=output, qparams=_clamped(low, high, *written_as[first], gives_codes)
                )
                kept.append(Node("Quantize", node.name, source.inputs, (output,)))
        elif node.op == "DequantizeLinear":
            if first in written_as:  # without a zero point, the type of the codes in the file says what they mean
                operands[0] = replace(tensors[first], dtype=written_as[first][1])
            qparams, dtype = _one_scale(node, operands, tensors[first])
            if first not in written_as and first not in graph.inputs:
                raise BridgeError(
                    where=f"{node}, input '{first}'",
                    problem="dequantizes what no QuantizeLinear has quantized",
                    remedy="Export in QDQ form: what lies between a QuantizeLinear and its DequantizeLinear must only move codes.",
                )
            if first not in written_as:  # codes from outside: an integer input of the model
                if tensors[first].dtype != dtype:
                    raise BridgeError(
                        where=f"{node}, input '{first}'",
                        problem=f"is {tensors[first].dtype}, and its zero point is {dtype}",
                        remedy="A DequantizeLinear takes codes: the file is damaged or was edited by hand; export it again.",
                    )
                tensors[first] = replace(tensors[first], dtype=np.dtype(np.int8), qparams=qparams)
                written_as[first] = (qparams, dtype)
            if written_as[first] != (qparams, dtype):
                raise BridgeError(
                    where=f"{node}, input '{first}'",
                    problem=f"dequantizes with {qparams} what was quantized with {written_as[first][0]}",
                    remedy="Quantize and dequantize of one tensor must share scale and zero point; export again.",
                )
            alias[output] = first
            real.add(output)
            if tensors[first].origin is None:
                tensors[first] = replace(tensors[first], origin=Origin(output))
        else:
            if on_codes:
                for name in filter(None, node.outputs):
                    tensors[name] = replace(
                        tensors[name], dtype=np.dtype(np.int8), qparams=tensors[first].q, origin=None
                    )
                    written_as[name] = written_as[first]
                if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant":
                    filler = _filler(node, operands, *written_as[first])
                    add_made(tensors, filler)
                    node = replace(node, inputs=(*inputs[:2], filler.name, *inputs[3:]))
            kept.append(node)
    outputs = tuple(alias.get(name, name) for name in graph.outputs)
    return _named_as_outputs(replace(graph, nodes=tuple(kept), tensors=tensors, outputs=outputs), graph.outputs)


def _one_scale(node: Node, operands: list[Tensor | None], x: Tensor) -> tuple[QParams, np.dtype]:
    """The parameters of an activation; raises `BridgeError` for a scale of each channel, which only weights have."""
    qparams, dtype = qparams_of(node, operands, x.shape)
    if qparams.axis is not None:
        raise BridgeError(
            where=f"{node}, activation '{x.name}'",
            problem=f"has {qparams.scale.size} scales, one for each channel; the kernels take one for a whole activation",
            remedy="Train with a per-tensor observer for activations, for example qconfig 'tflite'.",
        )
    return qparams, dtype


def _means_the_same_on_codes(node: Node) -> bool:
    """Whether some exporters put it between the pair, on the codes themselves.

    It chooses among its inputs' codes: a Concat of codes with one meaning, a Resize to the nearest. A Pad pads with a code,
    a Clip has limits that are codes. Whatever computes (Add, Mul, Relu, ...) means something else on codes.
    """
    return operators.moves(node) or node.op == "Clip"


def _refuse_mask(node: Node, graph: Graph) -> None:
    mask = node.outputs[1] if len(node.outputs) > 1 else ""
    if mask and (mask in graph.outputs or any(mask in reader.inputs for reader in graph.nodes)):
        raise BridgeError(
            where=f"{node}, output '{mask}'",
            problem="is the mask of what was dropped, and something reads it",
            remedy="Call model.eval() before the export.",
        )


def _holds_integers(tensor: Tensor) -> bool:
    return not tensor.is_constant and tensor.dtype in (np.dtype(np.int8), np.dtype(np.uint8))


def _refuse_arithmetic_on_codes(
    node: Node,
    coded: list[bool],
    is_real: bool,
    tensors: dict[str, Tensor],
    written_as: dict[str, tuple[QParams, np.dtype]],
) -> None:
    """Raise `BridgeError` for an operator between a pair that would compute something else on the real numbers."""
    if node.op == "DequantizeLinear":
        if is_real:
            raise BridgeError(
                where=f"{node}, input '{node.inputs[0]}'",
                problem="dequantizes real numbers",
                remedy="The tool that wrote it left it broken; export again.",
            )
        return
    if not any(coded):
        return
    moves = _means_the_same_on_codes(node)
    if node.op == "Concat" and moves:
        moves = all(coded) and len({written_as.get(name) for name in node.inputs}) == 1
        moves = moves and len({tensors[name].qparams for name in node.inputs}) == 1
    elif any(coded[1:]):
        moves = False
    if not moves:
        which = node.inputs[coded.index(True)]
        raise BridgeError(
            where=f"{node}, input '{which}'",
            problem="computes on the codes of a quantized tensor, not on the numbers that they stand for"
            + ("; its inputs have different scales" if node.op == "Concat" and all(coded) else ""),
            remedy="Put a DequantizeLinear before the operator and a QuantizeLinear behind it.",
        )


def _filler(node: Node, operands: list[Tensor | None], qparams: QParams, dtype: np.dtype) -> Tensor:
    """What a Pad of codes pads with: a code of the file, 0 where it says none."""
    given = operands[2] if len(operands) > 2 else None
    code = 0 if given is None else int(given.values.reshape(-1)[0])
    shifted = np.array(code - (128 if dtype == np.uint8 else 0), np.int8)
    return constant(free_name(f"{node.name}/filler"), shifted, per_tensor(qparams.scale, int(qparams.zero_point)))


def _casts_nothing(
    node: Node, tensors: dict[str, Tensor], coded: dict[str, tuple[QParams, np.dtype]], on_codes: bool
) -> bool:
    """A Cast of codes to their own type (catalogue entry M14), or of float to float."""
    import onnx

    to = onnx.helper.tensor_dtype_to_np_dtype(node.attrs["to"])
    x = node.inputs[0]
    now = coded[x][1] if on_codes else np.dtype(np.float32) if x in coded else tensors[x].dtype
    return bool(to == now)


def _limits_of_codes(
    node: Node, operands: list[Tensor | None], dtype: np.dtype, before: tuple[int, int] | None
) -> tuple[int, int]:
    """Between which codes, as the file numbers them, a Clip on codes leaves them; `before`: as an earlier one did."""
    whole = np.iinfo(np.uint8 if dtype == np.uint8 else np.int8)
    given = [None if operand is None else operand.values.reshape(-1) for operand in (*operands[1:], None, None)[:2]]
    if any(limit is not None and limit.size != 1 for limit in given):
        raise BridgeError(
            where=str(node),
            problem="has limits that are not one number each",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    lowest, highest = (
        int(end if limit is None else limit[0]) for end, limit in zip((whole.min, whole.max), given, strict=True)
    )
    was = before or (int(whole.min), int(whole.max))
    low, high = (min(max(end, lowest), highest) for end in was)  # ONNX, Clip: min(max(x, lowest), highest)
    if low >= high:
        raise BridgeError(
            where=str(node),
            problem=f"leaves one code only ({high}): its limits are {lowest} and {highest}",
            remedy="The file is damaged or was edited by hand; export it again.",
        )
    return low, high


def _real_limits(low: int, high: int, qparams: QParams, dtype: np.dtype) -> Limits:
    zero = int(qparams.zero_point) + (128 if dtype == np.uint8 else 0)
    return Limits((low - zero) * float(qparams.scale), (high - zero) * float(qparams.scale))


def _clamped(low: int, high: int, qparams: QParams, dtype: np.dtype, gives_codes: bool) -> QParams:
    """The parameters with the clamp of a Clip on codes.

    7-bit activations (0..127 in uint8) keep their codes instead of moving by 128: int8 saturation is then the trained
    clamp at the top (catalogue entry M02). Not where the model gives codes: those are 128 lower, without exception.
    """
    shift = 128 if dtype == np.uint8 else 0
    if shift and not gives_codes and high <= 127 and int(qparams.zero_point) + 128 <= 127:
        return QParams(qparams.scale, np.asarray(qparams.zero_point + np.int32(128)), None, low, high)
    return QParams(qparams.scale, qparams.zero_point, qparams.axis, low - shift, high - shift)


def _named_as_outputs(graph: Graph, names: tuple[str, ...]) -> Graph:
    """Every model output under its own name; one that is an input too, or another output, is a copy of that.

    A copy, because what the caller hands in may be of another type than what it gets back (borders.py).
    """
    renamed: dict[str, str] = {}
    copies: list[Node] = []
    tensors = dict(graph.tensors)
    outputs = list(graph.outputs)
    for place, (inner, outer) in enumerate(zip(graph.outputs, names, strict=True)):
        if inner == outer or tensors[inner].is_constant or renamed.get(inner) == outer:
            continue
        if inner in renamed or inner in graph.inputs or inner in names:  # in names: codes, beside their real numbers
            if outer not in outputs:
                tensors[outer] = replace(tensors[inner], name=outer)
                copies.append(Node("Reshape", free_name(f"{outer}/copy"), (inner,), (outer,)))
            outputs[place] = outer
        else:
            renamed[inner] = outer
    copied = replace(graph, nodes=(*graph.nodes, *copies), tensors=tensors, outputs=tuple(outputs))
    return rename(copied, renamed) if renamed else copied


def rename(graph: Graph, names: dict[str, str]) -> Graph:
    """The same graph with some tensors under other names; a name is taken over only from what nothing uses any more."""
    used = {*graph.inputs, *graph.outputs}.union(*((*node.inputs, *node.outputs) for node in graph.nodes))
    taken_over = used.intersection(names.values()).difference(names)
    if taken_over or len(set(names.values())) < len(names):
        raise AssertionError(f"renaming {names} overwrites {sorted(taken_over)}")
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name not in set(names.values())}
    for old, new in names.items():
        tensors[new] = replace(tensors.pop(old), name=new)

    def renamed(old: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(name, name) for name in old)

    return replace(
        graph,
        nodes=tuple(replace(node, inputs=renamed(node.inputs), outputs=renamed(node.outputs)) for node in graph.nodes),
        tensors=tensors,
        inputs=renamed(graph.inputs),
        outputs=renamed(graph.outputs),
    )


def _into_producers(graph: Graph) -> Graph:
    """A Quantize whose input nobody else reads as float disappears into the operator that computes the input."""
    consumers, producers = graph.consumers(), graph.producers()
    tensors = dict(graph.tensors)
    alias: dict[str, str] = {}
    into: dict[str, str] = {}  # float tensor -> the int8 tensor that takes its place
    kept: list[Node] = []
    for node in graph.nodes:
        unquantized = node.inputs[0] if node.inputs else ""  # the codes of x may go by the name of x by now
        node = replace(node, inputs=tuple(alias.get(name, name) for name in node.inputs))
        if node.op != "Quantize":
            kept.append(node)
            continue
        x, codes = node.inputs[0], node.outputs[0]
        if unquantized in into:
            alias[codes] = into[unquantized]
        elif tensors[x].qparams == tensors[codes].q:
            alias[codes] = x
        elif tensors[x].qparams is None and _only_quantized_alike(x, graph, consumers):
            # A model input or output keeps its name, everything else keeps the name of the value it holds.
            winner = codes if codes in graph.outputs and x not in graph.inputs else x
            origin = tensors[codes].origin or _origin_of_twins(x, consumers, tensors)
            tensors[winner] = replace(tensors[codes], name=winner, origin=origin)
            into[x] = winner
            alias[codes] = winner
        else:
            kept.append(node)
    live = {name: into.get(name, name) for name in producers}
    nodes = tuple(
        replace(
            node,
            inputs=tuple(alias.get(name, name) for name in node.inputs),
            outputs=tuple(live.get(name, name) for name in node.outputs),
        )
        for node in kept
    )
    inputs = tuple(into.get(name, name) for name in graph.inputs)
    outputs = tuple(alias.get(name, name) for name in graph.outputs)
    return _named_as_outputs(
        replace(graph, nodes=nodes, tensors=tensors, inputs=inputs, outputs=outputs), graph.outputs
    )


def _only_quantized_alike(x: str, graph: Graph, consumers: dict[str, list[Node]]) -> bool:
    readers = consumers[x]
    if x in graph.outputs or any(reader.op != "Quantize" for reader in readers):
        return False
    used = [reader for reader in readers if consumers.get(reader.outputs[0]) or reader.outputs[0] in graph.outputs]
    wanted = {graph.tensors[reader.outputs[0]].q for reader in used}
    return len(wanted) == 1


def _origin_of_twins(x: str, consumers: dict[str, list[Node]], tensors: dict[str, Tensor]) -> Origin | None:
    origins = [tensors[reader.outputs[0]].origin for reader in consumers[x]]
    return next((origin for origin in origins if origin is not None), None)
