import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.regulation import growth, lead, regulation, released_regulation
from example_e import UA, UT, UV, Y


def losses(*logits):
    return torch.stack([F.cross_entropy(u, Y) for u in logits])


def test_leads_and_strengths():
    assert lead(-losses(UA, UV)).tolist() == pytest.approx([0.7517123760, 0], abs=1e-9)
    a, v, t = losses(UA, UV, UT).tolist()
    assert a < t < v
    # the mean of the others for the first, as of all others; only those behind for the second
    assert lead(-losses(UA, UV, UT)).tolist() == pytest.approx([0.5570355096, 0, v - t], abs=1e-9)
    alpha = regulation(lead(-losses(UA, UV)), 0.9)
    assert alpha.tolist() == pytest.approx([math.exp(0.9 * math.tanh(0.7517123760)), 0], abs=1e-9)
    assert lead(torch.tensor([0.3, 0.3, 0.3])).tolist() == [0, 0, 0]
    assert regulation(torch.zeros(2), 0.9).tolist() == [0, 0]
    assert torch.equal(lead(-losses(UT, UV, UA)).flip(0), lead(-losses(UA, UV, UT)))


def test_oracle_of_the_released_strength():
    sums = torch.stack([u.softmax(1)[range(3), Y].sum() for u in (UA, UV)])
    assert (sums[0] - sums[1]).item() == pytest.approx(0.9025105751, abs=1e-9)
    assert released_regulation(sums).tolist() == pytest.approx([1.9468736342, 0], abs=1e-9)
    assert released_regulation(sums.flip(0)).tolist() == pytest.approx([0, 0.1 * math.exp(math.tanh(0.9025105751))])


def window(trace, epoch):
    """What the released form sees before an epoch: the last eleven of ten zeros and the traces so far."""
    return growth(torch.tensor([*[0.0] * 11, *trace[:epoch]], dtype=torch.float64)[-11:], 10).item()


def test_oracles_of_the_window():
    constant, falling = [1.0] * 15, [0.8**i for i in range(15)]
    assert [window(constant, e) for e in (1, 2, 5, 10, 11, 12)] == pytest.approx([1, 0.5, 0.2, 0.1, 0, 0])
    expected = [1, 0.4444444444, 0.1218467396, 0.0503985063, 0.0387562013, -0.25]
    assert [window(falling, e) for e in (1, 2, 5, 8, 9, 11)] == pytest.approx(expected, abs=1e-9)
    rising = torch.tensor([1, 1.6, 2, 2.05, 2.06], dtype=torch.float64)
    found = [growth(rising[:e], 1).item() for e in (2, 3, 4, 5)]
    assert found == pytest.approx([0.375, 0.2, 0.0243902439, 0.0048543689], abs=1e-9)
    assert growth(torch.zeros(3, 4), 1).tolist() == [0, 0, 0]
    assert growth(torch.tensor([[1.0, 2], [2, 1]]), 1).tolist() == [0.5, -1]
