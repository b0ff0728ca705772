"""A run is loaded again without its data, and predicts what it predicted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import columns, trained
from torch import nn

import counterpoise as cp
from counterpoise import methods
from counterpoise.encoders import MLP
from counterpoise.engine import CheckpointError
from counterpoise.fusions import Late, Shared
from counterpoise.losses import CrossEntropy
from counterpoise.methods import Joint
from counterpoise.portable import UntrustedError
from counterpoise.testing import trainer_for

OWN_RULE = {
    "Joint": (Joint, "Attention"),
    "Unimodal": (partial(methods.Unimodal, "first"), "Concat"),
    "DOMFN": (methods.DOMFN, "Concat"),
    "MLA": (methods.MLA, "Shared"),
    "MMCosine": (methods.MMCosine, "Sum"),
    "ReconBoost": (
        partial(methods.ReconBoost, boost_epochs=1, rectify_epochs=1),
        partial(Shared, rule="sum", hidden=(8,)),
    ),
    "UMT": (partial(methods.UMT, teacher_epochs=1), "Gated"),
    "GBlending": (partial(methods.GBlending, super_epoch=1), "FiLM"),
    "Late": (methods.IGM, "Late"),
    "pool": (Joint, partial(Late, rule="pool")),
}


def same(model: cp.TrainedModel, trainer: cp.Trainer, split: Any) -> None:
    """Bit for bit what the trainer predicts of a split, from the loaded model given raw columns."""
    wanted = trainer.predict(split)
    found = model.predict_proba(columns(split)) if model.task.kind != "regression" else model.predict(columns(split))
    there = wanted.anything().numpy()
    expected = trainer.model.task.predictions(wanted.fused).numpy()
    assert np.array_equal(found[there], expected[there])
    assert np.isnan(found[~there]).all()


@pytest.mark.parametrize("name", OWN_RULE)
def test_every_rule_predicts_as_it_did(name: str, tmp_path: Path) -> None:
    make, fusion = OWN_RULE[name]
    trainer, data = trained(tmp_path / "r", make, fusion, epochs=2)
    model = cp.load(tmp_path / "r")
    same(model, trainer, data.test)
    assert model.evaluate(data.test) == trainer.evaluate(data.test)
    assert model.trainer.method.label == trainer.method.label


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_label_sets_and_numbers(kind: str, tmp_path: Path) -> None:
    trainer, data = trained(tmp_path / "r", kind=kind)
    model = cp.load(tmp_path / "r")
    same(model, trainer, data.test)
    said = model.predict(columns(data.test))
    if kind == "regression":
        assert said.shape == (len(data.test), 2)
        with pytest.raises(ValueError, match="Numbers are predicted, which have no probabilities"):
            model.predict_proba(columns(data.test))
        return
    probabilities = model.predict_proba(columns(data.test))
    assert said == [tuple(n for n, p in zip("0123", row, strict=True) if p > 0.5) for row in probabilities]


def test_pooled_and_in_bf16(tmp_path: Path) -> None:
    encoders = {m: nn.Sequential(nn.Linear(6, 8), nn.ReLU()) for m in ("first", "second")}
    _, data = trainer_for(Joint)
    built = cp.build_model(encoders, "Late", task=data.task, example=data.train, pool=True)
    trainer = cp.Trainer(
        built, Joint(), epochs=1, batch_size=9, precision="bf16-mixed", run_dir=tmp_path / "r", progress=False
    )
    trainer.run(data)
    model = cp.load(tmp_path / "r")
    assert model.description.precision == "bf16-mixed"
    same(model, trainer, data.test)


ELSEWHERE = """
import sys, json
import counterpoise as cp
model = cp.load(sys.argv[1])
sample = {"audio": sys.argv[2] + "/audio/0003.wav", "image": sys.argv[2] + "/image/0003.png"}
print(json.dumps([model.predict(sample), model.predict_proba(sample).tolist(), model.modalities]))
"""


@pytest.mark.slow
def test_another_process_in_another_folder_without_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of sounds and pictures; what is predicted there is what the command line wrote here."""
    from counterpoise.cli import main
    from counterpoise.data import write_digits

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_digits("clips", size=100)
    options = ["--data.modalities", "{audio: {class_path: Audio, init_args: {sample_rate: 8000, seconds: 0.5, "
               "n_fft: 128, hop: 250}}, image: {class_path: Image, init_args: {size: 8, channels: 1}}}"]  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main(["fit", "--data", "clips/digits.csv", *options, "--method", "OGM", "--epochs", "1", "--batch_size", "16",
              "--run_dir", "r", "--progress", "false"])  # fmt: skip
    assert not left.value.code
    model = cp.load("r")
    wanted = model.predict_proba("clips/digits.csv")
    new = tmp_path / "elsewhere"
    for m in ("audio", "image"):
        (new / m).mkdir(parents=True)
        shutil.copy(next(Path("clips", m).glob("0003.*")), new / m)
    Path("r").rename(tmp_path / "moved")
    shutil.rmtree("clips")
    (tmp_path / "empty").mkdir()
    code = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "moved"), str(new)]
    done = subprocess.run(code, cwd=tmp_path / "empty", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, probabilities, modalities = json.loads(done.stdout)
    assert modalities == ["audio", "image"]
    assert probabilities == pytest.approx(wanted[3].tolist(), abs=1e-6)
    assert said == str(int(np.argmax(wanted[3])))


OF_A_USER = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width, act=nn.functional.tanh):
        super().__init__()
        self.width, self.act, self.dim = width, act, width
        self.layer = nn.Linear(6, width)

    def forward(self, x):
        return self.act(self.layer(x))
"""


def test_classes_of_a_user_are_imported_with_trust_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets_of_loading.py").write_text(OF_A_USER)
    monkeypatch.syspath_prepend(tmp_path)
    import my_nets_of_loading  # pyright: ignore[reportMissingImports]

    _, data = trainer_for(Joint)
    encoders = {m: my_nets_of_loading.Net(4, nn.functional.gelu) for m in ("first", "second")}
    trainer = cp.Trainer(
        cp.build_model(encoders, task=data.task),
        Joint(),
        epochs=1,
        batch_size=9,
        run_dir=tmp_path / "r",
        progress=False,
    )
    trainer.fit(data.train, data.val)
    with pytest.raises(UntrustedError, match=r"my_nets_of_loading\.Net.*cp\.load\('.*r', trust=True\); nothing was"):
        cp.load(tmp_path / "r")
    same(cp.load(tmp_path / "r", trust=True), trainer, data.test)


def closed(tmp_path: Path) -> tuple[cp.Trainer, Any, Any]:
    """A run whose encoders are of a class inside a function."""

    class Net(nn.Module):
        dim = 4

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    _, data = trainer_for(Joint)

    def build() -> cp.MultimodalModel:
        return cp.build_model({m: Net() for m in ("first", "second")}, task=data.task)

    trainer = cp.Trainer(build(), Joint(), epochs=1, batch_size=9, run_dir=tmp_path / "r", progress=False)
    with pytest.warns(UserWarning, match=r"cp\.load\(run_dir, build=\.\.\.\), because encoders\['first'\] is .*Net"):
        trainer.fit(data.train, data.val)
    return trainer, data, build


def test_a_run_with_a_closure_says_so_and_asks_for_what_makes_it(tmp_path: Path) -> None:
    trainer, data, build = closed(tmp_path)
    with pytest.raises(ValueError, match=r"defined inside a function.*cp\.load\('.*r', build=lambda: cp\.build_model"):
        cp.load(tmp_path / "r")
    same(cp.load(tmp_path / "r", build=build), trainer, data.test)
    with pytest.raises(CheckpointError, match=r"best\.ckpt does not hold"):
        cp.load(tmp_path / "r", build=lambda: trainer_for(Joint)[0].model)


def test_a_method_inside_a_function(tmp_path: Path) -> None:
    class Mine(Joint):
        pass

    trainer, data = trainer_for(Mine, run_dir=tmp_path / "r", epochs=1)
    with pytest.warns(UserWarning, match=r"method is .*Mine, defined inside a function"):
        trainer.fit(data.train, data.val)
    with pytest.raises(ValueError, match=r"cp\.load\('.*r', method=\.\.\.\)"):
        cp.load(tmp_path / "r")
    same(cp.load(tmp_path / "r", method=Mine()), trainer, data.test)


def test_a_reader_that_is_given_leaves_the_others(tmp_path: Path) -> None:
    table = cp.data.write_digits(tmp_path / "clips", size=100)
    data = cp.Table(table, {"audio": cp.data.Audio(8000, 0.5), "image": cp.data.Image(size=8, channels=1)}).splits()
    trainer = cp.Trainer(cp.build_model(data), Joint(), epochs=1, batch_size=16, run_dir=tmp_path / "r", progress=False)
    trainer.run(data)
    own = cp.data.Image(size=8, channels=1)
    model = cp.load(tmp_path / "r", readers={"image": own})
    assert model.reader("image") is own
    assert isinstance(model.reader("audio"), cp.data.Audio)
    with pytest.raises(ValueError, match=r"readers: Unknown modality 'picture'\..*Known: audio, image"):
        cp.load(tmp_path / "r", readers={"picture": own})


def test_a_loss_that_is_not_known_is_not_needed(tmp_path: Path) -> None:
    class Own(CrossEntropy):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.ones(2))

    _, data = trainer_for(Joint)
    model = cp.build_model({m: MLP(6, dim=4) for m in ("first", "second")}, task=data.task)
    trainer = cp.Trainer(model, Joint(), epochs=1, batch_size=9, run_dir=tmp_path / "r", progress=False, loss=Own())
    with pytest.warns(UserWarning, match="because loss is .*Own, defined inside a function"):
        trainer.fit(data.train, data.val)
    with pytest.warns(UserWarning, match="The loss of this model was not written down; evaluate reports the task's"):
        loaded = cp.load(tmp_path / "r")
    same(loaded, trainer, data.test)


def test_writing_it_down_moves_no_random_number(tmp_path: Path) -> None:
    results = []
    for name in ("a", None):
        path = None if name is None else tmp_path / name
        trainer, data = trainer_for(Joint, run_dir=path, epochs=1)
        trainer.fit(data.train, data.val)
        results.append(trainer.model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*runs/x"):
        cp.load(tmp_path / "runs" / "x")
    with pytest.raises(FileNotFoundError, match=r"holds no trained model: it has neither model\.json"):
        cp.load(tmp_path)
    trained(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'run'"):
        cp.load(tmp_path / "runn")
    text = (tmp_path / "run" / "model.json").read_text()
    newer = {**json.loads(text), "format": 7, "versions": {"counterpoise": "3.2.1"}}
    (tmp_path / "run" / "model.json").write_text(json.dumps(newer))
    with pytest.raises(ValueError, match=r"has format 7, written by counterpoise 3\.2\.1; .*pip install -U"):
        cp.load(tmp_path / "run")
    older = {name: value for name, value in json.loads(text).items() if name != "labels"}
    (tmp_path / "run" / "model.json").write_text(json.dumps({**older, "versions": {"counterpoise": "0.0.1"}}))
    with pytest.raises(ValueError, match=r"by counterpoise 0\.0\.1, in another way .*KeyError: 'labels'.*train again"):
        cp.load(tmp_path / "run")
    (tmp_path / "run" / "model.json").write_text(text[:100])
    with pytest.raises(CheckpointError, match=r"model\.json is damaged"):
        cp.load(tmp_path / "run")
    (tmp_path / "run" / "model.json").write_text("{}")
    with pytest.raises(ValueError, match="describes no trained model"):
        cp.load(tmp_path / "run")
    (tmp_path / "run" / "model.json").write_text(text)
    weights = (tmp_path / "run" / "best.ckpt").read_bytes()
    (tmp_path / "run" / "best.ckpt").write_bytes(weights[:-300] + bytes(300))
    with pytest.raises(CheckpointError, match=r"best\.ckpt"):
        cp.load(tmp_path / "run")
    (tmp_path / "run" / "best.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no best\.ckpt yet"):
        cp.load(tmp_path / "run")
