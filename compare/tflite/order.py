"""Which of a model's inputs and outputs those of a .tflite are: TensorFlow's converter renames them and lists them otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERED = re.compile(r"(?:Stateful)?PartitionedCall(?:_\d+)?:(\d+)")
"""Outputs of a function are numbered in its order, and listed in another."""


def paired(model: Sequence[str], file: Sequence[str]) -> list[str]:
    """For each name of the file the model's: by name, kept or as TensorFlow's converter makes it, by number, else by place.

    As long as the shorter of the two where only places tell.
    """
    if sorted(model) == sorted(file):
        return list(file)
    plain = {_plain(name): name for name in model}
    if len(plain) == len(model) and sorted(plain) == sorted(_plain(name) for name in file):
        return [plain[_plain(name)] for name in file]
    numbers = [int(match[1]) for name in file if (match := _NUMBERED.fullmatch(name)) is not None]
    if sorted(numbers) == list(range(len(model))) and len(file) == len(model):
        return [model[number] for number in numbers]
    return list(model)[: len(file)]


def _plain(name: str) -> str:
    """Without what is put around it (`serving_default_NAME:0`), and with what is changed in it changed."""
    inner = re.sub(r":\d+$", "", name.removeprefix("serving_default_"))
    return re.sub(r"[^A-Za-z0-9]", "_", inner)
