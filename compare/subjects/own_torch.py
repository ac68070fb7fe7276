"""A team's own PyTorch model as a subject: its own outputs are the truth. For a worker process: it runs the team's code."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bridge.errors import BridgeError
from compare.subjects import own_onnx
from compare.subjects.code import made_by
from compare.subjects.model import Form, Subject, reference_lsb
from compare.subjects.samples import CALIBRATION, LABELS, Samples, notes, refuse_no_truth, samples


def prepare(target: str, arrays: Mapping[str, np.ndarray], folder: Path, metric: str | None = None) -> Subject:
    """What MODULE:FACTORY makes, in every form that routes start from: as it is, on PyTorch's int8 engine, in float.

    Raises `BridgeError` for what the factory raises, and for a model that `bridge.convert` does not admit.
    """
    from bridge.from_torch.admission import admitted

    folder.mkdir(parents=True, exist_ok=True)
    model = admitted(made_by("--model", target))
    given = samples(arrays, names_of(model, arrays))
    forms, said = forms_of(model, given, folder)
    return Subject(target, forms, given.labels, (*notes(next(iter(forms.values())), given, metric), *said))


UNTRAINED = (
    "Nothing in the model is quantized: every scale below was estimated. Train it quantization-aware (bridge.prepare), or give "
    "your own loop by --train."
)


def forms_of(model: Any, given: Samples, folder: Path) -> tuple[dict[str, Form], tuple[str, ...]]:
    """The forms of an admitted model by name, and what a reader must know of them; files are written into `folder`.

    Raises `BridgeError` where the model as it is has
    no file that a route starts from, or answers with nothing to hold files against.
    """
    found, said = trained_forms(model, given, folder, "")
    if is_float(model):
        return found, (UNTRAINED,)
    floats, why = own_onnx.float_beside(next((form for form in found.values() if form.onnx), None), folder)
    return found | floats, (*said, *why)


def trained_forms(model: Any, given: Samples, folder: Path, name: str) -> tuple[dict[str, Form], tuple[str, ...]]:
    """As `forms_of`, without a float form that nobody trained; with the `name` of one of several trainings, called by it."""
    from bridge.from_torch import frozen_copy
    from bridge.from_torch.exported import is_exported

    expected, shapes = _outputs(frozen_copy(model), list(given.inputs.values()))
    refuse_no_truth(expected)
    if is_float(model):
        plain = copy.deepcopy(model).eval()
        return {"float": _onnx_form(plain, "float", expected, shapes, given, folder, name)}, ()
    if is_exported(model):
        found, said = _of_program(model, expected, shapes, given, folder)
    else:
        found, said = _of_modules(model, expected, shapes, given, folder, name)
    return _called(name, found), said


def is_float(model: Any) -> bool:
    """Whether nobody has quantized anything in it yet."""
    import torch

    from bridge.from_torch.exported import is_exported

    if is_exported(model) or not isinstance(model, torch.nn.Module):
        return False
    quantized = (torch.ao.quantization.FakeQuantizeBase, torch.ao.quantization.ObserverBase)
    return not any(
        isinstance(each, quantized) or hasattr(each, "set_weight_bias") or ".ao.nn.quantized" in type(each).__module__
        for each in model.modules()
    )


def _called(name: str, forms: Mapping[str, Form]) -> dict[str, Form]:
    return {(f"{name}.{kind}" if name else kind): form for kind, form in forms.items()}


def _of_program(
    model: Any, expected: np.ndarray, shapes: tuple[tuple[int, ...], ...], given: Samples, folder: Path
) -> tuple[dict[str, Form], tuple[str, ...]]:
    """A PT2E program, and the QDQ ONNX that PyTorch writes of it, where it does."""
    import torch

    from bridge.from_torch import ready

    frozen = ready(model)
    examples = _examples(given)
    lsb = _last_scale(frozen) or reference_lsb(expected, None)
    file = folder / "model.pt2"
    program = torch.export.export(frozen, tuple(map(torch.from_numpy, examples)))
    torch.export.save(program, file)
    form = Form(file, expected, lsb, False, given.inputs, given.calibration, "program", shapes)
    onnx_file = folder / "model.onnx"
    try:
        taken = _written_by_dynamo(program, onnx_file)
        inputs, calibration = _renamed(given, taken)
        own, own_shapes = own_onnx.outputs(onnx_file, inputs, 1)
        qdq = Form(onnx_file, own, lsb, True, inputs, calibration, "qdq", own_shapes)
    except Exception as error:  # noqa: BLE001 - the exporter raises whatever it likes
        return {"program": form}, (f"PyTorch writes no ONNX of the program that runs: {first_line(error)}",)
    return {"program": form, "qdq": qdq}, ()


def _of_modules(
    model: Any,
    expected: np.ndarray,
    shapes: tuple[tuple[int, ...], ...],
    given: Samples,
    folder: Path,
    name: str,
) -> tuple[dict[str, Form], tuple[str, ...]]:
    """An eager or FX model as ONNX, and as the model that PyTorch's int8 engine runs."""
    from bridge.from_torch import ready

    frozen = ready(model)
    kind = "int8" if _on_the_engine(frozen) else "qdq"
    found = {kind: _onnx_form(frozen, kind, expected, shapes, given, folder, name)}
    if kind == "int8" or (name and not _for_the_engine(model)):
        return found, ()
    try:
        engine = _converted(model)
        own, own_shapes = _outputs(engine, list(given.inputs.values()))
        refuse_no_truth(own)
        found["int8"] = _onnx_form(engine, "int8", own, own_shapes, given, folder, name)
    except Exception as error:  # noqa: BLE001 - what an engine does not run is said
        what = f"No form {f'of {name} ' if name else ''}on PyTorch's int8 engine"
        said = f"it {error.problem}" if isinstance(error, BridgeError) else first_line(error)
        return found, (f"{what}: {said}.",)
    return found, ()


def _onnx_form(
    model: Any,
    kind: str,
    expected: np.ndarray,
    shapes: tuple[tuple[int, ...], ...],
    given: Samples,
    folder: Path,
    name: str,
) -> Form:
    file = folder / f"{f'{name}.' if name else ''}{'model' if kind != 'int8' else 'model.int8'}.onnx"
    taken = _exported(model, _examples(given), file)
    inputs, calibration = _renamed(given, taken)
    lsb = own_onnx.output_scale(onnx.load(file)) or reference_lsb(expected, None)
    return Form(file, expected, lsb, True, inputs, calibration, kind, shapes)


def _converted(model: Any) -> Any:
    """The int8 model of PyTorch's own engine. Raises `BridgeError` where its activations are not of the engine's type."""
    import torch
    from torch.ao import quantization as tq

    from torch_side.training import expected_warnings

    if not _for_the_engine(model):
        raise BridgeError(
            where="PyTorch's int8 engine",
            problem="takes uint8 activations only, and this model was trained with others",
            remedy="Use the fake-quant model, which every route through QDQ ONNX starts from.",
        )
    copied = copy.deepcopy(model).eval()
    with expected_warnings():
        if isinstance(copied, torch.fx.GraphModule):
            from torch.ao.quantization.quantize_fx import convert_fx

            return convert_fx(copied)
        return tq.convert(copied)


def _for_the_engine(model: Any) -> bool:
    """Whether all its activations are uint8, the only ones that PyTorch's engines take."""
    import torch

    fake_quants = [each for each in model.modules() if isinstance(each, torch.ao.quantization.FakeQuantizeBase)]
    weights = {id(module.weight_fake_quant) for module in model.modules() if hasattr(module, "weight_fake_quant")}
    return all(each.dtype == torch.quint8 for each in fake_quants if id(each) not in weights)


def names_of(model: Any, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The inputs in the order of the model's forward where their arrays have its names, else in that of the .npz."""
    given = [name for name in arrays if name not in (LABELS, CALIBRATION) and not name.startswith(f"{CALIBRATION}:")]
    forward = [] if not hasattr(model, "forward") else list(inspect.signature(model.forward).parameters)
    return [name for name in forward if name in given] if set(given) <= set(forward) else given


def _examples(given: Samples) -> tuple[np.ndarray, ...]:
    return tuple(array[:1] for array in given.inputs.values())


def _renamed(given: Samples, taken: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and calibration data by the names in the ONNX file."""
    inputs = dict(zip(taken, given.inputs.values(), strict=True))
    return inputs, dict(zip(taken, given.calibration.values(), strict=True))


def _outputs(model: Any, inputs: list[np.ndarray]) -> tuple[np.ndarray, tuple[tuple[int, ...], ...]]:
    """float32 (N, outputs), sample by sample, and the shape of each output of one."""
    import torch

    from bridge.from_torch import model_outputs

    with torch.no_grad():
        rows = [
            model_outputs(model, [torch.from_numpy(array[index : index + 1]) for array in inputs])
            for index in range(len(inputs[0]))
        ]
    shapes = tuple(each.shape[1:] for each in rows[0])
    flat = [np.concatenate([part.reshape(-1) for part in row]) for row in rows]
    return np.stack(flat).astype(np.float32), shapes


def _exported(frozen: Any, examples: tuple[np.ndarray, ...], file: Path) -> list[str]:
    """The names of the inputs in the ONNX file that was written."""
    from torch_side.export import export_onnx

    export_onnx(frozen, examples, file)
    return _all_taken(file, len(examples))


def _written_by_dynamo(program: Any, file: Path) -> list[str]:
    """The names of the inputs in the ONNX file that PyTorch's default exporter wrote of a program."""
    import torch

    from torch_side.training import expected_warnings

    with expected_warnings():
        torch.onnx.export(program, (), file, dynamo=True, external_data=False, verbose=False)
    return _all_taken(file, len(program.graph_signature.user_inputs))


def _all_taken(file: Path, count: int) -> list[str]:
    taken = [value.name for value in onnx.load(file).graph.input]
    if len(taken) != count:
        raise BridgeError(
            where="--inputs",
            problem=f"has {count} inputs, and the model uses {len(taken)}",
            remedy=f"Save the arrays that its forward uses: {', '.join(taken)}.",
        )
    return taken


def _last_scale(program: Any) -> float | None:
    """The scale of the rounding that the first output comes from."""
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    node = output.args[0]
    while isinstance(node, (tuple, list)):
        node = node[0]
    rounds = "quantized_decomposed.dequantize_per_tensor" in str(node.target) and isinstance(node.args[1], float)
    return float(node.args[1]) if rounds else None


def _on_the_engine(model: Any) -> bool:
    return any(hasattr(module, "set_weight_bias") for module in model.modules())


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
