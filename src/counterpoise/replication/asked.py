"""What is asked for: a prepared data set, rows of its table, a run for each row and seed; refused before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from counterpoise._checks import did_you_mean
from counterpoise.benchmark.plan import FIXED, attempt_row, refuse
from counterpoise.datasets import Dataset, Prepared, recipes
from counterpoise.datasets.base import MANIFEST
from counterpoise.datasets.files import header, read_table, write_table
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.recipe import Recipe

BESIDE = ("joint", "igm-released")
"""Recipes that are no row of the poster's table: trained only when they are named."""
AS_PUBLISHED = "as_published.csv"
PROG = "counterpoise reproduce"
LATER = ("--data", "--encoder", "--method.", "--run_dir")
"""Options that cannot be looked at before there are data and rows."""
OWN = {**FIXED, "--config": "the recipes of the data set are the configurations", "--data": "SET names the data"}


@dataclass(frozen=True)
class Row:
    """A row of the table: the facts of its settings, and its runs, one per seed."""

    recipe: recipes.PublishedRecipe
    runs: Sequence[Recipe]


def chosen(dataset: Dataset, text: str) -> list[recipes.PublishedRecipe]:
    """The rows that ``--methods`` names.

    Args:
        dataset: whose table it is.
        text: ``poster``, ``all``, or names with commas: of recipes, of methods, or as the table writes them.

    Raises:
        UsageError: for a name that there is not; with the nearest.
    """
    known = [recipes.get(dataset.name, name) for name in dataset.recipes]
    if _folded(text) == "poster":
        return [recipe for recipe in known if recipe.name not in BESIDE]
    if _folded(text) == "all":
        return known
    named: dict[str, list[recipes.PublishedRecipe]] = {}
    for recipe in known:
        for name in (recipe.name, recipe.label, recipe.name.partition("-")[0] if "unimodal" in recipe.name else ""):
            named.setdefault(_folded(name), []).append(recipe)
    picked: dict[str, recipes.PublishedRecipe] = {}
    for name in (part.strip() for part in text.split(",") if part.strip()):
        if _folded(name) not in named:
            raise UsageError("--methods: " + did_you_mean("row", name, [r.name for r in known]))
        picked |= {recipe.name: recipe for recipe in named[_folded(name)]}
    if not picked:
        raise UsageError("--methods names no row; leave it out for those of the poster.")
    return [recipe for recipe in known if recipe.name in picked]


def allowed(options: Sequence[str]) -> Sequence[str]:
    """Options of ``fit`` for all rows, as far as they can be looked at before there are data and rows.

    Raises:
        UsageError: for one that there is not, or that the command sets itself.
    """
    refuse(options, OWN)
    Recipe.parse(["--data", "digits", "--method", "Joint", *without(options, LATER)], fit_parser(PROG))
    return options


def without(options: Sequence[str], begin: tuple[str, ...]) -> list[str]:
    """The options with their values, but for those that begin so."""
    kept: list[str] = []
    left_out = False
    for argument in options:
        if argument.startswith("--"):
            left_out = argument.startswith(begin)
        if not left_out:
            kept.append(argument)
    return kept


def published_parts(dataset: Dataset, split: str, folder: Path) -> Path:
    """A manifest in which the published test part selects, as in released codes, and is not tested on again.

    The published training part is trained on as a whole: a validation part that was taken out of it goes back, and one
    that is published beside it is left out, since the released codes do not read it.

    Args:
        dataset: the data set.
        split: that was prepared.
        folder: of the manifest; the new one is written beside it.

    Returns:
        Its path.
    """
    back = "train+val" in dataset.published(split)
    parts = {"train": "train", "test": "val"} | ({"val": "train"} if back else {})
    columns = header(folder / MANIFEST)
    rows = [row for row in read_table(folder / MANIFEST) if row["split"] in parts]
    path = folder / AS_PUBLISHED
    write_table(path, columns, [[{**row, "split": parts[row["split"]]}[c] for c in columns] for row in rows])
    return path


def plan(
    dataset: Dataset,
    made: Prepared,
    rows: Sequence[recipes.PublishedRecipe],
    seeds: Sequence[int],
    options: Sequence[str],
    manifest: Path | None = None,
) -> list[Row]:
    """The runs of every row; each row's model and trainer are made once, so that what does not fit is said now.

    Args:
        dataset: the data set.
        made: its prepared folder, where the recipes are.
        rows: of the table.
        seeds: of the runs.
        options: of ``fit``, over those of every row.
        manifest: another one than the prepared.

    Raises:
        UsageError: for rows that cannot be trained; the message names the row.
    """
    planned = []
    for row in rows:
        recipe = recipe_of(made, row.name, options, manifest)
        attempt_row(recipe, f"{row.label} of {dataset.title}")
        planned.append(Row(row, [recipe.but({"seed": seed}) for seed in seeds]))
    return planned


def recipe_of(made: Prepared, name: str, options: Sequence[str], manifest: Path | None) -> Recipe:
    """The run of a recipe in the prepared folder; the arguments are those of ``plan``."""
    where = [] if manifest is None else [f"--data.init_args.path={manifest.resolve()}"]
    return Recipe.parse(["--config", str(made.out / f"{name}.yaml"), *where, *options], fit_parser(PROG))


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
