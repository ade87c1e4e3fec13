"""Checks of chapter 01. Their truths: scikit-learn, closed forms, planted data, and invariants of random draws."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from utils import probes, session
from utils.checks.core import Attempt, exercise, hint, prediction, shipped_model, small_model
from utils.datasets import world

__all__ = ["hint", "prediction"]


# --------------------------------------------------------------------------------- shared inputs


def _seed(attempt: Attempt) -> int:
    return int(attempt.randint(0, 10_000, 1))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _last_words(attempt: Attempt, n: int) -> tuple[Tensor, Tensor]:
    """`world`'s stream at the last word of n sentences, standardised [layer n d_model]; the subject's number [n]."""
    model = shipped_model()
    drawn = world.sentences("agreement", n // 2, seed=_seed(attempt), template="pp/0")
    drawn = [*drawn, *(sentence.corrupted for sentence in drawn)]
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers))]
    _, cache = model.run_with_cache([s.prompt for s in drawn], names_filter=names)
    x = torch.stack([cache[name][:, -1] for name in names]).double()
    y = torch.tensor([int(s.labels["number"] == "plural") for s in drawn], device=x.device)
    return ((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)).float(), y


# -------------------------------------------------------------------------------------- exercises


@exercise(
    "1.1",
    hints=(
        "Put a column of ones behind x: then theta = (w, b) is one vector and f = x_tilde @ theta. Use float64 inside.",
        "x_tilde = torch.cat([x, ones], 1); penalty = [1/C, ..., 1/C, 0]; theta = zeros; 20 times: p = ..., g = ... "
        "(with penalty * theta), H = ... (with penalty.diag()), theta = theta - ...; return theta[:-1], theta[-1].",
        "p = (x_tilde @ theta).sigmoid(); g = x_tilde.T @ (p - y) + penalty * theta; "
        "H = (x_tilde.T * (p * (1 - p))) @ x_tilde + penalty.diag(); theta = theta - torch.linalg.solve(H, g).",
    ),
)
def fit_probe(attempt: Attempt) -> None:
    """Truth: scikit-learn's LogisticRegression, converged to 1e-10."""
    attempt.on_error["same dtype"] = "y holds whole numbers: bring it to x's dtype before you multiply (y.to(x.dtype))"
    attempt.on_error["singular"] = (
        "the Hessian has no inverse: p (1 - p) has gone to 0 or the penalty is missing; start from theta = 0, "
        "and put y as 0 and 1 (not -1 and 1) into g"
    )
    x, y = _overlapping(attempt, 150, 5)
    cases = [("equals scikit-learn, C = 1", x, y, 1.0)]
    x, y = _overlapping(attempt, 80, 3)
    cases.append(("equals scikit-learn, C = 0.02", x, y, 0.02))
    stream, number = _last_words(attempt, 80)
    cases.append(("equals scikit-learn on `world`'s stream, C = 0.1", stream[2], number, 0.1))
    names = ("w", "b")
    for name, x, y, C in cases:
        w, b = _logistic(x, y, C=C)
        tolerance = {"atol": 1e-3 * float(w.abs().max()), "rtol": 1e-3}
        with attempt.holds(name):
            build = "here you build it: Newton's method, or an optimiser of your choice"
            with (
                attempt.without(LogisticRegression, "fit", build, "scikit-learn's LogisticRegression.fit"),
                attempt.without(probes, "fit_logistic", build, "probes.fit_logistic"),
            ):
                got_w, got_b = attempt.pair(attempt(x, y, C), *names)
            slips = _logistic_slips(x, y, C)
            loose = attempt.tensor(got_w, what="w")
            if loose.dim() == 1:
                slips = [*slips, (loose, _not_optimal(attempt, loose, w))]
            attempt.close(got_w, w, what="w", slips=[(wrong, text) for wrong, text in slips], **tolerance)
            slips_b = [
                (-b, "the sign of b is turned round"),
                (0.0, "the intercept stayed 0: its gradient is the last entry of g"),
                (b + float(w @ x.cpu().double().mean(0)), "x was centred, and the intercept belongs to the centred x"),
            ]
            attempt.close(attempt.number(got_b, what="b"), b, what="b", atol=2e-3, rtol=2e-3, slips=slips_b)


def _overlapping(attempt: Attempt, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Features of unequal scale and non-zero mean, labels drawn from a logistic model: classes overlap."""
    scale = 0.5 + torch.rand(d, generator=attempt.generator).to(session.device())
    x = attempt.randn(n, d) * scale + 0.7
    chance = (x @ (1.5 * torch.sign(attempt.randn(d)) / d**0.5) - 0.8).sigmoid()
    y = (torch.rand(n, generator=attempt.generator).to(x.device) < chance).long()
    y[:2] = torch.tensor([0, 1], device=y.device)
    return x, y


def _logistic(x: Tensor, y: Tensor, C: float, intercept: bool = True, **options) -> tuple[Tensor, Tensor]:
    exact = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 500}
    found = LogisticRegression(C=C, fit_intercept=intercept, **exact, **options)
    found.fit(_array(x), y.cpu().numpy())
    return torch.tensor(found.coef_[0]), torch.tensor(float(np.ravel(found.intercept_)[0]))


def _logistic_slips(x: Tensor, y: Tensor, C: float) -> list[tuple[Tensor, str]]:
    n = len(x)
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    first_free = torch.cat([1e4 * ones[:, :1], ones[:, 1:]], 1)  # a column that large goes without a penalty
    right, _ = _logistic(x, y, C)
    std = [x.std(0, unbiased=unbiased) for unbiased in (False, True)]
    rescaled = [_logistic((x - x.mean(0)) / each, y, C)[0] for each in std]
    mapped_back = [w / each.cpu().double() for w, each in zip(rescaled, std, strict=True)]
    centred, target = _array(x - x.mean(0)), _array(2.0 * y - 1)
    ridge = [Ridge(alpha=strength).fit(centred, target).coef_ for strength in (1 / C, 0.5 / C)]
    return [
        (_logistic(x, y, 1 / C)[0], "C is the inverse of the penalty's strength: |w|^2 / (2 C), not C |w|^2 / 2"),
        (_logistic(x, y, C / n)[0], "the loss is a sum over the rows, not their mean (so is its gradient)"),
        (_logistic(x, y, C / 2)[0], "the penalty is |w|^2 / (2 C): its gradient is w / C, not 2 w / C"),
        (_logistic(x, y, 2 * C)[0], "the penalty is |w|^2 / (2 C): its gradient is w / C"),
        (_logistic(x, y, 1e7)[0], "the penalty is missing"),
        (_logistic(x, y, C, intercept=False)[0], "the intercept is missing: put a column of ones behind x"),
        (
            _logistic(ones, y, C, intercept=False)[0][:-1],
            "the intercept is penalised too: its entry in the penalty is 0",
        ),
        (-right, "the sign is turned round: f > 0 stands for y = 1"),
        *((w, "x was standardised: use it as it is") for w in (*rescaled, *mapped_back)),
        (_logistic(x, y, 1.0)[0], "C is not used: the penalty is |w|^2 / (2 C)"),
        (_logistic(x[:-1], y[:-1], C)[0], "the last row is left out"),
        (_logistic(x, y, C, class_weight="balanced")[0], "every row weighs the same: no weights for the classes"),
        (
            _logistic(first_free, y, C, intercept=False)[0][:-1] * torch.tensor([1e4, *[1.0] * (x.shape[1] - 1)]),
            "the 0 in the penalty belongs to the intercept, where the column of ones stands",
        ),
        *((torch.tensor(w), "this is the least-squares fit (ridge): the loss is logistic") for w in ridge),
        (right / right.norm(), "w was normalised: leave its length as it is"),
    ]


def _not_optimal(attempt: Attempt, got: Tensor, want: Tensor) -> str:
    """What to say of weights that fit no known slip."""
    if got.shape == want.shape and torch.cosine_similarity(got, want, dim=0) > 0.8:
        return (
            "about the right direction, but not the minimum of L: either it needs more steps (Newton's method needs "
            "few), or it is the minimum of another loss"
        )
    return "this is not the minimum of L: compare your gradient with the formula, term by term"


@exercise(
    "1.2",
    hints=(
        "Centre first: x - x.mean(1, keepdim=True), the mean over the rows of each site. centred.mT @ centred is "
        "[site d d] for all sites at once.",
        "mean = ...; centred = ...; gram = centred.mT @ centred + ...; weight = torch.linalg.solve(gram, ...); "
        "return weight, y.mean() - ...",
        "gram = centred.mT @ centred + alpha * torch.eye(d); "
        "weight = torch.linalg.solve(gram, centred.mT @ (y - y.mean())); "
        "bias = y.mean() - (weight * x.mean(1)).sum(-1).",
    ),
)
def ridge_probes(attempt: Attempt) -> None:
    """Truth: scikit-learn's Ridge, one site at a time."""
    x = attempt.randn(3, 40, 6) + 2 * attempt.randn(3, 1, 6)
    y = attempt.randn(40) + 1.5
    same = x[:2].clone()
    same[1] = x[1, :1]
    few = attempt.randn(2, 8, 12) + 1
    stream, number = _last_words(attempt, 80)
    cases = [
        ("equals scikit-learn at every site", x, y, 3.0),
        ("also where a site is the same in every text", same, y, 3.0),
        ("equals scikit-learn with more columns than rows", few, torch.sign(attempt.randn(8)), 0.3),
        ("equals scikit-learn on `world`'s stream", stream, 2.0 * number - 1, 10.0),
    ]
    for name, x, y, alpha in cases:
        fits = [Ridge(alpha=alpha).fit(_array(site), _array(y)) for site in x]
        weight = torch.tensor(np.stack([fit.coef_ for fit in fits]))
        bias = torch.tensor([float(fit.intercept_) for fit in fits])
        with attempt.holds(name):
            build = "here you build it: the formula above, with torch.linalg.solve"
            with (
                attempt.without(Ridge, "fit", build, "scikit-learn's Ridge.fit"),
                attempt.without(probes, "fit_ridge", build, "probes.fit_ridge"),
            ):
                got_weight, got_bias = attempt.pair(attempt(x, y, alpha), "weight", "bias")
            tolerance = {"atol": 2e-3 * float(weight.abs().max()), "rtol": 2e-3}
            attempt.close(got_weight, weight, what="the weight", slips=_ridge_slips(x, y, alpha), **tolerance)
            mean = x.mean(1).cpu().double()
            slips = [
                (torch.zeros_like(bias), "the intercept is missing: mean of y minus w times mean of x"),
                (
                    torch.full_like(bias, float(y.mean())),
                    "the intercept is mean(y) - w . mean(x): subtract w . mean(x)",
                ),
                (
                    float(y.mean()) + (weight * mean).sum(-1),
                    "the sign of w . mean(x) is turned round: it is subtracted",
                ),
                (-(weight * mean).sum(-1), "the intercept is mean(y) - w . mean(x): the mean of y is missing"),
                (-bias, "the sign of the intercept is turned round"),
            ]
            attempt.close(got_bias, bias, what="the bias", atol=5e-3, rtol=5e-3, slips=slips)


def _ridge_slips(x: Tensor, y: Tensor, alpha: float) -> list[tuple[Tensor, str]]:
    x, y = x.cpu().double(), y.cpu().double()
    n, d = x.shape[1:]
    eye = torch.eye(d, dtype=x.dtype)
    centred, target = x - x.mean(1, keepdim=True), y - y.mean()

    def solved(a: Tensor, b: Tensor, strength: float) -> Tensor:
        return (torch.linalg.pinv(a.mT @ a + strength * eye, hermitian=True) @ (a.mT @ b[:, None]))[..., 0]

    ones = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    wide = torch.linalg.solve(ones.mT @ ones + alpha * torch.eye(d + 1, dtype=x.dtype), (ones.mT @ y[:, None]))[..., 0]
    right = solved(centred, target, alpha)
    std = centred.pow(2).mean(1, keepdim=True).sqrt().clamp_min(1e-9)
    overall = x - x.mean((0, 1))
    return [
        (solved(x, y, alpha), "x is not centred: subtract the mean over the rows (that is what frees the intercept)"),
        (solved(x, target, alpha), "x is not centred: subtract the mean over the rows of each site"),
        (wide[..., :-1], "the intercept is penalised too: centre x and y instead of adding a column of ones"),
        (solved(centred, target, 0.0), "alpha is missing: add alpha * torch.eye(d) to the matrix"),
        (solved(centred, target, alpha * n), "alpha is added to a sum over the rows: do not multiply it by n"),
        (solved(centred, target, alpha / n), "alpha is added to a sum over the rows: do not divide by n"),
        (solved(centred, target, 1.0), "alpha was 1, whatever was given"),
        (solved(centred, target, 1 / alpha), "alpha grows with the penalty: do not invert it"),
        (solved(centred, target, alpha**2), "alpha is not squared"),
        (solved(centred, target, alpha / 2), "there is no factor of 1/2 in this objective"),
        (solved(centred, target, 2 * alpha), "there is no factor of 2 at the penalty in the solution"),
        (solved(overall, target, alpha), "every site has a mean of its own: x.mean(1, keepdim=True)"),
        (right[:1].expand_as(right), "all sites got the weights of the first one"),
        (solved(centred / std, target, alpha), "x was standardised: only centre it"),
        (-right, "the sign is turned round"),
        (right.mT, "the axes are [site d]"),
    ]


@exercise(
    "1.3",
    hints=(
        "Deal groups, not rows: names, index = groups.unique(return_inverse=True) gives each row its group's number.",
        "order = torch.randperm(len(names), generator=...); the part of each group: order % n_folds; the part of each "
        "row: ...; return (part != ...), one row for each fold.",
        "part = (order % n_folds)[index]; return part != torch.arange(n_folds)[:, None]",
    ),
)
def group_folds(attempt: Attempt) -> None:
    """Truth: invariants of a random partition into groups."""
    cases = [("11 groups in 4 folds", 11, 4), ("9 groups in 4 folds", 9, 4), ("as many folds as groups", 5, 5)]
    for name, n_groups, n_folds in cases:
        groups = _groups(attempt, n_groups)
        with attempt.holds(f"{name}: each row is held out once"):
            got = _folds(attempt, groups, n_folds, _seed(attempt))
            _require_partition(attempt, got)
        with attempt.holds(f"{name}: no group on both sides"):
            _require_whole_groups(attempt, got, groups.cpu())
        with attempt.holds(f"{name}: equal numbers of groups held out"):
            _require_equal_parts(attempt, got, groups.cpu())
    groups = _groups(attempt, 23)
    with attempt.holds("the seed decides"):
        _require_seeded(attempt, lambda seed: _folds(attempt, groups, 4, seed))
    with attempt.holds("the groups in random order"):
        _require_random_parts(attempt, _groups(attempt, 11), 4)


def _folds(attempt: Attempt, groups: Tensor, n_folds: int, seed: int) -> Tensor:
    """The answer's folds as float64 [fold n]; they must have been boolean."""
    value = attempt(groups, n_folds, seed)
    got = attempt.tensor(value, (n_folds, len(groups)), "the folds [fold n]")
    attempt.require(
        bool(((got == 0) | (got == 1)).all()),
        "True or False in each place",
        f"values such as {got.flatten()[:3].tolist()}",
        "one row of the result for each fold: compare the row's part with torch.arange(n_folds)[:, None]",
    )
    kind = str(value[0].dtype if isinstance(value[0], Tensor) else np.asarray(value[0]).dtype).removeprefix("torch.")
    attempt.require(
        "int" not in kind,
        "a boolean tensor (x[fold] would take whole numbers for row numbers)",
        f"values of type {kind}",
        "leave the result of the comparison as it is, or add .bool()",
    )
    return got


def _groups(attempt: Attempt, n_groups: int) -> Tensor:
    """Group numbers of rows: any whole numbers, in mixed order; one group is larger than all others together."""
    names = torch.randperm(1000, generator=attempt.generator)[:n_groups] - 300
    sizes = torch.randint(1, 5, (n_groups,), generator=attempt.generator)
    sizes[:2] = torch.tensor([1, 5 * n_groups])
    rows = names.repeat_interleave(sizes)
    return rows[torch.randperm(len(rows), generator=attempt.generator)].to(session.device())


def _require_partition(attempt: Attempt, got: Tensor) -> None:
    held_out = (1 - got).sum(0)
    turned_round = len(got) > 2 and bool((got.sum(0) == 1).all())
    slip = "every row must be held out by exactly one fold"
    if turned_round:
        slip = "turned round: True stands for the rows a fold *fits* on, False for those it holds out"
    elif held_out.min() == 0 and held_out.max() > 1:
        slip = "some rows are held out twice and others never: draw one order for all folds, and cut it into parts"
    elif held_out.min() == 0:
        slip = "some rows are never held out: all groups must be dealt, also what is left over"
    attempt.require(
        bool((held_out == 1).all()),
        "every row held out (False) in exactly one fold",
        f"rows held out between {int(held_out.min())} and {int(held_out.max())} times",
        slip,
    )


def _require_whole_groups(attempt: Attempt, got: Tensor, groups: Tensor) -> None:
    for fold, row in enumerate(got.bool()):
        both = sorted(set(groups[row].tolist()) & set(groups[~row].tolist()))
        attempt.require(
            not both,
            "each group wholly fitted on or wholly held out",
            f"in fold {fold} group {both[0]} is on both sides" if both else "",
            "rows were dealt, not groups: give each *group* a part, then each row the part of its group",
        )


def _require_equal_parts(attempt: Attempt, got: Tensor, groups: Tensor) -> None:
    counts = [len(groups[~row].unique()) for row in got.bool()]
    slip = (
        "parts of unequal size, counted in groups: number the groups 0, 1, 2, ... (unique), permute these numbers and "
        "deal them round, order % n_folds"
    )
    if len(set(counts[:-1])) == 1 and counts[-1] > counts[0] + 1:
        slip = "what is left over all went into the last part: deal the groups round, order % n_folds"
    attempt.require(
        max(counts) - min(counts) <= 1, "numbers of held-out groups that differ by at most one", f"{counts}", slip
    )


def _require_random_parts(attempt: Attempt, groups: Tensor, n_folds: int, n_draws: int = 200) -> None:
    """Over many seeds, any two groups are held out together about as often as any other two."""
    names, index = groups.cpu().unique(return_inverse=True)
    together = torch.zeros(len(names), len(names), dtype=torch.float64)
    for seed in range(n_draws):
        got = _folds(attempt, groups, n_folds, seed)
        _require_equal_parts(attempt, got, groups.cpu())
        held_out = torch.zeros(n_folds, len(names), dtype=torch.float64)
        held_out[:, index] = 1 - got
        together += held_out.T @ held_out
    pairs = together[torch.ones_like(together).triu(1).bool()]
    chance = pairs.mean() / n_draws
    near = 5 * (n_draws * chance * (1 - chance)).sqrt()
    attempt.require(
        bool(((pairs - n_draws * chance).abs() < near).all()),
        f"any two groups held out together in about {n_draws * float(chance):.0f} of {n_draws} draws",
        f"two groups that are together {int(pairs.min())} times, and two that are {int(pairs.max())} times",
        "the order must be random: permute *all* groups (torch.randperm with the seeded generator) before dealing",
    )


def _require_seeded(
    attempt: Attempt, run, slip: str = "the result must depend on the seed: draw from Generator().manual_seed(seed)"
) -> None:
    """``run(seed)`` must give the same result for the same seed and, among five seeds, not always the same."""
    first = run(3)
    again = run(3)
    attempt.require(
        first.shape == again.shape and torch.equal(first, again),
        "the same result for the same seed",
        "two calls with seed 3 that differ",
        "draw from torch.Generator().manual_seed(seed), not from the global generator",
    )
    others = [run(seed) for seed in (4, 5, 6, 7)]
    attempt.require(
        any(other.shape != first.shape or not torch.equal(first, other) for other in others),
        "another result for another seed",
        "the same for five seeds",
        slip,
    )


@exercise(
    "1.4",
    hints=(
        "names, index = types.unique(return_inverse=True): one draw for each of names, then [index] brings it to the "
        "rows.",
        "A label with the probability that it has among the rows is that of a row drawn at random: "
        "rows = torch.randint(..., (len(names),), generator=...); return y[...][index]",
        "rows = torch.randint(len(y), (len(names),), generator=torch.Generator().manual_seed(seed)); "
        "return y[rows][index]",
    ),
)
def control_labels(attempt: Attempt) -> None:
    """Truth: the planted frequencies, and invariants of a draw per type."""
    types, y, real = _typed_rows(attempt)
    n = len(types)
    with attempt.holds("one label for each type"):
        got = attempt.tensor(attempt(types, y, _seed(attempt)), (n,), "the control labels [n]")
        of_type = _label_of_type(attempt, got, types.cpu())
    with attempt.holds("labels are those of y"):
        known = set(y.tolist())
        strange = sorted(set(got.tolist()) - known)
        attempt.require(
            not strange,
            f"labels among {sorted(known)}",
            f"also {strange[:3]}" if strange else "",
            "these are numbers of labels: return the labels themselves, as they stand in y",
        )
    with attempt.holds("as frequent as among the rows, whatever the real label"):
        attempt.require(
            not torch.equal(got, y.cpu().double()),
            "random labels",
            "the real labels",
            "a control label must not depend on the real one: draw it",
        )
        _require_frequencies(attempt, of_type, real, y.cpu())
    with attempt.holds("the types' draws are independent"):
        _require_independent(attempt, of_type, y.cpu())
    with attempt.holds("also where the rows are sorted"):
        rows = types.argsort()
        got = attempt.tensor(attempt(types[rows], y[rows], 0), (n,), "the control labels [n]")
        _require_frequencies(attempt, _label_of_type(attempt, got, types[rows].cpu()), real, y.cpu())
    with attempt.holds("the seed decides"):
        _require_seeded(attempt, lambda seed: attempt.tensor(attempt(types, y, seed), (n,)))
        draws = [attempt.tensor(attempt(types, y, seed), (n,)) for seed in range(4)]
        attempt.require(
            not any(torch.equal(one, other) for one, other in combinations(draws, 2)),
            "another result for another seed",
            "the same for two of the seeds 0 to 3",
            "hand the seed itself to the generator",
        )


def _typed_rows(attempt: Attempt) -> tuple[Tensor, Tensor, Tensor]:
    """Types and labels of rows, and the label of each type in order; most types are rare and have the last label.

    So the labels' distribution over rows is another than that over types. Half of the types are negative numbers.
    """
    n_types = 3000
    labels = torch.tensor([-2, 9, 17])
    chance = torch.rand(n_types, generator=attempt.generator).sort().values
    real = labels[(chance > 0.3).long() + (chance > 0.5).long()]
    count = torch.where(real == -2, 7, torch.where(real == 9, 3, 1))
    numbers = torch.arange(n_types).repeat_interleave(count)
    numbers = numbers[torch.randperm(len(numbers), generator=attempt.generator)]
    return (numbers - n_types // 2).to(session.device()), real[numbers].to(session.device()), real


def _label_of_type(attempt: Attempt, got: Tensor, types: Tensor) -> Tensor:
    """The one label that each type has, in the order of the types."""
    names, index = types.unique(return_inverse=True)
    low = torch.full((len(names),), torch.inf, dtype=torch.float64).scatter_reduce(0, index, got, "amin")
    high = torch.full((len(names),), -torch.inf, dtype=torch.float64).scatter_reduce(0, index, got, "amax")
    mixed = (low != high).nonzero()
    attempt.require(
        not len(mixed),
        "the same label in all rows of a type",
        f"type {int(names[mixed[0]])} has several ({len(mixed)} types do)" if len(mixed) else "",
        "one draw for each *type*, not for each row: draw for types.unique(), then index",
    )
    return low


def _require_frequencies(attempt: Attempt, of_type: Tensor, real: Tensor, y: Tensor) -> None:
    labels = y.unique()
    one_each = all(len(of_type[real == label].unique()) == 1 for label in labels)
    attempt.require(
        not one_each,
        "types of one real label with several control labels",
        "one control label for each real one",
        "a control label must not depend on the real one: draw for each type by itself",
    )
    over_rows = torch.stack([(y == label).double().mean() for label in labels])
    over_types = torch.stack([(real == label).double().mean() for label in labels])
    parts = [(real > -1, "all types"), *((real == a, f"types whose real label is {int(a)}") for a in labels)]
    for part, shown in parts:
        n = int(part.sum())
        share = torch.stack([(of_type[part] == label).double().mean() for label in labels])
        near = 5 * (over_rows * (1 - over_rows) / n).sqrt() + 1e-9
        if ((share - over_rows).abs() < near).all():
            continue
        slip = "draw each type's label by itself, from the labels' shares among the rows of y"
        if (share - 1 / len(labels)).abs().max() < 0.05:
            slip = "all labels were equally likely: give each its share among the rows of y (y[randint] does)"
        elif (share - over_types).abs().max() < 0.05:
            slip = "these are the labels' shares among the types: take those among the rows of y"
        attempt.fail(
            f"labels {labels.tolist()} with shares near {[round(float(p), 2) for p in over_rows]} among {shown}",
            f"{[round(float(p), 2) for p in share]}",
            slip,
        )


def _require_independent(attempt: Attempt, of_type: Tensor, y: Tensor) -> None:
    """Neighbouring types, and types half of the list apart (-1 as an index is the last), agree as chance has it."""
    chance = sum((y == label).double().mean() ** 2 for label in y.unique())
    n = len(of_type)
    for shift, slip in [
        (1, "neighbouring types share a draw: draw for each type by itself"),
        (n // 2, "types are any whole numbers, also negative: number them first, types.unique(return_inverse=True)"),
    ]:
        agree = (of_type[shift:] == of_type[:-shift]).double().mean()
        attempt.require(
            bool((agree - chance).abs() < 5 * (chance * (1 - chance) / (n - shift)).sqrt()),
            f"types {shift} apart with the same label in a share of {float(chance):.2f}, as chance has it",
            f"{float(agree):.2f}",
            slip,
        )


@exercise(
    "1.5",
    hints=(
        "Two means first: x[y == 0].mean(0) and x[y == 1].mean(0). The plain direction is their difference, 1 minus 0.",
        "means = torch.stack([m0, m1]); w = ...; if whiten: residual = x - means[y.long()]; Sigma = ...; "
        "w = torch.linalg.pinv(Sigma, hermitian=True) @ ...; return w, -w @ ...",
        "S = residual.T @ residual / len(x); w = torch.linalg.pinv(S, hermitian=True) @ (m1 - m0); "
        "b = -w @ (m0 + m1) / 2.",
    ),
)
def mass_mean(attempt: Attempt) -> None:
    """Truth: class means and a pseudo-inverse by NumPy; the direction of scikit-learn's LDA."""
    attempt.on_error["singular"] = "Sigma need not have an inverse: use torch.linalg.pinv(..., hermitian=True)"
    attempt.on_error["tensors used as indices"] = "y == 1 is the mask of class 1; y.long() can index"
    x, y = _two_classes(attempt, 200, 6)
    m0, m1 = (_array(x)[y.cpu().numpy() == c].mean(0) for c in (0, 1))
    plain = torch.tensor(m1 - m0)
    with attempt.holds("the difference of the class means, and its middle"):
        w, b = attempt.pair(attempt(x, y, False), "w", "b")
        attempt.close(w, plain, what="w", slips=_mean_slips(x, y, plain), atol=1e-4, rtol=1e-3)
        _close_middle(attempt, b, plain, m0, m1, x)
    lda = LinearDiscriminantAnalysis(solver="lsqr").fit(_array(x), y.cpu().numpy())
    whitened = torch.tensor(lda.coef_[0])
    with attempt.holds("whitened: equals scikit-learn's LDA"):
        build = "here you build it: two means, one covariance, one pseudo-inverse"
        with (
            attempt.without(LinearDiscriminantAnalysis, "fit", build, "scikit-learn's LDA"),
            attempt.without(probes, "fit_mass_mean", build, "probes.fit_mass_mean"),
        ):
            w, b = attempt.pair(attempt(x, y, True), "w", "b")
        slips = _whitened_slips(x, y, plain)
        attempt.close(w, whitened, what="w", slips=slips, atol=1e-3 * float(whitened.abs().max()), rtol=1e-3)
        _close_middle(attempt, b, whitened, m0, m1, x)
    with attempt.holds("whitened, where the numbers of each row add up to zero"):
        x, y = _sum_zero(attempt)
        m0, m1 = (_array(x)[y.cpu().numpy() == c].mean(0) for c in (0, 1))
        inverse = np.linalg.pinv(_within(x, y), rcond=1e-6, hermitian=True)
        want = torch.tensor(inverse @ (m1 - m0))
        w, _ = attempt.pair(attempt(x, y, True), "w", "b")
        loose = attempt.tensor(w, want.shape, "w")
        slips = [(loose, "Sigma has no inverse here: use the pseudo-inverse, torch.linalg.pinv(..., hermitian=True)")]
        attempt.close(loose, want, what="w", slips=slips, atol=2e-3 * float(want.abs().max()), rtol=2e-3)


def _two_classes(attempt: Attempt, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Classes of unequal size and unequal covariance, in correlated features (eigenvalues from 0.06 to 2)."""
    y = (torch.rand(n, generator=attempt.generator) < 0.3).long().to(session.device())
    turn = torch.linalg.qr(attempt.randn(d, d)).Q
    noise = attempt.randn(n, d) * torch.linspace(0.25, 1.4, d, device=y.device) @ turn.T * (1 + y[:, None])
    return noise + y[:, None] * attempt.randn(d) + 1.0, y


def _sum_zero(attempt: Attempt) -> tuple[Tensor, Tensor]:
    """Rows that add up to zero exactly, in float32 and in float64, with class means that are exact as well."""
    y = torch.tensor([0] * 64 + [1] * 128)[torch.randperm(192, generator=attempt.generator)].to(session.device())
    x = attempt.randint(-256, 257, 192, 7) * torch.tensor([1, 2, 3, 4, 4, 4, 4], device=y.device) // 4
    x = x + y[:, None] * attempt.randint(-64, 65, 7)
    return torch.cat([x, -x.sum(1, keepdim=True)], 1) / 64, y


def _within(x: Tensor, y: Tensor, of_all: bool = False) -> np.ndarray:
    x, y = _array(x), y.cpu().numpy()
    centres = np.stack([x[y == c].mean(0) for c in (0, 1)])[y]
    residual = x - (x.mean(0) if of_all else centres)
    return residual.T @ residual / len(x)


def _mean_slips(x: Tensor, y: Tensor, right: Tensor) -> list[tuple[Tensor, str]]:
    means = torch.stack([x[y == c].mean(0) for c in (0, 1)]).cpu().double()
    sums = torch.stack([x[y == c].sum(0) for c in (0, 1)]).cpu().double()
    inverse = torch.tensor(np.linalg.inv(_within(x, y)))
    return [
        (-right, "the sign is turned round: mean of class 1 minus mean of class 0"),
        (right / right.norm(), "the direction was normalised: leave its length as it comes out"),
        (right / 2, "the whole difference of the means, not half of it"),
        (sums[1] - sums[0], "these are sums: take the mean of each class"),
        (means[1], "this is the mean of class 1: subtract that of class 0"),
        (means[1] - x.mean(0).cpu().double(), "subtract the mean of class 0, not that of all rows"),
        (inverse @ right, "whitened although whiten=False"),
    ]


def _whitened_slips(x: Tensor, y: Tensor, difference: Tensor) -> list[tuple[Tensor, str]]:
    within, total = torch.tensor(_within(x, y)), torch.tensor(_within(x, y, of_all=True))
    n, labels = len(x), y.cpu().numpy()
    each = [torch.tensor(np.cov(_array(x)[labels == c].T, bias=True)) for c in (0, 1)]
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ (values.rsqrt().diag()) @ vectors.T
    inverse, eye = torch.linalg.inv(within), torch.eye(len(within), dtype=within.dtype)
    centres = np.stack([_array(x)[labels == c].mean(0) for c in (1, 0)])[labels]
    swapped = torch.tensor((_array(x) - centres).T @ (_array(x) - centres) / n)
    mixed = [within + share * eye for share in (1e-2, 1e-3, 1e-4)]
    mixed += [(1 - s) * within + s * within.trace() / len(within) * eye for s in (1e-2, 1e-3, 1e-4)]
    right = inverse @ difference
    return [
        (difference, "whiten=True multiplies the difference by the inverse of Sigma"),
        (-right, "the sign is turned round: mean of class 1 minus mean of class 0"),
        (torch.linalg.inv(total) @ difference, "every row is centred on the mean of its own class, not on that of all"),
        (
            torch.linalg.inv(swapped) @ difference,
            "the class means are swapped: subtract from each row that of its own class",
        ),
        *(
            (torch.linalg.inv(m) @ difference, "nothing is mixed into Sigma: its pseudo-inverse as it is")
            for m in mixed
        ),
        (right * (n - 1) / n, "Sigma divides by n (torch.cov divides by n - 1)"),
        (right * (n - 2) / n, "Sigma divides by n, not by n - 2"),
        (right / n, "Sigma is a mean over the rows: divide by n"),
        (torch.linalg.inv((each[0] + each[1]) / 2) @ difference, "every row weighs the same in Sigma, not every class"),
        (torch.linalg.inv(each[0] + each[1]) @ difference, "Sigma is one mean over all rows, not a sum over classes"),
        (torch.linalg.inv(each[0]) @ difference, "this is the covariance of class 0 alone"),
        (torch.linalg.inv(each[1]) @ difference, "this is the covariance of class 1 alone"),
        (root @ difference, "this is the inverse of Sigma's root: multiply by the inverse of Sigma itself"),
        (within @ difference, "multiplied by Sigma: multiply by its inverse"),
        (difference / within.diagonal(), "only the diagonal of Sigma was used"),
        (difference / within.diagonal().sqrt(), "only the diagonal of Sigma was used"),
        (right / right.norm(), "the direction was normalised: leave its length as it comes out"),
    ]


def _close_middle(attempt: Attempt, b, w: Tensor, m0: np.ndarray, m1: np.ndarray, x: Tensor) -> None:
    want = float(-w.numpy() @ (m0 + m1) / 2)
    slips = [
        (-want, "the sign of b is turned round: f = w . x + b is 0 half-way between the means"),
        (2 * want, "half-way between the means: divide their sum by 2"),
        (0.0, "the intercept is missing: b = -w . (m0 + m1) / 2"),
        (float(-(m1 - m0) @ (m0 + m1) / 2), "b belongs to the whitened w: b = -w . (m0 + m1) / 2"),
        (float(-w.numpy() @ _array(x).mean(0)), "the middle of the two class means, not the mean of all rows"),
        (float(-w.numpy() @ m0), "half-way between the means: both of them"),
        (float(-w.numpy() @ m1), "half-way between the means: both of them"),
    ]
    attempt.number(b, what="b")
    attempt.close(b, want, what="b", atol=2e-3 * max(1.0, abs(want)), rtol=1e-3, slips=slips)


@exercise(
    "1.6",
    hints=(
        "A hook on f'blocks.{layer}.hook_resid_post' gets the stream [batch pos d_model] and returns the changed one.",
        "def change(value, hook): value = value.clone(); if alpha is None: value[:, position] -= ... else: "
        "value[:, position] += ...; return value. Return model.run_with_hooks(tokens, fwd_hooks=[(name, change)]).",
        "To add: alpha[:, None] * direction. To take out: with unit = direction / direction.norm(), subtract "
        "(value[:, position] @ unit)[:, None] * unit.",
    ),
)
def intervene(attempt: Attempt) -> None:
    """Truth: the changed stream, computed from a cached run, is fed to the next block, or read out by the formula."""
    one_for_each = "alpha has one strength for each row: alpha[:, None] * direction"
    attempt.on_error["must match the size"] = attempt.on_error["must match the existing size"] = one_for_each
    attempt.on_error["'NoneType' and"] = attempt.on_error["NoneType"] = (
        "alpha may be None: then the component along the direction is taken out"
    )
    attempt.on_error["view of a leaf"] = attempt.on_error["modified by an inplace"] = "change a copy: value.clone()"
    small, shipped = small_model(n_layers=4), shipped_model()
    strengths = {"after the last of 4 blocks": [0.8, -1.7, 2.4, 0.0], "on `world`": [1.3, -0.9]}
    for name, model, layer in [("after the last of 4 blocks", small, 3), ("on `world`", shipped, 1)]:
        alpha = torch.tensor(strengths[name], device=session.device())
        tokens, direction, position, cache = _steered(attempt, model, layer, len(alpha))
        for what, strength in (("added", alpha), ("taken out", None)):
            with attempt.holds(f"a direction {what}, {name}"):
                _require_changed(attempt, model, tokens, cache, direction, layer, position, strength)
    with attempt.holds("one row"):
        tokens, direction, position, cache = _steered(attempt, small, 1, 1)
        alpha = torch.tensor([-1.2], device=tokens.device)
        _require_changed(attempt, small, tokens, cache, direction, 1, position, alpha)
    with attempt.holds("strengths of 0 change nothing"):
        tokens, direction, position, cache = _steered(attempt, small, 1, 3)
        got = attempt(small, tokens, direction, 1, position, torch.zeros(3, device=tokens.device))
        removed = _continued(small, tokens, _changed(cache["blocks.1.hook_resid_post"], direction, position, None), 1)
        slips = [(removed, "alpha is 0 here, not None: ask `alpha is None`")]
        attempt.close(got, small(tokens), atol=2e-3, rtol=2e-3, slips=slips)


def _steered(attempt: Attempt, model, layer: int, batch: int) -> tuple[Tensor, Tensor, int, dict]:
    """Tokens [batch 9], a direction that matters, a position and the model's cached run."""
    tokens = attempt.randint(4, model.cfg.d_vocab, batch, 9)
    tokens[:, 0] = 1
    _, cache = model.run_with_cache(tokens)
    position = int(attempt.randint(5, 8, 1))
    size = cache[f"blocks.{layer}.hook_resid_post"][:, position].norm(dim=-1).mean()
    return tokens, 0.4 * size * attempt.randn(model.cfg.d_model) / model.cfg.d_model**0.5, position, cache


def _require_changed(attempt: Attempt, model, tokens, cache, direction, layer, position, alpha) -> None:
    stream = cache[f"blocks.{layer}.hook_resid_post"].clone()
    truth = _continued(model, tokens, _changed(stream, direction, position, alpha), layer)
    got = attempt(model, tokens, direction, layer, position, alpha)
    slips = _intervention_slips(model, tokens, cache, direction, layer, position, alpha)
    attempt.close(got, truth, atol=2e-3, rtol=2e-3, slips=slips)


def _changed(stream: Tensor, direction: Tensor, where, alpha: Tensor | None) -> Tensor:
    """The stream with the direction added at a position (or slice), or with its component there taken out."""
    out, v = stream.double().clone(), direction.double()
    part = out[:, where]
    if alpha is None:
        out[:, where] = part - (part @ v)[..., None] * v / (v @ v)
    else:
        out[:, where] = part + alpha.double().reshape(-1, *[1] * (part.dim() - 1)) * v
    return out.to(stream.dtype)


def _continued(model, tokens: Tensor, stream: Tensor, layer: int) -> Tensor:
    """Logits when the model goes on with this stream after block ``layer``."""
    if layer + 1 < model.cfg.n_layers:
        name = f"blocks.{layer + 1}.hook_resid_pre"
        return model.run_with_hooks(tokens, fwd_hooks=[(name, lambda value, hook: stream)])
    centred = stream - stream.mean(-1, keepdim=True)
    scale = (centred.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
    return centred / scale @ model.W_U + model.b_U


def _intervention_slips(model, tokens, cache, direction, layer, position, alpha) -> Iterator[tuple[Tensor, str]]:
    """What known slips would give, computed one by one: only a wrong answer needs them."""
    streams = [cache[f"blocks.{i}.hook_resid_post"] for i in range(model.cfg.n_layers)]
    stream, unit = streams[layer], direction / direction.norm()
    rows, last = stream[:, position], tokens.shape[1] - 1

    def at(where, strength=alpha, v=direction, block=layer) -> Tensor:
        return _continued(model, tokens, _changed(streams[block], v, where, strength), block)

    def put(value: Tensor) -> Tensor:
        changed = stream.clone()
        changed[:, position] = value
        return _continued(model, tokens, changed, layer)

    right = at(position)
    if alpha is None:
        component = rows @ direction
        along = (rows @ unit)[:, None]
        cosine = along / rows.norm(dim=-1, keepdim=True)
        twice = "of any length: use the unit vector twice, for the product and for the subtraction"
        yield put(rows - component[:, None] * direction), "of any length: divide the direction by its norm first"
        yield put(rows - along * direction), twice
        yield put(rows - component[:, None] * unit), twice
        yield put(rows - cosine * unit), "the component is (x . unit), not the cosine"
        yield put(rows - 2 * along * unit), "the component is taken out once, not twice"
        yield put(rows + along * unit), "the component is subtracted, not added"
        yield put(along * unit), "this keeps the component and drops the rest: the other way round"
        yield put(rows - direction), "what is taken out is the component of each row, not the direction itself"
        yield put(rows - along.mean() * unit), "each row has a component of its own"
        yield put(torch.zeros_like(rows)), "the whole vector was set to zero: only its component along the direction"
    else:
        yield at(position, -alpha), "the sign is turned round: add alpha times direction"
        yield at(position, torch.ones_like(alpha)), "alpha is left out: add alpha times direction"
        yield at(position, alpha[:1].expand_as(alpha)), "alpha has one value per row: the first row's is used for all"
        yield at(position, alpha.mean().expand_as(alpha)), "alpha has one value per row: its mean is used for all"
        yield at(position, v=unit), "the direction was normalised: add it with the length that it has"
        yield put(alpha[:, None] * direction), "the stream was replaced: add to what is there"
        none_at_0 = torch.where((alpha == 0)[:, None], -(rows @ unit)[:, None] * unit, alpha[:, None] * direction)
        yield put(rows + none_at_0), "one alpha is 0 here, not None: ask `alpha is None`"
    first = stream.clone()
    first[:1] = _changed(stream[:1], direction, position, None if alpha is None else alpha[:1])
    yield _continued(model, tokens, first, layer), "only the first row was changed: value[:, position] is that of all"
    yield put(rows), "nothing was changed: does the hook return the changed value?"
    yield at(slice(None)), "changed at every position: only at `position`"
    yield at(last), "this is the last position: use the argument `position`"
    yield at(position - 1), "one position too early"
    if position < last:
        yield at(position + 1), "one position too late: position 0 is <bos>"
    yield at(slice(position, None)), "changed at all positions from `position` on: only at `position`"
    yield at(slice(0, position + 1)), "changed at all positions up to `position`: only at `position`"
    early = _changed(cache[f"blocks.{layer}.hook_resid_pre"], direction, position, alpha)
    one_early = "one layer too early: hook_resid_post is the stream *after* the block"
    yield _continued(model, tokens, early, layer - 1), one_early
    if layer + 1 < model.cfg.n_layers:
        yield at(position, block=layer + 1), "one layer too late: `layer` counts from 0, as in the hook's name"

    def change(value, hook):
        return _changed(value, direction, position, alpha)

    everywhere = [(f"blocks.{i}.hook_resid_post", change) for i in range(model.cfg.n_layers)]
    yield model.run_with_hooks(tokens, fwd_hooks=everywhere), "changed after every block: only after block `layer`"
    yield right.softmax(-1), "these are probabilities: return the logits"
    yield right[:, -1], "these are the logits of the last position: return those of all positions"


@exercise(
    "1.7",
    hints=(
        "counts: y.unique(return_counts=True); the smallest is the number of rows to keep of each class.",
        "order = torch.randperm(len(y), generator=...): permute all rows first, then cut: for each class c of "
        "y.unique(), the first rows in order[y[order] == c].",
        "order = torch.randperm(len(y), generator=...); torch.cat([order[y[order] == c][:smallest] for c in classes])",
    ),
)
def downsample(attempt: Attempt) -> None:
    """Truth: invariants of a fair choice without repetition."""
    counts = {2: 40, 5: 9, 7: 23}
    y = torch.cat([torch.full((count,), label) for label, count in counts.items()])
    y = y[torch.randperm(len(y), generator=attempt.generator)].to(session.device())
    smallest = min(counts.values())
    with attempt.holds("every class as often as the rarest"):
        got = _chosen(attempt, attempt(y, _seed(attempt)), y, 3 * smallest)
        found = y.cpu()[got].bincount(minlength=8)[list(counts)].tolist()
        of_sorted = y.cpu().sort().values[got].bincount(minlength=8)[list(counts)].tolist()
        attempt.require(
            found == [smallest] * 3,
            f"{smallest} rows of each class",
            f"{found} rows of the classes {list(counts)}",
            "these are row numbers of the sorted y: bring them back with y.argsort()"
            if of_sorted == [smallest] * 3
            else "cut every class to the size of the rarest one",
        )
    with attempt.holds("also with a class of one row"):
        few = torch.tensor([0, 3, 3, 3, 0, -1], device=y.device)
        got = _chosen(attempt, attempt(few, _seed(attempt)), few, 3)
        attempt.require(
            sorted(few.cpu()[got].tolist()) == [-1, 0, 3],
            "one row of each of the classes -1, 0 and 3",
            f"rows of the classes {sorted(few.cpu()[got].tolist())}",
            "classes are any whole numbers: take them from y.unique()",
        )
    with attempt.holds("the seed decides"):
        slip = "always the same rows: permute all rows of a class with the seeded generator, then cut"
        _require_seeded(attempt, lambda seed: _chosen(attempt, attempt(y, seed), y, 3 * smallest).sort().values, slip)
    with attempt.holds("every row of a class has the same chance"):
        _require_fair(attempt, y, counts, smallest)


def _require_fair(attempt: Attempt, y: Tensor, counts: dict[int, int], smallest: int, n_draws: int = 400) -> None:
    """Over many seeds every row is chosen about as often as the others of its class (within 5.5 deviations).

    A fair draw fails once in some hundred thousand; more draws make up for the wider bound.
    """
    drawn = torch.zeros(len(y))
    for seed in range(n_draws):
        drawn[_chosen(attempt, attempt(y, seed), y, len(counts) * smallest)] += 1
    for label, count in counts.items():
        of_class, chance = drawn[(y == label).cpu()], smallest / count
        near = 5.5 * (n_draws * chance * (1 - chance)) ** 0.5
        attempt.require(
            bool(((of_class - n_draws * chance).abs() <= near).all()),
            f"each of the {count} rows of class {label} in about {n_draws * chance:.0f} of {n_draws} draws",
            f"between {int(of_class.min())} and {int(of_class.max())}",
            "some rows are preferred: permute all rows before you cut",
        )


def _chosen(attempt: Attempt, value, y: Tensor, size: int) -> Tensor:
    """The answer's row numbers as int64 [size], without repetition."""
    got = attempt.tensor(value, what="the row numbers")
    n = len(y)
    if got.shape == (n,) and bool(((got == 0) | (got == 1)).all()) and size != n:
        slip = "this is a mask: return the numbers of the chosen rows (mask.nonzero()[:, 0])"
        attempt.fail(f"{size} row numbers", "a 0 or 1 for each row", slip)
    if got.dim() == 1 and len(got) > size:
        slip = "more rows than the rarest class allows: cut the larger classes, do not repeat the rare ones"
        attempt.fail(f"{size} row numbers", f"{len(got)}", slip)
    if got.dim() == 1 and len(got) < size:
        slip = (
            "rows are missing: classes are any whole numbers, also negative, and each keeps as many as the rarest has"
        )
        attempt.fail(f"{size} row numbers", f"{len(got)}", slip)
    got = attempt.tensor(value, (size,), "the row numbers")
    inside = bool((got == got.round()).all() and (got >= 0).all() and (got < n).all())
    slip = "these are the classes of the rows: return the rows' numbers" if set(got.tolist()) <= set(y.tolist()) else ""
    attempt.require(inside, f"whole numbers from 0 to {n - 1}", f"from {got.min():g} to {got.max():g}", slip)
    largest = int(y.unique(return_counts=True)[1].max())
    if not slip:
        slip = "a row comes twice: were rows drawn with repetition (randint), or are these positions within each class?"
        slip = slip if got.max() < largest else "rows were drawn with repetition: use randperm, not randint"
    attempt.require(len(got.unique()) == size, "no row twice", f"{size - len(got.unique())} repetitions", slip)
    return got.long()


@exercise(
    "1.8",
    hints=(
        "Keep the wrong predictions first: is_error = true != predicted; everything else is about true[is_error]. By "
        "chance an error goes to a neighbour with probability (number of neighbours) / (n_levels - 1).",
        "is_error = ...; share = (... .abs() == 1).float().mean(); neighbours = (...).float() + (...).float(); "
        "return share, neighbours.mean() / (...)",
        "For the errors: share = ((true - predicted).abs() == 1).float().mean(); "
        "neighbours = (true > 0).float() + (true < n_levels - 1).float(); "
        "expected = neighbours.mean() / (n_levels - 1).",
    ),
)
def adjacent_errors(attempt: Attempt) -> None:
    """Truth: counted error by error in plain Python."""
    for name, n_levels, top in [("six levels", 6, 6), ("a last level that does not occur", 7, 6)]:
        true, predicted = attempt.randint(0, top, 80), attempt.randint(0, top, 80)
        near = (true + 1 - 2 * attempt.randint(0, 2, 80)).clamp(0, top - 1)
        predicted = torch.where(attempt.randint(0, 3, 80) > 0, predicted, near)
        predicted[:8], true[:8] = true[:8], true[:8]
        share, expected = _counted(true.tolist(), predicted.tolist(), n_levels)
        with attempt.holds(f"the share of neighbours, {name}"):
            value = attempt(true, predicted, n_levels)
            value = tuple(value) if isinstance(value, Tensor | np.ndarray) and tuple(value.shape) == (2,) else value
            got = attempt.pair(value, "share", "expected")
            one, two = (attempt.tensor(part, (), what) for part, what in zip(got, ("share", "expected"), strict=True))
            swapped = (expected, "the pair is turned round: (share, expected)")
            slips = [*_share_slips(true.cpu(), predicted.cpu(), share, n_levels), swapped]
            attempt.close(one, share, what="the share", slips=slips)
        with attempt.holds(f"the share expected at random, {name}"):
            slips = _expected_slips(true.cpu(), predicted.cpu(), n_levels)
            attempt.close(two, expected, what="the expected share", slips=slips)


def _counted(true: list[int], predicted: list[int], n_levels: int) -> tuple[float, float]:
    errors = [(t, p) for t, p in zip(true, predicted, strict=True) if t != p]
    share = sum(p in (t - 1, t + 1) for t, p in errors) / len(errors)
    chances = []
    for t, _ in errors:
        others = [level for level in range(n_levels) if level != t]
        chances.append(sum(abs(level - t) == 1 for level in others) / len(others))
    return share, sum(chances) / len(chances)


def _share_slips(true: Tensor, predicted: Tensor, share: float, n_levels: int) -> list[tuple[float, str]]:
    gap = (true - predicted).abs()
    is_error = gap > 0
    signed = predicted - true
    return [
        ((gap == 1).double().mean(), "a share of the wrong predictions, not of all"),
        ((gap <= 1).double().mean(), "right predictions are counted: only the wrong ones matter"),
        (int((gap <= 1).sum()) / int(is_error.sum()), "right predictions are counted as neighbours"),
        ((signed[is_error] == 1).double().mean(), "neighbours lie on either side: take the absolute difference"),
        ((signed[is_error] == -1).double().mean(), "neighbours lie on either side: take the absolute difference"),
        (100 * share, "a share from 0 to 1, not in percent"),
        (
            ((gap == 1) | (gap == n_levels - 1))[is_error].double().mean(),
            "the levels do not close to a circle: the first and the last are no neighbours",
        ),
        (1 - share, "this is the share of the errors that do *not* go to a neighbour"),
        ((gap == 1).double().sum(), "this is a number of errors: divide by the number of all errors"),
    ]


def _expected_slips(true: Tensor, predicted: Tensor, n_levels: int) -> list[tuple[float, str]]:
    is_error = true != predicted

    def expected(level: Tensor, last: int, others: int) -> float:
        return float(((level > 0).double() + (level < last).double()).mean() / others)

    wrong, top = true[is_error], int(max(true.max(), predicted.max()))
    one_edge = [1 + (wrong > 0).double(), 1 + (wrong < n_levels - 1).double()]
    return [
        *((n.mean() / (n_levels - 1), "both ends have one neighbour: the first level and the last") for n in one_edge),
        (100 * expected(wrong, n_levels - 1, n_levels - 1), "a share from 0 to 1, not in percent"),
        (2 / (n_levels - 1), "the first and the last level have one neighbour: average over the errors you have"),
        (
            expected(wrong, n_levels - 1, n_levels),
            "a wrong prediction cannot fall on the true level: divide by n_levels - 1",
        ),
        (expected(true, n_levels - 1, n_levels - 1), "average over the wrong predictions only"),
        (
            expected(predicted[is_error], n_levels - 1, n_levels - 1),
            "the neighbours are those of the true level, not of the predicted one",
        ),
        (expected(wrong, top, top), "n_levels is given: a level that does not occur here still counts"),
        (expected(wrong, top, n_levels - 1), "the last level is n_levels - 1, also where it does not occur"),
        (
            expected(torch.arange(n_levels), n_levels - 1, n_levels - 1),
            "average over the errors you have, not over the levels",
        ),
    ]
