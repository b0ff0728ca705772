"""What was asked for: every option of a training run, resolved, under one name."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from counterpoise import fusions
from counterpoise._files import sha256
from counterpoise._yaml import read_yaml
from counterpoise.data.source import Source
from counterpoise.data.split import Splits
from counterpoise.recipe.messages import usage
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.spelling import Pairs, read, replaced, source_of, spelt

HOW = (
    "progress", "num_workers", "devices", "num_nodes", "accelerator", "compile", "run_dir", "label", "balance",
    "logger", "accumulate",
)  # fmt: skip
"""Options that say how a run is carried out, recorded and named. They decide nothing of what it learns."""


class _Data:
    """A data set, opened once for all recipes of it."""

    def __init__(self, source: Source):
        self.source = source
        self._digests: dict[str, str] = {}

    @cached_property
    def splits(self) -> Splits:
        return self.source.splits()

    @cached_property
    def content(self) -> list[str | None]:
        """The folder of files, and what the samples of each part are and how they are read."""
        parts = (self.splits.train, self.splits.val, self.splits.test)
        return [self.source.folder, *(None if part is None else part.fingerprint() for part in parts)]

    def digest(self, path: str) -> str:
        """Of a file, or of all in a folder, read once; the path where there is none."""
        if path not in self._digests and Path(path).is_file():
            self._digests[path] = sha256(path)
        elif path not in self._digests and Path(path).is_dir():
            inside = [(p.name, sha256(str(p))) for p in sorted(Path(path).iterdir()) if p.is_file()]
            self._digests[path] = hashlib.sha256(repr(inside).encode()).hexdigest()
        return self._digests.get(path, path)

    def by_content(self, encoders: Any) -> Any:
        """The options of encoders, with the content of the files of weights that they name."""
        if not isinstance(encoders, Mapping):
            return encoders
        return {
            name: self.digest(value) if name == "weights" and isinstance(value, str) else self.by_content(value)
            for name, value in encoders.items()
        }


class Recipe:
    """Every option of a training run, resolved: what was typed, what it leaves out, and what was read off the data.

    Two recipes that are the same run have the same ``id``, however they were spelt: in another order, by a file,
    with defaults said, with another progress bar. Made by ``parse`` or ``of``, varied by ``but``.

    Args:
        parser: of the options.
        pairs: the options as typed, each with its value.
        source: the data set that they name, when it is open already.

    Attributes:
        options: as the parser gives them.

    Raises:
        UsageError: for options that there are not, or that do not fit.
    """

    def __init__(self, parser: ArgumentParser, pairs: Pairs, source: Source | None = None):
        self.parser, self._pairs = parser, pairs
        with usage():
            options, source = read(parser, pairs, source)
            self._data = _Data(source or source_of(parser, options.data))
        self.options = _resolved(options, self.source)

    @classmethod
    def parse(cls, arguments: Sequence[str], parser: ArgumentParser | None = None) -> Recipe:
        """From the command line of ``fit``."""
        return cls(parser or fit_parser(), spelt(arguments))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Recipe:
        """From option -> value: dotted names as on the command line, values as text or as they are."""
        return cls.parse([f"--{name}={_text(value)}" for name, value in options.items()])

    def but(self, changes: Mapping[str, Any]) -> Recipe:
        """The same with other values; another class for an option brings its own defaults.

        Args:
            changes: option -> value, as for ``of``.

        Raises:
            UsageError: as on the command line.
        """
        if set(changes) <= {"seed", "label"} and isinstance(changes.get("seed", 0), int):
            return self._renamed(changes)
        pairs = replaced(self._pairs, {name: _text(value) for name, value in changes.items()})
        if any(name.split(".")[0] == "data" for name in changes):
            return Recipe(self.parser, pairs)
        made = Recipe(self.parser, pairs, self.source)
        made._data = self._data
        return made

    def _renamed(self, changes: Mapping[str, Any]) -> Recipe:
        made = copy(self)
        made.__dict__.pop("_identity", None)
        made._pairs = replaced(self._pairs, {name: _text(value) for name, value in changes.items()})
        made.options = self.options.clone()
        for name, value in changes.items():
            setattr(made.options, name, value)
        return made

    @property
    def source(self) -> Source:
        """The data set."""
        return self._data.source

    @property
    def splits(self) -> Splits:
        """Its parts."""
        return self._data.splits

    @property
    def method(self) -> str:
        """Short name of the method's class."""
        return str(self.options.method.class_path).rsplit(".", 1)[-1]

    @property
    def seed(self) -> int:
        """Of everything that is random in the run."""
        return int(self.options.seed)

    @property
    def title(self) -> str:
        """What progress is shown under: label, fold and seed, or the id where there is no label."""
        if not self.options.label:
            return self.id
        data = self.options.data.init_args
        fold = f", fold {data.fold}" if data.get("folds") is not None else ""
        return f"{self.options.label}{fold}, seed {self.seed}"

    @property
    def text(self) -> str:
        """The content of ``config.yaml``; ``fit --config`` runs it again."""
        return self.parser.dump(self.options, skip_unset=False)

    @property
    def id(self) -> str:
        """A name for the run's folder: method, seed, and a hash of all that decides the result.

        It is the same for every spelling. Of the data the samples count, how they are read, and the folder of files;
        of weights the content of their file (its path while runs before this one have yet to write it); what ``HOW``
        lists does not count.
        """
        slug, content = self._identity
        weights = {m: self._data.digest(path) for m, path in (self.options.encoder_weights or {}).items()}
        text = json.dumps(
            {**content, **({"encoder_weights": weights} if weights else {})}, sort_keys=True, separators=(",", ":")
        )
        return f"{slug}-s{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @cached_property
    def _identity(self) -> tuple[str, dict[str, Any]]:
        """The method in short, and all that decides the result."""
        content = {name: value for name, value in read_yaml(self.text).items() if name not in HOW}
        content["data"], task = self._data.content, self.splits.task
        with usage():
            made = self.parser.instantiate(Namespace(method=self.options.method)).method
        default = getattr(fusions, made.default_fusion)
        fusion = {"class_path": _path(default), "init_args": _defaults(default)}
        for name, value in (("monitor", task.monitor), ("metrics", list(task.reported)), ("fusion", fusion)):
            content[name] = value if content[name] is None else content[name]
        content["encoders"] = self._data.by_content(content["encoders"])
        return _slug(type(made), content["method"].get("init_args") or {}), _plain(content)


def _text(value: Any) -> str:
    """A value as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(options: Namespace, source: Source) -> Namespace:
    """With absolute paths, and what was read off the data in place of what was left to guess."""
    if options.run_dir in ("null", "None"):  # typed; a path may be any text
        options.run_dir = None
    if options.encoder_weights:
        options.encoder_weights = {
            m: str(Path(path).expanduser().resolve()) for m, path in options.encoder_weights.items()
        }
    stated = source.stated()
    if "modalities" in stated:
        stated["modalities"] = {
            m: Namespace(class_path=reader["class_path"], init_args=Namespace(**reader["init_args"]))
            for m, reader in stated["modalities"].items()
        }
    if stated:
        options.data.init_args.update(Namespace(**stated))
    return options


def _slug(method: type, arguments: Mapping[str, Any]) -> str:
    """The method and what differs from its defaults, as far as it fits into the name of a folder."""
    known = _plain(_defaults(method))
    own = [f"{name}-{value}" for name, value in _plain(arguments).items() if value != known.get(name)]
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join([method.__name__, *own])).strip("-")[:48].rstrip("-")


def _defaults(cls: type) -> dict[str, Any]:
    """The arguments of a class that may be left out, as they are then."""
    parameters = inspect.signature(cls.__init__).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    """One spelling per value: classes by the place where they are defined, whole numbers whole, None left out."""
    if isinstance(value, Mapping):
        spelt = {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
        if isinstance(value.get("class_path"), str):
            spelt["class_path"] = _path(resolve_name(value["class_path"]))
            spelt.setdefault("init_args", {})
        return spelt
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
