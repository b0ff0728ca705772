"""Options of ``fit``: read off the constructors, with the nearest name for a misspelt one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

from jsonargparse import ArgumentParser, Namespace
from torch import nn

from counterpoise import encoders, engine, fusions, methods
from counterpoise._checks import did_you_mean
from counterpoise.data import readers
from counterpoise.data.source import Arrays, Digits, Source, Table
from counterpoise.engine import Optimizer, Schedule, Trainer
from counterpoise.fusions import Fusion
from counterpoise.method import Method

REGISTRIES: dict[str, Mapping[str, type]] = {
    "data": {"Table": Table, "Digits": Digits, "Arrays": Arrays},
    "reader": {cls.__name__: cls for cls in readers.READERS.values()},
    "method": {name: getattr(methods, name) for name in methods.__all__},
    "fusion": {name: getattr(fusions, name) for name in fusions.__all__ if name != "Fusion"},
    "encoder": encoders.ENCODERS,
    "optimizer": {name: getattr(engine, name) for name in ("SGD", "Adam", "AdamW")},
    "schedule": {name: getattr(engine, name) for name in ("Constant", "StepDecay", "Cosine", "Plateau")},
}
"""What each option accepts by its short name; any other class is named by its import path."""

_FROM_TRAINER: set[str | int] = {"model", "method", "optimizer", "schedule", "observers", "criterion", "fabric"}


class Parser(ArgumentParser):
    """A parser whose errors name the nearest option, method, reader or argument."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise SystemExit2(f"{explain(message, self)}\nSee: {self.prog} --help")


class SystemExit2(SystemExit):
    """Wrong arguments: the message on standard error, exit code 2."""

    def __init__(self, message: str):
        import sys

        super().__init__(2)
        self.message = message
        print(f"counterpoise: {message}", file=sys.stderr)


def fit_parser(prog: str = "counterpoise fit") -> ArgumentParser:
    """The options of one training run."""
    parser = Parser(
        prog=prog,
        description="Train one method on one data set. Every option can stand in a YAML file given by --config.",
        default_env=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of options; later options win.")
    parser.add_argument(
        "--data",
        type=Source,
        required=True,
        help="A .csv, .tsv, .parquet or .npz file, 'digits', or a class with its options (--data.help CLASS).",
    )
    parser.add_argument("--method", type=Method, required=True, help=f"One of {', '.join(REGISTRIES['method'])}.")
    parser.add_argument(
        "--fusion",
        type=Optional[Callable[[dict, int], Fusion]],  # noqa: UP045 - jsonargparse reads it so
        default=None,
        help=f"One of {', '.join(REGISTRIES['fusion'])}; the method's own default when left out.",
    )
    parser.add_argument(
        "--encoders",
        type=Optional[dict[str, nn.Module]],  # noqa: UP045
        default=None,
        help=f"modality -> encoder ({', '.join(REGISTRIES['encoder'])}); a default for each kind of input.",
    )
    parser.add_argument("--optimizer", type=Optimizer, default={"class_path": "counterpoise.engine.SGD"})
    parser.add_argument("--schedule", type=Schedule, default={"class_path": "counterpoise.engine.Constant"})
    parser.add_class_arguments(Trainer, None, skip=_FROM_TRAINER)
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse, after writing shorthands out: ``--data x.csv``, ``--data digits``, ``--data.modalities.a audio``."""
    written: list[str] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            written += _spelled(option, value)
        elif written and written[-1].startswith("--") and not argument.startswith("--"):
            written += _spelled(written.pop(), argument)
        else:
            written.append(argument)
    return parser.parse_args(written)


def _spelled(option: str, value: str) -> list[str]:
    if option == "--data" and Path(value).suffix.lower() in (".csv", ".tsv", ".parquet", ".pq"):
        return ["--data", "Table", "--data.path", value]
    if option == "--data" and Path(value).suffix.lower() == ".npz":
        return ["--data", "Arrays", "--data.path", value]
    for kind, pattern in _KINDS.items():
        if re.fullmatch(pattern, option) and "." not in value:
            folded = {name.casefold(): name for name in REGISTRIES[kind]}
            name = folded.get(value.casefold(), value)
            if kind == "encoder" and name in REGISTRIES[kind]:
                name = f"counterpoise.encoders.{name}"  # torch has classes of the same short names
            return [option, name]
    return [option, value]


_KINDS = {
    "data": r"--data",
    "reader": r"--data\.modalities\.[^.]+",
    "method": r"--method",
    "fusion": r"--fusion",
    "encoder": r"--encoders\.[^.]+",
    "optimizer": r"--optimizer",
    "schedule": r"--schedule",
}


def explain(message: str, parser: ArgumentParser) -> str:
    """A parser's message as one or two lines that say what was meant, probably."""
    found = re.search(r'arser key "([^"]+)"', message)
    key = found[1] if found else ""
    if found := re.search(r"Expected a dot import path string: ([^\s,]+)", message):
        option = f"--{key}"
        for kind, pattern in _KINDS.items():
            if re.fullmatch(pattern, option) or (kind == "reader" and key.startswith("data.modalities")):
                return f"{option}: " + did_you_mean(kind, found[1], REGISTRIES[kind])
    if found := re.search(r"[Uu]nrecognized arguments: (--[^\s=,]+)", message):
        known = [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
        return did_you_mean("option", found[1], [o for o in known if not o.endswith(".help")])
    if found := re.search(
        r"class_path '([\w.]+)'.*?(?:Option|Key) '([\w.]+)' is not (?:accepted|expected)", message, re.DOTALL
    ):
        cls = next((c for r in REGISTRIES.values() for n, c in r.items() if n == found[1].split(".")[-1]), None)
        if cls is not None:
            return f"{cls.__name__}: " + did_you_mean("option", found[2], _arguments(cls))
    if found := re.search(r"(?:Key|Option) '([\w.]+)' is not (?:expected|accepted)", message):
        known = [action.dest for action in parser._actions if action.dest not in ("help", "print_config")]
        return did_you_mean("option", found[1], known)
    return message.strip()


def _arguments(cls: type) -> list[str]:
    import inspect

    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


def described(cls: Any) -> str:
    """First paragraph of a class's docstring."""
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
