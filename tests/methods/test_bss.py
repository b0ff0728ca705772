from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from one_step import first_step, fit_to_the_last, gradients

from counterpoise.methods.bss import BSS
from counterpoise.testing import (
    NAMES,
    accepts_absent,
    check_method,
    resumes_exactly,
    same_on_replicas,
    survives_degenerate_batches,
    task,
    trainer_for,
)

TWO, THREE = NAMES[:2], NAMES[:3]


class Watched(BSS):
    """Keeps the weights before training and the rows of every epoch."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.rows, self.model = [], []

    def on_start(self, run):
        self.model.append({k: v.detach().clone() for k, v in run.model.state_dict().items()})
        super().on_start(run)

    def on_epoch_start(self, run):
        super().on_epoch_start(run)
        self.rows.append(set())

    def step(self, step):
        assert not self.rows[-1] & set(step.batch.index.tolist())
        self.rows[-1] |= set(step.batch.index.tolist())
        return super().step(step)


def scores_of(model, split, fused, unimodal):
    """Sample by sample in float64."""
    names, y = model.modalities, split.target.tolist()
    with torch.no_grad():
        inputs = {m: split.batch(list(range(len(split))), m, None) for m in names}
        output = model(inputs, present=split.present)
    agreements, losses = [], []
    for i in range(len(y)):
        has = [m for m in names if split.present is None or split.present[m][i]]
        p = {m: output.unimodal[m][i].double().softmax(0) for m in has}
        cosines = [float(p[a] @ p[b] / p[a].norm() / p[b].norm()) for a, b in combinations(has, 2)]
        agreements.append(sum(cosines) / len(cosines) if cosines else 1.0)
        own = [-math.log(p[m][y[i]]) for m in has]
        f = -float(output.logits[i].double().log_softmax(0)[y[i]])
        losses.append(fused * f + unimodal * len(names) * sum(own) / len(own))

    def unit(values):
        return [(v - min(values)) / (max(values) - min(values)) for v in values]

    return [a - b for a, b in zip(unit(agreements), unit(losses), strict=True)]


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_epochs_are_of_the_best_ranked_samples(names, absent):
    make = partial(Watched, fused=0.3, unimodal=0.6, start=0.2, growth=4)
    trainer, _ = trainer_for(make, names, epochs=5, batch_size=6)
    data = task(names, absent=absent)
    fit_to_the_last(trainer, data)
    model, _ = trainer_for(make, names)
    model.model.load_state_dict(trainer.method.model[0])
    scores = scores_of(model.model.eval(), data.train, 0.3, 0.6)
    n = len(scores)
    ranking = sorted(range(n), key=lambda i: -scores[i])
    assert len({round(s, 6) for s in scores}) > n // 2
    for epoch, rows in enumerate(trainer.method.rows):
        count = int(n * min(1, math.sqrt((1 - 0.2**2) * (epoch + 1) / 4 + 0.2**2)) + 1e-9)
        assert rows <= set(ranking[:count])
        assert len(rows) == count // 6 * 6
    assert len(trainer.method.rows[-1]) == n // 6 * 6


@pytest.mark.parametrize("weights", [(0.1, 0.9), (1.0, 1.0), (0.5, 0.0)])
@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_loss_against_the_reference(absent, weights):
    trainer, step = first_step(partial(BSS, *weights), THREE, absent=absent)
    output, loss, _ = gradients(trainer, step)
    y = step.batch.target
    nll = torch.nn.functional.cross_entropy
    expected = weights[0] * nll(output.logits.double(), y)
    for m in THREE:
        rows = slice(None) if step.present(m) is None else step.present(m)
        expected = expected + weights[1] * nll(output.unimodal[m].double()[rows], y[rows])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_run_on_all_samples_from_the_start_may_end_early():
    assert BSS(start=1).must_finish() is None


def test_there_is_always_a_batch():
    trainer, data = trainer_for(partial(Watched, start=0, growth=1000), TWO, epochs=2)
    fit_to_the_last(trainer, data)
    assert [len(rows) for rows in trainer.method.rows] == [18, 18]


def test_growth_is_a_third_of_the_run():
    trainer, data = trainer_for(Watched, TWO, epochs=9, batch_size=2)
    fit_to_the_last(trainer, data)
    n = len(data.train)
    expected = [int(n * math.sqrt(0.99 * (t + 1) / 3 + 0.01)) // 2 * 2 for t in range(2)] + [n // 2 * 2] * 7
    assert [len(rows) for rows in trainer.method.rows] == expected


@pytest.mark.parametrize("read_out", ["unimodal", "all"])
@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_what_is_predicted(absent, read_out):
    trainer, _ = trainer_for(partial(BSS, read_out=read_out), THREE, epochs=2)
    data = task(THREE, absent=absent)
    trainer.fit(data.train, data.val)
    split = data.val
    inputs = {m: split.batch(list(range(len(split))), m, None) for m in THREE}
    output = trainer.model.eval()(inputs, present=split.present)
    expected = torch.zeros_like(output.logits)
    for m in THREE:
        rows = torch.ones(len(split)) if split.present is None else split.present[m].float()
        expected = expected + rows[:, None] * output.unimodal[m]
    expected = expected + output.logits if read_out == "all" else expected
    torch.testing.assert_close(trainer.predict(split).fused, expected.detach())


def test_evaluation_with_a_split_of_another_size(tmp_path):
    trainer, data = trainer_for(BSS, TWO, epochs=2, run_dir=tmp_path / "run")
    trainer.fit(data.train, data.val)
    other, _ = trainer_for(BSS, TWO)
    other.restore(tmp_path / "run" / "best.ckpt", data.test)
    torch.testing.assert_close(other.predict(data.test).fused, trainer.predict(data.test).fused)


class Learned(Watched):
    """Keeps the weights and the generator's state before each epoch, and what the scores and the rows are then."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.models, self.generators, self.kept, self.chosen, self.batches = [], [], [], [], []

    def on_start(self, run):
        BSS.on_start(self, run)

    def on_epoch_start(self, run):
        self.models.append({k: v.detach().clone() for k, v in run.model.state_dict().items()})
        self.generators.append(run.generator.get_state())
        BSS.on_epoch_start(self, run)
        self.kept.append(self.scores.clone())
        self.chosen.append(run.rows)
        self.batches.append([])

    def step(self, step):
        self.batches[-1].append(step.batch.index)
        return BSS.step(self, step)


def learned(schedule, *, absent=0.0, **options):
    make = partial(Learned, fused=0.3, unimodal=0.6, schedule=schedule, **options)
    trainer, _ = trainer_for(make, THREE, epochs=4, batch_size=6)
    fit_to_the_last(trainer, task(THREE, absent=absent))
    return trainer.method, task(THREE, absent=absent).train


@pytest.mark.parametrize(("every", "memory", "absent"), [(1, 0.0, 0.3), (1, 0.6, 0.0), (2, 0.5, 0.3)])
@pytest.mark.parametrize("schedule", ["drawn", "ordered"])
def test_learned_scores_and_rows_against_the_reference(schedule, every, memory, absent):
    method, train = learned(schedule, every=every, memory=memory, absent=absent)
    model, _ = trainer_for(partial(BSS, schedule=schedule), THREE)
    expected = None
    for epoch, weights in enumerate(method.models):
        if epoch % every:
            assert torch.equal(method.kept[epoch], method.kept[epoch - 1])
            assert method.chosen[epoch] is method.chosen[epoch - 1]
            continue
        model.model.load_state_dict(weights)
        new = torch.tensor(scores_of(model.model.eval(), train, 0.3, 0.6), dtype=torch.float64)
        expected = new if expected is None else memory * expected + (1 - memory) * new
        torch.testing.assert_close(method.kept[epoch].double(), expected, rtol=1e-4, atol=1e-5)
        weight = expected.exp() if schedule == "drawn" else 1 + expected + 0.01
        generator = torch.Generator()
        generator.set_state(method.generators[epoch])
        # the same weights up to rounding: the same draw
        drawn = torch.multinomial(weight.float(), len(train), replacement=schedule == "drawn", generator=generator)
        assert (drawn == method.chosen[epoch].indices).float().mean() > 0.95


def test_ordered_epochs_are_all_samples_in_the_order_drawn():
    method, train = learned("ordered")
    for rows, batches in zip(method.chosen, method.batches, strict=True):
        assert sorted(rows.indices.tolist()) == list(range(len(train)))
        assert torch.equal(torch.cat(batches), rows.indices[: len(train) // 6 * 6])
    assert not torch.equal(method.chosen[0].indices, method.chosen[1].indices)


def test_drawn_epochs_repeat_samples_and_are_shuffled():
    method, train = learned("drawn")
    for rows, batches in zip(method.chosen, method.batches, strict=True):
        assert len(rows.indices) == len(train)
        assert len(rows.indices.unique()) < len(train)
        assert not torch.equal(torch.cat(batches), rows.indices[: len(train) // 6 * 6])


@pytest.mark.parametrize("schedule", ["drawn", "ordered"])
@pytest.mark.parametrize("check", [resumes_exactly, accepts_absent, survives_degenerate_batches])
def test_contract_of_the_learned_schedules(schedule, check):
    check_method(partial(BSS, schedule=schedule, every=2, memory=0.3), checks=[check])


@pytest.mark.parametrize("schedule", ["drawn", "ordered"])
def test_learned_schedules_on_two_processes(schedule):
    check_method(partial(BSS, schedule=schedule), modalities=3, checks=[same_on_replicas])


def test_learned_schedules_may_end_early():
    assert BSS(schedule="drawn").must_finish() is BSS(schedule="ordered").must_finish() is None
    assert "by and by" in (BSS().must_finish() or "")


@pytest.mark.parametrize(
    "arguments",
    [
        {"fused": -1},
        {"unimodal": -1},
        {"start": 1.1},
        {"growth": 0},
        {"read_out": "fused"},
        {"schedule": "learned"},
        {"every": 0},
        {"memory": 1},
    ],
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        BSS(**arguments)
