"""Estimators of scikit-learn: ``fit``, ``predict`` and ``score`` on several modalities as one ``X``.

Their classes derive from scikit-learn's, so this package is imported on first use only.
"""

from counterpoise.estimators.bundle import Bundle
from counterpoise.estimators.classifier import MultimodalClassifier
from counterpoise.estimators.regressor import MultimodalRegressor

__all__ = ["Bundle", "MultimodalClassifier", "MultimodalRegressor"]
