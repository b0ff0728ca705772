"""Cross-validation from Python."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GroupKFold

from counterpoise.benchmark.cross_validation import cross_validate
from counterpoise.build import build_model
from counterpoise.data import Table, Tabular, from_arrays, from_log
from counterpoise.engine import Trainer
from counterpoise.methods import OGM

rng = np.random.default_rng(0)
INPUTS = {"a": rng.normal(size=(60, 3)), "b": rng.normal(size=(60, 2))}
Y = (INPUTS["a"][:, 0] + INPUTS["b"][:, 0] > 0).astype(int)
GROUP = np.arange(60) // 6
SHORT = {"epochs": 2, "batch_size": 8, "progress": False, "accelerator": "cpu"}


def test_every_sample_is_predicted_by_a_model_that_has_not_seen_it() -> None:
    asked = []

    def build(data):
        asked.append(data)
        return build_model(data, "Late")

    found = cross_validate(
        from_arrays(INPUTS, Y, group=GROUP),
        build,
        OGM(alpha=0.3),
        cv=GroupKFold(5),
        groups=GROUP,
        seeds=(0, 3),
        **SHORT,
    )
    assert len(asked) == 10
    order = [int(i) for i in found.ids]
    assert sorted(order) == list(range(60))
    for fold, data in zip(found.folds, asked[::2], strict=True):
        groups = [{GROUP[int(i)] for i in part.ids} for part in (data.train, data.val, data.test)]
        assert not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]
        assert (fold.learned, fold.tested) == (48, 12)
    for seed in (0, 1):
        predicted = found.predictions[seed].argmax(1)
        assert found.together["fused/accuracy"][seed] == pytest.approx(accuracy_score(Y[order], predicted))
    assert found.scores["fused/accuracy"].shape == (5, 2)
    assert found.interval().mean == pytest.approx(found.scores["fused/accuracy"].mean())
    assert found.difference(found).mean == 0
    assert "| 4 (" in found.to_markdown()
    assert "5 folds, 2 seeds: fused accuracy (%)" in repr(found)


def test_numbers_are_compared_in_their_units_over_all_folds() -> None:
    target = 50 + 10 * INPUTS["a"][:, 0]
    found = cross_validate(from_arrays(INPUTS, target, task="regression"), cv=3, **{**SHORT, "epochs": 8})
    order = [int(i) for i in found.ids]
    predicted = found.predictions[0, :, 0]
    assert found.together["fused/r2"][0] == pytest.approx(r2_score(target[order], predicted))
    assert "fused/likelihood" not in found.together
    assert 30 < predicted.mean() < 70


def test_a_table_brings_its_groups_and_learns_anew_in_each_fold(tmp_path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "group", "a", "b"])
        writer.writerows(zip(Y, [f"g{g}" for g in GROUP], INPUTS["a"][:, 0], INPUTS["b"][:, 0], strict=True))
    table, centers = Table(tmp_path / "t.csv", {m: Tabular([m]) for m in "ab"}), []

    def build(data):
        x = data.train.batch(range(len(data.train)), "a", None)[:, 0]
        centers.append(float(x.mean()))
        return build_model(data)

    found = cross_validate(table, build, cv="group", **SHORT)
    assert [fold.held for fold in found.folds] == [f"g{i}" for i in range(10)]
    assert centers == pytest.approx([0] * 10, abs=1e-6)


def test_groups_that_the_data_were_made_with_stay_whole() -> None:
    asked = []

    def build(data):
        asked.append(data)
        return build_model(data)

    cross_validate(from_arrays(INPUTS, Y, group=GROUP), build, cv=5, **SHORT)
    for data in asked:
        groups = [{GROUP[int(i)] for i in part.ids} for part in (data.train, data.val, data.test)]
        assert not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]
    log = {"id": np.repeat(["p", "q", "r", "s"], 24), "time": [*range(24)] * 4, "label": np.tile([0] * 4 + [1] * 4, 12)}
    log |= {"x": rng.normal(size=96), "y": rng.normal(size=96)}
    windows = from_log(log, {"a": ["x"], "b": ["y"]}, 4, stride=2)
    folds = cross_validate(windows, cv="group", **SHORT).folds
    assert [fold.held for fold in folds] == ["p", "q", "r", "s"]


def test_what_is_finished_is_not_trained_again(tmp_path, monkeypatch) -> None:
    data, trained = from_arrays(INPUTS, Y), []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self, *args, **more: trained.append(1) or run(self, *args, **more))
    first = cross_validate(data, cv=3, out=tmp_path, **SHORT)
    again = cross_validate(data, cv=3, out=tmp_path, **SHORT)
    assert len(trained) == 3
    assert np.array_equal(first.predictions, again.predictions)
    assert {name: values.tolist() for name, values in first.scores.items()} == {
        name: values.tolist() for name, values in again.scores.items()
    }
    cross_validate(data, cv=3, out=tmp_path, **{**SHORT, "epochs": 3})
    assert len(trained) == 6


def test_a_finished_run_from_other_weights_is_not_taken_for_this_one(tmp_path) -> None:
    data = from_arrays(INPUTS, Y)
    first, other = (
        cross_validate(data, lambda data, seed=seed: build_model(data, "Late", seed=seed), cv=2, out=tmp_path, **SHORT)
        for seed in (1, 2)
    )
    assert not np.array_equal(first.predictions, other.predictions)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_run_that_was_out_of_time_goes_on(tmp_path) -> None:
    data = from_arrays(INPUTS, Y)
    for budget, epochs in ((1e-9, 1), (None, 2)):
        cross_validate(data, cv=2, out=tmp_path, budget=budget, **SHORT)
        lines = [len(path.read_text().splitlines()) for path in tmp_path.glob("*/metrics.jsonl")]
        assert lines == [epochs, epochs]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": INPUTS}, "data must be a table, a split or a data set; got dict"),
        ({"cv": 61}, "folds=61 needs as many samples; there are 60"),
        ({"val": 0}, "val must be a finite number > 0 and < 1; got 0"),
        ({"method": "OGN"}, "Unknown method 'OGN'. Did you mean 'OGM'"),
    ],
)
def test_what_cannot_be_cross_validated(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        cross_validate(**{"data": from_arrays(INPUTS, Y), **SHORT, **arguments})


def test_folds_of_other_data_are_not_compared() -> None:
    data = from_arrays(INPUTS, torch.from_numpy(Y))
    with pytest.raises(ValueError, match="both must be of the same folds"):
        cross_validate(data, cv=2, **SHORT).difference(cross_validate(data, cv=3, **SHORT))
    halves = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    odd = [(np.arange(i, 60, 2), np.arange(1 - i, 60, 2)) for i in (0, 1)]
    one, other = (cross_validate(data, cv=pairs, **SHORT) for pairs in (halves, odd))
    with pytest.raises(ValueError, match="pass the same data, cv and groups"):
        one.difference(other)
