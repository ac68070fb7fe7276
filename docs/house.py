"""The rooms of the house, who imports whom, and where an arrow goes up or in a circle: `python docs/house.py` writes docs/house.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
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


if __name__ == "__main__":
    (ROOT / "docs" / "house.md").write_text("\n".join(page()) + "\n")
