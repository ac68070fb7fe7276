"""Numbers that the file states, on a grid that the tensor took from its input: padding values and limits.

A trained scale behind the operator decides for itself what the number becomes. An inherited one was trained without it:
a number between two codes is rounded and said, one outside the range would saturate and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.graph import Graph, Node, Note, QParams, Tensor

_NOTHING = 1e-3
"""Of a step: nearer to a code than this, a number is that code, written in float32."""


def rounded(
    node: Node, qparams: QParams, tensors: Mapping[str, Tensor], readers: Sequence[Node], graph: Graph
) -> Iterator[Note]:
    """A note for each number of a Pad or Limit that is not on the grid; raises `BridgeError` for one out of range."""
    low, high = (float(qparams.scale) * (code - int(qparams.zero_point)) for code in (qparams.qmin, qparams.qmax))
    for name, value in _numbers(node, tensors):
        # A limit beyond the range on its own side changes nothing, as padding below it changes no maximum.
        harmless = (name == "low" and value <= low) or (name == "high" and value >= high)
        harmless |= name == "padding" and value < low and _only_maxima(node, tensors, readers, graph)
        if harmless:
            continue
        step = float(qparams.scale)
        if not low - step / 2 <= value <= high + step / 2:
            raise BridgeError(
                where=f"{node}, {name} {value:.6g}",
                problem=f"is outside {low:.6g} to {high:.6g}, all that the scale of its input can say ({qparams}), and its "
                "output has no trained scale of its own",
                remedy="Put a fake-quant behind this operator, fine-tune and export again.",
            )
        nearest = min(max(float(np.rint(value / step)) * step, low), high)
        if abs(value - nearest) > _NOTHING * step:
            where, what = f"{node}, {name} {value:.6g}", f"is {nearest:.6g} at the scale of its input"
            yield Note("rounded", where, what, node.outputs[0], abs(value - nearest))


def _numbers(node: Node, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    if node.limits is not None:  # a Limit, or a pool that took one over
        yield from (("low", node.limits.low), ("high", node.limits.high))
    elif (
        node.op == "Pad"
        and node.attrs.get("mode", "constant") == "constant"
        and len(node.inputs) > 2
        and node.inputs[2]
    ):
        yield "padding", float(tensors[node.inputs[2]].real.reshape(-1)[0])


def _only_maxima(node: Node, tensors: Mapping[str, Tensor], readers: Sequence[Node], graph: Graph) -> bool:
    """Whether only max pools read the padding, none of whose windows lies in it altogether."""
    if node.outputs[0] in graph.outputs or not readers or len(node.inputs) > 3:
        return False
    pads = [int(number) for number in tensors[node.inputs[1]].values]
    rank = len(pads) // 2
    before, after = pads[:rank], pads[rank:]

    def meets_data(reader: Node) -> bool:
        if reader.op != "MaxPool" or reader.attrs.get("ceil_mode") or any(d != 1 for d in reader.attrs["dilations"]):
            return False
        kernel, own = reader.attrs["kernel_shape"], reader.attrs["pads"]
        ends = [
            *zip(before[2:], own[: rank - 2], kernel, strict=True),
            *zip(after[2:], own[rank - 2 :], kernel, strict=True),
        ]
        return not any((*before[:2], *after[:2])) and all(pad + inner < size for pad, inner, size in ends)

    return all(meets_data(reader) for reader in readers)
