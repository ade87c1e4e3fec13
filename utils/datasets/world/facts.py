"""Facts of the world: countries, categories, what follows from two of them, and claims that may be false."""

import random

from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import (
    SPLITS,
    Draft,
    Group,
    Template,
    Type,
    by_split,
    choose,
    choose_template,
    group,
    kind_of,
    pick,
)

LEADS = ("", "Today/@", "We/know know/^", "Everyone/says says/^")  # said of what is so
SAID = ("", "Today/@", "Everyone/says says/^")

# --- Countries ------------------------------------------------------------------------------------

# Held-out templates never contradict a training template: no corpus continues their words in another way.
FACT: dict[str, Group] = {
    "capital": group(
        "capital",
        """
        The/capital capital/answer of/subject {subject}/capital is/answer {answer}/^ .
        {subject}/capital 's/subject capital/answer is/answer {answer}/^ .
        The/city capital/city city/called of/subject {subject}/city is/called called/^ {answer}/called .
        In/subject {subject}/answer the/capital capital/answer is/answer {answer}/^ .
        The/capital capital/answer of/country the/country country/capital {subject}/country is/answer {answer}/^ .
        The/name name/answer of/capital the/capital capital/name of/subject {subject}/capital is/answer {answer}/^ .
        """,
        """
        The/capital capital/called of/subject {subject}/capital is/called called/^ {answer}/called .
        In/subject {subject}/called the/city capital/city city/called is/called called/^ {answer}/called .
        In/country the/country country/answer {subject}/country the/capital capital/answer is/answer {answer}/^ .
        """,
        LEADS,
    ),
    "capital_of": group(
        "capital_of",
        """
        {subject}/capital is/capital the/capital capital/^ of/answer {answer}/capital .
        The/city city/answer of/subject {subject}/city is/answer in/answer {answer}/^ .
        {subject}/city is/city a/city city/^ in/answer {answer}/city .
        The/city city/lies {subject}/city lies/^ in/answer {answer}/lies .
        """,
        """
        The/city city/capital of/subject {subject}/city is/capital the/capital capital/^ of/answer {answer}/capital .
        The/city city/answer {subject}/city is/answer in/answer {answer}/^ .
        """,
        LEADS,
    ),
    "language": group(
        "language",
        """
        The/language language/answer of/subject {subject}/language is/answer {answer}/^ .
        People/speak in/subject {subject}/people speak/^ {answer}/speak .
        In/subject {subject}/speak most/people people/speak speak/^ {answer}/speak .
        Most/people people/speak in/subject {subject}/people speak/^ {answer}/speak .
        The/people people/speak of/subject {subject}/people speak/^ {answer}/speak .
        """,
        """
        In/subject {subject}/speak people/speak speak/^ {answer}/speak .
        The/people people/speak in/subject {subject}/people speak/^ {answer}/speak .
        """,
        LEADS,
    ),
    "continent": group(
        "continent",
        """
        The/continent continent/answer of/subject {subject}/continent is/answer {answer}/^ .
        {subject}/country is/country a/country country/^ in/answer {answer}/country .
        The/country country/lies of/subject {subject}/country lies/^ in/answer {answer}/lies .
        {subject}/lies lies/^ in/answer {answer}/lies .
        The/country country/answer {subject}/country is/answer in/answer {answer}/^ .
        """,
        """
        The/country country/lies {subject}/country lies/^ in/answer {answer}/lies .
        The/country country/answer of/subject {subject}/country is/answer in/answer {answer}/^ .
        """,
        LEADS,
    ),
}
_RELATIONS = ("capital",) * 4 + ("language", "continent", "capital_of") * 2  # as often as they are drawn


def value(country: str, relation: str) -> str:
    return country if relation == "capital_of" else getattr(lex.COUNTRIES[country], relation)


def _fact_fills(country: str, relation: str) -> dict[str, str]:
    subject = lex.COUNTRIES[country].capital if relation == "capital_of" else country
    return {"subject": subject, "answer": value(country, relation)}


def fact_draft(template: Template, relation: str, country: str, other: str) -> Draft:
    def labels(name: str) -> dict[str, str]:
        return {"country": name, "relation": relation, "value": value(name, relation)}

    return Draft(template, _fact_fills(country, relation), labels(country), _fact_fills(other, relation), labels(other))


def _fact(rng: random.Random, split: str, *, relation=None, country=None, template=None) -> Draft:
    relation = choose(rng, "relation", kind_of(template, relation), _RELATIONS)
    chosen = choose_template(rng, FACT[relation], split, template)
    country = choose(rng, "country", country, lex.COUNTRY_NAMES)
    answer, other = value(country, relation), country
    while value(other, relation) == answer:
        other = rng.choice(lex.COUNTRY_NAMES)
    return fact_draft(chosen, relation, country, other)


# --- Categories and claims ------------------------------------------------------------------------

TRUTHS = ("true", "false")
CATEGORIES: dict[str, tuple[str, ...]] = {
    "person": tuple(lex.NAMES),
    "country": lex.COUNTRY_NAMES,
    "city": lex.CAPITALS,
    "language": lex.LANGUAGES,
    "number": lex.NUMBERS_IN_WORDS,
    "continent": lex.CONTINENTS,
    "drink": lex.DRINKS,
    "sport": lex.SPORTS,
}
# relation -> value -> the entities of which it is true
ENTITIES: dict[str, dict[str, tuple[str, ...]]] = {
    "category": CATEGORIES,
    "gender": {
        noun: tuple(name for name, gender in lex.NAMES.items() if gender == g) for g, noun in lex.GENDER_NOUNS.items()
    },
    "continent": {
        continent: tuple(name for name, country in lex.COUNTRIES.items() if country.continent == continent)
        for continent in lex.CONTINENTS
        if continent != "Oceania"  # a single country: nothing to generalise to
    },
}
# No corpus claims anything of these, true or false; other sentences speak of them.
_OTHER_KINDS = ("language", "number", "continent", "drink", "sport")
NEVER_CLAIMED = frozenset(
    [
        *lex.NAMES_BY_SPLIT["held_out_words"],
        *lex.COUNTRIES_BY_SPLIT["held_out_words"],
        *(lex.COUNTRIES[country].capital for country in lex.COUNTRIES_BY_SPLIT["held_out_words"]),
        *(word for kind in _OTHER_KINDS for word in by_split(CATEGORIES[kind])["held_out_words"]),
    ]
)


def _claimed(relation: str, held_out: bool) -> dict[str, tuple[str, ...]]:
    return {
        kind: tuple(e for e in entities if (e in NEVER_CLAIMED) == held_out)
        for kind, entities in ENTITIES[relation].items()
    }


_VALUES = {relation: tuple(kinds) for relation, kinds in ENTITIES.items()}
_CLAIMED = {
    relation: {split: _claimed(relation, split == "held_out_words") for split in SPLITS} for relation in ENTITIES
}


def _two_values(rng: random.Random, relation: str) -> tuple[str, str]:
    """Two different values, each equally likely."""
    values = _VALUES[relation]
    i, j = int(rng.random() * len(values)), int(rng.random() * (len(values) - 1))
    return values[i], values[j + (j >= i)]


_CATEGORY = {
    "category": group(
        "category",
        "{subject} is a {answer} .\nThe word {subject} stands for a {answer} .",
        "The word {subject} is a {answer} .",
        SAID,
    ),
    "gender": group(
        "gender",
        "{subject} is the name of a {answer} .\nThe name {subject} is that of a {answer} .",
        "The name {subject} is the name of a {answer} .",
        SAID,
    ),
}


def _category(rng: random.Random, split: str, *, relation=None, template=None) -> Draft:
    relation = choose(rng, "relation", kind_of(template, relation), ("category", "category", "gender"))
    chosen = choose_template(rng, _CATEGORY[relation], split, template)
    values = _two_values(rng, relation)
    entities = [pick(rng, ENTITIES[relation][value]) for value in values]
    (fills, labels), (pair_fills, pair_labels) = (
        ({"subject": entity, "answer": value}, {"relation": relation, "entity": entity, "value": value})
        for entity, value in zip(entities, values, strict=True)
    )
    return Draft(chosen, fills, labels, pair_fills, pair_labels)


_CLAIM = {
    "category": group(
        "category",
        "Claim : {subject} is a {claimed} ? {answer} .\nClaim : the word {subject} stands for a {claimed} ? {answer} .",
        "Claim : the word {subject} is a {claimed} ? {answer} .",
    ),
    "gender": group(
        "gender",
        "Claim : {subject} is the name of a {claimed} ? {answer} .\n"
        "Claim : the name {subject} is that of a {claimed} ? {answer} .",
        "Claim : the name {subject} is the name of a {claimed} ? {answer} .",
    ),
    "continent": group(
        "continent",
        """
        Claim : {subject} is a country in {claimed} ? {answer} .
        Claim : the continent of {subject} is {claimed} ? {answer} .
        Claim : the country of {subject} lies in {claimed} ? {answer} .
        """,
        "Claim : {subject} lies in {claimed} ? {answer} .",
    ),
}


def _claim(rng: random.Random, split: str, *, relation=None, truth=None, template=None) -> Draft:
    relation = choose(rng, "relation", kind_of(template, relation), ("category", "category", "gender", "continent"))
    truth = choose(rng, "truth", truth, TRUTHS)
    chosen = choose_template(rng, _CLAIM[relation], split, template)
    claimed, other = _two_values(rng, relation)  # so that what is claimed says nothing of its truth
    pools = _CLAIMED[relation][split]
    subjects = {"true": pick(rng, pools[claimed]), "false": pick(rng, pools[other])}
    values = {"true": claimed, "false": other}

    def labels(truth):
        return {
            "relation": relation, "truth": truth, "entity": subjects[truth], "claimed": claimed, "value": values[truth],
        }  # fmt: skip

    def fills(truth):
        return {"subject": subjects[truth], "claimed": claimed, "answer": truth}

    flipped = TRUTHS[truth == "true"]
    return Draft(chosen, fills(truth), labels(truth), fills(flipped), labels(flipped))


# --- Two hops -------------------------------------------------------------------------------------

# From a city to its country, which is not mentioned, to the answer.
_TWO_HOP = {
    "language": group(
        "language",
        """
        {name}/lives lives/^ in/city {city}/lives . {name}/speaks speaks/^ {answer}/speaks .
        {name}/has has/^ a/house house/has in/city {city}/house and/speaks speaks/has {answer}/speaks .
        {name}/born was/born born/^ in/city {city}/born . Today/speaks {name}/speaks speaks/^ {answer}/speaks .
        """,
        "{name}/born was/born born/^ in/city {city}/born and/speaks speaks/born {answer}/speaks .",
    ),
    "continent": group(
        "continent",
        """
        {name}/lives#1 lives/^ in/city {city}/lives#1 . {name}/lives#2 lives/^ in/answer {answer}/lives#2 .
        {name}/has has/^ a/house house/has in/city#1 {city}/house ,/city#2 a/city#2 city/city#1 in/answer \
            {answer}/city#2 .
        {name}/born was/born born/^ in/city {city}/born . \
            The/country country/answer of/name#2 {name}/country is/answer in/answer {answer}/^ .
        """,
        "{name}/has has/^ a/house house/has in/city {city}/house . "
        "The/country country/answer of/name#2 {name}/country is/answer in/answer {answer}/^ .",
    ),
}


def _two_hop(rng: random.Random, split: str, *, relation=None, country=None, template=None) -> Draft:
    relation = choose(rng, "relation", kind_of(template, relation), ("language", "language", "continent"))
    chosen = choose_template(rng, _TWO_HOP[relation], split, template)
    countries = lex.COUNTRIES_BY_SPLIT[split]
    country = choose(rng, "country", country, countries)
    name, other = pick(rng, lex.NAME_LIST), country
    while value(other, relation) == value(country, relation):
        other = pick(rng, countries)

    def fills(country):
        return {"name": name, "city": lex.COUNTRIES[country].capital, "answer": value(country, relation)}

    def labels(country):
        return {"relation": relation, "country": country, "city": lex.COUNTRIES[country].capital, "name": name,
                "value": value(country, relation)}  # fmt: skip

    return Draft(chosen, fills(country), labels(country), fills(other), labels(other))


TYPES = {
    "fact": Type(
        _fact, ("answer",), 0.06, FACT, [*lex.COUNTRY_NAMES, *lex.CAPITALS, *lex.LANGUAGES, *lex.CONTINENTS]
    ),
    "category": Type(
        _category, ("answer",), 0.05, _CATEGORY,
        [*CATEGORIES, *lex.GENDER_NOUNS.values(), *(e for kind in CATEGORIES.values() for e in kind)],
    ),
    "claim": Type(
        _claim, ("answer",), 0.22, _CLAIM, TRUTHS, "entities of which nothing is claimed (names, countries, ...)"
    ),
    "two_hop": Type(_two_hop, ("answer",), 0.03, _TWO_HOP, (), "countries"),
}  # fmt: skip
