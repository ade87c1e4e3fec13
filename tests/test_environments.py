"""The course in environments of its own: Colab's packages, nothing but torch, Python 3.13.

Packages come from the registry that pip is set to; without it these tests are skipped. Run with `-rP` to read how
long each part took.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from utils import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = "00_inside_a_transformer.ipynb"
TORCH = "2.13.0"
# What matters of the Colab image of August 2026: all that the course needs and the image has, and the notebook side.
IMAGE = {
    "numpy": "2.1.3",
    "scipy": "1.16.3",
    "scikit-learn": "1.6.1",
    "pandas": "2.2.3",
    "transformers": "5.15.0",
    "tokenizers": "0.22.2",
    "safetensors": "0.8.0",
    "huggingface-hub": "1.27.0",
    "datasets": "4.0.0",
    "accelerate": "1.14.0",
    "pyarrow": "18.1.0",
    "fsspec": "2025.3.0",
    "protobuf": "5.29.6",
    "wandb": "0.28.1",
    "sentencepiece": "0.2.2",
    "beartype": "0.22.9",
    "typeguard": "4.6.0",
    "rich": "13.9.4",
    "einops": "0.8.2",
    "plotly": "5.24.1",
    "platformdirs": "4.11.3",
    "tqdm": "4.67.3",
    "ipython": "7.34.0",
    "ipykernel": "6.17.1",
    "ipywidgets": "7.7.1",
    "notebook": "6.5.7",
    "nbformat": "5.11.1",
    "jupyter-client": "7.4.9",
    "traitlets": "5.7.1",
    "tornado": "6.5.7",
    "pyzmq": "26.2.1",
    "pip": "24.1.2",
}
INSTALL_SECONDS, RUN_SECONDS = 900, 300


def pip(python: Path | str, *arguments: str, timeout: int = INSTALL_SECONDS) -> str:
    """Run pip quietly; a failure shows what pip said."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"pip {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def normal(name: str) -> str:
    """The name of a distribution as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def base_dependencies() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def pinned(versions: dict[str, str]) -> list[str]:
    return [f"{name}=={version}" for name, version in versions.items()]


class Environment:
    """A fresh virtual environment of this Python, with a kernel of its own."""

    def __init__(self, folder: Path, *packages: str):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self.python = folder / "venv" / "bin" / "python"
        # Nothing is compiled beforehand: few of the modules are ever imported.
        pip(self.python, "install", "--quiet", "--no-compile", *packages)
        self.site = Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))", folder).strip())
        launch = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel = {"argv": launch, "display_name": "fresh", "language": "python"}
        self.jupyter = folder / "jupyter"
        (self.jupyter / "kernels" / "fresh").mkdir(parents=True)
        (self.jupyter / "kernels" / "fresh" / "kernel.json").write_text(json.dumps(kernel))
        self.seconds = time.perf_counter() - started

    def run(self, code: str, folder: Path, **variables: str) -> str:
        """What a program prints that runs in `folder`; it must end without an error."""
        done = subprocess.run(
            [str(self.python), "-c", code],
            cwd=folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_cells(self, cells: list[str], folder: Path, allow_errors: bool = False, **variables: str):
        """The cells as a new kernel of this environment leaves them, with their outputs."""
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        settings = {"timeout": INSTALL_SECONDS, "resources": {"metadata": {"path": str(folder)}}}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_PATH", str(self.jupyter))
            client = NotebookClient(nb, kernel_name="fresh", allow_errors=allow_errors, **settings)
            return client.execute(env=environment(**variables)).cells

    def versions(self) -> dict[str, str]:
        listed = json.loads(pip(self.python, "list", "--format", "json"))
        return {normal(entry["name"]): entry["version"] for entry in listed}


def environment(**variables: str) -> dict[str, str]:
    """The variables of this process, for another environment."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, "PYDEVD_DISABLE_FILE_VALIDATION": "1", **variables}


def text_of(cell) -> str:
    """What a cell printed or showed as text, and the message of its error."""
    parts = [
        output.get("text") or output.get("data", {}).get("text/plain") or "\n".join(output.get("traceback", []))
        for output in cell.outputs
    ]
    return plain("".join(parts))


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def code_cells(notebook: Path) -> list:
    return [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


# --- what is imported -----------------------------------------------------------------------------------------------


def test_imports_of_the_package_are_base_dependencies():
    """Module-level imports of `utils`; the build alone, which authors run, may need the extra `dev`."""
    base = {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in base_dependencies()}
    installed, undeclared = packages_distributions(), []
    for file in sorted((ROOT / "utils").rglob("*.py")):
        if file in (ROOT / "utils" / "build.py", ROOT / "utils" / "templates" / "setup_cell.py"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for top in {name.split(".")[0] for name in names} - {"utils"} - sys.stdlib_module_names:
                if not base & {normal(name) for name in installed.get(top, [top])}:
                    undeclared.append(f"{file.relative_to(ROOT)}:{node.lineno}: {top}")
    assert undeclared == []


# --- what the tests share -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry():
    """Skips when no package can be fetched."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps"]
    command += ["--retries", "0", "--timeout", "15", "transformer-lens"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("pip cannot reach its package registry: environments cannot be built")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The working tree as a tagged git repository, which installs as the published course does."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("the files of the course are listed by git: this is no git checkout")
    copy = tmp_path_factory.mktemp("course")
    listed = subprocess.check_output([git, "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    author = ["-c", "user.name=Tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false"]
    commands = [["init", "-q"], ["add", "-A", "-f"], [*author, "commit", "-q", "-m", "The working tree"]]
    for arguments in [*commands, ["-c", "tag.gpgsign=false", "tag", f"v{__version__}"]]:
        subprocess.run([git, *arguments], cwd=copy, check=True)
    return copy


@pytest.fixture(scope="module")
def course(clone) -> str:
    """The address that pip takes."""
    return f"git+file://{clone}@v{__version__}"


@pytest.fixture(scope="module")
def setup_cell(clone) -> str:
    """The set-up cell of the built chapter."""
    (cell,) = (cell for cell in code_cells(clone / "chapters" / CHAPTER) if cell.id == "setup")
    return cell.source


@pytest.fixture(scope="module")
def colab(registry, tmp_path_factory) -> Iterator[Environment]:
    """Colab's packages and a stand-in for `google.colab`; the course is not there yet."""
    folder = tmp_path_factory.mktemp("colab")
    made = Environment(folder, f"torch=={TORCH}", *pinned(IMAGE))
    (made.site / "google" / "colab").mkdir(parents=True)
    (made.site / "google" / "colab" / "__init__.py").touch()
    yield made
    shutil.rmtree(folder)  # two gigabytes that pytest would keep for three runs


@pytest.fixture
def only_torch(registry, tmp_path) -> Iterator[Environment]:
    yield Environment(tmp_path, f"torch=={TORCH}")
    shutil.rmtree(tmp_path / "venv")


ON_COLAB = "import google.colab"
SEE_COURSE = """\
import json, pathlib, utils
from utils import models
model = models.load("world")
predicted = model.to_string(model("The capital of France is")[0, -1].argmax())
print(json.dumps([utils.__file__, sorted(models.available()), predicted]))"""


@pytest.fixture(scope="module")
def installed(colab, course, setup_cell, tmp_path_factory) -> dict:
    """The first session of a learner on Colab: the set-up cell, a look at the course, the set-up cell again."""
    before, folder = colab.versions(), tmp_path_factory.mktemp("content")
    started = time.perf_counter()
    cells = colab.run_cells(
        [ON_COLAB, setup_cell, SEE_COURSE, setup_cell, SEE_COURSE], folder, GROUND_TRUTH_REPOSITORY=course
    )
    return {"before": before, "after": colab.versions(), "cells": cells, "seconds": time.perf_counter() - started}


# --- Colab ----------------------------------------------------------------------------------------------------------


def test_setup_changes_no_package_of_colab(colab, installed):
    print(f"environment {colab.seconds:.0f} s, first session with set-up {installed['seconds']:.0f} s")
    before, after = installed["before"], installed["after"]
    assert before["torch"].split("+")[0] == TORCH and before.items() >= IMAGE.items()
    assert {name: after.get(name) for name in before} == before
    assert after["ground-truth-course"] == __version__


def assert_course(shown: str, site: Path) -> None:
    place, shipped, predicted = json.loads(shown.splitlines()[-1])
    assert Path(place) == site / "utils" / "__init__.py"
    assert shipped == sorted(folder.parent.name for folder in (ROOT / "utils" / "zoo").glob("*/card.json"))
    assert predicted.strip() == "Paris"


def test_course_comes_with_its_weights_and_the_cell_can_run_twice(colab, installed):
    _, first, seen, second, seen_again = installed["cells"]
    assert text_of(first) == "" and text_of(second) == ""
    assert_course(text_of(seen), colab.site)
    assert_course(text_of(seen_again), colab.site)
    assert (colab.site / "utils" / "zoo" / "world" / "model.safetensors").is_file()


def test_setup_after_a_restart_installs_nothing(colab, installed, setup_cell, tmp_path):
    before = colab.versions()
    broken = "git+file:///there/is/nothing/here"
    cells = colab.run_cells([ON_COLAB, setup_cell, SEE_COURSE], tmp_path, GROUND_TRUTH_REPOSITORY=broken)
    assert text_of(cells[1]) == ""
    assert_course(text_of(cells[2]), colab.site)
    assert colab.versions() == before


def test_a_shadowing_file_is_named(colab, installed, setup_cell, tmp_path):
    (tmp_path / "utils.py").write_text("raise SystemExit('this must not run')")
    shown = text_of(colab.run_cells([ON_COLAB, setup_cell], tmp_path, allow_errors=True)[1])
    assert shown.splitlines()[-1] == (
        f"RuntimeError: {tmp_path / 'utils.py'} hides the course's package `utils`: rename it and restart the kernel."
    )


def test_an_address_without_a_course_is_reported_in_one_line(colab, setup_cell, tmp_path):
    not_installed = [
        ON_COLAB,
        "import importlib.metadata as m; real = m.distributions\n"
        "m.distributions = lambda **k: [] if k.get('name') == 'ground-truth-course' else real(**k)",
        setup_cell,
    ]
    missing = f"git+file://{tmp_path}/nowhere@v{__version__}"
    shown = text_of(colab.run_cells(not_installed, tmp_path, allow_errors=True, GROUND_TRUTH_REPOSITORY=missing)[2])
    last = shown.splitlines()[-1]
    assert last.startswith("RuntimeError: The course could not be installed. To see why, run: !python -m pip install")
    assert missing in last


def test_solved_chapter_runs_with_colabs_versions(colab, installed, clone, tmp_path):
    """All cells run, write nothing on stderr, and what nbval compares reads as with the newest versions."""
    saved = code_cells(clone / "solutions" / CHAPTER)
    started = time.perf_counter()
    cells = colab.run_cells([ON_COLAB, *(cell.source for cell in saved)], tmp_path)[1:]
    print(f"chapter {time.perf_counter() - started:.0f} s")
    for cell, ran in zip(saved, cells, strict=True):
        faults = [o for o in ran.outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert not faults, f"{cell.id}: {faults}"
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert text_of(ran) == text_of(cell), cell.id
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            assert any("text/html" in output.get("data", {}) for output in ran.outputs), f"{cell.id}: no figure"


# --- a failed check -------------------------------------------------------------------------------------------------

FAILING = {
    "wrong": "checks.attention_pattern(lambda q, k: torch.einsum('bqhd,bkhd->bhqk', q, k).softmax(2))",
    "stops": "def attention_pattern(q, k):\n    return q @ k\n\nchecks.attention_pattern(attention_pattern)",
    "stub": "def attention_pattern(q, k):\n    raise NotImplementedError('your code here')\n\n"
    "checks.attention_pattern(attention_pattern)",
}  # fmt: skip
IMPORTS = "import torch\nfrom utils.checks import inside_a_transformer as checks"
IN_A_SHELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {cells!r}:
    print("---")
    shell.run_cell(cell)
"""


@pytest.fixture(scope="module")
def shown_here(tmp_path_factory) -> dict[str, str]:
    """The failed checks as the shell of this environment shows them."""
    folder = tmp_path_factory.mktemp("here")
    program = IN_A_SHELL.format(cells=[IMPORTS, *FAILING.values()])
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr
    return dict(zip(FAILING, plain(done.stdout).split("---\n")[2:], strict=True))


def test_failed_check_is_one_block(shown_here):
    for shown in shown_here.values():
        assert shown.startswith("✗ 0.3 attention_pattern") and "\n  expected  " in shown
        assert "Traceback" not in shown and ".py" not in shown and len(shown.splitlines()) <= 5
    assert "line 2 of your cell:  return q @ k" in shown_here["stops"]


def test_failed_check_reads_the_same_in_ipython_7(colab, installed, shown_here, tmp_path):
    assert colab.run("import IPython; print(IPython.__version__)", tmp_path).strip() == IMAGE["ipython"]
    program = IN_A_SHELL.format(cells=[IMPORTS, *FAILING.values()])
    in_shell = plain(colab.run(program, tmp_path)).split("---\n")[2:]
    assert dict(zip(FAILING, in_shell, strict=True)) == shown_here
    cells = colab.run_cells([IMPORTS, *FAILING.values()], tmp_path, allow_errors=True)[1:]
    assert [[o.output_type for o in cell.outputs] for cell in cells] == [["error"]] * len(FAILING)
    in_notebook = {name: text_of(cell) + "\n" for name, cell in zip(FAILING, cells, strict=True)}
    assert in_notebook == shown_here


# --- nothing but torch ----------------------------------------------------------------------------------------------


def test_setup_needs_nothing_but_torch(only_torch, course, setup_cell, tmp_path):
    before = only_torch.versions()
    assert "numpy" not in before and "ipykernel" not in before
    cell = f"import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n{setup_cell}"
    folder = tmp_path / "content"
    folder.mkdir()
    started = time.perf_counter()
    only_torch.run(cell, folder, GROUND_TRUTH_REPOSITORY=course, PIP_NO_COMPILE="1")
    print(f"environment {only_torch.seconds:.0f} s, set-up {time.perf_counter() - started:.0f} s")
    assert only_torch.versions()["torch"] == before["torch"]
    pip(only_torch.python, "check")
    offline = (
        "import socket\n"
        "def refuse(*args, **kwargs):\n    raise AssertionError('the network is not needed here')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
    )
    assert_course(only_torch.run(offline + SEE_COURSE, folder), only_torch.site)


# --- Python 3.13 ----------------------------------------------------------------------------------------------------


def write_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """A wheel that holds nothing but its metadata."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_base_dependencies_resolve_on_colabs_python(registry, tmp_path):
    """pip resolves for an interpreter that is not here, with the image's versions fixed."""
    image = {**IMAGE, "torch": "2.11.0+colab"}
    write_wheel(tmp_path, "torch", image["torch"])
    write_wheel(tmp_path, "transformers_stream_generator", "0.0.5", "transformers>=4.26.1")  # no wheel on the registry
    (tmp_path / "image.txt").write_text("\n".join(pinned(image)))
    report = tmp_path / "report.json"
    platforms = ["manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    target = ["--only-binary=:all:", "--python-version=3.13", "--target", str(tmp_path / "target")]
    target += [f"--platform={platform}" for platform in platforms]
    resolving = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", str(report), *target]
    resolving += ["--find-links", str(tmp_path), "--constraint", str(tmp_path / "image.txt")]
    pip(sys.executable, *resolving, *base_dependencies())
    resolved = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    found = {normal(package["name"]): package["version"] for package in resolved}
    assert {name: version for name, version in found.items() if name in image and version != image[name]} == {}
    assert {"torch", "numpy", "transformers", "transformer-lens", "plotly"} <= found.keys()
