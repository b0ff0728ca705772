from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.cosines import cosine_logits, unit_rows


def t(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_written_out():
    z = {"audio": t([3, 4]), "video": t([0, 2])}
    weight = {"audio": t([1, 0], [0, 2]), "video": t([0, 5], [3, 0])}
    c = {m: cosine_logits(z[m], weight[m]) for m in z}
    torch.testing.assert_close(c["audio"], t([0.6, 0.8]))
    torch.testing.assert_close(c["video"], t([1, 0]))
    f = 10 * (c["audio"] + c["video"])
    torch.testing.assert_close(f, t([16, 8]))
    assert F.cross_entropy(f, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(-8)))


def test_agrees_with_torch_and_is_bounded_and_blind_to_lengths():
    generator = torch.Generator().manual_seed(0)
    z, w = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (6, 3))
    c = cosine_logits(z, w)
    torch.testing.assert_close(c, F.cosine_similarity(z[:, None], w[None], dim=2))
    torch.testing.assert_close(cosine_logits(7 * z, 0.2 * w), c)
    assert c.abs().max() <= 1 + 1e-12


def test_no_gradient_along_the_feature():
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    cosine_logits(z, torch.eye(5, dtype=torch.float64)).pow(2).sum().backward()
    assert (z.grad * z).sum(1).abs().max() < 1e-12


def test_zero_rows_stay_zero_with_a_finite_gradient():
    z = torch.zeros(2, 3, requires_grad=True)
    out = unit_rows(z)
    out.sum().backward()
    assert (out == 0).all()
    assert z.grad.abs().max() <= 1


def test_loss_has_a_floor():
    """With every cosine at its best, cross-entropy is log(1 + (C-1) exp(-2 s M))."""
    s, count, classes = 0.5, 2, 4
    best = torch.full((1, classes), -s * count, dtype=torch.float64)
    best[0, 0] = s * count
    floor = math.log(1 + (classes - 1) * math.exp(-2 * s * count))
    assert F.cross_entropy(best, torch.tensor([0])).item() == pytest.approx(floor)
