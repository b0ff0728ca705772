from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from counterpoise.recipe.recipe import Recipe

    InProcess = Callable[[pytest.MonkeyPatch], list[Recipe]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cases of a method are skipped where the package that it needs is not installed."""
    if find_spec("torchjd") is None:
        for item in items:
            if "Aggregated" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="torchjd is not installed"))


@pytest.fixture(scope="session", autouse=True)
def _callbacks_are_looked_up_once() -> Iterator[None]:
    """Fabric goes through every installed package for each trainer: a tenth of the time of the small runs of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_fabric.utilities.registry.entry_points", cache(entry_points))
        yield


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
