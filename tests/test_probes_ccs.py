"""CCS: closed forms of the loss, a planted truth, and what must make no difference."""

import pytest
import torch
from torch.testing import assert_close

from utils.probes.ccs import ccs_loss, fit_ccs

N, D = 300, 16


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def statements():
    """Two sites: truth planted along a direction in the first, nothing but noise in the second."""
    truth = torch.arange(N) % 2 == 0
    sign = (2.0 * truth - 1)[:, None]
    common = randn(2, N, D)  # what the two completions of a statement share
    x_pos, x_neg = common + 0.5 * randn(2, N, D, seed=1), common + 0.5 * randn(2, N, D, seed=2)
    direction, completion = 3 * randn(D, seed=3), 10 * randn(D, seed=4)
    x_pos[0] += sign * direction + completion
    x_neg[0] -= sign * direction + completion
    return x_pos, x_neg, truth


@pytest.fixture(scope="module")
def probe(statements):
    x_pos, x_neg, _ = statements
    return fit_ccs(x_pos, x_neg, steps=300)


def test_loss_by_hand():
    p_pos, p_neg = torch.tensor([0.9, 0.2]), torch.tensor([0.3, 0.8])
    # consistency (0.9 - 0.7)^2 and 0, confidence 0.3^2 and 0.2^2
    assert_close(ccs_loss(p_pos, p_neg), torch.tensor((0.04 + 0.09 + 0.0 + 0.04) / 2))
    certain = torch.tensor([1.0, 0.0, 1.0])
    assert ccs_loss(certain, 1 - certain) == 0


def test_a_constant_probe_reaches_a_fifth():
    p = torch.linspace(0, 1, 1001)[:, None]
    losses = ccs_loss(p, p)
    assert_close(losses, (5 * p**2 - 4 * p + 1)[:, 0])
    assert losses.min() == pytest.approx(0.2)
    assert p[losses.argmin()].item() == pytest.approx(0.4)


def test_finds_planted_truth_without_labels_up_to_sign(statements, probe):
    x_pos, x_neg, truth = statements
    accuracy = probe.accuracy(x_pos, x_neg, truth)
    assert max(accuracy[0], 1 - accuracy[0]) > 0.99
    assert max(accuracy[1], 1 - accuracy[1]) < 0.65
    assert probe.loss[0] < 0.01
    new = randn(100, D, seed=7)
    offset = x_pos[0].mean(0), x_neg[0].mean(0)
    direction = x_pos[0][truth].mean(0) - x_pos[0][~truth].mean(0)
    truths = torch.arange(100) < 50
    half = (truths.float() - 0.5)[:, None] * direction
    fresh = fit_ccs(x_pos[0], x_neg[0], steps=300).predict(new + offset[0] + half, new + offset[1] - half)
    assert (fresh == truths).float().mean() in (0, 1)


def test_the_sign_is_not_determined(statements, probe):
    x_pos, x_neg, truth = statements
    flipped = probe.flipped()
    assert_close(flipped.probability(x_pos, x_neg), 1 - probe.probability(x_pos, x_neg))
    assert_close(flipped.accuracy(x_pos, x_neg, truth)[0], 1 - probe.accuracy(x_pos, x_neg, truth)[0])
    assert ccs_loss(*flipped.probabilities(x_pos, x_neg))[0] == pytest.approx(float(probe.loss[0]), abs=0.01)
    one = probe.flipped(torch.tensor([False, True]))
    assert_close(one.weight, torch.stack([probe.weight[0], -probe.weight[1]]))
    swapped = fit_ccs(x_neg[0], x_pos[0], steps=300)  # "true" and "false" change places: the loss sees no difference
    assert swapped.loss == pytest.approx(float(probe.loss[0]), abs=0.01)
    signs = {
        float(fit_ccs(x_pos[0], x_neg[0], steps=100, tries=1, seed=s).accuracy(x_pos[0], x_neg[0], truth))
        for s in range(8)
    }
    assert min(signs) < 0.05
    assert max(signs) > 0.95


def test_probability_and_loss_fit_together(statements, probe):
    x_pos, x_neg, _ = statements
    p_pos, p_neg = probe.probabilities(x_pos, x_neg)
    assert_close(probe.probability(x_pos, x_neg), (p_pos + 1 - p_neg) / 2)
    assert_close(ccs_loss(p_pos, p_neg), probe.loss, atol=1e-5, rtol=1e-4)
    assert_close(probe.losses.min(-1).values, probe.loss)
    z = (x_pos[0] - x_pos[0].mean(0)) / x_pos[0].std(0, correction=0)
    assert_close(p_pos[0], torch.sigmoid(z @ probe.weight[0] + probe.bias[0]), atol=1e-4, rtol=1e-3)


def test_the_completion_itself_is_normalised_away(statements, probe):
    x_pos, x_neg, _ = statements
    moved = fit_ccs(x_pos + 50, x_neg * 3 - 20, steps=300)
    assert_close(moved.probability(x_pos + 50, x_neg * 3 - 20), probe.probability(x_pos, x_neg), atol=1e-2, rtol=1e-2)


def test_without_standardisation_only_the_mean_goes(statements):
    x_pos, x_neg, truth = statements
    plain = fit_ccs(x_pos[0], x_neg[0], steps=300, standardize=False)
    assert set(plain.inverse_std.unique().tolist()) == {1.0}
    accuracy = plain.accuracy(x_pos[0], x_neg[0], truth)
    assert max(accuracy, 1 - accuracy) > 0.99


def test_tries_and_sites_do_not_see_each_other(statements):
    x_pos, x_neg, _ = statements
    many, few = fit_ccs(x_pos, x_neg, steps=60, tries=6), fit_ccs(x_pos[1], x_neg[1], steps=60, tries=3)
    assert many.losses.shape == (2, 6)
    assert_close(many.losses[1, :3], few.losses, atol=1e-5, rtol=1e-4)


def test_seed_decides_and_the_global_state_is_left_alone(statements):
    x_pos, x_neg, _ = statements
    before = torch.random.get_rng_state()
    first, again, other = (fit_ccs(x_pos, x_neg, steps=20, seed=seed).losses for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_features_that_do_not_vary_are_ignored(statements):
    x_pos, x_neg, _ = statements
    still = torch.full((2, N, 1), 1000.1)
    wide = [torch.cat([x, still], -1) for x in (x_pos, x_neg)]
    probe = fit_ccs(*wide, steps=50)
    assert (probe.inverse_std[:, :, D] == 0).all()
    assert torch.equal(probe.predict(*wide), probe.predict(*(torch.cat([x, -still], -1) for x in (x_pos, x_neg))))
    nothing = fit_ccs(torch.ones(10, 3), torch.zeros(10, 3), steps=200)
    assert nothing.loss >= 0.2 - 1e-6


def test_more_columns_than_rows_can_always_be_split():
    x_pos, x_neg = randn(20, 200), randn(20, 200, seed=1)
    assert fit_ccs(x_pos, x_neg, steps=300).loss < 0.01  # of noise: a low loss alone is no evidence


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_neg": torch.ones(9, 4)}, "x_neg has shape"),
        ({"x_neg": torch.full((10, 4), torch.nan)}, "x_neg holds 40 NaN"),
        ({"x_pos": torch.full((10, 4), torch.inf)}, "x_pos holds 40 NaN"),
        ({"x_pos": torch.ones(1, 4), "x_neg": torch.ones(1, 4)}, "x_pos has one row"),
        ({"tries": 0}, "tries is 0"),
        ({"lr": 0.0}, "lr is 0"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {"x_pos": randn(10, 4), "x_neg": randn(10, 4, seed=1)} | changes
    with pytest.raises(ValueError, match=message):
        fit_ccs(arguments.pop("x_pos"), arguments.pop("x_neg"), **arguments)


def test_bad_input_to_a_fitted_probe_is_named(statements, probe):
    x_pos, x_neg, truth = statements
    with pytest.raises(ValueError, match=r"x_pos has shape .* expected \[2, n, 16\]"):
        probe.predict(x_pos[0], x_neg[0])
    with pytest.raises(ValueError, match="y has shape"):
        probe.accuracy(x_pos, x_neg, truth[:5])
    with pytest.raises(ValueError, match="p_neg has shape"):
        ccs_loss(torch.rand(3), torch.rand(4))
