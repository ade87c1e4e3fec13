"""Right and wrong answers to the exercises of chapter 01."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import pinvh
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold

from tests.mutants import right, wrong
from utils import probes

# ------------------------------------------------------------------------------- 1.1 fit_probe


def _newton(x, y, penalty, ones=True, steps=30, scale=1.0, target=None):
    """Newton's method with a given penalty vector on (w, b); the loss is `scale` times the sum."""
    x = x.double()
    wide = torch.cat([x, torch.ones_like(x[:, :1])], 1) if ones else x
    penalty = penalty[: wide.shape[1]].double().to(x.device)
    theta = torch.zeros_like(wide[0])
    target = y if target is None else target
    for _ in range(steps):
        p = (wide @ theta).sigmoid()
        hessian = scale * (wide.T * (p * (1 - p))) @ wide + penalty.diag()
        theta = theta - torch.linalg.solve(hessian, scale * wide.T @ (p - target) + penalty * theta)
    return (theta[:-1], theta[-1]) if ones else (theta, torch.zeros(()))


def _penalty(x, strength, of_intercept=0.0):
    vector = torch.full((x.shape[1] + 1,), float(strength))
    vector[-1] = of_intercept
    return vector


@wrong("1.1", says="the penalty is missing")
def forgets_the_penalty(x, y, C):
    return _newton(x, y, _penalty(x, 1e-6), steps=60)


@wrong("1.1", says="C is the inverse of the penalty's strength")
def multiplies_by_c(x, y, C):
    # with C = 1 this is right: the second case tells
    return _newton(x, y, _penalty(x, C))


@wrong("1.1", says="a sum over the rows, not their mean")
def takes_the_mean_loss(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C), scale=1 / len(x))


@wrong("1.1", says="its gradient is w / C, not 2 w / C")
def forgets_the_half(x, y, C):
    return _newton(x, y, _penalty(x, 2 / C))


@wrong("1.1", says="the intercept is penalised too")
def penalises_the_intercept(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C, 1 / C))


@wrong("1.1", says="the intercept is missing")
def forgets_the_intercept(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C), ones=False)


@wrong("1.1", says="the sign is turned round")
def turns_the_sign(x, y, C):
    w, b = _newton(x, y, _penalty(x, 1 / C))
    return -w, -b


@wrong("1.1", says="the sign of b")
def turns_the_sign_of_b(x, y, C):
    w, b = _newton(x, y, _penalty(x, 1 / C))
    return w, -b


@wrong("1.1", says="x was standardised")
def standardises(x, y, C):
    return _newton((x - x.mean(0)) / x.std(0, unbiased=False), y, _penalty(x, 1 / C))


@wrong("1.1", says="it needs more steps")
def stops_after_one_step(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C), steps=1)


@wrong("1.1", says="it needs more steps")
def descends_too_shortly(x, y, C):
    w, b = torch.zeros(x.shape[1], device=x.device), torch.zeros((), device=x.device)
    for _ in range(50):
        p = (x @ w + b).sigmoid()
        w, b = w - 1e-3 * (x.T @ (p - y) + w / C), b - 1e-3 * (p - y).sum()
    return w, b


@wrong("1.1", says="term by term")
def swaps_p_and_y(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C), target=1.0 - 0.5 * y)


@wrong("1.1", says="x was standardised")
def standardises_by_n_minus_1(x, y, C):
    return _newton((x - x.mean(0)) / x.std(0), y, _penalty(x, 1 / C))


@wrong("1.1", says="x was centred")
def centres_and_forgets(x, y, C):
    return _newton(x - x.mean(0), y, _penalty(x, 1 / C))


@wrong("1.1", says="C is not used")
def ignores_c(x, y, C):
    return _newton(x, y, _penalty(x, 1.0))


@wrong("1.1", says="no weights for the classes")
def balances_the_classes(x, y, C):
    counts = y.bincount()
    x, weight = x.double(), (len(y) / (2 * counts))[y]
    wide, theta = torch.cat([x, torch.ones_like(x[:, :1])], 1), torch.zeros(x.shape[1] + 1).double().to(x.device)
    penalty = _penalty(x, 1 / C).double().to(x.device)
    for _ in range(30):
        p = (wide @ theta).sigmoid()
        hessian = (wide.T * (weight * p * (1 - p))) @ wide + penalty.diag()
        theta = theta - torch.linalg.solve(hessian, wide.T @ (weight * (p - y)) + penalty * theta)
    return theta[:-1], theta[-1]


@wrong("1.1", says="the last row is left out")
def leaves_out_the_last_row(x, y, C):
    return _newton(x[:-1], y[:-1], _penalty(x, 1 / C))


@wrong("1.1", says="belongs to the intercept")
def frees_the_first_weight(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C, 1 / C).flip(0).index_fill(0, torch.tensor([0]), 0.0))


@wrong("1.1", says="the least-squares fit")
def fits_least_squares(x, y, C):
    t, z = 2.0 * y - 1, x - x.mean(0)
    w = torch.linalg.solve(z.T @ z + torch.eye(x.shape[1], device=x.device) / C, z.T @ (t - t.mean()))
    return w, t.mean() - w @ x.mean(0)


@wrong("1.1", says="not -1 and 1")
def takes_signs_for_y(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C), target=2.0 * y - 1)


@wrong("1.1", says="a call of scikit-learn's LogisticRegression.fit")
def calls_sklearn(x, y, C):
    found = LogisticRegression(C=C).fit(x.cpu().numpy(), y.cpu().numpy())
    return found.coef_[0], found.intercept_[0]


@wrong("1.1", says="a call of probes.fit_logistic")
def calls_the_library(x, y, C):
    fitted = probes.fit_logistic(x, y, C=C)
    return fitted.weight, fitted.bias


@wrong("1.1", says="return both")
def returns_weights_alone(x, y, C):
    return _newton(x, y, _penalty(x, 1 / C))[0]


@wrong("1.1", says="y holds whole numbers")
def multiplies_floats_with_integers(x, y, C):
    return x.T @ y, 0.0


@wrong("1.1", says="`x` was changed in place")
def centres_in_place(x, y, C):
    x -= x.mean(0)
    return _newton(x, y, _penalty(x, 1 / C))


@wrong("1.1", says="expected")
def returns_zeros(x, y, C):
    return torch.zeros(x.shape[1]), 0.0


@right("1.1")
def by_lbfgs(x, y, C):
    x, y = x.double(), y.double()
    theta = torch.zeros(x.shape[1] + 1, dtype=torch.float64, device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([theta], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ theta[:-1] + theta[-1], y, reduction="sum")
        value = value + theta[:-1].pow(2).sum() / (2 * C)
        value.backward()
        return value

    optimiser.step(loss)
    return theta[:-1], theta[-1]


@right("1.1")
def by_scipy(x, y, C):
    x, t = x.cpu().double().numpy(), 2.0 * y.cpu().numpy() - 1

    def loss(theta):
        return np.logaddexp(0, -t * (x @ theta[:-1] + theta[-1])).sum() + theta[:-1] @ theta[:-1] / (2 * C)

    def gradient(theta):
        slope = -t / (1 + np.exp(t * (x @ theta[:-1] + theta[-1])))
        return np.append(x.T @ slope + theta[:-1] / C, slope.sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), jac=gradient, method="BFGS", options={"gtol": 1e-8}).x
    return found[:-1], found[-1]


@right("1.1")
def by_newton_in_float32(x, y, C):
    wide = F.pad(x, (0, 1), value=1.0)
    penalty = _penalty(x, 1 / C).to(x.device)
    theta = torch.zeros_like(wide[0])
    for _ in range(25):
        p = (wide @ theta).sigmoid()
        hessian = torch.einsum("ni,n,nj->ij", wide, p * (1 - p), wide) + penalty.diag()
        theta = theta - torch.linalg.solve(hessian, wide.T @ (p - y.float()) + penalty * theta)
    return theta[:-1], theta[-1:]


# ---------------------------------------------------------------------------- 1.2 ridge_probes


def _ridge(x, y, alpha):
    """Weights of [site n d] inputs as they are."""
    gram = x.mT @ x + alpha * torch.eye(x.shape[-1], device=x.device)
    return torch.linalg.solve(gram, x.mT @ y[:, None])[..., 0]


def _centred(x):
    return x - x.mean(1, keepdim=True)


def _bias(x, y, weight):
    return y.mean() - (weight * x.mean(1)).sum(-1)


@wrong("1.2", says="x is not centred")
def forgets_to_centre(x, y, alpha):
    weight = _ridge(x, y, alpha)
    return weight, _bias(x, y, weight)


@wrong("1.2", says="the intercept is penalised too")
def adds_a_column_of_ones(x, y, alpha):
    theta = _ridge(torch.cat([x, torch.ones_like(x[..., :1])], -1), y, alpha)
    return theta[..., :-1], theta[..., -1]


@wrong("1.2", says="alpha is missing")
def forgets_alpha(x, y, alpha):
    weight = torch.linalg.pinv(_centred(x)) @ (y - y.mean())
    return weight, _bias(x, y, weight)


@wrong("1.2", says="do not multiply it by n")
def scales_alpha(x, y, alpha):
    weight = _ridge(_centred(x), y, alpha * x.shape[1])
    return weight, _bias(x, y, weight)


@wrong("1.2", says="alpha was 1")
def takes_one_for_alpha(x, y, alpha):
    weight = _ridge(_centred(x), y - y.mean(), 1.0)
    return weight, _bias(x, y, weight)


@wrong("1.2", says="every site has a mean of its own")
def centres_over_all_sites(x, y, alpha):
    weight = _ridge(x - x.mean((0, 1)), y - y.mean(), alpha)
    return weight, _bias(x, y, weight)


@wrong("1.2", says="the intercept is missing")
def leaves_the_intercept_out(x, y, alpha):
    weight = _ridge(_centred(x), y - y.mean(), alpha)
    return weight, torch.zeros(len(x))


@wrong("1.2", says="subtract w . mean(x)")
def takes_the_mean_of_y(x, y, alpha):
    weight = _ridge(_centred(x), y - y.mean(), alpha)
    return weight, y.mean().expand(len(x))


@wrong("1.2", says="the sign of w . mean(x) is turned round")
def adds_the_mean(x, y, alpha):
    weight = _ridge(_centred(x), y - y.mean(), alpha)
    return weight, y.mean() + (weight * x.mean(1)).sum(-1)


@wrong("1.2", says="all sites got the weights of the first one")
def fits_the_first_site(x, y, alpha):
    weight = _ridge(_centred(x), y - y.mean(), alpha)[:1].expand(len(x), -1)
    return weight, _bias(x, y, weight)


@wrong("1.2", says="x was standardised")
def standardises_every_site(x, y, alpha):
    scaled = _centred(x) / _centred(x).pow(2).mean(1, keepdim=True).sqrt().clamp_min(1e-9)
    weight = _ridge(scaled, y - y.mean(), alpha)
    return weight, _bias(x, y, weight)


@wrong("1.2", says="a call of scikit-learn's Ridge.fit")
def loops_over_sklearn(x, y, alpha):
    fits = [Ridge(alpha=alpha).fit(site.cpu().numpy(), y.cpu().numpy()) for site in x]
    return np.stack([fit.coef_ for fit in fits]), np.stack([fit.intercept_ for fit in fits])


@wrong("1.2", says="`x` was changed in place")
def centres_in_place_everywhere(x, y, alpha):
    mean = x.mean(1)
    x -= mean[:, None]
    weight = _ridge(x, y - y.mean(), alpha)
    return weight, y.mean() - (weight * mean).sum(-1)


@wrong("1.2", says="the axes are [site d]")
def swaps_the_axes(x, y, alpha):
    weight = _ridge(_centred(x), y - y.mean(), alpha)
    return weight.T, _bias(x, y, weight)


@right("1.2")
def site_by_site(x, y, alpha):
    weights, biases = [], []
    for site in x.double():
        z = site - site.mean(0)
        weights.append(torch.linalg.inv(z.T @ z + alpha * torch.eye(z.shape[1], device=z.device)) @ (z.T @ y.double()))
        biases.append(y.double().mean() - weights[-1] @ site.mean(0))
    return torch.stack(weights), torch.stack(biases)


@right("1.2")
def in_the_dual(x, y, alpha):
    z = _centred(x)
    kernel = z @ z.mT + alpha * torch.eye(z.shape[1], device=z.device)
    weight = torch.einsum("snd,sn->sd", z, torch.linalg.solve(kernel, (y - y.mean()).expand(len(x), -1)))
    return weight, _bias(x, y, weight)


@right("1.2")
def by_least_squares(x, y, alpha):
    z = _centred(x)
    d = x.shape[-1]
    rows = torch.cat([z, alpha**0.5 * torch.eye(d, device=z.device).expand(len(x), d, d)], 1)
    target = F.pad(y - y.mean(), (0, d)).expand(len(x), -1)
    weight = torch.linalg.lstsq(rows, target[..., None]).solution[..., 0]
    return weight, _bias(x, y, weight)


# ----------------------------------------------------------------------------- 1.3 group_folds


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _dealt(groups, n_folds, order):
    _, index = groups.unique(return_inverse=True)
    return (order % n_folds)[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="rows were dealt, not groups")
def deals_rows(groups, n_folds, seed):
    part = torch.randperm(len(groups), generator=_generator(seed)) % n_folds
    return part != torch.arange(n_folds)[:, None]


@wrong("1.3", says="rows were dealt, not groups")
def uses_kfold(groups, n_folds, seed):
    splits = KFold(n_folds, shuffle=True, random_state=seed).split(np.zeros(len(groups)))
    return [torch.isin(torch.arange(len(groups)), torch.as_tensor(fit)) for fit, _ in splits]


@wrong("1.3", says="turned round")
def marks_what_is_held_out(groups, n_folds, seed):
    return ~_dealt(groups, n_folds, torch.randperm(len(groups.unique()), generator=_generator(seed)))


@wrong("1.3", says="must depend on the seed")
def deals_in_order(groups, n_folds, seed):
    return _dealt(groups, n_folds, torch.arange(len(groups.unique())))


@wrong("1.3", says="not from the global generator")
def ignores_the_seed(groups, n_folds, seed):
    return _dealt(groups, n_folds, torch.randperm(len(groups.unique())))


@wrong("1.3", says="parts of unequal size")
def draws_a_part_for_each_group(groups, n_folds, seed):
    _, index = groups.unique(return_inverse=True)
    part = torch.randint(n_folds, (int(index.max()) + 1,), generator=_generator(seed))
    part[:n_folds] = torch.arange(n_folds)  # no fold is empty
    part[: 2 * n_folds - 1] = part[: 2 * n_folds - 1].clamp(max=1)
    return part[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="all groups must be dealt")
def forgets_what_is_left_over(groups, n_folds, seed):
    order = torch.randperm(len(groups.unique()), generator=_generator(seed))
    size = len(order) // n_folds
    _, index = groups.unique(return_inverse=True)
    return (order // size)[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="parts of unequal size")
def rounds_the_size_up(groups, n_folds, seed):
    # right for 11 groups in 4 folds: 3, 3, 3, 2
    order = torch.randperm(len(groups.unique()), generator=_generator(seed))
    _, index = groups.unique(return_inverse=True)
    return (order // -(-len(order) // n_folds))[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="what is left over all went into the last part")
def piles_up_what_is_left_over(groups, n_folds, seed):
    order = torch.randperm(len(groups.unique()), generator=_generator(seed))
    _, index = groups.unique(return_inverse=True)
    part = (order // (len(order) // n_folds)).clamp(max=n_folds - 1)
    return part[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="counted in groups")
def balances_rows(groups, n_folds, seed):
    names, index, counts = groups.unique(return_inverse=True, return_counts=True)
    load, part = [0] * n_folds, torch.zeros(len(names), dtype=torch.long)
    for group in torch.randperm(len(names), generator=_generator(seed)).tolist():
        part[group] = load.index(min(load))
        load[part[group]] += int(counts[group])
    return part[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="permute *all* groups")
def shuffles_the_folds_alone(groups, n_folds, seed):
    names, index = groups.unique(return_inverse=True)
    chunk = torch.arange(len(names)) * n_folds // len(names)
    return torch.randperm(n_folds, generator=_generator(seed))[chunk][index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="permute *all* groups")
def rotates_by_the_seed(groups, n_folds, seed):
    names, index = groups.unique(return_inverse=True)
    return ((torch.arange(len(names)) + seed) % n_folds)[index] != torch.arange(n_folds)[:, None]


@wrong("1.3", says="permute *all* groups")
def knows_two_seeds(groups, n_folds, seed):
    return _dealt(groups, n_folds, torch.randperm(len(groups.unique()), generator=_generator(seed % 2)))


@wrong("1.3", says="a boolean tensor")
def returns_whole_numbers(groups, n_folds, seed):
    return _dealt(groups, n_folds, torch.randperm(len(groups.unique()), generator=_generator(seed))).long()


@wrong("1.3", says="draw one order for all folds")
def draws_every_fold_anew(groups, n_folds, seed):
    names, index = groups.unique(return_inverse=True)
    generator, size = _generator(seed), -(-len(names) // n_folds)
    parts = [torch.randperm(len(names), generator=generator) < size for _ in range(n_folds)]
    return ~torch.stack(parts)[:, index]


@wrong("1.3", says="one row of the result for each fold")
def returns_the_numbers_of_parts(groups, n_folds, seed):
    part = torch.randperm(len(groups.unique()), generator=_generator(seed)) % n_folds
    _, index = groups.unique(return_inverse=True)
    return part[index].expand(n_folds, -1)


@wrong("1.3", says="shape")
def returns_one_fold(groups, n_folds, seed):
    return _dealt(groups, n_folds, torch.randperm(len(groups.unique()), generator=_generator(seed)))[0]


@right("1.3")
def by_loops(groups, n_folds, seed):
    rng = np.random.default_rng(seed)
    names = sorted(set(groups.tolist()))
    rng.shuffle(names)
    parts = [set(names[k::n_folds]) for k in range(n_folds)]
    return torch.tensor([[group not in part for group in groups.tolist()] for part in parts])


@right("1.3")
def by_sklearn(groups, n_folds, seed):
    splits = GroupKFold(n_folds, shuffle=True, random_state=seed).split(np.zeros(len(groups)), groups=groups.cpu())
    return np.stack([np.isin(np.arange(len(groups)), fit) for fit, _ in splits])


@right("1.3")
def in_contiguous_chunks(groups, n_folds, seed):
    torch.manual_seed(seed)
    names = groups.unique()
    chunks = torch.tensor_split(names[torch.randperm(len(names))], n_folds)
    return torch.stack([~torch.isin(groups, chunk) for chunk in chunks])


# -------------------------------------------------------------------------- 1.4 control_labels


@wrong("1.4", says="one draw for each *type*")
def draws_for_every_row(types, y, seed):
    return y[torch.randint(len(y), (len(y),), generator=_generator(seed))]


@wrong("1.4", says="one draw for each *type*")
def shuffles_the_labels(types, y, seed):
    return y[torch.randperm(len(y), generator=_generator(seed))]


@wrong("1.4", says="all labels were equally likely")
def draws_uniformly(types, y, seed):
    names, index = types.unique(return_inverse=True)
    labels = y.unique()
    return labels[torch.randint(len(labels), (len(names),), generator=_generator(seed))][index]


@wrong("1.4", says="shares among the types")
def shuffles_over_types(types, y, seed):
    names, index = types.unique(return_inverse=True)
    of_type = torch.zeros(len(names), dtype=y.dtype).scatter(0, index, y)
    return of_type[torch.randperm(len(names), generator=_generator(seed))][index]


@wrong("1.4", says="must not depend on the real one")
def returns_the_real_labels(types, y, seed):
    return y.clone()


@wrong("1.4", says="draw for each type by itself")
def exchanges_the_classes(types, y, seed):
    labels, index = y.unique(return_inverse=True)
    return labels.roll(1)[index]


@wrong("1.4", says="return the labels themselves")
def returns_numbers_of_labels(types, y, seed):
    names, index = types.unique(return_inverse=True)
    _, number = y.unique(return_inverse=True)
    return number[torch.randint(len(y), (len(names),), generator=_generator(seed))][index]


@wrong("1.4", says="not from the global generator")
def forgets_the_seed(types, y, seed):
    names, index = types.unique(return_inverse=True)
    return y[torch.randint(len(y), (len(names),))][index]


@wrong("1.4", says="must not depend on the real one")
def shifts_the_rows_by_the_seed(types, y, seed):
    # no randomness: in mixed order it looks like a draw, in sorted rows it is none
    names, index = types.unique(return_inverse=True)
    return y[(torch.arange(len(names)) + seed) % len(y)][index]


@wrong("1.4", says="neighbouring types share a draw")
def draws_for_pairs_of_types(types, y, seed):
    names, index = types.unique(return_inverse=True)
    rows = torch.randint(len(y), (len(names),), generator=_generator(seed))
    return y[rows.repeat_interleave(2)[: len(names)]][index]


@wrong("1.4", says="also negative")
def indexes_by_the_types(types, y, seed):
    rows = torch.randint(len(y), (int(types.max()) + 1,), generator=_generator(seed))
    return y[rows][types]


@wrong("1.4", says="another result for another seed")
def knows_two_draws(types, y, seed):
    names, index = types.unique(return_inverse=True)
    return y[torch.randint(len(y), (len(names),), generator=_generator(seed % 2))][index]


@wrong("1.4", says="another result for another seed")
def fixes_the_seed(types, y, seed):
    names, index = types.unique(return_inverse=True)
    return y[torch.randint(len(y), (len(names),), generator=_generator(0))][index]


@right("1.4")
def by_dictionary(types, y, seed):
    rng = np.random.default_rng(seed)
    labels = y.tolist()
    drawn = {}
    return [drawn.setdefault(t, labels[rng.integers(len(labels))]) for t in types.tolist()]


@right("1.4")
def by_multinomial(types, y, seed):
    names, index = types.unique(return_inverse=True)
    labels, counts = y.unique(return_counts=True)
    return labels[torch.multinomial(counts.double(), len(names), replacement=True, generator=_generator(seed))][index]


@right("1.4")
def by_the_library_on_numbers(types, y, seed):
    labels, number = y.unique(return_inverse=True)
    return labels[probes.control_labels(types, number, seed)]


# ------------------------------------------------------------------------------- 1.5 mass_mean


def _means(x, y):
    return x[y == 0].mean(0), x[y == 1].mean(0)


def _answer(x, y, whiten, covariance=None, inverse=torch.linalg.pinv):
    """The right answer, with another covariance or inverse where given."""
    m0, m1 = _means(x, y)
    w = m1 - m0
    if whiten:
        residual = torch.where(y[:, None] == 1, x - m1, x - m0)
        covariance = residual.T @ residual / len(x) if covariance is None else covariance
        w = inverse(covariance) @ w
    return w, -w @ (m0 + m1) / 2


@wrong("1.5", says="the sign is turned round: mean of class 1")
def subtracts_class_one(x, y, whiten):
    w, b = _answer(x, y, whiten)
    return -w, -b


@wrong("1.5", says="the direction was normalised")
def normalises(x, y, whiten):
    w, b = _answer(x, y, whiten)
    return w / w.norm(), b / w.norm()


@wrong("1.5", says="multiplies the difference by the inverse of Sigma")
def never_whitens(x, y, whiten):
    return _answer(x, y, False)


@wrong("1.5", says="whitened although whiten=False")
def always_whitens(x, y, whiten):
    return _answer(x, y, True)


@wrong("1.5", says="on the mean of its own class")
def centres_on_the_mean_of_all(x, y, whiten):
    z = x - x.mean(0)
    return _answer(x, y, whiten, z.T @ z / len(x))


@wrong("1.5", says="the class means are swapped")
def swaps_the_means(x, y, whiten):
    m0, m1 = _means(x, y)
    z = torch.where(y[:, None] == 1, x - m0, x - m1)
    return _answer(x, y, whiten, z.T @ z / len(x))


@wrong("1.5", says="nothing is mixed into Sigma")
def shrinks(x, y, whiten):
    return _answer(
        x, y, whiten, inverse=lambda c: torch.linalg.inv(0.999 * c + 0.001 * c.trace() / len(c) * torch.eye(len(c)))
    )


@wrong("1.5", says="not by n - 2")
def divides_by_n_minus_2(x, y, whiten):
    m0, m1 = _means(x, y)
    z = torch.where(y[:, None] == 1, x - m1, x - m0)
    return _answer(x, y, whiten, z.T @ z / (len(x) - 2))


@wrong("1.5", says="divide by n")
def forgets_to_divide(x, y, whiten):
    m0, m1 = _means(x, y)
    z = torch.where(y[:, None] == 1, x - m1, x - m0)
    return _answer(x, y, whiten, z.T @ z)


@wrong("1.5", says="the inverse of Sigma's root")
def whitens_by_the_root(x, y, whiten):
    def root(covariance):
        values, vectors = torch.linalg.eigh(covariance)
        return vectors @ values.rsqrt().diag() @ vectors.T

    return _answer(x, y, whiten, inverse=root)


@wrong("1.5", says="multiply by its inverse")
def forgets_to_invert(x, y, whiten):
    return _answer(x, y, whiten, inverse=lambda covariance: covariance)


@wrong("1.5", says="only the diagonal of Sigma")
def uses_the_diagonal(x, y, whiten):
    return _answer(x, y, whiten, inverse=lambda covariance: (1 / covariance.diagonal()).diag())


@wrong("1.5", says="use the pseudo-inverse")
def inverts_what_has_no_inverse(x, y, whiten):
    return _answer(x, y, whiten, inverse=lambda c: torch.linalg.inv_ex(c + 1e-7 * torch.eye(len(c)))[0])


@wrong("1.5", says="not the mean of all rows")
def puts_the_threshold_at_the_mean(x, y, whiten):
    w, _ = _answer(x, y, whiten)
    return w, -w @ x.mean(0)


@wrong("1.5", says="the sign of b is turned round")
def turns_the_sign_of_the_intercept(x, y, whiten):
    w, b = _answer(x, y, whiten)
    return w, -b


@wrong("1.5", says="b belongs to the whitened w")
def keeps_the_plain_intercept(x, y, whiten):
    return _answer(x, y, whiten)[0], _answer(x, y, False)[1]


@wrong("1.5", says="the intercept is missing")
def has_no_intercept(x, y, whiten):
    return _answer(x, y, whiten)[0], 0.0


@wrong("1.5", says="scikit-learn's LDA")
def calls_lda(x, y, whiten):
    if not whiten:
        return _answer(x, y, False)
    found = LinearDiscriminantAnalysis(solver="lsqr").fit(x.cpu().numpy(), y.cpu().numpy())
    return found.coef_[0], found.intercept_[0]


@wrong("1.5", says="`x` was changed in place")
def centres_classes_in_place(x, y, whiten):
    m0, m1 = _means(x, y)
    w, b = _answer(x, y, whiten)
    x -= torch.where(y[:, None] == 1, m1, m0)
    return w, b


@right("1.5")
def by_numpy(x, y, whiten):
    x, y = x.cpu().double().numpy(), y.cpu().numpy()
    m0, m1 = x[y == 0].mean(0), x[y == 1].mean(0)
    w = m1 - m0
    if whiten:
        shares = [(y == c).mean() for c in (0, 1)]
        covariance = sum(s * np.cov(x[y == c].T, bias=True) for c, s in enumerate(shares))
        w = np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ w
    return w, -w @ (m0 + m1) / 2


@right("1.5")
def in_float64(x, y, whiten):
    return _answer(x.double(), y, whiten, inverse=lambda c: torch.linalg.pinv(c, hermitian=True))


@right("1.5")
def by_numpy_with_its_own_cutoff(x, y, whiten):
    return _answer(
        x.double(), y, whiten, inverse=lambda c: torch.tensor(np.linalg.pinv(c.cpu().numpy(), hermitian=True))
    )


@right("1.5")
def by_scipy_pinvh(x, y, whiten):
    return _answer(x.double(), y, whiten, inverse=lambda c: torch.tensor(pinvh(c.cpu().numpy())))


@right("1.5")
def by_least_squares_of_sigma(x, y, whiten):
    def solve(covariance):
        driver = {"driver": "gelsd"} if covariance.device.type == "cpu" else {}
        return torch.linalg.lstsq(covariance, torch.eye(len(covariance)).to(covariance), rcond=1e-6, **driver).solution

    return _answer(x, y, whiten, inverse=solve)


@right("1.5")
def with_one_hot_einsum(x, y, whiten):
    x = x.double()
    member = F.one_hot(y, 2).double()
    means = torch.einsum("nc,nd->cd", member / member.sum(0), x)
    w = means[1] - means[0]
    if whiten:
        z = x - member @ means
        w = torch.linalg.pinv(torch.einsum("ni,nj->ij", z, z) / len(x), rtol=1e-6, hermitian=True) @ w
    return w, -(w * means).sum() / 2


# ------------------------------------------------------------------------------- 1.6 intervene


def _run(model, tokens, layer, change, name="resid_post"):
    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.hook_{name}", change)])


def _at(position, new):
    """A hook that puts new(rows) in the place of the rows at a position."""

    def change(value, hook):
        value = value.clone()
        value[:, position] = new(value[:, position])
        return value

    return change


def _new(direction, alpha):
    unit = direction / direction.norm()
    if alpha is None:
        return lambda rows: rows - (rows @ unit)[..., None] * unit
    return lambda rows: rows + alpha.reshape(-1, *[1] * (rows.dim() - 1)) * direction


@wrong("1.6", says="nothing was changed")
def forgets_to_return(model, tokens, direction, layer, position, alpha):
    change = _at(position, _new(direction, alpha))

    def silent(value, hook):
        change(value, hook)

    return _run(model, tokens, layer, silent)


@wrong("1.6", says="changed at every position")
def changes_every_position(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(slice(None), _new(direction, alpha)))


@wrong("1.6", says="one layer too early")
def hooks_before_the_block(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position, _new(direction, alpha)), "resid_pre")


@wrong("1.6", says="one position too early")
def counts_without_bos(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position - 1, _new(direction, alpha)))


@wrong("1.6", says="use the argument `position`")
def takes_the_last_position(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(-1, _new(direction, alpha)))


@wrong("1.6", says="the sign is turned round")
def subtracts(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position, _new(direction, None if alpha is None else -alpha)))


@wrong("1.6", says="alpha is left out")
def ignores_alpha(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position, _new(direction, None if alpha is None else torch.ones_like(alpha))))


@wrong("1.6", says="the first row's is used for all")
def takes_the_first_alpha(model, tokens, direction, layer, position, alpha):
    return _run(
        model, tokens, layer, _at(position, _new(direction, None if alpha is None else alpha[:1].expand(len(tokens))))
    )


@wrong("1.6", says="its mean is used for all")
def averages_alpha(model, tokens, direction, layer, position, alpha):
    return _run(
        model,
        tokens,
        layer,
        _at(position, _new(direction, None if alpha is None else alpha.mean().expand(len(tokens)))),
    )


@wrong("1.6", says="ask `alpha is None`")
def takes_zeros_for_none(model, tokens, direction, layer, position, alpha):
    alpha = None if alpha is None or not alpha.any() else alpha
    return _run(model, tokens, layer, _at(position, _new(direction, alpha)))


@wrong("1.6", says="one alpha is 0 here, not None")
def takes_a_zero_for_none(model, tokens, direction, layer, position, alpha):
    def new(rows):
        removed = _new(direction, None)(rows)
        return removed if alpha is None else torch.where((alpha == 0)[:, None], removed, _new(direction, alpha)(rows))

    return _run(model, tokens, layer, _at(position, new))


@wrong("1.6", says="expected")
def knows_three_rows(model, tokens, direction, layer, position, alpha):
    def change(value, hook):
        value = value.clone()
        for row in range(min(3, len(value))):
            value[row : row + 1, position] = _new(direction, None if alpha is None else alpha[row : row + 1])(
                value[row : row + 1, position]
            )
        return value

    return _run(model, tokens, layer, change)


@wrong("1.6", says="one position too late")
def counts_from_one(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position + 1, _new(direction, alpha)))


@wrong("1.6", says="only the first row was changed")
def changes_the_first_row(model, tokens, direction, layer, position, alpha):
    def change(value, hook):
        value = value.clone()
        value[:1, position] = _new(direction, None if alpha is None else alpha[:1])(value[:1, position])
        return value

    return _run(model, tokens, layer, change)


@wrong("1.6", says="after every block")
def changes_after_every_block(model, tokens, direction, layer, position, alpha):
    change = _at(position, _new(direction, alpha))
    names = [f"blocks.{i}.hook_resid_post" for i in range(model.cfg.n_layers)]
    return model.run_with_hooks(tokens, fwd_hooks=[(name, change) for name in names])


@wrong("1.6", says="not the cosine")
def subtracts_the_cosine(model, tokens, direction, layer, position, alpha):
    if alpha is not None:
        return _run(model, tokens, layer, _at(position, _new(direction, alpha)))

    def new(rows):
        return rows - torch.cosine_similarity(rows, direction, dim=-1)[:, None] * direction / direction.norm()

    return _run(model, tokens, layer, _at(position, new))


@wrong("1.6", says="alpha[:, None] * direction")
def multiplies_without_broadcasting(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position, lambda rows: rows + alpha * direction))


@wrong("1.6", says="alpha may be None")
def forgets_none(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position, lambda rows: rows + alpha[:, None] * direction))


@wrong("1.6", says="the direction was normalised")
def adds_the_unit_vector(model, tokens, direction, layer, position, alpha):
    unit = direction / direction.norm()
    return _run(model, tokens, layer, _at(position, _new(unit, alpha)))


@wrong("1.6", says="by its norm first")
def takes_out_without_a_unit_vector(model, tokens, direction, layer, position, alpha):
    if alpha is not None:
        return _run(model, tokens, layer, _at(position, _new(direction, alpha)))
    return _run(model, tokens, layer, _at(position, lambda rows: rows - (rows @ direction)[:, None] * direction))


@wrong("1.6", says="use the unit vector twice")
def divides_by_the_norm_once(model, tokens, direction, layer, position, alpha):
    if alpha is not None:
        return _run(model, tokens, layer, _at(position, _new(direction, alpha)))
    unit = direction / direction.norm()
    return _run(model, tokens, layer, _at(position, lambda rows: rows - (rows @ direction)[:, None] * unit))


@wrong("1.6", says="drops the rest")
def keeps_the_component(model, tokens, direction, layer, position, alpha):
    if alpha is not None:
        return _run(model, tokens, layer, _at(position, _new(direction, alpha)))
    unit = direction / direction.norm()
    return _run(model, tokens, layer, _at(position, lambda rows: (rows @ unit)[:, None] * unit))


@wrong("1.6", says="those of all positions")
def returns_the_last_logits(model, tokens, direction, layer, position, alpha):
    return _run(model, tokens, layer, _at(position, _new(direction, alpha)))[:, -1]


@wrong("1.6", says="with hooks left on it")
def leaves_the_hook(model, tokens, direction, layer, position, alpha):
    model.add_hook(f"blocks.{layer}.hook_resid_post", _at(position, _new(direction, alpha)))
    return model(tokens)


@wrong("1.6", says="`direction` was changed in place")
def normalises_in_place(model, tokens, direction, layer, position, alpha):
    logits = _run(model, tokens, layer, _at(position, _new(direction.clone(), alpha)))
    direction /= direction.norm()
    return logits


@right("1.6")
def with_a_vector_for_all_positions(model, tokens, direction, layer, position, alpha):
    def change(value, hook):
        here = torch.zeros(value.shape[1], device=value.device)
        here[position] = 1
        if alpha is None:
            moved = -torch.einsum("bpd,d,e->bpe", value, direction, direction) / (direction @ direction)
        else:
            moved = torch.einsum("b,d->bd", alpha, direction)[:, None]
        return value + here[:, None] * moved

    return _run(model, tokens, layer, change)


@right("1.6")
def with_a_projection_matrix_in_place(model, tokens, direction, layer, position, alpha):
    matrix = torch.eye(len(direction), device=direction.device) - torch.outer(direction, direction) / direction.dot(
        direction
    )

    def change(value, hook):
        value[:, position] = (
            value[:, position] @ matrix if alpha is None else value[:, position] + alpha.outer(direction)
        )
        return value

    return _run(model, tokens, layer, change)


@right("1.6")
def with_add_hook_and_reset(model, tokens, direction, layer, position, alpha):
    model.add_hook(f"blocks.{layer}.hook_resid_post", _at(position, _new(direction, alpha)))
    logits = model(tokens)
    model.reset_hooks()
    return logits


# ------------------------------------------------------------------------------ 1.7 downsample


def _first_of_each(y, order):
    classes, counts = y.unique(return_counts=True)
    return torch.cat([order[y[order] == c][: counts.min()] for c in classes])


@wrong("1.7", says="always the same rows")
def takes_the_first_rows(y, seed):
    return _first_of_each(y, torch.arange(len(y)))


@wrong("1.7", says="cut every class")
def draws_rows_whatever_their_class(y, seed):
    smallest = y.unique(return_counts=True)[1].min()
    return torch.randperm(len(y), generator=_generator(seed))[: smallest * len(y.unique())]


@wrong("1.7", says="more rows than the rarest class allows")
def repeats_the_rare_ones(y, seed):
    classes, counts = y.unique(return_counts=True)
    rows = [(y == c).nonzero()[:, 0] for c in classes]
    return torch.cat([r[torch.randint(len(r), (int(counts.max()),), generator=_generator(seed))] for r in rows])


@wrong("1.7", says="drawn with repetition")
def draws_with_repetition(y, seed):
    classes, counts = y.unique(return_counts=True)
    rows = [(y == c).nonzero()[:, 0] for c in classes]
    generator = _generator(seed)
    return torch.cat([r[torch.randint(len(r), (int(counts.min()),), generator=generator)] for r in rows])


@wrong("1.7", says="rows are missing")
def knows_no_negative_class(y, seed):
    order, smallest = torch.randperm(len(y), generator=_generator(seed)), y.unique(return_counts=True)[1].min()
    return torch.cat([order[y[order] == c][:smallest] for c in range(int(y.max()) + 1)])


@wrong("1.7", says="positions within each class")
def numbers_the_rows_of_each_class(y, seed):
    counts = y.unique(return_counts=True)[1]
    generator = _generator(seed)
    return torch.cat([torch.randperm(int(count), generator=generator)[: counts.min()] for count in counts])


@wrong("1.7", says="row numbers of the sorted y")
def forgets_that_y_was_sorted(y, seed):
    order = torch.randperm(len(y), generator=_generator(seed))
    return _first_of_each(y.sort().values, order)


@wrong("1.7", says="always the same rows")
def permutes_the_chosen_ones(y, seed):
    rows = _first_of_each(y, torch.arange(len(y)))
    return rows[torch.randperm(len(rows), generator=_generator(seed))]


@wrong("1.7", says="some rows are preferred")
def shuffles_one_class_alone(y, seed):
    order = torch.arange(len(y))
    first = (y == y.mode().values).nonzero()[:, 0]
    order[first] = first[torch.randperm(len(first), generator=_generator(seed))]
    return _first_of_each(y, order)


@wrong("1.7", says="some rows are preferred")
def takes_a_window_of_each_class(y, seed):
    counts, generator, rows = y.unique(return_counts=True)[1], _generator(seed), []
    for c, count in zip(y.unique(), counts, strict=True):
        start = int(torch.randint(int(count - counts.min()) + 1, (1,), generator=generator))
        rows.append((y == c).nonzero()[start : start + counts.min(), 0])
    return torch.cat(rows)


@wrong("1.7", says="this is a mask")
def returns_a_mask(y, seed):
    mask = torch.zeros(len(y), dtype=torch.bool)
    mask[_first_of_each(y, torch.randperm(len(y), generator=_generator(seed)))] = True
    return mask


@wrong("1.7", says="these are the classes of the rows")
def returns_the_classes(y, seed):
    return y[_first_of_each(y, torch.randperm(len(y), generator=_generator(seed)))]


@wrong("1.7", says="not from the global generator")
def draws_without_the_seed(y, seed):
    return _first_of_each(y, torch.randperm(len(y)))


@wrong("1.7", says="some rows are preferred")
def shuffles_after_the_cut(y, seed):
    rows = _first_of_each(y, torch.arange(len(y)))
    swapped = (y == y.mode().values).nonzero()[:, 0]
    rows = rows.clone()
    kept = y[rows] == y.mode().values
    shift = int(torch.randint(3, (1,), generator=_generator(seed)))
    rows[kept] = swapped[: int(kept.sum()) + 3][shift : shift + int(kept.sum())]
    return rows


@right("1.7")
def class_by_class_in_numpy(y, seed):
    rng = np.random.default_rng(seed)
    labels = y.cpu().numpy()
    classes, counts = np.unique(labels, return_counts=True)
    return np.concatenate([rng.choice(np.flatnonzero(labels == c), counts.min(), replace=False) for c in classes])


@right("1.7")
def by_rank_of_random_numbers(y, seed):
    noise = torch.rand(len(y), generator=_generator(seed)).to(y.device)
    rank = torch.stack([((y == y[i]) & (noise < noise[i])).sum() for i in range(len(y))])
    return (rank < y.unique(return_counts=True)[1].min()).nonzero()[:, 0]


# ------------------------------------------------------------------------- 1.8 adjacent_errors


def _neighbours(level, n_levels):
    return (level > 0).double() + (level < n_levels - 1).double()


def _expected(true, predicted, n_levels):
    return (_neighbours(true[true != predicted], n_levels) / (n_levels - 1)).mean()


def _share(true, predicted):
    return ((true - predicted).abs() == 1).double().sum() / (true != predicted).double().sum()


@wrong("1.8", says="not of all")
def divides_by_all_rows(true, predicted, n_levels):
    return ((true - predicted).abs() == 1).double().mean(), _expected(true, predicted, n_levels)


@wrong("1.8", says="right predictions are counted")
def counts_the_right_ones(true, predicted, n_levels):
    return ((true - predicted).abs() <= 1).double().mean(), _expected(true, predicted, n_levels)


@wrong("1.8", says="take the absolute difference")
def looks_upwards_only(true, predicted, n_levels):
    wrong_ones = true != predicted
    return (predicted - true == 1)[wrong_ones].double().mean(), _expected(true, predicted, n_levels)


@wrong("1.8", says="the first and the last level have one neighbour")
def expects_two_neighbours(true, predicted, n_levels):
    return _share(true, predicted), torch.tensor(2 / (n_levels - 1))


@wrong("1.8", says="cannot fall on the true level")
def draws_from_all_levels(true, predicted, n_levels):
    return _share(true, predicted), _neighbours(true[true != predicted], n_levels).mean() / n_levels


@wrong("1.8", says="average over the wrong predictions only")
def averages_over_all_rows(true, predicted, n_levels):
    return _share(true, predicted), _neighbours(true, n_levels).mean() / (n_levels - 1)


@wrong("1.8", says="not of the predicted one")
def takes_neighbours_of_the_prediction(true, predicted, n_levels):
    return _share(true, predicted), _neighbours(predicted[true != predicted], n_levels).mean() / (n_levels - 1)


@wrong("1.8", says="n_levels is given")
def counts_the_levels_that_occur(true, predicted, n_levels):
    n_levels = int(true.max()) + 1
    return _share(true, predicted), _expected(true, predicted, n_levels)


@wrong("1.8", says="over the errors you have, not over the levels")
def averages_over_levels(true, predicted, n_levels):
    return _share(true, predicted), _neighbours(torch.arange(n_levels), n_levels).mean() / (n_levels - 1)


@wrong("1.8", says="do *not* go to a neighbour")
def returns_the_others(true, predicted, n_levels):
    return 1 - _share(true, predicted), _expected(true, predicted, n_levels)


@wrong("1.8", says="divide by the number of all errors")
def returns_a_number_of_errors(true, predicted, n_levels):
    return ((true - predicted).abs() == 1).sum(), _expected(true, predicted, n_levels)


@wrong("1.8", says="the pair is turned round")
def swaps_the_pair(true, predicted, n_levels):
    return _expected(true, predicted, n_levels), _share(true, predicted)


@wrong("1.8", says="not in percent")
def returns_percent(true, predicted, n_levels):
    return 100 * _share(true, predicted), 100 * _expected(true, predicted, n_levels)


@wrong("1.8", says="do not close to a circle")
def closes_the_circle(true, predicted, n_levels):
    gap = (true - predicted).abs()
    near = (gap == 1) | (gap == n_levels - 1)
    return near[gap > 0].double().mean(), _expected(true, predicted, n_levels)


@wrong("1.8", says="both ends have one neighbour")
def forgets_the_last_level(true, predicted, n_levels):
    is_error = true != predicted
    return _share(true, predicted), (1 + (true[is_error] > 0).double()).mean() / (n_levels - 1)


@wrong("1.8", says="return both")
def returns_the_share_alone(true, predicted, n_levels):
    return _share(true, predicted)


@right("1.8")
def error_by_error(true, predicted, n_levels):
    pairs = [(t, p) for t, p in zip(true.tolist(), predicted.tolist(), strict=True) if t != p]
    share = sum(abs(t - p) == 1 for t, p in pairs) / len(pairs)
    expected = sum((1 if t in (0, n_levels - 1) else 2) / (n_levels - 1) for t, _ in pairs) / len(pairs)
    return share, expected


@right("1.8")
def as_one_tensor(true, predicted, n_levels):
    return torch.stack([_share(true, predicted), _expected(true, predicted, n_levels)])


@right("1.8")
def by_an_adjacency_matrix(true, predicted, n_levels):
    level = torch.arange(n_levels, device=true.device)
    adjacent = ((level[:, None] - level).abs() == 1).double()
    table = torch.zeros(n_levels, n_levels, device=true.device, dtype=torch.float64)
    table.index_put_((true, predicted), torch.ones(len(true), dtype=torch.float64, device=true.device), accumulate=True)
    table.fill_diagonal_(0)
    return (table * adjacent).sum() / table.sum(), (table.sum(1) @ adjacent.sum(1)) / (n_levels - 1) / table.sum()
