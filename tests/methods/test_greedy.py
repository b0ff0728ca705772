from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fit_to_the_last, step_on

from counterpoise.engine import SGD, AdamW, Constant
from counterpoise.fusions import MMTM
from counterpoise.method import Method
from counterpoise.methods import Greedy
from counterpoise.testing import _StopAfter, _StoppedError, assert_same, everything, trainer_for

NAMES = ("first", "second", "third")


def opened(make, count=2, names=NAMES, **options):
    """A trainer that can take steps, by plain gradient descent."""
    options = {"optimizer": SGD(lr=0.1, momentum=0, weight_decay=0), "schedule": Constant(), **options}
    trainer, step = first_step(make, names[:count], **options)
    trainer.current.make_optimizer()
    return trainer, step


class Plain(Method):
    """The heads of MMTM without windows."""

    default_fusion = "MMTM"

    def loss(self, output, step):
        votes = step.model.fusion.votes(output.features)
        return torch.stack([step.criterion(u, present=step.present(m)) for m, u in votes.items()]).sum()


class Reference:
    """The rule in float64, from the equations, by plain gradient descent."""

    def __init__(self, model, eps, window):
        self.model, self.eps, self.window = model.double(), eps, window
        self.names = model.modalities
        self.means = {m: torch.zeros(d, dtype=torch.float64) for m, d in model.fusion.dims.items()}
        self.main, self.by = dict.fromkeys(self.names, 0.0), dict.fromkeys(self.names, 0.0)
        self.seen, self.open, self.care = 0, 0, None

    def step(self, step):
        fusion, y = self.model.fusion, step.batch.target
        has = {
            m: torch.ones_like(y, dtype=torch.bool) if step.present(m) is None else step.present(m) for m in self.names
        }
        z = self.model.encode({m: x.double() for m, x in step.batch.inputs.items()}, None, step.batch.present)
        e = torch.relu(sum(z[m] @ fusion.squeeze[m].weight.T for m in z) + fusion.bias)
        gate = {m: torch.sigmoid(e @ fusion.excite[m].weight.T + fusion.excite[m].bias) for m in z}
        used = {m: self.means[m] if self.open and m == self.care else gate[m] for m in z}
        u = {m: (used[m] * z[m]) @ fusion.classify[m].weight.T + fusion.classify[m].bias for m in z}
        loss = sum(F.cross_entropy(u[m][has[m]], y[has[m]]) for m in z)
        params = dict(self.model.named_parameters())
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values()), allow_unused=True), strict=True))
        both = torch.stack(list(has.values())).all(0)
        if both.any():
            for m in z:
                self.means[m] = (gate[m][both].mean(0).detach() + self.seen * self.means[m]) / (self.seen + 1)
            self.seen += 1
        self._window(params, grads)
        with torch.no_grad():
            for n, p in params.items():
                p.sub_(0 if grads[n] is None else 0.1 * grads[n])
        return loss.item()

    def _window(self, params, grads):
        if self.open:
            self.open -= 1
            return

        def speed(names):
            g = sum(float(grads[n].square().sum()) for n in names if grads[n] is not None)
            return g / sum(float(params[n].detach().square().sum()) for n in names)

        for m in self.names:
            own = [n for n in params if n.startswith((f"encoders.{m}.", f"fusion.classify.{m}."))]
            by = [n for n in params if n.startswith((f"fusion.excite.{m}.", "fusion.squeeze.", "fusion.bias"))]
            self.main[m], self.by[m] = self.main[m] + speed(own), self.by[m] + speed(by)
        ratio = {m: math.log10(self.by[m] / self.main[m]) for m in self.names}
        if max(ratio.values()) - min(ratio.values()) > self.eps:
            self.open, self.care = self.window, max(ratio, key=ratio.get)


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3])
def test_several_steps_against_the_reference(count, absent):
    trainer, step = opened(partial(Greedy, window=2, start=0), count, absent=absent)
    other, _ = opened(Greedy, count)
    other.model.load_state_dict(trainer.model.state_dict())
    reference, windows = Reference(other.model, 0.01, 2), []
    split = trainer.current.train_split
    for i in range(7):
        step = step_on(trainer, torch.arange(9 * (i % 6), 9 * (i % 6) + 9))
        loss = trainer.method.step(step)
        assert loss.item() == pytest.approx(reference.step(step), rel=1e-5)
        assert trainer.method.open == reference.open
        windows.append(reference.open)
    assert len(split) >= 54
    assert 2 in windows
    assert 1 in windows
    assert trainer.model.modalities[trainer.method.care] == reference.care
    means = torch.cat(list(reference.means.values()))
    torch.testing.assert_close(trainer.method.gates.double(), means, atol=1e-6, rtol=1e-5)
    for (name, p), q in zip(trainer.model.named_parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p.double(), q, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("make", [partial(Greedy, eps=1e9, start=0), partial(Greedy, eps=0, start=9)])
def test_without_a_window_it_is_plain_training(make):
    results = []
    for method in (make, Plain):
        trainer, data = trainer_for(method, NAMES, epochs=3)
        fit_to_the_last(trainer, data)
        results.append({k: v for k, v in everything(trainer).items() if k.startswith("model.")})
    assert_same(*results)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)])
def test_in_a_window_the_gate_rests_and_the_others_do_not_matter(optimizer):
    trainer, step = opened(partial(Greedy, eps=0, start=0), 3, optimizer=optimizer)
    trainer.method.step(step)
    method, care = trainer.method, trainer.model.modalities[trainer.method.care]
    assert method.open == 5
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    speeds = method.speeds.clone()
    with method._held(trainer.model):
        z = {m: v.detach().requires_grad_() for m, v in step.encode().items()}
        trainer.model.fusion.votes(z)[care].sum().backward()
    assert [m for m in z if z[m].grad is not None] == [care]
    trainer.current.optimizer.zero_grad(set_to_none=True)
    method.step(step_on(trainer, torch.arange(18)))
    resting = {n for n, p in trainer.model.named_parameters() if torch.equal(p, start[n])}
    assert resting == {f"fusion.excite.{care}.weight", f"fusion.excite.{care}.bias"}
    assert torch.equal(method.speeds, speeds)
    assert method.open == 4


def test_an_open_window_leaves_evaluation_alone():
    trainer, data = trainer_for(partial(Greedy, eps=0, start=0, window=50), epochs=1)
    fit_to_the_last(trainer, data)
    assert trainer.method.open > 0
    before = trainer.evaluate(data.test)
    trainer.method.open = 0
    assert trainer.evaluate(data.test) == before


@pytest.mark.parametrize("modalities", [2, 3])
def test_stopped_inside_a_window_it_goes_on_with_it(modalities, tmp_path):
    make = partial(Greedy, eps=0, start=0, window=3)
    whole, data = trainer_for(make, NAMES[:modalities])
    whole.fit(data.train, data.val)
    for batches in (2, 3, 5):
        path = tmp_path / str(batches)
        cut, data = trainer_for(make, NAMES[:modalities], run_dir=path, observers=[_StopAfter(batches)])
        with pytest.raises(_StoppedError):
            cut.fit(data.train, data.val)
        again, data = trainer_for(make, NAMES[:modalities], run_dir=path)
        again.fit(data.train, data.val, resume=True)
        assert_same(everything(whole), everything(again))


def test_modalities_may_be_in_any_order():
    forward, backward = (opened(partial(Greedy, eps=0, start=0), 3, names)[0] for names in (NAMES, NAMES[::-1]))
    backward.model.load_state_dict(forward.model.state_dict())
    backward.current.open(forward.current.train_split, None)
    for trainer in (forward, backward):
        for _ in range(3):
            trainer.method.step(step_on(trainer, torch.arange(18)))
    assert forward.method.open == backward.method.open
    assert NAMES[forward.method.care] == NAMES[::-1][backward.method.care]
    other = backward.model.state_dict()
    for name, value in forward.model.state_dict().items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-4, msg=name)


def test_a_batch_in_which_nobody_has_all_counts_for_no_mean_and_opens_no_window():
    trainer, step = opened(partial(Greedy, eps=0, start=0))
    first = torch.arange(18) < 9
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    trainer.method.step(step)
    assert trainer.method.batches == 0
    assert not trainer.method.gates.any()
    assert trainer.method.open == 0


def test_the_mean_gate_of_the_worked_example(monkeypatch):
    trainer, step = opened(Greedy)
    dims = trainer.model.fusion.dims
    for pair in ((0.2, 0.8), (0.6, 0.4), (0.7, 0.9)):
        gates = {m: torch.full((18, d), g) for (m, d), g in zip(dims.items(), pair, strict=True)}
        monkeypatch.setattr(MMTM, "gates", lambda self, features, gates=gates: gates)
        trainer.method._average_gates(step.encode(), step)
    assert trainer.method.gates.unique().tolist() == pytest.approx([0.5, 0.7])


def test_other_fusions_are_refused():
    trainer, data = trainer_for(Greedy, fusion="Gated")
    with pytest.raises(ValueError, match=r"Greedy watches the gates.*fusion=Gated. Use fusion=MMTM"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("arguments", [{"eps": -1}, {"window": 0}, {"start": -1}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Greedy(**arguments)
