"""Samples that count differently: in the loss, in nothing else, whoever lacks what, in one process and in two."""

from __future__ import annotations

import csv
import json
import math
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import counterpoise as cp
from counterpoise.cli import main
from counterpoise.data import Table
from counterpoise.engine import SGD, Step, Trainer, make_fabric
from counterpoise.losses import CrossEntropy
from counterpoise.methods._mixup import Mix, mixed_loss
from counterpoise.testing import assert_same, everything, task, tiny_model, trainer_for
from counterpoise.types import Batch

torch.set_num_threads(1)
NAMES = ("first", "second")
CLASS_WEIGHT = [1.0, 4.0, 0.5]


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    """Weights between 0 and 3, a fifth of them 0."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.rand(n, generator=generator, dtype=torch.float64) * (torch.rand(n, generator=generator) > 0.2)


def weighed(**options):
    """The made-up task with a weight for every sample."""
    data = task(NAMES, **options)
    for seed, split in enumerate((data.train, data.val, data.test)):
        split.weight = drawn(len(split), seed)
    return data


def reference(output, target, weight, present=None):
    """The weighted mean in float64, written from the definition."""
    u, w = output.double(), weight * torch.tensor(CLASS_WEIGHT, dtype=torch.float64)[target]
    w = w if present is None else w * present
    return -(w * u.log_softmax(1)[range(len(u)), target]).sum() / w.sum()


# -- the loss of a step --------------------------------------------------------------------------------
@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_losses_and_their_gradients_are_those_of_float64(absent):
    trainer, _ = trainer_for(cp.methods.Joint, loss=CrossEntropy(CLASS_WEIGHT), norm=False)
    data = weighed(absent=absent)
    trainer.fit(data.train, data.val)
    exact = tiny_model(cp.methods.Joint(), NAMES, norm=False).double()
    exact.load_state_dict(trainer.model.state_dict())
    trainer.current.select()
    for batch in trainer.current.loaders.get(data.train).batches(NAMES):
        step = Step(trainer.current, batch, 0, 1)
        output = step.forward()
        there = None if batch.present is None else batch.present.get("second")
        step.backward(step.criterion(output.logits) + step.unimodal_loss(output, "second"))
        expected = exact({m: x.double() for m, x in batch.inputs.items()}, present=batch.present)
        whole = reference(expected.logits, batch.target, batch.weight)
        alone = reference(expected.unimodal["second"], batch.target, batch.weight, there)
        (whole + alone).backward()
        assert float(step.criterion(output.logits).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
        for p, q in zip(trainer.model.parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-6)
        trainer.model.zero_grad()
        exact.zero_grad()


@pytest.mark.parametrize(
    ("make", "phase"),
    [
        (cp.methods.Joint, 0),
        (cp.methods.MMPareto, 0),
        (cp.methods.MSES, 0),
        (cp.methods.ReconBoost, 0),
        (cp.methods.ReconBoost, 2),  # consolidates what the modality before has learnt
        (partial(cp.methods.DOMFN, pretrain=0.5), 0),
        (cp.methods.DOMFN, 0),
    ],
)
def test_a_weight_of_two_is_a_sample_that_is_there_twice(make, phase):
    trainer, data = trainer_for(make, norm=False, epochs=8)
    current = trainer.current
    current.open(data.train, data.train)
    current.set_up()
    current.state.phase, current.state.phase_index = trainer.method.phase(phase, current), phase
    losses = []
    for rows, weight in (([0, 1, 2, 3, 2, 3, 3], None), ([0, 1, 2, 3], [1.0, 1.0, 2.0, 3.0])):
        inputs = {m: data.train.batch(rows, m, None) for m in NAMES}
        counts = None if weight is None else torch.tensor(weight, dtype=torch.float64)
        step = Step(trainer.current, Batch(inputs, data.train.target[rows], torch.tensor(rows), None, counts), 0, 1)
        with torch.no_grad():
            losses.append(float(trainer.method.loss(step.forward(), step)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != 0


def test_samples_that_are_mixed_bring_their_weights():
    trainer, _ = trainer_for(cp.methods.Joint, loss=CrossEntropy(CLASS_WEIGHT))
    data = weighed()
    trainer.fit(data.train, data.val)
    batch = next(iter(trainer.current.loaders.get(data.train).batches(NAMES)))
    step, order = Step(trainer.current, batch, 0, 1), torch.arange(len(batch.target)).flip(0)
    logits = step.forward().logits.detach()
    own, other = (reference(logits, batch.target[rows], batch.weight[rows]) for rows in (slice(None), order))
    assert float(mixed_loss(step, logits, "first", Mix(0.3, order))) == pytest.approx(
        float(0.3 * own + 0.7 * other), rel=1e-5
    )


def test_a_batch_that_does_not_count_moves_nothing():
    trainer, data = trainer_for(cp.methods.Joint, epochs=1, batch_size=len(task(NAMES).train), norm=False,
                                optimizer=SGD(lr=0.5, weight_decay=0))  # fmt: skip
    data.train.weight = torch.zeros(len(data.train), dtype=torch.float64)
    data.train.weight[-1] = 1e-300  # counts, and is too small for float32
    before = everything(trainer)
    trainer.fit(data.train, data.val)
    assert_same(before, everything(trainer))


# -- a run ---------------------------------------------------------------------------------------------
def test_equal_weights_change_no_bit():
    x = {"a": np.random.default_rng(0).normal(size=(90, 4)), "b": np.random.default_rng(1).normal(size=(90, 3))}
    runs = []
    for weight in (None, np.ones(90), np.full(90, 2.5), [*np.ones(89), 2.0]):
        data = cp.from_arrays(x, np.arange(90) % 3, sample_weight=weight)
        torch.manual_seed(0)
        model = cp.build_model({"a": cp.encoders.MLP(4), "b": cp.encoders.MLP(3)}, task=data.task)
        trainer = Trainer(model, cp.methods.OGM(), epochs=2, batch_size=16, progress=False, accelerator="cpu")
        trainer.fit(data.train, data.val)
        runs.append((data.train.fingerprint(), everything(trainer)))
    for fingerprint, tensors in runs[1:3]:
        assert fingerprint == runs[0][0]
        assert_same(tensors, runs[0][1])
    assert runs[3][0] != runs[0][0]


def test_only_the_metric_called_loss_weighs_samples():
    options = {"loss": CrossEntropy(CLASS_WEIGHT), "monitor": "loss", "metrics": ("accuracy", "loss")}
    trainer, _ = trainer_for(cp.methods.Joint, **options)
    data = weighed(absent=0.4)
    result = trainer.run(data)
    found = trainer.predict(data.test)
    assert result["test"]["fused/loss"] == pytest.approx(float(reference(found.fused, found.target, found.weight)))
    there = found.present["second"]
    alone = reference(found.unimodal["second"], found.target, found.weight, there)
    assert result["test"]["second/loss"] == pytest.approx(float(alone))
    hits = (found.fused.argmax(1) == found.target).double()
    assert result["test"]["fused/accuracy"] == pytest.approx(float(hits.mean()))
    subset = trainer.evaluate_subsets(data.test)["second"]["loss"]
    only = trainer.predict(data.test, only=["second"]).fused
    assert subset == pytest.approx(float(reference(only, found.target, found.weight, there)))


def test_a_subset_and_a_resampled_epoch_keep_the_weights():
    data = weighed()
    rows = torch.tensor([5, 5, 0, 7])
    assert torch.equal(data.train.subset(rows).weight, data.train.weight[rows])
    seen = []

    class Chooses(cp.methods.Joint):
        def on_epoch_start(self, trainer):
            trainer.resample(torch.arange(36).flip(0))

        def step(self, step):
            seen.append((step.batch.index, step.batch.weight))
            return super().step(step)

    trainer, _ = trainer_for(Chooses, epochs=1)
    trainer.fit(data.train, data.val)
    assert len(seen) == 2
    assert all(torch.equal(weight, data.train.weight[index]) for index, weight in seen)


def replica(fabric, method, weights, path):
    torch.set_num_threads(1)
    trainer = on(method, weights, fabric=fabric)
    if fabric.is_global_zero:
        torch.save((everything(trainer), trainer.history[-1]), path)


def on(method, weights, **options):
    data = weighed(absent=0.3) if weights else task(NAMES, absent=0.3)
    trainer, _ = trainer_for(method, norm=False, loss=CrossEntropy(CLASS_WEIGHT), epochs=2, **options)
    trainer.fit(data.train, data.val)
    return trainer


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("method", [cp.methods.Joint, cp.methods.IGM])
def test_two_processes_end_as_one(method, weights, tmp_path):
    """Of class weights too: the denominator is that of the global batch, whichever half holds the heavy samples."""
    one = on(method, weights)
    fabric = make_fabric(accelerator="cpu", devices=2, start_method="fork")
    fabric.launch(partial(replica, method=method, weights=weights, path=tmp_path / "two.pt"))
    two, record = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, value in everything(one).items():
        torch.testing.assert_close(value, two[name], rtol=1e-4, atol=1e-5, msg=name)
    assert record["val/fused/loss"] == pytest.approx(one.history[-1]["val/fused/loss"], rel=1e-4)


# -- where weights come from ---------------------------------------------------------------------------
def rows_of(n=60, **columns):
    base = {"text": [f"word{i % 3} and {i % 5}" for i in range(n)], "label": [f"c{i % 3}" for i in range(n)]}
    return {**base, **columns}


def write(path, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0] * 59 + [-2.0], "sample 59 has -2"),
        ([math.nan, *[1.0] * 58, math.nan], r"sample 0 has nan \(2 such samples in all\)"),
        ([math.inf] + [1.0] * 59, "sample 0 has inf"),
        ([0] * 60, "0 for all 60 samples"),
        ([1.0] * 59, r"must be \(60,\) numbers"),
        (["1"] * 60, "numbers, one per sample"),
    ],
)
def test_weights_that_are_none_are_refused(weight, message):
    x = {"a": np.zeros((60, 2)), "b": np.ones((60, 2))}
    with pytest.raises(ValueError, match=message):
        cp.from_arrays(x, np.arange(60) % 3, sample_weight=weight)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, 2] * 29 + [1, -2], r"t\.csv: column 'sample_weight' must be .*t\.csv, row 60 has -2"),
        ([1, 2] * 29 + ["", 1], r"t\.csv, row 59 has no sample_weight"),
        (["much"] + [1] * 59, r"t\.csv, row 1: column 'sample_weight' must be a number; found 'much'"),
        ([1, "nan"] * 30, r"row 2 has nan \(30 such samples in all\)"),
        ([0] * 60, "column 'sample_weight' is 0 for all 60 samples"),
    ],
)
def test_rows_of_a_table_without_a_weight_are_named(tmp_path, weight, message):
    table = Table(write(tmp_path / "t.csv", rows_of(sample_weight=weight)))
    assert list(table.readers) == ["text"]
    with pytest.raises(ValueError, match=message):
        table.splits()
    assert len(table.samples()) == 60  # to predict, nothing need count


def test_samples_of_a_part_must_count():
    trainer, data = trainer_for(cp.methods.Joint)
    for weight, message in ((torch.zeros(len(data.train)), "is 0 for all"), (-torch.ones(len(data.train)), "has -1")):
        data.train.weight = weight
        with pytest.raises(ValueError, match=message):
            trainer.fit(data.train, data.val)


def test_the_column_is_stated_or_called_sample_weight(tmp_path):
    numbers = [0.5 + (i % 7) / 3 for i in range(60)]
    stated = Table(write(tmp_path / "a.csv", rows_of(trust=numbers)), weight="trust")
    guessed = Table(write(tmp_path / "b.csv", rows_of(sample_weight=numbers)))
    plain = Table(write(tmp_path / "c.csv", rows_of()))
    for table, name in ((stated, "trust"), (guessed, "sample_weight")):
        assert f"weight: column {name!r}" in table.describe()
        data = table.splits()
        assert data.train.weight.tolist() == [numbers[int(i) - 1] for i in data.train.ids]
        assert torch.equal(data.val.subset([3, 0]).weight, data.val.weight[[3, 0]])
        assert data.train.fingerprint() != plain.splits().train.fingerprint()
    assert "weight: no such column" in plain.describe()
    assert plain.splits().train.weight is None
    with pytest.raises(ValueError, match="Did you mean 'trust'"):
        Table(tmp_path / "a.csv", weight="trusted")


def test_parquet_holds_weights_and_numbers_to_predict_as_floats(tmp_path):
    numbers = [0.1 * i + 1 / 3 for i in range(60)]
    columns = rows_of(label=numbers, sample_weight=numbers[::-1], other=numbers)
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = Table(tmp_path / "t.parquet")
    assert list(table.readers) == ["text", "tabular"]
    assert table.readers["tabular"].columns == ["other"]  # neither the label nor the weight
    data = table.samples(labelled=True)
    assert data.task.kind == "regression"
    assert data.target.flatten().tolist() == numbers
    assert data.weight.tolist() == numbers[::-1]


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


@pytest.mark.slow  # trains several times
def test_on_the_command_line(tmp_path, capsys):
    numbers = [0.5 + (i % 7) / 3 for i in range(60)]
    table = write(tmp_path / "t.csv", rows_of(other=[f"more {i % 3}" for i in range(60)], trust=numbers))
    x, y = np.eye(3)[np.arange(60) % 3], np.arange(60) % 3
    np.savez(tmp_path / "plain.npz", a=x, b=x[:, :2], y=y)
    np.savez(tmp_path / "weighed.npz", a=x, b=x[:, :2], y=y, trust=numbers)
    options = ["--method", "Joint", "--epochs", 2, "--batch_size", 8, "--progress", "false"]
    losses = {}
    for name, data, more in (
        ("rows", table, ["--data.weight", "trust"]),
        ("equal rows", table, []),
        ("arrays", tmp_path / "weighed.npz", ["--data.weight", "trust"]),
        ("equal arrays", tmp_path / "plain.npz", []),
    ):
        code = run("fit", "--data", data, *options, *more, "--run_dir", tmp_path / name)
        assert code in (0, None), capsys.readouterr().err
        losses[name] = json.loads((tmp_path / name / "result.json").read_text())["val"]["fused/loss"]
    assert losses["rows"] != losses["equal rows"]
    assert losses["arrays"] != losses["equal arrays"]
    capsys.readouterr()
    done = tmp_path / "rows"
    assert run("evaluate", done, "--table", table, "--json") in (0, None), capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["scores"]["fused/loss"] > 0
    bare = write(tmp_path / "bare.csv", rows_of(other=[f"more {i % 3}" for i in range(60)]))
    assert run("predict", done, bare, "--out", tmp_path / "out.csv") in (0, None), capsys.readouterr().err
    assert run("evaluate", done, "--table", bare) == 1
    assert "column 'trust'" in capsys.readouterr().err
