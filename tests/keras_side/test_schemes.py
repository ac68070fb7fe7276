"""TF-MOT's scheme for a target: the converted weights have as many scales as the target runs fast with."""

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.targets import WEIGHTS
from bridge.via_tflite_converter import convert
from compare.tflite.graph import open_tflite
from keras_side.legacy import import_keras
from keras_side.network import build_network
from keras_side.qat import quantize_whole
from keras_side.schemes import for_target


def branches():
    """Every kind of convolution, a batch norm that is folded, and two convolutions that feed a Concatenate."""
    keras = import_keras()
    layers = keras.layers
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(inputs)))
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    sides = [layers.Conv2D(2, 1, name=name)(x) for name in ("left", "right")]
    x = layers.Flatten(name="flatten")(layers.Concatenate(name="both")(sides))
    return keras.Model(inputs, layers.Dense(5, name="dense")(x), name="branches")


def converted_weights(model, shape, **options):
    """Operator and number of its weight's scales, in execution order, after a step of training."""
    random = np.random.default_rng(0)
    model(random.random((4, *shape), dtype=np.float32), training=True)
    samples = random.random((4, *shape), dtype=np.float32)
    graph = open_tflite(convert(model, "integer-only", "concrete", samples, **options)).graph
    weighted = [n for n in graph.nodes if n.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    weights = [(n.op, graph.tensors[n.inputs[1]]) for n in weighted]
    assert {w.dtype for _, w in weights} == {np.dtype(np.int8)}
    return [(op, w.qparams.scale.size) for op, w in weights]


def test_the_network_for_an_npu_that_wants_one_scale_has_one_per_weight():
    model = quantize_whole(build_network(0), for_target("imx8mp"))
    assert converted_weights(model, (28, 28)) == [("CONV_2D", 1), ("FULLY_CONNECTED", 1)]


def test_every_kind_of_convolution_has_one_scale_even_before_a_concatenation():
    """TF-MOT's own `disable_per_axis` leaves one for each channel in the convolutions before the Concatenate."""
    model = quantize_whole(branches(), for_target("imx8mp"))
    assert converted_weights(model, (8, 8, 3), per_channel=False) == [
        ("CONV_2D", 1), ("DEPTHWISE_CONV_2D", 1), ("CONV_2D", 1), ("CONV_2D", 1), ("FULLY_CONNECTED", 1)
    ]  # fmt: skip


def test_a_folded_batch_norm_has_a_factor_for_each_channel_unless_the_converter_is_told():
    found = converted_weights(quantize_whole(branches(), for_target("imx8mp")), (8, 8, 3))
    assert [scales for _, scales in found] == [4, 1, 1, 1, 1]


def test_other_targets_keep_tf_mots_scales_for_each_channel():
    model = quantize_whole(build_network(0), for_target("ethos-u"))
    assert converted_weights(model, (28, 28)) == [("CONV_2D", 12), ("FULLY_CONNECTED", 1)]


def test_without_a_scheme_nothing_changes():
    ours, default = (quantize_whole(build_network(0), scheme) for scheme in (for_target("cpu"), None))
    assert [w.shape for w in ours.weights] == [w.shape for w in default.weights]


@pytest.mark.parametrize("target", WEIGHTS)
def test_every_target_has_a_scheme(target):
    assert for_target(target).get_quantize_registry() is not None


def test_an_unknown_target_is_refused_with_the_known_ones():
    with pytest.raises(BridgeError, match="target 'k210': is not known") as refusal:
        for_target("k210")
    assert all(each in refusal.value.remedy for each in WEIGHTS)
