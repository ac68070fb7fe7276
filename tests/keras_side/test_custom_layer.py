"""A layer TF-MOT does not know: refused without a QuantizeConfig, integer in the .tflite with one."""

import numpy as np
import pytest
import tflite

from bridge.errors import BridgeError
from bridge.via_tflite_converter import convert
from keras_side.custom_layer import channel_scale, channel_scale_config
from keras_side.legacy import import_keras, import_tfmot
from keras_side.qat import activation_scales, quantize_whole, quantize_with_configs

OPERATOR_NAMES = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}


def network_with(layer):
    """8x8 pixels, a convolution, `layer`, four logits."""
    keras = import_keras()
    return keras.Sequential(
        [
            keras.layers.InputLayer(input_shape=(8, 8, 1), name="input"),
            keras.layers.Conv2D(3, 3, name="conv"),
            layer,
            keras.layers.Flatten(name="flatten"),
            keras.layers.Dense(4, name="dense"),
        ],
        name="small",
    )


def fine_tuned(model):
    generator = np.random.default_rng(0)
    model.compile("adam", "mse")
    model.fit(generator.random((32, 8, 8, 1)), generator.random((32, 4)), verbose=0)
    return model


def operators(content):
    """[(operator name, {dtype of each activation and weight it touches})] of a .tflite, shapes and biases left out."""
    model = tflite.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    found = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        touched = [*operator.InputsAsNumpy(), *operator.OutputsAsNumpy()]
        types = {graph.Tensors(int(tensor)).Type() for tensor in touched} - {tflite.TensorType.INT32}
        found.append((OPERATOR_NAMES[model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()], types))
    return found


def test_without_a_config_the_layer_is_refused_by_name():
    with pytest.raises(
        BridgeError, match=r"TF-MOT refuses it: Layer gain:.*ChannelScale.* is not supported"
    ) as refusal:
        quantize_whole(network_with(channel_scale()(name="gain")))
    assert "custom_layer.py" in refusal.value.remedy


def test_with_its_config_the_layer_becomes_an_int8_mul_between_int8_operators():
    layer = channel_scale()
    model = network_with(layer(name="gain"))
    aware = fine_tuned(quantize_with_configs(model, {layer: channel_scale_config()()}))
    content = convert(aware, "dynamic-range", "concrete", None)

    integer = {tflite.TensorType.INT8}
    assert operators(content)[1:-1] == [
        ("CONV_2D", integer),
        ("MUL", integer),
        ("RESHAPE", integer),
        ("FULLY_CONNECTED", integer),
    ]
    assert list(activation_scales(aware)) == ["input", "conv", "gain", "dense"]


def test_the_trained_gain_survives_quantization():
    layer = channel_scale()
    model = network_with(layer(name="gain"))
    model.get_layer("gain").gain.assign([2.0, -1.0, 0.5])
    aware = quantize_with_configs(model, {layer: channel_scale_config()()})
    (gain,) = (variable for variable in aware.weights if variable.name == "gain/gain:0")
    assert gain.numpy().tolist() == [2.0, -1.0, 0.5]


def test_prelu_trains_with_a_config_of_its_own_and_still_comes_out_float():
    """The warning in custom_layer.py; if this fails after an update, PReLU can be quantized and the text is outdated."""
    keras = import_keras()

    class SlopeConfig(channel_scale_config()):
        def get_weights_and_quantizers(self, layer):
            quantizers = import_tfmot().quantization.keras.quantizers
            weight = quantizers.LastValueQuantizer(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)
            return [(layer.alpha, weight)]

        def set_quantize_weights(self, layer, quantize_weights):
            (layer.alpha,) = quantize_weights

    model = network_with(keras.layers.PReLU(shared_axes=[1, 2], alpha_initializer="ones", name="prelu"))
    aware = fine_tuned(quantize_with_configs(model, {keras.layers.PReLU: SlopeConfig()}))
    found = dict(operators(convert(aware, "dynamic-range", "concrete", None)))
    assert found["PRELU"] == {tflite.TensorType.FLOAT32}
    assert found["CONV_2D"] == {tflite.TensorType.INT8}
