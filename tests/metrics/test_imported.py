"""Metrics of torchmetrics by import path: against our own where there is one, and what is refused before training."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from sklearn.metrics import fbeta_score
from torch import Tensor

import counterpoise as cp
from counterpoise.benchmark.cells import column_title
from counterpoise.metrics import LOWER_IS_BETTER, lower_is_better
from counterpoise.metrics.imported import metric_class
from counterpoise.metrics.result import read_result
from counterpoise.task import MultiLabel, Regression, SingleLabel
from counterpoise.testing import trainer_for

CLASSES, LABELS = SingleLabel("abcd"), MultiLabel("xyz")
NUMBERS, ONE = Regression(("a", "b"), mean=(3.0, -1.0), scale=(2.0, 5.0)), Regression(("a",))
TARGETS = {
    CLASSES: torch.arange(60) % 4,
    LABELS: (torch.randn(60, 3, generator=torch.Generator().manual_seed(1)) > 0.4).float(),
    NUMBERS: torch.randn(60, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 4 + 1,
    ONE: torch.randn(60, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
}
OWN = """
import torch
from torchmetrics import Metric
from torchmetrics.classification import MulticlassFBetaScore

class F2(MulticlassFBetaScore):
    def __init__(self, num_classes):
        super().__init__(2.0, num_classes)

class Miss(Metric):
    higher_is_better = False
    def __init__(self):
        super().__init__()
        self.add_state("wrong", torch.zeros(()), dist_reduce_fx="sum")
    def update(self, preds, target):
        self.wrong = (preds.argmax(1) != target).double().mean()
    def compute(self):
        return self.wrong

class Each(Miss):
    def compute(self):
        return torch.zeros(3)

def function():
    raise AssertionError("called")

class Other:
    def __init__(self):
        raise AssertionError("called")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of somebody's own; what it brings in is forgotten again."""
    (tmp_path / "own_scores.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(LOWER_IS_BETTER)
    yield "own_scores"
    sys.modules.pop("own_scores", None)
    metric_class.cache_clear()
    LOWER_IS_BETTER.intersection_update(known)


def guess(task) -> Tensor:
    return torch.randn(60, task.width, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize(
    ("task", "path", "ours"),
    [
        (CLASSES, "torchmetrics.classification.MulticlassCohenKappa", "kappa"),
        (CLASSES, "torchmetrics.classification.MulticlassMatthewsCorrCoef", "mcc"),
        (CLASSES, "torchmetrics.AUROC", "auroc"),
        (LABELS, "torchmetrics.classification.MultilabelAveragePrecision", "map"),
        (LABELS, "torchmetrics.HammingDistance", "hamming"),
        (NUMBERS, "torchmetrics.MeanAbsoluteError", "mae"),
        (NUMBERS, "torchmetrics.regression.PearsonCorrCoef", "pearson"),
        (ONE, "torchmetrics.SpearmanCorrCoef", "spearman"),
        (ONE, "torchmetrics.R2Score", "r2"),
    ],
)
def test_the_same_numbers_as_our_own(task, path, ours):
    scores = task.scores({"fused": guess(task)}, TARGETS[task], metrics=(path, ours))
    assert scores[f"fused/{path}"] == pytest.approx(scores[f"fused/{ours}"], rel=1e-5)
    assert task.metric(path).share is False


def test_more_or_less_is_better_as_the_class_says():
    hamming = "torchmetrics.HammingDistance"
    assert LABELS.metric(hamming).lower_is_better is True
    assert lower_is_better(f"fused/{hamming}")
    assert CLASSES.metric("torchmetrics.Accuracy").lower_is_better is False
    assert NUMBERS.metric("torchmetrics.PearsonCorrCoef").lower_is_better is None
    with pytest.raises(ValueError, match="does not say whether more or less"):
        trainer_for(cp.methods.Joint, kind="regression", monitor="torchmetrics.PearsonCorrCoef")


def test_what_selects_is_in_the_result_whatever_is_reported():
    trainer, data = trainer_for(cp.methods.Joint, metrics=["accuracy"], monitor="kappa", epochs=2)
    assert {"fused/kappa", "fused/accuracy", "first/loss"} <= set(trainer.run(data)["val"])


def test_a_class_of_ones_own_selects_and_is_recorded(own, tmp_path):
    metrics = ["accuracy", f"{own}.F2", f"{own}.Miss"]
    trainer, data = trainer_for(
        cp.methods.Joint, metrics=metrics, monitor=f"{own}.Miss", run_dir=tmp_path / "run", epochs=6
    )
    result = trainer.run(data)
    scores = [record[f"val/fused/{own}.Miss"] for record in trainer.history]
    assert result["best_epoch"] == 1 + scores.index(min(scores))
    assert result["test"][f"fused/{own}.Miss"] == pytest.approx(1 - result["test"]["fused/accuracy"])
    found = trainer.predict(data.test)
    f2 = fbeta_score(found.target, found.fused.argmax(1), beta=2, average="macro", zero_division=0)
    assert result["test"][f"fused/{own}.F2"] == pytest.approx(f2)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["lower_is_better"] == [f"{own}.Miss"]
    LOWER_IS_BETTER.discard(f"{own}.Miss")
    sys.modules.pop(own)
    assert read_result(tmp_path / "run") is not None
    assert lower_is_better(f"test/fused/{own}.Miss")  # another process knows it without importing the module
    assert own not in sys.modules


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torchmetrics.classification.MulticlassCohenKapa", "Did you mean 'MulticlassCohenKappa'"),
        ("torchmetrics.nothing.Accuracy", "cannot be imported"),
        ("nowhere_at_all.Score", "cannot be imported: No module named 'nowhere_at_all'"),
        ("own_scores.function", "must be a subclass of torchmetrics.Metric; it is <function"),
        ("own_scores.Other", "Nothing of it was called"),
        ("torchmetrics.classification.MulticlassFBetaScore", "needs beta, which nothing here can give it.*subclass"),
        ("torchmetrics.classification.MultilabelAccuracy", "needs num_labels"),
        ("cohenkappa", "Unknown metric 'cohenkappa'"),
    ],
)
def test_what_is_no_metric_is_refused(own, path, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(cp.methods.Joint, metrics=["accuracy", path])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torchmetrics.classification.MulticlassConfusionMatrix", r"must give one number; it gave \(3, 3\)"),
        ("own_scores.Each", r"must give one number; it gave \(3,\)"),
        ("torchmetrics.classification.BinaryAccuracy", "cannot be computed of single-label predictions: "),
    ],
)
def test_what_does_not_fit_the_task_fails_before_training(own, path, message, tmp_path):
    trainer, data = trainer_for(cp.methods.Joint, metrics=[path], run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        trainer.fit(data.train, data.val)
    assert trainer.history == []
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_a_split_leaves_undefined_is_left_out():
    flat = torch.full((60, 1), 2.0, dtype=torch.float64)
    with pytest.warns(UserWarning, match="variance"):
        assert ONE.scores({"fused": guess(ONE)}, flat, metrics=("torchmetrics.PearsonCorrCoef",)) == {}


def test_titles_are_short():
    assert column_title("fused/torchmetrics.classification.MulticlassCohenKappa") == "fused MulticlassCohenKappa"
    assert column_title("audio/accuracy") == "audio accuracy (%)"
    assert column_title("seconds") == "training time (s)"
