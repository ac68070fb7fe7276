"""Strangers' files by the ten thousand: python -m benchmarks.fuzz --seed 1 --cases 1000 (docs/fuzz.md has the figures).

graphs    random valid graphs, whatever ONNX Runtime computes
mutants   ONNX files with one to three changes: attributes, wires, names, constants, types, bytes
tflite    .tflite files with a change, given to what reads a .tflite

Each case runs in a bounded process. A *finding* is a wrong file without a word, a file that does not load, a crash, a
hang, a traceback, or a small file that takes more than 2 s or 1 GiB. Findings can be looked at one by one:
python -m benchmarks.fuzz --kind mutants --seed 1 --show 123 writes the file and prints what was found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.children import results
from benchmarks.fuzzing.judge import MOVING

KINDS = ("graphs", "mutants", "tflite")

VERDICTS = {
    "equal": "converted, every output within 2 LSB of the reference",
    "rounding": "further away, and the reference itself moves as far when its roundings fall one step to the side",
    "noted": "further away, as far as what the summary says moves the reference (constants without a scale, ...)",
    "refused": "refused in a sentence",
    "no reference": "converted; neither ONNX Runtime nor onnx's evaluator computes the model",
    "not finite": "converted; the reference computes NaN or infinity",
    "answered": "read, and every command answered",
    "changed, said": "the .tflite computes something else, and the doctor says so",
    "changed, not checked": "the .tflite computes something else on other inputs only, and the doctor's last line names what "
    "it did not check",
}
FINDINGS = {
    "wrong": "a wrong file without a word",
    "not loadable": "a file that LiteRT does not load or run",
    "other outputs": "a file with other outputs than its model",
    "crash": "the process ended",
    "hang": "no answer",
    "traceback": "an exception that is no sentence",
    "too much": "more than 2 s of processor time or 1 GiB for a small file",
    "changed, unsaid": "the .tflite computes something else, and the doctor does not say so",
    "judge failed": "the comparison itself failed",
}


def run(kind: str, seed: int, cases: int, jobs: int) -> Iterable[dict[str, Any]]:
    """The records of all cases, in the order in which they end."""
    step = max(1, min(200, cases // jobs))
    pieces = [(first, min(first + step, cases)) for first in range(0, cases, step)]
    with ThreadPoolExecutor(jobs) as pool:
        for records in pool.map(lambda piece: list(results(kind, seed, *piece)), pieces):
            yield from ({"kind": kind, "seed": seed, **record} for record in records)


def table(records: Sequence[dict[str, Any]]) -> str:
    """Counts by kind and verdict, then every difference of more than 2 LSB by what was drawn, as Markdown."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record["kind"]][record["verdict"]] += 1
    kinds = [kind for kind in KINDS if kind in counts]
    lines = [f"| verdict | {' | '.join(kinds)} |", f"|---|{'---:|' * len(kinds)}"]
    for verdict, meaning in (VERDICTS | FINDINGS).items():
        shown = [f"{counts[kind][verdict]:,}" for kind in kinds]
        name = f"**{verdict}**" if verdict in FINDINGS else verdict
        lines.append(f"| {name}: {meaning} | {' | '.join(shown)} |")
    total = [f"{sum(counts[kind].values()) - counts[kind]['unusable']:,}" for kind in kinds]
    lines.append(f"| cases | {' | '.join(total)} |")
    further = [record for record in records if record["verdict"] in ("rounding", "noted")]
    if further:
        lines += ["", "| further than 2 LSB because of | cases | largest (LSB) |", "|---|---:|---:|"]
        grouped: dict[str, list[float]] = defaultdict(list)
        for record in further:
            said = sorted(set(record.get("notes", {})) & MOVING)
            grouped[record["verdict"] + (f": {', '.join(said)}" if record["verdict"] == "noted" else "")].append(
                record["lsb"]
            )
        lines += [f"| {why} | {len(lsb):,} | {max(lsb):.1f} |" for why, lsb in sorted(grouped.items())]
    return "\n".join(lines) + "\n"


def ran(records: Sequence[dict[str, Any]]) -> str:
    """Which cases these were, so that anyone can draw them again."""
    drawn = Counter((record["kind"], record["seed"]) for record in records)
    seeds: dict[tuple[str, int], list[int]] = defaultdict(list)
    for (kind, seed), cases in sorted(drawn.items()):
        seeds[kind, cases].append(seed)
    return "; ".join(
        f"{kind}: {cases:,} cases of each of the seeds {', '.join(map(str, of))}"
        for kind in KINDS
        for (other, cases), of in seeds.items()
        if other == kind
    )


INTRODUCTION = """# Strangers' files

Written by `python -m benchmarks.fuzz --write docs/fuzz.md` (`make fuzz ARGS="..."`), here from the records of several runs
(`--records`, `--read`). Every case is made anew from its kind, seed and number, and runs in a process of its own, bounded
in time and memory.

- **graphs**: random valid ONNX graphs (benchmarks/fuzzing/graphs.py): 1 to 6 operators with any attribute that ONNX
  Runtime computes, several branches and outputs, 1 to 5 axes, opsets 13 to 23, 7-bit clips, operators on codes between Q and
  DQ, names that a converter might make itself.
- **mutants**: ONNX files with one to three changes (benchmarks/fuzzing/onnx_mutants.py): attributes, wires, operators, names,
  constants, types, shapes, opsets, local functions, sparse and external data, bytes.
- **tflite**: `.tflite` files with one change (benchmarks/fuzzing/tflite_mutants.py), handed beside their right ONNX file to
  `compare.npu` and, as a gate, to `compare.doctor --fail`, four times of five with inputs: on those the doctor has to see
  what changed; what changes on other inputs only is a finding where it claims to have checked everything.

A conversion is judged without anything of the bridge (benchmarks/fuzzing/judge.py): ONNX Runtime with all optimizations
off on the file as it is, LiteRT on XNNPACK and on the reference kernels on the `.tflite`, eight samples over the whole
range of codes. Up to 2 LSB of the output need no explanation. What is further away counts as *rounding* only where the
reference itself moves as far when its own roundings fall up to one step to the side, and as *noted* only where the summary
of the conversion says that something moves a value, and the reference moves as far with that. The verdicts in bold are
findings. The instrument is under test itself (tests/benchmarks/test_fuzz.py): planted faults have to be found.

"""


def _show(kind: str, seed: int, case: int) -> int:
    from benchmarks.fuzzing.cases import drawn

    for suffix, content in drawn(kind, seed, case).files.items():
        path = Path(f"fuzz-{kind}-{seed}-{case}.{suffix}")
        path.write_bytes(content)
        print(path)
    for record in results(kind, seed, case, case + 1):
        print(json.dumps(record, indent=1))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all three")
    parser.add_argument("--seed", type=int, action="append", help="default: 1")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind and seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", type=int, metavar="CASE", help="write one case to a file and judge it")
    parser.add_argument("--write", type=Path, help="the page to write, for example docs/fuzz.md")
    parser.add_argument("--records", type=Path, help="a JSON line for each case, to look at afterwards")
    parser.add_argument("--read", type=Path, action="append", help="run nothing: the records of earlier runs")
    options = parser.parse_args(arguments)
    if min(options.cases, options.jobs) < 1:
        parser.error("--cases and --jobs take 1 or more: a run of nothing finds nothing")
    kinds, seeds = options.kind or KINDS, options.seed or [1]
    if options.show is not None:
        return _show(kinds[0], seeds[0], options.show)
    records = _read(options.read) if options.read else _run(kinds, seeds, options.cases, options.jobs)
    if options.records:
        options.records.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"{table(records)}\n{ran(records)}")
    if options.write:
        options.write.write_text(f"{INTRODUCTION}{table(records)}\n{ran(records)}\n")
    return 1 if any(record["verdict"] in FINDINGS for record in records) else 0


def _run(kinds: Sequence[str], seeds: Sequence[int], cases: int, jobs: int) -> list[dict[str, Any]]:
    """The records of all cases; findings are printed as they come."""
    records: list[dict[str, Any]] = []
    for kind in kinds:
        for seed in seeds:
            for record in run(kind, seed, cases, jobs):
                records.append(record)
                if record["verdict"] in FINDINGS:
                    where = f"{kind} --seed {seed} --show {record['case']}"
                    print(f"{record['verdict']}: --kind {where}: {record.get('why', '')}", flush=True)
    return records


def _read(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What earlier runs wrote, each case once."""
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return list({(record["kind"], record["seed"], record["case"]): record for record in records}.values())


if __name__ == "__main__":
    sys.exit(main())
