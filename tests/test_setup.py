"""The lock agrees with pyproject.toml, and the rooms of the house keep their doors closed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.10.12", "3.11.7", "3.12.1")


def locked(python: str, file: str = "lock.txt") -> dict[str, Requirement]:
    """The pins that hold for one interpreter, by package."""
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    target = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    chosen = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(target)]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(set(names)) == len(names), f"{file} pins a package twice for Python {python}"
    return dict(zip(names, chosen, strict=True))


def asked_for(python: str) -> Iterator[Requirement]:
    """What the extras ask for on one interpreter: its version is what a marker in pyproject.toml may be about."""
    for group in (PROJECT["dependencies"], *(EXTRAS[name] for name in EXTRAS if name != "all")):
        for requirement in map(Requirement, group):
            if requirement.marker is None or requirement.marker.evaluate({"python_version": python.rpartition(".")[0]}):
                yield requirement


def test_every_extra_exists_and_all_is_all_of_them():
    assert set(EXTRAS) == {"torch", "verify", "npu", "keras", "onnx2tf", "report", "sweep", "dev", "all"}
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(EXTRAS) - {"all"}


def test_what_goes_beside_a_teams_own_packages_has_ranges():
    for group in (PROJECT["dependencies"], *(EXTRAS[name] for name in ("torch", "verify", "npu"))):
        for requirement in map(Requirement, group):
            (bound,) = requirement.specifier
            assert bound.operator == ">="


def test_the_tests_of_both_ends_say_which_python_they_need():
    done = subprocess.run(
        ["/bin/sh", ROOT / "requirements" / "ends.sh"],
        env={**os.environ, "PYTHONS": "/no/python"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "make ends PYTHONS=" in done.stderr


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_fulfils_pyproject(python):
    pins = locked(python)

    for requirement in asked_for(python):
        pin = pins[canonicalize_name(requirement.name)]
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version), f"{pin} does not fulfil {requirement}"


def test_what_cuda_needs_is_never_in_the_lock():
    assert not [name for name in locked("3.11.7") if re.match(r"(nvidia|cuda|triton)\b", name)]
    assert locked("3.11.7", "cuda.txt")


@pytest.mark.parametrize("path", [*sorted((ROOT / "requirements").iterdir()), ROOT / "Makefile"], ids=lambda p: p.name)
def test_no_registry_and_no_machine_is_named(path):
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|/(home|root|work|opt|tmp)/", path.read_text())


# Who may import whom ------------------------------------------------------------------------------------------------

FRAMEWORKS = ("torch", "torchvision", "tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "onnx2tf")
RUNTIMES = ("onnxruntime", "ai_edge_litert", "tflite_runtime")
CLOSED_DOORS = {
    "torch_side": ("keras_side", "compare", "tensorflow", "tf_keras", "tensorflow_model_optimization"),
    "keras_side": ("torch_side", "compare", "torch", "torchvision"),
    "bridge": ("compare",),
    "bridge/exact": (*FRAMEWORKS, *RUNTIMES, "compare", "torch_side", "keras_side", "bridge.verifying"),
    "bridge/verifying": (*FRAMEWORKS, "compare", "torch_side", "keras_side"),
}


def imported(source: str) -> set[str]:
    """Every module that a file imports, at any depth of the code; relative imports stay in their room."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def test_imports_are_seen_wherever_they_stand():
    source = "import a.b, c\nfrom d.e import f\nfrom . import g\ndef h():\n    import i\n"
    assert imported(source) == {"a.b", "c", "d.e", "i"}


@pytest.mark.parametrize(("room", "closed"), CLOSED_DOORS.items(), ids=CLOSED_DOORS.keys())
def test_no_room_imports_what_it_must_not(room, closed):
    trespassing = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for module in sorted(imported(path.read_text()))
        if any(f"{module}.".startswith(f"{door}.") for door in closed)
    ]
    assert not trespassing


# Sessions of the runtimes ---------------------------------------------------------------------------------------------

SESSIONS = {"InferenceSession", "SessionOptions", "Interpreter", "OpResolverType"}
MAKES_SESSIONS = {
    "bridge/verifying/onnx_runtime.py",
    "bridge/verifying/litert.py",
    "compare/toolchains/worker.py",  # a program in the environment of another tool: it runs what is installed there
    "benchmarks/arm/inside.py",  # a program that runs on an emulated ARM processor, beside the packages there
    "compare/npu/ask_tflm.py",  # TFLite Micro's, not LiteRT's
    "compare/npu/ask_litert.py",  # a program that runs isolated, in an interpreter that sees nothing of ours
    "compare/running/litert_server.py",  # a program of its own, which forks for every file that may end it
}
"""Optimized, ONNX Runtime saturates on x86 processors without VNNI (M80); one place makes its sessions, without."""


def sessions_made(source: str) -> set[str]:
    """What a file takes out of a runtime to make a session of its own, by import or as an attribute."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found |= {node.attr} & SESSIONS
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (*RUNTIMES, "tensorflow"):
            found |= {alias.name for alias in node.names} & SESSIONS
    return found


@pytest.mark.parametrize("source", [
    "import onnxruntime as ort\nort.InferenceSession(b'')",
    "def f():\n    from onnxruntime import InferenceSession as S\n    S(b'')",
    "import tensorflow as tf\nrun = tf.lite.Interpreter(model_content=b'')",
    "from ai_edge_litert.interpreter import Interpreter",
    "import ai_edge_litert.interpreter as i\ni.Interpreter(b'')",
    "from onnxruntime import SessionOptions",
])  # fmt: skip
def test_a_session_is_seen_however_it_is_made(source):
    assert sessions_made(source)


def test_sessions_of_the_runtimes_are_made_in_one_place():
    rooms = ("bridge", "compare", "torch_side", "keras_side", "benchmarks", "docs", "examples", "tests")
    files = {path.relative_to(ROOT).as_posix(): path for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert set(files) > MAKES_SESSIONS
    making = {name: made for name, path in files.items() if (made := sessions_made(path.read_text()))}
    assert set(making) == MAKES_SESSIONS, making


# make ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the files that make needs, and a folder `bin` for interpreters that only pretend."""
    for name in ("Makefile", "pyproject.toml", *(f"requirements/{f}" for f in ("install.sh", "lock.txt", "cuda.txt"))):
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "bin").mkdir()
    return tmp_path


def pretend(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# Python's answers in install.sh: does the version fit, are there venv and ensurepip; then `-m venv` and pip.
FITTING = """
case "$*" in
*'-m venv'*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo made >>log ;;
*'-m pip install'*) echo "pip ${*##*--no-compile }" >>log; test -z "${FAIL_PIP:-}" ;;
*'-m pytest'*) echo pytest >>log ;;
esac
"""
UNFIT = 'case "$*" in *version_info*) exit 1 ;; *--version*) echo "Python 3.13.0" ;; esac'


def make(checkout: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    environment = {"PATH": path, **variables}
    return subprocess.run(
        ["make", target],  # noqa: S607 - whichever make the user has
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def log(checkout: Path) -> list[str]:
    return (checkout / "log").read_text().splitlines()


def test_make_installs_torch_first_and_only_once(checkout):
    pretend(checkout / "bin" / "python3", FITTING)

    first = make(checkout, "test")
    assert first.returncode == 0, first.stderr
    made, torch, rest, project, tests = log(checkout)
    assert made == "made"
    assert torch.endswith(" torch==2.13.0")
    assert rest == "pip --no-deps -r requirements/lock.txt"
    assert project.endswith("-e .")
    assert tests == "pytest"

    assert make(checkout, "test").returncode == 0
    assert log(checkout)[5:] == ["pytest"]


def test_an_interrupted_installation_is_made_anew(checkout):
    pretend(checkout / "bin" / "python3", FITTING)

    assert make(checkout, "test", FAIL_PIP="yes").returncode != 0
    assert make(checkout, "test").returncode == 0
    assert log(checkout).count("made") == 2


def test_a_changed_lock_is_installed_into_the_environment_there_is(checkout):
    pretend(checkout / "bin" / "python3", FITTING)
    make(checkout, "test")
    stamp = checkout / ".venv" / ".installed"
    os.utime(stamp, (0, 0))

    assert make(checkout, "test", FAIL_PIP="yes").returncode != 0
    assert not stamp.exists()
    assert make(checkout, "test").returncode == 0
    assert log(checkout).count("made") == 2  # the update was interrupted: nobody knows what is in there


def test_an_environment_whose_interpreter_is_gone_is_made_anew(checkout):
    pretend(checkout / "bin" / "python3", FITTING)
    make(checkout, "test")
    (checkout / ".venv" / "bin" / "python").unlink()

    assert make(checkout, "test").returncode == 0
    assert log(checkout).count("made") == 2


@pytest.mark.parametrize("name", ["python3.10", "python3.11", "python3.12"])
def test_another_python_is_found_when_python3_does_not_fit(checkout, name):
    for other in ("python3", "python3.10", "python3.11", "python3.12"):
        pretend(checkout / "bin" / other, FITTING if other == name else UNFIT)

    assert make(checkout, "test").returncode == 0


def test_a_python_with_wheels_for_everything_is_preferred(checkout):
    pretend(checkout / "bin" / "python3", f'case "$*" in *"< (3, 12)"*) exit 1 ;; esac\necho 3.12 >>log\n{FITTING}')
    pretend(checkout / "bin" / "python3.11", FITTING)

    assert make(checkout, "test").returncode == 0
    assert "3.12" not in log(checkout)


def test_a_python_that_is_named_is_used_or_refused(checkout):
    pretend(checkout / "bin" / "python3", FITTING)
    pretend(checkout / "mine", UNFIT)

    refused = make(checkout, "test", PYTHON="./mine")

    assert refused.returncode == 2
    assert "./mine is Python 3.13.0, not Python 3.10.12 to 3.12." in refused.stderr


def test_no_fitting_python_is_said_in_two_lines(checkout):
    for name in ("python3", "python3.10", "python3.11", "python3.12"):
        pretend(checkout / "bin" / name, UNFIT)

    refused = make(checkout, "test")

    assert refused.returncode == 2
    assert "python3 is Python 3.13.0, and there is no python3.11, python3.12 or python3.10 beside it." in refused.stderr
    assert "make run PYTHON=/path/to/python3.11" in refused.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_said_with_the_way_out(checkout):
    pretend(checkout / "bin" / "python3", f'case "$*" in *ensurepip*) exit 1 ;; esac\n{FITTING}')

    refused = make(checkout, "test")

    assert refused.returncode == 2
    assert "python3 cannot make virtual environments." in refused.stderr
    assert "python3-venv" in refused.stderr
