"""A grid of toy models in one tensor program against a loop of single models: same settings, same final loss, one run.

    pytest -n 0 -s -o addopts="" tests/benchmarks/bench_superposition.py

The peer trains one model at a time with as little around it as PyTorch allows: plain matrices, the random numbers of
all steps drawn beforehand, and the fastest of Adam's implementations. It is timed on a sample of the grid.
"""

from __future__ import annotations

import math
import time

import torch

from utils import superposition

SIDE, STEPS, BATCH, LR = 10, 1500, 256, 3e-3
SAMPLE = [(i, j) for i in (0, 4, 9) for j in (0, 4, 9)]
ADAM = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Sparsities [10 10] and importances [10 10 2] of Elhage et al.'s phase diagram for n = 2, m = 1."""
    density = torch.logspace(-2, 0, SIDE)
    ratio = torch.logspace(-1, 1, SIDE)
    importance = torch.stack([torch.ones(SIDE), ratio], -1)[:, None].expand(SIDE, SIDE, 2)
    return (1 - density).expand(SIDE, SIDE), importance


def single(sparsity: float, importance: torch.Tensor, seed: int, adam: dict) -> tuple[float, float]:
    """Seconds and final loss of one model, trained alone."""
    drawing = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    W = (torch.randn(1, 2, generator=drawing) / 2).requires_grad_()
    b = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=LR, **adam)
    data = torch.rand(STEPS, BATCH, 2, generator=drawing)
    data *= torch.rand(STEPS, BATCH, 2, generator=drawing) >= sparsity
    for step, x in enumerate(data):
        optimizer.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.zero_grad()
        ((x - ((x @ W.T) @ W + b).relu()).pow(2) * importance).sum(1).mean().backward()
        optimizer.step()
    seconds = time.perf_counter() - start
    x = torch.rand(16384, 2, generator=drawing) * (torch.rand(16384, 2, generator=drawing) >= sparsity)
    with torch.no_grad():
        return seconds, ((x - ((x @ W.T) @ W + b).relu()).pow(2) * importance).sum(1).mean().item()


def test_grid_against_a_loop():
    sparsity, importance = grid()
    settings = {"steps": STEPS, "batch_size": BATCH, "lr": LR}
    superposition.train(2, 1, sparsity, importance, **{**settings, "steps": 20})
    start = time.perf_counter()
    models = superposition.train(2, 1, sparsity, importance, **settings)
    together = time.perf_counter() - start

    single(0.5, torch.ones(2), 0, ADAM["plain"])
    fastest = min(ADAM, key=lambda name: single(0.5, torch.ones(2), 0, ADAM[name])[0])
    alone = [single(sparsity[i, j].item(), importance[i, j], 100 * i + j, ADAM[fastest]) for i, j in SAMPLE]
    loop = sum(seconds for seconds, _ in alone) / len(alone) * SIDE**2
    print(
        f"\n{SIDE} x {SIDE} grid, {STEPS} steps: {together:.1f} s in one program; one by one ({fastest}) {loop:.1f} s"
    )
    print(f"ratio {loop / together:.1f}")

    again = superposition.train(2, 1, sparsity.expand(5, SIDE, SIDE), importance, **settings)
    spread = torch.stack([again.loss[:, i, j] for i, j in SAMPLE])  # over five initialisations
    peer = torch.tensor([loss for _, loss in alone])
    off = (peer < 0.9 * spread.min(1).values - 1e-4) | (peer > 1.1 * spread.max(1).values + 1e-4)
    ours = torch.stack([models.loss[i, j] for i, j in SAMPLE])
    print("losses, one by one: ", peer.tolist(), "\nlosses, one program:", ours.tolist())
    assert off.sum() <= 1, "the loop ends at other losses than the grid: they are not the same models"
    assert ours.sum() < 1.1 * peer.sum() + 1e-3
