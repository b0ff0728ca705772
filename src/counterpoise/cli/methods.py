"""``counterpoise methods``."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table

from counterpoise import methods
from counterpoise._checks import did_you_mean
from counterpoise.method import Method
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.task import TASKS


def main(arguments: Sequence[str]) -> int:
    """List the methods, or explain one."""
    parser = Options(
        prog="counterpoise methods",
        description="The training methods. Passes are per batch, in units of one joint pass.",
    )
    parser.add_argument("name", nargs="?", help="explain this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print the table of the documentation")
    options = parser.parse_args(arguments)
    if options.name is not None:
        folded = {name.casefold(): name for name in methods.__all__}
        if options.name.casefold() not in folded:
            raise UsageError(did_you_mean("method", options.name, methods.__all__))
        _explain(folded[options.name.casefold()], as_json=options.json)
    elif options.json:
        print(json.dumps([row(name) for name in methods.__all__], indent=2, ensure_ascii=False))
    elif options.markdown:
        print(markdown())
    else:
        table = Table(box=box.SIMPLE_HEAD, show_lines=True)
        table.add_column("method", no_wrap=True)
        table.add_column("what it changes; passes per batch; fusions; what it keeps between batches; paper")
        for name in methods.__all__:
            table.add_row(*_told(name))
        Console().print(table)
        print("counterpoise methods NAME explains its rule and options.")
    return 0


def row(name: str) -> dict[str, object]:
    """The table row of a method."""
    cls: type[Method] = getattr(methods, name)
    return {
        "method": name,
        **asdict(cls.info),
        "default_fusion": cls.default_fusion,
        "whole_batch": cls.whole_batch,
        "tasks": "any" if len(cls.tasks) == len(TASKS) else ", ".join(task.kind for task in cls.tasks),
    }


def _told(name: str) -> tuple[str, str]:
    """The two cells of a method in the terminal's table."""
    r = row(name)
    lines = [
        r["summary"],
        f"passes: forward {r['forward']}; backward {r['backward']}",
        *([] if r["tasks"] == "any" else [f"targets: {r['tasks']}"]),
        f"fusions: {r['fusions']}" + ("" if r["state"] == "none" else f"; keeps {r['state']}"),
        r["paper"],
    ]
    return f"{name}\n{r['family']}\n{r['modalities']}", "\n".join(map(str, lines))


def markdown() -> str:
    """The method table as Markdown; README and docs hold exactly this."""
    header = "| method | what it changes | family | forward | backward | fusions | M | targets | keeps | paper |"
    lines = [header, "|---" * (header.count("|") - 1) + "|"]
    for name in methods.__all__:
        r = row(name)
        paper = f"[{r['paper']}]({r['url']})" if r["url"] else r["paper"]
        lines.append(
            f"| [{name}](docs/methods/{name.lower()}.md) | {r['summary']} | {r['family']} | {r['forward']} | "
            f"{r['backward']} | {r['fusions']} | {r['modalities']} | {r['tasks']} | {r['state']} | {paper} |"
        )
    return "\n".join(lines)


def _explain(name: str, *, as_json: bool) -> None:
    cls = getattr(methods, name)
    if as_json:
        print(json.dumps(row(name), indent=2, ensure_ascii=False))
        return
    arguments = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name != "self"]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in arguments]
    print(textwrap.fill(f"{name}({', '.join(shown)})", 80, subsequent_indent=" " * (len(name) + 1)))
    print()
    print(inspect.cleandoc(cls.__doc__ or ""))
    print()
    for key, value in row(name).items():
        print(f"{key:>15}  {value}")
