"""Bad input stops with an error that names the thing, what it must be and what it was."""

import os
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, command, copy_project, merge
from letters import Letters

from mmdisaster.core import load_json
from mmdisaster.data.manifest import ManifestError, read_manifest
from mmdisaster.data.split import split_clips
from mmdisaster.fusion.algorithm1 import Algorithm1
from mmdisaster.media.files import MediaError
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform
from mmdisaster.media.writing import write_clip
from mmdisaster.settings.sources import Glove
from mmdisaster.static.extraction import ExtractionError, extract, write_failures
from mmdisaster.words.vectors import make_vectors

CONCEPTS = ["Flood", "Speech"]


@pytest.fixture
def corpus(tmp_path):
    """Two small real clips and their manifest."""
    random = np.random.default_rng(0)
    for name in ["a", "b"]:
        frames = random.integers(0, 255, (10, 96, 96, 3), dtype=np.uint8)
        write_clip(tmp_path / f"{name}.mp4", frames, random.normal(scale=0.1, size=22050).astype(np.float32))
    rows = [("a", "v", "a.mp4", "water", "Flood"), ("b", "v", "b.mp4", "talk", "Flood|Speech")]
    pd.DataFrame(rows, columns=["clip_id", "video_id", "media", "text", "labels"]).to_csv(
        tmp_path / "manifest.csv", index=False
    )
    return tmp_path


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("clip_id", "", "row 3, column 'clip_id': must name the clip, was empty"),
        ("clip_id", "a", "row 3, column 'clip_id': must be unique, stands in row 2 already, was 'a'"),
        ("video_id", "", "row 3, column 'video_id': must name the source video, was empty"),
        ("media", "c.mp4", "row 3, column 'media': must name an existing file, was 'c.mp4'"),
        ("media", "/etc/hosts", "row 3, column 'media': must be a path inside the manifest's folder, was '/etc/hosts'"),
        ("media", "../x.mp4", "row 3, column 'media': must be a path inside the manifest's folder, was '../x.mp4'"),
        ("start", "-1", "row 3, column 'start': must be seconds from 0 up, was '-1'"),
        ("end", "soon", "row 3, column 'end': must be seconds from 0 up, was 'soon'"),
        ("end", "0", "row 3, column 'end': must lie after start (0 s), was 0.0"),
        ("labels", "", "row 3, column 'labels': must name at least one concept, was empty"),
        ("labels", "Flod", "was 'Flod'; did you mean 'Flood'?"),
        ("labels", "Flood|Flood", "row 3, column 'labels': must name each concept once, was 'Flood|Flood'"),
    ],
)
def test_a_broken_manifest_cell(corpus, column, value, message):
    table = pd.read_csv(corpus / "manifest.csv", dtype=str)
    table.loc[1, column] = value
    table.to_csv(corpus / "manifest.csv", index=False)
    with pytest.raises(ManifestError) as caught:
        read_manifest(corpus / "manifest.csv", CONCEPTS)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"clip_id,video_id,media,text\n", "row 1, column 'labels': is missing"),
        (b"clip_id,video_id,media,text,label\n", "did you mean 'labels'?"),
        (b"", "is empty; its first row must name the columns"),
        (b"clip_id,video_id,media,text,labels\n", "has no rows"),
        (b"clip_id,video_id,media,text,labels\na,v,a.mp4,\xff\xfe,Flood\n", "row 2: must be UTF-8 text"),
    ],
)
def test_a_broken_manifest_file(corpus, content, message):
    (corpus / "manifest.csv").write_bytes(content)
    with pytest.raises(ManifestError, match="manifest.csv") as caught:
        read_manifest(corpus / "manifest.csv", CONCEPTS)
    assert message in str(caught.value)


def test_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.csv does not exist"):
        read_manifest(tmp_path / "manifest.csv", CONCEPTS)


@pytest.mark.parametrize("read", [lambda path: read_frames(path, 4), read_waveform])
def test_undecodable_media(tmp_path, read):
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    for name in ["noise.mp4", "missing.mp4"]:
        with pytest.raises(MediaError, match=name):
            read(tmp_path / name)


def test_an_undecodable_clip_stops_the_extraction_and_is_named(corpus):
    from mmdisaster.static.extractors import VisualExtractor
    from mmdisaster.static.inception import InceptionV3, random_inception

    frames = read_frames(corpus / "a.mp4", 2, 75)
    extractor = VisualExtractor(InceptionV3(random_inception(0, frames)), frames=2, size=75)
    manifest = read_manifest(corpus / "manifest.csv", CONCEPTS)
    (corpus / "b.mp4").write_bytes(b"not a film")
    with pytest.raises(ValueError, match="b.mp4"):
        extract(manifest, corpus, extractor, corpus / "store")
    assert not (corpus / "store" / "index.json").exists()


def test_too_many_failures_are_all_told(tmp_path):
    """Also those after the one with which there were too many; nothing is written then."""
    texts = ["broken" if i in (2, 5, 9) else "fine" for i in range(10)]
    manifest = pd.DataFrame({"clip_id": [f"c{i}" for i in range(10)], "media": "", "text": texts, "row": "mine"})
    with pytest.raises(ExtractionError, match="3 of 10 clips could not be read; allowed are 10.0%") as caught:
        extract(manifest, tmp_path, Letters(), tmp_path / "store", shard_clips=4, max_failures=0.1)
    assert [(f["clip_id"], f["row"]) for f in caught.value.failures] == [("c2", 4), ("c5", 7), ("c9", 11)]
    assert len(list((tmp_path / "store").iterdir())) == 1  # the shard before there were too many
    listed = pd.read_csv(write_failures(tmp_path / "failures.csv", {"text": caught.value.failures}))
    assert listed["clip_id"].tolist() == ["c2", "c5", "c9"]
    report = extract(manifest, tmp_path, Letters(), tmp_path / "store", shard_clips=4, max_failures=0.3)
    assert report.failures == caught.value.failures


class OneByOne(Letters):
    """Computes a text when it comes."""

    computed = 0

    def encode(self, inputs):
        for text in inputs:
            self.computed += 1
            yield np.ones((len(text), 1), np.float32)


@pytest.mark.parametrize("allowed, computed", [(0.0, 2), (0.1, 3), (0.2, 8)])
def test_nothing_is_computed_once_there_are_too_many_failures(tmp_path, allowed, computed):
    """Clips 2 and 4 of one shard are broken."""
    texts = ["broken" if i in (2, 4) else "fine" for i in range(10)]
    manifest = pd.DataFrame({"clip_id": [f"c{i}" for i in range(10)], "media": "", "text": texts})
    extractor = OneByOne()
    if allowed < 0.2:
        with pytest.raises(ExtractionError, match="2 of 10 clips could not be read"):
            extract(manifest, tmp_path, extractor, tmp_path / "store", max_failures=allowed)
        assert not list((tmp_path / "store").iterdir())
    else:
        assert extract(manifest, tmp_path, extractor, tmp_path / "store", max_failures=allowed).clips == 8
    assert extractor.computed == computed


@pytest.mark.parametrize("given", [0, 3, 5])
def test_an_extractor_that_does_not_answer_for_each_input(tmp_path, given):
    class Wrong(Letters):
        def encode(self, inputs):
            return [np.ones((1, 1), np.float32) for _, text in zip(range(given), inputs, strict=False)]

    class Twice(Letters):
        def encode(self, inputs):
            return super().encode(inputs) + super().encode(["one more"])

    manifest = pd.DataFrame({"clip_id": list("abcd"), "media": "", "text": "fine"})
    with pytest.raises(RuntimeError, match=f"encode must give one array per input, gave {given} for 4"):
        extract(manifest, tmp_path, Twice() if given == 5 else Wrong(), tmp_path / "store")


@pytest.mark.parametrize(
    "stage, changes, message",
    [
        ("corpus", {"visual_noise": 2.0}, "corpus.visual_noise: must be a number from 0 to 1, was 2.0"),
        ("corpus", {"clips": "many"}, "corpus.clips: must be a whole number from 10 to 100,000, was 'many'"),
        ("fusion", {"stopp": "text"}, "fusion.stopp: is unknown; did you mean 'stop'?"),
    ],
)
def test_bad_params_stop_a_stage(tmp_path, stage, changes, message):
    project = copy_project(tmp_path)
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    merge(params, {stage: changes})
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    result = command(project, "python", "tools/stage.py", stage, check=False)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (project / "data").exists() and not list(
        (project / "reports").glob("*") if (project / "reports").exists() else []
    )


def test_every_readable_notebook_names_its_files_from_the_root():
    """No path of one machine in what a reader sees."""
    for path in [*ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        assert str(ROOT) not in path.read_text(encoding="utf-8"), path


def test_a_name_that_is_no_unicode_is_told_like_any_other(tmp_path):
    """File systems keep bytes; what Python makes of these goes into the index and the table of failures."""
    name = os.fsdecode(b"fl\xfct.mp4")
    media = pd.Series(["", name], dtype=object)
    manifest = pd.DataFrame({"clip_id": ["a", "b"], "text": ["fine", "broken"], "media": media})
    report = extract(manifest, tmp_path, Letters(), tmp_path / "store", max_failures=0.5)
    assert report.failures[0]["value"] == name
    assert load_json(tmp_path / "store" / "index.json")["failures"] == report.failures
    assert "fl\\udcfct.mp4" in write_failures(tmp_path / "failures.csv", {"text": report.failures}).read_text()


@pytest.mark.parametrize(
    "videos, options, message",
    [
        (36, {"fractions": (0.98, 0.01, 0.01)}, "fractions must leave each part a clip of 36, was (0.98, 0.01, 0.01)"),
        (2, {"by": "video"}, "clips must come from 3 videos or more to be split by video, came from 2"),
    ],
)
def test_a_split_that_leaves_a_part_empty(videos, options, message):
    groups = np.array([f"v{i % videos}" for i in range(36)])
    with pytest.raises(ValueError, match=re.escape(message)):
        split_clips(np.eye(2, dtype=np.uint8)[np.arange(36) % 2], groups, **options)


def test_a_machine_for_each_concept_needs_both_sides_of_it():
    Y = np.eye(3, dtype=np.uint8)[np.arange(30) % 2]  # nothing is in the third
    F = np.ones((30, 12), np.float32)
    with pytest.raises(ValueError, match="with and without each concept, lacked them for concept 3 of 3"):
        Algorithm1(machine="one-vs-rest", n_trees=5).fit(F[:20], Y[:20], validation=(F[20:], Y[20:]))


def test_vectors_that_know_no_word(tmp_path):
    (tmp_path / "upper.txt").write_text("WATER 1 2\nFIRE 3 4\n")
    with pytest.raises(ValueError, match="upper.txt: must know words of the descriptions, know 'WATER', 'FIRE' … only"):
        make_vectors(Glove(source="upper.txt"), ["water and fire", None], tmp_path / "upper.txt")
    assert make_vectors(Glove(source="upper.txt"), ["", None], tmp_path / "upper.txt").words_ == ["WATER", "FIRE"]
