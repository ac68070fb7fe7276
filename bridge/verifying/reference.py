"""What ONNX Runtime says every tensor of a lowered graph holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bridge.exact.arithmetic import dequantize
from bridge.exact.graph import Graph
from bridge.verifying import onnx_runtime
from bridge.verifying.batches import Arrays, batches, codes, joined


def reference_values(onnx_file: Path, graph: Graph, inputs: Arrays) -> dict[str, np.ndarray]:
    """ONNX Runtime's real values of every tensor of a lowered graph, float32, samples along axis 0, arranged as stored.

    A quantized tensor's values lie on its grid. Raises `BridgeError` as `verify` does.
    """
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches(graph, inputs):
        for name, held in reference_codes(onnx_file, graph, batch).items():
            tensor = graph.tensors[name]
            found.setdefault(name, []).append(held if tensor.qparams is None else dequantize(held, tensor.qparams))
    return {name: joined(parts) for name, parts in found.items()}


def reference_codes(onnx_file: Path, graph: Graph, batch: Arrays) -> dict[str, np.ndarray]:
    """What every tensor of the graph holds according to ONNX Runtime, as stored codes."""
    session, wanted = _session(onnx_file, graph)
    values = dict(zip(wanted, session.run(list(wanted), dict(batch)), strict=True)) if wanted else {}
    values.update(batch)
    found = {}
    for name, tensor in graph.tensors.items():
        if tensor.is_constant or (tensor.origin is None and name not in graph.inputs):
            continue
        source = tensor.origin.name if tensor.origin and tensor.origin.name in values else name
        if source in values and values[source].dtype.kind == "f":
            found[name] = codes(tensor, values[source])
    return found


_sessions: dict[tuple[Path, int, int, tuple[str, ...]], Any] = {}
"""The last session, by file as it was, and by what it yields."""


def _session(onnx_file: Path, graph: Graph) -> tuple[Any, tuple[str, ...]]:
    """ONNX Runtime with every tensor of interest as an output; unoptimized, so that none is fused away."""
    import onnx

    model = onnx.load(onnx_file, load_external_data=False)
    produced = {name for node in model.graph.node for name in node.output}
    wanted = tuple(
        dict.fromkeys(
            tensor.origin.name
            for tensor in graph.tensors.values()
            if tensor.origin is not None and tensor.origin.name in produced
        )
    )
    facts = onnx_file.stat()
    key = (onnx_file.resolve(), facts.st_mtime_ns, facts.st_size, wanted)
    if key not in _sessions:
        session = onnx_runtime.session(onnx_file, extra_outputs=wanted)
        _sessions.clear()
        _sessions[key] = session
    return _sessions[key], wanted
