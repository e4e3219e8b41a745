"""Mulan's files of every kind that ARFF and its XML allow; what is wrong with one is said by file and line."""

import gzip

import numpy as np
import pytest
from conftest import ROOT

from mmdisaster.study.mulan import read_arff, read_mulan

FOLDER = ROOT.parent / "shared" / "benchmarks"
KNOWN = {  # instances, columns, labels, labels each, without any
    "emotions": (593, 72, 6, 1.868, 0),
    "scene": (2407, 294, 6, 1.074, 0),
    "yeast": (2417, 103, 14, 4.237, 0),
    "birds": (645, 277, 19, 1.014, 294),
}


def written(folder, table, labels, packed=False, name="toy"):
    xml = "".join(f'<label name="{label}"></label>' for label in labels)
    files = {
        f"{name}.arff": table,
        f"{name}.xml": f'<labels xmlns="http://mulan.sourceforge.net/labels">{xml}</labels>',
    }
    for file, text in files.items():
        data = text.encode()
        (folder / (file + ".gz" if packed else file)).write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("name", KNOWN)
def test_the_real_files(name):
    if not FOLDER.is_dir():
        pytest.skip("Mulan's files are not here; they are optional")
    data, (n, d, q, each, without) = read_mulan(FOLDER, name), KNOWN[name]
    assert data.X.shape == (n, d) and data.Y.shape == (n, q) and len(data.columns) == d and np.isfinite(data.X).all()
    assert round(data.Y.sum(axis=1).mean(), 3) == each and (data.Y.sum(axis=1) == 0).sum() == without
    if name == "birds":
        assert "Swainson's Thrush" in data.labels and "location=14" in data.columns


HEAD = """@relation toy
@attribute x numeric
@attribute sky {clear,'partly cloudy'}
@attribute a {0,1}
@attribute b {1,0}
@data
"""


def test_dense_and_sparse_rows_say_the_same(tmp_path):
    dense = read_mulan(written(tmp_path, HEAD + "0.5,'partly cloudy',1,0\n0,clear,0,1\n", ["b", "a"]), "toy")
    sparse = read_mulan(written(tmp_path, HEAD + "{0 0.5,1 'partly cloudy',2 1,3 0}\n{}\n", ["b", "a"]), "toy")
    assert dense.X.tolist() == sparse.X.tolist() == [[0.5, 0, 1], [0, 1, 0]]
    assert dense.Y.tolist() == sparse.Y.tolist() == [[0, 1], [1, 0]], "what a sparse row leaves out is the first value"
    assert dense.columns == ("x", "sky=clear", "sky=partly cloudy")


def test_comments_blanks_quotes_and_carriage_returns(tmp_path):
    table = (
        "% made by hand\r\n\r\n@RELATION 'a toy'\r\n  @Attribute \"it's, x\" REAL % unit\r\n@attribute\ty\tinteger\r\n"
        "@attribute 'Hammond\\'s Flycatcher' { 0 , 1 }\r\n@Data\r\n% none yet\r\n ?,\t3 ,'1'\r\n1e-3 2 0\r\n"
    )
    data = read_mulan(written(tmp_path, table, ["Hammond's Flycatcher"], packed=True), "toy")
    assert data.columns == ("it's, x", "y") and data.Y.tolist() == [[1], [0]] and data.X[1].tolist() == [0.001, 2]
    assert np.isnan(data.X[0, 0]) and data.X[0, 1] == 3


def test_a_hierarchy_of_labels(tmp_path):
    written(
        tmp_path, "@relation t\n@attribute a {0,1}\n@attribute x numeric\n@attribute b {0,1}\n@data\n1,2,0\n", ["a"]
    )
    (tmp_path / "toy.xml").write_text('<labels><label name="b"><label name="a"/></label></labels>', encoding="utf-8")
    assert read_mulan(tmp_path, "toy").labels == ["b", "a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,clear,0", "line 7: must have 4 values, had 3"),
        ("one,clear,0,1", "line 7: 'x' must be a finite number or \\?, was 'one'"),
        ("nan,clear,0,1", "line 7: 'x' must be a finite number"),
        ("1,rain,0,1", "line 7: 'sky' must be one of clear, partly cloudy, was 'rain'"),
        ("1,'clear,0,1", "line 7: must close each quote"),
        ("{4 1}", "line 7: must be places from 0 to 3, each with a value, was '4 1'"),
        ("{0 1}, {5}", "line 7: must be one pair of braces, without a weight"),
        ("1,clear,?,1", "label 'a' must be 0 or 1, was missing in instance 1"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=f"toy.arff.*{message}"):
        read_mulan(written(tmp_path, HEAD + row + "\n", ["a", "b"]), "toy")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("@relation t\n@attribute x string\n@data\n1\n", "line 2: type of attribute 'x' must be numeric"),
        ("@relation t\n@attribute x numeric\n@attribute x real\n", "line 3: attributes must have different names"),
        ("@relation t\n@attribute x numeric\n1\n", "line 3: must be @relation, @attribute or @data, was '1'"),
        ("@relation t\n@attribute x numeric\n", "must have a line @data"),
        ("@relation t\n@attribute x numeric\n@data\n", "must have attributes and rows, had 1 and 0"),
    ],
)
def test_a_wrong_header_is_named(tmp_path, table, message):
    (tmp_path / "toy.arff").write_text(table, encoding="utf-8")
    with pytest.raises(ValueError, match=f"toy.arff.*{message}"):
        read_arff(tmp_path / "toy.arff")


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold toy.arff and toy.xml"):
        read_mulan(tmp_path, "toy")
    written(tmp_path, HEAD, ["c"])
    (tmp_path / "toy.arff").write_bytes(b"@relation \xff\n")
    with pytest.raises(ValueError, match="toy.arff must be UTF-8 text"):
        read_mulan(tmp_path, "toy")
