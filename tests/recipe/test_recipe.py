"""A recipe is the same run however it was spelt."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from counterpoise.benchmark.plan import command
from counterpoise.cli import main
from counterpoise.metrics.result import read_result
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.recipe import HOW, Recipe

DIGITS = ["--data", "digits", "--data.size", "120"]
ONE = [*DIGITS, "--method", "IGM", "--epochs", "16", "--optimizer.lr", "0.05"]


def file(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return ["--config", str(path)]


def spellings(folder: Path) -> dict[str, list[str]]:
    own = "data: {class_path: digits, init_args: {size: 120}}\nmethod: igm\nepochs: 16\noptimizer: {class_path: SGD, "
    return {
        "another order": ["--optimizer.lr", "0.05", "--epochs", "16", "--method", "igm", *DIGITS],
        "with =": ["--data=digits", "--data.size=120", "--method=IGM", "--epochs=16", "--optimizer.lr=5e-2"],
        "another bar": [*ONE, "--progress", "false"],
        "elsewhere": [*ONE, "--run_dir", "x", "--num_workers", "1", "--accelerator", "cpu", "--label", "mine"],
        "in parts": [*ONE, "--accumulate", "2"],
        "defaults said": [*ONE, "--sam", "0", "--optimizer", "SGD", "--optimizer.momentum", "0.9", "--method.tau=0.4"],
        "more defaults": [*ONE, "--fusion", "late", "--monitor", "accuracy", "--pool=false", "--batch_size", "64"],
        "import paths": [
            *DIGITS, "--method", "counterpoise.methods.igm.IGM", "--epochs", "16",
            "--optimizer", "counterpoise.engine.optim.SGD", "--optimizer.lr", "0.05",
        ],
        "a file": file(folder / "a.yaml", own + "init_args: {lr: 0.05}}\n"),
        "a later option": [*file(folder / "b.yaml", own + "init_args: {lr: 9}}\n"), "--optimizer.lr", "0.05"],
        "recorded": [*ONE, "--balance", "true"],
    }  # fmt: skip


def test_ten_spellings_have_one_id(tmp_path: Path) -> None:
    first = Recipe.parse(ONE)
    ids = {name: Recipe.parse(arguments).id for name, arguments in spellings(tmp_path).items()}
    assert ids == dict.fromkeys(ids, first.id)
    assert first.id.startswith("IGM-s0-")


def test_its_own_file_has_the_same_id(tmp_path: Path) -> None:
    recipe = Recipe.parse(ONE)
    assert Recipe.parse(file(tmp_path / "config.yaml", recipe.text)).id == recipe.id
    assert Recipe.of(
        {"data": "digits", "data.size": 120, "method": "IGM", "epochs": 16, "optimizer.lr": 0.05}
    ).id == recipe.id  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        ["--epochs", "17"], ["--optimizer.lr", "0.051"], ["--seed", "1"], ["--sam", "0.1"], ["--method.tau", "0.41"],
        ["--method.gm", "false"], ["--fusion", "Concat"], ["--data.seed", "1"], ["--data.audio_noise", "0.2"],
        ["--monitor", "loss"], ["--precision", "bf16-mixed"], ["--loss", "Focal"], ["--schedule", "Cosine"],
        ["--encoders.image", "CNN"], ["--pool", "true"], ["--gradient_change", "stored"], ["--metrics", "[accuracy]"],
    ],
)  # fmt: skip
def test_what_decides_the_result_makes_another_run(more: list[str]) -> None:
    assert Recipe.parse([*ONE, *more]).id != Recipe.parse(ONE).id


def test_every_option_of_how_is_an_option() -> None:
    assert set(HOW) <= set(vars(Recipe.parse(ONE).options))


def write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    return path


def table(path: Path, word: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [(f"s{i}", "ab"[i % 2], f"{word} {i % 5}", f"also {i % 3}") for i in range(40)]
    return write(path, ("id", "label", "said", "seen"), rows)


def test_the_content_of_the_table_counts_and_not_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(path: str | Path, *more: str) -> str:
        return Recipe.parse(["--data", str(path), "--method", "Joint", *more]).id

    first = table(tmp_path / "one" / "a.csv", "word")
    monkeypatch.chdir(tmp_path / "one")
    same = {recipe(first), recipe("a.csv"), recipe("../one/a.csv"), recipe(table(tmp_path / "two" / "b.csv", "word"))}
    assert len(same) == 1
    stated = ["--data.modalities", "{said: Text, seen: Text}"]
    assert {recipe("a.csv", *stated), recipe("a.csv", "--data.val", "0.15")} == same
    assert recipe("a.csv", "--data.val", "0.3") not in same
    assert recipe(table(tmp_path / "one" / "a.csv", "other")) not in same


@pytest.mark.parametrize("option", ["--encoder_weights.image", "--encoders.image=ResNet18 --encoders.image.weights"])
def test_the_content_of_weights_counts_and_not_their_path(tmp_path: Path, option: str) -> None:
    def recipe(path: Path) -> str:
        return Recipe.parse([*DIGITS, "--method", "Joint", *option.split(), str(path)]).id

    one, two, later = (tmp_path / name for name in ("one.pt", "two.pt", "later.pt"))
    one.write_bytes(b"some weights")
    two.write_bytes(b"some weights")
    assert recipe(one) == recipe(two)
    two.write_bytes(b"other weights")
    assert recipe(one) != recipe(two)
    early = Recipe.parse([*DIGITS, "--method", "Joint", *option.split(), str(later)])
    assert early.id not in {recipe(one), recipe(two)}
    if "encoder_weights" in option:  # a study's first runs write what its later ones start from
        later.write_bytes(b"some weights")
        assert early.id == early.but({"seed": 0}).id == recipe(one)


def test_the_folder_of_files_counts(tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        path = tmp_path / name / "t.csv"
        path.parent.mkdir()
        for i in range(20):
            np.save(path.parent / f"{i}.npy", np.ones(3))
        write(path, ("seen", "label", "said"), [(f"{i}.npy", "ab"[i % 2], f"also {i % 3}") for i in range(20)])
        ids.add(Recipe.parse(["--data", str(path), "--method", "Joint"]).id)
    assert len(ids) == 2


def test_variants() -> None:
    recipe = Recipe.parse(ONE)
    assert recipe.but({"epochs": 16, "method.tau": "0.4"}).id == recipe.id
    assert recipe.but({"seed": 3}).id == Recipe.parse([*ONE, "--seed", "3"]).id
    assert recipe.but({"seed": "3"}).id == recipe.but({"seed": 3}).id
    assert recipe.but({"method.order": ["image", "audio"]}).options.method.init_args.order == ["image", "audio"]
    other = recipe.but({"method": "MLA", "method.alpha": 0.3})
    assert (other.method, other.options.method.init_args.alpha, other.options.epochs) == ("MLA", 0.3, 16)
    assert other.source is recipe.source
    assert recipe.but({"data.size": 130}).id != recipe.id
    with pytest.raises(UsageError, match="Did you mean '--epochs'"):
        recipe.but({"epocs": 3})


def test_a_file_says_nothing_of_another_class(tmp_path: Path) -> None:
    stated = file(tmp_path / "c.yaml", "method: {class_path: counterpoise.methods.IGM, init_args: {tau: 3.0}}\n")
    recipe = Recipe.parse([*DIGITS, *stated])
    assert recipe.but({"method": "igm", "epochs": 2}).options.method.init_args.tau == 3
    assert recipe.but({"method": "Joint"}).id == Recipe.parse([*DIGITS, "--method", "Joint"]).id


def test_inputs_of_encoders_follow_the_data(tmp_path: Path) -> None:
    rows = [(f"w{i} x", f"v{i}", "ab"[i % 2]) for i in range(30)]
    path = write(tmp_path / "t.csv", ("said", "seen", "label"), rows)
    recipe = Recipe.parse(["--data", str(path), "--method", "Joint", "--encoders.said", "TextBag"])
    fewer = recipe.but({"data.modalities.said": "Text", "data.modalities.said.vocabulary": 9})
    assert fewer.options.encoders["said"].init_args.vocab_size == 9
    assert recipe.options.encoders["said"].init_args.vocab_size > 9


def test_a_run_is_started_from_its_recipe_and_says_who_it_is(tmp_path: Path) -> None:
    recipe = Recipe.parse([*DIGITS, "--method", "Joint", "--epochs", "1", "--batch_size", "16"]).but({"label": "a row"})
    directory = tmp_path / recipe.id
    with pytest.raises(SystemExit) as left:
        main(command(recipe, directory)[3:])
    assert not left.value.code
    assert yaml.safe_load((directory / "config.yaml").read_text())["label"] == "a row"
    result = read_result(directory)
    assert result is not None
    assert result["label"] == "a row"


@pytest.mark.slow  # processes of their own
def test_the_id_is_the_same_in_another_process() -> None:
    code = f"import sys; from counterpoise.recipe.recipe import Recipe; print(Recipe.parse({json.dumps(ONE)}).id)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == Recipe.parse(ONE).id


@pytest.mark.parametrize("name", ["[/b]", "[red]z", "a: b", "null", "~", "&a", "{a}", "- x", "true", "1", "a #b"])
def test_an_argument_that_is_text_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    y = np.arange(40) % 2
    np.savez(tmp_path / "m.npz", y=y, **{name: np.random.default_rng(0).normal(size=(40, 3))})
    typed = ["--data", str(tmp_path / "m.npz"), "--method", "Unimodal", f"--method.modality={name}", "--epochs", "1"]
    recipe = Recipe.parse(typed)
    assert recipe.options.method.init_args.modality == name
    assert Recipe.parse(file(tmp_path / "config.yaml", recipe.text)).id == recipe.id
    assert (
        Recipe.parse([*typed[:2], "--method", "Joint", "--epochs", "1"])
        .but({"method": "Unimodal", "method.modality": name})
        .id
        == recipe.id
    )
