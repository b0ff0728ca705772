"""The notebooks of the site run from top to bottom, and are laid out as jupytext and myst-nb read them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.md"))
CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_code_block_is_a_cell_that_compiles(notebook: Path):
    text = notebook.read_text(encoding="utf-8")
    assert text.startswith("---\njupytext:\n  text_representation: {extension: .md, format_name: myst}\nkernelspec:")
    cells = CELL.findall(text)
    assert len(cells) >= 4
    assert len(cells) == text.count("\n```{code-cell}") == text.count("```") / 2
    for cell in cells:
        compile(cell, notebook.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_run_in_order(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict = {"__name__": "__main__"}
    for cell in CELL.findall(notebook.read_text(encoding="utf-8")):
        exec(compile(cell, notebook.name, "exec"), namespace)
