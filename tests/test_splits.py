"""Splits that a corpus comes with, clips without labels, and what tests share with training."""

import gzip
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from mmdisaster.data.corpus import read_corpus, save_corpus
from mmdisaster.data.inspection import format_problems, inspect_corpus
from mmdisaster.data.manifest import ManifestError, read_manifest
from mmdisaster.data.sequences import Sequences
from mmdisaster.data.split import PARTS, shared_videos, split_clips
from mmdisaster.evaluation.rows import evaluate
from mmdisaster.fusion.algorithm1 import Algorithm1
from mmdisaster.media.sound import read_waveform
from mmdisaster.settings.reading import SettingsError, read_settings
from mmdisaster.settings.sections import Evaluate, Split
from mmdisaster.simulate.clips import SimulationSettings, simulate_labels
from mmdisaster.steps.evaluation import measure_rows
from mmdisaster.steps.split import choose_split, split_corpus, split_words
from mmdisaster.study.folds import run_folds, summarise_folds

sys.path.insert(0, str(ROOT / "tools"))
import bring  # noqa: E402

SHARED = ROOT.parent / "shared"
CONCEPTS = ["Flood", "Fire"]
LABELS = ["Flood", "Fire", "Flood|Fire", ""]


def table(n=40, **columns):
    """Descriptions of n clips, two of each video, a quarter of them without labels."""
    rows = {"clip_id": [f"c{i:02}" for i in range(n)], "video_id": [f"v{i // 2:02}" for i in range(n)]}
    rows |= {"media": "", "text": "water in the street", "labels": [LABELS[(i // 4 + 3 * i) % 4] for i in range(n)]}
    return pd.DataFrame(rows | columns)


def written(folder, found, name="clips.csv"):
    found.to_csv(folder / name, index=False)
    return folder / name


@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("TRAIN", "Valid", "Eval"), ("Training", "dev", "testing")]
)
def test_a_split_column_is_the_split(tmp_path, words):
    given = [words[i % 3] for i in range(40)]
    manifest = read_manifest(written(tmp_path, table(split=given)))
    split = split_corpus(manifest, CONCEPTS, choose_split(Split(), manifest))
    assert split.parts.tolist() == [PARTS[i % 3] for i in range(40)]


TOLD = {  # what is wrong → the table, and what is said
    "part": (
        table(split=["train", "spare", *["test"] * 38]),
        "row 3, column 'split': must be train, validation or test",
    ),
    "empty": (table(split=["train", "", *["test"] * 38]), "row 3, column 'split': must be .*, was empty"),
    "fold": (table(fold=["1", "x" * 51, *"23" * 19]), "row 3, column 'fold': must be a whole number, or a name of 50"),
    "one fold": (table(fold=7), "column 'fold': must name two different folds or more, names 1"),
    "no test": (table(split="train"), "column 'split': must have test clips, has none"),
    "both": (table(split="train", fold=1), "row 1, column 'fold': is there beside 'split'; take one of them out"),
    "spelling": (table(Split="train"), "row 1, column 'Split': is unknown; did you mean 'split'?"),
}


@pytest.mark.parametrize("kind", TOLD)
def test_what_is_wrong_with_a_given_split_is_said_at_the_door(tmp_path, kind):
    made, message = TOLD[kind]
    path = written(tmp_path, made)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert re.search(message.replace("?", r"\?"), str(caught.value))
    assert not inspect_corpus(path, media=False).can_start


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_beside_the_manifest(tmp_path, suffix):
    """It wins over the manifest's own column, may name more clips, and must name each of the manifest's."""
    path = written(tmp_path, table(split="train"))
    beside = pd.DataFrame({"clip_id": [f"c{i:02}" for i in range(44)], "fold": [1.0 + i % 4 for i in range(44)]})
    beside.to_csv(tmp_path / "folds.csv", index=False)
    beside.to_parquet(tmp_path / "folds.parquet")
    manifest = read_manifest(path, given=f"folds.{suffix}")
    assert manifest["fold"].tolist() == [str(1 + i % 4) for i in range(40)] and "split" not in manifest
    warned = format_problems(inspect_corpus(path, media=False, given=f"folds.{suffix}"))
    assert f"4 of 44 clips in folds.{suffix} are not in the manifest" in warned and "A run can start" in warned
    kept = save_corpus(tmp_path / "kept", path, given=f"folds.{suffix}")
    assert read_corpus(tmp_path / "kept").manifest["fold"].equals(kept.manifest["fold"])
    beside[3:].to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(ManifestError, match="row 2, column 'clip_id': must have a row in few.csv, was 'c00'"):
        read_manifest(path, given="few.csv")
    for name, fault in [("../folds.csv", "inside the manifest's folder"), ("none.csv", "an existing file")]:
        with pytest.raises(ManifestError, match=fault):
            read_manifest(path, given=name)


@pytest.fixture(scope="session")
def paper_labels():
    """Source video and labels of 1,540 clips with Table I's counts."""
    return simulate_labels(SimulationSettings())


@pytest.mark.parametrize("seed", range(2019, 2029))
def test_the_papers_split_is_exact(paper_labels, seed):
    """924, 308 and 308 clips by clip; concepts within half a percentage point by clip, and within one by video."""
    videos, Y = paper_labels
    for by, most in [("clip", 0.5), ("video", 1.0)]:
        parts = split_clips(Y, videos, by=by, seed=seed)
        sizes = [int((parts == part).sum()) for part in PARTS]
        assert sizes == [924, 308, 308] if by == "clip" else np.allclose(sizes, [924, 308, 308], atol=3)
        shares = np.array([Y[parts == part].mean(axis=0) for part in PARTS])
        assert 100 * np.abs(shares - Y.mean(axis=0)).max() < most
        assert by == "clip" or not any(len(set(parts[videos == video])) > 1 for video in set(videos))


@pytest.mark.parametrize("clips, concepts", [(10, 1), (13, 3), (60, 5), (2000, 40)])
def test_splits_of_any_size_are_exact(clips, concepts):
    """Sizes to the clip, and counts as near as rounding allows, for clips without labels as well."""
    rng = np.random.default_rng(clips)
    Y = (rng.random((clips, concepts)) < rng.random(concepts) / 2).astype(np.uint8)
    parts = split_clips(Y, fractions=(0.5, 0.25, 0.25))
    held = [round(clips / 4)] * 2
    assert [int((parts == part).sum()) for part in PARTS] == [clips - sum(held), *held]
    columns = np.column_stack([Y, Y.sum(axis=1) == 0])
    errors = [columns[parts == part].sum(axis=0) - (parts == part).sum() * columns.mean(axis=0) for part in PARTS]
    assert np.abs(errors).max() <= 1.5


@pytest.mark.parametrize("videos", ["two clips each", "one clip each"])
def test_validation_clips_are_never_taken_from_the_test(tmp_path, videos):
    given = ["test" if i % 5 == 0 else "train" for i in range(80)]
    found = table(80, split=given)
    found["video_id"] = found["video_id"] if videos == "two clips each" else found["clip_id"]
    manifest = read_manifest(written(tmp_path, found))
    split = split_corpus(manifest, CONCEPTS, Split(by="given"))
    assert set(split.rows("test")) == set(range(0, 80, 5)) and 12 <= len(split.rows("validation")) <= 20
    names = np.array(split.video_ids)
    assert not {*names[split.rows("train")]} & {*names[split.rows("validation")]}
    assert "Validation clips were dealt out of the training clips" in split_words(split, manifest, Split(by="given"))


def test_each_fold_is_tested_and_validates_once():
    manifest = table(fold=[str(i % 4 + 8) for i in range(40)])  # 8, 9, 10, 11: in the order of numbers
    runs = [split_corpus(manifest, CONCEPTS, Split(by="given", fold=fold)).parts for fold in (8, 9, 10, 11)]
    assert all((np.sum([run == part for run in runs], axis=0) == 1).all() for part in ("test", "validation"))
    assert manifest["fold"][runs[1] == "validation"].unique() == ["10"]
    assert (split_corpus(manifest, CONCEPTS, Split(by="given")).parts == runs[0]).all()
    with pytest.raises(SettingsError, match="fold must be one of 8, 9, 10, 11, was 3"):
        split_corpus(manifest, CONCEPTS, Split(by="given", fold=3))


def test_what_is_dealt_unless_somebody_says_so():
    """Whole videos where they have several clips, a given split where there is one; the settings win."""
    by = {"given": table(fold="1"), "video": table(), "clip": table(video_id=[str(i) for i in range(40)])}
    assert all(choose_split(read_settings().split, manifest).by == name for name, manifest in by.items())
    stated = read_settings({"split": {"by": "clip"}}, {"fusion.C": 0.5})
    assert choose_split(stated.split, by["video"]).by == "clip"
    assert choose_split(read_settings(read_settings()).split, by["video"]).by == "video"
    with pytest.raises(SettingsError, match="split: by must be given where fold says which split is"):
        read_settings({"split": {"by": "clip", "fold": 2}})


def test_torn_videos_are_counted(tmp_path):
    """Four of twenty videos have a clip on each side."""
    given = ["train" if i < 24 or i in (24, 26, 28, 30) else "test" for i in range(40)]
    path = written(tmp_path, table(split=given))
    shown = format_problems(inspect_corpus(path, media=False))
    assert "8 clips of 4 videos are in several parts" in shown and "33% of the test clips have a sibling" in shown
    found = shared_videos(np.array(given), table()["video_id"])
    assert found == {"videos": 4, "clips": 8, "siblings": 4, "share": 4 / 12}
    assert "by clip, about 60% of the test clips" in format_problems(
        inspect_corpus(written(tmp_path, table()), media=False)
    )


def test_clips_without_labels_are_clips(tmp_path):
    path = written(tmp_path, table())
    shown = format_problems(inspect_corpus(path, media=False))
    assert "without labels: 10 clips" in shown and "A run can start" in shown
    manifest = read_manifest(path)
    split = split_corpus(manifest, CONCEPTS, Split(by="video"))
    assert len(split.clip_ids) == 40 and all((split.Y[split.rows(part)].sum(axis=1) == 0).any() for part in PARTS)
    with pytest.raises(ManifestError, match="column 'labels': is missing"):
        read_manifest(written(tmp_path, table().drop(columns="labels")))
    silent = manifest.assign(split=["train"] * 20 + ["test"] * 20).assign(labels=["Flood", "Fire"] * 10 + [""] * 20)
    with pytest.raises(SettingsError, match="test clips must show concepts, none of the 20 shows any"):
        split_corpus(silent, CONCEPTS, Split(by="given"))
    assert not inspect_corpus(written(tmp_path, silent), media=False).can_start


def test_intervals_are_over_what_was_dealt():
    """The same clips, resampled one by one and video by video: videos of alike clips give wider intervals."""
    rng = np.random.default_rng(0)
    manifest = table(240, video_id=[f"v{i // 12:02}" for i in range(240)])
    split = split_corpus(manifest, CONCEPTS, Split(by="video"))
    right = np.repeat(rng.random(20) < 0.6, 12)[:, None]
    found = {"late": {"decisions": np.where(right, split.Y, 1 - split.Y), "scores": rng.random(split.Y.shape)}}
    width = {
        by: np.ptp(measure_rows(split, found, Evaluate(resamples=200), by)["test"]["late"]["micro_f1"]["interval"])
        for by in ("clip", "video", "given")
    }
    assert width["video"] == width["given"] > 1.5 * width["clip"]
    forced = measure_rows(split, found, Evaluate(resamples=200, resample="clips"), "video")["test"]["late"]["micro_f1"]
    assert np.ptp(forced["interval"]) == width["clip"]


def test_a_resample_of_clips_without_labels_has_no_average_precision():
    Y = np.zeros((12, 2), int)
    Y[0] = 1
    found = evaluate(Y, Y, Y.astype(float), resamples=200)
    assert found["map"] == {"value": 1.0, "interval": (1.0, 1.0)} and found["micro_f1"]["value"] == 1


def test_bringing_a_corpus_with_folds_and_going_back(tmp_path, monkeypatch, capsys):
    for name in ("params.yaml", "dvc.yaml", "audit/dvc.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(bring, "ROOT", tmp_path)
    (tmp_path / "own").mkdir()
    path = written(tmp_path / "own", table())
    written(tmp_path / "own", table()[["clip_id"]].assign(fold=[i // 2 % 5 for i in range(40)]), "folds.csv")

    def brought(*arguments):
        assert bring.main([str(argument) for argument in arguments]) == 0
        found = read_settings(tmp_path / "params.yaml").split
        return found.by, found.file, found.fold

    assert brought(path) == ("video", None, None)
    assert brought(path, "folds.csv") == ("given", "folds.csv", None) == brought(path)
    with pytest.raises(SystemExit):
        bring.main([str(path), "none.csv"])
    assert "split.file must name an existing file, was 'none.csv'" in capsys.readouterr().err
    assert brought("simulated") == ("clip", None, None)
    found, known = (yaml.safe_load((place / "params.yaml").read_text()) for place in (tmp_path, ROOT))
    assert found == known


@pytest.fixture(scope="session")
def birds():
    """Features, labels and concepts of Mulan's `birds`: 294 of 645 recordings show none of 19 concepts."""
    if not (SHARED / "benchmarks/birds.orig.arff.gz").exists():
        pytest.skip("no ../shared/benchmarks")
    text = gzip.open(SHARED / "benchmarks/birds.orig.arff.gz", "rt", encoding="utf-8").read().partition("@data")[2]
    concepts = re.findall('name="(.+?)"', gzip.open(SHARED / "benchmarks/birds.xml.gz", "rt", encoding="utf-8").read())
    values = np.array([line.split(",") for line in text.split()], float)
    return values[:, : -len(concepts)], values[:, -len(concepts) :].astype(np.uint8), concepts


def test_birds_of_which_half_are_silent(birds, tmp_path):
    """From a manifest to a split, to Algorithm 1 that knows the empty labelset, and to metrics."""
    X, Y, names = birds
    labels = ["|".join(np.array(names)[row == 1]) for row in Y]
    found = table(len(labels), labels=labels)
    path = written(tmp_path, found.assign(clip_id=range(len(labels)), video_id=range(len(labels))))
    inspection = inspect_corpus(path, media=False)
    assert inspection.can_start and inspection.unlabelled == 294
    manifest = read_manifest(path, names)
    split = split_corpus(manifest, names, Split())
    assert (split.Y == Y).all()
    shares = [(split.Y[split.rows(part)].sum(axis=1) == 0).mean() for part in PARTS]
    assert np.allclose(shares, 294 / 645, atol=0.06)
    train, validation, test = (split.rows(part) for part in PARTS)
    X = X[:, :40]
    model = Algorithm1(n_trees=20).fit(X[train], split.Y[train], validation=(X[validation], split.Y[validation]))
    decided = model.predict(X[test])
    silent = split.Y[test].sum(axis=1) == 0
    assert (decided[silent].sum(axis=1) == 0).any()
    row = evaluate(split.Y[test], decided, model.decision_function(X[test]), resamples=20)
    assert 0 < row["map"]["value"] < 1 and row["map"]["value"] == evaluate(
        split.Y[test][~silent], decided[~silent], model.decision_function(X[test][~silent]), resamples=2
    )["map"]["value"]  # fmt: skip


def spectra(path):
    """Log energies of bands in eight stretches of the first two seconds of a recording, (8, bands)."""
    wave = read_waveform(path, 22_050, end=2.0)
    frames = np.abs(np.fft.rfft(np.resize(wave, (8, 5000)), axis=1)) ** 2
    bands = np.unique(np.geomspace(10, 2400, 25).astype(int))
    return np.log(np.add.reduceat(frames, bands, axis=1) + 1e-6)


def test_real_recordings_in_their_folds(tmp_path):
    """ESC-10: the first digit of a file's name is its fold; a fifth of the recordings, and hardly any training."""
    files = sorted((SHARED / "audio/ESC-10").glob("*/*.ogg"))[::5]
    if not files:
        pytest.skip("no ../shared/audio")
    (tmp_path / "esc").symlink_to(SHARED / "audio/ESC-10")
    rows = [(path.stem, path.parent.name.split(" - ")[1], path.name[0]) for path in files]
    manifest = pd.DataFrame(rows, columns=["clip_id", "labels", "fold"]).assign(media="", text="sound")
    manifest = read_manifest(written(tmp_path, manifest))
    features = np.array([spectra(path) for path in files])
    n, steps, _ = features.shape
    offsets = np.arange(n + 1) * steps
    static = {"audio": Sequences(features.reshape(n * steps, -1), offsets)}
    settings = read_settings(
        {
            "modalities": {
                "audio": {"extractor": "soundnet"},
                "text": {"extractor": "glove", "weights": {"dim": 2, "epochs": 1}},
            },
            "temporal": {"units": 8, "dense": 16, "max_epochs": 6, "learning_rate": 0.01},
            "fusion": {"n_trees": 20, "stop": "none"},
        }
    )
    concepts = sorted(set(manifest["labels"]))
    results = run_folds(manifest, concepts, static, settings, ("proposed",))
    assert [fold["fold"] for fold in results] == list("12345") and sum(fold["clips"]["test"] for fold in results) == n
    found = summarise_folds(results)["proposed"]
    low, high = found["top_one"]["interval"]
    assert low < found["top_one"]["mean"] == np.mean([fold["rows"]["proposed"]["top_one"] for fold in results]) < high
    assert found["top_one"]["mean"] > 0.25, found["top_one"]["mean"]  # a tenth by chance
