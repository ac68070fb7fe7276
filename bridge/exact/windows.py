"""Windows that no kernel moves: checked in the file itself, because ONNX's shape inference divides by what it finds.

A stride of 0 ends the process inside onnx 1.19; numbers near 2^63 wrap around there.
"""

from __future__ import annotations

from typing import Any

import onnx

from bridge.errors import BridgeError

_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool"}
_LOWEST = {"kernel_shape": 1, "strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
"""The lists of numbers of a window, and the smallest that means anything (ONNX operator specification)."""

_LARGEST = 2**31 - 1
"""TFLite has them in int32 (schema.fbs, Conv2DOptions, Pool2DOptions)."""


def refuse_impossible_windows(model: onnx.ModelProto) -> None:
    """Raise `BridgeError` for a window whose numbers are out of range, do not belong together, or contradict auto_pad."""
    for node in model.graph.node:
        if node.op_type in _WINDOWS and node.domain in ("", "ai.onnx"):
            attrs = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            _check(f"{node.op_type} '{node.name}'", node.op_type, attrs)


def _check(where: str, op: str, attrs: dict[str, Any]) -> None:
    for name, lowest in _LOWEST.items():
        for number in attrs.get(name, ()):
            if not lowest <= number <= _LARGEST:
                raise _refused(where, f"has {name} {list(attrs[name])}; each is from {lowest} to 2^31 - 1")
    axes = {len(attrs[name]) / (2 if name == "pads" else 1): name for name in _LOWEST if attrs.get(name)}
    if len(axes) > 1:
        raise _refused(where, f"has {' and '.join(axes.values())} for different numbers of axes")
    padded = any(attrs.get("pads", ()))
    if padded and attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise _refused(
            where, f"has pads {list(attrs['pads'])} and auto_pad {attrs['auto_pad'].decode(errors='replace')}"
        )
    if padded and "Pool" in op and "kernel_shape" in attrs:
        kernel = list(attrs["kernel_shape"])
        if any(pad >= size for pad, size in zip(attrs["pads"], kernel * 2, strict=True)):
            raise _refused(where, f"has windows {kernel} that lie in its padding {list(attrs['pads'])} altogether")


def _refused(where: str, problem: str) -> BridgeError:
    return BridgeError(
        where=where, problem=problem, remedy="The file is damaged or was edited by hand; export it again."
    )
