"""M16: the converter wants to download images, although it was given calibration data."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from compare.mismatches.model import Effect, Mismatch, Sighting
from compare.mismatches.parts.models import conv_relu, samples, through_onnx2tf
from compare.subjects.case import Case

FILE = "calibration_image_sample_data_20x128x128x3_float32.npy"
COLOURS = 3


def detect(case: Case) -> Iterator[Sighting]:
    """The file that onnx2tf downloads, in the message of a connection that failed."""
    lines = [line for line in case.log.splitlines() if FILE in line]
    if lines and "Connection" in lines[-1]:
        yield Sighting(
            where="onnx2tf",
            fact=f"asks the network for '{FILE}': it does for every model with an input of {COLOURS} channels",
            remedy="Convert with python -m bridge; or put a float32 array (20, 128, 128, 3) of that name into the working "
            "directory, as bridge.via_onnx2tf does.",
        )


def reproduce() -> Case:
    """onnx2tf on a model with three colours and calibration data of its own, on a machine without network."""
    return Case(onnx=conv_relu(colours=COLOURS), log=_said_without_network())


@cache
def _said_without_network() -> str:
    from bridge.via_onnx2tf import import_onnx2tf

    onnx2tf = import_onnx2tf()
    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)), _no_network():
        Path("model.onnx").write_bytes(conv_relu(colours=COLOURS))
        np.save("calibration.npy", samples(colours=COLOURS).transpose(0, 2, 3, 1))
        try:
            onnx2tf.convert(
                input_onnx_file_path="model.onnx",
                output_folder_path="out",
                custom_input_op_name_np_data_path=[["x", "calibration.npy", [[[[0.0]]]], [[[[1.0]]]]]],
                non_verbose=True,
                verbosity="error",
            )
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises is the finding
            return f"{type(error).__name__}: {error}\n"
    return ""


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextmanager
def _no_network() -> Iterator[None]:
    """As on a build server without a way out: no name is found, no address is reached."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    with mock.patch.object(socket, "getaddrinfo", refuse), mock.patch.object(socket.socket, "connect", refuse):
        yield


def repair(case: Case) -> Case:
    """The same conversion with an array of that name at hand; nothing is downloaded."""
    assert case.onnx is not None  # noqa: S101 - the reproduction has one
    with _no_network():
        tflite = through_onnx2tf(case.onnx, samples(colours=COLOURS).transpose(0, 2, 3, 1))
    return replace(case, tflite=tflite, log="")


def measure(broken: Case, repaired: Case) -> float:
    """Conversions that fail."""
    return float((broken.tflite is None) - (repaired.tflite is None))


MISMATCH = Mismatch(
    id="M16",
    name="a converter that needs the network",
    side="onnx2tf",
    severity="fault",
    versions="onnx2tf 1.29.24",
    source="onnx2tf#222, #339, #683 (utils/common_functions.py, download_test_image_data)",
    cause="For an input with three channels onnx2tf downloads sample images before anything else, also when calibration data is "
    "given. Without network the conversion fails; with it, and without calibration data, scales come from photographs the "
    "model was never meant for.",
    way_out="Place the file it asks for, always pass your own calibration data, or convert with python -m bridge.",
    detect=detect,
    reproduce=reproduce,
    repair=repair,
    measure=measure,
    effect=Effect("conversions that fail", 1.0),
    brings=("M13",),
    automatic=False,
)
