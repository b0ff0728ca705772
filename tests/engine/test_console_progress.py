import io

import pytest
import torch
from rich.console import Console

from counterpoise.engine import SGD, ConsoleProgress, Observer, progress
from counterpoise.methods import OGM, Joint
from counterpoise.testing import assert_same, everything, trainer_for


def test_plain_lines_where_there_is_no_terminal(capsys):
    trainer, data = trainer_for(Joint, progress=True)
    trainer.fit(data.train, data.val)
    out, err = capsys.readouterr()
    assert not out
    lines = err.strip().splitlines()
    assert len(lines) == 4
    assert "\x1b" not in err
    assert lines[0].startswith("epoch 1/4 fit  loss ")
    for word in ("fused 0.", "first 0.", "second 0.", "s/epoch", "s left"):
        assert word in lines[1]
    assert lines[-1].endswith("0 s left")


def live(monkeypatch, **options):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    trainer, data = trainer_for(Joint, progress=True, **options)
    return trainer, data, screen


def test_a_live_bar_on_a_terminal(monkeypatch, capsys):
    trainer, data, screen = live(monkeypatch)
    trainer.fit(data.train, data.val)
    text = screen.getvalue()
    assert "Joint" in text
    assert "12/12 batches" in text
    assert "epoch 4/4 fit  loss " in text
    for name in ("fused", "first", "second"):
        assert f"{name} {trainer.history[-1][f'val/{name}/accuracy']:.3f}" in text
    assert "…" not in text  # all of it fits
    assert text.endswith("\x1b[?25h")  # the cursor is back
    assert capsys.readouterr().err == ""


def test_the_bar_ends_when_training_fails(monkeypatch):
    trainer, data, screen = live(monkeypatch, optimizer=SGD(lr=1e30), norm=False)
    with pytest.raises(FloatingPointError):
        trainer.fit(data.train, data.val)
    assert screen.getvalue().endswith("\x1b[?25h")
    assert trainer.current.observers[-1]._bar is None


def test_a_resumed_bar_starts_where_the_run_is(monkeypatch, tmp_path):
    class Died(BaseException):
        pass

    class Dies(Observer):
        def on_epoch_end(self, trainer, record):
            if record["epoch"] == 3:
                raise Died

    cut, data = trainer_for(Joint, run_dir=tmp_path, observers=[Dies()])
    with pytest.raises(Died):
        cut.fit(data.train, data.val)
    trainer, _, screen = live(monkeypatch, run_dir=tmp_path)
    trainer.fit(data.train, data.val, resume=True)
    assert " 6/12" in screen.getvalue()
    assert "12/12" in screen.getvalue()


class Order(Observer):
    def __init__(self):
        self.events, self.norms, self.before = [], [], None

    def on_fit_start(self, trainer):
        self.events.append("start")

    def before_update(self, trainer):
        grads = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        self.before = everything(trainer)
        self.events.append("update")

    def on_batch_end(self, trainer):
        now = everything(trainer)
        assert any(not torch.equal(now[k], v) for k, v in self.before.items())  # it had not moved before
        self.events.append("batch")

    def on_epoch_end(self, trainer, record):
        assert record["epoch"] == trainer.history[-1]["epoch"]
        self.events.append("epoch")

    def on_fit_end(self, trainer):
        self.events.append("end")


def test_observers_see_everything_in_order():
    watch = Order()
    trainer, data = trainer_for(Joint, epochs=2, observers=[watch])
    trainer.fit(data.train, data.val)
    assert watch.events == ["start", *(["update", "batch"] * 3 + ["epoch"]) * 2, "end"]


def test_before_update_gradients_are_final():
    watch = Order()
    trainer, data = trainer_for(Joint, epochs=2, observers=[watch], clip_norm=0.01)
    trainer.fit(data.train, data.val)
    assert watch.norms == pytest.approx([0.01] * 6, rel=1e-3)  # clipped

    class Edits(Joint):
        def modulate(self, output, step):
            for p in step.trainable():
                p.grad.zero_()

    watch = Order()
    watch.on_batch_end = lambda trainer: None
    trainer, data = trainer_for(Edits, epochs=1, observers=[watch])
    trainer.fit(data.train, data.val)
    assert watch.norms == [0.0] * 3  # edited


def test_observing_changes_nothing():
    plain, data = trainer_for(OGM)
    watched, _ = trainer_for(OGM, observers=[Order()], progress=True)
    assert_same(*(everything(t.fit(data.train, data.val)) for t in (plain, watched)))


def test_progress_is_last_so_that_a_broken_observer_is_seen_first():
    trainer, _ = trainer_for(Joint, progress=True, observers=[Order()])
    assert isinstance(trainer.current.observers[-1], ConsoleProgress)
