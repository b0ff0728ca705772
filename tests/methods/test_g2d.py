from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import fit_to_the_last, fitted

from counterpoise.engine import SGD, AdamW, Observer
from counterpoise.methods.g2d import G2D
from counterpoise.methods.umt import UMT
from counterpoise.methods.unimodal import Unimodal
from counterpoise.testing import NAMES, assert_same, everything, task, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]
GENTLE = {"optimizer": SGD(lr=0.01)}


def teachers(method):
    return {k: v.detach().clone() for k, v in method.teachers.state_dict().items()}


def test_without_its_terms_no_teacher_is_trained():
    trainer, data = trainer_for(partial(G2D, alpha=0, beta=0, stage=0), epochs=1)
    trainer.fit(data.train, data.val)
    assert not trainer.method.teachers


@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_without_divergence_and_stages_it_is_umt(absent):
    options = {"absent": absent, **GENTLE}
    mine = fitted(partial(G2D, alpha=2.0, beta=0, stage=0, teacher_epochs=1), TWO, **options)
    assert_same(mine, fitted(partial(UMT, lam=2.0, teacher_epochs=1), TWO, **options))


class Checked(G2D):
    """Compares the loss of the first batch with that of another form."""

    def loss(self, output, step):
        total = super().loss(output, step)
        if not hasattr(self, "expected"):
            self.expected, self.got = reference(self, output, step), total.detach()
        return total


def reference(method, output, step):
    """In float64, from the teachers' parts, sample by sample."""
    y, f = step.batch.target, output.logits.detach().double()
    total = F.cross_entropy(f, y)
    for m in output.unimodal:
        teacher = method.teachers[m]
        present = step.present(m)
        rows = [i for i in range(len(y)) if present is None or present[i]]
        squares, divergences = [], []
        for i in rows:
            z = teacher.encoder(step.batch.inputs[m][i : i + 1]).double()
            t = teacher.fusion({m: z.float()})[1][m][0].double() / method.temperature
            squares.append(((output.features[m][i].detach().double() - z[0]) ** 2).mean())
            p, q = t.softmax(0), (f[i] / method.temperature).softmax(0)
            divergences.append(sum(p * (p / q).log()) * method.temperature**2)
        total = total + method.alpha * sum(squares) / len(rows) + method.beta * sum(divergences) / len(rows)
    return total


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize(("names", "fusion"), [(TWO, "Concat"), (THREE, "Late"), (TWO, "Gated")])
def test_loss_against_the_reference(names, fusion, absent):
    make = partial(Checked, alpha=0.5, beta=1.5, temperature=2.0, teacher_epochs=1)
    trainer, data = trainer_for(make, names, fusion, absent=absent, epochs=4, **GENTLE)
    trainer.fit(data.train, data.val)
    torch.testing.assert_close(trainer.method.got.double(), trainer.method.expected, atol=1e-5, rtol=1e-4)


def test_oracle():
    """The parts of the worked example make the loss."""
    assert pytest.approx(3.7923579198) == 0.4587893896 + 0.2379652377 + 0.2622699591 + 2.3333333333 + 0.5


@pytest.mark.parametrize("fusion", ["Concat", "Gated"])
def test_teachers_are_the_selected_unimodal_models(fusion):
    trainer, data = trainer_for(partial(G2D, teacher_epochs=3), TWO, fusion, **GENTLE)
    trainer.fit(data.train, data.val)
    confidences = []
    for m in TWO:
        alone, _ = trainer_for(lambda m=m: Unimodal(m), TWO, fusion, epochs=3, **GENTLE)
        alone.fit(data.train, data.val)
        teacher = trainer.method.teachers[m]
        assert_same(dict(alone.model.encoders[m].state_dict()), dict(teacher.encoder.state_dict()))
        assert_same(dict(alone.model.fusion.state_dict()), dict(teacher.fusion.state_dict()))
        p = alone.predict(data.train, only=(m,)).unimodal[m].softmax(1)
        confidences.append(float(p.gather(1, data.train.target[:, None]).mean()))
    weak = min(range(2), key=lambda i: confidences[i])
    assert trainer.method.order.tolist() == [weak, 1 - weak]


class Hashes(Observer):
    """Weights of the encoders, and which train, at the end of every epoch."""

    def __init__(self):
        self.ends, self.phases = [], []

    def on_epoch_end(self, run, record):
        self.phases.append(record["phase"])
        self.ends.append({k: v.detach().clone() for k, v in run.model.state_dict().items()})


@pytest.mark.parametrize("optimizer", [SGD(lr=0.01, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_the_weak_train_first_and_the_others_stand_still(names, optimizer):
    watch = Hashes()
    trainer, data = trainer_for(
        partial(G2D, stage=2, teacher_epochs=1), names, epochs=7, optimizer=optimizer, observers=[watch]
    )
    start = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}
    fit_to_the_last(trainer, data)
    ranked = [names[i] for i in trainer.method.order]
    rest = 7 - 2 * (len(names) - 1)
    expected = [f"{m} first" for m in ranked[:-1] for _ in range(2)] + ["fit"] * rest
    assert watch.phases == expected
    for before, after, phase in zip([start, *watch.ends], watch.ends, expected, strict=False):
        for name, value in before.items():
            owner = next((m for m in names if f".{m}." in name), None)
            trains = phase == "fit" or owner is None or phase == f"{owner} first"
            if "num_batches" not in name and not trains:
                assert torch.equal(value, after[name]), (phase, name)
            if name.endswith("0.weight") and trains:
                assert not torch.equal(value, after[name]), (phase, name)


@pytest.mark.parametrize(("names", "epochs", "lengths"), [(TWO, 7, [3, 4]), (THREE, 9, [2, 2, 5]), (TWO, 1, [1])])
def test_half_of_the_run_is_shared_among_the_stages(names, epochs, lengths):
    trainer, data = trainer_for(partial(G2D, teacher_epochs=1), names, epochs=epochs)
    trainer.current.open(data.train, data.val)
    trainer.method.setup(trainer.current)
    phases = [trainer.method.phase(i, trainer.current) for i in range(len(lengths) + 1)]
    assert phases.pop() is None
    assert [phase.epochs for phase in phases] == lengths
    assert all(phase.read == names for phase in phases[:-1])
    assert phases[-1].train is None


def test_equal_teachers_keep_the_order_of_the_model(monkeypatch):
    monkeypatch.setattr("counterpoise.methods.g2d._confidence", lambda trial, m: torch.tensor(0.5))
    trainer, data = trainer_for(partial(G2D, teacher_epochs=1), THREE, epochs=5, **GENTLE)
    trainer.fit(data.train, data.val)
    assert trainer.method.order.tolist() == [0, 1, 2]


def test_confidence_counts_the_samples_that_have_the_modality():
    trainer, _ = trainer_for(partial(G2D, teacher_epochs=2), TWO, epochs=4, **GENTLE)
    data = task(TWO, absent=0.4)
    kept = {}

    def watched(trial, m):
        kept[m] = confidence(trial, m)
        there = data.train.present[m]
        p = trial.predict("train", (m,)).unimodal[m].softmax(1).gather(1, data.train.target[:, None]).squeeze(1)
        assert float(kept[m]) == pytest.approx(float(p[there].mean()), rel=1e-5)
        assert float(kept[m]) != pytest.approx(float(p.mean()), rel=1e-5)
        return kept[m]

    from counterpoise.methods import g2d

    confidence = g2d._confidence
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(g2d, "_confidence", watched)
        trainer.fit(data.train, data.val)
    assert set(kept) == set(TWO)


def test_teachers_never_change():
    kept = []

    class Watching(G2D):
        def on_epoch_start(self, run):
            kept.append(teachers(self))
            run.method.train()

        def step(self, step):
            assert not any(module.training for module in self.teachers.modules())
            assert not any(p.requires_grad for p in self.teachers.parameters())
            return super().step(step)

    trainer, data = trainer_for(partial(Watching, teacher_epochs=1), TWO, epochs=4, **GENTLE)
    trainer.fit(data.train, data.val)
    for now in [*kept, teachers(trainer.method)]:
        assert_same(kept[0], now)


def test_a_stage_alone_needs_no_loss_of_its_own():
    """alpha = beta = 0 with stages: joint training, the weak modality first."""
    trainer, data = trainer_for(partial(G2D, alpha=0, beta=0, stage=1, teacher_epochs=1), TWO, epochs=3)
    trainer.fit(data.train, data.val)
    assert len(trainer.method.teachers) == 2
    assert [record["phase"] for record in trainer.history][1:] == ["fit", "fit"]


def test_stages_must_leave_an_epoch():
    trainer, data = trainer_for(partial(G2D, stage=2), THREE, epochs=4)
    with pytest.raises(ValueError, match=r"stage=2 leaves none of the 4 epochs.*2 modalities have a stage"):
        trainer.fit(data.train, data.val)


def test_a_resumed_run_does_not_train_teachers_again(tmp_path):
    starts = []

    class Counting(G2D):
        def on_start(self, run):
            starts.append(1)
            super().on_start(run)

    make = partial(Counting, teacher_epochs=1)
    whole, data = trainer_for(make, TWO, run_dir=tmp_path / "run", **GENTLE)
    whole.fit(data.train, data.val)
    again, _ = trainer_for(make, TWO, run_dir=tmp_path / "run", **GENTLE)
    again.fit(data.train, data.val, resume=True)
    assert len(starts) == 1
    assert_same(everything(whole), everything(again))


@pytest.mark.parametrize(
    "arguments", [{"alpha": -1}, {"beta": -1}, {"temperature": 0}, {"stage": -1}, {"teacher_epochs": 0}]
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        G2D(**arguments)
