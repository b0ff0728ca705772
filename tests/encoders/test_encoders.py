import copy
import sys

import pytest
import torch
from torch import nn

from counterpoise._checks import settings
from counterpoise.encoders import (
    CNN,
    ENCODERS,
    MLP,
    FTTransformer,
    Projected,
    ResNet18,
    SequenceGRU,
    SequenceTransformer,
    TabularMLP,
    TextBag,
    TextGRU,
    Timm,
    default_encoder,
)

torch.set_num_threads(1)


def ids(batch=4, length=6, seed=0):
    return torch.randint(1, 20, (batch, length), generator=torch.Generator().manual_seed(seed))


CASES = {
    "MLP": (lambda: MLP(5, dim=8), lambda n: torch.randn(n, 5)),
    "MLP-deep": (lambda: MLP(6, (7, 9), dim=8, norm=False), lambda n: torch.randn(n, 2, 3)),
    "CNN": (lambda: CNN(1, dim=8), lambda n: torch.randn(n, 1, 9, 13)),
    "CNN-group": (lambda: CNN(3, dim=12, norm="group"), lambda n: torch.randn(n, 3, 9, 13)),
    "CNN-pixel": (lambda: CNN(1, dim=8), lambda n: torch.randn(n, 1, 1)),
    "CNN-frames": (lambda: CNN(3, dim=8), lambda n: torch.randn(n, 3, 2, 9, 13)),
    "SequenceGRU": (lambda: SequenceGRU(5, dim=8), lambda n: torch.randn(n, 6, 5)),
    "SequenceTransformer": (lambda: SequenceTransformer(5, dim=8), lambda n: torch.randn(n, 6, 5)),
    "TabularMLP": (lambda: TabularMLP(2, (3, 4), dim=8), lambda n: torch.randn(n, 9)),
    "FTTransformer": (lambda: FTTransformer(2, (3, 4), 8, 2, 4, 0.0, 0.0), lambda n: torch.randn(n, 9)),
    "TextBag": (lambda: TextBag(20, dim=8), lambda n: ids(n)),
    "TextGRU": (lambda: TextGRU(20, dim=8), lambda n: ids(n)),
    "ResNet18": (lambda: ResNet18(1), lambda n: torch.randn(n, 33, 40)),
    "Projected": (lambda: Projected(MLP(5, dim=8), dim=3), lambda n: torch.randn(n, 5)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", [1, 4])
def test_features_and_gradients(case, batch):
    """A batch of one too: what a modality is down to when the other samples lack it."""
    make, draw = CASES[case]
    torch.manual_seed(0)
    encoder, x = make(), draw(batch)
    z = encoder(x)
    assert z.shape == (batch, encoder.dim)
    assert z.isfinite().all()
    z.pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("case", CASES)
def test_constructor_arguments_can_be_read_back(case):
    encoder = CASES[case][0]()
    again = type(encoder)(**settings(encoder))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in encoder.state_dict().items()}
    assert settings(again) == settings(encoder)


@pytest.mark.parametrize("case", CASES)
def test_evaluation_of_a_sample_does_not_depend_on_the_batch(case):
    make, draw = CASES[case]
    torch.manual_seed(0)
    encoder, x = make().eval(), draw(4)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["MLP", "CNN", "SequenceGRU", "SequenceTransformer", "TextGRU"])
def test_bfloat16_autocast(case):
    make, draw = CASES[case]
    torch.manual_seed(0)
    encoder, x = make(), draw(4)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(x).float().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_the_registry_holds_every_encoder():
    pretrained = {"AudioTower", "CLIPImage", "CLIPText", "ResNet50", "Timm", "Transformers", "VideoTower"}
    elsewhere = pretrained | {"Checkpointed", "FineTuned", "Frozen", "I3D", "LoRA"}
    assert {type(make()).__name__ for make, _ in CASES.values()} | elsewhere == set(ENCODERS)


def test_a_projection_is_one_linear_layer():
    encoder, x = Projected(MLP(5, dim=8), dim=3).eval(), torch.randn(4, 5)
    torch.testing.assert_close(encoder(x), encoder.encoder(x) @ encoder.project.weight.T + encoder.project.bias)
    with pytest.raises(ValueError, match=r"Projected: set Flatten.dim"):
        Projected(nn.Flatten(), dim=3)
    with pytest.raises(ValueError, match="dim"):
        Projected(MLP(5), dim=0)


# -- vectors -----------------------------------------------------------------------------------------------------------


def test_raw_scales_do_not_matter_to_an_mlp():
    torch.manual_seed(0)
    one, x = MLP(5), torch.randn(16, 5)
    scale = torch.tensor([1e-3, 1.0, 1e4, 50.0, 0.0])
    x[:, 4] = 1e3  # a number that is always the same says nothing
    other = copy.deepcopy(one)
    torch.testing.assert_close(one(x), other(x * scale + 3 * scale), rtol=1e-2, atol=2e-2)
    assert "layers.0.weight" not in one.state_dict()


def test_a_batch_of_one_moves_no_statistics():
    encoder = MLP(5)
    encoder(torch.full((1, 5), 100.0))
    assert (encoder.layers[0].running_mean == 0).all()
    encoder(torch.full((2, 5), 100.0))
    assert (encoder.layers[0].running_mean > 0).all()


def test_an_mlp_takes_whole_numbers_and_says_what_it_was_given():
    assert MLP(4)(torch.ones(3, 2, 2, dtype=torch.uint8)).shape == (3, 128)
    with pytest.raises(ValueError, match=r"MLP\(in_dim=4\) was given samples of 6 numbers"):
        MLP(4)(torch.ones(3, 6))


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [CNN(3, dim=8), ResNet18(3)])
def test_frames_are_averaged(encoder):
    encoder.eval()
    x = torch.randn(2, 3, 4, 33, 35)
    each = torch.stack([encoder(x[:, :, t]) for t in range(4)])
    torch.testing.assert_close(encoder(x), each.mean(0), rtol=1e-4, atol=1e-5)


def test_a_matrix_is_an_image_of_one_channel():
    encoder, x = CNN(1, dim=8).eval(), torch.randn(2, 9, 9)
    assert torch.equal(encoder(x), encoder(x.unsqueeze(1)))
    with pytest.raises(ValueError, match=r"samples of shape \(9,\)"):
        encoder(torch.randn(2, 9))


def test_resnet_is_initialised_as_in_the_paper():
    torch.manual_seed(0)
    encoder = ResNet18(1)
    assert encoder.dim == 512
    # 11.17 M for spectrograms, 11.18 M for images
    assert sum(p.numel() for p in encoder.parameters()) == 11_170_240
    conv = encoder.net.layer3[0].conv1
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    gains = torch.cat([m.weight for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(1, abs=0.002)
    assert gains.std().item() == pytest.approx(0.02, rel=0.05)


def test_torchvision_agrees_on_the_network():
    from torchvision.models import resnet18

    other = resnet18().double()
    other.fc = nn.Identity()
    encoder = ResNet18(3).double()
    other.load_state_dict(encoder.net.state_dict())
    x = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    torch.testing.assert_close(encoder(x), other(x))


@pytest.mark.parametrize("make", [lambda: CNN(3, 8), lambda: ResNet18(3), lambda: Timm("resnet18")])
def test_convolutions_of_image_encoders_are_laid_out_channels_last(make):
    pytest.importorskip("timm")
    layers = [m for m in make().modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert layers
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in layers)


# -- sequences and text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["SequenceGRU", "SequenceTransformer", "TextBag", "TextGRU"])
def test_padding_at_the_end_changes_nothing(case):
    make, draw = CASES[case]
    torch.manual_seed(0)
    encoder, x = make().eval(), draw(3)
    longer = torch.cat([x, torch.zeros_like(x[:, :4])], dim=1)
    torch.testing.assert_close(encoder(longer), encoder(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["SequenceGRU", "SequenceTransformer", "TextBag", "TextGRU"])
def test_nothing_but_padding_is_finite_with_gradient(case):
    make, draw = CASES[case]
    encoder, x = make(), draw(3)
    x[1] = 0
    encoder(x).pow(2).sum().backward()
    assert encoder(x).isfinite().all()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    with torch.no_grad():  # where attention takes another path
        assert encoder.eval()(x).isfinite().all()


@pytest.mark.parametrize("case", ["SequenceGRU", "SequenceTransformer", "TextGRU"])
def test_the_order_of_the_steps_matters(case):
    make, draw = CASES[case]
    torch.manual_seed(0)
    encoder, x = make().eval(), draw(3)
    assert not torch.allclose(encoder(x), encoder(x.flip(1)), atol=1e-3)


def test_a_sequence_of_the_wrong_width_is_named():
    with pytest.raises(ValueError, match=r"SequenceGRU\(in_dim=5\) takes \(batch, T, 5\); got \(2, 3, 4\)"):
        SequenceGRU(5)(torch.randn(2, 3, 4))


# -- by default --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("spectrogram", (257, 188), CNN),
        ("spectrogram", (1, 33, 20), CNN),
        ("image", (1, 8, 8), CNN),
        ("image", (3, 95, 95), CNN),
        ("image", (3, 96, 64), ResNet18),
        ("frames", (3, 2, 32, 32), ResNet18),
        ("array", (7,), MLP),
        ("array", (2, 3), MLP),
        ("sequence", (6, 5), SequenceGRU),
    ],
)
def test_a_default_for_each_kind(kind, shape, expected):
    encoder = default_encoder(kind, shape)
    assert type(encoder) is expected
    assert encoder(torch.randn(2, *shape)).shape == (2, encoder.dim)


def test_text_by_default_and_options():
    assert type(default_encoder("text", (6,), vocab_size=20)) is TextGRU
    assert default_encoder("array", (3,), dim=9).dim == 9
    with pytest.raises(ValueError, match="vocab_size"):
        default_encoder("text", (6,))


def test_defaults_that_do_not_exist():
    with pytest.raises(ValueError, match="Did you mean 'spectrogram'"):
        default_encoder("spectogram", (3, 3))
    with pytest.raises(ValueError, match=r"must have 4 sizes; got \(3, 3\)"):
        default_encoder("frames", (3, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MLP(0),
        lambda: MLP(3, (0,)),
        lambda: CNN(dim=10),
        lambda: CNN(norm="layer"),
        lambda: CNN(0),
        lambda: ResNet18(0),
        lambda: SequenceTransformer(5, dim=10),
        lambda: TextBag(1),
    ],
)
def test_arguments_out_of_range(make):
    with pytest.raises(ValueError, match=r"must be|Unknown norm"):
        make()


# -- extras ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "extra"), [("Timm", "timm"), ("Transformers", "text")])
def test_a_missing_extra_says_how_to_install_it(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, name.lower(), None)
    with pytest.raises(ImportError, match=rf"pip install 'counterpoise\[{extra}\]'"):
        ENCODERS[name]("any")


def test_timm():
    pytest.importorskip("timm")
    from counterpoise.encoders import Timm

    encoder = Timm("test_resnet", channels=1)
    z = encoder(torch.randn(2, 64, 64))
    assert z.shape == (2, encoder.dim)
    assert encoder(torch.randn(2, 1, 3, 64, 64)).shape == (2, encoder.dim)
    assert settings(encoder) == {"name": "test_resnet", "pretrained": False, "channels": 1, "weights": None}
    with pytest.raises(ValueError, match="Did you mean 'resnet18'"):
        Timm("resnet_18")


def test_timm_reports_the_width_it_gives():
    pytest.importorskip("timm")
    from counterpoise.encoders import Timm

    encoder = Timm("mobilenetv3_small_050").eval()
    assert encoder(torch.randn(1, 3, 32, 32)).shape == (1, encoder.dim)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def test_transformers(bert):
    from counterpoise.encoders import Transformers

    encoder, x = Transformers(bert).eval(), ids()
    assert encoder.dim == 16
    assert settings(encoder) == {"name_or_path": bert, "pretrained": True, "pad": None}
    expected = encoder.net(input_ids=x).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(x), expected)
    padded = torch.cat([x, torch.zeros(4, 3, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(encoder(padded), expected, rtol=1e-4, atol=1e-5)
    assert encoder(torch.zeros_like(x)).isfinite().all()


def test_transformers_weights_or_architecture_only(bert):
    from counterpoise.encoders import Transformers

    one, other, fresh = (Transformers(bert, pretrained=p).state_dict() for p in (True, True, False))
    key = "net.embeddings.word_embeddings.weight"
    assert torch.equal(one[key], other[key])
    assert fresh[key].shape == one[key].shape
    assert not torch.equal(fresh[key], one[key])


def test_transformers_that_cannot_be_had(tmp_path):
    pytest.importorskip("transformers")
    from counterpoise.encoders import Transformers

    with pytest.raises(RuntimeError, match=r"could not load.*Without a connection"):
        Transformers(str(tmp_path))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_are_taken(dtype):
    pictures, steps, tokens = (torch.randint(1, 9, shape).to(dtype) for shape in ((2, 3, 8, 8), (2, 5, 4), (2, 6)))
    for encoder, x in ((CNN(3, 8), pictures), (SequenceGRU(4, 8), steps), (SequenceTransformer(4, 8), steps)):
        assert torch.equal(encoder.eval()(x), encoder(x.float()))
    for encoder in (TextBag(9, 8).eval(), TextGRU(9, 8).eval()):
        assert torch.equal(encoder(tokens), encoder(tokens.long()))


@pytest.mark.parametrize("make", [TextBag, TextGRU])
def test_padding_may_be_any_token_number(make):
    encoder = make(9, 8, padding=1).eval()
    short, padded = torch.tensor([[4, 0, 5]]), torch.tensor([[4, 0, 5, 1, 1]])
    torch.testing.assert_close(encoder(short), encoder(padded))
    assert not encoder.embedding.weight[1].any()
    assert not torch.equal(encoder(short), encoder(torch.tensor([[4, 0, 5, 0, 0]])))


@pytest.mark.parametrize("make", [TextBag, TextGRU])
def test_token_numbers_that_there_are_none_of(make):
    for x in (torch.tensor([[1, 9]]), torch.tensor([[-1, 2]]), torch.tensor([[30000, 2]])):
        with pytest.raises(ValueError, match=r"token numbers must be in 0\.\.8; found .*len\(tokenizer\)"):
            make(9, 8)(x)
    with pytest.raises(ValueError, match="token numbers must be whole"):
        make(9, 8)(torch.ones(1, 2))
    with pytest.raises(ValueError, match="padding must be one of the 9 token numbers; got 9"):
        make(9, 8, padding=9)
