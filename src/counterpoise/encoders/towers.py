"""Pretrained towers for sound and video, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean
from counterpoise._extras import require
from counterpoise.encoders._norm import BatchNorm3d
from counterpoise.encoders._pooling import masked_mean
from counterpoise.encoders._weights import adopt, from_hub, torchvision_state


class _Sound(NamedTuple):
    """A tower for sound: model type of its configuration, classes of Transformers, where its weights are published."""

    kind: str
    model: str
    extractor: str
    published: str
    part: str
    """Of the model: what encodes sound; all of it where it is empty."""
    blocks: str
    """Of that part: the list of its layers."""


_SOUND = {
    "AST": _Sound(
        "audio-spectrogram-transformer", "ASTModel", "ASTFeatureExtractor", "MIT/ast-finetuned-audioset-10-10-0.4593",
        "", "layers",
    ),
    "CLAP": _Sound(
        "clap", "ClapModel", "ClapFeatureExtractor", "laion/clap-htsat-unfused", "audio_model", "audio_encoder.layers"
    ),
    "HuBERT": _Sound(
        "hubert", "HubertModel", "Wav2Vec2FeatureExtractor", "facebook/hubert-base-ls960", "", "encoder.layers"
    ),
    "Wav2Vec2": _Sound(
        "wav2vec2", "Wav2Vec2Model", "Wav2Vec2FeatureExtractor", "facebook/wav2vec2-base", "", "encoder.layers"
    ),
    "Whisper": _Sound(
        "whisper", "WhisperModel", "WhisperFeatureExtractor", "openai/whisper-base", "encoder", "layers"
    ),
}  # fmt: skip
_FRAME = 400  # samples that AST's first frame takes: 25 ms at its 16 kHz


class AudioTower(nn.Module):
    """A pretrained encoder of sound from Transformers: waveforms (batch, samples) -> (batch, dim).

    Read the column by ``waveform`` at the tower's rate. Each recording goes through the tower's own feature extractor
    as long as it is, without the zeros at its end. That runs on the CPU, so ``Frozen(AudioTower(...), reuse=True)``,
    which does it once, is the way to begin with. Nothing of SpecAugment and of layer drop is active in training.

    ============ ======= ====================== ================================================================
    name         rate    hears                  feature
    ============ ======= ====================== ================================================================
    ``AST``      16 kHz  10.24 s                mean of the class and the distillation token (the model's pooling)
    ``Wav2Vec2`` 16 kHz  any length             mean of the last states over the recording
    ``HuBERT``   16 kHz  any length             mean of the last states over the recording
    ``Whisper``  16 kHz  30 s                   mean of the encoder's last states over the recording
    ``CLAP``     48 kHz  10 s, repeated to fill the model's pooled feature, before its projection
    ============ ======= ====================== ================================================================

    Rate and length are those of the published models; a folder's own say otherwise where they differ. Wav2Vec2 and
    HuBERT get a mask of what is padding where their extractor says that they were trained with one (the large ones);
    the base models were not, and normalise over padding too, so that their features depend a little on ``seconds``.

    Args:
        name: of the table.
        weights: name on the hub, or a folder that ``save_pretrained`` of model and feature extractor wrote; None for
            the published ones.
        pretrained: start from its weights; False takes only the architecture and the extractor.
        config: both as plain data; None reads them where ``weights`` says. A trained model brings its own.

    Raises:
        ImportError: when transformers is not installed.
        RuntimeError: when configuration or weights cannot be had.
        ValueError: an unknown name, the folder of another model; of an input: it is no waveform, shorter than the tower
            needs or longer than it hears.

    Source: Gong et al., AST, Interspeech 2021; Baevski et al., wav2vec 2.0, NeurIPS 2020; Hsu et al., HuBERT, TASLP
    2021; Radford et al., Whisper, ICML 2023; Wu et al., CLAP (LAION), ICASSP 2023
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        pretrained: bool = True,
        config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if name not in _SOUND:
            raise ValueError(did_you_mean("audio tower", name, _SOUND))
        require(f"The tower {name}", "transformers")
        import transformers

        of, self.name, self.weights, self.pretrained = _SOUND[name], name, weights, pretrained
        source, model = weights or of.published, getattr(transformers, of.model)
        extractor: Any = getattr(transformers, of.extractor)
        if config is None:
            config = from_hub(source, lambda: _stated(source, transformers, extractor))
        kind = config["model"]["model_type"]
        if kind != of.kind:
            raise ValueError(f"{source!r} is a {kind} model; {name} needs a model of the type {of.kind}.")
        whole = _model(model, source, {**config["model"], **_STEADY}, pretrained)
        self.config, self._extract = dict(config), extractor.from_dict(dict(config["extractor"]))
        self.net: Any = getattr(whole, of.part) if of.part else whole
        if hasattr(self.net, "masked_spec_embed"):
            self.net.masked_spec_embed.requires_grad_(False)  # of SpecAugment: it would train on nothing
        self.dim, self.expects = int(self.net.config.hidden_size), {"sample_rate": int(self._extract.sampling_rate)}
        self.blocks = _children(self.net, of.blocks)

    def forward(self, x: Tensor) -> Tensor:
        self._refuse(x)
        lengths = _lengths(x).clamp(min=min(self._least, x.shape[1]))
        heard = [row[:n].numpy() for row, n in zip(x.detach().float().cpu(), lengths.tolist(), strict=True)]
        ask: dict[str, Any] = {"sampling_rate": self._extract.sampling_rate, "return_tensors": "pt"}
        if self.name in ("Wav2Vec2", "HuBERT"):
            return self._of_states(heard, lengths, x, ask)
        given: Any = self._extract(heard, **ask)
        if self.name == "AST":
            return self.net(given["input_values"].to(x.device)).pooler_output
        features = given["input_features"].to(x.device)
        if self.name == "CLAP":
            longer = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)  # nothing is: longer ones are refused
            return self.net(input_features=features, is_longer=longer).pooler_output
        states = self.net(features).last_hidden_state
        per_state = 2 * self._extract.hop_length  # the second convolution takes every other frame
        return self._mean(states, -(-lengths // per_state))

    def _of_states(self, heard: list[Any], lengths: Tensor, x: Tensor, ask: Mapping[str, Any]) -> Tensor:
        """Of Wav2Vec2 and HuBERT: padded to the whole length of the input, whatever else is in the batch."""
        ask = {**ask, "padding": "max_length", "max_length": x.shape[1], "return_attention_mask": True}
        given: Any = self._extract(heard, **ask)
        mask = given["attention_mask"].to(x.device) if self._extract.return_attention_mask else None
        states = self.net(given["input_values"].to(x.device), attention_mask=mask).last_hidden_state
        return self._mean(states, self.net._get_feat_extract_output_lengths(lengths))

    def _mean(self, states: Tensor, counts: Tensor) -> Tensor:
        """Over the first states of each row, so many as are its own."""
        places = torch.arange(states.shape[1], device=states.device)
        return masked_mean(states, places < counts.clamp(1, states.shape[1]).to(states.device).unsqueeze(1))

    def _refuse(self, x: Tensor) -> None:
        if x.ndim != 2 or not x.is_floating_point():
            raise ValueError(
                f"{self.name} takes waveforms (batch, samples); got {x.dtype} of {tuple(x.shape)}. Read the column by "
                f"Waveform(sample_rate={self.expects['sample_rate']}): --data.modalities.NAME waveform."
            )
        rate, most = self.expects["sample_rate"], self._most
        if x.shape[1] < self._least:
            raise ValueError(
                f"{self.name} needs {self._least} samples at least ({self._least / rate:g} s); got {x.shape[1]}. Raise "
                "seconds of the reader."
            )
        if most is not None and x.shape[1] > most:
            raise ValueError(
                f"{self.name} hears {most / rate:g} s; got {x.shape[1] / rate:g} s, of which it would lose the end. "
                f"Give the reader seconds={most / rate:g} or less."
            )

    @property
    def _least(self) -> int:
        """Samples of the shortest input: what the first state is made of."""
        if self.name in ("Wav2Vec2", "HuBERT"):
            samples, config = 1, self.net.config
            for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
                samples = (samples - 1) * stride + kernel
            return samples
        return _FRAME if self.name == "AST" else 1

    @property
    def _most(self) -> int | None:
        """Samples of the longest; None where any length will do."""
        extract = self._extract
        if self.name == "AST":  # a frame every 10 ms
            return extract.sampling_rate * extract.max_length // 100
        if self.name == "Whisper":
            return extract.n_samples
        return extract.nb_max_samples if self.name == "CLAP" else None


_STEADY = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}
"""SpecAugment draws from NumPy's own generator, and a layer that is left out has nothing for methods to look at."""


def _stated(source: str, transformers: Any, extractor: Any) -> dict[str, Any]:
    """The configurations of model and feature extractor, as plain data."""
    model = transformers.AutoConfig.from_pretrained(source).to_dict()
    return {"model": model, "extractor": extractor.from_pretrained(source).to_dict()}


def _model(model: Any, source: str, config: Mapping[str, Any], pretrained: bool) -> Any:
    """A model of Transformers in float32, whatever its weights are stored in."""
    settings = model.config_class.from_dict(dict(config))
    made = from_hub(source, lambda: model.from_pretrained(source, config=settings)) if pretrained else model(settings)
    return made.float()


def _children(net: nn.Module, path: str) -> tuple[str, ...]:
    """The names of the layers in a list of them."""
    if not hasattr(net, path.partition(".")[0]):  # of AST before Transformers 5
        path = "encoder.layer"
    return tuple(f"{path}.{name}" for name, _ in net.get_submodule(path).named_children())


def _lengths(x: Tensor) -> Tensor:
    """(batch,) on the CPU: samples of each row up to its last one that is not zero; of a silent row all."""
    there = x != 0
    last = x.shape[1] - there.flip(1).to(torch.uint8).argmax(1)
    return torch.where(there.any(1), last, x.shape[1]).cpu()


class _Film(NamedTuple):
    """A tower of torchvision for video: what comes after its feature, and mean and deviation of its pixels."""

    head: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    size: tuple[int, int, int] | None
    """(frames, height, width), where no other will do."""
    blocks: str


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FILM = {
    "mvit_v2_s": _Film("head", (0.45,) * 3, (0.225,) * 3, (16, 224, 224), "blocks"),
    "r2plus1d_18": _Film("fc", (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989), None, ""),
    "swin3d_t": _Film("head", *_IMAGENET, None, "features"),
}
_VIDEOMAE, _KINETICS = "VideoMAE", "KINETICS400_V1"


class VideoTower(nn.Module):
    """A pretrained encoder of video: (batch, 3, T, H, W) -> (batch, dim).

    Read the column by ``video``, ``frames`` or ``clip`` with their normalisation ``imagenet``; the tower makes its own
    of it. ``Frozen(VideoTower(...), reuse=True)``, which encodes every clip once, is the way to begin with.

    =============== ================== ===== ==========================================================
    name            input              dim   feature
    =============== ================== ===== ==========================================================
    ``mvit_v2_s``   16 x 224 x 224     768   class token after the last normalisation
    ``swin3d_t``    any, 32 x 224 best 768   mean over time and space after the last normalisation
    ``r2plus1d_18`` any, 16 x 112 best 512   mean over time and space
    ``VideoMAE``    16 x 224 x 224     768   mean of the last states over all patches
    =============== ================== ===== ==========================================================

    The sizes of ``VideoMAE`` are those of its base model.

    Args:
        name: of the table: three of torchvision, and VideoMAE of Transformers.
        weights: of torchvision: path of a state dict, or a name that torchvision downloads; of VideoMAE: a name on the
            hub, or a folder. None for the published ones (``KINETICS400_V1``; ``MCG-NJU/videomae-base``).
        pretrained: start from these weights; False starts at random.
        config: of VideoMAE: its configuration as plain data; None reads it where ``weights`` says. A trained model
            brings its own.

    Raises:
        ImportError: when torchvision, or for VideoMAE transformers, is not installed.
        FileNotFoundError: ``weights`` is neither a file nor a name.
        RuntimeError: when they cannot be had.
        ValueError: an unknown name, other weights; of an input: another size than the tower takes.

    Source: Li et al., MViTv2, CVPR 2022; Liu et al., Video Swin, CVPR 2022; Tran et al., R(2+1)D, CVPR 2018; Tong et
    al., VideoMAE, NeurIPS 2022
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        pretrained: bool = True,
        config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if name not in (*_FILM, _VIDEOMAE):
            raise ValueError(did_you_mean("video tower", name, (*_FILM, _VIDEOMAE)))
        require(f"The tower {name}", "transformers" if name == _VIDEOMAE else "torchvision")
        self.name, self.weights, self.pretrained, self.expects = name, weights, pretrained, {"normalize": "imagenet"}
        self.config: dict[str, Any] | None = None
        moments, self.size = _IMAGENET, None
        if name == _VIDEOMAE:
            self.net: Any = self._videomae(weights or "MCG-NJU/videomae-base", config)
            side = self.net.config.image_size
            self.size, self.blocks = (self.net.config.num_frames, side, side), _children(self.net, "encoder.layer")
        else:
            of = _FILM[name]
            self.net, self.size, moments = self._torchvision(of), of.size, (of.mean, of.deviation)
            if of.blocks:  # others have those of a ResNet
                self.blocks = _children(self.net, of.blocks)
        (mean, deviation), (own, spread) = (map(torch.tensor, pair) for pair in (_IMAGENET, moments))
        self.scale: Tensor
        self.offset: Tensor
        self.register_buffer("scale", (deviation / spread)[:, None, None, None], persistent=False)
        self.register_buffer("offset", ((mean - own) / spread)[:, None, None, None], persistent=False)

    def _torchvision(self, of: _Film) -> nn.Module:
        from torchvision import models

        net: Any = getattr(models.video, self.name)()
        if self.pretrained:
            weights = self.weights or _KINETICS
            adopt(net, torchvision_state(self.name, weights), weights, leave=(f"{of.head}.",))
        self.dim = next(m.in_features for m in getattr(net, of.head).modules() if isinstance(m, nn.Linear))
        setattr(net, of.head, nn.Identity())
        for module in net.modules():
            if type(module) is nn.BatchNorm3d:
                module.__class__ = BatchNorm3d
        return net

    def _videomae(self, source: str, config: Mapping[str, Any] | None) -> nn.Module:
        import transformers

        if config is None:
            config = from_hub(source, lambda: transformers.AutoConfig.from_pretrained(source)).to_dict()
        if config["model_type"] != "videomae":
            raise ValueError(f"{source!r} is a {config['model_type']} model; VideoMAE needs one of the type videomae.")
        self.config, self.dim = dict(config), int(config["hidden_size"])
        return _model(transformers.VideoMAEModel, source, config, self.pretrained)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[1] != 3 or (self.size is not None and tuple(x.shape[2:]) != self.size):
            count, height, width = self.size or ("T", "H", "W")
            reader = "video, frames or clip" if self.size is None else f"count={count} and size={height}"
            raise ValueError(
                f"{self.name} takes video (batch, 3, {count}, {height}, {width}); got {tuple(x.shape)}. Give the "
                f"reader {reader}."
            )
        x = x.float() * self.scale + self.offset
        if self.name == _VIDEOMAE:
            return self.net(x.transpose(1, 2)).last_hidden_state.mean(1)
        return self.net(x)
