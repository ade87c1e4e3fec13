"""Pages on latents: every number against numpy, loops and scikit-learn; the HTML against a parser."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from utils import models
from utils.datasets import world
from utils.sae import SAE, Dashboard, ReLU, dashboard, pages, shipped

HOOK = "blocks.2.hook_resid_post"
LATENTS = list(range(0, 256, 8))
N_CONTEXTS, N_TOKENS = 5, 8


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return models.load("world", device="cpu")


@pytest.fixture(scope="module")
def known():
    return world.annotated(40, seed=7)


@pytest.fixture(scope="module")
def sae():
    return shipped("world_256")


@pytest.fixture(scope="module")
def shown(model, sae, known) -> Dashboard:
    return dashboard(model, sae, known.tokens, LATENTS, labels=known.labels, concepts=known.concepts)


@pytest.fixture(scope="module")
def words(model, known):
    return [[model.tokenizer.decode([token]) for token in row] for row in known.tokens.tolist()]


@pytest.fixture(scope="module")
def z(model, sae, known) -> np.ndarray:
    """All latents on all tokens, by hand: the eight largest pre-activations of each token, if they are above zero."""
    with torch.no_grad():
        _, cache = model.run_with_cache(known.tokens)
    x = cache[HOOK].double().numpy()
    W_enc, b_enc, b_dec = (value.detach().double().numpy() for value in (sae.W_enc, sae.b_enc, sae.b_dec))
    pre = (x - b_dec) @ W_enc + b_enc
    smallest_kept = np.sort(pre, axis=-1)[..., -8, None]
    values = np.where(pre >= smallest_kept, pre, 0).clip(0)
    values[:, 0] = 0
    return values[..., LATENTS]


def contexts_of(page):
    return [*page.strongest, *page.middle, *page.weakest]


def peak(context):
    return context.values[context.place].item()


def reading(direction, bias):
    """A dictionary of one latent that reads a direction."""
    sae = SAE(ReLU(0.0), len(direction), 1, hook=HOOK)
    with torch.no_grad():
        sae.W_enc[:, 0], sae.b_enc[0] = direction, bias
    return sae.requires_grad_(False)


# --- Numbers --------------------------------------------------------------------------------------


def test_one_page_for_each_latent_in_the_order_asked_for(model, sae, known, shown):
    assert [page.latent for page in shown] == LATENTS and len(shown) == len(LATENTS)
    other = dashboard(model, sae, known.tokens, [LATENTS[3], LATENTS[1], LATENTS[3]])
    assert [page.latent for page in other] == [LATENTS[3], LATENTS[1], LATENTS[3]]
    assert other[0].words == shown[3].words and other[1].words == shown[1].words
    assert other[0].concepts == ()


def test_density_and_largest(shown, z):
    assert len({page.density for page in shown}) > 10
    for i, page in enumerate(shown):
        assert page.density == pytest.approx((z[:, 1:, i] > 0).mean(), abs=1e-6)
        assert page.largest == pytest.approx(z[..., i].max(), rel=1e-4)


def test_the_histogram_holds_every_active_token_once(shown, z):
    for i, page in enumerate(shown):
        active = z[..., i][z[..., i] > 0]
        assert len(page.counts) == pages.BINS and sum(page.counts) == len(active)
        by_hand, _ = np.histogram(active, pages.BINS, (0, active.max()))
        # a value on the edge of two bins may fall into either
        assert np.abs(np.cumsum(by_hand) - np.cumsum(page.counts)).max() <= 1
        assert page.counts[-1] >= 1  # the largest value itself


def test_the_strongest_context_is_at_the_largest_value(shown, z, words):
    for i, page in enumerate(shown):
        row, pos = np.unravel_index(z[..., i].argmax(), z.shape[:2])
        first = page.strongest[0]
        assert peak(first) == page.largest == first.values.max().item()
        assert first.words[first.place] == words[row][pos]


def test_contexts_are_stretches_of_the_rows_around_their_peaks(shown, z, words):
    for i, page in enumerate(shown):
        windows = {}
        for row in range(len(z)):
            pos = int(z[row, :, i].argmax())
            start, stop = max(0, pos - 8), pos + 5
            windows.setdefault((*words[row][start:stop], pos - start), []).append(z[row, start:stop, i])
        for context in contexts_of(page):
            candidates = windows[(*context.words, context.place)]
            assert any(np.allclose(context.values, values, atol=1e-3) for values in candidates)
            assert len(context.words) == len(context.values) <= pages.AROUND + pages.AROUND // 2 + 1
            assert peak(context) > 0


def test_contexts_go_from_strong_to_weak(shown, z):
    lengths = set()
    for i, page in enumerate(shown):
        peaks = [peak(context) for context in contexts_of(page)]
        assert peaks == sorted(peaks, reverse=True)
        by_hand = np.sort(z[..., i].max(1))[::-1]
        by_hand = by_hand[by_hand > 0]
        assert len(peaks) == min(len(by_hand), 3 * N_CONTEXTS)
        assert np.allclose(peaks[:N_CONTEXTS], by_hand[:N_CONTEXTS], rtol=1e-4)
        last = len(page.weakest)
        assert np.allclose(peaks[len(peaks) - last :], by_hand[len(by_hand) - last :], rtol=1e-4)
        lengths.add(len(by_hand))
    assert min(lengths) < 3 * N_CONTEXTS < max(lengths)


@pytest.mark.parametrize("n_contexts", [1, 2, 5])
@pytest.mark.parametrize("n_rows", range(0, 41))
def test_no_row_is_in_two_lists(monkeypatch, model, sae, known, n_rows, n_contexts):
    """Rows with a peak of their own each, by which they are recognized."""
    made = torch.zeros(40, 64, 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(n_rows))[:n_rows]
    made[order, 1 + order % 63, 0] = 1.0 + torch.arange(n_rows)
    monkeypatch.setattr(pages, "_values", lambda *_: made)
    (page,) = dashboard(model, sae, known.tokens, [0], n_contexts=n_contexts)
    lists = [[peak(context) for context in part] for part in (page.strongest, page.middle, page.weakest)]
    found = [value for part in lists for value in part]
    assert len(found) == len(set(found)) == min(n_rows, 3 * n_contexts)
    assert found == sorted(found, reverse=True)
    if n_rows >= 3 * n_contexts:
        assert [len(part) for part in lists] == [n_contexts] * 3
        assert max(found) == n_rows and min(found) == 1
        assert np.mean(lists[1]) == pytest.approx((n_rows + 1) / 2, abs=1)


def test_raised_and_lowered_tokens(model, sae, shown):
    W_dec, W_U = sae.W_dec.detach().double().numpy(), model.W_U.detach().double().numpy()
    for page in shown:
        effects = W_dec[page.latent] @ W_U
        effects -= effects.mean()
        assert len(page.raised) == len(page.lowered) == N_TOKENS
        ordered = np.sort(effects)
        assert np.allclose([value for _, value in page.raised], ordered[::-1][:N_TOKENS], atol=1e-4)
        assert np.allclose([value for _, value in page.lowered], ordered[:N_TOKENS], atol=1e-4)
        for word, value in page.raised + page.lowered:
            assert effects[model.tokenizer.convert_tokens_to_ids(word)] == pytest.approx(value, abs=1e-4)


def test_words_and_their_shares(shown, z, words):
    for i, page in enumerate(shown):
        counted = Counter(words[row][pos] for row, pos in np.argwhere(z[..., i] > 0))
        first = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:N_TOKENS]
        assert [word for word, _ in page.words] == [word for word, _ in first]
        assert np.allclose([share for _, share in page.words], [n / counted.total() for _, n in first])


def test_concepts_are_those_that_scikit_learn_finds(shown, z, known):
    labels = known.labels[:, 1:].flatten(0, 1).numpy()
    position = {name: i for i, name in enumerate(known.concepts)}
    named = 0
    for i, page in list(enumerate(shown))[::4]:
        active = (z[:, 1:, i] > 0).ravel()
        every = np.array([f1_score(wanted, active, zero_division=0) for wanted in labels.T])
        best = np.sort(every)[::-1][:3]
        assert np.allclose([f1 for _, f1, _, _ in page.concepts], best[best > 0], atol=1e-6)
        for name, f1, precision, recall in page.concepts:
            wanted = labels[:, position[name]]
            assert f1 == pytest.approx(every[position[name]], abs=1e-6)
            assert precision == pytest.approx(precision_score(wanted, active), abs=1e-6)
            assert recall == pytest.approx(recall_score(wanted, active), abs=1e-6)
            named += 1
    assert named > len(LATENTS) // 4


def test_how_much_is_shown_can_be_set(model, sae, known):
    (page,) = dashboard(model, sae, known.tokens, [0], n_contexts=2, n_tokens=3)
    assert len(page.strongest) <= 2 and len(contexts_of(page)) <= 6
    assert len(page.raised) == len(page.lowered) == 3 and len(page.words) <= 3


def test_rows_at_once_make_no_difference(monkeypatch, model, sae, known, shown):
    monkeypatch.setattr(pages, "ROWS_AT_ONCE", 7)
    again = dashboard(model, sae, known.tokens, LATENTS)
    for page, other in zip(shown, again, strict=True):
        assert page.words == other.words and page.density == other.density
        assert page.largest == pytest.approx(other.largest, rel=1e-4)


# --- The first position, and silence --------------------------------------------------------------


def test_the_first_position_is_never_counted(model, known):
    """A latent that reads what is special about <bos>: with a bias that only <bos> exceeds, and with a smaller one."""
    with torch.no_grad():
        _, cache = model.run_with_cache(known.tokens)
    x = cache[HOOK]
    centred = (x - x[:, 1:].mean((0, 1))).flatten(0, 1)
    first = (torch.arange(x.shape[1]) == 0).float().repeat(len(x))
    direction = torch.linalg.lstsq(centred, first[:, None]).solution[:, 0]
    direction = 100 * direction / direction.norm()
    at_first, elsewhere = (x[:, 0] @ direction).min().item(), (x[:, 1:] @ direction).flatten()
    assert at_first > elsewhere.max() + 1
    labels = torch.zeros(*known.tokens.shape, 1, dtype=torch.bool)
    labels[:, 0] = True

    def page_of(bias):
        return dashboard(model, reading(direction, bias), known.tokens, [0], labels=labels, concepts=["first"])[0]

    page = page_of(-(at_first + elsewhere.max().item()) / 2)
    assert page.density == page.largest == sum(page.counts) == 0
    assert contexts_of(page) == [] and page.words == page.concepts == ()
    ordered = elsewhere.sort().values
    cut = (ordered[-101] + ordered[-100]).item() / 2
    page = page_of(-cut)
    assert sum(page.counts) == 100 and page.density == pytest.approx(100 / elsewhere.numel())
    assert page.largest == pytest.approx(ordered[-1].item() - cut, abs=1e-3) and page.concepts == ()
    assert len(page.strongest) == N_CONTEXTS and "<bos>" not in dict(page.words)
    assert all(context.words[context.place] != "<bos>" for context in contexts_of(page))


def test_labels_at_the_first_position_do_not_count(model, sae, known, shown):
    labels = known.labels.clone()
    labels[:, 0] = ~labels[:, 0]
    again = dashboard(model, sae, known.tokens, LATENTS, labels=labels, concepts=known.concepts)
    assert [page.concepts for page in again] == [page.concepts for page in shown]


def test_a_latent_that_never_fires_has_a_page_without_contexts(model, sae, known, shown):
    silent = deepcopy(sae)
    with torch.no_grad():
        silent.b_enc[8] = -1e6
    (page,) = dashboard(model, silent, known.tokens, [8], labels=known.labels, concepts=known.concepts)
    assert page.density == page.largest == 0 and page.counts == (0,) * pages.BINS
    assert page.strongest == page.middle == page.weakest == page.words == page.concepts == ()
    for would, does in zip(page.raised + page.lowered, shown[1].raised + shown[1].lowered, strict=True):
        assert would[0] == does[0] and would[1] == pytest.approx(does[1], abs=1e-4)
    text = page._repr_html_()
    assert "latent 8" in text and "active on 0.0% of the tokens" in text
    assert not any(title in text for title in ("strongest", "middle", "weakest", "annotations that fit"))
    assert Read(text).labels == ["Histogram of the values above zero, from 0 to 0; the fullest bin holds 0 tokens."]


def test_a_latent_that_fires_once(model, sae, known, monkeypatch):
    made = torch.zeros(40, 64, 1)
    made[3, 63] = 2.0  # the last token of a row
    monkeypatch.setattr(pages, "_values", lambda *_: made)
    (page,) = dashboard(model, sae, known.tokens, [0])
    (context,) = contexts_of(page)
    assert page.strongest == (context,) and context.place == len(context.words) - 1 == 8
    assert page.counts == (0,) * (pages.BINS - 1) + (1,) and page.largest == 2
    assert page.words == ((context.words[-1], 1.0),)


def test_the_dashboard_leaves_its_arguments_alone(model, sae, known):
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    tokens, labels = known.tokens.clone(), known.labels.clone()
    dashboard(model, sae, known.tokens, [0, 1], labels=known.labels, concepts=known.concepts)
    assert known.tokens.equal(tokens) and known.labels.equal(labels)
    assert all(value.equal(before[name]) for name, value in sae.state_dict().items())


# --- HTML -----------------------------------------------------------------------------------------


class Read(HTMLParser):
    """The tags, attributes and text of a piece of HTML; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.labels, self.opened = Counter(), set(), [], [], []
        self.folds = []
        self.feed(text)
        self.close()
        assert not self.opened

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.labels += [value for name, value in attrs if name == "aria-label"]
        if tag == "details":
            self.folds.append("open" in dict(attrs))
        self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_html_holds_inline_styles_and_text_only(shown):
    read = Read(shown._repr_html_())
    assert set(read.tags) == {"div", "span", "b", "details", "summary"}
    assert read.attributes == {"style", "title", "role", "aria-label", "open"}
    assert "http" not in shown._repr_html_() and "url(" not in shown._repr_html_()


def test_tokens_and_names_are_escaped(model, sae, known, shown):
    text = shown._repr_html_()
    assert any("<bos>" in context.words for page in shown for context in contexts_of(page))
    assert "<bos>" not in text and "&lt;bos&gt;" in text and "<bos>" in Read(text).texts
    names = [f"<script>alert('{i}')</script> & <b>" for i in range(len(known.concepts))]
    named = dashboard(model, sae, known.tokens, LATENTS, labels=known.labels, concepts=names)
    read = Read(named._repr_html_())
    assert "script" not in read.tags
    assert read.tags == Read(text).tags
    assert any(names[0][:8] in each for each in read.texts)


def test_every_page_is_in_it_and_the_first_is_open(shown):
    read = Read(shown._repr_html_())
    assert read.folds == [True] + [False] * (len(LATENTS) - 1)
    assert [t for t in read.texts if t.startswith("latent ")] == [f"latent {n}" for n in LATENTS for _ in range(2)]
    for page in shown:
        name, f1, *_ = page.concepts[0]
        assert f": {name} (F1 {f1:.2f})" in read.texts


def test_what_is_seen_is_also_said(shown):
    labels = Read(shown._repr_html_()).labels
    assert labels == [
        f"Histogram of the values above zero, from 0 to {page.largest:.3g}; the fullest bin holds {max(page.counts)} "
        "tokens."
        for page in shown
    ]


def test_the_page_shows_its_numbers(shown):
    for page in shown:
        text = page._repr_html_()
        texts = Read(text).texts
        assert f"active on {page.density:.1%} of the tokens, largest value {page.largest:.3g}" in texts
        for name, f1, precision, recall in page.concepts:
            assert f"{name}: F1 {f1:.2f} (precision {precision:.2f}, recall {recall:.2f})" in texts
        for _, value in page.raised + page.lowered:
            assert f"{value:+.2f}" in texts
        for _, share in page.words:
            assert f"{share:.0%}" in texts
        for context in contexts_of(page):
            assert f"title='{peak(context):.3g}'" in text
        assert text.count("outline:1px solid") == len(contexts_of(page))


def test_words_are_shaded_by_their_value(model, sae, known, monkeypatch):
    made = torch.zeros(40, 64, 1)
    made[3, 20:23, 0] = torch.tensor([1.0, 4.0, 2.0])
    monkeypatch.setattr(pages, "_values", lambda *_: made)
    (page,) = dashboard(model, sae, known.tokens, [0])
    text = page._repr_html_()
    assert [text.count(f",{alpha});") for alpha in ("0.21", "0.85", "0.42")] == [1, 1, 1]


# --- Bad input ------------------------------------------------------------------------------------


def transcoder():
    return SAE(ReLU(0.0), 128, 4, d_out=128, hook=HOOK)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"latents": []}, ValueError, r"latents is \[\]"),
        ({"latents": [0, 256]}, ValueError, r"latents is \[0, 256\], expected some of 0 to 255"),
        ({"latents": [-1]}, ValueError, "latents is -1"),
        ({"latents": [1.0]}, TypeError, "latents is 1.0"),
        ({"latents": [True]}, TypeError, "latents is True"),
        ({"sae": SAE(ReLU(0.0), 128, 4)}, ValueError, "hook point"),
        ({"sae": SAE(ReLU((0.0, 1.0)), 128, 4, hook=HOOK)}, ValueError, "one autoencoder"),
        ({"sae": transcoder()}, ValueError, "one autoencoder"),
        ({"sae": SAE(ReLU(0.0), 128, 4, hook="blocks.9.hook_resid_post")}, ValueError, "hook is 'blocks.9"),
        ({"sae": SAE(ReLU(0.0), 64, 4, hook=HOOK)}, ValueError, "sae writes width 64, expected"),
        ({"tokens": torch.zeros(5, dtype=torch.long)}, ValueError, r"tokens is torch.int64 \[5\]"),
        ({"tokens": torch.zeros(2, 5)}, ValueError, "tokens is torch.float32"),
        ({"tokens": torch.full((2, 5), 10_000)}, ValueError, "tokens holds ids outside"),
        ({"tokens": torch.zeros(2, 65, dtype=torch.long)}, ValueError, "expected rows of 2 to 64"),
        ({"labels": torch.zeros(40, 64, 2)}, ValueError, "labels is torch.float32"),
        ({"labels": torch.zeros(40, 64, 3) > 0}, ValueError, r"labels is torch.bool \[40, 64, 3\]"),
        ({"labels": torch.zeros(40, 63, 2) > 0}, ValueError, r"labels is .*expected Bool \[40, 64, 2\]"),
        ({"n_contexts": 0}, ValueError, "n_contexts is 0"),
        ({"n_tokens": 1.5}, TypeError, "n_tokens is 1.5"),
    ],
)
def test_bad_input_is_named(model, sae, known, changes, error, says):
    given = {"sae": sae, "tokens": known.tokens, "latents": [0], "concepts": ["one", "two"]} | changes
    with pytest.raises(error, match=says):
        dashboard(model, **given)


def test_pages_are_immutable_records(shown):
    page = replace(shown[0], latent=77)
    assert "latent 77" in page._repr_html_() and shown[0].latent == LATENTS[0]
    with pytest.raises(AttributeError):
        page.latent = 3
