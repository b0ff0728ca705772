"""Imports Lightning Fabric without torchmetrics, torchvision and transformers; the first import of the engine.

Fabric imports torchmetrics to compare its version, for a feature that is not used here, and torchmetrics imports
torchvision, transformers and scipy where they are installed: two thirds of the time that the engine takes to import.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType


def import_fabric() -> None:
    """Import it beside a module that knows nothing but the version; the real one is imported when a score needs it."""
    if "torchmetrics" in sys.modules or "lightning_fabric" in sys.modules:
        return  # nothing to save
    known = ModuleType("torchmetrics")
    known.__version__ = metadata.version("torchmetrics")  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["torchmetrics"] = known
    try:
        import lightning_fabric  # noqa: F401 - for its effect
    finally:
        del sys.modules["torchmetrics"]


import_fabric()
