"""What a sweep is asked for, and the tasks that come of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from bridge.errors import BridgeError
from compare.settings import PRESETS, Settings, preset

MODELS = ("mnist",)
"""The network architectures: the article's, so far."""
MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Plan:
    """What was asked for. Always true: nothing is empty, and every name is known; `planned` refuses the rest.

    `routes` are globs over artifact ids, as `compare.run --only` takes them; `toolchains` are ids.
    """

    seeds: tuple[int, ...]
    qconfigs: tuple[str, ...]
    presets: tuple[str, ...]
    routes: tuple[str, ...]
    toolchains: tuple[str, ...]
    models: tuple[str, ...] = MODELS

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Plan:
        """The plan that `asdict` made a record of. Raises `KeyError` and `TypeError` where it did not."""
        return cls(**{name: tuple(record[name]) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, order=True)
class Task:
    """One network under one toolchain, with all artifacts that are made of it: what is scheduled, killed, kept."""

    model: str
    preset: str
    seed: int
    network: str
    toolchain: str
    artifacts: tuple[str, ...]
    """Ids of compare.matrix, in its order."""

    @property
    def settings(self) -> Settings:
        """How its network is trained. Keras starts from PyTorch's float weights, as `compare.run` does by default."""
        return preset(self.preset, seed=self.seed, init="torch")  # type: ignore[arg-type] # checked when planned

    @property
    def label(self) -> str:
        """How it is called on the screen."""
        toolchain = "" if self.toolchain == "current" else f", {self.toolchain}"
        return f"{self.network}, seed {self.seed}, {self.preset}{toolchain}"

    def record(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Task:
        """What `record` wrote."""
        return cls(**{**record, "artifacts": tuple(record["artifacts"])})


def read_seeds(text: str) -> tuple[int, ...]:
    """`0-3,7` is 0, 1, 2, 3, 7. Raises `BridgeError` for anything else, and for more than 100,000 seeds."""
    found: set[int] = set()
    for part in text.split(","):
        matched = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", part)
        first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (1, 0)
        if last < first or last - first >= MOST_SEEDS:
            raise BridgeError(
                where=f"--seeds '{text}'",
                problem=f"'{part.strip()}' is not a seed or a range of at most {MOST_SEEDS:,}",
                remedy="Give whole numbers and ranges, as in 0-9 or 0,3,5-7.",
            )
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def choose(option: str, text: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """The names, or globs, in a comma-separated list, in the order of `known`; all of them for None.

    Raises `BridgeError` for a name that is not known.
    """
    if text is None:
        return tuple(known)
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for name in wanted or [""]:
        if not any(fnmatchcase(each, name) for each in known):
            raise BridgeError(
                where=f"{option} '{text}'",
                problem=f"'{name}' is not known",
                remedy=f"There are: {', '.join(known)}; '*' stands for any part of a name.",
            )
    return tuple(each for each in known if any(fnmatchcase(each, name) for name in wanted))


def qconfigs() -> tuple[str, ...]:
    """The qconfigs that there are networks for."""
    from compare.networks import NETWORKS

    return tuple(spec.variant for spec in NETWORKS if spec.framework == "torch" and spec.kind == "qat")


def presets() -> tuple[str, ...]:
    """The presets that there are."""
    return tuple(PRESETS)


def planned(plan: Plan) -> tuple[Task, ...]:
    """The tasks of a plan, the float networks first: the others start from them and would wait for each other.

    A network without artifacts on the chosen routes is none. Raises `BridgeError` when no task is left.
    """
    from compare.matrix import SPECS
    from compare.sweep.toolchain import makes

    artifacts = _artifacts(plan)
    tasks = [
        Task(model, preset_name, seed, network, toolchain, made)
        for model in plan.models
        for preset_name in plan.presets
        for seed in plan.seeds
        for network, ids in artifacts.items()
        for toolchain in plan.toolchains
        if (made := tuple(each for each in ids if makes(toolchain, each)))
    ]
    if not tasks:
        raise BridgeError(
            where="the sweep",
            problem="has nothing to do: no artifact of the chosen routes starts from a chosen network",
            remedy="python -m compare.run --list shows the artifacts; the qconfig is the second part of an id.",
        )
    return tuple(sorted(tasks, key=lambda task: SPECS[task.network].kind != "float"))


def _artifacts(plan: Plan) -> dict[str, tuple[str, ...]]:
    """The ids of the artifacts by network. `--qconfigs` chooses among PyTorch's QAT networks, routes among all."""
    from compare.matrix import SPECS
    from compare.matrix import plan as every_artifact

    found: dict[str, tuple[str, ...]] = {}
    try:
        wanted = every_artifact(plan.routes)
    except BridgeError as error:
        where = error.where.replace("--only", "--routes")
        remedy = "python -m compare.run --list shows the ids; '*' matches any part of one, as in 'torch-*'."
        raise BridgeError(where=where, problem=error.problem, remedy=remedy) from None
    for item in wanted:
        spec = SPECS[item.variant.network]
        if spec.framework == "torch" and spec.kind == "qat" and spec.variant not in plan.qconfigs:
            continue
        found[spec.id] = (*found.get(spec.id, ()), item.id)
    return found
