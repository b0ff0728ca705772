"""Rows in the order that a method gives: batches of consecutive rows, in every epoch, after a stop and on replicas."""

from __future__ import annotations

import pytest
import torch
from test_replicas import on_two

from counterpoise.engine import make_fabric
from counterpoise.methods import Joint
from counterpoise.testing import _StopAfter, assert_same, everything, trainer_for

ROWS = torch.tensor([50, 3, 3, 7] * 10)


class InOrder(Joint):
    """Gives an order before the first epoch and takes it back after the second."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_start(self, run):
        run.resample(ROWS, {"second": torch.arange(40) % 3 > 0}, ordered=True)

    def on_epoch_end(self, run, scores):
        if run.epoch == 1:
            run.resample(torch.arange(40))

    def step(self, step):
        self.seen.append((step.epoch, step.batch.index, step.present("second")))
        return super().step(step)


def trained(method, **options):
    trainer, data = trainer_for(lambda: method, **{"epochs": 3, "batch_size": 12, **options})
    trainer.fit(data.train, data.val)
    return trainer


def test_batches_are_consecutive_rows_until_the_next_resample():
    method = InOrder()
    trained(method)
    seen = method.seen
    for epoch in (0, 1):
        batches = [(rows, shown) for e, rows, shown in seen if e == epoch]
        assert torch.equal(torch.cat([rows for rows, _ in batches]), ROWS[:36])  # an incomplete batch is left out
        assert torch.equal(torch.cat([shown for _, shown in batches]), (torch.arange(40) % 3 > 0)[:36])
    after = torch.cat([rows for e, rows, _ in seen if e == 2])
    assert len(after.unique()) == 36
    assert not torch.equal(after, torch.arange(36))


def test_the_split_in_its_own_order():
    class Plain(InOrder):
        def on_start(self, run):
            run.resample(None, ordered=True)

    method = Plain()
    trained(method, epochs=1)
    assert torch.equal(torch.cat([rows for _, rows, _ in method.seen]), torch.arange(48))


@pytest.mark.parametrize("batches", [2, 4, 7])
def test_resumed_it_goes_on_in_order(batches, tmp_path):
    with pytest.raises(RuntimeError, match="stopped by the test"):
        trained(InOrder(), run_dir=tmp_path / "run", observers=[_StopAfter(batches)])
    again, data = trainer_for(InOrder, epochs=3, batch_size=12, run_dir=tmp_path / "run")
    again.fit(data.train, data.val, resume=True)
    assert_same(everything(trained(InOrder())), everything(again))


def batches_of(fabric):
    method = InOrder()
    trained(method, epochs=1, fabric=fabric)
    return torch.stack([rows for _, rows, _ in method.seen])


def test_global_batches_do_not_depend_on_the_replicas():
    one, (zero, other) = batches_of(make_fabric(accelerator="cpu")), on_two(batches_of)
    assert torch.equal(one[:, ::2], zero)
    assert torch.equal(one[:, 1::2], other)


def test_a_sampler_has_an_order_of_its_own():
    trainer, data = trainer_for(InOrder, sampler="balanced")
    with pytest.raises(ValueError, match=r"sampler='balanced' .* InOrder chooses theirs"):
        trainer.fit(data.train, data.val)
