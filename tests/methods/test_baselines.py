from __future__ import annotations

import pytest
import torch
from one_step import fit_to_the_last
from torch.nn import functional as F

from counterpoise.data.arrays import from_arrays
from counterpoise.engine import SGD, Observer
from counterpoise.fusions import Concat
from counterpoise.methods.joint import Joint
from counterpoise.methods.unimodal import Unimodal
from counterpoise.testing import NAMES, accepts_absent, check_method, resumes_exactly, tiny_model, trainer_for


class Batches(Observer):
    """What every step of the method saw."""

    def __init__(self, method):
        self.seen, inner = [], method.step

        def step(step):
            self.seen.append(step.batch)
            return inner(step)

        method.step = step


def run(method, modalities=2, fusion=None, **options):
    batches = Batches(method)
    trainer, data = trainer_for(lambda: method, NAMES[:modalities], fusion, norm=False, **options)
    start = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    fit_to_the_last(trainer, data)
    return trainer, start, batches.seen


def test_joint_computes_no_logits_that_it_does_not_use(monkeypatch):
    split, training = Concat.split, []

    def noted(fusion, *args):
        training.append(fusion.training)
        return split(fusion, *args)

    monkeypatch.setattr(Concat, "split", noted)
    trainer, data = trainer_for(Joint, epochs=1)
    trainer.fit(data.train, data.val)
    assert training  # validation scores each modality
    assert not any(training)


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_joint_is_the_loop_everyone_writes(modalities):
    method, options = Joint(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    trainer, start, batches = run(method, modalities, optimizer=SGD(**options))
    model = tiny_model(method, NAMES[:modalities], norm=False)
    model.load_state_dict(start)
    optimizer = torch.optim.SGD(model.parameters(), **options)
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.inputs).logits, batch.target).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fusion", ["Late", "Concat", "Sum"])
def test_unimodal_reads_trains_and_scores_one_branch(fusion):
    trainer, start, batches = run(Unimodal("second"), 3, fusion)
    assert all(set(batch.inputs) == {"second"} for batch in batches)
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, start[k])}
    own = {id(p) for p in trainer.model.parameters_of("second")}
    own |= {id(p) for p in trainer.model.shared_parameters()}
    assert changed == {name for name, p in trainer.model.named_parameters() if id(p) in own}
    _, data = trainer_for(Joint, NAMES[:3])
    scores = trainer.evaluate(data.test)
    assert not any(name.startswith(("first", "third")) for name in scores)
    assert scores["fused/accuracy"] == scores["second/accuracy"]


def test_unimodal_evaluates_without_the_other_modalities_data():
    trainer, _, _ = run(Unimodal("second"), 2)
    other = from_arrays({"second": torch.randn(30, 6)}, torch.arange(30) % 3)
    assert 0 <= trainer.evaluate(other.test)["fused/accuracy"] <= 1


def test_unimodal_leaves_out_samples_that_lack_it():
    x = torch.randn(24, 6)
    masks = {"first": torch.arange(24) % 2 == 0}
    data = from_arrays(
        {"first": x, "second": x}, torch.arange(24) % 3, split=["train"] * 20 + ["val"] * 4, present=masks
    )
    method = Unimodal("first")
    batches = Batches(method).seen
    trainer, _ = trainer_for(
        lambda: method, fusion="Late", norm=False, batch_size=20, epochs=1, optimizer=SGD(0.1, 0, 0)
    )
    model = tiny_model(method, NAMES[:2], "Late", norm=False)
    fit_to_the_last(trainer, data)
    (batch,) = batches
    rows = batch.present["first"]
    F.cross_entropy(
        model.head_of("first")(model.encoders["first"](batch.inputs["first"][rows])), batch.target[rows]
    ).backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(trainer.model.state_dict()[name], (p - 0.1 * p.grad).detach(), rtol=0, atol=1e-6)


def test_unimodal_names_the_known_modalities():
    with pytest.raises(ValueError, match=r"Unknown modality 'secnd'. Did you mean 'second'\? Known: first, second"):
        run(Unimodal("secnd"))


@pytest.mark.parametrize("make", [Joint, lambda: Unimodal("first")], ids=["joint", "unimodal"])
@pytest.mark.parametrize("modalities", [1, 3])
def test_resume_and_absent_samples(make, modalities):
    check_method(make, modalities=modalities, checks=[resumes_exactly, accepts_absent])


def test_unimodal_of_a_fusion_with_no_heads_uses_the_fusion_alone():
    trainer, start, _ = run(Unimodal("first"), 2, "Gated")
    changed = {k for k, v in trainer.model.state_dict().items() if not torch.equal(v, start[k])}
    assert any(k.startswith("encoders.first") for k in changed)
    assert not any(k.startswith("encoders.second") for k in changed)
