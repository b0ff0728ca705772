"""Where real data lie, when they are there: never part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("COUNTERPOISE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real(name: str) -> Path:
    """The folder of a real data set; the test is skipped, with the reason, where it is missing."""
    if not (ROOT / name).is_dir():
        pytest.skip(f"needs {ROOT / name}: set COUNTERPOISE_DATA to the folder that holds {name}")
    return ROOT / name
