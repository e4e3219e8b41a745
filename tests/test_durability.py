"""A kill or a power cut at any moment leaves the old or the new; damage is noticed; nobody waits for the dead."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pandas as pd
import pytest
from conftest import ROOT, environment
from letters import Letters

from mmdisaster import core
from mmdisaster.cli import error_words
from mmdisaster.core import atomic_path, restore, save_arrays, save_json
from mmdisaster.data.store import StoreError, load_index, read_presence, read_store, sealed
from mmdisaster.runs import alone, clear_leftovers, scratch_folder
from mmdisaster.simulate import clips as simulation
from mmdisaster.static import extractors
from mmdisaster.static.extraction import extract, store_name

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks the system through /proc, or forks")


# A power cut and a kill


@LINUX
@pytest.mark.parametrize("kind", ["file", "folder", "replaced folder"])
def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch, kind):
    events, fsync, replace, exchange = [], os.fsync, os.replace, core._exchange
    place = tmp_path / "new" / "x"
    if kind == "replaced folder":
        place.mkdir(parents=True)

    def name(path):
        return str(path).replace(str(tmp_path), "").replace("/new/.x.tmp", "T") or "/"

    def flushed(file):
        events.append(name(os.readlink(f"/proc/self/fd/{file}")))
        fsync(file)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda one, two: (events.append("renamed"), replace(one, two)))
    monkeypatch.setattr(core, "_exchange", lambda one, two: (events.append("renamed"), exchange(one, two))[1])
    with atomic_path(place) as temporary:
        if kind == "file":
            temporary.write_text("whole")
        else:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / "a").write_text("whole")
    made = [] if kind == "replaced folder" else ["/"]
    inside = ["T"] if kind == "file" else ["T/inner/a", "T/inner", "T"]
    assert events == [*made, *inside, "renamed", "/new"]


def killed_at(step, work):
    """Do work in a process that is killed just before its `step`-th change of the disk; whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = [step]

    def counting(call):
        def counted(*arguments, **named):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for name in ["replace", "fsync", "unlink", "rmdir", "mkdir"]:
        setattr(os, name, counting(getattr(os, name)))
    core._exchange = counting(core._exchange)
    work()
    os._exit(0)


@LINUX
@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_that_is_replaced_is_there_whenever_the_process_is_killed(tmp_path, monkeypatch, at_once):
    """Also where folders can't be exchanged: then the next process puts the old one back."""
    if not at_once:
        monkeypatch.setattr(core, "_exchange", lambda *_: False)
    place = tmp_path / "model"

    def write(version):
        with atomic_path(place) as temporary:
            temporary.mkdir()
            for name in "ab":
                (temporary / name).write_text(version)

    def found():
        return {path.name: path.read_text() for path in place.iterdir()}

    write("0")
    seen, step = set(), 0
    while True:
        step += 1
        before, now = str(step - 1), str(step)
        if not killed_at(step, lambda now=now: write(now)):
            break
        restore(place)
        assert found() in ({name: before for name in "ab"}, {name: now for name in "ab"}), step
        seen.add(found()["a"] == now)
        write(now)
        assert os.listdir(tmp_path) == ["model"], step  # what the killed process left is gone
    assert step > 8 and seen == {True, False}


@LINUX
def test_a_file_that_is_replaced_is_whole_whenever_the_process_is_killed(tmp_path):
    save_json(tmp_path / "a.json", "old")
    step = 1
    while killed_at(step, lambda: save_json(tmp_path / "a.json", "new")):
        assert (tmp_path / "a.json").read_text() in ('"old"\n', '"new"\n')
        step += 1
    assert step > 3 and os.listdir(tmp_path) == ["a.json"]


@LINUX
def test_what_a_killed_process_left_goes_and_what_a_living_one_needs_stays(tmp_path):
    def work():
        with scratch_folder(tmp_path / "weights"), atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(10**6, work)
    assert len(os.listdir(tmp_path)) == 4  # two temporary ones and their locks
    with atomic_path(tmp_path / "b.txt") as temporary:
        temporary.write_text("whole")
        assert len(clear_leftovers(tmp_path)) == 4
    assert os.listdir(tmp_path) == ["b.txt"]


# Damage


def corpus(*texts):
    return pd.DataFrame({"clip_id": [f"c{i}" for i in range(len(texts))], "media": "m", "text": texts})


def flip(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def zero(content):
    return content[:-8] + bytes(8)


def rename_clip(content):
    """Another key for the first clip of a shard."""
    start = content.index(b'\\"keys\\": [\\"') + len(b'\\"keys\\": [\\"')
    return content[:start] + bytes(reversed(content[start : start + 32])) + content[start + 32 :]


DAMAGE = {"empty": lambda content: b"", "half": lambda content: content[: len(content) // 2], "zeros": zero}
DAMAGE |= {"bit": flip, "noise": lambda content: b"\xff" * 200, "another clip": rename_clip, "gone": None}


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "features" / "text"
    extract(corpus("flood", "storm", "rain", "wind"), tmp_path, Letters(), folder, shard_clips=2)
    return folder


def shard_of(store, clip_id):
    index = load_index(store)
    return store / index["shards"][index["in_shard"][index["clip_ids"].index(clip_id)]]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named_and_computed_again(store, tmp_path, damage, capsys):
    path = shard_of(store, "c1")
    whole = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(DAMAGE[damage](whole))
    assert damage == "gone" or path.read_bytes() != whole
    with pytest.raises(StoreError, match=re.escape(str(path))) as caught:
        read_store(store)
    assert "dvc repro --force --single-item features@text" in str(caught.value) and "\n" not in str(caught.value)
    given = corpus("flood", "storm", "rain", "wind"), tmp_path, Letters(), store
    assert extract(*given, shard_clips=2, verbose=True).computed == 2
    assert (f"{path}: is " in capsys.readouterr().err) == (damage != "gone")
    assert path.read_bytes() == whole and len(read_store(store)[0]) == 4


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"clip_ids": []}', "\x00" * 99])
def test_a_damaged_index_is_named(store, tmp_path, content):
    path = store / "index.json"
    whole = path.read_text()
    for wrong in (content, whole.replace('"c2"', '"c9"')):
        path.write_text(wrong)
        for read in (read_store, read_presence, load_index):
            with pytest.raises(StoreError, match=re.escape(f"{path}: is damaged")):
                read(store)
    assert extract(corpus("flood", "storm", "rain", "wind"), tmp_path, Letters(), store, shard_clips=2).computed == 0
    assert path.read_text() == whole


def test_an_index_of_another_run_is_no_index(store, tmp_path):
    """One that was copied beside other shards, and one of an earlier version."""
    folder = tmp_path / "features" / "words"
    extract(corpus("hail"), tmp_path, Letters(), folder)
    index = load_index(folder) | {"shards": load_index(store)["shards"][:1]}
    shard_of(store, "c0").rename(folder / index["shards"][0])
    save_json(folder / "index.json", sealed({name: value for name, value in index.items() if name != "digest"}))
    with pytest.raises(StoreError, match="index.json: doesn't fit its shards"):
        read_store(folder)
    earlier = {"modality": "text", "dim": 1, "clip_ids": ["c0"], "lengths": [4], "shards": []}
    save_json(folder / "index.json", sealed(earlier))
    with pytest.raises(StoreError, match="index.json: is of an earlier version"):
        read_store(folder)


def test_a_run_that_was_killed_before_its_index_leaves_the_last_one(store, tmp_path):
    """Its shards are beside those of the index, and the next run has them."""
    index = (store / "index.json").read_bytes()
    more = corpus("flood", "storm", "rain", "wind", "hail", "snow")
    assert extract(more, tmp_path, Letters(), store, shard_clips=2).computed == 2
    (store / "index.json").write_bytes(index)
    assert read_store(store)[0] == ["c0", "c1", "c2", "c3"]
    assert extract(more, tmp_path, Letters(), store, shard_clips=2).computed == 0
    assert read_store(store)[1][5].tolist() == [[ord("s")]] * 4


def test_shards_of_earlier_versions_are_computed_again(store, tmp_path):
    path = shard_of(store, "c0")
    arrays, header = core.load_arrays(path), core.load_provenance(path)
    save_arrays(path, arrays, {name: value for name, value in header.items() if name != "digest"})
    assert extract(corpus("flood", "storm", "rain", "wind"), tmp_path, Letters(), store, shard_clips=2).computed == 2


# One file's trouble


def test_a_clip_that_may_not_be_read_is_one_clip(tmp_path, monkeypatch):
    report = extract(corpus("flood", "closed"), tmp_path, Letters(), tmp_path / "store", max_failures=0.5)
    assert [(f["clip_id"], f["reason"]) for f in report.failures] == [("c1", "Permission denied")]
    (tmp_path / "m").touch()

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    row = {"media": "m"}
    fine = extractors.media_key(row, tmp_path)
    os.utime(tmp_path / "m", (1, 1))
    monkeypatch.setattr(extractors, "digest_file", closed)
    assert extractors.media_key(row, tmp_path) != fine  # so that it is tried again once it may be read


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@LINUX
def test_a_worker_that_is_killed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(simulation, "_write_clip", die)
    settings = simulation.SimulationSettings(12, 6, {"Damage": 6, "Victim": 7}, seconds=0.5)
    with pytest.raises(ChildProcessError, match="simulating 12 clips: a worker process was ended") as caught:
        simulation.simulate_corpus(tmp_path, settings, workers=2)
    assert "memory" in error_words(caught.value) and "\n" not in error_words(caught.value)


# Company


def test_corpora_in_one_folder_keep_their_features_and_share_what_is_equal(tmp_path):
    large, small = corpus(*(f"text {i}" for i in range(130))), corpus(*(f"text {i}" for i in range(64)))
    other = corpus(*(f"else {i}" for i in range(64)))
    stores, computed = [], []
    for table in (large, small, other, large):
        stores.append(tmp_path / store_name(table, tmp_path, Letters()))
        others = [path for path in tmp_path.glob("text-*") if path != stores[-1]]
        computed.append(extract(table, tmp_path, Letters(), stores[-1], others=others).computed)
    assert computed == [130, 0, 64, 0] and len({*stores}) == 3
    assert [len(read_store(store)[0]) for store in stores] == [130, 64, 64, 130]


def test_two_that_fill_one_store_take_turns(tmp_path, caplog):
    """With other clips of the same names: the second waits, and says for whom."""
    reports, begun, go_on = {}, threading.Event(), threading.Event()

    class Slow(Letters):
        def read(self, row, root):
            begun.set()
            assert go_on.wait(20)
            return row["text"]

    def run(name, extractor, table):
        reports[name] = extract(table, tmp_path, extractor, tmp_path / "store")

    first = threading.Thread(target=run, args=("first", Slow(), corpus("flood", "storm")))
    second = threading.Thread(target=run, args=("second", Letters(), corpus("rain", "hail", "wind")))
    first.start()
    assert begun.wait(20)
    second.start()
    second.join(0.3)
    assert second.is_alive() and not reports
    go_on.set()
    first.join()
    second.join()
    assert (reports["first"].clips, reports["second"].clips) == (2, 3)
    assert f"{tmp_path / 'store'}: waiting for another run that works there (process {os.getpid()}" in caplog.text
    assert len(read_store(tmp_path / "store")[0]) == 3


@LINUX
def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(core, "_lock", lambda *_, **__: None)
    with alone(tmp_path), atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "b") as two:
        one.write_text("1"), two.write_text("2")
        assert str(os.getpid()) in one.name  # so that two runs don't share it
    assert "has no locks on this file system; make sure that no other run works there" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@LINUX
def test_a_killed_run_leaves_its_folder_to_the_next(tmp_path):
    """Its lock is free at once, though a worker that it forked still has the file open for a moment."""
    program = """
import os, signal, sys, time
from mmdisaster.runs import alone, end_with_parent
with alone(sys.argv[1]):
    parent = os.getpid()
    if not os.fork():
        end_with_parent(parent)
        time.sleep(60)
    time.sleep(0.2)
    os.kill(parent, signal.SIGKILL)
"""
    work = str(tmp_path / "work")
    subprocess.run([sys.executable, "-c", program, work], env=environment(ROOT))
    assert json.loads((tmp_path / "work" / ".run.lock").read_text())["process"]
    with alone(work):
        pass
    assert os.listdir(work) == []


def test_a_lock_that_a_kill_cut_off_is_known(tmp_path):
    """Whether DVC would read what is there, asked of a program that loads DVC."""
    cut = ["", "schema: '2.0'\nstages:\n  corpus:\n    deps: []\n", "schema: '2.0'\nstages: {a", "\x00"]
    for number, content in enumerate(cut):
        (tmp_path / f"{number}.lock").write_text(content)
    paths = [*sorted(tmp_path.iterdir()), ROOT / "dvc.lock", tmp_path / "none"]
    program = "import sys, pathlib, repro; print([repro.is_cut_off(pathlib.Path(p)) for p in sys.argv[1:]])"
    setting = environment(ROOT) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    result = subprocess.run([sys.executable, "-c", program, *paths], env=setting, capture_output=True, text=True)
    assert result.stdout == "[True, True, True, True, False, False]\n", result.stderr


def test_the_audit_counts_no_compiled_modules(tmp_path):
    (tmp_path / "mmdisaster/data/__pycache__").mkdir(parents=True)
    for name in ("tables.py", "__pycache__/tables.cpython-311.pyc"):
        (tmp_path / "mmdisaster/data" / name).touch()
    program = "import sys, pathlib, repro; repro.ROOT = pathlib.Path(sys.argv[1]); repro.drop_compiled()"
    setting = environment(ROOT) | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tools'}"}
    subprocess.run([sys.executable, "-c", program, tmp_path], env=setting, check=True)
    assert os.listdir(tmp_path / "mmdisaster/data") == ["tables.py"]
