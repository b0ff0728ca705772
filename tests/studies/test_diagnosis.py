from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from counterpoise.benchmark.grid import RunConfig
from counterpoise.cli import benchmark, main
from counterpoise.studies.diagnosis import Diagnosis, Evidence, clear, recommend

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "1", "--batch_size", "16", "--progress", "false"]
WELL = Evidence(400, 0.7, 0.7, 0.7, 0.7, 0.3, 0.1, 0.5)


def found(audio: Evidence = WELL, image: Evidence = WELL, fused: float = 0.8) -> Diagnosis:
    return Diagnosis(400, 0.1, fused, {}, {"audio": audio, "image": image}, {}, "accuracy", 0, "Joint")


@pytest.mark.parametrize(
    ("diagnosis", "about_audio", "advice"),
    [
        (found(), "not starved", "stay with joint"),
        (found(replace(WELL, inside=0.3, probe_inside=0.4)), "starved. ", "keep audio from being held back"),
        (found(replace(WELL, inside=0.3)), "hardly used", "--fusion Late"),
        (found(replace(WELL, alone=0.11, inside=0.1, probe_alone=0.12)), "chance", "encoder of audio"),
        (found(fused=0.5), "not starved", "fusing hurts"),
    ],
)
def test_the_verdict_follows_the_evidence(diagnosis: Diagnosis, about_audio: str, advice: str) -> None:
    said = recommend(diagnosis)
    assert said[0].startswith("audio: ")
    assert about_audio in said[0]
    assert advice in said[-1]
    assert sum("Recommendation" in line for line in said) == 1


def test_few_samples_give_no_verdict() -> None:
    starved = replace(WELL, inside=0.4, probe_inside=0.55)
    assert "starved. " in recommend(found(starved))[0]
    assert "not starved as far as 20 samples tell" in recommend(found(replace(starved, samples=20)))[0]


def test_nothing_learned_is_no_imbalance() -> None:
    nothing = replace(WELL, alone=0.1, inside=0.1, probe_alone=0.1, probe_inside=0.1)
    assert "Train longer" in recommend(found(nothing, nothing, 0.1))[-1]


def test_clear_is_about_sampling() -> None:
    assert clear(0.7, 0.6, 1000)
    assert not clear(0.7, 0.6, 50)
    assert not clear(0.6, 0.7, 1000)
    assert not clear(1.0, 1.0, 5)
    assert not clear(1.0, 0.8, 5)


def test_the_command_writes_page_and_evidence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, started = benchmark.command, []

    def command(config: RunConfig, path: Path) -> Sequence[str]:
        started.append(config.id)
        with pytest.raises(SystemExit):
            main(list(plain(config, path)[3:]))
        return [sys.executable, "-S", "-c", ""]

    monkeypatch.setattr(benchmark, "command", command)
    with pytest.raises(SystemExit) as left:
        main(["diagnose", *DATA, "--out", "d"])
    assert not left.value.code
    assert len(started) == 3
    said = capsys.readouterr().out
    evidence = json.loads(Path("d/diagnosis.json").read_text())
    assert all(line in said for line in evidence["said"])
    # Shapley shares add up to what the fused prediction gains on chance
    total = sum(e["contribution"] for e in evidence["modalities"].values())
    assert total == pytest.approx(evidence["fused"] - evidence["chance"], abs=1e-6)
    page = Path("d/diagnosis.html").read_text()
    assert "Recommendation" in page
    assert page.count("<svg") == 2
    with pytest.raises(SystemExit) as left:
        main(["diagnose", *DATA, "--out", "d", "--seeds", "0,1"])
    assert left.value.code == 2
    assert "one number" in capsys.readouterr().err
