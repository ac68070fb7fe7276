"""Small PyTorch models of every shape the converter's writer did not have in mind, trained a little, in both forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.nn.quantized import FloatFunctional

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.verifying.verification import compare_outputs, verify
from torch_side import bias_grid, export, training
from torch_side.qconfigs import qconfig_named

SAMPLES = 6


def conv(inputs, outputs, kernel=3, **options):
    """Conv, batch norm, ReLU: fused before training."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **options), nn.BatchNorm2d(outputs), nn.ReLU())


class Model(nn.Module):
    """Quantizes its inputs, dequantizes its outputs; `net` is what lies between."""

    shape = ((1, 3, 12, 10),)

    def __init__(self):
        super().__init__()
        self.stubs = nn.ModuleList(tq.QuantStub() for _ in self.shape)
        self.out = tq.DeQuantStub()
        self.build()

    def forward(self, *inputs):
        result = self.net(*(stub(x) for stub, x in zip(self.stubs, inputs, strict=True)))
        return tuple(map(self.out, result)) if isinstance(result, tuple) else self.out(result)


class Residual(Model):
    def build(self):
        self.first, self.second, self.sum = conv(3, 8, padding=1), conv(8, 8, padding=1), FloatFunctional()
        self.head = nn.Linear(8 * 120, 5)

    def net(self, x):
        x = self.first(x)
        return self.head(self.sum.add_relu(self.second(x), x).flatten(1))


class Dense(Model):
    """Every layer sees all before it: concatenations of different scales."""

    def build(self):
        self.a, self.b, self.c = conv(3, 4, padding=1), conv(7, 4, padding=1), conv(11, 6, 1)
        self.cats = nn.ModuleList(FloatFunctional() for _ in range(2))

    def net(self, x):
        first = self.cats[0].cat([x, self.a(x)], 1)
        return self.c(self.cats[1].cat([first, self.b(first)], 1))


class SqueezeExcite(Model):
    def build(self):
        self.body, self.pool = conv(3, 8, padding=1), nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU()), nn.Conv2d(4, 8, 1)
        self.gate, self.scale = nn.Hardsigmoid(), FloatFunctional()

    def net(self, x):
        x = self.body(x)
        return self.scale.mul(x, self.gate(self.excite(self.squeeze(self.pool(x)))))


class UNet(Model):
    def build(self):
        self.down, self.deep, self.up = conv(3, 6, padding=1), conv(6, 8, padding=1), conv(14, 4, padding=1)
        self.pool, self.nearest = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.cat, self.head = FloatFunctional(), nn.Conv2d(4, 2, 1)

    def net(self, x):
        skip = self.down(x)
        return self.head(self.up(self.cat.cat([self.nearest(self.deep(self.pool(skip))), skip], 1)))


class UNetBilinear(UNet):
    def build(self):
        super().build()
        self.nearest = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


class Separable1d(Model):
    shape = ((1, 4, 16),)

    def build(self):
        self.deep = nn.Sequential(nn.Conv1d(4, 4, 5, padding=2, groups=4), nn.BatchNorm1d(4), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6), nn.ReLU())
        self.head = nn.Linear(6 * 16, 3)

    def net(self, x):
        return self.head(self.wide(self.deep(x)).flatten(1))


class SeparableKernels(Model):
    def build(self):
        self.tall, self.flat = conv(3, 5, (3, 1), padding=(1, 0)), conv(5, 4, (1, 5), padding=(0, 2), stride=(1, 2))

    def net(self, x):
        return self.flat(self.tall(x))


class Transposed(Model):
    def build(self):
        self.body, self.up = conv(3, 6, padding=1), nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1)

    def net(self, x):
        return self.up(self.body(x))


class TransposedOdd(Transposed):
    def build(self):
        super().build()
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)


class TwoInputs(Model):
    shape = ((1, 3, 8, 6), (1, 5, 8, 6))

    def build(self):
        self.left, self.right, self.sum = conv(3, 4, padding=1), conv(5, 4, padding=1), FloatFunctional()

    def net(self, a, b):
        return self.sum.add(self.left(a), self.right(b))


class TwoOutputs(Model):
    def build(self):
        self.body, self.map, self.head = conv(3, 6, padding=1), nn.Conv2d(6, 2, 1), nn.Linear(6 * 120, 4)

    def net(self, x):
        x = self.body(x)
        return self.map(x), self.head(x.flatten(1))


class BatchOfFour(Residual):
    shape = ((4, 3, 12, 10),)


class Shuffle(Model):
    def build(self):
        self.body, self.after = conv(3, 8, padding=1), conv(8, 4, 3, padding=1, groups=2)

    def net(self, x):
        x = self.body(x)
        n, c, h, w = x.shape
        return self.after(x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class Pools(Model):
    def build(self):
        self.body, self.max, self.mean = (
            conv(3, 6, padding=1),
            nn.MaxPool2d(3, 2, padding=1),
            nn.AvgPool2d(3, 1, padding=1),
        )
        self.head = nn.Conv2d(6, 3, 3, stride=2, padding=1)

    def net(self, x):
        return self.head(self.mean(self.max(self.body(x))))


class Padded(Model):
    def build(self):
        self.pad, self.body = nn.ZeroPad2d((1, 2, 0, 1)), conv(3, 4, 3, stride=2)

    def net(self, x):
        return self.body(self.pad(x))


MODELS = (
    Residual, Dense, SqueezeExcite, UNet, UNetBilinear, Separable1d, SeparableKernels, Transposed, TransposedOdd,
    TwoInputs, TwoOutputs, BatchOfFour, Shuffle, Pools, Padded,
)  # fmt: skip
NO_QAT_FORM = {"Transposed", "TransposedOdd"}
"""torch 2.13 trains no fake-quant on their weights, so their QDQ form has none to keep."""
AVERAGES_IN_FLOAT = {"SqueezeExcite": 3, "Pools": 3, "UNetBilinear": 2}
"""LSB from ONNX Runtime at the outputs: the QDQ graph averages or interpolates in float and never quantizes that."""


def trained(model_class, qconfig):
    """QAT-prepared, ten steps on smooth noise, in evaluation mode with observers that stand still."""
    with torch.random.fork_rng(devices=[]), training.expected_warnings():
        torch.manual_seed(0)
        model = model_class().train()
        groups = []
        for path, module in model.named_modules():
            kinds = [type(child).__name__ for child in module] if isinstance(module, nn.Sequential) else []
            if kinds and kinds[0].startswith("Conv"):
                groups.append([f"{path}.{index}" for index in range(len(kinds))])
        if groups:
            model = tq.fuse_modules_qat(model, groups)
        model.qconfig = qconfig_named(qconfig).build()
        prepared = tq.prepare_qat(model)
        optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
        for _ in range(10):
            optimizer.zero_grad()
            result = prepared(*images(model_class, 8))
            loss = sum((each**2).mean() for each in (result if isinstance(result, tuple) else (result,)))
            loss.backward()
            optimizer.step()
        prepared.apply(tq.disable_observer)
    return prepared.eval()


def images(model_class, batches):
    """Random inputs, `batches` times the model's own batch, drawn from the current seed."""
    return [torch.randn(batches * shape[0], *shape[1:]) for shape in model_class.shape]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def converted(ready, model_class, tmp_path, exporter="torchscript"):
    examples = tuple(np.zeros(shape, np.float32) for shape in model_class.shape)
    export.export_onnx(ready, examples, tmp_path / "model.onnx", exporter)
    # What making codes of -128 safe for ARM costs is test_pair_sums.py's business: here x86 is held to the model.
    conversion = convert(tmp_path / "model.onnx", Options(weights="keep"))
    generator = torch.Generator().manual_seed(1)
    inputs = {
        name: torch.randn(SAMPLES * shape[0], *shape[1:], generator=generator).numpy()
        for name, shape in zip(conversion.graph.inputs, model_class.shape, strict=True)
    }
    return conversion, inputs


def check_operators(conversion, inputs, tmp_path):
    """All int8, and each operator alone within 1 LSB of ONNX Runtime wherever that quantizes its input."""
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    checked = verify(tmp_path / "model.onnx", conversion.graph, conversion.tflite, inputs)
    assert max(item.distance.worst for item in checked.operators) <= 1
    return checked


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("qconfig", ["qnnpack", "fbgemm", "tflite", "tflite_per_tensor"])
@pytest.mark.parametrize("model_class", MODELS, ids=lambda model: model.__name__)
def test_the_fake_quant_form_converts_and_says_what_onnx_runtime_says(model_class, qconfig, exporter, tmp_path):
    if exporter == "dynamo" and qconfig != "tflite":
        pytest.skip("one qconfig is enough to see that the other exporter's graph means the same")
    name = model_class.__name__
    frozen = export.freeze(trained(model_class, qconfig))
    examples = tuple(np.zeros(shape, np.float32) for shape in model_class.shape)
    bias_grid.round_frozen(frozen, examples)
    if name in NO_QAT_FORM:
        with pytest.raises(BridgeError, match="has no trained scale"):
            converted(frozen, model_class, tmp_path, exporter)
        return

    conversion, inputs = converted(frozen, model_class, tmp_path, exporter)

    checked = check_operators(conversion, inputs, tmp_path)
    for distance in checked.outputs["xnnpack"].values():
        assert distance.worst <= AVERAGES_IN_FLOAT.get(name, 1)
    trained_scales = {scale for scale, _ in export.activation_scales(frozen).values()}
    written = {
        float(t.q.scale) for t in conversion.graph.tensors.values() if t.qparams is not None and t.q.axis is None
    }
    assert {np.float32(scale) for scale in trained_scales} <= {np.float32(scale) for scale in written}


@pytest.mark.parametrize("qconfig", ["qnnpack", "fbgemm"])
@pytest.mark.parametrize("model_class", MODELS, ids=lambda model: model.__name__)
def test_the_converted_form_says_what_pytorchs_engine_says(model_class, qconfig, tmp_path):
    if model_class in (Transposed, TransposedOdd) and qconfig == "fbgemm":
        pytest.skip("per-channel transposed convolutions have no observer in torch 2.13's default qconfig")
    if model_class is Padded:
        pytest.skip("torch 2.13 exports no quantized Pad (catalogue entry M09)")
    engine = training.to_int8_engine(trained(model_class, qconfig), qconfig)
    examples = tuple(np.zeros(shape, np.float32) for shape in model_class.shape)
    bias_grid.round_engine(engine, examples)

    conversion, inputs = converted(engine, model_class, tmp_path)

    check_operators(conversion, inputs, tmp_path)
    said = []
    with torch.no_grad():
        for index in range(SAMPLES):
            parts = [
                torch.from_numpy(array[index * shape[0] : (index + 1) * shape[0]])
                for array, shape in zip(inputs.values(), model_class.shape, strict=True)
            ]
            result = engine(*parts)
            said.append([each.numpy() for each in (result if isinstance(result, tuple) else (result,))])
    expected = [np.concatenate(parts) for parts in zip(*said, strict=True)]
    for distance in compare_outputs(conversion.graph, conversion.tflite, inputs, expected)["xnnpack"].values():
        assert distance.equal >= 0.97  # ties of ADD and of averages (docs/architectures.md)
        assert distance.worst <= 1


def test_only_the_channel_shuffle_and_an_input_of_three_axes_need_a_transpose(tmp_path):
    found = {}
    for model_class in MODELS:
        if model_class.__name__ in NO_QAT_FORM:
            continue
        conversion, _ = converted(export.freeze(trained(model_class, "tflite")), model_class, tmp_path)
        found[model_class.__name__] = conversion.operators_out.get("TRANSPOSE", 0)

    assert {name: count for name, count in found.items() if count} == {"Shuffle": 1, "Separable1d": 1}
