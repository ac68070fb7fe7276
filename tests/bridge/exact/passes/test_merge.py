"""Averages inside the layer behind them: where it is exact, what it costs, and where it is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from bridge.exact.convert import Conversion, Options, convert
from bridge.exact.graph import per_tensor
from bridge.exact.passes.merge import MeanForm
from bridge.exact.passes.slices import cut
from bridge.exact.record import scales_kept
from tests.bridge.exact.graphs import Builder, Model, Seeded, Unusable
from tests.builders import Pair, integers, qdq_model, weight

PAIRS = {"x": Pair(0.5, -3), "y": Pair(0.25)}


def pooled(*between: Any, form: MeanForm = "auto", **more: Any) -> Conversion:
    return convert(pooled_model(*between, **more), Options(mean=form))


def pooled_model(
    *between: Any,
    x: Any = (1, 2, 3, 3),
    codes: Any = ((5, -7),),
    pairs: Any = None,
    **more: Any,
) -> onnx.ModelProto:
    """A global average, what stands between, and a dense layer."""
    steps = (
        ("GlobalAveragePool", "x", "m"),
        *(between or (("Flatten", "m", "f"),)),
        ("Gemm", "f w", "y", {"transB": 1}),
    )
    constants = [weight("w", codes, 0.5), *more.get("constants", ())]
    return qdq_model(*steps, inputs={"x": x}, pairs=pairs or PAIRS, outputs="y", constants=constants)


def operators(conversion: Conversion) -> list[str]:
    return [node.op for node in conversion.graph.nodes]


def kinds(conversion: Conversion) -> list[str]:
    return [note.kind for note in conversion.notes]


def test_a_dense_layer_reads_the_whole_map_at_a_scale_that_divides():
    done = pooled()
    assert operators(done) == ["RESHAPE", "FULLY_CONNECTED"]
    _, kernel, _ = done.graph.operands(done.graph.nodes[1])
    assert kernel.values.tolist() == [[5, -7] * 9]  # channels last, as the map is stored
    assert float(kernel.q.scale) == pytest.approx(0.5 / 9)
    assert kinds(done) == ["merged"]


def test_a_convolution_of_size_one_gets_a_kernel_of_the_map():
    steps = ("GlobalAveragePool", "x", "m"), ("Conv", "m w", "y", {"kernel_shape": [1, 1]})
    model = qdq_model(
        *steps, inputs={"x": (1, 2, 3, 2)}, pairs=PAIRS, outputs="y", constants=[weight("w", [[[[5]], [[-7]]]], 0.5)]
    )
    done = convert(model)
    assert operators(done) == ["CONV_2D"]
    assert done.graph.operands(done.graph.nodes[0])[1].shape == (1, 3, 2, 2)


def test_what_grows_too_much_is_left_with_what_it_would_cost():
    wide = np.ones((60, 40), np.int8)
    done = pooled(x=(1, 40, 3, 3), codes=wide)
    (note,) = done.notes
    assert note.kind == "inherited"
    assert "add 19,200 bytes of weights (--mean conv)" in note.what  # 8 copies of 2,400
    assert "in 3 slices" in note.what
    assert operators(pooled(x=(1, 40, 3, 3), codes=wide, form="conv")) == ["RESHAPE", "FULLY_CONNECTED"]


def test_a_trained_pair_behind_the_average_keeps_its_rounding():
    pairs = {**PAIRS, "m": Pair(0.5, -3)}  # the very scale of the input, which an average without a pair would take
    assert operators(pooled(form="conv", pairs=pairs)) == ["MEAN", "RESHAPE", "FULLY_CONNECTED"]


def test_a_trained_pair_behind_the_flatten_keeps_its_rounding_too():
    pairs = {**PAIRS, "f": Pair(0.5, -3)}
    assert "MEAN" in operators(pooled(form="conv", pairs=pairs))


def test_inherit_leaves_the_average_alone():
    assert operators(pooled(form="inherit")) == ["MEAN", "RESHAPE", "FULLY_CONNECTED"]


def test_fine_reads_the_mean_in_slices_of_its_range():
    done = pooled(form="fine")
    assert operators(done) == ["DEPTHWISE_CONV_2D"] * 3 + ["CONCATENATION", "RESHAPE", "FULLY_CONNECTED"]
    together = done.graph.output(done.graph.nodes[3])
    assert float(together.q.scale) == pytest.approx(0.5 * 3 / 9)  # nine values: three ninths of a step
    assert int(together.q.zero_point) == -128
    assert scales_kept(done) == 4  # of the input, the weight and the output, and of the input once more, reshaped
    (note,) = [note for note in done.notes if note.kind == "inherited"]
    assert note.lsb == pytest.approx(0.5 / 9 * (5 + 7) * 0.5 / 0.25)  # a ninth of a step, times the weights


def test_auto_takes_as_many_slices_as_the_file_may_grow_by():
    wide = np.ones((60, 40), np.int8)
    done = pooled(x=(1, 40, 5, 5), codes=wide)
    assert operators(done).count("DEPTHWISE_CONV_2D") == 5  # 24 copies do not fit in 16 KB
    assert "in 5 slices" in done.notes[0].what


@pytest.mark.parametrize("codes", [((5, -7),), ((5, -128),)])
@pytest.mark.parametrize("pair", [Pair(0.5, -128), Pair(0.5, -3), Pair(0.25, 100)])
def test_slices_add_up_to_the_mean(codes, pair):
    """The sum of the slices, from the file itself, is a mean that misses the true one by half a slice's step at most."""
    pytest.importorskip("ai_edge_litert")
    from bridge.verifying.litert import Runner

    given = np.random.default_rng(0).integers(-128, 128, (1, 3, 3, 2)).astype(np.int8)
    given[..., 1] = 127  # and one at the very end
    exact, fine = (
        convert(pooled_model(codes=codes, pairs={"x": pair, "y": Pair(pair.scale * 16)}), Options(mean=form))
        for form in ("conv", "fine")
    )
    (one,), (other,) = (Runner(done.tflite, "xnnpack")({"x": given}).values() for done in (exact, fine))
    bound = max(note.lsb or 0 for note in fine.notes if note.kind == "inherited")
    assert np.abs(one.astype(int) - other.astype(int)).max() <= bound + 1
    assert bound < 0.5


def test_a_code_of_minus_128_is_not_repeated_but_shared_by_a_copy_of_its_feature():
    done = pooled(codes=[[5, -128], [1, 2]])
    assert operators(done) == ["CONV_2D", "CONCATENATION", "RESHAPE", "FULLY_CONNECTED"]
    _, kernel, _ = done.graph.operands(done.graph.nodes[3])
    assert kernel.values.tolist() == [[5, -127, -1] * 9, [1, 2, 0] * 9]
    assert kinds(done) == ["merged"]


def test_codes_of_minus_128_are_repeated_where_they_are_kept_or_never_meet_their_like():
    kept = convert(pooled_model(codes=[[5, -128]]), Options(weights="keep"))
    assert operators(kept) == ["RESHAPE", "FULLY_CONNECTED"]
    seven_bits = {"x": Pair(0.5), "c": Pair(0.5, 0, clip=(0, 127)), "y": Pair(0.25)}
    model = qdq_model(
        ("Conv", "x k", "c"), ("GlobalAveragePool", "c", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
        inputs={"x": (1, 1, 2, 2)}, pairs=seven_bits, outputs="y",
        constants=[weight("k", [[[[1]]]], 0.5), weight("w", [[-128]], 0.5)],
    )  # fmt: skip
    assert "CONCATENATION" not in operators(convert(model))
    assert "merged" in kinds(convert(model))


@pytest.mark.parametrize(("form", "operator"), [("conv", "CONV_2D"), ("fine", "DEPTHWISE_CONV_2D")])
def test_a_map_over_one_axis_is_read_as_one_over_two(form, operator):
    done = pooled(x=(1, 2, 20), codes=[[5, -128]], form=form)
    assert operator in operators(done)
    assert "MEAN" not in operators(done)
    assert not [note for note in done.notes if note.kind == "weights"]


def test_slices_hold_minus_128_even_where_the_map_does_not():
    pairs = {"x": Pair(0.5), "c": Pair(0.5, 0, clip=(0, 127)), "y": Pair(8.0)}
    model = qdq_model(
        ("Conv", "x k", "c"), ("GlobalAveragePool", "c", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1}),
        inputs={"x": (1, 1, 4, 4)}, pairs=pairs, outputs="y",
        constants=[weight("k", [[[[1]]], [[[2]]]], 0.5), weight("w", [[-128, 7]], 0.5)],
    )  # fmt: skip
    done = convert(model, Options(mean="fine"))
    (note,) = [note for note in done.notes if note.kind == "inherited"]
    assert note.lsb == 0.0  # 16 values of 7 bits: the slices say every mean exactly
    assert not [note for note in done.notes if note.kind == "weights"]
    assert codes_given(done) == codes_given(convert(model, Options(mean="conv")))


def codes_given(done: Conversion) -> list[int]:
    pytest.importorskip("ai_edge_litert")
    from bridge.verifying.litert import Runner

    given = np.random.default_rng(0).integers(-128, 128, (40, 1, 4, 4, 1)).astype(np.int8)
    runner = Runner(done.tflite, "xnnpack")
    return [next(iter(runner({"x": each}).values())).item() for each in given]


def test_codes_of_minus_128_for_features_that_are_no_channels_are_left_alone():
    steps = ("ReduceMean", "x", "m", {"axes": [1], "keepdims": 0}), ("Gemm", "m w", "y", {"transB": 1})
    model = qdq_model(
        *steps, inputs={"x": (1, 3, 2)}, pairs=PAIRS, outputs="y", constants=[weight("w", [[5, -128]], 0.5)]
    )
    done = convert(model, Options(mean="conv"))
    assert "MEAN" in operators(done)
    assert any("-128" in note.what for note in done.notes if note.kind == "inherited")


def test_a_sum_beyond_int32_is_left_alone():
    done = pooled(x=(1, 256, 20, 20), codes=np.full((1, 256), 127, np.int8), form="conv")
    assert "MEAN" in operators(done)
    assert "does not fit int32" in done.notes[0].what


def test_samples_that_a_reshape_mixes_are_left_alone():
    between = ("Reshape", "m s", "f")
    done = pooled(between, x=(2, 2, 3, 3), codes=[[5]], form="conv", constants=[integers("s", [4, 1])])
    assert "MEAN" in operators(done)


def test_an_average_that_others_read_too_stays_for_them():
    steps = ("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Gemm", "f w", "y", {"transB": 1})
    model = qdq_model(
        *steps, ("Sigmoid", "m", "z"),
        inputs={"x": (1, 2, 3, 3)}, pairs=PAIRS, outputs="y z", constants=[weight("w", [[5, -7]], 0.5)],
    )  # fmt: skip
    done = convert(model)
    assert sorted(operators(done)) == ["FULLY_CONNECTED", "LOGISTIC", "MEAN", "RESHAPE"]
    assert sorted(kinds(done)) == ["fixed", "inherited", "merged"]


@pytest.mark.parametrize(
    ("pair", "relu", "scale", "zero_point"),
    [
        (Pair(0.5, 0, clip=(0, 127)), False, 0.25, -127),  # symmetric activations behind a ReLU, or 7 bits
        (Pair(0.5, 0), True, 0.25, -127),
        (Pair(0.5, -128), True, 0.5, -128),  # the whole of int8: no finer scale is safe
        (Pair(0.5, 0), False, 0.5, 0),
    ],
)
def test_a_mean_gets_the_finest_scale_that_its_inputs_cannot_leave(pair, relu, scale, zero_point):
    steps = (
        ("Conv", "x k", "c"),
        *((("Relu", "c", "r"),) if relu else ()),
        ("GlobalAveragePool", "r" if relu else "c", "m"),
    )
    model = qdq_model(
        *steps, inputs={"x": (1, 1, 2, 2)}, pairs={"x": Pair(0.5), "c": pair}, outputs="m",
        constants=[weight("k", [[[[1]]]], 0.5)],
    )  # fmt: skip
    found = convert(model, Options(mean="fine")).graph.tensors["m"].q
    assert float(found.scale) == pytest.approx(scale, rel=1e-2)
    assert int(found.zero_point) == zero_point
    assert float(convert(model, Options(mean="inherit")).graph.tensors["m"].q.scale) == 0.5


def test_an_input_of_the_model_may_hold_any_code():
    model = qdq_model(
        ("GlobalAveragePool", "x", "m"),
        inputs={"x": (1, 1, 2, 2)},
        pairs={"x": Pair(0.5, 0, clip=(0, 100))},
        outputs="m",
    )
    assert float(convert(model, Options(mean="fine")).graph.tensors["m"].q.scale) == 0.5


def drawn(seed: int) -> Model:
    """An average over any axes of any map, reshapes and transposes, a dense layer or a convolution, a pair."""
    b = Builder(Seeded(seed), 17)
    shape = (b.one_of(1, 1, 3), b.source.integer(1, 5), b.source.integer(1, 5), b.source.integer(1, 5))
    x = b.quantize(b.input(*shape[: b.one_of(4, 4, 3)], magnitude=3.0))
    step = np.float32(b.scale(x))
    if b.odds(3):
        x = str(b.add("Relu", [x]))
    rank = len(b.shape(x))
    axes = sorted({b.source.integer(1, rank - 1) for _ in range(2)})
    how = b.one_of("global", "global", "some")
    m = str(
        b.add("GlobalAveragePool", [x])
        if how == "global"
        else b.add("ReduceMean", [x], axes=axes, keepdims=b.one_of(0, 1))
    )
    if len(b.shape(m)) < 2:
        raise Unusable
    if how == "global" and rank == 4 and b.odds(2):
        real, kind = b.normal(b.source.integer(1, 4), b.shape(m)[1], 1, 1), "Conv"
    else:
        for _ in range(b.one_of(0, 1, 2)):
            m = str(b.add("Transpose", [m], perm=[0, *(int(a) + 1 for a in b.random.permutation(len(b.shape(m)) - 1))]))
        m = str(b.add("Flatten", [m]))
        real, kind = b.normal(b.source.integer(1, 4), b.shape(m)[1]), "Gemm"
    w, scales = b.weight(real, axis=0)
    bias = b.bias(len(real), step * scales, 1.0)
    y = str(b.add(kind, [m, w, *bias], **({"transB": 1} if kind == "Gemm" else {})))
    return b.finish([b.quantize(y, at_least=float(step * np.max(scales)))])


def test_drawn_averages_and_layers_give_what_onnx_runtime_gives(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    from bridge.verifying.verification import verify

    merged, equal, total = 0, 0, 0
    for seed in range(150):
        try:
            model = drawn(seed)
        except Unusable:
            continue
        done = convert(model.proto)
        if "merged" not in kinds(done):
            continue
        path = tmp_path / f"{seed}.onnx"
        onnx.save(model.proto, path)
        (distance,) = verify(path, done.graph, done.tflite, model.inputs, operators=False).outputs["xnnpack"].values()
        assert distance.worst <= 1, f"seed {seed}: {distance}"
        merged, equal, total = merged + 1, equal + distance.histogram.get(0, 0), total + distance.count
    assert merged >= 60
    assert equal / total >= 0.995  # the reference sums in float32: ties


@pytest.mark.parametrize(
    ("low", "high", "count", "most", "number", "multiple"),
    [(-128, 127, 9, 8, 3, 3), (-128, 127, 49, 8, 7, 7), (0, 127, 16, 8, 8, 1), (-128, 127, 9, 2, 2, 5)],
)
def test_slices_are_cut_on_the_steps_that_means_come_in(low, high, count, most, number, multiple):
    found = cut(per_tensor(0.5, 0), low, high, count, most)
    assert (found.number, found.multiple) == (number, multiple)
    assert number * 255 * multiple >= count * (high - low)  # together they reach to the end
    assert found.off == pytest.approx(0.5 * (multiple // 2) / count)
