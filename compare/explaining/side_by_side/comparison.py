"""An ONNX model and a .tflite side by side: every weight, bias and scale that can be matched, without running anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from onnx import ModelProto, ValueInfoProto

from bridge.errors import BridgeError
from bridge.exact.graph import Graph
from compare.explaining.side_by_side.averages import with_average
from compare.explaining.side_by_side.columns import Columns
from compare.explaining.side_by_side.copies import without_copies
from compare.explaining.side_by_side.figures import (
    Apart,
    Stated,
    affine_apart,
    bias_apart,
    likeness,
    taken_in,
    weights_apart,
)
from compare.explaining.side_by_side.layers import SAME_SCALE, Affine, Grid, Layer, Merge, Network, Source
from compare.explaining.side_by_side.matching import matched
from compare.explaining.side_by_side.onnx_side import OnnxSide, open_onnx
from compare.explaining.side_by_side.slices import put_together
from compare.explaining.side_by_side.tflite_side import TfliteSide
from compare.tflite.order import paired

Kind = Literal[
    "network", "weights", "weight scale", "bias", "factors", "scale", "window", "limit", "padding", "order of columns"
]


@dataclass(frozen=True)
class Difference:
    """One thing of the .tflite that is not the model's."""

    kind: Kind
    where: str
    """The layer or tensor, by its name in the model and in the file."""
    fact: str
    tensors: tuple[str, ...] = ()
    """Names in both files that it is about."""


@dataclass(frozen=True)
class Unchecked:
    """Something that was not compared, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} ({self.why})"


@dataclass(frozen=True)
class Comparison:
    """What two files have in common and what not."""

    differences: tuple[Difference, ...] = ()
    stated: tuple[str, ...] = ()
    """Codes that are apart because the converter said so: counted, and no difference."""
    unchecked: tuple[Unchecked, ...] = ()
    layers: int = 0
    """Pairs of layers whose weights and biases were compared."""
    numbers: int = 0
    """Weights and biases that were compared."""
    scales: int = 0
    """Activation scales that were compared."""

    @property
    def another_network(self) -> bool:
        """Whether the two are not the same network at all."""
        return any(each.kind == "network" for each in self.differences)


UNLIKE = 0.5
"""Correlation of two weights below which they have nothing in common: a changed bit or a shifted scale leaves more."""
MOST = 0.5
"""Share of the layers that must have nothing in common before it is said that the networks have nothing in common."""
FEW = 16
"""Weights of a layer below which correlation says nothing."""


def compare_files(model: ModelProto, graph: Graph) -> Comparison:
    """Compare an ONNX model with the opened .tflite `graph`; what cannot be read is said in `unchecked`."""
    graph = _in_model_order(model, graph)
    try:
        opened, opset = open_onnx(model, _input_shapes(model, graph))
    except BridgeError as error:
        why = f"{error.where}: {error.problem}"
        return Comparison(unchecked=(Unchecked("weights, biases and scales", f"the ONNX model was not read: {why}"),))
    comparing = _Comparing(OnnxSide(opened, opset), TfliteSide(graph))
    try:
        return comparing.comparison()
    except _DOES_NOT_FIT as error:
        raise BridgeError(
            where=".tflite",
            problem=f"its operators and tensors do not fit together ({type(error).__name__}: {error})",
            remedy="Convert the model again, and check that the file was copied whole.",
        ) from error


def _taken(model: ModelProto) -> list[ValueInfoProto]:
    constant = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constant]


def _in_model_order(model: ModelProto, graph: Graph) -> Graph:
    """The file's inputs and outputs in the order of the model's, where each has one: everything below goes by place."""
    listed = []
    for values, theirs in ((_taken(model), graph.inputs), (model.graph.output, graph.outputs)):
        names = [value.name for value in values]
        found = dict(zip(paired(names, theirs), theirs, strict=False))
        each = len(found) == len(names) == len(theirs)
        listed.append(tuple(found[name] for name in names) if each else theirs)
    inputs, outputs = listed
    return replace(graph, inputs=inputs, outputs=outputs)


def _input_shapes(model: ModelProto, graph: Graph) -> Mapping[str, Sequence[int]]:
    """The shapes of the .tflite's inputs as the model would have them: channels first where they are four."""
    found: dict[str, Sequence[int]] = {}
    for value, name in zip(_taken(model), graph.inputs, strict=False):
        shape = graph.tensors[name].shape
        said = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        turned = (shape[0], shape[-1], *shape[1:-1]) if len(shape) > 2 else shape
        fits = [
            each
            for each in (shape, turned)
            if len(each) == len(said) and all(size in (0, now) for size, now in zip(said, each, strict=True))
        ]
        if fits:
            found[value.name] = fits[-1] if len(shape) == 4 else fits[0]
    return found


_DOES_NOT_FIT = (IndexError, KeyError, ValueError)
"""What numpy and a look-up say of an operand that an operator cannot have: an axis it has not, a shape of another size.

The ONNX model was checked by the reader; the .tflite can be anything.
"""


@dataclass(eq=False)
class _Comparing:
    """One comparison under way."""

    ours: OnnxSide
    theirs: TfliteSide
    differences: list[Difference] = field(default_factory=list)
    stated: list[str] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)
    numbers: int = 0
    scales: int = 0
    taken: set[str] = field(default_factory=set)
    """Factors per channel of the model that were compared as what stands behind a layer."""
    absorbed: frozenset[int] = frozenset()
    """Layers of the file that are slices of a mean, or copies of channels, and belong to the layer behind."""
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        self.columns = Columns(self.ours, self.theirs)

    def comparison(self) -> Comparison:
        one, other = self.ours.network(), self.theirs.network()
        other, copies = without_copies(self.theirs, other)
        other, slices, wrong = put_together(self.theirs, other)
        self.absorbed = copies | slices
        self.differences += [Difference("factors", str(layer), problem, layer.tensors) for layer, problem in wrong]
        one, pairs = self._matched(one, other)
        other, pairs = _without(other, self.absorbed, pairs)
        one, other, pairs = _with_split_steps(one, other, pairs)
        self._unread(one, other)
        self._other_topology(one, other, pairs)
        unlike = []
        for i, j in pairs:
            before = len(self.differences)
            likeness_here = self._pair(one.layers[i], other.layers[j])
            if len(self.differences) > before and likeness_here is not None and abs(likeness_here) < UNLIKE:
                unlike.append(i)
        judged = [i for i, _ in pairs if one.layers[i].weights.real.size >= FEW]
        if judged and len(unlike) > MOST * len(judged) and len(judged) > 1:
            first = one.layers[unlike[0]]
            self.differences.insert(
                0,
                Difference(
                    "network",
                    "the two files",
                    f"are not the same network: the shapes fit, and the weights of {len(unlike)} of {len(judged)} layers "
                    f"have nothing in common, from {first} on",
                ),
            )
        pairs += self._slopes_alone(one, other, pairs)
        self._factors_alone(one, other, pairs)
        self._borders(one, other)
        self._merges(one, other, dict(pairs))
        self._moved_offsets()
        return Comparison(
            tuple(self.differences), tuple(self.stated), tuple(self.unchecked), len(pairs), self.numbers, self.scales
        )

    # ------------------------------------------------------------------------------------------ the whole

    def _matched(self, one: Network, other: Network) -> tuple[Network, list[tuple[int, int]]]:
        """The pairs; layers without a partner once more with the average before them taken in."""

        def alike(i: int, j: int) -> float:
            ours, theirs = one.layers[i], other.layers[j]
            real = ours.weights.real
            return likeness(real, theirs.weights.real.reshape(real.shape)) + _same_borders(ours, theirs)

        pairs = self._without_absorbed(matched(one, other, alike))
        known = {i for i, _ in pairs}
        layers = list(one.layers)
        for i, layer in enumerate(one.layers):
            alone = i not in known and not _is_factor(layer)
            taken = with_average(self.ours, self.columns, layer) if alone else None
            layers[i] = taken or layer
        if layers != list(one.layers):
            one = replace(one, layers=tuple(layers))
            pairs = self._without_absorbed(matched(one, other, alike))
        return one, pairs

    def _without_absorbed(self, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(i, j) for i, j in pairs if j not in self.absorbed]

    def _unread(self, one: Network, other: Network) -> None:
        for side, network in (("the ONNX model", one), ("the .tflite", other)):
            if network.unread:
                first = ", ".join(network.unread[:3]) + (", ..." if len(network.unread) > 3 else "")
                self.unchecked.append(
                    Unchecked(f"constants of {len(network.unread)} operators of {side}", f"not read: {first}")
                )
        without = sum(one.others.values())
        if without:
            most = ", ".join(f"{count} {op}" for op, count in sorted(one.others.items(), key=lambda each: -each[1])[:4])
            self.unchecked.append(
                Unchecked(
                    f"operators without weights: {most}",
                    "nothing of them is compared but scales, unless inputs are given",
                )
            )

    def _other_topology(self, one: Network, other: Network, pairs: Sequence[tuple[int, int]]) -> None:
        """Layers that only one side has, and outputs that do not fit."""
        if len(one.outputs) != len(other.outputs) or sorted(one.output_sizes) != sorted(other.output_sizes):
            self._another(f"the model gives {_sizes(one.output_sizes)}, the file {_sizes(other.output_sizes)}")
        if len(one.inputs) != len(other.inputs):
            self._another(f"the model takes {len(one.inputs)} inputs, the file {len(other.inputs)}")
        ours = [layer for i, layer in enumerate(one.layers) if i not in {i for i, _ in pairs}]
        theirs = [layer for j, layer in enumerate(other.layers) if j not in {j for _, j in pairs}]
        ours, theirs = [_worth(layers) for layers in (ours, theirs)]
        if not ours and not theirs:
            return
        unread = one.unread or other.unread
        same_amount = _amount(ours) == _amount(theirs)
        if ours and not (same_amount or unread):
            self._another(
                f"{ours[0]} of the model has no counterpart in the file"
                + (f", where {theirs[0]} stands" if theirs else "")
                + f" ({len(one.layers)} layers with weights, {len(other.layers)})"
            )
        elif ours:
            self.unchecked.append(
                Unchecked(
                    f"{len(ours)} layers, first {ours[0]}", "no layer of the file has this shape; written differently"
                )
            )
        elif theirs:
            self.unchecked.append(
                Unchecked(
                    f"{len(theirs)} layers of the .tflite, first {theirs[0]}",
                    "the model has no such layer with weights",
                )
            )

    def _factors_alone(self, one: Network, other: Network, pairs: Sequence[tuple[int, int]]) -> None:
        """Factors per channel that only one side has: converters make them of other operators, and leave them out."""
        known = {i for i, _ in pairs}, {j for _, j in pairs}
        for network, indices, side, reason in (
            (one, known[0], "the model", "the .tflite has no such layer"),
            (other, known[1], "the .tflite", "it may stand for an operator without weights"),
        ):
            for index, layer in enumerate(network.layers):
                if index not in indices and not _worth([layer]) and layer.name not in self.taken:
                    self.unchecked.append(Unchecked(f"{layer} of {side}", reason))

    def _slopes_alone(self, one: Network, other: Network, pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """One slope in the model, one for each channel in the file, or the other way round: in their order."""
        known = {i for i, _ in pairs}, {j for _, j in pairs}
        left = [
            [index for index, layer in enumerate(network.layers) if layer.slopes and index not in known[side]]
            for side, network in enumerate((one, other))
        ]
        if len(left[0]) != len(left[1]):
            return []
        for i, j in zip(*left, strict=True):
            ours, theirs = one.layers[i].weights, other.layers[j].weights
            if 1 not in (ours.real.size, theirs.real.size):
                return []
            step = 0.0 if theirs.step is None else float(np.max(theirs.step))
            apart = float(np.abs(ours.real.reshape(-1) - theirs.real.reshape(-1)).max())
            self.numbers += theirs.real.size
            if apart > step / 2 + 1e-6 * float(np.abs(ours.real).max()):
                where, fact = (
                    f"{one.layers[i]} = {other.layers[j]}",
                    f"slopes are up to {apart:.4g} away from the model's",
                )
                tensors = (*one.layers[i].tensors, *other.layers[j].tensors)
                self.differences.append(Difference("factors", where, fact, tensors))
        return list(zip(*left, strict=True))

    def _another(self, fact: str) -> None:
        self.differences.append(Difference("network", "the two files", f"are not the same network: {fact}"))

    # ------------------------------------------------------------------------------------------ one pair of layers

    def _pair(self, ours: Layer, theirs: Layer) -> float | None:
        """Compare one pair; how alike its weights are, None where that could not be said."""
        where = f"{ours} = {theirs.op} '{theirs.name}'"
        tensors = (*ours.tensors, *theirs.tensors)
        shaped, order_known = self._arranged(ours, theirs, where)
        if shaped is None:
            return None
        self.numbers += theirs.weights.real.size + theirs.channels
        found = self._best(ours, shaped, tuple(self._trained_source(ours)))
        for each in found:
            if isinstance(each, Stated):
                self.stated.append(
                    f"{where}: {each.count} codes, {each.what}" if each.count > 1 else f"{where}: {each.what}"
                )
            elif order_known or each.kind != "weights":
                self._add(each, where, tensors)
            elif not _same_numbers(ours, shaped):
                self._add(replace_fact(each, "in no order of its columns: "), where, tensors)
        if ours.bias is None or theirs.bias is None:
            self.unchecked.append(Unchecked(f"the bias of {where}", "it is no constant with one number per channel"))
        self._window(ours, theirs, where, tensors)
        self._grids(ours, theirs, where, tensors)
        self._limits(ours, theirs, where, tensors)
        return likeness(ours.weights.real, shaped.weights.real)

    def _add(self, each: Apart, where: str, tensors: tuple[str, ...]) -> None:
        kind: Kind = (
            "weights" if each.kind == "weights"
            else "bias" if each.kind == "bias"
            else "factors" if each.kind == "factors"
            else "weight scale"
        )  # fmt: skip
        self.differences.append(Difference(kind, where, each.fact, tensors))

    def _trained_source(self, ours: Layer) -> Iterator[float]:
        if ours.source_grid is not None:
            yield ours.source_grid.scale

    def _best(self, ours: Layer, theirs: Layer, trained_source: tuple[float, ...]) -> list[Apart | Stated]:
        """What is apart when each side has taken in as many of the factors behind it as fits best.

        All of them first; fewer only where both sides have some left, which are then compared with each other.
        """
        best: list[Apart | Stated] | None = None
        for i in range(len(ours.steps), -1, -1):
            for j in range(len(theirs.steps), -1, -1):
                ours_left, theirs_left = len(ours.steps) - i + len(ours.beyond), len(theirs.steps) - j
                if i < len(ours.steps) and not theirs_left:
                    continue  # the file would have left a factor out
                if theirs_left and not ours_left:
                    continue  # the file would have one that nobody trained
                found = list(self._apart(ours, theirs, i, j, trained_source))
                if not any(isinstance(each, Apart) for each in found):
                    return found
                best = found if best is None else best
        for j in range(len(theirs.steps)):
            if all(step.separate for step in theirs.steps[j:]):
                found = list(
                    self._apart(
                        replace(ours, beyond=()),
                        replace(theirs, steps=theirs.steps[:j]),
                        len(ours.steps),
                        j,
                        trained_source,
                    )
                )
                if not any(isinstance(each, Apart) for each in found):
                    names = ", ".join(f"'{step.name}'" for step in theirs.steps[j:])
                    self.unchecked.append(
                        Unchecked(
                            f"depthwise convolution {names}",
                            "the model has no such factor per channel; it may stand for an operator",
                        )
                    )
                    return found
        return best or []

    def _apart(
        self, ours: Layer, theirs: Layer, i: int, j: int, trained_source: tuple[float, ...]
    ) -> Iterator[Apart | Stated]:
        one, other = taken_in(ours, i), taken_in(theirs, j)
        yield from weights_apart(one.weights, other.weights)
        trained_step = None
        if trained_source and one.weights.step is not None:
            rows = np.broadcast_to(one.weights.step, one.weights.real.shape).reshape(ours.channels, -1)
            trained_step = rows[:, 0] * trained_source[0]
        yield from bias_apart(one, other, trained_step)
        if i < len(ours.steps) or j < len(theirs.steps):
            yield from self._left(ours, theirs, i, j)

    def _left(self, ours: Layer, theirs: Layer, i: int, j: int) -> Iterator[Apart]:
        """The steps that neither side took in: those of the file are the first of the model's, however many those are."""
        least = max(len(ours.steps) - i, 1)
        left = (*ours.steps[i:], *ours.beyond)
        found: list[Apart] = []
        for count in range(least, len(left) + 1):
            found = list(affine_apart(left[:count], theirs.steps[j:], ours.channels))
            if not found:
                self.taken.update(step.name for step in left[:count])
                return
        yield from found

    def _arranged(self, ours: Layer, theirs: Layer, where: str) -> tuple[Layer | None, bool]:
        """The file's layer with its weights in the arrangement of the model's; and whether the order is known."""
        shape = ours.weights.real.shape
        if theirs.weights.real.size != int(np.prod(shape)) or theirs.channels != ours.channels:
            self.unchecked.append(Unchecked(where, "the shapes of the weights differ"))
            return None, False
        if theirs.by_channel and len(shape) == 2:
            row = self.columns.row_of_model(ours.source, shape[1])
            if row is not None and sorted(row.tolist()) == list(range(shape[1])):
                return _with_columns(theirs, np.argsort(row)), True
        as_convolution = theirs.op == "CONV_2D" and theirs.weights.real.shape[1:3] == (1, 1)
        if len(shape) == 2 and as_convolution and not theirs.by_channel:  # a dense layer in another operator
            theirs = _reshaped(theirs, shape)
        elif len(shape) != 2 or theirs.op != "FULLY_CONNECTED" or theirs.by_channel:
            return _reshaped(theirs, shape), not theirs.by_channel or len(shape) > 2
        orders = list(self.columns.order(ours.source, theirs.source, shape[1]))
        if not orders and as_convolution:
            return theirs, True
        if not orders:
            self.unchecked.append(
                Unchecked(
                    f"the order of the columns of {where}", "its input could not be followed to where it is computed"
                )
            )
            return theirs, False
        moved = [_with_columns(theirs, order) for order in orders]
        return max(moved, key=lambda layer: likeness(ours.weights.real, layer.weights.real)), True

    def _window(self, ours: Layer, theirs: Layer, where: str, tensors: tuple[str, ...]) -> None:
        """Strides, dilations, groups, padding and limits: what a layer does with its weights."""
        facts: list[tuple[Kind, str]] = []
        if ours.strides and theirs.strides and len(ours.weights.real.shape) == 4:
            window = ours.weights.real.shape[1:3]
            if window != theirs.weights.real.shape[1:3]:
                facts.append(("window", f"window {theirs.weights.real.shape[1:3]}, the model has {window}"))
            for what, matters in (
                ("strides", ours.extent),
                ("dilations", window),
            ):  # of one place, or one tap: no matter
                said, found = getattr(ours, what), getattr(theirs, what)
                if found and any(a != b and size > 1 for a, b, size in zip(said, found, matters, strict=True)):
                    facts.append(("window", f"{what} {found}, the model has {said}"))
        if ours.groups != theirs.groups and theirs.op in ("CONV_2D",) and ours.op in ("Conv", "QLinearConv"):
            facts.append(("window", f"{theirs.groups} groups of input channels, the model has {ours.groups}"))
        if (
            ours.output_size != theirs.output_size and not ours.transposed
        ):  # there, the file may cut out what was asked for
            facts.append(("window", f"gives {theirs.output_size} numbers, in the model {ours.output_size}"))
        self.differences += [Difference(kind, where, fact, tensors) for kind, fact in facts]

    def _grids(self, ours: Layer, theirs: Layer, where: str, tensors: tuple[str, ...]) -> None:
        if ours.source_grid is not None and theirs.source_grid is not None:
            self._scale(f"input of {where}", ours.source_grid, (theirs.source_grid,), tensors)
        if ours.output_grids and theirs.output_grids:
            self._scale(f"output of {where}", ours.output_grids[0], theirs.output_grids, tensors)

    def _limits(self, ours: Layer, theirs: Layer, where: str, tensors: tuple[str, ...]) -> None:
        """What a Relu or Clip right behind the layer lets through, where both put it on the trained grid."""
        grid = ours.output_grids[0] if ours.output_grids else None
        limiting = {node.name for node in self.ours.graph.nodes if node.op == "HardSigmoid"}  # which limits by itself
        if grid is None or not theirs.output_grids or not grid.same(theirs.output_grids[-1]) or not _worth([ours]):
            return
        if limiting.intersection(step.name for step in (*ours.steps, *ours.beyond)):
            return
        ends = [grid.scale * (code - grid.zero_point) for code in (-128, 127)]
        wanted, found = (np.clip(limit, ends[0], ends[1]).tolist() for limit in (ours.limit, theirs.limit))
        if any(abs(a - b) > 1.01 * grid.scale for a, b in zip(wanted, found, strict=True)):
            fact = f"lets {found[0]:.6g} to {found[1]:.6g} through, the model {wanted[0]:.6g} to {wanted[1]:.6g}"
            self.differences.append(Difference("limit", where, fact, tensors))

    def _scale(self, where: str, trained: Grid, found: Sequence[Grid], tensors: tuple[str, ...]) -> None:
        self.scales += 1
        if not any(trained.same(each) for each in found):
            self.differences.append(Difference("scale", where, f"{found[-1]}; training decided {trained}", tensors))

    # ------------------------------------------------------------------------------------------ what has no weights

    def _borders(self, one: Network, other: Network) -> None:
        for what, ours, theirs, names, other_names in (
            ("input", one.input_grids, other.input_grids, one.inputs, other.inputs),
            ("output", one.output_grids, other.output_grids, one.outputs, other.outputs),
        ):
            if len(ours) != len(theirs):
                continue
            for trained, found, name, other_name in zip(ours, theirs, names, other_names, strict=True):
                if trained is not None and found is not None:
                    where = f"{what} '{name}' = '{other_name}'"
                    self._scale(where, trained, (found,), (name, other_name))

    def _merges(self, one: Network, other: Network, pairs: Mapping[int, int]) -> None:
        """Sums, products and concatenations that are made of the same layers on both sides, and the only ones of them."""
        back = {theirs: ours for ours, theirs in pairs.items()}

        def keyed(
            merges: Sequence[Merge], layer: Mapping[int, int] | None
        ) -> dict[tuple[str, frozenset[Source]], list[Merge]]:
            found: dict[tuple[str, frozenset[Source]], list[Merge]] = {}
            for merge in merges:
                sources = {
                    (kind, layer.get(index, -1 - index) if layer is not None and kind == "layer" else index)
                    for kind, index in merge.made_of
                }
                found.setdefault((merge.kind, frozenset(sources)), []).append(merge)
            return found

        theirs = keyed(other.merges, back)
        for key, ours in keyed(one.merges, None).items():
            same = theirs.get(key, [])
            if len(ours) != len(same):
                continue
            for mine, their in zip(ours, same, strict=True):  # several of one kind: in their order
                if mine.grids and their.grids:
                    where = f"{mine.kind} '{mine.name}' = '{their.name}'"
                    self._scale(where, mine.grids[0], their.grids, (mine.name, their.name))

    def _moved_offsets(self) -> None:
        """A trained scale whose zero point nothing in the file has, beside a tensor at that scale with a point of its own.

        Wherever the tensor stands: between operators without weights nothing tells which tensor is which.
        """
        trained = self.ours.trained_grids()
        graph = self.theirs.graph
        computed = {name: self.theirs.grid(name) for name, each in graph.tensors.items() if not each.is_constant}
        found = {name: grid for name, grid in computed.items() if grid is not None}
        if any(each.kind in ("scale", "network") for each in self.differences):
            return
        lost = {name: grid for name, grid in trained.items() if not any(map(grid.same, found.values()))}
        strange = {name: grid for name, grid in found.items() if not any(map(grid.same, trained.values()))}
        for name, grid in lost.items():
            for other_name, other in strange.items():
                if abs(other.scale / grid.scale - 1) < SAME_SCALE:
                    where, fact = f"tensor '{name}' = '{other_name}'", f"{other}; training decided {grid}"
                    self.differences.append(Difference("scale", where, fact, (name, other_name)))


def _same_borders(ours: Layer, theirs: Layer) -> float:
    """0 to 1: on how many of its two sides a layer has the other one's scale; weights of two numbers are soon alike."""
    source = (
        ours.source_grid is not None and theirs.source_grid is not None and ours.source_grid.same(theirs.source_grid)
    )
    output = bool(ours.output_grids) and any(ours.output_grids[0].same(each) for each in theirs.output_grids)
    return (source + output) / 2


def replace_fact(apart: Apart, prefix: str) -> Apart:
    """The same, with words before its fact."""
    return replace(apart, fact=prefix + apart.fact)


def _reshaped(layer: Layer, shape: tuple[int, ...]) -> Layer:
    weights = layer.weights
    step = None if weights.step is None else np.broadcast_to(weights.step, weights.real.shape).reshape(shape)
    return replace(layer, weights=replace(weights, real=weights.real.reshape(shape), step=step))


def _with_columns(layer: Layer, order: np.ndarray) -> Layer:
    """The layer with column j where the model has it, at order[j]."""
    back = np.argsort(order)
    weights = layer.weights
    step = None if weights.step is None else np.broadcast_to(weights.step, weights.real.shape)[:, back]
    return replace(layer, weights=replace(weights, real=weights.real[:, back], step=step))


def _same_numbers(ours: Layer, theirs: Layer) -> bool:
    """Whether every row holds the same numbers in any order: all that can be said without the order of the columns."""
    one, other = taken_in(ours, len(ours.steps)).weights, taken_in(theirs, len(theirs.steps)).weights
    tolerance = 1e-4 * max(float(np.abs(one.real).max(initial=0.0)), 1e-30)
    if other.step is not None and one.step is None:
        tolerance += float(np.max(other.step)) / 2
    return bool((np.abs(np.sort(one.real, axis=1) - np.sort(other.real, axis=1)) <= tolerance).all())


def _without(
    network: Network, absorbed: frozenset[int], pairs: list[tuple[int, int]]
) -> tuple[Network, list[tuple[int, int]]]:
    """The network of the file without these layers, and the pairs by the places that are left."""
    kept = [index for index in range(len(network.layers)) if index not in absorbed]
    place = {index: now for now, index in enumerate(kept)}
    layers = tuple(network.layers[index] for index in kept)
    return replace(network, layers=layers), [(i, place[j]) for i, j in pairs]


def _with_split_steps(
    one: Network, other: Network, pairs: list[tuple[int, int]]
) -> tuple[Network, Network, list[tuple[int, int]]]:
    """Factors per channel that one side has as a layer of its own and the other behind a layer, put behind it.

    The exact bridge writes a normalization that it cannot fold as a depthwise convolution of size 1.
    """
    known = {j for _, j in pairs}
    layers = list(other.layers)
    owners = {layer.output: index for index, layer in enumerate(layers)}
    for j, layer in enumerate(layers):
        before = owners.get(layer.source)
        if j in known or before is None or before not in known or not _is_factor(layer) or layer.bias is None:
            continue
        step = layer.weights.step
        behind = Affine(
            layer.name,
            layer.weights.real.reshape(-1),
            layer.bias,
            (
                np.zeros(layer.channels)
                if step is None
                else np.broadcast_to(step, layer.weights.real.shape).reshape(-1) / 2
            )
            + (np.zeros(layer.channels) if layer.bias_step is None else layer.bias_step),
            separate=True,
        )
        owner = layers[before]
        if owner.channels != layer.channels:
            continue
        layers[before] = replace(
            owner,
            steps=(*owner.steps, behind, *layer.steps),
            output=layer.output,
            output_grids=(*owner.output_grids, *layer.output_grids),
            limit=layer.limit,
            tensors=(*owner.tensors, *layer.tensors),
        )
        owners[layer.output] = before
        layers[j] = replace(layer, op="")
    kept = [index for index, layer in enumerate(layers) if layer.op]
    place = {index: now for now, index in enumerate(kept)}
    return one, replace(other, layers=tuple(layers[index] for index in kept)), [(i, place[j]) for i, j in pairs]


def _is_factor(layer: Layer) -> bool:
    per_channel = layer.weights.real.size == layer.channels and layer.groups == layer.channels
    return per_channel and not layer.transposed and not layer.slopes


def _worth(layers: Sequence[Layer]) -> list[Layer]:
    """Without factors per channel: converters add, fold and drop those."""
    return [layer for layer in layers if layer.weights.real.size > layer.channels]


def _amount(layers: Sequence[Layer]) -> int:
    return sum(layer.weights.real.size for layer in layers)


def _sizes(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} output{'s' if len(sizes) != 1 else ''} of {', '.join(map(str, sizes))} numbers"
