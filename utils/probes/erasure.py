"""Taking a concept out of activations: LEACE, iterative nullspace projection, and random subspaces as control.

A probe shows that something can be read, not that the model uses it. Take it out and look whether behaviour changes
(amnesic probing: Elazar et al. 2021, arXiv 2006.00995), and compare with taking out as many random directions.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from utils.arguments import check_finite, check_integer, check_positive
from utils.probes import base
from utils.probes.logistic import fit_logistic

# Canonical correlations (0 to 1) below this are rounding: float64 leaves about 1e-10 after whitening at rtol = 1e-12.
_NO_CORRELATION = 1e-8


# --- LEACE ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Eraser:
    """The affine map ``x -> x - left right (x - mean)`` that makes a concept linearly unreadable; call it on `x`.

    `left` and `right` stay in float64: whitened coordinates of nearly collapsed directions need its digits.

    Attributes:
        mean: [*site, d], which the map leaves where it is.
        left, right: [*site, d, k] and [*site, k, d]; ``right @ left`` is a projection.
        rank: [*site], directions that are taken out: at most the number of classes minus one.
    """

    mean: Float[Tensor, "*site d"]
    left: Float[Tensor, "*site d k"]
    right: Float[Tensor, "*site k d"]
    rank: Int[Tensor, "*site"]

    @property
    def projection(self) -> Float[Tensor, "*site d d"]:
        """``P = I - W^+ P_{W Sigma_xz} W`` of the paper: oblique, idempotent, not symmetric; in the mean's dtype."""
        identity = torch.eye(self.left.shape[-2], dtype=self.left.dtype, device=self.left.device)
        return (identity - self.left @ self.right).to(self.mean.dtype)

    def __call__(self, x: Float[Tensor, "*site_rows d"]) -> Float[Tensor, "*site_rows d"]:
        """The activations without the concept, in x's dtype; any axes may stand between sites and d."""
        site, d = tuple(self.mean.shape[:-1]), self.mean.shape[-1]
        if tuple(x.shape[: len(site)]) != site or x.shape[-1] != d or x.dim() <= len(site):
            expected = ", ".join(map(str, (*site, "...", d)))
            raise ValueError(f"x has shape {list(x.shape)}, expected [{expected}] as in the fit")
        mean, left, right = (t.to(x.device, torch.float64) for t in (self.mean, self.left, self.right))
        rows = x.reshape(*site, -1, d).double()
        erased = rows - (rows - mean.unsqueeze(-2)) @ right.mT @ left.mT
        return erased.reshape(x.shape).to(x.dtype)

    def __getitem__(self, site: int | tuple[int, ...]) -> "Eraser":
        """The eraser of one site (layer), e.g. for a hook there."""
        if self.mean.dim() == 1:
            raise IndexError("this eraser has no site axis to choose from")
        return Eraser(self.mean[site], self.left[site], self.right[site], self.rank[site])


def fit_leace(
    x: Float[Tensor, "*site n d"],
    z: Int[Tensor, "n"] | Float[Tensor, "n"] | Float[Tensor, "n k"],
    *,
    rtol: float = 1e-12,
) -> Eraser:
    """Least-squares concept erasure (Belrose et al. 2023, arXiv 2306.03819), in closed form at every site.

    Of all affine maps after which no linear predictor of `z` beats a constant one (equivalently: zero covariance of
    the erased x with z) it is the one that moves x least in mean square, in any norm that comes from an inner product:
    ``r(x) = x - W^+ P_{W Sigma_xz} W (x - E x)`` with the whitening ``W = (Sigma_xx^{1/2})^+`` and the orthogonal
    projection ``P`` on the columns of ``W Sigma_xz``. Covariances of the sample, computed in float64, no shrinkage.

    Args:
        x: activations; axes before the rows are sites.
        z: the concept: integers or booleans [n] (classes, made one-hot), real numbers [n], or vectors [n, k] (one-hot
            or any others, taken as they are).
        rtol: directions in which the variance is at most `rtol` times the mean squared norm ``E |x|^2`` count as not
            there (pseudo-inverse) and are left untouched. The rounding of float32 makes variances of about 4e-15.

    With fewer rows than columns the concept is erased from these rows, while of new rows hardly any promise can be
    made. Where x is constant or unrelated to z, nothing is taken out (`rank` 0).

    Raises:
        ValueError: for NaN, shapes that do not fit, a concept that is the same in all rows.
    """
    flat = base.features(x)
    rtol = check_positive("rtol", rtol)
    if flat.shape[1] < 2:
        raise ValueError("x has one row only, expected at least two")
    z = _standardized_concept(z, x)
    rows = flat.double()
    mean = rows.mean(1, keepdim=True)
    centred = rows - mean
    variance, axes = torch.linalg.eigh(centred.mT @ centred / rows.shape[1])
    present = variance > rtol * rows.pow(2).sum(-1).mean(-1)[:, None]
    std = torch.where(present, variance, 1.0).sqrt()
    whiten = axes @ torch.diag_embed(present / std) @ axes.mT
    unwhiten = axes @ torch.diag_embed(present * std) @ axes.mT
    columns, correlation, _ = torch.linalg.svd(whiten @ (centred.mT @ z / rows.shape[1]), full_matrices=False)
    # The columns of z are standardised but not whitened: their covariance has no eigenvalue above k.
    columns = columns * (correlation > _NO_CORRELATION * z.shape[1] ** 0.5)[:, None]
    site, d = x.shape[:-2], x.shape[-1]
    return Eraser(
        mean=mean.reshape(*site, d).to(flat.dtype),
        left=(unwhiten @ columns).reshape(*site, d, -1),
        right=(columns.mT @ whiten).reshape(*site, -1, d),
        rank=(columns.abs().sum(1) > 0).sum(-1).reshape(site),
    )


def _standardized_concept(z: Tensor, x: Tensor) -> Float[Tensor, "n k"]:
    """`z` as float64 columns of mean 0 and variance 1; constant columns (a class that never occurs) are left out."""
    z = torch.as_tensor(z).detach().to(x.device)
    n = x.shape[-2]
    if z.dim() not in (1, 2) or z.shape[0] != n:
        raise ValueError(f"z has shape {list(z.shape)}, expected [{n}] or [{n}, k]: x has {n} rows")
    check_finite("z", z)
    if z.dim() == 1:
        z = z[:, None] if z.is_floating_point() else F.one_hot(z.unique(return_inverse=True)[1])
    z = z.double()
    varies = (z != z[0]).any(0)
    if not varies.any():
        raise ValueError("z is the same in all rows: there is no concept to erase")
    z = z[:, varies] - z[:, varies].mean(0)
    return z / z.pow(2).mean(0).sqrt()


# --- Subspaces ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subspace:
    """Directions of activation space, an orthonormal basis for each site."""

    basis: Float[Tensor, "*site k d"]

    def project(self, x: Float[Tensor, "*site_rows d"]) -> Float[Tensor, "*site_rows d"]:
        """The component of `x` in the subspace; any axes may stand between sites and d."""
        *site, _, d = self.basis.shape
        if list(x.shape[: len(site)]) != site or x.shape[-1] != d or x.dim() <= len(site):
            raise ValueError(f"x has shape {list(x.shape)}, expected [{', '.join(map(str, (*site, '...', d)))}]")
        basis = self.basis.to(x.device, x.dtype)
        return (x.reshape(*site, -1, d) @ basis.mT @ basis).reshape(x.shape)

    def remove(
        self, x: Float[Tensor, "*site_rows d"], center: Float[Tensor, "d"] | None = None
    ) -> Float[Tensor, "*site_rows d"]:
        """`x` without its component in the subspace (with the component of `center`, e.g. the mean, in its stead)."""
        return x - self.project(x if center is None else x - center)

    def __getitem__(self, site: int | tuple[int, ...]) -> "Subspace":
        """The subspace of one site (layer), e.g. for a hook there."""
        if self.basis.dim() == 2:
            raise IndexError("this subspace has no site axis to choose from")
        return Subspace(self.basis[site])


@dataclass(frozen=True)
class InlpSubspace(Subspace):
    """What INLP found: `accuracy` [*site, k] is that of each round's probe on its fitting rows, before its removal."""

    accuracy: Float[Tensor, "*site k"]


def random_subspace(d: int, k: int, seed: int = 0) -> Subspace:
    """`k` orthonormal directions of `d`, uniformly distributed: the control for taking out k chosen ones."""
    d = check_integer("d", d, least=1)
    k = check_integer("k", k, least=1)
    if k > d:
        raise ValueError(f"k is {k}, expected at most d = {d}")
    generator = torch.Generator().manual_seed(check_integer("seed", seed, least=0))
    q, r = torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64))
    return Subspace((q * r.diagonal().sign()).mT.float().contiguous())  # the signs make it uniform (Mezzadri 2007)


def inlp(
    x: Float[Tensor, "*site n d"],
    y: Int[Tensor, "n"],
    n_directions: int,
    *,
    C: float = 1.0,
    standardize: bool = False,
) -> InlpSubspace:
    """Iterative nullspace projection (Ravfogel et al. 2020, arXiv 2004.07667), all sites side by side.

    Round by round a logistic-regression probe is fitted on what is left of `x`, and the direction of its weights is
    taken out. Unlike LEACE it needs several directions to bring linear accuracy down, and takes other things with them.

    Args:
        x: activations.
        y: 0 or 1 (or booleans).
        n_directions: rounds.
        C, standardize: of each round's `fit_logistic`.

    Raises:
        ValueError: for NaN, shapes that do not fit, one class only, more directions than columns, or a round whose
            probe finds nothing any more.
    """
    base.features(x)
    x = x.detach().float()
    if check_integer("n_directions", n_directions, least=1) > x.shape[-1]:
        raise ValueError(f"n_directions is {n_directions}, expected at most the {x.shape[-1]} columns of x")
    subspace, accuracy = Subspace(x.new_zeros(*x.shape[:-2], 0, x.shape[-1])), []
    for number in range(n_directions):
        rest = subspace.remove(x)
        probes = fit_logistic(rest, y, C=C, standardize=standardize)
        accuracy.append(probes.accuracy(rest, y))
        subspace = Subspace(torch.cat([subspace.basis, _new_direction(probes.weight, subspace, number)], dim=-2))
    return InlpSubspace(subspace.basis, torch.stack(accuracy, -1))


def _new_direction(weight: Float[Tensor, "*site d"], found: Subspace, number: int) -> Float[Tensor, "*site 1 d"]:
    """`weight` made orthogonal to what was found before (twice, against rounding) and of length 1."""
    direction = found.remove(found.remove(weight.unsqueeze(-2)))
    length, whole = direction.norm(dim=-1, keepdim=True), weight.norm(dim=-1)[..., None, None]
    spent = (length <= 1e-3 * whole).squeeze((-1, -2)).nonzero().tolist()
    if spent:
        site = f" at site {spent[0]}" if weight.dim() > 1 else ""
        raise ValueError(f"n_directions: after {number} directions the probe{site} finds nothing any more")
    return direction / length
