"""Probes in closed form: ridge regression, and the difference of the class means (plain or whitened)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.probes import base
from utils.probes.base import LinearProbes


@dataclass(frozen=True)
class RidgeProbes:
    """Linear regressions ``x @ weight + bias`` of real-valued labels.

    Attributes:
        weight: [*site, *fold, *label, d_model], for raw activations; bias: [*site, *fold, *label].
    """

    weight: Float[Tensor, "*grid d_model"]
    bias: Float[Tensor, "*grid"]
    has_folds: bool
    has_labels: bool

    def predict(self, x: Float[Tensor, "*site n d_model"]) -> Float[Tensor, "*grid n"]:
        """The predicted value of every row, in the labels' unit."""
        return base.read_out(self.weight, self.bias, x)

    def r2(self, x: Float[Tensor, "*site n d_model"], y: Tensor, rows: Tensor | None = None) -> Tensor:
        """Share of the labels' variance that is predicted, [*site, *fold, *label]; 0 for their mean, negative below.

        Args:
            rows: which rows count (their mean is the baseline), Bool [n] or [fold, n]; default all.
        """
        y = base.aligned(y, x).to(x.dtype)
        error = (self.predict(x) - y) ** 2
        weight = torch.ones(y.shape[-1], dtype=torch.bool) if rows is None else rows
        counted = weight.to(x.device, x.dtype)
        counted = counted[:, None] if counted.dim() == 2 and self.has_labels else counted
        mean = (y * counted).sum(-1, keepdim=True) / counted.sum(-1, keepdim=True)
        total = ((y - mean) ** 2 * counted).sum(-1)
        return 1 - (error * counted).sum(-1) / total


def fit_ridge(
    x: Float[Tensor, "*site n d_model"],
    y: Tensor,
    *,
    alpha: float = 1.0,
    folds: Bool[Tensor, "fold n"] | None = None,
    standardize: bool = False,
) -> RidgeProbes:
    """Ridge regression: the w and b that minimise ``|y - x w - b|^2 + alpha |w|^2`` (scikit-learn's `Ridge`).

    One Cholesky factor for each site and fold serves all labels. Computed in float64.

    Args:
        y: [n] or [label, n], real.
        alpha: strength of the penalty; at 0 the columns must not depend on each other.
        standardize: divide by the standard deviation of the fitting rows beforehand; the weights that are returned act
            on raw activations.

    Raises:
        ValueError: for NaN, shapes that do not fit, negative alpha, or columns that depend on each other at alpha 0.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}, expected a number >= 0 (the strength of the penalty)")
    flat, y = base.features(x), base.aligned(y, x).double()
    has_labels, labels = y.dim() == 2, y.reshape(-1, y.shape[-1])
    fits = [_ridge(flat[:, rows], labels[:, rows], alpha, standardize) for rows in base.fitting_rows(folds, x)]
    weight, bias = (torch.stack(parts, 1).to(flat.dtype) for parts in zip(*fits, strict=True))
    grid = base.grid(x, len(fits) if folds is not None else None, len(labels) if has_labels else None)
    return RidgeProbes(weight.reshape(*grid, x.shape[-1]), bias.reshape(grid), folds is not None, has_labels)


def _ridge(x: Tensor, y: Tensor, alpha: float, standardize: bool) -> tuple[Tensor, Tensor]:
    """Weights [site, label, d_model] and biases [site, label] for one set of rows."""
    x = x.double()
    mean, target = x.mean(1, keepdim=True), y.mean(-1, keepdim=True)
    x = x - mean
    scale = base.scale_of(x, mean) if standardize else torch.ones_like(mean)
    x = x / scale
    gram = x.mT @ x
    gram.diagonal(dim1=-2, dim2=-1).add_(alpha)
    if alpha == 0 and (torch.linalg.cond(gram) > 1e12).any():
        raise ValueError(
            "x: columns depend on each other (constant or repeated ones, or fewer rows than columns): set alpha > 0"
        )
    weight = torch.cholesky_solve(x.mT @ (y - target).mT, torch.linalg.cholesky(gram)).mT / scale
    return weight, target[:, 0] - (weight @ mean.mT)[..., 0]


def fit_mass_mean(
    x: Float[Tensor, "*site n d_model"],
    y: Tensor,
    *,
    folds: Bool[Tensor, "fold n"] | None = None,
    whiten: bool = False,
    shrinkage: float = 0.0,
) -> LinearProbes:
    """Mass-mean probes: the weight is the difference of the class means, the threshold half-way between them.

    Source: Marks & Tegmark (2023), arXiv 2310.06824.

    Args:
        y: [n] or [label, n] of 0 and 1.
        whiten: multiply the difference by the inverse of the covariance within the classes (linear discriminant
            analysis). It then points where the classes differ most *for their spread*.
        shrinkage: from 0 to 1, mixes the covariance with a multiple of the identity of equal trace, as scikit-learn's
            LinearDiscriminantAnalysis does; needed where rows are not many more than columns.

    Raises:
        ValueError: for NaN, shapes that do not fit, a label with one class only, a covariance without inverse.
    """
    flat, y = base.features(x), base.binary_labels(y, x)
    has_labels, labels = y.dim() == 2, y.reshape(-1, y.shape[-1])
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage is {shrinkage}, expected a number from 0 to 1")
    fits = []
    for number, rows in enumerate(base.fitting_rows(folds, x)):
        base.one_class_only(labels[:, rows], "" if folds is None else f" in the fitting rows of fold {number}")
        fits.append(_mass_mean(flat[:, rows], labels[:, rows], whiten, shrinkage))
    weight, bias = (torch.stack(parts, 1).to(flat.dtype) for parts in zip(*fits, strict=True))
    grid = base.grid(x, len(fits) if folds is not None else None, len(labels) if has_labels else None)
    return LinearProbes(weight.reshape(*grid, x.shape[-1]), bias.reshape(grid), folds is not None, has_labels)


def _mass_mean(x: Tensor, y: Tensor, whiten: bool, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Weights [site, label, d_model] and biases [site, label] for one set of rows."""
    x, member = x.double(), torch.stack([~y, y]).double()  # [class, label, n]
    counts = member.sum(-1)[..., None]
    means = torch.einsum("cln,snd->csld", member, x) / counts[:, None]
    weight = means[1] - means[0]
    if whiten:
        second = (x.mT @ x / x.shape[1])[:, None]
        shares = (counts / x.shape[1])[:, None, ..., None]  # of each class among the rows
        within = second - (shares * means[..., :, None] * means[..., None, :]).sum(0)
        weight = _solved(within, weight, shrinkage)
    return weight, -(weight * means.mean(0)).sum(-1)


def _solved(covariance: Tensor, v: Tensor, shrinkage: float) -> Tensor:
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    unit = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    covariance = (1 - shrinkage) * covariance + shrinkage * size * unit
    if (torch.linalg.cond(covariance) > 1e12).any():
        raise ValueError(
            "x: the covariance within the classes has no inverse (constant or repeated columns, or fewer rows than "
            "columns): set shrinkage > 0"
        )
    return torch.linalg.solve(covariance, v)
