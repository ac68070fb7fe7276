"""What is trained for a target runs fast there: the table against the targets' own verdicts."""

import pytest

from bridge.errors import BridgeError
from bridge.targets import WEIGHTS, weights_for
from compare import npu
from compare.mismatches.parts.files import codes
from compare.toolchains.environments import cache_folder
from tests.compare.npu import vela_files as files
from tests.compare.npu.runtime_files import conv_with

CHANNELS = 4


def conv(*, per_channel: bool) -> bytes:
    scales = CHANNELS if per_channel else 1
    return conv_with(w=files.ones("w", CHANNELS, 3, 3, 4, scales=scales), b=files.bias(CHANNELS, scales))


def dense(*, per_channel: bool) -> bytes:
    return files.dense(CHANNELS if per_channel else 1)


def depthwise(*, per_channel: bool) -> bytes:
    scales = CHANNELS if per_channel else 1
    weight = codes(
        "w", [[[[1] * CHANNELS] * 3] * 3], [0.25] * scales if per_channel else 0.25, axis=3 if per_channel else None
    )
    return files.one("DEPTHWISE_CONV_2D", [files.int8("x", 1, 8, 8, 4), weight, files.bias(CHANNELS, scales)],
                     files.int8("y", 1, 8, 8, 4), padding="SAME", stride_w=1, stride_h=1, depth_multiplier=1)  # fmt: skip


def test_every_target_is_in_the_table_and_the_family_name_beside():
    assert set(WEIGHTS) == {target.id for target in npu.targets()} | {"ethos-u"}


def test_every_entry_says_why_and_by_which_source():
    assert all(entry.why and entry.source for entry in WEIGHTS.values())


def test_an_unknown_target_is_refused_with_the_known_ones():
    with pytest.raises(BridgeError, match="target 'imx95': is not known") as refusal:
        weights_for("imx95")
    assert all(each in refusal.value.remedy for each in WEIGHTS)


@pytest.mark.slow
@pytest.mark.parametrize("target", [each.id for each in npu.targets()])
@pytest.mark.parametrize("make", [conv, depthwise, dense])
def test_the_weights_of_the_table_run_fast(make, target):
    (verdict,) = npu.judge(make(per_channel=WEIGHTS[target].per_channel), only=[target], cache=cache_folder())
    assert verdict.passes, verdict.operators


@pytest.mark.slow
@pytest.mark.parametrize("target", ["imx8mp", "imx93-lf6.6.3"])
def test_per_channel_dense_weights_do_not_where_the_table_refuses_them(target):
    (verdict,) = npu.judge(dense(per_channel=True), only=[target], cache=cache_folder())
    assert not verdict.passes
