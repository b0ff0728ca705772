"""Two processes of Lightning's DDP train on the batches that were saved; each saves its weights."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from replayed import EPOCHS, NAMES, Seen, Trained, method_named, saved
from test_lightning import QUIET, InOrder, Module

from counterpoise.integrations import LightningBalance
from counterpoise.testing import task, tiny_model
from counterpoise.types import Batch

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    name, sam, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    content, data, seen = saved(folder / "in.pt"), task(NAMES), Seen()
    seen.batches = [Batch(*batch) for batch in content["batches"]]
    model = tiny_model(method_named(name), NAMES, norm=False)
    model.load_state_dict(content["model"])
    callback = LightningBalance(method_named(name), train=data.train, val=data.val, sam=sam)
    trainer = L.Trainer(
        max_epochs=EPOCHS, devices=2, strategy=DDPStrategy(process_group_backend="gloo"), callbacks=[callback],
        default_root_dir=folder, reload_dataloaders_every_n_epochs=1, enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(Module(model, callback), datamodule=InOrder(Trained(model, data, seen)))
    torch.save(model.state_dict(), folder / f"out{trainer.global_rank}.pt")
