"""Is a multimodal model imbalanced, which modality is starved, and what to try."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from counterpoise.analysis import chance, contributions, features, gradient_balance, linear_probe, sample
from counterpoise.analysis import subset_accuracies as accuracies
from counterpoise.benchmark.summary import SHARES
from counterpoise.cli.trained import open_run
from counterpoise.report.figures import save_png, to_svg
from counterpoise.report.studies import bars, curves
from counterpoise.report.tables import html_table
from counterpoise.studies.base import FUSED, Trained
from counterpoise.studies.conduct import write_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 2000
"""Training samples that probes are fitted to, at most."""
BATCHES, BATCH = 8, 64
ERRORS = 2.0
"""How many standard errors a difference must have to count as one."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of one modality. Accuracies in [0, 1], on the validation split.

    Attributes:
        samples: of it that have the modality.
        alone: of the model trained on it alone.
        inside: of its own prediction inside the joint model.
        probe_alone: of a linear classifier on the encoder trained alone.
        probe_inside: the same on the joint model's encoder.
        contribution: Shapley share of the joint model's fused accuracy above chance.
        gradient: length of the fused loss's gradient by its own parameters, relative to theirs.
        alignment: cosine of that gradient with the one of its own loss; None where one is zero.
    """

    samples: int
    alone: float
    inside: float
    probe_alone: float
    probe_inside: float
    contribution: float
    gradient: float
    alignment: float | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was measured.

    Attributes:
        samples: of the validation split, which everything was measured on.
        chance: accuracy of the most frequent class.
        fused: accuracy of the joint model.
        subsets: of the same model with these modalities only.
        modalities: name -> evidence.
        curves: series -> validation score per epoch.
        monitor: what score that is.
        seed: of the runs.
        method: that was looked at.
    """

    samples: int
    chance: float
    fused: float
    subsets: Mapping[str, float]
    modalities: Mapping[str, Evidence]
    curves: Mapping[str, Sequence[float]]
    monitor: str
    seed: int
    method: str


def diagnose(joint: Trained, alone: Mapping[str, Trained]) -> Diagnosis:
    """Measure a joint model against models of each modality alone.

    Args:
        joint: the run on all modalities.
        alone: modality -> its run.
    """
    trainer, job, _ = open_run(str(joint.directory))
    splits, model, predict = job.splits, trainer.model, trainer.method.predict
    tested = splits.val  # what to try is a choice, and choices are not made on test
    shown = sample(splits.train, SAMPLES)
    subsets = accuracies(model, tested, predict=predict)
    nothing = chance(tested.target)
    shares = contributions(subsets, model.modalities, nothing)
    balance = gradient_balance(model, splits.train, batch_size=BATCH, most=BATCHES, predict=predict)
    found, lines = {}, {}
    for i, (m, run) in enumerate(alone.items()):
        own, _, _ = open_run(str(run.directory))
        probes = [
            linear_probe(features(of, shown, m), features(of, tested, m), model.num_classes)
            for of in (own.model, model)
        ]
        angles = balance.alignment[:, i][np.isfinite(balance.alignment[:, i])]
        found[m] = Evidence(
            probes[0].samples,
            run.record["val"][f"{m}/accuracy"],
            joint.record["val"][f"{m}/accuracy"],
            probes[0].accuracy,
            probes[1].accuracy,
            shares[m],
            float(balance.relative[:, i].mean()),
            float(angles.mean()) if len(angles) else None,
        )
        key = f"val/{m}/{joint.record['monitor']}"
        for name, history in ((f"{m} alone", run.history), (f"{m} in {joint.row}", joint.history)):
            lines[name] = [float(line[key]) for line in history if key in line]
    fused = joint.record["val"][f"{FUSED}/accuracy"]
    return Diagnosis(len(tested), nothing, fused, subsets, found, lines, joint.record["monitor"], joint.seed, joint.row)


def clear(better: float, worse: float, samples: int, errors: float = ERRORS) -> bool:
    """Whether one accuracy exceeds another by more than the draw of the samples explains.

    The two are treated as independent, which is cautious for two models on the same samples.
    """
    # one right and one wrong added to each: an accuracy of 0 or 1 is not known without error
    variance = sum((p * samples + 1) / (samples + 2) * (1 - (p * samples + 1) / (samples + 2)) for p in (better, worse))
    return better - worse > errors * math.sqrt(variance / samples)


def recommend(found: Diagnosis) -> list[str]:
    """What the numbers say, each sentence with them; the last one says what to do."""
    said, starved, unused, weak = [], [], [], []
    for m, e in found.modalities.items():
        if not clear(e.alone, found.chance, e.samples) and not clear(e.probe_alone, found.chance, e.samples):
            weak.append(m)
            said.append(
                f"{m}: alone it reaches {_p(e.alone)}, not clearly above chance ({_p(found.chance)}) on {e.samples} "
                "samples: they are too few to tell, or this encoder and training find little in it, which "
                "balancing does not change."
            )
        elif clear(e.probe_alone, e.probe_inside, e.samples):
            starved.append(m)
            said.append(
                f"{m}: starved. A linear classifier on its encoder reaches {_p(e.probe_inside)} after joint training "
                f"and {_p(e.probe_alone)} after training alone ({e.samples} samples)."
            )
        elif clear(e.alone, e.inside, e.samples):
            unused.append(m)
            said.append(
                f"{m}: learned but hardly used. Its own prediction reaches {_p(e.inside)} inside the joint model, "
                f"{_p(e.alone)} alone, while a linear classifier on its joint encoder reaches {_p(e.probe_inside)}."
            )
        else:
            said.append(
                f"{m}: not starved as far as {e.samples} samples tell: {_p(e.inside)} inside, {_p(e.alone)} alone; "
                f"linear classifiers {_p(e.probe_inside)} and {_p(e.probe_alone)}."
            )
    best = max(found.modalities, key=lambda m: found.modalities[m].alone)
    top = found.modalities[best].alone
    hurts = clear(top, found.fused, found.samples)
    said.append(
        f"Fused, the joint model reaches {_p(found.fused)}; the best modality alone, {best}, {_p(top)}"
        + (": fusing costs accuracy." if hurts else ".")
    )
    said.append(_advice(found, starved, unused, weak, hurts))
    return said


def _advice(found: Diagnosis, starved: Sequence[str], unused: Sequence[str], weak: Sequence[str], hurts: bool) -> str:
    if starved:
        return (
            f"Recommendation: keep {_and(starved)} from being held back. Methods that train in turns (MLA, ReconBoost, "
            "IGM) or hold the stronger modality back (OGM, PMR) are made for this; compare them with Joint over "
            "several seeds by `counterpoise benchmark --methods Joint,MLA,IGM,OGM`."
        )
    if unused:
        return (
            f"Recommendation: the encoder of {_and(unused)} is good, its part in the fusion is not. Try a fusion whose "
            "modalities have heads of their own (--fusion Late), or a loss per modality (MMPareto), before "
            "anything that slows another modality down."
        )
    if len(weak) == len(found.modalities):
        return (
            "Recommendation: nothing here is clearly above chance yet. Train longer, or look at the data and the "
            "learning rate, and ask again."
        )
    if hurts:
        return "Recommendation: no modality is starved, but fusing hurts: try another fusion (--fusion Late, Gated)."
    if weak:
        return (
            f"Recommendation: look at the data and the encoder of {_and(weak)}; no method of balancing is called for."
        )
    return "Recommendation: stay with joint training; nothing here calls for balancing."


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _p(share: float) -> str:
    return f"{100 * share:.1f} %"


def write(found: Diagnosis, out: Path) -> Path:
    """``diagnosis.json``, two pictures and the page ``diagnosis.html``."""
    out.mkdir(parents=True, exist_ok=True)
    said = recommend(found)
    text = json.dumps({**asdict(found), "said": said}, indent=1)
    (out / "diagnosis.json").write_text(text + "\n", encoding="utf-8")
    ms, split = found.modalities, "validation"
    inside = f"in {found.method}"
    groups = {
        **{m: {"alone": [e.alone], inside: [e.inside]} for m, e in ms.items()},
        **{f"{m}, linear": {"alone": [e.probe_alone], inside: [e.probe_inside]} for m, e in ms.items()},
    }
    like = {f"{m} {inside}": f"{m} alone" for m in ms}
    series = {name: [line] for name, line in found.curves.items()}
    pictures: dict[str, tuple[Callable[[], Figure], str]] = {
        "scores": (
            lambda: bars(groups, x=f"{split} accuracy", share=True),
            f"Each modality's own prediction, and a linear classifier on its encoder (chance: {_p(found.chance)}).",
        ),
        "curves": (
            lambda: curves({"validation": series}, y=found.monitor, like=like, share=found.monitor in SHARES),
            f"Solid: trained alone; dashed: {inside}.",
        ),
    }
    body = [
        f"<section><p>One seed ({found.seed}), {found.samples} {split} samples. A difference counts when it exceeds "
        f"{ERRORS:g} standard errors of sampling the {split} samples; the spread between seeds is not in that, so "
        "confirm with several. The test split is not looked at: what you choose by this page can be "
        "tested on it. Gradients are those at the selected weights, in evaluation mode; they and the contributions "
        "are shown and do not enter the verdict.</p>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in said[:-1]) + "</ul>",
        f'<aside class="notice"><strong>{escape(said[-1])}</strong></aside>',
    ]
    for name, (draw, caption) in pictures.items():
        save_png(draw, out / f"diagnosis-{name}.png")
        svg = to_svg(draw, f"diagnosis-{name}", caption)
        body.append(f'<figure class="wide">{svg}<figcaption>{escape(caption)}</figcaption></figure>')
    rows = [
        [
            m,
            f"{100 * e.contribution:+.1f}",
            f"{e.gradient:.3g}",
            "–" if e.alignment is None else f"{e.alignment:+.2f}",
        ]
        for m, e in ms.items()
    ]
    header = ["modality", "contribution (points, Shapley)", "gradient / weights", "cosine with its own loss's gradient"]
    body += [html_table(header, rows, numbers=3)]
    subsets = [[name.replace("+", " + "), _p(share)] for name, share in found.subsets.items()]
    body += [html_table([f"{found.method} given only", f"{split} accuracy"], subsets, numbers=1), "</section>\n"]
    return write_page(out / "diagnosis.html", "Is this model imbalanced?", "\n".join(body))
