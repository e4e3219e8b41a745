"""The launcher refuses wrong params, normalises what it writes, and leaves nothing behind when a cell fails."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

RUN = Path(__file__).resolve().parents[1] / "nbs" / "stages" / "run.py"


def write_stage(root, name, parameters, *cells):
    """A stage notebook with one parameters cell and the given code cells."""
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    )
    notebook.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, root / "nbs" / "stages" / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path):
    """A project of one stage, `double`, that writes twice its param."""
    (tmp_path / "nbs" / "stages").mkdir(parents=True)
    shutil.copy(RUN, tmp_path / "nbs" / "stages")
    (tmp_path / "params.yaml").write_text("double:\n  value: 21\n")
    write_stage(
        tmp_path, "double", "value = 1",
        "import sys, time\nprint('noise', time.time(), file=sys.stderr)\nprint(value * 2)",
        "open('out.txt', 'w').write(str(value * 2))",
    )  # fmt: skip
    return tmp_path


def run(project, *arguments):
    command = [sys.executable, project / "nbs" / "stages" / "run.py", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def test_runs_with_its_section_and_writes_equal_bytes_twice(project):
    first = run(project, "double")
    assert first.returncode == 0, first.stderr
    assert (project / "out.txt").read_text() == "42"
    report = project / "reports" / "double.ipynb"
    executed = report.read_bytes()
    outputs = [out for cell in nbformat.reads(executed.decode(), as_version=4).cells for out in cell.get("outputs", [])]
    assert [out.get("text") for out in outputs] == ["42\n", None]
    assert "noise" in first.stderr  # progress is shown while it runs
    assert run(project, "double").returncode == 0
    assert report.read_bytes() == executed


@pytest.mark.parametrize(
    "params, message",
    [
        ("double: {valeu: 21}", "unknown param 'valeu'"),
        ("double: {}", "param 'value' is missing"),
        ("double: {value: '21'}", "param 'value' must be of type int, was '21'"),
        ("single: {value: 1}", "no section 'double'"),
    ],
)
def test_refuses_params_that_do_not_fit(project, params, message):
    (project / "params.yaml").write_text(params)
    result = run(project, "double")
    assert result.returncode == 2 and message in result.stderr
    assert not (project / "reports").exists()


def test_unknown_stage_names_the_known_ones(project):
    result = run(project, "dobule")
    assert result.returncode == 2 and "stages are double" in result.stderr


def test_a_notebook_without_parameters_cell_is_refused(project):
    notebook = nbformat.read(project / "nbs" / "stages" / "double.ipynb", as_version=4)
    notebook.cells[0].metadata = {}
    nbformat.write(notebook, project / "nbs" / "stages" / "double.ipynb")
    result = run(project, "double")
    assert result.returncode == 2 and "exactly one cell tagged 'parameters'" in result.stderr


def test_matrix_values_and_divided_sections(project):
    (project / "params.yaml").write_text("divided: {visual: {frames: 8}, audio: {}}\nshared: {units: 64}\n")
    write_stage(project, "divided", "modality = 'visual'\noptions = {}", "print(modality, options)")
    write_stage(project, "shared", "modality = 'visual'\nunits = 1", "print(modality, units)")
    assert run(project, "divided", "modality=visual").stdout.strip() == "visual {'frames': 8}"
    assert run(project, "divided", "modality=audio").stdout.strip() == "audio {}"
    assert run(project, "shared", "modality=audio").stdout.strip() == "audio 64"
    assert (project / "reports" / "shared-audio.ipynb").is_file()


def test_a_failing_cell_leaves_a_traceback_and_nothing_else(project):
    write_stage(project, "double", "value = 1", "def halve(x):\n    return x / (value - 21)\nhalve(3)")
    result = run(project, "double")
    assert result.returncode == 1
    assert "halve(3)" in result.stderr and "ZeroDivisionError" in result.stderr
    assert list((project / "reports").iterdir()) == []


def test_a_terminated_stage_takes_its_kernel_along(project):
    write_stage(
        project, "double", "value = 1", "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, project / "nbs" / "stages" / "run.py", "double"], cwd=project)
    deadline = time.time() + 30
    while not (project / "pid").exists() or not (project / "pid").read_text():
        assert time.time() < deadline
        time.sleep(0.1)
    kernel = psutil.Process(int((project / "pid").read_text()))
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) != 0
    while kernel.is_running() and kernel.status() != psutil.STATUS_ZOMBIE:
        assert time.time() < deadline + 30, "the notebook's kernel is still running"
        time.sleep(0.1)
    assert list((project / "reports").iterdir()) == []
