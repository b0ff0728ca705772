import copy
import gc
import random
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from counterpoise import build_model
from counterpoise.data import Splits, from_arrays
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import SGD, AdamW, Cosine, Observer, Optimizer, Trainer
from counterpoise.engine.state import mix
from counterpoise.methods import IGM, MLA, OGM, Joint, Unimodal
from counterpoise.testing import DIM, assert_same, everything, task, tiny_model, trainer_for
from counterpoise.types import Phase

TWO = ("first", "second")


# -- the loop does what a loop by hand does ------------------------------------------------------------
def test_parity_with_a_loop_by_hand():
    trainer, data = trainer_for(Joint, optimizer=SGD(lr=0.05), schedule=Cosine(), epochs=3, clip_norm=1.0)
    model = copy.deepcopy(trainer.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    best, kept = -1.0, {}
    val = {m: data.val.batch(range(len(data.val)), m, None) for m in TWO}
    for epoch in range(3):
        model.train()
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(mix(0, epoch, "order")))
        batches = order[: len(order) // 18 * 18].split(18)
        for index, rows in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * Cosine().factor(epoch + index / len(batches), 3)
            features = {m: model.encoders[m](data.train.batch(rows.tolist(), m, None)) for m in TWO}
            logits, _ = model.fusion(features)
            loss = F.cross_entropy(logits, data.train.target[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits, _ = model.fusion({m: model.encoders[m](val[m]) for m in TWO})
        accuracy = float((logits.argmax(1) == data.val.target).float().mean())
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    trainer.fit(data.train, data.val)
    assert_same({f"model.{k}": v for k, v in kept.items()}, everything(trainer))


@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_the_best_epoch_on_validation_is_kept(monitor):
    weights = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            weights.append(everything(trainer))

    trainer, data = trainer_for(Joint, epochs=6, monitor=monitor, optimizer=SGD(lr=0.5), observers=[Watch()])
    trainer.fit(data.train, data.val)
    values = [r[f"val/fused/{monitor}"] for r in trainer.history]
    place = values.index(min(values) if monitor == "loss" else max(values))
    assert place != 5  # else the last weights would pass as the best
    assert trainer.state.best_epoch == place + 1
    assert_same(everything(trainer), weights[place])


def test_a_score_that_is_no_number_is_never_best(monkeypatch):
    trainer, data = trainer_for(Joint, epochs=3)
    scores = iter([float("nan"), 0.5, float("nan")])
    monkeypatch.setattr(trainer, "scores", lambda split: {"fused/accuracy": next(scores), "fused/loss": 1.0})
    trainer.fit(data.train, data.val)
    assert trainer.state.best_epoch == 2


class Untouchable(ArraySplit):
    def batch(self, indices, modality, seed):
        raise AssertionError("read while training")


def test_fit_reads_no_test_sample():
    trainer, data = trainer_for(Joint, epochs=1)
    rows = range(len(data.test))
    test = Untouchable({m: data.test.batch(rows, m, None) for m in TWO}, data.test.target, data.test.classes)
    trainer.fit(data.train, data.val)
    with pytest.raises(AssertionError, match="read while training"):
        trainer.evaluate(test)


def test_every_fit_starts_afresh():
    once, data = trainer_for(Joint)
    start = copy.deepcopy(once.model.state_dict())
    once.fit(data.train, data.val)
    expected, history = everything(once), [{**r, "seconds": 0} for r in once.history]
    once.model.load_state_dict(start)
    for p in once.model.parameters():
        p.grad = torch.ones_like(p)  # left over from something else
    once.fit(data.train, data.val)
    assert_same(expected, everything(once))
    assert history == [{**r, "seconds": 0} for r in once.history]


def test_training_takes_nothing_from_the_model_but_its_weights():
    trainer, data = trainer_for(lambda: Unimodal("first"), epochs=1)
    frozen = trainer.model.encoders["first"][0].bias.requires_grad_(False)
    trainer = Trainer(trainer.model, Unimodal("first"), epochs=1, batch_size=18, accelerator="cpu", progress=False)
    before = frozen.clone()
    trainer.fit(data.train, data.val)
    assert [p for p in trainer.model.parameters() if not p.requires_grad] == [frozen]
    assert torch.equal(frozen, before)
    assert not trainer.model.training
    weight = trainer.model.encoders["second"][0].weight
    start = weight.detach().clone()
    Trainer(trainer.model, Joint(), epochs=1, batch_size=18, accelerator="cpu", progress=False).fit(
        data.train, data.val
    )
    assert not torch.equal(weight, start)  # a second trainer trains everything


# -- phases, freezing, learning rates ------------------------------------------------------------------
class Freezes(Joint):
    """Freezes a modality after two epochs and remembers its tensors."""

    def on_epoch_end(self, trainer, scores):
        if trainer.epoch == 1:
            trainer.freeze("first")
            self.kept = snapshot(trainer, "first")
            self.other = snapshot(trainer, "second")


def snapshot(trainer, m):
    tensors = [t for part in trainer.model.modules_of(m) for t in [*part.parameters(), *part.buffers()]]
    state = [v for p in trainer.model.parameters_of(m) for v in trainer.optimizer.state.get(p, {}).values()]
    return [t.detach().clone() for t in [*tensors, *(v for v in state if isinstance(v, torch.Tensor))]]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.1)])
@pytest.mark.parametrize("fusion", ["Concat", "Late"])
def test_frozen_means_frozen(optimizer, fusion):
    last = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            last[:] = [snapshot(trainer, m) for m in TWO]

    trainer, data = trainer_for(Freezes, fusion=fusion, optimizer=optimizer, epochs=4, observers=[Watch()])
    trainer.fit(data.train, data.val)
    kept, other = trainer.method.kept, trainer.method.other
    assert len(kept) == len(last[0])
    assert all(torch.equal(a, b) for a, b in zip(kept, last[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(other, last[1], strict=True) if a.ndim > 0)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.1)])
def test_what_a_phase_does_not_train_rests_optimizer_state_included(optimizer):
    seen = {}

    class Turns(Joint):
        def phase(self, index, trainer):
            seen[index] = {m: snapshot(trainer, m) for m in TWO}
            return Phase(2, train=(TWO[index % 2],)) if index < 4 else None

        def forward(self, step):
            return step.forward(step.phase.train)

    trainer, data = trainer_for(Turns, optimizer=optimizer)
    trainer.fit(data.train, data.val)
    for index in range(4):
        moved, rested = TWO[index % 2], TWO[(index + 1) % 2]
        assert all(torch.equal(a, b) for a, b in zip(seen[index][rested], seen[index + 1][rested], strict=True))
        pairs = zip(seen[index][moved], seen[index + 1][moved], strict=False)
        assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 0)


def test_a_gradient_left_over_from_a_phase_moves_nothing():
    class LeavesGradients(Joint):
        def phase(self, index, trainer):
            if index == 1:
                for p in trainer.model.parameters_of("first"):
                    p.grad = torch.ones_like(p)
                self.kept = snapshot(trainer, "first")
            return Phase(1, train=(TWO[index],)) if index < 2 else None

        def forward(self, step):
            return step.forward(step.phase.train)

        def on_epoch_end(self, trainer, scores):
            self.last = snapshot(trainer, "first")

    trainer, data = trainer_for(LeavesGradients)
    trainer.fit(data.train, data.val)
    assert all(torch.equal(a, b) for a, b in zip(trainer.method.kept, trainer.method.last, strict=True))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_fresh_optimizer_forgets_momentum_and_restarts_the_schedule(fresh):
    found = {}

    class Two(Joint):
        def phase(self, index, trainer):
            return Phase((3, 2)[index], fresh_optimizer=fresh) if index < 2 else None

        def on_epoch_start(self, trainer):
            found[trainer.epoch] = len(trainer.optimizer.state)

    trainer, data = trainer_for(Two, epochs=5, schedule=Cosine())
    trainer.fit(data.train, data.val)
    assert bool(found[3]) != fresh
    at = [(e, 3) for e in (1, 2, 3)] + [(1, 2), (2, 2)] if fresh else [(e, 5) for e in (1, 2, 3, 4, 5)]
    expected = [0.05 * Cosine().factor(*where) for where in at]
    assert [r["lr"] for r in trainer.history] == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), AdamW(lr=0.05, weight_decay=0.0)])
def test_rescale_acts_whatever_the_optimizer(optimizer):
    def moved(factor):
        class Rescaled(Joint):
            def on_start(self, trainer):
                trainer.rescale("first", factor)

        trainer, data = trainer_for(Rescaled, optimizer=optimizer, norm=False, epochs=1, batch_size=54)
        before = everything(trainer)
        trainer.fit(data.train, data.val)
        return {k: v - before[k] for k, v in everything(trainer).items()}

    whole, half, zero = moved(1.0), moved(0.5), moved(0.0)
    for name, change in whole.items():
        mine = ".first." in name
        torch.testing.assert_close(half[name], change * (0.5 if mine else 1), rtol=1e-4, atol=1e-7)
        assert bool(zero[name].any()) != mine


@pytest.mark.parametrize("verb", ["freeze", "rescale"])
def test_verbs_name_the_modality_they_do_not_know(verb):
    trainer, _ = trainer_for(Joint)
    with pytest.raises(ValueError, match="Did you mean 'first'"):
        getattr(trainer, verb)(*(["frist", 0.5] if verb == "rescale" else ["frist"]))


def test_stop_ends_the_phase_and_not_the_run():
    class Stops(Joint):
        def phase(self, index, trainer):
            return Phase(5, name=str(index)) if index < 2 else None

        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 1:
                trainer.stop()

    trainer, data = trainer_for(Stops, epochs=10)
    trainer.fit(data.train, data.val)
    assert [r["phase"] for r in trainer.history] == ["0"] * 2 + ["1"] * 5


def test_resampled_rows_train_from_the_next_epoch_on():
    seen = []

    class Resamples(Joint):
        def step(self, step):
            seen.append((step.epoch, step.batch.index.tolist(), step.present("second")))
            return super().step(step)

        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 0:
                trainer.resample(torch.tensor([3, 5] * 18), {"second": torch.tensor([True, False] * 18)})
            else:
                trainer.resample(None)

    trainer, data = trainer_for(Resamples, epochs=3)
    trainer.fit(data.train, data.val)
    second = [(rows, mask) for epoch, rows, mask in seen if epoch == 1]
    assert len(second) == 2
    for rows, mask in second:
        assert {(row, bool(there)) for row, there in zip(rows, mask, strict=True)} <= {(3, True), (5, False)}
    assert len({row for epoch, rows, _ in seen for row in rows if epoch == 2}) > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.arange(5),), "leaves 5 training samples, fewer than batch_size=18"),
        ((torch.arange(20), {"second": torch.ones(3, dtype=torch.bool)}), "one entry per row: 20 rows, 3 entries"),
        ((torch.arange(20), {"secnd": torch.ones(20, dtype=torch.bool)}), "Did you mean 'second'"),
    ],
)
def test_rows_that_cannot_be_trained_on(arguments, message):
    class Resamples(Joint):
        def on_start(self, trainer):
            trainer.resample(*arguments)

    trainer, data = trainer_for(Resamples)
    with pytest.raises(ValueError, match=message):
        trainer.fit(data.train, data.val)


def test_load_best_puts_the_best_weights_so_far_back():
    found = []

    class Loads(Joint):
        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 3:
                trainer.load_best()
                found.append((everything(trainer), trainer.keeper.best["model"]))

    trainer, data = trainer_for(Loads)
    trainer.fit(data.train, data.val)
    ((now, best),) = found
    assert_same({f"model.{k}": v for k, v in best.items()}, now)


# -- what evaluation may remember ----------------------------------------------------------------------
class CountRuns(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layer, self.runs = nn.Linear(DIM, dim), 0

    def forward(self, x):
        self.runs += not self.training
        return self.layer(x)


class Fused(Optimizer):
    def __init__(self, kind=torch.optim.SGD, **options):
        self.kind, self.options, self.lr = kind, options, 0.1

    def build(self, groups):
        return self.kind(list(groups), lr=self.lr, **self.options)


class WritesData(Fused):
    """Steps behind autograd's back."""

    def build(self, groups):
        optimizer = super().build(groups)

        def step(closure=None):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.data.add_(p.grad, alpha=-group["lr"])

        optimizer.step = step
        return optimizer


def counting_trainer(method, **options):
    data = task(TWO)
    encoders = {m: CountRuns(5) for m in TWO}
    model = build_model(encoders, method.default_fusion, num_classes=3, heads=method.own_heads, example=data.train)
    trainer = Trainer(model, method, accelerator="cpu", batch_size=18, progress=False, **options)
    for e in encoders.values():
        e.runs = 0
    return trainer, data, encoders


def test_an_encoder_that_did_not_change_is_not_run_again():
    runs = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            runs.append([e.runs for e in trainer.model.encoders.values()])

    trainer, data, _ = counting_trainer(IGM(stages=[2, 2], gm=False), epochs=4, observers=[Watch()])
    assert len(data.val) <= 18  # one batch per evaluation
    trainer.fit(data.train, data.val)
    assert runs == [[1, 1], [2, 1], [2, 2], [2, 3]]


@pytest.mark.parametrize(
    "settings",
    [
        Fused(foreach=True, momentum=0.9),
        Fused(foreach=False),
        Fused(fused=True, momentum=0.9),
        Fused(torch.optim.AdamW, fused=True),
        Fused(torch.optim.Adam, foreach=True),
        WritesData(),
    ],
    ids=["foreach", "loop", "fused", "fused AdamW", "foreach Adam", "data"],
)
def test_an_encoder_that_changed_is_run_again(settings):
    scores = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            trainer.evaluator.forget()
            scores.append((record["val/fused/loss"], trainer.scores("val")["fused/loss"]))

    trainer, data, _ = counting_trainer(Joint(), epochs=3, optimizer=settings, observers=[Watch()])
    trainer.fit(data.train, data.val)
    assert all(remembered == computed for remembered, computed in scores)
    assert len({loss for loss, _ in scores}) == 3


def test_features_of_a_split_that_is_gone_are_not_those_of_the_next():
    trainer, data, _ = counting_trainer(Joint())
    split = data.train.subset(torch.arange(10))
    trainer.evaluator.predict(split, keep=True)
    alive = weakref.ref(split)
    del split
    gc.collect()
    assert alive() is not None  # held as long as its features are: its id cannot be another split's
    trainer.evaluator.forget()
    gc.collect()
    assert alive() is None


def test_evaluation_leaves_modes_and_weights():
    trainer, data = trainer_for(Joint)
    trainer.model.encoders["first"].eval()
    modes, before = [m.training for m in trainer.model.modules()], everything(trainer)
    trainer.evaluate(data.test)
    for _ in trainer.outputs(data.test):
        assert [m.training for m in trainer.model.modules()] == modes
    assert [m.training for m in trainer.model.modules()] == modes
    assert_same(before, everything(trainer))


@pytest.mark.parametrize("method", [Joint, lambda: Unimodal("second"), MLA, IGM])
def test_every_subset_is_scored_on_the_samples_that_have_some_of_it(method):
    trainer, _ = trainer_for(method, TWO, epochs=4)
    split = task(TWO, absent=0.4).test
    scores = trainer.evaluate_subsets(split)
    reads = trainer.method.reads(TWO)
    assert list(scores) == (["first", "second", "first+second"] if len(reads) == 2 else ["second"])
    for m in reads:
        rows = split.present[m]
        alone = trainer.predict(split, (m,)).fused[rows]
        assert scores[m]["accuracy"] == pytest.approx(float((alone.argmax(1) == split.target[rows]).float().mean()))
    assert not trainer.evaluator._features


def test_a_modality_nobody_has_gets_no_score():
    trainer, data = trainer_for(Joint)
    rows = range(len(data.test))
    inputs = {m: data.test.batch(rows, m, None) for m in TWO}
    nobody = {"second": torch.zeros(len(rows), dtype=torch.bool)}
    split = ArraySplit(inputs, data.test.target, data.test.classes, present=nobody)
    scores = trainer.evaluate_subsets(split)
    assert scores["second"] == {}
    assert scores["first"] == scores["first+second"]
    assert "second/accuracy" not in trainer.evaluate(split)
    assert "fused/accuracy" in trainer.evaluate(split)


def test_the_last_incomplete_batch_is_scored():
    trainer, data = trainer_for(Joint, batch_size=16)
    split = data.train.subset(torch.arange(33))
    found = trainer.predict(split)
    assert len(found.fused) == len(found.unimodal["first"]) == 33
    torch.testing.assert_close(found.fused[32:], trainer.predict(split.subset([32])).fused)


# -- trials --------------------------------------------------------------------------------------------
class Tries(Joint):
    """Runs a trial in the middle of training."""

    def __init__(self, trials=True):
        super().__init__()
        self.trials = trials

    def on_epoch_end(self, trainer, scores):
        if self.trials:
            state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
            before, count = everything(trainer), trainer.history.copy()
            trial = trainer.fork(Unimodal("first"), 2).fit()
            assert_same({k: v for k, v in before.items() if "method" not in k}, everything(trainer))
            assert trial.scores("val")["first/accuracy"] > 0
            assert any(not torch.equal(a, b) for a, b in zip(before.values(), everything(trial).values(), strict=False))
            assert trainer.history == count
            assert state[0] == random.getstate()
            assert state[1] == np.random.get_state()[1].tolist()
            assert torch.equal(state[2], torch.get_rng_state())


def noisy(trials, **options):
    """A trainer whose encoders drop out, so that random numbers matter."""
    torch.manual_seed(0)
    encoders = {m: nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4)) for m in TWO}
    model = build_model(encoders, "Concat", num_classes=3, example=task(TWO).train)
    options = {"epochs": 3, "batch_size": 18, "accelerator": "cpu", "progress": False, **options}
    return Trainer(model, Tries(trials), **options)


def test_a_trial_leaves_the_run_alone():
    data = task(TWO)
    with_trials, without = (noisy(trials).fit(data.train, data.val) for trials in (True, False))
    assert_same(everything(with_trials), everything(without))
    assert [{**r, "seconds": 0} for r in with_trials.history] == [{**r, "seconds": 0} for r in without.history]


def test_a_trial_trains_what_the_phase_does_not():
    class Turns(Joint):
        def phase(self, index, trainer):
            return Phase(1, train=("first",)) if index == 0 else None

        def on_epoch_end(self, trainer, scores):
            trial = trainer.fork(Joint(), 1)
            self.trained = all(p.requires_grad for p in trial.model.parameters())
            self.rests = not any(p.requires_grad for p in trainer.model.parameters_of("second"))

    trainer, data = trainer_for(Turns, sam=0.05)
    trainer.fit(data.train, data.val)
    assert trainer.method.trained
    assert trainer.method.rests
    trial = trainer.fork(Joint(), 2, lr=0.3)
    assert (trial.sam, trial.settings.lr, trainer.settings.lr) == (0.05, 0.3, 0.05)


# -- errors --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"epochs": -1}, "epochs must be"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"sam": -0.1}, "sam must be"),
        ({"sam": float("nan")}, "sam must be"),
        ({"clip_norm": 0}, "clip_norm must be"),
        ({"num_workers": -1}, "num_workers must be"),
        ({"monitor": "acuracy"}, "Did you mean 'accuracy'"),
        ({"metrics": ("f1",)}, "metric 'f1'"),
        ({"precision": "16-mixed"}, "16-mixed"),
        ({"devices": 0}, "devices must be"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(Joint, **options)


def test_a_method_of_two_modalities_refuses_one():
    with pytest.raises(ValueError, match=r"OGM needs at least 2 modalities; this model has 1 \(first\)"):
        trainer_for(OGM, ("first",))
    trainer, data = trainer_for(Joint, ("first",))
    trainer.fit(data.train, data.val)


@pytest.mark.parametrize("name", ["fused", "shared"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
        trainer_for(Joint, ("first", name))


def test_modalities_that_the_data_do_not_have():
    trainer, _ = trainer_for(Joint)
    data = task(("first", "third"))
    with pytest.raises(ValueError, match="The model has modality 'second', the data have first, third"):
        trainer.fit(data.train, data.val)


def test_another_number_of_classes():
    trainer, _ = trainer_for(Joint)
    y = torch.arange(60) % 5
    data = from_arrays({m: torch.randn(60, DIM) for m in TWO}, y)
    with pytest.raises(ValueError, match=r"The model has 3 classes, the data 5 .*num_classes=5"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("part", ["train", "val"])
def test_labels_out_of_range(label, part):
    trainer, data = trainer_for(Joint)
    rows = range(len(data.train))
    target = data.train.target.clone()
    target[4] = label
    bad = ArraySplit({m: data.train.batch(rows, m, None) for m in TWO}, target, data.train.classes)
    with pytest.raises(ValueError, match=rf"Labels must lie in 0..2; found {label}"):
        trainer.fit(**{"train": data.train, "val": data.val, part: bad})


def test_a_batch_larger_than_the_data():
    trainer, data = trainer_for(Joint, batch_size=100)
    with pytest.raises(ValueError, match=r"batch_size=100 is larger than the \d+ training samples"):
        trainer.fit(data.train, data.val)


def test_an_empty_split():
    trainer, data = trainer_for(Joint)
    with pytest.raises(ValueError, match="no samples"):
        trainer.fit(data.train, data.val.subset([]))


def test_divergence_is_named():
    trainer, data = trainer_for(Joint, optimizer=SGD(lr=1e30), norm=False)
    with pytest.raises(FloatingPointError, match=r"training loss of epoch 1 is (nan|inf).*lr=1e\+30"):
        trainer.fit(data.train, data.val)


def test_a_method_without_phases():
    class Nothing(Joint):
        def phase(self, index, trainer):
            return None

    trainer, data = trainer_for(Nothing)
    with pytest.raises(ValueError, match=r"Nothing.phase\(0\) is None"):
        trainer.fit(data.train, data.val)


def test_scores_before_fit():
    trainer, data = trainer_for(Joint)
    assert trainer.scores(data.val)["fused/accuracy"] >= 0
    with pytest.raises(ValueError, match="no split 'val' before fit"):
        trainer.scores("val")


def test_resuming_needs_a_directory():
    trainer, data = trainer_for(Joint)
    with pytest.raises(ValueError, match="needs a run_dir"):
        trainer.fit(data.train, data.val, resume=True)


def test_encoder_of_another_width_is_named():
    model = tiny_model(Joint(), TWO)
    model.encoders["second"] = nn.Linear(DIM, 9)
    trainer = Trainer(model, Joint(), accelerator="cpu", batch_size=18, progress=False)
    data = task(TWO)
    with pytest.raises(ValueError, match=r"encoders\['second'\] must give features"):
        trainer.fit(data.train, data.val)


def test_a_test_split_that_training_has_seen_is_refused():
    trainer, data = trainer_for(Joint, epochs=1)
    everyone = range(len(data.val))
    for splits, name in (
        (Splits(data.train, data.val, data.val), "val"),
        (Splits(data.train, data.val, data.train), "train"),
        (Splits(data.train, data.val.subset(everyone), data.val.subset(everyone)), "val"),
    ):
        with pytest.raises(ValueError, match=rf"The test split is the {name} split.*Splits\(train, val\)"):
            trainer.run(splits)
    assert trainer.epoch == 0
    assert trainer.run(Splits(data.train, data.val))["test"] is None
