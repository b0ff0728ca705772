"""Pretrained encoders that stay as they are but for a few weights beside each layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from counterpoise._checks import did_you_mean, number, whole
from counterpoise._digests import digest_of_weights
from counterpoise._extras import require

BASE = "base"
"""Name of the digest in a checkpoint."""
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""Layers that read the weights of those inside and do not call them."""


class LoRA(nn.Module):
    r"""Low-rank adaptation: a pretrained encoder stays as it is, and two small matrices train beside its linear layers.

    .. math:: W x + \tfrac{\alpha}{r} B A x, \qquad A \in \mathbb{R}^{r \times d_{in}}, \;
              B \in \mathbb{R}^{d_{out} \times r}, \; B = 0 \text{ at first}

    Checkpoints hold A and B, and of the encoder's weights a digest only: whoever opens one needs the file or name that
    they came from, and is refused when it has others. Running statistics of batch normalisation do not move.

    Args:
        encoder: pretrained; maps (batch, ...) to (batch, dim).
        rank: r, at least 1.
        targets: names of the layers, or their ends as ``"query"``; None for every linear layer.
        alpha: :math:`\alpha`, above 0.

    Raises:
        ImportError: when peft is not installed.
        ValueError: for a layer that is not there, settings out of range, or an encoder that starts at random.

    Source: Hu et al., LoRA, ICLR 2022, https://arxiv.org/abs/2106.09685
    """

    from_source: ClassVar[bool] = True  # what is written down says where the encoder's weights come from
    base: Tensor

    def __init__(self, encoder: nn.Module, *, rank: int = 8, targets: Sequence[str] | None = None, alpha: float = 16.0):
        super().__init__()
        require("LoRA", "peft")
        from peft import LoraConfig, inject_adapter_in_model

        self.rank, self.alpha = whole("rank", rank, low=1), number("alpha", alpha, above=0)
        _refuse_random(encoder)
        exactly = "|".join(map(re.escape, _layers(encoder, targets)))  # of a list it would take the ends of names
        self.targets = None if targets is None else list(targets)
        digest = bytes.fromhex(digest_of_weights(encoder))
        self.register_buffer(BASE, torch.tensor(list(digest), dtype=torch.uint8))
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=exactly)  # pyright: ignore[reportArgumentType]
        self.encoder = inject_adapter_in_model(config, encoder.requires_grad_(False))
        if isinstance(dim := getattr(encoder, "dim", None), int):
            self.dim = dim
        self._whole = False
        self.register_state_dict_post_hook(_without_base)
        self.register_load_state_dict_pre_hook(_with_base)

    def train(self, mode: bool = True) -> LoRA:
        """The mode for all but running statistics, which are the encoder's."""
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, _NormBase):
                module.training = False
        return self

    def prepare_export(self) -> None:
        """Add the product to the weights, after which it is the plain encoder and no longer trains so."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, layer in [(n, m) for n, m in self.encoder.named_modules() if isinstance(m, BaseTunerLayer)]:
            layer.merge()
            parent, _, last = name.rpartition(".")
            setattr(self.encoder.get_submodule(parent), last, layer.get_base_layer())
        self._whole = True

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def _refuse_random(encoder: nn.Module) -> None:
    """ValueError for an encoder of ours that nobody could make again, since it starts at random."""
    inner = encoder
    while isinstance(further := getattr(inner, "encoder", None), nn.Module):
        inner = further
    sources = {name: getattr(inner, name) for name in ("weights", "pretrained") if hasattr(inner, name)}
    if sources.get("pretrained") is False or sources == {"weights": None}:
        name = type(inner).__name__
        raise ValueError(
            f"LoRA adapts pretrained weights, and this {name} starts at random, which no checkpoint would hold. Give "
            f"it {' or '.join(f'{source}=' for source in sources)}."
        )


def _layers(encoder: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """Names of the layers that are meant; ValueError where there is none."""
    fused = [name for name, module in encoder.named_modules() if isinstance(module, _FUSED)]
    inside = tuple(f"{name}." if name else "" for name in fused)
    free = {n: m for n, m in encoder.named_modules() if n and not (inside and n.startswith(inside))}
    linear = [name for name, module in free.items() if isinstance(module, nn.Linear)]
    if targets is None:
        if not linear:
            raise ValueError(f"{type(encoder).__name__} has no linear layer to adapt. Name others by targets=[...].")
        return linear
    if isinstance(targets, str):
        raise ValueError(f"targets must be a list of names; got {targets!r}. Pass targets=[{targets!r}].")
    chosen: dict[str, None] = {}
    for target in targets:
        meant = [name for name in free if name == target or name.endswith(f".{target}")]
        if not meant:
            raise ValueError(did_you_mean("layer", target, sorted({name.rpartition(".")[2] for name in linear})))
        chosen |= dict.fromkeys(meant)
    return list(chosen)


def _without_base(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Of a checkpoint: leave the encoder's own tensors out."""
    if getattr(module, "_whole", False):
        return
    for name in [n for n in state if n.startswith(f"{prefix}encoder.") and ".lora_" not in n]:
        del state[name]


def _with_base(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Of a checkpoint that is loaded: the encoder's own tensors are those that are here, if they are the same."""
    *_, errors = rest
    saved, here = state.get(f"{prefix}{BASE}"), module.get_buffer(BASE)
    if isinstance(saved, Tensor) and not torch.equal(saved.cpu(), here.cpu()):
        errors.append(
            f"{prefix}{BASE}: the adapters were trained beside other weights than this encoder has. Give it the file "
            "or name of then"
        )
    own = module.get_submodule("encoder").state_dict()
    state |= {f"{prefix}encoder.{name}": value for name, value in own.items() if ".lora_" not in name}
