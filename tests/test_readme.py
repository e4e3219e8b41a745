"""The README's program runs, in an environment that holds the library alone."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from mmdisaster.paper.tables import PAPER_TABLE_ONE
from mmdisaster.simulate.clips import SimulationSettings, scale_counts, simulate_corpus

TOOLS = ["nbdev", "fastcore", "dvc", "papermill", "jupyterlab", "seaborn", "matplotlib", "librosa"]

REFUSE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {TOOLS!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
"""


def programs():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked into an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        folder,
        ROOT,
    ]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A few simulated clips as somebody's `clips.csv`, and a `new.mp4`."""
    folder = tmp_path_factory.mktemp("clips")
    counts = scale_counts({name: instances for name, (instances, _) in PAPER_TABLE_ONE.items()}, 24)
    simulate_corpus(folder, SimulationSettings(clips=24, videos=8, counts=counts, seed=3))
    (folder / "manifest.csv").rename(folder / "clips.csv")
    shutil.copy(next(folder.glob("media/*.mp4")), folder / "new.mp4")
    return folder


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.split(" import")[0])
def test_the_readme_programs_run_without_the_tools(installed, clips, program):
    command = [sys.executable, "-c", f"{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n{program}"]
    result = subprocess.run(command, cwd=clips, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "micro_f1" in result.stdout


DRAW = {"pages.figures", "data.pictures"}  # need matplotlib, of the extra `pipeline`


def test_every_module_that_draws_nothing_needs_the_library_alone(installed):
    files = [path.relative_to(installed / "mmdisaster") for path in (installed / "mmdisaster").glob("**/*.py")]
    names = {".".join(file.with_suffix("").parts) for file in files if file.stem not in {"__init__", "_modidx"}}
    assert len(names) > 50 and names > DRAW
    imported = "\n".join(f"import mmdisaster.{name}" for name in sorted(names - DRAW))
    program = f"{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n{imported}"
    result = subprocess.run([sys.executable, "-c", program], cwd=installed, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
