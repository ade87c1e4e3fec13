"""How well a world model predicts the answers, by type of sentence and by what was held out."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.datasets import world

Model = Callable[[Tensor], Tensor]  # token ids [batch, pos] -> logits [batch, pos, d_vocab]
_ID = {word: i for i, word in enumerate(world.VOCABULARY)}
SEED = 20_000  # of the sentences measured on; corpora use other streams whatever their seed
N = 200  # sentences per accuracy


def token_ids(batch: Sequence[world.Sentence]) -> Int[Tensor, "sentence pos"]:
    """Ids of the sentences, ``<pad>`` to the right (a causal model does not see it before the sentence ends)."""
    rows = [torch.tensor([_ID[token] for token in sentence.tokens]) for sentence in batch]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def ids_of(words: Sequence[str]) -> Int[Tensor, " word"]:
    return torch.tensor([_ID[word] for word in words])


@torch.no_grad()
def answer_logits(model: Model, batch: Sequence[world.Sentence]) -> Float[Tensor, "sentence d_vocab"]:
    """The logits that predict the answer."""
    positions = torch.tensor([s.answer_position - 1 for s in batch])
    return model(token_ids(batch))[torch.arange(len(batch)), positions]


def top1(model: Model, batch: Sequence[world.Sentence]) -> float:
    """Share of the sentences whose answer has the highest logit of all words."""
    answers = ids_of([s.answer for s in batch])
    return (answer_logits(model, batch).argmax(-1) == answers).float().mean().item()


def beats_distractor(model: Model, batch: Sequence[world.Sentence]) -> float:
    """Share of the sentences whose answer has a higher logit than the distractor."""
    logits = answer_logits(model, batch)
    rows = torch.arange(len(batch))
    answer, distractor = ids_of([s.answer for s in batch]), ids_of([s.distractor for s in batch])
    return (logits[rows, answer] > logits[rows, distractor]).float().mean().item()


def years_margin(model: Model, batch: Sequence[world.Sentence]) -> float:
    """Probability of the years after the first one, minus that of the others, for ``greater_than`` (-1 to 1).

    Hanna et al. (2023), arXiv 2305.00586.
    """
    years = ids_of([f"{year:02d}" for year in range(100)])
    probabilities = answer_logits(model, batch).softmax(-1)[:, years]
    later = torch.arange(100) > torch.tensor([s.labels["start"] for s in batch])[:, None]
    return (probabilities * torch.where(later, 1.0, -1.0)).sum(-1).mean().item()


@torch.no_grad()
def second_copy_nll(model: Model, batch: Sequence[world.Sentence]) -> float:
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


# --- All types ------------------------------------------------------------------------------------

SPLIT_NAMES = {
    "train": "training templates",
    "held_out_templates": "held-out templates",
    "held_out_words": "held-out words",
}
# What is measured apart, by the keyword that tells it apart.
_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "fact": ("relation", ("capital", "capital_of", "language", "continent")),
    "category": ("relation", ("category", "gender")),
    "claim": ("relation", ("category", "gender", "continent")),
    "two_hop": ("relation", ("language", "continent")),
    "person": ("relation", ("job", "city", "sport", "drink", "team")),
    "pronoun": ("form", ("subject", "because")),
    "indirect_object": ("form", ("one_pair", "bystander", "two_pairs")),
    "review": ("form", ("plain", "verb", "negation", "contrast")),
    "arithmetic": ("operation", ("plus", "minus")),
}
_FORMS = ("simple", "pp", "two_pps", "object_relative", "subject_relative")


def measure(model: Model) -> dict[str, float]:
    """Accuracy on every type of sentence in every split that it has."""
    found = {}
    for type in world.TYPES:
        for split in world.splits(type):
            for kind, value in _of_type(model, type, split).items():
                found[f"{kind}, {SPLIT_NAMES[split]}"] = value
    return found


def _of_type(model: Model, type: str, split: str) -> dict[str, float]:
    if type == "repeat":
        nll = second_copy_nll(model, world.sentences(type, N, SEED, split))
        return {"repeat: loss on the second copy after its first word (nats per token)": nll}
    if type == "agreement":
        return {
            f"agreement ({form}{'' if form == 'simple' else ', attractors of the other number'}): the right form wins":
            beats_distractor(model, mismatching(form, N, split)) for form in _FORMS
        }  # fmt: skip
    if type == "greater_than":
        margin = years_margin(model, world.sentences(type, N, SEED, split))
        return {"greater_than: probability of later years minus that of the others": margin}
    keyword, kinds = _KINDS.get(type, (None, (None,)))
    return {
        f"{type}{f' ({kind})' if kind else ''}: top-1": top1(
            model, world.sentences(type, N, SEED, split, **({keyword: kind} if keyword else {}))
        )
        for kind in kinds
    }


def watch(model: Model) -> dict[str, float]:
    """A few accuracies, quickly: to be followed in training."""
    n = 100
    held_out = "held_out_words"
    batches = {
        "capitals": world.sentences("fact", n, SEED, relation="capital"),
        "jobs of people": world.sentences("person", n, SEED, relation="job"),
        "two hops, to a language": world.sentences("two_hop", n, SEED, relation="language"),
        "pronouns, held-out names": world.sentences("pronoun", n, SEED, held_out),
        "indirect object, one pair": world.sentences("indirect_object", n, SEED, form="one_pair"),
        "indirect object, two pairs": world.sentences("indirect_object", n, SEED, form="two_pairs"),
        "reviews with negation, held-out adjectives": world.sentences("review", n, SEED, held_out, form="negation"),
        "truth of claims, held-out entities": world.sentences("claim", n, SEED, held_out),
        "requests, held-out pairs": world.sentences("request", n, SEED, held_out),
        "sums": world.sentences("arithmetic", n, SEED, operation="plus"),
    }
    found = {kind: top1(model, batch) for kind, batch in batches.items()}
    agreement = beats_distractor(model, mismatching("pp", n, held_out))
    second_copy = second_copy_nll(model, world.sentences("repeat", 30, SEED, period=20))
    return found | {
        "agreement across a noun of the other number, held-out nouns": agreement,
        "probability of a repeated word": math.exp(-second_copy),
        "later years": years_margin(model, world.sentences("greater_than", n, SEED)),
    }
