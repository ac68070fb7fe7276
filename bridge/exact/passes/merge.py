"""An average that training gave no scale is computed inside the dense layer or 1x1 convolution behind it: no rounding between.

    Mean(x) -> [Reshape, Transpose] -> Gemm(w)   becomes   Reshape(x) -> Gemm(w repeated over the map, scale / n)
    Mean(x) -> Conv 1x1 (w)                      becomes   Conv with a kernel of the map's size, likewise

    sum over c of w_c * (sum over n positions of x_cp) / n  =  sum over c, p of (w_c / n) * x_cp

The sum is one int32 accumulator, so that nothing is rounded before the layer's own output; the codes of w stay as they
are, and their scale takes the 1 / n. It costs n - 1 times the layer's weights in size, hence the bound.

A code of -128 must not stand twice in a channel (pair_sums.py), and here it would stand n times. So the features that
meet one are given twice, by a 1x1 convolution that copies them, and -128 becomes -127 for the one and -1 for the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bridge.exact.arithmetic import INT32
from bridge.exact.budget import Budget
from bridge.exact.graph import Graph, Node, Note, QParams, Tensor, constant, per_tensor, without_unused
from bridge.exact.names import free_name
from bridge.exact.passes.inherit import code_range
from bridge.exact.passes.slices import Made, Slices, added_bytes, cut, sliced

MeanForm = Literal["auto", "conv", "fine", "inherit"]
"""How an average without a trained scale is computed.

conv: inside the dense layer or 1x1 convolution right behind it, exactly, whatever that adds to the file.
fine: rounded, but finer: in up to 8 slices of its range for such a layer (slices.py), for others at the finest scale
that no average of its input's codes can leave.
inherit: at the scale of its input, as PyTorch's int8 engine computes it.
auto: conv where the file grows by a quarter of its weights at most (or by 16 KB, where that is more), else as many
slices as that allows, else the finest scale.
"""

MOST_SLICES = 8

SHARE, AT_LEAST = 4, 16 * 1024
"""What `auto` may add: the weights divided by this, or this many bytes. benchmarks/mean_forms.py measures what it buys."""


def merge(graph: Graph, *, form: MeanForm, keep_lowest: bool = False, budget: Budget | None = None) -> Graph:
    """Averages into the layers behind them, the cheapest first, as far as `form` allows.

    A weight code of -128 is not repeated over a map that can hold -128 (pair_sums.py says why), unless `keep_lowest`.
    """
    if form == "inherit":
        return graph
    weights = sum(graph.tensors[name].values.nbytes for name in _weights(graph))
    allowed = (budget or Budget()).elements
    room = min(allowed, max(weights // SHARE, AT_LEAST)) if form == "auto" else allowed
    tensors = dict(graph.tensors)
    swapped: dict[int, tuple[Node, ...]] = {}
    notes: list[Note] = []
    why: dict[str, str] = {}
    for found in sorted(_candidates(graph, keep_lowest), key=lambda each: each.growth(each.count)):
        apart = found if keep_lowest else _without_lowest(found)  # slices hold -128, whatever x does
        exact, slices = found.growth(found.count), apart.most_slices(room)
        whole = not found.obstacle and exact <= room and (form != "fine" or found.count <= MOST_SLICES)
        how = "--mean conv" if exact <= allowed else "--mean conv --max-elements"
        reason = found.obstacle or f"inside {found.layer} it would be exact and add {exact:,} bytes of weights ({how})"
        if whole:
            (swapped[found.index], made), added = found.build(), exact
            what = f"into {found.layer}, {added:,} bytes of weights more"
            notes.append(Note("merged", str(found.mean), what, made=found.copied))
        elif form != "conv" and slices is not None:
            (swapped[found.index], made), added = apart.build_slices(slices), apart.growth(slices.number)
            what = f"in {slices.number} slices of {made[-1].q}, {added:,} bytes of weights more; {reason}"
            off = slices.off / slices.number  # only one slice of a mean is between its ends
            more = 2 * slices.number + apart.copied
            notes.append(Note("inherited", str(found.mean), what, made[-1].name, off, made=more))
        else:
            why[found.mean.outputs[0]] = reason
            continue
        room -= added
        tensors.update((tensor.name, tensor) for tensor in made)
    nodes = [made for index, node in enumerate(graph.nodes) for made in swapped.get(index, (_told(node, why),))]
    return without_unused(replace(graph, nodes=tuple(nodes), tensors=tensors, notes=(*graph.notes, *notes)))


def _told(node: Node, why: dict[str, str]) -> Node:
    """An average that stays, with the reason for passes/inherit.py to say."""
    reason = why.get(node.outputs[0])
    return replace(node, apart=reason) if reason else node


def _weights(graph: Graph) -> set[str]:
    layers = [node for node in graph.nodes if node.op in ("Conv", "ConvTranspose", "Gemm")]
    return {node.inputs[1] for node in layers if graph.tensors[node.inputs[1]].is_constant}


@dataclass(frozen=True, eq=False)
class _Candidate:
    """An average, the layer behind it, and that layer's codes arranged as the average is, (out, *1 where averaged)."""

    index: int
    layer: Node
    mean: Node
    x: Tensor
    weight: Tensor
    bias: Tensor
    codes: np.ndarray
    count: int
    """How many values are averaged."""
    twice: tuple[int, ...] = ()
    """Features that meet a code of -128, which is not to be repeated; `codes` has a column for each copy of them."""
    qparams: QParams | None = None
    """Of x, or of what x rearranges."""
    codes_of_x: tuple[int, int] = (-128, 127)
    """The lowest and the highest that x can hold."""
    obstacle: str = ""
    widened: Node | None = None
    """What makes x, a map over two axes, of one over one axis."""

    @property
    def copied(self) -> int:
        """Quantized tensors that copies of features add: the ones, the copies, both side by side."""
        return 3 if self.twice else 0

    def growth(self, times: int) -> int:
        """Bytes of weights more, with every code `times` in the layer."""
        more = self.codes.size * times - self.weight.values.size
        return more if times == self.count else more + added_bytes(self.x.shape[1], self.x.shape[2:], times)

    def most_slices(self, room: int) -> Slices | None:
        """The finest slices of the mean that fit; None where slices are none of this layer's."""
        low, high = self.codes_of_x
        channels = len(self.x.shape) == 4 and self.codes.shape[1:] == (self.x.shape[1] + len(self.twice), 1, 1)
        if not channels or self.obstacle or self.qparams is None or low >= high:
            return None
        found = [cut(self.qparams, low, high, self.count, k) for k in range(2, min(MOST_SLICES, self.count) + 1)]
        fitting = [each for each in found if each.number > 1 and self.growth(each.number) <= room]
        return min(fitting, key=lambda each: (each.multiple, each.number), default=None)

    def build(self) -> Made:
        """The layer that reads the map itself, and what copies some of its features before."""
        if not self.twice:
            return self._behind(self.on_the_map())
        copies, made = self._copies()
        nodes, more = replace(self, x=made[-1]).on_the_map()
        return self._behind(((*copies, *nodes), (*made, *more)))

    def _behind(self, made: Made) -> Made:
        return made if self.widened is None else ((self.widened, *made[0]), (self.x, *made[1]))

    def build_slices(self, slices: Slices) -> Made:
        """The layer that reads slices of the mean, whose tensor is the last one made, and what makes them."""
        copies, made = self._copies() if self.twice else ((), ())
        x = made[-1] if self.twice else self.x
        nodes, more = sliced(f"{self.mean.name}/sliced", x, slices)
        features = np.tile(self.codes.reshape(len(self.codes), -1), (1, slices.number))
        real = features[:, : x.shape[1]].astype(np.float64).sum(axis=1) * self.weight.q.scale
        name = f"{self.layer.name}/of slices"
        moved = self.bias.real.astype(np.float64) + slices.start * real
        bias = constant(free_name(f"{name}/bias"), moved.astype(np.float32))
        if self.layer.op == "Conv":
            kernel = constant(free_name(f"{name}/weight"), features[:, :, np.newaxis, np.newaxis], self.weight.q)
            layer = replace(self.layer, inputs=(more[-1].name, kernel.name, bias.name))
            return self._behind(((*copies, *nodes, layer), (*made, kernel, bias, *more)))
        kernel = constant(free_name(f"{name}/weight"), features, self.weight.q)
        flat = replace(more[-1], name=free_name(f"{name}/flat"), shape=more[-1].shape[:2])
        flatten = Node("Reshape", free_name(f"{name}/flatten"), (more[-1].name,), (flat.name,))
        layer = replace(self.layer, inputs=(flat.name, kernel.name, bias.name))
        return self._behind(((*copies, *nodes, flatten, layer), (*made, kernel, bias, flat, *more)))

    def _copies(self) -> Made:
        """x -> Conv 1x1 with a one for each feature to copy -> Concat; the codes of x are kept exactly."""
        size, count = self.x.shape[1], len(self.twice)
        ones = np.zeros((count, size, 1, 1), np.int8)
        ones[range(count), list(self.twice)] = 127
        name = f"{self.layer.name}/copies"
        weight = constant(free_name(f"{name}/weight"), ones, per_tensor(1 / 127, 0))
        bias = constant(free_name(f"{name}/bias"), np.zeros(count, np.float32))
        int8 = np.dtype(np.int8)
        copies = Tensor(free_name(name), (self.x.shape[0], count, *self.x.shape[2:]), int8, None, self.qparams)
        shape = (self.x.shape[0], size + count, *self.x.shape[2:])
        both = Tensor(free_name(f"{name}/with the map"), shape, int8, None, self.qparams)
        attrs = {"kernel_shape": [1, 1], "strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "group": 1}
        conv = Node("Conv", free_name(name), (self.x.name, weight.name, bias.name), (copies.name,), attrs)
        concat = Node("Concat", free_name(f"{name}/concat"), (self.x.name, copies.name), (both.name,), {"axis": 1})
        return (conv, concat), (weight, bias, copies, both)

    def on_the_map(self) -> Made:
        """The layer with its codes over all of x."""
        scale = (self.weight.q.scale.astype(np.float64) / self.count).astype(np.float32)
        qparams = QParams(scale, self.weight.q.zero_point, self.weight.q.axis)
        name = free_name(f"{self.weight.name}/over the map")
        window = self.x.shape[2:] if self.layer.op == "Conv" else self.x.shape[1:]
        codes = np.broadcast_to(self.codes, (*self.codes.shape[: -len(window)], *window))
        if self.layer.op == "Conv":
            sizes = {"kernel_shape": list(window), "strides": [1, 1], "dilations": [1, 1]}
            attrs = {**self.layer.attrs, **sizes, "pads": [0, 0, 0, 0]}
            layer = replace(self.layer, inputs=(self.x.name, name, self.layer.inputs[2]), attrs=attrs)
            return (layer,), (constant(name, codes, qparams),)
        kernel = constant(name, codes.reshape(len(codes), -1), qparams)
        flat = Tensor(free_name(f"{self.layer.name}/map"), (self.x.shape[0], kernel.shape[1]), self.x.dtype)
        flat = replace(flat, qparams=self.x.qparams)
        flatten = Node("Reshape", free_name(f"{self.layer.name}/flatten"), (self.x.name,), (flat.name,))
        return (flatten, replace(self.layer, inputs=(flat.name, name, self.layer.inputs[2]))), (flat, kernel)


def _candidates(graph: Graph, keep_lowest: bool) -> Iterator[_Candidate]:
    producers = graph.producers()
    for index, layer in enumerate(graph.nodes):
        if layer.op not in ("Gemm", "Conv") or graph.tensors[layer.inputs[1]].qparams is None:
            continue
        mean, path = _mean_behind(layer.inputs[0], graph, producers)
        if mean is None:
            continue
        weight, x = graph.tensors[layer.inputs[1]], graph.tensors[mean.inputs[0]]
        codes = _arranged(layer, weight, mean, path, graph)
        if codes is not None:
            count = int(np.prod(x.shape)) // int(np.prod(graph.tensors[mean.outputs[0]].shape))
            qparams, bias = _parameters(x.name, graph, producers), graph.tensors[layer.inputs[2]]
            found = _Candidate(index, layer, mean, x, weight, bias, codes, count, (), qparams)
            if qparams is not None:
                found = replace(found, codes_of_x=code_range(x.name, qparams, graph, graph.tensors, producers))
                found = _over_two_axes(found)
                if not keep_lowest and qparams.qmin == -128:
                    found = _without_lowest(found)
            yield replace(found, obstacle=_obstacle(found, keep_lowest))


def _over_two_axes(found: _Candidate) -> _Candidate:
    """A map (N, C, L) as (N, C, 1, L), which convolutions can read; any other unchanged."""
    if len(found.x.shape) != 3 or found.codes.shape[1:] != (found.x.shape[1], 1):
        return found
    samples, channels, length = found.x.shape
    x = replace(
        found.x, name=free_name(f"{found.layer.name}/as image"), shape=(samples, channels, 1, length), origin=None
    )
    widened = Node("Reshape", free_name(f"{found.layer.name}/widen"), (found.x.name,), (x.name,))
    return replace(found, x=x, codes=found.codes[..., np.newaxis], widened=widened)


def _without_lowest(found: _Candidate) -> _Candidate:
    """Codes of -128 as -127 for their feature and -1 for a copy of it; unchanged where the features are no channels."""
    codes = found.codes
    channels = len(found.x.shape) == 4 and codes[0].size == codes.shape[1] == found.x.shape[1]
    lowest = codes == -128
    if not channels or not lowest.any():
        return found
    twice = tuple(int(index) for index in np.flatnonzero(lowest.any(axis=(0, 2, 3))))
    rest = -lowest[:, list(twice)].astype(np.int8)
    return replace(found, twice=twice, codes=np.concatenate([np.maximum(codes, np.int8(-127)), rest], axis=1))


def _mean_behind(name: str, graph: Graph, producers: dict[str, Node]) -> tuple[Node | None, list[Node]]:
    """The average whose values arrive at `name` without any trained rounding, and what rearranges them on the way."""
    path: list[Node] = []
    while graph.tensors[name].qparams is None and name in producers:
        node = producers[name]
        if node.op == "Mean" or _pools_all(node, graph):
            return node, path[::-1]
        if node.op not in ("Reshape", "Transpose"):
            break
        path.append(node)
        name = node.inputs[0]
    return None, path


def _pools_all(node: Node, graph: Graph) -> bool:
    """An AveragePool of the whole map."""
    if node.op != "AveragePool" or any(node.attrs["pads"]) or node.limits is not None:
        return False
    return tuple(node.attrs["kernel_shape"]) == graph.tensors[node.inputs[0]].shape[2:]


def _arranged(layer: Node, weight: Tensor, mean: Node, path: list[Node], graph: Graph) -> np.ndarray | None:
    """The layer's codes as they lie in the average, axes of 1 where it averages; None where the layer is none of the map's."""
    x, averaged = graph.tensors[mean.inputs[0]], graph.tensors[mean.outputs[0]]
    axes = mean.attrs["axes"] if mean.op == "Mean" else list(range(2, len(x.shape)))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    if 0 in axes or weight.q.axis not in (None, 0) or weight.q.zero_point.any():
        return None
    if layer.op == "Conv":
        one = all(k == 1 for k in weight.shape[2:]) and not any(layer.attrs["pads"])
        fits = not path and len(x.shape) == 4 and sorted(axes) == [2, 3] and averaged.shape == kept and one
        return weight.values if fits else None
    order = _order(averaged.shape, path, graph)
    if order is None or order.size != weight.shape[1]:
        return None
    features = np.empty_like(weight.values)
    features[:, order] = weight.values
    return features.reshape(len(features), *kept[1:])


def _order(shape: tuple[int, ...], path: list[Node], graph: Graph) -> np.ndarray | None:
    """Which element of one averaged sample each feature of the layer is; None where samples or features are mixed."""
    indices = np.arange(int(np.prod(shape))).reshape(shape)
    for node in path:
        if node.op == "Transpose":
            indices = indices.transpose(node.attrs.get("perm") or list(range(indices.ndim))[::-1])
        else:
            indices = indices.reshape(graph.tensors[node.outputs[0]].shape)
    count = indices.size // shape[0]
    if indices.shape != (shape[0], count):
        return None
    samples = indices - np.arange(shape[0])[:, np.newaxis] * count
    order: np.ndarray = samples[0]
    return order if (samples == order).all() and sorted(order.tolist()) == list(range(count)) else None


def _obstacle(found: _Candidate, keep_lowest: bool) -> str:
    """Why the layer cannot compute the sum exactly; empty where it can."""
    qparams = found.qparams
    if qparams is None or qparams.axis is not None:
        return "its input has no scale of its own"
    codes = found.codes.astype(np.int64).reshape(len(found.codes), -1)
    if (codes == -128).any() and qparams.qmin == -128 and not keep_lowest:
        return f"{found.layer} has weight codes of -128, which may stand once only in a channel (kernels for ARM)"
    scale = qparams.scale.astype(np.float64) * found.weight.q.scale.astype(np.float64) / found.count
    if float(np.min(scale)) < 1e-37:
        return f"{found.layer} would have a weight scale that float32 does not hold"
    largest = np.abs(codes).sum(axis=1) * 255.0 * found.count + np.abs(found.bias.real.astype(np.float64)) / scale
    if largest.max() > INT32.max:
        return f"the sum of {found.layer} over the whole map does not fit int32"
    return ""


def _parameters(name: str, graph: Graph, producers: dict[str, Node]) -> QParams | None:
    """The trained parameters of a tensor, or of what it is a rearrangement of."""
    while graph.tensors[name].qparams is None and name in producers:
        node = producers[name]
        if node.op not in ("MaxPool", "Reshape", "Transpose", "Slice", "Limit", "Gather"):
            break
        name = node.inputs[0]
    return graph.tensors[name].qparams
