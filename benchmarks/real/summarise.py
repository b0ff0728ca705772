"""``results.json`` and ``tuning.json`` of one set -> docs/benchmarks/<set>.md.

    python benchmarks/real/summarise.py runs/real/mosi_bclstm --config benchmarks/real/mosi_bclstm.yaml

What stands between the two "reading" marks of an existing page is kept: it is written by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prepare import FOLDERS, SETS

from counterpoise.benchmark import summarize
from counterpoise.benchmark.cells import cell_text, difference_text, metric_of, number_text
from counterpoise.benchmark.summary import Summary
from counterpoise.metrics import SHARES

BEGIN, END = "<!-- reading: written by hand, kept when the page is made again -->", "<!-- end of reading -->"
TITLES = {
    "single-label": {"accuracy": "accuracy", "macro_f1": "macro F1", "ece": "calibration error"},
    "multi-label": {"map": "mean average precision", "micro_f1": "micro F1", "macro_f1": "macro F1"},
    "regression": {"r2": "R²", "rmse": "RMSE", "mae": "MAE"},
}
"""Task -> metric -> title; the first is the one that rows are compared by."""


def page(name: str, out: Path, config: Path, reading: str) -> str:
    """The whole page."""
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    tuning = json.loads((out / "tuning.json").read_text(encoding="utf-8"))
    records = content["runs"]
    seeds = sorted({record["seed"] for record in records})
    titles = TITLES[records[0]["task"]]
    alone = [f"{m}/{next(iter(titles))}" for m in max((record["modalities"] for record in records), key=len)]
    summary = summarize(records, seeds=len(seeds), columns=[*(f"fused/{m}" for m in titles), *alone, "seconds"])
    about = (SETS[name].__doc__ or "").replace("\n    ", "\n").strip()
    parts = [
        f"# {name}",
        about,
        "## Reading",
        f"{BEGIN}\n{reading}\n{END}",
        "## Result",
        _result(summary, len(seeds), titles),
        "## Every seed",
        _seeds(summary, seeds, titles),
        *_leak(out),
        "## Tuning",
        _tuning(tuning, records[0]["monitor"]),
        "## Commands",
        _commands(name, config) + _versions(out),
    ]
    return "\n\n".join(parts) + "\n"


def _result(summary: Summary, seeds: int, titles: dict[str, str]) -> str:
    score, *others = summary.columns
    first, *rest = titles.values()
    header = ["row", first, "Δ to Joint, 95 % interval", *rest]
    header += [f"{c.split('/')[0]} alone" for c in others[len(rest) : -1]] + ["training, s"]
    lines = [line(header), line(["---", *["---:"] * (len(header) - 1)])]
    order = sorted(summary.rows.items(), key=lambda item: -item[1][score].mean)
    for label, cells in order:
        texts = [cell_text(c, cells.get(c)) for c in summary.columns]
        texts.insert(1, difference_text(score, cells[score]).removeprefix("Δ ") or "–")
        there = len(cells[score].values)
        lines.append(line([label if there == seeds else f"{label} ({there} of {seeds} seeds)", *texts]))
    notes = [
        "Test split, mean ± standard deviation over the seeds, best first; shares in percent. The interval is the t "
        "interval of the differences to Joint on equal seeds: it speaks of seeds, not of other test samples, and of "
        f"{len(summary.rows) - 1} such intervals about one in twenty misses by chance. †: below the best modality "
        "trained alone that is best on validation. Training time includes trial runs and validation, on two cores with "
        "other work." + (" Where seeds are missing, training diverged." if "seeds)" in "".join(lines) else "")
    ]
    return "\n".join([*lines, "", *notes])


def _leak(out: Path) -> list[str]:
    """The section that ``leak.py`` wrote, where it did."""
    path = out / "leak" / "leak.md"
    return ["## Does the description leak?", path.read_text(encoding="utf-8").strip()] if path.is_file() else []


def _seeds(summary: Summary, seeds: list[int], titles: dict[str, str]) -> str:
    score = summary.columns[0]
    unit = " in percent" if metric_of(score) in SHARES else ""
    head = f"Test {next(iter(titles.values()))}{unit}."
    lines = [line(["row", *(f"seed {seed}" for seed in seeds)]), line(["---", *["---:"] * len(seeds)])]
    for label, cells in summary.rows.items():
        values = cells[score].values
        lines.append(line([label, *(number_text(score, values[s]) if s in values else "–" for s in seeds)]))
    return "\n".join([head, "", *lines])


def _tuning(tuning: dict[str, Any], monitor: str) -> str:
    count = max(len(row["trials"]) for row in tuning.values())
    with_knobs = any(row["knob"] != "optimizer.lr" for row in tuning.values())
    what = (
        f"{count // 2} learning rates x two values of its main knob ({count} learning rates where there is none)"
        if with_knobs
        else f"{count} learning rates"
    )
    lines = [
        f"{count} trials for every row: {what}, one seed that the comparison does not use, by {monitor} on validation; "
        "the test rows were not in the file. Bold: chosen.",
        "",
    ]
    for name, row in tuning.items():
        key = row["knob"]
        texts = []
        for trial in row["trials"]:
            score = "failed" if trial["val"] is None else number_text(monitor, trial["val"][f"fused/{monitor}"])
            values = f"{trial['optimizer.lr']:g}" + ("" if key == "optimizer.lr" else f", {trial[key]}")
            text = f"{values}: {score}"
            chosen = row["chosen"]["optimizer.lr"] == trial["optimizer.lr"] and row["chosen"][key] == trial[key]
            texts.append(f"**{text}**" if chosen else text)
        lines.append(line([name, "lr" if key == "optimizer.lr" else f"lr, {key.removeprefix('method.')}", *texts]))
    width = len(lines[-1].split("|")) - 2
    head = [line(["row", "tuned", *[f"trial {i + 1}" for i in range(width - 2)]]), line(["---"] * width)]
    return "\n".join([*lines[:2], *head, *lines[2:]])


def _commands(name: str, config: Path) -> str:
    options = config.read_text(encoding="utf-8").strip()
    folder = FOLDERS.get(name, name)
    return (
        f"```bash\nbenchmarks/real/run.sh SOURCE runs/real {name}\n```\n\nwith the raw data in `SOURCE/{folder}`; it "
        "runs `prepare.py`, `tune.py`, `counterpoise benchmark` and `summarise.py`, and goes on where it stopped. The "
        f"options that all rows share (`benchmarks/real/{name}.yaml`):\n\n```yaml\n{options}\n```"
    )


def _versions(out: Path) -> str:
    """What the runs recorded of where they ran."""
    found = sorted(out.glob("runs/*/environment.json"))
    if not found:
        return ""
    e = json.loads(found[0].read_text(encoding="utf-8"))
    packages = ", ".join(f"{name} {version}" for name, version in e["packages"].items())
    return f"\n\nPython {e['python']}, {packages}; {e['processor']}, {e['cores']} cores, {e['threads']} thread a run."


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write(target: Path, make: Callable[[str], str]) -> None:
    """Make a page again around the reading that it has."""
    reading = "*To be written from the numbers below.*"
    if target.is_file():
        before = target.read_text(encoding="utf-8")
        if BEGIN in before and END in before:
            reading = before.split(BEGIN)[1].split(END)[0].strip()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(make(reading), encoding="utf-8")
    print(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder with results.json and tuning.json, named like the set")
    parser.add_argument("--config", type=Path, required=True, help="the options that all rows shared")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks"), help="folder of the page")
    given = parser.parse_args()
    write(given.docs / f"{given.out.name}.md", lambda reading: page(given.out.name, given.out, given.config, reading))


if __name__ == "__main__":
    main()
