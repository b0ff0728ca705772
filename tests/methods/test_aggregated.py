from __future__ import annotations

import sys
from functools import partial

import pytest
import torch
from one_step import first_step, fitted
from torch import nn

from counterpoise.cli.methods import row
from counterpoise.functional.min_norm import min_norm_pair
from counterpoise.fusions import Concat
from counterpoise.methods import Aggregated, MMPareto
from counterpoise.testing import trainer_for
from multitask import MultiTask

aggregation = pytest.importorskip("torchjd.aggregation", reason="torchjd is not installed")
NAMES = ("first", "second", "third")


def heads_of(trainer):
    """Turn the fused prediction against the heads, so that gradients conflict."""
    with torch.no_grad():
        for m, block in trainer.model.fusion.blocks.items():
            block.weight.copy_(-trainer.model.fusion.own_heads[m].weight)


def gradients_of(make, count=2, absent=0.0, conflict=False):
    """What a step leaves in ``.grad`` just before the update, and the two gradients by autograd in float64."""
    trainer, step = first_step(make, NAMES[:count], absent=absent)
    trainer.current.make_optimizer()
    if conflict:
        heads_of(trainer)
    seen = {}

    def keep():
        seen.update({n: p.grad.clone() for n, p in trainer.model.named_parameters()})

    step.update = keep
    trainer.method.step(step)
    model, y = trainer.model.double(), step.batch.target
    inputs = {m: x.double() for m, x in step.batch.inputs.items()}
    output = model(inputs, present=step.batch.present)
    fused = nn.functional.cross_entropy(output.logits, y)
    own = 0
    for m in NAMES[:count]:
        rows = torch.ones_like(y, dtype=torch.bool) if step.present(m) is None else step.present(m)
        own = own + nn.functional.cross_entropy(output.unimodal[m][rows], y[rows])
    pairs = {}
    for m, encoder in model.encoders.items():
        parts = [torch.autograd.grad(loss, list(encoder.parameters()), retain_graph=True) for loss in (fused, own)]
        pairs[m] = [torch.cat([p.flatten() for p in part]) for part in parts]
    mine = {
        m: torch.cat([seen[f"encoders.{m}.{n}"].flatten() for n, _ in e.named_parameters()]).double()
        for m, e in model.encoders.items()
    }
    return mine, pairs, seen


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3])
def test_mgda_is_the_shortest_vector_of_mmpareto(count, absent):
    mine, pairs, _ = gradients_of(partial(Aggregated, "MGDA"), count, absent)
    for m, (g, u) in pairs.items():
        a_g, a_u = min_norm_pair(g @ g, u @ u, g @ u)
        close(mine[m], a_g * g + a_u * u)


def test_mgda_goes_where_mmpareto_goes_in_conflict_and_sum_where_it_goes_without():
    mine, pairs, _ = gradients_of(partial(Aggregated, "MGDA"), conflict=True)
    pareto, _, _ = gradients_of(partial(MMPareto, gamma=1), conflict=True)
    assert all(g @ u < 0 for g, u in pairs.values())
    for m in mine:
        close(mine[m] / mine[m].norm(), pareto[m] / pareto[m].norm())
    summed, pairs, seen = gradients_of(partial(Aggregated, "Sum"))
    pareto, _, other = gradients_of(partial(MMPareto, gamma=1))
    for m, (g, u) in pairs.items():
        close(summed[m], g + u)
        if g @ u > 0:
            close(summed[m], pareto[m])
    rest = [n for n in seen if not n.startswith("encoders.")]
    assert rest
    assert all(torch.equal(seen[n], other[n]) for n in rest)


def test_upgrad_is_the_mean_of_projections_onto_what_both_want():
    mine, pairs, _ = gradients_of(partial(Aggregated, "UPGrad"), conflict=True)
    for m, (g, u) in pairs.items():
        dot = g @ u
        assert dot < 0
        projected = g - dot / (u @ u) * u, u - dot / (g @ g) * g
        torch.testing.assert_close(mine[m], sum(projected) / 2, atol=1e-4, rtol=1e-2)
    mine, pairs, _ = gradients_of(partial(Aggregated, aggregation.Mean()))
    for m, (g, u) in pairs.items():
        close(mine[m], (g + u) / 2)


def test_the_sum_is_multi_task_training():
    with_heads = partial(Concat, heads=True)
    ours, theirs = fitted(partial(Aggregated, "Sum"), epochs=1), fitted(MultiTask, fusion=with_heads, epochs=1)
    for name, value in theirs.items():
        torch.testing.assert_close(value, ours[name], atol=1e-5, rtol=1e-4, msg=name)


def test_what_an_aggregator_draws_is_the_runs_own():
    found = []
    for draws in (1, 2):
        torch.rand(draws)
        found.append(gradients_of(partial(Aggregated, "Random"))[0])
    assert all(torch.equal(found[0][m], found[1][m]) for m in found[0])


@pytest.mark.parametrize(
    ("aggregator", "message"),
    [
        ("UpGrat", "Unknown aggregator 'UpGrat'. Did you mean 'UPGrad'?"),
        ("CAGrad", r"aggregator='CAGrad' needs options: .*Pass CAGrad\(\.\.\.\) itself"),
        ("UPGradWeighting", "Unknown aggregator"),
        ("GradVac", "aggregator=GradVac keeps something between batches"),
    ],
)
def test_what_is_no_such_aggregator_is_refused(aggregator, message):
    trainer, data = trainer_for(partial(Aggregated, aggregator))
    with pytest.raises(ValueError, match=message):
        trainer.fit(data.train, data.val)


def test_anything_else_is_refused_at_once():
    with pytest.raises(ValueError, match="aggregator must be the name"):
        Aggregated(3)


def test_a_name_in_any_case_and_the_label():
    trainer, data = trainer_for(partial(Aggregated, "upgrad"), epochs=1)
    trainer.fit(data.train, data.val)
    assert Aggregated("UPGrad").label == Aggregated(aggregation.UPGrad()).label == "Aggregated(UPGrad)"
    assert row("Aggregated")["backward"] == "2"


def test_without_the_package_it_says_what_to_install(monkeypatch):
    from counterpoise import _extras

    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "torchjd", None)
    trainer, data = trainer_for(Aggregated)
    with pytest.raises(ImportError, match=r"aggregator='UPGrad' needs the package torchjd: .*counterpoise\[torchjd\]"):
        trainer.fit(data.train, data.val)
