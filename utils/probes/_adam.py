"""The training loop that the probes without a closed form share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def minimise(
    loss: Callable[[int], Tensor],
    parameters: Sequence[Tensor],
    *,
    steps: int,
    lr: float,
    weight_decay: float | Sequence[float] = 0.0,
    decay_lr: bool = True,
) -> None:
    """Change `parameters` in place by `steps` steps of AdamW on ``loss(step)``.

    The loss is a *sum* over probes trained side by side: Adam's update is elementwise, so no probe's path depends on
    which others are there. `weight_decay` is decoupled (Loshchilov & Hutter 2019, arXiv 1711.05101), one number or one
    per parameter; `decay_lr` takes the learning rate linearly to zero, so that the last step is no matter of luck.
    Works where gradients are switched off.
    """
    decays = [weight_decay] * len(parameters) if isinstance(weight_decay, float | int) else weight_decay
    groups = [{"params": [p], "weight_decay": decay} for p, decay in zip(parameters, decays, strict=True)]
    with torch.enable_grad():
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(groups, lr=lr)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / steps) if decay_lr else lr
            optimizer.zero_grad(set_to_none=True)
            loss(step).backward()
            optimizer.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
