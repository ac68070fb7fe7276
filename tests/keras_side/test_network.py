"""The article's network in Keras: its layers, its weights by name, and the weights it refuses."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from keras_side.network import WEIGHT_SHAPES, build_network, read_weights, write_weights
from keras_side.qat import quantize_dense_only, quantize_whole


def zeros():
    return {name: np.zeros(shape, np.float32) for name, shape in WEIGHT_SHAPES.items()}


def test_the_network_is_the_articles_layer_for_layer():
    model = build_network(0)
    assert [layer.name for layer in model.layers] == ["reshape", "conv", "pool", "flatten", "dense"]
    assert model.input_names == ["input"]
    assert [layer.output_shape[1:] for layer in model.layers] == [
        (28, 28, 1),
        (26, 26, 12),
        (13, 13, 12),
        (2028,),
        (10,),
    ]
    assert model.count_params() == 9 * 12 + 12 + 2028 * 10 + 10


def test_the_same_seed_draws_the_same_weights_whatever_was_built_before():
    first = read_weights(build_network(7))
    build_network(1)
    again, other = read_weights(build_network(7)), read_weights(build_network(8))
    for name, values in first.items():
        assert_array_equal(values, again[name])
    assert (first["conv/kernel"] != other["conv/kernel"]).any()


def test_weights_come_and_go_by_name_as_float32():
    model = build_network(0)
    weights = zeros()
    weights["conv/kernel"][2, 0, 0, 11] = 5.0  # row 2, column 0, channel 11
    write_weights(model, weights)
    read = read_weights(model)
    assert list(read) == ["conv/kernel", "conv/bias", "dense/kernel", "dense/bias"]
    assert {values.dtype for values in read.values()} == {np.dtype(np.float32)}
    assert read["conv/kernel"][2, 0, 0, 11] == 5.0
    assert read["conv/kernel"].sum() == 5.0


def test_the_dense_kernel_takes_its_inputs_in_height_width_channel_order():
    weights = zeros()
    weights["conv/kernel"][1, 1, 0, 3] = 1.0  # channel 3 copies the pixel
    weights["dense/kernel"][(5 * 13 + 2) * 12 + 3, 9] = 1.0  # row 5, column 2, channel 3
    model = build_network(0)
    write_weights(model, weights)
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 2 * 5 + 1, 2 * 2 + 1] = 0.75  # first pixel of that pool window, under the kernel's centre
    assert model(image).numpy()[0].tolist() == [0.0] * 9 + [0.75]


@pytest.mark.parametrize("quantize", [quantize_whole, quantize_dense_only])
def test_a_qat_model_shows_and_takes_the_float_weights_under_training(quantize):
    model = build_network(3)
    aware = quantize(model)
    for name, values in read_weights(model).items():
        assert_array_equal(values, read_weights(aware)[name])
    write_weights(aware, zeros())
    assert not read_weights(aware)["dense/kernel"].any()
    assert read_weights(model)["dense/kernel"].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv/bias": None}, r"are named \['conv/kernel', 'dense/bias', 'dense/kernel'\]"),
        ({"extra": np.zeros(1)}, "'extra'"),
        (
            {"conv/kernel": np.zeros((12, 1, 3, 3))},
            r"'conv/kernel': has shape \(12, 1, 3, 3\); expected \(3, 3, 1, 12\)",
        ),
        ({"dense/bias": np.full(10, np.nan)}, "'dense/bias': holds 10 value"),
    ],
    ids=["missing", "unknown", "PyTorch layout", "not finite"],
)
def test_unfit_weights_are_refused_and_the_model_is_left_alone(change, said):
    weights = {name: values for name, values in (zeros() | change).items() if values is not None}
    model = build_network(0)
    with pytest.raises(BridgeError, match=said):
        write_weights(model, weights)
    assert read_weights(model)["conv/kernel"].any()


def test_another_network_is_refused_by_name():
    from keras_side.legacy import import_keras

    keras = import_keras()
    other = keras.Sequential(
        [keras.layers.InputLayer(input_shape=(4,)), keras.layers.Dense(2, name="only")], name="other"
    )
    with pytest.raises(BridgeError, match="model 'other': has no variable"):
        read_weights(other)
