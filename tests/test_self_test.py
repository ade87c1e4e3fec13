"""The opening questions of chapter 00: right answers in any form, pointers for misses, never an exception."""

from __future__ import annotations

import pytest
import torch

from utils.checks import inside_a_transformer as checks

RIGHT = {"shape": (2, 5, 4), "dim": -1, "gradient": [2, 4, 6], "rank": 3, "ratio": 2}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shape": [2, 5, 4], "dim": 2, "ratio": 2.0},
        {"shape": torch.Size([2, 5, 4]), "gradient": torch.tensor([2.0, 4.0, 6.0])},
    ],
)
def test_right_answers(change, capsys):
    checks.self_test(**RIGHT | change)
    assert capsys.readouterr().out.count("✓") == 5


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("shape", (5, 4)),
        ("shape", 40),
        ("dim", 1),
        ("dim", True),
        ("gradient", [1, 4, 9]),
        ("gradient", "2x"),
        ("rank", 100),
        ("ratio", 0.69),
        ("ratio", "two"),
    ],
)
def test_a_miss_comes_with_a_pointer(name, answer, capsys):
    checks.self_test(**RIGHT | {name: answer})
    out = capsys.readouterr().out
    assert out.count("✓") == 4 and f" {name}: {checks._POINTERS[name]}" in out


def test_unanswered_questions_are_no_misses(capsys):
    checks.self_test()
    out = capsys.readouterr().out
    assert out.count("not answered yet") == 5 and "✗" not in out
