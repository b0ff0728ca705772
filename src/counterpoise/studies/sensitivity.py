"""A score over the values of an option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.cells import named, number_text
from counterpoise.benchmark.plan import Row, method_names
from counterpoise.benchmark.summary import mean_sd
from counterpoise.metrics import SHARES
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.report.charts import sweep
from counterpoise.studies.base import SPLITS, Given, Picture, Trained, common_split, unit
from counterpoise.types import FUSED

TITLE = "Sensitivity"
ABOUT = (
    "The fused score for each value of an option, everything else as it is; strokes are single seeds, bands one "
    "standard deviation. Without --parameter: tau and rho of IGM over the poster's values, and radii that float32 can "
    "tell from zero. Unknown about the original: the data set of the poster's tau panel, and the seeds. Below about "
    "1e-8 a step of that length changes no weight, so the original's differences there are noise between runs."
)
DEFAULTS = {"method.tau": "1e-3,0.4,1.3,20,100", "method.rho": "1e-15,1e-10,1e-8,1e-6,1e-4,0.01,0.05,0.2"}


def add_options(parser: Options) -> None:
    """``--method``, ``--parameter``, ``--values``, ``--metrics``."""
    parser.add_argument("--method", default="IGM", help="whose option")
    parser.add_argument(
        "--parameter", help="a number among the options of fit, such as optimizer.lr; of IGM method.tau"
    )
    parser.add_argument("--values", help="its values, comma-separated numbers")
    parser.add_argument("--metrics", help="fused scores, comma-separated; accuracy and map, map, or rmse by default")


def plan(given: Given) -> list[Row]:
    """One setting per value."""
    _metrics(given)
    if given.own.values and not given.own.parameter:
        print(f"--values without --parameter: of {next(iter(_sweeps(given)))}.", flush=True)
    (method,) = method_names(given.own.method, option="--method")
    return [
        Row(f"{parameter}={text}", method, {parameter: text})
        for parameter, texts in _sweeps(given).items()
        for text in texts
    ]


def _sweeps(given: Given) -> dict[str, list[str]]:
    own = given.own
    known = DEFAULTS if own.method.casefold() == "igm" else {}
    parameter = own.parameter.lstrip("-") if own.parameter else next(iter(known), "")
    values = own.values or known.get(parameter)
    if not parameter or values is None:
        raise UsageError(
            f"--method {own.method} needs --parameter and --values, as in --parameter optimizer.lr --values 0.01,0.1."
        )
    chosen = {parameter: values} if own.parameter or own.values else known
    lists = {name: [t.strip() for t in text.split(",") if t.strip()] for name, text in chosen.items()}
    for texts in lists.values():
        for text in texts:
            try:
                float(text)
            except ValueError:
                raise UsageError(f"--values must be numbers separated by commas; got {text!r}.") from None
        if len({float(text) for text in texts}) < len(texts):
            raise UsageError("--values names a number twice.")
    return lists


def _metrics(given: Given) -> list[str]:
    """What to score; an unknown name is refused before anything trains."""
    if given.own.metrics is None:
        return list(dict.fromkeys([*given.scored([], "--metrics"), *({"map"} & set(given.task.reported))]))
    names = [name.strip() for name in given.own.metrics.split(",") if name.strip()]
    return given.scored(names or [""], "--metrics")


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Parameter -> metric -> value -> seed -> score."""
    split = common_split(runs)
    panels: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for parameter, texts in _sweeps(given).items():
        for metric in _metrics(given):
            for text in texts:
                by_seed = {str(r.seed): r.record[split] for r in runs if r.row == f"{parameter}={text}"}
                known = {seed: s[f"{FUSED}/{metric}"] for seed, s in by_seed.items() if f"{FUSED}/{metric}" in s}
                if known:
                    panels.setdefault(parameter, {}).setdefault(metric, {})[text] = known
    (method,) = method_names(given.own.method, option="--method")
    return {"split": split, "method": method, "panels": panels}


def finding(data: Mapping[str, Any]) -> str:
    """Of each option and metric the least and the highest mean, beside the spread over seeds."""
    texts = []
    for parameter, series in data["panels"].items():
        for metric, cells in series.items():
            means = {text: mean_sd(by_seed.values())[0] for text, by_seed in cells.items()}
            spreads = [sd for by_seed in cells.values() if (sd := mean_sd(by_seed.values())[1]) is not None]
            low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
            ends = " to ".join(f"{number_text(metric, means[text])} (at {text})" for text in dict.fromkeys((low, high)))
            over = f", standard deviations over seeds up to {number_text(metric, max(spreads))}" if spreads else ""
            texts.append(
                f"over {parameter.removeprefix('method.')} the fused {named(metric)}{unit(metric)} is {ends}{over}"
            )
    one = "" if any("deviation" in text for text in texts) else " One seed: the differences may be noise."
    return f"{data['method']}: {'; '.join(texts)}.{one}"


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """One panel per option; what is no share has a figure of its own."""
    split = SPLITS[data["split"]]
    names = list(dict.fromkeys(metric for series in data["panels"].values() for metric in series))
    groups = {"sweep": [n for n in names if n in SHARES]} | {f"sweep-{n}": [n] for n in names if n not in SHARES}
    several = any(len(f) > 1 for series in data["panels"].values() for c in series.values() for f in c.values())
    marks = "bands ± sd, strokes single seeds" if several else "one seed"
    pictures: list[Picture | str] = []
    for name, metrics in groups.items():
        panels = {
            f"{data['method']}: {parameter.removeprefix('method.')}": {
                metric: {float(text): list(by_seed.values()) for text, by_seed in series[metric].items()}
                for metric in metrics
                if metric in series
            }
            for parameter, series in data["panels"].items()
        }
        share = name == "sweep"
        what = "scores" if share else named(metrics[0])
        if metrics:
            pictures.append(
                Picture(
                    name,
                    lambda panels=panels, share=share, what=what: sweep(panels, y=f"fused {split} {what}", share=share),
                    f"Fused {split} {what}; the values are evenly spaced; {marks}.",
                )
            )
    return pictures
