"""The mathematics of the methods as functions of tensors; they work in any training loop, without the engine."""

from counterpoise.functional.cosines import cosine_logits
from counterpoise.functional.dropping import keep_mask, sample_uniform
from counterpoise.functional.entropy import batch_entropy_weights, entropy_weights
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
from counterpoise.functional.spectrum import (
    InputMoments,
    collect_inputs,
    flat_directions,
    input_rows,
    input_shape,
    project_inputs,
    rls_update,
    second_moment,
)
from counterpoise.functional.statistics import frozen_statistics

__all__ = [
    "InputMoments",
    "agm_coefficients",
    "agm_ratios",
    "ascended",
    "assign",
    "batch_entropy_weights",
    "changed_fraction",
    "coalitions",
    "collect_inputs",
    "cosine",
    "cosine_logits",
    "entropy_weights",
    "flat_directions",
    "flatten",
    "frozen_statistics",
    "ge_noise",
    "global_norm",
    "input_rows",
    "input_shape",
    "keep_mask",
    "merge_prototypes",
    "ogm_coefficients",
    "ogm_ratios",
    "opm_rates",
    "opm_ratios",
    "pmr_coefficients",
    "project_inputs",
    "prototype_distances",
    "prototype_logits",
    "rls_update",
    "sample_uniform",
    "second_moment",
    "shapley",
    "stratified",
    "unflatten",
]
