"""The methods in loops of others: plain PyTorch, Lightning, Hugging Face's Trainer.

What they share is ``Balance.loss``: a loss like any other, whose backward pass gives the method's gradient.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from counterpoise.integrations.loop import Balance, balance
from counterpoise.integrations.rates import parameter_groups

if TYPE_CHECKING:
    from counterpoise.integrations.on_lightning import LightningBalance
    from counterpoise.integrations.on_transformers import BalancedModel, TransformersBalance

_HOMES = {
    "BalancedModel": "on_transformers",
    "LightningBalance": "on_lightning",
    "TransformersBalance": "on_transformers",
}

__all__ = ["Balance", "BalancedModel", "LightningBalance", "TransformersBalance", "balance", "parameter_groups"]


def __getattr__(name: str) -> Any:
    """Import the other library on first use."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
