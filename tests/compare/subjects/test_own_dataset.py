"""What a team's own data set may be: a dictionary, a loader of batches, or samples one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bridge.errors import BridgeError
from compare.subjects import own_dataset

MODULE = """
import numpy as np
X = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
Y = np.arange(4)

def arrays():
    return {"x": X, "labels": Y}

def pairs():
    return [(x, int(y)) for x, y in zip(X, Y)]

def named():
    return iter([({"a": x, "b": x[0]}, y) for x, y in zip(X, Y)])

def mapped():
    class Data:
        def __len__(self):
            return 4
        def __getitem__(self, index):
            return X[index], Y[index]
    return Data()

def loader():
    import torch
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(data, batch_size=3)

def bare():
    return (x for x in X)

def endless():
    while True:
        yield X[0], 1

def nothing():
    return []

def ragged():
    return [X[0], X[0][:1]]

def words():
    return ["one"]

def number():
    return 3

def breaking():
    yield X[0]
    raise OSError("disk gone")
"""


@pytest.fixture(autouse=True)
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("team_data.py").write_text(MODULE)


def arrays(name: str) -> dict[str, np.ndarray]:
    found, said = own_dataset.arrays_of(f"team_data:{name}")
    assert said == ()
    return found


X = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


@pytest.mark.parametrize("name", ["pairs", "mapped", "loader"])
def test_pairs_are_samples_with_labels(name: str) -> None:
    found = arrays(name)
    assert set(found) == {"input", "labels"}
    np.testing.assert_array_equal(found["input"], X)
    np.testing.assert_array_equal(found["labels"], np.arange(4))


def test_a_dictionary_is_taken_whole_and_samples_may_be_dictionaries() -> None:
    np.testing.assert_array_equal(arrays("arrays")["x"], X)
    named = arrays("named")
    assert (named["a"].shape, named["b"].shape, named["labels"].shape) == ((4, 2, 3), (4, 3), (4,))
    assert arrays("bare")["input"].shape == (4, 2, 3)


def test_a_generator_without_end_is_cut_off_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_dataset, "MOST_SAMPLES", 7)
    found, said = own_dataset.arrays_of("team_data:endless")
    assert len(found["input"]) == 7
    assert said == ("Of --dataset team_data:endless the first 7 samples were used.",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "gives no samples"),
        ("ragged", "samples of different shapes"),
        ("words", "no array of numbers"),
        ("number", "TypeError"),
        ("breaking", "OSError: disk gone"),
        ("missing", "AttributeError"),
    ],
)
def test_what_gives_no_samples_is_refused_with_what_it_said(name: str, says: str) -> None:
    with pytest.raises(BridgeError, match=f"--dataset team_data:{name}.*{says}"):
        own_dataset.arrays_of(f"team_data:{name}")
