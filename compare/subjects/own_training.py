"""`--train MODULE:FUNCTION`: a team's float model, trained by its own loop in float and with every qconfig."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from compare.running.globs import chosen
from compare.running.workers import Lane
from compare.subjects.code import called, made_by
from compare.subjects.model import Form, Subject
from compare.subjects.samples import notes, samples

FLOAT = "float"
PREPARED = "prepare"
"""`bridge.prepare`: what each operator of TFLite asks for, beside the qconfigs of torch_side/qconfigs.py."""


@dataclass(frozen=True)
class Training:
    """How a team's network is trained."""

    train: str
    """MODULE:FUNCTION, called with the model in training mode, and with `data` where there is one."""
    qconfigs: tuple[str, ...] = ()
    """Globs; all of them without."""
    seed: int = 0
    data: str | None = None


def names(training: Training) -> tuple[str, ...]:
    """The trainings, the float one first; raises `BridgeError` for a glob that matches nothing."""
    from torch_side.qconfigs import QCONFIGS

    known = {name: name for name in (PREPARED, *QCONFIGS)}
    return FLOAT, *chosen(known, training.qconfigs, "--qconfig", "matches no qconfig")


def prepare(
    model: str,
    training: Training,
    arrays: Mapping[str, np.ndarray],
    folder: Path,
    metric: str | None,
    say: Callable[[str], None],
) -> Subject:
    """Every training, one after the other in a process of its own; `say` hears of each.

    Raises `BridgeError` where the float network cannot be trained, or none of the others; a single qconfig that does not
    work is a note.
    """
    folder.mkdir(parents=True, exist_ok=True)
    forms: dict[str, Form] = {}
    said: list[str] = []
    wanted, lane = names(training), Lane("subject")
    try:
        for name in wanted:
            say(f"training {name}")
            outcome = lane.submit("", _trained, model, training, name, dict(arrays), folder).result()
            if outcome.error is not None and name == FLOAT:
                outcome.get()
            elif outcome.error is not None:
                said.append(f"{name}: {outcome.error.splitlines()[0]}")
            else:
                forms |= outcome.value[0]
                said += outcome.value[1]
        lane.finish()  # exporters hold semaphores
    finally:
        lane.close()
    if len(forms) == 1 and len(wanted) > 1:
        raise BridgeError(
            where=f"--train {training.train}", problem=f"trained none of its qconfigs: {said[0]}", remedy="See there."
        )
    first = next(iter(forms.values()))
    given = samples(arrays, _array_names(arrays, first))
    return Subject(model, forms, given.labels, (*notes(first, given, metric), *said))


def one(model: str, training: Training, name: str, arrays: Mapping[str, np.ndarray], folder: Path) -> Subject:
    """One training of `names`, in a process of its own; its forms are called by their kinds.

    Raises `BridgeError` where it cannot be trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lane = Lane("subject")
    try:
        found, said = lane.submit("", _trained, model, training, name, dict(arrays), folder).result().get()
        lane.finish()
    finally:
        lane.close()
    first = next(iter(found.values()))
    given = samples(arrays, _array_names(arrays, first))
    return Subject(model, {form.kind: form for form in found.values()}, given.labels, said)


def kinds(name: str) -> tuple[str, ...]:
    """Which kinds of forms a training gives, as far as its qconfig says."""
    from torch_side.qconfigs import QCONFIGS

    if name == FLOAT:
        return ("float",)
    return ("qdq", "int8") if name in QCONFIGS and QCONFIGS[name].engine is not None else ("qdq",)


def _array_names(arrays: Mapping[str, np.ndarray], form: Form) -> list[str]:
    return [name for name in arrays if name in form.inputs] or [next(iter(arrays))]


def _trained(
    target: str, training: Training, name: str, arrays: Mapping[str, np.ndarray], folder: Path
) -> tuple[dict[str, Form], tuple[str, ...]]:
    """For a worker process: one training, and the forms of what came of it."""
    import torch

    from bridge.from_torch.admission import admitted
    from compare.subjects import own_torch

    torch.manual_seed(training.seed)
    model = admitted(made_by("--model", target))
    if not own_torch.is_float(model):
        raise BridgeError(
            where=f"--model {target}",
            problem="is quantized already, and --train prepares it for each qconfig",
            remedy="Let the factory return the float model, or leave --train out.",
        )
    given = samples(arrays, own_torch.names_of(model, arrays))
    examples = tuple(torch.from_numpy(array[:1]) for array in given.inputs.values())
    prepared = copy.deepcopy(model) if name == FLOAT else _prepared(model, name, examples)
    torch.manual_seed(training.seed)
    handed = () if training.data is None else (training.data,)
    done = called("--train", training.train, prepared.train(), *handed)
    trained: Any = prepared if done is None else done
    if not isinstance(trained, torch.nn.Module):
        raise BridgeError(
            where=f"--train {training.train}",
            problem=f"returns {type(trained).__name__}",
            remedy="Let it return the model, or nothing where it trains it in place.",
        )
    return own_torch.trained_forms(trained.eval(), given, folder, name if name in (FLOAT, PREPARED) else f"qat-{name}")


def _prepared(model: Any, name: str, examples: Sequence[Any]) -> Any:
    from torch.ao.quantization import QConfigMapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    from torch_side import prepare as preparing
    from torch_side.qconfigs import qconfig_named
    from torch_side.training import expected_warnings

    if name == PREPARED:
        return preparing.prepare(model, tuple(examples))
    qconfig = qconfig_named(name)
    mapping = QConfigMapping().set_global(qconfig.build())
    backend = preparing.int8() if qconfig.engine is None else None
    with expected_warnings():
        return prepare_qat_fx(copy.deepcopy(model).train(), mapping, tuple(examples), backend_config=backend)
