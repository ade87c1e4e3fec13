"""One trainer for all architectures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from utils.arguments import check_finite, check_integer, check_positive
from utils.sae.model import SAE, Architecture, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, TopK, largest, setting

REVIVAL = 1 / 32  # weight of the dead latents' loss (Gao et al. 2024, appendix A.2)
WARM_UP, COOL_DOWN, PENALTY_WARM_UP = 0.05, 0.3, 0.2  # shares of the steps
RECORDS = 50  # in a history
SAMPLE, SCALED_ON = 16_384, 4096  # activations from which mean and scale are taken: of a tensor, of a stream


@dataclass(frozen=True)
class History:
    """How a training went, at about fifty of its steps, each measured on that step's batch.

    Attributes:
        step: [record].
        fvu: fraction of variance unexplained, [*instance record].
        l0: mean number of active latents, [*instance record].
        dead: share of latents that had not been active on the last `dead_after` samples, [*instance record].
    """

    step: Tensor
    fvu: Float[Tensor, "*instance record"]
    l0: Float[Tensor, "*instance record"]
    dead: Float[Tensor, "*instance record"]

    def __getitem__(self, instance: int) -> History:
        return History(self.step, self.fvu[instance], self.l0[instance], self.dead[instance])


def train(
    activations: Float[Tensor, "*instance sample d_in"] | Iterable[Tensor],
    architecture: Architecture,
    n_latents: int,
    *,
    target: Float[Tensor, "*instance sample d_out"] | None = None,
    steps: int = 2000,
    batch_size: int = 1024,
    lr: float = 2e-3,
    encoder_start: float = 1.0,
    seed: int | Sequence[int] = 0,
    dead_after: int = 100_000,
    revive: bool = True,
    hook: str | None = None,
    progress: bool = False,
) -> SAE:
    """Train a sparse autoencoder, or several at once, by Adam on the squared error and the architecture's penalty.

    The activations are centred on their mean and scaled to a mean squared norm of 1, so that the same settings serve at
    every site; both are folded back into the weights afterwards. Decoder rows are kept at length 1. Latents that have
    not been active for a while are made to explain what is left of the activations, by their largest pre-activations
    (AuxK; Gao et al. 2024, arXiv 2406.04093); nothing helps those whose pre-activations are negative on all samples.
    The learning rate rises over the first steps and falls linearly over the last 30 %; the penalty's weight rises over
    the first 20 %.

    Args:
        activations: a tensor, drawn from without replacement until it is used up, then again; or something that can be
            iterated over for batches [batch d_in], again and again (`Stream`), and then sets the batch size. Half
            precision is trained on in float32. No gradient flows into them.
        target: what a transcoder writes; of a `Stream`, the second of each pair.
        encoder_start: the encoder starts as the decoder's transpose (a transcoder's as random unit columns) times this.
        seed: of the start and of the order of the samples. A sequence, or a sequence as the architecture's setting,
            trains as many on the same batches (in the order that the first seed gives), or, if `activations` have an
            instance axis, each on its own.
        dead_after: samples without activity after which a latent counts as dead.
        revive: whether dead latents get a loss of their own.
        hook: where the activations come from, kept with the result.

    Returns:
        the autoencoder, without gradients, with its `history`.

    Raises:
        ValueError: NaN or infinite activations, wrong shapes, k above the number of latents, settings out of range.
        TypeError: settings that are not numbers.
    """
    counts = {"steps": steps, "batch_size": batch_size, "dead_after": dead_after}
    steps, batch_size, dead_after = (check_integer(name, value, 1) for name, value in counts.items())
    lr, encoder_start = check_positive("lr", lr), check_positive("encoder_start", encoder_start)
    seeds = [check_integer("seed", each, 0) for each in (seed if isinstance(seed, Sequence) else [seed])]
    if not seeds:
        raise ValueError("seed is an empty sequence, expected a seed for each dictionary")
    hook = getattr(activations, "hook", None) if hook is None else hook
    with torch.inference_mode(False), torch.enable_grad():
        batches = _batches(activations, target, batch_size, seeds[0])
        first = _first_batches(batches, steps)
        x, y = first[0]
        d_out = None if y is x else y.shape[-1]
        sae = SAE(architecture, x.shape[-1], n_latents, d_out=d_out, seed=seed, hook=hook).to(x)
        sae.W_enc.data.mul_(encoder_start)
        if x.dim() > 2 and x.shape[:-2] != sae.instances:
            raise ValueError(f"activations has instances {list(x.shape[:-2])}, the settings give {list(sae.instances)}")
        scaling = _Scaling.of(activations, target) if isinstance(activations, Tensor) else _Scaling.of_batches(first)
        run = _Run(sae, scaling, lr, steps, dead_after, revive)
        batches = chain(first, batches)
        for step in tqdm(range(steps), desc="dictionary", disable=not progress):
            run.step(step, *next(batches))
        sae.history = run.history()
        scaling.fold_back(sae)
    return sae.requires_grad_(False).eval()


# --- Batches and scale ----------------------------------------------------------------------------


def _batches(activations, target, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what is read and what is written (the same tensor, but for a transcoder), without end."""
    if not isinstance(activations, Tensor):
        if target is not None:
            raise ValueError("target is given beside a stream, expected pairs of activations from the stream")
        if not isinstance(activations, Iterable):
            raise TypeError(
                f"activations is {type(activations).__name__}, expected a tensor or batches to iterate over"
            )
        return _streamed(activations)
    given = [("activations", activations)] if target is None else [("activations", activations), ("target", target)]
    for name, values in given:
        if not isinstance(values, Tensor) or not values.is_floating_point() or values.dim() not in (2, 3):
            came = f"{values.dtype} {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"{name} is {came}, expected a floating-point tensor [sample d] or [instance sample d]")
        check_finite(name, values)
    if activations.shape[-2] < 2 or any(values.shape[:-1] != activations.shape[:-1] for _, values in given):
        came = " and ".join(f"{name} {list(values.shape)}" for name, values in given)
        raise ValueError(f"the shapes are {came}, expected at least two samples, as many in both")
    return _drawn(activations, target, batch_size, seed)


def _drawn(activations: Tensor, target: Tensor | None, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    n = activations.shape[-2]
    drawing, batch_size = torch.Generator().manual_seed(seed), min(batch_size, n)
    while True:
        order = torch.randperm(n, generator=drawing).to(activations.device)
        for rows in order.split(batch_size):
            if len(rows) == batch_size:
                x = _ready(activations.index_select(-2, rows))
                yield x, x if target is None else _ready(target.index_select(-2, rows))


def _streamed(batches: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
    expected = None
    while True:
        empty = True
        for batch in batches:
            empty = False
            parts = batch if isinstance(batch, tuple | list) else (batch,)
            for part in parts:
                if (
                    not isinstance(part, Tensor)
                    or not part.is_floating_point()
                    or part.dim() not in (2, 3)
                    or len(parts) > 2
                ):
                    came = f"{part.dtype} {list(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
                    raise ValueError(f"activations gave {came}, expected batches [batch d], or pairs of them")
                check_finite("activations", part)
            widths = [part.shape[-1] for part in parts]
            if expected not in (None, widths) or parts[0].shape[:-1] != parts[-1].shape[:-1]:
                shapes = [list(part.shape) for part in parts]
                raise ValueError(f"activations gave a batch of shape {shapes}, after batches of width {expected}")
            expected = widths
            x = _ready(parts[0])
            yield x, x if len(parts) == 1 else _ready(parts[1])
        if empty:
            raise ValueError("activations gave no batch")


def _ready(values: Tensor) -> Tensor:
    """Without a graph, in float32 where it came in half precision, and free of inference mode."""
    values = values.detach()
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.clone() if values.is_inference() else values


def _first_batches(batches: Iterator[tuple[Tensor, Tensor]], steps: int) -> list[tuple[Tensor, Tensor]]:
    """As many as it takes for mean and scale, but no more than there are steps."""
    first, count = [], 0
    while count < SCALED_ON and len(first) < steps:
        first.append(next(batches))
        count += first[-1][0].shape[-2]
    return first


@dataclass(frozen=True)
class _Scaling:
    """Mean and root mean squared distance from it, of what is read and of what is written."""

    mean_in: Tensor
    scale_in: Tensor
    mean_out: Tensor
    scale_out: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor | None) -> _Scaling:
        measured = []
        for values in (x, x if y is None else y):
            some = _ready(values[..., :: max(1, values.shape[-2] // SAMPLE), :])
            if bool((some.amin(-2) == some.amax(-2)).all(-1).any()):
                raise ValueError("activations do not vary: all samples are the same")
            mean = some.mean(-2, keepdim=True)
            measured += [mean, (some - mean).pow(2).sum(-1, keepdim=True).mean(-2, keepdim=True).sqrt()]
        return cls(*measured)

    @classmethod
    def of_batches(cls, pairs: Sequence[tuple[Tensor, Tensor]]) -> _Scaling:
        x = torch.cat([pair[0] for pair in pairs], dim=-2)
        return cls.of(x, None if pairs[0][1] is pairs[0][0] else torch.cat([pair[1] for pair in pairs], dim=-2))

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        centred = (x - self.mean_in) / self.scale_in
        return centred, centred if y is x else (y - self.mean_out) / self.scale_out

    @torch.no_grad()
    def fold_back(self, sae: SAE) -> None:
        """Give the weights the units of the activations: latents in units of what is written."""
        out, shift_in = self.scale_out[..., 0], self.mean_in[..., 0, :]
        for name in ("b_enc", "threshold", "b_magnitude"):
            if hasattr(sae, name):
                getattr(sae, name).data.mul_(out)
        sae.W_enc.data.mul_(out[..., None] / self.scale_in)
        sae.b_dec.data.mul_(out).add_(self.mean_out[..., 0, :])
        if sae.is_transcoder:
            shift = (shift_in[..., None, :] @ sae.W_enc)[..., 0, :]
            sae.b_enc.data.sub_(shift)
            if isinstance(sae.architecture, Gated):
                sae.b_magnitude.data.sub_(sae.gain.exp() * shift)


# --- Steps ----------------------------------------------------------------------------------------


class _Run:
    """The state of one training."""

    def __init__(self, sae: SAE, scaling: _Scaling, lr: float, steps: int, dead_after: int, revive: bool):
        self.sae, self.scaling, self.lr, self.steps = sae, scaling, lr, steps
        self.dead_after, self.revive = dead_after, revive
        self.optimizer = torch.optim.Adam(sae.parameters(), lr=lr, fused=True)
        self.silent_for = torch.zeros(*sae.instances, sae.n_latents, device=sae.W_dec.device)  # samples
        self.smallest = torch.zeros(sae.instances, device=sae.W_dec.device)  # latent that a batch kept, on average
        self.records: list[tuple] = []

    def step(self, step: int, x: Tensor, y: Tensor) -> None:
        sae, (x, y) = self.sae, self.scaling(x, y)
        done = step / self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, (done + 1 / self.steps) / WARM_UP, (1 - done) / COOL_DOWN)
        attempt = _attempt(sae, x, y, min(1.0, done / PENALTY_WARM_UP))
        self.silent_for = torch.where(attempt.fired, 0.0, self.silent_for + x.shape[-2])
        dead = self.silent_for >= self.dead_after
        loss = attempt.loss
        if self.revive and bool(dead.any()):
            loss = loss + REVIVAL * _revival(sae, x, (y - attempt.written).detach(), dead)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        self._keep_lengths(before=True)
        self.optimizer.step()
        self._keep_lengths(before=False)
        self._follow_threshold(step, attempt)
        if step % max(1, self.steps // RECORDS) == 0 or step == self.steps - 1:
            self._record(step, y, attempt, dead)

    @torch.no_grad()
    def _keep_lengths(self, before: bool) -> None:
        """Decoder rows stay at length 1: no gradient along them (before the step), rescaled (after it)."""
        W, grad = self.sae.W_dec, self.sae.W_dec.grad
        if before:
            grad -= (grad * W).sum(-1, keepdim=True) * W
        else:
            W /= W.norm(dim=-1, keepdim=True)
            if isinstance(self.sae.architecture, JumpReLU):
                self.sae.threshold.clamp_(min=0)

    @torch.no_grad()
    def _follow_threshold(self, step: int, attempt: _Attempt) -> None:
        if attempt.smallest is None:
            return
        pace = max(0.01, 1 / (step + 1))
        self.smallest += pace * (attempt.smallest - self.smallest)
        self.sae.threshold.copy_(self.smallest[..., None].expand_as(self.sae.threshold))

    @torch.no_grad()
    def _record(self, step: int, y: Tensor, attempt: _Attempt, dead: Tensor) -> None:
        fvu = _error(y, attempt.written)  # the scaled activations have a mean squared distance of 1 from their mean
        self.records.append((step, fvu, attempt.l0, dead.float().mean(-1)))

    def history(self) -> History:
        steps, *columns = zip(*self.records, strict=True)
        return History(torch.tensor(steps), *(torch.stack(column, dim=-1).cpu() for column in columns))


@dataclass(frozen=True)
class _Attempt:
    """What one batch gives: loss [*instance], reconstruction, which latents fired, and how many on average."""

    loss: Tensor
    written: Tensor
    fired: Tensor
    l0: Tensor
    smallest: Tensor | None = None


def _attempt(sae: SAE, x: Tensor, y: Tensor, warmth: float) -> _Attempt:
    """Loss and what is needed beside it; `warmth` scales the penalty."""
    if isinstance(sae.architecture, TopK):
        return _attempt_sparsely(sae, x, y)
    pre, smallest, penalty = sae.preactivations(x), None, 0.0
    match sae.architecture:
        case ReLU():
            z = pre.relu()
            penalty = z.sum(-1).mean(-1)
        case Gated():
            z, gates = sae.activate(pre), pre.relu()
            alone = gates @ sae.W_dec.detach() + sae.b_dec.detach()[..., None, :]
            penalty = gates.sum(-1).mean(-1)
        case JumpReLU(bandwidth=bandwidth):
            z, active = _Jump.apply(pre.relu(), sae.threshold[..., None, :], bandwidth)
            penalty = active.sum(-1).mean(-1)
        case BatchTopK(k) | Matryoshka(k):
            z, smallest = _largest_of_batch(pre.relu(), k)
    written = sae.decode(z)
    loss = _error(y, written)
    if isinstance(sae.architecture, Matryoshka):
        loss = _nested_error(sae, z, y, loss)
    elif not isinstance(sae.architecture, BatchTopK):
        weight = torch.as_tensor(setting(sae.architecture), dtype=pre.dtype, device=pre.device)
        loss = loss + warmth * weight * penalty
    if isinstance(sae.architecture, Gated):
        loss = loss + _error(y, alone)
    active = z.detach() > 0
    return _Attempt(loss, written, active.any(-2), active.sum(-1, dtype=pre.dtype).mean(-1), smallest)


def _error(y: Tensor, written: Tensor) -> Float[Tensor, "*instance"]:
    return (y - written).pow(2).sum(-1).mean(-1)


def _nested_error(sae: SAE, z: Tensor, y: Tensor, whole: Tensor) -> Float[Tensor, "*instance"]:
    """Mean over the sizes (and the whole) of the error with the first latents alone."""
    errors, written = [whole], sae.b_dec[..., None, :]
    for start, stop in pairwise((0, *sae.architecture.sizes)):
        written = written + z[..., start:stop] @ sae.W_dec[..., start:stop, :]
        if stop < sae.n_latents:
            errors.append(_error(y, written))
    return torch.stack(errors).mean(0)


def _largest_of_batch(values: Tensor, k: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Only the k * batch largest of each instance, and the smallest of those."""
    counts = torch.as_tensor(k, device=values.device).expand(values.shape[:-2])[..., None] * values.shape[-2]
    top, where = values.detach().flatten(-2).topk(int(counts.max()), dim=-1)
    kept = (torch.arange(top.shape[-1], device=values.device) < counts).to(values.dtype)
    mask = torch.zeros_like(values).flatten(-2).scatter_(-1, where, kept).reshape(values.shape)
    least = top.gather(-1, counts - 1).clamp_min(torch.finfo(values.dtype).tiny)
    return values * mask, least[..., 0]


class _Jump(torch.autograd.Function):
    """Values above their threshold, and which those are; kernel estimates for the thresholds' gradients.

    Rajamanoharan et al. 2024, arXiv 2407.14435, equations 11 and 12: rectangle kernel of the given bandwidth.
    """

    @staticmethod
    def forward(ctx, values: Tensor, threshold: Tensor, bandwidth: float):
        active = (values > threshold).to(values.dtype)
        ctx.save_for_backward(values, threshold, active)
        ctx.bandwidth = bandwidth
        return values * active, active

    @staticmethod
    def backward(ctx, grad_z: Tensor, grad_active: Tensor):
        values, threshold, active = ctx.saved_tensors
        near = ((values - threshold).abs() < ctx.bandwidth / 2).to(values.dtype) / ctx.bandwidth
        grad_threshold = -(near * (threshold * grad_z + grad_active)).sum(-2, keepdim=True)
        return grad_z * active, grad_threshold, None


# --- TopK: only the active latents are computed with ----------------------------------------------


def _attempt_sparsely(sae: SAE, x: Tensor, y: Tensor) -> _Attempt:
    """As for the others, but decoder and gradients touch only the k latents of each row that are active."""
    n_instances = math.prod(sae.instances)
    with torch.no_grad():
        pre = sae.preactivations(x)
        values, where = largest(pre.relu_(), sae.architecture.k)
    rows, k = values.shape[-2], values.shape[-1]
    offset = torch.arange(n_instances, device=x.device)[:, None, None] * sae.n_latents
    indices = (where.reshape(n_instances, rows, k) + offset).reshape(-1, k)
    inputs = x.expand(*sae.instances, *x.shape[-2:]).reshape(-1, sae.d_in)
    chosen = _Chosen.apply(inputs, sae.W_enc, sae.bias(), indices, values.reshape(-1, k))
    bag = F.embedding_bag(indices, sae.W_dec.flatten(0, -2), per_sample_weights=chosen, mode="sum")
    written = bag.reshape(*sae.instances, rows, sae.d_out) + sae.b_dec[..., None, :]
    active = values > 0
    fired = torch.zeros(n_instances * sae.n_latents, dtype=torch.bool, device=x.device)
    fired[indices[active.reshape(-1, k)]] = True
    l0 = active.sum(-1, dtype=x.dtype).mean(-1)
    return _Attempt(_error(y, written), written, fired.reshape(*sae.instances, sae.n_latents), l0)


class _Chosen(torch.autograd.Function):
    """The chosen latents' values [row k], with gradients to the columns of W_enc that gave them."""

    @staticmethod
    def forward(ctx, x: Tensor, W_enc: Tensor, bias: Tensor, indices: Tensor, values: Tensor):
        ctx.save_for_backward(x, indices, values)
        ctx.shape = W_enc.shape
        return values.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, indices, values = ctx.saved_tensors
        grad = grad * (values > 0)
        *instances, d_in, n_latents = ctx.shape
        n_columns = n_latents * math.prod(instances)
        columns, bias = x.new_zeros(n_columns, d_in), x.new_zeros(n_columns)
        for place in range(indices.shape[1]):
            columns.index_add_(0, indices[:, place], grad[:, place, None] * x)
        bias.index_add_(0, indices.flatten(), grad.flatten())
        W_enc = columns.reshape(*instances, n_latents, d_in).mT
        return None, W_enc, bias.reshape(*instances, n_latents), None, None


# --- Dead latents ---------------------------------------------------------------------------------


def _revival(sae: SAE, x: Tensor, error: Tensor, dead: Tensor) -> Float[Tensor, "*instance"]:
    """How much of the error the dead latents with the largest pre-activations leave, as a share of it."""
    columns = dead.reshape(-1, sae.n_latents).any(0).nonzero()[:, 0]
    pre = x @ sae.W_enc[..., columns] + sae.bias()[..., None, columns]
    z = pre.relu() * dead[..., None, columns]
    most = max(1, sae.d_in // 2)
    if len(columns) > most:
        top, where = z.topk(most, dim=-1)
        z = torch.zeros_like(z).scatter(-1, where, top)
    left = _error(error, z @ sae.W_dec[..., columns, :])
    return left / error.pow(2).sum(-1).mean(-1).clamp_min(torch.finfo(x.dtype).tiny)
