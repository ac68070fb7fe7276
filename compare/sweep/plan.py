"""What a sweep consists of: its tasks, and what makes two tasks the same work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bridge.errors import BridgeError
from compare.networks import NETWORKS
from compare.routes import ROUTES
from compare.settings import PRESETS, PresetName, preset
from compare.toolchains import CURRENT, matching
from compare.versions import routes as foreign

MODELS = ("mnist",)
_PACKAGES = (
    "torch", "onnx", "onnx2tf", "tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy",
    "qat-tflite-bridge",
)  # fmt: skip
_CODE = (
    "bridge/**/*.py", "torch_side/*.py", "keras_side/*.py", "compare/networks.py", "compare/routes.py",
    "compare/metrics.py", "compare/settings.py", "compare/shared_start.py", "compare/toolchains/worker.py",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One trained network and everything that is made of it under one toolchain."""

    model: str
    preset: PresetName
    seed: int
    network: str
    """`torch/qat-fbgemm`, `keras/qat`, ...: an id of compare.networks."""
    toolchain: str
    artifacts: tuple[str, ...]
    """Ids of what is made, in order; one row each."""

    @property
    def label(self) -> str:
        return f"{self.network} seed {self.seed} {self.preset}" + (
            "" if self.toolchain == CURRENT else f" {self.toolchain}"
        )

    def identity(self, data_digest: str) -> str:
        """The address of its results: everything that decides them, code and package versions included."""
        facts = {
            "task": asdict(self),
            "settings": asdict(preset(self.preset, seed=self.seed, init="torch")),
            "data": data_digest,
            "made_with": made_with(),
            "toolchain": [asdict(each) for each in matching([self.toolchain])],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Wanted:
    """What a sweep is asked for; empty globs mean everything."""

    seeds: tuple[int, ...]
    networks: tuple[str, ...] = ()
    presets: tuple[PresetName, ...] = ("default",)
    routes: tuple[str, ...] = ()
    toolchains: tuple[str, ...] = (CURRENT,)
    models: tuple[str, ...] = MODELS


def tasks(wanted: Wanted) -> tuple[Task, ...]:
    """Every task, seed by seed, so that an early summary has whole seeds.

    Raises `BridgeError` for a name or glob that matches nothing.
    """
    _refuse("--models", wanted.models, MODELS)
    _refuse("--presets", wanted.presets, tuple(PRESETS))
    known = {spec.id: _names(spec.id) for spec in NETWORKS}
    _refuse("--qconfigs", wanted.networks, [name for names in known.values() for name in names])
    networks = [identity for identity, names in known.items() if _any(names, wanted.networks)]
    possible = {
        (chosen.id, network): _artifacts(chosen.id, network)
        for chosen in matching(wanted.toolchains)
        for network in networks
    }
    everything = [artifact for made in possible.values() for artifact in made]
    _refuse("--routes", wanted.routes, [name for each in everything for name in _route_names(each)])
    going = {
        place: tuple(artifact for artifact in made if _any(_route_names(artifact), wanted.routes))
        for place, made in possible.items()
    }
    return tuple(
        Task(model, name, seed, network, toolchain, artifacts)
        for model in wanted.models
        for name in wanted.presets
        for seed in wanted.seeds
        for (toolchain, network), artifacts in going.items()
        if artifacts
    )


def _artifacts(toolchain: str, network: str) -> tuple[str, ...]:
    """Ids of what a toolchain makes of a network: of the current one the artifacts of compare.run."""
    if toolchain == CURRENT:
        made = [(route.name, variant) for route in ROUTES for variant in route.variants]
        return tuple(variant.id(name) for name, variant in made if variant.network == network)
    (one,) = matching([toolchain])
    going = [each for each in foreign.ROUTES if each.ability in one.routes and each.form in FORMS[network]]
    return tuple(f"{each.name}/{network.split('/')[1]}" for each in going)


def _forms(framework: str, kind: str, network: str) -> tuple[str, ...]:
    if framework == "keras":
        return {"keras/baseline": ("keras",), "keras/qat": ("keras-qat",)}.get(network, ())
    return {"qat": ("qdq", "int8"), "float": ("float", "torch"), "ptq": ("int8",)}[kind]


FORMS: Mapping[str, tuple[str, ...]] = {spec.id: _forms(spec.framework, spec.kind, spec.id) for spec in NETWORKS}
"""Which forms a network has for the routes of other toolchains."""


def _names(network: str) -> tuple[str, ...]:
    """What a user may call it: `torch/qat-fbgemm`, `qat-fbgemm`, `fbgemm`."""
    short = network.split("/")[1]
    return (network, short, short.removeprefix("qat-")) if network.startswith("torch/qat-") else (network, short)


def _route_names(artifact: str) -> tuple[str, str]:
    return artifact, artifact.split("/")[0]


def _any(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _refuse(option: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise BridgeError(
                where=f"{option} '{pattern}'",
                problem="matches nothing",
                remedy=f"There are: {', '.join(dict.fromkeys(names))}.",
            )


@cache
def made_with() -> str:
    """Twelve hex digits for the code and the package versions that decide a figure."""
    root = Path(__file__).parents[2]
    files = sorted(path for pattern in _CODE for path in root.glob(pattern))
    total = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            total.update(f"{package} {version(package)}".encode())
    return total.hexdigest()[:12]
