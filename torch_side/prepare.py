"""A float network made ready for quantization-aware training, as the int8 kernels will compute it.

Built on FX mode of torch.ao.quantization: it fuses batch norms, finds every sum and joint, and gives what shares a scale one
fake-quant, and it comes with torch 2.4 to 2.15 alike. PT2E (torchao) is where PyTorch goes; its quantizers leave activation
functions and joints in float that a .tflite needs in int8, so models of PT2E are taken (bridge.convert) but not made here.
"""

from __future__ import annotations

import copy
import inspect
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import (
    FakeQuantizeBase,
    FixedQParamsFakeQuantize,
    FixedQParamsObserver,
    QConfig,
    QConfigMapping,
    disable_fake_quant,
    disable_observer,
)
from torch.ao.quantization import backend_config as backends
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.fx.tracer import QuantizationTracer
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.errors import BridgeError, ConversionWarning
from torch_side.int32_sums import add_up_in_eval
from torch_side.qconfigs import for_target
from torch_side.training import expected_warnings

SIGMOID = (1 / 256, -128)
FIXED = {
    (nn.Sigmoid, torch.sigmoid, "sigmoid", nn.Softmax, F.softmax, torch.softmax, "softmax"): SIGMOID,
    (nn.Tanh, torch.tanh, "tanh"): (1 / 128, 0),
}
"""Scale and zero point that TFLite prescribes for an operator's output (TFLite 8-bit quantization specification)."""


AVERAGES = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    torch.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d, torch.avg_pool1d, F.avg_pool2d, F.avg_pool3d,
    torch.mean, "mean",
)  # fmt: skip
"""Their results are closer together than what they average: on its grid, as PyTorch's own config has it, a classifier sees
a few codes. Each gets a scale of its own, to which its kernel rounds once."""
ALSO = (
    nn.SiLU, F.silu, torch.sub, operator.sub, "sub", torch.div, operator.truediv, "div", torch.maximum, torch.minimum,
    "maximum", "minimum",
)  # fmt: skip
"""What int8 kernels compute and PyTorch's own config leaves in float."""
MOVES = (nn.Flatten, torch.flatten, "flatten", torch.reshape, "reshape", "view", "contiguous", "permute", "transpose")
"""They move numbers and compute none: one scale for what goes in and comes out."""


def prepare(model: nn.Module, example_inputs: Any, target: str = "cpu") -> fx.GraphModule:
    """A copy of a float model, in training mode, that trains with the roundings of int8 TFLite.

    `example_inputs`: a tensor or array, or a tuple of them. `target`: the chip, as `python -m compare.npu` names it; it decides
    whether weights have one scale for each channel. Every activation gets a fake-quant of int8 over the whole range;
    sigmoid, softmax and tanh the scale that their kernel writes. Batch norms' factors of 0 become 1e-5: PyTorch's QAT layers
    divide by them.

    Raises `BridgeError` for an unknown target, for example inputs that are no numbers or do not fit, for a model that torch.fx cannot trace, and for one whose trace computes
    something else in eval mode.
    """
    examples = _examples(model, example_inputs)
    qconfig = for_target(target).build()
    mapping = QConfigMapping().set_global(qconfig)
    for operators, (scale, zero_point) in FIXED.items():
        for each in operators:
            mapping.set_object_type(each, QConfig(activation=_fixed(scale, zero_point), weight=qconfig.weight))
    kept = _kept_whole(model)
    copied = _norms_apart(copy.deepcopy(model))
    _without_zero_factors(copied)
    try:
        with expected_warnings():
            prepared: fx.GraphModule = prepare_qat_fx(
                _each_call_its_own(copied.train(), kept),
                mapping,
                examples,
                _whole(kept),
                backend_config=int8(),
            )
    except (fx.proxy.TraceError, TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="cannot be traced by torch.fx, which prepares it: "
            f"{next(iter(str(error).strip().splitlines()), type(error).__name__)}",
            remedy="Take Python that depends on data out of forward, or prepare it by hand: QuantStub, fuse_modules_qat, "
            "prepare_qat with torch_side.qconfigs.for_target.",
        ) from error
    _refuse_another_network(model, prepared, examples)
    return _with_int32_sums(_silu_apart(_dropped_unrounded(_clamped_before_rounding(prepared))))


def _examples(model: nn.Module, given: Any) -> tuple[torch.Tensor, ...]:
    try:
        return tuple(torch.as_tensor(each) for each in (given if isinstance(given, (tuple, list)) else (given,)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise _unfit(model, error) from error


def _unfit(model: nn.Module, error: Exception) -> BridgeError:
    return BridgeError(
        where=f"model {type(model).__name__}",
        problem=f"does not run on the example inputs: {next(iter(str(error).strip().splitlines()), type(error).__name__)}",
        remedy="Give tensors as its forward takes them, batch included.",
    )


def _norms_apart(model: nn.Module) -> nn.Module:
    """Batch norms of others that hold their activation (timm's BatchNormAct2d), as a BatchNorm2d and what stands behind it.

    They ask in their forward whether they are trained, and torch.fx, which goes into modules of others, writes it down.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "BatchNormAct2d" and isinstance(child, nn.BatchNorm2d):
                plain = nn.BatchNorm2d(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                plain._parameters, plain._buffers = dict(child._parameters), dict(child._buffers)  # noqa: SLF001
                setattr(parent, name, nn.Sequential(plain, *(child.get_submodule(each) for each in ("drop", "act"))))
    return model


def _without_zero_factors(model: nn.Module) -> None:
    """Put `_NO_GAIN` in place of every factor of 0, in place, and say where."""
    changed = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:  # noqa: SLF001 - torch has no other name for all of them
            zero = module.weight == 0
            if bool(zero.any()):
                changed[name] = f"{int(zero.sum())} of {zero.numel()}"
                with torch.no_grad():
                    module.weight[zero] = _NO_GAIN
    if changed:
        first = next(iter(changed))
        warnings.warn(
            f"{len(changed)} batch norms have factors of 0, by which PyTorch's QAT layers divide: they are {_NO_GAIN:g} in the "
            f"prepared copy; first: '{first}', {changed[first]} channels",
            ConversionWarning,
            stacklevel=4,  # the caller of bridge.prepare
        )


_NO_GAIN = 1e-5
"""In place of a batch norm's factor of 0 (zero-initialized residuals, pruned channels): PyTorch's QAT layers divide by it."""


_ANOTHER = 0.01
"""Of the range of an output, on average: batch norms that are folded move a few parts in 10^6."""


def _refuse_another_network(model: nn.Module, prepared: fx.GraphModule, examples: tuple[torch.Tensor, ...]) -> None:
    """Both in eval mode and in float, on random numbers: Python that asked `self.training` was written down as it was."""
    bare = copy.deepcopy(prepared).eval().apply(disable_observer).apply(disable_fake_quant)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = [torch.randn_like(each) if torch.is_floating_point(each) else each for each in examples]
        try:
            meant = _tensors(copy.deepcopy(model).eval()(*inputs))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _unfit(model, error) from error
        given = _tensors(bare(*inputs))
    if len(meant) == len(given) and all(map(_alike, meant, given)):
        return
    raise BridgeError(
        where=f"model {type(model).__name__}",
        problem="computes something else in eval mode than torch.fx traced: its forward asks self.training, which a trace "
        "writes down as it is in training",
        remedy="Use modules for what training alone does (nn.Dropout for F.dropout(x, training=self.training)), and switch "
        "off outputs that only training has (aux_logits=False).",
    )


def _tensors(given: Any) -> list[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        return [given]
    several = given.values() if isinstance(given, dict) else given if isinstance(given, (tuple, list)) else ()
    return [tensor for each in several for tensor in _tensors(each)]


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
        return False
    one, other = (each[each.isfinite()].double() for each in (one, other))  # a logarithm of random numbers
    if not one.numel():
        return True
    size = max(float(one.max() - one.min()), 1e-3 * float(one.abs().max()), 1e-30)
    return float((one - other).abs().mean()) <= _ANOTHER * size


def _silu_apart(prepared: fx.GraphModule) -> fx.GraphModule:
    """SiLU as the file has it, x * sigmoid(x), with the rounding that the sigmoid's kernel does in between."""
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in list(prepared.graph.nodes):
        if node.target is not F.silu and not (node.op == "call_module" and type(modules[str(node.target)]) is nn.SiLU):
            continue
        (x,) = node.args
        name = f"{node.name}_sigmoid_post_process"
        prepared.add_module(name, _fixed(*SIGMOID)())
        with prepared.graph.inserting_before(node):
            gate = prepared.graph.call_module(name, (prepared.graph.call_function(torch.sigmoid, (x,)),))
            node.replace_all_uses_with(prepared.graph.call_function(torch.mul, (x, gate)))
        prepared.graph.erase_node(node)
    prepared.delete_all_unused_submodules()
    prepared.recompile()
    return prepared


def _with_int32_sums(prepared: fx.GraphModule) -> fx.GraphModule:
    """In eval, every layer between fake-quants adds up what the int8 kernel will add up: its outputs are the file's."""
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if layer is not None and hasattr(layer, "weight_fake_quant"):
            *_, source = _back(node.args[0], modules)
            activation = modules.get(str(source.target))
            if isinstance(activation, FakeQuantizeBase):
                add_up_in_eval(layer, activation)
    return prepared


CLAMPS = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardtanh,
    F.relu,
    F.relu6,
    F.hardtanh,
    torch.relu,
    torch.clamp,
    "relu",
    "relu_",
    "clamp",
)
"""What int8 kernels do on their sum before they round it (TFLite's fused activations)."""


def _clamped_before_rounding(prepared: fx.GraphModule) -> fx.GraphModule:
    """Without the fake-quant between an operator and the clamp behind it: only what leaves the clamp is rounded.

    FX fuses ReLU into some operators, and ReLU6 into none: its range would be spent on what the clamp cuts off.
    """
    modules = dict(prepared.named_modules(remove_duplicate=False))

    def kind(node: fx.Node) -> Any:
        return type(modules[str(node.target)]) if node.op == "call_module" else node.target

    for node in list(prepared.graph.nodes):
        if node.op != "call_module" or not issubclass(kind(node), FakeQuantizeBase):
            continue
        (source,) = node.args
        behind = list(node.users)
        if len(behind) == 1 and kind(behind[0]) in CLAMPS and source.op != "placeholder" and len(source.users) == 1:
            node.replace_all_uses_with(source)
            prepared.graph.erase_node(node)
    prepared.delete_all_unused_submodules()
    prepared.recompile()
    return prepared


def _whole(kinds: Sequence[type]) -> PrepareCustomConfig:
    return PrepareCustomConfig().set_non_traceable_module_classes(list(kinds))


def _each_call_its_own(model: nn.Module, kept: Sequence[type]) -> nn.Module:
    """A layer that is called at several places, as one for each, their weights the same tensors.

    Its inputs have scales of their own there. And FX fuses a ReLU into the layer wherever it stands behind one of its calls.
    """
    graph = QuantizationTracer([], list(kept)).trace(model)
    calls = [node for node in graph.nodes if node.op == "call_module"]
    weighted = {node.target for node in calls if next(model.get_submodule(node.target).parameters(), None) is not None}
    first = {node.target: node for node in reversed(calls)}
    again = [node for node in calls if node.target in weighted and node is not first[node.target]]
    if not again:
        return model
    traced = fx.GraphModule(model, graph)
    for number, node in enumerate(again, 2):
        name = f"{node.target.replace('.', '_')}_call_{number}"
        traced.add_submodule(name, _tied(traced.get_submodule(node.target)))
        node.target = name
    traced.recompile()
    return traced


def _tied(module: nn.Module) -> nn.Module:
    """Another module with the very same parameters and buffers."""
    other = copy.copy(module)
    for kind in ("_parameters", "_buffers", "_modules"):
        setattr(other, kind, dict(getattr(module, kind)))
    return other


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def _dropped_unrounded(prepared: fx.GraphModule) -> fx.GraphModule:
    """Without the fake-quant behind a dropout: at inference there is none, and in training its range is twice as wide."""
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in list(prepared.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[str(node.target)], FakeQuantizeBase):
            continue
        way = list(_back(node.args[0], modules))
        dropped = any(isinstance(modules.get(str(each.target)), DROPOUTS) for each in way)
        if dropped and isinstance(modules.get(str(way[-1].target)), FakeQuantizeBase):
            node.replace_all_uses_with(node.args[0])
            prepared.graph.erase_node(node)
    prepared.delete_all_unused_submodules()
    prepared.recompile()
    return prepared


def _back(node: fx.Node, modules: Mapping[str, nn.Module]) -> Iterator[fx.Node]:
    """The node and what it comes from, as far as numbers are only moved, or dropped in training; last what made them."""
    yield node
    kind = modules.get(str(node.target)) if node.op == "call_module" else node.target
    if node.args and isinstance(node.args[0], fx.Node) and (isinstance(kind, (*DROPOUTS, nn.Flatten)) or kind in MOVES):
        yield from _back(node.args[0], modules)


def _kept_whole(model: nn.Module) -> list[type]:
    """Modules of others that ask whether they are trained: a trace would write the answer down for ever.

    torchvision's StochasticDepth and timm's DropPath would go on dropping at inference.
    """
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    return [kind for kind in kinds if not _has_parts(model, kind) and "self.training" in _source(kind)]


def _has_parts(model: nn.Module, kind: type) -> bool:
    return any(
        next(iter([*module.children(), *module.parameters()]), None) is not None
        for module in model.modules()
        if type(module) is kind
    )


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""  # made at run time: there is nothing to read


def _fixed(scale: float, zero_point: int) -> Any:
    observer = FixedQParamsObserver.with_args(
        scale=scale, zero_point=zero_point, dtype=torch.qint8, quant_min=-128, quant_max=127
    )
    return FixedQParamsFakeQuantize.with_args(observer=observer)


def int8() -> backends.BackendConfig:
    """PyTorch's native BackendConfig with int8 activations: its own takes quint8 only, and drops others without a word."""
    dtypes = backends.DTypeConfig(
        input_dtype=torch.qint8, output_dtype=torch.qint8, weight_dtype=torch.qint8, bias_dtype=torch.float
    )
    config = backends.BackendConfig("int8 TFLite")
    for pattern in backends.get_native_backend_config().configs:
        static = [each for each in pattern.dtype_configs if each.input_dtype == torch.quint8 and not each.is_dynamic]
        if static:
            described = {**pattern.to_dict(), "dtype_configs": [dtypes.to_dict()]}
            config.set_backend_pattern_config(backends.BackendPatternConfig.from_dict(described))
    for operators, scale in (
        ((*AVERAGES, *ALSO), "OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT"),
        (MOVES, "OUTPUT_SHARE_OBSERVER_WITH_INPUT"),
    ):
        for each in operators:
            pattern = backends.BackendPatternConfig(each).add_dtype_config(dtypes)
            config.set_backend_pattern_config(pattern.set_observation_type(backends.ObservationType[scale]))
    return config


def freeze_observers(prepared: nn.Module) -> nn.Module:
    """Ranges and batch norm statistics stand still from here on, in place; call it for the last epochs."""
    return prepared.apply(torch.ao.quantization.disable_observer).apply(freeze_bn_stats)
