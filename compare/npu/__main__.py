"""python -m compare.npu model.tflite --target imx93: where each operator of a .tflite runs, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.errors import BridgeError
from bridge.exit_codes import MISSED, USAGE, Program, ends_properly
from bridge.terminal import Terminal, write_json

if TYPE_CHECKING:
    from compare.npu import TargetVerdict

app = Program(add_completion=False, pretty_exceptions_enable=False)

_STYLES = {
    "npu-fast": "green", "npu-slow": "yellow", "driver-cpu": "red", "cpu-fallback": "red", "fails": "bold red",
    "unverified": "magenta",
}  # fmt: skip


@app.command()
@ends_properly
def main(
    file: Annotated[Path | None, typer.Argument(help="The .tflite to judge.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Only this target; may be repeated. See --list.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Instead of a .tflite your model: an ONNX file, or MODULE:FACTORY; the exact bridge converts it."
        ),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="With MODULE:FACTORY: NPZ with its samples by input name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record instead.")] = False,
    list_them: Annotated[bool, typer.Option("--list", help="List the targets.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Where compilers and their verdicts are kept.")] = None,
) -> None:
    """Say for every operator of a .tflite where it runs: on the NPU's fast unit, a slow one, or the CPU; and why.

    Exit codes: 0 done; 1 an operator does not run on the fast unit of a target asked for with --target; 2 wrong usage,
    an unreadable file, or a target asked for whose software cannot be had.
    """
    from compare.npu import targets

    if list_them:
        for each in targets():
            print(f"{each.id:14s} {each.name}. {each.about}")  # noqa: T201 - what was asked for
        return
    content = _read(file, model, inputs)
    verdicts, missing = _judged(content, str(file or model), target or (), cache)
    for problem in missing:
        Terminal(stderr=True, soft_wrap=True).print(str(problem), style="yellow", markup=False)
    if as_json:
        write_json([record(verdict) for verdict in verdicts], indent=2)
    else:
        for verdict in verdicts:
            _print(verdict)
    if missing and target:
        raise typer.Exit(USAGE)
    raise typer.Exit(MISSED if target and not all(verdict.passes for verdict in verdicts) else 0)


def _read(file: Path | None, model: str | None, inputs: Path | None) -> bytes:
    if file is not None and model is not None:
        raise BridgeError(where="--model", problem="and a .tflite were given", remedy="Give one of the two.")
    if model is not None:
        from compare.routes.exact_file import exact_file

        return exact_file(model, inputs)
    if file is None:
        raise BridgeError(
            where="compare.npu", problem="was given no file", remedy="For example: model.tflite --target imx93"
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise BridgeError(
            where=str(file), problem=f"cannot be read ({error.strerror})", remedy="Check the path."
        ) from error


def _judged(
    content: bytes, where: str, wanted: Sequence[str], cache: Path | None
) -> tuple[list[TargetVerdict], list[BridgeError]]:
    """The verdicts, and why those that are missing could not be had."""
    from compare.npu import judge, target, targets
    from compare.tflite.graph import open_tflite

    open_tflite(content, where)  # an unreadable file is one error, not one for each target
    chosen = [target(identity) for identity in wanted] or targets()
    verdicts: list[TargetVerdict] = []
    missing: list[BridgeError] = []
    for each in chosen:
        try:
            verdicts += judge(content, where, (each.id,), cache)
        except BridgeError as error:
            missing.append(error)
    return verdicts, missing


def record(verdict: TargetVerdict) -> dict[str, Any]:
    """Everything as plain data, with what the operators add up to."""
    return {
        **asdict(verdict),
        "passes": verdict.passes,
        "share_of_operators": verdict.share_of_operators,
        "share_of_macs": verdict.share_of_macs,
        "crossings": verdict.crossings,
    }


def _print(verdict: TargetVerdict) -> None:
    from compare.npu import target

    console = Terminal(soft_wrap=True)
    console.print_line(f"{target(verdict.target).name}: {verdict.software}", style="bold")
    for operator in verdict.operators:
        console.print_line(f"  {operator.placement:12s}", style=_STYLES[operator.placement], end="")
        reason = f": {operator.reason}" if operator.reason and operator.placement != "npu-fast" else ""
        console.print_line(f" {operator.op} '{operator.tensor}'{reason}")
    console.print_line(f"  {summary(verdict)}", style="green" if verdict.passes else "yellow")
    for note in verdict.notes:
        console.print_line(f"  {note}", style="dim")


def summary(verdict: TargetVerdict) -> str:
    """`4 of 5 operators, 78 % of the MACs on the fast unit, 2 crossings; 14.4 us, 14,415 cycles, 33 KB`."""
    share = (
        f"{verdict.count('npu-fast')} of {len(verdict.operators)} operators and {verdict.share_of_macs:.0%} of the MACs"
    )
    parts = [f"{share} on the fast unit, {verdict.crossings} crossings"]
    estimate = verdict.estimate
    if estimate is not None and estimate.inference_seconds is not None:
        parts.append(f"{estimate.inference_seconds * 1e6:,.1f} us estimated")
    if estimate is not None and estimate.cycles is not None:
        parts.append(f"{estimate.cycles:,} cycles")
    if estimate is not None and estimate.memory_bytes is not None:
        parts.append(f"{estimate.memory_bytes / 1024:,.1f} KB")
    return "; ".join(parts)


if __name__ == "__main__":
    app()
