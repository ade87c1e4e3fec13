"""Checks of chapter 04. Their truths: closed forms, integrals done numerically, scikit-learn, planted data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

from utils import session
from utils.checks.core import Attempt, exercise, hint, prediction

__all__ = ["hint", "prediction"]


def _weights(attempt: Attempt, value, shape: tuple[int, ...], names: str) -> tuple[Tensor, Tensor]:
    """W of this shape and b (without the hidden axis) from a result; an exchanged order is told."""
    W, b = attempt.pair(value, "W", "b")
    W, b = attempt.tensor(W, what="W"), attempt.tensor(b, what="b")
    turned = (*shape[:-2], shape[-1], shape[-2])
    bias = (*shape[:-2], shape[-1])
    slip = ""
    if tuple(W.shape) == bias and tuple(b.shape) == shape:
        slip = "W comes first, then b"
    elif tuple(W.shape) == turned:
        slip = f"transposed: W is {names}, column i is the direction of feature i"
    elif len(shape) == 3 and tuple(W.shape) == shape[1:]:
        slip = "one model for each sparsity: W has an axis of instances in front"
    attempt.require(tuple(W.shape) == shape, f"W of shape {list(shape)}, {names}", f"shape {list(W.shape)}", slip)
    return W, attempt.tensor(b, bias, "b")


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _uniform(attempt: Attempt, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=attempt.generator).to(session.device())


def _features(attempt: Attempt, batch: int, n_features: int, sparsity: float) -> Tensor:
    """Sparse features [batch feature], each zero with probability `sparsity`, else uniform on [0, 1]."""
    return _uniform(attempt, batch, n_features) * (_uniform(attempt, batch, n_features) >= sparsity)


# ------------------------------------------------------------------------------------ 4.1 toy_loss


@exercise(
    "4.1",
    hints=(
        "Rows are samples. For one sample h = W x; for all of them at once x @ W.T is [batch hidden], and a second "
        "product brings you back to [batch feature].",
        "Three steps: the output (product, bias, ReLU); the squared error, weighted by importance along the last axis; "
        "the sum over features, then the mean over the batch.",
        "out = torch.relu(x @ W.T @ W + b); return (importance * (x - out) ** 2).sum(-1).mean()",
    ),
)
def toy_loss(attempt: Attempt) -> None:
    """Truth: the formula written out number by number in float64; values known without any training."""
    attempt.on_error["cannot be multiplied"] = (
        "rows are samples: the hidden values are x @ W.T, and the way back is @ W (together x @ W.T @ W)"
    )
    with attempt.holds("equals the formula, sample by sample"):
        # as many samples as features, so that an importance along the wrong axis fits as well; then unequal numbers
        for batch, n, m in ((6, 6, 2), (11, 5, 3), (4, 7, 2)):
            args = (0.8 * attempt.randn(m, n), 0.4 * attempt.randn(n), *_samples(attempt, batch, n))
            attempt.close(attempt(*args), _toy(*args), what="the loss", slips=_toy_slips(*args))
    device = attempt.randn(1).device
    with attempt.holds("a dimension for each feature and no bias: nothing is lost"):
        W = torch.linalg.qr(attempt.randn(5, 5))[0]
        args = (W, torch.zeros(5, device=device), *_samples(attempt, 9, 5))
        attempt.close(attempt(*args), 0.0, what="the loss", slips=_toy_slips(*args))
    with attempt.holds("no weights: a bias below 0 answers 0, so that the loss is the weighted mean of x squared"):
        x, importance = _samples(attempt, 10, 4)
        args = (torch.zeros(2, 4, device=device), -_uniform(attempt, 4) - 0.2, x, importance)
        truth = float((x.double() ** 2).mean(0) @ importance.double())
        attempt.close(attempt(*args), truth, what="the loss", slips=_toy_slips(*args))
    with attempt.holds("no weights: a bias of the mean leaves the variances, weighted"):
        args = (torch.zeros(2, 4, device=device), x.mean(0), x, importance)
        truth = float(x.double().var(0, correction=0) @ importance.double())
        attempt.close(attempt(*args), truth, what="the loss", slips=_toy_slips(*args))


def _samples(attempt: Attempt, batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Features that are on half of the time, and importances from 0.2 to 2."""
    return _features(attempt, batch, n, 0.5), 0.2 + 1.8 * _uniform(attempt, n)


def _toy(W: Tensor, b: Tensor, x: Tensor, importance: Tensor) -> float:
    W, b, x, importance = map(_array, (W, b, x, importance))
    total = 0.0
    for sample in x:
        hidden = [sum(W[k, i] * sample[i] for i in range(len(sample))) for k in range(len(W))]
        for i, value in enumerate(sample):
            out = max(0.0, sum(W[k, i] * hidden[k] for k in range(len(W))) + b[i])
            total += importance[i] * (value - out) ** 2
    return total / len(x)


def _toy_slips(W: Tensor, b: Tensor, x: Tensor, importance: Tensor) -> list[tuple]:
    W, b, x, importance = (t.double().cpu() for t in (W, b, x, importance))
    (batch, n), plain = x.shape, x @ W.T @ W
    out = (plain + b).relu()
    error = (x - out) ** 2 * importance

    def loss(out: Tensor, weight: Tensor = importance) -> Tensor:
        return ((x - out) ** 2 * weight).sum(-1).mean()

    mean = "sum over the features, then the mean over the batch"
    slips = [
        (loss(plain + b), "the ReLU is missing"),
        (loss(plain.relu()), "the bias is missing"),
        (loss(plain.relu() + b), "the bias is added before the ReLU: ReLU(W^T W x + b)"),
        (loss((plain - b).relu()), "the bias is added, not subtracted"),
        (loss(((x + b) @ W.T @ W).relu()), "the bias is added after the two products: ReLU(W^T W x + b)"),
        (loss(((x @ W.T).relu() @ W + b).relu()), "no ReLU on the hidden values: only on the output"),
        (loss((x @ W.T).relu() @ W + b), "the ReLU belongs on the output, not on the hidden values"),
        (error.mean(), f"this is the mean over the features too: {mean}"),
        (error.sum(), f"this is the sum over the batch too: {mean}"),
        (error.mean(-1).sum(), f"the two are exchanged: {mean}"),
        (loss(out, importance**2), "importance is squared: it multiplies the squared error"),
        (loss(out, importance.sqrt()), "importance multiplies the squared error as it is, without a root"),
        (loss(out, torch.ones(n)), "importance is missing"),
        (loss(importance * out), "importance weighs the squared error, not the output"),
        (((importance * x - out) ** 2).sum(-1).mean(), "importance weighs the squared error, not the features"),
        (loss(out) / importance.sum(), "do not divide by the sum of the importances"),
        (loss(out) / 2, "there is no factor of 1/2 here"),
        (loss(out).sqrt(), "no root: the loss is the squared error"),
        (((x - out).abs() * importance).sum(-1).mean(), "the error is squared, not its absolute value"),
        (((x - out) * importance).sum(-1).mean(), "the error is squared"),
        (((x - out) * importance).sum(-1).pow(2).mean(), "square the error of each feature, then sum"),
        (-loss(out), "the sign: a loss is to become small"),
        (error.sum(-1), "this is the loss of each sample: return the mean over the batch"),
        (error.mean(0), "this is the loss of each feature: return their sum"),
        (error, "this is the error of each sample and feature: sum over features, mean over the batch"),
    ]
    if batch == n:
        turned = ((x - out) ** 2 * importance[:, None]).sum(-1).mean()
        slips.append((turned, "importance runs along the samples: it belongs to the features, the last axis"))
        rows = "rows are samples: x @ W.T @ W, so that each row is multiplied by W^T W"
        slips += [(loss((W.T @ W @ x + b).relu()), rows), (loss((W.T @ W @ x + b[:, None]).relu()), rows)]
    return slips


# ---------------------------------------------------------------------------------- 4.2 train_toys

_IMPORTANCES = (1.0, 0.95, 0.6, 0.58, 0.55)
_DENSE, _MIDDLE, _SPARSE = 0.05, (0.3, 0.45), 0.95
_EACH = 8  # models at the first and last of these sparsities, and half as many at each of the middle ones


class _Draws(TorchDispatchMode):
    """Counts what runs inside: operations, random numbers, and the updates of torch's optimisers.

    Attributes:
        gradients: for each optimiser the length of its gradient at each update.
    """

    def __init__(self):
        super().__init__()
        self.operations = self.numbers = self.updates = 0
        self.gradients: dict[int, list[float]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        if torch.Tag.nondeterministic_seeded in func.tags and isinstance(result, Tensor):
            self.numbers += result.numel()
        return result

    def __enter__(self):
        self.hook = register_optimizer_step_post_hook(self._count)
        return super().__enter__()

    def __exit__(self, *error):
        self.hook.remove()
        return super().__exit__(*error)

    def _count(self, optimizer, args, kwargs) -> None:
        operations = self.operations  # those of the measurement do not count
        self.updates += 1
        parts = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        length = math.sqrt(sum(float(part.detach().pow(2).sum()) for part in parts))
        self.gradients.setdefault(id(optimizer), []).append(length)
        self.operations = operations


@exercise(
    "4.2",
    hints=(
        "All models at once: W is [instance hidden feature], b [instance feature], a batch x [instance batch feature]. "
        "x @ W.mT @ W multiplies each instance's matrices; b needs an axis for the batch, b[:, None].",
        "W = (torch.randn(k, n_hidden, n_features) / (4 * n_hidden) ** 0.5).requires_grad_(); b = zeros with "
        "requires_grad; torch.optim.Adam([W, b], lr=5e-3). Each step: a fresh batch, the loss, zero_grad, backward, "
        "step. A feature is on where torch.rand(...) >= sparsity[:, None, None].",
        "for _ in range(steps): on = torch.rand(k, 256, n_features) >= sparsity[:, None, None]; x = torch.rand(k, 256, "
        "n_features) * on; out = torch.relu(x @ W.mT @ W + b[:, None]); loss = (importance * (x - out) ** 2).sum(-1)."
        "mean(-1).sum(); optimizer.zero_grad(); loss.backward(); optimizer.step(). Then return W.detach(), b.detach(). "
        "(On a GPU, give rand, randn and zeros device=sparsity.device.)",
    ),
)
def train_toys(attempt: Attempt) -> None:
    """Truth: closed forms for models without superposition; which features are the important ones is planted.

    Which minimum a model falls into is chance, so it is the best of eight that counts.
    """
    attempt.on_error |= {
        "at non-singleton dimension 0": "W.mT turns each instance's matrix round (W.T reverses all three axes)",
        "Expected size for first two dimensions": "W.mT turns each instance's matrix round (W.T reverses all axes)",
        "x.mT": "W.mT turns each instance's matrix round (W.T reverses all three axes)",
        "cannot be multiplied": "a batch for each instance, [k, 256, n_features], then x @ W.mT @ W",
        "at non-singleton dimension": "b and sparsity need an axis for the batch: b[:, None], sparsity[:, None, None]",
        "only for scalar outputs": "backward() starts from one number: the sum of the losses of all instances",
        "optimize a non-leaf": "scale first, then ask for gradients: (torch.randn(...) / size).requires_grad_()",
        "does not require grad": "no gradient reaches the loss: have W and b requires_grad, and is there no detach()?",
    }
    device = session.device()
    # The answer draws from torch's global generator: seeded (on the CPU), so that a run of the check can be repeated.
    seed = int(attempt.randint(0, 10**9, 1))
    torch.random.default_generator.manual_seed(seed)
    few = torch.tensor([0.9, 0.9, 0.5], device=device)
    with attempt.holds("a model of its own for each sparsity"):
        got = attempt(few, 4, 3, torch.ones(4, device=device), 2)
        W, _ = _weights(attempt, got, (3, 3, 4), "[instance hidden feature]")
        attempt.require(
            bool(W.abs().amax((1, 2)).min() > 0),
            "W different from zero",
            "an instance whose W is 0",
            "at W = 0 the gradient of W is 0 as well, and it stays there: start from small random numbers",
        )
        attempt.require(
            not torch.allclose(W[0], W[1], atol=1e-3),
            "two models of the same sparsity that start from different weights",
            "the same W twice",
            "draw random weights for every instance: torch.randn(k, n_hidden, n_features)",
        )
    with attempt.holds("a fresh batch and an update at every step"):
        _require_steps(attempt, few, seed)
    order = torch.randperm(5, generator=attempt.generator)
    importance = torch.tensor(_IMPORTANCES)[order].to(device)
    top = (importance >= 0.9).cpu()
    levels = [S for S in _MIDDLE for _ in range(_EACH // 2)] + [_DENSE, _SPARSE] * _EACH
    sparsity = torch.tensor(levels)[torch.randperm(len(levels), generator=attempt.generator)]
    trained = attempt(sparsity.to(device), 5, 2, importance, 2000)
    with attempt.holds("each instance knows more of the features than the means, at its own sparsity"):
        W, b = _weights(attempt, trained, (len(levels), 2, 5), "[instance hidden feature]")
        runs = _Runs(attempt, W, b, sparsity, importance, top)
        runs.require_each()
    with attempt.holds(f"S = {_DENSE}: a dimension each for the two most important features"):
        runs.require_dedicated()
    with attempt.holds(f"S = {_MIDDLE[0]} and {_MIDDLE[1]}: a feature without a direction is answered by its mean"):
        runs.require_means()
    with attempt.holds(f"S = {_SPARSE}: more features than dimensions, at a lower loss than without superposition"):
        runs.require_superposition()


def _require_steps(attempt: Attempt, sparsity: Tensor, seed: int) -> None:
    counts, found = [], []
    for steps in (3, 9):
        torch.random.default_generator.manual_seed(seed)  # the same start (on the CPU), so that W and b have moved
        with _Draws() as draws:
            result = attempt(sparsity, 4, 3, torch.ones(4, device=sparsity.device), steps)
        found.append(_weights(attempt, result, (3, 3, 4), "[instance hidden feature]"))
        counts.append(draws)
    short, long = counts
    attempt.require(
        long.operations > short.operations,
        "more work for 9 steps than for 3",
        f"{short.operations} operations of torch for either",
        "the number of steps is the argument `steps`",
    )
    attempt.require(
        short.numbers == 0 or long.numbers > short.numbers,
        "more random numbers drawn in 9 steps than in 3",
        f"{short.numbers} for either",
        "one batch serves all steps: draw a fresh one inside the loop, else the model learns those samples by heart",
    )
    attempt.require(
        long.updates == 3 * short.updates and short.updates % 3 == 0,
        "3 updates for steps = 3, and 9 for steps = 9",
        f"{short.updates} and {long.updates} calls of optimizer.step()",
        "the number of steps is the argument `steps`, each with one optimizer.step()",
    )
    moved = [(one - other).abs().flatten(1).amax(1) > 1e-6 for one, other in zip(*found, strict=True)]
    remedy = "has it requires_grad, a place in the optimiser's list, and is there optimizer.step()?"
    for name, where in zip("Wb", moved, strict=True):
        if not bool(where.any()):
            still = "b is still 0" if name == "b" and not bool(found[1][1].any()) else f"{name} does not move"
            attempt.fail(
                f"{name} that changes from step to step", "the same after 3 steps and after 9", f"{still}: {remedy}"
            )
        attempt.require(
            bool(where.all()),
            f"{name} that changes from step to step in every instance",
            f"no change in {int((~where).sum())} of {len(where)} instances",
            "some instances are not trained: is it the *sum* of all their losses?",
        )
    growth = max((each[-1] / max(each[0], 1e-30) for each in long.gradients.values()), default=0.0)
    attempt.require(
        growth < 4,
        "gradients of much the same size in the first nine steps",
        f"{growth:.1f} times as large in the ninth as in the first",
        "gradients add up from step to step: set them to zero, optimizer.zero_grad(), before backward()",
    )


class _Runs:
    """The trained models, judged by the closed forms of what needs no superposition.

    How far right and wrong lie apart was measured with this data and 2000 steps, each right setting on 12 groups of
    models and each wrong one on 4 to 8. Right: Adam with learning rates of 0.003 and 0.01, constant or on a cosine.

    Loss of each model over that of "nothing but the means": right at most 0.57 (S up to 0.45) and 0.20 (S = 0.95).
    Best loss at S = 0.05 over that of the two most important features alone: right at most 1.01, without importance at
    least 1.10. Mean bias of features without a direction, minus p/2: right -0.024 to 0.015; one draw for mask and
    value, S squared, root of S: at least 0.1 off. Best loss at S = 0.95 over that of two antipodal pairs: right at most
    0.62; linear 2.7, absolute error 0.94, bias outside the ReLU 0.91. Its largest bias: right at most -0.20, a slope of
    0.1 below 0 (leaky ReLU) at least -0.13.
    """

    def __init__(self, attempt: Attempt, W: Tensor, b: Tensor, sparsity: Tensor, importance: Tensor, top: Tensor):
        self.attempt, self.top, self.W, self.all_b, self.sparsity = attempt, top, W, b, sparsity
        self.importance = importance.double().cpu()
        self.relative = {}  # for each sparsity: the loss of each model on such data, over "nothing but the means"
        self.loss, self.lengths, self.b, self.dropped = {}, {}, {}, {}
        for S in (_DENSE, *_MIDDLE, _SPARSE):
            x = _features(attempt, 40_000 if S == _SPARSE else 4096, 5, S).double().cpu()
            out = torch.stack([(x @ w.T @ w + bias).relu() for w, bias in zip(W, b, strict=True)])
            losses = (self.importance * (x - out) ** 2).sum(-1).mean(-1)
            self.relative[S] = losses / self._closed(S, torch.ones_like(top))
            own = self._at(S)
            best = losses[own].argmin()
            self.loss[S] = float(losses[own][best])
            self.lengths[S], self.b[S] = W[own][best].norm(dim=0), b[own][best]
            self.dropped[S] = b[own][W[own].norm(dim=1) < 0.15]

    def _at(self, S: float) -> Tensor:
        return (self.sparsity - S).abs() < 1e-6

    def _closed(self, S: float, dropped: Tensor) -> float:
        """Loss of a model that keeps all but these features without error, and answers these by their means."""
        p = 1 - S
        return (p / 3 - p**2 / 4) * float(self.importance[dropped].sum())

    def require_each(self) -> None:
        empty = (self.W.abs().amax((1, 2)) < 1e-3).nonzero().flatten().tolist()
        self.attempt.require(
            not empty,
            "a W that has learned something in every instance",
            f"W = 0 in {len(empty)} of {len(self.W)} instances, the first of them {(empty or [0])[0]}",
            "return all the models that were trained, in the order of `sparsity`",
        )
        for S in (_DENSE, *_MIDDLE, _SPARSE):
            nothing, bound = self._closed(S, torch.ones_like(self.top)), 0.4 if S == _SPARSE else 0.75
            worst = float(torch.where(self._at(S), self.relative[S], 0.0).max())
            self.attempt.require(
                worst < bound,
                f"a loss below {bound * nothing:.3g} in each instance of S = {S} ({nothing:.3g} with the means alone)",
                f"{worst * nothing:.3g} in instance {int(torch.where(self._at(S), self.relative[S], 0.0).argmax())}",
                self._suspect(
                    "not trained to the end (a learning rate of 3e-3 to 1e-2 does it), or on other data than each "
                    "instance's own entry of `sparsity` says"
                ),
            )

    def require_dedicated(self) -> None:
        slip = self._suspect(
            "not the minimum of this loss: is `importance` in it, is the sparsity each instance's own, and does the "
            "learning rate suffice (3e-3 to 1e-2 does, from a W with a standard deviation below 0.6)?"
        )
        lengths, limit = self.lengths[_DENSE], 1.06 * self._closed(_DENSE, ~self.top)
        self.attempt.require(
            bool(lengths[self.top].min() > 0.6) and bool(lengths[~self.top].max() < 0.6),
            "long columns for the two most important features alone",
            f"lengths {_listed(lengths)} for importances {_listed(self.importance)} (the best of {_EACH})",
            slip,
        )
        self.attempt.require(
            self.loss[_DENSE] < limit, f"a loss below {limit:.3g}", f"{self.loss[_DENSE]:.3g} (best of {_EACH})", slip
        )
        b, mean = self.b[_DENSE], (1 - _DENSE) / 2
        self.attempt.require(
            bool(((b[~self.top] - mean).abs() < 0.2).all()),
            f"a bias near the mean, {mean:.3g}, for the features that are not kept",
            f"b = {_listed(b)}",
            self._suspect("are values that are on uniform on [0, 1], and is b added before the ReLU?"),
        )

    def require_means(self) -> None:
        for S in _MIDDLE:
            mean, b = (1 - S) / 2, self.dropped[S]
            if len(b) == 0:
                continue
            self.attempt.require(
                -0.08 < float(b.mean()) - mean < 0.025,
                f"biases of about {mean:.3g} for the features without a direction at S = {S}",
                f"{float(b.mean()):.3g} on average of {len(b)}",
                self._suspect("are values that are on uniform on [0, 1], and is the error squared?"),
            )

    def require_superposition(self) -> None:
        p, least = 1 - _SPARSE, self.importance.min()
        pairs = float((p / 3 - p**2 / 4) * least + (self.importance.sum() - least) * p**2 / 6)
        lengths, limit, b = self.lengths[_SPARSE], 0.7 * pairs, self.b[_SPARSE]
        slip = self._suspect("not at the minimum yet (is the learning rate 3e-3 or more?), or trained on other data")
        good = int((lengths > 0.5).sum()) >= 4 and self.loss[_SPARSE] < limit
        if int((lengths > 0.5).sum()) >= 3 and bool((b > -0.14).any()):
            slip = slip if slip.startswith("each feature") else _OTHER_LOSS
        self.attempt.require(
            good,
            f"at least four long columns and a loss below {limit:.3g} (two antipodal pairs: {pairs:.3g})",
            f"lengths {_listed(lengths)}, a loss of {self.loss[_SPARSE]:.3g} (best of {_EACH})",
            slip,
        )
        self.attempt.require(
            bool((b < -0.14).all()),
            "biases of about -0.23 in the best model, which cut off positive interference",
            f"b = {_listed(b)}",
            slip,
        )

    def _suspect(self, otherwise: str) -> str:
        """The likely slip, from what the groups look like."""
        n_kept = {S: int((self.lengths[S] > 0.5).sum()) for S in self.lengths}
        spare = {S: self.b[S][~self.top] for S in self.b}
        if n_kept[_SPARSE] <= 2 and n_kept[_DENSE] >= 4:
            return "the two are exchanged: `sparsity` is the probability of a zero, not of being on"
        sparse_like = self.relative[_SPARSE] < 0.4
        displaced = self._at(_SPARSE) & ~sparse_like
        if int(sparse_like.sum()) == _EACH and bool((self.relative[_SPARSE][displaced] > 1).any()):
            return "the models stand in another order than `sparsity`: instance i belongs to sparsity[i]"
        if float((self.all_b < -0.3).double().mean()) > 0.9:
            return "biases far below 0: is the output ReLU(W^T W x + b), with torch.relu?"
        if told := self._from_means():
            return told
        minor = self.lengths[_SPARSE][~self.top]
        if n_kept[_SPARSE] == 2 and bool(((minor > 0.2) & (minor < 0.6)).all()):
            return (
                "all features of a sample are on together here: is each feature on or off by itself, a draw for each?"
            )
        if n_kept[_DENSE] >= 4 and bool((spare[_DENSE] < 0.15).all()):
            return "the dense models look like the sparse ones: does each instance draw with a sparsity of its own?"
        if n_kept[_SPARSE] <= 3 and bool((spare[_SPARSE] > 0.1).all()):
            return (
                "the sparse models answer the means of denser data: does each instance draw with a sparsity of its own?"
            )
        kept_top = bool((self.lengths[_DENSE][self.top] > 0.6).all())
        if kept_top and n_kept[_DENSE] <= 3 and bool((spare[_DENSE].abs() < 0.1).all()):
            return "are values that are on uniform on [0, 1] (not of both signs), and is b added before the ReLU?"
        if n_kept[_SPARSE] <= 2 and bool((spare[_SPARSE] > 0).all()):
            return (
                "this is what a linear model finds: is the ReLU in the output (and is each feature on or off by "
                "itself, not all of a sample together)?"
            )
        return otherwise

    def _from_means(self) -> str:
        """What the biases of features without a direction say of the data, if there are such features."""
        S = torch.tensor(_MIDDLE, dtype=torch.float64)
        if any(len(self.dropped[each]) < 3 for each in _MIDDLE):
            return ""
        b = torch.stack([self.dropped[each].mean() for each in _MIDDLE])
        median = (0.5 - S) / (1 - S)

        def like(means: Tensor, within: float = 0.03) -> bool:
            return bool(((b - means).abs() < within).all())

        if like((1 - S) / 2):
            return ""
        if like((1 - S**2) / 2):
            return (
                "the number that decides on or off is used as the value too: draw new ones for the values (or is "
                "`sparsity` squared?)"
            )
        if like((1 - S.sqrt()) / 2):
            return "features are off more often than `sparsity` says: torch.rand(...) >= sparsity, without a root"
        if like(S / 2):
            return "the two are exchanged: `sparsity` is the probability of a zero, not of being on"
        if like(median.clamp(min=0)):
            return "the medians, not the means: the error is squared, not its absolute value"
        if like((S - 1) / 2):
            return "the sign of b: it is added, ReLU(W^T W x + b)"
        if bool((b.abs() < 0.1).all()):
            return "are values that are on uniform on [0, 1] (not of both signs), and is b added before the ReLU?"
        if float((b[0] - b[1]).abs()) < 0.03:
            return "models of all sparsities answer the same means: does each instance draw with a sparsity of its own?"
        value = b / (1 - S)
        if float((value[0] - value[1]).abs()) < 0.06 and float(value.mean()) > 0.1:
            return (
                f"values that are on have a mean of {float(value.mean()):.2f} here: uniform on [0, 1], torch.rand(...)"
            )
        return ""


_OTHER_LOSS = (
    "another output or loss: ReLU(W^T W x + b) has the bias inside and is 0 below 0 (no leaky ReLU), and the error is "
    "squared"
)


def _listed(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")"


# ---------------------------------------------------------------------- 4.3 feature_dimensionality


@exercise(
    "4.3",
    hints=(
        "Column i is W[:, i]. W_hat_i is that column divided by its length; W.norm(dim=0) gives all lengths.",
        "unit = W / length; (unit.T @ W)[i, j] is W_hat_i . W_j. Square it, sum over j (j = i included), and divide "
        "the squared length by that. A column of zeros would divide by 0: keep the length away from 0.",
        "length = W.norm(dim=0); unit = W / length.clamp_min(1e-12); overlap = ((unit.T @ W) ** 2).sum(1); "
        "return length**2 / overlap.clamp_min(1e-12)",
    ),
)
def feature_dimensionality(attempt: Attempt) -> None:
    """Truth: regular figures whose share is known, and the definition in float64."""
    attempt.on_error["cannot be multiplied"] = "columns are the features: unit.T @ W is [feature feature]"
    with attempt.holds("equals the definition for columns of any length"):
        for m, n in ((3, 6), (4, 4), (2, 7)):
            W = attempt.randn(m, n) * (0.3 + _uniform(attempt, n))
            attempt.close(attempt(W), _shares(_array(W)), what="the dimensionality", slips=_dimensionality_slips(W))
    turn = torch.linalg.qr(attempt.randn(4, 4))[0]
    figures = [
        ("a pentagon: 2/5 each", _polygon(5), 2 / 5),
        ("antipodal pairs: 1/2 each", torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]]), 1 / 2),
        ("a triangle: 2/3 each", _polygon(3), 2 / 3),
        ("a dimension each, of any length: 1", torch.diag(torch.tensor([0.01, 1.0, 30.0])), 1.0),
    ]
    for name, columns, share in figures:
        with attempt.holds(name):
            length = 1.0 if share == 1.0 else 0.6 + float(_uniform(attempt, 1))
            W = turn[:, : len(columns)] @ (length * columns).to(turn.device)  # in four dimensions, turned at random
            truth = torch.full((columns.shape[1],), share)
            got, slips = attempt(W), _dimensionality_slips(W)
            if share == 1.0:
                got = _with_short_column(attempt, got, slips)
            attempt.close(got, truth, what="the dimensionality", slips=slips)
    with attempt.holds("a column of zeros has no dimension, and the shares never add up to more than m"):
        W = attempt.randn(3, 6)
        W[:, 2] = 0
        got = attempt(W)
        at_zero = torch.as_tensor(got).detach().reshape(-1)[2:3] if isinstance(got, Tensor) else torch.zeros(1)
        attempt.require(
            bool(torch.isfinite(at_zero).all()),
            "0 for the column of zeros",
            "NaN" if bool(torch.isnan(at_zero).any()) else "infinity",
            "0 divided by 0: keep the divisors away from 0 with clamp_min, or put 0 there with torch.where",
        )
        shares = attempt.close(got, _shares(_array(W)), what="the dimensionality", slips=_dimensionality_slips(W))
        attempt.require(bool(shares.sum() <= 3 + 1e-4), "a sum of at most 3", f"{float(shares.sum()):.4g}")


def _with_short_column(attempt: Attempt, got, slips: list) -> Tensor:
    """The shares, of which the first, that of a column of length 0.01, may be 2% off: a divisor plus 1e-6 is right."""
    shares = attempt.tensor(got, (3,), "the dimensionality").clone()
    known = any(wrong.shape == shares.shape and torch.allclose(shares, wrong, rtol=1e-3) for wrong, _ in slips)
    if not known and bool(((shares[1:] - 1).abs() < 1e-3).all()):
        attempt.require(
            abs(float(shares[0]) - 1) < 0.02,
            "the dimensionality to be 1 for a column of length 0.01 that has a dimension to itself",
            f"{float(shares[0]):.4g}",
            "only a column of zeros has D = 0: keep divisors away from 0 with something tiny, clamp_min(1e-12)",
        )
        shares[0] = 1
    return shares


def _polygon(n: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(n) / n
    return torch.stack([angle.cos(), angle.sin()])


def _shares(W: np.ndarray) -> Tensor:
    """The definition, pair by pair."""
    columns, found = W.T, []
    for own in columns:
        length = math.sqrt(sum(own**2))
        overlaps = sum(float(np.dot(own / length, other)) ** 2 for other in columns) if length else 0.0
        found.append(length**2 / overlaps if overlaps else 0.0)
    return torch.tensor(found, dtype=torch.float64)


def _dimensionality_slips(W: Tensor) -> list[tuple[Tensor, str]]:
    W = W.double().cpu()
    length, gram = W.norm(dim=0), W.T @ W
    unit = W / length.clamp_min(1e-30)
    right = unit.T @ W  # W_hat_i . W_j at [i, j]

    def over(divisor: Tensor) -> Tensor:
        return torch.where(divisor.abs() > 0, length**2 / divisor, 0.0)

    others = right - torch.diag(right.diagonal())
    rows = torch.nn.functional.normalize(W, dim=1)
    by_rows = torch.where(W.norm(dim=1) > 0, W.pow(2).sum(1) / (rows @ W.T).pow(2).sum(1), 0.0)
    row_units = (rows.T @ W).pow(2).sum(1)
    one = _shares(W.numpy())
    one[length == 0] = 1
    return [
        (over(right.pow(2).sum(0)), "the unit vector is feature i's own: (W_hat_i . W_j), not (W_i . W_hat_j)"),
        (over((unit.T @ unit).pow(2).sum(1)), "only W_i is a unit vector in the sum: W_j keeps its length"),
        (over(gram.pow(2).sum(1)), "W_i is a unit vector in the sum: divide it by its length"),
        (over(right.sum(1)), "the overlaps are squared before they are summed"),
        (over(right.abs().sum(1)), "the overlaps are squared, not their absolute values"),
        (over(right.sum(1).pow(2)), "square each overlap, then sum"),
        (over(others.pow(2).sum(1)), "j = i belongs to the sum too"),
        (length * over(right.pow(2).sum(1)) / length.pow(2).clamp_min(1e-30), "the length on top is squared"),
        (1 / (unit.T @ unit).pow(2).sum(1).clamp_min(1e-30), "W_j keeps its length, and |W_i| squared stands on top"),
        (over(row_units), "the unit vectors are columns of W: normalise over dim=0"),
        (by_rows, "these are the shares of the rows: features are the columns of W"),
        (right.pow(2).sum(1) / length.pow(2).clamp_min(1e-30), "upside down: |W_i| squared stands on top"),
        (W.shape[0] / length.pow(2).sum(), "this is m / |W|^2, dimensions per feature of the whole model"),
        (torch.full_like(one, float(W.shape[0] / length.pow(2).sum())), "this is m / |W|^2: D_i is each feature's own"),
        (one, "a column of zeros takes no dimension: 0"),
        (_shares(W.numpy()).sum(), "this is the sum: return one number for each feature"),
    ]


# -------------------------------------------------------------------------------- 4.4 phase_losses


@exercise(
    "4.4",
    hints=(
        "Keep W = (1, 0): feature 1 costs nothing, and the best constant answer for feature 2 is its mean, which costs "
        "its variance. The pair W = (1, -1) gives ReLU(x1 - x2) and ReLU(x2 - x1): when is that wrong, and how much?",
        "With p = 1 - S: E[x] = p/2, E[x^2] = p/3. The pair errs only when both are on (probability p^2), for each "
        "feature by the smaller of the two, and E[min(u, v)^2] = 1/6 for two uniform numbers.",
        "p = 1 - sparsity; variance = p / 3 - p**2 / 4; pair = (1 + importance) * p**2 / 6; "
        "return torch.stack([importance * variance, variance, pair], dim=-1)",
    ),
)
def phase_losses(attempt: Attempt) -> None:
    """Truth: the three toy models themselves, their loss integrated numerically over what is on and how strongly."""
    device = session.device()
    with attempt.holds("equals the integral, on a list of settings"):
        sparsity = torch.rand(6, generator=attempt.generator).to(device)
        importance = 0.2 + 1.6 * torch.rand(6, generator=attempt.generator).to(device)
        _require_closed_form(attempt, sparsity, importance)
        _compare_phases(attempt, sparsity, importance)
    with attempt.holds("equals the integral, on a grid"):
        one = torch.tensor([0.0, 0.35, 0.8, 0.97], device=device)
        other = torch.tensor([0.1, 1.0, 3.0], device=device) + 0.05 * _uniform(attempt, 3)
        grid = torch.meshgrid(one, other, indexing="ij")
        _compare_phases(attempt, *grid)
    with attempt.holds("equal importances: one feature alone where all is dense, the pair where it is sparse"):
        got = attempt(torch.tensor([0.0, 0.95], device=device), torch.ones(2, device=device))
        truth = torch.tensor([[1 / 12, 1 / 12, 1 / 3], [0.05 / 3 - 0.05**2 / 4] * 2 + [0.05**2 / 3]])
        attempt.close(got, truth, atol=2e-5, what="the loss")


def _require_closed_form(attempt: Attempt, *args) -> None:
    """The same result twice from the same arguments (what is no tensor or NaN is left to the comparison)."""
    one, again = attempt(*args), attempt(*args)
    if isinstance(one, Tensor) and isinstance(again, Tensor) and one.shape == again.shape:
        gap = (one.detach() - again.detach()).abs()
        attempt.require(
            not bool((gap > 0).any()),
            "the same result from the same arguments",
            f"results up to {float(gap.max()):.2g} apart",
            "a closed form is asked for: an estimate from random samples is never exact",
        )


def _compare_phases(attempt: Attempt, sparsity: Tensor, importance: Tensor) -> None:
    models = (((1.0, 0.0), (0.0, 0.5)), ((0.0, 1.0), (0.5, 0.0)), ((1.0, -1.0), (0.0, 0.0)))
    truth = [
        [_expected_loss(np.array(w), (1 - s) * np.array(mean), 1 - s, i) for w, mean in models]
        for s, i in zip(sparsity.flatten().tolist(), importance.flatten().tolist(), strict=True)
    ]
    truth = torch.tensor(truth).reshape(*sparsity.shape, 3)
    got = attempt(sparsity, importance)
    attempt.close(got, truth, atol=5e-5, rtol=2e-4, what="the loss", slips=_phase_slips(sparsity, importance))


def _expected_loss(w: np.ndarray, b: np.ndarray, p: float, importance: float) -> float:
    """Of ReLU(w (w . x) + b) for two features in one dimension: each on or off, and if on, a fine grid of values."""
    values, total = (np.arange(150) + 0.5) / 150, 0.0
    for on in product((0, 1), repeat=2):
        x = np.stack(np.meshgrid(*(values if each else np.zeros(1) for each in on)), -1)
        out = np.maximum((x @ w)[..., None] * w + b, 0)
        chance = np.prod([p if each else 1 - p for each in on])
        total += chance * float((((x - out) ** 2) @ np.array([1.0, importance])).mean())
    return total


def _phase_slips(sparsity: Tensor, importance: Tensor) -> list[tuple[Tensor, str]]:
    sparsity, importance = sparsity.double().cpu(), importance.double().cpu()

    def losses(
        p: Tensor = 1 - sparsity,
        variance=lambda p: p / 3 - p**2 / 4,
        pair=lambda p: p**2 / 6 * (1 + importance),
        weights: tuple = (importance, 1.0),
    ) -> Tensor:
        return torch.stack([weights[0] * variance(p), weights[1] * variance(p), pair(p)], -1)

    right, total = losses(), 1 + importance
    mean = "the mean of a feature is p/2, zeros included: the variance is E[x^2] - E[x]^2 = p/3 - (p/2)^2"
    both = "the pair errs only when both are on, for each feature by the smaller of the two: p^2 E[min^2], E[min^2]=1/6"
    slips = [
        (losses(p=sparsity), "p and S are exchanged: p = 1 - S is the probability of being on"),
        (losses(variance=lambda p: p / 3), "answered by its mean, not by 0: the loss is the variance, p/3 - (p/2)^2"),
        (losses(variance=lambda p: p / 12), f"p/3 - p/4 is the variance of the values that are on alone; {mean}"),
        (losses(variance=lambda p: 0 * p + 1 / 12), "that is the variance of a feature that is always on"),
        *((losses(variance=lambda p, f=f: p / 3 - f * p**2), mean) for f in (1, 1 / 2, 1 / 3, 1 / 9, 1 / 16)),
        (losses(variance=lambda p: p / 2 - p**2 / 4), "E[x^2] is p/3: the integral of x^2 from 0 to 1 is 1/3"),
        (losses(variance=lambda p: p**2 / 3 - p**2 / 4), "E[x^2] is p/3: the feature is on with probability p, once"),
        (losses(variance=lambda p: p / 2), "this is the mean, not the squared error"),
        (losses(variance=lambda p: (p / 2) ** 2), "this is the mean squared: the variance is p/3 - (p/2)^2"),
        (losses(weights=(1.0, importance)), "importance is on the wrong feature: what is dropped costs, not the kept"),
        (losses(weights=(1.0, 1.0)), "importance is missing: the dropped second feature costs importance times more"),
        (losses(weights=(importance, importance)), "the first feature has importance 1"),
        (losses(pair=lambda p: total * p**2 / 3), f"{both} (1/3 is E[u^2] of one uniform number)"),
        (losses(pair=lambda p: total * p**2 / 2), f"{both} (1/2 is that of the larger one)"),
        (losses(pair=lambda p: total * p**2 / 12), f"{both} (here half of it)"),
        (losses(pair=lambda p: total * p**2 / 9), f"{both} (1/9 is the square of the mean of min)"),
        (losses(pair=lambda p: total * p**2 / 4), both),
        (losses(pair=lambda p: total * p**2), f"{both} (1/6 is missing)"),
        (losses(pair=lambda p: total * p / 6), "both are on with probability p^2, not p"),
        (losses(pair=lambda p: total * 0 * p + total / 6), "both are on with probability p^2, which is missing"),
        (losses(pair=lambda p: 2 * total * p**2 / 6), "the pair's loss is counted twice"),
        (losses(pair=lambda p: total * p * (1 - p) / 3), "the pair errs when both are on, not when one is"),
        (losses(pair=lambda p: p**2 / 6), "the pair errs on both features: the second costs importance times as much"),
        (losses(pair=lambda p: p**2 / 3), "the second feature's error has the weight `importance` in the pair too"),
        (losses(pair=lambda p: importance * p**2 / 6), "the pair errs on both features: the first one is missing"),
        (right / 2, "the loss is the sum over the two features, not their mean"),
        (right / total[..., None], "do not divide by the sum of the importances"),
        (right.movedim(-1, 0), "the three solutions stand on the last axis: torch.stack(..., dim=-1)"),
        (-right, "the sign: losses are positive"),
    ]
    order = "the order is: first feature alone, second alone, pair"
    slips += [(right[..., list(each)], order) for each in permutations(range(3)) if each != (0, 1, 2)]
    # Exchanging the first two is the same as importance on the wrong feature: that message stands before.
    return slips


# ------------------------------------------------------------------------ 4.5 expected_interference


@exercise(
    "4.5",
    hints=(
        "Call a_ij = W_i . W_j with a_ii = 0. Multiply the square out: sum over j and k of a_ij a_ik E[x_j x_k]. Two "
        "kinds of terms: j = k and j != k.",
        "E[x_j^2] = p/3, and for two different features E[x_j x_k] = (p/2)^2. So it is the variance p/3 - p^2/4 times "
        "sum_j a_ij^2, plus p^2/4 times (sum_j a_ij)^2.",
        "p = 1 - sparsity; a = W.T @ W; a = a - torch.diag(a.diag()); "
        "return (p / 3 - p**2 / 4) * (a**2).sum(1) + p**2 / 4 * a.sum(1) ** 2",
    ),
)
def expected_interference(attempt: Attempt) -> None:
    """Truth: the expectation taken over all sets of features that can be on; a simulation."""
    attempt.on_error["cannot be multiplied"] = "columns are the features: W.T @ W is [feature feature]"
    with attempt.holds("equals the mean over all sets of features that can be on"):
        for m, n, sparsity in ((2, 5, 0.4), (3, 6, 0.85), (4, 4, 0.0), (3, 4, 0.7)):
            W = attempt.randn(m, n) * (0.4 + _uniform(attempt, n))
            _require_closed_form(attempt, W, sparsity)
            truth = _over_sets(_array(W), 1 - sparsity)
            slips = _mixed_slips(W, sparsity)
            # interference grows with the square of W, twice
            tolerance = {"atol": 1e-4 * max(1.0, float(truth.max())), "rtol": 1e-4}
            attempt.close(attempt(W, sparsity), truth, what="the interference", slips=slips, **tolerance)
    with attempt.holds("an antipodal pair: p/3, and nothing for a feature at right angles"):
        p = 0.1 + 0.6 * float(_uniform(attempt, 1))
        W = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]], device=session.device())
        got = attempt(W, 1 - p)
        attempt.close(got, torch.tensor([p / 3, p / 3, 0.0]), what="the interference", slips=_mixed_slips(W, 1 - p))
    with attempt.holds("equals a simulation of 200,000 samples (within six standard errors)"):
        W, sparsity = (1.1 * _polygon(5)).to(session.device()), 0.8
        x = _features(attempt, 200_000, 5, sparsity).double().cpu()
        a = (W.T @ W).double().cpu().fill_diagonal_(0)
        sampled = (x @ a) ** 2
        error = 6 * sampled.std(0) / len(x) ** 0.5
        got = attempt.tensor(attempt(W, sparsity), (5,))
        attempt.require(
            bool(((got - sampled.mean(0)).abs() <= error).all()),
            f"about {_listed(sampled.mean(0))}, each within {float(error.max()):.3f}",
            _listed(got),
        )


def _over_sets(W: np.ndarray, p: float) -> Tensor:
    """Second moment of the interference: over which features are on, then over values uniform on [0, 1]."""
    n = W.shape[1]
    a = W.T @ W
    np.fill_diagonal(a, 0.0)
    total = np.zeros(n)
    for on in product((0.0, 1.0), repeat=n):
        on = np.array(on)
        chance = np.prod(np.where(on > 0, p, 1 - p))
        total += chance * ((a * on).sum(1) ** 2 / 4 + (a**2 * on).sum(1) / 12)  # mean squared, and variance
    return torch.tensor(total)


def _mixed_slips(W: Tensor, sparsity: float) -> list[tuple[Tensor, str]]:
    W = W.double().cpu()
    unit = W / W.norm(dim=0)
    gram = W.T @ W

    def without_own(a: Tensor) -> Tensor:
        return a - torch.diag(a.diag())

    def closed(a: Tensor, p: float = 1 - sparsity, second: float | None = None, product: float | None = None) -> Tensor:
        second, product = p / 3 if second is None else second, p**2 / 4 if product is None else product
        squares = a.pow(2).sum(1)
        return second * squares + product * (a.sum(1).pow(2) - squares)

    p, a = 1 - sparsity, without_own(gram)
    squares, cross = a.pow(2).sum(1), a.sum(1).pow(2) - a.pow(2).sum(1)
    own_cross = gram.sum(1).pow(2) - gram.pow(2).sum(1)
    right = closed(a)
    second = "E[x^2] is p/3: on with probability p, and the integral of x^2 is 1/3"
    crossed = "for two different features E[x_j x_k] = E[x_j] E[x_k] = (p/2)^2"
    rows = without_own(W @ W.T)
    return [
        (p / 3 * squares, "the cross terms are missing: features that are on together add up before the square"),
        (closed(gram), "j = i is no interference: set the diagonal of W^T W to 0"),
        (closed(gram - torch.eye(len(gram), dtype=gram.dtype)), "the diagonal is |W_i|^2, not 1: set it to 0"),
        (p / 3 * squares + p**2 / 4 * own_cross, "j = i is left in the cross terms: set the diagonal to 0 first"),
        (p / 3 * gram.pow(2).sum(1) + p**2 / 4 * cross, "j = i is left in the squares: set the diagonal to 0 first"),
        (closed(a, p=sparsity), "p and S are exchanged: p = 1 - S is the probability of being on"),
        (closed(without_own(unit.T @ W)), "no unit vectors here: W_i . W_j as they are"),
        (closed(without_own(W.T @ unit)), "no unit vectors here: W_i . W_j as they are"),
        (closed(without_own(unit.T @ unit)), "no unit vectors here: W_i . W_j as they are"),
        (p / 2 * a.sum(1), "this is the mean of the interference: square it inside the expectation"),
        (p / 2 * a.abs().sum(1), "the sum is squared, no absolute values"),
        ((p / 2 * a.sum(1)).pow(2), "this is the square of the mean: the mean of the square is larger by the variance"),
        ((p / 3 - p**2 / 4) * squares, "this is the variance: add the square of the mean, (p/2 sum_j W_i . W_j)^2"),
        (p**2 / 4 * cross, "the terms with j = k are missing: E[x_j^2] = p/3"),
        (p / 3 * a.sum(1).pow(2), f"x_j and x_k are not the same number: {crossed}"),
        (p / 3 * squares + p**2 / 4 * a.sum(1).pow(2), "the terms with j = k are counted twice"),
        (closed(a, product=p**2 / 8), "each pair j, k comes twice: as j, k and as k, j"),
        (closed(a, product=p**2 / 2), "each pair j, k comes twice, not four times"),
        *((closed(a, second=value), second) for value in (p / 2, p / 4, p**2 / 4, p**2 / 3, p / 12, p, 1 / 3)),
        *((closed(a, product=value), crossed) for value in (p / 4, p**2, p**2 / 9, p / 2, p**2 / 2, 1 / 4, p**2 / 3)),
        (closed(a, second=p / 3 - p**2 / 4), "E[x^2] is p/3, not the variance"),
        (right.sqrt(), "no root: the mean of the square"),
        (closed(rows), "features are the columns of W: W.T @ W"),
        (right.sum(), "this is the sum: return one number for each feature"),
        (right / max(len(a) - 1, 1), "a sum over the other features, not their mean"),
    ]


# --------------------------------------------------------------------------------- 4.6 paired_batch


@exercise(
    "4.6",
    hints=(
        "Draw once for each pair, then twice the values: on = torch.rand(batch, n_pairs, generator=generator) >= "
        "sparsity. Values: torch.rand(batch, 2 * n_pairs, generator=generator).",
        "together: each pair's on stands for both members, on.repeat_interleave(2, dim=1). Otherwise: first = a coin "
        "for each pair (torch.rand(...) < 0.5); the one member is on where on & first, the other where on & ~first.",
        "first = torch.rand(batch, n_pairs, generator=generator) < 0.5; members = torch.stack([on, on] if together "
        "else [on & first, on & ~first], dim=-1); return members.flatten(1) * torch.rand(batch, 2 * n_pairs, "
        "generator=generator)",
    ),
)
def paired_batch(attempt: Attempt) -> None:
    """Truth: the probabilities that the task plants, counted in one large batch.

    Every bound on a count is at least six standard errors wide; wrong rates lie thirty and more away.
    """
    batch, n_pairs = 20_000, 3
    for together, kind in ((True, "together"), (False, "never together")):
        sparsity = 0.7
        with attempt.holds(f"{kind}: which members of a pair are on"):
            x = _drawn(attempt, batch, n_pairs, sparsity, together)
            on = x > 0
            _require_values(attempt, x, together)
            _require_partners(attempt, on, together)
        with attempt.holds(f"{kind}: how often"):
            _require_rates(attempt, on, sparsity, together)
        with attempt.holds(f"{kind}: values uniform on [0, 1], each of its own"):
            _require_uniform(attempt, x, sparsity)
        with attempt.holds(f"{kind}: pairs know nothing of each other"):
            _require_independent(attempt, on, together)
    with attempt.holds("the generator decides, and nothing else"):
        for together in (True, False):
            _require_generator(attempt, together)
    with attempt.holds("nothing sparse, and a single pair"):
        x = _drawn(attempt, 2000, 1, 0.0, False)
        n_on = int((x > 0).any(1).sum())
        attempt.require(n_on >= 1998, "at sparsity 0 one of the two on in every row", f"{n_on} of 2000 rows")
        n_on = int((_drawn(attempt, 2000, 1, 0.0, True) > 0).all(1).sum())
        attempt.require(n_on >= 1998, "at sparsity 0 both on in every row", f"{n_on} of 2000 rows")


def _drawn(attempt: Attempt, batch: int, n_pairs: int, sparsity: float, together: bool, seed: int | None = None):
    """A batch, from a generator seeded anew."""
    seed = int(torch.randint(0, 10**6, (1,), generator=attempt.generator)) if seed is None else seed
    generator = torch.Generator().manual_seed(seed)
    value = attempt(batch, n_pairs, sparsity, together, generator)
    x = attempt.tensor(value, what="the batch")
    slip = "each pair has two columns: [batch, 2 * n_pairs]"
    if x.dim() == 3:
        slip = "two columns for each pair, side by side: flatten the last two axes"
    attempt.require(
        tuple(x.shape) == (batch, 2 * n_pairs), f"a batch of shape [{batch}, {2 * n_pairs}]", f"{list(x.shape)}", slip
    )
    return x


def _once_for_all(attempt: Attempt, x: Tensor, together: bool) -> str:
    """What to say of a batch in which each pair is on in all rows, or in none: is it so in other batches, or not?"""
    pair_on = [(x[:, ::2] > 0) | (x[:, 1::2] > 0)]
    if bool((pair_on[0] != pair_on[0][:1]).any()):
        return ""
    for _ in range(6):
        x = _drawn(attempt, 40, 3, 0.5, together)
        pair_on.append((x[:, ::2] > 0) | (x[:, 1::2] > 0))
    if any(bool((rows != rows[:1]).any()) for rows in pair_on):
        return ""
    if all(torch.equal(rows[0], pair_on[0][0]) for rows in pair_on):
        return ""
    return "on or off is drawn once for the whole batch: a draw for each row and pair, torch.rand(batch, n_pairs)"


def _require_values(attempt: Attempt, x: Tensor, together: bool) -> None:
    attempt.require(
        bool((x >= 0).all()) and bool((x <= 1).all()),
        "values from 0 to 1",
        f"values from {float(x.min()):.3g} to {float(x.max()):.3g}",
        "torch.rand, not torch.randn" if bool((x < 0).any()) else "",
    )
    once = _once_for_all(attempt, x, together)
    attempt.require(not once, "pairs that are on in some of the rows", "each pair on in all rows or in none", once)
    attempt.require(bool((x > 0).any()), "features that are on", "zeros alone")
    attempt.require(
        bool((x == 0).any()),
        "zeros where a feature is off",
        "no zero at all",
        "multiply the values by what is on",
    )
    attempt.require(
        bool(((x > 0) & (x < 1)).any()),
        "values in between 0 and 1 where a feature is on",
        "ones and zeros alone",
        "what is on has a value: multiply by torch.rand",
    )


def _require_partners(attempt: Attempt, on: Tensor, together: bool) -> None:
    """Columns 2i and 2i + 1 agree (or exclude each other) in every row; a value of exactly 0 is forgiven to three."""
    n = on.shape[1] // 2

    def odd_rows(first: Tensor, second: Tensor) -> int:
        odd = first != second if together else first & second
        return int(odd.sum(0).max())

    allowed = 3 if together else 0
    worst = odd_rows(on[:, ::2], on[:, 1::2])
    if worst <= allowed:
        return
    slip = "one draw for each pair, not for each feature: both members are on where their pair is"
    if not together:
        slip = "choose one of the two: the one is on where the pair is on and the coin says so, the other where not"
    if odd_rows(on[:, :n], on[:, n:]) <= allowed:
        slip = f"the pairs are columns i and i + {n} here: they are to stand side by side, 2i and 2i + 1"
    elif not together and odd_rows(on[:, ::2], ~on[:, 1::2]) <= 3:
        slip = "here both are on together: together=False is to exclude that"
    elif together and int((on[:, ::2] & on[:, 1::2]).sum()) == 0:
        slip = "here they exclude each other: together=True is to have both on or both off"
    want = "both members of each pair on, or both off" if together else "never both members of a pair on"
    attempt.fail(want, f"otherwise in {worst} of {len(on)} rows", slip)


def _require_rates(attempt: Attempt, on: Tensor, sparsity: float, together: bool) -> None:
    p, n = 1 - sparsity, len(on)
    either = (on[:, ::2] | on[:, 1::2]).double().mean(0)
    slips = {
        sparsity: "p and S are exchanged: a pair is on with probability 1 - sparsity",
        p / 2: "half of that: a pair (not each member) is on with probability 1 - sparsity",
        2 * p: "twice that: a pair (not each member) is on with probability 1 - sparsity",
        p**2: "two draws must agree here: one draw decides for the pair",
        1 - (1 - p) ** 2: "each member draws for itself here: one draw decides for the pair",
        2 * p * (1 - p): "each member draws for itself here: one draw decides for the pair",
        p * (1 - p): "each member draws for itself here: one draw decides for the pair",
        1 - p**2: "each member draws for itself here: one draw decides for the pair",
        0.0: "is a pair never on?",
        1.0: "is a pair always on? sparsity is the probability that it is off",
    }
    bound = 6 * math.sqrt(p * (1 - p) / n)
    if bool(((either - p).abs() >= bound).any()):
        slip = next((told for rate, told in slips.items() if bool(((either - rate).abs() < bound + 0.005).all())), "")
        denser = _drawn(attempt, n, len(either), 0.4, together) > 0
        gap = ((denser[:, ::2] | denser[:, 1::2]).double().mean(0) - either).abs()
        if bool((gap < bound).all()) and 0.01 < float(either.mean()) < 0.99:
            slip = "as often at another sparsity: it is the argument `sparsity` that decides"
        attempt.fail(f"each pair on with probability {p:.2g}", f"{_listed(either)} of {n} rows", slip)
    if together:
        return
    first = (on[:, ::2].double().mean(0)) / either
    bound = 6 * math.sqrt(0.25 / (p * n)) + 0.01
    slip = "the two members have equal chances: a coin of its own, torch.rand(...) < 0.5"
    if bool(((first < 0.01) | (first > 0.99)).any()):
        slip = "it is always the same member: draw anew which of the two it is (not from the draw that says `on`)"
    attempt.require(
        bool(((first - 0.5).abs() < bound).all()),
        "the first member on in half of the rows in which its pair is on",
        f"in shares of {_listed(first)}",
        slip,
    )


def _require_uniform(attempt: Attempt, x: Tensor, sparsity: float) -> None:
    n = x.shape[1] // 2
    both = (x[:, ::2] > 0) & (x[:, 1::2] > 0)
    for pair in range(n):
        rows = both[:, pair]
        if int(rows.sum()) < 2:
            continue
        one, other = x[rows, 2 * pair], x[rows, 2 * pair + 1]
        attempt.require(
            float(torch.corrcoef(torch.stack([one, other]))[0, 1].abs()) < 6 / math.sqrt(len(one)) + 0.02,
            "two members whose values have nothing to do with each other",
            "equal values" if torch.equal(one, other) else "values that are correlated",
            "only on and off are shared: draw a value for each feature, [batch, 2 * n_pairs]",
        )
    for feature in range(2 * n):
        values = x[x[:, feature] > 0, feature].sort().values
        grid = (torch.arange(len(values)) + 0.5) / len(values)
        # Kolmogorov's distance: above 2.5 / sqrt(n) with probability 2 exp(-2 * 2.5^2), about 7e-6
        gap = float((values - grid).abs().max()) * math.sqrt(len(values))
        slip = "values that are on are torch.rand(...), uniform on [0, 1]"
        if float(values.min()) > 0.9 * sparsity or float(values.max()) < 1.1 * (1 - sparsity):
            slip = "the number that decides on or off is used as the value too: draw new ones for the values"
        attempt.require(
            gap < 3.2,
            "values that are on uniform on [0, 1]",
            f"feature {feature}: from {float(values.min()):.2f} to {float(values.max()):.2f}, mean "
            f"{float(values.mean()):.2f}",
            slip,
        )
    shared = [
        float(torch.corrcoef(torch.stack([x[rows, i], x[rows, j]]))[0, 1].abs()) * math.sqrt(int(rows.sum()))
        for i in range(2 * n)
        for j in range(i)
        if int((rows := (x[:, i] > 0) & (x[:, j] > 0)).sum()) > 2
    ]
    attempt.require(
        max(shared, default=0.0) < 7,
        "values of different features that have nothing to do with each other",
        "values that are correlated",
        "draw a value for each feature, [batch, 2 * n_pairs]",
    )


def _require_independent(attempt: Attempt, on: Tensor, together: bool) -> None:
    pair_on = (on[:, ::2] | on[:, 1::2]).double()
    n = len(on)
    linked = float((torch.corrcoef(pair_on.T) - torch.eye(pair_on.shape[1], dtype=torch.float64)).abs().max())
    attempt.require(
        linked < 6 / math.sqrt(n),
        "pairs that are on independently of each other",
        f"a correlation of {linked:.2f} between two pairs",
        "a draw for each row and pair: torch.rand(batch, n_pairs), not one for the whole row",
    )
    after = float(torch.corrcoef(torch.stack([pair_on[:-1, 0], pair_on[1:, 0]]))[0, 1].abs())
    attempt.require(
        after < 6 / math.sqrt(n),
        "rows that know nothing of each other",
        f"a correlation of {after:.2f} from one row to the next",
        "a draw for each row",
    )
    if together:
        return
    first = on[:, ::2].double()
    for i in range(first.shape[1]):
        for j in range(i):
            rows = (pair_on[:, i] > 0) & (pair_on[:, j] > 0)
            agree = float((first[rows, i] == first[rows, j]).double().mean())
            attempt.require(
                abs(agree - 0.5) < 6 * math.sqrt(0.25 / int(rows.sum())),
                "a coin for each pair",
                f"two pairs choose the same member in {agree:.0%} of the rows in which both are on",
                "draw which member it is for each row and pair: torch.rand(batch, n_pairs)",
            )


def _require_generator(attempt: Attempt, together: bool) -> None:
    seed = int(torch.randint(0, 10**6, (1,), generator=attempt.generator))
    state = torch.random.default_generator

    def batches(seed: int, otherwise: int, n_calls: int) -> list[Tensor]:
        """From one generator; torch's own is at another seed each time."""
        state.manual_seed(otherwise)
        generator = torch.Generator().manual_seed(seed)
        return [attempt.tensor(attempt(200, 4, 0.5, together, generator), (200, 8)) for _ in range(n_calls)]

    ours, again, theirs = batches(seed, seed + 1, 3), batches(seed, seed + 2, 3), batches(seed + 3, seed + 1, 2)
    differ = [name for name, same in _alike(ours[0], again[0], together).items() if not same]
    attempt.require(
        torch.equal(ours[0], again[0]),
        "the same batch from a generator with the same seed",
        f"another batch{_named(differ)}",
        "hand it on in every draw: torch.rand(..., generator=generator)",
    )
    comparisons = [(ours[0], theirs[0], "from a generator with another seed")]
    comparisons += [(ours[i], ours[j], "at a later call with the same generator") for i, j in ((0, 1), (0, 2), (1, 2))]
    comparisons += [(ours[1], theirs[1], "from a generator with another seed, at its second call")]
    for one, other, when in comparisons:
        alike = [name for name, same in _alike(one, other, together).items() if same]
        later = "later call" in when
        slip = (
            "draw from the generator itself: do not seed it, and make no copy of it"
            if later
            else "use the generator as it is given, without seeding anything yourself"
        )
        attempt.require(not torch.equal(one, other), f"another batch {when}", "the same batch", slip)
        attempt.require(
            not alike,
            f"another batch {when}, in all its parts",
            f"the same again{_named(alike)}",
            "all randomness comes from `generator`: hand it on in every draw, with no generator or seed of your own",
        )
    attempt.require(
        all(map(torch.equal, ours, again)),
        "the same batches from two generators with the same seed, at the second and third call too",
        "other batches",
        "hand it on in every draw: torch.rand(..., generator=generator)",
    )


def _alike(one: Tensor, other: Tensor, together: bool) -> dict[str, bool]:
    """The three draws of two batches, each by itself: what is on, which member it is, and the values."""
    on = [(x > 0).unflatten(1, (-1, 2)) for x in (one, other)]
    pair_on = [each.any(-1) for each in on]
    both = pair_on[0] & pair_on[1]
    shared = (on[0] & on[1]).flatten(1)
    found = {"on and off": torch.equal(*pair_on)}
    if not together and bool(both.any()):
        found["which of the two members is on"] = torch.equal(on[0][both], on[1][both])
    if bool(shared.any()):
        found["the values"] = float((one[shared] == other[shared]).double().mean()) > 0.5
    return found


def _named(parts: list[str]) -> str:
    return f" ({', '.join(parts)})" if parts else ""


# ------------------------------------------------------------------------------- 4.7 linear_optimum


@exercise(
    "4.7",
    hints=(
        "W^T W with orthonormal rows of W is the projection on the space of the rows. Among all spaces of n_hidden "
        "dimensions, which one loses the least of the *centred* data?",
        "Principal components: mean = x.mean(0); the right singular vectors of x - mean, largest first. For the bias "
        "write the model as mean + W^T W (x - mean) and collect what does not depend on x.",
        "mean = x.mean(0); W = torch.linalg.svd(x - mean, full_matrices=False).Vh[:n_hidden]; "
        "return W, mean - W.T @ (W @ mean)",
    ),
)
def linear_optimum(attempt: Attempt) -> None:
    """Truth: scikit-learn's PCA; the eigenvalues that are left out; features whose variances are planted.

    Rows may be turned and reflected within their space: W^T W is what counts.
    """
    cases = [
        ("equals scikit-learn's principal components", 60, 6, 2),
        ("also with fewer rows than features", 7, 11, 3),
    ]
    for name, batch, n, m in cases:
        with attempt.holds(name):
            x = _spread(attempt, batch, n, m)
            W, b = _weights(attempt, attempt(x, m), (m, n), "[hidden feature]")
            _compare_linear(attempt, x, m, W, b)
    with attempt.holds("the loss is the variance that is left out, and nothing near it is better"):
        rows = x.double().cpu()
        truth = PCA(x.shape[1] if len(x) > x.shape[1] else len(x)).fit(_array(x)).explained_variance_ratio_[m:].sum()
        truth = float(truth * rows.var(0, correction=0).sum())
        attempt.close(_linear_loss(rows, W, b), truth, atol=1e-3 * truth, rtol=1e-3, what="the loss")
        for _ in range(5):
            step = 0.02 * torch.randn(W.shape, generator=attempt.generator, dtype=torch.float64)
            moved = _linear_loss(rows, W + step, b)
            attempt.require(bool(moved > truth), f"a loss of {truth:.4g} as the smallest", f"{float(moved):.4g} nearby")
    with attempt.holds("independent features: those that vary most, one to a dimension"):
        order = torch.randperm(6, generator=attempt.generator)
        spread = torch.tensor([3.0, 2.5, 2.0, 0.7, 0.5, 0.3])[order]
        base = attempt.randn(40, 6)
        x = torch.linalg.qr(base - base.mean(0))[0] * 40**0.5 * spread.to(base.device) + 5 * _uniform(attempt, 6)
        W, b = _weights(attempt, attempt(x, 3), (3, 6), "[hidden feature]")
        _compare_linear(attempt, x, 3, W, b)
        share = (spread > 1).double()
        attempt.close(W.pow(2).sum(0), share, atol=1e-3, what="the squared length of the columns")


def _spread(attempt: Attempt, batch: int, n: int, m: int) -> Tensor:
    """Rows whose principal components are planted: the first m stand out; a mean far from 0, unequal scales."""
    base = attempt.randn(batch, min(n, batch - 1))
    left = torch.linalg.qr(base - base.mean(0))[0]
    axes = torch.linalg.qr(attempt.randn(n, n))[0][: left.shape[1]]
    size = torch.linspace(1.0, 0.3, left.shape[1], device=left.device)
    size[:m] = torch.linspace(3.0, 2.0, m, device=left.device)
    scale = torch.linspace(0.4, 1.6, n)[torch.randperm(n, generator=attempt.generator)].to(left.device)
    x = (left * size * batch**0.5) @ axes * scale
    # stretching the features has moved the components a little: whatever they are now, PCA finds them
    return x + 4 * torch.sign(attempt.randn(n)) * (0.5 + _uniform(attempt, n))


def _linear_loss(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return (x - (x @ W.T @ W + b)).pow(2).sum(-1).mean()


_APPROXIMATE = "approximate, and another one at every call: torch.linalg.svd is exact (torch.pca_lowrank: a larger q)"


def _approximate(attempt: Attempt, args: tuple, rows: Tensor) -> list[tuple[Tensor, str]]:
    """A slip that fits a projection on rows (the first result) which are others when the answer is called again."""
    again = attempt.tensor(attempt(*args)[0], rows.shape)
    moved = float((again.T @ again - rows.T @ rows).abs().max())
    return [(rows.T @ rows, _APPROXIMATE)] if moved > 1e-3 else []


def _compare_linear(attempt: Attempt, x: Tensor, m: int, W: Tensor, b: Tensor) -> None:
    rows = x.double().cpu()
    mean = rows.mean(0)
    components = torch.tensor(PCA(m, svd_solver="full").fit(_array(x)).components_)
    projection = components.T @ components
    gram = W @ W.T
    if not torch.allclose(gram, torch.eye(m, dtype=gram.dtype), atol=1e-3):
        off = gram - torch.diag(gram.diag())
        slip = "the rows are at right angles, but not of length 1: leave singular values out of W"
        if bool(off.abs().max() > 1e-3):
            slip = "the rows are not at right angles to each other: principal components are"
        attempt.fail(
            "orthonormal rows, W @ W.T = 1",
            f"squared lengths {_listed(gram.diag())}, products up to {float(off.abs().max()):.2g}",
            slip,
        )

    def onto(data: Tensor, largest: bool = True) -> Tensor:
        vector = torch.linalg.eigh(data.T @ data).eigenvectors
        picked = vector[:, -m:] if largest else vector[:, :m]
        return picked @ picked.T

    centred = rows - mean
    scaled = centred / centred.std(0)
    biggest = torch.zeros(x.shape[1], dtype=torch.float64)
    biggest[centred.var(0).topk(m).indices] = 1
    smallest = "these are the smallest components: torch.linalg.eigh sorts upwards, the largest come last"
    slips = [
        (onto(rows), "x is not centred: subtract the mean over the rows first (this finds the mean's direction)"),
        (onto(scaled), "x was standardised: these are components of the correlations, not of the covariance"),
        (onto(centred - centred.mean(1, keepdim=True)), "the mean runs over the rows: x.mean(0)"),
        (onto(rows - rows.mean(1, keepdim=True)), "the mean runs over the rows: x.mean(0)"),
        (onto(centred, largest=False), smallest),
        (torch.diag(biggest), "these are the features that vary most: principal components may mix features"),
    ]
    full = torch.linalg.svd(centred)
    slips.append((full.Vh[-m:].T @ full.Vh[-m:], smallest))
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    columns = "torch.linalg.eigh's eigenvectors are the columns: transpose them"
    for picked, told in (
        (full.Vh.T[:m], "torch.linalg.svd returns V transposed already: take its first rows"),
        (vectors[-m:], columns),
        (vectors[:m], columns),
    ):
        got, wrong = W.T @ W, picked.T @ picked  # the signs of singular vectors are free: compare without them
        if torch.allclose(got.abs(), wrong.abs(), atol=5e-3):
            slips.append((got, told))
    slips += _approximate(attempt, (x, m), W)
    attempt.close(W.T @ W, projection, atol=5e-3, what="the projection W^T W", slips=slips)
    inside = projection @ mean
    slips = [
        (mean, "the bias is what W^T W leaves of the mean: mean - W^T W mean"),
        (0 * mean, "the bias is missing: mean - W^T W mean"),
        (mean + inside, "the sign: mean - W^T W mean"),
        (inside, "that is the part of the mean that W^T W keeps: the bias is the rest, mean - W^T W mean"),
        (-inside, "the mean itself is missing: mean - W^T W mean"),
        (inside - mean, "the sign is turned round: mean - W^T W mean"),
        (-mean, "the bias is mean - W^T W mean"),
    ]
    attempt.close(b, mean - inside, atol=2e-3 * float(mean.norm()), what="b", slips=slips)


# ----------------------------------------------------------------------------------- 4.8 best_plane


@exercise(
    "4.8",
    hints=(
        "Other things vary more than the value does, but they are the same on average whatever the value: take the "
        "mean of the rows of each value. Those `period` points lie on a circle (nearly). Which plane holds them best?",
        "means = the mean of x where value == t, for t = 0 .. period - 1; centre = means.mean(0); plane = the first "
        "two principal components of the means. Then the two coordinates of each row about the same centre.",
        "means = torch.stack([x[value == t].mean(0) for t in range(period)]); centre = means.mean(0); plane = "
        "torch.linalg.svd(means - centre, full_matrices=False).Vh[:2]; first, second = ((x - centre) @ plane.T).T; "
        "return plane, torch.atan2(second, first)",
    ),
)
def best_plane(attempt: Attempt) -> None:
    """Truth: the plane, centre and angles that were planted. Noise is planted to average to 0 in each class, exactly.

    A plane has no first axis and no sense of turning: angles count up to one rotation and reflection.
    """
    attempt.on_error["non-finite"] = attempt.on_error["contains NaN"] = (
        "the mean of a class without rows is NaN: values run from 0 to period - 1, for t in range(period)"
    )
    for period, d in ((7, 10), (12, 16)):
        data = _Circle(attempt, period, d)
        with attempt.holds(f"period {period}: orthonormal rows that span the planted plane"):
            plane, angle = attempt.pair(attempt(data.x, data.value, period), "plane", "angle")
            plane = _plane(attempt, data, plane)
        with attempt.holds(f"period {period}: each row's angle about the centre"):
            _require_angle(attempt, data, plane, angle)
    jumbled = _Circle(attempt, 7, 10, stride=3)
    with attempt.holds("the same plane when the values go round in another order"):
        _plane(attempt, jumbled, attempt.pair(attempt(jumbled.x, jumbled.value, 7), "plane", "angle")[0])
    with attempt.holds("classes with noise in their means: a plane that does not depend on what they are called"):
        for period, d in ((7, 10), (12, 16)):
            _require_names_do_not_matter(attempt, _Circle(attempt, period, d, noisy=True))
    with attempt.holds("the value can be read off the angle"):
        turns = _deviation(attempt.tensor(angle), 2 * math.pi * data.value.cpu() / period)
        right = float((turns.abs() < math.pi / period).double().mean())
        attempt.require(right > 0.9, "the nearest value right for more than 90% of the rows", f"{right:.0%}")


class _Circle:
    """Rows [n d]: a circle of period values in a random plane, off the origin; around it what disturbs.

    Three directions with far more variance, a second circle that is run through twice (at half the size), noise in
    every direction, and classes of unequal sizes, so that the mean of the rows is not the centre. Value t lies at
    stride * t steps of the circle. With a period of 7 and a stride of 3 the *second* circle goes round once in the
    order of the values (2 * 3 * t = -t), so that a plane fitted to their order is that of the second.

    Noisy: noise that does not average to 0 in the classes (half as large), so that the plane of the means is another.
    """

    def __init__(self, attempt: Attempt, period: int, d: int, stride: int = 1, noisy: bool = False):
        axes = torch.linalg.qr(torch.randn(d, d, generator=attempt.generator, dtype=torch.float64))[0].T
        self.period, self.plane = period, axes[:2]
        counts = torch.where(torch.arange(period) < period // 2, 60, 12)
        value = torch.arange(period).repeat_interleave(counts)
        value = value[torch.randperm(len(value), generator=attempt.generator)]
        noise = torch.randn(len(value), d, generator=attempt.generator, dtype=torch.float64)
        noise = noise * torch.tensor([0.25] * 4 + [3.0] * 3 + [0.25] * (d - 7), dtype=torch.float64)
        for t in range(period):
            noise[value == t] -= 0.0 if noisy else noise[value == t].mean(0)
        noise *= 0.5 if noisy else 1.0
        turn = 2 * math.pi * (stride * value / period + float(torch.rand(1, generator=attempt.generator)))
        spots = noise
        spots[:, 0] += 2 * turn.cos()
        spots[:, 1] += 2 * turn.sin()
        spots[:, 2] += (2 * turn).cos()
        spots[:, 3] += (2 * turn).sin()
        # far from the origin, in the plane (so that all angles about the origin are much the same) and out of it
        where = 2 * math.pi * float(torch.rand(1, generator=attempt.generator))
        centre = 2 * torch.randn(d, generator=attempt.generator, dtype=torch.float64)
        centre[:2] = 6 * torch.tensor([math.cos(where), math.sin(where)])
        self.centre = centre @ axes
        self.angle = torch.atan2(spots[:, 1], spots[:, 0])
        self.x = ((spots + centre) @ axes).float().to(session.device())
        self.value = value.to(session.device())
        self.rows, self.class_of = self.x.double().cpu(), value
        self.means = torch.stack([self.rows[value == t].mean(0) for t in range(period)])


def _require_names_do_not_matter(attempt: Attempt, data: _Circle) -> None:
    order = torch.randperm(data.period, generator=attempt.generator)
    spans = []
    for value in (data.class_of, order[data.class_of]):
        plane, angle = attempt.pair(attempt(data.x, value.to(data.value.device), data.period), "plane", "angle")
        plane = attempt.tensor(plane, (2, data.x.shape[1]), "the plane")
        axes = torch.linalg.qr(plane.T)[0]
        spans.append(axes @ axes.T)
        first, second = (data.rows - data.means.mean(0)) @ axes[:, 0], (data.rows - data.means.mean(0)) @ axes[:, 1]
        far = first**2 + second**2 > 0.01
        gap = _deviation(attempt.tensor(angle, (len(data.x),), "the angle")[far], torch.atan2(second, first)[far]).abs()
        attempt.require(
            bool((gap < 0.05).all()),
            "the angles of the rows in the plane that is returned (up to one rotation or reflection)",
            f"up to {float(gap.max()):.2f} rad off after the best one",
            "first, second = ((x - centre) @ plane.T).T, then torch.atan2(second, first)",
        )
    gap = float((spans[0] - spans[1]).abs().max())
    if gap >= 4e-3:
        args = (data.x, data.value, data.period)
        chance = _approximate(attempt, args, torch.linalg.svd(spans[0]).Vh[:2])
        attempt.fail(
            "the same plane for the same classes with other numbers",
            f"a projection on the plane that differs by up to {gap:.2g}",
            _APPROXIMATE
            if chance
            else "fitted to the order of the values: take components of the centred class means themselves, not of "
            "differences between neighbours or the like",
        )


def _projector(rows: Tensor) -> Tensor:
    """Onto the first two right singular vectors."""
    first = torch.linalg.svd(rows, full_matrices=False).Vh[:2]
    return first.T @ first


_IS_VH = "torch.linalg.svd returns V transposed already: take its first rows, Vh[:2]"


def _plane(attempt: Attempt, data: _Circle, plane) -> Tensor:
    plane = attempt.tensor(plane, what="the plane")
    d = data.x.shape[1]
    slip = ""
    if tuple(plane.shape) == (d, 2):
        slip = "transposed: the two rows are the axes of the plane"
    elif plane.shape[-1:] == (d,) and plane.numel() == d:
        slip = "a line is not enough: a circle needs two dimensions"
    elif tuple(plane.shape) == (2, data.period):
        slip = _IS_VH
    elif tuple(plane.shape) == data.value.shape:
        slip = "the plane comes first, then the angle"
    attempt.require(tuple(plane.shape) == (2, d), f"a plane of shape [2, {d}]", f"shape {list(plane.shape)}", slip)
    projection = data.plane.T @ data.plane
    gram = plane @ plane.T
    spans = torch.linalg.qr(plane.T)[0]
    rows, means = data.rows, data.means
    each = means[data.class_of]
    t = 2 * math.pi * torch.arange(data.period) / data.period
    first, second = (torch.stack([(k * t).cos(), (k * t).sin()]).double() @ (means - means.mean(0)) for k in (1, 2))
    last = torch.linalg.svd(means - means.mean(0), full_matrices=False).Vh[-2:]
    smallest = "these are the smallest components: the largest come first (svd) or last (eigh)"
    slips = [
        (_projector(rows - rows.mean(0)), "this is where x varies most, with other things: use the class means"),
        (_projector(rows), "this is where x is largest: use the class means, and centre them"),
        (_projector(means), "the class means are not centred: subtract their mean"),
        (_projector(each - each.mean(0)), "every class counts once, however many rows it has: one mean for each"),
        (_projector(each), "every class counts once, and the class means are centred"),
        (_projector(means - rows.mean(0)), "centre the class means with their own mean: classes have unequal sizes"),
        (_projector(first), "fitted to the order of the values: the plane comes from the class means alone"),
        (_projector(second), "this is the plane of twice the angle: one turn in `period` values"),
        (last.T @ last, smallest),
        *((_projector(axes), text) for axes, text in _fitted_axes(data)),
    ]
    # several may be near the answer: the nearest one is told
    slips.sort(key=lambda slip: float((slip[0] - spans @ spans.T).abs().max()))
    single = torch.stack([data.x[data.value == t].mean(0) for t in range(data.period)])
    columns = torch.linalg.svd(single - single.mean(0)).Vh[:, :2].T.double().cpu()
    if torch.allclose(plane, columns, atol=5e-3):
        slips.append((spans @ spans.T, _IS_VH))
    slips += _approximate(attempt, (data.x, data.value, data.period), spans.T)
    within = ((means - means.mean(0)) @ spans).pow(2).sum() / (means - means.mean(0)).pow(2).sum()
    if within < 1e-3:
        slips.append((spans @ spans.T, smallest))
    if not torch.allclose(gram, torch.eye(2, dtype=gram.dtype), atol=2e-3):
        attempt.fail(
            "orthonormal rows, plane @ plane.T = 1",
            f"lengths {_listed(gram.diag().sqrt())}, product {float(gram[0, 1]):.2g}",
            "divide each axis by its length, and make the second perpendicular to the first (torch.linalg.qr or svd)",
        )
    attempt.close(spans @ spans.T, projection, atol=0.03, what="the projection on the plane", slips=slips)
    return plane


def _fitted_axes(data: _Circle) -> Iterator[tuple[Tensor, str]]:
    """Two directions each that come from regressions on the value, or from the spread within the classes."""
    order = "fitted to the order of the values: the plane comes from the class means alone"
    rows, t = data.rows, 2 * math.pi * data.class_of / data.period
    ones = torch.ones(len(rows), 1, dtype=rows.dtype)
    turns = torch.stack([t.cos(), t.sin()], 1).double()
    for x in (rows, rows - rows.mean(0), rows - data.means.mean(0)):
        yield torch.linalg.lstsq(turns, x).solution, order
        yield torch.linalg.lstsq(x, turns).solution.T, order
        yield torch.linalg.lstsq(torch.cat([x, ones], 1), turns).solution[:-1].T, order
    yield torch.linalg.lstsq(torch.cat([turns, ones], 1), rows).solution[:2], order
    inside = rows - data.means[data.class_of]
    each = data.means[data.class_of]
    for between in (data.means - data.means.mean(0), each - each.mean(0)):
        ratio = torch.linalg.solve(inside.T @ inside, between.T @ between)
        value, vector = torch.linalg.eig(ratio)
        told = "these directions also weigh the spread within the classes (as LDA does): the class means alone count"
        yield vector.real[:, value.real.topk(2).indices].T, told


def _deviation(got: Tensor, true: Tensor) -> Tensor:
    """How far angles are from the true ones, after the rotation (and reflection) that fits best; within -pi .. pi."""
    found = []
    for sign in (1, -1):
        gap = got - sign * true
        turn = torch.atan2(gap.sin().mean(), gap.cos().mean())
        found.append(torch.atan2((gap - turn).sin(), (gap - turn).cos()))
    return min(found, key=lambda gap: float(gap.abs().mean()))


def _require_angle(attempt: Attempt, data: _Circle, plane: Tensor, angle) -> None:
    n = len(data.x)
    loose = attempt.tensor(angle, what="the angle")
    if tuple(loose.shape) == (n, 2):
        attempt.fail(f"angles of shape [{n}]", f"shape {[n, 2]}", "these are coordinates: torch.atan2 makes the angle")
    if tuple(loose.shape) == (data.period,):
        attempt.fail(f"angles of shape [{n}]", f"shape {[data.period]}", "an angle for each row, not for each class")
    got = attempt.tensor(angle, (n,), "the angle")
    # Rows near the centre have no sharp angle: noise of 0.25 about a radius of 2 leaves none there. The plane found is
    # exact to float32, so a right angle is within 1e-3 of the planted one; a wrong centre moves it by 0.2 and more.
    worst = _deviation(got, data.angle).abs()
    if bool((worst < 0.05).all()):
        return
    slips = [(wrong.double(), text) for wrong, text in _angle_slips(data, plane)]
    told = next((text for wrong, text in slips if torch.allclose(got, wrong, atol=2e-3, rtol=1e-3)), "")
    if not told:
        told = next((text for wrong, text in slips if _fits(got, wrong)), "")
    if not told and _approximate(attempt, (data.x, data.value, data.period), plane):
        told = _APPROXIMATE
    attempt.fail(
        "angles that differ from the planted ones by one rotation (or reflection) at most",
        f"up to {float(worst.max()):.2f} rad off after the best one",
        told or "first, second = ((x - centre) @ plane.T).T, then torch.atan2(second, first), in radians",
    )


def _fits(got: Tensor, wrong: Tensor) -> bool:
    """Equal up to a rotation, for nearly all rows."""
    return bool(_deviation(got, wrong).abs().quantile(0.95) < 0.01)


def _angle_slips(data: _Circle, plane: Tensor) -> Iterator[tuple[Tensor, str]]:
    centre = data.means.mean(0)

    def seen(rows: Tensor, about: Tensor | float = centre) -> Tensor:
        first, second = ((rows - about) @ plane.T).T
        return torch.atan2(second, first)

    first, second = ((data.rows - centre) @ plane.T).T
    right, each = torch.atan2(second, first), seen(data.means[data.class_of])
    for wrapped in (right, right % (2 * math.pi), torch.atan2(first, second)):
        yield wrapped * 180 / math.pi, "these are degrees: angles in radians, as torch.atan2 gives them"
        yield wrapped / (2 * math.pi), "these are turns: angles in radians, as torch.atan2 gives them"
        yield wrapped * data.period / (2 * math.pi), "these are values of t: the angle itself, in radians"
        yield wrapped / data.period, "the angle itself, not divided by the period"
        yield wrapped * data.period, "the angle itself, not multiplied by the period"
    yield seen(data.rows, 0.0), "the angle is about the origin: subtract the centre first"
    yield seen(data.rows, data.rows.mean(0)), "the centre is the mean of the class means: classes have unequal sizes"
    yield each, "this is the angle of the class mean: give each row its own"
    yield 2 * math.pi * data.class_of / data.period, "this is read from `value`, not from x: give each row's own angle"
    yield torch.atan(second / first), "atan(y / x) knows only half of the circle: use torch.atan2(y, x)"
    yield torch.atan(first / second), "atan(y / x) knows only half of the circle: use torch.atan2(y, x)"
    yield first, "this is a coordinate: torch.atan2 of both makes the angle"
    yield torch.arccos(first / (first**2 + second**2).sqrt()), "arccos knows only half of the circle: use torch.atan2"
