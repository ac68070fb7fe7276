"""The article's network in PyTorch."""

import numpy as np
import pytest
import torch

from bridge.errors import BridgeError
from torch_side import network


def test_it_is_the_articles_network():
    shapes = {name: tuple(value.shape) for name, value in network.build_network(0).named_parameters()}
    assert shapes == {
        "conv.weight": (12, 1, 3, 3),
        "conv.bias": (12,),
        "dense.weight": (10, 2028),
        "dense.bias": (10,),
    }


def test_the_seed_alone_decides_the_first_weights():
    first, again, other = (network.read_weights(network.build_network(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first["dense.weight"], again["dense.weight"])
    assert not np.array_equal(first["dense.weight"], other["dense.weight"])


def test_building_a_network_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    network.build_network(0)
    assert torch.rand(1) == expected


def test_weights_written_are_the_weights_read():
    weights = network.read_weights(network.build_network(1))
    model = network.build_network(2)
    network.write_weights(model, weights)
    for name, value in network.read_weights(model).items():
        assert np.array_equal(value, weights[name])


def test_a_missing_array_is_refused_by_name():
    weights = network.read_weights(network.build_network(0))
    del weights["conv.bias"]
    with pytest.raises(BridgeError, match=r"expected .*conv\.bias.*, got"):
        network.write_weights(network.build_network(0), weights)


@pytest.mark.parametrize("broken", [np.zeros(11, np.float32), np.full(12, np.nan, np.float32)], ids=["shape", "nan"])
def test_an_unfit_array_is_refused_with_its_name(broken):
    weights = network.read_weights(network.build_network(0)) | {"conv.bias": broken}
    with pytest.raises(BridgeError, match=r"weight 'conv\.bias'.*finite values of shape \(12,\)"):
        network.write_weights(network.build_network(0), weights)
