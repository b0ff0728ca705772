"""The studies there are, and their pictures and pages from the numbers on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup

from counterpoise._checks import did_you_mean
from counterpoise._files import write_text
from counterpoise.recipe.messages import UsageError
from counterpoise.report.markup import Picture, html_figure, render, write_page
from counterpoise.studies.base import Study

STUDIES = {
    "imbalance": "each modality's learning alone and inside joint training",
    "ablation": "IGM with and without SAM and gradient modification",
    "sensitivity": "a score over the values of any option of a method",
    "comparison": "all methods, best and second marked",
    "robustness": "a score while modalities go missing, or get noise",
    "scope": "how much of the network IGM's matrices act on",
    "gradient-change": "the angle between gradients of successive modalities",
    "interaction": "IGM stage by stage, with a direction switched off",
    "pretrained": "pretrained encoders: plain, MLA, IGM",
    "training-time": "what a score costs",
    "landscape": "the loss around the trained weights, its curvature",
    "singular-values": "the spectrum in each head, with and without SAM",
}


def study_named(name: str) -> Study:
    """The module of a study.

    Raises:
        UsageError: when there is none of that name.
    """
    if name not in STUDIES:
        raise UsageError(did_you_mean("study", name, STUDIES))
    return cast("Study", import_module(f"counterpoise.studies.{name.replace('-', '_')}"))


def draw_again(name: str, out: Path) -> Path:
    """Pictures and page from the numbers on disk.

    Raises:
        FileNotFoundError: when the study was not made there.
    """
    path = out / name / "data.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: run `counterpoise study {name} --data ... --out {out}` first.")
    write_text(out / name / "section.html", _section(json.loads(path.read_text(encoding="utf-8")), out / name))
    paths = [out / study / "section.html" for study in STUDIES]
    sections = [Markup(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    return write_page(out / "studies.html", "Counterpoise studies", sections)


def _section(kept: Mapping[str, Any], folder: Path) -> Markup:
    study = study_named(kept["study"])
    sets = kept.get("sets", [kept])
    return render(
        "study",
        title=study.TITLE,
        finding=study.finding(kept["result"]),
        about=" ".join([study.ABOUT, *map(_facts, sets)]),
        missing=[row for one in sets for row in one["missing"]],
        items=[
            html_figure(item, folder, f"{kept['study']}-") if isinstance(item, Picture) else item
            for item in study.draw(kept["result"], folder)
        ],
    )


def _facts(kept: Mapping[str, Any]) -> str:
    data = kept["data"]
    counts = ", ".join(f"{data[part]} {part}" for part in ("train", "val", "test") if part in data)
    return (
        f"Data: {data['name']} ({counts} samples, {data['classes']} {data.get('plural', 'classes')}, modalities "
        f"{', '.join(data['modalities'])}); {kept['epochs']} epochs; seeds {', '.join(map(str, kept['seeds']))}."
    )
