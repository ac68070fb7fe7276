"""Rules about one operator: what they look at, and the form every rule has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bridge.exact.graph import Node, Tensor
from compare.tflite.graph import OpenedTflite


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator with its tensors, as rules ask for them."""

    opened: OpenedTflite
    node: Node
    index: int

    @property
    def op(self) -> str:
        return self.node.op

    def input(self, place: int) -> Tensor | None:
        """None where it is left out."""
        names = self.node.inputs
        return self.opened.graph.tensors[names[place]] if place < len(names) and names[place] else None

    def output(self, place: int = 0) -> Tensor:
        return self.opened.graph.tensors[self.node.outputs[place]]

    @property
    def inputs(self) -> list[Tensor]:
        return [self.opened.graph.tensors[name] for name in self.node.inputs if name]

    @property
    def outputs(self) -> list[Tensor]:
        return [self.opened.graph.tensors[name] for name in self.node.outputs]

    @property
    def source(self) -> Tensor | None:
        """The data: input 2 of TRANSPOSE_CONV, input 1 of SPLIT, else input 0."""
        return self.input({"TRANSPOSE_CONV": 2, "SPLIT": 1}.get(self.op, 0))

    @property
    def weight(self) -> Tensor | None:
        return self.input(1) if self.op in WEIGHTED else None

    @property
    def bias(self) -> Tensor | None:
        return self.input(3 if self.op == "TRANSPOSE_CONV" else 2) if self.op in WEIGHTED else None

    def constant(self, place: int) -> bool:
        """Whether an input is there and constant."""
        found = self.input(place)
        return found is not None and found.is_constant

    def dynamic(self, tensor: Tensor) -> bool:
        """Whether the file leaves a dimension of it open."""
        return tensor.name in self.opened.dynamic


WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D")


@dataclass(frozen=True)
class Rule:
    """A condition with its source."""

    broken: Callable[[Operator], str | None]
    """The reason in words where an operator breaks it, with its numbers; else None."""
    source: str


def first_broken(rules: Iterable[Rule], operator: Operator) -> tuple[str, str] | None:
    """(reason, source) of the first rule that an operator breaks."""
    for rule in rules:
        reason = rule.broken(operator)
        if reason is not None:
            return reason, rule.source
    return None


def operators(opened: OpenedTflite) -> list[Operator]:
    """All of the main subgraph, in execution order."""
    return [Operator(opened, node, index) for index, node in enumerate(opened.graph.nodes)]


def is_float(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype.kind == "f"


def is_eight_bit(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype in (np.dtype(np.int8), np.dtype(np.uint8))


def per_channel(tensor: Tensor | None) -> bool:
    """Whether a tensor has a scale for each channel."""
    return tensor is not None and tensor.qparams is not None and tensor.qparams.axis is not None
