"""The embedded data: real digits with synthesised speech, in memory and as files alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from counterpoise.data import Table, check, digits, write_digits
from counterpoise.data.digits import readers


@pytest.fixture(scope="module")
def whole():
    return digits()


def test_parts_shapes_and_classes(whole):
    assert whole.modalities == ("audio", "image")
    assert whole.classes == tuple("0123456789")
    assert sum(map(len, (whole.train, whole.val, whole.test))) == 1797
    for m, reader in readers().items():
        x = whole.train.batch([0, 5], m, 1)
        assert x.shape == (2, *reader.shape)
        assert x.isfinite().all()
    for part in (whole.train, whole.val, whole.test):
        assert set(part.target.tolist()) == set(range(10))
        assert part.present is None


def test_both_modalities_tell_digits_apart_and_neither_is_trivial(whole):
    from sklearn.linear_model import LogisticRegression

    accuracy = {}
    for m in whole.modalities:
        train, test = (p.batch(range(len(p)), m, None).flatten(1).numpy() for p in (whole.train, whole.test))
        mean, spread = train.mean(0), train.std(0) + 1e-3
        model = LogisticRegression(C=0.01, max_iter=500).fit((train - mean) / spread, whole.train.target.numpy())
        accuracy[m] = model.score((test - mean) / spread, whole.test.target.numpy())
    assert all(0.6 < a < 0.99 for a in accuracy.values()), accuracy


def test_the_seed_decides_everything():
    one, two, other = (digits(seed=s, size=120).train for s in (0, 0, 1))
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    assert list(one.ids) == list(two.ids)


def test_noise_drowns_a_modality_and_only_that_one():
    quiet, loud = (digits(size=120, audio_noise=a).train for a in (0.0, 5.0))
    assert torch.equal(quiet.batch([0], "image", None), loud.batch([0], "image", None))
    speech = quiet.batch(range(60), "audio", None)
    assert (loud.batch(range(60), "audio", None).std((1, 2, 3)) < speech.std((1, 2, 3))).all(), "noise fills the pauses"


def test_absent_samples_lack_one_modality_each():
    data = digits(size=200, absent=0.2)
    masks = [p.present for p in (data.train, data.val, data.test)]
    for m in data.modalities:
        assert sum(int((~mask[m]).sum()) for mask in masks if mask and m in mask) == 40
    train = data.train
    assert (train.present["audio"] | train.present["image"]).all()
    gone = (~train.present["audio"]).nonzero().flatten().tolist()
    assert not train.batch(gone, "audio", None).any()


def test_the_files_give_the_same_data(tmp_path):
    path = write_digits(tmp_path / "deep" / "er", size=150, absent=0.1, seed=3)
    table = Table(path, readers())
    report = check(table)
    assert report.ok, str(report)
    assert report.warnings == []
    written, made = table.splits(), digits(size=150, absent=0.1, seed=3)
    for one, two in ((written.train, made.train), (written.val, made.val), (written.test, made.test)):
        assert list(one.ids) == list(two.ids)
        assert torch.equal(one.target, two.target)
        for m in made.modalities:
            rows = range(len(one))
            assert torch.equal(one.batch(rows, m, None), two.batch(rows, m, None)), m
    assert {m: type(r) for m, r in Table(path).readers.items()} == {m: type(r) for m, r in readers().items()}


def test_no_speaker_is_in_two_parts(tmp_path):
    table = Table(write_digits(tmp_path, size=150), readers())
    speakers = np.array(table.columns.cells("group"))
    sides = [set(speakers[rows]) for rows in table.rows().values()]
    assert sum(map(len, sides)) == len(set.union(*sides))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio_noise": -1.0}, "audio_noise must be"),
        ({"image_noise": float("nan")}, "image_noise must be"),
        ({"absent": 0.5}, "absent must be"),
        ({"size": 20}, r"size must be in 100\.\.1797; got 20"),
        ({"size": 5000}, r"size must be in 100\.\.1797; got 5000"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        digits(**arguments)
