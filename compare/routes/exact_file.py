"""The exact bridge's file of a team's own model: for commands that look at one .tflite."""

from __future__ import annotations

import tempfile
from pathlib import Path

from compare.running.workers import Lane
from compare.subjects.code import is_code
from compare.subjects.options import own_model


def exact_file(model: str, inputs: Path | None) -> bytes:
    """The .tflite of an ONNX file, or of what MODULE:FACTORY makes, whose samples show its shapes.

    Raises `BridgeError` as the bridge does, and where a factory comes without samples.
    """
    lane = Lane("exact")
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(model)
            if is_code(model):
                subject = own_model(model, inputs)(Path(folder))
                source = subject.given.file
            content: bytes = lane.submit("", _converted, source).result().get()
            lane.finish()  # what PyTorch's exporters hold in the system goes with their process
            return content
    finally:
        lane.close()


def _converted(source: Path) -> bytes:
    if source.suffix == ".pt2":
        from bridge.from_torch import convert_pt2

        return convert_pt2(source).tflite
    from bridge.exact.convert import convert

    return convert(source).tflite
