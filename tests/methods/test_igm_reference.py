"""One whole IGM stage against its equations, in float64, written here without the library's own functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpoise.build import build_model
from counterpoise.data.arrays import from_arrays
from counterpoise.engine import SGD, Observer, Trainer, evaluation, loop, passes
from counterpoise.methods.igm import IGM

LR, MOMENTUM, DECAY, RHO, TAU = 0.05, 0.9, 1e-2, 0.3, 0.7
EPS, BN_MOMENTUM = 1e-5, 0.1


class ToDouble(nn.Module):
    def forward(self, x):
        return x.double()


class Record(Observer):
    """Model state after every epoch; the batches of each epoch."""

    def __init__(self):
        self.states, self.batches = [], [[]]

    def on_epoch_end(self, trainer, record):
        self.states.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        self.batches.append([])


@pytest.fixture
def in_double(monkeypatch):
    """The engine hands out float32; here it must not."""

    for module in (passes, evaluation):
        monkeypatch.setattr(module, "encode", lambda model, fabric, *arguments: model.encode(*arguments))
        monkeypatch.setattr(module, "fuse", lambda model, fabric, *inputs, **how: model.fuse(*inputs, **how))


def data(n=40):
    generator = torch.Generator().manual_seed(0)
    x = {"a": torch.randn(n, 5, generator=generator), "b": torch.randn(n, 4, generator=generator) + 0.5}
    y = torch.randint(0, 3, (n,), generator=generator)
    return from_arrays(x, y, split=["train"] * 29 + ["val"] * (n - 29))


def make_model():
    torch.manual_seed(3)

    def encoder(width):
        return nn.Sequential(ToDouble(), nn.Linear(width, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)).double()

    encoders = {"a": encoder(5), "b": encoder(4)}
    return build_model(encoders, "Late", num_classes=3, example=data().train).double()


def run(method, monkeypatch, *, epochs=4, batch_size=9, lr=LR):
    """Train; return the recorder, the order of the statistics pass, the data and the trainer."""
    splits = data()
    recorder, passes = Record(), []
    trainer = Trainer(
        make_model(),
        method,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=SGD(lr, MOMENTUM, DECAY),
        accelerator="cpu",
        progress=False,
        observers=[recorder],
    )
    inner, outputs = method.step, trainer.current.outputs

    def step(step):
        recorder.batches[-1].append(step.batch)
        return inner(step)

    def recorded(*args, **options):
        passes.append([])
        for batch, output in outputs(*args, **options):
            passes[-1].append(batch)
            yield batch, output

    constant = {"fused/accuracy": 0.0, "fused/loss": 0.0}
    monkeypatch.setattr(trainer.current, "scores", lambda split: constant)  # float32 only
    monkeypatch.setattr(loop, "select_best", lambda run: False)
    monkeypatch.setattr(method, "step", step)
    monkeypatch.setattr(trainer.current, "outputs", recorded)
    trainer.fit(splits.train, splits.val)
    return recorder, passes, trainer


class Branch:
    """Encoder Linear-BN-ReLU-Linear and head FC-ReLU-FC-FC on plain tensors."""

    def __init__(self, state, m):
        names = [f"encoders.{m}.{k}" for k in ("1.weight", "1.bias", "2.weight", "2.bias", "4.weight", "4.bias")]
        names += [f"fusion.own_heads.{m}.{k}.{kind}" for k in (0, 2, 3) for kind in ("weight", "bias")]
        self.names = names
        self.w = {n: state[n].clone() for n in names}
        self.mean = state[f"encoders.{m}.2.running_mean"].clone()
        self.var = state[f"encoders.{m}.2.running_var"].clone()
        self.m = m
        self.velocity = {}

    def forward(self, x, w, *, train, move=False):
        p, enc, head = w, f"encoders.{self.m}", f"fusion.own_heads.{self.m}"
        h = x.double() @ p[f"{enc}.1.weight"].T + p[f"{enc}.1.bias"]
        mean, var = (h.mean(0), h.var(0, unbiased=False)) if train else (self.mean, self.var)
        if move:
            self.mean = (1 - BN_MOMENTUM) * self.mean + BN_MOMENTUM * h.mean(0).detach()
            self.var = (1 - BN_MOMENTUM) * self.var + BN_MOMENTUM * h.var(0, unbiased=True).detach()
        h = (h - mean) / torch.sqrt(var + EPS) * p[f"{enc}.2.weight"] + p[f"{enc}.2.bias"]
        inputs = [torch.relu(h) @ p[f"{enc}.4.weight"].T + p[f"{enc}.4.bias"]]
        inputs.append(torch.relu(inputs[-1] @ p[f"{head}.0.weight"].T + p[f"{head}.0.bias"]))
        inputs.append(inputs[-1] @ p[f"{head}.2.weight"].T + p[f"{head}.2.bias"])
        return inputs[-1] @ p[f"{head}.3.weight"].T + p[f"{head}.3.bias"], inputs

    def gradient(self, x, y, w, move):
        w = {n: v.detach().clone().requires_grad_() for n, v in w.items()}
        logits, _ = self.forward(x, w, train=True, move=move)
        loss = -logits.log_softmax(1)[torch.arange(len(y)), y].mean()
        return dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))

    def sam_gradient(self, x, y):
        g = self.gradient(x, y, self.w, move=True)
        norm = math.sqrt(sum(float((v**2).sum()) for v in g.values()))
        return self.gradient(x, y, {n: self.w[n] + RHO * g[n] / norm for n in g}, move=False)

    def sgd(self, g, lr=LR):
        for n, v in g.items():
            d = v + DECAY * self.w[n]
            self.velocity[n] = d if n not in self.velocity else MOMENTUM * self.velocity[n] + d
            self.w[n] = self.w[n] - lr * self.velocity[n]

    def matrices(self, batches):
        """T of each head layer from batch means: an eigendecomposition of the summed outer products."""
        moments = [0.0, 0.0, 0.0]
        for batch in batches:
            _, inputs = self.forward(batch.inputs[self.m], self.w, train=False)
            for i, a in enumerate(inputs):
                moments[i] = moments[i] + torch.outer(a.mean(0), a.mean(0))
        found = []
        for Y in moments:
            _, lam, V = torch.linalg.svd(Y)
            s = torch.exp(-TAU * (lam - lam.min()) / (lam.max() - lam.min()))
            found.append(V.T @ torch.diag(s) @ V)
        return found

    def check(self, state, besides=()):
        for n in set(self.names) - set(besides):
            torch.testing.assert_close(state[n], self.w[n], rtol=0, atol=1e-10)
        if not besides:  # the running mean follows the bias before it
            torch.testing.assert_close(state[f"encoders.{self.m}.2.running_mean"], self.mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(state[f"encoders.{self.m}.2.running_var"], self.var, rtol=0, atol=1e-10)


def test_two_stages_agree_with_the_equations(in_double, monkeypatch):
    start = {k: v.clone() for k, v in make_model().state_dict().items()}
    method = IGM(tau=TAU, rho=RHO, stages=[2, 2])
    recorder, passes, _ = run(method, monkeypatch)

    a = Branch(start, "a")
    for epoch in (0, 1):
        for batch in recorder.batches[epoch]:
            a.sgd(a.sam_gradient(batch.inputs["a"], batch.target))
    assert len(recorder.batches[0]) == 3
    a.check(recorder.states[1])

    assert len(passes) == 1
    assert len(passes[0]) == 3
    T = a.matrices(passes[0])
    b = Branch(start, "b")
    for epoch in (2, 3):
        for batch in recorder.batches[epoch]:
            assert set(batch.inputs) == {"b"}
            g = b.sam_gradient(batch.inputs["b"], batch.target)
            for layer, t in zip((0, 2, 3), T, strict=True):
                name = f"fusion.own_heads.b.{layer}.weight"
                g[name] = g[name] @ t
            b.sgd(g)
    b.check(recorder.states[3])
    a.check(recorder.states[3])  # the other branch, running statistics included, has not moved
    assert recorder.states[3]["encoders.b.2.num_batches_tracked"] == 6  # once a batch, though SAM looks twice
    for layer, t in zip(("0", "2", "3"), T, strict=True):
        torch.testing.assert_close(method.matrices.get_buffer(f"b:head/{layer}"), t, rtol=0, atol=1e-10)


def test_released_step_agrees_with_its_description(in_double, monkeypatch):
    """Norms per tensor, no way back, head at the perturbed weights on the features from before."""
    f, rho = 0.3, 0.2
    start = {k: v.clone() for k, v in make_model().state_dict().items()}
    recorder, _, _ = run(IGM(sam="released", rho=rho, flat_ratio=f, stages=[1, 1], gm=False), monkeypatch, epochs=2)
    a = Branch(start, "a")
    for batch in recorder.batches[0]:
        x, y = batch.inputs["a"], batch.target
        w = {n: v.clone().requires_grad_() for n, v in a.w.items()}
        logits, inputs = a.forward(x, w, train=True, move=True)
        base = torch.autograd.grad(F.cross_entropy(logits, y), list(w.values()), retain_graph=True)
        climbed = {n: v.detach() + rho * g / g.norm() for (n, v), g in zip(w.items(), base, strict=True)}
        head = {n: climbed[n].clone().requires_grad_() for n in w if n.startswith("fusion")}
        p = f"fusion.own_heads.{a.m}."
        hidden = torch.relu(inputs[0] @ head[p + "0.weight"].T + head[p + "0.bias"])
        out = (hidden @ head[p + "2.weight"].T + head[p + "2.bias"]) @ head[p + "3.weight"].T + head[p + "3.bias"]
        encoder = [v for n, v in w.items() if n not in head]
        flat = torch.autograd.grad(F.cross_entropy(out, y), [*encoder, *head.values()])
        g = {n: (1 - f) * b + f * q for n, b, q in zip(w, base, flat, strict=True)}
        a.w = climbed
        a.sgd(g)
    # Batch normalisation cancels the bias before it: its gradient is rounding noise, which a norm per tensor blows up.
    a.check(recorder.states[0], besides=["encoders.a.1.bias"])


def test_with_no_radius_the_released_step_is_plain_training(in_double, monkeypatch):
    released, _, _ = run(IGM(sam="released", rho=0.0, stages=[2, 2]), monkeypatch)
    off, _, _ = run(IGM(sam="off", stages=[2, 2]), monkeypatch)
    for mine, other in zip(released.states, off.states, strict=True):
        for name, value in mine.items():
            torch.testing.assert_close(value, other[name], rtol=0, atol=1e-12)
