"""Towers by name, on tiny random models of every architecture, saved and loaded as published ones are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import counterpoise as cp
from counterpoise.encoders import AudioTower, CLIPImage, CLIPText, FineTuned, Frozen, Transformers, VideoTower

torch.set_num_threads(1)
transformers: Any = pytest.importorskip("transformers")
slow = pytest.mark.slow
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def wav2vec2(model: str, *, masked: bool) -> tuple[Any, Any]:
    config = getattr(transformers, f"{model}Config")(
        **SMALL, conv_dim=(8, 8), conv_kernel=(10, 4), conv_stride=(5, 4), num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer" if masked else "group", mask_time_prob=0.5,
        do_stable_layer_norm=masked,
    )  # fmt: skip
    return getattr(transformers, f"{model}Model")(config), transformers.Wav2Vec2FeatureExtractor(
        return_attention_mask=masked
    )


def ast() -> tuple[Any, Any]:
    config = transformers.ASTConfig(
        **SMALL, max_length=64, num_mel_bins=16, patch_size=8, time_stride=8, frequency_stride=8
    )
    return transformers.ASTModel(config), transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=16)


def whisper() -> tuple[Any, Any]:
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=80, max_source_positions=50, max_target_positions=8,
        vocab_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return transformers.WhisperModel(config), transformers.WhisperFeatureExtractor(chunk_length=1)


def clap() -> tuple[Any, Any]:
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
        "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
        "num_hidden_layers": 2, "projection_dim": 8,
    }  # fmt: skip
    text = {**SMALL, "vocab_size": 32, "max_position_embeddings": 16, "projection_dim": 8}
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    return transformers.ClapModel(config), transformers.ClapFeatureExtractor(
        feature_size=16, max_length_s=1, truncation="rand_trunc"
    )


SOUND = {
    "Wav2Vec2": lambda: wav2vec2("Wav2Vec2", masked=True),
    "HuBERT": lambda: wav2vec2("Hubert", masked=False),
    "AST": ast,
    "Whisper": whisper,
    "CLAP": clap,
}
SECONDS = 0.6


def saved(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    for part in SOUND[name]():
        part.save_pretrained(folder)
    return folder


def sounds(rate: int, lengths: list[int]) -> torch.Tensor:
    rows = [np.sin(np.arange(n) * (0.02 + 0.01 * i)) * 0.3 + 0.01 for i, n in enumerate(lengths)]
    x = torch.zeros(len(rows), round(SECONDS * rate))
    for row, values in zip(x, rows, strict=True):
        row[: len(values)] = torch.from_numpy(values)
    return x


def expected(name: str, folder: Path, x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """What model and extractor of the folder give of each recording by itself, pooled as the table says."""
    model, extract = (part for part in SOUND[name]())
    model = type(model).from_pretrained(folder).eval()
    extract = type(extract).from_pretrained(folder)
    rows = []
    for row, n in zip(x, lengths, strict=True):
        given = extract(row[:n].numpy(), sampling_rate=extract.sampling_rate, return_tensors="pt")
        if name == "AST":
            rows.append(model(given["input_values"]).last_hidden_state[:, :2].mean(1))
        elif name == "Wav2Vec2":
            rows.append(model(given["input_values"]).last_hidden_state.mean(1))
        elif name == "Whisper":
            states = model.encoder(given["input_features"]).last_hidden_state
            rows.append(states[:, : -(-n // 320)].mean(1))
        elif name == "CLAP":
            rows.append(model.audio_model(given["input_features"]).pooler_output)
        else:  # HuBERT of the base kind sees the padding
            padded = torch.nn.functional.pad(given["input_values"], (0, x.shape[1] - n))
            states = model(padded).last_hidden_state
            rows.append(states[:, : int(model._get_feat_extract_output_lengths(n))].mean(1))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["Wav2Vec2", *(pytest.param(n, marks=slow) for n in SOUND if n != "Wav2Vec2")])
@torch.no_grad()
def test_a_saved_tower_gives_what_its_own_model_and_extractor_give(name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / name, name)
    tower = AudioTower(name, weights=str(folder)).eval()
    rate = tower.expects["sample_rate"]
    lengths = [round(s * rate) for s in (SECONDS, 0.31, 0.1)]
    x = sounds(rate, lengths)
    z = tower(x)
    assert z.shape == (3, tower.dim)
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, expected(name, folder, x, lengths), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tower(x[1:2]), z[1:2], rtol=1e-4, atol=1e-5)  # whatever else is in the batch
    assert tower(torch.zeros_like(x[:1])).isfinite().all()
    assert len(tower.blocks) == 2
    # a trained one brings its configuration: neither folder nor network is needed
    shutil.rmtree(folder)
    again = AudioTower(name, pretrained=False, config=tower.config)
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.eval()(x), z)
    tuned = FineTuned(tower, last=1)
    frozen = [n for n, p in tuned.named_parameters() if not p.requires_grad]
    assert any(tower.blocks[0] in n for n in frozen)
    assert not any(tower.blocks[1] in n for n in frozen)


def test_what_is_no_waveform_of_the_tower_is_refused(tmp_path: Path) -> None:
    tower = AudioTower("Wav2Vec2", weights=str(saved(tmp_path / "w", "Wav2Vec2")))
    with pytest.raises(ValueError, match=r"takes waveforms \(batch, samples\).*Waveform\(sample_rate=16000\)"):
        tower(torch.zeros(2, 1, 257, 188))
    with pytest.raises(ValueError, match="needs 25 samples at least"):
        tower(torch.zeros(2, 24))
    assert tower(torch.zeros(2, 25)).shape == (2, 16)
    with pytest.raises(ValueError, match=r"'wav2vec'.*Wav2Vec2"):
        AudioTower("wav2vec")
    with pytest.raises(ValueError, match="is a wav2vec2 model; HuBERT needs a model of the type hubert"):
        AudioTower("HuBERT", weights=str(tmp_path / "w"))
    with pytest.raises(RuntimeError, match="save_pretrained writes one"):
        AudioTower("Wav2Vec2", weights=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="mvit_v2_s"):
        VideoTower("mvit_v2")


def test_without_transformers_the_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterpoise._extras.find_spec", lambda package: None)
    with pytest.raises(ImportError, match=r"The tower AST needs .*transformers: pip install 'counterpoise\[text\]'"):
        AudioTower("AST")
    with pytest.raises(ImportError, match=r"The tower swin3d_t needs the package torchvision.*\[media\]"):
        VideoTower("swin3d_t")


@slow
@pytest.mark.parametrize(("name", "most"), [("AST", 0.64), ("Whisper", 1.0), ("CLAP", 1.0)])
def test_what_a_tower_does_not_hear_is_refused(name: str, most: float, tmp_path: Path) -> None:
    tower = AudioTower(name, weights=str(saved(tmp_path, name)))
    rate = tower.expects["sample_rate"]
    assert tower.eval()(torch.rand(1, round(most * rate))).isfinite().all()
    with pytest.raises(ValueError, match=f"hears {most:g} s"):
        tower(torch.rand(1, round(most * rate) + rate // 10))


# -- video -------------------------------------------------------------------------------------------------------------
def torchvision_weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name)


FILM = {"r2plus1d_18": (1, 3, 4, 16, 16), "swin3d_t": (1, 3, 4, 32, 32), "mvit_v2_s": (1, 3, 16, 224, 224)}


@slow
@pytest.mark.parametrize("name", FILM)
@torch.no_grad()
def test_a_video_tower_of_torchvision_gives_the_features_before_its_head(name: str, tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models.video
    torch.manual_seed(0)
    net = getattr(models, name)().eval()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    tower = VideoTower(name, weights=str(tmp_path / "w.pth")).eval()
    pixels = torch.rand(FILM[name])
    shape = (3, 1, 1, 1)
    mean, deviation = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    x = (pixels - mean.reshape(shape)) / deviation.reshape(shape)  # as readers give it
    own = torchvision_weights(name).KINETICS400_V1.transforms()
    given = (pixels - torch.tensor(own.mean).reshape(shape)) / torch.tensor(own.std).reshape(shape)
    z = tower(x)
    assert z.shape == (1, tower.dim)
    head = net.fc if name == "r2plus1d_18" else net.head
    torch.testing.assert_close(head(z), net(given), rtol=1e-3, atol=1e-4)
    FineTuned(tower, last=1)
    with pytest.raises(ValueError, match="takes video"):
        tower(torch.zeros(1, 3, 16, 16))


@torch.no_grad()
def test_videomae_of_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(**SMALL, image_size=16, patch_size=8, num_frames=4, tubelet_size=2)
    model = transformers.VideoMAEModel(config).eval()
    model.save_pretrained(tmp_path / "v")
    tower = VideoTower("VideoMAE", weights=str(tmp_path / "v")).eval()
    x = torch.randn(2, 3, 4, 16, 16)
    z = tower(x)
    torch.testing.assert_close(z, model(x.transpose(1, 2)).last_hidden_state.mean(1))
    again = VideoTower("VideoMAE", pretrained=False, config=tower.config)
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.eval()(x), z)
    with pytest.raises(ValueError, match="count=4 and size=16"):
        tower(torch.zeros(1, 3, 3, 16, 16))


# -- image and text ----------------------------------------------------------------------------------------------------
@slow
@torch.no_grad()
def test_siglip_and_modernbert_through_what_is_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.SiglipConfig(
        text_config={**SMALL, "vocab_size": 32, "max_position_embeddings": 8, "projection_size": 16},
        vision_config={**SMALL, "image_size": 16, "patch_size": 8},
    )
    model = transformers.SiglipModel(config).eval()
    model.save_pretrained(tmp_path / "s")
    pixels, tokens = torch.randn(2, 3, 16, 16), torch.randint(3, 32, (2, 8))
    image, text = CLIPImage(str(tmp_path / "s")).eval(), CLIPText(str(tmp_path / "s")).eval()
    both = model(input_ids=tokens, pixel_values=pixels)
    for z, shared in ((image(pixels), both.image_embeds), (text(tokens), both.text_embeds)):
        torch.testing.assert_close(z / z.norm(dim=1, keepdim=True), shared, rtol=1e-4, atol=1e-5)
    assert (image.dim, text.dim) == (16, 16)
    bert = transformers.ModernBertModel(
        transformers.ModernBertConfig(**SMALL, vocab_size=32, max_position_embeddings=16, pad_token_id=0)
    ).eval()
    bert.save_pretrained(tmp_path / "b")
    encoder = Transformers(str(tmp_path / "b"), pad=0).eval()
    padded = torch.nn.functional.pad(tokens, (0, 4))
    torch.testing.assert_close(encoder(padded), bert(input_ids=tokens).last_hidden_state[:, 0], rtol=1e-4, atol=1e-5)


# -- trained -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cp.data.write_digits(tmp_path_factory.mktemp("digits"), size=100, absent=0.05)


def read(path: Path, rate: int = 16000) -> cp.Splits:
    image = cp.data.Image(size=8, channels=1, augment=False, flip=0.0, normalize="none")
    return cp.Table(path, {"audio": cp.data.Waveform(rate, 0.3), "image": image}).splits()


class Cut(cp.Observer):
    """Ends a run in its second epoch."""

    def on_epoch_end(self, run: Any, record: Any) -> None:
        if run.epoch == 1:
            raise RuntimeError("power cut")


@slow
@pytest.mark.parametrize("method", ["Joint", "IGM"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_tower_trains_resumes_and_predicts_from_a_file(
    method: str, frozen: bool, digits: Path, tmp_path: Path
) -> None:
    folder, data = saved(tmp_path / "tower", "Wav2Vec2"), read(digits)

    def trained(name: str, *observers: cp.Observer, resume: bool = False) -> cp.Trainer:
        torch.manual_seed(0)
        tower = AudioTower("Wav2Vec2", weights=str(folder))
        encoders = {"audio": Frozen(tower, reuse=True) if frozen else tower, "image": "MLP"}
        model = cp.build_model(encoders, "Late", example=data)
        options = {"batch_size": 32, "progress": False, "run_dir": tmp_path / name, "observers": observers}
        trainer = cp.Trainer(model, method, epochs=2, **options)  # pyright: ignore[reportArgumentType]
        trainer.run(data, resume=resume)
        return trainer

    straight = trained("straight")
    with pytest.raises(RuntimeError, match="power"):
        trained("run", Cut())
    first = trained("run", resume=True)
    weights, other = first.model.state_dict(), straight.model.state_dict()
    assert all(torch.equal(weights[n], w) for n, w in other.items())
    start = AudioTower("Wav2Vec2", weights=str(folder)).state_dict()
    prefix = "encoders.audio." + ("encoder." if frozen else "")
    assert any(not torch.equal(weights[prefix + n], w) for n, w in start.items()) != frozen
    shutil.rmtree(folder)
    model = cp.load(tmp_path / "run")
    lines = [line.split(",") for line in digits.read_text().splitlines()[1:]]
    row = next(line for line in lines if line[2] == "test" and line[4] and line[5])
    answer = model.predict({"audio": str(digits.parent / row[4]), "image": str(digits.parent / row[5])})
    assert str(answer) in {str(c) for c in range(10)}


@slow
def test_towers_have_options_on_the_command_line(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from counterpoise.cli import main

    folder = saved(tmp_path / "tower", "Wav2Vec2")
    tower = {"": "Frozen", ".reuse": "true", ".encoder": "AudioTower", ".encoder.name": "Wav2Vec2"}
    options = {
        "data": digits, "data.modalities.audio": "waveform", "data.modalities.audio.seconds": 0.3,
        "data.modalities.image": "image", "data.modalities.image.size": 8, "encoders.image": "CNN",
        **{f"encoders.audio{name}": value for name, value in tower.items()}, "encoders.audio.encoder.weights": folder,
        "method": "OGM", "epochs": 1, "batch_size": 16, "progress": "false", "run_dir": tmp_path / "run",
    }  # fmt: skip
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    for command in (
        ["fit", *arguments],
        ["predict", str(tmp_path / "run"), str(digits), "--out", str(tmp_path / "p.csv")],
    ):
        with pytest.raises(SystemExit) as left:
            main(command)
        assert not left.value.code, capsys.readouterr().err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 101
    wrong = [text.replace("Wav2Vec2", "Wav2Vec") for text in arguments]
    with pytest.raises(SystemExit) as left:
        main(["fit", *wrong, "--run_dir", str(tmp_path / "wrong")])
    assert left.value.code == 2
    assert "Did you mean 'Wav2Vec2'?" in capsys.readouterr().err


def test_a_reader_at_another_rate_is_refused_before_training(digits: Path, tmp_path: Path) -> None:
    tower = AudioTower("Wav2Vec2", weights=str(saved(tmp_path, "Wav2Vec2")))
    data = read(digits, 8000)
    model = cp.build_model({"audio": Frozen(tower), "image": "MLP"}, example=data)
    with pytest.raises(ValueError, match=r"'audio' needs sample_rate=16000.*has 8000.*audio.sample_rate 16000"):
        cp.Trainer(model, "Joint", epochs=1, batch_size=16, progress=False).fit(data.train, data.val)
    with pytest.raises(ValueError, match=r"no encoder by default.*AudioTower"):
        cp.build_model(data)
