"""Sparse autoencoders and transcoders of six architectures behind one interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.arguments import check_finite, check_integer, check_positive

Latents = Float[Tensor, "*instance batch latent"]

# --- Architectures --------------------------------------------------------------------------------
#
# A setting that is a number holds for all instances; a sequence has one for each.


@dataclass(frozen=True)
class ReLU:
    """Latents ``ReLU(pre)``, their sum penalised (Cunningham et al. 2023, arXiv 2309.08600; Bricken et al. 2023).

    `l1`: weight of the sum of the latents, for activations of mean squared norm 1 about their mean.
    """

    l1: float | Sequence[float]


@dataclass(frozen=True)
class TopK:
    """The `k` largest latents of each row (Gao et al. 2024, arXiv 2406.04093)."""

    k: int | Sequence[int]


@dataclass(frozen=True)
class BatchTopK:
    """The ``k * batch`` largest latents of a batch; outside training those above a threshold.

    The threshold is the mean over batches of the smallest latent that was kept (Bussmann et al. 2024, arXiv
    2412.06410).
    """

    k: int | Sequence[int]


@dataclass(frozen=True)
class Matryoshka:
    """`BatchTopK` whose first latents also have to do alone (Bussmann et al. 2025, arXiv 2503.17547).

    `sizes`: numbers of first latents, rising; all latents together are always added. The losses are averaged.
    """

    k: int | Sequence[int]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class JumpReLU:
    """Latents above a threshold of their own that is learned (Rajamanoharan et al. 2024, arXiv 2407.14435).

    `l0`: weight of the number of active latents, for activations of mean squared norm 1 about their mean. `bandwidth`
    of the kernel that gives the thresholds a gradient, in the same unit.
    """

    l0: float | Sequence[float]
    bandwidth: float = 0.1


@dataclass(frozen=True)
class Gated:
    """One bias decides whether a latent is active, another how much (Rajamanoharan et al. 2024, arXiv 2404.16014).

    `l1`: weight of the sum of the gates' positive pre-activations, for activations of mean squared norm 1 about their
    mean.
    """

    l1: float | Sequence[float]


Architecture = ReLU | TopK | BatchTopK | Matryoshka | JumpReLU | Gated
ARCHITECTURES = {kind.__name__: kind for kind in Architecture.__args__}


def setting(architecture: Architecture) -> float | Sequence[float]:
    """The number, or numbers, that decide how sparse the latents are: k, or the weight of the penalty."""
    return getattr(architecture, fields(architecture)[0].name)


# --- The module -----------------------------------------------------------------------------------


class SAE(nn.Module):
    """A sparse autoencoder, or several of one architecture and size: ``x ≈ z W_dec + b_dec``.

    The latents are ``z = f((x - b_dec) W_enc + b_enc)``, and f is what the architectures differ in. A transcoder reads
    one activation and writes another, of width `d_out`; then nothing is subtracted from x.

    Attributes:
        W_enc: [*instance d_in latent].   b_enc: [*instance latent].
        W_dec: [*instance latent d_out], rows of length 1 after training.   b_dec: [*instance d_out].
        threshold: what a latent has to exceed, [*instance latent]; of BatchTopK, Matryoshka and JumpReLU.
        gain, b_magnitude: [*instance latent], of Gated: ``exp(gain) * (pre - b_enc) + b_magnitude``.
        hook: the hook point whose activations it was trained on, if it is known.
        history: how the training went, if this was trained here.

    Raises:
        TypeError, ValueError: sizes below 1, k above the number of latents, negative weights.
    """

    def __init__(
        self,
        architecture: Architecture,
        d_in: int,
        n_latents: int,
        *,
        d_out: int | None = None,
        seed: int | Sequence[int] = 0,
        hook: str | None = None,
    ):
        super().__init__()
        self.architecture, self.hook, self.history = architecture, hook, None
        self.d_in, self.n_latents = check_integer("d_in", d_in, 1), check_integer("n_latents", n_latents, 1)
        self.is_transcoder = d_out is not None
        self.d_out = self.d_in if d_out is None else check_integer("d_out", d_out, 1)
        self.instances = _check(architecture, self.n_latents, seed)
        seeds = [int(each) for each in (seed if isinstance(seed, Sequence) else [seed] * math.prod(self.instances))]
        drawn = torch.stack([self._draw(each) for each in seeds]).reshape(*self.instances, self.n_latents, -1)
        W_dec = nn.functional.normalize(drawn[..., : self.d_out], dim=-1)
        W_enc = nn.functional.normalize(drawn[..., -self.d_in :], dim=-1).mT
        self.W_dec, self.W_enc = nn.Parameter(W_dec), nn.Parameter(W_enc.contiguous())
        self.b_dec = nn.Parameter(torch.zeros(*self.instances, self.d_out))
        self.b_enc = nn.Parameter(self._of_latents(0.0))
        match architecture:
            case BatchTopK() | Matryoshka():
                self.register_buffer("threshold", self._of_latents(0.0))
            case JumpReLU(bandwidth=bandwidth):
                self.threshold = nn.Parameter(self._of_latents(bandwidth))
            case Gated():
                self.gain, self.b_magnitude = nn.Parameter(self._of_latents(0.0)), nn.Parameter(self._of_latents(0.0))

    def _draw(self, seed: int) -> Float[Tensor, "latent d"]:
        """Normal numbers; the encoder of an autoencoder starts as the decoder's transpose, a transcoder's does not."""
        drawing = torch.Generator().manual_seed(seed)
        width = self.d_out + self.d_in if self.is_transcoder else self.d_in
        return torch.randn(self.n_latents, width, generator=drawing)

    def _of_latents(self, value: float) -> Tensor:
        return torch.full((*self.instances, self.n_latents), value)

    def __getitem__(self, instance: int) -> SAE:
        """One of several, as a module of its own."""
        if len(self.instances) != 1 or not -self.instances[0] <= instance < self.instances[0]:
            raise IndexError(f"instance {instance} of instances {self.instances}")
        value = setting(self.architecture)
        name = fields(self.architecture)[0].name
        own = value[instance] if isinstance(value, Sequence) else value
        d_out = self.d_out if self.is_transcoder else None
        one = SAE(replace(self.architecture, **{name: own}), self.d_in, self.n_latents, d_out=d_out, hook=self.hook)
        one = one.to(self.W_dec).requires_grad_(self.W_dec.requires_grad).train(self.training)
        one.load_state_dict({name: tensor[instance] for name, tensor in self.state_dict().items()})
        one.history = None if self.history is None else self.history[instance]
        return one

    def extra_repr(self) -> str:
        sizes = f"d_in={self.d_in}, n_latents={self.n_latents}" + (f", d_out={self.d_out}" * self.is_transcoder)
        several = f", instances={self.instances}" if self.instances else ""
        return f"{self.architecture}, {sizes}{several}, hook={self.hook!r}"

    # --- Reading and writing

    def forward(self, x: Float[Tensor, "*instance batch d_in"]) -> Float[Tensor, "*instance batch d_out"]:
        """The activation as it is written with the latents (of a transcoder: its guess at the other activation)."""
        return self.decode(self.encode(x))

    def decode(self, z: Latents) -> Float[Tensor, "*instance batch d_out"]:
        """``z W_dec + b_dec``."""
        return z @ self.W_dec + (self.b_dec if z.dim() == 1 else self.b_dec[..., None, :])

    def encode(self, x: Float[Tensor, "*instance batch d_in"]) -> Latents:
        """The latents, at least 0: of any leading shape for one autoencoder, [*instance batch d_in] for several.

        Those of a row do not depend on the other rows, in training or out of it. x without the instances' axes is read
        by all of them.

        Raises:
            ValueError: x of another width, NaN or infinite.
        """
        self.check(x)
        return self.activate(self.preactivations(x))

    def check(self, x: Tensor, name: str = "x") -> None:
        """Raise ValueError unless `x` are finite activations of the width and dtype that are read."""
        fits = isinstance(x, Tensor) and x.dtype == self.W_dec.dtype and x.shape[-1:] == (self.d_in,)
        if fits and self.instances:
            fits = x.dim() == 2 or (x.dim() == 3 and x.shape[:-2] == self.instances)
        if not fits:
            came = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            rows = f"[batch, {self.d_in}] or [{self.instances[0]}, batch, " if self.instances else "[..., "
            raise ValueError(f"{name} is {came}, expected activations {self.W_dec.dtype} {rows}{self.d_in}]")
        check_finite(name, x)

    def preactivations(self, x: Float[Tensor, "*instance batch d_in"]) -> Latents:
        """``(x - b_dec) W_enc + b_enc``."""
        return x @ self.W_enc + self.bias()[..., None, :] if x.dim() > 1 else x @ self.W_enc + self.bias()

    def bias(self) -> Float[Tensor, "*instance latent"]:
        """What is added to ``x W_enc``: b_enc, less what b_dec would give."""
        if self.is_transcoder:
            return self.b_enc
        return self.b_enc - (self.b_dec[..., None, :] @ self.W_enc)[..., 0, :]

    def activate(self, pre: Latents) -> Latents:
        """f: pre-activations to latents."""
        row = (lambda v: v) if pre.dim() == 1 else (lambda v: v[..., None, :])
        match self.architecture:
            case ReLU():
                return pre.relu()
            case TopK(k):
                values, kept = largest(pre.relu(), k)
                return torch.zeros_like(pre).scatter_(-1, kept, values)
            case Gated():
                size = row(self.gain).exp() * (pre - row(self.b_enc)) + row(self.b_magnitude)
                return size.relu() * (pre > 0)
            case _:
                return pre.relu() * (pre > row(self.threshold))


def largest(values: Float[Tensor, "*instance batch latent"], k: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """The k largest of each row and where they are; where k differs between instances, zeros fill up the rest."""
    if not isinstance(k, Sequence):
        return values.topk(int(k), dim=-1, sorted=False)
    top, where = values.topk(int(max(k)), dim=-1)
    kept = torch.arange(max(k), device=values.device) < torch.tensor(k, device=values.device)[:, None, None]
    return top * kept, where


def _check(architecture: Architecture, n_latents: int, seed: int | Sequence[int]) -> tuple[int, ...]:
    """The instances' axes, () or one of the length that the setting or the seeds have."""
    if not isinstance(architecture, Architecture):
        raise TypeError(f"architecture is {architecture!r}, expected one of {', '.join(ARCHITECTURES)}")
    name, value = fields(architecture)[0].name, setting(architecture)
    for each in value if isinstance(value, Sequence) else [value]:
        if name == "k" and check_integer("k", each, 1) > n_latents:
            raise ValueError(f"k is {each}, expected at most {n_latents}, the number of latents")
        if name != "k":
            check_positive(name, each, or_zero=True)
    if isinstance(architecture, JumpReLU):
        check_positive("bandwidth", architecture.bandwidth)
    if isinstance(architecture, Matryoshka):
        if not isinstance(architecture.sizes, Sequence):
            raise TypeError(f"sizes is {architecture.sizes!r}, expected a sequence of numbers")
        sizes = [check_integer("sizes", size, 1) for size in architecture.sizes]
        if not sizes or sizes != sorted(set(sizes)) or sizes[-1] > n_latents:
            raise ValueError(f"sizes is {architecture.sizes!r}, expected rising numbers of at most {n_latents}")
    for each in seed if isinstance(seed, Sequence) else [seed]:
        check_integer("seed", each, 0)
    lengths = {len(v) for v in (value, seed) if isinstance(v, Sequence)}
    if len(lengths) > 1 or lengths == {0}:
        raise ValueError(f"{name} and seed are sequences of {sorted(lengths)} numbers, expected as many of each")
    return tuple(lengths)
