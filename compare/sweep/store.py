"""The sweep's folder: a Parquet file for every finished task, whole or not there; what is in them, and a digest of it.

Nobody else writes there. A file is written beside and renamed, so a sweep that is killed at any moment has lost what was
running and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bridge.errors import BridgeError
from compare.sweep.limits import Finished

MARKER = "sweep.json"
SCHEMA_VERSION = 1

FIGURES = pa.schema(
    [
        ("task", pa.string()), ("made_with", pa.string()), ("model", pa.string()), ("preset", pa.string()), ("seed", pa.int64()),
        ("network", pa.string()), ("toolchain", pa.string()), ("route", pa.string()), ("artifact", pa.string()),
        ("status", pa.string()), ("reason", pa.string()), ("accuracy", pa.float64()), ("reference_accuracy", pa.float64()),
        ("disagreements", pa.int64()), ("max_lsb", pa.float64()), ("equal_outputs", pa.float64()), ("size", pa.int64()),
        ("sha256", pa.string()), ("operators", pa.int64()), ("float_operators", pa.int64()),
        ("correct", pa.string()), ("reference_correct", pa.string()),
    ]
)  # fmt: skip
"""What a row says of a file: the same whenever the task is done again. `correct` is a bit for each test image, as hex."""
CIRCUMSTANCES = pa.schema(
    [
        ("seconds", pa.float64()), ("task_seconds", pa.float64()), ("peak_bytes", pa.int64()), ("host", pa.string()),
        ("finished", pa.string()),
    ]
)  # fmt: skip
"""How it came about: other at every run."""
SCHEMA = pa.unify_schemas([FIGURES, CIRCUMSTANCES])


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Hold the folder for one sweep, made if it is not there.

    Raises `BridgeError` for a folder that holds something else, is held by another sweep, or cannot be written.
    """
    try:
        if folder.exists() and not (folder / MARKER).exists() and any(folder.iterdir()):
            raise BridgeError(
                where=f"--out {folder}",
                problem="exists and is no sweep's folder",
                remedy="Name a new folder, or one that an earlier sweep has written.",
            )
        (folder / "rows").mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists():
            _write_whole(folder / MARKER, json.dumps({"schema_version": SCHEMA_VERSION}).encode())
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BridgeError(
                    where=f"--out {folder}",
                    problem="is in use by another sweep",
                    remedy="Wait for it, or name another folder.",
                ) from error
            for part in (folder / "rows").glob(".*.part"):  # of a sweep that was killed while it wrote
                part.unlink()
            yield
    except OSError as error:
        raise _cannot_write(folder, error) from error


def add(folder: Path, finished: Finished) -> None:
    """Keep a task's rows; a task without any is kept as one failed row for each artifact it should have made."""
    table = pa.Table.from_pylist(list(_rows(finished)), schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    try:
        _write_whole(_part(folder, finished.order.identity), sink.getvalue().to_pybytes())
    except OSError as error:
        raise _cannot_write(folder, error) from error


def done(folder: Path) -> dict[str, Path]:
    """The part files that can be read, by task identity; one that cannot, is removed: its task is done again."""
    found = {}
    for path in sorted((folder / "rows").glob("*.parquet")):
        try:
            pq.read_table(path, schema=SCHEMA)
            found[path.stem] = path
        except (pa.ArrowException, OSError):
            path.unlink(missing_ok=True)
    return found


def read(folder: Path) -> pa.Table:
    """All rows, sorted by task and artifact; of an artifact made with several codes or versions, the last.

    Raises `BridgeError` for a folder that is no sweep's.
    """
    if not (folder / MARKER).exists():
        raise BridgeError(
            where=str(folder), problem="is no sweep's folder", remedy="Name a folder that compare.sweep has written."
        )
    parts = sorted((pq.read_table(path, schema=SCHEMA) for path in done(folder).values()), key=_finished)
    everything = pa.concat_tables(parts) if parts else SCHEMA.empty_table()
    places = zip(*(everything[name].to_pylist() for name in _PLACE), strict=True)
    latest = {place: row for row, place in enumerate(places)}
    table = everything.take(pa.array(latest.values(), pa.int64()))
    order = [(name, "ascending") for name in ("model", "preset", "network", "toolchain", "seed", "artifact", "task")]
    return table.sort_by(order)


_PLACE = ("model", "preset", "network", "toolchain", "seed", "artifact")


def _finished(part: pa.Table) -> str:
    return max(part["finished"].to_pylist(), default="")


def figures_digest(table: pa.Table) -> str:
    """SHA-256 of every figure in the sorted table, circumstances left out: equal digests, equal results."""
    rows = table.select(FIGURES.names).to_pylist()
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _rows(finished: Finished) -> Iterator[Mapping[str, Any]]:
    order, task = finished.order, finished.order.task
    shared = {
        "task": order.identity, "made_with": order.made_with, "model": task.model, "preset": task.preset, "seed": task.seed, "network": task.network,
        "toolchain": task.toolchain, "task_seconds": finished.seconds, "peak_bytes": finished.peak_bytes,
        "host": finished.host, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip
    given = {row["artifact"]: row for row in finished.rows}
    for artifact in task.artifacts:
        nothing = {"status": "failed", "reason": finished.problem or "its task left it out"}
        known = {name: value for name, value in given.get(artifact, nothing).items() if name in SCHEMA.names}
        yield {**shared, "artifact": artifact, "route": artifact.split("/")[0], **known}


def _part(folder: Path, identity: str) -> Path:
    return folder / "rows" / f"{identity}.parquet"


def _write_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the name must not come before the content, not even through a power cut
    beside.replace(path)


def _cannot_write(folder: Path, error: OSError) -> BridgeError:
    return BridgeError(
        where=f"--out {folder}",
        problem=f"cannot be written: {error.strerror or error}",
        remedy="Choose a folder you may write to, on a disk with space. What is there already is not lost.",
    )
