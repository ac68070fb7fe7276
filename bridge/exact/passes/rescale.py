"""Where TFLite's kernels cannot change the scale, a QUANTIZE does; where nothing was trained, the border of float.

    MaxPool(x at s1) -> y at s2       becomes   MaxPool at s1, then Quantize to s2, then its limits, if s1 has no code for them
    Concat(a at s1, b at s2) -> y     becomes   Quantize(a), Quantize(b), then Concat at the scale of y; Min, Max, limits alike
    Softmax -> y at a trained scale   becomes   Softmax at 1/256, then Quantize to the trained scale
    AveragePool(x at s1) -> y at s2   stays: it becomes a convolution, which has a scale of its own

Source: TFLite 8-bit quantization specification (which operators must share or fix their scales); catalogue entry M33
measured which of these rules the runtime lets a file break in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from bridge.errors import BridgeError
from bridge.exact import operators
from bridge.exact.arithmetic import code_of, quantize
from bridge.exact.graph import Graph, Node, Note, QParams, Tensor, add_made, constant, per_tensor
from bridge.exact.names import free_name
from bridge.exact.tools import TOOLS


def rescale(graph: Graph, *, allow_float: bool = False) -> Graph:
    """Every operator either all int8 with the scales its kernel allows, or all float behind a border.

    Raises `BridgeError`, naming operator and tensor, when a tensor has no parameters and `allow_float` is not set.
    """
    if not allow_float:
        _require_parameters(graph)
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    notes = list(graph.notes)
    plain: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "Quantize" or _is_integer(node, tensors):
            items = _within_rules(node, tensors, notes)
        else:
            notes.append(Note("float", str(node), "has a tensor without a trained scale"))
            items = _behind_border(node, tensors, plain)
        for item in items:
            if isinstance(item, Tensor):
                add_made(tensors, item)
            else:
                nodes.extend(_keeping_clamp(item, tensors, notes))
    return replace(graph, nodes=tuple(nodes), tensors=tensors, notes=tuple(notes))


def _need_parameters(node: Node, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """What must have a trained scale before the node can be int8: its activations, and its weight."""
    names = dict.fromkeys((*node.inputs, *node.outputs))
    needed = [tensors[name] for name in names if name and not tensors[name].is_constant]
    if node.inputs and tensors[node.inputs[0]].is_constant and len(needed) == len(node.outputs):
        needed.append(tensors[node.inputs[0]])  # nothing of it is computed: there is no scale to take for a constant
    return [*needed, tensors[node.inputs[1]]] if operators.of(node).weights is not None else needed


def _is_integer(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    return all(tensor.qparams is not None for tensor in _need_parameters(node, tensors))


def _require_parameters(graph: Graph) -> None:
    lacking = [
        (node, tensor)
        for node in graph.nodes
        for tensor in _need_parameters(node, graph.tensors)
        if tensor.qparams is None
    ]
    if not lacking:
        return
    node, tensor = lacking[0]
    count = len({tensor.name for _, tensor in lacking})
    if not any(tensor.qparams is not None and not tensor.is_constant for tensor in graph.tensors.values()):
        raise BridgeError(
            where=f"{node}, tensor '{tensor.name}'",
            problem="has no trained scale, and neither has any other activation: there is no Q/DQ pair in this model",
            remedy="Export the quantized model, not its float version. A PyTorch model goes to bridge.convert(model, "
            "example_inputs, path) as it is, without ONNX.",
        )
    raise BridgeError(
        where=f"{node}, tensor '{tensor.name}'",
        problem=f"has no trained scale ({count} tensor{'s' if count > 1 else ''} of this model have none)",
        remedy="It is a weight: give it a fake-quant of its own in your tool (symmetric, 8 bits), train and export again; "
        "or pass --allow-float. PyTorch's eager prepare_qat has none for transposed convolutions, and for Conv1d only "
        "together with its BatchNorm."
        if tensor.is_constant and operators.of(node).weights is not None
        else f"{TOOLS[graph.tool].scale}; train or calibrate and export again, or pass --allow-float.",
    )


Made = Iterable[Node | Tensor]


def _within_rules(node: Node, tensors: Mapping[str, Tensor], notes: list[Note]) -> Made:
    """An integer operator with Quantize nodes around it where its kernel cannot rescale."""
    if operators.of(node).aligns_inputs or (node.op == "Pad" and node.attrs["value"] != 0.0):
        yield from _aligned(node, tensors, notes)
        return
    y = tensors[node.outputs[0]]
    wanted = operators.of(node).prescribed
    if operators.of(node).shares_scale and not _averages_anew(node, tensors):
        wanted = tensors[node.inputs[0]].qparams
    if wanted is None or len(node.outputs) > 1 or wanted.same_grid(y.q):
        if node.op == "Quantize" and tensors[node.inputs[0]].qparams is not None:
            notes.append(Note("requantized", f"tensor '{y.name}'", f"{tensors[node.inputs[0]].q} to {y.q}"))
        yield from _shared_outputs(node, tensors, wanted, notes)
        return
    kind = "twice" if operators.of(node).prescribed is not None or operators.averages(node) else "requantized"
    notes.append(Note(kind, str(node), f"{wanted}, then {y.q}", y.name, float(wanted.scale) / 2))
    before = Tensor(free_name(f"{y.name}/before"), y.shape, y.dtype, None, _unclamped(wanted))
    yield before
    if _holds_limits(node, wanted):
        yield replace(node, outputs=(before.name,))
        yield Node("Quantize", free_name(f"{node.name}/requantize"), (before.name,), (y.name,))
        return
    open_y = Tensor(free_name(f"{y.name}/unlimited"), y.shape, y.dtype, None, _unclamped(y.q))
    yield open_y
    yield replace(node, outputs=(before.name,), limits=None)
    yield Node("Quantize", free_name(f"{node.name}/requantize"), (before.name,), (open_y.name,))
    yield Node("Limit", free_name(f"{node.name}/limit"), (open_y.name,), (y.name,), limits=node.kept_within)


def _holds_limits(node: Node, qparams: QParams) -> bool:
    """Whether each limit of the node is a code of these: then limiting before the rescaling is limiting behind it.

    One beyond the codes on its own side cuts nothing off. Any other one is kept by the output, whose scale was trained
    with it: 46 is no code of a tensor that ends at 23, and 23 would be written.
    """
    real = [float(qparams.scale) * (code - int(qparams.zero_point)) for code in (-128, 127)]
    low, high = node.kept_within.low, node.kept_within.high
    kept = []
    for limit, cuts_nothing in ((low, low <= real[0]), (high, high >= real[1])):
        steps = limit / float(qparams.scale) if np.isfinite(limit) else 0.0
        kept.append(cuts_nothing or (steps == np.rint(steps) and real[0] <= limit <= real[1]))
    return all(kept)


def _averages_anew(node: Node, tensors: Mapping[str, Tensor]) -> bool:
    """An average with a trained scale of its own: rounded on its input's grid first, it would be rounded twice.

    lowering/pooling.py makes it a convolution, which pads with counted zeros only.
    """
    if node.op != "AveragePool" or node.attrs.get("ceil_mode"):
        return False
    zeros_count = not any(node.attrs["pads"]) or bool(node.attrs.get("count_include_pad"))
    return zeros_count and not tensors[node.outputs[0]].q.same_grid(tensors[node.inputs[0]].q)


def _shared_outputs(node: Node, tensors: Mapping[str, Tensor], wanted: QParams | None, notes: list[Note]) -> Made:
    """Several outputs (Split): each one that training gave its own scale is rescaled on its own."""
    if wanted is None or len(node.outputs) == 1:
        yield node
        return
    outputs = []
    after: list[Node] = []
    for name in node.outputs:
        y = tensors[name]
        if wanted.same_grid(y.q):
            outputs.append(name)
            continue
        notes.append(Note("requantized", f"{node}, output '{name}'", f"{wanted} to {y.q}"))
        before = Tensor(free_name(f"{name}/before"), y.shape, y.dtype, None, _unclamped(wanted))
        yield before
        outputs.append(before.name)
        after.append(Node("Quantize", free_name(f"{name}/requantize"), (before.name,), (name,)))
    yield replace(node, outputs=tuple(outputs))
    yield from after


def _aligned(node: Node, tensors: Mapping[str, Tensor], notes: list[Note]) -> Made:
    y = tensors[node.outputs[0]]
    if _saturates(node, y) and not tensors[node.inputs[0]].q.same_grid(y.q):
        yield from _within_rules(replace(node, op="Quantize", attrs={}, limits=None), tensors, notes)
        return
    inputs = []
    open_q = _unclamped(y.q)  # one clamp behind the operator, not one on each of its inputs
    for index, name in enumerate(node.inputs):
        x = tensors[name]
        if x.qparams is not None and x.q.same_grid(y.q):
            inputs.append(name)
            continue
        moved = free_name(f"{node.name}/input{index}")
        if x.is_constant:
            yield constant(moved, quantize(x.real, y.q), y.q)  # clamped now, at no cost
        else:
            notes.append(Note("requantized", f"{node}, input '{name}'", f"{x.q} to {y.q}"))
            yield Tensor(moved, x.shape, x.dtype, None, open_q)
            yield Node("Quantize", moved, (name,), (moved,))
        inputs.append(moved)
    yield replace(node, inputs=tuple(inputs))


def _saturates(node: Node, y: Tensor) -> bool:
    """Whether the codes of `y` end where the limits of the node do."""
    if node.op != "Limit":
        return False
    return code_of(node.kept_within.low, y.q) == -128 and code_of(node.kept_within.high, y.q) == 127


def _behind_border(node: Node, tensors: Mapping[str, Tensor], plain: dict[str, str]) -> Made:
    """The operator in float, DEQUANTIZE before it and QUANTIZE after it where its neighbours are int8.

    `plain` says by what name the real numbers of a tensor's codes go, once something has asked for them. They are not
    what the operator before computed in float: that was rounded, and limited, by training in between.
    """
    inputs = []
    for name in node.inputs:
        if not name or tensors[name].qparams is None:
            inputs.append(name)
            continue
        if name not in plain:
            x, plain[name] = tensors[name], free_name(f"{name}/float")
            if x.is_constant:
                yield constant(plain[name], x.real)
            else:
                yield Tensor(plain[name], x.shape, np.dtype(np.float32))
                yield Node("Dequantize", plain[name], (name,), (plain[name],))
        inputs.append(plain[name])
    outputs: list[str] = []
    after: list[Node] = []
    for name in node.outputs:
        y = tensors[name]
        if y.qparams is None:
            outputs.append(name)
            continue
        real = Tensor(free_name(f"{name}/unquantized"), y.shape, np.dtype(np.float32))
        yield real
        outputs.append(real.name)
        after.append(Node("Quantize", free_name(f"{name}/quantize"), (real.name,), (name,)))
    yield replace(node, inputs=tuple(inputs), outputs=tuple(outputs))
    yield from after


def _keeping_clamp(node: Node, tensors: dict[str, Tensor], notes: list[Note]) -> Iterable[Node]:
    """`node`, and a Clamp on each output that could leave the range that training clamped it to (M02).

    int8 saturation is the clamp at 127, and a fused ReLU the one at the zero point; what is left gets an operator of
    its own.
    """
    outputs: list[str] = []
    after: list[Node] = []
    for name in node.outputs:
        y = tensors[name]
        if y.qparams is None or (y.q.qmin, y.q.qmax) == (-128, 127):
            outputs.append(name)
            continue
        if _stays_inside(node, y, tensors):
            notes.append(Note("clamped", f"tensor '{name}'", f"at {y.q.qmin} and {y.q.qmax}, at no cost"))
            outputs.append(name)
            continue
        before = replace(y, name=free_name(f"{name}/unclamped"), origin=None, qparams=_unclamped(y.q))
        add_made(tensors, before)
        notes.append(Note("clamped", f"tensor '{name}'", f"at {y.q.qmin} and {y.q.qmax}, by an operator of its own"))
        outputs.append(before.name)
        after.append(Node("Clamp", free_name(f"{name}/clamp"), (before.name,), (name,)))
    yield replace(node, outputs=tuple(outputs))
    yield from after


def _stays_inside(node: Node, y: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    """Whether every code that the node can write lies between the trained clamps of its output."""
    low_kept = y.q.qmin == -128 or (node.kept_within.low == 0.0 and int(y.q.zero_point) >= y.q.qmin)
    if low_kept and y.q.qmax == 127:
        return True
    operator = operators.of(node)
    one = operator.shares_scale or operator.averages
    sources = node.inputs if operator.aligns_inputs else node.inputs[:1] if one else ()
    clamped_alike = bool(sources) and all(tensors[name].qparams == y.q for name in sources)
    return clamped_alike and all(y.q.qmin <= code <= y.q.qmax for code in _brought_in(node, y))


def _brought_in(node: Node, y: Tensor) -> list[int]:
    """Codes that an operator can write although none of its inputs holds them: its limits, and what it pads with."""
    zero = int(y.q.zero_point)
    if node.op == "Pad" and node.attrs.get("mode", "constant") == "constant":
        return [code_of(node.attrs["value"], _unclamped(y.q))]
    if node.op == "AveragePool" and any(node.attrs["pads"]):
        return [zero]
    # What a limit lets through lies inside; the limit itself is written where it cuts that off.
    low = code_of(node.kept_within.low, _unclamped(y.q))
    high = code_of(node.kept_within.high, _unclamped(y.q))
    return ([low] if low > y.q.qmax else []) + ([high] if high < y.q.qmin else [])


def _unclamped(qparams: QParams) -> QParams:
    return per_tensor(qparams.scale, int(qparams.zero_point))
