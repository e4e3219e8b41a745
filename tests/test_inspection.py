"""Bad input of every kind gives an error that a person can act on: no traceback, nothing accepted in silence."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from media_files import cut, write_media

from mmdisaster.core import load_json
from mmdisaster.data.clips import read_clips
from mmdisaster.data.corpus import read_corpus, save_corpus
from mmdisaster.data.inspection import format_problems, inspect_corpus
from mmdisaster.data.manifest import ManifestError, check_manifest, read_concepts, read_manifest
from mmdisaster.data.split import Split, read_split, save_split
from mmdisaster.data.store import read_presence, read_store
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform
from mmdisaster.static.extraction import ExtractionError, extract, write_failures
from mmdisaster.static.extractors import AudioExtractor, VisualExtractor
from mmdisaster.static.inception import InceptionV3, random_inception
from mmdisaster.static.soundnet import random_soundnet

CONCEPTS = ["Flood", "Speech", "Storm"]
HEADER = "clip_id,video_id,media,text,labels"


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """A folder of good and of broken files, and a file outside it."""
    folder = tmp_path_factory.mktemp("corpus")
    good = write_media(folder / "good.mp4", seconds=48, size=(64, 64))
    front = write_media(folder / "front.mp4", seconds=12, container_options={"movflags": "faststart"})
    write_media(folder / "silent.mp4", "h264", None)
    write_media(folder / "sound.mp3", None, "mp3", sample_rate=44_100)
    cut(good, folder / "no-index.mp4", 0.6)
    cut(front, folder / "half.mp4", 0.6)
    cut(write_media(folder / "a.mkv", seconds=12), folder / "half.mkv", 0.4)
    cut(write_media(folder / "a.webm", "vp9", "opus", 12, sample_rate=48_000), folder / "half.webm", 0.6)
    cut(write_media(folder / "a.avi", "mpeg4", "pcm", 12), folder / "half.avi", 0.6)
    content = good.read_bytes()
    place, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    (folder / "scrambled.mp4").write_bytes(content[:place] + b"\x55" * (end - place) + content[end:])
    (folder / "empty.mp4").touch()
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "notes.txt").write_text("The water rises. " * 50)
    (folder / "page.mp4").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (folder / "folder.mp4").mkdir()
    outside = tmp_path_factory.mktemp("elsewhere") / "outside.mp4"
    outside.write_bytes(content)
    (folder / "link.mp4").symlink_to(outside)
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    return folder


def corpus():
    """Forty-five good rows, with fifteen clips a concept."""
    rows = [
        {"clip_id": f"c{i}", "video_id": "v", "media": "good.mp4", "start": str(i), "end": str(i + 1), "text": "water"}
        for i in range(45)
    ]
    return pd.DataFrame(rows).assign(labels=[CONCEPTS[i % 3] for i in range(45)])


def cell(**values):
    """Some cells of the third clip, which stands in row 4."""

    def change(table):
        for column, value in values.items():
            table.loc[2, column] = value
        return table

    return change


def content(text):
    """A manifest of its own."""
    return lambda table: text.encode() if isinstance(text, str) else text


def rows(n):
    """The first n rows."""
    return lambda table: table[:n]


def replaced(old, new):
    """Labels with another name of one concept, in all rows or in the first of it."""

    def change(table):
        first = table.index[table["labels"] == old][0]
        table.loc[first, "labels"] = new
        return table

    return change


def clean(table):
    return table


LINE = "a,v,good.mp4,water,Flood\n"
ERRORS = {  # kind → what to do to the manifest, what the user sees
    "empty file": (content(""), r"is empty; its first row must name the columns"),
    "blank file": (content("\n \n"), r"is empty"),
    "header only": (content(HEADER + "\n"), r"has no rows; each row must be a clip"),
    "UTF-16": (lambda table: table.to_csv(index=False).encode("utf-16"), r"must be UTF-8 text, was UTF-16"),
    "Latin-1": (content(f"{HEADER}\n{LINE}b,v,good.mp4,caf".encode() + b"\xe9,Flood\n"), r"row 3: must be UTF-8 text"),
    "binary": (content(b"clip_id,\0\0\1"), r"row 1: must be text"),
    "semicolons": (content(f"{HEADER}\n{LINE}".replace(",", ";")), r"row 1: .* separated by commas, was ';'"),
    "tabs": (content(f"{HEADER}\n{LINE}".replace(",", "\t")), r"row 1: cells must be separated by commas, was '\\t'"),
    "comma in text": (content(f"{HEADER}\n{LINE}b,v,good.mp4,wind, rain,Flood\n"), r"row 3: must have 5 cells.*quotes"),
    "comma in all texts": (content(f"{HEADER}\nb,v,good.mp4,wind, rain,Flood\n"), r"row 2: must not have more cells"),
    "open quote": (content(f'{HEADER}\n{LINE}b,v,good.mp4,"water,Flood\n'), r"must be a CSV table: .*EOF inside"),
    "no header": (content(LINE * 12), r"row 1, column 'labels': is missing; required are clip_id"),
    "missing column": (lambda table: table.drop(columns="media"), r"column 'media': is missing"),
    "misspelt column": (lambda table: table.rename(columns={"labels": "lables"}), r"'lables': is unknown.*'labels'"),
    "misspelt start": (lambda table: table.rename(columns={"start": "strat"}), r"'strat': is unknown.*'start'"),
    "start by another name": (lambda table: table.rename(columns={"start": "begin"}), r"'begin': is unknown.*'start'"),
    "start in two words": (lambda table: table.rename(columns={"start": "Start time"}),
                           r"'Start time': is unknown.*'start'"),
    "start with underscores": (cell(start="1_0"), r"row 4, column 'start': must be seconds from 0 up, was '1_0'"),
    "column twice": (content(f"{HEADER},text\n"), r"column 'text': must be there once, is there twice"),
    "empty row": (cell(**dict.fromkeys(["clip_id", "video_id", "media", "start", "end", "text", "labels"], "")),
                  r"row 4: must not be empty"),
    "no clip_id": (cell(clip_id=""), r"row 4, column 'clip_id': must name the clip, was empty"),
    "clip_id twice": (cell(clip_id="c0"), r"row 4, column 'clip_id': must be unique, stands in row 2"),
    "no video_id": (cell(video_id=" "), r"row 4, column 'video_id': must name the source video"),
    "no media, no text": (cell(media="", text=" "), r"row 4, column 'media': must name a file where there is no text"),
    "missing file": (cell(media="gone.mp4"), r"row 4, column 'media': must name an existing file, was 'gone.mp4'"),
    "wrong case": (cell(media="GOOD.MP4"), r"must name an existing file, was 'GOOD.MP4'"),
    "address": (cell(media="https://example.org/a.mp4"), r"must name an existing file, was 'https"),
    "folder": (cell(media="folder.mp4"), r"must name an existing file, was 'folder.mp4'"),
    "absolute path": (cell(media="/etc/hosts"), r"must be a path inside the manifest's folder, was '/etc/hosts'"),
    "path of Windows": (cell(media="C:\\clips\\a.mp4"), r"must be a path inside the manifest's folder"),
    "path upwards": (cell(media="../a.mp4"), r"must be a path inside the manifest's folder, was '../a.mp4'"),
    "link out of the folder": (cell(media="link.mp4"), r"must be a path inside the manifest's folder, was 'link.mp4'"),
    "link to itself": (cell(media="circle.mp4"), r"row 4, column 'media': must .*, was 'circle.mp4'"),
    "endless name": (cell(media="a" * 5000), r"row 4, column 'media': must .*, was 'aaaa"),
    "negative start": (cell(start="-1"), r"row 4, column 'start': must be seconds from 0 up, was '-1'"),
    "start NaN": (cell(start="nan"), r"row 4, column 'start': must be seconds from 0 up, was 'nan'"),
    "end infinite": (cell(end="inf"), r"row 4, column 'end': must be seconds from 0 up, was 'inf'"),
    "start a word": (cell(start="soon"), r"row 4, column 'start': must be seconds from 0 up, was 'soon'"),
    "start a clock time": (cell(start="0:01:30"), r"must be seconds from 0 up, was '0:01:30'"),
    "decimal comma": (cell(start="1,5"), r"must be seconds from 0 up, was '1,5'"),
    "start after end": (cell(start="3", end="2"), r"row 4, column 'end': must lie after start \(3 s\), was 2.0"),
    "start is end": (cell(start="2", end="2"), r"must lie after start \(2 s\), was 2.0"),
    "no labels": (cell(labels="nan"), r"row 4, column 'labels': must name concepts, was 'nan'; leave the cell empty"),
    "empty part": (cell(labels="Flood||Storm"), r"must be concepts joined by single '\|', was 'Flood\|\|Storm'"),
    "concept twice": (cell(labels="Flood|Flood"), r"must name each concept once, was 'Flood\|Flood'"),
    "misspelt concept": (cell(labels="Flod"), r"must be concepts among .*, was 'Flod'; did you mean 'Flood'\?"),
    "concept in lower case": (cell(labels="storm"), r"was 'storm'; did you mean 'Storm'\?"),
    "unknown concept": (cell(labels="Xylophone"), r"must be concepts among Flood, Speech, Storm, was 'Xylophone'"),
    "other separator": (cell(labels="Flood,Storm"), r"was 'Flood,Storm'"),
    "too few clips": (rows(9), r"must have 10 clips or more to be split, has 9"),
    "empty media": (cell(media="empty.mp4"), r"row 4, column 'media': .* is empty, was 'empty.mp4'"),
    "noise": (cell(media="noise.mp4"), r"can't be decoded: Invalid data.*, was 'noise.mp4'"),
    "web page": (cell(media="page.mp4"), r"can't be decoded|not a video or sound file.*, was 'page.mp4'"),
    "text file": (cell(media="notes.txt"), r"is not a video or sound file of a known kind, was 'notes.txt'"),
    "playlist": (cell(media="list.mp4"), r"is not a video or sound file of a known kind, was 'list.mp4'"),
    "cut off, without index": (cell(media="no-index.mp4"), r"can't be decoded: .*, was 'no-index.mp4'"),
    "cut off, with index": (cell(media="half.mp4"), r"is cut off: it claims [\d,]+ bytes, .*, was 'half.mp4'"),
    "cut off MKV": (cell(media="half.mkv"), r"is cut off: it claims [\d,]+ bytes, but has [\d,]+, was 'half.mkv'"),
    "cut off WebM": (cell(media="half.webm"), r"is cut off: it claims [\d,]+ bytes, but has [\d,]+, was 'half.webm'"),
    "cut off AVI": (cell(media="half.avi"), r"is cut off: it claims [\d,]+ bytes, but has [\d,]+, was 'half.avi'"),
    "scrambled": (cell(media="scrambled.mp4"), r"is damaged: .* can't be decoded, was 'scrambled.mp4'"),
    "start after the media": (cell(start="48.5", end=""), r"'start': must lie before the end of good.mp4 \(48.0"),
}  # fmt: skip
WARNINGS = {
    "end after the media": (
        cell(start="44", end="60"),
        r"row 4, column 'end': should not lie after the end",
    ),
    "same part twice": (cell(start="0", end="1"), r"row 4, column 'media': .* another part of the file than in row 2"),
    "file of two videos": (cell(video_id="other"), r"column 'media': should be of one video, is of 2: "),
    "concept in all clips": (
        lambda table: table.assign(labels=["|".join({"Flood": 1} | dict.fromkeys(x.split("|"))) for x in table.labels]),
        r"concept 'Flood' should not be in every clip",
    ),
    "rare concept": (replaced("Storm", "Flood"), r"concept 'Storm' should have 15 clips or more, has 14"),
    "no sound": (cell(media="silent.mp4", start="", end=""), r"1 of 45 clips have no sound; zeros stand in for it"),
    "no pictures": (cell(media="sound.mp3", start="", end=""), r"1 of 45 clips have no pictures"),
    "no media": (cell(media="", start="", end=""), r"1 of 45 clips have no pictures"),
    "no text": (cell(text=""), r"1 of 45 clips have no text"),
}


def written(media, change, name):
    """The manifest after a change, written beside the media."""
    made = change(corpus())
    path = media / f"{re.sub(r'[^a-z]', '-', name.lower())}.csv"
    path.write_bytes(made if isinstance(made, bytes) else made.to_csv(index=False).encode())
    return path


def besides(inspection):
    """Problems beside the one that all these corpora have: they are of a single video."""
    return [problem for problem in inspection.problems if "3 videos or more" not in problem.expected]


def test_good_input_has_no_problems(media):
    inspection = inspect_corpus(written(media, clean, "good"), CONCEPTS)
    assert besides(inspection) == [] and inspection.can_start and np.allclose(inspection.seconds, 1)
    assert all(present.all() for present in inspection.presence.values()) and len(inspection.presence) == 3
    assert format_problems(inspection).endswith("A run can start.")


@pytest.mark.parametrize("kind", ERRORS)
def test_errors(media, kind):
    change, message = ERRORS[kind]
    path = written(media, change, kind)
    inspection = inspect_corpus(path, CONCEPTS)
    assert not inspection.can_start and re.search(message, "\n".join(map(str, inspection.errors)))
    shown = format_problems(inspection)
    assert re.search(message, shown) and "A run can't start" in shown
    others = [problem for problem in inspection.errors if not re.search(message, str(problem))]
    assert len(others) <= (4 if kind in ("no header", "misspelt column") else 1), "one slip, one error"


@pytest.mark.parametrize("kind", WARNINGS)
def test_warnings(media, kind):
    change, message = WARNINGS[kind]
    inspection = inspect_corpus(written(media, change, kind), CONCEPTS)
    assert inspection.can_start and re.search(message, "\n".join(map(str, inspection.warnings)))


def test_there_are_enough_kinds():
    assert len(ERRORS) >= 40


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if "column" in ERRORS[kind][1]])
def test_reading_refuses_what_inspection_finds_in_the_manifest(media, kind):
    change, message = ERRORS[kind]
    path = written(media, change, kind)
    if inspect_corpus(path, CONCEPTS, media=False).errors:
        with pytest.raises(ManifestError, match=message):
            read_manifest(path, CONCEPTS)


IN_BOTH = [
    "empty file", "blank file", "header only", "UTF-16", "Latin-1", "binary", "semicolons", "tabs",
    "comma in text", "comma in all texts", "open quote", "misspelt start", "start by another name",
    "start in two words", "start with underscores", "column twice", "empty row", "no media, no text",
    "negative start", "start NaN", "end infinite", "start a word", "start a clock time", "decimal comma",
    "start after end", "start is end",
]  # fmt: skip
ONLY_IN_MANIFESTS = [
    "no clip_id", "clip_id twice", "no video_id", "missing file", "address", "folder", "absolute path",
    "path upwards", "no labels", "misspelt concept", "empty media", "noise", "cut off MKV",
]  # fmt: skip


@pytest.mark.parametrize("kind", IN_BOTH)
def test_clips_to_predict_are_read_as_a_manifest_is(media, kind):
    """Same files, same cells, same words."""
    change, message = ERRORS[kind]
    path = written(media, change, kind)
    with pytest.raises(ManifestError, match=message) as clips:
        read_clips(path)
    with pytest.raises(ManifestError, match=message) as manifest:
        read_manifest(path, CONCEPTS)
    assert set(map(str, clips.value.problems)) <= set(map(str, manifest.value.problems))


@pytest.mark.parametrize("kind", ONLY_IN_MANIFESTS)
def test_clips_to_predict_need_no_labels_and_fail_one_by_one(media, kind):
    path = written(media, ERRORS[kind][0], kind)
    assert len(read_clips(path)) == 45


@pytest.mark.parametrize("name", ["gone.csv", "manifest.xlsx", "directory.csv", "broken.parquet"])
def test_manifests_that_are_no_tables(media, name):
    if name == "directory.csv":
        (media / name).mkdir()
    elif name != "gone.csv":
        (media / name).write_bytes(b"PK\3\4 no table")
    message = {
        "gone.csv": "gone.csv does not exist",
        "manifest.xlsx": "must be a .csv or .parquet file",
        "directory.csv": "directory.csv is not a file",
        "broken.parquet": "must be a Parquet table",
    }[name]
    inspection = inspect_corpus(media / name)
    assert not inspection.can_start and message in str(inspection.errors[0]) and inspection.clips == 0
    format_problems(inspection)


@pytest.mark.parametrize("concepts", [[], ["Flood"], ["Flood", "Flood"], ["Flood", "a|b"], ["Flood", " "]])
def test_concepts_that_are_none(media, concepts):
    path = written(media, clean, "good")
    message = "concepts must be two or more different names"
    assert message in str(inspect_corpus(path, concepts).errors[0])
    with pytest.raises(ValueError, match=message):
        read_manifest(path, concepts)


def test_a_letter_has_one_spelling(media):
    """é is one character or two; labels that look the same are the same, and names that are stated must be so spelt."""
    composed, combined = "Caf\u00e9", "Cafe\u0301"
    path = written(media, lambda table: cell(labels=combined)(table.replace("Storm", composed)), "spelling")
    assert inspect_corpus(path).concepts.keys() == {"Flood", "Speech", composed}
    assert inspect_corpus(path, ["Flood", "Speech", composed]).can_start
    with pytest.raises(ValueError, match=r"composed form, 'Caf\\xe9', was 'Cafe\\u0301'"):
        read_manifest(path, ["Flood", "Speech", combined])


def test_concepts_that_nobody_can_have_meant(media):
    several = inspect_corpus(written(media, lambda table: table.replace("Storm", "Flood;Speech"), "several"))
    assert "must be concepts joined by '|', was 'Flood;Speech'; write 'Flood|Speech'" in format_problems(several)
    assert not several.can_start
    absent = inspect_corpus(written(media, clean, "good"), [*CONCEPTS, "Strom"])
    assert "concept 'Strom' must have clips, has none; is it misspelt?" in format_problems(absent)
    assert not absent.can_start


def test_concepts_of_the_manifest(media):
    change = replaced("Storm", "Flood")
    assert read_concepts(written(media, change, "concepts")) == ["Flood", "Speech", "Storm"]
    assert read_concepts(written(media, clean, "concepts")) == ["Flood", "Speech", "Storm"]  # equally frequent
    alike = inspect_corpus(written(media, replaced("Storm", "storm"), "alike"))
    assert "concept 'storm' looks like concept 'Storm'" in format_problems(alike) and alike.can_start
    one = written(media, lambda table: table.assign(labels="Flood"), "one")
    assert "must name two different concepts or more" in str(inspect_corpus(one).errors[0])
    with pytest.raises(ManifestError, match="must name two different concepts or more, was 'Flood'"):
        read_manifest(one)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: b"\xef\xbb\xbf" + table.to_csv(index=False).encode(),
        lambda table: table.to_csv(index=False, lineterminator="\r\n").encode(),
        lambda table: table.to_csv(index=False, lineterminator="\r").encode(),
        lambda table: table.to_csv(index=False).encode() + b",,,,,,\n\n\n",
        lambda table: table.to_csv(index=False).encode().rstrip(b"\n"),
        lambda table: table.assign(remark="seen", label="x", weekend=1)[[*table.columns[::-1], "remark", "label"]],
        lambda table: table.assign(labels=" " + table["labels"] + " ", clip_id=table["clip_id"] + " "),
        lambda table: table.rename(columns=lambda name: f" {name} "),
    ],
)
def test_harmless_differences(media, change):
    expected = read_manifest(written(media, clean, "good"), CONCEPTS)
    path = written(media, change, "harmless")
    table = read_manifest(path, CONCEPTS)
    pd.testing.assert_frame_equal(table[expected.columns], expected)
    assert besides(inspect_corpus(path, CONCEPTS)) == []


def test_text_of_any_kind_survives(media):
    text = 'Wasser, "überall"\nund सड़क; 🌊'
    table = read_manifest(written(media, cell(text=text), "text"), CONCEPTS)
    assert table.loc[2, "text"] == text


@pytest.mark.parametrize("mark", ["\r", "\n", "\r\n", "\v", "\f", "\x85", "\u2028"])
def test_line_breaks_within_cells_survive(media, tmp_path, mark):
    """In the corpus as the pipeline keeps it and in its split; a name of several lines becomes one line."""
    values = {"text": f"one{mark}two", "clip_id": f"c{mark}2", "labels": f"Flood|Storm{mark}surge"}
    path = media / "breaks.parquet"
    cell(**values)(corpus()).to_parquet(path)
    kept = save_corpus(tmp_path / "corpus", path)
    assert len(kept.manifest) == 45 and kept.manifest.loc[2, "text"] == f"one{mark}two"
    assert kept.manifest.loc[2, "clip_id"] == "c 2" and "Storm surge" in kept.concepts
    again = read_corpus(tmp_path / "corpus")
    pd.testing.assert_frame_equal(again.manifest, kept.manifest)
    split = Split([f"a{mark}b", "c"], ["v", f"w{mark}"], np.array(["train", "test"]), ["A", f"B{mark}C"], np.eye(2))
    read = read_split(save_split(tmp_path / "split.csv", split))
    assert (read.clip_ids, read.video_ids, read.concepts) == (split.clip_ids, split.video_ids, split.concepts)
    assert (read.Y == split.Y).all() and (read.parts == split.parts).all()


def test_concepts_with_the_names_of_columns(media, tmp_path):
    names = ["part", "clip_id", "video_id", "NA"]
    table = corpus().assign(labels=[names[i % 4] for i in range(45)])
    kept = save_corpus(tmp_path / "corpus", written(media, lambda _: table, "names"), names)
    Y = (np.array(kept.manifest["labels"])[:, None] == names).astype(np.uint8)
    split = Split(list(kept.manifest["clip_id"]), list(kept.manifest["video_id"]), np.repeat(["train"], 45), names, Y)
    for _ in range(2):  # what is read is written as it was
        split = read_split(save_split(tmp_path / "split.csv", split))
        assert kept.concepts == names == split.concepts and (split.Y == Y).all()


def test_a_parquet_file_of_any_types(media):
    table = corpus().assign(clip_id=range(45), video_id=1.0, start=pd.array([*range(44), pd.NA], "Int64"), end=np.nan)
    table["text"] = pd.Categorical([None, *["water"] * 44])
    table["labels"] = table["labels"].astype("category")
    table.to_parquet(media / "types.parquet")
    read = read_manifest(media / "types.parquet", CONCEPTS)
    assert read["clip_id"].tolist() == [str(i) for i in range(45)] and set(read["video_id"]) == {"1"}
    assert read["text"].tolist() == ["", *["water"] * 44] and read["start"].isna().sum() == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda table: table.assign(labels=[["Flood"]] * 45), r"concepts joined by '\|', was \['Flood'\]"),
        (lambda table: table.assign(labels=7), r"'labels': must be text, concepts joined by '\|', was 7"),
        (lambda table: table.assign(text=[["water"]] * 45), r"'text': must be text, was \['water'\]"),
        (lambda table: table.assign(text=b"water"), r"'text': must be text, was b'water'"),
        (lambda table: table.assign(clip_id=table.index + 0.5), r"'clip_id': must be text, was 0.5"),
        (lambda table: table.assign(video_id=True), r"'video_id': must be text, was True"),
        (lambda table: table.assign(media=3), r"'media': must be text, was 3"),
        (lambda table: table.assign(text="wa\0ter"), r"'text': must be text without NUL characters"),
        (lambda table: table.assign(**{" text": "b"}), r"'text': must be there once, is there twice"),
    ],
)
def test_cells_of_parquet_that_are_no_text(media, change, message):
    change(corpus()).to_parquet(media / "cells.parquet")
    problems = check_manifest(media / "cells.parquet", CONCEPTS)[1]
    assert len({str(problem).partition("column")[2].partition(":")[0] for problem in problems}) == 1
    assert re.search(message, str(problems[0])) and len(problems) in (1, 45)
    shown = format_problems(inspect_corpus(media / "cells.parquet", CONCEPTS))
    assert re.search(message, shown) and "A run can't start" in shown


def test_the_kept_corpus_follows_the_content_of_its_media(media, tmp_path):
    """Its files are the same for the same media, wherever their dates are, and change with any of them."""
    for name in ["good.mp4", "silent.mp4"]:
        shutil.copy(media / name, tmp_path / name)
    table = corpus()
    table.loc[3, ["media", "start", "end"]] = ["silent.mp4", "", ""]
    table.loc[4, ["media", "start", "end"]] = ""
    path = written(tmp_path, lambda _: table, "media")

    def kept():
        save_corpus(tmp_path / "corpus", path)
        return {file.name: file.read_bytes() for file in (tmp_path / "corpus").iterdir()}

    before = kept()
    (tmp_path / "unused.mp4").write_bytes(b"not in the manifest")
    (tmp_path / "good.mp4").touch()
    assert kept() == before
    shutil.copy(media / "good.mp4", tmp_path / "silent.mp4")
    after = kept()
    assert [name for name in before if before[name] != after[name]] == ["corpus.json"]
    assert len(load_json(tmp_path / "corpus" / "corpus.json")["digest"]) == 64
    shutil.copy(media / "silent.mp4", tmp_path / "silent.mp4")
    assert kept() == before


def test_all_problems_at_once(media):
    """Three slips in the manifest and two broken files: five errors, in order, and the rest is read all the same."""
    table = corpus()
    for row, column, value in [(1, "labels", "Flod"), (3, "media", "gone.mp4"), (5, "start", "x")]:
        table.loc[row, column] = value
    table.loc[7, ["media", "start", "end"]] = ["half.mkv", "", ""]
    table.loc[9, ["media", "start", "end"]] = ["noise.mp4", "", ""]
    inspection = inspect_corpus(written(media, lambda _: table, "all"), CONCEPTS)
    assert [(problem.row, problem.column) for problem in inspection.errors] == [
        (3, "labels"),
        (5, "media"),
        (7, "start"),
        (9, "media"),
        (11, "media"),
    ]
    assert inspection.presence["pictures"].sum() == 42 and np.isnan(inspection.seconds).sum() == 3


def test_problems_of_a_hundred_rows_are_one_line(media):
    table = corpus().assign(media="half.mp4")
    shown = format_problems(inspect_corpus(written(media, lambda _: table, "same"), CONCEPTS))
    assert len([line for line in shown.splitlines() if "half.mp4" in line]) <= 2 and "rows 2–" in shown


@pytest.fixture(scope="module")
def extractors(media):
    frames = np.concatenate([read_frames(media / "good.mp4", 2, 75, i, i + 2) for i in range(6)])
    sounds = [read_waveform(media / "good.mp4", start=i, end=i + 1) for i in range(6)]
    visual = VisualExtractor(InceptionV3(random_inception(0, frames)), frames=1, size=75)
    from mmdisaster.static.soundnet import SoundNetFeatures

    return {"visual": visual, "audio": AudioExtractor(SoundNetFeatures(random_soundnet(0, sounds)))}


def test_a_run_with_five_percent_of_broken_clips_reports_each(media, extractors, tmp_path):
    """Forty clips: two broken files, a silent one, one that is only sound, one that is only text."""
    table = corpus()[:40]
    for row, name in [(4, "half.mkv"), (11, "noise.mp4"), (17, "silent.mp4"), (23, "sound.mp3"), (29, "")]:
        table.loc[row, ["media", "start", "end"]] = [name, "", ""]
    path = written(media, lambda _: table, "five")
    refused = format_problems(inspect_corpus(path, CONCEPTS, max_failures=0.04))
    assert "unreadable media: 2 of 40 clips; 4 % are allowed (max_failures)" in refused
    assert refused.endswith("can be skipped, with max_failures 0.05 or more.") and "A run can't start" in refused
    inspection = inspect_corpus(path, CONCEPTS, max_failures=0.05)
    shown = format_problems(inspection)
    assert "2 of 40 clips; 5 % are allowed" in shown and shown.endswith("A run can start.")
    assert inspection.can_start and [p.row for p in inspection.warnings if p.row] == [6, 13]
    manifest, failures = read_manifest(path, CONCEPTS), {}
    for modality, extractor in extractors.items():
        with pytest.raises(ExtractionError, match="2 of 40 clips could not be read.*\nrow 6, column 'media'"):
            extract(manifest, media, extractor, tmp_path / modality, shard_clips=16, max_failures=0.04)
        assert not (tmp_path / modality / "index.json").exists()
        report = extract(manifest, media, extractor, tmp_path / modality, shard_clips=16, max_failures=0.05)
        failures[modality] = report.failures
        clip_ids, sequences = read_store(tmp_path / modality)
        assert clip_ids == [f"c{i}" for i in range(40) if i not in (4, 11)] and report.clips == 38
        lacking = {"visual": ["c23", "c29"], "audio": ["c17", "c29"]}[modality]
        assert report.absent == lacking == np.array(clip_ids)[~read_presence(tmp_path / modality)].tolist()
        absent = np.isin(clip_ids, lacking)
        assert (sequences.values[np.repeat(absent, sequences.lengths)] == 0).all()
        assert (sequences.mean()[~absent] != 0).any(axis=1).all() and (sequences.lengths[absent] == 1).all()
    listed = pd.read_csv(write_failures(tmp_path / "failures.csv", failures))
    assert list(listed.columns) == ["clip_id", "row", "modality", "column", "value", "reason"]
    assert listed["clip_id"].tolist() == ["c4", "c4", "c11", "c11"] and listed["row"].tolist() == [6, 6, 13, 13]
    assert listed["modality"].tolist() == ["visual", "audio"] * 2
    assert listed["value"].tolist() == ["half.mkv"] * 2 + ["noise.mp4"] * 2
    assert listed["reason"].str.contains("is cut off|can't be decoded").all()


def test_a_mended_clip_is_extracted_and_nothing_else(media, extractors, tmp_path):
    table = corpus()[:12].assign(start=[str(i / 100) for i in range(12)], end="")
    table["media"] = [f"own-{i}.mp4" for i in range(12)]
    for name in table["media"]:
        (media / name).write_bytes((media / "silent.mp4").read_bytes())
    whole = (media / "own-3.mp4").read_bytes()
    (media / "own-3.mp4").write_bytes(whole[:900])
    manifest = read_manifest(written(media, lambda _: table, "mended"), CONCEPTS)
    store, visual = tmp_path / "store", extractors["visual"]
    assert len(extract(manifest, media, visual, store, shard_clips=4, max_failures=0.1).failures) == 1
    (media / "own-3.mp4").write_bytes(whole)
    report = extract(manifest, media, visual, store, shard_clips=4)
    assert report.computed == 1 and report.clips == 12 and not report.failures
