import copy
import math

import pytest
import torch

from counterpoise.engine import SGD, Adam, AdamW, Constant, Cosine, Milestones, Plateau, StepDecay
from counterpoise.engine.optim import fused, parameter_groups, restore, update
from counterpoise.methods import Joint
from counterpoise.testing import assert_same, everything, tiny_model, trainer_for


@pytest.mark.parametrize("epoch", [0, 0.5, 3, 10, 99])
def test_constant_is_constant(epoch):
    assert Constant().factor(epoch, 10) == 1


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (1.99, 1), (2, 0.1), (3.5, 0.1), (4, 0.01), (7, 0.001)])
def test_step_decay(epoch, factor):
    assert StepDecay(every=2, gamma=0.1).factor(epoch, 8) == pytest.approx(factor)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (2, (1 + math.cos(math.pi / 4)) / 2), (4, 0.5), (8, 0), (9, 0)])
def test_cosine(epoch, factor):
    assert Cosine().factor(epoch, 8) == pytest.approx(factor)
    assert Cosine(floor=0.2).factor(epoch, 8) == pytest.approx(0.2 + 0.8 * factor)


@pytest.mark.parametrize(("epoch", "ramp"), [(0, 0), (0.25, 0.1), (1.25, 0.5), (2.5, 1), (6, 1)])
def test_warm_up_is_linear_in_fractions_of_epochs_and_multiplies(epoch, ramp):
    assert Constant(warmup=2.5).factor(epoch, 8) == pytest.approx(ramp)
    assert Cosine(warmup=2.5).factor(epoch, 8) == pytest.approx(ramp * Cosine().factor(epoch, 8))
    assert StepDecay(every=1, warmup=2.5).factor(epoch, 8) == pytest.approx(ramp * StepDecay(every=1).factor(epoch, 8))


def scales(schedule, scores):
    found = []
    for score in scores:
        schedule.observe(score)
        found.append(schedule.factor(0, 1))
    return found


def test_plateau_waits_and_starts_counting_again():
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert scales(Plateau(patience=2, gamma=0.5), [0.3, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.9]) == expected
    assert scales(Plateau(patience=0, gamma=0.5), [0.3, 0.4, 0.4]) == [1, 1, 0.5]


def test_plateau_counts_a_score_that_is_no_number_as_bad():
    assert scales(Plateau(patience=1, gamma=0.5), [math.nan, math.nan, 0.1, math.nan]) == [1, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("cut", range(8))
def test_plateau_goes_on_where_it_was(cut):
    scores = [0.3, 0.3, 0.2, 0.1, 0.4, 0.1, 0.1, 0.1]
    first, second = Plateau(patience=1, gamma=0.5), Plateau(patience=1, gamma=0.5)
    whole = scales(Plateau(patience=1, gamma=0.5), scores)
    start = scales(first, scores[:cut])
    second.load_state_dict(first.state_dict())
    assert start + scales(second, scores[cut:]) == whole
    second.reset()
    assert second.state_dict() == Plateau().state_dict()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: SGD(lr=-1), "lr"),
        (lambda: SGD(momentum=1), "momentum"),
        (lambda: SGD(weight_decay=-1), "weight_decay"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: AdamW(lr=math.nan), "lr"),
        (lambda: StepDecay(every=0), "every"),
        (lambda: StepDecay(gamma=0), "gamma"),
        (lambda: Cosine(floor=1.5), "floor"),
        (lambda: Plateau(patience=-1), "patience"),
        (lambda: Constant(warmup=-1), "warmup"),
    ],
)
def test_settings_out_of_range_are_named(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_zero_is_a_learning_rate():
    trainer, data = trainer_for(Joint, optimizer=SGD(lr=0.0), norm=False, epochs=2)
    before = everything(trainer)
    trainer.fit(data.train, data.val)
    assert_same(before, everything(trainer))


@pytest.mark.parametrize("fusion", ["Concat", "Late", "Shared", "Attention"])
def test_every_parameter_is_in_one_group_named_after_its_owner(fusion):
    model = tiny_model(Joint(), ("first", "second", "third"), fusion)
    method = Joint()
    method.extra = torch.nn.Parameter(torch.zeros(2))
    frozen = model.encoders["second"][0].weight.requires_grad_(False)
    groups = parameter_groups(model, method, {id(p) for p in model.parameters() if p.requires_grad})
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in [*model.parameters(), method.extra]} - {id(frozen)}
    by_name = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert set(by_name) == {"first", "second", "third", "shared"}
    assert id(method.extra) in by_name["shared"]
    for m in model.modalities:
        assert by_name[m] == {id(p) for p in model.parameters_of(m)} - {id(frozen)}


def test_the_rate_follows_the_schedule_within_epochs():
    rates = []

    class Watch(Joint):
        def step(self, step):
            rates.append(step._run.optimizer.param_groups[0]["lr"])
            return super().step(step)

    trainer, data = trainer_for(Watch, optimizer=SGD(lr=0.5), schedule=Cosine(warmup=1.5), epochs=3)
    trainer.fit(data.train, data.val)
    n = trainer.current.num_batches
    expected = [0.5 * Cosine(warmup=1.5).factor(e + i / n, 3) for e in range(3) for i in range(n)]
    assert rates == pytest.approx(expected)
    assert trainer.history[1]["lr"] == pytest.approx(0.5 * Cosine(warmup=1.5).factor(2, 3))


def test_milestones_hold_from_their_epoch_on():
    schedule = Milestones({39: 0.1, 0: 0.5, 1: 1.0})
    assert [schedule.factor(e, 50) for e in (0, 0.99, 1, 38.9, 39, 45.5)] == [0.5, 0.5, 1.0, 1.0, 0.1, 0.1]
    assert Milestones({2: 0.1}).factor(1.5, 9) == 1.0
    assert Milestones({2: 0.1}, warmup=4).factor(3, 9) == pytest.approx(0.075)
    with pytest.raises(ValueError, match="factors must name an epoch"):
        Milestones({})
    with pytest.raises(ValueError, match="factors"):
        Milestones({-1: 0.1})


CONV = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def conv_parameter(layout=torch.channels_last):
    return torch.nn.Parameter(CONV.clone(memory_format=layout))


def grouped(*parameters):
    return [{"name": "shared", "factor": 1.0, "params": list(parameters)}]


@pytest.mark.parametrize("settings", [SGD(lr=0.1), Adam(lr=0.1), AdamW(lr=0.1)], ids=["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("restored", [False, True])
def test_gradients_and_states_of_another_layout_move_the_right_weights(settings, restored):
    grads = [torch.randn(CONV.shape, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]
    results = []
    for layout in (torch.channels_last, torch.contiguous_format):
        p = conv_parameter(layout)
        optimizer = settings.build(grouped(p))
        assert all(group["fused"] for group in optimizer.param_groups)
        for grad in grads:
            p.grad = grad.clone()
            update(optimizer)
            if restored:
                other = settings.build(grouped(conv_parameter(torch.contiguous_format)))
                restore(other, optimizer.state_dict())
                restore(optimizer, other.state_dict())
                assert all(group["fused"] for group in optimizer.param_groups)
        results.append(p.detach())
    assert results[0].stride() != results[1].stride()
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-7)


def test_a_parameter_with_gaps_in_its_storage_is_left_to_torch():
    wide = torch.randn(5, 8)
    assert fused(grouped(torch.nn.Parameter(wide)))
    assert fused(grouped(torch.nn.Parameter(wide.t())))
    assert fused(grouped(conv_parameter(), torch.nn.Parameter(torch.tensor(1.0))))
    assert fused(grouped(torch.nn.Parameter(wide[:, :4]))) is None
    assert fused(grouped(torch.nn.Parameter(torch.randn(3, dtype=torch.complex64)))) is None


def test_a_graph_from_before_an_update_cannot_be_differentiated():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    update(SGD().build(grouped(p)))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("rates", [None, (0.1, 0.1, 0.1), (0.1, 0.2, 0.1)])
@pytest.mark.parametrize("settings", [SGD(lr=0.1), SGD(lr=0.1, nesterov=True), SGD(lr=0.1, momentum=0.0), Adam(lr=0.1)])
def test_a_weight_may_meet_its_first_gradient_later_than_others(settings, rates):
    """In one group, or in groups of their own, which one call of the kernel takes together where the rates are one."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(3, generator=generator) for _ in range(3)]
    ours, theirs = ([torch.nn.Parameter(s.clone()) for s in starts] for _ in range(2))
    groups = grouped(*ours) if rates is None else [group for p in ours for group in grouped(p)]
    optimizer = settings.build(groups)
    plain = [settings.build(grouped(p)) for p in theirs]  # each alone
    for group, alone, rate in zip(optimizer.param_groups, plain, rates or (), strict=False):
        group["lr"] = alone.param_groups[0]["lr"] = rate
    assert all(group["fused"] for group in optimizer.param_groups)
    for meeting in ({0}, {0, 1}, {1}, {0, 1, 2}, {0, 2}):
        for i in meeting:
            ours[i].grad = torch.randn(3, generator=generator)
            theirs[i].grad = ours[i].grad.clone()
            plain[i].step()
            plain[i].zero_grad()
        update(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert len(optimizer.param_groups) == len(groups)
    assert all(p.grad is None for p in ours)


def test_a_modality_that_only_one_sample_has():
    """Its encoder meets no gradient in most batches, and in one of them a single sample."""
    trainer, data = trainer_for(Joint, epochs=2)
    train = copy.copy(data.train)
    train.present = {"second": torch.arange(len(train)) == 3}
    before = everything(trainer)
    trainer.fit(train, data.val)
    after = everything(trainer)
    assert all(v.isfinite().all() for v in after.values() if v.is_floating_point())
    assert not torch.equal(after["model.encoders.second.0.weight"], before["model.encoders.second.0.weight"])
    assert after["model.encoders.second.1.num_batches_tracked"] == 0
