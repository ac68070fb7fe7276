"""Worker lanes: what is printed is kept, and whatever happens to a process is one job's outcome."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bridge.errors import BridgeError
from compare.running import workers
from compare.running.workers import Lane, captured
from tests import waiting


def speak(value):
    print("from Python")
    os.write(1, b"from native code\n")
    os.write(2, b"a native warning\n")
    return value * 2


def speak_natively():
    os.write(1, b"from native code\n")


def refuse():
    raise BridgeError(where="model.onnx", problem="is not readable", remedy="Export it again.")


def fail():
    raise ZeroDivisionError("no such number")


def die():
    os._exit(9)


def hang():
    time.sleep(3600)


@pytest.fixture
def lane():
    opened = Lane("test")
    yield opened
    opened.close()


def test_a_job_returns_its_value_and_all_it_printed(lane, capfd):
    outcome = lane.submit("speak", speak, 21).result()
    assert (outcome.value, outcome.error) == (42, None)
    assert sorted(outcome.log.split("\n")) == ["", "a native warning", "from Python", "from native code"]
    assert capfd.readouterr() == ("", "")


def test_capturing_gives_the_descriptors_back(capfd):
    assert captured(speak_natively, ()).log == "from native code\n"
    os.write(1, b"after\n")
    os.write(2, b"after too\n")
    assert capfd.readouterr() == ("after\n", "after too\n")


def test_a_users_error_arrives_as_its_text(lane):
    outcome = lane.submit("refuse", refuse).result()
    assert outcome.error == "model.onnx: is not readable\n  Export it again."
    assert outcome.value is None


def test_a_defect_arrives_with_its_traceback_in_the_log(lane):
    outcome = lane.submit("fail", fail).result()
    assert outcome.error == "ZeroDivisionError: no such number"
    assert "Traceback" in outcome.log


def test_a_process_that_dies_is_one_outcome_and_the_next_job_runs(lane):
    dead, alive = lane.submit("die", die), lane.submit("speak", speak, 1)
    assert "died without a word" in dead.result().error
    assert alive.result().value == 2


def test_a_job_that_hangs_is_ended_and_the_next_one_runs(lane, monkeypatch):
    assert lane.submit("speak", speak, 1).result().value == 2  # the process is up
    monkeypatch.setattr(workers, "JOB_SECONDS", 0.5)
    assert "did not finish within 0.5 s" in lane.submit("hang", hang).result().error
    monkeypatch.setattr(workers, "JOB_SECONDS", 800)
    assert lane.submit("speak", speak, 2).result().value == 4


BUSY = """
import sys, time
from compare.running.workers import Lane
from tests.compare.running.test_workers import hang_with_a_child

if __name__ == "__main__":
    lanes = [Lane("fresh"), Lane("forked", preload="colorsys")]
    for lane, file in zip(lanes, sys.argv[1:]):
        lane.submit("hang", hang_with_a_child, file)
    time.sleep(3600)
"""


def hang_with_a_child(file):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    part = Path(file + ".part")
    part.write_text(f"{os.getpid()} {child.pid}")
    part.replace(file)
    time.sleep(3600)


@pytest.mark.skipif(sys.platform != "linux", reason="what a worker started is found in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_and_what_they_started_end_with_a_program_that_is_killed(tmp_path, number):
    files = [tmp_path / "fresh", tmp_path / "forked"]
    (tmp_path / "busy.py").write_text(BUSY)
    program = subprocess.Popen(
        [sys.executable, tmp_path / "busy.py", *files], env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    )
    waiting.until(lambda: all(file.exists() for file in files) or program.poll() is not None)
    started = [psutil.Process(int(pid)) for file in files for pid in file.read_text().split()]
    program.send_signal(number)
    program.wait()
    waiting.until(lambda: not [each for each in started if is_alive(each)])


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_lane_says_when_a_jobs_turn_comes():
    heard = []
    lane = Lane("test", on_start=heard.append)
    try:
        lane.submit("first", speak, 1).result()
        lane.submit("second", speak, 1).result()
    finally:
        lane.close()
    assert heard == ["first", "second"]


def test_processes_run_on_one_thread_per_library(lane):
    assert lane.submit("environment", os.getenv, "OMP_NUM_THREADS").result().value == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork server")
def test_a_preloaded_module_is_there_before_the_first_job_of_a_forked_worker():
    lane = Lane("test", preload="colorsys")
    try:
        assert lane.submit("loaded", is_loaded, "colorsys").result().value
    finally:
        lane.close()


def is_loaded(module):
    return module in sys.modules
