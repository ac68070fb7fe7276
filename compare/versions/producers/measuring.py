"""Every producer's files, every converter's files of them, and how far each is from what the producer decided."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from bridge.errors import BridgeError, one_line
from compare.measuring import scales
from compare.report.records.producers import ConversionRecord, ProducedRecord, ProducerRecord
from compare.routes.making import saved_calibration
from compare.tflite import file as tflite_file
from compare.toolchains import CURRENT, matching
from compare.toolchains.environments import ensure
from compare.toolchains.producers import PROGRAMS, Producer
from compare.toolchains.protocol import Work, python_of, work
from compare.versions.producers.subjects import Subject

_TORCH = threading.Lock()
"""torch.export.load keeps what it reads in a global: one thread at a time."""
STEPS = 255
"""Of an 8-bit output."""
_PACKAGES = re.compile(r"/\S*?/site-packages/")
"""In front of a file's name in what a tool says: where its environment lies is nobody's business."""
_NEWER_ONNX2TF, _LITERT_TORCH = "onnx2tf-2.6", "litert-torch-0.10"


@dataclass(frozen=True)
class Converter:
    """A way from a producer's file to a .tflite."""

    name: str
    about: str
    takes: tuple[str, ...]
    """`ONNX`, `.pt2`."""
    convert: Callable[[Produced, Options, Path], bytes]
    """Raises `BridgeError` where it makes nothing."""


@dataclass(frozen=True)
class Options:
    """How it is measured."""

    cache: Path
    folder: Path
    """Where `files/` is written, and what the workers leave behind under `work/`."""
    jobs: int
    """Processes at a time."""
    seconds: float
    """Time limit of one job."""


@dataclass(frozen=True, eq=False)
class Produced:
    """What a recipe left: exactly one of `onnx` (in one file), `program` and `problem`."""

    producer: str
    recipe: str
    subject: Subject
    problem: str | None
    onnx: Path | None = None
    program: Path | None = None
    simulated: np.ndarray | None = None
    """float32 (N, outputs): what the producer's own model says of the subject's inputs."""

    @property
    def form(self) -> str:
        return "ONNX" if self.onnx else ".pt2" if self.program else ""

    @property
    def id(self) -> str:
        return f"{self.producer}--{self.recipe}--{self.subject.name}"


# Producing ------------------------------------------------------------------------------------------------------------


def built(producer: Producer, options: Options) -> ProducerRecord:
    """The producer's environment, there or built; one that cannot be built is a record that says why."""
    started, problem, versions = time.perf_counter(), None, dict[str, str]()
    try:
        python = ensure(producer.environment(), options.cache)
        (answer,) = work(python, [Work("nothing", "nothing")], options.folder / "work" / f"build--{producer.id}")
        problem, versions = answer.problem, dict(answer.versions)
    except BridgeError as error:
        problem = error.problem
    return ProducerRecord(
        producer.id, producer.about, producer.as_of, versions.get("python", producer.python), producer.requirements,
        producer.recipes, problem, time.perf_counter() - started, versions,
    )  # fmt: skip


def produce(producer: Producer, recipe: str, subject: Subject, options: Options) -> Produced:
    """One network by one recipe, in the producer's own environment, which is there."""
    folder = options.folder / "work" / f"{producer.id}--{recipe}--{subject.name}"
    python = ensure(producer.environment(), options.cache)
    (answer,) = work(
        python, [Work("make", recipe, subject.arguments())], folder, options.seconds, more=PROGRAMS
    )  # fmt: skip
    made, program, said = folder / "model.onnx", folder / "model.pt2", folder / "simulated.npz"
    problem = answer.problem
    if problem is None and not (made.exists() or program.exists()):
        problem = "finished without writing its file"
    if problem is not None:
        return Produced(producer.id, recipe, subject, problem)
    simulated = None
    if said.exists():
        with np.load(said) as stored:
            simulated = _flat(stored["output"])
    if program.exists():
        return Produced(producer.id, recipe, subject, None, None, program, simulated)
    return Produced(producer.id, recipe, subject, None, _in_one_file(made), None, simulated)


def _in_one_file(path: Path) -> Path:
    """Weights that lie beside the model are taken in: the converters get one file."""
    model = onnx.load(path)
    whole = path.with_name("whole.onnx")
    onnx.save(model, whole)
    return whole


# Converting -----------------------------------------------------------------------------------------------------------


def _by_the_bridge(made: Produced, *, allow_float: bool) -> bytes:
    import bridge
    from bridge.exact.convert import Options as Choices
    from bridge.exact.convert import convert
    from bridge.from_torch.files import load

    choices = Choices(allow_float=allow_float)
    if made.onnx is not None:
        return convert(made.onnx, choices).tflite
    assert made.program is not None  # noqa: S101 - one of the two is there
    with _TORCH, warnings.catch_warnings():
        warnings.simplefilter("ignore", bridge.ConversionWarning)  # what it says is no part of the page
        program, shapes = load(made.program)
        target = made.program.with_suffix(".tflite")
        examples = tuple(np.zeros(shape, np.float32) for shape in shapes)
        done: bytes = bridge.convert(program, examples, target, choices).tflite
        target.unlink()
        return done


def _by_toolchain(toolchain: str, job: str, arguments: Mapping[str, str], options: Options, folder: Path) -> bytes:
    (found,) = matching([toolchain])
    wanted = (folder / "made.tflite").resolve()
    folder.mkdir(parents=True)
    given = {**arguments, "output": str(wanted)}
    (answer,) = work(python_of(found, options.cache), [Work(job, job, given)], folder, options.seconds)
    if answer.problem is not None or not wanted.exists():
        problem = _PACKAGES.sub("", answer.problem or "finished without writing its file")
        raise BridgeError(where=toolchain, problem=problem, remedy="")
    return wanted.read_bytes()


def _by_onnx2tf(toolchain: str, mode: str, made: Produced, options: Options, folder: Path) -> bytes:
    folder.parent.mkdir(parents=True, exist_ok=True)
    samples = {"input": made.subject.samples("calibration")}
    calibration = saved_calibration(samples, "nhwc", folder.parent / f"{folder.name}.npz")
    arguments = {"onnx": str(made.onnx), "calibration": str(calibration), "mode": mode}
    return _by_toolchain(toolchain, "onnx2tf", arguments, options, folder)


def _by_litert_torch(made: Produced, options: Options, folder: Path) -> bytes:
    return _by_toolchain(_LITERT_TORCH, "litert-torch-program", {"program": str(made.program)}, options, folder)


CONVERTERS = (
    Converter(
        "bridge", "python -m bridge: every scale trained, or refused", ("ONNX", ".pt2"),
        lambda made, _options, _folder: _by_the_bridge(made, allow_float=False),
    ),
    Converter(
        "bridge --allow-float", "python -m bridge --allow-float: float where nothing was trained", ("ONNX", ".pt2"),
        lambda made, _options, _folder: _by_the_bridge(made, allow_float=True),
    ),
    Converter(
        "onnx2tf 1.29", "onnx2tf 1.29.24 -oiqt, its integer quantization; the last for Python 3.11", ("ONNX",),
        lambda made, options, folder: _by_onnx2tf(CURRENT, "int8", made, options, folder),
    ),
    Converter(
        "onnx2tf 2.6", "onnx2tf 2.6.9 as it is, what pip installs on Python 3.12", ("ONNX",),
        lambda made, options, folder: _by_onnx2tf(_NEWER_ONNX2TF, "float", made, options, folder),
    ),
    Converter(
        "onnx2tf 2.6 -oiqt", "onnx2tf 2.6.9 with its integer quantization", ("ONNX",),
        lambda made, options, folder: _by_onnx2tf(_NEWER_ONNX2TF, "int8", made, options, folder),
    ),
    Converter("litert-torch 0.10", "litert-torch 0.10.0", (".pt2",), _by_litert_torch),
)  # fmt: skip


def converted(made: Produced, options: Options) -> ProducedRecord:
    """A producer's file by every converter that takes its form."""
    if made.problem is not None:
        return _record(made, 0, None, ())
    with _TORCH:
        decided = scales.of_onnx(onnx.load(made.onnx)) if made.onnx else scales.of_program(made.program or Path())
    said = _by_onnx_runtime(made)
    apart = None if said is None or made.simulated is None else _steps(said, made.simulated)
    found = tuple(
        _conversion(made, each, decided, said, options) for each in CONVERTERS if made.form in each.takes
    )  # fmt: skip
    return _record(made, decided.size, apart, found)


def _record(
    made: Produced, count: int, apart: float | None, conversions: tuple[ConversionRecord, ...]
) -> ProducedRecord:
    return ProducedRecord(
        made.producer, made.recipe, made.subject.name, made.form, made.problem, count, apart, conversions
    )  # fmt: skip


def _conversion(
    made: Produced, converter: Converter, decided: np.ndarray, said: np.ndarray | None, options: Options
) -> ConversionRecord:
    name = f"{made.id}--{converter.name.replace(' ', '-')}"
    try:
        content = converter.convert(made, options, options.folder / "work" / name)
    except BridgeError as error:
        where = f"{error.where}: " if converter.name.startswith("bridge") else ""
        return ConversionRecord(converter.name, one_line(f"{where}{error.problem}"))
    files = options.folder / "files"
    files.mkdir(exist_ok=True)
    path = (files / f"{name}.tflite").resolve()
    path.write_bytes(content)
    parsed = tflite_file.read(content, path.name)
    floats = sum(not parsed.is_integer(each) for each in parsed.operators)
    kept = scales.kept(decided, scales.of_tflite(content))
    given, problem = _ran(made, content, path, options)
    reference = made.simulated if made.simulated is not None else said
    return ConversionRecord(
        converter.name, problem, len(parsed.operators), floats, kept,
        None if given is None or made.simulated is None else _steps(given, made.simulated),
        None if given is None or said is None else _steps(given, said),
        None if given is None or reference is None or given.shape != reference.shape
        else int((given.argmax(axis=1) != reference.argmax(axis=1)).sum()),
    )  # fmt: skip


# Running --------------------------------------------------------------------------------------------------------------


def _ran(made: Produced, content: bytes, path: Path, options: Options) -> tuple[np.ndarray | None, str | None]:
    """What LiteRT says of the inputs, float32 (N, outputs), in a process of its own; or why it says nothing."""
    folder = options.folder / "work" / f"{path.stem}--run"
    folder.mkdir(parents=True)
    inputs, output = (folder / f"{which}.npz" for which in ("given", "said"))
    parsed = tflite_file.read(content, path.name)
    (taken,) = [parsed.tensors[place].shape for place in parsed.inputs]
    fed = _laid_out(made.subject.samples("inputs"), taken)
    if fed is None:
        return None, f"made, and takes {taken}, which the samples do not fit"
    np.savez(inputs, **{"0": fed})
    (current,) = matching([CURRENT])
    arguments = {
        "module": "ai_edge_litert", "tflite": str(path), "inputs": str(inputs.resolve()), "output": str(output.resolve()),
    }  # fmt: skip
    (answer,) = work(python_of(current, options.cache), [Work("run", "run", arguments)], folder, options.seconds)
    if answer.problem is not None:
        return None, f"made, and LiteRT does not run it: {answer.problem}"
    with np.load(output) as stored:
        return _flat(stored["0"]), None


def _laid_out(samples: np.ndarray, taken: tuple[int, ...]) -> np.ndarray | None:
    """As the file takes them: channels first, as the network, or last; None where neither fits. No network fits both."""
    for array in (samples, np.ascontiguousarray(np.moveaxis(samples, 1, -1))):
        if array.shape[1:] == taken[1:]:
            return array
    return None


def _by_onnx_runtime(made: Produced) -> np.ndarray | None:
    """What ONNX Runtime, unoptimized, says of a producer's ONNX file; None where it refuses it, or there is none."""
    from bridge.verifying import onnx_runtime

    if made.onnx is None:
        return None
    try:
        session = onnx_runtime.session(made.onnx)
        (name,) = [each.name for each in session.get_inputs()]
        return _flat(onnx_runtime.outputs(session, {name: made.subject.samples("inputs")})[0])
    except BridgeError:
        return None


def _flat(array: np.ndarray) -> np.ndarray:
    flat: np.ndarray = np.asarray(array, np.float32).reshape(len(array), -1)
    return flat


def _steps(given: np.ndarray, reference: np.ndarray) -> float | None:
    """The largest difference, in 255ths of what the reference spans; None where the shapes differ."""
    if given.shape != reference.shape or not np.isfinite(given).all():
        return None
    return float(np.abs(given - reference).max() / max(float(np.ptp(reference)), 1e-30) * STEPS)


# All of it ------------------------------------------------------------------------------------------------------------


def measure(
    chosen: Sequence[Producer], subjects: Sequence[Subject], options: Options, heard: Callable[[str, str | None], None]
) -> tuple[tuple[ProducerRecord, ...], tuple[ProducedRecord, ...]]:
    """Build, produce, convert, measure; `heard` is told of each step, with its problem or None."""
    records = []
    for producer in chosen:
        records.append(built(producer, options))
        heard(f"build {producer.id}", records[-1].problem)
    there = {each.id for each in records if each.problem is None}
    wanted = [(p, recipe, subject) for p in chosen if p.id in there for recipe in p.recipes for subject in subjects]

    def one(producer: Producer, recipe: str, subject: Subject) -> ProducedRecord:
        made = produce(producer, recipe, subject, options)
        heard(made.id, made.problem)
        return converted(made, options)

    with ThreadPoolExecutor(options.jobs) as pool:
        return tuple(records), tuple(pool.map(lambda each: one(*each), wanted))
