"""Rows of the corpus with a truth for every token: what it is, what comes next, what is settled so far."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.datasets.world import lexicon as lex
from utils.datasets.world import numbers, requests
from utils.datasets.world.core import BOS, SPLITS, Template, check_choice, check_integer
from utils.datasets.world.language import _ID, _TABLE, PERIODS, REPEAT_SHARE, TYPES, VOCABULARY, _repeat
from utils.datasets.world.people import PEOPLE

# --- Words ----------------------------------------------------------------------------------------

_GENDER_OF: dict[str, str] = dict(lex.NAMES) | {p.first_name: p.gender for p in PEOPLE.values()}

_WORDS: dict[str, Sequence[str]] = {
    "country": lex.COUNTRY_NAMES,
    "capital": lex.CAPITALS,
    "language": lex.LANGUAGES,
    "continent": lex.CONTINENTS,
    "female name": [name for name, gender in _GENDER_OF.items() if gender == "female"],
    "male name": [name for name, gender in _GENDER_OF.items() if gender == "male"],
    "surname": [p.surname for p in PEOPLE.values()],
    "place": lex.PLACES,
    "object": lex.OBJECTS,
    "drink": lex.DRINKS,
    "sport": lex.SPORTS,
    "team": lex.TEAMS,
    "job": lex.JOBS,
    "number word": lex.NUMBERS_IN_WORDS,
    "number in digits": numbers.TWO_DIGITS,
    "singular noun": lex.NOUNS["singular"],
    "plural noun": lex.NOUNS["plural"],
    "positive adjective": lex.ADJECTIVES["positive"],
    "negative adjective": lex.ADJECTIVES["negative"],
    "preposition (near, with, ...)": lex.PREPOSITIONS,
    "verb of giving": lex.GIVING,
    "harmful verb": requests.VERBS["harmful"],
    "harmless verb": requests.VERBS["harmless"],
    "full stop": (".",),
}
_NAMED_BEFORE = "word: name named before"


# --- One sentence ---------------------------------------------------------------------------------


class _Text(NamedTuple):
    """A sentence written out. Positions count from 1, as in `Template.roles`."""

    type: str
    template: Template
    fills: Mapping[str, str]
    labels: Mapping[str, object]
    words: list[str]

    @property
    def end(self) -> int:
        """One past the last word."""
        return len(self.words) + 1

    def at(self, role: str) -> int:
        position = self.template.roles[role]
        return position if isinstance(position, int) else position[0]


_Span = tuple[str, int, int]  # concept, first position, one past the last

# The answer of a relation, in facts, in two hops and of people.
_KINDS = {
    "capital": "a capital",
    "capital_of": "a country",
    "language": "a language",
    "continent": "a continent",
    "city": "a capital",
    "job": "a job",
    "sport": "a sport",
    "drink": "a drink",
    "team": "a team",
}


def _of_relation(text: _Text) -> str:
    return _KINDS[text.labels["relation"]]


def _answer_itself(text: _Text) -> str:
    return text.fills["answer"]


_NEXT: dict[str, Callable[[_Text], str]] = {
    "fact": _of_relation,
    "category": lambda text: "a category (city, man, ...)",
    "claim": _answer_itself,
    "two_hop": _of_relation,
    "person": _of_relation,
    "register": lambda text: "an attribute in a register",
    "agreement": lambda text: f"{text.labels['number']} verb",
    "pronoun": lambda text: text.fills["answer"].lower(),
    "indirect_object": lambda text: "the recipient",
    "review": _answer_itself,
    "feeling": _answer_itself,
    "request": _answer_itself,
    "arithmetic": lambda text: "a result of arithmetic",
    "greater_than": lambda text: "a later year",
    "count": lambda text: "the next number of a count",
}


def _claim(text: _Text) -> Iterator[_Span]:
    yield "in a claim", 2, text.end
    # "Claim : France is a country" may go on with "in Asia".
    open = text.template.text.startswith("Claim : {subject} is a {claimed} ?")
    open = open and text.fills["claimed"] == "country" and text.fills["subject"] in lex.COUNTRIES
    yield f"claim is {text.labels['truth']}", text.at("claimed") + open, text.at("answer")


def _person(text: _Text) -> Iterator[_Span]:
    yield "in a sentence on an invented person", text.at("surname"), text.end


def _agreement(text: _Text) -> Iterator[_Span]:
    yield f"{text.labels['number']} subject", text.at("subject"), text.at("verb")


def _indirect_object(text: _Text) -> Iterator[_Span]:
    named = [i for i, word in enumerate(text.words, 1) if word in _GENDER_OF]
    yield "in a story of giving", named[2], text.end
    first = text.labels["order"] == "BABA"
    yield f"giver named {'first' if first else 'second'} of two", text.at("subject"), text.at("recipient")


def _review(text: _Text) -> Iterator[_Span]:
    yield "in a review", 2, text.end
    roles = text.template.roles
    start = min(text.at(role) for role in ("adjective", "opposite", "verb") if role in roles)
    # "Review : the plot was dull" goes on with "and" or with "but".
    open = text.template.text.startswith("Review : the {part} was")
    yield f"{text.labels['sentiment']} sentiment", start + open, text.end


def _feeling(text: _Text) -> Iterator[_Span]:
    yield f"{text.labels['sentiment']} sentiment", text.at("adjective"), text.end


def _request(text: _Text) -> Iterator[_Span]:
    yield "in a request", 2, text.end
    yield f"{text.labels['harm']} request", text.at("verb"), text.end


def _arithmetic(text: _Text) -> Iterator[_Span]:
    yield "in arithmetic", 2, text.end


_SO_FAR: dict[str, Callable[[_Text], Iterator[_Span]]] = {
    "claim": _claim,
    "person": _person,
    "agreement": _agreement,
    "indirect_object": _indirect_object,
    "review": _review,
    "feeling": _feeling,
    "request": _request,
    "arithmetic": _arithmetic,
}
_NAMED = {"female": "two names or more, all female", "male": "two names or more, all male"}
_BOTH = "two names or more, of both genders"
_RANDOM, _COPY = "in random words", "in a second or later copy"


def _names(text: _Text) -> Iterator[_Span]:
    """Who was named before, and of which gender those are who have been named."""
    seen: dict[str, int] = {}
    for i, word in enumerate(text.words, 1):
        if word in seen:
            yield _NAMED_BEFORE, i, i + 1
        elif word in _GENDER_OF:
            seen[word] = i
    if text.type == "repeat":
        return
    named = list(seen)
    for n in range(2, len(named) + 1):
        genders = {_GENDER_OF[name] for name in named[:n]}
        concept = _BOTH if len(genders) == 2 else _NAMED[genders.pop()]
        yield f"so far: {concept}", seen[named[n - 1]], seen[named[n]] if n < len(named) else text.end


def _spans(text: _Text) -> Iterator[_Span]:
    yield from _names(text)
    if text.type == "repeat":
        yield f"so far: {_RANDOM}", 3, text.end
        yield f"so far: {_COPY}", text.labels["period"] + 1, text.end
        return
    for slot in _TABLE[text.type].answers:
        if slot in text.template.roles:
            yield f"next: {_NEXT[text.type](text)}", text.at(slot) - 1, text.at(slot)
    for concept, start, stop in _SO_FAR[text.type](text) if text.type in _SO_FAR else ():
        yield f"so far: {concept}", start, stop


# --- Rows -----------------------------------------------------------------------------------------

_CONCEPTS: tuple[str, ...] = (
    *(f"word: {name}" for name in _WORDS), _NAMED_BEFORE,
    *(f"next: {name}" for name in (
        "he", "she", "true", "false", "positive", "negative", "smiled", "frowned", "Sure", "Sorry", "singular verb",
        "plural verb", "a country", "a capital", "a language", "a continent", "a job", "a sport", "a drink", "a team",
        "an attribute in a register", "a category (city, man, ...)", "the recipient", "a result of arithmetic",
        "a later year", "the next number of a count",
    )),
    *(f"so far: {name}" for name in (
        "in a claim", "in a review", "in a request", "in arithmetic", "in a sentence on an invented person",
        "in a story of giving", _RANDOM, _COPY, "claim is true", "claim is false", "positive sentiment",
        "negative sentiment", "harmful request", "harmless request", "singular subject", "plural subject",
        *_NAMED.values(), _BOTH, "giver named first of two", "giver named second of two",
    )),
)  # fmt: skip
_INDEX = {concept: i for i, concept in enumerate(_CONCEPTS)}
_IS_WORD = np.array([[word in words for words in map(set, _WORDS.values())] for word in VOCABULARY])


@dataclass(frozen=True, eq=False)
class Annotated:
    """Rows of tokens, and which of the concepts are true of each token; see `annotated`.

    Attributes:
        tokens: ids, each row with ``<bos>`` in front.
        concepts: their names, in the order of the labels.
        labels: which concepts are true of a token; none is true of ``<bos>``.
        types: the type of the sentence that a token belongs to, an index into `TYPES`; -1 for ``<bos>``.
    """

    tokens: Int[Tensor, "row pos"]
    concepts: tuple[str, ...]
    labels: Bool[Tensor, "row pos concept"]
    types: Int[Tensor, "row pos"]


def annotated(n_rows: int, n_ctx: int = 64, seed: int = 0, split: str = "train") -> Annotated:
    """Rows made as those of `corpus` are, from a seed of their own, with the truth of each token.

    Concepts hold at single tokens, or from a token on that settles something. "Sentence" means what one draw of a type
    writes, up to several full stops; a row of repeated words is one sentence. What is so does not depend on where a
    row is cut off: at the last token of a row too, "next" speaks of the token that would follow.

    A word is of a class wherever it stands, among random words too; one that is of several classes has all of them
    ("painter" is a job and a noun). Left of the colon stands the family, here the rule for the rest of the name:

        word: country, capital, ...   the word stands in this table of the lexicon; names are those of `NAMES` and the
                                      first names of `PEOPLE`, surnames those of `PEOPLE`, nouns those of `NOUNS`
        word: name named before       a first name that stood in this sentence before
        next: ...                     the next token is the answer of its type, and of this kind: only where it can be
                                      known. "a capital" answers a fact or says where an invented person lives; "a
                                      language" and "a continent" answer a fact or two hops; "he" stands for "He" too
        so far: in a claim, in a review, in a request, in arithmetic
                                      from the second word ("Claim :", "eight plus", "The number") to the end
        so far: in a sentence on an invented person
                                      from the surname to the end, but not in a register
        so far: in a story of giving  from the third naming of anybody to the end (indirect_object)
        so far: in random words       from the third word of a row of repeated words to its end
        so far: in a second or later copy
                                      of repeated words: from the first word that is repeated, so that the next is known
        so far: claim is true, claim is false
                                      from the claimed word to the question mark; "Claim : France is a country" may go
                                      on with "in Asia", so there at the question mark only
        so far: positive sentiment, negative sentiment
                                      of a review or a feeling, to the end; from the verb of opinion where there is one
                                      before any adjective, else from the first adjective ("despite the dull" and "not
                                      dull" are positive). "Review : the plot was dull" may go on with "but" or with
                                      "and": there from the word behind the adjective
        so far: harmful request, harmless request
                                      from the verb that is asked about to the end, the reply included
        so far: singular subject, plural subject
                                      from the subject to the word before the verb that agrees (agreement)
        so far: two names or more, all female (all male, of both genders)
                                      different first names in this sentence, from the second on, as of each token
        so far: giver named first of two, giver named second of two
                                      from the giver's second naming to "to", before the recipient; of the giver and
                                      the recipient, who was named first (indirect_object: "BABA", "ABBA")

    "So far" never runs ahead of the words: no template, held-out ones included, begins with the same words and goes on
    otherwise. Only three random words could by chance begin some sentence, and a first word is not enough because
    random words may begin with it. Types without a concept of their own, of which no single word tells, are in `types`.

    Args:
        n_rows: at least 1.
        n_ctx: tokens in a row, at least 49.
        seed: the same seed gives the same rows; it is not that of a corpus.
        split: "train", as in a corpus; or "held_out_templates" or "held_out_words", as in `sentences`. Types that do
            not have the split are left out then, repeated words among them.

    Raises:
        ValueError: ``n_rows < 1``, ``n_ctx < 49``, an unknown split.
        TypeError: an argument that counts is not an integer.
    """
    check_integer("n_rows", n_rows, least=1)
    check_integer("n_ctx", n_ctx, least=2 * PERIODS[-1] + 1)
    check_integer("seed", seed)
    check_choice("split", split, SPLITS)
    rng = random.Random(f"annotated/{split}/{seed}")
    names = [name for name, t in _TABLE.items() if t.share and split in t.splits]
    shares = np.cumsum([_TABLE[name].share for name in names]).tolist()
    repeat_share = REPEAT_SHARE if split in _TABLE["repeat"].splits else 0.0
    tokens = np.empty((n_rows, n_ctx), dtype=np.int64)
    types = np.full((n_rows, n_ctx), -1)
    told = np.zeros((n_rows, n_ctx, len(_CONCEPTS)), dtype=bool)
    for row in range(n_rows):
        ids = [_ID[BOS]]
        repeated = rng.random() < repeat_share
        while len(ids) < n_ctx:
            if repeated:
                name, draft = "repeat", _repeat(rng, split, length=n_ctx - 1)
            else:
                (name,) = rng.choices(names, cum_weights=shares)
                draft = _TABLE[name].draw(rng, split)
            words = draft.template.text.format_map(draft.fills).split()
            before = len(ids) - 1
            for concept, start, stop in _spans(_Text(name, draft.template, draft.fills, draft.labels, words)):
                told[row, before + start : before + stop, _INDEX[concept]] = True
            types[row, len(ids) : len(ids) + len(words)] = TYPES.index(name)
            ids += [_ID[word] for word in words]
        tokens[row] = ids[:n_ctx]
    told[:, :, : len(_WORDS)] |= _IS_WORD[tokens]
    return Annotated(torch.from_numpy(tokens), _CONCEPTS, torch.from_numpy(told), torch.from_numpy(types))
