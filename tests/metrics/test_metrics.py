from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss
from sklearn.preprocessing import label_binarize

from counterpoise.metrics import METRICS, gap, lower_is_better, score, subset_name, subsets


def case(n: int, classes: int, seed: int, occurring: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator)
    target = torch.randint(occurring or classes, (n,), generator=generator)
    return logits, target


def ece_by_hand(p: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    confidence, right = p.max(1), p.argmax(1) == y
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = (confidence >= low) & ((confidence < high) if b < bins - 1 else (confidence <= high))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


CASES = {
    "many": case(200, 5, 0),
    "two classes": case(50, 2, 1),
    "absent classes": case(60, 8, 2, occurring=3),
    "one class only": case(20, 4, 3, occurring=1),
    "one sample": case(1, 4, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_sklearn(name: str) -> None:
    logits, target = CASES[name]
    ours = {key.split("/")[1]: value for key, value in score({"fused": logits}, target).items()}
    p, y, classes = logits.double().softmax(1).numpy(), target.numpy(), logits.shape[1]
    prediction = p.argmax(1)
    onehot = label_binarize(y, classes=range(classes + 1))[:, :classes]  # one class more, so that 2 are not folded
    occurring = [c for c in range(classes) if (y == c).any()]
    assert ours["accuracy"] == pytest.approx(accuracy_score(y, prediction), abs=1e-6)
    assert ours["macro_f1"] == pytest.approx(f1_score(y, prediction, average="macro"), abs=1e-6)
    assert ours["map"] == pytest.approx(
        np.mean([average_precision_score(onehot[:, c], p[:, c]) for c in occurring]), abs=1e-6
    )
    assert ours["loss"] == pytest.approx(log_loss(y, p, labels=range(classes)), abs=1e-6)
    assert ours["ece"] == pytest.approx(ece_by_hand(p, y), abs=1e-6)


def test_ties_are_ranked_as_in_sklearn() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    target = torch.tensor([0, 1, 0, 1])
    p = logits.softmax(1).numpy()
    expected = np.mean([average_precision_score(target.numpy() == c, p[:, c]) for c in range(2)])
    assert METRICS["map"](logits.double(), target) == pytest.approx(expected)


def test_perfect_prediction() -> None:
    target = torch.arange(4).repeat(3)
    scores = score({"fused": 1e4 * torch.eye(4)[target]}, target)
    assert scores["fused/accuracy"] == scores["fused/map"] == scores["fused/macro_f1"] == 1.0
    assert scores["fused/loss"] == 0.0
    assert scores["fused/ece"] == pytest.approx(0.0, abs=1e-6)


def test_a_confidence_of_one_shares_the_last_bin() -> None:
    """Saturated and nearly saturated samples are one bin of width 1/15, so right and wrong cancel inside it."""
    logits = torch.tensor([[200.0, 0.0], [3.0, 0.0]])
    target = torch.tensor([1, 0])
    p = logits.double().softmax(1).numpy()
    assert p[0].max() == 1.0
    assert score({"fused": logits}, target)["fused/ece"] == pytest.approx(ece_by_hand(p, target.numpy()), abs=1e-6)


def test_a_modality_is_scored_on_the_samples_that_have_it() -> None:
    logits, target = case(40, 3, 5)
    has = torch.arange(40) % 3 == 0
    scores = score({"fused": logits, "a": logits, "b": logits}, target, {"a": has, "b": torch.zeros(40).bool()})
    alone = score({"a": logits[has]}, target[has])
    assert {key: value for key, value in scores.items() if key.startswith("a/")} == alone
    assert alone["a/accuracy"] != scores["fused/accuracy"]
    assert not any(key.startswith("b/") for key in scores)
    assert not any(math.isnan(value) for value in scores.values())


def test_a_diverged_run_scores_nan() -> None:
    logits, target = case(6, 3, 6)
    logits[2, 1] = math.nan
    assert all(math.isnan(value) for value in score({"fused": logits}, target).values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_no_number_for_finite_logits_is_refused(monkeypatch, value) -> None:
    logits, target = case(6, 3, 6)
    monkeypatch.setitem(METRICS, "mine", lambda shown, *_: value)
    with pytest.raises(ValueError, match=r"Metric 'mine' is -?(nan|inf) for the audio prediction of 6 samples"):
        score({"audio": logits}, target, metrics=["accuracy", "mine"])


def test_scores_are_not_changed_by_half_precision_or_gradients() -> None:
    logits, target = case(30, 3, 7)
    logits = logits.bfloat16()
    assert score({"fused": logits.float().requires_grad_()}, target) == score({"fused": logits}, target)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown metric 'acuracy'. Did you mean 'accuracy'\?"):
        score({"fused": torch.zeros(1, 2)}, torch.zeros(1).long(), metrics=["acuracy"])


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2).long(), r"logits \(3, 2\) and target \(2,\)"),
        (torch.zeros(0, 2), torch.zeros(0).long(), "at least one sample"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), "from 0 to 1 .* found 0 to 2"),
        (torch.zeros(2, 2), torch.tensor([-1, 0]), "found -1 to 0"),
    ],
)
def test_bad_input(logits: torch.Tensor, target: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score({"fused": logits}, target)


def test_direction() -> None:
    assert lower_is_better("audio/loss")
    assert lower_is_better("ece")
    assert not lower_is_better("fused/accuracy")


def test_gap() -> None:
    scores = {"a/accuracy": 0.9, "b/accuracy": 0.4, "c/accuracy": 0.6, "fused/accuracy": 1.0}
    assert gap(scores, ["a", "b", "c"]) == pytest.approx(0.5)
    assert gap(scores, ["b", "c"]) == pytest.approx(0.2)
    assert gap(scores, ["a", "missing"]) is None


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_subsets(count: int) -> None:
    names = [f"m{k}" for k in range(count)]
    found = subsets(names)
    assert len(found) == len(set(found)) == 2**count - 1
    assert found[0] == ("m0",)
    assert found[-1] == tuple(names)
    assert [len(s) for s in found] == sorted(len(s) for s in found)
    assert subset_name(found[-1]) == "+".join(names)
