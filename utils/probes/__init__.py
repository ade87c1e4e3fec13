"""Probes: what can be read from a model's activations, and the controls that say what that means.

    fit_logistic, fit_multinomial, fit_ridge, fit_mass_mean, fit_mlp    read a label, at many sites in one call
    group_folds, stratified_folds, check_no_leak                        what is fitted on and what is held out
    control_labels, selectivity, online_codelength                      how much of it the probe did itself
    fit_leace, inlp, random_subspace                                    take it out of the activations
    fit_distance_probe, tree_scores                                     syntax trees as distances
    fit_ccs                                                             a direction found without labels

A probe says what *can be read*. Whether the model uses it, an intervention has to say.
"""

from utils.probes.base import LinearProbes, check_no_leak, group_folds, stratified_folds
from utils.probes.ccs import CCSProbe, ccs_loss, fit_ccs
from utils.probes.codelength import Codelength, online_codelength
from utils.probes.controls import ControlTask, control_labels, control_task, selectivity
from utils.probes.erasure import Eraser, InlpSubspace, Subspace, fit_leace, inlp, random_subspace
from utils.probes.linear import RidgeProbes, fit_mass_mean, fit_ridge
from utils.probes.logistic import LogisticProbes, MultinomialProbes, fit_logistic, fit_multinomial
from utils.probes.mlp import MLPProbes, fit_mlp
from utils.probes.structural import (
    DistanceProbe,
    Trees,
    TreeScores,
    chain,
    fit_distance_probe,
    punctuation,
    spanning_tree,
    spearman,
    tree_distances,
    tree_scores,
    unprojected,
    uuas,
)

__all__ = [
    "CCSProbe",
    "Codelength",
    "ControlTask",
    "DistanceProbe",
    "Eraser",
    "InlpSubspace",
    "LinearProbes",
    "LogisticProbes",
    "MLPProbes",
    "MultinomialProbes",
    "RidgeProbes",
    "Subspace",
    "TreeScores",
    "Trees",
    "ccs_loss",
    "chain",
    "check_no_leak",
    "control_labels",
    "control_task",
    "fit_ccs",
    "fit_distance_probe",
    "fit_leace",
    "fit_logistic",
    "fit_mass_mean",
    "fit_mlp",
    "fit_multinomial",
    "fit_ridge",
    "group_folds",
    "inlp",
    "online_codelength",
    "punctuation",
    "random_subspace",
    "selectivity",
    "spanning_tree",
    "spearman",
    "stratified_folds",
    "tree_distances",
    "tree_scores",
    "unprojected",
    "uuas",
]
