"""Control tasks: one label per type, drawn from the labels' distribution, and nothing else in them."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.tree import DecisionTreeClassifier

from utils.probes.controls import control_labels, control_task, selectivity

Y = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)


def test_types_are_labelled_from_the_distribution_of_the_tokens():
    labels = control_task(Y)([f"word{i}" for i in range(5000)])
    counts = torch.bincount(labels, minlength=3).numpy()
    assert chisquare(counts, np.array([0.7, 0.2, 0.1]) * 5000).pvalue > 0.001


def test_labels_of_different_types_are_independent():
    labels = control_task(torch.tensor([0, 1]))([f"w{i}" for i in range(4000)]).numpy()
    assert abs(np.corrcoef(labels[:-1], labels[1:])[0, 1]) < 0.06


def test_a_type_has_one_label_whatever_stands_around_it():
    types = ["cat", "dog", "the", "cat", "the", "bird", "fish", "cat", "owl", "elk"] * 10
    labels = control_labels(types, Y)
    by_type = {word: {int(label) for t, label in zip(types, labels, strict=True) if t == word} for word in set(types)}
    assert all(len(of_type) == 1 for of_type in by_type.values())
    assert len(set.union(*by_type.values())) > 1
    assert torch.equal(control_labels(types[::-1], Y), labels.flip(0))
    assert control_task(Y)(["fish", "unseen"])[0] == labels[types.index("fish")]


def test_the_draw_is_a_hash_and_so_the_same_in_every_process():
    digest = hashlib.blake2b(b"3|str|cat", digest_size=8).digest()
    quantile = int.from_bytes(digest, "big") / 2**64
    expected = 0 if quantile < 0.7 else 1 if quantile < 0.9 else 2
    assert control_task(Y, seed=3)(["cat"]).item() == expected


def test_seeds_give_other_tasks_and_the_global_states_are_left_alone():
    words = [f"w{i}" for i in range(100)]
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (control_labels(words, Y, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()


def test_token_ids_are_types_too():
    ids = torch.arange(100) % 40
    assert torch.equal(control_labels(ids, Y), control_labels(ids.tolist(), Y))
    assert torch.equal(control_labels(ids.numpy(), Y), control_labels(ids, Y))


def test_a_probe_that_memorises_words_has_no_selectivity_and_fails_on_new_words():
    types = torch.arange(600) % 60
    y = ((torch.arange(600) % 60) < 30).long()
    control = control_labels(types, y)
    words = torch.eye(60)[types]
    memory = DecisionTreeClassifier(random_state=0)
    assert selectivity(memory.fit(words, y).score(words, y), memory.fit(words, control).score(words, control)) == 0
    new = types >= 30
    assert abs(memory.fit(words[~new], control[~new]).score(words[new], control[new]) - 0.5) < 0.3


def test_selectivity_is_a_difference():
    assert selectivity(0.97, 0.9) == pytest.approx(0.07)
    found = selectivity(torch.tensor([0.9, 0.5]), torch.tensor([0.4, 0.6]))
    assert torch.allclose(found, torch.tensor([0.5, -0.1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: control_labels(["a"] * 3, [0, 1]), "types has 3 entries and y 2"),
        (lambda: control_labels(["a", "b"], [1, 1]), "y has one class only"),
        (lambda: control_labels(["a", "b"], [0.5, 1.0]), "y has shape"),
        (lambda: control_labels(["a", "b"], [-1, 1]), "y has shape"),
        (lambda: control_labels(["a", "a"], [0, 1]), "take another one"),
        (lambda: selectivity(1.2, 0.5), "real_accuracy goes from 1.2"),
        (lambda: selectivity(torch.tensor([0.1, torch.nan]), torch.rand(2)), "real_accuracy holds 1 NaN"),
        (lambda: selectivity(torch.rand(2), torch.rand(3)), "control_accuracy has shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("types", "message"), [("ab", "one string"), ([1.5, 2.5], "types holds 1.5")])
def test_types_are_strings_or_integers(types, message):
    with pytest.raises(TypeError, match=message):
        control_labels(types, [0, 1])
