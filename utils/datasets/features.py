"""Activations that are made of known features: the truth that a dictionary is held to.

A sample is ``x = Σ_i a_i f_i``: few of the features are on (a_i > 0), each along a direction f_i of its own. There may
be more features than dimensions. With `parents`, some features come only with another one ("a red apple" only with "an
apple"), which is what absorption feeds on (Chanin et al. 2024, arXiv 2409.14507).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from utils.arguments import check_integer, check_positive


@dataclass(frozen=True)
class Features:
    """Planted features.

    Attributes:
        directions: [feature d], unit rows.
        probability: [feature], how often each is on; of a feature with a parent, how often when the parent is on.
        parents: child -> parent. A parent has no parent of its own, and never two of its children are on at once.
        constant: whether a feature that is on has the value 1, instead of one drawn from [0, 1].
    """

    directions: Float[Tensor, "feature d"]
    probability: Float[Tensor, " feature"]
    parents: Mapping[int, int] = field(default_factory=dict)
    constant: bool = False

    def __post_init__(self):
        n = len(self.directions)
        if self.directions.dim() != 2 or self.probability.shape != (n,):
            raise ValueError(
                f"directions has shape {list(self.directions.shape)} and probability {list(self.probability.shape)}, "
                "expected [feature d] and [feature]"
            )
        if not bool(((self.probability > 0) & (self.probability <= 1)).all()):
            raise ValueError("probability holds values outside (0, 1]")
        if not all(0 <= i < n for pair in self.parents.items() for i in pair):
            raise ValueError(f"parents names features that do not exist: there are 0 to {n - 1}")
        if set(self.parents) & set(self.parents.values()):
            raise ValueError("parents gives a parent a parent of its own, expected one level")
        for parent in set(self.parents.values()):
            total = sum(float(self.probability[child]) for child, above in self.parents.items() if above == parent)
            if total > 1 + 1e-6:
                raise ValueError(f"probability: the children of {parent} would be on more often than it ({total:.2f})")

    def sample(self, n: int, seed: int = 0) -> tuple[Float[Tensor, "sample d"], Float[Tensor, "sample feature"]]:
        """Samples x, and the features a that they are made of."""
        drawing = _drawing("sample", seed)
        shape = (check_integer("n", n, 1), len(self.directions))
        drawn = torch.rand(shape, generator=drawing)
        on = drawn < self.probability
        for parent in sorted(set(self.parents.values())):
            children = [child for child, above in self.parents.items() if above == parent]
            stop = self.probability[children].cumsum(0)  # one number decides which child is on, if any
            start, which = stop - self.probability[children], drawn[:, children[:1]]
            on[:, children] = on[:, [parent]] & (which >= start) & (which < stop)
        values = torch.ones(shape) if self.constant else torch.rand(shape, generator=drawing)
        a = values * on
        return a @ self.directions, a


def planted(n_features: int = 64, d: int = 20, *, probability: float = 0.03, seed: int = 0) -> Features:
    """Independent features in random directions, each on with the same probability, uniform on [0, 1] when on.

    Raises:
        ValueError: counts below 1, a probability outside (0, 1].
        TypeError: counts that are not integers.
    """
    n_features, d = check_integer("n_features", n_features, 1), check_integer("d", d, 1)
    drawing = _drawing("directions", seed)
    directions = torch.randn(n_features, d, generator=drawing)
    return Features(
        directions / directions.norm(dim=1, keepdim=True), _often("probability", probability).expand(n_features)
    )


def hierarchy(
    n_parents: int = 4,
    n_children: int = 3,
    *,
    d: int = 24,
    probability: float = 0.1,
    child: float = 0.25,
    seed: int = 0,
) -> Features:
    """Parents in orthogonal directions, each with children that come only with it, one at a time. Values are 1.

    Features are ordered parent by parent: parent, its children, next parent, ...

    Args:
        child: how often each child is on when its parent is.

    Raises:
        ValueError: more features than dimensions, counts below 1, probabilities outside (0, 1], children that would be
            on more often than their parent.
        TypeError: counts that are not integers.
    """
    n_parents, n_children = check_integer("n_parents", n_parents, 1), check_integer("n_children", n_children, 1)
    n = n_parents * (1 + n_children)
    if check_integer("d", d, 1) < n:
        raise ValueError(f"d is {d}, expected at least {n}: orthogonal directions for all features")
    if not n_children * _often("child", child) <= 1:
        raise ValueError(
            f"child is {child}: {n_children} of them, one at a time, would be on more often than the parent"
        )
    drawing = _drawing("directions", seed)
    directions = torch.linalg.qr(torch.randn(d, d, generator=drawing)).Q[:n]
    first = [i for i in range(n) if i % (1 + n_children) == 0]
    parents = {i: i - i % (1 + n_children) for i in range(n) if i not in first}
    often = _often("child", child).repeat(n)
    often[first] = _often("probability", probability)
    return Features(directions, often, parents, constant=True)


def _drawing(purpose: str, seed: int) -> torch.Generator:
    """A stream of random numbers of its own: with ``manual_seed(seed)`` a dictionary that starts from the same seed as
    normal rows of the same width would start at the truth."""
    digest = hashlib.sha256(f"features/{purpose}/{check_integer('seed', seed, 0)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4]))


def _often(name: str, probability: float) -> Tensor:
    value = torch.tensor(check_positive(name, probability))
    if value > 1:
        raise ValueError(f"{name} is {probability!r}, expected a number above 0, at most 1")
    return value
