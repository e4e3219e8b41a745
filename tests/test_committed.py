"""What is committed fits together: every number of results/ comes from the runs that the two locks record."""

import hashlib
import json

import pytest
import yaml
from conftest import ROOT

from mmdisaster.pages.provenance import describe_run

PLACES = {"root": ROOT, "audit": ROOT / "audit"}
LOCKS = {name: yaml.safe_load((folder / "dvc.lock").read_text())["stages"] for name, folder in PLACES.items()}
GRAPHS = {name: yaml.safe_load((folder / "dvc.yaml").read_text())["stages"] for name, folder in PLACES.items()}


def entries(project, kind):
    """(stage, path from the root, digest) of all deps or outs that a lock records."""
    for stage, spec in LOCKS[project].items():
        for entry in spec.get(kind, []):
            path = (PLACES[project] / entry["path"]).resolve()
            yield stage, path.relative_to(ROOT.resolve()).as_posix(), entry["md5"]


def stages_of(graph):
    """Names of a graph's stages, one for each part of a matrix."""
    for name, spec in graph.items():
        parts = [""]
        for values in spec.get("matrix", {}).values():
            parts = [f"{part}-{value}" if part else f"{value}" for part in parts for value in values]
        yield from (f"{name}@{part}" if part else name for part in parts)


@pytest.mark.parametrize("project", PLACES)
def test_a_lock_has_the_stages_of_its_graph(project):
    assert {*LOCKS[project]} == {*stages_of(GRAPHS[project])}


@pytest.mark.parametrize("project", PLACES)
def test_committed_files_are_what_the_locks_record(project):
    made = {path: digest for _, path, digest in entries(project, "outs") if path.startswith("results/")}
    assert len(made) > 15
    for path, digest in made.items():
        if not digest.endswith(".dir"):
            assert hashlib.md5((ROOT / path).read_bytes(), usedforsecurity=False).hexdigest() == digest, path


@pytest.mark.parametrize("project", PLACES)
def test_every_stage_read_what_the_other_stages_wrote(project):
    """A variant that was computed from other trials than those that it is compared with would be found here."""
    written = {path: (stage, digest) for name in ("root", project) for stage, path, digest in entries(name, "outs")}
    for stage, path, digest in entries(project, "deps"):
        if path in written:
            maker, now = written[path]
            assert digest == now, f"{stage} was computed from another {path} than {maker} wrote"


def test_pages_rest_on_one_corpus():
    """Notes under the audit's pages name the corpus, the split and the weights of `evaluate.json`."""
    run = describe_run(json.loads((ROOT / "results/evaluate.json").read_text())["provenance"])
    for name in ["comparison", "leakage", "sensitivity", "grid", "missing", "tuning", "costs", "distillation"]:
        note = json.loads((ROOT / f"results/{name}.json").read_text())["note"]
        assert run and note.startswith(run), name
