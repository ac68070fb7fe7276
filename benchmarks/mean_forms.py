"""Averages without a trained scale, computed in each form: equal outputs, size, time, NPUs.

    python -m benchmarks.mean_forms                                a small network, trained on the embedded digits
    python -m benchmarks.mean_forms --network resnet18             and an architecture of torchvision, untrained
    python -m benchmarks.mean_forms --target imx8mp --target tflm  where the operators run

The reference is the frozen fake-quant model, its biases on the int32 grid. Writes a Markdown table to standard output.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import typer
from torch import nn
from torch.ao import quantization as tq

from bridge.errors import BridgeError
from bridge.exact.convert import Conversion, Options, convert
from bridge.exact.passes.merge import MeanForm
from bridge.verifying.litert import Runner
from bridge.verifying.verification import compare_outputs
from compare.npu import judge, targets
from compare.subjects.mnist import dataset
from torch_side import architectures, bias_grid, export
from torch_side.qconfigs import qconfig_named

IMAGES = 500
SIZE = 96
ROUNDS = 200


class Pooled(nn.Module):
    """Three convolutions of stride 2, a global average, a dense layer: what a small classifier looks like."""

    def __init__(self, channels: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        layers: list[nn.Module] = []
        for before, after in zip((1, *channels), channels, strict=False):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
            layers.append(nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU()))
        self.features, self.pool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1)
        self.classes = nn.Linear(channels[-1], 10)

    def forward(self, x: torch.Tensor) -> Any:
        return self.dequant(self.classes(self.pool(self.features(self.quant(x))).flatten(1)))


@dataclass(frozen=True)
class Subject:
    """A frozen model, its ONNX file, images, and what the model says."""

    name: str
    onnx: Path
    images: np.ndarray
    said: np.ndarray


def trained(qconfig: str, folder: Path) -> Subject:
    """`Pooled` after two epochs on the embedded digits, the second with fake-quant."""
    digits = dataset.load_sample()
    torch.manual_seed(0)
    model = Pooled().train()
    _train(model, digits)
    for block in model.features:
        tq.fuse_modules_qat(block, [["0", "1", "2"]], inplace=True)
    model.qconfig = qconfig_named(qconfig).build()  # type: ignore[assignment]
    prepared = tq.prepare_qat(model)
    _train(prepared, digits)
    images = (digits.test_images[:IMAGES, np.newaxis] / 255.0).astype(np.float32)
    return _subject(f"3 convolutions, digits, {qconfig}", prepared.apply(tq.disable_observer).eval(), images, folder)


def _train(model: nn.Module, digits: dataset.Dataset) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images = torch.from_numpy(digits.train_images[:, np.newaxis] / 255.0).float()
    labels = torch.from_numpy(digits.train_labels.astype(np.int64))
    for some in torch.randperm(len(images)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[some]), labels[some]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def of_torchvision(name: str, qconfig: str, folder: Path) -> Subject:
    """One of `architectures.ARCHITECTURES`, with random weights and settled statistics."""
    model = architectures.build_trained_looking(name, qconfig, size=SIZE)
    return _subject(f"{name}, {qconfig}", model, architectures.natural_images(32, SIZE, seed=1).numpy(), folder)


def _subject(name: str, model: nn.Module, images: np.ndarray, folder: Path) -> Subject:
    frozen = export.freeze(model)
    bias_grid.round_frozen(frozen, (images[:1],))
    with torch.no_grad():
        said = np.concatenate([frozen(torch.from_numpy(image[None])).numpy() for image in images])
    path = folder / f"{name.replace(' ', '_')}.onnx"
    export.export_onnx(frozen, images[:1], path)
    return Subject(name, path, images, said)


def rows(subject: Subject, targets: list[str]) -> Iterator[str]:
    """A line of the table for each form."""
    for form in get_args(MeanForm):
        conversion = convert(subject.onnx, Options(mean=form))
        given = {conversion.graph.inputs[0]: subject.images}
        found = compare_outputs(conversion.graph, conversion.tflite, given, [subject.said])
        shown = []
        for kernels in ("xnnpack", "reference"):
            (distance,) = found[kernels].values()
            shown.append(f"{distance.equal:.2%}, {distance.worst}, {distance.argmax_changed}")
        operators = ", ".join(f"{op} {count}" for op, count in conversion.operators_out.items() if op in _SHOWN)
        verdicts = "; ".join(_placed(conversion, each) for each in targets)
        yield (
            f"| {subject.name} | {form} | {len(conversion.tflite) / 1024:,.1f} KB | {' | '.join(shown)} "
            f"| {_microseconds(conversion):,.0f} us | {operators} | {verdicts} |"
        )


_SHOWN = ("MEAN", "FULLY_CONNECTED", "CONV_2D", "RESHAPE")


def _placed(conversion: Conversion, target: str) -> str:
    try:
        (verdict,) = judge(conversion.tflite, "file", (target,))
    except BridgeError as error:
        return f"{target}: {error.problem}"
    slow = [each.op for each in verdict.operators if each.placement != "npu-fast"]
    estimate = verdict.estimate
    cycles = f", {estimate.cycles:,} cycles" if estimate is not None and estimate.cycles is not None else ""
    return f"{target}: {verdict.count('npu-fast')} of {len(verdict.operators)} fast{cycles}{', not ' + ', '.join(sorted(set(slow))) if slow else ''}"


def _microseconds(conversion: Conversion) -> float:
    """The fastest of several runs on XNNPACK, one thread."""
    runner = Runner(conversion.tflite, "xnnpack")
    zeros = {name: np.zeros(conversion.graph.tensors[name].shape, np.int8) for name in conversion.graph.inputs}
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        runner(zeros)
        best = min(best, time.perf_counter() - started)
    return best * 1e6


def main(
    network: Annotated[list[str] | None, typer.Option(help="An architecture of torchvision, too.")] = None,
    qconfig: Annotated[list[str] | None, typer.Option(help="tflite, qnnpack and fbgemm without.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="An NPU; without, all that need no compiler.")] = None,
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| network | form | file | XNNPACK: equal, LSB, classes | reference kernels | time | operators | NPUs |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in qconfig or ["tflite", "qnnpack", "fbgemm"]:
            subjects = [trained(name, Path(folder))]
            subjects += [of_torchvision(each, name, Path(folder)) for each in network or ()]
            for subject in subjects:
                for line in rows(subject, target or [each.id for each in targets() if each.basis != "compiled"]):
                    print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
