"""Whose quantization survives, as Markdown: `producers.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compare.report.markdown import code, prose, table
from compare.report.records.producers import ConversionRecord, ProducedRecord, ProducersRecord
from compare.report.words import NOTHING, duration, plural

TITLE = "Whose quantization survives"
_PACKAGES = ("torch", "torchao", "onnx", "onnxruntime", "onnxscript", "numpy")


def render(record: ProducersRecord) -> str:
    """The whole record as one page."""
    lines = [
        f"# {TITLE}",
        "",
        _opening(record),
        "",
        f"Made with {code(record.command)}.",
        "",
        *_legend(record),
        *(line for network in _networks(record) for line in _network(record, network)),
        "## What was refused, and by whom",
        "",
        *_refusals(record),
        "## Producers",
        "",
        *_producers(record),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _opening(record: ProducersRecord) -> str:
    made = [each for each in record.produced if each.problem is None]
    return (
        f"{plural(len(record.producers), 'producer')}, each pinned in an environment of its own, quantized the same "
        f"{plural(len(_networks(record)), 'network')} as its documentation says ({plural(len(made), 'file')}); every "
        f"converter took every file of its form. {plural(record.samples, 'sample')}, {record.started[:10]}, "
        f"{duration(record.seconds)}, {prose(', '.join(record.machine.values()))}."
    )


def _legend(record: ProducersRecord) -> Iterator[str]:
    yield (
        "Weights are drawn, not trained: what is measured is how far each file is from what the producer decided. A cell has"
    )
    yield (
        "the producer's scales that are still in the file, the operators that compute in float, and the largest difference in"
    )
    yield (
        "steps (255 of them span what the reference says; one is an LSB of an 8-bit output) from the producer's own simulation"
    )
    yield "and from ONNX Runtime, unoptimized, on the producer's file."
    yield ""
    yield "A scale that is missing was not always lost: a pair that says the same twice, or stands before a ReLU, is folded,"
    yield "and a batch norm behind a layer is multiplied into the scales of its weights. Scales that are powers of two (Quark's"
    yield "XINT8) put many sums exactly between two codes: ONNX Runtime rounds those to even, TFLite's kernels upwards."
    yield ""
    for name, about in record.converters.items():
        yield f"- **{prose(name)}**: {prose(about)}"
    yield ""


def _networks(record: ProducersRecord) -> list[str]:
    return list(dict.fromkeys(each.network for each in record.produced))


def _network(record: ProducersRecord, network: str) -> list[str]:
    rows = []
    for made in record.produced:
        if made.network != network:
            continue
        found = {each.converter: each for each in made.conversions}
        rows.append(
            [
                code(made.producer),
                made.recipe,
                made.form or "not made",
                str(made.scales) if made.form else "",
                "" if made.simulation_apart is None else f"{made.simulation_apart:.1f}",
                *(_cell(found.get(name), made) for name in record.converters),
            ]
        )
    header = ["producer", "recipe", "form", "scales", "ONNX Runtime from the simulation", *record.converters]
    numeric = [False, False, False, True, True, *(False for _ in record.converters)]
    return [f"## {network.capitalize()}", "", *table(header, rows, numeric)]


def _cell(found: ConversionRecord | None, made: ProducedRecord) -> str:
    if found is None:
        return ""
    if found.problem is not None:
        return "made, not run" if found.operators else "refused"
    floats = "all integer" if not found.float_operators else f"{found.float_operators} of {found.operators} in float"
    apart = " / ".join(
        NOTHING if each is None else f"{each:.1f}" for each in (found.from_simulation, found.from_onnx_runtime)
    )
    changed = f", {plural(found.changed, 'sample')} of another class" if found.changed else ""
    return f"{found.kept} of {made.scales} scales, {floats}, {apart}{changed}"


def _refusals(record: ProducersRecord) -> list[str]:
    """Each sentence once, with all the places where it was said."""
    places: dict[tuple[str, str], list[str]] = {}
    for made in record.produced:
        place = f"{made.producer}/{made.recipe}/{made.network}"
        if made.problem is not None:
            places.setdefault((made.producer, made.problem), []).append(f"{made.recipe}/{made.network}")
        for each in made.conversions:
            if each.problem is not None:
                places.setdefault((each.converter, each.problem), []).append(place)
    if not places:
        return ["Nothing.", ""]
    rows = [[prose(who), prose(said), prose(_listed(where))] for (who, said), where in places.items()]
    return table(["by", "the first line of what it said", "of"], rows, [False] * 3)


def _listed(places: Iterable[str], most: int = 3) -> str:
    listed = list(places)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _producers(record: ProducersRecord) -> list[str]:
    rows = [
        [
            code(each.id), prose(each.about), each.as_of, each.python,
            prose(", ".join(f"{name} {each.versions[name]}" for name in _PACKAGES if name in each.versions)),
            prose(each.problem or ""),
        ]
        for each in record.producers
    ]  # fmt: skip
    return table(["producer", "what it is", "as of", "Python", "packages", "not built because"], rows, [False] * 6)
