"""Checks of chapter 05. Their truths: planted features, formulas written out in float64, closed forms, scikit-learn."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from scipy.stats import beta
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from utils import session
from utils.checks.core import Attempt, describe, exercise, hint, prediction

__all__ = ["hint", "prediction"]

# One number is compared with many slips: narrow, so that none fits by chance (float32 is right to about 1e-6).
_SHARP = {"atol": 1e-5, "rtol": 1e-5}
DICTIONARY = ("W_enc", "b_enc", "W_dec", "b_dec")


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()


def _uniform(attempt: Attempt, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=attempt.generator).to(session.device())


def _order(attempt: Attempt, n: int) -> Tensor:
    return torch.randperm(n, generator=attempt.generator)


def _listed(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values.tolist()) + ")"


def _parts(attempt: Attempt, value, *names: str) -> tuple:
    """The parts of a result that has to be a tuple; their names are for the message."""
    together = ", ".join(names)
    is_sequence = isinstance(value, tuple | list)
    attempt.require(
        is_sequence and len(value) == len(names),
        f"{len(names)} results ({together})",
        f"{len(value)} results" if is_sequence else describe(value),
        f"return all of them: `return {together}`",
    )
    return tuple(value)


def _shaped(
    attempt: Attempt, parts: tuple, names: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]
) -> list[Tensor]:
    """The parts as float64 tensors of these shapes; another order and a transposed matrix are told."""
    for part, name in zip(parts, names, strict=True):
        attempt.require(isinstance(part, Tensor | np.ndarray), f"{name}, a tensor", describe(part))
    came = [tuple(part.shape) for part in parts]
    slip = ""
    if came != list(shapes) and sorted(came) == sorted(shapes):
        slip = f"the order is {', '.join(names)}"
    elif any(got == want[::-1] and len(want) == 2 and got != want for got, want in zip(came, shapes, strict=True)):
        slip = "transposed: W_enc is [d latent], W_dec is [latent d]"
    for got, want, name in zip(came, shapes, names, strict=True):
        attempt.require(got == want or not slip, f"{name} of shape {list(want)}", f"shape {list(got)}", slip)
    return [attempt.tensor(*each) for each in zip(parts, shapes, names, strict=True)]


# ------------------------------------------------------------------------- 5.1 principal_directions


@exercise(
    "5.1",
    hints=(
        "Variance is measured about the mean: subtract x.mean(0) first. The directions of largest variance are then "
        "the right singular vectors of what is left.",
        "torch.linalg.svd(centred, full_matrices=False) returns U, S, Vh; the rows of Vh are the directions, largest "
        "first. Ask before that whether n is larger than the number of columns: a slice never complains.",
        "if n > x.shape[1]: raise ValueError(f'{n} directions in {x.shape[1]} dimensions'); "
        "return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:n]",
    ),
)
def principal_directions(attempt: Attempt) -> None:
    """Truth: scikit-learn's PCA, row by row up to the sign, on data whose variances lie well apart."""
    cases = [
        ("equals scikit-learn's principal components, row by row", 60, 7, 3),
        ("also with fewer samples than dimensions", 9, 14, 4),
        ("as many directions as dimensions", 50, 5, 5),
    ]
    for name, samples, d, n in cases:
        with attempt.holds(name):
            # "" is in every message: here any error means that the answer refuses what is allowed
            told = "no error here: n may be as large as d, and there may be fewer samples than dimensions"
            attempt.on_error = {"": told} if n == d or samples < d else {}
            x = _spread(attempt, samples, d)
            _compare_directions(attempt, x, n, attempt(x, n))
    attempt.on_error = {}
    with attempt.holds("many samples, which vary along other directions at first than later"):
        x = _spread(attempt, 300, 6)
        centred = (x - x.mean(0)).double()
        x = x[(centred @ torch.linalg.svd(centred).Vh[0]).abs().argsort()]  # the same cloud, from the middle outwards
        _compare_directions(attempt, x, 3, attempt(x, 3))
    with attempt.holds("no more directions than dimensions"):
        for d, n in ((5, 6), (4, 9)):
            x = _spread(attempt, 40, d)
            _require_value_error(
                attempt, (x, n), f"{n} directions in {d} dimensions", "if n > x.shape[1]: raise ValueError(...)"
            )


def _spread(attempt: Attempt, samples: int, d: int) -> Tensor:
    """Rows with variances that fall by a factor of about two from one direction to the next; a mean far from 0."""
    base = attempt.randn(samples, min(d, samples - 1))
    left = torch.linalg.qr(base - base.mean(0))[0]
    axes = torch.linalg.qr(attempt.randn(d, d))[0][: left.shape[1]]
    size = 3 * 0.7 ** torch.arange(left.shape[1], device=left.device)
    return (left * size * samples**0.5) @ axes + 6 * torch.sign(attempt.randn(d)) * (0.5 + _uniform(attempt, d))


def _require_value_error(attempt: Attempt, args: tuple, about: str, slip: str) -> None:
    """The answer has to raise ValueError on these inputs."""
    answer, raised, other = attempt.answer, [], []

    @functools.wraps(answer)
    def watched(*given):
        try:
            return answer(*given)
        except ValueError as error:
            raised.append(error)
            return "ValueError"
        except Exception as error:
            other.append(type(error).__name__)
            return other[-1]

    attempt.answer = watched
    try:
        value = attempt(*args)
    finally:
        attempt.answer = answer
    came = f"another error, {other[-1]}" if other else describe(value)
    attempt.require(bool(raised), f"a ValueError for {about}", came, slip)


def _compare_directions(attempt: Attempt, x: Tensor, n: int, value) -> None:
    d = x.shape[1]
    got = attempt.tensor(value, what="the directions")
    slip = "transposed: each row is a direction" if tuple(got.shape) == (d, n) and d != n else ""
    if tuple(got.shape) == (len(x), n) and not slip:
        slip = "these are the coordinates of the samples: return the directions, [n d]"
    attempt.require(tuple(got.shape) == (n, d), f"directions of shape [{n}, {d}]", f"shape {list(got.shape)}", slip)
    rows = x.double().cpu()
    pca = PCA(n, svd_solver="full").fit(rows.numpy())
    want = torch.tensor(pca.components_)
    centred = rows - rows.mean(0)
    columns = torch.linalg.svd(centred).Vh.T[:n]  # V in the place of Vh
    upwards = torch.linalg.eigh(centred.T @ centred).eigenvectors
    turned = "torch.linalg.eigh's eigenvectors are the columns: transpose them, and the largest come last"
    slips = [
        (_components(rows)[:n], "x is not centred: subtract x.mean(0), else the first row is where the mean lies"),
        (
            _components(centred / centred.std(0))[:n],
            "x was standardised: these are directions of the correlations, not of the variance",
        ),
        (_components(rows - rows.mean(1, keepdim=True))[:n], "the mean runs over the samples: x.mean(0)"),
        (_components(rows - rows.mean())[:n], "each dimension has a mean of its own: x.mean(0)"),
        (want.flip(0), "the smallest of them comes first: the largest variance belongs first"),
        (upwards.T[:n], "these vary least: torch.linalg.eigh sorts upwards, the largest come last"),
        (_components(centred)[-n:], "these vary least: the largest come first in torch.linalg.svd"),
        (
            _components(centred[:100] - centred[:100].mean(0))[:n] if len(x) > 100 else want.flip(0),
            "all samples count, not only the first",
        ),
        (columns, "torch.linalg.svd returns V transposed already: take its first rows"),
        (upwards[:n], turned),
        (upwards[-n:], turned),
        (upwards[-n:].flip(0), turned),
    ]
    close = functools.partial(torch.allclose, atol=5e-3)
    if not close(got.norm(dim=1), torch.ones(n, dtype=got.dtype)):
        direction = normalize(got, dim=1)
        is_scaled = close(_signed(want, direction), direction)
        attempt.fail(
            "rows of length 1",
            f"lengths {_listed(got.norm(dim=1))}",
            "these are the right directions, but not of length 1: leave the singular values out" if is_scaled else "",
        )
    # signs are free: give every candidate those of the answer
    slips = [(_signed(wrong, got), told) for wrong, told in slips if wrong.shape == got.shape]
    # signs of singular vectors are chance too where they change the rows that are read: compare without them
    slips += [(got, told) for wrong, told in slips if told.startswith("torch.linalg") and close(got.abs(), wrong.abs())]
    attempt.close(got, _signed(want, got), atol=5e-3, what="the directions (signs are free)", slips=slips)


def _components(rows: Tensor) -> Tensor:
    return torch.linalg.svd(rows, full_matrices=False).Vh


def _signed(rows: Tensor, like: Tensor) -> Tensor:
    """The rows, each with the sign that brings it nearer to the other's."""
    return torch.where((rows * like).sum(1, keepdim=True) < 0, -rows, rows)


# -------------------------------------------------------------------------------------- 5.2 sae_loss


@exercise(
    "5.2",
    hints=(
        "Three lines for three results. The bias b_dec is subtracted before the encoder and added after the decoder.",
        "z = torch.relu((x - b_dec) @ W_enc + b_enc) is [sample latent]; x_hat = z @ W_dec + b_dec is [sample d]. In "
        "the loss, sum over the last axis first, then take the mean over the samples, for both terms.",
        "loss = ((x - x_hat) ** 2).sum(-1).mean() + l1 * z.sum(-1).mean(); return loss, z, x_hat",
    ),
)
def sae_loss(attempt: Attempt) -> None:
    """Truth: the formula written out number by number in float64, and its slope by finite differences."""
    attempt.on_error["cannot be multiplied"] = "rows are samples: (x - b_dec) @ W_enc, and z @ W_dec on the way back"
    attempt.on_error["Can't call numpy()"] = "stay in torch: training needs the gradient of the loss"
    with attempt.holds("latents, reconstruction and loss follow the formula"):
        # square matrices first, so that transposed ones fit as well
        for samples, d, n in ((6, 6, 6), (11, 4, 9), (5, 7, 3)):
            args = _dictionary_inputs(attempt, samples, d, n)
            _compare_loss(attempt, args, attempt(*args))
    with attempt.holds("a dictionary that loses nothing costs nothing, but for the penalty"):
        axes = torch.linalg.qr(attempt.randn(5, 5))[0]
        b_dec = 2 * attempt.randn(5)
        x = _uniform(attempt, 8, 5) @ axes + b_dec
        zero = torch.zeros(5, device=x.device)
        for l1 in (0.0, 0.4):
            args = (x, axes.T, zero, axes, b_dec, l1)
            loss, _, x_hat = _parts(attempt, attempt(*args), "loss", "z", "x_hat")
            attempt.close(x_hat, x, what="x_hat")
            penalty = l1 * float(((x - b_dec) @ axes.T).double().sum()) / 8
            attempt.close(loss, penalty, what="the loss", slips=_loss_slips(args))
    with attempt.holds("the gradient is that of the formula, for all four parameters"):
        _require_gradient(attempt)


def _dictionary_inputs(attempt: Attempt, samples: int, d: int, n: int) -> tuple:
    """x, W_enc, b_enc, W_dec, b_dec, l1: pre-activations of both signs, a b_dec that matters."""
    b_dec = 1.5 * attempt.randn(d)
    W_enc, b_enc = 0.6 * attempt.randn(d, n), 0.5 * attempt.randn(n)
    return b_dec + attempt.randn(samples, d), W_enc, b_enc, attempt.randn(n, d) * d**-0.5, b_dec, 0.3


def _loss_truth(args: tuple) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Error and penalty (without l1), z and x_hat, number by number."""
    x, W_enc, b_enc, W_dec, b_dec = args[:5]
    z, x_hat = np.zeros((len(x), len(b_enc))), np.zeros(x.shape)
    for i, row in enumerate(x):
        for j in range(len(b_enc)):
            z[i, j] = max(0.0, sum((row[k] - b_dec[k]) * W_enc[k, j] for k in range(len(row))) + b_enc[j])
        for k in range(len(row)):
            x_hat[i, k] = sum(z[i, j] * W_dec[j, k] for j in range(len(b_enc))) + b_dec[k]
    return ((x - x_hat) ** 2).sum() / len(x), z.sum() / len(x), z, x_hat


def _compare_loss(attempt: Attempt, args: tuple, value) -> None:
    loss, z, x_hat = _parts(attempt, value, "loss", "z", "x_hat")
    samples, d, n = len(args[0]), *args[1].shape
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else () for part in (loss, z, x_hat)]
    if shapes[0] and () in shapes[1:]:
        attempt.fail(
            "the loss first, then z, then x_hat", f"shapes {[list(s) for s in shapes]}", "the order is loss, z, x_hat"
        )
    if (shapes[1], shapes[2]) == ((samples, d), (samples, n)) and d != n:
        attempt.fail(f"z of shape [{samples}, {n}]", f"shape {[samples, d]}", "the order is loss, z, x_hat")
    error, penalty, z_true, written = _loss_truth(tuple(map(_array, args[:5])))
    x, W_enc, b_enc, W_dec, b_dec = (t.double().cpu() for t in args[:5])
    pre = (x - b_dec) @ W_enc + b_enc
    middle = "the bias b_dec is subtracted from x first: (x - b_dec) @ W_enc + b_enc"
    z_slips = [
        (written, "the order is loss, z, x_hat"),
        (pre, "the ReLU is missing: a latent is never below 0"),
        ((x @ W_enc + b_enc).relu(), middle),
        (((x + b_dec) @ W_enc + b_enc).relu(), middle),
        (((x - b_dec) @ W_enc).relu(), "b_enc is missing: it is added before the ReLU"),
        (((x - b_dec) @ W_enc).relu() + b_enc, "b_enc is added before the ReLU, not after it"),
        (((x - b_dec) @ W_enc - b_enc).relu(), "b_enc is added, not subtracted"),
        (((x - b_dec) @ W_dec.T + b_enc).relu(), "the encoder is W_enc, not W_dec transposed"),
        (pre.abs(), "a ReLU, not the absolute value"),
        (torch.nn.functional.leaky_relu(pre), "a plain ReLU, not a leaky one: a latent is never below 0"),
        (torch.nn.functional.gelu(pre), "a plain ReLU, not GELU: a latent is never below 0"),
    ]
    if d == n:
        z_slips.append((((x - b_dec) @ W_enc.T + b_enc).relu(), "W_enc is [d latent]: (x - b_dec) @ W_enc"))
    attempt.close(z, torch.tensor(z_true), what="z", slips=z_slips)
    right = pre.relu()
    x_slips = [
        (right @ W_dec, "b_dec is missing: what was subtracted before the encoder is added after the decoder"),
        (right @ W_dec - b_dec, "b_dec is added after the decoder, not subtracted"),
        ((right @ W_dec + b_dec).relu(), "no ReLU on what is written: x has both signs"),
        (pre @ W_dec + b_dec, "the reconstruction is made of z, not of the pre-activations"),
        (right @ W_enc.T + b_dec, "the decoder is W_dec, not W_enc transposed"),
        (right @ normalize(W_dec, dim=1) + b_dec, "W_dec as it is: its rows get length 1 in training, not here"),
    ]
    if d == n:
        x_slips.append((right @ W_dec.T + b_dec, "W_dec is [latent d]: z @ W_dec"))
    attempt.close(x_hat, torch.tensor(written), what="x_hat", slips=x_slips)
    attempt.close(loss, error + args[5] * penalty, what="the loss", slips=_loss_slips(args))


def _loss_slips(args: tuple) -> list[tuple]:
    """Every error with every penalty, one of them wrong or both."""
    *tensors, l1 = args
    arrays = tuple(map(_array, tensors))
    x, (_, _, z, x_hat) = arrays[0], _loss_truth(arrays)
    gap, n = x - x_hat, len(x)
    pre = (x - arrays[4]) @ arrays[1] + arrays[2]
    along = "sum over d, then the mean over the samples"
    errors = [
        ((gap**2).sum() / n, ""),
        ((gap**2).mean(), f"the squared error is averaged over d too: {along}"),
        ((gap**2).sum(), f"the squared error is summed over the samples too: {along}"),
        ((gap**2).sum() / gap.shape[1], f"the two are exchanged: {along}"),
        ((gap**2).sum() / n / 2, "there is no factor of 1/2 on the error"),
        (np.abs(gap).sum() / n, "the error is squared, not its absolute value"),
        (np.sqrt((gap**2).sum(1)).mean(), "no root: the error is the squared distance"),
        (((x - arrays[4] - x_hat) ** 2).sum() / n, "x_hat is compared with x, b_dec included"),
        (0.0, "the squared error is missing"),
    ]
    penalties = [
        (z.sum() / n, ""),
        (0.0, "the penalty is missing: l1 times the sum of the latents"),
        (z.mean(), "the penalty is averaged over the latents: sum over them, then the mean over the samples"),
        (z.sum(), "the penalty is summed over the samples too: sum over latents, then the mean over the samples"),
        ((z > 0).sum() / n, "the penalty counts active latents (L0): L1 is the sum of their values"),
        ((z**2).sum() / n, "the penalty squares the latents: L1 is the plain sum"),
        (np.sqrt((z**2).sum(1)).mean(), "this penalty is the length of z: L1 is the plain sum"),
        (np.abs(pre).sum() / n, "the penalty is on z, not on the pre-activations"),
        (pre.sum() / n, "the penalty is on z, not on the pre-activations"),
        (-z.sum() / n, "the sign: the penalty is added"),
        (z.sum() / n / 2, "there is no factor of 1/2 on the penalty"),
        (z.sum() / n / l1 if l1 else z.sum() / n, "the factor l1 is missing"),
        (l1 * z.sum() / n, "l1 enters once, not squared"),
        (
            (z * np.linalg.norm(arrays[3], axis=1)).sum() / n,
            "the penalty is on z alone, not weighted by lengths of rows",
        ),
        (np.abs(arrays[1]).sum(), "the penalty is on z, not on the weights"),
        (np.abs(arrays[3]).sum(), "the penalty is on z, not on the weights"),
    ]
    slips = []
    for (error, one), (penalty, other) in product(errors, penalties):
        told = "; ".join(filter(None, (one, other)))
        if told:
            slips.append((error + l1 * penalty, told))
    per_sample = (gap**2).sum(1) + l1 * z.sum(1)
    slips.append((torch.tensor(per_sample), "this is the loss of each sample: return the mean over the samples"))
    return slips


def _require_gradient(attempt: Attempt) -> None:
    x, *parameters, l1 = _dictionary_inputs(attempt, 9, 5, 7)
    parameters = [p.requires_grad_() for p in parameters]
    loss = _parts(attempt, attempt(x, *parameters, l1), "loss", "z", "x_hat")[0]
    attempt.require(
        isinstance(loss, Tensor) and loss.requires_grad,
        "a loss that can be trained on",
        "a number without gradient",
        "return the tensor itself: no .item(), .detach(), .data, numpy or torch.no_grad() on the way",
    )
    gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    arrays = [_array(x), *map(_array, parameters)]
    for place, (name, gradient) in enumerate(zip(DICTIONARY, gradients, strict=True), start=1):
        attempt.require(
            gradient is not None,
            f"a gradient for {name}",
            "none: the loss does not depend on it",
            "no .detach(), .data or torch.no_grad() between the parameters and the loss",
        )
        step = torch.randn(gradient.shape, generator=attempt.generator, dtype=torch.float64).numpy()
        slopes = []
        for sign in (1e-6, -1e-6):
            moved = list(arrays)
            moved[place] = arrays[place] + sign * step
            slopes.append(np.array(_loss_truth(tuple(moved))[:2]))
        error, penalty = (slopes[0] - slopes[1]) / 2e-6
        attempt.close(
            float((_array(gradient) * step).sum()),
            float(error + l1 * penalty),
            atol=2e-3,
            rtol=2e-3,
            what=f"the slope of the loss along a step of {name}",
            slips=[
                (float(error), "the penalty has no gradient: z is detached there"),
                (float(l1 * penalty), "the squared error has no gradient: x_hat is detached there"),
            ],
        )


# ------------------------------------------------------------------------------------- 5.3 train_sae

_SAMPLES = 20_000


class _Planted:
    """Features in directions no two of which are closer than a cosine of 0.5, each on rarely, with values 0.5 to 1.5.

    Easier than the chapter's features, so that a simple trainer finds nearly all of them within 1500 steps.
    """

    def __init__(self, attempt: Attempt, n_features: int, d: int, often: float, offset: float = 0.0):
        self.attempt, self.often = attempt, often
        found = normalize(torch.randn(1, d, generator=attempt.generator), dim=1)
        while len(found) < n_features:
            other = normalize(torch.randn(1, d, generator=attempt.generator), dim=1)
            if float((found @ other.T).abs().max()) < 0.5:
                found = torch.cat([found, other])
        self.directions = found
        self.offset = offset * normalize(torch.randn(d, generator=attempt.generator), dim=0)

    def sample(self, n: int) -> Tensor:
        shape = (n, len(self.directions))
        on = torch.rand(shape, generator=self.attempt.generator) < self.often
        values = 0.5 + torch.rand(shape, generator=self.attempt.generator)
        return ((values * on) @ self.directions + self.offset).to(session.device())


class _Batches(TorchDispatchMode):
    """What a trainer reads: counts operations, and notes which rows of x stand together in one tensor.

    A trainer that scales x first reads no rows of x: then nothing is noted.
    """

    def __init__(self, x: Tensor, n_latents: int):
        super().__init__()
        rows = x.cpu().float().numpy()
        self.place = {row.tobytes(): i for i, row in enumerate(rows)}
        self.whole, self.n_latents = rows.shape, n_latents
        self.operations = self.n_whole = 0
        self.seen: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        for each in (*args, result):
            if isinstance(each, Tensor) and each.dim() == 2 and each.is_floating_point():
                self._note(each.detach(), each is result)
        return result

    def _note(self, tensor: Tensor, is_result: bool) -> None:
        n, d = self.whole
        if is_result and tuple(tensor.shape) == (n, self.n_latents):
            self.n_whole += 1
        if tensor.shape[1] != d or not 1 < len(tensor) < n:
            return
        rows = tensor.cpu().float().contiguous().numpy()
        if rows[0].tobytes() in self.place and rows[-1].tobytes() in self.place:
            places = tuple(self.place.get(row.tobytes(), -1) for row in rows)
            if -1 not in places:
                self.seen.append(places)


@exercise(
    "5.3",
    hints=(
        "Draw W_dec from torch.randn with a generator seeded by `seed`, divide each row by its length, and start W_enc "
        "as its transposed copy; both biases at 0. All four are leaves with requires_grad, and Adam gets all four.",
        "Each step: 256 random rows of x, the loss of 5.2, zero_grad, backward, step. Then, without gradient, divide "
        "each row of W_dec by its length. The learning rate of a step is 0.01 * min(1, 3 * (1 - step / steps)).",
        "for step in range(steps): optimizer.param_groups[0]['lr'] = 0.01 * min(1, 3 * (1 - step / steps)); batch = "
        "x[torch.randint(len(x), (256,), generator=generator)]; loss, _, _ = sae_loss(batch, W_enc, b_enc, W_dec, "
        "b_dec, l1); optimizer.zero_grad(); loss.backward(); optimizer.step(); then: with torch.no_grad(): "
        "W_dec /= W_dec.norm(dim=1, keepdim=True)",
    ),
)
def train_sae(attempt: Attempt) -> None:
    """Truth: the planted features, on fresh samples; the condition that holds where the loss cannot be made smaller."""
    # An answer may draw from torch's global generator: seeded (on the CPU), so that a run of the check can be repeated.
    torch.random.default_generator.manual_seed(int(attempt.randint(0, 10**9, 1)))
    attempt.on_error["a leaf Variable that requires grad"] = (
        "change weights inside `with torch.no_grad():`, as the optimiser does"
    )
    attempt.on_error["can't optimize a non-leaf"] = (
        "make the leaf last: W_enc = W_dec.detach().T.clone().requires_grad_()"
    )
    with attempt.holds("four parameters; decoder rows of length 1; the encoder starts as the decoder, transposed"):
        x = _Planted(attempt, 6, 7, 0.1).sample(_SAMPLES)
        _require_start(attempt, x, _trained(attempt, x, 11, 0.1, 1, 3))
    with attempt.holds("the seed decides where it starts"):
        _require_seeded(attempt, x)
    with attempt.holds("every step on random samples of its own"):
        _require_batches(attempt, attempt.randn(_SAMPLES, 7))
    with attempt.holds("a larger penalty: less is active"):
        _require_penalty(attempt, x)
    for n_features, d, n_latents, often, l1, offset, seed in (
        (32, 24, 48, 0.04, 0.5, 0.0, 0),
        (30, 28, 36, 0.04, 0.4, 1.0, 7),
    ):
        planted = _Planted(attempt, n_features, d, often, offset)
        x = planted.sample(_SAMPLES)
        with attempt.holds(
            f"{n_features} features in {d} dimensions, shifted by {offset:.0f}: the planted ones are found"
        ):
            start, trained = (_trained(attempt, x, n_latents, l1, steps, seed) for steps in (1, 1500))
            run = _Run(attempt, planted, trained, l1, start)
            run.require_unit_rows()
            run.require_balance()
            run.require_reconstruction()
            run.require_recovery()


def _trained(attempt: Attempt, x: Tensor, n_latents: int, l1: float, steps: int, seed: int) -> list[Tensor]:
    d = x.shape[1]
    parts = _parts(attempt, attempt(x, n_latents, l1, steps, seed), *DICTIONARY)
    for part, name in zip(parts, DICTIONARY, strict=True):
        # A flag alone does no harm; a graph, or the gradient of the last step, would come along into all later work.
        has_graph = isinstance(part, Tensor) and part.grad_fn is not None
        attempt.require(
            not has_graph and not (isinstance(part, Tensor) and part.grad is not None),
            f"{name} without gradients",
            "the graph of its making with it" if has_graph else "the parameter itself, with its last gradient",
            "return detached ones: tuple(w.detach() for w in (W_enc, b_enc, W_dec, b_dec))",
        )
    return _shaped(attempt, parts, DICTIONARY, ((d, n_latents), (n_latents,), (n_latents, d), (d,)))


def _require_unit_rows(attempt: Attempt, W_dec: Tensor) -> None:
    length = W_dec.norm(dim=1)
    slip = "after every step: W_dec /= W_dec.norm(dim=1, keepdim=True), without gradient"
    if bool((W_dec.norm(dim=0) - 1).abs().max() < 1e-3):
        slip = "the columns have length 1: the rows are the directions, W_dec.norm(dim=1, keepdim=True)"
    attempt.require(
        bool((length - 1).abs().max() < 1e-3),
        "rows of W_dec of length 1",
        f"lengths from {float(length.min()):.3g} to {float(length.max()):.3g}",
        slip,
    )


def _require_start(attempt: Attempt, x: Tensor, trained: list[Tensor]) -> None:
    """After one step of Adam no weight has gone further than the learning rate."""
    W_enc, _, W_dec, _ = trained
    _require_unit_rows(attempt, W_dec)
    apart = float((W_enc - W_dec.T).abs().mean())
    if apart >= 0.04:
        dense = attempt.randn(*x.shape)  # no two rows alike
        with _Batches(dense, W_enc.shape[1]) as read:
            attempt(dense, W_enc.shape[1], 0.1, 1, 3)
        slip = "W_enc starts as a copy of W_dec transposed, after the rows of W_dec got length 1"
        if (batches := len(set(read.seen))) > 1:
            slip = f"{batches} batches were read where `steps` is 1: the number of steps is the argument `steps`"
        attempt.fail(
            "after one step a W_enc that is still about W_dec transposed",
            f"numbers that differ by {apart:.2f} on average",
            slip,
        )


def _require_seeded(attempt: Attempt, x: Tensor) -> None:
    def start(seed: int) -> Tensor:
        torch.random.default_generator.manual_seed(int(attempt.randint(0, 10**9, 1)))
        return _trained(attempt, x, 11, 0.1, 1, seed)[2]

    one, again, other = start(5), start(5), start(6)
    attempt.require(
        float((one - again).abs().mean()) < 0.04,
        "the same start from the same seed",
        "another W_dec after one step",
        "draw with torch.randn(..., generator=torch.Generator().manual_seed(seed))",
    )
    attempt.require(
        float((one - other).abs().mean()) > 0.1,
        "another start from another seed",
        "the same W_dec after one step",
        "the seed is the argument `seed`",
    )


def _require_batches(attempt: Attempt, x: Tensor) -> None:
    counts = []
    for steps in (3, 9):
        with _Batches(x, 11) as read:
            attempt(x, 11, 0.1, steps, 2)
        counts.append(read)
    short, long = counts
    attempt.require(
        long.operations > short.operations,
        "more work for 9 steps than for 3",
        f"{short.operations} operations of torch for either",
        "the number of steps is the argument `steps`",
    )
    rows = [np.array(each) for each in dict.fromkeys(long.seen)]
    attempt.require(
        bool(rows) or long.n_whole < 9,
        f"a batch of some hundred samples in each step, out of {len(x)}",
        "all samples in each step",
        "draw a batch: x[torch.randint(len(x), (256,), generator=generator)]",
    )
    largest = max(map(len, rows), default=256)
    attempt.require(
        largest >= 200, "256 samples in each step", f"{largest}", "draw 256: fewer make each step's gradient noisier"
    )
    attempt.require(
        len({tuple(sorted(each)) for each in rows}) != 1,
        "other samples in each of 9 steps",
        "the same in all of them",
        "one batch serves all steps: draw a fresh one inside the loop",
    )
    in_order = [bool((np.diff(each) == 1).all()) for each in rows]
    attempt.require(
        not rows or not all(in_order),
        "samples drawn at random",
        "runs of samples as they stand in x",
        "draw them at random (torch.randint, or slices of a torch.randperm): neighbours in x may be alike",
    )


def _require_penalty(attempt: Attempt, x: Tensor) -> None:
    start, light, heavy = (_trained(attempt, x, 11, l1, steps, 1) for l1, steps in ((0.05, 1), (0.05, 300), (1.5, 300)))
    x = x.double().cpu()
    totals = [float(_latents(x, trained).sum(1).mean()) for trained in (light, heavy)]
    slip = "is l1 times the sum of the latents part of the loss?"
    if float((light[0] - start[0]).abs().mean()) < 0.05:
        slip = "the weights have hardly moved in 300 steps: optimizer.step(), and a learning rate of 0.01"
    attempt.require(
        totals[1] < 0.7 * totals[0],
        "a sum of latents that is much smaller with l1 = 1.5 than with l1 = 0.05",
        f"{totals[1]:.2f} and {totals[0]:.2f}",
        slip,
    )
    for name, first, last in zip(DICTIONARY, start, light, strict=True):
        attempt.require(
            float((last - first).abs().mean()) > 1e-5,
            f"a {name} that 300 steps have moved",
            "what it was after one step",
            f"{name} has not moved from its start: has it requires_grad, and a place in the optimiser's list?",
        )
    apart = float((light[0] - light[2].T).abs().mean())
    attempt.require(
        apart > 1e-3,
        "after 300 steps a W_enc that has moved away from W_dec transposed",
        f"W_dec transposed (numbers that differ by {apart:.1g} on average)",
        "W_enc is a parameter of its own: start it as W_dec.T.clone(), and give Adam all four",
    )


def _latents(x: Tensor, trained: list[Tensor]) -> Tensor:
    W_enc, b_enc, _, b_dec = trained
    return ((x - b_dec) @ W_enc + b_enc).relu()


class _Run:
    """A trained dictionary, judged on fresh samples.

    Right answers were measured with Adam at 1e-3, 2e-3 and 3e-3, batches of 256 and 512, eight seeds of data and start
    each, on both settings: they balance 0.93 to 1.02 of l1, leave 7 to 13% of the variance unexplained, and recover 77
    to 100% of the directions (93 to 100% at 2e-3 and 3e-3). A random dictionary recovers none.
    """

    def __init__(self, attempt: Attempt, planted: _Planted, trained: list[Tensor], l1: float, start: list[Tensor]):
        self.attempt, self.planted, self.l1 = attempt, planted, l1
        self.trained, self.start, self.W_dec = trained, start, trained[2]
        x = planted.sample(5000).double().cpu()
        z = _latents(x, trained)
        error, self.active = x - (z @ self.W_dec + trained[3]), z > 0
        self.fvu = float(error.pow(2).sum() / (x - x.mean(0)).pow(2).sum())
        # Where b_enc is at its optimum: the mean of 2 error . W_dec over the samples on which a latent is active is l1.
        self.weight = float((2 * error @ self.W_dec.T * self.active).sum() / self.active.sum().clamp_min(1))

    def require_unit_rows(self) -> None:
        _require_unit_rows(self.attempt, self.W_dec)

    def require_balance(self) -> None:
        attempt, l1 = self.attempt, self.l1
        attempt.require(
            bool(self.active.any()),
            "latents that are active",
            "none, on any of 5000 samples",
            "is optimizer.zero_grad() called in each step? Is the squared error summed over d (not averaged), and the "
            "penalty averaged over the samples?",
        )
        slip = "not at the minimum of the loss of 5.2 (is it that loss, is the learning rate 0.01?)"
        if self.weight < 0.4 * l1:
            slip = (
                "hardly any penalty: l1 times the sum over the latents (not their mean), and rows of length 1 after "
                "every step, since longer rows evade the penalty"
            )
            if self.weight < -0.05 * l1:
                slip = (
                    "far from any minimum: is optimizer.zero_grad() called in each step, and is the loss that of 5.2?"
                )
        elif self.weight < 0.65 * l1:
            slip = "half of the penalty, or twice the squared error: the loss is that of 5.2"
        elif self.weight > 1.6 * l1:
            slip = (
                "the penalty weighs too much: is the squared error summed over d (not averaged, not halved), and do "
                "the rows get length 1 after every step (not once at the end)?"
            )
        slip = self._untrained() or slip
        attempt.require(
            0.75 * l1 < self.weight < 1.3 * l1,
            f"errors that balance a penalty of l1 = {l1} (2 error . W_dec where a latent is active, on average)",
            f"they balance one of {self.weight:.2g}",
            slip,
        )

    def _untrained(self) -> str:
        for name, first, last in zip(DICTIONARY, self.start, self.trained, strict=True):
            if bool((last == 0).all()) or (last.dim() == 2 and float((last - first).abs().mean()) < 0.01):
                return (
                    f"{name} has not moved from its start: has it requires_grad, and a place in the optimiser's list?"
                )
        return ""

    def require_reconstruction(self) -> None:
        limit = 0.25
        self.attempt.require(
            self.fvu < limit,
            f"less than {limit} of the variance unexplained on fresh samples",
            f"{self.fvu:.2f}",
            self._untrained()
            or "is the squared error summed over d (averaged, it weighs too little)? Each of `steps` steps: zero_grad, "
            "backward, step, with a learning rate of 0.01",
        )

    def require_recovery(self) -> None:
        live = self.active.any(0)
        cosine = cosine_similarity(self.planted.directions.numpy(), self.W_dec[live].numpy())
        share, wanted = float((cosine.max(1) > 0.9).mean()), 0.6
        self.attempt.require(
            share >= wanted,
            f"{wanted:.0%} of the planted directions recovered (a cosine above 0.9 with a decoder row)",
            f"{share:.0%}, on average a cosine of {cosine.max(1).mean():.2f}",
            self._untrained() or "not at the minimum of the loss of 5.2: is the learning rate 0.01?",
        )


# -------------------------------------------------------------------------------------- 5.4 recovery


@exercise(
    "5.4",
    hints=(
        "All cosines at once are one matrix product of unit rows: [feature latent]. Then the largest of each row.",
        "Dead latents must not win: set their columns to -inf before the maximum (not to 0, which would beat a "
        "negative cosine). Leaving them out of W_dec instead changes the numbering.",
        "cosine = F.normalize(directions, dim=1) @ F.normalize(W_dec, dim=1).T; best = cosine.masked_fill(~live, "
        "-torch.inf).max(dim=1); return best.values, best.indices",
    ),
)
def recovery(attempt: Attempt) -> None:
    """Truth: a planted permutation of the features among the latents, and scikit-learn's cosine similarity."""
    attempt.on_error["cannot be multiplied"] = "rows are directions: directions @ W_dec.T is [feature latent]"
    cases = [
        ("finds the planted latents behind noise, signs, lengths and dead doubles", 6, 18, 12),
        ("as many latents as features", 9, 9, 7),
        ("more features than latents", 12, 5, 6),
    ]
    for name, n_features, n_latents, d in cases:
        with attempt.holds(name):
            directions, W_dec, live, place = _hidden_features(attempt, n_features, n_latents, d)
            _compare_recovery(attempt, directions, W_dec, live, place)
    with attempt.holds("features of any length: a cosine, not a product"):
        directions, W_dec, live, _ = _hidden_features(attempt, 6, 18, 12)
        _compare_recovery(attempt, directions * (0.5 + 2 * _uniform(attempt, 6, 1)), W_dec, live)
    with attempt.holds("the largest cosine even where it is negative"):
        f = normalize(attempt.randn(1, 8), dim=1)
        W_dec = torch.cat([0.4 * attempt.randn(2, 8) - f, f, 0.4 * attempt.randn(2, 8) - f])
        W_dec = W_dec - 0.2 * f
        live = torch.tensor([False, True, False, True, True], device=f.device)
        _compare_recovery(attempt, torch.cat([f, normalize(attempt.randn(2, 8), dim=1)]), W_dec, live)


def _hidden_features(attempt: Attempt, n_features: int, n_latents: int, d: int) -> tuple:
    """Features, a dictionary with some of them, which of its latents live, and the place of each feature (-1: none).

    One half of the latents that are left over are dead and hold a feature without noise; the rest are features turned
    round. All have lengths of their own.
    """
    directions = normalize(attempt.randn(n_features, d), dim=1)
    n_hidden = min(n_features, n_latents) * 2 // 3 if n_latents <= n_features else n_features
    latents, chosen = _order(attempt, n_latents), _order(attempt, n_features)[:n_hidden]
    place = torch.full((n_features,), -1)
    place[chosen] = latents[:n_hidden]
    W_dec, live = torch.zeros(n_latents, d, device=directions.device), torch.ones(n_latents, dtype=torch.bool)
    W_dec[latents[:n_hidden]] = directions[chosen] + 0.3 * d**-0.5 * attempt.randn(n_hidden, d)
    for turn, latent in enumerate(latents[n_hidden:]):
        feature = directions[chosen[turn % n_hidden]]
        W_dec[latent] = feature if turn % 2 == 0 else 0.1 * d**-0.5 * attempt.randn(d) - feature
        live[latent] = turn % 2 == 1
    return directions, W_dec * (0.4 + 2 * _uniform(attempt, n_latents, 1)), live.to(directions.device), place


def _compare_recovery(
    attempt: Attempt, directions: Tensor, W_dec: Tensor, live: Tensor, place: Tensor | None = None
) -> None:
    cosine, latent = attempt.pair(attempt(directions, W_dec, live), "cosine", "latent")
    table = torch.tensor(cosine_similarity(_array(directions), _array(W_dec)))
    alive = live.cpu().nonzero()[:, 0]
    best = table[:, alive].max(1)
    truth = alive[best.indices]
    slips = list(_recovery_slips(directions, W_dec, live, table))
    if _is_like(latent, best.values) and _is_like(cosine, truth.double()):
        attempt.fail("the cosines first, then the latents", "the two exchanged", "return cosine, latent")
    attempt.close(cosine, best.values, what="the cosine", slips=[(wrong[0], told) for wrong, told in slips])
    attempt.close(latent, truth, what="the latent", slips=[(wrong[1], told) for wrong, told in slips])
    if place is not None:
        known, found = place >= 0, attempt.tensor(latent).long()
        attempt.require(
            bool((found == place)[known].all()),
            f"the latents {place[known].tolist()} in which the features were hidden",
            f"{found[known].tolist()}",
        )


def _is_like(value, want: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.shape == want.shape
        and torch.allclose(value.detach().cpu().double(), want, atol=1e-4)
    )


def _recovery_slips(directions: Tensor, W_dec: Tensor, live: Tensor, table: Tensor) -> Iterator[tuple]:
    """(cosine, latent) as known slips give them."""
    live, alive = live.cpu(), live.cpu().nonzero()[:, 0]
    directions, W_dec = directions.double().cpu(), W_dec.double().cpu()

    def masked(table: Tensor, fill: float = -torch.inf) -> Tensor:
        return table.masked_fill(~live, fill)

    def pick(table: Tensor) -> tuple[Tensor, Tensor]:
        best = table.max(1)
        return best.values, best.indices

    values, latents = pick(masked(table))
    yield (
        (table[:, alive].max(1).values, table[:, alive].max(1).indices),
        ("this numbers the live latents alone: number them in the whole dictionary"),
    )
    length = "a cosine: divide each row by its length first"
    yield pick(table), "dead latents are counted too: they never fire, whatever their rows look like"
    yield (
        pick(masked(table, 0.0)),
        "a dead latent got 0 (or a clamp made it of negative cosines), which beats negative cosines: -torch.inf",
    )
    by_size = pick(masked(table.abs(), -1.0))[1]
    yield (
        (table.gather(1, by_size[:, None])[:, 0], by_size),
        "signs matter: the largest cosine, not the largest in size",
    )
    by_product = pick(masked(directions @ W_dec.T))[1]
    yield (
        (table.gather(1, by_product[:, None])[:, 0], by_product),
        ("the lengths of the rows must not decide: take the maximum of the cosines, not of the products"),
    )
    yield pick(masked(table.abs(), -1.0)), "signs matter: the latent that writes the opposite has a cosine of -1"
    yield (values.abs(), latents), "signs matter: no absolute value"
    yield pick(table.abs()), "signs matter, and dead latents do not count"
    yield pick(masked(-table)), "this is the smallest: the largest cosine belongs to the feature"
    yield (table.masked_fill(~live, torch.inf).min(1)), "this is the smallest cosine: take the largest"
    yield pick(table.masked_fill(live, -torch.inf)), "the live latents are left out: `live` is True where one fires"
    yield pick(masked(directions @ W_dec.T)), length
    yield pick(masked(directions @ normalize(W_dec, dim=1).T)), length
    yield pick(masked(normalize(directions, dim=1) @ W_dec.T)), length
    yield (
        pick(masked(normalize(directions, dim=0) @ normalize(W_dec, dim=0).T)),
        ("the unit vectors are rows: normalise over dim=1"),
    )
    yield (
        (masked(table).max(0).values, masked(table).max(0).indices),
        ("this is the best feature of each latent: return the best latent of each feature"),
    )
    yield (
        (table.max(0).values, table.max(0).indices),
        ("this is the best feature of each latent: return the best latent of each feature"),
    )
    yield (
        (table[:, alive].max(0).values, table[:, alive].max(0).indices),
        ("this is the best feature of each latent: return the best latent of each feature"),
    )
    yield (values.mean(), latents), "this is the mean, MMCS: return one cosine for each feature"
    yield (values**2, latents), "no square: the cosine itself"


# --------------------------------------------------------------------------------- 5.6 topk_latents


@exercise(
    "5.6",
    hints=(
        "First the ReLU. Then torch.topk(..., dim=-1) gives the k largest of each row and where they stand.",
        "Put them back where they stood: zeros of the same shape, and scatter along the last axis. Where fewer than k "
        "are above 0, topk returns zeros for the rest, which does no harm.",
        "top = pre.relu().topk(k, dim=-1); return torch.zeros_like(pre).scatter(-1, top.indices, top.values)",
    ),
)
def topk_latents(attempt: Attempt) -> None:
    """Truth: each row sorted by numpy, one after the other."""
    attempt.on_error["selected index k out of range"] = "k latents of each row: topk over the last axis, dim=-1"
    for name, samples, n, k, shift in (
        ("the k largest of each row, where they stood", 12, 9, 3, 1.0),
        ("rows with fewer than k above 0", 14, 10, 4, -0.9),
        ("one latent", 7, 7, 1, 0.5),
        ("all latents: the ReLU alone", 8, 6, 6, 0.0),
    ):
        if k == n:
            attempt.on_error["selected index k out of range"] = "k may be all of them: there is no (k + 1)-th"
        with attempt.holds(name):
            pre = attempt.randn(samples, n) * (0.5 + _uniform(attempt, samples, 1)) + shift
            truth = torch.tensor(_sorted_rows(_array(pre), k))
            attempt.close(attempt(pre, k), truth, atol=1e-6, what="the latents", slips=_topk_slips(pre, k))
    with attempt.holds("a row of negative numbers: nothing, exactly 0"):
        pre = torch.cat([-_uniform(attempt, 2, 8) - 0.1, attempt.randn(3, 8)])
        got = attempt.tensor(attempt(pre, 5), (5, 8))
        largest = float(got[:2].abs().max())
        slip = "exactly 0: start from torch.zeros_like(pre)" if largest < 1e-3 else "the ReLU comes first"
        attempt.require(largest == 0, "exactly 0 in the whole row", f"numbers up to {largest:.3g}", slip)
    with attempt.holds("a row does not depend on the others"):
        whole, alone = attempt(pre, 2), torch.cat([attempt.tensor(attempt(row[None], 2)) for row in pre])
        attempt.close(whole, alone, atol=1e-6, what="the latents of all rows at once")
    with attempt.holds("the gradient reaches pre where a latent stays, and nowhere else"):
        for samples, n, k, shift in ((9, 8, 3, 0.8), (7, 6, 4, -0.6)):
            _require_topk_gradient(attempt, attempt.randn(samples, n) + shift, k)


def _require_topk_gradient(attempt: Attempt, pre: Tensor, k: int) -> None:
    pre = pre.requires_grad_()
    attempt.on_error["Can't call numpy()"] = "stay in torch: training needs the gradient of the latents"
    z = attempt(pre, k)
    cut = "no .detach(), .data, .item(), .tolist(), numpy or torch.no_grad() on the way from pre to the latents"
    attempt.require(
        isinstance(z, Tensor) and z.requires_grad, "latents that pass a gradient on to pre", "none reaches it", cut
    )
    weights = 0.5 + _uniform(attempt, *pre.shape)
    (gradient,) = torch.autograd.grad((z * weights).sum(), pre, allow_unused=True)
    attempt.require(gradient is not None, "latents that pass a gradient on to pre", "none reaches it", cut)
    weights, values = weights.double().cpu(), torch.tensor(_array(pre))
    stays = torch.tensor(_sorted_rows(_array(pre), k)) > 0
    elsewhere = "a gradient where a latent was dropped: what is set to 0 passes none on"
    attempt.close(
        gradient / weights.to(gradient),
        stays.double(),
        atol=1e-3,
        what="the slope of each latent in its own pre",
        slips=[
            (torch.zeros_like(weights), cut),
            (torch.ones_like(weights), elsewhere),
            ((values > 0).double(), elsewhere),
        ],
    )


def _sorted_rows(pre: np.ndarray, k: int) -> np.ndarray:
    kept = np.zeros_like(pre)
    for i, row in enumerate(pre):
        for j in sorted(range(len(row)), key=lambda j: -row[j])[:k]:
            kept[i, j] = max(0.0, row[j])
    return kept


def _topk_slips(pre: Tensor, k: int) -> list[tuple[Tensor, str]]:
    pre = pre.double().cpu()
    samples, n = pre.shape
    z = pre.relu()

    def kept(values: Tensor, by: Tensor, k: int = k, dim: int = -1) -> Tensor:
        where = by.topk(min(k, by.shape[dim]), dim=dim).indices
        return torch.zeros_like(values).scatter(dim, where, values.gather(dim, where))

    top = z.topk(k, dim=-1)
    flat = z.flatten()
    threshold = flat.topk(k * samples).values[-1]
    right = kept(z, z)
    smallest = z.topk(k, dim=-1).values[:, -1:]
    few = f"one too few, {k - 1} where k is {k}: the k-th largest itself stays (>=, not >), and k is the argument"
    slips = [
        (kept(pre, pre), "the ReLU is missing: where fewer than k are above 0, the rest is 0"),
        (kept(pre, pre.abs()), "the largest values, not the largest absolute values; and the ReLU comes first"),
        (kept(pre.abs(), pre.abs()), "the largest values, not the largest absolute values"),
        (kept(pre.abs(), pre.abs()) * (pre > 0), "the largest values, not the largest absolute values"),
        (kept(z, z, dim=0), "these are the k samples of each latent: the k latents of each sample, dim=-1"),
        (z * (z >= threshold), "k for each row: this keeps the k * sample largest of the whole batch (BatchTopK)"),
        (kept(flat, flat).reshape(samples, n), "k for each row: this keeps k in the whole batch"),
        (z, "this is the ReLU alone: all but the k largest of each row are 0"),
        ((right > 0).double(), "these are ones: the latents keep their values"),
        (top.values, "the k values alone: put them back where they stood, zeros elsewhere"),
        (top.indices.double(), "these are places: return the values, each at its place"),
        (torch.nn.functional.pad(top.values, (0, n - k)), "the values are sorted: put each back where it stood"),
        (kept(z, -pre), "these are the smallest"),
        (kept(z, -z), "these are the smallest"),
        (z - right, "these are the others: the k largest stay, the rest is 0"),
        (z * (z > smallest), few),
        (kept(z, z, k=max(k - 1, 1)), few),
        (kept(z, z, k=k + 1), "one too many: k stay"),
        ((pre >= pre.topk(k, dim=-1).values[:, -1:]).double(), "these are ones: the latents keep their values"),
        ((z - smallest).relu(), "the k-th largest is subtracted: the latents keep their values"),
        (right / right.sum(-1, keepdim=True).clamp_min(1e-30), "the latents keep their values, without dividing"),
    ]
    # With k latents in all, or with one, several slips do no harm: what is right is no slip.
    return [(wrong, told) for wrong, told in slips if wrong.shape != right.shape or not torch.allclose(wrong, right)]


# ---------------------------------------------------------------------------------------- 5.5 report


@exercise(
    "5.5",
    hints=(
        "FVU is one fraction: the squared errors, summed over samples and dimensions, over the squared distances from "
        "the mean sample x.mean(0), summed likewise.",
        "l0: count z > 0 in each row, then the mean. For the bias set w = x_hat - b_dec and v = x - b_dec, and take "
        "the two expectations over all samples before you divide.",
        "fvu = ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum(); l0 = (z > 0).sum(-1).float().mean(); bias = "
        "(w ** 2).sum() / (w * v).sum(); return fvu.item(), l0.item(), bias.item()",
    ),
)
def report(attempt: Attempt) -> None:
    """Truth: scikit-learn's r2_score, sums written out in float64, and a reconstruction of known length."""
    for samples, d, n in ((9, 9, 9), (40, 6, 11), (12, 8, 5)):
        with attempt.holds(f"{samples} samples: unexplained variance, active latents, bias"):
            b_dec = 1.5 * attempt.randn(d)
            x = b_dec + attempt.randn(samples, d) * (0.3 + 2 * _uniform(attempt, d)) + 0.7
            x_hat = 0.7 * (x - b_dec) + b_dec + 0.4 * attempt.randn(samples, d)
            z = (attempt.randn(samples, n) - 0.4).relu() * (0.5 + 2 * _uniform(attempt, n))
            z[:, n // 2] = 0  # a dead latent: all latents are not those that ever fire
            _compare_report(attempt, (x, x_hat, z, b_dec))
    with attempt.holds("a copy leaves nothing unexplained, the mean everything"):
        for x_hat, truth in ((x, 0.0), (x.mean(0).expand_as(x), 1.0)):
            fvu, _, _ = _parts(attempt, attempt(x, x_hat.clone(), z, b_dec), "fvu", "l0", "bias")
            attempt.close(fvu, truth, what="fvu")
    with attempt.holds("what is written too short by a factor has that factor as its bias"):
        for factor in (0.6, 1.2):
            args = (x, b_dec + factor * (x - b_dec), z, b_dec)
            bias = _parts(attempt, attempt(*args), "fvu", "l0", "bias")[2]
            attempt.close(bias, factor, atol=1e-3, what="the bias", slips=_bias_slips(args))


def _compare_report(attempt: Attempt, args: tuple[Tensor, ...]) -> None:
    fvu, l0, bias = _parts(attempt, attempt(*args), "fvu", "l0", "bias")
    x, x_hat, z, b_dec = (t.double().cpu() for t in args)
    unexplained = 1 - r2_score(x.numpy(), x_hat.numpy(), multioutput="variance_weighted")
    active = sum(1 for row in z.tolist() for value in row if value > 0) / len(z)
    w, v = x_hat - b_dec, x - b_dec
    truth = sum(float(a @ a) for a in w) / sum(float(a @ b) for a, b in zip(w, v, strict=True))
    wrong_order = "the order is fvu, l0, bias"
    gap, centred = (x - x_hat).pow(2), x - x.mean(0)
    summed = "sum over samples and dimensions, then divide"
    slips = [
        (active, wrong_order),
        (truth, wrong_order),
        (1 - unexplained, "this is the variance explained: FVU is 1 minus that"),
        (gap.mean(), "this is the mean squared error: divide by the variance of x"),
        (gap.sum(1).mean(), "this is the squared error: divide by the variance of x"),
        (gap.sum(), "this is the squared error: divide by the variance of x"),
        (gap.sum() / x.pow(2).sum(), "about the mean of x, not about 0: subtract x.mean(0) below"),
        (gap.sum() / v.pow(2).sum(), "about the mean of x, not about b_dec"),
        (gap.sum() / (x - x.mean()).pow(2).sum(), "each dimension has a mean of its own: x.mean(0)"),
        (gap.sum() / (x - x.mean(1, keepdim=True)).pow(2).sum(), "the mean runs over the samples: x.mean(0)"),
        ((gap.sum(0) / centred.pow(2).sum(0)).mean(), f"this averages the fractions of the dimensions: {summed}"),
        ((gap.sum(1) / centred.pow(2).sum(1)).mean(), f"this averages the fractions of the samples: {summed}"),
        (gap.mean(0).sum() / x.var(0).sum(), "n above and n - 1 below: x.var(0) divides by n - 1, take sums instead"),
        (gap.mean() / x.var(), "x.var() is about one mean for all dimensions: x.mean(0)"),
        (gap.mean() / x.var(0).mean(), "n above and n - 1 below: x.var(0) divides by n - 1, take sums instead"),
        (gap.sum() / (x_hat - x_hat.mean(0)).pow(2).sum(), "below stands the variance of x, not that of x_hat"),
        (centred.pow(2).sum() / gap.sum(), "upside down: the error stands above"),
        ((gap.sum() / centred.pow(2).sum()).sqrt(), "no root: the squared errors over the squared distances"),
        ((x_hat - x.mean(0)).pow(2).sum() / centred.pow(2).sum(), "above stands the error, x - x_hat"),
        ((x - x_hat).var(0).sum() / x.var(0).sum(), "the error counts whole: no mean is subtracted from it"),
        (
            (x - x_hat - (x - x_hat).mean(0)).pow(2).sum() / centred.pow(2).sum(),
            "the error counts whole: no mean is subtracted from it",
        ),
    ]
    attempt.close(fvu, unexplained, **_SHARP, what="fvu", slips=slips)
    on = (z > 0).double()
    slips = [
        (truth, wrong_order),
        (unexplained, wrong_order),
        (on.mean(), "this is the share of the latents: count them in each sample, then the mean over the samples"),
        (on.sum(), "this is the sum over all samples: the mean number in a sample"),
        (z.sum(1).mean(), "this is the sum of the values (L1): count those above 0"),
        (float(z.shape[1]), "a latent at 0 is not active: count z > 0, not z >= 0"),
        (on.any(0).sum(), "this counts latents that fire on any sample: count in each sample, then the mean"),
        (on.sum(0).mean(), "this is how often a latent fires: sum over the latents, mean over the samples"),
        ((z == 0).double().sum(1).mean(), "these are the silent ones: count z > 0"),
        (on.sum(1).amax(), "the mean over the samples, not the maximum"),
        (float(int(active)), "a mean over the samples, no rounding (and not the median)"),
        (float(round(active)), "a mean over the samples, no rounding (and not the median)"),
        (on.sum(1).median(), "the mean over the samples, not the median"),
        (active**2, "no square: the number of active latents itself"),
        (on.sum(1).sqrt().mean(), "the number of active latents, not the length of a vector of ones (no root)"),
    ]
    attempt.close(l0, active, what="l0", slips=slips)
    attempt.close(bias, truth, **_SHARP, what="the bias", slips=_bias_slips(args))


def _bias_slips(args: tuple[Tensor, ...]) -> list[tuple]:
    x, x_hat, _, b_dec = (t.double().cpu() for t in args)
    w, v = x_hat - b_dec, x - b_dec
    product, square = (w * v).sum(), w.pow(2).sum()
    centred, written = x - x.mean(0), x_hat - x.mean(0)
    about = "both are measured from b_dec: w = x_hat - b_dec and v = x - b_dec"
    return [
        (product / square, "upside down: E|w|^2 stands above, E[w.v] below"),
        (x_hat.pow(2).sum() / (x_hat * x).sum(), about),
        (w.pow(2).sum() / (w * x).sum(), about),
        (x_hat.pow(2).sum() / (x_hat * v).sum(), about),
        (written.pow(2).sum() / (written * centred).sum(), about),
        (product / v.pow(2).sum(), "this is the slope of w on v: E|w|^2 over E[w.v]"),
        (square / v.pow(2).sum(), "below stands E[w.v], not E|v|^2"),
        ((square / v.pow(2).sum()).sqrt(), "this is the ratio of the lengths: E|w|^2 over E[w.v]"),
        (w.norm(dim=1).mean() / v.norm(dim=1).mean(), "this is the ratio of the lengths: E|w|^2 over E[w.v]"),
        ((w.norm(dim=1) / v.norm(dim=1)).mean(), "this is the ratio of the lengths: E|w|^2 over E[w.v]"),
        ((w.pow(2).sum(1) / (w * v).sum(1)).mean(), "the two means first, then the fraction (not a mean of fractions)"),
        ((w.pow(2).sum(1) / (w * v).sum(1)).sum(), "the two means first, then the fraction (not a sum of fractions)"),
        ((square / product).sqrt(), "no root: E|w|^2 over E[w.v]"),
        (1 - square / product, "the ratio itself, not 1 minus the ratio"),
        (square / product - 1, "the ratio itself, not the ratio minus 1"),
        ((w - v).pow(2).sum() / product, "above stands E|w|^2, of what is written"),
        (w.sum() / v.sum(), "squares and products: E|w|^2 over E[w.v]"),
    ]


# --------------------------------------------------------------------------------- 5.7 revival_loss


@exercise(
    "5.7",
    hints=(
        "Leave the live latents out altogether: pre[:, dead] and W_dec[dead]. What is left is TopK (5.6) among the "
        "dead ones, and their reconstruction of the error.",
        "No more than are dead can be chosen: min(k, number of dead). The error is a target: error.detach(), so that "
        "nobody lowers this loss by making the error easier.",
        "z = pre[:, dead].relu(); top = z.topk(min(k, z.shape[1]), dim=-1); z = torch.zeros_like(z).scatter(-1, "
        "top.indices, top.values); return ((error.detach() - z @ W_dec[dead]) ** 2).sum(-1).mean()",
    ),
)
def revival_loss(attempt: Attempt) -> None:
    """Truth: the definition row by row in float64, cases with known values, and the gradients in closed form."""
    attempt.on_error["selected index k out of range"] = "fewer are dead than k: choose min(k, number of dead latents)"
    attempt.on_error["cannot be multiplied"] = "the dead latents' values times the dead latents' rows: z @ W_dec[dead]"
    attempt.on_error["Can't call numpy()"] = "stay in torch: training needs the gradient of the loss"
    for name, samples, d, n, n_dead, k in (
        ("the k best of the dead latents alone", 8, 6, 12, 7, 2),
        ("as many samples as dimensions and latents", 9, 9, 9, 5, 3),
        ("fewer dead latents than k", 7, 5, 10, 3, 6),
        ("all dead, and most of them below 0", 8, 6, 9, 9, 4),
        ("all dead but one, and most of them below 0", 8, 6, 8, 7, 4),
    ):
        with attempt.holds(name):
            args = _revival_inputs(attempt, samples, d, n, n_dead, k, below=1.2 if n_dead > n - 2 else 0.0)
            attempt.close(attempt(*args), _revival(*args), **_SHARP, what="the loss", slips=_revival_slips(*args))
    with attempt.holds("orthonormal rows: what the dead can write costs nothing, what k leaves out its square"):
        axes = torch.linalg.qr(attempt.randn(7, 7))[0]
        dead = torch.tensor([True, False, True, True, False, True, False], device=axes.device)
        values = 0.5 + _uniform(attempt, 6, 7)
        error, ordered = (values * dead) @ axes, values[:, dead].sort(dim=1).values.double().cpu()
        for k in (4, 1):
            args = (error, values, dead, axes, k)
            left = float(ordered[:, : 4 - k].pow(2).sum(1).mean())
            attempt.close(attempt(*args), left, what="the loss", slips=_revival_slips(*args))
    with attempt.holds("none dead: nothing is written, the loss is the mean squared length of the error"):
        error, pre, _, W_dec, k = args
        args = (error, pre, torch.zeros_like(dead), W_dec, 2)
        truth = float(error.double().pow(2).sum(1).mean())
        left = "nothing is written where none is dead: the error itself is left"
        attempt.close(attempt(*args), truth, what="the loss", slips=[(0.0, left)])
    with attempt.holds("gradients: to the dead latents that were chosen, not to live ones, not through the error"):
        _require_revival_gradient(attempt)


def _revival_inputs(attempt: Attempt, samples: int, d: int, n: int, n_dead: int, k: int, below: float = 0.0) -> tuple:
    """error, pre, dead, W_dec, k; the live latents have the larger pre-activations, on average.

    The rows of W_dec are not quite of length 1, so that it shows where an answer divides by their lengths.
    """
    dead = torch.zeros(n, dtype=torch.bool)
    dead[_order(attempt, n)[:n_dead]] = True
    dead = dead.to(session.device())
    pre = attempt.randn(samples, n) + 0.3 - below + 0.8 * ~dead
    W_dec = normalize(attempt.randn(n, d), dim=1) * (0.7 + 0.6 * _uniform(attempt, n, 1))
    return attempt.randn(samples, d), pre, dead, W_dec, k


def _chosen_dead(pre: np.ndarray, dead: np.ndarray, k: int) -> np.ndarray:
    """The dead latents' values, of each row the k largest above 0."""
    z = np.zeros_like(pre)
    for i, row in enumerate(pre):
        ranked = sorted((j for j in range(len(row)) if dead[j]), key=lambda j: -row[j])
        for j in ranked[:k]:
            z[i, j] = max(0.0, row[j])
    return z


def _revival(error: Tensor, pre: Tensor, dead: Tensor, W_dec: Tensor, k: int) -> float:
    z = _chosen_dead(_array(pre), dead.cpu().numpy(), k)
    total = 0.0
    for row, values in zip(_array(error), z, strict=True):
        written = sum((value * direction for value, direction in zip(values, _array(W_dec), strict=True)), 0 * row)
        total += float(((row - written) ** 2).sum())
    return total / len(pre)


def _revival_slips(error: Tensor, pre: Tensor, dead: Tensor, W_dec: Tensor, k: int) -> list[tuple]:
    error, pre, W_dec = (t.double().cpu() for t in (error, pre, W_dec))
    dead = dead.cpu()
    z = pre.relu()

    def top(values: Tensor, k: int = k, dim: int = -1) -> Tensor:
        best = values.topk(min(k, values.shape[dim]), dim=dim)
        return torch.zeros_like(values).scatter(dim, best.indices, best.values)

    def gap(z: Tensor) -> Tensor:
        return (error - z @ W_dec).pow(2)

    def loss(z: Tensor) -> Tensor:
        return gap(z).sum(-1).mean()

    right = top(z * dead)
    flat = (z * dead).flatten()
    batch = top(flat, k * len(pre)).reshape(z.shape)
    masked = pre.masked_fill(~dead, -torch.inf)
    best = masked.topk(min(k, int(dead.sum())), dim=-1) if bool(dead.any()) else None
    slips = [
        (loss(top(z)), "live latents take part too: only the dead ones reconstruct the error"),
        (
            loss(top(z) * dead),
            "choose among the dead ones: here the k largest of all are chosen, then the live left out",
        ),
        (loss(top(z * ~dead)), "these are the live latents: `dead` is True where a latent is dead"),
        (loss(z), "all latents take part: only the k largest of the dead ones reconstruct the error"),
        (loss(z * ~dead), "these are the live latents: `dead` is True where a latent is dead"),
        (loss(z * dead), "all dead latents take part: only the k largest of each row"),
        (loss(batch), "k for each row, not k * sample in the whole batch"),
        (loss(top(flat).reshape(z.shape)), "k for each row, not k in the whole batch"),
        (loss(top(z * dead, dim=0)), "these are the k samples of each latent: the k latents of each sample, dim=-1"),
        (loss(top(pre.abs() * dead)), "the largest of ReLU(pre), not of the absolute values"),
        (gap(right).mean(), "this is the mean over d too: sum over d, then the mean over the samples"),
        (gap(right).sum(), "this is the sum over the samples too: sum over d, then the mean over the samples"),
        (gap(right).sum() / error.shape[1], "the two are exchanged: sum over d, mean over the samples"),
        (gap(right).sum(-1), "this is the loss of each sample: return the mean"),
        (loss(right).sqrt(), "no root: the squared difference"),
        (gap(right).sum(-1).sqrt().mean(), "no root: the squared difference"),
        (loss(right) / 2, "there is no factor of 1/2 here"),
        (loss(right) / error.pow(2).sum(-1).mean(), "not divided by the size of the error"),
        (loss(right) / 32, "without the weight: 1/32 is the caller's"),
        (
            (error - right @ normalize(W_dec, dim=1)).pow(2).sum(-1).mean(),
            "the rows of W_dec as they are: not divided by their lengths",
        ),
        (
            (error - right[:, dead] @ W_dec[: int(dead.sum())]).pow(2).sum(-1).mean(),
            "the rows of the dead latents: W_dec[dead], not the first ones",
        ),
        (loss(top(z * dead, k + 1)), "one too many: the k largest of each row"),
        (loss(top(z * dead, k - 1)), "one too few: the k largest of each row"),
        (loss(-right), "the error minus what the dead write, not plus"),
        ((right @ W_dec).pow(2).sum(-1).mean(), "the difference to the error, not what is written itself"),
        (error.pow(2).sum(-1).mean(), "nothing is written: is the sign of `dead` right, and is pre used?"),
        ((error - right @ W_dec).abs().sum(-1).mean(), "the squared difference, not the absolute one"),
    ]
    if best is not None:
        unbent = torch.zeros_like(pre).scatter(-1, best.indices, best.values)
        slips.append((loss(unbent), "the ReLU is missing: a latent never writes with a negative value"))
        slips.append((loss(pre * dead), "the ReLU is missing, and only the k largest take part"))
    slips.append((loss(top(pre * dead)), "the ReLU is missing: a latent never writes with a negative value"))
    truth = loss(right)
    return [(wrong, told) for wrong, told in slips if wrong.shape != truth.shape or not torch.allclose(wrong, truth)]


def _require_revival_gradient(attempt: Attempt) -> None:
    error, pre, dead, W_dec, k = _revival_inputs(attempt, 9, 6, 11, 6, 2)
    leaves = [t.requires_grad_() for t in (error, pre, W_dec)]
    loss = attempt(error, pre, dead, W_dec, k)
    attempt.require(
        isinstance(loss, Tensor) and loss.requires_grad,
        "a loss that can be trained on",
        "a number without gradient",
        "return the tensor itself: only the error is detached, not z and not the loss",
    )
    through, to_pre, to_rows = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
    attempt.require(
        through is None or not bool(through.any()),
        "no gradient through the error",
        "one that is not 0",
        "the error is a target: error.detach(), else the live latents are trained to leave errors that are easy",
    )
    attempt.require(to_rows is not None, "a gradient for the dead latents' rows", "none", "W_dec is detached somewhere")
    attempt.require(to_pre is not None, "a gradient for the dead latents' pre", "none", "z is detached somewhere")
    live = (~dead).cpu()
    attempt.require(
        not bool(to_rows.cpu()[live].any()) and not bool(to_pre.cpu()[:, live].any()),
        "no gradient for the live latents",
        "one that is not 0",
        "only the dead latents take part",
    )
    z = _chosen_dead(_array(pre), dead.cpu().numpy(), k)
    left = _array(error) - z @ _array(W_dec)
    attempt.close(to_rows, torch.tensor(-2 / len(z) * z.T @ left), atol=1e-3, what="the gradient of W_dec")
    wanted = torch.tensor(-2 / len(z) * (left @ _array(W_dec).T) * (z > 0))
    attempt.close(to_pre, wanted, atol=1e-3, what="the gradient of pre")


# ------------------------------------------------------------------------- 5.8 absorbing_dictionary


@exercise(
    "5.8",
    hints=(
        "With one active latent, its row must point along the sample: what direction has parent + child? So latent 1's "
        "row is that direction at length 1, and its value there must be the sample's length.",
        "Now the encoder. Latent 0 reads the parent and has to fall silent where the child is: what does parent - "
        "child give on the two samples? Latent 1 has to be silent on the parent alone: what does child give?",
        "W_dec = torch.stack([parent, (parent + child) / 2**0.5]); W_enc = torch.stack([parent - child, 2**0.5 * child]"
        ", dim=1); b_enc = torch.zeros(2); return W_enc, b_enc, W_dec",
    ),
)
def absorbing_dictionary(attempt: Attempt) -> None:
    """Truth: the properties that the task names. Any encoder that has them will do."""
    for d in (3, 7, 16):
        with attempt.holds(f"{d} dimensions: one latent for each of the two samples, and nothing lost"):
            for _ in range(3):
                axes = torch.linalg.qr(attempt.randn(d, d))[0]
                _require_absorbing(attempt, axes[0].clone(), axes[1].clone())
    with attempt.holds("along the axes"):
        eye = torch.eye(5, device=session.device())
        _require_absorbing(attempt, eye[3].clone(), eye[0].clone())


def _require_absorbing(attempt: Attempt, parent: Tensor, child: Tensor) -> None:
    d, names = len(parent), ("W_enc", "b_enc", "W_dec")
    parts = _parts(attempt, attempt(parent, child), *names)
    W_enc, b_enc, W_dec = _shaped(attempt, parts, names, ((d, 2), (2,), (2, d)))
    parent, child = parent.double().cpu(), child.double().cpu()
    samples = torch.stack([torch.zeros_like(parent), parent, parent + child])
    z = (samples @ W_enc + b_enc).relu()
    active, tilted = z > 1e-4, (parent + child) / 2**0.5

    def along(row: Tensor, direction: Tensor) -> bool:
        return bool(normalize(row, dim=0) @ normalize(direction, dim=0) > 0.999)

    shown = f"latents {_listed(z[1])} on the parent, {_listed(z[2])} on parent + child"
    attempt.require(
        not bool(active[0].any()),
        "no active latent on the sample 0",
        f"latents {_listed(z[0])}",
        "b_enc alone acts on the sample 0: it must not be above 0",
    )
    length = W_dec.norm(dim=1)
    slip = "divide each row by its length"
    if along(W_dec[1], tilted) and bool((length - torch.tensor([1.0, 2**0.5])).abs().max() < 1e-3):
        slip = "parent + child has length sqrt 2: divide the row by it, and let the latent have the value sqrt 2"
    attempt.require(
        bool((length - 1).abs().max() < 1e-3), "decoder rows of length 1", f"lengths {_listed(length)}", slip
    )
    if along(W_dec[1], parent) and along(W_dec[0], tilted):
        attempt.fail("the parent's row first", "it comes second", "latent 0 is the parent's, latent 1 the tilted one")
    if bool(active[2].all()):
        plain = along(W_dec[0], parent) and along(W_dec[1], child)
        attempt.fail(
            "at most one active latent on parent + child",
            shown,
            "this is the dictionary of the two features themselves, which needs two active latents: tilt latent 1's row"
            if plain
            else "latent 0 still fires beside the child: its column of W_enc must give 0 there, as parent - child does",
        )
    attempt.require(
        not bool(active[1].all()),
        "at most one active latent on the parent alone",
        shown,
        "latent 1 must be silent without the child: read the child alone, W_enc[:, 1] along child",
    )
    attempt.require(
        bool(active[1, 0]),
        "latent 0 active on the parent alone",
        shown,
        "latent 0 is the parent's: its column of W_enc gives 1 on the parent",
    )
    attempt.require(
        bool(active[2].any()),
        "an active latent on parent + child",
        shown,
        "latent 1 is for parent + child: its column of W_enc gives sqrt 2 there",
    )
    attempt.require(
        not bool(active[2, 0]),
        "latent 0 silent on parent + child",
        shown,
        "latent 1 takes over where the child is: that is the absorption",
    )
    written = z @ W_dec
    slip = "a latent's value is the length of the sample: 1 on the parent, sqrt 2 on parent + child"
    if not along(W_dec[1], tilted):
        slip = "latent 1 writes parent + child alone: its row is (parent + child) / sqrt 2"
    elif not along(W_dec[0], parent):
        slip = "latent 0 writes the parent alone: its row is `parent`"
    attempt.close(
        written,
        samples,
        atol=1e-3,
        what="the reconstruction of 0, parent, parent + child",
        slips=[
            (written, slip),
        ],
    )


# ---------------------------------------------------------------------------------- 5.9 random_mmcs

_DRAWS = 800
_COMPARED = "each draw is one dictionary of n_latents rows, compared with all features"


@exercise(
    "5.9",
    hints=(
        "A random unit row is torch.randn divided by its length: normal numbers know no direction, uniform ones do. "
        "Then 5.4 with all latents live, and its mean.",
        "generator = torch.Generator().manual_seed(seed), once, before the draws. All dictionaries at once are [draw "
        "latent d]; cosines with the features [draw latent feature]; largest over the latents, mean over the features.",
        "rows = F.normalize(torch.randn(n_draws, n_latents, d, generator=generator), dim=-1); "
        "return (rows @ directions.T).max(dim=1).values.mean(dim=-1)",
    ),
)
def random_mmcs(attempt: Attempt) -> None:
    """Truth: the distribution of the largest of n cosines in closed form; dictionaries that numpy draws.

    Means of 800 draws have to lie within five standard errors of the closed form.
    """
    attempt.on_error["cannot be multiplied"] = "rows are directions: rows @ directions.T"
    device = session.device()
    signs = torch.sign(torch.randn(7, 4, generator=attempt.generator))
    cases = [
        ("random directions", normalize(torch.randn(12, 6, generator=attempt.generator), dim=1), 30),
        ("more features than latents", normalize(torch.randn(15, 9, generator=attempt.generator), dim=1), 5),
        ("along the axes", torch.eye(4), 9),
        ("between the axes", normalize(signs, dim=1), 9),
    ]
    for name, directions, n_latents in cases:
        with attempt.holds(f"{name}: the expected value, and the spread"):
            seed = int(attempt.randint(0, 10**6, 1))
            value = attempt(directions.to(device), n_latents, _DRAWS, seed)
            _require_distribution(attempt, value, directions.double(), n_latents)
    with attempt.holds("the same feature twelve times: its cosine alone"):
        alike = normalize(torch.randn(1, 6, generator=attempt.generator), dim=1).repeat(12, 1)
        value = attempt(alike.to(device), 30, _DRAWS, int(attempt.randint(0, 10**6, 1)))
        _require_distribution(
            attempt, value, alike.double(), 30, "the cosines with `directions` are asked, whatever they are"
        )
    with attempt.holds("the seed decides, and nothing else"):
        _require_draws(attempt, directions.to(device))


def _largest_cosine(n: int, d: int) -> float:
    """Expected largest of n independent cosines with a random direction: (1 + cosine) / 2 is Beta((d-1)/2, (d-1)/2)."""
    t = np.linspace(-1.0, 1.0, 20_001)
    return float(1 - np.trapezoid(beta.cdf((1 + t) / 2, (d - 1) / 2, (d - 1) / 2) ** n, t))


def _require_distribution(attempt: Attempt, value, directions: Tensor, n: int, otherwise: str = _COMPARED) -> None:
    m, d = directions.shape
    got = attempt.tensor(value, what="the draws")
    slip = ""
    if got.dim() == 0:
        slip = "one number for each of the n_draws dictionaries, not their mean"
    elif tuple(got.shape) in ((_DRAWS, m), (m, _DRAWS)):
        slip = "these are the cosines of the features: MMCS is their mean"
    elif tuple(got.shape) in ((_DRAWS, n), (n, _DRAWS)):
        slip = "one number for each dictionary: the largest over the latents, then the mean over the features"
    attempt.require(tuple(got.shape) == (_DRAWS,), f"draws of shape [{_DRAWS}]", f"shape {list(got.shape)}", slip)
    attempt.require(
        float(got.std()) > 1e-6,
        f"{_DRAWS} different dictionaries",
        "the same number in every draw",
        "draw a new dictionary each time: seed the generator once, before the draws",
    )
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((2000, n, d))
    table = _unit(rows) @ directions.numpy().T  # [draw latent feature]
    want, spread = _largest_cosine(n, d), float(table.max(1).mean(1).std())
    bound, mean = 5 * spread / _DRAWS**0.5, float(got.mean())
    if abs(mean - want) > bound:
        told, nearest = "n_latents unit rows in each dictionary, in random directions, all equally likely", 6.0
        for wrong, slip in _random_slips(rows, table, directions.numpy(), rng):
            # how far mean and spread are off, in (about) standard errors
            off = max(abs(mean - wrong.mean()) * _DRAWS**0.5, abs(float(got.std()) - wrong.std()) * (2 * _DRAWS) ** 0.5)
            if off < nearest * wrong.std():
                told, nearest = slip, off / wrong.std()
        attempt.fail(f"a mean of {want:.3f} (within {bound:.3f})", f"{mean:.3f}", told)
    middle = np.sort(table.max(1), axis=1)[:, (m - 1) // 2]  # torch's median
    if otherwise == _COMPARED and abs(float(got.std()) / float(middle.std()) - 1) < 0.15:
        otherwise = "the mean over the features, not the median"
    attempt.require(
        0.8 < float(got.std()) / spread < 1.25,
        f"draws that spread by {spread:.3f}",
        f"by {float(got.std()):.3f}",
        otherwise,
    )


def _unit(rows: np.ndarray, axis: int = -1) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=axis, keepdims=True)


def _random_slips(rows: np.ndarray, table: np.ndarray, F: np.ndarray, rng) -> Iterator[tuple[np.ndarray, str]]:
    """What known slips give in each of many draws."""
    shape, (m, d) = rows.shape, F.shape

    def mmcs(rows: np.ndarray) -> np.ndarray:
        return (rows @ F.T).max(1).mean(1)

    corners = "prefer the corners of the cube: use torch.randn"
    yield np.abs(table).max(1).mean(1), "signs matter: no absolute value"
    yield mmcs(_unit(rng.random(shape))), "torch.rand has no negative numbers: use torch.randn"
    yield mmcs(_unit(2 * rng.random(shape) - 1)), f"uniform numbers {corners}"
    yield mmcs(_unit(np.sign(rows))), f"signs alone {corners} as it is"
    yield mmcs(rows), "cosines: divide each random row by its length"
    yield mmcs(rows / d**0.5), "cosines: divide each random row by its length (sqrt(d) is its length on average alone)"
    yield np.sort(table.max(1), axis=1)[:, (m - 1) // 2], "the mean over the features, not the median"
    yield mmcs(_unit(rows, axis=-2)), "the rows have length 1: normalise over the last axis"
    yield table.max(2).mean(1), "this is the best feature of each latent: the largest over the latents"
    yield table.max((1, 2)), "this is the largest of all: the mean over the features is missing"
    yield table.mean((1, 2)), "this is the mean of all cosines: take the largest over the latents first"
    yield mmcs(_unit(rng.standard_normal((len(rows), m, d)))), "a dictionary has n_latents rows, not one per feature"
    yield mmcs(_unit(rng.standard_normal((len(rows), d, d)))), "a dictionary has n_latents rows, not one per dimension"
    yield table.max(1)[:, 0], _COMPARED
    yield table.max(1).sum(1), "this is the sum over the features: MMCS is the mean"
    yield table.min(1).mean(1), "these are the smallest cosines"
    yield np.abs(table).mean((1, 2)), "take the largest over the latents first, without an absolute value"
    yield (table**2).max(1).mean(1), "no square: the cosines themselves"


def _require_draws(attempt: Attempt, directions: Tensor) -> None:
    state = torch.random.default_generator
    seed = int(attempt.randint(0, 10**6, 1))
    state.manual_seed(seed + 1)
    one = attempt.tensor(attempt(directions, 6, 50, seed), (50,))
    state.manual_seed(seed + 2)
    again = attempt.tensor(attempt(directions, 6, 50, seed), (50,))
    attempt.require(
        torch.equal(one, again),
        "the same draws from the same seed",
        "others",
        "hand the seeded generator on: torch.randn(..., generator=generator)",
    )
    other = attempt.tensor(attempt(directions, 6, 50, seed + 3), (50,))
    attempt.require(
        not torch.equal(one, other),
        "other draws from another seed",
        "the same",
        "the seed is the argument `seed`",
    )
    attempt.require(
        len(set(one.tolist())) == 50,
        "50 different dictionaries",
        f"{len(set(one.tolist()))} different numbers",
        "seed the generator once, before the draws",
    )
