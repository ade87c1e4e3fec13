"""The cheat sheet works as printed: its code runs, and every name in its tables exists."""

from __future__ import annotations

import re
from pathlib import Path

from utils import models

PAGE = (Path(__file__).resolve().parents[1] / "chapters" / "reference.md").read_text(encoding="utf-8")


def test_code_of_the_cheat_sheet_runs(capfd):
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, namespace)
    assert namespace["sweep"].shape == (namespace["model"].cfg.n_layers, namespace["tokens"].shape[1])
    assert not namespace["silenced"].equal(namespace["logits"])


def test_names_and_shapes_of_the_tables_exist():
    model = models.load("world")
    tokens = model.to_tokens("The capital of France is")
    _, cache = model.run_with_cache(tokens)
    sizes = {name: getattr(model.cfg, name) for name in ("d_model", "d_head", "d_mlp", "n_heads", "d_vocab")}
    sizes |= {"batch": 1, "pos": 6, "query": 6, "key": 6, "1": 1}
    rows = re.findall(r"^\| (`(?:hook_|blocks|ln_final).*?) \| `(.*?)` \|", PAGE, flags=re.MULTILINE)
    names = [(name, shape) for cell, shape in rows for name in _hook_names(cell)]
    assert len(names) >= 14
    for name, shape in names:
        assert list(cache[name].shape) == [sizes[axis] for axis in shape.split()], name
    for weight in ("W_E", "W_U", "W_Q", "W_K", "W_V", "W_O"):
        assert f"`model.{weight}`" in PAGE or f"`{weight}`" in PAGE
        assert getattr(model, weight) is not None


def _hook_names(cell: str) -> list[str]:
    """`a.hook_x` / `hook_y` / `_z` in one table cell -> full hook names."""
    parts = re.findall(r"`(.*?)`", cell)
    first, names = parts[0], [parts[0]]
    for part in parts[1:]:
        if part.startswith("_"):
            names.append(first.rpartition("_")[0] + part)
        elif "." in part or "." not in first:
            names.append(part)
        else:
            names.append(f"{first.rpartition('.')[0]}.{part}")
    return names
