"""Every attribute of every operator that is read is used, checked, or known to change nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from bridge.errors import BridgeError
from bridge.exact.attributes import READ
from bridge.exact.convert import convert
from bridge.exact.operators.reading import ANY, NoEffect, Only, Used, Within
from bridge.exact.readers.opsets import LOWEST_OPSET, NEWEST_OPSET, RULES, SPELLED_AS
from tests.bridge.exact.checking import checked
from tests.bridge.exact.graphs import Builder, Model, Seeded, Unusable, draw_model
from tests.bridge.exact.judging import apart
from tests.bridge.exact.steps import STEPS
from tests.bridge.exact.test_bad_input import small_model

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

NEWEST_KNOWN = onnx.defs.onnx_opset_version()
OPSETS = range(SPELLED_AS, min(NEWEST_OPSET, NEWEST_KNOWN) + 1)


def schemas(op: str) -> Iterator[onnx.defs.OpSchema]:
    """The operator's schema at each opset that is read."""
    for opset in OPSETS:
        try:
            yield onnx.defs.get_schema(op, opset, "")
        except onnx.defs.SchemaError:  # younger
            continue


@pytest.mark.parametrize("op", READ)
def test_every_attribute_of_every_opset_is_in_the_table(op):
    known = READ[op].attributes
    named = set().union(*(schema.attributes for schema in schemas(op)))
    assert named <= set(known)
    if NEWEST_KNOWN >= NEWEST_OPSET:
        assert set(known) == named
    for schema in schemas(op):
        for name, attribute in schema.attributes.items():
            rule = known[name]
            assert isinstance(rule, Used | Only | NoEffect | Within)
            if isinstance(rule, Only) and attribute.default_value.type != AttributeProto.UNDEFINED:
                default = helper.get_attribute_value(attribute.default_value)
                assert (default.decode() if isinstance(default, bytes) else default) in rule.values


@pytest.mark.parametrize("opset", range(LOWEST_OPSET, SPELLED_AS))
def test_what_an_older_opset_spells_otherwise_is_rewritten(opset):
    for op in READ:
        if not onnx.defs.has(op, opset, ""):
            continue
        schema = onnx.defs.get_schema(op, opset, "")
        assert set(schema.attributes) <= set(READ[op].attributes) or op in RULES
        assert schema.max_input <= READ[op].inputs or schema.max_input > 2**30


@pytest.mark.parametrize("op", READ)
def test_every_operand_of_every_opset_is_known(op):
    for schema in schemas(op):
        for known, most in ((READ[op].inputs, schema.max_input), (READ[op].outputs, schema.max_output)):
            assert most <= known or (most > 2**30 and known == ANY)


# One refusal for each reason


def with_attribute(op: str, attribute: onnx.AttributeProto, opset: int = 17) -> onnx.ModelProto:
    model = small_model(opset=opset)
    next(node for node in model.graph.node if node.op_type == op).attribute.append(attribute)
    return model


@pytest.mark.parametrize(
    ("op", "attribute", "opset", "sentence"),
    [
        ("Relu", helper.make_attribute("alpha", 0.5), 17, "has an attribute 'alpha', which opset 17 does not know"),
        ("Conv", helper.make_attribute("group", 1.0), 17, "has an attribute 'group' that is no INT"),
        ("Conv", helper.make_attribute("strides", [1, 0]), 17, "has strides 0; it must be from 1 to 2147483647"),
        ("Conv", helper.make_attribute("dilations", [0, 1]), 17, "has dilations 0; it must be from 1"),
        ("Conv", helper.make_attribute("strides", [2**40, 1]), 17, "has strides 1099511627776; it must be from 1"),
        ("Conv", helper.make_attribute("group", -3), 17, "has group -3; it must be from 1"),
        ("Conv", helper.make_attribute("group", 0), 17, "has group 0; it must be from 1"),
        ("Conv", helper.make_attribute("pads", [0, -1, 0, 0]), 17, "has pads -1; it must be from 0"),
        ("Conv", helper.make_attribute("strides", [1]), 17, "kernel_shape, strides hold numbers for 1 and 2 axes"),
        ("Conv", helper.make_attribute("pads", [1, 1, 1]), 17, "kernel_shape, pads hold numbers for 1.5 and 2 axes"),
        ("Conv", helper.make_attribute("kernel_shape", [1, 1]), 17, "has an attribute 'kernel_shape' twice"),
        (
            "QuantizeLinear",
            helper.make_attribute("block_size", 2),
            21,
            "with block_size 2 has one scale for each block",
        ),
        ("QuantizeLinear", helper.make_attribute("precision", 10), 23, "with precision 10 computes in another type"),
        ("DequantizeLinear", helper.make_attribute("output_dtype", 10), 23, "with output_dtype 10 computes in another"),
        (
            "QuantizeLinear",
            helper.make_attribute("output_dtype", 2),
            21,
            "has a zero point of int8 and output_dtype UINT8",
        ),
        ("QuantizeLinear", helper.make_attribute("block_size", 2), 17, "which opset 17 does not know"),
    ],
    ids=str,
)
def test_an_attribute_that_changes_the_result_is_refused_by_name(op, attribute, opset, sentence):
    if opset > NEWEST_KNOWN:
        pytest.skip(f"the installed onnx reads up to opset {NEWEST_KNOWN}")
    with pytest.raises(BridgeError) as caught:
        convert(with_attribute(op, attribute, opset))
    assert sentence in str(caught.value)


def test_an_attribute_that_refers_to_a_function_is_refused():
    reference = AttributeProto(name="group", type=AttributeProto.INT, ref_attr_name="outer")
    with pytest.raises(BridgeError, match="has an attribute 'group' that is no INT"):
        convert(with_attribute("Conv", reference))


@pytest.mark.parametrize(("op", "place", "number"), [("Conv", 0, 1), ("Relu", 0, 1), ("QuantizeLinear", 1, 2)])
def test_an_operand_that_onnx_demands_is_there(op, place, number):
    model = small_model()
    next(node for node in model.graph.node if node.op_type == op).input[place] = ""
    with pytest.raises(BridgeError, match=f"{op} '.*': has no input number {number}"):
        convert(model)


def test_operands_left_out_at_the_end_are_not_there_one_way_or_the_other():
    plain, ended = small_model(), small_model()
    del next(node for node in plain.graph.node if node.op_type == "Conv").input[2]
    next(node for node in ended.graph.node if node.op_type == "Conv").input[2] = ""
    assert convert(plain).tflite == convert(ended).tflite


def test_the_mean_of_several_tensors_is_not_the_mean_over_axes():
    """ONNX's Mean is another operator than the one that the passes call so."""
    model = small_model()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Mean"
    with pytest.raises(BridgeError, match=r"'relu' \(Mean\): the exact bridge cannot write this operator"):
        convert(model)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_a_dropout_in_training_mode_is_refused(training, mask):
    b = Builder(Seeded(1))
    x = b.quantize(b.input(1, 8, magnitude=2.0))
    w, _ = b.weight(b.normal(3, 8), 0)
    outputs = b.add("Dropout", [x, b.constant(0.5), b.constant(training, np.bool_)], outputs=2)
    y = b.quantize(str(b.add("Gemm", [outputs[0], w], transB=1)), at_least=0.02)
    model = b.finish([y, outputs[1]] if mask else [y])
    if training or mask:
        with pytest.raises(BridgeError, match=r"training mode|is the mask of what was dropped"):
            convert(model.proto)
    else:
        assert apart(model.proto, model.inputs) <= 1


@pytest.mark.parametrize("axes", [None, [], [1], [-1, 1]])
@pytest.mark.parametrize("noop", [0, 1])
@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_a_reduction_with_any_list_of_axes_is_right(axes, noop, opset):
    b = Builder(Seeded(2), opset=opset)
    x = b.quantize(b.input(2, 3, 4, magnitude=2.0))
    attrs = {"noop_with_empty_axes": noop} if opset >= 18 and axes is not None else {}
    operands = [x]
    if axes and opset < 18:
        attrs["axes"] = axes
    elif axes is not None and opset >= 18:
        operands.append(b.constant(axes, np.int64))
    y = b.add("ReduceMean", operands, **attrs)
    if axes == [] and opset < 18:
        b.nodes[-1].attribute.append(AttributeProto(name="axes", type=AttributeProto.INTS))
    model = b.finish([b.quantize(str(y), at_least=0.01)])
    assert apart(model.proto, model.inputs) <= 1


# Drawn values of every attribute

STRINGS = {
    "auto_pad": ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
    "mode": ("constant", "edge", "wrap", "nearest", "linear", "cubic"),
    "coordinate_transformation_mode": (
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
    "round_mode": ("up", "down", "nearest"),
}  # fmt: skip


def drawn_value(kind: str, op: str, name: str, now: object, random: np.random.Generator) -> object:
    """A value of the attribute that may be valid: ONNX Runtime is ended by a stride of 0, so that it gets none."""
    rule = READ[op].attributes[name]
    if kind == "INT":
        drawn = int(random.choice([-2, -1, 0, 1, 1, 2, 3]))
        return max(drawn, rule.lowest) if isinstance(rule, Within) else drawn
    if kind == "FLOAT":
        return float(random.choice([-1.0, 0.0, 0.01, 0.3, 1.0, 2.0, 7.0]))
    if kind == "STRING":
        return str(random.choice(STRINGS[name]))
    lowest = rule.lowest if isinstance(rule, Within) else -1
    sizes = list(now) if isinstance(now, list) and now else [1] * int(random.integers(1, 5))
    at = int(random.integers(len(sizes)))
    return [int(size) if i != at else int(random.integers(lowest, 4)) for i, size in enumerate(sizes)]


def with_drawn_attribute(model: onnx.ModelProto, random: np.random.Generator) -> tuple[onnx.ModelProto, str]:
    """The model with another value of one attribute of one operator; and which."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    opset = copy.opset_import[0].version
    open_to_change = [
        (node, name)
        for node in copy.graph.node
        for name, attribute in onnx.defs.get_schema(node.op_type, opset, "").attributes.items()
        if attribute.type.name in ("INT", "FLOAT", "STRING", "INTS") and (node.op_type, name) != ("Cast", "to")
    ]
    others = [pair for pair in open_to_change if pair[0].op_type not in ("QuantizeLinear", "DequantizeLinear")]
    node, name = (others or open_to_change)[random.integers(len(others or open_to_change))]
    kind = onnx.defs.get_schema(node.op_type, opset, "").attributes[name].type.name
    now = next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), None)
    value = drawn_value(kind, node.op_type, name, now, random)
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return copy, f"{node.op_type}.{name} = {value}"


def valid(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> onnx.ModelProto | None:
    """The model with the shapes that its outputs have now; None where ONNX Runtime does not compute it."""
    from bridge.verifying import onnx_runtime

    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        found = onnx_runtime.session(model).run(None, feeds)
    except Exception:  # noqa: BLE001 - its own types are not public
        return None
    if any(array.size == 0 or not np.isfinite(array).all() for array in found):
        return None
    for value, array in zip(model.graph.output, found, strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, array.shape))
    return model


@pytest.mark.parametrize("step", STEPS)
def test_a_drawn_value_of_any_attribute_is_followed_or_refused(step, tmp_path):
    held = 0
    for seed in itertools.islice(itertools.count(500), 60):
        try:
            model = draw_model(Seeded(seed), {step: STEPS[step]}, most=1)
        except Unusable:
            continue
        changed, what = with_drawn_attribute(model.proto, np.random.default_rng(seed))
        size = {value.name: value.type.tensor_type.shape.dim[0].dim_value for value in changed.graph.input}
        proto = valid(changed, {name: array[: size[name]] for name, array in model.inputs.items()})
        if proto is None:
            continue
        try:
            outcome = checked(Model(proto, model.inputs, model.kinds), tmp_path / f"{seed}.onnx")
        except BridgeError:
            continue
        assert not outcome.too_far, f"seed {seed}, {what}: " + "; ".join(outcome.too_far)
        held += outcome.refusal is None
        if held == 6:
            return
