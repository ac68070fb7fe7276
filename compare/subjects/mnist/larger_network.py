"""The files that the claims on speed need of a network large enough that arithmetic decides; made once, then kept."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np

from compare.running import cache

PREFIX = "larger/"
"""Of their ids, before `network/mode` as the artifacts of route keras-native have them."""
WANTED = ("qat/dynamic-range", "qat/full-integer", "baseline/full-integer", "qat-dense/dynamic-range")
_SEED = 0
_REPRESENTATIVE = 20
_ROOT = Path(__file__).parents[3]
_CODE = ("keras_side/larger.py", "keras_side/qat.py", "keras_side/training.py", "bridge/via_tflite_converter.py")
"""What decides the files; a change makes them anew."""


def files(folder: Path) -> dict[str, bytes]:
    """.tflite files by id, from the cache or made anew. For a worker process: imports TensorFlow."""
    address = cache.key(_facts())
    stored = cache.load(folder, address)
    if stored is None:
        stored = {name: np.frombuffer(content, np.uint8) for name, content in _made().items()}
        cache.store(folder, address, stored)
    return {PREFIX + name: content.tobytes() for name, content in stored.items()}


def _facts() -> dict[str, object]:
    packages = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy")
    return {
        "network": "larger",
        "forms": WANTED,
        "seed": _SEED,
        "code": hashlib.sha256(b"".join((_ROOT / name).read_bytes() for name in _CODE)).hexdigest(),
        "versions": {package: version(package) for package in packages},
    }


def _made() -> dict[str, bytes]:
    from bridge import via_tflite_converter
    from keras_side.larger import forms

    images = np.random.default_rng(_SEED).random((_REPRESENTATIVE, 28, 28), np.float32)
    models = forms(_SEED)
    return {
        name: via_tflite_converter.convert(models[network], mode, "concrete", images)
        for name in WANTED
        for network, mode in [name.split("/")]
    }
