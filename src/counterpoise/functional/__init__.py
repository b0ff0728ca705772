"""The mathematics of the methods as functions of tensors; they work in any training loop, without the engine."""

from counterpoise.functional.cosines import cosine_logits
from counterpoise.functional.dropping import keep_mask, sample_uniform
from counterpoise.functional.gradients import assign, cosine, flatten, global_norm, unflatten
from counterpoise.functional.modulation import (
    agm_coefficients,
    agm_ratios,
    ge_noise,
    ogm_coefficients,
    ogm_ratios,
    opm_rates,
    opm_ratios,
)
from counterpoise.functional.perturb import ascended, changed_fraction
from counterpoise.functional.prototypes import (
    merge_prototypes,
    pmr_coefficients,
    prototype_distances,
    prototype_logits,
    stratified,
)
from counterpoise.functional.shapley import coalitions, shapley
from counterpoise.functional.statistics import frozen_statistics

__all__ = [
    "agm_coefficients",
    "agm_ratios",
    "ascended",
    "assign",
    "changed_fraction",
    "coalitions",
    "cosine",
    "cosine_logits",
    "flatten",
    "frozen_statistics",
    "ge_noise",
    "global_norm",
    "keep_mask",
    "merge_prototypes",
    "ogm_coefficients",
    "ogm_ratios",
    "opm_rates",
    "opm_ratios",
    "pmr_coefficients",
    "prototype_distances",
    "prototype_logits",
    "sample_uniform",
    "shapley",
    "stratified",
    "unflatten",
]
