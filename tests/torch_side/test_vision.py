"""torchvision is usable beside the installed torch, whichever build it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from bridge.errors import BridgeError
from torch_side import vision


def run(code: str) -> subprocess.CompletedProcess[str]:
    """`code` in a new interpreter: what torch registers stays registered for the life of a process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_datasets_transforms_and_quantizable_models_import_and_run():
    done = run("""
import gc, pathlib, tempfile
import numpy as np, torch
from torch_side.vision import import_torchvision
torchvision = import_torchvision()
gc.collect()
assert import_torchvision() is torchvision
from torchvision import datasets, transforms
from torchvision.models.quantization import resnet18
image = transforms.ToTensor()(np.zeros((28, 28, 1), np.uint8))
assert image.shape == (1, 28, 28)
assert len(datasets.FakeData(size=3)) == 3
with torch.no_grad():
    assert resnet18(weights=None, quantize=False).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
assert hasattr(torch.ops.torchvision, "nms") and hasattr(torch.ops.torchvision, "qnms")
""")

    assert done.returncode == 0, done.stderr


def test_operators_that_are_there_already_are_left_alone():
    done = run("""
from torch import library
own = library.Library("torchvision", "FRAGMENT")
own.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
own.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torch_side import vision
assert vision._declare_missing_operators() is None
""")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["torch", "torchvision"])
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(vision.importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    vision.import_torchvision.cache_clear()

    with pytest.raises(
        BridgeError, match=rf"^{missing}: is not installed\n  Install it with: pip install '\.\[report\]'"
    ):
        vision.import_torchvision()
