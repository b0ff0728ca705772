import math

import pytest
import torch

from counterpoise.functional.remixing import bits_from_uniform, least_separating, remixed_rows
from example_e import UA, UT, UV


def rows_of(sizes, batch_size=64, seed=0, **options):
    """The order of groups of these sizes, as group numbers and as rows."""
    shown = torch.cat([torch.full((n,), i) for i, n in enumerate(sizes)])
    shown = shown[torch.randperm(len(shown), generator=torch.Generator().manual_seed(1))]
    rows = remixed_rows(shown, batch_size, torch.Generator().manual_seed(seed), **options)
    assert len(rows.unique()) == len(rows)
    return shown[rows], rows


def batches(groups, batch_size=64):
    return [sorted(part.unique().tolist()) for part in groups.split(batch_size)]


def test_oracles():
    assert bits_from_uniform(UA).tolist() == pytest.approx([0.6247440932, 0.1778618783, 0.2779395742], abs=1e-9)
    assert bits_from_uniform(UV).tolist() == pytest.approx([0.1778618783, 0.3840695227, 0.1778618783], abs=1e-9)
    assert least_separating(bits_from_uniform(torch.stack([UA, UV]))).tolist() == [1, 0, 1]
    assert least_separating(bits_from_uniform(torch.stack([UA, UV, UT]))).tolist() == [1, 0, 1]  # a tie of a and t
    assert least_separating(bits_from_uniform(torch.stack([UT, UV, UA]))).tolist() == [0, 0, 1]  # ties of t, v and a
    sure = torch.tensor([0.0, 900, 0, 0, 0, 0])
    assert bits_from_uniform(sure).item() == pytest.approx(2.5849625007)
    assert bits_from_uniform(torch.zeros(6, dtype=torch.float64)).item() == pytest.approx(0, abs=1e-12)


def test_bits_against_the_equation_and_names_of_classes_do_not_matter():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    for row, bits in zip(logits.double(), bits_from_uniform(logits), strict=True):
        p = row.softmax(0)
        assert bits.item() == pytest.approx(sum(float(q) * math.log2(7 * float(q)) for q in p), abs=1e-5)
    assert torch.equal(bits_from_uniform(logits[:, [3, 1, 0, 6, 5, 2, 4]].double()), bits_from_uniform(logits.double()))


def test_a_sample_shows_what_it_has():
    bits = torch.tensor([[1.0, 0.1, 0.5], [2.0, 0.2, 0.1]])
    present = torch.tensor([[True, False, True], [True, True, False]])
    assert least_separating(bits).tolist() == [0, 0, 1]
    assert least_separating(bits, present).tolist() == [0, 1, 0]


@pytest.mark.parametrize("blocks", [True, False])
def test_whole_batches_show_one_modality_and_what_is_left_comes_when_asked_for(blocks):
    groups, _ = rows_of((130, 70), blocks=blocks)
    assert sorted(batches(groups)) == [[0], [0], [1]]
    groups, _ = rows_of((130, 70), blocks=blocks, mixed=True)
    assert sorted(batches(groups)[:3]) == [[0], [0], [1]]
    assert torch.bincount(groups[192:]).tolist() == [2, 6]


def test_order_of_the_batches():
    assert batches(rows_of((256, 128, 192), blocks=True)[0]) == [[0]] * 4 + [[1]] * 2 + [[2]] * 3
    orders = [batches(rows_of((256, 128, 192), seed=seed)[0]) for seed in range(9)]
    assert len({str(order) for order in orders}) > 5
    assert len({tuple(rows_of((256, 128), seed=seed)[1].tolist()) for seed in range(9)}) == 9


@pytest.mark.parametrize(
    ("sizes", "pure", "last"),
    [
        ((195, 5), 2, {1: 5, 0: 59}),  # filled from what is left of the first and from one of its batches
        ((251, 5), 3, {1: 5, 0: 59}),  # from what is left alone
        ((200, 40, 40), 2, {1: 40, 2: 40, 0: 48}),  # two batches, the second filled
        ((40, 50), 0, {0: 40, 1: 50}),  # nobody fills one: what the batches hold is mixed
        ((64, 0, 3), 0, {2: 3, 0: 61}),
    ],
)
def test_a_group_smaller_than_a_batch_is_shown_at_the_end(sizes, pure, last):
    for seed in range(4):
        groups, _ = rows_of(sizes, seed=seed)
        assert batches(groups)[:pure] == [[0]] * pure
        tail = torch.bincount(groups[pure * 64 :], minlength=len(sizes)).tolist()
        assert {i: n for i, n in enumerate(tail) if n} == last
        assert sum(tail) % 64 == 0 or pure == 0


def test_mixed_leaves_nobody_out():
    for sizes in ((130, 70), (195, 5), (40, 50), (192, 5), (100, 90, 80)):
        assert len(rows_of(sizes, mixed=True)[1]) == sum(sizes)


def test_names_of_modalities_do_not_matter():
    shown = torch.randint(3, (500,), generator=torch.Generator().manual_seed(0))
    rows = remixed_rows(shown, 32, torch.Generator().manual_seed(1), blocks=True)
    swapped = remixed_rows(2 - shown, 32, torch.Generator().manual_seed(1), blocks=True)
    assert torch.bincount(shown[rows]).tolist() == torch.bincount(2 - (2 - shown)[swapped]).tolist()
