"""Ways to turn the features of several modalities into one prediction.

``__all__`` is the registry: every name but ``Fusion`` can be given to ``build_model``.
"""

from counterpoise.fusions.attention import Attention
from counterpoise.fusions.base import Fusion
from counterpoise.fusions.boosted import Boosted
from counterpoise.fusions.concat import Concat
from counterpoise.fusions.film import FiLM
from counterpoise.fusions.gated import Gated
from counterpoise.fusions.geodesic import Geodesic
from counterpoise.fusions.late import Late
from counterpoise.fusions.mmtm import MMTM
from counterpoise.fusions.shared import Shared
from counterpoise.fusions.sum import Sum
from counterpoise.fusions.wide_deep import WideDeep

__all__ = [
    "MMTM",
    "Attention",
    "Boosted",
    "Concat",
    "FiLM",
    "Fusion",
    "Gated",
    "Geodesic",
    "Late",
    "Shared",
    "Sum",
    "WideDeep",
]
