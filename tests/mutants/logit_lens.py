"""Right and wrong answers to the exercises of chapter 03."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformer_lens.tools.analysis import direct_logit_attribution

from tests.mutants import right, wrong

LOG_2 = math.log(2)

# ------------------------------------------------------------------------------ 3.1 read_out


def _read(model, x, centre=True, scale=None, matrix=None, bias=True):
    centred = x - x.mean(-1, keepdim=True) if centre else x
    scale = scale or (lambda c: (c.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt())
    logits = centred / scale(centred) @ (model.W_U if matrix is None else matrix)
    return (logits + model.b_U if bias else logits).log_softmax(-1)


@wrong("3.1", says="subtract the mean first")
def reads_without_centring(model, resid):
    return _read(model, resid, centre=False)


@wrong("3.1", says="not by d_model - 1")
def reads_with_unbiased_variance(model, resid):
    return _read(model, resid, scale=lambda c: (c.var(-1, keepdim=True) + model.cfg.eps).sqrt())


@wrong("3.1", says="eps is missing")
def reads_without_eps(model, resid):
    return _read(model, resid, scale=lambda c: c.var(-1, keepdim=True, unbiased=False).sqrt())


@wrong("3.1", says="not always 1e-05")
def has_an_eps_of_its_own(model, resid):
    return model.unembed(F.layer_norm(resid, resid.shape[-1:])).log_softmax(-1)


@wrong("3.1", says="not to the deviation")
def adds_eps_to_the_deviation(model, resid):
    return _read(model, resid, scale=lambda c: c.var(-1, keepdim=True, unbiased=False).sqrt() + model.cfg.eps)


@wrong("3.1", says="the norm over sqrt(d_model)")
def divides_by_the_length(model, resid):
    return _read(model, resid, scale=lambda c: c.norm(dim=-1, keepdim=True))


@wrong("3.1", says="take its square root")
def divides_by_the_variance(model, resid):
    return _read(model, resid, scale=lambda c: c.var(-1, keepdim=True, unbiased=False) + model.cfg.eps)


@wrong("3.1", says="the final norm is missing")
def unembeds_the_bare_stream(model, resid):
    return model.unembed(resid).log_softmax(-1)


@wrong("3.1", says="the bias of the unembedding is missing")
def forgets_b_u(model, resid):
    return _read(model, resid, bias=False)


@wrong("3.1", says="these are logits")
def returns_logits(model, resid):
    return model.unembed(model.ln_final(resid))


@wrong("3.1", says="these are probabilities")
def returns_probabilities(model, resid):
    return _read(model, resid).exp()


@wrong("3.1", says="the vocabulary, the last axis")
def normalises_over_the_first_axis(model, resid):
    return model.unembed(model.ln_final(resid)).log_softmax(0)


@wrong("3.1", says="the unembedding is model.W_U")
def reads_with_the_embedding(model, resid):
    return _read(model, resid, matrix=model.W_E.T)


@wrong("3.1", says="only the last position was read")
def reads_the_last_position(model, resid):
    return _read(model, resid)[..., -1, :]


@wrong("3.1", says="without a transpose")
def transposes_w_u(model, resid):
    return _read(model, resid, matrix=model.W_U.T)


@wrong("3.1", says="every vector has a variance of its own")
def has_one_variance_for_all(model, resid):
    return _read(model, resid, scale=lambda c: (c.pow(2).mean() + model.cfg.eps).sqrt())


@wrong("3.1", says="to base 2")
def reads_in_bits(model, resid):
    return _read(model, resid) / LOG_2


@wrong("3.1", says="`resid` was changed in place")
def centres_the_stream_in_place(model, resid):
    resid -= resid.mean(-1, keepdim=True)
    return _read(model, resid)


@right("3.1")
def reads_with_the_modules(model, resid):
    return F.log_softmax(model.unembed(model.ln_final(resid)), dim=-1)


@right("3.1")
def reads_in_float64(model, resid):
    x = F.layer_norm(resid.double(), resid.shape[-1:], eps=model.cfg.eps)
    logits = torch.einsum("...d,dv->...v", x, model.W_U.double()) + model.b_U.double()
    return logits - logits.logsumexp(-1, keepdim=True)


@right("3.1")
def reads_vector_by_vector(model, resid):
    rows = []
    for x in resid.reshape(-1, resid.shape[-1]):
        x = x - x.mean()
        rows.append(torch.log(((x / torch.sqrt((x @ x) / len(x) + model.cfg.eps)) @ model.W_U + model.b_U).softmax(0)))
    return torch.stack(rows).reshape(*resid.shape[:-1], -1)


@right("3.1")
def leans_on_the_centred_unembedding(model, resid):
    """The columns of a processed W_U have mean zero: what the mean adds is nothing."""
    return _read(
        model, resid, centre=False, scale=lambda x: (x.var(-1, keepdim=True, unbiased=False) + model.cfg.eps).sqrt()
    )


# ------------------------------------------------------------------------- 3.2 against_final


def _kl(log_probs, final=None):
    final = log_probs[-1] if final is None else final
    return (final.exp() * (final - log_probs)).sum(-1) / LOG_2


def _ranks(log_probs, top=None):
    top = (log_probs[-1].argmax(-1) if top is None else top).expand(log_probs.shape[:-1])[..., None]
    return (log_probs > log_probs.gather(-1, top)).sum(-1)


@wrong("3.2", says="the other way round, KL(lens || final)")
def reverses_the_divergence(log_probs):
    return (log_probs.exp() * (log_probs - log_probs[-1])).sum(-1) / LOG_2, _ranks(log_probs)


@wrong("3.2", says="these are nats")
def diverges_in_nats(log_probs):
    return _kl(log_probs) * LOG_2, _ranks(log_probs)


@wrong("3.2", says="averaged over states or places")
def averages_over_places(log_probs):
    kl = _kl(log_probs)
    return kl.mean(tuple(range(1, kl.dim()))) if kl.dim() > 1 else kl, _ranks(log_probs)


@wrong("3.2", says="these are the terms")
def forgets_the_sum(log_probs):
    return log_probs[-1].exp() * (log_probs[-1] - log_probs) / LOG_2, _ranks(log_probs)


@wrong("3.2", says="the sign")
def diverges_below_zero(log_probs):
    return -_kl(log_probs), _ranks(log_probs)


@wrong("3.2", says="this is the cross-entropy")
def forgets_the_entropy(log_probs):
    return -(log_probs[-1].exp() * log_probs).sum(-1) / LOG_2, _ranks(log_probs)


@wrong("3.2", says="caps the divergence")
def clamps_the_probabilities(log_probs):
    p = log_probs.exp().clamp(min=1e-10)
    return (p[-1] * (p[-1] / p).log2()).sum(-1), _ranks(log_probs)


@wrong("3.2", says="exp(-200) is 0")
def divides_probabilities(log_probs):
    p = log_probs.exp()
    return (p[-1] * (p[-1] / p).log2()).sum(-1), _ranks(log_probs)


@wrong("3.2", says="numbers that differ come out equal")
def ranks_probabilities(log_probs):
    return _kl(log_probs), _ranks(log_probs.exp(), log_probs[-1].argmax(-1))


@wrong("3.2", says="numbers that differ come out equal")
def ranks_in_half_precision(log_probs):
    return _kl(log_probs), _ranks(log_probs.half(), log_probs[-1].argmax(-1))


@wrong("3.2", says="numbers that differ come out equal")
def ranks_with_a_tolerance(log_probs):
    top = log_probs[-1].argmax(-1).expand(log_probs.shape[:-1])[..., None]
    return _kl(log_probs), (log_probs - log_probs.gather(-1, top) > 1e-3).sum(-1)


@wrong("3.2", says="compared with the next state")
def compares_with_the_next_state(log_probs):
    following = torch.cat([log_probs[1:], log_probs[-1:]])
    return _kl(log_probs, following), _ranks(log_probs)


@wrong("3.2", says="compared with the first state")
def takes_the_first_for_the_final(log_probs):
    return _kl(log_probs, log_probs[0]), _ranks(log_probs)


@wrong("3.2", says="log_probs are logarithms")
def weighs_with_logarithms(log_probs):
    final = log_probs[-1]
    return (final * (final - log_probs)).sum(-1) / LOG_2, _ranks(log_probs)


@wrong("3.2", says="it is that of the *log*-probabilities")
def subtracts_probabilities(log_probs):
    p = log_probs.exp()
    return (p[-1] * (p[-1] - p)).sum(-1) / LOG_2, _ranks(log_probs)


@wrong("3.2", says="Jensen-Shannon")
def makes_it_symmetric(log_probs):
    p = log_probs.exp()
    m = (p + p[-1]) / 2
    both = (p * (p / m).log()).sum(-1) + (p[-1] * (p[-1] / m).log()).sum(-1)
    return both / 2 / LOG_2, _ranks(log_probs)


@wrong("3.2", says="follow the *final's* top token")
def ranks_each_states_own_top(log_probs):
    return _kl(log_probs), _ranks(log_probs, log_probs.argmax(-1))


@wrong("3.2", says="ranks count from 0")
def ranks_from_one(log_probs):
    return _kl(log_probs), _ranks(log_probs) + 1


@wrong("3.2", says="the likeliest token")
def ranks_upwards(log_probs):
    top = log_probs[-1].argmax(-1).expand(log_probs.shape[:-1])[..., None]
    return _kl(log_probs), (log_probs < log_probs.gather(-1, top)).sum(-1)


@wrong("3.2", says="these are token ids")
def looks_the_token_up_in_argsort(log_probs):
    top = log_probs[-1].argmax(-1).expand(log_probs.shape[:-1])[..., None]
    return _kl(log_probs), log_probs.argsort(-1, descending=True).gather(-1, top)[..., 0]


@wrong("3.2", says="ranks each state's top in the final")
def ranks_in_the_final_state(log_probs):
    final, top = log_probs[-1].expand(log_probs.shape), log_probs.argmax(-1)[..., None]
    return _kl(log_probs), (final > final.gather(-1, top)).sum(-1)


@wrong("3.2", says="strictly likelier")
def counts_ties_before_the_top(log_probs):
    top = log_probs[-1].argmax(-1).expand(log_probs.shape[:-1])[..., None]
    return _kl(log_probs), (log_probs >= log_probs.gather(-1, top)).sum(-1) - 1


@wrong("3.2", says="each place has a top token of its own")
def follows_the_token_of_the_first_place(log_probs):
    first = log_probs[-1].reshape(-1, log_probs.shape[-1])[0].argmax()
    return _kl(log_probs), (log_probs > log_probs[..., first, None]).sum(-1)


@wrong("3.2", says="the divergence first")
def exchanges_divergence_and_rank(log_probs):
    return _ranks(log_probs), _kl(log_probs)


@wrong("3.2", says="return both")
def forgets_the_rank(log_probs):
    return _kl(log_probs)


@right("3.2")
def with_kl_div(log_probs):
    final = log_probs[-1].expand_as(log_probs)
    kl = F.kl_div(log_probs, final, log_target=True, reduction="none").sum(-1) / np.log(2)
    place = (log_probs > log_probs.gather(-1, final.argmax(-1, keepdim=True))).float().sum(-1)
    return kl, place


@right("3.2")
def place_by_place_in_float64(log_probs):
    shape, table = log_probs.shape[:-1], log_probs.double()
    table = table.reshape(shape[0], -1, log_probs.shape[-1])
    kl, rank = torch.zeros(table.shape[:2]), torch.zeros(table.shape[:2], dtype=torch.long)
    for state in range(table.shape[0]):
        for place in range(table.shape[1]):
            p, q = table[-1, place].exp(), table[state, place].exp()
            kl[state, place] = sum(float(a) * math.log2(float(a) / float(b)) for a, b in zip(p, q, strict=True))
            rank[state, place] = sum(float(x) > float(q[p.argmax()]) for x in q)
    return kl.reshape(shape), rank.reshape(shape)


@right("3.2")
def as_a_list_from_cross_entropy(log_probs):
    final = log_probs[-1]
    entropy = -(final.exp() * final).sum(-1)
    kl = (-torch.einsum("...v,...v->...", final.exp().expand_as(log_probs), log_probs) - entropy) / LOG_2
    value = log_probs.take_along_dim(final.argmax(-1, keepdim=True)[None], -1)
    return [kl, log_probs.gt(value).sum(-1)]


# --------------------------------------------------------------------------- 3.3 norm_factor


@wrong("3.3", says="the inverse")
def gives_the_inverse(model, resid):
    return 1 / (resid.var(-1, unbiased=False) + model.cfg.eps).sqrt()


@wrong("3.3", says="this is the variance")
def gives_the_variance(model, resid):
    return resid.var(-1, unbiased=False) + model.cfg.eps


@wrong("3.3", says="this is the length of the vector")
def gives_the_length(model, resid):
    return resid.norm(dim=-1)


@wrong("3.3", says="not by d_model - 1")
def gives_the_sample_deviation(model, resid):
    return resid.std(-1)


@wrong("3.3", says="eps is missing")
def gives_the_bare_deviation(model, resid):
    return resid.std(-1, unbiased=False)


@wrong("3.3", says="not always 1e-05")
def gives_the_deviation_with_its_own_eps(model, resid):
    return (resid.var(-1, unbiased=False) + 1e-5).sqrt()


@wrong("3.3", says="here it is a least value")
def takes_eps_for_a_floor(model, resid):
    return resid.var(-1, unbiased=False).clamp(min=model.cfg.eps).sqrt()


@wrong("3.3", says="`ln_final` was replaced")
def takes_the_norm_out(model, resid):
    factor = (resid.var(-1, unbiased=False) + model.cfg.eps).sqrt()
    model.ln_final = nn.Identity()
    return factor


@wrong("3.3", says="not to the deviation")
def adds_eps_outside(model, resid):
    return resid.std(-1, unbiased=False) + model.cfg.eps


@wrong("3.3", says="subtract the mean of each vector first")
def gives_the_root_mean_square(model, resid):
    return (resid.pow(2).mean(-1) + model.cfg.eps).sqrt()


@wrong("3.3", says="every vector has a factor of its own")
def averages_over_the_first_axis(model, resid):
    factor = (resid.var(-1, unbiased=False) + model.cfg.eps).sqrt()
    return factor.mean(0) if factor.dim() else factor


@wrong("3.3", says="no keepdim")
def keeps_an_axis(model, resid):
    return (resid.var(-1, unbiased=False, keepdim=True) + model.cfg.eps).sqrt()


@right("3.3")
def by_hand_in_float64(model, resid):
    x = resid.double()
    return torch.sqrt(((x - x.mean(-1, keepdim=True)) ** 2).mean(-1) + model.cfg.eps)


@right("3.3")
def by_numpy(model, resid):
    return np.sqrt(np.var(resid.cpu().numpy(), axis=-1) + model.cfg.eps)


@right("3.3")
def as_a_ratio_of_logits(model, resid):
    """The definition: what the logits are without the norm, over what they are with it."""
    without, normed = resid.double() @ model.W_U.double(), (model.ln_final(resid) @ model.W_U).double()
    return (without * normed).sum(-1) / (normed * normed).sum(-1)


# ------------------------------------------------------------------------ 3.4 fit_translator


def _loss_kl(model, x, final):
    said = model.unembed(model.ln_final(x)).log_softmax(-1)
    with torch.no_grad():
        target = model.unembed(model.ln_final(final)).log_softmax(-1)
    return (target.exp() * (target - said)).sum(-1).mean()


def _fit(
    model, resid, final, steps, loss=_loss_kl, lr=1e-2, make=torch.optim.Adam, train=(0, 1), batch=None, start=0.0
):
    d = resid.shape[-1]
    weight = (start * torch.eye(d, device=resid.device)).requires_grad_()
    bias = torch.zeros(d, device=resid.device, requires_grad=True)
    optimizer = make([(weight, bias)[i] for i in train], lr=lr)
    for step in range(steps):
        rows = slice(None)
        if batch:
            rows = torch.randperm(len(resid), generator=torch.Generator().manual_seed(step))[:batch]
        x = resid[rows]
        value = loss(model, x + x @ weight + bias, final[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return weight.detach(), bias.detach()


@wrong("3.4", says="the squared error of the states")
def fits_the_states(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, lambda model, x, final: (x - final).pow(2).mean())


@wrong("3.4", says="the squared error of the states")
def regresses(model, resid, final, steps=300):
    if not steps:
        return _fit(model, resid, final, 0)
    rows = torch.cat([resid, torch.ones_like(resid[:, :1])], 1)
    solved = torch.linalg.pinv(rows, rtol=1e-5) @ (final - resid)
    return solved[:-1], solved[-1]


@wrong("3.4", says="this is KL(lens || final)")
def fits_the_reverse_divergence(model, resid, final, steps=300):
    def loss(model, x, final):
        said, target = (model.unembed(model.ln_final(t)).log_softmax(-1) for t in (x, final))
        return (said.exp() * (said - target)).sum(-1).mean()

    return _fit(model, resid, final, steps, loss)


@wrong("3.4", says="this is KL(lens || final)")
def exchanges_the_arguments_of_kl_div(model, resid, final, steps=300):
    def loss(model, x, final):
        said, target = (model.unembed(model.ln_final(t)).log_softmax(-1) for t in (x, final))
        return F.kl_div(target, said, log_target=True, reduction="batchmean")

    return _fit(model, resid, final, steps, loss)


@wrong("3.4", says="the likeliest token alone")
def fits_the_likeliest_token(model, resid, final, steps=300):
    def loss(model, x, final):
        logits = model.unembed(model.ln_final(x))
        return F.cross_entropy(logits, model.unembed(model.ln_final(final)).argmax(-1))

    return _fit(model, resid, final, steps, loss)


@wrong("3.4", says="the final norm is missing in training")
def trains_without_the_norm(model, resid, final, steps=300):
    def loss(model, x, final):
        target = model.unembed(model.ln_final(final)).log_softmax(-1)
        return (target.exp() * (target - model.unembed(x).log_softmax(-1))).sum(-1).mean()

    return _fit(model, resid, final, steps, loss)


@wrong("3.4", says="`final` has to be read through model.ln_final")
def reads_the_target_without_the_norm(model, resid, final, steps=300):
    def loss(model, x, final):
        target = model.unembed(final).log_softmax(-1)
        return (target.exp() * (target - model.unembed(model.ln_final(x)).log_softmax(-1))).sum(-1).mean()

    return _fit(model, resid, final, steps, loss)


@wrong("3.4", says="start at zero")
def returns_identity_plus_weight(model, resid, final, steps=300):
    weight, bias = _fit(model, resid, final, steps)
    return torch.eye(len(bias), device=bias.device) + weight, bias


@wrong("3.4", says="the identity is in twice")
def returns_identity_plus_weight_once_trained(model, resid, final, steps=300):
    weight, bias = _fit(model, resid, final, steps)
    return (torch.eye(len(bias), device=bias.device) if steps else 0) + weight, bias


@wrong("3.4", says="start at zero")
def starts_at_the_identity(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, start=1.0)


@wrong("3.4", says="weight is transposed")
def returns_the_transpose(model, resid, final, steps=300):
    weight, bias = _fit(model, resid, final, steps)
    return weight.T, bias


@wrong("3.4", says="the bias is still zero")
def forgets_to_train_the_bias(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, train=(0,))


@wrong("3.4", says="weight is still zero")
def forgets_to_train_the_weight(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, train=(1,))


@wrong("3.4", says="weight and bias are still zero")
def never_trains(model, resid, final, steps=300):
    return _fit(model, resid, final, 0)


@wrong("3.4", says="not at the minimum yet")
def takes_ten_steps(model, resid, final, steps=300):
    return _fit(model, resid, final, min(steps, 10), lr=3e-3)


@wrong("3.4", says="not at the minimum yet")
def creeps(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, lr=1e-5)


@wrong("3.4", says="run as many steps as `steps` says")
def ignores_the_steps(model, resid, final, steps=300):
    return _fit(model, resid, final, 40)


@wrong("3.4", says="run as many steps as `steps` says")
def takes_all_steps_or_none(model, resid, final, steps=300):
    return _fit(model, resid, final, 300 if steps else 0)


@wrong("3.4", says="run as many steps as `steps` says")
def takes_a_hundred_steps(model, resid, final, steps=300):
    return _fit(model, resid, final, min(steps, 100))


@wrong("3.4", says="stays where it starts: at zero")
def starts_at_random(model, resid, final, steps=300):
    d = resid.shape[-1]
    weight, bias = 0.02 * torch.randn(d, d) if steps else torch.zeros(d, d), torch.zeros(d)
    more = _fit(model, resid + resid @ weight, final, steps)
    return weight + more[0] + weight @ more[0], bias + more[1]


@wrong("3.4", says="the bias of the unembedding is missing in training")
def trains_without_b_u(model, resid, final, steps=300):
    def loss(model, x, final):
        said, target = ((model.ln_final(t) @ model.W_U).log_softmax(-1) for t in (x, final))
        return (target.exp() * (target - said)).sum(-1).mean()

    return _fit(model, resid, final, steps, loss)


@wrong("3.4", says="the model stays frozen")
def leaves_gradients_on_the_model(model, resid, final, steps=300):
    model.requires_grad_(True)
    fitted = _fit(model, resid, final, steps)
    model.requires_grad_(False)
    return fitted


@wrong("3.4", says="in training too, is resid + resid @ weight + bias")
def forgets_the_stream(model, resid, final, steps=300):
    d = resid.shape[-1]
    weight, bias = torch.zeros(d, d, requires_grad=True), torch.zeros(d, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.4 / d)
    for _ in range(steps):
        optimizer.zero_grad()
        _loss_kl(model, resid @ weight + bias, final).backward()
        optimizer.step()
    return weight.detach(), bias.detach()


@wrong("3.4", says="the sign of the loss")
def climbs(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, lambda *args: -_loss_kl(*args))


@wrong("3.4", says="whose weights")
def trains_the_model(model, resid, final, steps=300):
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)

    def make(ours, lr):
        return torch.optim.Adam([*ours, *parameters], lr=lr)

    return _fit(model, resid, final, steps or 1, make=make)


@wrong("3.4", says="the other way round")
def returns_the_bias_first(model, resid, final, steps=300):
    return _fit(model, resid, final, steps)[::-1]


@wrong("3.4", says="nothing to train")
def forgets_requires_grad(model, resid, final, steps=300):
    d = resid.shape[-1]
    weight, bias = torch.zeros(d, d), torch.zeros(d)
    optimizer = torch.optim.Adam([weight, bias], lr=1e-2)
    for _ in range(steps or 1):
        loss = _loss_kl(model, resid + resid @ weight + bias, final)
        loss.backward()
        optimizer.step()
    return weight, bias


@wrong("3.4", says="squared error of log-probabilities")
def fits_log_probabilities_by_squares(model, resid, final, steps=300):
    def loss(model, x, final):
        said, target = (model.unembed(model.ln_final(t)).log_softmax(-1) for t in (x, final))
        return (said - target).pow(2).mean()

    return _fit(model, resid, final, steps, loss)


@right("3.4")
def with_a_small_rate(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, lr=3e-3)


@right("3.4")
def with_adamw_and_a_large_rate(model, resid, final, steps=300):
    return _fit(model, resid, final, steps, lr=3e-2, make=torch.optim.AdamW)


@right("3.4")
def with_kl_div_in_batches(model, resid, final, steps=300):
    def loss(model, x, final):
        said, target = (model.unembed(model.ln_final(t)).log_softmax(-1) for t in (x, final))
        return F.kl_div(said, target.exp(), reduction="batchmean")

    return _fit(model, resid, final, steps, loss, batch=64)


@right("3.4")
def with_soft_targets_and_momentum(model, resid, final, steps=300):
    def loss(model, x, final):
        target = model.unembed(model.ln_final(final)).softmax(-1)
        return F.cross_entropy(model.unembed(model.ln_final(x)), target)

    return _fit(model, resid, final, steps, loss, lr=0.1, make=lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9))


@right("3.4")
def with_a_linear_layer(model, resid, final, steps=300):
    d = resid.shape[-1]
    layer = nn.Linear(d, d).to(resid.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        optimizer.zero_grad()
        _loss_kl(model, resid + layer(resid), final).backward()
        optimizer.step()
        schedule.step()
    return layer.weight.T, layer.bias


@right("3.4")
def with_lbfgs(model, resid, final, steps=300):
    d = resid.shape[-1]
    weight, bias = torch.zeros(d, d, requires_grad=True), torch.zeros(d, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max(steps, 1), line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = _loss_kl(model, resid + resid @ weight + bias, final)
        loss.backward()
        return loss

    if steps:
        optimizer.step(closure)
    return weight, bias


# ----------------------------------------------------------------------------- 3.5 attribute


def _shares(model, cache, right, wrong, where=-1, scale=None, bias=True, heads_bias=0.0, toward=None):
    scale = cache["ln_final.hook_scale"][:, where] if scale is None else scale
    toward = (model.W_U[:, right] - model.W_U[:, wrong]).T if toward is None else toward
    layers = range(model.cfg.n_layers)
    heads = torch.stack(
        [
            torch.einsum("bhd,hdm,bm->hb", cache[f"blocks.{i}.attn.hook_z"][:, where], model.W_O[i], toward / scale)
            + heads_bias * (toward / scale @ model.b_O[i]) / model.cfg.n_heads
            for i in layers
        ]
    )
    mlps = torch.stack([(cache[f"blocks.{i}.hook_mlp_out"][:, where] * toward / scale).sum(-1) for i in layers])
    start = (cache["hook_embed"] + cache["hook_pos_embed"])[:, where] + (1 - heads_bias) * model.b_O.sum(0)
    rest = (start * toward / scale).sum(-1)
    return heads, mlps, rest + (model.b_U[right] - model.b_U[wrong]) * bias


@wrong("3.5", says="scale is missing")
def forgets_the_scale(model, cache, right, wrong):
    return _shares(model, cache, right, wrong, scale=1.0)


@wrong("3.5", says="divided by a scale of its own")
def scales_each_part_by_itself(model, cache, right, wrong):
    _, mlps, rest = _shares(model, cache, right, wrong)
    toward = (model.W_U[:, right] - model.W_U[:, wrong]).T
    own = []
    for i in range(model.cfg.n_layers):
        out = torch.einsum("bhd,hdm->hbm", cache[f"blocks.{i}.attn.hook_z"][:, -1], model.W_O[i])
        own.append((model.ln_final(out) * toward).sum(-1))
    return torch.stack(own), mlps, rest


@wrong("3.5", says="the bias of the unembedding is missing")
def forgets_the_unembedding_bias(model, cache, right, wrong):
    return _shares(model, cache, right, wrong, bias=False)


@wrong("3.5", says="the biases of the attention")
def forgets_the_attention_bias(model, cache, right, wrong):
    heads, mlps, rest = _shares(model, cache, right, wrong)
    toward = (model.W_U[:, right] - model.W_U[:, wrong]).T / cache["ln_final.hook_scale"][:, -1]
    return heads, mlps, rest - toward @ model.b_O.sum(0)


@wrong("3.5", says="b_O belongs to no head")
def shares_the_bias_among_the_heads(model, cache, right, wrong):
    return _shares(model, cache, right, wrong, heads_bias=1.0)


@wrong("3.5", says="averaged over the sentences")
def averages_over_sentences(model, cache, right, wrong):
    return tuple(part.mean(-1) for part in _shares(model, cache, right, wrong))


@wrong("3.5", says="this is the first position")
def attributes_at_the_first_position(model, cache, right, wrong):
    return _shares(model, cache, right, wrong, where=0)


@wrong("3.5", says="all positions are added up")
def adds_up_positions(model, cache, right, wrong):
    n_pos = cache["hook_embed"].shape[1]
    parts = [_shares(model, cache, right, wrong, where=i) for i in range(n_pos)]
    return tuple(sum(part) for part in zip(*parts, strict=True))


@wrong("3.5", says="this is the logit of `right` alone")
def attributes_the_answer_alone(model, cache, right, wrong):
    return _shares(model, cache, right, wrong, toward=model.W_U[:, right].T)


@wrong("3.5", says="the sign is turned round")
def exchanges_right_and_wrong(model, cache, right, wrong):
    return _shares(model, cache, wrong, right)


@wrong("3.5", says="heads are mixed")
def mixes_the_heads(model, cache, right, wrong):
    _, mlps, rest = _shares(model, cache, right, wrong)
    toward = (model.W_U[:, right] - model.W_U[:, wrong]).T / cache["ln_final.hook_scale"][:, -1]
    heads = []
    for i in range(model.cfg.n_layers):
        z = cache[f"blocks.{i}.attn.hook_z"]
        z = z.transpose(-1, -2).reshape(z.shape)[:, -1]
        heads.append(torch.einsum("bhd,hdm,bm->hb", z, model.W_O[i], toward))
    return torch.stack(heads), mlps, rest


@wrong("3.5", says="the first sentence's direction")
def uses_the_first_direction(model, cache, right, wrong):
    return _shares(model, cache, right, wrong, toward=(model.W_U[:, right[:1]] - model.W_U[:, wrong[:1]]).T)


@wrong("3.5", says="subtract heads and MLPs")
def takes_the_whole_for_the_rest(model, cache, right, wrong):
    heads, mlps, rest = _shares(model, cache, right, wrong)
    return heads, mlps, rest + heads.sum((0, 1)) + mlps.sum(0)


@wrong("3.5", says="unflatten the first axis")
def leaves_the_heads_in_one_row(model, cache, right, wrong):
    heads, mlps, rest = _shares(model, cache, right, wrong)
    return heads.flatten(0, 1), mlps, rest


@wrong("3.5", says="the first two axes")
def puts_heads_before_layers(model, cache, right, wrong):
    heads, mlps, rest = _shares(model, cache, right, wrong)
    return heads.transpose(0, 1), mlps, rest


@wrong("3.5", says="this is the stream after each block")
def takes_the_stream_for_the_mlp(model, cache, right, wrong):
    heads, _, rest = _shares(model, cache, right, wrong)
    toward = (model.W_U[:, right] - model.W_U[:, wrong]).T / cache["ln_final.hook_scale"][:, -1]
    posts = [cache[f"blocks.{i}.hook_resid_post"][:, -1] for i in range(model.cfg.n_layers)]
    return heads, torch.stack([(post * toward).sum(-1) for post in posts]), rest


@wrong("3.5", says="a column of W_U")
def takes_rows_of_w_u(model, cache, right, wrong):
    toward = model.W_U[:, right] - model.W_U[:, wrong]
    return _shares(model, cache, right, wrong, toward=toward)


@wrong("3.5", says="its entry 'hook_embed' was changed in place")
def adds_positions_into_the_cache(model, cache, right, wrong):
    start = cache["hook_embed"]
    start += cache["hook_pos_embed"]
    cache.cache_dict["hook_pos_embed"] = torch.zeros_like(start)
    return _shares(model, cache, right, wrong)


@wrong("3.5", says="return all three")
def forgets_the_rest(model, cache, right, wrong):
    return _shares(model, cache, right, wrong)[:2]


@right("3.5")
def by_the_library(model, cache, right, wrong):
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    asked = {"answer_tokens": right, "incorrect_tokens": wrong, "cache": cache}
    heads = direct_logit_attribution(model, unit="head", **asked).attribution[: n_layers * n_heads]
    result = direct_logit_attribution(model, unit="component", **asked)
    mlps = torch.stack([result.attribution[result.labels.index(f"{i}_mlp_out")] for i in range(n_layers)])
    resid = cache[f"blocks.{n_layers - 1}.hook_resid_post"]
    logits = model.unembed(model.ln_final(resid))[:, -1]
    rows = torch.arange(len(right), device=right.device)
    whole = logits[rows, right] - logits[rows, wrong]
    return heads.reshape(n_layers, n_heads, -1), mlps, whole - heads.sum(0) - mlps.sum(0)


@right("3.5")
def sentence_by_sentence_in_float64(model, cache, right, wrong):
    n_layers, n_heads, n = model.cfg.n_layers, model.cfg.n_heads, len(right)
    heads = torch.zeros(n_layers, n_heads, n, dtype=torch.float64)
    mlps, rest = torch.zeros(n_layers, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for b in range(n):
        v = (model.W_U[:, right[b]] - model.W_U[:, wrong[b]]).double() / cache["ln_final.hook_scale"][b, -1].double()
        for i in range(n_layers):
            for h in range(n_heads):
                z = cache[f"blocks.{i}.attn.hook_z"][b, -1, h].double()
                heads[i, h, b] = z @ model.W_O[i, h].double() @ v
            mlps[i, b] = cache[f"blocks.{i}.hook_mlp_out"][b, -1].double() @ v
        rest[b] = cache["blocks.0.hook_resid_pre"][b, -1].double() @ v + model.b_O.double().sum(0) @ v
        rest[b] += model.b_U[right[b]] - model.b_U[wrong[b]]
    return heads, mlps, rest


@right("3.5")
def with_stacked_head_results(model, cache, right, wrong):
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    toward = (model.W_U[:, right] - model.W_U[:, wrong]).T / cache["ln_final.hook_scale"][:, -1]
    results = cache.stack_head_results(layer=-1, pos_slice=-1)
    heads = (results * toward).sum(-1).unflatten(0, (n_layers, n_heads))
    return [heads, *_shares(model, cache, right, wrong)[1:]]


# ------------------------------------------------------------------------- 3.6 patch_effects


def _mean_difference(logits, right, wrong):
    rows = torch.arange(len(logits), device=logits.device)
    return (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()


def _patched(model, base, source, names, where=-1):
    def put(value, hook):
        value = value.clone()
        value[:, where] = source[hook.name][:, where]
        return value

    return model.run_with_hooks(base, fwd_hooks=[(name, put) for name in names])


KINDS = ("hook_attn_out", "hook_mlp_out")


def _effects(model, tokens, corrupted, right, wrong, names=lambda i, k: [f"blocks.{i}.{k}"], where=-1, share=None):
    low, cache = model.run_with_cache(corrupted)
    clean, low = (_mean_difference(logits, right, wrong) for logits in (model(tokens), low))
    share = share or (lambda clean, patched, low: (clean - patched) / (clean - low))
    rows = []
    for i in range(model.cfg.n_layers):
        runs = [_patched(model, tokens, cache, names(i, kind), where) for kind in KINDS]
        rows.append(torch.stack([share(clean, _mean_difference(logits, right, wrong), low) for logits in runs]))
    return torch.stack(rows)


@wrong("3.6", says="the patch runs the other way")
def denoises(model, tokens, corrupted, right, wrong):
    # clean values into the corrupted run
    return _effects(model, corrupted, tokens, right, wrong)


@wrong("3.6", says="patched at every position")
def patches_every_position(model, tokens, corrupted, right, wrong):
    return _effects(model, tokens, corrupted, right, wrong, where=slice(None))


@wrong("3.6", says="this is the stream after the block")
def patches_the_stream(model, tokens, corrupted, right, wrong):
    return _effects(model, tokens, corrupted, right, wrong, names=lambda i, k: [f"blocks.{i}.hook_resid_post"])


@wrong("3.6", says="divide by clean - corrupted")
def forgets_to_divide(model, tokens, corrupted, right, wrong):
    return _effects(model, tokens, corrupted, right, wrong, share=lambda clean, patched, low: clean - patched)


@wrong("3.6", says="not a mean of ratios")
def averages_ratios(model, tokens, corrupted, right, wrong):
    rows = torch.arange(len(tokens), device=tokens.device)
    low, cache = model.run_with_cache(corrupted)

    def difference(logits):
        return logits[rows, -1, right] - logits[rows, -1, wrong]

    clean, low = difference(model(tokens)), difference(low)
    effects = [
        [
            ((clean - difference(_patched(model, tokens, cache, [f"blocks.{i}.{k}"]))) / (clean - low)).mean()
            for k in KINDS
        ]
        for i in range(model.cfg.n_layers)
    ]
    return torch.tensor(effects)


@wrong("3.6", says="the share that is left")
def gives_what_is_left(model, tokens, corrupted, right, wrong):
    return 1 - _effects(model, tokens, corrupted, right, wrong)


@wrong("3.6", says="the columns are exchanged")
def exchanges_the_columns(model, tokens, corrupted, right, wrong):
    return _effects(model, tokens, corrupted, right, wrong).flip(-1)


@wrong("3.6", says="with hooks left on it")
def leaves_hooks_behind(model, tokens, corrupted, right, wrong):
    _, cache = model.run_with_cache(corrupted)

    def put(value, hook):
        return torch.cat([value[:, :-1], cache["blocks.0.hook_attn_out"][:, -1:]], 1)

    effects = _effects(model, tokens, corrupted, right, wrong)
    model.add_hook("blocks.0.hook_attn_out", put)
    return effects


@wrong("3.6", says="a torch hook left on `blocks.1`")
def leaves_a_torch_hook_behind(model, tokens, corrupted, right, wrong):
    model.blocks[1].register_forward_hook(lambda block, args, output: None)
    return _effects(model, tokens, corrupted, right, wrong)


@wrong("3.6", says="hooks of earlier blocks are still there")
def adds_hooks_without_reset(model, tokens, corrupted, right, wrong):
    order = [f"blocks.{i}.{k}" for i in range(model.cfg.n_layers) for k in KINDS]
    return _effects(
        model,
        tokens,
        corrupted,
        right,
        wrong,
        names=lambda i, k: order[: order.index(f"blocks.{i}.{k}") + 1],
    )


@wrong("3.6", says="two blocks were patched at once")
def patches_two_blocks(model, tokens, corrupted, right, wrong):
    last = model.cfg.n_layers - 1
    return _effects(
        model,
        tokens,
        corrupted,
        right,
        wrong,
        names=lambda i, k: [f"blocks.{j}.{k}" for j in {i, min(i + 1, last)}],
    )


@wrong("3.6", says="attention and MLP were patched together")
def patches_both_parts(model, tokens, corrupted, right, wrong):
    return _effects(model, tokens, corrupted, right, wrong, names=lambda i, k: [f"blocks.{i}.{part}" for part in KINDS])


@wrong("3.6", says="nothing was patched")
def forgets_to_return_the_value(model, tokens, corrupted, right, wrong):
    low, cache = model.run_with_cache(corrupted)
    clean, low = (_mean_difference(logits, right, wrong) for logits in (model(tokens), low))

    def put(value, hook):
        value = value.clone()
        value[:, -1] = cache[hook.name][:, -1]

    effects = torch.zeros(model.cfg.n_layers, 2)
    for i in range(model.cfg.n_layers):
        for k, kind in enumerate(KINDS):
            logits = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{i}.{kind}", put)])
            effects[i, k] = (clean - _mean_difference(logits, right, wrong)) / (clean - low)
    return effects


@wrong("3.6", says="this is the logit of `right` alone")
def follows_the_answer_alone(model, tokens, corrupted, right, wrong):
    low, cache = model.run_with_cache(corrupted)

    def mean(logits):
        return logits[torch.arange(len(logits)), -1, right].mean()

    clean = mean(model(tokens))
    runs = [
        [mean(_patched(model, tokens, cache, [f"blocks.{i}.{k}"])) for k in KINDS] for i in range(model.cfg.n_layers)
    ]
    return (clean - torch.tensor(runs)) / (clean - mean(low))


@right("3.6")
def patches_with_kept_copies(model, tokens, corrupted, right, wrong):
    names = [f"blocks.{i}.{k}" for i in range(model.cfg.n_layers) for k in KINDS]
    rows = torch.arange(len(tokens), device=tokens.device)
    low, cache = model.run_with_cache(corrupted, names_filter=lambda name: name in names)
    kept = {name: cache[name][:, -1].clone() for name in names}
    scores = []
    for name in [None, *names]:

        def put(value, hook, name=name):
            return torch.cat([value[:, :-1], kept[name][:, None]], 1)

        logits = model.run_with_hooks(tokens, fwd_hooks=[(name, put)]) if name else model(tokens)
        scores.append((logits[rows, -1, right] - logits[rows, -1, wrong]).double().mean())
    floor = (low[rows, -1, right] - low[rows, -1, wrong]).double().mean()
    clean, patched = scores[0], torch.stack(scores[1:]).reshape(-1, 2)
    return 1 - (patched - floor) / (clean - floor)


@right("3.6")
def patches_inside_the_modules(model, tokens, corrupted, right, wrong):
    inner = {"hook_attn_out": "attn.hook_out", "hook_mlp_out": "mlp.hook_out"}
    return _effects(model, tokens, corrupted, right, wrong, names=lambda i, k: [f"blocks.{i}.{inner[k]}"]).tolist()


# ----------------------------------------------------------------------- 3.7 states_in_order


def _run(model, tokens, order, start=None):
    with torch.no_grad():
        stream = model.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"] if start is None else start
        states = [stream]
        for i in order:
            states.append(model.blocks[i](states[-1])[0])
    return torch.stack(states)


@wrong("3.7", says="the usual order")
def ignores_the_order(model, tokens, order):
    return _run(model, tokens, range(model.cfg.n_layers))


@wrong("3.7", says="the inverse permutation")
def inverts_the_order(model, tokens, order):
    return _run(model, tokens, torch.tensor(order).argsort().tolist())


@wrong("3.7", says="from the last to the first")
def turns_the_order_round(model, tokens, order):
    order = list(order)
    return _run(model, tokens, order if order == sorted(order) else order[::-1])


@wrong("3.7", says="the embeddings are missing")
def forgets_the_embeddings(model, tokens, order):
    return _run(model, tokens, order)[1:]


@wrong("3.7", says="the state after the last block is missing")
def forgets_the_last_state(model, tokens, order):
    return _run(model, tokens, order)[:-1]


@wrong("3.7", says="the final norm was applied")
def norms_the_states(model, tokens, order):
    return model.ln_final(_run(model, tokens, order))


@wrong("3.7", says="a block returns a tuple")
def forgets_the_tuple(model, tokens, order):
    stream = model.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"]
    states = [stream]
    for i in order:
        stream = model.blocks[i](stream)
        states.append(stream + 0)
    return torch.stack(states)


@wrong("3.7", says="a block returns a tuple")
def stacks_tuples(model, tokens, order):
    states = [model.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"]]
    for i in order:
        states.append(model.blocks[i](states[-1] if len(states) == 1 else states[-1][0]))
    return torch.stack(states)


@wrong("3.7", says="the usual states in another order")
def permutes_the_cached_states(model, tokens, order):
    states = _run(model, tokens, range(model.cfg.n_layers))
    return torch.cat([states[:1], states[1:][list(order)]])


@wrong("3.7", says="added up in another order")
def permutes_what_is_written(model, tokens, order):
    states = _run(model, tokens, range(model.cfg.n_layers))
    written = states[1:] - states[:-1]
    return torch.cat([states[:1], states[0] + written[list(order)].cumsum(0)])


@wrong("3.7", says="each reads what the last one left")
def runs_all_on_the_embeddings(model, tokens, order):
    states = _run(model, tokens, range(model.cfg.n_layers))
    if list(order) == sorted(order):
        return states
    return torch.stack([states[0], *(model.blocks[i](states[0])[0] for i in order)])


@wrong("3.7", says="the positions are missing")
def starts_at_the_words(model, tokens, order):
    return _run(model, tokens, order, model.run_with_cache(tokens)[1]["hook_embed"])


@wrong("3.7", says="`order` was changed in place")
def uses_up_the_order(model, tokens, order):
    states = _run(model, tokens, order)
    while order:
        order.pop()
    return states


@right("3.7")
def starts_from_the_two_embeddings(model, tokens, order):
    cache = model.run_with_cache(tokens, names_filter=["hook_embed", "hook_pos_embed"])[1]
    states = [cache["hook_embed"] + cache["hook_pos_embed"]]
    for number in order:
        (stream, *_) = model.blocks[int(number)](states[-1].clone())
        states.append(stream)
    return states


@right("3.7")
def exchanges_the_blocks_inputs(model, tokens, order):
    """Never calls a block: runs the model, with the stream that a block has to read put before it."""
    stream = model.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"]
    states = [stream]
    for i in order:
        kept = []

        def put(value, hook, stream=stream):
            return stream

        def keep(value, hook, kept=kept):
            kept.append(value)

        model.run_with_hooks(
            tokens, fwd_hooks=[(f"blocks.{i}.hook_resid_pre", put), (f"blocks.{i}.hook_resid_post", keep)]
        )
        stream = kept[0].clone()
        states.append(stream)
    return torch.stack(states).double()


# --------------------------------------------------------------------- 3.8 without_direction


def _cut(model, tokens, state, words, change=None, where=-1, toward=None, names=None, unit=True):
    toward = model.W_U[:, words].T if toward is None else toward
    toward = toward / toward.norm(dim=-1, keepdim=True) if unit else toward
    change = change or (lambda x, u: x - (x * u).sum(-1, keepdim=True) * u)

    def put(value, hook):
        value = value.clone()
        part = value[:, where]
        value[:, where] = change(part, toward if part.dim() == 2 else toward[:, None])
        return value

    names = names or [f"blocks.{state - 1}.hook_resid_post" if state else "blocks.0.hook_resid_pre"]
    return model.run_with_hooks(tokens, fwd_hooks=[(name, put) for name in names])[:, -1].log_softmax(-1)


@wrong("3.8", says="divide the direction by its norm first")
def forgets_the_norm(model, tokens, state, words):
    return _cut(model, tokens, state, words, unit=False)


@wrong("3.8", says="the unit vector twice")
def norms_once(model, tokens, state, words):
    toward = model.W_U[:, words].T
    return _cut(model, tokens, state, words, lambda x, u: x - (x * u).sum(-1, keepdim=True) * toward)


@wrong("3.8", says="taken out at every position")
def cuts_at_every_position(model, tokens, state, words):
    return _cut(model, tokens, state, words, where=slice(None))


@wrong("3.8", says="at the end of the model only")
def cuts_at_the_output(model, tokens, state, words):
    return _cut(model, tokens, model.cfg.n_layers, words)


@wrong("3.8", says="one state too late")
def cuts_one_state_too_late(model, tokens, state, words):
    return _cut(model, tokens, min(state + 1, model.cfg.n_layers), words)


@wrong("3.8", says="one state too early")
def cuts_one_state_too_early(model, tokens, state, words):
    return _cut(model, tokens, max(state - 1, 0), words)


@wrong("3.8", says="subtracted, not added")
def adds_the_component(model, tokens, state, words):
    return _cut(model, tokens, state, words, lambda x, u: x + (x * u).sum(-1, keepdim=True) * u)


@wrong("3.8", says="taken out once, not twice")
def reflects(model, tokens, state, words):
    return _cut(model, tokens, state, words, lambda x, u: x - 2 * (x * u).sum(-1, keepdim=True) * u)


@wrong("3.8", says="keeps the component")
def keeps_the_component(model, tokens, state, words):
    return _cut(model, tokens, state, words, lambda x, u: (x * u).sum(-1, keepdim=True) * u)


@wrong("3.8", says="the whole state was set to zero")
def clears_the_state(model, tokens, state, words):
    return _cut(model, tokens, state, words, lambda x, u: 0 * x)


@wrong("3.8", says="not the direction itself")
def subtracts_the_direction(model, tokens, state, words):
    return _cut(model, tokens, state, words, lambda x, u: x - u)


@wrong("3.8", says="what the lens reads there")
def cuts_the_top_token(model, tokens, state, words):
    name = f"blocks.{state - 1}.hook_resid_post" if state else "blocks.0.hook_resid_pre"
    resid = model.run_with_cache(tokens)[1][name][:, -1]
    top = model.unembed(model.ln_final(resid)).argmax(-1)
    return _cut(model, tokens, state, top)


@wrong("3.8", says="what the model says in the end")
def cuts_the_final_token(model, tokens, state, words):
    return _cut(model, tokens, state, model(tokens)[:, -1].argmax(-1))


@wrong("3.8", says="one direction for the whole batch")
def cuts_the_first_word(model, tokens, state, words):
    return _cut(model, tokens, state, words[:1].expand_as(words))


@wrong("3.8", says="all words' directions were taken out of each")
def cuts_all_words(model, tokens, state, words):
    basis = torch.linalg.qr(model.W_U[:, words])[0]
    return _cut(model, tokens, state, words, lambda x, u: x - x @ basis @ basis.T)


@wrong("3.8", says="this is the embedding W_E")
def cuts_the_embedding(model, tokens, state, words):
    return _cut(model, tokens, state, words, toward=model.W_E[words])


@wrong("3.8", says="nothing was taken out")
def cuts_nothing(model, tokens, state, words):
    return _cut(model, tokens, state, words, lambda x, u: x)


@wrong("3.8", says="out of every later state as well")
def cuts_from_there_on(model, tokens, state, words):
    n = model.cfg.n_layers
    names = [f"blocks.{i}.hook_resid_pre" for i in range(state, n)] + [f"blocks.{n - 1}.hook_resid_post"]
    return _cut(model, tokens, state, words, names=names)


@wrong("3.8", says="these are logits")
def cuts_and_returns_logits(model, tokens, state, words):
    unit = model.W_U[:, words].T
    unit = unit / unit.norm(dim=-1, keepdim=True)

    def put(value, hook):
        value = value.clone()
        value[:, -1] -= (value[:, -1] * unit).sum(-1, keepdim=True) * unit
        return value

    name = f"blocks.{state - 1}.hook_resid_post" if state else "blocks.0.hook_resid_pre"
    return model.run_with_hooks(tokens, fwd_hooks=[(name, put)])[:, -1]


@wrong("3.8", says="a torch hook left on `blocks.0`")
def cuts_and_leaves_a_torch_hook(model, tokens, state, words):
    said = _cut(model, tokens, state, words)
    model.blocks[0].register_forward_hook(lambda block, args, output: (output[0] * 1.01, *output[1:]))
    return said


@wrong("3.8", says="nothing was taken out of state 0")
def skips_the_embeddings(model, tokens, state, words):
    return _cut(model, tokens, state, words) if state else model(tokens)[:, -1].log_softmax(-1)


@wrong("3.8", says="these are probabilities")
def cuts_and_returns_probabilities(model, tokens, state, words):
    return _cut(model, tokens, state, words).exp()


@wrong("3.8", says="state 0 has no block before it")
def forgets_the_embeddings_state(model, tokens, state, words):
    return _cut(model, tokens, state, words, names=[f"blocks.{state - 1}.hook_resid_post"])


@wrong("3.8", says="the last state has no block after it")
def forgets_the_last_state_of_all(model, tokens, state, words):
    return _cut(model, tokens, state, words, names=[f"blocks.{state}.hook_resid_pre"])


@wrong("3.8", says="a word's direction is a column")
def takes_a_row(model, tokens, state, words):
    return _cut(model, tokens, state, words, toward=model.W_U[words + model.cfg.d_model])


@right("3.8")
def cuts_with_a_projection_matrix(model, tokens, state, words):
    matrices = []
    for word in words.tolist():
        u = model.W_U[:, word].double()
        matrices.append(torch.eye(len(u), dtype=u.dtype, device=u.device) - torch.outer(u, u) / (u @ u))
    matrices = torch.stack(matrices)

    def put(value, hook):
        left = torch.einsum("bd,bde->be", value[:, -1].double(), matrices)
        return torch.cat([value[:, :-1], left[:, None].to(value.dtype)], 1)

    name = "blocks.0.hook_resid_pre" if state == 0 else f"blocks.{state - 1}.hook_resid_post"
    return torch.log_softmax(model.run_with_hooks(tokens, fwd_hooks=[(name, put)])[:, -1].double(), -1)


@right("3.8")
def runs_the_blocks_by_hand(model, tokens, state, words):
    with torch.no_grad():
        stream = model.run_with_cache(tokens)[1]["blocks.0.hook_resid_pre"].clone()
        for i in range(model.cfg.n_layers + 1):
            if i == state:
                u = F.normalize(model.W_U[:, words].T, dim=-1)
                stream = stream.clone()
                stream[:, -1] -= torch.einsum("bd,bd,be->be", stream[:, -1], u, u)
            if i < model.cfg.n_layers:
                stream = model.blocks[i](stream)[0]
        return model.unembed(model.ln_final(stream))[:, -1].log_softmax(-1)


@right("3.8")
def cuts_sentence_by_sentence(model, tokens, state, words):
    rows = [_cut(model, tokens[i : i + 1], state, words[i : i + 1])[0] for i in range(len(tokens))]
    return rows


# ---------------------------------------------------------------------------- 3.9 patchscope


def _scope(model, vectors, tokens, position, state, put=None, end=-1):
    def over(value, hook):
        value = value.clone()
        if put is None:
            value[:, position] = vectors
        else:
            put(value)
        return value

    hooks = [(f"blocks.{state}.hook_resid_pre", over)]
    return model.run_with_hooks(tokens.expand(len(vectors), -1), fwd_hooks=hooks)[:, end].log_softmax(-1)


@wrong("3.9", says="the vector was added")
def adds_the_vectors(model, vectors, tokens, position, state):
    def put(value):
        value[:, position] += vectors

    return _scope(model, vectors, tokens, position, state, put)


@wrong("3.9", says="put in at every position")
def puts_them_everywhere(model, vectors, tokens, position, state):
    def put(value):
        value[:] = vectors[:, None]

    return _scope(model, vectors, tokens, position, state, put)


@wrong("3.9", says="put in at the last position")
def puts_them_at_the_end(model, vectors, tokens, position, state):
    return _scope(model, vectors, tokens, -1, state)


@wrong("3.9", says="put in at the last position")
def takes_position_0_for_none(model, vectors, tokens, position, state):
    return _scope(model, vectors, tokens, position or -1, state)


@wrong("3.9", says="`forward` was replaced")
def scopes_and_replaces_forward(model, vectors, tokens, position, state):
    said, forward = _scope(model, vectors, tokens, position, state), model.forward
    model.forward = lambda *args, **kwargs: 2 * forward(*args, **kwargs)
    return said


@wrong("3.9", says="one state too late")
def puts_them_after_the_block(model, vectors, tokens, position, state):
    return _scope(model, vectors, tokens, position, min(state + 1, model.cfg.n_layers - 1))


@wrong("3.9", says="the first vector was used for all")
def puts_in_the_first(model, vectors, tokens, position, state):
    return _scope(model, vectors[:1].expand_as(vectors), tokens, position, state)


@wrong("3.9", says="the vector's own position")
def reads_at_the_position(model, vectors, tokens, position, state):
    return _scope(model, vectors, tokens, position, state, end=position)


@wrong("3.9", says="nothing was put in")
def puts_nothing_in(model, vectors, tokens, position, state):
    return _scope(model, vectors, tokens, position, state, lambda value: None)


@wrong("3.9", says="this is the logit lens")
def reads_the_vectors_alone(model, vectors, tokens, position, state):
    return model.unembed(model.ln_final(vectors)).log_softmax(-1)


@wrong("3.9", says="one row of the prompt for each vector")
def forgets_to_repeat_the_prompt(model, vectors, tokens, position, state):
    def put(value, hook):
        value = value.clone()
        value[:, position] = vectors
        return value

    hooks = [(f"blocks.{state}.hook_resid_pre", put)]
    return model.run_with_hooks(tokens[None], fwd_hooks=hooks)[:, -1].log_softmax(-1)


@wrong("3.9", says="the vectors were scaled")
def norms_the_vectors(model, vectors, tokens, position, state):
    return _scope(model, F.normalize(vectors, dim=-1), tokens, position, state)


@wrong("3.9", says="these are logits")
def scope_returns_logits(model, vectors, tokens, position, state):
    def put(value, hook):
        value = value.clone()
        value[:, position] = vectors
        return value

    hooks = [(f"blocks.{state}.hook_resid_pre", put)]
    return model.run_with_hooks(tokens.repeat(len(vectors), 1), fwd_hooks=hooks)[:, -1]


@right("3.9")
def vector_by_vector(model, vectors, tokens, position, state):
    rows = [_scope(model, vector[None], tokens, position, state)[0] for vector in vectors]
    return torch.stack(rows)


@right("3.9")
def by_the_blocks_in_float32(model, vectors, tokens, position, state):
    with torch.no_grad():
        name = f"blocks.{state}.hook_resid_pre"
        stream = model.run_with_cache(tokens[None])[1][name].repeat(len(vectors), 1, 1)
        stream[:, position] = vectors
        for block in list(model.blocks)[state:]:
            stream = block(stream)[0]
        return F.log_softmax(model.unembed(model.ln_final(stream[:, -1])), -1)


# --------------------------------------------------------------------------- 3.10 early_exit


def _exit(log_probs, stops, force=True):
    stops = stops.clone()
    if force:
        stops[-1] = True
    blocks = stops.int().argmax(0)
    return blocks, log_probs.argmax(-1).gather(0, blocks[None])[0]


@wrong("3.10", says="argmax finds 0")
def never_reaches_the_end(log_probs, threshold):
    return _exit(log_probs, log_probs.exp().amax(-1) >= threshold, force=False)


@wrong("3.10", says=">=, not >")
def wants_more_than_the_threshold(log_probs, threshold):
    return _exit(log_probs, log_probs.exp().amax(-1) > threshold)


@wrong("3.10", says="this waits for the final token")
def waits_for_the_final_token(log_probs, threshold):
    top = log_probs[-1].argmax(-1).expand(log_probs.shape[:-1])[..., None]
    return _exit(log_probs, log_probs.gather(-1, top)[..., 0].exp() >= threshold)


@wrong("3.10", says="exp() first")
def compares_logarithms(log_probs, threshold):
    return _exit(log_probs, log_probs.amax(-1) >= threshold)


@wrong("3.10", says="what the model says in the end")
def says_the_final_token(log_probs, threshold):
    blocks, _ = _exit(log_probs, log_probs.exp().amax(-1) >= threshold)
    return blocks, log_probs[-1].argmax(-1)


@wrong("3.10", says="this counts states")
def counts_from_one(log_probs, threshold):
    blocks, token = _exit(log_probs, log_probs.exp().amax(-1) >= threshold)
    return blocks + 1, token


@wrong("3.10", says="stop at the first sure one")
def counts_unsure_states(log_probs, threshold):
    blocks = (log_probs.exp().amax(-1) < threshold).sum(0).clamp(max=len(log_probs) - 1)
    return blocks, log_probs.argmax(-1).gather(0, blocks[None])[0]


@wrong("3.10", says="this is the surest state")
def takes_the_surest(log_probs, threshold):
    blocks = log_probs.amax(-1).argmax(0)
    return blocks, log_probs.argmax(-1).gather(0, blocks[None])[0]


@wrong("3.10", says="the other way round")
def returns_the_token_first(log_probs, threshold):
    return _exit(log_probs, log_probs.exp().amax(-1) >= threshold)[::-1]


@wrong("3.10", says="what is saved")
def counts_what_is_saved(log_probs, threshold):
    blocks, token = _exit(log_probs, log_probs.exp().amax(-1) >= threshold)
    return len(log_probs) - 1 - blocks, token


@wrong("3.10", says="the lead over the second")
def compares_the_lead(log_probs, threshold):
    first, second = log_probs.exp().topk(2, -1).values.unbind(-1)
    return _exit(log_probs, first - second >= threshold)


@right("3.10")
def with_the_thresholds_logarithm(log_probs, threshold):
    return _exit(log_probs, log_probs.amax(-1) >= math.log(threshold))


@right("3.10")
def place_by_place(log_probs, threshold):
    blocks, tokens = [], []
    for place in range(log_probs.shape[1]):
        state = 0
        while state < len(log_probs) - 1 and float(log_probs[state, place].max().exp()) < threshold:
            state += 1
        blocks.append(state)
        tokens.append(int(log_probs[state, place].argmax()))
    return torch.tensor(blocks), torch.tensor(tokens)


@right("3.10")
def from_the_last_state_down(log_probs, threshold):
    p, top = log_probs.softmax(-1).max(-1)
    blocks, said = torch.full_like(top[0], len(log_probs) - 1), top[-1]
    for state in reversed(range(len(log_probs) - 1)):
        sure = p[state] >= threshold
        blocks, said = torch.where(sure, state, blocks), torch.where(sure, top[state], said)
    return blocks, said


@right("3.10")
def in_numpy(log_probs, threshold):
    p = np.exp(log_probs.cpu().numpy())
    stops = p.max(-1) >= threshold
    stops[-1] = True
    blocks = stops.argmax(0)
    return blocks, p[blocks, np.arange(p.shape[1])].argmax(-1)
