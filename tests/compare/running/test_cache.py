"""The cache of trained networks."""

import hashlib

import numpy as np
import pytest

from compare.running import cache

ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.int64(7)}


def test_what_was_stored_comes_back_and_nothing_else(tmp_path):
    cache.store(tmp_path / "new" / "folder", "a", ARRAYS)
    found = cache.load(tmp_path / "new" / "folder", "a")
    assert set(found) == {"weight", "steps"}
    assert np.array_equal(found["weight"], ARRAYS["weight"])
    assert found["steps"] == 7


def test_an_unknown_address_is_none(tmp_path):
    assert cache.load(tmp_path, "nothing") is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:40], lambda b: b[:0], lambda b: b[:99] + b"?" + b[100:]]
)
def test_a_damaged_entry_is_noticed_and_removed(tmp_path, damage):
    cache.store(tmp_path, "a", ARRAYS)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load(tmp_path, "a") is None
    assert not path.exists()


def test_an_entry_with_a_right_digest_but_no_arrays_is_removed(tmp_path):
    garbage = b"not a zip"
    (tmp_path / "a.network").write_bytes(hashlib.sha256(garbage).digest() + garbage)
    assert cache.load(tmp_path, "a") is None
    assert not (tmp_path / "a.network").exists()


def test_a_pickle_is_never_loaded(tmp_path):
    cache.store(tmp_path, "a", {"evil": np.array([object()], dtype=object)})
    assert cache.load(tmp_path, "a") is None


def test_the_address_depends_on_every_fact_and_not_on_their_order():
    facts = {"seed": 0, "data": "abc", "versions": {"torch": "2.13.0"}}
    assert cache.key(facts) == cache.key(dict(reversed(facts.items())))
    changed = [facts | {"seed": 1}, facts | {"data": "abd"}, facts | {"versions": {"torch": "2.14.0"}}]
    assert len({cache.key(one) for one in [facts, *changed]}) == 4


def test_a_digest_tells_values_shapes_and_names_apart():
    one = np.zeros(4, np.float32)
    others = [{"a": one}, {"b": one}, {"a": one.reshape(2, 2)}, {"a": one + 1}, {"a": one.astype(np.float64)}]
    assert len({cache.digest(arrays) for arrays in others}) == len(others)
