"""The toy language: annotations agree with the text, pairs differ only where they should, draws repeat."""

import re

import numpy as np
import pytest
from transformers import AutoTokenizer

from utils.datasets import world

N = 200
PAIRED = ("fact", "agreement", "indirect_object")


@pytest.fixture(params=[(t, s) for t in world.TYPES for s in world.SPLITS], ids="-".join)
def drawn(request) -> list[world.Sentence]:
    type, split = request.param
    return world.sentences(type, N, seed=1, split=split)


def _number(noun: str) -> str:
    return "singular" if noun in world.NOUNS["singular"] else "plural"


# --- Every type ---


def test_tokens_text_and_answer_agree(drawn):
    for s in drawn:
        assert s.tokens[0] == world.BOS and set(s.tokens[1:]) <= set(world.VOCABULARY[4:])
        assert s.text.split() == list(s.tokens[1:])
        assert s.tokens[s.answer_position] == s.answer != s.distractor
        assert s.prompt.split() == list(s.tokens[1 : s.answer_position])
        assert s.type in world.TYPES and s.template


def test_a_position_in_tokens_is_a_position_in_the_ids(drawn):
    tokenizer = world.tokenizer()
    for s in drawn[:20]:
        ids = tokenizer(s.text).input_ids
        assert tokenizer.convert_ids_to_tokens(ids) == list(s.tokens)


def test_sentences_fit_the_context(drawn):
    assert max(len(s.tokens) for s in drawn) <= 64


@pytest.mark.parametrize("split", world.SPLITS)
@pytest.mark.parametrize("type", PAIRED)
def test_the_pair_has_equal_length_and_the_other_answer(type, split):
    for s in world.sentences(type, N, seed=2, split=split):
        pair = s.corrupted
        assert len(pair.tokens) == len(s.tokens) and pair.template == s.template and pair.roles == s.roles
        assert pair.answer_position == s.answer_position
        assert (pair.answer, pair.distractor) == (s.distractor, s.answer)
        assert pair.corrupted is None
        assert s.prompt != pair.prompt


def _changed(s: world.Sentence) -> set[int]:
    return {i for i, (a, b) in enumerate(zip(s.tokens, s.corrupted.tokens, strict=True)) if a != b}


# --- Facts ---


@pytest.mark.parametrize("split", world.SPLITS)
def test_facts_state_what_the_table_says(split):
    for s in world.sentences("fact", N, seed=3, split=split):
        country = world.COUNTRIES[s.labels["country"]]
        reverse = s.labels["relation"] == "capital_of"
        subject, value = s.tokens[s.roles["subject"]], s.labels["value"]
        assert s.answer == value == s.tokens[s.roles["answer"]]
        if reverse:
            assert (subject, value) == (country.capital, s.labels["country"])
        else:
            assert (subject, value) == (s.labels["country"], getattr(country, s.labels["relation"]))
        assert _changed(s) == {s.roles["subject"], s.roles["answer"]}


def test_the_countries_are_distinct_words():
    capitals = [c.capital for c in world.COUNTRIES.values()]
    names = [*world.COUNTRIES, *capitals, *world.NAMES]
    assert len(world.COUNTRIES) >= 40 and len(set(names)) == len(names)


def test_fact_gives_the_sentence_of_the_first_template():
    s = world.fact("France")
    assert s.text == "The capital of France is Paris ." and s.prompt == "The capital of France is"
    assert s.corrupted.text == "The capital of Italy is Rome ." and s.distractor == "Rome"
    assert s.template in {t.template for t in world.sentences("fact", N, relation="capital")}
    assert {len(world.fact(c).prompt.split()) for c in world.COUNTRIES} == {5}


@pytest.mark.parametrize("relation", ["capital", "capital_of", "language", "continent"])
def test_fact_pairs_every_country_with_another_answer(relation):
    for country in world.COUNTRIES:
        s = world.fact(country, relation)
        assert s.labels["country"] == country and s.corrupted.answer != s.answer


# --- Agreement ---


@pytest.mark.parametrize("split", world.SPLITS)
def test_agreement_labels_are_those_of_the_words(split):
    for s in world.sentences("agreement", N, seed=4, split=split):
        number, form = s.labels["number"], s.labels["form"]
        assert _number(s.tokens[s.roles["subject"]]) == number
        assert s.answer == s.tokens[s.roles["verb"]]
        assert (s.answer, s.distractor)[:: 1 if number == "singular" else -1] in world.VERBS
        assert ("attractor" in s.roles) == (form != "simple")
        for role in {"attractor", "first_attractor"} & set(s.roles):
            assert _number(s.tokens[s.roles[role]]) == s.labels["attractor_number"]
        inner = {s.roles["inner_verb"]} if form == "subject_relative" else set()
        assert _changed(s) == {s.roles["subject"], s.roles["verb"]} | inner


def test_the_numbers_of_subject_and_attractor_are_independent():
    drawn = world.sentences("agreement", 2000, seed=5)
    matching = [s.labels["number"] == s.labels["attractor_number"] for s in drawn if s.labels["form"] != "simple"]
    assert 0.45 < np.mean(matching) < 0.55


def test_an_inner_verb_agrees_with_its_own_subject():
    for form, role in (("object_relative", "attractor"), ("subject_relative", "subject")):
        for s in world.sentences("agreement", 50, form=form):
            is_singular = s.tokens[s.roles["inner_verb"]].endswith("s")
            assert is_singular == (_number(s.tokens[s.roles[role]]) == "singular")


# --- Indirect objects ---


@pytest.mark.parametrize("split", world.SPLITS)
def test_indirect_objects_follow_their_order(split):
    for s in world.sentences("indirect_object", N, seed=6, split=split):
        first, second, subject, recipient = (
            s.tokens[s.roles[r]] for r in ("first_name", "second_name", "subject", "recipient")
        )
        io, repeated = s.labels["io"], s.labels["s"]
        assert (subject, recipient, s.answer, s.distractor) == (repeated, io, io, repeated)
        assert (first, second) == ((io, repeated) if s.labels["order"] == "ABBA" else (repeated, io))
        assert s.labels["io_gender"] == world.NAMES[io] and s.labels["s_gender"] == world.NAMES[repeated]
        assert _changed(s) == {s.roles["subject"], s.roles["recipient"]}
        assert s.corrupted.labels["order"] != s.labels["order"]


# --- Repeats ---


def test_repeats_have_their_period():
    for s in world.sentences("repeat", N, seed=7):
        words, period = s.tokens[1:], s.labels["period"]
        assert period in world.PERIODS and len(set(words[:period])) == period
        assert all(a == b for a, b in zip(words, words[period:], strict=False))
        for first, second in zip(s.roles["first_copy"], s.roles["second_copy"], strict=True):
            assert s.tokens[first] == s.tokens[second] and second - first == period
        assert len(s.tokens) == 64


# --- Choices, splits, seeds ---


@pytest.mark.parametrize(
    ("type", "fixed"),
    [
        ("fact", {"relation": "language", "country": "Peru"}),
        ("agreement", {"form": "object_relative", "number": "plural", "attractor_number": "singular"}),
        ("indirect_object", {"order": "BABA"}),
        ("repeat", {"period": 7}),
    ],
)
def test_fixed_choices_hold(type, fixed):
    for s in world.sentences(type, 30, **fixed):
        assert {name: s.labels[name] for name in fixed} == fixed


@pytest.mark.parametrize("type", PAIRED)
def test_a_fixed_template_holds(type):
    template = world.sentences(type, 1, seed=8)[0].template
    assert {s.template for s in world.sentences(type, 20, template=template)} == {template}


@pytest.mark.parametrize("type", PAIRED)
def test_held_out_templates_are_others_and_made_of_trained_words(type):
    train, held_out = (world.sentences(type, 1000, split=split) for split in world.SPLITS)
    assert not {s.template for s in train} & {s.template for s in held_out}
    rows = world.corpus(3000)
    seen = {world.VOCABULARY[i] for i in np.unique(rows[~_repeats(rows)])}
    assert {word for s in held_out for word in s.tokens} <= seen


def test_the_same_seed_gives_the_same_sentences():
    for type in world.TYPES:
        assert world.sentences(type, 20, seed=3) == world.sentences(type, 20, seed=3)
        assert world.sentences(type, 20, seed=3) != world.sentences(type, 20, seed=4)


# --- Errors ---


@pytest.mark.parametrize(
    ("arguments", "fixed", "error", "words"),
    [
        (("poem", 1), {}, ValueError, ["type", "'poem'", "'fact'"]),
        (("fact", 0), {}, ValueError, ["n", "0", "at least 1"]),
        (("fact", 1.5), {}, TypeError, ["n", "1.5", "integer"]),
        (("fact", 1, "0"), {}, TypeError, ["seed", "'0'", "integer"]),
        (("fact", 1, True), {}, TypeError, ["seed", "True", "integer"]),
        (("fact", 1, 0, "test"), {}, ValueError, ["split", "'test'", "'held_out'"]),
        (("fact", 1), {"country": "Atlantis"}, ValueError, ["country", "'Atlantis'", "'France'"]),
        (("fact", 1), {"relation": "king"}, ValueError, ["relation", "'king'", "'language'"]),
        (("fact", 1), {"order": "ABBA"}, ValueError, ["'order'", "fact", "'relation'"]),
        (("fact", 1), {"template": "capital/99"}, ValueError, ["template", "'capital/99'", "'capital/0'"]),
        (("agreement", 1), {"form": "long"}, ValueError, ["form", "'long'", "'pp'"]),
        (("repeat", 1), {"period": 3}, ValueError, ["period", "3", "4"]),
        (("repeat", 1), {"period": 9, "length": 17}, ValueError, ["length", "17", "18"]),
    ],
)
def test_errors_name_argument_value_and_expectation(arguments, fixed, error, words):
    with pytest.raises(error) as raised:
        world.sentences(*arguments, **fixed)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_fact_errors():
    with pytest.raises(ValueError, match="country: got 'Atlantis'"):
        world.fact("Atlantis")
    with pytest.raises(ValueError, match="relation: got 'king'"):
        world.fact("France", "king")
    with pytest.raises(ValueError, match="template: got 9, expected one of 0, 1, 2, 3"):
        world.fact("France", template=9)


# --- Corpus and tokenizer ---


def _repeats(rows: np.ndarray) -> np.ndarray:
    """Which rows have one of the periods throughout."""
    words = rows[:, 1:]
    return np.any([np.all(words[:, p:] == words[:, :-p], axis=1) for p in world.PERIODS], axis=0)


def test_corpus_rows():
    rows = world.corpus(1000, seed=2)
    assert rows.shape == (1000, 64) and rows.dtype == np.int16
    assert (rows[:, 0] == world.VOCABULARY.index(world.BOS)).all()
    assert rows[:, 1:].min() >= 4 and rows.max() < len(world.VOCABULARY)
    assert 0.16 < _repeats(rows).mean() < 0.24
    assert (rows == world.corpus(1000, seed=2)).all() and (rows != world.corpus(1000, seed=3)).any()


def _pattern(split: str) -> re.Pattern:
    """Any template of a split, with any word in each slot."""
    groups = [group for type in world._TABLE.values() for group in type.templates.values()]
    texts = [re.escape(template.text) for group in groups for template in group[split]]
    return re.compile("|".join(re.sub(r"\\{\w+\\}", r"\\S+", text) for text in texts))


def test_corpus_rows_hold_training_templates_and_no_held_out_ones():
    rows = world.corpus(1000, seed=2)
    texts = [" ".join(world.VOCABULARY[i] for i in row[1:]) for row in rows[~_repeats(rows)]]
    train, held_out = _pattern("train"), _pattern("held_out")
    assert all(train.match(text) for text in texts)
    assert not any(held_out.search(text) for text in texts)
    assert all(held_out.match(s.text) for type in PAIRED for s in world.sentences(type, N, split="held_out"))


def test_corpus_errors():
    with pytest.raises(ValueError, match="n_rows: got 0"):
        world.corpus(0)
    with pytest.raises(ValueError, match="n_ctx: got 20, expected at least 49"):
        world.corpus(1, n_ctx=20)
    with pytest.raises(TypeError, match="seed: got None"):
        world.corpus(1, seed=None)


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
