"""Means and intervals over seeds, with numbers that can be checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from compare.sweep.summary import interval, summarise


def row(seed: int, artifact: str, accuracy: float, **changes: Any) -> dict[str, Any]:
    return {
        "model": "mnist", "preset": "quick", "seed": seed, "network": "torch/qat-qnnpack", "toolchain": "current",
        "route": artifact.split("/")[0], "artifact": artifact, "status": "measured", "reason": None, "made_with": "abc",
        "accuracy": accuracy, "reference_accuracy": 0.9, "max_lsb": 1.0, "correct": "f0", "reference_correct": "ff",
    } | changes  # fmt: skip


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])  # deviation 1, t(0.975, 2) = 4.303, over the root of 3
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.303 / 3**0.5, abs=1e-3)


def test_one_seed_has_no_interval() -> None:
    assert interval([0.5]).half_width is None


def test_differences_are_paired_seed_by_seed() -> None:
    """Seeds differ by ten points, the file is always one point below its network: the difference has no spread."""
    rows = [row(seed, "r/qat-qnnpack", level - 0.01, reference_accuracy=level) for seed, level in enumerate((0.8, 0.9))]
    (line,) = summarise(rows).artifacts
    assert line.accuracy.half_width is not None
    assert line.accuracy.half_width > 0.1
    assert line.against_network.mean == pytest.approx(-0.01)
    assert line.against_network.half_width == pytest.approx(0, abs=1e-12)


def test_a_route_is_held_against_the_exact_bridge_on_the_same_network_and_seed() -> None:
    rows = [row(0, "torch-exact/qat-qnnpack", 0.9), row(0, "r/qat-qnnpack", 0.7), row(1, "r/qat-qnnpack", 0.5)]
    by_name = {line.name: line for line in summarise(rows).artifacts}
    against = by_name["r/qat-qnnpack"].against_exact
    assert against is not None
    assert against.mean == pytest.approx(-0.2)  # seed 1 has no exact file to compare with
    assert by_name["r/qat-qnnpack"].seeds == 2


def test_a_routes_figure_of_a_seed_is_the_mean_of_its_artifacts() -> None:
    rows = [row(seed, f"r/{name}", value) for seed in (0, 1) for name, value in (("a", 0.8), ("b", 0.6))]
    (line,) = summarise(rows).routes
    assert (line.name, line.seeds, line.accuracy.mean, line.accuracy.half_width) == ("r", 2, pytest.approx(0.7), 0.0)


def test_images_won_do_not_hide_images_lost() -> None:
    (line,) = summarise([row(0, "r/a", 0.5, correct="0f", reference_correct="1e")]).artifacts
    assert (line.lost, line.gained) == (1, 1)


def test_what_failed_is_counted_with_its_reason_and_counts_for_nothing_else() -> None:
    nothing = dict.fromkeys(("reference_accuracy", "max_lsb", "correct", "reference_correct"))
    rows = [row(0, "r/a", 0.5), row(1, "r/a", 0.5, status="failed", reason="crashed\nlater", **nothing)]
    found = summarise(rows)
    assert dict(found.failures) == {"crashed": 1}
    assert (found.artifacts[0].seeds, found.artifacts[0].failed) == (1, 1)


def test_calibration_that_is_wrong_on_purpose_does_not_count_for_its_route() -> None:
    rows = [row(0, "r/a", 0.9), row(0, "r/a/noise", 0.1)]
    found = summarise(rows)
    assert [line.accuracy.mean for line in found.routes] == [pytest.approx(0.9)]
    assert [line.name for line in found.artifacts] == ["r/a", "r/a/noise"]


def test_a_model_that_was_trained_elsewhere_is_no_seed_and_no_failure() -> None:
    nothing = {
        "accuracy": None,
        "reference_accuracy": None,
        "disagreements": None,
        "max_lsb": None,
        "equal_outputs": None,
    }
    own = {"model": "/m/net|1.onnx", "network": "own/net", "preset": "–"}
    failed = row(0, "r/net", 0.0, status="failed", reason="ValueError: <b>\nmore")
    rows = [row(0, "r/a", 0.9), failed | own | nothing]
    found = summarise(rows)
    assert (found.seeds, len(found.routes), dict(found.failures)) == (1, 1, {})
