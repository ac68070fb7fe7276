"""One call of a PyTorch model: what an emitter is given, and the registry of emitters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bridge.exact.graph import Node
from bridge.from_torch.building import Builder
from bridge.from_torch.rounding import rounded_to_own_scale

Emitter = Callable[..., None]
"""Called with the `Call`, then as the function itself: the same arguments, in the same order."""

FUNCTIONS: dict[Any, Emitter] = {}
"""By function, by the name of a tensor's method, by operator overload."""
MODULES: dict[type, Callable[..., None]] = {}
"""By the very type of a module; the emitter is called with the `Call`, the module, and the arguments of its forward."""
PLAIN: set[Any] = set()
"""What asks a tensor for its shape or type, and gives no tensor: the answer is fixed with the shapes."""


@dataclass(frozen=True, eq=False)
class Call:
    """A function, method or module of the model with its arguments, run already."""

    builder: Builder
    where: str
    """Path of the module that calls, as a name for what is written."""
    names: Mapping[int, str]
    """Of the computed tensors among the arguments, by `id`, as they were named before the call."""
    result: Any

    def name(self, operand: Any) -> str:
        """Of a tensor, computed or constant; the empty name for None; a Python number becomes a float32 constant."""
        if operand is None:
            return ""
        if isinstance(operand, torch.Tensor):
            return self.names.get(id(operand)) or self.builder.name_of(operand)
        return self.builder.constant(np.array(operand, np.float32), f"{self.where}/constant")

    def integers(self, values: Sequence[int]) -> str:
        """A constant of int64, as shapes, axes and limits of slices are."""
        return self.builder.constant(np.array(values, np.int64), f"{self.where}/constant")

    def step(self, op: str, inputs: Sequence[Any], shape: Sequence[int], **attrs: Any) -> str:
        """An operator before the last one; `inputs`: names, tensors or numbers."""
        return self.operator(op, inputs, [shape], attrs).outputs[0]

    def gives(self, op: str, *inputs: Any, **attrs: Any) -> Node:
        """The operator, or the last one of several, that computes the result of the call."""
        results = [each for each in _listed(self.result) if isinstance(each, torch.Tensor)]
        node = self.operator(op, inputs, [tuple(each.shape) for each in results], attrs)
        for tensor, output in zip(results, node.outputs, strict=True):
            self.is_now(tensor, output)
        return node

    def is_now(self, tensor: torch.Tensor, name: str) -> None:
        """A result and its name; a quantized one is rounded to its own scale there."""
        if tensor.is_quantized:
            name = rounded_to_own_scale(self, name, tensor)
        self.builder.stands_for(tensor, name)

    def hands_on(self, x: torch.Tensor) -> None:
        """The result is `x` itself."""
        self.builder.stands_for(self.result, self.name(x))

    def operator(
        self, op: str, inputs: Sequence[Any], shapes: Sequence[Sequence[int]], attrs: Mapping[str, Any]
    ) -> Node:
        """An operator with an output for each of `shapes`."""
        names = [each if isinstance(each, str) else self.name(each) for each in inputs]
        while names and not names[-1]:
            names.pop()
        return self.builder.add(op, names, shapes, attrs, self.where)


def emits(*keys: Any) -> Callable[[Emitter], Emitter]:
    """Registers the emitter of these functions, method names or overloads; one registered twice is our defect."""

    def registered(emitter: Emitter) -> Emitter:
        for key in dict.fromkeys(keys):  # some are one function under two names
            if key in FUNCTIONS:
                raise AssertionError(f"{key} has two emitters")
            FUNCTIONS[key] = emitter
        return emitter

    return registered


def emits_module(*types: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers the emitter of these modules."""

    def registered(emitter: Callable[..., None]) -> Callable[..., None]:
        for each in types:
            if each in MODULES:
                raise AssertionError(f"{each} has two emitters")
            MODULES[each] = emitter
        return emitter

    return registered


def _listed(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (tuple, list)) else (result,)
