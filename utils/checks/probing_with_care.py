"""Checks of chapter 02. Their truths: closed forms, what was planted, scipy, runs of one text at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Tensor

from utils import session
from utils.checks.core import Attempt, exercise, hint, prediction, shipped_model, small_model
from utils.datasets import world

__all__ = ["hint", "prediction"]


# ------------------------------------------------------------------------------- 2.1 codelength


@dataclass
class _Given:
    """A probe whose log-probabilities (nats) are a function of the rows."""

    log_prob: Callable[[Tensor], Tensor]


def _counting(n_classes: int) -> Callable:
    """Laplace's rule of succession: class c has probability (count of c + 1) / (rows + classes), whatever x is."""

    def fit(x: Tensor, y: Tensor) -> _Given:
        log_p = torch.log((torch.bincount(y.long(), minlength=n_classes) + 1) / (len(y) + n_classes))
        return _Given(lambda rows: log_p.expand(len(rows), n_classes).clone())

    return fit


def _constant(probabilities: Tensor) -> Callable:
    return lambda x, y: _Given(lambda rows: probabilities.log().expand(len(rows), len(probabilities)).clone())


def _nearest_mean(n_classes: int) -> Callable:
    """Log-probabilities that fall with the squared distance to the means (shrunk to 0) of the classes seen."""

    def fit(x: Tensor, y: Tensor) -> _Given:
        is_class = torch.nn.functional.one_hot(y.long(), n_classes).to(x.dtype)
        means = is_class.T @ x / (1 + is_class.sum(0))[:, None]
        return _Given(lambda rows: (-torch.cdist(rows, means).pow(2)).log_softmax(-1))

    return fit


def _bits(
    x: Tensor, y: Tensor, fit: Callable, ends: list[int], n_classes: int, seen=lambda start, end: slice(0, start)
):
    """The definition, label by label in float64; ``seen(start, end)`` is what a block's probe is fitted on."""
    blocks = [ends[0] * math.log2(n_classes)]
    for start, end in pairwise(ends):
        probe, total = fit(x[seen(start, end)], y[seen(start, end)]), 0.0
        for row in range(start, end):
            total -= probe.log_prob(x[row : row + 1])[0, y[row]].item() / math.log(2)
        blocks.append(total)
    return torch.tensor(blocks, dtype=torch.float64)


def _codelength_slips(x: Tensor, y: Tensor, fit: Callable, ends: list[int], n_classes: int) -> list[tuple]:
    args = (x, y, fit, ends, n_classes)
    want = _bits(*args)
    sizes = torch.tensor([end - start for start, end in pairwise([0, *ends])], dtype=torch.float64)
    free, binary, nats = want.clone(), want.clone(), want.clone()
    free[0], binary[0], nats[0] = 0, ends[0], ends[0] * math.log(n_classes)
    mixed = torch.cat([want[:1], want[1:] * math.log(2)])
    probe_first = want.clone()
    first = fit(x[: ends[0]], y[: ends[0]]).log_prob(x[: ends[0]])
    probe_first[0] = -first[torch.arange(ends[0]), y[: ends[0]]].sum().item() / math.log(2)
    absent = want.clone()
    absent[0] = ends[0] * math.log2(len(y.unique()))
    missing = "the first block is missing: nobody has a probe yet, its labels cost log2(n_classes) bits each"
    leak = "the probe of a block has been fitted on that block's own labels, which Bob does not have yet"
    units = "log_prob is in nats: divide by log(2) to have bits"
    return [
        (want * math.log(2), units),
        (mixed, units),
        (nats, "the first block is in nats: log2(n_classes) bits for each label"),
        (absent, "a class need not occur among these labels: the number of classes is n_classes"),
        (free, missing),
        (want[1:], missing),
        (binary, "the first block costs log2(n_classes) bits for each label: one bit only where there are two classes"),
        (probe_first, leak),
        (_bits(*args, lambda start, end: slice(0, end)), leak),
        (
            _bits(*args, lambda start, end: slice(0, None)),
            "every probe was fitted on all rows: only those before count",
        ),
        (_bits(*args, lambda start, end: slice(0, ends[0])), "one probe for all blocks: fit a new one for each block"),
        (_previous_block(*args), "a probe is fitted on all rows sent so far, not on the last block alone"),
        (-want, "the sign: a code length is minus the log-probability"),
        (torch.cat([want[:1], -want[1:]]), "the sign: a code length is minus the log-probability"),
        (want / sizes, "these are bits per label: return the bits of the whole block (a sum)"),
        (torch.cat([want[:1], want[1:] / sizes[1:]]), "log-probabilities of a block are added up, not averaged"),
        (want.cumsum(0), "this is the running total: return what each block costs"),
        (want.sum(), "this is the whole code length: return one number for each block"),
    ]


def _previous_block(x: Tensor, y: Tensor, fit: Callable, ends: list[int], n_classes: int) -> Tensor:
    starts = dict(zip(ends, [0, *ends], strict=False))  # where the block that ends there begins
    return _bits(x, y, fit, ends, n_classes, lambda start, end: slice(starts[start], start))


@exercise(
    "2.1",
    hints=(
        "Two parts: ends[0] labels at log2(n_classes) bits each, then for every pair of neighbouring ends one block. "
        "itertools.pairwise(ends) gives the pairs.",
        "For the block from start to end: probe = fit(x[:start], y[:start]), then probe.log_prob(x[start:end]), of "
        "which you need the column of each row's own label.",
        "blocks = [torch.tensor(ends[0] * math.log2(n_classes))]; for start, end in pairwise(ends): log_prob = fit("
        "x[:start], y[:start]).log_prob(x[start:end]); own = log_prob[torch.arange(end - start), y[start:end]]; "
        "blocks.append(-own.sum().cpu() / math.log(2)). In the end return torch.stack(blocks).",
    ),
)
def online_codelength(attempt: Attempt) -> None:
    """Truth: the closed form for Laplace's rule of succession; the definition, label by label."""
    n_classes, n, first = 3, 24, 3
    x, y = attempt.randn(n, 4), attempt.randint(0, n_classes, n)
    y[1] = y[0]  # so that the first block does not hold every class
    fit, ends = _counting(n_classes), list(range(first, n + 1))
    with attempt.holds("a probe that only counts costs log2 of a multinomial coefficient"):
        got = attempt(x, y, fit, list(ends), n_classes)
        slips = _codelength_slips(x, y, fit, ends, n_classes)
        blocks = attempt.close(got, _bits(x, y, fit, ends, n_classes), what="the bits of the blocks", slips=slips)
        nats = _laplace_nats(y, n_classes) - _laplace_nats(y[:first], n_classes)
        whole = first * math.log2(n_classes) + nats / math.log(2)
        attempt.close(blocks.sum(), whole, what="the whole code length")
    with attempt.holds("a probe that never learns costs -log2 p for each label, also where a class does not occur"):
        probabilities = torch.tensor([0.5, 0.1, 0.2, 0.2], device=x.device)
        y = attempt.randint(0, 3, 30)
        y[:3] = torch.tensor([0, 1, 2], device=x.device)
        x = attempt.randn(30, 4)
        args = (x, y, _constant(probabilities), [3, 10, 16, 30], 4)
        each = -probabilities.log2()[y].double().cpu()
        truth = torch.stack([torch.tensor(6.0).double(), each[3:10].sum(), each[10:16].sum(), each[16:].sum()])
        got = attempt(x, y, _constant(probabilities), [3, 10, 16, 30], 4)
        attempt.close(got, truth, what="the bits of the blocks", slips=_codelength_slips(*args))
        single = attempt(x, y, _constant(probabilities), [30], 4)
        attempt.close(single, torch.tensor([60.0]), what="the bits of a single block of 30 labels, 4 classes")
    with attempt.holds("a probe that learns is fitted on what was sent before"):
        y = attempt.randint(0, 3, 40)
        x = 1.5 * torch.nn.functional.one_hot(y, 3) + attempt.randn(40, 3)
        args = (x, y, _nearest_mean(3), [4, 9, 20, 40], 3)
        slips = _codelength_slips(*args)
        got = attempt(x, y, _nearest_mean(3), [4, 9, 20, 40], 3)
        attempt.close(got, _bits(*args), atol=1e-3, what="the bits of the blocks", slips=slips)


def _laplace_nats(y: Tensor, n_classes: int) -> float:
    """-log of the probability that Laplace's rule of succession gives to a sequence of labels."""
    counts = torch.bincount(y, minlength=n_classes).double().cpu()
    return math.lgamma(len(y) + n_classes) - math.lgamma(n_classes) - (counts + 1).lgamma().sum().item()


# ------------------------------------------------------------------------------------ 2.2 LEACE


def _removed(x: Tensor, z: Tensor) -> Tensor:
    """What LEACE takes out, x -> M (x - mean): M written without a whitening, float64.

    W^+ A A^+ W with A = W S_xz is S_xz (S_xz' S_xx^+ S_xz)^+ S_xz' S_xx^+.
    """
    x, z = (t.double() - t.double().mean(0) for t in (x, z))
    s_xx, s_xz = x.T @ x / len(x), x.T @ z / len(x)
    inverse = torch.linalg.pinv(s_xx, hermitian=True, rtol=1e-9)
    return s_xz @ torch.linalg.pinv(s_xz.T @ inverse @ s_xz, hermitian=True, rtol=1e-9) @ s_xz.T @ inverse


def _leace_slips(x: Tensor, z: Tensor) -> list[tuple[Tensor, str]]:
    """Wrong values of P for one concept, with what led there."""
    right = _removed(x, z)
    centred, zc = (t.double() - t.double().mean(0) for t in (x, z))
    s_xx, s_xz = centred.T @ centred / len(x), centred.T @ zc / len(x)
    raw = x.double()
    value, vector = torch.linalg.eigh(s_xx)
    keep = value > 1e-9 * value.max()
    power = {p: (vector[:, keep] * value[keep] ** p) @ vector[:, keep].T for p in (-1.0, -0.5, 0.5)}

    def onto(a: Tensor) -> Tensor:
        return a @ torch.linalg.pinv(a, rtol=1e-9)

    def by(w: Tensor, back: Tensor, cross: Tensor = s_xz) -> Tensor:
        return back @ onto(w @ cross) @ w

    def about_zero() -> Tensor:
        value, vector = torch.linalg.eigh(raw.T @ raw / len(x))
        keep = value > 1e-9 * value.max()
        w, back = ((vector[:, keep] * value[keep] ** p) @ vector[:, keep].T for p in (-0.5, 0.5))
        return by(w, back)

    identity = torch.eye(len(right), dtype=right.dtype, device=right.device)
    plain = (
        "this takes the columns of Sigma_xz out at right angles: it erases, but moves x more than it must; whiten first"
    )
    return [
        (identity - right, "this is what is left: return what is taken out, W^+ P W (without `identity minus`)"),
        (right.T, "transposed: for rows x it is x - (x - mean) @ M.T, so M itself is W^+ P W"),
        (onto(s_xz), plain),
        (onto(power[-0.5] @ s_xz), "this is P alone: W^+ to its left and W to its right are missing"),
        (onto(power[-0.5] @ s_xz) @ power[-0.5], "W^+ is missing on the left: it undoes the whitening"),
        (
            by(power[-1.0], torch.linalg.pinv(power[-1.0], rtol=1e-9)),
            "W whitens: it is Sigma_xx to the power -1/2, not -1",
        ),
        (by(power[0.5], power[-0.5]), "W is the *inverse* square root of Sigma_xx"),
        (about_zero(), "Sigma_xx is the covariance: subtract the mean of x first"),
        (
            by(power[-0.5], power[0.5], raw.T @ z.double() / len(x)),
            "Sigma_xz is a covariance: subtract the means first",
        ),
    ]


@exercise(
    "2.2",
    hints=(
        "In this order: mean and centred x; the two covariances; W from torch.linalg.eigh of Sigma_xx; the orthogonal "
        "projection on the columns of W Sigma_xz; the product.",
        "value, vector = torch.linalg.eigh(sigma_xx); keep = value > 1e-6 * value.max(); value, vector = value[keep], "
        "vector[:, keep]; then W = vector * value**-0.5 @ vector.T and W^+ = vector * value**0.5 @ vector.T.",
        "mean = x.mean(0); centred = (x - mean).double(); sigma_xx = centred.T @ centred / len(x); sigma_xz = "
        "centred.T @ (z - z.mean(0)).double() / len(x). With W as in hint 2: a = W @ sigma_xz; M = W^+ @ a @ "
        "torch.linalg.pinv(a, rtol=1e-6) @ W (a.T @ a may have no inverse); return M.to(x.dtype), mean.",
    ),
)
def leace(attempt: Attempt) -> None:
    """Truth: the closed form without a whitening; zero covariance and least change as invariants."""
    singular = "some columns of x or z never vary: use pseudo-inverses"
    attempt.on_error |= {"singular": singular, "not invertible": singular, "positive-definite": singular}
    mix = _mixing(attempt, 6)
    y = attempt.randint(0, 2, 200)
    x = attempt.randn(200, 6) @ mix + y[:, None] * attempt.randn(6) + 3 * attempt.randn(6)
    z = y[:, None].float()
    with attempt.holds("two classes: nothing linear is left, and x moves as little as possible"):
        erased = _compare_leace(attempt, x, z)
        cross = (erased - erased.mean(0)).T @ (z.double().cpu() - z.double().cpu().mean(0)) / len(x)
        attempt.close(cross, torch.zeros(6, 1), atol=1e-3, what="the covariance of erased x and z")
    with attempt.holds("three classes in two columns of unequal size, and a column of z that never varies"):
        y = attempt.randint(0, 3, 240)
        z = torch.nn.functional.one_hot(y, 3).float()
        x = attempt.randn(240, 6) @ mix + z @ (2 * attempt.randn(3, 6)) + attempt.randn(6)
        z[:, 0] = 0  # exactly, where the third one-hot column would depend on the others to rounding only
        z[:, 2] *= 5e-3
        _compare_leace(attempt, x, z, singular)
    with attempt.holds("a number instead of classes; small x with a weak direction, a dead one and a constant column"):
        turned = torch.linalg.qr(attempt.randn(5, 5))[0]
        stretch = torch.tensor([1.0, 1.5, 2.0, 0.02, 0.0], device=turned.device)
        latent = attempt.randn(150, 5)
        z = latent[:, :1] - latent[:, 1:2] + 2 * latent[:, 3:4] + attempt.randn(150, 1)
        live = (latent * stretch) @ turned + 0.1
        x = 1e-3 * torch.cat([live[:, :2], torch.full_like(live[:, :1], 0.1), live[:, 2:]], 1)
        _compare_leace(attempt, x, 1e-7 * z, singular)


def _mixing(attempt: Attempt, d: int) -> Tensor:
    """A matrix [d d] that stretches by 1 to 3: rows of normal numbers times it have correlated coordinates."""
    before, after = (torch.linalg.qr(attempt.randn(d, d))[0] for _ in range(2))
    return before * torch.linspace(1, 3, d, device=before.device) @ after


def _compare_leace(attempt: Attempt, x: Tensor, z: Tensor, dependent: str = "") -> Tensor:
    """The erased rows [n d] of the learner's pair, after comparing it."""
    got = attempt(x, z)
    attempt.require(
        isinstance(got, tuple | list) and len(got) == 2,
        "a pair (M, mean)",
        f"a {type(got).__name__}" if not isinstance(got, tuple | list) else f"{len(got)} values",
    )
    d = x.shape[1]
    exchanged = [tuple(getattr(part, "shape", ())) for part in got] == [(d,), (d, d)]
    attempt.require(not exchanged, "a pair (M, mean)", "a vector, then a matrix", "the other way round: M comes first")
    if dependent and any(isinstance(part, Tensor) and not torch.isfinite(part).all() for part in got):
        attempt.fail("finite numbers", "NaN or infinity", dependent)
    attempt.close(
        got[1],
        x.mean(0),
        atol=1e-6,
        what="the mean of x",
        slips=[(torch.zeros(d), "the mean is zero: return that of x"), (x.mean(1), "a mean over the rows: dim=0")],
    )
    rows = x.double().cpu()
    truth = _removed(x, z).cpu()
    slips = _leace_slips(x.cpu(), z.cpu())
    removed = attempt.tensor(got[0], (d, d), "M [d_model d_model]")
    centred = rows - rows.mean(0)
    taken = centred @ removed.T
    rank, too_many = (
        int(torch.linalg.matrix_rank(rows_out, rtol=1e-3)) for rows_out in (centred @ truth.T, taken.nan_to_num())
    )
    attempt.require(
        not dependent or too_many <= rank,
        f"{rank} directions taken out of the rows",
        f"{too_many}",
        "a column that never varies takes nothing out: what is zero to rounding must count as zero",
    )
    size = max(1.0, truth.abs().max().item())
    value, vector = torch.linalg.eigh(centred.T @ centred / len(rows))
    dead = removed @ vector[:, value < 1e-6 * value.max()]
    attempt.require(
        bool((dead.abs() < 0.05 * size).all()),
        "M to take nothing out along directions in which x never varies",
        "something taken out there",
        "leave out every eigenvalue below 1e-6 of the largest: not clamped, not enlarged by a small number",
    )
    attempt.close(removed, truth, atol=5e-3 * size, rtol=5e-3, what="M", slips=slips)
    return rows - taken


# ------------------------------------------------------------------------------------- 2.3 INLP


@dataclass
class _Spy:
    """A fit that remembers what it was given."""

    direction: Callable[[Tensor, Tensor, int], Tensor]
    seen: list[tuple[Tensor, Tensor]]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        self.seen.append((x.detach().clone(), y.detach().clone() if isinstance(y, Tensor) else y))
        return self.direction(x, y, len(self.seen) - 1)


def _leading(x: Tensor, y: Tensor, number: int) -> Tensor:
    """The direction in which x is longest (times 5, so that its length is not 1)."""
    return 5 * torch.linalg.svd(x.double(), full_matrices=False)[2][0].to(x.dtype)


@exercise(
    "2.3",
    hints=(
        "Keep a list of the directions found so far, and a version of x that is free of all of them. Each round: fit "
        "on that version, make the direction perpendicular to the earlier ones, give it length 1, take it out.",
        "Without the part along a direction u of length 1: x - (x @ u)[:, None] * u for rows, w - (w @ u) * u for a "
        "single vector.",
        "basis, rest = [], x; for _ in range(n_directions): w = fit(rest, y); for u in basis: w = w - (w @ u) * u (an "
        "inner loop); w = w / w.norm(); basis.append(w); rest = rest - (rest @ w)[:, None] * w. In the end return "
        "torch.stack(basis).",
    ),
)
def inlp(attempt: Attempt) -> None:
    """Truth: with the longest direction as `fit` the result is the singular vectors; spans of given directions."""
    x = attempt.randn(60, 6) * torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5], device=attempt.randn(1).device)
    x = x @ torch.linalg.qr(attempt.randn(6, 6))[0]
    y = attempt.randint(0, 2, 60)
    with attempt.holds("rows that are perpendicular and of length 1"):
        directions = 3 * attempt.randn(3, 6) + 2
        lengths = torch.tensor([[2.0], [5.0], [3.0]], device=directions.device)
        directions = lengths * directions / directions.norm(dim=1, keepdim=True)
        spy = _Spy(lambda x, y, number: directions[min(number, 2)].clone(), [])
        basis = attempt.tensor(attempt(x, y, spy, 3), (3, 6), "the basis [direction d_model]")
        _require_rounds(attempt, spy, y, 3)
        _require_orthonormal(attempt, basis)
    with attempt.holds("each round is fitted on rows without all earlier directions"):
        _require_removed(attempt, spy, x, directions.double().cpu())
    with attempt.holds("they come from what `fit` returned, in that order"):
        _require_in_order(attempt, basis, torch.linalg.qr(directions.double().cpu().T)[0].T)
    with attempt.holds("with the longest direction as `fit`: the singular vectors of x"):
        spy = _Spy(_leading, [])
        basis = attempt.tensor(attempt(x, y, spy, 4), (4, 6), "the basis [direction d_model]")
        _require_in_order(attempt, basis, torch.linalg.svd(x.double().cpu())[2][:4])


def _require_rounds(attempt: Attempt, spy: _Spy, y: Tensor, n: int) -> None:
    attempt.require(len(spy.seen) == n, f"{n} calls of `fit`, one for each direction", f"{len(spy.seen)}")
    for rows, labels in spy.seen:
        attempt.require(
            rows.shape == (60, 6), "all rows and columns in every call of `fit`", f"shape {list(rows.shape)}"
        )
        attempt.require(
            isinstance(labels, Tensor) and labels.shape == y.shape and bool((labels == y).all()),
            "`fit` called as fit(rows, y), with the labels as they are",
            "other labels",
        )


def _require_in_order(attempt: Attempt, basis: Tensor, truth: Tensor) -> None:
    """The rows of the basis are those of the truth, up to their signs."""
    attempt.close(basis.T @ basis, truth.T @ truth, atol=1e-3, what="the projection on their span")
    sign = torch.where((basis * truth).sum(1, keepdim=True) < 0, -1.0, 1.0).double()
    told = "they span the right space, but row i must be the direction that round i has found"
    attempt.close(basis * sign, truth, atol=1e-3, what="the directions (up to sign)", slips=[(basis * sign, told)])


def _require_orthonormal(attempt: Attempt, basis: Tensor) -> None:
    gram = basis @ basis.T
    attempt.close(
        gram.diagonal().sqrt(),
        torch.ones(len(basis)),
        atol=1e-3,
        what="the lengths of the directions",
        slips=[(torch.zeros(len(basis)), "your basis is zero")],
    )
    worst = (gram - torch.diag(gram.diagonal())).abs().max().item()
    attempt.require(
        worst < 1e-3,
        "directions at right angles",
        f"two of them with a product of {worst:.3f}",
        "take the part along the earlier directions out of what `fit` returned, then divide by the length",
    )


def _require_removed(attempt: Attempt, spy: _Spy, x: Tensor, directions: Tensor) -> None:
    x = x.double().cpu()
    for number, (rows, _) in enumerate(spy.seen):
        rows = rows.double().cpu()
        earlier = torch.linalg.qr(directions[:number].T)[0]
        truth = x - x @ earlier @ earlier.T
        raw = directions[:number] / directions[:number].norm(dim=1, keepdim=True)
        not_yet = "`fit` still gets the original x in this round: take out what the rounds before it have found"
        latest = "only the latest direction is taken out: go on from what was left before"
        one_late = "the rows lag behind: the direction of the round before has not been taken out yet"
        slanting = "take out what you put into the basis: the perpendicular direction, not the one that `fit` returned"
        centred = "the rows are centred: take the components out of the rows as they are"
        one_by_one = x
        for unit in raw:
            one_by_one = one_by_one - (one_by_one @ unit)[:, None] * unit
        slips = [(x, not_yet)] if number else []
        slips += [(x - x @ earlier[:, :-1] @ earlier[:, :-1].T, one_late)] if number > 1 else []
        slips += [(x - x @ last @ last.T, latest) for last in (earlier[:, -1:], raw[-1:].T)] if number > 1 else []
        slips += [(x - x @ raw.T @ raw, slanting), (one_by_one, slanting)]
        slips += [(truth - truth.mean(0), centred), (truth + (x - truth).mean(0), "no mean is to be added back")]
        slips += [(x @ earlier @ earlier.T, "this is the part along the directions: subtract it")]
        attempt.close(rows, truth, atol=1e-3, what=f"the rows that `fit` gets in round {number + 1}", slips=slips)


# ------------------------------------------------------------------------------ 2.4 steering_effect


@exercise(
    "2.4",
    hints=(
        "Run the model twice, once plain and once with a hook on blocks.{layer}.hook_resid_post that adds the vector. "
        "From each run take the logits of every row at its own position.",
        "rows = torch.arange(len(tokens)); value[rows, where] is one vector per row, and so is logits[rows, read].",
        "def push(value, hook): value = value.clone(); value[rows, where] += vector; return value. steered = "
        'model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", push)]); change = (steered - '
        "model(tokens))[rows, read]; return change[:, right] - change[:, wrong].",
    ),
)
def steering_effect(attempt: Attempt) -> None:
    """Truth: one text at a time, without padding; causality."""
    for name, model, layer, texts in [
        ("on reviews of unequal length", shipped_model(), 2, _reviews),
        ("on a model with 3 layers", small_model(), int(attempt.randint(0, 2, 1)), _padded_tokens),
    ]:
        tokens, where, read = texts(model, attempt)
        right, wrong = attempt.randint(4, model.cfg.d_vocab, 2).tolist()
        wrong = wrong if wrong != right else 4 + (right == 4)
        vector = 0.3 * model.cfg.d_model**0.5 * attempt.randn(model.cfg.d_model)
        args = (model, tokens, where, read, layer, vector, right, wrong)
        with attempt.holds(f"equals runs of one text at a time, {name}"):
            got = attempt(*args)
            attempt.require(
                not isinstance(got, Tensor) or got.is_floating_point(),
                "the changes of a difference of logits",
                f"values of {getattr(got, 'dtype', '')}",
                "not whether the verdict flips: by how much the difference changes",
            )
            attempt.require(
                not isinstance(got, Tensor) or bool((got != 0).any()),
                "an effect of the push",
                "exactly 0 for every text",
                "nothing has changed: does your hook return the new value, and do you read at `read`?",
            )
            slips = _steering_slips(*args)
            attempt.close(got, _one_by_one(*args), atol=2e-3, rtol=2e-3, what="the effects", slips=slips)
        with attempt.holds(f"a push behind the position that is read has no effect, {name}"):
            late = (model, tokens, read + 1, read, layer, vector, right, wrong)
            attempt.close(attempt(*late), torch.zeros(len(tokens)), atol=1e-3, what="the effects")


def _reviews(model, attempt: Attempt) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [n, pos] (padded behind), where to push [n], where to read [n]."""
    seed = int(attempt.randint(0, 10_000, 1))
    batch = [s for form in ("plain", "verb", "contrast") for s in world.sentences("review", 2, seed, form=form)]
    tokens = model.to_tokens([s.text for s in batch])
    read = torch.tensor([s.answer_position - 1 for s in batch], device=tokens.device)
    return tokens, read - attempt.randint(0, 3, len(batch)), read


def _padded_tokens(model, attempt: Attempt) -> tuple[Tensor, Tensor, Tensor]:
    tokens = attempt.randint(4, model.cfg.d_vocab, 4, 10)
    tokens[:, 0] = 1
    read = torch.tensor([5, 8, 6, 7], device=tokens.device)
    for row, end in enumerate(read.tolist()):
        tokens[row, end + 2 :] = 0
    return tokens, torch.tensor([2, 8, 4, 3], device=tokens.device), read


def _pushed(
    model, tokens: Tensor, positions: Tensor | None, layer: int, vector: Tensor, place: str, put: bool = False
) -> Tensor:
    """Logits with the vector added (or put) at each row's position; [1, n]: at all of these; None: everywhere."""
    rows = torch.arange(len(tokens), device=tokens.device)

    def push(value, hook):
        value = value.clone()
        if positions is None:
            return value + vector
        if positions.dim() == 2:  # [1, n]: all rows at all of these positions
            value[:, positions[0].unique()] += vector
            return value
        value[rows, positions] = (0 if put else value[rows, positions]) + vector
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.{place}", push)])


def _one_by_one(model, tokens, where, read, layer, vector, right, wrong) -> Tensor:
    effects = []
    for row, (push_at, read_at) in enumerate(zip(where.tolist(), read.tolist(), strict=True)):
        text = tokens[row : row + 1, : read_at + 1]
        steered = _pushed(model, text, torch.tensor([push_at]), layer, vector, "hook_resid_post")
        plain = model(text)
        effects.append([(run[0, -1, right] - run[0, -1, wrong]).item() for run in (steered, plain)])
    return torch.tensor([steered - plain for steered, plain in effects])


def _steering_slips(model, tokens, where, read, layer, vector, right, wrong) -> list[tuple[Tensor, str]]:
    rows = torch.arange(len(tokens), device=tokens.device)

    def difference(logits: Tensor, at: Tensor | None = None) -> Tensor:
        at = read if at is None else at
        return logits[rows, at, right] - logits[rows, at, wrong]

    def run(positions=where, layer=layer, vector=vector, place="hook_resid_post", put=False) -> Tensor:
        return _pushed(model, tokens, positions, layer, vector, place, put)

    plain, steered = model(tokens), run()
    last = torch.full_like(read, tokens.shape[1] - 1)
    effect = difference(steered) - difference(plain)
    probabilities = difference(steered.softmax(-1)) - difference(plain.softmax(-1))
    one_logit = (steered - plain)[rows, read, right]
    every = difference(run(None)) - difference(plain)
    first_row = difference(run(where[:1].expand_as(where))) - difference(plain)
    before = difference(run(place="hook_resid_pre")) - difference(plain)
    after = difference(run(layer=layer + 1)) - difference(plain)
    at_read = difference(run(read)) - difference(plain)
    all_rows = difference(run(where[None])) - difference(plain)
    put = difference(run(put=True)) - difference(plain)
    middle = difference(run(place="hook_resid_mid")) - difference(plain)
    return [
        (-effect, "the sign: with the push minus without it, right minus wrong"),
        (difference(steered), "this is the difference with the push: subtract the one without it"),
        (
            difference(steered, last) - difference(plain, last),
            "rows end at different places: read each at its own `read`",
        ),
        (difference(steered, where) - difference(plain, where), "the logits are read where the push is: use `read`"),
        (all_rows, "every row was pushed at the positions of all rows: index [rows, where], not [:, where]"),
        (put, "the stream was replaced by the vector: add it"),
        (every, "the vector was added at every position: only at each row's own `where`"),
        (first_row, "all rows were pushed at the first row's position: index with [rows, where]"),
        (at_read, "the vector was added where the answer is read: add it at `where`"),
        (before, "that is one block early: use blocks.{layer}.hook_resid_post, with the `layer` that is given"),
        (middle, "that is between attention and MLP: use blocks.{layer}.hook_resid_post"),
        (after, "that is one block late: use blocks.{layer}.hook_resid_post"),
        (probabilities, "these are probabilities: take the difference of logits"),
        (one_logit, "only one logit: subtract that of `wrong`"),
        (effect.mean(), "this is the mean over the rows: return one effect for each"),
    ]


# ------------------------------------------------------------------------------ 2.5 transfer_matrix


@dataclass
class _ByMemory:
    """Predicts by the class means of its rows, except for rows it has seen: these it knows by heart."""

    x: Tensor
    y: Tensor

    def predict(self, rows: Tensor) -> Tensor:
        direction = self.x[self.y].mean(0) - self.x[~self.y].mean(0)
        middle = (self.x[self.y].mean(0) + self.x[~self.y].mean(0)) / 2
        distance = torch.cdist(rows, self.x)
        return torch.where(distance.amin(1) < 1e-2, self.y[distance.argmin(1)], (rows - middle) @ direction > 0)

    def accuracy(self, rows: Tensor, y: Tensor) -> Tensor:
        return (self.predict(rows) == y).float().mean()


@exercise(
    "2.5",
    hints=(
        "Two loops over the relations: fit once for each (outer), test on each (inner). train[name] says which rows of "
        "x[name] may be fitted on; ~train[name] are the others.",
        "probe = fit(x[a][train[a]], y[a][train[a]]); hits on b: probe.predict(x[b][~train[b]]) == y[b][~train[b]].",
        "fitted = [fit(x[a][train[a]], y[a][train[a]]) for a in x]; return torch.stack([torch.stack([(probe.predict("
        "x[b][~train[b]]) == y[b][~train[b]]).float().mean() for b in x]) for probe in fitted]).",
    ),
)
def transfer_matrix(attempt: Attempt) -> None:
    """Truth: accuracies counted row by row, for a probe that knows its fitting rows by heart."""
    for name, names in (("three relations", ("c", "a", "b")), ("four relations, dictionaries in other orders", "qspr")):
        x, y, train = _relations(attempt, names)
        if names == "qspr":
            y, train = ({key: part[key] for key in order} for part, order in ((y, "rqps"), (train, "sprq")))
        with attempt.holds(f"accuracy on rows that no probe was fitted on, {name}"):
            got = attempt(x, y, train, _ByMemory)
            slips = _transfer_slips(x, y, train)
            truth = _transfer(x, y, train)
            attempt.close(got, truth, what="the matrix [fitted on, tested on]", slips=slips)


def _relations(attempt: Attempt, names: Sequence[str]) -> tuple[dict, dict, dict]:
    """Relations, some of one size, whose directions overlap (the third the other way): every matrix is lopsided."""
    x, y, train = {}, {}, {}
    shared = attempt.randn(6)
    for number, (name, n) in enumerate(zip(names, (46, 46, 57, 57), strict=False)):
        y[name] = torch.rand(n, generator=attempt.generator).to(shared.device) < 0.5
        y[name][:4] = torch.tensor([True, False, True, False], device=shared.device)
        sign = 2.0 * y[name].float() - 1
        overlap = (0.3, 0.8, -0.6, 0.5)[number]
        noise = (1.0, 0.6, 1.5, 0.9)[number] * attempt.randn(n, 6)
        x[name] = sign[:, None] * (overlap * shared + 0.4 * attempt.randn(6)) + noise
        train[name] = torch.arange(n, device=shared.device) % (2 + number) != 1
    return x, y, train


def _transfer(x: dict, y: dict, train: dict, fit_rows=lambda t: t, test_rows=lambda t: ~t, diagonal=None) -> Tensor:
    rows = []
    for a in x:
        probe, row = _ByMemory(x[a][fit_rows(train[a])], y[a][fit_rows(train[a])]), []
        for b in x:
            tested = (diagonal or test_rows)(train[b]) if a == b else test_rows(train[b])
            hits = [bool(probe.predict(x[b][i : i + 1])[0] == y[b][i]) for i in tested.nonzero()[:, 0].tolist()]
            row.append(sum(hits) / len(hits))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def _transfer_slips(x: dict, y: dict, train: dict) -> list[tuple[Tensor, str]]:
    args, truth = (x, y, train), _transfer(x, y, train)
    order = sorted(range(len(x)), key=list(x).__getitem__)
    foreign = truth.clone()  # the fitted relation's mask where it has the length of the tested one's
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            if len(train[a]) == len(train[b]):
                hits = _ByMemory(x[a][train[a]], y[a][train[a]]).predict(x[b][~train[a]]) == y[b][~train[a]]
                foreign[i, j] = hits.float().mean().item()
    seen = "tested on rows it was fitted on, which this probe knows by heart: test on ~train"
    return [
        (truth[order][:, order], "rows and columns stand in the order of `x`, not sorted"),
        (truth.T, "transposed: row = fitted on, column = tested on"),
        (100 * truth, "these are percent: return shares"),
        (torch.maximum(truth, 1 - truth), "an accuracy below 1/2 stays as it is: no probe is turned round"),
        (foreign, "the rows for testing are those of the tested relation: ~train of that one"),
        (_transfer(*args, fit_rows=lambda t: ~t), "the probes are fitted on ~train: fit on train, test on ~train"),
        (1 - truth, "these are errors: return accuracies"),
        (_transfer(*args, test_rows=lambda t: t), seen),
        (_transfer(*args, test_rows=torch.ones_like), f"all rows are tested on: {seen}"),
        (_transfer(*args, diagonal=lambda t: t), f"the diagonal is {seen}"),
        (_transfer(*args, diagonal=torch.ones_like), f"the diagonal is {seen}"),
        (
            _transfer(*args, test_rows=torch.ones_like, diagonal=lambda t: ~t),
            "off the diagonal too, test on ~train only",
        ),
        (_transfer(*args, fit_rows=torch.ones_like), "the probe is fitted on all rows: only on those in train"),
        (_transfer(*args, fit_rows=lambda t: ~t, test_rows=lambda t: t), "train and test rows are swapped"),
        (truth.diagonal(), "this is the diagonal alone: test each probe on every relation"),
        (truth.mean(1), "this is the mean of each row: return the whole matrix"),
    ]


# ------------------------------------------------------------------------------------ 2.6 ccs_loss


@exercise(
    "2.6",
    hints=(
        "Three steps: subtract from x_pos its own mean over the pairs and from x_neg its own; two vectors of "
        "probabilities by sigmoid; two terms, averaged over the pairs.",
        "Consistency compares p_pos with 1 - p_neg. Confidence is the smaller of p_pos and p_neg (torch.minimum). Both "
        "are squared.",
        "p_pos = torch.sigmoid((x_pos - x_pos.mean(0)) @ weight + bias), p_neg likewise; "
        "return ((p_pos - (1 - p_neg))**2 + torch.minimum(p_pos, p_neg)**2).mean()",
    ),
)
def ccs_loss(attempt: Attempt) -> None:
    """Truth: values known by hand, and the formula pair by pair in float64."""
    with attempt.holds("equals the formula, pair by pair"):
        for n, shift in ((12, 0.8), (23, -0.6)):
            bias = torch.tensor(shift, device=attempt.randn(1).device)
            args = (0.6 * attempt.randn(n, 5) + 1, 0.4 * attempt.randn(n, 5) - 2, attempt.randn(5), bias)
            attempt.close(attempt(*args), _ccs(*args), what="the loss", slips=_ccs_slips(*args))
    with attempt.holds("a probe that answers 1/2 to everything loses 1/4"):
        zero = torch.zeros(4, device=attempt.randn(1).device)
        args = (attempt.randn(7, 4) + 2, attempt.randn(7, 4) - 1, zero, torch.zeros((), device=zero.device))
        attempt.close(attempt(*args), 0.25, what="the loss", slips=_ccs_slips(*args))
    with attempt.holds("a sure and consistent probe loses nothing, whatever it has found"):
        side = torch.ones(10, device=zero.device)
        side[:5] = -1
        weight = torch.zeros(4, device=zero.device)
        weight[1] = 40.0
        x_pos, x_neg = attempt.randn(10, 4), attempt.randn(10, 4)
        x_pos[:, 1], x_neg[:, 1] = side + 7, -side + 3  # the two means tell the halves apart, nothing else
        args = (x_pos, x_neg, weight, torch.zeros((), device=zero.device))
        attempt.close(attempt(*args), 0.0, what="the loss", slips=_ccs_slips(*args))
    with attempt.holds("a probe that says yes to everything loses 2"):
        args = (attempt.randn(9, 4), attempt.randn(9, 4), zero, torch.tensor(50.0, device=zero.device))
        attempt.close(attempt(*args), 2.0, what="the loss", slips=_ccs_slips(*args))


def _ccs(x_pos, x_neg, weight, bias, centre=lambda x, other: x - x.mean(0), smaller=min, terms=(1.0, 1.0)) -> float:
    x_pos, x_neg, weight, bias = (t.double().cpu() for t in (x_pos, x_neg, weight, bias))
    pos, neg = centre(x_pos, x_neg) @ weight + bias, centre(x_neg, x_pos) @ weight + bias
    total = 0.0
    for a, b in zip(torch.sigmoid(pos).tolist(), torch.sigmoid(neg).tolist(), strict=True):
        total += terms[0] * (a - (1 - b)) ** 2 + terms[1] * smaller(a, b) ** 2
    return total / len(x_pos)


def _ccs_slips(x_pos: Tensor, x_neg: Tensor, weight: Tensor, bias: Tensor) -> list[tuple]:
    args = (x_pos, x_neg, weight, bias)
    p_pos, p_neg = (torch.sigmoid((x - x.mean(0)) @ weight + bias).double().cpu() for x in (x_pos, x_neg))
    loss = _ccs(*args)
    consistency, smaller = (p_pos - (1 - p_neg)) ** 2, torch.minimum(p_pos, p_neg)
    scaled = [
        _ccs(*args, centre=lambda x, _, k=k: (x - x.mean(0)) / x.std(0, correction=k).clamp(1e-9)) for k in (0, 1)
    ]
    return [
        (consistency.mean(), "the confidence term is missing: 1/2 for everything would be perfect"),
        (_ccs(x_pos, x_neg, weight, -bias), "the bias is added, not subtracted"),
        (_ccs(x_pos, x_neg, weight, 0 * bias), "the bias is missing"),
        *((value, "only the mean is subtracted here: do not divide by the standard deviation") for value in scaled),
        (
            consistency.mean() + torch.minimum(p_pos.min(), p_neg.min()) ** 2,
            "the smaller of the two probabilities *of each pair*: torch.minimum, not one minimum for all",
        ),
        (consistency.mean() + smaller.mean() ** 2, "square the smaller probability of each pair, then average"),
        (_ccs(*args, centre=lambda x, other: x), "each half is centred first: subtract its mean over the pairs"),
        (
            _ccs(*args, centre=lambda x, other: x - torch.cat([x, other]).mean(0)),
            "each half has a mean of its own: one mean for both leaves the phrase itself readable",
        ),
        (_ccs(*args, centre=lambda x, other: x - x.mean(1, keepdim=True)), "the mean runs over the pairs: dim=0"),
        (_ccs(*args, smaller=max), "confidence is the smaller of the two probabilities, not the larger"),
        (_ccs(*args, terms=(0.0, 1.0)), "the consistency term is missing"),
        ((consistency + smaller).mean(), "confidence is squared too"),
        (((p_pos - p_neg) ** 2 + smaller**2).mean(), "consistency compares p_pos with 1 - p_neg"),
        ((consistency.sqrt() + smaller**2).mean(), "consistency is squared too"),
        (consistency.mean() * len(x_pos) + (smaller**2).mean() * len(x_pos), "average over the pairs, not a sum"),
        (consistency + smaller**2, "this is the loss of each pair: return the mean"),
        (-loss, "the sign: a loss is to become small"),
    ]


# ---------------------------------------------------------------------------------------- 2.7 uuas


@exercise(
    "2.7",
    hints=(
        "First who takes part: all positions but 0 (<bos>) and those in `skip`. Then the tree over them, then how many "
        "of the true pairs (word, head) are among its edges, in either direction.",
        "scipy.sparse.csgraph.minimum_spanning_tree reads a distance of 0 (and below 1e-8) as `no edge`: adding 1 to "
        "all distances changes no tree. Or grow the tree yourself: start with one word, add the nearest one outside, "
        "repeat.",
        "words = [i for i in range(1, len(heads)) if i not in skip]; gold = {frozenset((i, heads[i])) for i in words "
        "if heads[i]}; tree = minimum_spanning_tree(distance[words][:, words].double().numpy() + 1).tocoo(); edges = "
        "{frozenset((words[i], words[j])) for i, j in zip(tree.row, tree.col)}; return len(edges & gold) / len(gold).",
    ),
)
def uuas(attempt: Attempt) -> None:
    """Truth: embeddings in which every edge has a direction of its own; shares counted by hand; scipy."""
    with attempt.holds("equals scipy's spanning tree on six sentences of noisy distances"):
        sentences = [_noisy_sentence(attempt) for _ in range(6)]
        _compare_shares(attempt, sentences)
    heads, skip = (0, 2, 4, 0, 0, 6, 4, 4), {3}  # a star with a chain; position 3 is a comma
    with attempt.holds("planted: each edge is a direction of its own, so that the squared distance is the tree's"):
        h = _planted(attempt, heads)
        # <bos> and the comma sit in the middle of things: whoever lets them in finds another tree
        h[0] = h[3] = h[[1, 2, 4, 5, 6, 7]].mean(0)
        d = (h[:, None] - h[None]).pow(2).sum(-1)
        attempt.close(attempt(d, heads, set(skip)), 1.0, what="the score", slips=_uuas_slips(d, heads, skip))
    with attempt.holds("counted by hand: a chain of words against a star"):
        heads = (0, 3, 3, 0, 3, 3)  # all hang on position 3; neighbours are 1-2, 2-3, 3-4, 4-5
        place = torch.arange(6, device=d.device) + 0.1 * torch.rand(6, generator=attempt.generator).to(d.device)
        chain = (place[:, None] - place[None]) ** 2
        attempt.close(attempt(chain, heads, set()), 0.5, what="the score", slips=_uuas_slips(chain, heads, set()))
    with attempt.holds("two words at distance 0 are the nearest of all"):
        _compare_shares(attempt, [_close_words(attempt) for _ in range(4)])


def _compare_shares(attempt: Attempt, sentences: list[tuple[Tensor, tuple[int, ...], set[int]]]) -> None:
    """The scores of several sentences, and the slips that explain all of them at once."""
    shares, truths, slips = [], [], []
    for d, heads, skip in sentences:
        got = attempt(d, heads, set(skip))
        shares.append(torch.tensor(attempt.number(got, what="the score"), dtype=torch.float64))
        truths.append(_share(d, heads, skip))
        slips.append(_uuas_slips(d, heads, skip))
    told = [(torch.tensor([value for value, _ in each]), each[0][1]) for each in zip(*slips, strict=True)]
    attempt.close(torch.stack(shares), torch.tensor(truths), what=f"the score (of {len(shares)} sentences)", slips=told)


def _noisy_sentence(attempt: Attempt) -> tuple[Tensor, tuple[int, ...], set[int]]:
    """Distances [13 13], heads and punctuation of a random tree over ten words; what takes no part is in the way."""
    stops = [2 + int(attempt.randint(0, 4, 1)), 7 + int(attempt.randint(0, 4, 1))]  # in mid-sentence
    words = [i for i in range(1, 13) if i not in stops]
    order = [words[i] for i in torch.randperm(10, generator=attempt.generator).tolist()]
    heads = [0] * 13
    for number, word in enumerate(order[1:], start=1):
        heads[word] = order[int(attempt.randint(0, number, 1))]
    for stop in stops:
        heads[stop] = order[0]
    h = _planted(attempt, tuple(heads)) + 0.35 * attempt.randn(13, 15)
    h[0], h[stops[0]], h[stops[1]] = (0.5 * (h[order[a]] + h[order[a + 1]]) for a in (0, 3, 6))
    return (h[:, None] - h[None]).pow(2).sum(-1), tuple(heads), set(stops)


def _close_words(attempt: Attempt) -> tuple[Tensor, tuple[int, ...], set[int]]:
    """Distances [13 13] and heads of a tree over twelve words, four threes with short distances in random places.

    In each three the two shorter sides are edges, which only distances as exact as they are given show.
    """
    order = (1 + torch.randperm(12, generator=attempt.generator)).tolist()
    d = 5 + torch.rand(13, 13, generator=attempt.generator)
    heads = [0] * 13
    for number, sides in enumerate([(0.0, 0.05, 0.06), (0.0, 0.3, 0.6), (0.02, 0.05, 0.08), (0.0, 0.04, 0.07)]):
        a, b, c = order[3 * number : 3 * number + 3]
        d[a, b], d[b, c], d[a, c] = sides
        d[b, a], d[c, b], d[c, a] = sides
        heads[a], heads[c] = b, b
        if number:
            before = order[3 * number - 2]
            heads[b] = before
            d[b, before] = d[before, b] = 2.0
    d = torch.minimum(d, d.T).fill_diagonal_(0)
    return d.to(session.device()), tuple(heads), set()


def _planted(attempt: Attempt, heads: tuple[int, ...]) -> Tensor:
    """Positions [n d]: each word is its head plus a direction of its own, all perpendicular and of length 1."""
    own = torch.linalg.qr(attempt.randn(len(heads) + 2, len(heads) + 2))[0]
    h = torch.zeros(len(heads), len(own), device=own.device)
    for word in range(1, len(heads)):
        step = word
        while step:
            h[word] += own[step]
            step = heads[step]
    return h


def _tree(d: Tensor, words: list[int]) -> set[frozenset[int]]:
    among = d.double().cpu()[words][:, words].numpy()
    tree = minimum_spanning_tree(among - among.min() + 1).tocoo()
    return {frozenset((words[i], words[j])) for i, j in zip(tree.row, tree.col, strict=True)}


def _without_zeros(d: Tensor, words: list[int]) -> set[frozenset[int]]:
    """The tree that scipy finds when a distance of 0 is given to it as it is."""
    tree = minimum_spanning_tree(d.double().cpu()[words][:, words].numpy()).tocoo()
    return {frozenset((words[i], words[j])) for i, j in zip(tree.row, tree.col, strict=True)}


def _share(d: Tensor, heads: tuple[int, ...], skip: set[int], sign: float = 1.0, kept=None, edges=None) -> float:
    words = kept if kept is not None else [i for i in range(1, len(heads)) if i not in skip]
    gold = {frozenset((i, heads[i])) for i in range(1, len(heads)) if heads[i] and i not in skip}
    found = edges(d, words) if edges else _tree(sign * d, words)
    return len(found & gold) / len(gold)


def _nearest(d: Tensor, words: list[int]) -> set[frozenset[int]]:
    among = d.double().cpu()[words][:, words].clone().fill_diagonal_(np.inf)
    return {frozenset((words[i], words[j])) for i, j in enumerate(among.argmin(1).tolist())}


def _uuas_slips(d: Tensor, heads: tuple[int, ...], skip: set[int]) -> list[tuple[float, str]]:
    words = [i for i in range(1, len(heads)) if i not in skip]
    gold = [i for i in words if heads[i]]
    right = _share(d, heads, skip)
    tree = _tree(d, words)
    directed = sum(
        (min(i, heads[i]), max(i, heads[i])) == (heads[i], i) and frozenset((i, heads[i])) in tree for i in gold
    )
    everyone = [i for i in range(len(heads)) if i not in skip]
    with_stops = [i for i in range(1, len(heads)) if heads[i]]
    stop_tree = _tree(d, list(range(1, len(heads))))
    found_with_stops = sum(frozenset((i, heads[i])) in stop_tree for i in with_stops) / len(with_stops)
    own = {frozenset((i, heads[i])) for i in gold}
    shifted = {frozenset(words.index(i) + 1 for i in edge) for edge in tree}
    backwards = sum(
        (min(i, heads[i]), max(i, heads[i])) == (i, heads[i]) and frozenset((i, heads[i])) in tree for i in gold
    )
    chain = {frozenset(pair) for pair in pairwise(words)}
    zero_is_no_edge = "0 is a distance too, the shortest: scipy takes it for a missing edge (add 1 to all)"
    bos = "<bos> (position 0) is no word: leave it out of the tree, and the root has no edge"
    return [
        (_share(d, heads, skip, edges=_without_zeros), zero_is_no_edge),
        (_share(d, heads, skip, kept=everyone), bos),
        (found_with_stops, "positions in `skip` take no part, neither in the tree nor among the true edges"),
        (_share(d, heads, skip, kept=list(range(1, len(heads)))), "positions in `skip` must stay out of the tree"),
        (right * len(gold) / len(words), "divide by the number of true edges: the root has none"),
        (_share(d, heads, skip, kept=list(range(len(heads)))), "only words take part: neither <bos> nor `skip`"),
        (right * len(gold) / len(heads), "divide by the number of true edges"),
        (_share(d, heads, skip, sign=-1.0), "this is the longest spanning tree: near words belong together"),
        (directed / len(gold), "edges have no direction here: {word, head} counts whichever comes first"),
        (
            _share(d, heads, skip, edges=_nearest),
            "each word's nearest neighbour is no tree: use a minimum spanning tree",
        ),
        (right * len(gold), "this is a count: return the share of the true edges"),
        (100 * right, "this is percent: return a share"),
        (backwards / len(gold), "edges have no direction here: {word, head} counts whichever comes first"),
        (
            len(shifted & own) / len(own),
            "row i of the smaller matrix is position words[i], not i + 1 (punctuation may stand anywhere)",
        ),
        (
            _share(d, heads, skip, kept=list(range(1, len(heads) - len(skip)))),
            "`skip` holds positions, which need not be the last ones",
        ),
        (len(chain & own) / len(own), "this is the score of the chain of neighbours: use the distances"),
    ]
