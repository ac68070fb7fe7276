"""Isolated Python environments for tools whose pins clash with ours: built once, kept in the cache, shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from bridge.errors import BridgeError
from compare.running import locks
from compare.toolchains import uv
from compare.toolchains.interpreters import interpreter

BUILD_SECONDS = 1800
"""For a build over a slow line; the largest takes about half a minute where the index is near."""
NEEDED_BYTES = 500_000_000
"""Free disk space asked for before a build, unless the environment says more."""


@dataclass(frozen=True)
class Environment:
    """A named set of pinned requirements, and the lock that says which files they and all they bring along may be."""

    name: str
    requirements: tuple[str, ...]
    """As pip takes them: `ethos-u-vela==5.2.0`."""
    lock: Path
    """Every package at its version with its hashes (`locks`); nothing else is installed."""
    python: str
    """`major.minor` of the interpreter."""
    as_of: str
    """A date, `2024-03-01`: what the requirements bring along was locked as it was then."""
    needed_bytes: int = NEEDED_BYTES
    from_source: tuple[str, ...] = ()
    """Packages without a wheel, built here with what the lock has for that; nothing else is ever built."""

    def folder(self, cache: Path) -> Path:
        """Where it is kept: by its pins, lock and interpreter, so that a changed pin or hash is another environment.

        Raises `BridgeError` where the lock is missing.
        """
        facts = [self.python, platform.machine(), self.as_of, *sorted(self.requirements), locks.content(self.lock)]
        return root(cache) / f"{self.name}-{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()[:12]}"

    def packages(self) -> tuple[locks.Package, ...]:
        """What the lock has; raises `BridgeError` where it does not fit the pins or has a line without a hash."""
        return locks.read(self.lock, self.name, self.requirements, self.python, self.as_of)


def this_python() -> str:
    """`major.minor` of the interpreter that runs this."""
    return ".".join(platform.python_version_tuple()[:2])


def cache_folder() -> Path:
    """Where everything is kept that a later run can use again."""
    return user_cache_path("qat-tflite-bridge", appauthor=False)


def usable(cache: Path | None, *, to_write: bool = True) -> Path:
    """The folder to keep things in, there and writable; the usual one where none is named.

    On a full disk it is not usable, unless nothing is `to_write`: to list and to prune is what helps there.

    Raises `BridgeError` where nothing can be kept in it: every network would fail with that, one after the other.
    """
    folder = cache_folder() if cache is None else cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # a full disk still takes an empty one
            file.write(bytes(65536 if to_write else 0))
            file.flush()
    except OSError as error:
        raise BridgeError(
            where=f"cache folder {folder}",
            problem=f"cannot be used ({error.strerror or type(error).__name__})",
            remedy="Name another one with --cache, or make it writable.",
        ) from error
    return folder


def root(cache: Path) -> Path:
    """The folder of all environments."""
    return cache / "environments"


def is_built(environment: Environment, cache: Path) -> bool:
    """Whether the environment is there, whole."""
    folder = environment.folder(cache)
    return (folder / ".complete").exists() and _python(folder).exists()  # a link to an interpreter that may be gone


def ensure(environment: Environment, cache: Path) -> Path:
    """The environment's own `python`, built first where it is missing or was left half made.

    Raises `BridgeError` with the resolver's own reason when it cannot be built.
    """
    folder = environment.folder(cache)
    if is_built(environment, cache):
        return _python(folder)
    try:
        with _alone(folder, environment.needed_bytes):
            if not is_built(environment, cache):  # another process may have built it meanwhile
                shutil.rmtree(folder, ignore_errors=True)
                _build(environment, folder, cache)
                (folder / ".complete").touch()
    except OSError as error:
        raise BridgeError(
            where=f"environment '{environment.name}'",
            problem=f"cannot be written to {folder.parent}: {error.strerror or error}",
            remedy=f"Choose a cache folder you may write to, on a disk with {environment.needed_bytes // 10**6} MB free.",
        ) from error
    return _python(folder)


@dataclass(frozen=True)
class Kept:
    """A folder of the cache: an environment, or what is left of one."""

    folder: Path
    complete: bool
    bytes: int
    """What its files add up to; most are shared with uv's cache and cost the disk nothing more."""


def kept(cache: Path) -> tuple[Kept, ...]:
    """Every environment in the cache, whoever asked for it."""
    folders = sorted(each for each in root(cache).glob("*") if each.is_dir())
    return tuple(Kept(each, (each / ".complete").exists(), _bytes(each)) for each in folders)


def prune(wanted: Sequence[Environment], cache: Path) -> tuple[Kept, ...]:
    """Remove what is none of the wanted environments, whole; one that is being built right now stays.

    Returns what was removed. uv's own cache is cleared of wheels that nothing needs any more.
    """
    keep = {environment.folder(cache) for environment in wanted}
    removed = []
    for each in kept(cache):
        if each.folder in keep and each.complete:
            continue
        lock = _lock_file(each.folder)
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(each.folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            removed.append(each)
    if removed:
        uv.run_uv(["cache", "prune", "--quiet"], cache, BUILD_SECONDS)
    return tuple(removed)


def disk_bytes(cache: Path) -> int:
    """What environments and uv's cache take on the disk together; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for folder in (root(cache), cache / "uv"):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                facts = path.stat()
                seen[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(seen.values())


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def _alone(folder: Path, needed: int) -> Iterator[None]:
    """One process at a time builds an environment; the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise BridgeError(
            where=f"environment in {folder.parent}",
            problem=f"needs {needed // 10**6} MB of disk, {free // 10**6} MB are free",
            remedy="Free some space, or name another cache folder.",
        )
    with _lock_file(folder).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(environment: Environment, folder: Path, cache: Path) -> None:
    """Install what the lock has, and hold every file against its hashes: wheels first, then what is built here.

    torchvision's wheel is made for the index's own PyTorch and does not do beside another build (M40): with it, the build
    that lies here is left alone, and only the main index is asked.
    """
    packages = environment.packages()
    _uv(environment, ["venv", "--python", interpreter(environment.python), folder], cache)
    own, index = _own_torch(environment, packages, folder, cache), uv.index_options()
    if own is not None and any(each.name == "torchvision" for each in packages):
        own, index = None, uv.main_index()
    if own is not None:
        packages = tuple(each for each in packages if each.name != "torch" and not _CUDA.match(each.name))
    wheels = [each for each in packages if each.name not in environment.from_source]
    sources = [each for each in packages if each.name in environment.from_source]
    _install(environment, folder, cache, index, _hashed(folder / "wheels.txt", wheels, "--only-binary", ":all:"))
    if sources:  # with what was just installed, and nothing that the index says today
        _install(environment, folder, cache, index, _hashed(folder / "sources.txt", sources, "--no-build-isolation"))
    if own is not None:
        _install(environment, folder, cache, index, ["--only-binary", ":all:", own])
    _check(environment, folder, cache)


_CUDA = re.compile(r"nvidia-(cu|nccl|nv)|cuda-|triton$")
"""What only the CUDA build of PyTorch needs (requirements/cuda.txt); `nvidia-modelopt` and `nvidia-ml-py` are not of it."""


def _own_torch(environment: Environment, packages: Sequence[locks.Package], folder: Path, cache: Path) -> str | None:
    """`torch==2.13.0+cpu` where pip would take a build of PyTorch that is not the public index's; None anywhere else.

    Such a build has other hashes on every machine that makes one, so no lock can have them.
    """
    for package in packages:
        if package.name == "torch":
            with tempfile.TemporaryDirectory() as temporary:
                wanted = Path(temporary) / "torch.txt"
                wanted.write_text(f"{package}\n")
                options: list[str | Path] = ["--quiet", "--no-header", "--no-annotate", "--no-deps"]
                options += ["--python", _python(folder), *uv.index_options()]
                found = _uv(environment, ["pip", "compile", *options, wanted], cache).strip()
            return found if found.startswith(f"{package}+") else None
    return None


def _hashed(path: Path, packages: Sequence[locks.Package], *options: str) -> list[str | Path]:
    path.write_text("".join(f"{each.line}\n" for each in packages))
    return ["--require-hashes", *options, "--requirements", path]


def _install(
    environment: Environment, folder: Path, cache: Path, index: Sequence[str], what: Sequence[str | Path]
) -> None:
    """No package but those named: the lock is complete, which `pip check` holds it to."""
    _uv(environment, ["pip", "install", "--python", _python(folder), "--no-deps", *index, *what], cache)


def _check(environment: Environment, folder: Path, cache: Path) -> None:
    """Everything that the packages ask for is there; raises `BridgeError` where the lock lacks something."""
    done = uv.run_uv(["pip", "check", "--python", _python(folder)], cache, BUILD_SECONDS)
    if done.returncode != 0:
        raise BridgeError(
            where=f"environment '{environment.name}' on {platform.system()} {platform.machine()}",
            problem=f"is incomplete: {uv.said_by(done)}",
            remedy=f"Its lock was made for Linux x86-64 and does not do here: {environment.lock}",
        )


def _uv(environment: Environment, command: Sequence[str | Path], cache: Path) -> str:
    """What uv writes to its standard output; raises `BridgeError` with its reason where it fails."""
    try:
        done = uv.run_uv(command, cache, BUILD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _not_built(environment, f"took longer than {BUILD_SECONDS} s") from error
    if done.returncode == 0:
        return done.stdout
    reason = uv.said_by(done)
    if (other := uv.hash_mismatch(reason)) is not None:
        raise _other_file(environment, *other)
    raise _not_built(environment, reason)


def _not_built(environment: Environment, reason: str) -> BridgeError:
    return BridgeError(
        where=f"environment '{environment.name}' ({', '.join(environment.requirements)})",
        problem=f"cannot be built: {reason}",
        remedy="It is built once and needs the package index for that; try again with network access.",
    )


def _other_file(environment: Environment, package: str, found: str) -> BridgeError:
    return BridgeError(
        where=f"environment '{environment.name}', package {package}",
        problem=f"is not installed: the file that came has the hash {found}, which {environment.lock} does not have",
        remedy="The file was changed after it was locked, or on its way here. None of it was run. Ask who runs the index or "
        "mirror that pip is configured for.",
    )
