import copy

import pytest
import torch

from counterpoise.fusions import Boosted


def build(**options):
    torch.manual_seed(0)
    return Boosted({"a": 3, "b": 5}, 4, width=7, most=3, **options).double()


def draw():
    g = torch.Generator().manual_seed(1)
    return {"a": torch.randn(6, 3, generator=g).double(), "b": torch.randn(6, 5, generator=g).double()}


def said(fusion, m, z, count):
    total = 0
    for layer in list(fusion.layers[m])[:count]:
        hidden = (z @ layer.weight.T + layer.bias).clamp(min=0)
        total = total + hidden @ fusion.last.weight.T + fusion.last.bias
    return total


def test_by_the_equations_while_it_grows():
    fusion, z = build(), draw()
    for a, b in [(1, 1), (1, 2), (2, 2), (2, 3)]:
        if a > fusion.active["a"]:
            assert fusion.grow("a")
        if b > fusion.active["b"]:
            assert fusion.grow("b")
        logits, unimodal = fusion(z)
        torch.testing.assert_close(unimodal["a"], said(fusion, "a", z["a"], a))
        torch.testing.assert_close(unimodal["b"], said(fusion, "b", z["b"], b))
        torch.testing.assert_close(logits, unimodal["a"] + unimodal["b"])
        assert fusion.stages("b", z["b"]).shape == (b, 6, 4)
    assert not fusion.grow("b")
    assert fusion.active == {"a": 2, "b": 3}


def test_what_was_added_is_all_that_changes():
    fusion, z = build(), draw()
    before = fusion(z)[1]
    fusion.grow("b")
    after = fusion(z)[1]
    assert torch.equal(before["a"], after["a"])
    torch.testing.assert_close(after["b"] - fusion.stages("b", z["b"])[-1], before["b"])


def test_layers_that_do_not_take_part_have_no_gradient():
    fusion = build()
    fusion.grow("b")
    fusion(draw())[0].sum().backward()
    has = {m: [layer.weight.grad is not None for layer in layers] for m, layers in fusion.layers.items()}
    assert has == {"a": [True, False, False], "b": [True, True, False]}


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_how_far_it_has_grown_travels_with_the_weights(names):
    fusion, z = build(), draw()
    fusion.grow("b")
    fresh = Boosted({m: fusion.dims[m] for m in names}, 4, width=7, most=3).double()
    fresh.load_state_dict(fusion.state_dict())
    assert fresh.active == {"a": 1, "b": 2}
    torch.testing.assert_close(fresh(z)[0], fusion(z)[0])
    assert copy.deepcopy(fusion).active == {"a": 1, "b": 2}
    taken = {k: v.clone() for k, v in fusion.state_dict().items()}
    fusion.grow("b")
    fusion.load_state_dict(taken)
    assert fusion.active == {"a": 1, "b": 2}


def test_names_and_numbers_that_do_not_fit():
    with pytest.raises(ValueError, match="Unknown modality 'c'"):
        build().grow("c")
    for bad in ({"width": 0}, {"most": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be a whole number >= 1"):
            Boosted({"a": 3}, 4, **bad)
