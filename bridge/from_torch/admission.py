"""Which PyTorch models come in, and what the others are told, in the words of the tool they were made with."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bridge.errors import BridgeError

_ONNX_THEN = "then: python -m bridge model.onnx"


@dataclass(frozen=True)
class Toolkit:
    """A toolkit whose models hold modules of its own; its ONNX has all scales."""

    name: str
    package: str
    export: str


TOOLKITS = (
    Toolkit("Brevitas", "brevitas", "brevitas.export.export_onnx_qcdq(model, args=example_inputs, export_path='model.onnx')"),
    Toolkit("AIMET", "aimet_torch", "aimet_torch.onnx.export(sim.model, example_inputs, 'model.onnx')"),
    Toolkit("NVIDIA ModelOpt", "modelopt", "torch.onnx.export(model, example_inputs, 'model.onnx', opset_version=17)"),
    Toolkit("AMD Quark", "quark", "quark.torch.ModelExporter, export_onnx_model(model, example_inputs)"),
)  # fmt: skip


def admitted(model: Any) -> Any:
    """The module inside of wrappers, if its kind can be converted; raises `BridgeError` that says what to do instead."""
    import torch

    _refuse_other_frameworks(model)
    _refuse_toolkits(model)
    if isinstance(model, torch.export.ExportedProgram):
        return model
    if not isinstance(model, torch.nn.Module):
        raise BridgeError(
            where="bridge.convert",
            problem=f"takes a torch.nn.Module, not {type(model).__name__}",
            remedy="For an ONNX file: python -m bridge model.onnx, or bridge.exact.convert.convert(Path(...)).",
        )
    model = unwrapped(model)
    _refuse_toolkits(model)
    _refuse_dynamic(model)
    return model


def unwrapped(model: Any) -> Any:
    """The model inside of DataParallel, DistributedDataParallel, AveragedModel and torch.compile."""
    import torch

    inside = {
        "module": (
            torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel
        ),
        "_orig_mod": (torch._dynamo.eval_frame.OptimizedModule,),  # noqa: SLF001 - torch has no public name for it
    }  # fmt: skip
    for attribute, wrappers in inside.items():
        if isinstance(model, wrappers):
            return unwrapped(getattr(model, attribute))
    return model


def statically_quantized(model: Any) -> Any:
    """A model after calibration, prepared and not converted, as `convert` makes it; every other one as it is.

    `model` belongs to the caller of this, and may be changed.
    """
    import torch

    modules = list(model.modules())
    observed = any(isinstance(each, torch.ao.quantization.ObserverBase) for each in modules)
    if not observed or any(isinstance(each, torch.ao.quantization.FakeQuantizeBase) for each in modules):
        return model
    try:
        with _quietly():
            if isinstance(model, torch.fx.GraphModule):
                from torch.ao.quantization.quantize_fx import convert_to_reference_fx

                return convert_to_reference_fx(model)
            return torch.ao.quantization.convert(model)
    except (RuntimeError, AssertionError, ValueError, AttributeError, KeyError) as error:
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="is prepared for calibration, and torch.ao.quantization cannot convert it: "
            f"{next(iter(str(error).strip().splitlines()), type(error).__name__)}",
            remedy="Run your calibration data through it, and call convert (or convert_fx) yourself first.",
        ) from error


def refuse_without_scales(model: Any) -> None:
    """Raise `BridgeError` for a model whose activations have no static scale, with the reason."""
    import torch

    modules = dict(model.named_modules())
    fake_quants = {
        name: each for name, each in modules.items() if isinstance(each, torch.ao.quantization.FakeQuantizeBase)
    }
    if any(not name.endswith("weight_fake_quant") for name in fake_quants):
        return
    if any(
        hasattr(each, "scale") and hasattr(each, "zero_point")
        for name, each in modules.items()
        if name not in fake_quants
    ):
        return
    if isinstance(model, torch.fx.GraphModule) and any(map(_quantizes, model.graph.nodes)):
        return
    if fake_quants:
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="has fake-quant on its weights only: prepare_qat_fx leaves out, without a word, what the BackendConfig "
            f"does not list{_asked_for(model)}",
            remedy="Give prepare_qat_fx a backend_config that has this type, or use activations of quint8, the default's.",
        )
    raise BridgeError(
        where=f"model {type(model).__name__}",
        problem="has no fake-quant and no quantized module, so there is no trained scale to keep",
        remedy="Prepare it for quantization-aware training (bridge takes eager, FX and PT2E models), and fine-tune it.",
    )


def _asked_for(model: Any) -> str:
    """The type of activations that the qconfigs of a prepared model ask for."""
    asked = set()
    for module in model.modules():
        qconfig = getattr(module, "qconfig", None)
        if qconfig is not None:
            with _quietly():
                asked.add(str(getattr(qconfig.activation(), "dtype", "")).removeprefix("torch."))
    named = ", ".join(sorted(filter(None, asked)))
    return f", here activations of type {named}" if named else ""


_QUANTIZING = ("quantize_per_tensor", "quantize_per_channel", "quantized")


def _quantizes(node: Any) -> bool:
    return node.op == "call_function" and any(word in str(node.target) for word in _QUANTIZING)


def _refuse_other_frameworks(model: Any) -> None:
    packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    if packages & {"keras", "tf_keras", "tensorflow"}:
        keras_3 = "keras" in packages
        raise BridgeError(
            where="bridge.convert",
            problem=f"takes PyTorch models, and this one is of {'Keras 3' if keras_3 else 'Keras 2 (tf_keras)'}",
            remedy="Keras 3 has no quantization-aware training: train it with tf_keras and TF-MOT, or in PyTorch."
            if keras_3
            else "tf.lite.TFLiteConverter.from_keras_model(model) keeps what TF-MOT trained; "
            "python -m compare.run shows what it does to it.",
        )
    if "onnx" in packages:
        raise BridgeError(
            where="bridge.convert",
            problem="takes PyTorch models, and this one is an ONNX model",
            remedy="bridge.exact.convert.convert(model) takes it.",
        )


def _refuse_toolkits(model: Any) -> None:
    for each in _parts(model):
        for kind in type(each).__mro__:
            found = next((kit for kit in TOOLKITS if kind.__module__.partition(".")[0] == kit.package), None)
            if found is not None:
                raise BridgeError(
                    where=f"model {type(model).__name__}",
                    problem=f"is quantized with {found.name}, whose modules ({type(each).__name__}) only {found.name} can read",
                    remedy=f"Export it: {found.export}; {_ONNX_THEN}",
                )


def _parts(model: Any) -> Iterator[Any]:
    yield model
    modules: Callable[[], Any] | None = getattr(model, "modules", None)
    if callable(modules) and hasattr(model, "named_parameters"):
        yield from modules()


def _refuse_dynamic(model: Any) -> None:
    """What is quantized anew for every input: torchao's `quantize_` and QATConfig, and torch's dynamic modules."""
    import torch

    for name, module in model.named_modules():
        kinds = [type(module), *map(type, module.parameters(recurse=False))]
        made_by = [kind for kind in kinds if kind.__module__.startswith(("torchao", "torch.ao.nn.quantized.dynamic"))]
        made_by += [
            kind for kind in kinds if ".dynamic" in kind.__module__ and kind.__module__.startswith("torch.ao.nn")
        ]
        if isinstance(module, torch.ao.quantization.PlaceholderObserver) and getattr(module, "is_dynamic", False):
            made_by.append(type(module))
        kept = [kind for kind in made_by if ".pt2e" not in kind.__module__]
        if kept:
            raise BridgeError(
                where=f"model {type(model).__name__}, module '{name}'",
                problem=f"({kept[0].__name__}) quantizes its activations when the model runs: they have no static scale, "
                "and an int8 .tflite needs one for every tensor",
                remedy="Train with static activations: torchao's prepare_qat_pt2e, or torch.ao.quantization.prepare_qat.",
            )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Deprecations of the quantization that the user chose are the user's, and were said when it was prepared."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
