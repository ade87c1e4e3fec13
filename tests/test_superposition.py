"""Toy models of superposition, against closed forms, hand-set figures and plain simulation."""

import itertools
import math

import pytest
import torch

from utils import superposition
from utils.superposition import FeatureSets, dimensionality, geometry, interference, phase_losses, sparse_features

IMPORTANCE = 0.9 ** torch.arange(5.0)


def drawn(*args, seed=0, **settings):
    return sparse_features(*args, generator=torch.Generator().manual_seed(seed), **settings)


# --- Data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_features_are_on_as_often_as_asked_and_uniform_when_on(sparsity):
    x = drawn(40_000, 6, sparsity)
    on = x > 0
    assert x.shape == (40_000, 6) and x.min() >= 0 and x.max() < 1
    torch.testing.assert_close(on.float().mean(0), torch.full((6,), 1 - sparsity), atol=0.015, rtol=0)
    assert abs(x[on].mean() - 0.5) < 0.01 and abs(x[on].std() - 1 / math.sqrt(12)) < 0.01
    assert on.float().T.corrcoef().fill_diagonal_(0).nan_to_num(0).abs().max() < 0.03


def test_signed_features_lie_on_both_sides_of_zero():
    x = drawn(20_000, 2, 0.5, signed=True)
    assert x.min() < -0.95 and x.max() > 0.95 and abs((x < 0).float().mean() - 0.25) < 0.02


def test_each_instance_has_its_own_sparsity_and_its_own_draws():
    x = drawn(20_000, 3, torch.tensor([[0.1, 0.5], [0.9, 0.5]]))
    assert x.shape == (2, 2, 20_000, 3)
    torch.testing.assert_close(
        (x > 0).float().mean((-2, -1)), torch.tensor([[0.9, 0.5], [0.1, 0.5]]), atol=0.01, rtol=0
    )
    assert not x[0, 1].equal(x[1, 1])


def test_features_of_a_correlated_set_are_on_together_with_values_of_their_own():
    x = drawn(5000, 4, 0.7, sets=FeatureSets(correlated=[(0, 2)]))
    on = x > 0
    assert on[:, 0].equal(on[:, 2]) and not on[:, 0].equal(on[:, 1])
    both = x[on[:, 0]]
    assert abs(torch.stack([both[:, 0], both[:, 2]]).corrcoef()[0, 1]) < 0.1
    torch.testing.assert_close(on.float().mean(0), torch.full((4,), 0.3), atol=0.03, rtol=0)


def test_features_of_an_anticorrelated_set_are_never_on_together():
    x = drawn(30_000, 5, 0.4, sets=FeatureSets(anticorrelated=[(1, 3, 4)]))
    on = x > 0
    assert (on[:, [1, 3, 4]].sum(1) <= 1).all()
    assert abs(on[:, [1, 3, 4]].any(1).float().mean() - 0.6) < 0.02
    torch.testing.assert_close(on[:, [1, 3, 4]].float().mean(0), torch.full((3,), 0.2), atol=0.02, rtol=0)
    torch.testing.assert_close(on[:, [0, 2]].float().mean(0), torch.full((2,), 0.6), atol=0.02, rtol=0)


# --- Figures --------------------------------------------------------------------------------------


def polygon(k, length=1.0):
    angle = 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
    return length * torch.stack([angle.cos(), angle.sin()])


def simplex(k):
    """k directions at equal angles in k - 1 dimensions."""
    centred = torch.eye(k, dtype=torch.float64) - 1 / k
    basis = torch.linalg.eigh(centred).eigenvectors[:, 1:]
    return torch.nn.functional.normalize(basis.T @ centred, dim=0)


def antiprism():
    """Eight points at equal shares of three dimensions: two squares, one turned by 45 degrees."""
    turn, height = torch.arange(4, dtype=torch.float64) * math.pi / 2, 0.5**0.5 / 3**0.25
    across = math.sqrt(1 - height**2)
    top = torch.stack([across * turn.cos(), across * turn.sin(), torch.full((4,), height, dtype=torch.float64)])
    turn = turn + math.pi / 4
    low = torch.stack([across * turn.cos(), across * turn.sin(), torch.full((4,), -height, dtype=torch.float64)])
    return torch.cat([top, low], dim=1)


REGULAR = [
    (torch.ones(1, 1, dtype=torch.float64), "dedicated dimension", 1.0),
    (torch.tensor([[1.0, -1.0]], dtype=torch.float64), "antipodal pair", 0.5),
    (polygon(3), "triangle", 2 / 3),
    (simplex(4), "tetrahedron", 3 / 4),
    (polygon(5), "pentagon", 2 / 5),
]


@pytest.mark.parametrize(("W", "name", "share"), REGULAR, ids=[name for _, name, _ in REGULAR])
def test_regular_figures_have_their_dimensionality_and_their_name(W, name, share):
    torch.testing.assert_close(dimensionality(W), torch.full((W.shape[1],), share, dtype=W.dtype))
    (figure,) = geometry(W)
    assert (figure.name, figure.dimensions, figure.features) == (name, W.shape[0], tuple(range(W.shape[1])))
    assert figure.dimensionality == pytest.approx(share)


def test_a_square_antiprism_is_recognised():
    (figure,) = geometry(antiprism())
    assert figure.name == "square antiprism" and figure.dimensionality == pytest.approx(3 / 8, abs=0.02)


def test_figures_in_orthogonal_dimensions_are_told_apart_whatever_the_basis_order_and_scale():
    blocks = torch.block_diag(1.2 * polygon(5), torch.tensor([[1.0, -1.0]], dtype=torch.float64), simplex(4))
    W = torch.cat([blocks, torch.zeros(blocks.shape[0], 2, dtype=torch.float64)], dim=1)
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(len(W), len(W), generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(W.shape[1], generator=generator)
    figures = geometry((turn @ W)[:, order])
    assert sorted(f.name for f in figures) == ["antipodal pair", "pentagon", "tetrahedron"]
    found = {f.name: {int(order[i]) for i in f.features} for f in figures}
    assert found == {"pentagon": set(range(5)), "antipodal pair": {5, 6}, "tetrahedron": set(range(7, 11))}


def test_an_irregular_figure_gets_no_regular_name():
    W = polygon(5)
    W[:, 1] = W[:, 0] + 0.1 * W[:, 1]
    (figure,) = geometry(W)
    assert figure.name == "5 in 2"


@pytest.mark.parametrize("shape", [(2, 5), (7, 3, 20), (2, 3, 4, 4), (1, 9)])
def test_dimensionalities_sum_to_at_most_the_rank_on_any_weights(shape):
    W = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares = dimensionality(W)
    assert shares.shape == (*shape[:-2], shape[-1])
    assert (shares >= 0).all() and (shares <= 1 + 1e-9).all()
    assert (shares.sum(-1) <= torch.linalg.matrix_rank(W) + 1e-9).all()


def test_dimensionality_by_its_formula_and_zero_for_a_missing_feature():
    W = torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    W[:, 4] = 0
    expected = [0.0] * 6
    for i in range(6):
        length = math.sqrt(sum(W[k, i].item() ** 2 for k in range(3)))
        if length:
            seen = sum((sum(W[k, i].item() / length * W[k, j].item() for k in range(3))) ** 2 for j in range(6))
            expected[i] = length**2 / seen
    torch.testing.assert_close(dimensionality(W), torch.tensor(expected, dtype=torch.float64))


def test_interference_in_a_pentagon_is_the_cosine_of_its_angles():
    between = interference(polygon(5))
    assert between.diagonal().abs().max() == 0
    near, far = math.cos(math.radians(72)), math.cos(math.radians(144))
    expected = torch.tensor([0.0, near, far, far, near], dtype=torch.float64)
    torch.testing.assert_close(between[0], expected)
    torch.testing.assert_close(interference(polygon(5, 2.0)), 2 * between)  # unit vector against the other's length


# --- Phases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sparsity", "importance"), list(itertools.product((0.0, 0.5, 0.9), (0.2, 1.0, 5.0))))
def test_phase_losses_are_what_a_simulation_gives(sparsity, importance):
    x = drawn(400_000, 2, sparsity).double()
    weight, mean = torch.tensor([1.0, importance], dtype=torch.float64), (1 - sparsity) / 2
    simulated = []
    for w, b in (([1.0, 0.0], [0.0, mean]), ([0.0, 1.0], [mean, 0.0]), ([1.0, -1.0], [0.0, 0.0])):
        w, b = torch.tensor([w], dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
        simulated.append((weight * (x - (x @ w.T @ w + b).relu()).pow(2)).sum(1).mean())
    torch.testing.assert_close(phase_losses(sparsity, importance), torch.stack(simulated), rtol=0.03, atol=1e-4)


def test_phases_of_the_diagram_are_where_they_should_be():
    dense, sparse = phase_losses(0.0, torch.tensor([0.1, 10.0])), phase_losses(0.95, 1.0)
    assert dense.argmin(-1).tolist() == [0, 1] and sparse.argmin() == 2
    assert phase_losses(torch.zeros(3, 1), torch.ones(4)).shape == (3, 4, 3)


# --- Training -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep():
    """Ten models at each of three sparsities, five features in two dimensions."""
    sparsity = torch.tensor([0.0, 0.7, 0.95])[:, None].expand(3, 10)
    return superposition.train(5, 2, sparsity, IMPORTANCE, steps=2000, seed=0)


def test_more_sparsity_more_features(sweep):
    best = sweep.loss.argmin(1).tolist()
    found = [[f.name for f in geometry(sweep.W[i, j])] for i, j in enumerate(best)]
    assert found == [["dedicated dimension"] * 2, ["antipodal pair"] * 2, ["pentagon"]]
    assert sweep.W.shape == (3, 10, 2, 5) and sweep.b.shape == (3, 10, 5) and sweep.loss.shape == (3, 10)


def test_loss_is_that_of_the_model_on_fresh_data(sweep):
    x = drawn(200_000, 5, 0.95, seed=9)
    out = superposition.ToyModels(sweep.W[2, 0], sweep.b[2, 0], sweep.loss[2, 0])(x)
    by_hand = torch.relu(torch.einsum("mi,mj,bj->bi", sweep.W[2, 0], sweep.W[2, 0], x) + sweep.b[2, 0])
    torch.testing.assert_close(out, by_hand)
    torch.testing.assert_close((IMPORTANCE * (x - out).pow(2)).sum(1).mean(), sweep.loss[2, 0], rtol=0.1, atol=0)


def test_a_grid_comes_near_the_closed_forms_of_two_features_in_one_dimension():
    sparsity = torch.tensor([0.0, 0.5, 0.9])
    ratio = torch.tensor([0.3, 1.0, 3.0])
    importance = torch.stack([torch.ones(3), ratio], -1)[:, None]
    trained = superposition.train(2, 1, sparsity.expand(8, 3, 3), importance, steps=1500).loss.min(0).values
    closed = phase_losses(sparsity.expand(3, 3), ratio[:, None]).min(-1).values.float()
    assert (trained < 1.1 * closed + 2e-4).all()  # 16,384 samples; trained weights may be better than the closed form's
    assert (trained > 0.6 * closed - 2e-4).all()


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
def test_a_linear_model_keeps_the_most_important_features_and_drops_the_rest(sparsity):
    importance, p = 0.5 ** torch.arange(5.0), 1 - sparsity
    dropped = importance[2:].sum() * p * (1 / 3 - p / 4)  # their variances: what no bias can answer
    models = superposition.train(5, 2, torch.full((6,), sparsity), importance, linear=True, steps=2500)
    best = models.loss.argmin()
    torch.testing.assert_close(models.loss[best], dropped, rtol=0.06, atol=0)
    lengths = models.W[best].norm(dim=0)
    assert (lengths[:2] > 0.9).all() and (lengths[2:] < 0.25).all()


def test_absolute_values_are_computed_in_superposition():
    few = superposition.train(20, 8, torch.full((2,), 0.95), target="absolute value", steps=2500)
    p = 0.05
    assert few.loss.min() < 0.6 * 20 * p * (1 / 3 - p / 4)  # what answering every feature by its mean would cost
    x = drawn(100, 20, 0.95, signed=True)
    out = few(x.expand(2, 100, 20))
    hidden = torch.relu(torch.einsum("imf,bf->ibm", few.W, x))
    torch.testing.assert_close(out, torch.relu(torch.einsum("ifm,ibm->ibf", few.read_out, hidden) + few.b[:, None]))


def test_same_seed_same_models_other_seed_others_and_no_gradients_are_left():
    first, again, other = (superposition.train(4, 2, 0.5, steps=20, seed=s) for s in (1, 1, 2))
    assert first.W.equal(again.W) and first.loss.equal(again.loss) and not first.W.equal(other.W)
    assert not first.W.requires_grad and not first.b.requires_grad
    with torch.no_grad():
        assert superposition.train(4, 2, 0.5, steps=20, seed=1).W.equal(first.W)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    superposition.train(3, 2, 0.5, steps=3)
    assert torch.rand(2).equal(expected)


def test_instances_broadcast_over_sparsity_and_importance():
    models = superposition.train(3, 2, torch.tensor([[0.1], [0.5]]), torch.ones(4, 3), steps=2)
    assert models.W.shape == (2, 4, 2, 3) and superposition.train(3, 2, 0.5, steps=2).W.shape == (2, 3)


# --- Bad input ------------------------------------------------------------------------------------

BAD = [
    (lambda: superposition.train(3, 2, 1.0), "sparsity"),
    (lambda: superposition.train(3, 2, torch.tensor([0.5, -0.1])), "sparsity"),
    (lambda: superposition.train(3, 2, float("nan")), "sparsity"),
    (lambda: superposition.train(3, 2, 0.5, -1.0), "importance"),
    (lambda: superposition.train(3, 2, 0.5, torch.ones(4)), r"importance has shape \[4\]"),
    (lambda: superposition.train(3, 2, torch.full((2,), 0.5), torch.ones(5, 3)), "do not fit together"),
    (lambda: superposition.train(0, 2, 0.5), "n_features"),
    (lambda: superposition.train(3, 2, 0.5, steps=0), "steps"),
    (lambda: superposition.train(3, 2, 0.5, target="sign"), "target"),
    (lambda: superposition.train(3, 2, 0.5, sets=FeatureSets(correlated=[(0, 3)])), "there are 0 to 2"),
    (lambda: drawn(5, 4, 0.5, sets=FeatureSets([(0, 1)], [(1, 2)])), "twice"),
    (lambda: drawn(0, 4, 0.5), "batch"),
    (lambda: dimensionality(torch.ones(3)), "W is a tensor"),
    (lambda: dimensionality(torch.tensor([[1.0, float("nan")]])), "1 NaN"),
    (lambda: interference(torch.ones(2, 2, dtype=torch.long)), "floating-point"),
    (lambda: geometry(torch.ones(2, 2, 2)), "one instance"),
    (lambda: phase_losses(1.0, 1.0), "sparsity"),
    (lambda: phase_losses(0.5, -1.0), "importance"),
]


@pytest.mark.parametrize(("call", "says"), BAD)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: superposition.train(3, 2.0, 0.5), "n_hidden"),
        (lambda: superposition.train(3, 2, 0.5, batch_size=True), "batch_size"),
        (lambda: drawn(2.5, 4, 0.5), "batch"),
    ],
)
def test_counts_have_to_be_integers(call, says):
    with pytest.raises(TypeError, match=says):
        call()
