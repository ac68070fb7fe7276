"""M40: torchvision comes from another build than torch."""

from __future__ import annotations

from collections.abc import Iterator

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import local_part, numbers, said_by_python, version_of
from compare.subjects.case import Case

MESSAGE = "operator torchvision::nms does not exist"
APART = 15
"""torchvision 0.15 came with torch 2.0, and 0.28 with 2.13: pytorch/vision README, table of versions."""


def detect(case: Case) -> Iterator[Sighting]:
    """The error itself; local version parts (+cpu, +cu126) that differ; or releases that do not belong together.

    A wheel without a local part is what PyPI has: a CUDA build on Linux, a CPU build elsewhere.
    """
    torch, vision = version_of(case, "torch"), version_of(case, "torchvision")
    failed = MESSAGE in case.log
    if torch and vision:
        builds = local_part(torch), local_part(vision)
        paired = numbers(torch)[0] != 2 or numbers(vision) == (0, numbers(torch)[1] + APART)
        if builds[0] != builds[1] or not paired:
            yield Sighting(
                where="packages torch and torchvision",
                fact=f"torch {torch}, torchvision {vision}"
                + ("" if failed or all(builds) or not paired else " (outside Linux on x86 both can be CPU builds)"),
                remedy="Install both from one index in one command, or uninstall torchvision where nothing needs it.",
                sure=failed or all(builds) or not paired,
            )
            return
    if failed:
        yield Sighting(
            where="import torchvision",
            fact=f"'{MESSAGE}': its native library did not load beside this torch",
            remedy="Install both from one index in one command, or uninstall torchvision where nothing needs it.",
        )


_IMPORT = """
import torch
load = torch.ops.load_library
def refuse(path):
    if "torchvision" in str(path):
        raise OSError("undefined symbol")
    return load(path)
torch.ops.load_library = refuse
import torchvision
"""
"""Import torchvision where its library does not load. What a foreign build does by itself is done by hand here, so that
the case is the same on every machine."""


def reproduce() -> Case:
    """A CPU build of torch beside the torchvision of PyPI: the versions that showed it, and torchvision's own message."""
    return Case(packages={"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, log=said_by_python(_IMPORT))


def repair(case: Case) -> Case:  # noqa: ARG001 - packages are not installed from here
    """Without torchvision."""
    return Case(packages={"torch": "2.13.0+cpu"}, log=said_by_python("import torch"))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log) - bool(repaired.log))


MISMATCH = Mismatch(
    id="M40",
    name="torchvision of another build than torch",
    side="environment",
    severity="fault",
    versions="torch 2.13.0+cpu with torchvision 0.28.0 from PyPI",
    source="pytorch#122494, vision#8985, #9077; reproduced",
    cause="The CPU wheel of torch comes from PyTorch's own index, torchvision from PyPI, where it is built for CUDA. pip is "
    "content: torchvision 0.28.0 asks for torch==2.13.0, and 2.13.0+cpu counts as that (PEP 440). torchvision swallows that its library "
    "does not load and stops at the first operator that is missing.",
    way_out="pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu (or the CUDA index), both at once.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("imports that fail", 1),
    automatic=False,
)
