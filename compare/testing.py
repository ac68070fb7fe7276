"""Assertions for a team's own tests, and the pytest fixtures of the same names.

The package registers this module with pytest; it imports nothing heavy until an assertion runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bridge.errors import BridgeError, one_line

if TYPE_CHECKING:
    from bridge.exact.graph import Graph
    from compare.explaining.verdict import Verdict
    from compare.subjects.case import Case

File = str | Path | bytes


def assert_no_mismatch(model: Any, tflite: File, inputs: Mapping[str, np.ndarray] | None = None) -> Verdict:
    """Fail when a model and the .tflite made from it show a fault, or differ in a way that nothing explains.

    `model`: an eager torch.nn.Module, or an ONNX file (path or bytes). Weights, biases and scales are compared number by
    number; with `inputs`, what the kernels compute too. Risks and notes do not fail, nor does what may have an innocent
    cause. What was not checked, and why, is in the `Verdict` that comes back.
    """
    from compare.explaining.verdict import judge

    verdict = judge(_case(model, tflite, inputs))
    if verdict.fails:
        raise AssertionError("\n".join(map(one_line, _reasons(verdict))))
    return verdict


def _reasons(verdict: Verdict) -> Iterator[str]:
    from compare.doctor import sentence, told

    different = len(verdict.unexplained)
    for problem in verdict.faulty:
        yield f"the .tflite: {problem}"
    yield f"{len(verdict.faults)} faults and {different} unexplained differences between model and .tflite:"
    for diagnosis in verdict.faults:
        first = next(each for each in diagnosis.sightings if each.sure)
        yield f"{diagnosis.mismatch.id} {diagnosis.mismatch.name} ({len(diagnosis.sightings)} places)"
        yield f"    {first.where}: {first.fact}"
        yield f"    why: {diagnosis.mismatch.cause}"
        yield f"    do:  {first.remedy}"
    for difference in verdict.unexplained[:_SHOWN]:
        yield told(difference)
    if different > _SHOWN:
        yield f"and {different - _SHOWN} more"
    if verdict.left is not None:
        yield sentence(verdict.left)
    if verdict.unexplained or verdict.left is not None:
        yield "Run python -m compare.doctor on both files for the whole story."


_SHOWN = 5
"""Differences that a message tells one by one."""


def assert_bridge_exact(model: Any, tflite: File, inputs: Mapping[str, np.ndarray], max_lsb: float = 1) -> None:
    """Fail when an output of the .tflite is more than `max_lsb` steps of its scale from what the model says.

    `model`: an eager torch.nn.Module, of which a copy with its observers off runs, or an ONNX file; `inputs`: float32
    by input name, for a torch model in the order of its forward, samples along axis 0. A step of a float output is the
    scale of what is dequantized into it, else 1/255 of the range that the model gave, zero included. What is not finite
    never passes. The message names the first layer that is further away, where the model is ONNX.

    Raises `BridgeError` for a model, a file, inputs or a limit that nothing can be held against.
    """
    from compare.explaining.diagnosis import drift_of, refuse_inputs
    from compare.measuring.drift import trace_tflite
    from compare.measuring.feeding import arranged

    if not 0 <= max_lsb < float("inf"):
        raise BridgeError(
            where=f"max_lsb {max_lsb}", problem="is no limit: it takes 0 or more LSB", remedy="For example: max_lsb=1"
        )
    case = _case(model, tflite, inputs)
    assert case.file is not None  # noqa: S101 - _case has read it
    _assert_same_operands(case)
    refuse_inputs(case)
    expected = _expected(case)
    traced = trace_tflite(case.tflite or b"", arranged(case))
    for name, real in zip(case.file.graph.outputs, expected, strict=True):
        found = traced.values[name]
        scale = _step(case.file.graph, name, real)
        apart = min((_steps(found, each, scale) for each in _orders(real, found.shape)), key=lambda each: each.max())
        if not apart.max() <= max_lsb + 0.01:
            drifted = drift_of(case)
            guilty = None if drifted is None else drifted.guilty(max_lsb)
            at = "" if guilty is None else f"; the first layer further away is {guilty.op} '{guilty.file}'"
            raise AssertionError(
                one_line(
                    f"output '{name}': {(apart > max_lsb + 0.01).mean():.2%} of the values are more than {max_lsb} LSB "
                    f"from the model's, the worst {apart.max():.1f} LSB{at}. "
                    "Run python -m compare.doctor on both files to see why."
                )
            )


def _step(graph: Graph, name: str, real: np.ndarray) -> float:
    """The scale of an output, or of what is dequantized into it; of any other float output 1/255 of its range."""
    writer = graph.producers().get(name)
    source = writer.inputs[0] if writer is not None and writer.op == "DEQUANTIZE" else name
    qparams = graph.tensors[source].qparams
    if qparams is not None and qparams.axis is None:
        return float(qparams.scale)
    finite = real[np.isfinite(real)]
    width = float(finite.max(initial=0)) - float(finite.min(initial=0))
    return width / 255 or float(np.finfo(np.float32).tiny)


def _steps(found: np.ndarray, real: np.ndarray, scale: float) -> np.ndarray:
    known = np.isfinite(found) & np.isfinite(real)
    apart = np.abs(np.where(known, found, 0).astype(np.float64) - np.where(known, real, 0))
    return np.where(known, apart / scale, np.inf)


def _orders(real: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The model's output in each order of axes that has the file's sizes: a square map may be channels first or last."""
    turned = real.transpose(0, 2, 3, 1) if real.ndim == 4 else real
    return [each for each in (turned, real) if each.shape == shape] or [real.reshape(shape)]


def _assert_same_operands(case: Case) -> None:
    """Fail for a file that does not run as it is written, and for one with other inputs and outputs than the model."""
    from compare.measuring.operands import other_operands
    from compare.running.trying import tried

    assert case.tflite is not None  # noqa: S101 - the caller has looked
    trial = tried(case.tflite)
    apart = tuple(other_operands(case.onnx_model, trial)) if case.onnx_model is not None else ()
    for problem in (*trial.problems, *apart):
        raise AssertionError(
            one_line(f"the .tflite: {problem}. Run python -m compare.doctor on both files to see why.")
        )


def _expected(case: Case) -> list[np.ndarray]:
    """What the model says, in its own layout, in the order of the file's outputs."""
    from compare.tflite.order import paired

    assert case.file is not None  # noqa: S101 - _case has read it
    names = case.file.graph.outputs
    said = _by_torch(case) if case.torch_model is not None else _by_onnx(case)
    if len(said) != len(names):
        raise AssertionError(f"the .tflite: it has {len(names)} outputs, the model has {len(said)}.")
    in_order = [said[name] for name in paired(list(said), names)]
    for name, real in zip(names, in_order, strict=True):
        sizes = case.file.graph.tensors[name].shape
        if real.size % max(int(np.prod(sizes)), 1):
            raise AssertionError(
                one_line(f"the .tflite: its output '{name}' has shape {sizes}, that of the model {real.shape}.")
            )
    return in_order


def _by_torch(case: Case) -> dict[str, np.ndarray]:
    import torch

    from bridge.from_torch import frozen_copy

    ready = frozen_copy(case.torch_model)
    arrays = [np.ascontiguousarray(array, np.float32) for array in (case.inputs or {}).values()]
    try:
        with torch.no_grad():
            said = ready(*(torch.from_numpy(array.copy()) for array in arrays))
    except (RuntimeError, TypeError, ValueError) as error:
        raise BridgeError(
            where=f"model {type(case.torch_model).__name__}",
            problem=f"does not run on these inputs: {(str(error).strip().splitlines() or [type(error).__name__])[0]}",
            remedy="Give the inputs in the order of its forward, samples along the first axis.",
        ) from error
    outputs = said if isinstance(said, (tuple, list)) else (said,)
    return {
        f"#{place}": (each.dequantize() if each.is_quantized else each).numpy() for place, each in enumerate(outputs)
    }


def _by_onnx(case: Case) -> dict[str, np.ndarray]:
    import onnx

    from bridge.exact.readers.qoperator import as_qdq
    from bridge.verifying import onnx_runtime
    from bridge.verifying.reference import asked_as_qdq
    from compare.measuring.feeding import by_onnx_name

    assert case.onnx is not None  # noqa: S101 - _case has given one of the two
    model: Any = case.onnx
    as_it_is = onnx.load_from_string(case.onnx)
    if asked_as_qdq(as_it_is):
        model = as_qdq(as_it_is, "model")
    session = onnx_runtime.session(model)
    fed = {name: np.asarray(array, np.float32) for name, array in by_onnx_name(case).items()}
    batch = session.get_inputs()[0].shape[0]
    said = onnx_runtime.outputs(session, fed, batch=batch if isinstance(batch, int) else 1)
    return {output.name: each for output, each in zip(session.get_outputs(), said, strict=True)}


def _case(model: Any, tflite: File, inputs: Mapping[str, np.ndarray] | None) -> Case:
    from compare.subjects.case import Case

    is_file = isinstance(model, (str, Path, bytes))
    if not is_file and not hasattr(model, "named_modules"):
        raise BridgeError(
            where=f"model {type(model).__name__}",
            problem="is neither an eager torch.nn.Module nor an ONNX file",
            remedy="Give the module, or the path or the bytes of the file (of an onnx.ModelProto: .SerializeToString()).",
        )
    return Case(
        torch_model=None if is_file else model,
        onnx=_onnx(model) if is_file else None,
        tflite=_bytes(tflite),
        inputs=None if inputs is None else {name: np.asarray(array) for name, array in inputs.items()},
    )


def _onnx(model: File) -> bytes:
    if isinstance(model, bytes):
        return model
    from bridge.exact.reader import parse_whole

    whole: bytes = parse_whole(Path(model)).SerializeToString()
    return whole


def _bytes(file: File) -> bytes:
    try:
        return file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise BridgeError(
            where=str(file), problem=f"cannot be read ({error.strerror})", remedy="Check the path."
        ) from error


@pytest.fixture(name="assert_no_mismatch")
def _assert_no_mismatch() -> Callable[..., Verdict]:
    """The function of the same name."""
    return assert_no_mismatch


@pytest.fixture(name="assert_bridge_exact")
def _assert_bridge_exact() -> Callable[..., None]:
    """The function of the same name."""
    return assert_bridge_exact
