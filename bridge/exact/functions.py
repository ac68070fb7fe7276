"""Local functions of a model are written out, after a look at what that would make of it.

A function that calls itself never ends, one that calls the one below twice doubles with each level, and one that bears
the name of a standard operator means what its reader likes (onnx.proto, ModelProto.functions: "defined by the
runtimes"; ONNX Runtime takes the standard operator). All three are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from bridge.errors import BridgeError
from bridge.exact.budget import Budget

DEEPEST = 100
"""Functions that call functions; PyTorch's exporter stays below ten, and onnx's inliner goes down step by step."""

_COUNTED = 10**18
"""A number of nodes that is not counted beyond, as it doubles with each level."""

Identity = tuple[str, str, str]


def inlined(model: onnx.ModelProto, file: str, budget: Budget) -> onnx.ModelProto:
    """The model without local functions; raises `BridgeError` for those that have no one meaning, or no end."""
    if not model.functions:
        return model
    functions: dict[Identity, onnx.FunctionProto] = {}
    for function in model.functions:
        if _identity(function) in functions:
            _refuse(file, function, "is in the file twice", "The tool that wrote it left it broken; export again.")
        functions[_identity(function)] = function
    called = [model.graph.node, *(function.node for function in model.functions)]
    for node in (each for nodes in called for each in nodes):
        function = functions.get(_called(node))
        if function is not None:
            _refuse_call(node, function, file)
    budget.refuse_nodes(_written_out(model.graph.node, functions, file), f"{file}, its functions written out")
    return _inline(model, file)


def _identity(function: onnx.FunctionProto) -> Identity:
    return _domain(function.domain), function.name, function.overload


def _called(node: onnx.NodeProto) -> Identity:
    return _domain(node.domain), node.op_type, node.overload


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _refuse(file: str, function: onnx.FunctionProto, problem: str, remedy: str) -> None:
    raise BridgeError(where=f"{file}, function '{function.name}'", problem=problem, remedy=remedy)


def _refuse_call(node: onnx.NodeProto, function: onnx.FunctionProto, file: str) -> None:
    if not _domain(function.domain) and onnx.defs.has(function.name, ""):
        _refuse(
            file,
            function,
            f"bears the name of the standard operator {function.name}, and every runtime decides which of the two is meant",
            "Give the function another name or domain, and export again.",
        )
    if len(node.input) > len(function.input) or len(node.output) > len(function.output):
        _refuse(
            file,
            function,
            f"takes {len(function.input)} and gives {len(function.output)} tensors; "
            f"node '{node.name}' has {len(node.input)} and {len(node.output)}",
            "The tool that wrote it left it broken; export again.",
        )


def _written_out(nodes: Iterable[onnx.NodeProto], functions: dict[Identity, onnx.FunctionProto], file: str) -> int:
    """How many nodes there will be; without recursion, as a chain of functions may be of any length."""
    sizes: dict[Identity, int] = {}
    levels: dict[Identity, int] = {}
    for start in _calls(nodes, functions):
        path: list[Identity] = [start]
        on_path = {start}
        while path:
            here = path[-1]
            waiting = (
                [] if here in sizes else [each for each in _calls(functions[here].node, functions) if each not in sizes]
            )
            if not waiting:
                if here not in sizes:
                    below = list(_calls(functions[here].node, functions))
                    sizes[here] = min(len(functions[here].node) + sum(sizes[each] for each in below), _COUNTED)
                    levels[here] = 1 + max((levels[each] for each in below), default=0)
                path.pop()
                on_path.discard(here)
                continue
            if waiting[0] in on_path:
                _refuse(
                    file,
                    functions[waiting[0]],
                    "calls itself" if waiting[0] == here else f"calls itself by way of '{here[1]}'",
                    "No runtime can run that; export the model again.",
                )
            path.append(waiting[0])
            on_path.add(waiting[0])
        if levels[start] > DEEPEST:
            _refuse(
                file,
                functions[start],
                f"calls functions that call functions, {levels[start]:,} levels deep; {DEEPEST} are followed",
                "Export without local functions, or inline them with onnx.inliner first.",
            )
    nodes = list(nodes)
    return len(nodes) + sum(sizes[each] for each in _calls(nodes, functions))


def _calls(nodes: Iterable[onnx.NodeProto], functions: dict[Identity, onnx.FunctionProto]) -> Iterator[Identity]:
    return (_called(node) for node in nodes if _called(node) in functions)


def _inline(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """By onnx's inliner, without the weights, which would be copied three times."""
    from onnx import inliner

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made = inliner.inline_local_functions(_without_data(model))
    left = {_identity(function) for function in made.functions}
    for node in made.graph.node:
        if _called(node) in left:
            raise BridgeError(
                where=f"{file}, node '{node.name}' ({node.op_type})",
                problem="calls a local function that is written for another opset than the model",
                remedy="Export again with one opset_version, or inline it with onnx.inliner first.",
            )
    for index, tensor in enumerate(made.graph.initializer):
        if tensor.name in weights:
            made.graph.initializer[index].CopyFrom(weights[tensor.name])
    return made


def _without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    kept = list(model.graph.initializer)
    del model.graph.initializer[:]
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    model.graph.initializer.extend(kept)
    for tensor in kept:
        slim.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    return slim
