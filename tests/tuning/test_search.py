"""The search with runs that only pretend to train."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from counterpoise.benchmark.runner import Outcome, drive
from counterpoise.tuning import database, results
from counterpoise.tuning.database import CONTINUES, KILLS, RETRIES, connected, experimental
from counterpoise.tuning.search import Search, TrialRun
from counterpoise.tuning.space import parameter

SPACE = [parameter("x=float:0:1"), parameter("way=choice:up,down")]


@dataclass(frozen=True)
class Settings:
    """As much of a recipe as a search needs."""

    x: str = ""
    way: str = ""
    seed: int = 0

    def but(self, changes: dict[str, Any]) -> Settings:
        return replace(self, **changes)

    @property
    def id(self) -> str:
        return f"{self.way}-{self.x}-s{self.seed}"


FAKE = """
import json, os, pathlib, sys, time
directory, kind, seed, trial, x, way = pathlib.Path(sys.argv[1]), *sys.argv[2:]
assert way in ("up", "down"), sys.argv
seed, x = int(seed), float(x)
directory.mkdir(parents=True, exist_ok=True)
tries = len(list(directory.glob("try*")))
(directory / f"try{tries}").touch()
for epoch in range(1, 5):
    with (directory / "metrics.jsonl").open("a" if epoch > 1 else "w") as file:
        file.write(json.dumps({"epoch": epoch, "val/fused/accuracy": x * epoch / 4}) + "\\n")
    if kind == "slow" and x < 0.5 and epoch == 3:
        time.sleep(60)
    if kind == "killed" and tries < 1 or kind == "doomed":
        os.kill(os.getpid(), 9)
    if kind == "running" and epoch == 2 and trial == "1":  # everything goes at once
        os.kill(os.getppid(), 9)
        os._exit(1)
    while kind == "outlives" and epoch == 3 and not (directory.parents[1] / "go").exists():
        time.sleep(0.05)
if kind == "bad" and seed == 1:
    raise ValueError("diverged")
score = float("nan") if kind == "nan" and trial == "0" else x + seed
(directory / "result.json").write_text(json.dumps({"val": {"fused/accuracy": score}}))
"""


def fake(kind: str = "good"):
    def command(run: TrialRun, directory: Path) -> list[str]:
        own = [run.seed, run.trial, run.recipe.x, run.recipe.way]
        return [sys.executable, "-S", "-c", FAKE, str(directory), kind, *map(str, own)]

    return command


OPENED = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    OPENED.close()


def search(
    folder: Path, trials: int, seeds: tuple[int, ...] = (0,), *, pruner: str = "none", warmup: int = 1
) -> Search:
    folder.mkdir(exist_ok=True)
    url = f"sqlite:///{folder / 'tuning.db'}"
    study, storage = OPENED.enter_context(connected(url, "s", "maximize", pruner, warmup=1, seed=0))
    return Search(study, storage, SPACE, Settings(), seeds, trials, folder / "trials", "accuracy")


def go(found: Search, kind: str = "good", jobs: int = 1) -> Outcome:
    with found.leaving():
        return drive(found, fake(kind), found.folder, jobs=jobs, console=Console(file=io.StringIO()), patience=30)


def rows(found: Search) -> list[dict]:
    return results.rows(found.study, SPACE)


@pytest.mark.slow  # trains several searches
def test_a_search_that_was_continued_draws_the_same_values(tmp_path: Path) -> None:
    whole, part = search(tmp_path / "whole", 6), search(tmp_path / "part", 4)
    go(whole)
    go(part)
    assert len(rows(part)) == 4
    go(search(tmp_path / "part", 4))
    assert len(rows(part)) == 4
    go(search(tmp_path / "part", 6))
    drawn = [[(row["x"], row["way"]) for row in rows(found)] for found in (whole, part)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 6
    assert [row["state"] for row in rows(whole)] == ["finished"] * 6


def test_the_score_is_the_mean_over_the_seeds_and_the_first_reports(tmp_path: Path) -> None:
    found = search(tmp_path, 2, (0, 3))
    assert len(go(found, jobs=2).finished) == 4
    for row in rows(found):
        assert row["score"] == pytest.approx(row["x"] + 1.5)
        assert row["seeds"] == {"0": pytest.approx(row["x"]), "3": pytest.approx(row["x"] + 3)}
        assert row["curve"] == [pytest.approx(row["x"] * epoch / 4) for epoch in range(1, 5)]


def test_a_score_that_is_no_number_fails_its_trial_alone(tmp_path: Path) -> None:
    found = search(tmp_path, 3)
    go(found, "nan")
    assert [row["state"] for row in rows(found)] == ["failed", "finished", "finished"]
    assert "validation accuracy is nan" in str(rows(found)[0])


@pytest.mark.parametrize("kind", ["good", "slow"])  # one has ended before it is looked at, the other must be stopped
def test_a_hopeless_trial_is_pruned_by_its_first_seed(tmp_path: Path, kind: str) -> None:
    found = search(tmp_path, 6, (0, 1), pruner="median")
    for x in (0.9, 0.8, 0.9, 0.8, 0.9, 0.1):
        found.study.enqueue_trial({"x": x, "way": "up"})
    outcome = go(found, kind)
    assert [row["state"] for row in rows(found)] == ["finished"] * 5 + ["pruned"]
    assert len(rows(found)[-1]["curve"]) == 2  # not in the first epoch
    first, second = rows(found)[-1]["runs"]
    assert (tmp_path / "trials" / first).exists()
    assert not (tmp_path / "trials" / second).exists()
    assert outcome.ended_early == ([first] if kind == "slow" else [])
    assert found.study.best_trial.number in (0, 2, 4)


def test_a_failing_trial_counts_and_is_not_repeated(tmp_path: Path) -> None:
    found = search(tmp_path, 2, (0, 1, 2))
    go(found, "bad")
    assert [row["state"] for row in rows(found)] == ["failed"] * 2
    assert "seed 1 failed with exit status 1; log: " in rows(found)[0]["error"]
    assert not (tmp_path / "trials" / rows(found)[0]["runs"][2]).exists()


def test_a_killed_trial_goes_on_in_its_folder(tmp_path: Path) -> None:
    found = search(tmp_path, 2)
    go(found, "killed")
    assert [(row["state"], row["trial"]) for row in rows(found)] == [("finished", 1), ("finished", 3)]
    trials = found.study.trials
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE"] * 2
    assert trials[0].params == trials[1].params
    assert len(list((tmp_path / "trials" / rows(found)[0]["runs"][0]).glob("try*"))) == 2


def test_a_trial_that_is_always_killed_stays_failed(tmp_path: Path) -> None:
    found = search(tmp_path, 1)
    go(found, "doomed")
    (row,) = rows(found)
    assert row["state"] == "failed"
    assert "was killed by SIGKILL" in row["error"]
    assert len(found.study.trials) == 1 + RETRIES


def test_what_an_interruption_leaves_is_taken_up_first(tmp_path: Path) -> None:
    found = search(tmp_path, 2, (0, 1))
    with found.leaving():
        config = found.next()
        assert config is not None
        directory = found.folder / config.id
        subprocess.run(fake()(config, directory), check=True)  # the first seed is finished, the second is not begun
    assert [t.state.name for t in found.study.trials] == ["FAIL", "WAITING"]
    again = search(tmp_path, 2, (0, 1))
    go(again)
    assert [row["state"] for row in rows(again)] == ["finished", "finished"]
    assert again.study.trials[1].user_attrs[CONTINUES] == [0]
    assert again.study.trials[1].user_attrs[KILLS] == 0
    assert len(list(directory.glob("try*"))) == 1


@pytest.mark.parametrize("how", ["finished", "interrupted"])
def test_trials_of_a_dead_process_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(database, "GRACE", 1)
    dead, found = search(tmp_path, 1), search(tmp_path, 1)
    config = dead.next()
    assert config is not None
    started = time.monotonic()
    go(found)
    assert time.monotonic() - started < 30
    (row,) = rows(found)
    assert (row["state"], row["runs"]) == ("finished", [config.id])
    assert found.study.trials[1].user_attrs[CONTINUES] == [0]
    # the dead one wakes up and hears that its trial is not its own any more
    if how == "finished":
        subprocess.run(fake()(config, dead.folder / config.id), check=True)
        dead.ended(config, None)
    with dead.leaving():
        pass
    assert [t.state.name for t in found.study.trials] == ["FAIL", "COMPLETE"]


def test_one_trial_too_many_does_not_count(tmp_path: Path) -> None:
    """What happens when two processes ask for the last trial at the same moment."""
    found = search(tmp_path, 2)
    with experimental():
        for _ in range(2):
            found.study.tell(found.study.ask(), 0.0)
    found._ask()
    assert len(found.study.trials) == 3
    assert len(rows(found)) == 2
    assert found.next() is None


SEARCH = """
import os, pathlib, sys
folder, trials, seeds, kind = sys.argv[2:]
sys.path.insert(0, sys.argv[1])
from test_search import database, go, search
database.BEAT, database.GRACE = 1, 2
found = search(pathlib.Path(folder), int(trials), tuple(range(int(seeds))))
if kind == "asked":  # killed with the trial in the database and nothing else done for it
    ask = found.study.ask
    found.study.ask = lambda: trial if (trial := ask()).number != 1 else os.kill(os.getpid(), 9)
go(found, kind)
"""


def process(folder: Path, trials: int, seeds: int, kind: str) -> subprocess.Popen[bytes]:
    """A search in a process of its own."""
    arguments = [str(Path(__file__).parent), str(folder), str(trials), str(seeds), kind]
    return subprocess.Popen([sys.executable, "-c", SEARCH, *arguments])


def ends(*processes: subprocess.Popen[bytes]) -> list[int]:
    try:
        return [process.wait(timeout=120) for process in processes]
    finally:
        for one in processes:
            one.kill()


@pytest.mark.slow
def test_two_processes_share_a_search(tmp_path: Path) -> None:
    search(tmp_path, 6)  # makes the tables
    assert ends(process(tmp_path, 6, 2, "good"), process(tmp_path, 6, 2, "good")) == [0, 0]
    found = rows(search(tmp_path, 6))
    assert [row["state"] for row in found] == ["finished"] * 6
    assert len({run for row in found for run in row["runs"]}) == 12
    assert len({row["x"] for row in found}) == 6


@pytest.mark.slow
@pytest.mark.parametrize("when", ["asked", "running"])
def test_a_search_that_was_killed_draws_what_it_would_have_drawn(tmp_path: Path, when: str) -> None:
    go(whole := search(tmp_path / "whole", 4))
    assert ends(process(tmp_path / "part", 4, 1, when)) == [-9]
    assert ends(process(tmp_path / "part", 4, 1, "good")) == [0]
    part = search(tmp_path / "part", 4)  # may have come back to the second trial last
    assert [t.user_attrs[CONTINUES] for t in part.study.trials if CONTINUES in t.user_attrs] == [[1]]
    assert [row["state"] for row in rows(part)] == ["finished"] * 4
    assert {(row["x"], row["way"]) for row in rows(part)} == {(row["x"], row["way"]) for row in rows(whole)}


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_the_other_finishes(tmp_path: Path) -> None:
    """The run of the killed one goes on without it, and is not started a second time beside itself."""
    found = search(tmp_path, 4)
    killed, other = process(tmp_path, 4, 1, "outlives"), None
    try:
        wait(lambda: len(list(tmp_path.glob("trials/*/metrics.jsonl"))) > 0)
        other = process(tmp_path, 4, 1, "good")
        wait(lambda: len(list(tmp_path.glob("trials/*/result.json"))) > 0)
        killed.kill()
        wait(lambda: any(CONTINUES in t.user_attrs and t.state.name == "RUNNING" for t in found.study.trials))
        (tmp_path / "go").touch()
        assert ends(other) == [0]
    finally:
        (tmp_path / "go").touch()
        ends(killed, *filter(None, [other]))
    assert [row["state"] for row in rows(found)] == ["finished"] * 4
    assert [t.user_attrs[CONTINUES] for t in found.study.trials if CONTINUES in t.user_attrs] == [[0]]
    assert [len(list(p.glob("try*"))) for p in tmp_path.glob("trials/*-s0")] == [1] * 4
    assert ends(process(tmp_path, 5, 1, "good")) == [0]  # the command of the killed one again, for one more
    assert len(rows(found)) == 5


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_database_that_is_none() -> None:
    for url in ("nonsense", "sqlite:////no/such/folder/a.db"):
        with pytest.raises(ConnectionError, match=f"--storage {url} cannot be used: "):
            OPENED.enter_context(connected(url, "s", "maximize", "none", 1, 0))


def test_the_pruner_is_the_one_that_was_named(tmp_path: Path) -> None:
    kinds = {"median": "MedianPruner", "halving": "SuccessiveHalvingPruner", "none": "NopPruner"}
    for name, kind in kinds.items():
        assert type(search(tmp_path, 1, pruner=name).study.pruner).__name__ == kind
