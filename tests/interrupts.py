"""A command of ours in a process group of its own, for a test to interrupt it as Ctrl-C does in a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def start(*arguments: str, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
    """`python -m` with these arguments; what it says is piped."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        start_new_session=True,
        # Under nohup, or in a shell's background, this process ignores SIGINT, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no other thread here
    )


def interrupt(process: subprocess.Popen[str]) -> None:
    """SIGINT to the whole group, its children included."""
    os.killpg(process.pid, signal.SIGINT)
