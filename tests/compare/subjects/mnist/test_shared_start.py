"""The same weights in both frameworks are the same network."""

import numpy as np
import pytest

from compare.subjects.mnist import dataset
from compare.subjects.mnist.shared_start import keras_to_torch, torch_to_keras


@pytest.fixture(scope="module")
def images():
    return dataset.load(None).test_images[:256]


def test_a_torch_network_copied_to_keras_gives_the_same_logits_to_1e_4(images):
    from keras_side import network as keras_network
    from keras_side import training as keras_training
    from torch_side import network, training

    model = network.build_network(3)
    copy = keras_network.build_network(0)
    keras_network.write_weights(copy, torch_to_keras(network.read_weights(model)))
    apart = np.abs(keras_training.predict(copy, images) - training.predict(model, images))
    assert apart.max() <= 1e-4


def test_a_keras_network_copied_to_torch_gives_the_same_logits_to_1e_4(images):
    from keras_side import network as keras_network
    from keras_side import training as keras_training
    from torch_side import network, training

    model = keras_network.build_network(4)
    copy = network.build_network(0)
    network.write_weights(copy, keras_to_torch(keras_network.read_weights(model)))
    apart = np.abs(keras_training.predict(model, images) - training.predict(copy, images))
    assert apart.max() <= 1e-4


def test_the_way_there_and_back_changes_no_bit():
    generator = np.random.default_rng(0)
    weights = {
        "conv.weight": generator.random((12, 1, 3, 3), np.float32),
        "conv.bias": generator.random(12, np.float32),
        "dense.weight": generator.random((10, 2028), np.float32),
        "dense.bias": generator.random(10, np.float32),
    }
    back = keras_to_torch(torch_to_keras(weights))
    assert all(np.array_equal(back[name], weights[name]) for name in weights)


def test_dense_inputs_are_reordered_from_channels_first_to_channels_last():
    """Input 169 of the torch layer is channel 1 at (0, 0); in Keras that is input 1."""
    dense = np.zeros((10, 2028), np.float32)
    dense[0, 169] = 1
    weights = {"conv.weight": np.zeros((12, 1, 3, 3)), "conv.bias": 0, "dense.weight": dense, "dense.bias": 0}
    assert torch_to_keras(weights)["dense/kernel"][1, 0] == 1
