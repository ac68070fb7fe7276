"""TensorFlow Lite for Microcontrollers: what it refuses and what it runs, its crashes, damaged files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bridge.errors import BridgeError
from compare import npu
from compare.npu import asking, tflm
from compare.npu.refusals import refused
from compare.tflite.graph import open_tflite
from compare.toolchains.environments import cache_folder, ensure
from tests.compare.npu import runtime_files as made
from tests.compare.npu import vela_files as files
from tests.compare.npu.damage import damaged


@dataclass(frozen=True)
class Case:
    """A rule, a file that breaks it and nothing else, and the same file repaired."""

    rule: str
    reason: str
    """Part of what the interpreter says of the broken file."""
    broken: Callable[[], bytes]
    repaired: Callable[[], bytes]


CASES = (
    Case("int8 weights of a convolution want int8 activations", "Hybrid models are not supported",
         lambda: files.float_conv(files.ones("w", 4, 3, 3, 4, scales=4)), files.conv),
    Case("int8 weights of a dense layer want int8 activations", "FLOAT32 with filter type: INT8 not supported",
         made.hybrid_dense, partial(files.dense, 1)),
    Case("a convolution is not uint8", "Hybrid models are not supported", made.uint8_conv, files.conv),
    Case("weights are not float16", "dequantize_common.cc", partial(made.dequantize, True),
         partial(made.dequantize, False)),
    Case("a pool keeps its input's scale", "scale_diff <= 1.0e-6", partial(made.pool_to, 0.25),
         partial(made.pool_to, 0.5)),
    Case("a sigmoid's zero point is -128", "(0 != -128)", partial(made.sigmoid, 0), partial(made.sigmoid, -128)),
    Case("a softmax's zero point is -128", "(0 != -128)", partial(made.softmax, zero_point=0), made.softmax),
    Case("a softmax's scale is not tiny", "it crashed while preparing it (SIGABRT)", partial(made.softmax, 1e-35),
         made.softmax),
    Case("a logarithm is float", "INT8 != FLOAT32", partial(made.unary, "LOG", "int8"),
         partial(made.unary, "LOG", "float32")),
    Case("an exponential is float", "INT8 != FLOAT32", partial(made.unary, "EXP", "int8"),
         partial(made.unary, "EXP", "float32")),
    Case("a floored quotient is float", "'INT8' is not supported by FLOOR_DIV",
         lambda: files.as_operator(files.binary("MAXIMUM"), "FLOOR_DIV"), partial(made.float_binary, "FLOOR_DIV")),
    Case("the operator has a kernel", "Didn't find op for builtin opcode 'GELU'", partial(made.unary, "GELU", "float32"),
         partial(made.unary, "TANH", "float32")),
    Case("the operator is not somebody's own", "op code CUSTOM", made.custom, files.conv),
    Case("a model fits into 256 MB", "Failed to resize buffer. Requested: 1073741",
         lambda: files.with_tensor(made.relu_of(8), "x", lambda tensor: setattr(tensor, "shape", [1, 2**28])),
         partial(made.relu_of, 2**16)),
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the interpreter's environment in it, but without verdicts of earlier runs."""
    folder = tmp_path_factory.mktemp("cache")
    ensure(tflm.ENVIRONMENT, cache_folder())
    (folder / "environments").symlink_to(cache_folder() / "environments")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_what_breaks_a_rule_fails_for_that_reason_and_its_repaired_twin_runs(case: Case, cache: Path) -> None:
    (broken,) = npu.judge(case.broken(), only=["tflm"], cache=cache)
    (repaired,) = npu.judge(case.repaired(), only=["tflm"], cache=cache)

    assert [each.placement for each in broken.operators] == ["fails"]
    assert case.reason in broken.operators[0].reason
    assert repaired.passes
    assert repaired.estimate is not None
    assert repaired.estimate.memory_bytes


@pytest.mark.slow
def test_one_refused_operator_stops_the_others_and_is_told_from_them(cache: Path) -> None:
    (verdict,) = npu.judge(made.network_with("LOG"), only=["tflm"], cache=cache)
    *others, softmax, dequantize = verdict.operators

    assert (softmax.placement, softmax.op) == ("fails", "LOG")
    assert {each.placement for each in (*others, dequantize)} == {"unverified"}
    assert others[0].reason == "nothing of the model runs: the interpreter stops at LOG"
    assert verdict.estimate is None


@pytest.mark.slow
def test_outputs_are_compared_and_the_arena_is_the_smallest_that_does(cache: Path, tmp_path: Path) -> None:
    content = files.small_network()
    (verdict,) = npu.judge(content, only=["tflm"], cache=cache)
    assert verdict.passes
    assert verdict.notes[0] == "Outputs equal those of LiteRT's reference kernels on the same random inputs."
    assert verdict.estimate is not None

    model = tmp_path / "model.tflite"
    model.write_bytes(content)
    start = "import sys; from tflite_micro import runtime; runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))"
    python, needed = ensure(tflm.ENVIRONMENT, cache), verdict.estimate.memory_bytes or 0
    ended = [
        asking.subprocess.run(
            [python, "-I", "-c", start, model, str(size)], capture_output=True, check=False
        ).returncode
        for size in (needed, needed - 64)
    ]
    assert ended == [0, 1]


@pytest.mark.slow
def test_a_random_input_that_stops_a_sound_model_is_no_refusal(cache: Path) -> None:
    """A root of a negative number, and an index outside its table, are faults of the input."""
    root = made.unary("RSQRT", "int8", version=2)
    verdicts = [npu.judge(content, only=["tflm"], cache=cache)[0] for content in (root, made.gather_fed())]
    assert [verdict.passes for verdict in verdicts] == [True, True]
    assert "Some random inputs stop it" in " ".join(verdicts[0].notes)


@pytest.mark.slow
def test_inputs_too_large_to_make_up_leave_the_model_unverified(cache: Path) -> None:
    (verdict,) = npu.judge(made.fed_with([1, 2**30, 2**30, 4]), only=["tflm"], cache=cache)
    assert [each.placement for each in verdict.operators] == ["unverified"]
    assert "not run" in verdict.operators[0].reason


@pytest.mark.slow
def test_a_second_question_starts_no_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = npu.judge(files.conv(), only=["tflm"], cache=cache)
    monkeypatch.setattr(tflm, "ask", lambda *_: pytest.fail("asked again"))
    assert npu.judge(files.conv(), only=["tflm"], cache=cache) == first


@pytest.mark.slow
def test_what_the_interpreters_own_reader_finds_damaged_is_refused(cache: Path, tmp_path: Path) -> None:
    """Its Python part reads the whole file, where `open_tflite` reads what the project needs of it."""
    model = tmp_path / "model.tflite"
    model.write_bytes(files.conv()[:300])
    python, program = ensure(tflm.ENVIRONMENT, cache), Path(tflm.__file__).with_name("ask_tflm.py")
    found = asking.ask("TFLM", [python, "-I", program, model, "-", "-", "1"], tmp_path)
    assert found["refused"].startswith("its reader finds the file damaged (")


@pytest.mark.slow
def test_damaged_files_are_refused_failed_or_run_and_nothing_escapes(cache: Path) -> None:
    reached = 0
    for broken in damaged(files.small_network(), seed=2, count=30):
        try:
            (verdict,) = npu.judge(broken, only=["tflm"], cache=cache)
        except BridgeError as error:
            assert error.remedy
            continue
        reached += 1
        assert all(each.placement in ("npu-fast", "fails", "unverified") for each in verdict.operators)
    assert reached > 5


def test_a_number_of_another_subgraph_blames_no_operator_of_the_main_one() -> None:
    graph = open_tflite(files.conv()).graph
    placed = refused(graph, "the interpreter", "bad shape. Node GELU (number 0) failed to prepare with status 1")
    assert placed == {0: ("fails", "the interpreter does not run the model: bad shape.")}


def test_outputs_that_differ_are_counted() -> None:
    ours, theirs = (
        [np.array([1, 2, 3], np.int8), np.array([np.nan])],
        [np.array([1, 4, 3], np.int8), np.array([np.nan])],
    )
    assert tflm.agreement(ours, theirs).startswith("1 of 4 outputs differ")
    assert tflm.agreement(ours, theirs).endswith("by up to 2.")
    assert tflm.agreement(theirs, theirs).startswith("Outputs equal")
    assert tflm.agreement(ours, [ours[0], np.zeros(2)]).startswith("Outputs have other sizes")
    assert "not compared" in tflm.agreement([], [])


# ------------------------------------------------------------------------------------------------ the program that asks


@pytest.mark.parametrize(
    ("script", "problem"),
    [("sleep 5", r"did not finish within 0\.2 s"), ("kill -KILL $$", "gave no answer"), ("exit 0", "gave no answer"),
     ("echo 'No module named numpy' >&2; exit 1", "No module named numpy"), ("echo '[1, 2'", "gave no answer"),
     ("echo '[1, 2]'", "gave no answer"), ("echo '{}'; exit 3", "exit code 3")],
    ids=["a hang", "killed", "silence", "an error", "rubbish", "no object", "an error after the answer"],
)  # fmt: skip
def test_an_answer_that_does_not_come_is_an_error_and_not_a_verdict(
    script: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.2)
    with pytest.raises(BridgeError, match=problem):
        asking.ask("Tool 1.0", ["/bin/sh", "-c", script], tmp_path)


def test_a_crash_is_a_refusal_that_says_when(tmp_path: Path) -> None:
    early = asking.ask("Tool 1.0", ["/bin/sh", "-c", "kill -SEGV $$"], tmp_path)
    late = asking.ask("Tool 1.0", ["/bin/sh", "-c", "echo prepared >&2; kill -FPE $$"], tmp_path)
    assert early["refused"] == "it crashed while preparing it (SIGSEGV)"
    assert late["refused"] == "it crashed while running it on random inputs (SIGFPE)"


def test_an_interpreter_that_hangs_leaves_no_verdict_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nsleep 5\n")
    program.chmod(0o755)
    monkeypatch.setattr(asking, "SECONDS", 0.2)
    monkeypatch.setattr(tflm, "ensure", lambda *_: program)
    with pytest.raises(BridgeError, match="tflite-micro"):
        npu.judge(files.conv(), only=["tflm"], cache=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_a_crash_on_an_arena_that_is_too_small_is_tried_on_the_next_one(monkeypatch, tmp_path):
    """MobileNetV2's: the interpreter dies of an allocation that fails instead of saying so."""
    asked = []

    def ask(_, command, folder):
        assert folder == tmp_path
        asked.append(command[-1])
        if command[-1] == "0":
            said = "arena 65536\narena 1048576\nFailed to allocate tail memory."
            return {"refused": "it crashed while preparing it (SIGSEGV)", "said": said}
        return {"ran": [0], "stopped": "", "said": "arena 16777216\nprepared\n"}

    monkeypatch.setattr(tflm, "ask", ask)

    assert tflm._on_an_arena(["program"], tmp_path)["ran"] == [0]
    assert asked == ["0", "2"]


def test_a_crash_on_the_largest_arena_is_the_answer(monkeypatch, tmp_path):
    def ask(_, command, __):
        left = len(tflm.ARENAS) - int(command[-1])
        return {"refused": "it crashed while preparing it (SIGSEGV)", "said": "arena 1\n" * left}

    monkeypatch.setattr(tflm, "ask", ask)

    assert "crashed" in tflm._on_an_arena(["program"], tmp_path)["refused"]
