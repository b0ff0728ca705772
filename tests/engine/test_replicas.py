import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from counterpoise import build_model
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import SGD, CheckpointError, Interrupted, Observer, Trainer, make_fabric
from counterpoise.engine.replicas import any_of, gather_rows
from counterpoise.methods import IGM, MLA, Joint, Unimodal
from counterpoise.testing import DIM, assert_same, everything, same_on_replicas, task, trainer_for

TWO = ("first", "second")


def on_two(function, *args):
    """Run ``function(fabric, *args)`` in two processes; what rank 0 and rank 1 return."""
    with tempfile.TemporaryDirectory() as directory:
        fabric = make_fabric(accelerator="cpu", devices=2, start_method="fork")
        fabric.launch(_save, function, args, Path(directory))
        return [torch.load(Path(directory) / str(rank), weights_only=True) for rank in range(2)]


def _save(fabric, function, args, path):
    torch.set_num_threads(1)
    torch.save(function(fabric, *args), path / str(fabric.global_rank))


@pytest.mark.parametrize("method", [Joint, lambda: Unimodal("second"), MLA, IGM])
@pytest.mark.parametrize("modalities", [2, 3])
def test_two_processes_are_one(method, modalities):
    same_on_replicas(method, ("first", "second", "third")[:modalities], None)


def fit(fabric, method, absent, options):
    trainer, data = trainer_for(method, TWO, norm=False, absent=absent, fabric=fabric, **options)
    trainer.fit(data.train, data.val)
    return {**everything(trainer), **{k: torch.tensor(v) for k, v in trainer.evaluate(data.test).items()}}


@pytest.mark.parametrize("method", [Joint, lambda: Unimodal("second"), MLA, lambda: IGM(stages=[2, 2])])
@pytest.mark.parametrize(
    "options",
    [{}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({"clip_norm": 0.1}, {"batch_size": 4}))],
    ids=str,
)
def test_absent_modalities(method, options):
    one = make_fabric(accelerator="cpu")
    expected = fit(one, method, 0.1, options)
    zero, other = on_two(fit, method, 0.1, options)
    assert_same(zero, other)
    for name, value in expected.items():
        torch.testing.assert_close(zero[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()) + 1e-6)


def test_sam_on_replicas():
    expected = fit(make_fabric(accelerator="cpu"), Joint, 0.1, {"sam": 0.1})
    zero, other = on_two(fit, Joint, 0.1, {"sam": 0.1})
    assert_same(zero, other)
    for name, value in expected.items():
        torch.testing.assert_close(zero[name], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()) + 1e-6)


def evaluated(fabric, count):
    trainer, data = trainer_for(Joint, TWO, absent=0.3, fabric=fabric)
    found = trainer.predict(data.train.subset(torch.arange(count)))
    return {**found.named(), "target": found.target}


@pytest.mark.parametrize("count", [1, 17, 18, 37])
def test_every_sample_is_evaluated_once(count):
    expected = evaluated(make_fabric(accelerator="cpu"), count)
    for found in on_two(evaluated, count):
        assert found["fused"].shape == (count, 3)
        assert torch.equal(found["target"], expected["target"])
        for name in ("fused", *TWO):
            torch.testing.assert_close(found[name], expected[name])


def streamed(fabric, shard):
    trainer, data = trainer_for(Joint, TWO, fabric=fabric)
    split = data.train.subset(torch.arange(37))
    parts = [(batch.index, output.logits) for batch, output in trainer.current.outputs(split, shard=shard)]
    return {"index": torch.cat([i for i, _ in parts]), "logits": torch.cat([x for _, x in parts])}


def test_outputs_are_everything_or_a_share():
    whole = streamed(make_fabric(accelerator="cpu"), False)
    assert whole["index"].tolist() == list(range(37))
    for found in on_two(streamed, False):
        assert torch.equal(found["index"], whole["index"])
        torch.testing.assert_close(found["logits"], whole["logits"])
    shares = on_two(streamed, True)
    index = torch.cat([s["index"] for s in shares])
    assert sorted(index.tolist()) == list(range(37))
    torch.testing.assert_close(torch.cat([s["logits"] for s in shares]), whole["logits"][index])


def collect(fabric):
    rank = fabric.global_rank
    rows = torch.arange(3.0).repeat(5 - 4 * rank, 1) + 10 * rank
    empty = torch.zeros(0 if rank else 2, 3, dtype=torch.int64)
    return {
        "rows": gather_rows(rows, fabric),
        "empty": gather_rows(empty, fabric),
        "any": torch.tensor([any_of(rank == 1, fabric), any_of(False, fabric)]),
    }


def test_rows_of_different_counts_are_gathered_in_order():
    for found in on_two(collect):
        assert found["rows"][:, 0].tolist() == [0] * 5 + [10]
        assert found["empty"].shape == (2, 3)
        assert found["any"].tolist() == [True, False]


def with_norm(fabric, path=None, resume=False):
    """Batch normalisation and random encoders that differ between the processes at the start."""
    torch.manual_seed(fabric.global_rank)
    encoders = {m: nn.Sequential(nn.Linear(DIM, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 4)) for m in TWO}
    data = task(TWO)
    model = build_model(encoders, "Concat", num_classes=3, example=data.train)
    options = {"epochs": 3, "batch_size": 18, "optimizer": SGD(lr=0.1), "progress": False, "run_dir": path}
    trainer = Trainer(model, Joint(), fabric=fabric, **options)
    trainer.fit(data.train, data.val, resume=resume)
    scores = trainer.evaluate(data.val)
    return {**everything(trainer), **{k: torch.tensor(v) for k, v in scores.items()}}


def test_replicas_agree_and_their_checkpoint_loads_in_one_process(tmp_path):
    zero, other = on_two(with_norm, tmp_path / "run")
    assert_same(zero, other)
    one = with_norm(make_fabric(accelerator="cpu"), tmp_path / "run", resume=True)  # nothing is left to train
    for name, value in one.items():
        torch.testing.assert_close(value, zero[name])


def fit_mla(fabric):
    trainer, data = trainer_for(MLA, TWO, fabric=fabric)
    return everything(trainer.fit(data.train, data.val))


def killed_and_resumed(fabric, path, resume):
    class Dies(Observer):
        def on_epoch_end(self, trainer, record):
            if not resume and record["epoch"] == 2:
                raise RuntimeError("died")

    trainer, data = trainer_for(MLA, TWO, fabric=fabric, run_dir=path, observers=[Dies()])
    try:
        trainer.fit(data.train, data.val, resume=resume)
    except RuntimeError as error:
        assert "died" in str(error)  # noqa: PT017 - in another process
    return everything(trainer)


def test_replicas_resume(tmp_path):
    whole = on_two(fit_mla)
    on_two(killed_and_resumed, tmp_path / "run", False)
    again = on_two(killed_and_resumed, tmp_path / "run", True)
    assert_same(again[0], again[1])
    assert_same(whole[0], again[0])


def resumed_apart(fabric, path):
    """Each process with a folder of its own, as on machines that share none; only one holds the checkpoint."""
    trainer, data = trainer_for(Joint, TWO, fabric=fabric, run_dir=path / str(fabric.global_rank))
    try:
        trainer.fit(data.train, data.val, resume=True)
    except CheckpointError as error:
        return str(error)
    return ""


def test_a_checkpoint_that_only_some_processes_find_is_not_resumed(tmp_path):
    trainer, data = trainer_for(Joint, TWO, run_dir=tmp_path / "0")
    trainer.fit(data.train, data.val)
    for said in on_two(resumed_apart, tmp_path):
        assert "Some processes find" in said
        assert "share" in said


def signalled(fabric, path):
    """Rank 1 alone is asked to stop."""

    class Signals(Observer):
        def on_batch_end(self, trainer):
            if fabric.global_rank == 1 and trainer.state.epoch == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                self.on_batch_end = lambda trainer: None

    trainer, data = trainer_for(Joint, TWO, fabric=fabric, run_dir=path, observers=[Signals()])
    try:
        trainer.fit(data.train, data.val)
    except Interrupted as stop:
        return {"epoch": torch.tensor(trainer.current.state.epoch), "said": torch.tensor("last.ckpt" in str(stop))}
    return {}


def test_a_signal_to_one_process_stops_all_after_the_epoch(tmp_path):
    for found in on_two(signalled, tmp_path / "run"):
        assert found == {"epoch": torch.tensor(2), "said": torch.tensor(True)}


def indivisible(fabric):
    try:
        trainer_for(Joint, TWO, fabric=fabric, batch_size=9)
    except ValueError as error:
        return str(error)
    return ""


def test_a_batch_that_replicas_cannot_share():
    for said in on_two(indivisible):
        assert said == "batch_size=9 must be a multiple of the 2 replicas."


def one_lacks(fabric):
    """Only samples of replica 1 ever lack the second modality."""
    n = 36
    there = torch.ones(n, dtype=torch.bool)
    there[1] = False
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(n, DIM, generator=generator) for m in TWO}
    split = ArraySplit(inputs, torch.arange(n) % 3, ("a", "b", "c"), present={"second": there})
    trainer, _ = trainer_for(partial(Unimodal, "second"), TWO, norm=False, fabric=fabric, epochs=3)
    return everything(trainer.fit(split, split))


def test_a_mask_that_only_one_replica_would_see():
    expected = one_lacks(make_fabric(accelerator="cpu"))
    for found in on_two(one_lacks):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
