"""What a route is: a named way from a form of a model to a .tflite. Records only; registry.py has them all."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compare.subjects.case import Case
from compare.subjects.mnist.networks import Arrays, NetworkSpec
from compare.subjects.mnist.settings import Settings


@dataclass(frozen=True)
class Source:
    """What a conversion starts from, picklable: an ONNX file, or a Keras network as arrays."""

    spec: NetworkSpec
    settings: Settings
    arrays: Arrays = field(repr=False)
    onnx: Path | None


@dataclass(frozen=True)
class Variant:
    """One artifact that a route makes of MNIST's networks: from which, in which form, with which settings."""

    network: str
    form: str
    """Which export of the network it takes: `qdq`, `int8`, `float`; for Keras routes `keras`."""
    settings: Mapping[str, str] = field(default_factory=dict)

    def id(self, route: str) -> str:
        return "/".join([route, self.network.split("/")[1], *self.settings.values()])


@dataclass(frozen=True)
class Job:
    """How any toolchain goes the route: a job of worker.py, as a user of the packages would write it."""

    ability: str
    """Which toolchains go this way: those that list it."""
    do: str
    """What worker.py calls it."""
    arguments: Mapping[str, str | bool] = field(default_factory=dict)
    layout: str = "none"
    """How calibration data is laid out: `onnx` as the form itself, `nhwc`, or `none` where it takes none."""
    bridged: bool = False
    """It ends in an ONNX file, which the exact bridge of the current toolchain takes on."""


@dataclass(frozen=True)
class Here:
    """How this environment makes the variants of MNIST's many networks: in worker processes that stay.

    `lane` is the kind of worker process. `convert(source, variant, calibration)` returns the file's bytes there;
    calibration is float32 (N, 28, 28), scaled to 0..1 unless the variant says otherwise.
    """

    lane: str
    extra: str
    """The extra of this package that brings what it needs."""
    modules: tuple[str, ...]
    variants: tuple[Variant, ...]
    convert: Callable[[Source, Variant, np.ndarray], bytes]
    case: Callable[[Source, Variant, np.ndarray], Case]
    """What a team on this route has in its hands beside the .tflite and its inputs; called as `convert` is."""


@dataclass(frozen=True)
class Route:
    """A named way from a form of a model to a .tflite: by a job under any toolchain, here, or both."""

    name: str
    about: str
    form: str
    """Which form of a subject it starts from."""
    job: Job | None = None
    here: Here | None = None
    controls: str | None = None
    """The route whose files this one's are held against, network by network."""

    @property
    def framework(self) -> str:
        """Where the model was trained, for a reader."""
        return "Keras" if self.form.startswith("keras") else "PyTorch"

    @property
    def variants(self) -> tuple[Variant, ...]:
        """What is made here of MNIST's networks."""
        return () if self.here is None else self.here.variants

    def missing(self) -> str | None:
        """A line that says what is not installed here and how to get it; None when everything is there."""
        if self.here is None:
            return None
        absent = [module for module in self.here.modules if importlib.util.find_spec(module) is None]
        if not absent:
            return None
        return f"route '{self.name}': needs {', '.join(absent)}, not installed; pip install '.[{self.here.extra}]'"
