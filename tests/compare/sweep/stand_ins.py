"""Programs that take the place of training in tests: fast, and as badly behaved as asked for."""

from __future__ import annotations

from pathlib import Path

from compare.sweep.limits import Order
from compare.sweep.plan import Task

ANSWERS = """
import json, sys, time
request = json.load(open(sys.argv[1]))
task = request["task"]
time.sleep({seconds})
with open({log!r}, "a") as log:
    log.write(f"{{task['network']}} {{task['seed']}}\\n")
rows = [
    dict(artifact=artifact, status="measured", reason=None, accuracy=0.9 + task["seed"] / 100, reference_accuracy=0.95,
         disagreements=task["seed"], max_lsb=1.0, equal_outputs=0.5, size=10, sha256="0" * 64, operators=5,
         float_operators=0, correct="f0", reference_correct="ff", seconds=time.time())
    for artifact in task["artifacts"]
]
json.dump(rows, open(sys.argv[2], "w"))
"""


def program(folder: Path, text: str, name: str = "program.py") -> tuple[str, ...]:
    path = folder / name
    path.write_text(text)
    return (str(path),)


def answers(folder: Path, seconds: float = 0.0) -> tuple[str, ...]:
    """Answers after a while, and notes every task it was asked for in `asked.txt`."""
    return program(folder, ANSWERS.format(seconds=seconds, log=str(folder / "asked.txt")))


def asked(folder: Path) -> list[str]:
    path = folder / "asked.txt"
    return path.read_text().splitlines() if path.exists() else []


def order(program: tuple[str, ...], seed: int = 0, *, seconds: float = 800, megabytes: int = 500) -> Order:
    task = Task(
        "mnist", "quick", seed, "torch/qat-qnnpack", "current", ("torch-exact/qat-qnnpack", "other/qat-qnnpack")
    )
    return Order(task, f"id{seed:04}", None, "0" * 64, Path("cache"), "abc", seconds, megabytes, program)
