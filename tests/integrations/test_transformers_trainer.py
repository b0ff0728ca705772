"""The methods in the Trainer of Transformers move the weights as ours does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from replayed import (
    EPOCHS,
    MOVED,
    RESUMED,
    SIZE,
    Samples,
    Trained,
    goes_on_exactly,
    method_named,
    moves_as_in_the_trainer,
    sgd,
    trained,
)
from torch.utils.data import Sampler

from counterpoise import methods
from counterpoise.integrations import BalancedModel, TransformersBalance
from counterpoise.integrations.host import OwnLoopError
from counterpoise.testing import tiny_model

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory"),
]


class InOrder(Sampler[int]):
    """In each epoch the samples that the Trainer had in it."""

    def __init__(self, count: int):
        self.count, self.epoch = count, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.epoch * self.count, (self.epoch + 1) * self.count))


class Trainer(transformers.Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return InOrder(len(self.train_dataset) // EPOCHS)


class Ends(transformers.TrainerCallback):
    """After an epoch, as a process that is stopped."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = round(state.epoch) >= self.epoch


def fitted(
    run: Trained, name: str, folder: Path, *, ends: int = EPOCHS, resume: Any = None, sam: float = 0.0, **options: Any
) -> Trainer:
    model = BalancedModel(method_named(name), run.model, sam=sam, train=run.data.train, val=run.data.val)
    optimizer = sgd(run.model)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    arguments: dict[str, Any] = {
        "output_dir": str(folder), "num_train_epochs": EPOCHS, "per_device_train_batch_size": SIZE,
        "max_grad_norm": 0.0,
        "remove_unused_columns": False, "report_to": "none", "use_cpu": True, "save_strategy": "no",
        "disable_tqdm": True, "logging_strategy": "no", **options,
    }  # fmt: skip
    seen = run.seen.batches
    trainer = Trainer(
        model=model, args=transformers.TrainingArguments(**arguments), train_dataset=Samples(seen, flat=True),
        eval_dataset=Samples(seen[:2], flat=True), optimizers=(optimizer, constant),
        callbacks=[TransformersBalance(), Ends(ends)],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("name", MOVED)
def test_the_same_weights_as_in_the_trainer(name: str, tmp_path: Path):
    moves_as_in_the_trainer(fitted, name, tmp_path)


def test_sam_and_clipping(tmp_path: Path):
    moves_as_in_the_trainer(fitted, "OGM", tmp_path, sam=0.05, ours={"clip_norm": 0.1}, max_grad_norm=0.1)


def test_bfloat16_is_that_of_the_trainer(tmp_path: Path):
    moves_as_in_the_trainer(fitted, "OGM", tmp_path, ours={"precision": "bf16-mixed"}, bf16=True)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_goes_on_exactly(name: str, tmp_path: Path):
    def stopped(run: Trained) -> Path:
        fitted(run, name, tmp_path, ends=2, save_strategy="epoch")
        (checkpoint,) = tmp_path.glob(f"checkpoint-{2 * len(run.seen.batches) // EPOCHS}")
        return checkpoint

    goes_on_exactly(fitted, name, tmp_path, stopped)


def test_it_evaluates_and_predicts(tmp_path: Path):
    run = trained("MMCosine")
    trainer = fitted(run, "MMCosine", tmp_path)
    found = trainer.predict(trainer.eval_dataset)
    assert found.predictions.shape == (2 * SIZE, 3)
    expected = torch.nn.functional.cross_entropy(torch.tensor(found.predictions), torch.tensor(found.label_ids))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"), [({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps must be 1")]
)
def test_trainers_that_would_train_something_else_are_refused(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        fitted(trained("OGM"), "OGM", tmp_path, **options)


def test_methods_that_own_their_loop_are_refused_at_once():
    with pytest.raises(OwnLoopError, match="MLA cannot train in a loop of somebody else"):
        BalancedModel("MLA", tiny_model(methods.Joint(), ("first", "second")))


def test_without_the_callback_it_says_so():
    run = trained("OGM")
    batch = run.seen.batches[0]
    with pytest.raises(ValueError, match="callbacks="):
        BalancedModel("OGM", run.model).train()(batch.target, **batch.inputs)
