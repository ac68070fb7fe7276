"""Latencies: the interval by order statistics, the turns, and a network whose arithmetic decides."""

import itertools
import math

import numpy as np
import pytest

from bridge.errors import BridgeError
from bridge.exact.graph import Node
from bridge.exact.writer import write
from compare.measuring import latency
from compare.measuring.latency import Timing, interleaved, interval_ranks, timing
from compare.subjects.mnist import larger_network
from tests.builders import activation, graph_of


@pytest.mark.parametrize("count", range(1, 40))
def test_the_ranks_are_the_closest_that_hold_the_median_often_enough(count):
    low, high = interval_ranks(count)
    assert 0 <= low <= high == count - 1 - low

    def missed(place):
        return 2 * sum(math.comb(count, below) for below in range(place + 1)) / 2**count

    assert missed(low) <= 0.05 or low == 0
    assert low + 1 >= count // 2 or missed(low + 1) > 0.05


def test_fifteen_rounds_give_the_fourth_and_the_twelfth():
    assert interval_ranks(15) == (3, 11)  # 2 * (1 + 15 + 105 + 455) / 2^15 = 0.035


def test_the_interval_holds_the_median_as_often_as_it_says():
    """Of a skewed distribution, as latencies are."""
    random = np.random.default_rng(0)
    low, high = interval_ranks(15)
    drawn = np.sort(random.exponential(1.0, (20_000, 15)), axis=1)
    held = (drawn[:, low] <= math.log(2)) & (math.log(2) <= drawn[:, high])
    assert 0.95 <= held.mean() <= 0.98


def test_a_round_counts_once_however_slow_its_worst_inference_was():
    turns = [np.array([0.001, 0.001, 0.5]) for _ in range(14)] + [np.array([0.002] * 3)]
    found = timing(turns)
    assert (found.median_ms, found.low_ms, found.high_ms) == (1, 1, 1)
    assert found.p90_ms == 500


def plain(scale: float) -> bytes:
    x, y = activation("x", (1, 4), scale), activation("y", (1, 4), scale)
    return write(graph_of([Node("ADD", "a", ("x", "x"), ("y",))], [x, y], ["y"]))


def test_every_file_has_its_turn_in_every_round_and_the_order_changes(monkeypatch):
    turns = []
    monkeypatch.setattr(latency, "_warm", lambda content: content)
    monkeypatch.setattr(latency, "_runs", lambda _: 3)
    monkeypatch.setattr(latency, "_turn", lambda ready, runs: turns.append(ready) or np.full(runs, 0.001))
    found = interleaved({"a": b"a", "b": b"b", "c": b"c"}, rounds=20)
    assert found == dict.fromkeys("abc", Timing(1, 1, 1, 1))
    rounds = [tuple(turns[start : start + 3]) for start in range(0, 60, 3)]
    assert {frozenset(each) for each in rounds} == {frozenset({b"a", b"b", b"c"})}
    assert len(set(rounds)) > 3


def test_what_slows_the_machine_down_for_a_while_slows_all_files_down(monkeypatch):
    """A clock that runs five times as fast in a third of the rounds: one after the other, the last file would pay for it."""
    count = itertools.count()

    def turn(ready, runs):  # noqa: ARG001 - the form of the one it stands for
        round_ = next(count) // 2
        return np.full(runs, 0.001 * (5 if round_ >= 10 else 1))

    monkeypatch.setattr(latency, "_warm", lambda content: content)
    monkeypatch.setattr(latency, "_runs", lambda _: 1)
    monkeypatch.setattr(latency, "_turn", turn)
    found = interleaved({"a": b"", "b": b""}, rounds=15)
    assert found["a"] == found["b"]
    assert found["a"].median_ms == 1


def test_real_files_are_timed_and_one_that_is_refused_is_a_sentence():
    found = interleaved({"a": plain(0.5), "b": plain(0.25)}, rounds=3)
    for each in found.values():
        assert 0 < each.low_ms <= each.median_ms <= each.high_ms
    with pytest.raises(BridgeError, match="LiteRT refuses the model"):
        interleaved({"junk": b"TFL3"})


@pytest.mark.slow
def test_the_larger_network_is_made_once_and_its_arithmetic_is_what_takes_the_time(tmp_path, monkeypatch):
    made = larger_network.files(tmp_path)
    assert set(made) == {f"larger/{name}" for name in larger_network.WANTED}
    monkeypatch.setattr(larger_network, "_made", lambda: pytest.fail("made again"))
    assert larger_network.files(tmp_path) == made

    from compare.tflite.file import read
    from compare.tflite.graph import open_tflite
    from compare.tflite.macs import macs

    for name, content in made.items():
        graph = open_tflite(content).graph
        assert sum(macs(graph, node) or 0 for node in graph.nodes) > 10_000_000
        file = read(content, name)
        integer = [file.is_integer(each) for each in file.operators if each.name == "CONV_2D"]
        assert integer == [name != "larger/qat-dense/dynamic-range"] * 2
