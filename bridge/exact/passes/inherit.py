"""Tensors that training gave no scale of their own: where algebra or TFLite decides it, they get it here.

backward   rounding commutes with rearrangements, maxima and limits                            exact
forward    a rearrangement, a maximum, a limit of codes is still on the grid of its input      exact
fixed      softmax, sigmoid and tanh have one output scale in TFLite                           prescribed
averages   keep the scale of their input, or a finer one that they cannot leave                its rounding

Backward comes first: a pair behind Average -> Reshape belongs to the average, which is then rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bridge.exact import operators
from bridge.exact.arithmetic import code_of, dequantize, quantize
from bridge.exact.graph import Graph, Node, Note, QParams, Tensor, per_tensor
from bridge.exact.passes.grids import rounded


def inherit(graph: Graph, *, finer: bool = False) -> Graph:
    """Give every tensor its parameters that can have them without estimating anything.

    `finer`: a mean of codes that lie in a part of int8 only gets the finest scale that no mean of them leaves, instead
    of the scale of its input, which PyTorch's int8 engine takes.
    """
    tensors = dict(graph.tensors)
    notes: list[Note] = []
    readers = graph.consumers()
    # What a forward step decides never lets a backward one decide more, as every operand of such a node had its
    # parameters before: to begin with trained scales, backwards, is enough for them to win.
    while _backward(graph, tensors, readers) or _forward(graph, tensors, readers, notes, finer):
        pass
    return _without_repeats(replace(graph, tensors=tensors, notes=(*graph.notes, *notes)))


def _backward(graph: Graph, tensors: dict[str, Tensor], readers: Mapping[str, list[Node]]) -> bool:
    """Where every reader of a tensor only rearranges it, and all of them arrive at the same parameters."""
    changed = False
    written = [name for node in reversed(graph.nodes) for name in node.outputs if name]
    for name in (*written, *graph.inputs):
        if not _is_open(tensors[name]) or name in graph.outputs:
            continue
        found = {_wanted(reader, name, graph, tensors, readers) for reader in readers.get(name, ())}
        qparams = found.pop() if len(found) == 1 else None
        if qparams is not None:
            tensors[name] = quantized(tensors[name], qparams)
            changed = True
    return changed


def _wanted(
    reader: Node, name: str, graph: Graph, tensors: dict[str, Tensor], readers: Mapping[str, list[Node]]
) -> QParams | None:
    """The parameters of what a reader makes of a tensor, if rounding before it is the same as rounding after it."""
    rearranges = reader.op == "Quantize" or operators.preserves(reader)
    if not rearranges or (not operators.of(reader).reads_several and name != reader.inputs[0]):
        return None
    used = {tensors[each].qparams for each in reader.outputs if readers.get(each) or each in graph.outputs}
    qparams = used.pop() if len(used) == 1 else None
    return qparams if qparams is None or qparams.axis is None else None  # channels may be elsewhere before the reader


def _forward(
    graph: Graph, tensors: dict[str, Tensor], readers: Mapping[str, list[Node]], notes: list[Note], finer: bool
) -> bool:
    changed = False
    producers = graph.producers()
    for node in graph.nodes:
        open_outputs = [name for name in node.outputs if name and _is_open(tensors[name])]
        if not open_outputs:
            continue
        qparams = _decided_by_inputs(node, tensors)
        if qparams is None or qparams.axis is not None:
            continue  # behind the operator the channels may be elsewhere, or be mixed
        if finer and node.op == "Mean":
            qparams = _finest(node.inputs[0], qparams, graph, tensors, producers)
        for name in open_outputs:
            tensors[name] = quantized(tensors[name], qparams)
        changed = True
        notes += rounded(node, qparams, tensors, readers.get(node.outputs[0], ()), graph)
        half_a_step = float(qparams.scale) / 2
        if operators.of(node).prescribed is not None:
            notes.append(Note("fixed", str(node), f"{qparams}, TFLite's own", node.outputs[0], half_a_step))
        elif operators.averages(node):
            reason = f"; {node.apart}" if node.apart else ""
            notes.append(Note("inherited", str(node), f"{qparams}{reason}", node.outputs[0], half_a_step))
    return changed


_WORTH_IT = 0.75
"""Of the input's scale: a finer one that is nearly the same is not worth a rescaling."""


def _finest(
    name: str, given: QParams, graph: Graph, tensors: dict[str, Tensor], producers: Mapping[str, Node]
) -> QParams:
    """255 steps over the range that the codes of a tensor can have, where that is narrower than int8.

    A mean lies between the smallest and the largest of its inputs, so it never leaves that range. Zero is made part of
    it: its code has to be one of int8 (TFLite 8-bit quantization specification, zero point).
    """
    low, high = code_range(name, given, graph, tensors, producers)
    low, high = min(low, int(given.zero_point)), max(high, int(given.zero_point))
    if given.axis is not None or high <= low or (high - low) / 254 > _WORTH_IT:
        return given
    scale = float(given.scale) * (high - low) / 254  # one step to spare, for the zero point is a whole number
    return per_tensor(scale, round(-127 - float(given.scale) * (low - int(given.zero_point)) / scale))


def code_range(
    name: str, given: QParams, graph: Graph, tensors: Mapping[str, Tensor], producers: Mapping[str, Node]
) -> tuple[int, int]:
    """The lowest and the highest code that a tensor can hold: by its trained clamp, and by the limits it went through.

    Not of an input of the model: what a caller hands in is not known.
    """
    low, high = (-128, 127) if name in graph.inputs else (given.qmin, given.qmax)
    while name in producers and tensors[name].qparams == given:
        node = producers[name]
        within = node.kept_within
        if np.isfinite(within.low):
            low = max(low, code_of(within.low, given))
        if np.isfinite(within.high):
            high = min(high, code_of(within.high, given))
        operator = operators.of(node)
        if not operator.preserves or operator.reads_several or node.op == "Pad":
            break
        name = node.inputs[0]
    return low, high


def _without_repeats(graph: Graph) -> Graph:
    """A Quantize to the very parameters that its input has now changes nothing: passes/tidy.py removes what it becomes."""

    def repeats(node: Node) -> bool:
        before, after = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
        return node.op == "Quantize" and before.qparams is not None and before.qparams == after.qparams

    nodes = tuple(
        Node("Reshape", node.name, node.inputs, node.outputs) if repeats(node) else node for node in graph.nodes
    )
    return replace(graph, nodes=nodes)


def _is_open(tensor: Tensor) -> bool:
    return tensor.qparams is None and not tensor.is_constant and tensor.dtype.kind == "f"


def quantized(tensor: Tensor, qparams: QParams) -> Tensor:
    """The tensor as int8 codes under `qparams`."""
    return replace(tensor, dtype=np.dtype(np.int8), qparams=qparams)


def _decided_by_inputs(node: Node, tensors: dict[str, Tensor]) -> QParams | None:
    first = tensors[node.inputs[0]] if node.inputs and node.inputs[0] else None
    if first is None:
        return None
    operator = operators.of(node)
    if operator.reads_several:
        return _of_all([tensors[name] for name in node.inputs])
    if first.qparams is None:
        return None
    if operator.prescribed is not None:
        return operator.prescribed
    return first.qparams if operators.preserves(node) or operators.averages(node) else None


def _of_all(operands: Sequence[Tensor]) -> QParams | None:
    """The parameters that all of them share; a constant shares them where each of its values is a code of theirs."""
    said = {tensor.qparams for tensor in operands if not tensor.is_constant}
    shared = said.pop() if len(said) == 1 else None
    if shared is None:
        return None
    constants = [tensor.real for tensor in operands if tensor.is_constant]
    kept = all(np.array_equal(dequantize(quantize(real, shared), shared), real) for real in constants)
    return shared if kept else None
