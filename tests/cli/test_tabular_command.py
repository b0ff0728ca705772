"""Columns as one modality on the command line: what training learned is what prediction uses."""

from __future__ import annotations

import torch

from conftest import write
from counterpoise._yaml import read_yaml
from counterpoise.recipe.trained import open_run

OPTIONS = ("--method", "Joint", "--epochs", "1", "--batch_size", "16", "--progress", "false")


def _people(path, ages=lambda i: 20 + i % 50):
    rows = [(f"s{i}", "ab"[i % 2], f"a text {i}", ages(i) if i % 6 else "", "FM"[i % 2]) for i in range(60)]
    return write(path, ("id", "label", "said", "age", "sex"), rows)


def _patient(*more):
    return ("--data.modalities.patient", "Tabular", "--data.modalities.patient.columns", "[age, sex]", *more)


def test_a_run_keeps_what_its_reader_learned(run, tmp_path):
    table = _people(tmp_path / "people.csv")
    said = ("--data.modalities.said", "text")
    done = run("fit", "--data", table, *said, *_patient(), *OPTIONS, "--run_dir", "r")
    assert done.code == 0, done.err
    assert "patient: numbers age; categories sex" in done.out + done.err
    patient = read_yaml((tmp_path / "r" / "config.yaml").read_text())["data"]["init_args"]["modalities"]["patient"]
    assert patient["init_args"]["fitted"]["sex"] == {"levels": ["F", "M"], "rare": False}
    other = _people(tmp_path / "other.csv", lambda i: 70 + i % 9)  # of other means and deviations
    _, _, samples = open_run("r", str(other))
    mean, scale = (patient["init_args"]["fitted"]["age"][name] for name in ("mean", "scale"))
    assert samples.batch([1], "patient", None)[0, 0] == torch.tensor((71 - mean) / scale, dtype=torch.float32)
    assert run("predict", "r", other, "--out", "p.csv").code == 0
    assert (tmp_path / "p.csv").read_text().count("\n") == 61
    again = run("fit", "--config", "r/config.yaml", "--run_dir", "again")
    assert again.code == 0, again.err
    assert (tmp_path / "again" / "result.json").exists()
    elsewhere = run("fit", "--config", "r/config.yaml", "--data.seed", "1", "--run_dir", "elsewhere")
    assert "Leave fitted out to have it learned anew (--data.modalities.patient.fitted {})" in elsewhere.err
    cured = ("--data.modalities.patient.fitted", "{}")
    assert run("fit", "--config", "r/config.yaml", "--data.seed", "1", *cured, "--run_dir", "elsewhere").code == 0


def test_encoders_of_rows_by_name(run, tmp_path):
    table = _people(tmp_path / "people.csv")
    small = ("--encoders.patient.dim", "8", "--encoders.patient.layers", "1")
    for i, encoder in enumerate((("FTTransformer", *small), ("TabularMLP",), ("MLP",))):
        options = ("--encoders.patient", *encoder, *OPTIONS, "--run_dir", f"r{i}")
        done = run("fit", "--data", table, *_patient("--data.modalities.said", "text"), *options)
        assert done.code == 0, done.err


def test_kinds_of_columns_are_options(run, tmp_path):
    table = _people(tmp_path / "people.csv")
    done = run("data", "check", table, *_patient("--data.modalities.patient.categories", "[age]"))
    assert "patient: categories age, sex" in done.out
    done = run(
        "data", "check", table, "--data.modalities.patient", "Tabular", "--data.modalities.patient.columns", "[agee]"
    )
    assert "Unknown column 'agee'. Did you mean 'age'?" in done.err


def test_options_of_readers_that_are_guessed(run, tmp_path):
    import numpy as np
    from PIL import Image

    for i in range(30):
        Image.fromarray(np.full((12, 12, 3), 8 * i, np.uint8)).save(tmp_path / f"{i}.png")
    rows = [("ab"[i % 2], f"{i}.png", f"a text of {i} words", i % 9 / 2) for i in range(30)]
    table = write(tmp_path / "t.csv", ("label", "image", "said", "n"), rows)
    done = run("data", "check", table)
    assert "image: size 12, as its pictures have" in done.out
    fit = ("fit", "--data", table, "--data.modalities.image.channels", "1", *OPTIONS, "--run_dir", "r")
    assert run(*fit).code == 0
    modalities = read_yaml((tmp_path / "r" / "config.yaml").read_text())["data"]["init_args"]["modalities"]
    assert list(modalities) == ["image", "said", "tabular"]
    assert (modalities["image"]["init_args"]["size"], modalities["image"]["init_args"]["channels"]) == (12, 1)
    assert modalities["tabular"]["init_args"]["numbers"] == ["n"]
    done = run("data", "check", table, "--data.modalities.said", "text", "--data.modalities.image.size", "6")
    assert "'n' is not used: no reader stated" in done.out
    done = run("data", "show", table, "--data.modalities.image.size", "6")
    assert "Image, 3 x 6 x 6" in done.out
    done = run("data", "check", table, "--data.modalities.imag.size", "6")
    assert "Unknown modality 'imag'. Did you mean 'image'?" in done.err
    done = run("data", "check", table, "--data.modalities.tabular.categories", "[n]")
    assert "tabular: categories n" in done.out
