"""Planted features: the samples against what was asked, counted; the truth against what they are made of."""

import math

import numpy as np
import pytest
import torch

from utils.datasets import features
from utils.datasets.features import Features


def close(a, b, atol=1e-5):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=0, check_dtype=False)


# --- Independent features -------------------------------------------------------------------------


def test_samples_are_the_sums_of_their_features():
    truth = features.planted(7, 4, probability=0.4)
    x, a = truth.sample(50, seed=3)
    assert x.shape == (50, 4) and a.shape == (50, 7)
    by_hand = np.zeros((50, 4))
    for sample in range(50):
        for feature in range(7):
            by_hand[sample] += a[sample, feature].item() * truth.directions[feature].numpy()
    close(x, by_hand)


def test_directions_are_unit_rows_and_random():
    truth = features.planted(400, 30)
    assert truth.directions.shape == (400, 30) and truth.probability.shape == (400,) and not truth.parents
    close(truth.directions.norm(dim=1), torch.ones(400))
    cosines = (truth.directions @ truth.directions.T).fill_diagonal_(0)
    assert abs(cosines.mean()) < 0.01 and cosines.abs().max() < 0.95
    assert abs(cosines.pow(2).sum() / (400 * 399) - 1 / 30) < 0.003  # isotropic
    default = features.planted()
    assert default.directions.shape == (64, 20) and default.probability.unique().tolist() == pytest.approx([0.03])


@pytest.mark.parametrize("probability", [0.03, 0.5, 1, 1.0])
def test_features_are_on_as_often_as_asked_uniform_and_independent(probability):
    _, a = features.planted(6, 4, probability=probability).sample(40_000)
    on = a > 0
    spread = 4.5 * math.sqrt(probability * (1 - probability) / 40_000)
    close(on.float().mean(0), torch.full((6,), float(probability)), spread + 1e-3 * (probability == 1))
    assert a.min() >= 0 and a.max() < 1
    assert abs(a[on].mean() - 0.5) < 0.02 and abs(a[on].std() - 1 / math.sqrt(12)) < 0.02
    values = torch.histc(a[on], bins=10, min=0, max=1) / on.sum()
    close(values, torch.full((10,), 0.1), 0.02)
    if probability < 1:
        assert on.float().T.corrcoef().fill_diagonal_(0).abs().max() < 0.03


def test_probabilities_may_differ():
    probability = torch.tensor([0.1, 0.9, 0.5])
    _, a = Features(torch.eye(3), probability).sample(20_000)
    close((a > 0).float().mean(0), probability, 0.02)


def test_constant_features_are_one_when_on():
    x, a = Features(torch.eye(3), torch.full((3,), 0.5), constant=True).sample(500)
    assert sorted(a.unique().tolist()) == [0, 1] and x.equal(a)


# --- Hierarchies ----------------------------------------------------------------------------------


def test_children_come_one_at_a_time_and_only_with_their_parent():
    truth = features.hierarchy(3, 4, d=20, probability=0.3, child=0.2)
    x, a = truth.sample(40_000)
    assert a.shape == (40_000, 15) and sorted(a.unique().tolist()) == [0, 1]
    parents = sorted(set(truth.parents.values()))
    assert parents == [0, 5, 10] and sorted(truth.parents) == [i for i in range(15) if i % 5]
    on = a > 0
    for parent in parents:
        children = [child for child, above in truth.parents.items() if above == parent]
        assert children == list(range(parent + 1, parent + 5))
        assert not on[:, children][~on[:, parent]].any()
        assert on[:, children].sum(1).max() == 1
        close(on[:, parent].float().mean(), 0.3, 0.012)
        close(on[:, children][on[:, parent]].float().mean(0), torch.full((4,), 0.2), 0.02)
    assert on[:, parents].float().T.corrcoef().fill_diagonal_(0).abs().max() < 0.03
    close(x, a @ truth.directions)


def test_directions_of_a_hierarchy_are_orthonormal():
    truth = features.hierarchy()
    assert truth.directions.shape == (16, 24) and truth.constant
    close(truth.directions @ truth.directions.T, torch.eye(16))
    square = features.hierarchy(2, 1, d=4)
    close(square.directions @ square.directions.T, torch.eye(4))


@pytest.mark.parametrize("n", range(1, 40))
def test_children_may_fill_their_parent(n):
    truth = features.hierarchy(1, n, d=n + 1, probability=1.0, child=1 / n)
    _, a = truth.sample(4000)
    assert a[:, 0].eq(1).all() and a[:, 1:].sum(1).max() == 1
    assert (a[:, 1:].sum(1) == 1).float().mean() > 0.998  # but for rounding at the upper end


def test_a_child_that_is_always_on_is_its_parent():
    _, a = features.hierarchy(2, 1, d=4, probability=0.4, child=1.0).sample(2000)
    assert a[:, 0].equal(a[:, 1]) and a[:, 2].equal(a[:, 3]) and not a[:, 0].equal(a[:, 2])


def test_children_of_one_parent_may_differ_in_how_often_they_come():
    truth = Features(torch.eye(4), torch.tensor([0.6, 0.1, 0.5, 0.3]), {3: 1, 0: 1})
    _, a = truth.sample(40_000)
    on = a > 0
    assert not (on[:, 0] & on[:, 3]).any() and not on[:, [0, 3]][~on[:, 1]].any()
    close(on[:, [0, 3]][on[:, 1]].float().mean(0), torch.tensor([0.6, 0.3]), 0.03)
    close(on[:, [1, 2]].float().mean(0), torch.tensor([0.1, 0.5]), 0.02)


# --- Seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [features.planted, features.hierarchy])
def test_seeds(make):
    truth, again, other = make(seed=1), make(seed=1), make(seed=2)
    assert truth.directions.equal(again.directions) and not truth.directions.equal(other.directions)
    (x, a), (x_again, a_again), (_, a_other) = (truth.sample(200, seed=seed) for seed in (4, 4, 5))
    assert x.equal(x_again) and a.equal(a_again) and not a.equal(a_other)
    assert truth.sample(200)[1].equal(truth.sample(200, seed=0)[1])
    assert other.sample(200, seed=4)[1].equal(a)  # the features of a sample do not depend on the directions
    assert make(seed=np.int64(1)).directions.equal(truth.directions)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    features.planted().sample(3)
    features.hierarchy().sample(3)
    assert torch.rand(2).equal(expected)


def test_directions_are_not_the_first_draws_of_their_seed():
    """A dictionary that starts from normal rows of the same seed must not start at the truth."""
    for seed in range(3):
        drawn = torch.randn(64, 20, generator=torch.Generator().manual_seed(seed))
        drawn = torch.nn.functional.normalize(drawn, dim=1)
        truth = features.planted(seed=seed).directions
        assert (drawn @ truth.T).max(0).values.mean() < 0.75
        uniform = torch.rand(100, 64, generator=torch.Generator().manual_seed(seed)) < 0.5
        on = features.planted(probability=0.5).sample(100, seed=seed)[1] > 0
        assert 0.45 < (uniform == on).float().mean() < 0.55


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: features.planted(0), "n_features is 0"),
        (lambda: features.planted(3, 0), "d is 0"),
        (lambda: features.planted(seed=-1), "seed is -1"),
        (lambda: features.planted(probability=0), "probability is 0, expected"),
        (lambda: features.planted(probability=-0.1), "probability is -0.1"),
        (lambda: features.planted(probability=1.01), "probability is 1.01"),
        (lambda: features.planted(probability=math.nan), "probability is nan"),
        (lambda: features.planted(probability=math.inf), "probability is inf"),
        (lambda: features.hierarchy(0), "n_parents is 0"),
        (lambda: features.hierarchy(2, 0), "n_children is 0"),
        (lambda: features.hierarchy(4, 3, d=15), "d is 15, expected at least 16"),
        (lambda: features.hierarchy(probability=0.0), "probability is 0.0"),
        (lambda: features.hierarchy(probability=2.0), "probability is 2.0"),
        (lambda: features.hierarchy(child=0.4), "child is 0.4: 3 of them"),
        (lambda: features.hierarchy(2, 2, d=6, child=0.501), "child is 0.501"),
        (lambda: features.hierarchy(2, 1, d=6, child=0.0), "0.0"),
        (lambda: features.hierarchy(2, 1, d=6, child=math.nan), "nan"),
        (lambda: features.planted().sample(0), "n is 0"),
        (lambda: features.planted().sample(5, seed=-2), "seed is -2"),
    ],
)
def test_bad_values_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: features.planted(3.0), "n_features is 3.0"),
        (lambda: features.planted(3, True), "d is True"),
        (lambda: features.planted(seed="a"), "seed is 'a'"),
        (lambda: features.planted(probability=[0.1, 0.2]), r"probability is \[0.1, 0.2\]"),
        (lambda: features.hierarchy(2.5), "n_parents is 2.5"),
        (lambda: features.hierarchy(d=24.0), "d is 24.0"),
        (lambda: features.planted().sample(2.0), "n is 2.0"),
        (lambda: features.planted().sample(2, seed=None), "seed is None"),
    ],
)
def test_counts_have_to_be_integers(call, says):
    with pytest.raises(TypeError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: features.planted(probability="often"), "probability"),
        (lambda: features.planted(probability=None), "probability"),
        (lambda: features.hierarchy(2, 1, d=6, child=0.0), "child"),
        (lambda: Features(torch.eye(2), torch.tensor([0.5, 1.5])).sample(3), "probability"),
        (lambda: Features(torch.eye(2), torch.tensor([0.5, 0.5, 0.5])).sample(3), "probability"),
        (lambda: Features(torch.eye(3), torch.full((3,), 0.8), {1: 0, 2: 0}).sample(3), "children of 0"),
        (lambda: Features(torch.eye(3), torch.full((3,), 0.5), {1: 0, 2: 1}).sample(3), "parent"),
        (lambda: Features(torch.eye(2), torch.full((2,), 0.5), {1: 5}).sample(3), "parent"),
    ],
    ids=[
        "text", "None", "child named", "above 1", "too many", "children of 1.6 parents", "a parent's parent", "nobody",
    ],
)  # fmt: skip
def test_bad_features_are_named(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()
