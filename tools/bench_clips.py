"""Measure extraction, networks and predictions on the clips that `make repro` left; `python tools/bench.py` calls this.

- extraction: seconds of some clips through the library's own extraction, on all cores; of the networks' passes alone,
  over the same batches, decoded before; and, for frames, of the loop that one writes with PyAV, Pillow and torchvision:
  decode every frame, transform those that are wanted, one batch a clip. Turn by turn, medians.
- networks: processor seconds of an epoch on one core, floating-point operations per second, and those of a plain matrix
  product.
- predict: seconds of the command, of one clip and of a hundred, and of a command that does nothing.
- nothing: seconds of the pipeline where nothing changed.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from mmdisaster.core import load_arrays
from mmdisaster.data.corpus import read_corpus
from mmdisaster.data.split import Split, read_split
from mmdisaster.data.store import read_store
from mmdisaster.devices import torch_threads
from mmdisaster.evaluation.baselines import fit_baseline
from mmdisaster.settings import read_settings
from mmdisaster.settings.tree import Settings
from mmdisaster.static.extraction import extract
from mmdisaster.static.inception import torchvision_models
from mmdisaster.static.sources import make_extractor
from mmdisaster.steps.temporal import learn_temporal
from mmdisaster.study.costs import timed

ROOT = Path(__file__).resolve().parents[1]
CLIPS, TURNS, EPOCHS, PREDICTED = 128, 3, 3, 100


def seconds(work, *arguments):
    """Seconds that a call takes, on the wall."""
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def opened() -> tuple[Settings, pd.DataFrame, Path]:
    """Settings, manifest, and the folder of its media."""
    manifest, _, media = read_corpus(ROOT / "data/corpus")
    return read_settings(ROOT / "params.yaml"), manifest, Path(media)


class PlainLoop:
    """Features of frames as one writes them without this library; `features` are those of the last run."""

    def __init__(self, arrays: dict[str, np.ndarray], frames: int, size: int):
        models = torchvision_models()
        from torchvision import transforms

        self.network = models.inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False)
        self.network.fc = nn.Identity()
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
        self.network.eval()
        steps = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
        shrink = transforms.Lambda(lambda picture: picture.resize((size, size), Image.Resampling.BOX))
        self.frames, self.transform = frames, transforms.Compose([shrink, *steps])
        self.features: list[np.ndarray] = []

    @torch.inference_mode()
    def __call__(self, paths: list[Path]) -> None:
        self.features = []
        for path in paths:
            with av.open(str(path)) as container:
                pictures = [frame.to_image() for frame in container.decode(video=0)]
            middles = ((np.arange(self.frames) + 0.5) * len(pictures) / self.frames).astype(int)
            batch = torch.stack([self.transform(pictures[middle]) for middle in middles])
            self.features.append(self.network(batch).numpy())


def bench_extraction() -> dict:
    """Each modality that reads media, and frames by the plain loop."""
    settings, manifest, media = opened()
    sample, found = manifest.head(CLIPS), {}
    records = sample.astype(object).where(sample.notna(), None).to_dict("records")
    for name in ("visual", "audio"):
        source, weights = settings.modalities[name], ROOT / f"models/weights-{name}.safetensors"
        extractor = make_extractor(name, source, weights, settings.media)
        inputs = [extractor.read(row, media) for row in records]
        works = {"forward": lambda: [*extractor.encode(iter(inputs))]}  # noqa: B023
        if name == "visual":
            loop, paths = (
                PlainLoop(load_arrays(weights), source.frames, source.size),
                [media / row["media"] for row in records],
            )
            works["plain loop"] = lambda: loop(paths)  # noqa: B023
        took: dict[str, list[float]] = {"extraction": [], **{work: [] for work in works}}
        for _ in range(TURNS):
            with tempfile.TemporaryDirectory() as folder:
                took["extraction"].append(seconds(extract, sample, media, extractor, folder))
                _, stored = read_store(folder, sample["clip_id"].tolist())
                ours = stored.in_memory().values.astype(np.float64)
            for work, call in works.items():
                took[work].append(seconds(call))
        found[name] = {work: median(each) for work, each in took.items()} | {"clips": len(sample)}
        if name == "visual":
            theirs = np.concatenate(loop.features).astype(np.float64)
            found[name] |= {"frames": len(ours), "correlation": float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])}
    return found


def product_speed(n: int = 1024) -> float:
    """Floating-point operations per second of a matrix product in single precision, on one core."""
    a, b = torch.rand(n, n), torch.rand(n, n)
    with torch_threads(1):
        return max(2 * n**3 / timed(lambda: torch.mm(a, b))[1] for _ in range(10))


def operations(network: nn.Module, lengths: np.ndarray, split: Split) -> float:
    """Floating-point operations of an epoch, about: two for each weight of a matrix and step, twice more to learn."""
    per_step = sum(
        weight.numel() for name, weight in network.named_parameters() if weight.ndim == 2 and "dense" not in name
    )
    steps = {part: lengths[split.rows(part)].sum() for part in ("train", "validation")}
    return 2.0 * per_step * (3 * steps["train"] + steps["validation"])


def bench_networks() -> dict:
    """An epoch of each temporal network, and of early fusion's."""
    settings, _, _ = opened()
    split = read_split(ROOT / "data/split.csv")
    static = {name: read_store(ROOT / f"data/features/{name}", split.clip_ids)[1] for name in settings.present}
    found, temporal = {"matrix product": product_speed()}, settings.temporal.model_copy(update={"max_epochs": EPOCHS})
    for name, sequences in static.items():
        network, took = timed(lambda: learn_temporal(name, sequences, split, temporal))  # noqa: B023
        flops = operations(network.network_, sequences.lengths, split)
        found[name] = {
            "seconds": took / EPOCHS,
            "steps": int(sequences.lengths.sum()),
            "per_second": flops * EPOCHS / took,
        }
    row = next(row for row in settings.rows.values() if row.fusion == "early")
    baseline = settings.baseline.model_copy(update={"max_epochs": EPOCHS})
    (_, network), took = timed(lambda: fit_baseline(row, static, {}, split.Y, split.parts, baseline))
    found["early fusion"] = {"seconds": took / EPOCHS}
    return found


def command(*words: str) -> dict[str, float]:
    """Seconds of a command: on the wall, and of its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = seconds(lambda: subprocess.run([sys.executable, *words], check=True, cwd=ROOT, capture_output=True))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def middle(*words: str) -> dict[str, float]:
    """The median of some turns of a command, after one that isn't counted."""
    command(*words)
    turns = [command(*words) for _ in range(TURNS)]
    return {kind: median(turn[kind] for turn in turns) for kind in turns[0]}


# what a prediction loads before it begins: torch, torchvision, scikit-learn, skops
LIBRARIES = """
import mmdisaster.model.folder
from mmdisaster.static.inception import torchvision_models

torchvision_models()
"""


def bench_predict() -> dict:
    """The model that the pipeline made, on clips of the corpus."""
    _, manifest, media = opened()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "clips.csv"
        few = manifest.head(PREDICTED).drop(columns="labels")
        few.assign(media=[str(media / name) for name in few["media"]]).to_csv(table, index=False)
        start = ["-m", "mmdisaster"]
        one = [
            *start,
            "predict",
            "models/fitted",
            str(media / manifest["media"][0]),
            "--text",
            str(manifest["text"][0]),
        ]
        return {
            "start": middle(*start, "--version"),
            "libraries, loaded": middle("-c", LIBRARIES),
            "one clip": middle(*one),
            f"{PREDICTED} clips": middle(*start, "predict", "models/fitted", "--manifest", str(table), "--csv"),
        }


def bench_nothing() -> dict:
    """Both ways to run a pipeline that is up to date."""
    return {"dvc repro": middle("-m", "dvc", "repro"), "make repro": middle("tools/repro.py")}
