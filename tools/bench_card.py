"""Measure the paper's scale on a graphics card:  python tools/bench_card.py [CLIPS] OUT.json

40 frames of 299 px per clip and networks on the card, otherwise params.yaml's settings: weights are drawn at random,
since published ones have to be fetched, and the clips are the simulated ones. From the first clip to Table II, with
seconds, and beside them

- what the card multiplies in single precision, and what Inception-V3 makes of it on frames that lie there already;
- an epoch of each network, all steps at once and step by step (dropout of states leaves no other way), and on the CPU;
- agreement with the CPU: features of some clips, and probabilities of the networks that the card trained.

Without a card it measures the CPU, so that the script can be tried anywhere with few clips.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmdisaster.core import save_json
from mmdisaster.data.split import Split
from mmdisaster.data.store import read_store
from mmdisaster.devices import pick_device, single_precision
from mmdisaster.settings import read_settings
from mmdisaster.settings.reading import with_changes
from mmdisaster.settings.tree import Settings
from mmdisaster.static.inception import InceptionV3
from mmdisaster.static.sources import make_extractor
from mmdisaster.steps.corpus import make_calibration, make_corpus
from mmdisaster.steps.static import extract_features, get_weights
from mmdisaster.steps.temporal import learn_temporal
from mmdisaster.study.trials import run_trial, score_trial

ROOT = Path(__file__).resolve().parents[1]
SCALE = {
    "modalities.visual.frames": 40,
    "modalities.visual.size": 299,
    "modalities.visual.weights.size": 299,
    "modalities.visual.weights.frames": 3,  # per calibration clip: more don't fit a processor's memory at this size
    "modalities.audio.device": "auto",
    "temporal.device": "auto",
}
ALIKE, EPOCHS = 24, 2


def wait() -> None:
    """Until the card has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def clock(work: Any, *arguments: Any) -> tuple[Any, float]:
    """What a call returns, and its seconds on the wall."""
    wait()
    start = time.perf_counter()
    found = work(*arguments)
    wait()
    return found, time.perf_counter() - start


def fastest(work: Any, turns: int = 5) -> float:
    """Seconds of a call, the least of some turns after one that isn't counted."""
    work()
    return min(clock(work)[1] for _ in range(turns))


def product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a matrix product."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in range(2))
    return 2 * n**3 / fastest(lambda: torch.mm(a, b))


def moved(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square difference, in standard deviations."""
    return float(np.sqrt(np.mean((found.astype(float) - expected) ** 2)) / expected.std(dtype=float))


def forward(network: InceptionV3, frames: int, size: int, together: int) -> dict[str, float]:
    """Frames per second of the network's passes, with the frames' way to the card, and where they lie there."""
    random = np.random.default_rng(0)
    batch = random.integers(0, 256, (together, size, size, 3), dtype=np.uint8)
    network.encode([batch], together)
    _, sent = clock(network.encode, [batch] * max(frames // together, 1), together)
    weight = next(network.network.parameters())
    there = torch.from_numpy(batch).to(weight.device).permute(0, 3, 1, 2).to(weight.dtype)

    @torch.inference_mode()
    def passes() -> None:
        network.network(there)

    with single_precision():
        seconds = fastest(passes)
    return {"together": together, "sent": max(frames // together, 1) * together / sent, "there": together / seconds}


def bench_frames(settings: Settings, manifest: Any, media: Path, weights: Path, folder: Path) -> dict[str, Any]:
    """Extraction of frames, in both precisions, beside the passes alone and the CPU."""
    source, found = settings.modalities["visual"], {}
    few = manifest.head(ALIKE)
    on_cpu = source.model_copy(update={"device": "cpu", "batch_size": 32})
    _, took = clock(extract_features, "visual", few, media, weights, on_cpu, folder / "cpu")
    expected = read_store(folder / "cpu", few["clip_id"].tolist())[1].in_memory().values
    found["cpu"] = {"frames_per_second": ALIKE * source.frames / took}
    for precision in ("float32", "float16"):
        if precision == "float16" and pick_device().type == "cpu":
            continue
        asked = source.model_copy(update={"precision": precision})
        report, took = clock(extract_features, "visual", manifest, media, weights, asked, folder / precision)
        network = make_extractor("visual", asked, weights, settings.media).network
        ours = read_store(folder / precision, few["clip_id"].tolist())[1].in_memory().values
        found[precision] = {
            "seconds": took,
            "frames": report.steps,
            "readers": make_extractor("visual", asked, weights, settings.media).readers,
            "frames_per_second": report.steps / took,
            "moved": moved(ours, expected),
            "forward": [
                forward(network, 800, source.size, together) for together in (source.frames, 8 * source.frames)
            ],
        }
    return found


def bench_networks(settings: Settings, static: dict[str, Any], split: Split) -> dict[str, Any]:
    """An epoch of each network: on the card, there step by step, and on the CPU; and whether both say the same."""
    found = {}
    ways = {"at once": {}, "step by step": {"dropout_of": "states"}, "cpu": {"device": "cpu"}}
    for name, sequences in static.items():
        took, networks = {}, {}
        for way, changes in ways.items():
            seconds = {}
            for epochs in (1, 1 + EPOCHS):  # what they differ by is epochs alone
                asked = {"max_epochs": epochs, "patience": 10 * EPOCHS, **changes}
                section = settings.temporal.model_copy(update=asked)
                networks[way], seconds[epochs] = clock(learn_temporal, name, sequences, split, section)
            took[way] = (seconds[1 + EPOCHS] - seconds[1]) / EPOCHS
        trained, test = networks["at once"], sequences.subset(split.rows("test"))
        says = trained.predict_proba(test)
        trained.network_.to("cpu")
        trained.device = "cpu"
        found[name] = {**took, "probabilities_differ": float(abs(trained.predict_proba(test) - says).max())}
    return found


def main(arguments: list[str]) -> int:
    out = arguments[-1]
    settings = read_settings(ROOT / "params.yaml")
    few = int(arguments[0]) if arguments[1:] else settings.corpus.clips
    fewer = {"corpus.clips": few, "corpus.videos": min(settings.corpus.videos, few // 3)}
    settings = with_changes(settings, SCALE | fewer)
    device = pick_device()
    if device.type == "cuda":  # named, so that more frames are allowed together than a processor's memory holds
        settings = with_changes(settings, {"modalities.visual.device": "cuda", "modalities.visual.batch_size": 320})
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    record: dict[str, Any] = {"card": card, "seconds": {}}
    record["product"] = {
        str(dtype).removeprefix("torch."): product_speed(device, dtype) for dtype in (torch.float32, torch.float16)
    }
    took = record["seconds"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus, took["clips"] = clock(make_corpus, folder / "corpus", settings.corpus, ROOT)
        make_calibration(folder / "calibration", settings.corpus)
        drawn = [name for name in settings.present if name not in settings.fitted]
        weights = {name: folder / f"{name}.safetensors" for name in drawn}
        start = time.perf_counter()
        for name, path in weights.items():
            get_weights(name, settings.modalities[name], folder / "calibration", path, folder)
        took["weights"] = time.perf_counter() - start
        media = Path(corpus.media)
        record["frames"] = bench_frames(settings, corpus.manifest, media, weights["visual"], folder)
        took["frames"] = record["frames"]["float32"]["seconds"]
        save_json(out, record)
        source = settings.modalities["audio"]
        arguments_of = ("audio", corpus.manifest, media, weights["audio"], source, folder / "audio")
        _, took["sound"] = clock(extract_features, *arguments_of)
        clips = corpus.manifest["clip_id"].tolist()
        static = {"visual": read_store(folder / "float32", clips)[1], "audio": read_store(folder / "audio", clips)[1]}
        trial, took["networks and Algorithm 1"] = clock(
            lambda: run_trial(corpus.manifest, corpus.concepts, static, settings, n_jobs=min(os.cpu_count() or 1, 4))
        )
        record["rows"] = {name: row["micro_f1"] for name, row in score_trial(trial, tuple(settings.rows)).items()}
        save_json(out, record)
        record["networks"] = bench_networks(settings, static | trial.learnt, trial.split)
    if torch.cuda.is_available():
        record["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    save_json(out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
