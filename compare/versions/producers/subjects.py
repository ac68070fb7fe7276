"""The networks that all producers quantize, written down for them: weights, a float ONNX file, samples."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CALIBRATION, SAMPLES = 32, 64
_SEED = 0


@dataclass(frozen=True)
class Subject:
    """One network's files in a folder of its own."""

    name: str
    folder: Path

    def arguments(self) -> dict[str, str]:
        """What recipes.py calls `Given`, whole paths."""
        return {
            "network": self.name,
            "onnx": str(self.folder / "float.onnx"),
            "weights": str(self.folder / "weights.npz"),
            "calibration": str(self.folder / "calibration.npz"),
            "inputs": str(self.folder / "inputs.npz"),
        }

    def samples(self, which: str) -> np.ndarray:
        """float32 (N, ...): `calibration` or `inputs`."""
        with np.load(self.folder / f"{which}.npz") as stored:
            array: np.ndarray = stored["input"]
        return array


def written(folder: Path) -> tuple[Subject, ...]:
    """Every network with drawn weights and batch norms, and normal samples: nothing is trained, and nothing needs to be.

    What is measured is how far a converter's file is from what the producer decided, whatever that was.
    """
    import torch

    from compare.toolchains.producers.networks import NETWORKS

    made = []
    for name, (build, shape) in NETWORKS.items():
        subject = Subject(name, (folder / name).resolve())
        subject.folder.mkdir(parents=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            network = build().eval()
            for module in network.modules():
                if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                    _draw(module)
        np.savez(subject.folder / "weights.npz", **{key: each.numpy() for key, each in network.state_dict().items()})
        random = np.random.default_rng(_SEED)
        for which, count in (("calibration", CALIBRATION), ("inputs", SAMPLES)):
            drawn = random.standard_normal((count, *shape[1:])).astype(np.float32)
            np.savez(subject.folder / f"{which}.npz", input=drawn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, (torch.zeros(shape),), str(subject.folder / "float.onnx"),
                input_names=["input"], output_names=["output"], opset_version=13, dynamo=False,
            )  # fmt: skip
        made.append(subject)
    return tuple(made)


def _draw(norm: object) -> None:
    import torch

    assert isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d))  # noqa: S101 - the caller has looked
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101 - both are tracked
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 1.5)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.3)
