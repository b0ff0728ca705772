import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.sequence import agreement, balance_scores, draw_weights, pace
from example_e import UA, UT, UV, Y

TWO, THREE = torch.stack([UA, UV]).softmax(2), torch.stack([UA, UV, UT]).softmax(2)


def losses():
    own = [F.cross_entropy(u, Y, reduction="none") for u in (UA, UV)]
    return 0.1 * F.cross_entropy(UA + UV, Y, reduction="none") + 0.9 * (own[0] + own[1])


def test_oracles():
    assert agreement(TWO).tolist() == pytest.approx([0.4818345079, 0.9788350119, 0.6664572996], abs=1e-9)
    assert losses().tolist() == pytest.approx([1.6526511286, 0.8801302125, 1.8941237667], abs=1e-9)
    scores = balance_scores(agreement(TWO), losses())
    assert scores.tolist() == pytest.approx([-0.7618597898, 1, -0.6285259467], abs=1e-9)
    assert scores.argsort(descending=True).tolist() == [1, 2, 0]


def test_oracle_of_three_modalities():
    assert agreement(THREE).tolist() == pytest.approx([0.7084801492, 0.7305917639, 0.7075538240], abs=1e-9)
    torch.testing.assert_close(agreement(THREE.flip(0)), agreement(THREE))


def test_pairs_are_those_that_a_sample_has():
    present = torch.tensor([[True, True, False], [True, False, True], [True, True, False]])
    found = agreement(THREE, present)
    assert found[0] == agreement(THREE)[0]
    torch.testing.assert_close(found[1], F.cosine_similarity(THREE[0, 1], THREE[2, 1], dim=0))
    assert found[2] == 1


def test_constant_terms_are_nothing():
    torch.testing.assert_close(
        balance_scores(torch.full((3,), 0.5), torch.tensor([1.0, 2, 3])), torch.tensor([0, -0.5, -1])
    )
    torch.testing.assert_close(
        balance_scores(torch.tensor([0.0, 0.5, 1]), torch.full((3,), 2.0)), torch.tensor([0, 0.5, 1])
    )


def test_scores_do_not_depend_on_the_scale_of_the_losses():
    a, loss = agreement(TWO), losses()
    torch.testing.assert_close(balance_scores(a, 3 * loss + 7), balance_scores(a, loss))


def test_pace_oracles():
    shares = [pace(t, 40, 0.1) for t in (0, 1, 9, 19, 38, 39, 80)]
    expected = [0.1864135188, 0.2439262184, 0.5074445783, 0.7106335202, 0.9875474672, 1, 1]
    assert shares == pytest.approx(expected, abs=1e-9)
    assert [int(6698 * share) for share in shares[:6]] == [1248, 1633, 3398, 4759, 6614, 6698]
    assert pace(0, 40, 1.0) == pace(2, 3, 0.1) == 1


def test_oracles_of_the_learned_draws():
    scores = balance_scores(agreement(TWO), losses())
    drawn, ordered = draw_weights(scores, "drawn"), draw_weights(scores, "ordered")
    assert (drawn / drawn.sum()).tolist() == pytest.approx([0.1255352705, 0.7310241884, 0.1434405411], abs=1e-9)
    assert (ordered / ordered.sum()).tolist() == pytest.approx([0.0940062393, 0.7614748972, 0.1445188634], abs=1e-9)
    remembered = 0.5 * scores + 0.5 * torch.tensor([0.2, -0.4, 0.1])
    assert remembered.tolist() == pytest.approx([-0.2809298949, 0.3, -0.2642629734], abs=1e-8)
    equal = draw_weights(torch.full((4,), -0.7), "drawn"), draw_weights(torch.full((4,), -0.7), "ordered")
    assert all(len(weights.unique()) == 1 for weights in equal)
    assert (draw_weights(torch.tensor([-1.0, 1.0]), "ordered") > 0).all()
