"""MLP probes: one hidden layer of ReLUs, for every site and fold at once.

What a linear probe cannot read may still be there: after LEACE no linear probe beats the majority, an MLP often does.
The other side of that strength is that it learns arbitrary labels more easily (see `utils.probes.controls`).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from utils.arguments import check_integer, check_positive, check_sites
from utils.probes import base
from utils.probes._adam import minimise


@dataclass(frozen=True)
class MLPProbes:
    """Fitted MLPs, one for each site and fold; the axis ``*fold`` is there where `folds` was given."""

    mean: Float[Tensor, "*site_fold d"]  # of the fitting rows
    inverse_std: Float[Tensor, "*site_fold d"]  # 0 for a feature that is constant on the fitting rows: it is ignored
    w_in: Float[Tensor, "*site_fold d hidden"]
    b_in: Float[Tensor, "*site_fold hidden"]
    w_out: Float[Tensor, "*site_fold hidden class"]
    b_out: Float[Tensor, "*site_fold class"]
    loss: Float[Tensor, "*site_fold"]  # mean cross-entropy of the fitting rows after the last step, nats
    has_folds: bool

    def log_prob(self, x: Float[Tensor, "*site n d"]) -> Float[Tensor, "*site_fold n class"]:
        """Log-probability of each class in nats; `x` has the sites of the fit, any rows."""
        base.features(x)
        site = self.mean.shape[: self.mean.dim() - 1 - self.has_folds]
        check_sites("x", x, tuple(site), "n", self.mean.shape[-1])
        x = x.detach().float().unsqueeze(-3) if self.has_folds else x.detach().float()
        hidden = torch.relu(self._standardized(x) @ self.w_in + self.b_in.unsqueeze(-2))
        return (hidden @ self.w_out + self.b_out.unsqueeze(-2)).log_softmax(-1)

    def _standardized(self, x: Tensor) -> Tensor:
        return (x - self.mean.unsqueeze(-2)) * self.inverse_std.unsqueeze(-2)

    def predict(self, x: Float[Tensor, "*site n d"]) -> Int[Tensor, "*site_fold n"]:
        """The most probable class."""
        return self.log_prob(x).argmax(-1)

    def accuracy(
        self,
        x: Float[Tensor, "*site n d"],
        y: Int[Tensor, "n"],
        rows: Bool[Tensor, "n"] | Bool[Tensor, "fold n"] | None = None,
    ) -> Float[Tensor, "*site_fold"]:
        """Share of right predictions (0 to 1) over all rows, or over those in `rows` (``~folds``: those held out)."""
        return base.share(self.predict(x) == base.class_labels(y, x), rows, self.has_folds)


def fit_mlp(
    x: Float[Tensor, "*site n d"],
    y: Int[Tensor, "n"],
    *,
    hidden: int = 64,
    n_classes: int | None = None,
    weight_decay: float = 0.01,
    steps: int = 300,
    lr: float = 0.01,
    folds: Bool[Tensor, "fold n"] | None = None,
    seed: int = 0,
) -> MLPProbes:
    """Fit one MLP ``softmax(relu(z W_in + b_in) W_out + b_out)`` per site and fold by batched matrix products.

    Full-batch AdamW on the mean cross-entropy, learning rate falling linearly to zero, decoupled weight decay on the
    weights. ``z`` is `x` standardised by the fitting rows. All probes start from the same seeded weights: none
    depends on which other sites or folds are fitted with it.

    Args:
        x: activations; axes before the rows are sites (layers, positions, ...).
        y: classes 0, 1, ...
        hidden: ReLUs.
        n_classes: where `y` may lack the last classes; default ``max(y) + 1``.
        folds: True = row is used for fitting; default all rows, and then no fold axis in the results.
        seed: of the initial weights. The global random state is neither used nor changed.

    Features that are constant on the fitting rows (spread below the resolution of float32) are ignored. More columns
    than rows are allowed: weight decay and the number of steps are then all that keeps the probe from memorising.

    Raises:
        ValueError: for NaN, shapes that do not fit, one class only (in the fitting rows of a fold).
    """
    flat, y = base.features(x).float(), base.class_labels(y, x)
    *site, _, d = x.shape
    n_classes = int(y.max()) + 1 if n_classes is None else check_integer("n_classes", n_classes, least=2)
    if y.max() >= n_classes:
        raise ValueError(f"n_classes is {n_classes} and y goes up to {int(y.max())}")
    hidden, steps = check_integer("hidden", hidden, least=1), check_integer("steps", steps, least=1)
    lr, weight_decay = check_positive("lr", lr), check_positive("weight_decay", weight_decay, or_zero=True)
    fitting = _fitting(folds, flat, y)

    rows = _Rows.of(flat, fitting)
    parameters = [
        p.expand(len(flat), len(fitting), *p.shape).to(x.device, copy=True) for p in _init(d, hidden, n_classes, seed)
    ]
    minimise(
        lambda step: rows.cross_entropy(y, *parameters).sum(),
        parameters,
        steps=steps,
        lr=lr,
        weight_decay=(weight_decay, 0.0, weight_decay, 0.0),
    )
    loss = rows.cross_entropy(y, *parameters)

    def shaped(t: Tensor) -> Tensor:
        """[site, fold, ...] with the axes that were given."""
        return t.reshape([*site, *([len(fitting)] if folds is not None else []), *t.shape[2:]])

    fitted = (rows.mean.float(), rows.inverse_std.float(), *parameters, loss)
    return MLPProbes(*map(shaped, fitted), has_folds=folds is not None)


@dataclass(frozen=True)
class _Rows:
    """The rows of all sites, standardised for all folds without a copy for each.

    The products run over rows brought near mean 0 and variance 1 once, shared by all folds; what remains of each
    fold's own standardisation is an affine map of the features and goes into its weights.
    """

    shared: Float[Tensor, "site n d"]
    scale: Float[Tensor, "site fold d"]  # a fold's standardised rows are (shared - shift) * scale
    shift: Float[Tensor, "site fold d"]
    weight: Float[Tensor, "fold n"]  # of each row in the loss
    mean: Float[Tensor, "site fold d"]  # a fold's standardised rows are (x - mean) * inverse_std
    inverse_std: Float[Tensor, "site fold d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site n d"], fitting: Bool[Tensor, "fold n"]) -> "_Rows":
        mean, inverse_std = _standardization(x, fitting)
        center, unit = (t.float() for t in _standardization(x, torch.ones_like(fitting[:1])))
        return cls(
            shared=(x - center) * unit,
            scale=torch.where(unit > 0, inverse_std / unit, 0.0).float(),
            shift=((mean - center) * unit).float(),
            weight=fitting.float() / fitting.sum(-1, keepdim=True),
            mean=mean,
            inverse_std=inverse_std,
        )

    def cross_entropy(
        self, y: Int[Tensor, "n"], w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor
    ) -> Float[Tensor, "site fold"]:
        """Mean over the fitting rows, nats."""
        n_sites, n_folds, d, hidden = w_in.shape
        weight = self.scale.unsqueeze(-1) * w_in
        bias = b_in - (self.shift.unsqueeze(-2) @ weight).squeeze(-2)
        pre = self.shared @ weight.transpose(1, 2).reshape(n_sites, d, n_folds * hidden)
        act = torch.relu(pre.unflatten(-1, (n_folds, hidden)).transpose(1, 2) + bias.unsqueeze(-2))
        logits = act @ w_out + b_out.unsqueeze(-2)
        nats = F.cross_entropy(logits.flatten(0, 2), y.repeat(n_sites * n_folds), reduction="none")
        return (nats.view(n_sites, n_folds, -1) * self.weight).sum(-1)


def _fitting(
    folds: Bool[Tensor, "fold n"] | None, x: Float[Tensor, "site n d"], y: Int[Tensor, "n"]
) -> Bool[Tensor, "fold n"]:
    """The rows that each fold fits on; ValueError where those have one class only."""
    for fold, rows in enumerate(base.fitting_rows(folds, x)):
        if (y[rows] == y[rows[0]]).all():
            where = "" if folds is None else f" in the fitting rows of fold {fold}"
            raise ValueError(f"y has one class only{where}: there is nothing to fit")
    folds = torch.ones(1, x.shape[1], dtype=torch.bool) if folds is None else torch.as_tensor(folds)
    return folds.to(x.device)


def _standardization(
    x: Float[Tensor, "site n d"], fitting: Bool[Tensor, "fold n"]
) -> tuple[Float[Tensor, "site fold d"], Float[Tensor, "site fold d"]]:
    """Mean of the fitting rows and one over their standard deviation (0 where constant), in float64."""
    weight = fitting.double() / fitting.sum(-1, keepdim=True)
    x = x.double()
    center = x.mean(-2, keepdim=True)
    mean = weight @ (x - center)
    variance = (weight @ (x - center) ** 2 - mean**2).clamp(min=0)
    resolution = torch.finfo(torch.float32).eps * x.abs().amax(-2, keepdim=True)
    inverse_std = torch.where(variance.sqrt() > resolution, variance.rsqrt(), 0.0)
    return mean + center, inverse_std


def _init(d: int, hidden: int, n_classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """He initialisation of the hidden layer, a quieter one of the output, biases zero; drawn on the CPU."""
    generator = torch.Generator().manual_seed(check_integer("seed", seed, least=0))
    w_in = torch.randn(d, hidden, generator=generator) * math.sqrt(2 / d)
    w_out = torch.randn(hidden, n_classes, generator=generator) / math.sqrt(hidden)
    return w_in, torch.zeros(hidden), w_out, torch.zeros(n_classes)
