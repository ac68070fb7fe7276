"""Whose quantization survives: what is counted and measured, with a producer that is here anyway."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from compare.measuring import scales
from compare.report.pages import producers
from compare.report.records.producers import SCHEMA_VERSION, ProducersRecord, from_json, to_json
from compare.toolchains.producers import Producer
from compare.versions.__main__ import app
from compare.versions.producers import measuring, subjects
from tests.bridge.exact.readers.test_qoperator import OPERATORS
from tests.bridge.exact.test_bad_input import small_model

HERE = Producer(
    "here", "ONNX Runtime as it is installed here", "2026-11-20", "3.11", ("onnxruntime",),
    ("onnx-runtime-qdq", "onnx-runtime-qoperator"), 0, None,  # type: ignore[arg-type] # it needs no lock
)  # fmt: skip
BRIDGE = tuple(each for each in measuring.CONVERTERS if each.name.startswith("bridge"))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return {each.name: each for each in subjects.written(tmp_path_factory.mktemp("networks") / "all")}


@pytest.fixture
def options(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "ensure", lambda _environment, _cache: sys.executable)
    monkeypatch.setattr(measuring, "CONVERTERS", BRIDGE)
    return measuring.Options(tmp_path / "cache", tmp_path, 1, 300)


@pytest.mark.parametrize("recipe", HERE.recipes)
def test_what_the_bridge_makes_of_onnx_runtimes_files_keeps_every_scale(recipe, networks, options):
    made = measuring.produce(HERE, recipe, networks["keywords"], options)
    found = measuring.converted(made, options)
    strict = found.conversions[0]
    assert found.form == "ONNX" and found.simulation_apart is None
    assert strict.problem is None and strict.float_operators == 0
    assert strict.kept == found.scales > 5
    assert strict.from_onnx_runtime is not None and strict.from_onnx_runtime <= 1.5
    assert strict.from_simulation is None


def test_a_refusal_is_a_sentence_in_the_record(networks, options):
    found = measuring.converted(measuring.produce(HERE, "onnx-runtime-qdq", networks["tokens"], options), options)
    assert {each.problem is None for each in found.conversions} == {False}
    assert "cannot write this operator" in (found.conversions[0].problem or "")


def test_a_producer_that_fails_is_told_by_its_own_error(networks, options):
    made = measuring.produce(HERE, "brevitas-graph", networks["keywords"], options)
    assert made.problem == "ModuleNotFoundError: No module named 'brevitas'"
    assert measuring.converted(made, options).conversions == ()


def test_a_producer_that_cannot_be_built_is_a_row_that_says_so(options, networks, monkeypatch):
    def fails(_environment, _cache):
        raise BridgeError(where="environment 'here'", problem="cannot be built: no network", remedy="Try again.")

    monkeypatch.setattr(measuring, "ensure", fails)
    monkeypatch.setattr(Producer, "environment", lambda _self: None)
    heard = []
    built, produced = measuring.measure([HERE], list(networks.values()), options, lambda *said: heard.append(said))
    assert built[0].problem == "cannot be built: no network"
    assert produced == ()
    assert heard == [("build here", "cannot be built: no network")]


def test_scales_are_counted_once_and_those_of_biases_are_none():
    model = small_model()
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    expected = {
        float(np.float32(each)) for name in ("scale", "y_scale", "weight_scale") for each in np.ravel(stored[name])
    }
    assert set(scales.of_onnx(model).tolist()) == expected


@pytest.mark.parametrize("op", OPERATORS)
def test_scales_of_qoperator_files_are_those_of_the_file_that_the_bridge_writes(op):
    model = OPERATORS[op](0)
    decided = scales.of_onnx(model)
    assert scales.kept(decided, scales.of_tflite(convert(model).tflite)) == decided.size > 1


def test_a_scale_that_was_estimated_anew_is_not_kept():
    decided = np.array([0.1, 0.2, 0.3], np.float32)
    assert scales.kept(decided, decided) == 3
    assert scales.kept(decided, np.array([0.1, 0.2001, 0.3000001], np.float32)) == 2
    assert scales.kept(decided, np.zeros(0, np.float32)) == 0


def test_the_page_has_every_producer_every_refusal_and_every_figure(networks, options):
    produced = tuple(
        measuring.converted(measuring.produce(HERE, "onnx-runtime-qdq", networks[name], options), options)
        for name in ("keywords", "tokens")
    )
    built = measuring.ProducerRecord("here", "a tool", "2026-11-20", "3.11", (), HERE.recipes, None, 1.0, {"onnx": "1"})
    record = ProducersRecord(
        SCHEMA_VERSION, "2026-11-20T00:00:00", 3.0, "python -m compare.versions --producers", 64, {"processor": "x"},
        {each.name: each.about for each in BRIDGE}, (built, replace(built, id="gone", problem="no | network")), produced,
    )  # fmt: skip
    assert from_json(to_json(record)) == record
    page = producers.render(record)
    assert "## Keywords" in page and "## Tokens" in page
    assert f"{produced[0].scales} of {produced[0].scales} scales, all integer" in page
    assert "cannot write this operator" in page
    assert "no \\| network" in page


def test_a_producer_that_is_not_known_is_said_before_anything_is_built(tmp_path):
    done = CliRunner().invoke(app, ["--producers", "--toolchains", "none", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "matches no producer" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_real_producer_is_built_from_its_lock_and_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "CONVERTERS", BRIDGE)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["--producers", "--toolchains", "onnxruntime-1.32", "--out", str(out)])
    assert done.exit_code == 0, done.output
    record = from_json((out / "producers.json").read_text())
    assert record.producers[0].versions["onnxruntime"] == "1.32.0"
    kept = [(each.scales, each.conversions[0].kept) for each in record.produced if each.network != "tokens"]
    assert kept and all(decided == found for decided, found in kept)
    assert sorted(path.name for path in out.iterdir()) == ["files", "producers.json", "producers.md"]
