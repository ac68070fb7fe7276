"""Training, prediction and keeping a trained network as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from bridge.errors import BridgeError
from keras_side.legacy import import_keras, import_tensorflow, seed_everything
from keras_side.network import IMAGE
from keras_side.qat import plain_name

if TYPE_CHECKING:
    import tf_keras

OnEpoch = Callable[[int, int, Mapping[str, float]], None]

_PREDICTION_BATCH = 500  # fixed: another batch size may add in another order


def train(
    model: tf_keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    validation_split: float,
    seed: int,
    on_epoch: OnEpoch | None = None,
) -> dict[str, list[float]]:
    """Train `model` in place with Adam on cross-entropy of its logits, and return its history.

    images (N, 28, 28) uint8, divided by 255 here; labels (N,) integers 0..9. The last `validation_split` of them, a
    fraction in 0..1, is held out as Keras does it, before shuffling. The order of every epoch comes from `seed` alone.
    `on_epoch(done, total, metrics)` is called after each epoch. History: "loss", "accuracy" and, with a held-out part,
    "val_loss", "val_accuracy", one float per epoch.
    Raises BridgeError for data of another shape or dtype, a fraction that leaves nothing to train on, and for a loss
    that is no longer finite.
    """
    check_images(images)
    check_labels(labels, len(images))
    training_count = int(len(images) * (1.0 - validation_split))  # keras/src/engine/data_adapter.py, split_at
    if training_count < 1 or validation_split < 0.0:
        raise BridgeError(
            where=f"validation_split={validation_split}",
            problem=f"leaves {training_count} of {len(images)} images to train on",
            remedy="Hold out a fraction from 0 to just under 1.",
        )
    pixels = scale_pixels(images)
    held_out = (pixels[training_count:], labels[training_count:]) if training_count < len(images) else None
    seed_everything(seed)
    _compile(model, learning_rate)
    generator = np.random.default_rng(seed)
    history: dict[str, list[float]] = {}
    for epoch in range(1, epochs + 1):
        order = generator.permutation(training_count)
        fitted = model.fit(
            pixels[order], labels[order], batch_size=batch_size, shuffle=False, validation_data=held_out, verbose=0
        )
        metrics = {name: float(values[-1]) for name, values in fitted.history.items()}
        for name, value in metrics.items():
            history.setdefault(name, []).append(value)
        _check_loss(metrics["loss"], epoch)
        if on_epoch is not None:
            on_epoch(epoch, epochs, metrics)
    return history


def predict(model: tf_keras.Model, images: np.ndarray) -> np.ndarray:
    """The (N, 10) float32 logits of (N, 28, 28) uint8 images, fake-quantization included in a QAT model."""
    check_images(images)
    tf = import_tensorflow()
    pixels = scale_pixels(images)
    batches = (pixels[start : start + _PREDICTION_BATCH] for start in range(0, len(pixels), _PREDICTION_BATCH))
    return np.concatenate([model(tf.constant(batch), training=False).numpy() for batch in batches])


def measure_ranges(model: tf_keras.Model, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """The (lowest, highest) value of the "input" and of every layer's output, over (N, 28, 28) uint8 images.

    Of a float model; `keras_side.qat.start_ranges` takes the result.
    """
    check_images(images)
    pixels = scale_pixels(images)
    names = [layer.name for layer in model.layers]
    outputs = import_keras().Model(model.inputs, [layer.output for layer in model.layers]).predict_on_batch(pixels)
    return {
        name: (float(values.min()), float(values.max()))
        for name, values in [("input", pixels), *zip(names, outputs, strict=True)]
    }


def scale_pixels(images: np.ndarray) -> np.ndarray:
    """uint8 pixels 0..255 as float32 0..1, the form both networks were made for."""
    return images.astype(np.float32) / np.float32(255)


def state(model: tf_keras.Model) -> dict[str, np.ndarray]:
    """Every variable of `model` by name: weights and, in a QAT model, fake-quantization ranges and step counters.

    The keys are unique and come in the same order for every model of the same kind. Plain arrays: `np.savez` keeps
    them, and `restore` puts them back, without pickle.
    """
    return {name: variable.numpy() for name, variable in _variables(model).items()}


def restore(model: tf_keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Put `arrays`, as `state` returned them, into a model of the same kind.

    Raises BridgeError when a name is missing or unknown or a shape differs; `model` is then unchanged.
    """
    variables = _variables(model)
    if set(variables) != set(arrays):
        raise BridgeError(
            where=f"state of model '{model.name}'",
            problem=f"missing: {sorted(set(variables) - set(arrays))}; unknown: {sorted(set(arrays) - set(variables))}",
            remedy="Restore into a model that was built and quantized in the same way as the one it was read from.",
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != np.shape(arrays[name]):
            raise BridgeError(
                where=f"state of model '{model.name}', '{name}'",
                problem=f"has shape {np.shape(arrays[name])}; expected {tuple(variable.shape)}",
                remedy="Restore into a model that was built and quantized in the same way as the one it was read from.",
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def check_images(images: np.ndarray) -> None:
    """Raise BridgeError unless `images` is (N, 28, 28) uint8 with N of at least 1."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != IMAGE or not len(images):
        raise BridgeError(
            where="images",
            problem=f"are {images.dtype} {images.shape}; expected uint8 (N, 28, 28), N of at least 1",
            remedy="Pass the pixels as they are in the file, 0..255; they are divided by 255 here.",
        )


def check_labels(labels: np.ndarray, count: int) -> None:
    """Raise BridgeError unless `labels` is (count,) integers in 0..9."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise BridgeError(
            where="labels",
            problem=f"are {labels.dtype} {labels.shape}; expected integers ({count},), one per image",
            remedy="Pass class numbers, not one-hot vectors.",
        )
    if labels.min() < 0 or labels.max() > 9:
        raise BridgeError(
            where="labels",
            problem=f"range from {labels.min()} to {labels.max()}; expected 0..9",
            remedy="Check that images and labels come from the same MNIST files.",
        )


def _check_loss(loss: float, epoch: int) -> None:
    if not np.isfinite(loss):
        raise BridgeError(
            where=f"Keras training, epoch {epoch}",
            problem=f"the loss became {loss}",
            remedy="Lower the learning rate.",
        )


def _compile(model: tf_keras.Model, learning_rate: float) -> None:
    keras = import_keras()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _variables(model: tf_keras.Model) -> dict[str, tf_keras.Variable]:
    """The model's variables by name, in creation order, without the number that tells two models of a process apart."""
    named = [(plain_name(variable.name.split(":")[0]), variable) for variable in model.weights]
    variables = dict(named)
    assert len(variables) == len(named), "two variables of one model share a name"  # noqa: S101 -- our own defect
    return variables
