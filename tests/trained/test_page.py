"""The page of ``counterpoise serve``: over its HTTP interface, and in a headless Chromium where there is one."""

from __future__ import annotations

import csv
import gc
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import counterpoise as cp
from counterpoise.data import Audio, Image
from counterpoise.trained import TrainedModel
from counterpoise.trained.page import page, votes
from counterpoise.trained.votes import Prediction, Vote

gradio = pytest.importorskip("gradio")
pytestmark = pytest.mark.filterwarnings("ignore")  # of gradio and what it stands on
BROWSE = Path(__file__).with_name("browse.py")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and a run trained on them."""
    folder = tmp_path_factory.mktemp("served")
    table = cp.data.write_digits(folder / "clips", size=100)
    data = cp.Table(table, {"audio": Audio(8000, 0.5), "image": Image(size=8, channels=1)}).splits()
    model = cp.build_model({m: cp.encoders.CNN(1, 8) for m in data.modalities}, "Late", task=data.task)
    cp.Trainer(model, "Joint", epochs=1, batch_size=16, progress=False, run_dir=folder / "run").run(data)
    return folder


@pytest.fixture(scope="module")
def sample(folder: Path) -> dict[str, str]:
    row = next(csv.DictReader((folder / "clips" / "digits.csv").open()))
    return {m: str(folder / "clips" / row[m]) for m in ("audio", "image")}


@pytest.fixture(scope="module")
def model(folder: Path) -> TrainedModel:
    return cp.load(folder / "run", accelerator="cpu")


@pytest.fixture(scope="module")
def served(model: TrainedModel) -> Iterator[Any]:
    """The page, shown on loopback."""
    blocks = page(model, title="digits")
    blocks.launch(server_name="127.0.0.1", quiet=True, prevent_thread_lock=True)
    yield blocks
    blocks.close(verbose=False)
    with warnings.catch_warnings():  # gradio leaves sockets open; let them go here and in nobody else's test
        warnings.simplefilter("ignore")
        gc.collect()


def test_votes_in_words():
    found = Prediction("x", {"x": 0.7, "y": 0.3}, 0.2, {
        "audio": Vote("y", {"x": 0.4, "y": 0.6}, -0.05),
        "text": Vote(None, None, 0.0),
        "image": Vote(("x", "y"), {"x": 0.9, "y": 0.8}, 0.25),
        "series": Vote(2.5, {"price": 2.5}, 0.1),
    })  # fmt: skip
    assert votes(found) == [
        ["audio", "y", "0.600", "-0.050"],
        ["text", "absent", "", ""],
        ["image", "x, y", "", "+0.250"],
        ["series", "2.5", "", "+0.100"],
    ]


def test_a_missing_extra_names_itself(model: TrainedModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'counterpoise\[serve\]'"):
        page(model, title="x")


@pytest.mark.slow
def test_over_http(served: Any, model: TrainedModel, sample: dict[str, str]):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    assert served.local_url.startswith("http://127.0.0.1:")
    client = Client(served.local_url, verbose=False)
    for given in (sample, {"image": sample["image"]}):
        answer, table = client.predict(
            *(handle_file(given[m]) if m in given else None for m in model.modalities), api_name="/predict"
        )
        want = model.predict(given, explain=True)
        assert answer["label"] == want.answer
        assert {c["label"]: c["confidence"] for c in answer["confidences"]} == {
            name: want.probabilities[name]
            for name in sorted(want.probabilities, key=lambda n: -want.probabilities[n])[:5]
        }
        assert table["data"] == votes(want)
    with pytest.raises(AppError, match="at least one modality"):
        client.predict(None, None, api_name="/predict")
    with pytest.raises(AppError, match="audio"):
        client.predict(handle_file(sample["image"]), None, api_name="/predict")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_in_a_browser(served: Any, model: TrainedModel, sample: dict[str, str]):
    pytest.importorskip("playwright")
    want = model.predict(sample, explain=True)
    asked = {
        "browser": CHROMIUM,
        "url": served.local_url,
        "files": [sample[m] for m in model.modalities],
        "answer": want.answer,
        "cells": [cell for row in votes(want) for cell in row],
    }
    # in a process of its own: Playwright's greenlets leave Python 3.11 with a wrong depth of recursion
    done = subprocess.run([sys.executable, BROWSE, json.dumps(asked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_listens_on_loopback(folder: Path):
    command = [sys.executable, "-m", "counterpoise", "serve", str(folder / "run"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"Serving {folder / 'run'} on http://127.0.0.1:" in line
    finally:
        process.terminate()
        process.wait()
