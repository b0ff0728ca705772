import copy

import pytest
import torch
from torch import nn

from counterpoise._checks import settings
from counterpoise.encoders import (
    CNN,
    I3D,
    MLP,
    FineTuned,
    Frozen,
    ResNet18,
    SequenceTransformer,
    TextBag,
    Timm,
    Transformers,
)

torch.set_num_threads(1)


def trainable(encoder):
    """Names inside the wrapped network of what trains."""
    return {n.removeprefix("encoder.").removeprefix("net.") for n, p in encoder.named_parameters() if p.requires_grad}


def training(encoder):
    return {n.removeprefix("encoder.").removeprefix("net.") for n, m in encoder.named_modules() if m.training}


def test_a_frozen_encoder_stays_as_it_is():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    encoder, x = Frozen(inner), torch.randn(8, 3)
    before = copy.deepcopy(encoder.state_dict())
    expected = inner.eval()(x)
    assert encoder.train() is encoder
    nn.ModuleDict({"image": encoder}).train()  # as part of a model
    assert torch.equal(encoder(x), expected)
    assert not encoder(x).requires_grad
    assert not encoder.training
    assert not any(m.training for m in encoder.modules())
    assert all(torch.equal(before[n], v) for n, v in encoder.state_dict().items())


def test_gradients_pass_through_what_is_frozen():
    """Methods may ask for the gradient of an input or of a part before it."""
    x = torch.randn(2, 3, requires_grad=True)
    Frozen(nn.Linear(3, 4))(x).sum().backward()
    assert x.grad is not None


def test_frozen_says_how_wide_it_is_if_it_is_known():
    assert Frozen(MLP(3, dim=7)).dim == 7
    assert not hasattr(Frozen(nn.Linear(3, 7)), "dim")
    with pytest.raises(ValueError, match=r"set Linear\.dim"):
        Frozen(nn.Linear(3, 7), reuse=True)
    encoder = MLP(3, dim=7)
    assert settings(Frozen(encoder, reuse=True)) == {"encoder": encoder, "reuse": True, "dtype": "float32"}


def test_features_are_told_from_inputs():
    encoder = Frozen(CNN(dim=8), reuse=True)
    z = encoder(torch.randn(2, 9, 9))
    assert z.shape == (2, 8)
    assert encoder(z) is z
    with pytest.raises(ValueError, match=r"samples of shape \(8,\)"):
        Frozen(CNN(dim=8))(z)


# -- in bfloat16 -----------------------------------------------------------------------------------------
BF16 = {
    "resnet": (lambda: ResNet18(1), torch.randn(4, 1, 24, 24)),
    "transformer": (lambda: SequenceTransformer(6, 8), torch.randn(4, 5, 6)),
    "cnn": (lambda: CNN(dim=8), torch.randn(4, 1, 12, 12)),
    "tokens": (lambda: TextBag(vocab_size=30, dim=8), torch.randint(1, 30, (4, 7))),
}


@pytest.mark.parametrize("name", BF16)
def test_a_frozen_encoder_in_bfloat16(name):
    make, x = BF16[name]
    torch.manual_seed(0)
    plain = make().train()
    plain(x)  # statistics that are not 0 and 1
    bytes_before = sum(p.numel() * p.element_size() for p in plain.parameters() if p.ndim > 1)
    half = Frozen(copy.deepcopy(plain), dtype="bfloat16")
    assert 2 * sum(p.numel() * p.element_size() for p in half.parameters() if p.ndim > 1) == bytes_before
    assert all(b.dtype != torch.bfloat16 for b in half.buffers())
    want, got = Frozen(plain)(x), half(x)
    assert got.dtype == torch.float32
    assert not torch.equal(got, want)
    torch.testing.assert_close(got, want, rtol=0, atol=0.03 * float(want.abs().max()))
    again = Frozen(make(), dtype="bfloat16")
    again.load_state_dict(half.state_dict())
    assert torch.equal(again(x), got)
    half.prepare_export()
    assert all(p.dtype == torch.float32 for p in half.parameters())
    torch.testing.assert_close(half(x), want, rtol=0, atol=0.03 * float(want.abs().max()))


def test_which_precisions_there_are():
    with pytest.raises(ValueError, match="dtype"):
        Frozen(MLP(3), dtype="bfloat17")


RESNET = {"until": ("layer4", None), "last": (None, 1)}


@pytest.mark.parametrize("by", RESNET)
def test_all_but_the_last_stage_of_a_resnet(by):
    until, last = RESNET[by]
    encoder = FineTuned(ResNet18(1), until=until, last=last).train()
    names = trainable(encoder)
    assert names == {n for n, _ in encoder.encoder.net.named_parameters() if n.startswith("layer4.")}
    assert len(names) == 15
    modes = training(encoder)
    assert {"layer4", "layer4.0.bn1", "layer4.1.conv2"} <= modes
    assert not [n for n in modes if n.startswith(("conv1", "bn1", "layer1", "layer2", "layer3"))]


def test_statistics_of_the_frozen_part_do_not_move():
    torch.manual_seed(0)
    encoder = FineTuned(ResNet18(1), until="layer4").train()
    before = copy.deepcopy(encoder.state_dict())
    encoder(torch.randn(4, 1, 32, 32)).sum().backward()
    torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1).step()
    moved = {n for n, v in encoder.state_dict().items() if not torch.equal(v, before[n])}
    assert moved
    assert all(n.startswith("encoder.net.layer4.") for n in moved)
    assert "encoder.net.layer4.0.bn1.running_mean" in moved


def test_parts_are_whole_names():
    encoder = FineTuned(nn.ModuleDict({"layer1": nn.Linear(2, 2), "layer10": nn.Linear(2, 2)}), freeze=["layer1"])
    assert trainable(encoder) == {"layer10.weight", "layer10.bias"}


def test_a_part_in_the_middle_of_a_list_and_single_parameters():
    net = nn.Module()
    net.token = nn.Parameter(torch.zeros(1))
    net.stem = nn.Linear(2, 2)
    net.blocks = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Dropout()) for _ in range(3)])
    net.norm = nn.LayerNorm(2)
    encoder = FineTuned(net, until="blocks.2").train()
    assert trainable(encoder) == {"blocks.2.0.weight", "blocks.2.0.bias", "norm.weight", "norm.bias"}
    assert not net.blocks[1][1].training  # no dropout in what is frozen
    assert net.blocks[2][1].training
    assert trainable(FineTuned(copy.deepcopy(net), last=2)) == trainable(encoder)  # frozen stays frozen
    net.requires_grad_(True)
    assert trainable(FineTuned(net, freeze=["token", "norm"])) == {
        n for n, _ in net.named_parameters() if n.startswith(("stem", "blocks"))
    }


@pytest.mark.parametrize("options", [{"last": 0}, {"freeze": ["all"]}])
def test_everything_but_the_name(options):
    encoder = FineTuned(ResNet18(1), **options).train()
    assert trainable(encoder) == set()
    assert not any(m.training for m in encoder.encoder.modules())


def test_nothing():
    encoder = FineTuned(CNN(dim=8)).train()
    assert all(p.requires_grad for p in encoder.parameters())
    assert all(m.training for m in encoder.modules())
    assert encoder.dim == 8


def test_blocks_of_other_networks(tmp_path):
    assert {n.split(".")[0] for n in trainable(FineTuned(I3D(1), last=2))} == {"Mixed_5b", "Mixed_5c"}
    names = trainable(FineTuned(SequenceTransformer(4, 8, layers=3), last=1))
    # what is registered after the last block trains as well
    assert {n.rsplit(".", 1)[0] for n in names if n.startswith("blocks.norm")} == {"blocks.norm"}
    assert {n.split(".")[2] for n in names if n.startswith("blocks.layers")} == {"2"}
    assert not [n for n in names if n.startswith("project")]
    with pytest.raises(ValueError, match=r"blocks of CNN are not apparent.*until=.*layers"):
        FineTuned(CNN(), last=1)


def test_blocks_of_timm():
    pytest.importorskip("timm")
    assert {n.split(".")[0] for n in trainable(FineTuned(Timm("test_resnet"), last=1))} == {"layer4"}
    names = trainable(FineTuned(Timm("test_vit"), last=1))
    depth = len(Timm("test_vit").net.blocks)
    assert {n.split(".")[1] for n in names if n.startswith("blocks")} == {str(depth - 1)}
    assert not [n for n in names if n in ("cls_token", "pos_embed") or n.startswith("patch_embed")]


def test_blocks_of_bert(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    transformers.BertModel(transformers.BertConfig(vocab_size=20, **small)).save_pretrained(tmp_path)
    encoder = FineTuned(Transformers(str(tmp_path)), last=2).train()
    assert {".".join(n.split(".")[:3]) for n in trainable(encoder)} == {"encoder.layer.1", "encoder.layer.2"}
    dropouts = {n for n, m in encoder.named_modules() if isinstance(m, nn.Dropout) and m.training}
    assert dropouts
    assert all("layer.1." in n or "layer.2." in n for n in dropouts)


def test_the_most_precise_name_gives_the_rate():
    encoder = FineTuned(ResNet18(1), lr={"all": 0.5, "layer4": 0.1, "layer4.1": 0.0, "layer4.0.conv1.weight": 2})
    names = {id(p): n.removeprefix("encoder.net.") for n, p in encoder.named_parameters()}
    found = {names[id(p)]: factor for p, factor in encoder.lr_factors()}
    assert len(found) == len(names)
    assert found["conv1.weight"] == 0.5
    assert found["layer4.0.conv2.weight"] == 0.1
    assert found["layer4.1.conv2.weight"] == 0.0
    assert found["layer4.0.conv1.weight"] == 2
    assert {factor for _, factor in FineTuned(CNN()).lr_factors()} == {1.0}


def test_rates_follow_a_copy():
    encoder = copy.deepcopy(FineTuned(CNN(dim=8), lr={"layers.0": 0.1}))
    assert {id(p) for p, _ in encoder.lr_factors()} == {id(p) for p in encoder.parameters()}
    assert [f for p, f in encoder.lr_factors() if p is encoder.encoder.layers[0].weight] == [0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "layer5"}, r"Unknown part of the encoder 'layer5'. Did you mean 'layer\d'\? Known: .*avgpool"),
        ({"freeze": ["conv2"]}, "Unknown part of the encoder 'conv2'"),
        ({"freeze": "layer1"}, r"Pass freeze=\['layer1'\]"),
        ({"lr": {"laier1": 1.0}}, "Did you mean 'layer1'"),
        ({"lr": {"layer1": -1}}, r"lr\['layer1'\] must be a finite number >= 0; got -1"),
        ({"last": 5}, r"last must be a finite number >= 0 and <= 4; got 5"),
        ({"last": 1, "until": "layer4"}, "Give one of freeze, until and last"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        FineTuned(ResNet18(1), **options)
