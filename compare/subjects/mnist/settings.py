"""How long and on what the networks are trained: the presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Init = Literal["torch", "keras", "separate"]
PresetName = Literal["default", "article", "quick"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides a trained network besides the images; part of its cache address.

    `validation_split` is held out of both trainings, as Keras does it: the last images, never shuffled in.
    `qat_images` limits QAT to the first images; None takes them all.
    `freeze_observers_at` is the QAT epoch, counted from 0, from which PyTorch's ranges stay put; None: never.
    """

    seed: int
    init: Init
    float_epochs: int
    float_batch: int
    float_learning_rate: float
    validation_split: float
    qat_epochs: int
    qat_batch: int
    qat_learning_rate: float
    qat_images: int | None
    freeze_observers_at: int | None
    float_images: int | None = None

    def record(self) -> dict[str, str | int | float]:
        """The settings as a report shows them."""
        return {name: "all" if value is None else value for name, value in asdict(self).items()}


_DEFAULT: dict[str, object] = {
    "float_epochs": 6,
    "float_batch": 64,
    "float_learning_rate": 5e-3,
    "validation_split": 0.0,
    "qat_epochs": 3,
    "qat_batch": 32,
    "qat_learning_rate": 3e-4,
    "qat_images": None,
    "freeze_observers_at": 2,
}

PRESETS: dict[PresetName, dict[str, object]] = {
    "default": _DEFAULT,
    # The article's steps 1 and 3. Nothing is frozen: one epoch leaves no later one to train against frozen ranges.
    "article": _DEFAULT
    | {
        "float_epochs": 1,
        "float_batch": 32,
        "float_learning_rate": 1e-3,
        "validation_split": 0.1,
        "qat_epochs": 1,
        "qat_batch": 500,
        "qat_learning_rate": 1e-3,
        "qat_images": 1000,
        "freeze_observers_at": None,
    },
    "quick": _DEFAULT | {"float_epochs": 2, "qat_epochs": 1, "qat_images": 2000, "freeze_observers_at": None},
}


def preset(name: PresetName, *, seed: int, init: Init) -> Settings:
    """The settings of a preset, from this seed and this start."""
    return Settings(seed=seed, init=init, **PRESETS[name])  # type: ignore[arg-type] # checked when built, by name
