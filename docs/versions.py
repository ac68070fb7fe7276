"""Writes docs/versions.md from a run: `python docs/versions.py runs/versions-20260102-030405`."""

from __future__ import annotations

import sys
from pathlib import Path

from compare.report.pages.versions import markdown
from compare.report.records.versions import from_json

HEAD = """\
# The version matrix

`python -m compare.versions` runs the same routes under pinned toolchains, each in an environment of its own, and every
file that comes out on the runtimes of all of them. It says which combinations convert, which fail and with what error,
and which lose classes without one. What follows is one run, made by the command it names.

- A **toolchain** is a small file in `compare/toolchains/pins`: a Python, a few requirements, a date. Everything the
  requirements bring along was locked as the package index had it on that date, so the set is the one a team would have got
  then. `onnx2tf-1.29-unpinned` and `tflite-runtime-2.14-unpinned` are what pip takes when nobody pins anything.
- Each route is what a user of those packages writes from their documentation, in one file
  (`compare/toolchains/worker.py`) that is all of ours that runs in there.
- **Accuracy** is on the test images; **changed** counts images whose class is not that of the network the file came from;
  **LSB** is the largest difference from the same route by the current toolchain on its own runtime or, where there is
  none, from the network itself.
- **Catalogue** entries ([mismatches.md](mismatches.md)) are seen in the file, or in the error's own words; `?` behind one
  means that the same picture can have another cause. An error that no entry knows is said to be that.
- A recommendation is the newest toolchain with a clean file; it is for this model, and is worth as much as the list of
  toolchains is complete.

Not in it: other operating systems and processors, GPU builds, PyTorch releases other than the current one and
litert-torch's (their wheels are gigabytes of CUDA), networks other than the one named.

Your own model: `python -m compare.versions --model model.onnx --inputs samples.npz`. Environments:
`python -m compare.versions --list`, `--prune`.

## What is installed in them

Beside each file of pins lies its lock: every package that the pins bring along, at one version, with the SHA-256 hashes of
its files (`compare/toolchains/pins/*.txt`). An environment is installed from its lock alone, wheels only, with uv's
`--require-hashes`; a file with another hash ends the build with a sentence that names package, hash and lock, and none of
it is run. The environment's folder in the cache is named after pins, lock, Python and processor, so a changed lock is
another environment. What a hash does not cover:

- **A build of PyTorch of the machine's own.** Where pip would take `torch==2.13.0+cpu` or any other build that is not the
  public index's (a folder of wheels, an index of CPU builds), that build is taken without a hash, as `make` does for the
  project itself, and the CUDA packages of the lock are left out. Everything else is held against its hash. Only
  `litert-torch-0.10` has PyTorch.
- **The tools that install:** Python itself and uv, which the project's own lock pins by version.
- **That the files were good when they were locked.** A hash says that a file is the one that was locked, no more.
- **Another platform.** The locks are for Linux x86-64. On another one a package can be missing; the build then ends with a
  sentence that says which.

`python requirements/lock_environments.py` writes the locks again from pip's main index as of the pins' dates, all of them
or those that are named; a lock that was made for other pins is refused until then.

---

"""


def main() -> None:
    record = from_json((Path(sys.argv[1]) / "versions.json").read_bytes())
    page = markdown.render(record).partition("\n")[2].lstrip()
    Path(__file__).with_name("versions.md").write_text(HEAD + page)


if __name__ == "__main__":
    main()
