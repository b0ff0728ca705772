"""Objects as plain data and back."""

from __future__ import annotations

import inspect
import json
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import counterpoise.encoders as own_encoders
from counterpoise import fusions, methods
from counterpoise.data.readers import READERS, Array, Flow
from counterpoise.encoders import ENCODERS, MLP, Checkpointed, FineTuned, Frozen, Projected, ResNet18
from counterpoise.fusions import Fusion
from counterpoise.losses import LOSSES, Loss
from counterpoise.method import Method
from counterpoise.portable import NotPortableError, UntrustedError, foreign, made, written
from counterpoise.portable.alike import difference


def again(value: Any, kind: type = nn.Module, *, trust: bool = True) -> Any:
    """Through the text of a file."""
    return made(json.loads(json.dumps(written(value, "x"))), kind, trust=trust)


class Kept(nn.Module):
    """Keeps its arguments, and an activation."""

    def __init__(self, dim: int, act: Any = F.relu, *, sizes: tuple[int, ...] = (1,), names: dict | None = None):
        super().__init__()
        self.dim, self.act, self.sizes, self.names = dim, act, sizes, names
        self.layer = nn.Linear(dim, dim)


class Doubled(nn.Module):
    """Keeps another number under the name of its argument."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = 2 * dim
        self.scale = 0.5


class Forgetful(nn.Module):
    """Keeps nothing of the argument that it has a default for, under its name."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.drop = nn.Dropout(p)


class Deaf(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.layer = nn.Linear(dim, 2)


LAYERS = [
    nn.Linear(3, 2, bias=False),
    nn.Conv2d(3, 4, (3, 1), stride=2, padding=(1, 0), bias=False, padding_mode="reflect"),
    nn.BatchNorm2d(4, eps=1e-3, affine=False),
    nn.LayerNorm((3, 2), elementwise_affine=False),
    nn.Embedding(7, 3, padding_idx=1),
    nn.GRU(3, 5, num_layers=2, batch_first=True, bidirectional=True, bias=False),
    nn.LSTM(3, 5, proj_size=2),
    nn.RNN(3, 4, nonlinearity="relu"),
    nn.Dropout(0.25),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(inplace=True)),
    nn.ModuleDict({"a": nn.Linear(1, 2), "b": nn.ModuleList([nn.Identity()])}),
    Kept(3, F.gelu, sizes=(1, 2), names={"tuple": float("inf")}),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda m: type(m).__name__)
def test_layers_come_back(layer: nn.Module) -> None:
    found = again(layer)
    assert repr(found) == repr(layer)
    assert difference(layer, found) is None
    found.load_state_dict(layer.state_dict())


def test_modules_keep_their_names() -> None:
    from collections import OrderedDict

    found = again(nn.Sequential(OrderedDict(first=nn.Linear(2, 3), last=nn.ReLU())))
    assert list(found.state_dict()) == ["first.weight", "first.bias"]


def test_values_of_every_kind_come_back_as_they_were() -> None:
    found = again(Kept(2, torch.nn.functional.silu, sizes=(3, 4), names={"a": [1, (2.5, None)], "class_path": "b"}))
    assert (found.dim, found.sizes, found.names) == (2, (3, 4), {"a": [1, (2.5, None)], "class_path": "b"})
    assert found.act is F.silu


def test_every_loss_reader_and_method_of_the_package_keeps_its_arguments() -> None:
    needed = {"Unimodal": {"modality": "a"}}
    parts: list[tuple[Any, type]] = [(cls(), Loss) for cls in LOSSES.values()]
    parts += [(getattr(methods, n)(**needed.get(n, {})), Method) for n in methods.__all__]
    for part, kind in parts:
        values = written(part, "x")
        assert values["init_args"].keys() == inspect.signature(type(part).__init__).parameters.keys() - {
            "self",
            "args",
            "kwargs",
        }
        assert written(again(part, kind, trust=False), "x") == values
    for cls in READERS.values():
        reader = cls()
        assert again(reader, cls, trust=False).fingerprint() == reader.fingerprint()


@pytest.mark.parametrize("name", [name for name in fusions.__all__ if name != "Fusion"])
def test_every_fusion_comes_back(name: str) -> None:
    fusion = getattr(fusions, name)({"tuple": 8, "b": 8}, 3)
    found = again(fusion, Fusion, trust=False)
    assert found.dims == {"tuple": 8, "b": 8}
    assert {k: v.shape for k, v in found.state_dict().items()} == {k: v.shape for k, v in fusion.state_dict().items()}


def test_every_encoder_of_the_package_comes_back() -> None:
    assert set(ENCODERS) <= set(own_encoders.__all__)
    made_of = {
        "I3D": {}, "CNN": {"norm": "group", "dim": 16}, "MLP": {"in_dim": 3, "hidden": [4], "norm": False},
        "SequenceGRU": {"in_dim": 3}, "SequenceTransformer": {"in_dim": 3, "layers": 1}, "TextGRU": {"vocab_size": 5},
        "TextBag": {"vocab_size": 5, "padding": 1}, "ResNet18": {"channels": 1}, "ResNet50": {"output": "logits"},
    }  # fmt: skip
    encoders = [ENCODERS[name](**arguments) for name, arguments in made_of.items()]
    encoders += [
        FineTuned(ResNet18(), last=2, lr={"layer4": 0.1}),
        Checkpointed(MLP(3)),
        Frozen(MLP(3), reuse=True),
        Projected(nn.Sequential(MLP(4))[0], dim=6),
    ]
    for encoder in encoders:
        found = again(encoder, trust=False)
        assert difference(encoder, found) is None, type(encoder)


def test_where_weights_came_from_is_left_out(tmp_path) -> None:
    torch.save(ResNet18().net.state_dict(), tmp_path / "w.pt")
    values = written(ResNet18(weights=str(tmp_path / "w.pt")), "x")
    assert values["init_args"] == {"channels": 3, "weights": None}


def test_readers_learn_again_what_they_learnt(tmp_path) -> None:
    import numpy as np

    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    np.save(tmp_path / "flow.npy", np.zeros((4, 4, 2, 6)))
    for reader, file in ((Array(), "a.npy"), (Flow(size=2), "flow.npy")):
        reader.bind(str(tmp_path / file))
        found = again(reader, type(reader))
        found.learn(json.loads(json.dumps(reader.learnt())))
        assert (found.shape, found.kind) == (reader.shape, reader.kind)


def test_guessed_arguments_are_held_against_the_original() -> None:
    for layer, said in (
        (Doubled(3), "dim of the object is 6, and made again 12"),
        (Forgetful(0.25), "p of the module drop is 0.25, and made again 0.5"),
        (nn.TransformerEncoderLayer(4, 2), None),
    ):
        if said is None:
            with pytest.raises(NotPortableError, match="does not keep its argument 'd_model'"):
                written(layer, "encoder")
        else:
            assert difference(layer, again(layer)) == said


def test_one_value_twice_is_held_against_both() -> None:
    rate = float("0.5")
    mine, other = Kept(2), Kept(2)
    mine.rates, other.rates = [rate, rate], [float("0.5"), 0.25]  # type: ignore[assignment]
    assert "rates of the object is [0.5, 0.5], and made again [0.5, 0.25]" in str(difference(mine, other))


def test_patched_and_other_modules_are_seen() -> None:
    layer = nn.Linear(2, 2)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    assert "forward of the object" in str(difference(layer, again(layer)))
    buffered = Kept(2)
    buffered.register_buffer("mask", torch.ones(2), persistent=False)
    assert difference(buffered, again(buffered)) == "the buffer mask of the object differs"
    wider = nn.Sequential(nn.Linear(2, 2))
    wider[0].weight = nn.Parameter(torch.zeros(3, 2))
    assert "the tensor 0.weight" in str(difference(wider, again(wider)))


def local_class() -> nn.Module:
    class Net(nn.Module):
        pass

    return Net()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (local_class(), "local_class.<locals>.Net, defined inside a function"),
        (Kept(2, lambda x: x), "encoder.act is a lambda"),
        (Deaf(3), "does not keep its argument 'dim'; write self.dim = dim in its __init__"),
        (Kept(2, names={"a": torch.zeros(2)}), "encoder.names['a'] is an argument that is an array"),
    ],
)
def test_what_cannot_be_written_down_says_why(value: nn.Module, said: str) -> None:
    with pytest.raises(NotPortableError) as error:
        written(value, "encoder")
    assert said in str(error.value)


def test_nothing_of_strangers_is_imported_or_called(tmp_path, monkeypatch) -> None:
    (tmp_path / "stranger_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    strange = {"class_path": "stranger_module.Net", "init_args": {}}
    assert foreign([strange, {"class_path": "torch.nn.Linear"}]) == ["stranger_module.Net"]
    inside = {"class_path": "counterpoise.encoders.tuning.Frozen", "init_args": {"encoder": strange}}
    for values in (strange, inside):
        with pytest.raises(UntrustedError, match=r"stranger_module\.Net"):
            made(values, nn.Module)


@pytest.mark.parametrize(
    "path",
    [
        "torch.nn.functional.torch.hub.load",
        "counterpoise._files.os.system",
        "counterpoise.data.source.Table",
        "torch.nn.functional.relu",
        "counterpoise.engine.record.subprocess.Popen",
    ],
)
def test_paths_that_lead_out_are_not_followed(path: str) -> None:
    with pytest.raises(UntrustedError):
        made({"class_path": path, "init_args": {"path": "x"}}, nn.Module)
    if path != "torch.nn.functional.relu" and "Table" not in path:
        with pytest.raises(UntrustedError):
            made({"class_path": "torch.nn.Sequential", "args": [{"object": path}]}, nn.Module)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(NotPortableError, match="does not take the arguments"):
        made({"class_path": "counterpoise.encoders.mlp.MLP", "init_args": {"in_dim": -1}}, nn.Module)
    with pytest.raises(NotPortableError, match=r"no_such_module\.Net cannot be imported here"):
        made({"class_path": "no_such_module.Net"}, nn.Module, trust=True)
    with pytest.raises(ValueError, match="is no Fusion"):
        made({"class_path": "counterpoise.encoders.mlp.MLP", "init_args": {"in_dim": 1}}, Fusion)
    with pytest.raises(ValueError, match="described by its class_path"):
        made(None, Fusion)
    with pytest.raises(ValueError, match="'load' is no type of tensors"):
        made({"class_path": "counterpoise.encoders.mlp.MLP", "init_args": {"in_dim": {"dtype": "load"}}}, nn.Module)


def test_making_it_again_says_nothing_twice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again(methods.OGM(), Method)
