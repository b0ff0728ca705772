"""Whether a method still helps when the encoders are pretrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.plan import Row, alone
from counterpoise.engine.checkpoint import content_of, load, save
from counterpoise.metrics import SHARES
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.report.charts import bars
from counterpoise.studies.base import (
    SPLITS,
    Given,
    Picture,
    Trained,
    between,
    by_seed,
    cell,
    metric_option,
    read_outs,
    scores,
    seeds_of,
    strokes,
    told,
    unit,
    values,
)
from counterpoise.types import FUSED

TITLE = "Pretrained encoders"
ABOUT = (
    "Plain joint training, MLA and IGM from the same pretrained encoders, which are fine-tuned along or, with --tuning "
    "frozen, stay as they are. Plain and IGM have a head of three layers (256, 64, classes) per modality and late "
    "fusion, MLA the one linear layer that all share. --pretraining given takes the pretrained encoders that "
    "--encoders or --encoder_weights name, published ones, say. --pretraining alone has nothing published in it: it "
    "trains every encoder alone on the training split first, and all seeds start from those of the first seed. Unknown "
    "about the original: which CLIP, whether it is frozen, the learning rate, the epochs, and how its plain row trains."
)


def add_options(parser: Options) -> None:
    """``--pretraining``, ``--tuning``, ``--metric``."""
    parser.add_argument(
        "--pretraining",
        default="given",
        choices=["given", "alone"],
        help="given: by --encoders.MODALITY or --encoder_weights.MODALITY; alone: by this study, on the training split",
    )
    parser.add_argument("--tuning", default="fine-tuned", choices=["fine-tuned", "frozen"], help="of the encoders")
    metric_option(parser)


def plan(given: Given) -> list[Row]:
    """Three methods, and before them, where asked for, each modality alone."""
    options: dict[str, Any] = {"freeze_encoders": True} if given.own.tuning == "frozen" else {}
    if given.own.pretraining == "given":
        _refuse_untrained(given)
        first = []
    else:
        if given.recipe.options.encoder_weights:
            raise UsageError("--pretraining alone makes the weights itself; leave --encoder_weights out.")
        first = [Row(row.name, row.method, row.options, first=True) for row in alone(given.modalities)]
        options |= {f"encoder_weights.{m}": str(path) for m, (path, _) in _files(given).items()}
    late = {} if given.fusion else {"fusion": "Late"}
    return [
        *first,
        Row("plain", "Joint", {**late, **options}),
        Row("MLA", "MLA", options),
        Row("IGM", "IGM", options),
    ]


def _refuse_untrained(given: Given) -> None:
    encoders = given.recipe.options.encoders or {}
    weights = given.recipe.options.encoder_weights or {}
    missing = [m for m in given.modalities if m not in weights and not _pretrained(encoders.get(m))]
    if missing:
        m = missing[0]
        raise UsageError(
            f"No pretrained encoder for {', '.join(map(repr, missing))}. Give one, as in --encoders.{m} Timm "
            f"--encoders.{m}.name resnet18 --encoders.{m}.pretrained true (CLIPText, CLIPImage, Transformers and "
            f"ResNet50 have weights too); or a state dict of its encoder, --encoder_weights.{m} FILE; or "
            "--pretraining alone, and this study trains each encoder alone on the training split first."
        )


def _pretrained(encoder: Any) -> bool:
    """Whether the option says so; of a class that is not ours, nothing is known and it is believed."""
    if not isinstance(encoder, Namespace):
        return False
    if not str(encoder.class_path).startswith("counterpoise."):
        return True
    arguments = encoder.get("init_args") or Namespace()
    inner = arguments.get("encoder")
    return bool(arguments.get("pretrained") or arguments.get("weights")) or _pretrained(inner)


def _files(given: Given) -> dict[str, tuple[Path, Path]]:
    """Modality -> its encoder's weights, and the checkpoint of the run they are from."""
    rows = zip(given.modalities, alone(given.modalities), strict=True)
    runs = {m: given.recipe.but({"method": r.method, **r.options, "seed": given.seeds[0]}).id for m, r in rows}
    return {m: (given.folder / f"{i}.pt", given.runs / i / "best.ckpt") for m, i in runs.items()}


def prepare(given: Given) -> None:
    """The encoders of the first seed's runs, each in a file."""
    given.folder.mkdir(parents=True, exist_ok=True)
    for m, (path, checkpoint) in _files(given).items():
        if path.is_file():
            continue
        prefix = f"encoders.{m}."
        with content_of(checkpoint):
            own = {n.removeprefix(prefix): t for n, t in load(checkpoint)["model"].items() if n.startswith(prefix)}
        save(path, own)


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Scores of each row."""
    own, scored = given.own, scores(runs, given.metric)
    for m in given.modalities:
        scored["rows"].get(f"{m} alone", {}).pop(FUSED, None)  # nothing is fused there
    return {"pretraining": own.pretraining, "tuning": own.tuning, **scored}


def finding(data: Mapping[str, Any]) -> str:
    """Each method's difference to plain joint training."""
    metric, rows = data["metric"], data["rows"]
    effects = {row: between(rows, row, "plain") for row in ("MLA", "IGM")}
    plain = cell(by_seed(rows, "plain").values(), metric) if by_seed(rows, "plain") else "–"
    return (
        f"Fused {SPLITS[data['split']]} {named(metric)}{unit(metric)}: plain {plain}; beside it {told(effects, metric)}"
    )


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Bars."""
    split, metric = SPLITS[data["split"]], data["metric"]
    source = {"given": "given", "alone": "trained alone before, on the same training split"}[data["pretraining"]]
    return [
        Picture(
            "scores",
            lambda: bars(values(data["rows"]), x=f"{split} {named(metric)}", share=metric in SHARES),
            f"{split.capitalize()} {named(metric)} fused and of each modality; encoders {source}, {data['tuning']}"
            + strokes(seeds_of(data["rows"]))
            + read_outs(data),
        )
    ]
