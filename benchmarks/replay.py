"""Two records of the same command, field by field: python -m benchmarks.replay BEFORE AFTER.

Both are a `report.json`, `versions.json`, `producers.json` or `summary.json`, the folder of a run, or that of a sweep, whose
rows are compared. Each field that differs is a line, and the exit code is then 1. What no code decides, such as a time, is in
`MAY_DIFFER`; everything else has to be equal, floats to the last digit. Training gives other weights on another kind of
processor and with other versions, so compare records of one machine; or with --elsewhere only what no weight decides.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

ABSENT = "(absent)"
MAY_DIFFER: Mapping[str, Sequence[str]] = {
    "when it ran, and into which folder": ("started", "command", "rows.*.host", "rows.*.finished"),
    "what a sweep was made with: a digest of the code": ("rows.*.made_with", "rows.*.task", "made_with.*", "figures"),
    "how long it took, and how much memory": (
        "seconds", "*.seconds", "*_seconds", "*.from_cache", "*.peak_bytes", "*latency_*_ms",
    ),
    "what a converter printed, with its times and addresses": ("*.log",),
}  # fmt: skip
"""Why, and which fields, as globs of their places."""
TIMES = re.compile(r"[\d,.]+ us \([\d,.]+ to [\d,.]+\)|\(x[\d.]+\)")
"""Times within the sentences of a claim: `30 us (29 to 33)`, `(x0.91)`."""
DECIDED_BY_NO_WEIGHT = (
    "schema_version", "preset", "settings.*", "data.*", "networks.*.id", "networks.*.framework", "networks.*.about",
    "artifacts.*.id", "artifacts.*.route", "artifacts.*.network", "artifacts.*.settings.*", "artifacts.*.status",
    "artifacts.*.file", "artifacts.*.onnx_file", "artifacts.*.operators.*", "artifacts.*.*put_dtype",
    "artifacts.*.scales.*.role", "artifacts.*.scales.*.kept", "artifacts.*.placements.*.target",
    "artifacts.*.placements.*.operators", "artifacts.*.placements.*.fast", "claims.*.id", "claims.*.statement",
)  # fmt: skip
"""What a run on another processor, with other weights, says all the same."""
KEYS: Sequence[Sequence[str]] = (
    ("model", "preset", "seed", "toolchain", "artifact"), ("model", "route", "toolchain"), ("id",), ("toolchain", "route"), ("producer", "recipe", "network"), ("target", "source"),
    ("target",), ("runtime",), ("artifact", "title"), ("artifact",), ("role",), ("converter",), ("name", "toolchain", "preset"),
    ("name",),
)  # fmt: skip
"""What tells a record from its neighbours in a list: the first of these that all of them have, each another."""


class Difference(NamedTuple):
    """One field, `artifacts.torch-exact/qat-x86.accuracy`, and what it was before and is after."""

    field: str
    before: object
    after: object


def differences(before: object, after: object) -> Iterator[Difference]:
    """Every field that differs and must not."""
    yield from (each for each in _walk("", before, after) if not _may_differ(each.field))


def settled(value: object, field: str = "") -> object:
    """A record without what may differ, to be kept and held against later ones."""
    if isinstance(value, dict):
        inside = {name: f"{field}.{name}".lstrip(".") for name in value}
        return {name: settled(each, inside[name]) for name, each in value.items() if not _may_differ(inside[name])}
    if isinstance(value, list):
        return [settled(each, f"{field}.{name}") for name, each in _named(value, value)[0].items()]
    return value


def _may_differ(field: str) -> bool:
    return any(fnmatchcase(field, glob) for globs in MAY_DIFFER.values() for glob in globs)


def decided_by_no_weight(found: Difference) -> bool:
    """Whether the field is the same on every machine; that a network, an artifact or a claim is there is, too."""
    missing = any(isinstance(each, dict) and "id" in each for each in (found.before, found.after))
    return missing or any(fnmatchcase(found.field, glob) for glob in DECIDED_BY_NO_WEIGHT)


def _walk(field: str, before: object, after: object) -> Iterator[Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            yield from _walk(f"{field}.{name}".lstrip("."), before.get(name, ABSENT), after.get(name, ABSENT))
    elif isinstance(before, list) and isinstance(after, list):
        one, other = _named(before, after)
        common = [[name for name in names if name in one and name in other] for names in (one, other)]
        if common[0] != common[1]:
            yield Difference(f"{field}.(order)", common[0], common[1])
        yield from _walk(field, one, other)
    elif type(before) is not type(after) or _without_times(before) != _without_times(after):
        yield Difference(field, before, after)


def _without_times(value: object) -> object:
    return TIMES.sub("", value) if isinstance(value, str) else value


def _named(before: Sequence[Any], after: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both lists by what tells their entries apart, so that one more of them is one difference; else by position."""
    entries = [*before, *after]
    for keys in KEYS:
        if all(isinstance(each, dict) and all(key in each for key in keys) for each in entries):
            named = [{"/".join(str(each[key]) for key in keys): each for each in side} for side in (before, after)]
            if [len(side) for side in named] == [len(before), len(after)]:
                return named[0], named[1]
    one, other = ({str(place): each for place, each in enumerate(side)} for side in (before, after))
    return one, other


def read(place: Path) -> object:
    """A record's JSON, that of a folder with one, or the rows of a sweep's folder."""
    if (place / "rows").is_dir():
        import pyarrow.parquet as pq

        tables = [pq.read_table(path) for path in sorted((place / "rows").glob("*.parquet"))]
        rows = [row for table in tables for row in table.to_pylist()]
        return {"rows": sorted(rows, key=lambda row: [str(row.get(key)) for key in KEYS[0]])}  # files are in no order
    if place.is_dir():
        (place,) = (
            place / name for name in ("report.json", "versions.json", "producers.json") if (place / name).exists()
        )
    return json.loads(place.read_text())


def main(arguments: Collection[str] | None = None) -> int:
    """Print each difference; 1 when there is one."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("before", type=Path)
    options.add_argument("after", type=Path)
    options.add_argument("--elsewhere", action="store_true", help="AFTER is of another kind of processor")
    options.add_argument("--keep", type=Path, help="write AFTER here, without what may differ")
    given = options.parse_args(None if arguments is None else list(arguments))
    after = read(given.after)
    if given.keep:
        given.keep.write_text(json.dumps(settled(after), indent=1, ensure_ascii=False) + "\n")
    found = list(differences(read(given.before), after))
    if given.elsewhere:
        found = [each for each in found if decided_by_no_weight(each)]
    for each in found:
        print(f"{each.field}: {each.before!r:.200} -> {each.after!r:.200}")
    count = f"{len(found)} field{'s differ' if len(found) > 1 else ' differs'}"
    print(count if found else "every field is the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
