from __future__ import annotations

import json

import pytest

from conftest import Run
from counterpoise import methods


def test_list(run: Run) -> None:
    done = run("methods")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in methods.__all__)
    assert max(map(len, done.out.splitlines())) <= 84


def test_json(run: Run) -> None:
    found = json.loads(run("methods", "--json").out)
    assert [row["method"] for row in found] == list(methods.__all__)
    assert json.loads(run("methods", "igm", "--json").out)["method"] == "IGM"


def test_markdown(run: Run) -> None:
    lines = run("methods", "--markdown").out.splitlines()
    assert len(lines) == len(methods.__all__) + 2
    assert {line.count("|") for line in lines} == {lines[0].count("|")}


@pytest.mark.parametrize("name", methods.__all__)
def test_each_is_explained(name: str, run: Run) -> None:
    done = run("methods", name.lower())
    assert done.code == 0
    assert done.out.startswith(f"{name}(")
    assert "paper" in done.out


def test_misspelt(run: Run) -> None:
    done = run("methods", "IMG")
    assert (done.code, "Unknown method 'IMG'. Did you mean 'IGM'? Known: AGM, " in done.err) == (2, True)
    done = run("methods", "--jsn")
    assert (done.code, "Unknown option '--jsn'. Did you mean '--json'?" in done.err) == (2, True)
