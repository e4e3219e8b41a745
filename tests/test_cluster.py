"""Extraction by real processes, some of which are killed: the store is that of a single process, byte for byte."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
from conftest import ROOT

from mmdisaster.cluster.scheduler import ClusterError, check_workers, scheduler
from mmdisaster.core import digest_file
from mmdisaster.data.manifest import read_manifest
from mmdisaster.media.files import MEDIA_LIMITS
from mmdisaster.settings.reading import read_settings
from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus
from mmdisaster.static.extraction import ExtractionError, extract
from mmdisaster.steps.static import get_weights

distributed = pytest.importorskip("distributed", reason="the extra `distributed` isn't installed")

from mmdisaster.cluster import extraction  # noqa: E402
from mmdisaster.cluster.extraction import Recipe, extract_ahead, extract_with_workers, parts_folder  # noqa: E402

COUNTS = {"Flood/Storm": 60, "Damage": 40}
SHARD = 4  # clips per shard, so that there are many groups


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A manifest of a hundred clips and its folder; two rows are the same clip."""
    settings = SimulationSettings(clips=99, videos=30, counts=COUNTS, seconds=2.0, seed=7)
    path = simulate_corpus(tmp_path_factory.mktemp("corpus"), settings, workers=1)
    manifest = read_manifest(path, [*COUNTS])
    twin = manifest.iloc[[3]].assign(clip_id="twin")
    return pd.concat([manifest, twin], ignore_index=True), path.parent


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and four worker processes, each of which is started again when it dies."""
    with distributed.LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def recipe(corpus, tmp_path_factory):
    """A recipe for SoundNet's features, by the share of clips that may fail."""
    folder = tmp_path_factory.mktemp("weights")
    source = read_settings({"modalities": {"sound": {"extractor": "soundnet"}}}).modalities["sound"]
    path = get_weights("sound", source, corpus[1], folder / "sound.safetensors")

    def make(max_failures=0.0):
        return Recipe(
            "sound",
            source.model_copy(update={"max_failures": max_failures}),
            str(path),
            digest_file(path),
            MEDIA_LIMITS,
        )

    return make


def files(store):
    return {path.name: digest_file(path) for path in store.iterdir() if path.suffix in {".safetensors", ".json"}}


def parts(store):
    return sorted(path.parent for path in parts_folder(store).glob("*/index.json"))


def kill_two(client, store, killed):
    """Two of the workers, as soon as some parts are there and others aren't."""
    processes = [*client.run(os.getpid).values()]
    end = time.monotonic() + 120
    while not parts(store) and time.monotonic() < end:
        time.sleep(0.01)
    for process in processes[:2]:
        os.kill(process, signal.SIGKILL)
        killed.append(len(parts(store)))


def test_the_store_is_the_same_with_two_of_four_workers_killed(corpus, cluster, recipe, tmp_path):
    manifest, root = corpus
    made = recipe().make()
    extract(manifest, root, made, tmp_path / "one", shard_clips=SHARD)
    killed = []
    with scheduler(cluster.scheduler_address) as client:
        killer = threading.Thread(target=kill_two, args=(client, tmp_path / "there", killed))
        killer.start()
        extract_ahead(client, recipe(), manifest, root, tmp_path / "there", shard_clips=SHARD)
        killer.join()
    assert len(killed) == 2 and 0 < killed[0] and killed[-1] < 25, "killed before the first group or after the last"
    report = extract(manifest, root, made, tmp_path / "there", SHARD, others=parts(tmp_path / "there"))
    assert report.computed == 0 and files(tmp_path / "there") == files(tmp_path / "one")
    assert len(files(tmp_path / "one")) == 26


def damaged_copy(corpus, folder, numbers):
    """The corpus with some media cut off."""
    manifest, root = corpus
    (folder / "media").mkdir(parents=True)
    for path in (root / "media").iterdir():
        os.link(path, folder / "media" / path.name)
    for name in dict.fromkeys(manifest["media"].iloc[numbers]):
        (folder / name).unlink()
        (folder / name).write_bytes((root / name).read_bytes()[:200])
    return manifest, folder


def profiled(dask_worker):
    return "profile" in dask_worker.periodic_callbacks


def later(dask_scheduler):
    """Plugins of workers that are yet to start."""
    return [*dask_scheduler.worker_plugins]


def test_workers_take_no_samples_of_their_threads(cluster):
    """Which locks up where a thread ends while FFmpeg's frames are freed, in CPython 3.11."""
    with distributed.Client(cluster) as client:
        check_workers(client)
        assert not any(client.run(profiled).values())
        assert "mmdisaster-unprofiled" in client.run_on_scheduler(later)


def test_failures_are_counted_over_all_workers(corpus, cluster, recipe, tmp_path):
    manifest, root = damaged_copy(corpus, tmp_path / "corpus", [3, 20, 55])
    few, many = recipe(0.01), recipe(0.2)
    with pytest.raises(ExtractionError) as expected:
        extract(manifest, root, few.make(), tmp_path / "one", SHARD, max_failures=0.01)
    with scheduler(cluster.scheduler_address) as client:
        with pytest.raises(ExtractionError) as found:
            extract_ahead(client, few, manifest, root, tmp_path / "there", shard_clips=SHARD)
        assert found.value.failures == expected.value.failures and str(found.value) == str(expected.value)
        assert {failure["clip_id"] for failure in found.value.failures} >= {"twin"}, "the same clip's other row"
        extract_ahead(client, many, manifest, root, tmp_path / "there", shard_clips=SHARD)
    alone = extract(manifest, root, many.make(), tmp_path / "one", SHARD, max_failures=0.2)
    there = extract(manifest, root, many.make(), tmp_path / "there", SHARD, 2, 0.2, others=parts(tmp_path / "there"))
    assert there.computed == 0 and there.failures == alone.failures
    assert files(tmp_path / "there") == files(tmp_path / "one")


def test_what_was_computed_is_used_without_a_cluster_as_well(corpus, cluster, recipe, tmp_path):
    manifest, root = corpus
    with scheduler(cluster.scheduler_address) as client:
        extract_ahead(client, recipe(), manifest.head(40), root, tmp_path / "store", shard_clips=SHARD)
    assert parts(tmp_path / "store")
    given = recipe()
    report = extract_with_workers("sound", manifest, root, given.weights, given.source, tmp_path / "store")
    assert report.clips == 100 and report.computed == 99 - 40
    assert not parts_folder(tmp_path / "store").exists(), "nothing is left over"


def test_a_group_that_kills_its_workers_is_given_up(corpus, cluster, recipe, tmp_path, monkeypatch):
    manifest, root = corpus
    monkeypatch.setattr(extraction, "compute_part", die)
    given = recipe(), manifest.head(4), root, tmp_path / "store"
    with scheduler(cluster.scheduler_address) as client, pytest.raises(ClusterError, match="the cluster gave up: "):
        extract_ahead(client, *given, shard_clips=SHARD)


def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_differ_or_see_other_files_are_named(cluster, tmp_path):
    with scheduler(cluster.scheduler_address) as client:
        with pytest.raises(ClusterError, match=r"worker tcp://[\d.:]+: has no-such-library none"):
            check_workers_as_if(client, {"no-such-library": "1.0"})
        with pytest.raises(ClusterError, match=r"worker tcp://[\d.:]+: /mnt/none: there is no such folder"):
            check_workers(client, [], {}, ["/mnt/none"])
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"w")
        with pytest.raises(ClusterError, match=r"weights.safetensors: is another file here, its SHA-256 must be 0000"):
            check_workers(client, [], {str(weights): "0" * 64})


def check_workers_as_if(client, versions):
    """As if this process had some libraries that workers don't have."""
    from mmdisaster.cluster import scheduler as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "differences", lambda mine, theirs, d=module.differences: d(mine | versions, theirs))
        check_workers(client)


def command(*words, **env):
    line = [sys.executable, "-m", "mmdisaster", *map(str, words)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)


def test_the_command_takes_a_scheduler_and_says_where_its_dashboard_is(corpus, cluster, tmp_path):
    manifest, root = corpus
    few = "--set", 'modalities={"sound": {"extractor": "soundnet"}}', "--set", "corpus.calibration_clips=3"
    given = "extract", root / "manifest.csv", *few, "--out"
    alone = command(*given, tmp_path / "one")
    there = command(*given, tmp_path / "there", "--scheduler", cluster.scheduler_address)
    assert alone.returncode == there.returncode == 0, alone.stderr + there.stderr
    assert re.search(r"^4 workers; dashboard: http://[\d.]+:\d+/status$", there.stderr, re.MULTILINE)
    assert there.stdout.replace("there", "one") == alone.stdout
    (one,), (two,) = ([*(tmp_path / name / "features").iterdir()] for name in ("one", "there"))
    assert files(one) == files(two) and one.name == two.name


def test_a_scheduler_that_is_not_there_is_one_line(corpus, tmp_path):
    said = command(
        "extract", corpus[1] / "manifest.csv", "--out", tmp_path / "x", MMDISASTER_SCHEDULER="tcp://127.0.0.1:9"
    )
    assert said.returncode == 2 and said.stderr.startswith("mmdisaster: scheduler tcp://127.0.0.1:9: can't be reached")
    assert said.stderr.count("\n") == 1
