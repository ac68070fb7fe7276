"""Speed, growth and memory of the exact bridge, as ratios measured in one run.

    python -m benchmarks.bridge              everything; about five minutes
    python -m benchmarks.bridge --quick      without resnet50 and without the other routes' models

Prints a Markdown table. The floor of a conversion is reading the ONNX file and writing as many bytes as it has.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper

from bridge.exact.convert import convert, save
from bridge.verifying import litert

REPEATS = 7


def median_seconds(action: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of some runs after one that warms up."""
    action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def least_seconds(action: Callable[[], object], repeats: int) -> float:
    """The quickest of some runs: what is left when nobody else wants the machine."""
    return min(median_seconds(action, 1) for _ in range(repeats))


def floor_seconds(model: Path, folder: Path) -> float:
    """Reading the file into a model, and writing its bytes out again."""

    def read_and_write() -> None:
        onnx.load(model)
        (folder / "floor.bin").write_bytes(model.read_bytes())

    return median_seconds(read_and_write)


def chain(layers: int) -> onnx.ModelProto:
    """`layers` quantized 3x3 convolutions with ReLU, 8 channels on 8x8, one after the other."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants = [
        numpy_helper.from_array(np.array(0.05, np.float32), "s"),
        numpy_helper.from_array(np.array(0, np.uint8), "z"),
        numpy_helper.from_array(np.array(0.01, np.float32), "ws"),
        numpy_helper.from_array(np.array(0, np.int8), "wz"),
    ]
    name = "x"
    for i in range(layers):
        codes = random.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8)
        constants.append(numpy_helper.from_array(codes, f"w{i}"))
        nodes += [
            helper.make_node("QuantizeLinear", [name, "s", "z"], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", "s", "z"], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "ws", "wz"], [f"f{i}"]),
            helper.make_node("Conv", [f"d{i}", f"f{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        name = f"r{i}"
    nodes += [
        helper.make_node("QuantizeLinear", [name, "s", "z"], ["last"]),
        helper.make_node("DequantizeLinear", ["last", "s", "z"], ["y"]),
    ]
    shape = [1, 8, 8, 8]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def mnist(folder: Path) -> Path:
    """The MNIST network, QAT-prepared with noise, as QDQ ONNX: arithmetic and size are those of a trained one."""
    import torch

    from torch_side import bias_grid, export, network, training

    torch.manual_seed(0)
    model = training.prepare_for_qat(network.build_network(0), "qnnpack")
    model(torch.rand(32, 1, 28, 28))
    frozen = export.freeze(model.eval())
    example = np.zeros((1, 1, 28, 28), np.float32)
    bias_grid.round_frozen(frozen, (example,))
    export.export_onnx(frozen, example, folder / "mnist.onnx")
    return folder / "mnist.onnx"


def architecture(name: str, folder: Path) -> Path:
    """A torchvision network as QDQ ONNX at 224x224, as a team would export it."""
    from torch_side import architectures, export

    model = architectures.build_trained_looking(name, "qnnpack", size=96)
    export.export_onnx(export.freeze(model), np.zeros((1, 3, 224, 224), np.float32), folder / f"{name}.onnx")
    return folder / f"{name}.onnx"


def cold_seconds(model: Path, folder: Path) -> float:
    """`python -m bridge` as a process."""
    command = [sys.executable, "-m", "bridge", str(model), "-o", str(folder / "cold.tflite")]
    return median_seconds(lambda: subprocess.run(command, check=True, capture_output=True), 5)  # noqa: S603 - our own


def peak_megabytes(model: Path, folder: Path) -> float:
    """Largest resident memory of `python -m bridge`, interpreter and packages included.

    A small process starts it and asks: a child of this one would count the memory that it was forked from.
    """
    command = [sys.executable, "-m", "bridge", str(model), "-o", str(folder / "peak.tflite")]
    ask = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    asked = subprocess.run([sys.executable, "-c", ask, *command], check=True, capture_output=True, text=True)  # noqa: S603 - our own
    return int(asked.stdout) / 1024


_PEAK_FROM_PYTORCH = """
import ctypes, gc, re, sys, warnings
from pathlib import Path
import numpy as np, torch
import bridge
from torch_side import architectures
import bridge.exact.writer, bridge.from_torch.reading

warnings.simplefilter("ignore")
megabytes = lambda what: int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
model = architectures.build_trained_looking(sys.argv[1], "tflite", size=96)
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)
before = megabytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again here (proc(5))
bridge.convert(model, np.zeros((1, 3, 224, 224), np.float32), sys.argv[2])
print(sum(each.nbytes for each in model.parameters()) / 2**20, megabytes("VmHWM") - before)
"""


def pytorch_memory_line(name: str, folder: Path) -> None:
    """What `bridge.convert` takes at its peak beside torch and the prepared model, which stay as they are; Linux only."""
    command = [sys.executable, "-c", _PEAK_FROM_PYTORCH, name, str(folder / "peak.tflite")]
    asked = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own
    size, used = map(float, asked.stdout.split())
    line(
        f"{name}: bridge.convert of the PyTorch model, peak memory beside torch and the model",
        f"{used:.0f} MB, {used / size:.1f} x its float weights",
        f"3 x {size:.0f} MB",
    )


def latencies(models: dict[str, bytes], rounds: int = 15, runs: int = 200) -> dict[str, float]:
    """Milliseconds of one invoke on XNNPACK, one thread: the quickest of many turns, which the models take in rotation."""
    ready = {name: litert.interpreter(content) for name, content in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, interpreter in ready.items():
            started = time.perf_counter()
            for _ in range(runs):
                interpreter.invoke()
            seconds[name].append((time.perf_counter() - started) / runs)
    return {name: min(each) * 1e3 for name, each in seconds.items()}


def line(what: str, figure: str, aim: str) -> None:
    print(f"| {what} | {figure} | {aim} |", flush=True)


def conversion_line(model: Path, folder: Path, aim: str) -> None:
    """Convert and save in this process, against the floor."""
    seconds = median_seconds(lambda: save(convert(model).tflite, folder / "out.tflite"))
    floor = floor_seconds(model, folder)
    size = model.stat().st_size / 2**20
    line(
        f"{model.stem}: ONNX ({size:.1f} MB) to .tflite, in process",
        f"{seconds * 1e3:,.1f} ms, {seconds / floor:.1f} x the floor of {floor * 1e3:,.1f} ms",
        aim,
    )


def growth_lines(folder: Path) -> None:
    seconds = {}
    for layers in (100, 300, 1000):
        path = folder / f"chain{layers}.onnx"
        onnx.save(chain(layers), path)
        seconds[layers] = least_seconds(lambda path=path: convert(path), 5)  # type: ignore[misc]
    shown = ", ".join(f"{layers}: {each * 1e3:,.0f} ms" for layers, each in seconds.items())
    line("chain of convolutions", f"{shown}; x10 layers is x{seconds[1000] / seconds[100]:.1f} time", "x12 at most")


def memory_line(model: Path, folder: Path) -> None:
    used, size = peak_megabytes(model, folder), model.stat().st_size / 2**20
    line(
        f"{model.stem}: peak memory of the process",
        f"{used:.0f} MB",
        f"3 x {size:.0f} MB + 100 MB = {3 * size + 100:.0f} MB",
    )


def pytorch_line(name: str, aim: str, folder: Path) -> None:
    """`bridge.convert` of an eager QAT model at 224x224, beside the way through torch's ONNX exporter."""
    import warnings

    import torch

    import bridge
    from bridge.from_torch import by_onnx, ready
    from torch_side import architectures, network, training

    if name == "mnist":
        model = training.prepare_for_qat(network.build_network(0), "tflite")
        model(torch.rand(32, 1, 28, 28))
        model, example = model.eval(), np.zeros((1, 1, 28, 28), np.float32)
    else:
        model = architectures.build_trained_looking(name, "tflite", size=96)
        example = np.zeros((1, 3, 224, 224), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = median_seconds(lambda: bridge.convert(model, example, folder / "out.tflite"), 5)
        control = median_seconds(lambda: by_onnx(ready(model), (example,)), 2)
    line(f"{name}: bridge.convert of the PyTorch model", f"{ours * 1e3:,.0f} ms, by ONNX {control * 1e3:,.0f} ms", aim)


def other_route_lines(model: Path, folder: Path) -> None:
    """The same network by the other routes: how long they take, and how fast their files run."""
    from bridge import via_fake_quant, via_onnx2tf

    calibration = np.random.default_rng(0).random((100, 28, 28, 1), np.float32)
    models = {"exact": convert(model).tflite}
    for name, make in (
        ("onnx2tf", lambda: via_onnx2tf.convert(model, "input", calibration, folder)),
        ("fake-quant", lambda: via_fake_quant.convert(model).tflite),
    ):
        make()  # imports
        started = time.perf_counter()
        models[name] = make()
        seconds = time.perf_counter() - started
        line(f"mnist by {name}, in process, frameworks imported", f"{seconds:.1f} s", "")
    found = latencies(models)
    for name in ("onnx2tf", "fake-quant"):
        ratio = found["exact"] / found[name]
        line(
            f"mnist on XNNPACK: exact against {name}",
            f"{found['exact'] * 1e3:.1f} us against {found[name] * 1e3:.1f} us, x{ratio:.2f}",
            "x1.0 at most",
        )


def main(quick: Annotated[bool, typer.Option("--quick", help="The short part only.")] = False) -> None:
    """Print the table."""
    print("| what | measured | aim |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        growth_lines(folder)  # before torch is imported: its objects make every round of the garbage collector longer
        small = mnist(folder)
        conversion_line(small, folder, "under 10 ms")
        line("python -m bridge, cold start, mnist", f"{cold_seconds(small, folder):.2f} s", "1.5 s at most")
        medium = architecture("mobilenet_v2", folder)
        conversion_line(medium, folder, "under 250 ms")
        memory_line(medium, folder)
        for name, aim in (
            ("mnist", "40 ms"),
            ("mobilenet_v2", "900 ms"),
            *(() if quick else (("resnet50", "900 ms"),)),
        ):
            alone = multiprocessing.get_context("spawn").Process(
                target=pytorch_line, args=(name, f"{aim} at most", folder)
            )
            alone.start()  # as a user's program, which has nothing of the lines before
            alone.join()
        if not quick:
            pytorch_memory_line("resnet50", folder)
            large = architecture("resnet50", folder)
            conversion_line(large, folder, "under 600 ms")
            memory_line(large, folder)
            other_route_lines(small, folder)


if __name__ == "__main__":
    typer.run(main)
