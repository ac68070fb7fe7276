"""Writes docs/versions.md from a run: `python docs/versions.py runs/versions-20260102-030405`."""

from __future__ import annotations

import sys
from pathlib import Path

from compare.versions import markdown
from compare.versions.record import from_json

HEAD = """\
# The version matrix

`python -m compare.versions` runs the same routes under pinned toolchains, each in an environment of its own, and every
file that comes out on the runtimes of all of them. It says which combinations convert, which fail and with what error,
and which lose classes without one. What follows is one run, made by the command it names.

- A **toolchain** is a small file in `compare/toolchains/pins`: a Python, a few requirements, a date. Everything the
  requirements bring along is taken as the package index had it on that date, so the set is the one a team would have got
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

Your own model: `python -m compare.versions --onnx model.onnx --inputs samples.npz`. Environments:
`python -m compare.versions --list`, `--prune`.

---

"""


def main() -> None:
    record = from_json((Path(sys.argv[1]) / "versions.json").read_bytes())
    page = markdown.render(record).partition("\n")[2].lstrip()
    Path(__file__).with_name("versions.md").write_text(HEAD + page)


if __name__ == "__main__":
    main()
