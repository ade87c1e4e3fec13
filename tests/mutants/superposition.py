"""Right and wrong answers to the exercises of chapter 04."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tests.mutants import right, wrong
from utils import superposition

# ------------------------------------------------------------------------------------ 4.1 toy_loss


def _out(W, b, x):
    return (x @ W.T @ W + b).relu()


@wrong("4.1", says="the ReLU is missing")
def stays_linear(W, b, x, importance):
    return (importance * (x - (x @ W.T @ W + b)) ** 2).sum(-1).mean()


@wrong("4.1", says="the bias is missing")
def forgets_the_bias(W, b, x, importance):
    return (importance * (x - (x @ W.T @ W).relu()) ** 2).sum(-1).mean()


@wrong("4.1", says="the bias is added before the ReLU")
def adds_the_bias_last(W, b, x, importance):
    return (importance * (x - ((x @ W.T @ W).relu() + b)) ** 2).sum(-1).mean()


@wrong("4.1", says="the bias is added after the two products")
def adds_the_bias_to_x(W, b, x, importance):
    return (importance * (x - ((x + b) @ W.T @ W).relu()) ** 2).sum(-1).mean()


@wrong("4.1", says="the bias is added, not subtracted")
def subtracts_the_bias(W, b, x, importance):
    return (importance * (x - _out(W, -b, x)) ** 2).sum(-1).mean()


@wrong("4.1", says="rows are samples")
def multiplies_in_the_order_of_the_paper(W, b, x, importance):
    return (importance * (x - (W.T @ W @ x + b).relu()) ** 2).sum(-1).mean()


@wrong("4.1", says="rows are samples")
def multiplies_by_w_and_its_transpose(W, b, x, importance):
    return (importance * (x - (x @ W @ W.T + b).relu()) ** 2).sum(-1).mean()


@wrong("4.1", says="no ReLU on the hidden values")
def has_a_relu_twice(W, b, x, importance):
    return (importance * (x - ((x @ W.T).relu() @ W + b).relu()) ** 2).sum(-1).mean()


@wrong("4.1", says="the mean over the features too")
def averages_over_features(W, b, x, importance):
    return (importance * (x - _out(W, b, x)) ** 2).mean()


@wrong("4.1", says="the sum over the batch too")
def sums_over_the_batch(W, b, x, importance):
    return (importance * (x - _out(W, b, x)) ** 2).sum()


@wrong("4.1", says="the two are exchanged")
def sums_over_the_batch_and_averages_over_features(W, b, x, importance):
    return (importance * (x - _out(W, b, x)) ** 2).sum(0).mean()


@wrong("4.1", says="importance is missing")
def forgets_the_importance(W, b, x, importance):
    return ((x - _out(W, b, x)) ** 2).sum(-1).mean()


@wrong("4.1", says="importance is squared")
def weighs_the_error_before_squaring(W, b, x, importance):
    return (importance * (x - _out(W, b, x))).pow(2).sum(-1).mean()


@wrong("4.1", says="importance runs along the samples")
def weighs_the_samples(W, b, x, importance):
    return (importance[:, None] * (x - _out(W, b, x)) ** 2).sum(-1).mean()


@wrong("4.1", says="do not divide by the sum of the importances")
def normalises_the_importances(W, b, x, importance):
    return (importance / importance.sum() * (x - _out(W, b, x)) ** 2).sum(-1).mean()


@wrong("4.1", says="not its absolute value")
def takes_absolute_errors(W, b, x, importance):
    return (importance * (x - _out(W, b, x)).abs()).sum(-1).mean()


@wrong("4.1", says="this is the loss of each sample")
def keeps_the_samples(W, b, x, importance):
    return (importance * (x - _out(W, b, x)) ** 2).sum(-1)


@wrong("4.1", says="this is the loss of each feature")
def keeps_the_features(W, b, x, importance):
    return (importance * (x - _out(W, b, x)) ** 2).mean(0)


@wrong("4.1", says="`b` was changed in place")
def adds_to_the_bias_it_was_given(W, b, x, importance):
    b += 0.1
    return (importance * (x - _out(W, b - 0.1, x)) ** 2).sum(-1).mean()


@right("4.1")
def with_einsum(W, b, x, importance):
    hidden = torch.einsum("hf,bf->bh", W, x)
    out = torch.einsum("hf,bh->bf", W, hidden).add(b).clamp(min=0)
    return torch.einsum("f,bf->b", importance, (out - x).square()).mean()


@right("4.1")
def sample_by_sample(W, b, x, importance):
    losses = [(importance * (row - torch.relu(W.T @ (W @ row) + b)) ** 2).sum() for row in x]
    return sum(losses) / len(losses)


@right("4.1")
def in_numpy_float64(W, b, x, importance):
    W, b, x, importance = (t.cpu().double().numpy() for t in (W, b, x, importance))
    return float((importance * (x - np.maximum(0, x @ W.T @ W + b)) ** 2).sum() / len(x))


@right("4.1")
def with_the_matrix_first(W, b, x, importance):
    return (importance[:, None] * (x.T - torch.relu(W.T @ W @ x.T + b[:, None])) ** 2).mean(1).sum()


# ---------------------------------------------------------------------------------- 4.2 train_toys


def _train(
    sparsity,
    n_features,
    n_hidden,
    importance,
    steps=1500,
    *,
    lr=5e-3,
    batch=256,
    scale=0.35,
    relu=True,
    draw=None,
    fresh=True,
    same_start=False,
    bias=True,
    reduce=lambda loss: loss.sum(),
    output=torch.relu,
    late_bias=False,
    error=torch.square,
    zero=True,
    train_w=True,
):
    k, device = len(sparsity), sparsity.device
    start = torch.randn(1 if same_start else k, n_hidden, n_features, device=device) * scale
    W = start.repeat(k // len(start), 1, 1).requires_grad_(train_w)
    b = torch.zeros(k, n_features, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([W, b] if bias else [W], lr=lr)

    def features():
        if draw:
            return draw(k, batch, n_features, sparsity)
        on = torch.rand(k, batch, n_features, device=device) >= sparsity[:, None, None]
        return torch.rand(k, batch, n_features, device=device) * on

    x = features()
    for _ in range(steps):
        x = features() if fresh else x
        out = x @ W.mT @ W + (0 if late_bias else b[:, None])
        out = (output(out) if relu else out) + (b[:, None] if late_bias else 0)
        loss = reduce((importance * error(x - out)).sum(-1).mean(-1))
        if zero:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W.detach(), b.detach()


@wrong("4.2", says="the probability of a zero, not of being on")
def takes_sparsity_for_density(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(1 - sparsity, n_features, n_hidden, importance, steps)


@wrong("4.2", says="one batch serves all steps")
def draws_one_batch(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, fresh=False)


@wrong("4.2", says="one batch serves all steps")
def draws_one_large_batch(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, fresh=False, batch=4096)


@wrong("4.2", says="a sparsity of its own")
def takes_the_first_sparsity(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity[:1].expand_as(sparsity), n_features, n_hidden, importance, steps)


@wrong("4.2", says="a sparsity of its own")
def takes_the_least_sparsity(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity.min().expand_as(sparsity), n_features, n_hidden, importance, steps)


@wrong("4.2", says="a sparsity of its own")
def takes_the_largest_sparsity(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity.max().expand_as(sparsity), n_features, n_hidden, importance, steps)


@wrong("4.2", says="a sparsity of its own")
def takes_the_mean_sparsity(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity.mean().expand_as(sparsity), n_features, n_hidden, importance, steps)


@wrong("4.2", says="is `importance` in it")
def trains_without_importance(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, torch.ones_like(importance), steps)


@wrong("4.2", says="is `importance` in it")
def gives_importance_to_the_wrong_features(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance.max() + importance.min() - importance, steps)


@wrong("4.2", says="what a linear model finds")
def trains_without_relu(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, relu=False)


@wrong("4.2", says="at W = 0 the gradient of W is 0")
def starts_at_zero(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, scale=0.0)


@wrong("4.2", says="draw random weights for every instance")
def starts_all_alike(sparsity, n_features, n_hidden, importance, steps=1500):
    def one_for_all(k, batch, n, sparsity):
        x = torch.rand(batch, n, device=sparsity.device)
        return x * (torch.rand(batch, n, device=sparsity.device) >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, same_start=True, draw=one_for_all)


@wrong("4.2", says="the number of steps is the argument")
def trains_as_long_as_it_likes(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, 20)


@wrong("4.2", says="is there optimizer.step()")
def never_steps(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, lr=1e-9)


@wrong("4.2", says="learning rate")
def learns_too_slowly(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, lr=2e-4)


@wrong("4.2", says="b is still 0")
def never_trains_the_bias(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, bias=False)


@wrong("4.2", says="uniform on [0, 1]")
def draws_values_of_both_signs(sparsity, n_features, n_hidden, importance, steps=1500):
    def signed(k, batch, n, sparsity):
        x = 2 * torch.rand(k, batch, n, device=sparsity.device) - 1
        return x * (torch.rand(k, batch, n, device=sparsity.device) >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=signed)


@wrong("4.2", says="transposed")
def returns_columns_as_rows(sparsity, n_features, n_hidden, importance, steps=1500):
    W, b = _train(sparsity, n_features, n_hidden, importance, steps)
    return W.mT, b


@wrong("4.2", says="W comes first")
def returns_the_bias_first(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps)[::-1]


@wrong("4.2", says="one model for each sparsity")
def trains_one_model(sparsity, n_features, n_hidden, importance, steps=1500):
    W, b = _train(sparsity, n_features, n_hidden, importance, steps)
    return W[0], b[0]


@wrong("4.2", says="return both")
def returns_the_weights_alone(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps)[0]


@wrong("4.2", says="used as the value too")
def takes_one_draw_for_mask_and_value(sparsity, n_features, n_hidden, importance, steps=1500):
    def draw(k, batch, n, sparsity):
        drawn = torch.rand(k, batch, n, device=sparsity.device)
        return drawn * (drawn >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=draw)


@wrong("4.2", says="is `sparsity` squared")
def squares_the_sparsity(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity**2, n_features, n_hidden, importance, steps)


@wrong("4.2", says="without a root")
def takes_the_root_of_the_sparsity(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity**0.5, n_features, n_hidden, importance, steps)


@wrong("4.2", says="in another order than")
def trains_in_another_order(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity.flip(0), n_features, n_hidden, importance, steps)


@wrong("4.2", says="in another order than")
def sorts_the_sparsities(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity.sort().values, n_features, n_hidden, importance, steps)


@wrong("4.2", says="in another order than")
def returns_the_instances_reversed(sparsity, n_features, n_hidden, importance, steps=1500):
    W, b = _train(sparsity, n_features, n_hidden, importance, steps)
    return W.flip(0), b.flip(0)


@wrong("4.2", says="return all the models that were trained")
def spoils_every_second_instance(sparsity, n_features, n_hidden, importance, steps=1500):
    W, b = _train(sparsity, n_features, n_hidden, importance, steps)
    keep = torch.arange(len(W), device=W.device)[:, None] % 2 if len(W) > 3 else torch.ones(len(W), 1, device=W.device)
    return W * keep[..., None], b * keep


@wrong("4.2", says="not trained to the end")
def shrinks_most_instances(sparsity, n_features, n_hidden, importance, steps=1500):
    W, b = _train(sparsity, n_features, n_hidden, importance, steps)
    W[3:] *= 0.5
    return W, b


@wrong("4.2", says="each with one optimizer.step()")
def runs_half_of_the_steps(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, max(1, steps // 2))


@wrong("4.2", says="each with one optimizer.step()")
def runs_a_step_too_many(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps + 1)


@wrong("4.2", says="has the bias inside")
def adds_the_bias_after_the_relu(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, late_bias=True)


@wrong("4.2", says="no leaky ReLU")
def has_a_leaky_relu(sparsity, n_features, n_hidden, importance, steps=1500):
    def leaky(x):
        return torch.nn.functional.leaky_relu(x, 0.1)

    return _train(sparsity, n_features, n_hidden, importance, steps, output=leaky)


@wrong("4.2", says="not its absolute value")
def trains_on_absolute_errors(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, error=torch.abs)


@wrong("4.2", says="W does not move: has it requires_grad")
def trains_the_bias_alone(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, train_w=False)


@wrong("4.2", says="is it the *sum* of all their losses")
def trains_the_last_instance(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, reduce=lambda loss: loss[-1])


@wrong("4.2", says="is it the *sum* of all their losses")
def trains_the_worst_instance(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, reduce=lambda loss: loss.max())


@wrong("4.2", says="gradients add up")
def never_sets_gradients_to_zero(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, zero=False)


@wrong("4.2", says="values that are on have a mean of")
def draws_ones(sparsity, n_features, n_hidden, importance, steps=1500):
    def draw(k, batch, n, sparsity):
        drawn = torch.rand(k, batch, n, device=sparsity.device)
        return 1.0 * (drawn >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=draw)


@wrong("4.2", says="values that are on have a mean of")
def draws_values_up_to_two(sparsity, n_features, n_hidden, importance, steps=1500):
    def draw(k, batch, n, sparsity):
        drawn = torch.rand(k, batch, n, device=sparsity.device)
        return 2 * torch.rand_like(drawn) * (drawn >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=draw)


@wrong("4.2", says="values that are on have a mean of")
def draws_no_small_values(sparsity, n_features, n_hidden, importance, steps=1500):
    def draw(k, batch, n, sparsity):
        drawn = torch.rand(k, batch, n, device=sparsity.device)
        return (0.1 + 0.9 * torch.rand_like(drawn)) * (drawn >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=draw)


@wrong("4.2", says="with torch.relu")
def has_a_softplus(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, output=torch.nn.functional.softplus)


@wrong("4.2", says="the sign of b")
def returns_the_bias_subtracted(sparsity, n_features, n_hidden, importance, steps=1500):
    W, b = _train(sparsity, n_features, n_hidden, importance, steps)
    return W, -b


@wrong("4.2", says="each feature on or off by itself")
def turns_all_features_on_together(sparsity, n_features, n_hidden, importance, steps=1500):
    def draw(k, batch, n, sparsity):
        drawn = torch.rand(k, batch, n, device=sparsity.device)
        return drawn * (torch.rand_like(drawn[..., :1]) >= sparsity[:, None, None])

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=draw)


@wrong("4.2", says="b[:, None], sparsity[:, None, None]")
def gives_the_bias_no_axis_for_the_batch(sparsity, n_features, n_hidden, importance, steps=1500):
    k, sparsity, importance = len(sparsity), sparsity.cpu(), importance.cpu()
    W, b = (torch.randn(k, n_hidden, n_features) / 3).requires_grad_(), torch.zeros(k, n_features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=5e-3)
    for _ in range(steps):
        x = torch.rand(k, 200, n_features) * (torch.rand(k, 200, n_features) >= sparsity[:, None, None])
        out = torch.relu(x @ W.mT @ W + b)
        optimizer.zero_grad()
        (importance * (x - out) ** 2).sum(-1).mean(-1).sum().backward()
        optimizer.step()
    return W, b


@wrong("4.2", says="b[:, None], sparsity[:, None, None]")
def gives_sparsity_one_axis(sparsity, n_features, n_hidden, importance, steps=1500):
    k, sparsity, importance = len(sparsity), sparsity.cpu(), importance.cpu()
    W, b = (torch.randn(k, n_hidden, n_features) / 3).requires_grad_(), torch.zeros(k, n_features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=5e-3)
    for _ in range(steps):
        x = torch.rand(k, 200, n_features) * (torch.rand(k, 200, n_features) >= sparsity[:, None])
        out = torch.relu(x @ W.mT @ W + b[:, None])
        optimizer.zero_grad()
        (importance * (x - out) ** 2).sum(-1).mean(-1).sum().backward()
        optimizer.step()
    return W, b


@wrong("4.2", says="b[:, None], sparsity[:, None, None]")
def gives_sparsity_no_axis(sparsity, n_features, n_hidden, importance, steps=1500):
    k, sparsity, importance = len(sparsity), sparsity.cpu(), importance.cpu()
    W, b = (torch.randn(k, n_hidden, n_features) / 3).requires_grad_(), torch.zeros(k, n_features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=5e-3)
    for _ in range(steps):
        x = torch.rand(k, 200, n_features) * (torch.rand(k, 200, n_features) >= sparsity)
        out = torch.relu(x @ W.mT @ W + b[:, None])
        optimizer.zero_grad()
        (importance * (x - out) ** 2).sum(-1).mean(-1).sum().backward()
        optimizer.step()
    return W, b


@wrong("4.2", says="W.mT turns")
def reverses_all_axes_of_w(sparsity, n_features, n_hidden, importance, steps=1500):
    k, sparsity, importance = len(sparsity), sparsity.cpu(), importance.cpu()
    W, b = (torch.randn(k, n_hidden, n_features) / 3).requires_grad_(), torch.zeros(k, n_features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=5e-3)
    for _ in range(steps):
        x = torch.rand(k, 200, n_features) * (torch.rand(k, 200, n_features) >= sparsity[:, None, None])
        out = torch.relu(x @ W.T @ W + b[:, None])
        optimizer.zero_grad()
        (importance * (x - out) ** 2).sum(-1).mean(-1).sum().backward()
        optimizer.step()
    return W, b


@wrong("4.2", says="backward() starts from one number")
def calls_backward_on_all_losses(sparsity, n_features, n_hidden, importance, steps=1500):
    k, sparsity, importance = len(sparsity), sparsity.cpu(), importance.cpu()
    W, b = (torch.randn(k, n_hidden, n_features) / 3).requires_grad_(), torch.zeros(k, n_features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=5e-3)
    for _ in range(steps):
        x = torch.rand(k, 200, n_features) * (torch.rand(k, 200, n_features) >= sparsity[:, None, None])
        out = torch.relu(x @ W.mT @ W + b[:, None])
        optimizer.zero_grad()
        (importance * (x - out) ** 2).sum(-1).mean(-1).backward()
        optimizer.step()
    return W, b


@wrong("4.2", says="scale first, then ask for gradients")
def scales_after_asking_for_gradients(sparsity, n_features, n_hidden, importance, steps=1500):
    k, sparsity, importance = len(sparsity), sparsity.cpu(), importance.cpu()
    W, b = torch.randn(k, n_hidden, n_features, requires_grad=True) / 3, torch.zeros(k, n_features, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=5e-3)
    for _ in range(steps):
        x = torch.rand(k, 200, n_features) * (torch.rand(k, 200, n_features) >= sparsity[:, None, None])
        out = torch.relu(x @ W.mT @ W + b[:, None])
        optimizer.zero_grad()
        (importance * (x - out) ** 2).sum(-1).mean(-1).sum().backward()
        optimizer.step()
    return W, b


@right("4.2")
def averages_over_instances(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, reduce=lambda loss: loss.mean())


@right("4.2")
def with_the_library(sparsity, n_features, n_hidden, importance, steps=1500):
    toys = superposition.train(n_features, n_hidden, sparsity, importance, steps=steps)
    return toys.W, toys.b


@right("4.2")
def in_small_batches_from_small_weights(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, batch=128, scale=0.1, lr=1e-2)


@right("4.2")
def slowly_from_large_weights(sparsity, n_features, n_hidden, importance, steps=1500):
    return _train(sparsity, n_features, n_hidden, importance, steps, scale=0.53, lr=1e-3)


@right("4.2")
def with_a_generator_and_bernoulli(sparsity, n_features, n_hidden, importance, steps=1500):
    generator = torch.Generator(device=sparsity.device).manual_seed(3)

    def draw(k, batch, n, sparsity):
        on = torch.bernoulli((1 - sparsity)[:, None, None].expand(k, batch, n), generator=generator)
        return on * torch.empty(k, batch, n, device=sparsity.device).uniform_(generator=generator)

    return _train(sparsity, n_features, n_hidden, importance, steps, draw=draw)


@right("4.2")
def on_a_cosine_with_its_own_adam(sparsity, n_features, n_hidden, importance, steps=1500):
    k, lr, decay = len(sparsity), 1e-2, (0.9, 0.999)
    sparsity, importance = sparsity.cpu(), importance.cpu()
    parts = [torch.randn(k, n_hidden, n_features) / (4 * n_hidden) ** 0.5, torch.zeros(k, 1, n_features)]
    moments = [[torch.zeros_like(part), torch.zeros_like(part)] for part in parts]
    for step in range(1, steps + 1):
        x = torch.rand(k, 256, n_features) * (torch.rand(k, 256, n_features) >= sparsity[:, None, None])
        W, b = (part.requires_grad_() for part in parts)
        loss = (importance * (x - torch.relu(x @ W.mT @ W + b)) ** 2).sum((0, 2)).mean()
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        for i, gradient in enumerate(torch.autograd.grad(loss, [W, b])):
            first, second = moments[i]
            first.lerp_(gradient, 1 - decay[0])
            second.lerp_(gradient**2, 1 - decay[1])
            size = (second / (1 - decay[1] ** step)).sqrt() + 1e-8
            parts[i] = parts[i].detach() - rate * first / (1 - decay[0] ** step) / size
    return parts[0], parts[1].squeeze(1)


# ---------------------------------------------------------------------- 4.3 feature_dimensionality


@wrong("4.3", says="not (W_i . W_hat_j)")
def takes_unit_vectors_on_the_wrong_side(W):
    unit = W / W.norm(dim=0).clamp_min(1e-9)
    return W.pow(2).sum(0) / (W.T @ unit).pow(2).sum(1).clamp_min(1e-9)


@wrong("4.3", says="only W_i is a unit vector")
def takes_cosines(W):
    unit = W / W.norm(dim=0).clamp_min(1e-9)
    return W.pow(2).sum(0) / (unit.T @ unit).pow(2).sum(1).clamp_min(1e-9)


@wrong("4.3", says="W_i is a unit vector in the sum")
def takes_no_unit_vectors(W):
    return W.pow(2).sum(0) / (W.T @ W).pow(2).sum(1).clamp_min(1e-9)


@wrong("4.3", says="the overlaps are squared")
def forgets_the_square(W):
    unit = W / W.norm(dim=0).clamp_min(1e-9)
    return W.pow(2).sum(0) / (unit.T @ W).abs().sum(1).clamp_min(1e-9)


@wrong("4.3", says="square each overlap, then sum")
def squares_the_sum(W):
    unit = W / W.norm(dim=0).clamp_min(1e-9)
    return torch.nan_to_num(W.pow(2).sum(0) / (unit.T @ W).sum(1).pow(2).clamp_min(1e-30))


@wrong("4.3", says="the length on top is squared")
def takes_the_length_itself(W):
    length = W.norm(dim=0).clamp_min(1e-9)
    return length / ((W / length).T @ W).pow(2).sum(1).clamp_min(1e-9)


@wrong("4.3", says="j = i belongs to the sum")
def leaves_itself_out(W):
    unit = W / W.norm(dim=0).clamp_min(1e-9)
    return W.pow(2).sum(0) / (unit.T @ W).fill_diagonal_(0).pow(2).sum(1).clamp_min(1e-9)


@wrong("4.3", says="these are the shares of the rows")
def measures_the_rows(W):
    unit = W / W.norm(dim=1, keepdim=True)
    return W.pow(2).sum(1) / (unit @ W.T).pow(2).sum(1)


@wrong("4.3", says="normalise over dim=0")
def normalises_the_rows(W):
    unit = W / W.norm(dim=1, keepdim=True)
    return W.pow(2).sum(0) / (unit.T @ W).pow(2).sum(1).clamp_min(1e-9)


@wrong("4.3", says="0 divided by 0")
def divides_by_a_zero_column(W):
    unit = W / W.norm(dim=0)
    return W.pow(2).sum(0) / (unit.T @ W).pow(2).sum(1)


@wrong("4.3", says="a column of zeros takes no dimension")
def gives_one_to_a_zero_column(W):
    return torch.nan_to_num(W.pow(2).sum(0).pow(2) / (W.T @ W).pow(2).sum(1), nan=1.0)


@wrong("4.3", says="m / |W|^2")
def returns_dimensions_per_feature(W):
    return (len(W) / W.pow(2).sum()).expand(W.shape[1])


@wrong("4.3", says="this is the sum")
def returns_the_sum_of_shares(W):
    return (W.pow(2).sum(0).pow(2) / (W.T @ W).pow(2).sum(1)).nan_to_num().sum()


@wrong("4.3", says="only a column of zeros has D = 0")
def takes_short_columns_for_zeros(W):
    unit = W / W.norm(dim=0).clamp_min(1e-9)
    shares = W.pow(2).sum(0) / (unit.T @ W).pow(2).sum(1).clamp_min(1e-9)
    return torch.where(W.norm(dim=0) > 0.2, shares, 0.0)


@wrong("4.3", says="only a column of zeros has D = 0")
def keeps_lengths_above_a_tenth(W):
    unit = W / W.norm(dim=0).clamp_min(0.1)
    return W.pow(2).sum(0) / (unit.T @ W).pow(2).sum(1).clamp_min(1e-9)


@right("4.3")
def fourth_power_over_the_gram_matrix(W):
    gram = W.T @ W
    return torch.nan_to_num(gram.diagonal().square() / gram.square().sum(0))


@right("4.3")
def feature_by_feature(W):
    shares = torch.zeros(W.shape[1], dtype=torch.float64)
    for i, own in enumerate(W.double().T):
        if own.norm() > 0:
            shares[i] = own @ own / sum((own / own.norm() @ other) ** 2 for other in W.double().T)
    return shares


@right("4.3")
def with_einsum_and_normalize(W):
    unit = torch.nn.functional.normalize(W, dim=0)
    overlap = torch.einsum("hi,hj->ij", unit, W).pow(2).sum(-1)
    return torch.where(overlap > 0, W.norm(dim=0) ** 2 / overlap, torch.zeros_like(overlap))


@right("4.3")
def dimensionality_in_numpy(W):
    W = W.cpu().numpy()
    length = np.linalg.norm(W, axis=0) + 1e-9
    return length**2 / (((W / length).T @ W) ** 2).sum(1).clip(1e-9) * (length > 1e-6)


@right("4.3")
def dimensionality_of_the_library(W):
    return superposition.dimensionality(W=W)


@right("4.3")
def with_a_small_number_in_the_divisors(W):
    unit = W / (W.norm(dim=0) + 1e-6)
    return W.pow(2).sum(0) / ((unit.T @ W).pow(2).sum(1) + 1e-6)


# -------------------------------------------------------------------------------- 4.4 phase_losses


def _phases(sparsity, importance, p=None, variance=lambda p: p / 3 - p**2 / 4, pair=lambda p: p**2 / 6, total=None):
    p = 1 - sparsity if p is None else p
    total = 1 + importance if total is None else total
    return torch.stack([importance * variance(p), variance(p), total * pair(p)], -1)


@wrong("4.4", says="answered by its mean, not by 0")
def answers_zero(sparsity, importance):
    return _phases(sparsity, importance, variance=lambda p: p / 3)


@wrong("4.4", says="p/3 - p/4 is the variance of the values that are on")
def takes_the_variance_when_on(sparsity, importance):
    return _phases(sparsity, importance, variance=lambda p: p / 12)


@wrong("4.4", says="zeros included")
def takes_one_half_for_the_mean(sparsity, importance):
    return _phases(sparsity, importance, variance=lambda p: p / 3 - p / 4)


@wrong("4.4", says="E[x^2] is p/3")
def squares_the_probability(sparsity, importance):
    return _phases(sparsity, importance, variance=lambda p: p**2 / 3 - p**2 / 4)


@wrong("4.4", says="importance is on the wrong feature")
def weighs_the_kept_feature(sparsity, importance):
    return _phases(sparsity, importance)[..., [1, 0, 2]]


@wrong("4.4", says="importance is missing")
def forgets_importance_where_one_is_dropped(sparsity, importance):
    right = _phases(sparsity, importance)
    return torch.stack([right[..., 1], right[..., 1], right[..., 2]], -1)


@wrong("4.4", says="p and S are exchanged")
def exchanges_p_and_s(sparsity, importance):
    return _phases(sparsity, importance, p=sparsity)


@wrong("4.4", says="for each feature by the smaller of the two")
def takes_a_third_for_the_pair(sparsity, importance):
    return _phases(sparsity, importance, pair=lambda p: p**2 / 3)


@wrong("4.4", says="the square of the mean of min")
def squares_the_mean_of_the_smaller(sparsity, importance):
    return _phases(sparsity, importance, pair=lambda p: p**2 / 9)


@wrong("4.4", says="both are on with probability p^2")
def has_both_on_with_probability_p(sparsity, importance):
    return _phases(sparsity, importance, pair=lambda p: p / 6)


@wrong("4.4", says="the pair errs on both features")
def counts_the_pair_once(sparsity, importance):
    return _phases(sparsity, importance, total=1.0)


@wrong("4.4", says="the weight `importance` in the pair too")
def forgets_importance_in_the_pair(sparsity, importance):
    return _phases(sparsity, importance, total=2.0)


@wrong("4.4", says="on the last axis")
def puts_the_solutions_first(sparsity, importance):
    return _phases(sparsity, importance).movedim(-1, 0)


@wrong("4.4", says="the order is")
def puts_the_pair_first(sparsity, importance):
    return _phases(sparsity, importance)[..., [2, 0, 1]]


@wrong("4.4", says="the sum over the two features, not their mean")
def averages_over_the_features(sparsity, importance):
    return _phases(sparsity, importance) / 2


@wrong("4.4", says="a closed form is asked for")
def estimates_the_phases(sparsity, importance):
    smaller = torch.rand(20_000, 2, device=sparsity.device).amin(1).pow(2).mean()
    return _phases(sparsity, importance, pair=lambda p: p**2 * smaller)


@right("4.4")
def setting_by_setting(sparsity, importance):
    losses = torch.zeros(*sparsity.shape, 3, dtype=torch.float64)
    for place in np.ndindex(*sparsity.shape):
        p, weight = 1 - sparsity[place].item(), importance[place].item()
        dropped = p * (1 - p) / 4 + p / 12  # the variance of on and off, and of the values
        losses[place] = torch.tensor([weight * dropped, dropped, p * p * (1 + weight) / 6])
    return losses


@right("4.4")
def phases_in_numpy(sparsity, importance):
    p, weight = 1 - sparsity.cpu().numpy(), importance.cpu().numpy()
    mean = p / 2
    dropped = p * (1 / 3 - mean + mean**2) + (1 - p) * mean**2
    return np.stack([weight * dropped, dropped, p**2 / 6 + weight * p**2 / 6], axis=-1)


@right("4.4")
def phases_of_the_library(sparsity, importance):
    return superposition.phase_losses(sparsity=sparsity, importance=importance)


@right("4.4")
def pair_from_an_integral(sparsity, importance):
    edges = torch.linspace(0, 1, 4001, dtype=torch.float64, device=sparsity.device)
    smaller = torch.trapezoid(2 * (1 - edges) * edges**2, edges)  # E[min^2]: the density of the smaller is 2 (1 - u)
    return _phases(sparsity.double(), importance.double(), pair=lambda p: p**2 * smaller)


# ------------------------------------------------------------------------ 4.5 expected_interference


def _overlaps(W):
    gram = W.T @ W
    return gram - torch.diag(gram.diag())


def _second_moment(a, p, second=None, product=None):
    second, product = p / 3 if second is None else second, p**2 / 4 if product is None else product
    return (second - product) * a.pow(2).sum(1) + product * a.sum(1).pow(2)


@wrong("4.5", says="set the diagonal of W^T W to 0")
def includes_itself(W, sparsity):
    return _second_moment(W.T @ W, 1 - sparsity)


@wrong("4.5", says="the cross terms are missing")
def forgets_the_cross_terms(W, sparsity):
    return (1 - sparsity) / 3 * _overlaps(W).pow(2).sum(1)


@wrong("4.5", says="the terms with j = k are missing")
def forgets_the_squares(W, sparsity):
    return _second_moment(_overlaps(W), 1 - sparsity, second=0.0)


@wrong("4.5", says="the terms with j = k are counted twice")
def counts_the_squares_twice(W, sparsity):
    p, a = 1 - sparsity, _overlaps(W)
    return p / 3 * a.pow(2).sum(1) + p**2 / 4 * a.sum(1).pow(2)


@wrong("4.5", says="E[x^2] is p/3")
def takes_the_mean_for_the_mean_square(W, sparsity):
    return _second_moment(_overlaps(W), 1 - sparsity, second=(1 - sparsity) / 2)


@wrong("4.5", says="E[x_j x_k] = E[x_j] E[x_k]")
def has_both_on_as_often_as_one(W, sparsity):
    return _second_moment(_overlaps(W), 1 - sparsity, product=(1 - sparsity) / 4)


@wrong("4.5", says="no unit vectors here")
def divides_by_the_lengths(W, sparsity):
    return _second_moment(_overlaps(W / W.norm(dim=0)), 1 - sparsity)


@wrong("4.5", says="no unit vectors here")
def projects_on_the_unit_vector(W, sparsity):
    return _second_moment((W / W.norm(dim=0)).T @ W * (1 - torch.eye(W.shape[1], device=W.device)), 1 - sparsity)


@wrong("4.5", says="this is the mean of the interference")
def takes_no_square(W, sparsity):
    return (1 - sparsity) / 2 * _overlaps(W).sum(1)


@wrong("4.5", says="this is the square of the mean")
def squares_the_mean(W, sparsity):
    return ((1 - sparsity) / 2 * _overlaps(W).sum(1)).pow(2)


@wrong("4.5", says="this is the variance")
def returns_the_variance(W, sparsity):
    p = 1 - sparsity
    return (p / 3 - p**2 / 4) * _overlaps(W).pow(2).sum(1)


@wrong("4.5", says="p and S are exchanged")
def takes_s_for_p(W, sparsity):
    return _second_moment(_overlaps(W), sparsity)


@wrong("4.5", says="features are the columns of W")
def compares_the_rows(W, sparsity):
    return _second_moment(_overlaps(W.T), 1 - sparsity)


@wrong("4.5", says="this is the sum")
def sums_the_interference(W, sparsity):
    return _second_moment(_overlaps(W), 1 - sparsity).sum()


@wrong("4.5", says="`W` was changed in place")
def normalises_in_place(W, sparsity):
    a = _overlaps(W)
    W /= W.norm(dim=0)
    return _second_moment(a, 1 - sparsity)


@wrong("4.5", says="a closed form is asked for")
def estimates_the_interference(W, sparsity):
    x = torch.rand(50_000, W.shape[1], device=W.device)
    x = x * (torch.rand_like(x) >= sparsity)
    return (x @ _overlaps(W)).pow(2).mean(0)


@right("4.5")
def with_the_matrix_of_moments(W, sparsity):
    p, n = 1 - sparsity, W.shape[1]
    moments = torch.full((n, n), p**2 / 4, device=W.device).fill_diagonal_(p / 3)
    return torch.einsum("ij,jk,ik->i", _overlaps(W), moments, _overlaps(W))


@right("4.5")
def term_by_term(W, sparsity):
    p, n = 1 - sparsity, W.shape[1]
    gram, found = (W.double().T @ W.double()).tolist(), [0.0] * n
    for i in range(n):
        for j in range(n):
            for k in range(n):
                if i not in (j, k):
                    found[i] += gram[i][j] * gram[i][k] * (p / 3 if j == k else p * p / 4)
    return found


@right("4.5")
def variance_plus_squared_mean(W, sparsity):
    W = W.cpu().double().numpy()
    a, p = W.T @ W - np.diag((W**2).sum(0)), 1.0 - sparsity
    return torch.tensor((a**2).sum(1) * (p / 12 + p * (1 - p) / 4) + (a @ np.full(len(a), p / 2)) ** 2)


@right("4.5")
def with_the_library_for_the_overlaps(W, sparsity):
    a = superposition.interference(W=W) * W.norm(dim=0)[:, None]
    return _second_moment(a, 1 - sparsity)


# --------------------------------------------------------------------------------- 4.6 paired_batch


def _pairs(batch, n_pairs, sparsity, together, generator, on=None, first=None, values=None):
    on = torch.rand(batch, n_pairs, generator=generator) >= sparsity if on is None else on
    first = torch.rand(batch, n_pairs, generator=generator) < 0.5 if first is None else first
    members = [on, on] if together else [on & first, on & ~first]
    values = torch.rand(batch, 2 * n_pairs, generator=generator) if values is None else values
    return torch.stack(members, -1).flatten(1) * values


@wrong("4.6", says="one draw for each pair, not for each feature")
def draws_every_feature_by_itself(batch, n_pairs, sparsity, together, generator):
    on = torch.rand(batch, 2 * n_pairs, generator=generator) >= sparsity
    return on * torch.rand(batch, 2 * n_pairs, generator=generator)


@wrong("4.6", says="here both are on together")
def is_always_together(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, True, generator)


@wrong("4.6", says="here they exclude each other")
def takes_together_the_wrong_way(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, not together, generator)


@wrong("4.6", says="draw a value for each feature")
def shares_the_value(batch, n_pairs, sparsity, together, generator):
    values = torch.rand(batch, n_pairs, generator=generator).repeat_interleave(2, 1)
    return _pairs(batch, n_pairs, sparsity, together, generator, values=values)


@wrong("4.6", says="side by side, 2i and 2i + 1")
def puts_partners_far_apart(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator).unflatten(1, (n_pairs, 2)).mT.flatten(1)


@wrong("4.6", says="p and S are exchanged")
def is_on_with_probability_s(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, 1 - sparsity, together, generator)


@wrong("4.6", says="half of that")
def is_on_half_as_often(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, 1 - (1 - sparsity) / 2, together, generator)


@wrong("4.6", says="twice that")
def is_on_twice_as_often(batch, n_pairs, sparsity, together, generator):
    p = 1 - sparsity
    which = torch.rand(batch, n_pairs, generator=generator)
    if together:
        return _pairs(batch, n_pairs, sparsity, True, generator)
    on = torch.stack([which < p, (which >= p) & (which < 2 * p)], -1).flatten(1)
    return on * torch.rand(batch, 2 * n_pairs, generator=generator)


@wrong("4.6", says="each member draws for itself")
def removes_those_that_meet(batch, n_pairs, sparsity, together, generator):
    if together:
        return _pairs(batch, n_pairs, sparsity, True, generator)
    on = torch.rand(batch, n_pairs, 2, generator=generator) >= sparsity
    on = on & ~on.all(-1, keepdim=True)
    return on.flatten(1) * torch.rand(batch, 2 * n_pairs, generator=generator)


@wrong("4.6", says="it is always the same member")
def always_chooses_the_first(batch, n_pairs, sparsity, together, generator):
    always = torch.ones(batch, n_pairs, dtype=torch.bool)
    return _pairs(batch, n_pairs, sparsity, together, generator, first=always)


@wrong("4.6", says="it is always the same member")
def chooses_by_the_draw_that_says_on(batch, n_pairs, sparsity, together, generator):
    drawn = torch.rand(batch, n_pairs, generator=generator)
    return _pairs(batch, n_pairs, sparsity, together, generator, on=drawn >= sparsity, first=drawn < 0.5)


@wrong("4.6", says="not one for the whole row")
def draws_once_for_all_pairs(batch, n_pairs, sparsity, together, generator):
    on = (torch.rand(batch, 1, generator=generator) >= sparsity).expand(batch, n_pairs)
    return _pairs(batch, n_pairs, sparsity, together, generator, on=on)


@wrong("4.6", says="draw which member it is for each row and pair")
def chooses_once_for_all_pairs(batch, n_pairs, sparsity, together, generator):
    first = (torch.rand(batch, 1, generator=generator) < 0.5).expand(batch, n_pairs)
    return _pairs(batch, n_pairs, sparsity, together, generator, first=first)


@wrong("4.6", says="used as the value too")
def takes_the_draw_for_the_value(batch, n_pairs, sparsity, together, generator):
    drawn = torch.rand(batch, n_pairs, generator=generator)
    values = torch.rand(batch, n_pairs, 2, generator=generator)
    values[..., 0] = drawn
    return _pairs(batch, n_pairs, sparsity, together, generator, on=drawn >= sparsity, values=values.flatten(1))


@wrong("4.6", says="generator=generator")
def ignores_the_generator(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, None)


@wrong("4.6", says="generator=generator")
def forgets_the_generator_for_the_values(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator, values=torch.rand(batch, 2 * n_pairs))


@wrong("4.6", says="without seeding anything yourself")
def seeds_a_generator_of_its_own(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, torch.Generator().manual_seed(0))


@wrong("4.6", says="do not seed it")
def seeds_the_generator_again(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator.manual_seed(generator.initial_seed()))


@wrong("4.6", says="what is on has a value")
def returns_what_is_on(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator, values=torch.ones(batch, 2 * n_pairs))


@wrong("4.6", says="torch.rand, not torch.randn")
def draws_normal_values(batch, n_pairs, sparsity, together, generator):
    values = torch.randn(batch, 2 * n_pairs, generator=generator)
    return _pairs(batch, n_pairs, sparsity, together, generator, values=values)


@wrong("4.6", says="flatten the last two axes")
def keeps_an_axis_of_members(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator).unflatten(1, (n_pairs, 2))


@wrong("4.6", says="each pair has two columns")
def takes_pairs_for_features(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator)[:, ::2]


def _of_its_own(batch, n_pairs, seed):
    return torch.rand(batch, n_pairs, generator=torch.Generator().manual_seed(seed))


@wrong("4.6", says="the same again (the values)")
def draws_values_with_a_seed_of_its_own(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator, values=_of_its_own(batch, 2 * n_pairs, 0))


@wrong("4.6", says="the same again (on and off)")
def draws_what_is_on_with_a_seed_of_its_own(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator, on=_of_its_own(batch, n_pairs, 1) >= sparsity)


@wrong("4.6", says="the same again (which of the two members is on)")
def flips_a_coin_with_a_seed_of_its_own(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator, first=_of_its_own(batch, n_pairs, 2) < 0.5)


@wrong("4.6", says="another batch (which of the two members is on)")
def flips_a_coin_without_the_generator(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, sparsity, together, generator, first=torch.rand(batch, n_pairs) < 0.5)


@wrong("4.6", says="do not seed it")
def seeds_the_generator_after_the_draws(batch, n_pairs, sparsity, together, generator):
    x = _pairs(batch, n_pairs, sparsity, together, generator)
    generator.manual_seed(0)
    return x


@wrong("4.6", says="drawn once for the whole batch")
def draws_once_for_all_rows(batch, n_pairs, sparsity, together, generator):
    on = (torch.rand(n_pairs, generator=generator) >= sparsity).expand(batch, n_pairs)
    return _pairs(batch, n_pairs, sparsity, together, generator, on=on)


@wrong("4.6", says="it is the argument `sparsity` that decides")
def has_a_sparsity_of_its_own(batch, n_pairs, sparsity, together, generator):
    return _pairs(batch, n_pairs, 0.9, together, generator)


@right("4.6")
def column_by_column(batch, n_pairs, sparsity, together, generator):
    columns = []
    for _ in range(n_pairs):
        on = torch.bernoulli(torch.full((batch,), 1 - sparsity), generator=generator)
        coin = torch.randint(2, (batch,), generator=generator)
        for member in range(2):
            columns.append(torch.rand(batch, generator=generator) * on * (1 if together else coin == member))
    return torch.stack(columns, dim=1)


@right("4.6")
def from_one_draw_of_three_cases(batch, n_pairs, sparsity, together, generator):
    drawn = torch.rand(batch, n_pairs, generator=generator, dtype=torch.float64)
    off = drawn < sparsity
    first = drawn < sparsity + (1 - sparsity) / 2
    return _pairs(batch, n_pairs, sparsity, together, generator, on=~off, first=first)


@right("4.6")
def with_the_library_of_sets(batch, n_pairs, sparsity, together, generator):
    pairs = [(2 * i, 2 * i + 1) for i in range(n_pairs)]
    sets = superposition.FeatureSets(**{"correlated" if together else "anticorrelated": pairs})
    return superposition.sparse_features(batch, 2 * n_pairs, sparsity, sets=sets, generator=generator)


@right("4.6")
def writes_into_zeros(batch, n_pairs, sparsity, together, generator):
    x = torch.zeros(batch, 2 * n_pairs)
    values = torch.empty(batch, 2 * n_pairs).uniform_(generator=generator)
    rows, pairs = (torch.rand(batch, n_pairs, generator=generator) > sparsity).nonzero().T
    coin = torch.randint(0, 2, (len(rows),), generator=generator)
    columns = [2 * pairs, 2 * pairs + 1] if together else [2 * pairs + coin]
    for column in columns:
        x[rows, column] = values[rows, column]
    return x


# ------------------------------------------------------------------------------- 4.7 linear_optimum


def _components(x, n_hidden):
    return torch.linalg.svd(x, full_matrices=False).Vh[:n_hidden]


@wrong("4.7", says="x is not centred")
def forgets_to_centre(x, n_hidden):
    W = _components(x, n_hidden)
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="x was standardised")
def standardises(x, n_hidden):
    W = _components((x - x.mean(0)) / x.std(0), n_hidden)
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="the mean runs over the rows")
def centres_each_row(x, n_hidden):
    W = _components(x - x.mean(1, keepdim=True), n_hidden)
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="the smallest components")
def takes_the_smallest(x, n_hidden):
    W = torch.linalg.eigh(torch.cov(x.T)).eigenvectors.T[:n_hidden]
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="returns V transposed already")
def transposes_v(x, n_hidden):
    W = torch.linalg.svd(x - x.mean(0)).Vh.T[:n_hidden]
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="eigenvectors are the columns")
def takes_rows_of_eigenvectors(x, n_hidden):
    W = torch.linalg.eigh(torch.cov(x.T)).eigenvectors[-n_hidden:]
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="principal components may mix features")
def takes_the_features_that_vary_most(x, n_hidden):
    W = torch.eye(x.shape[1], device=x.device)[x.var(0).topk(n_hidden).indices]
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="leave singular values out of W")
def scales_by_singular_values(x, n_hidden):
    _, size, W = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    W = size[:n_hidden, None] * W[:n_hidden] / len(x) ** 0.5
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="not at right angles")
def mixes_the_rows(x, n_hidden):
    W = _components(x - x.mean(0), n_hidden)
    mean = x.mean(0)
    return torch.cat([W[:1], (W[1:] + W[:1]) / 2**0.5]), mean - W.T @ (W @ mean)


@wrong("4.7", says="what W^T W leaves of the mean")
def answers_the_mean(x, n_hidden):
    return _components(x - x.mean(0), n_hidden), x.mean(0)


@wrong("4.7", says="the bias is missing")
def forgets_the_bias_of_the_linear_model(x, n_hidden):
    return _components(x - x.mean(0), n_hidden), torch.zeros_like(x[0])


@wrong("4.7", says="the sign: mean - W^T W mean")
def adds_what_is_kept(x, n_hidden):
    W = _components(x - x.mean(0), n_hidden)
    return W, x.mean(0) + W.T @ (W @ x.mean(0))


@wrong("4.7", says="the bias is the rest")
def answers_what_is_kept(x, n_hidden):
    W = _components(x - x.mean(0), n_hidden)
    return W, W.T @ (W @ x.mean(0))


@wrong("4.7", says="transposed")
def returns_components_as_columns(x, n_hidden):
    W = _components(x - x.mean(0), n_hidden)
    return W.T, x.mean(0) - W.T @ (W @ x.mean(0))


@wrong("4.7", says="W comes first")
def returns_the_bias_before_w(x, n_hidden):
    W = _components(x - x.mean(0), n_hidden)
    return x.mean(0) - W.T @ (W @ x.mean(0)), W


@wrong("4.7", says="`x` was changed in place")
def centres_in_place(x, n_hidden):
    mean = x.mean(0)
    x -= mean
    W = _components(x, n_hidden)
    return W, mean - W.T @ (W @ mean)


@wrong("4.7", says="approximate, and another one at every call")
def approximates_the_components(x, n_hidden):
    W = torch.pca_lowrank(x, q=n_hidden, niter=0)[2].T
    return W, x.mean(0) - W.T @ (W @ x.mean(0))


@right("4.7")
def with_scikit_learn(x, n_hidden):
    found = PCA(n_components=n_hidden).fit(x.cpu().numpy())
    W = torch.tensor(found.components_)
    return W, torch.tensor(found.mean_) - W.T @ W @ torch.tensor(found.mean_)


@right("4.7")
def from_the_covariance(x, n_hidden):
    x = x.double()
    W = torch.linalg.eigh(torch.cov(x.T)).eigenvectors[:, -n_hidden:].T.flip(0)
    return W, (x - x @ W.T @ W).mean(0)


@right("4.7")
def with_turned_rows(x, n_hidden):
    mean = x.double().mean(0)
    turn = torch.linalg.qr(torch.randn(n_hidden, n_hidden, generator=torch.Generator().manual_seed(0)))[0]
    W = turn.double().to(x.device) @ _components(x.double() - mean, n_hidden)
    return W, (torch.eye(len(mean), dtype=W.dtype, device=W.device) - W.T @ W) @ mean


@right("4.7")
def by_orthogonal_iteration(x, n_hidden):
    mean = x.double().mean(0)
    covariance = (x - mean).T @ (x - mean)
    W = torch.eye(len(mean), n_hidden, dtype=torch.float64, device=x.device) + 0.1
    for _ in range(500):
        W = torch.linalg.qr(covariance @ W).Q
    return W.T, mean - W @ (W.T @ mean)


# ----------------------------------------------------------------------------------- 4.8 best_plane


def _class_means(x, value, period):
    return torch.stack([x[value == t].mean(0) for t in range(period)])


def _circle(x, value, period, rows=None, about=None, turn=lambda first, second: torch.atan2(second, first)):
    means = _class_means(x, value, period)
    plane = _components((means - means.mean(0)) if rows is None else rows, 2)
    first, second = ((x - (means.mean(0) if about is None else about)) @ plane.T).T
    return plane, turn(first, second)


@wrong("4.8", says="use the class means")
def takes_components_of_x(x, value, period):
    return _circle(x, value, period, rows=x - x.mean(0))


@wrong("4.8", says="use the class means")
def takes_components_of_x_about_zero(x, value, period):
    return _circle(x, value, period, rows=x)


@wrong("4.8", says="the class means are not centred")
def forgets_to_centre_the_means(x, value, period):
    return _circle(x, value, period, rows=_class_means(x, value, period))


@wrong("4.8", says="every class counts once")
def weighs_classes_by_their_rows(x, value, period):
    rows = _class_means(x, value, period)[value]
    return _circle(x, value, period, rows=rows - rows.mean(0), about=rows.mean(0))


@wrong("4.8", says="plane of twice the angle")
def takes_the_second_harmonic(x, value, period):
    t = 4 * math.pi * torch.arange(period, device=x.device) / period
    return _circle(x, value, period, rows=torch.stack([t.cos(), t.sin()]) @ _class_means(x, value, period))


@wrong("4.8", says="the angle is about the origin")
def turns_about_the_origin(x, value, period):
    return _circle(x, value, period, about=0.0)


@wrong("4.8", says="the centre is the mean of the class means")
def turns_about_the_mean_of_the_rows(x, value, period):
    return _circle(x, value, period, about=x.mean(0))


@wrong("4.8", says="these are degrees")
def returns_degrees(x, value, period):
    return _circle(x, value, period, turn=lambda first, second: torch.rad2deg(torch.atan2(second, first)))


@wrong("4.8", says="these are turns")
def returns_turns(x, value, period):
    return _circle(x, value, period, turn=lambda first, second: torch.atan2(second, first) / (2 * math.pi))


@wrong("4.8", says="knows only half of the circle")
def uses_atan(x, value, period):
    return _circle(x, value, period, turn=lambda first, second: torch.atan(second / first))


@wrong("4.8", says="this is a coordinate")
def returns_a_coordinate(x, value, period):
    return _circle(x, value, period, turn=lambda first, second: first)


@wrong("4.8", says="this is read from `value`")
def reads_the_angle_off_the_value(x, value, period):
    return _circle(x, value, period)[0], 2 * math.pi * value / period


@wrong("4.8", says="this is the angle of the class mean")
def gives_each_row_its_class(x, value, period):
    means = _class_means(x, value, period)
    plane = _components(means - means.mean(0), 2)
    first, second = ((means - means.mean(0)) @ plane.T).T
    return plane, torch.atan2(second, first)[value]


@wrong("4.8", says="an angle for each row")
def gives_each_class_its_angle(x, value, period):
    plane, _ = _circle(x, value, period)
    means = _class_means(x, value, period)
    first, second = ((means - means.mean(0)) @ plane.T).T
    return plane, torch.atan2(second, first)


@wrong("4.8", says="a line is not enough")
def finds_a_line(x, value, period):
    plane, angle = _circle(x, value, period)
    return plane[:1], angle


@wrong("4.8", says="orthonormal rows")
def leaves_fourier_coefficients_as_they_are(x, value, period):
    t = 2 * math.pi * torch.arange(period, device=x.device) / period
    means = _class_means(x, value, period)
    plane = torch.stack([t.cos(), t.sin()]) @ means
    first, second = ((x - means.mean(0)) @ plane.T).T
    return plane, torch.atan2(second, first)


@wrong("4.8", says="transposed")
def returns_the_plane_in_columns(x, value, period):
    plane, angle = _circle(x, value, period)
    return plane.T, angle


@wrong("4.8", says="the plane comes first")
def returns_the_angle_first(x, value, period):
    return _circle(x, value, period)[::-1]


@wrong("4.8", says="fitted to the order of the values")
def fits_the_plane_to_the_order(x, value, period):
    t = 2 * math.pi * torch.arange(period, dtype=torch.float64, device=x.device) / period
    means = _class_means(x.double(), value, period)
    plane = torch.linalg.qr((torch.stack([t.cos(), t.sin()]) @ means).T).Q.T
    return plane, torch.atan2(*((x - means.mean(0)) @ plane.T).T)


def _along(x, value, period, plane):
    """This plane (made orthonormal), and the angles in it."""
    plane = torch.linalg.qr(plane.T).Q.T
    first, second = ((x - _class_means(x, value, period).mean(0)) @ plane.T).T
    return plane, torch.atan2(second, first)


def _turns(value, period):
    t = 2 * math.pi * value / period
    return torch.stack([t.cos(), t.sin()], 1)


@wrong("4.8", says="fitted to the order of the values")
def takes_differences_of_neighbours(x, value, period):
    means = _class_means(x, value, period)
    return _circle(x, value, period, rows=means.roll(-1, 0) - means)


@wrong("4.8", says="fitted to the order of the values")
def takes_differences_of_opposites(x, value, period):
    means = _class_means(x, value, period)
    return _circle(x, value, period, rows=means - means.roll(period // 2, 0))


@wrong("4.8", says="fitted to the order of the values")
def regresses_x_on_the_angle(x, value, period):
    turns = _turns(value, period)
    return _along(x, value, period, torch.linalg.lstsq(turns, x - x.mean(0)).solution)


@wrong("4.8", says="fitted to the order of the values")
def decodes_the_angle_from_x(x, value, period):
    wide = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return _along(x, value, period, torch.linalg.lstsq(wide, _turns(value, period)).solution[:-1].T)


@wrong("4.8", says="weigh the spread within the classes")
def discriminates_between_classes(x, value, period):
    found = LinearDiscriminantAnalysis(n_components=2).fit(x.cpu().numpy(), value.cpu().numpy())
    return _along(x, value, period, torch.tensor(found.scalings_[:, :2].T.copy(), dtype=x.dtype, device=x.device))


@wrong("4.8", says="V transposed already")
def takes_columns_of_vh(x, value, period):
    means = _class_means(x, value, period)
    return torch.linalg.svd(means - means.mean(0)).Vh[:, :2].T, value


@wrong("4.8", says="the smallest components")
def takes_the_smallest_of_eigh(x, value, period):
    return _along(x, value, period, torch.linalg.eigh(torch.cov(_class_means(x, value, period).T)).eigenvectors.T[:2])


@wrong("4.8", says="values run from 0 to period - 1")
def counts_values_from_one(x, value, period):
    means = torch.stack([x[value == t].mean(0) for t in range(1, period + 1)])
    return _circle(x, value, period, rows=means - means.mean(0))


@wrong("4.8", says="in the plane that is returned")
def gives_angles_in_another_plane(x, value, period):
    t = torch.arange(period, device=x.device)
    fitted = _turns(t, period).T @ _class_means(x, value, period)
    return _circle(x, value, period)[0], _along(x, value, period, fitted)[1]


@right("4.8")
def in_numpy_with_complex_numbers(x, value, period):
    x, value = x.cpu().double().numpy(), value.cpu().numpy()
    means = np.stack([x[value == t].mean(axis=0) for t in range(period)])
    found = PCA(n_components=2).fit(means)
    first, second = found.transform(x).T
    return found.components_, np.angle(first + 1j * second) % (2 * np.pi)


@right("4.8")
def with_index_add_and_eigh(x, value, period):
    sums = torch.zeros(period, x.shape[1], device=x.device).index_add(0, value, x)
    means = sums / torch.bincount(value, minlength=period)[:, None]
    centre = means.mean(0)
    plane = torch.linalg.eigh((means - centre).T @ (means - centre)).eigenvectors[:, -2:].T
    first, second = (plane @ (x - centre).T).unbind(0)
    return plane, torch.atan2(first, second)


@right("4.8")
def turned_and_reflected(x, value, period):
    plane, _ = _circle(x.double(), value, period)
    turn = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64, device=x.device)
    first, second = ((x - _class_means(x.double(), value, period).mean(0)) @ (turn @ plane).T).T
    return turn @ plane, torch.atan2(second, first) + 3
