"""What nbval cannot see: that it has something to compare, that nothing leaks, and that the real-model cells run."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.local_gpt2 import make_local_gpt2
from utils import build, models

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
SOURCES = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.py"))


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def role(cell) -> str | None:
    return cell.metadata.get("ground_truth", {}).get("role")


def test_every_source_has_its_notebooks():
    assert SOURCES and [p.stem for p in SOURCES] == [p.stem for p in SOLUTIONS]
    assert all((ROOT / "chapters" / path.name).exists() for path in SOLUTIONS)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
class TestSolution:
    def test_nbval_has_something_to_compare(self, path):
        """A cell saved without execution count and outputs passes nbval in silence: there must be none."""
        for cell in code_cells(path):
            assert cell.execution_count is not None, f"{cell.id} was not executed"
        compared = [c for c in code_cells(path) if "nbval-check-output" in c.metadata.get("tags", [])]
        assert {role(c) for c in code_cells(path) if c not in compared}.isdisjoint({"check", "result"})
        for cell in compared:
            assert cell.outputs, f"{cell.id} has no output to compare"

    def test_every_exercise_has_a_compared_check(self, path):
        answers = {c.metadata.ground_truth.exercise for c in code_cells(path) if role(c) == "answer"}
        checks = {c.metadata.ground_truth.exercise for c in code_cells(path) if role(c) == "check"}
        assert answers and answers == checks
        for cell in (c for c in code_cells(path) if role(c) == "check"):
            text = "".join(output.get("text", "") for output in cell.outputs)
            assert text.startswith(f"✓ {cell.metadata.ground_truth.exercise} ") and text.count("\n") == 1

    def test_outputs_are_clean_and_small(self, path):
        chapter = build.read_chapter(path.with_suffix(".py"))
        assert build.output_problems(nbformat.read(path, as_version=4), chapter) == []

    def test_budgets_and_shape_of_a_chapter(self, path):
        chapter = build.read_chapter(path.with_suffix(".py"))
        core = [c for c in chapter.cells if c.role == "answer" and not c.settings.get("extra")]
        assert 7 <= len(core) <= 9 and chapter.core_minutes <= build.MAX_CORE_MINUTES
        text = "\n".join(cell.source for cell in chapter.cells if cell.kind == "markdown")
        for part in ("You will be able to", "How this can fool you", "On a real model", "Open questions", "References"):
            assert part in text, f"the chapter has no part '{part}'"


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_nbval_notices_a_changed_result(path, tmp_path):
    """The start of the chapter, its first compared output falsified: the tests' own settings must make pytest fail."""
    notebook = nbformat.read(path, as_version=4)
    end = next(i for i, c in enumerate(notebook.cells) if role(c) in ("check", "result"))
    notebook.cells = notebook.cells[: end + 1]
    false = notebook.cells[-1].outputs[0]
    if "text" in false:
        false.text = false.text.replace("✓", "✗")
    else:
        false.data["text/plain"] += " and more"
    nbformat.write(notebook, tmp_path / path.name)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            "pyproject.toml",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            tmp_path / path.name,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-2000:]
    assert "mismatch 'text" in done.stdout or "mismatch 'stdout" in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "chapters").glob("*.ipynb")), ids=lambda p: p.stem)
def test_learner_notebook_leaks_nothing(path):
    """For a learner who has worked in chapters/ only the solutions must not show; outputs may."""
    text = path.read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in text and "HIDDEN TESTS" not in text and "hidden=True" not in text


@pytest.fixture
def local_gpt2(tmp_path, monkeypatch) -> str:
    folder = str(make_local_gpt2(tmp_path / "gpt2"))
    monkeypatch.setenv("GROUND_TRUTH_REAL_MODEL", folder)
    return folder


def real_model_cells(path: Path) -> str:
    """The code of the section 'On a real model', with everything it needs above it."""
    cells = nbformat.read(path, as_version=4).cells
    start = next(i for i, c in enumerate(cells) if c.cell_type == "markdown" and c.source.startswith("## On a real"))
    imports = next(c.source for c in cells if c.cell_type == "code" and c.source.startswith("import"))
    answers = [c.source for c in cells if role(c) == "answer"]
    end = next(i for i in range(start + 1, len(cells)) if cells[i].source.startswith("## "))
    section = [c.source for c in cells[start:end] if c.cell_type == "code"]
    return "\n\n".join([imports, *answers, *section])


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_real_model_section_runs_on_gpt2s_architecture(path, local_gpt2):
    shown = []
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(real_model_cells(path), path.name, "exec"), {"display": shown.append})
    assert "Skipped" not in out.getvalue()
    assert shown, "the section shows no figure"
    for figure in shown:
        json.loads(figure.to_json())


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_without_a_network_the_section_says_one_line(path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise models.HubUnreachable("the Hub cannot be reached")

    monkeypatch.setattr(models, "load", unreachable)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(real_model_cells(path), path.name, "exec"), {})
    assert out.getvalue() == "Skipped: gpt2 needs a network for its first download.\n"
