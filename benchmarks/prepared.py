"""Networks of torchvision through bridge.prepare, a short training and bridge.convert: python -m benchmarks.prepared --write docs/prepared.md.

Trained on MNIST's digits at 64 x 64 pixels, observers frozen for the last quarter; the file is held against the trained
fake-quant model in eval mode, on digits that it was not trained on.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

import bridge
from bridge.exact.convert import Conversion
from compare.subjects.mnist.dataset import load
from torch_side.training import expected_warnings
from torch_side.vision import import_torchvision

NAMES = (
    "resnet18", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5",
    "efficientnet_b0", "regnet_y_400mf", "googlenet", "densenet121", "timm:mobilenetv3_rw", "timm:lcnet_050",
    "timm:tinynet_e", "timm:mobileone_s0", "timm:regnetx_002", "timm:repvgg_a0", "timm:ghostnet_050", "shufflenet_v2_x1_0",
    "mobilenet_v3_large", "resnet34",
)  # fmt: skip
"""Of torchvision, and of timm where that is installed (pip install timm)."""
STEPS, BATCH, SAMPLES = 60, 32, 64
STIRRED, HALF = 1e-3, 0.5
DECIDED = ("inherited", "derived", "float", "unquantized")
"""Kinds of notes that say that training did not decide a scale; a constant's own, which moves nothing, is none."""

HEAD = """# Prepared, trained, converted

Written by `python -m benchmarks.prepared --write docs/prepared.md` with torch {torch}. Each network of torchvision
and timm, {classes} classes, went through `bridge.prepare`, {steps} steps of training on MNIST's digits (64 x 64 pixels, batches of {batch}, observers
frozen for the last quarter) and `bridge.convert`. The file is held against the trained model in eval mode on {samples} digits
it was not trained on: outputs that are equal, the worst distance in steps of the output's scale, classes that changed.

In eval mode the layers of a prepared model add up whole numbers, as int8 kernels do (`torch_side/int32_sums.py`).

*Undecided scales* are those that training did not decide and that can move a value.

*Against itself* is the network: the trained model on the same digits with one input code in 1,000
moved by one. Where that alone changes as many outputs, the network itself decides no better. What starts it is
the kernels' own rounding of what is no layer: of a HARD_SWISH alone XNNPACK rounds up to 3 % of the codes the other way
(tests/torch_side/test_prepare.py), and mobilenetv3_rw and lcnet_050 have one behind every layer.

| network | operators | XNNPACK | classes changed | reference kernels | against itself | undecided scales |
|---|---:|---|---:|---|---|---:|
"""


def trained(name: str, images: torch.Tensor, labels: torch.Tensor) -> Any:
    """The network after its training, in eval mode."""
    torch.manual_seed(0)
    prepared = bridge.prepare(_network(name), images[:1])
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01, momentum=0.9)
    for step in range(STEPS):
        if step == STEPS * 3 // 4:
            bridge.freeze_observers(prepared)
        chosen = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        nn.functional.cross_entropy(prepared(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return prepared.eval()


def _network(name: str) -> nn.Module:
    package, _, of_timm = name.partition(":")
    models: Any = import_torchvision().models
    made: nn.Module
    if package == "timm":
        import timm

        made = timm.create_model(of_timm, num_classes=10)
    else:
        options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
        made = getattr(models, name)(num_classes=10, **options)
    return made


def row(name: str, model: Any, conversion: Conversion, images: np.ndarray) -> str:
    """One line of the page."""
    found = bridge.verify(model, conversion, images)
    (fast,), (plain,) = (list(found[kernels].values()) for kernels in ("xnnpack", "reference"))
    codes = conversion.graph.tensors[conversion.graph.inputs[0]].q
    moved = np.random.default_rng(0).random(images.shape) < STIRRED
    with torch.no_grad():
        outputs = [model(torch.from_numpy(each)) for each in (images, images + moved * codes.scale.astype(np.float32))]
    steps = (outputs[0] - outputs[1]).abs() / float(conversion.graph.tensors[conversion.graph.outputs[0]].q.scale)
    itself = f"{100 * float((steps < HALF).float().mean()):.2f} %, {round(float(steps.max()))} LSB"
    undecided = sum(note.kind in DECIDED and note.lsb != 0.0 for note in conversion.notes)
    return (
        f"| {name} | {sum(conversion.operators_out.values())} | {100 * fast.equal:.2f} %, {fast.worst} LSB | "
        f"{fast.argmax_changed} of {len(images)} | {100 * plain.equal:.2f} %, {plain.worst} LSB | {itself} | {undecided} |"
    )


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (N, 3, 64, 64) and the labels of the sample that comes with the package."""
    data = load(None)
    images = torch.from_numpy(data.train_images[: STEPS * BATCH + SAMPLES].astype(np.float32) / 255)[:, None]
    larger = nn.functional.interpolate(images, size=(64, 64), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    return larger, torch.from_numpy(data.train_labels[: STEPS * BATCH + SAMPLES].astype(np.int64))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--only", nargs="*", default=NAMES, help="these networks")
    options = parser.parse_args(arguments)
    images, labels = digits()
    lines = []
    with TemporaryDirectory() as folder, expected_warnings(), warnings.catch_warnings():
        warnings.simplefilter("ignore", bridge.ConversionWarning)
        for name in options.only:
            try:
                model = trained(name, images, labels)
                conversion = bridge.convert(model, images[:1], Path(folder) / "model.tflite")
            except bridge.BridgeError as error:
                lines.append(f"| {name} | refused: {error.where} {error.problem} | | | | | |")
            else:
                lines.append(row(name, model, conversion, images[-SAMPLES:].numpy()))
            print(lines[-1], flush=True)
    if options.write:
        version = torch.__version__.split("+")[0]
        head = HEAD.format(torch=version, classes=10, steps=STEPS, batch=BATCH, samples=SAMPLES)
        options.write.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
