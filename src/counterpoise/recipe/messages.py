"""What the parser says, in the words of the options that were typed."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from counterpoise._checks import SYNONYMS, did_you_mean
from counterpoise.data.readers import ReadError

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "Mapping": "a mapping",
    "dict": "a mapping",
}
_GIVEN_BY_THE_BUILDER = ("self", "args", "kwargs", "dims", "num_classes")


class UsageError(ValueError):
    """Wrong arguments: exit code 2."""


@contextmanager
def usage() -> Iterator[None]:
    """A ValueError inside is about an option's value."""
    try:
        yield
    except ReadError:
        raise
    except ValueError as error:
        # of an optional option the parser lists every reading; the first is what the class itself said
        said = re.search(r"Union subtypes.*?Errors:\n  - (.*?)\n  - Expected ", str(error), re.DOTALL)
        raise UsageError(said[1] if said else str(error)) from error


class Options(argparse.ArgumentParser):
    """A parser of few options; a misspelt one is answered with the nearest."""

    def __init__(self, **arguments: Any):
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        if match := re.search(r"unrecognized arguments: (\S+)", message):
            message = unknown_option(match[1], known)
        elif match := re.search(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            message = f"{match[1]}: " + did_you_mean("value", match[2], re.findall(r"[^', ]+", match[3]))
        raise UsageError(f"{message}\nSee: {self.prog} --help")


def unknown_option(
    argument: str, known: Iterable[str], registries: Mapping[str, Mapping[str, type]] | None = None
) -> str:
    """What to say about an argument that nobody takes; ``registries`` as for ``explain``."""
    if not argument.startswith("-"):
        meant = " Did you mean --data in front of it?" if Path(argument).is_file() else ""
        return f"Unexpected {argument!r}: every value follows the --option that it is for.{meant}"
    option, options = argument.split("=")[0], [o for o in known if o.startswith("--")]
    name = option.lstrip("-").replace("-", "_")
    if (meant := f"--{SYNONYMS.get(name)}") in options:
        return f"Unknown option {option!r}. Did you mean {meant!r}?"
    inside = []
    for kind in ("method", "optimizer", "schedule", "fusion"):
        owners = [label for label, cls in (registries or {}).get(kind, {}).items() if name in _arguments(cls)]
        if owners:
            of = f"{', '.join(owners[:3])}{', ...' if len(owners) > 3 else ''}"
            inside.append(f"'--{kind}.{name}' (of {of})")
    if inside:
        return f"Unknown option {option!r}. Did you mean {' or '.join(inside)}?"
    return did_you_mean("option", option, options)


def explain(
    message: str, known: Iterable[str], registries: Mapping[str, Mapping[str, type]], kinds: Mapping[str, str]
) -> str:
    """A parser's message as one or two lines that say what was meant, probably.

    Args:
        message: of the parser; for options of classes it is several lines, outermost option first.
        known: the options there are.
        registries: kind -> name -> class.
        kinds: kind -> pattern of the options that name one.
    """
    option = _option(message)
    kind = next((k for k, pattern in kinds.items() if re.fullmatch(pattern, option)), None)
    if "\nSee: " in message:  # of the file given by --config, explained already
        return "--config: " + message.split(": ", 1)[1].split("\nSee: ")[0]
    if match := re.search(r"following arguments are required: (.+)", message):
        name = match[1].split(",")[0].strip()
        text = f"--{name} is missing." if option == "--" else f"{option}.{name} is missing."
        if name == "data":
            return f"{text} {FILES}"
        return text + (f" Known: {', '.join(registries[name])}." if name in registries else "")
    if match := re.search(r"argument (--\S+): expected one argument", message):
        return f"{match[1]} needs a value."
    if kind and (match := re.search(r"Expected a dot import path string: ([^\s,]+)", message)):
        return f"{option}: " + did_you_mean(kind, match[1], registries[kind]) + (f" {FILES}" if kind == "data" else "")
    if kind and "is abstract" in message:
        return f"{option} must come with its class. Known: {', '.join(registries[kind])}."
    unknown = re.search(r"(?:Key|Option) '([\w.]+)' is not (?:accepted|expected)", message) or re.search(
        r"[Uu]nrecognized arguments: (\S+)", message
    )
    cls = _class(message)
    if unknown and cls is not None:
        name = unknown[1].lstrip("-").split("=")[0].split(".")[0]
        if (kind and inspect.isabstract(cls)) or cls.__module__ == "counterpoise.method":
            return f"{option}.{name} must come with its class. Known: {', '.join(registries[kind or 'method'])}."
        return f"{option}: " + did_you_mean(f"option of {cls.__name__}", name, _arguments(cls))
    if unknown:
        typed = "nrecognized" in message or unknown[1].startswith("-")
        return unknown_option(unknown[1] if typed else f"--{unknown[1]}", known, registries)
    inside = message.partition("Does not validate against")[2]
    if re.search(r"NestedArg\(key='[^.']+\.", inside) and "class_path" not in inside:
        first = option.removesuffix("." + option.rsplit(".", 1)[-1])
        return f"{option} must come with its class: {first} NAME. Known: {', '.join(_of(first, registries, kinds))}."
    text = _wrong_value(message, option) or message.strip()
    return text + (f" {FILES}" if kind == "data" and "No module" in text else "")


def _of(option: str, registries: Mapping[str, Mapping[str, type]], kinds: Mapping[str, str]) -> list[str]:
    return next((list(registries[k]) for k, pattern in kinds.items() if re.fullmatch(pattern, option)), [])


FILES = "A data set is a .csv, .tsv, .parquet or .npz file, 'digits', or package.module.Class."


def _wrong_value(message: str, option: str) -> str | None:
    if match := re.search(r"(No module named .*|module .* has no attribute .*|.* does not correspond to .*)", message):
        return f"{option}: {match[1].strip()}."
    value = re.search(r"Expected an? (.*?)\. Got value: (.*)", message)
    subtypes = re.findall(r"Subtypes: \[(.*)\]", message)
    given = re.findall(r"Given value: (.*)", message)
    if value is not None:
        expected, got = value[1], value[2]
    elif subtypes and given:
        expected, got = subtypes[-1], given[0]
    else:
        return None
    if "Sequence" in expected or "list[" in expected:
        return f"{option} must be a list such as '[{got.replace(',', ', ')}]', in brackets and quotes; got {got}."
    parts = re.split(r", (?![^\[]*\])", expected)
    types = [re.search(rf"\b({'|'.join(_TYPES)})\b", part) for part in parts]
    names = [match[1] for match in types if match]
    if len(names) != len(parts):
        return None
    return f"{option} must be {' or '.join(_TYPES[n] for n in names)}; got {got!r}."


def _option(message: str) -> str:
    """The option that a message is about, written as on the command line."""
    before, _, after = message.partition("Does not validate against")
    keys = re.findall(r'arser key "([^"]+)"', before)
    if match := re.match(r"(--\S+?)(?:\.help)?: ", message):
        return match[1]
    nested = re.search(r"NestedArg\(key='([^']+)'", after)
    inner = nested[1].split(".") if nested else re.findall(r'arser key "([^"]+)"', after)
    cut = nested is not None and re.search(r"Option '\w+' is not|nrecognized", after) is not None
    return "--" + ".".join([*keys, *(inner[:-1] if cut else inner)])


def _class(message: str) -> type | None:
    """The innermost class that a message names."""
    for path in reversed(re.findall(r"class_path ?=?'?\s?'([\w.]+)'", message)):
        module, _, name = path.rpartition(".")
        try:
            named = getattr(import_module(module), name, None)
        except ImportError:
            continue
        if isinstance(named, type):
            return named
    return None


def _arguments(cls: Any) -> list[str]:
    return [name for name in inspect.signature(cls.__init__).parameters if name not in _GIVEN_BY_THE_BUILDER]
