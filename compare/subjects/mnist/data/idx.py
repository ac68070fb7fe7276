"""Reads one IDX file of images or labels, and refuses everything that is not exactly one.

The format: four big-endian bytes of magic number (0, 0, element type, number of dimensions), one big-endian uint32
per dimension, then the elements, row-major (MNIST database, "File formats"). MNIST's elements are unsigned bytes (8).
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from bridge.errors import BridgeError


@dataclass(frozen=True)
class Kind:
    """What one sort of IDX file must contain: its magic number and the shape of one element."""

    noun: str
    magic: int
    element_shape: tuple[int, ...]


IMAGES = Kind("image", 0x0803, (28, 28))
LABELS = Kind("label", 0x0801, ())
_KINDS = (IMAGES, LABELS)

# MNIST has 70,000 images and its largest relative (EMNIST by class) 814,255. Beyond this a header is damaged.
MOST_ELEMENTS = 1_000_000
_CHUNK = 1 << 20
_GZIP_START = b"\x1f\x8b"  # RFC 1952, section 2.3.1


def read_images(path: Path) -> np.ndarray:
    """The images of an IDX file, gzipped when its name ends in `.gz`: uint8 (N, 28, 28), N >= 1, writable.

    Raises `BridgeError` with the file's name and what is wrong with it.
    """
    return _read(path, IMAGES)


def read_labels(path: Path) -> np.ndarray:
    """The labels of an IDX file, gzipped when its name ends in `.gz`: uint8 (N,), N >= 1, all in 0..9, writable.

    Raises `BridgeError` with the file's name and what is wrong with it.
    """
    labels = _read(path, LABELS)
    if labels.max() > 9:
        first = int(np.argmax(labels > 9))
        _refuse(path, f"label {labels[first]} at position {first:,} is outside 0..9")
    return labels


def _read(path: Path, kind: Kind) -> np.ndarray:
    try:
        with _open(path) as stream:
            shape = _read_header(path, stream, kind)
            content = _read_exactly(path, stream, math.prod(shape))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        _refuse(path, f"is not a whole gzip file ({error})")
    except OSError as error:
        raise BridgeError(
            where=str(path),
            problem=f"cannot be read ({error.strerror or error})",
            remedy="Check the file's permissions and the disk.",
        ) from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def _open(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return gzip.open(path)  # type: ignore[return-value]  # a GzipFile reads as a BinaryIO does
    return path.open("rb")


def _read_header(path: Path, stream: BinaryIO, kind: Kind) -> tuple[int, ...]:
    """The shape that the header announces, once it is one that this kind of file may have."""
    start = stream.read(4)
    if len(start) < 4:
        _refuse(path, f"ends after {len(start)} bytes, inside the magic number")
    magic = int.from_bytes(start, "big")
    if magic != kind.magic:
        _refuse(path, f"magic number is {magic}, expected {kind.magic} for {kind.noun}s{_guess(start, magic)}")
    dimensions = 1 + len(kind.element_shape)
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        _refuse(path, f"ends after {4 + len(sizes)} bytes, inside the header of {4 + 4 * dimensions}")
    count, *element = (int.from_bytes(sizes[at : at + 4], "big") for at in range(0, len(sizes), 4))
    if tuple(element) != kind.element_shape:
        expected = "x".join(map(str, kind.element_shape))
        _refuse(path, f"images are {'x'.join(map(str, element))} pixels, expected {expected}")
    if count == 0:
        _refuse(path, f"holds no {kind.noun}s")
    if count > MOST_ELEMENTS:
        _refuse(path, f"header announces {count:,} {kind.noun}s; at most {MOST_ELEMENTS:,} are read")
    return (count, *element)


def _guess(start: bytes, magic: int) -> str:
    """What a file with the wrong magic number probably is."""
    if start.startswith(_GZIP_START):
        return "; the file is gzipped, its name must end in .gz"
    for kind in _KINDS:
        if magic == kind.magic:
            return f"; this is a file of {kind.noun}s, images and labels are probably swapped"
    return ""


def _read_exactly(path: Path, stream: BinaryIO, size: int) -> bytearray:
    """`size` bytes up to the end of the file. Memory grows with what is really there, not with the header's word."""
    content = bytearray()
    while chunk := stream.read(min(_CHUNK, size - len(content))):
        content += chunk
    if len(content) < size:
        _refuse(path, f"is truncated: the header announces {size:,} bytes of content, {len(content):,} are there")
    if stream.read(1):
        _refuse(path, f"goes on after the {size:,} bytes of content that the header announces")
    return content


def _refuse(path: Path, problem: str) -> NoReturn:
    raise BridgeError(
        where=str(path),
        problem=problem,
        remedy="The file is damaged or not MNIST; get it again. No network was trained.",
    )
