"""Activations and streams: against `run_with_cache`, and a model whose activations say which token they come from."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.local_gpt2 import make_local_gpt2
from utils import models
from utils.datasets import world
from utils.sae import Stream, TopK, activations, streams, train

HOOK, OTHER = "blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A byte-level GPT-2 with three blocks, two heads and random weights."""
    folder = make_local_gpt2(tmp_path_factory.mktemp("models") / "gpt2", n_layers=3, d_model=24, n_ctx=32, std=0.4)
    return models.load(folder, device="cpu")


class Telltale:
    """Stands in for a model: at HOOK an activation is [token, position], at OTHER it is ten times that."""

    def __init__(self):
        self.hook_dict = dict.fromkeys([HOOK, OTHER, "blocks.0.hook_resid_post"])
        self.cfg, self.W_U = SimpleNamespace(n_ctx=64, n_layers=3, d_vocab=10**9), torch.zeros(1)
        self.passes = []

    def run_with_cache(self, rows, names_filter, stop_at_layer):
        self.passes.append((len(rows), stop_at_layer))
        here = torch.stack([rows, torch.arange(rows.shape[1]).expand_as(rows)], dim=-1).float()
        cache = {HOOK: here, OTHER: 10 * here, "blocks.0.hook_resid_post": here}
        return None, {name: value for name, value in cache.items() if names_filter(name)}


def numbered(n_rows, n_pos=8):
    """Every token another number, rising along the text."""
    return torch.arange(n_rows * n_pos).reshape(n_rows, n_pos)


def ids(model, batch=6, pos=9, seed=0):
    return torch.randint(model.cfg.d_vocab, (batch, pos), generator=torch.Generator().manual_seed(seed))


def seen(stream):
    return torch.cat([(batch[0] if isinstance(batch, tuple) else batch)[:, 0] for batch in stream]).long()


# --- All at once ----------------------------------------------------------------------------------

SITES = [
    "hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_attn_out",
    "blocks.0.hook_mlp_out", "blocks.1.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.2.hook_resid_post",
    "blocks.1.mlp.hook_pre", "blocks.1.mlp.hook_post", "blocks.1.ln1.hook_normalized", "ln_final.hook_normalized",
]  # fmt: skip


@pytest.mark.parametrize("hook", SITES)
def test_activations_are_those_of_the_cache_without_the_first_of_each_row(model, hook):
    tokens = ids(model)
    _, cache = model.run_with_cache(tokens)
    read = activations(model, tokens, hook)
    expected = torch.cat([cache[hook][row, 1:] for row in range(6)])
    torch.testing.assert_close(read, expected)
    assert read.dim() == 2 and not read.requires_grad


@pytest.mark.filterwarnings("ignore:run_with_cache. skipped")
def test_every_name_the_model_has_is_read_or_refused(model):
    """What is read is what the cache holds; heads, patterns and hooks that do not fire are refused."""
    tokens, refused = ids(model), 0
    _, cache = model.run_with_cache(tokens)
    for hook in model.hook_dict:
        try:
            read = activations(model, tokens, hook)
        except ValueError as error:
            assert str(error).startswith(f"hook {hook!r} gives")
            refused += 1
            continue
        assert read.dim() == 2
        torch.testing.assert_close(read, cache[hook][:, 1:].flatten(0, 1))
    assert refused < len(model.hook_dict) / 2


def test_masked_activations(model):
    tokens = ids(model)
    _, cache = model.run_with_cache(tokens)
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[2, 0] = True
    before = mask.clone()
    read = activations(model, tokens, HOOK, mask=mask)
    expected = [cache[HOOK][r, p] for r in range(6) for p in range(1, 9) if mask[r, p]]
    torch.testing.assert_close(read, torch.stack(expected))
    assert mask.equal(before)
    everything = activations(model, tokens, HOOK, mask=torch.ones(6, 9, dtype=torch.bool))
    assert everything.equal(activations(model, tokens, HOOK))


@pytest.mark.parametrize("at_once", [1, 9, 20, 1000])
def test_many_rows_are_read_a_few_at_a_time(model, monkeypatch, at_once):
    tokens, mask = ids(model, 7), torch.rand(7, 9, generator=torch.Generator().manual_seed(1)) < 0.6
    whole, masked = activations(model, tokens, HOOK), activations(model, tokens, HOOK, mask=mask)
    sizes, run = [], model.run_with_cache
    monkeypatch.setattr(model, "run_with_cache", lambda rows, **kw: sizes.append(len(rows)) or run(rows, **kw))
    monkeypatch.setattr(streams, "AT_ONCE", at_once)
    torch.testing.assert_close(activations(model, tokens, HOOK), whole)
    assert sum(sizes) == 7 and max(sizes) == min(7, max(1, at_once // 9))
    torch.testing.assert_close(activations(model, tokens, HOOK, mask=mask), masked)


def test_only_the_blocks_below_the_hook_are_run():
    told = Telltale()
    activations(told, numbered(3), OTHER)
    activations(told, numbered(3), HOOK)
    assert [stop for _, stop in told.passes] == [1, 2]


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_tokens_may_be_any_integers(model, dtype):
    assert activations(model, ids(model).to(dtype), HOOK).equal(activations(model, ids(model), HOOK))


def test_reading_leaves_the_model_and_the_gradients_setting_alone(model):
    tokens = ids(model)
    before = model(tokens)
    activations(model, tokens, HOOK)
    list(itertools.islice(Stream(model, tokens, HOOK, batch_size=8, buffer=16), 2))
    assert torch.is_grad_enabled()
    assert model(tokens).equal(before)


# --- Streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "buffer"), [(8, 16), (16, 256), (10, 10_000), (1, 50)])
def test_no_activation_comes_twice_and_none_is_made_up(batch_size, buffer):
    tokens = numbered(200)
    stream = Stream(Telltale(), tokens, HOOK, batch_size=batch_size, buffer=buffer)
    batches = list(stream)
    assert all(batch.shape == (batch_size, 2) for batch in batches)
    given = torch.cat(batches).long()
    assert given[:, 0].unique().numel() == len(given)
    assert (given[:, 0] % 8 == given[:, 1]).all() and given[:, 1].min() == 1  # each with its position, never <bos>
    assert len(given) > 0.5 * 1400


@pytest.mark.parametrize("rows", [3, 64])
@pytest.mark.parametrize(("batch_size", "buffer"), [(100, 5000), (7, 140), (8, 64), (16, 100), (4, 8), (5, 40)])
def test_every_activation_comes_exactly_once_up_to_the_last_rest(batch_size, buffer, rows):
    tokens = numbered(200)
    given = seen(Stream(Telltale(), lambda: tokens.split(rows), HOOK, batch_size=batch_size, buffer=buffer))
    assert given.unique().numel() == len(given)
    assert 1400 - batch_size < len(given) <= 1400


def test_activations_are_those_of_the_cache(model):
    tokens = ids(model, 40, 9)
    everything = activations(model, tokens, HOOK)
    given = torch.cat(list(Stream(model, tokens, HOOK, batch_size=10, buffer=1000)))
    assert given.shape == everything.shape and not given.requires_grad
    between = torch.cdist(given, everything, compute_mode="donot_use_mm_for_euclid_dist")
    assert between.min(0).values.max() < 1e-4 and between.min(1).values.max() < 1e-4
    assert sorted(given.sum(1).tolist()) == pytest.approx(sorted(everything.sum(1).tolist()), abs=1e-3)


def test_neighbours_come_out_far_apart():
    tokens = numbered(2000)
    given = seen(Stream(Telltale(), tokens, HOOK, batch_size=50, buffer=4000)).double()
    apart = given.diff().abs()
    assert (apart <= 8).double().mean() < 0.02
    batches = given.reshape(-1, 50)
    assert batches.std(1)[:-40].median() > 500  # a batch of neighbours: 17
    assert given.numpy()[:100].mean() > 500  # not in the order of the text


def test_the_order_is_uniform_where_everything_fits_in_the_buffer():
    tokens = numbered(20)
    first = torch.stack([
        seen(Stream(Telltale(), tokens, HOOK, batch_size=20, buffer=10_000, seed=seed))[:20] for seed in range(300)
    ])  # fmt: skip
    counts = first.flatten().bincount(minlength=160).double().reshape(20, 8)[:, 1:]
    assert abs(counts.mean() - 300 * 20 / 140) < 1e-9
    chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi < 139 + 4 * math.sqrt(2 * 139)


def test_same_seed_same_order_every_time():
    tokens = numbered(100)

    def order(seed, source=tokens):
        return seen(Stream(Telltale(), source, HOOK, batch_size=16, buffer=256, seed=seed))

    stream = Stream(Telltale(), tokens, HOOK, batch_size=16, buffer=256, seed=1)
    assert seen(stream).equal(seen(stream))
    assert order(1).equal(order(1)) and order(1).equal(seen(stream)) and not order(1).equal(order(2))
    assert order(1, lambda: iter(tokens.split(64))).equal(order(1))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    order(1)
    assert torch.rand(2).equal(expected)


def test_two_iterations_at_once_do_not_disturb_each_other():
    stream = Stream(Telltale(), numbered(100), HOOK, batch_size=16, buffer=256)
    for one, other in zip(stream, stream, strict=True):
        assert one.equal(other)


def test_pairs_come_from_the_same_token():
    stream = Stream(Telltale(), numbered(100), HOOK, target=OTHER, batch_size=16, buffer=256)
    batches = list(stream)
    assert len(batches) > 30
    for x, y in batches:
        assert x.shape == y.shape == (16, 2) and y.equal(10 * x)
    assert seen(stream).equal(seen(Stream(Telltale(), numbered(100), HOOK, batch_size=16, buffer=256)))
    assert max(stop for _, stop in stream.model.passes) == 2  # both hooks are below


def test_pairs_of_a_model(model):
    tokens = ids(model, 20, 9)
    x, y = activations(model, tokens, HOOK), activations(model, tokens, OTHER)
    for one, other in Stream(model, tokens, HOOK, target=OTHER, batch_size=16, buffer=64):
        where = torch.cdist(one, x, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        torch.testing.assert_close(other, y[where], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_source_without_end_is_read_no_further_than_the_buffer(rows):
    read = []

    def endless():
        for start in itertools.count():
            read.append(rows)
            yield numbered(rows) + start * rows * 8

    stream, per_chunk, given = Stream(Telltale(), endless, HOOK, batch_size=32, buffer=640), rows * 7, 0
    ahead = []
    for batch in itertools.islice(stream, 200):
        ahead.append(sum(read) * 7 - given)
        given += len(batch)
    assert max(ahead) <= 640 + per_chunk
    assert min(ahead[:10]) >= 320


@pytest.mark.parametrize("target", [None, OTHER])
def test_the_buffer_holds_no_more_than_was_asked(monkeypatch, target):
    """Sizes of the tensors that are put together: the buffer and one pass, whatever the length of the source."""
    sizes, cat = [], torch.cat

    def watched(parts, *args, **kwargs):
        out = cat(parts, *args, **kwargs)
        sizes.append(len(out))
        return out

    monkeypatch.setattr(streams.torch, "cat", watched)
    stream = Stream(Telltale(), lambda: numbered(5000).split(4), HOOK, target=target, batch_size=32, buffer=640)
    n = sum(1 for _ in stream)
    assert n > 500 and max(sizes) < 640 + 4 * 7 and len(sizes) > 50


def test_a_tensor_is_the_source_that_gives_its_rows():
    tokens = numbered(150)
    told = Telltale()
    from_tensor = seen(Stream(told, tokens, HOOK, batch_size=16, buffer=640))
    assert max(rows for rows, _ in told.passes) <= 64
    assert from_tensor.equal(seen(Stream(told, lambda: [tokens[:64], tokens[64:128], tokens[128:]], HOOK,
                                         batch_size=16, buffer=640)))  # fmt: skip


def test_rows_of_several_lengths():
    chunks = [numbered(10), 1000 + numbered(10, 5), 2000 + numbered(10, 20)]
    given = seen(Stream(Telltale(), lambda: chunks, HOOK, batch_size=10, buffer=1000))
    expected = torch.cat([chunk[:, 1:].flatten() for chunk in chunks])
    assert given.sort().values.equal(expected)


def test_a_source_smaller_than_a_batch_gives_nothing():
    assert not list(Stream(Telltale(), numbered(1), HOOK, batch_size=8, buffer=16))
    assert len(list(Stream(Telltale(), numbered(1), HOOK, batch_size=7, buffer=14))) == 1
    assert not list(Stream(Telltale(), lambda: [], HOOK, batch_size=7, buffer=14))
    with pytest.raises(ValueError, match="activations gave no batch"):
        train(Stream(Telltale(), numbered(1), HOOK, batch_size=8, buffer=16), TopK(1), 4, steps=2)


def test_a_stream_is_trained_on_and_names_its_hook(model):
    stream = Stream(model, ids(model, 30, 9), HOOK, batch_size=32, buffer=128)
    sae = train(stream, TopK(3), 40, steps=20)
    assert sae.hook == HOOK and not sae.is_transcoder
    assert sae.history.fvu[-1] < sae.history.fvu[0]
    pairs = Stream(model, ids(model, 30, 9), "blocks.1.mlp.hook_pre", target=HOOK, batch_size=32, buffer=128)
    transcoder = train(pairs, TopK(3), 40, steps=5)
    assert transcoder.is_transcoder and (transcoder.d_in, transcoder.d_out) == (96, 24)


def test_the_course_model(tmp_path):
    model = models.load("world", device="cpu")
    tokens = torch.from_numpy(world.corpus(12, seed=1).rows).long()
    _, cache = model.run_with_cache(tokens)
    hook = "blocks.2.hook_resid_post"
    expected = cache[hook][:, 1:].flatten(0, 1)
    torch.testing.assert_close(activations(model, tokens, hook), expected)
    given = torch.cat(list(Stream(model, tokens, hook, batch_size=63, buffer=1000)))
    assert given.shape == expected.shape
    torch.testing.assert_close(given.mean(0), expected.mean(0), atol=1e-4, rtol=1e-4)


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ("blocks.9.hook_resid_post", r"hook is 'blocks.9.hook_resid_post', which the model has not; it has blocks.0"),
        ("blocks.1.hook_resid", "hook is 'blocks.1.hook_resid', which the model has not$"),
        ("", "hook is ''"),
        (None, "hook is None"),
    ],
)
def test_hook_points_that_the_model_has_not_are_named(model, hook, says):
    for call in (
        lambda: activations(model, ids(model), hook),
        lambda: Stream(model, ids(model), hook),
        lambda: Stream(model, ids(model), HOOK, target=hook or "none"),
    ):
        with pytest.raises(ValueError, match=says if hook else "hook is"):
            call()


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (torch.zeros(2, 5), r"tokens is torch.float32 \[2, 5\], expected token ids \[row pos\]"),
        (torch.zeros(2, 5, dtype=torch.bool), "tokens is torch.bool"),
        (torch.zeros(5, dtype=torch.long), r"tokens is torch.int64 \[5\]"),
        (torch.zeros(1, 2, 5, dtype=torch.long), r"tokens is torch.int64 \[1, 2, 5\]"),
        (torch.zeros(2, 1, dtype=torch.long), r"tokens has shape \[2, 1\], expected rows of 2 to 32 tokens"),
        (torch.zeros(2, 33, dtype=torch.long), r"tokens has shape \[2, 33\], expected rows of 2 to 32 tokens"),
        (torch.zeros(0, 5, dtype=torch.long), r"tokens has shape \[0, 5\]"),
    ],
)
def test_tokens_of_another_kind_are_named(model, tokens, says):
    for call in (
        lambda: activations(model, tokens, HOOK),
        lambda: Stream(model, tokens, HOOK),
        lambda: list(Stream(model, lambda: [tokens], HOOK)),
    ):
        with pytest.raises(ValueError, match=says):
            call()


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": 8.0}, TypeError, "batch_size is 8.0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": None}, TypeError, "seed is None"),
        ({"buffer": 0}, ValueError, "buffer is 0"),
        ({"buffer": "all"}, TypeError, "buffer is 'all'"),
        ({"batch_size": 10, "buffer": 19}, ValueError, "buffer is 19, expected at least two batches of 10"),
        ({"tokens": [[1, 2], [3, 4]]}, TypeError, "tokens is list, expected a tensor or a function"),
        ({"tokens": iter([])}, TypeError, "tokens is list_iterator, expected a tensor or a function"),
        ({"tokens": np.zeros((2, 5), dtype=int)}, TypeError, "tokens is ndarray"),
    ],
)
def test_bad_settings_of_a_stream_are_named(settings, error, says):
    settings = {"tokens": numbered(4), **settings}
    with pytest.raises(error, match=says):
        Stream(Telltale(), settings.pop("tokens"), HOOK, **settings)


def test_bad_tokens_from_a_source_are_named(model):
    with pytest.raises(ValueError, match="tokens is list, expected token ids"):
        list(Stream(model, lambda: [[[1, 2]]], HOOK))


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.ones(6, 9), r"mask is torch.float32 \[6, 9\], expected Bool \[6, 9\]"),
        (torch.ones(6, 8, dtype=torch.bool), r"mask is torch.bool \[6, 8\]"),
        (torch.ones(54, dtype=torch.bool), r"mask is torch.bool \[54\]"),
    ],
)
def test_bad_masks_are_named(model, mask, says):
    with pytest.raises(ValueError, match=says):
        activations(model, ids(model), HOOK, mask=mask)


@pytest.mark.parametrize("first", [False, True], ids=["nothing", "first tokens only"])
def test_a_mask_that_leaves_nothing_is_refused(model, first):
    mask = torch.zeros(6, 9, dtype=torch.bool)
    mask[:, 0] = first
    with pytest.raises(ValueError, match="mask"):
        activations(model, ids(model), HOOK, mask=mask)


@pytest.mark.parametrize(
    ("hook", "change"),
    [
        ("blocks.1.hook_mlp_in", {}), ("blocks.1.attn.hook_result", {}), ("blocks.1.attn.hook_pattern", {}),
        ("pos_embed.hook_in", {}), ([HOOK], {}), (HOOK, {"mask": [[True] * 9] * 6}),
        (HOOK, {"tokens": torch.full((6, 9), 10_000)}), (HOOK, {"tokens": torch.full((6, 9), -1)}),
    ],
    ids=[
        "a hook that does not fire", "another one", "no activation of a token", "no row for each row of tokens",
        "hook in a list", "mask as a list", "ids above the vocabulary", "negative ids",
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:run_with_cache. skipped")
def test_bad_input_is_named_and_not_left_to_torch(model, hook, change):
    options = {"tokens": ids(model), **change}
    with pytest.raises((ValueError, TypeError), match=r"^(hook|mask|tokens) "):
        activations(model, options.pop("tokens"), hook, **options)
