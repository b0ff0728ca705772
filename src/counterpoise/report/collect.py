"""Reads run directories: finished, unfinished and damaged ones."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from counterpoise._yaml import read_yaml
from counterpoise.benchmark.notes import with_candidates
from counterpoise.metrics.result import read_result

FILES = ("result.json", "metrics.jsonl", "config.yaml", "environment.json")
OWN_TO_A_RUN = {"seed", "run_dir", "config", "command"}
"""Last parts of the keys that differ between the runs of one setting."""


@dataclass(frozen=True)
class StoredRun:
    """What one run directory says.

    Attributes:
        directory: where it is.
        label: what the run says; with the settings that tell it from another of that label, data set and seed, if any.
        method: its name; the directory's where nothing says it.
        seed: None where nothing says it.
        data: name of the data set; ``""`` where nothing says it.
        result: content of ``result.json``; None for an unfinished run.
        history: the epochs in ``metrics.jsonl``, the last entry of each.
        config: content of ``config.yaml``, flat: ``"trainer.epochs"`` -> value.
        environment: content of ``environment.json``, flat, without the run's own names.
        problems: what could not be read.
    """

    directory: Path
    label: str
    method: str
    seed: int | None
    data: str
    result: Mapping[str, Any] | None
    history: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self.result is not None

    @property
    def record(self) -> dict[str, Any]:
        """The result with label and candidates, as ``benchmark.summarize`` takes it."""
        return {**with_candidates(self.result or {}, self.history), "label": self.label}

    @property
    def state(self) -> str:
        """``"finished"``, or how far it came."""
        if self.finished:
            return "finished"
        return f"unfinished, {len(self.history)} epoch{'s' * (len(self.history) != 1)} so far"


def collect(
    directories: Path | str | Iterable[Path | str], labels: Mapping[Path, str] | None = None
) -> list[StoredRun]:
    """All runs in and below the directories, sorted by path; ``StoredRun.finished`` says which have ended.

    Args:
        directories: run directories, or directories that hold them.
        labels: run directory -> its name; by default what the run says.

    Raises:
        FileNotFoundError: when a directory does not exist or there is no run in any of them.
    """
    roots = [Path(directories)] if isinstance(directories, str | Path) else [Path(d) for d in directories]
    places: dict[Path, None] = {}
    for root in roots:
        if not root.is_dir():
            raise FileNotFoundError(f"There is no directory {root}; give run directories or one that holds them.")
        places.update(dict.fromkeys(_run_directories(root)))
    if not places:
        raise FileNotFoundError(
            f"No runs in {', '.join(map(str, roots))}: a run directory holds result.json or metrics.jsonl."
        )
    runs = [_read(directory) for directory in places]
    return _labelled([replace(run, label=(labels or {}).get(run.directory, run.label)) for run in runs])


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings with dotted keys: ``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            flat |= flatten(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


def _run_directories(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        if "result.json" in files or "metrics.jsonl" in files or {"config.yaml", "environment.json"} <= set(files):
            subfolders.clear()
            yield Path(folder)


def _read(directory: Path) -> StoredRun:
    problems: list[str] = []
    try:
        result = read_result(directory)
    except (OSError, ValueError) as error:
        problems.append(f"result.json cannot be read: {str(error).splitlines()[0]}")
        result = None
    config = flatten(_load(directory / "config.yaml", read_yaml, problems) or {})
    environment = _load(directory / "environment.json", json.loads, problems) or {}
    names = environment.pop("run", {})
    if result is not None and not {"method", "seed"} <= set(result):
        problems.append("result.json names no method or seed")
        result = None
    names = {**(names if isinstance(names, dict) else {}), **(result or {})}
    method, seed = str(names.get("method") or directory.name), names.get("seed")
    return StoredRun(
        directory,
        str(names.get("label") or method),
        method,
        seed if isinstance(seed, int) else None,
        str(names.get("data") or ""),
        result,
        read_history(directory / "metrics.jsonl", problems),
        config,
        flatten(environment),
        problems,
    )


def _load(path: Path, parse: Any, problems: list[str]) -> dict[str, Any] | None:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}")
        return None
    if isinstance(content, dict):
        return content
    problems.append(f"{path.name} holds no mapping")
    return None


def read_history(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The epochs in ``metrics.jsonl``, the last entry of each; ``problems`` grows by what cannot be read."""
    epochs: dict[int, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error}")
        return []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            epochs[int(entry["epoch"])] = entry  # a run resumed from a checkpoint repeats an epoch: the last one counts
        except (ValueError, TypeError, KeyError):
            if number < len(lines):  # the last line of a killed run may be cut off, and that is no problem
                problems.append(f"{path.name} line {number} is no epoch")
    return [epochs[epoch] for epoch in sorted(epochs)]


def _shared(run: StoredRun) -> dict[str, Any]:
    """The configuration without what differs between the runs of one setting."""
    return {key: value for key, value in run.config.items() if key.rsplit(".", 1)[-1] not in OWN_TO_A_RUN}


def _labelled(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Runs of one label, data set and seed get the settings that tell them apart into their label."""
    labelled = list(runs)
    groups: dict[tuple[str, str], list[int]] = {}
    for position, run in enumerate(runs):
        groups.setdefault((run.data, run.label), []).append(position)
    for positions in groups.values():
        members = [runs[p] for p in positions]
        if len({run.seed for run in members}) == len(members):
            continue
        keys = dict.fromkeys(key for run in members for key in _shared(run))
        keys = [key for key in keys if len({repr(run.config.get(key)) for run in members}) > 1]
        labels = [_label(run, keys) for run in members]
        taken = [(label, run.seed) for label, run in zip(labels, members, strict=True)]
        for position, run, label in zip(positions, members, labels, strict=True):
            unique = taken.count((label, run.seed)) == 1
            labelled[position] = replace(run, label=label if unique else f"{label} [{run.directory.name}]")
    return labelled


def _label(run: StoredRun, keys: Sequence[str]) -> str:
    settings = ", ".join(f"{key.rsplit('.', 1)[-1]}={run.config[key]}" for key in keys if key in run.config)
    return f"{run.label} ({settings})" if settings else run.label
