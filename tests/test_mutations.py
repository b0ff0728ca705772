"""Lines that could be changed without another test noticing; each test fails when its line does."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from counterpoise import build_model
from counterpoise.engine import Observer, Step, Trainer
from counterpoise.functional import pareto_gradient, project_inputs
from counterpoise.methods import AGM, IGM, LFM, OPM, Joint, ReconBoost
from counterpoise.testing import DIM, assert_same, everything, task, trainer_for
from counterpoise.types import Batch

TWO = ("first", "second")


@pytest.mark.parametrize("statistic", ["batch_mean", "sample"])
@pytest.mark.parametrize("seed", [0, 1])
def test_matrices_of_igm_come_from_batches_in_random_order(monkeypatch, statistic, seed):
    trainer, data = trainer_for(partial(IGM, statistic=statistic, stages=[1, 1, 1]), epochs=3, seed=seed)
    outputs, passes = trainer.current.outputs, []

    def watched(*arguments, **options):
        passes.append([])
        for batch, output in outputs(*arguments, **options):
            passes[-1] += batch.index.tolist()
            yield batch, output

    monkeypatch.setattr(trainer.current, "outputs", watched)
    trainer.fit(data.train, data.val)
    assert len(passes) == 2  # before the second and the third stage
    for order in passes:
        assert len(set(order)) == len(order) == len(data.train) // 18 * 18
        assert order != sorted(order)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("make", [ReconBoost, AGM, partial(LFM, schedule="learned", alpha=0.6, alpha_lr=0.5, held=6)])
def test_the_selected_weights_come_with_the_state_of_the_method(monkeypatch, make):
    trainer, data = trainer_for(make, fusion="Sum")
    scores, seen = trainer.current.scores, []
    values = iter([0.1, 0.2, 0.9, 0.3])  # the third epoch: by then every modality has had a stage

    def ranked(split, only=None):
        seen.append(everything(trainer))
        return {**scores(split, only), "fused/accuracy": next(values)}

    monkeypatch.setattr(trainer.current, "scores", ranked)
    trainer.fit(data.train, data.val)
    assert trainer.current.state.best_epoch == 3
    own = [name for name in seen[2] if name.startswith("method.") and not torch.equal(seen[2][name], seen[3][name])]
    assert own  # else the last state would pass as the selected one
    assert_same(everything(trainer), seen[2])


class Weights(Observer):
    """The learned weight after every batch, by epoch."""

    def __init__(self):
        self.found = {}

    def on_batch_end(self, trainer):
        self.found.setdefault(trainer.epoch, []).append(float(trainer.method.weight))


@pytest.mark.parametrize("batch_size", [6, 8, 12])
def test_the_weight_of_lfm_is_learned_once_an_epoch(batch_size):
    watch = Weights()
    make = partial(LFM, schedule="learned", alpha=0.5, alpha_lr=0.5, held=6)
    trainer, data = trainer_for(make, fusion="Sum", batch_size=batch_size, observers=[watch], epochs=3)
    trainer.fit(data.train, data.val)
    rows = list(watch.found.values())
    assert len(rows) == 3
    assert all(len(row) > 3 and len(set(row)) == 1 for row in rows)
    assert len({row[0] for row in rows}) > 1


@pytest.mark.parametrize("widths", [(6, 2), (2, 6), (7, 3)])
def test_opm_weighs_its_rates_by_the_widths_of_the_features(monkeypatch, widths):
    data = task(TWO)
    torch.manual_seed(0)
    encoders = {m: nn.Linear(DIM, width) for m, width in zip(TWO, widths, strict=True)}
    model = build_model(encoders, "Concat", num_classes=3, example=data.train)
    trainer = Trainer(
        model, OPM(p=1.0, warmup=0, q_base=0.6), epochs=1, batch_size=18, accelerator="cpu", progress=False
    )
    trainer.current.open(data.train, data.val)
    rows = torch.arange(18)
    inputs = {m: data.train.batch(rows.tolist(), m, None) for m in TWO}
    step = Step(trainer.current, Batch(inputs, data.train.target[rows], rows), 0, 1)
    fuse, given = step.fuse, []
    monkeypatch.setattr(step, "fuse", lambda features, present=None: given.append(features) or fuse(features, present))
    z = trainer.method(step).features
    q = torch.stack([trainer.current.totals[f"{m}/dropped"][0] for m in TWO])
    assert q[0] != q[1]
    theta = (widths[0] * q[0] + widths[1] * q[1]) / sum(widths)
    kept = given[-1]["first"].abs().sum(1) > 0
    assert kept.any()
    torch.testing.assert_close(given[-1]["first"][kept], z["first"][kept] / (1 - theta))


@pytest.mark.parametrize(("shape", "groups"), [((4, 4), 1), ((3, 3), 1), ((9, 1, 3, 3), 1), ((8, 2, 2, 1), 2)])
def test_a_gradient_is_projected_on_the_side_of_its_inputs(shape, groups):
    generator = torch.Generator().manual_seed(len(shape))
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
    rows, d = gradient.reshape(groups, -1, gradient[0].numel()), gradient[0].numel()
    half = torch.randn(groups, d, d, generator=generator, dtype=torch.float64)
    T = half + half.mT
    expected = torch.stack([torch.stack([T[i].T @ row for row in rows[i]]) for i in range(groups)])
    found = project_inputs(gradient, T if groups > 1 else T[0])
    torch.testing.assert_close(found, expected.reshape(shape))
    assert rows.shape[1] == d  # square: the other side would fit as well
    assert not torch.allclose(expected, torch.stack([T[i] @ rows[i] for i in range(groups)]))


@pytest.mark.parametrize("buffer", ["running_mean", "running_var"])
@pytest.mark.parametrize("modality", TWO)
def test_features_are_computed_again_when_a_buffer_of_the_encoder_changes(buffer, modality):
    trainer, data = trainer_for(Joint)
    before = trainer.current.predict(data.val, keep=True)
    with torch.no_grad():
        trainer.model.encoders[modality].get_buffer(f"1.{buffer}").add_(0.5)
    after = trainer.current.predict(data.val, keep=True)
    for m in TWO:
        assert torch.equal(before.unimodal[m], after.unimodal[m]) == (m != modality)
    trainer.current.evaluator.forget()
    assert torch.equal(trainer.current.predict(data.val).fused, after.fused)


@pytest.mark.parametrize("gamma", [1.0, 1.5])
@pytest.mark.parametrize(
    ("g", "u"),
    [
        ([[1.0], [1.0]], [[-1.0], [0.1]]),
        ([[1.0, 0.0], [0.0, 2.0]], [[-1.1, 0.1], [0.3, 0.2]]),
        ([[0.5, -1.0], [0.2, 0.1], [3.0]], [[-0.5, 0.9], [-1.0, 0.4], [-0.1]]),
    ],
)
def test_no_tensor_of_mmpareto_is_made_shorter(g, u, gamma):
    first, second = ([torch.tensor(part, dtype=torch.float64) for part in parts] for parts in (g, u))
    whole = torch.cat(first), torch.cat(second)
    gg, uu, gu = (float(a @ b) for a, b in ((whole[0], whole[0]), (whole[1], whole[1]), whole))
    assert gu < 0
    a = min(1.0, max(0.0, (uu - gu) / (gg + uu - 2 * gu)))
    shortest = [2 * a * x + 2 * (1 - a) * y for x, y in zip(first, second, strict=True)]
    ratios = [float((x + y).norm() / n.norm()) for x, y, n in zip(first, second, shortest, strict=True)]
    assert min(ratios) < 0.95
    found = pareto_gradient(first, second, gamma, "tensor")
    for n, ratio, got in zip(shortest, ratios, found, strict=True):
        torch.testing.assert_close(got, gamma * max(1.0, ratio) * n)
