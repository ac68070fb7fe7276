"""The trained networks of the matrix, and the jobs that train them in a worker process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bridge.errors import BridgeError
from compare.running import cache
from compare.subjects.mnist.dataset import Dataset
from compare.subjects.mnist.settings import Settings

Arrays = Mapping[str, np.ndarray]

PTQ_CALIBRATION_IMAGES = 500
SEVEN_BIT = ("fbgemm", "x86")
"""qconfigs whose fake-quant clamps activations to 0..127 (`reduce_range`, catalogue entry M01)."""


@dataclass(frozen=True)
class NetworkSpec:
    """One network of the matrix; `variant` is the qconfig, engine or TF-MOT use that tells it from its neighbours."""

    id: str
    framework: Literal["torch", "keras"]
    kind: Literal["float", "qat", "ptq"]
    variant: str
    about: str


NETWORKS = (
    NetworkSpec("torch/float", "torch", "float", "", "trained in float"),
    NetworkSpec("torch/qat-fbgemm", "torch", "qat", "fbgemm", "eager QAT, 7-bit activations, per-channel weights"),
    NetworkSpec("torch/qat-x86", "torch", "qat", "x86", "eager QAT, PyTorch's default on x86"),
    NetworkSpec("torch/qat-qnnpack", "torch", "qat", "qnnpack", "eager QAT, uint8 activations, per-tensor weights"),
    NetworkSpec("torch/qat-symmetric", "torch", "qat", "symmetric", "eager QAT, int8 activations, per-tensor weights"),
    NetworkSpec(
        "torch/qat-symmetric-per-channel",
        "torch",
        "qat",
        "symmetric-per-channel",
        "eager QAT, int8 activations, per-channel weights",
    ),
    NetworkSpec(
        "torch/qat-tflite", "torch", "qat", "tflite", "eager QAT in TFLite's own arithmetic, per-channel weights"
    ),
    NetworkSpec(
        "torch/qat-tflite_per_tensor",
        "torch",
        "qat",
        "tflite_per_tensor",
        "eager QAT in TFLite's own arithmetic, per-tensor weights",
    ),
    NetworkSpec("torch/ptq-x86", "torch", "ptq", "x86", "post-training static quantization, no fine-tuning"),
    NetworkSpec("keras/baseline", "keras", "float", "", "the float network"),
    NetworkSpec("keras/qat", "keras", "qat", "whole", "TF-MOT QAT, ordinary use: every layer"),
    NetworkSpec("keras/qat-dense", "keras", "qat", "dense", "TF-MOT QAT of the Dense layer only"),
)


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network as plain data: what every conversion starts from and is judged against."""

    spec: NetworkSpec
    arrays: Arrays
    """Its state; for a float network exactly the trained weights."""
    logits: np.ndarray
    """float32 (N, 10) on the test images, in its own framework (fake-quant; the int8 engine for post-training)."""
    int8_engine: str | None
    int8_logits: np.ndarray | None
    scales: Mapping[str, Mapping[str, tuple[float, int]]]
    """Trained (scale, int8 zero point) by form (`qdq`, `int8`, `keras`) and role: `input`, `conv`, `dense`."""
    onnx: Mapping[str, Path]
    """What was exported: `float`, `qdq`, `int8`."""
    refusals: Mapping[str, str]
    """What could not be, and why."""
    notes: Mapping[str, tuple[str, ...]]
    """What a form lost on the way out of its framework, by form, in sentences."""
    from_cache: bool
    damaged_cache: bool
    seconds: float

    @property
    def output_scale(self) -> float | None:
        return next((roles["dense"][0] for roles in self.scales.values() if "dense" in roles), None)

    def expected(self, form: str) -> np.ndarray:
        """What a file made from this form should say: the int8 engine's logits for `int8`, else the network's own."""
        return self.int8_logits if form == "int8" and self.int8_logits is not None else self.logits


@dataclass(frozen=True)
class Job:
    """What a worker needs to train one network, or to find it in the cache."""

    spec: NetworkSpec
    settings: Settings
    cache: Path
    fresh: bool
    work: Path
    """Where ONNX files go."""
    exporter: Literal["torchscript", "dynamo"]


def train(job: Job, data: Dataset, start: Arrays | None) -> TrainedNetwork:
    """Train the network of `job` from the float weights `start` (its own framework's names), or load it.

    Runs in a worker process: imports the framework. Raises `BridgeError` as the halves do.
    """
    started = time.perf_counter()
    train_it, finish = (_train_torch, _finish_torch) if job.spec.framework == "torch" else (_train_keras, _finish_keras)
    address = cache.key(_facts(job, data, start))
    known = (job.cache / f"{address}.network").exists() and not job.fresh
    stored = cache.load(job.cache, address) if known else None
    arrays: Arrays
    if stored is None:
        arrays = train_it(job, data, start)
        cache.store(job.cache, address, arrays)
    else:
        arrays = stored
    finished = finish(job, data, arrays)
    return TrainedNetwork(
        spec=job.spec,
        arrays=arrays,
        from_cache=stored is not None,
        damaged_cache=known and stored is None,
        seconds=time.perf_counter() - started,
        **finished,
    )


def _facts(job: Job, data: Dataset, start: Arrays | None) -> dict[str, object]:
    packages = {
        "torch": ("torch", "numpy"),
        "keras": ("tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy"),
    }
    return {
        "network": [job.spec.framework, job.spec.kind, job.spec.variant],
        "settings": asdict(job.settings),
        "data": data.digest,
        "start": None if start is None else cache.digest(start),
        "code": _training_code(job.spec.framework),
        "versions": {package: version(package) for package in packages[job.spec.framework]},
    }


_TRAINING_FILES = ("network.py", "qat.py", "qconfigs.py", "training.py")


def _training_code(framework: str) -> str:
    """Digest of the files that decide how a network is trained: a changed qconfig is another network."""
    folder = Path(__file__).parents[3] / f"{framework}_side"
    files = [folder / name for name in _TRAINING_FILES if (folder / name).exists()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _images(job: Job, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    limit = job.settings.qat_images if job.spec.kind == "qat" else job.settings.float_images
    return data.train_images[:limit], data.train_labels[:limit]


def _train_torch(job: Job, data: Dataset, start: Arrays | None) -> Arrays:
    from torch_side import network, training

    settings = job.settings
    images, labels = _images(job, data)
    kept = int(len(images) * (1.0 - settings.validation_split))
    images, labels = images[:kept], labels[:kept]
    model: Any = network.build_network(settings.seed)
    if start is not None:
        network.write_weights(model, start)
    if job.spec.kind == "ptq":
        return network.read_weights(model)
    if job.spec.kind == "float":
        if start is None:
            training.fit(
                model,
                images,
                labels,
                epochs=settings.float_epochs,
                batch_size=settings.float_batch,
                learning_rate=settings.float_learning_rate,
                seed=settings.seed,
            )
        return network.read_weights(model)
    prepared = training.prepare_for_qat(model, job.spec.variant)
    training.fit(
        prepared,
        images,
        labels,
        epochs=settings.qat_epochs,
        batch_size=settings.qat_batch,
        learning_rate=settings.qat_learning_rate,
        seed=settings.seed + 1,
        freeze_observers_at=settings.freeze_observers_at,
    )
    return training.state(prepared)


def _finish_torch(job: Job, data: Dataset, arrays: Arrays) -> dict[str, Any]:
    """Rebuild the network, ask it and its int8 engine for the test images, and export what can be exported."""
    from torch_side import bias_grid, export, network, qconfigs, training

    model: Any = network.build_network(job.settings.seed)
    example = np.zeros((1, 1, 28, 28), np.float32)
    forms: dict[str, Any] = {}
    refusals: dict[str, str] = {}
    notes: dict[str, tuple[str, ...]] = {}
    engine = None
    if job.spec.kind == "qat":
        own = training.prepare_for_qat(model, job.spec.variant)
        training.restore(own, arrays)
        forms["qdq"] = export.freeze(own)
        bias_grid.round_frozen(forms["qdq"], (example,))
        notes["qdq"] = tuple(
            f"{count} weight channels of '{layer}' have one sign only; made symmetric, as the int8 engine does"
            for layer, count in export.one_signed_channels(forms["qdq"]).items()
        )
        engine = qconfigs.qconfig_named(job.spec.variant).engine
        try:
            forms["int8"] = training.to_int8_engine(own, job.spec.variant)
        except BridgeError as refusal:
            refusals["int8"] = str(refusal)
    else:
        network.write_weights(model, arrays)
        own = model
        forms["float"] = model
        if job.spec.kind == "ptq":
            engine = job.spec.variant
            calibration = data.train_images[:PTQ_CALIBRATION_IMAGES]
            own = training.quantize_after_training(model, calibration, engine)
            forms = {"int8": own}
    exported = {}
    for form, ready in forms.items():
        path = job.work / f"{job.spec.id.replace('/', '-')}.{form}.onnx"
        try:
            # The int8 engine's packed weights have a TorchScript form only (catalogue entry M07).
            export.export_onnx(ready, example, path, "torchscript" if form == "int8" else job.exporter)
            exported[form] = path
        except BridgeError as refusal:
            refusals[form] = str(refusal)
    roles = {form: export.activation_scales(ready) for form, ready in forms.items() if form != "float"}
    return {
        "logits": training.predict(own, data.test_images),
        "int8_engine": engine,
        "int8_logits": training.predict(forms["int8"], data.test_images) if "int8" in forms else None,
        "scales": {form: {_ROLES.get(role, role): value for role, value in of.items()} for form, of in roles.items()},
        "onnx": exported,
        "refusals": refusals,
        "notes": notes,
    }


_ROLES = {"quant": "input"}


def build_keras(spec: NetworkSpec, settings: Settings, arrays: Arrays | None) -> Any:
    """The Keras network of `spec`, in this process, with the given state; deterministic from here on.

    Names start from scratch: they end up in the .tflite, and must not tell what this process built before.
    """
    from keras_side import legacy, network, qat, training

    legacy.make_deterministic(threads=1, seed=settings.seed)
    legacy.import_keras().backend.clear_session()
    model: Any = network.build_network(settings.seed)
    if spec.kind == "qat":
        model = {"whole": qat.quantize_whole, "dense": qat.quantize_dense_only}[spec.variant](model)
        if arrays is not None:
            training.restore(model, arrays)
    elif arrays is not None:
        network.write_weights(model, arrays)
    return model


def _train_keras(job: Job, data: Dataset, start: Arrays | None) -> Arrays:
    from keras_side import network, qat, training

    settings = job.settings
    images, labels = _images(job, data)
    model = build_keras(NetworkSpec("", "keras", "float", "", ""), settings, start)
    shared: dict[str, Any] = {"validation_split": settings.validation_split}
    if job.spec.kind == "float":
        if start is None:
            training.train(
                model,
                images,
                labels,
                epochs=settings.float_epochs,
                batch_size=settings.float_batch,
                learning_rate=settings.float_learning_rate,
                seed=settings.seed,
                **shared,
            )
        return network.read_weights(model)
    model = {"whole": qat.quantize_whole, "dense": qat.quantize_dense_only}[job.spec.variant](model)
    training.train(
        model,
        images,
        labels,
        epochs=settings.qat_epochs,
        batch_size=settings.qat_batch,
        learning_rate=settings.qat_learning_rate,
        seed=settings.seed + 1,
        **shared,
    )
    return training.state(model)


def _finish_keras(job: Job, data: Dataset, arrays: Arrays) -> dict[str, Any]:
    from keras_side import qat, training

    model = build_keras(job.spec, job.settings, arrays)
    return {
        "logits": training.predict(model, data.test_images),
        "int8_engine": None,
        "int8_logits": None,
        "scales": {"keras": qat.activation_scales(model)},
        "onnx": {},
        "refusals": {},
        "notes": {},
    }
