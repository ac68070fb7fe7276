"""LiteRT on a CPU: what XNNPACK takes, what it leaves, what LiteRT refuses, damaged files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from compare import npu
from compare.mismatches import catalogue
from compare.npu.litert_cpu import delegated
from compare.npu.model import Placement
from tests.compare.npu import runtime_files as made
from tests.compare.npu import vela_files as files
from tests.compare.npu.damage import damaged


@dataclass(frozen=True)
class Case:
    """A rule, a file that breaks it and nothing else, and the same file repaired."""

    rule: str
    placement: Placement
    reason: str
    broken: Callable[[], bytes]
    repaired: Callable[[], bytes]


LEFT: Placement = "cpu-fallback"
CASES = (
    Case("weights are constant", LEFT, "CONV_2D (int8, int8, int32 constant -> int8)", files.fed_weight_conv, files.conv),
    Case("activations have 8 bits", LEFT, "int16, int8 constant", made.int16_conv, files.conv),
    Case("an average is float", LEFT, "AVERAGE_POOL_2D (int8 -> int8)", partial(files.pool, "AVERAGE_POOL_2D", 2, "SAME"),
         partial(files.pool, "MAX_POOL_2D", 2, "SAME")),
    Case("a maximum is float", LEFT, "MAXIMUM (int8, int8 -> int8)", partial(files.binary, "MAXIMUM"),
         partial(made.float_binary, "MAXIMUM")),
    Case("axes are constant", LEFT, "MEAN (int8, int32 -> int8)", files.fed_axes_mean, partial(files.mean, 1)),
    Case("an enlargement is bilinear", LEFT, "RESIZE_NEAREST_NEIGHBOR", partial(files.resize, "RESIZE_NEAREST_NEIGHBOR", 2),
         partial(files.resize, "RESIZE_BILINEAR", 2)),
    Case("a softmax is float", LEFT, "SOFTMAX (int8 -> int8)", made.softmax, made.float_softmax),
    Case("a ReLU of its own is float", LEFT, "RELU (int8 -> int8)", partial(made.unary, "RELU", "int8", 2),
         partial(made.unary, "RELU", "float32")),
    Case("two scales are not far apart", LEFT, "QUANTIZE (int8 -> int8)", partial(made.requantize, 0.0001),
         partial(made.requantize, 0.25)),
    Case("the scales of a sum are not far apart", LEFT, "ADD (int8, int8 -> int8)", partial(made.addition, 1000.0),
         partial(made.addition, 0.25)),
    Case("a bias has 32 bits", "fails", "bias->type != kTfLiteInt32", files.int16_bias, files.conv),
    Case("a softmax's zero point is -128", "fails", "(0 != -128)", partial(made.softmax, zero_point=0),
         made.float_softmax),
    Case("the operator is not somebody's own", "fails", "unresolved custom op: Mine", made.custom, files.conv),
    Case("a pool keeps its input's scale", "fails", "failed to delegate MAX_POOL_2D", partial(made.pool_to, 0.25),
         partial(made.pool_to, 0.5)),
    Case("a convolution's scales are not far apart", "fails", "failed to create XNNPACK runtime", made.wide_conv,
         files.conv),
    Case("a scale is not zero", "fails", "unsupported scale value (0.000000)", made.unscaled_conv, files.conv),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_what_breaks_a_rule_is_named_and_its_repaired_twin_is_taken(case: Case, tmp_path: Path) -> None:
    (broken,) = npu.judge(case.broken(), only=["cpu"], cache=tmp_path)
    (repaired,) = npu.judge(case.repaired(), only=["cpu"], cache=tmp_path)

    assert [each.placement for each in broken.operators] == [case.placement]
    assert case.reason in broken.operators[0].reason
    assert repaired.passes


def test_a_refusal_of_xnnpack_alone_says_that_the_file_runs_without_it(tmp_path: Path) -> None:
    """XNNPACK agrees to take the operator, and then fails: the file does not run, though the built-in kernels can."""
    alone, both = (npu.judge(make(), only=["cpu"], cache=tmp_path)[0] for make in (made.wide_conv, files.int16_bias))
    assert alone.notes == ("Without the XNNPACK delegate LiteRT runs the file, on its built-in kernels.",)
    assert both.notes == ()


def test_partitions_are_followed_around_what_is_left_and_what_nobody_needs_is_not_guessed(tmp_path: Path) -> None:
    (verdict,) = npu.judge(made.branches(), only=["cpu"], cache=tmp_path)
    assert {each.op + each.tensor: each.placement for each in verdict.operators} == {
        "CONV_2Da": "npu-fast", "MAXIMUMm": "cpu-fallback", "RELUunused": "unverified",
        "CONV_2Dc": "npu-fast", "ADDy": "npu-fast",
    }  # fmt: skip


def test_a_partition_ends_at_the_inputs_of_its_delegate() -> None:
    nodes = [
        {"op": "CONV_2D", "inputs": [0, 8], "outputs": [1]},
        {"op": "MAXIMUM", "inputs": [1, 0], "outputs": [2]},
        {"op": "CONV_2D", "inputs": [2, -1], "outputs": [3]},
        {"op": "ADD", "inputs": [3, 1], "outputs": [4]},
        {"op": "DELEGATE", "inputs": [2, 1, 8], "outputs": [4]},
    ]
    assert delegated(nodes, 4) == {2, 3}


def test_one_refused_operator_stops_the_others_and_is_told_from_them(tmp_path: Path) -> None:
    (verdict,) = npu.judge(made.network_with("POW"), only=["cpu"], cache=tmp_path)
    assert [each.op for each in verdict.operators if each.placement == "fails"] == ["POW"]
    assert verdict.count("unverified") == len(verdict.operators) - 1
    assert verdict.operators[0].reason == "nothing of the model runs: LiteRT stops at POW"


def test_a_random_input_that_stops_a_sound_model_is_no_refusal(tmp_path: Path) -> None:
    quotient, look_up = (
        npu.judge(content, only=["cpu"], cache=tmp_path)[0]
        for content in (files.as_operator(files.binary("MAXIMUM"), "FLOOR_DIV"), made.gather_fed())
    )
    assert [each.count("fails") for each in (quotient, look_up)] == [0, 0]
    assert "Some random inputs stop it: Division by 0" in quotient.notes[0]


@pytest.mark.slow
def test_damaged_files_are_refused_failed_or_run_and_nothing_escapes(tmp_path: Path) -> None:
    reached = 0
    for broken in damaged(files.small_network(), seed=3, count=30):
        try:
            (verdict,) = npu.judge(broken, only=["cpu"], cache=tmp_path)
        except BridgeError as error:
            assert error.remedy
            continue
        reached += 1
        assert len(verdict.operators) > 0
    assert reached > 5


def test_what_arm_adds_wrongly_is_said_of_a_file_that_is_right_here(tmp_path: Path) -> None:
    """Catalogue entry M81's reproduction: taken by XNNPACK, right on x86, and told with operator and cores."""
    entry = next(each for each in catalogue() if each.id == "M81")
    broken = entry.reproduce()
    repaired = entry.repair(broken)
    assert broken.tflite is not None
    assert repaired.tflite is not None

    (verdict,) = npu.judge(broken.tflite, only=["cpu"], cache=tmp_path)
    (mended,) = npu.judge(repaired.tflite, only=["cpu"], cache=tmp_path)

    assert verdict.passes
    (operator,) = verdict.operators
    assert operator.reason.startswith("wrong on ARM: 54 weight codes of -128 are added in 16 bits there")
    assert "seen on Cortex-A53, A55 and A72; M81" in operator.reason
    assert [note for note in verdict.notes if "DEPTHWISE_CONV_2D 'y' can be wrong on ARM" in note]
    assert mended.operators[0].reason == ""
    assert mended.notes == ()


def test_the_verdict_on_arm_is_made_anew_for_a_file_whose_verdict_is_kept(tmp_path: Path) -> None:
    entry = next(each for each in catalogue() if each.id == "M81")
    broken = entry.reproduce()
    assert broken.tflite is not None
    first, second = (npu.judge(broken.tflite, only=["cpu"], cache=tmp_path)[0] for _ in range(2))
    assert first == second
