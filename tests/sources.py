"""The answers of a chapter as functions: as the author solved them and as the learner finds them."""

from __future__ import annotations

import functools
import linecache
from collections.abc import Callable
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def answer(topic: str, exercise: str, *, solved: bool) -> Callable:
    """The function of an exercise's answer cell, after running the chapter's import cell.

    Args:
        topic: the name of the check module, for example ``"inside_a_transformer"``.
        exercise: its id, for example ``"0.3"``.
        solved: the author's solution, or the learner's stub.
    """
    folder = ROOT / ("solutions" if solved else "chapters")
    (path,) = folder.glob(f"[0-9][0-9]_{topic}.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    roles = [cell.metadata.get("ground_truth", {}) for cell in cells]
    imports = next(c.source for c in cells if c.cell_type == "code" and c.source.startswith("import"))
    source = next(
        cell.source
        for cell, role in zip(cells, roles, strict=True)
        if role.get("role") == "answer" and role.get("exercise") == exercise
    )
    namespace: dict = {}
    exec(compile(imports, f"{path.name}:imports", "exec"), namespace)
    known = set(namespace)
    file = f"{path.name}:{exercise}"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
    functions = [value for name, value in namespace.items() if name not in known and callable(value)]
    return functions[-1]
