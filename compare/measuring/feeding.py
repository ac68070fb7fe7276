"""In which order of axes a .tflite takes its inputs: as the model, channels first, or channels last as TFLite's operators do."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from bridge.errors import BridgeError
from bridge.exact.passes.layout import Order
from compare.measuring.drift import drift, output_layers, trace_onnx, trace_tflite
from compare.subjects.case import Case
from compare.tflite.order import paired


def arranged(case: Case) -> list[np.ndarray]:
    """The inputs in the order and layout of the .tflite's own: N, C, ... become N, ..., C where its shape says so.

    Where the sizes fit both (as many channels as rows and columns), in the order in which the outputs are nearer to the
    ONNX model's; without one, channels last.

    Raises `BridgeError` when an input is missing or fits in neither layout.
    """
    return _arranged(case, channels_last=not ambiguous(case) or _nearer_channels_last(case))


def ambiguous(case: Case) -> tuple[str, ...]:
    """The inputs of the .tflite whose sizes fit the samples both channels first and channels last."""
    if case.file is None or not case.inputs:
        return ()
    graph = case.file.graph
    pairs = _given(case)
    return tuple(
        name
        for name, array in pairs.items()
        if array is not None and array.ndim == 4 and len(set(array.shape[1:])) == 1 and array.shape[1] > 1
        and array.shape[1:] == graph.tensors[name].shape[1:]
    )  # fmt: skip


def layout(case: Case) -> Order:
    """In which order the file has its images: as TFLite's operators, or as the model, where an input is taken that way."""
    assert case.file is not None  # noqa: S101 - the caller has looked
    both = ambiguous(case)
    for name, array in _given(case).items():
        if array is not None and array.ndim == 4 and array.shape[1:] == case.file.graph.tensors[name].shape[1:]:
            one_channel = (*array.shape[2:], array.shape[1]) == array.shape[1:] and name not in both
            if not one_channel and (name not in both or not _nearer_channels_last(case)):
                return "nchw"
    return "nhwc"


def said(case: Case) -> str:
    """How the inputs that fit both orders were compared."""
    return "channels last" if _nearer_channels_last(case) else "channels first, as in the model"


def by_onnx_name(case: Case) -> dict[str, np.ndarray]:
    """The inputs by the names of the ONNX model and in its order; one input needs no name.

    Raises `BridgeError` where it cannot be told which array is for which input.
    """
    assert case.onnx_model is not None  # noqa: S101 - the caller has looked
    assert case.inputs is not None  # noqa: S101
    given = case.inputs
    constants = {tensor.name for tensor in case.onnx_model.graph.initializer}
    names = [value.name for value in case.onnx_model.graph.input if value.name not in constants]
    if set(names) <= set(given):
        return {name: given[name] for name in names}
    if len(names) == len(given) == 1:
        return dict(zip(names, given.values(), strict=True))
    raise BridgeError(
        where="inputs",
        problem=f"are called {', '.join(given) or 'nothing'}; those of the model: {', '.join(names)}",
        remedy="Give each array the name of the ONNX model's input that it is for.",
    )


_ORDERS: dict[bool, Order] = {True: "nhwc", False: "nchw"}
"""By whether channels are last."""


@lru_cache(maxsize=4)
def _nearer_channels_last(case: Case) -> bool:
    """Both orders are run: the outputs decide, and where these are equally near (a network that saturates), the layers."""
    if case.onnx is None or case.tflite is None:
        return True
    try:
        apart = {}
        for last, order in _ORDERS.items():
            reference = trace_onnx(case.onnx, by_onnx_name(case), order)
            judged = trace_tflite(case.tflite, _arranged(case, channels_last=last))
            apart[last] = [
                sum(layer.max_lsb for layer in layers)
                for layers in (output_layers(reference, judged), drift(reference, judged).layers)
            ]
    except BridgeError:
        return True  # a file that does not run, or a model that cannot be traced, is said elsewhere
    return apart[True] <= apart[False]


def _given(case: Case) -> dict[str, np.ndarray | None]:
    """The arrays by the names of the .tflite: its own, where it has those of the model, by those that TensorFlow's converter makes of
    the model's, which it sorts, else by their place there."""
    assert case.file is not None  # noqa: S101 - the callers have looked
    given = by_onnx_name(case) if case.onnx_model is not None and case.inputs else dict(case.inputs or {})
    names = case.file.graph.inputs
    if set(names) <= set(given):
        return {name: given[name] for name in names}
    return dict(itertools.zip_longest(names, [given[name] for name in paired(list(given), names)]))


def _arranged(case: Case, *, channels_last: bool) -> list[np.ndarray]:
    assert case.file is not None  # noqa: S101 - the callers have looked
    graph = case.file.graph
    both = ambiguous(case)
    found = []
    for name, array in _given(case).items():
        shape = graph.tensors[name].shape
        if array is None:
            raise BridgeError(
                where=f"input '{name}'",
                problem="is not among the inputs given",
                remedy="Save one array for each input.",
            )
        turned = array.ndim >= 3 and (*array.shape[2:], array.shape[1]) == shape[1:]
        if turned and (channels_last if name in both else array.shape[1:] != shape[1:]):
            array = np.moveaxis(array, 1, -1)
        if array.shape[1:] != shape[1:]:
            raise BridgeError(
                where=f"input '{name}'",
                problem=f"has shape {array.shape}, the .tflite takes {shape}",
                remedy="Save the samples along the first axis, as the ONNX model or the .tflite takes them.",
            )
        found.append(np.ascontiguousarray(array, np.float32))
    return found
