"""Label sets and numbers from a table through fit, evaluate, predict, benchmark and data check."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from conftest import in_process
from counterpoise.benchmark import plan as planning
from counterpoise.cli import main
from counterpoise.task import Regression

N = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of two vectors a row, with a class, label sets, columns of labels, a price and two more numbers."""
    path = tmp_path_factory.mktemp("tasks")
    rng = np.random.default_rng(0)
    (path / "x").mkdir()
    with (path / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "first", "second", "kind", "moods", "joy", "fear", "price", "height", "stars"])
        for i in range(N):
            kind = i % 3
            for name, noise in (("first", 0.3), ("second", 1.0)):
                np.save(path / "x" / f"{name}{i}.npy", (np.eye(6)[kind] * 2 + noise * rng.normal(size=6)).astype("f4"))
            moods = [m for m, there in (("joy", kind == 0), ("fear", kind != 1)) if there]
            files = [f"x/first{i}.npy", f"x/second{i}.npy" if i % 10 else ""]
            numbers = [f"{10.5 + 20 * kind + rng.normal():.3f}", f"{1 - kind + 0.1 * rng.normal():.4f}", i % 5 + 1]
            writer.writerow(
                [
                    f"s{i}",
                    *files,
                    "abc"[kind],
                    "|".join(moods) or "|",
                    *(int(m in moods) for m in ("joy", "fear")),
                    *numbers,
                ]
            )
    return path


COLUMNS = ["--data.modalities.first", "Array", "--data.modalities.second", "Array"]


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


def fit(folder, out, *options, method="Joint"):
    data = ["--data", folder / "data.csv", *COLUMNS]
    return run("fit", *data, "--method", method, "--epochs", 20, "--optimizer.lr", 0.2, "--progress", "false",
               "--batch_size", 16, "--run_dir", out, *options)  # fmt: skip


CASES = {
    "sets": (["--data.label", "moods"], "multi-label", ["fear", "joy"], "fused/micro_f1", 0.7),
    "columns": (["--data.label", '["joy", "fear"]'], "multi-label", ["joy", "fear"], "fused/map", 0.7),
    "price": (["--data.label", "price"], "regression", ["price"], "fused/r2", 0.5),
    "two numbers": (["--data.label", '["price", "height"]'], "regression", ["price", "height"], "fused/r2", 0.5),
    "stated": (["--data.label", "stars", "--data.task", "regression"], "regression", ["stars"], "fused/mae", 0.0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "sets" else pytest.mark.slow) for name in CASES]
)
def test_fit_evaluate_predict(folder, tmp_path, capsys, name):
    options, task, names, metric, least = CASES[name]
    assert fit(folder, tmp_path / "run", *options) in (0, None), capsys.readouterr().err
    said = capsys.readouterr().out
    assert ("is taken as" in said or "are taken as" in said) == (name != "stated")
    what = {"multi-label": "2 labels", "regression": "1 number" if len(names) == 1 else "2 numbers"}[task]
    assert f" samples of {what}\n" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["task"], result["classes"]) == (task, names)
    assert result["test"][metric] > least
    assert run("evaluate", tmp_path / "run", "--json") in (0, None)
    again = json.loads(capsys.readouterr().out)
    assert again["scores"] == pytest.approx(result["test"])
    out = tmp_path / "predicted.csv"
    assert run("predict", tmp_path / "run", folder / "data.csv", "--out", out) in (0, None)
    what = "numbers" if task == "regression" else "probabilities"
    assert f"{N} rows of {what}" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == N
    assert {f"fused:{n}" for n in names} <= set(rows[0])
    assert rows[0][f"second:{names[0]}"] == ""  # row 0 lacks it
    if task == "multi-label":
        assert {label for row in rows for label in row["predicted"].split("|")} <= {*names, ""}
    else:
        said = [float(number) for number in rows[1]["predicted"].split("|")]
        assert said == pytest.approx([float(rows[1][f"fused:{n}"]) for n in names], rel=1e-4, abs=1e-4)


def test_labels_that_a_split_lacks_are_said(folder, tmp_path, capsys):
    rows = list(csv.DictReader(io.StringIO((folder / "data.csv").read_text())))
    for i, row in enumerate(rows):
        row["split"] = ("train", "val", "test")[min(i // 40, 2)]
        row["moods"] = row["moods"] if row["split"] != "val" else row["moods"].replace("joy", "").strip("|") or "|"
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data = ["--data", tmp_path / "data.csv", "--data.root", folder, *COLUMNS, "--data.label", "moods"]
    code = run("fit", *data, "--method", "Joint", "--epochs", 1, "--batch_size", 16, "--run_dir", tmp_path / "run")
    said = capsys.readouterr().out
    assert code in (0, None)
    assert "  no validation sample of: 'joy'\n" in said
    assert "no test sample" not in said


@pytest.mark.slow
def test_a_loss_and_a_metric_of_the_task(folder, tmp_path, capsys):
    options = ["--data.label", "price", "--loss", "Huber", "--loss.delta", 0.5, "--monitor", "mae"]
    assert fit(folder, tmp_path / "run", *options, method="OGM") in (0, None), capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["monitor"] == "mae"
    jaccard = "torchmetrics.classification.MulticlassJaccardIndex"
    options = ["--data.label", "kind", "--loss", "CrossEntropy", "--loss.class_weight", "balanced"]
    assert fit(folder, tmp_path / "other", *options, "--metrics", f"[accuracy, {jaccard}]") in (0, None)
    assert "MulticlassJaccardIndex" in capsys.readouterr().out
    assert run("evaluate", tmp_path / "other", "--json") in (0, None)  # torchmetrics is no code of somebody else's
    assert 0 < json.loads(capsys.readouterr().out)["scores"][f"fused/{jaccard}"] <= 1


def test_a_balanced_run_that_ends_early(folder, tmp_path, capsys):
    options = ["--data.label", "kind", "--sampler", "balanced", "--early_stopping", 1, "--monitor", "loss"]
    assert fit(folder, tmp_path / "run", *options, "--optimizer.lr", 0) in (0, None), capsys.readouterr().err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["epochs"], result["stopped_early"]) == (2, True)
    assert run("evaluate", tmp_path / "run") in (0, None)
    assert fit(folder, tmp_path / "other", *options, method="IGM") in (1, 2)
    assert "early_stopping: IGM must train for all its epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.label", "price", "--monitor", "accuracy"], "Unknown metric 'accuracy'"),
        (["--data.label", "moods", "--loss", "Huber"], "Huber is for regression targets; these are multi-label"),
        (["--data.label", "stars"], "column 'stars' holds 5 different numbers, from 1 to 5: they may be classes or"),
        (["--data.label", "kind", "--data.task", "regression"], "must be a finite number; found 'a'"),
        (["--data.label", '["joy", "price"]', "--data.task", "multi-label"], "must be 0 or 1"),
        (
            ["--data.label", '["joy", "fear"]', "--data.task", "single-label"],
            "one class of several is read from one column",
        ),
        (["--data.label", "price", "--data.task", "number"], "Unknown task 'number'"),
        (["--data.label", "price", "--loss", "Hubber"], "Did you mean 'Huber'"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(folder, tmp_path, capsys, options, message):
    assert fit(folder, tmp_path / "run", *options) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_methods_that_are_about_classes_are_refused_before_the_first_run(folder, tmp_path, capsys):
    code = run("benchmark", "--data", folder / "data.csv", *COLUMNS, "--data.label", "price", "--methods", "Joint,PMR",
               "--epochs", 2, "--batch_size", 16, "--seeds", 0, "--out", tmp_path / "out")  # fmt: skip
    assert code == 2
    assert "PMR is defined for single-label targets; these are regression" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.slow  # trains every method
def test_a_comparison_of_numbers(folder, tmp_path, capsys):
    data = ["--data", folder / "data.csv", *COLUMNS, "--data.label", "price"]
    options = ["--epochs", 4, "--batch_size", 16, "--seeds", "0,1", "--progress", "false", "--out", tmp_path / "out"]
    code = run("benchmark", *data, "--methods", "Unimodal,Joint", *options)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| fused rmse |" in table
    assert "gap" not in table  # errors have no unit that all tables share
    (joint,) = [line for line in table.splitlines() if line.startswith("| Joint |")]
    (alone,) = [line for line in table.splitlines() if line.startswith("| Unimodal(second) |")]
    assert ("Δ" in joint, alone.count("Δ +")) == (False, 2)  # rmse and mae are larger
    assert (tmp_path / "out" / "report.html").is_file()


def test_methods_that_need_classes_are_left_out_of_all(capsys):
    methods_of_numbers = planning.method_names("all", Regression(("price",)))
    others = (
        "DOMFN, PMR, ReconBoost, MMCosine, TCMax, CML, MBSD, AMCo, G2D, ReLearning, BSS, IPRM, DataRemixing, "
        "MIDAS, DIMML, AUG"
    )
    assert f"Not defined for regression targets: {others}." in capsys.readouterr().out
    assert not {"PMR", "AUG"} & set(methods_of_numbers)
    assert {"Joint", "IGM", "SMV"} <= set(methods_of_numbers)


@pytest.mark.slow
def test_all_methods_are_those_of_the_task(folder, tmp_path, capsys, monkeypatch):
    started = in_process(monkeypatch, planning)
    data = ["--data", folder / "data.csv", *COLUMNS, "--data.label", "price"]
    settings = tmp_path / "settings.yaml"
    settings.write_text("Joint+SAM: {method: Joint, sam: 0.05}\nAfter: {method: PMR}\n")
    options = ["--epochs", 1, "--batch_size", 16, "--progress", "false", "--seeds", 0, "--out", tmp_path / "out"]
    assert run("benchmark", *data, *options, "--settings", settings) == 0
    assert "Not defined for regression targets: DOMFN, " in capsys.readouterr().out
    rows = {record["label"] for record in json.loads((tmp_path / "out" / "results.json").read_text())["runs"]}
    assert {"Unimodal(first)", "Unimodal(second)", "Joint", "Joint+SAM", "IGM", "SMV"} <= rows
    assert not rows & {"PMR", "After"}
    assert len(started) == len(rows)


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        ("", "has no moods (| says that none applies)"),
        ("joy|", "taken as sets of labels"),
        ("joy|joy", "taken as sets of labels"),
    ],
)
def test_data_check_says_what_labels_are(folder, tmp_path, capsys, cell, line):
    rows = list(csv.DictReader(io.StringIO((folder / "data.csv").read_text())))
    rows[3]["moods"] = cell
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    options = ["--data.root", folder, *COLUMNS, "--data.label", "moods"]
    code = run("data", "check", tmp_path / "data.csv", *options)
    captured = capsys.readouterr()
    assert code == (1 if not cell else 0), captured
    assert line in captured.out + captured.err


@pytest.mark.parametrize(
    ("label", "line"), [("moods", "all: 120 samples; fear 80, joy 40"), ("price", "all: 120 samples; price 8.")]
)
def test_data_check_counts_samples(folder, capsys, label, line):
    assert run("data", "check", folder / "data.csv", *COLUMNS, "--data.label", label) in (0, None)
    assert line in capsys.readouterr().out


@pytest.mark.slow  # trains several times
def test_nothing_is_guessed_from_another_table(folder, tmp_path, capsys):
    assert fit(folder, tmp_path / "run", "--data.label", "price") in (0, None), capsys.readouterr().err
    few = list(csv.DictReader(io.StringIO((folder / "data.csv").read_text())))[:4]  # four numbers look like classes
    with (tmp_path / "few.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, few[0])
        writer.writeheader()
        writer.writerows({**row, "first": folder / row["first"], "second": folder / row["first"]} for row in few)
    capsys.readouterr()
    code = run("evaluate", tmp_path / "run", "--table", tmp_path / "few.csv", "--json")
    assert code in (0, None), capsys.readouterr()
    assert "fused/rmse" in json.loads(capsys.readouterr().out)["scores"]
