"""Training that repeats bit for bit, prediction, and trained networks as plain arrays."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bridge.errors import BridgeError
from keras_side.network import build_network
from keras_side.qat import activation_scales, quantize_dense_only, quantize_whole
from keras_side.training import measure_ranges, predict, restore, scale_pixels, state, train

SETTINGS = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-2, "validation_split": 0.1, "seed": 0}
FLOAT_AND_AWARE = pytest.mark.parametrize(
    "quantize", [lambda model: model, quantize_whole, quantize_dense_only], ids=["float", "whole", "dense only"]
)


def test_the_network_learns_bars(trained, digits):
    images, labels = digits
    assert (predict(trained, images).argmax(1) == labels).mean() > 0.95


ANOTHER_ORDER = 2028 * 2**-24
"""Of the largest logit: what the dense layer's 2,028 products may differ by, added in another order (float32).

The order depends on the batch and on the processor.
"""


def test_logits_are_float32_one_row_per_image_whatever_the_number_of_images(trained, digits):
    images = np.concatenate([digits[0], digits[0]])
    logits = predict(trained, images)  # 640 images: more than one batch
    assert logits.dtype == np.float32
    assert logits.shape == (640, 10)
    assert_allclose(logits[:320], logits[320:], rtol=0, atol=ANOTHER_ORDER * np.abs(logits).max())
    assert_array_equal(logits[:320].argmax(1), logits[320:].argmax(1))


def test_pixels_are_divided_by_255():
    assert scale_pixels(np.array([0, 51, 255], np.uint8)).tolist() == [0.0, pytest.approx(0.2), 1.0]


def test_history_and_progress_have_one_entry_per_epoch(digits):
    seen = []
    history = train(build_network(0), *digits, **SETTINGS | {"epochs": 3}, on_epoch=lambda *report: seen.append(report))
    assert sorted(history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [metrics["loss"] for _, _, metrics in seen] == history["loss"]


def test_without_a_held_out_part_there_are_no_validation_figures(digits):
    assert sorted(train(build_network(0), *digits, **SETTINGS | {"validation_split": 0.0})) == ["accuracy", "loss"]


def test_the_held_out_part_is_the_last_of_the_images(digits):
    images, labels = digits
    changed = labels.copy()
    changed[288:] = 9 - changed[288:]
    models = [build_network(0), build_network(0)]
    histories = [train(model, images, y, **SETTINGS) for model, y in zip(models, (labels, changed), strict=True)]
    assert histories[0]["loss"] == histories[1]["loss"]
    assert histories[0]["val_loss"] != histories[1]["val_loss"]


def test_training_is_silent(digits, capfd):
    model = build_network(0)
    train(model, *digits, **SETTINGS)  # TensorFlow greets once per process
    capfd.readouterr()
    train(model, *digits, **SETTINGS)
    assert capfd.readouterr().out == ""


@FLOAT_AND_AWARE
def test_the_same_seed_gives_the_same_bits_in_one_process(digits, quantize):
    states = []
    for _ in range(2):
        model = quantize(build_network(1))
        train(model, *digits, **SETTINGS)
        states.append(state(model))
    for name, values in states[0].items():
        assert_array_equal(values, states[1][name], err_msg=name)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_two_fresh_processes():
    code = (
        "import hashlib, numpy as np\n"
        "from keras_side import legacy, network, qat, training\n"
        "legacy.make_deterministic(threads=1, seed=3)\n"
        "images = np.random.default_rng(0).integers(0, 256, (300, 28, 28), dtype=np.uint8)\n"
        "model = network.build_network(3)\n"
        "for aware in (lambda model: model, qat.quantize_whole):\n"
        "    model = aware(model)\n"
        "    training.train(model, images, np.arange(300) % 10, epochs=2, batch_size=50, learning_rate=0.01,\n"
        "                   validation_split=0.1, seed=3)\n"
        "digest = hashlib.sha256(b''.join(values.tobytes() for values in training.state(model).values()))\n"
        "print(digest.hexdigest())\n"
    )
    root = Path(__file__).parents[2]
    environments = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
        for environment in environments
    ]
    first, second = (process.communicate()[0] for process in running)
    assert len(first) == 65
    assert first == second


@FLOAT_AND_AWARE
def test_a_trained_model_survives_as_plain_arrays(trained, digits, quantize, tmp_path):
    model = quantize(trained)
    if model is not trained:
        train(model, *digits, **SETTINGS)
    np.savez(tmp_path / "kept.npz", **state(model))
    rebuilt = quantize(build_network(99))
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as kept:
        restore(rebuilt, kept)
    assert_array_equal(predict(rebuilt, digits[0]), predict(model, digits[0]))
    assert activation_scales(rebuilt) == activation_scales(model)
    assert list(state(rebuilt)) == list(state(model))


def test_keys_are_the_same_for_the_first_and_the_tenth_model_of_a_process():
    keys = [list(state(quantize_whole(build_network(0)))) for _ in range(2)]
    assert keys[0] == keys[1]
    assert keys[0][0] == "quantize_layer/quantize_layer_min"


def test_arrays_of_another_kind_of_model_are_refused():
    with pytest.raises(BridgeError, match=r"missing: \['quant_conv/kernel_max'.*; unknown: \[\]"):
        restore(quantize_whole(build_network(0)), state(quantize_dense_only(build_network(0))))


def test_an_array_of_another_shape_is_refused_and_nothing_is_changed():
    model = build_network(0)
    arrays = {name: np.zeros_like(values) for name, values in state(model).items()} | {"dense/bias": np.zeros(3)}
    with pytest.raises(BridgeError, match=r"'dense/bias': has shape \(3,\); expected \(10,\)"):
        restore(model, arrays)
    assert state(model)["conv/kernel"].any()


def test_measured_ranges_are_the_extremes_of_every_layer(trained, digits):
    ranges = measure_ranges(trained, digits[0])
    logits = predict(trained, digits[0])
    assert list(ranges) == ["input", "reshape", "conv", "pool", "flatten", "dense"]
    assert ranges["input"] == (0.0, 1.0)
    assert ranges["conv"][0] == 0.0
    assert ranges["dense"] == pytest.approx((logits.min(), logits.max()), rel=1e-5)


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((4, 28, 28), np.float32), np.zeros(4, int), "images: are float32"),
        (np.zeros((4, 28, 27), np.uint8), np.zeros(4, int), r"images: are uint8 \(4, 28, 27\)"),
        (np.zeros((0, 28, 28), np.uint8), np.zeros(0, int), r"images: are uint8 \(0, 28, 28\)"),
        (np.zeros((4, 28, 28), np.uint8), np.zeros(3, int), r"labels: are int64 \(3,\); expected integers \(4,\)"),
        (np.zeros((4, 28, 28), np.uint8), np.zeros(4), "labels: are float64"),
        (np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 2, 10]), "labels: range from 0 to 10"),
    ],
)
def test_data_that_cannot_be_mnist_is_refused_before_training(images, labels, said):
    with pytest.raises(BridgeError, match=said):
        train(build_network(0), images, labels, **SETTINGS)


@pytest.mark.parametrize("fraction", [1.0, -0.5])
def test_a_held_out_fraction_that_makes_no_sense_is_refused(digits, fraction):
    with pytest.raises(BridgeError, match=f"validation_split={fraction}"):
        train(build_network(0), *digits, **SETTINGS | {"validation_split": fraction})


def test_a_training_that_diverges_is_stopped_with_the_epoch(digits):
    with pytest.raises(BridgeError, match="Keras training, epoch 1: the loss became nan"):
        train(build_network(0), *digits, **SETTINGS | {"learning_rate": float("nan")})
