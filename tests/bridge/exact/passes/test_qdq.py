"""Q/DQ pairs become parameters on tensors."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import per_tensor
from bridge.exact.passes.fold import fold
from bridge.exact.passes.qdq import attach
from bridge.exact.reader import from_model
from tests.builders import Pair, integers, ops, qdq_model

U8 = np.uint8


def attached(*steps, inputs=None, outputs="y", constants=(), **pairs):
    model = qdq_model(*steps, inputs=inputs or {"x": (1, 4)}, pairs=pairs, outputs=outputs, constants=constants)
    return attach(fold(from_model(model)))


def test_a_pair_around_an_operator_becomes_the_parameters_of_its_tensors():
    graph = attached(("LeakyRelu", "x", "y"), x=Pair(0.5, 3), y=Pair(0.25, -7))
    assert ops(graph) == ["LeakyRelu"]
    assert graph.tensors["x"].q == per_tensor(0.5, 3)
    assert graph.tensors["y"].q == per_tensor(0.25, -7)
    assert graph.tensors["x"].dtype == np.int8


def test_uint8_parameters_become_int8_with_the_zero_point_128_lower():
    graph = attached(("LeakyRelu", "x", "y"), x=Pair(0.5, 131, U8), y=Pair(0.25, 0, U8))
    assert graph.tensors["x"].q == per_tensor(0.5, 3)
    assert graph.tensors["y"].q == per_tensor(0.25, -128)


def test_seven_bit_codes_stay_where_they_are():
    graph = attached(("LeakyRelu", "x", "y"), x=Pair(0.5, 64, U8, (0, 127)), y=Pair(0.25, 0, U8, (0, 127)))
    assert graph.tensors["x"].q == per_tensor(0.5, 64, 0, 127)
    assert graph.tensors["y"].q == per_tensor(0.25, 0, 0, 127)


def test_a_narrow_int8_range_is_a_clamp():
    graph = attached(("LeakyRelu", "x", "y"), x=Pair(0.5), y=Pair(0.25, 0, np.int8, (-64, 63)))
    assert graph.tensors["y"].q == per_tensor(0.25, 0, -64, 63)


def test_an_upper_half_uint8_clamp_moves_with_the_codes():
    graph = attached(("LeakyRelu", "x", "y"), x=Pair(0.5), y=Pair(0.25, 128, U8, (28, 228)))
    assert graph.tensors["y"].q == per_tensor(0.25, 0, -100, 100)


def test_two_pairs_in_a_row_with_other_scales_are_a_change_of_scale():
    graph = attached(("Identity", "x", "h"), ("Identity", "h", "y"), x=Pair(0.5), h=Pair(0.5), y=Pair(0.25))
    assert ops(graph) == ["Quantize"]
    assert graph.tensors["y"].q == per_tensor(0.25, 0)


def test_a_tensor_that_is_also_read_as_float_keeps_both():
    graph = attached(("Relu", "x", "r"), ("Identity", "r", "q"), ("Add", "q r", "y"), x=Pair(0.5), q=Pair(0.25))
    assert ops(graph) == ["Relu", "Quantize", "Add"]
    assert graph.tensors["r"].qparams is None


def test_identity_dropout_and_idle_casts_are_gone():
    graph = attached(
        ("Identity", "x", "a"), ("Dropout", "a", "b"), ("Cast", "b", "c", {"to": 1}), ("Relu", "c", "y"), x=Pair(0.5)
    )
    assert ops(graph) == ["Relu"]
    assert graph.nodes[0].inputs == ("x",) or graph.tensors[graph.nodes[0].inputs[0]].q == per_tensor(0.5, 0)


def test_outputs_keep_their_names():
    graph = attached(("Relu", "x", "y"), ("Relu", "y", "z"), outputs="y z", x=Pair(0.5), y=Pair(0.5), z=Pair(0.5))
    assert graph.outputs == ("y", "z")


def test_an_output_at_the_scale_of_its_input_keeps_its_name():
    graph = attached(("Gather", "x i", "y", {"axis": 1}), x=Pair(0.5), y=Pair(0.5), constants=[integers("i", [0])])
    assert graph.outputs == ("y",)


def test_each_tensor_knows_which_onnx_tensor_it_holds():
    graph = attached(("LeakyRelu", "x", "y"), x=Pair(0.5), y=Pair(0.25))
    assert graph.tensors["x"].origin.name == "x_quantized"
    assert graph.tensors["y"].origin.name == "y"


def test_a_pair_that_contradicts_itself_is_refused_with_both_scales():
    model = qdq_model(("Relu", "x", "y"), inputs={"x": (1, 4)}, pairs={"x": Pair(0.5)}, outputs="y")
    for tensor in model.graph.initializer:
        if tensor.name == "x_quantized_scale":
            tensor.raw_data = np.float32(0.25).tobytes()
    with pytest.raises(
        BridgeError, match=r"dequantizes with scale 0\.25, zero point 0 what was quantized with scale 0\.5"
    ):
        attach(fold(from_model(model)))


def test_a_scale_computed_at_run_time_is_refused():
    model = qdq_model(
        ("ReduceMax", "x", "s", {"keepdims": 0}), ("QuantizeLinear", "x s", "q"), ("DequantizeLinear", "q s", "y"),
        inputs={"x": (1, 4)}, pairs={}, outputs="y",
    )  # fmt: skip
    with pytest.raises(
        BridgeError, match="QuantizeLinear 'q': its scale or zero point is computed when the model runs"
    ):
        attach(fold(from_model(model)))
