from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from one_step import fit_to_the_last
from torch.nn import functional as F

from counterpoise.data.arrays import from_arrays
from counterpoise.engine import SGD, Observer
from counterpoise.fusions import Shared
from counterpoise.methods.mla import MLA
from counterpoise.task import SingleLabel
from counterpoise.testing import NAMES, accepts_absent, assert_same, check_method, resumes_exactly, trainer_for
from counterpoise.types import Output

PLAIN = SGD(lr=0.1, momentum=0.0, weight_decay=0.0)


class Watch(Observer):
    """Model and projection after every update, and the batches."""

    def __init__(self):
        self.before, self.P = [], []

    def before_update(self, trainer):
        self.before.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        self.P.append(trainer.method.P.clone())


def run(method, modalities=2, batches=None, **options):
    watch = Watch()
    inner = method.step

    def step(step):
        if batches is not None:
            batches.append((step.batch, step.index, step.num_batches))
        return inner(step)

    method.step = step
    options = {"epochs": 2, "optimizer": PLAIN, **options}
    trainer, data = trainer_for(lambda: method, NAMES[:modalities], norm=False, observers=[watch], **options)
    fit_to_the_last(trainer, data)
    return trainer, watch


def encoded(weights, m, x):
    h = F.relu(x @ weights[f"encoders.{m}.0.weight"].T + weights[f"encoders.{m}.0.bias"])
    return h @ weights[f"encoders.{m}.3.weight"].T + weights[f"encoders.{m}.3.bias"]


@pytest.mark.parametrize("modalities", [2, 3])
def test_agrees_with_the_equations(modalities):
    """A run of plain SGD, recomputed batch by batch: projected head, plain bias and encoder, recursive P."""
    batches = []
    trainer, watch = run(MLA(alpha=0.2), modalities, batches)
    w = {k: v.double() for k, v in watch.before[0].items()}
    P = torch.eye(5, dtype=torch.float64)
    for batch, index, count in batches:
        for m in NAMES[:modalities]:
            mine = [k for k in w if k.startswith((f"encoders.{m}.", "fusion.head"))]
            leaves = {k: w[k].clone().requires_grad_() for k in mine}
            h = encoded(leaves, m, batch.inputs[m].double())
            loss = F.cross_entropy(h @ leaves["fusion.head.weight"].T + leaves["fusion.head.bias"], batch.target)
            for name, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
                w[name] = w[name] - 0.1 * (g @ P if name == "fusion.head.weight" else g)
            r = h.detach().mean(0)
            a = 0.2 ** (1 + index / count)
            q = P @ r / (a + r @ P @ r)
            P = P - torch.outer(q, r @ P)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value.double(), w[name], rtol=0, atol=2e-5)
    torch.testing.assert_close(trainer.method.P, P, rtol=0, atol=2e-5)
    assert trainer.method.P.dtype == torch.float64


def test_each_turn_moves_its_encoder_and_the_head_only():
    trainer, watch = run(MLA(), 3, optimizer=SGD(lr=0.1))  # momentum and weight decay would betray themselves
    states = [*watch.before, trainer.model.state_dict()]
    for turn, (old, new) in enumerate(itertools.pairwise(states)):
        changed = {k for k in old if not torch.equal(old[k], new[k])}
        m = NAMES[turn % 3]
        assert changed
        assert all(k.startswith((f"encoders.{m}.", "fusion.head")) for k in changed)


def test_the_first_turn_is_not_projected():
    paper, released = run(MLA()), run(MLA(mode="released"))
    first, second = (dict(x[1].before[1]) for x in (paper, released))
    assert_same(first, second)
    assert not torch.equal(paper[1].before[2]["fusion.head.weight"], released[1].before[2]["fusion.head.weight"])


def test_head_hardly_answers_to_means_it_has_seen():
    """(W_new - W_old) r is bounded by lr * |G| * |P r|, for every mean feature folded in before."""
    batches = []
    _, watch = run(MLA(), 2, batches)
    seen = []
    for turn in range(len(watch.before) - 1):
        batch, m = batches[turn // 2][0], NAMES[turn % 2]
        old, new, P = watch.before[turn], watch.before[turn + 1], watch.P[turn]
        delta = (new["fusion.head.weight"] - old["fusion.head.weight"]).double()
        # before_update sees P after this turn's mean was folded in; only means of earlier turns are protected
        h = encoded(old, m, batch.inputs[m])
        logits = h @ old["fusion.head.weight"].T + old["fusion.head.bias"]
        G = ((logits.softmax(1) - F.one_hot(batch.target, 3)).T @ h / len(h)).double()
        for r in seen:
            Pr = watch.P[turn - 1] @ r
            assert (delta @ r).norm() <= 0.1 * torch.linalg.matrix_norm(G, 2) * Pr.norm() + 1e-5
        seen.append(h.mean(0).double())
        assert torch.equal(P, P.T)
        assert torch.linalg.eigvalsh(P).min() >= -1e-12


def test_released_mode_never_projects():
    trainer, _ = run(MLA(mode="released"))
    assert torch.equal(trainer.method.P, torch.eye(5, dtype=torch.float64))


THREE = SimpleNamespace(task=SingleLabel(3))  # what MLA asks of a model


def worked_output():
    logits = {"a": torch.tensor([[2.0, 0.0, 0.0]]), "v": torch.tensor([[0.0, 0.0, 0.0]])}
    return Output(torch.zeros(1, 3), logits, {m: torch.ones(1, 2) for m in logits})


def test_prediction_weighs_by_certainty():
    fused = MLA().predict(worked_output(), THREE)
    torch.testing.assert_close(fused, torch.tensor([[1.2132, 0.0, 0.0]]), rtol=0, atol=5e-5)


def test_prediction_of_a_sample_ignores_the_rest_of_the_batch_and_absent_modalities():
    torch.manual_seed(0)
    logits, features = ({m: torch.randn(4, 3) for m in "abc"} for _ in range(2))
    present = {"b": torch.arange(4) != 2}
    whole = MLA().predict(Output(torch.zeros(4, 3), logits, features, present), THREE)
    part = {m: z[2:3] for m, z in logits.items() if m != "b"}
    alone = MLA().predict(Output(torch.zeros(1, 3), part, {m: features[m][2:3] for m in part}), THREE)
    torch.testing.assert_close(whole[2:3], alone)
    released = MLA(mode="released").predict(Output(torch.zeros(4, 3), logits, features), THREE)
    some = Output(torch.zeros(2, 3), {m: z[:2] for m, z in logits.items()}, features)
    assert not torch.allclose(released[:2], MLA(mode="released").predict(some, THREE))


def test_a_feature_of_zeros_is_not_an_absent_modality():
    trainer, data = trainer_for(MLA)
    trainer.method.setup(trainer.current)
    with torch.no_grad():
        trainer.model.fusion.head.bias.copy_(torch.tensor([2.0, 0.0, -1.0]))
        for p in trainer.model.encoders["second"].parameters():
            p.zero_()
    found = trainer.predict(data.test)
    logits = torch.stack([found.unimodal[m].double() for m in NAMES[:2]])
    p = logits.softmax(2)
    certainty = (p * p.log()).sum(2)
    weights = certainty.exp() / certainty.exp().sum(0)
    assert weights.min() > 0.2
    torch.testing.assert_close(found.fused.double(), (weights.unsqueeze(2) * logits).sum(0), rtol=0, atol=1e-6)


def test_a_sample_that_lacks_modalities_is_judged_by_the_others():
    trainer, data = trainer_for(MLA, NAMES[:3], absent=0.4)
    trainer.method.setup(trainer.current)
    found = trainer.predict(data.train)
    alone = ~data.train.present["second"] & ~data.train.present["third"]
    assert alone.any()
    torch.testing.assert_close(found.fused[alone], found.unimodal["first"][alone])


def test_absent_samples_do_not_enter_the_mean():
    x = {m: torch.randn(24, 6, generator=torch.Generator().manual_seed(i)) for i, m in enumerate(NAMES[:2])}
    masks = {"first": torch.arange(24) % 2 == 0}
    data = from_arrays(x, torch.arange(24) % 3, split=["train"] * 20 + ["val"] * 4, present=masks)
    batches = []
    method = MLA()
    inner = method.step
    method.step = lambda step: (batches.append(step.batch), inner(step))[1]
    trainer, _ = trainer_for(lambda: method, norm=False, batch_size=20, epochs=1, optimizer=PLAIN)
    start = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    fit_to_the_last(trainer, data)
    (batch,) = batches
    P = torch.eye(5, dtype=torch.float64)
    rows = {"first": batch.present["first"], "second": torch.ones(20, dtype=torch.bool)}
    for m in NAMES[:2]:
        r = encoded(start, m, batch.inputs[m][rows[m]]).mean(0).double()
        q = P @ r / (0.1 + r @ P @ r)
        P = P - torch.outer(q, r @ P)
    torch.testing.assert_close(trainer.method.P, P, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["paper", "released"])
def test_resumes_and_accepts_absent_samples(mode):
    check_method(lambda: MLA(mode=mode), modalities=3, checks=[resumes_exactly, accepts_absent])


@pytest.mark.parametrize(
    "fusion",
    [
        "Concat",
        "Late",
        lambda dims, classes: Shared(dims, classes, hidden=(8,)),
        lambda dims, classes: Shared(dims, classes, heads=True),
    ],
)
def test_another_fusion_is_refused_with_what_to_use(fusion):
    trainer, data = trainer_for(MLA, fusion=fusion)
    with pytest.raises(ValueError, match=r"one linear head shared by all.*Use fusion=Shared \(hidden=\(\)"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"alpha": 0.0}, "alpha"), ({"alpha": 1.0}, "alpha"), ({"mode": "relased"}, "Did you mean 'released'")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLA(**arguments)


def test_one_modality_is_refused():
    with pytest.raises(ValueError, match="at least 2 modalities"):
        trainer_for(MLA, NAMES[:1])
