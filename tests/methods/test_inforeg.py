from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from one_step import first_step, fit_to_the_last, gradients

from counterpoise.engine import SGD
from counterpoise.methods.inforeg import InfoReg
from counterpoise.testing import NAMES, check_method, resumes_exactly, same_on_replicas, task, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


def stepped(make, names=THREE, *, epoch=2, history=None, absent=0.0, moved=0.1):
    """The gradients of a batch in some epoch with these traces behind it, and without the method's term."""
    trainer, step = first_step(make, names, epoch=epoch, absent=absent)
    method = trainer.method
    method.on_epoch_start(trainer.current)
    if history is not None:
        method.history[:, -2:] = torch.tensor(history)
    starts = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(moved * torch.randn(p.shape, generator=generator))
    output, loss, found = gradients(trainer, step)
    trainer.model.zero_grad()
    step.backward(method.loss(method(step), step))
    plain = {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
    pull = {n: p.detach() - starts[n] for n, p in trainer.model.named_parameters()}
    return trainer, step, output, loss, found, plain, pull


def alphas(output, step, names, beta):
    """In float64, from the equation."""
    rows = torch.ones(len(step.batch.target), dtype=torch.bool)
    for m in names:
        rows = rows if step.present(m) is None else rows & step.present(m)
    y = step.batch.target[rows]
    s = {m: float(output.unimodal[m].detach().double()[rows].log_softmax(1)[range(len(y)), y].mean()) for m in names}
    strength = {}
    for m in names:
        behind = [s[m] - s[j] for j in names if s[j] < s[m]]
        strength[m] = math.exp(beta * math.tanh(sum(behind) / len(behind))) if behind else 0.0
    return strength


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_the_pull_against_the_reference(names, absent):
    history = [[1.0, 2.0]] * len(names)  # everybody's window is open
    make = partial(InfoReg, beta=0.7)
    _, step, output, _, found, plain, pull = stepped(make, names, history=history, absent=absent)
    strength = alphas(output, step, names, 0.7)
    assert sum(a > 0 for a in strength.values()) == len(names) - 1
    for n, gradient in found.items():
        part, m = n.split(".")[:2]
        alpha = strength[m] if part == "encoders" else 0.0
        torch.testing.assert_close(gradient, plain[n] + alpha * pull[n], rtol=1e-4, atol=1e-6, msg=n)


@pytest.mark.parametrize(
    ("epoch", "history", "is_open"),
    [
        (2, [1.0, 2.0], True),
        (2, [1.0, 1.03], False),
        (2, [2.0, 1.0], False),
        (2, [0.0, 0.0], False),
        (1, [0.0, 2.0], False),  # the paper begins with the third epoch
        (7, [1.0, 1.05], True),
    ],
)
def test_only_inside_the_window(epoch, history, is_open):
    *_, found, plain, _ = stepped(InfoReg, TWO, epoch=epoch, history=[history] * 2)
    same = [torch.equal(found[n], plain[n]) for n in found]
    assert all(same) != is_open


def test_windows_are_of_each_modality():
    results = []
    for history in ([[1.0, 2.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 2.0]]):
        *_, found, plain, _ = stepped(InfoReg, TWO, history=history)
        results.append({n.split(".")[1] for n in found if not torch.equal(found[n], plain[n])})
    assert sorted(map(len, results)) == [0, 1]  # the one that leads is pulled, when its own window is open


class Watched(InfoReg):
    """Keeps the gradients of every batch before the term, and what the method knows of the epochs."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.norms, self.seen, self.starts = [], [], []

    def on_epoch_start(self, run):
        super().on_epoch_start(run)
        self.norms.append([])
        self.seen.append(self.history.clone())
        self.starts.append(all(
            torch.equal(a, b)
            for m in run.model.modalities
            for a, b in zip(run.model.encoders[m].parameters(), self.beginning[m].parameters(), strict=True)
        ))  # fmt: skip

    def modulate(self, output, step):
        encoders = step.model.encoders
        self.norms[-1].append(
            [sum(float(p.grad.double().square().sum()) for p in encoders[m].parameters()) for m in TWO]
        )
        super().modulate(output, step)


def test_traces_are_the_mean_squared_norms_of_an_epoch():
    method = Watched()
    trainer, data = trainer_for(lambda: method, TWO, epochs=4)
    fit_to_the_last(trainer, data)
    traces = [torch.tensor(norms).mean(0).double() for norms in method.norms]
    for epoch in range(1, 4):
        torch.testing.assert_close(method.seen[epoch][:, -epoch:], torch.stack(traces[:epoch], 1), rtol=1e-4, atol=0)
        assert not method.seen[epoch][:, :-epoch].any()
    assert all(method.starts)


def test_the_released_form():
    make = partial(InfoReg, form="released", unimodal=1)
    for epoch, history, is_open in (
        (0, None, True),
        (3, [[1.0, 2.0], [1.0, 1.0]], True),
        (3, [[0.0, 0.0], [1.0, 2.0]], False),
    ):
        trainer, step, output, _, found, plain, pull = stepped(make, TWO, epoch=epoch, history=history)
        y = step.batch.target
        sums = [float(output.unimodal[m].detach().double().softmax(1)[range(len(y)), y].sum()) for m in TWO]
        gap = sums[0] - sums[1]
        expected = [
            0.95 * math.exp(math.tanh(gap)) if gap > 0 else 0.0,
            0.1 * math.exp(math.tanh(-gap)) if gap < 0 else 0.0,
        ]
        trace = [0.0, 0.0]
        for n, gradient in found.items():
            part, m = n.split(".")[:2]
            alpha = expected[TWO.index(m)] * is_open if part == "encoders" else 0.0
            torch.testing.assert_close(gradient, plain[n] + alpha * pull[n], rtol=1e-4, atol=1e-6, msg=n)
            if part == "encoders" and gradient.ndim >= 2:
                trace[TWO.index(m)] += float(gradient.square().mean())
        assert trainer.method.trace.tolist() == pytest.approx(trace, rel=1e-4)


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_unimodal_losses_are_added(absent):
    nll = torch.nn.functional.cross_entropy
    trainer, step = first_step(partial(InfoReg, unimodal=0.4), THREE, absent=absent)
    output, loss, _ = gradients(trainer, step)
    expected = nll(output.logits.double(), step.batch.target)
    for m in THREE:
        rows = slice(None) if step.present(m) is None else step.present(m)
        expected = expected + 0.4 * nll(output.unimodal[m].double()[rows], step.batch.target[rows])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("check", [resumes_exactly, same_on_replicas])
def test_contract_of_the_released_form(check):
    check_method(partial(InfoReg, form="released", unimodal=1), checks=[check])


def test_it_acts_in_a_whole_run():
    results = []
    for window in (0.0, 1.0):
        trainer, data = trainer_for(partial(InfoReg, window=window), TWO, epochs=4, optimizer=SGD(lr=0.05))
        trainer.fit(data.train, task(TWO).val)
        results.append([record[f"train/{m}/regulation"] for record in trainer.history for m in TWO])
    assert max(results[0]) > 1
    assert not any(results[1])


@pytest.mark.parametrize("arguments", [{"beta": -1}, {"window": -1}, {"unimodal": -1}, {"form": "code"}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        InfoReg(**arguments)
