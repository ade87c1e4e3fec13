"""What a sentence of the toy language is, and how templates become sentences."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

BOS = "<bos>"
SPLITS = ("train", "held_out_templates", "held_out_words")


@dataclass(frozen=True)
class Sentence:
    """One sentence together with what is true of it.

    Every position counts in `tokens`, whose first is ``<bos>``, so a position indexes a model's activations directly.
    The model predicts the token at `answer_position` from position ``answer_position - 1``.
    `distractor` is the tempting wrong answer. `corrupted` is the paired sentence of equal length, made by changing as
    few words as will change the answer; its answer is the distractor. Both are None where the type has none (a
    corrupted sentence has no pair of its own).
    `heads` is the dependency tree where one is defined (fact, two_hop, person, indirect_object, agreement): for each
    token the position of its syntactic head, 0 for the root and for ``<bos>``. The trees follow Universal
    Dependencies: content words are heads, so "Paris" is the root of ``The capital of France is Paris .`` and "is"
    depends on it; the root of a second sentence depends on the first. Only in agreement the finite verb is always the
    root, whether it is a main verb or an auxiliary, so that the subject depends on the word that agrees with it.
    """

    type: str
    tokens: tuple[str, ...]
    roles: Mapping[str, int | tuple[int, ...]]
    labels: Mapping[str, object]
    answer_position: int
    answer: str
    distractor: str | None
    template: str
    heads: tuple[int, ...] | None = None
    corrupted: "Sentence | None" = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The words after ``<bos>``, joined by spaces: what `model.to_tokens` takes."""
        return " ".join(self.tokens[1:])

    @property
    def prompt(self) -> str:
        """The text up to, not including, the answer."""
        return " ".join(self.tokens[1 : self.answer_position])


class Template(NamedTuple):
    """Words and slots, e.g. ``The capital of {subject} is {answer} .``"""

    id: str
    text: str
    roles: Mapping[str, int | tuple[int, ...]]  # slot -> its position(s), <bos> counted
    heads: tuple[int, ...] | None = None


class Draft(NamedTuple):
    """A sentence before it is written out: cheap, because a corpus needs hundreds of thousands."""

    template: Template
    fills: Mapping[str, str]  # word for each slot
    labels: Mapping[str, object]
    pair_fills: Mapping[str, str] | None = None  # the slots of the paired sentence
    pair_labels: Mapping[str, object] | None = None
    distractor: str | None = None  # only for types without pairs; elsewhere it is the pair's answer


Group = dict[str, tuple[Template, ...]]  # split -> templates; words are held out from training templates


class Type(NamedTuple):
    """A type of sentence: a function that draws one, and what a corpus needs to know of it."""

    draw: Callable[..., Draft]
    answers: tuple[str, ...]  # slots that can be known from what stands before; the first one is the answer
    share: float  # of the sentences of a corpus
    templates: Mapping[str, Group]
    words: Sequence[str]  # all that can stand in a slot
    holds_out: str | None = None  # what its split "held_out_words" holds out

    @property
    def splits(self) -> tuple[str, ...]:
        has = {
            "train": True,
            "held_out_templates": any(group["held_out_templates"] for group in self.templates.values()),
            "held_out_words": self.holds_out is not None,
        }
        return tuple(split for split in SPLITS if has[split])


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# --- Templates ------------------------------------------------------------------------------------
#
# A word may name its syntactic head behind a slash: "The/capital capital/answer of/subject {subject}/capital
# is/answer {answer}/^ ." A head is a slot or a word of the template; of equal words "went#1" is the first, "went#2"
# the second. "^" marks the root of a sentence: the first one is the root of the tree, the others depend on it. A full
# stop needs no mark: it depends on the first root of its sentence. A lead ("Today/@", "We/know know/^") stands before
# a body and has heads of its own; "@" is the body's root. Without marks there is no tree.


def group(
    name: str, bodies: str | Sequence[str], held_out: str | Sequence[str] = (), leads: Sequence[str] = ("",)
) -> Group:
    """Every lead before every body (one per line or item), the training ones and those that no corpus contains."""

    def lines(text):
        return [line.strip() for line in text.strip().splitlines()] if isinstance(text, str) else list(text)

    def compiled(prefix, bodies):
        texts = [(lead, body) for lead in leads for body in lines(bodies)]
        return tuple(_compile(f"{prefix}/{i}", lead, body) for i, (lead, body) in enumerate(texts))

    return {
        "train": (train := compiled(name, bodies)),
        "held_out_templates": compiled(f"{name}/held_out", held_out),
        "held_out_words": train,
    }


def _compile(id: str, lead: str, body: str) -> Template:
    start = [_Word.of(w) for w in lead.split()]
    rest = [_Word.of(w) for w in body.split()]
    if start and start[-1].text != "." and not rest[0].is_slot:
        rest[0] = rest[0]._replace(text=rest[0].text[0].lower() + rest[0].text[1:])
    all_words = start + rest
    roles: dict[str, int | tuple[int, ...]] = {}
    for position, word in enumerate(all_words, 1):
        if word.is_slot:
            slot = word.text[1:-1]
            roles[slot] = (*_as_tuple(roles[slot]), position) if slot in roles else position
    return Template(id, " ".join(w.text for w in all_words), roles, _tree(start, rest))


class _Word(NamedTuple):
    text: str
    head: str | None

    @classmethod
    def of(cls, marked: str) -> "_Word":
        text, slash, head = marked.rpartition("/")
        return cls(text, head) if slash and text else cls(marked, None)

    @property
    def is_slot(self) -> bool:
        return self.text.startswith("{")


def _tree(lead: Sequence[_Word], body: Sequence[_Word]) -> tuple[int, ...] | None:
    """The position of each token's head, ``<bos>`` counted; None where words are not marked."""
    if any(word.head is None and word.text != "." for word in [*lead, *body]):
        return None
    roots = [i for i, word in enumerate([*lead, *body], 1) if word.head == "^"]
    body_root = next(i for i in roots if i > len(lead))
    heads = [0]
    start = 1  # of the sentence
    for part, offset in ((lead, 0), (body, len(lead))):
        for i, word in enumerate(part, offset + 1):
            if word.head is None:
                heads.append(next(root for root in roots if root >= start))
                start = i + 1
            elif word.head == "^":
                heads.append(0 if i == roots[0] else roots[0])
            else:
                heads.append(body_root if word.head == "@" else offset + _position(part, word.head))
    return tuple(heads)


def _position(part: Sequence[_Word], head: str) -> int:
    """Where the head that a word names stands: 1 for the first word of the lead or body."""
    name, _, number = head.partition("#")
    places = [i for i, word in enumerate(part, 1) if word.text.strip("{}").lower() == name.lower()]
    if len(places) < int(number or 1) or (len(places) > 1 and not number):
        text = " ".join(word.text for word in part)
        raise ValueError(f"template {text!r}: the head {head!r} stands {len(places)} times")
    return places[int(number or 1) - 1]


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


# --- Choosing, with errors that name the argument -------------------------------------------------


def check_choice(name: str, value: object, allowed: Sequence[object] | Mapping) -> None:
    if value not in tuple(allowed):
        shown = [repr(a) for a in dict.fromkeys(allowed)]
        expected = ", ".join(shown if len(shown) <= 80 else [*shown[:8], "...", *shown[-2:]])
        raise ValueError(f"{name}: got {value!r}, expected one of {expected}")


def check_integer(name: str, value: object, least: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), expected an integer")
    if least is not None and value < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")


def choose(rng: random.Random, name: str, value: object, allowed: Sequence) -> object:
    """`value` where one is given (checked), else one drawn from `allowed`."""
    if value is None:
        return pick(rng, allowed)
    check_choice(name, value, allowed)
    return value


def pick(rng: random.Random, items: Sequence) -> object:
    """One of `items`; quicker than `rng.choice`."""
    return items[int(rng.random() * len(items))]


def choose_template(rng: random.Random, group: Group, split: str, id: str | None) -> Template:
    templates = group[split]
    if id is None:
        return pick(rng, templates)
    by_id = {template.id: template for template in templates}
    check_choice("template", id, by_id)
    return by_id[id]


def kind_of(template: object, kind: object) -> object:
    """The form or relation to draw: the one given, else the one named by a template's id, else None."""
    return str(template).split("/")[0] if kind is None and template is not None else kind


def by_split(words: Sequence[str], every: int = 5) -> dict[str, tuple[str, ...]]:
    """Words by split: every fifth (the third, the eighth ...) is held out."""
    kept = tuple(w for i, w in enumerate(words) if i % every != 2)
    return {"train": kept, "held_out_templates": kept, "held_out_words": tuple(words[2::every])}


def literal_words(groups: Mapping[str, Group]) -> set[str]:
    """The words of the templates that are not slots."""
    texts = (template.text for group in groups.values() for split in SPLITS for template in group[split])
    return {word for text in texts for word in re.sub(r"{\w+}", "", text).split()}
