"""The mathematics of the methods as functions of tensors; they work in any training loop, without the engine."""

from counterpoise.functional.alignment import (
    distillation_losses,
    feature_distances,
    gap_weight,
    info_nce,
    label_distillation_losses,
    look_ahead,
)
from counterpoise.functional.blending import blend_weights, overfitting_to_generalization
from counterpoise.functional.boosting import boost_loss, boosting_stages, consolidation_loss
from counterpoise.functional.confidence import confidence_rise
from counterpoise.functional.cosines import cosine_logits
from counterpoise.functional.dependence import dependence, hidden_share, hide
from counterpoise.functional.detached import class_means, effective_dimensions, lesson, vote_weights
from counterpoise.functional.divergence import divergence, fusion_gate, gated_losses
from counterpoise.functional.dropping import keep_mask, sample_uniform
from counterpoise.functional.entropy import batch_entropy_weights, certainty_weights, entropy_weights
from counterpoise.functional.gaussian_pooling import GaussianPool, fit_gaussian_pool, pooled_gaussian
from counterpoise.functional.geodesic import agreement_share, geodesic, geodesic_weights
from counterpoise.functional.gradients import assign, cosine, flatten, global_norm, held, unflatten
from counterpoise.functional.min_norm import min_norm_pair, pareto_gradient
from counterpoise.functional.misalignment import (
    confidence_shares,
    misaligned_losses,
    under_predicted,
    weak_modality_weights,
)
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
from counterpoise.functional.pool_fitting import fit_label_pools, fit_pool
from counterpoise.functional.pooling import Pool, pooled, pooled_labels
from counterpoise.functional.prototypes import (
    merge_prototypes,
    pmr_coefficients,
    prototype_distances,
    prototype_logits,
    stratified,
)
from counterpoise.functional.rates import accuracy_ratio, smoothed_rates
from counterpoise.functional.regulation import growth, lead, regulation, released_regulation
from counterpoise.functional.relearning import k_means, purity, return_share, scaled
from counterpoise.functional.remixing import bits_from_uniform, least_separating, remixed_rows
from counterpoise.functional.residual import left_behind, residual_losses
from counterpoise.functional.self_distillation import Distilled, distilled
from counterpoise.functional.sequence import agreement, balance_scores, draw_weights, pace
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley, shapley_error
from counterpoise.functional.spectrum import (
    InputMoments,
    collect_inputs,
    flat_directions,
    input_rows,
    input_shape,
    project_inputs,
    rls_update,
    second_moment,
    thin_flat_directions,
)
from counterpoise.functional.speeds import conditional_speed, leaning_most
from counterpoise.functional.statistics import frozen_statistics
from counterpoise.functional.stopping import Patience, expired, observe
from counterpoise.functional.total_correlation import log_partition, log_partition_of_sums
from counterpoise.functional.valuation import smv_copies, smv_draws, smv_gaps, smv_values, training_list

__all__ = [
    "Distilled",
    "GaussianPool",
    "InputMoments",
    "Patience",
    "Pool",
    "accuracy_ratio",
    "agm_coefficients",
    "agm_ratios",
    "agreement",
    "agreement_share",
    "ascended",
    "assign",
    "balance_scores",
    "batch_entropy_weights",
    "bits_from_uniform",
    "blend_weights",
    "boost_loss",
    "boosting_stages",
    "certainty_weights",
    "changed_fraction",
    "class_means",
    "coalitions",
    "collect_inputs",
    "conditional_speed",
    "confidence_rise",
    "confidence_shares",
    "consolidation_loss",
    "cosine",
    "cosine_logits",
    "dependence",
    "distillation_losses",
    "distilled",
    "divergence",
    "draw_weights",
    "effective_dimensions",
    "entropy_weights",
    "expired",
    "feature_distances",
    "fit_gaussian_pool",
    "fit_label_pools",
    "fit_pool",
    "flat_directions",
    "flatten",
    "frozen_statistics",
    "fusion_gate",
    "gap_weight",
    "gated_losses",
    "ge_noise",
    "geodesic",
    "geodesic_weights",
    "global_norm",
    "growth",
    "held",
    "hidden_share",
    "hide",
    "info_nce",
    "input_rows",
    "input_shape",
    "k_means",
    "keep_mask",
    "label_distillation_losses",
    "lead",
    "leaning_most",
    "least_separating",
    "left_behind",
    "lesson",
    "log_partition",
    "log_partition_of_sums",
    "look_ahead",
    "merge_prototypes",
    "min_norm_pair",
    "misaligned_losses",
    "observe",
    "ogm_coefficients",
    "ogm_ratios",
    "opm_rates",
    "opm_ratios",
    "overfitting_to_generalization",
    "pace",
    "pareto_gradient",
    "pmr_coefficients",
    "pooled",
    "pooled_gaussian",
    "pooled_labels",
    "project_inputs",
    "prototype_distances",
    "prototype_logits",
    "purity",
    "regulation",
    "released_regulation",
    "remixed_rows",
    "residual_losses",
    "return_share",
    "rls_update",
    "sample_uniform",
    "sampled_orders",
    "scaled",
    "second_moment",
    "shapley",
    "shapley_error",
    "smoothed_rates",
    "smv_copies",
    "smv_draws",
    "smv_gaps",
    "smv_values",
    "stratified",
    "thin_flat_directions",
    "training_list",
    "under_predicted",
    "unflatten",
    "vote_weights",
    "weak_modality_weights",
]
