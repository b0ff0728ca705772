"""What ``auto`` trains, as settings that anybody can use: the command, Python, an estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from counterpoise.build import build_model, encoder_for
from counterpoise.data.split import Splits
from counterpoise.method import Method
from counterpoise.methods import MSES
from counterpoise.model import MultimodalModel
from counterpoise.types import FUSED


@dataclass(frozen=True)
class Preset:
    """A way of training and predicting.

    Attributes:
        method: the class of the method.
        settings: its arguments.
        training: arguments of ``Trainer``.
        building: arguments of ``build_model``.
    """

    method: type[Method]
    settings: Mapping[str, Any]
    training: Mapping[str, Any]
    building: Mapping[str, Any]

    def options(self) -> dict[str, Any]:
        """The same as options of ``counterpoise fit``, where the method asks for heads by itself."""
        path = f"{self.method.__module__}.{self.method.__qualname__}"
        settings = {f"method.{name}": value for name, value in self.settings.items()}
        return {"method": path, **settings, **self.training, "pool": self.building["pool"]}

    @property
    def fusion(self) -> Any:
        """What fuses."""
        return self.building["fusion"]

    def fused_by(self, fusion: Any) -> Preset:
        """The same with another fusion; None leaves it."""
        return self if fusion is None else replace(self, building={**self.building, "fusion": fusion})

    def without(self, failed: Collection[str], modalities: Collection[str]) -> Preset:
        """The same for data on which these experts fail: those modalities are not read, and nothing fuses but votes."""
        sound = [m for m in modalities if m not in failed]
        chosen = self if len(sound) == len(modalities) else replace(self, settings={**self.settings, "only": sound})
        return chosen.fused_by("Late" if FUSED in failed else None)


DEFAULT = Preset(
    MSES, {"patience": 5, "joint": True}, {"sam": 0.05}, {"fusion": "WideDeep", "heads": True, "pool": True}
)
"""One run: the fused loss and one of each modality until the fused prediction no longer improves, then each modality is
stopped where it begins to overfit; flat minima. Its prediction is the pool of the fused and the own heads. The hidden
layer of the fusion has what the modalities tell only together."""


def model_of(data: Splits, encoders: Mapping[str, Any] | None, preset: Preset, **building: Any) -> MultimodalModel:
    """A new model for these data.

    Args:
        data: the data set.
        encoders: modality -> what makes its encoder; those left out get the default of what a sample looks like.
        preset: what it is built for.
        **building: of ``build_model``; wins over the preset's.

    Raises:
        ValueError: for an encoder of a modality that the data do not have, and as ``build_model``.
    """
    given = dict(encoders or {})
    made = {m: given.pop(m, partial(encoder_for, data.train, m)) for m in data.modalities}
    return build_model({**made, **given}, task=data.task, example=data.train, **{**preset.building, **building})
