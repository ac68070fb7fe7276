"""In which order the columns of a dense weight must stand in a .tflite: where each of its inputs comes from.

PyTorch and ONNX flatten channels first, TFLite channels last. Both sides are followed back, element by element, to the
tensors that something computed; those are the same tensors, the .tflite's with its channels last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bridge.exact.graph import Node
from compare.explaining.side_by_side.onnx_constants import MOVING
from compare.explaining.side_by_side.onnx_side import HANDS_ON, OnnxSide
from compare.explaining.side_by_side.tflite_side import TfliteSide

_BIG = 2**40
"""More elements than any tensor has: place = number of the tensor * _BIG + place in it."""
_UNARY = {
    "Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu", "Gelu", "PRelu", "Softmax",
    "Add", "Sub", "Mul", "Div", "Min", "Max", "RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "TANH", "LEAKY_RELU",
    "HARD_SWISH", "ELU", "GELU", "PRELU", "SOFTMAX", "ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "QUANTIZE",
    "DEQUANTIZE", *HANDS_ON,
}  # fmt: skip
"""Operators whose output has its elements where an operand of the same shape has them."""
_FOLLOWED = _UNARY | MOVING | {
    "Concat", "CONCATENATION", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT",
    "SPLIT_V", "GATHER",
}  # fmt: skip
_CHANNELS_LAST = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND",
}  # fmt: skip
"""Operators of TFLite that know no other arrangement."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the elements of a tensor come from, in its shape, and the tensors they come from."""

    places: np.ndarray
    """int64."""
    tensors: tuple[str, ...]


class Columns:
    """Both sides, and the answer for one pair of dense layers at a time."""

    def __init__(self, ours: OnnxSide, theirs: TfliteSide) -> None:
        self._ours = ours
        self._theirs = theirs
        self._known: dict[tuple[bool, str], Places | None] = {}

    def order(self, ours: str, theirs: str, features: int) -> Iterator[np.ndarray]:
        """Every order that is right: column j of the .tflite's weight is column order[j] of the ONNX weight.

        `ours` and `theirs` name the data inputs. Several only where an input of the model may lie either way; none
        where it cannot be followed.
        """
        one, other = self._of(ours, onnx=True), self._of(theirs, onnx=False)
        if one is None or other is None or len(one.tensors) != len(other.tensors):
            return
        wanted, found = first_row(one.places, features), first_row(other.places, features)
        if wanted is None or found is None:
            return
        where = {int(place): column for column, place in enumerate(wanted)}
        yielded: list[np.ndarray] = []
        for tables in self._arrangements(one.tensors, other.tensors):
            try:
                real = [
                    int(place // _BIG) * _BIG + int(tables[place // _BIG][place % _BIG]) if place >= 0 else -1
                    for place in found.tolist()
                ]
            except IndexError:
                continue
            if len(where) == len(real) and set(real) == set(where):
                order = np.array([where[place] for place in real])
                if not any(np.array_equal(order, each) for each in yielded):
                    yielded.append(order)
                    yield order

    def of_model(self, name: str) -> Places | None:
        """Where a tensor of the ONNX model comes from, followed back to what is computed."""
        return self._of(name, onnx=True)

    def row_of_model(self, name: str, features: int) -> np.ndarray | None:
        """Of the first features that a layer of the model reads at once: which elements of the one tensor they are."""
        found = self.of_model(name)
        return None if found is None or len(found.tensors) != 1 else first_row(found.places, features)

    # ------------------------------------------------------------------------------------------ following back

    def _of(self, name: str, *, onnx: bool) -> Places | None:
        waiting = [name]
        while waiting:  # not by recursion: a network that shuffles its channels is followed through all its depth
            current = waiting[-1]
            asked = [each for each in self._needed(current, onnx=onnx) if (onnx, each) not in self._known]
            if asked:
                waiting += asked
                continue
            waiting.pop()
            if (onnx, current) not in self._known:
                self._known[onnx, current] = self._followed(current, onnx=onnx)
        return self._known[onnx, name]

    def _needed(self, name: str, *, onnx: bool) -> list[str]:
        """The tensors that this one is looked up in."""
        node = (self._ours.producers if onnx else self._theirs.producers).get(name)
        if node is None or node.op not in _FOLLOWED:
            return []
        return [each for each in node.inputs if each and not self._constant(each, onnx=onnx)]

    def _followed(self, name: str, *, onnx: bool) -> Places | None:
        graph = self._ours.graph if onnx else self._theirs.graph
        producers = self._ours.producers if onnx else self._theirs.producers
        tensor = graph.tensors.get(name)
        if tensor is None or int(np.prod(tensor.shape)) >= _LARGEST:
            return None
        node = producers.get(name)
        if node is not None and node.op in _FOLLOWED:
            moved = self._moved(node, name, onnx=onnx)
            if moved is not None:
                return moved
        return Places(np.arange(int(np.prod(tensor.shape)), dtype=np.int64).reshape(tensor.shape), (name,))

    def _moved(self, node: Node, name: str, *, onnx: bool) -> Places | None:
        """What the operator made of the places of its inputs; None where it computes something."""
        graph = self._ours.graph if onnx else self._theirs.graph
        shape = graph.tensors[name].shape
        moving = [each for each in node.inputs if each and not self._constant(each, onnx=onnx)]
        if not moving:
            return None
        if node.op in _UNARY:
            alike = [each for each in moving if graph.tensors[each].shape == shape]
            return self._known[onnx, alike[0]] if alike else None
        if node.op in ("Concat", "CONCATENATION"):
            joined = [self._known.get((onnx, each)) for each in node.inputs if each]
            return _joined(
                [each for each in joined if each is not None], len(node.inputs), int(node.attrs["axis"]), shape
            )
        if node.op == "SPLIT":  # its axis comes first
            axis, value = self._theirs.constant(node.inputs[0]), self._known.get((onnx, node.inputs[1]))
            if axis is None or value is None or value.places.shape[int(axis.real.reshape(-1)[0])] % len(node.outputs):
                return None
            parts = np.split(value.places, len(node.outputs), int(axis.real.reshape(-1)[0]))
            return Places(parts[node.outputs.index(name)], value.tensors)
        source = self._known.get((onnx, node.inputs[0]))
        if source is None:
            return None
        if onnx:
            return self._moved_in_onnx(node, name, source)
        if node.op in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS") and source.places.size == int(np.prod(shape)):
            return Places(source.places.reshape(shape), source.tensors)
        if node.op == "TRANSPOSE":
            order = self._theirs.constant(node.inputs[1])
            if order is not None and sorted(order.real.reshape(-1).tolist()) == list(range(source.places.ndim)):
                return Places(source.places.transpose(order.real.reshape(-1).astype(int).tolist()), source.tensors)
        if node.op in ("SLICE", "STRIDED_SLICE", "SPLIT_V", "GATHER"):
            part = self._part(node, name, source.places)
            if part is not None and part.shape == shape:
                return Places(part, source.tensors)
        return None

    def _part(self, node: Node, name: str, places: np.ndarray) -> np.ndarray | None:
        """The part of a tensor that a .tflite's operator takes, its operands constant."""
        operands = [self._theirs.constant(each) for each in node.inputs[1:] if each]
        numbers = [operand.real.reshape(-1).astype(int) for operand in operands if operand is not None]
        if len(numbers) < len(operands) or not numbers:
            return None
        if node.op == "GATHER":
            return np.asarray(np.take(places, numbers[0], int(node.attrs.get("axis", 0)), mode="clip"))
        if node.op == "SPLIT_V":
            return np.split(places, np.cumsum(numbers[0])[:-1], int(numbers[1][0]))[node.outputs.index(name)]
        begin = numbers[0]
        end = begin + numbers[1] if node.op == "SLICE" else numbers[1]
        steps = numbers[2] if len(numbers) > 2 else np.ones_like(begin)
        cut = tuple(
            slice(int(a), int(b) if b >= 0 else None, int(s)) for a, b, s in zip(begin, end, steps, strict=True)
        )
        return places[cut]

    def _moved_in_onnx(self, node: Node, name: str, source: Places) -> Places | None:
        shape = self._ours.graph.tensors[name].shape
        if node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") and source.places.size == int(np.prod(shape)):
            return Places(source.places.reshape(shape), source.tensors)
        if node.op not in MOVING:
            return None
        found = self._ours.constants.run(
            node, [source.places, *(self._ours.constants.value(each) if each else None for each in node.inputs[1:])]
        )
        place = node.outputs.index(name)
        if found is None or place >= len(found) or found[place].shape != shape:
            return None
        return Places(np.asarray(found[place], np.int64), source.tensors)

    def _constant(self, name: str, *, onnx: bool) -> bool:
        return name in self._ours.constants if onnx else self._theirs.constant(name) is not None

    # ------------------------------------------------------------------------------------------ channels last

    def _arrangements(self, ours: Sequence[str], theirs: Sequence[str]) -> Iterator[list[np.ndarray]]:
        """For each tensor of the .tflite, which element of the ONNX tensor its elements are; every possible way."""
        ways = [list(self._ways(one, other)) for one, other in zip(ours, theirs, strict=True)]
        if not all(ways):
            return
        yield [way[0] for way in ways]
        if any(len(way) > 1 for way in ways):
            yield [way[-1] for way in ways]

    def _ways(self, ours: str, theirs: str) -> Iterator[np.ndarray]:
        shape, found = self._ours.graph.tensors[ours].shape, self._theirs.graph.tensors[theirs].shape
        if int(np.prod(shape)) != int(np.prod(found)):
            return
        last = (0, *range(2, len(shape)), 1) if len(shape) > 2 else tuple(range(len(shape)))
        producer = self._theirs.producers.get(theirs)
        surely_last = producer is not None and producer.op in _CHANNELS_LAST
        surely_not = producer is not None and not surely_last and len(found) < 4
        for order in dict.fromkeys(
            (last,) if surely_last else (tuple(range(len(shape))),) if surely_not else (last, tuple(range(len(shape))))
        ):
            moved = np.arange(int(np.prod(shape))).reshape(shape).transpose(order)
            if _without_ones(moved.shape) == _without_ones(found):
                yield moved.reshape(-1)


_LARGEST = 2**24
"""Elements of an activation that are followed one by one."""


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def first_row(places: np.ndarray, features: int) -> np.ndarray | None:
    """The places of the first features that a dense layer reads at once."""
    if places.size % features or places.ndim == 0:
        return None
    row: np.ndarray = places.reshape(-1, features)[0]
    return row


def _joined(parts: Sequence[Places], count: int, axis: int, shape: Sequence[int]) -> Places | None:
    if len(parts) != count:
        return None
    tensors: list[str] = []
    moved = []
    for part in parts:
        moved.append(part.places + len(tensors) * _BIG)
        tensors += part.tensors
    try:
        joined = np.concatenate(moved, axis)
    except ValueError:
        return None
    return Places(joined, tuple(tensors)) if joined.shape == tuple(shape) else None
