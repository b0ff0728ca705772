from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from conftest import Run, in_process
from counterpoise.cli import tune
from counterpoise.metrics import LOWER_IS_BETTER

SEARCH = ["--method", "ogm", "--param", "method.alpha=float:0.01:1:log", "--param", "fusion=choice:Concat,Sum"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    return in_process(monkeypatch, tune)


@pytest.mark.slow  # trains a whole search
def test_search_and_train_with_the_best(run: Run, tiny: Sequence[str], here: list[list[str]]) -> None:
    arguments = ["tune", *tiny, *SEARCH, "--param", "optimizer.lr=float:0.001:0.1", "--seeds", "0,1", "--out", "t"]
    done = run(*arguments, "--trials", "2")
    assert done.code == 0, done.out + done.err
    assert len(here) == 4
    assert "Trials: 2 finished." in done.out
    assert "counterpoise fit --config t/best.yaml --run_dir t/best" in done.out
    assert {p.name for p in Path("t").iterdir()} == {
        "best.yaml", "history.png", "history.svg", "runs", "slices.png", "slices.svg", "study.json", "trials.csv",
        "trials.json", "tuning.db", "tuning.html",
    }  # fmt: skip
    found = json.loads(Path("t/trials.json").read_text())["trials"]
    best = max(found, key=lambda row: row["score"])
    assert best["score"] == pytest.approx(sum(best["seeds"].values()) / 2)
    for row in found:
        for folder, score in zip(row["runs"], row["seeds"].values(), strict=True):
            result = json.loads(Path(f"t/runs/{folder}/result.json").read_text())
            assert result["test"] is None  # no trial sees the test split
            assert result["val"]["fused/accuracy"] == score
            assert result["fusion"] == row["fusion"]
    with Path("t/trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["method.alpha"]) for row in table] == [row["method.alpha"] for row in found]
    assert "</html>" in Path("t/tuning.html").read_text()

    config = yaml.safe_load(Path("t/best.yaml").read_text())
    assert config["method"]["init_args"]["alpha"] == best["method.alpha"]
    assert config["optimizer"]["init_args"]["lr"] == best["optimizer.lr"]
    trained = run("fit", "--config", "t/best.yaml", "--run_dir", "t/best")
    assert trained.code == 0, trained.err
    result = json.loads(Path("t/best/result.json").read_text())
    assert result["val"]["fused/accuracy"] == best["seeds"]["0"]
    assert result["test"]["fused/accuracy"] > 0

    # the same command goes on to the number of trials; another one does not mix with it
    assert "Trials: 3 finished." in run(*arguments, "--trials", "3").out
    assert len(here) == 6
    other = run(*arguments, "--epochs", "2")
    assert other.code == 2
    assert "--out t holds the search OGM-" in other.err


def test_without_any_score(run: Run, tiny: Sequence[str], here: list[list[str]]) -> None:
    done = run("tune", *tiny, *SEARCH, "--batch_size", "900", "--trials", "1", "--out", "t")
    assert done.code == 1
    assert "Trials: 1 failed.\nNo trial has a score.\n0: seed 0 failed with exit status 1; log: " in done.out
    assert not Path("t/best.yaml").exists()


@pytest.mark.slow
def test_a_metric_by_import_path_says_which_end_is_the_best(
    run: Run, tiny: Sequence[str], here: list[list[str]]
) -> None:
    metric = "torchmetrics.CalibrationError"
    LOWER_IS_BETTER.discard(metric)  # nothing of this process has asked for it yet
    done = run("tune", *tiny, *SEARCH, "--monitor", metric, "--trials", "2", "--out", "t")
    assert done.code == 0, done.err
    scores = {row["trial"]: row["score"] for row in json.loads(Path("t/trials.json").read_text())["trials"]}
    assert f"Best: trial {min(scores, key=scores.__getitem__)}, validation {metric}" in done.out
    assert len(set(scores.values())) == 2
    unknown = run("tune", *tiny, *SEARCH, "--monitor", "acuracy", "--trials", "1", "--out", "u")
    assert unknown.code == 2
    assert "Did you mean 'accuracy'" in unknown.err


@pytest.mark.slow  # ten seconds
def test_real_processes_and_a_loss(run: Run, tiny: Sequence[str]) -> None:
    done = run("tune", *tiny, *SEARCH, "--monitor", "loss", "--trials", "2", "--jobs", "2", "--out", "t")
    assert done.code == 0, done.err
    scores = {row["trial"]: row["score"] for row in json.loads(Path("t/trials.json").read_text())["trials"]}
    assert f"Best: trial {min(scores, key=scores.__getitem__)}, validation loss" in done.out
    assert "67 training, 20 validation" in next(Path("t/runs/logs").glob("OGM-*-s0-*.log")).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--param", "method.beta"], "--param must be NAME=float:LOW:HIGH, NAME=int:LOW:HIGH (either with :log"),
        (["--param", "method.alhpa=float:0:1"], "--method: Unknown option of OGM 'alhpa'. Did you mean 'alpha'?"),
        (["--param", "epocs=int:1:2"], "Unknown option '--epocs'. Did you mean '--epochs'?"),
        (["--param", "optimizer.lr=float:-1:1"], "lr must be a finite number"),
        (["--param", "schedule=choice:Cosine,Sum"], "--schedule: Unknown schedule 'Sum'."),
        (["--param", "seed=int:0:9"], "--param seed: this cannot vary between trials."),
        (["--param", "method.alpha=float:0:1"], "--param names method.alpha twice."),
        (["--method.alpha", "0.3"], "--method.alpha is fixed and searched by --param; leave one out."),
        (["--trial", "3"], "Unknown option '--trial'. Did you mean '--trials'?"),
        (["--trials", "0"], "--trials must be at least 1; got 0."),
        (["--seeds", "1,1"], "--seeds must differ from each other; got 1, 1."),
        (["--seed", "1"], "--seed is an option of `fit`; here --seeds gives the seeds."),
        (["--pruner", "medium"], "Unknown --pruner 'medium'. Did you mean 'median'?"),
        (["--method", "ogn"], "--method: Unknown method 'ogn'. Did you mean 'OGM'?"),
    ],
)
def test_messages(arguments: list[str], message: str, run: Run, tiny: Sequence[str]) -> None:
    done = run("tune", *tiny, *SEARCH, "--out", "t", *arguments)
    assert done.code == 2
    assert done.err.startswith(f"counterpoise: {message}"), done.err
    assert not Path("t").exists()


def test_without_parameters(run: Run, tiny: Sequence[str]) -> None:
    done = run("tune", *tiny, "--method", "OGM", "--out", "t")
    assert done.code == 2
    assert "--param is missing: what may vary, as NAME=float:LOW:HIGH" in done.err


def test_without_optuna(run: Run, tiny: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = run("tune", *tiny, *SEARCH, "--out", "t")
    assert done.code == 1
    assert "counterpoise tune needs the package optuna: pip install 'counterpoise[tune]'" in done.err
