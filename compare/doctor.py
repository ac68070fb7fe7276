"""python -m compare.doctor model.onnx model.tflite: which mismatches are in a team's own files, and what to do."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.errors import BridgeError
from bridge.exit_codes import DONE, MISSED, Program, ends_properly
from bridge.terminal import Terminal, write_json
from compare.subjects.arrays import read_arrays
from compare.subjects.code import is_code, made_by
from compare.subjects.options import refuse_old

if TYPE_CHECKING:
    from compare.explaining.diagnosis import Diagnosis, Remainder
    from compare.explaining.side_by_side import Comparison, Difference
    from compare.explaining.verdict import Verdict
    from compare.subjects.case import Case

app = Program(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@ends_properly
def main(
    files: Annotated[list[Path] | None, typer.Argument(help="An .onnx, a .tflite, or both of one model.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="An ONNX file, or MODULE:FACTORY that makes your PyTorch model; it is imported and run."),
    ] = None,
    keras: Annotated[
        str | None, typer.Option(help="MODULE:FACTORY that returns your tf_keras model, quantization-aware or not.")
    ] = None,
    inputs: Annotated[Path | None, typer.Option(help="NPZ with float32 inputs by name: costs are measured.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="NPZ or NPY your converter calibrated with.")] = None,
    log: Annotated[Path | None, typer.Option(help="What a tool printed when it refused.")] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="Look at the installed packages and the processor too.")
    ] = False,
    torch: Annotated[str | None, typer.Option(hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record instead.")] = False,
    fail: Annotated[
        bool,
        typer.Option(
            "--fail", help="Exit 1 for a file that does not run, a sure fault, or a difference nothing explains."
        ),
    ] = False,
) -> None:
    """Name the mismatches in your own files: what was seen, where, how sure, what it costs, what to do."""
    from compare.explaining.verdict import judge
    from compare.subjects.case import Case

    refuse_old("--torch", torch, "--model")
    of_code = model is not None and is_code(model)
    onnx, tflite = _models([*(files or []), *([] if model is None or of_code else [Path(model)])])
    case = Case(
        torch_model=made_by("--model", model) if model is not None and of_code else None,
        keras_model=None if keras is None else made_by("--keras", keras),
        onnx=onnx,
        tflite=tflite,
        inputs=None if inputs is None else read_arrays(inputs),
        calibration=None if calibration is None else next(iter(read_arrays(calibration).values())),
        packages=_installed() if environment else None,
        saturating_runtime=environment and _saturates(),
        log="" if log is None else _text(log),
    )
    _refuse_nothing(case)
    verdict = judge(case)
    if as_json:
        write_json(record(verdict), indent=2)
    else:
        _print(verdict)
    raise typer.Exit(MISSED if fail and verdict.fails else DONE)


def _refuse_nothing(case: Case) -> None:
    given = (case.torch_model, case.keras_model, case.onnx, case.tflite, case.calibration, case.packages)
    if all(each is None for each in given) and not case.log:
        raise BridgeError(
            where="compare.doctor",
            problem="was given nothing to look at",
            remedy="For example: model.onnx model.tflite",
        )


def _saturates() -> bool:
    """Whether ONNX Runtime, where it is installed, saturates on this processor (M80)."""
    from bridge.verifying import onnx_runtime

    return find_spec("onnxruntime") is not None and onnx_runtime.saturates()


def _models(files: Sequence[Path]) -> tuple[bytes | None, bytes | None]:
    """(ONNX, .tflite) among the files, told apart by what they hold."""
    found: dict[str, bytes] = {}
    for path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BridgeError(
                where=str(path), problem=f"cannot be read ({error.strerror})", remedy="Check the path."
            ) from error
        kind = "tflite" if content[4:8] == b"TFL3" or path.suffix == ".tflite" else "onnx"
        if kind in found:
            raise BridgeError(
                where=str(path), problem=f"is a second {kind} file", remedy="Give at most one .onnx and one .tflite."
            )
        if kind == "onnx":
            from bridge.exact.reader import parse_whole

            content = parse_whole(path).SerializeToString()
        found[kind] = content
    return found.get("onnx"), found.get("tflite")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise BridgeError(
            where=str(path), problem=f"cannot be read ({error.strerror})", remedy="Check the path."
        ) from error


def _installed() -> dict[str, str]:
    """Versions by distribution name in lower case; the interpreter's own as `python`."""
    return {"python": platform.python_version()} | {
        name.lower(): distribution.version
        for distribution in importlib.metadata.distributions()
        if (name := distribution.metadata["Name"])
    }


def record(verdict: Verdict) -> dict[str, Any]:
    """Everything as plain data."""
    compared, left, traced = verdict.comparison, verdict.left, verdict.traced
    return {
        "fails": verdict.fails,
        "faulty": list(verdict.faulty),
        "mismatches": [_diagnosis(each) for each in verdict.found],
        "compared": None
        if compared is None
        else {
            "layers": compared.layers,
            "numbers": compared.numbers,
            "scales": compared.scales,
            "same_network": not compared.another_network,
            "changed_on_purpose": list(compared.stated),
        },
        "differences": [
            {
                "kind": each.difference.kind,
                "where": each.difference.where,
                "fact": each.difference.fact,
                "explained_by": list(each.explained_by),
                "gone_when_repaired": each.repaired,
            }
            for each in verdict.judged
        ],
        "unexplained": None
        if left is None
        else {
            "op": left.layer.op,
            "file": left.layer.file,
            "lsb": left.layer.max_lsb,
            "sqnr_db": left.layer.sqnr_db,
            "undone": list(left.undone),
            "not_undone": list(left.not_undone),
        },
        "drift": None
        if traced is None
        else [
            {
                "op": each.op,
                "reference": each.reference,
                "file": each.file,
                "lsb": each.max_lsb,
                "sqnr_db": each.sqnr_db,
            }
            for each in traced.layers
        ],
        "unchecked": [{"what": each.what, "why": each.why} for each in verdict.unchecked],
    }


def _diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "id": diagnosis.mismatch.id,
        "name": diagnosis.mismatch.name,
        "severity": diagnosis.severity,
        "sure": diagnosis.sure,
        "fails": diagnosis.fails,
        "cause": diagnosis.mismatch.cause,
        "way_out": diagnosis.mismatch.way_out,
        "seen": [
            {
                "where": each.where,
                "fact": each.fact,
                "remedy": each.remedy,
                "severity": diagnosis.weight_of(each),
                "sure": each.sure,
            }
            for each in diagnosis.sightings
        ],
        "cost": None
        if diagnosis.cost is None
        else {"differing": diagnosis.cost.differing, "largest": diagnosis.cost.largest},
    }


SHOWN = 3
"""Sightings of one mismatch, and differences, that are printed; the rest are counted."""


def _print(verdict: Verdict) -> None:
    console = Terminal(soft_wrap=True)
    for problem in verdict.faulty:
        console.print_line(f"The .tflite: {problem}", style="bold red")
    for diagnosis in verdict.found:
        _print_diagnosis(console, diagnosis)
    if not verdict.found:
        console.print_line("No mismatch of the catalogue was seen.")
    if verdict.comparison is not None:
        _print_comparison(console, verdict, verdict.comparison)
    if verdict.traced is not None:
        for layer in verdict.traced.layers:
            console.print_line(f"  {layer.op} '{layer.file}': {layer.max_lsb:.1f} LSB, {layer.sqnr_db:.1f} dB")
        guilty = verdict.traced.guilty()
        if guilty is not None:
            console.print_line(f"The first layer more than 1 LSB away: {guilty.op} '{guilty.file}'", style="bold")
    if verdict.left is not None:
        console.print_line(sentence(verdict.left), style="bold red")
    unchecked = "; ".join(map(str, verdict.unchecked)) or "nothing that this command looks at"
    console.print_line(f"Not checked: {unchecked}.")


def _print_diagnosis(console: Terminal, diagnosis: Diagnosis) -> None:
    mismatch = diagnosis.mismatch
    sure = "" if diagnosis.sure else ", perhaps"
    console.print_line(f"{mismatch.id} {mismatch.name} ({diagnosis.severity}{sure})", style="bold")
    for sighting in diagnosis.sightings[:SHOWN]:
        console.print_line(f"  {sighting.where}: {sighting.fact}")
        console.print_line(f"    {sighting.remedy}", style="green")
    if len(diagnosis.sightings) > SHOWN:
        console.print_line(f"  and {len(diagnosis.sightings) - SHOWN} more places")
    if diagnosis.cost is not None:
        cost = diagnosis.cost
        console.print_line(
            f"  repaired alone: {cost.differing:.2%} of the outputs change, by up to {cost.largest:.4g}",
        )


def _print_comparison(console: Terminal, verdict: Verdict, compared: Comparison) -> None:
    if compared.layers:
        console.print_line(
            f"Side by side: {compared.numbers} weights and biases of {compared.layers} layers and {compared.scales} "
            f"activation scales compared, {len(compared.differences)} places differ.",
        )
    for ids in dict.fromkeys(each.explained_by for each in verdict.judged if each.explained_by):
        explained = [each for each in verdict.judged if each.explained_by == ids]
        how = "gone when repaired" if explained[0].repaired else "seen at the same tensors"
        console.print_line(f"  {len(explained)} explained by {', '.join(ids)} ({how})")
    for stated in compared.stated[:SHOWN]:
        console.print_line(f"  changed on purpose: {stated}")
    if len(compared.stated) > SHOWN:
        console.print_line(f"  and {len(compared.stated) - SHOWN} more changed on purpose")
    for difference in verdict.unexplained[:SHOWN]:
        console.print_line(f"Unexplained, {told(difference)}", style="bold red")
    if len(verdict.unexplained) > SHOWN:
        console.print_line(f"  and {len(verdict.unexplained) - SHOWN} more unexplained differences")


def told(difference: Difference) -> str:
    """One difference in a sentence."""
    if difference.kind == "network":
        return f"{difference.where} {difference.fact}"
    return f"{difference.kind}: {difference.where}: {difference.fact}"


def sentence(left: Remainder) -> str:
    """What stays wrong, where, by how much, and what may be the reason."""
    undone = f" with {', '.join(left.undone)} undone" if left.undone else ""
    reason = (
        f"; {', '.join(left.not_undone)} could not be undone here and may be the reason"
        if left.not_undone
        else ": no entry of the catalogue explains it"
    )
    away = f"{left.layer.max_lsb:.1f} LSB ({left.layer.sqnr_db:.1f} dB)"
    return f"Unexplained{undone}: first at {left.layer.op} '{left.layer.file}', {away}{reason}"


if __name__ == "__main__":
    app()
