"""One process that runs cases, a line of JSON at each step: python -m benchmarks.fuzzing.child KIND SEED FIRST LAST."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from typer.testing import CliRunner

from benchmarks.fuzzing.cases import Case, drawn, randomness
from benchmarks.fuzzing.judge import Judgement, judge
from bridge.errors import BridgeError
from bridge.exact.convert import Conversion, convert
from tests.bridge.exact.graphs import Unusable

SECONDS, BYTES = 2.0, 1 << 30
"""What one conversion of a small file may take: processor time, and memory beyond what the process had."""

_RESTART = 3 << 29
"""Peak memory after which the process ends and the next one goes on, so that a peak is one case's own."""

RULED_TARGETS = ("imx8mp", "edgetpu", "cpu")
"""Targets that `compare.npu` judges without another program."""

Phase = Callable[[str], None]
"""Says what comes next, so that the parent knows what was going on when a process ended."""


def main(kind: str, seed: int, first: int, last: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for case in range(first, last):
            _say({"case": case, "phase": "draw"})
            _say({"case": case, **_result(kind, seed, case, Path(folder))})
            if _peak() > _RESTART:
                return


def _say(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _peak() -> int:
    """Bytes that this process held at most; getrusage counts what its parent held when it was forked."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _result(kind: str, seed: int, number: int, folder: Path) -> dict[str, Any]:
    try:
        case = drawn(kind, seed, number)
    except Unusable:
        return {"verdict": "unusable"}
    for suffix, content in case.files.items():
        (folder / f"model.{suffix}").write_bytes(content)

    def phase(name: str) -> None:
        _say({"case": number, "phase": name, "made_from": case.made_from})

    random = randomness(kind, seed, number, purpose=1)
    answer = _read_by_commands if kind == "tflite" else _converted
    return {"made_from": case.made_from, **answer(case, folder / "model", random, phase)}


def _converted(case: Case, base: Path, random: Any, phase: Phase) -> dict[str, Any]:
    """The conversion of an ONNX file, and the judge's word on what came of it."""
    path = base.with_suffix(".onnx")
    phase("convert")
    before, started = _peak(), time.process_time()
    conversion, record = None, {}
    try:
        conversion = convert(path, case.options)
    except BridgeError as error:
        record = {"verdict": "refused", "why": error.problem, "sentence": str(error)}
    except Exception:  # noqa: BLE001 - that is what is looked for
        record = {"verdict": "traceback", "why": traceback.format_exc()[-1500:]}
    took, grew = time.process_time() - started, _peak() - before
    if took > SECONDS or grew > BYTES:
        return {"verdict": "too much", "why": f"{took:.1f} s, {grew >> 20} MiB: {record.get('why', '')}"}
    if conversion is None:
        return record
    phase("judge")
    noted = [note.kind for note in conversion.notes]
    try:
        model = onnx.load(path)
    except Exception as error:  # noqa: BLE001 - of data in files that are not there
        return {"verdict": "no reference", "why": str(error)[:200]}
    try:
        judgement = judge(model, conversion.tflite, noted, random, _fed(conversion), phase=phase)
    except Exception:  # noqa: BLE001 - the judge's own fault is a finding too
        judgement = Judgement("judge failed", why=traceback.format_exc()[-1500:])
    return asdict(judgement) | {"notes": dict(Counter(noted)), "options": repr(case.options)}


def _fed(conversion: Conversion) -> dict[str, tuple[int, int]]:
    """The codes that inputs take, as the notes say it: input 'x': feed codes from 0 to 127 only."""
    said = {}
    for note in conversion.notes:
        numbers = re.fullmatch(r"feed codes from (-?\d+) to (-?\d+) only", note.what)
        if note.kind == "fed" and numbers:
            said[note.where.removeprefix("input '").removesuffix("'")] = (int(numbers[1]), int(numbers[2]))
    return said


def _read_by_commands(case: Case, base: Path, random: Any, phase: Phase) -> dict[str, Any]:
    """The commands that read a .tflite, on a changed one beside its right ONNX file."""
    model, file, inputs = (str(base.with_suffix(suffix)) for suffix in (".onnx", ".tflite", ".npz"))
    phase("npu")
    codes = {"npu": _command("compare.npu.__main__", [file, "--target", str(random.choice(RULED_TARGETS))])[0]}
    phase("doctor")
    given = ["--inputs", inputs] if random.random() < 0.8 else []
    codes["doctor"], printed = _command("compare.doctor", [model, file, "--fail", *given])
    bad = {name: code for name, code in codes.items() if code not in (0, 1, 2)}
    if bad:
        return {"verdict": "traceback", "why": str(bad)}
    if codes["doctor"] == 1:
        return {"verdict": "changed, said"}
    if codes["doctor"] == 2 or not given:
        return {"verdict": "answered"}
    phase("judge")
    with np.load(inputs) as arrays:
        seen = judge(onnx.load(model), case.files["tflite"], [], random, given=dict(arrays), own_names=True)
    if seen.verdict in _CHANGED:
        said = _EITHER_ORDER in printed
        return {"verdict": "changed, not checked" if said else "changed, unsaid", "why": str(seen)}
    elsewhere = judge(onnx.load(model), case.files["tflite"], [], random, own_names=True)
    if elsewhere.verdict not in _CHANGED:
        return {"verdict": "answered"}
    named = _CHECKED_ALL not in printed
    return {"verdict": "changed, not checked" if named else "changed, unsaid", "why": f"on other inputs: {elsewhere}"}


_CHANGED = ("wrong", "other outputs", "not loadable")
_EITHER_ORDER = "in which order of axes the file is fed"
"""A square map that lost its TRANSPOSE is a file for inputs in the model's order; the doctor takes either and says which."""
_CHECKED_ALL = "Not checked: nothing that this command looks at"


def _command(module: str, arguments: list[str]) -> tuple[int | str, str]:
    """Exit code and output of one of our commands, run in this process; the traceback where it let an exception out."""
    result = CliRunner().invoke(importlib.import_module(module).app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return "".join(traceback.format_exception(result.exception))[-1500:], result.output
    return result.exit_code, result.output


if __name__ == "__main__":
    main(sys.argv[1], *(int(each) for each in sys.argv[2:5]))
