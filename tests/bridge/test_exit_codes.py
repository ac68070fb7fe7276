"""Every command ends with a code of one table, and nothing a file is called acts on the terminal."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bridge import exit_codes
from bridge.errors import BridgeError, printable
from bridge.exit_codes import ends_properly
from bridge.terminal import Terminal
from tests import waiting

ROOT = Path(exit_codes.__file__).parents[1]
COMMANDS = {  # module, what its body calls first, arguments that lead there
    "bridge.__main__": ("_convert", ["model.onnx"]),
    "compare.run.__main__": ("_run", ["--target", "none"]),
    "compare.doctor": ("_models", []),
    "compare.npu.__main__": ("_read", ["model.tflite"]),
    "compare.versions.__main__": ("_mnist", []),
    "compare.sweep.__main__": ("_check_packages", []),
}
ENDS = [
    (BridgeError(where="here", problem="is wrong", remedy="Mend it."), 2, "here: is wrong\n  Mend it."),
    (
        BridgeError(where="\x1b[31mred", problem="\u202eback", remedy="\udc80"),
        2,
        "\\x1b[31mred: \\u202eback\n  \\udc80",
    ),
    (typer.Exit(1), 1, ""),
    (KeyboardInterrupt(), 130, ""),
    (exit_codes.Terminated(), 143, ""),
    (MemoryError(), 2, "memory: is not enough"),
    (RecursionError(), 2, "nested deeper"),
    (ModuleNotFoundError("No module named 'onnx'", name="onnx.inliner"), 2, "package 'onnx': is needed"),
    (ModuleNotFoundError("No module named 'bridge.gone'", name="bridge.gone"), 70, "defect of ours"),
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/full"), 2, "/disk/full: cannot be used (No space left"),
    (OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/gone"), 70, "FileNotFoundError"),
    (AssertionError("a\x1b[2Jb"), 70, "AssertionError: a\\x1b[2Jb\n  Please report it"),
    (SystemExit("a library gave up"), 2, ""),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("raised", "code", "said"), ENDS, ids=lambda each: type(each).__name__)
def test_every_command_ends_with_the_code_of_the_table(command, raised, code, said, monkeypatch):
    module = importlib.import_module(command)
    first, arguments = COMMANDS[command]

    def fails(*_, **__):
        raise raised

    monkeypatch.setattr(module, first, fails)
    result = CliRunner().invoke(module.app, arguments)

    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_traceback_is_shown_when_asked_for_and_wrong_usage_is_2(command, monkeypatch):
    module = importlib.import_module(command)
    first, arguments = COMMANDS[command]

    def fails(*_, **__):
        raise AssertionError("ours")

    monkeypatch.setattr(module, first, fails)

    assert "Traceback" in CliRunner().invoke(module.app, [*arguments, "--traceback"]).stderr
    assert CliRunner().invoke(module.app, ["--no-such-option"]).exit_code == 2


def test_the_table_is_the_one_in_the_code():
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", exit_codes.__doc__ or "", re.M)}
    named = ("DONE", "MISSED", "USAGE", "DEFECT", "INTERRUPTED", "TERMINATED")
    assert listed == {getattr(exit_codes, name) for name in named}


def test_commands_print_through_the_one_terminal():
    for path in (*ROOT.glob("bridge/**/*.py"), *ROOT.glob("compare/**/*.py")):
        if path.name != "terminal.py":
            assert not re.search(r"[^\w]Console\(", path.read_text()), path


# What a name may hold


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1/weight", "conv1/weight"),
        ("größe − 層", "größe − 層"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("\x9b31m\x7f\r\t", "\\x9b31m\\x7f\\r\\t"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a\\u202eb\\u2066c\\u200bd\\ufeff"),
        ("\udcff\u2028", "\\udcff\\u2028"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text, shown):
    assert printable(text) == shown


def test_a_line_break_in_a_name_does_not_look_like_a_second_error():
    error = BridgeError(where="node 'a\nmodel.onnx: is fine'", problem="is not\nb", remedy="There is c\nand d.")
    assert str(error).splitlines() == ["node 'a\\nmodel.onnx: is fine': is not\\nb", "  There is c\\nand d."]


def test_a_line_break_in_a_name_does_not_look_like_a_second_line_of_a_report(capsys):
    Terminal(soft_wrap=True).print_line("  Conv 'a\nNot checked: nothing.' [red]: 3.0 LSB")
    assert capsys.readouterr().out == "  Conv 'a\\nNot checked: nothing.' [red]: 3.0 LSB\n"


def test_the_terminal_keeps_its_own_colours_and_spells_out_those_of_others(capsys):
    console = Terminal(force_terminal=True, color_system="standard", legacy_windows=False, highlight=False)
    console.print("a\x1b[2Jb\u202e", style="red", markup=False)

    assert "\x1b[31ma\\x1b[2Jb\\u202e" in capsys.readouterr().out


# Real processes


def run(code: str, *arguments: str, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=waiting.LONG,
        check=False,
        **options,
    )


HEAD = "import sys; sys.path.insert(0, %r); " % str(ROOT)  # noqa: UP031 - reads best with the code around it


def test_a_package_that_is_missing_is_named():
    done = run(HEAD + "sys.modules['onnx'] = None; from bridge.__main__ import app; app()", "model.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "package 'onnx': is needed for this" in done.stderr
    assert "Traceback" not in done.stderr


PRINTS = (
    HEAD + "import typer; from bridge.exit_codes import ends_properly; from bridge.terminal import Terminal, write\n"
    "app = typer.Typer()\n@app.command()\n@ends_properly\ndef main() -> None:\n    "
)


@pytest.mark.parametrize("how", ["write('x' * 10)", "write('x' * 10 ** 6)", "Terminal().print('x' * 10 ** 6)"])
def test_a_reader_that_went_away_is_a_sentence(how):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS + how + "\napp()"],
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=waiting.LONG, check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 2
    assert done.stderr.startswith("standard output: was closed before everything was printed")
    assert "BrokenPipe" not in done.stderr


def test_a_full_disk_behind_standard_output_is_a_sentence():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS + "write('x')\napp()"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=waiting.LONG, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", [name.removesuffix(".__main__") for name in COMMANDS])
@pytest.mark.parametrize("behind", ["a full disk", "nobody"])
def test_help_that_cannot_be_printed_is_a_sentence_too(module, behind):
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT,
            stdout=full if behind == "a full disk" else writing, stderr=subprocess.PIPE, text=True,
            timeout=waiting.LONG, check=False,
        )  # fmt: skip
    os.close(writing)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2, done.stderr


def test_wrong_usage_keeps_its_code_where_nothing_can_be_printed():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bridge", "--no-such-option"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=full, timeout=waiting.LONG, check=False,
        )  # fmt: skip
    assert done.returncode == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_with_its_code_after_tidying_up(number, code, tmp_path):
    body = (
        "import time, pathlib\n    try:\n        pathlib.Path(sys.argv[1]).touch(); time.sleep(3600)\n"
        "    finally:\n        pathlib.Path(sys.argv[1]).unlink()\napp([])"
    )
    part = tmp_path / "half"
    with subprocess.Popen(
        [sys.executable, "-c", PRINTS + body, str(part)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Under nohup, or in a shell's background, SIGINT is ignored, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no other thread here
    ) as started:  # fmt: skip
        waiting.until(lambda: part.exists() or started.poll() is not None)
        started.send_signal(number)
        _, said = started.communicate(timeout=waiting.LONG)
    assert started.returncode == code
    assert not part.exists()
    assert "Traceback" not in said


def test_arguments_of_the_command_stay_as_they_are():
    @ends_properly
    def main(size: int = 3) -> None:
        raise typer.Exit(size)

    app = typer.Typer()
    app.command()(main)
    assert CliRunner().invoke(app, ["--size", "5"]).exit_code == 5


def test_a_name_of_a_million_characters_is_shortened_and_printed_at_once(capsys):
    error = BridgeError(where="n" * 10**6, problem="is wrong", remedy="Mend it.")
    assert "[997,000 characters left out] " in str(error)
    Terminal().print("n" * 10**6, markup=False)
    assert len(capsys.readouterr().out) > 10**6
