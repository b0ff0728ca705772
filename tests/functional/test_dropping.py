from __future__ import annotations

import torch

from counterpoise.functional.dropping import keep_mask, sample_uniform


def draw(index, columns=3, seed=0):
    return sample_uniform(torch.as_tensor(index), columns, torch.Generator().manual_seed(seed))


def test_numbers_belong_to_samples_not_to_places():
    index = torch.arange(40)
    whole = draw(index)
    assert torch.equal(whole[::2], draw(index[::2]))
    assert torch.equal(whole.flip(0), draw(index.flip(0)))
    assert not torch.equal(whole, draw(index, seed=1))


def test_numbers_are_uniform_and_independent_over_samples_columns_and_draws():
    u = draw(torch.arange(20_000), 2)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    assert (torch.histc(u, 10, 0, 1) / u.numel() - 0.1).abs().max() < 0.005
    second = draw(torch.arange(20_000), 2, seed=9)
    table = torch.stack([u[:-1, 0], u[:-1, 1], u[1:, 0], second[:-1, 0]])
    assert (torch.corrcoef(table) - torch.eye(4)).abs().max() < 0.03


def test_generator_moves_by_the_same_amount_for_any_batch():
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    sample_uniform(torch.arange(3), 2, generators[0])
    sample_uniform(torch.arange(300), 4, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_keep_mask_rates_and_rescue():
    u = draw(torch.arange(20_000), 2)
    keep = keep_mask(u, torch.tensor([0.3, 0.0]))
    assert keep[:, 1].all()
    assert abs(keep[:, 0].float().mean() - 0.7) < 0.02
    assert keep_mask(u, torch.tensor([1.0, 1.0])).all()  # nobody is left with nothing
    assert not keep_mask(u, torch.tensor([1.0, 0.0]))[:, 0].any()


def test_keep_mask_does_not_take_the_only_one_a_sample_has():
    has = torch.tensor([[True, False], [True, True]])
    keep = keep_mask(torch.zeros(2, 2) + 0.5, torch.tensor([1.0, 0.0]), has)
    assert keep.tolist() == [[True, True], [False, True]]
