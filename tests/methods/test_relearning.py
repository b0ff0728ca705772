from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from one_step import fit_to_the_last, fitted
from sklearn.cluster import KMeans

from counterpoise.engine import SGD
from counterpoise.method import Method
from counterpoise.methods.relearning import ReLearning
from counterpoise.testing import CLASSES, NAMES, assert_same, everything, task, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


class Watched(ReLearning):
    """Keeps what an epoch left, what it was made, and from which features."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.seen = []

    def on_epoch_end(self, run, scores):
        before = {k: v.detach().clone() for k, v in run.model.state_dict().items()}
        state, parts, shares = run.generator.get_state(), [], {}
        features, share = self._features, self._share

        def watched_features(run, split):
            parts.append((split, features(run, split)))
            return parts[-1][1]

        def watched_share(run, modality, seen, unseen):
            shares[modality] = share(run, modality, seen, unseen)
            return shares[modality]

        self._features, self._share = watched_features, watched_share
        super().on_epoch_end(run, scores)
        del self._features, self._share
        after = {k: v.detach().clone() for k, v in run.model.state_dict().items()}
        self.seen.append((run.epoch, before, after, state, parts, shares))


def purity(features, target, seed):
    """From a clustering of its own, in NumPy."""
    low, high = features.min(0), features.max(0)
    x = np.where(high > low, 2 * (features - low) / np.where(high > low, high - low, 1) - 1, 0)
    clusters = KMeans(CLASSES, n_init=10, random_state=seed).fit_predict(x)
    winners = [np.bincount(target[clusters == c]).max() for c in set(clusters)]
    return sum(winners) / len(target)


@pytest.mark.parametrize("names", [TWO, THREE])
def test_encoders_return_by_the_rule(names):
    trainer, data = trainer_for(partial(Watched, every=2, times=1), names, epochs=5, optimizer=SGD(lr=0.3))
    start = {k: v.detach().clone() for k, v in trainer.model.named_parameters()}
    fit_to_the_last(trainer, data)
    acted = [entry for entry in trainer.method.seen if entry[4]]
    assert [entry[0] for entry in acted] == [2]
    _, before, after, state, parts, shares = acted[0]
    generator = torch.Generator()
    generator.set_state(state)
    assert [len(split) for split, _ in parts] == [len(data.train), len(data.val)]
    for m in names:
        found = []
        for _, by_modality in parts:
            features, target = by_modality[m]
            seed = int(torch.randint(1 << 31, (), generator=generator))
            found.append(purity(features.double().numpy(), target.numpy(), seed))
        expected = math.tanh(3 * abs(found[0] - found[1]))
        assert shares[m] == pytest.approx(expected, abs=1e-12)
        for name, p in start.items():
            if name.startswith(f"encoders.{m}."):
                back = expected * p.double() + (1 - expected) * before[name].double()
                torch.testing.assert_close(after[name].double(), back, atol=1e-6, rtol=1e-5)
    assert any(share > 0.05 for share in shares.values())
    for name, value in before.items():
        if not name.startswith("encoders.") or "running" in name:
            assert torch.equal(value, after[name]), name


def test_features_are_those_of_evaluation():
    trainer, data = trainer_for(partial(Watched, every=1, times=1), TWO, epochs=3)
    fit_to_the_last(trainer, data)
    _, before, _, _, parts, _ = next(entry for entry in trainer.method.seen if entry[4])
    trainer.model.load_state_dict(before)
    trainer.model.eval()
    for split, by_modality in parts:
        for m, (features, target) in by_modality.items():
            x = split.batch(list(range(len(split))), m, None)
            torch.testing.assert_close(features, trainer.model.encoders[m](x).detach(), atol=1e-6, rtol=1e-5)
            assert torch.equal(target, split.target)


@pytest.mark.parametrize(
    ("arguments", "epochs", "expected"),
    [
        ({"every": 1, "times": 2}, 6, [1, 2]),
        ({"every": 2, "times": 3}, 8, [2, 4, 6]),
        ({"every": 3, "times": 3}, 7, [3]),
        ({"times": 3}, 12, [3, 6, 9]),
        ({"times": 1}, 6, [3]),
        ({"times": 3}, 1, []),
        ({"times": 3}, 2, []),
    ],
)
def test_when_encoders_return(arguments, epochs, expected):
    trainer, data = trainer_for(partial(Watched, **arguments), TWO, epochs=epochs)
    fit_to_the_last(trainer, data)
    assert [entry[0] for entry in trainer.method.seen if entry[4]] == expected


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("statistics", [False, True])
def test_the_whole_way_back_and_none(monkeypatch, share, statistics):
    monkeypatch.setattr("counterpoise.methods.relearning.return_share", lambda *_: share)
    trainer, data = trainer_for(partial(Watched, every=1, times=1, statistics=statistics), TWO, epochs=3)
    start = {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}
    fit_to_the_last(trainer, data)
    _, before, after, *_ = next(entry for entry in trainer.method.seen if entry[4])
    for name, value in after.items():
        back = name.startswith("encoders.") and "num_batches" not in name and (statistics or "running" not in name)
        assert torch.equal(value, start[name] if back and share else before[name]), name


@pytest.mark.parametrize("arguments", [{"lam": 0, "every": 1}, {"times": 0, "every": 1}])
def test_a_neutral_run_may_end_early(arguments):
    assert ReLearning(**arguments).must_finish() is None


def test_it_acts_otherwise():
    joint, mine = fitted(Method, epochs=4), fitted(partial(ReLearning, every=1, lam=10), epochs=4)
    assert any(not torch.equal(joint[k], mine[k]) for k in joint)


def test_at_most_so_many_samples_are_clustered():
    trainer, data = trainer_for(partial(Watched, every=1, times=2, samples=10), TWO, epochs=4)
    fit_to_the_last(trainer, data)
    drawn = [[found["first"][1] for _, found in entry[4]] for entry in trainer.method.seen if entry[4]]
    assert [[len(target) for target in targets] for targets in drawn] == [[10, 10], [10, 10]]
    assert not torch.equal(drawn[0][0], drawn[1][0])


def test_too_few_samples_leave_the_encoder_alone():
    trainer, _ = trainer_for(partial(Watched, every=1, times=1), TWO, epochs=3)
    data = task(TWO, absent=0.3)
    data.val.present["second"][:] = False
    data.val.present["first"][:] = True
    with pytest.warns(UserWarning, match="ReLearning leaves 'second' as it is: 0 validation samples have it"):
        fit_to_the_last(trainer, data)
    _, before, after, *_, shares = next(entry for entry in trainer.method.seen if entry[4])
    assert shares["second"] == 0
    assert shares["first"] > 0
    for name, value in before.items():
        if name.startswith("encoders.second."):
            assert torch.equal(value, after[name])


def test_the_start_is_kept_over_a_restart(tmp_path):
    make = partial(ReLearning, every=1, times=3, lam=10)
    whole, data = trainer_for(make, TWO, epochs=5, run_dir=tmp_path / "run")
    start = {k: v.detach().clone() for k, v in whole.model.encoders.state_dict().items()}
    whole.fit(data.train, data.val)
    again, _ = trainer_for(make, TWO, epochs=5, run_dir=tmp_path / "run")
    again.fit(data.train, data.val, resume=True)
    assert_same(everything(whole), everything(again))
    assert_same(start, dict(again.method.initial.state_dict()))


@pytest.mark.parametrize("arguments", [{"lam": -1}, {"every": 0}, {"times": -1}, {"samples": 0}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        ReLearning(**arguments)
