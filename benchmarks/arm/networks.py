"""Whole networks of the exact bridge and the codes to feed them: MNIST's, torchvision's, and drawn ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.convert import convert
from bridge.exact.graph import Graph
from bridge.exact.writer import write
from bridge.verifying.batches import batches, codes
from bridge.verifying.litert import Runner
from bridge.verifying.operators import single
from compare.subjects.mnist.settings import PresetName

SIZE = 96
"""Pixels of the torchvision networks' images; inception_v3 needs 75 at least."""


@dataclass(frozen=True, eq=False)
class Network:
    """A lowered graph with its inputs by name, codes, samples along the first axis."""

    name: str
    graph: Graph
    inputs: Mapping[str, np.ndarray]


def mnist(images: int, settings: PresetName = "default") -> Iterator[Network]:
    """Each form of each QAT network of `python -m compare.run`, trained as there, or taken from its cache."""
    if not images:
        return
    from benchmarks.exactness import trained
    from compare.subjects.mnist.dataset import load
    from compare.subjects.mnist.settings import preset

    data = load(None)
    briefly = "" if settings == "default" else f", {settings}"
    pixels = (data.test_images[:images].astype(np.float32) / np.float32(255))[:, None]
    with tempfile.TemporaryDirectory() as folder:
        for network in trained(data, preset(settings, seed=0, init="torch"), Path(folder)):
            for form in ("int8", "qdq"):
                if form in network.onnx:
                    yield _fed(
                        f"MNIST {network.spec.variant}, {form}{briefly}", convert(network.onnx[form]).graph, pixels
                    )


def torchvision(photos: int, names: tuple[str, ...] | None = None) -> Iterator[Network]:
    """The twelve quantization networks with qconfig `qnnpack`, whose weights reach -128."""
    if not photos:
        return
    import torch

    from torch_side import architectures, bias_grid, export

    torch.set_num_threads(1)
    images = architectures.natural_images(photos, SIZE, seed=1).numpy()
    for name in names or architectures.ARCHITECTURES:
        frozen = export.freeze(architectures.build_trained_looking(name, "qnnpack", size=SIZE))
        bias_grid.round_frozen(frozen, (images[:1],))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export.export_onnx(frozen, (images[:1],), path)
            yield _fed(name, convert(path).graph, images)


def drawn(first: int, count: int, samples: int = 3) -> Iterator[Network]:
    """Random graphs out of every operator (tests/bridge/exact), fed with any codes, a third of them -128."""
    from tests.bridge.exact.graphs import Seeded, Unusable, draw_model
    from tests.bridge.exact.steps import STEPS

    made, seed = 0, first
    while made < count:
        seed += 1
        try:
            graph = convert(draw_model(Seeded(seed - 1), STEPS).proto).graph
        except (Unusable, BridgeError):
            continue
        random = np.random.default_rng(seed)
        inputs = {}
        for name in graph.inputs:
            shape = (samples, *graph.tensors[name].shape)
            low = random.random(shape) < 1 / 3
            inputs[name] = np.where(low, -128, random.integers(-128, 128, shape)).astype(np.int8)
        if any(graph.tensors[name].dtype != np.int8 for name in graph.inputs):
            continue
        made += 1
        yield Network(f"drawn {seed - 1}", graph, inputs)


def _fed(name: str, graph: Graph, images: np.ndarray) -> Network:
    """A network with one input, fed with images as its file quantizes them."""
    (given,) = graph.inputs
    parts = [codes(graph.tensors[given], batch[given]) for batch in batches(graph, {given: images})]
    return Network(name, graph, {given: np.stack(parts)})


@dataclass(frozen=True, eq=False)
class Alone:
    """One operator of a network as a file, fed with what x86 computes up to it."""

    op: str
    tflite: bytes
    inputs: Mapping[str, np.ndarray]


def operators(network: Network, samples: int | None = None, *, repeated: bool = True) -> Iterator[Alone]:
    """Every operator that is fed with something that is computed; not `repeated`: one of those with equal shapes."""
    seen: set[object] = set()
    graph = network.graph
    computed = tuple(dict.fromkeys(name for node in graph.nodes for name in node.outputs))
    runner = Runner(write(replace(graph, outputs=computed)), "xnnpack")
    count = len(next(iter(network.inputs.values())))
    fed = [{name: array[i] for name, array in network.inputs.items()} for i in range(min(count, samples or count))]
    values = [{**one, **runner(one)} for one in fed]
    for node in graph.nodes:
        alone = single(graph, node)
        shapes = tuple(graph.tensors[name].shape for name in (*node.inputs, *node.outputs) if name)
        kind = (node.op, shapes, tuple(sorted(node.attrs.items())))
        if alone.inputs and (repeated or kind not in seen):
            seen.add(kind)
            inputs = {name: np.stack([each[name] for each in values]) for name in alone.inputs}
            yield Alone(node.op, write(alone), inputs)
