"""Probes: what can be read from a model's activations, and the controls that say what that means.

    fit_logistic, fit_multinomial, fit_ridge, fit_mass_mean, fit_mlp    read a label, at many sites in one call
    group_folds, stratified_folds, check_no_leak                        what is fitted on and what is held out
    control_labels, selectivity, online_codelength                      how much of it the probe did itself
    fit_leace, inlp, random_subspace                                    take it out of the activations
    fit_distance_probe, tree_distances, spanning_tree, uuas             syntax trees as distances
    fit_ccs                                                             a direction found without labels

A probe says what *can be read*. Whether the model uses it, an intervention has to say.
"""

from utils.probes.base import LinearProbes, check_no_leak, group_folds, stratified_folds
from utils.probes.linear import RidgeProbes, fit_mass_mean, fit_ridge
from utils.probes.logistic import LogisticProbes, MultinomialProbes, fit_logistic, fit_multinomial

__all__ = [
    "LinearProbes",
    "LogisticProbes",
    "MultinomialProbes",
    "RidgeProbes",
    "check_no_leak",
    "fit_logistic",
    "fit_mass_mean",
    "fit_multinomial",
    "fit_ridge",
    "group_folds",
    "stratified_folds",
]
