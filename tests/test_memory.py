"""Extraction holds a bounded part of a shard, and computes the same whatever the part."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, environment
from media_files import write_media

from mmdisaster.data.store import read_store
from mmdisaster.static import extractors
from mmdisaster.static.extraction import extract
from mmdisaster.static.extractors import AudioExtractor, VisualExtractor

MIB = 2**20


class Network:
    """In the place of both networks: what it says of a frame is the mean of first pixels over its batch."""

    dim, digest, device, conv7 = 4, "mean", torch.device("cpu"), "after"

    def encode(self, batches, batch_size, workers=None):
        assert all(len(batch) <= batch_size for batch in batches)
        return [np.full((len(batch), 4), batch[:, 0, 0, 0].mean(), np.float32) for batch in batches]

    def extract(self, waveforms, workers=None):
        return [np.full((1, 4), waveform[0], np.float32) for waveform in waveforms]


class Films(VisualExtractor):
    """Clip i is grey i all over; some are broken, some have no pictures."""

    broken, mute = (), ()

    def key(self, row, root):
        return row["number"]

    def read(self, row, root):
        if row["number"] in self.broken:
            raise ValueError("is broken")
        shape = (self.frames, self.size, self.size, 3)
        return None if row["number"] in self.mute else np.full(shape, row["number"], np.uint8)


class Sounds(AudioExtractor):
    """Clip i is seven MiB of i."""

    def key(self, row, root):
        return row["number"]

    def read(self, row, root):
        return np.full(7 * MIB // 4, row["number"], np.float32)


def corpus(clips):
    return pd.DataFrame({"clip_id": [f"c{i}" for i in range(clips)], "media": "", "number": range(clips)})


@pytest.mark.parametrize("extractor", [Films(Network(), frames=26, size=299), Sounds(Network())])
@pytest.mark.parametrize("shard_clips", [24, 96])
def test_memory_does_not_grow_with_a_shard(tmp_path, extractor, shard_clips):
    """Ninety-six clips of seven MiB each, 672 MiB."""
    tracemalloc.start()
    try:
        extract(corpus(96), Path(), extractor, tmp_path / "store", shard_clips=shard_clips)
        peak = tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()
    assert peak < 300, f"{peak:.0f} MiB"
    assert read_store(tmp_path / "store", ["c95", "c3"])[1].mean()[:, 0].tolist() == [95, 3]


@pytest.mark.parametrize("portion", [1, 10**5, 10**9])
def test_clips_share_a_batch_whatever_is_computed_together(tmp_path, monkeypatch, portion):
    """Three clips a batch, of those in a shard that have pictures; by hand: ten clips, without 2, 4 and 7."""
    monkeypatch.setattr(extractors, "PORTION", portion)
    films = Films(Network(), frames=2, size=75, batch_size=6)
    films.broken, films.mute = (2, 7), (4,)
    report = extract(corpus(10), Path(), films, tmp_path / "store", shard_clips=8, max_failures=0.2)
    shared = [[0, 1, 3], [5, 6], [8, 9]]  # the second is short, as its shard ends with clip 7
    for clips in shared:
        found = read_store(tmp_path / "store", [f"c{i}" for i in clips])[1]
        assert np.allclose(found.values, np.mean(clips), rtol=2**-11)
    assert report.absent == ["c4"] and [failure["clip_id"] for failure in report.failures] == ["c2", "c7"]
    assert read_store(tmp_path / "store")[0] == ["c0", "c1", "c3", "c4", "c5", "c6", "c8", "c9"]


FRAMES = """
import gc, pathlib, re, sys
from mmdisaster.media.frames import read_frames

gc.disable()  # what only the collector frees stays
path, peaks = sys.argv[1], []
for _ in range(6):
    read_frames(path, 40, 75)
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1024)
print(peaks[-1] - peaks[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_decoded_frames_are_let_go(tmp_path):
    """Forty frames of three megabytes per clip: a cycle through each would keep 600 MB of the last five clips."""
    path = write_media(tmp_path / "a.mp4", "h264", None, 4, (1080, 1920))
    command = [sys.executable, "-c", FRAMES, str(path)]
    result = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 60
