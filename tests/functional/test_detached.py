import math

import pytest
import torch

from counterpoise.functional.detached import class_means, effective_dimensions, lesson, vote_weights
from example_e import UA, UV


def test_oracle_of_the_vote():
    weights = vote_weights(torch.stack([UA, UV, UA + UV]), 1.0)
    assert weights[:, 0].tolist() == pytest.approx([0.3710225372, 0.3004837424, 0.3284937204], abs=1e-9)
    torch.testing.assert_close(vote_weights(torch.stack([UA, UV]), 1e9), torch.full((2, 3), 0.5, dtype=torch.float64))
    present = torch.tensor([[True, False, True], [True, True, False]])
    weights = vote_weights(torch.stack([UA, UV]), 1.0, present)
    assert weights[:, 1:].tolist() == [[0, 1], [1, 0]]
    torch.testing.assert_close(weights[:, 0], vote_weights(torch.stack([UA, UV]), 1.0)[:, 0])


def test_dimensions_that_separate_the_classes():
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    told = torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 2.1])
    z = torch.stack([told, torch.tensor([0.0, 2, 0, 2, 0, 2.1]), -told, torch.zeros(6)], 1)
    means = class_means(z, y, 4)
    torch.testing.assert_close(means[:3, 0], torch.tensor([0.05, 1.05, 2.05]))
    assert means[3].isinf().all()  # nobody is near to a class that nobody has
    assert effective_dimensions(z, y, means).tolist() == [True, False, True, False]


def test_dimensions_against_the_definition():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (700,), generator=generator)
    z = torch.randn(700, 9, generator=generator) + torch.rand(4, 9, generator=generator)[y] * torch.linspace(0, 4, 9)
    shares = []
    for d in range(9):
        centre = [z[y == c, d].double().mean().item() for c in range(4)]
        near = [min(range(4), key=lambda c: abs(v - centre[c])) for v in z[:, d].double().tolist()]
        shares.append(sum(a == b for a, b in zip(near, y.tolist(), strict=True)) / 700)
    expected = [s > sum(shares) / 9 for s in shares]
    assert effective_dimensions(z.double(), y, class_means(z.double(), y, 4)).tolist() == expected
    assert 0 < sum(expected) < 9


@pytest.mark.parametrize("present", [None, [True, False, True, True]])
def test_lessons_against_the_equation(present):
    generator = torch.Generator().manual_seed(0)
    learner, teacher = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    learner.requires_grad_()
    teacher.requires_grad_()
    rows = range(4) if present is None else [i for i, p in enumerate(present) if p]
    found = lesson(learner, teacher, 2.0, None if present is None else torch.tensor(present))
    products = (learner @ teacher.T / 2).detach().exp()
    terms = [-math.log(float(products[i, i]) / sum(float(products[i, j]) for j in rows)) for i in rows]
    assert found.item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    found.backward()
    assert teacher.grad is None
    assert learner.grad is not None
    assert learner.grad.isfinite().all()
    assert present is None or not learner.grad[1].any()


def test_nobody_has_both():
    assert lesson(torch.ones(3, 2), torch.ones(3, 2), 1.0, torch.zeros(3, dtype=torch.bool)) == 0
    assert lesson(torch.zeros(3, 2), torch.zeros(3, 2), 1.0).item() == pytest.approx(math.log(3))
