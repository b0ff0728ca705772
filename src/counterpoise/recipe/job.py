"""From a recipe to a trainer and its data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from torch import Tensor, nn

from counterpoise._checks import did_you_mean
from counterpoise.analysis import BALANCE, GRADIENT_CHANGE, BalanceWatch, GradientChange
from counterpoise.build import build_model, encoder_of
from counterpoise.data.source import Source
from counterpoise.data.split import Split, Splits
from counterpoise.encoders import Frozen
from counterpoise.encoders._weights import adopt, read_weights
from counterpoise.engine import Trainer, keep_freed_memory
from counterpoise.engine.state import mix, seed_everything
from counterpoise.method import Method
from counterpoise.observer import Observer
from counterpoise.recipe.options import AUTO
from counterpoise.recipe.recipe import Recipe
from counterpoise.task import Regression, Task

OWN = (
    "config", "data", "method", "fusion", "pool", "encoders", "encoder_weights", "freeze_encoders", "gradient_change",
    "balance",
)  # fmt: skip
"""Options that are not arguments of the trainer."""


@dataclass
class Job:
    """A recipe with its data set and what is trained by it.

    Attributes:
        recipe: what was asked for.
        task: what is predicted, when it is known without opening the data.
        samples: of another table than the one trained on.
    """

    recipe: Recipe
    task: Task | None = None
    samples: Split | None = None

    @property
    def source(self) -> Source:
        """The data set."""
        return self.recipe.source

    @property
    def splits(self) -> Splits:
        """Its parts."""
        return self.recipe.splits

    def describe(self) -> str:
        """The data set in a few lines."""
        return f"{self.source.describe()}\n{self.counts()}"

    def counts(self) -> str:
        """How many samples of what each part has, in the lines of ``describe`` that need all data read."""
        parts = [("training", self.splits.train), ("validation", self.splits.val), ("test", self.splits.test)]
        counts = ", ".join(f"{0 if split is None else len(split)} {name}" for name, split in parts)
        task = self.splits.task
        what = task.plural if task.width > 1 else task.plural.removesuffix("s")
        lines = [f"  {counts} samples of {task.width} {what}"]
        for name, split in parts:
            gone = [] if split is None else [repr(name) for name in _lacking(task, split.target)]
            if gone:
                lines.append(f"  no {name} sample of: {', '.join(gone[:5])}{', ...' if len(gone) > 5 else ''}")
        return "\n".join(lines)

    def trainer(self, *, with_weights: bool = True, **replace: Any) -> Trainer:
        """Model, method and trainer; ``replace`` wins over the options."""
        options = self.recipe.options
        seed_everything(mix(options.seed, "model"))
        made = self.recipe.parser.instantiate(Namespace(**{k: v for k, v in vars(options).items() if k != "data"}))
        method: Method = made.method
        if options.run_dir == AUTO and "run_dir" not in replace:
            label = re.sub(r"[^A-Za-z0-9]+", "-", options.label or method.label).strip("-")
            options.run_dir = made.run_dir = str(Path("runs") / f"{self.source.name}-{label}-s{options.seed}")
        weights = (made.encoder_weights or {}) if with_weights else {}
        model = build_model(
            _encoders(self.source, made.encoders, weights, made.freeze_encoders),
            made.fusion or method.default_fusion,
            task=self.task or self.splits.task,
            heads=method.own_heads,
            pool=made.pool,
            example=self.splits.train if self.samples is None else self.samples,
        )
        arguments = {name: value for name, value in vars(made).items() if name not in OWN and name[0] != "_"}
        arguments |= replace
        if "run_dir" in replace and replace["run_dir"] is None:
            arguments["logger"] = None  # nothing is written
        keep_freed_memory()
        return Trainer(model, method, **arguments, observers=_watches(made, arguments["run_dir"]))

    def tried(self, *, with_weights: bool = True) -> None:
        """ValueError when model, method and trainer do not fit together; nothing is trained or written.

        Args:
            with_weights: read the files of ``encoder_weights`` too.
        """
        here = {"run_dir": None, "progress": False, "accelerator": "cpu", "devices": 1, "num_nodes": 1}
        trainer = self.trainer(with_weights=with_weights, compile=False, **here)
        trainer.check(self.splits.train)


def _watches(made: Namespace, run_dir: str | None) -> list[Observer]:
    """What records in the run directory; without one, as when a finished run is looked at, nothing does."""
    watches: list[Observer] = []
    if made.gradient_change and run_dir is not None:
        watches.append(GradientChange(made.gradient_change, path=Path(run_dir) / GRADIENT_CHANGE))
    if made.balance and run_dir is not None:
        watches.append(BalanceWatch(path=Path(run_dir) / BALANCE))
    return watches


def _encoders(
    source: Source, given: dict[str, nn.Module] | None, weights: Mapping[str, str], freeze: bool
) -> dict[str, nn.Module]:
    layouts, given = source.layouts(), given or {}
    for option, names in (("encoders", given), ("encoder_weights", weights)):
        for name in names:
            if name not in layouts:
                raise ValueError(f"{option}: " + did_you_mean("modality", name, layouts))
    encoders = {m: given[m] if m in given else encoder_of(layout) for m, layout in layouts.items()}
    for m, path in weights.items():
        adopt(encoders[m], read_weights(path, f"Give a state dict of the encoder of {m!r}."), path)
    return {m: Frozen(encoder) for m, encoder in encoders.items()} if freeze else encoders


def config_of(run: str | Path) -> Path:
    """``config.yaml`` of a run directory, or an error that says what is missing."""
    path = Path(run) / "config.yaml"
    if not path.is_file():
        inside = Path(run).is_file() and (Path(run).parent / "config.yaml").is_file()
        meant = f" Did you mean {Path(run).parent}?" if inside else " `counterpoise fit --run_dir DIR` makes one."
        raise FileNotFoundError(f"{run} is no run directory: it has no config.yaml.{meant}")
    return path


def _lacking(task: Task, target: Tensor) -> list[str]:
    """The classes or labels that no sample has, of which the scores of a split say nothing."""
    if isinstance(task, Regression):
        return []
    there = set((target.unique() if target.ndim == 1 else target.any(0).nonzero().flatten()).tolist())
    return [name for i, name in enumerate(task.names) if i not in there]
