from itertools import combinations, permutations, product
from math import factorial

import pytest
import torch
from torch import tensor

from counterpoise.functional.valuation import smv_copies, smv_draws, smv_gaps, smv_values, training_list

# (a right, v right, both right) -> contributions, copies
TRUTH = {
    (0, 0, 0): ((0.0, 0.0), (2, 2)),
    (0, 0, 1): ((1.0, 1.0), (0, 0)),
    (0, 1, 0): ((-0.5, 0.5), (3, 1)),
    (0, 1, 1): ((0.5, 1.5), (1, 0)),
    (1, 0, 0): ((0.5, -0.5), (1, 3)),
    (1, 0, 1): ((1.5, 0.5), (0, 1)),
    (1, 1, 0): ((0.0, 0.0), (2, 2)),
    (1, 1, 1): ((1.0, 1.0), (0, 0)),
}


def subsets(names):
    return [frozenset(s) for k in range(1, len(names) + 1) for s in combinations(names, k)]


def every_outcome(names):
    """All 2^(2^M - 1) patterns of right and wrong, one per sample."""
    sets = subsets(names)
    table = tensor(list(product([False, True], repeat=len(sets))))
    return {s: table[:, i] for i, s in enumerate(sets)}


def reference(right, names, i, there=None):
    """Shapley value by orderings: the mean gain when a modality joins those before it."""
    there = set(names) if there is None else there

    def v(s):
        return len(s & there) * bool(right[frozenset(s)][i]) if s else 0

    phi = dict.fromkeys(names, 0.0)
    for order in permutations(names):
        for k, m in enumerate(order):
            phi[m] += (v({*order[: k + 1]}) - v({*order[:k]})) / factorial(len(names))
    return [phi[m] for m in names]


def test_truth_table_of_two():
    right = {
        frozenset("a"): tensor([bool(k[0]) for k in TRUTH]),
        frozenset("v"): tensor([bool(k[1]) for k in TRUTH]),
        frozenset("av"): tensor([bool(k[2]) for k in TRUTH]),
    }
    phi = smv_values(right, ("a", "v"))
    assert phi.tolist() == [list(value) for value, _ in TRUTH.values()]
    assert smv_copies(phi).tolist() == [list(copies) for _, copies in TRUTH.values()]


@pytest.mark.parametrize("names", ["av", "avt"])
def test_equals_the_mean_over_orderings(names):
    right = every_outcome(names)
    phi = smv_values(right, tuple(names))
    expected = tensor([reference(right, names, i) for i in range(len(phi))], dtype=torch.float64)
    torch.testing.assert_close(phi, expected, atol=1e-12, rtol=0)


def test_efficiency_symmetry_and_dummy_for_three():
    names = ("a", "v", "t")
    right = every_outcome(names)
    phi = smv_values(right, names)
    torch.testing.assert_close(phi.sum(1), 3.0 * right[frozenset(names)].double())
    other = ("t", "a", "v")
    torch.testing.assert_close(smv_values(right, other), phi[:, [2, 0, 1]])
    alike = torch.ones(len(phi), dtype=torch.bool)
    for s in subsets("t"):
        alike &= right[s | {"a"}] == right[s | {"v"}]
    alike &= right[frozenset("a")] == right[frozenset("v")]
    assert alike.any()
    torch.testing.assert_close(phi[alike, 0], phi[alike, 1])


def test_an_absent_modality_is_a_dummy():
    names = ("a", "v", "t")
    right = every_outcome(names)
    right |= {s | {"t"}: right[s] for s in subsets("av")}  # what the model says without t, t asked for or not
    absent = {"t": torch.zeros(128, dtype=torch.bool)}
    phi = smv_values(right, names, absent)
    assert phi[:, 2].abs().max() < 1e-12
    torch.testing.assert_close(phi[:, :2], smv_values({s: right[s] for s in subsets("av")}, ("a", "v")))
    expected = tensor([reference(right, names, i, {"a", "v"}) for i in range(len(phi))], dtype=torch.float64)
    torch.testing.assert_close(phi, expected, atol=1e-12, rtol=0)


def test_four_modalities_all_right_need_no_copy():
    names = ("a", "b", "c", "d", "e", "f")  # thirds and sixtieths round
    right = {s: tensor([True, False]) for s in subsets(names)}
    phi = smv_values(right, names)
    assert smv_copies(phi).tolist() == [[0] * 6, [2] * 6]


def test_copies_at_and_beside_the_thresholds():
    phi = tensor([[2.0, 1.0, 1 - 1e-12, 0.999], [0.4, 0.4 - 1e-12, 0.399, 0.0], [-0.1, -0.1 - 1e-12, -0.101, -3.0]])
    assert smv_copies(phi.double()).tolist() == [[0, 0, 0, 1], [1, 1, 2, 2], [2, 2, 3, 3]]


def test_fewer_copies_the_larger_the_contribution():
    copies = smv_copies(torch.linspace(-2, 3, 501, dtype=torch.float64).unsqueeze(1)).flatten()
    assert (copies[1:] <= copies[:-1]).all()
    assert copies.dtype == torch.int64


def test_gaps_are_over_the_samples_that_have_the_modality():
    phi = tensor([[0.5, 1.5], [1.0, 0.0], [1.5, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(smv_gaps(phi, "av"), tensor([0.0, 0.5], dtype=torch.float64))
    there = {"v": tensor([True, False, False])}
    torch.testing.assert_close(smv_gaps(phi, "av", there), tensor([0.0, -0.5], dtype=torch.float64))


def test_a_modality_nobody_has_draws_nothing():
    phi = tensor([[0.5, 1.0, 0.0], [0.1, 0.4, 0.0]], dtype=torch.float64)
    nobody = tensor([False, False])
    gaps = smv_gaps(phi, "avt", {"t": nobody})
    assert gaps.isfinite().all()
    assert smv_draws(gaps, 1000)[2] == 0
    assert smv_gaps(phi, "avt", dict.fromkeys("avt", nobody)).tolist() == [0.0, 0.0, 0.0]


def test_draws_of_two_are_the_published_count():
    assert smv_draws(tensor([0.2, 0.8], dtype=torch.float64), 1000).tolist() == [0, 400]
    assert smv_draws(tensor([0.8, 0.2], dtype=torch.float64), 1000, alpha=0.5).tolist() == [200, 0]
    assert smv_draws(tensor([0.3, 0.3], dtype=torch.float64), 1000).tolist() == [0, 0]
    for a, b, n in ((0.13, 0.71, 997), (1.5, -0.5, 10), (0.9, 0.1, 3)):
        expected = int(abs(a - b) * 2 / 3 * n)
        assert smv_draws(tensor([a, b], dtype=torch.float64), n).sum() == expected


def test_draws_of_more_are_in_proportion_above_the_mean():
    draws = smv_draws(tensor([0.0, 0.4, 0.8, 0.0], dtype=torch.float64), 3000)
    assert draws.tolist() == [0, 400, 2000, 0]
    permuted = smv_draws(tensor([0.8, 0.0, 0.0, 0.4], dtype=torch.float64), 3000)
    assert permuted.tolist() == [2000, 0, 0, 400]


def test_training_list_is_the_data_then_the_copies():
    copies = tensor([[0, 2], [1, 0], [0, 0]])
    indices, visible = training_list(copies, ("a", "v"))
    assert indices.tolist() == [0, 1, 2, 0, 0, 1]
    assert visible["a"].tolist() == [True, True, True, False, False, True]
    assert visible["v"].tolist() == [True, True, True, True, True, False]


def test_training_list_keeps_what_was_absent_absent():
    indices, visible = training_list(tensor([[1, 0], [0, 0]]), ("a", "v"), {"v": tensor([False, True])})
    assert indices.tolist() == [0, 1, 0]
    assert visible["v"].tolist() == [False, True, False]
    assert visible["a"].tolist() == [True, True, True]


def test_training_list_does_not_accumulate():
    copies = smv_copies(tensor([[-0.5, 0.5], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64))
    first, second = training_list(copies, "av"), training_list(copies, "av")
    assert len(first[0]) == len(second[0]) == 3 + 4 + 4
    counts = torch.stack([v[3:] for v in first[1].values()]).sum(0)
    assert (counts == 1).all()  # a copy shows one modality
