"""A training run in a process of its own, for tests that kill or interrupt it: ``engine_child.py METHOD DIRECTORY``."""

import sys
from pathlib import Path

import torch
from torch import nn

from counterpoise import build_model
from counterpoise.engine import SGD, Interrupted, Observer, Trainer
from counterpoise.methods import IGM, MLA, OGMGE, Joint
from counterpoise.testing import DIM, everything, task

TWO = ("first", "second")
METHODS = {"Joint": Joint, "MLA": MLA, "IGM": lambda: IGM(stages=[2, 2, 2], mixup=0.5), "OGMGE": lambda: OGMGE(start=0)}
EPOCHS = 6


class Says(Observer):
    """One line per batch, so that the parent knows where the run is."""

    def on_batch_end(self, trainer):
        print(f"batch {trainer.state.epoch * trainer.num_batches + trainer.state.batch_in_epoch}", flush=True)


def build(name, path=None, observers=(), **options):
    method = METHODS[name]()
    torch.manual_seed(0)
    encoders = {
        m: nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 5)) for m in TWO
    }
    data = task(TWO)
    model = build_model(encoders, method.default_fusion, num_classes=3, heads=method.own_heads, example=data.train)
    options = {"epochs": EPOCHS, "batch_size": 9, "optimizer": SGD(lr=0.05), "progress": False, **options}
    return Trainer(model, method, accelerator="cpu", run_dir=path, observers=observers, **options), data


def result(trainer):
    return {
        "tensors": everything(trainer),
        "history": [{k: v for k, v in record.items() if k != "seconds"} for record in trainer.history],
    }


def main(name, directory):
    torch.set_num_threads(1)
    path = Path(directory)
    trainer, data = build(name, path / "run", [Says()])
    try:
        trainer.fit(data.train, data.val, resume=True)
    except Interrupted as stop:
        print(stop, flush=True)
        sys.exit(130)
    torch.save(result(trainer), path / "result.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
