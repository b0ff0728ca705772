"""Options of ``fit``: read off the constructors, with short names for the classes of this library."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Optional

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from torch import nn

from counterpoise import encoders, engine, fusions, methods
from counterpoise._checks import did_you_mean, nearest
from counterpoise._yaml import read_yaml
from counterpoise.data import readers
from counterpoise.data.source import Arrays, Digits, Layout, Source, Table
from counterpoise.engine import Optimizer, Schedule, Trainer
from counterpoise.fusions import Fusion
from counterpoise.losses import LOSSES, Loss
from counterpoise.method import Method
from counterpoise.recipe.classes import check_classes
from counterpoise.recipe.messages import FILES, UsageError, explain

REGISTRIES: dict[str, Mapping[str, type]] = {
    "data": {"Table": Table, "Digits": Digits, "Arrays": Arrays},
    "reader": {cls.__name__: cls for cls in readers.READERS.values()},
    "method": {name: getattr(methods, name) for name in methods.__all__},
    "fusion": {name: getattr(fusions, name) for name in fusions.__all__ if name != "Fusion"},
    "encoder": encoders.ENCODERS,
    "loss": LOSSES,
    "optimizer": {name: getattr(engine, name) for name in ("SGD", "Adam", "AdamW")},
    "schedule": {name: getattr(engine, name) for name in ("Constant", "StepDecay", "Milestones", "Cosine", "Plateau")},
}
"""What each option accepts by its short name; any other class is named by its import path."""

KINDS = {
    "data": r"--data",
    "reader": r"--data\.modalities(\.[^.]+)?",
    "method": r"--method",
    "fusion": r"--fusion",
    "encoder": r"--encoders(\.[^.]+(\.encoder)*)?",
    "loss": r"--loss",
    "optimizer": r"--optimizer",
    "schedule": r"--schedule",
}
"""Which options name a class of which registry."""

TABLES = (".csv", ".tsv", ".parquet", ".pq")
AUTO = "auto"
_FROM_TRAINER: set[str | int] = {"model", "method", "optimizer", "schedule", "observers", "loss", "fabric"}


class _HelpFormatter(DefaultHelpFormatter):
    """Without the import path of every subclass that happens to be loaded: torch alone has hundreds."""

    def _expand_help(self, action: Any) -> str:
        text = re.sub(r", known subclasses: [^)]*", "", super()._expand_help(action))
        text = re.sub(r"type: (<class|Optional|Union)[^()]*?(, (?=default)|(?=\)))", "", text)
        text = re.sub(r"\{'class_path': '[\w.]*?(\w+)'\}", r"\1", text)
        return text.replace(", )", ")").replace(" ()", "")

    def add_argument(self, action: Any) -> None:
        """The ``.help`` of every class is told once, in the description."""
        if not action.option_strings or not action.option_strings[0].endswith(".help"):
            super().add_argument(action)


class Parser(ArgumentParser):
    """A parser whose errors name the nearest option, method, reader or argument.

    jsonargparse makes further parsers of this class for the options of classes; their errors become
    part of the outermost one's.
    """

    outermost = False
    others: frozenset[str] = frozenset()

    @classmethod
    def outer(cls, *, others: Iterable[str] = (), **arguments: Any) -> Parser:
        """The parser of a command; ``others`` are options that something else takes, for messages."""
        parser = cls(default_env=False, allow_abbrev=False, formatter_class=_HelpFormatter, **arguments)
        parser.outermost, parser.others = True, frozenset(others)
        return parser

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        """The options, of which nothing is called before each class is known to be one that its option takes."""
        found = super().parse_args(*args, **kwargs)
        if self.outermost:
            check_classes(self, found)
        return found

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if self.outermost:
            known = {o for action in self._actions for o in action.option_strings} | self.others
            known = {o for o in known if not o.endswith((".help", "+")) and o != "--print_shtab"}
            raise UsageError(f"{explain(message, known, REGISTRIES, KINDS)}\nSee: {self.prog} --help")
        super().error(message, ex)


def fit_parser(prog: str = "counterpoise fit", others: Iterable[str] = ()) -> ArgumentParser:
    """The options of one training run."""
    parser = Parser.outer(
        prog=prog,
        others=others,
        usage=f"{prog} --data DATA --method METHOD [options]",
        description="Train one method on one data set. Every option can stand in a YAML file given by --config. "
        "--method.help NAME shows the options of a method, given as --method.OPTION VALUE; so do --data.help, "
        "--fusion.help, --encoders.help, --loss.help, --optimizer.help and --schedule.help.",
    )
    parser.add_argument("--config", action="config", help="YAML file of options; later options win.")
    parser.add_argument(
        "--data",
        type=Source,
        required=True,
        help="A .csv, .tsv, .parquet or .npz file, or 'digits'. More with --data.help Table, Arrays or Digits.",
    )
    parser.add_argument(
        "--method",
        type=Method,
        required=True,
        help=f"One of {', '.join(REGISTRIES['method'])}, or your own as package.module.Class.",
    )
    parser.add_argument(
        "--fusion",
        type=Optional[Callable[[dict, int], Fusion]],  # noqa: UP045 - jsonargparse reads it so
        default=None,
        help=f"One of {', '.join(REGISTRIES['fusion'])}; the method's own default when left out.",
    )
    parser.add_argument(
        "--pool",
        type=bool,
        default=False,
        help="Predict by a pool of the fused and the unimodal predictions, fitted on validation when training is over.",
    )
    parser.add_argument(
        "--encoders",
        type=Optional[dict[str, nn.Module]],  # noqa: UP045
        default=None,
        help=f"--encoders.MODALITY NAME, one of {', '.join(REGISTRIES['encoder'])}, or any module as "
        "package.module.Class; left out, a default for each kind of input.",
    )
    for name, kind, default in (("optimizer", Optimizer, "SGD"), ("schedule", Schedule, "Constant")):
        parser.add_argument(
            f"--{name}",
            type=kind,
            default={"class_path": f"counterpoise.engine.{default}"},
            help=f"One of {', '.join(REGISTRIES[name])}.",
        )
    parser.add_argument(
        "--loss",
        type=Optional[Loss],  # noqa: UP045
        default=None,
        help=f"One of {', '.join(REGISTRIES['loss'])}, or your own; the task's when left out.",
    )
    parser.add_class_arguments(Trainer, None, skip=_FROM_TRAINER)
    parser.add_argument(
        "--gradient_change",
        type=Optional[Literal["stored", "batch"]],  # noqa: UP045
        default=None,
        help="Record the cosine between gradients of successive modalities in run_dir; the older one is the last that "
        "was applied (stored), or that of the same batch at the present weights (batch).",
    )
    parser.add_argument(
        "--balance",
        type=bool,
        default=False,
        help="Record gradients and losses of each modality in run_dir before training and after every epoch.",
    )
    parser.add_argument(
        "--encoder_weights",
        type=Optional[dict[str, str]],  # noqa: UP045
        default=None,
        help="--encoder_weights.MODALITY FILE, a state dict that its encoder starts from.",
    )
    parser.add_argument("--freeze_encoders", type=bool, default=False, help="Train fusion and heads only.")
    parser.set_defaults(run_dir=AUTO)
    directory = next(action for action in parser._actions if action.dest == "run_dir")
    directory.help = f"Where to write settings, metrics and checkpoints; {AUTO}: runs/DATA-METHOD-sSEED; null: nowhere."
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str], *, unused: Collection[str] = ()) -> Namespace:
    """Parse, after writing shorthands out: ``--data x.csv``, ``--data digits``, ``--data.modalities.a audio``.

    Args:
        parser: of the command.
        arguments: as typed.
        unused: options that a file may hold and this command has no use for.
    """
    written: list[tuple[str, ...]] = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if equals and option.startswith("--"):
            written += _spelled(option, value)
        elif written and len(written[-1]) == 1 and written[-1][0].startswith("--") and not argument.startswith("--"):
            written += _spelled(written.pop()[0], argument)
        else:
            written.append((argument,))
    written = _classes_first(written)
    if unused:
        files = {i: json.loads(pair[1]) for i, pair in enumerate(written) if pair[0] == "--config" and len(pair) == 2}
        for i, file in files.items():
            written[i] = ("--config", json.dumps({name: value for name, value in file.items() if name not in unused}))
    if any(re.fullmatch(KINDS["encoder"], option) or option == "--config" for option, *_ in written):
        written = _fitted(parser, written)
    return parser.parse_args([text for pair in written for text in pair])


def _fitted(parser: ArgumentParser, written: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """With what the data say of the inputs of encoders: ``--encoders.image CNN`` gets its number of channels."""
    given = {option for option, *_ in written}
    option = r"--encoders\.[^.]+(\.encoder)*"
    named = {p[0].split(".", 1)[1]: p[1] for p in written if re.fullmatch(option, p[0]) and len(p) == 2}
    files = [json.loads(pair[1]) for pair in written if pair[0] == "--config" and len(pair) == 2]
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
        return list(written)
    others = [pair for pair in written if not pair[0].startswith("--encoders") and pair[0] != "--config"]
    files = [("--config", json.dumps({name: value for name, value in f.items() if name != "encoders"})) for f in files]
    rest = [text for pair in (*files, *others) for text in pair]
    layouts = parser.instantiate(Namespace(data=parser.parse_args(rest).data)).data.layouts()
    fitted = list(written)
    for m, cls in named.items():
        modality = m.split(".")[0]
        if modality not in layouts:
            raise UsageError("--encoders: " + did_you_mean("modality", modality, layouts))
        known = inspect.signature(cls.__init__).parameters
        needs = inputs_of(cls, layouts[modality])
        fitted += [
            (f"--encoders.{m}.{name}", str(number))
            for name, number in needs.items()
            if name in known and f"--encoders.{m}.{name}" not in given
        ]
    return fitted


def inputs_of(encoder: type, layout: Layout) -> dict[str, int]:
    """Arguments of our encoders that the data determine."""
    steps = encoder.__name__.startswith("Sequence")
    return {
        "in_dim": layout.shape[-1] if steps else math.prod(layout.shape),
        "channels": 1 if len(layout.shape) == 2 else layout.shape[0],
        **{name: value for name, value in layout.options.items() if name in ("vocab_size", "padding")},
    }


def _classes_first(written: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """``--data.size 10 --data digits`` in the order that the parser needs: the class before its options."""
    ordered: list[tuple[str, ...]] = []
    for pair in written:
        at = len(ordered)
        if any(re.fullmatch(pattern, pair[0]) for pattern in KINDS.values()):
            at = next((i for i, (option, *_) in enumerate(ordered) if option.startswith(pair[0] + ".")), at)
        ordered.insert(at, pair)
    return ordered


def _spelled(option: str, value: str) -> list[tuple[str, ...]]:
    if option == "--config":
        return [(option, json.dumps(config(value)))]
    if option == "--data" and Path(value).suffix.lower() in (*TABLES, ".npz"):
        source = _data(value)
        return [("--data", source["class_path"]), ("--data.path", source["init_args"]["path"])]
    if option == "--data" and value.casefold() not in map(str.casefold, REGISTRIES["data"]):
        _refuse_other_files(value)
    for kind, pattern in KINDS.items():
        if re.fullmatch(pattern.replace("(", "(?:") + r"(\.help)?", option):
            return [(option, class_named(kind, value))]
    return [(option, value)]


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
        found = read_yaml(Path(path).read_text(encoding="utf-8"))
        json.dumps(found)
    except FileNotFoundError as error:
        beside = sorted(file.name for file in Path(path).parent.glob("*.y*ml"))
        more = " " + did_you_mean("file", Path(path).name, beside) if beside else ""
        raise UsageError(f"--config {path}: {error.strerror}.{more}") from error
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}.") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"--config {path} is no YAML of plain values: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--config {path} must hold 'option: value' lines; it holds {type(found).__name__}.")
    for name in found:
        if not isinstance(name, str) or "." in name or name == "config":
            raise UsageError(
                f"--config {path}: {name!r} is no option of a file. Names are those of the command line without the "
                "dashes; what follows a dot there stands under init_args here."
            )
    if isinstance(found.get("run_dir"), dict | list):  # the parser would make a name of it
        raise UsageError(f"--config {path}: --run_dir must be text or null; got {found['run_dir']!r}.")
    if "data" in found:
        found["data"] = _data(found["data"])
    for kind in ("method", "fusion", "optimizer", "schedule"):
        if kind in found:
            found[kind] = _class(kind, found[kind])
    if isinstance(found.get("encoders"), dict):
        found["encoders"] = {m: _class("encoder", value) for m, value in found["encoders"].items()}
    return found


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
    if isinstance(value, str):
        return {"class_path": class_named(kind, value)}
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        value = {**value, "class_path": class_named(kind, value["class_path"])}
        inner = value.get("init_args")
        if kind == "encoder" and isinstance(inner, dict) and "encoder" in inner:  # one around another, as Frozen
            value["init_args"] = {**inner, "encoder": _class(kind, inner["encoder"])}
    return value
