"""The instrument that looks for wrong files, looked at itself: what is planted has to be found, and nothing else."""

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import fuzz
from benchmarks.fuzzing.cases import drawn
from benchmarks.fuzzing.children import results
from benchmarks.fuzzing.judge import judge
from bridge.exact.convert import Options, convert
from bridge.exact.writer import write
from tests.bridge.exact.graphs import Unusable


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def dense(weights=((3, -4), (5, 6), (-7, 8)), bias=(4.0, -2.0), scale=0.5):
    """x (1, 3) at 1, weights of whole numbers, y (1, 2) at `scale`: every code is exact."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "one", "zero"], ["wd"]),
        helper.make_node("Gemm", ["xd", "wd", "b"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"]),
    ]
    constants = [
        constant("one", 1.0), constant("zero", 0, np.int8), constant("w", weights, np.int8),
        constant("b", bias), constant("scale", scale),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, len(bias)])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def judged(model, tflite, notes=()):
    return judge(model, tflite, notes, np.random.default_rng(0))


def tampered(model, op, place, change):
    """The .tflite of `model` with one constant of the first `op` changed."""
    graph = convert(model).graph
    node = next(node for node in graph.nodes if node.op == op)
    tensor = graph.tensors[node.inputs[place]]
    changed = replace(tensor, data=np.ascontiguousarray(change(tensor.values)))
    return write(replace(graph, tensors={**graph.tensors, tensor.name: changed}))


def test_a_right_file_is_equal():
    assert judged(dense(), convert(dense()).tflite).verdict == "equal"


@pytest.mark.parametrize(
    ("place", "change"),
    [(2, lambda bias: bias[::-1]), (2, np.zeros_like), (1, lambda weight: -weight), (1, lambda w: np.roll(w, 1, 1))],
    ids=["biases reversed", "biases lost", "weights negated", "weights rolled"],
)
def test_a_wrong_file_is_called_wrong(place, change):
    judgement = judged(dense(), tampered(dense(), "FULLY_CONNECTED", place, change))
    assert judgement.verdict == "wrong"
    assert judgement.lsb > 2


def test_a_note_does_not_excuse_what_it_does_not_say():
    wrong = tampered(dense(), "FULLY_CONNECTED", 2, lambda bias: bias + 100)
    assert judged(dense(), wrong, ["weights", "derived"]).verdict == "wrong"


def test_a_file_of_another_shape_has_other_outputs():
    assert judged(dense(), convert(dense(((1, 2, 3),) * 3, (1.0, 2.0, 3.0))).tflite).verdict == "other outputs"


def test_a_rounding_that_the_network_makes_large_is_told_from_a_fault():
    """The second layer multiplies one step of the first by 100: 1 LSB off there is 100 here."""
    model = dense(scale=3.0)
    model.graph.output[0].name = "z"
    model.graph.initializer.extend([constant("w2", [[100], [100]], np.int8), constant("fine", 3.0)])
    model.graph.node.extend(
        [
            helper.make_node("DequantizeLinear", ["w2", "one", "zero"], ["w2d"]),
            helper.make_node("MatMul", ["y", "w2d"], ["sum2"]),
            helper.make_node("QuantizeLinear", ["sum2", "fine", "zero"], ["zq"]),
            helper.make_node("DequantizeLinear", ["zq", "fine", "zero"], ["z"]),
        ]
    )
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    step_off = tampered(model, "FULLY_CONNECTED", 2, lambda bias: bias + 2)  # two thirds of a step of y
    assert judged(model, step_off).verdict == "rounding"
    assert judged(model, tampered(model, "FULLY_CONNECTED", 1, lambda weight: -weight)).verdict == "wrong"


def test_a_real_output_is_measured_by_what_it_reaches_in_all_samples():
    """Not by the sample at hand: where the reference gives zeros only, any rounding would be beyond all numbers."""
    model = dense(((1, 0), (0, 1), (0, 0)), (0.0, 0.0))
    file = convert(model, Options(io="float32")).tflite
    shifted = convert(dense(((1, 0), (0, 1), (0, 0)), (2.0, 0.0)), Options(io="float32")).tflite
    assert judged(model, file).verdict == "equal"
    assert 2 < judged(model, shifted).lsb < 256


def test_a_real_output_that_is_only_limited_is_measured_by_the_scale_before_it_at_least():
    """All of it may be one number: then half a step of the tensor before is many 255ths of it."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Clip", ["d", "limit", "limit"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.int8(0), "z"),
                 numpy_helper.from_array(np.float32(1.2), "limit")]  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "limited", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert judged(model, convert(model, Options(io="float32")).tflite).verdict == "equal"


def test_a_newer_opset_is_computed_by_onnx_runtime_all_the_same(monkeypatch):
    """onnx's own evaluator has faults of its own; it is asked last."""
    monkeypatch.setattr(onnx.reference, "ReferenceEvaluator", None)
    model = dense()
    model.opset_import[0].version = 23
    assert judged(model, convert(model).tflite).verdict == "equal"
    assert judged(model, tampered(model, "FULLY_CONNECTED", 2, np.zeros_like)).verdict == "wrong"


def product(scale=40.0):
    """y = x (1, 16) times z (1, 16) transposed: a MatMul of two computed operands, whose products partly cancel."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "one", "zero"], ["xd"]),
        helper.make_node("QuantizeLinear", ["z", "one", "zero"], ["zq"]),
        helper.make_node("DequantizeLinear", ["zq", "one", "zero"], ["zd"]),
        helper.make_node("Transpose", ["zd"], ["zt"], perm=[1, 0]),
        helper.make_node("MatMul", ["xd", "zt"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 16]) for name in "xz"],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1])],
        [constant("one", 1.0), constant("zero", 0, np.int8), constant("scale", scale)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_computed_operand_whose_lowest_code_was_raised_is_noted_and_excuses_no_more():
    model = product()
    conversion = convert(model)
    noted = [note.kind for note in conversion.notes]
    assert "weights" in noted
    judgement = judge(model, conversion.tflite, noted, np.random.default_rng(0), samples=200)
    assert (judgement.verdict, judgement.lsb > 2) == ("noted", True)
    assert judge(model, conversion.tflite, (), np.random.default_rng(0), samples=200).verdict == "wrong"


def steep(slope=6.0):
    """y = HardSigmoid of x (1, 4) at 1.37 with a bias in steps much coarser than y's."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "step", "zero"], ["xd"]),
        helper.make_node("HardSigmoid", ["xd"], ["gate"], alpha=slope, beta=0.47),
        helper.make_node("QuantizeLinear", ["gate", "fine", "low"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "fine", "low"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "steep",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])],
        [
            constant("step", 1.37),
            constant("zero", 0, np.int8),
            constant("fine", 1 / 255),
            constant("low", -128, np.int8),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_an_offset_on_a_coarser_grid_is_noted_and_excuses_no_more():
    model = steep()
    conversion = convert(model)
    noted = [note.kind for note in conversion.notes]
    assert "grid" in noted
    assert judged(model, conversion.tflite, noted).verdict == "noted"
    lost = tampered(model, "DEPTHWISE_CONV_2D", 2, np.zeros_like)
    assert judged(model, lost, noted).verdict == "wrong"


def test_a_model_that_no_evaluator_computes_has_no_reference():
    model = dense()
    model.graph.node[3].op_type = "NoSuchOperator"
    assert judged(model, convert(dense()).tflite).verdict == "no reference"


ENDS = """
import json, os, sys, time
for case in range(int(sys.argv[3]), int(sys.argv[4])):
    print(json.dumps({"case": case, "phase": "convert"}), flush=True)
    if case == 1: os.abort()
    if case == 3: time.sleep(600)
    if case == 5: print(json.dumps({"case": case, "phase": "reference"}), flush=True); os.abort()
    print(json.dumps({"case": case, "verdict": "refused"}), flush=True)
"""


def test_a_process_that_ends_or_never_answers_costs_one_case():
    found = list(results("graphs", 0, 0, 7, seconds=5, child=(sys.executable, "-c", ENDS)))
    assert [(each["case"], each["verdict"]) for each in found] == [
        (0, "refused"),
        (1, "crash"),
        (2, "refused"),
        (3, "hang"),
        (4, "refused"),
        (5, "no reference"),
        (6, "refused"),
    ]
    assert found[1]["phase"] == "convert"


def test_a_child_that_cannot_start_is_an_error_and_no_finding():
    with pytest.raises(RuntimeError, match="before its first case"):
        list(results("graphs", 0, 0, 5, child=(sys.executable, "-c", "import no_such_module")))


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_case_is_the_same_whenever_it_is_drawn(kind):
    made = []
    for case in range(30):
        try:
            pair = drawn(kind, 5, case), drawn(kind, 5, case)
        except Unusable:
            continue
        assert pair[0].files == pair[1].files
        made.append(tuple(pair[0].files.values()))
    assert len(set(made)) == len(made) > 15


def test_every_verdict_of_a_run_is_in_the_table():
    records = [{"kind": "graphs", "verdict": "noted", "lsb": 7.5, "notes": {"derived": 1, "fused": 2}}]
    text = fuzz.table(records)
    assert "| noted: derived | 1 | 7.5 |" in text
    assert "| cases | 1 |" in text


def test_a_page_can_be_made_from_the_records_of_several_runs_with_each_case_once(tmp_path):
    first, second, page = tmp_path / "first.jsonl", tmp_path / "second.jsonl", tmp_path / "page.md"
    fuzz.main(["--kind", "graphs", "--seed", "1", "--cases", "4", "--records", str(first)])
    fuzz.main(["--kind", "graphs", "--seed", "1", "--seed", "2", "--cases", "4", "--records", str(second)])

    fuzz.main(["--read", str(first), "--read", str(second), "--write", str(page)])

    assert page.read_text().endswith("graphs: 4 cases of each of the seeds 1, 2\n")


def test_the_page_holds_the_table_of_its_run(tmp_path):
    page = tmp_path / "fuzz.md"
    fuzz.main(["--kind", "graphs", "--seed", "1", "--cases", "6", "--write", str(page)])
    assert page.read_text().startswith(fuzz.INTRODUCTION)
    assert page.read_text().endswith("graphs: 6 cases of each of the seeds 1\n")


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_short_run_finds_nothing(kind, capsys):
    assert fuzz.main(["--kind", kind, "--seed", "2026", "--cases", "40"]) == 0, capsys.readouterr().out
    assert "| cases |" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--cases", "--jobs"])
def test_a_run_of_nothing_is_wrong_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        fuzz.main([option, "0"])
    assert ended.value.code == 2
    assert "a run of nothing finds nothing" in capsys.readouterr().err
