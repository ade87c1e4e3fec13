"""Contrast-consistent search: a direction that behaves like truth, found without labels (Burns et al. 2022).

Each statement is read twice, once completed as true (``x_pos``) and once as false (``x_neg``). A probe p of truth has
``p(x_pos) = 1 - p(x_neg)`` (consistency) and is sure (confidence). Anything else that the two completions disagree on
and that splits the data cleanly satisfies this too (Farquhar et al. 2023, arXiv 2312.10029), and which side of the
split is called true, the loss cannot say.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.arguments import check_integer, check_positive, check_sites
from utils.probes import base
from utils.probes._adam import minimise


def ccs_loss(p_pos: Float[Tensor, "*probe n"], p_neg: Float[Tensor, "*probe n"]) -> Float[Tensor, "*probe"]:
    """Consistency plus confidence, ``mean (p+ - (1 - p-))^2 + mean min(p+, p-)^2`` (Burns et al. 2022, section 2.2).

    0 for a perfect probe; a probe that gives every statement the same probability reaches no less than 0.2 (at 0.4).
    """
    if p_pos.shape != p_neg.shape:
        raise ValueError(f"p_neg has shape {list(p_neg.shape)}, expected that of p_pos, {list(p_pos.shape)}")
    return ((p_pos - (1 - p_neg)) ** 2 + torch.minimum(p_pos, p_neg) ** 2).mean(-1)


@dataclass(frozen=True)
class CCSProbe:
    """The best of several tries at every site. **Its sign means nothing**: "true" may as well be "false".

    An accuracy of 0.1 is as good as one of 0.9. `flipped` is the same probe with the other sign; to orient it takes at
    least one labelled example or outside knowledge.

    Attributes:
        weight, bias: [*site, d] and [*site], on activations normalised as in the fit.
        mean: [*site, 2, d], of the fitted positives and negatives, which are normalised separately.
        inverse_std: [*site, 2, d]; 0 for a constant feature, which is ignored.
        loss: [*site], of the best try after training.
        losses: [*site, try], of all tries: do they agree?
    """

    weight: Float[Tensor, "*site d"]
    bias: Float[Tensor, "*site"]
    mean: Float[Tensor, "*site 2 d"]
    inverse_std: Float[Tensor, "*site 2 d"]
    loss: Float[Tensor, "*site"]
    losses: Float[Tensor, "*site try"]

    def probabilities(
        self, x_pos: Float[Tensor, "*site n d"], x_neg: Float[Tensor, "*site n d"]
    ) -> tuple[Float[Tensor, "*site n"], Float[Tensor, "*site n"]]:
        """``p(x_pos)`` and ``p(x_neg)``, each normalised by the mean and standard deviation of its side of the fit."""
        p_pos, p_neg = (self._probability(name, x, side) for side, (name, x) in enumerate(_named(x_pos, x_neg)))
        return p_pos, p_neg

    def _probability(self, name: str, x: Tensor, side: int) -> Float[Tensor, "*site n"]:
        base.features(x, name)
        check_sites(name, x, tuple(self.bias.shape), "n", self.weight.shape[-1])
        z = (x.detach().float() - self.mean[..., side, None, :]) * self.inverse_std[..., side, None, :]
        return torch.sigmoid((z @ self.weight.unsqueeze(-1)).squeeze(-1) + self.bias.unsqueeze(-1))

    def probability(
        self, x_pos: Float[Tensor, "*site n d"], x_neg: Float[Tensor, "*site n d"]
    ) -> Float[Tensor, "*site n"]:
        """How probable it is (up to sign) that each statement is true: mean of ``p(x_pos)`` and ``1 - p(x_neg)``."""
        p_pos, p_neg = self.probabilities(x_pos, x_neg)
        return (p_pos + 1 - p_neg) / 2

    def predict(self, x_pos: Float[Tensor, "*site n d"], x_neg: Float[Tensor, "*site n d"]) -> Bool[Tensor, "*site n"]:
        """Whether each statement is called true (up to sign)."""
        return self.probability(x_pos, x_neg) > 0.5

    def accuracy(
        self, x_pos: Float[Tensor, "*site n d"], x_neg: Float[Tensor, "*site n d"], y: Int[Tensor, "n"]
    ) -> Float[Tensor, "*site"]:
        """Share of statements whose truth `y` is predicted, with the sign as it is.

        The paper's number is ``max(accuracy, 1 - accuracy)``, which looks at the labels of all rows once.
        """
        right = self.predict(x_pos, x_neg) == base.binary_labels(y, x_pos, with_label_axis=False)
        return base.share(right, None, has_folds=False)

    def flipped(self, where: Bool[Tensor, "*site"] | bool = True) -> "CCSProbe":
        """The probe with the other sign (at the sites `where`). Its loss is the same only where it is consistent."""
        sign = torch.where(torch.as_tensor(where, device=self.bias.device).expand(self.bias.shape), -1.0, 1.0)
        return replace(self, weight=self.weight * sign.unsqueeze(-1), bias=self.bias * sign)


def fit_ccs(
    x_pos: Float[Tensor, "*site n d"],
    x_neg: Float[Tensor, "*site n d"],
    *,
    tries: int = 10,
    steps: int = 1000,
    lr: float = 0.01,
    weight_decay: float = 0.01,
    standardize: bool = True,
    seed: int = 0,
) -> CCSProbe:
    """Contrast-consistent search (Burns et al. 2022, arXiv 2212.03827) with a linear probe, at every site at once.

    Positives and negatives are normalised separately, so that the completion itself ("yes", "no") cannot be read from
    the mean. All tries (random starts, the same at every site) are trained side by side; the lowest loss wins.

    Args:
        x_pos, x_neg: the same statements completed as true and as false.
        tries: random starts.
        steps: full-batch AdamW steps, learning rate constant as in the paper's code.
        standardize: divide by the standard deviation too (the paper's formula); False: subtract the mean only (the
            default of the code that was released).
        seed: of the starts. The global random state is neither used nor changed.

    With more columns than rows a direction that satisfies the loss nearly always exists: look at held-out statements.
    Features that are constant on one side are ignored there; where nothing varies, the loss stays at 0.2 or above.

    Raises:
        ValueError: for NaN, shapes that do not fit, fewer than two statements.
    """
    flat = [base.features(x, name).float() for name, x in _named(x_pos, x_neg)]
    if x_pos.shape != x_neg.shape:
        raise ValueError(f"x_neg has shape {list(x_neg.shape)}, expected that of x_pos, {list(x_pos.shape)}")
    if x_pos.shape[-2] < 2:
        raise ValueError("x_pos has one row only, expected at least two statements")
    tries, steps = check_integer("tries", tries, least=1), check_integer("steps", steps, least=1)
    lr, weight_decay = check_positive("lr", lr), check_positive("weight_decay", weight_decay, or_zero=True)

    x = torch.stack(flat, 1)  # [site, side, n, d]
    mean, inverse_std = _normalization(x, standardize)
    z = (x - mean.unsqueeze(-2)) * inverse_std.unsqueeze(-2)
    weight, bias = (p.expand(len(x), *p.shape).to(x.device, copy=True) for p in _starts(x.shape[-1], tries, seed))

    def losses() -> Float[Tensor, "site try"]:
        p = torch.sigmoid(weight.unsqueeze(1) @ z.mT + bias[:, None, :, None])  # [site, side, try, n]
        return ccs_loss(p[:, 0], p[:, 1])

    settings = {"steps": steps, "lr": lr, "weight_decay": weight_decay}
    minimise(lambda step: losses().sum(), [weight, bias], **settings, decay_lr=False)
    final = losses()
    best = final.argmin(-1)
    rows, site = torch.arange(len(x), device=x.device), x_pos.shape[:-2]
    return CCSProbe(
        weight=weight[rows, best].reshape(*site, -1),
        bias=bias[rows, best].reshape(site),
        mean=mean.reshape(*site, 2, -1),
        inverse_std=inverse_std.reshape(*site, 2, -1),
        loss=final[rows, best].reshape(site),
        losses=final.reshape(*site, tries),
    )


def _named(x_pos: Tensor, x_neg: Tensor) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("x_pos", x_pos), ("x_neg", x_neg)


def _normalization(x: Float[Tensor, "*site n d"], standardize: bool) -> tuple[Tensor, Tensor]:
    """Mean and one over the standard deviation (or 1) of the rows; 0 for a feature that is constant in float32."""
    rows = x.double()
    mean, std = rows.mean(-2), rows.std(-2, correction=0)
    varies = std > torch.finfo(torch.float32).eps * rows.abs().amax(-2)
    return mean.float(), torch.where(varies, 1 / std if standardize else 1.0, 0.0).float()


def _starts(d: int, tries: int, seed: int) -> tuple[Float[Tensor, "try d"], Float[Tensor, "try"]]:
    """Weights and biases uniform in +-1 / sqrt(d), torch's default for a linear layer; drawn on the CPU."""
    generator = torch.Generator().manual_seed(check_integer("seed", seed, least=0))
    start = (2 * torch.rand(tries, d + 1, generator=generator) - 1) / d**0.5
    return start[:, :-1], start[:, -1]
