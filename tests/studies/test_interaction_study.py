"""The study of interaction trains what its runs have in common once."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from counterpoise.benchmark.grid import RunConfig
from counterpoise.cli import benchmark, main
from counterpoise.engine import loop
from counterpoise.studies import interaction
from counterpoise.testing import assert_same

COLUMNS = ("heard", "seen", "said")
STAGES = {
    2: {"all directions": 4, "without heard→seen": 3, "without seen→heard": 2, "no direction": 2},
    3: {
        "all directions": 6,
        "without heard→seen": 5,
        "without seen→said": 4,
        "without said→heard": 3,
        "no direction": 4,
    },
}
"""What each row has to train, of four and six stages."""


@pytest.fixture
def trained(started: list[RunConfig], monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Runs train in this process; the epochs that each of them trained."""
    epoch, found = loop._epoch, Counter[str]()

    def counted(trainer, *arguments) -> None:
        found[Path(trainer.run_dir).name] += 1
        epoch(trainer, *arguments)

    monkeypatch.setattr(loop, "_epoch", counted)
    return found


def data(modalities: int) -> list[str]:
    """A data set of vectors, and options under which each stage is an epoch."""
    draw, y = np.random.default_rng(0), np.arange(120) % 3
    inputs = {name: np.eye(3)[y] @ draw.normal(size=(3, 6)) + draw.normal(size=(120, 6)) for name in COLUMNS}
    np.savez("data.npz", y=y, **{name: x.astype(np.float32) for name, x in list(inputs.items())[:modalities]})
    return ["--data", "data.npz", "--epochs", "2", "--batch_size", "16", "--progress", "false", "--optimizer.lr", "0.3"]


def study(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["study", *arguments])
    return int(str(left.value.code or 0))


def runs() -> dict[str, list[str]]:
    return json.loads(Path("out/interaction/data.json").read_text())["runs"]


def by_row(trained: Counter[str]) -> dict[str, int]:
    return {row: sum(trained[run] for run in ids) for row, ids in runs().items()}


def scores(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("modalities", [2, 3])
def test_common_beginnings_are_trained_once(trained: Counter[str], modalities: int) -> None:
    options = data(modalities)
    assert study("interaction", *options, "--out", "out", "--seeds", "3") == 0
    assert by_row(trained) == STAGES[modalities]
    assert not Path("out/phases").exists()
    found = json.loads(Path("out/interaction/data.json").read_text())["result"]
    assert len(found["stages"]) == 2 * modalities
    assert {len(by_seed["3"]["fused"]) for by_seed in found["rows"].values()} == {2 * modalities}

    # the same command line by itself trains it all, to the same end
    for row in ("without heard→seen", "no direction"):
        (run,) = runs()[row]
        shared, alone = Path("out/runs", run), Path("alone", run)
        trained.clear()
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(shared / "config.yaml"), "--run_dir", str(alone)])
        assert trained == {run: 2 * modalities}
        assert scores(shared) == scores(alone)
        best, same = (torch.load(path / "best.ckpt", weights_only=True) for path in (shared, alone))
        assert best["fingerprint"] == same["fingerprint"]
        assert best["method"].keys() == same["method"].keys()
        assert_same(best["model"] | best["method"], same["model"] | same["method"])
        results = [json.loads((path / "result.json").read_text()) for path in (shared, alone)]
        for name in ("val", "test", "subsets", "epochs", "best_epoch", "label"):
            assert results[0][name] == results[1][name]
        for name in ("forward", "backward"):
            assert results[0]["cost"][name] == results[1]["cost"][name]


def test_what_a_study_before_has_finished_is_trained_in_the_rows(trained: Counter[str]) -> None:
    common = [*data(2), "--out", "out", "--seeds", "0"]
    assert study("training-time", *common, "--methods", "IGM") == 0
    assert study("interaction", *common) == 0
    # the first stage by the run of all directions, which left no end of a phase, and once more for the rows
    assert by_row(trained) == {**STAGES[2], "without heard→seen": 4, "without seen→heard": 3}
    assert not Path("out/phases").exists()


def test_a_failed_row_finds_its_beginning_later(trained: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    common = [*data(2), "--out", "out", "--seeds", "0"]
    works = benchmark.command

    def command(config: RunConfig, path: Path) -> Sequence[str]:
        fails = "gm=False" in config.method
        return [sys.executable, "-S", "-c", "raise SystemExit(1)"] if fails else works(config, path)

    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "command", command)
        assert study("interaction", *common) == 1
    assert len(list(Path("out/phases").glob("*/*.ckpt"))) == 2 * 3
    assert study("interaction", *common) == 0
    assert by_row(trained) == STAGES[2]
    assert not Path("out/phases").exists()


@pytest.mark.parametrize("option", ["balance", "gradient_change"])
def test_records_of_whole_runs_need_whole_runs(option: str) -> None:
    def after(**options: object) -> list[str | None]:
        stated = SimpleNamespace(**{"balance": False, "gradient_change": None, **options})
        return [row.after for row in interaction.plan(SimpleNamespace(modalities=("a", "b", "c"), options=stated))]  # type: ignore[arg-type]

    assert after() == [None, *["all directions"] * 3, "without a→b"]
    assert after(**{option: "batch"}) == [None] * 5


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["local", "ray"])
def test_several_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """As processes of their own; an epoch is a line of a log."""
    if backend == "ray":
        pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    options = ["--jobs", "2", "--backend", backend, "--out", "out", "--seeds", "0,1", "--progress", "true"]
    assert study("interaction", *data(2), *options) == 0
    logs = {row: [Path("out/runs/logs", f"{run}.log").read_text() for run in ids] for row, ids in runs().items()}
    epochs = {
        row: sum(len(re.findall(r"^epoch \d+/4 ", text, re.MULTILINE)) for text in texts) for row, texts in logs.items()
    }
    assert epochs == {row: 2 * count for row, count in STAGES[2].items()}
