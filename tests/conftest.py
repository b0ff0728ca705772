from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from counterpoise.recipe.recipe import Recipe

    InProcess = Callable[[pytest.MonkeyPatch], list[Recipe]]


@pytest.fixture(scope="session")
def in_this_process() -> InProcess:
    """Runs of studies train in this process, a process of their own costs seconds each; returns what was started."""
    from counterpoise.benchmark import plan
    from counterpoise.cli import main

    plain = plan.command

    def patched(patch: pytest.MonkeyPatch) -> list[Recipe]:
        started = list["Recipe"]()

        def command(recipe: Recipe, path: Path) -> Sequence[str]:
            started.append(recipe)
            with pytest.raises(SystemExit) as left:
                main(plain(recipe, path)[3:])
            return [sys.executable, "-S", "-c", f"raise SystemExit({left.value.code or 0})"]

        patch.setattr(plan, "command", command)
        return started

    return patched


@pytest.fixture
def started(in_this_process: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Recipe]:
    """In an empty folder and in this process: the runs that were started."""
    monkeypatch.chdir(tmp_path)
    return in_this_process(monkeypatch)
