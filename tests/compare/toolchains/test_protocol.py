"""Work for a toolchain: every job is answered, whatever it does to its process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compare.toolchains.protocol import WORKER, Answer, Work, work
from tests import waiting

JOBS = """
@job
def says(text):
    print(text)
    os.write(2, b"from native code\\n")
    return {"text": text}


@job
def fails():
    try:
        [][1]
    except IndexError:
        sys.exit(1)


@job
def crashes():
    print("about to crash", flush=True)
    os.abort()


@job
def hangs():
    time.sleep(3600)


@job
def says_its_number_and_hangs(file):
    Path(file + ".part").write_text(str(os.getpid()))
    Path(file + ".part").replace(file)
    time.sleep(3600)


@job
def leaves(status):
    os._exit(status)


@job
def babbles():
    Path("babbles.json").write_text("[1, 2")
    os._exit(0)


@job
def eats(megabytes):
    kept = b"x" * (megabytes << 20)
    time.sleep(0.3)  # after its peak, which the system keeps
    return {"kept": len(kept)}


@job
def starts_a_child():
    import subprocess
    return {"pid": subprocess.Popen(["sleep", "3600"]).pid}
"""


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real worker, with jobs that misbehave."""
    before, main, after = WORKER.read_text().partition('if __name__ == "__main__":')
    path = tmp_path_factory.mktemp("worker") / "worker.py"
    path.write_text(before + JOBS + "\n\n" + main + after)
    return path


def done(worker: Path, folder: Path, *jobs: Work, seconds: float = 800) -> list[Answer]:
    return list(work(Path(sys.executable), jobs, folder, seconds=seconds, worker=worker))


def test_a_job_is_answered_with_its_facts_what_it_printed_and_what_is_installed(worker: Path, tmp_path: Path) -> None:
    (answer,) = done(worker, tmp_path, Work("a", "says", {"text": "hello"}))
    assert answer.problem is None
    assert answer.facts == {"text": "hello"}
    assert answer.log == "from native code\nhello\n" or answer.log == "hello\nfrom native code\n"
    assert answer.versions["python"] == sys.version.split()[0]
    assert "numpy" in answer.versions
    assert answer.peak_bytes > 1_000_000


def test_an_error_is_told_by_the_one_that_came_first(worker: Path, tmp_path: Path) -> None:
    (answer,) = done(worker, tmp_path, Work("a", "fails"))
    assert answer.problem == "IndexError: list index out of range"
    assert "SystemExit: 1" in answer.log


def test_a_crash_is_one_jobs_answer_and_the_others_are_done(worker: Path, tmp_path: Path) -> None:
    one, crashed, other = done(
        worker,
        tmp_path,
        Work("one", "says", {"text": "1"}),
        Work("bad", "crashes"),
        Work("other", "says", {"text": "2"}),
    )
    assert (one.problem, other.problem) == (None, None)
    assert crashed.problem == "crashed with SIGABRT; last said: about to crash"


def test_a_job_that_hangs_is_ended_and_the_others_are_done(worker: Path, tmp_path: Path) -> None:
    # The limit holds for the other job, too, the start of its process included: far more than a busy machine takes.
    hung, other = done(worker, tmp_path, Work("bad", "hangs"), Work("other", "says", {"text": "2"}), seconds=20)
    assert hung.problem == "did not finish within 20 s"
    assert other.problem is None


@pytest.mark.parametrize(
    ("status", "said"), [(0, "ended without an answer"), (3, "ended with exit code 3")], ids=["silently", "with-a-code"]
)
def test_one_that_leaves_without_a_word_is_answered_with_that(
    worker: Path, tmp_path: Path, status: int, said: str
) -> None:
    (answer,) = done(worker, tmp_path, Work("a", "leaves", {"status": status}))
    assert answer.problem == said


def test_garbage_for_an_answer_is_said_to_be_that(worker: Path, tmp_path: Path) -> None:
    (answer,) = done(worker, tmp_path, Work("babbles", "babbles"))
    assert answer.problem is not None
    assert answer.problem.startswith("answered with garbage")
    assert answer.versions == {}


def test_a_job_that_does_not_exist_is_an_error_of_that_job(worker: Path, tmp_path: Path) -> None:
    (answer,) = done(worker, tmp_path, Work("a", "dances"))
    assert answer.problem == "KeyError: 'dances'"


def test_the_memory_figure_is_the_most_that_was_held(worker: Path, tmp_path: Path) -> None:
    little = done(worker, tmp_path / "1", Work("a", "eats", {"megabytes": 1}))[0].peak_bytes
    much = done(worker, tmp_path / "2", Work("a", "eats", {"megabytes": 200}))[0].peak_bytes
    assert 190e6 < much - little < 260e6


def test_what_a_job_started_does_not_outlive_its_worker(worker: Path, tmp_path: Path) -> None:
    (answer,) = done(worker, tmp_path, Work("a", "starts_a_child".replace("_", "-")))
    words = Path(f"/proc/{answer.facts['pid']}/cmdline")

    def ended():
        try:
            return not words.read_bytes()  # not yet collected by init
        except OSError:
            return True

    waiting.until(ended)


STARTS_ONE = """
import sys
from pathlib import Path
from compare.toolchains.protocol import Work, work

hanging = Work("a", "says-its-number-and-hangs", {"file": sys.argv[3]})
work(Path(sys.executable), [hanging], Path(sys.argv[2]), worker=Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it")
def test_a_worker_ends_with_a_program_that_is_killed(worker: Path, tmp_path: Path) -> None:
    number = tmp_path / "number"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, worker, tmp_path / "work", number],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    waiting.until(lambda: number.exists() or starter.poll() is not None)
    words = Path(f"/proc/{number.read_text()}/cmdline")
    assert words.read_bytes()
    starter.kill()
    starter.wait()

    def ended() -> bool:
        try:
            return not words.read_bytes()  # not yet collected by init
        except OSError:
            return True

    waiting.until(ended)


def test_answers_are_heard_job_by_job(worker: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    jobs = [Work("a", "crashes"), Work("b", "says", {"text": "b"})]
    work(Path(sys.executable), jobs, tmp_path, 800, worker, answered=lambda answer: heard.append(answer.work.name))
    assert heard == ["a", "b"]


def test_files_beside_the_worker_bring_jobs_and_what_these_import(tmp_path: Path) -> None:
    jobs, helper = tmp_path / "brings_jobs.py", tmp_path / "helps.py"
    jobs.write_text("import helps\nJOBS = {'helps': lambda: {'said': helps.SAID}}\n")
    helper.write_text("SAID = 'here'\n")
    (answer,) = work(Path(sys.executable), [Work("one", "helps")], tmp_path / "work", more=[jobs, helper])
    assert (answer.problem, dict(answer.facts)) == (None, {"said": "here"})


def test_a_name_that_is_no_file_name_is_our_own_defect() -> None:
    with pytest.raises(AssertionError):
        Work("../a", "nothing")


def test_the_worker_needs_nothing_but_its_one_file(tmp_path: Path) -> None:
    """In an interpreter without a single package, in a folder without anything of ours."""
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (answer,) = work(tmp_path / "bare" / "bin" / "python", [Work("a", "nothing")], tmp_path / "work")
    assert answer.problem is None
    assert set(answer.versions) == {"python"}


def test_the_environment_of_this_process_does_not_reach_the_worker(
    worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text = worker.read_text().replace('return {"text": text}', "return dict(os.environ)")
    changed = tmp_path / "worker-2.py"
    changed.write_text(text)
    (answer,) = done(changed, tmp_path / "work", Work("a", "says", {"text": ""}))
    assert "TF_USE_LEGACY_KERAS" not in answer.facts
    assert "PYTHONPATH" not in answer.facts
    assert answer.facts["OMP_NUM_THREADS"] == "1"
