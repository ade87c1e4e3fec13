"""How a world model finds the indirect object: who copies the recipient's name, and who tells them which.

The names are those of Wang et al. (2023), arXiv 2211.00593: in "When Mary and John went to the shop, John gave a book
to", IO is the recipient (Mary), S1 and S2 are the two mentions of the giver. The corrupted run has the other name at
S2, and so the other answer; everything else stays.

There is more than one way to do it. Heads may copy the one right name, or both names while something else (heads or
MLPs) takes the giver's away again; so what is written to each name is told apart here.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.datasets import world
from utils.training.measure.accuracy import SEED, ids_of
from utils.training.measure.tracing import EVERYWHERE, Prompts, Tracing, best

FORMS = ("one_pair", "bystander", "two_pairs")
N = 128  # sentences of each form, half of them with the recipient named first


@dataclass(frozen=True)
class HeadRoles:
    """What each head does, all tensors [layer, head], means over sentences.

    "Last" is the position that predicts the recipient.
    """

    attention_to_io: Float[Tensor, "layer head"]  # from the last position, as the next three
    attention_to_s1: Float[Tensor, "layer head"]
    attention_to_s2: Float[Tensor, "layer head"]
    attention_to_others: Float[Tensor, "layer head"]  # all other names together; 0 where there are none
    attention_s2_to_s1: Float[Tensor, "layer head"]
    attribution: Float[Tensor, "layer head"]  # direct logit attribution to logit(IO) - logit(S), in logits
    attribution_to_io: Float[Tensor, "layer head"]  # to logit(IO) over the mean logit of all names
    attribution_to_s: Float[Tensor, "layer head"]  # to logit(S) over that mean
    copying: Float[Tensor, "layer head"]  # see `RecipientTracing.copying`
    suppression: Float[Tensor, "layer head"]  # see `RecipientTracing.suppression`
    patching_last: Float[Tensor, "layer head"]  # share of the logit difference moved: z patched at the last position
    patching: Float[Tensor, "layer head"]  # the same, z patched everywhere
    ablation: Float[Tensor, "layer head"]  # logits by which the difference falls: z mean-ablated everywhere


class RecipientTracing(Tracing):
    """`Tracing` of sentences of the first template of a form ("one_pair", "bystander" or "two_pairs").

    Each pair of names stands in both orders, so the corrupted sentences are the clean ones once more, each as another's
    pair: an intervention that moves half of the logit difference leaves the two names even.
    """

    def __init__(self, model: TransformerBridge, form: str, n: int = N):
        batch = [
            sentence
            for order in ("ABBA", "BABA")
            for sentence in world.sentences("indirect_object", n // 2, SEED, template=f"{form}/0", order=order)
        ]
        super().__init__(model, Prompts.of(batch))
        self.io: Int[Tensor, " sentence"] = _first_mention(batch, [s.labels["io"] for s in batch])
        self.s1: Int[Tensor, " sentence"] = _first_mention(batch, [s.labels["s"] for s in batch])
        self.s2: int = batch[0].roles["subject"]
        others = zip(*(s.labels["others"] for s in batch), strict=True)
        self.others: list[Int[Tensor, " sentence"]] = [_first_mention(batch, names) for names in others]

    def attention_to_others(self) -> Float[Tensor, "layer head"]:
        """Mean attention from the last position to all names but IO and S."""
        nothing = torch.zeros(self.model.cfg.n_layers, self.model.cfg.n_heads)
        return sum((self.attention(-1, other) for other in self.others), nothing)

    def direction_of_names(self, names: Int[Tensor, " sentence"]) -> Float[Tensor, "sentence d_model"]:
        """Residual direction of one name for each sentence, over the mean of all names."""
        unembed = self.model.W_U.T
        return self.direction(unembed[names] - unembed[_names()].mean(0))

    def copying(self) -> Float[Tensor, "layer head"]:
        """Copying score: share of the sentences in which a head that attends to IO alone raises IO's name most.

        What the head's OV circuit makes of the residual stream at IO goes straight through the unembedding, and IO must
        come first among all names (Wang et al. 2023 count the first five of all words).
        """
        return self._extreme(self.io, self.prompts.answers, largest=True)

    def suppression(self) -> Float[Tensor, "layer head"]:
        """Suppression score: share of the sentences in which a head that attends to S2 alone lowers S's name most."""
        return self._extreme(torch.full_like(self.io, self.s2), self.prompts.distractors, largest=False)

    @torch.no_grad()
    def _extreme(self, sources: Tensor, expected: Tensor, largest: bool) -> Float[Tensor, "layer head"]:
        """Share of the sentences in which `expected` is the first (or last) of all names, from the OV circuit alone."""
        rows, layers = torch.arange(len(expected)), range(self.model.cfg.n_layers)
        v = torch.stack([self.clean[f"blocks.{i}.attn.hook_v"][rows, sources] for i in layers])
        logits = torch.einsum("lshd,lhdm,mn->lhsn", v, self.model.W_O, self.model.W_U[:, _names()])
        first = logits.argmax(-1) if largest else logits.argmin(-1)
        return (_names()[first] == expected).float().mean(-1)

    def head_roles(self) -> HeadRoles:
        """Everything about every head; some ten seconds (three forward passes for each head)."""
        return HeadRoles(
            attention_to_io=self.attention(-1, self.io),
            attention_to_s1=self.attention(-1, self.s1),
            attention_to_s2=self.attention(-1, self.s2),
            attention_to_others=self.attention_to_others(),
            attention_s2_to_s1=self.attention(self.s2, self.s1),
            attribution=self.direct_attribution_of_heads(),
            attribution_to_io=self.attribute_heads(self.direction_of_names(self.prompts.answers)),
            attribution_to_s=self.attribute_heads(self.direction_of_names(self.prompts.distractors)),
            copying=self.copying(),
            suppression=self.suppression(),
            patching_last=self.patch_heads(),
            patching=self.patch_heads(EVERYWHERE),
            ablation=self.ablation_of_heads(),
        )

    def ablation_of_heads(self) -> Float[Tensor, "layer head"]:
        """Logits by which the logit difference falls when one head is mean-ablated everywhere."""
        layers, heads = range(self.model.cfg.n_layers), range(self.model.cfg.n_heads)
        left = [[self.ablate_heads([(layer, head)])[0] for head in heads] for layer in layers]
        return self.logit_diff - torch.tensor(left)


def _names() -> Int[Tensor, " name"]:
    return ids_of(list(world.NAMES))


def _first_mention(batch: list[world.Sentence], names: list[str]) -> Int[Tensor, " sentence"]:
    return torch.tensor([s.tokens.index(name) for s, name in zip(batch, names, strict=True)])


def _decision(tracing: RecipientTracing) -> dict[str, float]:
    """What writes the difference between the two names."""
    attribution, direction = tracing.direct_attribution_of_heads(), tracing.logit_diff_direction()
    by_heads, by_mlps = tracing.by_heads_and_mlps(direction)
    top = best(attribution, 3)
    share = "share of the logit difference written by"
    values = {
        f"{share} the best head (direct attribution)": attribution[top[0]] / tracing.logit_diff,
        f"{share} the best three heads": sum(attribution[head] for head in top) / tracing.logit_diff,
        f"{share} all heads": by_heads / tracing.logit_diff,
        f"{share} all MLPs": by_mlps / tracing.logit_diff,
    }
    left, top1 = tracing.ablate_heads(top, -1)
    values["top-1 accuracy with the best three heads mean-ablated at the last position"] = top1
    values["logit difference with the best three heads mean-ablated at the last position (logits)"] = left
    mlps = [f"blocks.{i}.hook_mlp_out" for i in range(tracing.model.cfg.n_layers)]
    for name, ablated in (("all MLPs", mlps), ("all MLPs after block 0", mlps[1:])):
        left, top1 = tracing.ablate(ablated, "mean", -1)
        values[f"top-1 accuracy with {name} mean-ablated at the last position"] = top1
        values[f"logit difference with {name} mean-ablated at the last position (logits)"] = left
    return values


def _names_written(tracing: RecipientTracing) -> dict[str, float]:
    """What is added to each of the two names, and by which heads."""
    to_io = tracing.direction_of_names(tracing.prompts.answers)
    to_s = tracing.direction_of_names(tracing.prompts.distractors)
    values = {}
    for name, direction in (("the recipient's name", to_io), ("the giver's name", to_s)):
        by_heads, by_mlps = tracing.by_heads_and_mlps(direction)
        values[f"added to {name} by all heads (logits over the mean name)"] = by_heads
        values[f"added to {name} by all MLPs (logits over the mean name)"] = by_mlps
    io_by_heads, s_by_heads = tracing.attribute_heads(to_io), tracing.attribute_heads(to_s)
    attention = {
        "the recipient": tracing.attention(-1, tracing.io),
        "the giver's first mention": tracing.attention(-1, tracing.s1),
        "the giver's second mention": tracing.attention(-1, tracing.s2),
    }
    patching = tracing.patch_heads()
    (copier,), (suppressor,), (strongest,) = best(io_by_heads), best(-s_by_heads), best(patching)
    values["added to the recipient's name by the best copier (logits over the mean name)"] = io_by_heads[copier]
    values["added to the giver's name by the best copier (logits over the mean name)"] = s_by_heads[copier]
    values["copying score of the best copier"] = tracing.copying()[copier]
    values["added to the giver's name by the best suppressor (logits over the mean name)"] = s_by_heads[suppressor]
    values["suppression score of the best suppressor"] = tracing.suppression()[suppressor]
    values["share moved by patching the strongest head at the last position"] = patching[strongest]
    for kind, head in (("best copier", copier), ("best suppressor", suppressor), ("strongest head", strongest)):
        values[f"block of the {kind}"] = head[0]
        values |= {f"attention of the {kind} to {key}": of_heads[head] for key, of_heads in attention.items()}
    return values


def measure(model: TransformerBridge) -> dict[str, float]:
    """How the recipient is found, in each form.

    The best heads are those with the highest direct attribution, the best copier adds most to the recipient's name, the
    best suppressor takes most from the giver's, and the strongest head moves most when patched at the last position.
    """
    values: dict[str, float] = {}
    for form in FORMS:
        tracing = RecipientTracing(model, form)
        found = {"top-1 accuracy": tracing.accuracy, "logit difference (logits)": tracing.logit_diff}
        found |= _decision(tracing) | _names_written(tracing)
        values |= {f"{form}: {name}": float(value) for name, value in found.items()}
    return values
