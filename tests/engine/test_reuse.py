"""Frozen encoders, parts at rates of their own, and features that are computed once."""

import pytest
import torch

from counterpoise import build_model, methods
from counterpoise.data import from_arrays
from counterpoise.data.split import Split, Splits
from counterpoise.encoders import CNN, MLP, FineTuned, Frozen
from counterpoise.engine import SGD, Observer, StepDecay, Trainer
from counterpoise.engine.optim import parameter_groups
from counterpoise.engine.reuse import Encoded
from counterpoise.methods import Joint
from counterpoise.testing import assert_same, everything

torch.set_num_threads(1)


class Counting(Split):
    """Counts how often each modality of a sample is read."""

    def __init__(self, whole):
        self.whole, self.reads = whole, dict.fromkeys(whole.modalities, 0)
        self.modalities, self.classes, self.ids = whole.modalities, whole.classes, whole.ids
        self.target, self.present = whole.target, whole.present

    def batch(self, indices, modality, seed):
        self.reads[modality] += len(indices)
        x = self.whole.batch(indices, modality, seed)
        return x if seed is None else x + 100  # augmentation that nobody can overlook

    def fingerprint(self):
        return self.whole.fingerprint()


def data(absent=False):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    inputs = {
        "image": torch.randn(90, 1, 6, 6, generator=generator) + y.view(-1, 1, 1, 1),
        "sound": torch.randn(90, 5, generator=generator) + y.view(-1, 1),
    }
    present = {"image": torch.rand(90, generator=generator) > 0.3} if absent else None
    splits = from_arrays(inputs, y, val=0.2, test=0.2, present=present)
    return Splits(*(Counting(s) for s in (splits.train, splits.val, splits.test)))


def trainer(wrap, method=None, **options):
    torch.manual_seed(0)
    method = method or Joint()
    encoders = {"image": wrap(CNN(dim=8)), "sound": MLP(5, (8,), 8)}
    model = build_model(encoders, method.default_fusion, num_classes=3, heads=method.own_heads)
    options = {"epochs": 3, "batch_size": 18, "optimizer": SGD(lr=0.05), "progress": False, **options}
    return Trainer(model, method, accelerator="cpu", **options)


def reusing(encoder):
    return Frozen(encoder, reuse=True)


def test_inputs_of_a_frozen_encoder_are_read_once():
    splits = data()
    trainer(reusing).fit(splits.train, splits.val)
    assert splits.train.reads["image"] == len(splits.train) + 1  # one to see its shape
    assert splits.val.reads["image"] == len(splits.val) + 1
    assert splits.train.reads["sound"] == 3 * (len(splits.train) // 18 * 18)


@pytest.mark.parametrize("absent", [False, True])
def test_training_on_features_is_training_on_inputs_without_augmentation(absent):
    plain, splits = trainer(Frozen), data(absent)
    plain.fit(splits.train.whole, splits.val.whole)
    once = trainer(reusing)
    once.fit(splits.train.whole, splits.val.whole)
    a, b = everything(plain), everything(once)
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-5)
    # the trained model takes inputs as ever
    one, other = plain.evaluate(splits.test.whole), once.evaluate(splits.test.whole)
    assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_features_are_those_of_evaluation():
    splits, run = data(), trainer(reusing)
    run.fit(splits.train, splits.val)
    encoder = run.model.encoders["image"]
    expected = encoder.encoder(splits.train.whole.batch(range(len(splits.train)), "image", None))
    encoded = run.current.train_split
    assert isinstance(encoded, Encoded)
    torch.testing.assert_close(encoded.batch([3, 1], "image", 7), expected[[3, 1]], rtol=1e-4, atol=1e-5)
    assert torch.equal(encoded.batch([3], "sound", 7), splits.train.whole.batch([3], "sound", None) + 100)


def test_nothing_frozen_moves_and_fitting_again_agrees():
    splits, run = data(), trainer(reusing)
    before = {n: v.clone() for n, v in run.model.encoders["image"].state_dict().items()}
    run.fit(splits.train, splits.val)
    assert all(torch.equal(before[n], v) for n, v in run.model.encoders["image"].state_dict().items())
    reads = splits.train.reads["image"]
    run.fit()
    assert splits.train.reads["image"] == reads


def test_another_encoder_is_another_data_set():
    """So a run whose file of weights was replaced refuses to resume."""

    def changed(encoder):
        with torch.no_grad():
            encoder.layers[0].weight.mul_(2)
        return reusing(encoder)

    prints, splits = [], data()
    for wrap in (reusing, reusing, changed):
        run = trainer(wrap, epochs=1)
        run.fit(splits.train, splits.val)
        prints.append(run.current.train_split.fingerprint())
    assert prints[0] == prints[1] != prints[2]
    assert prints[0] != splits.train.fingerprint()


class Dies(Observer):
    """Inside the second epoch."""

    def on_batch_end(self, trainer):
        if trainer.epoch == 1:
            raise RuntimeError("died")


def test_a_run_of_features_resumes_exactly(tmp_path):
    splits, whole = data(), trainer(reusing)
    whole.fit(splits.train, splits.val)
    with pytest.raises(RuntimeError, match="died"):
        trainer(reusing, run_dir=tmp_path / "run", observers=[Dies()]).fit(splits.train, splits.val)
    again = trainer(reusing, run_dir=tmp_path / "run")
    again.fit(splits.train, splits.val, resume=True)
    assert_same(everything(whole), everything(again))


def test_vectors_as_wide_as_the_feature_are_refused():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    splits = from_arrays({"a": torch.randn(60, 8), "b": torch.randn(60, 2)}, y)
    encoders = {"a": Frozen(MLP(8, dim=8), reuse=True), "b": MLP(2, dim=8)}
    run = Trainer(build_model(encoders, num_classes=3), Joint(), epochs=1, batch_size=8, progress=False)
    with pytest.raises(ValueError, match=r"encoders\['a'\].*cannot tell the samples of 'a', vectors of 8 numbers"):
        run.fit(splits.train, splits.val)


WITH_OPTIONS = {
    "Unimodal": lambda: methods.Unimodal("image"),
    "OPM": lambda: methods.OPM(p=1, warmup=0),
    "SMV": lambda: methods.SMV(warmup=1),
}


@pytest.mark.parametrize("name", [n for n in methods.__all__ if isinstance(getattr(methods, n), type)])
@pytest.mark.parametrize("wrap", ["frozen", "features", "parts"])
def test_every_method_trains_beside_a_frozen_encoder(name, wrap):
    wrappers = {
        "frozen": Frozen,
        "features": reusing,
        "parts": lambda encoder: FineTuned(encoder, until="layers.8", lr={"layers.8": 0.1}),
    }
    make = WITH_OPTIONS.get(name, getattr(methods, name))
    run, splits = trainer(wrappers[wrap], make(), epochs=2), data()
    frozen = {
        n: v.clone()
        for n, v in run.model.encoders["image"].state_dict().items()
        if wrap != "parts" or n.startswith(("encoder.layers.0", "encoder.layers.1.", "encoder.layers.4"))
    }
    before = everything(run)
    run.fit(splits.train, splits.val)
    after = everything(run)
    assert all(torch.equal(v, after[f"model.encoders.image.{n}"]) for n, v in frozen.items())
    assert all(v.isfinite().all() for v in after.values() if v.is_floating_point())
    assert any(n not in before or not torch.equal(before[n], v) for n, v in after.items())


# -- rates -------------------------------------------------------------------------------------------------------------


def test_groups_keep_their_names_and_factors_multiply():
    seen = []

    class Watch(Joint):
        def on_epoch_start(self, trainer):
            if trainer.epoch == 2:
                trainer.rescale("image", 0.5)

        def step(self, step):
            if step.index == 0:
                groups = step._run.optimizer.param_groups
                seen.append({id(p): (g["name"], g["lr"]) for g in groups for p in g["params"]})
            return super().step(step)

    def wrap(encoder):
        return FineTuned(encoder, freeze=["layers.0"], lr={"all": 0.1, "layers.8": 0.01})

    run, splits = trainer(wrap, Watch(), optimizer=SGD(lr=0.02), schedule=StepDecay(every=1, gamma=0.5)), data()
    layers = run.model.encoders["image"].encoder.layers
    owner = {id(p): m for m in run.model.modalities for p in run.model.parameters_of(m)}
    run.fit(splits.train, splits.val)
    assert len(seen) == 3
    for epoch, rates in enumerate(seen):
        base = 0.02 * 0.5**epoch
        image = base * (0.5 if epoch == 2 else 1)
        special = {id(layers[4].weight): 0.1, id(layers[9].bias): 0.1, id(layers[8].weight): 0.01}
        assert id(layers[0].weight) not in rates
        for p, factor in special.items():
            assert rates[p] == ("image", pytest.approx(image * factor))
        inside = {id(p) for p in layers.parameters()}
        for p in set(rates) - inside:  # the head of the modality is not part of its encoder
            name = owner.get(p, "shared")
            assert rates[p] == (name, pytest.approx(image if name == "image" else base))
        assert {name for name, _ in rates.values()} >= {"image", "sound"}


def test_a_factor_scales_the_update():
    def moved(lr):
        run, splits = trainer(lambda e: FineTuned(e, lr=lr), epochs=1, batch_size=54, optimizer=SGD(1e-3, 0, 0)), data()
        before = everything(run)
        run.fit(splits.train, splits.val)
        after = everything(run)
        return {n: after[n] - before[n] for n in before if n.endswith(("weight", "bias"))}

    plain, scaled = moved({}), moved({"layers.4": 0.5, "layers.0": 0})
    first, middle = (f"model.encoders.image.encoder.layers.{i}.weight" for i in (0, 4))
    assert scaled[first].abs().max() == 0
    assert plain[first].abs().max() > 0
    torch.testing.assert_close(scaled[middle], plain[middle] / 2, rtol=1e-3, atol=1e-7)
    others = [n for n in plain if n not in (first, middle)]
    assert others
    for n in others:
        torch.testing.assert_close(scaled[n], plain[n])


def test_without_factors_a_modality_is_one_group():
    run = trainer(lambda e: e)
    ids = {id(p) for p in run.model.parameters()}
    groups = parameter_groups(run.model, run.method, ids)
    names = [g["name"] for g in groups]
    assert len(names) == len(set(names))
    assert {g["factor"] for g in groups} == {1.0}
