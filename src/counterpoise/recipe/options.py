"""Options of ``fit``: read off the constructors, with short names for the classes of this library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NoReturn, Optional

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from torch import nn

from counterpoise._names import named
from counterpoise.data import readers
from counterpoise.data.log_source import Log
from counterpoise.data.source import Arrays, Digits, Source, Table
from counterpoise.engine import Optimizer, Schedule, Tracker, Trainer
from counterpoise.fusions import Fusion
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.recipe.classes import check_classes
from counterpoise.recipe.messages import UsageError, explain

REGISTRIES: dict[str, Mapping[str, type]] = {
    "data": {"Table": Table, "Digits": Digits, "Arrays": Arrays, "Log": Log},
    "reader": {cls.__name__: cls for cls in readers.READERS.values()},
    **{kind: named(kind) for kind in ("method", "fusion", "encoder", "loss", "optimizer", "schedule", "logger")},
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
    "logger": r"--logger",
}
"""Which options name a class of which registry."""

AUTO = "auto"
_FROM_TRAINER: set[str | int] = {"model", "method", "optimizer", "schedule", "observers", "loss", "logger", "fabric"}


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
        parsed = super().parse_args(*args, **kwargs)
        if self.outermost:
            check_classes(self, parsed)
        return parsed

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
        "--fusion.help, --encoders.help, --loss.help, --optimizer.help, --schedule.help and --logger.help.",
    )
    parser.add_argument("--config", action="config", help="YAML file of options; later options win.")
    parser.add_argument(
        "--data",
        type=Source,
        required=True,
        help="A .csv, .tsv, .parquet or .npz file, or 'digits'. More with --data.help Table, Arrays, Log or Digits.",
    )
    parser.add_argument(
        "--method",
        type=Method,
        required=True,
        help=f"One of {', '.join(REGISTRIES['method'])}, or your own as package.module.Class.",
    )
    _add_model(parser)
    _add_parts(parser)
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
    parser.set_defaults(run_dir=AUTO)
    directory = next(action for action in parser._actions if action.dest == "run_dir")
    directory.help = f"Where to write settings, metrics and checkpoints; {AUTO}: runs/DATA-METHOD-sSEED; null: nowhere."
    return parser


def _add_parts(parser: ArgumentParser) -> None:
    """What it is trained by, and where the scores go."""
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
    parser.add_argument(
        "--logger",
        type=Optional[Tracker],  # noqa: UP045
        default=None,
        help=f"One of {', '.join(REGISTRIES['logger'])}: where scores go beside run_dir; left out, nowhere.",
    )


def _add_model(parser: ArgumentParser) -> None:
    """What is trained: fusion, pool, encoders and the weights that they start from."""
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
    parser.add_argument(
        "--encoder_weights",
        type=Optional[dict[str, str]],  # noqa: UP045
        default=None,
        help="--encoder_weights.MODALITY FILE, a state dict that its encoder starts from.",
    )
    parser.add_argument("--freeze_encoders", type=bool, default=False, help="Train fusion and heads only.")
