"""Arithmetic in words, years and counting."""

import random

from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import (
    SPLITS,
    Draft,
    Type,
    check_choice,
    check_integer,
    choose,
    choose_template,
    group,
    pick,
    words,
)

_WORDS = lex.NUMBERS_IN_WORDS
TWO_DIGITS = tuple(f"{i:02d}" for i in range(100))
_EVENTS = words("war strike project journey festival siege drought reign voyage trial")

# --- Arithmetic -----------------------------------------------------------------------------------

OPERATIONS = ("plus", "minus")
_ARITHMETIC = {
    "arithmetic": group(
        "arithmetic",
        "{first} {operation} {second} equals {answer} .\nThe number {first} {operation} {second} is {answer} .",
        "The number {first} {operation} {second} equals {answer} .",
    )
}


def _problems(held_out: bool) -> tuple[tuple[int, int, str], ...]:
    every = [(a, b, "plus") for a in range(10) for b in range(10)]
    every += [(a, b, "minus") for a in range(19) for b in range(10) if 0 <= a - b < 10]
    return tuple(p for p in every if ((p[0] + 2 * p[1]) % 7 == 2) == held_out)


_PROBLEMS = {
    split: {
        operation: tuple(p for p in _problems(split == "held_out_words") if p[2] == operation)
        for operation in OPERATIONS
    }
    for split in SPLITS
}


def _solved(problem: tuple[int, int, str]) -> int:
    first, second, operation = problem
    return first + second if operation == "plus" else first - second


def _arithmetic(rng: random.Random, split: str, *, operation=None, template=None) -> Draft:
    chosen = choose_template(rng, _ARITHMETIC["arithmetic"], split, template)
    operation = choose(rng, "operation", operation, OPERATIONS)
    problem = other = pick(rng, _PROBLEMS[split][operation])
    while _solved(other) == _solved(problem):
        other = pick(rng, _PROBLEMS[split][operation])

    def fills(p):
        return {"first": _WORDS[p[0]], "second": _WORDS[p[1]], "operation": p[2], "answer": _WORDS[_solved(p)]}

    def labels(p):
        return {"first": p[0], "second": p[1], "operation": p[2], "value": _solved(p)}

    return Draft(chosen, fills(problem), labels(problem), fills(other), labels(other))


# --- Years ----------------------------------------------------------------------------------------

_GREATER_THAN = {
    "greater_than": group(
        "greater_than",
        """
        The {event} lasted from the year {century} {start} to the year {century} {answer} .
        The {event} began in {century} {start} and ended in {century} {answer} .
        From {century} {start} to {century} {answer} there was a {event} .
        """,
        "The {event} lasted from {century} {start} to {century} {answer} .",
    )
}
_STARTS = {
    split: tuple(y for y in range(2, 98) if (y % 10 == 4) == (split == "held_out_words")) for split in SPLITS
}  # the last answer with a pair is 98


def _greater_than(rng: random.Random, split: str, *, start=None, template=None) -> Draft:
    chosen = choose_template(rng, _GREATER_THAN["greater_than"], split, template)
    if start is not None:
        check_integer("start", start)
    start = choose(rng, "start", start, _STARTS[split])
    end = start + 1 + int(rng.random() * (98 - start))
    later = end + int(rng.random() * (99 - end))  # the pair begins when this one has ended
    latest = later + 1 + int(rng.random() * (99 - later))
    century = 11 + int(rng.random() * 10)

    def fills(start: int, end: int) -> dict[str, str]:
        return {"event": event, "century": TWO_DIGITS[century], "start": TWO_DIGITS[start], "answer": TWO_DIGITS[end]}

    event = pick(rng, _EVENTS)
    return Draft(
        chosen, fills(start, end), {"start": start, "century": century}, fills(later, latest),
        {"start": later, "century": century}, distractor=TWO_DIGITS[int(rng.random() * (start + 1))],
    )  # fmt: skip


# --- Counting -------------------------------------------------------------------------------------

_MOST_VALUES = 8  # before the answer
_COUNT = {
    "count": group(
        "count",
        [
            " ".join(["Count :", *(f"{{value_{i}}}" for i in range(n)), "{answer} ."])
            for n in range(3, _MOST_VALUES + 1)
        ],
    )
}


def _count(rng: random.Random, split: str, *, start=None, template=None) -> Draft:
    chosen = choose_template(rng, _COUNT["count"], split, template)
    n = len(chosen.roles)
    if start is not None:
        check_integer("start", start)
        check_choice("start", start, range(100 - _MOST_VALUES))  # every template has room
    starts = tuple(range(101 - n))
    start = other = choose(rng, "start", start, starts)
    while other == start:
        other = pick(rng, starts)

    def fills(start: int) -> dict[str, str]:
        return {f"value_{i}": TWO_DIGITS[start + i] for i in range(n - 1)} | {"answer": TWO_DIGITS[start + n - 1]}

    return Draft(chosen, fills(start), {"start": start}, fills(other), {"start": other})


TYPES = {
    "arithmetic": Type(
        _arithmetic, ("answer",), 0.06, _ARITHMETIC, [*_WORDS, *OPERATIONS], "pairs of numbers with their operation"
    ),
    "greater_than": Type(_greater_than, ("answer",), 0.05, _GREATER_THAN, [*_EVENTS, *TWO_DIGITS], "first years"),
    "count": Type(_count, ("answer", *(f"value_{i}" for i in range(1, 8))), 0.01, _COUNT, ()),
}  # fmt: skip
