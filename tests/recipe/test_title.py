"""What progress is shown under tells the runs of a comparison apart."""

from __future__ import annotations

from pathlib import Path

from counterpoise.benchmark.folds import fold_recipes
from counterpoise.recipe.recipe import Recipe


def test_title_names_label_fold_and_seed(tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("label,a,b\n" + "".join(f"{i % 2},{i}.5,{i * i}.5\n" for i in range(24)))
    recipe = Recipe.of({"data": str(table), "method": "Joint", "seed": 3})
    assert recipe.title == recipe.id
    recipe = recipe.but({"label": "mine"})
    assert recipe.title == "mine, seed 3"
    assert Recipe.of({"data": "digits", "method": "Joint", "label": "mine"}).title == "mine, seed 0"
    assert [fold.title for fold in fold_recipes(recipe, "3")] == [f"mine, fold {i}, seed 3" for i in range(3)]
