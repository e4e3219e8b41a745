"""The README's program runs, in an environment that holds the library alone."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

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


def test_the_readme_program_runs_without_the_tools(installed):
    assert programs()
    for program in programs():
        command = [sys.executable, "-c", f"{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n{program}"]
        result = subprocess.run(command, cwd=installed, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "micro_f1" in result.stdout


def test_every_module_but_figures_needs_the_library_alone(installed):
    names = sorted(
        path.stem
        for path in (installed / "mmdisaster").glob("*.py")
        if path.stem not in {"__init__", "_modidx", "figures"}
    )
    program = f"{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n" + "\n".join(
        f"import mmdisaster.{name}" for name in names
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=installed, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
