"""Assertions for a team's own tests, and the pytest fixtures of the same names.

The package registers this module with pytest; it imports nothing heavy until an assertion runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bridge.errors import one_line

if TYPE_CHECKING:
    from compare.mismatches import Case
    from compare.verdict import Verdict

File = str | Path | bytes


def assert_no_mismatch(model: Any, tflite: File, inputs: Mapping[str, np.ndarray] | None = None) -> Verdict:
    """Fail when a model and the .tflite made from it show a fault, or differ in a way that nothing explains.

    `model`: an eager torch.nn.Module, or an ONNX file (path or bytes). Weights, biases and scales are compared number by
    number; with `inputs`, what the kernels compute too. Risks and notes do not fail, nor does what may have an innocent
    cause. What was not checked, and why, is in the `Verdict` that comes back.
    """
    from compare.verdict import judge

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


def assert_bridge_exact(model: Any, tflite: File, inputs: Mapping[str, np.ndarray], max_lsb: int = 1) -> None:
    """Fail when an output of the .tflite is more than `max_lsb` steps of its scale from what the model says.

    `model`: an eager torch.nn.Module or an ONNX file; `inputs`: float32 by input name, samples along axis 0. The
    message names the first layer that is further away, where the model is ONNX.
    """
    from compare.diagnosis import drift_of
    from compare.drift import trace_tflite
    from compare.feeding import arranged

    case = _case(model, tflite, inputs)
    assert case.file is not None  # noqa: S101 - _case has read it
    _assert_same_operands(case)
    expected = _expected(case)
    traced = trace_tflite(_bytes(tflite), arranged(case))
    for name, real in zip(case.file.graph.outputs, expected, strict=True):
        tensor = case.file.graph.tensors[name]
        scale = float(tensor.q.scale) if tensor.qparams is not None else float(np.ptp(real)) / 255 or 1.0
        found = traced.values[name]
        apart = min((np.abs(found - each) / scale for each in _orders(real, found.shape)), key=lambda each: each.max())
        if apart.max() > max_lsb + 0.01:
            drifted = drift_of(case)
            guilty = None if drifted is None else drifted.guilty(max_lsb)
            at = "" if guilty is None else f"; the first layer further away is {guilty.op} '{guilty.file}'"
            raise AssertionError(
                f"output '{name}': {(apart > max_lsb + 0.01).mean():.2%} of the values are more than {max_lsb} LSB from "
                f"the model's, the worst {apart.max():.1f} LSB{at}. "
                "Run python -m compare.doctor on both files to see why."
            )


def _orders(real: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The model's output in each order of axes that has the file's sizes: a square map may be channels first or last."""
    turned = real.transpose(0, 2, 3, 1) if real.ndim == 4 else real
    return [each for each in (turned, real) if each.shape == shape] or [real.reshape(shape)]


def _assert_same_operands(case: Case) -> None:
    """Fail for a file that does not run as it is written, and for one with other inputs and outputs than the model."""
    from compare.operands import other_operands
    from compare.trying import tried

    assert case.tflite is not None  # noqa: S101 - the caller has looked
    trial = tried(case.tflite)
    apart = tuple(other_operands(case.onnx_model, trial)) if case.onnx_model is not None else ()
    for problem in (*trial.problems, *apart):
        raise AssertionError(f"the .tflite: {problem}. Run python -m compare.doctor on both files to see why.")


def _expected(case: Case) -> list[np.ndarray]:
    """What the model says: float32 outputs in its own layout."""
    arrays = [np.asarray(array, np.float32) for array in (case.inputs or {}).values()]
    if case.torch_model is not None:
        import torch

        with torch.no_grad():
            said = case.torch_model.eval()(*(torch.from_numpy(array) for array in arrays))
        return [each.numpy() for each in (said if isinstance(said, (tuple, list)) else (said,))]
    from bridge.verifying import onnx_runtime

    assert case.onnx is not None  # noqa: S101 - _case has given one of the two
    session = onnx_runtime.session(case.onnx)
    sources = session.get_inputs()
    fed = {source.name: array for source, array in zip(sources, arrays, strict=True)}
    return onnx_runtime.outputs(session, fed, batch=int(sources[0].shape[0]))


def _case(model: Any, tflite: File, inputs: Mapping[str, np.ndarray] | None) -> Case:
    from compare.mismatches import Case

    is_file = isinstance(model, (str, Path, bytes))
    return Case(
        torch_model=None if is_file else model,
        onnx=_onnx(model) if is_file else None,
        tflite=_bytes(tflite),
        inputs=inputs,
    )


def _onnx(model: File) -> bytes:
    if isinstance(model, bytes):
        return model
    from bridge.exact.reader import parse_whole

    whole: bytes = parse_whole(Path(model)).SerializeToString()
    return whole


def _bytes(file: File) -> bytes:
    return file if isinstance(file, bytes) else Path(file).read_bytes()


@pytest.fixture(name="assert_no_mismatch")
def _assert_no_mismatch() -> Callable[..., Verdict]:
    """The function of the same name."""
    return assert_no_mismatch


@pytest.fixture(name="assert_bridge_exact")
def _assert_bridge_exact() -> Callable[..., None]:
    """The function of the same name."""
    return assert_bridge_exact
