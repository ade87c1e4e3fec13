"""Every check against right answers and wrong ones: the right pass, the wrong get the fitting message."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
import torch
from torch import Tensor

from tests import mutants, sources
from utils import checks, progress
from utils.checks.core import EXERCISES, CheckFailed

TOPICS = list(progress.chapters())
for module in pkgutil.iter_modules(mutants.__path__):
    importlib.import_module(f"tests.mutants.{module.name}")
IDS = sorted(EXERCISES, key=lambda id: EXERCISES[id].order)


def check_of(id: str):
    """The function that learners call for an exercise."""
    entry = EXERCISES[id]
    return getattr(importlib.import_module(f"{checks.__name__}.{entry.topic}"), entry.name)


def reject(id: str, answer, says: str, **options) -> None:
    """The check must raise ``CheckFailed`` whose message contains ``says``."""
    with pytest.raises(CheckFailed) as failure:
        check_of(id)(answer, **options)
    assert says in str(failure.value), f"message does not fit:\n{failure.value}"


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.label)
def test_mutant(mutant, capsys):
    if mutant.says is None:
        check_of(mutant.exercise)(mutant.answer)
        assert capsys.readouterr().out.startswith(f"✓ {mutant.exercise} ")
        check_of(mutant.exercise)(mutant.answer, hidden=True)
        assert capsys.readouterr().out == ""
    else:
        reject(mutant.exercise, mutant.answer, mutant.says)


@pytest.mark.parametrize("id", IDS)
def test_reference_passes_on_every_class_seed(id, capsys, monkeypatch):
    solution = sources.answer(EXERCISES[id].topic, id, solved=True)
    check_of(id)(solution)
    first = capsys.readouterr().out
    assert first.startswith(f"✓ {id} {EXERCISES[id].name} · ") and first.count("\n") == 1
    for seed in ("1", "2", "autumn"):
        monkeypatch.setenv("GROUND_TRUTH_CLASS_SEED", seed)
        check_of(id)(solution, hidden=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("id", IDS)
def test_untouched_stub(id):
    reject(id, sources.answer(EXERCISES[id].topic, id, solved=False), "the empty stub")


@pytest.mark.parametrize("id", IDS)
def test_thoughtless_damage(id):
    """None, NaN, a lost or added axis, a crash, wrong type, not a function: each is told, none crashes the check."""
    solution = sources.answer(EXERCISES[id].topic, id, solved=True)

    def changed(change):
        return lambda *args: _map_tensors(solution(*args), change)

    def crash(*args):
        raise KeyError("no such thing")

    reject(id, lambda *args: None, "None")
    reject(id, lambda *args: "seven", "expected")
    reject(id, changed(lambda t: t * float("nan")), "NaN")
    reject(id, changed(lambda t: t.unsqueeze(0)), "expected")
    reject(id, changed(lambda t: t.flatten()[:-1]), "expected")
    reject(id, changed(lambda t: torch.zeros_like(t)), "expected")
    reject(id, crash, "KeyError")
    reject(id, lambda: None, "TypeError")
    reject(id, 3, "the function")


@pytest.mark.parametrize("id", IDS)
def test_inputs_written_over(id):
    """An answer that is right but writes into a tensor it was given is told so."""
    solution = sources.answer(EXERCISES[id].topic, id, solved=True)
    tensors = []

    def damaging(*args):
        result = solution(*args)
        floats = [arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point()]
        tensors.extend(floats)
        for tensor in floats:
            tensor.data.mul_(2)
        return result

    if _takes_tensors(id, solution):
        reject(id, damaging, "changed in place")


@pytest.mark.parametrize("id", IDS)
def test_right_in_float64_and_with_gradients(id):
    """Another dtype, or a result that still carries its graph, is no mistake."""
    solution = sources.answer(EXERCISES[id].topic, id, solved=True)
    check_of(id)(lambda *args: _map_tensors(solution(*args), lambda t: t.double().clone().requires_grad_()))


@pytest.mark.parametrize("id", IDS)
def test_enough_mutants(id):
    own = [m for m in mutants.MUTANTS if m.exercise == id]
    assert sum(m.says is not None for m in own) >= 3, "at least three plausible wrong answers"
    assert sum(m.says is None for m in own) >= 1, "at least one right answer written differently"
    assert len(own) >= 5


def _takes_tensors(id: str, solution) -> bool:
    """Whether the check hands the answer a tensor of floats (found by asking, not declared)."""
    seen = []

    def spy(*args):
        seen.extend(arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point())
        return solution(*args)

    check_of(id)(spy)
    return bool(seen)


def _map_tensors(result, change):
    """Apply ``change`` to every tensor of a result: alone, in a tuple or list, or in a dictionary."""
    if isinstance(result, Tensor):
        return change(result)
    if isinstance(result, float | int):
        return change(torch.tensor(float(result)))
    if isinstance(result, tuple | list):
        return type(result)(_map_tensors(part, change) for part in result)
    if isinstance(result, dict):
        return {key: _map_tensors(part, change) for key, part in result.items()}
    return result
