import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.misalignment import (
    confidence_shares,
    misaligned_losses,
    under_predicted,
    weak_modality_weights,
)
from example_e import UA, UV, Y


def test_the_papers_examples():
    assert confidence_shares(torch.tensor([[0.9], [0.3]])).flatten().tolist() == pytest.approx([0.75, 0.25])
    # a label of 0.25 for the modality, a prediction of 0.10
    logits = torch.tensor([[0.9, 0.1, 0.5]]).log()
    signal = under_predicted(logits, torch.tensor([[0], [1]]), torch.tensor([[0.75], [0.25]]))
    assert signal.flatten().tolist() == pytest.approx([-0.15, 0.15], abs=1e-6)
    moved = weak_modality_weights(torch.tensor([1.0, 1.2]), torch.tensor(1), signal[:, 0], 0.05)
    assert moved.tolist() == pytest.approx([1, 1.2075])


def test_losses_against_the_equation():
    swapped = torch.stack([Y, Y[[1, 2, 0]]])
    p = torch.stack([UA.softmax(1)[range(3), Y], UV.softmax(1)[[1, 2, 0], Y[[1, 2, 0]]]])
    shares, alpha = confidence_shares(p), torch.tensor([1.0, 1.3], dtype=torch.float64)
    logits, similarity = UA + UV[[1, 2, 0]], torch.tensor([-1.0, 0, 1], dtype=torch.float64)
    found = misaligned_losses(logits, swapped, shares, alpha, similarity)
    for i in range(3):
        a, v = Y[i], Y[(i + 1) % 3]
        c_a, c_v = float(UA[i].softmax(0)[a]), float(UV[(i + 1) % 3].softmax(0)[v])
        q = logits[i].softmax(0)
        label = c_a / (c_a + c_v), c_v / (c_a + c_v)
        entropy = label[0] * -math.log(q[a]) + 1.3 * label[1] * -math.log(q[v])
        assert found[i].item() == pytest.approx((1 + (float(similarity[i]) + 1) / 2) * entropy, abs=1e-12)


def test_without_weights_it_is_the_cross_entropy_of_the_soft_label():
    targets = torch.tensor([[0, 1, 2], [1, 1, 0]])  # the second is of one class: the parts add up
    shares = torch.tensor([[0.2, 0.5, 1.0], [0.8, 0.5, 0.0]], dtype=torch.float64)
    label = torch.zeros(3, 3, dtype=torch.float64).scatter_add_(1, targets.T, shares.T)
    found = misaligned_losses(UA, targets, shares, torch.ones(2), -torch.ones(3))
    torch.testing.assert_close(found, F.cross_entropy(UA, label, reduction="none"))


def test_only_the_weakest_moves_and_no_weight_is_below_one():
    alpha, signal = torch.tensor([1.5, 1.1, 1.0]), torch.tensor([0.4, -4.0, 0.2])
    assert weak_modality_weights(alpha, torch.tensor(0), signal, 0.5).tolist() == pytest.approx([1.7, 1, 1])
    assert weak_modality_weights(alpha, torch.tensor(1), signal, 0.5).tolist() == [1, 1, 1]
    assert weak_modality_weights(alpha, torch.tensor(2), signal, 0).tolist() == [1, 1, 1]
