"""Tables as other programs and other computers write them: read where that is certain, told where it isn't."""

import time
import tracemalloc
import unicodedata

import pandas as pd
import pytest

from mmdisaster.data.clips import read_clips, stream_clips
from mmdisaster.data.inspection import format_problems, inspect_corpus
from mmdisaster.data.manifest import ManifestError, check_manifest, read_manifest

OTHERWISE = [
    "['Flood', 'Fire']", '["Flood", "Fire"]', "[Flood, Fire]", "('Flood', 'Fire')", "{'Flood', 'Fire'}", "{Flood,Fire}",
    "Flood; Fire", "Flood;Fire", "Flood, Fire", "Flood,Fire", "“Flood”, “Fire”", "“Flood”|“Fire”", "‘Flood’|‘Fire’",
    "„Flood“; „Fire“", "«Flood», «Fire»", "'Flood'|'Fire'", "Flood、Fire", "Flood；Fire", "Flood｜Fire", "Flood\tFire",
    "['Flood' 'Fire']", "frozenset({'Flood', 'Fire'})", "array(['Flood', 'Fire'], dtype=object)", "[“Flood”, “Fire”]",
]  # fmt: skip


def table(labels=("Flood", "Fire"), n=30, **columns):
    """A table of clips of one file."""
    found = {"clip_id": [f"c{i}" for i in range(n)], "media": "a.mp4", "start": range(n), "end": range(1, n + 1)}
    return pd.DataFrame(found | {"labels": [labels[i % len(labels)] for i in range(n)]} | columns)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.mp4").touch()
    return tmp_path


def written(folder, made):
    """A table, or the bytes of a file, as a file."""
    path = folder / "clips.csv"
    path.write_bytes(made if isinstance(made, bytes) else made.to_csv(index=False).encode())
    return path


@pytest.mark.parametrize("everywhere", [True, False], ids=["all rows", "one row"])
@pytest.mark.parametrize("label", OTHERWISE)
def test_labels_in_another_notation(folder, label, everywhere):
    """Never concepts without a word, and how to write them."""
    labels = (label,) if everywhere else ("Flood", "Fire", *["Flood", "Fire"] * 14)
    found = table(labels)
    found.loc[4, "labels"] = label
    path = written(folder, found)
    for concepts in (None, ["Flood", "Fire"]):
        with pytest.raises(ManifestError, match=r"must be concepts joined by '\|', was .*; write 'Flood\|Fire'"):
            read_manifest(path, concepts)
    assert not inspect_corpus(path, media=False).can_start


@pytest.mark.parametrize("label", ["[]", "set()", '{"Flood": 1, "Fire": 0}', "nan", "#REF!", "“Flood”", "x" * 300])
def test_labels_that_name_nothing_or_one_thing_strangely(folder, label):
    found = table()
    found.loc[4, "labels"] = label
    with pytest.raises(ManifestError, match="row 6, column 'labels': must (be concepts|name concepts)"):
        read_manifest(written(folder, found))


def test_a_name_with_a_comma_is_read_where_it_is_stated(folder):
    names = ["Wind, rain", "[other]", "Flood/Storm (river)"]
    assert set(read_manifest(written(folder, table(names)), names)["labels"]) == set(names)


@pytest.mark.parametrize("form, other", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("name", ["Überschwemmung.mp4", "médias/été à Orléans.mp4", "한국어/홍수.mp4"])
def test_a_name_finds_its_file_in_either_spelling(tmp_path, name, form, other):
    there, asked = unicodedata.normalize(form, name), unicodedata.normalize(other, name)
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    path = written(tmp_path, table(media=asked))
    assert set(read_manifest(path)["media"]) == {there} and read_clips(path)[0].media == tmp_path / there
    (tmp_path / asked).parent.mkdir(exist_ok=True)
    (tmp_path / asked).touch()  # both are there: the name as it is written
    assert set(read_manifest(path)["media"]) == {asked} and read_clips(path)[0].media == tmp_path / asked


def test_a_mixed_spelling_finds_its_file(tmp_path):
    there = unicodedata.normalize("NFD", "Über") + "/" + unicodedata.normalize("NFC", "für.mp4")
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    asked = unicodedata.normalize("NFC", "Über") + "/" + unicodedata.normalize("NFD", "für.mp4")
    assert set(read_manifest(written(tmp_path, table(media=asked)))["media"]) == {there}


TEXT = table().to_csv(index=False)
TOLD = {  # kind → file, what is said of it
    "sep": ("sep=,\n" + TEXT, "row 1: must name the columns, is a note for a spreadsheet, was 'sep=,'; take this"),
    "quoted sep": ('"sep=;"\n' + TEXT, "row 1: must name the columns, is a note for a spreadsheet"),
    "comment": ("# made by hand\n" + TEXT, "row 1: must name the columns, is a comment"),
    "comment inside": (TEXT + "# the end\n", "row 32: must be a clip, is a comment, was '# the end'"),
    "pipes": (TEXT.replace(",", "|"), "row 1: cells must be separated by commas, was '|'"),
    "short row": (TEXT + "c99,a.mp4\n", "row 32: must have 5 cells, as the header has, was 2 cells"),
    "behind quotes": (TEXT + 'c99,v,"wind"y,Fire,Flood\n', "row 32: must be cells between commas: ',' expected after"),
    "Labels": (table(Labels="x"), "row 1, column 'Labels': is there beside 'labels'; take one of them out"),
    "Clip ID": (table(**{"Clip ID": "x"}), "row 1, column 'Clip ID': is there beside 'clip_id'"),
    "LABELS alone": (TEXT.replace("labels", "LABELS"), "'LABELS': is unknown; did you mean 'labels'?"),
    "video id": (table(**{"Video-ID": "v"}), "row 1, column 'Video-ID': is unknown; did you mean 'video_id'?"),
    "control": (table(("Flood\x1b[2J", "Fire")), "column 'labels': must be text without control characters"),
    "control in id": (table(video_id="v\x07"), "column 'video_id': must be text without control characters"),
    "long id": (table(video_id="v" * 5000), "column 'video_id': must be a name of 1,000 characters at most"),
    "backslash": (table(media=".\\a.mp4"), "must name an existing file, was '.\\\\a.mp4'; write './a.mp4'"),
    "backslashes": (table(media="media\\none.mp4"), "was 'media\\\\none.mp4'; folders are joined by '/'"),
    "address": (table(media="https://example.org/a.mp4"), "nothing is fetched unless corpus.remote is true (--remote)"),
    "UTF-16 without mark": (TEXT.encode("utf-16-le"), "row 1: must be text, was '\\x00'; save it as 'CSV UTF-8'"),
    "texts": (table([f"text {i}" for i in range(10_001)], 10_001), "must name 10,000 different concepts at most"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOLD)
def test_tables_that_are_told(folder, kind):
    made, message = TOLD[kind]
    path = written(folder, made.encode() if isinstance(made, str) else made)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert message in str(caught.value)
    shown = format_problems(inspect_corpus(path, media=False))
    assert message in shown.replace("rows 2–31, ", "row 2, ") and max(map(len, shown.splitlines())) < 2000


def test_what_nobody_says_of_clips_is_no_column(folder):
    """Without `video_id` a file is a video; without `text` there is none."""
    (folder / "b.mp4").touch()
    found = table(media=["a.mp4"] * 20 + ["b.mp4"] * 10)
    read = read_manifest(written(folder, found))
    assert read["video_id"].tolist() == found["media"].tolist() and set(read["text"]) == {""}
    inspection = inspect_corpus(written(folder, found), media=False)
    assert inspection.can_start and inspection.videos == 2
    assert "with text: 0 clips" in format_problems(inspection)
    with pytest.raises(ManifestError, match="column 'video_id': must name the source video, was empty"):
        read_manifest(written(folder, found.assign(video_id="")))


LONG = "|".join(f"l{i}" for i in range(100_000))
LARGE = {
    "20,000 labels": lambda: table([f"label {i}" for i in range(20_000)], 20_000),
    "9,000 labels": lambda: table([f"label {i}" for i in range(9000)], 20_000),
    "100,000 labels of a clip": lambda: table([LONG, *["Flood", "Fire"] * 15]),
    "5,000 files that aren't there": lambda: table(n=5000, media=[f"Ü{i}.mp4" for i in range(5000)]),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_tables_take_no_longer_than_their_size(folder, kind):
    path = written(folder, LARGE[kind]())
    start = time.process_time()
    found = inspect_corpus(path, media=False)
    assert len(format_problems(found)) < 30_000 and time.process_time() - start < 20  # a quadratic step took minutes


def test_a_parquet_file_that_would_fill_memory(folder, monkeypatch):
    monkeypatch.setattr("mmdisaster.data.tables.MOST_CELLS", 100)
    table().to_parquet(folder / "clips.parquet")
    problems = check_manifest(folder / "clips.parquet")[1]
    assert "must have 100 cells and 1,073,741,824 bytes at most, has 30 rows, 5 columns" in str(problems[0])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_long_table_of_clips_is_read_in_portions(tmp_path, kind):
    """A hundred thousand rows; the first clip is there before the others are read."""
    path, count = tmp_path / f"long.{kind}", 100_000
    table = pd.DataFrame({"clip_id": [f"c{i}" for i in range(count)], "text": ["water in the street"] * count})
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path, row_group_size=10_000)
    tracemalloc.start()
    clips = stream_clips(path, 100)
    found = [next(clips) for _ in range(1000)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[-1].clip_id == "c999" and found[-1].row == 1001 and peak < 5_000_000
