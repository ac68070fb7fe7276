"""The ARM bench, a small part of it: kernels for ARM really run, by emulation, where apt and the network are there."""

from __future__ import annotations

import fcntl

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.arm import __main__ as bench
from benchmarks.arm import crafted, machine, networks
from benchmarks.arm.jobs import HOST, Jobs
from benchmarks.arm.machine import CORES
from benchmarks.arm.page import ROUNDED_OTHERWISE, Apart, Figures, apart, on_core, page, unexplained
from bridge.errors import BridgeError
from bridge.exact.pair_sums import with_weights
from bridge.exact.writer import write
from compare.mismatches.parts import arm_sums
from compare.toolchains.environments import cache_folder

pytest.importorskip("ai_edge_litert")

TESTED = [CORES["a53"], CORES["a72"]]
"""One core of each kind: the A55 has the A53's depthwise kernels, and dot products for the rest."""
SECONDS = 300
"""For one process; it computes for seven of them."""
FETCHED_WITHIN = 600
"""Of the 900 s that a test has."""


@pytest.fixture(scope="module")
def arm():
    """The emulated machine, fetched once into the user's cache; without apt, the network or time for it, a skip."""
    try:
        return machine.ready(cache_folder(), FETCHED_WITHIN)
    except BridgeError as error:
        pytest.skip(f"{error.where} {error.problem}")


@pytest.mark.slow
def test_the_emulated_machine_is_there_or_its_reason_is(arm):
    """Alone and first, so that the download has a test's time for itself."""
    assert arm.about().startswith("QEMU ")


@pytest.fixture(scope="module")
def figures(arm, tmp_path_factory):
    """Crafted files, the box filter and a few drawn graphs, run here and on two cores: one process each."""
    jobs = Jobs(tmp_path_factory.mktemp("jobs"))
    made = Figures()
    for file in crafted.files(seed=1):
        safe = write(with_weights("safe", file.graph))
        names = [jobs.add(content, file.inputs, bench.KERNEL_SETS) for content in (write(file.graph), safe)]
        made.crafted.append((file.op, *names))
    for network in networks.drawn(100, 8):
        made.networks.append((network.name, network.graph, jobs.add(write(network.graph), network.inputs)))
        made.operators += [(each.op, jobs.add(each.tflite, each.inputs)) for each in networks.operators(network)]
    if pytest.importorskip("torch"):
        bench.add_box_filter(jobs, made, seed=0)
    jobs.run_here(SECONDS)
    jobs.run_on(arm, TESTED, SECONDS)
    return jobs, made


@pytest.mark.slow
def test_weights_made_safe_give_every_bit_of_x86_on_arm(figures):
    jobs, made = figures
    for op, _, safe in made.crafted:
        for core in TESTED:
            assert on_core(jobs, safe, core).same, (op, core.name)


@pytest.mark.slow
def test_weights_as_trained_are_wrong_on_arm_as_the_numpy_form_says(figures):
    """Bit for bit: the catalogue's reproduction (M81) is the kernels' own arithmetic."""
    jobs, made = figures
    seen = set()
    for file, (op, trained, _) in zip(crafted.files(seed=1), made.crafted, strict=True):
        for core in TESTED:
            if op not in ("DEPTHWISE_CONV_2D", "CONV_2D", "FULLY_CONNECTED"):
                continue
            wraps = op == "DEPTHWISE_CONV_2D" or core.name == "a72"
            (got,) = jobs.outputs(trained, core.name)
            expected = np.stack([arm_sums.outputs(file.graph, x, wraps=wraps) for x in file.inputs["x"]])
            assert (got == expected.reshape(got.shape)).all(), (op, core.name)
            if not on_core(jobs, trained, core).same:
                seen.add((op, core.name))
    assert seen == {
        ("DEPTHWISE_CONV_2D", "a53"), ("DEPTHWISE_CONV_2D", "a72"), ("CONV_2D", "a72"), ("FULLY_CONNECTED", "a72"),
    }  # fmt: skip


@pytest.mark.slow
def test_a_product_of_two_computed_tensors_needs_its_maximum(figures):
    jobs, made = figures
    far = [on_core(jobs, trained, CORES["a72"]).worst for op, trained, _ in made.crafted if op == "BATCH_MATMUL"]
    assert max(far) > 100


@pytest.mark.slow
def test_drawn_graphs_are_equal_but_for_the_operators_that_are_named(figures):
    jobs, made = figures
    assert unexplained(made, jobs, TESTED) == []
    different = {op for op, name in made.operators for core in TESTED if not on_core(jobs, name, core).same}
    assert different <= set(ROUNDED_OTHERWISE)


@pytest.mark.slow
def test_the_box_filter_is_equal_everywhere_by_default_and_far_off_as_trained(figures):
    jobs, made = figures
    found = {weights: (name, expected) for weights, name, expected in made.box_filter}
    for core in TESTED:
        assert on_core(jobs, found["safe"][0], core).same
        kept, expected = found["keep"]
        assert apart(jobs.outputs(kept, HOST), [expected]).worst <= 1
        assert apart(jobs.outputs(kept, core.name), [expected]).worst > 100


@pytest.mark.slow
def test_the_page_names_every_operator_and_core_that_was_run(figures):
    jobs, made = figures
    text = page(made, jobs, TESTED, "QEMU", "--graphs 8")
    assert "Cortex-A53 | Cortex-A72" in text
    assert all(f"| {op} |" in text for op, _ in made.operators)
    assert "did not run" not in text


# Without an emulator.


def app() -> typer.Typer:
    program = typer.Typer()
    program.command()(bench.main)
    return program


def test_a_file_that_litert_refuses_and_one_that_is_run_before_are_told_apart(tmp_path):
    jobs = Jobs(tmp_path)
    file = next(crafted.files(seed=0))
    good = jobs.add(write(file.graph), file.inputs)
    bad = jobs.add(b"not a file", {"x": np.zeros((1, 1), np.int8)})
    jobs.run_here(SECONDS)
    assert jobs.outputs(good, HOST) is not None
    assert jobs.outputs(bad, HOST) is None
    assert jobs.failed[HOST, bad].startswith("xnnpack refuses it: ")

    again = Jobs(tmp_path)
    assert again.add(write(file.graph), file.inputs) == good
    (tmp_path / f"{good}.tflite").unlink()  # what an earlier run has done is not done again
    again.run_here(SECONDS)
    assert again.outputs(good, HOST) is not None
    assert again.failed == {}


def test_a_process_that_takes_too_long_is_ended_and_said(tmp_path):
    jobs = Jobs(tmp_path)
    file = next(crafted.files(seed=0))
    jobs.add(write(file.graph), file.inputs)
    with pytest.raises(BridgeError, match="LiteRT on x86: had done 0 files after 0 s"):
        jobs.run_here(0.01)


def test_a_job_that_ends_the_process_costs_that_job_only(tmp_path, monkeypatch):
    jobs = Jobs(tmp_path)
    made = [jobs.add(write(file.graph), file.inputs) for file in list(crafted.files(seed=0))[:3]]
    program = tmp_path / "dies.py"
    program.write_text(
        "import json, os, sys\n"
        "for name, _ in json.load(open(sys.argv[1])):\n"
        "    print(json.dumps({'start': name}), flush=True)\n"
        f"    if name == {made[1]!r}: os.abort()\n"
        "    print(json.dumps({'done': name, 'refused': {}}), flush=True)\n"
    )
    monkeypatch.setattr("benchmarks.arm.jobs.INSIDE", program)
    jobs.run_here(SECONDS)
    assert jobs.failed == {(HOST, made[1]): "the process ended (signal 6)"}


def test_differences_are_counted_in_outputs_lsb_and_classes():
    one = [np.array([[[1, 5, 3]], [[0, 0, 9]]], np.int8)]
    other = [np.array([[[6, 5, 3]], [[0, 0, 9]]], np.int8)]
    found = apart(one, other)
    assert (found.outputs, found.equal, found.worst, found.classes) == (6, 5, 5.0, 1)
    assert str(found) == "83.33%, 5 LSB, 1 classes"
    assert str(apart(one, one)) == "every bit"
    assert str(Apart(100_000, 99_999, 1.0)) == "over 99.99%, 1 LSB"


@pytest.mark.parametrize("tool", ["apt-get", "dpkg"])
def test_a_missing_tool_is_one_sentence_and_exit_code_2(tool, tmp_path, monkeypatch):
    found = machine.shutil.which
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name == tool else found(name))
    done = CliRunner().invoke(app(), ["--cache", str(tmp_path)])
    assert done.exit_code == 2
    assert f"needs {tool}, which is not installed" in done.output


def test_apts_own_reason_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/none"; Dir::Etc::sourceparts "{tmp_path}/no";'
    )
    if machine.shutil.which("apt-get") is None:
        pytest.skip("there is no apt here")
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name.startswith("qemu") else f"/usr/bin/{name}")
    done = CliRunner().invoke(app(), ["--cache", str(tmp_path / "cache")])
    assert done.exit_code == 2
    assert "the emulated ARM machine: needs one of the packages qemu-user-static" in done.output
    assert not list((tmp_path / "cache").rglob(".complete"))


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Shell scripts in place of the machine's own tools, by name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**by_name: str) -> None:
        for name, text in by_name.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)

    put(apt_get="exit 0", apt_cache="exit 0", dpkg="exit 0")
    return put


def test_a_network_that_is_not_there_is_the_reason_and_not_apts_sources(tmp_path, scripts):
    """apt-get update warns of sources that it cannot reach, and ends with code 0."""
    scripts(apt_get="echo 'W: Failed to fetch http://mirror/InRelease  Could not connect to mirror:80' >&2")
    done = CliRunner().invoke(app(), ["--cache", str(tmp_path / "cache")])
    assert done.exit_code == 2
    assert "apt said: Failed to fetch http://mirror/InRelease" in done.output


@pytest.mark.usefixtures("scripts")
def test_sources_without_the_package_are_the_reason_where_all_of_them_were_reached(tmp_path):
    done = CliRunner().invoke(app(), ["--cache", str(tmp_path / "cache")])
    assert done.exit_code == 2
    assert "apt's sources have none of them" in done.output


def test_a_download_that_does_not_end_is_given_up(tmp_path, scripts):
    scripts(apt_get="exec /bin/sleep 600")
    with pytest.raises(BridgeError, match="cannot be fetched in time: apt-get had not ended"):
        machine.ready(tmp_path / "cache", 0.2)


@pytest.mark.usefixtures("scripts")
def test_a_download_by_another_process_is_waited_for_and_then_given_up(tmp_path):
    with pytest.raises(BridgeError):  # makes the lock file
        machine.ready(tmp_path, 60)
    (lock,) = (tmp_path / "arm").glob("*.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BridgeError, match="is being fetched by another process"):
            machine.ready(tmp_path, 0.5)


def test_a_core_that_cannot_start_ends_the_run_on_the_others(tmp_path):
    class Broken:
        """The A53 ends at once, the A72 never says a word."""

        def command(self, core, *_):
            return ["/bin/sh", "-c", "exit 3" if core.name == "a53" else "exec /bin/sleep 600"]

        def variables(self):
            return {}

    jobs = Jobs(tmp_path)
    file = next(crafted.files(seed=0))
    jobs.add(write(file.graph), file.inputs)
    with pytest.raises(BridgeError, match="LiteRT on a53: ends with code 3 before it runs a file"):
        jobs.run_on(Broken(), TESTED, 1000)  # longer than a test may take
    assert jobs.failed == {}


def test_an_unknown_core_is_one_sentence_and_exit_code_2(tmp_path):
    done = CliRunner().invoke(app(), ["--cores", "a53,a99", "--cache", str(tmp_path)])
    assert done.exit_code == 2
    assert "has 'a99', which is not described here" in done.output


def test_a_core_describes_itself_as_linux_does(tmp_path):
    made = machine.Machine(tmp_path, tmp_path / "qemu", "3.11")
    (tmp_path / "root" / "usr").mkdir(parents=True)
    (tmp_path / "root" / "etc").mkdir()
    command = made.command(CORES["a55"], tmp_path / "program.py", "x")
    root = command[command.index("-L") + 1]
    assert command[1:3] == ["-cpu", "cortex-a76"]
    assert (root / "usr").resolve() == tmp_path / "root" / "usr"
    said = (root / "proc" / "cpuinfo").read_text()
    assert said.count("CPU part\t: 0xd05\n") == 2
    assert "asimddp" in said
