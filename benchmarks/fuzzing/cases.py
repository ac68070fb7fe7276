"""The files of one case, made anew from its seed: KIND, SEED and CASE say everything."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.fuzzing import tflite_mutants
from benchmarks.fuzzing.graphs import draw_graph
from benchmarks.fuzzing.onnx_mutants import mutant
from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from tests.bridge.exact.graphs import Model, Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS

_KINDS = {"graphs": 1, "mutants": 2, "tflite": 3}


@dataclass(frozen=True)
class Case:
    """What is handed to the commands."""

    files: Mapping[str, bytes]
    """By suffix: onnx; for `tflite` cases the right onnx, the changed tflite, and npz with inputs."""
    made_from: tuple[str, ...]
    """What was drawn, or what was changed."""
    options: Options


def randomness(kind: str, seed: int, case: int, purpose: int = 0) -> np.random.Generator:
    return np.random.default_rng((seed, _KINDS[kind], case, purpose))


def drawn(kind: str, seed: int, case: int) -> Case:
    """One case; raises `Unusable` where nothing fits."""
    random = randomness(kind, seed, case)
    if kind == "graphs":
        model, kinds = draw_graph((seed, _KINDS[kind], case))
        return Case({"onnx": model.SerializeToString()}, kinds, _options(random))
    if kind == "mutants":
        # Four mutants of each graph: drawing costs more than changing.
        model = draw_graph((seed, case // 4))[0] if random.random() < 0.6 else _drawn_model(random).proto
        content, changes = mutant(model, random)
        return Case({"onnx": content}, changes, _options(random))
    base = _drawn_model(random)
    try:
        right = convert(base.proto).tflite
    except BridgeError as error:
        raise Unusable(str(error)) from error
    changed, change = tflite_mutants.mutant(right, random)
    inputs = io.BytesIO()
    np.savez(inputs, **base.inputs)  # type: ignore[arg-type]  # numpy's stub takes arrays for its own options
    files = {"onnx": base.proto.SerializeToString(), "tflite": changed, "npz": inputs.getvalue()}
    return Case(files, (change,), Options())


def _drawn_model(random: np.random.Generator) -> Model:
    return draw_model(Seeded(int(random.integers(1 << 30))), STEPS)


def _options(random: np.random.Generator) -> Options:
    """What a caller might choose; mostly nothing."""
    io_type = random.choice(["int8"] * 6 + ["uint8", "float32"])
    return Options(io=str(io_type), allow_float=bool(random.random() < 0.2))  # type: ignore[arg-type]  # one of IODtype
