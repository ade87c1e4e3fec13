"""Checks of chapter 00. Their truths: closed forms, TransformerLens, and invariants of every transformer."""

from __future__ import annotations

from unittest import mock

import pandas as pd
import torch
from torch import Tensor
from transformer_lens import ActivationCache, FactoredMatrix, patching
from transformer_lens.tools.analysis import direct_logit_attribution as library_attribution

from utils.checks.core import Attempt, exercise, hint, prediction, shipped_model, small_model
from utils.datasets import world

__all__ = ["hint", "prediction"]

IN_CAPITALS = "capital/0"  # the template "The capital of {country} is {capital} ."


# --------------------------------------------------------------------------------- shared inputs


def _capital_prompts(model, attempt: Attempt, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """``n`` prompts "The capital of ... is" with the ids of right capital and another one.

    Returns:
        tokens [n, pos], right [n], wrong [n].
    """
    names = list(world.COUNTRIES)
    order = torch.randperm(len(names), generator=attempt.generator).tolist()[: n + 1]
    chosen = [names[i] for i in order]
    tokens = model.to_tokens([f"The capital of {country} is" for country in chosen[:n]])
    capitals = [model.to_single_token(world.COUNTRIES[country].capital) for country in chosen]
    ids = torch.tensor(capitals, device=tokens.device)
    return tokens, ids[:-1], ids[1:]


def _both_models() -> list[tuple]:
    """The shipped model and one of another size, with the words that name them in a property."""
    return [("on `world`", shipped_model()), ("on a model with 3 layers", small_model())]


def _random_tokens(model, attempt: Attempt, n: int, n_pos: int) -> Tensor:
    """Rows of random tokens [n, n_pos] that begin with <bos>."""
    tokens = attempt.randint(4, model.cfg.d_vocab, n, n_pos)
    tokens[:, 0] = 1
    return tokens


def _writes(model, tokens: Tensor) -> dict[str, Tensor]:
    """Everything that is written into the residual stream, by hook name, each [batch pos d_model]."""
    _, cache = model.run_with_cache(tokens)
    names = ["hook_embed", "hook_pos_embed"]
    for layer in range(model.cfg.n_layers):
        names += [f"blocks.{layer}.hook_attn_out", f"blocks.{layer}.hook_mlp_out"]
    return {name: cache[name].clone() for name in names}


def _read_out(model, stream: Tensor) -> Tensor:
    """Logits of a residual stream, written out: centre, divide by the standard deviation, unembed."""
    centred = stream - stream.mean(-1, keepdim=True)
    scale = (centred.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return centred / scale @ model.W_U + model.b_U


# -------------------------------------------------------------------------------------- self-test

_PYTORCH = "https://docs.pytorch.org/docs/stable"
_POINTERS = {
    "shape": f"matrix products run over the last two axes: {_PYTORCH}/generated/torch.matmul.html",
    "dim": f"the axis that is summed to 1 is the one you name: {_PYTORCH}/generated/torch.nn.functional.softmax.html",
    "gradient": f"the derivative of x**2 is 2x: {_PYTORCH}/autograd.html",
    "rank": "everything passes through 3 dimensions: https://www.deeplearningbook.org/contents/linear_algebra.html",
    "ratio": "softmax makes probability proportional to exp(logit), and exp(log 2) is 2",
}


def _as_list(value) -> list | None:
    """A tuple, list, size or tensor of numbers as a list; ``None`` for anything else."""
    try:
        return [float(part) for part in value]
    except (TypeError, ValueError):
        return None


def self_test(*, shape=None, dim=None, gradient=None, rank=None, ratio=None) -> None:
    """Say for each of the five opening questions whether it was answered rightly, with a pointer where not."""
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x**2).sum().backward()
    product = torch.zeros(2, 5, 16) @ torch.zeros(16, 4)
    thin = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    right = {
        "shape": _as_list(shape) == list(product.shape),
        "dim": dim in (-1, product.dim() - 1) and not isinstance(dim, bool),
        "gradient": _as_list(gradient) == x.grad.tolist(),
        "rank": rank == int(torch.linalg.matrix_rank(thin @ thin.T)),
        "ratio": isinstance(ratio, int | float) and abs(ratio - 2) < 0.02,
    }
    given = {"shape": shape, "dim": dim, "gradient": gradient, "rank": rank, "ratio": ratio}
    for number, (name, is_right) in enumerate(right.items(), start=1):
        if given[name] is None:
            print(f"· {number} {name}: not answered yet")
        else:
            print(f"✓ {number} {name}" if is_right else f"✗ {number} {name}: {_POINTERS[name]}")


# -------------------------------------------------------------------------------------- exercises


@exercise(
    "0.1",
    hints=(
        "The stream is a plain sum of all that was written: no weights, no order. Whatever the names: writes.values().",
        "Two steps lead from the stream to logits: the modules `model.ln_final`, then `model.unembed`.",
        "return model.unembed(model.ln_final(sum(writes.values())))",
    ),
)
def logits_from_writes(attempt: Attempt) -> None:
    """Truth: the model's own logits, and the same read-out written as a formula for streams no model has made."""
    attempt.on_error["'blocks."] = "other models have other layers: add up writes.values(), whatever the names"
    shipped, small = shipped_model(), small_model()
    cases = [
        ("equals the logits of `world`", shipped, _capital_prompts(shipped, attempt, 3)[0]),
        ("equals the logits of a model with 3 layers", small, _random_tokens(small, attempt, 2, 7)),
    ]
    for name, model, tokens in cases:
        writes = _writes(model, tokens)
        with attempt.holds(name):
            attempt.close(attempt(model, writes), model(tokens), slips=_write_slips(model, writes))
    with attempt.holds("follows the writes it is given"):
        scaled = {key: value * factor for (key, value), factor in zip(writes.items(), _factors(attempt), strict=False)}
        truth = _read_out(model, sum(scaled.values()))
        attempt.close(attempt(model, scaled), truth, slips=_write_slips(model, scaled))


def _factors(attempt: Attempt) -> list[float]:
    return (0.5 + torch.rand(40, generator=attempt.generator)).tolist()


def _write_slips(model, writes: dict[str, Tensor]) -> list[tuple[Tensor, str]]:
    stream = sum(writes.values())
    without_position = stream - writes["hook_pos_embed"]
    without_embedding = stream - writes["hook_embed"]
    attention = sum(v for k, v in writes.items() if "mlp" not in k)
    mlps = sum(v for k, v in writes.items() if "attn" not in k)
    last = list(writes.values())[-1]
    return [
        (model.unembed(stream), "the final LayerNorm is missing: model.ln_final comes before model.unembed"),
        (model.ln_final(stream), "this is the normalised stream: model.unembed turns it into logits"),
        (model.ln_final(stream) @ model.W_U, "the unembedding is a matrix and a bias: use model.unembed"),
        (_read_out(model, stream).softmax(-1), "these are probabilities: return the logits"),
        (stream, "this is the stream itself: apply model.ln_final, then model.unembed"),
        (_read_out(model, without_position), "the position embedding `hook_pos_embed` is left out"),
        (_read_out(model, without_embedding), "the token embedding `hook_embed` is left out"),
        (_read_out(model, attention), "the MLPs' writes are left out"),
        (_read_out(model, mlps), "the attention layers' writes are left out"),
        (_read_out(model, last), "only the last write is read out: all of them are added first"),
        (
            _sum_of_read_outs(model, writes),
            "add first, then normalise: LayerNorm of a sum is not the sum of LayerNorms",
        ),
    ]


def _sum_of_read_outs(model, writes: dict[str, Tensor]) -> Tensor:
    return sum(model.unembed(model.ln_final(write)) for write in writes.values())


@exercise(
    "0.2",
    hints=(
        "A hook is a function save(value, hook) that is called with the activation. It can put it into a dictionary.",
        "The hook must know under which name to store: functools.partial(save, name=name), one hook for each name.",
        "model.run_with_hooks(tokens, fwd_hooks=[(name, partial(save, name=name)) for name in names]), "
        "with def save(value, hook, name): cache[name] = value",
    ),
)
def cache_by_hooks(attempt: Attempt) -> None:
    """Truth: `run_with_cache` of TransformerLens."""
    attempt.on_error["unexpected keyword argument 'hook'"] = "a hook is called as function(value, hook=...): take both"
    for name, model, n_pos in [
        ("on `world`", shipped_model(), 9),
        ("on a model with 3 layers", small_model(), 6),
    ]:
        tokens = _random_tokens(model, attempt, 2, n_pos)
        layer = int(attempt.randint(0, model.cfg.n_layers, 1))
        names = [
            "hook_embed",
            f"blocks.{layer}.attn.hook_pattern",
            f"blocks.{layer}.hook_mlp_out",
            f"blocks.{model.cfg.n_layers - 1}.hook_resid_post",
        ]
        _, truth = model.run_with_cache(tokens, names_filter=names)
        with attempt.holds(f"same activations as run_with_cache, {name}"):
            with attempt.without(model, "run_with_cache", "here you build it: model.run_with_hooks and a hook"):
                got = attempt(model, tokens, names)
            _compare_caches(attempt, got, {key: truth[key] for key in names})


def _compare_caches(attempt: Attempt, got, truth: dict[str, Tensor]) -> None:
    attempt.require(
        isinstance(got, dict),
        "a dictionary from hook name to activation",
        f"a {type(got).__name__}",
        "return the dictionary that your hook has filled",
    )
    missing = [name for name in truth if name not in got]
    attempt.require(
        not missing,
        f"an entry for each of the {len(truth)} names",
        f"no entry {missing[0]!r}" if missing else "",
        _missing_slip(got),
    )
    extra = [name for name in got if name not in truth]
    attempt.require(not extra, "only the names that were asked for", f"also {extra[0]!r}" if extra else "")
    last = list(truth.values())[-1]
    for name, want in truth.items():
        slips = [(last, "every entry holds the last activation: each hook needs a name of its own (partial)")]
        slips += [(other, f"this is the activation of {key}") for key, other in truth.items() if key != name]
        attempt.close(got[name], want, what=f"the entry {name!r}", slips=slips)


def _missing_slip(got: dict) -> str:
    if not got:
        return "the hook never ran: was the model run with it?"
    if len(got) == 1:
        return "all hooks store under one name: a closure in a loop sees the last one; use functools.partial"
    return "one place can have two names, and hook.name tells only one: store under the name that was asked for"


@exercise(
    "0.3",
    hints=(
        "Scores first: for every head, the dot product of each query with each key, divided by sqrt(d_head).",
        "torch.einsum('bqhd,bkhd->bhqk', q, k) gives all dot products, with the axes in the right order.",
        "later = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1) marks what must be hidden: "
        "scores.masked_fill(later, float('-inf')).softmax(dim=-1)",
    ),
)
def attention_pattern(attempt: Attempt) -> None:
    """Truth: a loop in float64 over single queries; the pattern that the model itself computes."""
    q, k = 2 * attempt.randn(2, 5, 3, 4), 2 * attempt.randn(2, 5, 3, 4)
    pattern = attempt(q, k)
    with attempt.holds("every query's weights over the keys sum to 1"):
        _require_filled_rows(attempt, pattern)
        got = attempt.tensor(pattern, (2, 3, 5, 5), "the pattern [batch head query key]")
        ones = torch.ones(2, 3, 5, dtype=torch.float64)
        attempt.close(got.sum(-1), ones, what="the sum over keys", slips=_sum_slips(got))
    with attempt.holds("no query looks at a later key"):
        later = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1)
        worst = got[..., later].abs().max().item()
        attempt.require(worst < 1e-6, "weight 0 on later keys", f"weight {worst:.3g}", _mask_slip(got, q, k))
    with attempt.holds("equals softmax(q k / sqrt(d_head)) computed query by query"):
        attempt.close(got, _pattern_by_loop(q, k), slips=_pattern_slips(q, k))
    with attempt.holds("keeps all four axes for one text of one word"):
        q, k = attempt.randn(1, 1, 1, 4), attempt.randn(1, 1, 1, 4)
        squeezed = [
            (torch.ones(shape), "squeeze() drops every axis of length 1: leave all four axes") for shape in _SQUEEZED
        ]
        attempt.close(attempt(q, k), torch.ones(1, 1, 1, 1), slips=squeezed)
    model = shipped_model()
    _, cache = model.run_with_cache(_random_tokens(model, attempt, 2, 11))
    layer = int(attempt.randint(0, model.cfg.n_layers, 1))
    q, k = (cache[f"blocks.{layer}.attn.hook_{name}"] for name in "qk")
    with attempt.holds("equals the pattern of `world`"):
        truth = cache[f"blocks.{layer}.attn.hook_pattern"]
        attempt.close(attempt(q, k), truth, slips=_pattern_slips(q, k))


_SQUEEZED = [(), (1,), (1, 1), (1, 1, 1)]


def _require_filled_rows(attempt: Attempt, pattern) -> None:
    """The first query sees itself alone: an empty row there (zeros, or the NaN of a softmax over -inf) tells why."""
    if not isinstance(pattern, Tensor) or pattern.dim() != 4:
        return
    if tuple(pattern.shape) == (2, 5, 3, 3):
        attempt.fail(
            "the pattern [batch head query key]",
            "shape [2, 5, 3, 3], heads looking at heads",
            "q and k are [batch pos head d_head]: bring the heads forward (transpose or einsum) before you multiply",
        )
    if pattern[:, :, -1].isnan().all() and not pattern[:, :, 0].isnan().any():
        attempt.fail(
            "weights for the last query",
            "NaN in its row, where everything is masked",
            "the mask is upside down: hide the keys that come after the query (key index > query index)",
        )
    first = pattern[:, :, 0].detach().float().nan_to_num(0.0)
    others = pattern[:, :, 1:].detach().float()
    if first.abs().max() == 0 and torch.allclose(others.sum(-1), torch.ones_like(others.sum(-1)), atol=1e-3):
        attempt.fail(
            "weights for the first query",
            "an empty row (NaN or zeros)",
            "a query may look at its own position: mask from diagonal=1, so that a first word sees itself",
        )


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double())


def _pattern_by_loop(q: Tensor, k: Tensor, scale: float | None = None, strict: bool = False) -> Tensor:
    """softmax of one query at a time over the keys it may see; ``strict`` leaves its own position out."""
    batch, n_pos, n_heads, d_head = q.shape
    scale = d_head**-0.5 if scale is None else scale
    pattern = torch.zeros(batch, n_heads, n_pos, n_pos, dtype=torch.float64, device=q.device)
    for query in range(n_pos):
        seen = max(query, 1) if strict else query + 1
        scores = torch.einsum("bhd,bkhd->bhk", q[:, query].double(), k[:, :seen].double()) * scale
        pattern[:, :, query, :seen] = scores.softmax(-1)
    return pattern


def _reshaped(x: Tensor) -> Tensor:
    """What [batch pos head d] becomes when heads are "moved" by reshaping to [batch head pos d]."""
    batch, n_pos, n_heads, d_head = x.shape
    return x.reshape(batch, n_heads, n_pos, d_head).transpose(1, 2)


def _sum_slips(got: Tensor) -> list[tuple[Tensor, str]]:
    if torch.allclose(got.sum(-2), torch.ones(1, dtype=got.dtype), atol=1e-4):
        return [(got.sum(-1), "your columns sum to 1: softmax runs over the keys, the last axis (dim=-1)")]
    return [
        (
            got.sum(-1),
            "softmax over the keys comes last, after scaling and masking (not the mask after softmax)",
        )
    ]


def _mask_slip(got: Tensor, q: Tensor, k: Tensor) -> str:
    scores = (_scores(q, k) * q.shape[-1] ** -0.5).cpu()
    zeroed = scores.masked_fill(torch.triu(torch.ones_like(scores, dtype=torch.bool), 1), 0.0).softmax(-1)
    below = scores.masked_fill(torch.tril(torch.ones_like(scores, dtype=torch.bool), -1), -1e9).softmax(-1)
    if torch.allclose(got, zeroed, atol=1e-4):
        return "a masked score of 0 still gets weight exp(0): use -inf before the softmax"
    if torch.allclose(got, below, atol=1e-4):
        return "the mask is upside down: hide the keys that come after the query (key index > query index)"
    if torch.allclose(got, scores.softmax(-1), atol=1e-4):
        return "the causal mask is missing"
    if got[..., torch.triu(torch.ones(got.shape[-2:], dtype=torch.bool), diagonal=2)].abs().max() < 1e-6:
        return "every query sees one key too many: the mask begins right above the diagonal (diagonal=1)"
    return "hide the keys that come after the query (key index > query index) before the softmax"


def _pattern_slips(q: Tensor, k: Tensor) -> list[tuple[Tensor, str]]:
    n_pos, n_heads, d_head = q.shape[1:]
    missing = "the scores are not divided by sqrt(d_head)"
    return [
        (_pattern_by_loop(q, k, scale=1.0), missing),
        (_pattern_by_loop(q, k, scale=1 / d_head), "divided by d_head: it is the square root of d_head"),
        (_pattern_by_loop(q, k, scale=d_head**0.5), "multiplied by sqrt(d_head): divide"),
        (
            _pattern_by_loop(q, k, scale=(n_heads * d_head) ** -0.5),
            "d_head is the last axis of q, not d_model",
        ),
        (_pattern_by_loop(q, k, scale=n_pos**-0.5), "divided by the square root of the number of positions"),
        (_pattern_by_loop(q, k, scale=n_heads**-0.5), "divided by the square root of the number of heads"),
        (_pattern_by_loop(q, k, scale=32**-0.5), "sqrt(32) fits `world` alone: d_head is the length of q's last axis"),
        (_pattern_by_loop(_reshaped(q), _reshaped(k)), "reshape and view do not move axes: transpose, or use einsum"),
        (_pattern_by_loop(k, q), "queries and keys are exchanged"),
        (_pattern_by_loop(q, k, strict=True), "a query may look at its own position: mask from diagonal=1"),
        (_pattern_by_loop(q, k).transpose(-1, -2), "the last two axes are [query, key], in this order"),
    ]


@exercise(
    "0.4",
    hints=(
        "A hook may return a new value, and the model goes on with it: return a fresh leaf tensor for the embedding.",
        "leaf = value.detach().clone().requires_grad_(True); put it into a list that stands outside the hook, "
        "so that you can reach it after the run, and return it from the hook.",
        "After logits[0, position, token].backward(), leaf.grad has shape [1, pos, d_model]: norm over its last axis.",
    ),
)
def gradient_norms(attempt: Attempt) -> None:
    """Truth: causality (zero for later positions), and finite differences in float64 for the rest."""
    model = shipped_model()
    tokens = _random_tokens(model, attempt, 1, 10)
    position, token = int(attempt.randint(3, 7, 1)), int(tokens[0, 2])
    attempt.on_error["does not require grad"] = (
        "the logit does not depend on your leaf: the hook must *return* it, so that the run goes on with it"
    )
    attempt.on_error["NoneType"] = (
        ".grad is None before logits[...].backward(), and on any tensor but the leaf the run went on with: "
        "keep that one in a list outside the hook"
    )
    with attempt.holds("one number for each position, zero after the one that is read"):
        got = attempt.tensor(attempt(model, tokens, position, token), (10,), "the norms [pos]")
        _require_causal(attempt, got, position)
    model = small_model()
    tokens = _random_tokens(model, attempt, 1, 6)
    token = int(attempt.randint(4, model.cfg.d_vocab, 1))
    for position in (2, 5):
        grid = _finite_differences(small_model(dtype=torch.float64), tokens)
        with attempt.holds(f"equals finite differences, position {position}"):
            got = attempt.tensor(attempt(model, tokens, position, token), (6,), "the norms [pos]")
            slips = _gradient_slips(grid, position, token, model(tokens)[0].softmax(-1))
            attempt.close(got, grid[position, token].norm(dim=-1), atol=2e-3, rtol=2e-3, slips=slips)


def _require_causal(attempt: Attempt, got: Tensor, position: int) -> None:
    later, own = got[position + 1 :].abs().max().item(), got[position].abs().item()
    slip = "logits[0, position, token] is the number to differentiate, not one at another position"
    attempt.require(later < 1e-8, "0 at every position after the one that is read", f"up to {later:.3g}", slip)
    if got.abs().max() < 1e-5:  # a processed model's gradients have mean zero: a sum is 0 but for rounding
        slip = "a sum over d_model cancels: take the norm"
    attempt.require(own > 1e-8, "a gradient at the position itself", "0 there", slip)


def _finite_differences(model, tokens: Tensor, step: float = 1e-5) -> Tensor:
    """d logit[out_pos, token] / d embedding[in_pos, :] by central differences: [out_pos token in_pos d_model]."""
    n_pos, d_model = tokens.shape[1], model.cfg.d_model
    nudges = step * torch.eye(n_pos * d_model, dtype=torch.float64, device=tokens.device)
    nudges = nudges.view(-1, n_pos, d_model)
    rows = tokens.expand(len(nudges), -1)

    def logits(sign: float) -> Tensor:
        return model.run_with_hooks(rows, fwd_hooks=[("hook_embed", lambda value, hook: value + sign * nudges)])

    slope = (logits(1.0) - logits(-1.0)) / (2 * step)
    return slope.view(n_pos, d_model, n_pos, -1).permute(2, 3, 0, 1).cpu()


def _gradient_slips(grid: Tensor, position: int, token: int, probabilities: Tensor) -> list[tuple[Tensor, str]]:
    right = grid[position, token]
    p = probabilities[position].double().cpu()
    of_probability = p[token] * (right - torch.einsum("t,tpd->pd", p, grid[position]))
    slips = [
        (of_probability.norm(dim=-1), "this is the gradient of the probability: differentiate the logit itself"),
        (right.norm(dim=-1) ** 2, "these are squared norms: take the square root"),
        # LayerNorm and the centred unembedding make both of these sums exactly 0: they cannot be told apart.
        (
            torch.zeros(len(right)),
            "all are 0: in a sum (over d_model, or over all tokens' logits) signs cancel: "
            "take the norm, and the gradient of the logit of `token` alone",
        ),
        (
            right.abs().sum(-1),
            "these are sums of absolute values: the norm is the root of the sum of squares",
        ),
        (right.abs().amax(-1), "these are maxima over d_model: take the norm"),
        (
            grid[position].sum(0).norm(dim=-1),
            "the logits of all tokens are added up: take the one of `token`",
        ),
        (
            grid[:, token].sum(0).norm(dim=-1),
            "the logits of all positions are added up: take the one at `position`",
        ),
        (grid[-1, token].norm(dim=-1), "this is the last position: read the logit at `position`"),
    ]
    if position > 0:
        slips.append((grid[position - 1, token].norm(dim=-1), "one position too early: read at `position` itself"))
    return slips


@exercise(
    "0.5",
    hints=(
        "Rows are vectors here: x @ w_q is a query, y @ w_k is a key. Write their dot product as x @ (...) @ y.T.",
        "What a head writes when it looks at y is y @ (...): two matrices, in the order in which y meets them.",
        "return w_q @ w_k.T, w_v @ w_o",
    ),
)
def qk_and_ov(attempt: Attempt) -> None:
    """Truth: `FactoredMatrix` of TransformerLens; the rank that follows from the shapes."""
    attempt.on_error["mat1 and mat2"] = "to sum over d_head, the key side has to be transposed: w_q @ w_k.T"
    d_model, d_head = 10, 3
    weights = [attempt.randn(d_model, d_head) for _ in range(3)] + [attempt.randn(d_head, d_model)]
    _compare_circuits(attempt, weights, "equal FactoredMatrix on random weights")
    model = shipped_model()
    layer, head = (int(attempt.randint(0, n, 1)) for n in (model.cfg.n_layers, model.cfg.n_heads))
    weights = [getattr(model, name)[layer, head] for name in ("W_Q", "W_K", "W_V", "W_O")]
    qk, ov = _compare_circuits(attempt, weights, "equal FactoredMatrix on a head of `world`")
    with attempt.holds("have rank d_head at most"):
        for name, matrix in (("QK", qk), ("OV", ov)):
            rank = int(torch.linalg.matrix_rank(matrix, rtol=1e-5))
            attempt.require(rank <= model.cfg.d_head, f"rank {model.cfg.d_head} at most", f"rank {rank} of {name}")


def _compare_circuits(attempt: Attempt, weights: list[Tensor], name: str) -> tuple[Tensor, Tensor]:
    w_q, w_k, w_v, w_o = weights
    with attempt.holds(name):
        result = attempt(*weights)
        attempt.require(
            isinstance(result, tuple | list) and len(result) == 2,
            "two matrices (QK, OV)",
            f"{type(result).__name__}" + (f" of length {len(result)}" if hasattr(result, "__len__") else ""),
            "return both: `return qk, ov`",
        )
        d_head = w_q.shape[-1]
        true_qk, true_ov = FactoredMatrix(w_q, w_k.T).AB, FactoredMatrix(w_v, w_o).AB
        qk_slips = [
            (true_qk.T, "this is K Q: the query side comes first, w_q @ w_k.T"),
            (true_qk / d_head**0.5, "the factor 1 / sqrt(d_head) belongs to the scores, not to this matrix"),
            (w_q.T @ w_k, "this is d_head x d_head: multiply so that d_head is summed over"),
            (true_ov, "QK comes first, then OV"),
        ]
        ov_slips = [
            (true_ov.T, "this is transposed: a row vector meets w_v first, then w_o"),
            (w_o @ w_v, "this is d_head x d_head: w_v comes first, then w_o"),
            (w_o.T @ w_v.T, "this is transposed: a row vector meets w_v first, then w_o"),
            (true_qk, "QK comes first, then OV"),
        ]
        qk = attempt.close(result[0], true_qk, what="QK", slips=qk_slips)
        ov = attempt.close(result[1], true_ov, what="OV", slips=ov_slips)
    return qk, ov


@exercise(
    "0.6",
    hints=(
        "Column t of w_u is the direction in the stream that raises the logit of token t. What raises a difference?",
        "Only the last position counts: writes[:, -1] is [component d_model], scale[-1] is one number. "
        "The direction is w_u[:, right] - w_u[:, wrong].",
        "return writes[:, -1] / scale[-1] @ (w_u[:, right] - w_u[:, wrong])",
    ),
)
def attribute_logit_difference(attempt: Attempt) -> None:
    """Truth: `direct_logit_attribution` of TransformerLens; the sum is the model's own logit difference."""
    column = "a token's direction is a column of w_u, of length d_model: w_u[:, token]"
    attempt.on_error["size mismatch"] = column
    for name, model in _both_models():
        attempt.on_error[f"out of bounds for dimension 0 with size {model.cfg.d_model}"] = column
        tokens, right, wrong = _attribution_inputs(model, attempt)
        writes, scale = _stacked_writes(model, tokens)
        args = (writes[:, 0], scale[0], model.W_U.detach().clone(), right, wrong)
        slips = _attribution_slips(*args)
        if model is shipped_model():
            always = (model.to_single_token("Paris"), model.to_single_token("Rome"))
            truth = writes[:, 0, -1] / scale[0, -1] @ (model.W_U[:, always[0]] - model.W_U[:, always[1]])
            slips.append((truth, "this is Paris against Rome: use the arguments `right` and `wrong`"))
        with attempt.holds(f"equals TransformerLens {name}"):
            library = library_attribution(model, tokens, answer_tokens=right, incorrect_tokens=wrong).attribution
            got = attempt.close(attempt(*args), library.reshape(-1), slips=slips)
    with attempt.holds("adds up to the logit difference of the model"):
        logits = model(tokens)[0, -1] - model.b_U
        attempt.close(got.sum(), logits[right] - logits[wrong], what="the sum")


def _attribution_inputs(model, attempt: Attempt) -> tuple[Tensor, int, int]:
    if model is not shipped_model():
        tokens = _random_tokens(model, attempt, 1, 9)
        right, wrong = (int(i) for i in 4 + torch.randperm(model.cfg.d_vocab - 4, generator=attempt.generator)[:2])
        return tokens, right, wrong
    tokens, right, wrong = _capital_prompts(model, attempt, 1)
    return tokens, int(right), int(wrong)


def _stacked_writes(model, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Every write [component batch pos d_model] in the library's order, and the final scale [batch pos 1]."""
    _, cache = model.run_with_cache(tokens)
    return cache.decompose_resid(apply_ln=False).clone(), cache["ln_final.hook_scale"].clone()


def _attribution_slips(writes: Tensor, scale: Tensor, w_u: Tensor, right: int, wrong: int) -> list:
    last, direction = writes[:, -1], w_u[:, right] - w_u[:, wrong]
    own_scale = last.pow(2).mean(-1, keepdim=True).sqrt().clamp_min(1e-9)
    truth = last / scale[-1] @ direction
    sixth = min(5, len(scale) - 1)
    return [
        (
            last / last.sum(0).std() @ direction,
            "the scale is given: scale[-1] (a standard deviation with n - 1 is another)",
        ),
        (last / scale.mean(0) @ direction, "the scales of the positions are averaged: take scale[-1]"),
        (truth / truth.sum(), "these are fractions of the whole: return the shares themselves, in logits"),
        (last / scale[-1] @ w_u[:, right - wrong], "this is the column number right - wrong: subtract the two columns"),
        (writes[:, sixth] / scale[sixth] @ direction, "position 5 is the last one of one prompt only: take -1"),
        (last @ direction, "the writes are not divided by the final LayerNorm's scale"),
        (last * scale[-1] @ direction, "multiplied by the scale: divide"),
        (
            last / scale[-1] @ w_u[:, right],
            "this is the logit of `right` alone: subtract the direction of `wrong`",
        ),
        (-last / scale[-1] @ direction, "the sign is turned round: right minus wrong"),
        (
            writes[:, 0] / scale[0] @ direction,
            "this is the first position: the prediction is made at the last one",
        ),
        (last / scale[0] @ direction, "the scale is that of the first position: take scale[-1]"),
        (
            last / last.std(-1, keepdim=True).clamp_min(1e-9) @ direction,
            "each write is divided by its own standard deviation: all share the scale of the full stream",
        ),
        (
            last / own_scale @ direction,
            "each write is divided by its own norm: all share the scale of the full stream",
        ),
        (
            (writes / scale @ direction).sum(-1),
            "all positions are added up: the prediction is made at the last one",
        ),
        (
            (writes / scale @ direction).mean(-1),
            "positions are averaged: the prediction is made at the last one",
        ),
        (writes / scale @ direction, "one number for each component: take the last position"),
        (truth.sum(), "this is the sum: return one number for each component"),
    ]


@exercise(
    "0.7",
    hints=(
        "The place is called f'blocks.{layer}.hook_resid_pre'. A hook changes the run by returning another value.",
        "In the hook: copy the value, overwrite [:, position] by source's, return the copy.",
        "value = value.clone(); value[:, position] = source[:, position]; return value. "
        "model.run_with_hooks(tokens, fwd_hooks=[(name, patch)]) returns the logits.",
    ),
)
def patch_stream(attempt: Attempt) -> None:
    """Truth: `transformer_lens.patching`; and a patch of the one word that differs is the other prompt."""
    for name, model in _both_models():
        clean = _random_tokens(model, attempt, 2, 7)
        other = _random_tokens(model, attempt, 2, 7)
        _, cache = model.run_with_cache(other)
        layer, position = int(attempt.randint(1, model.cfg.n_layers - 1, 1)), int(attempt.randint(1, 6, 1))
        with attempt.holds(f"equals TransformerLens {name}"):
            source = cache[f"blocks.{layer}.hook_resid_pre"]
            got = attempt(model, clean, source, layer, position)
            slips = _patch_slips(model, clean, other, layer, position)
            attempt.close(got, _library_patch(model, clean, cache, layer, position), slips=slips)
    with attempt.holds("at layer 0, patching the only word that differs gives the other prompt's logits"):
        changed = clean.clone()
        changed[:, 3] = 4 + (clean[:, 3] - 3) % (model.cfg.d_vocab - 4)
        logits, cache = model.run_with_cache(changed)
        source = cache["blocks.0.hook_resid_pre"]
        into_embedding = _written(model, clean, ["hook_embed"], source, 3)
        slips = [(into_embedding, "hook_embed comes before the position embedding is added: use hook_resid_pre")]
        attempt.close(attempt(model, clean, source, 0, 3), logits, slips=slips)


def _library_patch(model, tokens: Tensor, source: ActivationCache, layer: int, position: int) -> Tensor:
    """Logits [batch pos d_vocab] under one residual patch of the library."""
    logits: list[Tensor] = []

    def keep(patched: Tensor) -> Tensor:
        logits.append(patched.detach().clone())
        return patched.sum()

    # The library's progress bar has no switch here, and one patch needs none.
    with torch.no_grad(), mock.patch.object(patching, "tqdm", iter):
        patching.generic_activation_patch(
            model,
            tokens,
            source,
            keep,
            patching.layer_pos_patch_setter,
            "resid_pre",
            index_df=pd.DataFrame({"layer": [layer], "pos": [position]}),
        )
    return logits[-1]


def _patched(model, tokens: Tensor, source: Tensor, layer: int, where) -> Tensor:
    def write(value: Tensor, hook) -> Tensor:
        value = value.clone()
        value[:, where] = source[:, where]
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", write)])


def _patch_slips(model, clean: Tensor, other: Tensor, layer: int, position: int) -> list[tuple[Tensor, str]]:
    _, there = model.run_with_cache(other)
    _, here = model.run_with_cache(clean)
    name = f"blocks.{layer}.hook_resid_pre"
    right = _patched(model, clean, there[name], layer, position)
    slips = [
        (model(clean), "nothing was patched: does the hook return the changed value?"),
        (model(other), "the whole stream was replaced, not one position"),
        (_patched(model, other, here[name], layer, position), "the patch runs the other way"),
        (_patched(model, clean, there[name], layer, position - 1), "one position too early"),
        (
            _patched(model, clean, there[name], layer, slice(0, position + 1)),
            "all positions up to this one are patched",
        ),
        (
            _patched(model, clean, there[name], layer, slice(position, None)),
            "all positions from this one on are patched",
        ),
        (
            _patched(model, clean, there[name], layer - 1, position),
            "one layer too early: use hook_resid_pre of `layer`",
        ),
        (right[:, -1], "these are the logits of the last position: return those of all positions"),
        (right.softmax(-1), "these are probabilities: return the logits"),
    ]
    source = there[name]
    later = [f"blocks.{i}.hook_resid_pre" for i in range(layer, model.cfg.n_layers)]
    first_row = source[:1].expand_as(source)
    slips += [
        (
            _written(model, clean, [name.replace("pre", "post")], source, position),
            "one layer too late: use hook_resid_pre",
        ),
        (_written(model, clean, later, source, position), "patched at every later layer too: one layer only"),
        (
            _written(model, clean, [name], first_row, position),
            "row 0 of `source` is used for all: each row has its own",
        ),
        (
            _written(model, clean, [name], _first_row_only(source, here[name]), position),
            "only row 0 is patched: [:, position]",
        ),
        (
            _written(model, clean, [name], source, clean.shape[1] - 1),
            "this is the last position: use the argument `position`",
        ),
        (_written(model, clean, [name], source + here[name], position), "`source` was added: overwrite the old value"),
        (_written(model, clean, [name], source, position, axis=-1), "axis 1 of [batch pos d_model] is the position"),
    ]
    return slips


def _first_row_only(source: Tensor, here: Tensor) -> Tensor:
    """``source`` in the first row of the batch, what is there anyway in the others."""
    return torch.cat([source[:1], here[1:]])


def _written(model, tokens: Tensor, names: list[str], source: Tensor, index: int, axis: int = 1) -> Tensor:
    """Logits when ``source`` is written at one index of one axis, at all hooks called ``names``."""

    def write(value: Tensor, hook) -> Tensor:
        return value.index_copy(axis, torch.tensor([index], device=value.device), source.narrow(axis, index, 1))

    return model.run_with_hooks(tokens, fwd_hooks=[(name, write) for name in names])


@exercise(
    "0.8",
    hints=(
        "First all prompts at once: writes[:, :, -1] is [component batch d_model], scale[:, -1] is [batch 1].",
        "Every prompt has a direction of its own: (w_u[:, right] - w_u[:, wrong]).T is [batch d_model].",
        "The product, summed over d_model, is [component batch]; the mean is over batch, "
        "the standard error values.std(-1) / n**0.5.",
    ),
)
def mean_attribution(attempt: Attempt) -> None:
    """Truth: `direct_logit_attribution` of TransformerLens over a batch, mean and standard error by NumPy."""
    attempt.on_error["size mismatch"] = attempt.on_error["must match the size"] = attempt.on_error["subscript"] = (
        "the directions w_u[:, right] - w_u[:, wrong] are [d_model batch]: transpose them, one row for each prompt"
    )
    for name, model, n in [
        ("on `world`", shipped_model(), 7),
        ("on a model with 3 layers", small_model(), 5),
    ]:
        attempt.on_error[f"out of bounds for dimension 0 with size {model.cfg.d_model}"] = (
            "a token's direction is a column of w_u, of length d_model: w_u[:, right]"
        )
        tokens, right, wrong = _batch_inputs(model, attempt, n)
        writes, scale = _stacked_writes(model, tokens)
        library = library_attribution(model, tokens, answer_tokens=right, incorrect_tokens=wrong).attribution
        values = library.detach().cpu().double().numpy()
        args = (writes, scale, model.W_U.detach().clone(), right, wrong)
        with attempt.holds(f"mean and standard error equal TransformerLens {name}"):
            result = attempt(*args)
            attempt.require(
                isinstance(result, tuple | list) and len(result) == 2,
                "two tensors (mean, standard error)",
                f"{type(result).__name__}",
                "return both: `return mean, standard_error`",
            )
            attempt.close(result[0], torch.tensor(values.mean(1)), what="the mean", slips=_mean_slips(*args, values))
            error = torch.tensor(values.std(1, ddof=1) / n**0.5)
            attempt.close(result[1], error, what="the standard error", slips=_error_slips(values, n))


def _batch_inputs(model, attempt: Attempt, n: int) -> tuple[Tensor, Tensor, Tensor]:
    if model is shipped_model():
        return _capital_prompts(model, attempt, n)
    right = attempt.randint(4, model.cfg.d_vocab, n)
    wrong = 4 + (right - 3) % (model.cfg.d_vocab - 4)
    return _random_tokens(model, attempt, n, 9), right, wrong


def _mean_slips(writes, scale, w_u, right, wrong, values) -> list[tuple[Tensor, str]]:
    last = writes[:, :, -1] / scale[:, -1]
    direction = (w_u[:, right] - w_u[:, wrong]).T
    one = torch.einsum("cbd,d->cb", last, direction[0]).mean(-1)
    crossed = torch.einsum("cbd,ed->cbe", last, direction)
    alone = torch.einsum("cbd,bd->cb", last, w_u[:, right].T)
    unscaled = torch.einsum("cbd,bd->cb", writes[:, :, -1], direction)
    return [
        (one, "the first prompt's direction is used for all: every prompt has its own"),
        (crossed.mean((-1, -2)), "prompts are mixed: prompt i needs direction i only (not every pair)"),
        (alone.mean(-1), "this is the logit of `right` alone: subtract the direction of `wrong`"),
        (
            torch.einsum("cbd,bd->cb", writes[:, :, -1] / scale[0, -1], direction).mean(-1),
            "the scale of the first prompt is used for all: scale[:, -1] has one for each",
        ),
        (
            torch.einsum("cbd,bd->cb", writes[:, :, -1] / scale[:, -1].mean(), direction).mean(-1),
            "the prompts' scales are averaged: scale[:, -1] has one for each",
        ),
        (unscaled.mean(-1), "the writes are not divided by the final LayerNorm's scale"),
        (torch.tensor(values.sum(1)), "these are sums over prompts: take the mean"),
        (torch.tensor(values.mean(0)), "averaged over components: average over prompts, the batch axis"),
        (torch.tensor(values), "one number for each component: average over the batch axis"),
        (-torch.tensor(values.mean(1)), "the sign is turned round: right minus wrong"),
    ]


def _error_slips(values, n: int) -> list[tuple[Tensor, str]]:
    return [
        (
            torch.tensor(values.std(1, ddof=1)),
            "this is the standard deviation: divide by the square root of n",
        ),
        (
            torch.tensor(values.std(1, ddof=0)),
            "this is the standard deviation: divide by the square root of n",
        ),
        (torch.tensor(values.std(1, ddof=0) / n**0.5), "the standard deviation of a sample divides by n - 1"),
        (torch.tensor(values.std(1, ddof=1) / len(values) ** 0.5), "n is the number of prompts, not of components"),
        (torch.tensor(values.std(1, ddof=1) / n), "divide by the square root of n, not by n"),
        (torch.tensor(values.var(1, ddof=1) / n), "this is the squared standard error: take the root"),
        (torch.tensor(values.var(1, ddof=1)), "this is the variance: take the root, divide by the root of n"),
        (torch.tensor(values.std(0, ddof=1)), "taken over components: take it over prompts, the batch axis"),
    ]
