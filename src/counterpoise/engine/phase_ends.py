"""The ends of phases that several runs have in common, in a folder that they share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise._files import writing
from counterpoise.engine.checkpoint import CheckpointError, short_hash

if TYPE_CHECKING:
    from counterpoise.engine.record import RunDirectory
    from counterpoise.engine.trainer import Trainer


class PhaseEnds:
    """Checkpoints of runs at the ends of their phases.

    A file is named by all that training up to there depends on: the fingerprint of the run, with
    ``Method.so_far`` in the place of the method's settings. So what a run finds is what it would have trained.
    Beside ``NAME.ckpt``, the ``last.ckpt`` of that moment, is ``NAME.best.ckpt``, the weights selected by then.

    Args:
        folder: made when there is something to keep.
        settings: what else the runs must agree on; plain values.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self._folder, self._settings = folder, settings

    def latest(self, trainer: Trainer) -> Path | None:
        """The last end of a phase that is one of this run too, on every replica the same; None without any."""
        there = [
            path.name
            for phases in range(1, trainer.method.length(trainer) + 1)
            if (path := self._path(trainer, phases)) is not None and path.is_file()
        ]
        name = trainer.fabric.broadcast(there[-1] if there else None)  # another run may be adding files
        return None if name is None else self._folder / name

    def keep(self, trainer: Trainer, directory: RunDirectory) -> None:
        """Put the checkpoints of a phase that just ended into the folder.

        Raises:
            CheckpointError: when that cannot be done.
        """
        path = self._path(trainer, trainer.phase_index + 1)
        if path is None or path.is_file():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _link(directory.best, best_of(path))
            _link(directory.last, path)  # last: who finds it finds the other
        except OSError as error:
            raise CheckpointError(f"Could not keep the end of a phase as {path}: {error}. Free some space.") from error

    def _path(self, trainer: Trainer, phases: int) -> Path | None:
        seen = trainer.method.so_far(phases, trainer)
        if seen is None:
            return None
        run = trainer.keeper.fingerprint()
        run["method"] = {**run["method"], **{name: repr(value) for name, value in seen.items()}}
        return self._folder / f"{phases}-{short_hash(json.dumps([self._settings, run], sort_keys=True))}.ckpt"


def best_of(path: Path) -> Path:
    """The selected weights that belong to the end of a phase."""
    return path.with_suffix(".best.ckpt")


def _link(source: Path, target: Path) -> None:
    """The same file under another name: checkpoints are replaced and never written to."""
    try:
        os.link(source, target)
    except FileExistsError:  # another run was here
        return
    except OSError:  # the file system has no links
        with source.open("rb") as whole, writing(target, "wb") as file:
            shutil.copyfileobj(whole, file)
