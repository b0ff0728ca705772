import pytest
import torch
from torch import tensor

from counterpoise.functional.boosting import LOG_FLOOR, boost_loss, boosting_stages, consolidation_loss

P = tensor([[2.0, 1.0, 0.0]])
OTHERS = tensor([[0.0, 3.0, 0.0]])
Y = tensor([0])


def sample(batch=6, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=g, dtype=torch.float64)
    others = torch.randn(batch, classes, generator=g, dtype=torch.float64)
    return logits, others, torch.randint(classes, (batch,), generator=g)


def test_target_form_value_and_gradient():
    logits = P.clone().requires_grad_()
    loss = boost_loss(logits, OTHERS, Y, w1=5, w2=1)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(0.673191, abs=1e-6)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, tensor([[-0.5529, 0.4042, 0.1487]]), atol=1e-4, rtol=0)
    q = OTHERS.softmax(1)[0, 0]
    torch.testing.assert_close(logits.grad, (5 - q) / 3 * (P.softmax(1) - tensor([[1.0, 0.0, 0.0]])))


def test_both_forms_are_sums_over_the_classes():
    logits, others, y = sample()
    for w1, w2 in ((5.0, 1.0), (1.0, 0.25), (1.0, 0.0), (0.0, 1.0)):
        for i in range(len(y)):
            p, q = logits[i].softmax(0), others[i].softmax(0)
            weight = [w1 * float(k == y[i]) - w2 * q[k] for k in range(4)]
            residual = -sum(weight[k] * p[k].log() for k in range(4)) / 4
            row = logits[i : i + 1], others[i : i + 1], y[i : i + 1]
            target = -weight[y[i]] * p[y[i]].log() / 4
            torch.testing.assert_close(boost_loss(*row, w1=w1, w2=w2)[0], target)
            torch.testing.assert_close(boost_loss(*row, w1=w1, w2=w2, form="residual")[0], residual)


def test_residual_form_is_cross_entropy_less_divergence_less_entropy():
    logits, others, y = sample(seed=1)
    lam = 0.4
    q, log_p = others.softmax(1), logits.log_softmax(1)
    kl = (q * (q.log() - log_p)).sum(1)
    entropy = -(q * q.log()).sum(1)
    expected = -log_p[range(len(y)), y] - lam * kl - lam * entropy
    actual = 4 * boost_loss(logits, others, y, w1=1, w2=lam, form="residual")
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


def test_no_residual_weight_is_cross_entropy():
    logits, others, y = sample()
    ce = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    for form in ("target", "residual"):
        torch.testing.assert_close(boost_loss(logits, others, y, w1=3, w2=0, form=form), 3 / 4 * ce)


def test_what_the_ensemble_knows_is_pushed_less():
    norms = []
    for confidence in (-4.0, 0.0, 1.0, 5.0):
        logits = P.clone().requires_grad_()
        boost_loss(logits, tensor([[confidence, 0.0, 0.0]]), Y).sum().backward()
        norms.append(logits.grad.norm().item())
    assert norms == sorted(norms, reverse=True)
    assert len(set(norms)) == len(norms)


@pytest.mark.parametrize("form", ["target", "residual"])
def test_no_gradient_reaches_the_ensemble(form):
    others = OTHERS.clone().requires_grad_()
    logits = P.clone().requires_grad_()
    boost_loss(logits, others, Y, form=form).sum().backward()
    assert others.grad is None
    assert logits.grad.abs().sum() > 0


def test_bounds():
    y = tensor([0])
    others = tensor([[0.0, 2.0, 0.0]])
    unclamped, values = [], []
    for scale in (5.0, 10.0, 20.0, 40.0, 1e4):
        logits = tensor([[1.0, -1.0, -1.0]]) * scale
        values.append(boost_loss(logits, others, y, w1=1, w2=1, form="residual").item())
        unclamped.append((-(tensor([[1.0, 0.0, 0.0]]) - others.softmax(1)) * logits.log_softmax(1)).sum().item() / 3)
        assert boost_loss(logits, others, y, w1=1, w2=1).item() >= 0
    assert unclamped == sorted(unclamped, reverse=True)  # the exact form falls without end
    assert unclamped[-1] < -1e3
    assert min(values) >= LOG_FLOOR / 3
    assert values[-1] == values[-2]
    saturated = (tensor([[1.0, -1.0, -1.0]]) * 40).requires_grad_()
    boost_loss(saturated, others, y, w1=1, w2=1, form="residual").sum().backward()
    torch.testing.assert_close(saturated.grad, torch.zeros(1, 3), atol=1e-6, rtol=0)


def test_a_wrong_and_certain_learner_is_still_corrected():
    logits = tensor([[-60.0, 60.0, 0.0]]).requires_grad_()
    loss = boost_loss(logits, OTHERS, Y, form="residual").sum()
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0] < -1


def test_consolidation_pulls_to_the_predecessor_only():
    logits, previous, _ = sample()
    logits.requires_grad_()
    previous.requires_grad_()
    loss = consolidation_loss(logits, previous)
    p, r = logits.detach().softmax(1), previous.detach().softmax(1)
    expected = tensor([sum((p[i, k] - r[i, k]) ** 2 for k in range(4)) / 4 for i in range(len(p))])
    torch.testing.assert_close(loss.detach(), expected, check_dtype=False)
    loss.sum().backward()
    assert previous.grad is None
    assert logits.grad.abs().sum() > 0
    moved = logits.detach() - 0.1 * logits.grad
    assert (consolidation_loss(moved, previous) < loss).all()


def test_consolidation_of_equals_is_zero_with_zero_gradient():
    logits = P.clone().requires_grad_()
    loss = consolidation_loss(logits, P + 7)  # softmax does not see a shift
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.zeros(1))
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3))


def test_consolidation_is_at_most_two_over_classes():
    far = consolidation_loss(tensor([[1e4, 0.0, 0.0]]), tensor([[0.0, 1e4, 0.0]]))
    torch.testing.assert_close(far, tensor([2 / 3]))


@pytest.mark.parametrize(
    ("epochs", "modalities", "boost", "rectify", "expected"),
    [
        (16, 2, 4, 4, [(4, 4), (4, 4)]),
        (24, 3, 4, 4, [(4, 4)] * 3),
        (17, 2, 4, 4, [(4, 4), (4, 5)]),
        (100, 2, 4, 4, None),
        (8, 2, 4, 4, [(2, 2), (2, 2)]),
        (4, 2, 4, 4, [(1, 1), (1, 1)]),
        (2, 2, 4, 4, [(1, 0), (1, 0)]),
        (1, 3, 4, 4, [(1, 0)]),
        (6, 2, 3, 0, [(3, 0), (3, 0)]),
        (7, 2, 3, 0, [(3, 0), (4, 0)]),
    ],
)
def test_stages_use_up_the_budget(epochs, modalities, boost, rectify, expected):
    stages = boosting_stages(epochs, modalities, boost, rectify)
    assert sum(map(sum, stages)) == epochs
    assert all(stage.boost >= 1 and stage.rectify >= 0 for stage in stages)
    assert expected is None or stages == expected


def test_every_modality_gets_a_turn_and_no_stage_is_shortened_without_need():
    for modalities in (2, 3, 4):
        for epochs in range(1, 70):
            stages = boosting_stages(epochs, modalities, 4, 4)
            assert sum(map(sum, stages)) == epochs
            assert len(stages) >= min(modalities, epochs)
            if epochs >= 8 * modalities:
                assert {stage.boost for stage in stages} == {4}
                assert min(stage.rectify for stage in stages) >= 4
