"""Models of FX mode, however they were prepared, and what its BackendConfig left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.ao.quantization import backend_config as backends

import bridge
from bridge.errors import BridgeError
from bridge.from_torch import ready
from tests.bridge.from_torch.both_ways import assert_same_file, both_ways
from tests.bridge.from_torch.networks import INT8, INT8_AFTERWARDS, SHAPE, Drawn, common, converted, prepared

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

EXAMPLE = np.zeros(SHAPE, np.float32)
IMAGES = np.random.default_rng(0).standard_normal((16, *SHAPE[1:])).astype(np.float32)

BACKENDS = {
    "native": backends.get_native_backend_config, "qnnpack": backends.get_qnnpack_backend_config,
    "tensorrt": backends.get_tensorrt_backend_config, "executorch": backends.get_executorch_backend_config,
}  # fmt: skip
FLOWS = [
    (backend, qconfig)
    for backend in BACKENDS
    for qconfig in (("int8",) if backend == "tensorrt" else ("qnnpack", "x86"))
]


@pytest.fixture(autouse=True)
def engine(request, monkeypatch):
    """Operators of an engine run on the one that they were made for."""
    wanted = "x86" if "x86" in request.node.name else "qnnpack"
    if wanted not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this build of torch has no engine '{wanted}'")
    monkeypatch.setattr(torch.backends.quantized, "engine", wanted)


def assert_exact(model, tmp_path):
    """By torch.fx, all of it int8, near to what the model says; and the control's file, where torch can export it."""
    conversion = bridge.convert(model, EXAMPLE, tmp_path / "model.tflite")
    assert conversion.way == "torch.fx"
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    if not any(
        "reference" in type(module).__module__ for module in ready(model).modules()
    ):  # no ONNX form in torch 2.13
        assert_same_file(conversion.tflite, both_ways(model, EXAMPLE)[1].tflite)
    (found,) = bridge.verify(model, conversion, IMAGES)["xnnpack"].values()
    assert found.worst <= NEAR


NEAR = 4
"""LSB at the end of five layers whose roundings add up; the control has the same."""


@pytest.mark.parametrize(("backend", "qconfig"), FLOWS)
@pytest.mark.parametrize("reference", [False, True], ids=["prepare_qat_fx", "convert_to_reference_fx"])
def test_what_was_trained_is_in_the_file(backend, qconfig, reference, tmp_path):
    config = BACKENDS[backend]()
    model = prepared(common(), INT8 if qconfig == "int8" else qconfig, config)
    assert_exact(converted(model, reference=True, backend=config) if reference else model, tmp_path)


@pytest.mark.parametrize("qconfig", ["qnnpack", "x86"])
@pytest.mark.parametrize("form", ["prepare_fx", "convert_to_reference_fx", "convert_fx"])
def test_what_was_calibrated_is_in_the_file_and_a_prepared_model_is_converted_for_its_owner(qconfig, form, tmp_path):
    model = prepared(common(), qconfig, qat=False)
    if form != "prepare_fx":
        model = converted(model, reference=form == "convert_to_reference_fx")
    if form == "convert_fx" and qconfig == "qnnpack":  # torch 2.13's engine itself is up to 38 LSB off there
        assert_same_file(*(each.tflite for each in both_ways(model, EXAMPLE)))
    else:
        assert_exact(model, tmp_path)


@pytest.mark.parametrize(
    ("backend", "qconfig", "said"),
    [("native", INT8, "activations of type qint8"), ("executorch", INT8, "qint8"), ("tensorrt", "qnnpack", "quint8")],
)
def test_activations_that_the_backend_config_left_out_are_named(backend, qconfig, said, tmp_path):
    model = prepared(common(), qconfig, BACKENDS[backend]())
    with pytest.raises(BridgeError, match=f"weights only(.|\n)*{said}"):
        bridge.convert(model, EXAMPLE, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_calibrated_activations_that_the_backend_config_left_out_are_no_scales(tmp_path):
    with pytest.raises(BridgeError, match="no trained scale to keep"):
        bridge.convert(prepared(common(), INT8_AFTERWARDS, qat=False), EXAMPLE, tmp_path / "model.tflite")


@pytest.mark.parametrize("seed", range(30))
def test_a_drawn_network_gives_the_same_file_both_ways(seed):
    """The engine's form too, where it runs."""
    model = prepared(Drawn(seed), "qnnpack", seed=seed)
    chunked = any(kind == "chunk" for kind, _ in Drawn(seed).steps)
    try:
        by_fx, by_onnx = both_ways(model, EXAMPLE)
    except BridgeError as error:
        pytest.skip(str(error))
    if not chunked:  # torch's exporter writes two slices for it
        assert_same_file(by_fx.tflite, by_onnx.tflite)


def test_most_drawn_networks_are_converted():
    """Those that the bridge refuses are skipped above: were it to refuse all of them, nothing would be tested."""
    made = 0
    for seed in range(30):
        try:
            both_ways(prepared(Drawn(seed), "qnnpack", seed=seed), EXAMPLE)
            made += 1
        except BridgeError:
            continue
    assert made >= 25
