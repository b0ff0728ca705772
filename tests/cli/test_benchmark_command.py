from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from conftest import Run, in_process
from counterpoise.benchmark import plan as planning
from counterpoise.benchmark.plan import Row, base, plan
from counterpoise.cli import benchmark
from counterpoise.recipe.messages import UsageError


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    return in_process(monkeypatch, planning)


def test_two_methods_and_two_seeds(run: Run, tiny: Sequence[str], here: list[list[str]]) -> None:
    arguments = ["benchmark", *tiny, "--methods", "joint,MLA", "--seeds", "0,1", "--out", "b"]
    done = run(*arguments)
    assert done.code == 0, done.err
    assert len(here) == 4
    assert "Runs: 4 finished." in done.out
    table = done.out[done.out.index("Runs: 4 finished.") :]
    assert [name for name in ("Joint", "MLA", "fused", "audio", "image") if name not in table] == []
    assert max(map(len, table.splitlines())) <= 80
    assert {p.name for p in Path("b").iterdir()} == {"runs", "results.json", "results.md", "report.html"}
    found = json.loads(Path("b/results.json").read_text())
    assert sorted((r["method"], r["seed"]) for r in found["runs"]) == [
        ("Joint", 0), ("Joint", 1), ("MLA", 0), ("MLA", 1)
    ]  # fmt: skip
    assert {"fused/accuracy", "fused/map", "audio/accuracy", "gap", "seconds"} <= set(found["summary"]["columns"])
    assert "| Joint |" in Path("b/results.md").read_text()
    assert "</html>" in Path("b/report.html").read_text()

    again = run(*arguments)
    assert (again.code, len(here)) == (0, 4)
    assert "Runs: 4 already done." in again.out
    # one more seed runs one more time each; what is there stays
    assert run(*arguments, "--seeds", "0,1,2").code == 0
    assert len(here) == 6


@pytest.mark.slow
def test_auto_is_a_row_of_its_own(run: Run, tiny: Sequence[str], here: list[list[str]]) -> None:
    done = run("benchmark", *tiny, "--methods", "Joint,auto", "--seeds", "0", "--out", "b")
    assert done.code == 0, done.err
    joint, auto = json.loads(Path("b/results.json").read_text())["runs"]
    assert [joint["label"], auto["label"], auto["method"]] == ["Joint", "auto", "MSES"]
    config = next(Path("b/runs").glob("MSES*/config.yaml")).read_text()
    assert "patience: 5" in config
    assert "sam: 0.05" in config
    assert "pool: true" in config


@pytest.mark.slow
def test_a_comparison_over_folds(run: Run, tmp_path: Path, here: list[list[str]]) -> None:
    rows = ["label,subject,a,b", *(f"{'xy'[i % 2]},s{i // 12},{i % 2 + i % 7},{i % 5}" for i in range(36))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    readers = [f"--data.modalities.{m}{option}" for m in "ab" for option in ("=Tabular", f'.columns=["{m}"]')]
    arguments = [
        "benchmark", "--data", str(tmp_path / "t.csv"), *readers, "--epochs", "1", "--batch_size", "4", "--accelerator",
        "cpu", "--methods", "Joint,OGM", "--seeds", "0,1", "--out", "b", "--folds",
    ]  # fmt: skip
    done = run(*arguments, "subject")
    assert done.code == 0, done.err
    assert len(here) == 3 * 2 * 2
    kept = json.loads(Path("b/results.json").read_text())
    assert [fold["held"] for fold in kept["folds"]["folds"]] == ["s0", "s1", "s2"]
    assert kept["summary"]["ratio"] == 0.5
    for row in ("Joint", "OGM"):
        tests = {(r["fold"], r["seed"]): r["test"]["fused/accuracy"] for r in kept["runs"] if r["label"] == row}
        assert kept["folds"]["scores"][row] == {
            str(f): pytest.approx((tests[f, 0] + tests[f, 1]) / 2) for f in range(3)
        }  # equal folds: the accuracy of all predictions together is the mean of the folds
        together = kept["folds"]["together"][row]["fused/accuracy"]
        assert together == pytest.approx([sum(tests[f, seed] for f in range(3)) / 3 for seed in (0, 1)])
    assert "| 1 (s1) | 24 | 12 |" in Path("b/results.md").read_text()
    page = Path("b/report.html").read_text()
    assert "2 (s2)" in page
    assert "Nadeau and Bengio" in page
    again = run(*arguments, "subject")
    assert (again.code, len(here)) == (0, 12)
    assert run(*arguments, "subjct").err.count("Did you mean 'subject'?") == 1
    assert "leaves one group out at a time, and the data have no groups" in run(*arguments, "group").err
    digits = ["benchmark", "--data", "digits", "--methods", "Joint", "--out", "d", "--folds", "3"]
    assert "--folds needs a table or an .npz file" in run(*digits).err


def test_other_options_are_other_runs(run: Run, tiny: Sequence[str], here: list[list[str]]) -> None:
    arguments = ["benchmark", *tiny, "--methods", "Joint", "--seeds", "0", "--out", "b"]
    assert run(*arguments).code == 0
    assert run(*arguments, "--optimizer.lr", "0.1").code == 0
    assert len(here) == 2
    # the table and the report are about the runs that were asked for now
    other, asked = (Path(arguments[arguments.index("--run_dir") + 1]).name for arguments in here)
    page = Path("b/report.html").read_text()
    assert (asked in page, other in page) == (True, False)
    assert len(json.loads(Path("b/results.json").read_text())["runs"]) == 1


def test_a_failing_run_leaves_the_others_alone(run: Run, tiny: Sequence[str], here: list[list[str]]) -> None:
    Path("s.yaml").write_text("mla: {batch_size: 900}\n")
    done = run("benchmark", *tiny, "--methods", "MLA,Joint", "--seeds", "0", "--settings", "s.yaml", "--out", "b")
    assert done.code == 1
    assert "Runs: 1 finished, 1 failed." in done.out
    assert "failed with exit status 1; log: b/runs/logs/MLA-s0-" in done.out
    assert [r["method"] for r in json.loads(Path("b/results.json").read_text())["runs"]] == ["Joint"]


def test_plan(tiny: Sequence[str]) -> None:
    settings = {"IGM": {"method.tau": 0.1, "method.order": ["image", "audio"]}}
    rows = benchmark.rows(["Unimodal", "Joint", "IGM"], settings, ["audio", "image"])
    planned = plan(base(tiny, "Joint", "test"), rows, [0, 1])
    assert [len(recipes) for recipes in planned.values()] == [2] * 4
    methods = {name: recipes[0].options.method for name, recipes in planned.items()}
    assert [methods[f"Unimodal({m})"].init_args.modality for m in ("audio", "image")] == ["audio", "image"]
    assert (methods["IGM"].init_args.tau, methods["IGM"].init_args.order) == (0.1, ["image", "audio"])


def test_a_changed_file_makes_other_runs(tiny: Sequence[str], tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    ids = []
    for rate in ("0.1", "0.2", "0.1"):
        file.write_text(f"optimizer: {{class_path: sgd, init_args: {{lr: {rate}}}}}\n")
        ids.append(base([*tiny, "--config", str(file)], "Joint", "test").id)
    assert ids[0] == ids[2] != ids[1]


def test_options_of_a_method_hold_for_it(tiny: Sequence[str]) -> None:
    recipe = base([*tiny, "--method.tau", "0.1"], "IGM", "test")
    assert plan(recipe, [Row("IGM", "IGM")], [0])["IGM"][0].options.method.init_args.tau == 0.1
    with pytest.raises(UsageError, match="Unknown option of Joint 'tau'"):
        plan(recipe, [Row("Joint", "Joint")], [0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "joint,imq"], "--methods: Unknown method 'imq'. Did you mean 'IGM'?"),
        (["--job", "2"], "Unknown option '--job'. Did you mean '--jobs'?"),
        (["--jobs", "0"], "--jobs must be at least 1; got 0."),
        (["--threads", "0"], "--threads must be at least 1; got 0."),
        (["--backend", "rai"], "--backend: Unknown backend 'rai'. Did you mean 'ray'? Known: local, ray."),
        (["--address", "auto"], "--address is for Ray; add --backend ray."),
        (["--backend", "ray", "--gpus", "-1"], "--gpus must be at least 0; got -1.0."),
        (["--epocs", "2"], "Unknown option '--epocs'. Did you mean '--epochs'?"),
        (["--method", "IGM"], "--method is an option of `fit`; here --methods names the methods."),
        (["--seed", "1"], "--seed is an option of `fit`; here --seeds gives the seeds."),
        (["--run_dir=x"], "--run_dir is an option of `fit`; here --out is the directory of all runs."),
        (["--seeds", "a"], "--seeds must be whole numbers separated by commas; got 'a'."),
        (["--methods", "Unimodal", "--seeds", "0,0"], "--seeds must differ from each other; got 0, 0."),
        (["--methods", "IGM", "--method.tua", "1"], "--method: Unknown option of IGM 'tua'. Did you mean 'tau'?"),
        (["--methods", "IGM", "--method.tau", "-1"], "tau must be a finite number >= 0; got -1.0."),
        (["--settings", "s.yaml"], "--settings s.yaml: Unknown method 'igq'. Did you mean 'IGM'?"),
    ],
)
def test_messages(arguments: list[str], message: str, run: Run, tiny: Sequence[str]) -> None:
    Path("s.yaml").write_text("igq: {batch_size: 9}\n")
    done = run("benchmark", *tiny, "--out", "b", *arguments)
    assert done.code == 2
    assert done.err.startswith(f"counterpoise: {message}")
    assert not Path("b").exists()


def test_missing_files_are_said_once(run: Run, tmp_path: Path) -> None:
    Path("t.csv").write_text("label,sound\na,x.wav\nb,y.wav\n" * 9)
    done = run("benchmark", "--data", "t.csv", "--methods", "Joint,MLA", "--out", "b")
    assert done.code == 1
    assert "t.csv, row 1, column 'sound': x.wav: no such file" in done.err
    assert not Path("b").exists()


@pytest.mark.slow  # processes of their own
def test_a_real_process(run: Run, tiny: Sequence[str]) -> None:
    done = run("benchmark", *tiny, "--methods", "Joint", "--seeds", "0", "--out", "b")
    assert done.code == 0, done.out
    log = next(Path("b/runs/logs").glob("Joint-s0-*.log")).read_text()
    assert "-m counterpoise fit " in log
    assert "67 training, 20 validation, 33 test samples" in log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--epochs", "-1"], "epochs must be a whole number >= 1; got -1."),
        (["--metrics", "[acc]"], "Unknown metric 'acc'. Did you mean 'accuracy'?"),
        (["--data", "one.npz", "--methods", "Joint,OGM"], "OGM needs at least 2 modalities; this model has 1 (a)."),
        (["--out", "one.npz"], "--out one.npz must be a folder, and one.npz is a file. Choose another name."),
        (["--out", "one.npz/x"], "--out one.npz/x must be a folder, and one.npz is a file."),
    ],
)
def test_what_no_run_can_do_is_said_before_the_first(options: list[str], said: str, run: Run) -> None:
    np.savez("one.npz", a=np.ones((30, 3)), y=np.arange(30) % 2)
    done = run("benchmark", "--data", "digits", "--methods", "Joint", "--out", "out", *options)
    assert done.code == 2
    assert done.err.startswith(f"counterpoise: {said}")
    assert not Path("out").exists()
