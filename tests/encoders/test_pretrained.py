import urllib.error

import pytest
import torch

from counterpoise._checks import settings
from counterpoise.encoders import CLIPImage, CLIPText, ResNet18, ResNet50, Timm, Transformers

torch.set_num_threads(1)


# -- ResNets -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """State dicts as torchvision's, by name."""
    models = pytest.importorskip("torchvision").models
    folder, made = tmp_path_factory.mktemp("resnets"), {}
    torch.manual_seed(0)
    for name in ("resnet18", "resnet50"):
        net = getattr(models, name)()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
        path = folder / f"{name}.pth"
        torch.save(net.state_dict(), path)
        made[name] = str(path), net.eval()
    return made


def test_resnet50_features_and_logits(files):
    path, net = files["resnet50"]
    x = torch.randn(2, 3, 32, 32)
    logits = ResNet50(weights=path, output="logits").eval()
    assert logits.dim == 1000
    torch.testing.assert_close(logits(x), net(x), rtol=1e-3, atol=1e-4)
    features = ResNet50(weights=path).eval()
    assert features.dim == 2048
    torch.testing.assert_close(net.fc(features(x)), net(x), rtol=1e-3, atol=1e-4)
    assert settings(logits) == {"channels": 3, "weights": path, "output": "logits"}
    assert sum(p.numel() for p in logits.parameters()) == 25_557_032


def test_resnet18_from_a_file_and_for_one_channel(files):
    path, net = files["resnet18"]
    x = torch.randn(2, 1, 32, 32)
    expected = ResNet18(weights=path).eval()(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(net.fc(expected), net(x.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ResNet18(1, weights=path).eval()(x), expected, rtol=1e-3, atol=1e-4)


def test_weights_inside_a_checkpoint_of_parallel_training(files, tmp_path):
    path, _ = files["resnet18"]
    state = torch.load(path, weights_only=True)
    wrapped = tmp_path / "wrapped.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, wrapped)
    assert torch.equal(ResNet18(weights=str(wrapped)).net.conv1.weight, state["conv1.weight"])


def test_weights_of_another_network(files):
    with pytest.raises(ValueError, match=r"resnet50\.pth' are those of another network\. not part of it: .*shape: "):
        ResNet18(weights=files["resnet50"][0])
    with pytest.raises(ValueError, match="Did you mean 'logits'"):
        ResNet50(output="logit")


def test_weights_that_are_nowhere_name_what_there_is():
    with pytest.raises(FileNotFoundError, match=r"no such file\. Give the path.*'IMAGENET1K_V1', 'IMAGENET1K_V2'"):
        ResNet50(weights="IMAGENET1K")


def test_without_a_connection_the_path_is_offered(monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(RuntimeError, match=r"no route to host.*get https://\S*resnet50-0676ba61\.pth elsewhere"):
        ResNet50(weights="IMAGENET1K_V1")


# -- timm --------------------------------------------------------------------------------------------------------------


def test_timm_from_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=7).eval()
    path = tmp_path / "weights.pt"
    torch.save(net.state_dict(), path)
    pytest.importorskip("safetensors.torch").save_file(net.state_dict(), tmp_path / "weights.safetensors")
    x = torch.randn(2, 1, 64, 64)
    expected = net.forward_head(net.forward_features(x.expand(-1, 3, -1, -1)), pre_logits=True)
    for file in ("weights.pt", "weights.safetensors"):
        encoder = Timm("test_resnet", weights=str(tmp_path / file)).eval()
        torch.testing.assert_close(encoder(x.expand(-1, 3, -1, -1)), expected)
    torch.testing.assert_close(Timm("test_resnet", channels=1, weights=str(path)).eval()(x), expected)
    with pytest.raises(ValueError, match="another network"):
        Timm("test_vit", weights=str(path))
    with pytest.raises(ValueError, match="give one of the two"):
        Timm("test_resnet", weights=str(path), pretrained=True)
    with pytest.raises(FileNotFoundError, match="state dict of timm's test_resnet"):
        Timm("test_resnet", weights=str(tmp_path / "none.pt"))


# -- transformers ------------------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of tiny models."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    numbers = {"vocab_size": 20, "bos_token_id": 18, "eos_token_id": 19}
    models = {
        "bert": transformers.BertModel(transformers.BertConfig(vocab_size=20, **SMALL)),
        "roberta": transformers.RobertaModel(transformers.RobertaConfig(vocab_size=20, **SMALL)),
        "gpt": transformers.GPT2Model(
            transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, **numbers)  # has no padding
        ),
        "t5": transformers.T5Model(
            transformers.T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        "clip": transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={**SMALL, **numbers, "pad_token_id": 1, "max_position_embeddings": 12},
                vision_config={**SMALL, "image_size": 32, "patch_size": 16},
                projection_dim=6,
            )
        ),
    }
    folder = tmp_path_factory.mktemp("transformers")
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(("name", "pad"), [("bert", 0), ("roberta", 1)])
def test_each_model_masks_its_own_padding(saved, name, pad):
    encoder = Transformers(str(saved / name)).eval()
    x = torch.randint(2, 18, (3, 5), generator=torch.Generator().manual_seed(0))
    x[1, 2] = 1 - pad  # another model's padding is a word like any other
    padded = torch.cat([x, torch.full((3, 4), pad)], dim=1)
    torch.testing.assert_close(encoder(padded), encoder(x), rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[1, 2] = 7
    assert not torch.allclose(encoder(changed)[1], encoder(x)[1], atol=1e-4)
    assert encoder(torch.full((2, 5), pad)).isfinite().all()


def test_the_tokeniser_decides_what_padding_is(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models

    transformers.AutoModel.from_pretrained(saved / "bert").save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1, "[PAD]": 5}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(tmp_path)
    assert transformers.AutoConfig.from_pretrained(tmp_path).pad_token_id == 0
    encoder, x = Transformers(str(tmp_path)).eval(), torch.randint(6, 18, (2, 4))
    padded = torch.cat([x, torch.full((2, 3), 5)], dim=1)
    torch.testing.assert_close(encoder(padded), encoder(x), rtol=1e-4, atol=1e-5)


def test_padding_that_nothing_says(saved):
    with pytest.raises(ValueError, match="does not say which token is padding; pass pad="):
        Transformers(str(saved / "gpt"))
    assert Transformers(str(saved / "gpt"), pad=3)(torch.ones(2, 4, dtype=torch.int64)).shape == (2, 16)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_every_parameter_gets_a_gradient(saved, name):
    """There is no pooling layer, which [CLS] itself does not pass through."""
    encoder = Transformers(str(saved / name))
    encoder(torch.randint(2, 18, (3, 5))).pow(2).sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None]


def test_models_of_another_kind(saved):
    with pytest.raises(ValueError, match=r"\(t5\) is no text encoder"):
        Transformers(str(saved / "t5"))
    with pytest.raises(ValueError, match=r"\(clip\).*there are CLIPText and CLIPImage"):
        Transformers(str(saved / "clip"))
    with pytest.raises(ValueError, match="is a bert model; CLIPText needs a CLIP or SigLIP model"):
        CLIPText(str(saved / "bert"))


def test_clip_towers_agree_with_the_whole_model(saved):
    transformers = pytest.importorskip("transformers")
    path = str(saved / "clip")
    clip = transformers.CLIPModel.from_pretrained(path).eval()
    # begin, words, end; then end once more for padding, as CLIP's tokeniser has it
    ids = torch.tensor([[18, 3, 4, 5, 19], [18, 6, 19, 19, 19]])
    images = torch.randn(2, 3, 32, 32)
    output = clip(input_ids=ids, pixel_values=images, attention_mask=torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]))
    text, image = CLIPText(path, projection=True).eval(), CLIPImage(path, projection=True).eval()
    assert (text.dim, image.dim) == (6, 6)
    torch.testing.assert_close(torch.nn.functional.normalize(text(ids)), output.text_embeds)
    torch.testing.assert_close(torch.nn.functional.normalize(image(images)), output.image_embeds)
    hidden_text, hidden_image = CLIPText(path).eval(), CLIPImage(path).eval()
    assert (hidden_text.dim, hidden_image.dim) == (16, 16)
    torch.testing.assert_close(clip.text_projection(hidden_text(ids)), text(ids))
    torch.testing.assert_close(clip.visual_projection(hidden_image(images)), image(images))
    assert settings(text) == {"name_or_path": path, "projection": True, "pretrained": True}


@pytest.mark.parametrize("pad", [0, 1, 19])
def test_padding_behind_the_end_does_not_reach_clip(saved, pad):
    encoder = CLIPText(str(saved / "clip")).eval()
    ids = torch.tensor([[18, 3, 4, 19]])
    longer = torch.cat([ids, torch.full((1, 3), pad)], dim=1)
    torch.testing.assert_close(encoder(longer), encoder(ids))


def test_clip_takes_frames(saved):
    encoder = CLIPImage(str(saved / "clip"), pretrained=False).eval()
    x = torch.randn(2, 3, 4, 32, 32)
    expected = torch.stack([encoder(x[:, :, t]) for t in range(4)]).mean(0)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [Transformers, CLIPText, CLIPImage])
def test_without_a_connection_the_folder_is_offered(make, monkeypatch):
    transformers = pytest.importorskip("transformers")

    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(RuntimeError, match=r"couldn't connect.*give the path of a folder that holds the model"):
        make("openai/clip-vit-base-patch32")
