"""One table out of the comparisons of several data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from counterpoise.cli import main


def record(label: str, fusion: str, accuracy: float, seed: int, data: str) -> dict:
    scores = {"fused/accuracy": accuracy, "fused/macro_f1": accuracy - 0.1, "fused/loss": 1.0}
    return {
        "method": label.split("(")[0], "label": label, "seed": seed, "data": data, "modalities": ["a", "b"],
        "fusion": fusion, "monitor": "accuracy", "seconds": 1.0, "test": scores, "val": scores,
    }  # fmt: skip


def write(folder: Path, name: str, rows: dict[str, tuple[str, float]]) -> None:
    records = [record(label, fusion, value, seed, name) for label, (fusion, value) in rows.items() for seed in (0, 1)]
    kept = {
        "study": "comparison", "data": {"name": name, "modalities": ["a", "b"], "classes": 3, "train": 9}, "epochs": 5,
        "seeds": [0, 1], "options": [], "runs": {}, "missing": [], "result": {"split": "test", "records": records},
    }  # fmt: skip
    (folder / "comparison").mkdir(parents=True)
    (folder / "comparison" / "data.json").write_text(json.dumps(kept))


def study(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["study", "comparison", *arguments])
    return int(str(left.value.code or 0))


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(Path("one"), "first set", {"Unimodal(a)": ("Late", 0.5), "OGM": ("Concat", 0.7), "IGM": ("Late", 0.6)})
    write(Path("two"), "second set", {"Unimodal(b)": ("Late", 0.8), "IGM": ("Late", 0.9), "MLA": ("Shared", 0.75)})
    return tmp_path


def test_ranks_and_marks_are_those_of_each_set(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("--combine", "one", "two", "--out", "both") == 0
    page = Path("both/studies.html").read_text()
    lines = [line for line in page.splitlines() if line.startswith(("<tr><th scope", '<div class="wide"><table>'))]
    headings = [line.split("<em>")[1].split("</em>")[0] for line in lines if "rowgroup" in line]
    assert headings == ["one modality alone", "fusion of features (early)", "fusion of decisions (late)"]
    names = [line.split("<th scope=row>")[1].split("</th>")[0] for line in lines if "scope=row>" in line]
    assert names == ["Unimodal(a)", "Unimodal(b)", "OGM", "IGM", "MLA"]
    igm = next(line for line in lines if ">IGM<" in line)
    cells = igm.split("<td")[1:]
    assert len(cells) == 4  # accuracy and macro F1 of each set
    assert ["best" in cell for cell in cells] == [False, False, True, True]
    assert ["second" in cell for cell in cells] == [True, True, False, False]
    mla = next(line for line in lines if ">MLA<" in line)
    assert ["†" in cell for cell in mla.split("<td")[1:]] == [False, False, True, True]
    assert "Data: first set (9 train" in page
    assert "Data: second set (9 train" in page

    # what was combined can be combined further and drawn again
    assert study("--out", "both", "--redraw") == 0
    assert Path("both/studies.html").read_text() == page
    assert study("--combine", "both", "--out", "again") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--combine", "one", "none", "--out", "both"], 1, "there is no none/comparison/data.json"),
        (["--combine", "one", "one", "--out", "both"], 2, "'first set', as one before it is"),
        (["--combine", "one", "two", "--out", "one"], 2, "a directory of its own"),
        (["--combine", "one", "--out", "both", "--epochs=3"], 2, "--epochs=3 has no effect"),
    ],
)
def test_what_cannot_be_combined(
    sets: Path, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(*arguments) == code
    assert said in capsys.readouterr().err
