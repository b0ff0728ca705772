"""Commands in one directory train each run once, whatever their order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import pytest

from counterpoise.benchmark import plan
from counterpoise.benchmark.plan import done
from counterpoise.cli import main, tune
from counterpoise.metrics.result import read_result
from counterpoise.recipe.recipe import Recipe
from counterpoise.tuning.search import TrialRun

DATA = ["--data", "digits", "--data.size", "120", "--epochs", "1", "--batch_size", "16", "--progress", "false"]
PARAM = "optimizer.lr=choice:0.01,0.02"
COMMANDS = {
    "benchmark": ["benchmark", *DATA, "--methods", "joint", "--seeds", "0", "--num_workers", "0"],
    "study": ["study", "imbalance", *DATA, "--seeds", "0"],
    "diagnose": ["diagnose", *DATA],
    "tune": ["tune", *DATA, "--method", "Joint", "--param", PARAM, "--trials", "2", "--seeds", "0"],
}


@pytest.fixture
def trained(started: list[Recipe], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs of which an epoch was trained, of searches too."""
    inner, ids = plan.command, list[str]()

    def watched(recipe: Recipe, directory: Path) -> Sequence[str]:
        fresh = not (directory / "last.ckpt").exists()
        line = inner(recipe, directory)
        ids.extend([recipe.id] * fresh)
        return line

    def trial(run: TrialRun, directory: Path) -> Sequence[str]:
        fresh = not (directory / "last.ckpt").exists()
        with pytest.raises(SystemExit) as left:
            main([*plain(run.recipe, directory)[3:], "--no_test"])
        ids.extend([run.id] * fresh)
        return [sys.executable, "-S", "-c", f"raise SystemExit({left.value.code or 0})"]

    plain = original
    monkeypatch.setattr(plan, "command", watched)
    monkeypatch.setattr(tune, "command", trial)
    return ids


original: Callable[[Recipe, Path], list[str]] = plan.command


def start(name: str) -> None:
    with pytest.raises(SystemExit) as left:
        main([*COMMANDS[name], "--out", "out"])
    assert not left.value.code


@pytest.mark.slow  # trains and draws
@pytest.mark.parametrize("order", list(map(list, permutations(COMMANDS))), ids="-".join)
def test_each_run_is_trained_once(order: list[str], trained: list[str]) -> None:
    for name in order:
        start(name)
    joint = Recipe.parse([*DATA, "--method", "Joint"])
    alone = [joint.but({"method": "Unimodal", "method.modality": m}) for m in ("audio", "image")]
    rates = [joint.but({"optimizer.lr": rate}) for rate in (0.01, 0.02)]
    wanted = {recipe.id for recipe in (joint, *alone, *rates)}
    assert len(wanted) == 4  # 0.01 is what joint training has by itself
    assert set(trained) <= wanted
    assert len(trained) == len(set(trained))
    assert done(joint, Path("out/runs", joint.id))


def test_a_run_of_a_search_gets_its_test_scores_and_nothing_else(trained: list[str]) -> None:
    start("tune")
    recipe = Recipe.parse([*DATA, "--method", "Joint", "--optimizer.lr", "0.02"])
    if recipe.id not in trained:
        recipe = Recipe.parse([*DATA, "--method", "Joint"])
    directory = Path("out/runs", recipe.id)
    before = read_result(directory)
    assert before is not None
    assert before["test"] is None
    weights = (directory / "best.ckpt").read_bytes()
    with pytest.raises(SystemExit):
        main([*original(recipe, directory)[3:]])
    after = read_result(directory)
    assert after is not None
    assert after["test"]["fused/accuracy"] > 0
    assert after["val"] == before["val"]
    assert (directory / "best.ckpt").read_bytes() == weights
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.slow  # trains and draws
def test_a_run_that_was_begun_without_records_goes_on_without_and_the_page_says_so(trained: list[str]) -> None:
    start("benchmark")
    start("diagnose")
    assert len(trained) == 3
    said = "a run was begun by another command"
    assert said in Path("out/diagnosis.html").read_text()
    recipe = Recipe.parse([*DATA, "--method", "Joint"])
    again = original(recipe.but({"balance": True}), Path("out/runs", recipe.id))
    assert Recipe.parse(again[4:6]).options.balance is False
