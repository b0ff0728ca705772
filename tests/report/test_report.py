from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from counterpoise.report import collect, write_report
from counterpoise.report.collect import flatten
from counterpoise.report.figures import PALETTE, VARIABLES
from counterpoise.report.markup import html_table
from counterpoise.report.page import score_curve
from counterpoise.report.tables import common_and_different

MODALITIES = ["audio", "image"]


def make_run(
    root: Path,
    method: str,
    seed: int,
    *,
    finish: bool = True,
    test: bool = True,
    data: str = "digits",
    epochs: int = 6,
    modalities: list[str] | None = None,
    settings: dict | None = None,
    label: str | None = None,
    name: str | None = None,
    level: float = 0.8,
) -> dict:
    """A run directory as the engine leaves it, with made-up numbers; returns the result."""
    modalities = modalities or MODALITIES
    rng = np.random.default_rng([seed, *method.encode()])
    directory = root / (name or f"{method}-s{seed}")
    directory.mkdir(parents=True)
    history = []
    for epoch in range(1, epochs + 1):
        entry = {
            "epoch": epoch,
            "phase": modalities[epoch % 2] if method == "IGM" else "fit",
            "seconds": 1.0,
            "lr": 0.1,
        }
        for k, m in enumerate(["fused", *modalities]):
            ceiling = level - 0.12 * k
            entry[f"val/{m}/accuracy"] = ceiling * (1 - np.exp(-epoch * (1 + k) / epochs * 2)) + 0.02 * rng.normal()
        entry["train/loss"] = float(np.exp(-epoch))
        history.append(entry)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    config = {"seed": seed, "method": {"class_path": f"counterpoise.methods.{method}", "init_args": settings or {}}}
    (directory / "config.yaml").write_text(
        yaml.safe_dump(
            config
            | {
                "trainer": {"epochs": epochs},
                "data": {"class_path": "counterpoise.data." + data.title()},
                "run_dir": str(directory),
            }
        )
    )
    names = {"method": method, "label": label or method, "seed": seed, "data": data}
    (directory / "environment.json").write_text(
        json.dumps({"run": names, "python": "3.11", "versions": {"torch": "2.15"}})
    )
    scores = {f"{m}/accuracy": level - 0.12 * k + 0.02 * rng.normal() for k, m in enumerate(["fused", *modalities])}
    scores |= {"fused/macro_f1": scores["fused/accuracy"] - 0.01, "fused/loss": 0.5 + 0.1 * rng.random()}
    result = {
        **names,
        "modalities": modalities,
        "classes": ["0", "1", "2"],
        "seconds": 20 + 10 * float(rng.random()),
        "epochs": epochs,
        "best_epoch": epochs - 1,
        "monitor": "accuracy",
        "val": {key: value - 0.01 for key, value in scores.items()},
        "test": scores if test else None,
        "subsets": {m: {"accuracy": scores[f"{m}/accuracy"]} for m in modalities}
        | {"+".join(modalities): {"accuracy": scores["fused/accuracy"]}},
    }
    if finish:
        (directory / "result.json").write_text(json.dumps(result))
    return result


class Reader(HTMLParser):
    """Texts of the table cells and every address a browser would fetch."""

    VOID = frozenset(["meta", "br", "img", "link", "input", "hr"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += ("|" if "small" in self.open else "") + data


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict]], str]:
    root = tmp_path_factory.mktemp("runs")
    levels = {"Joint": 0.74, "Unimodal": 0.7, "MLA": 0.78, "IGM": 0.82}
    results = {m: [make_run(root, m, seed, level=v) for seed in range(3)] for m, v in levels.items()}
    (root / "logs").mkdir()
    (root / "logs" / "x.log").write_text("not a run")
    out = write_report(root, root / "report.html")
    return root, results, out.read_text(encoding="utf-8")


def test_page_fetches_nothing(demo: tuple) -> None:
    page = demo[2]
    reader = Reader(page)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.addresses)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page)
    assert not {"script", "link", "iframe", "object"} & reader.tags
    assert {"svg", "table", "figcaption"} <= reader.tags


def test_table_holds_the_numbers_of_numpy(demo: tuple) -> None:
    _, results, page = demo
    rows = {row[0]: row for row in reversed(Reader(page).rows)}  # the first table wins
    header = rows["method"]
    joint = np.array([r["test"]["fused/accuracy"] for r in results["Joint"]])
    for method, members in results.items():
        fused = np.array([r["test"]["fused/accuracy"] for r in members])
        value, _, difference = rows[method][header.index("fused accuracy (%)")].partition("|")
        assert value.startswith(f"{100 * fused.mean():.1f} ± {100 * fused.std(ddof=1):.1f}")
        if method != "Joint":
            interval = stats.ttest_rel(fused, joint).confidence_interval(0.95)
            expected = [100 * (fused - joint).mean(), 100 * interval.low, 100 * interval.high]
            found = [float(n) for n in re.findall(r"[+-][\d.]+", difference.replace("−", "-"))]
            assert found == pytest.approx(expected, abs=0.05 + 1e-9)
        audio = np.array([r["test"]["audio/accuracy"] for r in members])
        assert (
            rows[method][header.index("audio accuracy (%)")]
            == f"{100 * audio.mean():.1f} ± {100 * audio.std(ddof=1):.1f}"
        )
        seconds = np.array([r["seconds"] for r in members])
        assert rows[method][header.index("training time (s)")] == f"{seconds.mean():.1f} ± {seconds.std(ddof=1):.1f}"


def test_every_part_is_there(demo: tuple) -> None:
    page = demo[2]
    parts = ["Comparison", "Each modality and their fusion", "Learning curves", "Training time", "Missing modalities"]
    for part in [*parts, "Configuration"]:
        assert f"<h3>{part}</h3>" in page
    assert "<h2>Environment</h2>" in page
    assert "have not finished" not in page
    for subset in ("audio", "image", "audio + image"):
        assert f"<th class=number>{subset}</th>" in page


def test_figures_take_the_colours_of_the_page(demo: tuple) -> None:
    page = demo[2]
    svgs = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(svgs) == 3
    for svg in svgs:
        assert not any(stand_in in svg for stand_in in VARIABLES)
        assert "var(--ink)" in svg
        assert "<text" in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000", "#ffffff"}
    style = page[: page.index("</style>")]
    assert all(f"--series-{k}:" in style for k in range(1, len(PALETTE) + 1))
    ids = [name for svg in svgs for name in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))


def test_redrawing_gives_the_same_page(demo: tuple, tmp_path: Path) -> None:
    root, _, page = demo
    assert write_report(root, tmp_path / "deep" / "again.html").read_text(encoding="utf-8") == page
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["again.html"]


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>$x^{"
    for seed in range(2):
        make_run(
            tmp_path,
            evil,
            seed,
            name=f"run{seed}",
            data="<b>&amp;",
            modalities=["<i>a", "b&'\""],
            settings={"k": "<u>"},
        )
    (tmp_path / "run1" / "environment.json").write_text(json.dumps({"cpu": "<img src=x>"}))
    page = write_report(tmp_path, tmp_path / "out.html", title="<title>").read_text(encoding="utf-8")
    reader = Reader(page)
    assert reader.open == []
    assert not {"script", "b", "i", "u", "img"} & reader.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x^{" in page
    assert any("<i>a accuracy (%)" in row for row in reader.rows)


def test_unfinished_and_damaged_runs_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path, "Joint", seed)
    make_run(tmp_path, "IGM", 0)
    make_run(tmp_path, "IGM", 1, finish=False, epochs=4)
    make_run(tmp_path, "MLA", 0, finish=False, epochs=2)
    with (tmp_path / "MLA-s0" / "metrics.jsonl").open("a") as history:
        history.write('{"epoch": 3, "val/fu')
    (tmp_path / "IGM-s1" / "result.json").write_text('{"method": "IG')
    runs = {run.directory.name: run for run in collect(tmp_path)}
    assert [name for name, run in runs.items() if not run.finished] == ["IGM-s1", "MLA-s0"]
    assert runs["MLA-s0"].state == "unfinished, 2 epochs so far"
    assert runs["MLA-s0"].problems == []
    assert (runs["MLA-s0"].method, runs["MLA-s0"].seed, runs["MLA-s0"].data) == ("MLA", 0, "digits")
    assert "result.json cannot be read" in runs["IGM-s1"].problems[0]
    page = write_report(tmp_path, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "2 of 5 runs have not finished" in page
    assert "IGM-s1: unfinished, 4 epochs so far; result.json cannot be read" in page
    assert "n=1/2" in page  # one of the two seeds that the runs have


def test_nothing_finished_yet(tmp_path: Path) -> None:
    make_run(tmp_path, "Joint", 0, finish=False)
    page = write_report(tmp_path / "Joint-s0", tmp_path / "out.html").read_text(encoding="utf-8")
    assert "No run has finished yet." in page
    assert "<h3>Learning curves</h3>" in page
    assert "<h3>Comparison</h3>" not in page


def test_validation_scores_when_there_is_no_test(tmp_path: Path) -> None:
    result = make_run(tmp_path, "Joint", 0, test=False)
    page = write_report(tmp_path, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "these scores are optimistic" in page
    assert f"{100 * result['val']['fused/accuracy']:.1f}" in Reader(page).rows[1][1]


def test_monitoring_the_loss_ranks_low_first(tmp_path: Path) -> None:
    for method, level in {"Joint": 0.9, "MLA": 0.4}.items():
        for seed in range(2):
            result = make_run(tmp_path, method, seed, level=level)
            scores = {f"{m}/loss": level + 0.01 * seed for m in ("fused", *MODALITIES)}
            result |= {"monitor": "loss", "val": scores, "test": scores, "subsets": {}}
            (tmp_path / f"{method}-s{seed}" / "result.json").write_text(json.dumps(result))
    page = write_report(tmp_path, tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Best: MLA with 0.405 ± 0.007 fused test loss; difference to Joint: −0.500" in page
    assert "test loss, mean ± sd, n = 2 seeds" in page
    assert "<h3>Missing modalities</h3>" not in page


@pytest.mark.parametrize("count", [1, 3, 9])
def test_any_number_of_modalities(tmp_path: Path, count: int) -> None:
    names = [f"m{k}" for k in range(count)]
    for method in ("Joint", "MLA"):
        make_run(tmp_path, method, 0, modalities=names, epochs=1)
    page = write_report(tmp_path, tmp_path / "out.html").read_text(encoding="utf-8")
    assert all(f"{name} accuracy (%)" in page for name in names)


def test_data_sets_are_kept_apart(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "Joint", 0)
    make_run(tmp_path / "b", "Joint", 0, data="mosi", modalities=["audio", "text", "video"])
    page = write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.index("<h2>digits</h2>") < page.index("<h2>mosi</h2>")
    assert "text accuracy" not in page[: page.index("<h2>mosi</h2>")]


def test_variants_of_a_method_get_their_settings_as_label(tmp_path: Path) -> None:
    for alpha in (0.1, 0.5):
        for seed in range(2):
            make_run(tmp_path, "OGM", seed, settings={"alpha": alpha}, name=f"{alpha}-{seed}")
    make_run(tmp_path, "OGM", 1, settings={"alpha": 0.5}, name="twin")
    labels = {run.directory.name: run.label for run in collect(tmp_path)}
    assert labels["0.1-0"] == labels["0.1-1"] == "OGM (alpha=0.1)"
    assert labels["0.5-1"] == "OGM (alpha=0.5) [0.5-1]"
    assert labels["twin"] == "OGM (alpha=0.5) [twin]"
    write_report(tmp_path, tmp_path / "out.html")


def test_an_unfinished_run_says_its_names(tmp_path: Path) -> None:
    make_run(tmp_path, "Unimodal", 1, label="Unimodal(audio)", data="mine", finish=False)
    make_run(tmp_path, "Joint", 0, finish=False)
    (tmp_path / "Joint-s0" / "environment.json").write_text("{}")  # of a run from before it said them
    runs = {run.directory.name: (run.method, run.label, run.seed, run.data) for run in collect(tmp_path)}
    assert runs["Unimodal-s1"] == ("Unimodal", "Unimodal(audio)", 1, "mine")
    assert runs["Joint-s0"] == ("Joint-s0", "Joint-s0", None, "")


def test_a_resumed_run_counts_each_epoch_once(tmp_path: Path) -> None:
    make_run(tmp_path, "Joint", 0, epochs=2)
    with (tmp_path / "Joint-s0" / "metrics.jsonl").open("a") as history:
        history.write('{"epoch": 2, "val/fused/accuracy": 0.5}\nnot json\n{"epoch": 3}\n')
    (run,) = collect(tmp_path)
    assert [entry["epoch"] for entry in run.history] == [1, 2, 3]
    assert run.history[1]["val/fused/accuracy"] == 0.5
    assert run.problems == ["metrics.jsonl line 4 is no epoch"]


@pytest.mark.parametrize("absent", [None, "n/a", math.nan])
def test_curves_are_those_of_the_epochs_that_a_run_has(absent: object) -> None:
    scores = np.random.default_rng(0).random((3, 4))
    histories = [[{"epoch": e + 1, "s": float(row[e])} for e in range(4)] for row in scores]
    histories[1] = histories[1][1:]
    histories[2] = [*histories[2][:3], {"epoch": 4, "s": absent}]
    scores[1, 0] = scores[2, 3] = np.nan
    found = [score_curve(history, "s", [1, 2, 3, 4]) for history in histories]
    np.testing.assert_array_equal(found, scores)
    assert np.isnan(score_curve(histories[0], "other", [1, 2])).all()


def test_no_runs_and_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds result\.json"):
        collect(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no directory"):
        write_report(tmp_path / "missing", tmp_path / "out.html")


def test_small_tables() -> None:
    assert "<td class=number>&lt;b&gt;</td>" in html_table(["a", "b"], [["x", "<b>"]], numbers=1)
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
    common, different = common_and_different({"A": [{"x": 1, "y": 2}], "B": [{"x": 1, "y": 3}, {"x": 1, "y": 4}]})
    assert common == {"x": "1"}
    assert different == {"A": {"y": "2"}, "B": {"y": "3, 4"}}
