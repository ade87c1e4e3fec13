"""The dictionaries that come with the course."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.sae.files import load
from utils.sae.model import SAE

SHIPPED = Path(__file__).with_name("shipped")


@dataclass(frozen=True)
class DictionaryCard:
    """How a dictionary was made (`recipe`), and what was measured on it (`measurements`; nothing of it is planted)."""

    name: str
    recipe: dict[str, Any]
    measurements: dict[str, Any]


def available() -> list[str]:
    """Names of the shipped dictionaries, sorted."""
    return sorted(_cards())


def card(name: str) -> DictionaryCard:
    """What is known of a shipped dictionary. Raises ValueError for a name that does not exist."""
    entry = _entry(name)
    return DictionaryCard(name, entry["recipe"], entry["measurements"])


def shipped(name: str) -> SAE:
    """A shipped dictionary, e.g. "world_1024".

    Raises:
        ValueError: a name that does not exist, a file that was altered.
    """
    expected, file = _entry(name)["sha256"], SHIPPED / f"{name}.safetensors"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{file} is missing or was altered: restore it with `git checkout -- utils/sae/shipped`")
    return load(file)


def _cards() -> dict[str, Any]:
    return json.loads((SHIPPED / "card.json").read_text(encoding="utf-8"))


def _entry(name: str) -> dict[str, Any]:
    cards = _cards()
    if name not in cards:
        raise ValueError(f"no dictionary {name!r} is shipped, expected one of {', '.join(sorted(cards))}")
    return cards[name]
