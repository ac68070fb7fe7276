"""Every way in which a PyTorch team quantizes, handed to bridge.convert: python -m benchmarks.front_doors --write docs/front-doors.md.

Each flow makes a model as the tool's own documentation says, with observers that have seen noise; the file is held
against the model itself and against ONNX Runtime on both of LiteRT's kernel sets.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.ao import quantization as tq
from torch.ao.quantization import backend_config as backends

import bridge
from bridge.errors import BridgeError
from bridge.exact.convert import Conversion, Options
from bridge.from_torch import ready
from bridge.from_torch.exported import is_exported
from bridge.verifying import onnx_runtime
from bridge.verifying.batches import batches
from bridge.verifying.verification import Said, compare
from tests.bridge.from_torch.networks import INT8, SHAPE, common, converted, prepared
from torch_side import export, network, training
from torch_side.qconfigs import QCONFIGS
from torch_side.vision import import_torchvision

IMAGES = 16
BACKENDS = {
    "native": backends.get_native_backend_config, "qnnpack": backends.get_qnnpack_backend_config,
    "executorch": backends.get_executorch_backend_config, "tensorrt": backends.get_tensorrt_backend_config,
}  # fmt: skip


@dataclass(frozen=True)
class Flow:
    """A model, as a team has it, and the shape that the device will feed."""

    door: str
    how: str
    make: Callable[[], Any]
    shape: tuple[int, ...]
    engine: str = "qnnpack"
    options: Options | None = None


def flows() -> Iterator[Flow]:
    digits, image = (1, 1, 28, 28), (1, *SHAPE[1:])
    for name, qconfig in QCONFIGS.items():
        yield Flow("eager", f"prepare_qat, qconfig {name}", lambda name=name: _mnist(name), digits)
        if qconfig.engine:
            make = lambda name=name: training.to_int8_engine(_mnist(name), name)  # noqa: E731
            yield Flow("eager", f"convert, engine {qconfig.engine} ({name})", make, digits, qconfig.engine)
    yield Flow("eager", "prepare (calibrated), not converted", _calibrated, image)
    yield Flow("eager", "torch.nn.DataParallel around it", lambda: nn.DataParallel(_mnist("tflite")), digits)
    yield Flow("eager", "torch.compile around it", lambda: torch.compile(_mnist("tflite")), digits)
    for backend, config in BACKENDS.items():
        qconfig: Any = INT8 if backend == "tensorrt" else "qnnpack"
        qat = lambda q=qconfig, c=config: prepared(common(), q, c())  # noqa: E731
        yield Flow("FX", f"prepare_qat_fx, BackendConfig {backend}", qat, image)
        reference = lambda m=qat, c=config: converted(m(), reference=True, backend=c())  # noqa: E731
        yield Flow("FX", f"convert_to_reference_fx, BackendConfig {backend}", reference, image)
    yield Flow("FX", "prepare_qat_fx, qint8 activations, BackendConfig native", lambda: prepared(common(), INT8), image)
    yield Flow(
        "FX", "prepare_fx (calibrated), not converted", lambda: prepared(common(), "x86", qat=False), image, "x86"
    )
    yield Flow("FX", "convert_fx, engine x86", lambda: converted(prepared(common(), "x86", qat=False)), image, "x86")
    yield from _pt2e()
    yield Flow("torch", "a float model", common, image)
    yield Flow("torch", "quantize_dynamic", lambda: tq.quantize_dynamic(common(), {nn.Linear}), image)


def _pt2e() -> Iterator[Flow]:
    image, photo = (2, *SHAPE[1:]), (1, 3, 64, 64)
    for quantizer in ("XNNPACKQuantizer", "X86InductorQuantizer"):
        for qat in (True, False):
            how = f"{quantizer}, {'prepare_qat_pt2e' if qat else 'prepare_pt2e'}"
            make = lambda q=quantizer, qat=qat: _torchao(Residual(), q, qat, (2, *SHAPE[1:]))  # noqa: E731
            yield Flow("PT2E", how, make, image)
            yield Flow("PT2E", f"{how}, convert_pt2e", lambda make=make: _convert_pt2e(make()), image)
            yield Flow(
                "PT2E", f"{how}, fold_quantize=False", lambda make=make: _convert_pt2e(make(), fold=False), image
            )
    partial = Options(allow_float=True)
    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"):
        for qat in (True, False):
            make = lambda name=name, qat=qat: _convert_pt2e(_torchao(_vision(name), "XNNPACKQuantizer", qat, photo))  # noqa: E731
            how = f"{name}, XNNPACKQuantizer, {'QAT' if qat else 'PTQ'}"
            yield Flow("PT2E", how, make, photo)
            yield Flow("PT2E", f"{how}, allow_float", make, photo, options=partial)
    block = lambda: _convert_pt2e(_torchao(VitBlock(), "XNNPACKQuantizer", False, (1, 16, 32)))  # noqa: E731
    yield Flow("PT2E", "a ViT block, XNNPACKQuantizer, PTQ", block, (1, 16, 32))
    yield Flow("PT2E", "a ViT block, XNNPACKQuantizer, PTQ, allow_float", block, (1, 16, 32), options=partial)


class Residual(nn.Module):
    """Convolutions with batch norm, a depthwise one, a sum, pools, dropout, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.pointwise = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.drop, self.dense = nn.Dropout(), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.pointwise(torch.relu(self.depthwise(x)))
        x = nn.functional.adaptive_avg_pool2d(nn.functional.max_pool2d(x, 2), 1).flatten(1)
        y: torch.Tensor = self.dense(self.drop(x))
        return y


class VitBlock(nn.Module):
    """Attention of two heads and a feed-forward part, without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(32), nn.LayerNorm(32)
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        q, k, v = (layer(h).view(1, 16, 2, 16).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attention = torch.softmax(q @ k.transpose(2, 3) / 4.0, -1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(1, 16, 32))
        y: torch.Tensor = x + self.down(nn.functional.gelu(self.up(self.second(x))))
        return y


def _vision(name: str) -> nn.Module:
    model: nn.Module = getattr(import_torchvision().models, name)(num_classes=100)
    return model


def _mnist(qconfig: str) -> nn.Module:
    model = training.prepare_for_qat(network.build_network(0), qconfig)
    model(torch.rand(16, 1, 28, 28))
    return model.eval()


def _calibrated() -> nn.Module:
    model = tq.QuantWrapper(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).eval()
    model.qconfig = tq.get_default_qconfig("qnnpack")  # type: ignore[assignment]
    ready: nn.Module = tq.prepare(model)
    ready(torch.randn(8, *SHAPE[1:]))
    return ready


def _torchao(model: nn.Module, quantizer: str, qat: bool, shape: tuple[int, ...]) -> Any:
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

    if quantizer == "XNNPACKQuantizer":
        config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_qat=qat)
        annotating: Any = xnnpack.XNNPACKQuantizer().set_global(config)
    else:
        annotating = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config(is_qat=qat))
    module = torch.export.export(model.train(qat), (torch.randn(shape),), strict=False).module()
    ready = (prepare_qat_pt2e if qat else prepare_pt2e)(module, annotating)
    for _ in range(3):
        ready(torch.randn(shape))
    return ready


def _convert_pt2e(model: Any, *, fold: bool = True) -> Any:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    return convert_pt2e(copy.deepcopy(model), fold_quantize=fold)


def _against_onnx_runtime(model: Any, conversion: Conversion, inputs: np.ndarray, path: Path) -> list[str]:
    """The same figures from ONNX Runtime, unoptimized, on what torch's exporter writes of the model, if it does."""
    frozen, (name,) = ready(model), conversion.graph.inputs
    example = inputs[: conversion.graph.tensors[name].shape[0]]
    try:
        if is_exported(frozen):
            options = {"opset_version": 18, "external_data": False, "verbose": False}
            torch.onnx.export(frozen, (torch.from_numpy(example),), str(path), dynamo=True, **options)
        else:
            export.export_onnx(frozen, (example,), path)
    except (BridgeError, AttributeError, RuntimeError, TypeError):  # what torch's exporters raise
        return ["not exported"] * 2
    session = onnx_runtime.session(path)
    (taken,) = [each.name for each in session.get_inputs()]

    def said() -> Iterator[Said]:
        for batch in batches(conversion.graph, {name: inputs}):
            yield batch, session.run(None, {taken: batch[name]})

    return _figures(compare(conversion.graph, conversion.tflite, said()))


def _figures(found: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    each = [list(found[kernels].values()) for kernels in ("xnnpack", "reference")]
    return [f"{100 * min(one.equal for one in some):.2f} %, {max(one.worst for one in some)} LSB" for some in each]


def row(flow: Flow, folder: Path) -> str:
    """One line of the page."""
    torch.backends.quantized.engine = flow.engine
    torch.manual_seed(0)
    model = flow.make()
    try:
        conversion = bridge.convert(model, np.zeros(flow.shape, np.float32), folder / "model.tflite", flow.options)
    except BridgeError as error:
        said = str(error).replace("\n", " ").replace("|", "\\|")
        return f"| {flow.door} | {flow.how} | refused: {' '.join(said.split())} | | | | | |"
    inputs = np.random.default_rng(0).standard_normal((IMAGES * flow.shape[0], *flow.shape[1:])).astype(np.float32)
    figures = _figures(bridge.verify(model, conversion, inputs))
    figures += _against_onnx_runtime(model, conversion, inputs, folder / "model.onnx")
    floats = sum(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    operators = sum(conversion.operators_out.values())
    return f"| {flow.door} | {flow.how} | {conversion.way.split(' ')[0]} | {operators}{', partly float' if floats else ''} | {' | '.join(figures)} |"


HEAD = """# Front doors

Written by `python -m benchmarks.front_doors --write docs/front-doors.md` with torch {torch} and torchao {torchao}. Each line:
a model made as the tool's documentation says, its observers having seen noise, handed to `bridge.convert` as it is; by
which way it was read; and how far the file is, on {images} random inputs or batches, from what the model itself says
(`bridge.verify`) and from what ONNX Runtime, unoptimized, says of torch's own ONNX export of it: outputs that are equal,
and the worst distance in steps of the output's scale. Roundings of several layers add up; what a quantizer left in float
is refused by default, and stays float with `Options(allow_float=True)`.

| door | how it was quantized | read by | operators | model: XNNPACK | model: reference kernels | ONNX Runtime: XNNPACK | ONNX Runtime: reference kernels |
|---|---|---|---:|---|---|---|---|
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--only", default="", help="flows whose door or description contains this")
    options = parser.parse_args(arguments)
    import torchao

    lines = []
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for flow in flows():
            if options.only in f"{flow.door} {flow.how}":
                lines.append(row(flow, Path(folder)))
                print(lines[-1], flush=True)
    if options.write:
        head = HEAD.format(torch=torch.__version__.split("+")[0], torchao=torchao.__version__, images=IMAGES)
        options.write.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
