import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional import left_behind, residual_losses

F64 = torch.float64
U_1 = torch.tensor([[0.0, 1, 0], [0, 2, 1], [1, 0, 0]], dtype=F64)
U_2 = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 1]], dtype=F64)
U_3 = torch.tensor([[0.0, 0, 1], [0, 1, 0], [0, 0, 0.5]], dtype=F64)
Y = torch.tensor([0, 1, 2])


def ce(u):
    return F.cross_entropy(u, Y).item()


def weights(logits, before, **options):
    """The losses over plain cross-entropies."""
    return (residual_losses(logits, before, Y, **options) / F.cross_entropy(logits, Y, reduction="none")).tolist()


def test_the_second_classifier_of_the_worked_example():
    assert weights(U_2, U_1[None]) == pytest.approx([0.8940292212, 0.6673795221, 0.8940292212], abs=1e-9)
    terms = residual_losses(U_2, U_1[None], Y).mean().item(), ce(U_1 + U_2), ce(U_1)
    assert terms == pytest.approx((0.5417927882, 0.6985095467, 1.1701651308), abs=1e-9)
    assert sum(terms) == pytest.approx(2.4104674657, abs=1e-9)


def test_the_third_classifier_of_the_worked_example():
    before = torch.stack([U_1, U_2])
    assert weights(U_3, before) == pytest.approx([0.7888406009, 0.6551639569, 0.7888406009], abs=1e-9)
    summed = weights(U_3, before, residual="sum")
    assert summed == pytest.approx([0.6059707788, 0.4755536565, 0.6059707788], abs=1e-9)
    total = residual_losses(U_3, before, Y).mean().item() + ce(U_1 + U_2 + U_3) + ce(U_1 + U_2)
    assert total == pytest.approx(2.0544052235, abs=1e-9)


def test_the_sum_of_softmaxes_is_held_where_it_would_be_negative():
    sure = math.log(18) * F.one_hot(Y, 3).to(F64).expand(2, 3, 3)  # 0.9 each: 1 - 1.8
    assert residual_losses(U_3, sure, Y, lam=1.0, residual="sum").tolist() == [0, 0, 0]
    assert min(weights(U_3, sure, lam=1.0)) > 0


def test_without_lam_it_is_the_cross_entropy_and_old_classifiers_are_constants():
    before, new = U_1[None].clone().requires_grad_(), U_2.clone().requires_grad_()
    torch.testing.assert_close(residual_losses(U_2, before, Y, lam=0).mean(), F.cross_entropy(U_2, Y))
    residual_losses(new, before, Y).sum().backward()
    assert before.grad is None
    assert new.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("scores", "options", "weak"),
    [
        ((0.6638715779, 0.3630347195), {}, 1),  # the worked example: ahead by .3008, ratio 1.8287
        ((0.6638715779, 0.3630347195), {"tau": 0.31}, None),
        ((0.6638715779, 0.3630347195), {"ratio": True, "tau": 0.82}, 1),
        ((0.6638715779, 0.3630347195), {"ratio": True, "tau": 0.83}, None),
        ((0.5, 0.5), {}, None),
        ((0.505, 0.5), {}, None),
        ((0.5, 0.9, 0.6), {}, 0),
        ((0.5, 0.9, 0.6), {"sigma": 1.8}, None),
        ((0.0, 0.5), {"ratio": True}, 0),
        ((math.nan, 0.5), {}, None),
        ((0.9, math.nan), {"ratio": True}, None),
    ],
)
def test_who_is_left_behind(scores, options, weak):
    assert left_behind(scores, **options) == weak
