"""The launcher checks settings first, normalises what it writes, and leaves nothing behind when a cell fails."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT

PARAMETERS = 'params = "params.yaml"'
READ = "from mmdisaster.settings import read_settings\nsettings = read_settings(params)"


def write_stage(root, name, parameters, *cells):
    """A stage notebook with one parameters cell and the given code cells."""
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, root / "nbs" / "stages" / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path):
    """A project of one stage, `double`, that writes twice a setting."""
    (tmp_path / "nbs" / "stages").mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    for name in ["stage.py", "stages.py", "inprocess.py", "ready.py"]:
        shutil.copy(ROOT / "tools" / name, tmp_path / "tools")
    (tmp_path / "params.yaml").write_text("report:\n  largest: 21\n")
    write_stage(
        tmp_path, "double", PARAMETERS, READ,
        "import sys, time\nprint('noise', time.time(), file=sys.stderr)\nprint(settings.report.largest * 2)",
        "open('out.txt', 'w').write(str(settings.report.largest * 2))",
    )  # fmt: skip
    return tmp_path


def run(project, *arguments, **variables):
    command = [sys.executable, project / "tools" / "stage.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8", env=environment)


@pytest.mark.parametrize("place", [".", "audit"])
def test_a_stage_of_the_audit_leaves_no_compiled_modules(project, place):
    """The audit's DVC would count them among the library's files."""
    shutil.copytree(ROOT / "mmdisaster", project / "mmdisaster", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "audit").mkdir()
    command = [sys.executable, project / "tools" / "stage.py", "none"]
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, cwd=project / place, capture_output=True, encoding="utf-8", env=environment)
    assert "no stage 'none'" in done.stderr
    assert any((project / "mmdisaster").rglob("__pycache__")) == (place == ".")


def test_runs_with_its_settings_and_writes_equal_bytes_twice(project):
    first = run(project, "double")
    assert first.returncode == 0, first.stderr
    assert (project / "out.txt").read_text() == "42"
    report = project / "reports" / "double.ipynb"
    executed = report.read_bytes()
    outputs = [out for cell in nbformat.reads(executed.decode(), as_version=4).cells for out in cell.get("outputs", [])]
    assert [out.get("text") for out in outputs] == ["42\n", None]
    assert "noise" in first.stderr  # progress is shown while it runs
    second = run(project, "double", "--quiet")
    assert second.returncode == 0 and second.stderr == ""
    assert report.read_bytes() == executed


def test_everything_that_is_wrong_with_settings_is_said_before_any_work(project):
    (project / "params.yaml").write_text("report: {largest: 0, larges: 3}\nfuse: {C: 0.8}\n")
    result = run(project, "double")
    assert result.returncode == 2 and result.stderr.startswith("params.yaml: 3 problems\n")
    assert "report.largest: must be a whole number from 1 to 1,000, was 0" in result.stderr
    assert "report.larges: is unknown; did you mean 'largest'?" in result.stderr
    assert "fuse: is unknown; did you mean 'fusion'?" in result.stderr and "Traceback" not in result.stderr
    assert not (project / "reports").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["dobule"], "no stage 'dobule'; stages are divided, double"),
        (["divided"], "'modality' is missing, as in modality=visual"),
        (["divided", "modality=audio", "speed=2"], "unknown value 'speed'; the notebook takes modality"),
        (["double", "params=other.yaml"], "unknown value 'params'; the notebook takes none"),
    ],
)
def test_refuses_what_the_notebook_does_not_take(project, arguments, message):
    write_stage(project, "divided", f"{PARAMETERS}\nmodality = 'visual'", "print(modality)")
    result = run(project, *arguments)
    assert result.returncode == 2 and message in result.stderr
    assert not (project / "reports").exists()


def test_a_notebook_without_parameters_is_refused(project):
    write_stage(project, "double", "value = 1")
    assert "as in params = 'params.yaml'" in run(project, "double").stderr
    notebook = nbformat.read(project / "nbs" / "stages" / "double.ipynb", as_version=4)
    notebook.cells[0].metadata = {}
    nbformat.write(notebook, project / "nbs" / "stages" / "double.ipynb")
    result = run(project, "double")
    assert result.returncode == 2 and "exactly one cell tagged 'parameters'" in result.stderr


def test_matrix_values_name_the_report(project):
    write_stage(project, "divided", f"{PARAMETERS}\nmodality = 'visual'", "print(modality, params)")
    assert run(project, "divided", "modality=audio").stdout.strip() == "audio params.yaml"
    assert (project / "reports" / "divided-audio.ipynb").is_file()


def test_outputs_are_those_of_a_kernel(project):
    """In their order: what is printed, shown and drawn, and values but for those that a semicolon hides."""
    shown = (
        "from IPython.display import Markdown, display\nprint('one')\ndisplay(Markdown('**two**'))\nprint('three')\n"
    )
    drawn = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    wide = "import pandas as pd\npd.DataFrame([{f'column number {i}': i for i in range(9)}])"
    write_stage(
        project, "double", PARAMETERS, f"{shown}{{'four': 4}}", "5;", drawn, "%precision 3\n_ = 1", "1 / 3", wide
    )
    assert run(project, "double").returncode == 0
    cells = nbformat.read(project / "reports" / "double.ipynb", as_version=4).cells[1:]
    outputs = [[(out.output_type, out.get("text") or dict(out.data)) for out in cell.outputs] for cell in cells]
    assert outputs[0] == [
        ("stream", "one\n"),
        ("display_data", {"text/markdown": "**two**", "text/plain": "<IPython.core.display.Markdown object>"}),
        ("stream", "three\n"),
        ("execute_result", {"text/plain": "{'four': 4}"}),
    ]
    assert outputs[1] == [] and outputs[4] == [("execute_result", {"text/plain": "0.333"})]
    assert [kind for kind, _ in outputs[2]] == ["display_data"] and outputs[2][0][1]["image/png"].startswith("iVBOR")
    assert "column number 4" in outputs[5][0][1]["text/plain"] and "<table" in outputs[5][0][1]["text/html"]
    assert [cell.execution_count for cell in cells] == [2, 3, 4, 5, 6, 7]


def test_a_failing_cell_leaves_a_traceback_and_nothing_else(project):
    write_stage(project, "double", PARAMETERS, "def halve(x):\n    return x / (len(params) - 11)\nhalve(3)")
    result = run(project, "double")
    assert result.returncode == 1
    assert "halve(3)" in result.stderr and "ZeroDivisionError" in result.stderr
    assert list((project / "reports").iterdir()) == []


def test_an_error_that_says_what_to_do_is_printed_alone(project):
    failing = "from mmdisaster.settings import SettingsError\nraise SettingsError('clips.csv', ['row 3: is empty'])"
    write_stage(project, "double", PARAMETERS, failing)
    result = run(project, "double", "--quiet")
    assert result.returncode == 1 and result.stderr == "stage double: clips.csv: 1 problem\n  row 3: is empty\n"


@pytest.fixture
def user(tmp_path):
    """The folder of somebody with a profile, figure settings and start-up code of their own."""
    user = tmp_path / "user"
    files = {
        "profile_default/startup/00.py": "raise SystemExit(3)",
        "profile_default/ipython_kernel_config.py": "c.InteractiveShellApp.exec_lines = ['max = min']",
        "startup.py": "max = min",
        "matplotlibrc": "savefig.dpi: 7",
        "home/.config/matplotlib/matplotlibrc": "savefig.dpi: 7",
        "home/.ipython/profile_default/startup/00.py": "raise SystemExit(3)",
        "profile_default/ipython_config.py": "c.InteractiveShellApp.exec_lines = ['max = min']",
    }
    for name, content in files.items():
        (user / name).parent.mkdir(parents=True, exist_ok=True)
        (user / name).write_text(content, encoding="utf-8")
    return user


def test_nothing_of_the_user_reaches_a_stage(project, user):
    """Start-up code, figure settings, locale, warnings as errors: the same report, byte for byte."""
    said = "print(sys.executable, max(1, 2), matplotlib.rcParams['savefig.dpi'], 'Überflutung 洪水')"
    write = "open('word.txt', 'w').write('洪水')\nassert sys.flags.optimize == 0\nnp.zeros(200)"
    write_stage(project, "double", PARAMETERS, f"import sys, matplotlib\nimport numpy as np\n{said}", write)
    alone = run(project, "double", "--quiet")
    assert alone.returncode == 0, alone.stderr
    assert alone.stdout.strip() == f"{sys.executable} 2 figure Überflutung 洪水"
    report = (project / "reports" / "double.ipynb").read_bytes()
    mine = {name: str(user) for name in ["IPYTHONDIR", "MPLCONFIGDIR"]} | {"HOME": str(user / "home")}
    mine |= {"PYTHONSTARTUP": str(user / "startup.py"), "MATPLOTLIBRC": str(user / "matplotlibrc")}
    mine |= {"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "1", "MPLBACKEND": "module://none", "COLUMNS": "20"}
    mine |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    shutil.copy(user / "matplotlibrc", project)
    result = run(project, "double", "--quiet", **mine, TMPDIR="/no/such/folder", TZ="Asia/Kathmandu", FORCE_COLOR="1")
    assert result.returncode == 0, result.stderr
    assert (project / "reports" / "double.ipynb").read_bytes() == report
    assert (project / "word.txt").read_text(encoding="utf-8") == "洪水"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_stage_is_gone(project, number):
    """What a SIGKILL leaves goes with the next run."""
    waiting = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(0 if os.path.exists('go') else 60)"
    write_stage(project, "double", PARAMETERS, waiting)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, project / "tools" / "stage.py", "double"], cwd=project, env=environment)
    deadline = time.time() + 60
    while not (project / "pid").exists() or not (project / "pid").read_text():
        assert time.time() < deadline
        time.sleep(0.1)
    cells = psutil.Process(int((project / "pid").read_text()))
    process.send_signal(number)
    assert process.wait(timeout=30) != 0
    while cells.is_running() and cells.status() != psutil.STATUS_ZOMBIE:
        assert time.time() < deadline + 30, "the notebook is still running"
        time.sleep(0.1)
    left = list((project / "reports").iterdir())
    assert bool(left) == (number == signal.SIGKILL)
    if left:
        (project / "go").touch()
        assert run(project, "double").returncode == 0
        assert [path.name for path in (project / "reports").iterdir()] == ["double.ipynb"]


def test_a_stage_ends_with_the_program_that_runs_it_for_dvc(project):
    write_stage(project, "double", PARAMETERS, "import os, time\nopen('pid', 'w').write('here')\ntime.sleep(60)")
    program = f"import subprocess, sys\nsubprocess.run([{sys.executable!r}, 'tools/stage.py', 'double'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "double"}
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=project, env=environment, stderr=subprocess.PIPE)
    deadline = time.time() + 60
    while not (project / "pid").exists():
        assert time.time() < deadline
        time.sleep(0.1)
    parent.kill()
    parent.stderr.read()  # until nobody has it open any more
    assert time.time() < deadline and list((project / "reports").iterdir()) == []


PARENT = "psutil.Process().parent().cmdline()"  # of a stage: its keeper, a fork of what is ready, or who started it
READY = """import os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal, wherever tests are started
sys.path.insert(0, "tools")
import ready
lifeline = ready.start(os.environ)
os.environ |= dict(pair.split("=") for pair in sys.argv[2:])
for stage in sys.argv[1].split():
    print(subprocess.call([sys.executable, "tools/stage.py", stage, "--quiet"]), flush=True)
"""


def start_ready(project, stages, *variables):
    """Begin stages as DVC does below `make repro`: with a process that is ready. Their statuses are printed."""
    command = [sys.executable, "-c", READY, stages, "DVC_STAGE=double", *variables]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARK": str(project)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen(command, cwd=project, encoding="utf-8", env=environment, **streams)


def marked(project):
    """Living processes of a project."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("MARK") == str(project) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def until(true, seconds=60):
    """Wait until something is so."""
    deadline = time.time() + seconds
    while not (found := true()):
        assert time.time() < deadline
        time.sleep(0.1)
    return found


def test_a_forked_stage_gives_the_same_bytes_and_reads_the_project_anew(project):
    """Tables as wide, figures, what is printed; of a module that changed between two stages, what is there then."""
    (project / "tools" / "helper.py").write_text("value = 1")
    drawn = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    wide = "import pandas as pd\npd.DataFrame([{f'column number {i}': i for i in range(30)}])"
    told = "import os, sys, psutil\nprint(sys.argv[1:], os.getcwd() == sys.path[0].removesuffix('/tools'))"
    noted = f"print({PARENT}[1], helper.value, file=open('notes', 'a'))"
    write_stage(
        project, "double", PARAMETERS, READ, told, drawn, wide,
        f"import helper\n{noted}\nopen('tools/helper.py', 'w').write('value = 22');",
    )  # fmt: skip
    ready = start_ready(project, "double double")
    said, errors = ready.communicate()
    assert said == "['double', '--quiet'] True\n0\n" * 2 and errors == ""
    report = (project / "reports" / "double.ipynb").read_bytes()
    assert b"image/png" in report and b"column number 29" in report and b"..." in report
    assert run(project, "double", "--quiet").returncode == 0
    assert (project / "reports" / "double.ipynb").read_bytes() == report
    lines = [line.split() for line in (project / "notes").read_text().splitlines()]
    assert [value for *_, value in lines] == ["1", "22", "22"]
    assert [Path(words[0]).name == "ready.py" for words in lines] == [True, True, False]
    until(lambda: not marked(project))


def test_a_forked_stage_ends_as_it_would_alone(project):
    write_stage(project, "fails", PARAMETERS, "1 / 0")
    write_stage(project, "dies", PARAMETERS, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    write_stage(project, "leaves", PARAMETERS, "import sys\nsys.exit(7)")
    said, errors = start_ready(project, "fails dies leaves absent").communicate()
    assert said.split() == ["1", "-9", "7", "2"]
    assert "ZeroDivisionError" in errors and "no stage 'absent'" in errors


def test_another_environment_is_no_forks(project):
    """Where a library might have read a variable when it was loaded, a stage runs by itself."""
    write_stage(
        project, "double", PARAMETERS, f"import os, psutil\nprint({PARENT}[1], os.environ.get('OMP_NUM_THREADS'))"
    )
    said, errors = start_ready(project, "double", "OMP_NUM_THREADS=3").communicate()
    assert said == "-c 3\n0\n" and errors == ""


WAITING = "import os, time\nopen(f'{os.getppid()}.keeper', 'w')\ntime.sleep(60)"


@pytest.mark.parametrize("last", ["^C", "starter killed"])
def test_a_forked_stage_ends_with_those_who_wait_for_it(project, last):
    """Whoever of them is killed: nothing lives on and nothing is left over."""
    write_stage(project, "double", PARAMETERS, WAITING)
    several = {} if last == "^C" else {"launcher": "143", "launcher at once": "-9", "keeper": "-9"}
    ready = start_ready(project, "double double double double")
    for who in [*several, last]:
        (mark,) = until(lambda: list(project.glob("*.keeper")))
        mark.unlink()
        keeper = psutil.Process(int(mark.stem))
        (launcher,) = [found for found in psutil.Process(ready.pid).children() if "tools/stage.py" in found.cmdline()]
        if who == "^C":
            os.killpg(ready.pid, signal.SIGINT)
        else:
            killed = {"keeper": keeper, "starter killed": psutil.Process(ready.pid)}.get(who, launcher)
            killed.send_signal(signal.SIGTERM if who == "launcher" else signal.SIGKILL)
    said, errors = ready.communicate()
    assert said.split() == [*several.values()] and errors.count("stage double: interrupted") >= len(several)
    until(lambda: not marked(project), 5)
    assert list((project / "reports").iterdir()) == []


def test_where_what_was_ready_has_died_a_stage_goes_on_and_the_next_runs_by_itself(project):
    text = f"import os, psutil, time\nprint({PARENT}[1] == '-c')\nopen('here', 'w')\ntime.sleep(2)"
    write_stage(project, "double", PARAMETERS, text)
    running = start_ready(project, "double double")
    until((project / "here").exists)
    (server,) = [found for found in psutil.Process(running.pid).children() if "ready.py" in found.cmdline()[1]]
    server.kill()
    said, errors = running.communicate()
    assert said == "False\n0\nTrue\n0\n" and errors == ""


def test_a_stage_whose_starter_is_gone_does_not_begin(project):
    """Its parent may have ended before it could ask whose child it is."""
    write_stage(project, "double", PARAMETERS, "open('ran', 'w')")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    result = run(project, "double", DVC_STAGE="double", MMDISASTER_READY=f"00000 {gone.pid}")
    assert result.returncode == 143 and not (project / "ran").exists()
    result = run(project, "double", DVC_STAGE="double", MMDISASTER_READY=f"00000 {os.getpid()}")  # nobody listens
    assert result.returncode == 0 and (project / "ran").exists()
