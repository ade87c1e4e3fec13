"""`python -m utils.study`: a place to work in, and JupyterLab opened there.

The chapters are copied into the git-ignored folder ``work/``; what is there already is never
overwritten. When the course has a newer version of a chapter than the one that was copied, the
command says so, and ``--renew NN`` puts the new one beside the old.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ".copied.json"


@dataclass
class Copied:
    """What one run of the copy did, by file name."""

    new: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)


def copy_chapters(chapters: Path, work: Path, renew: str | None = None) -> Copied:
    """Copy notebooks and reference pages into ``work``, never over an existing file.

    Args:
        chapters: the folder with the learners' notebooks.
        work: the study folder; made when missing.
        renew: a chapter number such as ``"00"`` whose newest version is put beside the old copy.

    Raises:
        FileNotFoundError: when ``chapters`` holds no notebook.
    """
    sources = sorted([*chapters.glob("*.ipynb"), *chapters.glob("*.md")])
    if not any(source.suffix == ".ipynb" for source in sources):
        raise FileNotFoundError(f"no chapter notebooks in {chapters}: run this from a clone of the course")
    work.mkdir(parents=True, exist_ok=True)
    record = _read_record(work)
    done = Copied()
    for source in sources:
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        target = work / source.name
        if not target.exists():
            _write_new(target, content)
            record[source.name] = digest
            done.new.append(target.name)
        elif record.get(source.name, digest) == digest:
            done.kept.append(target.name)
        elif renew and source.name.startswith(renew):
            target = _free_name(target)
            _write_new(target, content)
            record[source.name] = digest
            done.new.append(target.name)
        else:
            done.outdated.append(target.name)
    (work / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return done


def _read_record(work: Path) -> dict[str, str]:
    """Which version of each chapter was copied; an unreadable record counts as none."""
    try:
        record = json.loads((work / RECORD).read_text(encoding="utf-8"))
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_new(target: Path, content: bytes) -> None:
    """Write a file that must not exist yet."""
    with target.open("xb") as file:
        file.write(content)


def _free_name(target: Path) -> Path:
    number = 2
    while (free := target.with_name(f"{target.stem}_version{number}{target.suffix}")).exists():
        number += 1
    return free


def main(arguments: list[str] | None = None) -> int:
    """Copy, report, open JupyterLab; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.study", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "work", help="where to work (default: work/)")
    parser.add_argument("--renew", metavar="NN", help="put the newest version of a chapter beside your copy")
    parser.add_argument("--no-open", action="store_true", help="copy only, do not open JupyterLab")
    options, for_jupyter = parser.parse_known_args(arguments)
    try:
        done = copy_chapters(ROOT / "chapters", options.folder, options.renew)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        print(f"Cannot prepare the study folder: {error}", file=sys.stderr)
        return 1
    for name in done.new:
        print(f"copied   {name}")
    for name in done.kept:
        print(f"kept     {name} (yours)")
    for name in done.outdated:
        print(f"outdated {name}: yours is kept; `--renew {name[:2]}` puts the new version beside it")
    if options.no_open:
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        print("JupyterLab is not installed here: pip install -r requirements.txt", file=sys.stderr)
        return 1
    first = sorted(options.folder.glob("00_*.ipynb"))
    quiet = ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command = [sys.executable, "-m", "jupyterlab", *quiet, *(p.name for p in first[:1]), *for_jupyter]
    print("Opening JupyterLab (stop it with Ctrl-C) ...", flush=True)
    try:
        return subprocess.run(command, cwd=options.folder, env=os.environ, check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
