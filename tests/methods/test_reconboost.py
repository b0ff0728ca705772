from functools import partial

import pytest
import torch
from torch import nn

from counterpoise.build import build_model
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import Observer, Step, Trainer
from counterpoise.fusions import Concat, Late, Shared, Sum
from counterpoise.methods.reconboost import ReconBoost
from counterpoise.testing import accepts_absent, check_method, trains
from counterpoise.types import Phase

AV, AVT = ("audio", "video"), ("audio", "video", "text")
SHARED = partial(Shared, rule="sum", hidden=(16,))


def encoder():
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU())
    net.dim = 8
    return net


def split(size=64, seed=0, names=AV, present=None):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (size,), generator=g)
    x = {m: nn.functional.one_hot(y, 3) * (1 + i) + torch.randn(size, 3, generator=g) for i, m in enumerate(names)}
    return ArraySplit(x, y, ("x", "y", "z"), present=present)


def trainer(method, names=AV, fusion=SHARED, epochs=4, heads=False, **settings):
    torch.manual_seed(0)
    model = build_model({m: encoder() for m in names}, fusion, num_classes=3, heads=heads)
    return Trainer(model, method, epochs=epochs, batch_size=16, accelerator="cpu", progress=False, **settings)


def a_step(t, phase, index, data):
    """One batch of the whole split, in this phase."""
    t.current.open(data, data)
    t.current.state.phase, t.current.state.phase_index = phase, index
    return Step(t.current, next(t.current.loaders.get(data).batches(data.modalities)), 0, 1)


def turn(m, names=AV):
    return Phase(1, train=(m,), read=names)


class Phases(Observer):
    def __init__(self):
        self.states = []

    def on_epoch_end(self, trainer, record):
        weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        self.states.append((record["phase"], weights, trainer.method.boost_rate.item()))


def reference(method, output, present, y, m, previous):
    """The loss of a turn from the equation, sample by sample in float64."""
    phi = {n: u.detach().double() for n, u in output.unimodal.items()}
    fit, near = [], []
    for i in range(len(y)):
        if not present[m][i]:
            continue
        p = phi[m][i].softmax(0)
        others = sum((phi[n][i] for n in phi if n != m and present[n][i]), torch.zeros(3, dtype=torch.float64))
        q = (method.boost_rate.item() * others).softmax(0)
        fit.append(-(method.w1 - method.w2 * q[y[i]]) * p[y[i]].log() / 3)
        if previous and present[previous][i]:
            near.append(((p - phi[previous][i].softmax(0)) ** 2).sum() / 3)
    total = torch.stack(fit).mean()
    return total + method.alpha * torch.stack(near).mean() if near else total


@pytest.mark.parametrize("fusion", [SHARED, Sum])
@pytest.mark.parametrize(("lacking", "rate"), [(False, 1.0), (False, 2.5), (True, 0.4), (True, 6.0)])
def test_the_loss_of_a_turn(fusion, lacking, rate):
    size = 12
    g = torch.Generator().manual_seed(3)
    masks = {"video": torch.rand(size, generator=g) > 0.4, "text": torch.rand(size, generator=g) > 0.4}
    data = split(size, names=AVT, present=masks if lacking else None)
    everyone = dict.fromkeys(AVT, torch.ones(size, dtype=torch.bool)) | (masks if lacking else {})
    for index, (m, previous) in enumerate([("audio", None), ("video", "audio"), ("text", "video"), ("audio", "text")]):
        method = ReconBoost(w1=4, w2=1.5, alpha=0.7, initial_rate=rate)
        step = a_step(trainer(method, AVT, fusion), turn(m, AVT), index, data)
        output = method(step)
        expected = reference(method, output, everyone, step.batch.target, m, previous)
        torch.testing.assert_close(method.loss(output, step).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_turn_reaches_its_own_encoder_and_the_shared_head_only():
    method = ReconBoost()
    t = trainer(method)
    step = a_step(t, turn("audio"), 1, split())
    method.objective(step).backward()
    assert all(p.grad is not None for p in t.model.encoders["audio"].parameters())
    assert all(p.grad.abs().sum() > 0 for p in t.model.fusion.head.parameters())
    assert all(p.grad is None for p in t.model.encoders["video"].parameters())
    assert method.boost_rate.grad is None


def test_rectification_reaches_everything_and_is_cross_entropy_of_the_prediction():
    method = ReconBoost(initial_rate=0.7)
    t = trainer(method)
    step = a_step(t, Phase(1, name="rectify"), 1, split())
    output = method(step)
    loss = method.loss(output, step)
    logits = 0.7 * (output.unimodal["audio"] + output.unimodal["video"])
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, step.batch.target))
    loss.backward()
    assert all(p.grad is not None for p in [*t.model.parameters(), method.boost_rate])


def test_consolidation_acts_only_when_it_works():
    def gradient(alpha, consolidation, index=1):
        method = ReconBoost(alpha=alpha, consolidation=consolidation)
        t = trainer(method)
        method.objective(a_step(t, turn("video"), index, split())).backward()
        return torch.cat([p.grad.flatten() for p in t.model.encoders["video"].parameters()])

    without = gradient(0.0, "working")
    assert not torch.allclose(gradient(1.0, "working"), without)
    assert torch.equal(gradient(1.0, "released"), without)
    assert torch.equal(gradient(100.0, "released"), without)
    assert torch.equal(gradient(1.0, "working", index=0), without)  # nobody came before the first


def test_what_a_turn_leaves_alone_stays_bit_for_bit():
    seen = Phases()
    method = ReconBoost(boost_epochs=1, rectify_epochs=1, stages=2)
    t = trainer(method, observers=[seen])
    start = {k: v.clone() for k, v in t.model.state_dict().items()}
    t.fit(split(), split(32, 1))
    assert [name for name, _, _ in seen.states] == ["boost audio", "rectify", "boost video", "rectify"]
    rates = [method.initial_rate, *(rate for _, _, rate in seen.states)]
    weights = [start, *(w for _, w, _ in seen.states)]
    for k, (name, _, _) in enumerate(seen.states):
        before, after = weights[k], weights[k + 1]
        still = {"boost audio": "encoders.video", "boost video": "encoders.audio"}.get(name, "nothing")
        for key in before:
            assert torch.equal(before[key], after[key]) == key.startswith(still), (name, key)
        assert (rates[k] == rates[k + 1]) == (name != "rectify")


@pytest.mark.parametrize(
    ("method", "epochs", "names", "expected"),
    [
        (ReconBoost(), 20, AV, [("audio", 4), (None, 6), ("video", 4), (None, 6)]),
        (ReconBoost(boost_epochs=1, rectify_epochs=1), 4, AV, [("audio", 1), (None, 1), ("video", 1), (None, 1)]),
        (ReconBoost(2, 1, 0.5, 3, 2, stages=1), 50, AV, [("audio", 3), (None, 2)]),
        (ReconBoost(boost_epochs=1, rectify_epochs=0), 4, AVT, [("audio", 1), ("video", 1), ("text", 1), ("audio", 1)]),
        (ReconBoost(), 1, AV, [("audio", 1)]),
    ],
)
def test_timetable(method, epochs, names, expected):
    t = trainer(method, names, epochs=epochs)
    phases = [method.phase(i, t.current) for i in range(len(expected))]
    assert [(p.train[0] if p.train else None, p.epochs) for p in phases] == expected
    assert all(p.fresh_optimizer for p in phases)
    assert all(p.read == names for p in phases if p.train)
    assert method.phase(len(expected), t.current) is None


def test_prediction_is_the_scaled_sum_whatever_the_order():
    method = ReconBoost(initial_rate=1.7)
    one, other = trainer(method, AVT), trainer(method, AVT[::-1])
    state = one.model.state_dict()
    other.model.load_state_dict({k: state[k] for k in other.model.state_dict()})
    for model in (one.model, other.model):
        model.eval()
    data = split(names=AVT)
    output, reverse = one.model(data.inputs), other.model(data.inputs)
    expected = 1.7 * torch.stack(list(output.unimodal.values())).sum(0)
    torch.testing.assert_close(method.predict(output, one.model), expected)
    torch.testing.assert_close(method.predict(reverse, other.model), expected)


def test_prediction_leaves_absent_modalities_out():
    method = ReconBoost(initial_rate=2.0)
    t = trainer(method, fusion=Sum)
    t.model.eval()
    inputs = split(4).inputs
    there = {"video": torch.tensor([True, False, True, False])}
    output = t.model(inputs, present=there)
    alone = t.model(inputs, only=("audio",))
    torch.testing.assert_close(method.predict(output, t.model)[1], 2 * alone.unimodal["audio"][1])


@pytest.mark.parametrize(("fusion", "heads"), [(Late, False), (Shared, False), (Concat, True)])
def test_other_fusions_are_refused_with_a_way_out(fusion, heads):
    with pytest.raises(ValueError, match=r"ReconBoost needs fused logits.*Shared\(rule='sum', hidden=\(256,\)\)"):
        trainer(ReconBoost(), fusion=fusion, heads=heads).fit(split(), split(32, 1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"w1": 1.0, "w2": 2.0},
        {"w2": -1.0},
        {"alpha": -0.1},
        {"boost_epochs": 0},
        {"rectify_epochs": -1},
        {"stages": 0},
        {"form": "exact"},
        {"consolidation": "none"},
        {"initial_rate": 0.0},
    ],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ReconBoost(**arguments)


@pytest.mark.parametrize("fusion", [SHARED, Sum, Concat])
@pytest.mark.parametrize("form", ["target", "residual"])
def test_it_learns(fusion, form):
    t = trainer(ReconBoost(boost_epochs=2, rectify_epochs=2, form=form), AVT, fusion, epochs=12)
    t.fit(split(128, names=AVT), split(64, 1, AVT))
    assert t.current.scores("val")["fused/accuracy"] > 0.75


@pytest.mark.filterwarnings("ignore:No training sample has the modality")
def test_degenerate_data_stay_finite():
    data = split(names=AVT, present={"text": torch.zeros(64, dtype=torch.bool), "video": torch.arange(64) % 4 > 0})
    data.target.zero_()
    for form in ("target", "residual"):
        t = trainer(ReconBoost(boost_epochs=1, rectify_epochs=1, form=form), AVT, Sum, epochs=6)
        t.fit(data, data)
        assert all(p.isfinite().all() for p in [*t.model.parameters(), *t.method.parameters()])


def test_a_second_fit_starts_from_the_initial_rate():
    method = ReconBoost(boost_epochs=1, rectify_epochs=1)
    trainer(method).fit(split(), split(32, 1))
    first = method.boost_rate.item()
    trainer(method).fit(split(), split(32, 1))
    assert method.boost_rate.item() == first != 1.0


def test_contract_of_three_with_a_shared_head():
    make = partial(ReconBoost, boost_epochs=1, rectify_epochs=1, form="residual")
    check_method(make, modalities=3, fusion=SHARED, checks=[trains, accepts_absent])
