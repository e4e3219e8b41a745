"""Modalities are data: other names, other numbers, features that exist already, and what a corpus lacks."""

import ast
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import stage as launcher
import stages as graph
from conftest import ROOT, read_notebook

from mmdisaster.cli import main
from mmdisaster.core import load_json
from mmdisaster.data.clips import read_clips
from mmdisaster.data.manifest import ManifestError
from mmdisaster.model.folder import load_model, save_model
from mmdisaster.model.training import train
from mmdisaster.pages.provenance import describe_run
from mmdisaster.settings.reading import SettingsError, read_settings, with_changes
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
        "README.md", "algorithm1.skops", "model.json", "temporal-captions.safetensors", "temporal-depth.safetensors",
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
    (tmp_path / "own.json").write_text(json.dumps(QUICK))
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


NAMED = re.compile(r"\b(visual|audio)\b|^text$")
MAY_NAME = {  # files that may name modalities → why
    "mmdisaster/simulate/": "the simulator makes pictures, sound and text",
    "mmdisaster/media/": "tracks of media files have such names",
    "mmdisaster/static/extractors.py": "the extractors themselves, and the manifest's column",
    "mmdisaster/static/logmel.py": "an extractor itself",
    "mmdisaster/static/tfidf.py": "an extractor itself, and the manifest's column",
    "mmdisaster/paper/tables.py": "the paper's printed tables",
    "mmdisaster/audit/gaps.py": "what the paper leaves open, and its own settings",
    "mmdisaster/audit/register.py": "a rule of the paper's text",
    "mmdisaster/audit/checks.py": "the paper's own statements",
    "mmdisaster/settings/sections.py": "a rule of the paper's text; noises of the simulator",
    "mmdisaster/settings/sources.py": "defaults of settings",
    "mmdisaster/settings/audits.py": "defaults of settings",
    "mmdisaster/data/": "the manifest's column text, and tracks of media files",
    "mmdisaster/model/prediction.py": "the manifest's column text",
    "mmdisaster/model/demo.py": "the manifest's column text",
    "mmdisaster/steps/words.py": "the manifest's column text",
    "mmdisaster/study/benchmarks.py": "a rule of the paper's text",
    "mmdisaster/study/control.py": "a rule of the paper's text",
    "mmdisaster/study/tweets.py": "the manifest's column text",
    "mmdisaster/study/sensitivity.py": "a column of a table",
    "mmdisaster/settings/reading.py": "what strings are called",
    "mmdisaster/evaluation/floors.py": "the manifest's column text",
    "mmdisaster/cli.py": "a form of output, beside JSON and CSV",
    "mmdisaster/model/answers.py": "a form of output, beside JSON and CSV",
    "nbs/stages/fusion.ipynb": "a rule of the paper's text",
    "nbs/stages/floors.ipynb": "the manifest's column text",
    "nbs/stages/tuning_table.ipynb": "a column of a table",
}


def named_in(source):
    """Strings of some code, but for docstrings, and attributes that name a modality."""
    tree = ast.parse(source)
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    words -= {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr != "text"}
    return sorted(word for word in words if NAMED.search(word))


def sources():
    """Code of the library, of the tools that run and bring, and of the stages without their parameters."""
    tools = [ROOT / "tools" / f"{name}.py" for name in ["stage", "stages", "bring", "repro", "params", "readme"]]
    for path in [*sorted((ROOT / "mmdisaster").rglob("*.py")), *tools]:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "nbs" / "stages").glob("*.ipynb")):
        cells = [cell for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]
        code = ["".join(cell["source"]) for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]
        yield path.relative_to(ROOT).as_posix(), "\n".join(code)


def test_nothing_else_names_a_modality():
    found = {path: named_in(source) for path, source in sources() if not path.endswith("_modidx.py")}
    found = {path: words for path, words in found.items() if words}
    assert {path: words for path, words in found.items() if not path.startswith(tuple(MAY_NAME))} == {}
    assert [start for start in MAY_NAME if not any(path.startswith(start) for path in found)] == [], "no longer needed"
    assert named_in("a = settings.features.visual, 'no audio', 'text'") == ["no audio", "text", "visual"]


def test_the_graph_follows_params_and_a_stale_one_is_refused(tmp_path, monkeypatch):
    near = {"extractor": "inception"}
    other = read_settings(
        {"modalities": {"depth": DEPTH, "near": near, "words": CAPTIONS, "ears": {"features": "a.csv"}}}
    )
    other = with_changes(other, {"corpus.absent": ["ears"]})
    before = graph.yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    found = graph.yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    graph.renew(found, other)
    assert {name: found[name]["matrix"] for name in ["weights", "words", "temporal", "baseline"]} == {
        "weights": {"modality": ["depth", "near"]},
        "words": {"modality": ["words"]},
        "temporal": {"modality": ["depth", "near", "words"]},
        "baseline": {"approach": [
            "depth", "near", "words", "depth-near", "depth-words", "near-words", "early", "late",
        ]},
    }  # fmt: skip
    files = [dep for dep in found["model"]["deps"] if dep.startswith("models/")]
    assert files == [
        f"models/{kind}-{name}.safetensors" for kind in ["weights", "temporal"] for name in other.present
    ] + ["models/algorithm1.skops"]
    assert "visual" not in str(found)
    graph.renew(found, read_settings(ROOT / "params.yaml"))
    assert found == before["stages"]
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.setattr(launcher, "ROOT", tmp_path)
    launcher.check_graph(read_settings(ROOT / "params.yaml"))
    expected = "modality of stage weights must be depth, near by params.yaml, was visual, audio; run `make stages`"
    with pytest.raises(launcher.StageError, match=f"dvc.yaml is stale: {expected}"):
        launcher.check_graph(other)
