"""Control tasks: does a probe read the representation, or could it learn any labelling of the words?

A control task (Hewitt & Liang 2019, arXiv 1909.03368) gives every *type* of word one random label, the same wherever
the word stands. Nothing in a representation can help but the word's identity, so a probe that does well has memorised
the words. *Selectivity* is the accuracy on the real task minus that on the control task.
"""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.arguments import check_finite, check_integer


@dataclass(frozen=True)
class ControlTask:
    """A random labelling of all types, seen or not: call it on types to get their labels.

    A type's label hangs on the seed and on the type alone, not on the other types or their order: training and test
    words, labelled in two calls, agree.
    """

    distribution: Float[Tensor, "class"]  # of the real labels over tokens; sums to 1
    seed: int

    def __call__(self, types: Sequence[Hashable] | Int[Tensor, "n"]) -> Int[Tensor, "n"]:
        """The label of each type (a string or an integer), int64 on the CPU."""
        upper = np.cumsum(self.distribution.numpy())
        quantiles = np.array([_uniform(self.seed, type) for type in _as_list(types)])
        labels = np.searchsorted(upper, quantiles * upper[-1], side="right")
        return torch.from_numpy(labels.astype(np.int64))


def control_task(y: Int[Tensor, "n"], seed: int = 0) -> ControlTask:
    """The control task whose labels are drawn from the distribution of the real labels `y` over tokens.

    Over tokens, as in the code that Hewitt & Liang released; for the distribution over types pass one label per type.
    Raises ValueError where `y` has one class only.
    """
    y = torch.as_tensor(y).cpu()
    if y.dim() != 1 or y.is_floating_point() or (len(y) and y.min() < 0):
        raise ValueError(f"y has shape {list(y.shape)} and dtype {y.dtype}, expected [n] of classes 0, 1, 2, ...")
    counts = torch.bincount(y.long())
    if (counts > 0).sum() < 2:
        raise ValueError("y has one class only: every control label would be the same")
    return ControlTask(counts.double() / len(y), check_integer("seed", seed, least=0))


def control_labels(
    types: Sequence[Hashable] | Int[Tensor, "n"], y: Int[Tensor, "n"], seed: int = 0
) -> Int[Tensor, "n"]:
    """A control label for each row (Hewitt & Liang 2019): one label per type, drawn from the labels' distribution.

    Args:
        types: the type of each row's word: strings or integers (token ids).
        y: the real labels 0, 1, ... (or booleans), one per row.
        seed: another seed, another control task.

    Returns:
        int64 on the CPU.

    Raises:
        ValueError: where lengths differ, `y` has one class, or the draw gave all types the same label (few types: take
            another seed).
    """
    types = _as_list(types)
    if len(types) != len(torch.as_tensor(y)):
        raise ValueError(f"types has {len(types)} entries and y {len(torch.as_tensor(y))}, expected as many")
    labels = control_task(y, seed)(types)
    if (labels == labels[0]).all():
        raise ValueError(f"seed {seed} gives all {len(set(types))} types the label {int(labels[0])}, take another one")
    return labels


def selectivity(
    real_accuracy: float | Float[Tensor, "*probe"], control_accuracy: float | Float[Tensor, "*probe"]
) -> float | Float[Tensor, "*probe"]:
    """Accuracy on the real task minus accuracy on the control task (-1 to 1), for one probe or elementwise for many."""
    real, control = torch.as_tensor(real_accuracy), torch.as_tensor(control_accuracy)
    if real.shape != control.shape:
        raise ValueError(f"control_accuracy has shape {list(control.shape)}, expected {list(real.shape)}")
    for name, accuracy in (("real_accuracy", real), ("control_accuracy", control)):
        check_finite(name, accuracy)
        if accuracy.min() < 0 or accuracy.max() > 1:
            raise ValueError(f"{name} goes from {accuracy.min():g} to {accuracy.max():g}, expected 0 to 1")
    return real_accuracy - control_accuracy


def _as_list(types: Sequence[Hashable] | Int[Tensor, "n"]) -> list[str | int]:
    if isinstance(types, str):
        raise TypeError("types is one string, expected a sequence of types")
    types = types.tolist() if isinstance(types, Tensor | np.ndarray) else list(types)
    for type_ in types:
        if not isinstance(type_, str | int | np.integer):
            raise TypeError(f"types holds {type_!r} ({type(type_).__name__}), expected strings or integers")
    return [type_ if isinstance(type_, str) else int(type_) for type_ in types]


def _uniform(seed: int, type_: str | int) -> float:
    """A number in [0, 1) that hangs on seed and type alone; a hash, because Python's own differs between processes."""
    digest = hashlib.blake2b(f"{seed}|{type(type_).__name__}|{type_}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
