"""Steering: directions that are added to the residual stream while a model runs, or taken out of it.

Every function returns hooks for ``model.run_with_hooks(tokens, fwd_hooks=...)``. What a direction does means little
beside what a random direction of the same norm does (`random_like`), and a subspace beside a random one
(`utils.probes.random_subspace`).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.probes import Subspace

Direction = Float[Tensor, " d_model"]
Hooks = list[tuple[str, Callable]]  # (name, function) pairs, for run_with_hooks


def random_like(direction: Float[Tensor, "*site d_model"], seed: int) -> Float[Tensor, "*site d_model"]:
    """A random direction of the same norm, for each that is given."""
    drawn = torch.randn(direction.shape, generator=torch.Generator().manual_seed(seed)).to(direction)
    return drawn * direction.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True)


def without(resid: Float[Tensor, "... d_model"], direction: Direction) -> Float[Tensor, "... d_model"]:
    """The vectors without their component along the direction."""
    unit = direction / direction.norm()
    return resid - (resid @ unit)[..., None] * unit


def add_after(block: int, vector: Direction | Float[Tensor, "sentence d_model"], positions: Sequence[int]) -> Hooks:
    """Adds the vector (or each sentence's own) to the stream after a block, at one position of each sentence."""

    def hook(resid: Tensor, hook: object) -> Tensor:
        resid = resid.clone()
        resid[torch.arange(len(resid)), positions] += vector
        return resid

    return [(f"blocks.{block}.hook_resid_post", hook)]


def ablate_after(block: int, direction: Direction, positions: Sequence[int], component: float = 0.0) -> Hooks:
    """Sets the component along the direction after a block, at one position of each sentence.

    0 is directional ablation. It is neutral only where the other class has no component either; else its mean is what
    to set (Marshall et al. 2024, arXiv 2411.09003).
    """

    def hook(resid: Tensor, hook: object) -> Tensor:
        resid, rows = resid.clone(), torch.arange(len(resid))
        resid[rows, positions] = without(resid[rows, positions], direction) + component * direction / direction.norm()
        return resid

    return [(f"blocks.{block}.hook_resid_post", hook)]


def remove_after(block: int, space: Subspace, mean: Direction, positions: Sequence[int]) -> Hooks:
    """Replaces the component in a subspace by that of the mean after a block, at one position of each sentence."""

    def hook(resid: Tensor, hook: object) -> Tensor:
        resid, rows = resid.clone(), torch.arange(len(resid))
        resid[rows, positions] = space.remove(resid[rows, positions], center=mean)
        return resid

    return [(f"blocks.{block}.hook_resid_post", hook)]


def ablate_everywhere(model: TransformerBridge, direction: Direction) -> Hooks:
    """Directional ablation at all positions and layers (Arditi et al. 2024, arXiv 2406.11717).

    Every vector that is written to the residual stream is freed of the direction, hence every sum of them. (A hook at
    ``hook_resid_mid`` would change what the MLP reads but not the stream itself: a bridge adds the MLP's output to the
    value before the hook.)
    """

    def hook(written: Tensor, hook: object) -> Tensor:
        return without(written, direction)

    writers = [f"blocks.{i}.{name}" for i in range(model.cfg.n_layers) for name in ("hook_attn_out", "hook_mlp_out")]
    return [(name, hook) for name in ("blocks.0.hook_resid_pre", *writers)]
