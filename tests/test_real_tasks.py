"""Several labels and a number on real memes and products, through the scripts that made docs/benchmarks."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from counterpoise.cli import main
from real_data import real

SCRIPTS = Path(__file__).parents[1] / "benchmarks" / "real"
FOLDERS = {"propaganda_memes": "propaganda_memes", "flipkart_prices": "flipkart_products"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    """One of the scripts as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {"prepare", "summarise", "leak", "tune"} - before:
        sys.modules.pop(name, None)


def prepared(prepare: ModuleType, name: str, folder: Path) -> Path:
    path, source = folder / f"{name}.csv", real(FOLDERS[name])
    prepare.write_table(prepare.TABLES[name](source), source, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "said"),
    [
        ("propaganda_memes", "map", "687 training, 63 validation, 200 test samples of 22 labels"),
        ("flipkart_prices", "r2", "734 training, 105 validation, 210 test samples of 1 number"),
    ],
)
def test_joint_training_is_better_than_chance(script, tmp_path, capsys, name, metric, said):
    path = prepared(script("prepare"), name, tmp_path)
    options = ["--config", SCRIPTS / f"{name}.yaml", "--data", path, "--method", "Joint", "--run_dir", tmp_path / "run"]
    with pytest.raises(SystemExit) as end:
        main(["fit", *(str(option) for option in options)])
    assert end.value.code in (0, None)
    assert said in capsys.readouterr().out
    test = json.loads((tmp_path / "run" / "result.json").read_text())["test"]
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    # average precision of a score that knows nothing is the label's share, R² of the mean is 0
    labels = {label for row in rows for label in row.get("labels", "").split("|") if label}
    count = sum(len([x for x in row["labels"].split("|") if x]) for row in rows) if labels else 0
    assert test[f"fused/{metric}"] > (count / len(rows) / len(labels) if labels else 0)


def test_the_description_of_a_product_gives_its_price_away(script):
    leak = script("leak")
    rows = [row for row in script("prepare").read_rows(real("flipkart_products") / "products.csv") if row["price"]]
    found = leak.reading(rows)
    assert found["equal"] > 0.75 * found["products"]
    assert found["r2"] > 0.7
    struck = leak.table(rows)
    assert not any(leak.stated(row["without_amounts"]) for row in struck)
    assert set(struck[0]) == {"id", "split", "log_price", "name", "description", "without_amounts"}


def test_an_amount_is_read_whatever_its_commas(script):
    stated = script("leak").stated
    assert stated("Price: Rs. 1,299 only, was Rs. 2,000.") == 1299.0
    assert stated("Rs.450") == 450.0
    assert stated("450 rupees") is None


def test_no_test_row_is_in_the_file_of_the_trials(script, tmp_path):
    prepare = script("prepare")
    rows = [{"id": str(i), "split": part} for i, part in enumerate(("train", "test", "val", "train"))]
    prepare.write_rows(rows, tmp_path / "all.csv")
    script("tune").without_test(tmp_path / "all.csv", tmp_path / "seen.csv")
    assert prepare.read_rows(tmp_path / "seen.csv") == [rows[0], rows[2], rows[3]]
