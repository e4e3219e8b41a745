"""Modalities are data: other names, other numbers, features that exist already, and what a corpus lacks."""

import re

import numpy as np
import pandas as pd
import pytest

from mmdisaster.cli import main
from mmdisaster.core import load_json
from mmdisaster.data.clips import read_clips
from mmdisaster.data.manifest import ManifestError
from mmdisaster.model.folder import load_model, save_model
from mmdisaster.model.training import train
from mmdisaster.pages.provenance import describe_run
from mmdisaster.settings.reading import SettingsError, read_settings
from mmdisaster.settings.tree import Settings

DEPTH, FACES = {"features": "depth/{clip_id}.npy"}, {"features": "faces.csv"}
CAPTIONS = {"extractor": "glove", "weights": {"dim": 6, "epochs": 2, "min_count": 1}}
QUICK = {
    "temporal": {"units": 4, "dense": 6, "max_epochs": 2},
    "fusion": {"n_trees": 10},
    "modalities": {"depth": DEPTH, "faces": FACES, "captions": CAPTIONS},
}


@pytest.fixture
def corpus(tmp_path):
    """Forty clips without media: a depth of one to three steps, two numbers of faces, a description."""
    random, place = np.random.default_rng(0), tmp_path / "corpus"
    (place / "depth").mkdir(parents=True)
    Y = random.integers(0, 2, (40, 2))
    Y[Y.sum(axis=1) == 0, 0] = 1
    ids = [f"c{i:02}" for i in range(40)]
    for i, clip_id in enumerate(ids):
        steps = random.normal(size=(1 + i % 3, 5)) + 3 * Y[i, 0]
        np.save(place / f"depth/{clip_id}.npy", (steps if len(steps) > 1 else steps[0]).astype(np.float32))
    pd.DataFrame({"clip_id": ids, "happy": Y[:, 1] + random.normal(size=40), "sad": 1}).to_csv(
        place / "faces.csv", index=False
    )
    names = ["Flood", "Speech"]
    said = [" ".join(["water", "mayor"][j] for j in np.flatnonzero(row)) for row in Y]
    labels = ["|".join(names[j] for j in np.flatnonzero(row)) for row in Y]
    table = pd.DataFrame({"clip_id": ids, "media": "", "text": said, "labels": labels})
    table.to_csv(place / "clips.csv", index=False)
    return place


def test_two_that_exist_already_and_text_become_a_model_that_predicts(corpus, tmp_path):
    model = train(corpus / "clips.csv", tmp_path / "work", settings=QUICK)
    folder = save_model(tmp_path / "model", model)
    assert sorted(path.name for path in folder.iterdir()) == sorted([
        "algorithm1.skops", "model.json", "temporal-captions.safetensors", "temporal-depth.safetensors",
        "temporal-faces.safetensors", "weights-captions.safetensors",
    ])  # fmt: skip
    assert [*load_json(folder / "model.json")["settings"]["modalities"]] == ["depth", "faces", "captions"]
    assert model.provenance["features"].keys() == QUICK["modalities"].keys()
    note = describe_run(model.provenance)
    assert "depth: depth/{clip_id}.npy; faces: faces.csv; GloVe: trained on" in note
    assert not re.search("inception|soundnet|visual|audio", note, re.IGNORECASE)
    again = load_model(folder)
    clips = read_clips(corpus / "clips.csv")
    found = again.predict(clips)
    assert [p.scores for p in found] == [p.scores for p in model.predict(clips)] and not any(p.missing for p in found)
    (corpus / "depth/c03.npy").unlink()
    assert again.predict(clips[3])[0].missing == ["depth"]
    np.save(corpus / "depth/c04.npy", np.zeros(7))
    assert "must have 5 values per step, has 7" in again.predict(clips[4], 1.0)[0].failure


def test_all_that_is_wrong_with_features_is_said_before_work(corpus, tmp_path, capsys):
    np.save(corpus / "depth/c05.npy", np.full(5, np.nan))
    np.save(corpus / "depth/c06.npy", np.zeros((2, 6)))
    np.save(corpus / "depth/c07.npy", np.array(["a"] * 5))
    (corpus / "depth/c08.npy").rename(corpus / "depth/c88.npy")
    pd.read_csv(corpus / "faces.csv")[:39].to_csv(corpus / "faces.csv", index=False)
    with pytest.raises(ManifestError) as caught:
        train(corpus / "clips.csv", tmp_path / "work", settings=QUICK)
    wanted = [
        "row 7, column 'modalities.depth': features must hold numbers within ±65504, holds NaN, was 'c05.npy'",
        "row 8, column 'modalities.depth': features must have 5 values per step, has 6, was 'c06.npy'",
        "row 9, column 'modalities.depth': features must hold numbers, holds <U1, was 'c07.npy'",
        "1 of 40 clips have no features, allowed are 0.0% (max_missing); the first is 'c08'",
        "row 41, column 'modalities.faces': 1 of 40 clips have no features",
    ]
    assert all(words in str(caught.value) for words in wanted), caught.value
    assert not (tmp_path / "work").exists()
    (tmp_path / "own.json").write_text(__import__("json").dumps(QUICK))
    assert main(["check", str(corpus / "clips.csv"), "--settings", str(tmp_path / "own.json"), "--quiet"]) == 1
    said = capsys.readouterr().out
    assert (
        all(words in said for words in wanted) and "1 features are of no clip of the manifest, such as c88.npy" in said
    )


def test_what_no_clip_has_takes_no_part(corpus, tmp_path, capsys):
    """A corpus of texts alone, with the paper's three modalities in the settings."""
    settings = QUICK | {"modalities": Settings().model_dump()["modalities"] | {"text": CAPTIONS}}
    model = train(corpus / "clips.csv", tmp_path / "work", settings=settings, verbose=True)
    said = capsys.readouterr().err
    assert "no clip has pictures: visual takes no part" in said and "no clip has sound: audio takes no part" in said
    assert [*model.networks] == [*model.weights] == [*model.settings.rows][:1] == ["text"]
    assert [*model.settings.rows] == ["text", "early", "late", "proposed"]
    saved = (save_model(tmp_path / "model", model) / "model.json").read_text()
    note = describe_run(model.provenance)
    assert (
        not re.search("inception|soundnet|visual_|scale|without", note, re.IGNORECASE)
        and '"extractor": "inception"' not in saved
    )
    assert model.predict(read_clips(corpus / "clips.csv")[:2])[0].missing == []
    blank = pd.read_csv(corpus / "clips.csv").drop(columns=["text", "media"])
    blank.to_csv(tmp_path / "blank.csv", index=False)
    with pytest.raises(ManifestError, match="must have pictures or sound or text, have nothing of it"):
        train(tmp_path / "blank.csv", tmp_path / "none", settings=settings)


def test_one_extractor_may_serve_two_modalities():
    two = {"near": {"extractor": "inception", "frames": 2}, "far": {"extractor": "inception", "frames": 9}}
    settings = read_settings({"modalities": two})
    assert [source.frames for source in settings.present.values()] == [2, 9] and settings.order == ("near", "far")
    assert [*settings.rows] == ["near", "far", "early", "late", "proposed"]


WRONG = {  # what modalities are → what is said
    "none": ({}, "modalities: must be"),
    "nine": ({f"m{i}": CAPTIONS for i in range(9)}, "modalities: must be"),
    "reserved": ({"late": CAPTIONS}, "modalities.late: must be another name than those of rows, early, late, proposed"),
    "hyphen": ({"far-right": CAPTIONS}, "modalities.far-right: names must be"),
    "nothing": ({"depth": {}}, "modalities.depth: must have `extractor`, one of 'inception', "),
    "unknown": ({"depth": {"extractor": "vgg"}}, "modalities.depth: must have `extractor`, one of 'inception', "),
    "both": ({"depth": CAPTIONS | DEPTH}, "modalities.depth.extractor: is unknown"),
    "inside": (
        {"depth": CAPTIONS | {"weights": {"dim": 0}}},
        "modalities.depth.weights.dim: must be a whole number from 1 to",
    ),
    "pattern": ({"depth": {"features": "depth.npy"}}, "modalities.depth: features must be .npy, "),
    "capitals": ({"depth": CAPTIONS, "Depth": CAPTIONS}, "modalities must differ by more than capitals"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_modalities_are_refused(name):
    modalities, says = WRONG[name]
    with pytest.raises(SettingsError) as caught:
        read_settings({"modalities": modalities})
    assert says in str(caught.value)
