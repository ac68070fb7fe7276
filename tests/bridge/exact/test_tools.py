"""Messages in the words of the tool that a model comes from."""

import pytest
from onnx import helper

from bridge.errors import BridgeError
from bridge.exact.convert import Options, convert
from bridge.exact.record import warnings
from bridge.exact.tools import AIMET, BREVITAS, MODELOPT, ONNX_RUNTIME, QUARK, TOOLS, UNKNOWN, tool_of
from tests.bridge.exact.test_bad_input import small_model, without_qdq
from tests.builders import Pair, qdq_model, weight


def by_onnx_runtime(model):
    model.producer_name = "onnx.quantize"


def by_onnx_runtime_before_it_named_itself(model):
    helper.set_model_props(model, {"onnx.infer": "onnxruntime.quant"})


def by_quark(model):
    model.producer_name = "quark.onnx"
    helper.set_model_props(model, {"onnx.infer": "onnxruntime.quant"})


def by_aimet(model):
    model.producer_name = "pytorch"
    helper.set_model_props(model, {"producer": "aimet-torch 2.42.0"})


def by_modelopt(model):
    next(node for node in model.graph.node if "Quantize" in node.op_type).name = "/stem/input_quantizer/QuantizeLinear"


def by_brevitas(model):
    node = next(node for node in model.graph.node if "Quantize" in node.op_type)
    node.name = "/relu/act_quant/export_handler/QuantizeLinear"


MARKED = [
    (by_onnx_runtime, ONNX_RUNTIME), (by_onnx_runtime_before_it_named_itself, ONNX_RUNTIME), (by_quark, QUARK),
    (by_aimet, AIMET), (by_modelopt, MODELOPT), (by_brevitas, BREVITAS), (lambda _: None, UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("mark", "tool"), MARKED)
def test_a_tensor_without_a_scale_is_told_in_the_words_of_the_tool(mark, tool):
    model = without_qdq(small_model(), "quantize", "dequantize")
    mark(model)
    assert tool_of(model) == tool.name
    with pytest.raises(BridgeError) as caught:
        convert(model)
    assert caught.value.remedy.startswith(tool.scale)
    assert ("QuantStub" in caught.value.remedy) == (tool is UNKNOWN)


@pytest.mark.parametrize(("mark", "tool"), MARKED)
def test_what_training_did_not_decide_is_said_in_the_words_of_the_tool(mark, tool):
    model = qdq_model(
        ("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
        inputs={"x": (1, 2, 2, 2)}, pairs={"x": Pair(0.5, -3), "y": Pair(0.25)}, outputs="y",
        constants=[weight("w", [[100] * 2, [-3] * 2], [0.5, 0.5])],
    )  # fmt: skip
    mark(model)
    (line,) = warnings(convert(model, Options(mean="inherit")))
    assert f"{tool.pair} and fine-tune" in line
    assert "{pair}" not in line


def test_no_tool_is_told_of_anothers_way():
    for tool in TOOLS.values():
        if tool.name not in ("", "PyTorch"):
            assert "QuantStub" not in tool.scale + tool.pair
