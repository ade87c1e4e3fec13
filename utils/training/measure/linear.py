"""What a linear probe reads from a world model's residual stream, and what the logit lens sees there.

Every probe is the same (`new_probe`), for trained and untrained models alike. It is fitted on training sentences in
minimal pairs, so that labels are balanced and template, length and the other words say nothing of them, and it is
tested on other forms, templates or words. Layer 0 is the embeddings, layer ``l + 1`` the residual stream after block
``l``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.datasets import world
from utils.training.measure.accuracy import SEED, ids_of, mismatching, token_ids, top1

Position = Callable[[world.Sentence], int]
ByLayer = list[float]  # one value for the embeddings, then one after each block

N_FIT = 600  # sentences a probe is fitted on
N_TEST = 200
FIT_SEED = SEED + 1  # no sentence drawn for fitting comes from the stream of the tests
C = 0.1  # inverse strength of the L2 penalty; fixed beforehand, not tuned


# --- Reading --------------------------------------------------------------------------------------


def predicting(sentence: world.Sentence) -> int:
    """The position that predicts the answer."""
    return sentence.answer_position - 1


def statement_end(sentence: world.Sentence) -> int:
    """The full stop (or "!") of a review's statement, followed by "Sentiment", ":" and the verdict."""
    return sentence.answer_position - 3


def claimed(sentence: world.Sentence) -> int:
    """The word that a claim says of its subject."""
    return sentence.roles["claimed"]


@dataclass(frozen=True)
class Reading:
    """Sentences and the residual stream over them, run once up to (not including) the longest prompt's answer."""

    batch: Sequence[world.Sentence]
    resid: Float[Tensor, "layer sentence pos d_model"]

    @classmethod
    @torch.no_grad()
    def of(cls, model: TransformerBridge, batch: Sequence[world.Sentence]) -> "Reading":
        names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
        _, cache = model.run_with_cache(prompt_ids(batch), names_filter=lambda name: name in names)
        return cls(batch, torch.stack([cache[name] for name in names]))

    def at(self, position: Position) -> Float[Tensor, "layer sentence d_model"]:
        """The residual stream at one position of each sentence."""
        return self.resid[:, torch.arange(len(self.batch)), [position(sentence) for sentence in self.batch]]

    def labels(self, name: str) -> np.ndarray:
        return np.array([sentence.labels[name] for sentence in self.batch])


def prompt_ids(batch: Sequence[world.Sentence]) -> Tensor:
    """Token ids [sentence, pos], cut off before the last answer: nothing behind it is read."""
    return token_ids(batch)[:, : max(sentence.answer_position for sentence in batch)]


def in_pairs(type: str, n: int, seed: int, split: str = "train", **fixed: object) -> list[world.Sentence]:
    """`n` sentences: ``n // 2`` drawn ones and their minimal pairs, whose label is the opposite one."""
    drawn = world.sentences(type, n // 2, seed, split, **fixed)
    return [*drawn, *(sentence.corrupted for sentence in drawn)]


# --- Probes ---------------------------------------------------------------------------------------


def new_probe(class_weight: str | None = None) -> Pipeline:
    """Logistic regression with ``C = 0.1`` on standardised features.

    Standardised, because an untrained model's activations are many times smaller (5 to 100): the penalty would weigh
    more on them.
    """
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000, class_weight=class_weight))


def fit_by_layer(activations: Float[Tensor, "layer sentence d_model"], labels: Sequence) -> list[Pipeline]:
    """One probe per layer."""
    return [new_probe().fit(layer.numpy(), labels) for layer in activations]


def score_by_layer(
    probes: Sequence[Pipeline], activations: Float[Tensor, "layer sentence d_model"], labels: Sequence
) -> ByLayer:
    """Accuracy of each layer's probe (0 to 1)."""
    return [float(probe.score(layer.numpy(), labels)) for probe, layer in zip(probes, activations, strict=True)]


def transfer(
    train: Reading, tests: Mapping[str, Reading], label: str, position: Position = predicting
) -> dict[str, ByLayer]:
    """Accuracy on each test set of the probes of a label fitted on `train`, all at the same position."""
    probes = fit_by_layer(train.at(position), train.labels(label))
    return {
        name: score_by_layer(probes, reading.at(position), reading.labels(label)) for name, reading in tests.items()
    }


def cross_validated(
    activations: Float[Tensor, "layer sentence d_model"], labels: Sequence, folds: int = 7, seed: int = 0
) -> ByLayer:
    """Balanced accuracy (mean of the classes' recalls) of predictions by probes that did not see the example.

    For a few examples of unequal classes: the classes weigh the same in fitting and in the score.
    """
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [
        float(
            balanced_accuracy_score(labels, cross_val_predict(new_probe("balanced"), layer.numpy(), labels, cv=splits))
        )
        for layer in activations
    ]


# --- Phenomena ------------------------------------------------------------------------------------


def number_sets() -> tuple[list[world.Sentence], dict[str, list[world.Sentence]]]:
    """Sentences to fit on (one attractor, of either number) and to test on (attractors of the other number)."""
    return in_pairs("agreement", N_FIT, FIT_SEED, form="pp"), {
        "object relatives": mismatching("object_relative", N_TEST, "train"),
        "two attractors": mismatching("two_pps", N_TEST, "train"),
        "held-out nouns": mismatching("pp", N_TEST, "held_out_words"),
    }


def number(model: TransformerBridge) -> dict[str, ByLayer]:
    """The number of the subject, read where the verb is predicted."""
    return _transfer_of(model, number_sets(), "number")


@torch.no_grad()
def agreement_lens(model: TransformerBridge) -> dict[str, ByLayer]:
    """Logit lens (nostalgebraist 2020): share of the sentences whose right verb form has the higher logit.

    The residual stream of each layer goes straight to the final LayerNorm and the unembedding.
    """

    def share_right(form: str) -> ByLayer:
        batch = mismatching(form, N_TEST, "train")
        logits = model.unembed(model.ln_final(Reading.of(model, batch).at(predicting)))
        rows = torch.arange(len(batch))
        right, wrong = ids_of([s.answer for s in batch]), ids_of([s.distractor for s in batch])
        return (logits[:, rows, right] > logits[:, rows, wrong]).float().mean(-1).tolist()

    return {"one attractor": share_right("pp"), "object relatives": share_right("object_relative")}


def sentiment_sets() -> tuple[list[world.Sentence], dict[str, list[world.Sentence]]]:
    """Reviews to fit on (plain statements) and to test on.

    Held-out adjectives stand only in plain reviews here: in the others a known verb says it all.
    """

    def plain(n: int, seed: int, split: str) -> list[world.Sentence]:
        forms = ("plain", "verb")
        return [s for form in forms for s in in_pairs("review", n // len(forms), seed, split, form=form)]

    return plain(N_FIT, FIT_SEED, "train"), {
        "negation": in_pairs("review", N_TEST, SEED, form="negation"),
        "contrast": in_pairs("review", N_TEST, SEED, form="contrast"),
        "held-out templates": plain(N_TEST, SEED, "held_out_templates"),
        "held-out adjectives": in_pairs("review", N_TEST, SEED, "held_out_words", form="plain"),
    }


def sentiment(model: TransformerBridge) -> dict[str, ByLayer]:
    """The verdict of a review, read where it is predicted and where the statement ends."""
    train, tests = sentiment_sets()
    train, tests = Reading.of(model, train), _read(model, tests)
    return {
        f"{test}, {place}": values
        for place, position in (('at the ":"', predicting), ("at the end of the statement", statement_end))
        for test, values in transfer(train, tests, "sentiment", position).items()
    }


def sentiment_from_words() -> dict[str, float]:
    """The baseline of `sentiment`: the same probe on the counts of the statement's words, their order unknown."""

    def counts(batch: Sequence[world.Sentence]) -> Float[Tensor, "1 sentence d_vocab"]:
        rows = [torch.bincount(ids_of(s.tokens[3 : predicting(s)]), minlength=len(world.VOCABULARY)) for s in batch]
        return torch.stack(rows)[None].float()

    def labels(batch: Sequence[world.Sentence]) -> list[str]:
        return [sentence.labels["sentiment"] for sentence in batch]

    train, tests = sentiment_sets()
    probes = fit_by_layer(counts(train), labels(train))
    return {name: score_by_layer(probes, counts(batch), labels(batch))[0] for name, batch in tests.items()}


def gender_sets() -> tuple[list[world.Sentence], dict[str, list[world.Sentence]]]:
    """Sentences with a pronoun to fit on and to test on."""
    return in_pairs("pronoun", N_FIT, FIT_SEED), {"held-out names": in_pairs("pronoun", N_TEST, SEED, "held_out_words")}


def gender(model: TransformerBridge) -> dict[str, ByLayer]:
    """The gender of the antecedent, read where the pronoun is predicted."""
    return _transfer_of(model, gender_sets(), "gender")


def continent(model: TransformerBridge, shuffles: int = 3) -> dict[str, ByLayer]:
    """The continent of a country, read at the country in "The capital of X is" (balanced accuracy, chance .25).

    Over seven folds of the countries: none is in its own probe's training set. Australia, alone on its continent, is
    left out. The control has the same continents shuffled over the countries (mean over `shuffles`).
    """
    countries = [name for name, country in world.COUNTRIES.items() if country.continent != "Oceania"]
    activations = Reading.of(model, [world.fact(name) for name in countries]).at(lambda s: s.roles["subject"])
    continents = np.array([world.COUNTRIES[name].continent for name in countries])
    rng = np.random.default_rng(SEED)
    controls = [cross_validated(activations, rng.permutation(continents)) for _ in range(shuffles)]
    return {
        "other countries": cross_validated(activations, continents),
        "continents shuffled": np.mean(controls, axis=0).tolist(),
    }


RELATIONS = tuple(world.ENTITIES)  # what is claimed: category, gender, continent


def claims(n: int, seed: int, relation: str, split: str = "train") -> list[world.Sentence]:
    """As many true as false ones: each claim said once of an entity of which it is true, once of another."""
    return in_pairs("claim", n, seed, split, relation=relation)


def truth_sets() -> tuple[dict[str, list[world.Sentence]], dict[str, list[world.Sentence]]]:
    """Claims to fit on (of one relation, or of all) and to test on."""
    of_all = [s for relation in RELATIONS for s in claims(N_FIT // len(RELATIONS), FIT_SEED, relation)]
    return {"category": claims(N_FIT, FIT_SEED, "category"), "all relations": of_all}, {
        "category, held-out words": claims(N_TEST, SEED, "category", "held_out_words"),
        "gender": claims(N_TEST, SEED, "gender"),
        "gender, held-out words": claims(N_TEST, SEED, "gender", "held_out_words"),
        "continent": claims(N_TEST, SEED, "continent"),
        "continent, held-out words": claims(N_TEST, SEED, "continent", "held_out_words"),
    }


def truth(model: TransformerBridge) -> dict[str, ByLayer]:
    """Whether a claim is true, read at the "?" that predicts the verdict and at the claimed word.

    Fitted on claims of category alone, or on those of all relations. There are only 48 different claims of gender and
    120 of continent with held-out words: these accuracies are coarse.
    """
    fit, tests = (_read(model, sets) for sets in truth_sets())
    held_out = {name: reading for name, reading in tests.items() if "held-out" in name}
    return {
        f"fitted on {fitted}, tested on {test}, {place}": values
        for fitted, tested, place, position in (
            ("category", tests, 'at the "?"', predicting),
            ("all relations", held_out, 'at the "?"', predicting),
            ("category", held_out, "at the claimed word", claimed),
            ("all relations", held_out, "at the claimed word", claimed),
        )
        for test, values in transfer(fit[fitted], tested, "truth", position).items()
    }


def right_verdicts(model: TransformerBridge) -> dict[str, float]:
    """What the model itself says of the claims: share of the right verdicts (top-1)."""
    return {
        relation + suffix: top1(model, claims(N_TEST, SEED, relation, split))
        for relation in RELATIONS
        for split, suffix in (("train", ""), ("held_out_words", ", held-out words"))
    }


def _transfer_of(model: TransformerBridge, sets: tuple, label: str) -> dict[str, ByLayer]:
    train, tests = sets
    return transfer(Reading.of(model, train), _read(model, tests), label)


def _read(model: TransformerBridge, sets: Mapping[str, Sequence[world.Sentence]]) -> dict[str, Reading]:
    return {name: Reading.of(model, batch) for name, batch in sets.items()}


# --- All together ---------------------------------------------------------------------------------


def tables(model: TransformerBridge) -> dict[str, ByLayer]:
    """Everything that has a value for each layer."""
    found = {
        "number: probe accuracy": number(model),
        "number: logit lens, share right": agreement_lens(model),
        "sentiment: probe accuracy": sentiment(model),
        "gender: probe accuracy": gender(model),
        "continent: probe accuracy at the country": continent(model),
        "truth: probe accuracy": truth(model),
    }
    return {f"{kind}, {test}": values for kind, rows in found.items() for test, values in rows.items()}


# Shown at every layer; of the others only the value after the last block. Where the token read tells nothing (":", "?",
# "because") the embeddings are left out.
_EVERY_LAYER = (
    "number: probe accuracy, object relatives",
    "number: logit lens, share right, one attractor",
    "number: logit lens, share right, object relatives",
    "continent: probe accuracy at the country, other countries",
)
_EVERY_BLOCK = (
    "gender: probe accuracy, held-out names",
    'sentiment: probe accuracy, negation, at the ":"',
    "sentiment: probe accuracy, negation, at the end of the statement",
    'truth: probe accuracy, fitted on category, tested on gender, at the "?"',
    'truth: probe accuracy, fitted on category, tested on continent, at the "?"',
)


def _shown(name: str, n_layers: int) -> Sequence[int]:
    if name in _EVERY_LAYER:
        return range(n_layers)
    return range(1, n_layers) if name in _EVERY_BLOCK else [n_layers - 1]


def measure(model: TransformerBridge) -> dict[str, float]:
    """Probes, their controls and the logit lens; pass an untrained twin for the control of all of them."""
    rows = {
        f"{name}, {'embeddings' if layer == 0 else f'after block {layer - 1}'}": values[layer]
        for name, values in tables(model).items()
        for layer in _shown(name, len(values))
    }
    rows |= {f"sentiment: probe accuracy, {test}, bag of words": v for test, v in sentiment_from_words().items()}
    return rows | {f"truth: right verdicts of the model, {test}": v for test, v in right_verdicts(model).items()}
