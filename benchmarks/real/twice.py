"""Two runs of one comparison -> docs/benchmarks/twice.md: what of the differences to joint training comes back.

    git worktree add before COMMIT    # one that has the pages of the first run
    python benchmarks/real/twice.py before/docs/benchmarks mosi_bclstm handwritten ...

What stands between the two "reading" marks of an existing page is kept.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from across import BASELINE, signed
from scipy import stats
from summarise import BEGIN, END, line, write


class Difference(NamedTuple):
    """Of a row to joint training, as a page has it."""

    score: float
    low: float
    high: float
    text: str

    @property
    def side(self) -> int:
        """1 where the interval is above zero, -1 below, 0 where it has zero."""
        return (self.low > 0) - (self.high < 0)


def read(page: Path) -> tuple[float, dict[str, Difference]]:
    """What joint training reached, and the differences to it of the other rows of several modalities."""
    joint, found = float("nan"), {}
    for text in page.read_text(encoding="utf-8").split("## Result")[1].split("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in text.strip("|").split("|")]
        if len(cells) < 3 or not (score := re.match(r"[\d.]+(?= ±)", cells[1])):
            continue
        numbers = [float(n.replace("−", "-")) for n in re.findall(r"[+−][\d.]+", cells[2])]
        if cells[0] == BASELINE:
            joint = float(score[0])
        elif len(numbers) == 3 and not cells[0].startswith("Unimodal"):
            found[cells[0]] = Difference(*numbers, text=cells[2].removesuffix(" *"))
    return joint, found


def overview(pages: Mapping[str, tuple[Path, Path]]) -> list[str]:
    """How far the two runs agree, a line a set."""
    head = [f"{BASELINE}, first", "again", "rows", "rank correlation", "sd of the change"]
    head += ["clear, first", "of these again", "of these other sign", "clear, again"]
    lines = [line(["set", *head]), line(["---", *["---:"] * len(head)])]
    for name, (first, again) in pages.items():
        (a, before), (b, now) = read(first), read(again)
        rows = [row for row in before if row in now]
        d = np.array([[before[row].score, now[row].score] for row in rows])
        rho = float(stats.spearmanr(d[:, 0], d[:, 1]).statistic)
        clear = [row for row in rows if before[row].side]
        kept = sum(now[row].side == before[row].side for row in clear)
        turned = sum(now[row].score * before[row].score < 0 for row in clear)
        counts = [len(clear), kept, turned, sum(now[row].side != 0 for row in rows)]
        change = float(np.std(d[:, 1] - d[:, 0], ddof=1))
        lines.append(
            line([f"[{name}]({name}.md)", f"{a:.1f}", f"{b:.1f}", str(len(rows)), signed(rho, 2), f"{change:.1f}",
                  *map(str, counts)])
        )  # fmt: skip
    return lines


def changed(pages: Mapping[str, tuple[Path, Path]]) -> list[str]:
    """The rows that were clear in one run and not, or on the other side, in the other one."""
    lines = [line(["set", "row", "first", "again"]), line(["---"] * 4)]
    for name, (first, again) in pages.items():
        (_, before), (_, now) = read(first), read(again)
        rows = [row for row in before if row in now and before[row].side != now[row].side]
        lines += [line([name, row, before[row].text, now[row].text]) for row in sorted(rows, key=str.lower)]
    return lines


def page(pages: Mapping[str, tuple[Path, Path]], sets: Sequence[str], reading: str) -> str:
    """The whole page."""
    parts = [
        "# Measured twice",
        "The comparisons of these sets were run, tuning included, on two processors: the same scripts, settings and "
        "seeds, and code whose changes between touch no number. What differs is rounding, and what comes of it.",
        "## Reading",
        f"{BEGIN}\n{reading}\n{END}",
        "## How far the two agree",
        "\n".join(overview(pages)),
        f"Differences to {BASELINE} in points of test accuracy. Rank correlation: of the rows' differences in the two "
        "runs. Clear: the 95 % interval over five seeds leaves out zero; one in twenty does by chance.",
        "## What is clear in one run only",
        "\n".join(changed(pages)),
        "## Command",
        "```bash\ngit worktree add before 3706040\n"
        f"python benchmarks/real/twice.py before/docs/benchmarks {' '.join(sets)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the pages of the first run")
    parser.add_argument("sets", nargs="+", help="names of pages")
    parser.add_argument("--docs", type=Path, default=Path("docs/benchmarks"), help="folder of the pages of the second")
    given = parser.parse_args()
    pages = {name: (given.before / f"{name}.md", given.docs / f"{name}.md") for name in given.sets}
    write(given.docs / "twice.md", lambda reading: page(pages, given.sets, reading))


if __name__ == "__main__":
    main()
