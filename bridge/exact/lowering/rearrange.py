"""Operators that move elements and compute nothing: in and out at one scale."""

from __future__ import annotations

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.arithmetic import code_of
from bridge.exact.graph import Graph, Lowered, Node, constant
from bridge.exact.lowering.activation import shape_of
from bridge.exact.lowering.registry import lowers
from bridge.exact.names import free_name


@lowers("Reshape")
def lower_reshape(node: Node, graph: Graph) -> Lowered:
    """Reshape, Flatten, Squeeze, Unsqueeze -> RESHAPE."""
    shape = shape_of(free_name(f"{node.name}/shape"), graph.output(node))
    return Lowered((Node("RESHAPE", node.name, (node.inputs[0], shape.name), node.outputs),), (shape,))


@lowers("Transpose")
def lower_transpose(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Transpose -> TRANSPOSE, where the layout pass could not do without."""
    perm = constant(free_name(f"{node.name}/perm"), np.array(node.attrs["perm"], np.int32))
    return Lowered((Node("TRANSPOSE", node.name, (node.inputs[0], perm.name), node.outputs),), (perm,))


@lowers("Concat")
def lower_concat(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Concat -> CONCATENATION; its inputs are at the scale of the output already (passes/rescale.py)."""
    return Lowered((Node("CONCATENATION", node.name, node.inputs, node.outputs, {"axis": node.attrs["axis"]}),))


@lowers("Split")
def lower_split(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Split -> SPLIT for equal parts, SPLIT_V for others."""
    sizes = node.attrs["sizes"]
    axis = constant(free_name(f"{node.name}/axis"), np.array(node.attrs["axis"], np.int32))
    options = {"num_splits": len(sizes)}
    if len(set(sizes)) == 1:
        return Lowered((Node("SPLIT", node.name, (axis.name, node.inputs[0]), node.outputs, options),), (axis,))
    lengths = constant(free_name(f"{node.name}/sizes"), np.array(sizes, np.int32))
    split = Node("SPLIT_V", node.name, (node.inputs[0], lengths.name, axis.name), node.outputs, options)
    return Lowered((split,), (axis, lengths))


@lowers("Slice")
def lower_slice(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Slice -> STRIDED_SLICE."""
    numbers = [
        constant(free_name(f"{node.name}/{part}"), np.array(node.attrs[part], np.int32))
        for part in ("begin", "end", "strides")
    ]
    names = tuple(number.name for number in numbers)
    return Lowered((Node("STRIDED_SLICE", node.name, (node.inputs[0], *names), node.outputs),), tuple(numbers))


@lowers("Pad")
def lower_pad(node: Node, graph: Graph) -> Lowered:
    """Pad -> PAD (zeros), PADV2 (another constant, as a code of the tensor), MIRROR_PAD (reflect)."""
    x = graph.operands(node)[0]
    mode = node.attrs.get("mode", "constant")
    pads = node.attrs["paddings"]
    if mode not in ("constant", "reflect") or any(n < 0 for pair in pads for n in pair):
        raise BridgeError(
            where=str(node),
            problem=f"pads in mode '{mode}', or by a negative amount",
            remedy="TFLite pads with a constant or by reflection; slice where you mean to crop.",
        )
    paddings = constant(free_name(f"{node.name}/paddings"), np.array(pads, np.int32))
    operands = (x.name, paddings.name)
    if mode == "reflect":
        return Lowered((Node("MIRROR_PAD", node.name, operands, node.outputs, {"mode": "REFLECT"}),), (paddings,))
    value = node.attrs["value"]
    if value == 0.0:
        return Lowered((Node("PAD", node.name, operands, node.outputs),), (paddings,))
    code = np.array(value if x.qparams is None else code_of(value, x.q), x.dtype)
    filler = constant(free_name(f"{node.name}/value"), code, x.qparams)
    return Lowered((Node("PADV2", node.name, (*operands, filler.name), node.outputs),), (paddings, filler))


@lowers("Gather")
def lower_gather(node: Node, graph: Graph) -> Lowered:  # noqa: ARG001 - the registry's form
    """Gather by constant indices -> GATHER."""
    indices = constant(free_name(f"{node.name}/indices"), node.attrs["indices"])
    options = {"axis": node.attrs["axis"]}
    return Lowered((Node("GATHER", node.name, (node.inputs[0], indices.name), node.outputs, options),), (indices,))


_CENTRES = {
    ("nearest", "asymmetric"): (False, False),
    ("nearest", "half_pixel"): (False, True),
    ("linear", "asymmetric"): (False, False),
    ("linear", "half_pixel"): (False, True),
    ("linear", "pytorch_half_pixel"): (False, True),
    ("linear", "align_corners"): (True, False),
}
"""(align_corners, half_pixel_centers) of the TFLite kernels that sample where ONNX's modes do."""


@lowers("Resize")
def lower_resize(node: Node, graph: Graph) -> Lowered:
    """Resize -> RESIZE_NEAREST_NEIGHBOR, RESIZE_BILINEAR; in and out at one scale.

    ONNX's nearest with asymmetric coordinates and floor is TFLite's default; half_pixel needs rounding to the nearest
    and whole factors. TFLite samples by output size / input size, so the scales must be just that.
    """
    x, y = graph.operands(node)[0], graph.output(node)
    mode = node.attrs.get("mode", "nearest")
    centre = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attrs.get("nearest_mode", "round_prefer_floor")
    scales = graph.operand(node, 2)
    factors = [m / n for m, n in zip(y.shape, x.shape, strict=True)]
    whole = all(factor == int(factor) for factor in factors)
    nearest_differs = mode == "nearest" and (
        (centre == "asymmetric" and rounding != "floor")
        or (centre == "half_pixel" and not (whole and rounding.startswith("round_prefer")))
    )
    known = (mode, centre) in _CENTRES and len(factors) == 4 and factors[0] == factors[3] == 1
    if scales is not None and scales.values.size and known and centre != "align_corners":
        asked = np.ones(4)
        asked[list(node.attrs.get("axes", range(4)))] = scales.values
        known = np.allclose(asked, [factors[0], factors[3], *factors[1:3]], rtol=1e-5, atol=0)
    if centre == "pytorch_half_pixel":  # to one element it takes the first, where TFLite takes the middle
        known = known and all(m > 1 or n == 1 for m, n in zip(y.shape[1:3], x.shape[1:3], strict=True))
    if not known or nearest_differs or node.attrs.get("antialias", 0):
        raise BridgeError(
            where=str(node),
            problem=f"resizes by mode '{mode}', coordinates '{centre}', rounding '{rounding}', factors {factors}; "
            "TFLite's kernels sample elsewhere",
            remedy="Use nn.Upsample(mode='nearest') or bilinear, over height and width only.",
        )
    align, half = _CENTRES[(mode, centre)]
    size = constant(free_name(f"{node.name}/size"), np.array(y.shape[1:3], np.int32))
    if mode == "nearest" and whole and half:
        align, half = False, False
    op = "RESIZE_NEAREST_NEIGHBOR" if mode == "nearest" else "RESIZE_BILINEAR"
    options = {"align_corners": align, "half_pixel_centers": half}
    resize = Node(op, node.name, (x.name, size.name), node.outputs, options)
    return Lowered((resize,), (size,))
