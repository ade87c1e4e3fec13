"""Two hundred and ten invented people, named by a first name and a surname, and what is so of each."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import (
    Draft,
    Type,
    check_choice,
    choose,
    choose_template,
    group,
    kind_of,
    pick,
    words,
)

_FIRST_NAMES = {
    "female": words("Ava Ella Iris Lily Rosa Vera Wanda"),
    "male": words("Alan Carl Dean Eric Frank Glen Kurt"),
}
_SURNAMES = words("Stone Hill Reed Marsh Frost Lake Wood Cole Nash Ward Hale Finch Bell Moss Dale")
RELATIONS: Mapping[str, Sequence[str]] = {
    "job": lex.JOBS,
    "city": lex.CITIES,
    "sport": lex.SPORTS,
    "drink": lex.DRINKS,
    "team": lex.TEAMS,
}


@dataclass(frozen=True)
class Person:
    """An invented person. Nothing follows from the name but the gender: the rest was drawn at random, once."""

    first_name: str
    surname: str
    gender: str
    job: str
    city: str
    sport: str
    drink: str
    team: str


def _people() -> dict[str, Person]:
    rng = random.Random("people")
    return {
        f"{first} {surname}": Person(first, surname, gender, *(rng.choice(values) for values in RELATIONS.values()))
        for gender, first_names in _FIRST_NAMES.items()
        for first in first_names
        for surname in _SURNAMES
    }


PEOPLE: Mapping[str, Person] = _people()
_NAMES = tuple(PEOPLE)
# Spoken of more often: a model that is still guessing gets something to hold on to.
_FAMOUS = tuple(
    name for name, p in PEOPLE.items()
    if p.surname in _SURNAMES[:6] and p.first_name in _FIRST_NAMES["female"][:3] + _FIRST_NAMES["male"][:3]
)  # fmt: skip

# Three words or more between the name and the answer.
_PERSON = {
    "job": group(
        "job",
        """
        {first_name}/works {surname}/first_name works/^ as/answer a/answer {answer}/works .
        {first_name}/earns {surname}/first_name earns/^ money/earns as/answer a/answer {answer}/earns .
        {first_name}/trained {surname}/first_name has/trained trained/^ as/answer a/answer {answer}/trained .
        The/job job/that of/first_name {first_name}/job {surname}/first_name is/that that/^ \
            of/answer a/answer {answer}/that .
        {first_name}/known {surname}/first_name is/known known/^ as/answer a/answer {answer}/known .
        """,
        "{first_name}/earns {surname}/first_name earns/^ money/earns with/job the/job job/earns of/answer "
        "a/answer {answer}/job .",
    ),
    "city": group(
        "city",
        """
        {first_name}/lives {surname}/first_name lives/^ in/city the/city city/lives of/answer {answer}/city .
        {first_name}/has {surname}/first_name has/^ a/house house/has in/answer {answer}/house .
        {first_name}/moved {surname}/first_name moved/^ long/ago ago/moved to/answer {answer}/moved .
        The/home home/answer of/first_name {first_name}/home {surname}/first_name is/answer in/answer {answer}/^ .
        """,
        "The/home home/city of/first_name {first_name}/home {surname}/first_name is/city in/city the/city city/^ "
        "of/answer {answer}/city .",
    ),
    "sport": group(
        "sport",
        """
        {first_name}/good {surname}/first_name is/good good/^ at/answer {answer}/good .
        {first_name}/spends {surname}/first_name spends/^ every/Sunday Sunday/spends on/answer {answer}/spends .
        {first_name}/wins {surname}/first_name wins/^ prizes/wins in/answer {answer}/wins .
        The/sport sport/called of/first_name {first_name}/sport {surname}/first_name is/called called/^ \
            {answer}/called .
        """,
        "{first_name}/wins {surname}/first_name always/wins wins/^ prizes/wins in/answer {answer}/wins .",
    ),
    "drink": group(
        "drink",
        """
        {first_name}/asks {surname}/first_name always/asks asks/^ for/answer {answer}/asks .
        {first_name}/drinks {surname}/first_name drinks/^ nothing/drinks but/answer {answer}/nothing .
        {first_name}/orders {surname}/first_name orders/^ a/cup cup/orders of/answer {answer}/cup .
        The/drink drink/called of/first_name {first_name}/drink {surname}/first_name is/called called/^ \
            {answer}/called .
        """,
        "{first_name}/drinks {surname}/first_name drinks/^ a/cup cup/drinks of/answer {answer}/cup .",
    ),
    "team": group(
        "team",
        """
        {first_name}/plays {surname}/first_name plays/^ for/answer the/answer {answer}/plays .
        {first_name}/member {surname}/first_name is/member a/member member/^ of/answer the/answer {answer}/member .
        {first_name}/wears {surname}/first_name wears/^ the/shirt shirt/wears of/answer the/answer {answer}/shirt .
        The/team team/that of/first_name {first_name}/team {surname}/first_name is/that that/^ \
            of/answer the/answer {answer}/that .
        """,
        "{first_name}/plays {surname}/first_name plays/^ in/team the/team team/plays of/answer the/answer "
        "{answer}/team .",
    ),
}


def _person_fills(name: str, relation: str) -> dict[str, str]:
    person = PEOPLE[name]
    return {"first_name": person.first_name, "surname": person.surname, "answer": getattr(person, relation)}


def _person_labels(name: str, relation: str) -> dict[str, str]:
    person = PEOPLE[name]
    return {"person": name, "relation": relation, "value": getattr(person, relation), "gender": person.gender}


def _pick_person(rng: random.Random) -> str:
    return pick(rng, _FAMOUS if rng.random() < 0.35 else _NAMES)


def _differ(a: Person, b: Person, relation: str) -> bool:
    """Whether two people share neither name nor answer."""
    return a.first_name != b.first_name and a.surname != b.surname and getattr(a, relation) != getattr(b, relation)


def _person(rng: random.Random, split: str, *, relation=None, person=None, template=None) -> Draft:
    relation = choose(rng, "relation", kind_of(template, relation), tuple(RELATIONS))
    chosen = choose_template(rng, _PERSON[relation], split, template)
    if person is not None:
        check_choice("person", person, PEOPLE)
    name = person or _pick_person(rng)
    one, other = PEOPLE[name], pick(rng, _NAMES)
    while not _differ(one, PEOPLE[other], relation):
        other = pick(rng, _NAMES)
    return Draft(
        chosen, _person_fills(name, relation), _person_labels(name, relation),
        _person_fills(other, relation), _person_labels(other, relation),
    )  # fmt: skip


# --- Registers ------------------------------------------------------------------------------------

# What is so of a person right behind the name, in any order: a reason to know it there.
_REGISTER = {
    "register": group(
        "register",
        [
            " ".join(["Register : {first_name} {surname}", *(f"{{value_{i}}}" for i in range(1, n + 1)), "."])
            for n in (2, 3, 4)
        ],
    )
}


def _register(rng: random.Random, split: str, *, person=None, template=None) -> Draft:
    chosen = choose_template(rng, _REGISTER["register"], split, template)
    if person is not None:
        check_choice("person", person, PEOPLE)
    name = person or _pick_person(rng)
    n = len(chosen.roles) - 2
    relations = rng.sample(tuple(RELATIONS), n)
    fills = _person_fills(name, relations[0])
    fills |= {f"value_{i}": getattr(PEOPLE[name], relation) for i, relation in enumerate(relations, 1)}
    return Draft(chosen, fills, {"person": name, "relations": tuple(relations), "gender": PEOPLE[name].gender})


TYPES = {
    "person": Type(
        _person, ("answer",), 0.14, _PERSON,
        [w for values in (*_FIRST_NAMES.values(), _SURNAMES, *RELATIONS.values()) for w in values],
    ),
    "register": Type(_register, ("value_1", "value_2", "value_3", "value_4"), 0.08, _REGISTER, ()),
}  # fmt: skip
