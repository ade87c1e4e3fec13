"""Right and wrong answers to every exercise, one module per chapter, named as its check module.

A wrong answer says which words its message must contain; a right one is written differently from
the solution. `tests/test_mutants.py` runs them all, and adds for every exercise the untouched stub
and a few damages that need no thought (None, NaN, a lost axis, inputs written over).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MUTANTS: list[Mutant] = []


@dataclass(frozen=True)
class Mutant:
    """An answer to an exercise and how the check has to judge it."""

    exercise: str
    answer: Callable
    says: str | None  # words of the message for a wrong answer; None marks a right one

    @property
    def label(self) -> str:
        return f"{self.exercise}-{'right' if self.says is None else 'wrong'}-{self.answer.__name__}"


def wrong(exercise: str, says: str) -> Callable:
    """Register a wrong answer whose message must contain ``says``."""

    def register(answer: Callable) -> Callable:
        MUTANTS.append(Mutant(exercise, answer, says))
        return answer

    return register


def right(exercise: str) -> Callable:
    """Register a right answer, written another way than the solution."""

    def register(answer: Callable) -> Callable:
        MUTANTS.append(Mutant(exercise, answer, None))
        return answer

    return register
