"""What a task says of outputs and targets, against references written here from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    hamming_loss,
    matthews_corrcoef,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
)

import counterpoise as cp
from counterpoise.data import Table
from counterpoise.fusions import Late
from counterpoise.fusions.pool import ExpertPool
from counterpoise.metrics import METRICS
from counterpoise.task import MultiLabel, Regression, SingleLabel, task_of

torch.set_num_threads(1)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = MultiLabel(("calm", "joy", "fear"))
NUMBERS = Regression(("price", "size"), mean=(10.0, -2.0), scale=(4.0, 0.5))
Y_LABELS = (draw(40, 3, seed=1) > 0.3).float()
Y_NUMBERS = draw(40, 2, seed=2) * torch.tensor([4.0, 0.5]) + torch.tensor([10.0, -2.0])


def test_losses_by_hand():
    u = draw(40, 3)
    p = 1 / (1 + (-u).exp())
    by_hand = -(Y_LABELS * p.log() + (1 - Y_LABELS) * (1 - p).log()).mean(1)
    torch.testing.assert_close(LABELS.losses(u, Y_LABELS), by_hand)
    torch.testing.assert_close(LABELS.score(u, Y_LABELS), (-by_hand).exp())
    f = draw(40, 2)
    error = f - (Y_NUMBERS - torch.tensor([10.0, -2.0])) / torch.tensor([4.0, 0.5])
    torch.testing.assert_close(NUMBERS.losses(f, Y_NUMBERS), error.square().sum(1) / 4)
    torch.testing.assert_close(NUMBERS.hits(f, Y_NUMBERS), (-error.square().sum(1) / 4).exp())


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        (SingleLabel(3), torch.tensor([[9.0, 0, 0]]), torch.tensor([[0, 9.0, 0]])),
        (LABELS, torch.tensor([[9.0, -9, 9]]), torch.tensor([[-9.0, 9, -9]])),
        (NUMBERS, torch.tensor([[0.0, 0.0]]), torch.tensor([[9.0, -9.0]])),
    ],
)
def test_score_and_hits_lie_between_0_and_1(task, right, wrong):
    target = {3: torch.tensor([0]), 2: torch.tensor([[10.0, -2.0]]).double()}[task.width]
    target = torch.tensor([[1.0, 0, 1]]) if task is LABELS else target
    for measure in (task.score, task.hits):
        best, worst = float(measure(right, target)), float(measure(wrong, target))
        assert 0 <= worst < 0.01 < 0.99 < best <= 1


def test_certainty_is_minus_the_entropy():
    u = draw(2, 40, 3)
    p = u.sigmoid()
    by_hand = (p * p.log() + (1 - p) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(LABELS.certainty(u), by_hand)
    assert LABELS.certainty(torch.full((1, 3), 800.0)).isfinite().all()
    assert torch.equal(NUMBERS.certainty(u), torch.zeros(2, 40))


@pytest.mark.parametrize("present", [None, torch.tensor([[True, False], [True, True], [False, False]])])
def test_means_of_what_modalities_predict(present):
    u = draw(3, 2, 3)
    there = torch.ones(3, 2).bool() if present is None else present
    for task, shown in ((LABELS, torch.sigmoid), (Regression("abc"), lambda x: x)):
        mean = shown(task.mean(u, present))
        for i in range(2):
            torch.testing.assert_close(mean[i], shown(u[there[:, i], i]).mean(0))


def test_label_metrics_agree_with_sklearn():
    u = draw(40, 3, seed=5)
    said, y = (u > 0).numpy(), Y_LABELS.numpy()
    found = {name: metric(u, Y_LABELS) for name, metric in LABELS.metrics.items()}
    assert found["micro_f1"] == pytest.approx(f1_score(y, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(y, said, average="macro"))
    assert found["map"] == pytest.approx(average_precision_score(y, u.numpy(), average="macro"), abs=1e-6)
    assert found["auroc"] == pytest.approx(roc_auc_score(y, u.numpy(), average="macro"), abs=1e-6)
    assert found["hamming"] == pytest.approx(hamming_loss(y, said))
    assert found["accuracy"] == pytest.approx(1 - hamming_loss(y, said))
    assert found["subset_accuracy"] == pytest.approx((y.astype(bool) == said).all(1).mean())


def test_number_metrics_agree_with_sklearn_and_scipy():
    f, y = Y_NUMBERS + draw(40, 2, seed=7), Y_NUMBERS
    a, b = f.numpy(), y.numpy()
    found = {name: metric(f, y) for name, metric in NUMBERS.metrics.items()}
    assert found["mae"] == pytest.approx(mean_absolute_error(y, f))
    assert found["rmse"] == pytest.approx(np.sqrt(((b - a) ** 2).mean(0)).mean())
    assert found["r2"] == pytest.approx(r2_score(y, f))
    assert found["pearson"] == pytest.approx(np.mean([pearsonr(y[:, i], f[:, i])[0] for i in range(2)]))
    assert found["spearman"] == pytest.approx(np.mean([spearmanr(y[:, i], f[:, i])[0] for i in range(2)]))
    s = [2 * np.cov(y[:, i], f[:, i], ddof=0)[0, 1] for i in range(2)]
    below = [float(y[:, i].var(correction=0) + f[:, i].var(correction=0)) for i in range(2)]
    apart = [float((y[:, i].mean() - f[:, i].mean()) ** 2) for i in range(2)]
    assert found["ccc"] == pytest.approx(np.mean([a / (b + c) for a, b, c in zip(s, below, apart, strict=True)]))
    assert NUMBERS.metrics["spearman"](f.round(), y) == pytest.approx(
        np.mean([spearmanr(y[:, i], f[:, i].round())[0] for i in range(2)])
    )


def test_more_class_metrics_agree_with_sklearn():
    u, y = draw(60, 4, seed=8), torch.arange(60) % 3  # nobody has the fourth class
    said, p = u.argmax(1).numpy(), u.softmax(1).numpy()
    with np.errstate(invalid="ignore"):
        recalls = [np.mean(said[y == c] == c) for c in range(3)]
    assert METRICS["balanced_accuracy"](u, y) == pytest.approx(np.mean(recalls))
    three = np.where(said == 3, 0, said)
    assert METRICS["balanced_accuracy"](torch.eye(3)[three].double(), y) == pytest.approx(
        balanced_accuracy_score(y, three)
    )
    assert METRICS["weighted_f1"](u, y) == pytest.approx(f1_score(y, said, average="weighted"), abs=1e-6)
    assert METRICS["kappa"](u, y) == pytest.approx(cohen_kappa_score(y, said), abs=1e-6)
    assert METRICS["mcc"](u, y) == pytest.approx(matthews_corrcoef(y, said), abs=1e-6)
    assert METRICS["auroc"](u, y) == pytest.approx(
        np.mean([roc_auc_score(y == c, p[:, c]) for c in range(3)]), abs=1e-6
    )
    assert METRICS["brier"](u, y) == pytest.approx(((p - np.eye(4)[y]) ** 2).sum(1).mean())


def test_what_a_split_cannot_say_is_left_out():
    none = torch.zeros(5, 3)
    scores = LABELS.scores({"fused": draw(5, 3)}, none)
    assert "fused/map" not in scores
    assert "fused/auroc" not in scores
    assert scores["fused/micro_f1"] == 0
    constant = NUMBERS.scores({"fused": draw(5, 2)}, torch.tensor([[10.0, -2.0]]).double().expand(5, 2))
    assert "fused/r2" not in constant
    assert constant["fused/mae"] > 0


def test_scores_of_numbers_are_in_the_users_units():
    target = torch.tensor([[14.0, -2.0], [6.0, -2.5]]).double()
    scores = NUMBERS.scores({"fused": torch.zeros(2, 2)}, target, metrics=("mae", "loss"))  # predicts the means
    assert scores["fused/mae"] == pytest.approx((4 + 0 + 4 + 0.5) / 4)
    assert scores["fused/loss"] == pytest.approx((1 + 0 + 1 + 1) / 8)
    assert NUMBERS.said(NUMBERS.predictions(torch.tensor([[1.0, -1.0]]))) == ["14|-2.5"]


@pytest.mark.parametrize("task", [SingleLabel("xyz"), LABELS, NUMBERS])
def test_a_task_survives_being_written_down(task):
    assert task_of(task.to_dict()) == task
    assert hash(task_of(task.to_dict())) == hash(task)
    assert task != MultiLabel(("other",))


# -- data ----------------------------------------------------------------------------------------------
X = {"a": draw(200, 4).numpy(), "b": draw(200, 3).numpy()}


def test_label_sets_and_matrices_are_the_same_data():
    rows = [{"joy"} if i % 3 else set() for i in range(200)]
    rows[7] = {"joy", "fear"}
    sets = cp.from_arrays(X, [*rows], task="multi-label")
    matrix = torch.tensor([["fear" in r, "joy" in r] for r in rows]).float()
    same = cp.from_arrays(X, matrix, task="multi-label", classes=("fear", "joy"))
    assert sets.task == same.task == MultiLabel(("fear", "joy"))
    assert torch.equal(sets.train.target, same.train.target)
    assert sets.train.fingerprint() == same.train.fingerprint()


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (np.ones((200, 2)) * 2, "multi-label", "zeros and ones"),
        (["joy"] * 200, "multi-label", "zeros and ones, or a collection"),
        ([{"joy"}] * 199 + ["joy"], "multi-label", "sample 199 must be a collection"),
        ([1.0] * 199 + [math.nan], "regression", "sample 199 is NaN or infinite"),
        ([2.5] * 200, "regression", "one value in all"),
        (["1"] * 200, "regression", "of numbers for regression"),
        ([0.5] * 200, None, "task='regression'"),
        (np.eye(2)[np.arange(200) % 2], None, "task='multi-label'"),
        ([1, 2] * 100, "regresion", "Did you mean 'regression'"),
    ],
)
def test_labels_that_are_no_target_of_the_task(y, task, message):
    with pytest.raises(ValueError, match=message):
        cp.from_arrays(X, y, task=task)


@pytest.mark.parametrize(
    ("numbers", "asked"),
    [
        ([0, 1], False),
        ([1, 2], False),
        ([-1, 1], False),
        (range(10), False),
        (range(25), False),
        (range(1, 26), False),
        (range(1, 11), True),
        (range(1, 6), True),
        ([-1, 0, 1], True),
        ([0, 1, 2, 4], True),
        ([*range(1, 13), 14], True),
    ],
)
def test_whole_numbers_that_may_be_classes_or_numbers_ask(numbers, asked, tmp_path):
    y = np.array(numbers)[np.arange(200) % len(numbers)]
    message = rf"holds {len(numbers)} different numbers, from {min(numbers)} to {max(numbers)}.*--data.task regression"
    rows = "\n".join(f"words,{k}" for k in y)
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}\n")
    options = {"label": "label", "modalities": {"text": "text"}}
    for make in (lambda **o: cp.from_arrays(X, y, **o), lambda **o: Table(tmp_path / "t.csv", **options, **o).splits()):
        if asked:
            with pytest.raises(ValueError, match=message):
                make()
        else:
            assert make().task.kind == "single-label"
        assert make(task="regression").task.kind == "regression"
        assert make(task="single-label").classes == tuple(map(str, numbers))
        assert make(classes=list(map(str, numbers))).task.kind == "single-label"
    assert cp.from_arrays(X, y.astype(str)).task.kind == "single-label"  # texts are names


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1.0", "2.0", "3.0"], None),
        (["0.5", "1", "1.5"], None),
        (["0.5", "1.5"], "single-label"),
        (["01", "02", "03"], "single-label"),
        (["1", "2", "none"], "single-label"),
        ([f"{k / 4}" for k in range(1, 12)], "regression"),
        ([f"{k * k}" for k in range(1, 150)], "regression"),  # hardly any of them twice
        ([f"{k * k}" for k in range(1, 60)], None),
    ],
)
def test_what_cells_of_a_table_look_like(cells, kind, tmp_path):
    rows = "\n".join(f"words,{cells[i % len(cells)]}" for i in range(200))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}\n")
    table = Table(tmp_path / "t.csv", {"text": "text"})
    if kind is None:
        assert any("column 'label' holds" in flaw.text and "--data.task" in flaw.text for flaw in table.flaws())
        with pytest.raises(ValueError, match="Say which"):
            table.splits()
    else:
        assert table.splits().task.kind == kind
    assert ("taken as numbers" in table.describe()) == (kind == "regression")


def test_rare_labels_are_on_every_side():
    y = np.zeros((200, 4))
    y[:100, 0], y[:40, 1], y[::20, 2], y[[3, 90, 150], 3] = 1, 1, 1, 1
    data = cp.from_arrays(X, y, task="multi-label", seed=3, test=0.2)
    for part, share in ((data.train, 0.65), (data.val, 0.15), (data.test, 0.2)):
        assert part is not None
        assert len(part) == pytest.approx(200 * share, abs=4)
        counts = part.target.sum(0)
        assert (counts[:3] - share * torch.tensor([100.0, 40, 10])).abs().max() <= 2
        assert counts[3] >= (1 if part is data.train else 0)
    assert torch.equal(data.train.target, cp.from_arrays(X, y, task="multi-label", seed=3, test=0.2).train.target)
    assert not torch.equal(data.val.target, cp.from_arrays(X, y, task="multi-label", seed=4, test=0.2).val.target)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_groups_stay_on_one_side(task):
    y = {"multi-label": Y_LABELS.repeat(5, 1), "regression": Y_NUMBERS.repeat(5, 1)}[task]
    people = np.arange(200) // 10
    data = cp.from_arrays({**X, "who": people[:, None].astype(float)}, y, task=task, group=people)
    sides = [set(part.batch(range(len(part)), "who", None).flatten().tolist()) for part in (data.train, data.val)]
    assert not sides[0] & sides[1]


def test_quantiles_of_numbers_are_on_every_side():
    y = np.random.default_rng(0).exponential(size=200)
    data = cp.from_arrays(X, y, task="regression")
    assert abs(float(data.val.target.mean()) - y.mean()) < 0.25
    assert data.val.target.max() > np.quantile(y, 0.9)
    assert data.task.to_dict()["mean"][0] == pytest.approx(float(data.train.target.mean()))
    again = cp.from_arrays(X, y, task=data.task, seed=9)
    assert again.task == data.task


# -- models --------------------------------------------------------------------------------------------
def test_a_model_is_built_for_a_task():
    data = cp.from_arrays(X, Y_NUMBERS.repeat(5, 1), task="regression")
    encoders = {"a": cp.encoders.MLP(4, dim=5), "b": cp.encoders.MLP(3, dim=5)}
    model = cp.build_model(encoders, "Late", task=data.task)
    assert model.task == data.task
    assert model.num_classes == 2
    with pytest.raises(ValueError, match=r"task=data\.task"):
        cp.Trainer(cp.build_model(encoders, num_classes=2), cp.methods.Joint(), progress=False).fit(
            data.train, data.val
        )
    with pytest.raises(ValueError, match="What is to be predicted"):
        cp.build_model(encoders)
    with pytest.raises(ValueError, match="Did you mean 'rmse'"):
        cp.Trainer(model, cp.methods.Joint(), monitor="rmsee")


@pytest.mark.parametrize("task", [MultiLabel(1), Regression(("y",)), LABELS])
def test_pools_of_other_tasks_start_as_the_first_expert_or_the_mean(task):
    u = {"x": draw(12, task.width).float(), "y": draw(12, task.width, seed=3).float()}
    first = ExpertPool(("x", "y"), task, first="x")
    torch.testing.assert_close(first(u), u["x"], rtol=1e-4, atol=1e-5)
    mean = ExpertPool(("x", "y"), task)(u)
    torch.testing.assert_close(mean, (u["x"] + u["y"]) / 2, rtol=1e-4, atol=1e-5)


def test_a_pool_of_numbers_follows_the_expert_that_knows():
    task = Regression(("y",), mean=(100.0,), scale=(10.0,))
    y = 100 + 10 * draw(200, 1)
    u = {"good": (task.standardised(y) + 0.1 * draw(200, 1, seed=1)).float(), "idle": draw(200, 1, seed=2).float()}
    late = Late({"good": 1, "idle": 1}, 1, rule="pool")
    late.predict(task)
    late.calibrate(u, y)
    assert task.scores({"fused": late.combine(u)}, y, metrics=("rmse",))["fused/rmse"] < 1.2


def test_the_run_directory_says_what_is_predicted(tmp_path):
    data = cp.from_arrays(X, Y_LABELS.repeat(5, 1), task="multi-label", classes=LABELS.names)
    encoders = {"a": cp.encoders.MLP(4, dim=5), "b": cp.encoders.MLP(3, dim=5)}
    model = cp.build_model(encoders, task=data.task)
    trainer = cp.Trainer(model, cp.methods.OGM(), epochs=2, run_dir=tmp_path / "run", progress=False)
    result = trainer.run(data)
    assert (result["task"], result["classes"], result["monitor"]) == ("multi-label", list(LABELS.names), "map")
    assert {"fused/map", "a/micro_f1", "fused/loss"} <= set(result["val"])
    saved = torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)
    assert task_of(saved["task"]) == data.task


@pytest.mark.parametrize(
    ("task", "monitor", "y"),
    [
        ("multi-label", "map", np.zeros((200, 2))),
        ("multi-label", "auroc", np.ones((200, 2))),
        ("regression", "r2", np.full(200, 3.0)),
    ],
)
def test_a_monitor_that_cannot_be_said_is_refused_before_training(task, monitor, y):
    y = y.copy()
    y[np.arange(200) < 20] = (np.arange(20) % 2).reshape(20, *[1] * (y.ndim - 1))  # in training only
    data = cp.from_arrays(X, y, task=task, split=np.where(np.arange(200) < 100, "train", "val"))
    encoders = {"a": cp.encoders.MLP(4, dim=5), "b": cp.encoders.MLP(3, dim=5)}
    trainer = cp.Trainer(cp.build_model(encoders, task=data.task), cp.methods.Joint(), monitor=monitor, progress=False)
    with pytest.raises(ValueError, match=f"monitor='{monitor}' is undefined on the 100 validation samples"):
        trainer.fit(data.train, data.val)
