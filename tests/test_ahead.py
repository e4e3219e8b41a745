"""Stages go to workers ahead of DVC, in a small project of two parts; DVC then runs nothing."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import ahead
import pytest
from conftest import ROOT

from mmdisaster.cluster.scheduler import ClusterError, scheduler

distributed = pytest.importorskip("distributed", reason="the extra `distributed` isn't installed")

PIPELINE = """
stages:
  first:
    cmd: python -c "open('data.txt', 'w').write('7')"
    outs: [data.txt]
"""
AUDIT = """
stages:
  trials:
    matrix: {seed: [1, 2, 3, 4, 5]}
    cmd: python run.py ${item.seed} out-${item.seed}.txt
    deps: [run.py, ../data.txt]
    outs: ['out-${item.seed}.txt']
  kept:
    cmd: python run.py kept.txt
    deps: [run.py, ../data.txt]
    outs:
      - kept.txt:
          persist: true
  report:
    cmd: python run.py out-1.txt out-2.txt out-3.txt out-4.txt out-5.txt report.txt
    deps: [run.py, out-1.txt, out-2.txt, out-3.txt, out-4.txt, out-5.txt]
    outs:
      - report.txt:
          cache: false
"""
RUN = """
import sys, time
from pathlib import Path
*given, out = sys.argv[1:]
with open("NOTES", "a") as file:
    file.write(f"{out}\\n")
time.sleep(0.5)
if Path("NOTES.fails").exists() and out == "out-3.txt":
    sys.exit("the third can't")
number = int(Path("../data.txt").read_text()) * int(Path("../../beside/factor.txt").read_text())
parts = [Path(name).read_text() if Path(name).exists() else str(number * int(name)) for name in given]
Path(out).write_text(" ".join(parts))
"""


def dvc(folder, *words):
    return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True, check=True)


@pytest.fixture
def project(tmp_path):
    """A project like ours, whose pipeline ran and whose audit didn't, and a file that notes runs of the audit."""
    root, notes = tmp_path / "project", tmp_path / "runs"
    (root / "audit").mkdir(parents=True)
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "ahead.py", root / "tools")
    for place, text in [(root, PIPELINE), (root / "audit", AUDIT)]:
        dvc(place, "init", "--no-scm", "-q")
        (place / "dvc.yaml").write_text(text)
    (root / "audit" / "run.py").write_text(RUN.replace("NOTES", str(notes)))
    notes.touch()
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "factor.txt").write_text("1")
    dvc(root, "repro", "-q")
    return root, notes


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def finish(root):
    """What `dvc repro` says afterwards, and the report."""
    said = dvc(root / "audit", "repro").stdout
    return said, (root / "audit" / "report.txt").read_text()


def test_dvc_then_finds_every_run(project, cluster):
    root, notes = project
    with scheduler(cluster.scheduler_address) as client:
        assert len(ahead.run_ahead(client, root, verbose=False)) == 5
        assert sorted(notes.read_text().split()) == [f"out-{seed}.txt" for seed in range(1, 6)]
        said, report = finish(root)
        assert said.count("is cached - skipping run") == 5 and said.count("Running stage") == 2, said
        assert report == "7 14 21 28 35"
        assert sorted(notes.read_text().split()[5:]) == ["kept.txt", "report.txt"], "DVC notes no run of these"
        assert ahead.run_ahead(client, root, verbose=False) == [], "all is done"


def test_a_target_brings_what_it_depends_on_and_no_more(project):
    root, _ = project
    assert list(ahead.pending(root / "audit", ["trials@2"])) == ["trials@2"]
    assert sorted(ahead.pending(root / "audit", ["report"])) == [f"trials@{seed}" for seed in range(1, 6)]


def test_a_worker_that_is_killed_costs_its_stages_alone(project, cluster):
    root, notes = project

    def kill(client):
        end = time.monotonic() + 120
        while len(notes.read_text().split()) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    with scheduler(cluster.scheduler_address) as client:
        killer = threading.Thread(target=kill, args=(client,))
        killer.start()
        ahead.run_ahead(client, root, verbose=False)
        killer.join()
    assert finish(root)[1] == "7 14 21 28 35" and len(notes.read_text().split()) <= 9


def test_a_stage_that_fails_is_named_and_the_others_are_kept(project, cluster):
    root, notes = project
    fails = notes.with_name("runs.fails")
    fails.touch()
    with scheduler(cluster.scheduler_address) as client:
        with pytest.raises(
            ClusterError, match=r"stage trials@3 failed on worker tcp://[\d.:]+:\n(.*\n)*.*the third can't"
        ):
            ahead.run_ahead(client, root, verbose=False)
        fails.unlink()
        before = set(notes.read_text().split())
        ahead.run_ahead(client, root, verbose=False)
    assert finish(root)[1] == "7 14 21 28 35"
    again = [name for name in notes.read_text().split() if name in before - {"out-3.txt"}]
    assert len(again) <= len(before) + 2, "at most what was running then is run again"
