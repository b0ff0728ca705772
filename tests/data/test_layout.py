"""What a default encoder is told of a modality, whatever the split."""

import numpy as np
import pytest
import torch

from counterpoise import Table, from_arrays


def data():
    n = 40
    inputs = {
        "vector": np.ones((n, 5)),
        "series": np.ones((n, 7, 3)),
        "picture": np.ones((n, 1, 8, 8)),
        "tokens": np.ones((n, 9), np.int64),
    }
    return from_arrays(inputs, np.arange(n) % 2, present={"vector": np.arange(n) % 5 != 0})


@pytest.mark.parametrize(
    ("modality", "kind", "shape"),
    [("vector", "array", (5,)), ("series", "sequence", (7, 3)), ("picture", "image", (1, 8, 8))],
)
def test_numbers_in_memory_are_known_by_their_axes(modality, kind, shape):
    train = data().train
    assert train.layout(modality) == (kind, shape, {})
    assert train.subset([3, 1]).layout(modality) == (kind, shape, {})


def test_whole_numbers_are_tokens():
    kind, shape, options = data().train.layout("tokens")
    assert (kind, shape) == ("text", (9,))
    assert options["vocab_size"] >= 2


def test_a_reader_says_what_its_column_is(tmp_path):
    rows = "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "t.csv").write_text("said,label\n" + rows)
    train = Table(tmp_path / "t.csv", {"said": "text"}).splits().train
    layout = train.layout("said")
    assert layout.kind == "text"
    assert layout.shape == train.batch([0], "said", None).shape[1:]
    assert layout.options["vocab_size"] > int(torch.cat([train.batch([i], "said", None) for i in range(14)]).max())


def test_splits_travel_to_workers_that_start_anew():
    """As on macOS and Windows, where nothing is inherited."""
    import pickle

    split = pickle.loads(pickle.dumps(data().train))
    assert torch.equal(split.batch([4, 2], "series", None), data().train.batch([4, 2], "series", None))
