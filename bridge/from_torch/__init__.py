"""A team's own PyTorch model to .tflite in one call: settle, read, convert, write; and how far the file is from it."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError, ConversionWarning, printable
from bridge.exact import record
from bridge.exact.convert import Conversion, Options, convert_graph, save
from bridge.exact.convert import convert as convert_onnx
from bridge.exact.graph import Graph
from bridge.from_torch.admission import admitted, refuse_without_scales, statically_quantized, unwrapped
from bridge.verifying.batches import batches
from bridge.verifying.litert import Kernels
from bridge.verifying.verification import Said, compare


def convert(model: Any, example_inputs: Any, path: str | Path, options: Options | None = None) -> Conversion:
    """Write a PyTorch model as int8 .tflite, every trained scale kept, and return what was done.

    `model`: eager or of FX mode, prepared and trained or converted; of PT2E (torchao), prepared or converted; or a
    `torch.export.ExportedProgram`. `example_inputs`: one float32 tensor or array, or a tuple of them, shaped as the
    device will feed the model, batch included. The model is left as it is.

    Whatever training did not decide and can move a value (a scale that was inherited or derived, weights made symmetric)
    is a `bridge.ConversionWarning`, one for each kind, the worst first; `warnings.simplefilter("error",
    bridge.ConversionWarning)` makes it an error. `conversion.notes` has all of it as data, with the bound in LSB;
    `print(conversion)` is the summary.

    Raises `BridgeError` for a model without trained scales, for one that ONNX cannot express, and for everything that
    cannot be kept exactly; then no file is written.
    """
    import torch

    examples = _arrays(example_inputs)
    model = admitted(model)
    with torch.random.fork_rng(devices=[]):  # whatever a forward draws
        conversion = _converted(model, ready(model), examples, options)
    save(conversion.tflite, Path(path))
    for line in record.warnings(conversion, moving=True):
        warnings.warn(printable(line), ConversionWarning, stacklevel=3)  # the caller of bridge.convert
    return conversion


def convert_pt2(path: str | Path, options: Options | None = None) -> Conversion:
    """Convert a file of `torch.export.save`, at the shapes that it was exported with; nothing is written.

    Raises `BridgeError` for files that cannot be read, or that bring code along (files.py), and as `convert` does.
    """
    from bridge.from_torch.files import load

    program, shapes = load(Path(path))
    return _converted(program, ready(program), tuple(np.zeros(shape, np.float32) for shape in shapes), options)


BY_ONNX = "torch.onnx.export"


def _converted(model: Any, frozen: Any, examples: tuple[np.ndarray, ...], options: Options | None) -> Conversion:
    """By torch.fx, else by torch.export, else by torch's ONNX exporter; a model that was exported comes one way only."""
    from bridge.from_torch.building import Misread, Unknown
    from bridge.from_torch.exported import is_exported, read_by_export, read_exported
    from bridge.from_torch.reading import read

    exported = is_exported(frozen)
    ways = {"torch.export": read_exported} if exported else {"torch.fx": read, "torch.export": read_by_export}
    reasons: list[str] = []
    misread = False
    for way, reads in ways.items():
        try:
            graph = reads(frozen, examples)
        except Unknown as unknown:
            misread = misread or isinstance(unknown, Misread)
            reasons.append(str(unknown))
        else:
            _let_go(frozen)
            said = f"{way} (torch.fx: {reasons[0]})" if reasons else way
            return _converted_exported(graph, options) if exported else convert_graph(graph, options, said)
    if misread or len(ways) == 1:
        raise _refused(model, reasons[0], traced=misread)
    said = f"{BY_ONNX} (torch.fx: {reasons[0]}; torch.export: {reasons[1]})"
    return replace(by_onnx(frozen, examples, options, checked=True), way=said)


def _refused(model: Any, why: str, *, traced: bool) -> BridgeError:
    if not traced:
        return BridgeError(
            where=f"model {type(model).__name__}",
            problem=f"has what the bridge does not read: {why}",
            remedy="What it writes: docs/operators.md. Replace these operators, or leave them behind the exported part.",
        )
    return BridgeError(
        where=f"model {type(model).__name__}",
        problem=f"cannot be read as it runs: {why}",
        remedy="Let forward compute the same for the same input, without writing into tensors: y = torch.relu(x) in place "
        "of x.relu_() where something else still shows x.",
    )


def ready(model: Any) -> Any:
    """A copy that computes what the device shall: eval mode, observers off, fake-quant and batch norms frozen."""
    import torch

    from bridge.from_torch.exported import is_exported
    from torch_side import export

    frozen = frozen_copy(model)
    if is_exported(frozen):
        return frozen
    refuse_without_scales(frozen)
    fake_quantized = any(isinstance(module, torch.ao.quantization.FakeQuantizeBase) for module in frozen.modules())
    return export.freeze_in_place(frozen) if fake_quantized else frozen


def by_fx(frozen: Any, examples: tuple[np.ndarray, ...], options: Options | None = None) -> Conversion:
    """Read as torch.fx traces it; raises `Unknown` for what it does not trace or the reader does not know."""
    from bridge.from_torch.reading import read

    return convert_graph(read(frozen, examples), options, "torch.fx")


def _let_go(frozen: Any) -> None:
    """The float weights of a model that was read: nobody asks again, and torch.fx's circles would keep them for a while."""
    from torch_side.export import FrozenLayer

    for module in frozen.modules():
        if isinstance(module, FrozenLayer):
            del module.layer.weight


def _converted_exported(graph: Graph, options: Options | None) -> Conversion:
    try:
        return convert_graph(graph, options, "torch.export")
    except BridgeError as error:
        if "has no trained scale" not in error.problem:
            raise
        raise replace_remedy(
            error,
            "The quantizer left it in float: annotate it (XNNPACKQuantizer does where X86InductorQuantizer fuses a sum into "
            "a convolution), prepare and train again; or pass Options(allow_float=True).",
        ) from error


def replace_remedy(error: BridgeError, remedy: str) -> BridgeError:
    """The same in the words of the tool that the model came with."""
    return BridgeError(where=error.where, problem=error.problem, remedy=remedy)


def by_onnx(
    frozen: Any, examples: tuple[np.ndarray, ...], options: Options | None = None, *, checked: bool = False
) -> Conversion:
    """Through torch's own exporter: the control, and the way of what the reader of torch.fx graphs does not know.

    `checked`: what the exporter wrote is held against the model by ONNX Runtime, where that is installed: the exporter
    traces, and writes a number that Python read from a tensor down for ever.
    """
    from torch_side import export

    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        export.export_onnx(frozen, examples, onnx_file)
        if checked:
            _refuse_other_numbers(onnx_file, frozen, examples)
        return replace(convert_onnx(onnx_file, options), way=BY_ONNX)


_ANOTHER_NETWORK = 0.05
"""Of an output's range, on average: roundings that fall otherwise move a few outputs, another network moves most."""


def _refuse_other_numbers(onnx_file: Path, frozen: Any, examples: tuple[np.ndarray, ...]) -> None:
    from importlib.util import find_spec

    import onnx
    import torch

    from bridge.from_torch.reading import random_inputs
    from bridge.verifying import onnx_runtime

    if find_spec("onnxruntime") is None:
        return
    inputs = random_inputs(examples)
    session = onnx_runtime.session(onnx.load(onnx_file))
    with torch.no_grad():
        said = model_outputs(frozen, [each.clone() for each in inputs])
    fed = {value.name: each.numpy() for value, each in zip(session.get_inputs(), inputs, strict=False)}
    for ours, theirs in zip(said, session.run(None, fed), strict=True):
        size = max(float(np.ptp(ours)), 1e-3 * float(np.abs(ours).max(initial=0)), 1e-30) if ours.size else 1.0
        if ours.shape != theirs.shape or float(np.abs(ours - theirs).mean()) > _ANOTHER_NETWORK * size:
            raise _refused(frozen, "torch's ONNX exporter writes something else than the model computes", traced=True)


def verify(model: Any, conversion: Conversion, inputs: Any) -> dict[Kernels, dict[str, Any]]:
    """Distances of a conversion's outputs from what the PyTorch model says, by kernel set and output name.

    `inputs`: as `example_inputs` of `convert`, any number of samples along the first axis (a multiple of the model's
    batch). The model is the reference: a fake-quant model, or one of PyTorch's int8 engine. A copy of it runs, on the
    CPU, in eval mode and with its observers off: the model itself is left as it is. The file may have inputs and
    outputs of any type.

    Raises `BridgeError` where the inputs do not fit, or the model cannot be copied or run.
    """
    import torch

    graph, arrays = conversion.graph, _arrays(inputs)
    if len(arrays) != len(graph.inputs):
        raise BridgeError(
            where="bridge.verify",
            problem=f"got {len(arrays)} inputs; the file takes {len(graph.inputs)}: {', '.join(graph.inputs)}",
            remedy="Give one float32 array for each input, in the order of the model's forward.",
        )
    ready = frozen_copy(model)

    def said() -> Iterator[Said]:
        for batch in batches(graph, dict(zip(graph.inputs, arrays, strict=True))):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                yield batch, model_outputs(ready, [torch.from_numpy(batch[name].copy()) for name in graph.inputs])

    return compare(graph, conversion.tflite, said())


def frozen_copy(model: Any) -> Any:
    """A copy of a PyTorch model that learns nothing from what it is given: eval mode, observers off, on the CPU.

    Raises `BridgeError` for what is no module or cannot be copied.
    """
    import torch

    from bridge.from_torch.exported import is_exported, settled

    original = unwrapped(model)
    if is_exported(original):
        return settled(original)
    if not isinstance(original, torch.nn.Module):
        raise BridgeError(
            where="bridge.verify",
            problem=f"takes the torch.nn.Module that was converted, not {type(model).__name__}",
            remedy="For an ONNX file: python -m bridge model.onnx --verify inputs.npz",
        )
    try:
        ready = copy.deepcopy(original, _weights_nobody_writes(original))
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise BridgeError(
            where=f"model {type(original).__name__}",
            problem=f"cannot be copied: {(str(error).strip().splitlines() or [type(error).__name__])[0]}",
            remedy="Let it keep no tensors of its last run (or detach them), and no open files or locks.",
        ) from error
    ready = ready.eval().cpu().apply(torch.ao.quantization.disable_observer)
    _keep_packing(ready, original)
    return statically_quantized(ready)


def _weights_nobody_writes(model: Any) -> dict[int, Any]:
    """A memo of `deepcopy`: the float weights of QAT layers are the copy's, too; freezing puts others in their place."""
    weights = (module.weight for module in model.modules() if hasattr(module, "weight_fake_quant"))
    return {id(weight): weight for weight in weights if weight.device.type == "cpu"}


def _keep_packing(copied: Any, original: Any) -> None:
    """The int8 layers of a copy run on the engine that theirs were packed for.

    PyTorch packs a copy anew, for the engine that is selected by then: another reference, with other roundings.
    """
    import torch

    for mine, theirs in zip(copied.modules(), original.modules(), strict=True):
        packed = getattr(theirs, "_packed_params", None)
        if isinstance(packed, torch.ScriptObject):
            mine._packed_params = packed  # noqa: SLF001 - torch has no other name for it


def model_outputs(model: Any, inputs: list[Any]) -> list[np.ndarray]:
    """What the model gives, one array for each output, in the order in which the exporter numbers them."""
    try:
        given = model(*inputs)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem=f"does not run on these inputs: {(str(error).strip().splitlines() or [type(error).__name__])[0]}",
            remedy="Give the inputs that the model was converted with, float32, in the order of its forward.",
        ) from error
    return [(each.dequantize() if each.is_quantized else each).detach().cpu().numpy() for each in _tensors(given)]


def _tensors(given: Any) -> list[Any]:
    if isinstance(given, dict):
        return [tensor for each in given.values() for tensor in _tensors(each)]
    if isinstance(given, (tuple, list)):
        return [tensor for each in given for tensor in _tensors(each)]
    return [] if given is None else [given]


def _arrays(example_inputs: Any) -> tuple[np.ndarray, ...]:
    several = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    try:
        arrays = tuple(_array(each) for each in several)
    except (ValueError, TypeError, RuntimeError) as error:
        raise BridgeError(
            where="example inputs",
            problem=f"are no arrays of numbers: {str(error).strip().splitlines()[0]}",
            remedy="Give one float32 array or tensor for each input of the model, with its batch axis.",
        ) from error
    if not arrays or any(array.size == 0 for array in arrays):
        raise BridgeError(
            where="example inputs",
            problem="are empty",
            remedy="Give one float32 array or tensor for each input of the model, with its batch axis.",
        )
    return arrays


def _array(each: Any) -> np.ndarray:
    """float32, from wherever it is: a tensor may be on a GPU, or part of a graph."""
    return np.asarray(each.detach().cpu() if hasattr(each, "detach") else each, np.float32)
