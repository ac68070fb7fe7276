"""What a conversion did, as plain data for `--json` and as the few lines a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bridge.exact.graph import NOTE_KINDS, REMEDIES, Note, Tensor
from bridge.exact.tools import TOOLS

if TYPE_CHECKING:
    from bridge.exact.convert import Conversion

ONNX_FILE = "ONNX"
"""What `Conversion.way` says of a file; nobody needs to be told that."""

_LOUD = {
    **dict.fromkeys(
        ("float", "weights", "bias", "symmetric", "derived", "inherited", "fixed", "twice", "rounded", "grid"), True
    ),
    **dict.fromkeys(("fed", "accumulator", "pytorch", "clamped", "unfused", "merged", "parts"), False),
}
"""What is said by default, and whether it can move a value; the rest is how a conversion goes."""


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
        "read_by": conversion.way,
        "operators_in": dict(conversion.operators_in),
        "operators_out": dict(conversion.operators_out),
        "inputs": {name: described[name] for name in graph.inputs},
        "outputs": {name: described[name] for name in graph.outputs},
        "trained_scales_kept": scales_kept(conversion),
        "notes": [_note(note) for note in conversion.notes],
    }


def _note(note: Note) -> dict[str, Any]:
    said = {"kind": note.kind, "where": note.where, "what": note.what}
    return said if note.lsb is None else said | {"at_most_lsb": round(note.lsb, 4), "of": note.of}


def _quantization(qparams: Any) -> dict[str, Any]:
    return {
        "scale": float(qparams.scale),
        "zero_point": int(qparams.zero_point),
        "codes": [qparams.qmin, qparams.qmax],
    }


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
    undecided = sum(note.made + (note.kind in ("fixed", "derived", "inherited")) for note in conversion.notes)
    return len(held) - undecided


def lines(conversion: Conversion) -> Iterator[str]:
    """The summary of a conversion, a line each."""
    graph = conversion.graph
    if conversion.way != ONNX_FILE:
        yield f"read  {conversion.way}"
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


def warnings(conversion: Conversion, *, moving: bool = False) -> Iterator[str]:
    """What training did not decide, or what costs something: a line for each kind, the worst kind and case first.

    How often, what it is, by how many LSB it can move a value at most, the worst case, and what to change in training.
    `moving`: only kinds that can move a value.
    """
    found = [(kind, loud_notes(conversion, kind)) for kind, moves in _LOUD.items() if moves or not moving]
    for kind, notes in sorted(((kind, notes) for kind, notes in found if notes), key=lambda pair: _rank(*pair)):
        worst = notes[0]
        known = "" if not worst.lsb else f", up to {_steps(worst.lsb)} LSB of '{worst.of}'"
        label = "worst" if known and len(notes) > 1 else "first"
        pair = TOOLS[conversion.graph.tool].pair
        remedy = f". {REMEDIES[kind].replace('{pair}', pair)}" if kind in REMEDIES else ""
        yield f"{len(notes)} {NOTE_KINDS[kind]}{known}; {label}: {worst.where}: {worst.what}{remedy}"


def loud_notes(conversion: Conversion, kind: str) -> list[Note]:
    """The notes of a kind that are said by default, the worst first; those that are known to cost nothing are not."""
    notes = [note for note in conversion.notes if note.kind == kind and (note.lsb != 0.0 or not _LOUD[kind])]
    return sorted(notes, key=_severity, reverse=True)


def _severity(note: Note) -> float:
    return float("inf") if note.lsb is None else note.lsb


def _rank(kind: str, notes: Sequence[Note]) -> tuple[bool, float]:
    """Kinds that move values before those that do not; of those, what nobody can bound first, then the largest bound."""
    return not _LOUD[kind], -_severity(notes[0])


def _steps(lsb: float) -> str:
    return f"{lsb:.1f}" if lsb < 100 else f"{lsb:.0f}"


def short(conversion: Conversion) -> str:
    """One line: the size, the operators, and how many notes there are of each kind that is said by default."""
    counts = [(kind, loud_notes(conversion, kind)) for kind in _LOUD]
    said = [f"{len(notes)} {kind}" for kind, notes in counts if notes]
    operators = sum(conversion.operators_out.values())
    about = f"{len(conversion.tflite):,} bytes, {operators} operators, {scales_kept(conversion)} trained scales kept"
    return f"<Conversion: {about}{'; notes: ' + ', '.join(said) if said else ''}>"


def _counted(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{op} {count}" for op, count in sorted(operators.items(), key=lambda pair: (-pair[1], pair[0])))
