from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from conftest import Run, write
from counterpoise.data import write_digits
from counterpoise.engine import ConsoleProgress
from counterpoise.engine.checkpoint import load

AUDIO = [
    "--data.modalities.audio", "audio", "--data.modalities.audio.sample_rate", "8000",
    "--data.modalities.audio.seconds", "0.5", "--data.modalities.audio.n_fft", "128",
]  # fmt: skip
IMAGE = ["--data.modalities.image", "image", "--data.modalities.image.size", "8"]
QUICK = ["--epochs", "1", "--batch_size", "8", "--progress", "false"]


def result(run_dir: str) -> dict:
    found = json.loads(Path(run_dir, "result.json").read_text())
    del found["seconds"], found["digest"]  # measured, and of what was measured too
    found["cost"] = {passes: found["cost"][passes] for passes in ("forward", "backward")}  # the rest is measured
    return found


def test_a_run_directory(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "joint", "--run_dir", "here")
    assert done.code == 0, done.err
    assert "67 training, 20 validation, 33 test samples of 10 classes" in done.out
    assert "Joint on the test split, weights of epoch 1" in done.out
    assert "Everything is in here; `counterpoise report here` draws it." in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    files = {p.name.split(".out.")[0] for p in Path("here").iterdir()}
    assert files >= {"config.yaml", "metrics.jsonl", "result.json", "environment.json", "last.ckpt", "best.ckpt"}
    assert not any(name.startswith("event") for name in files)  # trackers are asked for

    again = run("fit", *tiny, "--method", "joint", "--run_dir", "here")
    assert again.code == 1
    assert "run_dir here holds a finished run (result.json)" in again.err

    assert run("fit", "--config", "here/config.yaml", "--run_dir", "there").code == 0
    assert result("here") == result("there")
    here, there = (load(Path(d, "best.ckpt"))["model"] for d in ("here", "there"))
    assert all(torch.equal(here[k], there[k]) for k in here)
    first, second = (Path(d, "config.yaml").read_text() for d in ("here", "there"))
    assert first.replace("run_dir: here", "") == second.replace("run_dir: there", "")


def test_the_directory_has_a_name_by_itself(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "unimodal", "--method.modality", "image", "--seed", "3")
    assert done.code == 0, done.err
    assert Path("runs/digits-Unimodal-image-s3/result.json").is_file()
    assert "Everything is in runs/digits-Unimodal-image-s3" in done.out
    assert yaml.safe_load(Path("runs/digits-Unimodal-image-s3/config.yaml").read_text())["run_dir"].startswith("runs/")
    again = run("fit", *tiny, "--method", "unimodal", "--method.modality", "image", "--seed", "3")
    assert again.code == 1
    assert "runs/digits-Unimodal-image-s3 holds a finished run" in again.err


def test_null_writes_nothing(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "joint", "--run_dir", "null")
    assert done.code == 0, done.err
    assert list(Path().iterdir()) == []
    assert "Everything is in" not in done.out


def test_a_frozen_encoder_whose_features_are_computed_once(run: Run, tiny: Sequence[str]) -> None:
    frozen = ["--encoders.image", "Frozen", "--encoders.image.encoder", "CNN", "--encoders.image.encoder.dim", "8"]
    for name, reuse in (("once", "true"), ("always", "false")):
        done = run("fit", *tiny, "--method", "joint", *frozen, "--encoders.image.reuse", reuse, "--run_dir", name)
        assert done.code == 0, done.err
    once, always = (load(Path(name, "best.ckpt"))["model"] for name in ("once", "always"))
    assert once.keys() == always.keys()
    assert all(torch.allclose(once[k], always[k], rtol=1e-3, atol=1e-4) for k in once)
    assert run("evaluate", "once", "--split", "test").code == 0  # from the images themselves


def test_weights_that_are_not_there_are_named_in_one_line(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "joint", "--encoders.image", "ResNet50", "--encoders.image.weights", "no.pth")
    assert done.code == 2
    assert done.err.startswith("counterpoise: weights='no.pth': there is no such file. Give the path of a state dict")
    assert len(done.err.strip().splitlines()) == 1


def test_zero_learning_rate_moves_nothing(run: Run, tiny: Sequence[str]) -> None:
    for name in ("a", "b"):
        epochs = {"a": "1", "b": "2"}[name]
        arguments = ["--optimizer.lr", "0", "--optimizer.weight_decay", "0", "--sam", "0", "--epochs", epochs]
        assert run("fit", *tiny, "--method", "joint", "--run_dir", name, *arguments).code == 0
    a, b = (load(Path(name, "last.ckpt"))["model"] for name in "ab")
    weights = [k for k in a if "running" not in k and "num_batches" not in k]
    assert weights
    assert all(torch.equal(a[k], b[k]) for k in weights)


def test_ctrl_c_then_resume(run: Run, tiny: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["fit", *tiny, "--method", "joint", "--epochs", "3", "--progress", "true"]
    assert run(*arguments, "--run_dir", "whole").code == 0
    plain = ConsoleProgress.on_batch_end

    def interrupt(self: ConsoleProgress, trainer) -> None:
        plain(self, trainer)
        if trainer.state.epoch == 1 and trainer.state.batch_in_epoch == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ConsoleProgress, "on_batch_end", interrupt)
    stopped = run(*arguments, "--run_dir", "parts")
    assert stopped.code == 130
    assert "Stopped after epoch 1" in stopped.err
    assert "run the same command with --resume" in stopped.err
    assert not Path("parts/result.json").exists()
    monkeypatch.setattr(ConsoleProgress, "on_batch_end", plain)

    refused = run(*arguments, "--run_dir", "parts")
    assert refused.code == 1
    assert "unfinished run. Pass --resume" in refused.err
    assert run(*arguments, "--run_dir", "parts", "--resume").code == 0
    assert result("parts") == result("whole")


def test_resume_starts_when_nothing_is_there(run: Run, tiny: Sequence[str]) -> None:
    assert run("fit", *tiny, "--method", "joint", "--run_dir", "new", "--resume").code == 0
    assert Path("new/result.json").is_file()


def test_a_table_and_a_method_are_enough(run: Run, texts: Path) -> None:
    done = run("fit", "--data", texts, "--method", "Joint", *QUICK)
    assert done.code == 0, done.err
    assert "said: reader text (guessed)" in done.out
    assert "seen: reader text (guessed)" in done.out
    assert "split: no such column" in done.out
    init = yaml.safe_load(Path("runs/texts-Joint-s0/config.yaml").read_text())["data"]["init_args"]
    assert init["path"] == str(texts.resolve())  # no guesses, no relative paths are written down
    assert set(init["modalities"]) == {"said", "seen"}
    assert run("fit", "--config", "runs/texts-Joint-s0/config.yaml", "--run_dir", "again").code == 0
    assert result("again") == result("runs/texts-Joint-s0")


@pytest.mark.parametrize("absent", [0.0, 0.2])
def test_recordings_and_images(absent: float, run: Run) -> None:
    table = write_digits("files", size=100, absent=absent)
    arguments = [*AUDIO, *IMAGE, "--encoders.audio", "cnn", "--encoders.audio.dim", "8"]
    done = run("fit", "--data", table, "--method", "IGM", *arguments, *QUICK, "--run_dir", "r")
    assert done.code == 0, done.err
    assert "audio: reader audio (stated)" in done.out
    assert ("absent in" in done.out) == bool(absent)
    assert {"fused/accuracy", "audio/accuracy", "image/accuracy"} <= set(result("r")["test"])


def test_text_and_image(run: Run) -> None:
    write_digits("files", size=100)
    rows = [("ab"[i % 2], f"word{i % 2} hello", f"image/{i:04d}.png") for i in range(40)]
    table = write(Path("files/mixed.csv"), ("label", "said", "picture"), rows)
    readers = ["--data.modalities.said", "text", "--data.modalities.picture", "image"]
    encoders = ["--encoders.said", "textbag", "--encoders.picture", "cnn", "--encoders.picture.dim", "8"]
    done = run(
        "fit", "--data", table, "--method", "Joint", *readers, "--data.modalities.picture.size", 8, *encoders, *QUICK
    )
    assert done.code == 0, done.err
    assert result("runs/mixed-Joint-s0")["modalities"] == ["said", "picture"]


def test_no_test_rows_is_said(run: Run, tmp_path: Path) -> None:
    rows = [("ab"[i % 2], ("train", "val")[i % 4 == 0], f"word{i % 2}", "x y") for i in range(40)]
    table = write(tmp_path / "t.csv", ("label", "split", "said", "seen"), rows)
    done = run("fit", "--data", table, "--method", "Joint", *QUICK)
    assert done.code == 0, done.err
    assert "30 training, 10 validation, 0 test samples" in done.out
    assert "Joint on the validation split" in done.out
    assert "No test samples: these are the scores that selected the weights" in done.out
    assert result("runs/t-Joint-s0")["test"] is None


def test_one_modality_stated_leaves_the_others_out(run: Run, texts: Path) -> None:
    done = run("fit", "--data", texts, "--method", "IGM", "--data.modalities.said", "text", *QUICK)
    assert done.code == 2
    assert "'seen' is not used: no reader stated" in done.out
    assert "IGM needs at least 2 modalities; this model has 1 (said)" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "IGM", "--method.rho", "-1"], "rho must be a finite number >= 0; got -1.0."),
        (["--method", "IGM", "--method.tau", "-1"], "tau must be a finite number >= 0; got -1.0."),
        (["--method", "Joint", "--batch_size", "1"], "batch_size must be at least 2; got 1."),
        (["--method", "Joint", "--epochs", "0"], "epochs must be a whole number >= 1; got 0."),
        (["--method", "Joint", "--sam", "-0.1"], "sam must be a finite number >= 0; got -0.1."),
        (["--method", "Joint", "--monitor", "acuracy"], "Unknown metric 'acuracy'. Did you mean 'accuracy'?"),
        (["--method", "Joint", "--metrics", "[mapp]"], "Unknown metric 'mapp'. Did you mean 'map'?"),
        (["--method", "Joint", "--precision", "16"], "Unknown precision '16'. Known: 16-mixed, 32-true, bf16-mixed."),
        (["--method", "Joint", "--optimizer.lr", "-1"], "lr must be a finite number >= 0; got -1.0."),
        (["--method", "Joint", "--data.size", "-5"], "size must be"),
    ],
)
def test_values_out_of_range(arguments: list[str], message: str, run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, *arguments)
    assert done.code in (1, 2)
    assert done.err.startswith(f"counterpoise: {message}")
    assert not Path("runs").exists()


def test_a_batch_larger_than_the_data(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "Joint", "--batch_size", "900")
    assert done.code == 1
    assert "batch_size=900 is larger than the 67 training samples" in done.err


def test_a_modality_that_is_not_there(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "Unimodal", "--method.modality", "imag")
    assert done.code in (1, 2)
    assert "Unknown modality 'imag'. Did you mean 'image'?" in done.err


def test_one_class_only(run: Run, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", ("label", "said"), [("a", f"word{i}") for i in range(30)])
    done = run("fit", "--data", table, "--method", "Joint", *QUICK)
    assert done.code == 1
    assert "column 'label' has one class only (a)" in done.err


def test_columns_that_are_not_there(run: Run, texts: Path) -> None:
    done = run("fit", "--data", texts, "--method", "Joint", "--data.label", "lable")
    assert done.code == 1
    assert "Unknown column 'lable'. Did you mean 'label'?" in done.err
    done = run("fit", "--data", texts, "--method", "Joint", "--data.modalities.sad", "text")
    assert done.code == 2
    assert "Unknown column 'sad'. Did you mean 'said'?" in done.err
    done = run("fit", "--data", "nowhere.csv", "--method", "Joint")
    assert done.code == 1
    assert done.err.startswith("counterpoise: There is no table nowhere.csv.")


def test_missing_and_damaged_files_are_named(run: Run) -> None:
    table = write_digits("files", size=100)
    whole = table.read_text()
    table.write_text(whole.replace("audio/0003.wav", "audio/gone.wav").replace("image/0005.png", "image/gone.png"))
    done = run("fit", "--data", table, "--method", "Joint", *AUDIO, *IMAGE, *QUICK)
    assert done.code == 1
    lines = done.err.splitlines()
    assert lines[0].endswith("digits.csv, row 4 (id 'digit0003'), column 'audio': files/audio/gone.wav: no such file")
    assert "row 6 (id 'digit0005'), column 'image': files/image/gone.png: no such file" in lines[1]
    assert not Path("runs").exists()  # before anything is trained or written

    table.write_text(whole)
    Path("files/audio/0003.wav").write_bytes(b"RIFF")
    done = run("fit", "--data", table, "--method", "Joint", *AUDIO, *IMAGE, *QUICK, "--run_dir", "r")
    assert done.code == 1
    assert "row 4 (id 'digit0003'), column 'audio': files/audio/0003.wav: " in done.err
    assert "Traceback" not in done.err


def test_arrays(run: Run, tmp_path: Path) -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    y = np.arange(60) % 3
    np.savez("f.npz", a=draw.normal(size=(60, 5)), b=draw.normal(size=(60, 4, 3)), y=y)
    done = run("fit", "--data", "f.npz", "--method", "Joint", *QUICK)
    assert done.code == 0, done.err
    assert result("runs/f-Joint-s0")["modalities"] == ["a", "b"]
    assert yaml.safe_load(Path("runs/f-Joint-s0/config.yaml").read_text())["data"]["init_args"]["path"] == str(
        (tmp_path / "f.npz").resolve()
    )
    done = run("fit", "--data", "f.npz", "--data.label", "Y", "--method", "Joint")
    assert done.code == 2
    assert "Unknown label array 'Y'. Did you mean 'y'?" in done.err
    np.savez("bad.npz", a=np.full((60, 5), np.nan), y=y)
    done = run("fit", "--data", "bad.npz", "--method", "Joint", *QUICK)
    assert done.code == 1
    assert "inputs['a'] has NaN or infinity in sample 0" in done.err


def test_a_module_of_ones_own_needs_no_width(run: Run, tiny: Sequence[str]) -> None:
    done = run("fit", *tiny, "--method", "Joint", "--encoders.image", "torch.nn.Flatten", "--run_dir", "null")
    assert done.code == 0, done.err


@pytest.mark.slow
def test_two_processes_train_the_weights_of_one(tiny: Sequence[str], tmp_path: Path) -> None:
    encoders = [f"--encoders.{m}{option}" for m in ("audio", "image") for option in ("=MLP", ".norm=false", ".dim=8")]
    for devices in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "counterpoise", "fit", *tiny, *encoders, "--method", "Joint", "--accelerator", "cpu",
             "--devices", devices, "--run_dir", str(tmp_path / devices)],
            check=True, capture_output=True, timeout=300,
        )  # fmt: skip
    one, two = (load(tmp_path / devices / "last.ckpt")["model"] for devices in "12")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-5, atol=1e-7)


def test_a_damaged_file_names_row_and_way_on(run: Run, tmp_path: Path) -> None:
    table = write_digits(tmp_path / "clips", size=120)
    rows = [line.split(",") for line in table.read_text().splitlines()]
    (bad,) = [i for i, row in enumerate(rows) if row[2] == "test"][:1]
    sound = tmp_path / "clips" / rows[bad][4]
    whole = sound.read_bytes()
    sound.write_bytes(whole[:-100])
    ask = ["fit", "--data", table, *AUDIO, *IMAGE, *QUICK, "--method", "Joint", "--run_dir", "r"]
    done = run(*ask)
    assert done.code == 1
    assert f"row {bad} (id '{rows[bad][0]}'), column 'audio'" in done.err
    assert "truncated" in done.err
    assert "Mended, the same command with --resume goes on." in done.err
    assert "`counterpoise data check TABLE` finds every such file" in done.err
    sound.write_bytes(whole)
    done = run(*ask, "--resume")
    assert done.code == 0, done.err
    assert "On other samples: `counterpoise predict r TABLE --out FILE`." in done.out


def test_classes_that_a_part_lacks_are_named(run: Run, texts: Path) -> None:
    lines = texts.read_text().splitlines()
    parts = ["split", *("train" if i < 40 else "val" if i < 50 or "b" in line.split(",")[1] else "test"
                        for i, line in enumerate(lines[1:]))]  # fmt: skip
    texts.write_text("".join(f"{line},{part}\n" for line, part in zip(lines, parts, strict=True)))
    done = run("fit", "--data", texts, "--method", "Joint", *QUICK, "--run_dir", "null")
    assert done.code == 0, done.err
    assert "  no test sample of: 'b'" in done.out
    assert "no training sample" not in done.out


def test_a_method_in_the_working_directory(run: Run, tiny: Sequence[str]) -> None:
    Path("mine_here.py").write_text("from counterpoise.methods import Joint\n\n\nclass Mine(Joint):\n    pass\n")
    done = run("fit", *tiny, "--method", "mine_here.Mine", "--run_dir", "null")
    assert done.code == 0, done.err
    assert "Mine on the test split" in done.out
