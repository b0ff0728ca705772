"""Modules that turn one modality's input into a feature: (batch, ...) -> (batch, dim).

Anything with that signature is an encoder; those here also say their width in ``dim``. None of
them imports an optional library before it is built.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from counterpoise._checks import choice, spelled
from counterpoise.encoders.checkpointed import Checkpointed
from counterpoise.encoders.cnn import CNN
from counterpoise.encoders.i3d import I3D
from counterpoise.encoders.lora import LoRA
from counterpoise.encoders.mlp import MLP
from counterpoise.encoders.pretrained import CLIPImage, CLIPText, Timm, Transformers
from counterpoise.encoders.projected import Projected
from counterpoise.encoders.resnet import ResNet18, ResNet50
from counterpoise.encoders.sequence import SequenceGRU, SequenceTransformer
from counterpoise.encoders.tabular import FTTransformer, TabularMLP
from counterpoise.encoders.text import TextBag, TextGRU
from counterpoise.encoders.towers import AudioTower, VideoTower
from counterpoise.encoders.tuning import FineTuned, Frozen

__all__ = [
    "CNN",
    "ENCODERS",
    "I3D",
    "MLP",
    "AudioTower",
    "CLIPImage",
    "CLIPText",
    "Checkpointed",
    "FTTransformer",
    "FineTuned",
    "Frozen",
    "LoRA",
    "Projected",
    "ResNet18",
    "ResNet50",
    "SequenceGRU",
    "SequenceTransformer",
    "TabularMLP",
    "TextBag",
    "TextGRU",
    "Timm",
    "Transformers",
    "VideoTower",
    "default_encoder",
]

ENCODERS: dict[str, type[nn.Module]] = {
    cls.__name__: spelled(cls)
    for cls in (
        CLIPImage, CLIPText, CNN, FTTransformer, I3D, MLP, ResNet18, ResNet50, SequenceGRU, SequenceTransformer,
        TabularMLP, TextBag, TextGRU, Timm, Transformers, AudioTower, VideoTower, Checkpointed, FineTuned, Frozen,
        LoRA, Projected,
    )
}  # fmt: skip
"""The encoders that have a name in options and configurations."""

_KINDS = ("array", "frames", "image", "sequence", "spectrogram", "tabular", "text", "waveform")


def default_encoder(kind: str, shape: tuple[int, ...], **options: Any) -> nn.Module:
    """A sensible encoder trained from scratch for an input of this kind.

    Args:
        kind: ``"spectrogram"`` or a small ``"image"`` gets a ``CNN``, an image of 96 pixels or more
            and ``"frames"`` a ``ResNet18``, an ``"array"`` an ``MLP``, a ``"sequence"`` of vectors a
            ``SequenceGRU``, ``"text"`` a ``TextGRU``, a row of a table (``"tabular"``) a ``TabularMLP``.
        shape: of one sample: (H, W) or (channels, H, W), (channels, T, H, W) for frames, (T, D) for
            sequences, any for arrays and text.
        **options: for the encoder's constructor; text needs ``vocab_size``, and ``padding`` where that is not 0, a row
            of a table ``numbers`` and ``levels`` where it has more than numbers.

    Raises:
        ValueError: for an unknown kind, or a shape that does not fit it.
    """
    choice("kind", kind, _KINDS)
    if kind == "waveform":
        raise ValueError(
            "A waveform has no encoder by default. Name a tower, as AudioTower('AST') (--encoders.audio AudioTower "
            "--encoders.audio.name AST), or read the column by Audio, which makes spectrograms."
        )
    if kind == "text":
        if "vocab_size" not in options:
            raise ValueError("kind 'text' needs vocab_size, the number of token numbers.")
        return TextGRU(**options)
    if kind == "array":
        return MLP(math.prod(shape), **options)
    if kind == "tabular":
        return TabularMLP(**{"numbers": math.prod(shape), **options})
    wanted = {"sequence": (2,), "frames": (4,), "image": (2, 3), "spectrogram": (2, 3)}[kind]
    if len(shape) not in wanted:
        raise ValueError(f"shape of kind {kind!r} must have {' or '.join(map(str, wanted))} sizes; got {shape}.")
    if kind == "sequence":
        return SequenceGRU(shape[-1], **options)
    channels = 1 if len(shape) == 2 else shape[0]
    if kind == "frames" or (kind == "image" and max(shape[-2:]) >= 96):
        return ResNet18(channels, **options)
    return CNN(channels, **options)
