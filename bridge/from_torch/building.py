"""A `Graph` in the reader's own spelling, written down operator by operator while a PyTorch model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

from bridge.exact.graph import Graph, Node, Note, Tensor
from bridge.exact.passes.qdq import rename
from bridge.exact.reader import refuse_not_finite
from bridge.exact.tools import PYTORCH


class Unknown(Exception):  # noqa: N818 - it is no error: another way into the bridge is tried
    """What this reader has no emitter for, in words."""


def require(condition: bool, what: str) -> None:
    """Raise `Unknown` for a form that an emitter does not write."""
    if not condition:
        raise Unknown(what)


class Misread(Unknown):
    """What a trace gets wrong without a word, in words: torch's ONNX exporters trace, too, and are not asked then."""


class Builder:
    """The tensors and operators so far, and which PyTorch tensor each name stands for.

    A name stands for real numbers, also where PyTorch's tensor is quantized: then for what `dequantize` gives.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        """`names`: of parameters and buffers, by `id`; the model is alive as long as this is."""
        self._paths = names
        self._tensors: dict[str, Tensor] = {}
        self._nodes: list[Node] = []
        self._inputs: list[str] = []
        self._notes: list[Note] = []
        self._taken: set[str] = set()
        self._computed: Any = WeakIdKeyDictionary()
        self._constants: Any = WeakIdKeyDictionary()

    def free(self, wanted: str) -> str:
        """`wanted`, or with a number behind it: names of tensors and operators are unique."""
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name

    def input(self, tensor: torch.Tensor, name: str) -> None:
        self._inputs.append(self.free(name))
        self._tensors[name] = Tensor(name, tuple(tensor.shape), np.dtype(np.float32))
        self.stands_for(tensor, name)

    def stands_for(self, tensor: torch.Tensor, name: str) -> None:
        """From now on, and until something writes into it."""
        self._computed[tensor] = (name, tensor._version)  # noqa: SLF001 - torch has no other name for it

    def stands_for_itself(self, tensor: torch.Tensor) -> None:
        """What an unknown operator gives: only to go on with, and to find the other unknown ones."""
        name = self.free("unknown")
        self._tensors[name] = Tensor(name, tuple(tensor.shape), np.dtype(np.float32))
        self.stands_for(tensor, name)

    def is_computed(self, tensor: torch.Tensor) -> bool:
        return tensor in self._computed

    def name_of(self, tensor: torch.Tensor) -> str:
        """Of a tensor that was computed, or a new constant; raises `Unknown` when it was written into since."""
        if tensor not in self._computed:
            return self._constant_of(tensor)
        name, version = self._computed[tensor]
        if version != tensor._version:  # noqa: SLF001
            raise Misread("a tensor is written in place while another one shows its memory")
        return str(name)

    def _constant_of(self, tensor: torch.Tensor) -> str:
        if tensor.is_quantized:
            raise Unknown("a quantized constant")
        known = self._constants.get(tensor)
        if known is None:
            known = self._constants[tensor] = self.constant(array(tensor), self._paths.get(id(tensor), "constant"))
        return str(known)

    def constant(self, values: np.ndarray, wanted: str) -> str:
        """The name of a new constant; raises `BridgeError` for NaN and infinity."""
        name = self.free(wanted)
        refuse_not_finite({name: values}, "the model")
        self._tensors[name] = Tensor(name, values.shape, values.dtype, values)
        return name

    def add(
        self, op: str, inputs: Sequence[str], shapes: Sequence[Sequence[int]], attrs: Mapping[str, Any], wanted: str
    ) -> Node:
        """An operator with an output, float32 or codes, for each of `shapes`."""
        name = self.free(f"{wanted}/{op}" if wanted else op)
        dtype = np.dtype(np.float32)
        if op == "QuantizeLinear":
            dtype = self._tensors[inputs[2]].dtype
        elif op != "DequantizeLinear" and self._tensors[inputs[0]].dtype.itemsize == 1:
            dtype = self._tensors[inputs[0]].dtype  # what moves codes gives codes
        outputs = tuple(self.free(f"{name}_output_{place}") for place in range(len(shapes)))
        for output, shape in zip(outputs, shapes, strict=True):
            self._tensors[output] = Tensor(output, tuple(map(int, shape)), dtype)
        self._nodes.append(Node(op, name, tuple(inputs), outputs, dict(attrs)))
        return self._nodes[-1]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def note(self, note: Note) -> None:
        self._notes.append(note)

    def graph(self, outputs: Mapping[str, torch.Tensor]) -> Graph:
        """Everything so far, with these tensors as outputs under these names; what is an output twice is a copy there."""
        written = {name for node in self._nodes for name in node.outputs}
        renamed: dict[str, str] = {}
        sources = []
        for name, tensor in outputs.items():
            source = self.name_of(tensor)
            if source in written and source not in renamed:
                renamed[source] = self.free(name)
            else:
                copied = Node("Identity", self.free(f"{name}/Identity"), (source,), (self.free(name),))
                self._nodes.append(copied)
                self._tensors[name] = replace(self._tensors[source], name=name, data=None)
                source = name
            sources.append(source)
        graph = Graph(
            tuple(self._nodes), self._tensors, tuple(self._inputs), tuple(sources), tuple(self._notes), PYTORCH.name
        )  # fmt: skip
        return rename(graph, renamed)


def array(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a constant, float64 as float32; memory is shared where the type allows it."""
    values: np.ndarray = tensor.detach().cpu().contiguous().numpy()
    return values.astype(np.float32) if values.dtype == np.float64 else values
