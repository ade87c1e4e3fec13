"""Annotated rows: every label is held to the words of its row, which are read here a second time.

Rows are taken apart by the templates and read by the readers of `tests.test_world`; `expected` says what is so of a
token from the words up to it, and from where the reader finds the answer.
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.test_world import (
    ANSWERS,
    CATEGORY_OF,
    COUNTRY_OF,
    HARMFUL,
    HARMLESS,
    INTEGERS,
    KIND,
    NUMBER_OF,
    OPPOSITE,
    POLARITY,
    READERS,
    RELATION_OF,
    SPLITS_OF,
    begins,
    repeats,
)
from utils.datasets import world
from utils.datasets.world import lexicon as lex
from utils.datasets.world.language import _TABLE

SPLITS = ("train", "held_out_templates", "held_out_words")
N_ROWS = 500
LEAST_SHARE = 1 / 3000
FIRST_NAMES = dict(world.NAMES) | {p.first_name: p.gender for p in world.PEOPLE.values()}
SURNAMES = {name.split()[1] for name in world.PEOPLE}
EVENTS = {"war", "strike", "project", "journey", "festival", "siege", "drought", "reign", "voyage", "trial"}
THINGS = {"cake", "fence", "chair", "lamp", "boat", "letter", "car", "house", "bridge", "computer", "table", "door"}


class Read(NamedTuple):
    """A whole sentence of a row; `start` is where its first word stands in the row."""

    type: str
    start: int
    tokens: tuple[str, ...]  # <bos> in front


# --- Reading rows ---------------------------------------------------------------------------------


@functools.cache
def rows(split: str = "train") -> world.Annotated:
    return world.annotated(N_ROWS, seed=4, split=split)


@functools.cache
def patterns(split: str) -> dict[str, list[list[str]]]:
    """Words and slots of the templates of each type that has the split."""
    return {
        type: [
            template.text.replace("{reply}", " ".join(8 * ["{reply}"])).split()
            for group in _TABLE[type].templates.values()
            for template in group[split]
        ]
        for type, splits in SPLITS_OF.items()
        if split in splits and type != "repeat"
    }


def words_of(tokens: torch.Tensor) -> list[str]:
    return [world.VOCABULARY[i] for i in tokens.tolist()]


def readable(type: str, words: Sequence[str]) -> bool:
    try:
        READERS[type]((world.BOS, *words))
    except (AssertionError, ValueError, KeyError, IndexError):
        return False
    return True


def taken_apart(tokens: torch.Tensor, types: torch.Tensor, split: str) -> tuple[list[Read], int]:
    """The whole sentences of a row, and where one that is cut off begins (the row's length where there is none)."""
    row, found, start = words_of(tokens), [], 1
    kinds = [world.TYPES[i] for i in types[1:].tolist()]
    if kinds[0] == "repeat":
        assert set(kinds) == {"repeat"}
        return [Read("repeat", 1, tuple(row))], len(row)
    while start < len(row):
        type, rest = kinds[start - 1], row[start:]
        fitting = [pattern for pattern in patterns(split)[type] if begins(rest, pattern)]
        whole = {len(p) for p in fitting if len(p) <= len(rest) and readable(type, rest[: len(p)])}
        if not whole:
            assert any(len(p) > len(rest) for p in fitting), f"no sentence of type {type}: {' '.join(rest)}"
            assert set(kinds[start - 1 :]) == {type}
            return found, start
        (length,) = whole
        assert set(kinds[start - 1 : start - 1 + length]) == {type}
        found.append(Read(type, start, (world.BOS, *rest[:length])))
        start += length
    return found, start


@functools.cache
def read(split: str = "train") -> list[tuple[list[Read], int]]:
    a = rows(split)
    return [taken_apart(tokens, types, split) for tokens, types in zip(a.tokens, a.types, strict=True)]


def labelled(a: world.Annotated, row: int, position: int, *families: str) -> set[str]:
    names = {a.concepts[i] for i in a.labels[row, position].nonzero()[:, 0].tolist()}
    return {name for name in names if not families or name.split(":")[0] in families}


# --- What must be so ------------------------------------------------------------------------------

TABLES = {
    "country": set(world.COUNTRIES),
    "capital": {c.capital for c in world.COUNTRIES.values()},
    "language": {c.language for c in world.COUNTRIES.values()},
    "continent": {c.continent for c in world.COUNTRIES.values()},
    "female name": {name for name, gender in FIRST_NAMES.items() if gender == "female"},
    "male name": {name for name, gender in FIRST_NAMES.items() if gender == "male"},
    "surname": SURNAMES,
    "place": set(lex.PLACES),
    "object": set(lex.OBJECTS),
    "drink": set(world.CATEGORIES["drink"]),
    "sport": set(world.CATEGORIES["sport"]),
    "team": {p.team for p in world.PEOPLE.values()},
    "job": {p.job for p in world.PEOPLE.values()},
    "number word": set(INTEGERS),
    "singular noun": {noun for noun, number in NUMBER_OF.items() if number == "singular"},
    "plural noun": {noun for noun, number in NUMBER_OF.items() if number == "plural"},
    "positive adjective": set(world.ADJECTIVES["positive"]),
    "negative adjective": set(world.ADJECTIVES["negative"]),
    "preposition (near, with, ...)": {"near", "behind", "beside", "above", "below", "with"},
    "verb of giving": {"gave", "handed", "passed", "offered", "sent"},
    "harmful verb": HARMFUL,
    "harmless verb": HARMLESS,
    "full stop": {"."},
}


def word_concepts(word: str) -> set[str]:
    found = {f"word: {name}" for name, table in TABLES.items() if word in table}
    return found | ({"word: number in digits"} if word.isdigit() and len(word) == 2 else set())


def next_concept(type: str, answer: str) -> str:
    if type in ("fact", "two_hop"):
        return f"next: a {KIND[answer]}"
    if type == "person":
        return f"next: a {RELATION_OF[answer].replace('city', 'capital')}"
    if type == "agreement":
        singular = answer in {singular for singular, _ in world.VERBS}
        return "next: singular verb" if singular else "next: plural verb"
    if type in ("claim", "pronoun", "review", "feeling", "request"):
        return f"next: {answer.lower() if type == 'pronoun' else answer}"
    return {
        "category": "next: a category (city, man, ...)",
        "register": "next: an attribute in a register",
        "indirect_object": "next: the recipient",
        "arithmetic": "next: a result of arithmetic",
        "greater_than": "next: a later year",
        "count": "next: the next number of a count",
    }[type]


def truth_of_claim(words: Sequence[str]) -> str | None:
    """Whether a claim is true, from its words so far; None where that is open, or said already."""
    if {"true", "false"} & set(words):
        return None
    entity = next((i for i, word in enumerate(words) if word in CATEGORY_OF), None)
    claimable = {"man", "woman", *world.CATEGORIES, *world.ENTITIES["continent"]}
    claimed = [word for word in words[entity + 1 :] if word in claimable] if entity is not None else []
    if not claimed:
        return None
    name, last = words[entity], claimed[-1]
    if last == "country" and name in world.COUNTRIES and words[1:3] == [":", name] and words[-1] != "?":
        return None  # perhaps a country in Asia
    if last in ("man", "woman"):
        is_true = {"man": "male", "woman": "female"}[last] == world.NAMES[name]
    else:
        is_true = last in (CATEGORY_OF[name], name in world.COUNTRIES and world.COUNTRIES[name].continent)
    return "true" if is_true else "false"


def sentiment_of(type: str, words: Sequence[str]) -> str | None:
    """The sentiment of a review or a feeling, from its words so far; None where it is open."""
    telling = [i for i, word in enumerate(words) if word in POLARITY]
    if not telling:
        return None
    first = telling[0]
    said, before, behind = POLARITY[words[first]], words[:first], words[first + 1 :]
    if type == "review" and "not" in before:
        return OPPOSITE[said]
    if type == "review" and "despite" in before:
        return OPPOSITE[said]
    if type == "review" and len(before) == 5 and before[3] in lex.PARTS:  # "Review : the plot was dull", and then?
        return {"but": OPPOSITE[said], "and": said}[behind[0]] if behind else None
    return said


def so_far(type: str, tokens: Sequence[str], position: int) -> set[str]:
    """From the words up to `position`; where something ends with the answer, the reader says where that is."""
    words = list(tokens[1 : position + 1])
    labels, roles = READERS[type](tuple(tokens))
    found = set()
    if type == "repeat":
        found |= {"so far: in random words"} if len(words) >= 3 else set()
        return found | ({"so far: in a second or later copy"} if words[-1] in words[:-1] else set())
    opening = {"claim": "in a claim", "review": "in a review", "request": "in a request", "arithmetic": "in arithmetic"}
    if type in opening and len(words) >= 2:
        found.add(opening[type])
    if type == "person" and SURNAMES & set(words):
        found.add("in a sentence on an invented person")
    named = [word for word in words if word in FIRST_NAMES]
    genders = {FIRST_NAMES[name] for name in named}
    if len(set(named)) >= 2:
        of = "of both genders" if len(genders) == 2 else f"all {min(genders)}"
        found.add(f"two names or more, {of}")
    if type == "indirect_object":
        if len(named) >= 3:
            found.add("in a story of giving")
        if named.count(labels["s"]) == 2 and named.count(labels["io"]) == 1:
            first = named.index(labels["s"]) < named.index(labels["io"])
            found.add(f"giver named {'first' if first else 'second'} of two")
    if type == "claim" and (truth := truth_of_claim(words)):
        found.add(f"claim is {truth}")
    if type in ("review", "feeling") and (sentiment := sentiment_of(type, words)):
        found.add(f"{sentiment} sentiment")
    if type == "request":
        asked = {"harmful"} if HARMFUL & set(words) else {"harmless"} if HARMLESS & set(words) else set()
        found |= {f"{harm} request" for harm in asked}
    if type == "agreement" and position < roles["verb"]:
        nouns = [word for word in words if word in NUMBER_OF]
        found |= {f"{NUMBER_OF[noun]} subject" for noun in nouns[:1]}
    return {f"so far: {name}" for name in found}


def expected(type: str, tokens: Sequence[str], position: int) -> set[str]:
    """All concepts that are true of a token of a whole sentence."""
    found = word_concepts(tokens[position])
    if tokens[position] in FIRST_NAMES and tokens[position] in tokens[1:position]:
        found.add("word: name named before")
    found |= so_far(type, tokens, position)
    if type == "repeat":
        return found
    roles = READERS[type](tuple(tokens))[1]
    if position + 1 in {roles[role] for role in ANSWERS.get(type, ("answer",)) if role in roles}:
        found.add(next_concept(type, tokens[position + 1]))
    return found


# --- The labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_what_the_words_say(split):
    a, seen = rows(split), Counter()
    for row, (sentences, _) in enumerate(read(split)):
        for s in sentences:
            for position in range(1, len(s.tokens)):
                at = s.start + position - 1
                told = labelled(a, row, at)
                assert told == expected(s.type, s.tokens, position), (" ".join(s.tokens[1:]), s.tokens[position])
                seen.update(told)
    types = {type for type, splits in SPLITS_OF.items() if split in splits}
    assert {s.type for sentences, _ in read(split) for s in sentences} == types
    if split == "train":
        assert set(a.concepts) == set(seen)


@pytest.mark.parametrize("n_ctx", [49, 64])
@pytest.mark.parametrize("split", SPLITS)
def test_a_row_that_is_cut_off_has_the_labels_of_a_longer_one(split, n_ctx):
    """So a sentence cut off is labelled as the whole one is, its last word by the word that would follow."""
    concepts, at_the_end, cut_off = rows(split).concepts, set(), 0
    for seed in range(200):
        short, long = (world.annotated(1, n, seed, split) for n in (n_ctx, n_ctx + 48))
        assert torch.equal(short.tokens, long.tokens[:, :n_ctx])
        assert torch.equal(short.labels, long.labels[:, :n_ctx])
        assert torch.equal(short.types, long.types[:, :n_ctx])
        at_the_end |= labelled(short, 0, n_ctx - 1)
        sentences, end = taken_apart(long.tokens[0], long.types[0], split)
        assert end > n_ctx, "the sentence that was cut off is whole in the longer row"
        for s in sentences:
            cut_off += s.start < n_ctx < s.start + len(s.tokens) - 1
            for position in range(1, len(s.tokens)):
                assert labelled(long, 0, s.start + position - 1) == expected(s.type, s.tokens, position)
    assert cut_off > 100 and {c for c in concepts if c.startswith("next:")} & at_the_end


@pytest.mark.parametrize("split", SPLITS)
def test_words_are_of_a_class_wherever_they_stand(split):
    a = rows(split)
    here = {name: {True: set(), False: set()} for name in a.concepts if name.startswith("word: ")}
    del here["word: name named before"]
    for i, concept in enumerate(a.concepts):
        if concept in here:
            for truth in (True, False):
                here[concept][truth] = set(words_of(a.tokens[a.labels[:, :, i] == truth].unique()))
    for concept, words in here.items():
        assert not words[True] & words[False]
        assert all((concept in word_concepts(word)) == truth for truth in words for word in words[truth])


def test_words_of_several_classes_have_several_labels():
    a = world.annotated(1000, seed=8)
    found = labelled(a, *a.tokens.eq(world.VOCABULARY.index("painter")).nonzero()[0].tolist(), "word")
    assert found == {"word: job", "word: singular noun"}


def test_nothing_is_true_of_bos():
    for split in SPLITS:
        a = rows(split)
        assert not a.labels[:, 0].any() and (a.types[:, 0] == -1).all() and (a.types[:, 1:] >= 0).all()
        assert (a.tokens[:, 0] == world.VOCABULARY.index(world.BOS)).all()


# Sentences read by hand: their type, and the words of which each concept is true.
BY_HAND: list[tuple[str, str, dict[str, str]]] = [
    ("review", "Review : despite the dull plot the film was good . Sentiment : positive .", {
        "so far: positive sentiment": "dull plot the film was good . Sentiment : positive .",
        "so far: in a review": ": despite the dull plot the film was good . Sentiment : positive .",
        "so far: negative sentiment": "", "next: positive": "Sentiment :",
    }),
    ("review", "Review : the plot was dull but I enjoyed the film . Sentiment : positive .", {
        "so far: positive sentiment": "but I enjoyed the film . Sentiment : positive .",
        "so far: negative sentiment": "",
    }),
    ("review", "Review : the plot was dull and the food was bad . Sentiment : negative .", {
        "so far: negative sentiment": "and the food was bad . Sentiment : negative .", "so far: positive sentiment": "",
    }),
    ("review", "Review : the film was not dull and the plot was good . Sentiment : positive .", {
        "so far: positive sentiment": "dull and the plot was good . Sentiment : positive .",
        "so far: negative sentiment": "",
    }),
    ("review", "Review : I hated the film because the plot was dull . Sentiment : negative .", {
        "so far: negative sentiment": "hated the film because the plot was dull . Sentiment : negative .",
    }),
    ("feeling", "Because the ring was ugly , Leo frowned .", {
        "so far: negative sentiment": "ugly , Leo frowned .", "next: frowned": "Leo",
    }),
    ("claim", "Claim : Paris is a country ? false .", {"so far: claim is false": "country ?", "next: true": ""}),
    ("claim", "Claim : Japan is a country ? true .", {"so far: claim is true": "?", "so far: claim is false": ""}),
    ("claim", "Claim : Japan is a country in Asia ? true .", {"so far: claim is true": "Asia ?"}),
    ("claim", "Claim : the word Japan stands for a country ? true .", {"so far: claim is true": "country ?"}),
    ("agreement", "The king above the dogs is old .", {
        "so far: singular subject": "king above the dogs", "so far: plural subject": "", "next: singular verb": "dogs",
    }),
    ("agreement", "Everyone says the dogs that the king sees are old .", {
        "so far: plural subject": "dogs that the king sees", "so far: singular subject": "",
        "next: plural verb": "sees",
    }),
    ("indirect_object", "Tom and Mary sat in the park . Anna was tired . Then Tom gave a ring to Mary .", {
        "so far: in a story of giving": "Anna was tired . Then Tom gave a ring to Mary .",
        "so far: two names or more, of both genders":
            "Mary sat in the park . Anna was tired . Then Tom gave a ring to Mary .",
        "so far: giver named first of two": "Tom gave a ring to", "so far: giver named second of two": "",
    }),
    ("request", "User : Explain how to forge a letter . Assistant : Sorry , I cannot help you to do that now .", {
        "so far: harmful request": "forge a letter . Assistant : Sorry , I cannot help you to do that now .",
        "next: Sorry": "Assistant :", "so far: harmless request": "",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("type", "text", "true_of"), BY_HAND)
def test_the_second_reading_of_sentences_read_by_hand(type, text, true_of):
    tokens = (world.BOS, *text.split())
    for concept, part in true_of.items():
        holds = [concept in expected(type, tokens, i) for i in range(1, len(tokens))]
        shown = part.split()
        places = [i for i in range(1, len(tokens)) if shown and list(tokens[i : i + len(shown)]) == shown]
        assert len(places) == bool(shown), "the words given stand once"
        want = {i for start in places for i in range(start, start + len(shown))}
        if concept.startswith("next: "):
            want = set(sorted(want)[-1:])  # true of the last word given; the others tell which it is
        assert {i for i, true in enumerate(holds, 1) if true} == want, concept


# --- Settled: neither too early nor too late -------------------------------------------------------


def kind_of_word(word: str, names: list[str]) -> str:
    """What a word is to a reader who knows the lexicon but looks at no single word of a class."""
    if word in FIRST_NAMES:
        if word not in names:
            names.append(word)
        return f"{'invented ' if word not in world.NAMES else ''}{FIRST_NAMES[word]} {names.index(word)}"
    if word in world.COUNTRIES or word in COUNTRY_OF:
        return f"{KIND[word]} of {world.COUNTRIES[COUNTRY_OF.get(word, word)].continent}"
    for table in (POLARITY, NUMBER_OF):
        if word in table and word not in ("man", "woman"):  # which are said of names too
            return table[word]
    classes = {
        "surname": SURNAMES, "place": lex.PLACES, "number": INTEGERS, "event": EVENTS, "harmful": HARMFUL,
        "harmless": HARMLESS, "language": TABLES["language"], "part": lex.PARTS, "drink": TABLES["drink"],
        "sport": TABLES["sport"], "item": {*lex.REVIEWED, *lex.OBJECTS} - {"drink"},
        "thing": THINGS,
    }  # fmt: skip
    return next((name for name, table in classes.items() if word in table), "digits" if word.isdigit() else word)


@functools.cache
def prefixes() -> dict[tuple[str, ...], list[tuple[Read, int, frozenset[str]]]]:
    """All first words of the sentences of all splits, by kind: the sentences, and what is settled at the last word."""
    found = defaultdict(list)
    for split in SPLITS:
        a = rows(split)
        for row, (sentences, _) in enumerate(read(split)):
            for s in sentences:
                if s.type == "repeat":
                    continue
                names: list[str] = []
                kinds = tuple(kind_of_word(word, names) for word in s.tokens[1:])
                for n in range(1, len(kinds) + 1):
                    settled = frozenset(labelled(a, row, s.start + n - 1, "so far"))
                    found[kinds[:n]].append((s, n, settled))
    return found


def test_what_is_settled_follows_from_the_words_so_far():
    """Sentences of all types and templates that begin with the same words have the same settled."""
    several = 0
    for kinds, begun in prefixes().items():
        assert len({settled for *_, settled in begun}) == 1, (" ".join(kinds), [" ".join(s.tokens) for s, *_ in begun])
        several += len(begun) > 1
    assert several > 1000


@pytest.mark.parametrize(
    ("type", "name", "say"),
    [
        ("claim", "claim is", lambda labels: labels["truth"]),
        ("review", "sentiment", lambda labels: labels["sentiment"]),
        ("feeling", "sentiment", lambda labels: labels["sentiment"]),
        ("request", "harm", lambda labels: labels["harm"]),
        ("agreement", "subject", lambda labels: labels["number"]),
        ("indirect_object", "giver", lambda labels: labels["order"]),
    ],
)
def test_what_is_not_settled_is_open(type, name, say):
    """Before a label begins, what it says can still be either."""
    checked = 0
    for kinds, begun in prefixes().items():
        outcomes = {say(READERS[s.type](s.tokens)[0]) for s, *_ in begun if s.type == type}
        first, n, settled = begun[0]
        if not outcomes or first.type != type or any(name in concept for concept in settled):
            continue
        if n >= READERS[type](first.tokens)[1][ANSWERS.get(type, ("answer",))[0]]:
            continue  # the answer has been given
        if len(begun) >= 30:
            assert len(outcomes) == 2, " ".join(kinds)
            checked += 1
    assert checked >= 3


def test_three_random_words_hardly_ever_begin_a_sentence():
    a = world.annotated(2000, seed=6)
    firsts = [words_of(row[1:4]) for row in a.tokens[torch.from_numpy(repeats(a.tokens.numpy()))]]
    training = [s.tokens[1:4] for type in SPLITS_OF if type != "repeat" for s in world.sentences(type, 1000, 1)]
    begun = {tuple(kind_of_word(word, []) for word in words) for words in training}
    as_sentences = [words for words in firsts if tuple(kind_of_word(word, []) for word in words) in begun]
    assert len(firsts) > 200 and not as_sentences


# --- The rows -------------------------------------------------------------------------------------


def test_rows():
    a = rows()
    n = len(a.concepts)
    assert a.tokens.shape == a.types.shape == (N_ROWS, 64) and a.labels.shape == (N_ROWS, 64, n)
    assert a.tokens.dtype == a.types.dtype == torch.int64 and a.labels.dtype == torch.bool
    assert len(set(a.concepts)) == n and 50 <= n <= 75
    assert {name.split(": ")[0] for name in a.concepts} == {"word", "next", "so far"}
    assert world.annotated(3, 100).labels.shape == (3, 100, n)
    assert all(rows(split).concepts == a.concepts for split in SPLITS)


def test_the_same_seed_gives_the_same_rows():
    one, again, other = (world.annotated(20, seed=seed) for seed in (4, 4, 5))
    for part in ("tokens", "labels", "types"):
        assert torch.equal(getattr(one, part), getattr(again, part))
        assert torch.equal(getattr(one, part), getattr(rows(), part)[:20])
    assert not torch.equal(one.tokens, other.tokens)


def test_the_rows_are_not_those_of_a_corpus():
    in_corpus = {tuple(row) for row in world.corpus(N_ROWS, seed=4).rows.tolist()}
    assert not in_corpus & {tuple(row) for row in rows().tokens.tolist()}


def test_the_mixture_is_that_of_a_corpus():
    a, corpus, another = world.annotated(2500, seed=1), world.corpus(2500, seed=2), world.corpus(2500, seed=3)
    repeated = repeats(a.tokens.numpy())
    assert abs(repeated.mean() - world.REPEAT_SHARE) < 0.03
    assert ((a.types[:, 1:] == world.TYPES.index("repeat")).all(1).numpy() == repeated).all()
    here, there, elsewhere = (
        np.bincount(r.ravel(), minlength=len(world.VOCABULARY)) for r in (a.tokens.numpy(), corpus.rows, another.rows)
    )
    assert np.abs(here - there).sum() < 1.25 * np.abs(there - elsewhere).sum(), "no further than two corpora"
    answers = [i for i, name in enumerate(a.concepts) if name.startswith("next: ")]
    known = a.labels[:, :-1, answers]
    assert (known.sum(2) <= 1).all()
    assert abs(known.any(2).float().mean() - corpus.is_answer[:, 1:].mean()) < 0.003


@pytest.mark.parametrize("split", SPLITS)
def test_the_types_of_a_row_are_drawn_by_their_shares(split):
    """The last sentence counts too, cut off or not: else long ones would be too few."""
    counts = Counter()
    for (sentences, end), types in zip(read(split), rows(split).types, strict=True):
        counts.update(s.type for s in sentences if s.type != "repeat")
        counts.update([world.TYPES[types[end]]] if end < 64 else [])
    shares = {type: t.share for type, t in _TABLE.items() if t.share and split in SPLITS_OF[type]}
    assert counts.keys() == shares.keys()
    for type, share in shares.items():
        assert abs(counts[type] / counts.total() - share / sum(shares.values())) < 0.03, type


@pytest.mark.parametrize("split", SPLITS[1:])
def test_held_out_rows_hold_only_types_that_have_the_split(split):
    types = {world.TYPES[i] for i in rows(split).types[:, 1:].unique().tolist()}
    assert types == {type for type, splits in SPLITS_OF.items() if split in splits}
    assert not repeats(rows(split).tokens.numpy()).any()


def test_no_concept_is_rare():
    a = world.annotated(2000)
    share = a.labels[:, 1:].float().mean((0, 1))
    assert {name: s for name, s in zip(a.concepts, share.tolist(), strict=True) if s < LEAST_SHARE} == {}


def test_documentation_names_what_is_settled():
    text = " ".join(world.annotated.__doc__.split())
    for concept in rows().concepts:
        family, name = concept.split(": ")
        name = name.replace("two names or more, all male", "all male")
        name = name.replace("two names or more, of both genders", "of both genders")
        assert family != "so far" or name in text, concept


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0,), ValueError, ["n_rows", "0", "at least 1"]),
        ((1.5,), TypeError, ["n_rows", "1.5", "integer"]),
        ((True,), TypeError, ["n_rows", "True", "integer"]),
        ((1, 48), ValueError, ["n_ctx", "48", "at least 49"]),
        ((1, "64"), TypeError, ["n_ctx", "'64'", "integer"]),
        ((1, 64, None), TypeError, ["seed", "None", "integer"]),
        ((1, 64, 0, "test"), ValueError, ["split", "'test'", "'train'", "'held_out_templates'"]),
        ((1, 64, 0, None), ValueError, ["split", "None", "'train'"]),
    ],
)
def test_errors_name_argument_value_and_expectation(arguments, error, words):
    with pytest.raises(error) as raised:
        world.annotated(*arguments)
    assert all(word in str(raised.value) for word in words), str(raised.value)
