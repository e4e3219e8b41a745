"""A store read by need gives what an array in memory gives, bit for bit, and takes no more memory for more clips."""

import pickle
import tracemalloc
from multiprocessing import get_context
from pathlib import Path

import memory
import numpy as np
import pandas as pd
import pytest
import torch

from mmdisaster.data.sequences import Sequences, concatenate
from mmdisaster.data.store import StoreError, read_store
from mmdisaster.evaluation.baselines import fit_baseline
from mmdisaster.paper.tables import APPROACHES
from mmdisaster.settings.sections import Baseline
from mmdisaster.static.extraction import extract
from mmdisaster.temporal.classifiers import TemporalClassifier
from mmdisaster.temporal.clocks import align
from mmdisaster.temporal.resbilstm import pack
from mmdisaster.temporal.training import column_statistics

NAMES = [f"c{i}" for i in range(90)]
BOTH = APPROACHES["visual-audio"]


class Ragged:
    """Clip i has some steps of noise, as wide as is wished."""

    modality, damaged = "ragged", ()

    def __init__(self, dim, seed):
        self.dim, self.seed = dim, seed

    def fingerprint(self):
        return [self.dim, self.seed]

    def key(self, row, root):
        return row["clip_id"]

    def read(self, row, root):
        random = np.random.default_rng([self.seed, int(row["clip_id"][1:])])
        return random.gamma(1.0, 50.0, (random.integers(1, 130), self.dim)).astype(np.float16)

    def encode(self, inputs):
        yield from inputs


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory):
    """Two modalities of ninety clips: by need, and the same arrays in memory; 5,000 steps, more than one slice."""
    root, manifest = tmp_path_factory.mktemp("flat"), pd.DataFrame({"clip_id": NAMES, "media": ""})
    by_need, in_memory = {}, {}
    for name, made in {"visual": Ragged(11, 1), "audio": Ragged(3, 2)}.items():
        extract(manifest, Path(), made, root / name, shard_clips=8)
        by_need[name] = read_store(root / name)[1]
        in_memory[name] = concatenate([made.read({"clip_id": clip}, None).astype(np.float32) for clip in NAMES])
    return by_need, in_memory


def equal(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_reading_by_need_is_reading_at_once(both_ways):
    by_need, in_memory = (found["visual"] for found in both_ways)
    order = np.random.default_rng(0).permutation(90)[:70]
    assert equal(by_need.values, in_memory.values) and equal(by_need.offsets, in_memory.offsets)
    for lazy, held in [(by_need, in_memory), (by_need.subset(order), in_memory.subset(order).in_memory())]:
        assert lazy.lengths.sum() > 4096, "one slice shows nothing"
        assert all(equal(lazy.pooled(how), held.pooled(how)) for how in ("mean", "max"))
        assert all(map(equal, column_statistics(lazy), column_statistics(held)))
        for clips in (np.arange(7), np.array([9, 2, 2, 60]), np.array([69])):
            assert equal(lazy.gather(clips), np.concatenate([held[i] for i in clips]))
            for a, b in zip(pack(lazy, clips), pack(held, clips), strict=True):
                assert torch.equal(a, b)
    for clock in (0, 1, "longest"):
        a, b = (align([found["visual"], found["audio"]], clock) for found in both_ways)
        assert equal(a.values, b.values) and equal(a.subset(order)[3], b[order[3]])


def test_one_pass_over_rows_is_two(both_ways):
    """Deviations as a mean and then squares about it gave them; those of one slice bit for bit, as of small corpora."""
    rows = both_ways[1]["visual"].values
    for values in (rows, rows[:4096]):
        mean = values.mean(axis=0, dtype=np.float64)
        deviation = np.sqrt(np.square(values - mean).mean(axis=0))
        np.testing.assert_allclose(column_statistics(values)[1], deviation, rtol=2**-23)
    assert equal(column_statistics(rows[:4096])[1], deviation.astype(np.float32))
    far = np.random.default_rng(0).normal(1e6, 1.0, (20_000, 2)).astype(np.float32)
    np.testing.assert_allclose(column_statistics(far)[1], far.std(axis=0, dtype=np.float64), rtol=1e-6)


def few(both_ways):
    """Thirty clips of each."""
    return [{name: found.subset(np.arange(30)) for name, found in static.items()} for static in both_ways]


def test_networks_learn_the_same(both_ways):
    """The same weights, and the same scores of every row of Table II that sees static features."""
    Y, parts = np.random.default_rng(3).integers(0, 2, (30, 2)), np.repeat(["train", "validation", "test"], 10)
    networks = [
        TemporalClassifier(units=3, dense=4, max_epochs=2, batch_size=8).fit(static["audio"], Y, (static["audio"], Y))
        for static in few(both_ways)
    ]
    for a, b in zip(*(network.network_.state_dict().values() for network in networks), strict=True):
        assert torch.equal(a, b)
    features = [network.transform(static["audio"]) for network, static in zip(networks, few(both_ways), strict=True)]
    assert equal(*features) and networks[0].history_ == networks[1].history_
    for row, settings in [
        (APPROACHES["visual"], Baseline(max_epochs=2)),
        (APPROACHES["visual"], Baseline(max_epochs=2, pool="max")),
        (BOTH, Baseline(max_epochs=1, pairs="early", units=2)),
        (BOTH, Baseline(max_epochs=1, joint=True)),
    ]:
        scores = [fit_baseline(row, static, {}, Y, parts, settings)[0] for static in few(both_ways)]
        assert equal(*scores), (row, settings)


def test_a_large_corpus_is_pooled_and_aligned_batch_by_batch(both_ways, monkeypatch):
    """Where features don't fit, they are computed again for each batch, and rows are what they were."""
    Y, parts = np.random.default_rng(3).integers(0, 2, (30, 2)), np.repeat(["train", "validation", "test"], 10)
    static = few(both_ways)[0]
    for row, settings in [
        (APPROACHES["visual"], Baseline(max_epochs=2)),
        (BOTH, Baseline(max_epochs=1, pairs="early", units=2)),
    ]:
        small = fit_baseline(row, static, {}, Y, parts, settings)[0]
        with monkeypatch.context() as patched:
            patched.setattr(Sequences, "kept", lambda self: self)
            large = fit_baseline(row, static, {}, Y, parts, settings)[0]
        assert equal(small, large)


def test_a_store_that_is_open_travels_and_notices_what_is_cut(tmp_path):
    made = Ragged(3, 4)
    extract(pd.DataFrame({"clip_id": NAMES[:4], "media": ""}), Path(), made, tmp_path / "store", shard_clips=4)
    found = read_store(tmp_path / "store", ["c2", "c0"])[1]
    assert np.array_equal(pickle.loads(pickle.dumps(found.subset([1])))[0], made.read({"clip_id": "c0"}, None))
    shard = next((tmp_path / "store").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StoreError, match="is damaged: it has become shorter"):
        found.gather(np.array([0, 1]))
    shard.unlink()
    with pytest.raises(StoreError, match="is missing"):
        found[0]


def peak(call):
    """Bytes that NumPy and Python hold at most, above those of before; torch's batches don't depend on clips."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peaks(store, clips):
    """What each step takes of the first clips of a store."""
    split = memory.corpus(clips)
    Y, held_out = split.Y, split.rows("test")
    found = read_store(store, split.clip_ids)[1]
    network, together = TemporalClassifier(units=2, dense=4, max_epochs=1), align([found, found])
    return {
        "open": peak(lambda: read_store(store, split.clip_ids)),
        "statistics": peak(lambda: column_statistics(found)),
        "training": peak(lambda: network.fit(found, Y, (found.subset(held_out), Y[held_out]))),
        "features": peak(lambda: network.transform(found)),
        "prediction": peak(lambda: network.predict_proba(found)),
        "aligned": peak(lambda: [together.gather(numbers).sum() for numbers in found.blocks()]),
        "pooled": peak(lambda: found.pooled("mean")) - clips * found.dim * 4,  # the result
    }


def test_four_times_the_clips_take_no_more_memory(tmp_path, monkeypatch):
    """Held at once, 1,024 clips would be 40 MiB, 256 are 10; index and plan may take 300 bytes per clip."""
    monkeypatch.setattr("mmdisaster.data.sequences.BLOCK", 2**20)
    memory.build(tmp_path / "store", 1024, 40, 256, 1024)
    few, many = (peaks(tmp_path / "store", clips) for clips in (256, 1024))
    for step in few:
        assert many[step] < 1.05 * few[step] + (1024 - 256) * 300, (step, few, many)


def test_the_tool_measures_each_step(tmp_path):
    with get_context("spawn").Pool(1) as pool:  # this process may hold what other tests left
        record = pool.apply(memory.extraction, (tmp_path / "store", 200, 3, 16, 30))
        sizes = {str(n): (tmp_path / "store", n, memory.NARROW, 1) for n in (20, 200)}
        record["clips"] = {n: pool.apply(memory.steps_of, given) for n, given in sizes.items()}
    assert len(np.unique(read_store(tmp_path / "store")[1].values, axis=0)) < 30 * 3 + 1
    steps = ["open", "statistics", "training", "features", "prediction", "Algorithm 1", "decisions"]
    assert [*record["clips"]["200"]] == steps
    for taken in [record["extraction"], *record["clips"]["200"].values()]:
        assert 0 < taken["peak_anon"] <= taken["peak_rss"] < memory.MOST and taken["seconds"] >= 0
    for step in (step for size in record["clips"].values() for step in size.values()):
        step["peak_rss"] = 2**28
    assert memory.problems(record) == []
    record["clips"]["200"]["training"]["peak_rss"] = 2**29
    assert memory.problems(record) == ["training takes 2.00 times what a tenth of the clips take"]
    assert len(memory.problems(record, most=1)) == len(steps) + 1
