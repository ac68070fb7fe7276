"""What both sides become before they are compared: layers with weights in one arrangement, joined as data flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Label = tuple[tuple[str, int], ...]
"""The places of operands where order matters (concatenation, subtraction, ...) on the way from one layer to another."""
Source = tuple[str, int]
"""`("layer", index)` or `("input", index)`."""
Reach = frozenset[tuple[Source, Label]]
"""Which layers and inputs a tensor is made of, through operators that have no weights."""


@dataclass(frozen=True)
class Grid:
    """Where the codes of an activation stand: real = scale * (code - zero point), the code as int8."""

    scale: float
    zero_point: int
    shifted: int | None = None
    """Another zero point that means the same: 7-bit codes (0..127) may keep their uint8 numbers in int8."""

    def same(self, other: Grid) -> bool:
        """Whether both put the same real numbers on the same codes; single or double precision made the scale."""
        return abs(other.scale / self.scale - 1) < SAME_SCALE and (
            other.zero_point in (self.zero_point, self.shifted) or self.zero_point == other.shifted
        )

    def __str__(self) -> str:
        return f"scale {self.scale:.8g}, zero point {self.zero_point}"


SAME_SCALE = 1e-6
"""Relative; one step of float32 is 1.2e-7 at most."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Real numbers in the arrangement output channel, window axes, input channel; and the step between two codes."""

    real: np.ndarray
    """float64."""
    step: np.ndarray | None
    """float64, shaped to broadcast with `real`; None where the numbers are float."""


@dataclass(frozen=True, eq=False)
class Affine:
    """y * factor + offset for each output channel, behind a layer."""

    name: str
    factor: np.ndarray
    """float64, (channels,)."""
    offset: np.ndarray
    step: np.ndarray
    """By how much an 8-bit constant in the file may have rounded factor and offset, (channels,); 0 where float."""
    separate: bool = False
    """A depthwise convolution of the file, which may also stand for an operator without weights."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One convolution, dense layer or standalone factor per channel."""

    name: str
    """Of the operator, as a message names it."""
    op: str
    weights: Weights
    bias: np.ndarray | None
    """float64, (channels,), as the kernel adds it; None where it is no vector over the output channels."""
    bias_step: np.ndarray | None
    """float64, (channels,); None where it is float."""
    groups: int
    """In how many groups the input channels are read."""
    source: str
    """Name of the data input."""
    output: str
    """Name of the tensor behind `steps`."""
    tensors: tuple[str, ...]
    """Every tensor of the file that belongs to it, for messages that name one."""
    transposed: bool = False
    slopes: bool = False
    """Factors of what is negative only, one for each channel or one for all: PRELU and LEAKY_RELU."""
    by_channel: bool = False
    """Its features are the channels of a mean, in their order."""
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] | None = None
    """Elements of padding, all begins and then all ends; None where the file does not say."""
    steps: tuple[Affine, ...] = ()
    beyond: tuple[Affine, ...] = ()
    """Of the model: those that follow behind a limit or a trained rounding, where no converter may fold them."""
    source_grid: Grid | None = None
    """None: computed in float, or not said."""
    output_grids: tuple[Grid, ...] = ()
    """Of the output and of what only limits or rescales it; empty where nothing is said."""
    limit: tuple[float, float] = (-np.inf, np.inf)
    """Between which real numbers the activation keeps the output, what the grid can hold aside."""
    output_size: int = 0
    """Elements for one run."""
    extent: tuple[int, ...] = ()
    """Of the output, along the axes that a window moves over."""

    @property
    def channels(self) -> int:
        return int(self.weights.real.shape[0])

    @property
    def signature(self) -> tuple[object, ...]:
        """What two layers must share to be the same one. A window of one axis is one of two, the other of size 1."""
        channels, *window, features = self.weights.real.shape
        kind = "transposed" if self.transposed else "slopes" if self.slopes else ""
        return (kind, channels, tuple(size for size in window if size > 1), features)

    def __str__(self) -> str:
        channels, *window, features = self.weights.real.shape
        size = "x".join(map(str, (*window, features))) or "1"
        return f"{self.op} '{self.name}' ({channels} x {size})"


def slopes(real: np.ndarray, step: np.ndarray | None = None) -> Weights | None:
    """Slopes as weights (channels, 1): one where all are equal; None where they lie on several axes."""
    if not real.size or max(real.shape, default=1) != real.size:
        return None
    flat = np.asarray(real, np.float64).reshape(-1)
    steps = None if step is None else np.broadcast_to(np.asarray(step, np.float64), real.shape).reshape(-1)
    if (flat == flat[0]).all():
        flat, steps = flat[:1], None if steps is None else steps[:1]
    return Weights(flat.reshape(-1, 1), None if steps is None else steps.reshape(-1, 1))


@dataclass(frozen=True, eq=False)
class Merge:
    """An operator on several activations: its output has a scale of its own."""

    kind: str
    name: str
    made_of: frozenset[Source]
    grids: tuple[Grid, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """One side: its layers in the order in which they run, and how they hang together."""

    layers: tuple[Layer, ...]
    reach: Mapping[str, Reach]
    """By tensor name."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_grids: tuple[Grid | None, ...]
    output_grids: tuple[Grid | None, ...]
    output_sizes: tuple[int, ...]
    merges: tuple[Merge, ...] = ()
    unread: tuple[str, ...] = ()
    """Operators with weights in a form that is not read, a sentence each."""
    others: Mapping[str, int] = field(default_factory=dict)
    """Operators without weights, by kind, for a sentence."""

    def made_of(self, layer: Layer) -> Reach:
        return self.reach.get(layer.source, frozenset())


def reached(parts: Sequence[Reach], ordered: str | None) -> Reach:
    """What an operator's output is made of; `ordered` names the operator where the places of its operands matter."""
    if ordered is None or len(parts) < 2:
        return frozenset().union(*parts) if parts else frozenset()
    return frozenset(
        (source, (*label, (ordered, place))[-_LABELS:]) for place, part in enumerate(parts) for source, label in part
    )


_LABELS = 2
"""How many ordered operators of a way are remembered: enough for a concatenation of concatenations."""
