"""Four modalities, two of which exist already, a split of their own, clips without labels: by `make repro` alone."""

import json
import re
import shutil
import wave

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import MAKE, command, copy_project

CONCEPTS = ["Rain", "Siren", "Voice"]
MODALITIES = {
    "depth": {"features": "depth/{clip_id}.npy"},
    "faces": {"features": "faces.csv"},
    "street": {"extractor": "logmel", "bands": 16, "coefficients": 0},
    "captions": {"extractor": "tfidf", "weights": {"min_count": 1}},
}
CLIPS, UNLABELLED = 60, 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A project that was brought the corpus, through all its stages."""
    folder = copy_project(tmp_path_factory.mktemp("other"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["modalities"] = MODALITIES
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_corpus(folder / "own")
    command(folder, *MAKE, "repro", "MANIFEST=own/clips.csv")
    return folder


def write_corpus(place):
    """Each concept can be seen in one of depth, faces and sound, and is named in the description."""
    random = np.random.default_rng(0)
    for name in ["depth", "sound"]:
        (place / name).mkdir(parents=True)
    Y = random.integers(0, 2, (CLIPS, 3))
    Y[Y.sum(axis=1) == 0, 0] = 1
    Y[:UNLABELLED] = 0
    ids = [f"c{i:02}" for i in range(CLIPS)]
    for clip_id, (rain, _, voice) in zip(ids, Y, strict=True):
        np.save(place / f"depth/{clip_id}.npy", random.normal(size=(3, 5)).astype(np.float32) + 2 * rain)
        tone = np.sin(np.arange(11025) * (0.3 if voice else 0.05)) + 0.1 * random.normal(size=11025)
        with wave.open(str(place / f"sound/{clip_id}.wav"), "wb") as file:
            file.setparams((1, 2, 22050, 0, "NONE", ""))
            file.writeframes((8000 * tone).astype("<i2").tobytes())
    values = {f"face {j}": Y[:, 1] + random.normal(size=CLIPS) for j in range(2)}
    pd.DataFrame({"clip_id": ids} | values).to_csv(place / "faces.csv", index=False)
    shown = [[name for name, yes in zip(CONCEPTS, row, strict=True) if yes] for row in Y]
    about = {
        "media": [f"sound/{name}.wav" for name in ids],
        "text": [f"the {' '.join(s).lower()} outside" for s in shown],
    }
    split = np.array(["train", "dev", "test"])[np.arange(CLIPS) % 5 // 2]
    table = pd.DataFrame({"clip_id": ids, **about, "labels": map("|".join, shown), "split": split})
    table.to_csv(place / "clips.csv", index=False)


def test_tables_figures_and_pages_are_about_these_four(run):
    results = run / "results" / "own" / "own-clips"
    evaluation = json.loads((results / "evaluate.json").read_text())
    singles = [*MODALITIES]
    pairs = [name for name in evaluation["test"] if "-" in name]
    assert [*evaluation["test"]] == [*singles, *pairs, "early", "late", "proposed"] and len(pairs) == 6
    assert [*evaluation["floors"]["test"]] == ["frequent", "words", "sound", "forest"]
    assert not evaluation["paper"] and evaluation["provenance"]["split"]["by"] == "given"
    assert len(pd.read_csv(results / "table2.csv")) == 13 + 4
    for name in ["figure1", "figure2", "path", "curves"]:
        assert (results / f"{name}.svg").stat().st_size > 1000
    files = [path for folder in (results, run / "reports") for path in folder.rglob("*.[ms][dv]*")]
    pages = {path.name: path.read_text() for path in files}
    assert "modalities." not in pages.pop("register.md")  # it quotes the paper, whose networks have names
    said = [name for name, page in pages.items() if re.search("Inception|SoundNet|GloVe|imulated", page)]
    assert len(pages) > 5 and said == []


def test_the_split_is_the_corpuss_and_clips_without_labels_are_clips(run):
    given = pd.read_csv(run / "own" / "clips.csv")
    split = pd.read_csv(run / "data" / "split.csv")
    assert split["part"].tolist() == given["split"].replace("dev", "validation").tolist()
    assert (split[CONCEPTS].sum(axis=1) == 0).sum() == UNLABELLED


def test_features_are_joined_and_the_model_predicts(run, tmp_path):
    params = yaml.safe_load((run / "params.yaml").read_text())
    fusion = json.loads((run / "data" / "fusion.json").read_text())
    assert fusion["n_features_all"] == 4 * params["temporal"]["dense"]
    new = shutil.copytree(run / "own", tmp_path / "new")
    pd.read_csv(new / "clips.csv")[["clip_id", "media", "text"]].tail(3).to_csv(new / "few.csv", index=False)
    program = ["mmdisaster", "predict", "models/fitted", "--manifest", str(new / "few.csv"), "--json", "--quiet"]
    answers = json.loads(command(run, *program).stdout)
    assert [answer["clip_id"] for answer in answers] == ["c57", "c58", "c59"]
    assert all(answer["missing"] == [] and set(answer["scores"]) == set(CONCEPTS) for answer in answers)
