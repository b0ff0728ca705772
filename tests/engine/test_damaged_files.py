"""Files of a run with bytes changed at random: refused in one sentence, or read as what they were."""

from __future__ import annotations

import random
import shutil

import pytest

from counterpoise.cli import main
from counterpoise.engine import CheckpointError, RunDirectory, RunDirectoryError
from counterpoise.methods import MLA
from counterpoise.metrics.result import finished, read_result
from counterpoise.report.collect import collect
from counterpoise.testing import assert_same, everything, trainer_for
from power_cut import PowerCut

INPUTS = 45  # of each file


def flipped(content: bytearray, draw: random.Random) -> bytes:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def replaced(content: bytearray, draw: random.Random) -> bytes:
    content[draw.randrange(len(content))] = draw.choice(b'\0\xff"[]{}:,-0159aetn')
    return bytes(content)


def zeroed(content: bytearray, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(content)), draw.choice([1, 16, 512])
    content[start : start + length] = bytes(len(content[start : start + length]))
    return bytes(content)


def cut(content: bytearray, draw: random.Random) -> bytes:
    return bytes(content[: draw.randrange(len(content))])


def without(content: bytearray, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    del content[start : start + draw.choice([1, 4, 100])]
    return bytes(content)


def doubled(content: bytearray, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(content)), draw.choice([1, 8, 64])
    return bytes(content[: start + length] + content[start:])


def mutations(whole: bytes, seed: str):
    """``INPUTS`` changed copies, none of them like the original."""
    draw, count = random.Random(seed), 0
    kinds = [flipped, flipped, replaced, replaced, zeroed, cut, without, doubled]
    while count < INPUTS:
        changed = draw.choice(kinds)(bytearray(whole), draw)
        if changed != whole:
            count += 1
            yield changed


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that stopped in its last epoch, and what it ends with."""
    path = tmp_path_factory.mktemp("interrupted") / "run"
    trainer, data = trainer_for(MLA, run_dir=path, observers=[PowerCut(11)])
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.fit(data.train, data.val)
    whole, _ = trainer_for(MLA)
    whole.fit(data.train, data.val)
    return path, everything(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_run_resumed_from_a_changed_checkpoint(interrupted, tmp_path, name):
    path, expected = interrupted
    refused = []
    for i, content in enumerate(mutations((path / name).read_bytes(), name)):
        copy = shutil.copytree(path, tmp_path / str(i))
        (copy / name).write_bytes(content)
        trainer, data = trainer_for(MLA, run_dir=copy)
        try:
            trainer.fit(data.train, data.val, resume=True)
        except CheckpointError as error:
            refused.append(str(error))
        else:
            assert_same(everything(trainer), expected)
    assert len(refused) > 0.9 * INPUTS
    assert all(name in text for text in refused)


@pytest.mark.slow
def test_weights_read_from_a_changed_checkpoint(interrupted, tmp_path):
    path, _ = interrupted
    reference, data = trainer_for(MLA)
    reference.restore(path / "best.ckpt", data.val)
    refused = []
    for content in mutations((path / "best.ckpt").read_bytes(), "weights"):
        (tmp_path / "changed.ckpt").write_bytes(content)
        trainer, _ = trainer_for(MLA)
        try:
            trainer.restore(tmp_path / "changed.ckpt", data.val)
        except CheckpointError as error:
            refused.append(str(error))
        else:
            assert_same(everything(trainer), everything(reference))
    assert len(refused) > 0.9 * INPUTS
    assert all("changed.ckpt is no readable checkpoint" in text for text in refused)


@pytest.mark.slow
def test_a_changed_result(tmp_path, capsys):
    trainer, data = trainer_for(MLA, run_dir=tmp_path / "whole")
    written = trainer.run(data, data="made up")
    damaged = 0
    for i, content in enumerate(mutations((tmp_path / "whole" / "result.json").read_bytes(), "result")):
        copy = shutil.copytree(tmp_path / "whole", tmp_path / "changed" / str(i))
        (copy / "result.json").write_bytes(content)
        try:
            found = read_result(copy)
        except ValueError:
            damaged += 1
            assert not finished(copy)
            (run,) = collect(copy)
            assert not run.finished
            assert run.problems
            with pytest.raises(RunDirectoryError, match=r"unfinished run .result.json is damaged"):
                RunDirectory(copy)
        else:  # white space, or the name of the digest
            assert found is not None
            assert {key: found[key] for key in written} == written
    assert damaged > 0.9 * INPUTS
    with pytest.raises(SystemExit) as left:
        main(["report", str(tmp_path / "changed"), "--out", str(tmp_path / "report.html")])
    assert not left.value.code
    assert "Traceback" not in capsys.readouterr().err
