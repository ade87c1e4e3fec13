"""The same verdicts with two torch threads and without AVX: solutions against their outputs, checks against mutants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = {"two threads": {"OMP_NUM_THREADS": "2"}, "no AVX": {"ATEN_CPU_CAPABILITY": "default"}}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_same_verdicts(variant):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "solutions",
            "tests/test_mutants.py",
        ],
        cwd=ROOT,
        env={**os.environ, **VARIANTS[variant]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
