"""The record of an operator: every answer about it that a pass, a page or a test asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from bridge.exact.graph import QParams
from bridge.exact.operators.reading import Reading


class Spelling(Enum):
    """Which of the forms in passes/normalize.py an operator is brought into; that file has a function for each."""

    DENSE = auto()
    PRODUCT = auto()
    CONVOLUTION = auto()
    POOL = auto()
    BATCH_NORM = auto()
    MEAN = auto()
    LIMIT = auto()
    SHAPE = auto()


class Axes(Enum):
    """In which order of their axes an operator reads and writes its tensors; passes/layout.py has a rule for each."""

    AS_IN_ONNX = auto()
    """In the order of the file, whatever comes; a TRANSPOSE brings it there."""
    AS_STORED = auto()
    """Every element alike, so in any order: Sigmoid, LeakyRelu."""
    CHANNELS_LAST = auto()
    """Windows and whatever else TFLite's kernels do for height, width and channels."""
    BROADCAST = auto()
    """Several operands element by element: all of them in one order, with leading axes of 1."""
    CONCAT = auto()
    SPLIT = auto()
    SLICE = auto()
    PAD = auto()
    GATHER = auto()
    REDUCE = auto()
    """Over named axes, which are translated."""
    LAST = auto()
    """Over one axis, which must lie last."""
    TRANSPOSE = auto()
    RESHAPE = auto()
    DENSE = auto()
    """Over the features of the last axis, by a weight that can be permuted instead."""


class Output(Enum):
    """What the values of an output are, and so where its scale comes from and what its kernel does about scales."""

    COMPUTED = auto()
    """New numbers. Training must have given the output a scale; the kernel rescales to it."""
    PRESCRIBED = auto()
    """New numbers at the one scale that TFLite's specification gives the operator; a QUANTIZE rescales behind it."""
    MOVED = auto()
    """Each one is an element of the first operand. It has the scale of that; a QUANTIZE rescales behind it."""
    JOINED = auto()
    """Each one is an element of one of several operands. All of them are brought to the scale of the output."""
    COMPARED = auto()
    """The smallest or largest among several operands: as JOINED, and what it means on bare codes is something else."""
    LIMITED = auto()
    """An element of the first operand, or a limit; the operand is brought to the scale of the output."""
    AVERAGED = auto()
    """Between the smallest and the largest element of the first operand, whose scale is enough; the kernel rescales."""
    AVERAGED_IN_PLACE = auto()
    """The same, by a kernel that does not rescale."""
    SAMPLED = auto()
    """MOVED in mode nearest, AVERAGED_IN_PLACE in the others: Resize."""


class Vanishes(Enum):
    """As what an operator of a file leaves the graph, so that nothing is written for it."""

    PARAMETERS = auto()
    """Of a Q/DQ pair: the scale of a tensor (passes/qdq.py)."""
    COPY = auto()
    """It hands its input on at inference (ONNX operator specification)."""
    CAST = auto()
    """To the type that is there already; any other one is refused."""
    CONSTANT = auto()


@dataclass(frozen=True)
class Weights:
    """Where the channels of an operator's second operand lie; the third is its bias."""

    outputs: int
    inputs: int


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What the bridge knows of an operator of ONNX, or of one that passes make.

    Always true: one that becomes something says its axes and its output; one of a prescribed scale has that scale, and
    no other has. Raises `AssertionError` when one of these fails.
    """

    name: str
    reads: Reading | None = None
    """Its attributes and operands in a file; None for what only passes make."""
    spelling: Spelling | None = None
    vanishes: Vanishes | None = None
    becomes: tuple[str, ...] = ()
    """The TFLite operators that its lowering writes for it alone; rows of schema.py."""
    axes: Axes | None = None
    output: Output | None = None
    prescribed: QParams | None = None
    weights: Weights | None = None
    windowed: bool = False
    """It has a window over one or two axes (passes/widen.py)."""
    limitable: bool = False
    """What is written for it can limit its own output, so that a ReLU behind it disappears (passes/fuse.py)."""
    made: Mapping[str, type] = field(default_factory=dict)
    """Attributes that passes write for later ones and for the lowering, beside those of ONNX."""

    def __post_init__(self) -> None:
        if self.becomes and (self.axes is None or self.output is None):
            raise AssertionError(f"{self.name}: says what it becomes, and not its axes or its output")
        if (self.prescribed is not None) != (self.output is Output.PRESCRIBED):
            raise AssertionError(f"{self.name}: a prescribed scale and the output {self.output}")

    @property
    def is_written(self) -> bool:
        """Whether a file may ask for it on activations; what is not written can be computed from constants at best."""
        return self.spelling is not None or self.vanishes is not None or bool(self.becomes)

    @property
    def preserves(self) -> bool:
        """Whether every output value is one of its inputs' values, so that rounding before it is rounding after it."""
        return self.output in (Output.MOVED, Output.JOINED, Output.COMPARED, Output.LIMITED)

    @property
    def reads_several(self) -> bool:
        """Whether every operand is data, and not the first alone."""
        return self.output in (Output.JOINED, Output.COMPARED)

    @property
    def aligns_inputs(self) -> bool:
        """Whether it compares codes, or copies them from several tensors: each must be at the scale of the output.

        A limit too, because it commutes with rounding, and may be finer than the codes of the input, or outside of them.
        """
        return self.output in (Output.JOINED, Output.COMPARED, Output.LIMITED)

    @property
    def averages(self) -> bool:
        """Whether every output value lies between the smallest and the largest of its input."""
        return self.output in (Output.AVERAGED, Output.AVERAGED_IN_PLACE)

    @property
    def shares_scale(self) -> bool:
        """Whether its kernel writes at the scale of its first operand, and at no other."""
        return self.output in (Output.MOVED, Output.AVERAGED_IN_PLACE, Output.SAMPLED)
