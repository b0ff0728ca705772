import pytest
import torch

from counterpoise.functional.relearning import k_means, purity, return_share, scaled


def test_purity_oracles():
    assert purity(torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 1, 1, 2, 0, 2])) == 0.75
    assert purity(torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 2, 0])) == 0.5


@pytest.mark.parametrize("seed", range(4))
def test_purity_against_counting(seed):
    generator = torch.Generator().manual_seed(seed)
    clusters, labels = (torch.randint(5, (60,), generator=generator) for _ in range(2))
    right = 0
    for c in set(clusters.tolist()):
        inside = [y for k, y in zip(clusters.tolist(), labels.tolist(), strict=True) if k == c]
        right += max(inside.count(y) for y in inside)
    found = purity(clusters, labels)
    assert found == pytest.approx(right / 60)
    assert found >= labels.bincount().max() / 60
    renamed = torch.tensor([3, 1, 4, 0, 2])
    assert purity(renamed[clusters], labels) == purity(clusters, renamed[labels]) == found
    assert purity(labels, labels) == 1


def test_scaling_oracle():
    found = scaled(torch.tensor([[0.0, 10, 7], [5, 20, 7], [10, 40, 7]]))
    torch.testing.assert_close(found, torch.tensor([[-1.0, -1, 0], [0, -1 / 3, 0], [1, 1, 0]]))


@pytest.mark.parametrize(
    ("gap", "share"), [(0, 0), (0.05, 0.148885), (0.1, 0.291313), (0.3, 0.716298), (0.5, 0.905148)]
)
def test_share_oracles(gap, share):
    assert return_share(0.9, 0.9 - gap, 3.0) == pytest.approx(share, abs=1e-6)
    assert return_share(0.9 - gap, 0.9, 3.0) == pytest.approx(share, abs=1e-6)


def test_share_of_the_two_purities():
    share = return_share(0.75, 0.5, 3.0)
    assert share == pytest.approx(0.6351489524, abs=1e-9)
    assert share * -0.2 + (1 - share) * 0.5 == pytest.approx(0.0553957333, abs=1e-9)


def test_k_means_finds_separate_clusters():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = 10 * torch.nn.functional.one_hot(labels, 4).float() + torch.randn(60, 4, generator=generator)
    clusters = k_means(features, 3, seed=1)
    assert clusters.dtype == torch.int64
    assert purity(clusters, labels) == 1
    assert torch.equal(clusters, k_means(features, 3, seed=1))


def test_k_means_of_equal_samples_says_nothing():
    assert len(k_means(torch.zeros(8, 2), 3, seed=0)) == 8
