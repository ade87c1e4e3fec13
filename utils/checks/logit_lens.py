"""Checks of chapter 03. Their truths: closed forms, scipy, TransformerLens, planted models, blocks run one by one."""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from unittest import mock

import numpy as np
import pandas as pd
import torch
from scipy.stats import entropy, rankdata
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformer_lens import ActivationCache, TransformerBridge, patching
from transformer_lens.tools.analysis import direct_logit_attribution
from transformer_lens.tools.analysis import logit_lens as library_lens
from transformers import GPT2Config, GPT2LMHeadModel

from utils import planted, session
from utils.checks.core import Attempt, exercise, hint, prediction, shipped_model, small_model
from utils.datasets import world

__all__ = ["hint", "prediction"]

LOG_2 = math.log(2)
Slips = Iterator[tuple[Tensor, str]]


# --------------------------------------------------------------------------------- shared inputs


def _drawn_model() -> TransformerBridge:
    """A processed random model with biases everywhere, a sharp unembedding and a larger eps than usual.

    It lives as long as `small_model()`.
    """
    return _drawn_beside(small_model())


@functools.lru_cache(maxsize=1)
def _drawn_beside(small: TransformerBridge) -> TransformerBridge:
    config = GPT2Config(
        vocab_size=small.cfg.d_vocab,
        n_positions=16,
        n_embd=24,
        n_layer=3,
        n_head=4,
        bos_token_id=1,
        eos_token_id=3,
        tie_word_embeddings=False,
        initializer_range=0.3,
        layer_norm_epsilon=1e-3,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        bare = GPT2LMHeadModel(config)
        for parameter in bare.parameters():
            if parameter.dim() == 1:  # biases, which are 0 otherwise, and the scales of the norms
                parameter += 0.3 * torch.randn_like(parameter)
        bare.transformer.ln_f.bias *= 3
        bare.lm_head.weight *= 2.5
    tokenizer = copy.deepcopy(small.tokenizer)
    model = TransformerBridge.boot_transformers("drawn", hf_model=bare.eval(), tokenizer=tokenizer)
    model.enable_compatibility_mode(disable_warnings=True)
    model.requires_grad_(False)
    return model.to(session.device(), print_details=False)


def _tokens(attempt: Attempt, model, n: int, n_pos: int) -> Tensor:
    """Rows of random tokens [n, n_pos] that begin with <bos>."""
    tokens = attempt.randint(4, model.cfg.d_vocab, n, n_pos)
    tokens[:, 0] = 1
    return tokens


def _capitals(attempt: Attempt, model, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prompts "The capital of ... is", the same with other countries, and the capitals of both."""
    names = list(world.COUNTRIES)
    chosen = [names[i] for i in torch.randperm(len(names), generator=attempt.generator).tolist()[: 2 * n]]
    tokens = model.to_tokens([f"The capital of {country} is" for country in chosen])
    ids = [model.to_single_token(world.COUNTRIES[country].capital) for country in chosen]
    capitals = torch.tensor(ids, device=tokens.device)
    return tokens[:n], tokens[n:], capitals[:n], capitals[n:]


def _states(model, tokens: Tensor) -> Tensor:
    """The model's own states [state batch pos d_model]."""
    names = [f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers)]
    _, cache = model.run_with_cache(tokens)
    return torch.stack([cache[name] for name in ["blocks.0.hook_resid_pre", *names]])


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def _scale(model, x: Tensor) -> Tensor:
    """The final norm's divisor [... 1], float64."""
    return (_centred(x.double()).pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()


def _logits(model, x: Tensor) -> Tensor:
    """Centre, divide, unembed: the formula in float64."""
    return _centred(x.double()) / _scale(model, x) @ model.W_U.double() + model.b_U.double()


def _read(model, x: Tensor) -> Tensor:
    return _logits(model, x).log_softmax(-1)


def _continued(model, tokens: Tensor, stream: Tensor, state: int) -> Tensor:
    """Logits [batch pos d_vocab] when the model goes on with ``stream`` as its state number ``state``."""
    if state == model.cfg.n_layers:
        return _logits(model, stream)
    name = f"blocks.{state}.hook_resid_pre"
    stream = stream.to(model.W_U.dtype)
    return model.run_with_hooks(tokens, fwd_hooks=[(name, lambda value, hook: stream)])


# --------------------------------------------------------------------------------- 3.1 read_out


@exercise(
    "3.1",
    hints=(
        "Three steps, all along the last axis: the final norm (subtract the mean, divide), the unembedding (a matrix "
        "and a bias), log_softmax. keepdim=True keeps mean and variance in step with any number of axes in front.",
        "centred = resid - resid.mean(-1, keepdim=True); the variance is centred.pow(2).mean(-1, keepdim=True), and "
        "model.cfg.eps is added to it under the root.",
        "return (centred / (variance + model.cfg.eps).sqrt() @ model.W_U + model.b_U).log_softmax(-1)",
    ),
)
def read_out(attempt: Attempt) -> None:
    """Truth: the formula in float64; TransformerLens's logit lens; what the model itself says."""
    column = "W_U is [d_model d_vocab]: resid @ model.W_U, without a transpose"
    attempt.on_error["mat1 and mat2"] = attempt.on_error["size mismatch"] = column
    model = _drawn_model()
    with attempt.holds("vectors that no model has made: of any size, tiny ones too, with a mean"):
        for shape, size in [((4, 5), 1e-2), ((3,), 1.0), ((), 2.0), ((2, 3, 2), 0.3), ((4,), 4e-3)]:
            x = size * (attempt.randn(*shape, model.cfg.d_model) + attempt.randn(*shape, 1) + 1)
            _close_reading(attempt, model, x, attempt(model, x), _read(model, x))
    with attempt.holds("every state of `world`: equals TransformerLens"):
        shipped = shipped_model()
        tokens = _capitals(attempt, shipped, 2)[0]
        said = library_lens(shipped, tokens, positions=None).values.log_softmax(-1)
        states = _states(shipped, tokens)
        _close_reading(attempt, shipped, states, attempt(shipped, states), said)
    with attempt.holds("the last state gives what the model itself says"):
        tokens = _tokens(attempt, model, 3, 6)
        last = _states(model, tokens)[-1]
        _close_reading(attempt, model, last, attempt(model, last), model(tokens).log_softmax(-1))


def _close_reading(attempt: Attempt, model, x: Tensor, got, want: Tensor) -> None:
    what = "the log-probabilities"
    attempt.close(got, want, atol=1e-3, rtol=1e-4, what=what, slips=_reading_slips(model, x))


def _reading_slips(model, x: Tensor) -> Slips:
    x = x.detach().double()
    w, b, eps, d = model.W_U.double(), model.b_U.double(), model.cfg.eps, x.shape[-1]
    centred = _centred(x)
    var, square = centred.pow(2).mean(-1, keepdim=True), x.pow(2).mean(-1, keepdim=True)
    scale = (var + eps).sqrt()
    logits = centred / scale @ w + b

    def said(normed: Tensor, matrix: Tensor = w, bias: Tensor | float = b) -> Tensor:
        return (normed @ matrix + bias).log_softmax(-1)

    yield logits, "these are logits: log_softmax over the vocabulary is missing"
    yield logits.softmax(-1), "these are probabilities: return their logarithms (log_softmax)"
    yield logits.log_softmax(-1) / LOG_2, "these are logarithms to base 2: natural ones are asked for here"
    yield said(x), "the final norm is missing: centre and divide before the unembedding"
    yield said(x / (square + eps).sqrt()), "subtract the mean first: this is a root mean square, not the final norm"
    yield said(x / square.sqrt()), "subtract the mean first: this is a root mean square, not the final norm"
    biased = "the variance divides by d_model, not by d_model - 1 (unbiased=False)"
    unbiased = var * d / (d - 1)
    yield said(centred / (unbiased + eps).sqrt()), biased
    yield said(centred / unbiased.sqrt()), biased
    yield said(centred / (unbiased.sqrt() + eps)), biased
    yield said(centred / var.sqrt()), "eps is missing: it is added to the variance, under the root"
    yield said(centred / (var.sqrt() + eps)), "eps is added to the variance, under the root, not to the deviation"
    if d != 128:
        wide = (var * d / 128 + eps).sqrt()
        yield said(centred / wide), f"the mean runs over d_model of this model, {d}, not 128"
    yield said(centred / var.clamp(min=eps).sqrt()), "eps is added to the variance; here it is a least value"
    for fixed in (1e-5, 1e-6, 1e-12):
        yield said(centred / (var + fixed).sqrt()), f"eps is model.cfg.eps of this model, {eps:g}, not always {fixed:g}"
    norm = "divided by the norm of the vector: the deviation is the norm over sqrt(d_model)"
    for length in (var * d, var * d + eps, square * d, square * d + eps):
        yield said(centred / length.sqrt()), norm
        yield said(x / length.sqrt()), norm
    yield said(centred / (var + eps)), "divided by the variance: take its square root"
    yield said(centred * scale), "multiplied by the deviation: divide"
    yield said(centred), "divide by the square root of variance + eps: only the mean was subtracted"
    yield said(centred / scale, bias=0.0), "the bias of the unembedding is missing: + model.b_U"
    yield centred / scale @ w, "the bias model.b_U and log_softmax are missing"
    yield logits - logits.amax(-1, keepdim=True), "not normalised: probabilities add up to 1 (log_softmax)"
    yield said(centred / scale) + b, "the bias model.b_U belongs to the logits: add it before log_softmax"
    embedding = "this is the embedding W_E: the unembedding is model.W_U"
    yield said(centred / scale, model.W_E.double().T), embedding
    yield said(centred / scale, model.W_E.double().T, 0.0), embedding
    whole = centred.pow(2).mean()
    yield said(centred / (whole + eps).sqrt()), "every vector has a variance of its own: mean over the last axis only"
    axis = "log_softmax runs over the vocabulary, the last axis"
    for dim in range(logits.dim() - 1):
        yield logits.log_softmax(dim), axis
        moved = x - x.mean(dim, keepdim=True)
        own = (moved.pow(2).mean(dim, keepdim=True) + eps).sqrt()
        yield said(moved / own), "mean and variance run over d_model, the last axis"
    if x.dim() > 1:
        yield logits.log_softmax(-1)[..., -1, :], "only the last position was read: all vectors are asked for"
        yield logits.log_softmax(-1)[-1], "only the last row was read: all vectors are asked for"
    yield logits.argmax(-1), "these are token ids: return the log-probabilities of all tokens"


# ------------------------------------------------------------------------------ 3.2 against_final


@exercise(
    "3.2",
    hints=(
        "final = log_probs[-1] has one axis less and broadcasts against log_probs. KL(final || lens) is the sum of "
        "p_final * (log p_final - log p_lens) over the vocabulary; divide by log(2) for bits.",
        "The rank: top = final.argmax(-1); fetch that token's log-probability in every state (gather) and count how "
        "many tokens have a strictly larger one there.",
        "kl = (final.exp() * (final - log_probs)).sum(-1) / math.log(2); top = final.argmax(-1).expand("
        "log_probs.shape[:-1])[..., None]; rank = (log_probs > log_probs.gather(-1, top)).sum(-1); return kl, rank",
    ),
)
def against_final(attempt: Attempt) -> None:
    """Truth: `scipy.stats.entropy` and `rankdata`; values known by hand."""
    with attempt.holds("the divergence, known by hand"):
        half, flat = [1 / 2, 1 / 4, 1 / 8, 1 / 8], [1 / 4, 1 / 4, 1 / 4, 1 / 4]
        table = torch.tensor([flat, half[::-1], half], dtype=torch.float64).log().float().to(session.device())
        kl, _ = _compared(attempt, table)
        want = torch.tensor([0.25, 0.875, 0.0])  # 2 - 1.75; sum of p times the difference of the exponents
        attempt.close(kl, want, atol=1e-5, what="the divergence [state]", slips=_divergence_slips(table))
    with attempt.holds("equals scipy, for states of any number of places"):
        for shape in [(5, 7), (4, 2, 3), (3,)]:
            table = (2 * attempt.randn(*shape, 11)).log_softmax(-1)
            kl, rank = _compared(attempt, table)
            attempt.close(kl, _divergence(table), what="the divergence", slips=_divergence_slips(table))
            attempt.close(rank, _rank(table), atol=1e-3, rtol=0, what="the rank", slips=_rank_slips(table))
    with attempt.holds("tokens that are as likely as the top do not push it back"):
        table = attempt.randint(0, 3, 5, 8, 10).float().log_softmax(-1)
        table[-1] = (3 * attempt.randn(8, 10)).log_softmax(-1)
        _, rank = _compared(attempt, table)
        attempt.close(rank, _rank(table), atol=1e-3, rtol=0, what="the rank", slips=_rank_slips(table))

    with attempt.holds("log-probabilities down to -200, of which exp() leaves nothing"):
        logits = torch.stack([torch.randperm(60, generator=attempt.generator) for _ in range(5 * 6)])
        table = (-200 / 59 * logits.unflatten(0, (5, 6)).double()).log_softmax(-1).float().to(session.device())
        kl, rank = _compared(attempt, table)
        if isinstance(kl, Tensor) and not torch.isfinite(kl).all():
            exp = "exp(-200) is 0 in float32, and its logarithm lost: subtract the log-probabilities as they are"
            attempt.fail("a finite divergence", "NaN or infinite numbers", exp)
        slips = [*_divergence_slips(table), *_capped(table)]
        attempt.close(kl, _divergence(table), what="the divergence", slips=slips)
        attempt.close(rank, _rank(table), atol=1e-3, rtol=0, what="the rank", slips=_rank_slips(table))
    with attempt.holds("ranks among 5000 tokens, and where others are likelier by 0.01 %"):
        n_tokens = 5000
        logits = torch.stack([torch.randperm(n_tokens, generator=attempt.generator) for _ in range(3 * 4)])
        many = (0.003 * logits.unflatten(0, (3, 4)).double()).log_softmax(-1).float().to(session.device())
        close = (2 * attempt.randn(4, 5, 30)).log_softmax(-1)
        top = close[-1].argmax(-1)
        own = close.gather(-1, top.expand(4, 5)[..., None])
        nearly = attempt.randint(0, 2, 3, 5, 30).bool() & (torch.arange(30, device=top.device) != top[:, None])
        close[:-1] = torch.where(nearly, own[:-1] + 1e-4, close[:-1])
        for table in (many, close.log_softmax(-1)):
            _, rank = _compared(attempt, table)
            attempt.close(rank, _rank(table), atol=1e-3, rtol=0, what="the rank", slips=_rank_slips(table))


def _compared(attempt: Attempt, table: Tensor) -> tuple:
    kl, rank = attempt.pair(attempt(table), "kl", "rank")
    swapped = isinstance(kl, Tensor) and torch.equal(kl.detach().cpu().double(), _rank(table))
    attempt.require(not swapped, "a pair (kl, rank)", "the ranks first", "the other way round: the divergence first")
    return kl, rank


def _divergence(table: Tensor, lens: Tensor | None = None, final: Tensor | None = None) -> Tensor:
    """KL(final || lens) in bits, by scipy."""
    p = np.exp(table.double().cpu().numpy())
    lens = p if lens is None else lens
    final = p[-1:] if final is None else final
    return torch.as_tensor(entropy(*np.broadcast_arrays(final, lens), base=2, axis=-1))


def _rank(table: Tensor, top: Tensor | None = None, method: str = "min", sign: int = -1) -> Tensor:
    """Where a token (default: the last state's likeliest) stands in each state, 0 for the first, by scipy."""
    table = table.detach().double().cpu()
    ranks = torch.as_tensor(rankdata(sign * table.numpy(), method=method, axis=-1))
    top = table[-1].argmax(-1) if top is None else top
    return ranks.gather(-1, top.expand(table.shape[:-1])[..., None])[..., 0].double() - 1


def _divergence_slips(table: Tensor) -> Slips:
    table = table.detach().double().cpu()
    p = table.exp().numpy()
    final, kl = table[-1], _divergence(table)
    yield kl * LOG_2, "these are nats: divide by log(2) for bits"
    yield kl * LOG_2**2, "multiplied by log(2): divide by it for bits"
    yield _divergence(table, lens=p[-1:], final=p), "the other way round, KL(lens || final): the final's p comes first"
    reverse = "the other way round and in nats: KL(final || lens), divided by log(2)"
    yield _divergence(table, lens=p[-1:], final=p) * LOG_2, reverse
    yield -kl, "the sign: final minus lens, so that a divergence is never negative"
    yield kl.mean(), "one number for all: return the divergence of every state and place"
    for dim in range(kl.dim()):
        many = "averaged over states or places: return the divergence of every state and place"
        yield kl.mean(dim), many
        yield kl.sum(dim), "added up over states or places: return the divergence of every state and place"
    yield -(final.exp() * table).sum(-1) / LOG_2, "this is the cross-entropy: subtract the entropy of the final"
    terms = final.exp() * (final - table) / LOG_2
    yield terms, "these are the terms: add them up over the vocabulary"
    yield terms.mean(-1), "a mean over the vocabulary: a divergence is a sum"
    yield _divergence(table, final=p[:1]), "compared with the first state: the final is the last one, log_probs[-1]"
    yield _divergence(table, lens=p[:-1]), "the last state is missing (its divergence is 0)"
    following = np.concatenate([p[1:], p[-1:]])
    yield _divergence(table, final=following), "compared with the next state: the final is always the last one"
    yield (final * (final - table)).sum(-1) / LOG_2, "p is missing: log_probs are logarithms, weigh by final.exp()"
    weighed = (final.exp() * (final.exp() - table.exp())).sum(-1)
    yield weighed, "the difference of probabilities: it is that of the *log*-probabilities"
    yield weighed / LOG_2, "the difference of probabilities: it is that of the *log*-probabilities"
    yield (table.exp() * (final - table)).sum(-1) / LOG_2, "weighed by the lens's p: by the final's, final.exp()"
    middle = (p + p[-1:]) / 2
    both = (_divergence(table, lens=middle) + _divergence(table, lens=middle, final=p)) / 2
    yield both, "this is the Jensen-Shannon divergence: KL(final || lens) alone"
    yield (kl + _divergence(table, lens=p[-1:], final=p)) / 2, "averaged over both directions: KL(final || lens) alone"
    again = table.exp().log_softmax(-1).exp().numpy()
    yield _divergence(table, lens=again, final=again[-1:]), "log_probs are normalised already: no softmax of exp"


def _capped(table: Tensor) -> Slips:
    """What becomes of the divergence where small probabilities are raised before the logarithm."""
    p = table.detach().double().cpu().exp()
    for least in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12, 1e-16, 1e-20, 1e-30):
        cap = f"a least probability of {least:g} caps the divergence: subtract the log-probabilities as they are"
        for raised in (p.clamp(min=least), p + least):
            for weight, final in ((p, raised), (raised, raised), (p, p)):
                ratio = (final[-1] / raised).log2()
                yield (weight[-1] * torch.where(weight[-1] > 0, ratio, 0)).sum(-1), cap


def _rank_slips(table: Tensor) -> Slips:
    table = table.detach().double().cpu()
    rank, n_tokens = _rank(table), table.shape[-1]
    if n_tokens > 12:
        rounded = "numbers that differ come out equal: compare the log-probabilities as they are"
        followed = table[-1].argmax(-1)
        for rough in (table.half(), table.bfloat16(), table.float().exp(), table.float().exp().half()):
            yield _rank(rough, top=followed), rounded
        own = table.gather(-1, followed.expand(rank.shape)[..., None])
        for tolerance in (1e-2, 1e-3, 1e-4):
            yield (table > own + tolerance).sum(-1), rounded
        yield rank.half(), "half precision cannot count above 2048"
        yield rank.bfloat16(), "bfloat16 cannot count above 256"
    order = table.argsort(dim=-1, descending=True, stable=True)
    top = table[-1].argmax(-1).expand(rank.shape)[..., None]
    yield rank + 1, "ranks count from 0: how many tokens are strictly likelier"
    yield _rank(table, method="max"), "ties: count the tokens that are strictly likelier (>), not as likely (>=)"
    yield _rank(table, method="max") + 1, "count the tokens that are strictly likelier: > instead of >="
    yield order.argsort(dim=-1).gather(-1, top)[..., 0], "ties: count the tokens that are strictly likelier (>)"
    counted = "counted from the least likely end: rank 0 is the likeliest token"
    yield n_tokens - 1 - rank, counted
    yield _rank(table, sign=1), counted
    yield _rank(table, sign=1, method="max"), counted
    yield _rank(table, top=table.argmax(-1)), "the rank of each state's own top is 0: follow the *final's* top token"
    yield order.gather(-1, top)[..., 0], "these are token ids (the token at the place `top`): return places"
    yield (
        table.argsort(dim=-1).gather(-1, top)[..., 0],
        "these are token ids: return the place of the final's top token",
    )
    yield top[..., 0].double(), "these are token ids: return the place of the final's top token in each state"
    own = table.argmax(-1)
    final_order = torch.as_tensor(rankdata(-table[-1].numpy(), method="min", axis=-1)).expand(table.shape)
    yield final_order.gather(-1, own[..., None])[..., 0].double() - 1, "this ranks each state's top in the final state"
    yield _rank(table, top=table[0].argmax(-1)), "this follows the first state's top token: take the last state's"
    following = torch.cat([own[1:], own[-1:]])
    yield _rank(table, top=following), "this follows the next state's top token: take the last state's"
    if table.dim() > 2:
        everyone = table[-1].reshape(-1, n_tokens).mean(0).argmax().expand(table.shape[1:-1])
        yield _rank(table, top=everyone), "each place has a top token of its own"
        first = table[-1].argmax(-1).flatten()[0].expand(table.shape[1:-1])
        yield _rank(table, top=first), "each place has a top token of its own: this follows that of the first place"
    yield rank.mean(), "one number for all: return the rank in every state, at every place"
    for dim in range(rank.dim()):
        yield rank.mean(dim), "averaged: return the rank in every state, at every place"


# -------------------------------------------------------------------------------- 3.3 norm_factor


@exercise(
    "3.3",
    hints=(
        "The final norm divides; without it, the division is missing. What does it divide by?",
        "The standard deviation of each vector over d_model, with eps under the root. That the mean is not subtracted "
        "either makes no difference: the columns of a processed W_U have mean zero.",
        "return (resid.var(-1, unbiased=False) + model.cfg.eps).sqrt()",
    ),
)
def norm_factor(attempt: Attempt) -> None:
    """Truth: the ratio of the two sets of logits, by least squares; TransformerLens's cached scale; NumPy."""
    model, shipped = _drawn_model(), shipped_model()
    with attempt.holds("tiny vectors and single ones: eps counts"):
        for shape, size in [((6,), 1e-2), ((4,), 3e-3), ((), 1e-3)]:
            x = size * (attempt.randn(*shape, model.cfg.d_model) + 1)
            want = torch.as_tensor(np.sqrt(x.double().cpu().numpy().var(-1) + model.cfg.eps))
            attempt.close(attempt(model, x), want, atol=0, rtol=2e-3, what="the factor", slips=_factor_slips(model, x))
    with attempt.holds("the logits without the norm are the factor times those with it"):
        tokens = _tokens(attempt, model, 2, 5)
        for states in (_states(model, tokens), 3 * attempt.randn(7, model.cfg.d_model) + 2):
            without = (states @ model.W_U).double()
            normed = (model.ln_final(states) @ model.W_U).double()
            factor = (without * normed).sum(-1) / normed.pow(2).sum(-1)
            attempt.close(attempt(model, states), factor, what="the factor", slips=_factor_slips(model, states))
    with attempt.holds("the last state of `world`: equals the scale that TransformerLens caches"):
        _, cache = shipped.run_with_cache(_capitals(attempt, shipped, 3)[0])
        last = cache["blocks.3.hook_resid_post"].clone()
        scale = cache["ln_final.hook_scale"][..., 0]
        attempt.close(attempt(shipped, last), scale, rtol=1e-3, what="the factor", slips=_factor_slips(shipped, last))


def _factor_slips(model, x: Tensor) -> Slips:
    x, eps, d = x.detach().double(), model.cfg.eps, x.shape[-1]
    centred = _centred(x)
    var, square = centred.pow(2).mean(-1), x.pow(2).mean(-1)
    right = (var + eps).sqrt()
    yield right[..., None], "an axis of length 1 is left over: one number for each vector (no keepdim)"
    yield 1 / right, "the inverse: *without* the norm the division is missing, so the logits grow by what it divides by"
    yield 1 / var.sqrt(), "the inverse, and eps is missing"
    yield var, "this is the variance: take the square root"
    yield var + eps, "this is the variance: take the square root"
    yield (d * var).sqrt(), "this is the length of the vector: divide by sqrt(d_model)"
    yield (d * square).sqrt(), "this is the length of the vector: divide by sqrt(d_model)"
    yield (d * square + eps).sqrt(), "this is the length of the vector: divide by sqrt(d_model)"
    yield (d * var + eps).sqrt(), "this is the length of the vector: divide by sqrt(d_model)"
    biased = "the variance divides by d_model, not by d_model - 1 (unbiased=False)"
    unbiased = var * d / (d - 1)
    yield (unbiased + eps).sqrt(), biased
    yield unbiased.sqrt(), biased
    yield unbiased.sqrt() + eps, biased
    centre = "subtract the mean of each vector first: the norm does, and these vectors have one"
    yield (square + eps).sqrt(), centre
    yield square.sqrt(), centre
    yield var.sqrt(), "eps is missing: it is added to the variance, under the root"
    yield var.sqrt() + eps, "eps is added to the variance, under the root, not to the deviation"
    if d != 128:
        yield (var * d / 128 + eps).sqrt(), f"the mean runs over d_model of this model, {d}, not 128"
    yield var.clamp(min=eps).sqrt(), "eps is added to the variance; here it is a least value"
    for fixed in (1e-5, 1e-6, 1e-12):
        yield (var + fixed).sqrt(), f"eps is model.cfg.eps of this model, {eps:g}, not always {fixed:g}"
    yield centred.abs().mean(-1), "this is a mean of absolute values: the root of the mean of squares"
    yield (centred.flatten().pow(2).mean() + eps).sqrt(), "one number for all: every vector has a factor of its own"
    one_each = "every vector has a factor of its own: no mean over positions or rows"
    for dim in range(x.dim() - 1):
        yield right.mean(dim), one_each
        yield right.mean(dim, keepdim=True).expand(right.shape), one_each
        over = (x - x.mean(dim, keepdim=True)).pow(2).mean(dim)
        yield (over + eps).sqrt(), "mean and variance run over d_model, the last axis"


# ------------------------------------------------------------------------------ 3.4 fit_translator

# How much the divergence may exceed the least possible one, in bits. Measured with the default 300 steps:
#   planted map, 20 seeds: Adam with lr 3e-3 at most 0.12, SGD with momentum 0.05; a fit without the bias at least 0.23;
#   open ends, 20 seeds: Adam and AdamW with lr 3e-3 to 3e-2 at most 0.04, batches of 64 rows 0.08, SGD with momentum
#   0.03; reversed KL at least 0.25, b_U missing on both sides 0.29, norm missing in the target 0.36, in training 1.0,
#   squared error of the log-probabilities 0.69, of the states 1.0, likeliest tokens in place of distributions 1.5.
NEAR_PLANTED, NEAR_OPEN = 0.2, 0.13
TWICE = (
    "the identity is in twice: what is read, in training too, is resid + resid @ weight + bias; return the change, "
    "weight - I"
)
SQUARES = (
    "the squared error of the states is at its least here: the loss is KL between what is *read* from them (through "
    "ln_final and unembed)"
)


@exercise(
    "3.4",
    hints=(
        "weight and bias are zero tensors with requires_grad=True; torch.optim.Adam([weight, bias], lr=0.4 / d_model) "
        "moves them. The target is fixed: compute what is read from `final` once, before the loop, without gradients.",
        "In each step: read resid + resid @ weight + bias through model.ln_final and model.unembed, log_softmax. The "
        "loss is the mean over rows of the sum over the vocabulary of target.exp() * (target - said).",
        "optimizer = torch.optim.Adam([weight, bias], lr=0.4 / resid.shape[-1]); for _ in range(steps): said = "
        "model.unembed(model.ln_final(resid + resid @ weight + bias)).log_softmax(-1); loss = (target.exp() * "
        "(target - said)).sum(-1).mean(); optimizer.zero_grad(); loss.backward(); optimizer.step(). In the end return "
        "weight.detach(), bias.detach().",
    ),
)
def fit_translator(attempt: Attempt) -> None:
    """Truth: a planted affine map; where several ends are possible, the mean of their distributions (closed form)."""
    attempt.on_error["does not require grad"] = (
        "nothing to train: weight and bias need requires_grad=True, and .detach() or no_grad stands between them and "
        "the loss"
    )
    attempt.on_error["view of a leaf"] = attempt.on_error["can't optimize a non-leaf"] = (
        "make weight and bias leaves: torch.zeros(..., requires_grad=True), and change neither in place"
    )
    model = _drawn_model()
    resid, final, _ = _affine_ends(attempt, model)
    with attempt.holds("no steps: weight and bias are zero, the logit lens itself"):
        d = model.cfg.d_model
        weight, bias = _translator(attempt, model, resid, final, 0)
        eye = torch.eye(d, dtype=torch.float64)
        slips = [
            (eye, "weight is the change against the identity: the stream itself is added, start at zero"),
        ]
        same = "with steps=0 nothing may move: run as many steps as `steps` says, from zero"
        attempt.close(weight, torch.zeros(d, d), atol=1e-7, what="weight", slips=[*slips, (weight, same)])
        attempt.close(bias, torch.zeros(d), atol=1e-7, what="bias", slips=[(bias, same)])
    with attempt.holds("one step moves something, and from zero"):
        once = _translator(attempt, model, resid, final, 1)
        attempt.require(
            any(bool(part.any()) for part in once),
            "weight or bias to move in one step (steps=1)",
            "only zeros",
            "weight and bias are still zero: does the optimizer get them, is backward() called, then step(), as "
            "often as `steps` says?",
        )
        moved = resid.double().cpu() + resid.double().cpu() @ once[0] + once[1]
        attempt.require(
            not _least_squares(resid, final, moved), "one step towards the end (steps=1)", "the end itself", SQUARES
        )
        weight, _ = _translator(attempt, model, torch.zeros_like(resid), final, 3)
        nothing = "where `resid` is zero no gradient reaches weight, and it stays where it starts: at zero"
        attempt.close(weight, torch.zeros(d, d), atol=1e-7, what="weight", slips=[(eye, TWICE), (weight, nothing)])
    with attempt.holds("planted: a matrix and a bias lead from one state to the other"):
        weight, bias = _translator(attempt, model, resid, final)
        target = _read(model, final).exp().cpu()
        gaps = [(part - first).norm() for part, first in zip((weight, bias), once, strict=True)]
        attempt.require(
            math.hypot(*gaps) > 0.1 * math.hypot(weight.norm(), bias.norm()) or not weight.any(),
            "another result after one step than after 300",
            "the same for steps=1 and without `steps`",
            "run as many steps as `steps` says",
        )
        _require_near(attempt, model, resid, final, (weight, bias), target, target, NEAR_PLANTED)
    with attempt.holds("where the state does not tell which end it comes to: the mean of their distributions"):
        resid, final, mean = _open_ends(attempt, model)
        weight, bias = _translator(attempt, model, resid, final)
        target = _read(model, final).exp().cpu()
        _require_near(attempt, model, resid, final, (weight, bias), target, mean.cpu(), NEAR_OPEN)


def _translator(attempt: Attempt, model, resid: Tensor, final: Tensor, *steps: int) -> tuple[Tensor, Tensor]:
    taken: Counter[torch.optim.Optimizer] = Counter()
    counting = register_optimizer_step_post_hook(lambda optimizer, args, kwargs: taken.update([optimizer]))
    try:
        with torch.enable_grad():
            got = attempt.pair(attempt(model, resid, final, *steps), "weight", "bias")
    finally:
        counting.remove()
    wanted = steps[0] if steps else 300
    attempt.require(
        not attempt.trained,
        "a model whose parameters have no gradients and the same requires_grad as before",
        f"{attempt.trained[0]!r} has a gradient or another requires_grad" if attempt.trained else "",
        "the model stays frozen: no requires_grad_ on it, and gradients for weight and bias alone",
    )
    few = [n for optimizer, n in taken.items() if n < wanted and not isinstance(optimizer, torch.optim.LBFGS)]
    attempt.require(
        not few,
        f"{wanted} steps of the optimizer",
        f"{few[0]} steps" if few else "",
        "not at the minimum yet: run as many steps as `steps` says",
    )
    d = model.cfg.d_model
    shapes = [tuple(getattr(part, "shape", ())) for part in got]
    attempt.require(shapes != [(d,), (d, d)], "a pair (weight, bias)", "a vector first", "the other way round")
    weight = attempt.tensor(got[0], (d, d), "weight [d_model d_model]")
    return weight, attempt.tensor(got[1], (d,), "bias [d_model]")


def _affine_ends(attempt: Attempt, model, n: int = 240) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """States and final states with ``final = resid + resid @ weight + bias`` exactly, and these two.

    The mean of the states is zero and half of them are small, so that nothing can take the bias's place.
    """
    d = model.cfg.d_model
    one, other = torch.randperm(model.cfg.d_vocab, generator=attempt.generator)[:2].tolist()
    bias = _centred(0.7 * (model.W_U[:, one] - model.W_U[:, other]).sign())
    weight = 0.08 * attempt.randn(d, d)
    spread = _centred(attempt.randn(n, d))
    spread[::2] *= 0.1  # where next to nothing comes, the bias has to say it all
    spread = spread - spread.mean(0)
    whole = torch.eye(d, device=weight.device, dtype=torch.float64) + weight.double()
    return (spread.double() @ torch.linalg.inv(whole)).float(), spread + bias, (weight, bias)


def _open_ends(attempt: Attempt, model, n_kinds: int = 8, n_each: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    """States of a few kinds, each with many final states, and the mean of the latter's distributions [n d_vocab].

    Three kinds in four end in one of three sure tokens, which differ from row to row; the others always end in the
    same unsure distribution. KL(final || lens) is least where the lens gives the mean of a kind's distributions
    (closed form). Another loss ends elsewhere: reversed KL at their geometric mean, squared error of the states at
    the mean state, labels where an unsure distribution counts as a sure one.
    """
    n_tokens, rows = model.cfg.d_vocab, []
    for kind in range(n_kinds):
        tokens = torch.randperm(n_tokens, generator=attempt.generator)[:3].tolist()
        rest = 0.5 + torch.rand(n_tokens, generator=attempt.generator, dtype=torch.float64)
        rest = rest / rest.sum()
        if kind % 4:
            ends = []
            for token, share in zip(tokens, (0.5, 0.3, 0.2), strict=True):
                p = 0.1 * rest
                p[token] += 0.9
                ends += [p] * round(share * n_each)
        else:
            p = 0.5 * rest
            p[tokens[0]] += 0.3
            p[tokens[1]] += 0.2
            ends = [p] * n_each
        rows.append(torch.stack(ends))
    p = torch.stack(rows).to(session.device())
    final = 2 * _state_that_reads(attempt, model, p.log()).flatten(0, 1)
    resid = 3 * attempt.randn(n_kinds, 1, model.cfg.d_model).expand(-1, n_each, -1).flatten(0, 1)
    mean = p.mean(1, keepdim=True).expand_as(p).flatten(0, 1)
    order = torch.randperm(len(resid), generator=attempt.generator).to(resid.device)
    return resid[order].clone(), final[order].float(), mean[order]


def _state_that_reads(attempt: Attempt, model, log_p: Tensor) -> Tensor:
    """States of mean 0 and variance 1 whose reading has these log-probabilities; what is not read is random."""
    w, b = model.W_U.double(), model.b_U.double()
    d = w.shape[0]
    heard = (_centred(log_p) - _centred(b)) @ torch.linalg.pinv(w, rtol=1e-6)
    ones = torch.ones(d, 1, device=w.device, dtype=w.dtype)
    unheard = torch.linalg.svd(torch.cat([w, ones], 1).T)[2][w.shape[1] :]
    drawn = attempt.randn(*log_p.shape[:-1], len(unheard)).double()
    drawn = drawn / drawn.norm(dim=-1, keepdim=True)
    return heard + (d - heard.pow(2).sum(-1, keepdim=True)).sqrt() * (drawn @ unheard)


def _kl(log_q: Tensor, p: Tensor) -> float:
    """Mean KL(p || q) in bits."""
    return float((p * (p.log() - log_q.detach().cpu())).sum(-1).mean() / LOG_2)


def _require_near(attempt, model, resid, final, got: tuple[Tensor, Tensor], target, best, allowed: float) -> None:
    x = resid.double().cpu()
    weight, bias = got
    device = resid.device

    def said(w: Tensor, b: Tensor) -> Tensor:
        return _read(model, (x + x @ w + b).to(device)).cpu()

    least, reached = _kl(best.log(), target), _kl(said(weight, bias), target)
    if reached <= least + allowed:
        return
    start = _kl(_read(model, resid).cpu(), target)
    eye = torch.eye(len(bias), dtype=x.dtype)
    state = (x + x @ weight + bias).to(device)

    def near(value: float) -> bool:
        return value <= least + allowed

    def slip() -> str:
        if not weight.any() and not bias.any():
            return "weight and bias are still zero: does the optimizer get them, is backward() called, then step()?"
        if near(_kl(said(weight.T, bias), target)):
            return "weight is transposed: what is read is resid + resid @ weight + bias"
        if near(_kl(said(weight - eye, bias), target)):
            return TWICE
        if near(_kl(said(weight - eye, -bias), target)) or near(_kl(said(-weight, -bias), target)):
            return "the sign is turned round: the translation is added to the stream"
        if not bias.any():
            return "the bias is still zero: is it part of what is read in training, and does the optimizer get both?"
        if not weight.any():
            return "weight is still zero: is resid @ weight part of what is read, and does the optimizer get both?"
        if _kl(said(weight - eye, bias), target) < min(reached, start) / 2:
            return "what is read, in training too, is resid + resid @ weight + bias: is `resid +` missing there?"
        if not (weight - weight.diagonal().diag()).any():
            return "weight is diagonal: all its entries are trained"
        return _other_loss(model, said(weight, bias), state, x, final, target, best, least, start)

    attempt.fail(
        f"KL(final || lens) of at most {least + allowed:.2f} bits ({least:.2f} is the least possible)",
        f"{reached:.2f} bits ({start:.2f} at the start)",
        slip(),
    )


def _least_squares(x: Tensor, final: Tensor, state: Tensor) -> bool:
    """Whether translated states come as near to the final ones, in squares, as an affine map can bring them."""
    x, ends = x.double().cpu(), final.double().cpu()
    rows = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    gap = (ends - rows @ (torch.linalg.pinv(rows, rtol=1e-6) @ ends)).pow(2).mean()
    return bool((state - ends).pow(2).mean() <= 1.05 * gap + 0.02)


def _other_loss(model, said, state, x, final, target, best, least: float, start: float) -> str:
    """Which other loss is smaller at the answer than where KL(final || lens) is least."""
    log_p, log_best, label = target.log(), best.log(), target.argmax(-1, keepdim=True)

    def reverse(log_q: Tensor) -> float:
        return float((log_q.exp() * (log_q - log_p)).sum(-1).mean())

    def labels(log_q: Tensor) -> float:
        return float(-log_q.gather(-1, label).mean())

    def squares(log_q: Tensor) -> float:
        return float((log_q - log_p).pow(2).mean())

    w, b = model.W_U.double(), model.b_U.double()
    bare = (state @ w + b).log_softmax(-1).cpu()
    raw = (final.double() @ w + b).softmax(-1).cpu()
    if _least_squares(x, final, state.cpu()):
        return SQUARES
    if _kl(bare, target) <= least + 0.1:
        return "the final norm is missing in training: read the translated state through model.ln_final"
    if labels(said) < labels(log_best) - 0.05:
        return (
            "this is trained on the likeliest token alone, or on a sharpened target: the target is the whole "
            "distribution that is read from final"
        )
    if _kl(said, raw) < _kl(log_best, raw) - 0.05:
        return "`final` has to be read through model.ln_final too: it is a state, not yet normed"
    if reverse(said) < reverse(log_best) - 0.05:
        return "this is KL(lens || final), the other way round: weigh by the final's probabilities, target.exp()"
    if squares(said) < squares(log_best) - 0.05:
        return "squared error of log-probabilities: the loss is KL(final || lens)"
    bias = model.b_U.double().cpu()
    unbiased = (log_p - bias).softmax(-1)
    if _kl((said - bias).log_softmax(-1), unbiased) < _kl((log_best - bias).log_softmax(-1), unbiased) - 0.05:
        return "the bias of the unembedding is missing in training: + model.b_U, for the target and for what is read"
    if _kl(said, target) > start:
        return (
            "worse than at the start: the sign of the loss, or steps far too large (Adam with lr = 0.4 / d_model does)"
        )
    return (
        "not at the minimum yet: as many steps as `steps` says (300), on all rows, Adam with a learning rate of about "
        "0.4 / d_model"
    )


# ---------------------------------------------------------------------------------- 3.5 attribute


@exercise(
    "3.5",
    hints=(
        "One direction for each sentence: model.W_U[:, right] - model.W_U[:, wrong], [d_model batch]. What a part "
        "writes at the last position, times this direction, divided by the final norm's scale there, is its share.",
        "cache['ln_final.hook_scale'][:, -1] is [batch 1]. A head writes z @ W_O: cache[f'blocks.{l}.attn.hook_z'] is "
        "[batch pos head d_head], model.W_O is [layer head d_head d_model]. An MLP writes "
        "cache[f'blocks.{l}.hook_mlp_out'].",
        "direction = (model.W_U[:, right] - model.W_U[:, wrong]).T / cache['ln_final.hook_scale'][:, -1]; heads = "
        "torch.stack([torch.einsum('bhd,hdm,bm->hb', cache[f'blocks.{l}.attn.hook_z'][:, -1], model.W_O[l], direction) "
        "for l in range(model.cfg.n_layers)]); mlps likewise with 'bm,bm->b'; rest = ((cache['hook_embed'] + "
        "cache['hook_pos_embed'])[:, -1] + model.b_O.sum(0)), times direction, summed over d_model, + "
        "model.b_U[right] - model.b_U[wrong].",
    ),
)
def attribute(attempt: Attempt) -> None:
    """Truth: `direct_logit_attribution` of TransformerLens, and the model's own logit difference."""
    attempt.on_error["size mismatch"] = attempt.on_error["must match the size"] = (
        "a token's direction is a column of W_U: model.W_U[:, right] is [d_model batch], one column for each sentence"
    )
    shipped, drawn = shipped_model(), _drawn_model()
    capitals, _, right, wrong = _capitals(attempt, shipped, 5)
    tokens = _tokens(attempt, drawn, 3, 7)
    two = _two_tokens(attempt, drawn, 3)
    for name, model, args in [
        ("on a model with 3 layers and biases", drawn, (tokens, *two)),
        ("on `world`", shipped, (capitals, right, wrong)),
        ("on one sentence", drawn, (tokens[:1], two[0][:1], two[1][:1])),
    ]:
        with attempt.holds(f"heads, MLPs and the rest equal TransformerLens, {name}"):
            got = _attributed(attempt, model, *args)
            true = _library_parts(model, *args)
            slips = _attribution_slips(model, *args, true)
            for part, value in zip(("heads", "mlps", "rest"), got, strict=True):
                attempt.close(value, true[part], atol=1e-3, rtol=1e-3, what=f"`{part}`", slips=slips[part])
        if model is shipped:
            with attempt.holds("add up to the model's logit difference"):
                parts = [attempt.tensor(part).flatten(0, -2).sum(0) if part.dim() > 1 else part for part in got]
                total = sum(part.detach().cpu().double() for part in parts)
                attempt.close(total, _difference(model(args[0]), *args[1:]), atol=1e-3, what="the sum of all parts")


def _difference(logits: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Logit of right minus logit of wrong at the last position [batch]."""
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, -1, right] - logits[rows, -1, wrong]


def _two_tokens(attempt: Attempt, model, n: int) -> tuple[Tensor, Tensor]:
    """Two different words for each of n sentences."""
    right = attempt.randint(4, model.cfg.d_vocab, n)
    n_words = model.cfg.d_vocab - 4
    return right, 4 + (right - 4 + attempt.randint(1, n_words, n)) % n_words


def _attributed(attempt: Attempt, model, tokens: Tensor, right: Tensor, wrong: Tensor) -> tuple:
    _, cache = model.run_with_cache(tokens)
    before = {name: value.clone() for name, value in cache.cache_dict.items()}
    got = attempt(model, cache, right, wrong)
    changed = [name for name, value in before.items() if not torch.equal(value, cache[name])]
    attempt.require(
        not changed,
        "`cache` unchanged by the call",
        f"its entry {changed[0]!r} was changed in place" if changed else "",
        "work on a copy (.clone()), and avoid +=, -= and /= on what comes from the cache",
    )
    attempt.require(
        isinstance(got, tuple | list) and len(got) == 3,
        "three tensors (heads, mlps, rest)",
        f"{len(got)} values" if isinstance(got, tuple | list) else f"a {type(got).__name__}",
        "return all three: `return heads, mlps, rest`",
    )
    n_layers, n_heads, n = model.cfg.n_layers, model.cfg.n_heads, len(tokens)
    flat = [tuple(part.shape) if isinstance(part, Tensor) else () for part in got]
    if flat[0] == (n_layers * n_heads, n):
        heads = "[layer head batch]: unflatten the first axis, (n_layers, n_heads)"
        attempt.fail(f"`heads` of shape {[n_layers, n_heads, n]}", f"shape {list(flat[0])}", heads)
    return tuple(part if isinstance(part, Tensor) else attempt.tensor(part) for part in got)


def _library_parts(model, tokens: Tensor, right: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    """Heads and MLPs by TransformerLens; the rest is what is missing in the model's own logit difference."""
    logits, cache = model.run_with_cache(tokens)
    answers = {"answer_tokens": right, "incorrect_tokens": wrong, "cache": cache}
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    by_component = direct_logit_attribution(model, unit="component", **answers)
    places = [by_component.labels.index(f"{layer}_mlp_out") for layer in range(n_layers)]
    mlps = by_component.attribution[places].double().cpu()
    by_head = direct_logit_attribution(model, unit="head", **answers).attribution
    heads = by_head[: n_layers * n_heads].unflatten(0, (n_layers, n_heads)).double().cpu()
    whole = _difference(logits, right, wrong).double().cpu()
    return {"heads": heads, "mlps": mlps, "rest": whole - heads.sum((0, 1)) - mlps.sum(0)}


def _attribution_slips(model, tokens, right, wrong, true: dict[str, Tensor]) -> dict[str, Slips]:
    """What known slips would give for each of the three parts."""
    logits, cache = model.run_with_cache(tokens)
    layers, n_heads = range(model.cfg.n_layers), model.cfg.n_heads
    w_u, b_u, w_o, b_o = (t.double() for t in (model.W_U, model.b_U, model.W_O, model.b_O))
    z = torch.stack([cache[f"blocks.{i}.attn.hook_z"] for i in layers]).double()  # layer batch pos head d_head
    by_head = torch.einsum("lbphd,lhdm->lhbpm", z, w_o)
    by_mlp = torch.stack([cache[f"blocks.{i}.hook_mlp_out"] for i in layers]).double()
    start = (cache["hook_embed"] + cache["hook_pos_embed"]).double()
    scale = cache["ln_final.hook_scale"].double()  # batch pos 1
    toward = (w_u[:, right] - w_u[:, wrong]).T  # batch d_model
    bias = b_u[right] - b_u[wrong]
    embedded = torch.einsum("...bpm,bm->...bp", start / scale, toward)[:, -1]
    biases = torch.einsum("bm,bm->b", (b_o.sum(0) / scale)[:, -1], toward)

    def share(writes: Tensor, scale: Tensor = scale, toward: Tensor = toward, where: int = -1) -> Tensor:
        return torch.einsum("...bpm,bm->...bp", writes / scale, toward)[..., where]

    def common(writes: Tensor, part: str) -> Slips:
        want = true[part]
        alone = (w_u[:, right].T, w_u[:, wrong].T)
        yield -want, "the sign is turned round: right minus wrong"
        yield share(writes, torch.ones_like(scale)), "the final norm's scale is missing: divide by it"
        yield share(writes, 1 / scale), "multiplied by the final norm's scale: divide"
        own = (_centred(writes).pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
        held = "each part is divided by a scale of its own: all share that of the whole stream, held fixed"
        yield share(writes, own), held
        yield share(writes, writes.norm(dim=-1, keepdim=True).clamp_min(1e-9)), held
        yield share(writes, toward=alone[0]), "this is the logit of `right` alone: subtract the direction of `wrong`"
        yield share(writes, toward=alone[1]), "this is the logit of `wrong`: the direction is right minus wrong"
        yield share(writes, where=0), "this is the first position: the answer is said at the last one"
        yield share(writes, scale[:, :1]), "the scale is that of the first position: take the last one's, [:, -1]"
        yield share(writes, scale.mean(1, keepdim=True)), "the scales of the positions are averaged: take [:, -1]"
        yield share(writes, scale[:1]), "the first sentence's scale is used for all: each has its own"
        first = toward[:1].expand_as(toward)
        yield share(writes, toward=first), "the first sentence's direction is used for all: each has its own"
        whole = torch.einsum("...bpm,bm->...bp", writes / scale, toward)
        yield whole.sum(-1), "all positions are added up: only the last one is read out"
        yield whole.mean(-1), "positions are averaged: only the last one is read out"
        yield whole, "one number for each sentence: take the last position"
        yield want.mean(-1), "averaged over the sentences: leave one number for each"
        yield want.sum(-1), "added up over the sentences: leave one number for each"
        embedding = model.W_E.double()
        other = embedding[right] - embedding[wrong]
        yield share(writes, toward=other), "this is the embedding W_E: the directions are columns of W_U"
        if want.dim() > 1:
            yield want / want.flatten(0, -2).sum(0), "these are fractions: return the shares themselves, in logits"
            yield want.movedim(-1, 0), "the axes in another order: sentences (batch) come last"

    def heads() -> Slips:
        biased = by_head + (b_o / n_heads)[:, None, None, None]
        bias_apart = "the attention's bias b_O belongs to no head: it is part of the rest"
        yield share(biased), bias_apart
        yield share(by_head + b_o[:, None, None, None]), bias_apart
        for first in (0, n_heads - 1):
            one = by_head.clone()
            one[:, first] += b_o[:, None, None]
            yield share(one), bias_apart
        mixed = torch.einsum("lbphd,lhdm->lhbpm", z, w_o.flip(1))
        yield share(mixed), "heads are mixed: head h goes with W_O[layer, h]"
        d_head = z.shape[-1]
        if d_head * n_heads == w_o.shape[-1]:
            turned = torch.einsum("lbphd,lhdm->lhbpm", z, w_o.flatten(1, 2).mT.unflatten(1, (n_heads, d_head)))
            yield share(turned), "W_O is transposed: z [d_head] @ W_O[layer, head] [d_head d_model]"
            apart = z.transpose(-1, -2).reshape(z.shape)
            yield share(torch.einsum("lbphd,lhdm->lhbpm", apart, w_o)), "heads are mixed: z is [batch pos head d_head]"
        yield share(by_head).transpose(0, 1), "the first two axes are the other way round: [layer head batch]"
        same = torch.einsum("lbphd,hdm->lhbpm", z, w_o[0])
        yield share(same), "the first layer's W_O is used for all"
        yield share(by_head).sum(1), "added up over heads: one number for each head"
        v = torch.stack([cache[f"blocks.{i}.attn.hook_v"] for i in layers]).double()
        values = torch.einsum("lbphd,lhdm->lhbpm", v, w_o)
        yield share(values), "these are the values of the last position itself: hook_z is what the pattern has gathered"
        yield from common(by_head, "heads")

    def mlps() -> Slips:
        post = torch.stack([cache[f"blocks.{i}.hook_resid_post"] for i in layers]).double()
        attention = torch.stack([cache[f"blocks.{i}.hook_attn_out"] for i in layers]).double()
        yield share(post), "this is the stream after each block: take what the MLP writes, hook_mlp_out"
        yield share(attention), "this is what attention writes: hook_mlp_out"
        yield share(by_mlp) + bias, "b_U belongs to the rest, once"
        no_bias = by_mlp - torch.stack([model.blocks[i].mlp.b_out.double() for i in layers])[:, None, None]
        yield share(no_bias), "the MLP's own bias is part of what it writes: take hook_mlp_out"
        yield from common(by_mlp, "mlps")

    def rest() -> Slips:
        position = share(cache["hook_pos_embed"].double().expand_as(start))
        word = share(cache["hook_embed"].double())
        right_rest = embedded + biases + bias
        yield embedded + biases, "the bias of the unembedding is missing: + b_U[right] - b_U[wrong]"
        yield embedded + bias, "the biases of the attention, b_O of every layer, are missing"
        yield embedded, "the biases are missing: b_O of every layer, and b_U[right] - b_U[wrong]"
        yield biases + bias, "the embeddings are missing: what the stream begins with"
        yield word + biases + bias, "the position embedding is missing"
        yield position + biases + bias, "the word embedding is missing"
        last_only = torch.einsum("bm,bm->b", (b_o[-1] / scale)[:, -1], toward)
        yield embedded + last_only + bias, "b_O of one layer only: all layers have one"
        yield embedded + biases + bias / scale[:, -1, 0], "b_U is added after the norm: it is not divided by the scale"
        yield embedded + biases * scale[:, -1, 0] + bias, "b_O is part of the stream: divide it by the scale too"
        yield embedded + biases + b_u[right], "b_U of both tokens: b_U[right] - b_U[wrong]"
        yield embedded + biases - bias, "the sign of b_U: b_U[right] - b_U[wrong]"
        out = sum((model.blocks[i].mlp.b_out.double() for i in layers), torch.zeros_like(b_o[0]))
        twice = torch.einsum("bm,bm->b", (out / scale)[:, -1], toward)
        yield right_rest + twice, "the MLPs' biases are part of what they write: they are counted there"
        yield embedded + bias + twice, "b_O is the attention's bias: the MLPs' is part of what they write"
        whole = _difference(logits, right, wrong)
        yield whole, "this is the whole logit difference: subtract heads and MLPs"
        yield right_rest.sum(), "one number for each sentence"
        yield from common(start, "rest")

    return {"heads": heads(), "mlps": mlps(), "rest": rest()}


# ------------------------------------------------------------------------------ 3.6 patch_effects


@exercise(
    "3.6",
    hints=(
        "First run the corrupted prompts with a cache. Then, for every block and for attention and MLP in turn, run "
        "the *clean* prompts with one hook, on f'blocks.{layer}.hook_attn_out' or f'blocks.{layer}.hook_mlp_out'.",
        "The hook: value = value.clone(); value[:, -1] = cache[hook.name][:, -1]; return value. "
        "model.run_with_hooks(tokens, fwd_hooks=[(name, hook)]) removes it again.",
        "With mean(logits) = the batch mean of logits[:, -1] at right minus at wrong: clean = mean(model(tokens)), low "
        "= mean(model(corrupted)); effects[layer, k] = (clean - mean(patched)) / (clean - low), with k = 0 for "
        "hook_attn_out and 1 for hook_mlp_out.",
    ),
)
def patch_effects(attempt: Attempt) -> None:
    """Truth: `transformer_lens.patching`; 0 where nothing differs."""
    attempt.on_error["blocks.3."] = attempt.on_error["blocks.4."] = "range(model.cfg.n_layers): not every model has 4"
    drawn, shipped = _drawn_model(), shipped_model()
    with attempt.holds("equals TransformerLens on a model with 3 layers"):
        tokens, corrupted = _tokens(attempt, drawn, 4, 6), _tokens(attempt, drawn, 4, 6)
        _compare_effects(attempt, drawn, tokens, corrupted, *_falling(drawn, tokens, corrupted))
    with attempt.holds("equals TransformerLens on `world`"):
        tokens, corrupted, right, wrong = _capitals(attempt, shipped, 5)
        _compare_effects(attempt, shipped, tokens, corrupted, right, wrong)
    with attempt.holds("equals TransformerLens for one prompt whose last word alone differs"):
        tokens = _tokens(attempt, drawn, 1, 5)
        corrupted = tokens.clone()
        corrupted[:, -1] = 4 + (tokens[:, -1] - 3) % (drawn.cfg.d_vocab - 4)
        _compare_effects(attempt, drawn, tokens, corrupted, *_falling(drawn, tokens, corrupted))


def _falling(model, tokens: Tensor, corrupted: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the two words between which the corruption moves the logits most."""
    moved = (model(tokens) - model(corrupted))[:, -1]
    return moved.argmax(-1), moved.argmin(-1)


def _compare_effects(attempt: Attempt, model, tokens, corrupted, right, wrong) -> None:
    want = _library_effects(model, tokens, corrupted, right, wrong)
    slips = _effect_slips(model, tokens, corrupted, right, wrong, want)
    got = attempt(model, tokens, corrupted, right, wrong)
    attempt.close(got, want, atol=2e-3, rtol=2e-3, what="the effects [layer 2]", slips=slips)


def _library_effects(model, tokens, corrupted, right, wrong) -> Tensor:
    _, source = model.run_with_cache(corrupted)
    clean, low = (_difference(model(t), right, wrong).mean() for t in (tokens, corrupted))
    places = pd.DataFrame({"layer": range(model.cfg.n_layers), "pos": tokens.shape[1] - 1})
    columns = []
    with torch.no_grad(), mock.patch.object(patching, "tqdm", iter):  # the library's progress bar has no switch here
        for place in ("attn_out", "mlp_out"):
            patched = patching.generic_activation_patch(
                model,
                tokens,
                source,
                lambda logits: _difference(logits, right, wrong).mean(),
                patching.layer_pos_patch_setter,
                place,
                index_df=places,
            )
            columns.append((clean - patched) / (clean - low))
    return torch.stack(columns, -1).double().cpu()


def _effect_slips(model, tokens, corrupted, right, wrong, want: Tensor) -> Slips:
    (clean_logits, here), (low_logits, there) = model.run_with_cache(tokens), model.run_with_cache(corrupted)
    layers, kinds = range(model.cfg.n_layers), ("hook_attn_out", "hook_mlp_out")
    clean, low = (_difference(logits, right, wrong) for logits in (clean_logits, low_logits))

    def runs(base: Tensor, source: ActivationCache, names, where=slice(-1, None)) -> Tensor:
        """Logit differences [layer kind batch] when ``names(layer, kind)`` are overwritten."""

        def write(value: Tensor, hook) -> Tensor:
            value = value.clone()
            value[:, where] = source[hook.name][:, where]
            return value

        def run(layer: int, kind: str) -> Tensor:
            logits = model.run_with_hooks(base, fwd_hooks=[(name, write) for name in names(layer, kind)])
            return _difference(logits, right, wrong)

        return torch.stack([torch.stack([run(layer, kind) for kind in kinds]) for layer in layers])

    def one(layer: int, kind: str) -> list[str]:
        return [f"blocks.{layer}.{kind}"]

    def effect(patched: Tensor) -> Tensor:
        return (clean.mean() - patched.mean(-1)) / (clean.mean() - low.mean())

    right_runs = runs(tokens, there, one)
    yield want.flip(-1), "the columns are exchanged: attention first, then the MLP"
    yield want.T, "the axes are the other way round: [layer 2]"
    inverted = "this is the share that is left, (patched - corrupted) / (clean - corrupted): return what is lost"
    yield 1 - want, inverted
    yield -want, "the sign: clean minus patched, over clean minus corrupted"
    yield clean.mean().cpu() - right_runs.mean(-1).cpu(), "divide by clean - corrupted"
    yield right_runs.mean(-1), "these are the logit differences of the patched runs: (clean - patched) / (clean - low)"
    each = (clean - right_runs) / (clean - low)
    yield each.mean(-1), "average first, then divide: one ratio of two batch means, not a mean of ratios"
    yield each, "one number for each block and kind: take the batch mean of each logit difference"
    yield (clean.mean() - right_runs.mean(-1)) / clean.mean(), "divide by clean - corrupted, not by clean"
    restored = runs(corrupted, here, one)
    back = "the patch runs the other way (clean values into the corrupted run): the clean run gets corrupted values"
    yield (restored.mean(-1) - low.mean()) / (clean.mean() - low.mean()), back
    yield effect(restored), back
    everywhere = runs(tokens, there, one, slice(None))
    yield effect(everywhere), "patched at every position: only at the last one"
    yield effect(runs(tokens, there, one, slice(-2, -1))), "patched one position too early: the last one is -1"
    stream = "this is the stream after the block: patch what the part writes, hook_attn_out and hook_mlp_out"
    after = runs(tokens, there, lambda layer, kind: [f"blocks.{layer}.hook_resid_post"])
    yield effect(after), stream
    yield effect(runs(tokens, there, lambda layer, kind: [f"blocks.{layer}.hook_resid_pre"])), stream
    streams = {"hook_attn_out": "hook_resid_mid", "hook_mlp_out": "hook_resid_post"}
    yield effect(runs(tokens, there, lambda layer, kind: [f"blocks.{layer}.{streams[kind]}"])), stream
    both = runs(tokens, there, lambda layer, kind: [f"blocks.{layer}.{k}" for k in kinds])
    yield effect(both), "attention and MLP were patched together: one at a time"
    longer = "hooks of earlier blocks are still there: one at a time (run_with_hooks removes its own)"
    yield effect(runs(tokens, there, lambda layer, kind: [f"blocks.{i}.{kind}" for i in range(layer + 1)])), longer
    order = [(layer, kind) for layer in layers for kind in kinds]
    so_far = runs(
        tokens,
        there,
        lambda layer, kind: [f"blocks.{i}.{k}" for i, k in order[: order.index((layer, kind)) + 1]],
    )
    yield effect(so_far), longer
    two = runs(tokens, there, lambda layer, kind: [f"blocks.{i}.{kind}" for i in layers if i in (layer, layer + 1)])
    yield effect(two), "two blocks were patched at once: one at a time"

    def of_right(logits: Tensor) -> Tensor:
        return logits[torch.arange(len(logits), device=logits.device), -1, right]

    def alone(layer: int, kind: str) -> Tensor:
        def write(value: Tensor, hook) -> Tensor:
            return torch.cat([value[:, :-1], there[hook.name][:, -1:]], 1)

        name = f"blocks.{layer}.{kind}"
        return of_right(model.run_with_hooks(tokens, fwd_hooks=[(name, write)])).mean()

    top, floor = of_right(clean_logits).mean(), of_right(low_logits).mean()
    alone_runs = torch.stack([torch.stack([alone(layer, kind) for kind in kinds]) for layer in layers])
    yield (top - alone_runs) / (top - floor), "this is the logit of `right` alone: minus that of `wrong`"
    nothing = "nothing was patched, or not at the position where the answer is read, [:, -1]: does the hook return the "
    yield torch.zeros_like(want), nothing + "changed value?"
    yield want.abs(), "an effect has a sign: no absolute value"
    yield want.clamp(0, 1), "effects can lie below 0 and above 1: no clamp"
    yield want.clamp(min=0), "effects can be below 0: no clamp"
    yield want / want.sum(), "divide by clean - corrupted, not by the sum of the effects"

    def otherwise(change, score=None) -> Tensor:
        """The effects when the last position gets ``change(its value there, its value here)``."""

        def mean(logits: Tensor) -> Tensor:
            return (score or _difference)(logits, right, wrong).mean()

        def run(name: str) -> Tensor:
            def write(value: Tensor, hook) -> Tensor:
                new = change(there[hook.name][:, -1:], value[:, -1:])
                return torch.cat([value[:, :-1], new.expand_as(value[:, -1:])], 1)

            return mean(model.run_with_hooks(tokens, fwd_hooks=[(name, write)]))

        high, low = mean(clean_logits), mean(low_logits)
        patched = [[run(f"blocks.{layer}.{kind}") for kind in kinds] for layer in layers]
        return (high - torch.tensor(patched)) / (high - low).cpu()

    yield otherwise(lambda there, here: torch.zeros_like(here)), "set to zero: the values come from the corrupted run"
    yield (
        otherwise(lambda there, here: here + there),
        "the corrupted value was added: it takes the place of the clean one",
    )
    paired = "each clean sentence gets the values of its own corrupted one, row by row"
    yield otherwise(lambda there, here: there.mean(0, keepdim=True)), f"the mean of the batch was patched in: {paired}"
    yield otherwise(lambda there, here: there[:1]), f"the first corrupted sentence was patched into all: {paired}"
    yield otherwise(lambda there, here: there.flip(0)), f"the rows are in another order: {paired}"

    def plain(there: Tensor, here: Tensor) -> Tensor:
        return there

    first = "the first sentence's tokens were taken for all: `right` and `wrong` have one for each"
    yield otherwise(plain, lambda logits, r, w: _difference(logits, r[:1].expand_as(r), w[:1].expand_as(w))), first
    probabilities = "a difference of probabilities: take that of the logits"
    yield otherwise(plain, lambda logits, r, w: _difference(logits.softmax(-1), r, w)), probabilities
    yield otherwise(plain, lambda logits, r, w: _difference(logits[:, :-1], r, w)), "the answer is read at [:, -1]"
    median = "a median over the sentences: take the mean"
    yield otherwise(plain, lambda logits, r, w: _difference(logits, r, w).median()), median


# ---------------------------------------------------------------------------- 3.7 states_in_order


@exercise(
    "3.7",
    hints=(
        "The embeddings are the same whatever the order: state 0 is hook_resid_pre of block 0. From there on you call "
        "the blocks yourself, each on what the one before it returned.",
        "A block returns a tuple: stream = model.blocks[i](stream)[0]. The states are the stream before the first call "
        "and after each call, in the order in which they arise.",
        "_, cache = model.run_with_cache(tokens); stream = cache['blocks.0.hook_resid_pre']; states = [stream]; "
        "for i in order: stream = model.blocks[i](stream)[0]; states.append(stream). Return torch.stack(states).",
    ),
)
def states_in_order(attempt: Attempt) -> None:
    """Truth: the model's own run for its own order; each block run alone, inside the whole model, for any other."""
    attempt.on_error["tuple"] = "a block returns a tuple whose first entry is the stream: model.blocks[i](stream)[0]"
    drawn, shipped = _drawn_model(), shipped_model()
    for name, model in [("a model with 3 layers", drawn), ("`world`", shipped)]:
        tokens = _tokens(attempt, model, 2, 6)
        with attempt.holds(f"the blocks' own order gives the states of {name}"):
            order = list(range(model.cfg.n_layers))
            slips = _order_slips(model, tokens, order)
            got = attempt(model, tokens, order)
            attempt.close(got, _states(model, tokens), atol=2e-3, rtol=1e-3, what="the states", slips=slips)
        with attempt.holds(f"another order: the blocks of {name} one by one, each on what the last one left"):
            for order in _shuffles(attempt, model.cfg.n_layers):
                slips = _order_slips(model, tokens, order)
                got = attempt(model, tokens, order)
                want = _one_by_one(model, tokens, order)
                attempt.close(got, want, atol=2e-3, rtol=1e-3, what="the states", slips=slips)


def _shuffles(attempt: Attempt, n: int) -> list[list[int]]:
    """Two orders that are neither the usual one nor its reverse nor their own inverse."""
    found: list[list[int]] = []
    while len(found) < 2:
        order = torch.randperm(n, generator=attempt.generator).tolist()
        inverse = sorted(range(n), key=order.__getitem__)
        if order != inverse and order not in found and order != list(reversed(range(n))):
            found.append(order)
    return found


def _one_by_one(model, tokens: Tensor, order: Sequence[int], start: Tensor | None = None) -> Tensor:
    """States when a block's input is set by a hook and its output read in a run of the whole model."""
    stream = _states(model, tokens)[0] if start is None else start
    states = [stream]
    for block in order:
        out: list[Tensor] = []

        def put(value: Tensor, hook, stream: Tensor = stream) -> Tensor:
            return stream

        def take(value: Tensor, hook, out: list[Tensor] = out) -> None:
            out.append(value.clone())

        hooks = [(f"blocks.{block}.hook_resid_pre", put), (f"blocks.{block}.hook_resid_post", take)]
        model.run_with_hooks(tokens, fwd_hooks=hooks)
        stream = out[0]
        states.append(stream)
    return torch.stack(states)


def _order_slips(model, tokens: Tensor, order: Sequence[int]) -> Slips:
    n = model.cfg.n_layers
    usual, right = _states(model, tokens), _one_by_one(model, tokens, order)
    inverse = sorted(range(n), key=list(order).__getitem__)
    yield usual, "these are the states of the usual order: run the blocks in the order that is given"
    yield _one_by_one(model, tokens, inverse), "this is the inverse permutation: order[0] is the block that runs first"
    yield _one_by_one(model, tokens, order[::-1]), "the blocks run from the last to the first of `order`"
    cached = "these are the usual states in another order: the *blocks* change places, each reads what came before it"
    yield torch.cat([usual[:1], usual[1:][list(order)]]), cached
    yield torch.cat([usual[:1], usual[1:][inverse]]), cached
    yield right[1:], "the embeddings are missing: they are state 0"
    yield right[:-1], "the state after the last block is missing: there is one state more than blocks"
    yield right[-1], "this is the last state alone: return all, stacked"
    normed = _centred(right.double()) / _scale(model, right)
    yield normed, "the final norm was applied: return the states as they are"
    yield torch.cat([right[:-1], normed[-1:].to(right.dtype)]), "the final norm was applied to the last state"
    _, cache = model.run_with_cache(tokens)
    bare = _one_by_one(model, tokens, order, cache["hook_embed"])
    yield bare, "the positions are missing: state 0 is hook_embed + hook_pos_embed, that is hook_resid_pre of block 0"
    alone = [_one_by_one(model, tokens, [block])[1] for block in order]
    yield torch.stack([usual[0], *alone]), "every block reads the embeddings: each reads what the last one left"
    written = usual[1:] - usual[:-1]
    summed = torch.cat([usual[:1], usual[0] + written[list(order)].cumsum(0)])
    yield summed, "what the blocks write in the usual run was added up in another order: they have to run again"
    yield right.transpose(0, 1), "states come first: [state batch pos d_model]"
    yield torch.cat([right[:1], right[1:] - right[:-1]]), "this is what each block writes: return the stream after it"
    yield _read(model, right), "these are log-probabilities: return the states"


# ------------------------------------------------------------------------- 3.8 without_direction


@exercise(
    "3.8",
    hints=(
        "State l is hook_resid_pre of block l; state L, which no block reads, is hook_resid_post of the last block. "
        "A hook there changes the last position and returns the changed value; the model runs on by itself.",
        "directions = model.W_U[:, words].T is [batch d_model]; divide each by its norm. The component of a row x "
        "along a unit vector u is (x . u), and x - (x . u) u is what is left.",
        "def project(value, hook): value = value.clone(); x = value[:, -1]; value[:, -1] = x - (x * unit).sum(-1, "
        "keepdim=True) * unit; return value. Return model.run_with_hooks(tokens, fwd_hooks=[(name, project)])[:, -1]"
        ".log_softmax(-1).",
    ),
)
def without_direction(attempt: Attempt) -> None:
    """Truth: planted models, where it changes nothing or takes a word away; the changed stream fed back by hand."""
    attempt.on_error["blocks.-1"] = "state 0 has no block before it: it is blocks.0.hook_resid_pre"
    attempt.on_error["is out of bounds"] = "a word's direction is a column: model.W_U[:, words] is [d_model batch]"
    attempt.on_error["view of a leaf"] = attempt.on_error["modified by an inplace"] = "change a copy: value.clone()"
    last_block = "the last state has no block after it: it is hook_resid_post of the last block"
    attempt.on_error["blocks.3.hook_resid_pre"] = attempt.on_error["blocks.4.hook_resid_pre"] = last_block
    drawn, shipped = _drawn_model(), shipped_model()
    with attempt.holds("every state of a model with 3 layers: the changed stream, fed back into it"):
        tokens, (words, _) = _tokens(attempt, drawn, 3, 6), _two_tokens(attempt, drawn, 3)
        words[1] = 4 + (words[0] - 3) % (drawn.cfg.d_vocab - 4)
        for state in (1, 0, 2, 3):
            _compare_without(attempt, drawn, tokens, state, words)
    with attempt.holds("a state of `world`"):
        tokens, _, right, _ = _capitals(attempt, shipped, 4)
        _compare_without(attempt, shipped, tokens, int(attempt.randint(2, 4, 1)), right)
    seed = int(attempt.randint(0, 1000, 1))
    with attempt.holds("planted: a word that is erased later can be taken out, and the output stays"):
        _compare_planted(attempt, planted.second_thought(seed, erased=True))
    with attempt.holds("planted: a word that is not erased is gone from the output"):
        _compare_planted(attempt, planted.second_thought(seed, erased=False))


def _compare_without(attempt: Attempt, model, tokens: Tensor, state: int, words: Tensor) -> None:
    stream = _states(model, tokens)[state]
    left = stream.double().clone()
    unit = _unit(model.W_U.double()[:, words].T)
    left[:, -1] -= (left[:, -1] * unit).sum(-1, keepdim=True) * unit
    want = _continued(model, tokens, left, state)[:, -1].log_softmax(-1)
    got = attempt(model, tokens, state, words)
    what = f"the log-probabilities (state {state})"
    slips = _without_slips(model, tokens, state, words)
    attempt.close(got, want, atol=3e-3, rtol=1e-3, what=what, slips=slips)


def _compare_planted(attempt: Attempt, thought: planted.SecondThought) -> None:
    """Logits in closed form: 12 for the answer; an unembedding centred over V words leaves 1/V of 8 in each of them."""
    model = thought.model
    tokens = model.to_tokens(list(thought.prompts))
    words = torch.tensor([model.to_single_token(word) for word in thought.first_thoughts], device=tokens.device)
    answers = [model.to_single_token(word) for word in thought.answers]
    logits = torch.full((len(words), model.cfg.d_vocab), 8 / model.cfg.d_vocab)
    if thought.erased_in is not None:
        logits[:, answers] = 0  # what is erased is as much of every capital as there is
    logits[torch.arange(len(words)), answers] += 12
    state = thought.written_in + 1
    got = attempt(model, tokens, state, words)
    slips = _without_slips(model, tokens, state, words)
    attempt.close(
        got, logits.log_softmax(-1), atol=1e-2, rtol=1e-3, what=f"the log-probabilities (state {state})", slips=slips
    )


def _unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True)


def _without_slips(model, tokens: Tensor, state: int, words: Tensor) -> Slips:
    states, n_layers = _states(model, tokens).double(), model.cfg.n_layers
    w_u = model.W_U.double()
    toward = w_u[:, words].T
    unit, x = _unit(toward), states[state, :, -1]

    def along(x: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return (x * one).sum(-1, keepdim=True) * other

    def put(value: Tensor, at: int = state) -> Tensor:
        stream = states[at].clone()
        stream[:, -1] = value
        return _continued(model, tokens, stream, at)[:, -1].log_softmax(-1)

    def without(directions: Tensor, at: int = state) -> Tensor:
        directions = _unit(directions)
        return put(states[at, :, -1] - along(states[at, :, -1], directions, directions), at)

    right = without(toward)
    logits = model(tokens)[:, -1].double()
    nothing = "nothing was taken out: does the hook return the changed value?"
    if state == 0:
        nothing = "nothing was taken out of state 0: these are the embeddings, blocks.0.hook_resid_pre"
    elif state == n_layers:
        nothing = (
            "nothing was taken out of the last state: it is hook_resid_post of the last block, which no block reads"
        )
    yield logits.log_softmax(-1), nothing
    yield right.exp(), "these are probabilities: return their logarithms (log_softmax)"
    stream = states[state].clone()
    stream[:, -1] = x - along(x, unit, unit)
    run = _continued(model, tokens, stream, state)
    yield run[:, -1], "these are logits: log_softmax over the vocabulary is missing"
    yield run.log_softmax(-1), "all positions are here: return what follows the last one, [:, -1]"
    yield right.gather(-1, words[:, None])[:, 0], "the word's own log-probability: return those of all words"
    yield put(x - along(x, toward, toward)), "divide the direction by its norm first: its length is not 1"
    once = "the unit vector twice: for the product and for the subtraction"
    yield put(x - along(x, unit, toward)), once
    yield put(x - along(x, toward, unit)), once
    yield put(x + along(x, unit, unit)), "the component is subtracted, not added"
    yield put(x - 2 * along(x, unit, unit)), "the component is taken out once, not twice"
    yield put(along(x, unit, unit)), "this keeps the component and drops the rest: the other way round"
    yield put(torch.zeros_like(x)), "the whole state was set to zero: only its component along the direction"
    itself = "what is taken out is the state's component, (x . u) u, not the direction itself"
    yield put(x - unit), itself
    yield put(x - toward), itself
    cosine = along(x, unit, unit) / x.norm(dim=-1, keepdim=True)
    yield put(x - cosine), "the component is (x . u), not the cosine"
    own_top = _read(model, x).argmax(-1)
    yield without(w_u[:, own_top].T), "this takes out what the lens reads there: take the words that are given"
    said = logits.argmax(-1)
    yield without(w_u[:, said].T), "this takes out what the model says in the end: take the words that are given"
    for row in range(len(words)):
        one = toward[row : row + 1].expand_as(toward)
        yield without(one), "one direction for the whole batch: each sentence has a word of its own"
    yield without(toward.mean(0, keepdim=True).expand_as(toward)), "the directions are averaged: each has its own"
    basis = torch.linalg.qr(toward.T)[0]
    yield put(x - x @ basis @ basis.T), "all words' directions were taken out of each: each sentence has its own"
    yield without(model.W_E.double()[words]), "this is the embedding W_E: the direction is a column of W_U"
    first = torch.cat([(x - along(x, unit, unit))[:1], x[1:]])
    yield put(first), "only the first sentence was changed: value[:, -1] is that of all"
    yield put(x - along(x, unit, unit).mean(0)), "each sentence has a component of its own"

    def everywhere(where, at: int = state) -> Tensor:
        stream = states[at].clone()
        part = stream[:, where]
        stream[:, where] = part - along(part, unit[:, None], unit[:, None])
        return _continued(model, tokens, stream, at)[:, -1].log_softmax(-1)

    yield everywhere(slice(None)), "taken out at every position: only at the last one"
    yield everywhere(slice(0, 1)), "taken out at the first position: at the last one"
    yield everywhere(slice(-2, -1)), "one position too early: the last one is -1"
    counted = "states count from 0, the embeddings: state l is what block l reads, its hook_resid_pre"
    if state < n_layers:
        yield without(toward, state + 1), f"one state too late: {counted}"
    if state > 0:
        yield without(toward, state - 1), f"one state too early: {counted}"
    yield without(toward, n_layers), "taken out at the end of the model only: at the state that is asked for"

    def project(value: Tensor, hook) -> Tensor:
        value = value.clone()
        value[:, -1] -= along(value[:, -1], unit, unit).to(value.dtype)
        return value

    def hooked(names: list[str]) -> Tensor:
        return model.run_with_hooks(tokens, fwd_hooks=[(name, project) for name in names])[:, -1].log_softmax(-1)

    posts = [f"blocks.{i}.hook_resid_post" for i in range(n_layers)]
    pres = [f"blocks.{i}.hook_resid_pre" for i in range(state, n_layers)]
    yield hooked([*pres, posts[-1]]), "taken out of every later state as well: at this one only"
    yield hooked(["blocks.0.hook_resid_pre", *posts]), "taken out of every state: at this one only"
    if state > 0:
        last = "hook_resid_mid lies inside the block: state l is what block l reads, its hook_resid_pre"
        yield hooked([f"blocks.{state - 1}.hook_resid_mid"]), last
        yield hooked([f"blocks.{state - 1}.hook_mlp_out"]), "this changes what the MLP writes: change the whole stream"
    axis = "over d_model: each sentence's own norm and product (dim=-1, keepdim=True)"
    column_unit = w_u[:, words] / w_u[:, words].norm(dim=-1, keepdim=True)
    yield put(x - along(x, column_unit.T, column_unit.T)), axis


# ---------------------------------------------------------------------------- 3.9 patchscope (extra)


@exercise(
    "3.9",
    hints=(
        "One row of the prompt for each vector: tokens.expand(len(vectors), -1). The place is "
        "f'blocks.{state}.hook_resid_pre'.",
        "The hook copies the value, overwrites [:, position] by the vectors and returns the copy; the logits after the "
        "last token are [:, -1] of what the run returns.",
        "def put(value, hook): value = value.clone(); value[:, position] = vectors; return value. logits = "
        "model.run_with_hooks(tokens.expand(len(vectors), -1), fwd_hooks=[(f'blocks.{state}.hook_resid_pre', put)]); "
        "return logits[:, -1].log_softmax(-1)",
    ),
)
def patchscope(attempt: Attempt) -> None:
    """Truth: another word's embedding makes the other prompt; the changed stream fed back by hand."""
    attempt.on_error["shape mismatch"] = attempt.on_error["expanded size"] = (
        "one row of the prompt for each vector: tokens.expand(len(vectors), -1)"
    )
    attempt.on_error["view of a leaf"] = attempt.on_error["modified by an inplace"] = "change a copy: value.clone()"
    drawn, shipped = _drawn_model(), shipped_model()
    for name, model in [("a model with 3 layers", drawn), ("`world`", shipped)]:
        with attempt.holds(f"the embeddings of other words make other prompts, in {name}"):
            prompt = _tokens(attempt, model, 1, 7)[0]
            position = int(attempt.randint(2, 5, 1))
            rows = prompt.repeat(4, 1)
            others = torch.randperm(model.cfg.d_vocab - 4, generator=attempt.generator)[:4].to(prompt.device)
            rows[:, position] = 4 + others
            vectors = _states(model, rows)[0, :, position].clone()
            want = model(rows)[:, -1].log_softmax(-1)
            _compare_scope(attempt, model, vectors, prompt, position, 0, want)
    with attempt.holds("any vectors at any state and position: the changed stream, fed back"):
        for state, position, n in [(1, 3, 3), (2, 6, 1), (2, 2, 5), (1, 0, 3), (0, 0, 2)]:
            prompt = _tokens(attempt, drawn, 1, 7)[0]
            vectors = 2 * attempt.randn(n, drawn.cfg.d_model)
            streams = _states(drawn, prompt[None])[state].repeat(n, 1, 1)
            streams[:, position] = vectors
            want = _continued(drawn, prompt.repeat(n, 1), streams, state)[:, -1].log_softmax(-1)
            _compare_scope(attempt, drawn, vectors, prompt, position, state, want)


def _compare_scope(attempt, model, vectors, prompt, position: int, state: int, want: Tensor) -> None:
    got = attempt(model, vectors, prompt, position, state)
    slips = _scope_slips(model, vectors, prompt, position, state)
    attempt.close(got, want, atol=3e-3, rtol=1e-3, what="the log-probabilities [n d_vocab]", slips=slips)


def _scope_slips(model, vectors, prompt, position: int, state: int) -> Slips:
    n = len(vectors)
    rows, states = prompt.repeat(n, 1), _states(model, prompt[None])

    def run(value: Tensor, where=position, at: int = state) -> Tensor:
        stream = states[at].repeat(n, 1, 1)
        stream[:, where] = value if isinstance(where, int) else value[:, None]
        return _continued(model, rows, stream, at)

    logits = run(vectors)
    right = logits.log_softmax(-1)
    old = states[state, 0, position]
    yield logits[:, -1], "these are logits: log_softmax over the vocabulary is missing"
    yield right[:, -1].exp(), "these are probabilities: return their logarithms (log_softmax)"
    yield right, "all positions are here: return what follows the last token, [:, -1]"
    after = "this is what follows the vector's own position: return what follows the last token"
    yield right[:, position], after
    yield model(rows)[:, -1].log_softmax(-1), "nothing was put in: does the hook return the changed value?"
    yield _read(model, vectors), "this is the logit lens: the vectors go into the prompt, and the model reads on"
    yield run(vectors + old)[:, -1].log_softmax(-1), "the vector was added: it takes the place of what is there"
    everywhere = run(vectors, slice(None))[:, -1].log_softmax(-1)
    yield (
        everywhere,
        "put in at every position, or alone, without the words around it: only at `position` of the prompt",
    )
    yield run(vectors, slice(position, None))[:, -1].log_softmax(-1), "put in at all positions from `position` on"
    last = len(prompt) - 1
    yield run(vectors, last)[:, -1].log_softmax(-1), "put in at the last position: at `position`"
    if position:
        yield (
            run(vectors, position - 1)[:, -1].log_softmax(-1),
            "one position too early: `position` counts from 0, <bos>",
        )
    if position < last:
        yield run(vectors, position + 1)[:, -1].log_softmax(-1), "one position too late: `position` counts from 0"
    count = "states count from 0, the embeddings: state l is hook_resid_pre of block l"
    late = "one state too late" if state else "one state too late, at least for state 0"
    yield run(vectors, at=state + 1)[:, -1].log_softmax(-1), f"{late}: {count}"
    if state:
        yield run(vectors, at=state - 1)[:, -1].log_softmax(-1), f"one state too early: {count}"
    yield run(vectors, at=0)[:, -1].log_softmax(-1), "put in at the embeddings: at `state`"
    yield right[:1, -1].expand(n, -1), "the first vector was used for all: each has a row of its own"
    mean = run(vectors.mean(0, keepdim=True).expand(n, -1))
    yield mean[:, -1].log_softmax(-1), "the vectors were averaged: each has a row of its own"
    normed = _centred(vectors) / _scale(model, vectors).to(vectors.dtype)
    for value in (normed, _unit(vectors), _unit(vectors) * old.norm()):
        yield run(value)[:, -1].log_softmax(-1), "the vectors were scaled: put them in as they are"

    def put(value: Tensor, hook) -> Tensor:
        value = value.clone()
        value[:, position] = vectors
        return value

    later = [(f"blocks.{i}.hook_resid_pre", put) for i in range(state, model.cfg.n_layers)]
    both = model.run_with_hooks(rows, fwd_hooks=later)[:, -1].log_softmax(-1)
    yield both, "put in at every later state as well: only at `state`"


# --------------------------------------------------------------------------- 3.10 early_exit (extra)


@exercise(
    "3.10",
    hints=(
        "The likeliest token of every state and its log-probability: log_probs.max(-1) gives both, [state n].",
        "Mark where the probability reaches the threshold, mark the last state always, and take the first mark: argmax "
        "of a tensor of 0 and 1 gives the first 1.",
        "value, token = log_probs.max(-1); stops = value.exp() >= threshold; stops[-1] = True; blocks = stops.int()"
        ".argmax(0); return blocks, token.gather(0, blocks[None])[0]",
    ),
)
def early_exit(attempt: Attempt) -> None:
    """Truth: probabilities planted by hand; the rule, place by place; thresholds that nothing and everything meets."""
    with attempt.holds("counted by hand: stops at once, in the middle, at the end; sure, then unsure again"):
        table, blocks, tokens = _planned(attempt)
        _compare_exit(attempt, table, 0.6, torch.tensor(blocks), torch.tensor(tokens))
    with attempt.holds("the rule, place by place, for other thresholds"):
        table = (2 * attempt.randn(6, 40, 9)).log_softmax(-1)
        for threshold in (0.35, 0.5, 0.7):
            _compare_exit(attempt, table, threshold, *_by_rule(table, threshold))
    with attempt.holds("a tiny threshold stops before the first block, one that nothing meets runs them all"):
        for threshold, block in ((1e-6, 0), (1.0, 5)):
            want = torch.full((40,), block)
            _compare_exit(attempt, table, threshold, want, table[block].argmax(-1).cpu())
    with attempt.holds("just sure enough is enough: probability 1 at a threshold of 1"):
        table = (2 * attempt.randn(4, 3, 5)).log_softmax(-1)
        sure = torch.full((5,), -200.0, device=table.device)
        sure[2] = 0.0
        table[1, 0], table[2, 1] = sure, sure
        _compare_exit(attempt, table, 1.0, *_by_rule(table, 1.0))


def _planned(attempt: Attempt) -> tuple[Tensor, list[int], list[int]]:
    """Log-probabilities [4 5 6], where each place stops at a threshold of 0.6, and what it says there."""
    plan = [  # (token, its probability) in each of the four states
        [(0, 0.9), (1, 0.9), (2, 0.9), (3, 0.9)],
        [(1, 0.4), (2, 0.7), (4, 0.8), (4, 0.95)],
        [(2, 0.5), (3, 0.55), (4, 0.58), (5, 0.59)],
        [(3, 0.3), (3, 0.35), (5, 0.8), (1, 0.4)],
        [(4, 0.5), (0, 0.5), (1, 0.5), (2, 0.99)],
    ]
    table = torch.empty(4, 5, 6)
    for place, row in enumerate(plan):
        for state, (token, p) in enumerate(row):
            table[state, place] = (1 - p) / 5
            table[state, place, token] = p
    order = torch.randperm(5, generator=attempt.generator).tolist()
    blocks, tokens = [0, 1, 3, 2, 3], [0, 2, 5, 5, 2]
    table = table.log()[:, order].to(session.device())
    return table, [blocks[i] for i in order], [tokens[i] for i in order]


def _by_rule(table: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    blocks, tokens = [], []
    for place in range(table.shape[1]):
        for state in range(table.shape[0]):
            p = table[state, place].exp()
            if p.max() >= threshold or state == table.shape[0] - 1:
                blocks.append(state)
                tokens.append(int(p.argmax()))
                break
    return torch.tensor(blocks), torch.tensor(tokens)


def _compare_exit(attempt: Attempt, table: Tensor, threshold: float, blocks: Tensor, tokens: Tensor) -> None:
    first, second = attempt.pair(attempt(table, threshold), "blocks", "token")
    n_states = len(table)
    table = table.cpu()
    value, top = table.max(-1)
    p = value.exp()
    reached = p >= threshold
    last = torch.full_like(blocks, n_states - 1)
    always = reached.clone()
    always[-1] = True
    of_final = table.gather(-1, top[-1].expand(top.shape)[..., None])[..., 0].exp() >= threshold
    of_final[-1] = True
    above = p > threshold
    above[-1] = True
    as_logs = value >= threshold
    as_logs[-1] = True
    two = table.exp().topk(2, -1).values
    margin = two[..., 0] - two[..., 1] >= threshold
    margin[-1] = True
    latest = n_states - 1 - reached.flip(0).int().argmax(0)
    surest = p.argmax(0)
    below = (p <= threshold).int().argmax(0)
    sure_to_stay = reached.flip(0).int().cumprod(0).sum(0)
    block_slips = [
        (tokens, "the other way round: first the blocks, then the tokens"),
        (blocks + 1, "this counts states: the embeddings are state 0, after no block"),
        (last - blocks, "this is what is saved: return the number of blocks that are run"),
        (reached.int().argmax(0), "where no state is sure enough, argmax finds 0: the last state always stops"),
        (above.int().argmax(0), "as sure as the threshold is enough: >=, not >"),
        (as_logs.int().argmax(0), "a logarithm is compared with a probability: exp() first"),
        (of_final.int().argmax(0), "this waits for the final token: each state's own likeliest counts"),
        (margin.int().argmax(0), "this compares the lead over the second: the likeliest token's probability alone"),
        (latest, "this is the last sure state: stop at the first"),
        (surest, "this is the surest state: stop at the first that is sure enough"),
        (below, "this is the first that is *not* sure enough: >= threshold"),
        (last - sure_to_stay + 1, "stop at the first sure state, even if a later one is unsure again"),
        ((~reached).sum(0), "this counts the unsure states: stop at the first sure one, whatever comes later"),
        ((~reached).sum(0).clamp(max=n_states - 1), "this counts the unsure states: stop at the first sure one"),
        (last, "nothing stops early: compare the likeliest token's probability with the threshold"),
        (blocks.double().mean(), "one number for all: return the blocks of every place"),
    ]
    said = top.gather(0, blocks[None])[0]
    token_slips = [
        (blocks, "these are the blocks: the token that is said there"),
        (top[-1], "this is what the model says in the end: the token of the state where it stops"),
        (top[0], "this is the first state's token: that of the state where it stops"),
        (top, "tokens of all states: the one where it stops"),
        (value.gather(0, blocks[None])[0], "these are log-probabilities: return the token's id"),
        (p.gather(0, blocks[None])[0], "these are probabilities: return the token's id"),
        (
            top.gather(0, (blocks - 1).clamp(min=0)[None])[0],
            "one state too early: the token said after `blocks` blocks",
        ),
        (top.gather(0, (blocks + 1).clamp(max=n_states - 1)[None])[0], "one state too late: the token said there"),
        (table.argmin(-1).gather(0, said[None] * 0 + blocks[None])[0], "the least likely token: argmax, not argmin"),
    ]
    attempt.close(first, blocks, atol=1e-6, rtol=0, what="the blocks that are run", slips=block_slips)
    attempt.close(second, tokens, atol=1e-6, rtol=0, what="the token that is said", slips=token_slips)
