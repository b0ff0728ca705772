"""Options of readers whose class nobody named: ``--data.modalities.image.size 32`` alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from counterpoise._checks import did_you_mean
from counterpoise.data.readers import Reader
from counterpoise.data.source import Table
from counterpoise.data.values import changed
from counterpoise.recipe.messages import UsageError, usage

_OPTION = r"--data\.modalities\.([^.]+)\.(\w+)"


def with_guessed_readers(parser: ArgumentParser, pairs: Sequence[tuple[str, ...]]) -> Sequence[tuple[str, ...]]:
    """The options, with the classes of readers that only options were given of, as a table guesses them.

    Where no reader is named at all, the other columns are read as they are without options.

    Raises:
        UsageError: there is no such column, or it is not guessed to be a modality.
    """
    options = [match.groups() for pair in pairs if (match := re.fullmatch(_OPTION, pair[0]))]
    files = [json.loads(pair[1]) for pair in pairs if pair[0] == "--config" and len(pair) == 2]
    named = {match[1] for pair in pairs if (match := re.fullmatch(r"--data\.modalities\.([^.]+)", pair[0]))}
    named |= {m for file in files for m in _modalities(file)}
    alone = dict.fromkeys(m for m, _ in options if m not in named)
    if not alone:
        return pairs
    rest = [_without_readers(pair) for pair in pairs if not pair[0].startswith("--data.modalities.")]
    with usage():
        source = parser.instantiate(Namespace(data=parser.parse_args([text for p in rest for text in p]).data)).data
    if not isinstance(source, Table):
        return pairs
    guessed, ignored = source.table.readers, source.table.ignored
    for m in alone:
        if m not in guessed:
            why = f" {m!r} is none: {ignored[m]}." if m in ignored else ""
            raise UsageError("--data.modalities: " + did_you_mean("modality", m, guessed) + why)
    chosen = alone if named else guessed
    stated = {m: [name for of, name in options if of == m] for m in chosen}
    return [*pairs, *(pair for m in chosen for pair in _written(m, guessed[m], stated[m]))]


def _modalities(file: Any) -> dict[str, Any]:
    """The readers that a file names."""
    data = file.get("data") if isinstance(file, dict) else None
    inner = data.get("init_args") if isinstance(data, dict) else None
    named = inner.get("modalities") if isinstance(inner, dict) else None
    return named if isinstance(named, dict) else {}


def _without_readers(pair: tuple[str, ...]) -> tuple[str, ...]:
    """Of a file, all but the readers that it names."""
    file: Any = json.loads(pair[1]) if pair[0] == "--config" and len(pair) == 2 else None
    if not _modalities(file):
        return pair
    inner = {name: value for name, value in file["data"]["init_args"].items() if name != "modalities"}
    return pair[0], json.dumps({**file, "data": {**file["data"], "init_args": inner}})


def _written(modality: str, reader: Reader, stated: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A guessed reader as options; what follows from others that are stated is left to be guessed again."""
    option = f"--data.modalities.{modality}"
    yield option, type(reader).__name__
    kinds = ("numbers", "categories")
    again = kinds if any(name in kinds for name in stated) else ()
    for name, value in changed(reader).items():
        if name not in (*stated, *again):
            yield f"{option}.{name}", json.dumps(value)
