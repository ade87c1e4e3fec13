"""Erasure: against the closed form written in numpy, what the theorem promises, and scikit-learn on what is left."""

import numpy as np
import pytest
import torch
from scipy.linalg import orth, sqrtm
from sklearn.linear_model import LinearRegression, LogisticRegression

from utils.probes.erasure import Eraser, Subspace, fit_leace, inlp, random_subspace

N, D = 600, 12


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def data():
    """Two sites of correlated activations far from the origin, with three unequal classes in them."""
    z = torch.tensor([0] * 300 + [1] * 180 + [2] * 120)
    noise, mix, means = randn(2, N, D), randn(2, D, D, seed=1), 2 * randn(2, 3, D, seed=2)
    return noise @ mix + means[:, z] + 30, z


def one_hot(z):
    return torch.eye(int(z.max()) + 1)[z]


def cross_correlation(x, z):
    """Largest absolute correlation between a column of x and a column of z, in float64."""
    x, z = x.double() - x.double().mean(0), z.double() - z.double().mean(0)
    scale = x.std(0, correction=0)[:, None] * z.std(0, correction=0)
    return float((x.T @ z / len(x) / scale).nan_to_num(0).abs().max())


# --- LEACE ----------------------------------------------------------------------------------------


def test_projection_is_that_of_the_paper(data):
    x, z = data
    eraser = fit_leace(x, z)
    for site in range(2):
        rows, concept = x[site].double().numpy(), one_hot(z).double().numpy()
        rows, concept = rows - rows.mean(0), concept - concept.mean(0)
        whiten = np.linalg.inv(sqrtm(rows.T @ rows / N).real)
        columns = orth(whiten @ rows.T @ concept / N, rcond=1e-8)
        expected = np.eye(D) - np.linalg.inv(whiten) @ columns @ columns.T @ whiten
        assert np.allclose(eraser.projection[site], expected, atol=1e-5)
    assert eraser.projection.dtype == x.dtype
    assert eraser.rank.tolist() == [2, 2]
    assert torch.allclose(eraser.mean, x.mean(1), rtol=1e-5)


def test_no_linear_probe_reads_what_is_left(data):
    x, z = data
    erased = fit_leace(x, z)(x)
    for before, after in zip(x.double() - 30, erased.double() - 30, strict=True):
        assert LogisticRegression(max_iter=1000).fit(before, z).score(before, z) > 0.9
        assert cross_correlation(after, one_hot(z)) < 1e-5
        assert LogisticRegression(C=1e3, max_iter=1000).fit(after, z).score(after, z) == 0.5  # the majority
        assert LinearRegression().fit(after, one_hot(z)).score(after, one_hot(z)) < 1e-8


def test_held_out_rows_lose_the_concept_too(data):
    x, z = data
    half = torch.arange(N) % 2 == 0
    held_out = fit_leace(x[:, half], z[half])(x[:, ~half])
    assert LogisticRegression(max_iter=1000).fit(held_out[0], z[~half]).score(held_out[0], z[~half]) < 0.56


@pytest.mark.parametrize("norm", ["euclidean", "other"])
def test_no_map_that_guards_moves_less(data, norm):
    x, z = data
    rows, concept = x[0].double(), one_hot(z).double()
    rows, concept = rows - rows.mean(0), concept - concept.mean(0)
    metric = torch.eye(D).double() if norm == "euclidean" else (lambda a: a @ a.T)(randn(D, D, seed=9).double())
    projection = fit_leace(x[0], z).projection.double()

    def moved(p):
        change = rows @ (torch.eye(D) - p).T
        return float((change @ metric * change).sum(-1).mean())

    columns = torch.from_numpy(orth((rows.T @ concept).numpy(), rcond=1e-8))
    outside = torch.eye(D) - columns @ columns.T  # P + noise @ outside guards whatever the noise
    assert torch.allclose(outside @ rows.T @ concept, torch.zeros(1).double(), atol=1e-6)
    assert moved(outside) > 1.05 * moved(projection)  # the orthogonal projection, as a plain mean removal has it
    for seed in range(20):
        for size in (1e-3, 1.0):
            assert moved(projection + size * randn(D, D, seed=seed).double() @ outside) > moved(projection)


def test_erasing_twice_changes_nothing_more_and_the_mean_stays(data):
    x, z = data
    eraser = fit_leace(x, z)
    erased = eraser(x)
    assert torch.allclose(eraser(erased), erased, atol=1e-4)
    assert torch.allclose(eraser.projection @ eraser.projection, eraser.projection, atol=1e-4)
    assert torch.allclose(erased.mean(1), x.mean(1), rtol=1e-5)
    assert torch.linalg.matrix_rank(eraser.projection.double(), tol=1e-4).tolist() == [D - 2, D - 2]


def test_affine_maps_and_erasure_commute(data):
    x, z = data
    a, b = randn(D, D, seed=4), randn(D, seed=5)
    mapped = x[0] @ a.T + b
    assert torch.allclose(fit_leace(mapped, z)(mapped), fit_leace(x[0], z)(x[0]) @ a.T + b, atol=1e-3)


def test_ways_to_say_the_concept(data):
    x, z = data
    two = (z > 0).long()
    expected = fit_leace(x, two).projection
    for same in (two.bool(), 7 * two + 3, two.float(), -40 * two.double() + 1, one_hot(two), one_hot(two)[:, :1]):
        assert torch.allclose(fit_leace(x, same).projection, expected, atol=1e-5)
    unused = torch.cat([one_hot(z), torch.zeros(N, 1)], -1)
    assert torch.allclose(fit_leace(x, unused).projection, fit_leace(x, z).projection, atol=1e-5)
    real = x[0, :, 0] + randn(N)
    assert cross_correlation(fit_leace(x[0], real)(x[0]), real[:, None]) < 1e-5


def test_a_site_alone_is_fitted_as_in_a_batch(data):
    x, z = data
    together, alone = fit_leace(x, z), fit_leace(x[1], z)
    assert torch.allclose(together[1].projection, alone.projection, atol=1e-6)
    assert torch.allclose(together(x)[1], alone(x[1]), atol=1e-4)
    nested = fit_leace(x[:, None], z)
    assert nested.projection.shape == (2, 1, D, D)
    assert torch.allclose(nested(x[:, None])[:, 0], together(x), atol=1e-4)


@pytest.mark.parametrize("kind", ["copies", "zeros", "few rows", "constant column"])
def test_singular_covariances(data, kind):
    x, z = data
    x = {
        "copies": lambda: torch.cat([x[0], x[0, :, :5], 2 * x[0, :, 3:5]], -1),
        "zeros": lambda: torch.cat([x[0], torch.zeros(N, 3)], -1),
        "few rows": lambda: torch.cat([x[0], x[1], randn(N, 30)], -1)[::20],
        "constant column": lambda: torch.cat([x[0], torch.full((N, 1), 1234.5)], -1),
    }[kind]()
    z = z[::20] if kind == "few rows" else z
    eraser = fit_leace(x, z)
    erased = eraser(x)
    assert eraser.rank == 2
    assert cross_correlation(erased, one_hot(z)) < 1e-4
    centred = (x - x.mean(0)).double()
    _, s, axes = torch.linalg.svd(centred)
    absent = axes[int((s > 1e-4 * s[0]).sum()) :].float()  # no row varies along these: they are left as they are
    assert len(absent) > 0
    assert torch.allclose(absent @ eraser.projection.T, absent, atol=1e-4)


def test_nearly_collapsed_directions_are_erased_too(data):
    """A concept in a direction of a hundred-thousandth of the others' size is still a concept."""
    x, z = data
    scale = torch.ones(D)
    scale[3:6] = 1e-5
    small = (x[0] - 30) * scale
    erased = fit_leace(small, z)(small)
    standardized = (erased - erased.mean(0)) / erased.std(0)
    assert LogisticRegression(max_iter=1000).fit(standardized, z).score(standardized, z) < 0.51


def test_a_site_that_says_nothing_is_left_alone(data):
    x, z = data
    eraser = fit_leace(torch.stack([x[0], torch.ones(N, D)]), z)
    assert eraser.rank.tolist() == [2, 0]
    assert torch.equal(eraser.projection[1], torch.eye(D))


def test_hooks_may_have_more_axes_and_half_precision(data):
    x, z = data
    eraser = fit_leace(x, z)
    batch = x.reshape(2, 20, 30, D)
    assert torch.allclose(eraser(batch).reshape(2, N, D), eraser(x), atol=1e-5)
    assert torch.equal(eraser[0](batch[0]), eraser(batch)[0])
    assert torch.equal(eraser[1](x[1, 7]), eraser(x)[1, 7])
    assert eraser(x.half()).dtype == torch.float16
    with pytest.raises(ValueError, match=r"expected \[2, ..., 12\]"):
        eraser(x[0])
    with pytest.raises(IndexError, match="no site axis"):
        eraser[0][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.tensor([[1.0, torch.inf], [0.0, 0.0]])}, r"x holds 1 NaN or infinite values, the first at \[0"),
        ({"x": torch.ones(3, 2)}, "z has shape"),
        ({"x": torch.ones(1, 2), "z": [1]}, "x has one row"),
        ({"z": [1, 1]}, "z is the same in all rows"),
        ({"z": [0.0, torch.nan]}, "z holds 1 NaN"),
        ({"z": torch.ones(2, 3)}, "z is the same in all rows"),
        ({"rtol": 0.0}, "rtol is 0"),
    ],
)
def test_bad_input_to_leace_is_named(changes, message):
    arguments = {"x": torch.tensor([[1.0, 2.0], [0.0, 0.0]]), "z": [0, 1]} | changes
    with pytest.raises(ValueError, match=message):
        fit_leace(arguments.pop("x"), torch.as_tensor(arguments.pop("z")), **arguments)


# --- Subspaces ------------------------------------------------------------------------------------


def test_removing_and_projecting_add_up():
    subspace, x = random_subspace(10, 3), randn(5, 10)
    assert torch.allclose(subspace.basis @ subspace.basis.T, torch.eye(3), atol=1e-6)
    assert torch.allclose(subspace.remove(x) + subspace.project(x), x, atol=1e-6)
    assert torch.allclose(subspace.remove(x) @ subspace.basis.T, torch.zeros(5, 3), atol=1e-5)
    assert torch.allclose(subspace.remove(subspace.remove(x)), subspace.remove(x), atol=1e-6)
    center = randn(10, seed=1)
    kept = subspace.remove(x, center)
    assert torch.allclose(kept @ subspace.basis.T, (center @ subspace.basis.T).expand(5, 3), atol=1e-5)
    assert torch.allclose(subspace.remove(kept), subspace.remove(x), atol=1e-5)


def test_sites_of_a_subspace():
    subspace = Subspace(torch.stack([random_subspace(6, 2, seed=seed).basis for seed in (0, 1)]))
    x = randn(2, 4, 5, 6)
    assert torch.allclose(subspace.remove(x)[1], subspace[1].remove(x[1]))
    assert not torch.allclose(subspace.remove(x)[1], subspace[0].remove(x[1]), atol=0.1)
    with pytest.raises(ValueError, match="x has shape"):
        subspace.remove(x[0])
    with pytest.raises(IndexError, match="no site axis"):
        subspace[0][0]


def test_random_subspaces_are_uniform_and_seeded():
    before = torch.random.get_rng_state()
    mean = torch.stack(
        [random_subspace(4, 2, seed=s).basis.T @ random_subspace(4, 2, seed=s).basis for s in range(800)]
    )
    first = torch.stack([random_subspace(4, 2, seed=s).basis[0] for s in range(800)])
    assert torch.allclose(mean.mean(0), torch.eye(4) / 2, atol=0.05)
    assert first.mean(0).abs().max() < 0.07  # no sign is preferred
    assert torch.equal(random_subspace(4, 2, seed=3).basis, random_subspace(4, 2, seed=3).basis)
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match="k is 5"):
        random_subspace(4, 5)


# --- INLP -----------------------------------------------------------------------------------------


def test_inlp_is_the_loop_over_scikit_learn(data):
    x, z = data
    y, rest = (z > 0).long(), x - x.mean(1, keepdim=True)
    found = inlp(rest, y, 4, C=0.1)
    assert found.basis.shape == (2, 4, D)
    assert found.accuracy.shape == (2, 4)
    for site in range(2):
        left, removed = rest[site].double().numpy(), []
        for number in range(4):
            probe = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(left, y)
            assert found.accuracy[site, number] == pytest.approx(probe.score(left, y), abs=0.006)
            removed.append(probe.coef_[0] / np.linalg.norm(probe.coef_))
            left = left - np.outer(left @ removed[-1], removed[-1])
        overlap = np.linalg.svd(found.basis[site].double().numpy() @ np.array(removed).T)[1]
        assert overlap.min() > 0.99


def test_inlp_takes_several_directions_where_the_class_is_written_twice():
    y = torch.arange(N) % 2
    x = randn(N, D)
    x[:, 0] += 6 * y
    x[:, 1] += 6 * y
    found = inlp(x - x.mean(0), y, 3)
    accuracy = found.accuracy
    assert accuracy[0] > 0.99
    rest = found.remove(x - x.mean(0))
    assert LogisticRegression().fit(rest, y).score(rest, y) < 0.62
    control = random_subspace(D, 3).remove(x - x.mean(0))
    assert LogisticRegression().fit(control, y).score(control, y) > 0.95
    assert torch.allclose(found.basis @ found.basis.T, torch.eye(3), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.full((N, 3), torch.nan)}, "x holds"),
        ({"y": torch.ones(N, dtype=torch.long)}, "one class only"),
        ({"y": torch.arange(N) % 3}, "expected 0 and 1"),
        ({"n_directions": 4}, "n_directions is 4, expected at most the 3 columns"),
        ({"n_directions": 0}, "n_directions is 0"),
        ({"x": torch.ones(2, N, 3)}, "n_directions: after 0 directions the probe at site 0|at site .0"),
    ],
)
def test_bad_input_to_inlp_is_named(changes, message):
    arguments = {"x": randn(N, 3), "y": torch.arange(N) % 2, "n_directions": 2} | changes
    with pytest.raises(ValueError, match=message):
        inlp(**arguments)


def test_results_are_typed(data):
    x, z = data
    assert isinstance(fit_leace(x, z), Eraser)
    assert isinstance(random_subspace(3, 1), Subspace)
