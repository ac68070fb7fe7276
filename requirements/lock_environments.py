"""Writes the locks of the tools' environments: `python requirements/lock_environments.py [NAME ...]`, with a network.

Run it in the project's own environment. Each lock pins every package that an environment's requirements bring along, as
the package index had them on the pins' date, with the hashes of all its files. Only pip's main index is asked: what a
machine has besides (a CPU build of PyTorch, a folder of wheels) has other hashes, or none that others could check.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from compare import npu, toolchains
from compare.npu import locked
from compare.running import locks
from compare.toolchains import environments, producers, uv
from compare.toolchains.environments import Environment
from compare.toolchains.interpreters import interpreter

_SECONDS = 900


def main(patterns: Sequence[str]) -> None:
    """Write the locks of the environments whose name matches any of the globs; all without globs."""
    chosen = [each for each in everything() if not patterns or any(fnmatchcase(each.name, glob) for glob in patterns)]
    if not chosen:
        names = ", ".join(sorted({each.name for each in everything()}))
        raise SystemExit(f"{' '.join(patterns)}: matches no environment. There are: {names}.")
    for environment in chosen:
        environment.lock.parent.mkdir(exist_ok=True)
        environment.lock.write_text(text(environment))
        print(f"{environment.lock.name}: {len(environment.packages())} packages", flush=True)


def everything() -> Iterator[Environment]:
    """Each environment with each Python that it is built with."""
    for toolchain in toolchains.toolchains():
        environment = toolchain.environment()
        if environment is not None:
            yield environment
    for producer in producers.producers():
        yield producer.environment()
    for environment in npu.environments():
        for python in locked.PYTHONS:
            yield locked.on(python, environment)


def text(environment: Environment) -> str:
    """The lock, as uv resolves the pins; raises `SystemExit` with uv's reason where it cannot."""
    with tempfile.TemporaryDirectory() as temporary:
        pins, found = Path(temporary) / "pins.txt", Path(temporary) / "lock.txt"
        pins.write_text("\n".join(environment.requirements) + "\n")
        options: list[str | Path] = ["--generate-hashes", "--no-header", "--no-annotate"]
        options += ["--python", interpreter(environment.python), "--exclude-newer", environment.as_of]
        options += ["--only-binary", ":all:", *(f"--no-binary={each}" for each in environment.from_source)]
        command = ["pip", "compile", "--quiet", *options, *uv.main_index(), "--output-file", found, pins]
        done = uv.run_uv(command, environments.cache_folder(), _SECONDS)
        if done.returncode != 0:
            raise SystemExit(f"{environment.name}: {uv.said_by(done)}")
        return locks.head(environment.name, environment.requirements, environment.python, environment.as_of) + "".join(
            f"{each.line}\n" for each in locks.parse(found.read_text(), environment.lock)
        )


if __name__ == "__main__":
    main(sys.argv[1:])
