"""Indirect objects: who was given what by whom."""

import random

from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import Draft, Group, Type, choose, choose_template, group, kind_of, pick

ORDERS = ("ABBA", "BABA")
_LATE = "It/late was/late late/^ ."
_LEADS = ("", _LATE, "Yesterday/@", "The/place_2 {place_2}/new was/new new/^ .")


def _gives(article: str, head: str = "^") -> str:
    return f"{{subject}}/gave {{gave}}/{head} {article}/object {{object}}/gave to/recipient {{recipient}}/gave ."


_A, _THE = _gives("a"), _gives("the")

INDIRECT_OBJECT: dict[str, Group] = {
    "one_pair": group(
        "one_pair",
        f"""
        When/went {{first_name}}/went and/second_name {{second_name}}/first_name went/gave to/place the/place \
            {{place}}/went ,/went {_A}
        After/met {{first_name}}/met and/second_name {{second_name}}/first_name met/gave at/place the/place \
            {{place}}/met ,/met {_A}
        While/place {{first_name}}/place and/second_name {{second_name}}/first_name were/place at/place the/place \
            {{place}}/gave ,/place {_THE}
        {{first_name}}/walked and/second_name {{second_name}}/first_name walked/^ to/place the/place {{place}}/walked \
            and/gave {_gives("a", "walked")}
        {{first_name}}/sat and/second_name {{second_name}}/first_name sat/^ in/place the/place {{place}}/sat . \
            Then/gave {_A}
        Because/late {{first_name}}/late and/second_name {{second_name}}/first_name were/late late/gave ,/late {_THE}
        {{first_name}}/met met/^ {{second_name}}/met at/place the/place {{place}}/met and/gave {_gives("the", "met")}
        {{first_name}}/there and/second_name {{second_name}}/first_name were/there there/^ ,/gave and/gave \
            {_gives("a", "there")}
        {{first_name}}/second_name was/second_name with/second_name {{second_name}}/^ in/place the/place \
            {{place}}/second_name . {_A}
        {{first_name}}/saw saw/^ {{second_name}}/saw near/place the/place {{place}}/saw . Then/gave {_THE}
        {{first_name}}/had had/^ a/talk long/talk talk/had with/second_name {{second_name}}/talk ,/gave and/gave \
            then/gave {_gives("the", "had")}
        In/place the/place {{place}}/waiting {{first_name}}/waiting was/waiting waiting/^ for/second_name \
            {{second_name}}/waiting . Later/gave {_A}
        """,
        f"""
        When/met {{first_name}}/met met/gave {{second_name}}/met at/place the/place {{place}}/met ,/met {_THE}
        {{first_name}}/went and/second_name {{second_name}}/first_name went/^ to/place the/place {{place}}/went . {_A}
        After/saw {{first_name}}/saw saw/gave {{second_name}}/saw ,/saw {_A}
        """,
        _LEADS,
    ),
    "bystander": group(  # somebody else is named
        "bystander",
        f"""
        {{bystander}}/stayed stayed/^ at/home home/stayed . {{first_name}}/went and/second_name \
            {{second_name}}/first_name went/^ to/place the/place {{place}}/went . Then/gave {_A}
        {{bystander}}/tired was/tired tired/^ . {{first_name}}/met met/^ {{second_name}}/met near/place the/place \
            {{place}}/met . {_THE}
        {{first_name}}/sat and/second_name {{second_name}}/first_name sat/^ in/place the/place {{place}}/sat . \
            {{bystander}}/tired was/tired tired/^ . Then/gave {_A}
        {{first_name}}/second_name was/second_name with/second_name {{second_name}}/^ in/place the/place \
            {{place}}/second_name . {{bystander}}/stayed stayed/^ at/home home/stayed . Later/gave {_THE}
        {{first_name}}/saw saw/^ {{second_name}}/saw . {{bystander}}/slept slept/^ . {_A}
        They/saw saw/^ {{bystander}}/saw . Then/walked {{first_name}}/walked walked/^ to/place the/place \
            {{place}}/walked with/second_name {{second_name}}/walked and/gave {_gives("the", "walked")}
        """,
        f"""
        {{bystander}}/slept slept/^ . When/went {{first_name}}/went and/second_name {{second_name}}/first_name \
            went/gave to/place the/place {{place}}/went ,/went {_A}
        {{first_name}}/saw saw/^ {{second_name}}/saw near/place the/place {{place}}/saw . \
            {{bystander}}/late was/late late/^ . Then/gave {_THE}
        """,
        ("", _LATE),
    ),
    "two_pairs": group(  # the recipient is the partner of the giver
        "two_pairs",
        f"""
        {{name_a}}/went#1 and/name_b {{name_b}}/name_a went/^ to/place the/place {{place}}/went#1 . \
            {{name_c}}/went#2 and/name_d {{name_d}}/name_c went/^ to/place_2 the/place_2 {{place_2}}/went#2 . \
            Then/gave {_A}
        {{name_a}}/met#1 met/^ {{name_b}}/met#1 at/place the/place {{place}}/met#1 ,/met#2 while/met#2 \
            {{name_c}}/met#2 met/met#1 {{name_d}}/met#2 at/place_2 the/place_2 {{place_2}}/met#2 . Later/gave {_THE}
        At/place the/place {{place}}/sat#1 {{name_a}}/sat#1 sat/^ with/name_b {{name_b}}/sat#1 . \
            {{name_c}}/sat#2 sat/^ with/name_d {{name_d}}/sat#2 . {_A}
        {{name_a}}/place and/name_b {{name_b}}/name_a were/place at/place the/place {{place}}/^ and/place_2 \
            {{name_c}}/place_2 and/name_d {{name_d}}/name_c were/place_2 at/place_2 the/place_2 {{place_2}}/place . \
            {_THE}
        {{name_a}}/saw#1 saw/^ {{name_b}}/saw#1 . {{name_c}}/saw#2 saw/^ {{name_d}}/saw#2 . Then/gave {_A}
        {{name_a}}/name_b was/name_b with/name_b {{name_b}}/^ in/place the/place {{place}}/name_b . \
            {{name_c}}/name_d was/name_d with/name_d {{name_d}}/^ there/name_d . Later/gave {_THE}
        """,
        f"""
        {{name_a}}/sat#1 and/name_b {{name_b}}/name_a sat/^ in/place the/place {{place}}/sat#1 . \
            {{name_c}}/sat#2 and/name_d {{name_d}}/name_c sat/^ in/place_2 the/place_2 {{place_2}}/sat#2 . {_THE}
        {{name_a}}/met#1 met/^ {{name_b}}/met#1 . {{name_c}}/met#2 met/^ {{name_d}}/met#2 . Then/gave {_A}
        """,
        ("", _LATE),
    ),
}
FORMS = tuple(INDIRECT_OBJECT)
_FORM_DRAWS = ("one_pair",) * 4 + ("bystander",) * 4 + ("two_pairs",) * 10


def _indirect_object(rng: random.Random, split: str, *, form=None, order=None, pair=None, template=None) -> Draft:
    form = choose(rng, "form", kind_of(template, form), _FORM_DRAWS if pair is None else ("two_pairs",))
    order = choose(rng, "order", order, ORDERS)
    pair = choose(rng, "pair", pair, (1, 2)) if form == "two_pairs" else 1
    chosen = choose_template(rng, INDIRECT_OBJECT[form], split, template)
    first, second, *others = rng.sample(lex.NAMES_BY_SPLIT[split], 4)
    io, s = (first, second) if order == "ABBA" else (second, first)
    place, place_2 = rng.sample(lex.PLACES, 2)
    shared = {
        "first_name": first,
        "second_name": second,
        "place": place,
        "place_2": place_2,
        "object": pick(rng, lex.OBJECTS),
        "gave": pick(rng, lex.GIVING),
        "bystander": others[0],
    }
    named = (first, second, *others) if pair == 1 else (*others, first, second)
    shared |= dict(zip(("name_a", "name_b", "name_c", "name_d"), named, strict=True))
    present = {"one_pair": (), "bystander": (others[0],), "two_pairs": tuple(others)}[form]

    def labels(io: str, s: str, order: str) -> dict[str, object]:
        return {
            "io": io, "s": s, "order": order, "form": form, "pair": pair, "others": present,
            "io_gender": lex.NAMES[io], "s_gender": lex.NAMES[s],
        }  # fmt: skip

    return Draft(
        chosen,
        shared | {"subject": s, "recipient": io},
        labels(io, s, order),
        shared | {"subject": io, "recipient": s},
        labels(s, io, ORDERS[order == "ABBA"]),
    )


TYPES = {
    "indirect_object": Type(
        _indirect_object, ("recipient",), 0.2, INDIRECT_OBJECT,
        [*lex.NAMES, *lex.PLACES, *lex.OBJECTS, *lex.GIVING], "names",
    )
}  # fmt: skip
