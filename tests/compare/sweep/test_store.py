"""The sweep's folder: whole files or none, and figures that can be compared by one number."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare.sweep import store
from compare.sweep.limits import Finished, execute
from tests.compare.sweep.stand_ins import answers, order


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    return execute(order(answers(tmp_path)))


def test_what_was_added_is_read_back_with_its_place_and_its_figures(tmp_path: Path, finished: Finished) -> None:
    with store.opened(tmp_path / "sweep"):
        store.add(tmp_path / "sweep", finished)
    one, other = store.read(tmp_path / "sweep").to_pylist()
    assert (one["artifact"], other["artifact"]) == ("other/qat-qnnpack", "torch-exact/qat-qnnpack")
    assert (other["route"], other["seed"], other["accuracy"], other["status"]) == ("torch-exact", 0, 0.9, "measured")


def test_a_task_without_rows_is_a_failed_row_for_each_artifact(tmp_path: Path, finished: Finished) -> None:
    with store.opened(tmp_path / "sweep"):
        store.add(tmp_path / "sweep", replace(finished, rows=(), problem="crashed"))
    rows = store.read(tmp_path / "sweep").to_pylist()
    assert [(row["status"], row["reason"], row["accuracy"]) for row in rows] == [("failed", "crashed", None)] * 2


def test_the_digest_is_of_the_figures_and_not_of_the_circumstances(tmp_path: Path, finished: Finished) -> None:
    def digest(name: str, done: Finished) -> str:
        with store.opened(tmp_path / name):
            store.add(tmp_path / name, done)
        return store.figures_digest(store.read(tmp_path / name))

    elsewhere = replace(finished, seconds=99.0, peak_bytes=1, host="elsewhere")
    assert digest("a", finished) == digest("b", elsewhere)
    changed = ({**finished.rows[0], "max_lsb": 1.0000001}, finished.rows[1])
    assert digest("c", replace(finished, rows=changed)) != digest("a", finished)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-20], lambda _: b"", lambda _: b"not parquet at all"],
    ids=["cut-short", "empty", "something-else"],
)
def test_a_damaged_file_is_removed_and_its_task_done_again(
    tmp_path: Path, finished: Finished, damage: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "sweep"
    with store.opened(folder):
        store.add(folder, finished)
        (part,) = (folder / "rows").glob("*.parquet")
        part.write_bytes(damage(part.read_bytes()))
        assert store.done(folder) == {}
        assert not part.exists()


def test_what_a_killed_sweep_was_writing_is_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    with store.opened(folder):
        pass
    (folder / "rows" / ".id.parquet.123.part").write_bytes(b"half")
    with store.opened(folder):
        assert list((folder / "rows").iterdir()) == []


def test_a_folder_without_a_result_has_no_rows(tmp_path: Path) -> None:
    with store.opened(tmp_path / "sweep"):
        pass
    assert store.read(tmp_path / "sweep").num_rows == 0


def test_of_a_task_done_twice_the_last_counts(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    with store.opened(folder):
        store.add(folder, finished)
        monkeypatch.setattr(store.time, "strftime", lambda *_: "2999-01-01T00:00:00Z")
        store.add(folder, replace(finished, order=replace(finished.order, identity="newer", made_with="def")))
    assert {row["made_with"] for row in store.read(folder).to_pylist()} == {"def"}


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BridgeError, match="is no sweep's folder"), store.opened(tmp_path):
        pass
    with pytest.raises(BridgeError, match="is no sweep's folder"):
        store.read(tmp_path)


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        store.opened(tmp_path / "sweep"),
        pytest.raises(BridgeError, match="in use by another sweep"),
        store.opened(tmp_path / "sweep"),
    ):
        pass


def test_a_full_disk_is_said_and_leaves_no_half_file(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.opened(folder):
        monkeypatch.setattr(store.os, "fsync", full)
        with pytest.raises(BridgeError, match="No space left on device"):
            store.add(folder, finished)
        assert list((folder / "rows").glob("*.parquet")) == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BridgeError, match="cannot be written"), store.opened(tmp_path / "file" / "sweep"):
        pass
