""".pt2 files: converted from the command line, and nothing that a file brings along is ever run."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from packaging.version import Version
from typer.testing import CliRunner

import bridge
from bridge.__main__ import app
from bridge.errors import BridgeError
from bridge.from_torch.files import load
from tests.bridge.from_torch.decomposed import SHAPE, Network, exported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

WRITES_TENSORS = Version(torch.__version__) >= Version("2.9")
"""Before, torch.export.save pickled them."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    if not WRITES_TENSORS:
        pytest.skip("this torch saves files that the bridge does not read")
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(exported(Network()), path)
    return path


def test_a_file_is_converted_as_the_program_in_memory_is(saved, tmp_path):
    program, shapes = load(saved)
    assert shapes == (SHAPE,)
    expected = bridge.convert(exported(Network()), np.zeros(SHAPE, np.float32), tmp_path / "memory.tflite")

    result = CliRunner().invoke(app, [str(saved), "-o", str(tmp_path / "file.tflite")])

    assert result.exit_code == 0, result.output
    assert "read  torch.export" in result.output
    assert (tmp_path / "file.tflite").read_bytes() == expected.tflite
    (found,) = bridge.verify(program, expected, np.ones(SHAPE, np.float32))["xnnpack"].values()
    assert found.worst <= 1


class Marks:
    """Leaves a file behind as soon as it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def changed(source, target, change):
    """The archive with entries replaced, added, or left out (None); `change`: path without its first folder -> bytes."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        top = archive.namelist()[0].split("/")[0]
        rest = dict(change)
        for entry in archive.infolist():
            name = entry.filename.removeprefix(f"{top}/")
            content = rest.pop(name, archive.read(entry))
            if content is not None:
                copy.writestr(entry.filename, content)
        for name, content in rest.items():
            copy.writestr(f"{top}/{name}", content)
    return target


def described(saved, name, change):
    with zipfile.ZipFile(saved) as archive:
        top = archive.namelist()[0].split("/")[0]
        record = json.loads(archive.read(f"{top}/{name}"))
    change(record)
    return {name: json.dumps(record).encode()}


WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
GRAPH = "models/model.json"


def first_weight(record, **fields):
    next(iter(record["config"].values())).update(fields)


def hostile(saved, mark):
    """By name: what is changed. Each would run `mark`'s code in torch's own loader, or take more than there is."""
    pickled = io.BytesIO()
    torch.save(Marks(mark), pickled)
    code = f"__import__('os').mkdir({str(mark)!r})"

    def sizes(record):
        next(iter(record["config"].values()))["tensor_meta"].update(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}])

    def target(record):
        record["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.add.Tensor; import os"

    return {
        "pickled weight": {**described(saved, WEIGHTS, lambda r: first_weight(r, use_pickle=True)),
                           "data/weights/weight_0": pickled.getvalue()},
        "old pickled weights": {"data/weights/model.pt": pickled.getvalue()},
        "opaque constant": {
            **described(saved, CONSTANTS, lambda r: r["config"].update(
                c={"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None})),
            "data/constants/opaque_obj_0": pickle.dumps(Marks(mark)),
        },
        "compiled library": {"data/aotinductor/model/model.so": b"\x7fELF"},
        "sizes as an expression": described(
            saved, GRAPH, lambda r: r["range_constraints"].update(x={"expr_str": code})),
        "another operator": described(saved, GRAPH, target),
        "a size beyond the file": described(saved, WEIGHTS, sizes),
        "no JSON": {GRAPH: b"{"},
        "nested without end": {GRAPH: b"[" * 100_000},
        "no tensors": {WEIGHTS: b"[]"},
    }  # fmt: skip


NAMES = [
    "pickled weight", "old pickled weights", "opaque constant", "compiled library", "sizes as an expression",
    "another operator", "a size beyond the file", "no JSON", "nested without end", "no tensors",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_would_run_or_take_everything_is_refused_in_a_sentence(name, saved, tmp_path):
    mark = tmp_path / "mark"
    path = changed(saved, tmp_path / "hostile.pt2", hostile(saved, mark)[name])

    result = CliRunner().invoke(app, [str(path), "-o", str(tmp_path / "out.tflite")])

    assert result.exit_code == 2, result.output
    assert not mark.exists()
    assert not (tmp_path / "out.tflite").exists()


def test_every_hostile_change_is_tried(saved, tmp_path):
    assert list(hostile(saved, tmp_path / "mark")) == NAMES


def test_sample_inputs_and_code_of_guards_are_never_looked_at(saved, tmp_path):
    mark = tmp_path / "mark"
    pickled = io.BytesIO()
    torch.save(Marks(mark), pickled)
    guards = described(saved, GRAPH, lambda r: r.update(guards_code=[f"__import__('os').mkdir({str(mark)!r})"]))
    path = changed(saved, tmp_path / "hostile.pt2", {"data/sample_inputs/model.pt": pickled.getvalue(), **guards})

    conversion = bridge.convert_pt2(path)

    assert not mark.exists()
    assert conversion.tflite == bridge.convert_pt2(saved).tflite


@pytest.mark.parametrize("keep", [0, 10, 1000, -200])
def test_a_file_that_was_cut_short_is_a_sentence(keep, saved, tmp_path):
    path = tmp_path / "short.pt2"
    path.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(BridgeError, match=r"is not a readable \.pt2 file|is none of the parts"):  # of an inner archive
        load(path)


def test_compressed_files_could_hold_more_than_there_is(tmp_path):
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/weights/weight_0", bytes(10**7))
    with pytest.raises(BridgeError, match="compressed"):
        load(path)


@pytest.mark.parametrize(
    "names",
    [
        ["serialized_exported_program.json", "serialized_state_dict.pt", "serialized_constants.pt", "version"],
        ["model/models/model.json", "model/data/weights/model.pt", "model/data/constants/model.pt", "model/byteorder"],
    ],
    ids=["torch 2.4", "torch 2.8"],
)
def test_a_file_of_an_older_torch_is_told_so(names, tmp_path):
    with zipfile.ZipFile(tmp_path / "old.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(name, b"{}")
    with pytest.raises(BridgeError, match=r"saved by an older torch[\s\S]*torch\.export\.load[\s\S]*2\.9"):
        load(tmp_path / "old.pt2")


@pytest.mark.skipif(not WRITES_TENSORS, reason="this torch saves files that the bridge does not read")
def test_sizes_that_are_left_open_are_named(tmp_path):
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(4, 3),), dynamic_shapes={"input": {0: batch}})
    torch.export.save(program, tmp_path / "open.pt2")
    with pytest.raises(BridgeError, match="leaves sizes open"):
        load(tmp_path / "open.pt2")


@pytest.mark.parametrize("option", ["--verify", "--input-shape"])
def test_options_of_onnx_files_say_what_to_do_instead(option, saved, tmp_path):
    np.savez(tmp_path / "inputs.npz", x=np.zeros(SHAPE, np.float32))
    value = str(tmp_path / "inputs.npz") if option == "--verify" else "x=2,2,8,8"
    result = CliRunner().invoke(app, [str(saved), "-o", str(tmp_path / "out.tflite"), option, value])
    assert result.exit_code == 2
    assert "bridge.verify(program" in " ".join(result.output.split())
