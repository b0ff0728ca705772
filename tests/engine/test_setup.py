"""What is refused before anything is trained, and in which words."""

import warnings

import pytest
import torch
from torch import nn

from counterpoise.build import build_model
from counterpoise.data import Splits, from_arrays
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import SGD, Cosine, Observer, Trainer, make_fabric
from counterpoise.method import Method
from counterpoise.methods import OGM, Joint
from counterpoise.testing import DIM, check_method, task, tiny_model, trainer_for
from counterpoise.types import Phase

TWO = ("first", "second")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be"),
        ({"epochs": -1}, "epochs must be"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"sam": -0.1}, "sam must be"),
        ({"sam": float("nan")}, "sam must be"),
        ({"clip_norm": 0}, "clip_norm must be"),
        ({"num_workers": -1}, "num_workers must be"),
        ({"monitor": "acuracy"}, "Did you mean 'accuracy'"),
        ({"metrics": ("f1",)}, "metric 'f1'"),
        ({"precision": "16-mixed"}, "16-mixed"),
        ({"devices": 0}, "devices must be"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(Joint, **options)


def test_a_method_of_two_modalities_refuses_one():
    with pytest.raises(ValueError, match=r"OGM needs at least 2 modalities; this model has 1 \(first\)"):
        trainer_for(OGM, ("first",))
    trainer, data = trainer_for(Joint, ("first",))
    trainer.fit(data.train, data.val)


@pytest.mark.parametrize("name", ["fused", "shared"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
        trainer_for(Joint, ("first", name))


def test_modalities_that_the_data_do_not_have():
    trainer, _ = trainer_for(Joint)
    data = task(("first", "third"))
    with pytest.raises(ValueError, match="The model has modality 'second', the data have first, third"):
        trainer.fit(data.train, data.val)


def test_another_number_of_classes():
    trainer, _ = trainer_for(Joint)
    y = torch.arange(60) % 5
    data = from_arrays({m: torch.randn(60, DIM) for m in TWO}, y)
    with pytest.raises(ValueError, match=r"The model has 3 classes, the data 5 .*num_classes=5"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("part", ["train", "val"])
def test_labels_out_of_range(label, part):
    trainer, data = trainer_for(Joint)
    rows = range(len(data.train))
    target = data.train.target.clone()
    target[4] = label
    bad = ArraySplit({m: data.train.batch(rows, m, None) for m in TWO}, target, data.train.classes)
    with pytest.raises(ValueError, match=rf"Labels must lie in 0..2; found {label}"):
        trainer.fit(**{"train": data.train, "val": data.val, part: bad})


def test_a_batch_larger_than_the_data():
    trainer, data = trainer_for(Joint, batch_size=100)
    with pytest.raises(ValueError, match=r"batch_size=100 is larger than the \d+ training samples"):
        trainer.fit(data.train, data.val)


def test_an_empty_split():
    trainer, data = trainer_for(Joint)
    with pytest.raises(ValueError, match="no samples"):
        trainer.fit(data.train, data.val.subset([]))


def test_divergence_is_named():
    trainer, data = trainer_for(Joint, optimizer=SGD(lr=1e30), norm=False)
    with pytest.raises(FloatingPointError, match=r"training loss of epoch 1 is (nan|inf).*lr=1e\+30"):
        trainer.fit(data.train, data.val)


def test_a_method_without_phases():
    class Nothing(Joint):
        def phase(self, index, trainer):
            return None

    trainer, data = trainer_for(Nothing)
    with pytest.raises(ValueError, match=r"Nothing.phase\(0\) is None"):
        trainer.fit(data.train, data.val)


def test_scores_before_fit():
    trainer, data = trainer_for(Joint)
    assert trainer.current.scores(data.val)["fused/accuracy"] >= 0
    with pytest.raises(ValueError, match="no split 'val' before fit"):
        trainer.current.scores("val")


def test_resuming_needs_a_directory():
    trainer, data = trainer_for(Joint)
    with pytest.raises(ValueError, match="needs a run_dir"):
        trainer.fit(data.train, data.val, resume=True)


def test_encoder_of_another_width_is_named():
    model = tiny_model(Joint(), TWO)
    model.encoders["second"] = nn.Linear(DIM, 9)
    trainer = Trainer(model, Joint(), accelerator="cpu", batch_size=18, progress=False)
    data = task(TWO)
    with pytest.raises(ValueError, match=r"encoders\['second'\] must give features"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1.5}, "epochs must be a whole number >= 1; got 1.5"),
        ({"batch_size": 16.0}, "batch_size must be a whole number >= 2; got 16.0"),
        ({"metrics": "accuracy"}, r"metrics must be a list of names, as \['accuracy'\]"),
        ({"optimizer": 0.1}, r"optimizer must be of the class Optimizer, such as SGD\(lr=0.05\); got 0.1"),
        ({"optimizer": "adamm"}, "Unknown optimizer 'adamm'. Did you mean 'Adam'"),
        ({"optimizer": "LBFGS"}, "LBFGS cannot train here: it evaluates the loss several times a step"),
        ({"schedule": Cosine}, r"schedule must be of the class Schedule, such as Cosine\(\)"),
        ({"schedule": "cosin"}, "Unknown schedule 'cosin'. Did you mean 'Cosine'"),
        (
            {"schedule": "Milestones"},
            r"schedule='Milestones' needs options: .*'factors'. Pass Milestones\(...\) itself",
        ),
        ({"loss": "focul"}, "Unknown loss 'focul'. Did you mean 'Focal'"),
        ({"observers": [print]}, "observers must be made from subclasses of counterpoise.engine.Observer"),
        ({"observers": Observer()}, "put the observer in brackets"),
        ({"accelerator": "gpuu"}, "Unknown accelerator 'gpuu'. Did you mean 'gpu'"),
    ],
)
def test_arguments_of_another_kind(options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(tiny_model(Joint(), TWO), Joint(), **{"accelerator": "cpu", "progress": False, **options})


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ValueError, match=r"accelerator='gpu' asks for a GPU, and PyTorch finds none.*'cpu', or 'auto'"):
        make_fabric(accelerator="gpu")


class Forgetful(Method):
    def __init__(self):
        self.alpha = 1.0


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Joint, r"method must be of the class Method, such as one of counterpoise\.methods; got the class Joint"),
        ("Jont", "Unknown method 'Jont'. Did you mean 'Joint'"),
        (Forgetful(), r"Forgetful.__init__ must call super\(\).__init__\(\)"),
    ],
)
def test_what_is_no_method(method, message):
    with pytest.raises(ValueError, match=message):
        Trainer(tiny_model(Joint(), TWO), method, progress=False)


def test_parts_and_wholes_of_a_data_set():
    trainer, data = trainer_for(Joint)
    for ask, message in (
        (lambda: trainer.run(data.train), "run takes a whole data set"),
        (lambda: trainer.fit(data), "One part of the data set is needed"),
        (lambda: trainer.fit(data.train), "val is missing"),
        (lambda: trainer.fit({"first": 1}, data.val), "A split of a data set is needed here, .*got dict"),
        (lambda: trainer.predict(data), "One part of the data set is needed"),
        (lambda: trainer.evaluate({"first": 1}), "A split of a data set is needed"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()


def test_a_class_that_no_training_sample_has():
    y = torch.arange(60) % 3
    split = ["train" if i < 40 and y[i] < 2 else "val" for i in range(60)]
    data = from_arrays({m: torch.randn(60, DIM) for m in TWO}, y, split=split)
    trainer, _ = trainer_for(Joint, epochs=1)
    with pytest.warns(UserWarning, match="No training sample has the class '2', validation samples have"):
        trainer.fit(data.train, data.val)


def test_a_modality_that_no_training_sample_has():
    y = torch.arange(60) % 3
    split = ["train" if i < 40 else "val" for i in range(60)]
    inputs = {m: torch.randn(60, DIM) for m in TWO}
    for mask in (torch.arange(60) >= 40, torch.arange(60) % 2 == 0):
        data = from_arrays(inputs, y, split=split, present={TWO[1]: mask})
        trainer, _ = trainer_for(Joint, epochs=1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            trainer.fit(data.train, data.val)
        found = [str(w.message) for w in said if "No training sample has the modality" in str(w.message)]
        assert len(found) == (not mask[:40].any())
        assert all(repr(TWO[1]) in text and repr(TWO[0]) not in text for text in found)


class NoLoss(Joint):
    def loss(self, output, step):
        super().loss(output, step)


class PerSample(Joint):
    def loss(self, output, step):
        return step.losses(output.logits, step.batch.target)


class ReturnsNothing(Joint):
    def step(self, step):
        super().step(step)


class NumberOfEpochs(Joint):
    def phase(self, index, trainer):
        return 3 if index == 0 else None


class OneText(Joint):
    def phase(self, index, trainer):
        return Phase(1, train="first") if index == 0 else None


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (NoLoss, "loss must be a tensor of one number, .*got None"),
        (PerSample, r"loss must be a tensor of one number, .*got a tensor of shape \(18,\)"),
        (ReturnsNothing, "What ReturnsNothing.step returns must be a tensor of one number.*got None"),
        (NumberOfEpochs, "NumberOfEpochs.phase must return a Phase or None; got 3"),
        (OneText, r"Modalities come as a tuple: \('first',\)"),
    ],
)
def test_what_a_method_of_ones_own_forgets(method, message):
    trainer, data = trainer_for(method)
    with pytest.raises(ValueError, match=message):
        trainer.fit(data.train, data.val)


def test_an_encoder_that_does_not_fit_the_samples_is_named():
    encoders = {"first": nn.Linear(DIM + 1, 4), "second": nn.Linear(DIM, 4)}
    for encoder in encoders.values():
        encoder.dim = 4
    trainer = Trainer(build_model(encoders, num_classes=3), Joint(), batch_size=18, accelerator="cpu", progress=False)
    data = task(TWO)
    with pytest.raises(ValueError, match=rf"encoders\['first'\] \(Linear\) fails on samples of shape \({DIM},\): "):
        trainer.fit(data.train, data.val)


def test_the_contract_suite_asks_for_what_makes_methods():
    with pytest.raises(ValueError, match=r"make must build a fresh method each time: pass the class Joint, or lambda"):
        check_method(Joint())


def test_a_test_split_that_training_has_seen_is_refused():
    trainer, data = trainer_for(Joint, epochs=1)
    everyone = range(len(data.val))
    for splits, name in (
        (Splits(data.train, data.val, data.val), "val"),
        (Splits(data.train, data.val, data.train), "train"),
        (Splits(data.train, data.val.subset(everyone), data.val.subset(everyone)), "val"),
    ):
        with pytest.raises(ValueError, match=rf"The test split is the {name} split.*Splits\(train, val\)"):
            trainer.run(splits)
    assert trainer.current.epoch == 0
    assert trainer.run(Splits(data.train, data.val))["test"] is None
