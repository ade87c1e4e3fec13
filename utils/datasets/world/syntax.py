"""Agreement of subject and verb, and pronouns."""

import random

from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import Draft, Group, Type, choose, choose_template, group, kind_of, pick

# --- Agreement ------------------------------------------------------------------------------------

_LEADS = ("", "Everyone/says says/^", "Near/place the/place {place}/@", "We/know know/^")
_HELD_OUT_LEADS = ("Today/@", "People/know know/^")


def _agreement_group(form: str, middle: str) -> Group:
    body = f"The/subject {{subject}}/verb {middle} {{verb}}/^ {{tail}}/verb ."
    train, held_out = group(form, [body], leads=_LEADS), group(f"{form}/held_out", [body], leads=_HELD_OUT_LEADS)
    return train | {"held_out_templates": held_out["train"]}


AGREEMENT: dict[str, Group] = {
    "simple": _agreement_group("simple", ""),
    "pp": _agreement_group("pp", "{preposition}/attractor the/attractor {attractor}/subject"),
    "two_pps": _agreement_group(
        "two_pps",
        "{preposition}/first_attractor the/first_attractor {first_attractor}/subject "
        "{preposition_2}/attractor the/attractor {attractor}/first_attractor",
    ),
    "object_relative": _agreement_group(
        "object_relative", "that/inner_verb the/attractor {attractor}/inner_verb {inner_verb}/subject"
    ),
    "subject_relative": _agreement_group(
        "subject_relative", "that/inner_verb {inner_verb}/subject the/attractor {attractor}/inner_verb"
    ),
}
FORMS = tuple(AGREEMENT)
_VERB_DRAWS = tuple(lex.VERBS)[:3] * 3 + tuple(lex.VERBS)[3:]  # the auxiliaries are 60 % of all verbs
_ALL_NOUNS = tuple(range(len(lex.NOUNS["singular"])))


def _agreement(
    rng: random.Random, split: str, *, form=None, number=None, attractor_number=None, template=None
) -> Draft:
    form = choose(rng, "form", kind_of(template, form), FORMS)
    number = choose(rng, "number", number, lex.NUMBERS)
    attractor_number = choose(rng, "attractor_number", attractor_number, lex.NUMBERS)
    chosen = choose_template(rng, AGREEMENT[form], split, template)
    subject = attractor = first_attractor = pick(rng, lex.NOUNS_BY_SPLIT[split])
    while attractor == subject:
        attractor = pick(rng, _ALL_NOUNS)
    while first_attractor in (subject, attractor):
        first_attractor = pick(rng, _ALL_NOUNS)
    verb, inner_verb = pick(rng, _VERB_DRAWS), pick(rng, lex.INNER_VERBS)
    shared = {
        "attractor": lex.NOUNS[attractor_number][attractor],
        "first_attractor": lex.NOUNS[attractor_number][first_attractor],
        "preposition": pick(rng, lex.PREPOSITIONS),
        "preposition_2": pick(rng, lex.PREPOSITIONS),
        "tail": pick(rng, lex.VERBS[verb]),
        "place": pick(rng, lex.PLACES),
    }

    def fills(n: str) -> dict[str, str]:
        inner = attractor_number if form == "object_relative" else n
        return shared | {
            "subject": lex.NOUNS[n][subject],
            "verb": verb[lex.FORM_OF[n]],
            "inner_verb": inner_verb[lex.FORM_OF[inner]],
        }

    def labels(n: str) -> dict[str, str | None]:
        shown = None if form == "simple" else attractor_number
        return {"number": n, "attractor_number": shown, "form": form}

    flipped = lex.FLIPPED[number]
    return Draft(chosen, fills(number), labels(number), fills(flipped), labels(flipped))


# --- Pronouns -------------------------------------------------------------------------------------

_PRONOUN = {
    "subject": group(  # the pronoun stands for the only person so far, or for the last one who did something
        "subject",
        """
        {antecedent} found a {object} in the {place} . {answer} took the {object} home .
        {antecedent} was in the {place} . {answer} had a {object} .
        {antecedent} met {other} at the {place} . Then {other} slept , but {antecedent} was late . \
            {answer} took the {object} .
        """,
        "{antecedent} was in the {place} . {answer} found a {object} .",
    ),
    "because": group(
        "because",
        """
        {other} lost the {object} . {antecedent} looked for the {object} in the {place} because {answer} wanted \
            to help {other} .
        {antecedent} went to the {place} because {answer} wanted a {object} .
        {other} was in the {place} . {antecedent} {gave} a {object} to {other} because {answer} was late .
        """,
        "{antecedent} walked to the {place} because {answer} wanted a {object} .",
    ),
}


def _pronoun(rng: random.Random, split: str, *, form=None, gender=None, template=None) -> Draft:
    form = choose(rng, "form", kind_of(template, form), tuple(_PRONOUN))
    gender = choose(rng, "gender", gender, lex.GENDERS)
    chosen = choose_template(rng, _PRONOUN[form], split, template)
    names = lex.NAMES_BY_GENDER[split]
    flipped = lex.GENDERS[gender == lex.GENDERS[0]]
    by_gender = {g: pick(rng, names[g]) for g in lex.GENDERS}
    other = by_gender[gender]
    while other in by_gender.values():
        other = pick(rng, lex.NAMES_BY_SPLIT[split])
    shared = {
        "object": pick(rng, lex.OBJECTS),
        "place": pick(rng, lex.PLACES),
        "gave": pick(rng, lex.GIVING),
        "other": other,
    }

    def fills(g: str) -> dict[str, str]:
        return shared | {"antecedent": by_gender[g], "answer": lex.PRONOUNS[g][form == "because"]}

    def labels(g: str) -> dict[str, str | None]:
        shown = lex.NAMES[other] if "other" in chosen.roles else None
        return {"gender": g, "antecedent": by_gender[g], "other_gender": shown, "form": form}

    return Draft(chosen, fills(gender), labels(gender), fills(flipped), labels(flipped))


def _flat(pairs) -> tuple[str, ...]:
    return tuple(word for pair in pairs for word in pair)


TYPES = {
    "agreement": Type(
        _agreement, ("verb",), 0.06, AGREEMENT,
        [
            *_flat(lex.NOUNS.values()), *_flat(lex.VERBS), *_flat(lex.VERBS.values()), *_flat(lex.INNER_VERBS),
            *lex.PREPOSITIONS, *lex.PLACES,
        ],
        "nouns, which stand elsewhere only as attractors",
    ),
    "pronoun": Type(
        _pronoun, ("answer",), 0.04, _PRONOUN,
        [*lex.NAMES, *lex.OBJECTS, *lex.PLACES, *lex.GIVING, *_flat(lex.PRONOUNS.values())],
        "names, which stand elsewhere with their gender",
    ),
}  # fmt: skip
