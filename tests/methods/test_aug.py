from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fit_to_the_last, step_on

import counterpoise as cp
from counterpoise.engine import SGD, AdamW, Constant, Trainer
from counterpoise.fusions import Boosted
from counterpoise.method import Method
from counterpoise.methods import AUG
from counterpoise.testing import _StopAfter, _StoppedError, assert_same, everything, tiny_model, trainer_for

NAMES = ("first", "second", "third")
SMALL = partial(Boosted, width=6, most=4)
DECAYING = [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)]


def opened(make, count=2, grown=(), **options):
    """A trainer that can take steps, and its first step; ``grown`` modalities have a classifier more."""
    options = {"optimizer": SGD(lr=0.1, momentum=0, weight_decay=0), "schedule": Constant(), **options}
    trainer, step = first_step(make, NAMES[:count], SMALL, **options)
    for m in grown:
        trainer.model.fusion.grow(m)
    trainer.current.make_optimizer()
    return trainer, step


def after_a_step(model, step, lam, residual):
    """Parameters after one step, turn by turn in float64 and from the equations; sums of scores."""
    model, y, losses, totals = model.double(), step.batch.target, [], []
    for m in model.modalities:
        rows = torch.ones_like(y, dtype=torch.bool) if step.present(m) is None else step.present(m)
        z = model.encoders[m](step.batch.inputs[m].double()[rows])
        fusion, t = model.fusion, y[rows]
        u = [fusion.last(layer(z).relu()) for layer in list(fusion.layers[m])[: fusion.active[m]]]
        loss = F.cross_entropy(sum(u), t)
        if len(u) > 1:
            before = [v.detach() for v in u[:-1]]
            q = sum(before).softmax(1) if residual == "ensemble" else sum(v.softmax(1) for v in before)
            weight = torch.tensor([max(0.0, 1 - lam * float(q[i, c])) for i, c in enumerate(t)], dtype=torch.float64)
            own = F.cross_entropy(u[-1], t, reduction="none")
            loss = loss + (weight * own).mean() + F.cross_entropy(sum(u[:-1]), t)
        totals.append([sum(u).softmax(1)[torch.arange(len(t)), t].sum().item(), len(t)])
        params = [p for p in model.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        with torch.no_grad():
            for p, g in zip(params, grads, strict=True):
                p.sub_(0 if g is None else 0.1 * g)
        losses.append(loss.item())
    return sum(losses) / len(losses), torch.tensor(totals).T


@pytest.mark.parametrize("residual", ["ensemble", "sum"])
@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("grown", [(), ("second",), ("second", "second", "first")])
def test_one_step_against_the_reference(grown, absent, residual):
    trainer, step = opened(partial(AUG, lam=0.8, residual=residual), 3, grown, absent=absent)
    other, _ = opened(AUG, 3)
    other.model.load_state_dict(trainer.model.state_dict())
    loss = trainer.method.step(step)
    wanted, totals = after_a_step(other.model, step, 0.8, residual)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(trainer.method.totals, totals.float(), atol=1e-4, rtol=1e-5)
    for (name, p), q in zip(trainer.model.named_parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p.double(), q, atol=1e-6, rtol=1e-4, msg=name)


class Turns(Method):
    """Alternating unimodal training."""

    def step(self, step):
        for m in step.model.modalities:
            step.backward(step.unimodal_loss(step.forward(only=(m,)), m))
            step.update()
        return torch.zeros(())


def test_without_growth_it_is_unimodal_training_in_turns():
    results = []
    for make in (partial(AUG, every=9, tau=1), Turns):
        trainer, data = trainer_for(make, fusion=SMALL, epochs=3)
        fit_to_the_last(trainer, data)
        results.append({k: v for k, v in everything(trainer).items() if k.startswith("model.")})
    assert_same(*results)


@pytest.mark.parametrize("optimizer", DECAYING)
def test_layers_rest_until_they_take_part(optimizer):
    trainer, data = trainer_for(partial(AUG, every=1), fusion=SMALL, epochs=4, optimizer=optimizer, norm=False)
    start = {n: p.detach().clone() for n, p in trainer.model.fusion.named_parameters()}
    fit_to_the_last(trainer, data)
    active = trainer.model.fusion.active
    assert max(active.values()) > 1
    for m, layers in trainer.model.fusion.layers.items():
        for j, layer in enumerate(layers):
            assert torch.equal(layer.weight, start[f"layers.{m}.{j}.weight"]) == (j >= active[m]), (m, j)


@pytest.mark.parametrize("optimizer", DECAYING)
def test_released_classifiers_are_never_trained(optimizer):
    trainer, _ = opened(partial(AUG, mode="released"), grown=("second", "second"), optimizer=optimizer)
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for _ in range(2):
        trainer.method.step(step_on(trainer, torch.arange(18)))
    resting = {n for n, p in trainer.model.named_parameters() if torch.equal(p, start[n])}
    assert resting == {n for n in start if ".layers." in n and n.split(".")[-2] != "0"}


def test_the_turn_of_one_modality_leaves_the_encoder_of_the_others():
    seen = {}

    class Watched(AUG):
        def _count(self, place, modality, logits, step):
            seen[modality] = {n: p.clone() for n, p in step.model.encoders.named_parameters()}
            super()._count(place, modality, logits, step)

    trainer, step = opened(Watched, 3, grown=("first",), optimizer=DECAYING[0])
    trainer.method.step(step)
    for before, after in (("first", "second"), ("second", "third")):
        for name in seen[before]:
            assert torch.equal(seen[before][name], seen[after][name]) != name.startswith(after), name


def test_the_weakest_grows_after_the_first_epoch_and_every_so_many_but_not_after_the_last():
    counts = []

    class Watched(AUG):
        def on_epoch_end(self, run, scores):
            s = self.totals[0] / self.totals[1]
            before = dict(run.model.fusion.active)
            super().on_epoch_end(run, scores)
            assert not self.totals.any()
            after = run.model.fusion.active
            names = [m for m in before if after[m] > before[m]]
            assert names in ([], [list(before)[int(s.argmin())]])
            counts.append(sum(after.values()))

    trainer, data = trainer_for(partial(Watched, every=2, tau=0), NAMES, SMALL, epochs=6)
    fit_to_the_last(trainer, data)
    assert counts == [4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("modalities", [2, 3])
def test_a_run_that_was_stopped_grows_as_one_that_was_not(modalities, tmp_path):
    make = partial(AUG, every=1)
    whole, data = trainer_for(make, NAMES[:modalities], SMALL)
    whole.fit(data.train, data.val)
    assert sum(whole.model.fusion.active.values()) > modalities
    for batches in range(2, 12, 3):
        path = tmp_path / str(batches)
        cut, data = trainer_for(make, NAMES[:modalities], SMALL, run_dir=path, observers=[_StopAfter(batches)])
        with pytest.raises(_StoppedError):
            cut.fit(data.train, data.val)
        again, data = trainer_for(make, NAMES[:modalities], SMALL, run_dir=path)
        again.fit(data.train, data.val, resume=True)
        assert_same(everything(whole), everything(again))
        assert again.model.fusion.active == whole.model.fusion.active


@pytest.fixture
def grown(tmp_path):
    """A run with classifiers added, in a folder, and its data."""
    trainer, data = trainer_for(partial(AUG, every=1, weights={"first": 0.4, "second": 0.6}), fusion=SMALL, epochs=4,
                                run_dir=tmp_path / "run")  # fmt: skip
    trainer.run(data)
    assert trainer.model.fusion.active["second"] > 1
    return trainer, data, tmp_path / "run"


def agrees(model, trainer, data):
    rows = {m: data.test.batch(range(len(data.test)), m, None) for m in NAMES[:2]}
    wanted = trainer.predict(data.test).named()["fused"].softmax(1)
    torch.testing.assert_close(torch.as_tensor(model.predict_proba(rows)), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:This run can be loaded elsewhere")
def test_added_classifiers_come_along_wherever_the_model_goes(grown, tmp_path):
    trainer, data, run = grown
    loaded = cp.load(run)
    agrees(loaded, trainer, data)
    loaded.save_pretrained(tmp_path / "folder")
    agrees(cp.load(tmp_path / "folder"), trainer, data)


def test_a_reopened_run_scores_as_it_did(grown):
    trainer, data, run = grown
    fresh = Trainer(tiny_model(AUG(), NAMES[:2], SMALL), trainer.method, accelerator="cpu")
    fresh.restore(run / "best.ckpt", data.val)
    assert fresh.model.fusion.active == trainer.model.fusion.active
    assert fresh.evaluate(data.test) == trainer.evaluate(data.test)


def test_the_prediction_is_the_weighted_mean_of_what_is_there():
    weights = {"first": 0.4, "second": 0.6, "third": 1.0}
    trainer, data = trainer_for(partial(AUG, weights=weights), NAMES, SMALL, absent=0.5, epochs=1)
    trainer.fit(data.train, data.val)
    model, split = trainer.model.eval(), data.train
    with torch.no_grad():
        output = model({m: split.batch(range(len(split)), m, None) for m in NAMES}, present=split.present)
        logits = trainer.method.predict(output, model)
    for i in range(len(split)):
        there = [m for m in NAMES if split.present[m][i]]
        wanted = sum(weights[m] * output.unimodal[m][i] for m in there) / sum(weights[m] for m in there)
        torch.testing.assert_close(logits[i], wanted)
    alone = trainer.method.decide(output, model).unimodal
    for m in NAMES:
        torch.testing.assert_close(alone[m], output.unimodal[m])


def test_nothing_grows_in_an_epoch_in_which_nobody_has_a_modality():
    trainer, data = trainer_for(partial(AUG, every=1), NAMES, SMALL)
    trainer.current.open(data.train, data.val)
    trainer.method.setup(trainer.current)
    trainer.method.totals.copy_(torch.tensor([[30.0, 10, 0], [40, 40, 0]]))
    trainer.method.on_epoch_end(trainer.current, {})
    assert set(trainer.model.fusion.active.values()) == {1}


def test_when_there_are_no_more_classifiers_it_says_so():
    trainer, _ = opened(partial(AUG, every=1), grown=("second",) * 3)
    trainer.method.totals.copy_(torch.tensor([[30.0, 10], [40, 40]]))
    with pytest.warns(UserWarning, match="second has all of its 4 classifiers. Raise most of Boosted"):
        trainer.method.on_epoch_end(trainer.current, {})


@pytest.mark.parametrize("fusion", ["Late", partial(Boosted, heads=True)])
def test_other_fusions_are_refused(fusion):
    trainer, data = trainer_for(AUG, fusion=fusion)
    with pytest.raises(ValueError, match=r"AUG adds classifiers to a modality; .* fusion=.*Use fusion=Boosted"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize(
    "arguments",
    [{"lam": 1.1}, {"sigma": 0}, {"tau": -1}, {"every": 0}, {"residual": "x"}, {"weights": {"a": 0}}, {"mode": "x"}],
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        AUG(**arguments)


def test_weights_name_every_modality():
    trainer, data = trainer_for(partial(AUG, weights={"first": 1.0}), fusion=SMALL)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="weights must name every modality"):
        trainer.fit(data.train, data.val)
