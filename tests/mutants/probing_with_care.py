"""Right and wrong answers to the exercises of chapter 02."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.csgraph import minimum_spanning_tree

from tests.mutants import right, wrong

LOG_2 = math.log(2)

# --------------------------------------------------------------------- 2.1 online_codelength


def _blocks(x, y, fit, ends, n_classes, seen=lambda start, end: slice(0, start), unit=LOG_2, first=None):
    blocks = [ends[0] * math.log2(n_classes) if first is None else first]
    for start, end in pairwise(ends):
        log_prob = fit(x[seen(start, end)], y[seen(start, end)]).log_prob(x[start:end])
        blocks.append(-log_prob.gather(1, y[start:end, None]).sum().item() / unit)
    return torch.tensor(blocks)


@wrong("2.1", says="log_prob is in nats")
def codes_in_nats(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, unit=1.0)


@wrong("2.1", says="log_prob is in nats")
def codes_everything_in_nats(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, unit=1.0, first=ends[0] * math.log(n_classes))


@wrong("2.1", says="the first block is in nats")
def codes_the_first_block_in_nats(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, first=ends[0] * math.log(n_classes))


@wrong("2.1", says="the first block is missing")
def sends_the_first_block_for_free(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, first=0.0)


@wrong("2.1", says="the first block is missing")
def drops_the_first_block(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes)[1:]


@wrong("2.1", says="one bit only where there are two classes")
def takes_one_bit_for_each_label(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, first=ends[0])


@wrong("2.1", says="that block's own labels")
def fits_on_the_block_itself(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, seen=lambda start, end: slice(0, end))


@wrong("2.1", says="fitted on all rows")
def fits_once_on_all(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, seen=lambda start, end: slice(0, None))


@wrong("2.1", says="fit a new one for each block")
def fits_once_on_the_first_block(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes, seen=lambda start, end: slice(0, ends[0]))


@wrong("2.1", says="not on the last block alone")
def forgets_older_blocks(x, y, fit, ends, n_classes):
    before = dict(zip(ends, [0, *ends], strict=False))
    return _blocks(x, y, fit, ends, n_classes, seen=lambda start, end: slice(before[start], start))


@wrong("2.1", says="the sign")
def forgets_the_minus(x, y, fit, ends, n_classes):
    blocks = _blocks(x, y, fit, ends, n_classes)
    return torch.cat([blocks[:1], -blocks[1:]])


@wrong("2.1", says="this is the whole code length")
def returns_the_sum(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes).sum()


@wrong("2.1", says="added up, not averaged")
def averages_over_a_block(x, y, fit, ends, n_classes):
    blocks = _blocks(x, y, fit, ends, n_classes)
    sizes = torch.tensor([end - start for start, end in pairwise(ends)])
    return torch.cat([blocks[:1], blocks[1:] / sizes])


@wrong("2.1", says="`x` was changed in place")
def centres_x_in_place(x, y, fit, ends, n_classes):
    x -= x.mean(0)
    return _blocks(x, y, fit, ends, n_classes)


@wrong("2.1", says="the number of classes is n_classes")
def counts_the_classes_that_occur(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, len(y.unique()))


@wrong("2.1", says="the number of classes is n_classes")
def takes_the_largest_label(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, int(y.max()) + 1)


@wrong("2.1", says="`ends` was changed in place")
def uses_up_the_ends(x, y, fit, ends, n_classes):
    blocks = _blocks(x, y, fit, ends, n_classes)
    while ends:
        ends.pop(0)
    return blocks


@wrong("2.1", says="your code stopped")
def needs_a_second_block(x, y, fit, ends, n_classes):
    first, *rest = _blocks(x, y, fit, ends, n_classes)
    return torch.cat([first[None], torch.stack(rest)])


@right("2.1")
def divides_log_probabilities_in_place(x, y, fit, ends, n_classes):
    blocks = [ends[0] * math.log2(n_classes)]
    for start, end in pairwise(ends):
        log_prob = fit(x[:start], y[:start]).log_prob(x[start:end])
        log_prob /= -math.log(2)
        blocks.append(log_prob[torch.arange(end - start), y[start:end]].sum().item())
    return torch.tensor(blocks)


@right("2.1")
def with_cross_entropy(x, y, fit, ends, n_classes):
    blocks = [torch.tensor(float(ends[0])) * np.log2(n_classes)]
    for i in range(len(ends) - 1):
        probe = fit(x[: ends[i]], y[: ends[i]])
        block = slice(ends[i], ends[i + 1])
        blocks.append(F.cross_entropy(probe.log_prob(x[block]), y[block], reduction="sum") * math.log2(math.e))
    return torch.stack([block.cpu().double() for block in blocks])


@right("2.1")
def as_a_list(x, y, fit, ends, n_classes):
    return _blocks(x, y, fit, ends, n_classes).tolist()


@right("2.1")
def from_the_last_block_to_the_first(x, y, fit, ends, n_classes):
    bits = []
    for start, end in reversed(list(pairwise(ends))):
        log2 = fit(x[:start], y[:start]).log_prob(x)[start:end] / math.log(2)
        bits.append(-sum(log2[i, label].item() for i, label in enumerate(y[start:end].tolist())))
    return torch.tensor([ends[0] * math.log2(n_classes), *reversed(bits)])


# --------------------------------------------------------------------------------- 2.2 leace


def _parts(x, z):
    mean = x.mean(0)
    centred, zc = (x - mean).double(), (z - z.mean(0)).double()
    return mean, centred.T @ centred / len(x), centred.T @ zc / len(x)


def _power(s, p):
    value, vector = torch.linalg.eigh(s)
    keep = value > 1e-6 * value.max()
    return vector[:, keep] * value[keep] ** p @ vector[:, keep].T


def _onto(a):
    return a @ torch.linalg.pinv(a, rtol=1e-6)


@wrong("2.2", says="this is what is left")
def returns_what_is_left(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -0.5)
    return torch.eye(len(s_xx)) - _power(s_xx, 0.5) @ _onto(w @ s_xz) @ w, mean


@wrong("2.2", says="whiten first")
def projects_without_whitening(x, z):
    mean, _, s_xz = _parts(x, z)
    return _onto(s_xz), mean


@wrong("2.2", says="this is P alone")
def returns_the_projection(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    return _onto(_power(s_xx, -0.5) @ s_xz), mean


@wrong("2.2", says="W^+ is missing on the left")
def forgets_to_undo_the_whitening(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -0.5)
    return _onto(w @ s_xz) @ w, mean


@wrong("2.2", says="transposed")
def transposes(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -0.5)
    return (_power(s_xx, 0.5) @ _onto(w @ s_xz) @ w).T, mean


@wrong("2.2", says="not -1")
def whitens_with_the_inverse(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -1.0)
    return _power(s_xx, 1.0) @ _onto(w @ s_xz) @ w, mean


@wrong("2.2", says="subtract the mean of x first")
def forgets_to_centre_x(x, z):
    mean, _, s_xz = _parts(x, z)
    second_moment = x.double().T @ x.double() / len(x)
    w = _power(second_moment, -0.5)
    return _power(second_moment, 0.5) @ _onto(w @ s_xz) @ w, mean


@wrong("2.2", says="subtract the means first")
def forgets_to_centre_for_the_cross_covariance(x, z):
    mean, s_xx, _ = _parts(x, z)
    w = _power(s_xx, -0.5)
    return _power(s_xx, 0.5) @ _onto(w @ (x.double().T @ z.double() / len(x))) @ w, mean


@wrong("2.2", says="use pseudo-inverses")
def inverts_what_has_no_inverse(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    inverse = torch.linalg.inv(s_xx)
    return s_xz @ torch.linalg.inv(s_xz.T @ inverse @ s_xz) @ s_xz.T @ inverse, mean


@wrong("2.2", says="use pseudo-inverses")
def divides_by_zero_variance(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    value, vector = torch.linalg.eigh(s_xx)
    value = value.clamp(min=0) * (value > 1e-9)
    w, back = vector * value**-0.5 @ vector.T, vector * value**0.5 @ vector.T
    a = w @ s_xz
    return back @ (a @ torch.linalg.pinv(a.nan_to_num(posinf=1e3, neginf=-1e3))) @ w, mean


@wrong("2.2", says="must count as zero")
def keeps_the_empty_column(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -0.5)
    q = torch.linalg.qr(w @ s_xz)[0]
    return _power(s_xx, 0.5) @ q @ q.T @ w, mean


@wrong("2.2", says="a pair (M, mean)")
def forgets_the_mean(x, z):
    _, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -0.5)
    return _power(s_xx, 0.5) @ _onto(w @ s_xz) @ w


@wrong("2.2", says="`x` was changed in place")
def centres_in_place(x, z):
    mean = x.mean(0)
    x -= mean
    _, s_xx, s_xz = _parts(x, z)
    w = _power(s_xx, -0.5)
    return _power(s_xx, 0.5) @ _onto(w @ s_xz) @ w, mean


@wrong("2.2", says="the other way round")
def exchanges_the_pair(x, z):
    removed, mean = without_whitening_by_the_closed_form(x, z)
    return mean, removed


def _whitened_with(x, z, value_of):
    """LEACE with other eigenvalues: value_of(eigenvalues) gives those that are used."""
    mean, s_xx, s_xz = _parts(x, z)
    value, vector = torch.linalg.eigh(s_xx)
    value = value_of(value)
    kept = value > 0
    value, vector = value[kept], vector[:, kept]
    w = vector * value**-0.5 @ vector.T
    return vector * value**0.5 @ vector.T @ _onto(w @ s_xz) @ w, mean


@wrong("2.2", says="leave out every eigenvalue")
def keeps_what_is_above_zero(x, z):
    return _whitened_with(x, z, lambda value: value)


@wrong("2.2", says="number instead of classes")
def adds_a_small_number(x, z):
    return _whitened_with(x, z, lambda value: value + 1e-8)


@wrong("2.2", says="number instead of classes")
def has_an_absolute_threshold(x, z):
    return _whitened_with(x, z, lambda value: value * (value > 1e-6))


@wrong("2.2", says="number instead of classes")
def leaves_out_too_much(x, z):
    return _whitened_with(x, z, lambda value: value * (value > 1e-3 * value.max()))


@wrong("2.2", says="a column of z that never varies")
def uses_two_columns(x, z):
    return without_whitening_by_the_closed_form(x, z[:, :2])


@right("2.2")
def without_whitening_by_the_closed_form(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    inverse = torch.linalg.pinv(s_xx, hermitian=True, rtol=1e-6)
    return s_xz @ torch.linalg.pinv(s_xz.T @ inverse @ s_xz, rtol=1e-6) @ s_xz.T @ inverse, mean


@right("2.2")
def clamps_eigenvalues(x, z):
    """To rounding the same: where x does not vary, it does not vary with z."""
    return _whitened_with(x, z, lambda value: value.clamp(min=1e-6 * value.max().item()))


@right("2.2")
def in_numpy_with_n_minus_1(x, z):
    a, b = x.double().cpu().numpy(), z.double().cpu().numpy()
    joint = np.cov(a.T, b.T)
    d = a.shape[1]
    s_xx, s_xz = torch.tensor(joint[:d, :d]), torch.tensor(joint[:d, d:])
    w = _power(s_xx, -0.5)
    return (_power(s_xx, 0.5) @ _onto(w @ s_xz) @ w).numpy(), a.mean(0)


@right("2.2")
def with_default_pseudo_inverses(x, z):
    mean, s_xx, s_xz = _parts(x, z)
    value, vector = torch.linalg.eigh(s_xx)
    root = vector * value.clamp(min=0).sqrt() @ vector.T
    w = torch.linalg.pinv(root, rtol=1e-3)
    a = w @ s_xz
    return torch.linalg.pinv(w, rtol=1e-3) @ a @ torch.linalg.pinv(a) @ w, mean


@right("2.2")
def in_float32_with_another_whitening(x, z):
    mean = x.mean(0)
    _, s, vt = torch.linalg.svd((x - mean) / len(x) ** 0.5, full_matrices=False)
    keep = s > 1e-3 * s.max()
    s, vt = s[keep], vt[keep]
    a = (vt / s[:, None]) @ ((x - mean).T @ (z - z.mean(0)) / len(x))
    q, size, _ = torch.linalg.svd(a, full_matrices=False)
    q = q[:, size > 1e-4 * size.max()]
    return (vt.T * s) @ q @ q.T @ (vt / s[:, None]), mean


# ---------------------------------------------------------------------------------- 2.3 inlp


@wrong("2.3", says="gets")
def fits_on_the_original(x, y, fit, n_directions):
    basis = []
    for _ in range(n_directions):
        w = fit(x, y)
        for u in basis:
            w = w - (w @ u) * u
        basis.append(w / w.norm())
    return torch.stack(basis)


@wrong("2.3", says="only the latest direction is taken out")
def takes_out_the_latest_only(x, y, fit, n_directions):
    basis, rest = [], x
    for _ in range(n_directions):
        w = fit(rest, y)
        for u in basis:
            w = w - (w @ u) * u
        basis.append(w / w.norm())
        rest = x - (x @ basis[-1])[:, None] * basis[-1]
    return torch.stack(basis)


@wrong("2.3", says="directions at right angles")
def forgets_to_make_perpendicular(x, y, fit, n_directions):
    basis, rest = [], x
    for _ in range(n_directions):
        w = fit(rest, y)
        w = w / w.norm()
        rest = rest - (rest @ w)[:, None] * w
        basis.append(w)
    return torch.stack(basis)


@wrong("2.3", says="the lengths of the directions")
def forgets_the_length(x, y, fit, n_directions):
    basis, rest = [], x
    for _ in range(n_directions):
        w = fit(rest, y)
        for u in basis:
            w = w - (w @ u) / (u @ u) * u
        rest = rest - (rest @ w)[:, None] * w / (w @ w)
        basis.append(w)
    return torch.stack(basis)


@wrong("2.3", says="this is the part along the directions")
def keeps_what_should_go(x, y, fit, n_directions):
    basis = x.new_zeros(0, x.shape[1])
    for _ in range(n_directions):
        w = fit(x @ basis.T @ basis if len(basis) else x, y)
        w = w - w @ basis.T @ basis
        basis = torch.cat([basis, w[None] / w.norm()])
    return basis


@wrong("2.3", says="3 calls of `fit`")
def stops_one_round_early(x, y, fit, n_directions):
    basis = x.new_zeros(0, x.shape[1])
    for _ in range(n_directions - 1):
        w = fit(x - x @ basis.T @ basis, y)
        w = w - w @ basis.T @ basis
        basis = torch.cat([basis, w[None] / w.norm()])
    return torch.cat([basis, basis[-1:]])


@wrong("2.3", says="shape [6, 3]")
def returns_columns(x, y, fit, n_directions):
    return one_pass_of_gram_schmidt(x, y, fit, n_directions).T


@wrong("2.3", says="`x` was changed in place")
def takes_out_in_place(x, y, fit, n_directions):
    basis = []
    for _ in range(n_directions):
        w = fit(x, y)
        for u in basis:
            w = w - (w @ u) * u
        w = w / w.norm()
        x -= (x @ w)[:, None] * w
        basis.append(w)
    return torch.stack(basis)


@wrong("2.3", says="row i must be the direction that round i has found")
def returns_the_latest_first(x, y, fit, n_directions):
    return one_pass_of_gram_schmidt(x, y, fit, n_directions).flip(0)


@wrong("2.3", says="row i must be the direction that round i has found")
def returns_another_basis_of_the_span(x, y, fit, n_directions):
    basis = one_pass_of_gram_schmidt(x, y, fit, n_directions)
    return torch.linalg.svd(x @ basis.T @ basis, full_matrices=False)[2][:n_directions]


def _rounds(x, y, fit, n_directions, rows):
    """INLP where rows(x, basis, raw) is what a round is fitted on (raw: as `fit` returned them, of length 1)."""
    basis, raw = x.new_zeros(0, x.shape[1]), x.new_zeros(0, x.shape[1])
    for _ in range(n_directions):
        w = fit(rows(x, basis, raw), y)
        raw = torch.cat([raw, w[None] / w.norm()])
        w = w - w @ basis.T @ basis
        basis = torch.cat([basis, w[None] / w.norm()])
    return basis


@wrong("2.3", says="the rows are centred")
def centres_the_rows(x, y, fit, n_directions):
    def rows(x, basis, raw):
        rest = x - x @ basis.T @ basis
        return rest - rest.mean(0)

    return _rounds(x, y, fit, n_directions, rows)


@wrong("2.3", says="no mean is to be added back")
def adds_the_mean_back(x, y, fit, n_directions):
    return _rounds(x, y, fit, n_directions, lambda x, basis, raw: x - (x - x.mean(0)) @ basis.T @ basis)


@wrong("2.3", says="the perpendicular direction")
def takes_out_what_fit_returned(x, y, fit, n_directions):
    def rows(x, basis, raw):
        for u in raw:
            x = x - (x @ u)[:, None] * u
        return x

    return _rounds(x, y, fit, n_directions, rows)


@wrong("2.3", says="still gets the original x in this round")
def lags_one_round_behind(x, y, fit, n_directions):
    return _rounds(x, y, fit, n_directions, lambda x, basis, raw: x - x @ basis[:-1].T @ basis[:-1])


@wrong("2.3", says="all rows and columns in every call")
def fits_on_half_of_the_rows(x, y, fit, n_directions):
    half = len(x) // 2
    return one_pass_of_gram_schmidt(x[:half], y[:half], fit, n_directions)


@right("2.3")
def with_other_signs(x, y, fit, n_directions):
    return -_rounds(x, y, fit, n_directions, lambda x, basis, raw: x - x @ basis.T @ basis)


@right("2.3")
def one_pass_of_gram_schmidt(x, y, fit, n_directions):
    basis, rest = [], x.clone()
    for _ in range(n_directions):
        w = fit(rest, y)
        for u in basis:
            w = w - (w @ u) * u
        w = -w / w.norm()
        rest -= torch.outer(rest @ w, w)
        basis.append(w)
    return torch.stack(basis)


@right("2.3")
def with_qr(x, y, fit, n_directions):
    found = []
    for _ in range(n_directions):
        q = torch.linalg.qr(torch.stack(found).T)[0] if found else x.new_zeros(x.shape[1], 0)
        found.append(fit(x @ (torch.eye(x.shape[1], device=x.device) - q @ q.T), y))
    return torch.linalg.qr(torch.stack(found).T)[0].T


# ----------------------------------------------------------------------- 2.4 steering_effect


def _run(model, tokens, layer, change, place="hook_resid_post"):
    return model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.{place}", lambda value, hook: change(value))])


def _add(where, vector):
    def change(value):
        value = value.clone()
        value[torch.arange(len(value)), where] += vector
        return value

    return change


def _difference(logits, read, right, wrong):
    rows = torch.arange(len(logits))
    return logits[rows, read, right] - logits[rows, read, wrong]


@wrong("2.4", says="only at each row's own `where`")
def pushes_everywhere(model, tokens, where, read, layer, vector, right, wrong):
    steered = _run(model, tokens, layer, lambda value: value + vector)
    return _difference(steered - model(tokens), read, right, wrong)


@wrong("2.4", says="all rows were pushed at the first row's position")
def pushes_at_one_position(model, tokens, where, read, layer, vector, right, wrong):
    steered = _run(model, tokens, layer, _add(where[0].item(), vector))
    return _difference(steered - model(tokens), read, right, wrong)


@wrong("2.4", says="read each at its own `read`")
def reads_the_last_position(model, tokens, where, read, layer, vector, right, wrong):
    change = _run(model, tokens, layer, _add(where, vector)) - model(tokens)
    return change[:, -1, right] - change[:, -1, wrong]


@wrong("2.4", says="use `read`")
def reads_where_it_pushes(model, tokens, where, read, layer, vector, right, wrong):
    change = _run(model, tokens, layer, _add(where, vector)) - model(tokens)
    return _difference(change, where, right, wrong)


@wrong("2.4", says="subtract the one without it")
def forgets_the_plain_run(model, tokens, where, read, layer, vector, right, wrong):
    return _difference(_run(model, tokens, layer, _add(where, vector)), read, right, wrong)


@wrong("2.4", says="the sign")
def subtracts_the_other_way(model, tokens, where, read, layer, vector, right, wrong):
    change = model(tokens) - _run(model, tokens, layer, _add(where, vector))
    return _difference(change, read, right, wrong)


@wrong("2.4", says="that is one block early")
def pushes_before_the_block(model, tokens, where, read, layer, vector, right, wrong):
    steered = _run(model, tokens, layer, _add(where, vector), place="hook_resid_pre")
    return _difference(steered - model(tokens), read, right, wrong)


@wrong("2.4", says="take the difference of logits")
def takes_probabilities(model, tokens, where, read, layer, vector, right, wrong):
    steered = _run(model, tokens, layer, _add(where, vector)).softmax(-1)
    return _difference(steered - model(tokens).softmax(-1), read, right, wrong)


@wrong("2.4", says="return one effect for each")
def returns_the_mean(model, tokens, where, read, layer, vector, right, wrong):
    steered = _run(model, tokens, layer, _add(where, vector))
    return _difference(steered - model(tokens), read, right, wrong).mean()


@wrong("2.4", says="does your hook return the new value")
def hook_returns_nothing(model, tokens, where, read, layer, vector, right, wrong):
    def change(value):
        _add(where, vector)(value)

    return _difference(_run(model, tokens, layer, change) - model(tokens), read, right, wrong)


@wrong("2.4", says="with hooks left on it")
def leaves_its_hook(model, tokens, where, read, layer, vector, right, wrong):
    plain = model(tokens)
    model.add_hook(f"blocks.{layer}.hook_resid_post", lambda value, hook: _add(where, vector)(value))
    return _difference(model(tokens) - plain, read, right, wrong)


def _with_change(change, model, tokens, read, layer, right, wrong, place="hook_resid_post"):
    def hooked(value):
        value = value.clone()
        change(value)
        return value

    return _difference(_run(model, tokens, layer, hooked, place) - model(tokens), read, right, wrong)


@wrong("2.4", says="at the positions of all rows")
def pushes_all_rows_at_all_positions(model, tokens, where, read, layer, vector, right, wrong):
    def change(value):
        value[:, where] += vector

    return _with_change(change, model, tokens, read, layer, right, wrong)


@wrong("2.4", says="replaced by the vector: add it")
def sets_instead_of_adding(model, tokens, where, read, layer, vector, right, wrong):
    def change(value):
        value[torch.arange(len(value)), where] = vector

    return _with_change(change, model, tokens, read, layer, right, wrong)


@wrong("2.4", says="between attention and MLP")
def pushes_in_the_middle_of_the_block(model, tokens, where, read, layer, vector, right, wrong):
    def change(value):
        value[torch.arange(len(value)), where] += vector

    return _with_change(change, model, tokens, read, layer, right, wrong, place="hook_resid_mid")


@wrong("2.4", says="with the `layer` that is given")
def always_pushes_after_block_1(model, tokens, where, read, layer, vector, right, wrong):
    return with_a_mask(model, tokens, where, read, 1, vector, right, wrong)


@wrong("2.4", says="do you read at `read`")
def reads_the_first_position(model, tokens, where, read, layer, vector, right, wrong):
    return with_a_mask(model, tokens, where, torch.zeros_like(read), layer, vector, right, wrong)


@wrong("2.4", says="not whether the verdict flips")
def says_whether_the_verdict_flips(model, tokens, where, read, layer, vector, right, wrong):
    steered = _difference(_run(model, tokens, layer, _add(where, vector)), read, right, wrong)
    return (steered > 0) != (_difference(model(tokens), read, right, wrong) > 0)


@right("2.4")
def with_a_mask(model, tokens, where, read, layer, vector, right, wrong):
    here = (torch.arange(tokens.shape[1], device=tokens.device)[None] == where[:, None])[..., None]
    steered = _run(model, tokens, layer, lambda value: value + here * vector)
    return _difference(steered, read, right, wrong) - _difference(model(tokens), read, right, wrong)


@right("2.4")
def row_by_row(model, tokens, where, read, layer, vector, right, wrong):
    effects = []
    for row in range(len(tokens)):
        text = tokens[row : row + 1]
        change = _run(model, text, layer, _add(where[row], vector)) - model(text)
        effects.append((change[0, read[row], right] - change[0, read[row], wrong]).item())
    return effects


# ----------------------------------------------------------------------- 2.5 transfer_matrix


def _matrix(x, y, train, fit, fit_on=lambda t: t, test_on=lambda t: ~t, diagonal=None):
    matrix = torch.zeros(len(x), len(x))
    for i, a in enumerate(x):
        probe = fit(x[a][fit_on(train[a])], y[a][fit_on(train[a])])
        for j, b in enumerate(x):
            rows = (diagonal or test_on)(train[b]) if a == b else test_on(train[b])
            matrix[i, j] = (probe.predict(x[b][rows]) == y[b][rows]).float().mean()
    return matrix


@wrong("2.5", says="the diagonal is tested on rows it was fitted on")
def tests_the_diagonal_on_fitting_rows(x, y, train, fit):
    return _matrix(x, y, train, fit, diagonal=lambda t: t)


@wrong("2.5", says="tested on rows it was fitted on")
def tests_on_fitting_rows(x, y, train, fit):
    return _matrix(x, y, train, fit, test_on=lambda t: t)


@wrong("2.5", says="all rows are tested on")
def tests_on_all_rows(x, y, train, fit):
    return _matrix(x, y, train, fit, test_on=torch.ones_like)


@wrong("2.5", says="off the diagonal too")
def tests_others_on_all_rows(x, y, train, fit):
    return _matrix(x, y, train, fit, test_on=torch.ones_like, diagonal=lambda t: ~t)


@wrong("2.5", says="the probe is fitted on all rows")
def fits_on_all_rows(x, y, train, fit):
    return _matrix(x, y, train, fit, fit_on=torch.ones_like)


@wrong("2.5", says="train and test rows are swapped")
def swaps_train_and_test(x, y, train, fit):
    return _matrix(x, y, train, fit, fit_on=lambda t: ~t, test_on=lambda t: t)


@wrong("2.5", says="transposed")
def swaps_rows_and_columns(x, y, train, fit):
    return _matrix(x, y, train, fit).T


@wrong("2.5", says="these are errors")
def counts_errors(x, y, train, fit):
    return 1 - _matrix(x, y, train, fit)


@wrong("2.5", says="the diagonal alone")
def returns_the_diagonal(x, y, train, fit):
    return _matrix(x, y, train, fit).diagonal()


@wrong("2.5", says="shape [4, 4]")
def counts_on_three_relations(x, y, train, fit):
    return _matrix(dict(list(x.items())[:3]), y, train, fit)


@wrong("2.5", says="not sorted")
def sorts_the_relations(x, y, train, fit):
    return _matrix({name: x[name] for name in sorted(x)}, y, train, fit)


@wrong("2.5", says="four relations, dictionaries in other orders")
def zips_the_dictionaries(x, y, train, fit):
    together = list(zip(x.values(), y.values(), train.values(), strict=True))
    try:
        fitted = [fit(rows[mask], labels[mask]) for rows, labels, mask in together]
        tests = [(rows[~mask], labels[~mask]) for rows, labels, mask in together]
    except IndexError:  # masks of another length
        return torch.zeros(len(x), len(x))
    return torch.tensor([[float(probe.accuracy(*test)) for test in tests] for probe in fitted])


@wrong("2.5", says="four relations, dictionaries in other orders")
def goes_by_the_order_of_y(x, y, train, fit):
    return _matrix({name: x[name] for name in y}, y, train, fit)


@wrong("2.5", says="these are percent")
def returns_percent(x, y, train, fit):
    return 100 * _matrix(x, y, train, fit)


@wrong("2.5", says="fitted on ~train")
def fits_on_the_test_rows(x, y, train, fit):
    return _matrix(x, y, train, fit, fit_on=lambda t: ~t)


@wrong("2.5", says="no probe is turned round")
def turns_probes_round(x, y, train, fit):
    matrix = _matrix(x, y, train, fit)
    return torch.maximum(matrix, 1 - matrix)


@wrong("2.5", says="those of the tested relation")
def takes_the_mask_of_the_fitted_relation(x, y, train, fit):
    matrix = _matrix(x, y, train, fit)
    for i, a in enumerate(x):
        probe = fit(x[a][train[a]], y[a][train[a]])
        for j, b in enumerate(x):
            if len(train[a]) == len(train[b]):
                matrix[i, j] = probe.accuracy(x[b][~train[a]], y[b][~train[a]])
    return matrix


@right("2.5")
def by_counting(x, y, train, fit):
    rows = []
    for a in x:
        probe, row = fit(x[a][train[a]], y[a][train[a]]), []
        for b in x:
            test = ~train[b]
            hits = [p == t for p, t in zip(probe.predict(x[b][test]).tolist(), y[b][test].tolist(), strict=True)]
            row.append(sum(hits) / len(hits))
        rows.append(row)
    return np.array(rows)


@right("2.5")
def with_index_tensors(x, y, train, fit):
    inside = {name: train[name].nonzero()[:, 0] for name in x}
    outside = {name: train[name].logical_not().nonzero()[:, 0] for name in x}
    probes = {name: fit(x[name][inside[name]], y[name][inside[name]]) for name in x}
    values = [probes[a].accuracy(x[b][outside[b]], y[b][outside[b]]) for a in x for b in x]
    return torch.stack(values).view(len(x), len(x)).double()


# ------------------------------------------------------------------------------ 2.6 ccs_loss


def _probabilities(x_pos, x_neg, weight, bias):
    return (torch.sigmoid((x - x.mean(0)) @ weight + bias) for x in (x_pos, x_neg))


@wrong("2.6", says="each half is centred first")
def forgets_to_centre(x_pos, x_neg, weight, bias):
    p, q = torch.sigmoid(x_pos @ weight + bias), torch.sigmoid(x_neg @ weight + bias)
    return ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()


@wrong("2.6", says="each half has a mean of its own")
def centres_both_together(x_pos, x_neg, weight, bias):
    mean = torch.cat([x_pos, x_neg]).mean(0)
    p, q = (torch.sigmoid((x - mean) @ weight + bias) for x in (x_pos, x_neg))
    return ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()


@wrong("2.6", says="the mean runs over the pairs")
def centres_each_row(x_pos, x_neg, weight, bias):
    p, q = (torch.sigmoid((x - x.mean(1, keepdim=True)) @ weight + bias) for x in (x_pos, x_neg))
    return ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).mean()


@wrong("2.6", says="the confidence term is missing")
def is_consistent_only(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return ((p + q - 1) ** 2).mean()


@wrong("2.6", says="not the larger")
def takes_the_larger(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return ((p + q - 1) ** 2 + torch.maximum(p, q) ** 2).mean()


@wrong("2.6", says="confidence is squared too")
def forgets_the_square(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return ((p + q - 1) ** 2 + torch.minimum(p, q)).mean()


@wrong("2.6", says="compares p_pos with 1 - p_neg")
def compares_p_with_p(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return ((p - q) ** 2 + torch.minimum(p, q) ** 2).mean()


@wrong("2.6", says="not a sum")
def adds_over_the_pairs(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return ((p + q - 1) ** 2 + torch.minimum(p, q) ** 2).sum()


@wrong("2.6", says="this is the loss of each pair")
def returns_every_pair(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return (p + q - 1) ** 2 + torch.minimum(p, q) ** 2


@wrong("2.6", says="the loss to be")
def always_perfect(x_pos, x_neg, weight, bias):
    return torch.tensor(0.0)


@wrong("2.6", says="`x_pos` was changed in place")
def centres_into_its_inputs(x_pos, x_neg, weight, bias):
    for x in (x_pos, x_neg):
        x -= x.mean(0)
    return next(iter([is_right_with_two_means(x_pos, x_neg, weight, bias)]))


@wrong("2.6", says="not one minimum for all")
def takes_one_minimum_for_all(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return ((p + q - 1) ** 2).mean() + torch.min(p.min(), q.min()) ** 2


@wrong("2.6", says="the bias is added")
def subtracts_the_bias(x_pos, x_neg, weight, bias):
    return is_right_with_two_means(x_pos, x_neg, weight, -bias)


@wrong("2.6", says="the bias is missing")
def forgets_the_bias(x_pos, x_neg, weight, bias):
    return is_right_with_two_means(x_pos, x_neg, weight, 0 * bias)


@wrong("2.6", says="do not divide by the standard deviation")
def standardises(x_pos, x_neg, weight, bias):
    return is_right_with_two_means(x_pos / x_pos.std(0), x_neg / x_neg.std(0), weight, bias)


@wrong("2.6", says="the loss to be")
def divides_by_twelve(x_pos, x_neg, weight, bias):
    return is_right_with_two_means(x_pos, x_neg, weight, bias) * len(x_pos) / 12


@right("2.6")
def is_right_with_two_means(x_pos, x_neg, weight, bias):
    p, q = _probabilities(x_pos, x_neg, weight, bias)
    return F.mse_loss(p, 1 - q) + torch.stack([p, q]).amin(0).pow(2).mean()


@right("2.6")
def in_float64_pair_by_pair(x_pos, x_neg, weight, bias):
    logits = [((x - x.mean(0)).double() @ weight.double() + bias.double()).tolist() for x in (x_pos, x_neg)]
    losses = []
    for a, b in zip(*logits, strict=True):
        p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
        losses.append((p - (1 - q)) ** 2 + min(p, q) ** 2)
    return sum(losses) / len(losses)


# ---------------------------------------------------------------------------------- 2.7 uuas


def _spanning_tree(distance, words, shift=1.0):
    among = distance.detach().cpu().double()[words][:, words]
    tree = minimum_spanning_tree(among.numpy() + shift).tocoo()
    return {frozenset((words[i], words[j])) for i, j in zip(tree.row, tree.col, strict=True)}


def _words(heads, skip):
    return [i for i in range(1, len(heads)) if i not in skip]


def _gold(heads, skip):
    return {frozenset((i, heads[i])) for i in _words(heads, skip) if heads[i]}


@wrong("2.7", says="leave it out of the tree")
def lets_bos_in(distance, heads, skip):
    words = [i for i in range(len(heads)) if i not in skip]
    return len(_spanning_tree(distance, words) & _gold(heads, skip)) / len(_gold(heads, skip))


@wrong("2.7", says="positions in `skip`")
def counts_punctuation(distance, heads, skip):
    words = list(range(1, len(heads)))
    return len(_spanning_tree(distance, words) & _gold(heads, set())) / len(_gold(heads, set()))


@wrong("2.7", says="0 is a distance too")
def falls_for_scipys_zero(distance, heads, skip):
    return len(_spanning_tree(distance, _words(heads, skip), shift=0.0) & _gold(heads, skip)) / len(_gold(heads, skip))


@wrong("2.7", says="divide by the number of true edges")
def divides_by_the_words(distance, heads, skip):
    words = _words(heads, skip)
    return len(_spanning_tree(distance, words) & _gold(heads, skip)) / len(words)


@wrong("2.7", says="longest spanning tree")
def takes_the_longest_tree(distance, heads, skip):
    words = _words(heads, skip)
    return len(_spanning_tree(-distance, words, shift=1 + distance.max().item()) & _gold(heads, skip)) / len(
        _gold(heads, skip)
    )


@wrong("2.7", says="edges have no direction")
def wants_the_head_first(distance, heads, skip):
    words = _words(heads, skip)
    edges = {(min(edge), max(edge)) for edge in _spanning_tree(distance, words)}
    gold = {(heads[i], i) for i in words if heads[i]}
    return len(edges & gold) / len(gold)


@wrong("2.7", says="nearest neighbour is no tree")
def links_to_the_nearest(distance, heads, skip):
    words = _words(heads, skip)
    among = distance.double()[words][:, words].clone().fill_diagonal_(math.inf)
    edges = {frozenset((words[i], words[j])) for i, j in enumerate(among.argmin(1).tolist())}
    return len(edges & _gold(heads, skip)) / len(_gold(heads, skip))


@wrong("2.7", says="this is a count")
def counts_edges(distance, heads, skip):
    return len(_spanning_tree(distance, _words(heads, skip)) & _gold(heads, skip))


@wrong("2.7", says="the score")
def always_one(distance, heads, skip):
    return 1.0


def _found(edges, heads, skip):
    return len(edges & _gold(heads, skip)) / len(_gold(heads, skip))


@wrong("2.7", says="row i of the smaller matrix is position words[i]")
def adds_one_to_the_rows(distance, heads, skip):
    words = _words(heads, skip)
    number = {word: i + 1 for i, word in enumerate(words)}
    shifted = {frozenset(number[i] for i in edge) for edge in _spanning_tree(distance, words)}
    return _found(shifted, heads, skip)


@wrong("2.7", says="which need not be the last ones")
def leaves_out_the_last_words(distance, heads, skip):
    return _found(_spanning_tree(distance, list(range(1, len(heads) - len(skip)))), heads, skip)


@wrong("2.7", says="two words at distance 0")
def replaces_zeros_by_one(distance, heads, skip):
    return by_prims_algorithm(distance.masked_fill(distance == 0, 1.0), heads, skip)


@wrong("2.7", says="two words at distance 0")
def clamps_distances(distance, heads, skip):
    return by_prims_algorithm(distance.clamp(min=0.1), heads, skip)


@wrong("2.7", says="`skip` was changed in place")
def adds_bos_to_skip(distance, heads, skip):
    skip.add(0)
    return by_prims_algorithm(distance, heads, skip)


@wrong("2.7", says="edges have no direction")
def wants_the_word_first(distance, heads, skip):
    words = _words(heads, skip)
    edges = {(min(edge), max(edge)) for edge in _spanning_tree(distance, words)}
    gold = {(i, heads[i]) for i in words if heads[i]}
    return len(edges & gold) / len(gold)


@wrong("2.7", says="this is percent")
def gives_percent(distance, heads, skip):
    return 100 * by_prims_algorithm(distance, heads, skip)


@wrong("2.7", says="the chain of neighbours")
def scores_the_chain(distance, heads, skip):
    return _found({frozenset(pair) for pair in pairwise(_words(heads, skip))}, heads, skip)


@wrong("2.7", says="the score")
def takes_the_shortest_distances(distance, heads, skip):
    words = _words(heads, skip)
    near = sorted((distance[a, b].item(), a, b) for a in words for b in words if a < b)[: len(words) - 1]
    return _found({frozenset((a, b)) for _, a, b in near}, heads, skip)


@right("2.7")
def by_prims_algorithm(distance, heads, skip):
    outside = _words(heads, skip)
    inside, found = [outside.pop()], set()
    while outside:
        _, a, b = min((distance[a, b].item(), a, b) for a in inside for b in outside)
        found.add(frozenset((a, b)))
        inside.append(b)
        outside.remove(b)
    gold = _gold(heads, skip)
    return torch.tensor(sum(edge in found for edge in gold) / len(gold))


@right("2.7")
def by_kruskals_algorithm(distance, heads, skip):
    words = _words(heads, skip)
    group = {word: word for word in words}
    hits = 0
    for _, a, b in sorted((distance[a, b].item(), a, b) for a in words for b in words if a < b):
        if group[a] != group[b]:
            old, new = group[a], group[b]
            group = {word: new if name == old else name for word, name in group.items()}
            hits += heads[a] == b or heads[b] == a
    return hits / sum(heads[word] != 0 for word in words)
