"""A run directory becomes a file, from Python and on the command line, without its data."""

import numpy as np
import pytest
import torch

import counterpoise as cp
from counterpoise.cli import main
from counterpoise.testing import trainer_for

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "one"
    trainer, data = trainer_for(cp.methods.MLA, epochs=1, run_dir=path)
    trainer.run(data)
    return path, trainer, data.test


def inputs_of(split, count):
    return {m: split.batch(range(count), m, None).numpy() for m in split.modalities}


def agree(file, trainer, split):
    predicted = trainer.predict(split).fused.softmax(1)
    for count in (1, 3, 17):
        here = cp.Exported(file)(inputs_of(split, count))["fused.probabilities"]
        assert np.abs(here - predicted[:count].numpy()).max() < 1e-5


@pytest.mark.slow
def test_a_loaded_run_is_exported(run, tmp_path):
    path, trainer, test = run
    file = cp.load(path, accelerator="cpu").export(tmp_path / "model.onnx")
    agree(file, trainer, test)


def test_the_command(run, tmp_path, capsys):
    path, trainer, test = run
    file = tmp_path / "model.onnx"
    with pytest.raises(SystemExit) as left:
        main(["export", str(path), str(file)])
    assert left.value.code == 0
    assert "first, second in, single-label out." in capsys.readouterr().out
    agree(file, trainer, test)
    with pytest.raises(SystemExit) as left:
        main(["export", str(path), str(file)])
    assert left.value.code == 2
    assert "model.onnx exists. Pass --force to overwrite it." in capsys.readouterr().err


def test_a_pt2_file(run, tmp_path):
    path, trainer, test = run
    file = cp.load(path, accelerator="cpu").export(tmp_path / "model.pt2")
    program = torch.export.load(file).module()
    inputs = {m: torch.from_numpy(x) for m, x in inputs_of(test, 5).items()}
    present = {m: torch.ones(5, dtype=torch.bool) for m in inputs}
    here = program(inputs, present)
    fused = here["fused.probabilities"] if isinstance(here, dict) else here[0]
    assert torch.allclose(fused, trainer.predict(test).fused.softmax(1)[:5], atol=1e-5)
