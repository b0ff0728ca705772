"""The results of the pages of sets -> the table of every interval in docs/which.md, between its two marks.

    python benchmarks/real/which.py

What stands around them stays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from summarise import line
from twice import read

BEGIN, END = "<!-- intervals: written by benchmarks/real/which.py -->", "<!-- end of intervals -->"
SETS = {
    "sarcasm_text_attr": "sarcasm",
    "av_mnist_fsdd": "digits",
    "mosi_bclstm": "MOSI",
    "pie": "faces",
    "handwritten": "six views",
    "flipkart_products": "products",
    "ravdess_fold0": "emotions",
    "mvsa_single": "tweets",
    "propaganda_memes": "memes",
    "flipkart_prices": "prices",
}
"""Page -> how the text calls it."""


def table(folder: Path) -> str:
    """Rows by name x sets; bold where zero is left out."""
    by_set = [read(folder / f"{name}.md")[1] for name in SETS]
    lines = [line(["row", *(f"[{title}](benchmarks/{name}.md)" for name, title in SETS.items())])]
    lines.append(line(["---"] * (1 + len(SETS))))
    for row in sorted({row for found in by_set for row in found}, key=str.lower):
        cells = [found.get(row) for found in by_set]
        lines.append(line([row, *("–" if d is None else f"**{d.text}**" if d.side else d.text for d in cells)]))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of which.md and benchmarks")
    docs = parser.parse_args().docs
    before, rest = (docs / "which.md").read_text(encoding="utf-8").split(BEGIN)
    made = table(docs / "benchmarks")
    (docs / "which.md").write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(f"{made.count('[+') + made.count('[−')} intervals, {made.count('**') // 2} leave out zero")


if __name__ == "__main__":
    main()
