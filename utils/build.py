"""Turn the percent source of a chapter into its two notebooks.

``python -m utils.build [NN ...] [--check] [--keep-outputs]`` reads ``solutions/NN_topic.py`` and writes
``solutions/NN_topic.ipynb`` (executed, nbgrader's source) and ``chapters/NN_topic.ipynb`` (the learner's version).
Everything that is wrong with a chapter is reported together as ``file:line: reason``.
"""

import argparse
import ast
import copy
import importlib.util
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path
from string import Template

import jupytext
import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearOutput, ClearSolutions

from utils import __version__

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).parent / "templates"
CODE_STUB = 'raise NotImplementedError("your code here")'
TEXT_STUB = "*Your answer here.*"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
TABLE = re.compile(r"(<!-- chapters -->\n).*?(<!-- /chapters -->)", re.S)
COMPARED = "nbval-check-output"  # nbval compares the saved output of cells with this tag
MAX_CORE_MINUTES = 150
MAX_NOTEBOOK_BYTES, MAX_OUTPUT_BYTES, MAX_SCRIPT_BYTES = 4_000_000, 1_500_000, 100_000
KERNEL_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GROUND_TRUTH_PROGRESS": "off", "GROUND_TRUTH_BUILD": "1",
                      "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}

EFFORT = {"minutes", "difficulty", "importance", "extra"}
SETTINGS = {"task": set(), "answer": EFFORT, "check": {"points"}, "predict": set(), "result": set(),
            "manual": EFFORT | {"points"}}
KINDS = {"task": {"markdown"}, "manual": {"markdown", "code"}}  # every other role: code
REGION_ROLES = {"SOLUTION": {"answer", "predict", "manual"}, "HIDDEN TESTS": {"check"}}

HEADER_LIKE = re.compile(r"^\s*#\s*%%")
HEADER = re.compile(r'^# %%(?P<markdown> \[markdown\])?(?: \w+=(?:"[^"]*"|[^\s"]+))*\s*$')
MARKER = re.compile(r"^ *### (BEGIN|END) (SOLUTION|HIDDEN TESTS) *$")
MARKER_LIKE = re.compile(r"^ *#+ *(?i:(begin|end)[ _-]*(solution|hidden.?test))|(BEGIN|END) (SOLUTION|HIDDEN)", re.M)
REGION = re.compile(r"^ *### BEGIN (SOLUTION|HIDDEN TESTS) *\n(.*?)^ *### END \1 *(?:\n|\Z)", re.M | re.S)
NUMBER = re.compile(  # decimals, scientific notation, numpy's "1." and object addresses
    r"(?<![\w.])(?:\d*\.\d+(?:e[-+]?\d+)?(?!\.?\d)|\d+e[-+]?\d+\b|\d+\.(?=[,\])]))|\b0x[0-9a-f]{6,}", re.I)

Report = Callable[[int, str], None]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, and where."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class BuildError(Exception):
    """Everything that is wrong with a chapter; ``problems`` holds it piece by piece."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Cell:
    """One cell of the source; ``line`` is that of its ``# %%`` header, ``settings`` are the header's other keys."""

    line: int
    kind: str  # "code" or "markdown"
    source: str
    first_line: int  # of the text itself
    role: str | None = None
    exercise: str | None = None
    settings: dict = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Chapter:
    """A checked chapter source."""

    path: Path
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        return self.cells[0].source.splitlines()[0].removeprefix("# ")

    @property
    def question(self) -> str:
        """The question that the chapter opens with: the first line in bold."""
        return next((line.strip("*") for line in self.cells[0].source.splitlines() if line.startswith("**")), "")

    @property
    def core_minutes(self) -> int:
        return sum(c.settings.get("minutes", 0) for c in self.cells if not c.settings.get("extra"))

    @property
    def points(self) -> int:
        return sum(c.settings.get("points", 0) for c in self.cells)

    def line(self, cell_id: str) -> int:
        """Source line of a notebook cell (1 for the set-up cell, which has none)."""
        return next((c.line for c in self.cells if c.id == cell_id), 1)

    def problem(self, cell_id: str, reason: str) -> Problem:
        return Problem(_label(self.path), self.line(cell_id), reason)

    def summary(self) -> str:
        """One line: exercises, minutes, points, and the median length of a code cell in non-blank lines."""
        answers = [c for c in self.cells if c.role in ("answer", "manual")]
        extra = sum(bool(c.settings.get("extra")) for c in answers)
        lengths = [sum(bool(s.strip()) for s in c.source.splitlines()) for c in self.cells if c.kind == "code"]
        return (f"{self.path.stem}: {len(answers) - extra} core exercises and {extra} extra, {self.core_minutes} core "
                f"minutes, {self.points} points, {len(self.cells)} cells, median code cell "
                f"{statistics.median(lengths or [0]):g} lines")


def _label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


# --- reading and checking the source -------------------------------------------------------------------------------


def read_chapter(path: str | Path) -> Chapter:
    """Read ``solutions/NN_topic.py``; raise BuildError with everything that is wrong in it."""
    path, problems = Path(path), []

    def report(line: int, reason: str) -> None:
        problems.append(Problem(_label(path), line, reason))

    name = re.fullmatch(r"(\d\d)_\w+\.py", path.name)
    if not name:
        raise BuildError([Problem(_label(path), 1, "a chapter's file is called NN_topic.py")])
    cells = _split(path.read_text(encoding="utf-8"), report)
    if problems:  # the cells are not what the author meant: everything else would be a consequence
        raise BuildError(problems)
    for cell in cells:
        _check_header(cell, str(int(name[1])), report)
        _check_regions(cell, report)
        _check_syntax(cell, report)
    _check_exercises(cells, report)
    _check_markdown(cells, report)
    if problems:
        raise BuildError(problems)
    return Chapter(path, tuple(_with_ids(cells)))


def _split(text: str, report: Report) -> list[Cell]:
    """The cells of a percent source as jupytext reads them, each with its line."""
    lines = text.split("\n")
    headers = [number for number, line in enumerate(lines, 1) if HEADER_LIKE.match(line)]
    for number in headers:
        if not HEADER.match(lines[number - 1]):
            report(number, f'malformed cell header `{lines[number - 1]}`: write `# %% [markdown] key="text" key=1`')
    front = "\n".join(lines[: headers[0] - 1] if headers else lines)
    if re.sub(r"\A# ---\n(#.*\n)*?# ---\n", "", front + "\n").strip() or not headers:
        report(1, "text before the first `# %%` header (only a `# ---` block may stand there)")
    cells = [c for c in jupytext.reads(text, fmt="py:percent").cells if c.cell_type != "raw"]
    if len(cells) != len(headers):
        swallowing = (n for n, c in zip(headers, cells, strict=False) if re.search(HEADER_LIKE.pattern, c.source, re.M))
        report(next(swallowing, 1), "this cell swallows the `# %%` header of another (open string or fence?)")
    found = []
    for number, cell in zip(headers, cells, strict=False):
        settings = {key: value for key, value in cell.metadata.items() if key != "lines_to_next_cell"}
        if "incorrectly_encoded_metadata" in settings:
            report(number, f'malformed cell header `{lines[number - 1]}`: values are "text", numbers, true or false')
        start = next((n for n, line in enumerate(lines[number:], number + 1) if line.strip() not in ("", "#")), number)
        role, exercise = settings.pop("role", None), settings.pop("exercise", None)
        found.append(Cell(number, cell.cell_type, cell.source.strip("\n"), start, role, exercise, settings))
    return found


def _check_header(cell: Cell, chapter: str, report: Report) -> None:
    """Roles, keys and their values."""
    line, settings = cell.line, cell.settings
    if cell.role is not None and cell.role not in SETTINGS:
        return report(line, f"unknown role {cell.role!r}: expected one of {', '.join(SETTINGS)}")
    if unknown := settings.keys() - SETTINGS.get(cell.role, set()):
        allowed = ", ".join(["exercise", "role", *sorted(SETTINGS.get(cell.role, set()))])
        report(line, f"unknown key {', '.join(sorted(unknown))} in a cell of role {cell.role}: it takes {allowed}")
    if cell.role and cell.kind not in KINDS.get(cell.role, {"code"}):
        report(line, f"a {cell.role} cell cannot be a {cell.kind} cell")
    if cell.exercise is None and cell.role not in (None, "result"):
        report(line, f"a {cell.role} cell needs exercise=\"{chapter}.1\"")
    if cell.exercise is not None and not re.fullmatch(rf"{chapter}\.(\d+|[A-Z])", str(cell.exercise)):
        report(line, f"exercise {cell.exercise!r} is not one of this chapter: expected {chapter}.1 or {chapter}.A")
    if cell.exercise is not None and cell.role is None:
        report(line, f"exercise {cell.exercise!r} without a role")
    required = {"answer": ("minutes", "difficulty", "importance"), "check": ("points",), "manual": ("points",)}
    for key in ("minutes", "points", "difficulty", "importance"):
        value, top = settings.get(key), 3 if key in ("difficulty", "importance") else None
        if value is None and key in required.get(cell.role, ()):
            report(line, f"{key} missing")
        elif value is not None and (type(value) is not int or value < 1 or value > (top or value)):
            report(line, f"{key} must be a whole number {f'from 1 to {top}' if top else 'above 0'}, not {value!r}")
    if not isinstance(settings.get("extra", False), bool):
        report(line, f"extra must be true or false, not {settings['extra']!r}")


def _check_regions(cell: Cell, report: Report) -> None:
    """Every BEGIN has its END, no nesting, and only where the role has such a region."""
    opened, seen = None, set()
    for line, text in enumerate(cell.source.split("\n"), cell.first_line):
        marker = MARKER.match(text)
        if not marker:
            if MARKER_LIKE.search(text):
                report(line, f"`{text.strip()}` is not a marker: these read `### BEGIN SOLUTION` (END, HIDDEN TESTS)")
            continue
        edge, region = marker.groups()
        if cell.role not in REGION_ROLES[region]:
            report(line, f"{edge} {region} in a {cell.role or f'plain {cell.kind}'} cell: it would reach learners")
        if edge == "BEGIN" and opened:
            report(line, f"BEGIN {region} inside the {opened[0]} region of line {opened[1]}")
        if edge == "END" and (not opened or opened[0] != region):
            report(line, f"END {region} without BEGIN {region}")
        opened = (region, line) if edge == "BEGIN" else None
        seen.add(region)
    if opened:
        report(opened[1], f"BEGIN {opened[0]} without END {opened[0]}")
    if cell.role in REGION_ROLES["SOLUTION"] and "SOLUTION" not in seen:
        report(cell.line, f"{cell.role} cell without a solution region")


def _check_syntax(cell: Cell, report: Report) -> None:
    """Code parses, also without the regions that learners do not get."""
    if cell.kind != "code":
        return
    versions = {"": cell.source}
    if cell.role in ("predict", "check"):
        versions["in the learner's version: "] = REGION.sub("", cell.source)
    for when, source in versions.items():
        try:
            ast.parse(TransformerManager().transform_cell(source))
        except SyntaxError as error:
            line = cell.line if when else cell.first_line + (error.lineno or 1) - 1
            report(line, f"{when}{type(error).__name__}: {error.msg}")
            return


def _check_exercises(cells: list[Cell], report: Report) -> None:
    """Each exercise has task, answer and check once and in this order; the core fits the time."""
    first, minutes = {}, 0
    for cell in cells:
        key = (cell.exercise, cell.role)
        if key in first and cell.role in SETTINGS and cell.role != "result":
            report(cell.line, f"second {cell.role} cell of exercise {cell.exercise} (first: line {first[key]})")
        first.setdefault(key, cell.line)
        spent = cell.settings.get("minutes", 0)
        if isinstance(spent, int) and not cell.settings.get("extra"):
            if minutes <= MAX_CORE_MINUTES < minutes + spent:
                report(cell.line, f"the core takes more than {MAX_CORE_MINUTES} minutes from here on")
            minutes += spent
    for (exercise, role), line in first.items():
        has = {other: first.get((exercise, other)) for other in SETTINGS}
        if role == "answer" and not has["check"]:
            report(line, f"exercise {exercise} has an answer but no check")
        if role == "answer" and not has["task"]:
            report(line, f"exercise {exercise} has an answer but no task")
        if role == "check" and not has["answer"]:
            report(line, f"exercise {exercise} has a check but no answer")
        if role == "task" and not (has["answer"] or has["predict"] or has["manual"]):
            report(line, f"exercise {exercise} has a task but no answer")
        order = [has[other] for other in ("task", "answer", "check") if has[other]]
        if role == "task" and order != sorted(order):
            report(line, f"exercise {exercise}: the order is task, answer, check")


def _check_markdown(cells: list[Cell], report: Report) -> None:
    """Headings, and no line of a solution in the text."""
    if not (cells[0].kind == "markdown" and cells[0].role is None and cells[0].source.startswith("# ")):
        report(cells[0].line, "the first cell must be the chapter's title: a markdown cell that begins with `# `")
    regions = [match[2] for c in cells if c.role == "answer" for match in REGION.finditer(c.source)]
    lines = {line.strip() for region in regions for line in region.split("\n")}
    secret = [line for line in lines if len(line) >= 20 and not line.startswith(("#", "import ", "from "))]
    for cell in cells:
        if cell.role == "task":
            heading = re.match(r"#+ .*", cell.source)
            if not heading:
                report(cell.line, "task cell without heading: it begins with `### Exercise ...`")
            elif (named := re.search(r"Exercise (\S+)", heading[0])) and named[1] != cell.exercise:
                report(cell.line, f"the heading says exercise {named[1]}, the cell header {cell.exercise}")
        if cell.kind == "markdown" and cell.role != "manual":
            for line in sorted(s for s in secret if s in cell.source):
                report(cell.line, f"solution text in markdown: `{line}`")


def _with_ids(cells: list[Cell]) -> Iterable[Cell]:
    """Ids from role and exercise (``check-0-3``); cells without exercise count (``cell-007``)."""
    plain, used = 0, {}
    for cell in cells:
        if cell.exercise is None:
            plain += 1
            name = f"cell-{plain:03d}"
        else:
            name = f"{cell.role}-{cell.exercise.replace('.', '-')}"
            used[name] = used.get(name, 0) + 1
            name += f"-{used[name]}" if used[name] > 1 else ""
        yield Cell(**{**vars(cell), "id": name})


# --- the two notebooks ---------------------------------------------------------------------------------------------


def repository(root: Path = ROOT) -> str:
    """Address of the course's repository, from ``[project.urls]`` of pyproject.toml."""
    file = root / "pyproject.toml"
    try:
        address = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise BuildError([Problem(file.name, 1, f"no [project.urls] Repository found ({error!r})")]) from None
    return address.rstrip("/").removesuffix(".git")


def _colab_link(address: str, chapter: str) -> str:
    """Where Colab opens a chapter of this version."""
    place = re.sub(r"^https://github\.com/", "https://colab.research.google.com/github/", address)
    return f"{place}/blob/v{__version__}/chapters/{chapter}.ipynb"


def _template(name: str, **values: str) -> str:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return Template(re.sub(r"\A# ruff: .*\n", "", text)).substitute(version=__version__, **values).strip()


def solution_notebook(chapter: Chapter, root: Path | None = None) -> NotebookNode:
    """The chapter as nbgrader's source notebook, not executed."""
    address = repository(root or chapter.path.resolve().parents[1])
    colab = _colab_link(address, chapter.path.stem)
    ratings = {c.exercise: _rating(c) for c in chapter.cells if "minutes" in c.settings}
    nb = nbformat.v4.new_notebook()
    nb.nbformat_minor = 5
    _set_metadata(nb)
    for cell in chapter.cells:
        source = cell.source
        if cell is chapter.cells[0]:
            source = _under_heading(source, _template("header.md", colab=colab, repository=address))
        if cell.role == "task" and cell.exercise in ratings:
            source = _under_heading(source, ratings[cell.exercise])
        new = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
        nb.cells.append(new(source, id=cell.id, metadata=_cell_metadata(cell)))
    setup = _template("setup_cell.py", repository=address)
    # Folded away in JupyterLab and on Colab: it is long, and nothing in it is to be learned.
    folded = {"ground_truth": {"role": "setup"}, "jupyter": {"source_hidden": True}, "cellView": "form"}
    nb.cells.insert(1, nbformat.v4.new_code_cell(setup, id="setup", metadata=folded))
    nbformat.validate(nb)
    return nb


def _set_metadata(nb: NotebookNode) -> None:
    nb.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    })


def _rating(cell: Cell) -> str:
    rated = []
    for key, colour in (("difficulty", "🔴"), ("importance", "🔵")):
        level = cell.settings.get(key, 0)  # in words too: not every machine has the coloured dots
        rated.append(f"{colour * level}{'⚪' * (3 - level)} {key} {level} of 3")
    extra = ["extra"] if cell.settings.get("extra") else []
    hint = f'stuck? run `checks.hint("{cell.exercise}")`, and again for the next hint'
    return " · ".join([*extra, *rated, f"about {cell.settings['minutes']} minutes", hint])


def _under_heading(source: str, line: str) -> str:
    heading, _, rest = source.partition("\n")
    return f"{heading}\n\n{line}\n\n{rest.lstrip()}".rstrip()


def _cell_metadata(cell: Cell) -> dict:
    if cell.role is None:
        return {}
    kept = {"role": cell.role, "exercise": cell.exercise, **cell.settings}
    metadata = {"ground_truth": {k: v for k, v in kept.items() if v is not None and k != "points"}}
    grade, solution = cell.role in ("check", "manual"), cell.role in ("answer", "predict", "manual")
    if grade or solution:
        metadata["nbgrader"] = {
            "schema_version": 3, "grade_id": f"{cell.role}_{cell.exercise.replace('.', '_')}", "cell_type": cell.kind,
            "grade": grade, "solution": solution, "locked": cell.role == "check", "task": False,
            **({"points": cell.settings["points"]} if grade else {}),
        }
    if cell.role in ("check", "result"):
        metadata["tags"] = [COMPARED]
    return metadata


def learner_notebook(nb: NotebookNode) -> NotebookNode:
    """The learner's version: no solutions, hidden tests, predictions, outputs or execution counts."""
    nb = copy.deepcopy(nb)
    solutions = ClearSolutions(code_stub={"python": CODE_STUB}, text_stub=TEXT_STUB)
    hidden_tests, outputs = ClearHiddenTests(), ClearOutput()
    for index, cell in enumerate(nb.cells):
        if cell.metadata.get("ground_truth", {}).get("role") == "predict":
            cell.source = REGION.sub("", cell.source).rstrip()  # a stub that raises would punish the guess
        else:
            solutions.preprocess_cell(cell, {"language": "python"}, index)
        hidden_tests.preprocess_cell(cell, {}, index)
        outputs.preprocess_cell(cell, {}, index)
        if MARKER_LIKE.search(cell.source):
            raise BuildError([Problem(cell.id, 1, "a solution or hidden-test marker would reach learners")])
    _set_metadata(nb)
    return nb


# --- execution and its outputs -------------------------------------------------------------------------------------


def execute(nb: NotebookNode, chapter: Chapter, timeout: int = 600) -> NotebookNode:
    """Run ``nb`` in a fresh kernel in the chapter's folder; BuildError names the line of the cell that fails."""
    nb = copy.deepcopy(nb)
    picture = importlib.util.find_spec("kaleido") and any(
        map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    renderer = "plotly_mimetype+png" if picture else "plotly_mimetype"
    client = NotebookClient(nb, timeout=timeout, kernel_name="python3", record_timing=False,
                            resources={"metadata": {"path": str(chapter.path.parent)}})
    try:
        client.execute(env={**os.environ, **KERNEL_ENVIRONMENT, "PLOTLY_RENDERER": renderer})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        code = [c for c in nb.cells if c.cell_type == "code"]
        failed = next((c for c in code if any(o.output_type == "error" for o in c.outputs)), None)
        failed = failed or next((c for c in code if c.execution_count is None), code[-1])
        reason = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
        raise BuildError([chapter.problem(failed.id, f"cell {failed.id} failed: {reason.strip()}")]) from None
    _set_metadata(nb)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = _tidy(cell.outputs)
    return nb


def _tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream and drop circuitsvis's JavaScript."""
    tidied = []
    for name, group in groupby(outputs, key=lambda o: o.get("name")):
        group = list(group)
        if name:
            group[0].text = "".join(o.text for o in group)
        tidied += group[:1] if name else group
    return [output for output in tidied if "data" not in output or _drop_javascript(output.data)]


def _drop_javascript(data: NotebookNode) -> bool:
    """Drop from an output the HTML that cannot be saved; False when nothing worth keeping is left."""
    html = "".join(data.get("text/html", ""))
    library = any(len(script) > MAX_SCRIPT_BYTES for script in re.findall(r"<script.*?</script>", html, re.S | re.I))
    if library or ("CircuitsVis.render(" in html and "image/png" in data):
        del data["text/html"]
        if re.fullmatch(r"<[\w.]+ object.*>", data.get("text/plain", ""), re.S):
            del data["text/plain"]
    return bool(data)


def output_problems(nb: NotebookNode, chapter: Chapter) -> list[Problem]:
    """What must not be saved: errors, stderr, this machine's paths, too much, floats where nbval compares."""
    found = []
    folders = {chapter.path.resolve().parents[1], Path.home(), Path(tempfile.gettempdir()), Path(sys.prefix)}
    local = re.compile("|".join(rf"(?<![\w/+]){re.escape(str(f))}[/\\]+\w" for f in sorted(folders, reverse=True)))
    for cell in (c for c in nb.cells if c.cell_type == "code"):
        compared = COMPARED in cell.metadata.get("tags", [])
        if cell.execution_count is None or (compared and not cell.outputs):
            what = "was not executed" if cell.execution_count is None else "has no output to compare"
            found.append(chapter.problem(cell.id, f"cell {cell.id} {what}"))
        for output in cell.outputs:
            text = _text(output)
            faults = []
            if output.output_type == "error":
                faults.append(f"a saved error: {output.ename}")
            if output.get("name") == "stderr":
                faults.append(f"output on stderr: {text.strip()[:200]!r}")
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                faults.append("a widget (a progress bar?), which shows nothing once its kernel is gone")
            if path := local.search(text):
                faults.append(f"a path of this machine in its output: {text[path.start():path.end() + 40]!r}")
            if (size := len(json.dumps(output))) > MAX_OUTPUT_BYTES:
                faults.append(f"an output of {size / 1e6:.1f} MB (at most {MAX_OUTPUT_BYTES / 1e6:g})")
            if compared and (number := NUMBER.search(_without_ids(text, cell))):
                faults.append(f"a compared output with the number {number[0]!r}: floats differ between machines; "
                              "assert them in the cell, show them in an untagged one")
            found += [chapter.problem(cell.id, f"cell {cell.id} has {fault}") for fault in faults]
    if (size := len(_write(nb).encode())) > MAX_NOTEBOOK_BYTES:
        most = f"{MAX_NOTEBOOK_BYTES / 1e6:g}"
        found.append(chapter.problem("", f"the notebook has {size / 1e6:.1f} MB (at most {most})"))
    return found


def _text(output: NotebookNode) -> str:
    """Everything readable in an output (no pictures)."""
    if "data" not in output:
        return output.get("text", "")
    readable = {mime: part for mime, part in output.data.items() if mime == "image/svg+xml" or "image/" not in mime}
    return "\n".join(part if isinstance(part, str) else json.dumps(part) for part in readable.values())


def _without_ids(text: str, cell: NotebookNode) -> str:
    """Drop exercise ids: the cell's own anywhere, another's after the word exercise."""
    text = re.sub(r"(?i)\bexercises? \d+\.(\d+|[A-Z])\b", "", text)
    own = cell.metadata.ground_truth.get("exercise")
    return re.sub(rf"(?<![\d.]){re.escape(own)}(?![\d])", "", text) if own else text


# --- building and checking -----------------------------------------------------------------------------------------


def build(path: str | Path, keep_outputs: bool = False, timeout: int = 600) -> Chapter:
    """Build both notebooks of one chapter; nothing is written when something is wrong.

    keep_outputs: do not execute when all code cells are those of the solution notebook already there.
    """
    chapter = read_chapter(path)
    nb = solution_notebook(chapter)
    learner = learner_notebook(nb)
    target, chapter_file = _targets(chapter.path)
    if not (keep_outputs and _reuse_outputs(nb, target)):
        nb = execute(nb, chapter, timeout)
    if problems := output_problems(nb, chapter):
        raise BuildError(problems)
    chapter_file.parent.mkdir(exist_ok=True)
    for file, notebook in ((target, nb), (chapter_file, learner)):
        file.write_text(_write(notebook), encoding="utf-8", newline="\n")
    return chapter


def _targets(source: Path) -> tuple[Path, Path]:
    """Where the solution notebook and the learner's notebook of a source stand."""
    source = source.resolve()
    return source.with_suffix(".ipynb"), source.parents[1] / "chapters" / f"{source.stem}.ipynb"


def _write(nb: NotebookNode) -> str:
    return nbformat.writes(nb).rstrip("\n") + "\n"


def _reuse_outputs(nb: NotebookNode, saved: Path) -> bool:
    """Take the outputs of the saved notebook when its code cells are the same in the same order."""
    if not saved.exists():
        return False
    new, old = ([c for c in n.cells if c.cell_type == "code"] for n in (nb, nbformat.read(saved, 4)))
    if [c.source for c in new] != [c.source for c in old]:
        return False
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return True


def check(root: Path = ROOT, numbers: Iterable[str] = ()) -> list[str]:
    """Where the notebooks under ``root`` are not what their sources give, without executing; empty when all is well.

    Sources, metadata, ids and the presence of outputs are compared, the outputs themselves are not.
    """
    root, drifts, numbers = Path(root), [], tuple(numbers)
    for source in _sources(root, numbers):
        try:
            chapter = read_chapter(source)
            expected = solution_notebook(chapter)
            both = zip(_targets(source), (expected, learner_notebook(expected)), strict=True)
            drifts += [drift for file, nb in both for drift in _drifts(file, nb, chapter)]
        except BuildError as error:
            drifts += map(str, error.problems)
    for file in sorted(f for folder in ("solutions", "chapters") for f in (root / folder).glob("*.ipynb")):
        if not numbers and not (root / "solutions" / f"{file.stem}.py").exists():
            drifts.append(f"{_label(file)}:1: its source solutions/{file.stem}.py is gone")
    page = root / "README.md"
    if page.exists() and not drifts and readme(root) != page.read_text(encoding="utf-8"):
        drifts.append("README.md:1: its table of chapters is not what the sources give: run python -m utils.build")
    return drifts


def readme(root: Path = ROOT) -> str:
    """README.md with the table of chapters that the sources give; it stands between two comments there."""
    text = (root / "README.md").read_text(encoding="utf-8")
    address, rows = repository(root), ["| # | chapter | the question it opens with | |", "|---|---|---|---|"]
    for source in _sources(root, ()):
        chapter = read_chapter(source)
        number, _, title = chapter.title.partition(" · ")
        colab = _colab_link(address, source.stem)
        rows.append(f"| {number} | {title} | {chapter.question} | [![Open In Colab]({BADGE})]({colab}) |")
    return TABLE.sub(lambda match: match[1] + "\n".join(rows) + "\n" + match[2], text)


def _drifts(file: Path, expected: NotebookNode, chapter: Chapter) -> list[str]:
    if not file.exists():
        return [f"{_label(file)}:1: missing"]
    saved = nbformat.read(file, nbformat.NO_CONVERT)
    found = [f"{_label(file)}:1: the notebook's metadata differ"] if saved.metadata != expected.metadata else []
    for old, new in zip_longest(saved.cells, expected.cells, fillvalue={}):
        parts = [part for part in ("id", "cell_type", "source", "metadata") if old.get(part) != new.get(part)]
        if "id" in parts:  # everything after it is shifted
            change = f"has cell {old.get('id')} where {new.get('id')} belongs"
            return [*found, str(chapter.problem(new.get("id", ""), f"{_label(file)} {change}"))]
        if parts:
            found.append(str(chapter.problem(new.id, f"cell {new.id} of {_label(file)}: {', '.join(parts)} differ")))
    if file.parent.name == "solutions":
        found += map(str, output_problems(saved, chapter))
    elif not found and file.read_text(encoding="utf-8") != _write(expected):
        found.append(f"{_label(file)}:1: it has outputs, or was written by another program")
    return found


def _sources(root: Path, numbers: tuple[str, ...]) -> list[Path]:
    sources = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    if unknown := [n for n in numbers if not any(s.name.startswith(f"{n.zfill(2)}_") for s in sources)]:
        raise BuildError([Problem("solutions", 1, f"no chapter {', '.join(unknown)}")])
    wanted = tuple(f"{n.zfill(2)}_" for n in numbers)
    return [s for s in sources if not numbers or s.name.startswith(wanted)]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m utils.build", description="Build the notebooks of the course.")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="chapters to build (default: all)")
    parser.add_argument("--check", action="store_true", help="execute and write nothing, list what has drifted")
    parser.add_argument("--keep-outputs", action="store_true", help="do not execute where no code has changed")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: that of this package)")
    options = parser.parse_args(arguments)
    problems = []
    try:
        sources = _sources(options.root, tuple(options.numbers))
        problems += check(options.root, options.numbers) if options.check else []
    except BuildError as error:
        sources, problems = [], list(error.problems)
    for source in [] if options.check else sources:
        start = time.monotonic()
        try:
            print(f"{build(source, options.keep_outputs).summary()}, {time.monotonic() - start:.0f} s", flush=True)
        except BuildError as error:
            problems += error.problems
    if not options.check and not problems and (options.root / "README.md").exists():
        (options.root / "README.md").write_text(readme(options.root), encoding="utf-8", newline="\n")
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
