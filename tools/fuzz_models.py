"""Folders of models: one good model, of which each case changes a file, with its digest or behind it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from mutations import damaged
from smoke import SETTINGS

from mmdisaster.core import digest_file, digest_json, load_json, save_arrays

CONCEPTS = ["Flood/Storm", "Damage", "Speak/Briefing/Interview"]
VALUES: list[Any] = [
    None, True, 0, 1, -1, 2, 0.5, 10**6, 10**9, 2**31, 2**63, 10**30, 1e300, float("nan"), float("inf"), "", "x",
    "../x",
    "a" * 10**5, [], [1], [[]], [None], {}, {"a": 1}, "cuda:7", ["visual"], ["visual"] * 1000, "\ud800", "\0",
]  # fmt: skip


def make(folder: Path) -> None:
    """Train good models on the clips of `folder/corpus`: of three modalities, and of two, which is quicker to try."""
    from mmdisaster.model.folder import save_model
    from mmdisaster.model.training import train
    from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus

    counts, two = (
        dict(zip(CONCEPTS, [14, 10, 12], strict=True)),
        {"modalities": {name: SETTINGS["modalities"][name] for name in ["audio", "text"]}},
    )
    small = SimulationSettings(24, 12, counts, 100, 76, seconds=1.2, seed=5)
    manifest = simulate_corpus(folder / "corpus", small, workers=1)
    save_model(folder / "model-3", train(manifest, folder / "work", CONCEPTS, SETTINGS))
    save_model(folder / "model-2", train(manifest, folder / "work", CONCEPTS, SETTINGS | two))
    shutil.rmtree(folder / "work")


def sign(folder: Path) -> None:
    """Give the description the digests that files have now, as an intruder would."""
    about = load_json(folder / "model.json")
    about.pop("digest", None)
    for name in about["files"]:
        if (folder / name).is_file() and (folder / name).stat().st_nlink == 1:  # else it is the good model's
            about["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": digest_file(folder / name)}
    write(folder / "model.json", json.dumps(about | {"digest": digest_json(about)}).encode())


def write(path: Path, content: bytes) -> None:
    """Put other bytes at a path, without touching the file that it is linked with."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


# --- changes of one file ---------------------------------------------------------------------------------------------


def places(tree: Any, at: tuple = ()) -> Iterator[tuple]:
    """The places of all values in a tree of dicts and lists."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in inside:
        yield (*at, name)
        yield from places(value, (*at, name))


def change_tree(tree: Any, random: np.random.Generator) -> None:
    """One value of a tree is another, or missing."""
    found = list(places(tree))
    *path, last = found[random.integers(len(found))]
    for name in path:
        tree = tree[name]
    if random.random() < 0.2:
        del tree[last]
    else:
        tree[last] = VALUES[random.integers(len(VALUES))]


def description(folder: Path, random: np.random.Generator) -> None:
    """A value in model.json, its digest made to fit."""
    about = load_json(folder / "model.json")
    about.pop("digest")
    change_tree(about["settings"] if random.random() < 0.5 else about, random)
    text = json.dumps(about)
    write(folder / "model.json", json.dumps(json.loads(text) | {"digest": digest_json(json.loads(text))}).encode())


def arrays_of(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Arrays and provenance of a safetensors file."""
    from mmdisaster.core import load_arrays, load_provenance

    return load_arrays(path), load_provenance(path)


def network(folder: Path, random: np.random.Generator) -> None:
    """Arrays, or the header, of a temporal network, or of word vectors."""
    names = [*sorted(folder.glob("temporal-*")), folder / "weights-text.safetensors"]
    path = names[random.integers(len(names))]
    arrays, header = arrays_of(path)
    name = list(arrays)[random.integers(len(arrays))]
    array = arrays[name]
    plain = array.dtype.kind == "f"
    changes: list[Callable[[], Any]] = [
        lambda: change_tree(header, random),
        lambda: change_tree(header["params"], random),
        lambda: arrays.update({n: a.astype(np.float64) for n, a in arrays.items() if a.dtype.kind == "f"}),
        lambda: arrays.update({name: array * np.float32(1e38) if plain else array[::-1]}),
        lambda: arrays.update({name: array * np.float32(np.nan) if plain else array[:0]}),
        lambda: arrays.update({name: array.astype(np.int64)}),
        lambda: arrays.update({name: array[:1]}),
        lambda: arrays.update({name: np.zeros((0, 3), np.float32)}),
        lambda: arrays.update({name: array[None]}),
        lambda: arrays.pop(name),
        lambda: arrays.update({"more": array}),
        lambda: arrays.update({n: a * np.float32(1e30) for n, a in arrays.items() if a.dtype.kind == "f"}),
    ]
    changes[random.integers(len(changes))]()
    path.unlink()
    save_arrays(path, arrays, header)
    sign(folder)


def repacked(path: Path, change: Callable[[dict[str, bytes]], Any], packed: bool = False) -> None:
    """An archive with some parts changed."""
    with ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED if packed else 0) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    write(path, buffer.getvalue())


def fitted(folder: Path, random: np.random.Generator) -> None:
    """Parts of algorithm1.skops: its schema, its arrays, or what they unpack to."""

    def schema(parts: dict[str, bytes]) -> None:
        tree = json.loads(parts["schema.json"])
        change_tree(tree, random)
        parts["schema.json"] = json.dumps(tree).encode()

    def entry(parts: dict[str, bytes]) -> None:
        name = sorted(set(parts) - {"schema.json"})[random.integers(len(parts) - 1)]
        array = np.load(BytesIO(parts[name]), allow_pickle=False)
        others = [
            array * np.float32(np.nan),
            array * 1e300,
            np.atleast_1d(array)[:1],
            np.zeros((0,)),
            array.astype(np.float32),
            -array - 9,
        ]
        buffer = BytesIO()
        np.save(buffer, others[random.integers(len(others))] if array.dtype != bool else np.atleast_1d(array)[:1])
        parts[name] = buffer.getvalue()

    def claim(parts: dict[str, bytes]) -> None:
        name = sorted(set(parts) - {"schema.json"})[random.integers(len(parts) - 1)]
        header = b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"
        parts[name] = (header % random.choice([10**7, 10**9, 10**12, 2**62])).ljust(127) + b"\n"

    def bytes_of(parts: dict[str, bytes]) -> None:
        name = sorted(parts)[random.integers(len(parts))]
        parts[name] = damaged(parts[name], random)

    def deep(parts: dict[str, bytes]) -> None:
        parts["schema.json"] = b'{"a":' * 10**5

    def bomb(parts: dict[str, bytes]) -> None:
        parts[sorted(parts)[random.integers(len(parts))]] = bytes(2**28)

    chosen = [schema, schema, schema, entry, entry, claim, bytes_of, deep, bomb][random.integers(9)]
    repacked(folder / "algorithm1.skops", chosen, packed=chosen is bomb)
    sign(folder)


def static(folder: Path, random: np.random.Generator) -> None:
    """Arrays of a static network."""
    path = sorted(folder.glob("weights-[av]*"))[-1]
    arrays, header = arrays_of(path)
    name = list(arrays)[random.integers(len(arrays))]
    factor = np.float32(random.choice([np.nan, 1e30, 0]))
    if random.random() < 0.3:
        arrays = {n: array * factor for n, array in arrays.items()}
    elif random.random() < 0.5:
        arrays[name] = arrays[name] * factor
    else:
        arrays.pop(name)
    path.unlink()
    save_arrays(path, arrays, header)
    sign(folder)


def raw(folder: Path, random: np.random.Generator) -> None:
    """Bytes of any file; every second time its digest is made to fit."""
    small = [path for path in sorted(folder.iterdir()) if path.stat().st_size < 2**20 or random.random() < 0.2]
    path = small[random.integers(len(small))]
    write(path, damaged(path.read_bytes(), random))
    if random.random() < 0.5 and path.name != "model.json":
        sign(folder)


def files(folder: Path, random: np.random.Generator) -> None:
    """A file is missing, empty, a folder, or another one."""
    found = sorted(folder.iterdir())
    path, other = (found[random.integers(len(found))] for _ in range(2))
    content = other.read_bytes()
    path.unlink()
    turn = random.integers(4)
    if turn == 1:
        path.mkdir()
    elif turn > 1:
        path.write_bytes(b"" if turn == 2 else content)
    if random.random() < 0.5 and (folder / "model.json").is_file() and path.name != "model.json":
        sign(folder)


CHANGES = [description, description, network, network, network, fitted, fitted, fitted, static, raw, raw, files]


def use(folder: Path, good: Path, number: int, seed: int, media: Path) -> None:
    """Change a copy of a model, read it and score two clips; what it can't score is said in their predictions."""
    from mmdisaster.data.clips import Clip
    from mmdisaster.model.folder import load_model

    shutil.copytree(good, folder, copy_function=os.link)
    CHANGES[number % len(CHANGES)](folder, np.random.default_rng([seed, number]))
    found = load_model(folder).predict([Clip(media, "water rising"), Clip(text="a storm")], max_failures=1.0)
    scores = [score for prediction in found for score in prediction.scores.values()]
    assert np.isfinite(scores).all(), "scores that are not numbers"


def cases(seed: int, folder: Path, n: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Copies of a model, each with one change."""
    program = f"import fuzz_models, pathlib; fuzz_models.make(pathlib.Path({str(folder)!r}))"
    setting = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TQDM_DISABLE": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=setting)  # this process stays without threads
    media = sorted((folder / "corpus/media").iterdir())[0]
    for number in range(n):
        good, name = folder / f"model-{2 + (number % 5 == 0)}", f"case-{number}"
        yield name, partial(use, folder / name, good, number, seed, media)
