"""Does ``description`` of flipkart_products leak the price? -> its section of docs/benchmarks/flipkart_prices.md.

    python benchmarks/real/leak.py --source SOURCE/flipkart_products --out runs/real/flipkart_prices/leak

Two looks: the first amount after "Rs." in a description against the price of its row, and three texts of the same
products as modalities of one table, each trained alone by ``counterpoise benchmark``: the name, the description, and
the description with every amount after "Rs." struck out. ``leak.md`` in the folder has the section.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from prepare import Rows, read_rows, write_rows
from summarise import line

from counterpoise.benchmark import summarize
from counterpoise.benchmark.cells import cell_text

AMOUNT = re.compile(r"Rs\.?\s*([\d,]*\d)")
TEXTS = {
    "name": "name",
    "description": "description",
    "without_amounts": "description, amounts after “Rs.” struck out",
}
SEEDS = (0, 1, 2, 3, 4)


def stated(description: str) -> float | None:
    """The first amount that a description names, in rupees."""
    found = AMOUNT.search(description)
    return float(found[1].replace(",", "")) if found else None


def reading(rows: Rows) -> dict[str, float]:
    """How far the first amount in a description is the price, over the products that have both.

    R² on the test rows is of the rule that says that amount and, where there is none, the mean log price of training.
    """
    pairs = [(stated(row["description"]), float(row["price"])) for row in rows]
    known = [(amount, price) for amount, price in pairs if amount]
    part = np.array([row["split"] for row in rows])
    target = np.log([price for _, price in pairs])
    guess = np.array([math.log(amount) if amount else np.nan for amount, _ in pairs])
    guess[np.isnan(guess)] = target[part == "train"].mean()
    y, p = target[part == "test"], guess[part == "test"]
    return {
        "products": len(rows),
        "with_amount": len(known),
        "equal": sum(abs(amount - price) < 1 for amount, price in known),
        "r2": float(1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum()),
    }


def table(rows: Rows) -> Rows:
    """The three texts of every product, and the log price."""
    return [
        {
            "id": row["id"],
            "split": row["split"],
            "log_price": f"{math.log(float(row['price'])):.6f}",
            "name": row["name"],
            "description": row["description"],
            "without_amounts": AMOUNT.sub("Rs. –", row["description"]),
        }
        for row in rows
    ]


def command(path: Path, out: Path, jobs: int) -> list[str]:
    """Each text alone, with the encoder of the page."""
    options = ["--data", str(path), "--data.label", "log_price", "--data.task", "regression"]
    for name in TEXTS:
        options += [f"--data.modalities.{name}", "Text", f"--data.modalities.{name}.length", "200"]
        options += [f"--data.modalities.{name}.vocabulary", "6000", f"--encoders.{name}", "TextBag"]
        options += [f"--encoders.{name}.vocab_size", "6000", f"--encoders.{name}.dim", "32"]
    options += ["--optimizer.lr", "0.1", "--optimizer.weight_decay", "0.01", "--epochs", "10", "--batch_size", "24"]
    own = ["--methods", "Unimodal", "--seeds", ",".join(map(str, SEEDS)), "--jobs", str(jobs), "--out", str(out)]
    return [sys.executable, "-m", "counterpoise", "benchmark", *options, "--accelerator", "cpu", *own]


def section(found: dict[str, float], out: Path) -> str:
    """The section of the page."""
    records = json.loads((out / "results.json").read_text(encoding="utf-8"))["runs"]
    columns = ["fused/r2", "fused/mae"]
    rows = summarize(records, columns=columns, baseline=None, seeds=len(SEEDS)).rows
    lines = [
        f"{found['with_amount']:.0f} of the {found['products']:.0f} descriptions name an amount after “Rs.”; the first "
        f"one is the price itself in {found['equal']:.0f} of them. The rule that says this amount, and the mean where "
        f"there is none, has R² {found['r2']:.3f} on the test products. Each text trained alone, test, mean ± standard "
        f"deviation over {len(SEEDS)} seeds, no tuning:",
        "",
        line(["text", "R²", "MAE"]),
        line(["---", "---:", "---:"]),
    ]
    for name, text in TEXTS.items():
        cells = rows[f"Unimodal({name})"]
        lines.append(line([text, *(cell_text(c, cells[c]) for c in columns)]))
    call = "python benchmarks/real/leak.py --source SOURCE/flipkart_products --out runs/real/flipkart_prices/leak"
    lines += ["", f"```bash\n{call}\n```"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with products.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of leak.md")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    given = parser.parse_args()
    rows = [row for row in read_rows(given.source / "products.csv") if row["price"]]
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "flipkart_texts.csv"
    write_rows(table(rows), path)
    code = subprocess.run(command(path, given.out, given.jobs), check=False).returncode
    if code == 0:
        text = section(reading(rows), given.out)
        (given.out / "leak.md").write_text(text + "\n", encoding="utf-8")
        print(text)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
