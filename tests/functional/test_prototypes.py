from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.prototypes import (
    class_sums,
    entropy,
    merge_prototypes,
    pmr_coefficients,
    prototype_distances,
    prototype_logits,
    stratified,
)


@pytest.mark.parametrize(
    ("rho", "beta", "gamma"),
    [(0.25, 1, 0), (0.5, 1, 0), (0.8, 0.25, 0), (1, 0, 0), (1.3, 0, 0.3), (2, 0, 1), (4, 0, 1)],
)
def test_coefficients_for_two_are_those_of_the_paper(rho, beta, gamma):
    """beta weighs the prototype loss of the first and the entropy of the second modality, gamma the others."""
    prototype, entropies = pmr_coefficients(torch.tensor([rho, 1.0], dtype=torch.float64))
    expected = torch.tensor([beta, gamma], dtype=torch.float64)
    torch.testing.assert_close(prototype, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(entropies, expected.flip(0), atol=1e-9, rtol=0)
    swapped = pmr_coefficients(torch.tensor([1.0, rho], dtype=torch.float64))
    torch.testing.assert_close(swapped[0], prototype.flip(0))
    torch.testing.assert_close(swapped[1], entropies.flip(0))
    assert prototype.prod() == 0


def test_coefficients_for_three():
    beta, gamma = pmr_coefficients(torch.tensor([2.0, 1.6, 1.0], dtype=torch.float64))
    torch.testing.assert_close(beta, torch.tensor([0, 0.25, 1.0], dtype=torch.float64))
    torch.testing.assert_close(gamma, torch.tensor([1, 0.6, 0.0], dtype=torch.float64))


def test_released_rule_is_a_hard_switch_without_entropy():
    beta, gamma = pmr_coefficients(torch.tensor([1.0, 1.01]), "switch")
    assert beta.tolist() == [1, 0]
    assert gamma.tolist() == [0, 0]
    assert pmr_coefficients(torch.tensor([1.0, 1.0]), "switch")[0].tolist() == [0, 0]
    with pytest.raises(ValueError, match="'clip' or 'switch'"):
        pmr_coefficients(torch.ones(2), "soft")


@pytest.mark.parametrize("scores", [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0, 0.0)])
def test_zero_scores_stay_in_range(scores):
    for values in pmr_coefficients(torch.tensor(scores)):
        assert ((values >= 0) & (values <= 1)).all()


def test_distances_probabilities_entropy_written_out():
    h = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    c = torch.tensor([[0.0, 0.0], [1.0, 1.0], [4.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(prototype_distances(h, c), torch.tensor([[1.0, 1.0, 5.0]], dtype=torch.float64))
    logits = prototype_logits(h, c)
    q = torch.tensor([[0.4955, 0.4955, 0.0091]], dtype=torch.float64)
    torch.testing.assert_close(logits.softmax(1), q, atol=1e-4, rtol=0)
    assert entropy(logits).item() == pytest.approx(0.7386, abs=1e-4)
    assert F.cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(0.7023, abs=1e-4)


def test_distances_agree_with_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    h, c = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (40, 30))
    loop = torch.tensor([[math.dist(x, y) for y in c.tolist()] for x in h.tolist()], dtype=torch.float64)
    torch.testing.assert_close(prototype_distances(h, c), loop)


def test_gradient_at_a_prototype_is_finite():
    c = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    h = c[:1].clone().requires_grad_()
    F.cross_entropy(prototype_logits(h, c), torch.tensor([0])).backward()
    assert h.grad.isfinite().all()


def test_unseen_classes_get_no_probability_and_no_nan():
    h = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logits = prototype_logits(h, torch.zeros(3, 2), torch.tensor([True, False, True]))
    q = logits.softmax(1)
    assert (q[:, 1] == 0).all()
    (entropy(logits).sum() + q.sum()).backward()
    assert h.grad.isfinite().all()
    nobody = prototype_logits(h, torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool))
    assert entropy(nobody).isfinite().all()


def test_entropy_of_a_uniform_distribution_is_its_maximum():
    assert entropy(torch.zeros(1, 5)).item() == pytest.approx(math.log(5))
    logits = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
    before = entropy(logits)
    (-before.sum()).backward()
    assert entropy(logits - 0.1 * logits.grad).item() > before.item()


def test_class_means_by_batches_equal_those_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    target = torch.arange(30) % 3
    rows = torch.arange(30) % 4 != 0
    parts = [class_sums(h[s], target[s], 3, rows[s]) for s in (slice(0, 11), slice(11, 30))]
    sums, counts = (sum(p[i] for p in parts) for i in (0, 1))
    for k in range(3):
        own = h[(target == k) & rows]
        assert counts[k] == len(own)
        torch.testing.assert_close(sums[k] / counts[k], own.mean(0))
    assert class_sums(h, target, 3)[1].tolist() == [10, 10, 10]


def test_merge():
    old, seen = torch.tensor([[1.0], [2.0], [3.0], [0.0]]), torch.tensor([True, True, True, False])
    sums, counts = torch.tensor([[8.0], [0.0], [6.0], [5.0]]), torch.tensor([2.0, 0.0, 1.0, 1.0])
    for momentum, expected in ((0.0, [4, 2, 6, 5]), (1.0, [1, 2, 3, 5]), (0.25, [3.25, 2, 5.25, 5])):
        new, known = merge_prototypes(old, seen, sums, counts, momentum)
        assert new.flatten().tolist() == expected  # row 1 had no sample, row 3 no prototype
        assert known.all()
    _, known = merge_prototypes(old, seen, sums, torch.tensor([1.0, 1.0, 1.0, 0.0]), 0.0)
    assert known.tolist() == [True, True, True, False]


def test_stratified_takes_a_share_of_every_class():
    target = torch.tensor([0] * 100 + [1] * 40 + [3] * 3)[
        torch.randperm(143, generator=torch.Generator().manual_seed(1))
    ]
    picked = stratified(target, 0.1, torch.Generator().manual_seed(0))
    assert target[picked].bincount().tolist() == [10, 4, 0, 1]
    assert len(picked.unique()) == len(picked)
    again = stratified(target, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(picked, again)
    assert not torch.equal(picked, stratified(target, 0.1, torch.Generator().manual_seed(2)))
    assert len(stratified(target, 1.0, torch.Generator())) == 143
