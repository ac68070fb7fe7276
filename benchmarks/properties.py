"""Random QDQ models by the thousand: python -m benchmarks.properties --graphs 2000 writes docs/properties.md.

A worker process converts and runs the models, so that a kernel that ends the process costs one model and is reported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.bridge.exact.checking import checked
from tests.bridge.exact.graphs import Seeded, Unusable, draw_model
from tests.bridge.exact.steps import STEPS


def work(first: int, last: int) -> None:
    """One JSON line before each model and one after it, on stdout."""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last):
            print(json.dumps({"start": seed}), flush=True)
            print(json.dumps({"seed": seed, **_result(seed, Path(folder) / f"{seed}.onnx")}), flush=True)


def _result(seed: int, path: Path) -> dict[str, object]:
    try:
        model = draw_model(Seeded(seed), STEPS)
    except Unusable:
        return {"unusable": True}
    made: dict[str, object] = {"kinds": model.kinds}
    try:
        outcome = checked(model, path)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding, and the next model is due
        return made | {"error": "".join(traceback.format_exception_only(error)), "trace": traceback.format_exc()}
    finally:
        path.unlink(missing_ok=True)
    return made | {
        "refusal": outcome.refusal,
        "too_far": outcome.too_far,
        "operators": [
            (item.op, item.kernels, item.distance.count, item.distance.histogram) for item in outcome.operators
        ],
    }


@dataclass
class Figures:
    """Sums over all models."""

    graphs: int = 0
    unusable: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    operators: Counter[tuple[str, str]] = field(default_factory=Counter)
    histograms: dict[tuple[str, str], Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    findings: list[str] = field(default_factory=list)

    def count(self, line: dict[str, object]) -> None:
        """Add the result of one model."""
        if "unusable" in line:
            self.unusable += 1
            return
        self.graphs += 1
        self.kinds.update(line["kinds"])
        if "error" in line:
            self.findings.append(f"seed {line['seed']} {line['kinds']}: {line['error']}{line['trace']}")
            return
        if line["refusal"]:
            self.refusals[str(line["refusal"])] += 1
        self.findings += [f"seed {line['seed']} {line['kinds']}: {text}" for text in line["too_far"]]
        for op, kernels, _, histogram in line["operators"]:
            self.operators[op, kernels] += 1
            self.histograms[op, kernels].update({int(lsb): count for lsb, count in histogram.items()})


def run(first: int, graphs: int) -> Figures:
    """Every model of the seeds first..first + graphs, in worker processes, one after another."""
    figures, seed, last = Figures(), first, first + graphs
    while seed < last:
        command = [sys.executable, "-m", "benchmarks.properties", "--work", str(seed), str(last)]
        with subprocess.Popen(  # noqa: S603 - ourselves, with two numbers
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as worker:
            for text in worker.stdout or ():
                line = json.loads(text)
                if "start" in line:
                    seed = line["start"]
                else:
                    figures.count(line)
                    seed += 1
        if seed < last:
            figures.findings.append(f"seed {seed}: the process ended with code {worker.returncode}")
            seed += 1
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--write", type=Path, help="the page to write, for example docs/properties.md")
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return 0
    started = time.perf_counter()
    figures = run(options.first, options.graphs)
    seconds = time.perf_counter() - started
    text = page(figures, options.first, seconds)
    if options.write:
        options.write.write_text(text)
    print(text)
    for finding in figures.findings:
        print(finding)
    return 1 if figures.findings else 0


INTRODUCTION = """# Random models

Written by `python -m benchmarks.properties --write docs/properties.md`. Each graph is drawn from a seed
(tests/bridge/exact/graphs.py, steps.py): up to five steps out of every operator the bridge writes, batch 1 to 3, sizes
1 to 8 (C = H = W in a quarter), scales from about 1e-9 to 1e5 with zero points up to both ends, uint8 and int8, weights per tensor
and per channel with codes of -128. Each model is converted, loaded and run on XNNPACK and on the reference kernels of
LiteRT 2.1.0; then each operator runs alone on the codes that ONNX Runtime 1.23 (unoptimized) has at its input.

**Bound: 1 LSB**, plus only what tests/bridge/exact/checking.py lists, computed for each operator from its own numbers:

- *Constants without a trained scale* (ADD, SUB, MUL, PRELU): half a step of the 8 bits they are given, a note of kind
  `derived`.
- *A bias in steps coarser than the output's* (input scale times weight scale): half a step of it, a note of kind `grid`.
- *A code of -128 under a batch norm with a negative factor* becomes 127, a note of kind `weights`.
- *Codes of -128 that ARM's kernels would add wrongly* become -127, a note of kind `weights`: one step of the weight for
  each (bridge/exact/pair_sums.py).
- *Averages, bilinear resizes, SOFTMAX, LOGISTIC and TANH whose trained scale is finer than the one they write*: half a
  step of that one, as the rescaling comes after.
- *RESIZE_BILINEAR, reference kernel only*: its positions have 10 fractional bits (ResizeBilinearInteger). The proof is
  tests/bridge/exact/test_kernels.py, which computes both in numpy.

A *finding* is a crash, an exception, a refusal that is not listed, or an operator beyond its bound.

## What the kernels cannot compute

The bridge refuses these, or writes them otherwise. Measured with LiteRT 2.1.0 on x86-64.

| operator | from | what happens | the bridge |
|---|---|---|---|
| ADD, SUB | input step 2^8 output steps | XNNPACK wraps around, up to 255 codes | refuses; rescales by QUANTIZE |
| ADD, SUB | 2^19 | the reference kernel ends the process (abort) | refuses |
| ADD, SUB | output scale beyond 2^107 | the process ends (2^20 times it is infinite in float32) | refuses |
| MUL | product of input steps 2^8 output steps | XNNPACK wraps around | refuses |
| CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED | accumulator step 2^8 output steps | XNNPACK: no runtime | refuses |
| CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV, BATCH_MATMUL | sums that can reach 2^31, on the \
reference kernels before or after they are shifted | wraps around in int32 | refuses; says how near from 2^30 |
| CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED | two weights of -128 in a channel that meet input codes of -128 | ARM's \
kernels wrap around in int16 | writes -127, and says so |
| HARD_SWISH | 2^7 | the kernel does not prepare | refuses |
| HARD_SWISH | input scale 2^25 | both kernels wrap around, 66 codes and more | refuses |
| SOFTMAX | input scale 2^-26 and below | the process ends (abort) | refuses |
| SOFTMAX | over 512 nearly equal elements | the reference kernel ends the process (abort) | says so |
| BATCH_MATMUL | second operand with a zero point | XNNPACK leaves it out, up to 255 codes | refuses |
| QUANTIZE | 2^24 | both wrap around | refuses from 2^20 |
| BATCH_MATMUL, LEAKY_RELU, MEAN, PRELU | beyond 2^20 | the result wraps around | refuses from 2^20 |
| ADD, SUB, MUL, SOFTMAX behind a RESHAPE | what the RESHAPE read, or one before it, is still to be read | the \
reference kernels write over it | reads what the row began with, or a copy (bridge/exact/shared_memory.py) |
| CONV_2D, DEPTHWISE_CONV_2D, SAME | windows that end before the input does | XNNPACK: up to 127 codes | PAD and VALID |
| TRANSPOSE_CONV, SAME | fewer outputs than one stride | XNNPACK: segmentation fault | VALID and SLICE |
| RELU6, RELU_N1_TO_1 | 6, or 1, is 2^30 output steps and more | as an activation, the kernel does not prepare; else up to 129 codes | RELU, or nothing: the same there |
| most operators | more than 4 to 6 axes | wrong numbers, or the file does not load, or the process ends | merges \
axes, else refuses (bridge/exact/ranks.py) |
| FULLY_CONNECTED, BATCH_MATMUL | a vector | a result of another shape, or none | RESHAPE; refuses for products |

The bounds in full, operator by operator: [operators.md](operators.md).

Not drawn, because the reference is wrong or open: pools with auto_pad SAME and gaps between their windows (ONNX
Runtime shifts them), auto_pad SAME with ceil_mode, AveragePool with count_include_pad of opset 19 and later (ONNX
Runtime 1.23 is up to 0.5 off a plain mean over the padded input where the axes' pads differ) and with ceil_mode.

## Figures

"""


def page(figures: Figures, first: int, seconds: float) -> str:
    """The figures as Markdown."""
    lines = [
        (
            f"{figures.graphs:,} graphs (seeds from {first}), {sum(figures.kinds.values()):,} ONNX operators, "
            f"{sum(figures.operators.values()) // 2:,} TFLite operators on two kernel sets, {seconds:,.0f} s, "
            f"{len(figures.findings)} findings, {sum(figures.refusals.values())} refused for a listed reason."
        ),
        "",
        "| TFLite operator | kernels | operators | values | equal | worst (LSB) |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (op, kernels), histogram in sorted(figures.histograms.items()):
        values = sum(histogram.values())
        equal = histogram[0] / max(values, 1)
        lines.append(
            f"| {op} | {kernels} | {figures.operators[op, kernels]:,} | {values:,} | {equal:.3%} | {max(histogram)} |"
        )
    lines += ["", "| drawn from | times |", "|---|---:|"]
    lines += [f"| {kind} | {count:,} |" for kind, count in sorted(figures.kinds.items())]
    lines += ["", "| refused because | times |", "|---|---:|"]
    lines += [f"| {reason} | {count} |" for reason, count in figures.refusals.most_common()]
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
