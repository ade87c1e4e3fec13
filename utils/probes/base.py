"""What all probes of the course share: grids of sites, folds and labels, checked inputs, held-out scores.

A *site* is a place activations are read from (a layer, a layer and a position, ...); a *fold* is one way to choose the
rows that a probe is fitted on; a *label* is one thing to be read. Results carry these axes in this order,
``[*site, *fold, *label, ...]``, and only those that the arguments had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.model_selection import GroupKFold, StratifiedKFold
from torch import Tensor

from utils.arguments import check_finite


@dataclass(frozen=True)
class LinearProbes:
    """Linear read-outs ``x @ weight + bias``, one for each site, fold and label.

    Attributes:
        weight: [*site, *fold, *label, d_model], to be used on raw activations.
        bias: [*site, *fold, *label].
        has_folds, has_labels: whether those axes are there.
    """

    weight: Float[Tensor, "*grid d_model"]
    bias: Float[Tensor, "*grid"]
    has_folds: bool
    has_labels: bool

    def logits(self, x: Float[Tensor, "*site n d_model"]) -> Float[Tensor, "*grid n"]:
        """The read-out of every row, [*site, *fold, *label, n]: positive speaks for label 1."""
        return read_out(self.weight, self.bias, x)

    def predict(self, x: Float[Tensor, "*site n d_model"]) -> Bool[Tensor, "*grid n"]:
        """Whether each row is called 1."""
        return self.logits(x) > 0

    def accuracy(self, x: Float[Tensor, "*site n d_model"], y: Tensor, rows: Tensor | None = None) -> Tensor:
        """Share of the rows that are called rightly, [*site, *fold, *label].

        Args:
            y: [n] or [label, n] of 0 and 1.
            rows: which rows count, Bool [n] or [fold, n]; ``rows=~folds`` gives the held-out accuracy. Default: all.
        """
        right = self.predict(x) == binary_labels(y, x, self.has_labels)
        return share(right, rows, self.has_folds, self.has_labels)


def read_out(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """``x @ weight + bias``, [*site, ..., n]; weight is [*site, ..., d_model], bias [*site, ...]."""
    site, (n, d_model) = x.shape[:-2], x.shape[-2:]
    if weight.shape[: len(site)] != site or weight.shape[-1] != d_model or weight.dim() <= len(site):
        raise ValueError(
            f"x has shape {list(x.shape)}, expected [*site, n, d_model] with the sites and the d_model that the "
            f"probes were fitted on (weight has shape {list(weight.shape)})"
        )
    flat = weight.reshape(*site, -1, d_model).to(x.dtype) @ x.mT + bias.reshape(*site, -1, 1).to(x.dtype)
    return flat.reshape(*bias.shape, n)


def share(hits: Tensor, rows: Tensor | None, has_folds: bool, has_labels: bool = False) -> Tensor:
    """Mean of `hits` [*site, *fold, *label, n] over the rows that count (Bool [n] or [fold, n])."""
    hits = hits.to(torch.float32)
    if rows is None:
        return hits.mean(-1)
    if rows.shape[-1] != hits.shape[-1] or rows.dtype != torch.bool or rows.dim() > 1 + has_folds:
        expected = f"Bool [{'fold, ' if has_folds else ''}{hits.shape[-1]}]"
        raise ValueError(f"rows has shape {list(rows.shape)} and dtype {rows.dtype}, expected {expected}")
    rows = rows.to(hits.device, hits.dtype)
    if rows.dim() == 2 and has_labels:
        rows = rows[:, None]
    return (hits * rows).sum(-1) / rows.sum(-1)


# --- Inputs ---------------------------------------------------------------------------------------


def features(x: Tensor, name: str = "x") -> Tensor:
    """`x` flattened to [site, n, d_model], floating and finite.

    Raises:
        ValueError: for another shape, or for NaN and infinities (with the place of the first).
    """
    if not isinstance(x, Tensor) or x.dim() < 2 or not x.shape[-2:].numel():
        shape = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} is {shape}, expected a tensor [*site, n, d_model] with at least one row and column")
    if not x.is_floating_point():
        raise ValueError(f"{name} has dtype {x.dtype}, expected floating-point activations")
    x = x.detach()
    check_finite(name, x)
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    return x.reshape(-1, *x.shape[-2:])


def binary_labels(y: Tensor, x: Tensor, with_label_axis: bool | None = None) -> Bool[Tensor, "*label n"]:
    """`y` as Bool on x's device.

    Raises:
        ValueError: unless y is [n] or [label, n] of 0 and 1, with as many entries as x has rows.
    """
    y = aligned(y, x, with_label_axis)
    values = y.unique()
    if not all(float(value) in (0.0, 1.0) for value in values):
        raise ValueError(f"y has the values {values[:5].tolist()}, expected 0 and 1 (or bool)")
    return y.bool()


def class_labels(y: Tensor, x: Tensor) -> Tensor:
    """`y` as int64 [n] on x's device.

    Raises:
        ValueError: unless y is [n] of whole numbers from 0.
    """
    y = aligned(y, x, with_label_axis=False)
    if y.is_floating_point() or int(y.min()) < 0:
        raise ValueError(f"y has dtype {y.dtype} and minimum {y.min().item()}, expected classes 0, 1, 2, ...")
    return y.long()


def aligned(y: Tensor, x: Tensor, with_label_axis: bool | None = None) -> Tensor:
    """`y` as a tensor [n] or [label, n] on x's device, one entry for each row of x [*site, n, d_model]."""
    y = torch.as_tensor(y).detach().to(x.device)
    n = x.shape[-2]
    axes = {None: (1, 2), True: (1, 2), False: (1,)}[with_label_axis]
    if y.dim() not in axes or y.shape[-1] != n:
        expected = f"[{n}]" if axes == (1,) else f"[{n}] or [label, {n}]"
        raise ValueError(f"y has shape {list(y.shape)}, expected {expected}: x has {n} rows")
    check_finite("y", y)
    return y


def fitting_rows(folds: Tensor | None, x: Tensor) -> list[Tensor]:
    """The row numbers of each fold (all rows when there are no folds)."""
    n = x.shape[-2]
    if folds is None:
        return [torch.arange(n, device=x.device)]
    folds = torch.as_tensor(folds)
    if folds.dtype != torch.bool or folds.dim() != 2 or folds.shape[1] != n:
        raise ValueError(
            f"folds has shape {list(folds.shape)} and dtype {folds.dtype}, expected Bool [fold, {n}], "
            "True for the rows that a probe is fitted on"
        )
    rows = [fold.nonzero()[:, 0].to(x.device) for fold in folds]
    empty = [i for i, fold in enumerate(rows) if not len(fold)]
    if empty:
        raise ValueError(f"folds: fold {empty[0]} has no row to fit on")
    return rows


def grid(x: Tensor, folds: int | None, labels: int | None) -> list[int]:
    """Sizes of the axes [*site, *fold, *label] of a result; None for an axis that is not there."""
    return [*x.shape[:-2], *([] if folds is None else [folds]), *([] if labels is None else [labels])]


def one_class_only(y: Bool[Tensor, "label n"], where: str) -> None:
    """Raise for a label that is the same in all rows that a probe would be fitted on."""
    share = y.float().mean(-1)
    constant = ((share == 0) | (share == 1)).nonzero()[:, 0].tolist()
    if constant:
        raise ValueError(f"y: label {constant[0]} has one class only{where}: there is nothing to fit")


def scale_of(centred: Tensor, mean: Tensor) -> Float[Tensor, "site 1 d_model"]:
    """Standard deviation of each column; 1 for one that is constant but for rounding."""
    std = centred.pow(2).mean(1, keepdim=True).sqrt()
    rounding = 4 * torch.finfo(std.dtype).eps * mean.abs()
    return torch.where(std > rounding, std, torch.ones_like(std))


# --- Folds ----------------------------------------------------------------------------------------


def group_folds(groups: Sequence, n_folds: int, seed: int = 0) -> Bool[Tensor, "fold n"]:
    """Folds in which every group (entity, template, ...) is wholly fitted on or wholly held out.

    scikit-learn's GroupKFold with shuffled groups: each group is held out in exactly one fold.

    Args:
        groups: one name or number for each row.

    Returns:
        True for the rows that a probe is fitted on.

    Raises:
        ValueError: when there are fewer groups than folds.
    """
    groups = _names(groups)
    splits = GroupKFold(n_folds, shuffle=True, random_state=seed)
    return _masks(splits.split(np.zeros(len(groups)), groups=groups), len(groups))


def stratified_folds(y: Sequence, n_folds: int, seed: int = 0) -> Bool[Tensor, "fold n"]:
    """Folds over single rows, each with the classes of `y` in nearly equal shares (scikit-learn's StratifiedKFold)."""
    y = _names(y)
    splits = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return _masks(splits.split(np.zeros(len(y)), y), len(y))


def check_no_leak(folds: Bool[Tensor, "fold n"], groups: Sequence) -> None:
    """Make sure that no group is on both sides of a fold.

    Raises:
        ValueError: naming the fold and a group that is both fitted on and held out.
    """
    groups = _names(groups)
    if folds.shape[-1] != len(groups):
        raise ValueError(f"groups has {len(groups)} entries, expected {folds.shape[-1]}, one for each row of the folds")
    for number, fold in enumerate(folds.cpu().numpy()):
        both = set(groups[fold].tolist()) & set(groups[~fold].tolist())
        if both:
            name = sorted(both, key=str)[0]
            raise ValueError(
                f"groups leak: in fold {number} {name!r} ({len(both)} groups in all) is both fitted on and held out"
            )


def _names(values: Sequence) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _masks(splits, n: int) -> Bool[Tensor, "fold n"]:
    masks = []
    for fitted, _ in splits:
        masks.append(torch.zeros(n, dtype=torch.bool))
        masks[-1][torch.as_tensor(fitted)] = True
    return torch.stack(masks)
