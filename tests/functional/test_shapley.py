from __future__ import annotations

from itertools import permutations

import pytest
import torch

from counterpoise.functional.shapley import coalitions, sampled_orders, shapley, shapley_error

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


MANY = tuple("abcdefgh")


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_orders_give_the_exact_value(count):
    names = NAMES[:count]
    values, orders = game(names), list(permutations(names))
    exact, sampled = shapley(values, names), shapley(values, names, orders)
    for m in names:
        torch.testing.assert_close(sampled[m], exact[m], atol=1e-12, rtol=0)


@pytest.mark.parametrize("count", [7, 8, 12, 40])
@pytest.mark.parametrize("pairs", [1, 3])
def test_sampled_orders_need_few_subsets_and_add_up(count, pairs):
    names = [f"m{i}" for i in range(count)]
    orders = sampled_orders(names, pairs, torch.Generator().manual_seed(count))
    assert all(sorted(order) == sorted(names) for order in orders)
    assert orders[1::2] == [order[::-1] for order in orders[::2]]
    needed = coalitions(names, orders)
    assert len(set(needed)) == len(needed) <= pairs * (2 * count - 1)
    generator = torch.Generator().manual_seed(0)
    values = {s: torch.randn(3, generator=generator, dtype=torch.float64) for s in needed}
    values[frozenset()] = torch.ones(3, dtype=torch.float64)
    shares = shapley(values, names, orders)
    torch.testing.assert_close(torch.stack([*shares.values()]).sum(0), values[frozenset(names)] - 1)
    del values[frozenset(orders[0][:2])]
    with pytest.raises(ValueError, match="is missing"):
        shapley(values, names, orders)


def test_the_sampled_value_is_without_bias_and_its_error_is_its_spread():
    values = {s: torch.tensor(len(s) ** 2 + 3.0 * ({"a", "b"} <= s) + ("c" in s), dtype=torch.float64)
              for s in coalitions(MANY)}  # fmt: skip
    exact = shapley(values, MANY)
    generator = torch.Generator().manual_seed(1)
    found, errors = [], []
    for _ in range(150):
        orders = sampled_orders(MANY, 4, generator)
        found.append(torch.stack([shapley(values, MANY, orders)[m] for m in MANY]))
        errors.append(torch.stack([shapley_error(values, MANY, orders)[m] for m in MANY]).square())
    off = torch.stack(found).mean(0) - torch.stack([exact[m] for m in MANY])
    spread = torch.stack(found).std(0)
    assert (off.abs() <= 4 * spread / 150**0.5 + 1e-9).all()
    said = torch.stack(errors).mean(0).sqrt()
    torch.testing.assert_close(said, spread, rtol=0.25, atol=1e-6)


def test_up_to_six_are_exact_and_the_same_orders_come_again():
    assert all(sampled_orders(MANY[:count]) is None for count in range(1, 7))
    assert sampled_orders(MANY) == sampled_orders(MANY)
    generator = torch.Generator().manual_seed(0)
    assert sampled_orders(MANY, 2, generator) != sampled_orders(MANY, 2, generator)


@pytest.mark.parametrize("count", [21, 40, 1000])
def test_too_many_subsets_are_refused_at_once(count):
    with pytest.raises(ValueError, match=rf"2\^{count} - 1 subsets.*sampled_orders"):
        coalitions([str(i) for i in range(count)])
