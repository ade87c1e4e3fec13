"""MLP probes: planted problems with a known best score, and invariances that the standardisation promises."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from utils.probes.mlp import fit_mlp


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def xor():
    """Two sites of 400 rows whose class is the sign of a product: nothing for a linear probe to read."""
    x = randn(2, 400, 6)
    x[1, :, :2] = x[0, :, :2]
    return x, (x[0, :, 0] * x[0, :, 1] > 0).long()


@pytest.fixture(scope="module")
def folds():
    fitting = torch.ones(2, 400, dtype=torch.bool)
    fitting[0, :100] = False
    fitting[1, 250:] = False
    return fitting


def test_reads_what_no_linear_probe_reads(xor, folds):
    x, y = xor
    linear = LogisticRegression().fit(x[0, 100:], y[100:]).score(x[0, :100], y[:100])
    held_out = fit_mlp(x, y, folds=folds, steps=150).accuracy(x, y, rows=~folds)
    assert linear < 0.65
    assert held_out.shape == (2, 2)
    assert held_out.min() > 0.85


def test_held_out_loss_is_near_the_entropy_of_the_planted_posterior():
    x = randn(6000, 2)
    true = torch.distributions.Bernoulli(logits=2 * x[:, 0] - 1.5 * x[:, 1].abs())
    y = (torch.rand(6000, generator=torch.Generator().manual_seed(1)) < true.probs).long()
    probe = fit_mlp(x[:3000], y[:3000], hidden=16, lr=0.02, steps=150)
    loss = -probe.log_prob(x[3000:])[torch.arange(3000), y[3000:]].mean()
    best = -true.log_prob(y.float())[3000:].mean()
    assert best - 0.005 < loss < best + 0.02


def test_a_site_alone_is_fitted_as_in_a_batch(xor):
    x, y = xor
    together, alone = fit_mlp(x, y, steps=60), fit_mlp(x[1], y, steps=60)
    assert torch.allclose(together.log_prob(x)[1], alone.log_prob(x[1]), atol=1e-3)
    assert torch.equal(together.predict(x)[1], alone.predict(x[1]))
    nested = fit_mlp(x.reshape(2, 1, 400, 6), y, steps=60)
    assert nested.log_prob(x.reshape(2, 1, 400, 6)).shape == (2, 1, 400, 2)
    assert torch.equal(nested.predict(x[:, None])[:, 0], together.predict(x))


def test_a_fold_is_fitted_on_its_rows_only(xor, folds):
    x, y = xor
    moved = x + 100 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)) * ~folds[1][:, None]
    flipped = torch.where(folds[1], y, 1 - y)
    fitted, subset = fit_mlp(x, y, folds=folds, steps=60), fit_mlp(x[:, folds[1]], y[folds[1]], steps=60)
    assert torch.allclose(fitted.log_prob(x)[:, 1], subset.log_prob(x), atol=5e-3)
    spoilt = fit_mlp(moved, flipped, folds=folds, steps=60)
    assert torch.allclose(fitted.log_prob(x)[:, 1], spoilt.log_prob(x)[:, 1], atol=5e-3)
    assert not torch.allclose(fitted.log_prob(x)[:, 0], spoilt.log_prob(x)[:, 0], atol=0.1)


def test_units_of_the_features_are_no_matter(xor):
    x, y = xor
    scale, shift = torch.tensor([1e3, 1e-3, 1.0, -5.0, 20.0, 1e-2]), torch.tensor([5e3, 0.0, -3.0, 1.0, 0.0, 1.0])
    scale[3] = 5.0
    plain, scaled = fit_mlp(x, y, steps=60), fit_mlp(x * scale + shift, y, steps=60)
    assert torch.allclose(plain.log_prob(x), scaled.log_prob(x * scale + shift), atol=2e-2)


def test_loss_probabilities_and_accuracy_fit_together(xor):
    x, y = xor
    probes = fit_mlp(x, y, n_classes=4, steps=60)
    log_prob = probes.log_prob(x)
    assert log_prob.shape == (2, 400, 4)
    assert torch.allclose(log_prob.exp().sum(-1), torch.ones(2, 400), atol=1e-5)
    assert torch.allclose(-log_prob[:, torch.arange(400), y].mean(-1), probes.loss, atol=1e-4)
    assert torch.allclose(probes.accuracy(x, y), (log_prob.argmax(-1) == y).float().mean(-1))
    rows = torch.arange(400) < 30
    assert torch.allclose(probes.accuracy(x, y, rows), (log_prob.argmax(-1) == y)[:, :30].float().mean(-1))


def test_constant_features_are_ignored(xor):
    x, y = xor
    constant = torch.full((2, 400, 1), 1000.1)
    probe, wide = fit_mlp(x[..., :5], y, steps=40), fit_mlp(torch.cat([x[..., :5], constant], -1), y, steps=40)
    assert (wide.inverse_std[:, 5] == 0).all()
    seen, other = (wide.log_prob(torch.cat([x[..., :5], c], -1)) for c in (constant, -77 * constant))
    assert torch.equal(seen, other)
    assert probe.accuracy(x[..., :5], y).shape == (2,)
    still = fit_mlp(torch.ones(400, 3), (torch.arange(400) < 300).long(), steps=200, lr=0.05)
    assert torch.allclose(still.log_prob(torch.ones(1, 3)).exp()[0, 0], torch.tensor(0.25), atol=0.01)


def test_more_columns_than_rows(xor):
    x, y = randn(20, 200), (torch.arange(20) % 2).long()
    probe = fit_mlp(x, y, steps=60)
    assert torch.isfinite(probe.log_prob(x)).all()
    assert probe.accuracy(x, y) == 1


def test_seed_decides_and_the_global_state_is_left_alone(xor):
    x, y = xor
    before = torch.random.get_rng_state()
    first, again, other = (fit_mlp(x, y, steps=20, seed=seed).w_in for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)


def test_works_where_gradients_are_off_and_leaves_none_behind(xor):
    x, y = xor
    with torch.no_grad():
        probes = fit_mlp(x, y, steps=5)
    assert not probes.w_in.requires_grad
    assert not probes.log_prob(x).requires_grad
    inputs = x.clone().requires_grad_()
    fit_mlp(inputs, y, steps=5)
    assert inputs.grad is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.full((10, 3), torch.nan)}, "x holds 30 NaN"),
        ({"x": torch.ones(9, 3)}, "9 rows"),
        ({"x": [[1.0]]}, "x is list"),
        ({"y": torch.zeros(10, dtype=torch.long)}, "y has one class only"),
        ({"y": torch.rand(10)}, "y has dtype"),
        ({"n_classes": 1}, "n_classes is 1"),
        ({"y": torch.arange(10), "n_classes": 4}, "n_classes is 4"),
        ({"folds": torch.ones(2, 9, dtype=torch.bool)}, "folds has shape"),
        ({"folds": torch.tensor([[True] * 10, [True] * 5 + [False] * 5])}, "fitting rows of fold 1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"lr": -1.0}, "lr is -1"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {"x": randn(10, 3), "y": (torch.arange(10) >= 5).long()} | changes
    with pytest.raises(ValueError, match=message):
        fit_mlp(arguments.pop("x"), arguments.pop("y"), **arguments)


def test_prediction_wants_the_sites_of_the_fit(xor):
    x, y = xor
    with pytest.raises(ValueError, match=r"expected \[2, n, 6\]"):
        fit_mlp(x, y, steps=2).predict(x[0])
