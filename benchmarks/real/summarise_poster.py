"""``data.json`` of the poster's studies -> docs/benchmarks/poster_av_mnist_fsdd.md.

    python benchmarks/real/summarise_poster.py runs/real/poster

What stands between the two "reading" marks of an existing page is kept: it is written by hand.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from summarise import BEGIN, END, line, write

from counterpoise.benchmark.summary import mean_sd, paired_difference, percent
from counterpoise.studies.ablation import EFFECTS, difference
from counterpoise.studies.pages import study_named

NAME = "poster_av_mnist_fsdd"


def scores(kept: Mapping[str, Any]) -> list[str]:
    """A row per setting: mean ± standard deviation of each series."""
    rows = kept["result"]["rows"]
    series = list(dict.fromkeys(s for found in rows.values() for s in found))
    lines = [line(["setting", *series]), line(["---", *["---:"] * len(series)])]
    for row, found in rows.items():
        lines.append(line([row, *(percent(found[s].values()) if s in found else "–" for s in series)]))
    return lines


def ablation(kept: Mapping[str, Any]) -> list[str]:
    """The scores, and each effect with its interval."""
    rows = kept["result"]["rows"]
    series = list(dict.fromkeys(s for found in rows.values() for s in found))
    lines = [*scores(kept), "", line(["effect of", "difference, points, 95 % interval", *series])]
    lines.append(line(["---", "---", *["---:"] * len(series)]))
    for effect, pair in EFFECTS.items():
        cells = [effect, f"{pair[0]} − {pair[1]}"]
        for s in series:
            seeds = [{int(seed): v for seed, v in rows.get(row, {}).get(s, {}).items()} for row in pair]
            cells.append(difference(paired_difference(*seeds, 0.95)))
        lines.append(line(cells))
    return lines


def imbalance(kept: Mapping[str, Any]) -> list[str]:
    """Test scores alone and inside joint training."""
    return scores({"result": kept["result"]["scores"]})


def sensitivity(kept: Mapping[str, Any]) -> list[str]:
    """A row per value of each option."""
    lines = []
    for parameter, metrics in kept["result"]["panels"].items():
        values = list(dict.fromkeys(v for found in metrics.values() for v in found))
        name = parameter.removeprefix("method.")
        lines += ["", line([name, *metrics]), line(["---", *["---:"] * len(metrics)])]
        lines += [
            line([v, *(percent(found[v].values()) if v in found else "–" for found in metrics.values())])
            for v in values
        ]
    return lines[1:]


def gradient_change(kept: Mapping[str, Any]) -> list[str]:
    """What describes the cosines."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for item in kept["result"]["changes"]:
        rows.setdefault(item["row"], []).append(item)
    lines = [line(["method", "values", "mean", "median", f"below {kept['result']['threshold']:g} (%)"])]
    lines.append(line(["---", *["---:"] * 4]))
    for row, items in rows.items():
        cells = [_number([i[key] for i in items], 3) for key in ("mean", "median")]
        lines.append(line([row, str(sum(i["n"] for i in items)), *cells, percent(i["below"] for i in items)]))
    return lines


def interaction(kept: Mapping[str, Any]) -> list[str]:
    """Fused score after each stage."""
    stages = kept["result"]["stages"]
    lines = [line(["fused validation score after", *stages]), line(["---", *["---:"] * len(stages)])]
    for row, by_seed in kept["result"]["rows"].items():
        lines.append(line([row, *(percent(s["fused"][i] for s in by_seed.values()) for i in range(len(stages)))]))
    return lines


def singular_values(kept: Mapping[str, Any]) -> list[str]:
    """Mean singular value per layer."""
    means: dict[str, dict[str, list[float]]] = {}
    for item in kept["result"]["spectra"]:
        means.setdefault(f"{item['modality']} {item['layer']}", {}).setdefault(item["row"], []).append(item["mean"])
    rows = list(dict.fromkeys(row for found in means.values() for row in found))
    lines = [line(["mean singular value", *rows]), line(["---", *["---:"] * len(rows)])]
    return lines + [line([layer, *(_number(found.get(row), 2) for row in rows)]) for layer, found in means.items()]


def landscape(kept: Mapping[str, Any]) -> list[str]:
    """Curvature of the first seed."""
    lines = [line(["first seed", "top eigenvalue", "trace ± s.e.", "SAM rise"]), line(["---", *["---:"] * 3])]
    for title, found in kept["result"]["surfaces"].items():
        trace = f"{found['trace']:.3g} ± {found['trace_error']:.2g}"
        lines.append(line([title, f"{found['eigenvalue']:.3g}", trace, f"{found['sharpness']:.3g}"]))
    return lines


TABLES = {
    "ablation": ablation,
    "imbalance": imbalance,
    "sensitivity": sensitivity,
    "scope": scores,
    "interaction": interaction,
    "gradient-change": gradient_change,
    "singular-values": singular_values,
    "landscape": landscape,
}


def _number(values: Sequence[float] | None, digits: int) -> str:
    if not values:
        return "–"
    mean, sd = mean_sd(values)
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def page(out: Path, reading: str) -> str:
    """The whole page, of the studies that there are."""
    parts = ["# The poster's studies on av_mnist_fsdd", ABOUT, "## Reading", f"{BEGIN}\n{reading}\n{END}"]
    for name, table in TABLES.items():
        path = out / name / "data.json"
        if not path.is_file():
            continue
        kept = json.loads(path.read_text(encoding="utf-8"))
        seeds = ", ".join(map(str, kept["seeds"]))
        facts = f"{kept['epochs']} epochs; seeds {seeds}. In percent unless said, mean ± standard deviation over seeds."
        if kept["missing"]:
            facts += f" Not every run finished: {', '.join(kept['missing'])}."
        parts += [f"## {study_named(name).TITLE}", facts, "\n".join(table(kept))]
    parts += ["## Command", "```bash\nbenchmarks/real/poster.sh SOURCE runs/real\n```"]
    return "\n\n".join(parts) + "\n"


ABOUT = (
    "Spoken digits with weakened handwritten ones, the set and the options of [av_mnist_fsdd](av_mnist_fsdd.md), with "
    "more epochs; one learning rate for all rows, nothing tuned here. Scores are of the test split unless said, of the "
    "weights that were best on validation. [Studies](../studies.md) says what each table is."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the studies")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks"), help="folder of the page")
    given = parser.parse_args()
    write(given.docs / f"{NAME}.md", lambda reading: page(given.out, reading))


if __name__ == "__main__":
    main()
