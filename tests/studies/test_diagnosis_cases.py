"""The diagnosis of models of one's own, on data whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import counterpoise as cp
from counterpoise.analysis import BalanceWatch
from counterpoise.studies.diagnosis import page as diagnosis_page
from counterpoise.studies.diagnosis import runs as diagnosis_runs
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.verdict import judge
from counterpoise.studies.diagnosis.words import headline, sentences

N, CLASSES = 900, 4
Y = np.random.default_rng(99).integers(0, CLASSES, N)


def noise(seed: int, columns: int = 4 * CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, columns))


def easy(strength: float, seed: int = 0) -> np.ndarray:
    """Four columns per class, linear."""
    return np.eye(CLASSES)[Y].repeat(4, axis=1) + strength * noise(seed)


def hard() -> np.ndarray:
    """Two bits of the class, each as the product of the signs in three pairs of columns: learned late, but fully."""
    columns = []
    for bit in (Y & 1, Y >> 1):
        for _ in range(3):
            sign = np.sign(noise(10 + len(columns), 1)[:, 0])
            columns += [sign, sign * np.where(bit, 1, -1)]
    return np.stack(columns, 1) + 0.3 * noise(1, 12)


def split(inputs: dict[str, np.ndarray], **options: object) -> cp.Splits:
    return cp.from_arrays(inputs, Y, val=0.35, test=0.05, **options)  # pyright: ignore[reportArgumentType]


def builder(data: cp.Splits, fusion: str = "Concat"):
    widths = {m: data.train.batch([0], m, None).shape[1] for m in data.modalities}

    def build() -> cp.MultimodalModel:
        encoders = {
            m: nn.Sequential(nn.Linear(w, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU()) for m, w in widths.items()
        }
        return cp.build_model(encoders, fusion, num_classes=CLASSES, example=data.train)

    return build


def ask(data: cp.Splits, out: Path, *, epochs: int = 12, **options: object) -> Diagnosis:
    settings = {"batch_size": 32, "optimizer": cp.SGD(lr=0.05, momentum=0.9), "progress": False, **options}
    return cp.diagnose(data, builder(data), out, epochs=epochs, **settings)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which take seconds."""
    monkeypatch.setattr(diagnosis_page, "write", lambda found, out: out)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_balanced_data_are_called_balanced(tmp_path: Path) -> None:
    found = ask(split({"audio": easy(1.5), "image": easy(1.5, 1)}), tmp_path)
    assert headline(found).startswith("Balanced")
    assert "stay with joint" in sentences(found)[-1]
    # both contribute, and together what fusing gains on chance
    shares = [found.of(m, "contribution")[0] for m in found.modalities]
    assert min(shares) > 0.1
    assert sum(shares) == pytest.approx(found.whole("fused")[0] - found.measured[0].chance, abs=1e-6)


@pytest.mark.slow
def test_a_modality_starved_by_an_easier_one_is_named(tmp_path: Path) -> None:
    found = ask(split({"image": hard(), "audio": easy(0.5)}), tmp_path)
    assert judge(found).starved == ("image",)
    assert "starves image" in headline(found)
    assert found.of("image", "probe_alone")[0] > found.of("image", "probe_inside")[0] + 0.2
    assert "keep image from being held back" in sentences(found)[-1]
    page = (tmp_path / "diagnosis.html").read_text()
    assert "starves image" in page
    assert "mathdefault" not in page  # numbers on logarithmic axes are text, not formulas


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow  # trains a diagnosis
def test_noise_is_not_called_starved(tmp_path: Path) -> None:
    found = ask(split({"audio": easy(1.2), "image": noise(1, 12)}), tmp_path)
    assert judge(found).weak == ("image",)
    assert judge(found).starved == judge(found).unused == ()
    assert headline(found).startswith("Not imbalanced: there is little to learn from image")


@pytest.mark.slow
def test_three_modalities_absent_ones_another_fusion_and_method(tmp_path: Path) -> None:
    names = ("audio", "image", "text")
    present = {m: noise(i, 1)[:, 0] > -0.8 for i, m in enumerate(names, 20)}
    present["audio"] |= ~(present["image"] | present["text"])
    data = split({m: easy(1 + i / 2, i) for i, m in enumerate(names)}, present=present)
    found = cp.diagnose(
        data, builder(data, "Shared"), tmp_path, method=cp.methods.MLA, seeds=(0, 1), epochs=2, batch_size=64,
        optimizer=cp.SGD(lr=0.05), progress=False,
    )  # fmt: skip
    assert found.method == "MLA"
    assert [one.seed for one in found.measured] == [0, 1]
    assert found.whole("fused")[0] != found.whole("fused")[1]
    counts = {m: int(data.val.present[m].sum()) if data.val.present else 0 for m in data.modalities}
    assert {m: found.samples_of(m) for m in found.modalities} == counts
    assert len(found.conflict()) == 3  # MLA's head is shared
    assert np.isfinite(found.overfitting("text", alone=True)).all()
    assert "between modalities" in str(found)


class Dies(BalanceWatch):
    """Named as what it stands for: a checkpoint goes on with the observers that it was written with."""

    def on_epoch_end(self, trainer, record) -> None:
        super().on_epoch_end(trainer, record)
        if type(trainer.method).__name__ == "Unimodal" and record["epoch"] == 2:
            raise RuntimeError("power cut")


Dies.__name__ = BalanceWatch.__name__


@pytest.mark.usefixtures("undrawn")
def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    data = split({"audio": easy(1.5), "image": easy(1.5, 1)})
    whole = ask(data, tmp_path / "whole", epochs=3)
    assert "[2/3] audio-alone, seed 0: done, about " in capsys.readouterr().err
    monkeypatch.setattr(diagnosis_runs, "BalanceWatch", Dies)
    with pytest.raises(RuntimeError, match="power cut"):
        ask(data, tmp_path / "cut", epochs=3)
    trained: list[tuple[str, int]] = []

    class Counts(BalanceWatch):
        def on_fit_start(self, trainer) -> None:
            super().on_fit_start(trainer)
            trained.append((trainer.method.label, trainer.epoch))

    Counts.__name__ = BalanceWatch.__name__
    monkeypatch.setattr(diagnosis_runs, "BalanceWatch", Counts)
    again = ask(data, tmp_path / "cut", epochs=3)
    assert trained == [("Unimodal(audio)", 1), ("Unimodal(image)", 0)]  # the joint run was finished
    assert str(again) == str(whole)
    rows = [found.measured[0].alone["audio"] for found in (again, whole)]
    np.testing.assert_array_equal(*(vars(kept)["val_loss"] for kept in rows))
    ask(data, tmp_path / "cut", epochs=3)
    assert len(trained) == 2  # nothing was trained again
    ask(data, tmp_path / "cut", epochs=3, optimizer=cp.SGD(lr=0.01))
    assert len(trained) == 5  # another setting is another run


def test_what_it_refuses(tmp_path: Path) -> None:
    data = split({"audio": easy(1.5), "image": easy(1.5, 1)})
    build = builder(data)
    model = build()
    with pytest.raises(ValueError, match="build must be a function"):
        cp.diagnose(data, model, tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="same parameters twice"):
        cp.diagnose(data, lambda: model, tmp_path)
    with pytest.raises(ValueError, match="method must be a class"):
        cp.diagnose(data, build, tmp_path, method=cp.methods.Joint())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="run_dir is set by diagnose"):
        cp.diagnose(data, build, tmp_path, run_dir="x")
    only = split({"audio": easy(1.5)})
    with pytest.raises(ValueError, match="one modality"):
        cp.diagnose(only, builder(only), tmp_path)
    assert not any(tmp_path.iterdir())


def test_symmetric_modalities_contribute_the_same() -> None:
    """Shapley's symmetry, down to the model: the same inputs and the same weights."""
    from counterpoise.analysis import contributions, subset_hits

    inputs = easy(1.0)
    data = split({"audio": inputs, "image": inputs, "text": easy(0.5, 1)})
    torch.manual_seed(0)
    model = builder(data, "Late")()
    twin = {k.replace("audio", "image"): v for k, v in model.state_dict().items() if "audio" in k}
    model.load_state_dict({**model.state_dict(), **twin})
    nothing = data.task.chance(data.val.target)
    scores = subset_hits(model, data.val)
    shares = contributions(scores, model.modalities, nothing)
    assert shares["audio"] == pytest.approx(shares["image"], abs=1e-12)
    assert sum(shares.values()) == pytest.approx(scores["audio+image+text"] - nothing)
