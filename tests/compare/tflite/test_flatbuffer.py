"""A damaged .tflite is one sentence, wherever the damage lies."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.exact.graph import Graph, Node
from bridge.exact.writer import write
from compare.tflite.flatbuffer import verify
from compare.tflite.graph import open_tflite
from tests.bridge.exact.test_bad_input import small_model
from tests.builders import activation


@pytest.fixture(scope="module")
def whole() -> bytes:
    return convert(small_model()).tflite


def test_a_file_of_ours_is_whole(whole):
    verify(whole)
    open_tflite(whole, "model.tflite")


def test_changed_bytes_open_or_are_refused(whole):
    random, refused = np.random.default_rng(5), 0
    for case in range(1500):
        content = bytearray(whole)
        for at in random.integers(8, len(content) - 4, random.integers(1, 5)):
            size = int(random.choice([1, 4]))
            numbers = [0, 1, 2**31 - 1, 2**32 - 1, int(random.integers(2**32))]
            content[at : at + size] = int(random.choice(numbers) % 256**size).to_bytes(size, "little")
        try:
            open_tflite(bytes(content), "model.tflite")
        except BridgeError as error:
            assert str(error).startswith("model.tflite"), case
            refused += 1
    assert refused > 100


def test_vectors_that_lie_over_each_other_are_refused(whole):
    """Each of many tables may name the same megabytes; what is visited is counted."""
    verifying = __import__("compare.tflite.flatbuffer", fromlist=["_Verifier"])._Verifier(whole)
    with pytest.raises(IndexError, match="refer to"):
        verifying.spend(17 * len(whole))


@pytest.mark.parametrize("reads", ["a", "b"], ids=["its own result", "the next one's"])
def test_operators_in_a_circle_are_damage(reads):
    """Whoever follows such a file back to its inputs would follow it for ever."""
    tensors = [activation(name, (1, 2), 0.5) for name in "xab"]
    nodes = (
        Node("ADD", "first", ("x", reads), ("a",), {"fused_activation": "NONE"}),
        Node("RELU", "second", ("a",), ("b",)),
    )
    content = write(Graph(nodes, {tensor.name: tensor for tensor in tensors}, ("x",), ("b",)))
    with pytest.raises(BridgeError, match=f"ADD reads tensor '{reads}' before it is written"):
        open_tflite(content)
