"""`.pt2` files (torch.export.save): read without running anything that the file brings along.

torch 2.13's own loader runs what a file says in five places: weights and constants that are pickled, sample inputs that
`weights_only` refuses, compiled libraries (AOTInductor), expressions that SymPy evaluates, and the code of guards. So a
file is looked through first, and torch is given a copy that has none of these.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bridge.errors import BridgeError

MOST_ENTRIES = 100_000
LARGEST_DESCRIPTION = 2**28
"""Bytes of a graph as JSON; that of a network of 1,000 layers has 2 MB."""
_TARGETS = re.compile(r"torch\.ops\.(aten|quantized_decomposed|prims)\.\w+(\.\w+)?|_operator\.getitem")
_RAW = re.compile(r"[^/]+/data/(weights/weight_\d+|constants/tensor_\d+)")
_CONFIG = re.compile(r"[^/]+/data/(weights|constants)/[^/]+_config\.json")
_MODEL = re.compile(r"[^/]+/models/[^/]+\.json")
_KEPT = re.compile(r"[^/]+/(archive_format|archive_version|byteorder|\.data/\w+|\.format_version|version)")
_SAMPLES = re.compile(r"[^/]+/data/sample_inputs/[^/]+\.pt")
_OLDER = re.compile(r"serialized_state_dict\.\w+|[^/]+/data/weights/\w+\.pt")
"""Where torch.export.save pickled the weights: torch 2.4 and 2.8, files looked into; 2.9 was the first that did not."""
_UNTOUCHED = re.compile(r"[^/]+/(extra/.*|\.data/.*)")


def load(path: Path) -> tuple[torch.export.ExportedProgram, tuple[tuple[int, ...], ...]]:
    """The program of a file, and the shapes of its inputs.

    Raises `BridgeError` for a file that is no such archive, is damaged, brings code along, leaves sizes open, or was
    written by a version of torch that this one does not read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _harmless(archive, path.name)
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is no zip archive, or cut short"
        raise _unreadable(path.name, reason) from error
    _know_the_operators()
    log = logging.getLogger("torch.export")
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)  # its tracebacks are said in a sentence
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(content))
    except Exception as error:
        raise _unreadable(path.name, f"torch {torch.__version__}: {_first_line(error)}") from error
    finally:
        log.setLevel(level)
    return program, _input_shapes(program, path.name)


def _know_the_operators() -> None:
    """`quantized_decomposed` is known to torch where one of these has been imported."""
    for module in ("torch.ao.quantization.fx._decomposed", "torchao.quantization.pt2e"):
        if hasattr(torch.ops.quantized_decomposed, "dequantize_per_tensor"):
            return
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _input_shapes(program: torch.export.ExportedProgram, name: str) -> tuple[tuple[int, ...], ...]:
    inputs = set(program.graph_signature.user_inputs)
    shapes = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
                raise BridgeError(
                    where=f"{name}, input '{node.name}'",
                    problem="is no float32 tensor",
                    remedy="Export the model with float32 tensors as its inputs.",
                )
            shapes.append(tuple(map(int, value.shape)))
    return tuple(shapes)


def _harmless(archive: zipfile.ZipFile, name: str) -> bytes:
    """The archive once more, with what torch only reads; raises `BridgeError` for what it would run."""
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _unreadable(name, "it holds too many files, or compressed ones, which torch.export.save does not write")
    size = sum(entry.file_size for entry in entries)
    if any(_OLDER.fullmatch(entry.filename) for entry in entries):
        raise BridgeError(
            where=name,
            problem="was saved by an older torch, which pickled its tensors; the bridge unpickles nothing",
            remedy="Load it in Python with torch.export.load and hand the program to bridge.convert, or save it with the "
            "torch that writes tensors as they are (2.9 and newer).",
        )
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as copy:
        for entry in entries:
            path = entry.filename
            if _RAW.fullmatch(path) or _KEPT.fullmatch(path):
                copy.writestr(path, archive.read(entry))
            elif _CONFIG.fullmatch(path):
                copy.writestr(path, json.dumps(_tensors_only(_parsed(archive, entry, name), size, f"{name}, {path}")))
            elif _MODEL.fullmatch(path):
                copy.writestr(path, json.dumps(_graph_only(_parsed(archive, entry, name), f"{name}, {path}")))
            elif _SAMPLES.fullmatch(path):
                copy.writestr(path, b"")
            elif not _UNTOUCHED.fullmatch(path):
                raise _brings_code(
                    f"{name}, {path}", "is none of the parts that a graph has (a compiled library, a pickle)"
                )
    return written.getvalue()


def _parsed(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> Any:
    if entry.file_size > LARGEST_DESCRIPTION:
        raise _unreadable(name, f"{entry.filename} has {entry.file_size:,} bytes")
    try:
        return json.loads(archive.read(entry))
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, f"{entry.filename} is no JSON") from error


def _tensors_only(config: Any, size: int, where: str) -> Any:
    listed = config.get("config") if isinstance(config, dict) else None
    if not isinstance(listed, dict):
        raise _unreadable(where, "it does not list tensors")
    for tensor, entry in listed.items():
        meta = entry.get("tensor_meta") if isinstance(entry, dict) else None
        if not isinstance(meta, dict) or entry.get("use_pickle"):
            raise _brings_code(f"{where}, tensor '{tensor}'", "is pickled, or no plain tensor")
        elements = 1
        for axis in meta.get("sizes", ()):
            elements *= max(int(axis.get("as_int", 0)), 0) if isinstance(axis, dict) else 0
        if elements > size:
            raise _unreadable(where, f"tensor '{tensor}' has {elements:,} elements, the file {size:,} bytes")
    return config


def _graph_only(model: Any, where: str) -> Any:
    if not isinstance(model, dict):
        raise _unreadable(where, "it is no graph")
    for key, value in _walked(model):
        if key == "expr_str":
            raise BridgeError(
                where=where,
                problem="leaves sizes open (dynamic shapes); integer kernels are planned for fixed ones",
                remedy="Export it without dynamic_shapes.",
            )
        if key == "target" and isinstance(value, str) and not _TARGETS.fullmatch(value):
            raise _brings_code(f"{where}, operator '{value[:80]}'", "is none of PyTorch's own")
    return {**model, "guards_code": []}


def _walked(value: Any) -> Iterator[tuple[str, Any]]:
    waiting = [value]
    while waiting:
        now = waiting.pop()
        if isinstance(now, dict):
            yield from now.items()
            waiting += now.values()
        elif isinstance(now, list):
            waiting += now


def _unreadable(where: str, problem: str) -> BridgeError:
    return BridgeError(
        where=where,
        problem=f"is not a readable .pt2 file ({problem})",
        remedy="Write it with torch.export.save(exported_program, 'model.pt2'), and copy it whole.",
    )


def _brings_code(where: str, problem: str) -> BridgeError:
    return BridgeError(
        where=where,
        problem=f"{problem}; the bridge reads tensors and graphs, and runs nothing that a file brings along",
        remedy="Save the exported program alone: torch.export.save(exported_program, 'model.pt2').",
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
