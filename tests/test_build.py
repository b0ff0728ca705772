from functools import partial

import pytest
import torch
from torch import nn

from counterpoise import fusions
from counterpoise.build import build_model
from counterpoise.data import from_arrays
from counterpoise.data.split import Split
from counterpoise.encoders import MLP, SequenceGRU
from counterpoise.fusions import Concat, Late

torch.set_num_threads(1)


class Arrays(Split):
    def __init__(self, inputs, present=None):
        n = len(next(iter(inputs.values())))
        self.inputs, self.modalities, self.classes = inputs, tuple(inputs), ("x", "y")
        self.ids, self.target, self.present = [str(i) for i in range(n)], torch.zeros(n, dtype=torch.int64), present
        self.asked = []

    def batch(self, indices, modality, seed):
        self.asked.append((list(indices), modality, seed))
        return self.inputs[modality][indices]

    def fingerprint(self):
        return ""


@pytest.mark.parametrize("name", [name for name in fusions.__all__ if name != "Fusion"])
@pytest.mark.parametrize("heads", [False, True])
def test_every_fusion_by_name(name, heads):
    model = build_model({m: MLP(3, dim=8) for m in "ab"}, name, num_classes=5, heads=heads)
    assert type(model.fusion) is getattr(fusions, name)
    assert model.fusion.heads is heads
    assert model({m: torch.randn(4, 3) for m in "ab"}).logits.shape == (4, 5)


def test_concat_is_the_default():
    assert type(build_model({"a": MLP(3)}, num_classes=2).fusion) is Concat


def test_a_callable_and_an_instance():
    encoders = {"a": MLP(3, dim=8), "b": MLP(3, dim=6)}
    model = build_model(encoders, partial(Late, rule="sum", hidden=()), num_classes=2)
    assert model.fusion.rule == "sum"
    fusion = Concat({"a": 8, "b": 6}, 2)
    assert build_model(encoders, fusion, num_classes=2).fusion is fusion


def test_an_instance_that_does_not_fit():
    with pytest.raises(ValueError, match=r"\{'a': 9\} and 2 classes, the encoders give \{'a': 8\}"):
        build_model({"a": MLP(3, dim=8)}, Concat({"a": 9}, 2), num_classes=2)
    with pytest.raises(ValueError, match="num_classes is 3"):
        build_model({"a": MLP(3, dim=8)}, Concat({"a": 8}, 2), num_classes=3)
    with pytest.raises(ValueError, match="too late"):
        build_model({"a": MLP(3, dim=8)}, Concat({"a": 8}, 2), num_classes=2, heads=True)


@pytest.mark.parametrize(("name", "near"), [("concatt", "Concat"), ("Gate", "Gated"), ("Fusion", "Known")])
def test_an_unknown_fusion_names_the_nearest(name, near):
    with pytest.raises(ValueError, match=near):
        build_model({"a": MLP(3)}, name, num_classes=2)


def test_no_encoders():
    with pytest.raises(ValueError, match="at least one modality"):
        build_model({}, num_classes=2)


def test_the_width_is_read_off_or_measured():
    encoders = {"a": MLP(3, dim=8), "b": nn.Sequential(nn.Linear(4, 7), nn.ReLU())}
    split = Arrays({"a": torch.randn(5, 3), "b": torch.randn(5, 4)})
    model = build_model(encoders, num_classes=2, example=split)
    assert model.fusion.dims == {"a": 8, "b": 7}
    assert split.asked == [([0, 1], "b", None)]


def test_measuring_leaves_the_encoder_as_it_was():
    encoder = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 7))
    encoder[1].eval()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    random = torch.get_rng_state()
    build_model({"a": encoder}, "Sum", num_classes=2, example=Arrays({"a": torch.randn(1, 4)}))
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert [m.training for m in encoder] == [True, False, True]
    assert all(p.grad is None for p in encoder.parameters())
    torch.set_rng_state(random)
    measured = build_model({"a": encoder}, "Sum", num_classes=2, example=Arrays({"a": torch.randn(1, 4)}))
    assert measured.fusion.dims == {"a": 7}


def test_lazy_layers_are_initialised_by_measuring():
    model = build_model({"a": nn.LazyLinear(7)}, num_classes=2, example=Arrays({"a": torch.randn(3, 4)}))
    assert model.encoders["a"].in_features == 4


def test_absent_samples_are_not_measured():
    x = torch.randn(5, 4)
    split = Arrays({"a": x}, {"a": torch.tensor([False, False, True, False, True])})
    build_model({"a": nn.Linear(4, 7)}, num_classes=2, example=split)
    assert split.asked[0][0] == [2, 4]
    with pytest.raises(ValueError, match="no sample has modality 'a'"):
        build_model(
            {"a": nn.Linear(4, 7)}, num_classes=2, example=Arrays({"a": x}, {"a": torch.zeros(5, dtype=torch.bool)})
        )


@pytest.mark.parametrize("dim", [None, True, 0, "12"])
def test_a_width_that_cannot_be_found(dim):
    encoder = nn.Linear(4, 7)
    encoder.dim = dim
    with pytest.raises(ValueError, match=r"encoders\['sound'\] \(Linear\).*encoder\.dim.*example="):
        build_model({"sound": encoder}, num_classes=2)


def test_measuring_what_does_not_fit():
    x = torch.randn(3, 2, 4)
    with pytest.raises(ValueError, match=r"encoders\['a'\].*\(batch, dim\); got \(2, 2, 7\)"):
        build_model({"a": nn.Linear(4, 7)}, num_classes=2, example=Arrays({"a": x}))
    with pytest.raises(ValueError, match=r"fails on samples of shape \(2, 4\)"):
        build_model({"a": nn.Linear(5, 7)}, num_classes=2, example=Arrays({"a": x}))
    with pytest.raises(ValueError, match="Did you mean 'sound'"):
        build_model({"sond": nn.Linear(4, 7)}, num_classes=2, example=Arrays({"sound": x}))


@pytest.mark.parametrize(
    ("encoders", "classes", "message"),
    [
        ([nn.Flatten()], 3, "encoders must map modalities to modules.*got list"),
        (
            {"a": nn.Flatten},
            3,
            r"encoders\['a'\] must be an nn.Module; got the class Flatten; make one: Flatten",
        ),
        ({"a": lambda x: x}, 3, r"encoders\['a'\] must be an nn.Module; got function"),
        ({"a": MLP(3)}, "3", "num_classes must be a whole number >= 2; got '3'"),
    ],
)
def test_what_makes_no_model_is_named(encoders, classes, message):
    with pytest.raises(ValueError, match=message):
        build_model(encoders, num_classes=classes)


def test_a_seed_makes_the_same_weights_and_leaves_the_generator_alone():
    encoders = {"a": lambda: MLP(3, dim=8), "b": lambda: MLP(4, dim=8)}
    before = torch.get_rng_state()
    first, again, other = (build_model(encoders, "Late", num_classes=2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    build_model(encoders, num_classes=2)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("encoders", "fusion", "name"),
    [
        ({"a": MLP(3), "b": lambda: MLP(3)}, "Concat", "a"),
        ({"a": lambda: MLP(3, dim=8)}, Concat({"a": 8}, 2), "fusion"),
    ],
)
def test_a_seed_for_what_is_made_already_is_refused(encoders, fusion, name):
    with pytest.raises(ValueError, match=rf"seed=0 comes too late for '{name}', which is made already"):
        build_model(encoders, fusion, num_classes=2, seed=0)


@pytest.mark.parametrize("make", [partial(MLP, 3, dim=7), lambda dim=7: MLP(3, dim=dim), lambda **_: MLP(3, dim=7)])
def test_what_makes_an_encoder_may_have_arguments_with_defaults(make):
    assert build_model({"a": make}, num_classes=2).fusion.dims == {"a": 7}


def test_what_makes_an_encoder_must_make_one():
    with pytest.raises(ValueError, match=r"encoders\['a'\] must be an nn.Module; got int"):
        build_model({"a": lambda: 3}, num_classes=2)  # type: ignore[dict-item]


def data_of(kind="classes"):
    generator = torch.Generator().manual_seed(0)
    inputs = {"acc": torch.randn(60, 20, 3, generator=generator), "age": torch.randn(60, 1, generator=generator)}
    y = torch.arange(60) % 3 if kind == "classes" else torch.randn(60, generator=generator)
    return from_arrays(inputs, y, task="regression" if kind == "numbers" else None)


def test_encoders_by_name_get_what_the_example_has():
    model = build_model({"acc": "sequencegru", "age": "MLP"}, "late", example=data_of())
    assert type(model.encoders["acc"]) is SequenceGRU
    assert model({"acc": torch.zeros(2, 20, 3), "age": torch.zeros(2, 1)}).logits.shape == (2, 3)
    assert type(model.fusion) is Late


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_data_set_gives_encoders_and_task(kind):
    data = data_of(kind)
    for given in (data, data.val):
        model = build_model(given, seed=1)
        assert {m: type(e) for m, e in model.encoders.items()} == {"acc": SequenceGRU, "age": MLP}
        assert model.task == data.task
    again = build_model(data, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("encoders", "example", "message"),
    [
        ({"acc": "SequenceGRUU"}, True, r"encoders\['acc'\]: Unknown encoder 'SequenceGRUU'. Did you mean 'Sequence"),
        ({"acc": "MLP"}, False, r"what MLP gets is not known. Pass example=data, or make it: MLP\(...\)"),
        ({"ac": "MLP"}, True, "encoders: Unknown modality 'ac'. Did you mean 'acc'"),
        ({"acc": "timm"}, True, r"encoders\['acc'\]: Timm needs options: .*'name'.* Pass Timm\(...\) itself"),
    ],
)
def test_names_that_make_no_encoder(encoders, example, message):
    with pytest.raises(ValueError, match=message):
        build_model(encoders, **({"example": data_of()} if example else {"num_classes": 3}))
