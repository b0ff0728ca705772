from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from counterpoise.fusions import Geodesic


def build(names="abc", **options):
    torch.manual_seed(0)
    fusion = Geodesic(dict.fromkeys(names, 6), 4, **options).double()
    with torch.no_grad():
        fusion.lam.copy_(torch.tensor([0.2, 0.7, 0.4][: len(fusion.pairs)]))
    return fusion


def draw(names="abc", batch=5):
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(batch, 6, generator=g, dtype=torch.float64) for m in names}


def said(fusion, z, present, lam):
    """Sample by sample: the mean over whole pairs, else over pairs that the sample has one modality of."""
    logits = []
    for i in range(5):
        there = [m for m in z if present is None or present[m][i]]
        pairs = list(combinations(sorted(fusion.dims), 2))
        whole = [p for p in pairs if set(p) <= set(there)]
        votes = []
        for pair in whole or [p for p in pairs if set(p) & set(there)]:
            units = [F.normalize(z[m][i], dim=0) for m in pair if m in there]
            if len(units) == 2:
                theta = torch.acos(units[0] @ units[1])
                share = lam[pairs.index(pair)]
                point = (torch.sin(share * theta) * units[0] + torch.sin((1 - share) * theta) * units[1]) / theta.sin()
            else:
                point = units[0]
            layer = fusion.mixers[0 if fusion.single else pairs.index(pair)]
            votes.append(layer.weight @ point + layer.bias)
        logits.append(sum(votes) / len(votes))
    return torch.stack(logits)


PRESENT = {
    "a": torch.tensor([1, 1, 0, 0, 1]).bool(),
    "b": torch.tensor([1, 0, 1, 0, 0]).bool(),
    "c": torch.tensor([1, 1, 1, 1, 0]).bool(),
}


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("present", [None, PRESENT])
@pytest.mark.parametrize("names", ["abc", "cab"])
def test_by_the_equations(names, present, single):
    fusion, z = build(names, single=single), draw(names)
    torch.testing.assert_close(fusion(z, present)[0], said(fusion, z, present, fusion.lam))
    assert len(fusion.mixers) == (1 if single else 3)


def test_held_shares_replace_those_of_the_fusion_for_one_call():
    fusion, z = build(), draw()
    held = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64)
    before = fusion(z)[0]
    with fusion.hold(held):
        torch.testing.assert_close(fusion(z)[0], said(fusion, z, None, held))
        with fusion.hold(fusion.lam):
            assert torch.equal(fusion(z)[0], before)
        torch.testing.assert_close(fusion(z)[0], said(fusion, z, None, held))
    assert torch.equal(fusion(z)[0], before)
    with pytest.raises(RuntimeError, match="on purpose"), fusion.hold(held):
        raise RuntimeError("on purpose")
    assert torch.equal(fusion(z)[0], before)


def test_at_one_end_the_other_modality_is_not_read():
    fusion, z = build("ab"), draw("ab")
    with fusion.hold(torch.ones(1, dtype=torch.float64)):
        other = {"a": z["a"], "b": torch.randn_like(z["b"])}
        torch.testing.assert_close(fusion(z)[0], fusion(other)[0])


def test_what_is_linear_is_what_represents_a_sample():
    fusion, z = build("ab"), draw("ab")
    torch.testing.assert_close(fusion.mixers[0](fusion.embed(z, None)), fusion(z)[0])
    assert build().embed(draw(), None).shape == (5, 18)


def test_a_pair_that_nobody_asks_gets_no_gradient():
    fusion, z = build(), draw()
    fusion({"a": z["a"], "b": z["b"]})[0].sum().backward()
    assert [layer.weight.grad is None for layer in fusion.mixers] == [False, True, True]


def test_widths_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"Geodesic needs features of one width; got a: 3, b: 5.*Projected"):
        Geodesic({"a": 3, "b": 5}, 4)
