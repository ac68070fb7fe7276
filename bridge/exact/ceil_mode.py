"""`ceil_mode` of pools as PyTorch and ONNX Runtime mean it, in a spelling that leaves shape inference no choice.

A window that would start beyond the input and its leading padding is left out (torch.nn.MaxPool2d; ONNX since opset
22); shape inference of older opsets counts it. With auto_pad SAME the output is ceil(size / stride) either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from bridge.errors import BridgeError

Shapes = Callable[[], Mapping[str, tuple[int, ...]]]


def settle_ceil_mode(model: onnx.ModelProto, shapes: Shapes) -> None:
    """Replace `ceil_mode`, in place, by padding wherever inference would get the output's shape wrong.

    `shapes` infers what it can, unknown sizes as -1; it is asked again after each change. Raises `BridgeError` for an
    average that would have to count some of its padding only.
    """
    known = None
    for node in model.graph.node:
        attrs = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type not in ("MaxPool", "AveragePool") or not attrs.get("ceil_mode"):
            continue
        if attrs.get("auto_pad", b"NOTSET").startswith(b"SAME"):
            _set(node, ceil_mode=0)
            _forget_shapes(model)
            known = None
            continue
        known = known or shapes()
        sizes = known.get(node.input[0], (-1,))[2:]
        if len(sizes) == len(attrs["kernel_shape"]) and min(sizes) > 0:
            try:
                pads = settled_pads(node.op_type, attrs, sizes)
            except ValueError as error:
                raise BridgeError(
                    where=f"AveragePool '{node.name}'",
                    problem=str(error),
                    remedy="Use ceil_mode=False, or count_include_pad=False.",
                ) from error
            if pads is not None:
                _set(node, ceil_mode=0, pads=pads, auto_pad="NOTSET")
                _forget_shapes(model)
                known = None


def settled_pads(op: str, attrs: Mapping[str, object], sizes: tuple[int, ...]) -> list[int] | None:
    """The padding that gives the right number of windows without `ceil_mode`; None where inference agrees already.

    `sizes`: of the pool's input, without batch and channels. Raises `ValueError`, in words, for an average that would
    have to count some of its padding only.
    """
    rank = len(sizes)
    kernel, ones = list(attrs["kernel_shape"]), [1] * rank  # type: ignore[call-overload]
    strides, dilations = list(attrs.get("strides", ones)), list(attrs.get("dilations", ones))  # type: ignore[call-overload]
    pads = list(attrs.get("pads", [0] * 2 * rank))  # type: ignore[call-overload]
    left_out = added = False
    for i, size in enumerate(sizes):
        before, after, stride = pads[i], pads[i + rank], strides[i]
        reach = (kernel[i] - 1) * dilations[i] + 1
        whole, rest = divmod(size + before + after - reach, stride)
        if not rest:
            continue
        if (whole + 1) * stride >= size + before:
            left_out = True
        else:
            added = True
            pads[i + rank] += stride - rest
    if left_out and added and op == "AveragePool" and attrs.get("count_include_pad"):
        raise ValueError("counts its own padding but not what ceil_mode adds to it")
    return pads if left_out else None


def _forget_shapes(model: onnx.ModelProto) -> None:
    """What the file says of shapes may come from the inference that got this one wrong; it is inferred anew."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            dim.dim_param = f"{output.name} {axis}"


def _set(node: onnx.NodeProto, **values: object) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in values.items())
