"""Keeps the best weights, writes checkpoints and the result, and restores a run from them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import Tensor

from counterpoise._files import rename
from counterpoise.data.split import Split
from counterpoise.engine.checkpoint import (
    CheckpointError,
    content_of,
    fingerprint,
    load,
    refuse_other,
    save,
    short_hash,
)
from counterpoise.engine.cost import summary
from counterpoise.engine.optim import restore
from counterpoise.engine.record import RunDirectory
from counterpoise.engine.replicas import any_of
from counterpoise.engine.state import State, random_state, set_random_state
from counterpoise.metrics import lower_is_better
from counterpoise.observer import Observer
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


class Keeper:
    """What a run leaves on disk, and the best weights in memory.

    A better epoch first goes to ``best.next.ckpt``, then ``last.ckpt`` names it, then it becomes
    ``best.ckpt``: whenever the process dies, the two files can be made to agree again.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self.sign = -1.0 if lower_is_better(trainer.monitor) else 1.0
        self._held = False
        self.forget()

    def forget(self) -> None:
        """No weights are best yet, and no directory is open."""
        self.best: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self.directory: RunDirectory | None = None

    @property
    def _writes(self) -> bool:
        return self.directory is not None and self._trainer.fabric.is_global_zero

    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of this run must agree with; the trainer must know its splits."""
        t = self._trainer
        numbers = {
            "epochs": t.epochs, "batch_size": t.batch_size, "seed": t.seed, "sam": t.sam, "clip_norm": t.clip_norm,
            "monitor": t.monitor,
        }  # fmt: skip
        return {
            **fingerprint(
                t.model, fusion=t.model.fusion, method=t.method, loss=t.loss, optimizer=t.settings, schedule=t.schedule,
                task=short_hash(t.task.to_dict()), train=t.train_split.fingerprint(), val=t.val_split.fingerprint(),
            ),
            "trainer": {name: str(value) for name, value in numbers.items()},
        }  # fmt: skip

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Until the end the run directory that is opened inside belongs to this process; may be nested."""
        outer, self._held = self._held, True
        try:
            yield
        finally:
            self._held = outer
            if not outer and self.directory is not None:
                self.directory.release()

    # -- start -----------------------------------------------------------------------------------
    def open(self, resume: bool) -> None:
        """Take over the run directory, and restore the run that is in it when asked to."""
        trainer = self._trainer
        if trainer.run_dir is None:
            if resume:
                raise ValueError("resume=True needs a run_dir to resume from.")
            return
        if trainer.fabric.is_global_zero:
            self.directory = RunDirectory(trainer.run_dir, resume=resume)
        trainer.fabric.barrier()
        if self.directory is None:
            self.directory = RunDirectory(trainer.run_dir, resume=True, owner=False)
        trainer.fabric.barrier()
        found = self.directory.last.is_file()
        if resume and any_of(found, trainer.fabric) and any_of(not found, trainer.fabric):
            raise CheckpointError(
                f"Some processes find {self.directory.last} and others do not. To resume on several machines, run_dir "
                "must be in a folder that they share, or be copied to all of them."
            )
        if resume and found:
            self._restore(self.directory)
        if self._writes:
            self.directory.start(trainer.history, trainer.config or yaml.safe_dump(self.fingerprint()))

    def _restore(self, directory: RunDirectory) -> None:
        trainer = self._trainer
        saved = load(directory.last, trainer.device)
        with content_of(directory.last):
            refuse_other(saved.get("fingerprint", {}), self.fingerprint(), directory.last)
            self._take(saved, directory.last)
        if trainer.state.best_epoch is None:
            return
        upcoming = directory.path / "best.next.ckpt"
        if trainer.fabric.is_global_zero and upcoming.is_file():
            with content_of(upcoming):
                new = load(upcoming)["epoch"] == trainer.state.best_epoch
            if new:
                rename(upcoming, directory.best)
            else:  # the epoch it was written for did not end
                upcoming.unlink()
        trainer.fabric.barrier()
        with content_of(directory.best):
            self.best = load(directory.best)
            if self.best["epoch"] != trainer.state.best_epoch:
                raise CheckpointError(
                    f"{directory.best} is of epoch {self.best['epoch']}, {directory.last} expects epoch "
                    f"{trainer.state.best_epoch}. They are not of the same run; start again in a new directory."
                )
            refuse_other(self.best["fingerprint"], self.fingerprint(), directory.best)
            for part, own in (("model", trainer.model), ("method", trainer.method)):  # they are used at the end only
                if self.best[part].keys() != own.state_dict().keys():
                    raise ValueError(f"{part} has other tensors")

    def _take(self, saved: Mapping[str, Any], path: Path) -> None:
        trainer = self._trainer
        self._seen = dict(saved["observers"])
        kept, here = (", ".join(names) or None for names in (self._seen, self._watching()))
        refuse_other({"observers": kept}, {"observers": here}, path)
        trainer.state = State.from_dict(saved["state"])
        trainer.model.load_state_dict(saved["model"])
        trainer.method.load_state_dict(saved["method"])
        restore(trainer.optimizer, saved["optimizer"])
        trainer.schedule.load_state_dict(saved["schedule"])
        trainer.generator.set_state(saved["generator"].cpu())
        trainer.resample(saved["rows"], saved["visible"])
        trainer.history = saved["history"]
        trainer.totals = {name: (total, count) for name, (total, count) in saved["totals"].items()}
        if trainer.state.batch_in_epoch and trainer.fabric.is_global_zero:  # saved by a process that was alone
            set_random_state(saved["random"])

    def _watching(self) -> dict[str, tuple[Observer, dict[str, Any]]]:
        """The observers that keep something, and what, by the names of their classes; the second of a class has a 2."""
        found: dict[str, tuple[Observer, dict[str, Any]]] = {}
        for observer in self._trainer.observers:
            if state := observer.state_dict():
                name = type(observer).__name__
                same = sum(type(other) is type(observer) for other, _ in found.values())
                found[f"{name} {same + 1}" if same else name] = observer, state
        return found

    def restore_observers(self) -> None:
        """Give the observers of a resumed run what the checkpoint holds of them."""
        if not self._seen or self.directory is None:
            return
        with content_of(self.directory.last):
            for name, (observer, _) in self._watching().items():
                observer.load_state_dict(self._seen[name])

    def load_best(self, path: Path) -> None:
        """Put a selected checkpoint into model and method, for evaluation."""
        trainer = self._trainer
        saved = load(path, trainer.device)
        here = fingerprint(trainer.model, fusion=trainer.model.fusion, method=trainer.method)
        with content_of(path):
            refuse_other({name: saved["fingerprint"].get(name) for name in here}, here, path)
            trainer.model.load_state_dict(saved["model"])
            trainer.state.best_epoch = saved["epoch"]
            trainer.loss.load_state_dict(saved["loss"])
            own = trainer.method.state_dict()  # buffers sized by the training data serve no prediction
            fits = {k: v for k, v in saved["method"].items() if not isinstance(v, Tensor) or own[k].shape == v.shape}
            trainer.method.load_state_dict({**own, **fits})

    # -- during the run ----------------------------------------------------------------------------
    def consider(self, scores: Mapping[str, float]) -> bool:
        """Remember the weights when their validation score is the best so far."""
        trainer, state = self._trainer, self._trainer.state
        value = self.sign * scores[f"fused/{trainer.monitor}"]
        if state.best_score is not None and not value > state.best_score:
            return False
        state.best_score, state.best_epoch = value, state.epoch + 1
        self.best = {
            "epoch": state.best_epoch,
            "classes": list(trainer.train_split.classes),
            "task": trainer.task.to_dict(),
            "model": _on_cpu(trainer.model.state_dict()),
            "method": _on_cpu(trainer.method.state_dict()),
            "loss": _on_cpu(trainer.loss.state_dict()),
            "scores": dict(scores),
        }
        return True

    def end_epoch(self, record: Mapping[str, Any], better: bool) -> None:
        """Write the checkpoints of a finished epoch, and its line of metrics."""
        if not self._writes or self.directory is None:
            return
        upcoming = self.directory.path / "best.next.ckpt"
        if better:
            save(upcoming, {**self.best, "fingerprint": self.fingerprint()})
        save(self.directory.last, self._state())
        if better:
            rename(upcoming, self.directory.best)
        self.directory.append(record)

    def pause(self) -> str | None:
        """Write ``last.ckpt`` where the run stands, also inside an epoch; its path, None without a directory."""
        if self.directory is None:
            return None
        if self._writes and self._trainer.state.batch_in_epoch:
            save(self.directory.last, self._state())
        return str(self.directory.last)

    def _state(self) -> dict[str, Any]:
        t = self._trainer
        return {
            "fingerprint": self.fingerprint(),
            "state": t.state.to_dict(),
            "model": t.model.state_dict(),
            "method": t.method.state_dict(),
            "optimizer": t.optimizer.state_dict(),
            "schedule": t.schedule.state_dict(),
            "generator": t.generator.get_state(),
            "random": random_state(),
            "rows": t.rows,
            "visible": t.visible,
            "history": t.history,
            "totals": t.totals,
            "observers": {name: state for name, (_, state) in self._watching().items()},
        }

    # -- end -----------------------------------------------------------------------------------------
    def select_best(self) -> None:
        """Put the selected weights into model and method, and fit what the model fits on validation."""
        trainer = self._trainer
        trainer.model.load_state_dict(self.best["model"])
        trainer.method.load_state_dict(self.best["method"])
        trainer.model.uncalibrate()
        found = trainer.evaluator.predict(trainer.val_split)
        if not trainer.model.calibrate(Output(found.fused, found.unimodal, {}, found.present), found.target):
            return
        self.best["model"] = _on_cpu(trainer.model.state_dict())
        if self._writes and self.directory is not None:
            save(self.directory.best, {**self.best, "fingerprint": self.fingerprint()})

    def finish(self, test: Split | None, data: str) -> dict[str, Any]:
        """Score validation and test, and write ``result.json``; ``data`` names the data set in it."""
        trainer, state = self._trainer, self._trainer.state
        result = {
            "method": type(trainer.method).__name__,
            "label": trainer.label or trainer.method.label,
            "seed": trainer.seed,
            "data": data,
            "modalities": list(trainer.model.modalities),
            "task": trainer.task.kind,
            "classes": list(trainer.train_split.classes),
            "fusion": type(trainer.model.fusion).__name__,
            "unimodal": trainer.method.unimodal_by(trainer.model),
            "seconds": round(state.seconds, 3),
            "cost": summary(trainer),
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "monitor": trainer.monitor,
            "val": trainer.evaluate(trainer.val_split),
            "test": None if test is None else trainer.evaluate(test),
            "subsets": {} if test is None else trainer.evaluate_subsets(test),
            "contributions": {} if test is None else trainer.evaluator.contributions(test),
        }
        if self._writes and self.directory is not None:
            self.directory.write_result(result)
        return result

    def close(self) -> None:
        """Flush what is buffered."""
        if self.directory is not None:
            self.directory.close()


def _on_cpu(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy; what ``get_extra_state`` gave may be anything plain."""
    return {
        name: value.detach().cpu().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in state.items()
    }
