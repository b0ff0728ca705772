from __future__ import annotations

from itertools import permutations

import pytest
import torch

from counterpoise.functional.shapley import coalitions, shapley

NAMES = ("one", "two", "three", "four")


def game(names, seed=0, shape=(3, 2)):
    generator = torch.Generator().manual_seed(seed)
    return {s: torch.randn(shape, generator=generator, dtype=torch.float64) for s in coalitions(names)}


def by_orderings(values, names):
    """The textbook definition: the mean gain of a player over all orders of arrival."""
    zero = torch.zeros_like(values[frozenset(names)])
    shares = {m: torch.zeros_like(zero) for m in names}
    orders = list(permutations(names))
    for order in orders:
        for i, m in enumerate(order):
            before = values.get(frozenset(order[:i]), zero)
            shares[m] += (values[frozenset(order[: i + 1])] - before) / len(orders)
    return shares


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_is_the_mean_gain_over_all_orders_and_adds_up(count):
    names = NAMES[:count]
    values = game(names)
    shares, reference = shapley(values, names), by_orderings(values, names)
    for m in names:
        torch.testing.assert_close(shares[m], reference[m], atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.stack([*shares.values()]).sum(0), values[frozenset(names)], atol=1e-12, rtol=0)


def test_written_out_for_two_and_three():
    v = game(NAMES[:2])
    a, b, ab = (v[s] for s in (frozenset({"one"}), frozenset({"two"}), frozenset({"one", "two"})))
    torch.testing.assert_close(shapley(v, NAMES[:2])["one"], 0.5 * (ab - b + a))
    v = game(NAMES[:3])

    def f(*names):
        return v[frozenset(names)]

    last = (f("one", "two", "three") - f("one", "two") + f("three")) / 3
    last = last + (f("one", "three") - f("one") + f("two", "three") - f("two")) / 6
    torch.testing.assert_close(shapley(v, NAMES[:3])["three"], last)


def test_symmetry_and_dummy():
    size = {s: torch.tensor(float(len(s - {"three"})) ** 2, dtype=torch.float64) for s in coalitions(NAMES[:3])}
    shares = shapley(size, NAMES[:3])
    assert shares["one"].item() == pytest.approx(2)
    assert shares["two"].item() == pytest.approx(2)
    assert shares["three"].item() == pytest.approx(0, abs=1e-12)


def test_order_of_the_players_does_not_matter():
    values = game(NAMES[:3])
    forward, backward = shapley(values, NAMES[:3]), shapley(values, NAMES[2::-1])
    for m in NAMES[:3]:
        torch.testing.assert_close(forward[m], backward[m])


def test_the_empty_set_counts_when_given():
    values = {frozenset(): torch.tensor(1.0), frozenset({"one"}): torch.tensor(3.0)}
    assert shapley(values, ("one",))["one"] == 2.0


def test_missing_subset_is_named():
    values = game(NAMES[:2])
    del values[frozenset({"two"})]
    with pytest.raises(ValueError, match=r"\['two'\] is missing"):
        shapley(values, NAMES[:2])
