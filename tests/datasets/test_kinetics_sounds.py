"""Kinetics-Sounds: generated folders of the official layout, with official ids."""

import csv
from pathlib import Path

import pytest
from clips import chosen, manifest, reasons, write_frames, write_video, write_wav
from torch import nn

from counterpoise import Trainer, build_model, methods
from counterpoise.datasets import get


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    """Raw clips named as Kinetics names them, in folders by class."""
    root = tmp_path_factory.mktemp("kinetics")
    rows = chosen(get("kinetics_sounds"), 2)
    for i, row in enumerate(rows):
        name, start = row.id[:11], int(row.id[12:].split("_")[0])
        part = "train" if row.part == "train" else "val"
        write_video(root / part / row.label / f"{name}_{start:06d}_{start + 10:06d}.mp4", i, frames=30, sound=True)
    write_video(root / "train" / "other" / "abcdefghijk_000000_000010.mp4", 77)  # of no class of this set
    return root, rows


def test_kinetics_sounds_from_clips(kinetics, tmp_path):
    root, rows = kinetics
    dataset = get("Kinetics-Sounds")
    made = dataset.prepare(root, tmp_path / "out", workers=2, progress=False)
    assert made.counts == {"train": 2, "val": 2, "test": 2}
    assert {r["id"] for r in manifest(made.out)} == {r.id for r in rows}
    assert made.excluded == {"vanished": 18716 - 6}
    splits = dataset.table(made.out).splits()
    assert splits.train.batch([0, 1], "audio", 1).shape == (2, 1, 257, 1003)
    assert splits.train.batch([0, 1], "visual", 1).shape == (2, 3, 3, 224, 224)
    assert len(splits.classes) == 31
    flat = {m: nn.Sequential(nn.AdaptiveAvgPool3d(4), nn.Flatten()) for m in splits.modalities}
    model = build_model(flat, num_classes=31, example=splits.train)
    trainer = Trainer(model, methods.Joint(), epochs=2, batch_size=2, accelerator="cpu", progress=False)
    trainer.fit(splits.train, splits.val)  # two steps
    assert trainer.evaluate(splits.test).keys() >= {"fused/accuracy"}
    found = {c.item: c for c in made.checks}
    assert found["train: samples in the list"].ok
    assert (found["val: samples prepared"].expected, found["val: samples prepared"].found) == ("1320", "2")
    assert found["test: tickling"].expected == "63"


def test_kinetics_sounds_from_sound_and_frames(tmp_path):
    rows = chosen(get("kinetics_sounds"), 1)
    for i, row in enumerate(rows):
        side = "train" if row.part == "train" else "test"
        name = row.id[:11] if row.part == "val" else row.id  # some sets are named by the video alone
        write_wav(tmp_path / "raw" / f"{side}_wav" / f"{name}.wav", i)
        write_frames(tmp_path / "raw" / f"{side}_img" / "Image-01-FPS" / name, i, count=2 if row.part == "test" else 4)
    made = get("kinetics_sounds").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert made.counts == {"train": 1, "val": 1}
    assert reasons(made.out)[rows[2].id].startswith("too few frames")


def test_another_excerpt_of_the_same_video_is_not_the_clip(tmp_path):
    row = chosen(get("kinetics_sounds"), 1)[0]
    start = int(row.id[12:18])
    for shift in (0, 20):
        root = tmp_path / f"raw{shift}"
        write_video(root / f"{row.id[:11]}_{start + shift:06d}_{start + shift + 10:06d}.mp4", 0, sound=True)
    dataset = get("kinetics_sounds")
    assert dataset.prepare(tmp_path / "raw0", tmp_path / "out0", progress=False).counts == {"train": 1}
    with pytest.raises(FileNotFoundError, match="no usable sample of the 18716 listed"):
        dataset.prepare(tmp_path / "raw20", tmp_path / "out20", progress=False)
    assert len(reasons(tmp_path / "out20")) == 18716


def test_kinetics_sounds_lists_are_the_published_ones():
    from counterpoise.datasets import checks

    dataset = get("kinetics_sounds")
    rows = dataset.rows(None, "ogm")
    listed = [{"id": r.id, "label": r.label, "split": r.part} for r in rows]
    results = list(checks.counts(dataset.published("ogm"), listed, []))
    assert all(c.ok for c in results)
    assert {c.item: c.found for c in results if c.item.endswith("list")} == {
        "train: samples in the list": "14799", "val: samples in the list": "1320", "test: samples in the list": "2597",
    }  # fmt: skip
    assert len({r.id[:11] for r in rows}) == 18716  # no video in two parts
    assert dataset.checksums(None) == dataset.lists
    assert all(next(iter(dataset.keys(r))) is not None for r in rows)


def test_packaged_lists_equal_the_repositories():
    import os

    folder = Path(os.environ.get("COUNTERPOISE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "splits"
    if not folder.is_dir():
        pytest.skip("set COUNTERPOISE_DATA to a folder with the original lists in splits/")
    ogm = {r.id: (r.label, r.part == "test") for r in get("cremad").rows(None, "ogm")}
    for name in ("train", "test"):
        with (folder / "cremad" / "ogm_ge" / f"{name}.csv").open() as file:
            for clip, label in csv.reader(file):
                assert ogm.pop(clip) == (label, name == "test")
    assert not ogm
    dataset = get("kinetics_sounds")
    ks = {r.id: (dataset.classes.index(r.label), r.part) for r in dataset.rows(None, "ogm") if r.part != "val"}
    for name in ("train", "test"):
        with (folder / "kinetics_sounds" / "ogm_ge" / f"my_{name}.txt").open() as file:
            for clip, _, label in csv.reader(file):
                assert ks.pop(clip) == (int(label), name)
    assert not ks
