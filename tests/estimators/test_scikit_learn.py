"""The estimators are scikit-learn's: its own checks, and what it does with them."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from counterpoise.engine import SGD, AdamW
from counterpoise.estimators import Bundle, MultimodalClassifier, MultimodalRegressor
from counterpoise.methods import OGM, Joint

MAP = {"audio": slice(0, 3), "video": [3, 4]}
rng = np.random.default_rng(0)
X = rng.normal(size=(90, 5))
Y = np.array(["no", "yes"])[(X[:, 0] + X[:, 3] > 0).astype(int)]
SHORT = {"modalities": MAP, "epochs": 8, "random_state": 0, "accelerator": "cpu", "optimizer__lr": 0.05}


def short(cls=MultimodalClassifier, **options):
    return cls().set_params(**{**SHORT, **options})


@pytest.mark.slow  # a quarter of a minute each
@pytest.mark.parametrize("cls", [MultimodalClassifier, MultimodalRegressor])
def test_scikit_learn_s_own_checks_pass(cls) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(cls(epochs=15), on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] not in ("passed", "skipped")}
    skipped = [r["check_name"] for r in results if r["status"] == "skipped"]
    assert not failed
    assert set(skipped) <= {"check_array_api_input", "check_classifiers_multilabel_output_format_decision_function"}
    assert len(results) > 50


def test_it_learns_and_says_what_it_saw() -> None:
    model = short(epochs=25).fit(X, Y)
    assert model.score(X, Y) > 0.85
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.n_features_in_ == 5
    probabilities = model.predict_proba(X)
    assert np.allclose(probabilities.sum(1), 1)
    assert (model.classes_[probabilities.argmax(1)] == model.predict(X)).all()
    votes = model.votes(X)
    assert list(votes) == ["fused", "audio", "video"]
    assert np.allclose(votes["fused"], probabilities, atol=1e-6)


def test_auto_pools_the_fused_and_the_own_heads() -> None:
    model = short(method="auto", epochs=25).fit(X, Y)
    assert type(model.method_).__name__ == "MSES"
    assert model.method_.patience == 5
    assert model.model_.pool is not None
    assert model.model_.pool.experts == ("fused", "audio", "video")
    assert model.score(X, Y) > 0.85
    off = clone(model).set_params(sam=0.0).fit(X, Y)  # an explicit 0 is no default
    assert not np.array_equal(off.predict_proba(X), model.predict_proba(X))
    again = pickle.loads(pickle.dumps(clone(model).fit(X, Y)))
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert short(MultimodalRegressor, method="auto", epochs=2).fit(X, X[:, 0]).predict(X).shape == (90,)


def test_parameters_reach_method_and_optimizer() -> None:
    model = MultimodalClassifier("OGM", optimizer="adamw")
    params = model.get_params()
    assert (params["method__alpha"], params["optimizer__weight_decay"]) == (OGM().alpha, 0.01)
    model.set_params(method__alpha=0.7, optimizer__lr=0.5)
    assert isinstance(model.method, OGM)
    assert isinstance(model.optimizer, AdamW)
    assert (model.method.alpha, model.optimizer.lr, model.optimizer.weight_decay) == (0.7, 0.5, 0.01)
    assert clone(model).method.alpha == 0.7
    assert clone(model).method is not model.method
    assert model.set_params(method="Joint").get_params()["method"] == "Joint"
    assert "method__alpha" not in model.get_params()
    with pytest.raises(ValueError, match="Invalid parameter 'alpha' for the method of MultimodalClassifier"):
        model.set_params(method__alpha=1)
    with pytest.raises(ValueError, match="Unknown method 'OGN'"):
        short(method="OGN").fit(X, Y)


def test_a_grid_over_options_of_the_method() -> None:
    search = GridSearchCV(
        short(method="OGM", epochs=2), {"method__alpha": [0.1, 0.9], "optimizer__lr": [0.0, 0.05]}, cv=2
    ).fit(X, Y)
    assert search.best_params_["optimizer__lr"] == 0.05
    assert search.best_estimator_.method_.alpha in (0.1, 0.9)


def test_groups_reach_the_splitter_and_the_split_inside(monkeypatch) -> None:
    groups = np.repeat(np.arange(15), 6)
    assert len(cross_val_score(short(epochs=1), X, Y, groups=groups, cv=GroupKFold(3))) == 3
    data = {}
    monkeypatch.setattr(MultimodalClassifier, "_train", lambda self, splits: data.update(splits=splits))
    short().fit(X, Y, groups=groups)
    group_of = {tuple(row): g for row, g in zip(X.astype(np.float32).tolist(), groups, strict=True)}
    inside = []
    for part in (data["splits"].train, data["splits"].val):
        rows = torch.cat([part.batch(range(len(part)), m, None) for m in MAP], 1).tolist()
        inside.append({group_of[tuple(row)] for row in rows})
    assert len(inside[1]) > 1
    assert not inside[0] & inside[1]


def test_names_of_columns_through_a_pipeline_that_gives_data_frames() -> None:
    frame = pd.DataFrame(X, columns=[*"abcde"])
    model = short(modalities={"audio": ["a", "b", "c"], "video": ["d", "e"]})
    pipeline = make_pipeline(StandardScaler(), model).set_output(transform="pandas").fit(frame, Y)
    assert pipeline[-1].feature_names_in_.tolist() == [*"abcde"]
    assert np.array_equal(pipeline.predict(frame), pipeline[-1].predict(pipeline[0].transform(frame)))
    with pytest.raises(ValueError, match=r"modalities\['audio'\]: Unknown column 'z'"):
        short(modalities={"audio": ["z"]}).fit(frame, Y)


def test_the_same_seed_is_the_same_model_and_survives_pickling() -> None:
    first, second, other = (short(epochs=2, random_state=seed).fit(X, Y) for seed in (0, 0, 1))
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    again = pickle.loads(pickle.dumps(first))
    assert np.array_equal(first.predict_proba(X), again.predict_proba(X))
    method = Joint()
    fitted = short(epochs=1, method=method).fit(X, Y)
    assert fitted.method is method
    assert fitted.method_ is not method


def test_fitting_leaves_the_global_random_numbers_alone() -> None:
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    short(epochs=1).fit(X, Y)
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])


def test_a_weight_of_two_is_the_sample_twice_to_the_bit_and_the_order_decides_nothing() -> None:
    weight = rng.integers(0, 3, size=90)
    weighted = short(epochs=2).fit(X, Y, sample_weight=weight)
    repeated = short(epochs=2).fit(X.repeat(weight, 0)[::-1].copy(), Y.repeat(weight)[::-1])
    assert np.array_equal(weighted.predict_proba(X), repeated.predict_proba(X))


def test_several_labels() -> None:
    labels = np.stack([X[:, 0] > 0, X[:, 3] > 0, X[:, 1] + X[:, 4] > 0], 1).astype(int)
    model = short(epochs=25).fit(X, pd.DataFrame(labels, columns=["joy", "fear", "calm"]))
    assert model.classes_.tolist() == ["joy", "fear", "calm"]
    assert model.predict_proba(X).shape == model.predict(X).shape == (90, 3)
    assert (model.predict(X) == labels).mean() > 0.7  # chance is 0.5
    assert model.score(X, labels) > 0.3  # of all three, 0.125


def test_numbers_come_back_in_their_units_and_shape() -> None:
    target = 100 + 7 * X[:, 0] - 5 * X[:, 3]
    model = short(MultimodalRegressor, epochs=40).fit(X, target)
    assert model.predict(X).shape == (90,)
    assert model.score(X, target) > 0.7
    assert model.fit(X, np.stack([target, -target], 1)).predict(X).shape == (90, 2)


def test_a_bundle_with_absent_modalities_is_cross_validated() -> None:
    absent = np.arange(90) % 7 == 0
    bundle = Bundle(
        {"audio": np.where(absent[:, None], np.nan, X[:, :3]), "steps": rng.normal(size=(90, 4, 2)), "video": X[:, 3:]},
        present={"audio": ~absent},
    )
    model = short(modalities=None, epochs=15)
    assert cross_val_score(model, bundle, Y, cv=3).mean() > 0.6
    model.fit(bundle, Y)
    assert np.isnan(model.votes(bundle)["audio"][0]).all()
    assert np.isfinite(model.predict_proba(bundle)).all()
    with pytest.raises(ValueError, match="X must have the modalities of fit, audio, steps, video; it has"):
        model.predict(Bundle({"audio": X[:, :3]}))


def test_texts_are_a_modality_and_may_be_absent() -> None:
    words = [None if i % 9 == 0 else ("good fine" if y == "yes" else "bad poor") for i, y in enumerate(Y)]
    bundle = Bundle({"noise": rng.normal(size=(90, 2)), "note": words})
    model = short(modalities=None, epochs=25).fit(bundle, Y)
    there = bundle.present["note"]
    assert model.score(bundle[there], Y[there]) > 0.95
    assert np.isnan(model.votes(bundle)["note"][0]).all()
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(bundle), model.predict(bundle))


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({}, X, np.zeros(90), "y must have at least two classes; all 90 samples are of the class"),
        ({}, X[:3], Y[:3], "n_samples=3 different samples that count: fit needs at least 4"),
        ({"modalities": {"a": [0, 1]}}, X, Y, r"modalities must divide the 5 columns; columns \[2, 3, 4\] are in none"),
        ({"modalities": {"a": [0, 1], "b": slice(1, 5)}}, X, Y, "column 1 is in two"),
        ({"modalities": {"a": [7]}}, X, Y, "columns are 0 to 4; got 7"),
        ({"modalities": {"a": "x"}}, X, Y, "X has no column names: pass a data frame"),
        ({"validation_fraction": 1.0}, X, Y, "validation_fraction must be a finite number > 0 and < 1; got 1.0"),
        ({}, Bundle({"a": X}), Y, "a Bundle names its modalities itself"),
        (
            {"modalities": None},
            Bundle({"a": X, "t": [{}] * 90}),
            Y,
            "'t' must be numbers, texts, names of files or pict",
        ),
        ({}, np.where(X[3, 3] == X, np.nan, X), Y, "contains NaN"),
    ],
)
def test_what_cannot_be_fitted(options, x, y, message) -> None:
    with pytest.raises(ValueError, match=message):
        short(**options).fit(x, y)


@pytest.mark.slow  # starts two processes
def test_workers_take_no_more_threads_than_there_are_cores() -> None:
    from joblib import cpu_count

    scores = cross_val_score(short(epochs=1), X, Y, cv=2, n_jobs=2, scoring=threads)
    assert all(1 <= count <= max(1, cpu_count() // 2) for count in scores)


def threads(model, x, y) -> float:
    model.predict(x)
    return float(torch.get_num_threads())


def test_the_default_optimizer_and_settings_of_one_s_own() -> None:
    assert isinstance(short(optimizer=SGD(), optimizer__lr=0.3).optimizer, SGD)
