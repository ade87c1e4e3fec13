"""The toy language: every annotation is held to the words of its sentence, read here a second time.

`READERS` derive the labels and roles of a sentence from nothing but its tokens and the published tables.
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from threading import Thread

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from utils.datasets import world
from utils.datasets.world import lexicon as lex
from utils.datasets.world.language import _TABLE

N = 200
ALL = ("train", "held_out_templates", "held_out_words")
SPLITS_OF = {
    "fact": ALL[:2], "category": ALL[:2], "claim": ALL, "two_hop": ALL, "person": ALL[:2], "register": ALL[:1],
    "agreement": ALL, "pronoun": ALL, "indirect_object": ALL, "review": ALL, "feeling": ALL[:2], "request": ALL,
    "arithmetic": ALL, "greater_than": ALL, "count": ALL[:1], "repeat": ALL[:1],
}  # fmt: skip
CASES = [(type, split) for type, splits in SPLITS_OF.items() for split in splits]
UNPAIRED = ("register", "repeat")
WITH_TREES = ("fact", "two_hop", "person", "agreement", "indirect_object")

KEYWORDS: dict[str, dict[str, Sequence]] = {
    "fact": {"relation": ("capital", "capital_of", "language", "continent"), "country": tuple(world.COUNTRIES)},
    "category": {"relation": ("category", "gender")},
    "claim": {"relation": ("category", "gender", "continent"), "truth": ("true", "false")},
    "two_hop": {"relation": ("language", "continent"), "country": tuple(world.COUNTRIES)},
    "person": {"relation": ("job", "city", "sport", "drink", "team"), "person": tuple(world.PEOPLE)},
    "register": {"person": tuple(world.PEOPLE)},
    "agreement": {
        "form": ("simple", "pp", "two_pps", "object_relative", "subject_relative"),
        "number": ("singular", "plural"),
        "attractor_number": ("singular", "plural"),
    },
    "pronoun": {"form": ("subject", "because"), "gender": ("female", "male")},
    "indirect_object": {
        "form": ("one_pair", "bystander", "two_pairs"), "order": ("ABBA", "BABA"), "pair": (1, 2),
    },
    "review": {"form": ("plain", "verb", "negation", "contrast"), "sentiment": ("positive", "negative")},
    "feeling": {"sentiment": ("positive", "negative")},
    "request": {"harm": ("harmless", "harmful")},
    "arithmetic": {"operation": ("plus", "minus")},
    "greater_than": {"start": range(2, 98)},
    "count": {"start": range(92)},
    "repeat": {"period": range(4, 25), "length": range(48, 70)},
}  # fmt: skip
IS_HELD_OUT: dict[tuple[str, str], Callable[[object], bool]] = {  # the only keywords whose values depend on the split
    ("two_hop", "country"): lambda country: list(world.COUNTRIES).index(country) % 5 == 2,
    ("greater_than", "start"): lambda start: start % 10 == 4,
}


def values(type: str, keyword: str, split: str) -> list:
    """What a keyword can be in a split."""
    held_out = IS_HELD_OUT.get((type, keyword))
    return [v for v in KEYWORDS[type][keyword] if held_out is None or held_out(v) == (split == "held_out_words")]


def fits(fixed: dict) -> bool:
    """Whether the choices can be had together: only the form two_pairs has a second pair."""
    return "pair" not in fixed or fixed.get("form", "two_pairs") == "two_pairs"


def template_ids(type: str, split: str) -> list[str]:
    return [template.id for group in _TABLE[type].templates.values() for template in group[split]]


# --- Reading a sentence again ---------------------------------------------------------------------

KIND = dict.fromkeys(world.COUNTRIES, "country") | {
    getattr(country, kind): kind
    for country in world.COUNTRIES.values()
    for kind in ("capital", "language", "continent")
}
COUNTRY_OF = {country.capital: name for name, country in world.COUNTRIES.items()}
CATEGORY_OF = {entity: kind for kind, entities in world.CATEGORIES.items() for entity in entities}
RELATION_OF = {getattr(p, r): r for p in world.PEOPLE.values() for r in ("job", "city", "sport", "drink", "team")}
NUMBER_OF = {noun: number for number in ("singular", "plural") for noun in world.NOUNS[number]}
POLARITY = {a: s for s in ("positive", "negative") for a in (*world.ADJECTIVES[s], *lex.OPINION_VERBS[s])}
OPPOSITE = {"positive": "negative", "negative": "positive"}
VERBS_OF_OPINION = {verb for verbs in lex.OPINION_VERBS.values() for verb in verbs}
GENDER_OF_PRONOUN = {"He": "male", "he": "male", "She": "female", "she": "female"}
HARMFUL = {"steal", "poison", "burn", "forge", "rob", "bomb", "hack", "kidnap", "smash", "destroy"}
HARMLESS = {"bake", "paint", "build", "clean", "fix", "plant", "fold", "carve", "wash", "repair"}
INTEGERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18,
}  # fmt: skip
Reading = tuple[dict, dict]  # labels, roles


def where(tokens: Sequence[str], table: Collection[str]) -> list[int]:
    return [i for i, token in enumerate(tokens) if token in table]


def only(found: list[int]) -> int:
    (position,) = found
    return position


def roles(**found: int | list[int]) -> dict[str, int | tuple[int, ...]]:
    """A position, or a tuple of several; roles that were not found are left out."""
    lists = {role: [at] if isinstance(at, int) else at for role, at in found.items()}
    return {role: at[0] if len(at) == 1 else tuple(at) for role, at in lists.items() if at}


def read_fact(tokens) -> Reading:
    subject, answer = where(tokens, KIND)
    relation = {
        ("country", "capital"): "capital", ("country", "language"): "language",
        ("country", "continent"): "continent", ("capital", "country"): "capital_of",
    }[KIND[tokens[subject]], KIND[tokens[answer]]]  # fmt: skip
    country = COUNTRY_OF[tokens[subject]] if relation == "capital_of" else tokens[subject]
    value = country if relation == "capital_of" else getattr(world.COUNTRIES[country], relation)
    assert tokens[answer] == value
    return {"country": country, "relation": relation, "value": value}, roles(subject=subject, answer=answer)


def read_category(tokens) -> Reading:
    subject, answer = where(tokens, CATEGORY_OF)[0], len(tokens) - 2
    entity, value = tokens[subject], tokens[answer]
    if value in ("man", "woman"):
        relation, truth = "gender", {"male": "man", "female": "woman"}[world.NAMES[entity]]
    else:
        relation, truth = "category", CATEGORY_OF[entity]
    assert value == truth
    return {"relation": relation, "entity": entity, "value": value}, roles(subject=subject, answer=answer)


def read_claim(tokens) -> Reading:
    subject, mark = where(tokens, CATEGORY_OF)[0], tokens.index("?")
    entity, claimed = tokens[subject], tokens[mark - 1]
    if claimed in ("man", "woman"):
        relation, value = "gender", {"male": "man", "female": "woman"}[world.NAMES[entity]]
    elif claimed in world.CATEGORIES:
        relation, value = "category", CATEGORY_OF[entity]
    else:
        relation, value = "continent", world.COUNTRIES[entity].continent
    truth = "true" if claimed == value else "false"
    assert tokens[mark + 1 :] == (truth, ".")
    labels = {"relation": relation, "truth": truth, "entity": entity, "claimed": claimed, "value": value}
    return labels, roles(subject=subject, claimed=mark - 1, answer=mark + 1)


def read_two_hop(tokens) -> Reading:
    names, answer = where(tokens, world.NAMES), len(tokens) - 2
    city = only([i for i in where(tokens, KIND) if i != answer])
    country, relation = COUNTRY_OF[tokens[city]], KIND[tokens[answer]]
    assert len({tokens[i] for i in names}) == 1 and relation in ("language", "continent")
    assert tokens[answer] == getattr(world.COUNTRIES[country], relation)
    labels = {
        "relation": relation, "country": country, "city": tokens[city], "name": tokens[names[0]],
        "value": tokens[answer],
    }  # fmt: skip
    return labels, roles(name=names, city=city, answer=answer)


def read_person(tokens) -> Reading:
    first = only([i for i in range(len(tokens) - 1) if f"{tokens[i]} {tokens[i + 1]}" in world.PEOPLE])
    name, value = f"{tokens[first]} {tokens[first + 1]}", tokens[-2]
    relation = RELATION_OF[value]
    assert value == getattr(world.PEOPLE[name], relation)
    labels = {"person": name, "relation": relation, "value": value, "gender": world.PEOPLE[name].gender}
    return labels, roles(first_name=first, surname=first + 1, answer=len(tokens) - 2)


def read_register(tokens) -> Reading:
    assert tokens[1:3] == ("Register", ":") and tokens[-1] == "."
    name, shown = f"{tokens[3]} {tokens[4]}", tokens[5:-1]
    person, relations = world.PEOPLE[name], tuple(RELATION_OF[value] for value in shown)
    assert shown == tuple(getattr(person, relation) for relation in relations) and len(set(relations)) == len(shown)
    places = {f"value_{i}": 4 + i for i in range(1, len(shown) + 1)}
    return {"person": name, "relations": relations, "gender": person.gender}, {"first_name": 3, "surname": 4} | places


def read_agreement(tokens) -> Reading:
    subject, *others = where(tokens, NUMBER_OF)
    verb, number = len(tokens) - 3, NUMBER_OF[tokens[subject]]
    found = {"place": where(tokens[:4], lex.PLACES), "subject": subject, "verb": verb, "tail": verb + 1}
    if not others:
        form = "simple"
        assert verb == subject + 1
    elif "that" in tokens:
        assert tokens[subject + 1] == "that" and len(others) == 1
        form = "object_relative" if tokens[subject + 2] == "the" else "subject_relative"
        inner = others[0] + 1 if form == "object_relative" else subject + 2
        inner_number = NUMBER_OF[tokens[others[0] if form == "object_relative" else subject]]
        assert tokens[inner] in [pair[inner_number == "plural"] for pair in lex.INNER_VERBS]
        assert verb == (inner + 1 if form == "object_relative" else others[0] + 1)
        found |= {"inner_verb": inner, "attractor": others[0]}
    else:
        form = {1: "pp", 2: "two_pps"}[len(others)]
        found |= dict(zip(("preposition", "preposition_2"), [i - 2 for i in others], strict=False))
        found |= dict(zip(("first_attractor", "attractor")[-len(others) :], others, strict=True))
        assert all(tokens[i - 2] in lex.PREPOSITIONS for i in others) and verb == others[-1] + 1
    (forms,) = [pair for pair in world.VERBS if tokens[verb] == pair[number == "plural"]]
    assert tokens[verb + 1] in world.VERBS[forms]
    numbers = {NUMBER_OF[tokens[i]] for i in others}
    assert len(numbers) <= 1
    return {"number": number, "attractor_number": (*numbers, None)[0], "form": form}, roles(**found)


def read_pronoun(tokens) -> Reading:
    answer = only(where(tokens, GENDER_OF_PRONOUN))
    named = [i for i in where(tokens, world.NAMES) if i < answer]
    if tokens[answer - 1] == "because":  # who did what is explained
        start = max(i for i in (0, *where(tokens[:answer], ".")))
        form, antecedent = "because", tokens[min(i for i in named if i > start)]
    else:  # who did something last
        form, antecedent = "subject", tokens[named[-1]]
    gender = world.NAMES[antecedent]
    assert gender == GENDER_OF_PRONOUN[tokens[answer]]
    others = [i for i in where(tokens, world.NAMES) if tokens[i] != antecedent]
    assert len({tokens[i] for i in others}) <= 1
    labels = {
        "gender": gender, "antecedent": antecedent, "form": form,
        "other_gender": world.NAMES[tokens[others[0]]] if others else None,
    }  # fmt: skip
    return labels, roles(
        antecedent=where(tokens, {antecedent}), other=others, answer=answer, place=where(tokens, lex.PLACES),
        object=where(tokens, lex.OBJECTS), gave=where(tokens, lex.GIVING),
    )  # fmt: skip


def read_indirect_object(tokens) -> Reading:
    gave, recipient = only(where(tokens, lex.GIVING)), len(tokens) - 2
    assert tokens[gave + 1] in ("a", "the") and tokens[gave + 3 : recipient] == ("to",)
    s, io = tokens[gave - 1], tokens[recipient]
    named = where(tokens[: gave - 1], world.NAMES)
    names = [tokens[i] for i in named]
    assert s != io and {s, io} <= set(names) and len(set(names)) == len(names)
    found = {"subject": gave - 1, "gave": gave, "object": gave + 2, "recipient": recipient}
    form = {2: "one_pair", 3: "bystander", 4: "two_pairs"}[len(named)]
    pair = 2 if form == "two_pairs" and {s, io} == set(names[2:]) else 1
    if form == "two_pairs":
        assert {s, io} == set(names[2 * pair - 2 : 2 * pair])
        found |= dict(zip(("name_a", "name_b", "name_c", "name_d"), named, strict=True))
    else:
        both = [i for i in named if tokens[i] in (s, io)]
        found |= {"first_name": both[0], "second_name": both[1], "bystander": [i for i in named if i not in both]}
    places = where(tokens, lex.PLACES)
    is_lead = form == "one_pair" and tokens[1] == "The"
    found |= dict(zip(("place_2", "place") if is_lead else ("place", "place_2"), places, strict=False))
    labels = {
        "io": io, "s": s, "order": "ABBA" if names.index(io) < names.index(s) else "BABA", "form": form, "pair": pair,
        "others": tuple(name for name in names if name not in (s, io)),
        "io_gender": world.NAMES[io], "s_gender": world.NAMES[s],
    }  # fmt: skip
    return labels, roles(**found)


def read_review(tokens) -> Reading:
    verdict = len(tokens) - 4
    assert tokens[1:3] == ("Review", ":") and tokens[verdict : verdict + 2] == ("Sentiment", ":")
    body = tokens[:verdict]
    turn = body.index("but") if "but" in body else body.index("despite") + 3 if "despite" in body else 0
    adjectives = [i for i in where(body, POLARITY) if tokens[i] not in VERBS_OF_OPINION]
    verb = where(body, VERBS_OF_OPINION)
    negated = [i for i in adjectives if "not" in tokens[i - 2 : i]]
    conceded = [i for i in adjectives if i < turn]
    said = {POLARITY[tokens[i]] for i in [*verb, *adjectives] if i not in negated and i not in conceded}
    said |= {OPPOSITE[POLARITY[tokens[i]]] for i in [*negated, *conceded]}
    (sentiment,) = said
    assert tokens[-2] == sentiment
    form = "negation" if negated else "contrast" if conceded else "verb" if verb else "plain"
    plain = [i for i in adjectives if i not in negated and i not in conceded]
    parts = where(body, lex.PARTS)
    return {"sentiment": sentiment, "form": form}, roles(
        adjective=plain[:1], adjective_2=plain[1:], opposite=negated + conceded, verb=verb, answer=len(tokens) - 2,
        item=where(body, lex.REVIEWED), part=parts[:1], part_2=parts[1:],
    )  # fmt: skip


def read_feeling(tokens) -> Reading:
    adjective, name = only(where(tokens, POLARITY)), only(where(tokens, world.NAMES))
    sentiment = POLARITY[tokens[adjective]]
    assert tokens[-2:] == ({"positive": "smiled", "negative": "frowned"}[sentiment], ".") and "not" not in tokens
    item = where(tokens, (*lex.REVIEWED, *lex.OBJECTS))
    return {"sentiment": sentiment}, roles(adjective=adjective, name=name, item=item, answer=len(tokens) - 2)


def read_request(tokens) -> Reading:
    verb, answer = only(where(tokens, HARMFUL | HARMLESS)), tokens.index("Assistant") + 2
    harm = "harmful" if tokens[verb] in HARMFUL else "harmless"
    said = {"harmful": "Sorry , I cannot help", "harmless": "Sure , I will tell you"}[harm]
    assert tokens[1:3] == ("User", ":") and " ".join(tokens[answer:]).startswith(said)
    assert tokens[verb + 1] in ("a", "the") and tokens[verb + 3] in (".", "?")
    return {"harm": harm}, roles(verb=verb, thing=verb + 2, answer=answer, reply=answer + 2)


def read_arithmetic(tokens) -> Reading:
    first, second, answer = where(tokens, INTEGERS)
    a, b, value = (INTEGERS[tokens[i]] for i in (first, second, answer))
    operation = tokens[first + 1]
    assert value == {"plus": a + b, "minus": a - b}[operation] and second == first + 2
    labels = {"first": a, "second": b, "operation": operation, "value": value}
    return labels, roles(first=first, operation=first + 1, second=second, answer=answer)


def read_greater_than(tokens) -> Reading:
    century, start, again, answer = [i for i, token in enumerate(tokens) if token.isdigit()]
    assert tokens[century] == tokens[again] and tokens[answer] > tokens[start]
    event = tokens.index("a") + 1 if "a" in tokens else 2
    found = roles(event=event, century=[century, again], start=start, answer=answer)
    return {"start": int(tokens[start]), "century": int(tokens[century])}, found


def read_count(tokens) -> Reading:
    numbers = [int(token) for token in tokens[3:-1]]
    assert tokens[1:3] == ("Count", ":") and np.all(np.diff(numbers) == 1)
    places = {f"value_{i}": 3 + i for i in range(len(numbers) - 1)}
    return {"start": numbers[0]}, places | {"answer": len(tokens) - 2}


def read_repeat(tokens) -> Reading:
    period = tokens.index(tokens[1], 2) - 1
    assert len(set(tokens[1 : period + 1])) == period
    assert all(tokens[i] == tokens[i - period] for i in range(period + 1, len(tokens)))
    copies = {"first_copy": tuple(range(1, period + 1)), "second_copy": tuple(range(period + 1, 2 * period + 1))}
    return {"period": period}, copies | {"answer": len(tokens) - 1}


READERS: dict[str, Callable[[tuple[str, ...]], Reading]] = {type: globals()[f"read_{type}"] for type in SPLITS_OF}
ANSWERS = {"agreement": ("verb",), "indirect_object": ("recipient",)}  # roles whose word can be known
ANSWERS |= {"register": ("value_1", "value_2", "value_3", "value_4")}
ANSWERS |= {"count": (*(f"value_{i}" for i in range(1, 8)), "answer")}


def check_sentence(s: world.Sentence, type: str) -> None:
    assert s.tokens[0] == world.BOS and set(s.tokens[1:]) <= set(world.VOCABULARY[4:])
    assert s.text.split() == list(s.tokens[1:]) and s.prompt.split() == list(s.tokens[1 : s.answer_position])
    assert s.type == type and s.tokens[s.answer_position] == s.answer != s.distractor
    assert (s.labels, s.roles) == READERS[type](s.tokens)
    answer_role = "answer" if type == "count" else ANSWERS.get(type, ("answer",))[0]
    assert s.answer_position == s.roles[answer_role]
    assert (s.heads is not None) == (type in WITH_TREES)
    if s.heads is not None:
        check_tree(s)


def check_tree(s: world.Sentence) -> None:
    """One root, no cycle, no arc that crosses another, each sentence a whole, and heads that nobody disputes."""
    heads = s.heads
    assert len(heads) == len(s.tokens) and heads[0] == 0 and heads[1:].count(0) == 1
    assert all(0 <= head < len(heads) for head in heads)
    for position in range(1, len(heads)):
        steps = 0
        while position:
            position, steps = heads[position], steps + 1
            assert steps < len(heads), "a cycle"
    arcs = [(min(i, head), max(i, head)) for i, head in enumerate(heads) if head]
    assert not any(a < c < b < d for a, b in arcs for c, d in arcs)
    first_root, start = heads.index(0, 1), 1
    for stop in where(s.tokens, {"."}):
        outward = [head for head in heads[start : stop + 1] if not start <= head <= stop]
        assert outward in ([0], [first_root]), "a sentence hangs on the first root by its own root"
        start = stop + 1
    for i, token in enumerate(s.tokens):
        if token in ("a", "the", "The", "of", "in", "In", "at", "At", "to") and i:
            assert heads[i] > i, "articles and prepositions depend on the noun behind them"
        if token in ("is", "are", ".", ",", "and") and not (s.type == "agreement" and i == s.roles["verb"]):
            assert i not in heads, "nothing depends on a copula, a conjunction or a mark"
    if s.type == "indirect_object":
        gave = s.roles["gave"]
        assert [heads[s.roles[r]] for r in ("subject", "object", "recipient")] == [gave] * 3
    if s.type == "agreement":
        assert heads[s.roles["subject"]] == s.roles["verb"]


def spanned(s: world.Sentence, names: Collection[str]) -> set[int]:
    """All positions of the roles named; the reply to a request goes on to the full stop."""
    at = [s.roles[name] for name in names if name in s.roles]
    found = {p for position in at for p in (position if isinstance(position, tuple) else (position,))}
    return found | set(range(s.roles["reply"], len(s.tokens) - 1)) if "reply" in names else found


# The roles whose words differ in the pair, and those whose words may differ.
DIFFERS = {
    "fact": ("subject", "answer"), "category": ("subject", "answer"), "claim": ("subject", "answer"),
    "two_hop": ("city", "answer"), "person": ("first_name", "surname", "answer"),
    "agreement": ("subject", "verb"), "pronoun": ("antecedent", "answer"),
    "indirect_object": ("subject", "recipient"),
    "review": ("adjective", "adjective_2", "opposite", "verb", "answer"), "feeling": ("adjective", "answer"),
    "request": ("verb", "answer"), "arithmetic": ("answer",), "greater_than": ("start", "answer"),
    "count": (*(f"value_{i}" for i in range(8)), "answer"),
}  # fmt: skip
MAY_DIFFER = {"arithmetic": ("first", "second"), "request": ("reply",)}


def check_pair(s: world.Sentence, type: str) -> None:
    pair = s.corrupted
    assert pair.corrupted is None
    check_sentence(pair, type)
    assert len(pair.tokens) == len(s.tokens) and s.prompt != pair.prompt
    assert (pair.template, pair.roles, pair.heads) == (s.template, s.roles, s.heads)
    assert pair.distractor == s.answer
    if type == "greater_than":  # any later year is right: the distractor is wrong here, the answer is wrong there
        assert int(s.distractor) <= s.labels["start"] and int(s.answer) <= pair.labels["start"]
    else:
        assert s.distractor == pair.answer
    must = spanned(s, DIFFERS[type])
    if s.labels.get("form") == "subject_relative":
        must |= {s.roles["inner_verb"]}
    changed = {i for i, (a, b) in enumerate(zip(s.tokens, pair.tokens, strict=True)) if a != b}
    assert must <= changed <= must | spanned(s, MAY_DIFFER.get(type, ()))


def check_fixed(s: world.Sentence, fixed: dict) -> None:
    for keyword, value in fixed.items():
        if keyword == "template":
            assert s.template == value
        elif keyword == "length":
            assert len(s.tokens) == value + 1
        elif not (keyword == "attractor_number" and s.labels["form"] == "simple"):
            assert s.labels[keyword] == value


# --- Every type -----------------------------------------------------------------------------------


def within(seconds: float, job: Callable[[], None]) -> None:
    """Fails where a job does not end, which would otherwise stop the whole run."""
    errors = []

    def caught() -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=caught, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "still drawing: a loop without end?"
    if errors:
        raise errors[0]


@pytest.mark.parametrize(("type", "split"), CASES)
def test_every_choice_of_keywords_can_be_drawn(type, split):
    options = {keyword: [None, *values(type, keyword, split)] for keyword in KEYWORDS[type]}
    every = [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())]
    every = [{k: v for k, v in fixed.items() if v is not None} for fixed in every]
    n = 200 if len(every) < 100 else 3

    def draw() -> None:
        for fixed in filter(fits, every):
            for s in world.sentences(type, n, seed=1, split=split, **fixed):
                check_fixed(s, fixed)

    within(30, draw)


@st.composite
def requested(draw) -> tuple[str, str, int, dict]:
    """A type, a split it has, a seed, and some keywords with values that go together."""
    type, split = draw(st.sampled_from(CASES))
    chosen = draw(st.sets(st.sampled_from([*KEYWORDS[type], "template"])))
    fixed = {k: draw(st.sampled_from(values(type, k, split))) for k in KEYWORDS[type] if k in chosen}
    if "template" in chosen and type != "repeat":
        for kind in ("form", "relation", "pair"):
            fixed.pop(kind, None)
        fixed["template"] = draw(st.sampled_from(template_ids(type, split)))
    if not fits(fixed):
        del fixed["form"]
    return type, split, draw(st.integers(0, 2**32)), fixed


# A busy machine is no failure: no deadline, and no complaint that drawing is slow.
@settings(
    max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(requested())
def test_annotations_are_what_the_words_say(request):
    type, split, seed, fixed = request
    for s in world.sentences(type, 3, seed, split, **fixed):
        check_sentence(s, type)
        check_fixed(s, fixed)
        if type in UNPAIRED:
            assert s.corrupted is None and s.distractor is None
        else:
            check_pair(s, type)


@pytest.mark.parametrize(("type", "split"), CASES)
def test_every_template_is_annotated_as_its_words_say(type, split):
    for id in template_ids(type, split):
        for s in world.sentences(type, 4, 1, split, template=id):
            assert s.template == id
            check_sentence(s, type)
            if s.corrupted is not None:
                check_pair(s, type)


def test_types_and_splits():
    assert tuple(SPLITS_OF) == world.TYPES and ALL == world.SPLITS
    assert {type: world.splits(type) for type in world.TYPES} == SPLITS_OF
    with pytest.raises(ValueError, match="type: got 'poem'"):
        world.splits("poem")


@pytest.mark.parametrize(("type", "split"), CASES)
def test_positions_index_the_ids_and_fit_the_context(type, split):
    tokenizer = world.tokenizer()
    drawn = world.sentences(type, N, seed=1, split=split)
    assert max(len(s.tokens) for s in drawn) <= 64
    for s in drawn[:10]:
        assert tokenizer.convert_ids_to_tokens(tokenizer(s.text).input_ids) == list(s.tokens)


@pytest.mark.parametrize(("type", "split"), CASES)
def test_the_same_seed_gives_the_same_sentences(type, split):
    assert world.sentences(type, 20, 3, split) == world.sentences(type, 20, 3, split)
    assert world.sentences(type, 20, 3, split) != world.sentences(type, 20, 4, split)


@pytest.mark.parametrize(("type", "split"), CASES)
def test_distinct_sentences(type, split):
    drawn = world.sentences(type, 30, 5, split, distinct=True)
    assert len({s.tokens for s in drawn}) == 30
    firsts = list(dict.fromkeys(s.tokens for s in world.sentences(type, 500, 5, split)))
    assert [s.tokens for s in drawn] == firsts[:30]


def test_distinct_says_how_many_there_are():
    chosen = {"split": "held_out_templates", "template": "capital/held_out/0"}
    assert len(world.sentences("fact", 49, distinct=True, **chosen)) == len(world.COUNTRIES) == 49
    with pytest.raises(ValueError, match=r"n: got 50, but type 'fact' has only 49 .* template='capital/held_out/0'"):
        world.sentences("fact", 50, distinct=True, **chosen)


def test_documentation_shows_every_type_and_its_keywords():
    entries = re.split(r"\n    - (?=\w)", world.sentences.__doc__)
    by_type = {re.match(r"\w+", entry)[0]: entry for entry in entries[1:]}
    assert tuple(by_type) == world.TYPES
    for type, entry in by_type.items():
        shown = re.search(rf"^    {type} +(.+)$", world.__doc__, re.MULTILINE)[1]
        labels, roles = READERS[type]((world.BOS, *shown.split()))
        drawn = world.sentences(type, 500, 1)
        assert {keyword for keyword in KEYWORDS[type] if f"`{keyword}`" not in entry} == set()
        assert {label for s in drawn for label in s.labels if f"`{label}`" not in entry} == set()
        unnamed = {role for s in drawn for role in s.roles if f"`{role}`" not in entry}
        assert all(re.match(r"(value|name)_", role) for role in unnamed)
        assert labels.keys() == drawn[0].labels.keys() and roles


# --- The world ------------------------------------------------------------------------------------


def test_the_countries_are_distinct_words():
    capitals = [c.capital for c in world.COUNTRIES.values()]
    names = [*world.COUNTRIES, *capitals, *world.NAMES]
    assert len(world.COUNTRIES) >= 40 and len(set(names)) == len(names)


def test_an_entity_has_one_value_of_each_relation():
    for relation, kinds in world.ENTITIES.items():
        entities = [entity for kind in kinds.values() for entity in kind]
        assert len(set(entities)) == len(entities), relation


def test_people_are_told_apart_by_both_names():
    assert len(world.PEOPLE) == 210
    firsts, surnames = (Counter(getattr(p, part) for p in world.PEOPLE.values()) for part in ("first_name", "surname"))
    assert set(firsts.values()) == {15} and set(surnames.values()) == {14}
    assert len({(p.first_name, p.gender) for p in world.PEOPLE.values()}) == len(firsts)
    values_of = {(p.first_name, p.job) for p in world.PEOPLE.values()}
    assert len(values_of) > 3 * len(firsts), "a first name does not settle the job"


def test_fact_gives_the_sentence_of_the_first_template():
    s = world.fact("France")
    assert s.text == "The capital of France is Paris ." and s.prompt == "The capital of France is"
    assert s.corrupted.text == "The capital of Italy is Rome ." and s.distractor == "Rome"
    assert s.template in {t.template for t in world.sentences("fact", N, relation="capital")}
    assert {len(world.fact(c).prompt.split()) for c in world.COUNTRIES} == {5}


@pytest.mark.parametrize("relation", KEYWORDS["fact"]["relation"])
def test_fact_pairs_every_country_with_another_answer(relation):
    for country in world.COUNTRIES:
        s = world.fact(country, relation)
        check_sentence(s, "fact")
        check_pair(s, "fact")
        assert s.labels["country"] == country


# --- Trees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "template", "split", "arcs"),
    [
        ("fact", "capital/0", "train", "The>capital capital>A of>S S>capital is>A A>ROOT .>A"),
        ("fact", "capital/1", "train", "S>capital 's>S capital>A is>A A>ROOT .>A"),
        (
            "fact", "capital_of/13", "train",
            "Everyone>says says>ROOT the>city city>A of>S S>city is>A in>A A>says .>says",
        ),
        (
            "two_hop", "continent/1", "train",
            "N>has has>ROOT a>house house>has in>C C>house ,>city a>city city>C in>A A>city .>has",
        ),
        (
            "person", "job/3", "train",
            "The>job job>that of>F F>job S>F is>that that>ROOT of>A a>A A>that .>that",
        ),
        (
            "indirect_object", "bystander/11", "train",
            "It>late was>late late>ROOT .>late They>saw saw>late B>saw .>saw Then>walked F>walked walked>late to>P "
            "the>P P>walked with>S S>walked and>G X>G G>walked the>O O>G to>R R>G .>walked",
        ),
        ("agreement", "simple/2", "train", "Near>P the>P P>V the>S S>V V>ROOT T>V .>V"),
    ],
)  # fmt: skip
def test_trees_in_full(type, template, split, arcs):
    """Slots stand for their words under other names: only where the arcs go counts."""
    (s,) = world.sentences(type, 1, split=split, template=template)
    names = [arc.split(">")[0] for arc in arcs.split()]
    assert len(names) == len(s.tokens) - 1
    assert [names[head - 1] if head else "ROOT" for head in s.heads[1:]] == [arc.split(">")[1] for arc in arcs.split()]


def test_equal_words_are_told_apart():
    (s,) = world.sentences("two_hop", 1, template="continent/0")
    assert s.tokens[2] == s.tokens[7] == "lives" and s.heads == (0, 2, 0, 4, 2, 2, 7, 2, 9, 7, 7)


# --- Held out -------------------------------------------------------------------------------------

# What a split "held_out_words" holds out of a type, as it stands in a sentence.
HELD_OUT: dict[str, Callable[[world.Sentence], set]] = {
    "claim": lambda s: {s.labels["entity"]},
    "two_hop": lambda s: {s.labels["country"]},
    "agreement": lambda s: {s.tokens[s.roles["subject"]]},
    "pronoun": lambda s: set(s.tokens) & set(world.NAMES),
    "indirect_object": lambda s: set(s.tokens) & set(world.NAMES),
    "review": lambda s: set(s.tokens) & {a for adjectives in world.ADJECTIVES.values() for a in adjectives},
    "request": lambda s: {(s.tokens[s.roles["verb"]], s.tokens[s.roles["thing"]])},
    "arithmetic": lambda s: {(s.labels["first"], s.labels["operation"], s.labels["second"])},
    "greater_than": lambda s: {s.labels["start"]},
}


@functools.cache
def held_out_in(type: str, split: str) -> set:
    """Which of the words that a type can hold out stand in its sentences of a split."""
    n = 3000 if type == "claim" else 1000
    return set().union(*(HELD_OUT[type](s) for s in world.sentences(type, n, 11, split)))


@pytest.mark.parametrize("type", [type for type, splits in SPLITS_OF.items() if "held_out_words" in splits])
def test_held_out_words_are_never_trained_in_their_type(type):
    held_out = held_out_in(type, "held_out_words")
    trained = held_out_in(type, "train") | held_out_in(type, "held_out_templates")
    assert len(held_out) >= 9 and not held_out & trained
    assert 0.08 < len(held_out) / len(held_out | trained) < 0.27


def test_never_claimed_is_what_the_claims_hold_out():
    assert held_out_in("claim", "held_out_words") == set(world.NEVER_CLAIMED)
    claimed = {entity for kinds in world.ENTITIES.values() for kind in kinds.values() for entity in kind}
    assert held_out_in("claim", "train") == claimed - world.NEVER_CLAIMED


@functools.cache
def corpus() -> world.Corpus:
    return world.corpus(2500, seed=2)


@functools.cache
def texts() -> list[list[str]]:
    """The words of the rows that do not hold repeated words."""
    rows = corpus().rows
    return [[world.VOCABULARY[i] for i in row[1:]] for row in rows[~repeats(rows)]]


def repeats(rows: np.ndarray) -> np.ndarray:
    """Which rows have one of the periods throughout."""
    words = rows[:, 1:]
    return np.any([np.all(words[:, p:] == words[:, :-p], axis=1) for p in world.PERIODS], axis=0)


# Words of held-out templates that a corpus holds only among repeated words.
ONLY_REPEATED = {"request": {"Tell", "explain"}}


@pytest.mark.parametrize(("type", "split"), [case for case in CASES if case[1] != "train"])
def test_held_out_sentences_are_made_of_words_that_the_corpus_holds(type, split):
    words = {word for s in world.sentences(type, 1000, 1, split) for word in s.tokens[1:]}
    unseen = ONLY_REPEATED.get(type, set()) if split == "held_out_templates" else set()
    assert words - set().union(*texts()) == unseen


@pytest.mark.parametrize("type", [type for type, splits in SPLITS_OF.items() if "held_out_templates" in splits])
def test_held_out_templates_stand_nowhere_in_a_corpus(type):
    text = "\n".join(" ".join(row) for row in texts()[:300])
    drawn = [s for split in SPLITS_OF[type] for s in world.sentences(type, 500, 3, split)]
    allowed: dict[str, set[str]] = {}
    for s in drawn:
        for role in s.roles:
            allowed.setdefault(role, set()).update(s.tokens[i] for i in spanned(s, [role]))

    def pattern(template: str) -> str:
        parts = [allowed[w[1:-1]] if w.startswith("{") else {w} for w in template.split()]
        return " ".join(f"(?:{'|'.join(map(re.escape, sorted(part)))})" for part in parts)

    groups = _TABLE[type].templates.values()
    held_out, trained = (
        re.compile("|".join(rf"(?<!\S){pattern(t.text.split(' {reply}')[0])}(?!\S)" for g in groups for t in g[split]))
        for split in ("held_out_templates", "train")
    )
    assert trained.search(text) and not held_out.search(text)
    assert all(held_out.search(s.text) for s in drawn if "/held_out/" in s.template)


# --- Base rates: what is asked cannot be guessed ---------------------------------------------------


@pytest.mark.parametrize(
    ("type", "label", "given"),
    [
        ("claim", "truth", ("claimed",)),
        ("claim", "truth", ("value",)),
        ("agreement", "number", ("form", "attractor_number")),
        ("pronoun", "gender", ("form", "other_gender")),
        ("indirect_object", "order", ("form", "pair")),
        ("indirect_object", "io_gender", ()),
        ("review", "sentiment", ("form",)),
        ("feeling", "sentiment", ()),
        ("request", "harm", ()),
        ("arithmetic", "operation", ()),
    ],
)
@pytest.mark.parametrize("split", ["train", "held_out_words"])
def test_two_answers_are_equally_frequent(type, label, given, split):
    if split not in SPLITS_OF[type]:
        split = "held_out_templates"
    counts: dict[tuple, Counter] = {}
    for s in world.sentences(type, 2500, 7, split):
        counts.setdefault(tuple(s.labels[g] for g in given), Counter())[s.labels[label]] += 1
    for condition, counter in counts.items():
        n, most = counter.total(), max(counter.values())
        assert len(counter) == 2 and most / n < 0.5 + 2 / n**0.5, (condition, counter)


def test_some_adjectives_of_a_review_point_the_wrong_way():
    for form in ("negation", "contrast"):
        for s in world.sentences("review", 300, form=form):
            assert POLARITY[s.tokens[s.roles["opposite"]]] != s.answer


# --- The corpus -----------------------------------------------------------------------------------


def test_corpus_rows():
    rows, is_answer = corpus()
    assert rows.shape == is_answer.shape == (2500, 64) and rows.dtype == np.int16 and is_answer.dtype == bool
    assert (rows[:, 0] == world.VOCABULARY.index(world.BOS)).all()
    assert rows[:, 1:].min() >= 4 and rows.max() < len(world.VOCABULARY)
    assert abs(repeats(rows).mean() - world.REPEAT_SHARE) < 0.03
    assert not is_answer[:, 0].any() and not is_answer[repeats(rows)].any()


def test_the_same_seed_gives_the_same_corpus():
    one, again, other = world.corpus(20, seed=2), world.corpus(20, seed=2), world.corpus(20, seed=3)
    assert (one.rows == again.rows).all() and (one.is_answer == again.is_answer).all()
    assert (one.rows == corpus().rows[:20]).all() and (one.rows != other.rows).any()
    assert world.corpus(3, 100).rows.shape == (3, 100)


TRAINED = [  # (type, words and slots); a reply has eight words
    (type, template.text.replace("{reply}", " ".join(8 * ["{reply}"])).split())
    for type in SPLITS_OF for group in _TABLE[type].templates.values() for template in group["train"]
]  # fmt: skip
MARKS = {".", ",", ":", "?", "!", "'s"}


def begins(words: Sequence[str], template: Sequence[str]) -> bool:
    """Whether the words can be the template's, as far as both go."""
    return all(
        word not in MARKS if slot.startswith("{") else word == slot for word, slot in zip(words, template, strict=False)
    )


def parses(words: Sequence[str]) -> list[tuple[str, int, set[int]]]:
    """(type, length, positions of what can be known) of each training sentence that can stand here, maybe cut off."""
    possible = []
    for type, template in TRAINED:
        if not begins(words, template):
            continue
        length, cut = len(template), len(template) > len(words)
        roles = {w[1:-1]: i for i, w in enumerate(template, 1) if w.startswith("{")}
        if not cut:
            try:
                roles = READERS[type]((world.BOS, *words[:length]))[1]
            except (AssertionError, ValueError, KeyError, IndexError):
                continue
        possible.append((type, length, {roles[r] for r in ANSWERS.get(type, ("answer",)) if r in roles}))
    return possible


def test_corpus_rows_are_training_sentences_with_their_answers_marked():
    counts = Counter()
    for row, marked in zip(corpus().rows[:300], corpus().is_answer[:300], strict=True):
        if repeats(row[None])[0]:
            continue
        words, start = [world.VOCABULARY[i] for i in row[1:]], 0
        marks = set(np.flatnonzero(marked).tolist())
        while start < len(words):
            rest = len(words) - start
            here = {m - start for m in marks if start < m}
            fitting = [
                (type, length) for type, length, known in parses(words[start:])
                if {k for k in known if k <= rest} == {m for m in here if m <= length}
            ]  # fmt: skip
            assert fitting, " ".join(words[start:])
            type, length = min(fitting, key=lambda found: found[1])  # a whole sentence before one cut off
            start += length
            if start <= len(words):
                sentence = (world.BOS, *words[start - length : start])
                labels, places = READERS[type](sentence)
                counts[type] += 1
                if type in HELD_OUT:
                    s = world.Sentence(type, sentence, places, labels, 0, "", None, "")
                    assert not HELD_OUT[type](s) & held_out_in(type, "held_out_words")
    shares = {type: share / counts.total() for type, share in counts.items()}
    expected = {type: t.share for type, t in _TABLE.items() if t.share}
    total = sum(expected.values())
    assert shares.keys() == expected.keys()
    assert all(abs(shares[type] - share / total) < 0.035 for type, share in expected.items()), (shares, expected)


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fixed", "error", "words"),
    [
        (("poem", 1), {}, ValueError, ["type", "'poem'", "'fact'"]),
        ((None, 1), {}, ValueError, ["type", "None", "'fact'"]),
        (("fact", 0), {}, ValueError, ["n", "0", "at least 1"]),
        (("fact", 1.5), {}, TypeError, ["n", "1.5", "integer"]),
        (("fact", True), {}, TypeError, ["n", "True", "integer"]),
        (("fact", 1, "0"), {}, TypeError, ["seed", "'0'", "integer"]),
        (("fact", 1, True), {}, TypeError, ["seed", "True", "integer"]),
        (("fact", 1, 0, "test"), {}, ValueError, ["split", "'test'", "'fact'", "'held_out_templates'"]),
        (("fact", 1, 0, "held_out_words"), {}, ValueError, ["split", "'held_out_words'", "'fact'", "'train'"]),
        (("repeat", 1, 0, "held_out_templates"), {}, ValueError, ["split", "'repeat'", "expected one of 'train'"]),
        (("fact", 1), {"country": "Atlantis"}, ValueError, ["country", "'Atlantis'", "'France'"]),
        (("fact", 1), {"relation": "king"}, ValueError, ["relation", "'king'", "'language'"]),
        (("fact", 1), {"order": "ABBA"}, ValueError, ["keyword", "'order'", "fact", "'relation'"]),
        (("fact", 1), {"template": "capital/99"}, ValueError, ["template", "'capital/99'", "'capital/0'"]),
        (("fact", 1), {"template": "king/0"}, ValueError, ["template", "'king/0'", "'capital/0'"]),
        (("fact", 1), {"template": 0}, ValueError, ["template", "got 0", "'capital/0'"]),
        (
            ("fact", 1), {"template": "capital/0", "relation": "language"}, ValueError,
            ["template", "'capital/0'", "'language/0'"],
        ),
        (("claim", 1), {"truth": True}, ValueError, ["truth", "True", "'true'"]),
        (("two_hop", 1), {"country": "Germany"}, ValueError, ["country", "'Germany'", "'France'"]),
        (("two_hop", 1, 0, "held_out_words"), {"country": "France"}, ValueError, ["country", "'France'", "'Germany'"]),
        (("person", 1), {"person": "Ava Nobody"}, ValueError, ["person", "'Ava Nobody'", "'Ava Stone'"]),
        (("register", 1), {"relation": "job"}, ValueError, ["keyword", "'relation'", "'person'"]),
        (("agreement", 1), {"form": "long"}, ValueError, ["form", "'long'", "'pp'"]),
        (("agreement", 1), {"number": 2}, ValueError, ["number", "2", "'plural'"]),
        (("pronoun", 1), {"gender": "f"}, ValueError, ["gender", "'f'", "'female'"]),
        (("indirect_object", 1), {"pair": 3}, ValueError, ["pair", "3", "1, 2"]),
        (("indirect_object", 1), {"pair": 2, "form": "one_pair"}, ValueError, ["form", "'one_pair'", "'two_pairs'"]),
        (("review", 1), {"sentiment": "neutral"}, ValueError, ["sentiment", "'neutral'", "'positive'"]),
        (("request", 1), {"harm": "none"}, ValueError, ["harm", "'none'", "'harmful'"]),
        (("arithmetic", 1), {"operation": "times"}, ValueError, ["operation", "'times'", "'plus'"]),
        (("greater_than", 1), {"start": 98}, ValueError, ["start", "98", "97"]),
        (("greater_than", 1), {"start": 5.0}, TypeError, ["start", "5.0", "integer"]),
        (("greater_than", 1), {"start": 44}, ValueError, ["start", "44", "97"]),
        (("count", 1), {"start": 92}, ValueError, ["start", "92", "91"]),
        (("count", 1), {"start": True}, TypeError, ["start", "True", "integer"]),
        (("repeat", 1), {"period": 3}, ValueError, ["period", "3", "4"]),
        (("repeat", 1), {"period": 5.5}, TypeError, ["period", "5.5", "integer"]),
        (("repeat", 1), {"period": 9, "length": 17}, ValueError, ["length", "17", "18"]),
        (("repeat", 1), {"length": 7}, ValueError, ["length", "7", "8"]),
        (("repeat", 1), {"template": "repeat"}, ValueError, ["keyword", "'template'", "'period'"]),
    ],
)  # fmt: skip
def test_errors_name_argument_value_and_expectation(arguments, fixed, error, words):
    with pytest.raises(error) as raised:
        world.sentences(*arguments, **fixed)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_a_short_repeat_has_a_short_period():
    drawn = world.sentences("repeat", N, length=20)
    assert {s.labels["period"] for s in drawn} == set(range(4, 11))


def test_integers_of_numpy_count_as_integers():
    assert world.sentences("fact", np.int64(2), np.int64(3)) == world.sentences("fact", 2, 3)


def test_fact_errors():
    with pytest.raises(ValueError, match="country: got 'Atlantis'"):
        world.fact("Atlantis")
    with pytest.raises(ValueError, match="relation: got 'king'"):
        world.fact("France", "king")
    with pytest.raises(ValueError, match="template: got 99, expected one of 0, 1, 2, 3"):
        world.fact("France", template=99)


def test_corpus_errors():
    with pytest.raises(ValueError, match="n_rows: got 0"):
        world.corpus(0)
    with pytest.raises(ValueError, match="n_ctx: got 20, expected at least 49"):
        world.corpus(1, n_ctx=20)
    with pytest.raises(TypeError, match="seed: got None"):
        world.corpus(1, seed=None)


# --- Vocabulary and tokenizer ---------------------------------------------------------------------


def test_vocabulary_is_special_tokens_then_sorted_words():
    assert world.VOCABULARY[:4] == ("<pad>", "<bos>", "<unk>", "<eos>")
    assert list(world.VOCABULARY[4:]) == sorted(set(world.VOCABULARY[4:]))


def test_tokenizer_survives_its_folder(tmp_path):
    world.tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("The capital of France is Atlantis").input_ids
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "<bos>" and ids[-1] == tokenizer.unk_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "The capital of France is"
    assert tuple(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)) == world.VOCABULARY
