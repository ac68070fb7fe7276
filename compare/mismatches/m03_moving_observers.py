"""M03: observers that still move in evaluation, and observers that no data ever reached."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.two_forms import trained
from compare.subjects.case import Case


def _observers(model: Any) -> Iterator[tuple[str, Any]]:
    """Path and fake-quant of everything that has a range to find out; a sigmoid's is fixed."""
    for path, module in () if model is None else model.named_modules():
        observer = getattr(module, "activation_post_process", None)
        if hasattr(module, "observer_enabled") and hasattr(observer, "min_val"):
            yield path, module


def _has_run(module: Any) -> bool:
    """torch starts a range at infinity, or empty."""
    lowest = module.activation_post_process.min_val
    return lowest.numel() > 0 and bool(lowest.isfinite().all())


def detect(case: Case) -> Iterator[Sighting]:
    """A model that is evaluated or exported must have its observers off, and each of them must have seen data."""
    observers = list(_observers(case.torch_model))
    moving = [path for path, module in observers if bool(module.observer_enabled.any())]
    if moving:
        training = bool(case.torch_model.training)
        yield Sighting(
            where=f"fake-quant '{moving[0]}'" + (f" and {len(moving) - 1} more" if len(moving) > 1 else ""),
            fact=f"observer_enabled is 1 in {len(moving)} of {len(observers)} fake-quants"
            + ("; right only while training goes on" if training else ", and eval() does not switch it off"),
            remedy="model.apply(torch.ao.quantization.disable_observer), before the last epochs and before every export.",
            sure=not training,
        )
    for path, module in observers:
        if not _has_run(module):
            yield Sighting(
                where=f"fake-quant '{path}'",
                fact=f"has seen no data: scale {float(module.scale.reshape(-1)[0]):g}, zero point "
                f"{int(module.zero_point.reshape(-1)[0])} (harmless where nothing ever runs it)",
                remedy="Run training batches through every branch of the model, or remove the branch.",
                sure=False,
            )


@cache
def _trained() -> Any:
    """A convolution, and a branch behind it that only some calls take; five batches without the branch."""
    import torch
    from torch import nn
    from torch.ao import quantization as tq

    from torch_side.qconfigs import qconfig_named
    from torch_side.training import expected_warnings

    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.conv, self.branch = tq.QuantStub(), nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 1)
            self.dequant = tq.DeQuantStub()

        def forward(self, x: Any, branch: bool = False) -> Any:
            x = self.conv(self.quant(x))
            return self.dequant(self.branch(x) if branch else x)

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(0)
        model: Any = Branched().train()
        model.qconfig = qconfig_named("tflite").build()
        prepared: Any = tq.prepare_qat(model)
        for _ in range(5):
            prepared(torch.randn(4, 2, 6, 6))
    return prepared


def reproduce() -> Case:
    """eval() right after training, observers on, one branch never run; what it is evaluated on is ten times as large."""
    samples = 10 * np.random.default_rng(0).normal(size=(50, 2, 6, 6)).astype(np.float32)
    return Case(torch_model=copy.deepcopy(_trained()).eval(), inputs={"input": samples})


def repair(case: Case) -> Case:
    """Run the branch as well, then switch the observers off, then evaluate."""
    import torch
    from torch.ao import quantization as tq

    from torch_side.training import expected_warnings

    model = copy.deepcopy(_trained())
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(0)
        model(torch.randn(4, 2, 6, 6), branch=True)
    model.apply(tq.disable_observer)
    return replace(case, torch_model=model.eval())


def measure(broken: Case, repaired: Case) -> float:
    """How many times larger one evaluation makes the input's scale, over the same after the repair."""

    def growth(case: Case) -> float:
        import torch

        assert case.inputs is not None  # noqa: S101 - a measure knows its own reproduction
        model = copy.deepcopy(case.torch_model)
        before = next(trained(model)).scale.item()
        with torch.no_grad():
            for sample in case.inputs["input"]:
                model(torch.from_numpy(sample[None]))
        return float(next(trained(model)).scale.item() / before)

    return growth(broken) / growth(repaired)


MISMATCH = Mismatch(
    id="M03",
    name="observers that still move, or never ran",
    side="PyTorch",
    severity="risk",
    versions="torch 2.13, every QAT qconfig",
    source="reproduced; pytorch PR#39738 (disable_observer before an export)",
    cause="A fake-quant goes on observing until its observer is switched off, and model.eval() does not do that. A "
    "validation or an export on unusual data moves the scales that training decided. Where no data ever came, the scale "
    "is 1 and the zero point 0, with nothing but a warning.",
    way_out="Switch observers off for the last epochs and before every evaluation and export; train every branch.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("growth of the input's scale in one evaluation (times)", 2.5),
    automatic=False,
)
