"""The matrix as Markdown: `versions.md`."""

from __future__ import annotations

from collections.abc import Iterator

from compare.report.markdown import code, prose, table
from compare.report.pages.versions import words
from compare.report.records.versions import CellRecord, ToolchainRecord, VersionsRecord
from compare.report.words import NOTHING, duration, plural

SHOWN_PACKAGES = (
    "tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "onnx2tf", "onnx", "onnxruntime", "torch",
    "litert-torch", "ai-edge-litert", "tflite-runtime", "numpy", "protobuf", "flatbuffers", "ml-dtypes",
)  # fmt: skip


def render(record: VersionsRecord) -> str:
    """The whole record as one page."""
    lines = [
        f"# {words.TITLE}",
        "",
        _opening(record),
        "",
        f"Made with {code(record.command)}.",
        "",
        *(f"- {prose(each.sentence)}" for each in record.recommendations),
        f"- {prose(words.verdict(record))}",
        *(f"- {prose(note)}" for note in record.notes),
        "",
        "## The matrix",
        "",
        *_legend(),
        *_matrix(record),
        "## What went wrong, and why",
        "",
        *_troubles(record),
        "## Every file on every runtime",
        "",
        *_runs(record),
        "## Every combination",
        "",
        *_cells(record),
        "## Toolchains",
        "",
        *_toolchains(record),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _opening(record: VersionsRecord) -> str:
    return (
        f"{prose(record.model)}: {plural(record.samples, 'sample')}; {plural(len(record.cells), 'combination')} of toolchain "
        f"and route, every file on {plural(len(record.runtimes), 'runtime')}. {record.started[:10]}, "
        f"{duration(record.seconds)}, {prose(', '.join(record.machine.values()))}."
    )


def _legend() -> Iterator[str]:
    yield "A cell has its status, the accuracy in percent (the range where runtimes differ) and the catalogue's entries:"
    yield ""
    for status, meaning in words.MEANINGS.items():
        yield f"- **{words.MARKS[status]}**: {meaning}"
    yield ""


def _matrix(record: VersionsRecord) -> list[str]:
    places, makers = words.by_place(record), words.producers(record)
    rows = []
    for toolchain in makers:
        found = [places.get((toolchain, route.name)) for route in record.routes]
        rows.append([code(toolchain), *("" if cell is None else _short(cell) for cell in found)])
    validated = [
        "validated model",
        *("" if each.accuracy is None else f"{100 * each.accuracy:.2f}" for each in record.routes),
    ]
    return table(
        ["toolchain", *(each.name for each in record.routes)], [validated, *rows], [False] * (len(record.routes) + 1)
    )


def _short(cell: CellRecord) -> str:
    seen = words.ids([each for each in cell.causes if each.sure] or cell.causes)
    return " ".join(
        part for part in (f"**{words.MARKS[cell.status]}**", words.figure(cell), f"({seen})" if seen else "") if part
    )


def _troubles(record: VersionsRecord) -> list[str]:
    found = words.troubles(record)
    if not found:
        return ["Nothing.", ""]
    rows = [
        [
            each.kind,
            "; ".join(f"{one} {prose(name)}" for one, name in zip(each.ids, each.names, strict=True))
            or "**not in the catalogue**",
            prose(each.said),
            prose(words.shortened(each.places)),
            prose(each.remedy) or NOTHING,
        ]
        for each in found
    ]
    return table(["kind", "catalogue", "the first line of the error", "where", "what to do"], rows, [False] * 5)


def _runs(record: VersionsRecord) -> list[str]:
    made = [cell for cell in record.cells if cell.runs]
    rows = []
    for cell in made:
        by_runtime = {run.runtime: run for run in cell.runs}
        shown = [by_runtime.get(each) for each in record.runtimes]
        rows.append(
            [
                code(cell.id),
                *(
                    ""
                    if run is None
                    else f"refused ({words.ids(run.causes) or '?'})"
                    if run.problem
                    else words.run_cell(run)
                    for run in shown
                ),
            ]
        )
    return table(["file", *record.runtimes], rows, [False] * (len(record.runtimes) + 1))


def _cells(record: VersionsRecord) -> list[str]:
    rows = [
        [
            code(cell.id), words.MARKS[cell.status], words.figure(cell), words.changed(cell), words.largest_lsb(cell),
            words.runtimes_that_run(cell), f"{cell.size:,}" if cell.size else "", str(cell.float_operators) if cell.runs else "",
            prose(words.operators(cell)), f"{cell.seconds:.1f}", f"{cell.peak_bytes / 1e6:,.0f}",
            words.ids(cell.causes), prose(words.said(cell.problem)),
        ]
        for cell in record.cells
    ]  # fmt: skip
    header = [
        "combination", "status", "%", "changed", "LSB from the reference", "runtimes", "bytes", "float operators",
        "operators with versions", "s", "MB", "catalogue", "error",
    ]  # fmt: skip
    numeric = [False, False, True, True, True, True, True, True, False, True, True, False, False]
    return table(header, rows, numeric)


def _toolchains(record: VersionsRecord) -> list[str]:
    rows = [
        [code(each.id), each.as_of or "today", each.python, prose(_packages(each)), prose(each.problem or "")]
        for each in record.toolchains
    ]
    return table(["toolchain", "as of", "Python", "packages", "not built because"], rows, [False] * 5)


def _packages(toolchain: ToolchainRecord) -> str:
    found = [f"{name} {toolchain.versions[name]}" for name in SHOWN_PACKAGES if name in toolchain.versions]
    return ", ".join(found)
