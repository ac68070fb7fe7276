"""The README's program runs as it stands there and its file is the trained network; its targets are those there are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from compare import npu

ROOT = Path(__file__).parents[2]


def program() -> str:
    (found,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "class Net" in block
    ]
    return found


def names(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_targets_has_every_one_once():
    table = (ROOT / "README.md").read_text().partition("| target | judged by |\n|---|---|\n")[2].partition("\n\n")[0]
    named = [name for line in table.splitlines() for name in names(line.split("|")[1])]
    assert sorted(named) == [each.id for each in npu.targets()]


def test_the_option_names_the_targets_of_every_run():
    (line,) = re.findall(r"^\| `--target ID`.*by default (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert names(line) == [each.id for each in npu.by_default()]


def test_it_has_25_lines():
    assert len([line for line in program().splitlines() if line.strip()]) <= 25


@pytest.mark.slow
def test_it_runs_without_a_warning_and_is_exact(tmp_path):
    text = program().replace("import bridge\n", "import bridge\ntorch.manual_seed(0)\n", 1)
    (tmp_path / "own.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith(("INFO: ", "Failed to load ", "W0", "W1"))]
    assert not said
    equal, worst = re.match(r"([\d.]+)% equal, worst (\d+) LSB", done.stdout).groups()
    assert float(equal) >= 98.5  # of another processor's float32 sums; here 99 to 100
    assert int(worst) <= 1
    assert (tmp_path / "net.tflite").exists()
