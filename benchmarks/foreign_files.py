"""Files made by other tools, and files in which exactly one thing was broken by a seeded random choice.

What was planted is known; `benchmarks/doctor.py` asks the doctor, and a test demands that it finds that and nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bridge.exact.convert import convert
from bridge.exact.graph import Node, QParams, Tensor
from compare.subjects.case import Case
from compare.tflite.edit import with_tensors
from compare.tflite.graph import open_tflite


@dataclass(frozen=True)
class Planted:
    """One file or pair of files, and the truth about it."""

    name: str
    made: str
    """By which tool and how, in words."""
    case: Callable[[], Case]
    faults: tuple[str, ...] = ()
    """Ids of the catalogue that are truly there."""
    consequences: tuple[str, ...] = ()
    """Ids that a planted fault may rightly bring along: a changed scale leaves the bias of the next layer at the old one."""
    by_a_tool: bool = False
    """As a tool left it; nothing was broken on purpose."""
    unknown: bool = False
    """Numbers of the file are others in a way that the catalogue does not know: something must be unexplained."""
    another: bool = False
    """The file is another network's: that must be said."""
    unfindable: bool = False
    """Nothing that is given can show it: the doctor must say what it did not check."""


# ------------------------------------------------------------------------------------------------ sound files


@cache
def _network(qconfig: str, seed: int = 1) -> Any:
    """Three colours, a strided and a depthwise convolution, a residual addition, a pool, a dense layer; trained-looking."""
    import torch
    from torch import nn
    from torch.ao import quantization as tq
    from torch.ao.nn.quantized import FloatFunctional

    from torch_side.export import freeze
    from torch_side.qconfigs import qconfig_named
    from torch_side.training import expected_warnings

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU())
            self.point = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
            self.add, self.pool, self.dense = FloatFunctional(), nn.MaxPool2d(2), nn.Linear(8 * 3 * 3, 5)

        def forward(self, x: Any) -> Any:
            x = self.stem(self.quant(x))
            x = self.add.add(x, self.point(self.depth(x)))
            return self.dequant(self.dense(torch.flatten(self.pool(x), 1)))

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), expected_warnings():
        torch.manual_seed(seed)
        model = Network().train()
        fused: Any = tq.fuse_modules_qat(model, [[f"{name}.{i}" for i in "012"] for name in ("stem", "depth", "point")])
        fused.qconfig = qconfig_named(qconfig).build()
        prepared: Any = tq.prepare_qat(fused)
        for _ in range(20):
            prepared(torch.from_numpy(images(16)))
        prepared.apply(tq.disable_observer)
        return prepared.eval(), freeze(prepared)


def images(count: int = 24, seed: int = 7) -> np.ndarray:
    """float32 (count, 3, 12, 12) in 0..1: smooth blobs of different colours."""
    random = np.random.default_rng(seed)
    places = np.linspace(0, 1, 12, dtype=np.float32)
    y, x = np.meshgrid(places, places, indexing="ij")
    centres, colours = random.random((count, 2, 1, 1)), random.random((count, 3, 1, 1))
    blobs = np.exp(-6 * ((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2))
    found: np.ndarray = (colours * blobs[:, None]).astype(np.float32)
    return found


@cache
def _exported(qconfig: str, engine: str | None = None, seed: int = 1) -> bytes:
    from torch_side.export import export_onnx

    prepared, frozen = _network(qconfig, seed)
    model = frozen
    if engine is not None:
        from compare.mismatches.parts.two_forms import converted

        model = converted(prepared, engine)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, images(1), path)
        return path.read_bytes()


@cache
def _exact(content: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        return convert(path).tflite


def exact(qconfig: str = "tflite") -> Case:
    """The network above through the exact bridge: the sound pair that the mutations break."""
    content = _exported(qconfig)
    return Case(onnx=content, tflite=_exact(content), inputs={"input": images()})


def of_another_network(seed: int) -> Case:
    """The model beside the file of a network of the same shapes with other weights."""
    return replace(exact(), tflite=_exact(_exported("tflite", seed=2 + seed)))


def of_another_topology(seed: int) -> Case:  # noqa: ARG001 - there is one
    """The model beside the file of a network with other layers and the same inputs."""
    return replace(exact(), tflite=ort_static(_float_onnx()).tflite)


def _through_onnx2tf(content: bytes) -> Case:
    from compare.mismatches.parts.models import through_onnx2tf

    tflite = through_onnx2tf(content, images().transpose(0, 2, 3, 1))
    return Case(onnx=content, tflite=tflite, inputs={"input": images()})


@cache
def _keras() -> Any:
    from compare.mismatches.parts.small_keras import network
    from keras_side.legacy import import_keras

    layers = import_keras().layers
    return network(
        layers.Conv2D(6, 3, activation="relu", name="conv"),
        layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
        layers.AveragePooling2D(2, name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(4, name="dense"),
        layers.Softmax(name="softmax"),
        seed=3,
    )


@cache
def _keras_tflite(mode: str, entry: str, qat: bool) -> bytes:
    from bridge import via_tflite_converter
    from compare.mismatches.parts.small_keras import images as grey
    from compare.mismatches.parts.small_keras import with_measured_ranges

    model = _keras()
    if qat:
        from keras_side.qat import quantize_whole

        model = with_measured_ranges(quantize_whole(model), _keras())
    return via_tflite_converter.convert(model, mode, entry, representative=grey())


def keras(mode: str, entry: str = "concrete", *, qat: bool = False) -> Case:
    """TensorFlow's converter on a small Keras network with a pool and a softmax."""
    from compare.mismatches.parts.small_keras import images as grey

    tflite = _keras_tflite(mode, entry, qat)
    return Case(tflite=tflite, inputs={open_tflite(tflite).graph.inputs[0]: grey()})


@cache
def _float_onnx() -> bytes:
    import torch
    from torch import nn

    torch.manual_seed(2)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 25, 4)).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            layers, (torch.zeros(1, 3, 12, 12),), str(path), dynamo=False, opset_version=17, input_names=["input"]
        )
        return path.read_bytes()


@cache
def _statically_quantized(content: bytes, unsigned: bool) -> bytes:
    """ONNX Runtime's own static quantizer: Q/DQ, symmetric per-channel int8 weights."""
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc, no-any-unimported]
        def __init__(self) -> None:
            self.rest = iter([{"input": sample[None]} for sample in images()])

        def get_next(self) -> Any:
            return next(self.rest, None)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(content)
        ort.quantize_static(
            str(source), str(target), Reader(), quant_format=ort.QuantFormat.QDQ, per_channel=True,
            activation_type=ort.QuantType.QUInt8 if unsigned else ort.QuantType.QInt8, weight_type=ort.QuantType.QInt8,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )  # fmt: skip
        return target.read_bytes()


def ort_static(content: bytes, *, unsigned: bool = False) -> Case:
    """ONNX Runtime's quantizer, then the exact bridge."""
    quantized = _statically_quantized(content, unsigned)
    return Case(onnx=quantized, tflite=_exact(quantized), inputs={"input": images()})


# ------------------------------------------------------------------------------------------------ mutations

Changed = dict[str, Tensor]
Mutation = Callable[[Case, np.random.Generator], Changed]


def broken(make: Callable[[], Case], mutation: Mutation, seed: int) -> Case:
    """The case with what the mutation changed in its .tflite."""
    case = make()
    assert case.tflite is not None  # noqa: S101 - every sound case has one
    return replace(case, tflite=with_tensors(case.tflite, mutation(case, np.random.default_rng(seed))))


def _nodes(case: Case, *ops: str) -> list[Node]:
    assert case.file is not None  # noqa: S101 - every sound case has one
    return [node for node in case.file.graph.nodes if node.op in ops]


def _one(case: Case, random: np.random.Generator, *ops: str) -> Node:
    nodes = _nodes(case, *ops)
    return nodes[int(random.integers(len(nodes)))]


def _tensor(case: Case, name: str) -> Tensor:
    assert case.file is not None  # noqa: S101 - every sound case has one
    return case.file.graph.tensors[name]


WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def weight_at_minus_128(case: Case, random: np.random.Generator) -> Changed:
    """The lowest weight code of one layer becomes -128."""
    weight = _tensor(case, _one(case, random, *WEIGHTED).inputs[1])
    data = weight.values.copy()
    data.flat[int(data.argmin())] = -128
    return {weight.name: replace(weight, data=data)}


def zero_points_of_uint8(case: Case, random: np.random.Generator) -> Changed:  # noqa: ARG001 - all of them
    """Every activation's zero point as the unsigned type has it: 128 higher."""
    assert case.file is not None  # noqa: S101
    return {
        name: replace(tensor, qparams=QParams(tensor.q.scale, np.asarray(tensor.q.zero_point + 128, np.int32)))
        for name, tensor in case.file.graph.tensors.items()
        if tensor.qparams is not None and tensor.dtype == np.int8 and not tensor.is_constant
    }


_COPYING = ("RESHAPE", "MAX_POOL_2D", "AVERAGE_POOL_2D")


def scaled_output(*ops: str) -> Mutation:
    """The output scale of one such operator, times 1.2 to 2; what only copies it goes along."""

    def mutate(case: Case, random: np.random.Generator) -> Changed:
        output = _tensor(case, _one(case, random, *ops).outputs[0])
        qparams = QParams(output.q.scale * np.float32(random.uniform(1.2, 2.0)), output.q.zero_point)
        names = [output.name]
        for node in _nodes(case, *_COPYING):  # in execution order
            if node.inputs[0] in names:
                names.append(node.outputs[0])
        return {name: replace(_tensor(case, name), qparams=qparams) for name in names}

    return mutate


def weight_zero_point(case: Case, random: np.random.Generator) -> Changed:
    """The weights of the dense layer are stored with a zero point other than 0, and stand for the same numbers."""
    weight = _tensor(case, _one(case, random, "FULLY_CONNECTED").inputs[1])
    shift = int(random.integers(3, 9))
    data = np.clip(weight.values.astype(np.int32) + shift, -128, 127).astype(np.int8)
    zero = np.full_like(weight.q.zero_point, shift)
    return {weight.name: replace(weight, data=data, qparams=QParams(weight.q.scale, zero, weight.q.axis))}


def bias_scale(case: Case, random: np.random.Generator) -> Changed:
    """One bias says another scale than input scale x weight scale, and its codes fit that."""
    bias = _tensor(case, _one(case, random, *WEIGHTED).inputs[2])
    factor = float(random.uniform(1.5, 4.0))
    codes = np.rint(bias.values / factor).astype(np.int32)
    scale = (bias.q.scale * factor).astype(np.float32)
    return {bias.name: replace(bias, data=codes, qparams=QParams(scale, bias.q.zero_point, bias.q.axis))}


def bias_saturated(case: Case, random: np.random.Generator) -> Changed:
    """One channel's bias is at the end of int32."""
    bias = _tensor(case, _one(case, random, *WEIGHTED).inputs[2])
    data = bias.values.copy()
    data[int(random.integers(data.size))] = np.iinfo(np.int32).max
    return {bias.name: replace(bias, data=data)}


def bias_like_a_shape(case: Case, random: np.random.Generator) -> Changed:
    """One bias in the order 0, 2, 3, ..., n-1, 1, with the numbers it stands for."""
    bias = _tensor(case, _one(case, random, "CONV_2D").inputs[2])
    real = np.concatenate([bias.real[:1], bias.real[2:], bias.real[1:2]])
    return {bias.name: replace(bias, data=np.rint(real / bias.q.scale).astype(np.int32))}


def flatten_order(case: Case, random: np.random.Generator) -> Changed:  # noqa: ARG001 - there is one
    """The dense weights as ONNX has them, channels first."""
    (dense,) = _nodes(case, "FULLY_CONNECTED")
    weight = _tensor(case, dense.inputs[1])
    moved = weight.values.reshape(-1, 3, 3, 8).transpose(0, 3, 1, 2).reshape(weight.shape)
    return {weight.name: replace(weight, data=np.ascontiguousarray(moved))}


def colours_reversed(case: Case, random: np.random.Generator) -> Changed:  # noqa: ARG001 - there is one
    """The first layer reads BGR."""
    weight = _tensor(case, _nodes(case, "CONV_2D")[0].inputs[1])
    return {weight.name: replace(weight, data=np.ascontiguousarray(weight.values[..., ::-1]))}


def softmax_scale(case: Case, random: np.random.Generator) -> Changed:
    """SOFTMAX writes another scale than 1/256."""
    return scaled_output("SOFTMAX")(case, random)


def activation_scale(case: Case, random: np.random.Generator) -> Changed:
    """The scale of one layer's output is not the one that training decided."""
    return scaled_output("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "FULLY_CONNECTED")(case, random)


def lost_tap(case: Case, random: np.random.Generator) -> Changed:
    """One tap of every channel of one convolution is zero."""
    weight = _tensor(case, _one(case, random, "CONV_2D", "DEPTHWISE_CONV_2D").inputs[1])
    data = weight.values.copy()
    height, width = (int(random.integers(size)) for size in data.shape[1:3])
    data[:, height, width, :] = 0
    return {weight.name: replace(weight, data=data)}


def shrunk_channel(case: Case, random: np.random.Generator) -> Changed:
    """One input channel of the dense layer, or of a convolution, counts a third."""
    weight = _tensor(case, _one(case, random, "CONV_2D", "FULLY_CONNECTED").inputs[1])
    data = weight.values.copy()
    data[int(random.integers(len(data)))] //= 3
    return {weight.name: replace(weight, data=data)}


def swapped_biases(case: Case, random: np.random.Generator) -> Changed:
    """Two neighbours of one bias, far apart in value, changed places."""
    bias = _tensor(case, _one(case, random, "CONV_2D", "DEPTHWISE_CONV_2D").inputs[2])
    data = bias.values.copy()
    low, high = int(bias.real.argmin()), int(bias.real.argmax())
    data[low], data[high] = (
        np.rint(bias.real[[high, low]] / np.broadcast_to(bias.q.scale, data.shape)[[low, high]])
    ).astype(np.int32)
    return {bias.name: replace(bias, data=data)}


def reversed_bias(case: Case, random: np.random.Generator) -> Changed:
    """One bias stands in reverse order."""
    bias = _tensor(case, _one(case, random, *WEIGHTED).inputs[2])
    return {bias.name: replace(bias, data=np.ascontiguousarray(bias.values[::-1]))}


def rolled_weights(case: Case, random: np.random.Generator) -> Changed:
    """The weights of one layer are rolled by one along one axis."""
    weight = _tensor(case, _one(case, random, *WEIGHTED).inputs[1])
    axes = [axis for axis, size in enumerate(weight.shape) if size > 1]
    return {weight.name: replace(weight, data=np.roll(weight.values, 1, axes[int(random.integers(len(axes)))]))}


def swapped_channels(case: Case, random: np.random.Generator) -> Changed:
    """Two output channels of one layer have changed places, weights, scales and biases."""
    node = _one(case, random, *WEIGHTED)
    weight, bias = (_tensor(case, name) for name in node.inputs[1:3])
    axis = 3 if node.op == "DEPTHWISE_CONV_2D" else 0
    order = np.arange(weight.shape[axis])
    one, other = random.choice(len(order), 2, replace=False)
    order[[one, other]] = order[[other, one]]

    def moved(tensor: Tensor, along: int) -> Tensor:
        q = tensor.q
        if q.axis is not None:
            q = QParams(q.scale[order], q.zero_point[order], q.axis)
        return replace(tensor, data=np.ascontiguousarray(np.take(tensor.values, order, along)), qparams=q)

    return {weight.name: moved(weight, axis), bias.name: moved(bias, 0)}


def shuffled_scales(case: Case, random: np.random.Generator) -> Changed:
    """The weight scales of one layer stand at other channels, and the bias fits them."""
    node = _one(case, random, "CONV_2D", "DEPTHWISE_CONV_2D")
    weight, bias = (_tensor(case, name) for name in node.inputs[1:3])
    order = np.roll(np.arange(weight.q.scale.size), int(random.integers(1, weight.q.scale.size)))
    scale = np.ascontiguousarray(weight.q.scale[order])
    sums = np.ascontiguousarray(bias.q.scale[order])
    return {
        weight.name: replace(weight, qparams=QParams(scale, weight.q.zero_point, weight.q.axis)),
        bias.name: replace(bias, data=np.rint(bias.real / sums).astype(np.int32), qparams=replace(bias.q, scale=sums)),
    }


def swapped_activation_scales(case: Case, random: np.random.Generator) -> Changed:
    """Two activations have each other's scale; every one of them stands in the file still."""
    graph = case.file.graph if case.file is not None else None
    assert graph is not None  # noqa: S101 - every sound case has one
    nodes = _nodes(case, "CONV_2D", "DEPTHWISE_CONV_2D")
    one, other = (nodes[int(place)] for place in random.choice(len(nodes), 2, replace=False))
    first, second = (graph.tensors[node.outputs[0]] for node in (one, other))
    return {first.name: replace(first, qparams=second.q), second.name: replace(second, qparams=first.q)}


def zero_point_off(case: Case, random: np.random.Generator) -> Changed:
    """The zero point of one layer's output is one too high, and what only copies it goes along."""
    output = _tensor(case, _one(case, random, "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "FULLY_CONNECTED").outputs[0])
    qparams = QParams(output.q.scale, np.asarray(output.q.zero_point + 1, np.int32))
    names = [output.name]
    for node in _nodes(case, *_COPYING):
        if node.inputs[0] in names:
            names.append(node.outputs[0])
    return {name: replace(_tensor(case, name), qparams=qparams) for name in names}


def codes_off_by_one(*, share: float) -> Mutation:
    """One weight code of one layer, or a share of them, is one too high or too low."""

    def mutate(case: Case, random: np.random.Generator) -> Changed:
        weight = _tensor(case, _one(case, random, *WEIGHTED).inputs[1])
        count = max(1, int(share * weight.values.size))
        places = random.choice(weight.values.size, count, replace=False)
        data = weight.values.copy()
        data.flat[places] += np.where(data.flat[places] > 0, -1, 1).astype(np.int8)
        return {weight.name: replace(weight, data=data)}

    return mutate


def lost_bias(case: Case, random: np.random.Generator) -> Changed:
    """One bias is all zero."""
    bias = _tensor(case, _one(case, random, *WEIGHTED).inputs[2])
    return {bias.name: replace(bias, data=np.zeros_like(bias.values))}


# ------------------------------------------------------------------------------------------------ all of them


def _torch_int8(engine: str) -> Case:
    return _through_onnx2tf(_exported(engine, engine))


TOOLS: tuple[Planted, ...] = (
    Planted("tensorflow-ptq", "TensorFlow's converter, full-integer, from float Keras", lambda: keras("integer-only")),
    Planted("tensorflow-qat", "TensorFlow's converter, from TF-MOT QAT; it writes a QUANTIZE between two scales",
            lambda: keras("dynamic-range", qat=True), ("M57",)),
    Planted(
        "tensorflow-qat-unoptimized", "the same without Optimize.DEFAULT", lambda: keras("none", qat=True), ("M24",)
    ),
    Planted("tensorflow-float", "TensorFlow's converter without quantization", lambda: keras("none")),
    Planted("ort-static", "onnxruntime.quantization.quantize_static, then the exact bridge", lambda: ort_static(_float_onnx())),
    Planted("ort-static-uint8", "the same with uint8 activations", lambda: ort_static(_float_onnx(), unsigned=True)),
    Planted("onnx2tf-float", "onnx2tf on a float model, int8", lambda: _through_onnx2tf(_float_onnx())),
    Planted("onnx2tf-qat", "onnx2tf on a QAT export", lambda: _through_onnx2tf(_exported("tflite")), ("M13",)),
    Planted("onnx2tf-int8-qnnpack", "onnx2tf on PyTorch's converted qnnpack model", lambda: _torch_int8("qnnpack"),
            ("M13", "M35", "M44")),
    Planted("onnx2tf-int8-fbgemm", "onnx2tf on PyTorch's converted fbgemm model", lambda: _torch_int8("fbgemm"),
            ("M13", "M44", "M76")),
    Planted("exact-tflite", "the exact bridge on qconfig 'tflite'", exact),
    Planted("exact-per-tensor", "the exact bridge on qconfig 'tflite_per_tensor'", lambda: exact("tflite_per_tensor")),
)  # fmt: skip

MUTATIONS: tuple[tuple[str, Callable[[], Case], Mutation, str, tuple[str, ...]], ...] = (
    ("weight-128", exact, weight_at_minus_128, "M04", ()),
    ("flatten-order", exact, flatten_order, "M18", ()),
    ("zero-points-uint8", exact, zero_points_of_uint8, "M32", ()),
    ("reshape-scale", exact, scaled_output("RESHAPE"), "M33", ("M55",)),
    ("weight-zero-point", exact, weight_zero_point, "M34", ()),
    ("bias-order", exact, bias_like_a_shape, "M44", ()),
    ("colour-order", exact, colours_reversed, "M49", ()),
    ("bias-scale", exact, bias_scale, "M55", ()),
    ("bias-saturated", exact, bias_saturated, "M61", ()),
    ("softmax-scale", lambda: keras("integer-only"), softmax_scale, "M67", ()),
    ("pool-scale", lambda: keras("integer-only"), scaled_output("AVERAGE_POOL_2D"), "M68", ("M55",)),
    ("activation-scale", exact, activation_scale, "M13", ("M55",)),
)
UNKNOWN: tuple[tuple[str, Mutation, str, tuple[str, ...]], ...] = (
    ("lost-tap", lost_tap, "", ()),
    ("shrunk-channel", shrunk_channel, "", ()),
    ("swapped-biases", swapped_biases, "", ()),
    ("reversed-bias", reversed_bias, "", ()),
    ("lost-bias", lost_bias, "", ()),
    ("rolled-weights", rolled_weights, "", ()),
    ("swapped-channels", swapped_channels, "", ()),
    ("shuffled-scales", shuffled_scales, "", ()),
    (
        "swapped-activation-scales",
        swapped_activation_scales,
        "",
        ("M55",),  # the bias of the next layer stays at the old scale
    ),
    ("zero-point-off", zero_point_off, "", ()),
    ("one-code-off", codes_off_by_one(share=0.0), "One weight code of one layer is off by one", ()),
    ("many-codes-off", codes_off_by_one(share=0.5), "Half of the weight codes of one layer are off by one", ()),
)
"""Name, what it does, in words where its docstring says more than that, and what comes along."""


def planted(seeds: int = 2) -> Iterator[Planted]:
    """Every file; each mutation once for each seed."""
    yield from (replace(file, by_a_tool=True) for file in TOOLS)
    for name, make, mutation, fault, consequences in MUTATIONS:
        for seed in range(seeds):
            case = _later(make, mutation, seed)
            changes_codes = (
                mutation is weight_at_minus_128
            )  # M04 is right about the code; that it was another is not its
            yield Planted(f"{name}-{seed}", _first_line(mutation), case, (fault,), consequences, unknown=changes_codes)
    for name, mutation, words, consequences in UNKNOWN:
        for seed in range(seeds):
            made = words or _first_line(mutation)
            yield Planted(f"{name}-{seed}", made, _later(exact, mutation, seed), (), consequences, unknown=True)
    for seed in range(seeds):
        for name, make_other in (("another-network", of_another_network), ("another-topology", of_another_topology)):
            yield Planted(f"{name}-{seed}", _words(make_other), _of_seed(make_other, seed), unknown=True, another=True)
    for seed in range(seeds):
        yield Planted(
            f"reversed-bias-alone-{seed}", "The same as reversed-bias, and no model beside the file",
            _later(lambda: replace(exact(), onnx=None), reversed_bias, seed), unfindable=True,
        )  # fmt: skip


def _later(make: Callable[[], Case], mutation: Mutation, seed: int) -> Callable[[], Case]:
    return lambda: broken(make, mutation, seed)


def _of_seed(make: Callable[[int], Case], seed: int) -> Callable[[], Case]:
    return lambda: make(seed)


def _words(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").split("\n", 1)[0].rstrip(".")


def _first_line(mutation: Mutation) -> str:
    return _words(mutation) or "the output scale of one such operator, times 1.2 to 2"
