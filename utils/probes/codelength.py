"""Minimum description length: how many bits do the labels cost, given the representation?

Alice knows representations and labels, Bob the representations only; how long is the shortest message that tells Bob
the labels? With the *online* (prequential) code (Voita & Titov 2020, arXiv 2003.12298, section 2) both fit the same
probe on the labels sent so far and code the next block by its probabilities. A label that is hard to find costs bits
until enough rows have been seen, so the code length measures the effort as well as the final quality: two
representations of equal accuracy can differ in it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.arguments import check_integer
from utils.probes import base

# Shares of the rows at which the blocks end (Voita & Titov 2020; the values stand in the code that they released).
DEFAULT_FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


class Probe(Protocol):
    """What a fit returns: anything with the log-probability (nats) of every class for every row."""

    def log_prob(self, x: Float[Tensor, "*site n d"]) -> Float[Tensor, "*site n class"]: ...


@dataclass(frozen=True)
class Codelength:
    """Length of the online code of `n` labels, for each site.

    Attributes:
        bits: [*site], of the whole message.
        per_block: [*site, block], summing to `bits`; the first block is sent by the uniform code.
        ends: the number of rows sent after each block.
        uniform_bits: ``n * log2(n_classes)``, the message without any representation.
    """

    bits: Float[Tensor, "*site"]
    per_block: Float[Tensor, "*site block"]
    ends: tuple[int, ...]
    uniform_bits: float

    @property
    def compression(self) -> Float[Tensor, "*site"]:
        """Uniform code length over online code length: 1 where the representation does not help, higher is better."""
        return self.uniform_bits / self.bits

    @property
    def bits_per_row(self) -> Float[Tensor, "*site block"]:
        """Mean cost of a label in each block: the learning curve of the probe."""
        sizes = [end - start for start, end in pairwise((0, *self.ends))]
        return self.per_block / torch.tensor(sizes, device=self.bits.device)


def online_codelength(
    x: Float[Tensor, "*site n d"],
    y: Int[Tensor, "n"],
    fit: Callable[[Tensor, Tensor], Probe],
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    min_block: int = 10,
    n_classes: int | None = None,
    seed: int = 0,
) -> Codelength:
    """Bits that the labels `y` cost by the online code, given `x` (Voita & Titov 2020).

    ``L = t_1 log2 K - sum_i log2 p_i(block i + 1)``, where ``p_i`` is the probe fitted on the first ``t_i`` rows. All
    sites are fitted in one call and see the rows in the same order, drawn from `seed`.

    Args:
        x: activations.
        y: classes 0, 1, ..., ``n_classes - 1``.
        fit: ``fit(x, y)`` gives the probe(s) of rows ``x`` [*site, t, d], e.g.
            ``lambda x, y: fit_multinomial(x, y, C=0.1, standardize=True)``.
        fractions: where the blocks end, as shares of the rows, rising to 1.
        min_block: fewer rows make no block: they join the next one (at the end of the data, the one before).
        n_classes: where the last classes have no row; default ``max(y) + 1``.

    The first block goes on to the first of these ends at which every class of `y` has been seen, so that any probe can
    be fitted on it. Bob can tell, so it is still a code. Rows are sent in random order: copies of a row (or the other
    half of a minimal pair) in an earlier block make later ones cheap.

    Raises:
        ValueError: for NaN, shapes that do not fit, one class only, a class that is not seen before the last block,
            and probabilities of zero or of a wrong number of classes.
    """
    base.features(x)
    y = base.class_labels(y, x)
    n_classes = int(y.max()) + 1 if n_classes is None else check_integer("n_classes", n_classes, least=2)
    if y.max() >= n_classes:
        raise ValueError(f"n_classes is {n_classes} and y goes up to {int(y.max())}")
    if (y == y[0]).all():
        raise ValueError("y has one class only: there is nothing to send")
    order = _order(len(y), seed).to(x.device)
    x, y = x.detach()[..., order, :], y[order]
    ends = _block_ends(fractions, y, check_integer("min_block", min_block, least=1))
    blocks = [torch.full(x.shape[:-2], ends[0] * math.log2(n_classes), dtype=torch.float64, device=x.device)]
    for start, end in pairwise(ends):
        log_prob = fit(x[..., :start, :], y[:start]).log_prob(x[..., start:end, :])
        blocks.append(_bits(log_prob.detach(), y[start:end], (*x.shape[:-2], end - start, n_classes)))
    per_block = torch.stack(blocks, -1)
    return Codelength(per_block.sum(-1).float(), per_block.float(), ends, len(y) * math.log2(n_classes))


def _order(n: int, seed: int) -> Int[Tensor, "n"]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(check_integer("seed", seed, least=0)))


def _block_ends(fractions: Sequence[float], y: Int[Tensor, "n"], min_block: int) -> tuple[int, ...]:
    """Rows sent after each block, the last one ``len(y)``; at least two blocks."""
    n, fractions = len(y), [float(f) for f in fractions]
    rising = all(a < b for a, b in pairwise(fractions))
    if not fractions or not rising or fractions[0] <= 0 or fractions[-1] != 1:
        raise ValueError(f"fractions is {fractions}, expected rising numbers above 0, the last one 1")
    first = max(int((y == k).nonzero()[0]) for k in y.unique()) + 1  # rows until every class has been seen
    ends: list[int] = []
    for end in (round(f * n) for f in fractions[:-1]):
        if end >= first and min_block <= end - (ends[-1] if ends else 0) and min_block <= n - end:
            ends.append(end)
    if not ends:
        raise ValueError(
            f"y: no first block of at least {min_block} (min_block) of the {n} rows holds every class and leaves as "
            f"many to send (in this order the last class first appears in row {first}): take more rows, another seed, "
            "or fractions with an end in between"
        )
    return (*ends, n)


def _bits(
    log_prob: Float[Tensor, "*site n class"], y: Int[Tensor, "n"], shape: tuple[int, ...]
) -> Float[Tensor, "*site"]:
    """What the labels cost under the given log-probabilities (nats), in bits."""
    if tuple(log_prob.shape) != shape:
        raise ValueError(
            f"fit: log_prob has shape {list(log_prob.shape)}, expected {list(shape)} ([*site, n, class]); a probe that "
            "does not know all classes needs to be told their number"
        )
    total = log_prob.double().exp().sum(-1)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-3):
        worst = (total - 1).abs().argmax()
        raise ValueError(f"fit: log_prob is no log-probability in nats, a row's sums to {total.flatten()[worst]:g}")
    own = log_prob.double().gather(-1, y.expand(shape[:-1]).unsqueeze(-1)).squeeze(-1)
    if not torch.isfinite(own).all():
        raise ValueError("fit: the probe gives a label that occurs probability 0, which no finite code can send")
    return -own.sum(-1) / math.log(2)
