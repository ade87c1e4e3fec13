"""What a dictionary is worth: reconstruction, sparsity, the cost of splicing it in, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformer_lens import TransformerBridge

from utils.arguments import check_finite, check_integer
from utils.sae.model import SAE
from utils.sae.streams import _check_hook, _check_tokens

CHUNK = 4096  # activations encoded at once
DENSE = 0.1  # share of samples from which on a latent counts as dense

# --- Reconstruction and sparsity ------------------------------------------------------------------


def fvu(
    x: Float[Tensor, "*instance sample d"], written: Float[Tensor, "*instance sample d"]
) -> Float[Tensor, "*instance"]:
    """Fraction of variance unexplained: squared error over squared distance from the mean, both summed.

    0 for a perfect copy, 1 for the mean, more for worse than the mean. 1 - FVU is the variance explained.

    Raises:
        ValueError: other shapes in x and in `written`, NaN, samples that are all the same.
    """
    _check_samples("x", x)
    _check_samples("written", written)
    if x.shape[-2:] != written.shape[-2:]:
        raise ValueError(f"x has shape {list(x.shape)} and written {list(written.shape)}, expected the same")
    _check_varies("x", x)
    x, written = x.double(), written.double()
    varies = (x - x.mean(-2, keepdim=True)).pow(2).sum((-1, -2))
    return ((x - written).pow(2).sum((-1, -2)) / varies).float()


def _check_samples(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
        came = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name} is {came}, expected a floating-point tensor [*instance sample d]")
    check_finite(name, x)


def _check_varies(name: str, x: Tensor) -> None:
    if bool((x.amin(-2) == x.amax(-2)).all(-1).any()):
        raise ValueError(f"{name} does not vary: all samples are the same, and FVU is not defined")


@dataclass(frozen=True)
class Report:
    """How well a dictionary does on some activations; a number for each instance.

    Attributes:
        fvu: fraction of variance unexplained.
        l0: mean number of active latents.
        density: [*instance latent], share of samples on which each latent is active.
        dead: share of latents that are never active on these samples.
        dense: share of latents that are active on more than a tenth of them.
        bias: relative reconstruction bias, ``E|w|² / E[w · x]`` with w what is written and x what was there, both from
            b_dec (Rajamanoharan et al. 2024, arXiv 2404.16014): below 1 if what is written is too short.
    """

    fvu: Float[Tensor, "*instance"]
    l0: Float[Tensor, "*instance"]
    density: Float[Tensor, "*instance latent"]
    dead: Float[Tensor, "*instance"]
    dense: Float[Tensor, "*instance"]
    bias: Float[Tensor, "*instance"]


@torch.no_grad()
def evaluate(sae: SAE, x: Float[Tensor, "*instance sample d_in"], target: Tensor | None = None) -> Report:
    """Reconstruction and sparsity on activations that it was not trained on; a transcoder needs its `target`.

    Raises:
        ValueError: x of another width, NaN, samples that are all the same; a transcoder without target.
    """
    sae.check(x)
    if (target is None) == sae.is_transcoder:
        raise ValueError("target is what a transcoder writes: expected for a transcoder, and only for one")
    y = x if target is None else target
    _check_samples("x" if target is None else "target", y)
    if y.dim() > 2 + len(sae.instances):
        raise ValueError(f"x has shape {list(x.shape)}, expected [sample d]: flatten rows and positions first")
    if y.shape[:-1] != x.shape[:-1] or y.shape[-1] != sae.d_out:
        raise ValueError(f"target has shape {list(y.shape)}, expected {[*x.shape[:-1], sae.d_out]}")
    n = x.shape[-2]
    mean = y.mean(-2, keepdim=True)
    base = sae.b_dec[..., None, :]
    error, active, along, squared = 0.0, 0.0, 0.0, 0.0  # float64 sums
    for rows in torch.arange(n, device=x.device).split(CHUNK):
        z, goal = sae.encode(x.index_select(-2, rows)), y.index_select(-2, rows)
        written = sae.decode(z)
        error = error + (goal - written).pow(2).sum((-1, -2)).double()
        active = active + (z > 0).sum(-2).double()
        along = along + ((written - base) * (goal - base)).sum((-1, -2)).double()
        squared = squared + (written - base).pow(2).sum((-1, -2)).double()
    varies = (y - mean).pow(2).sum((-1, -2)).double()
    _check_varies("x" if target is None else "target", y)
    density = (active / n).float()
    return Report(
        fvu=(error / varies).float(),
        l0=density.sum(-1),
        density=density,
        dead=(density == 0).float().mean(-1),
        dense=(density > DENSE).float().mean(-1),
        bias=(squared / along).float(),
    )


# --- In the model ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spliced:
    """Cross-entropy (nats per token) of a model that computes on with something else at a hook point.

    Attributes:
        clean: with the activations themselves.
        spliced: with what the dictionary makes of them.
        ablated: with their mean over all tokens.
        recovered: ``(ablated - spliced) / (ablated - clean)``, 1 where nothing is lost. It depends on what is put in
            for `ablated`; the mean is a harder rival than zeros.
    """

    clean: float
    spliced: float
    ablated: float

    @property
    def recovered(self) -> float:
        return (self.ablated - self.spliced) / (self.ablated - self.clean)


def splice(sae: SAE, hook: str | None = None) -> list[tuple]:
    """Hooks that put what the dictionary writes in the place of the activations, for ``model.run_with_hooks``.

    The first position (``<bos>``), on which dictionaries are not trained, keeps its activation.

    Raises:
        ValueError: a dictionary that was trained at another hook point; a transcoder, which writes elsewhere.
    """
    hook = _site(sae, hook)

    def put(activation: Tensor, hook: object) -> Tensor:
        written = sae(activation)
        written[:, 0] = activation[:, 0]
        return written

    return [(hook, put)]


def _site(sae: SAE, hook: str | None) -> str:
    if sae.instances or sae.is_transcoder:
        raise ValueError("sae holds several dictionaries or a transcoder, expected one autoencoder (pick with sae[i])")
    if sae.hook is None and hook is None:
        raise ValueError("the dictionary does not say where it was trained: give the hook point")
    if None not in (sae.hook, hook) and sae.hook != hook:
        raise ValueError(f"hook is {hook!r}, but the dictionary was trained at {sae.hook!r}")
    return sae.hook if hook is None else hook


@torch.no_grad()
def loss_recovered(
    model: TransformerBridge, sae: SAE, tokens: Int[Tensor, "row pos"], hook: str | None = None
) -> Spliced:
    """What the model loses when it has to compute on with what the dictionary writes.

    Raises:
        ValueError: a dictionary for another hook point, or of another width than the model has there.
    """
    hook = _site(sae, hook)
    _check_hook(model, hook)
    _check_tokens(model, tokens)
    if tokens.shape[1] < 3:
        raise ValueError(f"tokens has shape {list(tokens.shape)}, expected rows of at least three tokens")
    tokens = tokens.to(model.W_U.device).long()
    kept = {}

    def keep(activation: Tensor, hook: object) -> None:
        kept["mean"] = kept.get("mean", 0) + activation[:, 1:].sum((0, 1))
        if activation.shape[-1] != sae.d_in:
            raise ValueError(f"the dictionary reads width {sae.d_in}, the model has {activation.shape[-1]} there")

    def ablate(activation: Tensor, hook: object) -> Tensor:
        mean = kept["mean"] / (len(tokens) * (tokens.shape[1] - 1))
        return torch.cat([activation[:, :1], mean.expand_as(activation[:, 1:])], dim=1)

    def cost(hooks: list) -> float:
        total = 0.0
        for rows in tokens.split(max(1, CHUNK // tokens.shape[1])):
            logits = model.run_with_hooks(rows, fwd_hooks=hooks)[:, 1:-1]
            total += F.cross_entropy(logits.flatten(0, 1), rows[:, 2:].flatten(), reduction="sum").item()
        return total / (len(tokens) * (tokens.shape[1] - 2))

    clean = cost([(hook, keep)])
    return Spliced(clean, cost(splice(sae, hook)), cost([(hook, ablate)]))


# --- Matching with directions ---------------------------------------------------------------------


def best_cosines(
    wanted: Float[Tensor, "*instance feature d"], found: Float[Tensor, "*instance latent d"]
) -> tuple[Float[Tensor, "*instance feature"], Int[Tensor, "*instance feature"]]:
    """For each wanted direction the largest cosine with any that was found, and which that is.

    Its mean over the features is the mean max cosine similarity, MMCS (Sharkey et al. 2022). Latents that never fire
    keep the direction they started with: leave them out of `found`.

    Raises:
        ValueError: directions of another width, of length zero, NaN or infinite.
    """
    for name, rows in (("wanted", wanted), ("found", found)):
        fits = isinstance(rows, Tensor) and isinstance(wanted, Tensor) and rows.is_floating_point() and rows.dim() >= 2
        if not fits or rows.shape[-1] != wanted.shape[-1] or not rows.numel() or rows.dtype != wanted.dtype:
            came = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
            raise ValueError(f"{name} is {came}, expected floating-point directions [..., d] of one width and dtype")
        check_finite(name, rows)
        if not bool((rows.norm(dim=-1) > 0).all()):
            raise ValueError(f"{name} holds a direction of length zero")
    if wanted.dim() > 2 and found.dim() > 2 and wanted.shape[:-2] != found.shape[:-2]:
        raise ValueError(f"wanted is {list(wanted.shape)}, found is {list(found.shape)}: other instances")
    best = (F.normalize(wanted, dim=-1) @ F.normalize(found, dim=-1).mT).max(-1)
    return best.values, best.indices


def recurring(
    one: SAE, other: SAE, density_one: Tensor, density_other: Tensor, cosine: float = 0.9
) -> tuple[float, Float[Tensor, " latent"]]:
    """Which latents of one dictionary come back in another, as the largest cosine of decoder rows among live latents.

    Returns the share of the first's live latents with at least `cosine`, and each one's largest cosine.
    """
    for name, sae, density in (("one", one, density_one), ("other", other, density_other)):
        if sae.instances:
            raise ValueError(f"{name} holds several dictionaries, expected one (pick with sae[i])")
        if density.shape != (sae.n_latents,):
            raise ValueError(
                f"density_{name} has shape {list(density.shape)}, expected [{sae.n_latents}], a latent each"
            )
    live = one.W_dec[density_one > 0]
    best, _ = best_cosines(live, other.W_dec[density_other > 0])
    return (best >= cosine).float().mean().item(), best


# --- Matching with annotations --------------------------------------------------------------------


@dataclass(frozen=True)
class Matches:
    """For each concept the unit that tells it best, chosen on one half of the samples and scored on the other.

    Attributes:
        unit: [concept], the latent (or neuron).
        threshold: [concept], above which it is taken to say yes.
        f1, precision, recall: [concept], on the other half.
        f1_chosen: [concept], on the half on which unit and threshold were chosen: too good, by the choosing.
    """

    unit: Int[Tensor, " concept"]
    threshold: Float[Tensor, " concept"]
    f1: Float[Tensor, " concept"]
    precision: Float[Tensor, " concept"]
    recall: Float[Tensor, " concept"]
    f1_chosen: Float[Tensor, " concept"]


@torch.no_grad()
def match(
    values: Float[Tensor, "sample unit"], labels: Bool[Tensor, "sample concept"], *, n_thresholds: int = 8
) -> Matches:
    """The unit and threshold of largest F1 for each concept, chosen on the first half of the samples.

    Shuffle the samples, or see that the halves come from different texts. Thresholds tried for a unit: zero, and
    quantiles of its values above zero. Neurons, which may say yes by being low, are matched with
    ``torch.cat([x - x.mean(0), x.mean(0) - x], dim=1)``.

    Raises:
        ValueError: other shapes, a concept that does not occur in both halves, NaN.
    """
    check_integer("n_thresholds", n_thresholds, 1)
    for name, given in (("values", values), ("labels", labels)):
        if not isinstance(given, Tensor) or given.dim() != 2 or not given.numel():
            came = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(
                f"{name} is {came}, expected a tensor [sample {'unit' if name == 'values' else 'concept'}]"
            )
    if labels.dtype != torch.bool or labels.dim() != 2 or values.dim() != 2 or len(labels) != len(values):
        raise ValueError(
            f"values is {list(values.shape)} and labels {labels.dtype} {list(labels.shape)}, expected [sample unit] "
            "and Bool [sample concept]"
        )
    check_finite("values", values)
    values = values.float()
    half = len(values) // 2
    for part in (labels[:half], labels[half:]):
        if not bool(part.any(0).all()):
            missing = (~part.any(0)).nonzero()[:, 0].tolist()
            raise ValueError(f"labels: the concepts {missing} do not occur in both halves of the samples")
    wanted = labels[:half].to(values.dtype)
    positives = wanted.sum(0)
    best = values.new_full((labels.shape[1],), -1.0)
    unit, threshold = torch.zeros_like(best, dtype=torch.long), torch.zeros_like(best)
    for units in torch.arange(values.shape[1], device=values.device).split(256):
        part = values[:half, units]
        for cut in _cuts(part, n_thresholds):
            yes = (part > cut).to(values.dtype)
            f1 = 2 * (yes.T @ wanted) / (yes.sum(0)[:, None] + positives).clamp_min(1)
            top = f1.max(0)
            better = top.values > best
            best = torch.where(better, top.values, best)
            unit = torch.where(better, units[top.indices], unit)
            threshold = torch.where(better, cut[top.indices], threshold)
    yes, wanted = values[half:, unit] > threshold, labels[half:]
    both = (yes & wanted).sum(0)
    precision = both / yes.sum(0).clamp_min(1)
    recall = both / wanted.sum(0)
    f1 = 2 * both / (yes.sum(0) + wanted.sum(0))
    return Matches(unit, threshold, f1, precision, recall, best)


def _cuts(values: Float[Tensor, "sample unit"], n: int) -> Float[Tensor, "threshold unit"]:
    """Zero, and quantiles of each unit's values above zero, at shares 1/n, ..., (n - 1)/n."""
    ordered = values.sort(0).values
    positive = (ordered > 0).sum(0)
    shares = torch.arange(1, n, device=values.device) / n
    places = len(values) - positive + (shares[:, None] * positive).long()
    cuts = ordered.gather(0, places.clamp_max(len(values) - 1))
    return torch.cat([cuts.new_zeros(1, values.shape[1]), cuts.clamp_min(0)])


# --- Absorption and splitting ---------------------------------------------------------------------


def absorption(
    z: Float[Tensor, "sample latent"],
    W_dec: Float[Tensor, "latent d"],
    parent: int,
    direction: Float[Tensor, " d"],
    present: Bool[Tensor, " sample"],
    *,
    share: float = 0.4,
) -> tuple[float, Int[Tensor, " absorber"]]:
    """How often a parent feature is present, its latent silent, and another latent writes the parent's direction.

    After Chanin et al. 2024 (arXiv 2409.14507), with the direction that is planted (or a probe's) in place of an
    ablation: a latent absorbs on a sample if what it alone writes along the direction is at least `share` of the mean
    that the parent's latent writes where it is active.

    Returns:
        the share of the samples with the parent on which it is absorbed; the latents that absorb, the commonest first.

    Raises:
        ValueError: shapes that do not fit, NaN, a parent that is never present, or whose latent is never active or does
            not write along the direction.
    """
    fits = W_dec.shape == (z.shape[-1], direction.shape[-1]) and present.shape == z.shape[:1]
    if z.dim() != 2 or direction.dim() != 1 or not fits or present.dtype != torch.bool:
        raise ValueError(
            f"z {list(z.shape)}, W_dec {list(W_dec.shape)}, direction {list(direction.shape)} and present "
            f"{present.dtype} {list(present.shape)} do not fit together"
        )
    for name, given in (("z", z), ("W_dec", W_dec), ("direction", direction)):
        check_finite(name, given)
    if check_integer("parent", parent, 0) >= z.shape[1]:
        raise ValueError(f"parent is {parent}, expected a latent, 0 to {z.shape[1] - 1}")
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}, expected above 0, at most 1")
    if not direction.norm() > 0:
        raise ValueError("direction has length zero")
    if not bool(present.any()) or not bool((z[present, parent] > 0).any()):
        raise ValueError("the parent is never present, or its latent never active where it is")
    along = W_dec @ (direction / direction.norm())
    own = z[present, parent]
    usual = own[own > 0].mean() * along[parent]
    if not usual > 0:
        raise ValueError(f"latent {parent} does not write along the direction: it is not the parent's")
    written = z[present] * along
    written[:, parent] = 0
    absorbs = (written >= share * usual) & (own == 0)[:, None]
    counts = absorbs.sum(0)
    order = counts.argsort(descending=True)
    return absorbs.any(1).float().mean().item(), order[: int((counts > 0).sum())]


def splits(
    narrow: Float[Tensor, "sample latent"], wide: Float[Tensor, "sample other"], *, inside: float = 0.8
) -> list[Int[Tensor, " part"]]:
    """For each latent of a narrow dictionary the latents of a wide one that fire almost only where it does.

    A latent of the wide dictionary belongs to the latent of the narrow one that is active on the largest share of the
    samples on which it is active itself, if that share is at least `inside`.
    """
    for name, z in (("narrow", narrow), ("wide", wide)):
        _check_samples(name, z)
        if z.dim() != 2 or len(z) != len(narrow):
            raise ValueError(
                f"narrow has shape {list(narrow.shape)} and wide {list(wide.shape)}, expected [sample latent] with as "
                "many samples in both"
            )
    if not 0 < inside <= 1:
        raise ValueError(f"inside is {inside}, expected above 0, at most 1")
    on, fires = (narrow > 0).float(), (wide > 0).float()
    share = (fires.T @ on) / fires.sum(0)[:, None].clamp_min(1)
    best = share.max(1)
    owner = torch.where((best.values >= inside) & (fires.sum(0) > 0), best.indices, -1)
    return [(owner == latent).nonzero()[:, 0] for latent in range(narrow.shape[1])]


def names_of(units: Int[Tensor, " concept"], concepts: Sequence[str]) -> dict[int, list[str]]:
    """The concepts that each unit was matched with."""
    named: dict[int, list[str]] = {}
    for unit, concept in zip(units.tolist(), concepts, strict=True):
        named.setdefault(unit, []).append(concept)
    return named
