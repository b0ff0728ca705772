"""The methods in Lightning's Trainer move the weights as ours does."""

from __future__ import annotations

import pickle
import subprocess
import sys
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
    distance,
    goes_on_exactly,
    method_named,
    moves_as_in_the_trainer,
    saved,
    sgd,
    trained,
)
from torch.utils.data import DataLoader, Subset

from counterpoise.integrations import LightningBalance
from counterpoise.integrations.host import OwnLoopError
from counterpoise.model import MultimodalModel

L = pytest.importorskip("lightning.pytorch")
QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "use_distributed_sampler": False,
    "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*val_dataloader"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
]


class Module(L.LightningModule):
    def __init__(self, model: MultimodalModel, callback: Any):
        super().__init__()
        self.model, self.callback = model, callback

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        inputs, target, index = batch
        return self.callback.loss(inputs, target, index=index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return sgd(self.model)


class InOrder(L.LightningDataModule):
    """In each epoch the batches that the Trainer had in it."""

    def __init__(self, run: Trained):
        super().__init__()
        self.batches = run.seen.batches

    def train_dataloader(self) -> DataLoader[Any]:
        count = len(self.batches) // EPOCHS
        epoch = self.trainer.current_epoch if self.trainer else 0
        samples = Samples(self.batches[epoch * count : (epoch + 1) * count])
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        return DataLoader(Subset(samples, range(rank, len(samples), world)), batch_size=SIZE // world)


def fitted(run: Trained, name: str, folder: Path, *, sam: float = 0.0, resume: Any = None, **options: Any) -> Any:
    callback = LightningBalance(method_named(name), epochs=EPOCHS, train=run.data.train, val=run.data.val, sam=sam)
    module = Module(run.model, callback)
    trainer = L.Trainer(
        callbacks=[callback, *options.pop("callbacks", [])], default_root_dir=folder,
        reload_dataloaders_every_n_epochs=1,
        **{**QUIET, "max_epochs": EPOCHS, "enable_checkpointing": False, **options},
    )  # fmt: skip
    trainer.fit(module, datamodule=InOrder(run), ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("name", MOVED)
def test_the_same_weights_as_in_the_trainer(name: str, tmp_path: Path):
    moves_as_in_the_trainer(fitted, name, tmp_path)


def test_sam_and_clipping(tmp_path: Path):
    moves_as_in_the_trainer(fitted, "OGM", tmp_path, sam=0.05, ours={"clip_norm": 0.1}, gradient_clip_val=0.1)


def test_bfloat16_is_that_of_the_trainer(tmp_path: Path):
    moves_as_in_the_trainer(fitted, "OGM", tmp_path, ours={"precision": "bf16-mixed"}, precision="bf16-mixed")


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_goes_on_exactly(name: str, tmp_path: Path):
    checkpoint = tmp_path / "two.ckpt"

    def stopped(run: Trained) -> Path:
        fitted(run, name, tmp_path, max_epochs=2).save_checkpoint(checkpoint)
        return checkpoint

    goes_on_exactly(fitted, name, tmp_path, stopped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches must be 1"),
        ({"precision": "bf16-true"}, "precision must be one of"),
    ],
)
def test_trainers_that_would_train_something_else_are_refused(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        fitted(trained("OGM"), "OGM", tmp_path, **options)


def test_methods_that_own_their_loop_are_refused_at_once():
    with pytest.raises(OwnLoopError, match="MLA cannot train in a loop of somebody else: it updates once per modality"):
        LightningBalance("MLA")


def test_a_callback_can_be_pickled():
    assert type(pickle.loads(pickle.dumps(LightningBalance("OGM")))) is LightningBalance


def test_without_lightning_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from counterpoise.integrations import on_lightning

    for name in on_lightning.PACKAGES:
        monkeypatch.setitem(sys.modules, name.partition(".")[0], None)
    with pytest.raises(ImportError, match=r"pip install 'counterpoise\[lightning\]'"):
        on_lightning._library()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sam"), [("OGMGE", 0.0), ("MMPareto", 0.0), ("AGM", 0.05), ("PMR", 0.0), ("OPM", 0.0)]
)
def test_two_processes_under_ddp(name: str, sam: float, tmp_path: Path):
    run = trained(name, norm=False, sam=sam)
    torch.save({"model": run.model.state_dict(), "batches": [tuple(b) for b in run.seen.batches]}, tmp_path / "in.pt")
    child = Path(__file__).with_name("lightning_child.py")
    done = subprocess.run(
        [sys.executable, str(child), name, str(sam), str(tmp_path)], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        run.model.load_state_dict(saved(tmp_path / f"out{rank}.pt"))
        assert distance(run.model, run.seen.weights[-1]) <= 1e-6
