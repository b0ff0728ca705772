"""What two pages of one set have in common, from made-up pages."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REAL = Path(__file__).parents[2] / "benchmarks" / "real"
HEAD = "# s\n\n## Result\n\n| row | accuracy | Δ to Joint | macro F1 |\n| --- | ---: | ---: | ---: |\n"


@pytest.fixture(scope="module")
def twice() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(REAL))
    yield runpy.run_path(str(REAL / "twice.py"))
    sys.path.remove(str(REAL))


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, tuple[Path, Path]]:
    both = (
        "| Joint | 80.0 ± 1.0 | – | 1 |\n| OGM | 82.0 ± 1.0 | +2.0 [+0.5, +3.5] | 1 |\n"
        "| IGM | 75.0 ± 1.0 † | −5.0 [−6.0, −4.0] * | 1 |\n| MLA | 80.5 ± 1.0 | +0.5 [−1.0, +2.0] | 1 |\n"
        "| Unimodal(a) | 60.0 ± 1.0 | −20.0 [−21.0, −19.0] * | 1 |\n\n"
        "## Every seed\n\n| OGM | 1.0 ± 1 | +9.0 [+8, +9] |\n",
        "| Joint | 81.5 ± 1.0 | – | 1 |\n| OGM | 80.5 ± 1.0 | −1.0 [−2.5, +0.5] | 1 |\n"
        "| IGM | 77.5 ± 1.0 | −4.0 [−5.0, −3.0] | 1 |\n| MLA | 81.5 ± 1.0 | +0.0 [−1.0, +1.0] | 1 |\n",
    )
    paths = tmp_path / "first.md", tmp_path / "again.md"
    for path, text in zip(paths, both, strict=True):
        path.write_text(HEAD + text, encoding="utf-8")
    return {"s": paths}


def test_rows_of_several_modalities_are_read_with_their_side(twice, pages):
    joint, rows = twice["read"](pages["s"][0])
    assert joint == 80
    assert {row: (d.score, d.low, d.high, d.side) for row, d in rows.items()} == {
        "OGM": (2.0, 0.5, 3.5, 1),
        "IGM": (-5.0, -6.0, -4.0, -1),
        "MLA": (0.5, -1.0, 2.0, 0),
    }


def test_the_overview_counts_what_came_back(twice, pages):
    # differences (2, -5, 0.5) and (-1, -4, 0): ranks (3, 1, 2) and (2, 1, 3), changes (-3, 1, -0.5)
    assert twice["overview"](pages)[2] == "| [s](s.md) | 80.0 | 81.5 | 3 | +0.50 | 2.0 | 2 | 1 | 1 | 1 |"


def test_what_is_clear_in_one_run_only_is_listed(twice, pages):
    assert twice["changed"](pages)[2:] == ["| s | OGM | +2.0 [+0.5, +3.5] | −1.0 [−2.5, +0.5] |"]
