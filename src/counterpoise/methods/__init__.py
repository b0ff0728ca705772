"""Training methods. ``__all__`` is the registry: what is listed has a table row and runs by name."""

from counterpoise.methods.igm import IGM
from counterpoise.methods.joint import Joint
from counterpoise.methods.mla import MLA
from counterpoise.methods.unimodal import Unimodal

__all__ = ["IGM", "MLA", "Joint", "Unimodal"]
