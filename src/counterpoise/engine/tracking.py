"""The scores of a run directory in a tracker, in one run of it however often the directory is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from counterpoise._files import write_text
from counterpoise._names import made
from counterpoise.engine.trackers import Logger, Tracker

TRACKER = "tracker.json"
"""Which tracker a run directory is written to, what the run is called there, and the last epoch that it has."""


def logger_of(value: Any, run_dir: object) -> Tracker | Logger | None:
    """The tracker that a name stands for; anything else as it is, ValueError when it is none.

    Raises:
        ValueError: for an unknown name, another object, and without a run directory.
    """
    tracker = made("logger", value)
    if tracker is None:
        return None
    if isinstance(tracker, type) or not isinstance(tracker, Tracker | Logger):
        raise ValueError(
            "logger must be a name such as 'TensorBoard', a counterpoise.engine.MLflow(...), or a logger of Lightning "
            f"Fabric; got {tracker!r}."
        )
    if run_dir is None:
        raise ValueError("logger=... needs a run_dir: it holds what the tracker calls the run, for when it is resumed.")
    return tracker


class Tracking:
    """The tracker of one run directory.

    Args:
        tracker: its settings, or a logger that is open already.
        directory: of the run.

    Raises:
        ValueError: when the directory was begun in another run of the tracker.
    """

    def __init__(self, tracker: Tracker | Logger, directory: Path):
        self._directory, saved = directory, _saved(directory)
        kind = type(tracker).__name__
        if saved and saved["tracker"] != kind:
            saved = {}  # another tracker gets the whole history
        self._epoch = int(saved.get("epoch", 0))
        if isinstance(tracker, Tracker):
            self._logger = tracker.open(directory, saved.get("run"), self._epoch)
        else:
            self._logger = tracker
        self._begun, self._kind = bool(saved), kind
        version = None if self._logger.version is None else str(self._logger.version)
        if saved and version != saved["run"]:
            raise ValueError(
                f"logger: {directory} is written to {kind}'s run {saved['run']!r}, and this logger writes to "
                f"{version!r}. Make it with the id of the former, or leave the numbering to a name: logger={kind!r}."
            )
        self._run = version
        if "CSV" in kind:
            self._epoch = 0  # its file is begun anew

    def start(self, history: Iterable[Mapping[str, Any]], config: str) -> None:
        """Write the settings once, and the epochs that the tracker lacks."""
        if not self._begun:
            with suppress(NotImplementedError):  # of Fabric's CSVLogger
                self._logger.log_hyperparams(dict(_flat(yaml.safe_load(config))))
        self._note()
        for record in history:
            if record["epoch"] > self._epoch:
                self.append(record)

    def append(self, record: Mapping[str, Any]) -> None:
        """The numbers of an epoch."""
        numbers = {name: value for name, value in record.items() if isinstance(value, float)}
        self._logger.log_metrics(numbers, step=record["epoch"])
        self._epoch = record["epoch"]
        self._note()

    def result(self, result: Mapping[str, Any]) -> None:
        """The scores on test, at the last epoch."""
        if result.get("test"):
            self._logger.log_metrics(
                {f"test/{name}": value for name, value in result["test"].items()}, step=self._epoch
            )

    def close(self, failed: bool) -> None:
        """The run is over, or goes on another time."""
        self._logger.finalize("failed" if failed else "success")

    def _note(self) -> None:
        content = {"tracker": self._kind, "run": self._run, "epoch": self._epoch}
        write_text(self._directory / TRACKER, json.dumps(content) + "\n")


def _saved(directory: Path) -> dict[str, Any]:
    """What ``TRACKER`` holds; empty without one."""
    try:
        saved = json.loads((directory / TRACKER).read_text(encoding="utf-8"))
        return {"tracker": str(saved["tracker"]), "run": saved["run"], "epoch": int(saved["epoch"])}
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{directory / TRACKER} is damaged ({error}); delete it, and the run begins anew in the tracker."
        ) from error


def _flat(settings: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names of nested settings, with their plain values."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
