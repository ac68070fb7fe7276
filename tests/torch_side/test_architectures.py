"""The networks of torchvision.models.quantization: prepared, frozen and exported, judged by ONNX Runtime."""

import numpy as np
import onnx
import pytest
import torch
from torch.ao.quantization import FakeQuantizeBase

from bridge.errors import BridgeError
from bridge.verifying import onnx_runtime
from torch_side import architectures, export, training

SIZES = dict.fromkeys(architectures.ARCHITECTURES, 64) | {"resnet18": 32, "inception_v3": 96}
SMALL = ("mobilenet_v2", "resnet18", "shufflenet_v2_x0_5")
SLOW = ("mobilenet_v3_large", "googlenet")
"""One more of each kind; benchmarks/architectures.py goes through all twelve."""
QCONFIGS = ("qnnpack", "fbgemm")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Images this small gain nothing from a second thread, and threads that wait for each other on a busy CPU lose."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(
    scope="module",
    params=[
        *((name, qconfig) for name in SMALL for qconfig in QCONFIGS),
        *(pytest.param((name, qconfig), marks=pytest.mark.slow) for name in SLOW for qconfig in QCONFIGS),
    ],
    ids="-".join,
)
def network(request):
    """(prepared network, its qconfig, eight images it has not seen)."""
    name, qconfig = request.param
    size = SIZES[name]
    model = architectures.build_trained_looking(name, qconfig, size=size, batch=8)
    return model, qconfig, architectures.natural_images(8, size, seed=1)


@pytest.fixture(scope="module", params=["fbgemm", "tflite", "tflite_per_tensor"])
def shufflenet(request):
    return architectures.build_trained_looking("shufflenet_v2_x0_5", request.param, size=32, batch=4)


def run_torch(model, images):
    with torch.no_grad():
        return model(images).numpy()


def run_onnx(path, images):
    (logits,) = onnx_runtime.outputs(onnx_runtime.session(path), {"input": images.numpy()})
    return logits


def output_scale(frozen):
    return [scale for module, (scale, _) in export.activation_scales(frozen).items() if module != "quant"][-1]


def steps_apart(first, second, scale):
    return np.rint(np.abs(first - second) / scale)


def test_the_frozen_network_and_its_onnx_compute_what_was_prepared(network, tmp_path):
    """A code at a rounding border falls to the other side here and there, as sums are taken in another order.

    Measured over all twelve, two qconfigs, 64 images of 96 x 96: 0.935 to 0.998 of the logits are the same code, all
    others are 1 LSB away.
    """
    model, _, images = network
    frozen = export.freeze(model)
    export.export_onnx(frozen, images[:1].numpy(), tmp_path / "qdq.onnx")
    logits = run_torch(frozen, images)
    for other in (run_torch(model, images), run_onnx(tmp_path / "qdq.onnx", images)):
        apart = steps_apart(logits, other, output_scale(frozen))
        assert (apart == 0).mean() >= 0.9
        assert (apart <= 1).mean() >= 0.999
        assert apart.max() <= 2


def test_the_converted_int8_network_exports_too(network, tmp_path):
    """PyTorch's engines requantize with other roundings than ONNX Runtime, layer after layer.

    Measured as above: 0.69 to 0.98 are the same code, 0.977 and more are within 1 LSB, the farthest is 5 away.
    """
    model, qconfig, images = network
    engine = training.to_int8_engine(model, qconfig)
    export.export_onnx(engine, images[:1].numpy(), tmp_path / "int8.onnx")
    logits = run_torch(engine, images)
    apart = steps_apart(logits, run_onnx(tmp_path / "int8.onnx", images), output_scale(export.freeze(model)))
    assert (apart <= 1).mean() >= 0.95
    assert apart.max() <= 8


def test_the_seed_alone_decides_the_network_and_the_logits_tell_images_apart():
    images = architectures.natural_images(8, 64, seed=1)
    first, again, other = (
        run_torch(
            architectures.build_trained_looking("shufflenet_v2_x0_5", "qnnpack", size=64, seed=s, batch=8), images
        )
        for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(set(first.argmax(1))) >= 3
    assert first.std(0).mean() > 0.3 * first.std(1).mean()


def test_building_a_network_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    architectures.build_trained_looking("shufflenet_v2_x0_5", "qnnpack", size=32, batch=2)
    assert torch.rand(1) == expected


def test_every_weight_is_symmetric_and_nothing_moves_any_more(shufflenet):
    model = shufflenet
    fake_quants = [module for module in model.modules() if isinstance(module, FakeQuantizeBase)]
    assert not any(fake_quant.observer_enabled for fake_quant in fake_quants)
    assert not any(m.weight_fake_quant.zero_point.any() for m in model.modules() if hasattr(m, "weight_fake_quant"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run_torch(model.train(), 3 * architectures.natural_images(4, 32, seed=2))
    model.eval()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_squeeze_and_excitation_with_int8_activations_exports_as_well(tmp_path):
    """A hardsigmoid keeps its unsigned codes, scale 1/256, whatever the qconfig says about activations."""
    frozen = export.freeze(architectures.build_trained_looking("mobilenet_v3_large", "tflite", size=32, batch=4))
    gate = "features.4.block.2.scale_activation"
    assert export.activation_scales(frozen)[gate] == (1 / 256, -128)
    export.export_onnx(frozen, np.zeros((1, 3, 32, 32), np.float32), tmp_path / "int8.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"HardSigmoid", "HardSwish", "GlobalAveragePool"} <= kinds


def test_an_unknown_architecture_is_refused_with_the_known_names():
    with pytest.raises(BridgeError, match="'vgg16': is not known\n  Known names: mobilenet_v2, resnet18"):
        architectures.build_trained_looking("vgg16", "qnnpack", size=64)


def test_all_of_torchvisions_quantizable_networks_are_named():
    from torch_side.vision import import_torchvision

    models = import_torchvision().models
    known = {name.removeprefix("quantized_") for name in models.list_models(module=models.quantization)}
    assert known == set(architectures.ARCHITECTURES)
