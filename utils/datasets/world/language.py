"""The language as a whole: its types, its vocabulary, sentences, the corpus and the tokenizer."""

import inspect
import random
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from utils.datasets.world import facts, giving, numbers, opinions, people, requests, syntax
from utils.datasets.world import lexicon as lex
from utils.datasets.world.core import (
    BOS,
    Draft,
    Sentence,
    Template,
    Type,
    check_choice,
    check_integer,
    literal_words,
    pick,
    words,
)

SPECIAL = ("<pad>", BOS, "<unk>", "<eos>")
REPEAT_SHARE = 0.15  # share of the rows of a corpus that hold repeated random words
PERIODS = range(4, 25)


def _repeat(rng: random.Random, split: str, *, period=None, length: int = 63) -> Draft:
    if period is not None:
        check_integer("period", period)
        check_choice("period", period, PERIODS)
    check_integer("length", length, least=2 * (period or PERIODS[0]))
    if period is None:
        period = pick(rng, [p for p in PERIODS if 2 * p <= length])
    once = rng.sample(_ALL_WORDS, period)
    repeated = (once * (length // period + 1))[:length]
    roles = {
        "first_copy": tuple(range(1, period + 1)),
        "second_copy": tuple(range(period + 1, 2 * period + 1)),
        "answer": length,
    }
    return Draft(Template("repeat", " ".join(repeated), roles), {}, {"period": period})


_TABLE: dict[str, Type] = {
    **facts.TYPES,
    **people.TYPES,
    **syntax.TYPES,
    **giving.TYPES,
    **opinions.TYPES,
    **requests.TYPES,
    **numbers.TYPES,
    "repeat": Type(_repeat, ("answer",), 0.0, {}, ()),
}
TYPES: tuple[str, ...] = tuple(_TABLE)
_ALL_WORDS: tuple[str, ...] = tuple(
    sorted(set().union(*(literal_words(type.templates) | set(type.words) for type in _TABLE.values())))
)
VOCABULARY: tuple[str, ...] = SPECIAL + _ALL_WORDS
_ID = {word: i for i, word in enumerate(VOCABULARY)}


# --- Sentences ------------------------------------------------------------------------------------


def _written(type: str, draft: Draft) -> Sentence:
    template, answer_slot = draft.template, _TABLE[type].answers[0]
    answer_position = template.roles[answer_slot]

    def write(fills, labels, distractor=None, corrupted=None) -> Sentence:
        tokens = (BOS, *words(template.text.format_map(fills)))
        return Sentence(
            type=type, tokens=tokens, roles=dict(template.roles), labels=labels, answer_position=answer_position,
            answer=tokens[answer_position], distractor=distractor, template=template.id, heads=template.heads,
            corrupted=corrupted,
        )  # fmt: skip

    if draft.pair_fills is None:
        return write(draft.fills, draft.labels, draft.distractor)
    corrupted = write(draft.pair_fills, draft.pair_labels, distractor=draft.fills[answer_slot])
    return write(draft.fills, draft.labels, draft.distractor or draft.pair_fills[answer_slot], corrupted)


def _allowed_keywords(draw: Callable) -> list[str]:
    parameters = inspect.signature(draw).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def sentences(
    type: str, n: int, seed: int = 0, split: str = "train", distinct: bool = False, **fixed: object
) -> list[Sentence]:
    """`n` sentences of one type, drawn at random with replacement (a small type repeats itself).

    `split` is "train", or one of two ways to ask what was learned (`splits(type)` tells which a type has):

    - "held_out_templates": templates that no corpus contains, made of words that it does contain ("Tell" and
      "explain" only among repeated words). What they say of the world is in the corpus.
    - "held_out_words": training templates about something of which this type never speaks in a corpus, while other
      types do.

    `distinct` leaves out sentences that were drawn before. `fixed` holds some choices fast; labels have the same
    names. T marks the types with held-out templates, W those with held-out words, and which:

    - fact (T). Fixed: `relation` ("capital", "language", "continent", "capital_of"), `country`. Labels: these, `value`
      (the answer). Roles: `subject` (what is asked about: the country, or the capital in "capital_of"), `answer`.
      Pair: another country with another answer.
    - category (T). Fixed: `relation` ("category", "gender"). Labels: this, `entity`, `value` (the answer). Roles:
      `subject` (the entity), `answer`. Pair: an entity with another value.
    - claim (T; W: entities, `NEVER_CLAIMED`). Fixed: `relation` ("category", "gender", "continent"), `truth` ("true",
      "false": the answer). Labels: these, `entity`, `claimed` (its value as the claim has it), `value` (as it is).
      Roles: `subject`, `claimed`, `answer`. Pair: an entity for which the same claim is not as true.
    - two_hop (T; W: countries). Fixed: `relation` ("language", "continent"), `country` (not mentioned). Labels: these,
      `city`, `name`, `value` (the answer). Roles: `name`, `city`, `answer`. Pair: a city with another answer.
    - person (T). Fixed: `relation` ("job", "city", "sport", "drink", "team"), `person` (a key of `PEOPLE`). Labels:
      these, `value` (the answer), `gender`. Roles: `first_name`, `surname`, `answer`. Pair: a person with neither name
      nor the answer in common.
    - register. Fixed: `person`. Labels: this, `relations` (in the order of the values), `gender`. Roles: `first_name`,
      `surname`, `value_1` (the answer) to `value_4`. No pair, no distractor.
    - agreement (T; W: subjects). Fixed: `form` ("simple", "pp", "two_pps", "object_relative", "subject_relative"),
      `number`, `attractor_number` ("singular", "plural"). Labels: these (`attractor_number` None in a simple
      sentence, also where it is fixed). Roles: `subject`, `verb` (the answer), `tail`; `attractor` (the noun nearest
      to the verb), `first_attractor`, `inner_verb`, `preposition`, `preposition_2`, `place` where they occur. Pair:
      the subject in the other number.
    - pronoun (T; W: names). Fixed: `form` ("subject", "because"), `gender` ("female", "male"). Labels: these,
      `antecedent`, `other_gender` (None where nobody else is named). Roles: `antecedent`, `answer`; `other`, `object`,
      `place`, `gave` where they occur. Pair: an antecedent of the other gender.
    - indirect_object (T; W: names). Fixed: `form` ("one_pair", "bystander", "two_pairs"), `order` ("ABBA": of the two,
      the recipient is named first; "BABA"), `pair` (1, 2: which of two pairs acts; fixes the form). Labels: these,
      `io` (the recipient, the answer), `s` (the giver), `others` (the other names), `io_gender`, `s_gender`. Roles:
      `subject` (the giver where the name is repeated), `gave`, `object`, `recipient`; `first_name` and `second_name`,
      or `name_a` to `name_d` of two pairs; `bystander`, `place`, `place_2` where they occur. Pair: the two exchanged
      in the giving clause.
    - review (T; W: adjectives). Fixed: `form` ("plain", "verb", "negation", "contrast"), `sentiment` ("positive",
      "negative": the answer). Labels: these. Roles: `adjective`, `adjective_2`, `verb` (of the review's sentiment),
      `opposite` (of the other one: negated or outweighed), `item`, `part`, `part_2` where they occur; `answer`. Pair:
      these words of the opposite sentiment.
    - feeling (T). Fixed: `sentiment`. Labels: this. Roles: `item`, `adjective`, `name`, `answer` ("smiled",
      "frowned"). Pair: an adjective of the opposite sentiment.
    - request (T; W: pairs of verb and thing). Fixed: `harm` ("harmless", "harmful"). Labels: this. Roles: `verb`,
      `thing`, `answer` ("Sure", "Sorry"), `reply` (its first word). Pair: a verb of the other kind.
    - arithmetic (T; W: problems). Fixed: `operation` ("plus", "minus"). Labels: this, `first`, `second`, `value`
      (integers). Roles: `first`, `operation`, `second`, `answer`. Pair: a problem with another result.
    - greater_than (T; W: first years). Fixed: `start` (2 to 97; those that end in 4 are held out). Labels: this,
      `century` (integers). Roles: `event`, `century` (twice), `start`, `answer`. Every year after the start is right:
      the answer is one of them, the distractor a year not after the start. Pair: a start not before the answer, which
      is the pair's distractor.
    - count. Fixed: `start` (0 to 91). Labels: this. Roles: `value_0` (the start), `value_1` ..., `answer`. Pair:
      another start.
    - repeat. Fixed: `period` (4 to 24), `length` (words; default 63, which with ``<bos>`` fills a context of 64).
      Labels: `period`. Roles: `first_copy`, `second_copy` (tuples of positions), `answer` (the last word). No pair, no
      distractor.

    A role whose word stands several times has a tuple of positions. All but repeat also take `template`, an id as in
    `Sentence.template`.

    The same arguments give the same sentences. Raises ValueError for an unknown type, keyword or value, for a split
    that the type does not have, for ``n < 1`` and for more distinct sentences than there are; TypeError where an
    argument that counts is not an integer.
    """
    check_choice("type", type, TYPES)
    check_choice(f"split for type {type!r}", split, _TABLE[type].splits)
    check_integer("n", n, least=1)
    check_integer("seed", seed)
    draw = _TABLE[type].draw
    for keyword in fixed:
        check_choice(f"keyword for type {type!r}", keyword, _allowed_keywords(draw))
    if fixed.get("template") is not None:
        groups = _TABLE[type].templates.values()
        check_choice("template", fixed["template"], [template.id for group in groups for template in group[split]])
    rng = random.Random(f"{type}/{split}/{seed}")
    if not distinct:
        return [_written(type, draw(rng, split, **fixed)) for _ in range(n)]
    found: dict[tuple[str, ...], Sentence] = {}
    misses = 0
    while len(found) < n:
        sentence = _written(type, draw(rng, split, **fixed))
        misses = misses + 1 if sentence.tokens in found else 0
        found.setdefault(sentence.tokens, sentence)
        if misses > 50 * len(found) + 1000:
            chosen = "".join(f", {keyword}={value!r}" for keyword, value in fixed.items())
            raise ValueError(
                f"n: got {n}, but type {type!r} has only {len(found)} distinct sentences in split {split!r}{chosen}"
            )
    return list(found.values())


def splits(type: str) -> tuple[str, ...]:
    """The splits that a type has. Raises ValueError for an unknown type."""
    check_choice("type", type, TYPES)
    return _TABLE[type].splits


def fact(country: str, relation: str = "capital", template: int = 0) -> Sentence:
    """One given fact, e.g. ``The capital of France is Paris .``; `template` counts the relation's training templates.

    The corrupted sentence has the next country in `COUNTRIES` with another answer (France: Italy).
    Raises ValueError for an unknown country, relation or template number.
    """
    check_choice("country", country, lex.COUNTRIES)
    check_choice("relation", relation, facts.FACT)
    templates = facts.FACT[relation]["train"]
    check_choice("template", template, range(len(templates)))
    start = lex.COUNTRY_NAMES.index(country)
    following = lex.COUNTRY_NAMES[start + 1 :] + lex.COUNTRY_NAMES[:start]
    answer = facts.value(country, relation)
    other = next(c for c in following if facts.value(c, relation) != answer)
    return _written("fact", facts.fact_draft(templates[template], relation, country, other))


# --- The corpus -----------------------------------------------------------------------------------


class Corpus(NamedTuple):
    """Training rows, and which of their tokens can be known from what stands before them."""

    rows: np.ndarray  # int16 [n_rows, n_ctx]
    is_answer: np.ndarray  # bool [n_rows, n_ctx]; nothing is marked in rows of repeated words


def corpus(n_rows: int, n_ctx: int = 64, seed: int = 0) -> Corpus:
    """Training rows of token ids, each with ``<bos>`` in front.

    `REPEAT_SHARE` of them hold repeated random words; the others are filled with sentences of training templates, the
    last one cut off. Raises ValueError for ``n_rows < 1`` or ``n_ctx < 49`` (two copies of the longest period would
    not fit), TypeError where an argument is not an integer.
    """
    check_integer("n_rows", n_rows, least=1)
    check_integer("n_ctx", n_ctx, least=2 * PERIODS[-1] + 1)
    check_integer("seed", seed)
    rng = random.Random(f"corpus/{seed}")
    types = [t for t in _TABLE.values() if t.share]
    shares = np.cumsum([t.share for t in types]).tolist()
    bos = _ID[BOS]
    rows, is_answer = np.empty((n_rows, n_ctx), dtype=np.int16), np.zeros((n_rows, n_ctx), dtype=bool)
    for row, answers in zip(rows, is_answer, strict=True):
        marked = []
        if rng.random() < REPEAT_SHARE:
            text = _repeat(rng, "train", length=n_ctx - 1).template.text.split()
        else:
            text = []
            while len(text) < n_ctx - 1:
                (type,) = rng.choices(types, cum_weights=shares)
                template, fills, *_ = type.draw(rng, "train")
                marked += [len(text) + template.roles[slot] for slot in type.answers if slot in template.roles]
                text += template.text.format_map(fills).split()
        row[:] = [bos, *(_ID[w] for w in text[: n_ctx - 1])]
        answers[[position for position in marked if position < n_ctx]] = True
    return Corpus(rows, is_answer)


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the language: one id per word of `VOCABULARY`, ``<bos>`` in front, unknown words to ``<unk>``.

    `save_pretrained` writes it into a model's folder, where AutoTokenizer and TransformerLens find it.
    """
    words = Tokenizer(models.WordLevel(dict(_ID), unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.decoder = decoders.WordPiece(prefix="##", cleanup=False)  # joins with single spaces
    words.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, _ID[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=BOS, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>",
        add_bos_token=True, model_max_length=64, clean_up_tokenization_spaces=False, name_or_path="world",
    )  # fmt: skip
