# ruff: noqa: E401, E402, E731, I001
# @title Set-up: run this first, and again after a restart of the kernel. On Colab it installs the course.
import importlib.metadata, importlib.util, os, pathlib, subprocess, sys

def find_course():
    installed = lambda name: list(importlib.metadata.distributions(name=name))[:1]
    if "google.colab" in sys.modules and not installed("ground-truth-course"):
        source = os.environ.get("GROUND_TRUTH_REPOSITORY", "git+$repository@v$version")
        pins = [f"{name}=={d.version}" for name in ("torch", "numpy", "ipykernel") for d in installed(name)]
        pathlib.Path("/tmp/colab_pins.txt").write_text("\n".join(pins))  # these stay as Colab has them
        pip = ["-m", "pip", "install", "--quiet", "--constraint", "/tmp/colab_pins.txt", source]
        if subprocess.run([sys.executable, *pip], capture_output=True).returncode:
            raise RuntimeError(f"The course could not be installed. To see why, run: !python {' '.join(pip)}")
    importlib.invalidate_caches()
    loaded = sys.modules.get("utils")
    spec = loaded.__spec__ if loaded else importlib.util.find_spec("utils")
    if not (spec or loaded):
        raise RuntimeError(f"The course is not in {sys.executable}: run `pip install -r requirements.txt` in its "
                           "folder (see README.md) and restart the kernel.")
    place = pathlib.Path(spec.origin or spec.submodule_search_locations[0]) if spec else loaded
    if not (spec and place.is_file() and b'__course__ = "ground-truth"' in place.read_bytes()):
        raise RuntimeError(f"{place} hides the course's package `utils`: rename it and restart the kernel.")

find_course()
from utils import session
session.start()
