"""What is true of the model `world`, found by measuring it: accuracies, and how it recalls a capital.

All functions take a processed `TransformerBridge` (compatibility mode: LayerNorm folded, weights centred). The card of
the shipped model states what `measure` returned on several seeds; `tests/test_zoo.py` measures it again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.datasets import world

_ID = {word: i for i, word in enumerate(world.VOCABULARY)}
SEED = 20_000  # of the sentences measured on; corpora use other streams whatever their seed


# --- Accuracy -------------------------------------------------------------------------------------


def token_ids(batch: Sequence[world.Sentence]) -> Int[Tensor, "sentence pos"]:
    """Ids of the sentences, ``<pad>`` to the right (a causal model does not see it before the sentence ends)."""
    rows = [torch.tensor([_ID[token] for token in sentence.tokens]) for sentence in batch]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@torch.no_grad()
def _answer_logits(
    model: Callable[[Tensor], Tensor], batch: Sequence[world.Sentence]
) -> Float[Tensor, "sentence d_vocab"]:
    positions = torch.tensor([s.answer_position - 1 for s in batch])
    return model(token_ids(batch))[torch.arange(len(batch)), positions]


def _ids_of(words: Sequence[str]) -> Int[Tensor, " word"]:
    return torch.tensor([_ID[word] for word in words])


def top1(model: Callable[[Tensor], Tensor], batch: Sequence[world.Sentence]) -> float:
    """Share of the sentences whose answer has the highest logit of all words."""
    answers = _ids_of([s.answer for s in batch])
    return (_answer_logits(model, batch).argmax(-1) == answers).float().mean().item()


def beats_distractor(model: Callable[[Tensor], Tensor], batch: Sequence[world.Sentence]) -> float:
    """Share of the sentences whose answer has a higher logit than the distractor."""
    logits = _answer_logits(model, batch)
    rows = torch.arange(len(batch))
    answer, distractor = _ids_of([s.answer for s in batch]), _ids_of([s.distractor for s in batch])
    return (logits[rows, answer] > logits[rows, distractor]).float().mean().item()


@torch.no_grad()
def second_copy_nll(model: Callable[[Tensor], Tensor], batch: Sequence[world.Sentence]) -> float:
    """Mean negative log-likelihood (nats per token) of the second copy in sentences of type ``repeat``.

    Its first word is left out: nobody can know that the repetition starts there.
    """
    tokens = token_ids(batch)
    log_probs = model(tokens)[:, :-1].log_softmax(-1)
    nll = -log_probs.gather(-1, tokens[:, 1:, None])[..., 0]  # nll[:, p - 1] is that of the token at p
    losses = [nll[i, [p - 1 for p in s.roles["second_copy"][1:]]].mean() for i, s in enumerate(batch)]
    return torch.stack(losses).mean().item()


def mismatching(form: str, n: int, split: str) -> list[world.Sentence]:
    """Agreement sentences, half singular, half plural, whose attractors (if any) have the other number."""
    return [
        sentence
        for number, other in (world.NUMBERS, world.NUMBERS[::-1])
        for sentence in world.sentences(
            "agreement", n // 2, SEED, split, form=form, number=number, attractor_number=other
        )
    ]


# --- Recalling a capital --------------------------------------------------------------------------

SUBJECT, LAST = 4, 5  # positions in "<bos> The capital of France is"


@dataclass(frozen=True)
class Capitals:
    """The prompts "The capital of {country} is" for all countries, each paired with another country.

    The logit difference is that of the country's own capital and the paired country's, at the last position.
    """

    clean: Int[Tensor, "country pos"]
    corrupted: Int[Tensor, "country pos"]
    answers: Int[Tensor, " country"]
    distractors: Int[Tensor, " country"]

    @classmethod
    def all(cls) -> "Capitals":
        facts = [world.fact(country) for country in world.COUNTRIES]
        prompts = token_ids(facts)[:, : LAST + 1]
        corrupted = token_ids([f.corrupted for f in facts])[:, : LAST + 1]
        return cls(prompts, corrupted, _ids_of([f.answer for f in facts]), _ids_of([f.distractor for f in facts]))

    def logit_diff(self, logits: Float[Tensor, "country pos d_vocab"]) -> float:
        """Mean over countries, in logits."""
        last, rows = logits[:, -1], torch.arange(len(self.clean))
        return (last[rows, self.answers] - last[rows, self.distractors]).mean().item()

    def top1(self, logits: Float[Tensor, "country pos d_vocab"]) -> float:
        """Share of the countries whose capital is the most likely word."""
        return (logits[:, -1].argmax(-1) == self.answers).float().mean().item()


class CapitalTracing:
    """Interventions on one model and the prompts of `Capitals`; effects are mean over countries."""

    def __init__(self, model: TransformerBridge):
        self.model, self.prompts = model, Capitals.all()
        with torch.no_grad():
            logits, self.clean = model.run_with_cache(self.prompts.clean)
            corrupted_logits, self.corrupted = model.run_with_cache(self.prompts.corrupted)
        self.logit_diff = self.prompts.logit_diff(logits)
        self.corrupted_logit_diff = self.prompts.logit_diff(corrupted_logits)
        self.accuracy = self.prompts.top1(logits)

    def _run(self, name: str, hook: Callable) -> Tensor:
        with torch.no_grad():
            return self.model.run_with_hooks(self.prompts.clean, fwd_hooks=[(name, hook)])

    def _removed(self, logits: Tensor) -> float:
        """Share of the way from the clean to the corrupted logit difference: 0 no effect, 1 as if corrupted."""
        span = self.logit_diff - self.corrupted_logit_diff
        return (self.logit_diff - self.prompts.logit_diff(logits)) / span

    def patch(self, name: str, position: int, head: int | None = None) -> float:
        """Activation patching, corrupted into clean: share of the logit difference moved (see `_removed`)."""
        where = (slice(None), position) if head is None else (slice(None), position, head)

        def hook(value: Tensor, hook: object) -> Tensor:
            value = value.clone()
            value[where] = self.corrupted[name][where]
            return value

        return self._removed(self._run(name, hook))

    def patch_resid(self) -> Float[Tensor, "layer pos"]:
        """`patch` of the residual stream before each block, and (last row) after the last."""
        names = [f"blocks.{i}.hook_resid_pre" for i in range(self.model.cfg.n_layers)]
        names.append(f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post")
        return torch.tensor([[self.patch(name, position) for position in range(LAST + 1)] for name in names])

    def patch_heads(self, position: int = LAST) -> Float[Tensor, "layer head"]:
        """`patch` of each head's z at one position."""
        cfg = self.model.cfg
        return torch.tensor(
            [
                [self.patch(f"blocks.{layer}.attn.hook_z", position, head) for head in range(cfg.n_heads)]
                for layer in range(cfg.n_layers)
            ]
        )

    def attention_to_subject(self) -> Float[Tensor, "layer head"]:
        """Mean attention from the last position to the country."""
        layers = range(self.model.cfg.n_layers)
        return torch.stack([self.clean[f"blocks.{i}.attn.hook_pattern"][:, :, LAST, SUBJECT].mean(0) for i in layers])

    def components(self) -> dict[str, str]:
        """Name of each component -> its hook."""
        names = {"embed": "hook_embed", "pos_embed": "hook_pos_embed"}
        for i in range(self.model.cfg.n_layers):
            names |= {f"attn {i}": f"blocks.{i}.hook_attn_out", f"mlp {i}": f"blocks.{i}.hook_mlp_out"}
        return names

    def logit_diff_direction(self) -> Float[Tensor, "country d_model"]:
        """Residual direction of each country's logit difference, divided by the final LayerNorm's scale."""
        unembed = self.model.W_U.T
        scale = self.clean["ln_final.hook_scale"][:, LAST]
        return (unembed[self.prompts.answers] - unembed[self.prompts.distractors]) / scale

    @torch.no_grad()
    def direct_attribution(self) -> dict[str, float]:
        """Direct logit attribution: what each component adds to the logit difference; with "bias" they sum to it."""
        direction = self.logit_diff_direction()
        parts = {name: self.clean[hook][:, LAST] for name, hook in self.components().items()}
        effects = {name: (part * direction).sum(-1).mean().item() for name, part in parts.items()}
        bias = self.model.b_U[self.prompts.answers] - self.model.b_U[self.prompts.distractors]
        return effects | {"bias": bias.mean().item()}

    @torch.no_grad()
    def direct_attribution_of_heads(self) -> Float[Tensor, "layer head"]:
        """Direct logit attribution of each head (without the output bias, which belongs to no head)."""
        direction = self.logit_diff_direction()
        z = torch.stack(
            [self.clean[f"blocks.{i}.attn.hook_z"][:, LAST] for i in range(self.model.cfg.n_layers)]
        )  # layer country head d_head
        return torch.einsum("lchd,lhdm,cm->lh", z, self.model.W_O, direction) / len(direction)

    def ablate(self, name: str, kind: str, position: int | None = None) -> tuple[float, float]:
        """Logit difference and accuracy after ablating a hook's output at one position (None: at all).

        `kind`: "zero", or "mean" (at each position the mean over countries: what is left knows no country).
        """
        if kind not in ("zero", "mean"):
            raise ValueError(f"kind: got {kind!r}, expected 'zero' or 'mean'")
        where = slice(None) if position is None else position

        def hook(value: Tensor, hook: object) -> Tensor:
            value = value.clone()
            value[:, where] = value[:, where].mean(0) if kind == "mean" else 0.0
            return value

        logits = self._run(name, hook)
        return self.prompts.logit_diff(logits), self.prompts.top1(logits)
