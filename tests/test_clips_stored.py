"""Features are kept by clip: what changes around a clip computes nothing again."""

import importlib
import sys
import time
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from letters import Letters

from mmdisaster.data.store import load_index, read_store
from mmdisaster.settings.sources import Glove
from mmdisaster.static import extraction
from mmdisaster.static.extraction import ExtractionError, extract
from mmdisaster.static.extractors import TextExtractor
from mmdisaster.words.vectors import make_vectors


def corpus(texts, ids=None):
    return pd.DataFrame({"clip_id": ids or [f"c{i}" for i in range(len(texts))], "media": "m", "text": texts})


def read(folder):
    clip_ids, found = read_store(folder)
    return dict(zip(clip_ids, [found[i].tolist() for i in range(len(found))], strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_any_history_reads_as_a_first_extraction(tmp_path, seed):
    """Forty random changes of a manifest: rows are inserted, deleted, sorted, renamed, repeated."""
    random, table, ever = np.random.default_rng(seed), [], 0
    for _ in range(40):
        new = [f"{chr(97 + ever % 26)}{'x' * int(n)} {ever + i}" for i, n in enumerate(random.integers(0, 9, 3))]
        ever += len(new)
        for text in new[: random.integers(0, 4)] + (table[:1] if random.random() < 0.2 else []):
            table.insert(random.integers(0, len(table) + 1), text)
        table = [text for text in table if random.random() < 0.9]
        table = sorted(table) if random.random() < 0.3 else table
        report = extract(corpus(table), tmp_path, Letters(), tmp_path / "store", shard_clips=3)
        assert report.computed <= 3  # those inserted just now
        letters = {f"c{i}": [[ord(text[0])]] * len(text) for i, text in enumerate(table)}
        assert read(tmp_path / "store") == letters
        index = (tmp_path / "store" / "index.json").read_bytes()
        assert extract(corpus(table), tmp_path, Letters(), tmp_path / "store", shard_clips=3).computed == 0
        assert (tmp_path / "store" / "index.json").read_bytes() == index
        shards = [path for path in (tmp_path / "store").iterdir() if path.name != "index.json"]
        assert sorted(path.name for path in shards) == sorted(load_index(tmp_path / "store")["shards"])


def test_only_what_is_new_is_computed(tmp_path):
    texts = [f"{chr(97 + i % 26)} {i}" for i in range(200)]
    folder = tmp_path / "store"
    assert extract(corpus(texts), tmp_path, Letters(), folder).computed == 200
    assert extract(corpus(["new", *texts]), tmp_path, Letters(), folder).computed == 1
    assert extract(corpus(sorted(texts) + ["new"]), tmp_path, Letters(), folder).computed == 0
    assert extract(corpus(texts[:100] + texts[103:]), tmp_path, Letters(), folder).computed == 0
    assert len(load_index(folder)["shards"]) == 4  # that of the new clip went with it
    assert extract(corpus([*texts[::2], *texts[1::2], "a", "b", "c"]), tmp_path, Letters(), folder).computed == 3


def test_two_first_extractions_are_equal_byte_by_byte(tmp_path):
    table = corpus([f"{chr(97 + i % 150 % 26)} {i % 150}" for i in range(200)])  # fifty of them twice
    for name in ("one", "two"):
        assert extract(table, tmp_path, Letters(), tmp_path / name).computed == 150
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1]


def test_a_store_that_is_mostly_unused_is_written_anew(tmp_path):
    """What is left has the same values; what was absent or failed stays so."""

    class Some(Letters):
        def read(self, row, root):
            return None if row["text"].startswith("none") else super().read(row, root)

        def missing(self, row, root):
            return "half of it" if row["text"].startswith("half") else ""

    texts = [f"{['a', 'none', 'half'][i % 3]} {i}" for i in range(60)]
    extract(corpus(texts), tmp_path, Some(), tmp_path / "store", shard_clips=20)
    before, index, size = read(tmp_path / "store"), load_index(tmp_path / "store"), len(texts)
    kept = [*range(0, size, 7)]
    few = corpus([texts[i] for i in kept], [f"c{i}" for i in kept])
    report = extract(few, tmp_path, Some(), tmp_path / "store", shard_clips=20)
    assert report.computed == 0 and len(load_index(tmp_path / "store")["shards"]) == 1 < len(index["shards"])
    assert read(tmp_path / "store") == {clip_id: before[clip_id] for clip_id in few["clip_id"]}
    assert report.absent == [clip_id for clip_id in few["clip_id"] if clip_id in index["absent"]] != []
    assert report.damaged == [note for note in index["damaged"] if note["clip_id"] in set(few["clip_id"])] != []
    assert extract(few, tmp_path, Some(), tmp_path / "store").computed == 0


def test_equal_rows_are_one_clip_and_fail_together(tmp_path):
    table = corpus(["fine", "broken", "fine", "broken", "else"])
    with pytest.raises(ExtractionError, match="2 of 5 clips could not be read; allowed are 20.0%") as caught:
        extract(table, tmp_path, Letters(), tmp_path / "store", max_failures=0.2)
    assert [(f["clip_id"], f["row"]) for f in caught.value.failures] == [("c1", 3), ("c3", 5)]
    report = extract(table, tmp_path, Letters(), tmp_path / "store", max_failures=0.4)
    assert (report.clips, report.computed, len(report.failures)) == (3, 2, 2)
    assert read(tmp_path / "store") == {"c0": [[102]] * 4, "c2": [[102]] * 4, "c4": [[101]] * 4}


def test_a_large_manifest_is_planned_in_a_moment(tmp_path):
    """Twenty thousand clips; a hundred thousand take five times as long."""
    table = corpus([f"t {i}" for i in range(20_000)])
    extract(table, tmp_path, Letters(), tmp_path / "store", shard_clips=1000)
    start = time.process_time()
    changed = pd.concat([corpus(["first"], ["new"]), table]).sample(frac=1, random_state=0)
    assert extract(changed, tmp_path, Letters(), tmp_path / "store", shard_clips=1000).computed == 1
    assert time.process_time() - start < 4


# Another version of the library, or of one below it


def edited(name, *changes):
    """A module of the library, from a source with changes."""
    spec = find_spec(name)
    source = Path(spec.origin).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    module = types.ModuleType(name)
    module.__dict__.update(__package__=name.rpartition(".")[0], __file__=spec.origin)
    sys.modules[name], kept = module, importlib.import_module(name)  # dataclasses look their module up
    try:
        exec(compile(source, spec.origin, "exec"), module.__dict__)
    finally:
        sys.modules[name] = kept
    return module


def test_an_edited_docstring_computes_nothing_again_and_a_new_version_everything(tmp_path):
    """As where DVC runs a stage again because a source file has changed."""
    table, name = corpus(["water on the street", "boats on water"]), "mmdisaster.static.extractors"
    words = make_vectors(Glove(dim=4, min_count=1, epochs=2), table["text"])
    assert extract(table, tmp_path, TextExtractor(words), tmp_path / "store").computed == 2
    index = (tmp_path / "store" / "index.json").read_bytes()
    other = edited(name, ("one step per known word;", "a step for each word that is known;")).TextExtractor
    assert other.__doc__ != TextExtractor.__doc__
    assert extract(table, tmp_path, other(words), tmp_path / "store").computed == 0
    assert (tmp_path / "store" / "index.json").read_bytes() == index
    raised = edited(name, ('"text", "vectors", 1', '"text", "vectors", 2')).TextExtractor
    assert extract(table, tmp_path, raised(words), tmp_path / "store").computed == 2


def test_an_upgrade_computes_nothing_again_and_is_noted(tmp_path, monkeypatch):
    class Computed(Letters):
        libraries = ("numpy", "av")

    release = ["1.0"]
    monkeypatch.setattr(extraction, "version", lambda name: release[0])
    assert extract(corpus(["a", "b"]), tmp_path, Computed(), tmp_path / "store").computed == 2
    release[0], index = "2.0", (tmp_path / "store" / "index.json").read_bytes()
    assert extract(corpus(["a", "b"]), tmp_path, Computed(), tmp_path / "store").computed == 0
    assert (tmp_path / "store" / "index.json").read_bytes() == index
    assert load_index(tmp_path / "store")["libraries"] == [{"av": "1.0", "numpy": "1.0"}]
    assert extract(corpus(["a", "b", "c"]), tmp_path, Computed(), tmp_path / "store").computed == 1
    both = [{"av": release, "numpy": release} for release in ("1.0", "2.0")]
    assert load_index(tmp_path / "store")["libraries"] == both
