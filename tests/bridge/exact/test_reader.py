"""Files as strangers write them: dynamic, cut short, of an odd opset, with data elsewhere."""

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal
from onnx import helper

from bridge.errors import BridgeError
from bridge.exact.reader import from_model, read
from tests.builders import Pair, float_constant, integers, ops, qdq_model


def relu_model(shape=(1, 4), opset=17):
    return qdq_model(("Relu", "x", "y"), inputs={"x": shape}, pairs={"x": Pair(0.5)}, outputs="y", opset=opset)


def saved(model, tmp_path, **options):
    path = tmp_path / "model.onnx"
    onnx.save(model, path, **options)
    return path


def test_every_tensor_has_its_shape_and_nothing_is_quantized_yet(tmp_path):
    graph = read(saved(relu_model(), tmp_path))
    assert ops(graph) == ["QuantizeLinear", "DequantizeLinear", "Relu"]
    assert graph.inputs == ("x",)
    assert graph.tensors["y"].shape == (1, 4)
    assert graph.tensors["x"].qparams is None


def test_constant_nodes_are_constants_like_initializers():
    k = float_constant("k", [1, 2])
    model = qdq_model(("Add", "x k", "y"), inputs={"x": (1, 2)}, pairs={}, outputs="y", constants=[k])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=model.graph.initializer.pop()))
    graph = from_model(model)
    assert ops(graph) == ["Add"]
    assert_array_equal(graph.tensors["k"].values, [1, 2])


def test_shapes_computed_inside_the_model_are_folded_until_all_are_known():
    model = qdq_model(
        ("Shape", "x", "s"),
        ("Gather", "s first", "n"),
        ("Concat", "n rest", "target", {"axis": 0}),
        ("Reshape", "x target", "y"),
        inputs={"x": (2, 3, 4)},
        pairs={},
        outputs="y",
        constants=[integers("first", [0]), integers("rest", [12])],
    )
    assert from_model(model).tensors["y"].shape == (2, 12)


def test_a_dynamic_input_is_refused_with_the_option_that_fixes_it(tmp_path):
    path = saved(relu_model(("batch", 4)), tmp_path)
    with pytest.raises(BridgeError, match=r"input 'x': has a dynamic shape, \(batch, 4\).*(\n.*)*--input-shape x="):
        read(path)


def test_an_input_shape_fixes_what_the_file_leaves_open(tmp_path):
    path = saved(relu_model(("batch", 4)), tmp_path)
    assert read(path, {"x": (3, 4)}).tensors["y"].shape == (3, 4)


def test_an_input_shape_that_contradicts_the_file_is_refused(tmp_path):
    path = saved(relu_model(("batch", 4)), tmp_path)
    with pytest.raises(BridgeError, match=r"shape \(3, 5\) does not fit \(batch, 4\)"):
        read(path, {"x": (3, 5)})


def test_an_input_shape_for_an_unknown_input_is_refused(tmp_path):
    with pytest.raises(BridgeError, match="input 'z': is not an input of this model\n  Its inputs: x"):
        read(saved(relu_model(), tmp_path), {"z": (1,)})


def test_a_shape_that_depends_on_the_data_is_refused():
    model = qdq_model(("NonZero", "x", "n"), ("Cast", "n", "y", {"to": 1}), inputs={"x": (1, 4)}, pairs={}, outputs="y")
    with pytest.raises(BridgeError, match="NonZero 'n': has an output whose shape depends on the data"):
        from_model(model)


@pytest.mark.parametrize("opset", [9, 99])
def test_an_opset_outside_the_known_range_is_refused(tmp_path, opset):
    model = relu_model()
    model.opset_import[0].version = opset
    with pytest.raises(BridgeError, match=f"is of opset {opset}; the bridge reads 10 to"):
        read(saved(model, tmp_path))


def test_a_file_cut_short_is_refused_with_its_size(tmp_path):
    path = tmp_path / "short.onnx"
    path.write_bytes(relu_model().SerializeToString()[:50])
    with pytest.raises(BridgeError, match=r"short\.onnx: not a readable ONNX file \(50 bytes read\)"):
        read(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BridgeError, match="cannot be read \\(No such file"):
        read(tmp_path / "none.onnx")


def test_an_inconsistent_graph_is_refused():
    model = relu_model()
    model.graph.node[2].input[0] = "nobody"
    with pytest.raises(BridgeError, match=r"is not a consistent ONNX graph: .*nobody"):
        from_model(model)


def test_nan_in_a_constant_is_refused_by_name():
    model = qdq_model(
        ("Add", "x k", "y"),
        inputs={"x": (1, 2)},
        pairs={},
        outputs="y",
        constants=[float_constant("k", [1.0, np.nan])],
    )
    with pytest.raises(BridgeError, match="constant 'k': holds NaN or infinity"):
        from_model(model)


def test_an_operator_of_another_domain_is_refused():
    model = relu_model()
    model.graph.node[2].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(BridgeError, match=r"node 'y' \(com\.microsoft\.Relu\): belongs to an operator domain"):
        from_model(model)


@pytest.mark.parametrize(
    ("domain", "way_out"),
    [("com.ms.internal.nhwc", "convert the file from before that"), ("com.vendor", r"Export in QDQ form")],
)
def test_all_operators_of_other_domains_are_named_at_once(domain, way_out):
    model = relu_model()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.domain = domain
    for name in ("a", "b"):
        model.graph.node.append(helper.make_node("FusedConv", [relu.output[0]], [name], name, domain=domain))
    counted = f"in all 3 of this model: {domain}.FusedConv 2, {domain}.Relu 1"
    with pytest.raises(BridgeError, match=rf"{domain}\.Relu\).*{counted}(.|\n)*{way_out}"):
        from_model(model)


def external(tmp_path, location):
    """A model whose constant lies in the file `location`."""
    model = qdq_model(
        ("Add", "x k", "y"),
        inputs={"x": (1, 2)},
        pairs={},
        outputs="y",
        constants=[float_constant("k", [1.0, 2.0])],
    )
    path = saved(model, tmp_path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    raw = onnx.load(path, load_external_data=False)
    for tensor in raw.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(raw.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path):
    assert_array_equal(read(external(tmp_path, "weights.bin")).tensors["k"].values, [1, 2])


def test_external_data_outside_the_folder_is_refused(tmp_path):
    with pytest.raises(BridgeError, match=r"tensor 'k': its data is said to lie in '\.\./secret'"):
        read(external(tmp_path, "../secret"))


def test_external_data_that_is_missing_is_refused(tmp_path):
    with pytest.raises(BridgeError, match=r"its data file 'gone\.bin' is missing or too short"):
        read(external(tmp_path, "gone.bin"))


def test_a_local_function_is_inlined(tmp_path):
    twice = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Twice", ["x"], ["y"], domain="mine")],
            "small",
            [helper.make_tensor_value_info("x", 1, (1, 2))],
            [helper.make_tensor_value_info("y", 1, (1, 2))],
        ),
        functions=[twice],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)],
        ir_version=8,
    )
    assert ops(read(saved(model, tmp_path))) == ["Add"]
