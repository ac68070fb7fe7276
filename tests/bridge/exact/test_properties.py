"""Random models from every supported operator: each converts, loads, runs, and stays within its bound of ONNX Runtime.

CI draws a few; `python -m benchmarks.properties` draws thousands (docs/properties.md).
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from bridge.exact.operators import named
from tests.bridge.exact.checking import checked
from tests.bridge.exact.graphs import Model, Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")


class Drawn:
    """Choices of hypothesis: a failing model shrinks to few operators and small numbers."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))


@st.composite
def models(draw: st.DrawFn, steps: tuple[str, ...], most: int) -> Model:
    try:
        return draw_model(Drawn(draw(st.data())), {name: STEPS[name] for name in steps}, most)
    except Unusable:
        reject()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A new path for each model: ONNX Runtime's sessions are kept by path (bridge/verifying/reference.py)."""
    folder = tmp_path_factory.mktemp("drawn")
    return (folder / f"{number}.onnx" for number in count())


def holds(model: Model, path: Path) -> None:
    outcome = checked(model, path)
    assert not outcome.too_far, f"drawn from {model.kinds}: " + "; ".join(outcome.too_far)


@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(model=models(tuple(STEPS), most=4))
def test_a_drawn_model_converts_runs_and_stays_within_its_bounds(paths, model):
    holds(model, next(paths))


@pytest.mark.parametrize("step", STEPS)
def test_one_operator_alone_converts_runs_and_stays_within_its_bounds(paths, step):
    drawn = 0
    for seed in range(40):
        try:
            model = draw_model(Seeded(seed), {step: STEPS[step]}, most=1)
        except Unusable:
            continue
        holds(model, next(paths))
        drawn += 1
        if drawn == 4:
            return
    assert drawn


def test_every_operator_that_can_be_lowered_is_drawn():
    drawn = set()
    for step in STEPS:
        for seed in range(12):
            try:
                model = draw_model(Seeded(seed), {step: STEPS[step]}, most=1)
            except Unusable:
                continue
            drawn |= {node.op_type for node in model.proto.graph.node}
    written = named(lambda each: each.reads and (each.becomes or each.spelling))
    assert written <= drawn, f"add a step for {sorted(written - drawn)} to tests/bridge/exact/steps.py"
