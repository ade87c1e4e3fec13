"""How a world model continues repeated random words: previous-token, induction and duplicate-token heads.

Olsson et al. (2022), arXiv 2209.11895: an induction head attends from a token of the second copy to the token after
its first occurrence, which a previous-token head has told what stood before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.datasets import world
from utils.training.measure.accuracy import SEED, second_copy_nll, token_ids
from utils.training.measure.tracing import Head, best, head_ablations

PERIOD = 20
N = 64  # sentences


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of each head along three stripes of its pattern, 0 to 1."""

    previous_token: Float[Tensor, "layer head"]  # from every token to the one before
    induction: Float[Tensor, "layer head"]  # from a token of the second copy to the one after its first occurrence
    duplicate_token: Float[Tensor, "layer head"]  # from a token of the second copy to its first occurrence


def repeats(n: int = N, period: int = PERIOD) -> list[world.Sentence]:
    """Two copies of `period` random words, nothing after them."""
    return world.sentences("repeat", n, SEED, period=period, length=2 * period)


def stripe(pattern: Float[Tensor, "batch head query key"], distance: int, start: int) -> Float[Tensor, " head"]:
    """Mean attention from each query, the one at `start` and all later ones, to the key `distance` before it."""
    queries = torch.arange(start, pattern.shape[-1])
    return pattern[:, :, queries, queries - distance].mean((0, 2))


@torch.no_grad()
def head_scores(model: TransformerBridge, batch: Sequence[world.Sentence]) -> HeadScores:
    """The scores of all heads on sentences of `repeats`."""
    period = batch[0].labels["period"]
    _, cache = model.run_with_cache(token_ids(batch))
    patterns = [cache[f"blocks.{i}.attn.hook_pattern"] for i in range(model.cfg.n_layers)]

    def scores(distance: int, start: int) -> Float[Tensor, "layer head"]:
        return torch.stack([stripe(pattern, distance, start) for pattern in patterns])

    second_copy = period + 1  # <bos> stands before the first
    return HeadScores(scores(1, 1), scores(period - 1, second_copy), scores(period, second_copy))


def nll_without(model: TransformerBridge, batch: Sequence[world.Sentence], heads: Sequence[Head]) -> float:
    """`second_copy_nll` with the z of some heads mean-ablated (at each position the mean over the batch)."""
    hooks = head_ablations(heads)
    return second_copy_nll(lambda tokens: model.run_with_hooks(tokens, fwd_hooks=hooks), batch)


def measure(model: TransformerBridge) -> dict[str, float]:
    """Scores of the best head of each kind, and what the second copy costs without some heads."""
    batch = repeats()
    scores = head_scores(model, batch)
    kinds = {
        "previous-token": scores.previous_token,
        "induction": scores.induction,
        "duplicate-token": scores.duplicate_token,
    }
    values: dict[str, float] = {}
    for kind, of_heads in kinds.items():
        values[f"best {kind} score (share of attention)"] = of_heads.max().item()
        values[f"block of the best {kind} head"] = float(best(of_heads)[0][0])
    nll = "loss on the second copy (nats per token)"
    values[f"{nll}, intact"] = second_copy_nll(model, batch)
    for k in (1, 2, 4):
        heads = best(scores.induction, k)
        values[f"{nll}, best {k} induction head{'s' if k > 1 else ''} mean-ablated"] = nll_without(model, batch, heads)
    values[f"{nll}, best previous-token head mean-ablated"] = nll_without(model, batch, best(scores.previous_token))
    return values
