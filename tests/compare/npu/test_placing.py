"""What a verdict adds up to in the record of a run."""

from bridge.errors import BridgeError
from compare import npu
from compare.mismatches.parts.models import conv_relu, through_exact
from compare.npu import placing
from compare.npu.model import OperatorVerdict, TargetVerdict


def verdict(*placements):
    operators = tuple(
        OperatorVerdict(i, "CONV_2D", f"y{i}", placement, "why", "source", 100)
        for i, placement in enumerate(placements)
    )
    return TargetVerdict("imx93", "vela", "compiled", operators)


def test_crossings_and_shares_are_counted_in_execution_order():
    judged = verdict("npu-fast", "cpu-fallback", "npu-slow", "npu-fast")

    assert (judged.crossings, judged.share_of_operators, judged.share_of_macs, judged.passes) == (2, 0.75, 0.5, False)
    assert verdict("npu-fast").passes
    assert not verdict().passes


def test_operators_with_the_same_reason_are_blamed_together():
    (blame,) = placing.placement_record(verdict("npu-fast", "npu-slow", "npu-slow")).blame

    assert (blame.op, blame.placement, blame.reason, blame.count) == ("CONV_2D", "npu-slow", "why", 2)


def test_a_target_whose_software_cannot_be_had_is_left_out(monkeypatch, tmp_path):
    def judge(content, where, identities, cache):
        if identities == ("imx93",):
            raise BridgeError(where="vela", problem="cannot be built", remedy="none")
        return npu.judge(content, where, identities, cache)

    monkeypatch.setattr(placing, "judge", judge)
    found = placing.placements(through_exact(conv_relu()), ("imx93", "imx8mp", "edgetpu"), tmp_path)

    assert [each.target for each in found] == ["imx8mp", "edgetpu"]
