"""A trained model as one file that runs without this package: ONNX, or PyTorch's ``.pt2``."""

from counterpoise.exporting.opened import Exported
from counterpoise.exporting.writing import export

__all__ = ["Exported", "export"]
