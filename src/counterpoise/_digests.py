"""Hashes of texts and tensors."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def digest(*parts: str | Tensor) -> str:
    """A short hash of texts and tensors; the same on every machine and in every process."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().cpu().contiguous()
            state.update(f"{part.dtype} {tuple(part.shape)}\0".encode())
            state.update(part.flatten().view(torch.uint8).numpy().data)
        else:
            state.update(f"{len(part)} {part}\0".encode())
    return state.hexdigest()


def digest_of_weights(module: nn.Module) -> str:
    """A short hash of names, types, shapes and numbers of all that a module keeps."""
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return digest(*(part for item in state.items() for part in item))
