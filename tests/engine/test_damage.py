"""Checkpoints that were changed on the way, or that hold something else: named, never used."""

from __future__ import annotations

import shutil

import pytest
import torch

from counterpoise.engine import CheckpointError
from counterpoise.engine.checkpoint import load, save
from counterpoise.methods import MLA, Joint
from counterpoise.testing import trainer_for
from power_cut import PowerCut


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run directory with last.ckpt in the middle of an epoch, and best.ckpt."""
    path = tmp_path_factory.mktemp("interrupted") / "run"
    trainer, data = trainer_for(MLA, run_dir=path, observers=[PowerCut(11)])
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(data.train, data.val)
    assert {"last.ckpt", "best.ckpt"} <= {p.name for p in path.iterdir()}
    return path


def resume(path, make=MLA):
    trainer, data = trainer_for(make, run_dir=path)
    trainer.fit(data.train, data.val, resume=True)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("bit", [0, 6])
def test_a_flipped_bit_is_refused(interrupted, tmp_path, name, share, bit):
    path = shutil.copytree(interrupted, tmp_path / "run")
    damaged = bytearray((path / name).read_bytes())
    damaged[int(share * len(damaged))] ^= 1 << bit
    (path / name).write_bytes(damaged)
    with pytest.raises(CheckpointError, match=f"{name} is no readable checkpoint .*the digest differs"):
        resume(path)


def test_a_checkpoint_without_digest_is_checked_by_the_sums_of_its_archive(interrupted, tmp_path):
    """As versions before the digest wrote them."""
    path = shutil.copytree(interrupted, tmp_path / "run")
    for name in ("last.ckpt", "best.ckpt"):
        torch.save(load(path / name), path / name)
    whole = (path / "last.ckpt").read_bytes()
    weight = next(iter(load(path / "last.ckpt")["model"].values())).numpy().tobytes()
    damaged = bytearray(whole)
    damaged[whole.index(weight) + 5] ^= 0x10
    (path / "last.ckpt").write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"last.ckpt is no readable checkpoint .*checksum of .* differs"):
        resume(path)
    (path / "last.ckpt").write_bytes(whole)
    resume(path)


@pytest.mark.parametrize("content", [[1, 2], "text", 3.5, None, torch.arange(3)])
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_checkpoint_that_holds_something_else(interrupted, tmp_path, name, content):
    path = shutil.copytree(interrupted, tmp_path / "run")
    torch.save(content, path / name)
    with pytest.raises(CheckpointError, match=rf"{name} is no readable checkpoint \(it holds a \w+ where"):
        resume(path)


@pytest.mark.parametrize(
    "change",
    [
        {"state": [1]},
        {"state": {"epoch": 1}},
        {"state": {"phase": None, "nobody_knows_this": 1}},
        {"model": {}},
        {"model": [torch.zeros(3)]},
        {"optimizer": {"state": 5, "param_groups": []}},
        {"optimizer": "Adam"},
        {"generator": torch.zeros(3)},
        {"schedule": 1},
        {"totals": {"loss": 1}},
        {"fingerprint": ["Joint"]},
        {"resampled": ["all", None]},
        {"resampled": {"indices": "all", "present": None, "ordered": False}},
    ],
    ids=str,
)
def test_parts_of_last_that_are_something_else(interrupted, tmp_path, change):
    path = shutil.copytree(interrupted, tmp_path / "run")
    save(path / "last.ckpt", {**load(path / "last.ckpt"), **change})
    with pytest.raises(CheckpointError, match=r"last.ckpt"):
        resume(path)


@pytest.mark.parametrize("part", ["epoch", "model", "method", "fingerprint"])
@pytest.mark.parametrize("value", [None, "gone", [3]], ids=str)
def test_parts_of_best_that_are_missing_or_something_else(interrupted, tmp_path, part, value):
    path = shutil.copytree(interrupted, tmp_path / "run")
    content = load(path / "best.ckpt")
    save(
        path / "best.ckpt",
        {**content, part: value} if value != "gone" else {k: content[k] for k in content if k != part},
    )
    with pytest.raises(CheckpointError, match=r"best.ckpt"):
        resume(path)
    trainer, data = trainer_for(MLA)
    if part != "epoch":  # which prediction does not need
        with pytest.raises(CheckpointError, match=r"best.ckpt"):
            trainer.restore(path / "best.ckpt", data.val)


def test_every_part_of_last_is_needed(interrupted, tmp_path):
    path = shutil.copytree(interrupted, tmp_path / "run")
    content = load(path / "last.ckpt")
    for part in content.keys() - {"random"}:  # which a run that stopped between two epochs does not need
        save(path / "last.ckpt", {name: value for name, value in content.items() if name != part})
        with pytest.raises(CheckpointError, match=r"last.ckpt (does not hold what|belongs to another run)"):
            resume(path)


def test_best_of_another_method_is_refused(interrupted, tmp_path):
    path = shutil.copytree(interrupted, tmp_path / "run")
    trainer, data = trainer_for(Joint, run_dir=tmp_path / "other")
    trainer.fit(data.train, data.val)
    other = load(tmp_path / "other" / "best.ckpt")
    save(path / "best.ckpt", {**other, "epoch": load(path / "best.ckpt")["epoch"]})
    with pytest.raises(CheckpointError, match=r"(?s)best.ckpt belongs to another run:.*method.class: Joint"):
        resume(path)
