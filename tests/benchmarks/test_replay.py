"""The comparison of two records: it sees each field that changes, and a run of today says what the kept one said.

`quick_report.json` is `python -m compare.run --quick --out RUN`, then
`python -m benchmarks.replay RUN RUN --keep tests/benchmarks/quick_report.json`; renew it where a figure is meant to change.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.replay import ABSENT, Difference, decided_by_no_weight, differences, main, settled

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("quick_report.json")
RECORD = {
    "schema_version": 1,
    "started": "2026-01-02",
    "seconds": 1.5,
    "artifacts": [
        {
            "id": "a/b", "accuracy": 0.5, "latency_p90_ms": 1.0, "log": "x", "settings": {"mode": "none"}, "file": None,
            "operators": [{"name": "CONV_2D", "integer": True}, {"name": "CONV_2D", "integer": False}],
            "placements": [{"target": "cpu", "fast": 1}],
        },
        {
            "id": "c", "accuracy": 0.25, "latency_p90_ms": 2.0, "log": "", "settings": {}, "file": "c.tflite",
            "operators": [], "placements": [],
        },
    ],
    "claims": [{"id": "A4", "evidence": ["30 us (29 to 33) against 60 us (59 to 60) (x0.50), the same file"]}],
}  # fmt: skip
MAY_DIFFER_HERE = {
    "started", "seconds", "artifacts.a/b.latency_p90_ms", "artifacts.a/b.log", "artifacts.c.latency_p90_ms", "artifacts.c.log",
}  # fmt: skip


def leaves(value, path=()):
    """Where each figure stands: the keys and positions that lead there."""
    if isinstance(value, dict | list) and value:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*path, key))
    elif not isinstance(value, dict | list):
        yield path


def changed(path, value):
    record = copy.deepcopy(RECORD)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


def named(path):
    """The place as the comparison writes it: artifacts and claims by their id."""
    parts, inner = [], RECORD
    for key in path:
        inner = inner[key]
        parts.append(inner.get("id") or inner.get("target") or str(key) if isinstance(inner, dict) else str(key))
    return ".".join(parts)


@pytest.mark.parametrize("path", list(leaves(RECORD)), ids=named)
@pytest.mark.parametrize("value", ["other", 0.5000000000000001, None, 7], ids=repr)
def test_a_field_that_changes_is_seen_unless_it_may(path, value):
    after = changed(path, value)
    if path[-1] in ("id", "target", "name") or after == RECORD:
        return
    found = [each.field for each in differences(RECORD, after)]
    assert found == ([] if named(path) in MAY_DIFFER_HERE else [named(path)])


def test_a_field_that_is_gone_and_one_that_is_new_are_seen():
    after = copy.deepcopy(RECORD)
    del after["artifacts"][0]["accuracy"]
    after["artifacts"][0]["speed"] = 3
    assert list(differences(RECORD, after)) == [
        Difference("artifacts.a/b.accuracy", 0.5, ABSENT),
        Difference("artifacts.a/b.speed", ABSENT, 3),
    ]


def test_an_artifact_more_is_one_difference_and_another_order_is_one():
    more = {**RECORD, "artifacts": [{"id": "new"}, *RECORD["artifacts"]]}
    turned = {**RECORD, "artifacts": RECORD["artifacts"][::-1]}
    assert [each.field for each in differences(RECORD, more)] == ["artifacts.new"]
    assert list(differences(RECORD, turned)) == [Difference("artifacts.(order)", ["a/b", "c"], ["c", "a/b"])]


def test_two_operators_of_one_name_are_told_apart_by_their_place():
    after = changed(("artifacts", 0, "operators"), [{"name": "CONV_2D", "integer": True}] * 2)
    assert list(differences(RECORD, after)) == [Difference("artifacts.a/b.operators.1.integer", False, True)]


def test_true_is_not_one():
    assert list(differences({"a": True}, {"a": 1})) == [Difference("a", True, 1)]


def test_times_in_a_sentence_may_differ_and_its_other_words_may_not():
    faster = changed(("claims", 0, "evidence"), ["28 us (27 to 28) against 56 us (55 to 58) (x0.51), the same file"])
    other = changed(("claims", 0, "evidence"), ["30 us (29 to 33) against 60 us (59 to 60) (x0.50), not the same file"])
    assert not list(differences(RECORD, faster))
    assert [each.field for each in differences(RECORD, other)] == ["claims.A4.evidence.0"]


def test_what_is_kept_has_all_that_must_not_differ():
    kept = settled(RECORD)
    assert not list(differences(kept, RECORD))
    assert "seconds" not in kept
    assert "log" not in kept["artifacts"][0]
    assert kept["artifacts"][0]["operators"] == RECORD["artifacts"][0]["operators"]


def test_elsewhere_only_what_no_weight_decides_counts():
    figure = Difference("artifacts.a/b.accuracy", 0.5, 0.6)
    setting = Difference("artifacts.a/b.settings.mode", "none", "other")
    missing = Difference("artifacts.c", {"id": "c"}, ABSENT)
    assert [decided_by_no_weight(each) for each in (figure, setting, missing)] == [False, True, True]


def test_the_command_prints_each_field_and_ends_with_1(tmp_path, capsys):
    (tmp_path / "before.json").write_text(json.dumps(RECORD))
    (tmp_path / "after").mkdir()
    (tmp_path / "after" / "report.json").write_text(json.dumps(changed(("artifacts", 1, "accuracy"), 0.3)))
    assert main([str(tmp_path / "before.json"), str(tmp_path / "after")]) == 1
    assert capsys.readouterr().out == "artifacts.c.accuracy: 0.25 -> 0.3\n1 field differs\n"
    assert main([str(tmp_path / "before.json"), str(tmp_path / "before.json")]) == 0
    assert capsys.readouterr().out == "every field is the same\n"


def sweep(folder, *rows):
    (folder / "rows").mkdir(parents=True)
    for place, row in enumerate(rows):
        pq.write_table(pa.Table.from_pylist([row]), folder / "rows" / f"{place}.parquet")
    return str(folder)


def test_sweeps_are_compared_row_by_row_whatever_their_tasks_are_called(tmp_path, capsys):
    row = {"model": "mnist", "preset": "quick", "seed": 0, "toolchain": "current", "artifact": "a", "accuracy": 0.5}
    one = sweep(tmp_path / "one", row | {"task": "t1", "seconds": 1.0}, row | {"task": "t2", "seed": 1, "seconds": 1.0})
    same = sweep(
        tmp_path / "same", row | {"task": "u1", "seed": 1, "seconds": 2.0}, row | {"task": "u2", "seconds": 2.0}
    )
    other = sweep(tmp_path / "other", row | {"task": "u1", "seconds": 1.0}, row | {"task": "u2", "seed": 1, "accuracy": 0.6, "seconds": 1.0})  # fmt: skip
    assert main([one, same]) == 0
    assert main([one, other]) == 1
    assert "rows.mnist/quick/1/current/a.accuracy: 0.5 -> 0.6" in capsys.readouterr().out


@pytest.mark.slow
def test_a_quick_run_says_what_the_kept_one_said(tmp_path):
    """Each figure on the kind of machine and with the versions of the kept run; elsewhere what no weight decides."""
    out = tmp_path / "run"
    subprocess.run(
        [sys.executable, "-m", "compare.run", "--quick", "--fresh", "--out", out],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, timeout=900,
    )  # fmt: skip
    kept, now = json.loads(KEPT.read_text()), json.loads((out / "report.json").read_text())
    found = list(differences(kept, now))
    if (kept["machine"], kept["versions"]) != (now["machine"], now["versions"]):
        found = [each for each in found if decided_by_no_weight(each)]
    assert not found
