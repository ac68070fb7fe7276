"""M38: float input and output around an integer model, where the target or the application wants integers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.installed import version_of
from compare.mismatches.parts.operator_edits import without_operators
from compare.mismatches.parts.small_keras import converted, trained_network
from compare.subjects.case import Case
from compare.tflite.graph import OpenedTflite

NOT_QUANTIZED = "Model not quantized"
"""The Edge TPU compiler's word for a model that is not integer from end to end."""
FED_WITH_FLOAT = re.compile(r"Got value of type FLOAT32 but expected type (U?INT8)")
"""LiteRT's, where an application feeds floats to a file that has integer inputs."""
REMEDY = (
    "Set converter.inference_input_type = converter.inference_output_type = tf.int8 (with python -m bridge: --io int8), and "
    "quantize the input in the application with the file's scale and zero point."
)


def detect(case: Case) -> Iterator[Sighting]:
    """Only where something in the case wants integers: the compiler's refusal, the runtime's, or an Ethos-U compiler.

    Float at both ends of an integer model is what many applications ask for, and right on a CPU.
    """
    if said := FED_WITH_FLOAT.search(case.log):
        yield Sighting(
            where="Interpreter.set_tensor",
            fact=f"'{said[0]}'{_codes(case)}",
            remedy="Feed round(x / scale) + zero_point as the file's type, or convert with float32 input and output.",
            severity="fault",
        )
    if NOT_QUANTIZED in case.log and case.file is None:
        yield Sighting(where="edgetpu_compiler", fact=f"'{NOT_QUANTIZED}'", remedy=REMEDY, severity="fault")
    borders = {} if case.file is None else _borders(case.file)
    vela = version_of(case, "ethos-u-vela")
    refused = NOT_QUANTIZED in case.log
    if borders and (refused or vela):
        names = ", ".join(f"'{outside}'" for outside, _ in borders.values())
        yield Sighting(
            where=f"input and output {names}",
            fact=f"float32; {len(borders)} QUANTIZE and DEQUANTIZE stay on the CPU"
            + (
                f", and the compiler says '{NOT_QUANTIZED}'"
                if refused
                else f" with ethos-u-vela {vela} (or are meant to)"
            ),
            remedy=REMEDY,
            sure=refused,
            severity="fault" if refused else None,
        )


def _codes(case: Case) -> str:
    if case.file is None:
        return ""
    x = case.file.graph.tensors[case.file.graph.inputs[0]]
    return "" if x.qparams is None else f"; input '{x.name}' has {x.q}"


def _borders(file: OpenedTflite) -> Mapping[int, tuple[str, str]]:
    """(float tensor, its codes) by position of each QUANTIZE and DEQUANTIZE at an end of an otherwise integer model.

    Empty where anything in between is float: then the borders are the least of it (M24, M26, M37).
    """
    graph = file.graph
    readers = graph.consumers()
    found: dict[int, tuple[str, str]] = {}
    for at, node in enumerate(graph.nodes):
        if node.op == "QUANTIZE" and node.inputs[0] in graph.inputs and len(readers[node.inputs[0]]) == 1:
            found[at] = (node.inputs[0], node.outputs[0])
        if node.op == "DEQUANTIZE" and node.outputs[0] in graph.outputs and not readers[node.outputs[0]]:
            found[at] = (node.outputs[0], node.inputs[0])
    found = {at: pair for at, pair in found.items() if graph.tensors[pair[0]].dtype == np.float32}
    between = (name for at, node in enumerate(graph.nodes) if at not in found for name in (*node.inputs, *node.outputs))
    integer = all(graph.tensors[name].dtype.kind not in "fV" for name in between if name)
    return found if integer else {}


@cache
def _with_float_borders() -> bytes:
    return converted(trained_network(), integer_io=False)


def reproduce() -> Case:
    """A QAT model converted with the usual recipe, which does not set the types of input and output, for an Ethos-U."""
    return Case(tflite=_with_float_borders(), packages={"ethos-u-vela": "5.2.0"})


def repair(case: Case) -> Case:
    """Take the QUANTIZE and DEQUANTIZE at the ends away: the codes behind them are the model's input and output."""
    assert case.tflite is not None  # noqa: S101 - the catalogue repairs what detect has seen
    assert case.file is not None  # noqa: S101
    borders = _borders(case.file)
    return replace(case, tflite=without_operators(case.tflite, borders)) if borders else case


def measure(broken: Case, repaired: Case) -> float:
    """Operators that an integer-only NPU leaves to the CPU."""
    assert broken.file is not None  # noqa: S101 - a measure knows its own reproduction
    assert repaired.file is not None  # noqa: S101
    return float(len(_borders(broken.file)) - len(_borders(repaired.file)))


MISMATCH = Mismatch(
    id="M38",
    name="float input and output on an integer-only NPU",
    side="NPU",
    severity="risk",
    versions="TensorFlow 2.19, TF-MOT 0.8.1; Vela 5.2.0 leaves both operators to the CPU",
    source="google-coral/edgetpu#391, #366, #238, #168; tensorflow#42082, #46806; TIM-VX#316; Edge TPU not run here",
    cause="Conversion of a QAT model leaves float32 input and output unless their types are set. The QUANTIZE and the "
    "DEQUANTIZE around the model run on the CPU; the Edge TPU compiler wants an all-integer model and says: Model not "
    "quantized. The opposite happens in the application: it feeds floats to a file that takes int8.",
    way_out="inference_input_type = inference_output_type = tf.int8 (or uint8, which adds a QUANTIZE), with Optimize.DEFAULT. "
    "Quantize the input yourself with the file's scale and zero point. Where the CPU has time for two operators, leave it.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("operators left to the CPU", 2),
)
