"""Which layers IGM modifies: shares, names, convolutions, heads of different length."""

from __future__ import annotations

import pytest
import torch
from test_igm import Watch
from torch import nn

from counterpoise.build import build_model
from counterpoise.data.arrays import from_arrays
from counterpoise.engine import Trainer
from counterpoise.fusions import Late
from counterpoise.methods._layers import branch_layers, layers_in_scope, partners
from counterpoise.methods.igm import IGM
from counterpoise.model import MultimodalModel
from counterpoise.testing import (
    NAMES,
    tiny_model,
)


def convolutional(m, channels):
    torch.manual_seed(len(m))
    return nn.Sequential(
        nn.Conv1d(channels, 4, 3),
        nn.ReLU(),
        nn.Conv1d(4, 4, 3, stride=2, padding=1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )


def conv_data():
    generator = torch.Generator().manual_seed(0)
    x = {"a": torch.randn(48, 2, 12, generator=generator), "b": torch.randn(48, 3, 12, generator=generator)}
    return from_arrays(x, torch.arange(48) % 3, split=["train"] * 36 + ["val"] * 12)


def conv_trainer(method, **options):
    data = conv_data()
    encoders = {"a": convolutional("a", 2), "b": convolutional("b", 3)}
    model = build_model(encoders, "Late", num_classes=3, example=data.train)
    watch = Watch()
    options = {"epochs": 2, "batch_size": 12, "observers": [watch], "progress": False, **options}
    return Trainer(model, method, accelerator="cpu", **options), data, watch


def test_convolutions_are_modified_only_in_scope():
    trainer, data, watch = conv_trainer(IGM(tau=2.0))
    trainer.fit(data.train, data.val)
    assert {k.split(":")[1] for k in watch.matrices[-1]} == {"head/0", "head/2", "head/3"}
    trainer, data, watch = conv_trainer(IGM(tau=2.0, scope=1.0))
    trainer.fit(data.train, data.val)
    # The first convolutions see 2 and 3 channels: they have no partner.
    assert {k.split(":")[1] for k in watch.matrices[-1]} == {"encoder/2", "head/0", "head/2", "head/3"}
    assert watch.matrices[-1]["matrices.b:encoder/2"].shape == (2, 6, 6)


def test_convolution_gradient_is_multiplied_by_its_matrix():
    """Plain SGD, one step: the weight moves by lr * G T, computed here by hand from the unfolded inputs."""
    trainer, data, watch = conv_trainer(IGM(tau=2.0, sam="off", scope=["encoder.2"]), epochs=2, batch_size=36)
    trainer.current.optimizer_settings.momentum = trainer.current.optimizer_settings.weight_decay = 0.0
    trainer.fit(data.train, data.val)
    free, _, plain = conv_trainer(IGM(sam="off", gm=False), epochs=2, batch_size=36)
    free.current.optimizer_settings.momentum = free.current.optimizer_settings.weight_decay = 0.0
    free.fit(data.train, data.val)
    name = "encoders.b.2.weight"
    step = (plain.states[2][name] - plain.states[1][name]).view(2, 2, 6)
    taken = (watch.states[2][name] - watch.states[1][name]).view(2, 2, 6)

    a = convolutional("a", 2)
    a.load_state_dict({k.removeprefix("encoders.a."): v for k, v in watch.states[1].items() if "encoders.a" in k})
    x = data.train.batch(range(len(data.train)), "a", None)
    mean = torch.nn.functional.pad(a[:2](x).mean(0), (1, 1))  # channels, length
    windows = torch.stack([mean[:, i : i + 3] for i in range(0, mean.shape[1] - 2, 2)]).double()
    for group in range(2):
        rows = windows[:, 2 * group : 2 * group + 2].flatten(1)
        values, V = torch.linalg.eigh(rows.T @ rows)
        s = torch.exp(-2.0 * (values - values.min()) / (values.max() - values.min()))
        T = (V @ torch.diag(s) @ V.T).float()
        torch.testing.assert_close(taken[group], step[group] @ T, rtol=1e-3, atol=1e-7)
        assert not torch.allclose(taken[group], step[group], rtol=1e-2, atol=1e-6)


def test_share_of_the_parameters_counts_from_the_output():
    model = conv_trainer(IGM())[0].model
    layers = branch_layers(model, "a")
    assert list(layers) == ["encoder.0", "encoder.2", "head.0", "head.2", "head.3"]
    sizes = {n: sum(p.numel() for p in layer.parameters()) for n, layer in layers.items()}
    total = sum(sizes.values())
    assert layers_in_scope(model, "a", 0.0) == []
    assert layers_in_scope(model, "a", sizes["head.3"] / total) == ["head.3"]
    assert set(layers_in_scope(model, "a", 1.0)) == set(layers)
    between = (sizes["head.3"] + sizes["head.2"] * 0.6) / total
    assert layers_in_scope(model, "a", between) == ["head.3", "head.2"]
    assert layers_in_scope(model, "a", "head") == ["head.0", "head.2", "head.3"]


def test_shares_of_the_papers_network():
    """Cumulative shares of ResNet-18 and its head: 1.31 % the head, 22.15 % with the last convolution."""
    from torchvision.models import resnet18

    encoder = resnet18()
    encoder.fc = nn.Identity()
    model = MultimodalModel({"audio": encoder}, Late({"audio": 512}, 6))
    head = ["head.3", "head.2", "head.0"]
    assert layers_in_scope(model, "audio", 0.013) == head
    assert layers_in_scope(model, "audio", 0.3) == [*head, "encoder.layer4.1.conv2"]
    deep = [*head, "encoder.layer4.1.conv2", "encoder.layer4.1.conv1", "encoder.layer4.0.downsample.0"]
    assert layers_in_scope(model, "audio", 0.5) == deep


def test_heads_pair_from_the_output_when_one_is_longer():
    model = tiny_model(IGM(), NAMES[:2])
    head = model.fusion.own_heads["second"]
    model.fusion.own_heads["second"] = nn.Sequential(nn.Linear(5, 5), *head)
    assert partners(model, "first", "second") == {
        "encoder.0": "encoder.0",
        "encoder.3": "encoder.3",
        "head.1": "head.0",
        "head.3": "head.2",
        "head.4": "head.3",
    }


def test_nothing_to_pair_names_what_there_is():
    data = conv_data()
    encoders = {"a": nn.Sequential(nn.Flatten(), nn.Linear(24, 4)), "b": nn.Sequential(nn.Flatten(), nn.Linear(36, 5))}
    model = build_model(
        encoders, lambda dims, classes, heads=False: Late(dims, classes, hidden=()), num_classes=3, example=data.train
    )
    trainer = Trainer(model, IGM(), epochs=2, batch_size=12, accelerator="cpu", progress=False)
    with pytest.raises(ValueError, match=r"b has inputs.*Pairs there are: none.*directions"):
        trainer.fit(data.train, data.val)
