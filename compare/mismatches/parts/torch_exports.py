"""torch.onnx.export as a team calls it, and what it says when it refuses."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from compare.mismatches.parts.small_torch import EXAMPLE

_COLOUR = re.compile(r"\x1b\[\d+m")


def refused_export(model: Any, **options: Any) -> str:
    """What torch.onnx.export says of a model; empty when it exports. What it prints beside its error is held back."""
    import torch

    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                torch.onnx.export(
                    model, (torch.from_numpy(EXAMPLE),), str(Path(folder) / "model.onnx"), verbose=False, **options
                )
        except Exception as error:  # noqa: BLE001 - whatever the exporter raises is the finding
            return _COLOUR.sub("", f"{type(error).__name__}: {error}\n")
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    return ""


def line_with(log: str, text: str, width: int = 160) -> str:
    """The part of the log's line that begins with `text`, shortened."""
    start = log.index(text)
    return log[start:].splitlines()[0][:width].strip()
