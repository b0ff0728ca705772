"""Published numbers: complete, in range, and as the poster prints them."""

from __future__ import annotations

import pytest

from counterpoise.datasets import DATASETS, recipes
from counterpoise.datasets.published import publications, published

POSTER = {  # typed again from the poster, for three rows: acc and MAP or macro-F1 of the five sets
    "ogm": (66.94, 71.73, 66.06, 71.44, 74.92, 68.74, 83.23, 82.66, None, None),
    "mla": (79.43, 85.72, 70.04, 74.13, 73.52, 67.13, 84.26, 83.48, 83.73, 83.87),
    "igm-paper": (81.05, 89.48, 74.03, 78.55, 74.89, 69.17, 84.68, 83.92, 86.93, 87.03),
}
SETS = ("cremad", "kinetics_sounds", "twitter2015", "sarcasm", "nvgesture")


def of(table: str, dataset: str, row: str) -> dict[str, float]:
    scores = published(dataset).get(row, {})
    return {m: n.value for m, numbers in scores.items() for n in numbers if n.publication.name == table}


@pytest.mark.parametrize("row", POSTER)
def test_rows_of_the_poster(row):
    printed = iter(POSTER[row])
    for dataset in SETS:
        second = "map" if dataset in ("cremad", "kinetics_sounds") else "macro_f1"
        pair = {"accuracy": next(printed), second: next(printed)}
        assert of("igm", dataset, row) == {m: v for m, v in pair.items() if v is not None}


def test_every_row_of_the_poster_has_a_recipe_and_the_other_way_round():
    for dataset in DATASETS:
        rows = {row for row in published(dataset) if of("igm", dataset, row)}
        asked = set(recipes.names(dataset)) - {"joint", "igm-released"}
        gone = asked - rows
        assert rows <= asked
        assert gone == ({"ogm", "domfn", "pmr"} if dataset == "nvgesture" else set())


def test_all_are_percentages_with_a_protocol():
    for dataset in DATASETS:
        for row, scores in published(dataset).items():
            for metric, numbers in scores.items():
                assert metric in ("accuracy", "map", "macro_f1")
                assert all(20 < n.value < 100 and (n.sd is None or 0 < n.sd < 5) for n in numbers), (dataset, row)
    for table in publications():
        assert table.selected_on in ("test", "validation", "not selected", "not known")
        assert table.selection or table.selected_on == "not known"
        assert table.read in ("source", "secondhand")
    assert len({table.name for table in publications()}) == len(publications())


def test_papers_that_disagree_are_both_there():
    audio = {n.publication.name: n.value for n in published("cremad")["unimodal-audio"]["accuracy"]}
    assert (audio["igm"], audio["lfm"]) == (45.83, 63.17)
    own = {n.publication.name for n in published("cremad")["mla"]["accuracy"] if "mla" in n.publication.own}
    assert own == {"mla"}


def test_an_unknown_data_set_gets_the_nearest_name():
    with pytest.raises(ValueError, match="Did you mean 'cremad'"):
        published("crema")
