"""What several tests share: the project's files, and a small copy of the whole project to run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

SMALL = {  # the same pipeline on 60 clips
    "corpus": {"clips": 60, "videos": 20, "calibration_clips": 6},
    "weights": {"visual": {"frames": 2, "size": 75}},
    "features": {"visual": {"frames": 2, "size": 75}},
    "glove": {"epochs": 3},
    "temporal": {"max_epochs": 2},
    "baseline": {"max_epochs": 2},
    "fuse": {"n_trees": 20},
    "evaluate": {"resamples": 50},
}


def merge(params, changes):
    """Change nested params in place."""
    for name, value in changes.items():
        if isinstance(value, dict):
            merge(params[name], value)
        else:
            params[name] = value


def copy_project(target):
    """A fresh copy of the project's own files, with DVC ready and the small params."""
    for name in ["nbs", "mmdisaster"]:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ["dvc.yaml", "README.md"]:
        shutil.copy(ROOT / name, target / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    merge(params, SMALL)
    (target / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command(target, "dvc", "init", "--no-scm", "-q")
    command(target, "dvc", "config", "core.analytics", "false")
    return target


def environment(folder):
    """Programs of this environment, against the copy's own library."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def command(folder, *arguments, check=True):
    """Run a program in a copy of the project and wait for it."""
    result = subprocess.run(arguments, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert not check or result.returncode == 0, f"{arguments}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


def start(folder, *arguments, **options):
    """Start a program in a copy of the project; what it prints goes to the copy's log."""
    log = (folder / "log").open("a")
    return subprocess.Popen(arguments, cwd=folder, env=environment(folder), stdout=log, stderr=log, **options)


def read_notebook(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory):
    """Two independent clean runs of the small pipeline, side by side: one whole, one up to fusion and late fusion."""
    folders = [copy_project(tmp_path_factory.mktemp(name)) for name in ["first", "second"]]
    targets = [[], ["fuse", "baseline@late"]]
    processes = [start(folder, "dvc", "repro", *names) for folder, names in zip(folders, targets, strict=True)]
    for process, folder in zip(processes, folders, strict=True):
        assert process.wait() == 0, (folder / "log").read_text()[-4000:]
    return folders
