"""Right and wrong answers to the exercises of chapter 05."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from torch.nn import functional as F

from tests.mutants import right, wrong
from utils import sae

# ------------------------------------------------------------------------- 5.1 principal_directions


def _svd(x, n, centre=True):
    if n > x.shape[1]:
        raise ValueError(f"{n} directions in {x.shape[1]} dimensions")
    return torch.linalg.svd(x - x.mean(0) if centre else x, full_matrices=False)


@wrong("5.1", says="x is not centred")
def forgets_the_mean(x, n):
    return _svd(x, n, centre=False).Vh[:n]


@wrong("5.1", says="the mean runs over the samples")
def centres_the_samples(x, n):
    return _svd(x - x.mean(1, keepdim=True), n, centre=False).Vh[:n]


@wrong("5.1", says="x was standardised")
def standardises(x, n):
    return _svd((x - x.mean(0)) / x.std(0), n).Vh[:n]


@wrong("5.1", says="raise ValueError")
def slices_without_asking(x, n):
    return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:n]


@wrong("5.1", says="raise ValueError")
def returns_none_for_too_many(x, n):
    return torch.linalg.svd(x - x.mean(0)).Vh[:n] if n <= x.shape[1] else x.new_zeros(0, x.shape[1])


@wrong("5.1", says="raise ValueError")
def allows_one_too_many(x, n):
    if n > x.shape[1] + 1:
        raise ValueError("too many")
    return torch.linalg.svd(x - x.mean(0)).Vh[:n]


@wrong("5.1", says="n may be as large as d")
def refuses_as_many_as_dimensions(x, n):
    if n >= x.shape[1]:
        raise ValueError("too many")
    return _svd(x, n).Vh[:n]


@wrong("5.1", says="there may be fewer samples than dimensions")
def asks_for_more_samples_than_dimensions(x, n):
    if len(x) < x.shape[1]:
        raise ValueError("too few samples")
    return _svd(x, n).Vh[:n]


@wrong("5.1", says="the smallest of them comes first")
def returns_the_largest_last(x, n):
    return _svd(x, n).Vh[:n].flip(0)


@wrong("5.1", says="the largest come last")
def takes_the_first_of_eigh(x, n):
    _svd(x, n)
    return torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0))).eigenvectors.T[:n]


@wrong("5.1", says="the smallest of them comes first")
def takes_the_last_of_eigh(x, n):
    _svd(x, n)
    return torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0))).eigenvectors.T[-n:]


@wrong("5.1", says="the largest come first in torch.linalg.svd")
def takes_the_last_of_svd(x, n):
    return _svd(x, n).Vh[-n:]


@wrong("5.1", says="V transposed already")
def transposes_vh(x, n):
    _svd(x, n)
    return torch.linalg.svd(x - x.mean(0)).Vh.T[:n]


@wrong("5.1", says="transposed: each row is a direction")
def returns_columns(x, n):
    return _svd(x, n).Vh[:n].T


@wrong("5.1", says="these are the coordinates")
def returns_coordinates(x, n):
    return (x - x.mean(0)) @ _svd(x, n).Vh[:n].T


@wrong("5.1", says="leave the singular values out")
def multiplies_by_singular_values(x, n):
    _, S, Vh = _svd(x, n)
    return S[:n, None] * Vh[:n]


@wrong("5.1", says="`x` was changed in place")
def centres_in_place(x, n):
    _svd(x, n)
    x -= x.mean(0)
    return _svd(x, n).Vh[:n]


@wrong("5.1", says="another error, IndexError")
def raises_an_index_error(x, n):
    if n > x.shape[1]:
        raise IndexError("too many")
    return _svd(x, n).Vh[:n]


@wrong("5.1", says="all samples count")
def looks_at_the_first_hundred(x, n):
    return _svd(x[:100], n).Vh[:n]


@right("5.1")
def with_scikit_learn(x, n):
    return PCA(n).fit(x.cpu().numpy()).components_


@right("5.1")
def from_the_covariance(x, n):
    assert_n = n <= x.shape[1]
    if not assert_n:
        raise ValueError("no")
    return -torch.linalg.eigh(torch.cov(x.T.double())).eigenvectors.flip(1)[:, :n].T


@right("5.1")
def one_after_the_other(x, n):
    if n > x.shape[1]:
        raise ValueError("n")
    rest, found = (x - x.mean(0)).double(), []
    for _ in range(n):
        v = torch.linalg.svd(rest).Vh[0]
        found.append(v)
        rest = rest - torch.outer(rest @ v, v)
    return torch.stack(found)


# -------------------------------------------------------------------------------------- 5.2 sae_loss


def _forward(x, W_enc, b_enc, W_dec, b_dec):
    z = ((x - b_dec) @ W_enc + b_enc).relu()
    return z, z @ W_dec + b_dec


def _with_loss(make):
    """An answer that goes wrong in the loss alone."""

    def answer(x, W_enc, b_enc, W_dec, b_dec, l1):
        z, x_hat = _forward(x, W_enc, b_enc, W_dec, b_dec)
        return make((x - x_hat) ** 2, z, l1), z, x_hat

    return answer


@wrong("5.2", says="the ReLU is missing")
def has_no_relu(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = (x - b_dec) @ W_enc + b_enc
    x_hat = z @ W_dec + b_dec
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="b_dec is subtracted from x first")
def does_not_subtract_b_dec(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = (x @ W_enc + b_enc).relu()
    x_hat = z @ W_dec + b_dec
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="b_enc is added before the ReLU")
def adds_b_enc_last(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = ((x - b_dec) @ W_enc).relu() + b_enc
    x_hat = z @ W_dec + b_dec
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="b_dec is missing")
def does_not_add_b_dec(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = ((x - b_dec) @ W_enc + b_enc).relu()
    x_hat = z @ W_dec
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="the encoder is W_enc")
def ties_the_encoder(x, W_enc, b_enc, W_dec, b_dec, l1):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.sum(-1).mean())(
        x, W_dec.T, b_enc, W_dec, b_dec, l1
    )


@wrong("5.2", says="W_enc is [d latent]")
def transposes_the_encoder(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = ((x - b_dec) @ W_enc.T + b_enc).relu()
    x_hat = z @ W_dec + b_dec
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="the squared error is averaged over d too")
def averages_over_d(*args):
    return _with_loss(lambda gap, z, l1: gap.mean() + l1 * z.sum(-1).mean())(*args)


@wrong("5.2", says="the squared error is averaged over d too")
def takes_mse_loss(x, W_enc, b_enc, W_dec, b_dec, l1):
    z, x_hat = _forward(x, W_enc, b_enc, W_dec, b_dec)
    return F.mse_loss(x_hat, x) + l1 * z.abs().sum(-1).mean(), z, x_hat


@wrong("5.2", says="the penalty is averaged over the latents")
def averages_the_penalty(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.mean())(*args)


@wrong("5.2", says="averaged over d too: sum over d, then the mean over the samples; the penalty is averaged")
def averages_both(*args):
    return _with_loss(lambda gap, z, l1: gap.mean() + l1 * z.mean())(*args)


@wrong("5.2", says="the penalty is summed over the samples too")
def sums_the_penalty(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.sum())(*args)


@wrong("5.2", says="summed over the samples too")
def sums_everything(*args):
    return _with_loss(lambda gap, z, l1: gap.sum() + l1 * z.sum())(*args)


@wrong("5.2", says="the penalty is missing")
def forgets_the_penalty(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean())(*args)


@wrong("5.2", says="the factor l1 is missing")
def forgets_l1(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + z.sum(-1).mean())(*args)


@wrong("5.2", says="the penalty counts active latents")
def counts_active_latents(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * (z > 0).float().sum(-1).mean())(*args)


@wrong("5.2", says="the penalty squares the latents")
def squares_the_latents(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.pow(2).sum(-1).mean())(*args)


@wrong("5.2", says="no root")
def takes_the_distance(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).sqrt().mean() + l1 * z.sum(-1).mean())(*args)


@wrong("5.2", says="this is the loss of each sample")
def keeps_the_samples(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1) + l1 * z.sum(-1))(*args)


@wrong("5.2", says="the penalty has no gradient")
def detaches_the_penalty(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.detach().sum(-1).mean())(*args)


@wrong("5.2", says="the squared error has no gradient")
def detaches_the_error(*args):
    return _with_loss(lambda gap, z, l1: gap.detach().sum(-1).mean() + l1 * z.sum(-1).mean())(*args)


@wrong("5.2", says="return the tensor itself")
def returns_a_number(*args):
    return _with_loss(lambda gap, z, l1: (gap.sum(-1).mean() + l1 * z.sum(-1).mean()).item())(*args)


@wrong("5.2", says="the order is loss, z, x_hat")
def returns_the_loss_last(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.sum(-1).mean())(*args)[::-1]


@wrong("5.2", says="the order is loss, z, x_hat")
def returns_x_hat_before_z(*args):
    loss, z, x_hat = _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.sum(-1).mean())(*args)
    return loss, x_hat, z


@wrong("5.2", says="return all of them")
def returns_the_loss_alone(*args):
    return _with_loss(lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.sum(-1).mean())(*args)[0]


@wrong("5.2", says="not a leaky one")
def takes_a_leaky_relu(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = F.leaky_relu((x - b_dec) @ W_enc + b_enc)
    x_hat = z @ W_dec + b_dec
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="W_dec as it is")
def normalises_inside(x, W_enc, b_enc, W_dec, b_dec, l1):
    z, x_hat = _forward(x, W_enc, b_enc, F.normalize(W_dec, dim=1), b_dec)
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(), z, x_hat


@wrong("5.2", says="not weighted by lengths of rows")
def weighs_the_penalty(x, W_enc, b_enc, W_dec, b_dec, l1):
    z, x_hat = _forward(x, W_enc, b_enc, W_dec, b_dec)
    return ((x - x_hat) ** 2).sum(-1).mean() + l1 * (z * W_dec.norm(dim=1)).sum(-1).mean(), z, x_hat


@right("5.2")
def with_einsum(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = torch.einsum("sd,dl->sl", x - b_dec, W_enc).add(b_enc).clamp(min=0)
    x_hat = b_dec + torch.einsum("sl,ld->sd", z, W_dec)
    return F.mse_loss(x_hat, x, reduction="sum") / len(x) + l1 * z.norm(p=1, dim=1).mean(), z, x_hat


@right("5.2")
def sample_by_sample(x, W_enc, b_enc, W_dec, b_dec, l1):
    rows = [F.relu(W_enc.T @ (row - b_dec) + b_enc) for row in x]
    written = [W_dec.T @ z + b_dec for z in rows]
    losses = [(row - w).square().sum() + l1 * z.sum() for row, w, z in zip(x, written, rows, strict=True)]
    return sum(losses) / len(losses), torch.stack(rows), torch.stack(written)


@right("5.2")
def in_float64_with_keyword_names(x, W_enc, b_enc, W_dec, b_dec, l1):
    x, W_enc, b_enc, W_dec, b_dec = (t.double() for t in (x, W_enc, b_enc, W_dec, b_dec))
    z, x_hat = _forward(x=x, W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec)
    return torch.cat([(x - x_hat).pow(2), l1 * z.abs()], dim=1).sum(dim=1).mean(), z, x_hat


@right("5.2")
def with_linear_layers(x, W_enc, b_enc, W_dec, b_dec, l1):
    z = F.relu(F.linear(x - b_dec, W_enc.mT, b_enc))
    x_hat = F.linear(z, W_dec.mT, b_dec)
    return torch.norm(x - x_hat, dim=-1).pow(2).mean() + torch.as_tensor(l1) * torch.mean(z.sum(1)), z, x_hat


# ------------------------------------------------------------------------------------- 5.3 train_sae


def _start(x, n_latents, seed):
    drawing = torch.Generator().manual_seed(seed)
    W_dec = F.normalize(torch.randn(n_latents, x.shape[1], generator=drawing), dim=1).to(x)
    return W_dec, drawing


def _train(
    x,
    n_latents,
    l1,
    steps=2000,
    seed=0,
    *,
    lr=2e-3,
    batch=512,
    loss=lambda gap, z, l1: gap.sum(-1).mean() + l1 * z.sum(-1).mean(),
    unit=1,
    start=None,
    encoder=None,
    rows=None,
    frozen=(),
    centred=False,
    zero_grad=True,
    decay=False,
    detach=True,
):
    W_dec, drawing = _start(x, n_latents, seed)
    if start is not None:
        W_dec = start
    W_enc = W_dec.T.clone() if encoder is None else encoder
    b_enc, b_dec = torch.zeros(n_latents).to(x), x.mean(0) if centred else torch.zeros(x.shape[1]).to(x)
    parameters = [W_enc, b_enc, W_dec, b_dec]
    for i, parameter in enumerate(parameters):
        parameter.requires_grad_(i not in frozen)
    optimizer = torch.optim.Adam([p for p in parameters if p.requires_grad], lr=lr)
    for step in range(steps):
        if decay:
            optimizer.param_groups[0]["lr"] = lr * min(1, 3 * (1 - step / steps))
        place = torch.randint(len(x), (batch,), generator=drawing).to(x.device) if rows is None else rows(step)
        z, x_hat = _forward(x[place], *parameters)
        if zero_grad:
            optimizer.zero_grad()
        loss((x[place] - x_hat) ** 2, z, l1).backward()
        optimizer.step()
        if unit is not None:
            with torch.no_grad():
                W_dec /= W_dec.norm(dim=unit, keepdim=True)
    return tuple(parameter.detach() if detach else parameter for parameter in parameters)


@wrong("5.3", says="after every step")
def lets_the_rows_grow(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, unit=None)


@wrong("5.3", says="longer rows evade the penalty")
def gives_the_lengths_to_the_encoder_at_the_end(x, n_latents, l1, steps=2000, seed=0):
    W_enc, b_enc, W_dec, b_dec = _train(x, n_latents, l1, steps, seed, unit=None)
    length = W_dec.norm(dim=1)
    return W_enc * length, b_enc * length, F.normalize(W_dec, dim=1), b_dec


@wrong("5.3", says="not once at the end")
def normalises_once_at_the_end(x, n_latents, l1, steps=2000, seed=0):
    W_enc, b_enc, W_dec, b_dec = _train(x, n_latents, l1, steps, seed, unit=None)
    return W_enc, b_enc, F.normalize(W_dec, dim=1), b_dec


@wrong("5.3", says="the columns have length 1")
def normalises_the_columns(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, unit=0)


@wrong("5.3", says="W_enc starts as a copy of W_dec transposed")
def draws_the_encoder_too(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, encoder=_start(x, n_latents, seed + 1)[0].T.clone())


@wrong("5.3", says="the same start from the same seed")
def ignores_the_seed(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, start=F.normalize(torch.randn(n_latents, x.shape[1]).to(x), dim=1))


@wrong("5.3", says="the seed is the argument `seed`")
def always_takes_seed_0(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, 0)


@wrong("5.3", says="the number of steps is the argument")
def trains_as_long_as_it_likes(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, 1, seed)


@wrong("5.3", says="one batch serves all steps")
def draws_one_batch(x, n_latents, l1, steps=2000, seed=0):
    place = torch.randint(len(x), (1024,), generator=torch.Generator().manual_seed(seed))
    return _train(x, n_latents, l1, steps, seed, rows=lambda step: place)


@wrong("5.3", says="draw a batch")
def takes_all_samples(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, rows=lambda step: slice(None))


@wrong("5.3", says="neighbours in x may be alike")
def takes_samples_as_they_stand(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, rows=lambda step: torch.arange(512 * step, 512 * step + 512) % len(x))


@wrong("5.3", says="is l1 times the sum of the latents part of the loss")
def trains_without_the_penalty(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, loss=lambda gap, z, l1: gap.sum(-1).mean())


@wrong("5.3", says="not their mean")
def averages_over_the_latents(x, n_latents, l1, steps=2000, seed=0):
    def loss(gap, z, l1):
        return gap.sum(-1).mean() + l1 * z.mean()

    return _train(x, n_latents, l1, steps, seed, loss=loss)


@wrong("5.3", says="is the squared error summed over d")
def averages_the_error_over_d(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, loss=lambda gap, z, l1: gap.mean() + l1 * z.sum(-1).mean())


@wrong("5.3", says="not averaged, not halved")
def doubles_the_penalty(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, 2 * l1, steps, seed)


@wrong("5.3", says="half of the penalty")
def halves_the_penalty(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1 / 2, steps, seed)


@wrong("5.3", says="b_enc has not moved")
def never_trains_the_biases(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, frozen=(1, 3))


@wrong("5.3", says="W_dec has not moved")
def never_trains_the_decoder(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, frozen=(2,))


@wrong("5.3", says="`with torch.no_grad():`")
def normalises_with_gradient(x, n_latents, l1, steps=2000, seed=0):
    W_enc, b_enc, W_dec, b_dec = (p.requires_grad_() for p in _train(x, n_latents, l1, 0, seed))
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    return W_enc, b_enc, W_dec, b_dec


@wrong("5.3", says="hardly moved in 300 steps")
def learns_too_slowly(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=1e-4)


@wrong("5.3", says="optimizer.step()")
def never_learns(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=1e-9)


@wrong("5.3", says="transposed: W_enc is [d latent]")
def returns_the_encoder_transposed(x, n_latents, l1, steps=2000, seed=0):
    W_enc, b_enc, W_dec, b_dec = _train(x, n_latents, l1, steps, seed)
    return W_enc.T, b_enc, W_dec, b_dec


@wrong("5.3", says="the order is W_enc, b_enc, W_dec, b_dec")
def returns_the_decoder_first(x, n_latents, l1, steps=2000, seed=0):
    W_enc, b_enc, W_dec, b_dec = _train(x, n_latents, l1, steps, seed)
    return W_dec, b_dec, W_enc, b_enc


@wrong("5.3", says="return all of them")
def returns_the_matrices_alone(x, n_latents, l1, steps=2000, seed=0):
    W_enc, _, W_dec, _ = _train(x, n_latents, l1, steps, seed)
    return W_enc, W_dec


@wrong("5.3", says="W_enc is a parameter of its own")
def ties_the_encoder_to_the_decoder(x, n_latents, l1, steps=2000, seed=0):
    W_dec, drawing = _start(x, n_latents, seed)
    b_enc, b_dec = torch.zeros(n_latents).to(x), torch.zeros(x.shape[1]).to(x)
    optimizer = torch.optim.Adam([p.requires_grad_() for p in (b_enc, W_dec, b_dec)], lr=0.01)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (256,), generator=drawing).to(x.device)]
        z, x_hat = _forward(batch, W_dec.T, b_enc, W_dec, b_dec)
        optimizer.zero_grad()
        ((batch - x_hat).pow(2).sum(-1) + l1 * z.sum(-1)).mean().backward()
        optimizer.step()
        with torch.no_grad():
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    return W_dec.detach().T.clone(), b_enc.detach(), W_dec.detach(), b_dec.detach()


@wrong("5.3", says="W_enc has not moved")
def never_trains_the_encoder(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, frozen=(0,), lr=0.01, batch=256)


@wrong("5.3", says="b_dec has not moved")
def never_trains_the_bias_of_the_decoder(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, frozen=(3,), lr=0.01, batch=256)


@wrong("5.3", says="256 samples in each step")
def draws_32_samples(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=0.01, batch=32, decay=True)


@wrong("5.3", says="return detached ones")
def returns_the_parameters_themselves(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, detach=False)


@wrong("5.3", says="W_dec without gradients")
def returns_with_a_graph(x, n_latents, l1, steps=2000, seed=0):
    W_enc, b_enc, W_dec, b_dec = _train(x, n_latents, l1, steps, seed)
    return W_enc, b_enc, F.normalize(W_dec.requires_grad_(), dim=1), b_dec


@wrong("5.3", says="optimizer.zero_grad()")
def forgets_zero_grad(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=0.01, batch=256, zero_grad=False, decay=True)


@wrong("5.3", says="is the squared error summed over d")
def weighs_the_penalty_d_times(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1 * x.shape[1], steps, seed, lr=0.01, batch=256, decay=True)


@wrong("5.3", says="batches were read where `steps` is 1")
def always_makes_400_steps(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, 400, seed, lr=0.01, batch=256)


@right("5.3")
def with_the_settings_of_the_text(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=0.01, batch=256, decay=True)


@right("5.3")
def slowly_in_small_batches(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=1e-3, batch=256)


@right("5.3")
def fast_from_the_mean(x, n_latents, l1, steps=2000, seed=0):
    return _train(x, n_latents, l1, steps, seed, lr=4e-3, batch=256, centred=True)


@right("5.3")
def with_a_module_and_seeded_globally(x, n_latents, l1, steps=2000, seed=0):
    torch.manual_seed(seed)
    decoder = torch.nn.Linear(n_latents, x.shape[1]).to(x)
    encoder = torch.nn.Linear(x.shape[1], n_latents).to(x)
    with torch.no_grad():
        decoder.weight.copy_(F.normalize(torch.randn_like(decoder.weight), dim=0))
        encoder.weight.copy_(decoder.weight.T)
        decoder.bias.zero_()
        encoder.bias.zero_()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3, betas=(0.9, 0.99))
    order = torch.randperm(len(x))
    for step in range(steps):
        batch = x[order.roll(-512 * step)[:512]]
        z = encoder(batch - decoder.bias).relu()
        loss = (batch - decoder(z)).pow(2).sum() / len(batch) + l1 * z.sum() / len(batch)
        optimizer.zero_grad()
        loss.backward()
        weight = decoder.weight
        weight.grad -= (weight.grad * weight).sum(0) * weight.detach()  # no step along the rows
        optimizer.step()
        weight.data = F.normalize(weight.data, dim=0)
    return encoder.weight.data.T, encoder.bias.data, decoder.weight.data.T, decoder.bias.data


@right("5.3")
def in_float64_with_numpy_batches(x, n_latents, l1, steps=2000, seed=0):
    rng = np.random.default_rng(seed)
    return _train(
        x.double(), n_latents, l1, steps, seed, rows=lambda step: torch.from_numpy(rng.integers(0, len(x), 300))
    )


# -------------------------------------------------------------------------------------- 5.4 recovery


def _table(directions, W_dec):
    return F.normalize(directions, dim=1) @ F.normalize(W_dec, dim=1).T


@wrong("5.4", says="dead latents are counted too")
def counts_dead_latents(directions, W_dec, live):
    best = _table(directions, W_dec).max(1)
    return best.values, best.indices


@wrong("5.4", says="number them in the whole dictionary")
def numbers_the_live_ones(directions, W_dec, live):
    best = _table(directions, W_dec[live]).max(1)
    return best.values, best.indices


@wrong("5.4", says="signs matter")
def takes_absolute_cosines(directions, W_dec, live):
    best = (_table(directions, W_dec).abs() * live).max(1)
    return best.values, best.indices


@wrong("5.4", says="a dead latent got 0")
def gives_zero_to_the_dead(directions, W_dec, live):
    best = (_table(directions, W_dec) * live).max(1)
    return best.values, best.indices


@wrong("5.4", says="divide each row by its length")
def takes_products(directions, W_dec, live):
    best = (directions @ W_dec.T).masked_fill(~live, -torch.inf).max(1)
    return best.values, best.indices


@wrong("5.4", says="divide each row by its length")
def normalises_the_features_alone(directions, W_dec, live):
    best = (F.normalize(directions, dim=1) @ W_dec.T).masked_fill(~live, -torch.inf).max(1)
    return best.values, best.indices


@wrong("5.4", says="divide each row by its length")
def trusts_the_features_to_have_length_1(directions, W_dec, live):
    best = (directions @ F.normalize(W_dec, dim=1).T).masked_fill(~live, -torch.inf).max(1)
    return best.values, best.indices


@wrong("5.4", says="normalise over dim=1")
def normalises_the_columns_of_both(directions, W_dec, live):
    table = F.normalize(directions, dim=0) @ F.normalize(W_dec, dim=0).T
    best = table.masked_fill(~live, -torch.inf).max(1)
    return best.values, best.indices


@wrong("5.4", says="this is the best feature of each latent")
def looks_from_the_latents(directions, W_dec, live):
    best = _table(directions, W_dec).masked_fill(~live, -torch.inf).max(0)
    return best.values, best.indices


@wrong("5.4", says="the live latents are left out")
def takes_live_for_dead(directions, W_dec, live):
    best = _table(directions, W_dec).masked_fill(live, -torch.inf).max(1)
    return best.values, best.indices


@wrong("5.4", says="this is the mean, MMCS")
def returns_mmcs(directions, W_dec, live):
    best = _table(directions, W_dec).masked_fill(~live, -torch.inf).max(1)
    return best.values.mean(), best.indices


@wrong("5.4", says="return cosine, latent")
def returns_the_latents_first(directions, W_dec, live):
    best = _table(directions, W_dec).masked_fill(~live, -torch.inf).max(1)
    return best.indices, best.values


@wrong("5.4", says="return both")
def returns_the_cosines_alone(directions, W_dec, live):
    return _table(directions, W_dec).masked_fill(~live, -torch.inf).amax(1)


@wrong("5.4", says="`W_dec` was changed in place")
def normalises_in_place(directions, W_dec, live):
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    best = _table(directions, W_dec).masked_fill(~live, -torch.inf).max(1)
    return best.values, best.indices


@wrong("5.4", says="or a clamp")
def clamps_the_cosines(directions, W_dec, live):
    best = _table(directions, W_dec).masked_fill(~live, -torch.inf).clamp(min=0).max(1)
    return best.values, best.indices


@wrong("5.4", says="not the largest in size")
def takes_the_cosine_largest_in_size(directions, W_dec, live):
    table = _table(directions, W_dec)
    latent = (table.abs() * live).argmax(1)
    return table.gather(1, latent[:, None])[:, 0], latent


@wrong("5.4", says="the lengths of the rows must not decide")
def chooses_by_the_product(directions, W_dec, live):
    latent = (directions @ W_dec.T).masked_fill(~live, -torch.inf).argmax(1)
    return _table(directions, W_dec).gather(1, latent[:, None])[:, 0], latent


@right("5.4")
def with_numbers_of_the_live(directions, W_dec, live):
    alive = live.nonzero()[:, 0]
    cosine = torch.einsum("fd,ld->fl", F.normalize(directions, dim=-1), F.normalize(W_dec[alive], dim=-1))
    return cosine.amax(-1), alive[cosine.argmax(-1)]


@right("5.4")
def feature_by_feature(directions, W_dec, live):
    values, latents = [], []
    for f in directions.double():
        cosine = {j: F.cosine_similarity(f, W_dec[j].double(), dim=0).item() for j in range(len(W_dec)) if live[j]}
        latents.append(max(cosine, key=cosine.get))
        values.append(cosine[latents[-1]])
    return values, latents


@right("5.4")
def recovery_in_numpy(directions, W_dec, live):
    f, w = directions.cpu().numpy().astype(float), W_dec.cpu().numpy().astype(float)
    cosine = (f / np.linalg.norm(f, axis=1)[:, None]) @ (w / np.linalg.norm(w, axis=1)[:, None]).T
    cosine[:, ~live.cpu().numpy()] = -2
    return cosine.max(1), cosine.argmax(1)


@right("5.4")
def with_the_library(directions, W_dec, live):
    values, which = sae.best_cosines(wanted=directions, found=W_dec[live])
    return values, torch.arange(len(W_dec), device=live.device)[live][which]


# --------------------------------------------------------------------------------- 5.6 topk_latents


def _kept(values, by, k, dim=-1):
    where = by.topk(k, dim=dim).indices
    return torch.zeros_like(values).scatter(dim, where, values.gather(dim, where))


@wrong("5.6", says="the ReLU is missing")
def takes_the_largest_of_pre(pre, k):
    return _kept(pre, pre, k)


@wrong("5.6", says="not the largest absolute values")
def takes_the_largest_in_size(pre, k):
    return _kept(pre, pre.abs(), k)


@wrong("5.6", says="the k latents of each sample")
def takes_the_largest_of_columns(pre, k):
    z = pre.relu()
    return _kept(z, z, min(k, len(z)), dim=0)


@wrong("5.6", says="BatchTopK")
def takes_the_largest_of_the_batch(pre, k):
    z = pre.relu()
    return z * (z >= z.flatten().topk(k * len(z)).values[-1])


@wrong("5.6", says="this keeps k in the whole batch")
def keeps_k_in_all(pre, k):
    z = pre.relu()
    return z * (z >= z.flatten().topk(k).values[-1])


@wrong("5.6", says="these are ones")
def returns_a_mask(pre, k):
    z = pre.relu()
    return (_kept(z, z, k) > 0).float()


@wrong("5.6", says="the k values alone")
def returns_the_values_alone(pre, k):
    return pre.relu().topk(k, dim=-1).values


@wrong("5.6", says="the values are sorted")
def puts_the_values_first(pre, k):
    top = pre.relu().topk(k, dim=-1).values
    return F.pad(top, (0, pre.shape[1] - k))


@wrong("5.6", says="one too few")
def keeps_what_is_above_the_last(pre, k):
    z = pre.relu()
    return z * (z > z.topk(k, dim=-1).values[:, -1:])


@wrong("5.6", says="these are the others")
def removes_the_largest(pre, k):
    z = pre.relu()
    return z.scatter(-1, z.topk(k, dim=-1).indices, 0.0)


@wrong("5.6", says="these are the smallest")
def keeps_the_smallest(pre, k):
    z = pre.relu()
    return _kept(z, -pre, k)


@wrong("5.6", says="this is the ReLU alone")
def keeps_everything(pre, k):
    return pre.relu()


@wrong("5.6", says="`pre` was changed in place")
def bends_in_place(pre, k):
    z = pre.relu_()
    return _kept(z, z, k)


@wrong("5.6", says="or torch.no_grad() on the way")
def works_without_gradient(pre, k):
    with torch.no_grad():
        return _kept(pre.relu(), pre.relu(), k)


@wrong("5.6", says="no .detach()")
def detaches_what_stays(pre, k):
    top = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, top.indices, top.values.detach())


@wrong("5.6", says="stay in torch")
def row_by_row_in_numpy(pre, k):
    z = np.maximum(pre.cpu().numpy(), 0)
    for row in z:
        row[np.argsort(row)[: len(row) - k]] = 0
    return torch.from_numpy(z)


@wrong("5.6", says="none reaches it")
def goes_through_lists(pre, k):
    return _kept(pre.relu(), pre.relu(), k).tolist()


@wrong("5.6", says="a gradient where a latent was dropped")
def passes_the_gradient_straight_through(pre, k):
    z = pre.relu()
    return z + (_kept(z, z, k) - z).detach()


@wrong("5.6", says="the slope of each latent in its own pre")
def sends_the_gradient_elsewhere(pre, k):
    z = pre.relu()
    return _kept(z, z, k).detach() + pre.flip(1) - pre.flip(1).detach()


@wrong("5.6", says="start from torch.zeros_like")
def fills_with_a_little(pre, k):
    z = pre.relu()
    kept = _kept(z, z, k)
    return torch.where(kept > 0, kept, torch.full_like(kept, 1e-8))


@wrong("5.6", says="k is the argument")
def always_keeps_two(pre, k):
    z = pre.relu()
    return _kept(z, z, 2)


@wrong("5.6", says="there is no (k + 1)-th")
def asks_for_one_more(pre, k):
    z = pre.relu()
    return z * (z > z.topk(k + 1, dim=-1).values[:, -1:])


@right("5.6")
def with_a_threshold(pre, k):
    z = F.relu(pre)
    return torch.where(z >= z.topk(k).values.amin(-1, keepdim=True), z, torch.zeros_like(z))


@right("5.6")
def chosen_before_the_relu(pre, k):
    top = torch.topk(pre.double(), k, dim=1, sorted=False)
    return torch.zeros_like(pre.double()).scatter_(1, top.indices, top.values).relu()


@right("5.6")
def row_by_row(pre, k):
    rows = []
    for row in pre.clamp(min=0):
        mask = torch.zeros_like(row, dtype=torch.bool)
        mask[row.argsort(stable=True)[len(row) - k :]] = True
        rows.append(torch.where(mask, row, row.new_zeros(())))
    return torch.stack(rows)


@right("5.6")
def by_rank(pre, k):
    rank = pre.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < k) * pre.clamp_min(0)


# ---------------------------------------------------------------------------------------- 5.5 report


def _numbers(x, x_hat, z, b_dec, fvu=None, l0=None, bias=None):
    w, v = x_hat - b_dec, x - b_dec
    fvu = ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum() if fvu is None else fvu
    l0 = (z > 0).float().sum(-1).mean() if l0 is None else l0
    bias = (w**2).sum() / (w * v).sum() if bias is None else bias
    return float(fvu), float(l0), float(bias)


@wrong("5.5", says="about the mean of x, not about 0")
def divides_by_the_squared_length(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=((x - x_hat) ** 2).sum() / (x**2).sum())


@wrong("5.5", says="about the mean of x, not about b_dec")
def measures_variance_from_b_dec(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=((x - x_hat) ** 2).sum() / ((x - b_dec) ** 2).sum())


@wrong("5.5", says="this averages the fractions of the dimensions")
def averages_over_the_dimensions(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=(((x - x_hat) ** 2).sum(0) / ((x - x.mean(0)) ** 2).sum(0)).mean())


@wrong("5.5", says="this averages the fractions of the samples")
def averages_over_the_samples(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=(((x - x_hat) ** 2).sum(1) / ((x - x.mean(0)) ** 2).sum(1)).mean())


@wrong("5.5", says="this is the variance explained")
def returns_the_variance_explained(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=1 - ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())


@wrong("5.5", says="this is the mean squared error")
def returns_the_mean_squared_error(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=F.mse_loss(x_hat, x))


@wrong("5.5", says="each dimension has a mean of its own")
def takes_one_mean_for_all(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=((x - x_hat) ** 2).sum() / ((x - x.mean()) ** 2).sum())


@wrong("5.5", says="divides by n - 1")
def mixes_n_and_n_minus_1(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=((x - x_hat) ** 2).mean(0).sum() / x.var(0).sum())


@wrong("5.5", says="the error counts whole")
def forgives_a_constant_error(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, fvu=(x - x_hat).var(0).sum() / x.var(0).sum())


@wrong("5.5", says="this is the share of the latents")
def returns_the_share_of_latents(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, l0=(z > 0).float().mean())


@wrong("5.5", says="this is the sum of the values")
def sums_the_values(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, l0=z.sum(-1).mean())


@wrong("5.5", says="this counts latents that fire on any sample")
def counts_live_latents(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, l0=(z > 0).any(0).sum())


@wrong("5.5", says="this is how often a latent fires")
def counts_over_the_wrong_axis(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, l0=(z > 0).float().sum(0).mean())


@wrong("5.5", says="both are measured from b_dec")
def measures_from_the_origin(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, bias=(x_hat**2).sum() / (x_hat * x).sum())


@wrong("5.5", says="upside down: E|w|^2 stands above")
def turns_the_bias_round(x, x_hat, z, b_dec):
    w, v = x_hat - b_dec, x - b_dec
    return _numbers(x, x_hat, z, b_dec, bias=(w * v).sum() / (w**2).sum())


@wrong("5.5", says="this is the slope of w on v")
def returns_the_slope(x, x_hat, z, b_dec):
    w, v = x_hat - b_dec, x - b_dec
    return _numbers(x, x_hat, z, b_dec, bias=(w * v).sum() / (v**2).sum())


@wrong("5.5", says="not a mean of fractions")
def averages_the_biases(x, x_hat, z, b_dec):
    w, v = x_hat - b_dec, x - b_dec
    return _numbers(x, x_hat, z, b_dec, bias=((w**2).sum(1) / (w * v).sum(1)).mean())


@wrong("5.5", says="the ratio of the lengths")
def compares_lengths(x, x_hat, z, b_dec):
    w, v = x_hat - b_dec, x - b_dec
    return _numbers(x, x_hat, z, b_dec, bias=w.norm(dim=1).mean() / v.norm(dim=1).mean())


@wrong("5.5", says="the order is fvu, l0, bias")
def returns_l0_first(x, x_hat, z, b_dec):
    fvu, l0, bias = _numbers(x, x_hat, z, b_dec)
    return l0, fvu, bias


@wrong("5.5", says="return all of them")
def forgets_the_bias(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec)[:2]


@wrong("5.5", says="z > 0, not z >= 0")
def counts_zeros_too(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, l0=(z >= 0).float().sum(-1).mean())


@wrong("5.5", says="no rounding")
def cuts_the_mean_to_an_integer(x, x_hat, z, b_dec):
    return _numbers(x, x_hat, z, b_dec, l0=int((z > 0).float().sum(-1).mean()))


@right("5.5")
def report_with_scikit_learn(x, x_hat, z, b_dec):
    x, x_hat, z, b_dec = (t.cpu().double().numpy() for t in (x, x_hat, z, b_dec))
    w, v = x_hat - b_dec, x - b_dec
    fvu = 1 - r2_score(x, x_hat, multioutput="variance_weighted")
    return fvu, np.count_nonzero(z) / len(z), np.mean((w**2).sum(1)) / np.mean(np.einsum("sd,sd->s", w, v))


@right("5.5")
def report_of_variances(x, x_hat, z, b_dec):
    error = x - x_hat
    fvu = (error.var(0, correction=0) + error.mean(0) ** 2).sum() / x.var(0, correction=0).sum()
    w = x_hat - b_dec
    return fvu, (z > 0).sum(dim=1).double().mean(), w.pow(2).mean() / (w * (x - b_dec)).mean()


@right("5.5")
def sample_by_sample_in_float64(x, x_hat, z, b_dec):
    x, x_hat, b_dec = x.double(), x_hat.double(), b_dec.double()
    mean = x.mean(0)
    error = varies = square = along = count = 0.0
    for row, written, latents in zip(x, x_hat, z, strict=True):
        error += ((row - written) @ (row - written)).item()
        varies += ((row - mean) @ (row - mean)).item()
        square += ((written - b_dec) @ (written - b_dec)).item()
        along += ((written - b_dec) @ (row - b_dec)).item()
        count += int((latents > 0).sum())
    return [error / varies, count / len(x), square / along]


# --------------------------------------------------------------------------------- 5.7 revival_loss


def _top(values, k):
    return _kept(values, values, min(k, values.shape[-1]))


def _gap(error, z, W_dec):
    return (error.detach() - z @ W_dec) ** 2


def _chosen(pre, dead, k):
    return _top(pre.relu() * dead, k)


@wrong("5.7", says="live latents take part too")
def lets_live_latents_in(error, pre, dead, W_dec, k):
    return _gap(error, _top(pre.relu(), k), W_dec).sum(-1).mean()


@wrong("5.7", says="choose among the dead ones")
def chooses_before_it_masks(error, pre, dead, W_dec, k):
    return _gap(error, _top(pre.relu(), k) * dead, W_dec).sum(-1).mean()


@wrong("5.7", says="`dead` is True where a latent is dead")
def takes_dead_for_live(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, ~dead, k), W_dec).sum(-1).mean()


@wrong("5.7", says="all dead latents take part")
def lets_all_dead_latents_in(error, pre, dead, W_dec, k):
    return _gap(error, pre.relu() * dead, W_dec).sum(-1).mean()


@wrong("5.7", says="the ReLU is missing")
def writes_with_negative_values(error, pre, dead, W_dec, k):
    z = _top(pre[:, dead], k)
    return _gap(error, z, W_dec[dead]).sum(-1).mean()


@wrong("5.7", says="choose min(k, number of dead latents)")
def needs_k_dead_latents(error, pre, dead, W_dec, k):
    z = pre[:, dead].relu()
    return _gap(error, _kept(z, z, k), W_dec[dead]).sum(-1).mean()


@wrong("5.7", says="not k * sample in the whole batch")
def chooses_in_the_batch(error, pre, dead, W_dec, k):
    z = pre.relu() * dead
    least = z.flatten().topk(min(k * len(z), z.numel())).values[-1]
    return _gap(error, z * (z >= least), W_dec).sum(-1).mean()


@wrong("5.7", says="this is the mean over d too")
def averages_the_difference(error, pre, dead, W_dec, k):
    return F.mse_loss(_chosen(pre, dead, k) @ W_dec, error.detach())


@wrong("5.7", says="this is the sum over the samples too")
def sums_over_the_samples(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), W_dec).sum()


@wrong("5.7", says="not divided by the size of the error")
def divides_by_the_error(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), W_dec).sum(-1).mean() / error.detach().pow(2).sum(-1).mean()


@wrong("5.7", says="the difference to the error")
def measures_what_is_written(error, pre, dead, W_dec, k):
    return (_chosen(pre, dead, k) @ W_dec).pow(2).sum(-1).mean()


@wrong("5.7", says="not plus")
def adds_the_error(error, pre, dead, W_dec, k):
    return _gap(-error, _chosen(pre, dead, k), W_dec).sum(-1).mean()


@wrong("5.7", says="this is the loss of each sample")
def keeps_each_sample(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), W_dec).sum(-1)


@wrong("5.7", says="the error is a target")
def trains_the_error(error, pre, dead, W_dec, k):
    return (error - _chosen(pre, dead, k) @ W_dec).pow(2).sum(-1).mean()


@wrong("5.7", says="a gradient for the dead latents' pre")
def detaches_the_values(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k).detach(), W_dec).sum(-1).mean()


@wrong("5.7", says="a gradient for the dead latents' rows")
def detaches_the_rows(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), W_dec.detach()).sum(-1).mean()


@wrong("5.7", says="only the error is detached")
def returns_a_plain_number(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), W_dec).sum(-1).mean().item()


@wrong("5.7", says="the error itself is left")
def gives_nothing_where_none_is_dead(error, pre, dead, W_dec, k):
    if not dead.any():
        return error.new_zeros(())
    return _gap(error, _chosen(pre, dead, k), W_dec).sum(-1).mean()


@wrong("5.7", says="the ReLU is missing")
def sets_the_living_to_zero_instead(error, pre, dead, W_dec, k):
    return _gap(error, _top(pre * dead, k), W_dec).sum(-1).mean()


@wrong("5.7", says="1/32 is the caller's")
def weighs_the_loss(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), W_dec).sum(-1).mean() / 32


@wrong("5.7", says="not divided by their lengths")
def normalises_the_rows(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k), F.normalize(W_dec, dim=1)).sum(-1).mean()


@wrong("5.7", says="not the first ones")
def takes_the_first_rows(error, pre, dead, W_dec, k):
    z = _top(pre[:, dead].relu(), k)
    return _gap(error, z, W_dec[: z.shape[1]]).sum(-1).mean()


@wrong("5.7", says="one too many")
def chooses_one_more(error, pre, dead, W_dec, k):
    return _gap(error, _chosen(pre, dead, k + 1), W_dec).sum(-1).mean()


@right("5.7")
def with_infinities_and_einsum(error, pre, dead, W_dec, k):
    top = pre.masked_fill(~dead, -torch.inf).topk(min(k, pre.shape[1]), dim=-1)
    written = torch.einsum("sk,skd->sd", top.values.relu(), W_dec[top.indices])
    return (written - error.detach()).square().sum() / len(error)


@right("5.7")
def among_the_dead_alone(error, pre, dead, W_dec, k):
    z = F.relu(pre[:, dead])
    z = z * (z >= z.topk(min(k, z.shape[1])).values.amin(-1, keepdim=True)) if z.shape[1] else z
    return torch.norm(error.clone().detach() - z @ W_dec[dead], dim=1).pow(2).mean()


@right("5.7")
def sample_by_sample_with_loops(error, pre, dead, W_dec, k):
    total, numbers = 0.0, dead.nonzero()[:, 0].tolist()
    for target, row in zip(error.detach().double(), pre.double(), strict=True):
        left = target
        for j in sorted(numbers, key=lambda j: -row[j].item())[:k]:
            if row[j] > 0:
                left = left - row[j] * W_dec[j].double()
        total = total + left @ left
    return total / len(error)


@right("5.7")
def by_rank_among_the_dead(error, pre, dead, W_dec, k):
    z = pre.relu() * dead
    rank = z.argsort(dim=1, descending=True).argsort(dim=1)
    return (error.data - (z * (rank < k)) @ W_dec).pow(2).sum(1).mean(0)


# ------------------------------------------------------------------------- 5.8 absorbing_dictionary


def _tilted(parent, child, encoder=None, decoder=None, b_enc=None):
    W_enc = torch.stack(encoder or [parent - child, 2**0.5 * child], dim=1)
    W_dec = torch.stack(decoder or [parent, (parent + child) / 2**0.5])
    return W_enc, torch.zeros(2).to(parent) if b_enc is None else b_enc, W_dec


@wrong("5.8", says="the dictionary of the two features themselves")
def writes_the_features_themselves(parent, child):
    return _tilted(parent, child, encoder=[parent, child], decoder=[parent, child])


@wrong("5.8", says="as parent - child does")
def never_silences_the_parent(parent, child):
    return _tilted(parent, child, encoder=[parent, 2**0.5 * child])


@wrong("5.8", says="its row is (parent + child) / sqrt 2")
def keeps_the_childs_row(parent, child):
    return _tilted(parent, child, decoder=[parent, child])


@wrong("5.8", says="divide the row by it")
def forgets_to_normalise(parent, child):
    return _tilted(parent, child, encoder=[parent - child, child], decoder=[parent, parent + child])


@wrong("5.8", says="a latent's value is the length of the sample")
def forgets_the_length_of_the_sample(parent, child):
    return _tilted(parent, child, encoder=[parent - child, child])


@wrong("5.8", says="read the child alone")
def reads_parent_and_child(parent, child):
    return _tilted(parent, child, encoder=[parent - child, (parent + child) / 2**0.5])


@wrong("5.8", says="latent 0 is the parent's, latent 1 the tilted one")
def exchanges_the_latents(parent, child):
    W_enc, b_enc, W_dec = _tilted(parent, child)
    return W_enc.flip(1), b_enc, W_dec.flip(0)


@wrong("5.8", says="transposed")
def stacks_rows(parent, child):
    W_enc, b_enc, W_dec = _tilted(parent, child)
    return W_enc.T, b_enc, W_dec


@wrong("5.8", says="b_enc alone acts on the sample 0")
def has_a_bias_above_zero(parent, child):
    return _tilted(parent, child, b_enc=torch.tensor([0.1, 0.0]).to(parent))


@wrong("5.8", says="latent 1 is for parent + child")
def silences_both_on_the_pair(parent, child):
    return _tilted(parent, child, encoder=[parent - child, -child])


@wrong("5.8", says="expected")
def knows_one_pair_by_heart(parent, child):
    eye = torch.eye(len(parent)).to(parent)
    return _tilted(eye[0], eye[1])


@wrong("5.8", says="the order is W_enc, b_enc, W_dec")
def returns_the_rows_before_the_biases(parent, child):
    W_enc, b_enc, W_dec = _tilted(parent, child)
    return W_enc, W_dec, b_enc


@wrong("5.8", says="return all of them")
def returns_no_biases(parent, child):
    W_enc, _, W_dec = _tilted(parent, child)
    return W_enc, W_dec


@right("5.8")
def reads_with_a_bias(parent, child):
    s = 2**0.5  # latent 1 reads 3 s on the pair and s on the parent: the bias takes off 2 s
    return _tilted(
        parent,
        child,
        encoder=[parent - 2 * child, s * (parent + 2 * child)],
        b_enc=torch.tensor([0.0, -2 * s]).to(parent),
    )


@right("5.8")
def in_numpy_float64(parent, child):
    p, c = parent.cpu().double().numpy(), child.cpu().double().numpy()
    both = (p + c) / np.linalg.norm(p + c)
    return np.stack([p - 5 * c, np.sqrt(2) * c], axis=1), np.zeros(2), np.stack([p, both])


@right("5.8")
def with_normalize_and_columns(parent, child):
    rows = F.normalize(torch.stack([parent, parent + child]), dim=1)
    return torch.linalg.pinv(rows), parent.new_zeros(2), rows


# ---------------------------------------------------------------------------------- 5.9 random_mmcs


def _dictionaries(directions, n_latents, n_draws, seed, draw=torch.randn):
    drawing = torch.Generator().manual_seed(seed)
    return draw(n_draws, n_latents, directions.shape[1], generator=drawing).to(directions)


def _cosines(directions, n_latents, n_draws, seed, draw=torch.randn):
    return F.normalize(_dictionaries(directions, n_latents, n_draws, seed, draw), dim=-1) @ directions.T


@wrong("5.9", says="no absolute value")
def forgets_the_signs(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).abs().amax(1).mean(-1)


@wrong("5.9", says="torch.rand has no negative numbers")
def draws_uniform_numbers(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed, torch.rand).amax(1).mean(-1)


@wrong("5.9", says="the corners of the cube")
def draws_from_the_cube(directions, n_latents, n_draws, seed):
    def cube(*shape, generator):
        return 2 * torch.rand(*shape, generator=generator) - 1

    return _cosines(directions, n_latents, n_draws, seed, cube).amax(1).mean(-1)


@wrong("5.9", says="divide each random row by its length")
def leaves_the_lengths(directions, n_latents, n_draws, seed):
    return (_dictionaries(directions, n_latents, n_draws, seed) @ directions.T).amax(1).mean(-1)


@wrong("5.9", says="normalise over the last axis")
def normalises_over_the_latents(directions, n_latents, n_draws, seed):
    return (F.normalize(_dictionaries(directions, n_latents, n_draws, seed), dim=1) @ directions.T).amax(1).mean(-1)


@wrong("5.9", says="this is the best feature of each latent")
def takes_the_best_feature(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).amax(2).mean(-1)


@wrong("5.9", says="this is the largest of all")
def takes_the_largest_of_all(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).amax((1, 2))


@wrong("5.9", says="this is the mean of all cosines")
def averages_all_cosines(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).mean((1, 2))


@wrong("5.9", says="not one per feature")
def draws_as_many_as_features(directions, n_latents, n_draws, seed):
    return _cosines(directions, len(directions), n_draws, seed).amax(1).mean(-1)


@wrong("5.9", says="not their mean")
def averages_the_draws(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).amax(1).mean()


@wrong("5.9", says="MMCS is their mean")
def keeps_the_features(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).amax(1)


@wrong("5.9", says="seed the generator once")
def seeds_every_draw(directions, n_latents, n_draws, seed):
    return torch.stack([_cosines(directions, n_latents, 1, seed)[0].amax(0).mean() for _ in range(n_draws)])


@wrong("5.9", says="the same draws from the same seed")
def forgets_the_seed(directions, n_latents, n_draws, seed):
    rows = F.normalize(torch.randn(n_draws, n_latents, directions.shape[1]).to(directions), dim=-1)
    return (rows @ directions.T).amax(1).mean(-1)


@wrong("5.9", says="the seed is the argument")
def always_seeds_with_0(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, 0).amax(1).mean(-1)


@wrong("5.9", says="compared with all features")
def compares_the_first_feature(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).amax(1)[:, 0]


@wrong("5.9", says="whatever they are")
def takes_the_axes_for_features(directions, n_latents, n_draws, seed):
    d = directions.shape[1]
    axes = torch.eye(d).to(directions)[torch.arange(len(directions)) % d]
    return _cosines(axes, n_latents, n_draws, seed).amax(1).mean(-1)


@wrong("5.9", says="whatever they are")
def draws_the_features_too(directions, n_latents, n_draws, seed):
    own = torch.randn(directions.shape, generator=torch.Generator().manual_seed(seed + 1)).to(directions)
    return _cosines(F.normalize(own, dim=1), n_latents, n_draws, seed).amax(1).mean(-1)


@wrong("5.9", says="not the median")
def takes_the_median(directions, n_latents, n_draws, seed):
    return _cosines(directions, n_latents, n_draws, seed).amax(1).median(-1).values


@wrong("5.9", says="n_latents unit rows in each dictionary")
def draws_too_few(directions, n_latents, n_draws, seed):
    return _cosines(directions, 3 * n_latents // 4, n_draws, seed).amax(1).mean(-1)


@wrong("5.9", says="sqrt(d) is its length on average alone")
def divides_by_the_root_of_d(directions, n_latents, n_draws, seed):
    rows = _dictionaries(directions, n_latents, n_draws, seed) / directions.shape[1] ** 0.5
    return (rows @ directions.T).amax(1).mean(-1)


@right("5.9")
def draw_by_draw(directions, n_latents, n_draws, seed):
    drawing, found = torch.Generator().manual_seed(seed), []
    for _ in range(n_draws):
        rows = torch.randn(n_latents, directions.shape[1], generator=drawing).to(directions)
        found.append(sae.best_cosines(wanted=directions, found=rows)[0].mean().item())
    return found


@right("5.9")
def mmcs_in_numpy(directions, n_latents, n_draws, seed):
    rows = np.random.default_rng(seed).standard_normal((n_draws, n_latents, directions.shape[1]))
    rows /= np.sqrt((rows**2).sum(-1, keepdims=True))
    return np.einsum("nld,fd->nlf", rows, directions.cpu().numpy()).max(axis=1).mean(axis=1)


@right("5.9")
def seeded_globally_in_float64(directions, n_latents, n_draws, seed):
    torch.manual_seed(seed)
    rows = torch.randn(n_draws, n_latents, directions.shape[1], dtype=torch.float64).to(directions.device)
    rows = rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return torch.stack([(row @ directions.double().T).max(dim=0).values.mean() for row in rows])
