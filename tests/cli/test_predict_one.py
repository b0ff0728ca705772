"""One sample on the command line, and runs that were written from Python."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from torch import nn

import counterpoise as cp
from conftest import Run, write
from counterpoise.data import Table, Text
from counterpoise.encoders import TextBag
from counterpoise.methods import Joint


def from_python(folder: Path, texts: Path, encoder: type[nn.Module] = TextBag) -> cp.Trainer:
    """A run on a table of two texts, written by a Trainer."""
    data = Table(texts, {m: Text(length=4, vocabulary=50) for m in ("said", "seen")}).splits()
    model = cp.build_model({m: encoder(50, 8) for m in ("said", "seen")}, task=data.task)
    trainer = cp.Trainer(model, Joint(), epochs=2, batch_size=8, run_dir=folder, progress=False)
    trainer.run(data, data="texts")
    return trainer


def test_one_sample_with_votes(run: Run, texts: Path) -> None:
    from_python(Path("r"), texts)
    model, sample = cp.load("r"), {"said": "word1 hello", "seen": "also 1"}
    found = model.predict(sample, explain=True)
    done = run("predict", "r", "--said", "word1 hello", "--seen", "also 1")
    assert done.code == 0, done.err
    first, *rows = [line for line in done.out.splitlines() if line.strip()]
    assert first.startswith(f"{found.answer}  ({found.answer} {max(found.probabilities.values()):.3f}, ")
    for m in ("said", "seen"):
        vote = found.votes[m]
        (row,) = [line.split() for line in rows if line.split()[0] == m]
        assert row == [m, vote.answer, f"{max(vote.probabilities.values()):.3f}", f"{vote.share:+.3f}"]
    told = json.loads(run("predict", "r", "--said", "word1 hello", "--json").out)
    assert told == json.loads(run("predict", "--json", "--said", "word1 hello", "r").out)
    assert told["votes"]["seen"] == {"answer": None, "probabilities": None, "share": pytest.approx(0, abs=1e-9)}
    assert {p.name for p in Path().iterdir()} == {"r", "texts.csv"}  # nothing is written


def test_of_a_run_of_the_command_line_and_of_a_folder(run: Run, texts: Path) -> None:
    quick = ["--epochs", "1", "--batch_size", "8", "--progress", "false"]
    assert run("fit", "--data", texts, "--method", "Joint", "--run_dir", "r", *quick).code == 0
    done = run("predict", "r", "--said", "word1", "--json")
    assert done.code == 0, done.err
    cp.load("r").save_pretrained("f")
    assert run("predict", "f", "--said", "word1", "--json").out == done.out


def test_a_run_from_python_on_a_table(run: Run, texts: Path, tmp_path: Path) -> None:
    trainer = from_python(Path("r"), texts)
    done = run("evaluate", "r", "--table", texts, "--json")
    assert done.code == 0, done.err
    data = Table(texts, {m: Text(length=4, vocabulary=50) for m in ("said", "seen")})
    assert json.loads(done.out)["scores"] == pytest.approx(trainer.evaluate(data.samples()))
    new = write(tmp_path / "new.csv", ("seen", "said"), [("also 1", ""), ("", "word1 hello")])
    done = run("predict", "r", new, "--out", "p.csv")
    assert (done.code, done.out) == (0, "Wrote p.csv: 2 rows of probabilities.\n")
    with Path("p.csv").open() as file:
        told = list(csv.DictReader(file))
    wanted = cp.load("r").predict_proba(new)
    assert [float(told[i]["fused:a"]) for i in range(2)] == pytest.approx(wanted[:, 0].tolist(), abs=1e-6)
    assert run("report", "r", "--out", "page.html").code == 0
    assert "Joint" in Path("page.html").read_text()
    done = run("evaluate", "r")
    assert done.code == 2
    assert "r was trained from Python" in done.err
    assert 'model = cp.load("r")' in done.err


def test_a_closure_says_so_and_names_the_python_call(run: Run, texts: Path) -> None:
    class Net(TextBag):
        pass

    with pytest.warns(UserWarning, match="defined inside a function"):
        from_python(Path("r"), texts, Net)
    for command in (["predict", "r", texts, "--out", "p.csv"], ["evaluate", "r", "--table", texts],
                    ["predict", "r", "--said", "a"]):  # fmt: skip
        done = run(*command)
        assert done.code == 2
        assert "defined inside a function" in done.err
        assert "cp.load('r', build=lambda: cp.build_model(...))" in done.err


def test_classes_of_a_user_need_trust(run: Run, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_texts_of_predict.py").write_text(
        "from counterpoise.encoders import TextBag\n\n\nclass Mine(TextBag):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_texts_of_predict  # pyright: ignore[reportMissingImports]

    from_python(Path("r"), texts, my_texts_of_predict.Mine)
    done = run("predict", "r", "--said", "word1")
    assert done.code == 2
    assert "Pass --trust" in done.err
    assert "my_texts_of_predict.Mine" in done.err
    assert run("predict", "r", "--said", "word1", "--trust").code == 0
    assert run("evaluate", "r", "--table", texts, "--trust").code == 0
    done = run("export", "r", "m.onnx")
    assert (done.code, "Pass --trust" in done.err) == (2, True)


def test_misuse(run: Run, texts: Path) -> None:
    from_python(Path("r"), texts)
    done = run("predict", "r", "--sad", "word1")
    assert (done.code, "Unknown option '--sad'. Did you mean '--said'?" in done.err) == (2, True)
    done = run("predict", "r", texts, "--said", "word1", "--out", "p.csv")
    assert (done.code, "One sample (--MODALITY VALUE) is printed" in done.err) == (2, True)
    done = run("predict", "r")
    assert done.code == 2
    assert "Name a TABLE and --out FILE, or one sample: --said VALUE --seen VALUE." in done.err
    assert run("predict", "nowhere", texts, "--out", "p.csv").code == 1
