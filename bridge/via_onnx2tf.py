"""ONNX to int8 .tflite through onnx2tf 1.x and TensorFlow's converter, offline and on a copy.

What it does to a QAT model is the point of comparing: it drops every Q/DQ pair and calibrates again (catalogue entry
M13), and it misreads int32 biases (docstring of `convert`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError

_SAMPLE_FILE = "calibration_image_sample_data_20x128x128x3_float32.npy"
"""onnx2tf downloads a file of this name for 3-channel inputs unless the working directory has it, even when
calibration data is given (onnx2tf 1.29.24, `download_test_image_data`; catalogue entry M16)."""


def convert(onnx_file: Path, input_name: str, calibration: np.ndarray, work: Path, *, quantized: bool = True) -> bytes:
    """The fully integer .tflite (int8 in and out) that onnx2tf makes of `onnx_file`; the float one if not `quantized`.

    `calibration` is float32 NHWC, scaled as the model expects; it is passed with mean 0 and deviation 1, because
    onnx2tf normalises once more otherwise. `work` is an empty folder; the ONNX file is copied there first, since
    onnx2tf rewrites its input (M14). Nothing is downloaded.

    Measured with 1.29.24: the int32 bias of a converted PyTorch int8 model comes out with its second channel moved to
    the end (the vector is taken for an NCHW shape; M44), and Q/DQ pairs with a Clip between them are dequantized twice
    (M45).

    Changes the working directory and PATH while it runs and prints a lot: call it in a process of its own.
    Raises `BridgeError` when onnx2tf or its simplifier is missing, gives up, or writes no integer model.
    """
    if calibration.ndim != 4 or not len(calibration):
        raise BridgeError(
            where=f"calibration data for {onnx_file.name}",
            problem=f"has shape {calibration.shape}; onnx2tf takes NHWC images",
            remedy="Pass at least one image as float32 (N, H, W, C), scaled as the model expects.",
        )
    onnx2tf = import_onnx2tf()
    copy = work / "model.onnx"
    shutil.copyfile(onnx_file, copy)
    np.save(work / "calibration.npy", calibration.astype(np.float32))
    np.save(work / _SAMPLE_FILE, np.zeros((20, 128, 128, 3), np.float32))
    with _inside(work), _one_file(quantized=quantized):
        try:
            onnx2tf.convert(
                input_onnx_file_path=str(copy),
                output_folder_path=str(work / "out"),
                output_integer_quantized_tflite=quantized,
                custom_input_op_name_np_data_path=[
                    [input_name, str(work / "calibration.npy"), [[[[0.0]]]], [[[[1.0]]]]]
                ],
                non_verbose=True,
                verbosity="warn",
            )
        except (Exception, SystemExit) as error:
            raise BridgeError(
                where=f"onnx2tf on {onnx_file.name}",
                problem=f"gave up: {_first_line(error)}",
                remedy="Its own output is in the report's log of this artifact.",
            ) from error
    return _model(work / "out", onnx_file.name, "_full_integer_quant" if quantized else "_float32")


def import_onnx2tf() -> Any:
    """The `onnx2tf` module; importing it takes seconds. Raises `BridgeError` when it is missing or broken."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import onnx2tf
    except ImportError as error:
        raise BridgeError(
            where="route 'onnx2tf'",
            problem=f"needs onnx2tf, which cannot be imported ({error})",
            remedy="Install it with: pip install '.[onnx2tf]'",
        ) from error
    return onnx2tf


@contextmanager
def _inside(work: Path) -> Iterator[None]:
    """Run in `work`, with the simplifier that came with this Python on PATH.

    onnx2tf calls `onnxsim` as a program. Where it is not on PATH (an environment that was never activated), onnx2tf
    goes on without it and writes a model with constant outputs (M14).
    """
    before, path = Path.cwd(), os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        if shutil.which("onnxsim") is None:
            raise BridgeError(
                where="route 'onnx2tf'",
                problem="the program 'onnxsim' is not on PATH; without it onnx2tf writes constant outputs",
                remedy="Install it into this environment with: pip install onnxsim",
            )
        os.chdir(work)
        yield
    finally:
        os.chdir(before)
        os.environ["PATH"] = path


@contextmanager
def _one_file(*, quantized: bool) -> Iterator[None]:
    """Let TensorFlow's converter work only on the file that is wanted: int8 in and out, or float without optimizations.

    onnx2tf 1.29.24 has seven files written on the way to the integer one, which takes more than half of its time; the
    others stay empty here. The integer file is the same to the last byte (a test compares).
    """
    import tensorflow as tf
    from tensorflow.lite.python import lite

    converters = (lite.TFLiteKerasModelConverterV2, lite.TFLiteFrozenGraphConverterV2)
    originals = [converter.convert for converter in converters]

    def wanted(converter: Any) -> bool:
        return converter.inference_input_type == tf.int8 if quantized else not converter.optimizations

    def only(original: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        return lambda self: original(self) if wanted(self) else b""

    for converter, original in zip(converters, originals, strict=True):
        converter.convert = only(original)
    try:
        yield
    finally:
        for converter, original in zip(converters, originals, strict=True):
            converter.convert = original


def _model(folder: Path, source: str, ending: str) -> bytes:
    written = sorted(folder.glob(f"*{ending}.tflite"))
    if len(written) != 1:
        raise BridgeError(
            where=f"onnx2tf on {source}",
            problem=f"finished without writing a model '*{ending}.tflite'",
            remedy="Its own output, in the report's log of this artifact, names the operator it could not quantize.",
        )
    return written[0].read_bytes()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
