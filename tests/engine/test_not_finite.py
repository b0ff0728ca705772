"""A prediction that is NaN or infinite fails the run, and no file holds such a number as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoise import build_model
from counterpoise._json import to_json
from counterpoise.data import from_arrays
from counterpoise.engine import SGD, Adam, Observer, Predictions, Trainer
from counterpoise.methods import MSES, Joint
from counterpoise.testing import trainer_for

TWO = ("first", "second")


def strict(text: str) -> object:
    """What another reader of JSON makes of it."""

    def refuse(name: str) -> object:
        raise AssertionError(f"{name} in {text[:80]}")

    return json.loads(text, parse_constant=refuse)


class Breaks(Observer):
    """Writes a number into one parameter in the last batch of an epoch."""

    def __init__(self, parameter: str, value: float, epoch: int):
        self.parameter, self.value, self.epoch = parameter, value, epoch

    def on_batch_end(self, trainer: Trainer) -> None:
        if (trainer.epoch, trainer.state.batch_in_epoch) == (self.epoch, trainer.num_batches):
            with torch.no_grad():
                trainer.model.get_parameter(self.parameter)[:] = self.value


@pytest.mark.parametrize("optimizer", [SGD(lr=1e38), SGD(lr=1e30), Adam(lr=1e38)])
def test_weights_that_break_in_the_only_step(tmp_path: Path, optimizer: SGD | Adam) -> None:
    trainer, data = trainer_for(
        Joint, optimizer=optimizer, norm=False, epochs=1, batch_size=54, run_dir=tmp_path / "run"
    )
    assert trainer.batch_size == len(data.train)  # one step, so that no training loss is of broken weights
    with pytest.raises(FloatingPointError, match=r"weights of epoch 1, .*lower the learning rate \(lr=1e\+3"):
        trainer.run(data)
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("parameter", "value", "said"),
    [
        ("encoders.second.0.weight", math.nan, "fused"),
        ("encoders.first.3.bias", math.inf, "fused"),
        ("fusion.bias", -math.inf, "fused"),
        ("fusion.own_heads.second.bias", math.nan, "second"),
    ],
)
@pytest.mark.parametrize("epoch", [0, 2])
def test_weights_that_break_in_the_last_step_of_an_epoch(
    tmp_path: Path, parameter: str, value: float, said: str, epoch: int
) -> None:
    watch = Breaks(parameter, value, epoch)
    trainer, data = trainer_for(MSES, epochs=3, norm=False, run_dir=tmp_path / "run", observers=[watch])
    with pytest.raises(FloatingPointError, match=rf"weights of epoch {epoch + 1}, the {said} prediction of 18 of 18"):
        trainer.run(data)
    assert not (tmp_path / "run" / "result.json").exists()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len([strict(line) for line in lines]) == epoch  # a resumed run fails again instead of ending


@pytest.mark.parametrize("wild", [3e38, -3e38])
def test_a_test_sample_that_overflows_is_named(tmp_path: Path, wild: float) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randn(60, 4, generator=generator)
    split = ["train"] * 36 + ["val"] * 12 + ["test"] * 12
    x[55] = wild
    data = from_arrays({"a": x, "b": torch.randn(60, 4, generator=generator)}, y, split=split)
    encoders = {m: torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 5)) for m in ("a", "b")}
    with torch.no_grad():
        encoders["a"][0].weight.fill_(2.0)
    model = build_model(encoders, num_classes=3, example=data.train)
    trainer = Trainer(
        model, Joint(), epochs=2, batch_size=12, accelerator="cpu", progress=False, run_dir=tmp_path / "run"
    )
    name = data.test.ids[7]
    with pytest.raises(FloatingPointError, match=rf"fused prediction of 1 of 12 samples .*first is '{name}'"):
        trainer.run(data)
    assert not (tmp_path / "run" / "result.json").exists()
    with pytest.raises(FloatingPointError, match=f"'{name}'"):
        list(trainer.stream(data.test))
    fine = data.test.subset([i for i in range(12) if i != 7])
    assert all(map(math.isfinite, trainer.evaluate(fine).values()))


def test_what_predicts_from_nothing_may_be_anything() -> None:
    wrong = torch.full((4, 2), math.nan)
    right = torch.zeros(4, 2)
    there = torch.tensor([True, True, False, False])
    some = Predictions(right, {"a": torch.where(there[:, None], right, wrong)}, torch.zeros(4).long(), {"a": there})
    assert some.broken() == {}
    fused = some._replace(fused=some.unimodal["a"])
    assert fused.broken() == {}  # the last two have nothing at all
    assert fused._replace(present=None).broken().keys() == {"fused", "a"}
    late = fused._replace(unimodal={**some.unimodal, "b": right})
    assert late.broken()["fused"].tolist() == [2, 3]  # these have b


class Logs(Joint):
    """Logs something that is no number."""

    def __init__(self, value: float = math.nan):
        super().__init__()
        self.value = value

    def modulate(self, output, step) -> None:
        step.log(angle=self.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_a_method_logs_is_null_when_it_is_no_number(tmp_path: Path, value: float) -> None:
    trainer, data = trainer_for(lambda: Logs(value), epochs=2, run_dir=tmp_path / "run")
    trainer.run(data)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [strict(line)["train/angle"] for line in lines] == [None, None]
    strict((tmp_path / "run" / "result.json").read_text())


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (math.nan, None),
        ({"a": [1.5, -math.inf], "b": {"c": (math.inf,)}}, {"a": [1.5, None], "b": {"c": [None]}}),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), [[1.0, None], [2.0, 3.0]]),
        (["NaN", True, None, 3], ["NaN", True, None, 3]),
    ],
)
def test_json_without_numbers_that_are_none(value: object, kept: object) -> None:
    assert strict(to_json(value)) == kept
    assert strict(to_json(value, indent=2)) == kept
