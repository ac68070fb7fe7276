"""Small records of a matrix, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from compare.report.records.run import PlacementRecord
from compare.report.records.versions import (
    SCHEMA_VERSION,
    CauseRecord,
    CellRecord,
    RouteRecord,
    RunRecord,
    ToolchainRecord,
    VersionsRecord,
)


def cause(identity: str = "M13", *, sure: bool = True) -> CauseRecord:
    return CauseRecord(identity, "scales thrown away", sure, "tensor 'x'", "has scale 2 <b>", "Convert | again")


def ran(runtime: str, changed: int | None = 0, lsb: float | None = 0.5, problem: str | None = None) -> RunRecord:
    accuracy = None if changed is None else 0.9 - changed / 1000
    return RunRecord(runtime, problem, accuracy, changed, lsb, (cause("M71"),) if problem else ())


def placed(target: str, fast: int, operators: int = 5) -> PlacementRecord:
    return PlacementRecord(target, "rules", operators, fast, 1.0, 0, None, ())


def cell(toolchain: str, route: str = "torch-onnx2tf", status: str = "clean", **changes: Any) -> CellRecord:
    facts: dict[str, Any] = {
        "toolchain": toolchain, "route": route, "status": status, "problem": None, "seconds": 1.0, "peak_bytes": 10**8,
        "log": "", "file": "models/x.tflite", "sha256": "0" * 64, "size": 1000, "operators": {"CONV_2D": 3},
        "runs": (ran("new"), ran("old")),
    }  # fmt: skip
    return CellRecord(**{**facts, **changes})


def failed(toolchain: str, problem: str = "ValueError: <script>alert(1)</script> |", **changes: Any) -> CellRecord:
    nothing: dict[str, Any] = {"file": None, "sha256": None, "size": None, "operators": {}, "runs": ()}
    return cell(toolchain, status="failed", problem=problem, log="the whole </pre> story", **{**nothing, **changes})


def toolchain(identity: str, as_of: str = "2024-01-01") -> ToolchainRecord:
    return ToolchainRecord(identity, "about it", as_of, "3.11.7", ("a==1",), None, 1.0, {"numpy": "1.26.4"})


def matrix(*cells: CellRecord) -> VersionsRecord:
    names = dict.fromkeys(each.toolchain for each in cells)
    return VersionsRecord(
        schema_version=SCHEMA_VERSION,
        started="2026-01-02T03:04:05Z",
        seconds=61.0,
        command="python -m compare.versions",
        model="a model",
        samples=1000,
        machine={"system": "Linux", "processor": "x", "cores": "2"},
        max_changed=0.01,
        toolchains=tuple(toolchain(each) for each in (*names, "new", "old")),
        runtimes=("new", "old"),
        routes=tuple(
            RouteRecord(each, "PyTorch", "about it", 0.9) for each in dict.fromkeys(cell.route for cell in cells)
        ),
        cells=cells,
        recommendations=(),
        notes=("a note",),
    )
