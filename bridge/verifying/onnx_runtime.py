"""Sessions of ONNX Runtime, made here and nowhere else, so that what it says is what the file says on every processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bridge.errors import BridgeError
from bridge.verifying.missing import missing

Model = Path | bytes | onnx.ModelProto
"""A file (its external data lies beside it), a file's bytes, or a model in memory."""

_FATAL = 4
"""ONNX Runtime's log levels: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal. What it refuses it also raises."""
_OLDEST = (1, 21)
"""Tried with 1.18 to 1.32 (tests/bridge/exact/test_ceil_mode.py): as PyTorch and ONNX count windows from here on."""
_FOLDER = "session.model_external_initializers_file_folder_path"
"""onnxruntime_session_options_config_keys.h: where the external data of a model given as bytes lies."""


def session(model: Model, *, extra_outputs: Sequence[str] = (), threads: int = 1, where: str = "") -> Any:
    """An `InferenceSession` that computes node by node what the file says: all graph optimizations off, on the CPU.

    The default optimizations fuse Q/DQ pairs into int8 kernels. On x86 processors without VNNI those add two products
    in an int16 lane that saturates (M80), so that the optimized session is wrong there, by up to half of the range.

    `extra_outputs`: tensors that become outputs behind the model's own. `where`: the name that errors call the model.

    Raises `BridgeError` where onnxruntime is missing or refuses the model.
    """
    onnxruntime = _package()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = _FATAL
    name = where or (model.name if isinstance(model, Path) else "ONNX model")
    try:
        return onnxruntime.InferenceSession(_source(model, extra_outputs, options), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no public type for what it raises
        raise BridgeError(
            where=name,
            problem=f"ONNX Runtime refuses it: {_first_line(error)}",
            remedy="Nothing is held against it. Check the file with onnx.checker, or compare with the model it came from.",
        ) from error


def outputs(
    session: Any, inputs: Mapping[str, np.ndarray], *, batch: int = 1, where: str = "ONNX Runtime"
) -> list[Any]:
    """Every output of the session on `inputs` (samples along axis 0), run `batch` samples at a time and joined.

    Raises `BridgeError` where ONNX Runtime does not run them.
    """
    count = len(next(iter(inputs.values()))) if inputs else 1
    try:
        parts = [
            session.run(None, {name: array[start : start + batch] for name, array in inputs.items()})
            for start in range(0, count, batch)
        ]
    except Exception as error:  # onnxruntime has no public type for what it raises
        raise BridgeError(
            where=where,
            problem=_first_line(error),
            remedy="Pass the samples as the model takes them, laid out as in the ONNX file, along axis 0.",
        ) from error
    return [np.concatenate([np.atleast_1d(each) for each in same]) for same in zip(*parts, strict=True)]


def as_users_make_it(model: Model, *, optimized: Path | None = None) -> Any:
    """A session with ONNX Runtime's default optimizations, for what shows only there; its own exceptions get out.

    It is no truth: use `session`. `optimized`: the file that gets the graph as the optimizer of the second of three
    levels leaves it; the third one depends on the processor.
    """
    onnxruntime = _package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(_source(model, (), options), options, ["CPUExecutionProvider"])


@cache
def saturates() -> bool:
    """Whether the default optimizations saturate on this processor (M80): asked with 2 · 255 · 127, beyond int16.

    Raises `BridgeError` where onnxruntime is missing.
    """
    numbers = {"one": np.float32(1), "step": np.float32(10_000), "zero": np.uint8(0), "signed_zero": np.int8(0)}
    weight = onnx.numpy_helper.from_array(np.full((64, 8), 127, np.int8), "weight")
    steps = (
        ("QuantizeLinear", "x one zero", "q"),
        ("DequantizeLinear", "q one zero", "a"),
        ("DequantizeLinear", "weight one signed_zero", "b"),
        ("MatMul", "a b", "sum"),
        ("QuantizeLinear", "sum step zero", "r"),
        ("DequantizeLinear", "r step zero", "y"),
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, inputs.split(), [output]) for op, inputs, output in steps],
        "question",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8])],
        [weight, *(onnx.numpy_helper.from_array(np.array(value), name) for name, value in numbers.items())],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    bright = {"x": np.full((1, 64), 255, np.float32)}
    (plain,), (optimized,) = (made.run(None, bright) for made in (session(model), as_users_make_it(model)))
    return not np.array_equal(plain, optimized)


def _source(model: Model, extra_outputs: Sequence[str], options: Any) -> str | bytes:
    """What ONNX Runtime opens: the file itself, or bytes that it finds the external data of."""
    if isinstance(model, Path) and not extra_outputs:
        return str(model)
    if isinstance(model, bytes) and not extra_outputs:
        return model
    if isinstance(model, Path):
        options.add_session_config_entry(_FOLDER, str(model.resolve().parent))
        read = onnx.load(model, load_external_data=False)
    else:
        read = onnx.ModelProto()
        if isinstance(model, bytes):
            read.ParseFromString(model)
        else:
            read.CopyFrom(model)
    present = {output.name for output in read.graph.output}
    read.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra_outputs if name not in present)
    content: bytes = read.SerializeToString()
    return content


def _package() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing("onnxruntime", "verify") from error
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < _OLDEST:
        raise BridgeError(
            where="verification",
            problem=f"needs ONNX Runtime {'.'.join(map(str, _OLDEST))} or newer, and this is {onnxruntime.__version__}: "
            "older ones give pools in ceil_mode windows that start in the padding",
            remedy="Install it with: pip install -U onnxruntime",
        )
    return onnxruntime


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
