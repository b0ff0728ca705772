from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from counterpoise.analysis import GradientChange, GradientChanges, common_head_weights, histogram, load
from counterpoise.data import from_arrays
from counterpoise.engine import Observer
from counterpoise.functional import cosine
from counterpoise.method import Info, Method
from counterpoise.methods import IGM, MLA, Joint
from counterpoise.testing import assert_same, everything, task, tiny_model, trainer_for
from power_cut import PowerCut

NAMES = ("first", "second", "third")


class KnownAngles(Method):
    """Alternates, with head gradients of known directions: each is ``degrees`` further round than the one before."""

    info = Info("alternating", "made up", "none", "https://example.org")
    default_fusion = "Shared"

    def __init__(self, degrees: float = 30.0):
        super().__init__()
        self.degrees, self.count = degrees, 0

    def step(self, step):
        for m in step.model.modalities:
            loss = step.unimodal_loss(step.forward(only=(m,)), m)
            step.backward(loss)
            weight = step.model.head_of(m).weight
            weight.grad = torch.zeros_like(weight)
            angle = math.radians(self.degrees * self.count)
            weight.grad[0, 0], weight.grad[1, 2] = math.cos(angle), math.sin(angle)
            weight.grad *= 2.0**self.count  # each twice as long as the one before
            self.count = (self.count + 1) % 12
            step.update()
        return loss.detach()


def fit(make, *, fusion=None, watch=None, names=NAMES[:2], observers=(), **options):
    watch = watch or GradientChange()
    trainer, data = trainer_for(make, names, fusion, observers=[watch, *observers], lr=1e-4, **options)
    trainer.fit(data.train, data.val)
    return watch, trainer


def test_known_angles():
    watch, trainer = fit(lambda: KnownAngles(30), names=NAMES, epochs=2)
    found = watch.changes()
    updates = 2 * 3 * trainer.current.num_batches
    assert len(found) == updates - 1
    np.testing.assert_allclose(found.cosine, math.cos(math.radians(30)), atol=1e-6)
    inside = np.arange(1, updates) % 12 != 0
    np.testing.assert_allclose(found.ratio[inside], 2, rtol=1e-6)
    assert list(zip(found.old[:4], found.new[:4], strict=True)) == [
        ("first", "second"),
        ("second", "third"),
        ("third", "first"),
        ("first", "second"),
    ]
    assert found.epoch.tolist() == sorted(found.epoch.tolist())
    assert found.batch[:6].tolist() == [0, 0, 1, 1, 1, 2]
    counts = histogram(found.cosine, bins=80, span=(-1, 1))
    assert (counts.n, np.count_nonzero(counts.counts)) == (updates - 1, 1)
    at = int(counts.counts.argmax())
    assert counts.edges[at] <= math.cos(math.radians(30)) <= counts.edges[at + 1]
    assert (counts.mean, counts.median) == (pytest.approx(math.sqrt(3) / 2), pytest.approx(math.sqrt(3) / 2))
    assert counts.below == 0


@pytest.mark.parametrize(("degrees", "expected"), [(0, 1.0), (90, 0.0), (180, -1.0)])
def test_known_extremes(degrees, expected):
    found = fit(lambda: KnownAngles(degrees), epochs=1)[0].changes()
    np.testing.assert_allclose(found.cosine, expected, atol=1e-6)


def test_stages_compare_with_the_end_of_the_stage_before():
    class Applied(Observer):
        def __init__(self):
            self.seen = []

        def before_update(self, trainer):
            (m,) = trainer.phase.train
            grads = [p.grad.clone() for p in common_head_weights(trainer.model, m, m)[0]]
            self.seen.append((trainer.phase_index, m, grads))

    applied = Applied()
    watch, _ = fit(lambda: IGM(stages=[1, 1, 1]), observers=[applied])
    found = watch.changes()
    per_stage = len(applied.seen) // 3
    expected = []
    for stage in (1, 2):
        end = applied.seen[stage * per_stage - 1][2]
        expected += [float(cosine(g, end)) for index, _, g in applied.seen if index == stage]
    np.testing.assert_allclose(found.cosine, expected, atol=1e-6)
    assert set(zip(found.old, found.new, strict=True)) == {("first", "second"), ("second", "first")}


def test_joint_training_has_no_rows():
    watch, _ = fit(Joint, fusion="Late", epochs=1)
    assert len(watch.changes()) == 0
    empty = histogram(watch.changes().cosine)
    assert empty.n == 0
    assert np.isnan(empty.mean)


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize("make", [MLA, lambda: IGM(stages=[1, 1])])
def test_on_the_same_samples(make, absent):
    class ByHand(Observer):
        """The old modality's own gradient on the samples of this batch, at these weights."""

        def __init__(self):
            self.cosines, self.before, self.now = [], None, None

        def on_batch_start(self, trainer, batch):
            self.rows = batch.index

        def before_update(self, trainer):
            model, split = trainer.model, trainer.train_split
            (new,) = [m for m in model.modalities if model.encoders[m][0].weight.grad is not None]
            if new != self.now:
                self.before, self.now = self.now, new
            if self.before is None:
                return
            import copy

            clone = copy.deepcopy(model).eval().requires_grad_(True)
            rows = self.rows
            if split.present is not None and self.before in split.present:
                rows = rows[split.present[self.before][rows]]
            x = split.batch(rows.tolist(), self.before, None)
            logits = clone({self.before: x}, (self.before,)).unimodal[self.before]
            loss = torch.nn.functional.cross_entropy(logits, split.target[rows])
            old, _ = common_head_weights(clone, self.before, new)
            _, applied = common_head_weights(model, self.before, new)
            self.cosines.append(float(cosine(torch.autograd.grad(loss, old), [p.grad for p in applied])))

    by_hand = ByHand()
    watch, _ = fit(make, watch=GradientChange("batch"), observers=[by_hand], epochs=1, absent=absent)
    found = watch.changes()
    assert len(found) > 0
    np.testing.assert_allclose(found.cosine, by_hand.cosines, atol=1e-5)


@pytest.mark.parametrize("make", [MLA, lambda: IGM(stages=[1, 2])])
@pytest.mark.parametrize("pairing", ["stored", "batch"])
def test_it_only_looks(make, pairing):
    plain, data = trainer_for(make, epochs=2)
    plain.fit(data.train, data.val)
    watched, data = trainer_for(make, epochs=2, observers=[GradientChange(pairing)])
    flags = [p.requires_grad for p in watched.model.parameters()]
    watched.fit(data.train, data.val)
    assert_same(everything(plain), everything(watched))
    assert [p.requires_grad for p in watched.model.parameters()] == flags
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in plain.history] == [
        {k: v for k, v in r.items() if k != "seconds"} for r in watched.history
    ]


def test_every_other_batch():
    all_rows, some = (fit(MLA, watch=GradientChange(every=e), epochs=2)[0].changes() for e in (1, 2))
    keep = all_rows.batch % 2 == 0
    np.testing.assert_array_equal(some.cosine, all_rows.cosine[keep])
    assert len(some) < len(all_rows)


@pytest.mark.parametrize("make", [MLA, lambda: IGM(stages=[2, 2])])
def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(tmp_path, make):
    whole = fit(make, watch=GradientChange(path=tmp_path / "whole.npz"), epochs=4)[0]
    path = tmp_path / "cut.npz"
    cut, data = trainer_for(
        make, epochs=4, lr=1e-4, run_dir=tmp_path / "run", observers=[GradientChange(path=path), PowerCut(7)]
    )
    with pytest.raises(RuntimeError, match="power cut"):
        cut.fit(data.train, data.val)
    watch = GradientChange(path=path)
    again, data = trainer_for(make, epochs=4, lr=1e-4, run_dir=tmp_path / "run", observers=[watch])
    again.fit(data.train, data.val, resume=True)
    for name, value in vars(whole.changes()).items():
        np.testing.assert_array_equal(vars(watch.changes())[name], value)
    for name, value in vars(load(path, GradientChanges)).items():
        np.testing.assert_array_equal(vars(whole.changes())[name], value)
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["cut.npz", "whole.npz"]


def test_a_fresh_fit_forgets_the_file(tmp_path):
    path = tmp_path / "rows.npz"
    first = fit(MLA, watch=GradientChange(path=path), epochs=1)[0].changes()
    again = fit(MLA, watch=GradientChange(path=path), epochs=1)[0].changes()
    assert len(first) == len(again) == len(load(path, GradientChanges))


def test_heads_of_unequal_widths_compare_where_they_agree():
    from torch import nn

    from counterpoise.build import build_model

    data = from_arrays({"a": torch.randn(30, 3), "b": torch.randn(30, 5)}, torch.arange(30) % 3).train
    model = build_model({m: nn.Identity() for m in "ab"}, "Late", num_classes=3, example=data)
    ours, theirs = common_head_weights(model, "a", "b")
    assert [tuple(p.shape) for p in ours] == [tuple(p.shape) for p in theirs] == [(64, 256), (3, 64)]
    assert not {id(p) for p in ours} & {id(p) for p in theirs}
    linear = build_model({m: nn.Identity() for m in "ab"}, "Concat", num_classes=3, example=data)
    with pytest.raises(ValueError, match="no weights of one shape"):
        common_head_weights(linear, "a", "b")


def test_one_head_is_compared_with_itself():
    model = tiny_model(MLA(), NAMES)
    ours, theirs = common_head_weights(model, "first", "third")
    assert ours[0] is theirs[0] is model.fusion.head.weight


def test_histogram_counts():
    values = np.array([-0.5, 0.0, 0.05, 0.2, 0.8])
    found = histogram(values, bins=4, span=(-1, 1))
    assert found.counts.tolist() == [0, 1, 3, 1]
    assert found.edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert (found.median, found.below, found.n) == (0.05, 0.6, 5)
    own = histogram(values, bins=2)
    assert (own.edges[0], own.edges[-1], own.n) == (-0.5, 0.8, 5)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="pairing"):
        GradientChange("same")
    with pytest.raises(ValueError, match="every"):
        GradientChange(every=0)
    with pytest.raises(ValueError, match="bins"):
        histogram(np.zeros(3), bins=0)
    assert len(task(NAMES).train) > 0


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_the_same_batch_of_several_labels_or_numbers(kind):
    watch, _ = fit(IGM, watch=GradientChange("batch"), kind=kind, epochs=4)
    changes = watch.changes()
    assert len(changes)
    assert np.isfinite(changes.cosine).all()
