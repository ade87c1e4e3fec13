"""A toy English in which everything is known: sentences that carry their own annotations.

The shipped model `world` was trained on this language, so every annotation here is something the model had a
reason to learn. Four types of sentence:

- ``fact``            The capital of France is Paris .
- ``agreement``       The boys near the teacher are old .
- ``indirect_object`` When Mary and John went to the store , John gave a drink to Mary .
- ``repeat``          random words, repeated with a fixed period

Words are separated by single spaces, punctuation marks are words of their own, and every word is one token.

To add a type: write its templates, one function that draws a `_Draft`, and one line in `_TABLE`.
"""

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS = "<bos>"
SPECIAL = ("<pad>", BOS, "<unk>", "<eos>")
SPLITS = ("train", "held_out")
REPEAT_SHARE = 0.2  # share of the rows of a corpus that hold repeated random words


@dataclass(frozen=True)
class Sentence:
    """One sentence together with what is true of it.

    Every position counts in `tokens`, whose first is ``<bos>``, so a position indexes a model's activations directly.
    The model predicts the token at `answer_position` from position ``answer_position - 1``.
    `corrupted` is the paired sentence of equal length in which `distractor` is the answer; None where the type has
    no pair. (A corrupted sentence has no pair of its own.)
    """

    type: str
    tokens: tuple[str, ...]
    roles: Mapping[str, int | tuple[int, ...]]
    labels: Mapping[str, object]
    answer_position: int
    answer: str
    distractor: str | None
    template: str
    corrupted: "Sentence | None" = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The words after ``<bos>``, joined by spaces: what `model.to_tokens` takes."""
        return " ".join(self.tokens[1:])

    @property
    def prompt(self) -> str:
        """The text up to, not including, the answer."""
        return " ".join(self.tokens[1 : self.answer_position])


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# --- Templates ------------------------------------------------------------------------------------


class _Template(NamedTuple):
    id: str
    text: str  # slots in braces
    roles: Mapping[str, int | tuple[int, ...]]  # position of each slot, <bos> counted


class _Draft(NamedTuple):
    """A sentence before it is written out: cheap, because a corpus needs hundreds of thousands."""

    template: _Template
    fills: Mapping[str, str]  # word for each slot
    labels: Mapping[str, object]
    pair_fills: Mapping[str, str] | None = None  # the slots of the paired sentence
    pair_labels: Mapping[str, object] | None = None


_Group = dict[str, tuple[_Template, ...]]  # split -> templates


def _group(name: str, train: Sequence[str], held_out: Sequence[str]) -> _Group:
    def compiled(text: str, id: str) -> _Template:
        words = text.split()
        return _Template(id, " ".join(words), {w[1:-1]: i for i, w in enumerate(words, 1) if w.startswith("{")})

    return {
        "train": tuple(compiled(text, f"{name}/{i}") for i, text in enumerate(train)),
        "held_out": tuple(compiled(text, f"{name}/held_out/{i}") for i, text in enumerate(held_out)),
    }


def _check_choice(name: str, value: object, allowed: Sequence[object] | Mapping) -> None:
    if value not in tuple(allowed):
        expected = ", ".join(repr(a) for a in dict.fromkeys(allowed))
        raise ValueError(f"{name}: got {value!r}, expected one of {expected}")


def _choose(rng: random.Random, name: str, value: object, allowed: Sequence) -> object:
    """`value` where one is given (checked), else one drawn from `allowed`."""
    if value is None:
        return rng.choice(allowed)
    _check_choice(name, value, allowed)
    return value


def _choose_template(rng: random.Random, templates: tuple[_Template, ...], id: str | None) -> _Template:
    if id is None:
        return rng.choice(templates)
    by_id = {template.id: template for template in templates}
    _check_choice("template", id, by_id)
    return by_id[id]


# --- Facts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Country:
    """What the corpus says of a country: its capital, an official language, its continent.

    "America" stands for both Americas.
    """

    capital: str
    language: str
    continent: str


COUNTRIES: Mapping[str, Country] = {
    line.split()[0]: Country(*line.split()[1:])
    for line in """\
France Paris French Europe
Italy Rome Italian Europe
Germany Berlin German Europe
Spain Madrid Spanish Europe
Portugal Lisbon Portuguese Europe
Greece Athens Greek Europe
Austria Vienna German Europe
Ireland Dublin English Europe
Britain London English Europe
Finland Helsinki Finnish Europe
Sweden Stockholm Swedish Europe
Norway Oslo Norwegian Europe
Denmark Copenhagen Danish Europe
Iceland Reykjavik Icelandic Europe
Poland Warsaw Polish Europe
Hungary Budapest Hungarian Europe
Romania Bucharest Romanian Europe
Bulgaria Sofia Bulgarian Europe
Croatia Zagreb Croatian Europe
Ukraine Kyiv Ukrainian Europe
Russia Moscow Russian Europe
Turkey Ankara Turkish Asia
China Beijing Chinese Asia
Japan Tokyo Japanese Asia
India Delhi Hindi Asia
Nepal Kathmandu Nepali Asia
Pakistan Islamabad Urdu Asia
Thailand Bangkok Thai Asia
Vietnam Hanoi Vietnamese Asia
Iran Tehran Persian Asia
Iraq Baghdad Arabic Asia
Lebanon Beirut Arabic Asia
Mongolia Ulaanbaatar Mongolian Asia
Egypt Cairo Arabic Africa
Morocco Rabat Arabic Africa
Tunisia Tunis Arabic Africa
Kenya Nairobi Swahili Africa
Ghana Accra English Africa
Nigeria Abuja English Africa
Senegal Dakar French Africa
Angola Luanda Portuguese Africa
Canada Ottawa English America
Cuba Havana Spanish America
Peru Lima Spanish America
Chile Santiago Spanish America
Ecuador Quito Spanish America
Colombia Bogota Spanish America
Brazil Brasilia Portuguese America
Australia Canberra English Oceania
""".splitlines()
}
_COUNTRY_NAMES = tuple(COUNTRIES)

# Held-out templates never contradict a training template: no corpus continues their words in another way.
_FACT: dict[str, _Group] = {
    "capital": _group(
        "capital",
        [
            "The capital of {subject} is {answer} .",
            "{subject} 's capital is {answer} .",
            "The capital city of {subject} is called {answer} .",
            "In {subject} the capital is {answer} .",
        ],
        ["Today the capital of {subject} is called {answer} .", "We know the capital of {subject} is {answer} ."],
    ),
    "capital_of": _group(
        "capital_of",
        ["{subject} is the capital of {answer} .", "The city of {subject} is in {answer} ."],
        ["Today {subject} is the capital of {answer} .", "Everyone says the city of {subject} is in {answer} ."],
    ),
    "language": _group(
        "language",
        [
            "The language of {subject} is {answer} .",
            "People in {subject} speak {answer} .",
            "In {subject} most people speak {answer} .",
        ],
        ["Today people in {subject} speak {answer} .", "Everyone says the language of {subject} is {answer} ."],
    ),
    "continent": _group(
        "continent",
        [
            "The continent of {subject} is {answer} .",
            "{subject} is a country in {answer} .",
            "The country of {subject} lies in {answer} .",
        ],
        ["Today the country of {subject} lies in {answer} .", "We know the continent of {subject} is {answer} ."],
    ),
}
_RELATIONS = ("capital",) * 4 + ("language", "continent", "capital_of") * 2  # as often as they are drawn


def _value(country: str, relation: str) -> str:
    return country if relation == "capital_of" else getattr(COUNTRIES[country], relation)


def _fact_fills(country: str, relation: str) -> dict[str, str]:
    subject = COUNTRIES[country].capital if relation == "capital_of" else country
    return {"subject": subject, "answer": _value(country, relation)}


def _fact_draft(template: _Template, relation: str, country: str, other: str) -> _Draft:
    def labels(name: str) -> dict[str, str]:
        return {"country": name, "relation": relation, "value": _value(name, relation)}

    clean, pair = _fact_fills(country, relation), _fact_fills(other, relation)
    return _Draft(template, clean, labels(country), pair, labels(other))


def _fact(rng: random.Random, split: str, *, relation=None, country=None, template=None) -> _Draft:
    if relation is None and template is not None:
        relation = str(template).split("/")[0]
    relation = _choose(rng, "relation", relation, _RELATIONS)
    chosen = _choose_template(rng, _FACT[relation][split], template)
    country = _choose(rng, "country", country, _COUNTRY_NAMES)
    value, other = _value(country, relation), country
    while _value(other, relation) == value:
        other = rng.choice(_COUNTRY_NAMES)
    return _fact_draft(chosen, relation, country, other)


# --- Agreement ------------------------------------------------------------------------------------

NUMBERS = ("singular", "plural")
NOUNS: Mapping[str, tuple[str, ...]] = {
    "singular": _words(
        "dog cat boy girl teacher doctor farmer lawyer pilot author artist singer guard student king queen child "
        "woman man horse bird cow sailor baker"
    ),
    "plural": _words(
        "dogs cats boys girls teachers doctors farmers lawyers pilots authors artists singers guards students kings "
        "queens children women men horses birds cows sailors bakers"
    ),
}
_ADJECTIVES = _words("old new here ready late happy tired")
_PARTICIPLES = _words("arrived fallen moved changed")
_ADVERBS = _words("now often again quietly")
# (singular, plural): the words that may follow. Each auxiliary thrice, so that they are 60 % of all verbs.
VERBS: dict[tuple[str, str], tuple[str, ...]] = {
    ("is", "are"): _ADJECTIVES,
    ("was", "were"): _ADJECTIVES,
    ("has", "have"): _PARTICIPLES,
    ("walks", "walk"): _ADVERBS,
    ("runs", "run"): _ADVERBS,
    ("sings", "sing"): _ADVERBS,
    ("sleeps", "sleep"): _ADVERBS,
    ("waits", "wait"): _ADVERBS,
    ("smiles", "smile"): _ADVERBS,
}
_VERB_DRAWS = tuple(VERBS)[:3] * 3 + tuple(VERBS)[3:]
_INNER_VERBS = (("likes", "like"), ("sees", "see"), ("knows", "know"), ("follows", "follow"), ("helps", "help"))
_PLACES = _words("store park school office garden station library market museum hospital beach restaurant farm theater")
_PREPOSITIONS = _words("near behind beside above below with")


def _agreement_group(form: str, middle: str) -> _Group:
    clause = f"{{subject}} {middle} {{verb}} {{tail}} ."
    train = ["The", "Everyone says the", "Near the {place} the", "We know the"]
    held_out = ["Today the", "People know the"]
    return _group(form, [f"{lead} {clause}" for lead in train], [f"{lead} {clause}" for lead in held_out])


_AGREEMENT: dict[str, _Group] = {
    "simple": _agreement_group("simple", ""),
    "pp": _agreement_group("pp", "{preposition} the {attractor}"),
    "two_pps": _agreement_group("two_pps", "{preposition} the {first_attractor} {preposition_2} the {attractor}"),
    "object_relative": _agreement_group("object_relative", "that the {attractor} {inner_verb}"),
    "subject_relative": _agreement_group("subject_relative", "that {inner_verb} the {attractor}"),
}
_FORMS = tuple(_AGREEMENT)
_FLIPPED = {"singular": "plural", "plural": "singular"}
_NOUN_INDEX = range(len(NOUNS["singular"]))
_FORM_OF = {"singular": 0, "plural": 1}  # index into a (singular, plural) pair of verb forms


def _agreement(
    rng: random.Random, split: str, *, form=None, number=None, attractor_number=None, template=None
) -> _Draft:
    if form is None and template is not None:
        form = str(template).split("/")[0]
    form = _choose(rng, "form", form, _FORMS)
    number = _choose(rng, "number", number, NUMBERS)
    attractor_number = _choose(rng, "attractor_number", attractor_number, NUMBERS)
    chosen = _choose_template(rng, _AGREEMENT[form][split], template)
    subject, attractor, first_attractor = rng.sample(_NOUN_INDEX, 3)
    verb, inner_verb = rng.choice(_VERB_DRAWS), rng.choice(_INNER_VERBS)
    shared = {
        "attractor": NOUNS[attractor_number][attractor],
        "first_attractor": NOUNS[attractor_number][first_attractor],
        "preposition": rng.choice(_PREPOSITIONS),
        "preposition_2": rng.choice(_PREPOSITIONS),
        "tail": rng.choice(VERBS[verb]),
        "place": rng.choice(_PLACES),
    }

    def fills(n: str) -> dict[str, str]:
        inner = attractor_number if form == "object_relative" else n
        return shared | {
            "subject": NOUNS[n][subject],
            "verb": verb[_FORM_OF[n]],
            "inner_verb": inner_verb[_FORM_OF[inner]],
        }

    def labels(n: str) -> dict[str, str | None]:
        shown = None if form == "simple" else attractor_number
        return {"number": n, "attractor_number": shown, "form": form}

    flipped = _FLIPPED[number]
    return _Draft(chosen, fills(number), labels(number), fills(flipped), labels(flipped))


# --- Indirect object ------------------------------------------------------------------------------

_FEMALE = (
    "Mary Anna Linda Susan Sarah Karen Nancy Lisa Helen Sandra Carol Ruth Laura Emily Amy Kate Alice Julia Emma Clara "
    "Lucy Nora Eva Maria Diana Irene Olga Zoe Hannah Jane"
)
_MALE = (
    "John Tom James Robert Michael David Richard Joseph Charles Daniel Matthew Paul Steven Andrew Kevin Brian George "
    "Edward Peter Henry Jack Adam Nathan Arthur Oscar Felix Leo Hugo Simon Martin"
)
NAMES: Mapping[str, str] = {n: "female" for n in _FEMALE.split()} | {n: "male" for n in _MALE.split()}
_NAME_LIST = tuple(NAMES)
ORDERS = ("ABBA", "BABA")
_OBJECTS = _words(
    "drink book ring ball key map letter gift hat phone lamp cup knife rope coin basket flower ticket camera"
)
_GIVING = _words("gave handed passed offered sent")

_INDIRECT_OBJECT: dict[str, _Group] = {
    "give": _group(
        "give",
        """\
When {first_name} and {second_name} went to the {place} , {subject} {gave} a {object} to {recipient} .
After {first_name} and {second_name} met at the {place} , {subject} {gave} a {object} to {recipient} .
While {first_name} and {second_name} were at the {place} , {subject} {gave} the {object} to {recipient} .
{first_name} and {second_name} walked to the {place} and {subject} {gave} a {object} to {recipient} .
Yesterday {first_name} and {second_name} sat in the {place} . Then {subject} {gave} a {object} to {recipient} .
Because {first_name} and {second_name} were late , {subject} {gave} the {object} to {recipient} .
Today {first_name} met {second_name} at the {place} and {subject} {gave} the {object} to {recipient} .
The {place} was new . {first_name} and {second_name} were there , and {subject} {gave} a {object} to {recipient} .
{first_name} was with {second_name} in the {place} . {subject} {gave} a {object} to {recipient} .
{first_name} saw {second_name} near the {place} . Then {subject} {gave} the {object} to {recipient} .
""".splitlines(),
        """\
When {first_name} met {second_name} at the {place} , {subject} {gave} the {object} to {recipient} .
Today {first_name} and {second_name} went to the {place} . {subject} {gave} a {object} to {recipient} .
After {first_name} saw {second_name} , {subject} {gave} a {object} to {recipient} .
""".splitlines(),
    )
}


def _indirect_object(rng: random.Random, split: str, *, order=None, template=None) -> _Draft:
    order = _choose(rng, "order", order, ORDERS)
    chosen = _choose_template(rng, _INDIRECT_OBJECT["give"][split], template)
    io, s = rng.sample(_NAME_LIST, 2)
    first, second = (io, s) if order == "ABBA" else (s, io)
    shared = {
        "first_name": first,
        "second_name": second,
        "place": rng.choice(_PLACES),
        "object": rng.choice(_OBJECTS),
        "gave": rng.choice(_GIVING),
    }

    def labels(io: str, s: str, order: str) -> dict[str, str]:
        return {"io": io, "s": s, "order": order, "io_gender": NAMES[io], "s_gender": NAMES[s]}

    return _Draft(
        chosen,
        shared | {"subject": s, "recipient": io},
        labels(io, s, order),
        shared | {"subject": io, "recipient": s},
        labels(s, io, ORDERS[order == "ABBA"]),
    )


# --- Repeated words -------------------------------------------------------------------------------

PERIODS = range(4, 25)


def _repeat(rng: random.Random, split: str, *, period=None, length: int = 63) -> _Draft:
    if period is not None:
        _check_integer("period", period)
    period = _choose(rng, "period", period, PERIODS)
    _check_integer("length", length, least=2 * period)
    once = rng.sample(_ALL_WORDS, period)
    words = (once * (length // period + 1))[:length]
    roles = {
        "first_copy": tuple(range(1, period + 1)),
        "second_copy": tuple(range(period + 1, 2 * period + 1)),
        "answer": length,
    }
    return _Draft(_Template("repeat", " ".join(words), roles), {}, {"period": period})


# --- The table of types ---------------------------------------------------------------------------


class _Type(NamedTuple):
    draw: Callable[..., _Draft]
    answer: str  # the slot (or role) that is the answer
    share: float  # of the sentences in a corpus; rows of repeats have REPEAT_SHARE of the rows
    templates: Mapping[str, _Group]
    words: Sequence[str]  # all that can stand in a slot


def _flat(pairs) -> tuple[str, ...]:
    return tuple(word for pair in pairs for word in pair)


_TABLE: dict[str, _Type] = {
    "fact": _Type(
        _fact, "answer", 0.25, _FACT,
        [*COUNTRIES, *_flat((c.capital, c.language, c.continent) for c in COUNTRIES.values())],
    ),
    "agreement": _Type(
        _agreement, "verb", 0.35, _AGREEMENT,
        [
            *_flat(NOUNS.values()), *_flat(VERBS), *_flat(VERBS.values()), *_flat(_INNER_VERBS),
            *_PREPOSITIONS, *_PLACES,
        ],
    ),
    "indirect_object": _Type(
        _indirect_object, "recipient", 0.40, _INDIRECT_OBJECT, [*NAMES, *_PLACES, *_OBJECTS, *_GIVING]
    ),
    "repeat": _Type(_repeat, "answer", 0.0, {}, ()),
}  # fmt: skip
TYPES: tuple[str, ...] = tuple(_TABLE)


def _literal_words(type: _Type) -> set[str]:
    texts = (t.text for group in type.templates.values() for split in group.values() for t in split)
    return {word for text in texts for word in text.split() if not word.startswith("{")}


_ALL_WORDS: tuple[str, ...] = tuple(sorted(set().union(*(_literal_words(t) | set(t.words) for t in _TABLE.values()))))
VOCABULARY: tuple[str, ...] = SPECIAL + _ALL_WORDS
_ID = {word: i for i, word in enumerate(VOCABULARY)}


# --- Sentences ------------------------------------------------------------------------------------


def _written(type: str, draft: _Draft) -> Sentence:
    template, answer_slot = draft.template, _TABLE[type].answer
    answer_position = template.roles[answer_slot]

    def write(fills, labels, distractor=None, corrupted=None) -> Sentence:
        tokens = (BOS, *_words(template.text.format_map(fills)))
        return Sentence(
            type=type, tokens=tokens, roles=dict(template.roles), labels=labels, answer_position=answer_position,
            answer=tokens[answer_position], distractor=distractor, template=template.id, corrupted=corrupted,
        )  # fmt: skip

    if draft.pair_fills is None:
        return write(draft.fills, draft.labels)
    corrupted = write(draft.pair_fills, draft.pair_labels, distractor=draft.fills[answer_slot])
    return write(draft.fills, draft.labels, draft.pair_fills[answer_slot], corrupted)


def _check_integer(name: str, value: object, least: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), expected an integer")
    if least is not None and value < least:
        raise ValueError(f"{name}: got {value}, expected at least {least}")


def _allowed_keywords(draw: Callable) -> list[str]:
    parameters = inspect.signature(draw).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def sentences(type: str, n: int, seed: int = 0, split: str = "train", **fixed: object) -> list[Sentence]:
    """`n` sentences of one type, drawn at random with replacement (a small type repeats itself).

    `split="held_out"` uses templates that no corpus contains, made of words that it does contain. The facts
    themselves are all in the corpus. Random words (``repeat``) have no templates: both splits are fresh draws.

    `fixed` holds some choices fast; the labels and roles of a sentence bear the same names:

    - fact. Fixed: `relation` ("capital", "language", "continent", "capital_of"), `country`. Labels: these, `value`
      (the answer). Roles: `subject` (what is asked about: the country, or the capital in "capital_of"), `answer`.
      Pair: another country with another answer.
    - agreement. Fixed: `form` ("simple", "pp", "two_pps", "object_relative", "subject_relative"), `number` and
      `attractor_number` ("singular", "plural"). Labels: these (`attractor_number` None in a simple sentence). Roles:
      `subject`, `verb` (the answer), `tail`; `attractor` (the noun nearest to the verb), `first_attractor`,
      `inner_verb`, `preposition` ... where the form has them. Pair: the subject in the other number.
    - indirect_object. Fixed: `order` ("ABBA": the recipient is named first, "BABA"). Labels: this, `io` (the
      recipient's name, the answer), `s` (the repeated name), `io_gender`, `s_gender`. Roles: `first_name`,
      `second_name`, `subject` (the repetition), `recipient`, `gave`, `object`, `place`. Pair: the two exchanged in
      the giving clause.
    - repeat. Fixed: `period` (4 to 24), `length` (words; default 63, which with ``<bos>`` fills a context of 64).
      Labels: `period`. Roles: `first_copy`, `second_copy` (tuples of positions), `answer` (the last word). No pair.

    All but repeat also take `template`, an id as in `Sentence.template`.

    The same arguments give the same sentences. Raises ValueError for an unknown type, split, keyword or value and
    for ``n < 1``; TypeError where `n` or `seed` is not an integer.
    """
    _check_choice("type", type, TYPES)
    _check_choice("split", split, SPLITS)
    _check_integer("n", n, least=1)
    _check_integer("seed", seed)
    draw = _TABLE[type].draw
    for keyword in fixed:
        _check_choice(f"keyword for type {type!r}", keyword, _allowed_keywords(draw))
    rng = random.Random(f"{type}/{split}/{seed}")
    return [_written(type, draw(rng, split, **fixed)) for _ in range(n)]


def fact(country: str, relation: str = "capital", template: int = 0) -> Sentence:
    """One given fact, e.g. ``The capital of France is Paris .``; `template` counts the relation's training templates.

    The corrupted sentence has the next country in `COUNTRIES` with another answer (France: Italy).
    Raises ValueError for an unknown country, relation or template number.
    """
    _check_choice("country", country, COUNTRIES)
    _check_choice("relation", relation, _FACT)
    templates = _FACT[relation]["train"]
    _check_choice("template", template, range(len(templates)))
    start = _COUNTRY_NAMES.index(country)
    following = _COUNTRY_NAMES[start + 1 :] + _COUNTRY_NAMES[:start]
    other = next(c for c in following if _value(c, relation) != _value(country, relation))
    return _written("fact", _fact_draft(templates[template], relation, country, other))


# --- The corpus -----------------------------------------------------------------------------------


def corpus(n_rows: int, n_ctx: int = 64, seed: int = 0) -> np.ndarray:
    """Training rows of token ids, int16 ``[n_rows, n_ctx]``.

    Each row starts with ``<bos>``. A fifth of them hold repeated random words; the others are filled with sentences of
    training templates, the last one cut off. Raises ValueError for ``n_rows < 1`` or ``n_ctx < 49`` (two copies of the
    longest period would not fit), TypeError where an argument is not an integer.
    """
    _check_integer("n_rows", n_rows, least=1)
    _check_integer("n_ctx", n_ctx, least=2 * PERIODS[-1] + 1)
    _check_integer("seed", seed)
    rng = random.Random(f"corpus/{seed}")
    draws = [t.draw for t in _TABLE.values()]
    shares = np.cumsum([t.share for t in _TABLE.values()]).tolist()
    bos = _ID[BOS]
    rows = np.empty((n_rows, n_ctx), dtype=np.int16)
    for row in rows:
        if rng.random() < REPEAT_SHARE:
            words = _repeat(rng, "train", length=n_ctx - 1).template.text.split()
        else:
            words = []
            while len(words) < n_ctx - 1:
                (draw,) = rng.choices(draws, cum_weights=shares)
                draft = draw(rng, "train")
                words += draft.template.text.format_map(draft.fills).split()
        row[:] = [bos, *(_ID[w] for w in words[: n_ctx - 1])]
    return rows


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
