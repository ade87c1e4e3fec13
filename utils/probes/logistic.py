"""Logistic and multinomial probes for whole grids of sites, folds and labels, in one call.

The optimum is scikit-learn's: the penalised log loss

    sum_i s_i log(1 + exp(-t_i (w x_i + b))) + |w|^2 / (2 C),        t_i = 1 or -1,

with an intercept b that is not penalised. What makes a grid cheap is what its probes share. The second derivative of
the loss is at most a quarter of X^T X, whatever the label (Böhning and Lindsay 1988), so one Cholesky factor for each
site preconditions every label there; L-BFGS with an exact line search along each direction then needs about ten
products with X, in float32. The last steps and the certificate are computed in float64; binary probes that are not
done by then (weak penalties, separable classes) go on by Newton's method, one by one.

The certificate: the loss is convex and the penalty's curvature is 1 / C, so a gradient of length g means that the
weights are at most C g away from the optimum.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.probes import base
from utils.probes.base import LinearProbes

_MEMORY = 4  # pairs that L-BFGS keeps
_CHUNK = 2**20  # numbers held by the sites that are solved together: 4 MiB in float32, near a cache's size
_COARSE = 1e-6  # float32 stops where the gradient has fallen to this share of its first length,
_COARSE_STEPS = 30  # or after so many steps: where columns differ much in size, rounding may not let it fall so far
_SHARED_STEPS = 20  # in float64; what is not done then (weak penalties, separable classes) goes on by Newton's method
_FLAT = 0.2  # a line search ends where the slope has fallen to this share of its first value,
_TRIALS = 6  # or after so many points


@dataclass(frozen=True)
class LogisticProbes(LinearProbes):
    """Logistic-regression probes with a certificate of convergence.

    Attributes:
        weight: [*site, *fold, *label, d_model], for raw activations (also after ``standardize=True``).
        bias: [*site, *fold, *label].
        error_bound: upper bound on the distance of the weights from the optimal ones, relative to their length, in the
            coordinates that the penalty sees (standardised ones where so asked). Without a penalty an estimate: the
            length of Newton's step.
        converged: whether the bound is below the tolerance (or the gradient rounding only).
        iterations: the most that any probe of the grid took.
    """

    error_bound: Float[Tensor, "*grid"]
    converged: Bool[Tensor, "*grid"]
    iterations: int

    def log_prob(self, x: Float[Tensor, "*site n d_model"]) -> Float[Tensor, "*grid n 2"]:
        """Log-probability (nats) of 0 and of 1 for every row."""
        logits = self.logits(x)
        return torch.nn.functional.logsigmoid(torch.stack([-logits, logits], dim=-1))


@dataclass(frozen=True)
class MultinomialProbes:
    """Softmax probes for classes 0, 1, 2, ...

    Attributes:
        weight: [*site, *fold, class, d_model], for raw activations.
        bias: [*site, *fold, class].
        error_bound, converged, iterations: as for `LogisticProbes`, [*site, *fold].
    """

    weight: Float[Tensor, "*grid class d_model"]
    bias: Float[Tensor, "*grid class"]
    has_folds: bool
    error_bound: Float[Tensor, "*grid"]
    converged: Bool[Tensor, "*grid"]
    iterations: int

    def log_prob(self, x: Float[Tensor, "*site n d_model"]) -> Float[Tensor, "*grid n class"]:
        """Log-probability (nats) of every class for every row."""
        return base.read_out(self.weight, self.bias, x).mT.log_softmax(-1)

    def predict(self, x: Float[Tensor, "*site n d_model"]) -> Int[Tensor, "*grid n"]:
        """The most probable class of every row."""
        return base.read_out(self.weight, self.bias, x).argmax(-2)

    def accuracy(self, x: Float[Tensor, "*site n d_model"], y: Int[Tensor, " n"], rows: Tensor | None = None) -> Tensor:
        """Share of the rows (Bool [n] or [fold, n]; default all) whose class is right, [*site, *fold]."""
        return base.share(self.predict(x) == base.class_labels(y, x), rows, self.has_folds)


def fit_logistic(
    x: Float[Tensor, "*site n d_model"],
    y: Tensor,
    *,
    C: float = 1.0,
    class_weight: str | None = None,
    sample_weight: Tensor | None = None,
    folds: Bool[Tensor, "fold n"] | None = None,
    standardize: bool = False,
    fit_intercept: bool = True,
    tol: float = 1e-3,
    max_iter: int = 500,
) -> LogisticProbes:
    """One logistic-regression probe for every site, fold and label.

    Args:
        x: activations. More columns than rows, and constant columns, are no harm under a penalty.
        y: [n] or [label, n] of 0 and 1.
        C: inverse strength of the L2 penalty, as in scikit-learn; ``inf`` for none.
        class_weight: "balanced" weighs each class by n / (2 n_class), counted in the rows that are fitted on.
        sample_weight: non-negative weights of the rows, [n] or [label, n].
        folds: the rows that each fold is fitted on. Default: all rows, and no fold axis.
        standardize: subtract the mean and divide by the standard deviation of the fitting rows beforehand (a constant
            column is only centred). The weights that are returned act on raw activations.
        tol: largest `error_bound` allowed.

    Raises:
        ValueError: for NaN, shapes that do not fit, a label with one class only; without a penalty also for classes
            that can be separated (the weights would grow for ever) and for columns that depend on each other.

    Warns:
        RuntimeWarning: when a probe has not converged after `max_iter` iterations; see `converged`.
    """
    flat = base.features(x)
    y = base.binary_labels(y, x)
    has_labels, labels = y.dim() == 2, y.reshape(-1, y.shape[-1])
    weights = _row_weights(sample_weight, labels, x)
    if class_weight not in (None, "balanced"):
        raise ValueError(f"class_weight is {class_weight!r}, expected None or 'balanced'")
    options = _Options(_penalty(C), standardize, fit_intercept, tol, max_iter)
    solutions = []
    for number, rows in enumerate(base.fitting_rows(folds, x)):
        where = "" if folds is None else f" in the fitting rows of fold {number}"
        target = labels[:, rows]
        base.one_class_only(target, where)
        row_weight = None if weights is None else weights[:, rows].mT
        if class_weight == "balanced":
            row_weight = _balance(target).mT * (1 if row_weight is None else row_weight)
        loss = _Logistic(target.mT.float(), row_weight)
        solutions.append(_solve(flat, rows, loss, options, where))
    solution = _joined(solutions, dim=1, stack=True)
    _warn_unless(solution.converged, max_iter)
    grid = base.grid(x, len(solutions) if folds is not None else None, len(labels) if has_labels else None)
    return LogisticProbes(
        weight=solution.weight.reshape(*grid, x.shape[-1]),
        bias=solution.bias.reshape(grid),
        has_folds=folds is not None,
        has_labels=has_labels,
        error_bound=solution.error_bound.reshape(grid),
        converged=solution.converged.reshape(grid),
        iterations=solution.iterations,
    )


def fit_multinomial(
    x: Float[Tensor, "*site n d_model"],
    y: Int[Tensor, " n"],
    *,
    C: float = 1.0,
    n_classes: int | None = None,
    folds: Bool[Tensor, "fold n"] | None = None,
    standardize: bool = False,
    tol: float = 1e-3,
    max_iter: int = 500,
) -> MultinomialProbes:
    """One softmax probe for every site and fold (all classes' weights are penalised, intercepts are not).

    Args:
        y: classes 0, 1, 2, ...
        n_classes: default: the largest class plus one. A class without a fitting row is given probability near zero
            (its bias has no finite optimum), so it is refused.
        C, folds, standardize, tol, max_iter: as in `fit_logistic`; C must be finite.

    Raises:
        ValueError: for NaN, shapes that do not fit, fewer than two classes, a class without a row to fit on.
    """
    flat = base.features(x)
    y = base.class_labels(y, x)
    n_classes = int(y.max()) + 1 if n_classes is None else n_classes
    options = _Options(_penalty(C), standardize, True, tol, max_iter)
    if not options.penalty:
        raise ValueError("C is inf, expected a finite number: without a penalty softmax weights are not unique")
    if n_classes < 2 or int(y.max()) >= n_classes:
        raise ValueError(f"n_classes is {n_classes} and y goes up to {int(y.max())}, expected at least two classes")
    solutions = []
    for number, rows in enumerate(base.fitting_rows(folds, x)):
        where = "" if folds is None else f" in the fitting rows of fold {number}"
        target = torch.nn.functional.one_hot(y[rows], n_classes)
        absent = (target.sum(0) == 0).nonzero()[:, 0].tolist()
        if absent:
            raise ValueError(f"y: class {absent[0]} has no row{where}; fit on rows that hold every class")
        solutions.append(_solve(flat, rows, _Softmax(target), options, where))
    solution = _joined(solutions, dim=1, stack=True)
    _warn_unless(solution.converged, max_iter)
    grid = base.grid(x, len(solutions) if folds is not None else None, None)
    return MultinomialProbes(
        weight=solution.weight.reshape(*grid, n_classes, x.shape[-1]),
        bias=solution.bias.reshape(*grid, n_classes),
        has_folds=folds is not None,
        error_bound=solution.error_bound.reshape(grid),
        converged=solution.converged.reshape(grid),
        iterations=solution.iterations,
    )


def _penalty(C: float) -> float:
    if not C > 0:
        raise ValueError(f"C is {C}, expected a positive number (the inverse strength of the penalty)")
    return 1 / C


def _row_weights(sample_weight: Tensor | None, labels: Tensor, x: Tensor) -> Float[Tensor, "label n"] | None:
    if sample_weight is None:
        return None
    weight = base.aligned(sample_weight, x).float()
    if (weight < 0).any():
        raise ValueError("sample_weight holds negative numbers")
    return weight.expand(labels.shape)


def _balance(y: Bool[Tensor, "label n"]) -> Float[Tensor, "label n"]:
    ones = y.float().mean(-1, keepdim=True)
    return torch.where(y, 0.5 / ones, 0.5 / (1 - ones))


def _warn_unless(converged: Tensor, max_iter: int) -> None:
    if not converged.all():
        late = int((~converged).sum())
        warnings.warn(
            f"{late} of {converged.numel()} probes have not converged after {max_iter} iterations: standardise, "
            "strengthen the penalty (smaller C), or raise max_iter",
            RuntimeWarning,
            stacklevel=3,
        )


# --- Losses ---------------------------------------------------------------------------------------


class _Logistic:
    """Each column of the logits is a problem of its own."""

    curvature = 0.25  # the most that the loss bends in a logit

    def __init__(self, y: Float[Tensor, "n label"], weight: Float[Tensor, "n label"] | None):
        self.y, self.weight = y, weight
        self.columns = y.shape[1]

    def to(self, dtype: torch.dtype) -> _Logistic:
        return _Logistic(self.y.to(dtype), None if self.weight is None else self.weight.to(dtype))

    def residual(self, logits: Float[Tensor, "site n label"]) -> Tensor:
        """Derivative of the loss in each logit."""
        return self._weighed(torch.sigmoid(logits).sub_(self.y))

    def second(self, logits: Float[Tensor, "site n label"]) -> Tensor:
        """Second derivative of the loss in each logit."""
        chance = torch.sigmoid(logits)
        return self._weighed(chance * (1 - chance))

    def _weighed(self, values: Tensor) -> Tensor:
        return values if self.weight is None else values.mul_(self.weight)

    @staticmethod
    def inner(a: Tensor, b: Tensor) -> Float[Tensor, "site 1 label"]:
        return (a * b).sum(1, keepdim=True)

    def separated(self, logits: Float[Tensor, "site n label"]) -> Bool[Tensor, "site label"]:
        """Whether every row lies on its label's side."""
        right = torch.where(self.y > 0, logits > 0, logits < 0)
        return (right if self.weight is None else right | (self.weight == 0)).all(1)


class _Softmax:
    """All columns of the logits, one for each class, are one problem."""

    curvature = 0.5

    def __init__(self, target: Float[Tensor, "n class"]):
        self.target = target
        self.columns = target.shape[1]

    def to(self, dtype: torch.dtype) -> _Softmax:
        return _Softmax(self.target.to(dtype))

    def residual(self, logits: Float[Tensor, "site n class"]) -> Tensor:
        """Derivative of the loss in each logit."""
        return logits.softmax(-1).sub_(self.target)

    @staticmethod
    def inner(a: Tensor, b: Tensor) -> Float[Tensor, "site 1 1"]:
        return (a * b).sum((1, 2), keepdim=True)


# --- Solver ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Options:
    penalty: float  # 1 / C
    standardize: bool
    intercept: bool
    tol: float
    max_iter: int


@dataclass(frozen=True)
class _Solution:
    weight: Float[Tensor, "site column d_model"]
    bias: Float[Tensor, "site column"]
    error_bound: Float[Tensor, "site problem"]
    converged: Bool[Tensor, "site problem"]
    iterations: int


def _solve(flat: Float[Tensor, "site n d_model"], rows: Tensor, loss, options: _Options, where: str) -> _Solution:
    """All sites for one set of rows, in chunks of sites that fit into memory."""
    at_once = max(1, _CHUNK // (len(rows) * (flat.shape[-1] + 8 * loss.columns)))
    everything = len(rows) == flat.shape[1]
    chunks = (sites if everything else sites[:, rows] for sites in flat.split(at_once))
    return _joined([_solve_chunk(x, loss, options, where) for x in chunks], dim=0)


def _solve_chunk(x: Float[Tensor, "site n d_model"], loss, options: _Options, where: str) -> _Solution:
    """Centre and scale the activations, solve, and carry the solution back to raw activations."""
    mean, scale = torch.zeros_like(x[:, :1]), torch.ones_like(x[:, :1])
    if options.intercept or options.standardize:
        mean = x.mean(1, keepdim=True)
        x = x - mean
    if options.standardize:
        scale = base.scale_of(x, mean)
        x = x / scale
    if options.intercept:
        x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    w, error_bound, converged, iterations = _minimise(x, loss, options, where)
    bias = torch.zeros_like(w[:, 0])
    if options.intercept:
        w, bias = w[:, :-1], w[:, -1]
    weight = w.mT / scale
    # Without an intercept of their own, probes on centred activations have the one that centring brings.
    bias = bias - (weight @ mean.to(weight.dtype).mT)[..., 0]
    return _Solution(weight.to(x.dtype), bias.to(x.dtype), error_bound.to(x.dtype), converged, iterations)


def _joined(parts: list[_Solution], dim: int, stack: bool = False) -> _Solution:
    join = torch.stack if stack else torch.cat
    names = ("weight", "bias", "error_bound", "converged")
    columns = {name: join([getattr(part, name) for part in parts], dim) for name in names}
    return _Solution(**columns, iterations=max(part.iterations for part in parts))


def _minimise(x: Float[Tensor, "site n d"], loss, options: _Options, where: str) -> tuple:
    """Weights [site, d, column], error bound and verdict [site, problem], iterations; `x` has its column of ones."""
    penalty = torch.full((x.shape[-1], 1), options.penalty, device=x.device, dtype=torch.float64)
    if options.intercept:
        penalty[-1] = 0
    precondition = _inverse_of_bound(x, loss, penalty, where)
    d_model = x.shape[-1] - options.intercept
    start = torch.zeros(len(x), x.shape[-1], loss.columns, device=x.device)
    coarse = _Problem(x.float(), loss.to(torch.float32), penalty.float(), precondition.float(), d_model)
    few = min(_COARSE_STEPS, options.max_iter)
    coarsely = coarse.descend(start, lambda here: here.slope <= _COARSE * here.first_slope, few)

    fine = _Problem(x.double(), loss.to(torch.float64), penalty, precondition, d_model)
    rounding = 1e-12 * x.shape[1] * float(x.abs().max())

    def done(here: _Point) -> Tensor:
        if not options.penalty:
            _refuse_separated(loss, here.logits, where)
            return here.slope <= 100 * rounding
        return (here.slope <= options.tol * options.penalty * fine.length(here.w)) | (here.slope <= rounding)

    shared = options.max_iter - coarsely.steps
    if isinstance(loss, _Logistic):
        shared = min(shared, _SHARED_STEPS)
    end = fine.descend(coarsely.w.double(), done, shared)
    steps = coarsely.steps + end.steps
    if isinstance(loss, _Logistic) and steps < options.max_iter and not done(end).all():
        end = fine.descend(end.w, done, options.max_iter - steps, exact=True)
        steps += end.steps
    if options.penalty:
        distance = end.slope / options.penalty
    else:
        distance = fine.length(fine.newton(end, torch.ones_like(end.slope, dtype=torch.bool)))
    bound = torch.where(distance == 0, 0.0, distance / fine.length(end.w))
    converged = done(end) if options.penalty else bound <= options.tol
    return end.w, bound.flatten(1), converged.flatten(1), steps


def _inverse_of_bound(x: Tensor, loss, penalty: Tensor, where: str) -> Float[Tensor, "site d d"]:
    """Inverse of ``curvature * x^T x + penalty``, which the second derivative nowhere exceeds."""
    bound = loss.curvature * (x.mT @ x).double()
    largest = bound.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
    unit = torch.eye(x.shape[-1], device=x.device, dtype=torch.float64)
    if not penalty.any() and torch.linalg.cond(bound).max() > 1e10:
        raise ValueError(
            f"x: columns depend on each other{where} (constant or repeated ones, or fewer rows than columns), so "
            "without a penalty there is no single optimum: set a finite C"
        )
    # The product was taken in x's precision: a little more on the diagonal keeps it positive definite.
    factor = torch.linalg.cholesky(bound + penalty * unit + 1e-6 * largest * unit)
    return torch.cholesky_inverse(factor)


def _refuse_separated(loss, logits: Tensor, where: str) -> None:
    separated = loss.separated(logits).any(0).nonzero()[:, 0].tolist()
    if separated:
        raise ValueError(
            f"y: a hyperplane separates the classes of label {separated[0]}{where}, so without a penalty the weights "
            "grow for ever: set a finite C"
        )


class _Point(NamedTuple):
    """Where the solver stands: weights, logits, gradient, its length there and at the start, steps taken."""

    w: Float[Tensor, "site d column"]
    logits: Float[Tensor, "site n column"]
    gradient: Float[Tensor, "site d column"]
    slope: Float[Tensor, "site 1 problem"]
    first_slope: Float[Tensor, "site 1 problem"]
    steps: int


@dataclass(frozen=True)
class _Problem:
    """Penalised losses at several sites, in one precision."""

    x: Float[Tensor, "site n d"]
    loss: _Logistic | _Softmax
    penalty: Float[Tensor, "d 1"]
    precondition: Float[Tensor, "site d d"]
    d_model: int  # d, or d - 1 where the last column is the intercept's

    def gradient(self, w: Tensor, residual: Tensor) -> Float[Tensor, "site d column"]:
        return self.x.mT @ residual + self.penalty * w

    def length(self, w: Tensor) -> Float[Tensor, "site 1 problem"]:
        """Length of the weights, without the intercept."""
        weights = w[:, : self.d_model]
        return self.loss.inner(weights, weights).sqrt()

    def descend(self, w: Tensor, done: Callable[[_Point], Tensor], max_iter: int, exact: bool = False) -> _Point:
        """All problems in step until each is done: preconditioned L-BFGS (Liu and Nocedal 1989), or Newton's method."""
        logits = self.x @ w
        gradient = self.gradient(w, self.loss.residual(logits))
        pairs: list[tuple[Tensor, Tensor]] = []
        for step in range(max_iter + 1):
            slope = self.loss.inner(gradient, gradient).sqrt()
            first_slope = slope if step == 0 else first_slope
            here = _Point(w, logits, gradient, slope, first_slope, step)
            finished = done(here)
            if finished.all() or step == max_iter:
                return here
            direction = -self.newton(here, ~finished) if exact else -self._newton_like(gradient, pairs) * ~finished
            along = self.x @ direction
            size, residual = self._line_search(w, gradient, direction, logits, along)
            move = size * direction
            new_gradient = self.gradient(w + move, residual)
            pairs = [*pairs, (move, new_gradient - gradient)][-_MEMORY:]
            w, logits, gradient = w + move, torch.addcmul(logits, size, along), new_gradient

    def newton(self, here: _Point, wanted: Bool[Tensor, "site 1 label"]) -> Float[Tensor, "site d label"]:
        """The inverse second derivative times the gradient, for logistic losses; 0 for problems that are not wanted.

        One system for each problem: used for the few that the shared preconditioner does not serve.
        """
        steps, unit = torch.zeros_like(here.gradient), torch.eye(self.x.shape[-1], device=self.x.device)
        bends = self.loss.second(here.logits)
        for site, _, label in wanted.nonzero().tolist():
            second = (self.x[site].mT * bends[site, :, label]) @ self.x[site] + self.penalty * unit
            step, singular = torch.linalg.solve_ex(second, here.gradient[site, :, label])
            steps[site, :, label] = math.inf if singular else step
        return steps

    def _newton_like(self, gradient: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The two-loop recursion: an approximate inverse of the second derivative, times the gradient."""
        inner = self.loss.inner
        # A pair without curvature is one of rounding, or of a problem that is done: it counts for nothing.
        curvatures = [inner(move, change) for move, change in pairs]
        floor = torch.finfo(gradient.dtype).tiny ** 0.5
        weights = [torch.where(bend > floor, 1 / bend.clamp_min(floor), 0.0) for bend in curvatures]
        shares = []
        for (move, change), weight in zip(reversed(pairs), reversed(weights), strict=True):
            shares.append(weight * inner(move, gradient))
            gradient = gradient - shares[-1] * change
        step = self.precondition @ gradient
        for (move, change), weight, share in zip(pairs, weights, reversed(shares), strict=True):
            step = step + (share - weight * inner(change, step)) * move
        return step

    def _line_search(self, w, gradient, direction, logits, along) -> tuple[Tensor, Tensor]:
        """Step sizes where the slope has nearly vanished, and the residuals there. No product with x is needed.

        The loss along a line is convex, so its slope rises: secants between a falling and a rising point stay between.
        """
        inner = self.loss.inner
        bend, lean = inner(self.penalty * direction, direction), inner(self.penalty * w, direction)
        slope = inner(gradient, direction)
        tiny = torch.finfo(slope.dtype).tiny
        low, low_slope = torch.zeros_like(slope), slope
        high, high_slope = torch.full_like(slope, math.inf), torch.full_like(slope, math.nan)
        size = torch.ones_like(slope)
        for trial in range(_TRIALS):
            residual = self.loss.residual(torch.addcmul(logits, size, along))
            here = inner(residual, along) + lean + size * bend
            if trial == _TRIALS - 1 or (here.abs() <= _FLAT * slope.abs()).all():
                break
            rising = here > 0
            high, high_slope = torch.where(rising, size, high), torch.where(rising, here, high_slope)
            low, low_slope = torch.where(rising, low, size), torch.where(rising, low_slope, here)
            between = low + (high - low) * low_slope / (low_slope - high_slope).clamp_max(-tiny)
            # No rising point yet: follow the secant from the start, at most four times as far.
            beyond = (size * slope / (slope - here).clamp_max(-tiny)).clamp(1.5 * size, 4 * size)
            proposed = torch.where(torch.isfinite(high), between, beyond)
            size = torch.where(here.abs() <= _FLAT * slope.abs(), size, proposed)
        return size, residual
