from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from counterpoise.benchmark.grid import RunConfig

    InProcess = Callable[[pytest.MonkeyPatch], list[RunConfig]]


@pytest.fixture(scope="session")
def in_this_process() -> InProcess:
    """Runs of studies train in this process, a process of their own costs seconds each; returns what was started."""
    from counterpoise.cli import benchmark, main

    def patched(patch: pytest.MonkeyPatch) -> list[RunConfig]:
        plain, started = benchmark.command, list["RunConfig"]()

        def command(config: RunConfig, path: Path) -> Sequence[str]:
            started.append(config)
            with pytest.raises(SystemExit) as left:
                main(list(plain(config, path)[3:]))
            return [sys.executable, "-S", "-c", f"raise SystemExit({left.value.code or 0})"]

        patch.setattr(benchmark, "command", command)
        return started

    return patched


@pytest.fixture
def started(in_this_process: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[RunConfig]:
    """In an empty folder and in this process: the runs that were started."""
    monkeypatch.chdir(tmp_path)
    return in_this_process(monkeypatch)
