import pytest
import torch

from counterpoise.functional.dependence import dependence, hidden_share, hide
from example_e import UA, UT, UV


def test_oracles():
    assert dependence(torch.stack([UA, UV])).mean(1).tolist() == pytest.approx([0.5218249810, 0.4781750190], abs=1e-9)
    found = dependence(torch.stack([UA, UV, UT]))
    assert found.mean(1).tolist() == pytest.approx([0.3547162536, 0.3378197602, 0.3074639862], abs=1e-9)
    torch.testing.assert_close(found.sum(0), torch.ones(3, dtype=torch.float64))


def test_it_is_a_softmax_over_all_classes_of_all():
    whole = torch.cat([UA, UV, UT], 1).softmax(1)
    found = dependence(torch.stack([UA, UV, UT]))
    for i in range(3):
        torch.testing.assert_close(found[i], whole[:, 3 * i : 3 * i + 3].sum(1))
    torch.testing.assert_close(dependence(torch.stack([UA, UV, UT]) + 5), found)
    torch.testing.assert_close(dependence(torch.stack([UT, UV, UA])), found.flip(0))


@pytest.mark.parametrize(
    ("progress", "share", "hidden"),
    [
        (0, 0, 0),
        (0.05, 0.2588190451, 132),
        (0.1, 0.5, 256),
        (0.2, 0.8660254038, 443),
        (0.3, 1, 512),
        (1, 1, 512),
    ],
)
def test_how_much_is_hidden(progress, share, hidden):
    found = hidden_share(progress, 0.3)
    assert found == pytest.approx(share, abs=1e-9)
    kept = hide(512, found, torch.Generator().manual_seed(0))
    assert kept.dtype == torch.bool
    assert int((~kept).sum()) == hidden


def test_what_is_hidden_is_drawn():
    generator = torch.Generator().manual_seed(0)
    first, second = hide(40, 0.5, generator), hide(40, 0.5, generator)
    assert not torch.equal(first, second)
    assert torch.equal(first, hide(40, 0.5, torch.Generator().manual_seed(0)))
