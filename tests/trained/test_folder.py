"""A folder for others: weights without pickle, plain data, a card; and the hub by its mixin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_up import columns, trained

import counterpoise as cp
from counterpoise import methods
from counterpoise.engine import CheckpointError
from counterpoise.portable import UntrustedError
from counterpoise.trained import hub


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ReconBoost, whose rate is a parameter of the method."""
    path = tmp_path_factory.mktemp("runs") / "boost"
    trained(path, lambda: methods.ReconBoost(boost_epochs=1, rectify_epochs=1), epochs=2)
    return path


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    return cp.load(run).save_pretrained(tmp_path / "folder")


def test_it_predicts_the_same_to_the_bit(run: Path, folder: Path, tmp_path: Path) -> None:
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    _, data = trained(tmp_path / "again", methods.Joint)
    model, other = cp.load(run), cp.TrainedModel.from_pretrained(folder)
    assert np.array_equal(
        model.predict_proba(columns(data.test)), other.predict_proba(columns(data.test)), equal_nan=True
    )
    assert model.evaluate(data.test) == other.evaluate(data.test)

    model.trainer.method.load_state_dict({"boost_rate": torch.tensor(1.5)})  # it is part of the rule
    other = cp.load(model.save_pretrained(folder, overwrite=True))
    assert other.trainer.method.state_dict()["boost_rate"].item() == 1.5


ELSEWHERE = """
import sys, numpy as np, counterpoise as cp
model = cp.load(sys.argv[1])
print(model.predict_proba({"first": np.ones(6, np.float32)}).tolist())
"""


@pytest.mark.slow
def test_another_process_in_an_empty_folder(run: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    wanted = cp.load(run).predict_proba({"first": np.ones(6, np.float32)}).tolist()
    code = [sys.executable, "-c", ELSEWHERE, str(folder)]
    done = subprocess.run(code, cwd=tmp_path / "empty", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == wanted


def test_the_card_has_the_scores_of_every_subset(run: Path, folder: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: counterpoise\n")
    for subset in ("first", "second", "first\\+second"):
        scores = result["subsets"][subset.replace("\\", "")]
        assert f"| {subset} | {scores['accuracy']:.4f} | {scores['macro_f1']:.4f} |" in card
    assert "Predicts one class of 0, 1, 2 from first, second" in card
    again = cp.load(folder).save_pretrained(folder, overwrite=True)  # and they are still known
    assert (again / "README.md").read_text() == card


def test_the_card_says_what_was_not_measured(run: Path, tmp_path: Path) -> None:
    model = cp.load(run)
    model.result = None
    folder = model.save_pretrained(tmp_path / "f")
    assert "Not measured: the run was not evaluated on a test split." in (folder / "README.md").read_text()


def test_a_model_that_is_there_is_not_replaced(run: Path, folder: Path) -> None:
    with pytest.raises(FileExistsError, match="Pass overwrite=True"):
        cp.load(run).save_pretrained(folder)


def test_damage_is_seen(folder: Path) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    content, text = weights.read_bytes(), config.read_text()
    for damaged in (content[:-4], content[:-1] + bytes([content[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged.*SHA-256 differs"):
            cp.load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors: the weights are missing"):
        cp.load(folder)
    weights.write_bytes(content)
    config.write_text(text[:50])
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        cp.load(folder)
    config.write_text(json.dumps({**json.loads(text), "format": 2, "versions": {"counterpoise": "9.0"}}))
    with pytest.raises(ValueError, match=r"config\.json has format 2, written by counterpoise 9\.0.*Upgrade: pip"):
        cp.load(folder)


def test_a_stranger_s_folder_runs_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger_of_folder.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = folder / "config.json"
    values = json.loads(config.read_text())
    values["encoders"]["first"] = {"class_path": "stranger_of_folder.Net", "init_args": {}}
    config.write_text(json.dumps(values))
    with pytest.raises(UntrustedError, match=r"stranger_of_folder\.Net.*nothing was imported"):
        cp.load(folder)


def test_what_needs_build_is_not_for_others(run: Path, tmp_path: Path) -> None:
    model = cp.load(run)
    object.__setattr__(model.description, "unknown", ("encoders['first'] is a lambda",))
    with pytest.raises(ValueError, match="cannot be made elsewhere from what is written down: encoders"):
        model.save_pretrained(tmp_path / "f")


def test_the_mixin_uploads_and_fetches_that_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, token: Any = None):
            pass

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> Any:
            sent.update({p.name: p.read_bytes() for p in Path(folder_path).iterdir()}, repo=repo_id)
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})()

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    cp.load(run).push_to_hub("me/mine", private=True)
    assert sent.pop("repo") == "me/mine"
    there = tmp_path / "snapshot"
    there.mkdir()
    for name, content in sent.items():
        (there / name).write_bytes(content)

    def snapshot_download(name: str, **options: Any) -> str:
        assert (name, options["allow_patterns"]) == ("me/mine", ["config.json", "model.safetensors", "README.md"])
        return str(there)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda *_, **__: str(there / "config.json"))
    monkeypatch.chdir(tmp_path)
    sample = {"first": torch.ones(6)}
    assert np.array_equal(cp.load("me/mine").predict_proba(sample), cp.load(run).predict_proba(sample))


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "the hub has no model of that name that you may see"), (None, "the hub cannot be reached, and no copy")],
)
def test_names_that_the_hub_does_not_give(
    status: int | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    def fails(*_: Any, **__: Any) -> str:
        if status is None:
            raise LocalEntryNotFoundError("offline")
        answer: Any = SimpleNamespace(status_code=status, headers={}, request=None)
        raise RepositoryNotFoundError("404 Client Error", response=answer)

    monkeypatch.setattr(hub, "snapshot_download", fails)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", fails)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"There is no folder me/mine, and {said}"):
        cp.load("me/mine")


def test_a_missing_extra_names_itself(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        FileNotFoundError, match=r"needs the package huggingface_hub: pip install 'counterpoise\[hub\]'"
    ):
        cp.load("me/mine")
    with pytest.raises(ImportError, match=r"push_to_hub needs the package huggingface_hub"):
        cp.load(run).push_to_hub("me/mine")
