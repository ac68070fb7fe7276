"""Which tool quantized a model, and what its user does there to give a tensor a scale: messages in the words of that tool."""

from __future__ import annotations

from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Tool:
    """How it is done there, as the beginning of a sentence that goes on with `train and export again`."""

    name: str
    scale: str
    """For a tensor that has none."""
    pair: str
    """For tensors whose scale was not trained, in the plural: what makes it so that it is."""


UNKNOWN = Tool(
    "",
    "Quantize it in your tool, too (PyTorch eager: a QuantStub or a FloatFunctional there; ONNX Runtime: leave "
    "op_types_to_quantize at its default)",
    "Give them a pair of their own (PyTorch eager: a QuantStub behind them)",
)
PYTORCH = Tool(
    "PyTorch",
    "Quantize it, too (eager: a QuantStub or a FloatFunctional there; FX: a qconfig for its operator)",
    "Put a QuantStub behind them",
)
ONNX_RUNTIME = Tool(
    "ONNX Runtime",
    "Quantize it, too: leave op_types_to_quantize and nodes_to_exclude of quantize_static at their defaults",
    "Let quantize_static give them a pair of their own",
)
QUARK = Tool(
    "AMD Quark",
    "Quantize it, too: take its operator out of `exclude` of the QConfig",
    "Give them a pair of their own in Quark's QConfig",
)
AIMET = Tool(
    "AIMET",
    "Quantize it, too: AIMET has quantizers for modules only, and aimet_torch.model_preparer.prepare_model makes modules of "
    "what forward adds, multiplies and joins",
    "Give them an output quantizer in the QuantizationSimModel",
)
MODELOPT = Tool(
    "NVIDIA ModelOpt",
    "Quantize it, too: INT8_DEFAULT_CFG rounds what goes into layers and not what comes out of them; enable "
    "'*output_quantizer' in the config",
    "Enable their '*output_quantizer' in the config of mtq.quantize",
)
BREVITAS = Tool(
    "Brevitas",
    "Quantize it, too: a QuantIdentity behind it (brevitas.graph.quantize.quantize puts them in, layerwise_quantize does not)",
    "Put a QuantIdentity behind them",
)
TOOLS = {tool.name: tool for tool in (UNKNOWN, PYTORCH, ONNX_RUNTIME, QUARK, AIMET, MODELOPT, BREVITAS)}

_IN_NAMES = {"_quantizer/": MODELOPT, "/export_handler/": BREVITAS}
"""What torch's exporter leaves of a tool's modules in the names of Q/DQ nodes: files of ModelOpt 0.47, Brevitas 0.13."""


def tool_of(model: onnx.ModelProto) -> str:
    """The name of the tool that quantized a file, as far as the file tells; '' where it does not."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if properties.get("producer", "").startswith("aimet"):  # files of AIMET 2.42
        return AIMET.name
    if model.producer_name.startswith("quark"):  # files of Quark 0.13
        return QUARK.name
    if model.producer_name == "onnx.quantize" or properties.get("onnx.infer") == "onnxruntime.quant":
        return ONNX_RUNTIME.name
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for mark, tool in _IN_NAMES.items():
                if mark in node.name:
                    return tool.name
    return UNKNOWN.name
