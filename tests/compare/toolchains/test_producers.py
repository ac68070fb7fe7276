"""Producers: their pins, their locks, and the networks that they are given."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from bridge.errors import BridgeError
from compare.toolchains import producers
from compare.toolchains.producers import networks, recipes
from compare.toolchains.producers.networks import NETWORKS


@pytest.mark.parametrize("producer", producers.producers(), ids=lambda each: each.id)
def test_a_producer_pins_what_it_is_named_after_and_has_recipes_of_ours(producer):
    name, _, version = producer.id.rpartition("-")
    pinned = [line for line in producer.requirements if name in line]
    assert any(f"=={version}" in line for line in pinned)
    assert set(producer.recipes) <= set(recipes.JOBS)
    assert producer.about and producer.recipes


@pytest.mark.parametrize("producer", producers.producers(), ids=lambda each: each.id)
def test_its_lock_was_made_for_its_pins(producer):
    assert producer.environment().packages()


def test_every_recipe_belongs_to_a_producer():
    assert {recipe for each in producers.producers() for recipe in each.recipes} == set(recipes.JOBS)


@pytest.mark.parametrize(
    ("change", "said"),
    [(("about", "abuot"), "abuot"), (('python = "3.11"\n', ""), "python"), (("= [", "= [["), "cannot be read")],
)
def test_wrong_pins_are_refused_by_name(change, said, tmp_path, monkeypatch):
    text = (Path(producers.__file__).parent / "pins" / "torchao-0.18.toml").read_text()
    (tmp_path / "wrong-1.toml").write_text(text.replace(*change))
    monkeypatch.setattr(producers, "_PINS", tmp_path)
    producers.producers.cache_clear()
    try:
        with pytest.raises(BridgeError, match=r"producer 'wrong-1'") as caught:
            producers.producers()
    finally:
        producers.producers.cache_clear()
    assert said in str(caught.value)


def test_globs_choose_producers_and_one_that_matches_nothing_is_refused():
    assert {each.id for each in producers.matching(["onnxruntime*"])} == {"onnxruntime-1.12", "onnxruntime-1.32"}
    with pytest.raises(BridgeError, match="matches no producer"):
        producers.matching(["none"])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_from_its_weights(name):
    build, shape = NETWORKS[name]
    network = build().eval()
    arrays = {key: each.numpy() for key, each in network.state_dict().items()}
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        assert torch.equal(networks.made(name, arrays)(x), network(x))


@pytest.mark.parametrize("path", producers.PROGRAMS, ids=lambda path: path.name)
def test_what_runs_over_there_imports_nothing_of_ours(path):
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert not imported & {"bridge", "compare", "torch_side", "keras_side"}
