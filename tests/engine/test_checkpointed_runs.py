"""Runs with encoders in ``Checkpointed`` end as those without, whatever the method, on one process and on two."""

import pytest
from test_replicas import on_two
from torch import nn

from counterpoise import methods
from counterpoise.encoders import Checkpointed
from counterpoise.engine import SGD, Trainer, make_fabric
from counterpoise.functional.statistics import lone_sample
from counterpoise.testing import assert_same, everything, task, tiny_model
from test_contract import CASES

TWO = ("first", "second")


def fitted(fabric, make, wrap, fusion=None, absent=0.3, batch_size=4, **options):
    method = make()
    model = tiny_model(method, TWO, fusion)
    for m, encoder in model.encoders.items():
        with_noise = nn.Sequential(*encoder, nn.Dropout(0.2))
        model.encoders[m] = Checkpointed(with_noise) if wrap else with_noise
    options = {"epochs": 3, "batch_size": batch_size, "optimizer": SGD(lr=0.01), "progress": False, **options}
    trainer = Trainer(model, method, fabric=fabric or make_fabric(accelerator="cpu"), **options)
    data = task(TWO, absent=absent)
    trainer.fit(data.train, data.val)
    plain = (".".join(part for part in name.split(".") if part != "encoder") for name in everything(trainer))
    return dict(zip(plain, everything(trainer).values(), strict=True))


RUNS = [
    pytest.param(name, options, id=f"{name}-{options}", marks=marks)
    for name in CASES
    for options, fast in (({}, ("MMPareto", "AGM", "IGM", "MLA", "LFM")), ({"sam": 0.05}, ("MMPareto", "AGM")))
    for marks in [() if name in fast else pytest.mark.slow]
    if not (options and name == "IGM")  # which has a radius of its own
]


@pytest.mark.parametrize(("name", "options"), RUNS)
def test_runs_end_bit_for_bit_alike(name, options):
    case = CASES[name]
    assert_same(*[fitted(None, case.make, wrap, case.fusions[0], **options) for wrap in (False, True)])


def test_samples_that_are_alone_are_among_them(monkeypatch):
    seen = []
    monkeypatch.setattr("counterpoise.model.lone_sample", lambda encoder: seen.append(1) or lone_sample(encoder))
    fitted(None, methods.Joint, True)
    assert seen


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize("make", [methods.MMPareto, methods.AGM, methods.IGM])
def test_two_processes(make):
    plain, checkpointed = (on_two(fitted, make, wrap) for wrap in (False, True))
    for without, within in zip(plain, checkpointed, strict=True):
        assert_same(without, within)


def test_compiled_encoders_are_refused():
    model = tiny_model(methods.Joint(), TWO)
    model.encoders["second"] = Checkpointed(model.encoders["second"])
    with pytest.raises(ValueError, match="the encoder of 'second' is in Checkpointed"):
        Trainer(model, "Joint", compile=True, accelerator="cpu", progress=False)


def test_bf16():
    fabric = make_fabric(accelerator="cpu", precision="bf16-mixed")
    assert_same(*[fitted(fabric, methods.Joint, wrap) for wrap in (False, True)])
