"""Planning, and what becomes of networks and conversions that fail."""

import dataclasses
import fnmatch
from types import SimpleNamespace

import numpy as np
import pytest

from bridge.errors import BridgeError
from compare.routes import model as routes
from compare.routes.registry import ROUTES
from compare.run import matrix, measuring
from compare.run.matrix import Options, plan
from compare.run.measuring import Converted, Listener, measure, network_record
from compare.subjects.mnist.networks import NETWORKS, TrainedNetwork

SPECS = {spec.id: spec for spec in NETWORKS}


def test_every_id_is_unique_and_starts_with_its_route():
    ids = [item.id for item in plan()]
    assert len(set(ids)) == len(ids)
    assert all(item.id.startswith(f"{item.route.name}/") for item in plan())


def test_every_variant_starts_from_a_known_network():
    assert {item.variant.network for item in plan()} <= set(SPECS)


def test_keras_is_converted_in_every_mode_and_both_ways_from_all_three_networks():
    assert len([item for item in plan(["keras-native"]) if "calibration" not in item.variant.settings]) == 3 * 5 * 2


def test_a_glob_chooses_by_id_and_a_prefix_is_enough():
    assert [item.id for item in plan(["torch-onnx2tf/qat-fb*"])] == ["torch-onnx2tf/qat-fbgemm"]
    assert {item.route.name for item in plan(["torch-onnx2tf"])} == {"torch-onnx2tf"}
    assert all(fnmatch.fnmatch(item.id, "keras-native/qat/*") for item in plan(["keras-native/qat"]))


def test_a_glob_that_matches_nothing_is_refused():
    with pytest.raises(BridgeError, match=r"--only 'tourch-\*': matches no artifact"):
        plan(["keras-native", "tourch-*"])


def test_a_route_without_its_package_says_how_to_get_it():
    route = ROUTES[0]
    needing = {
        modules: dataclasses.replace(route, here=dataclasses.replace(route.here, modules=modules))
        for modules in (("torch", "no_such_package"), ("numpy",))
    }
    assert (
        needing["torch", "no_such_package"].missing()
        == "route 'torch-exact': needs no_such_package, not installed; pip install '.[torch]'"
    )
    assert needing["numpy",].missing() is None


def tiny_data():
    from compare.subjects.mnist.dataset import Dataset

    images = np.zeros((20, 28, 28), np.uint8)
    labels = np.arange(20).astype(np.uint8) % 10
    return Dataset("tiny", images, labels, images, labels, "0" * 64, "zeros")


def network(spec_id, **changes):
    facts = {
        "spec": SPECS[spec_id],
        "arrays": {},
        "logits": np.eye(10, dtype=np.float32)[np.arange(20) % 10],
        "int8_engine": None,
        "int8_logits": None,
        "scales": {},
        "onnx": {},
        "refusals": {},
        "notes": {},
        "from_cache": False,
        "damaged_cache": False,
        "seconds": 1.0,
    }
    return TrainedNetwork(**(facts | changes))


QUIET = Listener(lambda *_: None, lambda *_: None)


def options(tmp_path):
    return Options(cache=tmp_path / "cache", fresh=False, folder=tmp_path, exporter="torchscript")


def test_routes_without_their_packages_are_skipped_rows_and_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(routes.importlib.util, "find_spec", lambda _: None)
    from compare.subjects.mnist.settings import preset

    settings = preset("quick", seed=0, init="torch")
    records = list(matrix.run(plan(["torch-onnx2tf/qat-qnnpack"]), tiny_data(), settings, options(tmp_path), QUIET))
    assert [(record.status, record.id) for record in records] == [("skipped", "torch-onnx2tf/qat-qnnpack")]
    assert "pip install" in records[0].reason


def test_a_file_that_the_runtime_refuses_is_a_failed_row_with_its_reason(tmp_path):
    (planned,) = plan(["torch-onnx2tf/qat-qnnpack"])
    junk = b"\x1c\x00\x00\x00TFL3" + bytes(64)
    broken = Converted(planned, network("torch/qat-qnnpack"), junk, None, "said by the converter\n", 1.0)
    (record,) = measure([broken], tiny_data(), tmp_path, QUIET)
    assert record.status == "failed"
    assert record.log.startswith("said by the converter")
    assert record.reason


def test_the_same_onnx_file_is_converted_once(tmp_path):
    (tmp_path / "one.onnx").write_bytes(b"same")
    (tmp_path / "two.onnx").write_bytes(b"same")
    (tmp_path / "three.onnx").write_bytes(b"other")
    first, second = plan(["torch-onnx2tf/qat-fbgemm", "torch-onnx2tf/qat-x86"])
    done = network("torch/qat-fbgemm", onnx={"qdq": tmp_path / "one.onnx"})
    known = {object(): [Converted(first, done, None, None, "", None)]}
    assert matrix._same_input(second, tmp_path / "two.onnx", known) is next(iter(known))
    assert matrix._same_input(second, tmp_path / "three.onnx", known) is None


def test_the_same_onnx_file_with_other_settings_is_converted_again(tmp_path):
    (tmp_path / "float.onnx").write_bytes(b"same")
    quantized, unquantized = plan(["torch-onnx2tf/float"])
    done = network("torch/float", onnx={"float": tmp_path / "float.onnx"})
    known = {object(): [Converted(quantized, done, None, None, "", None)]}
    assert matrix._same_input(unquantized, tmp_path / "float.onnx", known) is None


def test_a_networks_record_tells_how_far_its_int8_engine_is():
    logits = np.eye(10, dtype=np.float32)[np.arange(20) % 10]
    spec = network(
        "torch/qat-qnnpack",
        int8_engine="qnnpack",
        int8_logits=logits + np.float32(0.5),
        scales={"qdq": {"dense": (0.25, 3)}},
    )
    record = network_record(spec, np.arange(20) % 10)
    assert (record.accuracy, record.int8_engine_accuracy, record.int8_engine_max_lsb) == (1.0, 1.0, 2.0)
    assert record.output_scale == 0.25


def test_what_comes_from_the_int8_engine_is_held_against_the_engine():
    own, engine = np.zeros((2, 10), np.float32), np.ones((2, 10), np.float32)
    made = network("torch/qat-qnnpack", logits=own, int8_logits=engine)
    assert made.expected("qdq") is own
    assert made.expected("int8") is engine
    assert network("torch/qat-tflite", logits=own).expected("int8") is own


def test_a_control_is_held_against_the_file_it_controls():
    (controlling,) = plan(["torch-fake-quant/qat-tflite"])
    item = Converted(controlling, network("torch/qat-tflite"), b"", None, "", 1.0)
    record = SimpleNamespace(id=controlling.id, lsb=0.5)
    mine, other = np.zeros((4, 10), np.float32), np.zeros((4, 10), np.float32)
    other[0, 0] = 0.5
    assert measuring._control(item, record, {controlling.id: mine}) is None
    control = measuring._control(item, record, {controlling.id: mine, "torch-exact/qat-tflite": other})
    assert (control.other, control.equal, control.max_lsb) == ("torch-exact/qat-tflite", 0.975, 1.0)
