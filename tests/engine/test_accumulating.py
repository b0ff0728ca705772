"""A batch in parts gives the update of the whole batch: to rounding in float64, whoever lacks what."""

import math
from pathlib import Path

import pytest
import torch
from test_replicas import on_two
from torch import nn

from counterpoise import methods
from counterpoise.cli.methods import row
from counterpoise.engine import SGD, Observer, Trainer, loop, make_fabric
from counterpoise.engine import run as run_module
from counterpoise.engine.scaling import LossScale
from counterpoise.losses import CrossEntropy
from counterpoise.method import Method
from counterpoise.testing import assert_same, everything, task, tiny_model, trainer_for
from test_contract import CASES
from test_sample_weight import CLASS_WEIGHT, drawn

TWO = ("first", "second")
ALLOWED = [name for name in CASES if getattr(methods, name).whole_batch is None]


class Doubled(nn.Module):
    def forward(self, x):
        return x.double()


@pytest.fixture
def exact(monkeypatch):
    """The engine in float64, and the last weights and not the best ones."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(loop, "select_best", lambda run: False)


def fitted(fabric, make, accumulate, fusion=None, *, absent=0.3, weighted=True, epochs=2, batch_size=18, **options):
    """Every tensor of a short run with batches of 18, in parts of at most so many samples."""
    method = make()
    model = tiny_model(method, TWO, fusion, norm=False)
    for m, encoder in model.encoders.items():
        model.encoders[m] = nn.Sequential(Doubled(), *encoder)
    data = task(TWO, absent=absent)
    if weighted:
        data.train.weight = drawn(len(data.train))
        options["loss"] = CrossEntropy(CLASS_WEIGHT)
    trainer = Trainer(
        model.double(), method, fabric=fabric or make_fabric(accelerator="cpu"), epochs=epochs, batch_size=batch_size,
        optimizer=SGD(lr=0.01), progress=False, accumulate=accumulate, **options,
    )  # fmt: skip
    trainer.method.double()
    torch.set_default_dtype(torch.float64)
    try:
        trainer.fit(data.train, data.val)
    finally:
        torch.set_default_dtype(torch.float32)
    return everything(trainer), trainer


def assert_close(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        scale = max(1.0, float(value.abs().max())) if value.is_floating_point() and value.numel() else 1.0
        torch.testing.assert_close(b[name], value, rtol=0, atol=1e-12 * scale, msg=name)


def test_which_methods_take_parts():
    assert ALLOWED == [
        "Unimodal", "Joint", "GBlending", "OGM", "OGMGE", "DOMFN", "MSES", "MSLR", "SMV", "MMCosine", "UMT",
        "ModalityDropout", "DGL", "AMCo", "G2D", "ReLearning", "BSS", "DataRemixing", "InfoReg",
    ]  # fmt: skip


SAM = {"sam": 0.05, "clip_norm": 0.5}
RUNS = [(name, {}) for name in ALLOWED] + [
    pytest.param(name, SAM, marks=() if name in ("OGM", "InfoReg") else pytest.mark.slow) for name in ALLOWED
]


@pytest.mark.parametrize(("name", "options"), RUNS)
@pytest.mark.usefixtures("exact")
def test_parts_make_the_update_of_the_whole_batch(name, options):
    case = CASES[name]
    whole, trainer = fitted(None, case.make, 1, case.fusions[0], **options)
    parts, other = fitted(None, case.make, 4, case.fusions[0], **options)  # of 5, 5, 4 and 4 samples
    assert_close(whole, parts)
    for a, b in zip(trainer.history, other.history, strict=True):
        for key in a:
            if key.startswith("train/"):
                assert math.isclose(a[key], b[key], rel_tol=1e-9, abs_tol=1e-12), key


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.fusions) > 1 and name in ALLOWED])
@pytest.mark.usefixtures("exact")
@pytest.mark.slow
def test_with_other_fusions_and_one_sample_a_part(name):
    case = CASES[name]
    assert_close(*[fitted(None, case.make, k, case.fusions[-1], weighted=False)[0] for k in (1, 18)])


def on_replica(fabric, name, accumulate):
    return fitted(fabric, CASES[name].make, accumulate, CASES[name].fusions[0], sam=0.05)[0]


@pytest.mark.parametrize("name", ["OGM", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Joint", "InfoReg"))])
@pytest.mark.usefixtures("exact")
def test_two_processes_with_parts_are_one_without(name):
    whole, _ = fitted(None, CASES[name].make, 1, CASES[name].fusions[0], sam=0.05)
    zero, one = on_two(on_replica, name, 4)
    assert_same(zero, one)
    assert_close({n: v for n, v in whole.items() if v.is_floating_point()}, {n: zero[n] for n in whole if n in zero})


def test_only_as_many_samples_as_a_part_has_are_encoded_at_once():
    sizes = []

    class Noting(nn.Identity):
        def forward(self, x):
            if self.training:
                sizes.append(len(x))
            return x

    trainer, data = trainer_for(methods.Joint, epochs=1, accumulate=4)
    for m, encoder in trainer.model.encoders.items():
        trainer.model.encoders[m] = nn.Sequential(Noting(), *encoder)
    trainer.fit(data.train, data.val)
    assert sizes[:8] == [5, 5, 5, 5, 4, 4, 4, 4]


# -- in float16 ----------------------------------------------------------------------------------------
@pytest.fixture
def scaled(monkeypatch):
    monkeypatch.setattr(run_module, "loss_scale", lambda fabric: LossScale(fabric.device))


@pytest.mark.parametrize("make", [methods.Joint, methods.OGM])
def test_a_scale_changes_no_bit(request, make):
    def trained():
        trainer, data = trainer_for(make, accumulate=4, sam=0.05, absent=0.3)
        trainer.fit(data.train, data.val)
        return trainer

    plain = trained()
    request.getfixturevalue("scaled")
    scaled = trained()
    assert_same(everything(plain), everything(scaled))
    assert scaled.current.loss_scale is not None


class Spoiler(Observer):
    """Has the first part of the second batch overflow, and notes what came of it."""

    def __init__(self):
        self.grads, self.weights, self.batch = [], [], 0

    def on_batch_start(self, run, batch):
        self.batch += 1
        self.weights.append([p.detach().clone() for p in run.model.parameters()])
        if self.batch == 2:
            batch.inputs["first"][0] = math.inf

    def before_update(self, run):
        self.grads.append(max(float(p.grad.abs().max()) for p in run.model.parameters() if p.grad is not None))


@pytest.mark.usefixtures("scaled")
def test_an_overflow_in_one_part_skips_the_whole_update():
    spoiler = Spoiler()
    trainer, data = trainer_for(methods.OGM, norm=False, accumulate=3, observers=[spoiler])
    with pytest.raises(FloatingPointError):  # at the end of the epoch, for the loss of that batch
        trainer.fit(data.train, data.val)
    assert spoiler.grads[0] > 0 == spoiler.grads[1]  # zeros, and no infinity
    before, after = spoiler.weights[1:]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -- what is refused -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in CASES if name not in ALLOWED])
def test_methods_that_need_whole_batches_are_refused_before_training(name):
    reason = getattr(methods, name).whole_batch
    with pytest.raises(ValueError, match=f"accumulate=2: {name} needs whole batches: {reason}"):
        trainer_for(CASES[name].make, TWO, CASES[name].fusions[0], accumulate=2)


def test_the_guide_says_which():
    guide = Path(__file__, "../../../docs/guide.md").resolve().read_text(encoding="utf-8")
    by_reason = {None: ALLOWED}
    for name in CASES:
        if name not in ALLOWED:
            by_reason.setdefault(getattr(methods, name).whole_batch, []).append(name)
    for reason, names in by_reason.items():
        assert f"| {reason or 'the same update'} | {', '.join(names)} |" in guide
        assert all(row(name)["whole_batch"] == reason for name in names)


class Stranger(Method):
    info = methods.Joint.info

    def loss(self, output, step):
        return step.criterion(output.logits, present=step.batch.target > 0)


class Careless(Stranger):
    whole_batch = None


class Stepping(methods.Joint):
    def step(self, step):
        return super().step(step)


@pytest.mark.parametrize(
    ("make", "accumulate", "message"),
    [
        (Stranger, 2, "it does not say that its loss is a mean over single samples"),
        (Stepping, 2, "Stepping needs whole batches: its step is its own"),
        (methods.Joint, 0, "accumulate must be a whole number >= 1; got 0"),
        (methods.Joint, 2.5, "accumulate must be a whole number"),
        (methods.Joint, 19, "accumulate must be at most 18"),
    ],
)
def test_what_cannot_be_is_refused(make, accumulate, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(make, TWO, accumulate=accumulate)
    trainer_for(make, TWO, accumulate=1)


def test_a_mean_over_unknown_samples_is_refused():
    trainer, data = trainer_for(Careless, TWO, accumulate=2)
    with pytest.raises(ValueError, match=r"those of step.present\(modality\)"):
        trainer.fit(data.train, data.val)
