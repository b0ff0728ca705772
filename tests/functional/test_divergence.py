import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.divergence import divergence, fusion_gate, gated_losses

Q = torch.tensor([[[0.9, 0.2, 0.1]], [[0.3, 0.6, 0.2]]])  # (modalities, batch=1, classes)


def test_oracle():
    d = divergence(Q, Q[0])
    assert d.flatten().tolist() == pytest.approx([0.09, 0.09], abs=1e-6)
    assert fusion_gate(d, 0.8 * 0.5).tolist() == [True]
    assert fusion_gate(d, 0.8 * 0.2).tolist() == [True]
    assert fusion_gate(d, 0.089).tolist() == [False]
    own = torch.stack([F.cross_entropy(q, torch.tensor([0]), reduction="none") for q in Q])
    assert own.flatten().tolist() == pytest.approx([0.665732, 1.180099], abs=1e-6)
    penalised = gated_losses(own[:1], torch.zeros(1), d[:1], torch.tensor([False]), 0.5, "penalised")
    assert float(penalised) == pytest.approx(0.176600, abs=1e-6)
    penalised = gated_losses(own[1:], torch.zeros(1), d[1:], torch.tensor([False]), 0.5, "penalised")
    assert float(penalised) == pytest.approx(0.651317, abs=1e-6)


def test_fused_reference():
    d = divergence(Q, torch.tensor([[0.9, 0.1, 0.0]]), "fused")
    assert d.flatten().tolist() == pytest.approx([0.01, 0.36], abs=1e-6)


def reference(logits, fused, target, threshold, eta, kind, closed):
    """One sample after the other, in plain Python floats."""
    total, count = 0.0, logits.shape[0]
    for i, y in enumerate(target.tolist()):
        q = logits[:, i].double().softmax(-1)
        r = q.mean(0) if kind == "mean" else fused[i].double().softmax(-1)
        d = [max(float((q[m, c] - r[c]) ** 2) for c in range(q.shape[1])) for m in range(count)]
        own = [-math.log(float(q[m, y])) for m in range(count)]
        plain, penalised = sum(own), sum(0.5 * v * v - eta * e for v, e in zip(own, d, strict=True))
        if all(e < threshold for e in d):
            total += penalised + plain - float(fused[i].double().log_softmax(-1)[y])
        else:
            total += plain if closed == "ce" else penalised
    return total / len(target)


@pytest.mark.parametrize("kind", ["mean", "fused"])
@pytest.mark.parametrize("closed", ["ce", "penalised"])
@pytest.mark.parametrize("count", [2, 3])
def test_against_the_reference(kind, closed, count):
    generator = torch.Generator().manual_seed(count)
    logits = 1.5 * torch.randn(count, 12, 4, generator=generator, dtype=torch.float64)
    fused = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(4, (12,), generator=generator)
    d = divergence(logits.softmax(-1), fused.softmax(-1), kind)
    threshold = float(d.amax(0).sort().values[5:7].mean())  # half of the gates open
    gate = fusion_gate(d, threshold)
    assert gate.any()
    assert not gate.all()
    own = torch.stack([F.cross_entropy(u, target, reduction="none") for u in logits])
    got = gated_losses(own, F.cross_entropy(fused, target, reduction="none"), d, gate, 0.5, closed).mean()
    assert float(got) == pytest.approx(reference(logits, fused, target, threshold, 0.5, kind, closed), rel=1e-10)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_bound_with_the_mean_as_reference(count):
    certain = torch.zeros(count, 1, 5)
    certain[0, 0, 1] = 1.0
    certain[1:, 0, 2] = 1.0
    assert float(divergence(certain, certain[0]).max()) == pytest.approx(((count - 1) / count) ** 2)
    generator = torch.Generator().manual_seed(0)
    scores = (8 * torch.randn(count, 200, 5, generator=generator)).softmax(-1)
    d = divergence(scores, scores[0])
    assert float(d.max()) <= ((count - 1) / count) ** 2 + 1e-6
    assert float(d.min()) >= 0


def test_invariants():
    same = Q[:1].expand(3, 1, 3)
    assert divergence(same, Q[0]).abs().max() < 1e-12
    generator = torch.Generator().manual_seed(1)
    pair = torch.randn(2, 20, 4, generator=generator).softmax(-1)
    d = divergence(pair, pair[0])
    torch.testing.assert_close(d[0], d[1])  # two modalities are equally far from their mean
    own, fused = torch.rand(2, 20, generator=generator), torch.rand(20, generator=generator)
    open_all = gated_losses(own, fused, d, torch.ones(20, dtype=torch.bool), eta=0.0)
    torch.testing.assert_close(open_all, (own.square() / 2 + own).sum(0) + fused)


def test_absent_modalities_are_left_out():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(3, 6, 4, generator=generator).softmax(-1)
    present = torch.ones(3, 6, dtype=torch.bool)
    present[2, 3:] = False
    present[1, 5] = False
    d = divergence(scores, scores[0], "mean", present)
    torch.testing.assert_close(d[:, :3], divergence(scores[:, :3], scores[0, :3]))
    torch.testing.assert_close(d[:2, 3:5], divergence(scores[:2, 3:5], scores[0, 3:5]))
    assert d[:, 5].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    nobody = divergence(scores, scores[0], "mean", torch.zeros(3, 6, dtype=torch.bool))
    assert torch.equal(nobody, torch.zeros(3, 6))


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="reference"):
        divergence(Q, Q[0], "median")
    with pytest.raises(ValueError, match="closed_gate"):
        gated_losses(torch.ones(2, 1), torch.ones(1), torch.ones(2, 1), torch.ones(1).bool(), closed="nothing")
