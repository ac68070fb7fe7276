"""What the exact bridge does not need is never imported: proven in a fresh interpreter."""

import subprocess
import sys

import onnx
import pytest

from tests.builders import Pair, qdq_model, weight

HEAVY = ("torch", "tensorflow", "onnxruntime", "ai_edge_litert", "keras", "tf_keras", "jax")

IMPORT = "import sys\nfrom bridge.exact.convert import convert\n"
CONVERT = "from pathlib import Path\nassert convert(Path(sys.argv[1])).tflite[4:8] == b'TFL3'\n"
SAY = f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    w = weight("w", [[[[1]]], [[[2]]]], [0.5, 0.25])
    onnx.save(
        qdq_model(
            ("Conv", "x w", "c"), ("Relu", "c", "y"),
            inputs={"x": (1, 1, 4, 4)}, pairs={"x": Pair(0.5), "y": Pair(0.5, -128)}, outputs="y", constants=[w],
        ),
        path,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("code", [IMPORT, IMPORT + CONVERT], ids=["import", "conversion"])
def test_no_framework_and_no_runtime_is_imported_by(code, model):
    run = subprocess.run([sys.executable, "-c", code + SAY, str(model)], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
