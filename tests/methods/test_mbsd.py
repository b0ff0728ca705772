from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import pytest
import torch
from one_step import first_step, fitted, gradients, in_other_order

from counterpoise.fusions import Gated
from counterpoise.losses import CrossEntropy
from counterpoise.methods.mbsd import MBSD
from counterpoise.testing import trainer_for
from multitask import MultiTask

NAMES = ("first", "second", "third")


def nll(u, y):
    return float(u.exp().sum().log() - u[y])


def reference(output, target, there, weight, rs, kd):
    """The loss in float64, sample by sample."""
    u, y = {m: v.detach().double() for m, v in output.unimodal.items()}, target.tolist()
    p, n, w = {m: v.softmax(1) for m, v in u.items()}, range(len(y)), weight.tolist()

    def mean(values):
        return sum(w[i] * v for i, v in values.items()) / sum(w[i] for i in values)

    total = mean({i: nll(output.logits[i].detach().double(), y[i]) for i in n})
    total += sum(mean({i: nll(u[m][i], y[i]) for i in n if there[m][i]}) for m in u)
    pairs = []
    for a, b in combinations(u, 2):
        extra = {}
        for i in n:
            if not (there[a][i] and there[b][i]):
                continue
            t = {m: float(p[m][i][y[i]]) for m in (a, b)}
            right = any(int(u[m][i].argmax()) == y[i] for m in (a, b))
            strong, weak = (a, b) if t[a] >= t[b] else (b, a)
            squared = sum(float(x - z) ** 2 for x, z in zip(u[a][i], u[b][i], strict=True)) / 3
            kl = sum(float(s) * math.log(float(s / q)) for s, q in zip(p[strong][i], p[weak][i], strict=True))
            extra[i] = right * abs(t[a] - t[b]) * (rs * squared + kd * kl)
        pairs.append(mean(extra))
    return total + sum(pairs) / len(pairs)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize(("count", "fusion"), [(2, "Concat"), (3, "Late"), (3, partial(Gated, dim=4, heads=True))])
def test_loss_against_the_reference(count, fusion, absent, weighted):
    options = {"loss": CrossEntropy(class_weight=[1.0, 3.0, 0.5])} if weighted else {}
    trainer, step = first_step(partial(MBSD, rs=0.7, kd=2.0), NAMES[:count], fusion, absent=absent, **options)
    with torch.no_grad():  # so that modalities differ
        for p in trainer.model.fusion.parameters():
            p.mul_(6)
    output, loss, _ = gradients(trainer, step)
    everyone = torch.ones(18, dtype=torch.bool)
    there = {m: everyone if step.present(m) is None else step.present(m) for m in NAMES[:count]}
    weight = torch.tensor([1.0, 3.0, 0.5] if weighted else [1.0] * 3).double()[step.batch.target]
    expected = reference(output, step.batch.target, there, weight, 0.7, 2.0)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_oracle():
    """The terms of the worked example and the cross-entropies are the loss."""
    assert pytest.approx(2.7109154280) == 0.4587893896 + 0.4184527548 + 1.1701651308 + 0.4549939965 + 0.2085141564


@pytest.mark.parametrize("arguments", [{"rs": 1, "kd": 0}, {"rs": 0, "kd": 1}])
def test_either_term_acts(arguments):
    plain, mine = fitted(MultiTask), fitted(partial(MBSD, **arguments))
    assert any(not torch.equal(plain[k], mine[k]) for k in plain)


def test_modalities_may_be_in_any_order():
    forward, backward = in_other_order(MBSD, NAMES)
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_a_pair_that_nobody_has_adds_nothing():
    trainer, step = first_step(MBSD, NAMES[:2])
    first = torch.arange(18) % 2 == 0
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    _, loss, found = gradients(trainer, step)
    plain, other = first_step(MultiTask, NAMES[:2])
    other.batch = step.batch
    torch.testing.assert_close(loss, gradients(plain, other)[1])
    assert all(g.isfinite().all() for g in found.values())


def test_fusions_without_unimodal_logits_are_refused():
    trainer, data = trainer_for(MBSD, fusion="Attention")
    with pytest.raises(ValueError, match=r"MBSD compares what the modalities say alone.*heads=True"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("arguments", [{"rs": -1}, {"kd": -0.1}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        MBSD(**arguments)
