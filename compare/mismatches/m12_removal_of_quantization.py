"""M12: torch.ao.quantization is announced to go, and a part of it is gone."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import numbers, version_of
from compare.subjects.case import Case

WARNING = "torch.ao.quantization is deprecated and will be removed"
GONE = "No module named 'torch.ao.quantization"
LAST_SEEN = (2, 15)
"""torch 2.15.0 is the newest whose wheel was seen to hold the eager modules; they run in 2.13 and 2.14.1."""


def detect(case: Case) -> Iterator[Sighting]:
    """The warning, which stops a program that takes warnings for errors; an import of what is gone; an unknown torch.

    The version that the warning names is not a sign: it says 2.10, and 2.13 still has everything but PT2E.
    """
    lines = case.log.splitlines()
    for line in [line for line in lines if GONE in line][:1]:
        yield Sighting(
            where="import from torch.ao.quantization",
            fact=f"'{line[line.index(GONE) :].strip()}'",
            remedy="Import PT2E from torchao.quantization.pt2e (pip install torchao). Eager QAT: pin torch to 2.13 or 2.14.",
        )
    for line in [line for line in lines if WARNING in line][:1]:
        yield Sighting(
            where="torch.ao.quantization",
            fact=f"'{line[line.index(WARNING) :].strip()}'",
            remedy="Let this warning pass by its text where warnings are errors, and pin torch: 2.13 still has it all.",
            severity="risk",
        )
    torch = version_of(case, "torch")
    if torch and numbers(torch) > LAST_SEEN:
        yield Sighting(
            where="package torch",
            fact=f"torch {torch}; 2.15 is the last in which eager quantization was seen (it may still be there: look for "
            "torch.ao.quantization.prepare_qat)",
            remedy="Pin torch==2.13.0 for eager QAT.",
            sure=False,
        )


def _says(attempt: Callable[[], object], allowed: Callable[[], AbstractContextManager[None]] = nullcontext) -> str:
    """What Python says of an attempt where warnings are errors, as in many a CI, but the allowed ones; or nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with allowed():
                attempt()
        except (Warning, ImportError) as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0].strip()}\n"
    return ""


def _prepare() -> object:
    """Eager QAT of one convolution; the qconfig's own warnings are not this entry's."""
    import torch
    from torch import nn
    from torch.ao import quantization as tq

    from torch_side.qconfigs import qconfig_named

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        qconfig = qconfig_named("tflite").build()
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(tq.QuantStub(), nn.Conv2d(1, 1, 1)).train()
    layers.qconfig = qconfig  # type: ignore[assignment]
    return tq.prepare_qat(layers)


def reproduce() -> Case:
    """Two programs of 2024, warnings as errors: eager QAT, and PT2E imported from where it was."""
    return Case(log=_says(_prepare) + _says(lambda: importlib.import_module("torch.ao.quantization.quantize_pt2e")))


def repair(case: Case) -> Case:  # noqa: ARG001 - a program is not repaired from here
    """Eager QAT with these warnings let through by their text; nothing is imported that is gone."""
    from torch_side.training import expected_warnings

    return Case(log=_says(_prepare, expected_warnings))


def measure(broken: Case, repaired: Case) -> float:
    """Programs that fail."""
    return float(len(broken.log.splitlines()) - len(repaired.log.splitlines()))


MISMATCH = Mismatch(
    id="M12",
    name="torch.ao.quantization is going",
    side="environment",
    severity="fault",
    versions="torch 2.13 (PT2E gone, the rest deprecated)",
    source="ao#2259, pytorch#157591, #184982, PR#184984, PR#153892; reproduced with 2.13",
    cause="The whole module is deprecated; the warning says it goes with torch 2.10, and 2.13 still has it and still says so. "
    "quantize_pt2e is gone already and lives on in torchao. Where warnings are errors, eager QAT stops at the first call.",
    way_out="Pin torch (2.13.0 here), look for the functions instead of the version, let the warning pass by its text, and "
    "read trained scales from the fake-quant modules: those numbers outlive the converted model.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("programs that fail", 2.0),
    automatic=False,
)
