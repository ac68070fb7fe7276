"""Networks of torchvision through the exact bridge, against PyTorch's int8 engine and operator by operator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bridge.exact.convert import convert
from bridge.verifying.verification import compare_outputs, verify
from torch_side import architectures, bias_grid, export, training

NAMES = ("shufflenet_v2_x0_5", "resnet18", "mobilenet_v2", "mobilenet_v3_large", "googlenet")
LEAST_EQUAL = 0.85
"""Share of logits equal to the engine's on XNNPACK, of four images: one tie that an early ADD breaks the other way moves
a tenth of one image's logits by 1 LSB. docs/architectures.md has what was measured on 64 images."""
QUICK = ("shufflenet_v2_x0_5", "resnet18")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "qconfig"),
    [
        pytest.param(name, qconfig, marks=() if name in QUICK and qconfig == "qnnpack" else pytest.mark.slow)
        for name in NAMES
        for qconfig in ("qnnpack", "fbgemm")
    ],
)
def test_says_what_the_engine_says_and_every_operator_alone_is_within_one_lsb(name, qconfig, tmp_path):
    size = 64
    images = architectures.natural_images(4, size, seed=1).numpy()
    engine = training.to_int8_engine(architectures.build_trained_looking(name, qconfig, size=size, batch=8), qconfig)
    bias_grid.round_engine(engine, (images[:1],))  # fbgemm would add float biases, which no int32 kernel does
    export.export_onnx(engine, images[:1], tmp_path / "model.onnx")

    conversion = convert(tmp_path / "model.onnx")

    with torch.no_grad():
        said = np.concatenate([engine(torch.from_numpy(image[None])).numpy() for image in images])
    found = compare_outputs(conversion.graph, conversion.tflite, {"input": images}, [said])["xnnpack"]["logits"]
    alone = verify(tmp_path / "model.onnx", conversion.graph, conversion.tflite, {"input": images[:1]}).operators
    assert not any(tensor.dtype == np.float32 for tensor in conversion.graph.tensors.values())
    assert found.equal >= LEAST_EQUAL
    assert found.worst <= 2
    assert found.margin <= 2  # a class changes only where the engine was as good as undecided
    assert max(item.distance.worst for item in alone) <= 1
