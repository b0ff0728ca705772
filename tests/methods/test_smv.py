import copy
from itertools import combinations
from math import comb

import pytest
import torch
from torch import nn

from counterpoise.build import build_model
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import Observer, Step, Trainer
from counterpoise.methods.smv import SMV
from counterpoise.testing import CHECKS, check_method

AV, AVT = ("audio", "video"), ("audio", "video", "text")


def encoder():
    net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU())
    net.dim = 8
    return net


def split(size=64, seed=0, names=AV, present=None):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (size,), generator=g)
    x = {m: nn.functional.one_hot(y, 3) * (3 - i) + torch.randn(size, 3, generator=g) for i, m in enumerate(names)}
    return ArraySplit(x, y, ("x", "y", "z"), present=present)


def trainer(method, names=AV, fusion="Concat", epochs=4, data=None, **settings):
    torch.manual_seed(0)
    model = build_model({m: encoder() for m in names}, fusion, num_classes=3)
    t = Trainer(model, method, epochs=epochs, batch_size=16, accelerator="cpu", progress=False, **settings)
    if data is not None:
        t.current.open(data, data)
    return t


def perfect(names=AV, size=48):
    """Data and encoders of which every subset of the modalities is right."""
    y = torch.arange(size) % 3
    data = ArraySplit({m: nn.functional.one_hot(y, 3) * 9.0 for m in names}, y, ("x", "y", "z"))
    encoders = {m: nn.Flatten() for m in names}
    for net in encoders.values():
        net.dim = 3
    model = build_model(encoders, "Sum", num_classes=3)
    for head in model.fusion.own_heads.values():
        nn.init.eye_(head.weight)
        nn.init.zeros_(head.bias)
    return model, data


class Lists(Observer):
    """The training list that each epoch ran on."""

    def __init__(self):
        self.sizes = []

    def on_epoch_end(self, trainer, record):
        self.sizes.append(len(trainer.train_split) if trainer.rows.indices is None else len(trainer.rows.indices))


def reference(model, data):
    """Contributions from zeroed features of the concatenation, sample by sample."""
    names, there = model.modalities, data.present or {}
    values = []
    with torch.no_grad():
        for i in range(len(data)):
            has = {m for m in names if m not in there or there[m][i]}
            z = {m: model.encoders[m](data.inputs[m][i : i + 1]) for m in names}

            def v(s, i=i, has=has, z=z):
                logits = model.fusion.bias.clone()
                for m in names:
                    if m in s and m in has:
                        logits += model.fusion.blocks[m].weight @ z[m][0]
                return len(set(s) & has) * float(logits.argmax() == data.target[i])

            row = []
            for m in names:
                rest = [n for n in names if n != m]
                row.append(
                    sum(
                        (v({*s, m}) - (v(s) if s else 0)) / (len(names) * comb(len(rest), k))
                        for k in range(len(names))
                        for s in combinations(rest, k)
                    )
                )
            values.append(row)
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("names", [AV, AVT])
@pytest.mark.parametrize("lacking", [False, True])
def test_valuation_is_that_of_zeroed_features(names, lacking):
    present = {names[-1]: torch.arange(40) % 3 > 0} if lacking else None
    data = split(40, names=names, present=present)
    method = SMV()
    t = trainer(method, names, data=data)
    t.model.eval()
    phi = method.value(t.current, data)
    torch.testing.assert_close(phi, reference(t.model, data), atol=1e-12, rtol=0)
    assert len({tuple(row) for row in phi.tolist()}) > 2  # batches differ: nothing is reused from the first
    if lacking:
        assert phi[~present[names[-1]], -1].abs().max() < 1e-12


def test_valuation_leaves_the_model_as_it_was():
    data = split()
    method = SMV()
    t = trainer(method, data=data)
    t.model.train()
    before, random = copy.deepcopy(t.model.state_dict()), torch.get_rng_state()
    method.value(t.current, data)
    assert all(torch.equal(before[k], v) for k, v in t.model.state_dict().items())
    assert all(module.training for module in t.model.modules())
    assert all(p.grad is None for p in t.model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_by_sample_rebuilds_the_list_from_the_data():
    data = split()
    method = SMV(warmup=1)
    t = trainer(method, data=data)
    method.on_epoch_end(t.current, {})
    first = t.current.rows.indices, t.current.rows.present
    method.on_epoch_end(t.current, {})
    assert torch.equal(first[0], t.current.rows.indices)
    assert all(torch.equal(first[1][m], t.current.rows.present[m]) for m in AV)
    phi = method.value(t.current, data)
    copies = (phi < 0.99).long() + (phi < 0.4) + (phi < -0.1)
    assert len(t.current.rows.indices) == len(data) + copies.sum() > len(data)
    assert torch.equal(t.current.rows.indices[: len(data)], torch.arange(len(data)))
    for i, m in enumerate(AV):
        other = AV[1 - i]
        only = t.current.rows.present[m] & ~t.current.rows.present[other]
        assert torch.equal(t.current.rows.indices[only].bincount(minlength=len(data)), copies[:, i])


@pytest.mark.parametrize("names", [AV, AVT])
@pytest.mark.parametrize("granularity", ["sample", "modality"])
def test_a_perfect_model_gets_no_copies(names, granularity):
    model, data = perfect(names)
    method = SMV(granularity, warmup=1)
    t = Trainer(model, method, epochs=3, batch_size=16, accelerator="cpu", progress=False)
    t.current.open(data, data)
    t.current.resample(torch.arange(5))
    method.on_epoch_end(t.current, {})
    assert t.current.rows.indices is None
    assert t.current.rows.present is None


def test_absent_modalities_are_never_shown():
    there = torch.arange(64) % 2 == 0
    data = split(present={"video": there})
    for granularity in ("sample", "modality"):
        method = SMV(granularity, warmup=1, part=1.0)
        t = trainer(method, data=data)
        method.on_epoch_end(t.current, {})
        only = t.current.rows.present["video"] & ~t.current.rows.present["audio"]
        assert only.any()
        assert there[t.current.rows.indices[only]].all()
        assert (t.current.rows.present["audio"] | t.current.rows.present["video"]).all()
        assert not (t.current.rows.present["video"] & ~there[t.current.rows.indices]).any()


def test_by_modality_shows_only_the_weaker_one():
    model, data = perfect(size=60)
    nn.init.zeros_(model.fusion.own_heads["video"].weight)
    model.fusion.own_heads["video"].bias.data.copy_(torch.tensor([1.0, 0.0, 0.0]))  # right on a third
    method = SMV("modality", warmup=1, part=1.0, alpha=0.5)
    t = Trainer(model, method, epochs=3, batch_size=16, accelerator="cpu", progress=False)
    t.current.open(data, data)
    drawn = torch.randint(60, (60,), generator=torch.Generator().set_state(t.current.generator.get_state()))
    wrong = (data.target[drawn] != 0).double().mean()  # there the values are 3/2 and 1/2, else 1 and 1
    method.on_epoch_end(t.current, {})
    extra = int(2 / 3 * 0.5 * wrong * 60 + 1e-6)
    assert len(t.current.rows.indices) == 60 + extra > 60
    assert t.current.rows.present["video"].all()
    assert t.current.rows.present["audio"].sum() == 60


def test_by_modality_draws_from_the_trainers_generator():
    def rows(seed):
        method = SMV("modality", warmup=1)
        t = trainer(method, data=split(), seed=seed)
        torch.manual_seed(seed + 7)
        t.current.generator.manual_seed(seed % 2)
        method.on_epoch_end(t.current, {})
        return t.current.rows.indices

    assert torch.equal(rows(0), rows(2))
    assert not torch.equal(rows(0), rows(1))


def test_a_copy_gives_no_gradient_to_what_it_hides():
    data = split()
    t = trainer(SMV(), data=data)
    shown = {"audio": torch.zeros(32, dtype=torch.bool), "video": torch.ones(32, dtype=torch.bool)}
    batch = next(t.current.loaders.get(data).batches(AV, rows=torch.arange(32), visible=shown))
    t.method.objective(Step(t.current, batch, 0, 1)).backward()
    assert all(p.grad is None or not p.grad.any() for p in t.model.encoders["audio"].parameters())
    assert all(p.grad.any() for p in t.model.encoders["video"].parameters() if p.ndim > 1)


@pytest.mark.parametrize("granularity", ["sample", "modality"])
def test_the_list_changes_after_warmup_and_not_before(granularity):
    seen = Lists()
    t = trainer(SMV(granularity, warmup=2), epochs=5, observers=[seen])
    t.fit(split(), split(32, 1))
    assert seen.sizes[0] == 64
    assert all(size > 64 for size in seen.sizes[1:4])  # built after the last epoch of warm-up
    assert seen.sizes[4] == seen.sizes[3]  # and no more when nothing follows


def test_the_order_of_the_modalities_does_not_matter():
    data = split(names=AVT)
    one, other = trainer(SMV(), AVT, data=data), trainer(SMV(), AVT[::-1], data=data)
    other.model.load_state_dict({k: one.model.state_dict()[k] for k in other.model.state_dict()})
    a, b = one.method.value(one.current, data), other.method.value(other.current, data)
    torch.testing.assert_close(a, b.flip(1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "arguments", [{"granularity": "batch"}, {"warmup": 0}, {"part": 0.0}, {"part": 1.5}, {"alpha": -1.0}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SMV(**arguments)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("granularity", ["sample", "modality"])
def test_contract(check, granularity):
    check_method(lambda: SMV(granularity, warmup=1), checks=[check])
