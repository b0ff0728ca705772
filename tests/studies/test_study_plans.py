from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from counterpoise.analysis import features, linear_probe
from counterpoise.benchmark.plan import Row, base, method_names, plan
from counterpoise.cli import main
from counterpoise.method import Method
from counterpoise.methods import IGM, Joint
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.recipe import Recipe
from counterpoise.recipe.trained import open_run
from counterpoise.studies.base import Given, complete_seed, file_name
from counterpoise.studies.pages import STUDIES, study_named
from counterpoise.testing import trainer_for

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "1", "--batch_size", "16", "--progress", "false"]


def study(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["study", *arguments])
    return int(str(left.value.code or 0))


def kept(name: str) -> dict:
    return json.loads(Path("out", name, "data.json").read_text())


@pytest.mark.slow  # trains several studies
def test_studies_share_runs_resume_and_draw_again(started: list[Recipe]) -> None:
    common = [*DATA, "--out", "out", "--seeds", "0,1"]
    assert study("imbalance", *common) == 0
    assert len(started) == 6  # two modalities and joint, two seeds
    found = kept("imbalance")
    assert found["data"]["train"] + found["data"]["val"] + found["data"]["test"] == 150
    assert found["seeds"] == [0, 1]
    drawn = found["result"]["curves"]["accuracy"]
    assert set(drawn) == {"audio alone", "audio in Joint", "image alone", "image in Joint"}
    # the curve is the run's own, of the modality that the run trained
    (first,) = [i for i in found["runs"]["image alone"] if "-s0-" in i]
    line = json.loads(Path("out/runs", first, "metrics.jsonl").read_text())
    assert drawn["image alone"][0] == [line["val/image/accuracy"]]
    assert json.loads(Path("out/runs", first, "result.json").read_text())["label"] == "Unimodal(image)"

    assert study("comparison", *common, "--methods", "joint") == 0
    assert len(started) == 6  # all of them were there
    assert study("imbalance", *common, "--seeds", "0") == 0
    assert len(started) == 6
    # a lost result is made again, and nothing else
    Path("out/runs", first, "result.json").unlink()
    Path("out/runs", first, "last.ckpt").unlink(missing_ok=True)
    assert study("imbalance", *common) == 0
    assert [config.id for config in started[6:]] == [first]

    before = Path("out/studies.html").read_text()
    drawing = Path("out/imbalance/curves.svg").read_text()
    assert "accuracy" in drawing
    Path("out/imbalance/curves.png").unlink()
    assert study("imbalance", "--out", "out", "--redraw") == 0
    assert Path("out/imbalance/curves.png").stat().st_size > 1000
    assert Path("out/imbalance/curves.svg").read_text() == drawing
    page = Path("out/studies.html").read_text()
    assert page == before
    assert page.index("Modality imbalance") < page.index("<h2>Comparison")
    assert "seeds 0, 1" in page
    assert len(started) == 7


@pytest.mark.slow
def test_ablation_separates_taking_turns(started: list[Recipe]) -> None:
    assert study("ablation", *DATA, "--out", "out", "--seeds", "0") == 0
    rows = kept("ablation")["result"]["rows"]
    assert list(rows) == ["joint", "joint + SAM", "turns", "turns + SAM", "turns + GM", "turns + SAM + GM (IGM)"]
    assert {tuple(found) for found in rows.values()} == {("audio", "image", "fused")}
    settings = [
        Path("out/runs", i, "config.yaml").read_text() for ids in kept("ablation")["runs"].values() for i in ids
    ]
    assert all("fusions.Late" in text or "fusion: null" in text for text in settings)
    assert sum("sam: 0.05" in text for text in settings) == 1
    assert sum("gm: false" in text for text in settings) == 2
    page = Path("out/studies.html").read_text()
    difference = 100 * (rows["turns"]["fused"]["0"] - rows["joint"]["fused"]["0"])
    assert "<td>turns − joint</td>" in page
    assert f"{difference:+.1f}</td>" in page


def test_sensitivity_of_any_option(started: list[Recipe]) -> None:
    sweep = ["--method", "joint", "--parameter", "optimizer.lr", "--values", "0.01,1e-1", "--metrics", "accuracy, loss"]
    assert study("sensitivity", *DATA, "--out", "out", "--seeds", "0", *sweep) == 0
    found = kept("sensitivity")
    panel = found["result"]["panels"]["optimizer.lr"]
    assert list(panel) == ["accuracy", "loss"]
    assert set(panel["accuracy"]) == {"0.01", "1e-1"}
    (first,) = found["runs"]["optimizer.lr=1e-1"]
    scores = json.loads(Path("out/runs", first, "result.json").read_text())["test"]
    assert panel["accuracy"]["1e-1"] == {"0": scores["fused/accuracy"]}
    assert panel["loss"]["1e-1"] == {"0": scores["fused/loss"]}
    # a loss is no share: it has a figure of its own, and no per cent
    drawn = Path("out/sensitivity/sweep-loss.svg").read_text()
    assert "fused test loss" in drawn
    assert "± sd" not in drawn  # of one seed
    assert "(%)" in Path("out/sensitivity/sweep.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["imbalence"], "imbalance"),
        (["imbalance", "--out", "o", "--metod", "MLA"], "--metod"),
        (["sensitivity", *DATA, "--out", "o", "--method", "MLA", "--values", "1"], "needs --parameter"),
        (["sensitivity", *DATA, "--out", "o", "--method", "MLA"], "needs --parameter"),
        (["sensitivity", *DATA, "--out", "o", "--parameter", "method.tau", "--values", "1,x"], "must be numbers"),
        (["sensitivity", *DATA, "--out", "o", "--metrics", "accuracy,mapp"], "map"),
        (["sensitivity", *DATA, "--out", "o", "--metrics", ","], "--metrics"),
        (["scope", *DATA, "--out", "o", "--shares", "30"], "--shares must be shares between 0 and 1"),
        (["scope", *DATA, "--out", "o", "--shares", "0.3,0.30"], "twice"),
        (["sensitivity", *DATA, "--out", "o", "--parameter", "method.tua", "--values", "1"], "tau"),
        (["comparison", *DATA, "--out", "o", "--methods", "Jiont"], "Joint"),
        (["scope", *DATA, "--out", "o", "--seeds", "x"], "--seeds"),
    ],
)
def test_wrong_arguments_name_the_remedy(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(*arguments) == 2
    assert said in capsys.readouterr().err
    assert not Path("o").exists()


def test_files_of_arrays_are_told_apart_by_any_name() -> None:
    names = ["a b", "a-b", "a/b", "音", "画", "a_b"]
    assert len({file_name("IGM", name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9-]+", file_name("IGM", name)) for name in names)
    assert file_name("IGM without SAM", "s0", "audio", "64x10") == "IGM-without-SAM-s0-audio-64x10"


def test_one_seed_that_shows_every_row() -> None:
    assert complete_seed([("Joint", 0), ("Joint", 1), ("IGM", 1), ("IGM", 2)]) == 1
    assert complete_seed([("Joint", 3), ("IGM", 3), ("IGM", 2), ("Joint", 2)]) == 2


@pytest.mark.slow
def test_the_comparison_probes_what_each_run_trained(started: list[Recipe]) -> None:
    assert study("comparison", *DATA, "--out", "out", "--seeds", "0", "--methods", "mmcosine", "--probes") == 0
    assert len(started) == 3
    found = kept("comparison")["result"]
    assert {row: set(cells) for row, cells in found["probes"].items()} == {
        "audio alone": {"audio"}, "image alone": {"image"}, "MMCosine": {"audio", "image"}
    }  # fmt: skip
    assert all(set(cell) == {"0"} for cells in found["probes"].values() for cell in cells.values())
    for config in started:
        trainer, job, _ = open_run(str(Path("out", "runs", config.id)))
        row = "MMCosine" if config.method == "MMCosine" else f"{trainer.method.reads(('audio', 'image'))[0]} alone"
        for m, cell in found["probes"][row].items():
            parts = [features(trainer.model, split, m) for split in (job.splits.train, job.splits.test)]
            assert cell[str(config.seed)] == pytest.approx(linear_probe(*parts).score)
    page = Path("out", "studies.html").read_text()
    assert "Linear probes" in page
    assert "cosines with the weights of its slice of the fused layer (MMCosine)" in page


@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_the_comparison_has_igm_without_sam_and_joint_training_at_its_cost(epochs: int) -> None:
    recipe = Recipe.parse(["--data", "digits", "--method", "Joint", "--epochs", str(epochs)])
    given = Given(Namespace(methods="mla,igm"), ("a",), recipe, [0], Path(), Path())
    rows = {row.name: row for row in study_named("comparison").plan(given)}
    assert list(rows) == ["a alone", "MLA", "IGM", "IGM without SAM", "Joint + SAM", "Joint, epochs doubled"]
    assert rows["Joint + SAM"].options == {"sam": IGM().rho}
    assert rows["Joint, epochs doubled"].options == {"epochs": 2 * epochs}


@pytest.mark.parametrize("options", [{"sam": 0.05}, {"epochs": 4}])
def test_joint_training_at_the_cost_of_igm_has_its_backward_passes(options: dict[str, float]) -> None:
    def backward(make: Callable[[], Method], fusion: str, **options: Any) -> float:
        trainer, data = trainer_for(make, fusion=fusion, **{"epochs": 2, **options})
        return trainer.run(data)["cost"]["backward"]

    assert backward(Joint, "Concat", **options) == pytest.approx(backward(IGM, "Late"), rel=0.05)


def test_rows_that_say_the_default_share_its_runs() -> None:
    rows = [Row("a", "IGM"), Row("b", "IGM", {"method.tau": "0.4"}), Row("c", "IGM", {"method.tau": "1e-3"})]
    found = {name: recipe.id for name, (recipe,) in plan(base(DATA, "Joint", "test"), rows, [0]).items()}
    assert found["a"] == found["b"]
    assert len(set(found.values())) == 2
    same = plan(base(DATA, "IGM", "test"), [Row("c", "IGM", {"method.tau": 0.001}), Row("d", "Joint")], [0])
    assert same["c"][0].id == found["c"]


def test_unimodal_rows_get_their_own_modality() -> None:
    rows = [Row(m, "Unimodal", {"method.modality": m}) for m in ("image", "audio")]
    for name, (recipe,) in plan(base(DATA, "Joint", "test"), rows, [3]).items():
        assert recipe.options.method.init_args.modality == name


def test_all_methods_are_those_that_need_no_option() -> None:
    assert "Unimodal" not in method_names("all")
    assert method_names("igm, joint,IGM") == ["IGM", "Joint"]
    with pytest.raises(UsageError, match="MLA"):
        method_names("MLAA")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_explains_itself(name: str) -> None:
    module = study_named(name)
    assert 150 < len(module.ABOUT) < 1200
    assert "original" in module.ABOUT


@pytest.mark.slow
def test_several_studies_share_one_queue(started: list[Recipe]) -> None:
    several = ["--out", "out", "--seeds", "0", "--scope.shares", "1.0", "--comparison.methods=joint"]
    assert study("imbalance,comparison,scope", *DATA, *several) == 0
    names = [config.id.split("-s0-")[0] for config in started]
    assert sorted(names) == [
        "IGM", "IGM-gm-False", "IGM-scope-1", "Joint", "Unimodal-modality-audio", "Unimodal-modality-image",
    ]  # fmt: skip
    assert list(kept("scope")["result"]["rows"]) == ["off", "head", "100 %"]
    page = Path("out/studies.html").read_text()
    assert page.count("<section>") == 3
    Path("out/scope/scores.png").unlink()
    assert study("imbalance,scope", "--out", "out", "--redraw") == 0
    assert Path("out/scope/scores.png").is_file()
    assert study("imbalance,scope", *DATA, "--out", "out", "--scope.sharez", "1") == 2
    assert study("imbalance,scop", *DATA, "--out", "out") == 2
