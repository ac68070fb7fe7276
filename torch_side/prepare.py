"""A float network made ready for quantization-aware training, as the int8 kernels will compute it.

Built on FX mode of torch.ao.quantization: it fuses batch norms, finds every sum and joint, and gives what shares a scale one
fake-quant, and it comes with torch 2.4 to 2.15 alike. PT2E (torchao) is where PyTorch goes; its quantizers leave activation
functions and joints in float that a .tflite needs in int8, so models of PT2E are taken (bridge.convert) but not made here.
"""

from __future__ import annotations

import copy
import inspect
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
)
from torch.ao.quantization import backend_config as backends
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torch.nn import functional as F  # noqa: N812 - the field's own name for it

from bridge.errors import BridgeError
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
MOVES = (nn.Flatten, torch.flatten, "flatten", torch.reshape, "reshape", "view", "contiguous", "permute", "transpose")
"""They move numbers and compute none: one scale for what goes in and comes out."""


def prepare(model: nn.Module, example_inputs: Any, target: str = "cpu") -> fx.GraphModule:
    """A copy of a float model, in training mode, that trains with the roundings of int8 TFLite.

    `example_inputs`: a tensor or a tuple of them. `target`: the chip, as `python -m compare.npu` names it; it decides
    whether weights have one scale for each channel. Every activation gets a fake-quant of int8 over the whole range;
    sigmoid, softmax and tanh the scale that their kernel writes.

    Raises `BridgeError` for an unknown target, and for a model that torch.fx cannot trace.
    """
    examples = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    qconfig = for_target(target).build()
    mapping = QConfigMapping().set_global(qconfig)
    for operators, (scale, zero_point) in FIXED.items():
        for operator in operators:
            mapping.set_object_type(operator, QConfig(activation=_fixed(scale, zero_point), weight=qconfig.weight))
    try:
        with expected_warnings():
            prepared: fx.GraphModule = prepare_qat_fx(
                copy.deepcopy(model).train(), mapping, examples, _kept_whole(model), backend_config=int8()
            )
    except (fx.proxy.TraceError, TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="cannot be traced by torch.fx, which prepares it: "
            f"{next(iter(str(error).strip().splitlines()), type(error).__name__)}",
            remedy="Take Python that depends on data out of forward, or prepare it by hand: QuantStub, fuse_modules_qat, "
            "prepare_qat with torch_side.qconfigs.for_target.",
        ) from error
    return _with_int32_sums(_silu_apart(_clamped_before_rounding(prepared)))


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
    behind: dict[nn.Module, list[nn.Module | None]] = {}
    for node in prepared.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if layer is not None and hasattr(layer, "weight_fake_quant"):
            source = node.args[0]
            behind.setdefault(layer, []).append(
                modules.get(str(source.target)) if isinstance(source, fx.Node) else None
            )
    for layer, activations in behind.items():
        # A layer at two places has two grids, and computes in float.
        if len(set(activations)) == 1 and isinstance(activations[0], FakeQuantizeBase):
            add_up_in_eval(layer, activations[0])
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


def _kept_whole(model: nn.Module) -> PrepareCustomConfig:
    """Modules of others that ask whether they are trained: a trace would write the answer down for ever.

    torchvision's StochasticDepth and timm's DropPath would go on dropping at inference.
    """
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    asking = [kind for kind in kinds if not _has_parts(model, kind) and "self.training" in _source(kind)]
    return PrepareCustomConfig().set_non_traceable_module_classes(asking)


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
        (AVERAGES, "OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT"),
        (MOVES, "OUTPUT_SHARE_OBSERVER_WITH_INPUT"),
    ):
        for operator in operators:
            pattern = backends.BackendPatternConfig(operator).add_dtype_config(dtypes)
            config.set_backend_pattern_config(pattern.set_observation_type(backends.ObservationType[scale]))
    return config


def freeze_observers(prepared: nn.Module) -> nn.Module:
    """Ranges and batch norm statistics stand still from here on, in place; call it for the last epochs."""
    return prepared.apply(torch.ao.quantization.disable_observer).apply(freeze_bn_stats)
