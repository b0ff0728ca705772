"""Corrupted splits: the formulas, where they act, what is drawn, and what is refused."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import counterpoise as cp
from counterpoise.data import Array, Audio, Corrupted, Image, Table, Tabular, Text, deviations
from counterpoise.data.corruption import at_snr, corruptions_of, levels_of, shifted


@pytest.mark.parametrize("snr", [-10.0, 0.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(snr: float):
    rng = np.random.default_rng(3)
    x = np.concatenate([0.3 * rng.standard_normal(4000), np.zeros(2000)])  # the end is appended silence
    e = rng.standard_normal(6000)
    scale = np.sqrt(np.mean(x[:4000] ** 2) / (np.mean(e[:4000] ** 2) * 10 ** (snr / 10)))
    wave, noise = torch.from_numpy(x), torch.from_numpy(e)
    y = at_snr(wave, noise, snr).numpy()
    assert np.allclose(y[:4000], (x + scale * e)[:4000], rtol=0, atol=1e-12)
    assert not y[4000:].any()
    assert 10 * np.log10(np.mean(x[:4000] ** 2) / np.mean((y - x)[:4000] ** 2)) == pytest.approx(snr, abs=1e-9)
    near = at_snr(wave.float(), noise.float(), snr).numpy()
    assert np.abs(near - y).max() < 1e-5
    assert not at_snr(torch.zeros(5), torch.ones(5), snr).any()


def test_a_shift_keeps_the_edges():
    x = torch.arange(10.0)[:, None]
    assert shifted(x, 0.2, later=True).flatten().tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert shifted(x, 0.2, later=False).flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 9, 9]
    assert shifted(x, 1.0, later=False).flatten().tolist() == [9] * 10


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written digits with texts: waveforms, pictures and words of files."""
    folder = tmp_path_factory.mktemp("media")
    path = cp.data.write_digits(folder, size=100, absent=0.1)
    lines = path.read_text().splitlines()
    words = ["words", *(f"one two three four number {i}" for i in range(len(lines) - 1))]
    path.write_text("\n".join(f"{line},{word}" for line, word in zip(lines, words, strict=True)) + "\n")
    return path


READERS = {
    "audio": Audio(8000, 0.5, n_fft=128, hop=250, offset=1e-3),
    "image": Image(size=8, channels=1, augment=False, flip=0.0, normalize="none"),
    "words": Text(length=8),
}


def test_corruptions_act_on_what_was_recorded(media: Path):
    test = Table(media, READERS).splits().test
    digits = cp.digits(size=100, absent=0.1).test
    assert test is not None
    assert digits is not None
    assert [corruptions_of(test, m) for m in test.modalities] == [["snr"], ["blur", "jpeg"], ["words"]]
    everyone = range(len(test))
    for name, level in (("snr", 5), ("blur", 6), ("jpeg", 20)):
        m = "audio" if name == "snr" else "image"
        worse = Corrupted(test, m, name, level, seed=1).batch(everyone, m, None)
        assert torch.equal(worse, Corrupted(digits, m, name, level, seed=1).batch(everyone, m, None))
        there = torch.ones(len(test), dtype=torch.bool) if test.present is None else test.present[m]
        assert not worse[~there].any()
        assert (worse != test.batch(everyone, m, None))[there].flatten(1).any(1).all()

    # the sound is a spectrogram of the noisy waveform, the picture what a JPEG of its pixels reads as
    i = int(digits.present["audio"].nonzero()[0]) if digits.present else 0
    heard: list[torch.Tensor] = []
    test.altered(i, "audio", lambda wave: heard.append(wave) or wave)
    draw = torch.Generator().manual_seed(cp.data.seeding.sample_seed(1, i, "audio snr"))
    noisy = at_snr(heard[0], torch.randn(heard[0].shape, generator=draw), 5)
    expected = READERS["audio"].spectrogram(noisy)
    assert torch.equal(Corrupted(test, "audio", "snr", 5, seed=1).batch([i], "audio", None)[0], expected)
    j = int(digits.present["image"].nonzero()[0]) if digits.present else 0
    file, pixels = io.BytesIO(), (digits[j]["image"][0] * 255).round().byte().numpy()
    Pillow.fromarray(pixels).save(file, "JPEG", quality=20)
    seen = READERS["image"].read(file.getvalue())
    assert torch.equal(Corrupted(digits, "image", "jpeg", 20).batch([j], "image", None)[0], seen)


def test_words_go_missing_before_the_tokeniser_and_one_is_left(media: Path):
    test = Table(media, READERS).splits().test
    assert test is not None
    plain = test.batch(range(len(test)), "words", None)
    counts = []
    for level in (0.0, 0.25, 0.75, 1.0):
        x = Corrupted(test, "words", "words", level).batch(range(len(test)), "words", None)
        counts.append((x != 0).sum(1))
        assert all(set(row.tolist()) <= set(whole.tolist()) | {0} for row, whole in zip(x, plain, strict=True))
    assert torch.equal(counts[0], (plain != 0).sum(1))
    assert (counts[-1] == 1).all()
    assert all((more >= fewer).all() for more, fewer in itertools.pairwise(counts))
    tokens = cp.from_arrays({"t": torch.tensor([[3, 4, 5, 0]] * 40), "x": torch.randn(40, 2)}, [0, 1] * 20).train
    half = Corrupted(tokens, "t", "words", 0.5).batch(range(10), "t", None)
    assert half.shape == (10, 4)
    assert half.dtype == torch.int64
    assert (half[:, 0] != 0).all()
    assert (half[:, -1] == 0).all()


def test_noise_of_numbers_is_relative_to_the_training_part():
    torch.manual_seed(0)
    x = torch.randn(400, 3) * torch.tensor([1.0, 10.0, 0.0])
    steps = torch.randn(400, 20, 2) * torch.tensor([1.0, 5.0]) + 3
    steps[:, 12:] = 0  # padding
    data = cp.from_arrays({"x": x, "steps": steps}, torch.arange(400) % 2)
    test, rows = data.test, range(60)
    assert test is not None
    train = data.train.batch(range(len(data.train)), "x", None).double()
    scale = deviations(data.train, "x")
    assert torch.allclose(scale, train.std(0, correction=0), atol=1e-9)
    added = Corrupted(test, "x", "noise", 2, scale=scale).batch(rows, "x", None) - test.batch(rows, "x", None)
    assert added.std(0).tolist() == pytest.approx([2, 20, 0], rel=0.3)
    weak = Corrupted(test, "x", "noise", 0.5, scale=scale).batch(rows, "x", None) - test.batch(rows, "x", None)
    assert torch.allclose(4 * weak, added, atol=1e-4)  # levels differ in strength alone
    assert corruptions_of(test, "steps") == ["noise", "shift"]
    scale = deviations(data.train, "steps")
    assert scale.tolist() == pytest.approx([1, 5], rel=0.05)
    noisy = Corrupted(test, "steps", "noise", 1, scale=scale).batch(rows, "steps", None)
    assert not noisy[:, 12:].any()
    assert (noisy[:, :12] != test.batch(rows, "steps", None)[:, :12]).all()


def test_noise_leaves_categories_and_missing_flags_alone(tmp_path: Path):
    lines = [f"{i},{'' if i % 9 == 0 else 20 + i % 40},{'FM'[i % 2]},{'ab'[i % 2]}" for i in range(80)]
    (tmp_path / "t.csv").write_text("\n".join(["id,age,sex,label", *lines]) + "\n")
    data = Table(tmp_path / "t.csv", {"p": Tabular(["age", "sex"])}).splits()
    assert data.test is not None
    scale = deviations(data.train, "p")
    assert scale[0] == pytest.approx(1, abs=1e-6)
    assert not scale[1:].any()
    worse = Corrupted(data.test, "p", "noise", 1, scale=scale).batch([0, 1, 2], "p", None)
    plain = data.test.batch([0, 1, 2], "p", None)
    assert (worse[:, 0] != plain[:, 0]).all()
    assert torch.equal(worse[:, 1:], plain[:, 1:])


def test_what_is_drawn_belongs_to_seed_and_sample():
    data = cp.digits(size=150, absent=0.1)
    test = data.test
    assert test is not None
    first = Corrupted(test, "audio", "snr", 0, seed=3)
    apart = torch.cat([first.batch([i], "audio", None) for i in (5, 2)])
    assert torch.equal(first.batch([5, 2], "audio", None), apart)
    assert not torch.equal(Corrupted(test, "audio", "snr", 0, seed=4).batch([5], "audio", None), apart[:1])
    assert first.fingerprint() != Corrupted(test, "audio", "snr", 0, seed=4).fingerprint()
    gone = [Corrupted(test, "audio", "absent", share, seed=3).present for share in (0.25, 0.5, 1.0)]
    there = torch.stack([present["audio"] for present in gone if present])
    plain = torch.ones(len(test), dtype=torch.bool) if test.present is None else test.present["audio"]
    assert there.sum(1).tolist() == [int(plain.sum()) - round(s * int(plain.sum())) for s in (0.25, 0.5, 1.0)]
    assert bool((there[0] | ~there[1]).all())
    assert bool((plain | ~there[0]).all())


def test_what_is_in_a_dataset_or_in_memory_is_altered_too():
    texts = [f"a b c {i}" for i in range(60)]
    arrays = cp.from_arrays({"t": texts, "x": torch.randn(60, 2)}, [0, 1] * 30, readers={"t": Text(length=6)})
    rows = [{"t": t, "x": torch.zeros(2), "label": i % 2} for i, t in enumerate(texts)]
    lazily = cp.from_dataset(rows, readers={"t": Text(length=6)})
    for data in (arrays, lazily):
        assert data.test is not None
        assert corruptions_of(data.test, "t") == ["words"]
        x = Corrupted(data.test, "t", "words", 0.9).batch([0, 1], "t", None)
        assert 2 <= int((x != 0).sum()) < 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audio", "snrr", 5), "'snrr'.*snr"),
        (("audio", "blur", 5), "'audio': blur acts on pixels.*waveform. Take snr or absent"),
        (("sound", "snr", 5), "'sound'.*audio"),
        (("image", "jpeg", 96), "<= 95"),
        (("image", "jpeg", 20.5), "whole"),
        (("image", "absent", 1.5), "<= 1"),
        (("image", "blur", -1), ">= 0"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple, message: str):
    test = cp.digits(size=100).test
    assert test is not None
    with pytest.raises(ValueError, match=message):
        Corrupted(test, *arguments)


def test_levels_begin_with_the_clean_one_and_noise_needs_its_scale():
    assert levels_of("snr", [0, 20]) == [float("inf"), 20, 0]
    assert levels_of("blur", [4, 0, 1]) == [0, 1, 4]
    with pytest.raises(ValueError, match="different"):
        levels_of("blur", [1, 1])
    with pytest.raises(ValueError, match="jpeg"):
        levels_of("jpg")
    data = cp.from_arrays({"x": torch.randn(60, 3), "y": torch.randn(60, 3)}, [0, 1] * 30)
    assert data.test is not None
    with pytest.raises(ValueError, match="deviations"):
        Corrupted(data.test, "x", "noise", 1)
    assert Array().recording == "numbers"
