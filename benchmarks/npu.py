"""The exact bridge's files on every NPU target: the twelve architectures of torchvision, and the MNIST matrix of a run.

    python -m benchmarks.npu RUN_FOLDER > docs/npu.md      a folder that `make run ARGS="--target all"` wrote
    python -m benchmarks.npu --only resnet18               one architecture only

Writes the page to standard output. For Ethos-U it also holds our placement against Vela's own summary of the file as it
is, operator for operator.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from compare.npu import TargetVerdict, judge, targets
from compare.npu.ethos_u import Compiler
from compare.npu.placing import placement_record
from compare.report.pages.run import placement
from compare.report.records.run import PlacementRecord, from_json
from compare.toolchains.environments import cache_folder, ensure
from torch_side import architectures, export

SIZE = 96
QCONFIGS = ("tflite_per_tensor", "tflite")
TODAY = Compiler("5.2.0", "ethos-u65-256")


def converted(name: str, qconfig: str) -> bytes:
    """An architecture, trained-looking, through the exact bridge."""
    model = architectures.build_trained_looking(name, qconfig, size=SIZE)
    images = architectures.natural_images(1, SIZE, seed=1).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.export_onnx(export.freeze(model), images, path)
        return convert(path).tflite


def agreement(content: bytes, verdict: TargetVerdict, cache: Path) -> tuple[int, int]:
    """(operators of Vela's output file that are not ethos-u, our fallbacks) for the file with its own tensor names."""
    python = ensure(TODAY.environment, cache)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.tflite"
        source.write_bytes(content)
        command = [str(python), "-I", "-m", "ethosu.vela", str(source), "--accelerator-config", TODAY.accelerator]
        done = subprocess.run(  # noqa: S603 - the environment's own Vela
            [*command, "--output-dir", folder], capture_output=True, text=True, check=True, timeout=600
        )
    said = re.search(r"CPU operators = (\d+)", done.stdout)
    return (int(said[1]) if said else 0), verdict.count("cpu-fallback", "fails")


def _verdicts(content: bytes, cache: Path) -> Iterator[tuple[str, TargetVerdict]]:
    for each in targets():
        try:
            yield each.id, judge(content, "file", (each.id,), cache)[0]
        except BridgeError as error:
            print(error, file=sys.stderr)


def rows(names: Sequence[str], cache: Path) -> Iterator[str]:
    """One line for each architecture and qconfig: a cell for each target, and the comparison with Vela's own count."""
    ids = [each.id for each in targets()]
    yield f"| architecture | qconfig | operators | {' | '.join(ids)} | imx93: estimate | CPU operators: Vela's, ours |"
    yield f"| --- | --- | ---: | {' | '.join('---' for _ in ids)} | ---: | --- |"
    for name in names:
        for qconfig in QCONFIGS:
            try:
                content = converted(name, qconfig)
            except BridgeError as error:
                yield f"| {name} | {qconfig} | {str(error).splitlines()[0]} |"
                continue
            verdicts = dict(_verdicts(content, cache))
            cells = [
                placement.cell(placement_record(verdicts[identity])) if identity in verdicts else "no answer in time"
                for identity in ids
            ]
            estimate = verdicts["imx93"].estimate
            seconds = (
                ""
                if estimate is None or not estimate.inference_seconds
                else f"{estimate.inference_seconds * 1e3:.2f} ms"
            )
            counts = agreement(content, verdicts["imx93"], cache)
            yield (
                f"| {name} | {qconfig} | {len(verdicts['imx93'].operators)} | {' | '.join(cells)} | {seconds} | "
                f"{counts[0]}, {counts[1]} |"
            )
            print(f"{time.strftime('%H:%M:%S')} {name} {qconfig}", file=sys.stderr, flush=True)


def matrix(folder: Path) -> Iterator[str]:
    """The routes of a run: how many files are all fast, and the mean share of multiply-accumulates."""
    record = from_json((folder / "report.json").read_text())
    ids = placement.targets(record)
    found = {
        (route, target): f"{fast}/{count}, {share:.0%}" for route, target, fast, count, share in placement.sums(record)
    }
    yield f"| route | {' | '.join(ids)} |"
    yield f"| --- | {' | '.join('---' for _ in ids)} |"
    for route in dict.fromkeys(route for route, _ in found):
        yield f"| {route} | {' | '.join(found.get((route, target), '') for target in ids)} |"


COMPARED = ("torch-exact", "torch-fake-quant", "torch-onnx2tf")
INSTALLED = """\
## What is installed for it

Vela 5.2.0, Vela 3.10.0 and TensorFlow Lite for Microcontrollers are installed into environments of their own, from locks
with the hash of every file (`compare/npu/locks`, one for each Python that the project runs on), as
[versions.md](versions.md) describes. Vela 3.10.0 has no wheel: its source is held against its hash, and is built here with
the system's C compiler and the setuptools, setuptools_scm and NumPy of the lock, nothing else. The result of that build has
no hash.
"""

ESTIMATED = """## Estimated times, route against route

Vela's estimates for the same network, with crossings between NPU and CPU where there are any. Vela leaves out what runs on
the CPU: a time beside crossings is not the whole. The exact bridge is slower in two places: on the U85, where weight codes
of -128 (`qnnpack`, `fbgemm`, `x86`) cost 15 %: the control turns them into -127, which is another model; train with
`tflite` or `symmetric`, which have none. And on Vela 3.10.0 per-channel dense layers fall back: `--per-channel-dense conv`
(the row `qat-tflite/conv`).
"""


def estimates(folder: Path) -> Iterator[str]:
    """A row for each network that several routes convert: estimated microseconds and crossings on each Ethos-U."""
    record = from_json((folder / "report.json").read_text())
    found = {a.id: {each.target: each for each in a.placements} for a in record.artifacts}
    ids = [each for each in placement.targets(record) if each.startswith(("ethos", "imx93"))]
    yield f"| network | route | {' | '.join(ids)} |"
    yield f"| --- | --- | {' | '.join('---:' for _ in ids)} |"
    names = [identity.partition("/")[2] for identity in found if identity.startswith("torch-exact/")]
    for name in names:
        for route in COMPARED:
            placements = found.get(f"{route}/{name}")
            if placements:
                yield f"| {name} | {route} | {' | '.join(_estimate(placements[target]) for target in ids)} |"


def _estimate(found: PlacementRecord) -> str:
    time_ = "" if found.inference_seconds is None else f"{found.inference_seconds * 1e6:.1f} us"
    return time_ + (f", {found.crossings} crossings" if found.crossings else "")


def counted(folder: Path, cache: Path) -> str:
    """Over a run's files: on how many Vela's own count of CPU operators is ours, and the operators in them."""
    record = from_json((folder / "report.json").read_text())
    files = [(folder / each.file).read_bytes() for each in record.artifacts if each.file is not None]
    same = operators = 0
    for content in dict.fromkeys(files):
        (verdict,) = judge(content, "file", ("imx93",), cache)
        theirs, ours = agreement(content, verdict, cache)
        same += theirs == ours
        operators += len(verdict.operators)
    total = len(dict.fromkeys(files))
    return (
        f"Vela 5.2.0's own summary of the same files, with their own tensor names, counts the operators left to the CPU as we "
        f"do in {same} of {total} different files ({operators} operators)."
    )


def main(
    run: Annotated[Path | None, typer.Argument(help="A report's folder.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Architecture; all without.")] = None,
) -> None:
    """Print the page."""
    torch.set_num_threads(1)
    print("# On the NPUs\n\n<!-- Written by benchmarks/npu.py. -->\n")
    print(placement.EXPLAINED + "\n")
    print(INSTALLED)
    if run is not None:
        print(
            "## The MNIST matrix\n\nFiles that are fast entirely, of all, and the mean share of multiply-accumulates.\n"
        )
        print("\n".join(matrix(run)) + "\n")
        print(counted(run, cache_folder()) + "\n")
        print(ESTIMATED)
        print("\n".join(estimates(run)) + "\n")
    print(f"## The architectures of torchvision, {SIZE} x {SIZE}, by the exact bridge\n")
    for line in rows(only or list(architectures.ARCHITECTURES), cache_folder()):
        print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
