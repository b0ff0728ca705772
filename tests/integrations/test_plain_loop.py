"""A loop of one's own around a method moves the weights as the Trainer does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from replayed import EPOCHS, FREE, LR, NAMES, OPTIONS, OWN, SIZE, Trained, distance, method_named, sgd, trained

import counterpoise as cp
from counterpoise import methods
from counterpoise.integrations import Balance
from counterpoise.integrations.host import OwnLoopError
from counterpoise.losses import CrossEntropy
from counterpoise.method import Method
from counterpoise.testing import task, tiny_model


def balanced(run: Trained, name: str, optimizer: Any = None, **options: Any) -> Balance:
    return cp.balance(
        method_named(name), run.model, epochs=EPOCHS, batches=len(run.seen.batches) // EPOCHS, optimizer=optimizer,
        train=run.data.train, val=run.data.val, **options,
    )  # fmt: skip


def replay(run: Trained, b: Balance, optimizer: Any, start: int = 0, stop: int | None = None) -> float:
    """The loop of a user over the same batches; the largest distance from the Trainer's weights after any of them."""
    worst = 0.0
    run.model.train()
    for batch, weights in list(zip(run.seen.batches, run.seen.weights, strict=True))[start:stop]:
        loss = b.loss(batch.inputs, batch.target, present=batch.present, index=batch.index, weight=batch.weight)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        worst = max(worst, distance(run.model, weights))
    return worst


@pytest.mark.parametrize("name", FREE)
def test_every_method_that_can_moves_as_in_the_trainer(name: str):
    run = trained(name, absent=0.3)
    optimizer = sgd(run.model)
    with balanced(run, name, optimizer) as b:
        assert replay(run, b, optimizer) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", FREE)
def test_so_it_does_on_complete_samples(name: str):
    run = trained(name)
    optimizer = sgd(run.model)
    with balanced(run, name, optimizer) as b:
        assert replay(run, b, optimizer) <= 1e-6


@pytest.mark.parametrize("name", ["Joint", "AGM", "MMPareto"])
def test_sam_climbs_in_the_loop_too(name: str):
    run, plain = trained(name, sam=0.05), trained(name)
    optimizer = sgd(run.model)
    with balanced(run, name, optimizer, sam=0.05) as b:
        assert replay(run, b, optimizer) <= 1e-6
    assert distance(run.model, plain.seen.weights[-1]) > 1e-3


@pytest.mark.parametrize("name", ["OGMGE", "MSLR", "PMR", "AMCo"])
@pytest.mark.parametrize("stop", [3, 4])  # inside an epoch, and at its end
def test_a_loop_that_is_resumed_goes_on_exactly(name: str, stop: int):
    run = trained(name)
    begun, resumed = (Trained(copy.deepcopy(run.model), run.data, run.seen) for _ in range(2))
    optimizer = sgd(begun.model)
    first = balanced(begun, name, optimizer)
    replay(begun, first, optimizer, 0, stop)
    resumed.model.load_state_dict(begun.model.state_dict())
    again = sgd(resumed.model)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    second = balanced(resumed, name, again)
    second.load_state_dict(first.state_dict())
    assert replay(resumed, second, again, stop) <= 1e-6
    replay(begun, first, optimizer, stop)
    for p, q in zip(begun.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_state_of_another_method_is_refused():
    run = trained("OGM")
    state = balanced(run, "OGM").state_dict()
    with pytest.raises(ValueError, match=r"another training: .*OGM"):
        balanced(run, "AGM").load_state_dict(state)


@pytest.mark.parametrize("name", OWN)
def test_methods_that_own_their_loop_are_refused_with_the_reason(name: str):
    method = getattr(methods, name)()
    reason = method.must_own_loop()
    assert reason
    with pytest.raises(OwnLoopError, match=f"{name} cannot train in a loop of somebody else: {reason}"):
        cp.balance(method, tiny_model(methods.Joint(), NAMES), epochs=1, batches=1)


@pytest.mark.parametrize("method", [methods.GBlending(), methods.UMT(), methods.LFM("learned"), methods.DOMFN()])
def test_so_are_the_options_that_need_it(method: Method):
    assert method.must_own_loop()


def test_who_can_and_who_cannot():
    assert {"OGM", "OGMGE", "OPM", "AGM", "PMR", "MMCosine", "LFM", "MMPareto", "MSLR", "GBlending"} <= set(FREE)
    assert {"ModalityDropout", "TCMax", "DGL", "CML", "MBSD", "AMCo", *OPTIONS} <= set(FREE)
    assert {"IGM", "MLA", "ReconBoost", "G2D", "SMV", "MSES"} <= set(OWN)


class _Resamples(Method):
    info = methods.Joint.info

    def on_epoch_start(self, run: Any) -> None:
        run.resample(torch.arange(4))


class _UpdatesTwice(Method):
    info = methods.Joint.info

    def step(self, step: Any) -> Any:
        loss = super().step(step)
        step.update()
        return loss


@pytest.mark.parametrize(
    ("method", "what"), [(_Resamples, "chooses the samples of an epoch"), (_UpdatesTwice, "updates more than once")]
)
def test_what_a_loop_cannot_give_is_refused_when_a_method_asks_for_it(method: type[Method], what: str):
    model, data = tiny_model(method(), NAMES), task(NAMES)
    b = cp.balance(method(), model, epochs=1, batches=3)
    with pytest.raises(OwnLoopError, match=f"{method.__name__} {what}"):
        b.loss(_inputs(data, 4), data.train.target[:4])


def _inputs(data: Any, count: int) -> dict[str, torch.Tensor]:
    return {m: data.train.batch(range(count), m, None) for m in data.modalities}


def test_gradients_that_were_there_are_added_to():
    run = trained("OGM")
    b = balanced(run, "OGM")
    batch = run.seen.batches[0]
    for p in run.model.parameters():
        p.grad = torch.ones_like(p)
    loss = b.loss(batch.inputs, batch.target, index=batch.index)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in run.model.parameters() if p.grad is not None)
    (2 * loss).backward()
    doubled = [p.grad - 1 for p in run.model.parameters() if p.grad is not None]
    run.model.zero_grad()
    copied = Trained(trained("OGM").model, run.data, run.seen)
    other = balanced(copied, "OGM")
    copied.model.train()
    other.loss(batch.inputs, batch.target, index=batch.index).backward()
    for twice, p in zip(doubled, copied.model.parameters(), strict=True):
        assert p.grad is not None
        torch.testing.assert_close(twice, 2 * p.grad, atol=1e-6, rtol=1e-5)


def test_bfloat16_is_that_of_the_trainer():
    run = trained("AGM", precision="bf16-mixed", sam=0.05)
    optimizer = sgd(run.model)
    with torch.autocast("cpu", torch.bfloat16), balanced(run, "AGM", optimizer, sam=0.05) as b:
        assert replay(run, b, optimizer) <= 1e-6


@pytest.mark.parametrize(("name", "sam"), [("MMPareto", 0.0), ("OGM", 0.05)])
def test_a_method_sees_unscaled_gradients_in_half_precision(name: str, sam: float):
    run = trained(name, norm=False, sam=sam)
    optimizer, scaler = sgd(run.model), torch.amp.GradScaler("cpu", init_scale=2.0**12)
    batch = run.seen.batches[0]
    with balanced(run, name, optimizer, scaler=scaler, sam=sam) as b:
        with torch.autocast("cpu", torch.float16):
            loss = b.loss(batch.inputs, batch.target, index=batch.index)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
    assert 0 < distance(run.model, run.seen.weights[0]) < 1e-3
    with torch.autocast("cpu", torch.float16), pytest.raises(ValueError, match="gradient scaler"):
        balanced(run, name).loss(batch.inputs, batch.target)


def test_learning_rates_of_modalities_need_an_optimizer_by_modality():
    run, batch = trained("MSLR"), trained("MSLR").seen.batches[0]
    with pytest.raises(ValueError, match=r"pass optimizer=.*parameter_groups"):
        balanced(run, "MSLR").loss(batch.inputs, batch.target)
    mixed = torch.optim.SGD(run.model.parameters(), lr=LR)
    with pytest.raises(ValueError, match="group 0 holds parameters of several modalities"):
        balanced(run, "MSLR", mixed).loss(batch.inputs, batch.target)


def test_the_schedule_of_the_loop_is_left_alone():
    run, batch = trained("MSLR"), trained("MSLR").seen.batches[0]
    optimizer = sgd(run.model)
    with balanced(run, "MSLR", optimizer) as b:
        b.loss(batch.inputs, batch.target).backward()
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == [LR] * len(optimizer.param_groups)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batches": 0}, "batches"),
        ({"sam": -1.0}, "sam"),
        ({"method": "PMR"}, r"PMR looks at the training samples between epochs: pass train="),
        ({"method": methods.MSLR()}, r"MSLR looks at scores on validation samples .* pass val="),
        ({"loss": CrossEntropy("balanced")}, "pass train="),
        ({"method": "Jiont"}, "Did you mean 'Joint'"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(options: dict[str, Any], message: str):
    arguments: dict[str, Any] = {"method": "Joint", "epochs": 1, "batches": 2, **options}
    with pytest.raises((ValueError, TypeError), match=message):
        cp.balance(model=tiny_model(methods.Joint(), NAMES), **arguments)


def test_inputs_that_do_not_fit_are_refused():
    data, b = task(NAMES), cp.balance("Joint", tiny_model(methods.Joint(), NAMES), epochs=1, batches=1)
    inputs, target = _inputs(data, SIZE), data.train.target[:SIZE]
    with pytest.raises(ValueError, match="Did you mean 'first'"):
        b.loss({"frist": inputs["first"]}, target)
    with pytest.raises(ValueError, match="modality 'third' is missing"):
        b.loss({"first": inputs["first"], "second": inputs["second"]}, target)
    with pytest.raises(ValueError, match="first must have one row per target: 4 targets, 18 rows"):
        b.loss(inputs, target[:4])
    with torch.no_grad(), pytest.raises(ValueError, match="predict"):
        b.loss(inputs, target)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        b.loss(inputs, target + 5)
    b.loss(inputs, target)
    with pytest.raises(ValueError, match="The 1 epochs of 1 batches are over"):
        b.loss(inputs, target)


def test_it_predicts_as_the_method_does():
    run = trained("MMCosine")
    b = balanced(run, "MMCosine")
    inputs = _inputs(run.data, 5)
    output = b.predict(inputs)
    with torch.no_grad():
        expected = b.method.predict(run.model.eval()(inputs), run.model)
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(torch.stack(list(output.unimodal.values())).sum(0), expected)


def test_what_a_method_notes_can_be_read():
    run = trained("OGM")
    optimizer = sgd(run.model)
    b = balanced(run, "OGM", optimizer)
    replay(run, b, optimizer, 0, 2)
    assert set(b.logged) == {f"{m}/coefficient" for m in NAMES}
    assert all(0 < value <= 1 for value in b.logged.values())


def test_adam_and_scaled_gradients_warn():
    model = tiny_model(methods.OGM(), NAMES)
    with pytest.warns(UserWarning, match="OGM scales gradients, and AdamW divides"):
        cp.balance("OGM", model, epochs=1, batches=1, optimizer=torch.optim.AdamW(model.parameters()))
