from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from one_step import first_step, fit_to_the_last, gradients

from counterpoise.methods.bss import BSS
from counterpoise.testing import NAMES, task, trainer_for

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


@pytest.mark.parametrize(
    "arguments", [{"fused": -1}, {"unimodal": -1}, {"start": 1.1}, {"growth": 0}, {"read_out": "fused"}]
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        BSS(**arguments)
