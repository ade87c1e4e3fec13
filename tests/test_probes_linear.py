"""Probes with an optimum of their own, against scikit-learn, and what they do with bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from utils import probes

TIGHT = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 300}


def grid(sites=3, n=400, d=12, labels=4, seed=0, offset=0.0):
    """Activations [site, n, d] with columns of very unequal size, and labels [label, n], some nearly separable."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=generator)
    mix = torch.randn(sites, d, d, generator=generator)
    x = torch.einsum("nd,sde->sne", z, mix) * torch.logspace(-1, 1, d) + offset
    truth = torch.randn(labels, d, generator=generator)
    noise = torch.randn(labels, n, generator=generator) * torch.linspace(8, 0.3, labels)[:, None]
    return x, (truth @ z.T + noise > 0.5).long()


def peer(x, y, weight=None, scale=False, **settings):
    """scikit-learn's optimum in float64, as coefficients for raw activations."""
    raw = x.double().numpy()
    scaler = StandardScaler().fit(raw) if scale else None
    model = LogisticRegression(**TIGHT | settings).fit(scaler.transform(raw) if scale else raw, y, sample_weight=weight)
    coefficients = model.coef_[0] / scaler.scale_ if scale else model.coef_[0]
    intercept = model.intercept_[0] - (coefficients @ scaler.mean_ if scale else 0)
    return coefficients, float(intercept)


def agrees(got, want, tolerance=1e-4):
    """Within the tolerance, relative to the largest coefficient (the contract is 1e-3)."""
    return np.abs(got.numpy() - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize(
    "settings",
    [{}, {"C": 0.01}, {"C": 100.0}, {"C": math.inf}, {"class_weight": "balanced"}, {"fit_intercept": False}],
    ids=str,
)
def test_logistic_is_scikit_learns_optimum_at_every_site_and_label(settings):
    x, y = grid()
    found = probes.fit_logistic(x, y, **settings)
    assert found.weight.shape == (3, 4, 12) and found.bias.shape == (3, 4)
    assert found.converged.all()
    for site in range(3):
        for label in range(4):
            weight, bias = peer(x[site], y[label].numpy(), **settings)
            assert agrees(found.weight[site, label], weight)
            assert abs(found.bias[site, label].item() - bias) <= 1e-4 * max(1, abs(bias))


def test_standardised_folds_of_a_grid_are_single_fits_on_the_folds_rows():
    x, y = grid(offset=5.0)
    folds = probes.stratified_folds(y[0], 3, seed=1)
    found = probes.fit_logistic(x, y, folds=folds, standardize=True, C=0.1)
    assert found.weight.shape == (3, 3, 4, 12)
    for site, fold, label in [(0, 0, 0), (1, 2, 3), (2, 1, 2)]:
        rows = folds[fold]
        weight, bias = peer(x[site, rows], y[label, rows].numpy(), scale=True, C=0.1)
        assert agrees(found.weight[site, fold, label], weight)
        assert abs(found.bias[site, fold, label].item() - bias) <= 1e-3 * max(1, abs(bias))


def test_row_weights_are_scikit_learns():
    x, y = grid()
    weights = torch.rand(4, 400, generator=torch.Generator().manual_seed(3))
    weights[:, :50] = 0
    found = probes.fit_logistic(x, y, sample_weight=weights)
    for label in range(4):
        assert agrees(found.weight[1, label], peer(x[1], y[label].numpy(), weight=weights[label].numpy())[0])


def test_the_certificate_bounds_the_distance_from_the_optimum():
    x, y = grid()
    loose = probes.fit_logistic(x, y, tol=30.0)
    for site in range(3):
        for label in range(4):
            exact = torch.as_tensor(peer(x[site], y[label].numpy())[0])
            distance = (loose.weight[site, label].double() - exact).norm() / loose.weight[site, label].norm()
            assert distance <= loose.error_bound[site, label] + 1e-6
    # On activations whose columns are alike the bound is not far from the distance: a gradient that was never
    # computed, or a bound that is always large, would not pass.
    x = torch.randn(1, 300, 5, generator=torch.Generator().manual_seed(0)) / 10
    y = (x[0, :, 0] > 0.02).long()
    tight = probes.fit_logistic(x, y, C=0.1)
    assert float(tight.error_bound) < 1e-3


def test_a_probe_does_not_depend_on_its_company():
    x, y = grid()
    together = probes.fit_logistic(x, y)
    alone = probes.fit_logistic(x[2], y[1])
    assert alone.weight.shape == (12,) and alone.bias.shape == ()
    assert torch.allclose(together.weight[2, 1], alone.weight, rtol=1e-3, atol=1e-4 * float(alone.weight.abs().max()))
    assert together.logits(x).shape == (3, 4, 400) and alone.logits(x[2]).shape == (400,)
    assert torch.equal(together.predict(x)[2, 1], alone.predict(x[2]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions(dtype):
    x, y = grid()
    found = probes.fit_logistic(x.to(dtype), y)
    assert found.weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert agrees(found.weight[0, 0].float(), peer(x[0].to(dtype), y[0].numpy())[0], 1e-3)


def test_more_columns_than_rows_constant_columns_and_huge_rows_under_a_penalty():
    x, y = grid(sites=1, n=40, d=90, labels=1)
    assert agrees(probes.fit_logistic(x[0], y[0]).weight, peer(x[0], y[0].numpy())[0], 1e-3)
    x, y = grid(sites=1, labels=1)
    x[0, :, 3], x[0, :, 5] = 7.0, 0.0
    for scale in (False, True):
        found = probes.fit_logistic(x[0], y[0], standardize=scale)
        assert agrees(found.weight, peer(x[0], y[0].numpy(), scale=scale)[0], 1e-3)
        assert found.weight[[3, 5]].abs().max() < 1e-6
    x[0, :3] *= 300  # like the activations of the first tokens of a transformer
    found = probes.fit_logistic(x[0], y[0])
    assert found.converged.all() and agrees(found.weight, peer(x[0], y[0].numpy())[0], 1e-3)


def test_columns_that_tell_nothing_give_a_zero_probe():
    found = probes.fit_logistic(torch.ones(50, 4), torch.arange(50) % 5 == 0)
    assert found.weight.abs().max() < 1e-6 and found.converged.all()
    assert float(found.bias) == pytest.approx(math.log(0.2 / 0.8), abs=1e-4)


def test_accuracy_counts_the_rows_asked_for():
    x, y = grid()
    folds = probes.stratified_folds(y[0], 4)
    found = probes.fit_logistic(x, y, folds=folds)
    held_out, everything = found.accuracy(x, y, rows=~folds), found.accuracy(x, y)
    for site, fold, label in [(0, 0, 0), (2, 3, 1), (1, 2, 3)]:
        right = (x[site] @ found.weight[site, fold, label] + found.bias[site, fold, label] > 0) == y[label].bool()
        assert float(held_out[site, fold, label]) == pytest.approx(float(right[~folds[fold]].float().mean()))
        assert float(everything[site, fold, label]) == pytest.approx(float(right.float().mean()))


def test_log_prob_is_the_probability_of_both_answers():
    x, y = grid()
    found = probes.fit_logistic(x[0], y[0])
    model = LogisticRegression(**TIGHT).fit(x[0].double().numpy(), y[0].numpy())
    assert np.allclose(found.log_prob(x[0]).exp().numpy(), model.predict_proba(x[0].double().numpy()), atol=1e-4)


def test_multinomial_is_scikit_learns():
    x, y = grid()
    classes = y[1] + 2 * y[3]
    folds = probes.stratified_folds(classes, 2)
    found = probes.fit_multinomial(x, classes, C=0.5, folds=folds)
    assert found.weight.shape == (3, 2, 4, 12) and found.converged.all()
    for site, fold in [(0, 0), (2, 1)]:
        raw = x[site].double().numpy()
        rows = folds[fold].numpy()
        model = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000).fit(raw[rows], classes.numpy()[rows])
        assert agrees(found.weight[site, fold], model.coef_, 1e-3)
        assert np.allclose(found.log_prob(x)[site, fold].exp().numpy(), model.predict_proba(raw), atol=2e-3)
        want = model.score(raw[~rows], classes.numpy()[~rows])
        assert float(found.accuracy(x, classes, rows=~folds)[site, fold]) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 100.0])
def test_ridge_is_scikit_learns(alpha):
    x, y = grid(offset=2.0)
    target = y.float() + torch.arange(4)[:, None]
    folds = probes.stratified_folds(y[0], 2)
    found = probes.fit_ridge(x, target, alpha=alpha, folds=folds)
    score = found.r2(x, target, rows=~folds)
    for site, fold, label in [(0, 0, 0), (1, 1, 3)]:
        raw, rows = x[site].double().numpy(), folds[fold].numpy()
        model = Ridge(alpha=alpha, solver="svd").fit(raw[rows], target[label].numpy()[rows])
        assert agrees(found.weight[site, fold, label], model.coef_)
        assert float(found.bias[site, fold, label]) == pytest.approx(model.intercept_, abs=1e-3)
        want = r2_score(target[label].numpy()[~rows], model.predict(raw[~rows]))
        assert float(score[site, fold, label]) == pytest.approx(want, abs=1e-3)
    scaled = probes.fit_ridge(x[0], target[0], alpha=5.0, standardize=True)
    scaler = StandardScaler().fit(x[0].double().numpy())
    model = Ridge(alpha=5.0).fit(scaler.transform(x[0].double().numpy()), target[0].numpy())
    assert agrees(scaled.weight, model.coef_ / scaler.scale_)


def test_mass_mean_is_the_difference_of_the_means_with_the_threshold_half_way():
    x, y = grid(offset=3.0)
    found = probes.fit_mass_mean(x, y)
    for site, label in [(0, 0), (2, 3)]:
        ones, zeros = x[site][y[label] == 1].mean(0), x[site][y[label] == 0].mean(0)
        assert torch.allclose(found.weight[site, label], ones - zeros, rtol=1e-4, atol=1e-4)
        logits = torch.stack([ones, zeros]) @ found.weight[site, label] + found.bias[site, label]
        assert float(logits.sum()) == pytest.approx(0, abs=1e-3 * float(logits[0].abs()))


@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_whitened_mass_mean_is_linear_discriminant_analysis(shrinkage):
    x, y = grid()
    found = probes.fit_mass_mean(x, y, whiten=True, shrinkage=shrinkage)
    for site, label in [(0, 0), (1, 2)]:
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage or None)
        model.fit(x[site].double().numpy(), y[label].numpy())
        assert agrees(found.weight[site, label], model.coef_[0])


def test_group_folds_hold_every_group_out_once_and_leaks_are_named():
    groups = [f"g{i % 7}" for i in range(60)]
    folds = probes.group_folds(groups, 3, seed=2)
    probes.check_no_leak(folds, groups)
    assert torch.equal((~folds).sum(0), torch.ones(60, dtype=torch.long))
    assert not torch.equal(folds, probes.group_folds(groups, 3, seed=3))
    with pytest.raises(ValueError, match=r"groups leak: in fold 0 'g0' \(7 groups"):
        probes.check_no_leak(probes.stratified_folds([0, 1] * 30, 3), groups)
    with pytest.raises(ValueError, match="expected 60"):
        probes.check_no_leak(folds, groups[:-1])


def _with_nan(x):
    x = x.clone()
    x[1, 5, 2] = math.nan
    return x


X, Y = grid()
BAD = {
    "NaN": (lambda: probes.fit_logistic(_with_nan(X), Y), r"1 NaN or infinite values, the first at \[1, 5, 2\]"),
    "integers": (lambda: probes.fit_logistic(X.long(), Y), "x has dtype"),
    "one axis": (lambda: probes.fit_logistic(X[0, 0], Y), r"x is \[12\]"),
    "no rows": (lambda: probes.fit_logistic(X[:, :0], Y[:, :0]), "at least one row"),
    "labels not aligned": (lambda: probes.fit_logistic(X, Y[:, :-1]), r"y has shape \[4, 399\]"),
    "labels by row": (lambda: probes.fit_logistic(X, Y.T), r"y has shape \[400, 4\]"),
    "three classes": (lambda: probes.fit_logistic(X, Y[0] + Y[1]), "expected 0 and 1"),
    "NaN label": (
        lambda: probes.fit_logistic(X, torch.full((400,), math.nan)),
        r"y holds 400 NaN or infinite values, the first at \[0\]",
    ),
    "one class": (lambda: probes.fit_logistic(X, torch.stack([Y[0], Y[0] * 0])), "label 1 has one class only"),
    "one class in a fold": (
        lambda: probes.fit_logistic(X, Y[0], folds=torch.stack([Y[0] >= 0, Y[0] == 1])),
        "label 0 has one class only in the fitting rows of fold 1",
    ),
    "empty fold": (lambda: probes.fit_logistic(X, Y, folds=torch.zeros(2, 400, dtype=torch.bool)), "fold 0 has no row"),
    "folds of numbers": (lambda: probes.fit_logistic(X, Y, folds=torch.ones(2, 400)), "expected Bool"),
    "C": (lambda: probes.fit_logistic(X, Y, C=0.0), "C is 0.0"),
    "class weight": (lambda: probes.fit_logistic(X, Y, class_weight="even"), "class_weight is 'even'"),
    "row weights": (lambda: probes.fit_logistic(X, Y, sample_weight=-torch.ones(400)), "negative"),
    "separable": (
        lambda: probes.fit_logistic(X[0], X[0, :, 0] > 0, C=math.inf),
        "a hyperplane separates the classes of label 0",
    ),
    "dependent columns": (
        lambda: probes.fit_logistic(X[0, :8], torch.arange(8) % 2, C=math.inf),
        "columns depend on each other",
    ),
    "classes not whole": (lambda: probes.fit_multinomial(X, Y[0].float()), "expected classes 0, 1, 2"),
    "class missing": (lambda: probes.fit_multinomial(X, 2 * Y[0]), "class 1 has no row"),
    "no penalty": (lambda: probes.fit_multinomial(X, Y[0], C=math.inf), "C is inf"),
    "alpha": (lambda: probes.fit_ridge(X, Y.float(), alpha=-1.0), "alpha is -1"),
    "ridge without penalty": (lambda: probes.fit_ridge(X[0, :8], Y[0, :8].float(), alpha=0.0), "depend on each other"),
    "mass mean, one class": (lambda: probes.fit_mass_mean(X, Y[0] * 0), "one class only"),
    "whitened, too few rows": (
        lambda: probes.fit_mass_mean(X[0, :8], torch.arange(8) % 2, whiten=True),
        "set shrinkage > 0",
    ),
    "other sites": (lambda: probes.fit_logistic(X, Y).logits(X[:2]), "the sites and the d_model that"),
    "other rows": (lambda: probes.fit_logistic(X, Y).accuracy(X, Y, rows=torch.ones(3) > 0), "rows has shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_too_few_iterations_are_told():
    with pytest.warns(RuntimeWarning, match="have not converged after 2 iterations"):
        found = probes.fit_logistic(X, Y, max_iter=2)
    assert not found.converged.all()
    # Classes that a hyperplane separates but for rows that lie on it have no finite optimum either.
    x = torch.tensor([[-2.0], [-1.0], [0.0], [0.0], [1.0], [2.0]])
    with pytest.warns(RuntimeWarning, match="have not converged"):
        probes.fit_logistic(x, torch.tensor([0, 0, 0, 1, 1, 1]), C=math.inf, max_iter=60)


def test_inputs_and_random_state_are_left_alone():
    x, y = X.clone().requires_grad_(), Y.clone()
    state = torch.get_rng_state()
    found = probes.fit_logistic(x, y, standardize=True, folds=probes.stratified_folds(Y[0], 2))
    assert torch.equal(x, X) and torch.equal(y, Y) and torch.equal(state, torch.get_rng_state())
    assert not found.weight.requires_grad
