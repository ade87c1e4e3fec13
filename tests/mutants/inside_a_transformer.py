"""Right and wrong answers to the exercises of chapter 00."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from tests.mutants import right, wrong
from utils.datasets import world

# ---------------------------------------------------------------------- 0.1 logits_from_writes


@wrong("0.1", says="the final LayerNorm is missing")
def forgets_layer_norm(model, writes):
    return model.unembed(sum(writes.values()))


@wrong("0.1", says="model.unembed turns it into logits")
def forgets_unembedding(model, writes):
    return model.ln_final(sum(writes.values()))


@wrong("0.1", says="this is the stream itself")
def returns_stream(model, writes):
    return sum(writes.values())


@wrong("0.1", says="add first, then normalise")
def normalises_every_write(model, writes):
    return sum(model.unembed(model.ln_final(write)) for write in writes.values())


@wrong("0.1", says="`hook_pos_embed` is left out")
def forgets_positions(model, writes):
    return model.unembed(model.ln_final(sum(v for k, v in writes.items() if "pos" not in k)))


@wrong("0.1", says="only the last write")
def keeps_the_last(model, writes):
    for write in writes.values():
        stream = write
    return model.unembed(model.ln_final(stream))


@wrong("0.1", says="whatever the names")
def counts_on_four_layers(model, writes):
    stream = writes["hook_embed"] + writes["hook_pos_embed"]
    for layer in range(4):
        stream = stream + writes[f"blocks.{layer}.hook_attn_out"] + writes[f"blocks.{layer}.hook_mlp_out"]
    return model.unembed(model.ln_final(stream))


@wrong("0.1", says="`writes` was changed in place")
def adds_into_the_first(model, writes):
    stream = writes["hook_embed"]
    for name, write in writes.items():
        if name != "hook_embed":
            stream += write
    return model.unembed(model.ln_final(stream))


@wrong("0.1", says="expected")
def averages(model, writes):
    # LayerNorm undoes the division, but for its epsilon; so scale after it
    return model.unembed(model.ln_final(sum(writes.values()))) / len(writes)


@wrong("0.1", says="a matrix and a bias")
def forgets_the_bias(model, writes):
    return model.ln_final(sum(writes.values())) @ model.W_U


@wrong("0.1", says="these are probabilities")
def ends_in_softmax(model, writes):
    return model.unembed(model.ln_final(sum(writes.values()))).softmax(-1)


@right("0.1")
def stacks_and_sums(model, writes):
    return model.unembed(model.ln_final(torch.stack(list(writes.values())).sum(0)))


@right("0.1")
def by_formula_in_float64(model, writes):
    stream = sum(write.double() for write in writes.values())
    stream = stream - stream.mean(-1, keepdim=True)
    scale = (stream.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return stream / scale @ model.W_U.double() + model.b_U.double()


# -------------------------------------------------------------------------- 0.2 cache_by_hooks


@wrong("0.2", says="a call of model.run_with_cache")
def uses_run_with_cache(model, tokens, names):
    _, cache = model.run_with_cache(tokens)
    return {name: cache[name] for name in names}


@wrong("0.2", says="one place can have two names")
def stores_under_hook_name(model, tokens, names):
    cache = {}

    def save(value, hook):
        cache[hook.name] = value

    model.run_with_hooks(tokens, fwd_hooks=[(name, save) for name in names])
    return cache


@wrong("0.2", says="all hooks store under one name")
def closes_over_the_loop(model, tokens, names):
    cache, hooks = {}, []
    for name in names:

        def save(value, hook):
            cache[name] = value  # noqa: B023

        hooks.append((name, save))
    model.run_with_hooks(tokens, fwd_hooks=hooks)
    return cache


@wrong("0.2", says="the hook never ran")
def forgets_to_run(model, tokens, names):
    return {}


@wrong("0.2", says="a dictionary from hook name")
def returns_a_list(model, tokens, names):
    kept = []
    model.run_with_hooks(tokens, fwd_hooks=[(name, lambda value, hook: kept.append(value)) for name in names])
    return kept


@wrong("0.2", says="with hooks left on it")
def leaves_hooks_behind(model, tokens, names):
    cache = {}
    for name in names:
        model.add_hook(name, lambda value, hook, name=name: cache.update({name: value}))
    model(tokens)
    return cache


@wrong("0.2", says="only the names that were asked for")
def stores_more_than_asked(model, tokens, names):
    cache = {}
    more = [*names, "hook_pos_embed"]
    model.run_with_hooks(tokens, fwd_hooks=[(n, lambda value, hook, n=n: cache.update({n: value})) for n in more])
    return cache


@wrong("0.2", says="'hook_embed'")
def keeps_the_last_position(model, tokens, names):
    cache = {}
    for name in names:
        keep = lambda value, hook, name=name: cache.update({name: value[:, -1]})  # noqa: E731
        model.run_with_hooks(tokens, fwd_hooks=[(name, keep)])
    return cache


@wrong("0.2", says="expected")
def silences_while_looking(model, tokens, names):
    cache = {}

    def save(value, hook, name):
        cache[name] = value.clone()
        return torch.zeros_like(value)

    model.run_with_hooks(tokens, fwd_hooks=[(name, partial(save, name=name)) for name in names])
    return cache


@wrong("0.2", says="take both")
def takes_the_value_alone(model, tokens, names):
    cache = {}
    for name in names:
        model.run_with_hooks(tokens, fwd_hooks=[(name, lambda value, name=name: cache.update({name: value}))])
    return cache


@right("0.2")
def with_default_argument(model, tokens, names):
    cache = {}
    hooks = [(name, lambda value, hook, name=name: cache.update({name: value.clone()})) for name in names]
    model.run_with_hooks(tokens, fwd_hooks=hooks)
    return cache


@right("0.2")
def with_add_hook_and_reset(model, tokens, names):
    cache = {}
    for name in names:
        model.add_hook(name, lambda value, hook, name=name: cache.update({name: value.detach().double()}))
    model(tokens)
    model.reset_hooks()
    return cache


@right("0.2")
def one_run_for_each_name(model, tokens, names):
    cache = {}
    for name in names:

        def save(value, hook):
            cache[name] = value  # noqa: B023

        model.run_with_hooks(tokens, fwd_hooks=[(name, save)])
    return cache


# ----------------------------------------------------------------------- 0.3 attention_pattern


def _scores(q, k):
    return torch.einsum("bqhd,bkhd->bhqk", q, k)


def _later(scores):
    return torch.triu(torch.ones_like(scores, dtype=torch.bool), diagonal=1)


@wrong("0.3", says="not divided by sqrt(d_head)")
def forgets_scale(q, k):
    scores = _scores(q, k)
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="it is the square root of d_head")
def divides_by_d_head(q, k):
    scores = _scores(q, k) / q.shape[-1]
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="not d_model")
def scales_by_d_model(q, k):
    scores = _scores(q, k) / (q.shape[-1] * q.shape[-2]) ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="the causal mask is missing")
def forgets_mask(q, k):
    return (_scores(q, k) / q.shape[-1] ** 0.5).softmax(-1)


@wrong("0.3", says="still gets weight exp(0)")
def masks_with_zero(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), 0).softmax(-1)


@wrong("0.3", says="not the mask after softmax")
def masks_after_softmax(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.softmax(-1).masked_fill(_later(scores), 0)


@wrong("0.3", says="softmax runs over the keys")
def softmax_over_queries(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-2)


@wrong("0.3", says="bring the heads forward")
def lets_heads_look_at_heads(q, k):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="the mask is upside down")
def masks_the_past_and_itself(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(~_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="the mask is upside down")
def masks_the_past(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores).transpose(-1, -2), -1e9).softmax(-1)


@wrong("0.3", says="may look at its own position")
def masks_its_own_position(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    own = torch.triu(torch.ones_like(scores, dtype=torch.bool), diagonal=0)
    return scores.masked_fill(own, -torch.inf).softmax(-1)


@wrong("0.3", says="queries and keys are exchanged")
def exchanges_queries_and_keys(q, k):
    scores = _scores(k, q) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="the axes are there, in another order")
def keeps_heads_last(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1).permute(0, 2, 1, 3)


@wrong("0.3", says="expected")
def returns_scores(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf)


@wrong("0.3", says="fits `world` alone")
def counts_on_d_head_32(q, k):
    scores = _scores(q, k) / 32**0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="the number of heads")
def scales_by_number_of_heads(q, k):
    scores = _scores(q, k) / q.shape[2] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="one key too many")
def sees_the_next_word(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    mask = torch.triu(torch.ones_like(scores, dtype=torch.bool), diagonal=2)
    return scores.masked_fill(mask, -torch.inf).softmax(-1)


@wrong("0.3", says="may look at its own position")
def hides_the_nan(q, k):
    return masks_its_own_position(q, k).nan_to_num(0.0)


@wrong("0.3", says="do not move axes")
def reshapes_heads_forward(q, k):
    batch, n_pos, n_heads, d_head = q.shape
    q, k = (x.reshape(batch, n_heads, n_pos, d_head) for x in (q, k))
    scores = q @ k.transpose(-1, -2) / d_head**0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1)


@wrong("0.3", says="leave all four axes")
def squeezes(q, k):
    scores = _scores(q, k) / q.shape[-1] ** 0.5
    return scores.masked_fill(_later(scores), -torch.inf).softmax(-1).squeeze()


@right("0.3")
def by_loops(q, k):
    batch, n_pos, n_heads, d_head = q.shape
    pattern = torch.zeros(batch, n_heads, n_pos, n_pos, device=q.device)
    for b in range(batch):
        for h in range(n_heads):
            for i in range(n_pos):
                weights = torch.stack([q[b, i, h] @ k[b, j, h] / d_head**0.5 for j in range(i + 1)])
                pattern[b, h, i, : i + 1] = weights.softmax(0)
    return pattern


@right("0.3")
def with_torch_attention(q, k):
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    eye = torch.eye(q.shape[-2], device=q.device).expand(*q.shape[:2], -1, -1)
    return F.scaled_dot_product_attention(q, k, eye, is_causal=True)


@right("0.3")
def with_large_negative_number(q, k, masked=-1e9):
    q, k = (x.permute(0, 2, 1, 3).double() for x in (q, k))
    scores = q @ k.mT / np.sqrt(q.shape[-1])
    return torch.softmax(torch.where(_later(scores), masked, scores), dim=3).float()


# -------------------------------------------------------------------------- 0.4 gradient_norms


def _gradient(model, tokens, number):
    kept = []

    def give_leaf(value, hook):
        kept.append(value.detach().clone().requires_grad_(True))
        return kept[0]

    number(model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", give_leaf)])).backward()
    return kept[0].grad[0]


@wrong("0.4", says="take the norm")
def sums_the_gradient(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, position, token]).sum(-1)


@wrong("0.4", says="squared norms")
def squares(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, position, token]).pow(2).sum(-1)


@wrong("0.4", says="at every position after the one that is read")
def reads_the_last_position(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, -1, token]).norm(dim=-1)


@wrong("0.4", says="a gradient at the position itself")
def reads_one_too_early(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, position - 1, token]).norm(dim=-1)


@wrong("0.4", says="of the logit of `token` alone")
def adds_all_tokens(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, position].sum()).norm(dim=-1)


@wrong("0.4", says="the gradient of the probability")
def differentiates_probability(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, position].softmax(-1)[token]).norm(dim=-1)


@wrong("0.4", says="one axis is too many")
def returns_the_gradient(model, tokens, position, token):
    return _gradient(model, tokens, lambda logits: logits[0, position, token])


@wrong("0.4", says=".grad is None before")
def forgets_backward(model, tokens, position, token):
    leaf = torch.zeros(1, tokens.shape[1], model.cfg.d_model, requires_grad=True)
    return leaf.grad.norm(dim=-1)


@wrong("0.4", says="must *return* it")
def forgets_the_leaf(model, tokens, position, token):
    kept = []
    logits = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", lambda value, hook: kept.append(value))])
    logits[0, position, token].backward()
    return kept[0].grad.norm(dim=-1)


@right("0.4")
def with_autograd_grad(model, tokens, position, token):
    leaf = model.W_E[tokens].clone().requires_grad_(True)
    logits = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", lambda value, hook: leaf)])
    (gradient,) = torch.autograd.grad(logits[0, position, token], leaf)
    return torch.linalg.vector_norm(gradient, dim=-1)[0]


@right("0.4")
def with_requires_grad_in_place(model, tokens, position, token):
    kept = {}

    def watch(value, hook):
        value = value.detach().requires_grad_()
        kept["embed"] = value
        return value

    with torch.enable_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", watch)])
        logits[0, position, token].backward()
    return kept["embed"].grad.squeeze(0).pow(2).sum(-1).sqrt()


# ------------------------------------------------------------------------------- 0.5 qk_and_ov


@wrong("0.5", says="the query side comes first")
def transposes_qk(w_q, w_k, w_v, w_o):
    return w_k @ w_q.T, w_v @ w_o


@wrong("0.5", says="belongs to the scores")
def scales_qk(w_q, w_k, w_v, w_o):
    return w_q @ w_k.T / w_q.shape[-1] ** 0.5, w_v @ w_o


@wrong("0.5", says="so that d_head is summed over")
def multiplies_inside(w_q, w_k, w_v, w_o):
    return w_q.T @ w_k, w_v @ w_o


@wrong("0.5", says="w_v comes first, then w_o")
def turns_ov_round(w_q, w_k, w_v, w_o):
    return w_q @ w_k.T, w_o @ w_v


@wrong("0.5", says="this is transposed")
def transposes_ov(w_q, w_k, w_v, w_o):
    return w_q @ w_k.T, (w_v @ w_o).T


@wrong("0.5", says="QK comes first, then OV")
def exchanges_the_two(w_q, w_k, w_v, w_o):
    return w_v @ w_o, w_q @ w_k.T


@wrong("0.5", says="two matrices (QK, OV)")
def returns_one(w_q, w_k, w_v, w_o):
    return w_q @ w_k.T


@wrong("0.5", says="the key side has to be transposed")
def multiplies_as_given(w_q, w_k, w_v, w_o):
    return w_q @ w_k, w_v @ w_o


@right("0.5")
def with_einsum(w_q, w_k, w_v, w_o):
    return [torch.einsum("ih,jh->ij", w_q, w_k), torch.einsum("ih,hj->ij", w_v, w_o)]


@right("0.5")
def with_numpy(w_q, w_k, w_v, w_o):
    q, k, v, o = (w.double().cpu().numpy() for w in (w_q, w_k, w_v, w_o))
    return q.dot(k.T), v.dot(o)


# -------------------------------------------------------------- 0.6 attribute_logit_difference


@wrong("0.6", says="not divided by the final LayerNorm's scale")
def forgets_final_scale(writes, scale, w_u, right, wrong):
    return writes[:, -1] @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="subtract the direction of `wrong`")
def takes_right_alone(writes, scale, w_u, right, wrong):
    return writes[:, -1] / scale[-1] @ w_u[:, right]


@wrong("0.6", says="right minus wrong")
def turns_the_sign(writes, scale, w_u, right, wrong):
    return writes[:, -1] / scale[-1] @ (w_u[:, wrong] - w_u[:, right])


@wrong("0.6", says="this is the first position")
def looks_at_the_first_position(writes, scale, w_u, right, wrong):
    return writes[:, 0] / scale[0] @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="take scale[-1]")
def takes_the_wrong_scale(writes, scale, w_u, right, wrong):
    return writes[:, -1] / scale[0] @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="its own standard deviation")
def gives_each_its_own_deviation(writes, scale, w_u, right, wrong):
    return writes[:, -1] / writes[:, -1].std(-1, keepdim=True) @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="all share the scale")
def gives_each_its_own_scale(writes, scale, w_u, right, wrong):
    own = writes[:, -1].pow(2).mean(-1, keepdim=True).sqrt()
    return writes[:, -1] / own @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="all positions are added up")
def adds_positions(writes, scale, w_u, right, wrong):
    return (writes / scale @ (w_u[:, right] - w_u[:, wrong])).sum(1)


@wrong("0.6", says="take the last position")
def keeps_positions(writes, scale, w_u, right, wrong):
    return writes / scale @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="one number for each component")
def adds_components(writes, scale, w_u, right, wrong):
    return (writes[:, -1] / scale[-1] @ (w_u[:, right] - w_u[:, wrong])).sum()


@wrong("0.6", says="a token's direction is a column")
def takes_rows_of_w_u(writes, scale, w_u, right, wrong):
    return writes[:, -1] / scale[-1] @ (w_u[right] - w_u[wrong])


@wrong("0.6", says="expected")
def subtracts_after_softmax(writes, scale, w_u, right, wrong):
    probabilities = (writes[:, -1] / scale[-1] @ w_u).softmax(-1)
    return probabilities[:, right] - probabilities[:, wrong]


@wrong("0.6", says="position 5 is the last one of one prompt only")
def counts_on_six_words(writes, scale, w_u, right, wrong):
    return writes[:, 5] / scale[5] @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="the scales of the positions are averaged")
def averages_scales(writes, scale, w_u, right, wrong):
    return writes[:, -1] / scale.mean() @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="the scale is given")
def computes_a_scale(writes, scale, w_u, right, wrong):
    return writes[:, -1] / writes[:, -1].sum(0).std() @ (w_u[:, right] - w_u[:, wrong])


@wrong("0.6", says="fractions of the whole")
def returns_fractions(writes, scale, w_u, right, wrong):
    shares = writes[:, -1] / scale[-1] @ (w_u[:, right] - w_u[:, wrong])
    return shares / shares.sum()


@wrong("0.6", says="subtract the two columns")
def subtracts_numbers(writes, scale, w_u, right, wrong):
    return writes[:, -1] / scale[-1] @ w_u[:, right - wrong]


@wrong("0.6", says="this is Paris against Rome")
def always_paris_against_rome(writes, scale, w_u, right, wrong):
    paris, rome = (world.VOCABULARY.index(word) for word in ("Paris", "Rome"))
    return writes[:, -1] / scale[-1] @ (w_u[:, paris] - w_u[:, rome])


@wrong("0.6", says="`writes` was changed in place")
def divides_in_place(writes, scale, w_u, right, wrong):
    writes /= scale
    return writes[:, -1] @ (w_u[:, right] - w_u[:, wrong])


@right("0.6")
def by_logits_of_each(writes, scale, w_u, right, wrong):
    logits = (writes[:, -1, :] / scale[-1, 0]).double() @ w_u.double()
    return logits[:, right] - logits[:, wrong]


@right("0.6")
def by_loop(writes, scale, w_u, right, wrong):
    direction = w_u[:, right] - w_u[:, wrong]
    return torch.tensor([float(write[-1].dot(direction)) / float(scale[-1]) for write in writes])


# ---------------------------------------------------------------------------- 0.7 patch_stream


def _patched(model, tokens, name, change):
    return model.run_with_hooks(tokens, fwd_hooks=[(name, change)])


@wrong("0.7", says="nothing was patched")
def forgets_to_return(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="the whole stream was replaced")
def patches_everything(model, tokens, source, layer, position):
    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", lambda value, hook: source)


@wrong("0.7", says="one layer too late")
def patches_after_the_layer(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_post", patch)


@wrong("0.7", says="one position too early")
def counts_without_bos(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position - 1] = source[:, position - 1]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="all positions from this one on")
def patches_the_rest_too(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position:] = source[:, position:]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="return those of all positions")
def returns_last_position(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)[:, -1]


@wrong("0.7", says="these are probabilities")
def returns_probabilities(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch).softmax(-1)


@wrong("0.7", says="at every later layer too")
def patches_every_later_layer(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    names = [f"blocks.{i}.hook_resid_pre" for i in range(layer, model.cfg.n_layers)]
    return model.run_with_hooks(tokens, fwd_hooks=[(name, patch) for name in names])


@wrong("0.7", says="row 0 of `source` is used for all")
def spreads_the_first_row(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[0, position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="axis 1 of [batch pos d_model]")
def patches_a_dimension(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[..., position] = source[..., position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="hook_embed comes before the position embedding")
def patches_the_embedding_at_layer_0(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    return _patched(model, tokens, f"blocks.{layer - 1}.hook_resid_post" if layer else "hook_embed", patch)


@wrong("0.7", says="`source` was added")
def adds_the_source(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] += source[:, position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="this is the last position")
def patches_the_last_position(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, -1] = source[:, -1]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="only row 0 is patched")
def patches_the_first_row_only(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[0, position] = source[0, position]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="`source` was changed in place")
def writes_into_the_source(model, tokens, source, layer, position):
    def patch(value, hook):
        source[:, :position] = value[:, :position]
        source[:, position + 1 :] = value[:, position + 1 :]
        return source

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@wrong("0.7", says="with hooks left on it")
def leaves_the_hook(model, tokens, source, layer, position):
    def patch(value, hook):
        value = value.clone()
        value[:, position] = source[:, position]
        return value

    model.add_hook(f"blocks.{layer}.hook_resid_pre", patch)
    return model(tokens)


@right("0.7")
def with_where(model, tokens, source, layer, position):
    def patch(value, hook):
        chosen = torch.arange(value.shape[1], device=value.device) == position
        return torch.where(chosen[None, :, None], source, value)

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", patch)


@right("0.7")
def in_place_as_the_library_does(model, tokens, source, layer, position):
    def patch(value, hook, where):
        value[:, where, :] = source[:, where, :]
        return value

    return _patched(model, tokens, f"blocks.{layer}.hook_resid_pre", partial(patch, where=position))


@right("0.7")
def with_context_manager(model, tokens, source, layer, position):
    def patch(value, hook):
        return torch.cat([value[:, :position], source[:, position : position + 1], value[:, position + 1 :]], dim=1)

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_in", patch)]):
        return model(tokens)


# ------------------------------------------------------------------------ 0.8 mean_attribution


def _values(writes, scale, w_u, right, wrong):
    directions = (w_u[:, right] - w_u[:, wrong]).T
    return torch.einsum("cbd,bd->cb", writes[:, :, -1] / scale[:, -1], directions)


def _mean_and_error(values):
    return values.mean(-1), values.std(-1) / values.shape[-1] ** 0.5


@wrong("0.8", says="this is the standard deviation")
def returns_deviation(*args):
    values = _values(*args)
    return values.mean(-1), values.std(-1)


@wrong("0.8", says="divides by n - 1")
def takes_biased_deviation(*args):
    values = _values(*args)
    return values.mean(-1), values.std(-1, unbiased=False) / values.shape[-1] ** 0.5


@wrong("0.8", says="not by n")
def divides_by_n(*args):
    values = _values(*args)
    return values.mean(-1), values.std(-1) / values.shape[-1]


@wrong("0.8", says="squared standard error")
def returns_variance_of_the_mean(*args):
    values = _values(*args)
    return values.mean(-1), values.var(-1) / values.shape[-1]


@wrong("0.8", says="prompts are mixed")
def mixes_prompts(writes, scale, w_u, right, wrong):
    last = writes[:, :, -1] / scale[:, -1]
    values = (last @ (w_u[:, right] - w_u[:, wrong])).flatten(1)
    return _mean_and_error(values)


@wrong("0.8", says="every prompt has its own")
def takes_the_first_direction(writes, scale, w_u, right, wrong):
    return _mean_and_error(writes[:, :, -1] / scale[:, -1] @ (w_u[:, right[0]] - w_u[:, wrong[0]]))


@wrong("0.8", says="average over prompts")
def averages_components(*args):
    values = _values(*args)
    return values.mean(0), values.std(0) / values.shape[0] ** 0.5


@wrong("0.8", says="not divided by the final LayerNorm's scale")
def forgets_scale_again(writes, scale, w_u, right, wrong):
    return _mean_and_error(_values(writes, torch.ones_like(scale), w_u, right, wrong))


@wrong("0.8", says="the scale of the first prompt")
def takes_the_first_scale(writes, scale, w_u, right, wrong):
    return _mean_and_error(_values(writes, scale[:1].expand_as(scale), w_u, right, wrong))


@wrong("0.8", says="scales are averaged")
def averages_the_scales(writes, scale, w_u, right, wrong):
    return _mean_and_error(_values(writes, scale.mean(0, keepdim=True).expand_as(scale), w_u, right, wrong))


@wrong("0.8", says="not of components")
def counts_components(*args):
    values = _values(*args)
    return values.mean(-1), values.std(-1) / values.shape[0] ** 0.5


@wrong("0.8", says="transpose them")
def forgets_to_transpose(writes, scale, w_u, right, wrong):
    directions = w_u[:, right] - w_u[:, wrong]
    return _mean_and_error((writes[:, :, -1] / scale[:, -1] * directions).sum(-1))


@wrong("0.8", says="a token's direction is a column")
def takes_rows_again(writes, scale, w_u, right, wrong):
    return _mean_and_error(torch.einsum("cbd,bd->cb", writes[:, :, -1] / scale[:, -1], w_u[right] - w_u[wrong]))


@wrong("0.8", says="two tensors (mean, standard error)")
def returns_the_mean(*args):
    return _values(*args).mean(-1)


@wrong("0.8", says="sums over prompts")
def returns_sums(*args):
    values = _values(*args)
    return values.sum(-1), values.std(-1) / values.shape[-1] ** 0.5


@right("0.8")
def prompt_by_prompt(writes, scale, w_u, right, wrong):
    values = torch.stack(
        [
            writes[:, i, -1].double() @ (w_u[:, r] - w_u[:, w]).double() / scale[i, -1].double()
            for i, (r, w) in enumerate(zip(right.tolist(), wrong.tolist(), strict=True))
        ],
        dim=1,
    )
    n = values.shape[1]
    mean = values.sum(1) / n
    return mean, ((values - mean[:, None]).pow(2).sum(1) / (n - 1) / n).sqrt()


@right("0.8")
def through_all_logits(writes, scale, w_u, right, wrong):
    logits = writes[:, :, -1] / scale[:, -1] @ w_u
    rows = torch.arange(len(right), device=logits.device)
    values = (logits[:, rows, right] - logits[:, rows, wrong]).cpu().numpy()
    return [values.mean(1), values.std(1, ddof=1) / np.sqrt(len(right))]
