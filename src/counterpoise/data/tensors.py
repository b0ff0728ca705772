"""What users hold as numbers, as tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_of(values: Any, name: str) -> Tensor:
    """What users hold as numbers, as a dense CPU tensor; floats become float32, other numbers keep their type.

    Nothing is copied when the type fits.

    Args:
        values: a tensor, a NumPy array, or what NumPy makes one of.
        name: what to call it in messages.

    Raises:
        ValueError: no numbers, ragged, sparse, complex.
    """
    if isinstance(values, Tensor):
        return _dense(values, name)
    if hasattr(values, "toarray"):
        raise ValueError(f"{name} must be a dense array; got {type(values).__name__}. Pass x.toarray().")
    try:
        array = np.asanyarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} must be an array, every sample of one shape: {error} Pad the samples to one length."
        ) from error
    if array.dtype.kind not in "fiub":
        hint = " Pass x.astype(float)." if array.dtype.kind in "OU" else ""
        raise ValueError(f"{name} must be numbers; got dtype {array.dtype}.{hint}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        if array.dtype.itemsize == 8 and array.max(initial=0) > np.iinfo(np.int64).max:
            raise ValueError(f"{name} has whole numbers above 2^63 - 1. Pass x.astype(float).")
        array = array.astype(np.int64)
    kind = array.dtype
    if kind.kind == "f" and (kind.itemsize > 4 or not kind.isnative):
        array = array.astype(np.float32)
    elif not kind.isnative:
        array = array.astype(kind.newbyteorder("="))
    if min(array.strides, default=0) < 0:
        array = np.ascontiguousarray(array)
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():  # nothing here writes to the array
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)


def _dense(values: Tensor, name: str) -> Tensor:
    kind = str(values.layout).removeprefix("torch.") if values.layout != torch.strided else ""
    kind = "nested" if values.is_nested else "quantized" if values.is_quantized else "meta" if values.is_meta else kind
    kind = "masked" if hasattr(values, "get_mask") else kind
    if kind or values.is_complex():
        cures = {"quantized": "Pass x.dequantize().", "": "Pass torch.view_as_real(x), or x.abs()."}
        cures |= {
            "nested": "Pass x.to_padded_tensor(0).",
            "meta": "It holds no values.",
            "masked": "Pass x.to_tensor(0).",
        }
        raise ValueError(
            f"{name} must be a dense tensor of real numbers; got {f'a {kind} one of ' if kind else ''}"
            f"{values.dtype}. {cures.get(kind, 'Pass x.to_dense().')}"
        )
    x = values.detach().cpu()
    return tensor_of(x.numpy(), name) if x.dtype in (torch.uint16, torch.uint32, torch.uint64) else x
