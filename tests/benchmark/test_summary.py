from __future__ import annotations

import io
import itertools
import json
import math
from html import unescape

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from counterpoise.benchmark.notes import expected_best, with_candidates
from counterpoise.benchmark.summary import mean_sd, paired_difference, summarize
from counterpoise.report.tables import summary_html


def record(method: str, seed: int, fused: float, a: float = 0.5, b: float = 0.3, **more: object) -> dict:
    test = {"fused/accuracy": fused, "a/accuracy": a, "b/accuracy": b, "fused/loss": 1 - fused}
    return {
        "method": method,
        "seed": seed,
        "data": "toy",
        "modalities": ["a", "b"],
        "seconds": 10.0 + seed,
        "monitor": "accuracy",
        "val": {"fused/accuracy": fused / 2},
        "test": test,
        **more,
    }


JOINT = [0.60, 0.62, 0.58, 0.61, 0.60]
IGM = [0.66, 0.65, 0.64, 0.69, 0.66]


def records() -> list[dict]:
    return [record("Joint", s, v) for s, v in enumerate(JOINT)] + [record("IGM", s, v) for s, v in enumerate(IGM)]


def test_mean_and_spread_are_those_of_numpy() -> None:
    cell = summarize(records()).rows["IGM"]["fused/accuracy"]
    assert cell.mean == pytest.approx(np.mean(IGM))
    assert cell.sd == pytest.approx(np.std(IGM, ddof=1))
    assert cell.n == cell.asked == 5
    assert mean_sd([2.0]) == (2.0, None)


def test_paired_interval_is_that_of_scipy() -> None:
    difference = summarize(records()).rows["IGM"]["fused/accuracy"].difference
    assert difference is not None
    expected = stats.ttest_rel(IGM, JOINT).confidence_interval(0.95)
    assert difference.mean == pytest.approx(np.mean(IGM) - np.mean(JOINT))
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert summarize(records()).rows["Joint"]["fused/accuracy"].difference is None


def test_pairs_use_equal_seeds_only() -> None:
    difference = paired_difference({0: 0.5, 1: 0.7, 7: 0.9}, {1: 0.4, 0: 0.3, 3: 0.0})
    assert difference is not None
    assert difference.n == 2
    assert difference.mean == pytest.approx(0.25)
    one = paired_difference({0: 0.5}, {0: 0.4})
    assert one is not None
    assert (one.low, one.high, one.n) == (None, None, 1)
    assert paired_difference({0: 0.5}, {1: 0.4}) is None


def test_many_comparisons_are_corrected_by_holm_and_the_table_says_so() -> None:
    near = [0.61, 0.61, 0.60, 0.60, 0.62]
    found = summarize([*records(), *(record("OGM", s, v) for s, v in enumerate(near))])
    p = {row: float(stats.ttest_rel(values, JOINT).pvalue) for row, values in (("IGM", IGM), ("OGM", near))}
    igm, ogm = (found.rows[row]["fused/accuracy"].difference for row in ("IGM", "OGM"))
    assert igm is not None
    assert ogm is not None
    assert (igm.p, ogm.p) == pytest.approx((p["IGM"], p["OGM"]))
    assert (igm.corrected, ogm.corrected) == pytest.approx((2 * p["IGM"], p["OGM"]))
    assert (igm.clear, ogm.clear) == (True, False)
    assert "] *" in found.to_markdown().split("| IGM |")[1].split("\n")[0]
    assert "*: more than chance at 5 %, by Holm's correction for the 2 comparisons of a column" in found.to_markdown()
    # the smaller p would do alone, and not among twenty
    many = [record(f"M{i}", s, v + i / 1e4) for i in range(20) for s, v in enumerate(near)]
    weak = [0.63, 0.63, 0.60, 0.63, 0.64]
    alone = summarize([*records()[:5], *(record("W", s, v) for s, v in enumerate(weak))])
    among = summarize([*records()[:5], *(record("W", s, v) for s, v in enumerate(weak)), *many])
    differences = [summary.rows["W"]["fused/accuracy"].difference for summary in (alone, among)]
    assert [d.clear for d in differences if d] == [True, False]
    assert "\n*: more than chance at 5 %." in alone.to_markdown()  # one comparison is corrected for nothing
    assert (
        "No difference is more than chance at 5 %, by Holm's correction for the 21 comparisons" in among.to_markdown()
    )


def test_folds_in_place_of_seeds_widen_the_intervals() -> None:
    seeds, folds = summarize(records()), summarize(records(), ratio=0.25)
    narrow, wide = (s.rows["IGM"]["fused/accuracy"].difference for s in (seeds, folds))
    assert narrow is not None
    assert wide is not None
    assert narrow.high is not None
    assert wide.high is not None
    assert (wide.high - wide.mean) / (narrow.high - narrow.mean) == pytest.approx(math.sqrt(1 + 5 * 0.25))
    text = folds.to_markdown()
    assert "Mean ± standard deviation over 5 folds" in text
    assert "its variance is times 1/k + 0.25 (Nadeau and Bengio, 2003)" in text


def test_gap_and_seconds() -> None:
    row = summarize(records()).rows["IGM"]
    assert row["gap"].mean == pytest.approx(0.2)
    assert row["seconds"].mean == pytest.approx(12.0)


def test_ranks_follow_the_direction_of_the_metric() -> None:
    summary = summarize([*records(), *(record("MLA", s, 0.5) for s in range(5))])
    ranks = {label: {c: cell.rank for c, cell in row.items()} for label, row in summary.rows.items()}
    assert [ranks[m]["fused/accuracy"] for m in ("IGM", "Joint", "MLA")] == [1, 2, None]
    assert [ranks[m]["fused/loss"] for m in ("IGM", "Joint", "MLA")] == [1, 2, None]
    assert [ranks[m]["a/accuracy"] for m in ("IGM", "Joint", "MLA")] == [1, 1, 1]
    assert {row[column] for row in ranks.values() for column in ("gap", "seconds")} == {None}


def test_fewer_seeds_than_asked_is_said_and_not_ranked() -> None:
    summary = summarize([*records()[:5], *(record("IGM", s, 0.99) for s in range(3))])
    cell = summary.rows["IGM"]["fused/accuracy"]
    assert not cell.complete
    assert cell.rank is None
    assert "99.0 ± 0.0<br>n=3/5" in summary.to_markdown()
    assert "only a of b seeds" in summary.to_markdown()
    over_folds = summarize([*records()[:5], *(record("IGM", s, 0.99) for s in range(3))], ratio=0.25)
    assert "only a of b folds" in over_folds.to_markdown()
    asked = summarize(records(), seeds=7)
    assert "n=5/7" in asked.to_markdown()
    assert "n=" not in summarize(records()).to_markdown()


def test_dagger_below_the_best_modality_trained_alone() -> None:
    alone = [record("Unimodal", s, 0.63, label="Unimodal(a)") for s in range(5)]
    alone += [record("Unimodal", s, 0.2, label="Unimodal(b)") for s in range(5)]
    summary = summarize([*records(), *alone])
    assert summary.rows["Joint"]["fused/accuracy"].below
    assert not summary.rows["IGM"]["fused/accuracy"].below
    assert not summary.rows["Unimodal(b)"]["fused/accuracy"].below
    assert not summary.rows["Joint"]["a/accuracy"].below
    assert summary.references["fused/accuracy"] == ("Unimodal(a)", pytest.approx(0.63))
    assert not any(row["fused/loss"].below for row in summary.rows.values())
    assert "60.2 ± 1.5 †" in summary.to_markdown()
    assert "†" not in summarize(records()).to_markdown()


def test_markdown_marks_best_and_second() -> None:
    text = summarize(records()).to_markdown()
    lines = text.splitlines()
    igm = next(line for line in lines if line.startswith("| IGM"))
    joint = next(line for line in lines if line.startswith("| Joint"))
    assert f"**{100 * np.mean(IGM):.1f} ± {100 * np.std(IGM, ddof=1):.1f}**<br>Δ +5.8 [" in igm
    assert "<u>60.2 ± 1.5</u> |" in joint
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_rich_table_and_dict_hold_the_same_numbers() -> None:
    summary = summarize(records())
    out = io.StringIO()
    Console(file=out, width=200).print(summary.to_rich(200))
    assert f"{100 * np.mean(IGM):.1f} ± {100 * np.std(IGM, ddof=1):.1f}" in out.getvalue()
    plain = json.loads(json.dumps(summary.to_dict()))
    assert plain["rows"]["IGM"]["fused/accuracy"]["mean"] == pytest.approx(np.mean(IGM))
    assert plain["rows"]["IGM"]["fused/accuracy"]["n"] == 5
    assert plain["baseline"] == "Joint"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_terminal_table_fits_and_names_what_it_leaves_out(width: int) -> None:
    out = io.StringIO()
    summary = summarize(records())
    table = summary.to_rich(width)
    Console(file=out, width=width).print(table)
    shown = out.getvalue()
    assert "…" not in shown[: shown.index("Mean")]
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    assert "66.0 ± 1.9" in shown
    assert len(table.columns) - 1 == len(summary.columns) or "No room for:" in shown
    assert len(summary.to_rich(200).columns) - 1 == len(summary.columns)


def test_the_third_modality_is_in_a_terminal_of_80_columns() -> None:
    names = ("text", "audio", "video")
    three = [
        {**record(method, seed, score + 0.01 * seed), "modalities": names}
        for method, score in (("Joint", 0.60), ("ModalityDropout", 0.72))
        for seed in range(3)
    ]
    for one in three:
        fused = one["test"]["fused/accuracy"]
        one["test"] = {"fused/accuracy": fused, **{f"{m}/accuracy": fused - 0.1 for m in names}}
    out = io.StringIO()
    Console(file=out, width=80).print(summarize(three).to_rich(80))
    shown = out.getvalue()
    assert all(f"{m} " in shown[: shown.index("Mean")] for m in names)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    assert "Δ +12.0" in shown


def test_validation_scores_and_labels() -> None:
    some = [record("OGM", 0, 0.6, label="OGM (alpha=0.1)"), record("OGM", 0, 0.8, label="OGM (alpha=0.5)")]
    summary = summarize(some, split="val")
    assert set(summary.rows) == {"OGM (alpha=0.1)", "OGM (alpha=0.5)"}
    assert summary.rows["OGM (alpha=0.5)"]["fused/accuracy"].mean == pytest.approx(0.4)
    assert summary.baseline is None


def test_a_run_that_diverged_counts_as_missing() -> None:
    broken = record("IGM", 4, math.nan)
    summary = summarize([*records()[:-1], broken])
    assert summary.rows["IGM"]["fused/accuracy"].n == 4
    assert "n=4/5" in summary.to_markdown()


def test_records_without_the_split_are_left_out() -> None:
    assert summarize([record("Joint", 0, 0.5), record("Joint", 1, 0.5, test=None)]).asked == 1
    assert summarize([]).rows == {}


def test_refuses_mixed_data_and_repeated_seeds() -> None:
    with pytest.raises(ValueError, match="found other, toy"):
        summarize([record("Joint", 0, 0.5), record("Joint", 0, 0.5, data="other")])
    with pytest.raises(ValueError, match="'Joint' have seed 0"):
        summarize([record("Joint", 0, 0.5), record("Joint", 0, 0.5)])


def test_a_method_name_cannot_break_the_table() -> None:
    text = summarize([record("a|b<i>", 0, 0.5)]).to_markdown()
    assert "a\\|b&lt;i>" in text


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"Joint": "its own head"}, "A modality's score is of its own head."),
        ({"Joint": "its own head", "IGM": "its own head"}, "A modality's score is of its own head."),
        (
            {"Joint": "its slice", "IGM": "its own head", "MSES": "its own head"},
            "A modality's score is of its slice (Joint); its own head (IGM, MSES): compare it within a row",
        ),
        ({"Joint": None}, None),
    ],
)
def test_a_table_says_which_read_out_a_modality_is_of(kinds: dict[str, str | None], said: str | None) -> None:
    found = [record(method, 0, 0.5, unimodal=kind) for method, kind in kinds.items()]
    summary = summarize(found)
    texts = ["\n".join(summary.notes()), summary.to_markdown(), unescape(summary_html(summary))]
    assert all((said in text) if said else ("A modality's score" not in text) for text in texts)
    assert not any("A modality's" in note for note in summarize(found, columns=["fused/accuracy", "gap"]).notes())
    assert summary.to_dict()["unimodal"] == {method: kind for method, kind in kinds.items() if kind}


@pytest.mark.parametrize(
    ("val", "test", "best"),
    [((0.7, 0.6), (0.5, 0.9), "a"), ((0.6, 0.7), (0.9, 0.5), "b"), ((0.6, 0.7), (0.5, 0.9), "b")],
)
def test_the_reference_is_chosen_on_validation(val: tuple[float, float], test: tuple[float, float], best: str) -> None:
    rows = [
        record("Unimodal", seed, test[i], label=m, val={"fused/accuracy": val[i]})
        for i, m in enumerate("ab")
        for seed in range(3)
    ]
    summary = summarize([*rows, *(record("Joint", seed, 0.7) for seed in range(3))])
    assert summary.references["fused/accuracy"] == (best, pytest.approx(test["ab".index(best)]))
    assert summary.rows["Joint"]["fused/accuracy"].below == (test["ab".index(best)] > 0.7)
    unknown = [{**row, "val": {}} for row in rows]
    assert summarize(unknown).references["fused/accuracy"][0] == "ab"[test.index(max(test))]


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        ({"Joint": 20, "OGM": 20}, None),
        ({"Joint": 20, "OGM": 20, "IGM": 40}, "20 (Joint, OGM; on average −10.0 against test), 40 (IGM; on average"),
        ({"Joint": 5, "IGM": 15, "MLA": 10}, "5 (Joint; on average −10.0 against test), 10 (MLA; on"),
        ({"Joint": None, "IGM": 15}, None),
    ],
)
def test_the_number_of_scores_that_selection_had_is_said(epochs: dict[str, int | None], said: str | None) -> None:
    found = [record(m, s, 0.6, val={"fused/accuracy": 0.5}, epochs=e) for m, e in epochs.items() for s in range(2)]
    note = [line for line in summarize(found).notes() if "validation scores" in line]
    assert (said in note[0]) if said else not note
    shown = [line for line in summarize(found, split="val").notes() if "validation scores" in line]
    assert "against" not in "".join(shown)


@pytest.mark.parametrize("scores", [[0.3], [0.2, 0.9, 0.5, 0.5], [3.0, -1.0, 2.0, 2.5, 0.0, 7.0, 7.0]])
def test_the_expected_best_of_some_is_that_of_all_draws(scores: list[float]) -> None:
    for count in range(1, len(scores) + 1):
        draws = [max(draw) for draw in itertools.combinations(scores, count)]
        assert expected_best(scores, count) == pytest.approx(np.mean(draws))


def test_the_expected_best_of_many() -> None:
    assert expected_best(np.arange(5000), 2500) == pytest.approx(2500 * 5001 / 2501 - 1)


@pytest.mark.parametrize(
    ("monitor", "scores", "said"),
    [
        (
            "accuracy",
            [0.1, 0.5, 0.9, 0.7],
            "better by 13.3 for IGM than the mean best of any 2 of its epochs, what training longer gained included.",
        ),
        (
            "accuracy",
            [0.5, 0.5, 0.5, 0.5],
            "better by 0.0 for IGM than the mean best of any 2 of its epochs, what training longer gained included.",
        ),
        (
            "loss",
            [0.9, 0.5, 0.1, 0.3],
            "better by 0.133 for IGM than the mean best of any 2 of its epochs, what training longer gained included.",
        ),
        ("accuracy", [0.9, None, math.nan], "flatters the validation score more."),
        ("accuracy", [], "flatters the validation score more."),
    ],
)
def test_by_how_much_the_best_of_more_flatters(monitor: str, scores: list[float | None], said: str) -> None:
    found = []
    for method, curve in {"Joint": [0.2, 0.4], "IGM": scores}.items():
        for seed in range(2):
            history = [{"epoch": 1 + i, f"val/fused/{monitor}": value} for i, value in enumerate(curve)]
            one = record(method, seed, 0.6, monitor=monitor, epochs=2 if method == "Joint" else 4)
            found.append(with_candidates(one, history))
    (note,) = [line for line in summarize(found).notes() if "validation scores" in line]
    assert note.endswith(said)


@pytest.mark.parametrize("cost", [(1.9, 3.8), (0.5, 12.0), (3.0, 3.0)])
def test_passes_are_columns_that_no_row_wins(cost: tuple[float, float]) -> None:
    found = [
        record(m, s, 0.6, cost={"forward": cost[0], "backward": cost[1]}) for m in ("Joint", "IGM") for s in (0, 1)
    ]
    summary = summarize(
        [*found, record("MLA", 0, 0.5, cost={"forward": None, "backward": None}), record("OGM", 0, 0.5)]
    )
    assert summary.columns[-3:] == ["seconds", "forward", "backward"]
    assert summary.rows["IGM"]["forward"].mean == pytest.approx(cost[0])
    assert summary.rows["IGM"]["backward"].rank is None
    assert "backward" not in summary.rows["MLA"]
    text = summary.to_markdown()
    assert f"{cost[1]:.1f} ± 0.0" in text
    assert "| backward passes |" in text
    assert "1 is every encoder over every training sample once" in text
    assert "forward" not in summarize(records()).columns
