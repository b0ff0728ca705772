"""Names instead of objects, and any optimizer of PyTorch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from counterpoise.engine import SGD, AdamW, Cosine, TorchOptim, Trainer
from counterpoise.engine.torch_optim import optimizer_of, torch_names
from counterpoise.losses import Focal
from counterpoise.methods import OGM, Joint
from counterpoise.testing import assert_same, everything, resumes_exactly, tiny_model, trainer_for

TWO = ("first", "second")


class Halving(torch.optim.Optimizer):
    """Halves every weight that has a gradient."""

    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.mul_(0.5)


def test_names_stand_for_parts_with_their_defaults() -> None:
    by_name = Trainer(
        tiny_model(OGM(), TWO), "ogm", optimizer="adamw", schedule="Cosine", loss="focal", accelerator="cpu",
        progress=False,
    )  # fmt: skip
    assert type(by_name.method) is OGM
    assert isinstance(by_name.current.optimizer_settings, AdamW)
    assert isinstance(by_name.current.schedule, Cosine)
    assert isinstance(by_name.loss, Focal)


def test_a_name_trains_as_its_object_does() -> None:
    runs = []
    for method, optimizer in (("Joint", "sgd"), (Joint(), SGD())):
        trainer = Trainer(
            tiny_model(Joint(), TWO), method, epochs=2, batch_size=18, optimizer=optimizer, accelerator="cpu",
            progress=False,
        )  # fmt: skip
        data = trainer_for(Joint)[1]
        runs.append(everything(trainer.fit(data.train, data.val)))
    assert_same(*runs)


@pytest.mark.parametrize(
    "given",
    [
        "rmsprop",
        torch.optim.RMSprop,
        partial(torch.optim.RMSprop, lr=0.01, alpha=0.99),
        TorchOptim("RMSprop", options={"alpha": 0.99}),
    ],
)
def test_one_step_is_that_of_the_class(given) -> None:
    layers = [nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    settings = optimizer_of(given)
    assert settings.name.casefold() == "rmsprop"
    ours = settings.build([{"name": "all", "params": list(layers[0].parameters())}])
    theirs = torch.optim.RMSprop(layers[1].parameters(), lr=0.01)
    for layer, optimizer in zip(layers, (ours, theirs), strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            (layer(torch.ones(4, 3)) ** 2).sum().backward()
            optimizer.step()
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_the_learning_rate_is_the_class_s_own_unless_said() -> None:
    assert TorchOptim("Adagrad").lr == 0.01
    assert TorchOptim("Adadelta").lr == 1.0
    assert TorchOptim("Adagrad", lr=0).lr == 0
    assert TorchOptim("NAdam", 0.2).scale_free
    assert not TorchOptim("ASGD").scale_free


@pytest.mark.parametrize("name", ["RMSprop", "NAdam", "Adagrad"])
def test_stopped_and_resumed_it_ends_as_if_it_had_not_been(name, monkeypatch) -> None:
    monkeypatch.setattr("counterpoise.testing.SGD", lambda lr: TorchOptim(name, lr=0.01))
    resumes_exactly(Joint, TWO, None)


@pytest.mark.parametrize("name", list(torch_names()))
def test_every_class_of_torch_trains(name) -> None:
    trainer, data = trainer_for(Joint, epochs=1, optimizer=name)
    before = everything(trainer)["model.encoders.first.0.weight"]
    trainer.fit(data.train, data.val)
    assert not torch.equal(everything(trainer)["model.encoders.first.0.weight"], before)


def test_arguments_without_names_are_not_dropped() -> None:
    with pytest.raises(ValueError, match="optimizer must be of the class Optimizer"):
        trainer_for(Joint, optimizer=partial(torch.optim.SGD, 0.1))


def test_an_optimizer_from_elsewhere() -> None:
    settings = optimizer_of(Halving)
    assert settings.name == f"{__name__}.Halving"
    trainer, data = trainer_for(Joint, epochs=1, optimizer=Halving)
    before = everything(trainer)["model.encoders.first.0.weight"]
    trainer.fit(data.train, data.val)
    batches = len(data.train) // 18
    assert torch.equal(everything(trainer)["model.encoders.first.0.weight"], before * 0.5**batches)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TorchOptim("RMSprp"), "Unknown optimizer 'RMSprp'. Did you mean 'RMSprop'"),
        (lambda: TorchOptim("RMSprop", options={"alfa": 1}), "Unknown option of RMSprop 'alfa'. Did you mean 'alpha'"),
        (lambda: TorchOptim("RMSprop", options={"lr": 1}), "Unknown option of RMSprop 'lr'"),
        (lambda: TorchOptim("RMSprop", lr=-1), "lr must be a finite number >= 0; got -1"),
        (lambda: TorchOptim("torch.nn.Linear"), "must be a subclass of torch.optim.Optimizer"),
        (lambda: TorchOptim("no_such_package.X"), "cannot be imported: No module named 'no_such_package'"),
        (lambda: optimizer_of("sparseadam"), "SparseAdam cannot train here: it takes sparse gradients only"),
        (lambda: optimizer_of(torch.optim.LBFGS), "LBFGS cannot train here"),
        (lambda: optimizer_of("muon"), "Muon cannot train here: it takes matrices only"),
        (lambda: TorchOptim("torch.optim.Muon"), "Muon cannot train here: it takes matrices only"),
        (lambda: optimizer_of("rmspropp"), "Unknown optimizer 'rmspropp'. Did you mean 'RMSprop'"),
    ],
)
def test_what_is_no_optimizer(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
