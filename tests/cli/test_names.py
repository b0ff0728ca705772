"""Names from data: what a check passes is accepted, and no terminal, figure or spreadsheet runs them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conftest import Run, write
from counterpoise import fusions
from counterpoise._checks import hidden, misnamed, shown
from counterpoise.cli.predict import _plain
from counterpoise.data import Table
from counterpoise.engine import ConsoleProgress
from counterpoise.engine import progress as console
from counterpoise.tuning import database

QUICK = ["--method", "Joint", "--epochs", "1", "--batch_size", "8", "--progress", "false"]
NO_NAMES = [
    "type",
    "keys",
    "values",
    "items",
    "train",
    "pop",
    "fused",
    "shared",
    "my.text",
    "",
    " ",
    "a\x1b[1m",
    "a\nb",
]


def table(path: Path, name: str) -> Path:
    rows = [(f"word{i % 7} one thing {i}", f"word{-i % 5} {i}", "xy"[i % 2]) for i in range(24)]
    return write(path, (name, "text", "label"), rows)


@pytest.mark.parametrize("name", NO_NAMES)
def test_one_rule_for_tables_and_models(name: str, tmp_path: Path) -> None:
    assert misnamed(name).startswith(f"A modality cannot be called {name!r}: ")
    with pytest.raises(ValueError, match="A modality cannot be called"):
        fusions.Concat({"a": 2, name: 2}, 3)
    found = Table(table(tmp_path / "t.csv", name))
    for m in found.readers:  # a header is stripped, and Arrow keeps other white space
        assert [f.text for f in found.flaws() if f.row is None] == (
            [f"{tmp_path / 't.csv'}, column {m!r}: {misnamed(m)}" for m in found.readers if misnamed(m)]
        )
    assert any(map(misnamed, found.readers)) or not name.strip()  # a column without a name is left out


@pytest.mark.parametrize("name", ["typ", "a b", "a/b", "ton-höhe", "[/b]", "$x_{$", "=1+1", "T1+C", "3"])
def test_names_that_are_odd_and_accepted(name: str) -> None:
    assert misnamed(name) == ""
    fusions.Concat({"a": 2, name: 2}, 3)


def test_what_the_check_passes_fit_accepts(run: Run, tmp_path: Path) -> None:
    for name in ("keys", "fused", "my.text"):
        file = table(tmp_path / f"{name}.csv", name)
        checked = run("data", "check", file)
        assert checked.code == 1
        assert f"A modality cannot be called {name!r}" in checked.out
        fitted = run("fit", "--data", file, *QUICK)
        assert fitted.code
        assert f"A modality cannot be called {name!r}" in fitted.err


def test_names_are_text_in_tables_pages_and_terminals(run: Run, tmp_path: Path) -> None:
    names = ["[/b]", "[red]x[/red]", "a$_{$", "$\\frac{$"]
    y, g = np.arange(80) % 4, np.random.default_rng(0)
    labels = np.array(["[/i]", "$_{$", "\x1b[31mred", "=2+2"])[y]
    np.savez("m.npz", y=labels, **{name: g.normal(size=(80, 3)) + y[:, None] for name in names})
    done = run("fit", "--data", "m.npz", *QUICK, "--run_dir", "r")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    for name in names:
        assert f" {name} " in done.out
    done = run("report", "r")
    assert done.code == 0, done.err
    page = Path("r/report.html").read_text()
    assert "a$_{$" in page


def test_a_spreadsheet_runs_no_cell_of_predictions(run: Run, tmp_path: Path) -> None:
    labels = ["=cmd|' /C calc'!A0", "@sum(1)", "-1"]
    rows = [(f"{'+-='[i % 3]}s{i}", f"word{i % 3} hello {i}", f"w{i % 3} {i % 5}", labels[i % 3]) for i in range(60)]
    file = write(tmp_path / "f.csv", ("id", "a", "=b", "label"), rows)
    assert run("fit", "--data", file, *QUICK, "--run_dir", "r").code == 0
    done = run("predict", "r", file, "--out", "p.csv")
    assert done.code == 0, done.err
    with Path("p.csv").open(newline="") as opened:
        cells = [cell for row in csv.reader(opened) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+@" and cell]
    changed = sum(cell.startswith("'") for cell in cells)
    assert f"{changed} cells that a spreadsheet would run as formulas begin with an apostrophe now." in done.out
    assert changed >= 60


@pytest.mark.parametrize("cell", ["=1", "+a", "-b", "@x", "\tx", "\r=1", "-1+2", "+", "-1e"])
def test_formulas(cell: str) -> None:
    assert _plain(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["", "a=1", "-1", "+3.5", "-1e-05", "1", "'=1"])
def test_no_formulas(cell: str) -> None:
    assert _plain(cell) == cell


def test_text_of_data_on_a_terminal() -> None:
    assert shown("a\x1b[2J\rb\x9bc\u202ed\x07") == "a\\x1b[2J\\rb\\x9bc\\u202ed\\x07"
    assert shown("ein Löwe\n\t音") == "ein Löwe\n\t音"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://me:s3cret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("--storage mysql://me:p@ss@w/d cannot be used", "--storage mysql://me:***@w/d cannot be used"),
        ("postgresql://h/db?user=me&password=s3cret&x=1", "postgresql://h/db?user=me&password=***&x=1"),
        ("redis://:s3cret@h", "redis://:***@h"),
        ("sqlite:////home/a@b/t.db", "sqlite:////home/a@b/t.db"),
        ("http://host:80/a", "http://host:80/a"),
    ],
)
def test_no_password_in_a_message(text: str, safe: str) -> None:
    assert hidden(text) == safe


@pytest.mark.parametrize("url", ["postgres://me:s3cret@h/d", "nowhere+x://me:s3cret@h/d", "mysql+nope://me:s3cret@h"])
def test_a_database_that_cannot_be_used_keeps_its_password(url: str) -> None:
    pytest.importorskip("optuna")
    found = database.connected(url, "s", "maximize", "none", 1, 0)
    with pytest.raises(ConnectionError, match=r"--storage \S+://me:\*\*\*@h") as error, found:
        pass
    assert "s3cret" not in str(error.value)


def test_a_configuration_of_fit_checks_its_data(run: Run, tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "said")
    config = tmp_path / "fit.yaml"
    config.write_text(
        f"data: {file}\nmethod: {{class_path: OGM, init_args: {{alpha: 0.3}}}}\nfusion: late\nepochs: 3\n"
    )
    for action in ("check", "show"):
        done = run("data", action, "--config", config)
        assert done.code == 0, done.err
        assert "said" in done.out
    config.write_text(f"data: {file}\nmethod: Joint\nencoders: {{said: TextBag}}\nrun_dir: r\n")
    assert run("data", "check", "--config", config).code == 0
    config.write_text(f"data: {file}\nepoks: 3\n")
    assert "Unknown option '--epoks'" in run("data", "check", "--config", config).err
    config.write_text("method: Joint\n")
    assert "--data is missing" in run("data", "check", "--config", config).err


def test_a_slow_epoch_tells_its_batches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    progress = ConsoleProgress()
    progress._console = Console(file=io.StringIO())
    progress._live = False
    trainer: Any = SimpleNamespace(state=SimpleNamespace(epoch=0, batch_in_epoch=0), num_batches=9)
    progress.on_fit_start(trainer)
    for batch, seconds in enumerate([12.0, 1.0, 5.0, 20.0, 39.0, 2.0], start=1):
        now += seconds
        trainer.state.batch_in_epoch = batch
        progress.on_batch_end(trainer)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1, batch 1/9  12 s so far",
        "epoch 1, batch 4/9  38 s so far",
        "epoch 1, batch 6/9  79 s so far",
    ]


@pytest.mark.parametrize(
    ("command", "row"),
    [
        (["benchmark", "--methods", "Joint,MLA"], "MLA"),
        (["benchmark", "--methods", "Unimodal,LFM", "--fusion", "Late", "--fusion.rule", "sum"], "LFM"),
        (["study", "gradient-change", "--methods", "IGM,MLA"], "MLA"),
        (["benchmark", "--methods", "Joint,MSLR", "--fusion", "Gated"], "MSLR"),
    ],
)
def test_a_row_that_cannot_work_is_told_before_any_run(command: list[str], row: str, run: Run) -> None:
    widths = [
        "--encoders.audio",
        "MLP",
        "--encoders.audio.dim",
        8,
        "--encoders.image",
        "MLP",
        "--encoders.image.dim",
        4,
    ]
    done = run(*command, "--data", "digits", "--data.size", 120, *widths, "--epochs", 1, "--out", "o")
    assert done.code == 2
    assert f"(Of the row {row}" in done.err
    assert not Path("o").exists()
