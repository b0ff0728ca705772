from __future__ import annotations

import ctypes
import gc
import subprocess
import sys

import pytest
import torch

from counterpoise.methods import IGM, UMT, GBlending, Joint, MMPareto, Unimodal
from counterpoise.testing import trainer_for
from power_cut import PowerCut

NAMES = ("first", "second", "third")


def cost(make, names=NAMES[:2], **options):
    trainer, data = trainer_for(make, names, epochs=options.pop("epochs", 2), **options)
    result = trainer.run(data)
    share = trainer.current.num_batches * trainer.batch_size / len(data.train)  # an incomplete batch is left out
    return result["cost"], share, result["epochs"]


@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
def test_passes_of_joint_training_are_its_epochs(names):
    found, share, epochs = cost(Joint, names)
    assert found["forward"] == found["backward"] == pytest.approx(epochs * share, abs=1e-3)


def test_one_modality_is_a_share_of_a_pass():
    found, share, epochs = cost(lambda: Unimodal("second"))
    assert found["forward"] == found["backward"] == pytest.approx(epochs * share / 2, abs=1e-3)


def test_sharpness_aware_steps_take_two():
    found, share, epochs = cost(Joint, sam=0.05)
    assert found["forward"] == found["backward"] == pytest.approx(2 * epochs * share, abs=1e-3)


def test_several_gradients_of_one_forward_pass():
    found, share, epochs = cost(MMPareto)
    assert found["forward"] == pytest.approx(epochs * share, abs=1e-3)
    assert found["backward"] == pytest.approx(2 * epochs * share, abs=1e-3)


def test_reading_the_activations_is_a_pass_without_gradient():
    found, share, epochs = cost(lambda: IGM(stages=[1, 1, 1], sam="off"))
    assert epochs == 3
    assert found["backward"] == pytest.approx(3 * share / 2, abs=1e-3)
    assert found["forward"] == pytest.approx((3 + 2) * share / 2, abs=1e-3)  # one before each stage but the first


def test_teachers_and_trial_runs_count():
    found, share, epochs = cost(UMT)
    # teachers: each modality once; then student and teachers, and gradients of the student only
    assert found["backward"] == pytest.approx((1 + 1) * epochs * share, abs=1e-3)
    assert found["forward"] == pytest.approx((1 + 2) * epochs * share, abs=1e-3)
    found, share, epochs = cost(lambda: GBlending(super_epoch=2))
    assert found["backward"] > 1.5 * epochs * share


def test_a_resumed_run_goes_on_adding(tmp_path):
    cut, data = trainer_for(Joint, epochs=3, run_dir=tmp_path / "run")
    batches = len(data.train) // cut.batch_size
    cut, data = trainer_for(Joint, epochs=3, run_dir=tmp_path / "run", observers=[PowerCut(2 * batches + 1)])
    with pytest.raises(RuntimeError, match="power cut"):
        cut.fit(data.train, data.val)
    before = cut.history[-1]["seconds"]
    again, data = trainer_for(Joint, epochs=3, run_dir=tmp_path / "run")
    found = again.run(data, resume=True)
    # what the lost batch cost is not known any more
    assert again.current.state.forward == again.current.state.backward == 3 * batches * again.batch_size * 2
    assert found["seconds"] > before
    assert found["cost"]["cpu_seconds"] > 0
    assert found["cost"]["peak_memory_mb"] > found["cost"]["memory_rise_mb"]


class Hungry(Joint):
    """Needs 64 MB for a moment, in the second batch."""

    def step(self, step):
        if step.index == 1:
            torch.ones(2**24).sum()
        return super().step(step)


def test_the_peak_of_a_moment_is_seen():
    # what tests before have left would be given back meanwhile, and hide as much of the rise
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    assert cost(Hungry)[0]["memory_rise_mb"] > 60
    assert cost(Joint)[0]["memory_rise_mb"] < 40


def test_nothing_is_left_on_the_model():
    trainer, data = trainer_for(Joint, epochs=1)
    trainer.fit(data.train, data.val)
    before = trainer.current.state.forward
    trainer.evaluate(data.val)
    assert trainer.current.state.forward == before
    assert not any(e._forward_hooks for e in trainer.model.encoders.values())


IMPORTS = """
import sys
import counterpoise as cp
from counterpoise.engine import Observer
class Watch(Observer):
    before = None
    def on_batch_start(self, trainer, batch):
        self.before = self.before or set(sys.modules)
    def on_fit_end(self, trainer):
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - self.before}))
data = cp.digits(size=100)
model = cp.build_model({m: cp.encoders.CNN(1, 4) for m in data.modalities}, num_classes=10, example=data.train)
trainer = cp.Trainer(model, cp.methods.Joint(), epochs=1, batch_size=16, observers=[Watch()], progress=False,
                     accelerator="cpu", run_dir=sys.argv[1])
trainer.fit(data.train, data.val)
"""


@pytest.mark.slow
def test_imports_that_take_seconds_are_not_timed_as_training(tmp_path):
    command = [sys.executable, "-c", IMPORTS, str(tmp_path / "run")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torchmetrics", "tensorboard", "transformers", "torchvision", "scipy"}.intersection(found)
