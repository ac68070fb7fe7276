"""Getting hold of Keras 2: what is imported when, and what is said when it cannot be."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.errors import BridgeError
from keras_side import legacy

ROOT = Path(__file__).parents[2]
MODULES = (
    "keras_side.legacy",
    "keras_side.network",
    "keras_side.qat",
    "keras_side.custom_layer",
    "keras_side.training",
    "bridge.via_tflite_converter",
)


def run_python(code, **environment):
    """The stdout of `code` in a fresh interpreter, in which TF_USE_LEGACY_KERAS is only what `environment` says."""
    inherited = {name: value for name, value in os.environ.items() if name != legacy.LEGACY_SWITCH}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_importing_the_modules_imports_no_framework_and_changes_no_environment():
    code = (
        f"import os, sys, {', '.join(MODULES)}\n"
        "print([name for name in ('tensorflow', 'tf_keras', 'tensorflow_model_optimization') if name in sys.modules],\n"
        "      os.environ.get('TF_USE_LEGACY_KERAS'))"
    )
    assert run_python(code) == "[] None\n"


def test_a_process_that_already_runs_keras_3_is_told_what_to_set():
    code = (
        "import tensorflow\n"
        "from bridge.errors import BridgeError\n"
        "from keras_side.legacy import import_keras\n"
        "try:\n    import_keras()\n"
        "except BridgeError as error:\n    print(error)"
    )
    said = run_python(code)
    assert "it is Keras 3" in said
    assert "Set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported" in said


def test_a_switch_set_after_tf_keras_was_used_does_not_help(monkeypatch):
    monkeypatch.setenv(legacy.LEGACY_SWITCH, "1")
    with pytest.raises(BridgeError, match="it is Keras 3"):
        legacy._check_keras_2(SimpleNamespace(keras=SimpleNamespace(__version__="3.10.0")))


@pytest.mark.parametrize(
    ("module", "distribution", "import_it"),
    [
        ("tensorflow", "tensorflow", legacy.import_keras),
        ("tf_keras", "tf-keras", legacy.import_keras),
        ("tensorflow_model_optimization", "tensorflow-model-optimization", legacy.import_tfmot),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, module, distribution, import_it):
    legacy.import_tfmot()
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say: not installed
    with pytest.raises(
        BridgeError, match=rf"needs {distribution}, which is not installed\n.*pip install '\.\[keras\]'"
    ):
        import_it()


def test_determinism_may_be_asked_for_twice_but_not_with_other_thread_counts():
    code = (
        "from bridge.errors import BridgeError\n"
        "from keras_side import legacy\n"
        "legacy.make_deterministic(threads=1, seed=0)\n"
        "legacy.import_tensorflow().zeros(1)\n"
        "legacy.make_deterministic(threads=1, seed=1)\n"
        "try:\n    legacy.make_deterministic(threads=2, seed=0)\n"
        "except BridgeError as error:\n    print(error)"
    )
    assert "TensorFlow with 2 thread(s): it already runs in this process" in run_python(code)
