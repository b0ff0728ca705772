"""The page over several real sets, from made-up scores."""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REAL = Path(__file__).parents[2] / "benchmarks" / "real"


@pytest.fixture(scope="module")
def across() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(REAL))
    yield runpy.run_path(str(REAL / "across.py"))
    sys.path.remove(str(REAL))


@pytest.fixture
def scores(across) -> Any:
    score = np.array([[80.0, 70, 60], [81, 70, 55], [82, 69, 50], [83, 66, 58]])
    seconds = np.array([[1.0, 2, 4], [2, 4, 8], [1, 2, 4], [4, 2, 1]])
    return across["Scores"](["a", "b", "c"], ["Joint", "OGM", "MLA", "IGM"], score, seconds, [82.0, 69, 50], [], [])


def test_ranks_share_what_is_equal(across, scores):
    assert across["ranks"](scores).T.tolist() == [[4, 3, 2, 1], [1.5, 1.5, 3, 4], [1, 3, 4, 2]]


def test_the_critical_difference_is_the_published_one(across):
    """Demšar (2006, section 3.2.4): four classifiers on 14 data sets."""
    assert across["critical_difference"](4, 14) == pytest.approx(1.25, abs=0.005)


def test_rows_stand_by_mean_rank_beside_joint_training(across, scores):
    head, _, *rows = across["over_sets"](scores)
    assert head.startswith("| row | mean rank | Δ to Joint")
    assert [row.split(" | ")[0] for row in rows] == ["| Joint", "| IGM", "| OGM", "| MLA"]
    ogm = rows[2].split(" | ")
    assert ogm[2].startswith("−1.3 [")  # (1 + 0 - 5) / 3
    assert ogm[4:] == ["1, 1", "−5.0 (c)", "2.0 |"]


def test_a_family_has_its_median_row_and_goes_with_what_joint_training_gains(across, scores):
    assert across["families"](scores) == {"alternating": [2, 3], "gradient": [1]}
    gain = [80.0 - 82, 70 - 69, 60 - 50]
    head, _, *rows = across["by_family"](scores, "Joint − best alone", gain)
    assert head == "| set | Joint − best alone | alternating (2) | gradient (1) |"
    assert rows == [
        "| a | −2.0 | +2.5 | +1.0 |",
        "| b | +1.0 | −2.5 | +0.0 |",
        "| c | +10.0 | −6.0 | −5.0 |",
        "| rank correlation over the sets |  | −1.00 | −1.00 |",
    ]
