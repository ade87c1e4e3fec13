"""Grids of logistic probes against scikit-learn: same activations, same optimum, same machine, one run.

    pytest -n 0 -s -o addopts="" tests/benchmarks/bench_probes.py

scikit-learn's setting is its best: of all solvers, precisions and tolerances that come as close to the optimum as the
course promises (1e-3 of the largest coefficient), the fastest one, found on probes of the same grid. A loop over the
grid takes its time per probe times the number of probes; it is timed on a sample of them. Set OMP_NUM_THREADS=1 to
compare one thread with one thread.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.flop_counter import FlopCounterMode

from utils import probes

SITES, LABELS, ROWS, D_MODEL = 100, 20, 2000, 128
CLOSE = 1e-3  # of the largest coefficient
SETTINGS = [
    (solver, dtype, tol)
    for solver in ("newton-cholesky", "lbfgs", "newton-cg", "liblinear")
    for dtype in (np.float32, np.float64)
    for tol in (1e-4, 1e-6, 1e-8, 1e-10)
    if not (solver == "liblinear" and dtype == np.float32)  # it would only be converted
]


def planted_grid(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations whose columns differ in size, and labels from hardly readable (.55) to nearly certain (.97)."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(ROWS, D_MODEL, generator=generator)
    truth = torch.randn(LABELS, D_MODEL, generator=generator) / D_MODEL**0.5
    strength = torch.logspace(-0.7, 1.2, LABELS)[:, None]
    noise = torch.randn(LABELS, ROWS, generator=generator)
    y = (truth @ hidden.T * strength + noise > 0).long()
    mixing = torch.randn(SITES, D_MODEL, D_MODEL, generator=generator) / D_MODEL**0.5
    sizes = torch.linspace(-1.5, 1.5, D_MODEL).exp()
    x = (hidden * sizes) @ mixing + 0.5 * torch.randn(SITES, ROWS, D_MODEL, generator=generator)
    return x, y


def sample(n: int) -> list[tuple[int, int]]:
    """Probes spread over the grid, each label equally often."""
    return [(37 * i % SITES, i % LABELS) for i in range(n)]


def best_peer(x: torch.Tensor, y: torch.Tensor, n: int = 20) -> tuple[float, str, np.ndarray]:
    """scikit-learn's fastest setting that is close enough: seconds per probe and its name; and the exact optima."""
    raw = [(x[site].numpy(), y[label].numpy()) for site, label in sample(n)]
    exact = np.stack(
        [
            LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(a.astype(np.float64), b).coef_[0]
            for a, b in raw
        ]
    )
    found = []
    for solver, dtype, tol in SETTINGS:
        inputs = [(a.astype(dtype), b) for a, b in raw]
        fits, seconds = [], float("inf")
        for _ in range(2):
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fits = [LogisticRegression(solver=solver, tol=tol, max_iter=1000).fit(a, b).coef_[0] for a, b in inputs]
            seconds = min(seconds, (time.perf_counter() - start) / n)
        gap = (np.abs(np.stack(fits) - exact).max(-1) / np.abs(exact).max(-1)).max()
        print(f"    {solver:<16} {dtype.__name__} tol {tol:.0e}: {1e3 * seconds:6.2f} ms a probe, error {gap:.1e}")
        if gap <= CLOSE:
            found.append((seconds, f"{solver}, {dtype.__name__}, tol {tol:.0e}"))
    return *min(found), exact


def peak_memory(call: Callable[[], object]) -> float:
    """How far the process's memory rises during a call, in MiB (Linux)."""

    def status(name: str) -> float:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 2**10

    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew from here
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def matmul_rate() -> float:
    """Multiply-adds (counted as 2) per second of a large float32 product."""
    a = torch.randn(2048, 2048)
    a @ a
    start = time.perf_counter()
    for _ in range(5):
        a @ a
    return 5 * 2 * 2048**3 / (time.perf_counter() - start)


def test_grid(benchmark):
    print(f"\n{SITES} sites x {LABELS} labels, {ROWS} x {D_MODEL}, {torch.get_num_threads()} thread(s)")
    x, y = planted_grid()
    per_probe, setting, exact = best_peer(x, y)
    memory = peak_memory(lambda: probes.fit_logistic(x, y))
    ours = benchmark.pedantic(probes.fit_logistic, (x, y), rounds=3, warmup_rounds=1)
    seconds = benchmark.stats.stats.min
    got = np.stack([ours.weight[site, label].numpy() for site, label in sample(len(exact))])
    gap = (np.abs(got - exact).max(-1) / np.abs(exact).max(-1)).max()
    with FlopCounterMode(display=False) as counter:
        probes.fit_logistic(x, y)
    rate = counter.get_total_flops() / seconds
    ratio, share = per_probe * SITES * LABELS / seconds, rate / matmul_rate()
    print(f"    scikit-learn's best: {setting}: {per_probe * SITES * LABELS:.2f} s for the grid")
    print(f"    fit_logistic: {seconds:.2f} s, error {gap:.1e}, {ours.iterations} iterations at most")
    print(f"    ratio {ratio:.1f}; {rate / 1e9:.0f} GFLOP/s, {share:.0%} of a large product's; ", end="")
    print(f"at most {memory:.0f} MiB beside the {x.numel() * 4 / 2**20:.0f} MiB of activations")
    assert gap <= CLOSE and ours.converged.all()


def test_single(benchmark):
    print(f"\none probe, {ROWS} x {D_MODEL}, {torch.get_num_threads()} thread(s)")
    x, y = planted_grid()
    per_probe, setting, _ = best_peer(x, y)
    chosen = sample(20)

    def one_by_one():
        return [probes.fit_logistic(x[site], y[label]) for site, label in chosen]

    benchmark.pedantic(one_by_one, rounds=3, warmup_rounds=1)
    seconds = benchmark.stats.stats.min / len(chosen)
    print(f"    scikit-learn's best: {setting}: {1e3 * per_probe:.2f} ms")
    print(f"    fit_logistic: {1e3 * seconds:.2f} ms, ratio {per_probe / seconds:.2f}")
