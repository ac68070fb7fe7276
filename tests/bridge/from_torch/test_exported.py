"""Graphs of torch.export and PT2E: exactly what they say, ranges that no exporter keeps, and what has no static scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from packaging.version import Version
from torch import nn

import bridge
from bridge.errors import BridgeError
from bridge.exact.convert import Options
from tests.bridge.from_torch.decomposed import OPS, SHAPE, Network, exported, pair

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

EXAMPLE = np.zeros(SHAPE, np.float32)
IMAGES = (np.random.default_rng(0).standard_normal((32, *SHAPE[1:])) * 3).astype(np.float32)


def distances(model, tmp_path, example=EXAMPLE, inputs=IMAGES, options=None):
    conversion = bridge.convert(model, example, tmp_path / "model.tflite", options)
    assert conversion.way == "torch.export"
    return [each for outputs in bridge.verify(model, conversion, inputs).values() for each in outputs.values()]


@pytest.mark.parametrize(
    ("dtype", "high"), [(torch.int8, None), (torch.uint8, None), (torch.uint8, 127), (torch.int8, 63)]
)
@pytest.mark.parametrize("form", ["ExportedProgram", "GraphModule"])
def test_what_the_graph_says_is_in_the_file_narrow_ranges_too(dtype, high, form, tmp_path):
    program = exported(Network(dtype, high))
    for found in distances(program if form == "ExportedProgram" else program.module(), tmp_path):
        assert found.worst <= 1
        assert found.equal >= 0.9  # the kernels round means on their own


class Narrow(nn.Module):
    """Codes up to 20 only: without its range every number above 2 would be another one."""

    def forward(self, x):
        return pair(torch.relu(pair(x, 0.1, 0, -20, 20)), 0.1, 0, -20, 20)


def test_a_range_of_codes_that_torchs_onnx_exporters_drop_is_kept(tmp_path):
    program = exported(Narrow(), (1, 8))
    conversion = bridge.convert(program, np.zeros((1, 8), np.float32), tmp_path / "model.tflite", Options(io="float32"))
    inputs = np.linspace(-8, 8, 64, dtype=np.float32).reshape(8, 8)
    for outputs in bridge.verify(program, conversion, inputs).values():
        assert [each.worst for each in outputs.values()] == [0]


class WeightQuantizedAsItRuns(nn.Module):
    """`fold_quantize=False`: the weight is float, and quantized in the graph."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("scales", torch.tensor([0.02, 0.03, 0.01]))
        self.register_buffer("points", torch.zeros(3, dtype=torch.int64))

    def forward(self, x):
        codes = OPS.quantize_per_channel(self.weight, self.scales, self.points, 0, -127, 127, torch.int8)
        weight = OPS.dequantize_per_channel(codes, self.scales, self.points, 0, -127, 127, torch.int8)
        return pair(nn.functional.linear(pair(x, 0.05, 0), weight), 0.05, 3)


def test_a_weight_that_is_quantized_in_the_graph_is_codes_in_the_file(tmp_path):
    inputs = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    for found in distances(exported(WeightQuantizedAsItRuns(), (1, 4)), tmp_path, np.zeros((1, 4), np.float32), inputs):
        assert found.worst <= 1


class Dynamic(nn.Module):
    def forward(self, x):
        scale, zero_point = OPS.choose_qparams(x, -128, 127, 1e-6, torch.int8)
        codes = OPS.quantize_per_tensor.tensor(x, scale, zero_point, -128, 127, torch.int8)
        return torch.relu(OPS.dequantize_per_tensor.tensor(codes, scale, zero_point, -128, 127, torch.int8))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Dynamic(), "finds a scale anew for every input"),
        (nn.ReLU(), "nothing in it is quantized"),
        (nn.Sequential(Narrow(), nn.Softsign()), "abs"),
    ],
    ids=["dynamic", "float", "an operator that the bridge does not write"],
)
def test_what_cannot_be_converted_is_refused_with_its_reason_and_leaves_no_file(model, said, tmp_path):
    with pytest.raises(BridgeError, match=said):
        bridge.convert(exported(model, (1, 8)), np.zeros((1, 8), np.float32), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


class InTraining(nn.Module):
    """Exported in training mode: the flags are in the graph."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.drop_in_place = nn.BatchNorm1d(8), nn.Dropout(), nn.Dropout(inplace=True)

    def forward(self, x):
        return pair(self.drop_in_place(self.drop(self.norm(pair(x, 0.05, 0)))), 0.05, 0)


@pytest.mark.skipif(Version(torch.__version__) < Version("2.5"), reason="torch 2.4 exports no dropout in place")
def test_a_graph_that_was_exported_in_training_mode_is_converted_for_inference(tmp_path):
    example = torch.zeros(4, 8)
    module = torch.export.export(InTraining().train(), (example,), strict=False).module()
    inputs = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    for found in distances(module, tmp_path, example.numpy(), inputs):
        assert found.worst <= 1


class Sums(nn.Module):
    """A sum without a scale."""

    def forward(self, x):
        x = pair(x, 0.05, 0)
        y = torch.sigmoid(x) + x
        return pair(y * y, 0.05, 0)


def test_what_a_quantizer_left_in_float_is_said_in_its_own_words(tmp_path):
    with pytest.raises(BridgeError, match="The quantizer left it in float"):
        bridge.convert(exported(Sums(), (1, 8)), np.zeros((1, 8), np.float32), tmp_path / "model.tflite")


# torchao ------------------------------------------------------------------------------------------------------------


def torchao_network(per_channel, qat, seed=0):
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    from tests.bridge.from_torch.networks import SHAPE as IMAGE

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
            self.drop, self.dense = nn.Dropout(), nn.Linear(8, 10)

        def forward(self, x):
            x = torch.relu(self.norm(self.first(x)))
            x = x + self.pointwise(torch.relu(self.depthwise(x)))
            x = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 2), 1).flatten(1)
            return self.dense(self.drop(x))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = torch.export.export(Residual().train(qat), (torch.randn(IMAGE),), strict=False).module()
        config = get_symmetric_quantization_config(is_per_channel=per_channel, is_qat=qat)
        prepared = (prepare_qat_pt2e if qat else prepare_pt2e)(module, XNNPACKQuantizer().set_global(config))
        for _ in range(3):
            prepared(torch.randn(IMAGE))
    return prepared, np.zeros(IMAGE, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("qat", [True, False], ids=["QAT", "PTQ"])
@pytest.mark.parametrize("form", ["prepared", "converted", "not folded"])
def test_models_of_torchao_prepared_or_converted(per_channel, qat, form, tmp_path):
    pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason="torchao is not installed")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    model, example = torchao_network(per_channel, qat)
    if form != "prepared":
        model = convert_pt2e(model, fold_quantize=form == "converted")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = np.random.default_rng(0).standard_normal((32, *example.shape[1:])).astype(np.float32)
    for found in distances(model, tmp_path, example, inputs):
        assert found.worst <= 2
        assert found.equal >= 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
