"""Ethos-U: every rule of Vela that a small file can break, placements as Vela's own listing has them, damaged files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import constant
from compare import npu
from compare.npu import ethos_u
from compare.tflite.graph import open_tflite
from compare.toolchains.environments import ensure
from tests.compare.npu import vela_files as files
from tests.compare.npu.damage import damaged

TODAY = ethos_u.ENVIRONMENTS[0]


@dataclass(frozen=True)
class Case:
    """A rule, a file that breaks it and nothing else, and the same file repaired."""

    rule: str
    target: str
    reason: str
    """Part of what Vela says of the broken file."""
    broken: Callable[[], bytes]
    repaired: Callable[[], bytes]


U65, BOARD = "imx93", "imx93-lf6.6.3"
CASES = (
    Case("feature maps are integers", U65, "DataType Float32",
         lambda: files.float_conv(constant("w", np.ones((4, 3, 3, 4), np.float32))), files.conv),
    Case("int8 weights want int8 activations", U65, "DataType Float32",
         lambda: files.float_conv(files.ones("w", 4, 3, 3, 4, scales=4)), files.conv),
    Case("only the batch may be open", U65, "Dynamic non-batch dimension at axis 1",
         lambda: files.open_dimension(files.conv(), 1), lambda: files.open_dimension(files.conv(), 0)),
    Case("a convolution strides by 3 at most", BOARD, "Stride h must be between 1 and 3",
         partial(files.conv, stride=4), partial(files.conv, stride=3)),
    Case("a depthwise convolution strides by 3 at most", U65, "Unsupported kernel stride: 4, 4",
         partial(files.depthwise, 4), partial(files.depthwise, 3)),
    Case("weights have 8 bits", U65, "Weights tensor with precision: Int16", files.int16_weight, files.conv),
    Case("a bias has 32 bits", U65, "bias with type:Int16", files.int16_bias, files.conv),
    Case("weights of one channel sum up to 8323072 at most", U65, "8355584 exceeds limit: 8323072",
         partial(files.heavy_conv, 16, 257), partial(files.heavy_conv, 16, 256)),
    Case("an average of 8x8 at most", U65, "kernel width: 9 out of range",
         partial(files.pool, "AVERAGE_POOL_2D", 9, "SAME"), partial(files.pool, "AVERAGE_POOL_2D", 8, "SAME")),
    Case("a maximum of 256 rows at most", U65, "kernel height: 257 out of range",
         partial(files.pool, "MAX_POOL_2D", 257, "VALID", 300, 2),
         partial(files.pool, "MAX_POOL_2D", 256, "VALID", 300, 2)),
    Case("dense weights have one scale", BOARD, "Per-axis quantization is only supported",
         partial(files.dense, 4), partial(files.dense, 1)),
    Case("a maximum has the scale of its operands", U65, "mismatching quantization parameters",
         partial(files.binary, "MAXIMUM", 0.25), partial(files.binary, "MAXIMUM")),
    Case("no division", U65, "Unsupported opType",
         lambda: files.as_operator(files.binary("MUL"), "DIV"), partial(files.binary, "MUL")),
    Case("no comparison", U65, "Unsupported opType",
         lambda: files.as_operator(files.binary("MUL"), "EQUAL"), partial(files.binary, "MUL")),
    Case("a mean of one image", U65, "Batch must be 1", partial(files.mean, 2), partial(files.mean, 1)),
    Case("every image alone", BOARD, "IFM Tensor batch size must be 1",
         partial(files.conv, batch=2), partial(files.conv, batch=1)),
    Case("nearest neighbours by 2, 4 or 8", U65, "unsupported scale-factor=3",
         partial(files.resize, "RESIZE_NEAREST_NEIGHBOR", 3), partial(files.resize, "RESIZE_NEAREST_NEIGHBOR", 2)),
    Case("half-pixel interpolation by 2", U65, "unsupported scale-factor=4",
         partial(files.resize, "RESIZE_BILINEAR", 4, half_pixel=True),
         partial(files.resize, "RESIZE_BILINEAR", 4, half_pixel=False)),
    Case("a transposed convolution strides by 2 at most", U65, "stride",
         partial(files.transpose_conv, 3), partial(files.transpose_conv, 2)),
    Case("every tensor is quantized", U65, "missing quantization parameters",
         lambda: files.unquantized(files.binary("ADD"), "y"), partial(files.binary, "ADD")),
    Case("four axes at most", BOARD, "greater than 4D",
         partial(files.logistic, 1, 1, 4, 4, 4), partial(files.logistic, 1, 4, 4, 4)),
    Case("quantizing float is left to the CPU", U65, "DataType Float32", files.quantize_float, files.requantize),
)  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this session: verdicts are made, not read."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_broken_rule_is_named_and_its_repaired_twin_runs_on_the_npu(case: Case, cache: Path) -> None:
    (broken,) = npu.judge(case.broken(), only=[case.target], cache=cache)
    (repaired,) = npu.judge(case.repaired(), only=[case.target], cache=cache)

    (operator,) = broken.operators
    assert (operator.placement, operator.tensor) == ("cpu-fallback", "y")
    assert case.reason in operator.reason
    assert "tensor0of" not in operator.reason
    assert repaired.passes, repaired.operators


@pytest.mark.slow
def test_what_one_version_refuses_another_takes(cache: Path) -> None:
    """The version trap: per-axis dense weights and a batch of two, each under today's Vela and under the board's."""
    for content in (files.dense(4), files.conv(batch=2)):
        today, board = npu.judge(content, only=[U65, BOARD], cache=cache)
        assert (today.passes, board.passes) == (True, False)


@pytest.mark.slow
def test_the_u85_takes_operators_that_the_u65_does_not(cache: Path) -> None:
    for content in (files.gather(), files.as_operator(files.binary("MUL"), "DIV"), files.depthwise(4)):
        u65, u85 = npu.judge(content, only=[U65, "ethos-u85"], cache=cache)
        assert (u65.passes, u85.passes) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize("resized", [False, True], ids=["whole", "with an operator the U65 leaves out"])
def test_placement_is_the_one_of_velas_own_listing(resized: bool, cache: Path, tmp_path: Path) -> None:
    content = files.small_network(resized=resized)
    (verdict,) = npu.judge(content, only=[U65], cache=cache)

    (tmp_path / "m.tflite").write_bytes(content)  # with the file's own names, not numbered as the target does it
    command = [ensure(TODAY, cache), "-I", "-m", "ethosu.vela", "m.tflite", "--accelerator-config", "ethos-u65-256"]
    listed = subprocess.run(
        [*command, "--show-cpu-operations"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    on_the_cpu = set(re.findall(r"CPU: \S+ = (\S+)", listed.stdout))

    assert {each.tensor for each in verdict.operators if each.placement == "cpu-fallback"} == on_the_cpu
    assert on_the_cpu == ({"q", "c2", "scores"} if resized else {"q", "scores"})
    assert verdict.crossings == (4 if resized else 2)
    assert verdict.estimate is not None
    assert verdict.estimate.inference_seconds
    assert verdict.estimate.memory_bytes


@pytest.mark.slow
def test_a_crash_of_vela_is_a_verdict_with_its_signal(cache: Path) -> None:
    (verdict,) = npu.judge(files.fed_axes_mean(), only=[U65], cache=cache)
    assert [each.placement for each in verdict.operators] == ["fails"]
    assert verdict.operators[0].reason == "Vela made no model of it: it crashed (SIGSEGV)"


@pytest.mark.slow
def test_a_second_question_does_not_start_vela(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = npu.judge(files.conv(), only=[U65], cache=cache)
    monkeypatch.setattr(subprocess, "run", _not_to_be_called)
    assert npu.judge(files.conv(), only=[U65], cache=cache) == first


def _not_to_be_called(*_: object, **__: object) -> None:
    raise AssertionError("a process was started")


@pytest.mark.slow
def test_damaged_files_that_open_reach_vela_and_nothing_escapes(cache: Path) -> None:
    """Vela itself on ten of them: it may fall over, our process does not."""
    content, tried = files.dense(1), 0
    for copy in damaged(content, seed=1, count=200):
        try:
            open_tflite(copy)
        except BridgeError:
            continue
        tried += 1
        try:
            (verdict,) = npu.judge(copy, only=[U65], cache=cache)
        except BridgeError:
            continue
        assert all(each.placement in ("npu-fast", "cpu-fallback", "fails") for each in verdict.operators)
        if tried == 10:
            break
    assert tried == 10


MAKERS = (files.conv, partial(files.dense, 4), partial(files.resize, "RESIZE_BILINEAR", 2), files.small_network)


@pytest.mark.parametrize("make", MAKERS, ids=["convolution", "dense", "resize", "network"])
def test_a_damaged_file_is_refused_or_read_but_never_a_traceback(make: Callable[[], bytes]) -> None:
    refused = 0
    for copy in damaged(make(), seed=0, count=150):
        try:
            opened = open_tflite(copy)
            ethos_u.with_numbered_tensors(copy)
        except BridgeError as error:
            assert error.remedy
            refused += 1
        else:
            names = opened.graph.tensors
            assert all(
                name in names for node in opened.graph.nodes for name in (*filter(None, node.inputs), *node.outputs)
            )
    assert refused > 50


def test_a_file_cut_short_anywhere_in_its_tables_is_refused() -> None:
    content = files.conv()
    for length in range(0, len(content) - 200, 7):  # weights lie at the end
        with pytest.raises(BridgeError, match=r"not a \.tflite file|damaged"):
            open_tflite(content[:length])


def test_a_reference_out_of_range_is_refused() -> None:
    def lose(place: str) -> Callable[[object], None]:
        def change(model: object) -> None:
            subgraph = model.subgraphs[0]  # type: ignore[attr-defined]
            if place == "operator":
                subgraph.operators[0].outputs = [-1]
            elif place == "file":
                subgraph.outputs = [99]
            else:
                subgraph.tensors[0].buffer = 1_000_000

        return change  # fmt: skip

    for place in ("operator", "file", "buffer"):
        with pytest.raises(BridgeError, match=r"damaged \((tensor -1|tensor 99|buffer 1000000) of"):
            open_tflite(files.edited(files.conv(), lose(place)))


def test_a_vela_that_hangs_is_an_error_and_not_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ethos_u, "SECONDS", 0.2)
    monkeypatch.setattr(ethos_u, "ensure", lambda *_: _program(tmp_path, "sleep 5"))
    with pytest.raises(BridgeError, match=r"did not finish within 0\.2 s"):
        npu.judge(files.conv(), only=[U65], cache=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 0", "exit code 0"), ("echo 'No networks defined' >&2; exit 1", "No networks defined"), ("kill -SEGV $$", "SIGSEGV"),
     ("mkdir out; head -c 40 /dev/zero > out/model_vela.tflite", "cannot be read")],
    ids=["nothing written", "an error", "a crash", "rubbish written"],
)  # fmt: skip
def test_a_vela_that_writes_no_model_fails_the_file(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 proves nothing."""
    monkeypatch.setattr(ethos_u, "ensure", lambda *_: _program(tmp_path, script))
    (verdict,) = npu.judge(files.conv(), only=[U65], cache=tmp_path)
    assert [each.placement for each in verdict.operators] == ["fails"]
    assert reason in verdict.operators[0].reason


def _program(folder: Path, script: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
