"""What several tests share: the project's files, and a small copy of the whole project to run."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import ready
import yaml
from own_corpus import build_corpus

from mmdisaster.paper.tables import PAPER_TABLE_ONE

ROOT = Path(__file__).resolve().parents[1]

SMALL = {  # the same pipeline on 60 clips
    "corpus": {
        "clips": 60,
        "videos": 20,
        "calibration_clips": 6,
        "manifest": "simulated",
        "concepts": [*PAPER_TABLE_ONE],
        "watched": "mmdisaster/__init__.py",
    },
    "modalities": {
        "visual": {"frames": 2, "size": 75, "weights": {"frames": 2, "size": 75}},
        "text": {"weights": {"epochs": 3}},
    },
    "temporal": {"max_epochs": 2},
    "baseline": {"max_epochs": 2},
    "fusion": {"n_trees": 20},
    "evaluate": {"resamples": 50},
    "audit": {"clips": [290, 330], "tables": 20},
    "comparison": {"resamples": 50},
    "control": {"clips": 200, "features": 24, "n_trees": 5},
    "distillation": {"seeds": [2019, 2020], "k": 4, "share": 0.5, "components": 4, "max_epochs": 1, "seconds": 0.5},
}


def merge(params, changes):
    """Change nested params in place."""
    for name, value in changes.items():
        if isinstance(value, dict):
            merge(params[name], value)
        else:
            params[name] = value


PRIVATE = ["tmp", "cache", "config.local"]  # of DVC, which git doesn't see


LIFELINES = []  # of processes that are ready for stages, until the tests end


def copy_project(target):
    """A fresh copy of the project's own files, with DVC ready and the small params."""
    for name in ["nbs", "mmdisaster", "tools"]:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    shutil.copytree(
        ROOT / "audit", target / "audit", ignore=shutil.ignore_patterns("dvc.lock", ".dvc", "data", "reports")
    )
    for name in ["dvc.yaml", ".dvcignore", "README.md", "Makefile"]:
        shutil.copy(ROOT / name, target / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    merge(params, SMALL)
    (target / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for project in (ROOT, ROOT / "audit"):
        shutil.copytree(project / ".dvc", target / project.relative_to(ROOT) / ".dvc", ignore=lambda *_: PRIVATE)
        (target / project.relative_to(ROOT) / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    return target


def environment(folder):
    """Programs of this environment, against the copy's own library."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return os.environ | own | {"PYTHONDONTWRITEBYTECODE": ""}  # modules are compiled once, not by each of many stages


def command(folder, *arguments, check=True):
    """Run a program in a copy of the project and wait for it."""
    result = subprocess.run(arguments, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert not check or result.returncode == 0, f"{arguments}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


def start(folder, *arguments, **options):
    """Start a program in a copy of the project; what it prints goes to the copy's log."""
    log = (folder / "log").open("a")
    options = {"env": environment(folder)} | options
    return subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log, **options)


@cache
def prepared(folder):
    """The environment of stages that run beside others: on one core, forked from a process that has the libraries."""
    stages = environment(folder) | {"DVC_STAGE": "of a test", "LOKY_MAX_CPU_COUNT": "1"}
    LIFELINES.append(ready.start(stages))
    return stages


def run_together(folder, *stages):
    """Run stages that don't depend on each other at the same time, as DVC runs them in `make repro`."""
    programs = [("python", "tools/stage.py", *stage) for stage in stages]
    processes = [start(folder, *program, env=prepared(folder)) for program in programs]
    for process in processes:
        assert process.wait() == 0, (folder / "log").read_text()[-4000:]


def read_notebook(path):
    return json.loads(Path(path).read_text())


MAKE = ["make", "-o", ".venv/installed"]  # what is installed is that already
RUNS = {
    "first_run": ["python", "tools/repro.py"],
    "own_run": [*MAKE, "repro", "MANIFEST=own/clips.csv"],
}


SLOW = {  # files that take twenty seconds or more, and single tests; `make check` leaves them out
    "test_lessons",
    "test_book",
    "test_readme",
    "test_cli",
    "test_models",
    "test_stage_launcher",
    "test_media",
    "test_inspection",
    "test_pretrained",
    "test_distillation",
    "test_other_modalities",
    "test_cluster",
    "test_ahead",
    "test_bringing_manifests",
    "test_bad_params_stop_a_stage",
    "test_tables_of_a_meaning_that_counts_do_not_decide_fit_none",
}


FIRST = ["test_pipeline", "test_own_corpus", "test_other_modalities", "test_lessons"]  # files that take longest


def pytest_collection_modifyitems(items):
    """Mark what is slow. What takes longest begins first: `make test` deals whole files out to processes."""
    for item in items:
        if {item.path.stem, item.originalname} & SLOW or set(RUNS) & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """A clean run of the whole small pipeline."""
    folder = copy_project(tmp_path_factory.mktemp("first_run"))
    command(folder, *RUNS["first_run"])
    return folder


@pytest.fixture(scope="session")
def own_run(tmp_path_factory):
    """`make repro MANIFEST=…` on clips of somebody else."""
    folder = copy_project(tmp_path_factory.mktemp("own_run"))
    build_corpus(folder / "own")
    command(folder, *RUNS["own_run"])
    return folder
