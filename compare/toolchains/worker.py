"""What runs inside a toolchain: this one file, with nothing of ours beside it and whatever packages are pinned there.

    python -I worker.py REQUEST.json

The request is `{"jobs": [{"name": ..., "do": ..., "with": {...}}, ...], "more": [...]}`. Jobs are done in order, in the
working folder; `more` names modules beside this file whose `JOBS` it does, too.
Job N leaves `N.started` when its turn comes, `N.log` with all that was printed on the descriptors meanwhile, and, written
beside and renamed, `N.json` with `{"error": null or {"type", "line", "trace"}, "seconds", "versions", "facts"}`. A crash
leaves a job without an answer, and whoever started the worker does the rest in another.

Every job does what a user of those packages would write from their documentation: no repairs, no detours. Each imports
what it needs itself, so that a broken package is one job's error.
"""

import contextlib
import ctypes
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

JOBS: dict[str, Callable[..., dict[str, Any]]] = {}


def job(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Make `function` known under its own name, with dashes."""
    JOBS[function.__name__.replace("_", "-")] = function
    return function


@job
def nothing() -> dict[str, Any]:
    """Answer with the versions only."""
    return {}


@job
def onnx2tf(onnx: str, calibration: str, output: str, mode: str) -> dict[str, Any]:
    """An ONNX file through onnx2tf: `mode` is `int8` (integer in and out) or `float`.

    `calibration` is an .npz of float32 arrays by input name, laid out as TensorFlow wants them (N, H, W, C).
    """
    import shutil

    import numpy as np
    import onnx2tf as package

    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    shutil.copyfile(onnx, "model.onnx")  # it rewrites its input
    # It downloads this file for inputs with three channels, even when calibration data is given.
    np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
    entries = []
    with np.load(calibration) as arrays:
        for index, name in enumerate(arrays.files):
            kept = Path(f"calibration-{index}.npy").resolve()
            np.save(kept, arrays[name])
            ones = [1] * (arrays[name].ndim - 1)
            entries.append(
                [
                    name,
                    str(kept),
                    np.zeros([1, *ones]).tolist(),
                    np.ones([1, *ones]).tolist(),
                ]
            )
    options = {"custom_input_op_name_np_data_path": entries, "non_verbose": True, "verbosity": "warn"}
    if mode == "int8":
        options["output_integer_quantized_tflite"] = True
    known = inspect.signature(package.convert).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in known.values())
    package.convert(
        input_onnx_file_path="model.onnx",
        output_folder_path="out",
        **{name: value for name, value in options.items() if name in known or takes_all},
    )
    ending = "_full_integer_quant.tflite" if mode == "int8" else "_float32.tflite"
    written = sorted(Path("out").iterdir())
    made = [path for path in written if path.name.endswith(ending)]
    if not made:
        names = ", ".join(path.name for path in written)
        raise RuntimeError(f"onnx2tf finished without writing a file *{ending} (it wrote: {names})")
    made[0].replace(output)
    return {}


@job
def keras(weights: str, quantized: bool, legacy: bool, mode: str, calibration: str, output: str) -> dict[str, Any]:
    """The article's network in tf.keras, through TensorFlow's converter.

    `weights` is an .npz: for a float network the four arrays, for a `quantized` one every variable by name. `legacy` asks
    for Keras 2 by TF_USE_LEGACY_KERAS. `mode` is `default`, `integer-only` (with `calibration`, an .npz) or `dynamic-range`.
    """
    if legacy:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import numpy as np
    import tensorflow as tf

    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((28, 28)),
            layers.Reshape((28, 28, 1), name="reshape"),
            layers.Conv2D(12, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, name="dense"),
        ]
    )
    with np.load(weights) as stored:
        arrays = {name: stored[name] for name in stored.files}
    if quantized:
        import tensorflow_model_optimization as tfmot

        model = tfmot.quantization.keras.quantize_model(model)
        variables = {
            re.sub(r"quantize_layer_\d+", "quantize_layer", each.name.split(":")[0]): each for each in model.weights
        }
        if set(variables) != set(arrays):
            raise RuntimeError(f"TF-MOT calls the variables {sorted(variables)}, not {sorted(arrays)}")
        for name, value in arrays.items():
            variables[name].assign(value)
    else:
        model.set_weights([arrays[name] for name in ("conv/kernel", "conv/bias", "dense/kernel", "dense/bias")])
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, 28, 28), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "integer-only":
        with np.load(calibration) as stored:
            images = stored["input"]
        converter.representative_dataset = lambda: ([images[i : i + 1]] for i in range(len(images)))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    _write(output, converter.convert())
    return {}


@job
def litert_torch(weights: str, calibration: str, output: str, mode: str) -> dict[str, Any]:
    """The article's network in PyTorch, quantized by PT2E with litert-torch's own quantizer, through litert-torch.

    `mode` is `ptq`, or `qat`: fake-quants are put in and see the calibration data, no training follows.
    """
    import litert_torch as package
    import numpy as np
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 12, 3)
            self.dense = torch.nn.Linear(12 * 13 * 13, 10)

        def forward(self, x: Any) -> Any:
            x = torch.nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
            return self.dense(torch.flatten(x, 1))

    with np.load(weights) as stored:
        state = {name: torch.from_numpy(stored[name].copy()) for name in stored.files}
    with np.load(calibration) as stored:
        images = torch.from_numpy(stored["input"])
    model = Network().eval()
    model.load_state_dict(state)
    example = (images[:1],)
    from litert_torch.quantize import pt2e_quantizer, quant_config
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e

    quantizer = pt2e_quantizer.PT2EQuantizer().set_global(
        pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_qat=mode == "qat")
    )
    prepare = prepare_qat_pt2e if mode == "qat" else prepare_pt2e
    prepared = prepare(torch.export.export(model, example).module(), quantizer)
    for i in range(len(images)):
        prepared(images[i : i + 1])
    move_exported_model_to_eval(prepared)
    converted = convert_pt2e(prepared, fold_quantize=False)
    package.convert(converted, example, quant_config=quant_config.QuantConfig(pt2e_quantizer=quantizer)).export(output)
    return {}


@job
def litert_torch_program(program: str, output: str) -> dict[str, Any]:
    """A quantized program of torch.export (.pt2, our own) through litert-torch."""
    import litert_torch as package
    import torch
    import torch.ao.quantization.fx._decomposed  # it knows the quantized operators from here on

    exported = torch.export.load(program)
    example = tuple(torch.zeros(each.shape) for each in exported.example_inputs[0])
    package.convert(exported.module(), example).export(output)
    return {}


@job
def ort_quantize(onnx: str, calibration: str, output: str) -> dict[str, Any]:
    """A float ONNX file to int8 QDQ by ONNX Runtime's static quantizer, weights per channel.

    `calibration` is an .npz of float32 arrays by input name, samples along axis 0.
    """
    import numpy as np
    import onnx as package
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    taken = [value.type.tensor_type.shape.dim for value in package.load(onnx, load_external_data=False).graph.input]
    batch = max([1, *(dims[0].dim_value for dims in taken if dims)])

    class Reader(CalibrationDataReader):  # type: ignore[misc] # published without types
        def __init__(self, arrays: dict[str, Any]) -> None:
            count = len(next(iter(arrays.values())))
            starts = range(0, count - count % batch, batch)
            self.samples = iter([{name: array[i : i + batch] for name, array in arrays.items()} for i in starts])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.samples, None)

    with np.load(calibration) as stored:
        reader = Reader({name: stored[name] for name in stored.files})
    quantize_static(
        onnx,
        output,
        reader,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return {}


@job
def exact(onnx: str, output: str) -> dict[str, Any]:
    """An ONNX file straight to .tflite by this project's own bridge, where that is installed."""
    from bridge.exact.convert import convert

    _write(output, convert(Path(onnx)).tflite)
    return {}


@job
def fake_quant(onnx: str, output: str) -> dict[str, Any]:
    """A QDQ file rebuilt with TensorFlow's fake-quant operators, where this project is installed: the control."""
    from bridge import via_fake_quant

    conversion = via_fake_quant.convert(Path(onnx))
    for note in conversion.notes:
        print(f"note: {note}")  # noqa: T201 - captured as the log
    _write(output, conversion.tflite)
    return {}


@job
def exact_program(weights: str, calibration: str, output: str) -> dict[str, Any]:  # noqa: ARG001 - every program's form
    """A file of torch.export.save straight to .tflite by this project's own bridge."""
    from bridge.from_torch import convert_pt2

    _write(output, convert_pt2(weights).tflite)
    return {}


@job
def run(module: str, tflite: str, inputs: str, output: str) -> dict[str, Any]:
    """Load a .tflite and run it on one thread, as many samples at a time as its first input takes.

    `inputs` is an .npz of arrays `0`, `1`, ... in the order of the file's inputs, samples along axis 0, in real units and
    in the file's own layout. `output` becomes an .npz of float32 arrays `0`, ... in real units, in the model's own order: files
    of TensorFlow's converter list their outputs in another one.
    """

    import numpy as np

    if module == "tensorflow":
        import tensorflow as tf

        interpreter_class = tf.lite.Interpreter
    else:
        interpreter_class = importlib.import_module(module + ".interpreter").Interpreter
    interpreter = interpreter_class(model_path=tflite, num_threads=1)
    interpreter.allocate_tensors()
    with np.load(inputs) as stored:
        sources = [
            _codes(np, stored[str(index)], details) for index, details in enumerate(interpreter.get_input_details())
        ]
    results: list[list[Any]] = [[] for _ in interpreter.get_output_details()]
    first = interpreter.get_input_details()[0]["shape"]
    batch = max(1, int(np.prod(first)) // max(1, int(np.prod(sources[0].shape[1:]))))
    for start in range(0, len(sources[0]), batch):
        for details, values in zip(interpreter.get_input_details(), sources, strict=True):
            interpreter.set_tensor(details["index"], values[start : start + batch].reshape(details["shape"]))
        interpreter.invoke()
        for details, kept in zip(interpreter.get_output_details(), results, strict=True):
            kept.extend(interpreter.get_tensor(details["index"])[:batch])
    real = [
        _real(np, np.stack(kept), details)
        for kept, details in zip(results, interpreter.get_output_details(), strict=True)
    ]
    order = _model_order([details["name"] for details in interpreter.get_output_details()])
    beside = Path(output + ".part.npz")
    np.savez(beside, **{str(index): real[place] for index, place in enumerate(order)})
    beside.replace(output)
    return {}


def _model_order(names: list[str]) -> list[int]:
    """The places of a file's outputs in the order of the model's, which TensorFlow's converter numbers in their names."""
    numbered = [re.fullmatch(r"(?:Stateful)?PartitionedCall(?:_\d+)?:(\d+)", name) for name in names]
    numbers = [int(match[1]) for match in numbered if match is not None]
    if sorted(numbers) != list(range(len(names))):
        return list(range(len(names)))
    return sorted(range(len(names)), key=numbers.__getitem__)


def _codes(np: Any, values: Any, details: dict[str, Any]) -> Any:
    """Real values as the input wants them; halves go to the even code, as PyTorch's fake-quant rounds."""
    kind = np.dtype(details["dtype"])
    if kind.kind == "f":
        return values.astype(kind)
    scale, zero_point = details["quantization"]
    if not scale:
        return values.astype(kind)
    limits = np.iinfo(kind)
    codes = np.rint(values.astype(np.float32) * (np.float32(1) / np.float32(scale))) + zero_point
    return np.clip(codes, limits.min, limits.max).astype(kind)


def _real(np: Any, values: Any, details: dict[str, Any]) -> Any:
    scale, zero_point = details["quantization"]
    if values.dtype.kind == "f" or not scale:
        return values.astype(np.float32)
    return (values.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)


def _write(path: str, content: bytes) -> None:
    beside = Path(path + ".part")
    beside.write_bytes(content)
    beside.replace(path)


def _versions() -> dict[str, str]:
    """Versions by name in lower case; the interpreter's own as `python`."""
    found = {"python": platform.python_version()}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found[name.lower()] = distribution.version
    return found


@contextlib.contextmanager
def _printing_to(path: str) -> Iterator[None]:
    """Both descriptors go to this file, what native code prints included."""
    kept = os.dup(1), os.dup(2)
    with Path(path).open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def _said(error: BaseException) -> dict[str, str]:
    """The error that came first: what a package raises, or exits with, while it handles one is about that one."""
    whole = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    while (before := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = before
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return {
        "type": type(error).__name__,
        "line": lines[0] if lines else type(error).__name__,
        "trace": whole,
    }


def _do(task: dict[str, Any]) -> None:
    started, error, facts = time.perf_counter(), None, dict[str, Any]()
    Path(task["name"] + ".started").touch()
    with _printing_to(task["name"] + ".log"):
        try:
            facts = JOBS[task["do"]](**task["with"])
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # noqa: BLE001 - SystemExit too: a package that gives up is a result
            error = _said(problem)
            sys.stderr.write(error["trace"])
    answer = {"error": error, "facts": facts, "seconds": time.perf_counter() - started, "versions": _versions()}
    _write(task["name"] + ".json", json.dumps(answer).encode())


def _end_with_starter() -> None:
    """Linux: the kernel ends this process when the one that started it dies, killed or not (prctl, PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        starter = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != starter:
            sys.exit(1)


def main() -> None:
    _end_with_starter()
    request = json.loads(Path(sys.argv[1]).read_text())
    sys.path.append(str(Path(__file__).parent))  # -I leaves it out
    for module in request.get("more", ()):
        JOBS.update(importlib.import_module(module).JOBS)
    for task in request["jobs"]:
        _do(task)


if __name__ == "__main__":
    main()
