"""Toy models of superposition (Elhage et al. 2022, arXiv 2209.10652), many at once.

A toy model squeezes n features x through m < n hidden dimensions and gives them back as ``ReLU(WᵀWx + b)``. Features
are *sparse* (zero with probability S, else uniform on [0, 1]) and differ in *importance*, their weight in the loss. So
it is planted which features there are, how often they are on and what each is worth.

    sparse_features, FeatureSets            the data: independent, correlated and anti-correlated features
    train                                   many toy models in one tensor program: sparsities, importances, seeds
    dimensionality, interference            what a feature has to itself, and what it suffers from the others
    geometry                                which features share dimensions, and the figure they form, by name
    phase_losses                            the closed form for two features in one dimension

Arrays are indexed ``[*instance, ...]`` with any number of leading axes, none included. W is [*instance, m, n]: column i
is the direction that feature i is written along.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from utils.arguments import check_finite, check_integer

Weights = Float[Tensor, "*instance hidden feature"]

# --- Data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureSets:
    """Which features go together (Elhage et al. 2022, "Organization of correlated and anti-correlated features").

    Attributes:
        correlated: sets of features that are on or off together; their values stay independent.
        anticorrelated: sets of which never two are on at once. A set is on as often as a single feature would be, and
            then one of its features, each with the same probability.
    """

    correlated: Sequence[Sequence[int]] = ()
    anticorrelated: Sequence[Sequence[int]] = ()


INDEPENDENT = FeatureSets()


def sparse_features(
    batch: int,
    n_features: int,
    sparsity: float | Float[Tensor, "*instance"],
    *,
    sets: FeatureSets = INDEPENDENT,
    signed: bool = False,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*instance batch feature"]:
    """Feature vectors: each feature is zero with probability `sparsity`, else uniform on [0, 1].

    Args:
        sparsity: in [0, 1), one for all or one for each instance.
        sets: features that occur together, or never together.
        signed: uniform on [-1, 1] instead.

    Raises:
        ValueError: a sparsity outside [0, 1), a feature of a set that does not exist or stands in two sets, counts
            below 1.
        TypeError: counts that are not integers.
    """
    sparsity = _sparsities(sparsity)
    _check_sets(sets, check_integer("n_features", n_features, 1))
    shape = (*sparsity.shape, check_integer("batch", batch, 1), n_features)
    drawn = torch.rand(shape, generator=generator, device=sparsity.device)
    for members in map(list, sets.correlated):
        drawn[..., members] = drawn[..., members[:1]]
    on = drawn >= sparsity[..., None, None]
    for members in map(list, sets.anticorrelated):
        which = torch.randint(len(members), shape[:-1], generator=generator, device=sparsity.device)
        alone = which[..., None] == torch.arange(len(members), device=sparsity.device)
        on[..., members] = on[..., members[:1]] & alone
    values = torch.rand(shape, generator=generator, device=sparsity.device)
    return (2 * values - 1 if signed else values) * on


# --- Models ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyModels:
    """Trained toy models, one for each instance.

    Attributes:
        W: [*instance hidden feature].
        b: [*instance feature].
        loss: [*instance], the mean over fresh samples of the sum over features of importance times squared error.
        linear: without the ReLU.
        target: "identity" or "absolute value" of the features.
        read_out: [*instance feature hidden], where the output has weights of its own; else None, and it is Wᵀ.
    """

    W: Weights
    b: Float[Tensor, "*instance feature"]
    loss: Float[Tensor, "*instance"]
    linear: bool = False
    target: str = "identity"
    read_out: Float[Tensor, "*instance feature hidden"] | None = field(default=None)

    def __call__(self, x: Float[Tensor, "*instance batch feature"]) -> Float[Tensor, "*instance batch feature"]:
        """The features as the models give them back."""
        return _forward(x, self.W, self.b, self.read_out, self.linear)


def _forward(x: Tensor, W: Tensor, b: Tensor, read_out: Tensor | None, linear: bool) -> Tensor:
    hidden = x @ W.mT
    if read_out is not None:
        hidden = hidden.relu()
    out = hidden @ (W if read_out is None else read_out.mT) + b[..., None, :]
    return out if linear else out.relu()


def train(
    n_features: int,
    n_hidden: int,
    sparsity: float | Float[Tensor, "*instance"],
    importance: float | Float[Tensor, "*instance feature"] = 1.0,
    *,
    sets: FeatureSets = INDEPENDENT,
    linear: bool = False,
    target: str = "identity",
    steps: int = 3000,
    batch_size: int = 256,
    lr: float = 3e-3,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> ToyModels:
    """Train a toy model for each instance, all of them in one tensor program.

    Adam on the sum of the instances' losses: its update works on each number by itself, so no instance depends on
    which others are there, except through the random numbers they draw. The learning rate falls as a cosine to zero.

    Args:
        sparsity: in [0, 1), one for all or one for each instance.
        importance: of the features, a number, [feature], or [*instance, feature]. Instances are what this and
            `sparsity` broadcast to; ``sparsity.expand(10, ...)`` trains ten of each.
        target: "identity", or "absolute value": the features then lie in [-1, 1] and the model computes |x| through
            ``ReLU(U ReLU(Wx) + b)`` with a ReLU on the hidden dimensions (Elhage et al. 2022, "Computation in
            superposition").
        progress: show a bar.

    Raises:
        ValueError: a sparsity outside [0, 1), negative or shapeless importance, counts below 1, an unknown target.
        TypeError: counts that are not integers.
    """
    counts = {"n_features": n_features, "n_hidden": n_hidden, "steps": steps, "batch_size": batch_size}
    for name, value in counts.items():
        check_integer(name, value, 1)
    if target not in ("identity", "absolute value"):
        raise ValueError(f"target is {target!r}, expected 'identity' or 'absolute value'")
    sparsity, importance = _instances(_sparsities(sparsity), importance, n_features)
    sparsity, importance = sparsity.to(device), importance.to(device)
    drawing = torch.Generator(device=sparsity.device).manual_seed(seed)
    computes = target != "identity"

    def fresh(*shape: int) -> Tensor:
        drawn = torch.randn(*sparsity.shape, *shape, generator=drawing, device=sparsity.device)
        return drawn / math.sqrt(4 * n_hidden)

    def batch(size: int) -> Tensor:
        return sparse_features(size, n_features, sparsity, sets=sets, signed=computes, generator=drawing)

    def loss(x: Tensor) -> Float[Tensor, "*instance"]:
        wanted = x.abs() if computes else x
        return ((wanted - _forward(x, W, b, read_out, linear)).pow(2) * importance[..., None, :]).sum(-1).mean(-1)

    W = fresh(n_hidden, n_features).requires_grad_()
    read_out = fresh(n_features, n_hidden).requires_grad_() if computes else None
    b = torch.zeros(*sparsity.shape, n_features, device=sparsity.device, requires_grad=True)
    optimizer = torch.optim.Adam([p for p in (W, read_out, b) if p is not None], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.enable_grad():
        for _ in tqdm(range(steps), desc="toy models", disable=not progress):
            optimizer.zero_grad(set_to_none=True)
            loss(batch(batch_size)).sum().backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        final = torch.stack([loss(batch(1024)) for _ in range(16)]).mean(0)
    return ToyModels(W.detach(), b.detach(), final, linear, target, None if read_out is None else read_out.detach())


# --- Geometry -------------------------------------------------------------------------------------


def dimensionality(W: Weights) -> Float[Tensor, "*instance feature"]:
    """The share of a dimension that each feature has: ``D_i = |W_i|² / Σ_j (Ŵ_i · W_j)²`` (Elhage et al. 2022).

    1: a dimension of its own; 1/2: one of an antipodal pair; 0: not represented (a column of length zero). For every W
    the sum over features is at most the rank of W, hence at most m.

    Raises:
        ValueError: NaN or infinite weights, fewer than two axes.
    """
    _check_weights(W)
    squared = W.pow(2).sum(-2)
    overlaps = (W.mT @ W).pow(2).sum(-1)  # Σ_j (W_i · W_j)²
    return torch.where(overlaps > 0, squared.pow(2) / overlaps.clamp_min(torch.finfo(W.dtype).tiny), 0.0)


def interference(W: Weights) -> Float[Tensor, "*instance feature feature"]:
    """``Ŵ_i · W_j``: what feature j adds to the read-out of feature i; the diagonal (its own length) is set to 0."""
    _check_weights(W)
    lengths = W.norm(dim=-2)
    unit = W / lengths.clamp_min(torch.finfo(W.dtype).tiny)[..., None, :]
    between = unit.mT @ W
    return between - torch.diag_embed(between.diagonal(dim1=-2, dim2=-1))


@dataclass(frozen=True)
class Figure:
    """Features that share dimensions, and the figure their directions form.

    Attributes:
        features: their numbers, in order.
        dimensions: of the space that they span.
        name: "dedicated dimension", "antipodal pair", "triangle", "pentagon", "tetrahedron", ..., or "5 in 3".
        dimensionality: mean of the features' D_i.
    """

    features: tuple[int, ...]
    dimensions: int
    name: str
    dimensionality: float


# (features, dimensions) -> name and the dimensionality of each feature when the figure is regular
NAMED = {
    (1, 1): ("dedicated dimension", 1.0),
    (2, 1): ("antipodal pair", 1 / 2),
    (3, 2): ("triangle", 2 / 3),
    (4, 3): ("tetrahedron", 3 / 4),
    (5, 2): ("pentagon", 2 / 5),
    (8, 3): ("square antiprism", 3 / 8),
}


def geometry(
    W: Float[Tensor, "hidden feature"], *, represented: float = 0.5, orthogonal: float = 0.15, tolerance: float = 0.05
) -> list[Figure]:
    """The figures that one model's features form, recognised from WᵀW alone, in order of their first feature.

    Two features share dimensions when the cosine between them is above `orthogonal`, or when a chain of such pairs
    joins them. A figure gets the name of a regular one when it has as many features and dimensions and every feature's
    dimensionality is within `tolerance` of the regular figure's.

    Args:
        represented: features with a shorter column are left out.

    Raises:
        ValueError: NaN or infinite weights, more than one instance.
    """
    _check_weights(W)
    if W.dim() != 2:
        raise ValueError(f"W has shape {list(W.shape)}, expected one instance [hidden, feature]")
    kept = (W.norm(dim=0) >= represented).nonzero()[:, 0]
    W = W[:, kept].double()
    unit = W / W.norm(dim=0)
    linked = (unit.T @ unit).abs() > orthogonal
    shares = dimensionality(W)
    figures, seen = [], torch.zeros(len(kept), dtype=torch.bool)
    for start in range(len(kept)):
        if seen[start]:
            continue
        members = _reached(linked, start)
        seen |= members
        strengths = torch.linalg.svdvals(unit[:, members])
        dimensions = int((strengths > 0.2 * strengths[0]).sum())
        share = shares[members]
        name, regular = NAMED.get((int(members.sum()), dimensions), ("", math.nan))
        if not bool(((share - regular).abs() <= tolerance).all()):
            name = f"{int(members.sum())} in {dimensions}"
        figures.append(Figure(tuple(kept[members].tolist()), dimensions, name, share.mean().item()))
    return figures


def _reached(linked: Bool[Tensor, "n n"], start: int) -> Bool[Tensor, " n"]:
    members = linked[start].clone()
    while True:
        more = linked[members].any(0)
        if bool((more == members).all()):
            return members
        members = more


# --- Two features in one dimension ----------------------------------------------------------------

PHASES = ("first feature alone", "second feature alone", "antipodal pair")


def phase_losses(
    sparsity: float | Float[Tensor, "*grid"], importance: float | Float[Tensor, "*grid"]
) -> Float[Tensor, "*grid phase"]:
    """Expected losses of the three solutions for two features in one dimension, in the order of `PHASES`.

    Importances are 1 and `importance`, p = 1 - sparsity, features uniform on [0, 1] when they are on. One feature alone
    has loss 0; the other is answered by its mean, ``p (1/3 - p/4)`` (the variance). The pair, W = (1, -1) without bias,
    errs only when both are on, for each by the smaller of the two: ``p² / 6``.

    Raises:
        ValueError: a sparsity outside [0, 1), a negative importance.
    """
    p = 1 - _sparsities(sparsity).double()
    importance = torch.as_tensor(importance, dtype=torch.float64, device=p.device)
    if not bool((importance >= 0).all()):
        raise ValueError("importance holds negative or undefined values, expected at least 0")
    dropped = p * (1 / 3 - p / 4)
    pair = (1 + importance) * p.pow(2) / 6
    return torch.stack(torch.broadcast_tensors(importance * dropped, dropped, pair), dim=-1)


# --- Input ----------------------------------------------------------------------------------------


def _sparsities(sparsity: float | Tensor) -> Float[Tensor, "*instance"]:
    sparsity = torch.as_tensor(sparsity, dtype=torch.float32)
    if not sparsity.numel() or not bool(((sparsity >= 0) & (sparsity < 1)).all()):
        raise ValueError(f"sparsity is {_shown(sparsity)}, expected values in [0, 1): the probability of a zero")
    return sparsity


def _instances(sparsity: Tensor, importance: float | Tensor, n_features: int) -> tuple[Tensor, Tensor]:
    """Sparsity [*instance] and importance [*instance feature]."""
    importance = torch.as_tensor(importance, dtype=torch.float32, device=sparsity.device)
    if not bool((importance >= 0).all()) or not bool(importance.isfinite().all()):
        raise ValueError(f"importance is {_shown(importance)}, expected finite values of at least 0")
    if importance.dim() and importance.shape[-1] != n_features:
        raise ValueError(f"importance has shape {list(importance.shape)}, expected [..., {n_features}], a feature each")
    importance = importance.expand(*importance.shape[:-1], n_features)
    try:
        instance = torch.broadcast_shapes(sparsity.shape, importance.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"sparsity has shape {list(sparsity.shape)} and importance {list(importance.shape)}: their instances do "
            "not fit together"
        ) from None
    return sparsity.expand(instance), importance.expand(*instance, n_features)


def _check_sets(sets: FeatureSets, n_features: int) -> None:
    named = [feature for group in (*sets.correlated, *sets.anticorrelated) for feature in group]
    if any(isinstance(f, bool) or not isinstance(f, int) or not 0 <= f < n_features for f in named):
        raise ValueError(f"sets names the features {sorted(set(named), key=str)}, there are 0 to {n_features - 1}")
    if len(set(named)) != len(named):
        raise ValueError("sets names a feature twice, expected each in one set at most")


def _check_weights(W: Tensor) -> None:
    if not isinstance(W, Tensor) or not W.is_floating_point() or W.dim() < 2 or not W.numel():
        raise ValueError(f"W is {_shown(W)}, expected a floating-point tensor [*instance, hidden, feature]")
    check_finite("W", W)


def _shown(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.item():.4g}" if value.numel() == 1 else f"a tensor {list(value.shape)}"
