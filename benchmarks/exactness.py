"""The MNIST networks through the exact bridge, every logit of the test set held against its reference.

    python -m benchmarks.exactness --data FOLDER      MNIST's IDX files, gzipped or not

Trains (or takes from the cache) one network for each qconfig with the settings of `python -m compare.run`, converts
every form it has, and prints a Markdown table; about four minutes for 10,000 test images on two cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bridge.exact.convert import Conversion, convert
from bridge.verifying import onnx_runtime
from bridge.verifying.verification import compare_outputs
from compare.subjects.mnist.dataset import Dataset, load
from compare.subjects.mnist.networks import NETWORKS, Job, NetworkSpec, TrainedNetwork, train
from compare.subjects.mnist.settings import Settings, preset
from compare.toolchains.environments import cache_folder

EXAMPLE = np.zeros((1, 1, 28, 28), np.float32)


@dataclass(frozen=True, eq=False)
class Reference:
    """Logits to compare with, and whose they are."""

    name: str
    logits: np.ndarray


def trained(data: Dataset, settings: Settings, folder: Path) -> Iterator[TrainedNetwork]:
    """The QAT networks, each from the same float network."""

    def make(spec: NetworkSpec, start: Any) -> TrainedNetwork:
        return train(Job(spec, settings, cache_folder() / "networks", False, folder, "torchscript"), data, start)

    torch_specs = [spec for spec in NETWORKS if spec.framework == "torch"]
    start = make(next(spec for spec in torch_specs if spec.kind == "float"), None).arrays
    for spec in torch_specs:
        if spec.kind == "qat":
            yield make(spec, start)


def references(network: TrainedNetwork, form: str, data: Dataset, settings: Settings) -> Iterator[Reference]:
    """What to hold a form against, the strictest first."""
    if form == "int8":
        assert network.int8_logits is not None  # noqa: S101 - there is no int8 form without an engine
        yield Reference(f"engine {network.int8_engine}", network.int8_logits)
        yield Reference(f"engine {network.int8_engine}, biases on the grid", _rounded_engine(network, data, settings))
    else:
        yield Reference("ONNX Runtime", _onnx_runtime(network.onnx[form], data))
        yield Reference("fake-quant model", network.logits)


def _rounded_engine(network: TrainedNetwork, data: Dataset, settings: Settings) -> np.ndarray:
    from torch_side import bias_grid, training
    from torch_side.network import build_network

    prepared = training.prepare_for_qat(build_network(settings.seed), network.spec.variant)
    training.restore(prepared, network.arrays)
    engine = training.to_int8_engine(prepared, network.spec.variant)
    bias_grid.round_engine(engine, (EXAMPLE,))
    return training.predict(engine, data.test_images)


def _onnx_runtime(path: Path, data: Dataset) -> np.ndarray:
    (logits,) = onnx_runtime.outputs(onnx_runtime.session(path), {"input": _pixels(data)})
    return logits


def _pixels(data: Dataset) -> np.ndarray:
    """float32 (N, 1, 28, 28) in 0..1."""
    return (data.test_images.astype(np.float32) / np.float32(255))[:, None]


def lines(network: TrainedNetwork, data: Dataset, settings: Settings) -> Iterator[str]:
    """A row of the table for each form and reference."""
    for form in ("int8", "qdq"):
        if form not in network.onnx:
            continue
        conversion = convert(network.onnx[form])
        for reference in references(network, form, data, settings):
            found = compare_outputs(conversion.graph, conversion.tflite, {"input": _pixels(data)}, [reference.logits])
            cells = [_cell(found[kernels]["logits"]) for kernels in ("xnnpack", "reference")]
            yield f"| {network.spec.variant} | {form} | {reference.name} | {cells[0]} | {cells[1]} | {_operators(conversion)} |"


def _cell(distance: Any) -> str:
    return f"{distance.equal:.3%}, {distance.worst} LSB, {distance.argmax_changed}"


def _operators(conversion: Conversion) -> str:
    usual = {"CONV_2D": 1, "MAX_POOL_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}
    more = {op: count for op, count in conversion.operators_out.items() if usual.get(op) != count}
    return "the four" + "".join(f" + {op}" for op in more)


def main(
    data: Annotated[str | None, typer.Option(help="Folder of IDX files; the embedded sample without.")] = None,
) -> None:
    """Print the table."""
    dataset, settings = load(data), preset("default", seed=0, init="torch")
    print(f"{len(dataset.test_images):,} test images; equal logits, largest distance, changed classes")
    print("| qconfig | form | reference | XNNPACK | reference kernels | operators |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for network in trained(dataset, settings, Path(folder)):
            for line in lines(network, dataset, settings):
                print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
