"""Float training, QAT, the int8 engine and post-training quantization."""

import numpy as np
import pytest
from torch.ao.quantization import FakeQuantizeBase

from bridge.errors import BridgeError
from torch_side import network, qconfigs, training


def small_qat(trained, digits, qconfig, **options):
    prepared = training.prepare_for_qat(trained, qconfig)
    settings = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3, "seed": 1} | options
    training.fit(prepared, *digits, **settings)
    return prepared


def scales(model):
    return [m.scale.clone() for m in model.modules() if isinstance(m, FakeQuantizeBase)]


def test_training_learns_the_bars(trained, digits):
    images, labels = digits
    assert (training.predict(trained, images).argmax(1) == labels).mean() > 0.95


def test_the_same_seed_gives_the_same_weights(digits):
    runs = []
    for _ in range(2):
        model = network.build_network(0)
        training.fit(model, *digits, epochs=1, batch_size=32, learning_rate=1e-2, seed=5)
        runs.append(network.read_weights(model)["dense.weight"])
    assert np.array_equal(*runs)


def test_every_epoch_is_reported(digits):
    heard = []
    training.fit(
        network.build_network(0),
        *digits,
        epochs=2,
        batch_size=160,
        learning_rate=1e-3,
        seed=0,
        on_epoch=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(1, 2), (2, 2)]


def test_a_diverged_training_is_an_error_and_says_what_to_do(digits):
    images, labels = digits
    with pytest.raises(BridgeError, match="Lower the learning rate"):
        training.fit(network.build_network(0), images, labels, epochs=4, batch_size=32, learning_rate=1e30, seed=0)


@pytest.mark.parametrize("name", qconfigs.QCONFIGS)
def test_every_qconfig_trains_and_keeps_the_float_accuracy(trained, digits, name):
    images, labels = digits
    logits = training.predict(small_qat(trained, digits, name), images)
    assert (logits.argmax(1) == labels).mean() > 0.95


def test_an_unknown_qconfig_is_refused_with_the_known_names(trained):
    with pytest.raises(BridgeError, match="Known names: fbgemm, x86, qnnpack"):
        training.prepare_for_qat(trained, "int4")


def test_predicting_moves_no_scale(trained, digits):
    prepared = small_qat(trained, digits, "qnnpack")
    before = scales(prepared)
    training.predict(prepared, 255 - digits[0])
    assert all((a == b).all() for a, b in zip(before, scales(prepared), strict=True))


def test_observers_stay_put_from_the_chosen_epoch_on(trained, digits):
    prepared = training.prepare_for_qat(trained, "qnnpack")
    seen = []
    training.fit(
        prepared,
        *digits,
        epochs=3,
        batch_size=32,
        learning_rate=1e-2,
        seed=1,
        freeze_observers_at=1,
        on_epoch=lambda *_: seen.append(scales(prepared)),
    )
    first, second, third = seen
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert all((a == b).all() for a, b in zip(second, third, strict=True))


def test_a_stored_state_comes_back_bit_for_bit(trained, digits):
    prepared = small_qat(trained, digits, "fbgemm")
    copy = training.prepare_for_qat(network.build_network(9), "fbgemm")
    training.restore(copy, training.state(prepared))
    assert np.array_equal(training.predict(prepared, digits[0]), training.predict(copy, digits[0]))


def test_a_state_of_another_network_is_refused(trained):
    with pytest.raises(BridgeError, match="train again"):
        training.restore(training.prepare_for_qat(trained, "fbgemm"), {"conv.weight": np.zeros(1)})


@pytest.mark.parametrize("name", ["fbgemm", "x86", "qnnpack"])
def test_the_int8_engine_classifies_as_the_fake_quant_model_does(trained, digits, name):
    images, _ = digits
    prepared = small_qat(trained, digits, name)
    engine = training.to_int8_engine(prepared, name)
    assert (training.predict(engine, images).argmax(1) == training.predict(prepared, images).argmax(1)).mean() > 0.98


def test_a_qconfig_no_engine_runs_says_why(trained):
    with pytest.raises(BridgeError, match="take uint8 activations only"):
        training.to_int8_engine(training.prepare_for_qat(trained, "symmetric"), "symmetric")


def test_post_training_quantization_needs_no_fine_tuning(trained, digits):
    images, labels = digits
    quantized = training.quantize_after_training(trained, images[:100], "x86")
    assert (training.predict(quantized, images).argmax(1) == labels).mean() > 0.95
