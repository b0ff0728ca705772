"""A trained model away from its training: raw samples in, predictions out."""

from counterpoise.trained.loading import load
from counterpoise.trained.model import TrainedModel
from counterpoise.trained.votes import Prediction, Vote

__all__ = ["Prediction", "TrainedModel", "Vote", "load"]
