"""What is measured of one .tflite: its outputs, its speed, its distance from the network it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge.verifying import litert
from compare.tflite.file import TensorInfo, TfliteFile


@dataclass(frozen=True, eq=False)
class Distance:
    """How far a model's logits are from its reference's."""

    disagreements: int
    max_difference: float
    lsb: float
    max_lsb: float
    equal: float


def outputs(content: bytes, images: np.ndarray) -> np.ndarray:
    """Logits of uint8 images (N, 28, 28). For a worker process: a runtime may crash on a file it dislikes."""
    return run(interpreter(content), images)


def interpreter(content: bytes) -> Any:
    """LiteRT's interpreter with its default delegate (XNNPACK) on one thread, ready to run.

    Raises `BridgeError` with LiteRT's own first line when it refuses the file.
    """
    return litert.interpreter(content)


def quantize_input(
    pixels: np.ndarray, scale: float, zero_point: int, dtype: type[np.signedinteger | np.unsignedinteger]
) -> np.ndarray:
    """float32 pixels to integer codes exactly as PyTorch's fake-quant does: multiply by 1/scale, round half to even.

    Source: torch aten/native/quantized/cpu/kernels/QuantizedOpKernels.cpp, `fake_quantize` (inv_scale, nearbyint).
    """
    limits: np.iinfo = np.iinfo(dtype)
    codes = np.rint(pixels * (np.float32(1) / np.float32(scale))) + zero_point
    clipped: np.ndarray = np.clip(codes, limits.min, limits.max).astype(dtype)
    return clipped


def run(ready: Any, images: np.ndarray) -> np.ndarray:
    """float32 logits (N, 10) of uint8 images (N, 28, 28), one image at a time, as a device runs them."""
    source, result = ready.get_input_details()[0], ready.get_output_details()[0]
    inputs = _inputs(source, images)
    take = ready.tensor(result["index"])
    logits = np.empty((len(images), int(np.prod(result["shape"]))), result["dtype"])
    for row, image in enumerate(inputs):
        ready.set_tensor(source["index"], image)
        ready.invoke()
        logits[row] = take().reshape(-1)
    scale, zero_point = result["quantization"]
    if logits.dtype == np.float32:
        return logits
    real: np.ndarray = (logits.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)
    return real


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images, 0..1, whose largest logit is the label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def distance(logits: np.ndarray, reference: np.ndarray, lsb: float) -> Distance:
    """Compare logits (N, 10) with the reference's; `lsb` is the size of one output step in real units."""
    difference = np.abs(logits - reference)
    return Distance(
        disagreements=int((logits.argmax(axis=1) != reference.argmax(axis=1)).sum()),
        max_difference=float(difference.max()),
        lsb=lsb,
        max_lsb=float(difference.max() / lsb),
        equal=float((difference < lsb / 2).mean()),
    )


def activations(file: TfliteFile) -> dict[str, TensorInfo]:
    """The tensors whose scales training decides, by role: `input`, `conv`, `dense`; a role in float is left out.

    `input` is what the convolution reads and `conv` what it writes, `dense` is what the dense layer writes: the last
    FULLY_CONNECTED, or a second CONV_2D (TensorFlow's converter takes no per-channel dense layer, M29).
    """
    found: dict[str, TensorInfo] = {}
    for operator in file.operators:
        written = file.tensors[operator.outputs[0]]
        if operator.name == "CONV_2D":
            found.setdefault("input", file.tensors[operator.inputs[0]])
            found["dense" if "conv" in found else "conv"] = written
        if operator.name == "FULLY_CONNECTED":
            found["dense"] = written
    return {role: tensor for role, tensor in found.items() if len(tensor.scale) == 1 and not tensor.floating}


def keeps(tensor: TensorInfo | None, trained: tuple[float, int], *, seven_bit: bool = False) -> bool:
    """Whether a tensor carries the trained scale (to one unit in the last place) and zero point (as int8).

    Codes 0..127 (`seven_bit`) fit int8 as they are, and 128 lower.
    """
    if tensor is None:
        return False
    zero_point = tensor.zero_point[0] - (128 if tensor.dtype == "uint8" else 0)
    allowed = {trained[1], trained[1] - 128} if seven_bit else {trained[1]}
    found, scale = np.float32(tensor.scale[0]), np.float32(trained[0])
    return bool(abs(found - scale) <= np.spacing(scale)) and zero_point in allowed


def _inputs(source: Any, images: np.ndarray) -> np.ndarray:
    pixels = images.astype(np.float32) / np.float32(255)
    if source["dtype"] != np.float32:
        scale, zero_point = source["quantization"]
        pixels = quantize_input(pixels, scale, zero_point, source["dtype"])
    return pixels.reshape(len(images), *source["shape"])
