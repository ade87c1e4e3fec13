"""The build of a chapter: what it writes, what it refuses, and the set-up cell that every notebook begins with."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader import nbgraderformat
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

import utils
from utils import build

FIXTURES = Path(__file__).parent / "fixtures" / "chapters"
SMALL = (FIXTURES / "07_small.py").read_text(encoding="utf-8")
PYPROJECT = '[project.urls]\nRepository = "https://github.com/someone/fork"\n'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository that holds the small chapter, with a set-up cell that imports nothing."""
    for folder in ("solutions", "chapters", "templates"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "solutions" / "07_small.py").write_text(SMALL, encoding="utf-8")
    shutil.copy(build.TEMPLATES / "header.md", tmp_path / "templates")
    shutil.copy(FIXTURES / "setup_cell.py", tmp_path / "templates")
    monkeypatch.setattr(build, "TEMPLATES", tmp_path / "templates")
    return tmp_path


@pytest.fixture
def source(root):
    return root / "solutions" / "07_small.py"


def edit(source: Path, old: str, new: str) -> str:
    text = source.read_text(encoding="utf-8")
    assert old in text
    text = text.replace(old, new, 1)
    source.write_text(text, encoding="utf-8")
    return text


def line_of(text: str, piece: str) -> int:
    return text[: text.index(piece)].count("\n") + 1


def cell(nb, cell_id):
    return next(c for c in nb.cells if c.id == cell_id)


def run_cheaply(nb, chapter, timeout=0):
    """Stands for `execute` where the outputs do not matter."""
    for number, code in enumerate((c for c in nb.cells if c.cell_type == "code"), 1):
        code.execution_count = number
        code.outputs = [nbformat.v4.new_output("stream", name="stdout", text="✓\n")]
    return nb


ANSWER = '# %% exercise="7.1" role="answer" minutes=15 difficulty=2 importance=3'
CHECK = '# %% exercise="7.1" role="check" points=2'
TASK = '# %% [markdown] exercise="7.1" role="task"'
PREDICT = '# %% exercise="7.A" role="predict"'
MANUAL = '# %% [markdown] exercise="7.9" role="manual" points=3'
REGION = "    ### BEGIN SOLUTION\n    secret_of_double = x + x\n    return secret_of_double\n    ### END SOLUTION\n"
HIDDEN = "### BEGIN HIDDEN TESTS\nchecks.double(lambda"

# (what the author wrote, what it becomes, the text at whose line the error is reported, what the error says)
MISTAKES = {
    "no check": (CHECK + "\nchecks", "# %%\nchecks", ANSWER, "has an answer but no check"),
    "no answer": (ANSWER, "# %%", CHECK, "has a check but no answer"),
    "no task": (TASK, "# %% [markdown]", ANSWER, "has an answer but no task"),
    "task alone": (TASK, TASK.replace("7.1", "7.5"), TASK.replace("7.1", "7.5"), "has a task but no answer"),
    "second task": ("# %% [markdown]\n# Before", TASK + "\n# ### E\n\n# %% [markdown]\n# Before",
                    TASK + "\n# ### E\n", "second task cell"),
    "no END": ("    ### END SOLUTION\n\n" + CHECK, "\n" + CHECK, "    ### BEGIN SOLUTION\n    secret",
               "BEGIN SOLUTION without END"),
    "no BEGIN": ("    ### BEGIN SOLUTION\n    secret", "    secret", "    ### END SOLUTION",
                 "END SOLUTION without BEGIN"),
    "nested": ("    return secret_of", "    ### BEGIN SOLUTION\n    return secret_of",
               "    ### BEGIN SOLUTION\n    return secret_of", "inside the SOLUTION region of line 22"),
    "hidden without END": ("### END HIDDEN TESTS\n", "", "### BEGIN HIDDEN", "BEGIN HIDDEN TESTS without END"),
    "hidden without BEGIN": (HIDDEN, "checks.double(lambda", "### END HIDDEN", "END HIDDEN TESTS without BEGIN"),
    "hidden nested": (HIDDEN, "### BEGIN HIDDEN TESTS\n" + HIDDEN, HIDDEN, "inside the HIDDEN TESTS region"),
    "crossed": ("    ### END SOLUTION\n\n" + CHECK, "    ### END HIDDEN TESTS\n\n" + CHECK, "    ### END HIDDEN",
                "END HIDDEN TESTS without BEGIN"),
    "answer without region": (REGION, "    return 2 * x\n", ANSWER, "answer cell without a solution region"),
    "prediction without region": ("### BEGIN SOLUTION\nguess = 1234\n### END SOLUTION\n", "", PREDICT,
                                  "predict cell without a solution region"),
    "manual without region": ("# ### BEGIN SOLUTION\n# Rubric: names two things that the essay needs.\n"
                              "# ### END SOLUTION\n", "", MANUAL, "manual cell without a solution region"),
    "marker misspelt": ("    ### BEGIN SOLUTION\n    secret", "    # begin solution\n    secret",
                        "    # begin solution", "is not a marker"),
    "duplicate": ("# %% [markdown]\n# A measured", CHECK + "\nprint(1)\n\n# %% [markdown]\n# A measured",
                  CHECK + "\nprint(1)", "second check cell of exercise 7.1"),
    "minutes missing": (" minutes=15", "", '# %% exercise="7.1" role="answer"', "minutes missing"),
    "minutes text": ("minutes=15", 'minutes="15"', 'minutes="15"', "minutes must be a whole number above 0, not '15'"),
    "minutes broken": ("minutes=15", "minutes=1.5", "minutes=1.5", "not 1.5"),
    "too long": ("minutes=15", "minutes=151", "minutes=151", "the core takes more than 150 minutes"),
    "difficulty": ("difficulty=2", "difficulty=4", "difficulty=4", "difficulty must be a whole number from 1 to 3"),
    "importance missing": (" importance=3", "", '# %% exercise="7.1" role="answer"', "importance missing"),
    "extra": ("extra=true", "extra=1", "extra=1", "extra must be true or false"),
    "points missing": (" points=2", "", '# %% exercise="7.1" role="check"', "points missing"),
    "unknown role": ('role="result"', 'role="resutl"', 'role="resutl"', "unknown role 'resutl'"),
    "unknown key": ("minutes=15", "minute=15", "minute=15", "unknown key minute"),
    "key of another role": ("points=2", "points=2 minutes=3", "points=2 minutes=3", "unknown key minutes"),
    "no exercise": (CHECK, '# %% role="check" points=2', '# %% role="check"', "needs exercise="),
    "no role": (CHECK, '# %% exercise="7.1"', '# %% exercise="7.1"\n', "without a role"),
    "other chapter": (TASK, TASK.replace("7.1", "6.1"), TASK.replace("7.1", "6.1"), "not one of this chapter"),
    "wrong kind": (TASK, TASK.replace(" [markdown]", ""), TASK.replace(" [markdown]", ""), "cannot be a code cell"),
    "no heading": ("# ### Exercise 7.1 · Twice as much\n", "", TASK, "task cell without heading"),
    "wrong heading": ("# ### Exercise 7.1", "# ### Exercise 7.3", TASK, "the heading says exercise 7.3"),
    "no title": ("# # 07 · A small chapter", "# 07 · A small chapter", "# %% [markdown]\n# 07", "chapter's title"),
    "markers in markdown": ("# Before you look", "# ### BEGIN SOLUTION\n# x\n# ### END SOLUTION\n# Before you look",
                            "# ### BEGIN SOLUTION\n# x", "it would reach learners"),
    "solution in markdown": ("# A measured", "# It is `secret_of_double = x + x`. A measured",
                             "# %% [markdown]\n# It is", "solution text in markdown"),
    "syntax": ('print(f"{double(0.25):.2f}")', "a = 1\nprint((", "print((", "SyntaxError"),
    "syntax for learners": ("### BEGIN SOLUTION\nguess = 1234\n### END SOLUTION",
                            "if True:\n    ### BEGIN SOLUTION\n    guess = 1234\n    ### END SOLUTION", PREDICT,
                            "in the learner's version: IndentationError"),
    "unbalanced quotes": (CHECK, CHECK.replace('"check"', '"check'), '"check points', "malformed cell header"),
    "bare word": ("minutes=15", "minutes=ten", "minutes=ten", "malformed cell header"),
    "no space": (CHECK, CHECK.replace("# %%", "#%%"), "#%%", "malformed cell header"),
    "no space before markdown": ("# %% [markdown]\n# A", "# %%[markdown]\n# A", "# %%[m", "malformed cell header"),
    "title in header": ("# %%\nfrom", "# %% Imports\nfrom", "# %% Imports", "malformed cell header"),
    "text before the cells": ("# %% [markdown]\n# # 07", "import os\n# %% [markdown]\n# # 07", "# ---",
                              "text before the first"),
    "header in a string": ("guess = None", 'text = """\n# %%\n"""', PREDICT, "swallows the `# %%` header"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_reported_at_its_line(source, mistake):
    old, new, place, reason = MISTAKES[mistake]
    text = edit(source, old, new)
    with pytest.raises(build.BuildError) as caught:
        build.read_chapter(source)
    fitting = [p for p in caught.value.problems if reason in p.reason]
    assert fitting, caught.value
    assert fitting[0].line == line_of(text, place), caught.value
    assert str(fitting[0]).startswith(f"solutions/07_small.py:{fitting[0].line}: ")


def test_all_mistakes_of_a_chapter_are_reported_together(source):
    for old, new in ((" points=2", ""), ("minutes=15", "minutes=0"), ('role="result"', 'role="x"')):
        edit(source, old, new)
    with pytest.raises(build.BuildError) as caught:
        build.read_chapter(source)
    assert [p.reason.split()[0] for p in caught.value.problems] == ["minutes", "points", "unknown"]


def test_order_of_an_exercise(source):
    text = source.read_text(encoding="utf-8")
    answer, check = (
        text[text.index(ANSWER) : text.index(CHECK)],
        text[text.index(CHECK) : text.index("# %% [markdown]\n# Bef")],
    )
    edit(source, answer + check, check + answer)
    with pytest.raises(build.BuildError, match="the order is task, answer, check"):
        build.read_chapter(source)


def test_file_name(tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    with pytest.raises(build.BuildError, match="NN_topic"):
        build.read_chapter(tmp_path / "small.py")


def test_executed_build(root, source):
    checked = 'import os\n\nassert os.environ["GROUND_TRUTH_BUILD"] == "1" and os.getcwd().endswith("solutions")\n'
    edit(source, "from types", checked + "from types")
    chapter = build.build(source)
    assert (chapter.title, chapter.core_minutes, chapter.points) == ("07 · A small chapter", 15, 6)
    assert chapter.summary().startswith("07_small: 2 core exercises and 1 extra, 15 core minutes, 6 points, 14 cells")
    solution = nbgraderformat.read(root / "solutions" / "07_small.ipynb", as_version=4)  # validates nbgrader's metadata
    nbformat.validate(solution)
    code = [c for c in solution.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not any("execution" in c.metadata for c in code)
    assert cell(solution, "check-7-1").outputs[0].text == "✓ 7.1 double · 3 of 3 properties hold\n" * 2
    assert [c.id for c in solution.cells if "nbval-check-output" in c.metadata.get("tags", [])] == [
        "check-7-1",
        "cell-004",
        "check-7-2",
    ]
    assert solution.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    }
    assert build.check(root) == []
    assert build.learner_notebook(solution) == nbformat.read(root / "chapters" / "07_small.ipynb", 4)
    learner = (root / "chapters" / "07_small.ipynb").read_text(encoding="utf-8")
    for secret in (
        "secret_of",
        "1234",
        "hidden_argument",
        "HIDDEN",
        "BEGIN",
        "END",
        "Rubric",
        "x / 2",
        "✓ 7.1 double\\n",
    ):
        assert secret not in learner
    assert not any(c.get("outputs") or c.get("execution_count") for c in json.loads(learner)["cells"])


def test_cells_and_metadata(source):
    nb = build.solution_notebook(build.read_chapter(source))
    assert [c.id for c in nb.cells[:5]] == ["cell-001", "setup", "cell-002", "task-7-1", "answer-7-1"]
    badge = nb.cells[0].source.split("\n\n")[1]
    tag = f"blob/v{utils.__version__}"
    assert f"(https://colab.research.google.com/github/someone/fork/{tag}/chapters/07_small.ipynb)" in badge
    assert "(reference.md)" in badge
    assert nb.cells[0].source.endswith("It holds one cell of every role.")
    assert (
        nb.cells[1].source
        == f"# Set-up of the fixture chapters (no torch): https://github.com/someone/fork {utils.__version__}"
    )
    assert cell(nb, "task-7-1").source == (
        "### Exercise 7.1 · Twice as much\n\n🔴🔴⚪ difficulty 2 of 3 · 🔵🔵🔵 importance 3 of 3 · about 15 minutes · "
        'stuck? run `checks.hint("7.1")`, and again for the next hint\n\nWrite `double`.'
    )
    assert "\n\nextra · 🔴⚪⚪ difficulty 1 of 3" in cell(nb, "task-7-2").source
    common = {"schema_version": 3, "task": False}
    assert cell(nb, "answer-7-1").metadata == {
        "ground_truth": {"exercise": "7.1", "role": "answer", "minutes": 15, "difficulty": 2, "importance": 3},
        "nbgrader": {
            **common,
            "grade_id": "answer_7_1",
            "cell_type": "code",
            "grade": False,
            "solution": True,
            "locked": False,
        },
    }
    assert cell(nb, "check-7-1").metadata == {
        "ground_truth": {"exercise": "7.1", "role": "check"},
        "tags": ["nbval-check-output"],
        "nbgrader": {
            **common,
            "grade_id": "check_7_1",
            "cell_type": "code",
            "grade": True,
            "solution": False,
            "locked": True,
            "points": 2,
        },
    }
    assert cell(nb, "manual-7-9").metadata.nbgrader == {
        **common,
        "grade_id": "manual_7_9",
        "cell_type": "markdown",
        "grade": True,
        "solution": True,
        "locked": False,
        "points": 3,
    }
    assert all("nbgrader" not in c.metadata for c in nb.cells if c.id.startswith(("cell", "setup", "task")))
    nbgraderformat.reads(nbformat.writes(nb), as_version=4)


def test_learners_version(source):
    nb = build.learner_notebook(build.solution_notebook(build.read_chapter(source)))
    assert cell(nb, "answer-7-1").source.endswith(
        '    """Twice `x`."""\n    raise NotImplementedError("your code here")'
    )
    assert cell(nb, "check-7-1").source == "checks.double(double)"
    assert cell(nb, "predict-7-A").source == "guess = None  # your number"
    assert cell(nb, "manual-7-9").source == "**In your own words:** what does `double` not show?\n\n*Your answer here.*"
    nbgraderformat.writes(nb)


def test_nbgrader_can_make_the_assignment_itself(source):
    """The solution notebook goes through nbgrader's preprocessors, which insist on consistent metadata."""
    nb = build.solution_notebook(build.read_chapter(source))
    for preprocessor in (ClearSolutions(), ClearHiddenTests()):
        nb, _ = preprocessor.preprocess(nb, {})
    assert "secret" not in nbformat.writes(nb)


def test_ids_of_exercise_cells_survive_an_insertion(source):
    def ids():
        cells = build.solution_notebook(build.read_chapter(source)).cells
        assert len({c.id for c in cells}) == len(cells)
        return [c.id for c in cells if not c.id.startswith("cell-")]

    before = ids()
    edit(source, "# %% [markdown]\n# Before", "# %% [markdown]\n# Something new.\n\n# %% [markdown]\n# Before")
    assert ids() == before


def test_two_results_of_one_exercise_have_two_ids(source):
    result = '# %% exercise="7.1" role="result"\nprint({})\n\n'
    edit(source, "# %% [markdown]\n# A measured", result.format(1) + result.format(2) + "# %% [markdown]\n# A measured")
    ids = [c.id for c in build.read_chapter(source).cells]
    assert "result-7-1" in ids and "result-7-1-2" in ids


def test_build_is_deterministic(root, source, monkeypatch):
    monkeypatch.setattr(build, "execute", run_cheaply)
    files = [root / folder / "07_small.ipynb" for folder in ("solutions", "chapters")]
    written = []
    for _ in range(2):
        build.build(source)
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_check_finds_drift(root, source, monkeypatch):
    monkeypatch.setattr(build, "execute", run_cheaply)
    assert build.check(root) == ["solutions/07_small.ipynb:1: missing", "chapters/07_small.ipynb:1: missing"]
    build.build(source)
    assert build.check(root) == []
    built = source.read_text(encoding="utf-8")
    line = line_of(edit(source, "range(3)", "range(4)"), '# %% role="result"')
    assert build.check(root) == [
        f"solutions/07_small.py:{line}: cell cell-004 of solutions/07_small.ipynb: source differ",
        f"solutions/07_small.py:{line}: cell cell-004 of chapters/07_small.ipynb: source differ",
    ]
    source.write_text(built.replace("points=2", "points=4"), encoding="utf-8")
    assert all("cell check-7-1" in drift and "metadata differ" in drift for drift in build.check(root))
    source.write_text(built.replace("# Before", "# new\n\n# %% [markdown]\n# Before"), encoding="utf-8")
    assert len(build.check(root)) > 1
    source.write_text(built.replace("points=2", "pts=4"), encoding="utf-8")
    assert any("unknown key pts" in drift for drift in build.check(root))
    source.write_text(built, encoding="utf-8")
    learner = root / "chapters" / "07_small.ipynb"
    learner.write_text(learner.read_text(encoding="utf-8").replace('"execution_count": null', '"execution_count": 3'))
    assert "outputs" in build.check(root)[0]
    source.unlink()
    assert [d.split(": ")[1] for d in build.check(root)] == ["its source solutions/07_small.py is gone"] * 2


def test_check_wants_outputs_but_does_not_compare_them(root, source, monkeypatch):
    monkeypatch.setattr(build, "execute", run_cheaply)
    build.build(source)
    file = root / "solutions" / "07_small.ipynb"
    nb = nbformat.read(file, 4)
    cell(nb, "check-7-1").outputs[0].text = "another text\n"
    nbformat.write(nb, file)
    assert build.check(root) == []
    cell(nb, "check-7-1").outputs = []
    cell(nb, "cell-002").execution_count = None
    nbformat.write(nb, file)
    assert [d.split(": ")[1] for d in build.check(root)] == [
        "cell cell-002 was not executed",
        "cell check-7-1 has no output to compare",
    ]


def test_outputs_are_kept_while_no_code_changes(root, source, monkeypatch):
    runs = []
    monkeypatch.setattr(build, "execute", lambda nb, chapter, timeout: runs.append(1) or run_cheaply(nb, chapter))
    build.build(source)
    edit(source, "# A measured number", "# A number that was measured")
    build.build(source, keep_outputs=True)
    assert len(runs) == 1 and build.check(root) == []
    edit(source, "range(3)", "range(4)")
    build.build(source, keep_outputs=True)
    assert len(runs) == 2


def test_failing_cell_is_named(source):
    text = edit(source, 'print(f"{double(0.25):.2f}")', "undefined_name")
    line = line_of(text, "# %%\nundefined")
    with pytest.raises(
        build.BuildError, match=rf"07_small\.py:{line}: cell cell-006 failed: NameError: .*undefined_name"
    ):
        build.build(source)
    assert not source.with_suffix(".ipynb").exists()


BAD_OUTPUTS = {
    "stderr": (
        "cell-002",
        {"output_type": "stream", "name": "stderr", "text": "careful"},
        "output on stderr: 'careful'",
    ),
    "error": ("cell-002", {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}, "a saved error: E"),
    "path": ("cell-002", str(Path.home() / "x"), "a path of this machine"),
    "large": ("cell-002", "x" * 1_600_000, "an output of 1.6 MB"),
    "float in a check": ("check-7-1", "✓ 7.1 double · loss 0.31", "the number '0.31'"),
    "float in a result": ("cell-004", "exercise 7.1: 1e-05.", "the number '1e-05'"),
    "address in a result": ("cell-004", "<object at 0x7f00aa11>", "the number '0x7f00aa11'"),
}


@pytest.mark.parametrize("fault", BAD_OUTPUTS)
def test_output_that_must_not_be_saved(source, monkeypatch, fault):
    where, output, reason = BAD_OUTPUTS[fault]
    if isinstance(output, str):
        output = {"output_type": "stream", "name": "stdout", "text": output}

    def execute(nb, chapter, timeout):
        cell(run_cheaply(nb, chapter), where).outputs = [nbformat.from_dict(output)]
        return nb

    monkeypatch.setattr(build, "execute", execute)
    with pytest.raises(build.BuildError) as caught:
        build.build(source)
    (problem,) = caught.value.problems
    assert reason in problem.reason
    assert problem.line == build.read_chapter(source).line(where)


def test_large_notebook(source, monkeypatch):
    def execute(nb, chapter, timeout):
        run_cheaply(nb, chapter)
        for name in ("setup", "cell-002", "cell-006"):
            cell(nb, name).outputs[0].text = "x" * 1_400_000
        return nb

    monkeypatch.setattr(build, "execute", execute)
    with pytest.raises(build.BuildError, match=r"the notebook has 4\.2 MB"):
        build.build(source)


@pytest.mark.parametrize(
    "text", ["7.1 holds", "3 of 3", "L5H3, (5, 3)", "version 4.3.0", "v1.5", "exercises 7.2", "ends with 3."]
)
def test_discrete_text_is_no_float(text):
    compared = nbformat.v4.new_code_cell(metadata={"ground_truth": {"exercise": "7.1"}})
    assert not build.NUMBER.search(build._without_ids(text, compared))


@pytest.mark.parametrize(
    "text", ["0.95.", "17.1", "loss=.5", "3e-8", "98.5%", "tensor([1., 2.])", "-0.1", "1.5x", "7.11"]
)
def test_floats_are_found(text):
    compared = nbformat.v4.new_code_cell(metadata={"ground_truth": {"exercise": "7.1"}})
    assert build.NUMBER.search(build._without_ids(text, compared))


def test_javascript_is_not_saved():
    library = f"<script>{'x' * 200_000}</script>"
    view = "<div id='a'></div><script>CircuitsVis.render('a')</script>"
    outputs = nbformat.from_dict(
        [
            {"output_type": "stream", "name": "stdout", "text": "a\n"},
            {"output_type": "stream", "name": "stdout", "text": "b\n"},
            {
                "output_type": "display_data",
                "data": {"text/html": library, "text/plain": "<IPython.core.display.HTML object>"},
            },
            {
                "output_type": "display_data",
                "data": {"text/html": library, "image/png": "abc", "text/plain": "three heads"},
            },
            {"output_type": "display_data", "data": {"text/html": view, "image/png": "abc"}},
            {"output_type": "display_data", "data": {"text/html": "<b>x</b>", "text/plain": "<Table object>"}},
        ]
    )
    assert [dict(o.get("data", {"text": o.get("text")})) for o in build._tidy(outputs)] == [
        {"text": "a\nb\n"},
        {"image/png": "abc", "text/plain": "three heads"},
        {"image/png": "abc"},
        {"text/html": "<b>x</b>", "text/plain": "<Table object>"},
    ]


def test_command_line(root, source, monkeypatch, capsys):
    monkeypatch.setattr(build, "execute", run_cheaply)
    assert build.main(["7", "--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith("07_small: 2 core exercises and 1 extra")
    assert build.main(["--check", "--root", str(root)]) == 0
    edit(source, " points=2", "")
    assert build.main(["07", "--root", str(root)]) == 1
    assert "points missing" in capsys.readouterr().err
    assert build.main(["--check", "--root", str(root)]) == 1
    assert build.main(["08", "--root", str(root)]) == 1
    assert "no chapter 08" in capsys.readouterr().err


def test_repository(root):
    assert build.repository(root) == "https://github.com/someone/fork"
    (root / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(build.BuildError, match="Repository"):
        build.repository(root)


# --- the set-up cell ---

SETUP = build._template("setup_cell.py", repository="https://github.com/someone/fork").removesuffix(
    "from utils import session\nsession.start()"
)
OURS = '__course__ = "ground-truth"\n'


def run_setup(folder: Path, before: str = "", after: str = "import utils; print(utils.__course__)", **env: str):
    """Run the set-up cell, without its last step (which imports torch), in a fresh interpreter in `folder`."""
    code = f"{before}\n{SETUP}\n{after}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={**os.environ, **env}
    )


def last_line(done) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_setup_cell_is_short_and_ends_in_session_start():
    text = build._template("setup_cell.py", repository="https://github.com/someone/fork")
    assert text.count("\n") < 25 and "noqa" not in text and text.startswith("# @title Set-up")
    assert text.endswith("from utils import session\nsession.start()")
    assert f"git+https://github.com/someone/fork@v{utils.__version__}" in text


def test_setup_finds_the_course(tmp_path):
    assert run_setup(tmp_path).stdout == "ground-truth\n"
    again = run_setup(tmp_path, after="import utils\n" + SETUP + "\nprint(utils.__course__)")
    assert again.stdout == "ground-truth\n", again.stderr


@pytest.mark.parametrize("name", ["utils.py", "utils/__init__.py", "utils/notes.txt"])
def test_setup_names_what_hides_the_course(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('this must not run')")
    place = tmp_path / name if name.endswith(".py") else tmp_path / "utils"
    assert last_line(run_setup(tmp_path)) == (
        f"RuntimeError: {place} hides the course's package `utils`: rename it and restart the kernel."
    )


@pytest.mark.parametrize(
    "before", ["import utils", "import sys, types; sys.modules['utils'] = types.ModuleType('utils')"]
)
def test_setup_names_a_foreign_module_that_is_loaded(tmp_path, before):
    (tmp_path / "utils.py").write_text("x = 1")
    done = run_setup(tmp_path, before)
    assert "hides the course's package" in last_line(done)
    assert ("utils.py" if before == "import utils" else "<module 'utils'>") in last_line(done)


def test_setup_recovers_once_the_file_is_renamed(tmp_path):
    (tmp_path / "utils.py").write_text("x = 1")
    before = f"try:\n    exec({SETUP!r})\nexcept RuntimeError:\n    import os; os.rename('utils.py', 'mine.py')"
    assert run_setup(tmp_path, before).stdout == "ground-truth\n"


NOT_INSTALLED = """
import importlib.metadata, sys
sys.meta_path = [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")]
sys.path = [p for p in sys.path if not p or not (__import__("pathlib").Path(p) / "utils" / "build.py").exists()]
real = importlib.metadata.distributions
importlib.metadata.distributions = lambda name: [] if name == "ground-truth-course" else real(name=name)
"""


def test_setup_says_how_to_install(tmp_path):
    message = last_line(run_setup(tmp_path, NOT_INSTALLED))
    assert message.startswith("RuntimeError: The course is not in ")
    assert "`pip install -r requirements.txt`" in message and "README.md" in message


# On Colab: pip is replaced by a program that writes down its arguments and, when it succeeds, installs into `site/`.
FAKE_COLAB = (
    NOT_INSTALLED
    + """
import pathlib, subprocess, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
sys.path.append("site")
def run(command, **options):
    print(command[1:])
    pins = pathlib.Path(command[command.index("--constraint") + 1]).read_text().split()
    print([pin.split("==")[0] for pin in pins])
    if FAILS == 0:
        pathlib.Path("site/utils").mkdir(parents=True)
        pathlib.Path("site/utils/__init__.py").write_text('__course__ = "ground-truth"')
    return types.SimpleNamespace(returncode=FAILS)
subprocess.run = run
"""
)


@pytest.mark.parametrize(
    "env", [{}, {"GROUND_TRUTH_REPOSITORY": "git+file:///clone"}, {"GROUND_TRUTH_REPOSITORY": "/clone"}]
)
def test_setup_installs_on_colab(tmp_path, env):
    done = run_setup(tmp_path, "FAILS = 0" + FAKE_COLAB, **env)
    command, pins, course = done.stdout.splitlines()
    address = env.get("GROUND_TRUTH_REPOSITORY", f"git+https://github.com/someone/fork@v{utils.__version__}")
    assert eval(command) == ["-m", "pip", "install", "--quiet", "--constraint", "/tmp/colab_pins.txt", address]
    assert eval(pins) == ["torch", "numpy", "ipykernel"]
    assert course == "ground-truth"


def test_setup_says_in_one_line_that_the_installation_failed(tmp_path):
    message = last_line(run_setup(tmp_path, "FAILS = 1" + FAKE_COLAB))
    assert message.startswith(
        "RuntimeError: The course could not be installed. To see why, run: !python -m pip install"
    )


def test_setup_leaves_an_installed_course_alone_on_colab(tmp_path):
    before = 'import sys, types, subprocess; sys.modules["google.colab"] = types.ModuleType("c"); subprocess.run = None'
    assert run_setup(tmp_path, before).stdout == "ground-truth\n"


def test_notebook_is_readable_by_nbgrader_from_a_stream(source):
    nb = build.solution_notebook(build.read_chapter(source))
    assert nbgraderformat.read(io.StringIO(nbformat.writes(nb)), as_version=4).cells


def test_the_readme_lists_the_chapters(source):
    root = source.parents[1]
    readme = root / "README.md"
    readme.write_text("# A course\n\n<!-- chapters -->\nold\n<!-- /chapters -->\n\nMore.\n")
    build.build(source)
    assert any("table of chapters" in drift for drift in build.check(root))
    assert build.main(["--root", str(root), "--keep-outputs"]) == 0
    text = readme.read_text()
    assert "| 07 |" in text and "/chapters/07_small.ipynb)" in text and "old" not in text and text.endswith("More.\n")
    assert build.check(root) == []
