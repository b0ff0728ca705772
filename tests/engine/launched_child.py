"""One process of a run that something else started: ``launched_child.py DIRECTORY [devices=N] [num_nodes=N]``.

With ``how=killed`` the last process is killed in the second epoch.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from counterpoise.engine import Observer
from counterpoise.methods import MLA
from counterpoise.testing import everything, trainer_for


class Dies(Observer):
    def on_batch_end(self, trainer):
        if trainer.state.epoch == 1 and trainer.fabric.global_rank == trainer.fabric.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(directory, *options):
    torch.set_num_threads(1)
    given = dict(option.split("=") for option in options)
    observers = [Dies()] if given.pop("how", "") == "killed" else []
    trainer, data = trainer_for(
        MLA,
        norm=False,
        run_dir=Path(directory) / "run",
        logger="tensorboard",
        observers=observers,
        **{k: int(v) for k, v in given.items()},
    )
    try:
        trainer.run(data, resume=True)
    except RuntimeError as error:
        print(f"process {trainer.fabric.global_rank}: {type(error).__name__}: {error}", flush=True)
        sys.exit(1)
    torch.save(everything(trainer), Path(directory) / f"{trainer.fabric.global_rank}-of-{trainer.fabric.world_size}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
