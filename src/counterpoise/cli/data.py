"""``counterpoise data check`` and ``counterpoise data show``; the published data sets are in `datasets`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from counterpoise._checks import shown
from counterpoise.data.source import Source, Table
from counterpoise.recipe.messages import UsageError, usage
from counterpoise.recipe.options import Parser, fit_parser
from counterpoise.recipe.spelling import parse, source_of

USAGE = """usage: counterpoise data ACTION ...

  check TABLE     every problem of a table and its files, with row and reason
  show TABLE      the first sample as an encoder gets it: shapes, ranges, label
  list            the published data sets that can be prepared
  prepare NAME    from their raw files to a table
  verify NAME     what was prepared against what was published

counterpoise data ACTION --help says more of each."""

ACTIONS = ("check", "show")
ABOUT = {
    "check": "Every problem of a table and of the files it names, with row and reason.",
    "show": "The first sample of a table as an encoder gets it: shapes, ranges, label.",
}
PUBLISHED = ("list", "prepare", "verify")


def main(arguments: Sequence[str]) -> int:
    """List what is wrong with a table, or what is in it."""
    from counterpoise._checks import did_you_mean

    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if arguments[0] in PUBLISHED:
        from counterpoise.cli import datasets

        actions = {"list": datasets.list_, "prepare": datasets.prepare, "verify": datasets.verify}
        return actions[arguments[0]](arguments[1:])
    if arguments[0] not in ACTIONS:
        raise UsageError(did_you_mean("data command", arguments[0], (*ACTIONS, *PUBLISHED)))
    action = arguments[0]
    parser = Parser.outer(
        prog=f"counterpoise data {action}",
        usage=f"counterpoise data {action} TABLE [--data.OPTION VALUE ...]",
        description=f"{ABOUT[action]} --data.help Table shows the options, such as --data.label COLUMN and "
        "--data.modalities.COLUMN READER.",
    )
    parser.add_argument("--config", action="config", help="YAML file of options, one of fit too.")
    parser.add_argument("--data", type=Source, required=True, help="the table, or Table with its options")
    parser.add_argument("--strict", action="store_true", help="exit with 1 for warnings too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    rest = list(arguments[1:])
    if rest and not rest[0].startswith("-"):
        rest.insert(0, "--data")
    if not rest:
        raise UsageError(f"Name a table: counterpoise data {action} TABLE. See: counterpoise data {action} --help")
    of_fit = {a.dest for a in fit_parser()._actions} - {"data", "config"} if "--config" in " ".join(rest) else set()
    options = parse(parser, rest, unused=of_fit)
    with usage():
        source = source_of(parser, options.data)
    if not isinstance(source, Table):
        raise UsageError(f"data {action} reads tables of files; {source.name} is none.")
    return _check(source, options.strict, options.json) if action == "check" else _show(source, options.json)


def _check(source: Table, strict: bool, as_json: bool) -> int:
    from counterpoise.data.check import check

    report = check(source.table, progress=True)
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if as_json else shown(str(report)))
    return 1 if report.errors or (strict and report.warnings) else 0


def _show(source: Table, as_json: bool) -> int:
    from counterpoise.data.check import show

    summary = show(source.table)
    print(json.dumps(summary, indent=2, ensure_ascii=False) if as_json else shown(summary["text"]))
    return 0
