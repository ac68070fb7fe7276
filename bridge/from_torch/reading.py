"""A PyTorch model to a `Graph`: traced by torch.fx, then run once, each call written down as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.fx import Interpreter

from bridge.exact.graph import Graph
from bridge.from_torch import activations, arithmetic, aten, decomposed, engine, fake_quant, layers, pools, shapes
from bridge.from_torch.building import Builder, Misread, Unknown
from bridge.from_torch.calls import FUNCTIONS, MODULES, PLAIN, Call
from torch_side.export import FrozenFakeQuant, FrozenLayer

FAMILIES = (activations, arithmetic, aten, decomposed, engine, fake_quant, layers, pools, shapes)
"""Every file of emitters; to import them is to register them."""

ALWAYS = {
    torch.quantize_per_tensor, torch.quantize_per_channel, FrozenFakeQuant,
    "quantized_decomposed::dequantize_per_tensor", "quantized_decomposed::dequantize_per_channel",
    "aten::fake_quantize_per_tensor_affine", "aten::fake_quantize_per_channel_affine",
}  # fmt: skip
"""What is written for constants, too: what they are rounded to is the point of it."""


class _Tracer(fx.Tracer):
    """Goes into every module but those that have an emitter; their hooks are called as part of the model."""

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch.fx's form
        return type(m) in MODULES

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if type(m) in MODULES:  # the interpreter runs its forward alone
            if m._forward_pre_hooks:  # noqa: SLF001 - torch has no other name for it
                raise Unknown(f"a hook before {type(m).__name__}")
            for hook in m._forward_hooks.values():  # noqa: SLF001
                given = hook(m, args, result)
                result = result if given is None else given
        return result


def read(model: torch.nn.Module, examples: Sequence[np.ndarray]) -> Graph:
    """The model in eval mode, its fake-quant frozen, as the reader would give it; `examples`: float32, for their shapes.

    The trace is checked: on random numbers it gives every bit that the model gives. Python that a trace does not see
    (`y += 1` on what something else shows, a counter) shows there.

    Raises `Unknown`, naming every call that has no emitter, or why the model cannot be traced; `BridgeError` for NaN.
    """
    inputs = random_inputs(examples)
    try:
        graph = _Tracer().trace(model, _fixed(model, len(inputs)))
    except (fx.proxy.TraceError, TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise Unknown(f"torch.fx cannot trace it: {first_line(error)}") from error
    with _spared(model):
        return run(fx.GraphModule(model, graph), inputs, outputs_of(model, inputs), paths_of(model))


@contextmanager
def _spared(model: torch.nn.Module) -> Iterator[None]:
    """Frozen weights lie on their grid: inside, no run rounds them once more."""
    layers = [module for module in model.modules() if isinstance(module, FrozenLayer)]
    for layer in layers:
        layer.spared = True
    try:
        yield
    finally:
        for layer in layers:
            layer.spared = False


def random_inputs(examples: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Normal numbers in the shapes of the examples: an example of zeros would hide what a trace gets wrong."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(example.shape, generator=generator) for example in examples]


def run(
    traced: fx.GraphModule, inputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], paths: Mapping[int, str]
) -> Graph:
    """The graph of a traced model; raises as `read`, and `Unknown` where it gives other bits than `expected`."""
    interpreter = Writing(traced, Builder(paths))
    with torch.no_grad():
        try:
            given = list(tensors_of(interpreter.run(*inputs)))
        except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
            raise Unknown(f"the trace does not run: {first_line(error)}") from error
    if interpreter.unknown:
        kind = Misread if interpreter.misread else Unknown
        raise kind(", ".join(dict.fromkeys(interpreter.unknown)))
    if not same_tensors(given, expected):
        raise Misread("a trace of its forward computes something else than the model")
    names = numbered("logits", "output", len(given))
    return interpreter.builder.graph(dict(zip(names, given, strict=True)))


def _fixed(model: torch.nn.Module, given: int) -> dict[str, Any]:
    """What forward takes beyond the inputs stays at its default."""
    import inspect

    taken = list(inspect.signature(model.forward).parameters.values())
    ordinary = [each for each in taken if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.kind == each.VAR_POSITIONAL for each in taken) and given > len(ordinary):
        raise Unknown("forward takes any number of inputs")
    rest = [each for each in taken if each.kind == each.KEYWORD_ONLY] + ordinary[given:]
    return {each.name: each.default for each in rest if each.default is not each.empty}


def outputs_of(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        try:
            return list(tensors_of(model(*(each.clone() for each in inputs))))
        except (RuntimeError, TypeError, ValueError, NotImplementedError, AssertionError) as error:
            raise Unknown(f"the model does not run: {first_line(error)}") from error


def same_tensors(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """As many, each with every bit of the other; NaN is like NaN."""
    return len(some) == len(others) and all(map(_same, some, others))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    one, other = (each.dequantize() if each.is_quantized else each for each in (one, other))
    return one.shape == other.shape and np.array_equal(one.numpy(), other.numpy(), equal_nan=True)


def paths_of(model: torch.nn.Module) -> dict[int, str]:
    """Names of parameters and buffers as the user's own model has them, before its layers were frozen."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    paths = {id(tensor): name for name, tensor in reversed(named)}
    for path, module in model.named_modules():
        if isinstance(module, FrozenLayer):  # within a Sequential where a fake-quant stands behind it
            layer = path.removesuffix(".0")
            paths.update((id(tensor), f"{layer}.{name}") for name, tensor in module.layer.named_parameters())
    return paths


class Writing(Interpreter):
    """Runs a traced model and writes each call of what depends on the inputs into a `Builder`."""

    def __init__(self, module: fx.GraphModule, builder: Builder) -> None:
        super().__init__(module)
        self.builder = builder
        self.unknown: list[str] = []
        """Every call without an emitter; what they give stands for itself, so that all are found."""
        self.misread = False
        self._inputs = 0
        self._count = sum(node.op == "placeholder" for node in module.graph.nodes)
        self._where = ""

    def run_node(self, n: fx.Node) -> Any:
        stack = n.meta.get("nn_module_stack") or {}
        paths = [each[0] if isinstance(each, tuple) else each for each in stack.values()]
        self._where = str(paths[-1]) if paths else str(n.target if n.op == "call_module" else "")
        return super().run_node(n)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().placeholder(target, args, kwargs)
        if isinstance(value, torch.Tensor):
            self.builder.input(value, numbered("input", "input", self._count)[self._inputs])
            self._inputs += 1
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        key = target
        if isinstance(target, torch._ops.OpOverload):  # noqa: SLF001 - torch has no public name for it
            key = target.name().partition(".")[0]
            _refuse_side_doors(key)
        return self._written(key, FUNCTIONS.get(key), target, args, kwargs)

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._written(
            target, FUNCTIONS.get(target), lambda x, *more, **named: getattr(x, target)(*more, **named), args, kwargs
        )

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        emitter = MODULES.get(type(module))
        key = type(module)
        bound = None if emitter is None else lambda call, *more, **named: emitter(call, module, *more, **named)
        return self._written(key, bound, module.forward, args, kwargs)

    def _written(self, target: Any, emitter: Any, function: Any, args: Any, kwargs: Any) -> Any:
        operands = [each for each in tensors_of((args, kwargs)) if self.builder.is_computed(each)]
        names, versions = {}, [each._version for each in operands]  # noqa: SLF001 - torch has no other name for it
        problem = ""
        for each in operands:
            try:
                names[id(each)] = self.builder.name_of(each)
            except Unknown as error:
                problem, self.misread = str(error), True
        result = function(*args, **kwargs)
        results = list(tensors_of(result))
        written = [one for one, was in zip(operands, versions, strict=True) if one._version != was]  # noqa: SLF001
        if not operands and target not in ALWAYS:
            return result
        if not results and not written and (target in PLAIN or result is None):
            return result
        if results and not written and all(any(one is other for other in operands) for one in results):
            return result  # an element of a list, or what is handed on
        if any(not any(one is other for other in results) for one in written):
            problem, self.misread = problem or "writes into a tensor in place", True
        try:
            if problem or emitter is None:
                raise Unknown(problem)  # noqa: TRY301 - said as what an emitter finds
            emitter(Call(self.builder, self._where, names, result), *args, **kwargs)
        except (Unknown, TypeError) as error:
            self.unknown.append(_said(target, self._where, str(error)))
            for each in (*results, *written):
                self.builder.stands_for_itself(each)
        return result


_NAMESPACES = ("aten", "quantized_decomposed", "quantized", "prims", "torchvision")


def _refuse_side_doors(name: str) -> None:
    """A file can name any operator that the process knows; only those that compute are run."""
    if name.partition("::")[0] not in _NAMESPACES:
        raise Unknown(f"the operator {name}")


def _said(target: Any, where: str, why: str) -> str:
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return f"{name}{f' in {where}' if where else ''}{f' ({why})' if why else ''}"


def tensors_of(given: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dictionaries, in order."""
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, Mapping):
        for each in given.values():
            yield from tensors_of(each)
    elif isinstance(given, (tuple, list)) and not isinstance(given, torch.Size):
        for each in given:
            yield from tensors_of(each)


def numbered(one: str, many: str, count: int) -> list[str]:
    """Names of inputs and outputs, as the ONNX way has them."""
    return [one] if count == 1 else [f"{many}_{index}" for index in range(count)]


def first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
