from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

import counterpoise as cp
from conftest import Run, write
from counterpoise.data.split import Split
from counterpoise.engine import Predictions, Trainer
from counterpoise.methods import Joint
from counterpoise.testing import trainer_for

QUICK = ["--epochs", "1", "--batch_size", "8", "--progress", "false"]


@pytest.fixture
def trained(run: Run, texts: Path) -> Path:
    """A run on two texts; class "b" comes first on purpose."""
    done = run("fit", "--data", texts, "--data.classes", "[b, a]", "--method", "Joint", "--run_dir", "trained", *QUICK)
    assert done.code == 0, done.err
    return Path("trained")


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_gives_the_scores_of_training(run: Run, tiny: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("fit", *tiny, "--method", "joint", "--run_dir", "r").code == 0
    record = json.loads(Path("r/result.json").read_text())
    done = run("evaluate", "r", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["scores"] == pytest.approx(record["test"])
    assert found["subsets"].keys() == {"audio", "image", "audio+image"}
    val = json.loads(run("evaluate", "r", "--json", "--split", "val").out)
    assert val["scores"] == pytest.approx(record["val"])

    text = run("evaluate", "r").out
    assert "Joint on the test split of digits (33 samples)" in text
    assert "from audio+image" in text
    assert max(map(len, text.splitlines())) <= 80
    assert {p.name for p in Path().iterdir()} == {"r"}  # nothing is written

    assert "was not trained on a table" in run("predict", "r", "x.csv", "--out", "p.csv").err


def test_evaluate_from_another_folder(run: Run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads((trained / "result.json").read_text())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = run("evaluate", "../trained", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["scores"] == pytest.approx(record["test"])


def test_predict_round_trip(run: Run, trained: Path, texts: Path) -> None:
    done = run("predict", trained, texts, "--out", "p.csv")
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["Wrote p.csv: 60 rows of probabilities."]
    found = rows("p.csv")
    assert list(found[0]) == [
        "id", "predicted", "fused:b", "fused:a", "said:b", "said:a", "seen:b", "seen:a"
    ]  # fmt: skip
    assert [row["id"] for row in found] == [f"s{i}" for i in range(60)]
    for row in found:
        assert row["predicted"] == max("ba", key=lambda c: float(row[f"fused:{c}"]))
        for name in ("fused", "said", "seen"):
            assert float(row[f"{name}:b"]) + float(row[f"{name}:a"]) == pytest.approx(1, abs=2e-6)
    # the scores that evaluate gives are those of the file
    truth = {f"s{i}": "ab"[i % 2] for i in range(60)}
    share = sum(row["predicted"] == truth[row["id"]] for row in found) / 60
    scores = json.loads(run("evaluate", trained, "--table", texts, "--json").out)["scores"]
    assert scores["fused/accuracy"] == pytest.approx(share)


def test_predict_with_absent_modalities_and_no_label(run: Run, trained: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "new.csv", ("seen", "said"), [("also 1", ""), ("", "word1 hello"), ("", ""), ("a", "b")])
    done = run("predict", trained, table, "--out", "p.csv")
    assert done.code == 0, done.err
    assert "1 rows lack every modality; their cells are empty." in done.out
    first, second, third, fourth = rows("p.csv")
    assert first["said:a"] == first["said:b"] == ""
    assert second["seen:a"] == ""
    assert float(first["fused:a"]) == pytest.approx(float(first["seen:a"]), abs=0.5)
    assert set(third.values()) == {"3", ""}
    assert all(fourth.values())
    for row in (first, second, fourth):
        assert float(row["fused:a"]) + float(row["fused:b"]) == pytest.approx(1, abs=2e-6)


def test_a_table_whose_column_is_empty_throughout(run: Run, trained: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "new.csv", ("said", "seen"), [("word1", ""), ("word0", "")])
    assert run("predict", trained, table, "--out", "p.csv").code == 0
    assert all(row["seen:a"] == "" and row["said:a"] for row in rows("p.csv"))


def test_predict_writes_batches_and_all_of_them_or_nothing(
    run: Run, trained: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Trainer.stream
    sizes = []

    def broken(self: Trainer, split: Split) -> Iterator[Predictions]:
        for found in stream(self, split):
            sizes.append(len(found.fused))
            if len(sizes) == 3:
                raise OSError("the disk is on fire")
            yield found

    monkeypatch.setattr(Trainer, "stream", broken)
    assert run("predict", trained, texts, "--out", "p.csv").code == 1
    assert sizes == [8, 8, 8]
    assert not list(Path.cwd().glob("p.csv*"))


def test_predict_overwrites_only_by_force(run: Run, trained: Path, texts: Path) -> None:
    Path("p.csv").write_text("mine")
    done = run("predict", trained, texts, "--out", "p.csv")
    assert done.code == 2
    assert "--out p.csv exists. Pass --force to overwrite it." in done.err
    assert Path("p.csv").read_text() == "mine"
    assert run("predict", trained, texts, "--out", "p.csv", "--force").code == 0
    assert len(rows("p.csv")) == 60
    done = run("predict", trained, texts, "--out", "nowhere/p.csv")
    assert done.code == 2
    assert "--out: there is no folder nowhere." in done.err


@pytest.mark.parametrize("force", [True, False])
def test_predict_follows_no_link_and_replaces_no_device(run: Run, trained: Path, texts: Path, force: bool) -> None:
    theirs, extra = Path("theirs.txt"), ["--force"] if force else []
    theirs.write_text("do not touch")
    Path("p.csv").symlink_to("nothing.csv")
    Path("p.csv.part").symlink_to(theirs)
    done = run("predict", trained, texts, "--out", "p.csv", *extra)
    assert done.code == (0 if force else 2), done.err
    assert force or "--out p.csv exists" in done.err
    assert Path("p.csv").is_symlink() is not force
    assert not Path("nothing.csv").exists()
    assert theirs.read_text() == "do not touch"
    for out in ("/dev/null", trained):
        assert f"--out {out} is a folder or a device" in run("predict", trained, texts, "--out", out, *extra).err


def test_tables_that_do_not_fit(run: Run, trained: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "new.csv", ("sad", "seen"), [("word1", "x")])
    done = run("predict", trained, table, "--out", "p.csv")
    assert done.code == 1
    assert "Unknown column 'said'. Did you mean 'sad'?" in done.err
    assert "leave the cells of its column empty" in done.err
    done = run("evaluate", trained, "--table", write(tmp_path / "u.csv", ("said", "seen"), [("a", "b")]))
    assert done.code == 1
    assert "Unknown column 'label'" in done.err
    table = write(tmp_path / "half.csv", ("id", "label", "said", "seen"), [("p", "a", "x", "y"), ("q", "", "x", "y")])
    done = run("evaluate", trained, "--table", table)
    assert done.code == 1
    assert "row 2 (id 'q') has no label (1 rows in all)" in done.err
    table = write(tmp_path / "c.csv", ("label", "said", "seen"), [("a", "x", "y"), ("c", "x", "y")])
    done = run("evaluate", trained, "--table", table)
    assert done.code == 1
    assert "'c'" in done.err
    assert not Path("p.csv").exists()


def test_runs_that_cannot_be_opened(run: Run, trained: Path, texts: Path) -> None:
    done = run("evaluate", "nowhere")
    assert (done.code, "nowhere is no run directory: it has no config.yaml." in done.err) == (1, True)
    whole = (trained / "best.ckpt").read_bytes()
    (trained / "best.ckpt").write_bytes(whole[:100])
    done = run("evaluate", trained)
    assert done.code == 1
    assert "best.ckpt" in done.err
    (trained / "best.ckpt").unlink()
    done = run("predict", trained, texts, "--out", "p.csv")
    assert (done.code, "has no best.ckpt yet: no epoch of it is finished." in done.err) == (1, True)


def test_no_test_split_is_said(run: Run, tmp_path: Path) -> None:
    table = write(
        tmp_path / "t.csv",
        ("label", "split", "said", "seen"),
        [("ab"[i % 2], ("train", "val")[i % 4 == 0], f"word{i % 2}", "x y") for i in range(40)],
    )
    assert run("fit", "--data", table, "--method", "Joint", "--run_dir", "r", *QUICK).code == 0
    done = run("evaluate", "r")
    assert done.code == 2
    assert "t has no test split. Pass --split val" in done.err
    assert "Joint on the validation split of t (10 samples)" in run("evaluate", "r", "--split", "val").out


def test_misspelt_options(run: Run, trained: Path) -> None:
    done = run("evaluate", trained, "--spilt", "val")
    assert (done.code, "Unknown option '--spilt'. Did you mean '--split'?" in done.err) == (2, True)
    done = run("evaluate", trained, "--split", "tets")
    assert (done.code, "--split: Unknown value 'tets'. Did you mean 'test'?" in done.err) == (2, True)
    done = run("predict", trained, "--out", "p.csv")
    assert (done.code, "Name a TABLE and --out FILE, or one sample: --said VALUE" in done.err) == (2, True)


def test_config_holds_what_was_guessed(trained: Path) -> None:
    init = yaml.safe_load((trained / "config.yaml").read_text())["data"]["init_args"]
    assert init["modalities"]["said"]["class_path"].endswith("Text")
    assert init["classes"] == ["b", "a"]


def test_a_file_of_a_run_is_no_run(run: Run) -> None:
    Path("r").mkdir()
    Path("r/config.yaml").touch()
    Path("r/best.ckpt").touch()
    assert "no config.yaml. Did you mean r?" in run("evaluate", "r/best.ckpt").err
    assert "`counterpoise fit --run_dir DIR` makes one." in run("evaluate", "nowhere").err


@pytest.mark.parametrize(
    "options",
    [
        "--method MSES --pool true",
        pytest.param("--method IGM --fusion Late --fusion.rule pool", marks=pytest.mark.slow),
    ],
)
def test_a_pool_is_part_of_the_run(run: Run, texts: Path, options: str) -> None:
    done = run("fit", "--data", texts, "--data.val", "0.3", *options.split(), "--run_dir", "r", *QUICK)
    assert done.code == 0, done.err
    record = json.loads(Path("r/result.json").read_text())
    found = json.loads(run("evaluate", "r", "--json").out)
    assert found["scores"] == pytest.approx(record["test"])
    assert run("predict", "r", texts, "--out", "p.csv").code == 0
    share = sum(row["predicted"] == "ab"[i % 2] for i, row in enumerate(rows("p.csv"))) / 60
    scores = json.loads(run("evaluate", "r", "--table", texts, "--json").out)["scores"]
    assert scores["fused/accuracy"] == pytest.approx(share)


def test_evaluate_takes_the_subsets_that_are_named(run: Run, tiny: Sequence[str]) -> None:
    assert run("fit", *tiny, "--method", "joint", "--run_dir", "r").code == 0
    done = run("evaluate", "r", "--json", "--subsets", "image+audio", "image")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    record = json.loads(Path("r/result.json").read_text())
    assert found["subsets"].keys() == {"audio+image", "image"}
    assert found["subsets"]["image"] == pytest.approx(record["subsets"]["image"])
    assert found["contributions"] == {}
    for wrong, said in (("imag", "Did you mean 'image'"), ("audio+", "Known: audio, image"), ("+", "Known")):
        refused = run("evaluate", "r", "--subsets", wrong)
        assert refused.code == 2
        assert f"--subsets {wrong}: Unknown modality" in refused.err
        assert said in refused.err
    assert "A modality's row is of its slice of the fused layer." in run("evaluate", "r").out


def test_a_run_from_python_names_the_call(run: Run) -> None:
    trainer, data = trainer_for(Joint, run_dir="r")
    trainer.run(data)
    done = run("evaluate", "r")
    assert done.code == 2
    assert "r was trained from Python" in done.err
    assert 'model = cp.load("r")' in done.err
    assert cp.load("r").evaluate(data.val) == trainer.evaluate(data.val)  # as it says
    done = run("predict", "r", "x.csv", "--out", "o.csv")
    assert (done.code, "There is no table x.csv." in done.err) == (1, True)
