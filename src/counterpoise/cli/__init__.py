"""The command line. Subcommands are imported when they are called, so that help is quick."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

COMMANDS = {
    "fit": ("cli.fit", "train one method on one data set, and evaluate it on the test split"),
    "auto": ("cli.auto", "one model without a choice to make, and a page with the evidence"),
    "distil": ("cli.distil", "one model that has learned what another, or several runs, say"),
    "evaluate": ("cli.evaluate", "score a trained run on a split or on another table"),
    "predict": ("cli.predict", "a table in, probabilities per sample and per modality out"),
    "export": ("cli.export", "a trained run as one file of ONNX, or .pt2"),
    "serve": ("cli.serve", "a local page that takes a sample and shows the answer and each modality's vote"),
    "benchmark": ("cli.benchmark", "methods x seeds on one data set, compared to joint training"),
    "reproduce": ("cli.reproduce", "the poster's table on your copy of a published set, beside the published numbers"),
    "study": ("cli.study", "one of the studies: runs, numbers on disk, figures and a page"),
    "diagnose": ("cli.diagnose", "is the model imbalanced, which modality is starved, what to try"),
    "tune": ("cli.tune", "search options of a method that are best on validation"),
    "report": ("cli.report", "one HTML file with the tables and figures of finished runs"),
    "data": ("cli.data", "check or show a table; prepare published data sets"),
    "methods": ("cli.methods", "list the training methods, or explain one"),
    "completion": ("cli.completion", "a script that completes commands and options by TAB"),
}
PAGES = ("auto", "benchmark", "diagnose", "distil", "report", "reproduce", "study", "tune")
"""Commands that compare with intervals and write a page."""

USAGE = """usage: counterpoise COMMAND [options]

Balanced multimodal learning: train on several modalities when one learns faster
and starves the rest.

commands:
{rows}

counterpoise COMMAND --help says more of each. A first run, on the embedded data:
  counterpoise fit --data digits --method IGM --run_dir runs/first
On a table of your files, with the columns label and one per modality:
  counterpoise data check mine.csv
  counterpoise fit --data mine.csv --method IGM --run_dir runs/mine"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; the exit code is 2 for wrong arguments, 1 for failures, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    rows = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(rows=rows))
        return
    if arguments[0] == "--version":
        from counterpoise import __version__

        print(__version__)
        return
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where `--method your_package.YourMethod` may be, as with python -m
    name, *rest = arguments
    if name not in COMMANDS:
        from counterpoise._checks import did_you_mean

        fail(did_you_mean("command", name, COMMANDS), 2)
    from counterpoise._extras import named_when_missing, require
    from counterpoise.data.readers import ReadError
    from counterpoise.recipe.messages import UsageError

    code: int | None = 0
    try:
        with warnings.catch_warnings(), named_when_missing(f"counterpoise {name}"):
            warnings.showwarning = _warn
            if name in PAGES:
                require(f"counterpoise {name}", "jinja2", "matplotlib", "scipy")
            code = import_module(f"counterpoise.{COMMANDS[name][0]}").main(rest)
    except KeyboardInterrupt as stop:
        fail(str(stop) or "Stopped.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except UsageError as error:
        fail(str(error), 2)
    except ReadError as error:
        fail(f"{error}\n`counterpoise data check TABLE` finds every such file without training.", 1)
    except (ValueError, OSError, ImportError, RuntimeError, FloatingPointError) as error:
        if os.environ.get("COUNTERPOISE_TRACEBACK"):
            raise
        fail(f"{error}\n(set COUNTERPOISE_TRACEBACK=1 to see where)", 1)
    sys.exit(code)


def _warn(message: Warning | str, *_: object) -> None:
    _say(f"warning: {message}")


def fail(message: str, code: int) -> None:
    """Print to standard error and leave."""
    _say(message)
    sys.exit(code)


def _say(message: str) -> None:
    from counterpoise._checks import hidden, shown

    print(f"counterpoise: {shown(hidden(message))}", file=sys.stderr, flush=True)
