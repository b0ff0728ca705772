"""Encoders from timm and transformers, which are extras."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from counterpoise._checks import did_you_mean, number
from counterpoise.encoders._frames import over_frames


class Timm(nn.Module):
    """An image encoder of the timm library by name: (batch, channels, H, W) -> (batch, dim).

    Frames (batch, channels, T, H, W) are folded into the batch and their features averaged.

    Args:
        name: as in ``timm.list_models()``, for example ``"resnet50"``.
        pretrained: start from published weights, which are downloaded once.
        channels: channels of the input.

    Raises:
        ImportError: when timm is not installed.
        ValueError: for a name that timm does not know.
        RuntimeError: when the weights cannot be had.
    """

    def __init__(self, name: str, *, pretrained: bool = False, channels: int = 3):
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ImportError("Timm needs the timm library: pip install 'counterpoise[timm]'.") from error
        self.name, self.pretrained, self.channels = name, pretrained, int(number("channels", channels, low=1))
        if not timm.is_model(name):
            raise ValueError(did_you_mean("timm model", name, timm.list_models()))
        try:
            net = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels)
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f"timm could not make {name!r} (pretrained={pretrained}): {error}. Without a connection, "
                "put the weights into the cache beforehand or pass pretrained=False."
            ) from error
        self.net: nn.Module = net
        self.dim = int(getattr(net, "head_hidden_size", None) or net.num_features)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(self.net, x)


class Transformers(nn.Module):
    """A text encoder of the transformers library: the last state of the first token, [CLS].

    (batch, T) token numbers of the model's own tokeniser -> (batch, dim). Padding is masked.

    Args:
        name_or_path: as for ``transformers.AutoModel.from_pretrained``, for example
            ``"bert-base-uncased"`` or a folder.
        pretrained: start from its weights; False takes only the architecture from its configuration.
        pad: the token number of padding; None asks the model's configuration.

    Raises:
        ImportError: when transformers is not installed.
        RuntimeError: when configuration or weights cannot be had.
    """

    def __init__(self, name_or_path: str, *, pretrained: bool = True, pad: int | None = None):
        super().__init__()
        try:
            from transformers import AutoConfig, AutoModel
        except ImportError as error:
            raise ImportError("Transformers needs its library: pip install 'counterpoise[text]'.") from error
        self.name_or_path, self.pretrained, self.pad = name_or_path, pretrained, pad
        try:
            config: Any = AutoConfig.from_pretrained(name_or_path)
            self.net: nn.Module = (
                AutoModel.from_pretrained(name_or_path) if pretrained else AutoModel.from_config(config)
            )
        except (OSError, ValueError) as error:
            raise RuntimeError(
                f"transformers could not load {name_or_path!r}: {error}. Without a connection, give a folder "
                "that holds the model, or download it into the cache beforehand."
            ) from error
        self.dim = int(config.hidden_size)
        self._pad = pad if pad is not None else (getattr(config, "pad_token_id", None) or 0)

    def forward(self, x: Tensor) -> Tensor:
        there = x != self._pad
        there[:, 0] = True  # so that an empty text attends to something
        return self.net(input_ids=x, attention_mask=there.to(x.dtype)).last_hidden_state[:, 0]
