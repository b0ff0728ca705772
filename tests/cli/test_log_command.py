"""A sensor log on the command line."""

from __future__ import annotations

import math

from conftest import write
from counterpoise._yaml import read_yaml
from counterpoise.recipe.recipe import Recipe

OPTIONS = (
    "--data", "Log", "--data.path", "log.csv", "--data.channels", "{acc: [ax, ay], gyro: [gz]}", "--data.length", "8",
    "--data.stride", "4", "--method", "Joint", "--epochs", "1", "--batch_size", "16", "--progress", "false",
)  # fmt: skip


def _log(path):
    rows = [
        (f"r{i}", t / 10, math.sin(t * (1 + i % 2)), math.cos(t), i % 2 + t / 100, "ab"[i % 2])
        for i in range(20)
        for t in range(20 if i else 5)
    ]
    return write(path, ("id", "time", "ax", "ay", "gz", "label"), rows)


def test_a_log_is_trained_on_and_opened_again(run, tmp_path):
    _log(tmp_path / "log.csv")
    done = run("fit", *OPTIONS, "--run_dir", "r")
    assert done.code == 0, done.err
    said = done.out + done.err
    assert "log.csv: 76 windows of 8 rows, of 19 recordings" in said
    assert "1 of 20 recordings are shorter than a window of 8 rows and are not used: r0" in said
    config = read_yaml((tmp_path / "r" / "config.yaml").read_text())
    assert config["data"]["init_args"]["path"] == str(tmp_path / "log.csv")
    done = run("evaluate", "r", "--split", "val", "--json")
    assert done.code == 0, done.err
    assert '"acc+gyro/accuracy"' in done.out or '"acc/accuracy"' in done.out
    assert Recipe.parse(["--config", "r/config.yaml"]).id == Recipe.parse(OPTIONS).id


def test_what_is_wrong_with_a_log(run, tmp_path):
    _log(tmp_path / "log.csv")
    assert "Unknown column 'az'" in run("fit", *OPTIONS, "--data.channels", "{acc: [az]}").err
    assert "--data.length" in run("fit", *OPTIONS[:4], *OPTIONS[4:6], *OPTIONS[10:]).err
