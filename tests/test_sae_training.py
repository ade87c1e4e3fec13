"""The trainer: losses and gradients against numpy and dense autograd, a plain training loop, planted dictionaries."""

import math
from dataclasses import fields, replace
from itertools import cycle, islice

import numpy as np
import pytest
import torch

from utils.datasets import features
from utils.sae import (
    SAE,
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    ReLU,
    TopK,
    absorption,
    best_cosines,
    evaluate,
    fvu,
    train,
    training,
)

D, N, BATCH = 5, 7, 9
ARCHITECTURES = [ReLU(0.1), TopK(2), BatchTopK(2), Matryoshka(2, (2, 4)), JumpReLU(0.02), Gated(0.1)]
SEVERAL = [
    ReLU((0.1, 0.3, 0.0)), TopK((1, 3, 2)), BatchTopK((1, 3, 2)), Matryoshka([1, 3, 2], (2, 4)),
    JumpReLU((0.01, 0.05, 0.0)), Gated((0.1, 0.3, 0.0)),
]  # fmt: skip


def name(architecture):
    return type(architecture).__name__


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(architecture, start=0, **settings):
    """A dictionary with random numbers in all of its tensors; thresholds near the latents."""
    sae = SAE(architecture, D, N, **settings).double()
    for place, (key, tensor) in enumerate(sorted(sae.state_dict().items())):
        drawn = 0.6 * randn(*tensor.shape, seed=100 * start + place)
        tensor.copy_(drawn.abs() if key == "threshold" else drawn)
    return sae


def own_setting(architecture, i):
    """The architecture of one of several."""
    key = fields(architecture)[0].name
    return replace(architecture, **{key: getattr(architecture, key)[i]})


def one_of(sae, i):
    """One of several in float64 (`sae[i]` goes through float32)."""
    one = SAE(own_setting(sae.architecture, i), D, N, d_out=sae.d_out if sae.is_transcoder else None).double()
    one.load_state_dict(slice_of(sae, i))
    return one


def slice_of(sae, i):
    return {key: value[i] for key, value in sae.state_dict().items()}


def close(a, b, atol=1e-9):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), atol=atol, rtol=0, check_dtype=False)


def same_weights(one, other, atol=1e-9):
    """Of two dictionaries, or of one and a slice of several."""
    other = other if isinstance(other, dict) else other.state_dict()
    for key, value in one.state_dict().items():
        torch.testing.assert_close(value, other[key], atol=atol, rtol=1e-7, msg=lambda m, k=key: f"{k} {m}")


def planted_data(n=600, dtype=torch.float64, seed=0):
    return features.planted(N, D, probability=0.25).sample(n, seed=seed)[0].to(dtype)


QUICK = {"steps": 60, "batch_size": 32}


# --- Losses, written out --------------------------------------------------------------------------


def relu(values):
    return np.maximum(values, 0)


def error(y, written):
    return ((y - written) ** 2).sum(1).mean()


def loss_by_hand(sae, p, frozen, x, y, warmth):
    """The loss of one dictionary with the parameters p, in numpy; `frozen` are those without a gradient."""
    architecture = sae.architecture
    read = (x if sae.is_transcoder else x - p["b_dec"]) @ p["W_enc"]
    pre = read + p["b_enc"]

    def written(z, by=p):
        return z @ by["W_dec"] + by["b_dec"]

    match architecture:
        case ReLU(l1):
            z = relu(pre)
            return error(y, written(z)) + warmth * l1 * z.sum(1).mean()
        case TopK(k):
            least = np.sort(pre, axis=1)[:, [-k]]
            return error(y, written(relu(pre) * (pre >= least)))
        case BatchTopK(k):
            least = np.sort(pre, axis=None)[-k * len(x)]
            return error(y, written(relu(pre) * (pre >= least)))
        case Matryoshka(k, sizes):
            z = relu(pre) * (pre >= np.sort(pre, axis=None)[-k * len(x)])
            sizes = [size for size in sizes if size < sae.n_latents] + [sae.n_latents]
            return np.mean([error(y, z[:, :size] @ p["W_dec"][:size] + p["b_dec"]) for size in sizes])
        case JumpReLU(l0):
            active = pre > np.maximum(p["threshold"], 0)
            return error(y, written(pre * active)) + warmth * l0 * active.sum(1).mean()
        case Gated(l1):
            size = np.exp(p["gain"]) * read + p["b_magnitude"]
            alone = error(y, written(relu(pre), frozen))
            return error(y, written(relu(size) * (pre > 0))) + warmth * l1 * relu(pre).sum(1).mean() + alone


def numbers(sae, instance=()):
    return {key: value.detach().numpy()[instance].copy() for key, value in sae.state_dict().items()}


MORE = [
    *ARCHITECTURES, Matryoshka(3, (N,)), Matryoshka(1, (1, 2, 3, N)), Matryoshka(1, (3,)),
    TopK(1), TopK(N), BatchTopK(1), JumpReLU(0.5, 0.3),
]  # fmt: skip


@pytest.mark.parametrize("d_out", [None, 3], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", MORE, ids=str)
def test_losses_and_finite_differences(architecture, d_out):
    """Central differences of the loss in numpy, in every parameter but JumpReLU's thresholds (a kernel estimate)."""
    sae, x = filled(architecture, d_out=d_out), randn(BATCH, D, seed=1)
    y = x if d_out is None else randn(BATCH, d_out, seed=2)
    attempt = training._attempt(sae, x, y, warmth=0.7)
    p = numbers(sae)

    def loss(changed):
        return loss_by_hand(sae, changed, p, x.numpy(), y.numpy(), 0.7)

    close(attempt.loss, loss(p))
    attempt.loss.backward()
    step = 1e-6
    for key, parameter in sae.named_parameters():
        if key == "threshold":
            continue
        differences = np.zeros_like(p[key])
        for place in np.ndindex(*p[key].shape):
            up, down = ({**p, key: p[key].copy()} for _ in range(2))
            up[key][place] += step
            down[key][place] -= step
            differences[place] = (loss(up) - loss(down)) / (2 * step)
        close(parameter.grad, differences, 1e-6)


@pytest.mark.parametrize("own", [False, True], ids=["one batch", "batches of their own"])
@pytest.mark.parametrize("architecture", SEVERAL, ids=name)
def test_losses_of_several(architecture, own):
    sae, x = filled(architecture), randn(*([3] if own else []), BATCH, D, seed=1)
    attempt = training._attempt(sae, x, x, warmth=0.3)
    assert attempt.loss.shape == attempt.l0.shape == (3,) and attempt.fired.shape == (3, N)
    for i in range(3):
        one, rows = one_of(sae, i), x[i] if own else x
        p = numbers(sae, i)
        close(attempt.loss[i], loss_by_hand(one, p, p, rows.numpy(), rows.numpy(), 0.3))
        close(training._attempt(one, rows, rows, 0.3).written, attempt.written[i])


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_what_an_attempt_reports(architecture):
    sae, x = filled(architecture), randn(BATCH, D, seed=1)
    attempt = training._attempt(sae, x, x, 1.0)
    if isinstance(architecture, BatchTopK | Matryoshka):
        sae.threshold.fill_(attempt.smallest * (1 - 1e-9))
    z = sae.encode(x)
    close(attempt.written, sae.decode(z))
    assert attempt.fired.equal((z > 0).any(0))
    close(attempt.l0, (z > 0).double().sum(1).mean())


# --- TopK: sparse against dense -------------------------------------------------------------------


def dense_gradients(sae, x, y):
    """By autograd through all latents, with a mask of the largest k positive ones."""
    leaves = {key: value.detach().clone().requires_grad_() for key, value in sae.named_parameters()}
    centred = x if sae.is_transcoder else x - leaves["b_dec"][..., None, :]
    pre = centred @ leaves["W_enc"] + leaves["b_enc"][..., None, :]
    k = torch.tensor(sae.architecture.k).reshape(-1, 1, 1) if sae.instances else torch.tensor(sae.architecture.k)
    place = pre.argsort(dim=-1, descending=True).argsort(dim=-1)
    z = pre * ((place < k) & (pre > 0))
    loss = (y - z @ leaves["W_dec"] - leaves["b_dec"][..., None, :]).pow(2).sum(-1).mean(-1)
    loss.sum().backward()
    return loss.detach(), z, {key: value.grad for key, value in leaves.items()}


SPARSE = {
    "k = 1": (1, {}, (), 0.0),
    "k = 3": (3, {}, (), 0.0),
    "all of them": (N, {}, (), 0.0),
    "fewer than k positives": (4, {}, (), -1.0),
    "nothing positive": (2, {}, (), -50.0),
    "instances": (2, {"seed": [0, 1, 2]}, (), 0.0),
    "instances of several k": ([1, N, 3], {}, (), 0.0),
    "instances, fewer than k positives": ([1, N, 3], {}, (), -1.0),
    "instances with batches of their own": ([1, 4, 3], {}, (3,), 0.0),
    "transcoder": (2, {"d_out": 3}, (), 0.0),
    "transcoders": ([2, 1, 5], {"d_out": 3}, (3,), 0.0),
}


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["64", "32"])
@pytest.mark.parametrize("case", SPARSE)
def test_sparse_gradients_are_those_of_dense_autograd(case, dtype, atol):
    k, settings, instances, shift = SPARSE[case]
    sae = filled(TopK(k), **settings).to(dtype)
    with torch.no_grad():
        sae.b_enc.add_(shift)
    x = randn(*instances, 40, D, seed=1).to(dtype)
    y = x if "d_out" not in settings else randn(*instances, 40, 3, seed=2).to(dtype)
    attempt = training._attempt_sparsely(sae, x, y)
    attempt.loss.sum().backward()
    loss, z, gradients = dense_gradients(sae, x, y)
    close(attempt.loss, loss, atol)
    assert attempt.fired.equal((z > 0).any(-2))
    close(attempt.l0, (z > 0).double().sum(-1).mean(-1), 1e-6)
    for key, parameter in sae.named_parameters():
        close(parameter.grad, gradients[key], atol)
    if shift == -50:
        assert sae.W_enc.grad.eq(0).all() and not attempt.fired.any()
    else:
        assert sae.W_enc.grad.abs().max() > 0.01


def test_sparse_and_dense_paths_write_what_the_module_writes():
    for k in (2, [1, 4, 2]):
        sae, x = filled(TopK(k)), randn(30, D, seed=1)
        close(training._attempt_sparsely(sae, x, x).written, sae(x))


def test_the_same_latent_twice_in_a_batch_gets_both_gradients():
    sae = filled(TopK(1))
    x = randn(1, D, seed=3).expand(20, D)
    training._attempt_sparsely(sae, x, x).loss.backward()
    together = sae.W_enc.grad.clone()
    sae.zero_grad()
    training._attempt_sparsely(sae, x[:1], x[:1]).loss.backward()
    close(together, sae.W_enc.grad)


# --- JumpReLU -------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_thresholds_have_the_gradient_of_the_paper(several):
    """arXiv 2407.14435, equations 11 and 12, with a rectangle as kernel, latent by latent and sample by sample."""
    l0, bandwidth, warmth = 0.3, 0.4, 0.6
    sae = filled(JumpReLU((l0, 2 * l0) if several else l0, bandwidth))
    x = randn(60, D, seed=1)
    training._attempt(sae, x, x, warmth).loss.sum().backward()
    for i in range(2) if several else [()]:
        p, weight = numbers(sae, i), l0 * (2 if i == 1 else 1)
        pre = relu((x.numpy() - p["b_dec"]) @ p["W_enc"] + p["b_enc"])
        z = pre * (pre > p["threshold"])
        residual = z @ p["W_dec"] + p["b_dec"] - x.numpy()
        expected = np.zeros(N)
        for sample in range(60):
            for latent in range(N):
                u, theta = (pre[sample, latent] - p["threshold"][latent]) / bandwidth, p["threshold"][latent]
                kernel = 1.0 if -0.5 < u < 0.5 else 0.0
                of_error = 2 / 60 * residual[sample] @ p["W_dec"][latent]
                expected[latent] += -theta / bandwidth * kernel * of_error
                expected[latent] += -1 / bandwidth * kernel * warmth * weight / 60
        assert np.abs(expected).max() > 0.01
        close(sae.threshold.grad[i], expected)


def test_the_kernel_estimate_is_the_gradient_of_the_expected_penalty():
    """With uniform values density is 1: the expected number above a threshold falls by 1 for each unit of it."""
    values = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
    threshold = torch.tensor([[0.4]], dtype=torch.float64, requires_grad=True)
    _, active = training._Jump.apply(values, threshold, 0.1)
    active.mean().backward()
    assert threshold.grad.item() == pytest.approx(-1, abs=1e-3)
    threshold.grad = None
    z, _ = training._Jump.apply(values, threshold, 0.1)
    z.mean().backward()  # d/dt of the integral of v from t to 1
    assert threshold.grad.item() == pytest.approx(-0.4, abs=1e-3)


def test_thresholds_stay_at_least_zero():
    x = planted_data()
    sae = train(x, JumpReLU(0.0, bandwidth=1.0), N, steps=200, batch_size=64, lr=0.05)
    assert sae.threshold.min() >= 0
    assert sae.threshold.eq(0).any()


# --- BatchTopK ------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, N])
def test_exactly_k_per_sample_on_average(k):
    values = randn(50, N).exp()
    kept, least = training._largest_of_batch(values, k)
    assert (kept > 0).sum() == 50 * k
    ordered = values.flatten().sort(descending=True).values
    assert least == ordered[50 * k - 1]
    assert kept[kept > 0].sort(descending=True).values.equal(ordered[: 50 * k])
    assert kept[kept > 0].equal(values[kept > 0])


def test_instances_keep_numbers_of_their_own():
    values = randn(3, 20, N).exp()
    kept, least = training._largest_of_batch(values, [1, 4, 2])
    assert (kept > 0).sum((1, 2)).tolist() == [20, 80, 40]
    for i, k in enumerate((1, 4, 2)):
        alone, of_alone = training._largest_of_batch(values[i], k)
        assert kept[i].equal(alone) and least[i] == of_alone


def test_only_positive_latents_are_kept_where_there_are_fewer():
    values = (randn(50, N) - 1).relu()
    positive = int((values > 0).sum())
    assert 20 < positive < 150
    kept, least = training._largest_of_batch(values, 3)
    assert kept.equal(values) and 0 < least < 1e-30
    none, least = training._largest_of_batch(torch.zeros(10, N), 3)
    assert none.eq(0).all() and 0 < least < 1e-30


def test_what_is_not_kept_has_no_gradient():
    values = randn(20, N).exp().requires_grad_()
    kept, _ = training._largest_of_batch(values, 2)
    kept.sum().backward()
    assert values.grad.equal((kept > 0).double())


def test_exactly_k_per_sample_where_latents_are_equal():
    kept, _ = training._largest_of_batch(torch.ones(10, N), 2)
    assert (kept > 0).sum() == 20


@pytest.mark.parametrize("d_out", [None, 3], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", [BatchTopK(2), Matryoshka(2, (3,))], ids=name)
def test_the_threshold_is_the_mean_of_the_smallest_kept_latents(architecture, d_out):
    """At a vanishing learning rate the dictionary stays as it starts, and the batches can be gone through by hand."""
    x = 3 * planted_data(320) + 1
    y = None if d_out is None else 5 * x @ randn(D, 3) - 2
    sae = train(x, architecture, N, target=y, steps=20, batch_size=32, lr=1e-14, seed=4)
    start = SAE(architecture, D, N, d_out=d_out, seed=4).double()
    scale_in = (x - x.mean(0)).pow(2).sum(1).mean().sqrt()
    batches = training._batches((x - x.mean(0)) / scale_in, None, 32, 4)
    smallest = [(next(batches)[0] @ start.W_enc).flatten().sort().values[-64].item() for _ in range(20)]
    written = x if y is None else y
    scale = (written - written.mean(0)).pow(2).sum(1).mean().sqrt()
    close(sae.threshold, torch.full((N,), np.mean(smallest)) * scale, 1e-6)


def test_outside_training_as_many_latents_are_active():
    x, fresh = planted_data(3000), planted_data(3000, seed=1)
    sae = train(x, BatchTopK([1, 3]), 16, steps=300, batch_size=128)
    close(evaluate(sae, fresh).l0 / torch.tensor([1.0, 3.0]), torch.ones(2), 0.2)


# --- A training, written out ----------------------------------------------------------------------


def plain_training(architecture, batches, targets, steps, lr, seed, d_out):
    """Dense autograd and Adam, nothing else; returns weights in the activations' units."""
    sae = SAE(architecture, D, N, seed=seed, d_out=d_out).double()
    n = min(steps, math.ceil(training.SCALED_ON / len(batches[0])))
    x, y = (torch.cat(list(islice(cycle(source), n))) for source in (batches, targets))
    mean_in, mean_out = x.mean(0), y.mean(0)
    scale_in = (x - mean_in).pow(2).sum(1).mean().sqrt()
    scale_out = (y - mean_out).pow(2).sum(1).mean().sqrt()
    adam = torch.optim.Adam(sae.parameters(), lr=lr)
    smallest = []
    for step in range(steps):
        x = (batches[step % len(batches)] - mean_in) / scale_in
        y = (targets[step % len(batches)] - mean_out) / scale_out
        adam.param_groups[0]["lr"] = lr * min(1, (step + 1) / (0.05 * steps), (steps - step) / (0.3 * steps))
        read = (x if sae.is_transcoder else x - sae.b_dec) @ sae.W_enc
        pre, extra = read + sae.b_enc, 0.0
        warmth = min(1, step / (0.2 * steps))
        match architecture:
            case ReLU(l1):
                z = pre.relu()
                extra = warmth * l1 * z.sum(1).mean()
            case TopK(k):
                z = pre.relu() * (pre >= pre.sort(dim=1).values[:, [-k]])
            case BatchTopK(k) | Matryoshka(k):
                smallest.append(pre.flatten().sort().values[-k * len(x)].item())
                z = pre.relu() * (pre >= smallest[-1])
            case Gated(l1):
                z = (sae.gain.exp() * read + sae.b_magnitude).relu() * (pre > 0)
                alone = pre.relu() @ sae.W_dec.detach() + sae.b_dec.detach()
                extra = warmth * l1 * pre.relu().sum(1).mean() + (y - alone).pow(2).sum(1).mean()
        sizes = [*architecture.sizes, N] if isinstance(architecture, Matryoshka) else [N]
        losses = [(y - z[:, :n] @ sae.W_dec[:n] - sae.b_dec).pow(2).sum(1).mean() for n in sizes]
        adam.zero_grad()
        (sum(losses) / len(sizes) + extra).backward()
        with torch.no_grad():
            for row, grad in zip(sae.W_dec, sae.W_dec.grad, strict=True):
                grad -= grad @ row / (row @ row) * row
            adam.step()
            sae.W_dec.copy_(torch.nn.functional.normalize(sae.W_dec, dim=1))
    if smallest:
        sae.threshold.fill_(np.mean(smallest))
    return sae, lambda x: mean_out + scale_out * sae((x - mean_in) / scale_in)


@pytest.mark.parametrize("d_out", [None, 3], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if not isinstance(a, JumpReLU)], ids=name)
def test_training_is_that_of_a_plain_loop(architecture, d_out):
    x = 2 * planted_data(7 * 32) + 0.5 + 0.01 * randn(7 * 32, D, seed=8)  # samples of no feature would be ties
    y = x if d_out is None else 3 * (x @ randn(D, d_out)).relu() - 1
    batches, targets = list(x.split(32)), list(y.split(32))
    source = batches if d_out is None else list(zip(batches, targets, strict=True))
    ours = train(source, architecture, N, steps=50, lr=0.01, seed=3)
    theirs, predict = plain_training(architecture, batches, targets, 50, 0.01, 3, d_out)
    close(ours.W_dec, theirs.W_dec, 1e-7)
    with torch.no_grad():
        close(ours(x), predict(x), 1e-6)
    start = SAE(architecture, D, N, seed=3, d_out=d_out)
    assert (ours.W_dec - start.W_dec).abs().max() > 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_learning_rate_penalty_and_gradients_at_every_step(architecture, monkeypatch):
    rates, warmths, along = [], [], []

    class Watched(torch.optim.Adam):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            along.append((W_dec().grad * W_dec()).sum(-1).abs().max().item())
            super().step()

    def W_dec():
        return runs[0].sae.W_dec

    runs, attempt, make = [], training._attempt, training._Run.__init__

    def watched(sae, x, y, warmth):
        close(sae.W_dec.norm(dim=-1), torch.ones(N), 1e-12 if warmths else 1e-6)  # drawn in float32
        warmths.append(warmth)
        return attempt(sae, x, y, warmth)

    monkeypatch.setattr(training.torch.optim, "Adam", Watched)
    monkeypatch.setattr(training, "_attempt", watched)
    monkeypatch.setattr(training._Run, "__init__", lambda self, *args: runs.append(self) or make(self, *args))
    sae = train(planted_data(), architecture, N, steps=200, batch_size=32, lr=0.01, dead_after=64)
    expected = [0.01 * min((s + 1) / 10, 1, (200 - s) / 60) for s in range(200)]
    close(rates, expected, 1e-12)
    close(warmths, [min(1, s / 40) for s in range(200)], 1e-12)
    assert along[0] < 1e-6 and max(along[1:]) < 1e-12
    close(sae.W_dec.norm(dim=-1), torch.ones(N), 1e-12)


# --- Scale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
@pytest.mark.parametrize(("scale", "shift"), [(1, 30.0), (1000, 0.0), (1e-4, 1.0)])
def test_scale_and_place_of_the_activations_do_not_matter(architecture, scale, shift):
    x = planted_data()
    there = shift * randn(D, seed=5) + scale * x
    one = train(x, architecture, N, **QUICK, dead_after=100)
    other = train(there, architecture, N, **QUICK, dead_after=100)
    close(other.W_dec, one.W_dec, 1e-5)
    close(other.encode(there) / scale, one.encode(x), 1e-4)
    close(other.history.fvu, one.history.fvu, 1e-5)
    close(fvu(there, other(there)), fvu(x, one(x)), 1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_scale_and_place_of_a_transcoders_activations_do_not_matter(architecture):
    x = planted_data()
    y = (x @ randn(D, 3)).relu()
    one = train(x, architecture, N, target=y, **QUICK)
    other = train(7 * x + 2, architecture, N, target=5 * y - 3, **QUICK)
    close(other(7 * x + 2), 5 * one(x) - 3, 1e-6)
    close(other.encode(7 * x + 2), 5 * one.encode(x), 1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_every_instance_has_a_scale_of_its_own(architecture):
    x = torch.stack([planted_data(), 100 * planted_data(seed=1) - 7])
    both = train(x, architecture, N, seed=[2, 2], **QUICK)
    for i in range(2):
        same_weights(train(x[i], architecture, N, seed=2, **QUICK), slice_of(both, i), 1e-7)


# --- Instances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_out", [None, 3], ids=["autoencoder", "transcoder"])
@pytest.mark.parametrize("architecture", SEVERAL, ids=name)
def test_several_settings_are_as_trained_one_by_one(architecture, d_out):
    x = planted_data()
    y = None if d_out is None else x @ randn(D, d_out)
    options = dict(**QUICK, seed=1, target=y, dead_after=100, lr=0.02)
    together = train(x, architecture, N, **options)
    for i in range(3):
        alone = train(x, own_setting(architecture, i), N, **options)
        same_weights(alone, slice_of(together, i), 1e-7)
        close(together.history[i].fvu, alone.history.fvu, 1e-7)
        close(together.history.l0[i], alone.history.l0, 1e-7)
        close(together.history[i].dead, alone.history.dead, 1e-7)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_several_seeds_are_as_trained_one_by_one_on_the_same_batches(architecture):
    batches = list(planted_data().split(50))
    together = train(batches, architecture, N, steps=40, seed=[5, 0, 2], dead_after=100, lr=0.02)
    for i, seed in enumerate((5, 0, 2)):
        alone = train(batches, architecture, N, steps=40, seed=seed, dead_after=100, lr=0.02)
        same_weights(alone, slice_of(together, i), 1e-7)
    assert not together.W_dec[0].equal(together.W_dec[1])


# --- Dead latents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [[0], [1, 2, 5], list(range(N))], ids=len)
def test_the_loss_of_dead_latents_by_hand(dead):
    sae, x, error = filled(TopK(2)), randn(BATCH, D, seed=1), randn(BATCH, D, seed=2)
    mask = torch.zeros(N, dtype=torch.bool)
    mask[dead] = True
    loss = training._revival(sae, x, error, mask)
    p = numbers(sae)
    pre = relu((x.numpy() - p["b_dec"]) @ p["W_enc"] + p["b_enc"])
    left = 0.0
    for row in range(BATCH):
        chosen = sorted(dead, key=lambda latent: -pre[row, latent])[: D // 2]
        left += ((error[row].numpy() - sum(pre[row, i] * p["W_dec"][i] for i in chosen)) ** 2).sum()
    close(loss, left / (error.numpy() ** 2).sum())
    loss.backward()
    assert sae.W_dec.grad[~mask].eq(0).all() and sae.W_enc.grad[:, ~mask].eq(0).all()
    assert sae.W_dec.grad[mask].ne(0).any() and sae.b_dec.grad.ne(0).any()


def test_dead_latents_of_one_instance_do_not_touch_another():
    sae, x, error = filled(TopK([2, 1, 3])), randn(BATCH, D, seed=1), randn(3, BATCH, D, seed=2)
    dead = torch.zeros(3, N, dtype=torch.bool)
    dead[0, [1, 4, 5]], dead[2, 2] = True, True
    loss = training._revival(sae, x, error, dead)
    loss.sum().backward()
    close(loss[1], 1.0)
    assert sae.W_dec.grad[1].eq(0).all() and sae.W_enc.grad[1].eq(0).all() and sae.b_enc.grad[1].eq(0).all()
    for i in (0, 2):
        one = one_of(sae, i)
        alone = training._revival(one, x, error[i], dead[i])
        alone.backward()
        close(loss[i], alone)
        close(sae.W_enc.grad[i], one.W_enc.grad)


def with_a_dead_latent(revive, dead_after=320):
    """Latents along 15 of the 16 half-axes of a normal cloud; the last hardly reads the sixteenth."""
    x = randn(2000, 8, seed=3)
    sae = SAE(TopK(2), 8, 16).double()
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(8), -torch.eye(8)]))
        sae.W_enc.copy_(sae.W_dec.T)
        sae.W_enc[:, 15] *= 0.01
        sae.W_dec[15] = torch.nn.functional.normalize(randn(8, seed=4), dim=0)
    run = training._Run(sae, training._Scaling.of(x, None), 1e-2, 300, dead_after, revive)
    batches = training._batches(x, None, 64, 0)
    for step in range(300):
        run.step(step, *next(batches))
    return sae, run.history(), x


def test_a_dead_latent_is_revived_and_stays_as_it_is_without_revival():
    sae, history, x = with_a_dead_latent(revive=False)
    assert sae.encode(x)[:, 15].eq(0).all()
    close(sae.W_dec[15], torch.nn.functional.normalize(randn(8, seed=4), dim=0))
    assert sae.W_enc[:, 15].norm().item() == pytest.approx(0.01)
    assert history.dead[0] == 0 and history.dead[3:].eq(1 / 16).all()
    sae, history, _ = with_a_dead_latent(revive=True)
    fired_again = history.dead[3:] == 0
    assert history.dead[1:3].max() == 1 / 16 and fired_again.any()
    assert sae.W_enc[:, 15].norm() > 0.1
    assert torch.cosine_similarity(sae.W_enc[:, 15], sae.W_dec[15], dim=0) > 0.9


def test_revival_leaves_fewer_dead_where_a_large_learning_rate_kills():
    x = features.planted(24, 12, probability=0.05).sample(8000)[0]
    options = {"steps": 300, "batch_size": 128, "lr": 0.03, "dead_after": 2000, "seed": [1, 2, 3]}
    with_it, without = (train(x, TopK(2), 24, **options, revive=revive) for revive in (True, False))
    assert with_it.history.dead[:, -1].mean() < 0.7 * without.history.dead[:, -1].mean()
    assert with_it.history.fvu[:, -1].mean() < without.history.fvu[:, -1].mean()


def test_a_latent_is_dead_after_so_many_silent_samples():
    _, history, _ = with_a_dead_latent(revive=False, dead_after=19 * 64)
    dead = dict(zip(history.step.tolist(), history.dead.tolist(), strict=True))
    assert history.step[:5].tolist() == [0, 6, 12, 18, 24]
    assert dead[12] == 0 and dead[18] > 0  # with the batches 0 to 18
    _, history, _ = with_a_dead_latent(revive=False, dead_after=19 * 64 + 1)
    assert history.dead[history.step == 18] == 0 and history.dead[history.step == 24] > 0


def test_nothing_revives_a_relu_latent():
    """Silent on the batch at hand, its pre-activations are negative there, and the ReLU lets no gradient through."""
    x = planted_data(1000)
    options = {"steps": 150, "batch_size": 64, "dead_after": 320, "lr": 0.02}
    with_it, without = (train(x, ReLU(0.5), 40, **options, revive=revive) for revive in (True, False))
    assert without.history.dead[-1] > 0.1
    assert with_it.W_dec.equal(without.W_dec)


# --- Batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size", "per_pass"), [(60, 20, 3), (65, 20, 3), (20, 20, 1), (7, 20, 1)])
def test_samples_are_drawn_without_replacement_until_used_up(n, size, per_pass):
    x = torch.arange(n * 2.0).reshape(n, 2)
    batches = training._batches(x, None, size, seed=3)
    orders = []
    for _ in range(3):
        drawn = torch.cat([next(batches)[0] for _ in range(per_pass)])
        assert len(drawn) == per_pass * min(size, n)
        assert drawn[:, 0].unique().numel() == len(drawn) and (drawn[:, 1] == drawn[:, 0] + 1).all()
        orders.append(drawn[:, 0])
    assert not orders[0].equal(orders[1])
    assert not orders[0].equal(orders[0].sort().values)
    again = training._batches(x, None, size, seed=3)
    assert next(again)[0][:, 0].equal(orders[0][:size])
    assert not next(training._batches(x, None, size, seed=4))[0][:, 0].equal(orders[0][:size])


def test_instances_and_targets_are_drawn_together():
    x = torch.arange(40.0).reshape(2, 20, 1)
    drawn, goal = next(training._batches(x, 3 * x, 6, seed=0))
    assert drawn.shape == (2, 6, 1) and goal.equal(3 * drawn) and drawn[1].equal(drawn[0] + 20)


def test_a_stream_is_gone_through_again_and_again():
    x = planted_data()
    passes = []

    class Source:
        hook = "blocks.0.hook_mlp_out"

        def __iter__(self):
            passes.append(1)
            return iter(x.split(200))

    sae = train(Source(), TopK(2), N, steps=10)
    assert len(passes) >= 4 and sae.hook == "blocks.0.hook_mlp_out"
    assert train(Source(), TopK(2), N, steps=1, hook="other").hook == "other"
    assert train(x, TopK(2), N, steps=1).hook is None


def test_pairs_may_be_lists_as_a_data_loader_gives_them():
    x = planted_data()
    y = x @ randn(D, 3)
    pairs, alone = list(zip(x.split(100), y.split(100), strict=True)), list(x.split(100))
    same_weights(train([list(p) for p in pairs], TopK(2), N, steps=8), train(pairs, TopK(2), N, steps=8))
    same_weights(train([[rows] for rows in alone], TopK(2), N, steps=8), train(alone, TopK(2), N, steps=8))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=100)
    same_weights(train(loader, TopK(2), N, steps=8), train(alone, TopK(2), N, steps=8))


def test_batches_of_several_sizes_and_a_generator_that_lasts():
    x = planted_data()
    batches = [x[:100], x[100:130], x[130:131]]
    assert train(batches, BatchTopK(2), N, steps=9).W_dec.isfinite().all()
    many = x.repeat(10, 1)
    sae = train((rows for rows in many.split(20)), TopK(2), N, steps=300)
    same_weights(sae, train(list(many.split(20)), TopK(2), N, steps=300))
    with pytest.raises(ValueError, match="activations gave no batch"):
        train((x[i : i + 20] for i in range(0, 180, 20)), TopK(2), N, steps=10)


# --- Result ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_same_seed_same_dictionary(architecture):
    x = planted_data(dtype=torch.float32)
    before = x.clone()
    one, again, other = (train(x, architecture, N, **QUICK, seed=seed) for seed in (1, 1, 2))
    for key, value in one.state_dict().items():
        assert value.equal(again.state_dict()[key])
    assert not one.W_dec.equal(other.W_dec)
    assert x.equal(before)
    with torch.no_grad():
        assert train(x, architecture, N, **QUICK, seed=1).W_dec.equal(one.W_dec)
    assert torch.is_grad_enabled()


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(planted_data(), TopK(2), N, steps=3)
    assert torch.rand(2).equal(expected)


@pytest.mark.parametrize("instances", [0, 3])
@pytest.mark.parametrize("steps", [1, 7, 50, 99, 100, 180])
def test_history_has_about_fifty_records(steps, instances):
    seed = list(range(instances)) or 0
    sae = train(planted_data(60), TopK(2), N, steps=steps, batch_size=10, seed=seed)
    history, shape = sae.history, (instances,) * bool(instances)
    assert history.step[0] == 0 and history.step[-1] == steps - 1 and history.step.diff().gt(0).all()
    assert min(steps, 50) <= len(history.step) <= 100
    for values in (history.fvu, history.l0, history.dead):
        assert values.shape == (*shape, len(history.step)) and values.isfinite().all()
    if instances:
        assert sae[instances - 1].history.fvu.equal(history.fvu[instances - 1])


def test_history_by_hand_at_the_first_step():
    x = planted_data(40)
    sae = train(x, TopK(2), N, steps=3, batch_size=40, seed=1)
    start = SAE(TopK(2), D, N, seed=1).double()
    centred = x - x.mean(0)
    scale = centred.pow(2).sum(1).mean().sqrt()
    read = start.encode(centred / scale)
    close(sae.history.fvu[0], fvu(centred, scale * start.decode(read)))
    close(sae.history.l0[0], (read > 0).double().sum(1).mean())
    assert sae.history.step.tolist() == [0, 1, 2]


def test_a_trained_dictionary_has_no_gradients_and_may_be_used_at_once():
    sae = train(planted_data(), Gated(0.1), N, steps=2)
    assert not any(p.requires_grad for p in sae.parameters()) and not sae.training
    assert not sae(planted_data()).requires_grad
    assert all(p.grad is None or not p.grad.requires_grad for p in sae.parameters())


@pytest.fixture(scope="module")
def recovered():
    """12 orthogonal features in 16 dimensions, one dictionary of each architecture."""
    truth = features.Features(torch.linalg.qr(randn(16, 16, seed=99)).Q[:12].float(), torch.full((12,), 0.08))
    x, fresh = truth.sample(8000, seed=1)[0], truth.sample(4000, seed=2)[0]
    options = {"steps": 300, "batch_size": 128, "lr": 1e-2, "dead_after": 2000, "seed": 3}
    settings = TopK(2), BatchTopK(2), ReLU(0.1), JumpReLU(0.03), Gated(0.15), Matryoshka(2, (6,))
    return truth, fresh, {name(a): train(x, a, 16, **options) for a in settings}


@pytest.mark.parametrize(
    ("architecture", "least", "worst_fvu"),
    [
        ("TopK", 0.95, 0.06), ("BatchTopK", 0.68, 0.02), ("ReLU", 0.88, 0.02), ("JumpReLU", 0.65, 0.02),
        ("Gated", 0.6, 0.02), ("Matryoshka", 0.7, 0.03),
    ],
)  # fmt: skip
def test_planted_directions_are_found(recovered, architecture, least, worst_fvu):
    """The bounds hold for the seeds 0 to 3; random rows have a mean largest cosine of at most .49 (20 draws)."""
    truth, fresh, dictionaries = recovered
    sae = dictionaries[architecture]
    report = evaluate(sae, fresh)
    found, _ = best_cosines(truth.directions, sae.W_dec[report.density > 0])
    assert found.mean() > least and report.fvu < worst_fvu
    random = randn(20, 16, 16).float()
    assert best_cosines(truth.directions.expand(20, -1, -1), random)[0].mean(-1).max() < 0.55
    assert abs(report.fvu - sae.history.fvu[-1]) < 0.03


def test_an_l1_penalty_shrinks_and_counting_does_not(recovered):
    _, fresh, dictionaries = recovered
    bias = {key: evaluate(sae, fresh).bias.item() for key, sae in dictionaries.items()}
    assert bias["ReLU"] < 0.975
    assert all(abs(bias[key] - 1) < 0.015 for key in ("TopK", "BatchTopK", "JumpReLU", "Gated", "Matryoshka"))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_dictionary_does_not_start_at_the_planted_directions(seed):
    truth, start = features.planted(seed=seed), SAE(TopK(2), 20, 128, seed=seed)
    cosines, _ = best_cosines(truth.directions, start.W_dec)
    others = [best_cosines(truth.directions, SAE(TopK(2), 20, 128, seed=s).W_dec)[0].mean() for s in (11, 12, 13)]
    assert abs(cosines.mean() - sum(others) / 3) < 0.05 and cosines.max() < 0.95


def test_a_heavier_penalty_is_sparser():
    x = features.planted(12, 8, probability=0.1).sample(3000)[0]
    for architecture in (ReLU((0.01, 0.1, 0.6)), JumpReLU((0.001, 0.03, 0.3)), Gated((0.01, 0.1, 0.6))):
        report = evaluate(train(x, architecture, 16, steps=200, batch_size=128, lr=5e-3, seed=9), x)
        assert (report.l0.diff() < -0.3).all() and (report.fvu.diff() > 0).all()


def test_absorption_in_a_hierarchy_and_less_in_a_matryoshka():
    truth = features.hierarchy()
    x, a = truth.sample(8000)
    parents, absorbed = sorted(set(truth.parents.values())), {}
    for architecture in (ReLU(0.2), Matryoshka(1, (4,))):
        several = train(x, architecture, 16, steps=400, batch_size=256, lr=5e-3, seed=[1, 2, 3])
        shares = []
        for sae in several:
            z, (_, latent) = sae.encode(x), best_cosines(truth.directions, sae.W_dec)
            shares += [absorption(z, sae.W_dec, int(latent[p]), truth.directions[p], a[:, p] > 0)[0] for p in parents]
        absorbed[name(architecture)] = torch.tensor(shares)
    assert absorbed["ReLU"].min() > 0.1 and absorbed["ReLU"].mean() > 0.2
    assert absorbed["Matryoshka"].mean() < 0.4 * absorbed["ReLU"].mean()


@pytest.mark.parametrize("architecture", [TopK(4), ReLU(0.01), JumpReLU(0.001), BatchTopK(4)], ids=name)
def test_a_transcoder_learns_a_linear_map(architecture):
    truth = features.planted(8, 6, probability=0.2)
    (x, _), (fresh, _) = truth.sample(4000), truth.sample(1000, seed=1)
    M = randn(6, 4, seed=7).float()
    sae = train(x + 1, architecture, 24, target=3 * x @ M - 5, steps=300, batch_size=128, lr=1e-2, seed=9)
    assert sae.is_transcoder and (sae.d_in, sae.d_out) == (6, 4)
    assert fvu(3 * fresh @ M - 5, sae(fresh + 1)) < 0.06
    report = evaluate(sae, fresh + 1, 3 * fresh @ M - 5)
    close(report.fvu, fvu(3 * fresh @ M - 5, sae(fresh + 1)), 1e-5)


# --- Unusual tensors ------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_unusual_tensors_train_as_any_other(architecture):
    x = planted_data()
    plain = train(x, architecture, N, **QUICK)
    assert plain.W_dec.dtype == torch.float64
    same_weights(train(x.T.contiguous().T, architecture, N, **QUICK), plain, 1e-7)
    same_weights(train(x.repeat_interleave(2, dim=0)[::2], architecture, N, **QUICK), plain, 1e-7)
    with torch.inference_mode():
        made_there = x * 1
    same_weights(train(made_there, architecture, N, **QUICK), plain, 1e-7)
    same_weights(train(x, architecture, N, steps=60, batch_size=32), plain)
    single = train(x.float(), architecture, N, **QUICK)
    assert single.W_dec.dtype == torch.float32 and single.history.fvu.dtype == torch.float32
    close(single.W_dec, plain.W_dec, 0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_smallest_trainings(architecture):
    x = planted_data()
    small = replace(architecture, sizes=(1,)) if isinstance(architecture, Matryoshka) else architecture
    for sae in (
        train(x, architecture, N, steps=1),
        train(x[:3], architecture, N, steps=5, batch_size=1000),
        train(x[:2], architecture, N, steps=5),
        train(x[:, :1], architecture, N, steps=5),
        train(x, small, 2, steps=5),
        train(x[None], architecture, N, steps=5, seed=[0]),
        train(x, architecture, N, steps=5, dead_after=1),
        train(torch.cat([x, torch.full((600, 1), 3.0)], dim=1), architecture, N, steps=5),
    ):
        assert all(value.isfinite().all() for value in sae.state_dict().values())
        close(sae.W_dec.norm(dim=-1), torch.ones(1).expand(sae.W_dec.shape[:-1]), 1e-9)
        assert sae.history.fvu.isfinite().all()


def test_a_batch_larger_than_the_samples_is_all_of_them():
    x = planted_data(30)
    same_weights(train(x, TopK(2), N, steps=20, batch_size=1000), train(x, TopK(2), N, steps=20, batch_size=30))


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_activations_that_are_all_the_same_are_refused(value):
    for shape in ((50, D), (2, 50, D)):
        with pytest.raises(ValueError, match="activations do not vary: all samples are the same"):
            train(torch.full(shape, value), TopK(2), N, seed=[0, 1] if len(shape) == 3 else 0, **QUICK)
    one_of_two = torch.stack([planted_data(50), torch.full((50, D), value)])
    with pytest.raises(ValueError, match="do not vary"):
        train(one_of_two, TopK(2), N, seed=[0, 1], **QUICK)
    with pytest.raises(ValueError, match="do not vary"):
        train(planted_data(50), TopK(2), N, target=torch.full((50, 2), value), **QUICK)


@pytest.mark.parametrize("value", [0.1, 7.7])
def test_activations_that_are_all_the_same_are_refused_whatever_the_rounding(value):
    with pytest.raises(ValueError, match="do not vary"):
        train(torch.full((600, 8), value), TopK(2), N, **QUICK)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_activations_with_gradients_are_read_and_left_alone(architecture):
    x = planted_data()
    leaf = x.clone().requires_grad_()
    same_weights(train(leaf, architecture, N, **QUICK), train(x, architecture, N, **QUICK))
    assert leaf.grad is None


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=name)
def test_activations_from_a_graph_are_trained_on(architecture):
    x = planted_data()
    of_a_graph = x * torch.ones(D).requires_grad_()
    same_weights(train(of_a_graph, architecture, N, **QUICK), train(x, architecture, N, **QUICK))


def test_training_inside_inference_mode():
    x = planted_data()
    with torch.inference_mode():
        inside = train(x, TopK(2), N, **QUICK)
    same_weights(inside, train(x, TopK(2), N, **QUICK))


@pytest.mark.parametrize("architecture", [TopK(2), Matryoshka(2, (4,))], ids=name)
def test_half_precision_activations_give_a_dictionary_like_any_other(architecture):
    drawing = torch.Generator().manual_seed(3)
    rows = torch.nn.functional.normalize(torch.randn(16, 8, generator=drawing), dim=1)
    x = (torch.rand(600, 16, generator=drawing) * (torch.rand(600, 16, generator=drawing) < 0.1)) @ rows
    options = {"steps": 100, "batch_size": 64, "dead_after": 200, "seed": list(range(12))}
    whole, half = (train(data, architecture, 16, **options).float() for data in (x, x.half()))
    left = [(x - sae(x)).pow(2).sum((-1, -2)) for sae in (whole, half)]
    assert (left[1] < 1.2 * left[0]).all()


def test_a_batch_of_one_sample_has_a_history_without_infinities():
    assert not train(planted_data(), TopK(2), N, steps=5, batch_size=1).history.fvu.isinf().any()


def test_a_stream_of_small_batches_is_scaled_as_a_whole():
    x = planted_data()
    assert train(list(x.split(1)), TopK(2), N, steps=5).W_dec.isfinite().all()


# --- Bad input ------------------------------------------------------------------------------------

X = planted_data(50)
WITH_NAN = X.index_fill(0, torch.tensor([3]), math.nan)
BAD = [
    (lambda: train(WITH_NAN, TopK(2), N), "activations holds 5 NaN or infinite values, the first at \\[3, 0\\]"),
    (lambda: train(X / 0, TopK(2), N), "activations holds"),
    (lambda: train([X, WITH_NAN], TopK(2), N), "activations holds 5 NaN"),
    (lambda: train([(X, WITH_NAN)], TopK(2), N), "holds 5 NaN"),
    (lambda: train(X, TopK(2), N, target=WITH_NAN), "target holds 5 NaN"),
    (lambda: train(X[0], TopK(2), N), r"activations is torch.float64 \[5\], expected a floating-point tensor"),
    (lambda: train(X[None, None], TopK(2), N), r"activations is torch.float64 \[1, 1, 50, 5\]"),
    (lambda: train(X.long(), TopK(2), N), "activations is torch.int64"),
    (lambda: train(X, TopK(2), N, target=X.long()), "target is torch.int64"),
    (lambda: train(X, TopK(2), N, target=X.numpy()), "target is ndarray"),
    (lambda: train(X[:1], TopK(2), N), r"activations \[1, 5\], expected at least two samples"),
    (lambda: train(X[:0], TopK(2), N), r"activations \[0, 5\]"),
    (lambda: train(X, TopK(2), N, target=X[:20]), r"activations \[50, 5\] and target \[20, 5\]"),
    (lambda: train(X[None], TopK(2), N), r"activations has instances \[1\], the settings give \[\]"),
    (lambda: train(X.expand(3, 50, D), TopK([1, 2]), N), r"activations has instances \[3\], the settings give \[2\]"),
    (lambda: train([X], TopK(2), N, target=X), "target is given beside a stream"),
    (lambda: train([], TopK(2), N), "activations gave no batch"),
    (lambda: train(X, TopK(N + 1), N), "k is 8, expected at most 7, the number of latents"),
    (lambda: train(X, BatchTopK([2, N + 1]), N), "k is 8"),
    (lambda: train(X, TopK(2), N, steps=0), "steps is 0"),
    (lambda: train(X, TopK(2), N, batch_size=0), "batch_size is 0"),
    (lambda: train(X, TopK(2), N, dead_after=0), "dead_after is 0"),
    (lambda: train(X, TopK(2), N, lr=0.0), "lr is 0.0"),
    (lambda: train(X, TopK(2), N, lr=math.nan), "lr is nan"),
    (lambda: train(X, TopK(2), N, seed=-1), "seed is -1"),
    (lambda: train(X, TopK([1, 2]), N, seed=[1, 2, 3]), "k and seed"),
    (lambda: train(X, ReLU(-1.0), N), "l1 is -1.0"),
]


@pytest.mark.parametrize(("call", "says"), BAD)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: train(X, TopK(2), N, steps=10.0), "steps is 10.0"),
        (lambda: train(X, TopK(2), N, batch_size=True), "batch_size is True"),
        (lambda: train(X, TopK(2), N, lr="fast"), "lr is 'fast'"),
        (lambda: train(X, TopK(2), N, seed=1.5), "seed is 1.5"),
        (lambda: train(X, TopK(2), "many"), "n_latents is 'many'"),
        (lambda: train(X, "TopK", N), "architecture is 'TopK'"),
    ],
)
def test_bad_types_are_named(call, says):
    with pytest.raises(TypeError, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: train(X, TopK(2), N, seed=[]), "seed"),
        (lambda: train(X.numpy(), TopK(2), N), "activations"),
        (lambda: train(None, TopK(2), N), "activations"),
        (lambda: train(list(X), TopK(2), N), "activations"),
        (lambda: train([X.long()], TopK(2), N), "activations"),
        (lambda: train([X, X[:, :3]], TopK(2), N), "activations"),
    ],
    ids=["no seeds", "array", "nothing", "rows instead of batches", "integers", "another width"],
)
def test_bad_input_is_named_and_not_left_to_torch(call, says):
    with pytest.raises((ValueError, TypeError), match=rf"{says} "):
        call()
