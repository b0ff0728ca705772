from __future__ import annotations

import pytest
import torch
from torch import nn

from counterpoise.functional import frozen_statistics
from counterpoise.functional.statistics import lone_sample


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


def test_a_lone_sample_is_normalised_by_the_running_statistics_where_it_has_no_variance():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4))
    model(torch.randn(6, 2, 5) + 1)
    x, before = torch.randn(1, 2, 5), buffers(model)
    with pytest.raises(ValueError, match="more than 1 value"):
        model(x)
    model.load_state_dict(before, strict=False)
    with lone_sample(model):
        z = model(x)
    assert all(m.training for m in model.modules())
    h = model[0](x)
    h = (h - h.mean((0, 2), keepdim=True)) / (h.var((0, 2), unbiased=False, keepdim=True) + 1e-5).sqrt()
    h = model[3](h.flatten(1))  # the first normalisation sees three values per channel
    torch.testing.assert_close(z, (h - before["4.running_mean"]) / (before["4.running_var"] + 1e-5).sqrt())
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])
    assert torch.equal(model[4].running_mean, before["4.running_mean"])
    assert model[4].num_batches_tracked == 1
    z.sum().backward()
    assert model[4].weight.grad.isfinite().all()
    with pytest.raises(ValueError, match="more than 1 value"):  # nothing is left behind
        model(x)


def test_a_lone_sample_under_frozen_statistics_moves_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model(torch.randn(6, 3))
    before, x = buffers(model), torch.randn(1, 3)
    with lone_sample(model):
        outside = model(x)
    with frozen_statistics(model), lone_sample(model):
        inside = model(x)
    assert torch.equal(inside, outside)
    assert same(before, buffers(model))
