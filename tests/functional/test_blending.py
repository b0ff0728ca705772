import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise.functional.blending import blend_weights, overfitting_to_generalization

# (T0, V0, T1, V1) of two modalities and of the fused head
ROWS = torch.tensor([(2.0, 2.1, 0.5, 1.5), (2.0, 2.05, 1.6, 1.75), (2.0, 2.08, 0.2, 1.7)], dtype=torch.float64)


def test_oracle():
    overfitting, gain, ratio = overfitting_to_generalization(*ROWS.unbind(1))
    assert overfitting.tolist() == pytest.approx([0.9, 0.1, 1.42])
    assert gain.tolist() == pytest.approx([0.6, 0.3, 0.38])
    assert ratio.tolist() == pytest.approx([1.5, 0.3333, 3.7368], abs=1e-4)
    assert blend_weights(*ROWS.unbind(1)).tolist() == pytest.approx([0.023950, 0.969957, 0.006093], abs=1e-6)


def test_sums_over_batches_would_give_other_weights():
    t0, v0, t1, v1 = ROWS.unbind(1)
    wrong = blend_weights(200 * t0, 20 * v0, 200 * t1, 20 * v1)
    assert wrong.tolist() == pytest.approx([0.111155, 0.841825, 0.047019], abs=1e-6)
    assert not torch.allclose(wrong, blend_weights(t0, v0, t1, v1), atol=1e-2)


def test_end_values_would_give_other_weights():
    _, _, t1, v1 = ROWS.unbind(1)
    raw = v1 / (v1 - t1) ** 2
    assert (raw / raw.sum()).tolist() == pytest.approx([0.018742, 0.971817, 0.009441], abs=1e-6)


def reference(rows, eps=1e-6):
    raw = []
    for t0, v0, t1, v1 in rows:
        o, g = (v1 - t1) - (v0 - t0), v0 - v1
        raw.append(max(g, 0.0) / max(o * o, eps))
    total = sum(raw)
    return [r / total if total else 1 / len(raw) for r in raw]


losses = st.floats(0.01, 5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(losses, losses, losses, losses), min_size=2, max_size=5))
def test_against_the_reference(rows):
    got = blend_weights(*torch.tensor(rows, dtype=torch.float64).unbind(1))
    assert got.tolist() == pytest.approx(reference(rows), rel=1e-6, abs=1e-9)
    assert float(got.sum()) == pytest.approx(1.0)
    assert (got >= 0).all()


def test_invariants():
    w = blend_weights(*ROWS.unbind(1))
    torch.testing.assert_close(blend_weights(*(3.7 * ROWS).unbind(1)), w)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(blend_weights(*ROWS[order].unbind(1)), w[order])
    twins = blend_weights(*ROWS[[0, 0, 2]].unbind(1))
    assert float(twins[0]) == float(twins[1])


def test_sources_that_got_worse_weigh_nothing():
    worse = torch.tensor([(2.0, 2.0, 1.0, 2.5), (2.0, 2.1, 1.5, 1.8)], dtype=torch.float64)
    assert blend_weights(*worse.unbind(1)).tolist() == [0.0, 1.0]
    all_worse = torch.tensor([(2.0, 2.0, 1.0, 2.5), (2.0, 2.1, 1.5, 2.2)], dtype=torch.float64)
    assert blend_weights(*all_worse.unbind(1)).tolist() == [0.5, 0.5]


def test_nothing_moved_or_diverged():
    still = torch.ones(4, 3, dtype=torch.float64).unbind(0)
    assert blend_weights(*still).tolist() == pytest.approx([1 / 3] * 3)
    broken = ROWS.clone()
    broken[0, 3] = float("nan")
    w = blend_weights(*broken.unbind(1))
    assert w.isfinite().all()
    assert float(w[0]) == 0.0


def test_eps_must_be_positive():
    with pytest.raises(ValueError, match="eps"):
        blend_weights(*ROWS.unbind(1), eps=0.0)
