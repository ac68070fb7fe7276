"""A run with a converter that is broken in a way nobody has seen: the report must say so, and blame no known mismatch."""

import dataclasses

import pytest

from compare.explaining import attribution, findings
from compare.report.records.run import NetworkRecord
from compare.routes.registry import ROUTES
from compare.run import matrix
from compare.run.matrix import Options, Planned
from compare.run.measuring import Listener
from compare.subjects.mnist import dataset
from compare.subjects.mnist.settings import preset
from tests import broken_route

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(networks, artifacts) of one network on six hundred digits, converted by the broken route and by the sound one."""
    folder = tmp_path_factory.mktemp("run")
    sample = dataset.load(None)
    data = dataclasses.replace(
        sample,
        train_images=sample.train_images[:600],
        train_labels=sample.train_labels[:600],
        test_images=sample.test_images[:300],
        test_labels=sample.test_labels[:300],
    )
    sound = next(route for route in ROUTES if route.name == "torch-exact")
    variant = next(variant for variant in sound.variants if variant.network == "torch/qat-tflite")
    here = dataclasses.replace(sound.here, convert=broken_route.convert)
    broken = dataclasses.replace(sound, name="torch-broken", here=here)
    records = list(
        matrix.run(
            [Planned(sound, variant), Planned(broken, variant)],
            data,
            preset("quick", seed=0, init="torch"),
            Options(folder / "cache", False, folder, "torchscript"),
            Listener(lambda *_: None, lambda *_: None),
        )
    )
    networks = [record for record in records if isinstance(record, NetworkRecord)]
    return networks, [record for record in records if not isinstance(record, NetworkRecord)]


def test_only_the_broken_conversion_is_unexplained_and_nothing_is_blamed(made):
    networks, artifacts = made
    (explanation,) = attribution.explain(artifacts, networks)

    assert explanation.artifact == "torch-broken/qat-tflite"
    assert not explanation.explained
    assert explanation.causes == ()
    assert explanation.lsb_left > 1.01


def test_the_finding_gives_the_figures_and_the_first_layer_that_is_wrong(made):
    networks, artifacts = made
    found = findings.findings(artifacts, networks, attribution.explain(artifacts, networks))

    (unexplained,) = [finding for finding in found if "no entry of the catalogue" in finding.title]
    assert unexplained.artifact == "torch-broken/qat-tflite"
    assert "first more than 1 LSB away: CONV_2D" in unexplained.fact
    assert all(finding.cause is None for finding in found if finding.artifact == "torch-broken/qat-tflite")
