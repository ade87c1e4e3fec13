"""The structural probe: trees and scores against networkx and scipy, the fit on planted tree geometry."""

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from utils.datasets import world
from utils.probes.structural import (
    Trees,
    chain,
    fit_distance_probe,
    punctuation,
    spanning_tree,
    spearman,
    tree_distances,
    tree_scores,
    unprojected,
    uuas,
)

D = 20
# The dog saw a cat .
HEADS = (0, 2, 3, 0, 5, 3, 3)
TOKENS = ("<bos>", "The", "dog", "saw", "a", "cat", ".")


def random_heads(n, seed):
    """A random tree over positions 1 to n - 1, in random order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.arange(1, n))
    heads = [0] * n
    for i, token in enumerate(order[1:], 1):
        heads[token] = int(order[rng.integers(i)])
    return tuple(heads)


def graph(heads):
    g = nx.Graph()
    g.add_nodes_from(range(1, len(heads)))
    g.add_edges_from((i, head) for i, head in enumerate(heads) if i and head)
    return g


def embedded(trees, heads, seed):
    """Activations whose squared distances in a hidden plane are the trees', mixed with louder noise.

    Each position has an axis of its own, and a token is the sum of the axes on its path to the root: two tokens differ
    by one unit for each edge between them.
    """
    rng = np.random.default_rng(seed)
    h = np.zeros((*trees.mask.shape, D))
    for i, sentence in enumerate(heads):
        for token in range(1, len(sentence)):
            at = token
            while sentence[at]:
                h[i, token, at] += 1
                at = sentence[at]
    h[..., 12:] = 3 * rng.normal(size=(*trees.mask.shape, D - 12))
    mix = np.random.default_rng(99).normal(size=(D, D))
    return torch.tensor(h @ mix, dtype=torch.float32)


@pytest.fixture(scope="module")
def planted():
    """80 trees to fit on and 20 to test on, and their activations at two sites (the second is noise)."""
    heads = [random_heads(6 + i % 5, i) for i in range(100)]
    fit, test = Trees.of(heads[:80], length=12), Trees.of(heads[80:], length=12)
    noise = torch.randn(2, 80, 12, D, generator=torch.Generator().manual_seed(0))
    h, h_test = embedded(fit, heads[:80], 1), embedded(test, heads[80:], 2)
    return fit, test, torch.stack([h, noise[0]]), torch.stack([h_test, noise[1, :20]]), heads


@pytest.fixture(scope="module")
def probe(planted):
    fit, _, h, _, _ = planted
    return fit_distance_probe(h, fit.distances, fit.mask, rank=12, steps=1200, lr=0.05, batch_size=None)


# --- Trees ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 7, 15])
def test_distances_are_lengths_of_paths(n):
    for seed in range(5):
        heads = random_heads(n, seed)
        paths = dict(nx.all_pairs_shortest_path_length(graph(heads)))
        distances = tree_distances(heads)
        assert distances.shape == (n, n)
        assert (distances[0] == 0).all()
        assert (distances[:, 0] == 0).all()
        assert all(distances[i, j] == paths[i][j] for i in range(1, n) for j in range(1, n))


def test_the_trees_of_the_world_language():
    sentences = [s for kind in ("fact", "agreement", "person") for s in world.sentences(kind, 20, seed=0)]
    heads, ignore = [s.heads for s in sentences], [punctuation(s.tokens) for s in sentences]
    trees = Trees.of(heads, ignore)
    for sentence, mask, edges in zip(sentences, trees.mask, trees.edges, strict=True):
        counted = {i for i, token in enumerate(sentence.tokens) if i and token not in {".", "?", "!", ",", ":"}}
        assert set(mask.nonzero().flatten().tolist()) == counted
        assert nx.is_tree(nx.Graph(list(edges)))
        assert set(nx.Graph(list(edges))) == counted
        assert edges == {tuple(sorted(e)) for e in graph(sentence.heads).subgraph(counted).edges}


def test_punctuation_has_no_letter():
    assert punctuation(("<bos>", "Today", "'s", "3", ".", "?!", "--")) == (4, 5, 6)


def test_padded_trees():
    trees = Trees.of([HEADS, (0, 0, 1)], [(6,), ()], length=9)
    assert trees.mask[0].tolist() == [False, True, True, True, True, True, False, False, False]
    assert trees.mask[1].tolist() == [False, True, True] + [False] * 6
    assert trees.distances[0, 1, 4] == 4  # The - dog - saw - cat - a
    assert (trees.distances[0, 6] == 0).all()
    assert trees.edges == (frozenset({(1, 2), (2, 3), (4, 5), (3, 5)}), frozenset({(1, 2)}))


@pytest.mark.parametrize("ties", [False, True])
def test_spanning_tree_is_minimal(ties):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        distance = rng.integers(0, 4, (8, 8)).astype(float) if ties else rng.normal(size=(8, 8)) ** 2
        distance = np.triu(distance, 1) + np.triu(distance, 1).T
        edges = spanning_tree(torch.tensor(distance))
        assert nx.is_tree(nx.Graph(list(edges)))
        assert all(i < j for i, j in edges)
        weighted = nx.Graph([(i, j, {"weight": distance[i, j]}) for i in range(8) for j in range(i)])
        best = nx.minimum_spanning_tree(weighted).size("weight")
        assert sum(distance[edge] for edge in edges) == pytest.approx(best)


def test_equal_words_are_linked_and_masked_ones_are_not():
    points = torch.tensor([[0.0], [5.0], [5.0], [9.0], [1.0]])
    distance = torch.cdist(points, points) ** 2
    assert spanning_tree(distance) >= {(1, 2), (0, 4)}
    mask = torch.tensor([True, True, False, True, False])
    assert spanning_tree(distance, mask) == {(0, 1), (1, 3)}
    assert chain(mask) == {(0, 1), (1, 3)}
    assert spanning_tree(torch.zeros(1, 1)) == frozenset()


# --- Scores ---------------------------------------------------------------------------------------


def test_uuas_counts_edges_of_all_sentences():
    gold = [(1, 2), (2, 3), (4, 5), (3, 5), (3, 6)]
    assert uuas([gold], [HEADS]) == 1
    assert uuas([gold[:2]], [HEADS]) == pytest.approx(2 / 5)  # of the true edges, not of those predicted
    assert uuas([[]], [HEADS]) == 0
    assert uuas([[(2, 1), (3, 2), (5, 4), (5, 3)]], [HEADS], [punctuation(TOKENS)]) == 1  # direction is no matter
    assert uuas([[(1, 2), (2, 4), (3, 4), (3, 5)]], [HEADS], [(6,)]) == 0.5
    chains = [chain(torch.tensor([False, True, True, True, True, True])), [(1, 2)]]
    assert uuas(chains, [HEADS, (0, 0, 1)], [(6,), ()]) == pytest.approx(4 / 5)


@pytest.mark.parametrize("with_self", [True, False])
def test_spearman_is_that_of_scipy(planted, with_self):
    fit, _, h, _, _ = planted
    predicted = unprojected(D).distances(h)
    found = spearman(predicted, fit.distances, fit.mask, with_self=with_self, lengths=(6, 8))
    for site in range(2):
        by_length = {}
        for guess, true, mask in zip(predicted[site], fit.distances, fit.mask, strict=True):
            counted = mask.nonzero().flatten()
            for word in counted:
                others = counted if with_self else counted[counted != word]
                if len(true[word, others].unique()) > 1:
                    value = spearmanr(guess[word, others], true[word, others]).statistic
                    by_length.setdefault(len(counted), []).append(value)
        assert set(by_length) > {6, 7, 8}
        expected = np.mean([np.mean(by_length[length]) for length in (6, 7, 8)])
        assert found[site] == pytest.approx(expected, abs=1e-5)


def test_spearman_of_the_truth_and_of_no_difference():
    trees = Trees.of([HEADS])
    true = trees.distances.float()
    assert spearman(true, trees.distances, trees.mask) == pytest.approx(1)
    assert spearman(-true, trees.distances, trees.mask) == pytest.approx(-1)
    assert spearman(torch.zeros_like(true), trees.distances, trees.mask) == 0


# --- Probe ----------------------------------------------------------------------------------------


def test_planted_trees_are_read_off_held_out_sentences(planted, probe):
    _, test, _, h, heads = planted
    predicted = probe.distances(h)
    scores = tree_scores(predicted, test)
    assert scores.uuas[0] > 0.95
    assert scores.spearman[0] > 0.95
    assert scores.uuas[1] < 0.6
    assert tree_scores(unprojected(D).distances(h), test).uuas[0] < 0.6
    edges = [spanning_tree(d, m) for d, m in zip(predicted[0], test.mask, strict=True)]
    assert scores.uuas[0] == pytest.approx(uuas(edges, heads[80:]))
    pairs = test.mask[:, :, None] & test.mask[:, None, :]
    assert (predicted[0] - test.distances)[pairs].abs().mean() < 0.3


def test_distances_are_squared_norms_of_projected_differences(planted, probe):
    _, _, _, h, _ = planted
    z = torch.einsum("...d,srd->...r", h[:1], probe.projection[:1]).double()
    assert torch.allclose(probe.distances(h)[0], (torch.cdist(z, z)[0] ** 2).float(), atol=1e-3, rtol=1e-3)
    assert torch.allclose(unprojected(D).distances(h), torch.cdist(h.double(), h.double()).float() ** 2, rtol=1e-3)
    assert (probe.distances(h).diagonal(dim1=-2, dim2=-1) == 0).all()
    assert (probe.distances(h + 1e3)[0] - probe.distances(h)[0]).abs().max() < 0.1


def test_loss_is_that_of_the_paper(planted, probe):
    fit, _, h, _, _ = planted
    predicted = probe.distances(h)
    for site in range(2):
        total = 0.0
        for guess, true, mask in zip(predicted[site], fit.distances, fit.mask, strict=True):
            n = int(mask.sum())
            total += float((guess - true)[mask][:, mask].abs().sum()) / n**2
        assert probe.loss[site] == pytest.approx(total / 80, rel=1e-3)


def test_loss_goes_down_to_zero_where_it_can_and_not_below_the_best_constant(planted, probe):
    assert probe.loss[0] < 0.1
    assert probe.loss[1] > 0.3


def test_what_does_not_count_has_no_effect(planted):
    fit, _, h, _, _ = planted
    plain = fit_distance_probe(h, fit.distances, fit.mask, 4, steps=20)
    spoilt = torch.where(fit.mask[:, :, None], h, 1e4)
    lies = torch.where(fit.mask[:, :, None] & fit.mask[:, None, :], fit.distances, 77)
    longer = torch.cat([spoilt, spoilt[:, :, :3]], 2)
    distances, mask = torch.nn.functional.pad(lies, (0, 3, 0, 3)), torch.nn.functional.pad(fit.mask, (0, 3))
    assert torch.allclose(
        fit_distance_probe(spoilt, lies, fit.mask, 4, steps=20).projection, plain.projection, atol=1e-4
    )
    assert torch.allclose(
        fit_distance_probe(longer, distances, mask, 4, steps=20).projection, plain.projection, atol=1e-4
    )


def test_a_site_alone_is_fitted_as_in_a_batch_and_units_are_no_matter(planted):
    fit, _, h, _, _ = planted
    together = fit_distance_probe(h, fit.distances, fit.mask, 4, steps=20, batch_size=30)
    alone = fit_distance_probe(h[1], fit.distances, fit.mask, 4, steps=20, batch_size=30)
    large = fit_distance_probe(1000 * h, fit.distances, fit.mask, 4, steps=20, batch_size=30)
    assert together.projection.shape == (2, 4, D)
    assert torch.allclose(together.projection[1], alone.projection, atol=1e-4)
    assert torch.allclose(together.projection, 1000 * large.projection, atol=1e-4)
    assert fit_distance_probe(h[:, None], fit.distances, fit.mask, steps=1).projection.shape == (2, 1, D, D)


def test_rank_is_respected(planted):
    fit, _, h, _, _ = planted
    one = fit_distance_probe(h[0], fit.distances, fit.mask, 1, steps=100)
    assert torch.linalg.matrix_rank(one.projection) == 1
    assert one.loss > 0.2


def test_seed_decides_and_the_global_state_is_left_alone(planted):
    fit, _, h, _, _ = planted
    before = torch.random.get_rng_state()
    first, again, other = (
        fit_distance_probe(h, fit.distances, fit.mask, 2, steps=5, batch_size=20, seed=seed).projection
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((0, 0, 0), r"positions \[0, 1, 2\] have head 0"),
        ((0, 2, 1), r"positions \[0\] have head 0"),
        ((0, 0, 3, 2), "position 2 does not lead to the root at 1"),
        ((0, 0, 9), "position 2 has head 9"),
        ((0, 0, 2), "position 2 has head 2"),
        ((0,), "one root"),
        ((1, 0), "one root"),
    ],
)
def test_heads_that_make_no_tree(heads, message):
    with pytest.raises(ValueError, match=message):
        tree_distances(heads)
    with pytest.raises(ValueError, match="heads of sentence 1"):
        Trees.of([HEADS, heads])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Trees.of([]), "heads is empty"),
        (lambda: Trees.of([HEADS], [(1, 2), (3,)]), "ignore is of 2 sentences"),
        (lambda: Trees.of([HEADS], [(9,)]), "ignore: sentence 0"),
        (lambda: Trees.of([(0, 0, 1)], [(2,)]), "sentence 0 has 1 tokens that count"),
        (lambda: Trees.of([HEADS], length=3), "length is 3"),
        (lambda: spanning_tree(torch.rand(3, 4)), "distance has shape"),
        (lambda: spanning_tree(torch.tensor([[0.0, torch.nan], [1.0, 0.0]])), "distance holds 1 NaN"),
        (lambda: spanning_tree(torch.tensor([[0.0, 2.0], [1.0, 0.0]])), "not symmetric"),
        (lambda: spanning_tree(torch.zeros(2, 2), torch.ones(3, dtype=torch.bool)), "mask has shape"),
        (lambda: uuas([[(1, 2)]], [HEADS, HEADS]), "predicted_edges is of 1"),
        (lambda: uuas([[(i, j) for i in range(7) for j in range(i)]], [HEADS]), "no tree"),
    ],
)
def test_bad_trees_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"h": torch.full((1, 7, 3), torch.nan)}, "h holds 21 NaN"),
        ({"h": torch.rand(2, 7, 3)}, "distances has shape"),
        ({"h": torch.rand(7, 3)}, "h is"),
        ({"h": torch.ones(2, 1, 7, 3)}, "h: at site 0 the tokens"),
        ({"mask": torch.ones(1, 6, dtype=torch.bool)}, "mask has shape"),
        ({"mask": torch.ones(1, 7)}, "mask has shape .*float32"),
        ({"mask": torch.arange(7)[None] == 3}, "sentence 0 has 1 tokens that count"),
        ({"rank": 0}, "rank is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_bad_input_to_the_fit_is_named(changes, message):
    trees = Trees.of([HEADS])
    arguments = {"h": torch.rand(1, 7, 3), "distances": trees.distances, "mask": trees.mask} | changes
    with pytest.raises(ValueError, match=message):
        fit_distance_probe(**arguments)


def test_bad_input_to_a_fitted_probe_is_named(planted, probe):
    _, test, _, h, _ = planted
    with pytest.raises(ValueError, match=r"expected \[2, sentence, pos, 20\]"):
        probe.distances(h[0])
    with pytest.raises(ValueError, match="lengths is"):
        spearman(probe.distances(h), test.distances, test.mask, lengths=(20, 50))
