"""How this package gets hold of Keras 2, TF-MOT and a TensorFlow whose results repeat."""

from __future__ import annotations

import importlib
import os
import random
import sys
import warnings
from typing import Any

import numpy as np

from bridge.errors import BridgeError

LEGACY_SWITCH = "TF_USE_LEGACY_KERAS"
_TRUE = ("1", "true", "True")  # the three spellings tensorflow/python/util/lazy_loader.py accepts


def import_keras() -> Any:
    """The `tf_keras` module (Keras 2), the only Keras that TF-MOT 0.8 understands.

    Sets TF_USE_LEGACY_KERAS=1 for this process, because TensorFlow reads it once, when `tf.keras` is first used.
    Raises BridgeError when a package is missing or when this process has already settled on Keras 3.
    Source: tensorflow/model-optimization issues 1181 and 1119.
    """
    if "tensorflow" not in sys.modules:
        os.environ[LEGACY_SWITCH] = "1"
    tensorflow = _import("tensorflow", distribution="tensorflow")
    keras = _import("tf_keras", distribution="tf-keras")
    _check_keras_2(tensorflow)
    return keras


def import_tensorflow() -> Any:
    """The `tensorflow` module, with its `tf.keras` pinned to Keras 2; raises as `import_keras` does."""
    import_keras()
    return importlib.import_module("tensorflow")


def import_tfmot() -> Any:
    """The `tensorflow_model_optimization` module; raises BridgeError when it is missing, or as `import_keras` does."""
    import_keras()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="distutils Version classes are deprecated"
        )  # 0.8.1 checks versions so
        return _import("tensorflow_model_optimization", distribution="tensorflow-model-optimization")


def make_deterministic(*, threads: int, seed: int) -> None:
    """Make every TensorFlow result of this process repeat bit for bit, run after run on one machine.

    Turns op determinism on, fixes both thread pools to `threads` (sums over several threads depend on how they were
    split) and seeds Python, numpy and TensorFlow. Call it once, before TensorFlow has run anything.
    Raises BridgeError when TensorFlow is already running with another number of threads.
    Source: tf.config.experimental.enable_op_determinism, API documentation.
    """
    tf = import_tensorflow()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:  # "cannot be modified after initialization"
        raise BridgeError(
            where=f"TensorFlow with {threads} thread(s)",
            problem=f"it already runs in this process with other settings: {error}",
            remedy="Call make_deterministic before any other TensorFlow work, or start a new process.",
        ) from error
    tf.config.experimental.enable_op_determinism()
    seed_everything(seed)


def seed_everything(seed: int) -> None:
    """Seed the three random generators Keras draws from: Python's, numpy's and TensorFlow's."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- Keras 2 shuffles with this global generator
    import_tensorflow().random.set_seed(seed)


def _import(module: str, *, distribution: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # the package is there and its own import is broken: not ours to explain
            raise
        raise BridgeError(
            where="the Keras half",
            problem=f"needs {distribution}, which is not installed",
            remedy="Install it with: pip install '.[keras]'",
        ) from error


def _check_keras_2(tensorflow: Any) -> None:
    """Refuse a process in which `tf.keras` is Keras 3: TF-MOT would reject every model built here."""
    if os.environ.get(LEGACY_SWITCH) in _TRUE and _is_keras_2(tensorflow):
        return
    raise BridgeError(
        where="tf.keras",
        problem=f"TensorFlow was imported without {LEGACY_SWITCH}=1, so it is Keras 3, which TF-MOT cannot quantize",
        remedy=f"Set {LEGACY_SWITCH}=1 before TensorFlow is imported, or call keras_side.legacy.import_keras first.",
    )


def _is_keras_2(tensorflow: Any) -> bool:
    """Keras 3 has `__version__` "3.x" on tf.keras; tf_keras has none there."""
    return not str(getattr(tensorflow.keras, "__version__", "2")).startswith("3")
