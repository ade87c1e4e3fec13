"""Activations of a model: all at once, or as a stream that is shuffled and never held in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import TransformerBridge

from utils.arguments import check_integer

Tokens = Int[Tensor, "row pos"]
AT_ONCE = 8192  # tokens in one pass through the model


def activations(
    model: TransformerBridge, tokens: Tokens, hook: str, *, mask: Bool[Tensor, "row pos"] | None = None
) -> Float[Tensor, "sample d"]:
    """What stands at a hook point, one row for each token (of those that `mask` keeps), without the first of each row.

    The first token is ``<bos>``, whose activation is the same everywhere and far from all others.

    Raises:
        ValueError: a hook point that the model has not, tokens of another shape, nothing left.
    """
    found = torch.cat([x for (x,) in _passes(model, [(tokens, mask)], (hook,))])
    if not len(found):
        raise ValueError("mask leaves no token but the first of each row, which is left out")
    return found


class Stream:
    """Batches of activations in random order, from a source of tokens that may be without end.

    The activations of many rows fill a buffer; half of it is given out in random order, then filled up again. So
    neighbours in a text come out far apart, and memory is that of the buffer whatever the number of tokens. Iterating
    again starts again, from the tokens' beginning.

    Args:
        tokens: [row pos]; or a function that returns an iterator over such tensors, called anew for each iteration.
        hook: the hook point, e.g. "blocks.2.hook_resid_post".
        target: another hook point, for a transcoder; batches are then pairs.
        batch_size: activations in a batch.
        buffer: activations that are held; at least two batches.
        seed: of the order.

    Raises:
        ValueError: a hook point that the model has not, a buffer below two batches, tokens of another shape.
    """

    def __init__(
        self,
        model: TransformerBridge,
        tokens: Tokens | Callable[[], Iterable[Tokens]],
        hook: str,
        *,
        target: str | None = None,
        batch_size: int = 1024,
        buffer: int = 131_072,
        seed: int = 0,
    ):
        self.model, self.hook, self.target = model, hook, target
        self.hooks = (hook,) if target is None else (hook, target)
        for name in self.hooks:
            _check_hook(model, name)
        self.batch_size, self.seed = check_integer("batch_size", batch_size, 1), check_integer("seed", seed, 0)
        self.buffer = check_integer("buffer", buffer, 1)
        if self.buffer < 2 * self.batch_size:
            raise ValueError(f"buffer is {buffer}, expected at least two batches of {batch_size}")
        if isinstance(tokens, Tensor):
            _check_tokens(model, tokens)
        elif not callable(tokens):
            raise TypeError(
                f"tokens is {type(tokens).__name__}, expected a tensor or a function that returns an iterator"
            )
        self.tokens = tokens

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        drawing = torch.Generator().manual_seed(self.seed)
        chunks = self.tokens.split(64) if isinstance(self.tokens, Tensor) else self.tokens()
        passes = _passes(self.model, ((rows, None) for rows in chunks), self.hooks)
        held: list[Tensor] | None = None
        fresh, waiting, exhausted = [], 0, False
        while not exhausted:
            while waiting + (0 if held is None else len(held[0])) < self.buffer:
                arrived = next(passes, None)
                if arrived is None:
                    exhausted = True
                    break
                fresh.append(arrived)
                waiting += len(arrived[0])
            parts = ([tuple(held)] if held is not None else []) + fresh
            if not parts:
                return
            held = [torch.cat(column) for column in zip(*parts, strict=True)]
            fresh, waiting = [], 0
            order = torch.randperm(len(held[0]), generator=drawing).to(held[0].device)
            out = len(order) if exhausted else max(self.batch_size, len(order) // 2)
            out -= 0 if exhausted else out % self.batch_size
            for rows in order[:out].split(self.batch_size):
                if len(rows) == self.batch_size:
                    batch = tuple(values[rows] for values in held)
                    yield batch[0] if self.target is None else batch
            held = [values[order[out:]] for values in held]


def _passes(model: TransformerBridge, chunks: Iterable, hooks: tuple[str, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Activations [sample d] at each hook point, for a few rows of tokens after the other."""
    for hook in hooks:
        _check_hook(model, hook)
    last = max(_layer(model, hook) for hook in hooks)
    for tokens, mask in chunks:
        _check_tokens(model, tokens)
        fits = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == tokens.shape
        if mask is not None and not fits:
            came = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"mask is {came}, expected Bool {list(tokens.shape)}")
        size = max(1, AT_ONCE // tokens.shape[1])
        for start in range(0, len(tokens), size):
            rows = tokens[start : start + size].to(model.W_U.device).long()
            with torch.no_grad():
                _, cache = model.run_with_cache(rows, names_filter=lambda name: name in hooks, stop_at_layer=last)
            for hook in hooks:
                if hook not in cache or cache[hook].dim() != 3 or cache[hook].shape[:2] != rows.shape:
                    came = list(cache[hook].shape) if hook in cache else "nothing"
                    raise ValueError(f"hook {hook!r} gives {came}, expected activations [row pos d]")
            kept = torch.ones_like(rows, dtype=torch.bool)
            if mask is not None:
                kept = mask[start : start + size].to(rows.device).clone()
            kept[:, 0] = False
            yield tuple(cache[hook][kept] for hook in hooks)


def _layer(model: TransformerBridge, hook: str) -> int | None:
    parts = hook.split(".")
    return int(parts[1]) + 1 if parts[0] == "blocks" else model.cfg.n_layers


def _check_hook(model: TransformerBridge, hook: str) -> None:
    if not isinstance(hook, str) or hook not in model.hook_dict:
        near = [name for name in model.hook_dict if name.split(".")[-1] == str(hook).split(".")[-1]][:3]
        raise ValueError(f"hook is {hook!r}, which the model has not" + (f"; it has {', '.join(near)}" if near else ""))


def _check_tokens(model: TransformerBridge, tokens: Tensor) -> None:
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.is_floating_point() or tokens.dtype == torch.bool:
        came = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"tokens is {came}, expected token ids [row pos]")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < model.cfg.d_vocab:
        raise ValueError(f"tokens holds ids outside 0 to {model.cfg.d_vocab - 1}, the model's vocabulary")
    if tokens.shape[1] < 2 or tokens.shape[1] > model.cfg.n_ctx or not len(tokens):
        raise ValueError(f"tokens has shape {list(tokens.shape)}, expected rows of 2 to {model.cfg.n_ctx} tokens")
