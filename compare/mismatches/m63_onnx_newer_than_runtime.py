"""M63: the ONNX file has a newer IR version than the installed ONNX Runtime reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx

from bridge.verifying.onnx_runtime import as_users_make_it
from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import numbers, version_of
from compare.mismatches.parts.small_keras import refusal
from compare.subjects.case import Case

MESSAGE = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
HIGHEST: Mapping[tuple[int, ...], int] = {(1, 14): 8, (1, 17): 9, (1, 20): 10, (1, 23): 11}
"""IR version by ONNX Runtime release: onnxruntime#14932, #20559, #23602; the last one measured."""


def detect(case: Case) -> Iterator[Sighting]:
    """The refusal itself; or a file beside an ONNX Runtime of which the highest IR version is known."""
    remedy = "Set model.ir_version to what the runtime reads and save the file again, or install a newer onnxruntime."
    if said := MESSAGE.search(case.log):
        yield Sighting(
            where="onnxruntime.InferenceSession",
            fact=f"the file has IR version {said[1]}, this ONNX Runtime reads up to {said[2]}",
            remedy=remedy,
        )
        return
    runtime = version_of(case, "onnxruntime", "onnxruntime-gpu")
    highest = HIGHEST.get(numbers(runtime))
    if case.onnx_model is not None and highest is not None and case.onnx_model.ir_version > highest:
        yield Sighting(
            where="ONNX file",
            fact=f"has IR version {case.onnx_model.ir_version}; onnxruntime {runtime} reads up to {highest}",
            remedy=remedy,
        )


def _opened(content: bytes) -> str:
    return refusal(lambda: as_users_make_it(content))


def reproduce() -> Case:
    """A one-node model one IR version above what this ONNX Runtime reads, as onnx 1.19 makes them without being asked."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy")
    graph = onnx.helper.make_graph([node], "one", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])  # onnx.IR_VERSION: 12
    content = model.SerializeToString()
    return Case(onnx=content, log=_opened(content))


def repair(case: Case) -> Case:
    """The same graph, stamped with the version the opset came with; nothing in it needs a newer one."""
    assert case.onnx_model is not None  # noqa: S101 - the catalogue repairs what detect has seen
    model = onnx.load_from_string(case.onnx_model.SerializeToString())
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    content = model.SerializeToString()
    return replace(case, onnx=content, log=_opened(content))


def measure(broken: Case, repaired: Case) -> float:
    return float(bool(broken.log) - bool(repaired.log))


MISMATCH = Mismatch(
    id="M63",
    name="ONNX file newer than ONNX Runtime",
    side="environment",
    severity="fault",
    versions="onnx 1.19.1 (IR version 12) with onnxruntime 1.23.0 (up to 11)",
    source="onnxruntime#23602, #20559, #15874, #14932; reproduced",
    cause="onnx.helper.make_model stamps a file with the newest IR version the onnx package knows, whatever the graph needs. "
    "ONNX Runtime refuses what is newer than itself. onnx2tf then skips its accuracy check with a warning (onnx2tf#349).",
    way_out="Pass ir_version to make_model, or set model.ir_version before saving; pin onnx to what onnxruntime was built with.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("sessions that fail", 1),
)
