"""The studies that look inside finished runs, on the embedded data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from counterpoise.analysis import LayerSpectrum, SplitLoss, Surface, load, sample, value
from counterpoise.analysis import Path as Line
from counterpoise.build import build_model
from counterpoise.cli import main
from counterpoise.encoders import default_encoder
from counterpoise.engine.state import mix, seed_everything
from counterpoise.recipe.trained import open_run
from counterpoise.studies.interaction import directions

pytestmark = pytest.mark.slow  # trains six runs and the studies of them

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "2", "--batch_size", "16", "--progress", "false"]
STUDIES = {
    "interaction": [],
    "landscape": ["--methods", "IGM", "--samples", "20", "--points", "3", "--probes", "2"],
    "singular-values": [],
    "training-time": ["--methods", "IGM"],
    "scope": ["--shares", "1.0"],
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable) -> Iterator[Path]:
    """All of them with one seed, in one directory."""
    out = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        started = in_this_process(patch)
        for name, own in STUDIES.items():
            with pytest.raises(SystemExit) as left:
                main(["study", name, *DATA, *own, "--out", str(out), "--seeds", "0"])
            assert not left.value.code
        # IGM itself is in all five, plain alternation in two; nothing runs twice
        assert len(started) == len({config.id for config in started}) == 6
        yield out


def result(out: Path, name: str) -> dict:
    return json.loads((out / name / "data.json").read_text())["result"]


def test_stages_coincide_until_a_direction_acts(out: Path) -> None:
    found = result(out, "interaction")
    assert found["stages"] == ["audio 1", "image 1", "audio 2", "image 2"]
    rows = {name: by_seed["0"] for name, by_seed in found["rows"].items()}
    assert list(rows) == ["all directions", "without audio→image", "without image→audio", "no direction"]
    assert len({row["fused"][0] for row in rows.values()}) == 1
    assert rows["all directions"]["fused"][1] == rows["without image→audio"]["fused"][1]
    assert rows["no direction"]["fused"][1] == rows["without audio→image"]["fused"][1]


@pytest.mark.parametrize(("names", "expected"), [("ab", ["a->b", "b->a"]), ("abc", ["a->b", "b->c", "c->a"])])
def test_directions_go_round(names: str, expected: list[str]) -> None:
    assert directions(list(names)) == expected


def test_surfaces_have_the_trained_weights_in_the_middle(out: Path) -> None:
    surfaces = result(out, "landscape")["surfaces"]
    assert list(surfaces) == ["IGM, audio", "IGM, image", "IGM, fused"]
    for found in surfaces.values():
        surface = load(out / "landscape" / found["file"], Surface)
        assert surface.loss[1, 1] == pytest.approx(surface.centre, rel=1e-5)
        assert surface.loss.std() > 0
        assert surface.line[1] == pytest.approx(surface.centre, rel=1e-5)
    with np.load(out / "landscape" / "IGM-fused.npz") as kept:
        np.testing.assert_array_equal(kept["loss"][1], surface.line)  # what the figure shows needs no training
    page = (out / "landscape" / "section.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert len(captions) == 5
    assert all("normalisation measured anew at every point" in caption for caption in captions)
    assert {path.stem for path in (out / "landscape").glob("*.png")} == {
        "contours",
        "profiles",
        "reliefs",
        "line-training",
        "line-training-accuracy",
    }


def igm(out: Path) -> Path:
    """The run of IGM as it is by itself."""
    kept = json.loads((out / "training-time" / "data.json").read_text())
    return out / "runs" / kept["runs"]["IGM"][0]


def test_lines_lead_from_the_weights_before_training_to_the_trained_ones(out: Path) -> None:
    found = result(out, "landscape")
    assert [(item["start"], item["end"]) for item in found["lines"]] == [("before training", "IGM")] * 3
    run = igm(out)
    trainer, job, _ = open_run(str(run))
    split = sample(job.splits.train, 20)
    for item in found["lines"]:
        line = load(out / "landscape" / item["file"], Line)
        centre = load(out / "landscape" / found["surfaces"][f"IGM, {item['prediction']}"]["file"], Surface).centre
        assert line.loss[line.position == 1] == pytest.approx(centre, rel=1e-5)
        loss = SplitLoss(
            trainer.model, split, item["prediction"], statistics="recomputed", criterion=trainer.model.task.hits
        )
        assert line.accuracy[line.position == 1] == pytest.approx(value(loss), abs=1e-6)
    seed_everything(mix(0, "model"))  # what the run drew its weights from
    fresh = build_model(
        {m: default_encoder(v.kind, v.shape, **v.options) for m, v in job.source.layouts().items()},
        "Late",
        num_classes=10,
        example=job.splits.train,
    )
    start = load(out / "landscape" / found["lines"][2]["file"], Line)
    expected = value(SplitLoss(fresh, split, statistics="recomputed", predict=trainer.method.predict))
    assert start.loss[start.position == 0] == pytest.approx(expected, rel=1e-5)


def test_scope_says_what_it_covers(out: Path) -> None:
    found = result(out, "scope")["covered"]
    run = igm(out)
    model = open_run(str(run))[0].model
    for m in ("audio", "image"):
        head, encoder = (list(part.parameters()) for part in (model.head_of(m), model.encoders[m]))
        total = sum(p.numel() for p in [*head, *encoder])
        assert found["head"][m]["in_scope"] == pytest.approx(sum(p.numel() for p in head) / total)
        assert found["head"][m]["modified"] == pytest.approx(sum(p.numel() for p in head if p.ndim > 1) / total)
        assert found["head"][m]["layers"] == ["head.0", "head.2", "head.3"]
        weights = [p for p in [*head, *encoder] if p.ndim > 1]
        assert found["100 %"][m]["modified"] == pytest.approx(sum(p.numel() for p in weights) / total)
        assert found["off"][m] == {"in_scope": 0, "modified": 0, "layers": []}
    page = (out / "scope" / "section.html").read_text()
    assert f"{100 * found['head']['audio']['modified']:.1f}</td>" in page


def test_a_grid_has_a_row_through_the_trained_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "landscape", *DATA, "--points", "4", "--out", str(tmp_path), "--seeds", "0"])
    assert "--points: must be odd and at least 3; got 4. Did you mean 5?" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*"))


def test_spectra_are_of_the_heads_layers(out: Path) -> None:
    found = result(out, "singular-values")["spectra"]
    assert {item["modality"] for item in found} == {"audio", "image"}
    assert {item["row"] for item in found} == {"IGM", "IGM without SAM"}
    assert len(found) == 2 * 2 * 3
    for item in found:
        values = load(out / "singular-values" / item["file"], LayerSpectrum).values
        assert item["mean"] == pytest.approx(values.mean())
        assert (np.diff(values) <= 0).all()


def test_time_and_scope_are_those_of_the_runs(out: Path) -> None:
    row = result(out, "training-time")["rows"]["IGM"]["0"]
    record = json.loads((igm(out) / "result.json").read_text())
    wanted = {k: record[k] for k in ("seconds", "epochs")} | {"score": record["test"]["fused/accuracy"]}
    assert row == wanted | record["cost"]
    # four stages of one epoch and one modality, each step climbing and descending, and the passes between them
    batches = 4 * (83 // 16) * 16
    assert row["backward"] == pytest.approx(2 * batches / (2 * 83), abs=1e-3)
    assert row["forward"] > row["backward"]
    page = (out / "training-time" / "section.html").read_text()
    assert f"{row['backward']:.1f}</td>" in page
    assert f"{row['cpu_seconds']:.1f}</td>" in page
    assert list(result(out, "scope")["rows"]) == ["off", "head", "100 %"]


def test_one_page_shows_all(out: Path) -> None:
    page = (out / "studies.html").read_text()
    assert page.count("<section>") == len(STUDIES)
    assert page.count("<svg") == 12
    for name in STUDIES:
        assert list((out / name).glob("*.png"))
