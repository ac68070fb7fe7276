"""The rooms of the house, who imports whom, and where an arrow goes up or in a circle: `python docs/house.py` writes docs/house.md.

`python docs/house.py --at COMMIT` counts the house as it stood at a commit, `--at FOLDER` that of another checkout.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS: tuple[Mapping[str, str], ...] = (
    {
        "bridge": "a model in, an int8 .tflite out; nothing in it trains, compares or judges",
        "torch_side": "what needs torch and is ours: the MNIST network, qconfigs, training, freezing, prepare",
        "keras_side": "what needs tf_keras and TF-MOT",
    },
    {
        "compare/tflite": "a .tflite as records: read, opened as a graph, edited, matched by structure",
    },
    {
        "compare/running": "how work is carried out: worker processes, programs with a time limit, folders, locks, what is kept",
    },
    {
        "compare/subjects": "what is compared: a model in named forms, its samples, what was validated; MNIST and a team's own",
    },
    {
        "compare/toolchains": "pins, environments, interpreters, the worker and its protocol; producers",
    },
    {
        "compare/routes": "the ways from a form to a .tflite",
    },
    {
        "compare/report": "one kit (words, charts, terminal, Markdown, HTML); records/ what a command found, pages/ one a command",
    },
    {
        "compare/measuring": "outputs, distance, speed, drift, one operator alone",
    },
    {
        "compare/npu": "where each operator runs: one file a target",
    },
    {
        "compare/mismatches": "the catalogue: one file an entry; parts/ what several of them use",
    },
    {
        "compare/explaining": "causes undone one by one, findings, claims, the doctor's diagnosis",
    },
    {
        "compare/run": "python -m compare.run",
        "compare/versions": "python -m compare.versions: routes x toolchains x runtimes",
        "compare/sweep": "python -m compare.sweep: seeds x settings x routes x toolchains x models",
    },
    {
        "compare/doctor": "python -m compare.doctor",
    },
    {
        "compare/testing": "assertions for a team's own tests",
    },
)
"""From the ground up; a room imports from floors below its own, and from itself."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for top in ("bridge", "torch_side", "keras_side", "compare"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, known: Mapping[str, Path]) -> set[str]:
    """What a module imports of ours, wherever in the file it does; what only type checkers see is left out."""
    found = set()
    for node in _walk(ast.parse(known[name].read_text())):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        for each in named:
            while each and each not in known:
                each = each.rpartition(".")[0]
            found |= {each} - {"", name}
    return found


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _walk(child)


def room(name: str) -> str:
    """The room that a module is in."""
    parts = name.split(".")
    return parts[0] if parts[0] != "compare" or len(parts) == 1 else "/".join(parts[:2])


def floors() -> dict[str, int]:
    return {name: floor for floor, rooms in enumerate(FLOORS) for name in rooms}


def upwards(arrows: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(module, what it imports) wherever that lives no floor below."""
    floor = floors()
    return sorted(
        (name, other)
        for name, others in arrows.items()
        for other in others
        if room(name).startswith("compare/") and room(other) not in ("compare", room(name))
        if floor[room(other)] >= floor[room(name)]
    )


def circles(arrows: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of modules of which each imports, by way of others, every other one (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(tuple(sorted(group)))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return found


def arrows(root: Path = ROOT) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imports(name, known) for name in known}


@dataclass(frozen=True)
class Counted:
    """A house in figures. A room is a package or a file directly in `compare/`, or one of the packages beside it."""

    places: int
    """Packages and files directly in `compare/`."""
    floors: int
    """Rooms on the longest way down, those of a circle taken as one."""
    arrows: int
    """Pairs of rooms of which one imports from the other."""
    circles: int
    """Groups of rooms of which each imports, by way of others, every other one."""
    rooms_in_circles: int
    module_circles: int


FIGURES = (
    "files and packages directly in `compare/`", "floors", "arrows between rooms", "circles among rooms", "rooms in them",
    "circles among modules",
)  # fmt: skip
BEFORE = "926c26a^"
"""The last commit of the flat `compare/`."""
COUNTED_BEFORE = Counted(places=51, floors=12, arrows=200, circles=3, rooms_in_circles=6, module_circles=2)
"""What `python docs/house.py --at 926c26a^` says; a test counts again where the history is there."""


def between_rooms(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Each room with those that it imports from; `compare` itself, a docstring, is none."""
    rooms: dict[str, set[str]] = {room(name): set() for name in arrows if room(name) != "compare"}
    for name, others in arrows.items():
        if room(name) in rooms:
            rooms[room(name)] |= {room(other) for other in others} & rooms.keys() - {room(name)}
    return rooms


def counted(root: Path = ROOT) -> Counted:
    """The figures of the house in this folder."""
    drawn = arrows(root)
    rooms = between_rooms(drawn)
    groups = circles(rooms)
    group = {name: name for name in rooms} | {name: each[0] for each in groups for name in each}
    below: dict[str, set[str]] = {one: set() for one in group.values()}
    for name, others in rooms.items():
        below[group[name]] |= {group[other] for other in others} - {group[name]}

    def height(one: str) -> int:
        return 1 + max(map(height, below[one]), default=0)

    return Counted(
        places=sum(name.startswith("compare/") for name in rooms),
        floors=max(map(height, below), default=0),
        arrows=sum(map(len, rooms.values())),
        circles=len(groups),
        rooms_in_circles=sum(map(len, groups)),
        module_circles=len(circles(drawn)),
    )


def at(commit: str) -> Counted:
    """The house as it stood at a commit. Raises `CalledProcessError` where git does not have it."""
    packages = subprocess.run(  # noqa: S603 - git, and a commit that it checks
        ["git", "archive", commit, "bridge", "compare", "torch_side", "keras_side"],  # noqa: S607 - where git is differs
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packages)) as files:
        files.extractall(folder, filter="data")
        return counted(Path(folder))


def page() -> Iterator[str]:
    """docs/house.md."""
    drawn = arrows()
    yield "# The house\n"
    yield "Written by `python docs/house.py`; tests/docs/test_house.py holds the code against it. A room imports from floors"
    yield "below its own, and from itself; no module imports, by way of others, itself.\n"
    yield "| floor | room | what lives there | imports from |\n|---:|---|---|---|"
    for floor, rooms in reversed(list(enumerate(FLOORS))):
        for name, about in rooms.items():
            below = {room(other) for module, others in drawn.items() if room(module) == name for other in others}
            shown = ", ".join(sorted(each.removeprefix("compare/") for each in below - {name, "compare"}))
            yield f"| {floor} | `{name}` | {about} | {shown or 'nothing'} |"
    yield f"\nArrows that go up: {len(upwards(drawn))}. Circles: {len(circles(drawn))}."
    yield f"\n## Before and after\n\nCounted by `python docs/house.py --at COMMIT`; before is `{BEFORE}`, when `compare/` was flat.\n"
    yield "| | before | now |\n|---|---:|---:|"
    for figure, before, now in zip(FIGURES, astuple(COUNTED_BEFORE), astuple(counted()), strict=True):
        yield f"| {figure} | {before} | {now} |"
    for group in circles(between_rooms(drawn)):
        yield f"\nThe circle among rooms that is left: {', '.join(f'`{each}`' for each in group)}; of their modules none is in one."


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--at", help="a commit, or the folder of a checkout, to count instead")
    place = options.parse_args().at
    if place is None:
        (ROOT / "docs" / "house.md").write_text("\n".join(page()) + "\n")
    else:
        found = counted(Path(place)) if Path(place).is_dir() else at(place)
        for figure, value in zip(FIGURES, astuple(found), strict=True):
            print(f"{value:4d} {figure}")  # noqa: T201 - what was asked for
