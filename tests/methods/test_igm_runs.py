"""Whole IGM runs of several modalities, recomputed in float64: who acts on whom, fresh optimizers, mixup."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpoise.engine import SGD, Run, loop
from counterpoise.methods import igm
from counterpoise.methods.igm import IGM
from counterpoise.testing import NAMES, trainer_for

TAU, LR, MOMENTUM, DECAY, FLAT = 0.8, 0.05, 0.9, 1e-2, 0.3


class Kept:
    """A run, and what is needed to repeat it: initial model, batches, mixtures, batches of the passes for T."""

    def __init__(self, monkeypatch, method, modalities, **options):
        self.steps, self.mixes, self.passes = [], [], []
        optimizer = SGD(LR, MOMENTUM, DECAY)
        self.trainer, data = trainer_for(lambda: method, NAMES[:modalities], optimizer=optimizer, **options)
        self.start = copy.deepcopy(self.trainer.model).double()
        step, outputs, draw = method.step, self.trainer.current.outputs, igm.draw_mix

        def one_step(step_):
            self.steps.append((step_.phase_index, step_.phase.train[0], step_.batch))
            return step(step_)

        def one_pass(*args, **settings):
            self.passes.append([])
            for batch, output in outputs(*args, **settings):
                self.passes[-1].append(batch)
                yield batch, output

        def one_mix(*args):
            self.mixes.append(draw(*args))
            return self.mixes[-1]

        monkeypatch.setattr(method, "step", one_step)
        monkeypatch.setattr(self.trainer.current, "outputs", one_pass)
        monkeypatch.setattr(igm, "draw_mix", one_mix)
        monkeypatch.setattr(loop, "select_best", lambda run: False)
        self.trainer.fit(data.train, data.val)

    def check(self, model, besides=()):
        for name, mine in self.trainer.model.state_dict().items():
            expected = model.state_dict()[name].to(mine.dtype)
            if not name.endswith(besides):
                torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def linears(head):
    return [layer for layer in head.modules() if isinstance(layer, nn.Linear)]


def matrices(model, source, batches, statistic):
    """T of each layer of the source's head, from what enters it, or the means of that over each batch."""
    model.eval()
    head, seen = model.fusion.own_heads[source], []
    hooks = [layer.register_forward_pre_hook(lambda _, x: seen[-1].append(x[0])) for layer in linears(head)]
    for batch in batches:
        assert batch.present is None or source not in batch.present  # nobody there lacks it
        seen.append([])
        with torch.no_grad():
            head(model.encoders[source](batch.inputs[source].double()))
    for hook in hooks:
        hook.remove()
    found = []
    for inputs in zip(*seen, strict=True):
        rows = torch.cat([a if statistic == "sample" else a.mean(0, keepdim=True) for a in inputs])
        _, lam, V = torch.linalg.svd(rows.T @ rows)
        found.append(V.T @ torch.diag(torch.exp(-TAU * (lam - lam[-1]) / (lam[0] - lam[-1]))) @ V)
    return found


def repeat(kept, order, sam, rho, statistic="batch_mean"):
    """The stages one after the other, each with an optimizer that has seen nothing."""
    model, stage = kept.start, -1
    for (index, m, batch), mix in zip(kept.steps, kept.mixes, strict=True):
        assert m == order[index % len(order)]
        encoder, head = model.encoders[m], model.fusion.own_heads[m]
        params = [*head.parameters(), *encoder.parameters()]
        if index != stage:
            stage = index
            T = matrices(model, order[(index - 1) % len(order)], kept.passes[index - 1], statistic) if index else []
            optimizer = torch.optim.SGD(params, LR, MOMENTUM, weight_decay=DECAY)
        model.eval()
        encoder.train()
        y, x = batch.target, batch.inputs[m].double()
        here = torch.ones(len(y), dtype=torch.bool)
        if batch.present is not None and m in batch.present:
            here = batch.present[m]
        x = mix.share * x + (1 - mix.share) * x[mix.order] if mix else x

        def features(encoder=encoder, x=x, here=here):
            z = encoder(x[here])
            return z.new_zeros(len(x), z.shape[1]).index_copy(0, here.nonzero().flatten(), z)

        def loss(u, y=y, here=here, mix=mix):
            if mix is None:
                return F.cross_entropy(u[here], y[here])
            both = here & here[mix.order]
            other = F.cross_entropy(u[both], y[mix.order][both])
            return mix.share * F.cross_entropy(u[both], y[both]) + (1 - mix.share) * other

        z = features()
        g = list(torch.autograd.grad(loss(head(z)), params, retain_graph=True))
        if sam == "paper":
            norm = math.sqrt(sum(float(v.square().sum()) for v in g))
            before = copy.deepcopy(model.state_dict())
            climb(params, g, [norm] * len(g), rho)
            g = torch.autograd.grad(loss(head(features())), params)
            model.load_state_dict(before)  # weights, and the statistics as after one pass
        else:
            few = len(list(head.parameters()))
            norms = [float(v.norm()) for v in g]
            climb(params[:few], g[:few], norms[:few], rho)
            flat = torch.autograd.grad(F.cross_entropy(head(z)[here], y[here]), params)  # one label, and no mixture
            climb(params[few:], g[few:], norms[few:], rho)
            g = [(1 - FLAT) * a + FLAT * b for a, b in zip(g, flat, strict=True)]
        for p, v in zip(params, g, strict=True):
            p.grad = v
        for layer, t in zip(linears(head), T, strict=False):
            layer.weight.grad = layer.weight.grad @ t
        optimizer.step()
    return model


@torch.no_grad()
def climb(params, grads, norms, rho):
    for p, g, norm in zip(params, grads, norms, strict=True):
        p += rho * g / norm


@pytest.mark.parametrize(("mixup", "statistic"), [(0.0, "batch_mean"), (0.8, "batch_mean"), (0.0, "sample")])
def test_three_modalities_of_which_samples_lack_some(monkeypatch, mixup, statistic):
    order, rho = [NAMES[2], NAMES[0], NAMES[1]], 0.2
    method = IGM(TAU, rho, stages=[2, 1, 1, 1, 1], order=order, mixup=mixup, statistic=statistic)
    kept = Kept(monkeypatch, method, 3, absent=0.3)
    assert len(kept.passes) == 4
    assert all((mix is None) == (mixup == 0) for mix in kept.mixes)
    kept.check(repeat(kept, order, "paper", rho, statistic))


def test_the_released_form_with_mixed_samples(monkeypatch):
    method = IGM(TAU, 1e-3, stages=[2, 1, 1], sam="released", flat_ratio=FLAT, mixup=1.0)
    kept = Kept(monkeypatch, method, 2, absent=0.3)
    # Batch normalisation cancels the bias before it: its gradient is noise, which a norm per tensor blows up.
    kept.check(repeat(kept, NAMES[:2], "released", 1e-3), besides=(".0.bias", ".running_mean"))


def test_matrices_come_from_the_best_weights_where_stages_start_from_them(monkeypatch):
    calls = []
    method = IGM(stages=[1, 1], reload_best=True)
    measure, load = method._measure, Run.load_best
    monkeypatch.setattr(Run, "load_best", lambda self: (calls.append("load"), load(self))[1])
    monkeypatch.setattr(method, "_measure", lambda *args: (calls.append("measure"), measure(*args))[1])
    trainer, data = trainer_for(lambda: method, NAMES[:2])
    trainer.fit(data.train, data.val)
    assert calls == ["load", "measure"]
