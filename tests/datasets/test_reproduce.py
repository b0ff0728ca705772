"""``counterpoise reproduce`` on generated folders of the official layout."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clips import manifest
from test_recipes import MODALITIES, NAMES, SHORT, bert, pytestmark, raw_clips, smaller, write_raw_of  # noqa: F401

from counterpoise._json import to_json
from counterpoise.benchmark import plan
from counterpoise.benchmark.runner import Outcome
from counterpoise.cli import main
from counterpoise.cli.fit import main as fit
from counterpoise.datasets import DATASETS, get, recipes
from counterpoise.datasets.published import published
from counterpoise.metrics.result import result_of, result_text
from counterpoise.replication import conduct, estimate
from counterpoise.replication.asked import chosen
from counterpoise.replication.estimate import _leading

TINY = [
    "--encoders.audio=CNN", "--encoders.visual=CNN", "--epochs=1", "--batch_size=2", "--accelerator=cpu",
    "--data.modalities.visual.init_args.size=32", "--data.modalities.audio.init_args.seconds=0.5",
]  # fmt: skip


def run_here(recipes, runs: Path, **execution) -> Outcome:
    """What the runner does, in this process: the first run is trained and copied to the others, with other scores."""
    outcome = Outcome()
    for recipe in recipes:
        directory = runs / recipe.id
        if plan.done(recipe, directory):
            outcome.skipped.append(recipe.id)
            continue
        command = plan.command(recipe, directory)
        if not outcome.finished:
            assert fit([*command[4:], "--progress", "false"]) == 0
        else:
            first = runs / outcome.finished[0]
            (directory / "metrics.jsonl").write_bytes((first / "metrics.jsonl").read_bytes())
            record = result_of(first)
            assert record is not None
            record |= {"method": recipe.method, "seed": recipe.seed}
            record["test"] = dict.fromkeys(record["test"], len(outcome.finished) / 8)
            (directory / "result.json").write_text(result_text(record))
        outcome.finished.append(recipe.id)
    return outcome


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw") / "CREMA-D"
    raw_clips(root, "cremad")
    return root


def reproduce(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *map(str, arguments)])
    return int(str(end.value.code))


@pytest.fixture(scope="module")
def here():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conduct, "run", run_here)
        yield


@pytest.fixture(scope="module")
def beside(raw, tmp_path_factory, here) -> tuple[list[object], Path, str]:
    """What is asked for, the folder, and what the command said when it had trained and compared two rows."""
    out = tmp_path_factory.mktemp("beside")
    asked = ["cremad", "--root", raw, "--out", out, "--incomplete", *TINY]
    with redirect_stdout(io.StringIO()) as said:
        assert reproduce(*asked, "--seeds", "0,1", "--methods", "mla,unimodal-audio") == 0
    return asked, out, said.getvalue()


def test_a_table_beside_the_published_numbers(beside):
    _, out, said = beside
    assert "4 run(s) to go, about" in said
    assert "Estimated from 3 batches of joint training" in said
    kept = json.loads((out / "table" / "table.json").read_text())
    assert list(kept["rows"]) == ["unimodal-audio", "mla"]
    accuracy, precision = kept["rows"]["mla"]["scores"]
    assert (accuracy["metric"], precision["metric"]) == ("accuracy", "map")
    assert accuracy["published"] == {"value": 79.43, "sd": None, "publication": "igm"}
    runs = {r["seed"]: r for d in (out / "runs").iterdir() if (r := result_of(d)) and r["method"] == "MLA"}
    ours = {seed: 100 * run["test"]["fused/accuracy"] for seed, run in runs.items()}
    assert accuracy["ours"]["seeds"] == pytest.approx({str(seed): value for seed, value in ours.items()})
    assert accuracy["ours"]["mean"] == pytest.approx(sum(ours.values()) / 2)
    assert accuracy["difference"] == pytest.approx(accuracy["ours"]["mean"] - 79.43)
    assert not accuracy["comparable"]
    reasons = "; ".join(accuracy["reasons"])
    assert "there selected on test, here selected on validation" in reasons
    assert f"{7442 - 12} samples are missing here" in reasons
    assert "run with other options: --encoders.audio=CNN" in reasons
    assert "2 seeds here" in reasons
    text = (out / "table" / "table.md").read_text()
    assert text.startswith("# CREMA-D: ours beside the published numbers (selected on validation)")
    assert "79.70 [mla]" in text
    assert "Cecile-hi/Multimodal-Learning-with-Alternating-Unimodal-Adaptation at ab6c184" in text
    assert "selected on validation" in (out / "table" / "report.html").read_text()
    assert (out / "table" / "published.png").stat().st_size > 10_000


def test_started_again_nothing_is_trained_or_timed(beside, capsys, monkeypatch):
    asked, out, _ = beside
    written = []
    monkeypatch.setattr(conduct, "_written", lambda table, *_: written.append(table) or out / "table")
    assert reproduce(*asked, "--seeds", "0,1", "--methods", "mla,unimodal-audio") == 0
    assert json.loads((out / "table" / "table.json").read_text()) == json.loads(to_json(written[0].to_dict()))
    said = capsys.readouterr().out
    assert "4 already done" in said
    assert "to go" not in said


def test_the_published_test_part_selects_only_when_asked_and_is_named(beside, capsys):
    asked, out, _ = beside
    assert not (out / "data" / "as_published.csv").exists()
    assert reproduce(*asked, "--seeds", "0", "--methods", "joint", "--as_published") == 0
    before = {row["id"]: row["split"] for row in manifest(out / "data")}
    after = (out / "data" / "as_published.csv").read_text().splitlines()
    parts = dict(zip(after[0].split(","), zip(*(line.split(",") for line in after[1:]), strict=True), strict=True))
    moved = {"train": "train", "val": "train", "test": "val"}  # OGM-GE's validation part is of its training list
    assert dict(zip(parts["id"], parts["split"], strict=True)) == {i: moved[part] for i, part in before.items()}
    said = capsys.readouterr().out
    assert "selected on test" in said
    for folder, word, other in (("table", "validation", "test"), ("selected_on_test", "test", "validation")):
        kept = json.loads((out / folder / "table.json").read_text())
        assert kept["title"] == f"CREMA-D: ours beside the published numbers (selected on {word})"
        assert kept["selected_on"] == word
        page = (out / folder / "report.html").read_text()
        assert f"(selected on {word})" in page
        assert f"(selected on {other})" not in page
    ours = kept["rows"]["joint"]["scores"][0]
    assert ours["published"]["value"] == 63.31  # the poster has no joint training; the next publication has
    assert not any("here selected on" in reason for reason in ours["reasons"])


@pytest.mark.slow  # trains
def test_options_of_the_rows_are_not_asked_of_the_joint_training_that_is_timed(raw, tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(conduct, "run", lambda *_, **__: Outcome())
    monkeypatch.setattr(conduct, "estimate", lambda joint, *_: timed.append(joint) or estimate.Estimate({}, 0.0, 1, ""))
    asked = ["cremad", "--root", raw, "--out", tmp_path, "--methods", "mla", "--incomplete", *TINY]
    assert reproduce(*asked, "--method.init_args.mode", "released") == 0
    assert [(joint.method, joint.options.epochs) for joint in timed] == [("Joint", 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: "crema"}, "Did you mean 'cremad'?"),
        ({"--root": "nowhere"}, "there is no folder nowhere"),
        ({"--methods": "MMPareta"}, "Did you mean 'mmpareto'?"),
        ({"--methods": ","}, "--methods names no row"),
        ({"--seeds": ""}, "--seeds must be whole numbers separated by commas; got ''"),
        ({"--seeds": "1,1"}, "--seeds must differ from each other; got 1, 1"),
        ({"--split": "speakers"}, "Did you mean 'speaker'?"),
        ({"--method": "MLA"}, "--method is an option of `fit`; here --methods names the methods"),
        ({"--config": "x.yaml"}, "the recipes of the data set are the configurations"),
        ({"--jobs": "0"}, "--jobs must be at least 1"),
        ({"--epochz": "1"}, "--epochs"),
    ],
)
def test_bad_requests_train_nothing(change, said, raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(conduct, "run", lambda *_, **__: pytest.fail("trained"))
    options = {"--root": str(raw), "--out": str(tmp_path), "--methods": "joint", "--incomplete": None}
    name = change.pop(0, "cremad")
    options |= change
    arguments = [part for option, value in options.items() for part in (option, value) if part is not None]
    assert reproduce(name, *arguments, "--accelerator", "cpu") in (1, 2)
    assert said in capsys.readouterr().err


def test_data_that_are_not_as_published_are_refused(raw, tmp_path, capsys):
    assert reproduce("cremad", "--root", raw, "--out", tmp_path, "--methods", "joint") == 2
    said = capsys.readouterr().err
    assert "The data are not as published" in said
    assert "train+val: samples prepared" in said
    assert "--incomplete" in said
    assert not (tmp_path / "runs").exists()


def test_a_split_of_ours_has_no_published_test_part(raw, tmp_path, capsys):
    asked = ["cremad", "--root", raw, "--out", tmp_path, "--incomplete", "--split", "speaker", "--as_published"]
    assert reproduce(*asked) == 2
    assert "--split speaker was made by this library" in capsys.readouterr().err


def test_names_of_rows():
    for name in DATASETS:
        dataset = get(name)
        poster = [row.name for row in chosen(dataset, "poster")]
        assert poster == [n for n in NAMES[name] if n not in ("joint", "igm-released")]
        assert [row.name for row in chosen(dataset, "all")] == list(NAMES[name])
        assert [row.name for row in chosen(dataset, "IGM, igm without sam")] == ["igm-without-sam", "igm-paper"]
        assert [row.name for row in chosen(dataset, "UNIMODAL")] == [f"unimodal-{m}" for m in MODALITIES[name]]
        known = published(name)
        ignored = {"ogm", "domfn", "pmr"} if name == "nvgesture" else set()  # not run there by the poster
        assert all(recipes.get(name, row).published in known for row in set(NAMES[name]) - ignored)


def test_passes_that_methods_state():
    assert _leading("2/M, and one pass over the data per stage", 4) == 0.5
    assert _leading("3, trial runs included", 2) == 3
    with pytest.raises(ValueError, match="as a number first"):
        _leading("some", 2)


def shortened(dataset: str, name: str) -> recipes.PublishedRecipe:
    """A recipe whose method is through in two epochs: stages are no option that all rows have."""
    recipe = WHOLE(dataset, name)
    arguments = SHORT.get(name, {})
    if name.startswith("igm"):
        arguments = {"stages": [1] * len(MODALITIES[dataset]), "rho": 1.0}  # the published radius warns
    method = recipe.options["method"]
    made: dict[str, Any] = {"class_path": method} if isinstance(method, str) else dict(method)
    made["init_args"] = {**made.get("init_args", {}), **arguments}
    return replace(recipe, options={**recipe.options, "method": made})


WHOLE = recipes.get


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_all_rows_of_every_set_take_their_steps(name, bert, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(recipes, "get", shortened)
    root = tmp_path / "raw"
    write_raw_of(name, root)
    options = ["--epochs=2", "--batch_size=2", "--accelerator=cpu", *smaller(name, bert)]
    if name in ("cremad", "kinetics_sounds"):
        options += TINY[:2]
    if name == "nvgesture":
        options += [f"--encoders.{m}=I3D" for m in MODALITIES[name]]
    out = tmp_path / "out"
    asked = [name, "--root", root, "--out", out, "--methods", "all", "--seeds", "0", "--jobs", "2", "--incomplete"]
    code = reproduce(*asked, *options)
    kept = json.loads((out / "table" / "table.json").read_text())
    gone = [n for n, row in kept["rows"].items() if not all(s["ours"]["seeds"] for s in row["scores"])]
    assert (code, gone) == (0, [])
