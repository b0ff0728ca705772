from __future__ import annotations

import pytest
import torch
from torch import nn

from counterpoise.functional import frozen_statistics


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True), nn.BatchNorm1d(3)
    )


def buffers(model):
    return {name: b.clone() for name, b in model.named_buffers()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
def test_same_output_and_untouched_statistics(mode):
    model, x = net(), torch.randn(4, 2, 9)
    model(x)  # non-trivial statistics
    model.train(mode != "eval")
    if mode == "mixed":
        model[1].eval()
    before = buffers(model)
    with frozen_statistics(model):
        inside = model(x)
    assert same(before, buffers(model))
    torch.testing.assert_close(inside, model(x), rtol=0, atol=0)
    assert same(before, buffers(model)) == (mode == "eval")  # outside, training moves them again


def test_counter_does_not_advance_and_state_comes_back_after_an_exception():
    model, x = net(), torch.randn(4, 2, 9)
    with pytest.raises(RuntimeError), frozen_statistics(model):
        model(torch.cat([model[:2](x), x], dim=1))  # runs the normalisation, then fails on the channels
    assert model[1].num_batches_tracked == 0
    model(x)
    assert model[1].num_batches_tracked == 1


def test_nests():
    model, x = net(), torch.randn(4, 2, 9)
    before = buffers(model)
    with frozen_statistics(model):
        with frozen_statistics(model):
            model(x)
        model(x)
    assert same(before, buffers(model))
    model(x)
    assert not same(before, buffers(model))


def test_backward_runs_through_a_frozen_pass():
    model, x = net(), torch.randn(4, 2, 9)
    with frozen_statistics(model):
        out = model(x)
    out.square().mean().backward()
    assert model[0].weight.grad is not None


def test_layers_without_statistics_stay_so():
    model = nn.BatchNorm1d(2, track_running_stats=False)
    with frozen_statistics(model):
        model(torch.randn(3, 2))
    assert model.track_running_stats is False
