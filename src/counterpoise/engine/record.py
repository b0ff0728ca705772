"""The directory of one run: settings, metrics, checkpoints, result."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from counterpoise._files import Lock, OwnedError, sweep, write_text
from counterpoise._json import to_json
from counterpoise.engine.trackers import Logger, Tracker
from counterpoise.engine.tracking import Tracking
from counterpoise.metrics.result import read_result, result_text

PACKAGES = ("counterpoise", "torch", "torchvision", "lightning-fabric", "torchmetrics", "numpy", "transformers", "timm")


MODEL = "model.json"
"""What the model is, without its weights."""

RATES = "rates.json"
"""Which learning rates were tried before the run."""

WITHOUT = "without.json"
"""Which experts failed in an earlier attempt, so that the run goes on without them."""

BEFORE_START = {"config.yaml", MODEL, "log.txt", RATES, WITHOUT}
"""What a run that died before it had begun may have left."""


LOCK = ".lock"
"""Says who writes; not there when nobody does."""


class RunDirectoryError(RuntimeError):
    """A directory that must not, or cannot, be written to."""


class RunDirectory:
    """Files of one run.

    ``config.yaml`` (complete; ``counterpoise fit --config`` runs it again), ``model.json`` (what makes the model again
    elsewhere), ``environment.json``, ``metrics.jsonl`` (one line an epoch), ``last.ckpt``, ``best.ckpt``,
    ``result.json`` (written last: its presence means the run is finished), and what a tracker writes here.

    Args:
        path: the directory; created when missing.
        resume: continue the unfinished run that is there, if any.
        owner: whether this process is the one that writes; it is the only one until ``release``, or until it ends.
        tested: a run that ended without scores on test is unfinished, as is one that was out of time.

    Raises:
        RunDirectoryError: when a finished run, an unfinished one (without ``resume``) or anything else is
            there, when another process owns it, or when it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False, owner: bool = True, tested: bool = False):
        self.path = Path(path)
        self._tracking: Tracking | None = None
        self._lines: list[str] = []
        self._lock: Lock | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if owner:
                self._lock = Lock(self.path / LOCK)
                sweep(self.path)
            names = {entry.name for entry in self.path.iterdir()} - {LOCK}
        except OwnedError as error:
            raise RunDirectoryError(
                f"run_dir {self.path} is in use: {error} writes there. Wait until it ends or stop it (a process that "
                "is gone owns nothing), or choose another directory."
            ) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise RunDirectoryError(
                f"run_dir {self.path} must be a directory; a file is in the way. Choose another name."
            ) from error
        except OSError as error:
            raise RunDirectoryError(f"run_dir {self.path} cannot be written: {error.strerror or error}.") from error
        try:
            self._refuse(names, resume, tested)
        except RunDirectoryError:
            self.release()
            raise

    def _refuse(self, names: set[str], resume: bool, tested: bool) -> None:
        ours, done, damage = "environment.json" in names, False, ""
        try:
            result = read_result(self.path)
            goes_on = result is not None and (result.get("out_of_time") or (tested and result.get("test") is None))
            done = result is not None and not (resume and goes_on)
        except ValueError as error:
            damage = f"result.json is damaged: {error}"
        except OSError as error:
            raise RunDirectoryError(f"{self.path / 'result.json'} cannot be read: {error.strerror}.") from error
        if done and ours:
            raise RunDirectoryError(
                f"run_dir {self.path} holds a finished run (result.json). Choose another directory, or delete it."
            )
        if ours and not resume:
            raise RunDirectoryError(
                f"run_dir {self.path} holds an unfinished run{damage and f' ({damage})'}. Pass --resume (resume=True) "
                "to continue it, choose another directory, or delete it."
            )
        if ours and damage and self._lock is not None:
            warnings.warn(
                f"{self.path}: {damage}. The run goes on from its checkpoints and writes it again.", stacklevel=5
            )
        foreign = names - BEFORE_START
        if foreign and not ours:
            raise RunDirectoryError(
                f"run_dir {self.path} is not empty and not a run of ours (it holds {min(foreign)!r}). "
                "Choose another directory."
            )

    def release(self) -> None:
        """Let others write here."""
        if self._lock is not None:
            self._lock.release()

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.path / "last.ckpt"

    @property
    def best(self) -> Path:
        """The weights selected on validation."""
        return self.path / "best.ckpt"

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``: the run is finished."""
        self._write("result.json", result_text(result))
        if self._tracking is not None:
            self._tracking.result(result)

    def _write(self, name: str, text: str) -> None:
        try:
            write_text(self.path / name, text)
        except OSError as error:
            raise RunDirectoryError(
                f"Could not write {self.path / name}: {error}. Free some space and resume."
            ) from error

    def start(
        self,
        history: Iterable[Mapping[str, Any]],
        config: str,
        model: Mapping[str, Any],
        names: Mapping[str, Any],
        logger: Tracker | Logger | None = None,
    ) -> None:
        """Write the settings, the environment with the run's ``names``, the model, and the epochs that there are."""
        self._write("config.yaml", config)
        self._write(MODEL, json.dumps(model, indent=1, ensure_ascii=False) + "\n")
        self._write("environment.json", to_json({"run": names, **environment()}, indent=2, ensure_ascii=False) + "\n")
        history = list(history)
        self._lines = [to_json(record) + "\n" for record in history]
        self._write("metrics.jsonl", "".join(self._lines))
        if logger is not None:
            self._tracking = Tracking(logger, self.path)
            self._tracking.start(history, config)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add the metrics of one epoch."""
        self._lines.append(to_json(record) + "\n")
        self._write("metrics.jsonl", "".join(self._lines))
        if self._tracking is not None:
            self._tracking.append(record)

    def close(self, *, failed: bool) -> None:
        """Leave the tracker, and let others write here."""
        if self._tracking is not None:
            self._tracking.close(failed)
            self._tracking = None
        self.release()


def environment() -> dict[str, Any]:
    """Versions, device and the state of the working tree the command was started in."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": _versions(),
        "git": _git_state(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


@cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git_state() -> dict[str, Any] | None:
    command = ["git", "status", "--porcelain=v2", "--branch"]
    try:
        status = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    first, *lines = status.stdout.splitlines()
    commit = first.removeprefix("# branch.oid ")
    if commit == "(initial)":
        return None
    return {"commit": commit, "changed_files": sum(not line.startswith("#") for line in lines)}
