"""Which exercises have been passed on this computer. Nothing leaves the machine.

The record is one JSON file in the user's data folder (``utils.progress.path()`` names it).
``GROUND_TRUTH_PROGRESS`` moves it (a path ending in ``.json``) or switches it off (``off``);
tests, builds and automatic grading run with it off.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

SWITCH = "GROUND_TRUTH_PROGRESS"


def path() -> Path | None:
    """The file that holds the record, or ``None`` where recording is off."""
    setting = os.environ.get(SWITCH, "")
    automatic = "PYTEST_CURRENT_TEST" in os.environ or "NBGRADER_EXECUTION" in os.environ
    if setting.lower() == "off" or (not setting and automatic):
        return None
    if setting:
        return Path(setting).expanduser()
    return Path(platformdirs.user_data_dir("ground-truth", appauthor=False)) / "progress.json"


def passed() -> dict[str, str]:
    """Exercise id -> time of the first pass (ISO 8601, UTC)."""
    file = path()
    if file is None:
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))["passed"]
        return {str(exercise): str(time) for exercise, time in record.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # A damaged record must not stop a learner; it is kept aside for whoever wants to mend it.
        _set_aside(file)
        return {}


def record(exercise: str) -> None:
    """Note that an exercise was passed. Silent where recording is off or the folder cannot be written."""
    file = path()
    if file is None:
        return
    known = passed()
    if exercise in known:
        return
    known[exercise] = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):
        _write(file, known)


def _write(file: Path, known: dict[str, str]) -> None:
    """Replace the record in one step, so that two notebooks never leave half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as new:
        json.dump({"passed": known}, new, indent=1)
    os.replace(new.name, file)


def _set_aside(file: Path) -> None:
    with suppress(OSError):
        os.replace(file, file.with_suffix(".damaged"))


def chapters() -> dict[str, list]:
    """Topic -> its exercises in order, read from the check modules (a new chapter needs no entry here)."""
    from utils import checks
    from utils.checks import core

    topics = {}
    for module in pkgutil.iter_modules(checks.__path__):
        if module.name == "core":
            continue
        importlib.import_module(f"utils.checks.{module.name}")
        exercises = [e for e in core.EXERCISES.values() if e.topic == module.name]
        topics[module.name] = sorted(exercises, key=lambda e: e.order)
    return dict(sorted(topics.items(), key=lambda item: item[1][0].order if item[1] else (99,)))


class Table:
    """Chapter by exercise, as text and as HTML."""

    def __init__(self, topics: dict[str, list], done: dict[str, str], recording: bool):
        self.topics, self.done, self.recording = topics, done, recording

    def _rows(self):
        for topic, exercises in self.topics.items():
            marks = [(e.id, e.name, e.id in self.done) for e in exercises]
            yield topic, marks, sum(mark for *_, mark in marks)

    def __str__(self) -> str:
        lines = []
        for topic, marks, count in self._rows():
            cells = "  ".join(f"{'✓' if mark else '·'} {exercise}" for exercise, _, mark in marks)
            lines.append(f"{topic}: {count} of {len(marks)}\n  {cells}")
        if not self.recording:
            lines.append("(progress is not recorded here)")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = []
        for topic, marks, count in self._rows():
            cells = "".join(
                f'<td title="{name}" style="text-align:center">{"✓" if mark else "·"} {exercise}</td>'
                for exercise, name, mark in marks
            )
            head = f"<th style='text-align:left'>{topic}</th><td>{count} of {len(marks)}</td>"
            rows.append(f"<tr>{head}{cells}</tr>")
        note = "" if self.recording else "<p>Progress is not recorded here.</p>"
        return f"<table>{''.join(rows)}</table>{note}"


def table() -> Table:
    """The learner's progress, chapter by exercise."""
    return Table(chapters(), passed(), path() is not None)


if __name__ == "__main__":
    print(table())
