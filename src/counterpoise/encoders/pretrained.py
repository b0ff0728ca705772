"""Encoders from timm and transformers, which are extras."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean, whole
from counterpoise._extras import require
from counterpoise.encoders._frames import over_frames
from counterpoise.encoders._weights import adopt, from_hub, read_weights


class Timm(nn.Module):
    """An image encoder of the timm library by name: (batch, channels, H, W) -> (batch, dim).

    Frames (batch, channels, T, H, W) are folded into the batch and their features averaged.

    Args:
        name: as in ``timm.list_models()``, for example ``"resnet50"``.
        pretrained: start from published weights, which are downloaded once.
        channels: channels of the input.
        weights: path of a state dict of this model (``.safetensors``, or of ``torch.save``), instead of
            ``pretrained``. Its classifier is left out, its first convolution averaged over the
            channels where their number differs.

    Raises:
        ImportError: when timm is not installed.
        FileNotFoundError: when there is no file ``weights``.
        ValueError: for a name that timm does not know, weights of another model, or both sources.
        RuntimeError: when the weights cannot be had.
    """

    def __init__(self, name: str, *, pretrained: bool = False, channels: int = 3, weights: str | None = None):
        super().__init__()
        require("The encoder Timm", "timm")
        import timm

        self.name, self.pretrained, self.channels = name, pretrained, whole("channels", channels, low=1)
        self.weights = weights
        if pretrained and weights is not None:
            raise ValueError("pretrained=True downloads weights and weights=... reads a file: give one of the two.")
        if not timm.is_model(name):
            raise ValueError(did_you_mean("timm model", name, timm.list_models()))
        try:
            net = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels)
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"timm could not make {name!r} (pretrained={pretrained}): {error}. Without a connection, give the "
                "path of a file with its weights, weights='path/to/model.safetensors', put them into the cache "
                "beforehand, or pass pretrained=False."
            ) from error
        if weights is not None:
            facts: dict[str, Any] = net.pretrained_cfg  # pyright: ignore[reportAssignmentType]
            first, heads = (_names(facts.get(key)) for key in ("first_conv", "classifier"))
            where = f"Give the path of a state dict of timm's {name}."
            adopt(
                net,
                read_weights(weights, where),
                weights,
                first=f"{first[0]}.weight" if first else None,
                leave=[f"{head}." for head in heads],
            )
        self.net: nn.Module = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.dim = int(getattr(net, "head_hidden_size", None) or net.num_features)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(self.net, x)


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


class Transformers(nn.Module):
    """A text encoder of the transformers library: the last state of the first token, [CLS].

    (batch, T) token numbers of the model's own tokeniser -> (batch, dim). Padding is masked. The pooling
    layer behind [CLS] that some models have is left out.

    Args:
        name_or_path: as for ``transformers.AutoModel.from_pretrained``, for example
            ``"bert-base-uncased"`` or a folder.
        pretrained: start from its weights; False takes only the architecture from its configuration.
        pad: the token number of padding (0 for BERT, 1 for RoBERTa); None asks the model's tokeniser, and
            its configuration where there is no tokeniser.

    Raises:
        ImportError: when transformers is not installed.
        RuntimeError: when configuration or weights cannot be had.
        ValueError: when the padding is not known, or the model is none that encodes.
    """

    def __init__(self, name_or_path: str, *, pretrained: bool = True, pad: int | None = None):
        super().__init__()
        transformers = _library("Transformers")
        self.name_or_path, self.pretrained, self.pad = name_or_path, pretrained, pad
        config: Any = from_hub(name_or_path, lambda: transformers.AutoConfig.from_pretrained(name_or_path))
        made = transformers.AutoModel
        net: Any = from_hub(
            name_or_path, lambda: made.from_pretrained(name_or_path) if pretrained else made.from_config(config)
        ).float()
        if config.is_encoder_decoder or not hasattr(config, "hidden_size"):
            raise ValueError(
                f"{name_or_path!r} ({config.model_type}) is no text encoder as BERT is. For CLIP there are CLIPText "
                "and CLIPImage."
            )
        if "add_pooling_layer" in inspect.signature(type(net).__init__).parameters:
            net.pooler = None  # it would train on nothing
        self.net: nn.Module = net
        self.dim = int(config.hidden_size)
        self._pad = _padding(transformers, name_or_path, config) if pad is None else whole("pad", pad, low=0)

    def forward(self, x: Tensor) -> Tensor:
        there = x != self._pad
        there[:, 0] = True  # so that an empty text attends to something
        return self.net(input_ids=x, attention_mask=there.to(x.dtype)).last_hidden_state[:, 0]


_CLIPS = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""Type of a configuration -> the model with both towers."""


class CLIPText(nn.Module):
    """The text tower of CLIP (Radford et al., ICML 2021) or SigLIP: (batch, T) token numbers -> (batch, dim).

    The feature of CLIP is the last state of the end-of-text token after normalisation. A token attends to those
    before it only, so the padding behind the end of the text has no influence and needs no mask. That of SigLIP (Zhai
    et al., ICCV 2023) is the last token's state after its head; it was trained on 64 tokens, padding included and not
    masked, so give the reader ``length=64``.

    Args:
        name_or_path: a name on the hub or a folder, for example ``"openai/clip-vit-base-patch32"`` or
            ``"google/siglip-base-patch16-224"``.
        projection: give the feature projected into the space that texts and images share; of SigLIP it always is.
        pretrained: start from its weights; False takes only the architecture from its configuration.

    Raises:
        ImportError: when transformers is not installed.
        RuntimeError: when configuration or weights cannot be had.
        ValueError: when it is no CLIP or SigLIP model.
    """

    def __init__(self, name_or_path: str, *, projection: bool = False, pretrained: bool = True):
        super().__init__()
        self.name_or_path, self.projection, self.pretrained = name_or_path, projection, pretrained
        clip = _clip("CLIPText", name_or_path, pretrained)
        self.net: nn.Module = clip.text_model
        shared = projection and hasattr(clip, "text_projection")
        self.project: nn.Module = clip.text_projection if shared else nn.Identity()
        text = clip.config.text_config
        self.dim = int(clip.config.projection_dim if shared else getattr(text, "projection_size", text.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.net(input_ids=x).pooler_output)


class CLIPImage(nn.Module):
    """The image tower of CLIP (Radford et al., ICML 2021) or SigLIP: (batch, 3, H, W) -> (batch, dim).

    The feature of CLIP is the last state of the class token after normalisation, that of SigLIP (Zhai et al., ICCV
    2023) what its attention pooling makes of all patches. Frames (batch, 3, T, H, W) are folded into the batch and
    their features averaged. Images must have the size of the model (224) and the normalisation of the model: the
    readers' ``normalize=clip``, for SigLIP ``i3d`` (values in [-1, 1]).

    Args:
        name_or_path: a name on the hub or a folder, for example ``"openai/clip-vit-base-patch32"`` or
            ``"google/siglip-base-patch16-224"``.
        projection: give the feature projected into the space that texts and images share; of SigLIP it always is.
        pretrained: start from its weights; False takes only the architecture from its configuration.

    Raises:
        ImportError: when transformers is not installed.
        RuntimeError: when configuration or weights cannot be had.
        ValueError: when it is no CLIP or SigLIP model.
    """

    def __init__(self, name_or_path: str, *, projection: bool = False, pretrained: bool = True):
        super().__init__()
        self.name_or_path, self.projection, self.pretrained = name_or_path, projection, pretrained
        clip = _clip("CLIPImage", name_or_path, pretrained)
        self.net: nn.Module = clip.vision_model
        shared = projection and hasattr(clip, "visual_projection")
        self.project: nn.Module = clip.visual_projection if shared else nn.Identity()
        self.dim = int(clip.config.projection_dim if shared else clip.config.vision_config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(lambda images: self.project(self.net(pixel_values=images).pooler_output), x)


def _library(encoder: str) -> Any:
    """The transformers library, or ImportError that says how to install it."""
    require(f"The encoder {encoder}", "transformers")
    import transformers

    return transformers


def _clip(encoder: str, name: str, pretrained: bool) -> Any:
    transformers = _library(encoder)
    kind = from_hub(name, lambda: transformers.AutoConfig.from_pretrained(name)).model_type
    if kind not in _CLIPS:
        raise ValueError(f"{name!r} is a {kind} model; {encoder} needs a CLIP or SigLIP model. Use Transformers.")
    made = getattr(transformers, _CLIPS[kind])

    def model() -> Any:
        return made.from_pretrained(name) if pretrained else made(made.config_class.from_pretrained(name))

    return from_hub(name, model).float()


def _padding(transformers: Any, name: str, config: Any) -> int:
    """The padding of the model's tokeniser; without one, of its configuration."""
    padding = None
    # of a folder without these files transformers would make up a tokeniser
    if not Path(name).is_dir() or any((Path(name) / f"tokenizer{end}.json").is_file() for end in ("", "_config")):
        try:
            padding = transformers.AutoTokenizer.from_pretrained(name).pad_token_id
        except (OSError, ValueError, ImportError):  # a model without one, or one that needs a further library
            padding = None
    if padding is None:
        padding = getattr(config, "pad_token_id", None)
    if padding is None:
        raise ValueError(f"{name!r} does not say which token is padding; pass pad=<its number>.")
    return int(padding)
