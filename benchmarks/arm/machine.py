"""An ARM machine in a folder: packages fetched and unpacked, nothing installed; a program run on one of its cores.

QEMU's user mode translates one process at a time, exactly on integers and IEEE floats. Which core LiteRT sees, and so
which kernels it takes, follows from /proc/cpuinfo, which each core here has its own of. Times mean nothing.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bridge.errors import BridgeError

PYTHONS = ("3.11", "3.12", "3.10")
"""Which of them the distribution has; numpy 1.26 and LiteRT 2.1 have wheels for each."""
FETCH_SECONDS = 1800
"""For all downloads over a slow line; they take two minutes where the mirror is near."""


@dataclass(frozen=True)
class Core:
    """A processor core as Linux describes it, and what QEMU emulates for it."""

    name: str
    part: str
    variant: str
    revision: str
    features: str
    emulated: str


_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
CORES = {
    core.name: core
    for core in (
        Core("a53", "0xd03", "0x0", "4", _V8, "cortex-a53"),
        # The first A55 had no dot products; that of the i.MX 93 and of phones is r2p0. QEMU 7.2 has none at all, and an
        # A76 has the same instructions.
        Core("a55", "0xd05", "0x2", "0", _V8_2, "cortex-a76"),
        Core("a72", "0xd08", "0x0", "3", _V8, "cortex-a72"),
    )
}
"""Part numbers: Linux, arch/arm64/include/asm/cputype.h."""


@dataclass(frozen=True)
class Machine:
    """Where everything lies, and what it is."""

    folder: Path
    emulator: Path
    python: str

    def about(self) -> str:
        """Versions, for the page."""
        said = subprocess.run([self.emulator, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        found = re.search(r"version (\S+)", said.stdout)
        qemu = found[1] if found else "of unknown version"
        return f"QEMU {qemu}, Python {self.python}, LiteRT {version('ai-edge-litert')}"

    def command(self, core: Core, program: Path, *arguments: str | Path) -> list[str | Path]:
        """How to run a Python program on a core."""
        root = self._root_of(core)
        interpreter = root / "usr" / "bin" / f"python{self.python}"
        return [self.emulator, "-cpu", core.emulated, "-L", root, interpreter, "-B", program, *arguments]

    def variables(self) -> Mapping[str, str]:
        return {"PYTHONHOME": str(self.folder / "root" / "usr"), "PYTHONPATH": str(self.folder / "site")}

    def _root_of(self, core: Core) -> Path:
        """The packages' files by links, and the core's own description of itself."""
        root = self.folder / "cores" / f"{core.name}-{core.part}-{core.variant}"
        if (root / "proc" / "cpuinfo").exists():
            return root
        cpus = root / "sys" / "devices" / "system" / "cpu"
        cpus.mkdir(parents=True, exist_ok=True)
        for entry in (self.folder / "root").iterdir():
            link = root / entry.name
            if entry.name not in ("proc", "sys") and not link.is_symlink():
                link.symlink_to(Path("../../root") / entry.name)
        for name in ("possible", "present"):
            (cpus / name).write_text("0-1\n")
        (root / "proc").mkdir(exist_ok=True)
        (root / "proc" / "cpuinfo").write_text("".join(_described(core, number) for number in range(2)))
        return root


def _described(core: Core, number: int) -> str:
    return (
        f"processor\t: {number}\nBogoMIPS\t: 50.00\nFeatures\t: {core.features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: {core.variant}\nCPU part\t: {core.part}\n"
        f"CPU revision\t: {core.revision}\n\n"
    )


def ready(cache: Path, seconds: float = FETCH_SECONDS) -> Machine:
    """The machine, fetched and unpacked first, within `seconds`, where the cache does not have it.

    Raises `BridgeError`, in one sentence, where apt, pip, dpkg, the network, time or room on the disk is missing.
    """
    until = time.monotonic() + seconds
    if sys.platform != "linux":
        raise _unavailable("runs on Linux only: QEMU translates Linux programs")
    wheels = [f"{name}=={version(name)}" for name in ("ai-edge-litert", "numpy")]
    folder = cache / "arm" / "-".join(each.replace("==", "-") for each in wheels)
    try:
        with _alone(folder, until):
            if not (folder / ".complete").exists():
                shutil.rmtree(folder, ignore_errors=True)
                _fetch(folder, wheels, until)
                (folder / ".complete").touch()
    except OSError as error:
        raise _unavailable(f"cannot be unpacked into {folder}: {error.strerror or error}") from error
    interpreter = next((folder / "root" / "usr" / "bin").glob("python3.*"))
    return Machine(folder, folder / "qemu-aarch64", interpreter.name.removeprefix("python"))


@contextmanager
def _alone(folder: Path, until: float) -> Iterator[None]:
    """One process at a time; another one that fetches is waited for."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise _unavailable("is being fetched by another process, which has not ended in time") from None
                time.sleep(0.2)
        yield


def _fetch(folder: Path, wheels: Sequence[str], until: float) -> None:
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(tool) is None:
            raise _unavailable(f"needs {tool}, which is not installed: its packages are Debian's or Ubuntu's")
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    _emulator(folder, downloads, until)
    python = _system(folder, downloads, until)
    _run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads / "wheels",
            *(option for tag in _WHEELS for option in ("--platform", tag)), "--only-binary=:all:",
            "--python-version", python, *wheels,
        ],
        downloads,
        until,
    )  # fmt: skip
    for wheel in (downloads / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    shutil.rmtree(downloads)


_WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
_EMULATORS = ("qemu-user-static", "qemu-user")
"""The package that has it, before and after Debian 13."""


def _emulator(folder: Path, downloads: Path, until: float) -> None:
    """`qemu-aarch64`, statically linked: the machine's own, or out of a package."""
    own = shutil.which("qemu-aarch64-static")
    if own is not None:
        (folder / "qemu-aarch64").symlink_to(own)
        return
    host = _Apt(downloads / "host", None, until)
    for package in _EMULATORS:
        found = host.download(package)
        for deb in found:
            _unpack(deb, downloads / package, until)
        for name in ("qemu-aarch64-static", "qemu-aarch64"):
            binary = downloads / package / "usr" / "bin" / name
            if binary.is_file() and not binary.is_symlink():
                binary.replace(folder / "qemu-aarch64")
                return
    raise _unavailable(f"needs one of the packages {', '.join(_EMULATORS)}, and {host.has_none()}")


def _system(folder: Path, downloads: Path, until: float) -> str:
    """Python and the libraries it and LiteRT need, for arm64; the Python's version."""
    arm = _Apt(downloads / "arm64", "arm64", until)
    python = next((each for each in PYTHONS if arm.has(f"python{each}-minimal")), None)
    if python is None:
        raise _unavailable(f"needs python3.x-minimal for arm64 ({', '.join(PYTHONS)}), and {arm.has_none()}")
    names = (f"python{python}-minimal", f"libpython{python}-stdlib", "libstdc++6", "libgomp1", "zlib1g")
    for deb in arm.with_dependencies(names):
        _unpack(deb, folder / "root", until)
    for name in ("share/doc", "share/man", "share/locale", "share/info"):
        shutil.rmtree(folder / "root" / "usr" / name, ignore_errors=True)
    return python


class _Apt:
    """apt with the machine's sources and nothing else of its state: no root, no installed packages, another processor."""

    def __init__(self, folder: Path, architecture: str | None, until: float) -> None:
        self._folder, self._until = folder, until
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        self._options = [
            "-o", f"Dir::State={folder / 'state'}", "-o", f"Dir::Cache={folder / 'cache'}",
            "-o", f"Dir::State::status={folder / 'status'}", "-o", "Acquire::Retries=2",
        ]  # fmt: skip
        if architecture is not None:
            self._options += ["-o", f"APT::Architecture={architecture}", "-o", f"APT::Architectures={architecture}"]
        if os.geteuid() == 0:  # apt's own user may not be able to enter the folder
            self._options += ["-o", "APT::Sandbox::User=root"]
        # Where a source cannot be reached, apt warns and ends with code 0.
        self._warned = re.findall(r"(?m)^[WE]: (.+)", self._run("apt-get", "update"))

    def _run(self, program: str, *arguments: str) -> str:
        return _run([program, *self._options, *arguments], self._folder, self._until)

    def has_none(self) -> str:
        """Why a package is not there: what apt said of its sources, first."""
        return f"apt said: {self._warned[0]}" if self._warned else "apt's sources have none of them"

    def has(self, package: str) -> bool:
        return f"{package} | " in self._run("apt-cache", "madison", package)

    def download(self, package: str) -> list[Path]:
        """One package, without what it depends on; none where apt does not know it."""
        if not self.has(package):
            return []
        self._run("apt-get", "download", package)
        return list(self._folder.glob("*.deb"))

    def with_dependencies(self, packages: Sequence[str]) -> list[Path]:
        """The packages and everything they depend on."""
        self._run("apt-get", "install", "--yes", "--no-install-recommends", "--download-only", *packages)
        return sorted((self._folder / "cache" / "archives").glob("*.deb"))


def _unpack(deb: Path, folder: Path, until: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _run(["dpkg", "-x", deb, folder], folder, until)


def _run(command: Sequence[str | Path], folder: Path, until: float) -> str:
    """Run one of the tools and return what it printed; raises `BridgeError` with its last words."""
    try:
        done = subprocess.run(  # noqa: S603 - apt, dpkg and pip, with arguments of ours
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=max(0.0, until - time.monotonic()), check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _unavailable(f"cannot be fetched in time: {Path(command[0]).name} had not ended") from error
    if done.returncode != 0:
        words = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        errors = [line for line in words if re.match(r"(E|ERROR|dpkg\S*): ?", line)] or words or ["no reason given"]
        raise _unavailable(f"cannot be fetched: {Path(command[0]).name} said: {errors[-1]}")
    return f"{done.stdout}{done.stderr}"


def _unavailable(problem: str) -> BridgeError:
    return BridgeError(
        where="the emulated ARM machine",
        problem=problem,
        remedy="It is made once, of packages of Debian or Ubuntu and PyPI: run this where apt and the network are "
        f"there (here: {platform.system()} {platform.machine()}).",
    )
