"""The MNIST networks of both frameworks as the subject of a matrix: trained here, or found in the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from compare.running.workers import Lane
from compare.subjects.mnist.calibration import CALIBRATION_IMAGES
from compare.subjects.mnist.dataset import Dataset
from compare.subjects.mnist.networks import NETWORKS, Arrays, Job, TrainedNetwork, train
from compare.subjects.mnist.settings import Settings
from compare.subjects.mnist.shared_start import torch_to_keras
from compare.subjects.model import Form, Subject, reference_lsb

_SPECS = {spec.id: spec for spec in NETWORKS}


def prepare(data: Dataset, settings: Settings, qconfig: str, cache: Path, folder: Path) -> Subject:
    """Train (or load) a float and a QAT network in both frameworks, and write every form of them into `folder`.

    Raises `BridgeError` when a network cannot be trained or one of its forms cannot be written.
    """
    folder.mkdir(parents=True)
    torch, keras = Lane("torch"), Lane("keras")
    try:

        def trained(lane: Lane, network: str, start: Arrays | None) -> Any:
            job = Job(_SPECS[network], settings, cache, fresh=False, work=folder, exporter="torchscript")
            return lane.submit(network, train, job, data, start)

        torch_float = _value(trained(torch, "torch/float", None).result())
        waiting = trained(torch, f"torch/qat-{qconfig}", torch_float.arrays)
        keras_start = torch_to_keras(torch_float.arrays)
        keras_float = _value(trained(keras, "keras/baseline", keras_start).result())
        keras_qat = _value(trained(keras, "keras/qat", keras_start).result())
        torch_qat = _value(waiting.result())
        dynamo = folder / "torch-float.dynamo.onnx"
        _value(torch.submit("export", _export_by_default, dict(torch_float.arrays), settings.seed, dynamo).result())
        torch.finish()  # the exporter's progress bars hold a semaphore
    finally:
        torch.close()
        keras.close()
    forms = {
        **forms_of(torch_qat, data, folder),
        **forms_of(torch_float, data, folder),
        **forms_of(keras_float, data, folder),
        **forms_of(keras_qat, data, folder),
    }
    forms["dynamo"] = replace(forms["float"], file=dynamo, kind="dynamo")
    notes = [f"qconfig {qconfig}: {said.splitlines()[0]}" for said in torch_qat.refusals.values()]
    return Subject(f"MNIST network, PyTorch qconfig {qconfig} and TF-MOT", forms, data.test_labels, tuple(notes))


def forms_of(network: TrainedNetwork, data: Dataset, folder: Path) -> dict[str, Form]:
    """The forms of one trained network by the routes' names for them; weights are written into `folder`."""
    channel = network.spec.framework == "torch"
    inputs = _images(data.test_images, channel=channel)
    calibration = _images(data.train_images[:CALIBRATION_IMAGES], channel=channel)

    def form(kind: str, file: Path, expected: np.ndarray, *, onnx: bool) -> Form:
        return Form(file, expected, reference_lsb(expected, network.output_scale), onnx, inputs, calibration, kind)

    found = {name: form(name, file, network.expected(name), onnx=True) for name, file in network.onnx.items()}
    name = {"torch/float": "torch", "keras/baseline": "keras", "keras/qat": "keras-qat"}.get(network.spec.id)
    if name is not None:
        weights = folder / f"{network.spec.id.replace('/', '-')}.npz"
        np.savez(weights, **network.arrays)
        found[name] = form(name, weights, network.logits, onnx=False)
    return found


def _images(images: np.ndarray, *, channel: bool) -> dict[str, np.ndarray]:
    pixels = images.astype(np.float32) / np.float32(255)
    return {"input": pixels[:, np.newaxis] if channel else pixels}


def _export_by_default(arrays: Arrays, seed: int, path: Path) -> None:
    """As `torch.onnx.export` does it when nobody chooses an exporter (dynamo, since PyTorch 2.9)."""
    from torch_side import export, network

    model = network.build_network(seed)
    network.write_weights(model, arrays)
    export.export_onnx(model, np.zeros((1, 1, 28, 28), np.float32), path, "dynamo")


def _value(outcome: Any) -> Any:
    if outcome.error is not None:
        raise BridgeError(
            where="the MNIST networks",
            problem=outcome.error.splitlines()[0],
            remedy="The matrix starts from both frameworks: make, or pip install '.[torch,keras]'.",
        )
    return outcome.value
