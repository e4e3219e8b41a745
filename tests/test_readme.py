"""The README's program runs, in an environment that holds the library alone."""

import os
import re
import subprocess
import sys

import pandas as pd
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


COMMANDS = """
import sys
from mmdisaster.cli import main
sys.exit(main())
"""


def commands():
    """README's lines for a shell that begin with our program, as a shell runs them."""
    blocks = re.findall(r"```\n(mmdisaster .*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 1 and len(blocks[0].splitlines()) > 4
    return blocks[0]


@pytest.fixture(scope="module")
def tried(installed, tmp_path_factory):
    """The folder in which README's commands were run, one after the other, word for word."""
    folder = tmp_path_factory.mktemp("tried")
    program = folder / "mmdisaster"
    program.write_text(f"#!{sys.executable}\n{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n{COMMANDS}")
    program.chmod(0o755)
    script, path = f"set -e\n{commands()}", f"{folder}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(["bash", "-c", script], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    return folder / "demo", result.stdout.decode(), result.stderr.decode()


def test_the_readme_commands_run_word_for_word(tried):
    folder, said, beside = tried
    assert "simulated" in said and "micro_f1" in said and "Flood/Storm" in said
    assert "visual: an untrained network, seed 2019; published ones: " in beside
    table = pd.read_csv(folder / "predictions.csv")
    assert table["clip_id"].tolist() == ["new-000", "new-001"] and table["failure"].isna().all()


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.split(" import")[0])
def test_the_readme_programs_run_without_the_tools(installed, tried, program):
    command = [sys.executable, "-c", f"{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n{program}"]
    result = subprocess.run(command, cwd=tried[0], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "micro_f1" in result.stdout


DRAW = {  # need matplotlib, of the extra `pipeline`
    "pages.figures",
    "pages.heat",
    "data.pictures",
    "study.missing",
    "study.power",
}


def test_every_module_that_draws_nothing_needs_the_library_alone(installed):
    files = [path.relative_to(installed / "mmdisaster") for path in (installed / "mmdisaster").glob("**/*.py")]
    names = {".".join(file.with_suffix("").parts) for file in files if file.stem not in {"__init__", "_modidx"}}
    assert len(names) > 50 and names > DRAW
    imported = "\n".join(f"import mmdisaster.{name}" for name in sorted(names - DRAW))
    program = f"{REFUSE}\nsys.path.insert(0, {str(installed)!r})\n{imported}"
    result = subprocess.run([sys.executable, "-c", program], cwd=installed, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
