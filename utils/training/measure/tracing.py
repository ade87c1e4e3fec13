"""Tracing by interventions: prompts in pairs, activation patching, ablation, attention and direct attribution.

In a pair, the corrupted run is the clean one with another subject; patching its activations into the clean run shows
where the subject still matters (Meng et al. 2022, arXiv 2202.05262, with another subject in place of noise).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.datasets import world
from utils.training.measure.accuracy import ids_of, token_ids

Position = int | Sequence[int] | slice
Head = tuple[int, int]  # layer, head
Hook = tuple[str, Callable]  # as `run_with_hooks` takes them
EVERYWHERE = slice(None)
KINDS = ("zero", "mean")

# --- Prompts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompts:
    """Prompts of one template, up to the answer, each paired with a prompt that has another answer.

    `positions` names the positions worth patching. The logit difference is that of the answer and the distractor (the
    answer of the paired prompt), at the last position.
    """

    clean: Int[Tensor, "prompt pos"]
    corrupted: Int[Tensor, "prompt pos"]
    answers: Int[Tensor, " prompt"]
    distractors: Int[Tensor, " prompt"]
    positions: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Sequence[world.Sentence], positions: Mapping[str, Sequence[int]] | None = None) -> "Prompts":
        """Raises ValueError where the sentences are not all of one template."""
        if len(templates := {sentence.template for sentence in batch}) != 1:
            raise ValueError(f"batch: got sentences of templates {sorted(templates)}, expected one template")
        end = batch[0].answer_position
        return cls(
            token_ids(batch)[:, :end],
            token_ids([sentence.corrupted for sentence in batch])[:, :end],
            ids_of([sentence.answer for sentence in batch]),
            ids_of([sentence.distractor for sentence in batch]),
            positions or {},
        )

    def logit_diff(self, logits: Float[Tensor, "prompt pos d_vocab"]) -> float:
        """Mean over prompts, in logits."""
        last, rows = logits[:, -1], torch.arange(len(self.clean))
        return (last[rows, self.answers] - last[rows, self.distractors]).mean().item()

    def top1(self, logits: Float[Tensor, "prompt pos d_vocab"]) -> float:
        """Share of the prompts whose answer is the most likely word."""
        return (logits[:, -1].argmax(-1) == self.answers).float().mean().item()


def best(values: Float[Tensor, "layer head"], k: int = 1) -> list[Head]:
    """The `k` heads with the highest values, the highest first."""
    return [divmod(i, values.shape[1]) for i in values.flatten().topk(k).indices.tolist()]


# --- Interventions --------------------------------------------------------------------------------


def _replaced(where: tuple, source: Callable[[Tensor], Tensor | float]) -> Callable:
    """A hook that puts ``source(value)`` in place of ``value[where]``."""

    def hook(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        value[where] = source(value)
        return value

    return hook


def _where(position: Position, head: int | None = None) -> tuple:
    return (EVERYWHERE, position) if head is None else (EVERYWHERE, position, head)


def ablation(name: str, kind: str = "mean", position: Position = EVERYWHERE, head: int | None = None) -> Hook:
    """A forward hook that ablates an activation.

    `kind`: "zero", or "mean" (at each position the mean over the batch: what is left knows no single prompt).
    With `head`, the activation must be one with heads (``hook_z``). Raises ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected 'zero' or 'mean'")
    where = _where(position, head)
    return name, _replaced(where, lambda value: value[where].mean(0) if kind == "mean" else 0.0)


def head_ablations(heads: Iterable[Head], position: Position = EVERYWHERE) -> list[Hook]:
    """Forward hooks that mean-ablate the z of each head."""
    return [ablation(f"blocks.{layer}.attn.hook_z", "mean", position, head) for layer, head in heads]


class Tracing:
    """Interventions on one model and its prompts; effects are means over prompts."""

    def __init__(self, model: TransformerBridge, prompts: Prompts):
        self.model, self.prompts = model, prompts
        with torch.no_grad():
            logits, self.clean = model.run_with_cache(prompts.clean)
            corrupted_logits, self.corrupted = model.run_with_cache(prompts.corrupted)
        self.logit_diff = prompts.logit_diff(logits)
        self.corrupted_logit_diff = prompts.logit_diff(corrupted_logits)
        self.accuracy = prompts.top1(logits)

    @torch.no_grad()
    def run(self, hooks: list[Hook]) -> Float[Tensor, "prompt pos d_vocab"]:
        """The logits of the clean prompts under forward hooks."""
        return self.model.run_with_hooks(self.prompts.clean, fwd_hooks=hooks)

    def _removed(self, logits: Tensor) -> float:
        """Share of the way from the clean to the corrupted logit difference: 0 no effect, 1 as if corrupted."""
        span = self.logit_diff - self.corrupted_logit_diff
        return (self.logit_diff - self.prompts.logit_diff(logits)) / span

    def _each_head(self, effect: Callable[[str, int], float]) -> Float[Tensor, "layer head"]:
        """``effect(name of the layer's z, head)`` of every head."""
        layers, heads = range(self.model.cfg.n_layers), range(self.model.cfg.n_heads)
        return torch.tensor([[effect(f"blocks.{layer}.attn.hook_z", head) for head in heads] for layer in layers])

    def patch(self, name: str, position: Position, head: int | None = None) -> float:
        """Activation patching, corrupted into clean: share of the logit difference moved (see `_removed`)."""
        where = _where(position, head)
        return self._removed(self.run([(name, _replaced(where, lambda _: self.corrupted[name][where]))]))

    def patch_resid(self, positions: Iterable[Position] | None = None) -> Float[Tensor, "layer pos"]:
        """`patch` of the residual stream before each block, and (last row) after the last.

        One column for each of `positions`; without them, for each position of the prompts.
        """
        columns = range(self.prompts.clean.shape[1]) if positions is None else list(positions)
        names = [f"blocks.{i}.hook_resid_pre" for i in range(self.model.cfg.n_layers)]
        names.append(f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post")
        return torch.tensor([[self.patch(name, position) for position in columns] for name in names])

    def patch_heads(self, position: Position = -1) -> Float[Tensor, "layer head"]:
        """`patch` of each head's z, at the last position unless said otherwise."""
        return self._each_head(lambda name, head: self.patch(name, position, head))

    def ablate(self, name: str | Sequence[str], kind: str, position: Position | None = None) -> tuple[float, float]:
        """Logit difference and accuracy after `ablation` of one activation or several (`position` None: everywhere)."""
        names = [name] if isinstance(name, str) else name
        where = EVERYWHERE if position is None else position
        return self._scores([ablation(each, kind, where) for each in names])

    def ablate_heads(self, heads: Iterable[Head], position: Position = EVERYWHERE) -> tuple[float, float]:
        """Logit difference and accuracy after mean ablation of the z of some heads, all at once."""
        return self._scores(head_ablations(heads, position))

    def _scores(self, hooks: list[Hook]) -> tuple[float, float]:
        logits = self.run(hooks)
        return self.prompts.logit_diff(logits), self.prompts.top1(logits)

    def attention(self, query: int | Tensor, key: int | Tensor) -> Float[Tensor, "layer head"]:
        """Mean attention from one position to another; a tensor holds one position for each prompt."""
        rows = torch.arange(len(self.prompts.clean))
        patterns = [self.clean[f"blocks.{i}.attn.hook_pattern"] for i in range(self.model.cfg.n_layers)]
        return torch.stack([pattern[rows, :, query, key].mean(0) for pattern in patterns])

    def components(self) -> dict[str, str]:
        """Name of each component -> its hook."""
        names = {"embed": "hook_embed", "pos_embed": "hook_pos_embed"}
        for i in range(self.model.cfg.n_layers):
            names |= {f"attn {i}": f"blocks.{i}.hook_attn_out", f"mlp {i}": f"blocks.{i}.hook_mlp_out"}
        return names

    def direction(self, unembedded: Float[Tensor, "prompt d_model"]) -> Float[Tensor, "prompt d_model"]:
        """`unembedded` over the final LayerNorm's scale: what is written along it at the last position is in logits."""
        return unembedded / self.clean["ln_final.hook_scale"][:, -1]

    def logit_diff_direction(self) -> Float[Tensor, "prompt d_model"]:
        """Residual direction of each prompt's logit difference."""
        unembed = self.model.W_U.T
        return self.direction(unembed[self.prompts.answers] - unembed[self.prompts.distractors])

    @torch.no_grad()
    def attribute_components(self, direction: Float[Tensor, "prompt d_model"]) -> dict[str, float]:
        """What each component writes along a direction at the last position."""
        parts = {name: self.clean[hook][:, -1] for name, hook in self.components().items()}
        return {name: (part * direction).sum(-1).mean().item() for name, part in parts.items()}

    @torch.no_grad()
    def attribute_heads(self, direction: Float[Tensor, "prompt d_model"]) -> Float[Tensor, "layer head"]:
        """What each head writes along a direction at the last position (the output bias is no head's)."""
        z = torch.stack(
            [self.clean[f"blocks.{i}.attn.hook_z"][:, -1] for i in range(self.model.cfg.n_layers)]
        )  # layer prompt head d_head
        return torch.einsum("lphd,lhdm,pm->lh", z, self.model.W_O, direction) / len(direction)

    def direct_attribution(self) -> dict[str, float]:
        """Direct logit attribution: what each component adds to the logit difference; with "bias" they sum to it."""
        bias = self.model.b_U[self.prompts.answers] - self.model.b_U[self.prompts.distractors]
        return self.attribute_components(self.logit_diff_direction()) | {"bias": bias.mean().item()}

    def direct_attribution_of_heads(self) -> Float[Tensor, "layer head"]:
        """Direct logit attribution of each head, to the logit difference."""
        return self.attribute_heads(self.logit_diff_direction())

    def by_heads_and_mlps(self, direction: Float[Tensor, "prompt d_model"]) -> tuple[float, float]:
        """What all heads and what all MLPs together write along a direction at the last position."""
        mlps = sum(effect for name, effect in self.attribute_components(direction).items() if name.startswith("mlp"))
        return self.attribute_heads(direction).sum().item(), mlps
