"""Looking at trained models: functions of a model and a split that give arrays. Nothing here trains."""

from counterpoise.analysis.arrays import load, save
from counterpoise.analysis.balance import (
    GradientBalance,
    Overfitting,
    contributions,
    gradient_balance,
    overfitting_ratio,
    subset_hits,
)
from counterpoise.analysis.balance_watch import BALANCE, BalanceCurves, BalanceWatch
from counterpoise.analysis.gradient_change import (
    GRADIENT_CHANGE,
    GradientChange,
    GradientChanges,
    Histogram,
    common_head_weights,
    histogram,
)
from counterpoise.analysis.hessian import (
    Eigenvalues,
    Sharpness,
    Trace,
    gradient_norm,
    hessian_product,
    sam_sharpness,
    top_eigenvalues,
    trace,
)
from counterpoise.analysis.landscape import Path, Surface, filter_directions, interpolate, loss_surface
from counterpoise.analysis.objective import SplitLoss, gradient, sample, value
from counterpoise.analysis.probe import Probe, features, linear_probe
from counterpoise.analysis.singular_values import LayerSpectrum, head_layers, input_spectra

__all__ = [
    "BALANCE",
    "GRADIENT_CHANGE",
    "BalanceCurves",
    "BalanceWatch",
    "Eigenvalues",
    "GradientBalance",
    "GradientChange",
    "GradientChanges",
    "Histogram",
    "LayerSpectrum",
    "Overfitting",
    "Path",
    "Probe",
    "Sharpness",
    "SplitLoss",
    "Surface",
    "Trace",
    "common_head_weights",
    "contributions",
    "features",
    "filter_directions",
    "gradient",
    "gradient_balance",
    "gradient_norm",
    "head_layers",
    "hessian_product",
    "histogram",
    "input_spectra",
    "interpolate",
    "linear_probe",
    "load",
    "loss_surface",
    "overfitting_ratio",
    "sam_sharpness",
    "sample",
    "save",
    "subset_hits",
    "top_eigenvalues",
    "trace",
    "value",
]
