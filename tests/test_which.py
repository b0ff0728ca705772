"""The numbers of "Which method when" are those of the pages that they are from."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (
    "sarcasm_text_attr", "av_mnist_fsdd", "mosi_bclstm", "pie", "handwritten", "flipkart_products", "ravdess_fold0",
    "mvsa_single", "propaganda_memes", "flipkart_prices",
)  # fmt: skip


def rows(text: str) -> dict[str, list[str]]:
    lines = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| "))
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def excludes_zero(cell: str) -> bool:
    low, high = (float(number.replace("−", "-")) for number in re.findall(r"[+−][\d.]+(?=[,\]])", cell))
    return low > 0 or high < 0


def test_every_interval_is_that_of_its_page():
    table = rows((DOCS / "which.md").read_text(encoding="utf-8").split("## Every interval")[1])
    del table["row"], table["---"]
    assert len(table) == 35
    for place, page in enumerate(PAGES):
        result = (DOCS / "benchmarks" / f"{page}.md").read_text(encoding="utf-8").split("## Result")[1]
        cells_of = rows(result.split("\n## ")[0])
        measured = {row: cells[1].removesuffix(" *") for row, cells in cells_of.items() if "[" in cells[1]}
        for row, cells in table.items():
            cell = cells[place]
            assert cell.strip("*") == measured.get(row, "–"), (page, row)
            assert cell.startswith("**") == ("[" in cell and excludes_zero(cell.strip("*"))), (page, row)
        assert {row for row in measured if not row.startswith("Unimodal")} <= set(table)
