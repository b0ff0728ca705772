"""Runs that have their first phases in common train these once, and end as if each had trained its own."""

import json
import os
import shutil
from functools import partial

import pytest
import torch

from counterpoise.engine import CheckpointError, Observer, saving
from counterpoise.engine.checkpoint import load
from counterpoise.engine.phase_ends import PhaseEnds
from counterpoise.engine.replicas import make_fabric
from counterpoise.fusions import Late
from counterpoise.methods import IGM, Joint
from counterpoise.metrics.result import read_result
from counterpoise.testing import NAMES, assert_same, everything, trainer_for
from power_cut import PowerCut

STAGES = {2: [2, 1, 2, 1, 1], 3: [1, 2, 1, 1, 2, 1, 1]}
TIMES = {"seconds", "cpu_seconds", "peak_memory", "rise", "peak_memory_mb", "memory_rise_mb"}


def rows(modalities):
    """Settings of IGM: all directions, each left out, none; in the order in which they share most."""
    names = NAMES[:modalities]
    cycle = [f"{a}->{b}" for a, b in zip(names, [*names[1:], names[0]], strict=True)]
    return [{}, *({"directions": [d for d in cycle if d != out]} for out in cycle), {"gm": False}]


PAIRS = {
    2: [(0, 0), (0, 1), (0, 2), (1, 2)],
    3: [(0, 0), (0, 1), (0, 2), (0, 3), (1, 2)],
}
"""Of each row: the one that it has the most stages in common with, and how many."""


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class Counts(Observer):
    """Epochs that were trained here, by the name of their phase."""

    def __init__(self):
        self.phases = []

    def on_epoch_end(self, trainer, record):
        self.phases.append(record["phase"])


def build(path, settings, modalities=2, ends=None, make=IGM, fusion=None, **options):
    """A trainer that counts what it trains, at a rate at which only some epochs are best."""
    if make is IGM:
        settings = {"stages": STAGES[modalities], "tau": 3.0, "mixup": 1.0, "reload_best": True, **settings}
    counts = Counts()
    options = {"epochs": 4, "lr": 0.4, "observers": [counts], **options}
    trainer, data = trainer_for(lambda: make(**settings), NAMES[:modalities], fusion, run_dir=path, **options)
    trainer.keeper.ends = None if ends is None else PhaseEnds(ends, {})
    return trainer, data, counts.phases


def plain(value):
    """Without times and memory; tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in TIMES}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def left(path):
    """All that a run leaves in its directory."""
    return plain(
        {
            "last": load(path / "last.ckpt"),
            "best": load(path / "best.ckpt"),
            "metrics": lines(path),
            "result": read_result(path),
            "config": (path / "config.yaml").read_text(),
        }
    )


def finish(path, settings, modalities=2, ends=None, *, resume=False, **options):
    trainer, data, trained = build(path, settings, modalities, ends, **options)
    trainer.run(data, resume=resume)
    return trainer, trained


def first(count, stages):
    """Epochs of the first ``count`` stages."""
    return sum(stages[:count])


@pytest.mark.parametrize(("modalities", "fusion"), [(2, "Late"), (3, "Late"), (2, "Shared")])
def test_a_common_beginning_is_trained_once_and_changes_no_bit(tmp_path, modalities, fusion):
    stages, ends = STAGES[modalities], tmp_path / "phases"
    for number, (settings, (other, common)) in enumerate(zip(rows(modalities), PAIRS[modalities], strict=True)):
        alone, everywhere = finish(tmp_path / f"alone {number}", settings, modalities, fusion=fusion)
        row, trained = finish(tmp_path / f"row {number}", settings, modalities, ends, fusion=fusion)
        assert len(everywhere) == sum(stages)
        assert len(trained) == sum(stages[common:])
        assert_same(everything(alone), everything(row))
        assert left(tmp_path / f"alone {number}") == left(tmp_path / f"row {number}")
        # what was trained by another counts as if it had been here, times included
        begun = first(common, stages)
        assert row.history[:begun] == lines(tmp_path / f"row {other}")[:begun]
        assert row.state.seconds == pytest.approx(row.history[-1]["seconds"], abs=1)
        assert begun == 0 or row.state.seconds > row.history[begun - 1]["seconds"]
    # what only the last direction tells apart is kept, and nothing after it
    assert {path.name.split("-")[0] for path in ends.iterdir()} == {str(n + 1) for n in range(modalities)}


def test_a_run_that_nothing_tells_apart_is_not_trained_again(tmp_path):
    one_round = {"stages": [1, 1, 1]}  # the third acts on the first in the second round
    finish(tmp_path / "all", one_round, 3, tmp_path / "phases")
    settings = {**rows(3)[3], **one_round}
    alone, _ = finish(tmp_path / "alone", settings, 3)
    row, trained = finish(tmp_path / "row", settings, 3, tmp_path / "phases")
    assert trained == []
    assert_same(everything(alone), everything(row))
    found = [left(tmp_path / name) for name in ("alone", "row")]
    for one in found:
        del one["last"]["random"]  # of no use at the end of an epoch: every phase seeds its own
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {"tau": 2.0}},
        {"settings": {"stages": [2, 1, 2, 1]}},
        {"settings": {"order": ["second", "first"]}},
        {"settings": {"rho": 0.1}},
        {"lr": 0.3},
        {"seed": 1},
        {"fusion": partial(Late, rule="sum")},
        {"absent": 0.3},
    ],
    ids=str,
)
def test_runs_that_were_not_the_same_share_nothing(tmp_path, other):
    finish(tmp_path / "all", {}, ends=tmp_path / "phases")
    options = {"settings": {}, **other}
    _, trained = finish(tmp_path / "row", ends=tmp_path / "phases", **options)
    assert len(trained) == sum(options["settings"].get("stages", STAGES[2]))


def test_neither_do_runs_with_other_options_nor_methods_that_do_not_say(tmp_path):
    finish(tmp_path / "all", {}, ends=tmp_path / "phases")
    trainer, data, trained = build(tmp_path / "row", {}, ends=tmp_path / "phases")
    trainer.keeper.ends = PhaseEnds(tmp_path / "phases", {"precision": "bf16-mixed"})
    trainer.fit(data.train, data.val)
    assert len(trained) == sum(STAGES[2])
    finish(tmp_path / "joint", {}, ends=tmp_path / "none", make=Joint)
    assert not (tmp_path / "none").exists()


# -- dying ---------------------------------------------------------------------------------------------
class Died(BaseException):
    pass


def dying_at(patch, number):
    """The run dies before or after file operation ``number``."""
    calls = [0]

    def wrap(function):
        def inner(*args, **kwargs):
            for act in (lambda: None, lambda: function(*args, **kwargs)):
                result = act()
                calls[0] += 1
                if calls[0] == number:
                    raise Died
            return result

        return inner

    for module, name in ((saving, "save"), (os, "link")):
        patch.setattr(module, name, wrap(getattr(module, name)))


SHORT = {"stages": [1, 1, 2]}


@pytest.mark.parametrize("which", ["base", "row"])
def test_death_between_any_two_file_operations(tmp_path, monkeypatch, which):
    short = {"stages": [1, 1]}
    settings = {"base": short, "row": {**short, "gm": False}}
    whole = {name: finish(tmp_path / f"alone {name}", settings[name])[0] for name in settings}
    finish(tmp_path / "base", short, ends=tmp_path / "phases")
    number, died = 0, True
    while died:
        number += 1
        ends, path = tmp_path / f"phases {number}", tmp_path / f"{which} {number}"
        if which == "row":
            shutil.copytree(tmp_path / "phases", ends)
        with monkeypatch.context() as patch:
            dying_at(patch, number)
            try:
                finish(path, settings[which], ends=ends)
            except Died:
                died = True
            else:
                died = False
                continue
        again, _ = finish(path, settings[which], ends=ends, resume=True)
        assert_same(everything(whole[which]), everything(again))
        assert left(tmp_path / f"alone {which}") == left(path)
        if which == "base":
            row, trained = finish(tmp_path / f"row {number}", settings["row"], ends=ends)
            assert len(trained) == 1  # the first stage was kept, whenever its run died
            assert_same(everything(whole["row"]), everything(row))
    assert number > {"base": 14, "row": 6}[which]


@pytest.mark.parametrize("batches", [1, 4])
def test_a_row_that_died_while_training_goes_on(tmp_path, batches):
    """Without what it began with, which may be gone by then."""
    settings = rows(2)[2]
    alone, _ = finish(tmp_path / "alone", settings)
    finish(tmp_path / "all", {}, ends=tmp_path / "phases")
    with pytest.raises(Died):
        finish(tmp_path / "row", settings, ends=tmp_path / "phases", observers=[PowerCut(batches, Died())])
    shutil.rmtree(tmp_path / "phases")
    again, trained = finish(tmp_path / "row", settings, ends=tmp_path / "phases", resume=True)
    assert len(trained) == sum(STAGES[2][2:]) - (batches > 3)
    assert_same(everything(alone), everything(again))
    assert left(tmp_path / "alone") == left(tmp_path / "row")


# -- files ---------------------------------------------------------------------------------------------
def test_ends_are_links_or_else_copies(tmp_path, monkeypatch):
    finish(tmp_path / "all", SHORT, ends=tmp_path / "linked")
    inodes = [path.stat().st_ino for path in (tmp_path / "linked").glob("*.best.ckpt")]
    assert len(inodes) == 2
    best = (tmp_path / "all" / "best.ckpt").stat()
    assert best.st_nlink == 1 + inodes.count(best.st_ino)

    def no_links(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    alone, _ = finish(tmp_path / "again", SHORT, ends=tmp_path / "copied")
    names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("linked", "copied")]
    assert names[0] == names[1]
    row, trained = finish(tmp_path / "row", SHORT, ends=tmp_path / "copied")
    assert len(trained) == 2
    assert_same(everything(alone), everything(row))


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(CheckpointError, match=r"Could not keep the end of a phase as .*/phases/1-.*No space left"):
        finish(tmp_path / "all", SHORT, ends=tmp_path / "phases")


def test_tensorboard_has_the_beginning_too(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name in ("all", "row"):
        finish(tmp_path / name, SHORT, ends=tmp_path / "phases")
        events = EventAccumulator(str(tmp_path / name)).Reload()
        assert [event.step for event in events.Scalars("val/fused/accuracy")] == [1, 2, 3, 4]


def replica(fabric, folder):
    torch.set_num_threads(1)
    for name, settings, ends in (
        ("all", {}, "phases"),
        ("row", {"gm": False}, "phases"),
        ("alone", {"gm": False}, "no"),
    ):
        path = folder / name
        trainer, data, trained = build(path, {**SHORT, **settings}, ends=folder / ends, fabric=fabric, norm=False)
        trainer.run(data)
        if fabric.is_global_zero:
            (folder / f"{name}.json").write_text(json.dumps(trained))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_replicas_start_at_the_same_place(tmp_path):
    make_fabric(accelerator="cpu", devices=2, start_method="fork").launch(partial(replica, folder=tmp_path))
    counts = [len(json.loads((tmp_path / f"{name}.json").read_text())) for name in ("all", "row", "alone")]
    assert counts == [4, 3, 4]
    assert left(tmp_path / "row") == left(tmp_path / "alone")
