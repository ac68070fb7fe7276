"""What a conversion did, as plain data for `--json` and as the few lines a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bridge.exact.convert import Conversion
from bridge.exact.graph import NOTE_KINDS, Tensor

_LOUD = ("float", "derived", "weights", "bias")
"""What the user should not overlook; the rest is how a conversion goes."""


def record(conversion: Conversion) -> dict[str, Any]:
    """Operators in and out, tensors, notes, seconds; for `json.dumps`."""
    graph = conversion.graph
    described = {
        name: {
            "shape": list(graph.tensors[name].shape),
            "axes": list(axes(graph.tensors[name])),
            "layout": layout(graph.tensors[name]),
            "dtype": str(graph.tensors[name].dtype),
            "quantization": None if graph.tensors[name].qparams is None else _quantization(graph.tensors[name].q),
        }
        for name in (*graph.inputs, *graph.outputs)
    }
    return {
        "bytes": len(conversion.tflite),
        "seconds": conversion.seconds,
        "operators_in": dict(conversion.operators_in),
        "operators_out": dict(conversion.operators_out),
        "inputs": {name: described[name] for name in graph.inputs},
        "outputs": {name: described[name] for name in graph.outputs},
        "trained_scales_kept": scales_kept(conversion),
        "notes": [{"kind": note.kind, "where": note.where, "what": note.what} for note in conversion.notes],
    }


def _quantization(qparams: Any) -> dict[str, Any]:
    return {"scale": float(qparams.scale), "zero_point": int(qparams.zero_point)}


def axes(tensor: Tensor) -> tuple[int, ...]:
    """Which axis of the model each stored axis is."""
    perm = tensor.origin.perm if tensor.origin else None
    return perm or tuple(range(len(tensor.shape)))


_LETTERS = {3: "N,C,L", 4: "N,C,H,W", 5: "N,C,D,H,W"}


def layout(tensor: Tensor) -> str:
    """What every axis of an input or output means: 'N,H,W,C' where channels went last, else 'as in the model'."""
    found = axes(tensor)
    if found == tuple(range(len(found))):
        return "as in the model"
    letters = (
        _LETTERS[len(found)].split(",") if len(found) in _LETTERS else [f"axis {axis}" for axis in range(len(found))]
    )
    return ",".join(letters[axis] for axis in found)


def scales_kept(conversion: Conversion) -> int:
    """Tensors of the file whose parameters training decided; an int32 bias is derived and not counted."""
    tensors = conversion.graph.tensors.values()
    held = [tensor for tensor in tensors if tensor.qparams is not None and tensor.dtype.itemsize == 1]
    return len(held) - sum(note.kind in ("fixed", "derived") for note in conversion.notes)


def lines(conversion: Conversion) -> Iterator[str]:
    """The summary of a conversion, a line each."""
    graph = conversion.graph
    yield f"in    {_counted(conversion.operators_in)}"
    yield f"out   {_counted(conversion.operators_out)}"
    for label, names in (("takes", graph.inputs), ("gives", graph.outputs)):
        for name in names:
            tensor = graph.tensors[name]
            how = "" if tensor.qparams is None else f", {tensor.qparams}"
            yield f"{label} {name} {tensor.dtype} {list(tensor.shape)} {layout(tensor)}{how}"
    kinds = Counter(note.kind for note in conversion.notes)
    rest = [f"{count} {kind}" for kind in NOTE_KINDS if (count := kinds[kind]) and kind not in _LOUD]
    yield f"kept  {', '.join([f'{scales_kept(conversion)} trained scales', *rest])}"


def warnings(conversion: Conversion) -> Iterator[str]:
    """What should not be overlooked: how often, what it means, and the first place."""
    for kind in _LOUD:
        notes = [note for note in conversion.notes if note.kind == kind]
        if notes:
            yield f"{len(notes)} {NOTE_KINDS[kind]}; first: {notes[0].where}: {notes[0].what}"


def _counted(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{op} {count}" for op, count in sorted(operators.items(), key=lambda pair: (-pair[1], pair[0])))
