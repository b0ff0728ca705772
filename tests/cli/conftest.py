from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from counterpoise.cli import main
from counterpoise.recipe.recipe import Recipe

TINY = ["--data", "digits", "--data.size", "120", "--epochs", "1", "--batch_size", "16", "--progress", "false"]


class Done(NamedTuple):
    code: object
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command line in this process, in an empty folder, on a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def start(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return Done(left.value.code, *capsys.readouterr())

    return start


def in_process(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[list[str]]:
    """Runs of a command train in this process, one after another: a process of their own costs seconds each."""
    started: list[list[str]] = []
    plain = module.command

    def command(config: Recipe, path: Path) -> Sequence[str]:
        _, _, name, *arguments = plain(config, path)
        assert name == "counterpoise"
        started.append(arguments)
        try:
            main(arguments)
        except SystemExit as left:
            code = left.code
        return [sys.executable, "-S", "-c", f"raise SystemExit({code})"]

    monkeypatch.setattr(module, "command", command)
    return started


@pytest.fixture
def tiny() -> Sequence[str]:
    """A run of a second on the embedded data."""
    return TINY


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A table of two short texts, which needs no file to be decoded."""
    rows = [(f"s{i}", "ab"[i % 2], f"word{i % 2} hello", f"also {i % 5}") for i in range(60)]
    return write(tmp_path / "texts.csv", ("id", "label", "said", "seen"), rows)


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path
