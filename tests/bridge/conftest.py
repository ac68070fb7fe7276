"""Without PyTorch, or without what the laboratory needs, the tests of the bridge that need none of them still run."""

from importlib.util import find_spec

_NEEDS = {
    "torch": [
        "from_torch", "exact/test_architectures.py", "exact/test_models.py", "test_via_fake_quant.py", "test_via_onnx2tf.py",
    ],
    "tensorflow": ["test_via_fake_quant.py", "test_via_onnx2tf.py", "test_via_tflite_converter.py"],
    "platformdirs": ["test_exit_codes.py", "test_targets.py"],
}  # fmt: skip
"""By package: the files and folders whose tests import it."""

collect_ignore = sorted({path for package, paths in _NEEDS.items() if find_spec(package) is None for path in paths})
