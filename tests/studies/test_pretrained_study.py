"""The study of pretrained encoders: what is trained first, what starts from it, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from counterpoise.cli import main
from counterpoise.recipe.recipe import Recipe
from counterpoise.studies.pretrained import _pretrained

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "1", "--batch_size", "16", "--progress", "false"]


def study(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["study", "pretrained", *DATA, "--out", "out", "--seeds", "0", *arguments])
    return int(str(left.value.code or 0))


def weights_of(path: Path, modality: str) -> dict[str, torch.Tensor]:
    model = torch.load(path, weights_only=True)["model"]
    prefix = f"encoders.{modality}."
    return {name.removeprefix(prefix): value for name, value in model.items() if name.startswith(prefix)}


@pytest.mark.slow
def test_every_row_starts_from_encoders_trained_alone(started: list[Recipe]) -> None:
    assert study("--pretraining", "alone", "--tuning", "frozen") == 0
    assert [config.id.split("-")[0] for config in started] == ["Unimodal", "Unimodal", "Joint", "MLA", "IGM"]
    kept = json.loads(Path("out/pretrained/data.json").read_text())
    assert list(kept["result"]["rows"]) == ["audio alone", "image alone", "plain", "MLA", "IGM"]
    assert {name: tuple(row) for name, row in kept["result"]["rows"].items()} == {
        "audio alone": ("audio",),
        "image alone": ("image",),
        **dict.fromkeys(("plain", "MLA", "IGM"), ("audio", "image", "fused")),
    }
    for m in ("audio", "image"):
        (alone,) = kept["runs"][f"{m} alone"]
        trained = weights_of(Path("out/runs", alone, "best.ckpt"), m)
        assert trained
        for row in ("plain", "MLA", "IGM"):
            (run,) = kept["runs"][row]
            frozen = weights_of(Path("out/runs", run, "best.ckpt"), m)
            for name, value in trained.items():
                torch.testing.assert_close(frozen[f"encoder.{name}"], value, rtol=0, atol=0)

    # fine-tuned, they move; what was trained alone is used again
    assert study("--pretraining", "alone") == 0
    assert [config.id.split("-")[0] for config in started[5:]] == ["Joint", "MLA", "IGM"]
    (run,) = json.loads(Path("out/pretrained/data.json").read_text())["runs"]["plain"]
    tuned = weights_of(Path("out/runs", run, "best.ckpt"), "image")
    assert any(not torch.equal(tuned[name], value) for name, value in trained.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "No pretrained encoder for 'audio', 'image'. Give one, as in --encoders.audio"),
        (["--encoders.audio", "CNN", "--encoder_weights.image", "x.pt"], "No pretrained encoder for 'audio'."),
        (["--pretraining", "alone", "--encoder_weights.image", "x.pt"], "leave --encoder_weights out"),
    ],
)
def test_it_says_what_to_pass(
    started: list[Recipe], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(*arguments) == 2
    assert said in capsys.readouterr().err
    assert started == []


def test_what_counts_as_pretrained() -> None:
    def option(name: str, **arguments: object) -> Namespace:
        return Namespace(class_path=f"counterpoise.encoders.{name}", init_args=Namespace(**arguments))

    assert _pretrained(option("CLIPText", pretrained=True))
    assert _pretrained(option("Timm", pretrained=False, weights="a.safetensors"))
    assert _pretrained(option("Frozen", encoder=option("Timm", pretrained=True)))
    assert _pretrained(Namespace(class_path="mine.Encoder"))  # nothing is known of it
    assert not _pretrained(option("Frozen", encoder=option("Timm", pretrained=False)))
    assert not _pretrained(option("CNN", dim=8))
    assert not _pretrained(None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--encoder_weights.imgae", "x.pt"], "image"),
        (["--encoder_weights.image", "x.pt"], "Give a state dict of the encoder of 'image'"),
    ],
)
def test_weights_that_cannot_be_had(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["fit", *DATA, "--method", "Joint", *arguments])
    assert left.value.code
    assert said in capsys.readouterr().err
