"""No step of any method waits for a number of the device: on a GPU that would stop the queue of kernels."""

import weakref
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from counterpoise import methods
from counterpoise.engine import Observer
from counterpoise.testing import NAMES, trainer_for

WAITS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.masked_select.default,
}


class NoWaiting(TorchDispatchMode):
    """Refuses what needs a tensor's value on the host, except of numbers drawn by a generator, which lives there."""

    def __init__(self):
        super().__init__()
        self.drawn = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        boolean_index = func is torch.ops.aten.index.Tensor and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        if (func in WAITS or boolean_index) and args[0] not in self.drawn:
            raise AssertionError(f"{func} waits for the device")
        result = func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            self.drawn.add(result)
        return result


class Watch(Observer):
    """Every batch but the first of an epoch, at which SAM checks its radius."""

    def __init__(self):
        self.mode, self.steps = NoWaiting(), 0

    def on_batch_start(self, trainer, batch):
        self.on = trainer.state.batch_in_epoch > 0
        if self.on:
            self.mode.__enter__()
            self.steps += 1

    def on_batch_end(self, trainer):
        if self.on:
            self.mode.__exit__(None, None, None)
            self.on = False

    on_fit_end = on_batch_end  # also after an error


CASES = {name: getattr(methods, name) for name in methods.__all__}
CASES["Unimodal"] = partial(methods.Unimodal, NAMES[0])
CASES["IGM.released"] = methods.IGM.released
CASES["IGM mixup"] = partial(methods.IGM, mixup=1.0)
CASES["OPM"] = partial(methods.OPM, p=1, warmup=0)
CASES["PMR early"] = partial(methods.PMR, entropy_epochs=9)
del CASES["Aggregated"]  # its solver runs on the host
for hides in ("SMV", "DataRemixing"):  # modalities of samples, and which rows an encoder runs must be known on the host
    del CASES[hides]
del CASES["Greedy"]  # which parts of the model take part in the next batch must be known on the host


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_no_number(name):
    _watched(name)


@pytest.mark.parametrize("name", ["Joint", "OGM", "DGL", "InfoReg"])
def test_nor_does_one_in_parts(name):
    _watched(name, accumulate=3)


def _watched(name, **options):
    watch = Watch()
    sam = 0.0 if name.startswith("IGM") else 0.05
    options |= {"epochs": 3, "batch_size": 12, "observers": [watch], "clip_norm": 1.0, "sam": sam}
    trainer, data = trainer_for(CASES[name], **options)
    trainer.fit(data.train, data.val)
    assert watch.steps > 4


def test_rows_that_lack_a_modality_are_known_to_wait():
    watch = Watch()
    trainer, data = trainer_for(methods.Joint, batch_size=12, absent=0.3, observers=[watch])
    with pytest.raises(AssertionError, match="nonzero"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("waits", [lambda x: bool(x.sum() > 0), lambda x: x[x > 0], lambda x: x.nonzero(), float])
def test_the_check_can_fail(waits):
    x = torch.randn(())[None] if waits is float else torch.randn(4)
    with NoWaiting(), pytest.raises(AssertionError, match="waits"):
        waits(x)
