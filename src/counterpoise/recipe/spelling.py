"""How options are written: on the command line with its shorthands, in files, and with other values for some."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from counterpoise._checks import did_you_mean, nearest
from counterpoise._yaml import read_yaml
from counterpoise.build import inputs_of
from counterpoise.data.source import Source
from counterpoise.engine import TorchOptim
from counterpoise.engine.torch_optim import torch_names
from counterpoise.recipe.guessed_readers import with_guessed_readers
from counterpoise.recipe.messages import FILES, UsageError
from counterpoise.recipe.options import KINDS, REGISTRIES

TABLES = (".csv", ".tsv", ".parquet", ".pq")

Pairs = Sequence[tuple[str, ...]]
"""Options as typed: each with its value, or by itself; files as JSON."""


def parse(parser: ArgumentParser, arguments: Sequence[str], *, unused: Collection[str] = ()) -> Namespace:
    """The options in arguments.

    Args:
        parser: of the command.
        arguments: as typed.
        unused: options that a file may hold and this command has no use for.
    """
    pairs = spelt(arguments)
    if unused:
        pairs = [_without(pair, unused) for pair in pairs]
    return read(parser, pairs)[0]


def spelt(arguments: Sequence[str]) -> Pairs:
    """Arguments with shorthands written out: ``--data x.csv``, ``--data digits``, ``--data.modalities.a audio``."""
    pairs: list[tuple[str, ...]] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            pairs += _spelled(option, value)
        elif pairs and len(pairs[-1]) == 1 and pairs[-1][0].startswith("--") and not argument.startswith("--"):
            pairs += _spelled(pairs.pop()[0], argument)
        else:
            pairs.append((argument,))
    return pairs


def read(parser: ArgumentParser, pairs: Pairs, source: Source | None = None) -> tuple[Namespace, Source | None]:
    """What the options say, and the data set if it had to be opened for that.

    Args:
        parser: of the command.
        pairs: as ``spelt`` gives them.
        source: the data set that they name, when it is open already.
    """
    pairs = _as_text(_classes_first(with_guessed_readers(parser, pairs)))
    if any(re.fullmatch(KINDS["encoder"], option) or option == "--config" for option, *_ in pairs):
        pairs, source = _fitted(parser, pairs, source)
    return parser.parse_args([text for pair in pairs for text in pair]), source


def replaced(pairs: Pairs, changes: Mapping[str, str]) -> Pairs:
    """The options with other values for some; what a file says of a class that is another one now is left out."""
    new = [pair for name, text in changes.items() for pair in _spelled(f"--{name}", text)]
    values = {pair[0]: pair[-1] for pair in new}
    kept = []
    for pair in (pair for pair in pairs if pair[0] not in values):
        if pair[0] == "--config" and len(pair) == 2:
            stated = json.loads(pair[1])
            pair = _without(pair, [n for n in stated if _is_another(stated[n], values.get(f"--{n}"))])
        kept.append(pair)
    return [*kept, *new]


def _is_another(stated: Any, now: str | None) -> bool:
    """Whether a file names a class, and it is now another."""
    named = stated.get("class_path") if isinstance(stated, dict) else None
    return isinstance(named, str) and now is not None and named.rsplit(".", 1)[-1] != now.rsplit(".", 1)[-1]


def _without(pair: tuple[str, ...], names: Collection[str]) -> tuple[str, ...]:
    """Of a file, the other options."""
    if pair[0] != "--config" or len(pair) != 2:
        return pair
    return "--config", json.dumps({name: value for name, value in json.loads(pair[1]).items() if name not in names})


def source_of(parser: ArgumentParser, data: Namespace) -> Source:
    """The data set that the option ``data`` describes."""
    return parser.instantiate(Namespace(data=data)).data


def _fitted(parser: ArgumentParser, pairs: Pairs, source: Source | None) -> tuple[Pairs, Source | None]:
    """With what the data say of the inputs of encoders: ``--encoders.image CNN`` gets its number of channels."""
    given = {option for option, *_ in pairs}
    option = r"--encoders\.[^.]+(\.encoder)*"
    named = {p[0].split(".", 1)[1]: p[1] for p in pairs if re.fullmatch(option, p[0]) and len(p) == 2}
    files = [json.loads(pair[1]) for pair in pairs if pair[0] == "--config" and len(pair) == 2]
    stated = [item for file in files if isinstance(file.get("encoders"), dict) for item in file["encoders"].items()]
    for m, value in stated:
        if isinstance(value, dict) and m not in named:
            named[m] = str(value.get("class_path"))
            inner = value.get("init_args")
            inner = inner if isinstance(inner, dict) else {}
            given |= {f"--encoders.{m}.{name}" for name in inner}
            stated += [(f"{m}.encoder", inner["encoder"])] if "encoder" in inner else []
    ours = {f"counterpoise.encoders.{name}": cls for name, cls in REGISTRIES["encoder"].items()}
    named = {m: ours[path] for m, path in named.items() if path in ours}
    if not named:
        return pairs, source
    if source is None:
        others = [_without(pair, ["encoders"]) for pair in pairs if not pair[0].startswith("--encoders")]
        source = source_of(parser, parser.parse_args([text for pair in others for text in pair]).data)
    layouts = source.layouts()
    fitted = list(pairs)
    for m, cls in named.items():
        modality = m.split(".")[0]
        if modality not in layouts:
            raise UsageError("--encoders: " + did_you_mean("modality", modality, layouts))
        needs = inputs_of(cls, layouts[modality])
        fitted += [
            (f"--encoders.{m}.{name}", str(number))
            for name, number in needs.items()
            if f"--encoders.{m}.{name}" not in given
        ]
    return fitted, source


def _classes_first(written: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """``--data.size 10 --data digits`` in the order that the parser needs: the class before its options."""
    ordered: list[tuple[str, ...]] = []
    for pair in written:
        at = len(ordered)
        if any(re.fullmatch(pattern, pair[0]) for pattern in KINDS.values()):
            at = next((i for i, (option, *_) in enumerate(ordered) if option.startswith(pair[0] + ".")), at)
        ordered.insert(at, pair)
    return ordered


def _as_text(pairs: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Arguments of our classes that are text, taken as it is: jsonargparse would read ``[a]`` and ``null`` as YAML."""
    classes = {pair[0]: pair[1].rsplit(".", 1)[-1] for pair in pairs if len(pair) == 2}
    written = []
    for pair in pairs:
        option, _, name = pair[0].rpartition(".")
        known = REGISTRIES.get(option.removeprefix("--"), {}).get(classes.get(option, ""))
        taken = inspect.signature(known.__init__).parameters.get(name) if known and len(pair) == 2 else None
        if taken is not None and taken.annotation in (str, "str") and not _is_plain(pair[1]):
            pair = f"{option}.init_args", json.dumps({name: pair[1]})
        written.append(pair)
    return written


def _is_plain(text: str) -> bool:
    """Whether YAML takes a text for one."""
    try:
        return isinstance(read_yaml(text), str)
    except ValueError:
        return True  # no YAML at all


def _spelled(option: str, value: str) -> list[tuple[str, ...]]:
    if option == "--config":
        return [(option, json.dumps(config(value)))]
    if option == "--data" and Path(value).suffix.lower() in (*TABLES, ".npz"):
        source = _data(value)
        return [("--data", source["class_path"]), ("--data.path", source["init_args"]["path"])]
    if option == "--data" and value.casefold() not in map(str.casefold, REGISTRIES["data"]):
        _refuse_other_files(value)
    if option == "--optimizer" and (torch_name := _of_torch(value)):
        return [(option, TorchOptim.__name__), (f"{option}.name", torch_name)]
    for kind, pattern in KINDS.items():
        if re.fullmatch(pattern.replace("(", "(?:") + r"(\.help)?", option):
            return [(option, class_named(kind, value))]
    return [(option, value)]


def _of_torch(name: str) -> str | None:
    """The name in ``torch.optim``, where none of our own settings is called so."""
    if name.casefold() in map(str.casefold, REGISTRIES["optimizer"]):
        return None
    return {known.casefold(): known for known in torch_names()}.get(name.casefold())


def _refuse_other_files(value: str) -> None:
    """UsageError when ``--data`` was given a path, and not one of a data set."""
    path = Path(value)
    if path.is_dir():
        raise UsageError(f"--data {value} is a folder. {FILES}")
    if path.is_file():
        raise UsageError(f"--data {value}: {FILES}")
    if re.fullmatch(r"\.[a-z0-9]+", path.suffix) or len(path.parts) > 1:
        beside = [p.name for p in path.parent.glob("*") if p.suffix.lower() in (*TABLES, ".npz")]
        raise UsageError(f"--data {value}: there is no such file.{nearest(path.name, beside, cutoff=0.82)} {FILES}")


def class_named(kind: str, name: str) -> str:
    """The spelling of a class that the parser takes: short names in any case, import paths as they are."""
    folded = {known.casefold(): known for known in REGISTRIES[kind]}
    name = folded.get(name.casefold(), name)
    # torch has classes of the same short names as our encoders
    return f"counterpoise.encoders.{name}" if kind == "encoder" and name in REGISTRIES[kind] else name


def config(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file, with its shorthands written out."""
    try:
        content = read_yaml(Path(path).read_text(encoding="utf-8"))
        json.dumps(content)
    except FileNotFoundError as error:
        beside = sorted(file.name for file in Path(path).parent.glob("*.y*ml"))
        more = " " + did_you_mean("file", Path(path).name, beside) if beside else ""
        raise UsageError(f"--config {path}: {error.strerror}.{more}") from error
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}.") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"--config {path} is no YAML of plain values: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path} must hold 'option: value' lines; it holds {type(content).__name__}.")
    for name in content:
        if not isinstance(name, str) or "." in name or name == "config":
            raise UsageError(
                f"--config {path}: {name!r} is no option of a file. Names are those of the command line without the "
                "dashes; what follows a dot there stands under init_args here."
            )
    if isinstance(content.get("run_dir"), dict | list):  # the parser would make a name of it
        raise UsageError(f"--config {path}: --run_dir must be text or null; got {content['run_dir']!r}.")
    if "data" in content:
        content["data"] = _data(content["data"])
    for kind in ("method", "fusion", "optimizer", "schedule", "logger"):
        if kind in content:
            content[kind] = _class(kind, content[kind])
    if isinstance(content.get("encoders"), dict):
        content["encoders"] = {m: _class("encoder", value) for m, value in content["encoders"].items()}
    return content


def _data(value: Any) -> Any:
    if isinstance(value, str) and Path(value).suffix.lower() in (*TABLES, ".npz"):
        kind = "Arrays" if Path(value).suffix.lower() == ".npz" else "Table"
        return {"class_path": kind, "init_args": {"path": value}}
    value = _class("data", value)
    inner = value.get("init_args") if isinstance(value, dict) else None
    if isinstance(inner, dict) and isinstance(inner.get("modalities"), dict):
        inner["modalities"] = {m: _class("reader", reader) for m, reader in inner["modalities"].items()}
    return value


def _class(kind: str, value: Any) -> Any:
    """``value`` as a mapping with ``class_path``, when it names a class."""
    path = value.get("class_path") if isinstance(value, dict) else value
    if kind == "optimizer" and isinstance(path, str) and (torch_name := _of_torch(path)):
        given = dict((value.get("init_args") if isinstance(value, dict) else None) or {})
        own = {"name": torch_name, **({"lr": given.pop("lr")} if "lr" in given else {})}
        return {"class_path": TorchOptim.__name__, "init_args": own | ({"options": given} if given else {})}
    if isinstance(value, str):
        return {"class_path": class_named(kind, value)}
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        value = {**value, "class_path": class_named(kind, value["class_path"])}
        inner = value.get("init_args")
        if kind == "encoder" and isinstance(inner, dict) and "encoder" in inner:  # one around another, as Frozen
            value["init_args"] = {**inner, "encoder": _class(kind, inner["encoder"])}
    return value
