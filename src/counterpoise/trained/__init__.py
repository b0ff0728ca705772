"""A trained model away from its training: raw samples in, predictions out."""

from counterpoise.trained.loading import NeedsPythonError, described_at, load
from counterpoise.trained.model import TrainedModel
from counterpoise.trained.votes import Prediction, Vote

__all__ = ["NeedsPythonError", "Prediction", "TrainedModel", "Vote", "described_at", "load"]
