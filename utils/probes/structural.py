"""The structural probe: is there a linear map under which squared distances between words are syntactic distances?

Hewitt & Manning 2019 (A Structural Probe for Finding Syntax in Word Representations, NAACL) fit B so that
``|B (h_i - h_j)|^2`` is the number of edges between words i and j of the dependency tree, then read a tree off as the
minimum spanning tree. Two controls belong to it: the same probe on an untrained model, and the chain that links every
word to the next one (`chain`), because neighbours are often head and dependent.

    trees = Trees.of([s.heads for s in sentences], [punctuation(s.tokens) for s in sentences])
    probe = fit_distance_probe(h, trees.distances, trees.mask, rank=32)  # h [layer, sentence, pos, d_model]
    tree_scores(probe.distances(h_test), test_trees).uuas  # [layer]

`<bos>` and punctuation are left out everywhere: in the fit, in the trees and in both scores. (The code released with
the paper leaves punctuation out of the trees only.)
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import minimum_spanning_tree, shortest_path
from torch import Tensor
from torch.nn import functional as F

from utils.arguments import check_finite, check_integer, check_mask, check_positive
from utils.probes._adam import minimise

Edges = frozenset[tuple[int, int]]  # pairs of positions, the smaller one first
LENGTHS = (5, 50)  # of the sentences whose rank correlations count in the paper


# --- Trees ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trees:
    """The dependency trees of some sentences, padded to the longest.

    Attributes:
        distances: edges on the path between two tokens; 0 where one of them does not count.
        mask: the tokens that count: no ``<bos>``, nothing ignored, no padding.
        edges: those between tokens that count, for each sentence.
    """

    distances: Int[Tensor, "sentence pos pos"]
    mask: Bool[Tensor, "sentence pos"]
    edges: tuple[Edges, ...]

    @classmethod
    def of(
        cls,
        heads: Sequence[Sequence[int]],
        ignore: Sequence[Collection[int]] | None = None,
        length: int | None = None,
    ) -> "Trees":
        """The trees of sentences given by their heads (as `Sentence.heads`).

        Args:
            heads: of each sentence, for each token the position of its head, 0 for the root and for ``<bos>``.
            ignore: of each sentence, the positions that do not count (see `punctuation`).
            length: positions to pad to, where the activations have more than the longest sentence.

        Raises:
            ValueError: for heads that make no tree (naming the sentence) and for sentences with fewer than two tokens
                that count.
        """
        if not len(heads):
            raise ValueError("heads is empty, expected at least one sentence")
        longest = max(map(len, heads))
        length = longest if length is None else check_integer("length", length, least=longest)
        distances = torch.zeros(len(heads), length, length, dtype=torch.long)
        mask = torch.zeros(len(heads), length, dtype=torch.bool)
        for i, (sentence, left_out) in enumerate(zip(heads, _ignored(ignore, heads), strict=True)):
            n = len(sentence)
            distances[i, :n, :n] = tree_distances(sentence, f"heads of sentence {i}")
            mask[i, 1:n] = True
            mask[i, list(left_out)] = False
        _check_two_count(mask)
        distances *= mask[:, :, None] & mask[:, None, :]
        return cls(distances, mask, tuple(map(_edges_of, heads, mask)))


def punctuation(tokens: Sequence[str]) -> tuple[int, ...]:
    """The positions of tokens without any letter or digit."""
    return tuple(i for i, token in enumerate(tokens) if not any(character.isalnum() for character in token))


def tree_distances(heads: Sequence[int], name: str = "heads") -> Int[Tensor, "pos pos"]:
    """Edges on the path between any two tokens of a dependency tree; 0 in the row and column of ``<bos>``.

    Args:
        heads: for each token the position of its head, 0 for the root and for ``<bos>`` at position 0.
        name: what errors call it.

    Raises:
        ValueError: unless there is one root and every other token leads to it.
    """
    heads = [int(head) for head in heads]
    roots = [i for i, head in enumerate(heads) if head == 0]
    if len(heads) < 2 or len(roots) != 2 or roots[0] != 0:
        raise ValueError(f"{name}: positions {roots} have head 0, expected <bos> at position 0 and one root")
    outside = [i for i, head in enumerate(heads) if not 0 <= head < len(heads) or head == i > 0]
    if outside:
        raise ValueError(f"{name}: position {outside[0]} has head {heads[outside[0]]}, expected another position")
    adjacency = np.zeros((len(heads), len(heads)))
    for token, head in enumerate(heads):
        adjacency[token, head] = head > 0
    distances = shortest_path(adjacency[1:, 1:], directed=False, unweighted=True)
    if not np.isfinite(distances).all():
        lost = int(np.argmax(np.isinf(distances[roots[1] - 1]))) + 1
        raise ValueError(f"{name}: position {lost} does not lead to the root at {roots[1]} (a cycle)")
    return torch.from_numpy(np.pad(distances, ((1, 0), (1, 0))).astype(np.int64))


def spanning_tree(
    distance: Float[Tensor, "pos pos"], mask: Bool[Tensor, "pos"] | None = None
) -> frozenset[tuple[int, int]]:
    """Edges (i, j), i < j, of the minimum spanning tree over the tokens that count (default: all).

    Raises ValueError for distances that are not square, finite and symmetric.
    """
    distance = torch.as_tensor(distance).detach().cpu().double()
    if distance.dim() != 2 or distance.shape[0] != distance.shape[1]:
        raise ValueError(f"distance has shape {list(distance.shape)}, expected [pos, pos]")
    check_finite("distance", distance)
    if not torch.allclose(distance, distance.mT, rtol=1e-3, atol=1e-6 * float(distance.abs().max())):
        raise ValueError("distance is not symmetric, expected that from i to j to be that from j to i")
    n = len(distance)
    counted = torch.arange(n) if mask is None else check_mask("mask", mask, (n,)).cpu().nonzero()[:, 0]
    among = distance[counted][:, counted]
    # scipy reads 0 as "no edge", but equal words have distance 0: a shift of all distances leaves the tree as it is.
    tree = minimum_spanning_tree((among - among.min() + 1).numpy()).tocoo()
    pairs = zip(counted[tree.row].tolist(), counted[tree.col].tolist(), strict=True)
    return frozenset((min(pair), max(pair)) for pair in pairs)


def chain(mask: Bool[Tensor, "pos"]) -> frozenset[tuple[int, int]]:
    """The baseline that links every token that counts to the next one that counts."""
    counted = torch.as_tensor(mask).nonzero()[:, 0].tolist()
    return frozenset(pairwise(counted))


# --- Scores ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TreeScores:
    """How well predicted distances show the trees, [*site] each; see `uuas` and `spearman`."""

    uuas: Float[Tensor, "*site"]
    spearman: Float[Tensor, "*site"]


def tree_scores(
    predicted: Float[Tensor, "*site sentence pos pos"], trees: Trees, lengths: tuple[int, int] = LENGTHS
) -> TreeScores:
    """Both scores of predicted distances, at every site."""
    rank_correlation = spearman(predicted, trees.distances, trees.mask, lengths=lengths)
    shares = [
        _share_found([spanning_tree(d, m) for d, m in zip(site, trees.mask, strict=True)], trees.edges)
        for site in predicted.detach().cpu().reshape(-1, *predicted.shape[-3:])
    ]
    return TreeScores(rank_correlation.new_tensor(shares).reshape(rank_correlation.shape), rank_correlation)


def uuas(
    predicted_edges: Sequence[Collection[tuple[int, int]]],
    heads: Sequence[Sequence[int]],
    ignore: Sequence[Collection[int]] | None = None,
) -> float:
    """Undirected unlabelled attachment score: the share of all sentences' edges that were predicted (0 to 1).

    Args:
        predicted_edges: of each sentence, pairs of positions in either order (as from `spanning_tree`).
        heads: of each sentence, as for `tree_distances`. The edge from the root to nowhere does not count.
        ignore: of each sentence, positions whose edges do not count (`punctuation`).

    Raises:
        ValueError: for heads that make no tree, and for more edges than a tree over the words has.
    """
    if len(predicted_edges) != len(heads):
        raise ValueError(f"predicted_edges is of {len(predicted_edges)} sentences and heads of {len(heads)}")
    return _share_found(predicted_edges, Trees.of(heads, ignore).edges)


def spearman(
    predicted: Float[Tensor, "*site sentence pos pos"],
    distances: Int[Tensor, "sentence pos pos"],
    mask: Bool[Tensor, "sentence pos"],
    *,
    lengths: tuple[int, int] = LENGTHS,
    with_self: bool = True,
) -> Float[Tensor, "*site"]:
    """Rank correlation of predicted and true distances ("DSpr."), -1 to 1.

    For every word, over the words of its sentence; averaged over all words of the sentences of one length, then over
    the lengths from ``lengths[0]`` to ``lengths[1]`` that occur. Length is the number of tokens that count.

    Args:
        with_self: the word's distance 0 to itself takes part, as in the code released with the paper. In short
            sentences that alone lifts the correlation; False leaves it out.

    A word that is as far from all others (a star's centre, without itself) has no rank correlation and is left out; a
    word whose predicted distances are all equal counts 0.

    Raises:
        ValueError: for NaN, shapes that do not fit, no sentence of these lengths.
    """
    predicted, distances, mask = _checked_distances("predicted", predicted, distances, mask)
    counts = mask.sum(-1)
    chosen = (counts >= lengths[0]) & (counts <= lengths[1])
    if not chosen.any():
        raise ValueError(f"lengths is {lengths}, but the sentences have {counts.unique().tolist()} tokens that count")
    pairs = mask[:, :, None] & mask[:, None, :]
    if not with_self:
        pairs = pairs & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    true = _centred_ranks(distances.double(), pairs)
    defined = (true.abs().sum(-1) > 0) & chosen[:, None]
    per_length = F.one_hot(counts).double()
    words = defined.sum(-1).double() @ per_length
    means = []
    for site in predicted.reshape(-1, *predicted.shape[-3:]):
        ranks = _centred_ranks(site.double(), pairs)
        lengths_product = (ranks.pow(2).sum(-1) * true.pow(2).sum(-1)).sqrt()
        correlation = (ranks * true).sum(-1) / lengths_product.where(lengths_product > 0, 1.0)
        totals = (correlation * defined).sum(-1) @ per_length
        means.append((totals / words)[words > 0].mean())
    return torch.stack(means).float().reshape(predicted.shape[:-3])


def _centred_ranks(
    values: Float[Tensor, "*rows pos"], counted: Bool[Tensor, "*rows pos"]
) -> Float[Tensor, "*rows pos"]:
    """Ranks along the last axis among the entries that count, ties at their mean, minus the mean rank; elsewhere 0."""
    others, own = values.unsqueeze(-2), values.unsqueeze(-1)
    below = ((others < own).double() + 0.5 * (others == own)) * counted.unsqueeze(-2)
    return (below.sum(-1) - counted.sum(-1, keepdim=True) / 2) * counted


def _share_found(predicted: Sequence[Collection[tuple[int, int]]], gold: Sequence[Edges]) -> float:
    found = 0
    for i, (edges, true) in enumerate(zip(predicted, gold, strict=True)):
        undirected = {(min(edge), max(edge)) for edge in edges}
        words = {position for edge in true for position in edge}
        within = {edge for edge in undirected if words.issuperset(edge)}
        if len(within) > len(words) - 1:
            raise ValueError(f"predicted_edges: sentence {i} has {len(within)} edges over {len(words)} words: no tree")
        found += len(within & true)
    return found / sum(map(len, gold))


# --- Probe ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DistanceProbe:
    """``|B (h_i - h_j)|^2`` as syntactic distance; B is determined up to a rotation of its rows.

    Attributes:
        projection: B [*site, rank, d].
        loss: [*site], mean over the fitted sentences of the absolute error of distances, after the last step.
    """

    projection: Float[Tensor, "*site rank d"]
    loss: Float[Tensor, "*site"]

    def distances(self, h: Float[Tensor, "*site sentence pos d"]) -> Float[Tensor, "*site sentence pos pos"]:
        """Squared distances between all positions of a sentence, under B."""
        site, d = tuple(self.projection.shape[:-2]), self.projection.shape[-1]
        if h.dim() < 3 or h.shape[-1] != d or (site and tuple(h.shape[:-3]) != site):
            expected = ", ".join(map(str, (*(site or ["*site"]), "sentence", "pos", d)))
            raise ValueError(f"h has shape {list(h.shape)}, expected [{expected}] as in the fit")
        check_finite("h", h)
        h = h.detach().float()
        centred = h - h.mean(-2, keepdim=True)  # differences stay as they are, their rounding shrinks
        return _squared_distances(centred @ self.projection.to(h.device).unsqueeze(-3).mT)


def unprojected(d: int) -> DistanceProbe:
    """The baseline without a probe, B = identity: plain squared distances, at any sites.

    Not the paper's Proj0, which is a fitted probe on an untrained network.
    """
    return DistanceProbe(torch.eye(check_integer("d", d, least=1)), torch.tensor(torch.nan))


def fit_distance_probe(
    h: Float[Tensor, "*site sentence pos d"],
    distances: Int[Tensor, "sentence pos pos"],
    mask: Bool[Tensor, "sentence pos"],
    rank: int | None = None,
    *,
    steps: int = 300,
    lr: float = 0.03,
    batch_size: int | None = 100,
    seed: int = 0,
) -> DistanceProbe:
    """Fit B at every site at once, by Adam on the paper's loss.

    The loss is the mean over sentences of ``sum_ij | d_tree(i, j) - |B (h_i - h_j)|^2 | / n^2`` over the n tokens that
    count. `h` is divided by its root mean square deviation at each site beforehand (and B multiplied back), so that
    settings mean the same at every site. The learning rate falls linearly to zero.

    Args:
        h: activations of padded sentences; axes before the sentences are sites. Values at positions that do not count
            must be finite but have no effect.
        distances, mask: as in `Trees`.
        rank: rows of B; default d.
        batch_size: sentences for each step; None for all.
        seed: of B's start, the same at every site, and of the batches. The global random state is not used.

    With more columns than tokens B can fit the training trees whatever h means: score on other sentences.

    Raises:
        ValueError: for NaN, shapes that do not fit, sentences with fewer than two tokens that count, and sites whose
            tokens that count are all equal within every sentence.
    """
    h, distances, mask = _checked_distances("h", h, distances, mask)
    site, (n, length, d) = h.shape[:-3], h.shape[-3:]
    rank = d if rank is None else check_integer("rank", rank, least=1)
    steps, lr = check_integer("steps", steps, least=1), check_positive("lr", lr)
    batch_size = n if batch_size is None else min(n, check_integer("batch_size", batch_size, least=1))
    generator = torch.Generator().manual_seed(check_integer("seed", seed, least=0))

    h, scale = _normalized(h.detach().float().reshape(-1, n, length, d), mask)
    pair_weight = mask[:, :, None] & mask[:, None, :]
    pair_weight = pair_weight / mask.sum(-1)[:, None, None] ** 2
    start = torch.randn(rank, d, generator=generator) / (rank * d) ** 0.5  # |B(h_i - h_j)|^2 near 2, as for neighbours
    projection = start.expand(len(h), rank, d).to(h.device, copy=True)

    def losses(batch: Tensor | slice) -> Float[Tensor, "site"]:
        counted = mask[batch]
        z = projection.new_zeros(len(h), *counted.shape, rank)
        z[:, counted] = h[:, batch][:, counted] @ projection.mT  # padding costs no product
        error = (_squared_distances(z) - distances[batch]).abs() * pair_weight[batch]
        return error.sum((-1, -2)).mean(-1)

    batches = _batches(n, batch_size, steps, generator, h.device)
    minimise(lambda step: losses(batches[step]).sum(), [projection], steps=steps, lr=lr)
    return DistanceProbe((projection / scale).reshape(*site, rank, d), losses(slice(None)).reshape(site))


def _normalized(
    h: Float[Tensor, "site sentence pos d"], mask: Bool[Tensor, "sentence pos"]
) -> tuple[Float[Tensor, "site sentence pos d"], Float[Tensor, "site 1 1"]]:
    """Deviations from each sentence's mean in units of their root mean square, and that unit; 0 where masked."""
    counted = mask[:, :, None].float()
    mean = (h * counted).sum(2, keepdim=True) / counted.sum(1, keepdim=True)
    centred = (h - mean) * counted
    scale = (centred.pow(2).sum((1, 2, 3)) / (counted.sum() * h.shape[-1])).sqrt()[:, None, None]
    equal = (scale.flatten() <= torch.finfo(torch.float32).eps * h.abs().amax((1, 2, 3))).nonzero().flatten().tolist()
    if equal:
        raise ValueError(f"h: at site {equal[0]} the tokens that count are all equal within each sentence")
    return centred / scale.unsqueeze(-1), scale


def _squared_distances(z: Float[Tensor, "*batch pos rank"]) -> Float[Tensor, "*batch pos pos"]:
    """|z_i - z_j|^2 by way of the inner products, exactly 0 on the diagonal."""
    inner = z @ z.mT
    square = inner.diagonal(dim1=-2, dim2=-1)
    off_diagonal = 1 - torch.eye(z.shape[-2], device=z.device)
    return (square.unsqueeze(-1) + square.unsqueeze(-2) - 2 * inner).clamp(min=0) * off_diagonal


def _batches(n: int, size: int, steps: int, generator: torch.Generator, device: torch.device) -> list[Tensor | slice]:
    """The sentences of each step: all, or runs through one permutation after the other (drawn on the CPU)."""
    if size == n:
        return [slice(None)] * steps
    rounds = -(-steps * size // n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(rounds)])
    return list(order[: steps * size].to(device).split(size))


# --- Inputs ---------------------------------------------------------------------------------------


def _checked_distances(
    name: str, values: Tensor, distances: Tensor, mask: Tensor
) -> tuple[Tensor, Int[Tensor, "sentence pos pos"], Bool[Tensor, "sentence pos"]]:
    """`values` [*site, sentence, pos, d or pos], distances and mask on its device, all of the same sentences."""
    if not isinstance(values, Tensor) or values.dim() < 3 or not values.is_floating_point():
        shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{name} is {shape}, expected a floating-point tensor [*site, sentence, pos, ...]")
    check_finite(name, values)
    sentences, length = values.shape[-3:-1]
    if name == "predicted" and values.shape[-1] != length:
        raise ValueError(f"{name} has shape {list(values.shape)}, expected [*site, sentence, pos, pos]")
    distances = torch.as_tensor(distances).to(values.device)
    if tuple(distances.shape) != (sentences, length, length):
        raise ValueError(f"distances has shape {list(distances.shape)}, expected {[sentences, length, length]}")
    check_finite("distances", distances)
    mask = check_mask("mask", mask, (sentences, length)).to(values.device)
    _check_two_count(mask)
    return values.detach(), distances, mask


def _check_two_count(mask: Bool[Tensor, "sentence pos"]) -> None:
    few = (mask.sum(-1) < 2).nonzero().flatten().tolist()
    if few:
        raise ValueError(f"mask: sentence {few[0]} has {int(mask[few[0]].sum())} tokens that count, expected two")


def _ignored(ignore: Sequence[Collection[int]] | None, heads: Sequence) -> Sequence[Collection[int]]:
    if ignore is None:
        return [()] * len(heads)
    if len(ignore) != len(heads):
        raise ValueError(f"ignore is of {len(ignore)} sentences and heads of {len(heads)}, expected as many")
    for i, (positions, sentence) in enumerate(zip(ignore, heads, strict=True)):
        if any(not 0 <= position < len(sentence) for position in positions):
            raise ValueError(f"ignore: sentence {i} has {len(sentence)} positions, got {sorted(positions)}")
    return ignore


def _edges_of(heads: Sequence[int], mask: Bool[Tensor, "pos"]) -> Edges:
    """The edges between a token and its head where both count."""
    counted = mask.tolist()
    pairs = ((token, int(head)) for token, head in enumerate(heads) if counted[token] and counted[int(head)])
    return frozenset((min(pair), max(pair)) for pair in pairs)
