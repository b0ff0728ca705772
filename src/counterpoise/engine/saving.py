"""Writes a run into its directory, and restores it from there."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from counterpoise._files import rename
from counterpoise.engine.checkpoint import (
    CheckpointError,
    content_of,
    fingerprint,
    load,
    refuse_other,
    save,
    short_hash,
)
from counterpoise.engine.record import RunDirectory
from counterpoise.engine.replicas import Fabric, any_of, precision_of
from counterpoise.engine.result import names_of
from counterpoise.engine.run import Run
from counterpoise.engine.state import untouched_randomness
from counterpoise.engine.trackers import Logger, Tracker
from counterpoise.model import MultimodalModel
from counterpoise.portable import described


class Checkpoints:
    """The run directory while a run is in it; without a directory nothing is written.

    A better epoch first goes to ``best.next.ckpt``, then ``last.ckpt`` names it, then it becomes
    ``best.ckpt``: whenever the process dies, the two files can be made to agree again.

    As a context it owns the directory, once that is opened, until the end.

    Args:
        path: of the directory; None for none.
        fabric: the replicas, of which one writes.
        label: of the run in tables and reports; None for the method's.
        tested: the test split will be scored: a run that ended without, as in a search, goes on to that.
        logger: where the scores go too.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        fabric: Fabric,
        label: str | None = None,
        *,
        tested: bool = False,
        logger: Tracker | Logger | None = None,
    ):
        self._path, self._fabric, self._label, self._tested = path, fabric, label, tested
        self._logger = logger
        self._directory: RunDirectory | None = None
        self._fingerprint: dict[str, Any] = {}

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._directory is not None:
            self._directory.close(failed=kind is not None)

    @property
    def _written(self) -> RunDirectory | None:
        """The directory, where this process writes to it."""
        return self._directory if self._fabric.is_global_zero else None

    # -- start -----------------------------------------------------------------------------------
    def open(self, run: Run, *, resume: bool, config: str | None, data: str = "") -> None:
        """Take over the directory, and restore the run that is in it when asked to.

        Args:
            run: on its splits, set up.
            resume: go on from the last checkpoint when there is one.
            config: what to write as ``config.yaml``; None for what a checkpoint must agree with.
            data: name of the data set.
        """
        if self._path is None:
            if resume:
                raise ValueError("resume=True needs a run_dir to resume from.")
            return
        fabric = self._fabric
        if fabric.is_global_zero:
            self._directory = RunDirectory(self._path, resume=resume, tested=self._tested)
        fabric.barrier()
        if self._directory is None:
            self._directory = RunDirectory(self._path, resume=True, owner=False)
        fabric.barrier()
        last, self._fingerprint = self._directory.last, fingerprint_of(run)
        exists = last.is_file()
        if resume and any_of(exists, fabric) and any_of(not exists, fabric):
            raise CheckpointError(
                f"Some processes find {last} and others do not. To resume on several machines, run_dir "
                "must be in a folder that they share, or be copied to all of them."
            )
        if resume and exists:
            self._restore(run, self._directory)
        if self._written:
            config = config or yaml.safe_dump(self._fingerprint)
            names = names_of(run, data=data, label=self._label)
            self._written.start(run.history, config, _described(run, data), names, self._logger)

    def _restore(self, run: Run, directory: RunDirectory) -> None:
        saved = load(directory.last, run.device)
        with content_of(directory.last):
            refuse_other(saved.get("fingerprint", {}), self._fingerprint, directory.last)
            kept, here = (", ".join(names) or None for names in (saved["observers"], run.observers.keeping()))
            refuse_other({"observers": kept}, {"observers": here}, directory.last)
            run.load_state_dict(saved)
        if run.state.best_epoch is None:
            return
        upcoming = directory.path / "best.next.ckpt"
        if self._fabric.is_global_zero and upcoming.is_file():
            with content_of(upcoming):
                new = load(upcoming)["epoch"] == run.state.best_epoch
            if new:
                rename(upcoming, directory.best)
            else:  # the epoch it was written for did not end
                upcoming.unlink()
        self._fabric.barrier()
        with content_of(directory.best):
            run.best = load(directory.best)
            if run.best["epoch"] != run.state.best_epoch:
                raise CheckpointError(
                    f"{directory.best} is of epoch {run.best['epoch']}, {directory.last} expects epoch "
                    f"{run.state.best_epoch}. They are not of the same run; start again in a new directory."
                )
            refuse_other(run.best["fingerprint"], self._fingerprint, directory.best)
            for part, own in (("model", run.model), ("method", run.method)):  # they are used at the end only
                if run.best[part].keys() != own.state_dict().keys():
                    raise ValueError(f"{part} has other tensors")

    def restore_observers(self, run: Run) -> None:
        """Give the observers of a resumed run what the checkpoint holds of them."""
        if self._directory is not None:
            with content_of(self._directory.last):
                run.observers.resume()

    # -- during the run ----------------------------------------------------------------------------
    def end_epoch(self, run: Run, record: Mapping[str, Any], *, better: bool) -> None:
        """Write the checkpoints of a finished epoch, and its line of metrics."""
        directory = self._written
        if directory is None:
            return
        upcoming = directory.path / "best.next.ckpt"
        if better:
            self._save(upcoming, run.best)
        self._save(directory.last, run.state_dict())
        if better:
            rename(upcoming, directory.best)
        directory.append(record)

    def pause(self, run: Run) -> str | None:
        """Write ``last.ckpt`` where the run stands, also inside an epoch; its path, None without a directory."""
        if self._written and run.state.batch_in_epoch:
            self._save(self._written.last, run.state_dict())
        return None if self._directory is None else str(self._directory.last)

    def write_best(self, run: Run) -> None:
        """Write ``best.ckpt`` anew."""
        if self._written:
            self._save(self._written.best, run.best)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``: the run is finished."""
        if self._written:
            self._written.write_result(result)

    def _save(self, path: Path, content: Mapping[str, Any]) -> None:
        save(path, {**content, "fingerprint": self._fingerprint})


def fingerprint_of(run: Run) -> dict[str, Any]:
    """What a checkpoint must agree with to be of this run; plain values."""
    numbers = ("epochs", "batch_size", "seed", "sam", "clip_norm", "monitor", "sampler", "early_stopping")
    return {
        **fingerprint(
            run.model,
            fusion=run.model.fusion,
            method=run.method,
            loss=run.loss,
            optimizer=run.optimizer_settings,
            schedule=run.schedule,
            task=short_hash(run.task.to_dict()),
            train=run.train_split.fingerprint(),
            val=run.val_split.fingerprint(),
        ),
        "trainer": {name: str(getattr(run, name)) for name in numbers},
    }


def digest_of(settings: Any, model: MultimodalModel) -> str:
    """Ten hexadecimal digits of plain settings and of the weights that a model has before training.

    They name the directory of a run of a model that somebody makes in Python, where no recipe says how.
    """
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=5)
    for value in model.state_dict().values():
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _described(run: Run, data: str) -> dict[str, Any]:
    """What makes the model of a run again elsewhere, as far as it can be known; a warning says how far."""
    with untouched_randomness():
        description = described(
            run.model,
            run.method,
            run.loss,
            run.train_split,
            batch_size=run.batch_size,
            precision=precision_of(run.fabric),
            monitor=run.monitor,
            metrics=run.metrics,
            data=data,
        )
    if description.unknown:
        warnings.warn(
            "This run can be loaded elsewhere only with what makes it, cp.load(run_dir, build=...), because "
            f"{'; '.join(description.unknown)}.",
            stacklevel=6,
        )
    return description.to_dict()


def load_selected(run: Run, path: Path) -> None:
    """Put a selected checkpoint into model and method, for evaluation."""
    saved = load(path, run.device)
    here = fingerprint(run.model, fusion=run.model.fusion, method=run.method)
    with content_of(path):
        refuse_other({name: saved["fingerprint"].get(name) for name in here}, here, path)
        put_selected(run, saved)


def put_selected(run: Run, saved: Mapping[str, Any]) -> None:
    """Put what a selected checkpoint holds into model, method and loss; what does not fit raises whatever it does."""
    run.model.load_state_dict(saved["model"])
    run.state.best_epoch = saved["epoch"]
    run.loss.load_state_dict(saved["loss"])
    own = run.method.state_dict()  # buffers sized by the training data serve no prediction
    fits = {k: v for k, v in saved["method"].items() if not isinstance(v, Tensor) or own[k].shape == v.shape}
    run.method.load_state_dict({**own, **fits})
