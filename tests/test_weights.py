"""Weights and word vectors of every kind that people have: read rightly, or refused in one line, within the memory."""

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import sys
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.numpy import save

from mmdisaster.core import load_arrays, load_provenance, save_arrays
from mmdisaster.fusion.algorithm1 import Algorithm1
from mmdisaster.fusion.saved import load_algorithm1, save_algorithm1
from mmdisaster.settings.sources import Glove
from mmdisaster.static.networks import check_arrays, read_weights
from mmdisaster.temporal.classifiers import DenseClassifier, load_classifier, save_classifier
from mmdisaster.words.pickles import RefusedPickle, unpickle_arrays
from mmdisaster.words.vectors import describe_vectors, load_vectors, make_vectors, read_vectors, save_vectors

sys.path.insert(0, str(ROOT / "tools"))
import fuzz  # noqa: E402
from mutations import WAYS, damaged  # noqa: E402

THIRDS = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 3


def one_line(error):
    return "\n" not in str(error.value).strip()


# --- torch's files ---------------------------------------------------------------------------------------------------

READ = {  # tensor → the numbers that it holds
    "bfloat16": (THIRDS.bfloat16(), THIRDS.bfloat16().float()),
    "float16": (THIRDS.half(), THIRDS.half()),
    "float64": (THIRDS.double(), THIRDS.double()),
    "gradient": (THIRDS.clone().requires_grad_(), THIRDS),
    "parameter": (torch.nn.Parameter(THIRDS), THIRDS),
    "conjugate": (torch.complex(THIRDS, THIRDS).conj(), torch.complex(THIRDS, -THIRDS)),
    "negative": (torch.complex(THIRDS, THIRDS).conj().imag, -THIRDS),
    "transposed": (THIRDS.t(), THIRDS.t().contiguous()),
    "overlapping": (THIRDS.as_strided((4, 3), (1, 1)), THIRDS.as_strided((4, 3), (1, 1)).contiguous()),
    "expanded": (THIRDS[:1].expand(5, 3), THIRDS[:1].repeat(5, 1)),
    "empty": (THIRDS[:0], THIRDS[:0]),
    "one number": (torch.tensor(2.5), torch.tensor(2.5)),
    "booleans": (THIRDS > 1, THIRDS > 1),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", READ)
def test_tensors_that_are_arrays(tmp_path, name, zipped):
    tensor, expected = READ[name]
    state = {"a": tensor, "again": tensor}  # of one storage
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "a.pth")
    for array in found.values():
        assert array.shape == tuple(expected.shape) and np.array_equal(array, expected.numpy())
    assert found["a"].flags.writeable and not np.shares_memory(found["a"], found["again"])


with warnings.catch_warnings(action="ignore"):
    ODD = {  # tensor → what is said of it
        "sparse": (torch.eye(3).to_sparse(), "'a' must be a dense tensor, is sparse"),
        "rows": (torch.eye(3).to_sparse_csr(), "'a' must be a dense tensor, is sparse"),
        "meta": (torch.empty(2**40, device="meta"), "'a' must be a dense tensor, is on the meta device"),
        "quantised": (
            torch.quantize_per_tensor(THIRDS, 0.1, 3, torch.qint8),
            "'a' must be a dense tensor, is quantised",
        ),
        "nested": (
            torch.nested.nested_tensor([THIRDS[0], THIRDS[0, :1]]),
            "dense tensors only, but holds a nested one",
        ),
        "float8": (THIRDS.to(torch.float8_e4m3fn), "'a' must hold plain numbers, holds float8_e4m3fn"),
        "wide": (THIRDS[:1, :1].expand(2**20, 2**20), "'a' must have at most 134,217,728 values"),
        "text": ("a", "'a' must be a tensor, is a str"),
        "inside": ({"b": THIRDS}, "'a' must be a tensor, is a dict"),
        "array": (np.ones(3), "must hold tensors only"),
    }


@pytest.mark.parametrize("name", ODD)
def test_tensors_that_are_no_arrays_are_named(tmp_path, name):
    torch.save({"a": ODD[name][0]}, tmp_path / "odd.pth")
    with pytest.raises(ValueError) as caught:
        read_weights(tmp_path / "odd.pth")
    assert ODD[name][1] in str(caught.value) and "odd.pth" in str(caught.value) and one_line(caught)


def test_only_real_finite_numbers_become_weights():
    wanted = {"a": (2, 3)}
    for array, says in [(np.full((2, 3), 1j), "holds complex128"), (np.full((2, 3), 1e300), "must be finite")]:
        with pytest.raises(ValueError, match=f"weights: f.pth: 'a' .*{says}"):
            check_arrays({"a": array}, wanted, path="f.pth")


def repacked(content, change, method):
    """A torch file with its parts changed and packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as good, zipfile.ZipFile(buffer, "w", method) as archive:
        for part in good.infolist():
            archive.writestr(part.filename, change(part.filename, good.read(part)))
    return buffer.getvalue()


def torch_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


PLAIN = torch_file({"a": THIRDS})
HOSTILE = {  # file → what is said of it
    "memo": (b"\x80\x02]r\xff\xff\xff\x7f.", "it gives the number 2,147,483,647 to one of 2 parts"),
    "call": (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "must hold tensors only.*builtins.bytearray"),
    "zeros": (
        repacked(PLAIN, lambda name, data: bytes(2**24), zipfile.ZIP_DEFLATED),
        "unpack to more than the file holds",
    ),
    "claims": (
        repacked(PLAIN, lambda name, data: data.replace(b"K\x06", b"J\xff\xff\xff\x7f"), zipfile.ZIP_STORED),
        "size",
    ),
    "empty": (b"", "damaged"),
    "cut off": (PLAIN[:-100], "damaged"),
    "text": (b"no tensors", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_torch_files_that_would_fill_the_memory(tmp_path, name):
    (tmp_path / "hostile.pth").write_bytes(HOSTILE[name][0])
    with pytest.raises(ValueError, match=f"hostile.pth.*{HOSTILE[name][1]}") as caught:
        read_weights(tmp_path / "hostile.pth")
    assert one_line(caught)


# --- safetensors -----------------------------------------------------------------------------------------------------


def safe(header, data=bytes(24)):
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(words).to_bytes(8, "little") + words + data


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


UNSAFE = {
    "truncated": safe({"a": entry()})[:-1],
    "header's length": (2**63).to_bytes(8, "little") + safe({"a": entry()}),
    "overlapping": safe({"a": entry(), "b": entry(offsets=(12, 36))}, bytes(36)),
    "type": safe({"a": entry("F31")}),
    "type is a number": safe({"a": entry(7)}),
    "float8": safe({"a": entry("F8_E4M3", (24,))}),
    "shape": safe({"a": entry(shape=(2**40, 2**40))}),
    "negative": safe({"a": entry(shape=(-1,))}),
    "dimensions": safe({"a": entry(shape=[1] * 100 + [6])}),
    "twice": safe(b'{"a":%s,"a":%s}' % (json.dumps(entry()).encode(), json.dumps(entry(offsets=(24, 48))).encode())),
    "no JSON": safe(b"\xff\xfe{"),
    "deep": safe(b"[" * 10**5),
    "empty": b"",
}


@pytest.mark.parametrize("name", UNSAFE)
def test_damaged_safetensors(tmp_path, name):
    path = tmp_path / "odd.safetensors"
    path.write_bytes(UNSAFE[name])
    with pytest.raises(ValueError, match="weights: .*odd.safetensors") as caught:
        read_weights(path)
    assert one_line(caught)


def test_half_of_a_float_is_read(tmp_path):
    (tmp_path / "half.safetensors").write_bytes(
        safe({"a": entry("BF16", (2,), (0, 4)), "b\0": entry("F16", (1,), (4, 6))}, b"\x80\x3f\x00\xc0\x00\x3c")
    )
    found = read_weights(tmp_path / "half.safetensors")
    assert found["a"].tolist() == [1, -2] and found["a"].dtype == np.float32 and found["b\0"].tolist() == [1]


# --- pickles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # LONG_BINPUT
        b"]p4000000000\n.",  # PUT
        b"]p-1\n.",
        b"\x80\x04\x8e" + b"\xff" * 8,  # BINBYTES8
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f",  # BYTEARRAY8
        b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].",  # FRAME
        b"(" * 10**5,
    ],
)
def test_pickles_that_ask_for_more_than_they_have(program):
    with pytest.raises(RefusedPickle) as caught:
        unpickle_arrays(io.BytesIO(program))
    assert one_line(caught)


# --- word vectors ----------------------------------------------------------------------------------------------------

TEXT = b"storm 1 2 3\nflood 4 5 6\n"
SAME = {  # ways to write the same words
    "blank end": TEXT + b"\n\n  \n",
    "byte order mark": b"\xef\xbb\xbf" + TEXT,
    "tab after the word": TEXT.replace(b"m ", b"m\t").replace(b"d ", b"d\t"),
    "tabs": TEXT.replace(b" ", b"\t"),
    "lines as on Windows": TEXT.replace(b"\n", b"\r\n") + b"\r\n",
    "spaces at the end": TEXT.replace(b"\n", b" \n"),
    "header": b"2 3\n" + TEXT,
    "header, byte order mark": b"\xef\xbb\xbf2 3\n" + TEXT + b"\n",
    "header, tabs": b"2\t3\r\n" + TEXT.replace(b" ", b"\t"),
    "gz": gzip.compress(TEXT),
    "bz2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
}


@pytest.mark.parametrize("name", SAME)
def test_ways_to_write_word_vectors(tmp_path, name):
    (tmp_path / "vectors").write_bytes(SAME[name])
    found = read_vectors(tmp_path / "vectors")
    assert found.words == ["storm", "flood"] and found.vectors.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert not found.skipped and not found.left_out


def test_the_only_file_of_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("glove/", b"")
        archive.writestr("glove/vectors.txt", TEXT)
    assert read_vectors(tmp_path / "one.zip").words == ["storm", "flood"]
    with zipfile.ZipFile(tmp_path / "one.zip", "a") as archive:
        archive.writestr("more.txt", TEXT)
    with pytest.raises(ValueError, match="zip archive of 2 files .'glove/vectors.txt', 'more.txt'., unpack it"):
        read_vectors(tmp_path / "one.zip")


def test_words_with_spaces_also_in_the_first_line(tmp_path):
    (tmp_path / "v.txt").write_bytes(b". . . 1 2\nat name@domain.com 3 4\n2 5 6\nnan 7 8\n")
    found = read_vectors(tmp_path / "v.txt")
    assert found.words == [". . .", "at name@domain.com", "2", "nan"] and found.vectors[:, 0].tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("malformed", ["error", "skip"])
def test_a_repeated_word_keeps_its_first_vector_and_is_counted(tmp_path, malformed):
    """In the pipeline too, and to disk and back."""
    path = tmp_path / "twice.txt"
    path.write_bytes(TEXT + b"storm 7 8 9\n" * 3 + (b"surge x\n" if malformed == "skip" else b""))
    found = make_vectors(Glove(source=str(path), malformed=malformed), ["a storm"])
    assert found.words_ == ["storm", "flood"] and found.vectors_[0].tolist() == [1, 2, 3]
    repeats, wrong = found.skipped_[:3], found.skipped_[3:]
    assert all("repeats the word 'storm'" in line for line in repeats) and len(wrong) == (malformed == "skip")
    again = load_vectors(save_vectors(tmp_path / "kept.safetensors", found))
    assert describe_vectors(again)["skipped"] == describe_vectors(found)["skipped"] == len(found.skipped_)


def test_what_is_left_out_is_counted_whole_and_told_in_part(tmp_path):
    (tmp_path / "many.txt").write_bytes(b"storm 1\n" * 5000)
    found = read_vectors(tmp_path / "many.txt")
    assert found.words == ["storm"] and found.left_out == 4999 and len(found.skipped) == 1000


FOREIGN = {  # content → what is said of it
    "fastText": (b"\xba\x16\x4f\x2f\x0c" + bytes(99), "a model of fastText"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(99), "Zstandard"),
    "npy": (b"\x93NUMPY" + bytes(99), "an array of NumPy"),
    "page": (b"<!DOCTYPE html><p>Not found", "a web page"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    "UTF-16": ("storm 1 2\n".encode("utf-16"), "UTF-16"),
    "safetensors": (save({"a": np.ones(3)}), "a safetensors file"),
    "tar": (gzip.compress(b"a.txt".ljust(257, b"\0") + b"ustar" + bytes(300)), "a tar archive"),
    "commas": (b"storm,1,2\n", "line 1: must be a word and its numbers, separated by spaces or tabs"),
    "letters": (b"storm 1 o.5 2\n", "line 1: b'o.5' is not a number"),
    "zeros gz": (gzip.compress(bytes(2**26)), "unpacks to more than|has a line of more than"),
    "lines gz": (gzip.compress(b"a 1\n" * 10**6, 1), "repeats words, or is wrong, in 100,001 of 100,002"),
    "zeros bz2": (bz2.compress(bytes(2**25)), "unpacks to more than|has a line of more than"),
    "zeros xz": (lzma.compress(bytes(2**25)), "unpacks to more than|has a line of more than"),
    "cut bz2": (bz2.compress(TEXT * 999)[:-9], "damaged or cut off"),
    "cut xz": (lzma.compress(TEXT * 999)[:-9], "damaged or cut off"),
    "no end": (b"storm 1" * 10**6, "has a line of more than"),
    "blank": (b"\n\n\n", "line 1: must be a word and its numbers"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_holds_no_word_vectors_is_named(tmp_path, name):
    (tmp_path / "other").write_bytes(FOREIGN[name][0])
    with pytest.raises(ValueError, match=f"other: .*({FOREIGN[name][1]})") as caught:
        read_vectors(tmp_path / "other")
    assert one_line(caught)


CASES = ROOT.parent / "shared" / "cases" / "vectors"


@pytest.mark.skipif(not CASES.is_dir(), reason="inputs from the field are not here")
@pytest.mark.parametrize("name", ["dup.txt", "blank_end.txt", "bom.txt"])
def test_inputs_from_the_field(name):
    found = read_vectors(CASES / name)
    assert found.words[:2] == ["the", "storm"] and found.vectors.shape[1] == 5
    assert found.left_out == (name == "dup.txt") and len(set(found.words)) == len(found.words)


# --- saved networks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small network in a file, its answers for some inputs, and these."""
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(20, 4)).astype(np.float32), random.integers(0, 2, (20, 2))
    network = DenseClassifier(hidden=(3,), max_epochs=2).fit(X, Y)
    path = save_classifier(tmp_path_factory.mktemp("network") / "network.safetensors", network)
    return path, X, network.predict_proba(X)


def test_a_network_in_double_precision_is_one_in_single(saved, tmp_path):
    path, X, expected = saved
    double = {name: array.astype(np.float64) for name, array in load_arrays(path).items()}
    found = load_classifier(save_arrays(tmp_path / "double.safetensors", double, load_provenance(path)))
    assert np.array_equal(found.predict_proba(X), expected)


FORGED = {  # changes of header and arrays → what is said of them
    "many layers": (lambda h, a: h["params"].update(hidden=[1] * 10**5), "an array for each of its layers"),
    "wide": (lambda h, a: h["params"].update(hidden=[16_384]), "must have shape"),
    "too wide": (lambda h, a: h["params"].update(hidden=[10**9]), "hidden"),
    "concepts": (lambda h, a: h.update(n_concepts=10**9), "an array for each of its layers"),
    "a text": (lambda h, a: h.update(params="x"), "must hold a trained network"),
    "no parameters": (lambda h, a: h.pop("params"), "it lacks 'params'"),
    "unknown": (lambda h, a: h["params"].update(more=1), "more"),
    "nan": (lambda h, a: a.update(mean=a["mean"] * np.nan), "'mean' must be finite"),
    "scale": (lambda h, a: a.update(scale=a["scale"] * 0), "above 0"),
    "missing": (lambda h, a: a.pop("network.0.bias"), "'network.0.bias' is missing"),
    "too many": (lambda h, a: a.update(more=np.ones(2)), "'more' is missing or too many"),
    "whole numbers": (lambda h, a: a.update(mean=np.ones(4, int)), "'mean' must have shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_network_that_its_file_does_not_hold(saved, tmp_path, name):
    header, arrays = load_provenance(saved[0]), load_arrays(saved[0])
    change, says = FORGED[name]
    change(header, arrays)
    path = save_arrays(tmp_path / "forged.safetensors", arrays, header)
    with pytest.raises(ValueError, match=f"forged.safetensors must hold a trained network: .*{says}|{says}") as caught:
        load_classifier(path)
    assert "forged.safetensors" in str(caught.value) and one_line(caught)


# --- the tool that makes such files ----------------------------------------------------------------------------------


def test_damage_is_decided_by_the_seed():
    content = bytes(range(256)) * 8
    made = [damaged(content, np.random.default_rng([7, number])) for number in range(30)]
    assert made == [damaged(content, np.random.default_rng([7, number])) for number in range(30)]
    assert len(set(made)) == 30 and content not in made
    for way in WAYS:
        changed = bytearray(content)
        way(changed, np.random.default_rng(3))
        assert changed != content or way.__name__ in ("zero", "swap"), way


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def refuse():
    raise ValueError("case: is no such file")


def refuse_in_lines():
    raise ValueError("case:\nis no such file")


def take_memory():
    return len(np.ones(2**26)), time.sleep(30)


OUTCOMES = {
    "read": lambda: 3,
    "refused": refuse,
    "disagreement": lambda: "disagreement: one says so, one doesn't",
    "traceback": lambda: {}["case"],
    "traceback ": refuse_in_lines,
    "traceback  ": crash,
    "hang": lambda: time.sleep(30),
    "memory": take_memory,
    "refused ": ["mmdisaster", "check", "/nowhere/none.csv"],
    "read ": [sys.executable, "-c", "import sys; print(sys.argv)", "x"],
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are tried in forked processes")
def test_each_outcome_is_told_from_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "BYTES", 2**50)  # a copy of this process begins with all that other tests have left
    (first,) = fuzz.tried(iter([fuzz.Case("x", 0, "case", OUTCOMES["read"], tmp_path / "first")]), 1)
    monkeypatch.setattr(fuzz, "BYTES", first.peak + 2**28)
    cases = [fuzz.Case("x", i, "case", action, tmp_path / str(i)) for i, action in enumerate(OUTCOMES.values())]
    hang = cases.pop([*OUTCOMES].index("hang"))
    found = {case.number: case for case in fuzz.tried(iter(cases), 5)}
    monkeypatch.setattr(fuzz, "SECONDS", 1.0)
    (found[hang.number],) = fuzz.tried(iter([hang]), 1)
    assert [found[i].outcome for i in range(len(OUTCOMES))] == [name.strip() for name in OUTCOMES]


@pytest.mark.parametrize("name", ["a" * 5000, "two\nlines", "\x1b[2J"])
def test_a_type_that_no_model_has_is_named_in_a_line(tmp_path, name):
    """Whoever made the file chose the name."""
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(40, 3)), random.integers(0, 2, (40, 2))
    path = save_algorithm1(tmp_path / "a.skops", Algorithm1(n_trees=2).fit(X, Y))
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    parts["schema.json"] = json.dumps(json.loads(parts["schema.json"]) | {"__class__": name}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    with pytest.raises(ValueError, match="holds types that no model has") as caught:
        load_algorithm1(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300
