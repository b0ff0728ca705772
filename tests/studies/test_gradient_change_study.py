"""The study of gradient changes, from the command to the picture, where the angles are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoise.analysis import GradientChanges, load
from counterpoise.cli import main
from counterpoise.methods import MLA
from counterpoise.recipe.recipe import Recipe

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "2", "--batch_size", "16", "--progress", "false"]


def turned_by_60_degrees(method, step):
    """A batch of MLA, but the gradient of the shared head turns by 60 degrees from each update to the next."""
    for m in step.model.modalities:
        loss = step.unimodal_loss(step.forward(only=(m,)), m)
        step.backward(loss)
        turn = method.turn = getattr(method, "turn", -1) + 1
        for layer in step.model.head_of(m).modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.grad = torch.zeros_like(layer.weight)
                layer.weight.grad[0, 0] = math.cos(turn * math.pi / 3)
                layer.weight.grad[0, 1] = math.sin(turn * math.pi / 3)
        step.update()
    return loss.detach()


def study(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["study", "gradient-change", *arguments])
    return int(str(left.value.code or 0))


def test_known_angles_from_the_command_to_the_numbers(
    started: list[Recipe], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MLA, "step", turned_by_60_degrees)
    assert study(*DATA, "--out", "out", "--seeds", "0,1", "--methods", "mla") == 0
    result = json.loads(Path("out/gradient-change/data.json").read_text())["result"]
    assert [(item["row"], item["seed"]) for item in result["changes"]] == [("MLA", 0), ("MLA", 1)]
    for item in result["changes"]:
        assert item["n"] == 2 * 2 * (83 // 16) - 1  # two updates a batch, and none before the first
        assert (item["mean"], item["median"], item["below"]) == (pytest.approx(0.5), pytest.approx(0.5), 0)
        found = load(f"out/gradient-change/{item['file']}", GradientChanges)
        np.testing.assert_allclose(found.cosine, 0.5, atol=1e-6)
        assert list(found.new[:3]) == ["image", "audio", "image"]
    assert "n = 38, 2 seeds): mean 0.500, median 0.500" in Path("out/studies.html").read_text()

    # drawn from the study's own files; the runs may be gone
    for path in Path("out/runs").glob("*/gradient-change.npz"):
        path.unlink()
    Path("out/gradient-change/histograms.png").unlink()
    assert study("--out", "out", "--redraw") == 0
    assert Path("out/gradient-change/histograms.png").is_file()
    assert len(started) == 2


@pytest.mark.slow
def test_watched_runs_are_their_own_and_change_nothing(started: list[Recipe]) -> None:
    assert study(*DATA, "--out", "out", "--seeds", "0", "--methods", "IGM") == 0
    assert study(*DATA, "--out", "out", "--seeds", "0", "--methods", "IGM", "--pairing", "batch") == 0
    with pytest.raises(SystemExit):
        main(["study", "scope", *DATA, "--out", "out", "--seeds", "0", "--shares", ""])
    assert (
        len([recipe for recipe in started if recipe.options.gradient_change]) == 4
    )  # two pairings with and without SAM
    assert len(started) == 6
    runs = {
        recipe.options.gradient_change: Path("out/runs", recipe.id)
        for recipe in started
        if recipe.options.method.init_args.sam == "paper" and recipe.options.method.init_args.gm
    }
    assert set(runs) == {None, "stored", "batch"}
    scores = [json.loads((run / "result.json").read_text())["val"] for run in runs.values()]
    assert scores == [scores[0]] * 3
    for pairing, run in runs.items():
        assert (run / "gradient-change.npz").exists() == (pairing is not None)


def test_a_method_without_turns_is_refused(started: list[Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    assert study(*DATA, "--out", "out", "--seeds", "0", "--methods", "MLA,OGM") == 2
    said = capsys.readouterr().err
    assert "OGM trains all modalities at once" in said
    assert "ReconBoost, MLA, IGM" in said
    assert started == []
