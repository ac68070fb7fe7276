"""How each producer quantizes a network, written from its own documentation: no repairs, no detours.

This file runs inside a producer's environment, networks.py beside it; worker.py takes its `JOBS`. Each recipe leaves
`model.onnx` or `model.pt2` in the working folder; where the quantized model itself runs in PyTorch, `simulated.npz` has
what it says of the inputs. A recipe imports what it needs itself.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Given:
    """The name of a network, and whole paths: its float ONNX, its weights, samples (float32, `input`, along axis 0)."""

    network: str
    onnx: str
    weights: str
    calibration: str
    inputs: str

    def model(self) -> Any:
        """The network in PyTorch, in eval mode."""
        import networks  # beside this file where it runs
        import numpy as np

        with np.load(self.weights) as stored:
            return networks.made(self.network, {name: stored[name] for name in stored.files})

    def readings(self) -> list[dict[str, Any]]:
        """What the quantizers see, one sample after the other, as ONNX Runtime takes them."""
        return [{"input": array} for array in _each(self.calibration)]

    def samples(self) -> list[Any]:
        """The same as PyTorch takes them."""
        import torch

        return [torch.from_numpy(array) for array in _each(self.calibration)]

    def example(self) -> Any:
        """One sample."""
        return self.samples()[0]

    def calibrate(self, model: Any) -> None:
        """Run the samples through a model."""
        import torch

        with torch.no_grad():
            for each in self.samples():
                model(each)

    def simulate(self, model: Any) -> None:
        """Leave what a quantized model in PyTorch says of the inputs."""
        import numpy as np
        import torch

        with torch.no_grad():
            said = [model(torch.from_numpy(array)) for array in _each(self.inputs)]
        values = [getattr(each, "value", each) for each in said]  # Brevitas may give a kind of tensor of its own
        np.savez("simulated.npz", output=torch.cat(values).numpy())


def _each(path: str) -> Iterator[Any]:
    import numpy as np

    with np.load(path) as stored:
        array = stored["input"]
    return (array[i : i + 1].copy() for i in range(len(array)))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {}


def recipe(function: Callable[[Given], None]) -> Callable[[Given], None]:
    """Make `function` a job under its own name, with dashes."""

    @functools.wraps(function)
    def job(**given: str) -> dict[str, Any]:
        function(Given(**given))
        return {}

    JOBS[function.__name__.replace("_", "-")] = job
    return function


# ONNX in, ONNX out ----------------------------------------------------------------------------------------------------


def _by_onnx_runtime(given: Given, form: str, **options: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # published without types
        def __init__(self) -> None:
            self.readings = iter(given.readings())

        def get_next(self) -> Any:
            return next(self.readings, None)

    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(given.onnx, "model.onnx", Reader(), quant_format=getattr(QuantFormat, form), **types, **options)


@recipe
def onnx_runtime_qdq(given: Given) -> None:
    """quantize_static: int8, QDQ, weights per channel (onnxruntime.ai, Quantize ONNX models)."""
    _by_onnx_runtime(given, "QDQ", per_channel=True)


@recipe
def onnx_runtime_qoperator(given: Given) -> None:
    """quantize_static: int8, QOperator, one scale for each weight."""
    _by_onnx_runtime(given, "QOperator")


@recipe
def onnxsim_static(given: Given) -> None:
    """onnxsim.quantize_static as it is by default: QDQ around the inputs of convolutions and matrix products."""
    import onnx
    import onnxsim

    onnx.save(onnxsim.quantize_static(given.onnx, given.readings()), "model.onnx")


@recipe
def onnxsim_full_graph(given: Given) -> None:
    """onnxsim.quantize_static(full_graph=True): every activation, for NPUs that compute in integers only."""
    import onnx
    import onnxsim

    onnx.save(onnxsim.quantize_static(given.onnx, given.readings(), full_graph=True), "model.onnx")


@recipe
def nncf_onnx(given: Given) -> None:
    """nncf.quantize of an ONNX model (NNCF, Post-Training Quantization)."""
    import nncf
    import onnx

    onnx.save(nncf.quantize(onnx.load(given.onnx), nncf.Dataset(given.readings())), "model.onnx")


def _by_quark(given: Given, config: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx import ModelQuantizer, QConfig

    class Reader(CalibrationDataReader):  # type: ignore[misc] # published without types
        def __init__(self) -> None:
            self.readings = iter(given.readings())

        def get_next(self) -> Any:
            return next(self.readings, None)

    ModelQuantizer(QConfig.get_default_config(config)).quantize_model(given.onnx, "model.onnx", Reader())


@recipe
def quark_a8w8(given: Given) -> None:
    """ModelQuantizer with A8W8 (AMD Quark for ONNX, Getting started)."""
    _by_quark(given, "A8W8")


@recipe
def quark_xint8(given: Given) -> None:
    """ModelQuantizer with XINT8: scales are powers of two, for AMD's NPUs."""
    _by_quark(given, "XINT8")


# PyTorch in, ONNX out -------------------------------------------------------------------------------------------------


def _export_qcdq(given: Given, model: Any) -> None:
    import torch
    from brevitas.export import export_onnx_qcdq
    from brevitas.graph.calibrate import calibration_mode

    with torch.no_grad(), calibration_mode(model):
        given.calibrate(model)
    model.eval()
    given.simulate(model)
    # With dynamo=True, its default here, Brevitas refuses quantized biases and says to pass this.
    export_onnx_qcdq(model, args=given.example(), export_path="model.onnx", input_names=["input"], dynamo=False)


@recipe
def brevitas_graph(given: Given) -> None:
    """preprocess_for_quantize, quantize, calibration_mode, export_onnx_qcdq (Brevitas, graph quantization)."""
    from brevitas.graph.quantize import preprocess_for_quantize, quantize

    _export_qcdq(given, quantize(preprocess_for_quantize(given.model())))


@recipe
def brevitas_layerwise(given: Given) -> None:
    """layerwise_quantize, for what is not traced: the inputs and weights of layers, and nothing between them."""
    from brevitas.graph.quantize import layerwise_quantize

    _export_qcdq(given, layerwise_quantize(given.model()))


@recipe
def modelopt_int8(given: Given) -> None:
    """mtq.quantize with INT8_DEFAULT_CFG, then torch.onnx.export (Model Optimizer, PyTorch quantization)."""
    import modelopt.torch.quantization as mtq
    import torch

    model = mtq.quantize(given.model(), mtq.INT8_DEFAULT_CFG, given.calibrate)
    given.simulate(model)
    torch.onnx.export(model, (given.example(),), "model.onnx", input_names=["input"], opset_version=17, dynamo=False)


@recipe
def aimet_sim(given: Given) -> None:
    """QuantizationSimModel, compute_encodings, aimet_torch.onnx.export (AIMET, Quick start)."""
    import aimet_torch
    from aimet_torch.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(given.model(), given.example())
    sim.compute_encodings(given.calibrate)
    given.simulate(sim.model)
    aimet_torch.onnx.export(sim, (given.example(),), "model.onnx", input_names=["input"], opset_version=21)


# PyTorch in, an exported program out ----------------------------------------------------------------------------------


def _save_program(given: Given, model: Any) -> None:
    import torch

    given.simulate(model)
    torch.export.save(torch.export.export(model, (given.example(),)), "model.pt2")


def _by_pt2e(given: Given, quantizer: Any, *, qat: bool) -> None:
    import torch
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

    exported = torch.export.export(given.model().train(qat), (given.example(),)).module()
    prepared = (prepare_qat_pt2e if qat else prepare_pt2e)(exported, quantizer)
    given.calibrate(prepared)
    move_exported_model_to_eval(prepared)
    _save_program(given, convert_pt2e(prepared))


def _xnnpack(*, qat: bool) -> Any:
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    return XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_qat=qat))


@recipe
def torchao_xnnpack(given: Given) -> None:
    """prepare_pt2e with XNNPACKQuantizer (torchao, PT2E post-training quantization; the quantizer is ExecuTorch's)."""
    _by_pt2e(given, _xnnpack(qat=False), qat=False)


@recipe
def torchao_xnnpack_qat(given: Given) -> None:
    """prepare_qat_pt2e with XNNPACKQuantizer: the samples stand for training (torchao, PT2E quantization-aware training)."""
    _by_pt2e(given, _xnnpack(qat=True), qat=True)


@recipe
def torchao_x86(given: Given) -> None:
    """prepare_pt2e with X86InductorQuantizer (torchao, PT2E quantization through Inductor)."""
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config()
    _by_pt2e(given, x86.X86InductorQuantizer().set_global(config), qat=False)


@recipe
def neural_compressor_static(given: Given) -> None:
    """export, prepare, convert with the default static config (Intel Neural Compressor, PT2E static quantization)."""
    from neural_compressor.torch.export import export
    from neural_compressor.torch.quantization import convert, get_default_static_config, prepare

    exported = export(model=given.model(), example_inputs=(given.example(),))
    prepared = prepare(exported, quant_config=get_default_static_config())
    given.calibrate(prepared)
    _save_program(given, convert(prepared))


@recipe
def nncf_torch_fx(given: Given) -> None:
    """nncf.quantize of a torch.fx model from torch.export (NNCF, Quantization of TorchFX models)."""
    import nncf
    import torch

    exported = torch.export.export(given.model(), (given.example(),)).module()
    _save_program(given, nncf.quantize(exported, nncf.Dataset(given.samples())))
