"""Probes and steering: on planted directions, and on a small model with random weights."""

import numpy as np
import pytest
import torch

from utils import models
from utils.datasets import world
from utils.training.gpt2 import GPT2, Recipe, init_weights, to_hf
from utils.training.measure import linear, steering
from utils.training.measure.accuracy import SEED, answer_logits, beats_distractor, ids_of, mismatching

SMALL = Recipe(d_vocab=len(world.VOCABULARY), steps=1, n_layers=2, d_model=32, n_heads=2, d_mlp=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A bridge whose every parameter, biases and LayerNorms too, is random."""
    torch.set_num_threads(1)
    bare = init_weights(GPT2(SMALL.config()), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in bare.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("random") / "model"
    to_hf(bare).save_pretrained(folder)
    world.tokenizer().save_pretrained(folder)
    return models.load(folder, device="cpu")


@pytest.fixture(scope="module")
def direction() -> torch.Tensor:
    return torch.randn(SMALL.d_model, generator=torch.Generator().manual_seed(1))


def _planted(n: int, seed: int, strength: float = 3.0, d_model: int = 64) -> tuple[torch.Tensor, np.ndarray]:
    """Two layers of noise; in the second one the label has a direction."""
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(2, n, d_model, generator=generator)
    labels = torch.randint(0, 2, (n,), generator=generator)
    planted = torch.randn(d_model, generator=torch.Generator().manual_seed(9))
    activations[1] += strength * labels[:, None] * planted / planted.norm()
    return activations, labels.numpy()


# --- Probes ---


def test_a_probe_finds_a_planted_direction_where_it_is():
    train, test = _planted(400, 0), _planted(200, 1)
    before, after = linear.score_by_layer(linear.fit_by_layer(*train), *test)
    assert after > 0.9 and abs(before - 0.5) < 0.12


def test_a_probe_of_shuffled_labels_finds_nothing():
    (train, labels), test = _planted(400, 0), _planted(200, 1)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert all(abs(score - 0.5) < 0.12 for score in linear.score_by_layer(linear.fit_by_layer(train, shuffled), *test))


def test_probes_do_not_depend_on_the_scale_of_activations():
    (train, labels), (test, test_labels) = _planted(400, 0), _planted(200, 1)
    scores = linear.score_by_layer(linear.fit_by_layer(train, labels), test, test_labels)
    small = linear.score_by_layer(linear.fit_by_layer(train / 100, labels), test / 100, test_labels)
    assert small == pytest.approx(scores, abs=0.011)


def test_cross_validation_scores_every_class_the_same():
    activations, labels = _planted(140, 2, strength=6.0)
    before, after = linear.cross_validated(activations, labels)
    assert after > 0.9 and abs(before - 0.5) < 0.15
    rare = np.where(np.arange(140) < 14, "rare", "common")
    noise = torch.randn(1, 140, 8, generator=torch.Generator().manual_seed(0))
    assert abs(linear.cross_validated(noise, rare)[0] - 0.5) < 0.15  # not .9, the share of the common one


# --- Sentences to fit on and to test on ---


def _words(batch, role: str) -> set[str]:
    return {sentence.tokens[sentence.roles[role]] for sentence in batch if role in sentence.roles}


@pytest.mark.parametrize("sets", [linear.number_sets, linear.sentiment_sets, linear.gender_sets])
def test_no_sentence_is_fitted_on_and_tested_on(sets):
    train, tests = sets()
    seen = {sentence.tokens for sentence in train}
    for name, batch in tests.items():
        assert not seen & {sentence.tokens for sentence in batch}, name


def test_number_is_tested_on_other_templates_or_nouns():
    train, tests = linear.number_sets()
    templates = {sentence.template for sentence in train}
    for name in ("object relatives", "two attractors"):
        assert not templates & {sentence.template for sentence in tests[name]}
    assert not _words(train, "subject") & _words(tests["held-out nouns"], "subject")
    for batch in tests.values():
        assert all(s.labels["number"] != s.labels["attractor_number"] for s in batch)
    counts = [sum(s.labels["number"] == s.labels["attractor_number"] for s in train), len(train) / 2]
    assert counts[0] == counts[1]  # in training the attractor says nothing of the subject


def test_sentiment_is_tested_on_other_templates_or_adjectives():
    train, tests = linear.sentiment_sets()
    templates = {sentence.template for sentence in train}
    for name in ("negation", "contrast", "held-out templates"):
        assert not templates & {sentence.template for sentence in tests[name]}
    for role in ("adjective", "adjective_2"):
        assert not (_words(train, "adjective") | _words(train, "adjective_2")) & _words(
            tests["held-out adjectives"], role
        )
    assert _words(tests["held-out adjectives"], "verb") == set()


def test_gender_is_tested_on_other_names():
    train, tests = linear.gender_sets()
    names = {sentence.labels["antecedent"] for sentence in train}
    assert not names & {sentence.labels["antecedent"] for sentence in tests["held-out names"]}


def test_truth_is_tested_on_other_claims():
    fit, tests = linear.truth_sets()
    for fitted, train in fit.items():
        entities, seen = {s.labels["entity"] for s in train}, {s.tokens for s in train}
        for test, batch in tests.items():
            if "held-out" in test:
                assert not entities & {s.labels["entity"] for s in batch}, (fitted, test)
            elif fitted == "category":
                assert not seen & {s.tokens for s in batch}, (fitted, test)


def test_directions_of_refusal_are_tested_on_other_pairs_of_words():
    def pairs(batch):
        return {(s.tokens[s.roles["verb"]], s.tokens[s.roles["thing"]]) for s in batch}

    fit = linear.in_pairs("request", steering.N_FIT, linear.FIT_SEED)
    assert not pairs(fit) & pairs(world.sentences("request", 200, SEED, "held_out_words"))


@pytest.mark.parametrize(("type", "label"), [("review", "sentiment"), ("claim", "truth"), ("pronoun", "gender")])
def test_pairs_are_balanced(type, label):
    first, second = np.split(np.array([s.labels[label] for s in linear.in_pairs(type, 60, 0)]), 2)
    assert (first != second).all()


def test_counts_of_words_fail_where_order_or_new_words_matter():
    scores = linear.sentiment_from_words()
    assert scores["held-out templates"] > 0.95 and scores["held-out adjectives"] == 0.5
    assert scores["negation"] < 0.5 and scores["contrast"] < 0.5


# --- Reading ---


def test_what_is_read_is_what_the_model_computes(model):
    batch = linear.claims(12, 0, "category")
    resid = linear.Reading.of(model, batch).at(linear.predicting)
    assert resid.shape == (SMALL.n_layers + 1, 12, SMALL.d_model)
    with torch.no_grad():
        logits = model.unembed(model.ln_final(resid[-1]))
    assert torch.allclose(logits, answer_logits(model, batch), atol=1e-4)
    embedded = model.W_E[torch.tensor([world.VOCABULARY.index("?")])] + model.W_pos[[s - 1 for s in _answers(batch)]]
    assert torch.allclose(resid[0], embedded, atol=1e-5)


def _answers(batch) -> list[int]:
    return [sentence.answer_position for sentence in batch]


def test_positions_are_those_of_the_words_they_name():
    for sentence in linear.in_pairs("review", 20, 0):
        assert sentence.tokens[linear.predicting(sentence)] == ":"
        assert sentence.tokens[linear.statement_end(sentence)] in ".!"
    for sentence in linear.claims(20, 0, "continent"):
        assert sentence.tokens[linear.predicting(sentence)] == "?"
        assert sentence.tokens[linear.claimed(sentence)] == sentence.labels["claimed"]


def test_the_lens_after_the_last_block_is_the_model(model):
    batch = mismatching("object_relative", linear.N_TEST, "train")
    lens = linear.agreement_lens(model)["object relatives"]
    assert lens[-1] == pytest.approx(beats_distractor(model, batch), abs=1e-6)


# --- Interventions ---


def test_mean_differences_find_a_planted_direction():
    activations, labels = _planted(2000, 3)
    (found,) = steering.mean_differences(activations, labels == 1)
    planted = torch.randn(64, generator=torch.Generator().manual_seed(9))
    assert torch.cosine_similarity(found, planted, dim=0) > 0.9 and abs(found.norm() - 3) < 0.5


def test_a_verb_is_turned_by_what_its_logit_reads(model):
    """After the last block, each sentence's own direction: towards the wrong form, all verbs turn, and back."""
    batch = mismatching("pp", 10, "train")
    pairs = [s.answer for s in batch], [s.distractor for s in batch]
    right, wrong = (model.W_U[:, ids_of(words)].T for words in pairs)
    positions = steering.positions_of(batch, linear.predicting)
    for sign, share in ((1, 1.0), (-1, 0.0)):
        hooks = steering.add_after(SMALL.n_layers - 1, sign * 1000 * (wrong - right), positions)
        assert steering._turned(model, batch, hooks) == share


def test_adding_the_unembedding_of_a_word_makes_the_model_say_it(model):
    """The strongest steering there is: after the last block, along what the word's logit reads."""
    directions = torch.zeros(SMALL.n_layers, SMALL.d_model)
    word = model.W_U[:, world.VOCABULARY.index("true")]
    directions[-1] = word - model.W_U.mean(-1)
    batch = linear.claims(10, 0, "category")
    steered = steering.Steering(model, directions, batch, "true", linear.predicting)
    assert steered.share(SMALL.n_layers - 1, 1000.0) == 1.0
    assert steered.share(0, 1000.0) == steered.share(0, 0.0) < 1.0  # the direction after block 0 is zero
    assert steered.random_share(SMALL.n_layers - 1, 1000.0) == 0.0


# --- All together ---


@pytest.fixture(scope="module")
def measured(model) -> dict[str, dict[str, float]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "N_FIT", 120)
        patch.setattr(linear, "N_TEST", 40)
        patch.setattr(steering, "N_FIT", 60)
        patch.setattr(steering, "N_TEST", 20)
        patch.setattr(steering, "N_CHOOSE", 10)
        return {"linear": linear.measure(model), "steering": steering.measure(model)}


def test_measures_are_shares(measured):
    for rows in measured.values():
        for name, value in rows.items():
            assert isinstance(value, float) and 0 <= value <= (
                SMALL.n_layers if name.split(": ")[1] == "best block" else 1
            ), name


def test_every_row_chosen_for_all_layers_exists(measured):
    for name in linear._EVERY_LAYER:
        assert {f"{name}, embeddings", f"{name}, after block 0", f"{name}, after block 1"} <= measured["linear"].keys()
    for name in linear._EVERY_BLOCK:
        assert {f"{name}, after block 0", f"{name}, after block 1"} <= measured["linear"].keys()


def test_a_random_model_does_not_know_the_number(measured):
    rows = [value for name, value in measured["linear"].items() if name.startswith("number: probe accuracy, object")]
    assert len(rows) == SMALL.n_layers + 1 and max(rows) < 0.75


def test_nothing_steers_a_random_model(measured):
    names = [name for name in measured["steering"] if "untouched" in name or "added" in name]
    assert all(measured["steering"][name] < 0.5 for name in names if "refusal" in name)
