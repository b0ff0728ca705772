import pytest
import torch

from counterpoise.functional.stopping import Patience, expired, observe


def run(values, beta, patience):
    """The epoch of the stop (None without one), the best epoch then, and the averages."""
    state, averages = Patience.start(1), []
    for epoch, value in enumerate(values):
        state = observe(state, torch.tensor([value]), epoch, beta)
        averages.append(float(state.smoothed))
        if expired(state, epoch, patience):
            return epoch, int(state.best_epoch), averages
    return None, int(state.best_epoch), averages


def test_stop_and_return_oracle():
    assert run((1.0, 0.5, 0.6, 0.7, 0.8), beta=0.0, patience=2)[:2] == (4, 1)


def test_moving_average_oracle():
    assert run((1.0, 0.8, 0.9, 0.95), beta=0.6, patience=9)[2] == pytest.approx([1, 0.92, 0.912, 0.9272], abs=1e-6)


def test_a_falling_loss_never_stops():
    assert run([1.0 / (e + 1) for e in range(30)], beta=0.6, patience=0)[0] is None


def reference(values, beta, patience):
    smoothed = []
    for v in values:
        smoothed.append(v if not smoothed else beta * smoothed[-1] + (1 - beta) * v)
        best = smoothed.index(min(smoothed))
        if len(smoothed) - 1 - best > patience:
            return len(smoothed) - 1, best, smoothed
    return None, smoothed.index(min(smoothed)), smoothed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_against_the_reference(seed, beta):
    values = (1 + 0.3 * torch.randn(25, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).tolist()
    state, stop = Patience.start(1), None
    for epoch, value in enumerate(values):
        state = observe(state, torch.tensor([value], dtype=torch.float64), epoch, beta)
        if expired(state, epoch, 4):
            stop = epoch
            break
    expected = reference(values, beta, 4)
    assert (stop, int(state.best_epoch)) == expected[:2]
    assert float(state.smoothed) == pytest.approx(expected[2][-1], rel=1e-12)


def test_learners_do_not_see_each_other():
    state = Patience.start(2)
    for epoch, (a, b) in enumerate([(1.0, 5.0), (0.5, 4.0), (0.6, 3.0), (0.7, 2.0)]):
        state = observe(state, torch.tensor([a, b]), epoch, 0.0)
    assert state.best_epoch.tolist() == [1, 3]
    assert expired(state, 3, 1).tolist() == [True, False]


def test_a_loss_that_is_no_number_is_no_improvement():
    state = observe(Patience.start(1), torch.tensor([float("nan")]), 0)
    assert int(state.best_epoch) == -1
    assert expired(state, 0, 0).tolist() == [True]
    state = observe(state, torch.tensor([2.0]), 1)
    assert (float(state.smoothed), int(state.best_epoch)) == (2.0, 1)
    state = observe(state, torch.tensor([float("inf")]), 2)
    assert (float(state.smoothed), float(state.best), int(state.best_epoch)) == (2.0, 2.0, 1)


def test_beta_must_be_below_one():
    with pytest.raises(ValueError, match="beta"):
        observe(Patience.start(1), torch.ones(1), 0, 1.0)
