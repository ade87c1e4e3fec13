"""Checks of chapter 06. Their truths: TransformerLens, scikit-learn, scipy, planted data, closed forms, counting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import accuracy_score, f1_score, precision_score, r2_score, recall_score
from torch import Tensor

from utils import session
from utils.checks.core import Attempt, describe, exercise, hint, prediction, shipped_model, small_model

__all__ = ["hint", "prediction"]

Slips = Iterator[tuple[Tensor, str]]


# --------------------------------------------------------------------------------- shared inputs


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _uniform(attempt: Attempt, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=attempt.generator).to(session.device())


def _order(attempt: Attempt, n: int) -> Tensor:
    return torch.randperm(n, generator=attempt.generator).to(session.device())


def _shape(value) -> tuple[int, ...] | None:
    """The shape of a tensor or an array; None for anything else."""
    return tuple(value.shape) if isinstance(value, Tensor | np.ndarray) else None


def _tokens(attempt: Attempt, model, n: int, n_pos: int) -> Tensor:
    """Rows of random tokens [n, n_pos] that begin with <bos>."""
    tokens = attempt.randint(4, model.cfg.d_vocab, n, n_pos)
    tokens[:, 0] = 1
    return tokens


@torch.no_grad()
def _cached(model, tokens: Tensor, hook: str, at_once: int = 20) -> Tensor:
    """What TransformerLens keeps at a hook point, [row pos d]."""
    parts = [model.run_with_cache(rows, names_filter=hook)[1][hook] for rows in tokens.split(at_once)]
    return torch.cat(parts)


# ------------------------------------------------------------------------------------ 6.1 collect


@exercise(
    "6.1",
    hints=(
        "model.run_with_cache(rows, names_filter=hook) returns the logits and a cache that holds nothing but this hook "
        "point: cache[hook] is [row pos d]. Leave position 0 out while rows and positions are two axes still.",
        "A loop over tokens.split(64) takes 64 rows at a time, the last time what is left. Keep each "
        "cache[hook][:, 1:].flatten(0, 1) in a list and join the list with torch.cat. Work under torch.no_grad().",
        "with torch.no_grad(): caches = [model.run_with_cache(rows, names_filter=hook)[1] for rows in "
        "tokens.split(64)]; return torch.cat([cache[hook][:, 1:].flatten(0, 1) for cache in caches])",
    ),
)
def collect(attempt: Attempt) -> None:
    """Truth: what TransformerLens caches, a few rows at a time; the rows that pass through the model are counted."""
    split = "the last chunk may have fewer rows: collect the chunks in a list and join them with torch.cat"
    attempt.on_error["stack expects each tensor"] = attempt.on_error["shape mismatch"] = split
    small, shipped = small_model(), shipped_model()
    with attempt.holds("equals TransformerLens at hook points of several kinds and widths"):
        for model, hook, n, n_pos in (
            (small, "blocks.1.hook_resid_post", 3, 6),
            (small, "blocks.0.hook_resid_pre", 4, 4),
            (small, "blocks.2.hook_attn_out", 2, 9),
            (shipped, "blocks.2.hook_resid_post", 5, 9),
            (shipped, "blocks.1.mlp.hook_post", 4, 7),
        ):
            _compare_collected(attempt, model, _tokens(attempt, model, n, n_pos), hook)
    with attempt.holds("a single row; rows of two tokens, which leave one each"):
        for n, n_pos in ((1, 8), (7, 2), (1, 2)):
            _compare_collected(attempt, small, _tokens(attempt, small, n, n_pos), "blocks.1.mlp.hook_post")
    with attempt.holds("200 rows, in their order, and not all of many rows in one pass"):
        tokens = _tokens(attempt, small, 200, 7)
        with _rows_passing(small) as sizes:
            _compare_collected(attempt, small, tokens, "blocks.1.hook_resid_post", at_once=20)
        if max(sizes, default=0) >= 200:
            with _rows_passing(small) as sizes:
                attempt(small, _tokens(attempt, small, 2000, 16), "blocks.1.hook_resid_post")
            attempt.require(
                max(sizes, default=0) < 2000,
                "2000 rows in several passes through the model",
                "all of them in one pass",
                "memory grows with the rows of a pass: go through tokens.split(64), and join the parts with torch.cat",
            )
    with attempt.holds("no gradients, even where the weights have them"):
        small.requires_grad_(True)
        try:
            got = attempt(small, _tokens(attempt, small, 3, 5), "blocks.1.hook_resid_post")
        finally:
            small.requires_grad_(False)
        attempt.require(
            not (isinstance(got, Tensor) and got.grad_fn is not None),
            "activations without gradients",
            "a tensor that carries its graph",
            "work under torch.no_grad(), or .detach() each part: a graph keeps all that went before in memory",
        )


@contextmanager
def _rows_passing(model):
    """The number of rows in each pass through the model while the block runs."""
    sizes: list[int] = []
    handle = model.embed.register_forward_hook(lambda module, args, out: sizes.append(out.shape[0]))
    try:
        yield sizes
    finally:
        handle.remove()


def _compare_collected(attempt: Attempt, model, tokens: Tensor, hook: str, at_once: int = 2) -> None:
    whole = _cached(model, tokens, hook, at_once)
    want = whole[:, 1:].flatten(0, 1)
    value = attempt(model, tokens, hook)
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
        attempt.fail("one tensor [row*(pos-1) d]", describe(value), "join the parts: torch.cat(parts)")
    got = attempt.tensor(value, what="the activations")
    slips = _collected_slips(model, tokens, hook, whole.cpu(), got)
    attempt.close(got, want, atol=1e-3, rtol=1e-4, what="the activations [row*(pos-1) d]", slips=slips)


def _collected_slips(model, tokens: Tensor, hook: str, whole: Tensor, got: Tensor) -> Slips:
    want, n_pos = whole[:, 1:].flatten(0, 1), whole.shape[1]
    axes = "rows and positions become one axis: flatten(0, 1)"
    yield whole[:, 1:], axes
    yield whole, f"position 0 goes, [:, 1:], and {axes}"
    yield whole.flatten(0, 1), "position 0 is among them, [:, 1:] leaves it out: <bos> is the same in every row"
    yield whole[:, :-1].flatten(0, 1), "the last position is left out instead of the first: [:, 1:]"
    yield whole[:, 1:-1].flatten(0, 1), "the last position is left out too: only position 0 goes, [:, 1:]"
    yield whole.flatten(0, 1)[1:], "only the first row lost its position 0: cut, [:, 1:], before the axes become one"
    yield whole[1:].flatten(0, 1), "[1:] leaves out the first row: position 0 of every row goes, [:, 1:]"
    turned = "the order is row after row: flatten(0, 1) of [row pos d], without a transpose"
    yield whole[:, 1:].transpose(0, 1).flatten(0, 1), turned
    yield whole[:, 1:].transpose(0, 1).contiguous().view(want.shape), turned
    yield want.T, "transposed: one row for each token, [row*(pos-1) d]"
    yield whole[:, 1:].flatten(1), "one row for each row of tokens: one for each token is asked for, flatten(0, 1)"
    averaged = "averaged: what stands at every single token is asked for"
    for dim in (1, (0, 1), 0):
        yield whole[:, 1:].mean(dim), averaged
        yield whole.mean(dim), averaged
    yield whole[:, -1], "the last position only: all but position 0 are asked for"
    part, rows = len(got), len(got) // max(1, n_pos - 1)
    if got.dim() == 2 and 0 < part < len(want) and part % max(1, n_pos - 1) == 0:
        yield want[:part], f"only the first {rows} rows came: take every chunk, the last and shorter one too"
        yield want[-part:], f"only the last {rows} rows came: collect every chunk's part, then torch.cat"
    if got.shape == want.shape and _same_rows(got, want):
        yield got, f"the right vectors in another order: {turned}"
    if n_pos > 2:
        without = "the model ran without <bos>: give it whole rows, and leave position 0 out of what it returns"
        yield _cached(model, tokens[:, 1:], hook).flatten(0, 1), without
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
    yield logits[:, 1:].flatten(0, 1), "these are the logits: the cache is the second of what run_with_cache returns"
    block = hook.split(".")[:2]  # of two names for the same numbers the usual one, and that of the same block
    for name in sorted(cache, key=lambda name: ("resid" not in name, name.split(".")[:2] != block)):
        if name != hook and cache[name].shape[:2] == whole.shape[:2] and cache[name].dim() == 3:
            yield cache[name][:, 1:].flatten(0, 1), f"this is what stands at {name}: read at `hook`, here {hook}"


def _same_rows(one: Tensor, other: Tensor) -> bool:
    """Whether two matrices hold the same rows, in whatever order."""
    along = torch.arange(1, one.shape[1] + 1, dtype=torch.float64).sin()
    orders = [(x.double().cpu() @ along).argsort() for x in (one, other)]
    return torch.allclose(one.double().cpu()[orders[0]], other.double().cpu()[orders[1]], atol=1e-3, rtol=1e-4)


# ----------------------------------------------------------------------------- 6.2 spliced_losses


@exercise(
    "6.2",
    hints=(
        "Three runs of the model and one way to count: cross-entropy of logits[:, 1:-1] with tokens[:, 2:]. A hook "
        "function (activation, hook) -> new activation changes a run: model.run_with_hooks(tokens, fwd_hooks=[(hook, "
        "function)]).",
        "Inside the function, torch.cat([activation[:, :1], new[:, 1:]], dim=1) leaves position 0 as it is. new is "
        "reconstruct(activation) in one run and the mean, expanded to the same shape, in the other. The mean "
        "runs over rows and positions 1, 2, ..., so take the activations from a first run with cache.",
        "acts = model.run_with_cache(tokens, names_filter=hook)[1][hook]; def loss(new): put = lambda a, hook: "
        "torch.cat([a[:, :1], new[:, 1:]], dim=1); logits = model.run_with_hooks(tokens, fwd_hooks=[(hook, put)]); "
        "return F.cross_entropy(logits[:, 1:-1].flatten(0, 1), tokens[:, 2:].flatten()).item(). Then return "
        "loss(acts), loss(reconstruct(acts)), loss(acts[:, 1:].mean((0, 1)).expand_as(acts))",
    ),
)
def spliced_losses(attempt: Attempt) -> None:
    """Truth: run_with_hooks by hand and the explicit log-softmax, for reconstructions whose effect is known."""
    attempt.on_error["Expected input batch_size"] = (
        "logits[:, 1:-1] belong to tokens[:, 2:], and both are flattened alike: flatten(0, 1) and flatten()"
    )
    small, shipped = small_model(), shipped_model()
    with attempt.holds("a perfect copy: spliced is clean, the mean is not"):
        for model, hook, n, n_pos in ((small, "blocks.1.hook_resid_post", 4, 8), (shipped, _AFTER_2, 6, 10)):
            _compare_losses(attempt, model, _tokens(attempt, model, n, n_pos), hook, lambda x: x.clone())
    with attempt.holds("a dictionary that knows nothing but the mean: spliced is ablated"):
        for model, hook, n, n_pos in ((small, "blocks.0.hook_resid_post", 5, 7), (shipped, _AFTER_2, 4, 9)):
            tokens = _tokens(attempt, model, n, n_pos)
            mean = _cached(model, tokens, hook)[:, 1:].mean((0, 1))
            _compare_losses(attempt, model, tokens, hook, lambda x, mean=mean: mean.expand_as(x).clone())
    with attempt.holds("everything doubled, but position 0, which keeps its activation"):
        for model, hook, n, n_pos in ((small, "blocks.0.hook_resid_post", 3, 6), (shipped, _AFTER_2, 5, 8)):
            _compare_losses(attempt, model, _tokens(attempt, model, n, n_pos), hook, lambda x: 2 * x)
    with attempt.holds("a random autoencoder at other hook points, of other widths"):
        for model, hook in (
            (small, "blocks.1.hook_mlp_out"),
            (small, "blocks.0.mlp.hook_post"),
            (shipped, "blocks.1.hook_resid_post"),
            (shipped, "blocks.1.mlp.hook_post"),
        ):
            tokens = _tokens(attempt, model, 4, 9)
            width = _cached(model, tokens[:1], hook).shape[-1]
            W = attempt.randn(width, 2 * width) / width**0.5
            bias = attempt.randn(width)
            _compare_losses(attempt, model, tokens, hook, lambda x, W=W, bias=bias: (x @ W).relu() @ W.T + bias)
    with attempt.holds("many rows, a single row, and rows of three tokens: one prediction each"):
        for n, n_pos in ((150, 9), (1, 9), (6, 3)):
            shrunk = _tokens(attempt, small, n, n_pos)
            _compare_losses(attempt, small, shrunk, "blocks.1.hook_resid_post", lambda x: 0.5 * x + 0.3)


_AFTER_2 = "blocks.2.hook_resid_post"


@torch.no_grad()
def _run_with(model, tokens: Tensor, hook: str, new: Tensor | None, start: int = 1) -> Tensor:
    """Logits [row pos d_vocab] with ``new`` [row pos d] at the hook point from position ``start`` on."""
    if new is None:
        return model(tokens)

    def put(value: Tensor, hook: object) -> Tensor:
        return torch.cat([value[:, :start], new[:, start:].to(value.dtype)], dim=1)

    return model.run_with_hooks(tokens, fwd_hooks=[(hook, put)])


def _nats(logits: Tensor, tokens: Tensor, first: int = 1, last: int = 1, shift: int = 1) -> Tensor:
    """Minus the log-probability [row prediction] of the token ``shift`` further on, from position ``first`` on."""
    n = tokens.shape[1]
    said = logits.double().cpu()
    said = said - said.exp().sum(-1, keepdim=True).log()
    where = torch.arange(first, n - last)
    return -said[:, where].gather(-1, tokens.cpu()[:, where + shift][..., None])[..., 0]


def _compare_losses(attempt: Attempt, model, tokens: Tensor, hook: str, reconstruct: Callable) -> None:
    value = attempt(model, tokens, hook, reconstruct)
    names = ("clean", "spliced", "ablated")
    if isinstance(value, Tensor) and tuple(value.shape) == (3,):
        value = list(value)
    attempt.require(
        isinstance(value, tuple | list) and len(value) == 3,
        "three results (clean, spliced, ablated)",
        f"{len(value)} results" if isinstance(value, tuple | list) else describe(value),
        "return all three: `return clean, spliced, ablated`",
    )
    acts = _cached(model, tokens, hook)
    new = reconstruct(acts)
    mean = acts[:, 1:].mean((0, 1)).expand_as(acts)
    runs = [_run_with(model, tokens, hook, put) for put in (None, new, mean)]
    truth = [float(_nats(logits, tokens).mean()) for logits in runs]
    got = [attempt.tensor(part, what=f"the {name} loss") for part, name in zip(value, names, strict=True)]
    if all(part.dim() == 0 for part in got):
        _tell_order(attempt, [float(part) for part in got], truth)
    for place, name in enumerate(names):
        slips = _loss_slips(name, model, tokens, hook, acts, reconstruct, runs, truth)
        attempt.close(got[place], truth[place], atol=5e-5, rtol=0, what=f"the {name} loss", slips=slips)


def _tell_order(attempt: Attempt, got: list[float], truth: list[float]) -> None:
    def near(order: tuple[int, ...]) -> bool:
        return all(abs(got[i] - truth[j]) < 5e-5 for i, j in enumerate(order))

    if near((0, 1, 2)):
        return
    for order in permutations(range(3)):
        if near(order):
            came = ", ".join(("clean", "spliced", "ablated")[i] for i in order)
            attempt.fail("clean, spliced, ablated", came, "the three losses are right and stand in another order")


def _loss_slips(
    name: str,
    model,
    tokens: Tensor,
    hook: str,
    acts: Tensor,
    reconstruct: Callable,
    runs: list[Tensor],
    truth: list[float],
) -> Slips:
    def loss(put: Tensor, start: int = 1, at: str = hook, first: int = 1) -> Tensor:
        return _nats(_run_with(model, tokens, at, put, start), tokens, first).mean()

    if name == "clean":
        already = "something is at the hook point already in the first run: the model as it is"
        yield truth[1], already
        yield loss(torch.zeros_like(acts)), already
        yield from _scoring_slips(runs[0], tokens)
        return
    place = 1 if name == "spliced" else 2
    yield truth[0], "nothing was put in: does the hook function return the new activation?"
    if name == "ablated":
        yield truth[1], "this is the spliced loss again: the mean of the activations is put in here"
    new = reconstruct(acts)
    puts = list(_splicings(acts, new) if name == "spliced" else _ablations(acts, new))
    for first, also in ((1, ""), (0, " (and the prediction made at position 0 is no part)")):
        for put, start, told in puts:
            yield loss(put, start, first=first), told + also
    for other in [f"blocks.{i}.{hook.split('.', 2)[-1]}" for i in range(model.cfg.n_layers)]:
        there = acts if other == hook else _cached(model, tokens, other)
        if other != hook and there.shape == acts.shape:
            mean = there[:, 1:].mean((0, 1)).expand_as(there)
            for put in (reconstruct(there), new) if name == "spliced" else (mean,):
                yield loss(put, at=other), f"put in at {other}: at `hook`, here {hook}"
    yield truth[place] - truth[0], "this is the increase: return the loss itself"
    yield from _scoring_slips(runs[place], tokens)


def _scoring_slips(logits: Tensor, tokens: Tensor) -> Slips:
    right = _nats(logits, tokens)
    first = "the prediction made at position 0 is among them: logits[:, 1:-1] with tokens[:, 2:]"
    follow = "each prediction is compared with the *next* token: logits[:, 1:-1] with tokens[:, 2:]"
    yield _nats(logits, tokens, first=0).mean(), first
    yield _nats(logits, tokens, first=0, last=0, shift=0).mean(), f"compared with the token itself; {follow}"
    yield _nats(logits, tokens, first=1, last=0, shift=0).mean(), f"compared with the token itself; {follow}"
    yield _nats(logits, tokens, first=1, last=1, shift=0).mean(), f"compared with the token itself; {follow}"
    for start in (1, 2):
        yield _nats(logits, tokens, first=start, last=0, shift=-1).mean(), f"compared with the token before; {follow}"
    yield _nats(logits, tokens, first=2, last=1).mean(), f"the prediction made at position 1 is missing; {follow}"
    yield _nats(logits, tokens, first=1, last=2).mean(), f"the prediction of the last token is missing; {follow}"
    yield right[:, -1].mean(), "only the last prediction was counted: all made at positions 1 to n-2"
    yield right.mean() / math.log(2), "these are bits: the natural logarithm gives nats"
    yield right.mean() * math.log(2), "multiplied by log(2): the natural logarithm gives nats as it is"
    yield right.sum(), "this is the sum: the mean over the predictions"
    yield right.sum(1).mean(), "summed over the positions: the mean over rows and positions"
    yield right.sum() / tokens.numel(), "divided by all tokens: by the number of predictions, rows times n-2"
    yield right.sum() / (len(tokens) * (tokens.shape[1] - 1)), "divided by n-1 predictions a row: there are n-2"
    yield right.mean().exp(), "this is the perplexity: without exp"
    yield -right.mean(), "the sign: minus the log-probability"
    yield right.exp().reciprocal().mean(), "this is the mean probability: minus its logarithm is asked for"
    yield right, "one number for each prediction: their mean"
    yield right.mean(1), "one number for each row: the mean over rows and positions"
    yield right.mean(0), "one number for each position: the mean over rows and positions"
    plain = logits.double().cpu()[:, 1:-1].gather(-1, tokens.cpu()[:, 2:, None])[..., 0]
    yield -plain.mean(), "log_softmax is missing: these are logits"
    yield _nats(logits.softmax(-1), tokens).mean(), "cross_entropy takes logits: no softmax before it"


def _splicings(acts: Tensor, new: Tensor) -> Iterator[tuple[Tensor, int, str]]:
    yield new, 0, "position 0 was replaced as well: it keeps its activation"
    yield acts + new, 1, "the reconstruction was added: it takes the place of the activation"
    yield acts + new, 0, "the reconstruction was added: it takes the place of the activation"
    yield acts - new, 1, "this puts in the error, what the reconstruction leaves over"
    last = acts.clone()
    last[:, -1] = new[:, -1]
    yield last, 1, "only the last position was replaced: all but position 0"
    last = acts.clone()
    last[:, 1] = new[:, 1]
    yield last, 1, "only position 1 was replaced: all but position 0"
    first = acts.clone()
    first[0] = new[0]
    yield first, 1, "only the first row was replaced: all rows"
    first = acts.clone()
    first[1:] = new[1:]
    yield first, 0, "the first row kept its activations: it is position 0 of every row that does, [:, 0]"
    yield new, 2, "position 1 kept its activation too: only position 0 does"


def _ablations(acts: Tensor, new: Tensor) -> Iterator[tuple[Tensor, int, str]]:
    rest = acts[:, 1:]
    zero = torch.zeros_like(acts)
    # In a stream whose writes are centred the mean over d is zero: the two cannot be told apart there.
    single = "one mean for all dimensions, which is 0 in a centred stream: a mean for each dimension is asked for"
    yield zero, 1, f"zeros were put in, or {single}"
    yield zero, 0, f"position 0 was replaced as well, and zeros were put in, or {single}"
    mean = rest.mean((0, 1)).expand_as(acts)
    yield mean, 0, "position 0 was replaced as well: it keeps its activation"
    everywhere = acts.mean((0, 1)).expand_as(acts)
    yield everywhere, 1, "the mean took in position 0, which is far from all others: average acts[:, 1:]"
    yield everywhere, 0, "the mean took in position 0, and position 0 was replaced: it is left out of both"
    if acts.shape[1] > 3:
        shorter = acts[:, 1:-1].mean((0, 1)).expand_as(acts)
        yield shorter, 1, "the last position is missing from the mean: acts[:, 1:]"
    yield rest.mean(1, keepdim=True).expand_as(acts), 1, "each row has a mean of its own: average over rows as well"
    yield acts.mean(1, keepdim=True).expand_as(acts), 1, "each row has a mean of its own: average over rows as well"
    yield acts.mean(0, keepdim=True).expand_as(acts), 1, "each position has a mean of its own: average over both axes"
    yield rest.mean().expand_as(acts), 1, f"what was put in is {single}"
    yield acts.mean().expand_as(acts), 1, f"what was put in is {single}"
    own = "each vector's own mean over d: the mean runs over rows and positions"
    yield acts.mean(-1, keepdim=True).expand_as(acts), 1, own
    rebuilt = "the mean of the reconstructions: that of the activations is asked for"
    yield new[:, 1:].mean((0, 1)).expand_as(acts), 1, rebuilt
    yield new.mean((0, 1)).expand_as(acts), 1, rebuilt
    middle = rest.flatten(0, 1).median(0).values.expand_as(acts)
    yield middle, 1, "the median: the mean is asked for"
    for size in (1, 2, 4, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128):
        if size < len(acts):
            chunks = [part[:, 1:].mean((0, 1)).expand_as(part) for part in acts.split(size)]
            yield torch.cat(chunks), 1, "each chunk has a mean of its own: one over all rows, before the chunks are run"


# -------------------------------------------------------------------------------- 6.3 best_latent


@exercise(
    "6.3",
    hints=(
        "F1 = 2 * both / (active + labelled), where both counts the samples on which the latent is active *and* the "
        "label holds. As a matrix product, active.T @ labels counts all pairs at once, [latent concept].",
        "Two halves, split at len(z) // 2: choose by argmax over the latents on the first, then count once more on the "
        "second with z[half:, latent]. Where neither is ever there, the divisor is 0: clamp it at 1.",
        "half = len(z) // 2; on, y = (z > 0).float(), labels.float(); f1 = 2 * on[:half].T @ y[:half] / (on[:half].sum("
        "0)[:, None] + y[:half].sum(0)).clamp(min=1); latent = f1.argmax(0); on, y = on[half:, latent], y[half:]; "
        "return latent, 2 * (on * y).sum(0) / (on.sum(0) + y.sum(0)).clamp(min=1)",
    ),
)
def best_latent(attempt: Attempt) -> None:
    """Truth: scikit-learn's f1_score, latent by latent and concept by concept, on planted latents."""
    with attempt.holds("chosen on the first half, scored on the second"):
        z, labels = _planted_latents(attempt, 600, ("fickle", "late", "plain"))
        _compare_latents(attempt, z, labels)
    with attempt.holds("equals scikit-learn: latents that are precise, complete or both"):
        for n in (600, 400):
            z, labels = _planted_latents(attempt, n, ("trade", "rare", "plain"))
            _compare_latents(attempt, z, labels)
    with attempt.holds("active is above zero: small values count, negative ones do not"):
        z, labels = _planted_latents(attempt, 500, ("faint", "plain"))
        z = torch.where(z > 0, z, -_uniform(attempt, *z.shape) * (_uniform(attempt, *z.shape) < 0.5))
        _compare_latents(attempt, z, labels)
    with attempt.holds("latents that are never active, or not in one of the halves"):
        z, labels = _planted_latents(attempt, 400, ("silent", "plain"))
        _compare_latents(attempt, torch.cat([z[:, :2], 0 * z[:, :2], z[:, 2:]], 1), labels)
    with attempt.holds("an odd number of samples: the second half has one more"):
        _compare_latents(attempt, *_few_latents(attempt, "odd"))
    with attempt.holds("one latent, the best for two concepts"):
        _compare_latents(attempt, *_few_latents(attempt, "shared"))
    with attempt.holds("nothing active and nothing labelled in the second half: 0"):
        _compare_latents(attempt, *_few_latents(attempt, "empty"))


def _few_latents(attempt: Attempt, kind: str) -> tuple[Tensor, Tensor]:
    """Four latents and two concepts of which some latents are copies, with a flaw or two; a few dozen samples.

    odd: the first and the last sample of the longer half decide; shared: both concepts are nearly the same;
    empty: a concept and its latent that the second half has not.
    """
    half = 20
    n = 2 * half + (kind == "odd")

    def sparse() -> Tensor:
        halves = [_order(attempt, half).cpu() < 8 for _ in range(2)]
        return torch.cat([*halves, torch.zeros(n - 2 * half, dtype=torch.bool)])

    labels = torch.stack([sparse(), sparse()], 1)
    if kind == "shared":
        labels[:, 1] = labels[:, 0]
        for start in (0, half):
            labels[start + int(labels[start : start + half, 0].nonzero()[0, 0]), 1] = False
    if kind == "empty":
        labels[half:, 0] = False
    active = torch.stack([labels[:, 0], labels[:, 1], sparse(), sparse()], 1)
    if kind == "odd":
        labels[half], active[half, :2] = True, False
        labels[-1], active[-1, :2] = False, True
    if kind == "shared":
        active[:, 1] = sparse()
    order, concepts = _order(attempt, 4).cpu(), _order(attempt, 2).cpu()
    z = active[:, order] * (0.2 + _uniform(attempt, n, 4).cpu())
    return z.to(session.device()), labels[:, concepts].to(session.device())


def _planted_latents(attempt: Attempt, n: int, kinds: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Latents [n latent] and labels [n concept], one concept of each kind, in random order; no two latents tie.

    Where the halves are not what is tested, both have the same best latents.
    """
    first = torch.arange(n) < n // 2
    steady = not {"fickle", "late", "silent"} & set(kinds)
    for _ in range(50):
        labels, active, size = [], [], []
        for kind in kinds:
            label = _uniform(attempt, n).cpu() < {"rare": 0.06, "late": 0.3}.get(kind, 0.25 + 0.1 * len(labels))
            labels.append(label)

            def like(recall: float, precision: float, label: Tensor = label) -> Tensor:
                rate = float(label.float().mean())
                false = rate * recall * (1 - precision) / precision / (1 - rate)
                u = _uniform(attempt, n).cpu()
                return torch.where(label, u < recall, u < false)

            chance = [like(0.5, float(label.float().mean())) for _ in range(2)]
            if kind == "trade":
                latents = [like(0.9, 0.9), like(0.5, 0.999), torch.ones(n, dtype=torch.bool)]
            elif kind == "rare":  # a silent latent is the more accurate one
                latents = [like(0.95, 0.42), like(0.2, 0.9)]
            elif kind == "faint":
                latents = [like(0.95, 0.95), like(0.6, 0.999)]
            elif kind == "fickle":
                latents = [torch.where(first, label, chance[0]), torch.where(first, like(0.75, 0.75), label)]
            elif kind == "late":
                parts = [(0.88, 0.6), (0.8, 0.8), (0.4, 0.99)]  # the best on the first half, on all, on the second
                latents = [torch.where(first, like(one, one), like(two, two)) for one, two in parts]
            elif kind == "silent":
                latents = [label & first, like(0.7, 0.7)]
            else:
                latents = [like(0.8, 0.9)]
            active += [*latents, chance[1]]
            size += [0.02 if kind == "faint" and i == 0 else 1.0 for i in range(len(latents) + 1)]
        values = torch.stack(active, 1) * (0.2 + _uniform(attempt, n, len(active)).cpu()) * torch.tensor(size)
        order, y = _order(attempt, len(active)).cpu(), torch.stack(labels, 1)
        y = y[:, _order(attempt, len(labels)).cpu()]
        z = values[:, order]
        half = n // 2
        one, two = _table(z[:half] > 0, y[:half]), _table(z[half:] > 0, y[half:])
        top = one.topk(2, 0).values
        clear = bool((top[0] - top[1] > 0.02).all()) and bool((y[:half].any(0) & y[half:].any(0)).all())
        if clear and (not steady or torch.equal(one.argmax(0), two.argmax(0))):
            return z.to(session.device()), y.to(session.device())
    raise RuntimeError("fifty draws of latents, and two of them tie in each")


def _f1_table(z: Tensor, labels: Tensor, score: Callable = f1_score) -> Tensor:
    """scikit-learn's score of each latent's "active" for each concept, [latent concept]."""
    active, labels = z.cpu().numpy() > 0, labels.cpu().numpy()
    return torch.tensor([[score(y, on, zero_division=0) for y in labels.T] for on in active.T])


def _compare_latents(attempt: Attempt, z: Tensor, labels: Tensor) -> None:
    latent, f1 = attempt.pair(attempt(z, labels), "latent", "f1")
    half, n_concepts = len(z) // 2, labels.shape[1]
    choosing, scoring = _f1_table(z[:half], labels[:half]), _f1_table(z[half:], labels[half:])
    best = choosing.argmax(0)
    want = scoring[best, torch.arange(n_concepts)]
    numbers = [part.detach().cpu().double() if isinstance(part, Tensor) else None for part in (latent, f1)]
    for part, name in zip(numbers, ("latent", "f1"), strict=True):
        if part is not None and torch.isnan(part).any():
            attempt.fail(
                f"{name} without NaN",
                f"{int(torch.isnan(part).sum())} NaN among {part.numel()} numbers",
                "0/0: a latent that is never active has no precision; F1 = 2 both / (active + labelled), and where "
                "nothing is active and nothing labelled, F1 is 0",
            )
    if all(part is not None and part.shape == best.shape for part in numbers):
        swapped = torch.equal(numbers[1], best.double())
        attempt.require(not swapped, "a pair (latent, f1)", "the latents second", "the other way round: latent first")
        turns = _f1_table(z[::2], labels[::2]), _f1_table(z[1::2], labels[1::2])
        for chosen_on, scored_on, told in (
            (scoring, choosing, "the halves are exchanged: choose on the first, score on the second"),
            (*turns, "every other sample is not a half in the given order: z[: len(z) // 2] is the first"),
        ):
            other = chosen_on.argmax(0)
            score = scored_on[other, torch.arange(n_concepts)].double()
            same = torch.equal(numbers[0], other.double()) and torch.allclose(numbers[1], score, atol=1e-4)
            if same and not torch.equal(other, best):
                attempt.fail(f"the latents {best.tolist()}", f"{other.tolist()}", told)
    slips = _choice_slips(z, labels, choosing, scoring)
    attempt.close(latent, best, atol=1e-6, rtol=0, what="the latents [concept]", slips=slips)
    attempt.close(f1, want, atol=1e-4, what="F1 [concept]", slips=_f1_slips(z, labels, choosing, scoring, best))


def _choice_slips(z: Tensor, labels: Tensor, choosing: Tensor, scoring: Tensor) -> Slips:
    z, labels = z.cpu(), labels.cpu()
    half = len(z) // 2
    on, y = (z[:half] > 0).double(), labels[:half].double()
    both, n_on, n_y = on.T @ y, on.sum(0)[:, None], y.sum(0)
    with_nan = 2 * (both / n_on) * (both / n_y) / (both / n_on + both / n_y)
    yield with_nan.argmax(0), "0/0 is NaN, and argmax takes NaN for the largest: a latent that never hits has F1 0"
    yield scoring.argmax(0), "chosen on the second half: choose on the first, score on the second"
    yield _f1_table(z, labels).argmax(0), "chosen on all samples: choose on the first half alone"
    turns = _f1_table(z[::2], labels[::2]).argmax(0)
    yield turns, "every other sample is not a half in the given order: z[: len(z) // 2] is the first"
    left, alone = choosing.clone(), []
    for c in range(labels.shape[1]):
        alone.append(int(left[:, c].argmax()))
        left[alone[-1]] = -1
    several = "one latent may be the best for several concepts: nothing is used up"
    yield torch.tensor(alone), several
    if len(choosing) >= labels.shape[1]:
        yield torch.tensor(linear_sum_assignment(choosing.T.numpy(), maximize=True)[1]), several
    both_ways = torch.cat([choosing, _table(on == 0, y)]).argmax(0)
    silent = "silent samples were tried as a yes too (z <= 0): active is z > 0, this direction alone"
    yield both_ways, silent
    yield both_ways % len(choosing), silent
    yield choosing.argmax(1), "one concept for each latent: one latent for each concept, argmax over the latents"
    yield choosing.argmin(0), "the smallest F1: argmax, not argmin"
    yield _table(z[:half] != 0, labels[:half]).argmax(0), "active is z > 0: a negative value is not"
    by_value = "chosen by the values (correlation, difference of the means, sum): F1 of active, z > 0"
    values = z[:half].double()
    yv, yy = values - values.mean(0), y - y.mean(0)
    yield (yv.T @ yy / (yv.norm(dim=0)[:, None] * yy.norm(dim=0)).clamp(min=1e-9)).argmax(0), by_value
    yo = on - on.mean(0)
    yield (yo.T @ yy / (yo.norm(dim=0)[:, None] * yy.norm(dim=0)).clamp(min=1e-9)).argmax(0), "chosen by correlation"
    yield (values.T @ y / n_y - values.T @ (1 - y) / (1 - y).sum(0)).argmax(0), by_value
    yield (
        (both / n_on.clamp(min=1)).argmax(0),
        "chosen by precision: F1 weighs the labelled samples that are missed too",
    )
    yield (both / n_y).argmax(0), "chosen by recall, which a latent that is always active has: F1"
    yield both.argmax(0), "chosen by the number of hits, which a latent that is always active has: F1"
    accuracy = both + (1 - on).T @ (1 - y)
    yield accuracy.argmax(0), "chosen by accuracy, which a silent latent has where a concept is rare: F1"
    yield choosing.max(0).values, "these are the values of F1: the latents' numbers come first (argmax)"
    yield (values.T @ y).argmax(0), by_value
    yield _table(z[:half] >= 0, labels[:half]).argmax(0), "active is z > 0: zero itself is not"
    for cut in (1.0, 0.5, 0.3, 0.2, 0.1, 0.05):
        raised = "active is z > 0: small values count as well"
        yield _table(z[:half] > cut, labels[:half]).argmax(0), raised
    for cut in (z.mean(0), z[:half].mean(0), z.mean(), z[:half].median(0).values):
        yield _table(z[:half] > cut, labels[:half]).argmax(0), "active is z > 0: not above the mean"
    soft = 2 * values.T @ y / (values.sum(0)[:, None] + n_y).clamp(min=1e-9)
    yield soft.argmax(0), "the values themselves were counted: active is z > 0, yes or no"


def _table(active: Tensor, labels: Tensor) -> Tensor:
    on, y = active.double(), labels.double()
    return 2 * on.T @ y / (on.sum(0)[:, None] + y.sum(0)).clamp(min=1)


def _f1_slips(z: Tensor, labels: Tensor, choosing: Tensor, scoring: Tensor, best: Tensor) -> Slips:
    half, at = len(z) // 2, torch.arange(labels.shape[1])
    z, labels = z.cpu(), labels.cpu()
    unlike = (scoring[best, at] == 0) & ~(z[half:] > 0).any(0)[best] & ~labels[half:].any(0)
    yield scoring[best, at] + unlike, "nothing is active and nothing labelled: F1 is 0 there, not 1"
    missing = "a sample is missing from the second half, z[len(z) // 2 :]: with an odd number it has one more"
    for start, stop in ((half + 1, None), (half, -1), (half + 1, -1)):
        yield _table(z[start:stop] > 0, labels[start:stop])[best, at], missing
    yield choosing[best, at], "this is F1 on the half on which the latent was chosen: score it on the other"
    yield _f1_table(z, labels)[best, at], "this is F1 on all samples, those of the choice among them: the second half"
    yield scoring.max(0).values, "the best of the second half, chosen anew: score the latents that were chosen"
    hidden, wanted = z[half:], labels[half:]
    precision = _f1_table(hidden, wanted, precision_score)[best, at]
    recall = _f1_table(hidden, wanted, recall_score)[best, at]
    f1 = scoring[best, at]
    yield precision, "this is the precision: F1 = 2 both / (active + labelled)"
    yield recall, "this is the recall: F1 = 2 both / (active + labelled)"
    yield (precision + recall) / 2, "this is the mean of precision and recall: F1 is their harmonic mean"
    yield (precision * recall).sqrt(), "this is the geometric mean of precision and recall: F1 is the harmonic one"
    yield f1 / 2, "F1 has a factor of 2: 2 both / (active + labelled)"
    yield f1 / (2 - f1), "this is the Jaccard index, both / (active or labelled): F1 = 2 both / (active + labelled)"
    right = [accuracy_score(wanted[:, c].numpy(), (hidden[:, i] > 0).numpy()) for c, i in enumerate(best.tolist())]
    yield torch.tensor(right), "this is the accuracy: F1 = 2 both / (active + labelled)"
    macro = [
        f1_score(wanted[:, c].numpy(), (hidden[:, i] > 0).numpy(), average="macro", zero_division=0)
        for c, i in enumerate(best.tolist())
    ]
    yield torch.tensor(macro), "averaged over yes and no (macro): F1 of yes alone"
    weights, y = hidden.double(), wanted.double()
    soft = 2 * weights.T @ y / (weights.sum(0)[:, None] + y.sum(0)).clamp(min=1e-9)
    yield soft[best, at], "the values themselves were counted: active is z > 0, yes or no"
    silent = "silent samples were tried as a yes too (z <= 0): active is z > 0, this direction alone"
    yield torch.maximum(_table(hidden <= 0, wanted)[best, at], f1), silent
    yield _table(hidden <= 0, wanted)[best, at], silent
    yield f1.mean(), "one number for all: return F1 for each concept"
    yield scoring, "F1 of all latents: that of the chosen one"
    yield _table(hidden != 0, wanted)[best, at], "active is z > 0: a negative value is not"
    for active in (hidden >= 0, hidden > 1, hidden > 0.5, hidden > 0.1, hidden > hidden.mean(0), hidden > z.mean(0)):
        yield _table(active, wanted)[best, at], "active is z > 0, on the second half too"
    for start in (0, 1):
        turns = _table(z[start::2] > 0, labels[start::2])[best, at]
        yield turns, "every other sample is not a half in the given order: z[: len(z) // 2] is the first"


# --------------------------------------------------------------------------------------- 6.4 card


@exercise(
    "6.4",
    hints=(
        "Places: acts.flatten().topk(n) gives positions in the flattened tensor; row and pos are what a division by "
        "the number of positions gives, and what it leaves. Tokens: what the direction adds to each logit is direction "
        "@ model.W_U.",
        "torch.unravel_index(index, acts.shape) gives rows and positions; torch.stack(..., dim=-1) makes [n 2] of "
        "them. The mean over tokens is one number that comes off all logits.",
        "top = acts.flatten().topk(n).indices; places = torch.stack(torch.unravel_index(top, acts.shape), dim=-1); "
        "effect = direction @ model.W_U; return places, (effect - effect.mean()).topk(n).indices",
    ),
)
def card(attempt: Attempt) -> None:
    """Truth: peaks at planted places, numpy's argsort; what TransformerLens's unembedding makes of the direction."""
    column = "W_U is [d_model d_vocab]: direction @ model.W_U, without a transpose"
    attempt.on_error["mat1 and mat2"] = attempt.on_error["size mismatch"] = column
    attempt.on_error["inconsistent tensor"] = column
    small, shipped = small_model(), shipped_model()
    with attempt.holds("planted peaks, two of them in one row"):
        for model, n_rows, n_pos, n in ((small, 7, 12, 5), (shipped, 9, 5, 4), (small, 6, 6, 2)):
            places = _places(attempt, n_rows, n_pos, n + 1)
            acts = 0.3 * _uniform(attempt, n_rows, n_pos) * (_uniform(attempt, n_rows, n_pos) < 0.3)
            acts[:, 0] = 0
            acts[places[:, 0], places[:, 1]] = torch.arange(n + 1, 0, -1.0, device=acts.device) + _uniform(attempt, 1)
            _compare_card(attempt, model, _direction(attempt, model, n), acts, n)
    with attempt.holds("active almost everywhere: equals numpy's order"):
        for model, n_rows, n_pos, n in ((small, 30, 16, 4), (shipped, 3, 40, 12), (shipped, 1, 20, 3)):
            acts = _uniform(attempt, n_rows, n_pos)
            acts[:, 0] = 0
            _compare_card(attempt, model, _direction(attempt, model, n), acts, n)
    with attempt.holds("a short direction and a long one promote the same tokens; n = 1"):
        for size, n in ((1e-2, 6), (30.0, 6), (1.0, 1)):
            acts = _uniform(attempt, 5, 8) * (torch.arange(8, device=session.device()) > 0)
            _compare_card(attempt, shipped, size * _direction(attempt, shipped, n), acts, n)
    with attempt.holds("a peak at position 0 counts"):
        for n_rows, n_pos, n in ((6, 9, 3), (4, 12, 5)):
            acts = _uniform(attempt, n_rows, n_pos)
            acts[:, 0] = 0
            acts[int(attempt.randint(0, n_rows, 1)), 0] = 2.0
            _compare_card(attempt, shipped, _direction(attempt, shipped, n), acts, n)
    with attempt.holds("the n largest, also where fewer than n are above zero"):
        acts = -0.1 - 0.7 * _uniform(attempt, 5, 7)
        places = _places(attempt, 5, 7, 2)
        acts[places[:, 0], places[:, 1]] = torch.tensor([0.9, 0.5], device=acts.device)
        _compare_card(attempt, shipped, _direction(attempt, shipped, 4), acts, 4)


def _places(attempt: Attempt, n_rows: int, n_pos: int, n: int) -> Tensor:
    """Different places [n 2] after position 0, the first two in one row, and not on the diagonal."""
    row, one = attempt.randint(0, n_rows, 1), 1 + _order(attempt, n_pos - 1)[:2]
    found = [(int(row), int(one[0])), (int(row), int(one[1]))]
    while len(found) < n:
        place = (int(attempt.randint(0, n_rows, 1)), int(attempt.randint(1, n_pos, 1)))
        if place not in found:
            found.append(place)
    return torch.tensor(found, device=session.device())


def _promotes(model, direction: Tensor) -> Tensor:
    """What a unit of the direction adds to each logit, by TransformerLens's unembedding, [d_vocab], on the CPU."""
    both = torch.stack([direction, torch.zeros_like(direction)])[None]
    with torch.no_grad():
        logits = model.unembed(both.to(model.W_U.dtype))[0].double().cpu()
    return logits[0] - logits[1]


def _direction(attempt: Attempt, model, n: int) -> Tensor:
    """A random unit vector whose n + 1 most promoted tokens lie clearly apart."""
    for _ in range(200):
        direction = torch.nn.functional.normalize(attempt.randn(model.cfg.d_model), dim=0)
        effects = _promotes(model, direction)
        top = effects.sort(descending=True).values[: n + 1]
        if float((top[:-1] - top[1:]).min()) > 2e-3 * float(effects.std()):
            return direction
    raise RuntimeError("two hundred directions, and two tokens tie in each")


def _compare_card(attempt: Attempt, model, direction: Tensor, acts: Tensor, n: int) -> None:
    places, tokens = attempt.pair(attempt(model, direction, acts, n), "places", "tokens")
    flat = np.argsort(-_array(acts), axis=None)[:n]
    want = torch.tensor(np.stack(np.unravel_index(flat, tuple(acts.shape)), -1))
    promoted = torch.tensor(np.argsort(-_promotes(model, direction * 1e2 / direction.norm()).numpy())[:n].copy())
    if isinstance(tokens, list | tuple) and any(isinstance(token, str) for token in tokens):
        attempt.fail(f"the ids of {n} tokens", f"{tokens[0]!r} and so on", "return the tokens' ids, not their words")
    if _shape(tokens) == (n, 2) and _shape(places) == (n,):
        attempt.fail("a pair (places, tokens)", "the tokens first", "the other way round: places first")
    slips = _place_slips(acts.cpu(), n, want)
    attempt.close(places, want, atol=1e-6, rtol=0, what="the places [n 2]", slips=slips)
    slips = _token_slips(model, direction, n, promoted)
    attempt.close(tokens, promoted, atol=1e-6, rtol=0, what="the tokens [n]", slips=slips)


def _place_slips(acts: Tensor, n: int, want: Tensor) -> Slips:
    n_rows, n_pos = acts.shape
    flat = acts.flatten().argsort(descending=True)[:n]
    yield want.flip(-1), "row and pos are exchanged: the row comes first"
    yield want.T, "transposed: one line (row, pos) for each place, torch.stack(..., dim=-1)"
    yield want.flip(0), "the smallest of them comes first: largest first, descending=True"
    for by_row in (want[want[:, 0].argsort(stable=True)], want[(want[:, 0] * n_pos + want[:, 1]).argsort()]):
        yield by_row, "sorted by row: the largest comes first"
    yield flat, "these are positions in the flattened tensor: row = index // n_pos, pos = index % n_pos"
    wrong = "divide by the number of positions, acts.shape[1], for the row; the remainder is the position"
    yield torch.stack([flat // n_rows, flat % n_rows], -1), wrong
    yield torch.stack([flat % n_rows, flat // n_rows], -1), wrong
    transposed = acts.T.flatten().argsort(descending=True)[:n]
    yield torch.stack([transposed // n_pos, transposed % n_pos], -1), wrong
    peaks = acts.max(1)
    if n_rows >= n:
        rows = peaks.values.argsort(descending=True)[:n]
        each = "one place from each row: two of the largest may stand in one row"
        yield torch.stack([rows, peaks.indices[rows]], -1), each
    if n_pos >= n:
        columns = acts.max(0).values.argsort(descending=True)[:n]
        each = "one place for each position: look at all places, acts.flatten()"
        yield torch.stack([acts.max(0).indices[columns], columns], -1), each
    least = acts.flatten().argsort()[:n]
    yield torch.stack([least // n_pos, least % n_pos], -1), "these are the smallest: descending=True"
    yield want + torch.tensor([0, 1]), "positions count from 0: one too many here"
    yield want - torch.tensor([0, 1]), "one position too early: positions count from 0, <bos> among them"
    yield want + 1, "rows and positions count from 0"
    if n_pos > 1 and acts[:, 1:].numel() >= n:
        later = acts[:, 1:].flatten().argsort(descending=True)[:n]
        counts = "position 0 counts as well here: all of acts"
        rows, columns = later // (n_pos - 1), later % (n_pos - 1)
        yield torch.stack([rows, columns + 1], -1), counts
        yield torch.stack([rows, columns], -1), counts
    above = int((acts > 0).sum())
    if above < n:
        yield want[:above], "only those above zero came: the n largest, whatever their sign"
    size = acts.abs().flatten().argsort(descending=True)[:n]
    yield torch.stack([size // n_pos, size % n_pos], -1), "the largest values, not the largest in absolute value"
    first = (acts > 0).nonzero()[:n]
    yield first, "these are the first places where it is active: the largest values"
    yield acts.flatten()[flat], "these are the values: return where they stand"
    yield want[:1].expand(n, -1), "the first place n times"


def _token_slips(model, direction: Tensor, n: int, want: Tensor) -> Slips:
    direction = direction.double().cpu()
    W, bias = model.W_U.detach().double().cpu(), model.b_U.detach().double().cpu()
    effects = direction @ W
    W_E = model.W_E.detach().double().cpu()

    def first(x: Tensor) -> Tensor:
        return x.argsort(descending=True)[:n]

    yield want.flip(0), "the least raised of them comes first: largest first, descending=True"
    yield first(-effects), "these are the tokens that it lowers most: descending=True"
    yield first(-effects).flip(0), "these are the tokens that it lowers most: descending=True"
    yield first(effects.abs()), "tokens that it lowers are among them: the largest, not the largest in absolute value"
    yield first(effects + bias), "the bias of the unembedding is no effect of the direction: direction @ model.W_U"
    normed = model.ln_final(direction.to(model.W_U.device, model.W_U.dtype)[None, None])[0, 0].detach().double().cpu()
    yield first(normed @ W + bias), "the bias of the unembedding is no effect of the direction: direction @ model.W_U"
    embedding = "this is the embedding W_E, what a token puts in: through the unembedding, direction @ model.W_U"
    yield first(W_E @ direction), embedding
    cosine = "divided by the length of each token's column: the logits themselves are asked for, no cosines"
    yield first(effects / W.norm(dim=0)), cosine
    yield first(torch.nn.functional.normalize(W_E, dim=1) @ direction), embedding
    yield effects.sort(descending=True).values[:n], "these are the changes of the logits: return the tokens' ids"
    centred = effects - effects.mean()
    yield centred.sort(descending=True).values[:n], "these are the changes of the logits: return the tokens' ids"
    yield effects.argsort(descending=True).argsort()[:n], "these are ranks: argsort(descending=True)[:n] gives tokens"
    yield effects.argsort(descending=True)[1 : n + 1], "the first one is left out: the n largest, [:n]"
    yield want[:1].expand(n), "the first token n times"


# -------------------------------------------------------------------------------------- 6.5 parts


@exercise(
    "6.5",
    hints=(
        "Of each wide latent you need two counts: on how many samples it is active, and on how many of those the "
        "narrow latent is active too.",
        "on = narrow > 0; fires = wide > 0; fires.sum(0) is the one, fires[on].sum(0) the other. A latent that is "
        "never active has no share at all: ask for fires.sum(0) > 0.",
        "fires = wide > 0; active = fires.sum(0); share = fires[narrow > 0].sum(0) / active.clamp(min=1); "
        "return ((active > 0) & (share >= inside)).nonzero()[:, 0]",
    ),
)
def parts(attempt: Attempt) -> None:
    """Truth: sets of samples, latent by latent; counts that are planted, the boundary exactly."""
    with attempt.holds("planted counts, the boundary exactly; never active is no part"):
        for inside in (0.75, 0.5, 0.625):
            narrow, wide = _planted_parts(attempt)
            _compare_parts(attempt, narrow, wide, inside)
    with attempt.holds("equals sets of samples, for latents active at random"):
        for n, width, inside in ((200, 40, 0.41), (90, 70, 0.61), (50, 30, 0.31)):  # no k/n
            narrow = _uniform(attempt, n) * (_uniform(attempt, n) < 0.4)
            density = 0.02 + 0.3 * _uniform(attempt, width)
            wide = _uniform(attempt, n, width) * (_uniform(attempt, n, width) < density)
            _compare_parts(attempt, narrow, wide, inside)
    with attempt.holds("a share of 0 lets in all that are ever active, a share of 1 those that are never outside"):
        for inside in (0.0, 1.0):
            narrow, wide = _planted_parts(attempt)
            _compare_parts(attempt, narrow, wide, inside)
    with attempt.holds("a narrow latent that is never active has no parts"):
        _compare_parts(attempt, torch.zeros_like(narrow), wide, 0.5)
    with attempt.holds("a single part: one axis still"):
        inner = (wide[narrow > 0] > 0).sum(0) >= 0.5 * (wide > 0).sum(0)
        wide[:, inner.nonzero()[1:, 0]] = 0
        one = int(inner.nonzero()[0, 0])
        wide[:, one] = (narrow > 0) * (0.5 + _uniform(attempt, len(narrow)))
        _compare_parts(attempt, narrow, wide, 0.5)


def _planted_parts(attempt: Attempt) -> tuple[Tensor, Tensor]:
    """Activations of one latent [96] and of seventeen [96 17], counts planted, samples and latents in random order.

    In the plan: samples inside and outside of where the narrow one is active, the size of the values there.
    """
    n, n_on = 96, 32
    plan = [
        (8, 0, 1.0, 1.0), (4, 0, 1.0, 1.0), (3, 1, 1.0, 1.0), (6, 2, 0.1, 9.0), (4, 4, 9.0, 0.1), (4, 4, 1.0, 1.0),
        (5, 3, 1.0, 1.0), (32, 60, 1.0, 1.0), (24, 40, 3.0, 0.1), (7, 9, 5.0, 0.1), (7, 1, 0.1, 20.0),
        (0, 12, 1.0, 1.0), (0, 0, 1.0, 1.0), (0, 0, 1.0, 1.0), (1, 0, 1.0, 1.0),
        (28, 2, 1.0, 1.0), (22, 4, 1.0, 1.0),
    ]  # fmt: skip
    on = _order(attempt, n).cpu() < n_on
    wide = torch.zeros(n, len(plan))
    for latent, (inner, outer, large, small) in enumerate(plan):
        for where, count, size in ((on, inner, large), (~on, outer, small)):
            samples = where.nonzero()[:, 0]
            chosen = samples[_order(attempt, len(samples)).cpu()[:count]]
            wide[chosen, latent] = size * (0.5 + _uniform(attempt, count).cpu())
    narrow = on * (0.1 + _uniform(attempt, n).cpu())
    order = _order(attempt, len(plan)).cpu()
    return narrow.to(session.device()), wide[:, order].to(session.device())


def _compare_parts(attempt: Attempt, narrow: Tensor, wide: Tensor, inside: float) -> None:
    got = attempt.tensor(attempt(narrow, wide, inside), what="the latents")
    on = set(np.flatnonzero(_array(narrow) > 0).tolist())
    where = [set(np.flatnonzero(column > 0).tolist()) for column in _array(wide).T]
    want = [i for i, samples in enumerate(where) if samples and len(samples & on) >= inside * len(samples)]
    if got.dim() == 1 and got.tolist() == want:
        return
    if len(want) == 1 and got.dim() == 0 and got.tolist() == want[0]:
        single = "one axis, for a single part too: mask.nonzero()[:, 0], not squeeze()"
        attempt.fail(f"the latents {_listed(want)}", "a single number, shape []", single)
    if got.numel() == 0 and want:
        nothing = (
            "nothing reaches the share here: divide by the samples on which the wide latent is active, > 0, not by all"
        )
        attempt.fail(f"the latents {_listed(want)}", f"none, shape {list(got.shape)}", nothing)
    for wrong, told in _part_slips(_array(narrow), _array(wide), inside, on, where, want):
        wrong = torch.as_tensor(wrong, dtype=torch.float64)
        if wrong.shape == got.shape and torch.allclose(wrong, got, atol=1e-5):
            came = _listed(got.tolist()) if got.dim() == 1 else f"shape {list(got.shape)}"
            attempt.fail(f"the latents {_listed(want)}", came, told)
    attempt.require(got.dim() == 1, "the latents [part], one axis", f"shape {list(got.shape)}")
    attempt.fail(f"the latents {_listed(want)}", _listed(got.tolist()))


def _listed(values: list) -> str:
    short = ", ".join(f"{value:g}" for value in values[:12]) if values and isinstance(values[0], float | int) else ""
    return f"[{short}{', ...' if len(values) > 12 else ''}]"


def _part_slips(narrow, wide, inside: float, on: set, where: list[set], want: list[int]) -> Iterator[tuple]:
    n_wide = range(len(where))
    counts = np.array([len(samples) for samples in where], dtype=float)
    both = np.array([len(samples & on) for samples in where], dtype=float)
    share = both / np.maximum(counts, 1)
    never = "a latent that is never active is no part: ask for active at all, fires.sum(0) > 0"
    yield np.flatnonzero(both >= inside * counts), never
    yield np.flatnonzero(share >= inside), never
    yield np.flatnonzero(~(share < inside)), never
    yield np.flatnonzero((share > inside) & (counts > 0)), "exactly the share `inside` is enough: >=, not >"
    narrow_share = both / max(len(on), 1)
    turned = "the share is taken of the narrow latent's samples: of those on which the *wide* latent is active"
    for boundary in (narrow_share >= inside, narrow_share > inside, (narrow_share >= inside) & (counts > 0)):
        yield np.flatnonzero(boundary), turned
    union = np.array([len(samples | on) for samples in where], dtype=float)
    overlap = "this is the Jaccard index: divide by the samples of the wide latent, not by those of either"
    yield np.flatnonzero((both / np.maximum(union, 1) >= inside) & (counts > 0)), overlap
    f1 = 2 * both / np.maximum(counts + len(on), 1)
    yield np.flatnonzero((f1 >= inside) & (counts > 0)), "this is F1: the share of the wide latent's samples alone"
    of_all = "divided by all samples: by those on which the wide latent is active"
    yield np.flatnonzero((both / len(narrow) >= inside) & (counts > 0)), of_all
    mass = wide[sorted(on)].sum(0) / np.maximum(wide.sum(0), 1e-9)
    weighed = "the values were summed: samples are counted, active or not"
    yield np.flatnonzero((mass >= inside) & (counts > 0)), weighed
    yield np.flatnonzero((wide * narrow[:, None]).sum(0) >= inside * wide.sum(0)), weighed
    either = "this counts the samples that agree, silent ones too: only those on which the wide latent is active"
    agree = ((wide > 0) == (narrow > 0)[:, None]).mean(0)
    yield np.flatnonzero((agree >= inside) & (counts > 0)), either
    outside = "these lie outside: at least the share `inside` where the narrow latent *is* active"
    yield np.flatnonzero((share < inside) & (counts > 0)), outside
    yield np.flatnonzero(share < inside), outside
    yield np.flatnonzero((1 - share >= inside) & (counts > 0)), outside
    for dead in (share, np.where(counts > 0, share, np.nan)):
        mask = (dead >= inside) & (counts > 0)
        yield mask.astype(float), "a mask: return the latents' numbers, mask.nonzero()[:, 0]"
    yield share, "these are the shares: return the numbers of the latents that reach `inside`"
    yield share[want], "these are the shares: return the latents' numbers"
    yield both, "these are counts: return the numbers of the latents that reach `inside`"
    yield np.array(want, dtype=float)[:, None], "nonzero() gives a table: [:, 0] takes its one column"
    yield sorted(want, key=lambda i: -share[i]), "in order of the share: in rising order of the latents' numbers"
    yield want[::-1], "in falling order: rising order is asked for"
    yield [i + 1 for i in want], "latents count from 0"
    yield len(want), "this is their number: return the latents"
    yield [i for i in n_wide if where[i] and where[i] & on], "active together once is not enough: the share `inside`"
    for key in (-counts, counts, -both, both, share):
        yield sorted(want, key=lambda i, key=key: key[i]), "the right latents: rising order is asked for"


# ---------------------------------------------------------------------------- 6.6 fvu_by_concept


@exercise(
    "6.6",
    hints=(
        "Two numbers for each sample: its squared error, and its squared distance from the mean of all samples. A "
        "concept's FVU divides the sum of the one over its samples by the sum of the other.",
        "error = (x - x_hat).pow(2).sum(-1); distance = (x - x.mean(0)).pow(2).sum(-1), both [sample]. Summing over a "
        "concept's samples is a product with labels.float().",
        "y = labels.to(x.dtype); return ((x - x_hat) ** 2).sum(-1) @ y / (((x - x.mean(0)) ** 2).sum(-1) @ y)",
    ),
)
def fvu_by_concept(attempt: Attempt) -> None:
    """Truth: sums number by number; closed forms; scikit-learn's explained variance where every sample has a label."""
    with attempt.holds("equals the sums, sample by sample"):
        for n, d, k in ((40, 5, 3), (60, 3, 6), (9, 9, 9)):
            x, labels = _concept_samples(attempt, n, d, k)
            _compare_fvu(attempt, x, x + 0.5 * attempt.randn(n, d) * (0.3 + _uniform(attempt, n, 1)), labels)
    with attempt.holds("a perfect copy leaves 0, the mean of all samples 1, for every concept"):
        x, labels = _concept_samples(attempt, 50, 6, 4)
        for x_hat, value in ((x, 0.0), (x.mean(0).expand_as(x).clone(), 1.0)):
            _compare_fvu(attempt, x, x_hat, labels, torch.full((4,), value))
    with attempt.holds("everything drawn half way to the mean: 1/4, and 4 on the other side of it"):
        for factor in (0.5, -1.0):
            x_hat = x.mean(0) + factor * (x - x.mean(0))
            _compare_fvu(attempt, x, x_hat, labels, torch.full((4,), (1 - factor) ** 2))
    with attempt.holds("a dictionary that never saw one concept; a label that all samples have: equals scikit-learn"):
        x, labels = _concept_samples(attempt, 80, 4, 3)
        labels[:, 2] = True
        x_hat = x + 0.2 * attempt.randn(80, 4)
        x_hat[labels[:, 0]] = x.mean(0)
        own = 1 - float(r2_score(_array(x), _array(x_hat), multioutput="variance_weighted"))
        want = torch.tensor([1.0, float(_fvu(x, x_hat, labels)[1]), own])
        _compare_fvu(attempt, x, x_hat, labels, want)


def _concept_samples(attempt: Attempt, n: int, d: int, k: int) -> tuple[Tensor, Tensor]:
    """Samples [n d] far from zero, with labels [n k] that overlap; each concept shifts its samples."""
    labels = _uniform(attempt, n, k) < 0.2 + 0.4 * _uniform(attempt, k)
    labels[:2] = torch.arange(2, device=labels.device)[:, None] == 0  # every concept has a sample and lacks one
    shifts = 1.5 * attempt.randn(k, d)
    return attempt.randn(n, d) + labels.float() @ shifts + 4 * attempt.randn(d), labels


def _fvu(x: Tensor, x_hat: Tensor, labels: Tensor) -> Tensor:
    """Number by number, in float64."""
    x, x_hat, labels = _array(x), _array(x_hat), labels.cpu().numpy()
    centre = [sum(column) / len(column) for column in x.T]
    out = []
    for has in labels.T:
        error = distance = 0.0
        for i in np.flatnonzero(has):
            error += sum((a - b) ** 2 for a, b in zip(x[i], x_hat[i], strict=True))
            distance += sum((a - m) ** 2 for a, m in zip(x[i], centre, strict=True))
        out.append(error / distance)
    return torch.tensor(out)


def _compare_fvu(attempt: Attempt, x: Tensor, x_hat: Tensor, labels: Tensor, want: Tensor | None = None) -> None:
    want = _fvu(x, x_hat, labels) if want is None else want
    got = attempt(x, x_hat, labels)
    attempt.close(got, want, atol=1e-4, rtol=1e-3, what="FVU [concept]", slips=_fvu_slips(x, x_hat, labels))


def _fvu_slips(x: Tensor, x_hat: Tensor, labels: Tensor) -> Slips:
    x, x_hat, y = x.double().cpu(), x_hat.double().cpu(), labels.double().cpu()
    n = y.sum(0)
    error, distance = (x - x_hat).pow(2), (x - x.mean(0)).pow(2)
    right = error.sum(-1) @ y / (distance.sum(-1) @ y)
    own = torch.stack([(x[has] - x[has].mean(0)).pow(2).sum() for has in y.T.bool()])
    told = "the distance is from the concept's own mean: from the mean of ALL samples, x.mean(0)"
    yield error.sum(-1) @ y / own, told
    yield (error.sum(-1) @ y) / (own / n * (n - 1)), told
    yield error.sum() / distance.sum(), "one number for all: return the FVU of each concept"
    all_samples = "the divisor sums over all samples: over those of the concept, as above the line"
    yield error.sum(-1) @ y / distance.sum(), all_samples
    scaled = (error.sum(-1) @ y / n) / distance.sum(-1).mean()
    yield scaled, "divided by the distance of all samples: by that of the concept's samples, as above the line"
    yield error.sum() / (distance.sum(-1) @ y), "the error sums over all samples: over those of the concept"
    yield error.sum(-1).mean() / ((distance.sum(-1) @ y) / n), "the error is that of all samples: of the concept's"
    each = "a ratio for each sample, then their mean: sum above and below the line first, then divide"
    yield (error.sum(-1) / distance.sum(-1)) @ y / n, each
    dims = "a ratio for each dimension, then their mean: sum over the dimensions first, then divide"
    yield ((y.T @ error) / (y.T @ distance)).mean(-1), dims
    yield (y.T @ error) / (y.T @ distance), "one number for each dimension: sum over the dimensions too"
    zero = "the distance is from zero: subtract the mean of all samples below the line"
    yield error.sum(-1) @ y / (x.pow(2).sum(-1) @ y), zero
    hat = (x - x_hat.mean(0)).pow(2).sum(-1) @ y
    yield error.sum(-1) @ y / hat, "the mean is that of x, not of x_hat"
    far = (x_hat - x_hat.mean(0)).pow(2).sum(-1) @ y
    yield error.sum(-1) @ y / far, "the distance is that of x from its mean, not of x_hat"
    yield error.sum(-1) @ y / ((x_hat - x.mean(0)).pow(2).sum(-1) @ y), "the distance is that of x, not of x_hat"
    single = (x - x.mean(-1, keepdim=True)).pow(2).sum(-1) @ y
    yield error.sum(-1) @ y / single, "the mean runs over the samples, x.mean(0): here over the dimensions"
    yield error.sum(-1) @ y / ((x - x.mean()).pow(2).sum(-1) @ y), "a mean for each dimension: x.mean(0)"
    yield 1 - right, "this is the variance explained: return what is left, without the 1 -"
    yield right.sqrt(), "no root: squared error over squared distance"
    yield right.reciprocal(), "upside down: the error stands above the line"
    lengths = error.sum(-1).sqrt() @ y / (distance.sum(-1).sqrt() @ y)
    yield lengths, "square the lengths before they are summed"
    absolute = (x - x_hat).abs().sum(-1) @ y / ((x - x.mean(0)).abs().sum(-1) @ y)
    yield absolute, "squared error, not its absolute value"
    yield error.sum(-1) @ y, "this is the error alone: divide by the squared distance from the mean"
    yield error.sum(-1) @ y / n, "this is the error alone: divide by the squared distance from the mean"
    without = 1 - y
    yield error.sum(-1) @ without / (distance.sum(-1) @ without), "these are the samples *without* the concept"
    others = torch.stack([(x[has] - x[~has].mean(0)).pow(2).sum() for has in y.T.bool()])
    yield error.sum(-1) @ y / others, "the mean of the samples without the concept: of ALL samples, x.mean(0)"
    if len(x) == y.shape[1]:
        turned = y.T
        yield error.sum(-1) @ turned / (distance.sum(-1) @ turned), "transposed: labels are [sample concept]"
    unbiased = distance.sum(-1) @ y / n * (n - 1)
    yield (error.sum(-1) @ y) / unbiased, "divide the sums as they are: no n - 1"


# ----------------------------------------------------------------------------- 6.7 same_latents


@exercise(
    "6.7",
    hints=(
        "First all cosines, [latent other]: rows of length 1, then one product. Which pairs? The best single pairs may "
        "block each other: it is the sum over all pairs that counts.",
        "scipy.optimize.linear_sum_assignment(matrix, maximize=True) returns rows and columns of such a matching, rows "
        "in rising order; it takes numpy arrays.",
        "cosine = F.normalize(A, dim=-1) @ F.normalize(B, dim=-1).T; rows, columns = linear_sum_assignment("
        "cosine.cpu().numpy(), maximize=True); rows, columns = torch.tensor(rows), torch.tensor(columns); "
        "return torch.stack([rows, columns], dim=-1), cosine[rows, columns]",
    ),
)
def same_latents(attempt: Attempt) -> None:
    """Truth: planted permutations; all permutations tried out; scipy's linear_sum_assignment."""
    with attempt.holds("a planted permutation, with noise"):
        for n, d in ((12, 24), (8, 12)):
            A, order = attempt.randn(n, d), _order(attempt, n)
            B = A[order] + 0.3 * attempt.randn(n, d)
            planted = torch.stack([torch.arange(n), order.cpu().argsort()], -1)
            _compare_pairs(attempt, A, B, planted)
    with attempt.holds("rows of unequal lengths; the opposite direction is not the same"):
        _compare_pairs(attempt, *_unequal(attempt))
    with attempt.holds("latents that compete for one: the sum over all pairs counts"):
        for n in (2, 3):
            _compare_pairs(attempt, *_competing(attempt, n))
    with attempt.holds("more latents on one side: as many pairs as the smaller number, in A's order"):
        for n_a, n_b, d in ((4, 7, 5), (8, 5, 6), (1, 3, 4), (5, 1, 4)):
            _compare_pairs(attempt, attempt.randn(n_a, d), attempt.randn(n_b, d))


def _unequal(attempt: Attempt) -> tuple[Tensor, Tensor]:
    """Six latents and nine: the six with noise, and opposites of three; neither lengths nor opposites may decide."""
    for _ in range(200):
        A, order = attempt.randn(6, 7), _order(attempt, 6)
        B = A[order] + 0.7 * attempt.randn(6, 7)
        B = torch.cat([B, -A[:3] + 0.05 * attempt.randn(3, 7)])[_order(attempt, 9)]
        A, B = ((0.2 + 5 * _uniform(attempt, len(rows), 1) ** 3) * rows for rows in (A, B))
        scores, a, b = _cosines(A, B), _array(A), _array(B)
        columns = (a / np.linalg.norm(a, axis=0)) @ (b / np.linalg.norm(b, axis=0)).T
        found = {tuple(linear_sum_assignment(x, maximize=True)[1]) for x in (scores, np.abs(scores), a @ b.T, columns)}
        if len(found) == 4:
            return A, B
    raise RuntimeError("two hundred draws in which lengths and signs make no difference")


def _competing(attempt: Attempt, n: int) -> tuple[Tensor, Tensor]:
    """Pairs of latents in planes of their own, at angles where the best single pair spoils the sum.

    In degrees: a at 0 and 30, b at 25 and 40. The best pair (30, 25) leaves (0, 40): 0.996 + 0.766 in all. The other
    way it is 0.906 + 0.985.
    """
    d = 2 * n + 1
    planes = torch.linalg.qr(attempt.randn(d, d).cpu())[0]
    rows = {"a": [], "b": []}
    for plane in range(n):
        for side, angles in (("a", (0, 30)), ("b", (25, 40))):
            for angle in angles:
                turned = math.radians(angle + 2 * float(_uniform(attempt, 1)))
                row = math.cos(turned) * planes[2 * plane] + math.sin(turned) * planes[2 * plane + 1]
                rows[side].append(row * (0.5 + float(_uniform(attempt, 1))))
    A, B = (torch.stack(rows[side])[_order(attempt, 2 * n).cpu()] for side in ("a", "b"))
    return A.to(session.device()), B.to(session.device())


def _cosines(A: Tensor, B: Tensor) -> np.ndarray:
    A, B = _array(A), _array(B)
    return np.array([[a @ b / math.sqrt((a @ a) * (b @ b)) for b in B] for a in A])


def _best_pairs(scores: np.ndarray) -> Tensor:
    """The pairs of largest sum: by trying out all where that is quick, else by scipy; in order of the rows."""
    small, large = min(scores.shape), max(scores.shape)
    if math.perm(large, small) > 20_000:
        return torch.tensor(np.stack(linear_sum_assignment(scores, maximize=True), -1))
    table = scores if scores.shape[0] == small else scores.T
    best = max(permutations(range(large), small), key=lambda cols: sum(table[i, j] for i, j in enumerate(cols)))
    pairs = [(i, j) if table is scores else (j, i) for i, j in enumerate(best)]
    return torch.tensor(sorted(pairs))


def _compare_pairs(attempt: Attempt, A: Tensor, B: Tensor, want: Tensor | None = None) -> None:
    pairs, cosine = attempt.pair(attempt(A, B), "pairs", "cosine")
    scores = _cosines(A, B)
    want = _best_pairs(scores) if want is None else want
    if _shape(cosine) == tuple(want.shape) and _shape(pairs) == (len(want),):
        attempt.fail("a pair (pairs, cosine)", "the cosines first", "the other way round: the pairs first")
    slips = _pair_slips(A, B, scores, want, attempt.tensor(pairs, what="the pairs"))
    attempt.close(pairs, want, atol=1e-6, rtol=0, what="the pairs [n 2]", slips=slips)
    right = torch.tensor(scores)[want[:, 0], want[:, 1]]
    attempt.close(cosine, right, what="the cosines [n]", slips=_cosine_slips(A, B, scores, want))


def _greedy(scores: np.ndarray) -> Tensor:
    pairs, left = [], scores.copy()
    for _ in range(min(scores.shape)):
        i, j = np.unravel_index(left.argmax(), left.shape)
        pairs.append((int(i), int(j)))
        left[i], left[:, j] = -np.inf, -np.inf
    return torch.tensor(pairs)


def _pair_slips(A: Tensor, B: Tensor, scores: np.ndarray, want: Tensor, got: Tensor) -> Slips:
    a, b = _array(A), _array(B)

    def matched(table: np.ndarray, maximize: bool = True) -> Tensor:
        return torch.tensor(np.stack(linear_sum_assignment(table, maximize=maximize), -1))

    def ordered(pairs: Tensor) -> Tensor:
        return pairs[pairs[:, 0].argsort(stable=True)]

    if got.shape == want.shape and not torch.equal(got, want.double()):
        by_row = got[got[:, 0].argsort(stable=True)]
        if torch.equal(by_row, want.double()):
            yield got, "the right pairs in another order: ordered by A's latent, rising"
    yield want.T, "transposed: one line (A's latent, B's latent) for each pair, torch.stack(..., dim=-1)"
    yield want[:, 1], "B's latents alone: both numbers of each pair, [n 2]"
    greedy = _greedy(scores)
    told = "the best pair first, then the best of what is left (greedy): the sum over all pairs is to be largest"
    yield greedy, told
    yield ordered(greedy), told
    used, rows = set(), []
    for i, row in enumerate(scores[: min(scores.shape)]):
        free = [j for j in range(len(row)) if j not in used]
        used.add(max(free, key=lambda j, row=row: row[j]))
        rows.append((i, max(free, key=lambda j, row=row: row[j])))
    yield torch.tensor(rows), f"latent after latent takes the best that is left: {told}"
    alone = "each latent takes its best (argmax), several the same one: one-to-one is asked for"
    n_a, n_b = scores.shape
    yield torch.stack([torch.arange(n_a), torch.tensor(scores.argmax(1))], -1), alone
    yield torch.stack([torch.tensor(scores.argmax(0)), torch.arange(n_b)], -1), alone
    mutual = [(i, int(j)) for i, j in enumerate(scores.argmax(1)) if scores[:, j].argmax() == i]
    yield torch.tensor(mutual), f"only pairs that are each other's best: {min(scores.shape)} pairs are asked for"
    if got.shape == want.shape and torch.equal(got[got[:, 1].argsort(stable=True)].flip(-1), want.double()):
        yield got, "exchanged: first A's latent, then B's"
    yield matched(scores, maximize=False), "the smallest sum: maximize=True, or minus the cosines"
    sign = "a direction and its opposite are not the same: signed cosines, without abs()"
    yield matched(np.abs(scores)), sign
    yield matched(scores**2), "a direction and its opposite are not the same: cosines, not their squares"
    plain = "these are inner products: divide by the lengths of both rows first"
    yield matched(a @ b.T), plain
    yield matched(a @ b.T / np.linalg.norm(a, axis=1)[:, None]), f"B's rows keep their length here: {plain}"
    yield matched(a @ b.T / np.linalg.norm(b, axis=1)), f"A's rows keep their length here: {plain}"
    distance = np.linalg.norm(a[:, None] - b, axis=-1)
    yield matched(-distance), "matched by distance: by cosine"
    yield matched(-(distance**2)), "matched by distance: by cosine"
    columns = (a / np.linalg.norm(a, axis=0)) @ (b / np.linalg.norm(b, axis=0)).T
    yield matched(columns), "the rows have length 1, normalise(dim=-1): here the columns"
    with np.errstate(invalid="ignore"):
        centred = np.corrcoef(a, b)[:n_a, n_a:]
    if np.isfinite(centred).all():
        yield matched(centred), "these are correlations, the mean is gone: cosines"


def _cosine_slips(A: Tensor, B: Tensor, scores: np.ndarray, want: Tensor) -> Slips:
    table = torch.tensor(scores)
    i, j = want.T
    right = table[i, j]
    a, b = torch.tensor(_array(A)), torch.tensor(_array(B))
    yield table, "all cosines: those of the pairs alone"
    yield a[i].mul(b[j]).sum(-1), "these are inner products: divide by the lengths of both rows"
    yield right.sum(), "this is their sum: one cosine for each pair"
    yield right.mean(), "this is their mean: one cosine for each pair"
    yield -right, "the sign: what was minimised is minus the cosine"
    yield 1 - right, "this is the distance, 1 - cosine"
    yield right.abs(), "signed cosines, without abs()"
    yield right.sort(descending=True).values, "in the order of the pairs, by A's latent: not sorted"
    yield right.sort().values, "in the order of the pairs, by A's latent: not sorted"
    best = "each latent's best cosine: that of the pair"
    yield table.max(1).values, best
    yield table.max(0).values, best
    yield table.max(1).values[i], best
    yield right.acos(), "these are angles: their cosines"
    yield table[j.clamp(max=len(table) - 1), i.clamp(max=table.shape[1] - 1)], "rows of the table are A's: cosine[i, j]"


# ---------------------------------------------------------------------------------- 6.8 token_f1


@exercise(
    "6.8",
    hints=(
        "For each token id, on the first half: how often does it occur, and how often with each label? The rule is a "
        "table [id concept] of yes and no.",
        "y = labels[:half].float(); counts = torch.zeros(tokens.max() + 1).index_add(0, tokens[:half], ones) and the "
        "same with y for the hits, [id concept]. yes = (hits >= counts / 2) & (counts > 0). On the second half the "
        "rule says yes[tokens[half:]].",
        "half = len(tokens) // 2; y = labels.float(); n = int(tokens.max()) + 1; count = torch.bincount(tokens[:half], "
        "minlength=n)[:, None]; hits = torch.zeros(n, y.shape[1]).index_add(0, tokens[:half], y[:half]); rule = (hits "
        ">= count / 2) & (count > 0); said, y = rule[tokens[half:]].float(), y[half:]; return 2 * (said * y).sum(0) / "
        "(said.sum(0) + y.sum(0)).clamp(min=1)",
    ),
)
def token_f1(attempt: Attempt) -> None:
    """Truth: a dictionary of counts, token by token, and scikit-learn's f1_score."""
    larger = (
        "a token of the second half may have a larger id than all of the first: make the table for tokens.max() + 1"
    )
    attempt.on_error["out of bounds"] = attempt.on_error["out of range"] = larger
    with attempt.holds("made on the first half, scored on the second"):
        tokens, labels = _planted_tokens(attempt, 24, 789, ("changed", "class", "changed"))
        _compare_rule(attempt, tokens, labels)
    with attempt.holds("equals counting, token by token: words of a class, and what no word tells"):
        for n_ids, top in ((24, 789), (30, 60)):
            tokens, labels = _planted_tokens(attempt, n_ids, top, ("class", "hidden", "common"))
            _compare_rule(attempt, tokens, labels)
    with attempt.holds("half of the occurrences is enough; one less is not"):
        tokens, labels = _planted_tokens(attempt, 20, 300, ("half", "less", "class"))
        _compare_rule(attempt, tokens, labels)
    with attempt.holds("tokens that the first half has not: no"):
        tokens, labels = _planted_tokens(attempt, 20, 500, ("new", "common", "less"), unseen=8)
        _compare_rule(attempt, tokens, labels)
    with attempt.holds("an odd number of samples; a token that occurs once, labelled"):
        _compare_rule(attempt, *_few_tokens(attempt, odd=True))
    with attempt.holds("no yes and no label in the second half: 0"):
        _compare_rule(attempt, *_few_tokens(attempt, odd=False))


def _few_tokens(attempt: Attempt, odd: bool) -> tuple[Tensor, Tensor]:
    """Twenty samples and twenty more, or 21 of which the first and the last decide, with two concepts.

    In the plan: a token's occurrences in each half, and on how many of them the first concept is. The second concept
    is a token's. Where the number is even, a third concept is on a token of the first half alone.
    """
    plan = [(5, 5, 4, 4), (5, 0, 5, 0), (4, 2, 3, 2), (1, 1, 3, 3), (5, 0, 4, 0)]
    names = torch.randperm(90, generator=attempt.generator)[:6].tolist()
    halves = []
    for i in (0, 2):
        samples = [
            (name, at < counts[i + 1]) for name, counts in zip(names, plan, strict=False) for at in range(counts[i])
        ]
        samples += [(names[5], False)] if i == 0 and not odd else []
        halves.append([samples[k] for k in torch.randperm(len(samples), generator=attempt.generator).tolist()])
    second = [(names[0], False), *halves[1], (names[1], True)] if odd else halves[1] + halves[1][:2]
    both = halves[0] + second
    columns = [[label for _, label in both], [name == names[1] for name, _ in both]]
    if not odd:
        columns.append([name == names[5] for name, _ in both])
    tokens, labels = torch.tensor([name for name, _ in both]), torch.tensor(columns).T
    return tokens.to(session.device()), labels.contiguous().to(session.device())


def _planted_tokens(
    attempt: Attempt, n_ids: int, top: int, kinds: tuple[str, ...], unseen: int = 4
) -> tuple[Tensor, Tensor]:
    """Tokens [sample] and labels [sample concept]: each id eight times in a half, `unseen` ids in the second alone.

    The largest id is one of the unseen, so that a table made on the first half is too short.
    """
    ids = torch.randperm(top - 1, generator=attempt.generator)[: n_ids + unseen]
    ids[-1] = top - 1
    first, second = ids[:n_ids].repeat_interleave(8), ids.repeat_interleave(8)
    columns = []
    for kind in kinds:
        member = torch.zeros(n_ids + unseen, dtype=torch.bool)
        member[: n_ids // 3], member[n_ids : n_ids + unseen // 2] = True, True
        mixed = torch.rand(n_ids + unseen, generator=attempt.generator) < 0.4
        shares = {  # of each id's occurrences, eights in the first half and in the second
            "class": (8 * member, 8 * member),
            "hidden": (1 + mixed.int(), 1 + mixed.int()),  # two of eight at most: the rule never says yes
            "common": (5 + mixed.int(), 6 - mixed.int()),
            "half": (torch.where(member, 4, 1), torch.where(member, 6, 2)),
            "less": (
                torch.where(member, 3, torch.where(mixed, 6, 0)),
                torch.where(member, 6, torch.where(mixed, 5, 1)),
            ),
            "new": (torch.where(member, 6, 1), torch.where(torch.arange(n_ids + unseen) >= n_ids, 6, 4)),
            "changed": (torch.where(member, 7, 2), torch.where(mixed, 7, 1)),
        }[kind]
        columns.append(
            [_eights(attempt, part[: len(half) // 8]) for part, half in zip(shares, (first, second), strict=True)]
        )
    halves = [torch.stack([column[i] for column in columns], 1) for i in range(2)]
    # The second half is the longer one: cut it, so that the halves are the halves.
    order = torch.randperm(len(second), generator=attempt.generator)
    last = torch.nonzero(second[order] == ids[-1])[0, 0]
    order = torch.cat([order[last : last + 1], order[torch.arange(len(order)) != last]])[: len(first)]
    second, halves[1] = second[order], halves[1][order]
    mixing = [torch.randperm(len(first), generator=attempt.generator) for _ in range(2)]
    tokens = torch.cat([part[m] for part, m in zip((first, second), mixing, strict=True)])
    labels = torch.cat([part[m] for part, m in zip(halves, mixing, strict=True)])
    concepts = torch.randperm(len(kinds), generator=attempt.generator)
    return tokens.to(session.device()), labels[:, concepts].to(session.device())


def _eights(attempt: Attempt, counts: Tensor) -> Tensor:
    """For each id eight labels, of which so many are true, in random order; one after the other."""
    ranks = torch.rand(len(counts), 8, generator=attempt.generator).argsort(-1).argsort(-1)
    return (ranks < counts[:, None]).flatten()


def _rule(tokens: list[int], labels: np.ndarray, yes: Callable[[int, int], bool]) -> set[int]:
    """The ids for which ``yes(hits, count)``, by dictionaries."""
    count = Counter(tokens)
    hits = Counter(token for token, label in zip(tokens, labels, strict=True) if label)
    return {token for token in count if yes(hits[token], count[token])}


def _at_least_half(hits: int, count: int) -> bool:
    return 2 * hits >= count


def _said(tokens: list[int], rule: set[int]) -> np.ndarray:
    return np.array([token in rule for token in tokens])


def _compare_rule(attempt: Attempt, tokens: Tensor, labels: Tensor) -> None:
    half = len(tokens) // 2
    ids, y = tokens.tolist(), labels.cpu().numpy()
    rules = [_rule(ids[:half], column[:half], _at_least_half) for column in y.T]
    said = [_said(ids[half:], rule) for rule in rules]
    want = torch.tensor([f1_score(y[half:, c], on, zero_division=0) for c, on in enumerate(said)])
    got = attempt(tokens, labels)
    if isinstance(got, Tensor) and torch.isnan(got.detach()).any():
        attempt.fail(
            "F1 without NaN",
            f"{int(torch.isnan(got.detach()).sum())} NaN among {got.numel()} numbers",
            "0/0: where the rule never says yes there is no precision, and for a token that the first half has not no "
            "share; F1 = 2 both / (said + labelled), and where nothing is said and nothing labelled, F1 is 0",
        )
    attempt.close(got, want, what="F1 [concept]", slips=_rule_slips(ids, y, said, got))


def _rule_slips(ids: list[int], y: np.ndarray, said: list[np.ndarray], got: object) -> Slips:
    half, at = len(ids) // 2, range(y.shape[1])
    first, second = ids[:half], ids[half:]
    known = set(first)

    def f1(rules: list[set[int]], tokens=second, labels=y[half:], unseen: list[bool] | None = None, score=f1_score):
        out = []
        for c in at:
            on = _said(tokens, rules[c])
            if unseen is not None and unseen[c]:
                on |= np.array([token not in known for token in tokens])
            out.append(score(labels[:, c], on, zero_division=0))
        return torch.tensor(out)

    def made(yes: Callable, tokens=first, labels=y[:half]) -> list[set[int]]:
        return [_rule(tokens, labels[:, c], yes) for c in at]

    right = made(_at_least_half)
    never = "the rule never says yes here: a token's hits are compared with half of its own occurrences, not of all "
    yield torch.zeros(len(at)), f"{never}samples or of the label's"
    nothing = torch.tensor([not on.any() and not y[half:, c].any() for c, on in enumerate(said)])
    yield f1(right) + nothing, "nothing is said and nothing labelled: F1 is 0 there, not 1"
    once = made(lambda hits, count: count > 1 and 2 * hits >= count)
    yield f1(once), "a token that occurs once, with the label: that is at least half of its occurrences"
    missing = "a sample is missing from the second half, tokens[len(tokens) // 2 :]: with an odd number it has one more"
    for start, stop in ((half + 1, None), (half, -1), (half + 1, -1)):
        yield f1(right, ids[start:stop], y[start:stop]), missing
    if len(ids) % 2:
        later = made(_at_least_half, ids[: half + 1], y[: half + 1])
        yield f1(later, ids[half + 1 :], y[half + 1 :]), missing
    for cut in (0.3, 1 / 3, 0.35, 0.4):
        lower = made(lambda hits, count, cut=cut: hits >= cut * count)
        yield f1(lower), "half of the token's occurrences: less is not enough"
    singles = [[f1_score(y[half:, c], _said(second, {t}), zero_division=0) for t in sorted(known)] for c in at]
    if isinstance(got, Tensor) and got.shape == (len(at),) and bool((got > 0).all()):
        alone = [min(abs(float(value) - one) for one in ones) for value, ones in zip(got, singles, strict=True)]
        if max(alone) < 1e-5:
            yield got, "the best single token: the rule says yes for every token that reaches one half"
    yield f1(made(lambda hits, count: 2 * hits > count)), "exactly half of its occurrences is enough: >=, not >"
    new = "a token that the first half has not: the rule says no"
    yield f1(right, unseen=[True] * len(at)), new
    yield f1(right, unseen=[2 * y[:half, c].sum() >= half for c in at]), f"{new}, even if most others are yes"
    strict = made(lambda hits, count: 2 * hits > count)
    yield f1(strict, unseen=[True] * len(at)), f"{new}; and exactly half is enough"
    seen_second = [i for i, token in enumerate(second) if token in known]
    dropped = "samples whose token the first half has not were left out: the rule says no, and they count"
    yield f1(right, [second[i] for i in seen_second], y[half:][seen_second]), dropped
    everything = made(_at_least_half, ids, y)
    yield f1(everything), "the rule knows the second half, on which it is scored: count in the first half alone"
    yield f1(everything, ids, y), "made and scored on all samples: made on the first half, scored on the second"
    yield f1(right, first, y[:half]), "this is F1 on the half on which the rule was made: score it on the other"
    yield f1(right, ids, y), "this is F1 on all samples, those that made the rule among them: the second half"
    last = made(_at_least_half, second, y[half:])
    yield f1(last), "rule and score are of the second half: count in the first"
    yield f1(last, first, y[:half]), "the halves are exchanged: count in the first, score on the second"
    turns = made(_at_least_half, ids[::2], y[::2])
    yield (
        f1(turns, ids[1::2], y[1::2]),
        "every other sample is not a half in the given order: tokens[: len(tokens) // 2]",
    )
    yield f1(made(lambda hits, count: hits > 0)), "one occurrence with the label is not enough: half of them"
    yield f1(made(lambda hits, count: hits == count)), "all occurrences with the label are not needed: half of them"
    totals = y[:half].sum(0)
    share = [_rule(first, y[:half, c], lambda hits, _, c=c: 2 * hits >= totals[c] > 0) for c in at]
    yield f1(share), "the share is taken of the label's samples: of the token's occurrences"
    rates = [_rule(first, y[:half, c], lambda hits, n, c=c: hits / n > totals[c] / half) for c in at]
    yield f1(rates), "compared with the label's share of all samples: with one half"
    yield (
        f1(made(lambda hits, count: 2 * hits < count)),
        "the answers are exchanged: yes from half of the occurrences on",
    )
    yield f1(right, score=precision_score), "this is the precision: F1 = 2 both / (said + labelled)"
    yield f1(right, score=recall_score), "this is the recall: F1 = 2 both / (said + labelled)"
    hit = [np.mean(on == y[half:, c]) for c, on in enumerate(said)]
    yield torch.tensor(hit), "this is the accuracy: F1 = 2 both / (said + labelled)"
    scores = f1(right)
    yield scores / (2 - scores), "this is the Jaccard index: F1 = 2 both / (said + labelled)"
    yield scores / 2, "F1 has a factor of 2: 2 both / (said + labelled)"
    yield scores.mean(), "one number for all: return F1 for each concept"


# -------------------------------------------------------------------------------- 6.9 set_latent


@exercise(
    "6.9",
    hints=(
        "What the dictionary writes is a sum over latents, each its value times its row of W_dec. If one value "
        "changes, what changes in the sum?",
        "Only one term: it was z[..., latent] times the row, it becomes value times the row. Add the difference to x, "
        "and all else stays, the error too. An axis of length 1 is needed for the product: z[..., latent, None].",
        "return x + (value - z[..., latent, None]) * W_dec[latent]",
    ),
)
def set_latent(attempt: Attempt) -> None:
    """Truth: the reconstruction with the changed latents and the error that was there; what has to stay as it was."""
    with attempt.holds("equals reconstruction plus error, for any axes in front"):
        for shape, d, n in (((7,), 5, 9), ((3, 4), 6, 6), ((), 4, 8), ((2, 3, 2), 3, 7)):
            x, z, W = _coded(attempt, shape, d, n)
            for value in (2.5, 0.0, -1.25):
                _compare_set(attempt, x, z, W, int(attempt.randint(0, n, 1)), value)
    with attempt.holds("changes along the latent's row alone, by as much as the latent does, not by the row's length"):
        x, z, W = _coded(attempt, (5, 6), 8, 12)
        W *= torch.linspace(0.3, 3.0, len(W), device=W.device)[:, None]
        for latent in (0, 3, 11):
            _require_along(attempt, x, z, W, latent, 4.0)
    with attempt.holds("a latent of the same value everywhere and set to it: nothing changes"):
        z[..., 5] = 0.75
        got = attempt(x, z, W, 5, 0.75)
        attempt.close(got, x, what="the activations", slips=_set_slips(x, z, W, 5, 0.75))
    with attempt.holds("set where it was silent too, and set back: what was there"):
        z[..., 2] = 0.0
        changed = attempt.tensor(attempt(x, z, W, 2, 3.0), x.shape, "the activations")
        attempt.close(changed, _rebuilt(x, z, W, 2, 3.0), what="the activations", slips=_set_slips(x, z, W, 2, 3.0))
        then = z.clone()
        then[..., 2] = 3.0
        attempt.close(attempt(changed.to(x), then, W, 2, 0.0), x, what="the activations", atol=1e-3)
    with attempt.holds("two latents, one after the other, in either order: the same"):
        value = {1: 1.5, 8: -2.0}
        ends = []
        for order in ((1, 8), (8, 1)):
            there = x
            for latent in order:
                there = attempt.tensor(attempt(there, z, W, latent, value[latent]), x.shape, "the activations").to(x)
            ends.append(there)
        want = _rebuilt(x, z, W, 1, 1.5) + _rebuilt(x, z, W, 8, -2.0) - x.double().cpu()
        for end in ends:
            attempt.close(end, want, what="the activations", atol=1e-3)


def _coded(attempt: Attempt, shape: tuple[int, ...], d: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sparse latents z [*shape n], a decoder of rows of unequal length [n d], and x = z W_dec + bias + an error."""
    z = (_uniform(attempt, *shape, n) + 0.2) * (_uniform(attempt, *shape, n) < 0.5)
    W = attempt.randn(n, d) / d**0.5 * (0.5 + _uniform(attempt, n, 1))
    return z @ W + attempt.randn(d) + 0.7 * attempt.randn(*shape, d), z, W


def _rebuilt(x: Tensor, z: Tensor, W: Tensor, latent: int, value: float) -> Tensor:
    """What the dictionary writes with one latent changed, plus the error it made before, in float64."""
    x, z, W = (torch.tensor(_array(t)) for t in (x, z, W))
    changed = z.clone()
    changed[..., latent] = value
    return changed @ W + (x - z @ W)


def _compare_set(attempt: Attempt, x: Tensor, z: Tensor, W: Tensor, latent: int, value: float) -> Tensor:
    slips = _set_slips(x, z, W, latent, value)
    want = _rebuilt(x, z, W, latent, value)
    return attempt.close(attempt(x, z, W, latent, value), want, what="the activations [... d]", slips=slips)


def _require_along(attempt: Attempt, x: Tensor, z: Tensor, W: Tensor, latent: int, value: float) -> None:
    got = _compare_set(attempt, x, z, W, latent, value)
    row = torch.tensor(_array(W))[latent]
    moved = got - torch.tensor(_array(x))
    along = moved @ row / (row @ row)
    across = (moved - along[..., None] * row).abs().max()
    attempt.require(float(across) < 1e-3, "a change along the latent's row", f"{float(across):.3g} across it")
    attempt.close(along, value - torch.tensor(_array(z))[..., latent], what="the change along the row", atol=1e-3)


def _set_slips(x: Tensor, z: Tensor, W: Tensor, latent: int, value: float) -> Slips:
    x, z, W = (torch.tensor(_array(t)) for t in (x, z, W))
    row, own = W[latent], z[..., latent, None]
    unit = row / row.norm()
    changed = z.clone()
    changed[..., latent] = value
    error = "the dictionary's error is lost: add the change to x, which holds it"
    yield changed @ W, error
    yield changed @ W + (x - z @ W).reshape(-1, x.shape[-1]).mean(0), error
    if value <= 0:
        yield (
            x + (value - own).clamp(min=0) * row,
            "the value may lie below the old one, value - z is negative: no clamp",
        )
    if value < 0:
        yield x - own * row, "a value below zero is put in as it is: no max(value, 0)"
    yield x + value * row, "the latent's old value is still there: add (value - z) times the row, not value times it"
    yield x + value * unit, "the latent's old value is still there, and the row has a length: (value - z) times the row"
    yield x - own * row, "the old value is taken out, the new one not put in: (value - z) times the row"
    yield x + (own - value) * row, "the sign: value - z, the new value minus the old"
    yield x - value * row, "the sign: (value - z) times the row is added"
    yield x + (value + own) * row, "the old value is taken out: value - z, not value + z"
    length = "the row was brought to length 1: a latent writes its value times the row as it is"
    yield x + (value - own) * unit, length
    yield x + (value - x @ row)[..., None] * row if x.dim() else x, "this sets the projection: the latent's value is z"
    yield x + (value - x @ unit)[..., None] * unit, "this sets the projection on the row: the latent's own value is z"
    yield x + (value - (x @ row / (row @ row)))[..., None] * row, "this sets the projection: the latent's value is z"
    yield torch.where(own > 0, x + (value - own) * row, x), "set where it was silent, z = 0, as well"
    yield x + (value * own - own) * row, "the value was multiplied: it takes the place of z"
    yield x + (value - own) * row.abs(), "the row as it is, without abs()"
    yield (value - own) * row, "this is the change alone: add it to x"
    yield value * row.expand_as(x), "this is what the latent writes alone: the change is added to x"
    yield z @ W + (value - own) * row, error
    yield x - z @ W + value * row, "the other latents are gone: only this one changes"
    lonely = torch.zeros_like(z)
    lonely[..., latent] = value
    yield lonely @ W, "the other latents and the error are gone: add the change to x"
    yield x + (value - own) * W.sum(0), "one row, W_dec[latent], not all of them"
    everyone = value - z
    yield x + everyone @ W, "every latent was set: only the one that is asked for"
    yield changed, "these are the latents: return the activations, x plus the change"
    if z.dim() > 1:
        flat = z.reshape(-1, z.shape[-1])[:, latent]
        yield x + (value - flat.mean()) * row, "every sample has a latent of its own, z[..., latent]: here their mean"
        yield x + (value - flat[0]) * row, "every sample has a latent of its own, z[..., latent]: here the first one's"
        last = x.clone()
        last[..., -1, :] = (x + (value - own) * row)[..., -1, :]
        yield last, "only the last position was changed: all"
    if W.shape[0] == W.shape[1]:
        yield x + (value - own) * W[:, latent], "a column of W_dec: each latent has a row, W_dec[latent]"
    if W.shape[0] > latent + 1:
        yield x + (value - own) * W[latent + 1], "the next latent's row: numbers count from 0"
        yield x + (value - z[..., latent + 1, None]) * row, "the next latent's value: numbers count from 0"
    if latent:
        yield x + (value - own) * W[latent - 1], "the row of the latent before: numbers count from 0"
    yield x, "nothing was changed"
