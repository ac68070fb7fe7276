"""What to take: the newest clean set, and on a target only what runs there wholly."""

from __future__ import annotations

from compare.report.records.versions import CellRecord, RecommendationRecord
from compare.versions.recommending import recommend
from tests.compare.report.pages.versions.records import cell, failed, placed, ran, toolchain

DATES = [toolchain("current", ""), toolchain("old-1", "2023-01-01"), toolchain("new-1", "2025-01-01")]


def chosen(*cells: CellRecord, targets: tuple[str, ...] = ()) -> tuple[RecommendationRecord, ...]:
    return recommend(cells, DATES, {"torch-onnx2tf": "PyTorch", "torch-exact": "PyTorch"}, targets)


def test_the_newest_clean_set_wins() -> None:
    (found,) = chosen(cell("old-1"), cell("new-1"), failed("current"))
    assert (found.toolchain, found.route) == ("new-1", "torch-onnx2tf")
    assert "of 2025-01-01" in found.sentence


def test_the_current_toolchain_counts_as_the_newest() -> None:
    (found,) = chosen(cell("new-1"), cell("current"))
    assert found.toolchain == "current"


def test_what_loses_is_never_recommended_however_new() -> None:
    (found,) = chosen(cell("old-1"), cell("new-1", status="loses"), cell("current", status="refused"))
    assert found.toolchain == "old-1"


def test_of_one_toolchain_the_route_that_changes_least_is_taken() -> None:
    worse = cell("current", runs=(ran("new", changed=3), ran("old")))
    (found,) = chosen(worse, cell("current", "torch-exact"))
    assert found.route == "torch-exact"
    assert "no sample changes class" in found.sentence


def test_nothing_clean_is_said() -> None:
    (found,) = chosen(failed("current"), cell("old-1", status="loses"))
    assert found.toolchain is None
    assert found.sentence == "PyTorch on CPUs: none of 2 combinations is clean."


def test_a_target_takes_only_what_runs_wholly_on_its_fast_unit() -> None:
    cells = (cell("old-1", placements=(placed("npu", 5),)), cell("current", placements=(placed("npu", 4),)))
    on_cpu, on_npu = chosen(*cells, targets=("npu",))
    assert (on_cpu.toolchain, on_npu.toolchain) == ("current", "old-1")
    assert "all 5 operators on the fast unit" in on_npu.sentence


def test_where_nothing_does_the_nearest_is_named() -> None:
    _, found = chosen(cell("current", placements=(placed("npu", 4),)), targets=("npu",))
    assert "nearest is 'current/torch-onnx2tf' with 4 of 5 operators" in found.sentence


def test_only_runtimes_that_run_it_are_counted() -> None:
    (found,) = chosen(cell("current", runs=(ran("new"), ran("old", None, None, "broken runtime"))))
    assert "1 runtime runs it" in found.sentence
