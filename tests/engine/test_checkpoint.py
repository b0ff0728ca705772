import errno
import os
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from counterpoise.engine import SGD, AdamW, CheckpointError, Cosine, Observer, Plateau, Trainer, checkpoint, saving
from counterpoise.engine.checkpoint import load, save
from counterpoise.fusions import Late
from counterpoise.methods import IGM, MLA, Joint
from counterpoise.testing import assert_same, everything, task, tiny_model, trainer_for
from counterpoise.types import Phase

TWO = ("first", "second")


def history(trainer):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history]


# -- one file ------------------------------------------------------------------------------------------
class FullDisk:
    """A file whose write number ``after`` finds the disk full."""

    def __init__(self, file, after):
        self.file, self.left = file, after

    def write(self, data):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def writes_of(path, state):
    counter = FullDisk(path.open("wb"), 10**9)
    with counter:
        torch.save(state, counter)
    return 10**9 - counter.left


def test_a_full_disk_at_any_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path, old = tmp_path / "last.ckpt", {"weights": torch.arange(5.0), "epoch": 1}
    new = {"weights": torch.arange(50.0), "epoch": 2}
    total = writes_of(tmp_path / "count", new)
    (tmp_path / "count").unlink()
    assert total > 3
    save(path, old)
    open_path = type(path).open
    for after in range(total):
        with monkeypatch.context() as patch:
            patch.setattr(
                type(path), "open", lambda self, mode, n=after, **how: FullDisk(open_path(self, mode, **how), n)
            )
            with pytest.raises(CheckpointError, match=r"Could not write checkpoint .*previous one is intact.*Free"):
                save(path, new)
        assert os.listdir(tmp_path) == ["last.ckpt"]
        assert torch.equal(load(path)["weights"], old["weights"])
    save(path, new)
    assert load(path)["epoch"] == 2


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_at_the_end(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*there is no earlier one"):
        save(tmp_path / "last.ckpt", {"a": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "best.ckpt"
    save(path, {"weights": torch.arange(1000.0)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"best.ckpt is no readable checkpoint"):
        load(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("run-by-the-pickle",)


def test_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Evil()))
    torch.save({"model": Evil()}, tmp_path / "torch.ckpt")
    for name in ("plain", "torch"):
        with pytest.raises(CheckpointError, match=r"no readable checkpoint.*nothing in it is executed") as error:
            load(tmp_path / f"{name}.ckpt")
        assert "weights_only" not in str(error.value)  # no advice to run it
    assert not (tmp_path / "run-by-the-pickle").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        load(tmp_path / "last.ckpt")


# -- belongs to this run -------------------------------------------------------------------------------
def one_epoch(path, make=Joint, model=None, data=None, resume=False, **options):
    options = {"epochs": 2, "batch_size": 18, "optimizer": SGD(lr=0.05), "progress": False, **options}
    method = make()
    trainer = Trainer(model or tiny_model(method, TWO), method, accelerator="cpu", run_dir=path, **options)
    data = data or task(TWO)
    return trainer.fit(data.train, data.val, resume=resume)


def relu_to_gelu():
    model = tiny_model(Joint(), TWO)
    model.encoders["second"][2] = nn.GELU()
    return model


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"make": MLA, "model": lambda: tiny_model(Joint(), TWO, "Shared")},
            "method.class: Joint in the checkpoint, MLA",
        ),
        ({"model": lambda: tiny_model(Joint(), TWO, "Late")}, "fusion.class: Concat in the checkpoint, Late here"),
        ({"model": lambda: tiny_model(Joint(), TWO, norm=False)}, "nothing here"),
        ({"model": relu_to_gelu}, r"layers.encoders.second.2: ReLU\(\) in the checkpoint, GELU"),
        ({"optimizer": SGD(lr=0.1)}, "optimizer.lr: 0.05 in the checkpoint, 0.1 here"),
        ({"optimizer": AdamW(lr=0.05)}, "optimizer.class: SGD in the checkpoint, AdamW here"),
        ({"schedule": Cosine()}, "schedule.class: Constant in the checkpoint, Cosine here"),
        ({"data": lambda: task(TWO, seed=1)}, "train: [0-9a-f]+ in the checkpoint, [0-9a-f]+ here"),
        ({"epochs": 3}, "trainer.epochs: 2 in the checkpoint, 3 here"),
        ({"seed": 1}, "trainer.seed: 0 in the checkpoint, 1 here"),
        ({"sam": 0.1}, "trainer.sam: 0.0 in the checkpoint, 0.1 here"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path, other, message):
    one_epoch(tmp_path / "run")
    other = {k: v() if k in ("model", "data") else v for k, v in other.items()}
    with pytest.raises(CheckpointError, match=f"(?s)belongs to another run.*{message}"):
        one_epoch(tmp_path / "run", resume=True, **other)


def test_another_rule_of_the_same_shapes_is_refused(tmp_path):
    models = [tiny_model(Joint(), TWO, partial(Late, rule=rule)) for rule in ("mean", "sum")]
    one_epoch(tmp_path / "run", model=models[0])
    with pytest.raises(CheckpointError, match=r"fusion.rule: 'mean' in the checkpoint, 'sum' here"):
        one_epoch(tmp_path / "run", model=models[1], resume=True)
    trainer = Trainer(models[1], Joint(), accelerator="cpu", progress=False)
    with pytest.raises(CheckpointError, match=r"fusion\.rule"):
        trainer.restore(tmp_path / "run" / "best.ckpt", task(TWO).val)


def test_a_setting_that_is_a_function_is_the_same_in_every_process():
    class Takes:
        def __init__(self, f):
            self.f = f

    assert checkpoint.describe(Takes(task)) == {"class": "Takes", "f": "counterpoise.testing.task"}
    assert "0x" not in checkpoint.describe(Takes(Joint))["f"]


def test_best_is_read_back_for_evaluation(tmp_path):
    done = one_epoch(tmp_path / "run", make=MLA, model=tiny_model(MLA(), TWO, "Shared"))
    data = task(TWO)
    fresh = Trainer(tiny_model(MLA(), TWO, seed=5), MLA(), accelerator="cpu", progress=False)
    fresh.restore(tmp_path / "run" / "best.ckpt", data.val)
    assert fresh.evaluate(data.test) == done.evaluate(data.test)


# -- dying between the file operations of an epoch -------------------------------------------------------
class Died(BaseException):
    pass


class LoadsBest(Joint):
    """Starts each of its phases from the best weights so far."""

    def phase(self, index, trainer):
        if index > 0:
            trainer.load_best()
        return Phase(2, fresh_optimizer=True) if index < 3 else None


METHODS = {"LoadsBest": LoadsBest, "IGM": lambda: IGM(stages=[2, 2, 2], reload_best=True), "MLA": MLA}


def build(name, path=None):
    # a rate at which validation goes up and down, so that some epochs are best and some are not
    schedule = Plateau(patience=0, gamma=0.7)
    return trainer_for(METHODS[name], epochs=6, run_dir=path, optimizer=SGD(lr=0.4), schedule=schedule)


def dying_at(monkeypatch, number):
    """Every save, replace and append of the run counts; number ``number`` dies before or after it."""
    calls = [0]

    def wrap(function, matters):
        def inner(*args, **kwargs):
            if not matters(*args):
                return function(*args, **kwargs)
            calls[0] += 1
            if calls[0] == number:
                raise Died
            result = function(*args, **kwargs)
            calls[0] += 1
            if calls[0] == number:
                raise Died
            return result

        return inner

    monkeypatch.setattr(saving, "save", wrap(saving.save, lambda *_: True))
    monkeypatch.setattr(saving, "rename", wrap(saving.rename, lambda *_: True))
    return calls


@pytest.mark.slow  # a run per operation
@pytest.mark.parametrize("name", ["LoadsBest", "IGM"])
def test_death_between_any_two_file_operations(tmp_path, monkeypatch, name):
    whole, data = build(name)
    whole.fit(data.train, data.val)
    best = [r["val/fused/accuracy"] for r in whole.history]
    assert len([v for i, v in enumerate(best) if v > max(best[:i], default=-1)]) > 1  # best.ckpt is written again
    number = 0
    while True:
        number += 1
        path = tmp_path / str(number)
        with monkeypatch.context() as patch:
            calls = dying_at(patch, number)
            try:
                build(name, path)[0].fit(data.train, data.val)
            except Died:
                pass
            else:
                break
        again, _ = build(name, path)
        again.fit(data.train, data.val, resume=True)
        assert_same(everything(whole), everything(again))
        assert history(whole) == history(again)
        assert not (path / "best.next.ckpt").exists()
    assert calls[0] > 12


def test_files_of_two_runs_do_not_mix(tmp_path):
    one_epoch(tmp_path / "run")
    saved = load(tmp_path / "run" / "best.ckpt")
    save(tmp_path / "run" / "best.ckpt", {**saved, "epoch": 77})
    with pytest.raises(CheckpointError, match="is of epoch 77"):
        one_epoch(tmp_path / "run", resume=True)


def test_a_full_disk_in_a_run_leaves_it_resumable(tmp_path, monkeypatch):
    whole, data = build("MLA")
    whole.fit(data.train, data.val)
    cut, _ = build("MLA", tmp_path / "run")

    def full(state, file, number=[0]):  # noqa: B006 - counts over calls
        number[0] += 1
        if number[0] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(state, file)

    original = torch.save
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match="No space left"):
            cut.fit(data.train, data.val)
    again, _ = build("MLA", tmp_path / "run")
    again.fit(data.train, data.val, resume=True)
    assert_same(everything(whole), everything(again))


# -- state that is no tensor, and a fusion that is fitted at the end -------------------------------------
class CountsBatches(Joint):
    """Keeps a plain number, as ``get_extra_state`` may."""

    def __init__(self):
        super().__init__()
        self.batches = 0

    def get_extra_state(self):
        return {"batches": self.batches}

    def set_extra_state(self, state):
        self.batches = state["batches"]

    def step(self, step):
        self.batches += 1
        return super().step(step)


class DiesAfter(Observer):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == self.epochs:
            raise Died


def test_plain_state_is_kept_and_restored(tmp_path):
    trainer, data = trainer_for(CountsBatches, run_dir=tmp_path, observers=[DiesAfter(2)])
    with pytest.raises(Died):
        trainer.fit(data.train, data.val)
    again, _ = trainer_for(CountsBatches, run_dir=tmp_path)
    again.fit(data.train, data.val, resume=True)
    assert again.method.batches == again.current.state.best_epoch * again.current.num_batches
    assert load(tmp_path / "last.ckpt")["method"]["_extra_state"] == {"batches": 4 * again.current.num_batches}
