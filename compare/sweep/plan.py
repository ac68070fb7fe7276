"""What a sweep consists of: its tasks, and what makes two tasks the same work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from bridge.errors import BridgeError
from bridge.exact.reader import parse_whole
from compare.routes.making import planned
from compare.routes.registry import jobs, variants
from compare.subjects import own_training
from compare.subjects.code import is_code
from compare.subjects.mnist.networks import NETWORKS
from compare.subjects.mnist.settings import PRESETS, PresetName, Settings, preset
from compare.subjects.own_onnx import form_of
from compare.sweep.own import samples_of
from compare.toolchains import CURRENT, Toolchain, matching

MNIST = "mnist"
"""The model that is trained here; every other is somebody's ONNX file."""
NO_PRESET = "–"
OWN_LOOP = "own loop"
"""In the place of a preset: a team's own training."""
_PACKAGES = (
    "torch", "onnx", "onnx2tf", "tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy",
    "qat-tflite-bridge",
)  # fmt: skip
_CODE = (
    "bridge/**/*.py", "torch_side/*.py", "keras_side/*.py", "compare/subjects/mnist/networks.py", "compare/routes/*.py",
    "compare/measuring/metrics.py", "compare/subjects/mnist/settings.py", "compare/subjects/mnist/shared_start.py", "compare/toolchains/worker.py",
    "compare/sweep/job.py", "compare/sweep/own.py", "compare/sweep/own_trained.py", "compare/subjects/own_training.py", "compare/subjects/own_torch.py", "compare/measuring/scoring.py", "compare/measuring/task_metrics.py", "compare/subjects/own_onnx.py", "compare/subjects/samples.py",
    "compare/measuring/runtimes.py", "compare/measuring/judging.py", "compare/measuring/feeding.py",
    "compare/subjects/model.py", "compare/subjects/mnist/calibration.py",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One trained network and everything that is made of it under one toolchain."""

    model: str
    """MNIST, the path of an ONNX file, or MODULE:FACTORY of a team's float model."""
    preset: str
    """A preset's name; NO_PRESET, and seed 0, for a model that was trained elsewhere."""
    seed: int
    network: str
    """`torch/qat-fbgemm`, `keras/qat`, ...: an id of compare.subjects.mnist.networks."""
    toolchain: str
    artifacts: tuple[str, ...]
    """Ids of what is made, in order; one row each."""
    inputs: str = ""
    """Path of the samples of a model that is not MNIST; empty: beside its file."""
    train: str = ""
    """MODULE:FUNCTION that trains a factory's model."""
    folder: str = ""
    """Where the sweep was started: modules are imported from there, and the loop finds its data."""

    @property
    def label(self) -> str:
        if self.train:
            return f"{self.model} {self.network.removeprefix('own/')} seed {self.seed} {self.toolchain}"
        if self.preset == NO_PRESET:
            return f"{Path(self.model).name} {self.artifacts[0].split('/')[0]} {self.toolchain}"
        return f"{self.network} seed {self.seed} {self.preset}" + (
            "" if self.toolchain == CURRENT else f" {self.toolchain}"
        )

    def identity(self, data_digest: str) -> str:
        """The address of its results: everything that decides them, code and package versions included."""
        facts = {
            "task": asdict(self),
            "settings": None if self.preset in (NO_PRESET, OWN_LOOP) else asdict(settings_of(self)),
            "data": data_digest,
            "made_with": made_with(),
            "toolchain": [_facts(each) for each in matching([self.toolchain])],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _facts(toolchain: Toolchain) -> dict[str, object]:
    """What a toolchain is: the content of its lock, wherever that file lies."""
    locked = toolchain.lock.read_text(encoding="utf-8") if toolchain.environment() is not None else ""
    return {**asdict(toolchain), "lock": locked}


@dataclass(frozen=True)
class Wanted:
    """What a sweep is asked for; empty globs mean everything."""

    seeds: tuple[int, ...]
    networks: tuple[str, ...] = ()
    presets: tuple[PresetName, ...] = ("default",)
    routes: tuple[str, ...] = ()
    toolchains: tuple[str, ...] = (CURRENT,)
    models: tuple[str, ...] = (MNIST,)
    """MNIST, and globs of ONNX files with their samples beside them."""
    model: str = ""
    """Instead: one model of a team's own, an ONNX file or, with `train`, MODULE:FACTORY."""
    inputs: str = ""
    train: str = ""


def tasks(wanted: Wanted) -> tuple[Task, ...]:
    """Every task, seed by seed, so that an early summary has whole seeds.

    Raises `BridgeError` for a name or glob that matches nothing.
    """
    if wanted.model:
        everything = (*(_trained(wanted) if wanted.train else _file(wanted)),)
    else:
        everything = (*(_mnist(wanted) if MNIST in wanted.models else ()), *_own(wanted))
    if not everything:
        raise BridgeError(
            where="--models, --toolchains",
            problem="leave nothing to do: none of these toolchains makes anything of these models",
            remedy="See python -m compare.versions --list for what each toolchain makes.",
        )
    names = [name for task in everything for artifact in task.artifacts for name in _route_names(artifact)]
    _refuse("--routes", wanted.routes, names)
    return tuple(
        replace(task, artifacts=chosen)
        for task in everything
        if (chosen := tuple(each for each in task.artifacts if _any(_route_names(each), wanted.routes)))
    )


def settings_of(task: Task) -> Settings:
    """How a task's network is trained. Raises `BridgeError` where its preset is none."""
    return preset(cast("PresetName", task.preset), seed=task.seed, init="torch")


def _own(wanted: Wanted) -> Iterator[Task]:
    """Every file by every route of every toolchain: it was trained elsewhere, seeds, presets and qconfigs say nothing of it.

    Each is a task of its own: what one route takes too much memory for, another does.
    """
    files = [path for pattern in wanted.models if pattern != MNIST for path in _files(pattern)]
    for file in dict.fromkeys(files):
        yield from _of_file(file, wanted)


def _of_file(file: Path, wanted: Wanted) -> Iterator[Task]:
    kind, name = form_of(parse_whole(file)), file.stem
    kinds = {each: each for each in (kind, "float")}  # a quantized file is one without its pairs, too
    for cell in planned(matching(wanted.toolchains), jobs(tuple(kinds)), kinds):
        artifacts = (f"{cell.route.name}/{name}",)
        yield Task(str(file), NO_PRESET, 0, f"own/{name}", cell.toolchain.id, artifacts, wanted.inputs)


def _file(wanted: Wanted) -> Iterator[Task]:
    """One ONNX file with the samples that were named."""
    file = Path(wanted.model)
    if is_code(wanted.model):
        raise BridgeError(
            where=f"--model {wanted.model}",
            problem="makes one trained model, and a sweep is over trainings",
            remedy="Give --train MODULE:FUNCTION with a factory that makes the float model; one model alone: python -m compare.run",
        )
    return _of_file(file.resolve(), wanted)


def _trained(wanted: Wanted) -> Iterator[Task]:
    """Every seed with every qconfig, by every route of every toolchain that takes what comes of it."""
    training = own_training.Training(wanted.train, wanted.networks)
    for seed in wanted.seeds:
        for name in own_training.names(training):
            kinds = {kind: kind for kind in own_training.kinds(name)}
            for toolchain in matching(wanted.toolchains):
                going = planned([toolchain], jobs(tuple(kinds)), kinds)
                artifacts = tuple(f"{cell.route.name}/{name}" for cell in going)
                if artifacts:
                    yield Task(
                        wanted.model,
                        OWN_LOOP,
                        seed,
                        f"own/{name}",
                        toolchain.id,
                        artifacts,
                        wanted.inputs,
                        wanted.train,
                        str(Path.cwd()),
                    )


def _files(pattern: str) -> list[Path]:
    """The ONNX files of a glob, whole paths. Raises `BridgeError` where there are none, or one has no samples."""
    path = Path(pattern)
    named = (
        [path] if path.is_file() or not path.name else Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))
    )
    found = sorted(each.resolve() for each in named if each.is_file())
    if not found:
        raise BridgeError(
            where=f"--models '{pattern}'",
            problem=f"is neither '{MNIST}' nor a file",
            remedy=f"There is '{MNIST}', and your own: models/*.onnx, each with its samples (.npz) beside it.",
        )
    for file in found:
        samples_of(file)
    return found


def _mnist(wanted: Wanted) -> tuple[Task, ...]:
    _refuse("--presets", wanted.presets, tuple(PRESETS))
    known = {spec.id: _names(spec.id) for spec in NETWORKS}
    _refuse("--qconfigs", wanted.networks, [name for names in known.values() for name in names])
    networks = [identity for identity, names in known.items() if _any(names, wanted.networks)]
    possible = {
        (chosen.id, network): artifacts
        for chosen in matching(wanted.toolchains)
        for network in networks
        if (artifacts := _artifacts(chosen.id, network))
    }
    return tuple(
        Task(MNIST, name, seed, network, toolchain, artifacts)
        for name in wanted.presets
        for seed in wanted.seeds
        for (toolchain, network), artifacts in possible.items()
    )


def _artifacts(toolchain: str, network: str) -> tuple[str, ...]:
    """Ids of what a toolchain makes of a network: of the current one the artifacts of compare.run."""
    if toolchain == CURRENT:
        return tuple(variant.id(route.name) for route, variant in variants() if variant.network == network)
    forms = FORMS[network]
    going = planned(matching([toolchain]), jobs(forms), dict(zip(forms, forms, strict=True)))
    return tuple(f"{cell.route.name}/{network.split('/')[1]}" for cell in going)


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
