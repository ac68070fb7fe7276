"""Three networks that are not ours, for the laboratory's commands: python -m benchmarks.laboratory FOLDER writes their samples.

    python -m compare.run --model benchmarks.laboratory:mobilenet --inputs FOLDER/mobilenet.npz
    python -m compare.run --model benchmarks.laboratory:keywords --inputs FOLDER/keywords.npz
    python -m compare.run --model FOLDER/unlabelled.onnx --inputs FOLDER/unlabelled.npz

torchvision's MobileNetV2 with QAT on MNIST's digits, a 1-D keyword spotter with PT2E's QAT on drawn spectra, and a CNN that
ONNX Runtime quantized, without labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import bridge
from benchmarks.prepared import digits
from torch_side.training import expected_warnings
from torch_side.vision import import_torchvision

SAMPLES, STEPS, BATCH, CLASSES = 128, 480, 32, 6


def mobilenet() -> nn.Module:
    """MobileNetV2, half as wide, QAT by bridge.prepare on digits of 64 x 64 pixels."""
    torch.manual_seed(0)
    images, labels = digits()
    images, labels = images[:-64], labels[:-64]
    with expected_warnings():
        model = bridge.prepare(import_torchvision().models.mobilenet_v2(num_classes=10, width_mult=0.5), images[:1])
        _fit(model, images, labels, freeze=True)
    return model.eval()


def spectra(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 (count, 20, 64): a ridge that rises or falls over time, in noise; and which of six slopes it has."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    bands, times = np.arange(20)[:, None], np.arange(64)[None]
    slopes = np.linspace(-0.25, 0.25, CLASSES)[labels][:, None, None]
    ridge = np.exp(-0.5 * (bands - 10 - slopes * (times - 32)) ** 2)
    return (ridge + 0.3 * random.standard_normal(ridge.shape)).astype(np.float32), labels


class Keywords(nn.Module):
    """Convolutions over time, as small keyword spotters are built."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(20, 24, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(24, 24, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(24, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, CLASSES),
        )  # fmt: skip

    def forward(self, spectrum: torch.Tensor) -> Any:
        return self.layers(spectrum)


def keywords() -> Any:
    """The keyword spotter, QAT by torchao's PT2E, as a prepared program."""
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    torch.manual_seed(0)
    data, labels = map(torch.from_numpy, spectra(0, STEPS * BATCH))
    program = torch.export.export(
        Keywords(), (data[:BATCH],), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
    ).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=True))
    prepared = prepare_qat_pt2e(program, quantizer)
    _fit(prepared, data, labels, freeze=False)
    converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    return converted


def _fit(model: Any, data: torch.Tensor, labels: torch.Tensor, *, freeze: bool) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        if freeze and step == STEPS * 3 // 4:
            bridge.freeze_observers(model)
        start = step * BATCH % (len(data) - BATCH)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[start : start + BATCH]), labels[start : start + BATCH]).backward()
        optimizer.step()


def unlabelled(folder: Path) -> None:
    """A CNN with a residual sum, exported in float and quantized by ONNX Runtime, static QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from compare.toolchains.producers.networks import Pictures

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, images: np.ndarray) -> None:
            self.rest = iter(images)

        def get_next(self) -> Any:
            image = next(self.rest, None)
            return None if image is None else {"input": image[None]}

    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 32, 32)).astype(np.float32)
    torch.onnx.export(
        Pictures().eval(),
        (torch.from_numpy(images[:1]),),
        folder / "float.onnx",
        opset_version=17,
        dynamo=False,
        input_names=["input"],
    )
    quantize_static(
        folder / "float.onnx",
        folder / "unlabelled.onnx",
        Reader(images[:32]),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
    )
    np.savez(folder / "unlabelled.npz", input=images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the samples are written")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits()
    np.savez(folder / "mobilenet.npz", x=images[-64:].numpy(), labels=labels[-64:].numpy())
    data, classes = spectra(1, SAMPLES)
    np.savez(folder / "keywords.npz", spectrum=data, labels=classes)
    unlabelled(folder)


if __name__ == "__main__":
    main()
