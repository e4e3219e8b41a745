"""Measure what memory each step takes of a corpus of many clips:  python tools/memory.py [--clips 1500,15000,150000]

Builds one store of synthetic clips by the library's own extraction: 40 steps of 2,048 values each unless --steps and
--dim say otherwise, 164 kB a clip, 25 GB for 150,000. Where the disk has no room for all, --distinct 15000 stores so
many, and the others repeat them; they are read all the same. The smaller corpora are the first clips of that store.
Each size then runs in a process of its own, which opens the store, takes the statistics of the training clips, trains a
temporal network for one epoch, and computes temporal features and scores of all clips. --batches 200 ends the epoch
after so many batches, of clips drawn at random. Then Algorithm 1 ranks 384 drawn features of each clip by 25 trees,
fits one machine without elimination (solver auto), and decides all clips. Of each step the record has

- seconds,
- peak_rss, the peak of the resident set (VmHWM, set back before each step), with mapped files,
- peak_anon, the peak of memory that no file backs (RssAnon), looked up every 20 ms.

Pages of files that the kernel caches are part of neither: the store is read, not mapped. The record also has the bytes
of the store's index per clip. With --network wide the network is the library's default; a narrow one takes a tenth of
the time and reads the same. With --work and --keep the store stays there for another run. Writes JSON to --out, or
prints it. Exit status 1 where a step takes more than --most bytes (2 GiB), or at the largest size more than 1.2 times
what it takes of a tenth of the clips.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmdisaster.core import save_json
from mmdisaster.data.split import Split
from mmdisaster.data.store import read_store
from mmdisaster.settings.sections import Fusion, Temporal
from mmdisaster.static.extraction import extract
from mmdisaster.steps.fusion import fit_algorithm1, score_algorithm1
from mmdisaster.steps.temporal import learn_temporal
from mmdisaster.temporal.training import column_statistics

CONCEPTS = ["Flood", "Fire", "Rescue"]
NARROW = {"units": 8, "dense": 32}  # of a network that takes a tenth of the time
MOST, GROWTH = 2**31, 1.2  # what a step may take, and how much more of ten times the clips


class Synthetic:
    """Clips drawn at random, in the place of an extractor."""

    modality = "synthetic"

    def __init__(self, steps: int, dim: int, distinct: int):
        self.steps, self.dim, self.distinct = steps, dim, distinct
        self.noise = np.random.default_rng(0).standard_normal((97, dim), np.float32)

    def fingerprint(self) -> dict:
        return {"steps": self.steps, "dim": self.dim}

    def key(self, row: Any, root: Path) -> Any:
        return f"c{self.read(row, root):07d}"

    def read(self, row: Any, root: Path) -> int:
        return int(row["clip_id"][1:]) % self.distinct

    def encode(self, inputs: Iterator[int]) -> Iterator[np.ndarray]:
        for number in inputs:
            random = np.random.default_rng(number)
            yield self.noise[random.integers(0, 97, self.steps)] + np.float32(random.normal())


def corpus(clips: int) -> Split:
    """Clips with labels and parts drawn at random."""
    random = np.random.default_rng(1)
    names = [f"c{i:07d}" for i in range(clips)]
    parts = random.choice(["train", "validation", "test"], clips, p=[0.6, 0.2, 0.2])
    return Split(names, names, parts, CONCEPTS, (random.random((clips, 3)) < 0.4).astype(np.uint8))


def build(folder: Path, clips: int, *drawn: int) -> None:
    """A store of synthetic clips; goes on where it was interrupted."""
    manifest = pd.DataFrame({"clip_id": corpus(clips).clip_ids, "media": ""})
    extract(manifest, Path(), Synthetic(*drawn), folder)


def status(name: str) -> int:
    """A line of the process's own status, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) * 1024


@contextmanager
def measured(step: str, into: dict[str, dict[str, float]]) -> Iterator[None]:
    """Seconds and peaks of what is done inside."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # sets VmHWM back to the resident set of now
    anon, done = [status("RssAnon")], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            anon[0] = max(anon[0], status("RssAnon"))

    watcher, start = threading.Thread(target=watch), time.perf_counter()
    watcher.start()
    try:
        yield
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        into[step] = {"seconds": round(seconds, 1), "peak_rss": status("VmHWM"), "peak_anon": anon[0]}
        print(f"{step}: {into[step]}", file=sys.stderr, flush=True)


def shortened(split: Split, batches: int) -> Split:
    """A split of which so many batches of each part are left, drawn at random; 0: all."""
    left, random, size = split.parts.astype("<U10"), np.random.default_rng(2), Temporal().batch_size
    for part in ("train", "validation") if batches else ():
        left[random.permutation(split.rows(part))[batches * size :]] = "left out"
    return replace(split, parts=left)


def drawn_features(split: Split) -> dict[str, np.ndarray]:
    """Three times 128 features of each clip, of which some tell labels."""
    random, temporal = np.random.default_rng(3), {}
    for name in ("a", "b", "c"):
        temporal[name] = random.standard_normal((len(split.clip_ids), 128), np.float32)
        temporal[name][:, : len(CONCEPTS)] += split.Y
    return temporal


def steps_of(store: Path, clips: int, network: dict[str, int], batches: int = 0) -> dict[str, dict[str, float]]:
    """Each step on the first clips of a store."""
    found: dict[str, dict[str, float]] = {}
    split = corpus(clips)
    with measured("open", found):
        _, sequences = read_store(store, split.clip_ids)
    with measured("statistics", found):
        column_statistics(sequences.subset(split.rows("train")))
    with measured("training", found):
        settings = Temporal(max_epochs=1, **network)
        trained = learn_temporal("synthetic", sequences, shortened(split, batches), settings)
    with measured("features", found):
        trained.transform(sequences)
    with measured("prediction", found):
        trained.predict_proba(sequences)
    del trained, sequences
    temporal, settings = drawn_features(split), Fusion(n_trees=25, solver="auto", stop="none")
    with measured("Algorithm 1", found):
        algorithm = fit_algorithm1(temporal, split, settings, [*temporal])
    with measured("decisions", found):
        score_algorithm1(algorithm, temporal, [*temporal])
    return found


def alone(call: Callable, *arguments: Any) -> Any:
    """The result of a function in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, arguments)


def extraction(folder: Path, clips: int, *drawn: int) -> dict[str, dict[str, float]]:
    """What building the store takes."""
    found: dict[str, dict[str, float]] = {}
    with measured("extraction", found):
        build(folder, clips, *drawn)
    return found


def problems(record: dict[str, Any], most: int = MOST) -> list[str]:
    """Steps that take too much, or more and more."""
    sizes = sorted(record["clips"], key=int)
    wrong = []
    for step, found in record["clips"][sizes[-1]].items():
        if found["peak_rss"] > most:
            wrong.append(f"{step} takes {found['peak_rss'] / 2**20:,.0f} MiB of {sizes[-1]} clips")
        tenth = record["clips"].get(str(int(sizes[-1]) // 10), {}).get(step)
        if tenth and found["peak_rss"] > GROWTH * tenth["peak_rss"]:
            ratio = found["peak_rss"] / tenth["peak_rss"]
            wrong.append(f"{step} takes {ratio:.2f} times what a tenth of the clips take")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="1500,15000,150000", help="sizes, by commas")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--distinct", type=int, help="clips that are stored; None: all")
    parser.add_argument("--batches", type=int, default=0, help="of the epoch; 0: all")
    parser.add_argument("--network", choices=["wide", "narrow"], default="wide")
    parser.add_argument("--work", type=Path, help="a folder with room for the store; None: a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the store there")
    parser.add_argument("--most", type=int, default=MOST, help="bytes that a step may take")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    sizes = sorted(map(int, given.clips.split(",")))
    work = given.work or Path(tempfile.mkdtemp())
    record: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "steps": given.steps,
        "dim": given.dim,
        "distinct": given.distinct or sizes[-1],
        "batches": given.batches,
        "network": given.network,
        "clips": {},
    }
    try:
        record |= alone(extraction, work / "store", sizes[-1], *(record[name] for name in ("steps", "dim", "distinct")))
        record["index_bytes"] = (work / "store" / "index.json").stat().st_size / sizes[-1]  # per clip
        for clips in sizes:
            network = NARROW if given.network == "narrow" else {}
            print(f"{clips} clips", file=sys.stderr)
            record["clips"][str(clips)] = alone(steps_of, work / "store", clips, network, given.batches)
            if given.out:
                save_json(given.out, record)
    finally:
        if not given.keep:
            shutil.rmtree(work / "store", ignore_errors=True)
    if not given.out:
        print(json.dumps(record, indent=1))
    for problem in (wrong := problems(record, given.most)):
        print(problem, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
