"""Files of weights and word vectors: good ones of each format damaged, odd ones, and some that fill the memory."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gensim.models import KeyedVectors
from mutations import ODD, damaged
from safetensors.numpy import save

from mmdisaster.static.networks import check_arrays, random_arrays, read_weights, wanted_arrays
from mmdisaster.static.soundnet import SoundNet
from mmdisaster.weights.formats import NPY_NAMES, PTH_NAMES, read_soundnet_npy, read_soundnet_pth
from mmdisaster.words.vectors import read_vectors

WANTED = {"conv.weight": (4, 3, 2), "conv.bias": (4,)}  # of a small network
BOMB = b"\x80\x02]r\xff\xff\xff\x7f."  # numbers a part by 2³¹ - 1
SHORT = b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."  # a call that takes 2 GiB


def small(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Arrays of the small network."""
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in WANTED.items()}


def read_small(path: Path) -> None:
    """Read the small network's weights as those of a large one are."""
    check_arrays(read_weights(path), WANTED, path=path)


# --- torch's files ---------------------------------------------------------------------------------------------------


def tensors(random: np.random.Generator) -> list[Any]:
    """Tensors of every kind that torch saves."""
    plain = torch.from_numpy(random.normal(size=(4, 3)).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        csr, quantised = plain.to_sparse_csr(), torch.quantize_per_tensor(plain, 0.1, 3, torch.qint8)
    marked = plain.clone()
    marked.note = "an attribute"
    whole = [plain.to(getattr(torch, name)) for name in ("float64", "float16", "bfloat16", "int64", "bool", "uint16")]
    odd = [plain.to(torch.float8_e4m3fn), plain.to(torch.complex64), plain.to(torch.complex64).conj()]
    odd += [quantised, plain.to_sparse(), csr, nested, marked]
    views = [
        plain.t(),
        plain[::2],
        plain[:1].expand(4, 3),
        plain[:1, :1].expand(2**20, 2**20),
        plain.as_strided((6, 4), (1, 2)),
    ]
    empty = [
        plain[:0],
        torch.tensor(3.0),
        torch.empty(2**40, device="meta"),
        torch.nn.Parameter(plain),
        plain.to_sparse().t(),
    ]
    return [
        *whole,
        *odd,
        *views,
        *empty,
        "no tensor",
        5,
        None,
        {"inner": plain},
        [plain],
        np.ones(3),
        plain * float("nan"),
    ]


def torch_file(state: Any, zipped: bool = True) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def odd_torch(random: np.random.Generator) -> bytes:
    """One array of the small network is another kind of tensor."""
    state: dict[Any, Any] = {name: torch.from_numpy(array) for name, array in small(random).items()}
    found = tensors(random)
    state[str(random.choice(list(WANTED)))] = found[random.integers(len(found))]
    try:
        return torch_file(state, bool(random.random() < 0.7))
    except (RuntimeError, AttributeError, NotImplementedError):  # the older format has no words for some
        return torch_file(state)


def packed_torch(random: np.random.Generator) -> bytes:
    """A torch file whose parts are packed, one of them zeros without end."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file({"a": torch.ones(2)}))) as good:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in good.infolist():
                bomb = part.filename.endswith(str(random.choice(["data.pkl", "data/0"])))
                archive.writestr(part.filename, bytes(2**28) if bomb else good.read(part))
    return buffer.getvalue()


def longer_torch(random: np.random.Generator) -> bytes:
    """A torch file whose pickle claims other sizes than its parts have."""
    buffer, value = io.BytesIO(), int(ODD[random.integers(7)])
    with zipfile.ZipFile(io.BytesIO(torch_file({"a": torch.ones(2)}))) as good, zipfile.ZipFile(buffer, "w") as archive:
        for part in good.infolist():
            claimed = good.read(part).replace(b"K\x02", b"J" + (value % 2**31).to_bytes(4, "little"))
            archive.writestr(part.filename, claimed if part.filename.endswith("data.pkl") else good.read(part))
    return buffer.getvalue()


# --- safetensors -----------------------------------------------------------------------------------------------------


def safe_file(header: Any, data: bytes) -> bytes:
    """A safetensors file with any header."""
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(words).to_bytes(8, "little") + words + data


def odd_safe(random: np.random.Generator) -> bytes:
    """A safetensors file with one thing in its header that is wrong, or rare."""
    good = save(small(random))
    size = int.from_bytes(good[:8], "little")
    header, data = json.loads(good[8 : 8 + size]), good[8 + size :]
    entry = header[str(random.choice(list(WANTED)))]
    value = ODD[random.integers(len(ODD))]
    twice = json.dumps(header).replace('"conv.bias"', '"conv.weight"').encode()
    changes: list[Callable[[], Any]] = [
        lambda: entry.update(dtype=str(random.choice(["BF16", "F8_E4M3", "F16", "F4", "C64", "U64", "x", ""]))),
        lambda: entry.update(dtype=value),
        lambda: entry.update(shape=[value, *entry["shape"]]),
        lambda: entry.update(shape=[1] * 100 + entry["shape"]),
        lambda: entry.update(shape=[-1]),
        lambda: entry.update(data_offsets=[0, value]),
        lambda: entry.update(data_offsets=[8, 4]),
        lambda: entry.pop("data_offsets"),
        lambda: header.update({"__metadata__": {"a": 1}}),
        lambda: header.update({"a\0b": entry}),
    ]
    raw = [b"[" * 100_000, b"{" * 100_000, b'"' + b"a" * 10**6, b"\xff\xfe", b"", b"null", twice]
    chosen = int(random.integers(len(changes) + len(raw) + 1))
    if chosen < len(changes):
        changes[chosen]()
        return safe_file(header, data)
    if chosen < len(changes) + len(raw):
        return safe_file(raw[chosen - len(changes)], data)
    return int(value).to_bytes(8, "little") + good[8:]


# --- SoundNet's files ------------------------------------------------------------------------------------------------


def soundnet() -> dict[str, np.ndarray]:
    """Arrays of the whole network."""
    with torch.device("meta"):
        wanted = wanted_arrays(SoundNet())
    arrays = random_arrays(wanted, 0, 0.5)
    arrays["conv1.bn.running_mean"] = arrays["conv1.bn.running_mean"] + 1  # as if it were trained
    return arrays


def soundnet_npy(arrays: dict[str, np.ndarray]) -> bytes:
    """The network as a pickled dict in an .npy file."""
    names = {here: there for there, here in NPY_NAMES.items()}
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        layer, _, rest = name.partition(".")
        layers.setdefault(layer, {})[names[rest]] = array.transpose(2, 1, 0)[:, None] if array.ndim > 1 else array
    buffer = io.BytesIO()
    np.save(buffer, layers, allow_pickle=True)  # type: ignore[arg-type]
    return buffer.getvalue()


def soundnet_pth(arrays: dict[str, np.ndarray]) -> bytes:
    """The network as the state dict of another program."""
    names = {here: there for there, here in PTH_NAMES.items()}
    state = {}
    for name, array in arrays.items():
        layer, _, rest = name.rpartition(".")
        state[f"{names[layer]}.{rest}"] = torch.from_numpy(array[..., None] if array.ndim > 1 else array)
    return torch_file(state)


def odd_npy(random: np.random.Generator) -> bytes:
    """An .npy file of something else."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array({"conv1": {}}, dtype=object), allow_pickle=True)
    start = buffer.getvalue()[:128]
    hostile = [
        BOMB,
        SHORT,
        b"\x80\x04\x8e" + b"\xff" * 8,
        b"\x80\x04\x95" + b"\xff" * 8,
        b"]" * 10**6,
        pickle.dumps({1: {2: []}}),
    ]
    large = (
        np.lib.format.magic(1, 0)
        + b"v\0{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }".ljust(120)
        + b"\n"
    )
    plain = io.BytesIO()
    np.save(plain, np.ones(3))
    content = [*(start + program for program in hostile), large, plain.getvalue(), start, start[:9]]
    return content[random.integers(len(content))]


# --- word vectors ----------------------------------------------------------------------------------------------------


def vector_files(folder: Path, random: np.random.Generator) -> dict[str, bytes]:
    """The same words in each format."""
    words = ["storm", "flood", "café", ". . .", "rescue"] + [f"w{n}" for n in range(40)]
    vectors = random.normal(size=(len(words), 8)).astype(np.float32)
    rows = ["\t".join([word, *map(str, row)]) for word, row in zip(words, vectors, strict=True)]
    text = ("\n".join(rows).replace("\t", " ") + "\n").encode()
    keyed = KeyedVectors(8)
    keyed.add_vectors([word.replace(" ", "") for word in words], vectors)
    keyed.save_word2vec_format(str(folder / "base.bin"), binary=True)
    keyed.save_word2vec_format(str(folder / "base.vec"))
    keyed.save(str(folder / "base.kv"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("glove.txt", text)
    packed = {"gz": gzip.compress(text), "bz2": bz2.compress(text), "xz": lzma.compress(text), "zip": buffer.getvalue()}
    tabs = b"\xef\xbb\xbf" + ("\r\n".join(rows) + "\r\n\r\n").encode()
    return {"txt": text, "tabs": tabs, **packed} | {
        k: (folder / f"base.{k}").read_bytes() for k in ("bin", "vec", "kv")
    }


def hostile_vectors(random: np.random.Generator) -> bytes:
    """Word vectors that would fill the memory, or never end."""
    line = b"a " + b"0 " * 300 + b"\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.txt", line * 10**5)
    content: list[Callable[[], bytes]] = [
        lambda: gzip.compress(bytes(2**29), 1),
        lambda: bz2.compress(bytes(2**28)),
        lambda: lzma.compress(bytes(2**28)),
        archive.getvalue,
        lambda: gzip.compress(line * 10**6, 1),
        lambda: gzip.compress(b"a 1\n" * 10**7, 1),
        lambda: gzip.compress(b"a 1\n" + b"\n" * 10**8, 1),
        lambda: gzip.compress(b"\x80\x04" + b"]" * 10**8 + b".", 1),
        lambda: gzip.compress(gzip.compress(bytes(2**26))),
        lambda: b"a 1" * 10**7,
        lambda: b"a 1\n" * 10**6,
        lambda: b"999999999999999 10000\n" + b"a" * 10**6,
        lambda: b"2 10000\na " + bytes(10**5),
        lambda: BOMB,
        lambda: SHORT,
        lambda: b"\x80\x04\x8e" + b"\xff" * 8,
        lambda: b"",
        lambda: b"\xba\x16\x4f\x2f" + bytes(1000),
        lambda: b"\xff\xfe" + "storm 1 2\n".encode("utf-16-le"),
        lambda: b"storm 1 nan\n",
        lambda: b"storm,1,2\n",
        lambda: pickle.dumps({"index_to_key": [1, 2], "vectors": np.ones((2, 2), object)}, 4),
    ]
    return content[random.integers(len(content))]()


# --- all of them -----------------------------------------------------------------------------------------------------


def cases(seed: int, folder: Path, n: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Files of each format in turn, most of them damaged."""
    random = np.random.default_rng([seed, 0])
    vectors, large = vector_files(folder, random), soundnet()
    whole = {"npy": soundnet_npy(large), "pth": soundnet_pth(large)}
    state = {name: torch.from_numpy(array) for name, array in small(random).items()}
    files = {
        "zip.pth": torch_file(state),
        "old.pth": torch_file(state, zipped=False),
        "safetensors": save(small(random)),
    }
    for number in range(n):
        random = np.random.default_rng([seed, number])
        turn, name = number % 10, f"case-{number}"
        if turn < 2:
            kind = list(files)[random.integers(len(files))]
            name, content, read = f"{name}.{kind}", damaged(files[kind], random), read_small
        elif turn < 4:
            odd = [odd_torch, odd_torch, packed_torch, longer_torch][random.integers(4)]
            name, content, read = f"{name}.pth", odd(random), read_small
        elif turn == 4:
            name, content, read = f"{name}.safetensors", odd_safe(random), read_small
        elif turn == 5:
            kind = ["npy", "pth", "odd"][random.integers(3)]
            read = read_soundnet_pth if kind == "pth" else read_soundnet_npy  # type: ignore[assignment]
            name = f"{name}.{'pth' if kind == 'pth' else 'npy'}"
            content = odd_npy(random) if kind == "odd" else damaged(whole[kind], random)
        elif turn < 9:
            kind = list(vectors)[random.integers(len(vectors))]
            name, content = f"{name}.{kind}", damaged(vectors[kind], random)
            read = partial(read_vectors, malformed=str(random.choice(["error", "skip"])))  # type: ignore[assignment]
        else:
            name, content = f"{name}.txt", hostile_vectors(random)
            read = partial(read_vectors, malformed=str(random.choice(["error", "skip"])))  # type: ignore[assignment]
        path = folder / name
        path.write_bytes(content)
        yield name, partial(read, path)
