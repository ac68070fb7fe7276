"""`compare.run --model`: a team's own model, whatever it is made with, through every route that takes it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from compare.mismatches.parts.models import conv_relu, samples
from compare.report.records.run import ArtifactRecord, RunRecord, from_json
from compare.run.__main__ import app
from compare.tflite import file as tflite_file

RUNNER = CliRunner()
QAT = """
import torch, bridge
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

    def forward(self, image):
        return self.dense(torch.relu(self.conv(image)).flatten(1))

def make():
    torch.manual_seed(0)
    model = bridge.prepare(Net(), torch.zeros(1, 3, 8, 8))
    for _ in range(4):
        model(torch.randn(8, 3, 8, 8))
    return model.eval()

def program():
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    torch.manual_seed(0)
    images = torch.randn(1, 3, 8, 8)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config())
    prepared = prepare_pt2e(torch.export.export(Net().eval(), (images,)).module(), quantizer)
    prepared(images)
    return convert_pt2e(prepared)

def broken():
    raise ValueError("no weights <b>here</b>")

def summing():
    # A FloatFunctional is no module of the int8 engine, wherever torch keeps it.
    class Sum(Net):
        def __init__(self):
            super().__init__()
            self.quant, self.add = torch.ao.quantization.QuantStub(), torch.ao.nn.quantized.FloatFunctional()
            self.dequant = torch.ao.quantization.DeQuantStub()

        def forward(self, image):
            x = self.conv(self.quant(image))
            return self.dequant(self.dense(self.add.add(x, x).flatten(1)))

    torch.manual_seed(0)
    model = Sum().train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("qnnpack")
    torch.ao.quantization.prepare_qat(model, inplace=True)
    for _ in range(4):
        model(torch.randn(8, 3, 8, 8))
    return model.eval()

def engine():
    torch.backends.quantized.engine = "qnnpack"
    return torch.ao.quantization.convert(summing())

def dead():
    model = make()
    with torch.no_grad():
        for each in model.parameters():
            each.zero_()
    return model

def nothing():
    return {}

def untrained():
    return Net()

def ends():
    import os
    os._exit(3)
"""


def run(tmp_path: Path, *options: str) -> RunRecord:
    done = RUNNER.invoke(app, [*options, "--target", "none", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model", "models", "report.html", "report.json", "report.md",
    ]  # fmt: skip
    return from_json((tmp_path / "out" / "report.json").read_text())


def refused(*options: str) -> str:
    done = RUNNER.invoke(app, [*options, "--target", "none", "--out", "out"])
    assert done.exit_code == 2, done.output
    assert not Path("out").exists()
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


@pytest.fixture
def qdq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name a small QDQ model and its samples."""
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(conv_relu())
    np.savez("samples.npz", x=samples(8))
    return ["--model", "model.onnx", "--inputs", "samples.npz"]


@pytest.fixture
def torch_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(QAT)
    images = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)
    np.savez("samples.npz", image=images, labels=np.arange(12) % 5)
    return ["--inputs", "samples.npz"]


def test_an_onnx_file_without_labels_is_held_against_onnx_runtime(tmp_path: Path, qdq: list[str]) -> None:
    record = run(tmp_path, *qdq, "--only", "torch-exact")
    (network, floats), (artifact,) = record.networks, record.artifacts
    assert (network.id, network.framework, network.accuracy) == ("qdq", "own", 1.0)
    assert (floats.id, floats.output_scale) == ("float", None)
    assert (artifact.status, artifact.equal_outputs, artifact.max_difference_lsb) == ("measured", 1.0, 0.0)
    assert artifact.scale_count is not None
    assert artifact.scale_count.kept == artifact.scale_count.decided > 0
    assert artifact.layers
    assert artifact.latency_median_ms is not None
    assert (tmp_path / "out" / artifact.file).read_bytes()[4:8] == b"TFL3"  # type: ignore[operator]
    assert record.claims == ()
    assert any("No labels say" in note for note in record.notes)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "test image" not in page.replace("test images, or", "").replace("Test images, or", "")
    assert "claims" not in page


def test_a_relative_folder_is_as_good(qdq: list[str]) -> None:
    done = RUNNER.invoke(app, [*qdq, "--only", "torch-exact", "--target", "none", "--out", "out"])
    assert done.exit_code == 0, done.output
    record = from_json(Path("out/report.json").read_text())
    assert Path("out", record.artifacts[0].onnx_file).is_file()  # type: ignore[arg-type]


@pytest.mark.slow
def test_every_route_is_a_row_and_what_differs_is_explained(tmp_path: Path, qdq: list[str]) -> None:
    record = run(tmp_path, *qdq)
    rows = {artifact.id: artifact for artifact in record.artifacts}
    assert rows.keys() == {
        "torch-exact", "torch-fake-quant", "torch-onnx2tf", "torch-float-onnx2tf", "torch-ort-exact"
    }  # fmt: skip
    assert {artifact.status for artifact in rows.values()} == {"measured"}
    # The outputs are a map: what agrees and what changed are counted in the steps of each row's own form.
    for artifact in rows.values():
        assert artifact.accuracy == 1 - artifact.disagreements / 8  # type: ignore[operator]
    assert {network.accuracy for network in record.networks} == {1.0}
    control = rows["torch-fake-quant"].control
    assert control is not None
    assert (control.other, control.equal) == ("torch-exact", 1.0)
    assert rows["torch-onnx2tf"].status == "measured"
    assert "M13" in {seen.mismatch for seen in rows["torch-onnx2tf"].seen}
    assert any(repair.mismatches == ("M13",) and repair.figures for repair in rows["torch-onnx2tf"].repairs)
    assert rows["torch-exact"].max_difference_lsb == 0.0


def artifact_file(tmp_path: Path, artifact: ArtifactRecord) -> bytes:
    return (tmp_path / "out" / str(artifact.file)).read_bytes()


def read(content: bytes) -> float:
    """The scale of a file's first output."""
    file = tflite_file.read(content, "it")
    return file.tensors[file.outputs[0]].scale[0]


def test_a_qat_models_own_outputs_are_the_truth_and_labels_give_accuracies(
    tmp_path: Path, torch_model: list[str]
) -> None:
    record = run(tmp_path, *torch_model, "--model", "mine:make", "--only", "torch-exact")
    (artifact,) = record.artifacts
    assert (artifact.network, artifact.equal_outputs) == ("qdq", 1.0)
    assert record.networks[0].output_scale == pytest.approx(read(artifact_file(tmp_path, artifact)), rel=1e-6)
    assert 0.0 <= record.networks[0].accuracy < 1.0
    assert artifact.accuracy == record.networks[0].accuracy
    assert not any("No labels say" in note for note in record.notes)


@pytest.mark.parametrize(("factory", "forms"), [("summing", ["qdq", "int8", "float"]), ("engine", ["int8", "float"])])
def test_a_model_is_of_the_int8_engine_when_its_layers_are_and_is_brought_there_otherwise(
    tmp_path: Path, torch_model: list[str], factory: str, forms: list[str]
) -> None:
    record = run(tmp_path, *torch_model, "--model", f"mine:{factory}", "--only", "torch*exact")
    assert [(artifact.network, artifact.status) for artifact in record.artifacts] == [
        (form, "measured") for form in forms
    ]


def test_what_no_engine_of_pytorch_runs_is_said(tmp_path: Path, torch_model: list[str]) -> None:
    record = run(tmp_path, *torch_model, "--model", "mine:make", "--only", "torch-exact")
    assert any("uint8 activations only" in note for note in record.notes)


def test_a_model_that_nobody_quantized_is_compared_by_what_estimates_scales(
    tmp_path: Path, torch_model: list[str]
) -> None:
    record = run(tmp_path, *torch_model, "--model", "mine:untrained", "--only", "torch-ort-exact")
    (artifact,) = record.artifacts
    assert (artifact.network, artifact.status, artifact.scale_count) == ("float", "measured", None)
    assert any("Nothing in the model is quantized" in note for note in record.notes)


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="PT2E is torchao's")
@pytest.mark.slow
def test_a_program_of_pt2e_goes_by_the_exact_bridge(tmp_path: Path, torch_model: list[str]) -> None:
    record = run(tmp_path, *torch_model, "--model", "mine:program")
    rows = {each.id: each for each in record.artifacts}
    assert {"torch-program-exact", "torch-exact", "torch-onnx2tf", "torch-float-onnx2tf"} <= rows.keys()
    assert {each.reason for each in rows.values()} == {None}
    assert rows["torch-program-exact"].equal_outputs >= 0.95  # type: ignore[operator]


def two_in_three_out() -> bytes:
    """Inputs a (N, 2, 4, 4) and b (N, 6); outputs of three, two and one axes beside the batch."""
    nodes, constants = [], []
    for name in ("a", "b"):
        constants += [
            helper.make_tensor(f"{name}s", TensorProto.FLOAT, [], [0.02]),
            helper.make_tensor(f"{name}z", TensorProto.INT8, [], [0]),
        ]
        nodes += [
            helper.make_node("QuantizeLinear", [name, f"{name}s", f"{name}z"], [f"{name}q"]),
            helper.make_node("DequantizeLinear", [f"{name}q", f"{name}s", f"{name}z"], [f"{name}d"]),
        ]
    constants.append(helper.make_tensor("shape", TensorProto.INT64, [3], [0, 2, 3]))
    nodes += [
        helper.make_node("Relu", ["ad"], ["ar"]),
        helper.make_node("QuantizeLinear", ["ar", "as", "az"], ["arq"]),
        helper.make_node("DequantizeLinear", ["arq", "as", "az"], ["map"]),
        helper.make_node("Reshape", ["bd", "shape"], ["boxes"]),
        helper.make_node("Relu", ["bd"], ["br"]),
        helper.make_node("QuantizeLinear", ["br", "bs", "bz"], ["brq"]),
        helper.make_node("DequantizeLinear", ["brq", "bs", "bz"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "two", [value("a", TensorProto.FLOAT, [1, 2, 4, 4]), value("b", TensorProto.FLOAT, [1, 6])],
        [value("map", TensorProto.FLOAT, [1, 2, 4, 4]), value("boxes", TensorProto.FLOAT, [1, 2, 3]),
         value("scores", TensorProto.FLOAT, [1, 6])], constants,
    )  # fmt: skip
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return content


def test_several_inputs_and_outputs_of_any_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.onnx").write_bytes(two_in_three_out())
    random = np.random.default_rng(0)
    np.savez(
        "samples.npz", b=random.standard_normal((6, 6)), a=random.standard_normal((6, 2, 4, 4)), labels=np.zeros(6, int)
    )
    record = run(tmp_path, "--model", "two.onnx", "--inputs", "samples.npz", "--only", "torch-exact")
    (artifact,) = record.artifacts
    assert (artifact.status, artifact.equal_outputs, artifact.disagreements) == ("measured", 1.0, 0)
    assert any("no scores of classes" in note for note in record.notes)
    assert any("they were not used" in note for note in record.notes)


@pytest.mark.slow
def test_files_that_list_inputs_and_outputs_in_another_order_are_fed_and_read_in_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx2tf's file takes b before a, and gives boxes before the map."""
    monkeypatch.chdir(tmp_path)
    Path("two.onnx").write_bytes(two_in_three_out())
    random = np.random.default_rng(0)
    inside = {"a": random.uniform(-2, 2, (6, 2, 4, 4)), "b": random.uniform(-2, 2, (6, 6))}  # nothing clips
    np.savez("samples.npz", **inside)
    record = run(tmp_path, "--model", "two.onnx", "--inputs", "samples.npz", "--only", "torch-onnx2tf")
    (artifact,) = record.artifacts
    file = tflite_file.read(artifact_file(tmp_path, artifact), "it")
    assert [len(file.tensors[index].shape) for index in (*file.inputs, *file.outputs)] == [2, 4, 3, 4, 2]
    assert artifact.status == "measured"
    assert artifact.max_difference_lsb is not None
    assert artifact.max_difference_lsb < 3


def in_fours() -> bytes:
    """Four samples at a time: x (4, 6) to its positive part."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "z"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "fours", [value("x", TensorProto.FLOAT, [4, 6])], [value("y", TensorProto.FLOAT, [4, 6])],
        [helper.make_tensor("s", TensorProto.FLOAT, [], [0.02]), helper.make_tensor("z", TensorProto.INT8, [], [0])],
    )  # fmt: skip
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return content


def test_a_model_that_takes_several_samples_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fours.onnx").write_bytes(in_fours())
    rows = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    np.savez("samples.npz", x=rows)
    record = run(tmp_path, "--model", "fours.onnx", "--inputs", "samples.npz", "--only", "torch-exact")
    (artifact,) = record.artifacts
    assert (artifact.status, artifact.equal_outputs, record.data.test_images) == ("measured", 1.0, 12)
    np.savez("samples.npz", x=rows[:7])
    again = RUNNER.invoke(app, ["--model", "fours.onnx", "--inputs", "samples.npz", "--target", "none", "--out", "new"])
    assert again.exit_code == 2
    assert "7 samples, and the model takes 4 at a time" in " ".join(again.output.split())
    assert not Path("new").exists()


def test_own_calibration_data_is_given_to_what_calibrates(tmp_path: Path, qdq: list[str]) -> None:
    np.savez("samples.npz", x=samples(8), calibration=samples(3))
    record = run(tmp_path, *qdq, "--only", "torch-exact")
    assert record.data.train_images == 3
    assert any("your calibration data" in note for note in record.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "model.onnx"], "belong together"),
        (["--inputs", "samples.npz"], "belong together"),
        (["--model", "gone.onnx", "--inputs", "samples.npz"], "gone.onnx"),
        (["--model", "model.onnx", "--inputs", "gone.npz"], "gone.npz"),
        (["--model", "model.onnx", "--inputs", "samples.npz", "--quick"], "about the MNIST networks"),
        (["--model", "model.onnx", "--inputs", "samples.npz", "--only", "no-*"], "--only 'no-*': matches no route"),
        (
            ["--model", "model.onnx", "--inputs", "samples.npz", "--toolchain", "no-*"],
            "--toolchain 'no-*': matches no toolchain",
        ),
        (["--model", "no_such_module:make", "--inputs", "samples.npz"], "No module named 'no_such_module'"),
    ],
)
@pytest.mark.usefixtures("qdq")
def test_options_that_do_not_fit_are_refused(options: list[str], said: str) -> None:
    assert said in refused(*options)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": samples(8), "labels": np.zeros(7, np.int64)}, "different numbers of samples"),
        ({"y": samples(8), "z": samples(8)}, "no array 'x'"),
        ({"x": samples(8), "calibration": np.zeros((3, 7), np.float32)}, "has shape (3, 7), and the samples"),
    ],
)
def test_samples_that_do_not_fit_are_refused(qdq: list[str], arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez("samples.npz", **arrays)
    assert said in refused(*qdq)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("broken", "ValueError: no weights <b>here</b>"),
        ("gone", "AttributeError"),
        ("nothing", "takes a torch.nn.Module, not dict"),
        ("dead", "nothing but zeros"),
        ("ends", "process"),
    ],
)
def test_a_factory_that_gives_no_model_is_refused_with_what_it_said(
    torch_model: list[str], factory: str, said: str
) -> None:
    assert said in refused(*torch_model, "--model", f"mine:{factory}")


TEAM = """
import numpy as np

def data():
    random = np.random.default_rng(0)
    return [(random.standard_normal((3, 8, 8)).astype(np.float32), index % 5) for index in range(12)]

def half(outputs, labels):
    assert outputs[0].shape == (12, 5) and labels.shape == (12,)
    return 0.5

def percent(outputs, labels):
    return 50.0

def fails(outputs, labels):
    raise KeyError("boxes")
"""


def test_a_data_set_and_a_metric_of_the_teams_own(tmp_path: Path, torch_model: list[str]) -> None:
    Path("team_task.py").write_text(TEAM)
    own = ["--model", "mine:make", "--dataset", "team_task:data"]
    assert "is 50.0" in refused(*own, "--metric", "team_task:percent")
    assert "KeyError: 'boxes'" in refused(*own, "--metric", "team_task:fails")
    assert "is no metric" in refused(*own, "--metric", "top3")
    assert "takes one output (classes, height, width)" in refused(*own, "--metric", "miou")
    assert "both give the samples" in refused(*own, *torch_model)
    record = run(tmp_path, *own, "--metric", "team_task:half", "--only", "torch-exact")
    assert {each.accuracy for each in record.networks} == {0.5}
    assert [(each.accuracy, each.accuracy_drop) for each in record.artifacts] == [(0.5, 0.0)]


def test_labels_that_are_no_classes_of_the_model_are_refused(torch_model: list[str]) -> None:
    np.savez("samples.npz", image=np.ones((6, 3, 8, 8), np.float32), labels=np.arange(6))
    assert "classes 0 to 4" in refused(*torch_model, "--model", "mine:make")
    np.savez("samples.npz", image=np.ones((6, 3, 8, 8), np.float32))
    assert "needs labels" in refused(*torch_model, "--model", "mine:make", "--metric", "top5")


LOOP = """
import numpy as np, torch
from torch import nn

def fit(model, data=None):
    assert data in (None, "here")
    torch.manual_seed(1)
    images, labels = torch.randn(40, 3, 8, 8), torch.arange(40) % 5
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

def raises(model):
    raise RuntimeError("out of data")

def wrong(model):
    return "done"
"""


@pytest.mark.slow
def test_a_teams_own_loop_trains_every_qconfig_and_a_seed_decides(tmp_path: Path, torch_model: list[str]) -> None:
    Path("loop.py").write_text(LOOP)
    own = [*torch_model, "--model", "mine:untrained", "--train", "loop:fit", "--data", "here", "--seed", "3"]
    record = run(tmp_path, *own, "--only", "torch*exact")
    names = {"qat-fbgemm", "qat-x86", "qat-qnnpack", "qat-symmetric", "qat-symmetric-per-channel", "qat-tflite", "qat-tflite_per_tensor"}  # fmt: skip
    forms = {network.id for network in record.networks}
    assert forms == {
        "float", "prepare.qdq", *(f"{name}.qdq" for name in names),
        "qat-fbgemm.int8", "qat-x86.int8", "qat-qnnpack.int8",
    }  # fmt: skip
    assert {artifact.status for artifact in record.artifacts} == {"measured"}
    assert {artifact.network for artifact in record.artifacts} == forms
    best = next(artifact for artifact in record.artifacts if artifact.network == "prepare.qdq")
    assert best.max_difference_lsb is not None
    assert best.max_difference_lsb <= 1.01


def test_qconfigs_are_chosen_by_globs_and_a_loop_that_does_not_train_is_refused(
    tmp_path: Path, torch_model: list[str]
) -> None:
    Path("loop.py").write_text(LOOP)
    own = [*torch_model, "--model", "mine:untrained", "--only", "torch*exact"]
    assert "RuntimeError: out of data" in refused(*own, "--train", "loop:raises")
    assert "returns str" in refused(*own, "--train", "loop:wrong")
    assert "--qconfig 'nope': matches no qconfig" in refused(*own, "--train", "loop:fit", "--qconfig", "nope")
    assert "Give --train" in refused(*own, "--qconfig", "tflite")
    assert "is quantized already" in refused(*torch_model, "--model", "mine:make", "--train", "loop:fit")
    Path("it.onnx").write_bytes(conv_relu())
    assert "is a file" in refused(*torch_model, "--model", "it.onnx", "--train", "loop:fit")
    record = run(tmp_path, *own, "--train", "loop:fit", "--qconfig", "tflite")
    assert {network.id for network in record.networks} == {"float", "qat-tflite.qdq"}
