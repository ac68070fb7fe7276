"""The twelve architectures of torchvision.models.quantization through the exact bridge, held against PyTorch's engine.

    python -m benchmarks.architectures                    every architecture, qnnpack and fbgemm; about an hour
    python -m benchmarks.architectures --only resnet18    one of them

Writes a Markdown table to standard output, and each line as it is measured to standard error.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bridge.exact.convert import Conversion, convert
from bridge.verifying.operators import OperatorDistance
from bridge.verifying.verification import compare_outputs, verify
from torch_side import architectures, bias_grid, export, training

SIZE = 96
IMAGES = 64
ALONE = 4
"""Images for the operators on their own; each operator is a model of its own there, on two kernel sets."""


@dataclass(frozen=True)
class Row:
    """One architecture and qconfig: the whole model against the engine, every operator against ONNX Runtime."""

    name: str
    qconfig: str
    seconds: float
    operators: int
    as_it_is: str
    rounded: str
    reference: str
    alone: str


def rows(names: list[str], qconfigs: list[str]) -> Iterator[Row]:
    """Build, convert and measure each; the engine once as PyTorch leaves it, once with its biases on the int32 grid."""
    for name in names:
        images = architectures.natural_images(IMAGES, SIZE, seed=1).numpy()
        for qconfig in qconfigs:
            qat = architectures.build_trained_looking(name, qconfig, size=SIZE)
            engine = training.to_int8_engine(qat, qconfig)
            example = images[:1]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                export.export_onnx(engine, example, path)
                conversion = convert(path)
                alone = verify(path, conversion.graph, conversion.tflite, {"input": images[:ALONE]}).operators
            as_it_is = _distances(conversion, images, engine)
            bias_grid.round_engine(engine, (example,))
            rounded = _distances(conversion, images, engine)
            yield Row(
                name,
                qconfig,
                conversion.seconds,
                sum(conversion.operators_out.values()),
                _shown(as_it_is["xnnpack"]),
                _shown(rounded["xnnpack"]),
                _shown(rounded["reference"]),
                _worst(alone),
            )


def _distances(conversion: Conversion, images: np.ndarray, engine: Any) -> dict[str, Any]:
    with torch.no_grad():
        logits = np.concatenate([engine(torch.from_numpy(image[None])).numpy() for image in images])
    found = compare_outputs(conversion.graph, conversion.tflite, {"input": images}, [logits])
    return {kernels: outputs["logits"] for kernels, outputs in found.items()}


def _shown(distance: Any) -> str:
    margin = f" (within {distance.margin})" if distance.argmax_changed else ""
    return f"{distance.equal:.2%}, {distance.worst}, {distance.argmax_changed}{margin}"


def _worst(alone: tuple[OperatorDistance, ...]) -> str:
    """The largest distance of any operator, and which kinds differ most on each kernel set."""
    found = []
    for kernels in ("xnnpack", "reference"):
        mine = [item for item in alone if item.kernels == kernels]
        lowest: dict[str, float] = {}
        for item in mine:
            lowest[item.op] = min(lowest.get(item.op, 1.0), item.distance.equal)
        named = ", ".join(f"{op} {equal:.2%}" for op, equal in sorted(lowest.items(), key=lambda pair: pair[1])[:2])
        found.append(f"{kernels} {max(item.distance.worst for item in mine)} ({named})")
    return "; ".join(found)


def main(
    only: Annotated[list[str] | None, typer.Option(help="Architecture; all without.")] = None,
    qconfig: Annotated[list[str] | None, typer.Option(help="qconfig; qnnpack and fbgemm without.")] = None,
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(
        "| architecture | qconfig | operators | conversion | engine as PyTorch leaves it | engine, biases on the grid | the same, reference kernels | operators alone: worst LSB (lowest share equal) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(only or list(architectures.ARCHITECTURES), qconfig or ["qnnpack", "fbgemm"]):
        print(
            f"| {row.name} | {row.qconfig} | {row.operators} | {row.seconds:.2f} s | {row.as_it_is} | {row.rounded} "
            f"| {row.reference} | {row.alone} |",
            flush=True,
        )
        print(f"{time.strftime('%H:%M:%S')} {row.name} {row.qconfig}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
