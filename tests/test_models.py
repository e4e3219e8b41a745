"""A model's folder: the same bytes for the same training, the pipeline's scores for the same clip, trust in nothing."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
import skops.io
from conftest import ROOT, environment
from safetensors.numpy import load_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from mmdisaster import models
from mmdisaster.core import digest_file, digest_json, load_json, save_arrays, save_json
from mmdisaster.corpus import read_manifest
from mmdisaster.features import extract, read_store
from mmdisaster.fusion import MODALITIES, FusionSettings, fit_fusion
from mmdisaster.media import write_clip
from mmdisaster.models import Clip, ModelError, clip_vectors, load_model, load_parts, save_model, save_parts, train
from mmdisaster.simulate import SimulationSettings, simulate_corpus
from mmdisaster.split import Split

CONCEPTS = ["Flood/Storm", "Damage", "Speak/Briefing/Interview"]
SMALL = {
    "calibration": {"clips": 2},
    "features": {"visual": {"frames": 2, "size": 75}},
    "glove": {"dim": 8, "epochs": 2},
    "temporal": {"units": 6, "dense": 8, "max_epochs": 2},
    "fuse": {"n_trees": 20},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A corpus of 24 clips, a model trained on it, and its folder."""
    folder = tmp_path_factory.mktemp("models")
    counts = {"Flood/Storm": 14, "Damage": 10, "Speak/Briefing/Interview": 12}
    simulate_corpus(folder / "corpus", SimulationSettings(24, 12, counts, 100, 76, seconds=1.2, seed=5), workers=1)
    trained = train(folder / "corpus/manifest.csv", folder / "work", CONCEPTS, SMALL, provenance={"simulated": True})
    save_model(folder / "model", trained)
    return folder


@pytest.fixture(scope="module")
def model(home):
    return load_model(home / "model")


@pytest.fixture
def copy(home, tmp_path):
    """A copy of the model's folder to spoil; what isn't touched is the same file."""
    return shutil.copytree(home / "model", tmp_path / "copy", copy_function=os.link)


def digests(folder):
    return {path.name: digest_file(path) for path in folder.iterdir()}


def clips_of(home):
    manifest = read_manifest(home / "corpus/manifest.csv", CONCEPTS)
    return [
        Clip(home / "corpus" / media, text) for media, text in zip(manifest["media"], manifest["text"], strict=True)
    ]


def spoil(path, content):
    """Put other bytes at a path, without touching the file that it is linked with."""
    path.unlink()
    path.write_bytes(content)


def sign(folder):
    """Give the folder's description the digests that its files have now, as an intruder would."""
    about = load_json(folder / "model.json")
    about.pop("digest")
    for name in about["files"]:
        about["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": digest_file(folder / name)}
    describe(folder, about)


def describe(folder, about):
    about.pop("digest", None)
    (folder / "model.json").unlink()
    save_json(folder / "model.json", about | {"digest": digest_json(about)})


def test_training_saving_loading_predicting_twice_agree_bit_for_bit(home, model, tmp_path):
    """The second time in another process, with another hash seed, on a copy of the corpus in another folder."""
    shutil.copytree(home / "corpus", tmp_path / "elsewhere")
    (tmp_path / "settings.json").write_text(json.dumps(SMALL))
    asked = [["clip-000", "water"], ["clip-007", ""], ["clip-003", "a speech about the flood"]]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    program = """
import json
from mmdisaster.models import Clip, load_model, save_model, train

settings, asked = json.load(open("settings.json")), json.load(open("asked.json"))
made = train("elsewhere/manifest.csv", "work", CONCEPTS, settings, provenance={"simulated": True})
save_model("model", made)
found = load_model("model").predict([Clip(f"elsewhere/media/{name}.mp4", text) for name, text in asked])
json.dump([p.scores for p in found], open("scores.json", "w"))
"""
    setting = environment(ROOT) | {"PYTHONHASHSEED": "7", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", program.replace("CONCEPTS", repr(CONCEPTS))]
    subprocess.run(command, cwd=tmp_path, env=setting, check=True)
    assert digests(tmp_path / "model") == digests(home / "model")
    clips = [Clip(home / f"corpus/media/{name}.mp4", text) for name, text in asked]
    said = [p.scores for p in model.predict(clips)]
    assert load_json(tmp_path / "scores.json") == said
    shutil.rmtree(tmp_path / "work")  # a model needs nothing else of its training
    moved = load_model((tmp_path / "model").rename(tmp_path / "moved"))
    assert [p.scores for p in moved.predict(clips)] == said


def test_prediction_is_what_the_pipeline_says_about_the_same_clip(home, model, tmp_path):
    """Features from the feature store, written for the whole corpus; scores from `fit_fusion`, without a model."""
    manifest = read_manifest(home / "corpus/manifest.csv", CONCEPTS)
    split = models.deal(manifest, CONCEPTS, model.params["split"])
    static = {}
    for modality in MODALITIES:
        extract(manifest, home / "corpus", model.extractor(modality), tmp_path / modality)
        static[modality] = read_store(tmp_path / modality)[1]
    temporal = {modality: clip_vectors(model.networks[modality], static[modality]) for modality in MODALITIES}
    fused = fit_fusion(temporal, split.Y, split.parts, model.settings)
    clips = clips_of(home)
    together = model.predict(clips)
    assert [list(p.scores.values()) for p in together] == fused.scores.tolist()
    assert [[c in p.concepts for c in CONCEPTS] for p in together] == fused.decisions.astype(bool).tolist()
    for i in (0, 5, 23):  # alone, and beside others in another order
        assert model.predict(clips[i])[0].scores == together[i].scores
        assert model.predict([clips[11], clips[i], clips[2]])[1].scores == together[i].scores


def test_what_is_missing_is_zeros_as_in_the_store(home, model, tmp_path):
    write_clip(tmp_path / "mute.mp4", np.full((10, 76, 100, 3), 90, np.uint8), None)
    found = model.predict([Clip(tmp_path / "mute.mp4", "storm"), Clip(tmp_path / "mute.mp4"), Clip(text="storm")])
    assert [p.missing for p in found] == [["audio"], ["audio", "text"], ["audio", "visual"]]
    zeros = np.zeros((1, model.extractor("audio").dim), np.float32)
    sound = model.networks["audio"].transform(models.Sequences(zeros, np.array([0, 1])))
    frames = model.extractor("visual").encode([model.extractor("visual").read({"media": "mute.mp4"}, tmp_path)])[0]
    words = model.extractor("text").encode(["storm"])[0]
    steps = {"visual": frames, "text": words}
    temporal = {
        name: clip_vectors(model.networks[name], models.Sequences(a.astype(np.float16), np.array([0, len(a)])))
        for name, a in steps.items()
    }
    scores = model.fuse(temporal | {"audio": sound})["scores"][0]
    assert list(found[0].scores.values()) == scores.tolist()


def test_a_part_of_a_file_is_a_clip(home, model):
    media = home / "corpus/media/clip-001.mp4"
    whole, first, late = model.predict([Clip(media), Clip(media, start=0.0, end=0.6), Clip(media, start=9.0)], 0.5)
    assert whole.scores != first.scores and late.failure is not None and not late.scores
    with pytest.raises(ValueError, match="clip-001.mp4: .*start"):
        model.predict([Clip(media), Clip(media, start=9.0)])


def test_an_interrupted_training_goes_on(home):
    before = {path: path.stat().st_mtime_ns for path in (home / "work").rglob("*.safetensors")}
    again = train(home / "corpus/manifest.csv", home / "work", CONCEPTS, SMALL, provenance={"simulated": True})
    after = {path: path.stat().st_mtime_ns for path in (home / "work").rglob("*.safetensors")}
    kept = [path for path in before if "visual" in str(path) or "audio" in str(path)]
    assert len(kept) == 4 and all(after[path] == before[path] for path in kept)
    assert digests(save_model(home / "again", again)) == digests(home / "model")


def test_training_leaves_out_what_it_may_and_says_so(home, tmp_path):
    corpus = shutil.copytree(home / "corpus", tmp_path / "corpus")
    (corpus / "media/clip-009.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="clip-009.mp4"):
        train(corpus / "manifest.csv", tmp_path / "work", CONCEPTS, SMALL)
    made = train(corpus / "manifest.csv", tmp_path / "work", CONCEPTS, SMALL, max_failures=0.05)
    assert made.provenance["left_out"] == 1 and made.provenance["clips"] == 23
    assert "clip-009" in (tmp_path / "work/failures.csv").read_text()


def test_a_folder_holds_no_pickle_no_path_and_only_float32_networks(home):
    names = {path.suffix for path in (home / "model").iterdir()}
    assert names == {".safetensors", ".skops", ".json"}
    assert len({path.stat().st_mode for path in (home / "model").iterdir()}) == 1
    with ZipFile(home / "model/fusion.skops") as archive:
        assert {name.rpartition(".")[2] for name in archive.namelist()} == {"json", "npy"}
        for name in archive.namelist():
            if name.endswith(".npy"):
                np.load(BytesIO(archive.read(name)), allow_pickle=False)
    for path in (home / "model").glob("[tw]*.safetensors"):
        kinds = {array.dtype.name for name, array in load_file(path).items() if name not in ("words", "cost")}
        assert kinds == {"float32"}, path.name
    for path in (home / "model").glob("*.json"):
        assert str(home) not in path.read_text()
    assert load_json(home / "model/model.json")["provenance"]["simulated"] is True


@pytest.mark.parametrize("name", models.MODEL_FILES)
@pytest.mark.parametrize("damage", ["missing", "cut off", "one bit", "empty", "a folder"])
def test_a_damaged_file_is_named(copy, name, damage):
    path = copy / name
    content = path.read_bytes()
    middle = len(content) // 2
    if damage in ("missing", "a folder"):
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        spoil(path, {"cut off": content[:-1], "one bit": flipped, "empty": b""}[damage])
    with pytest.raises(ModelError, match=r"missing|bytes|damaged") as caught:
        load_model(copy)
    assert caught.value.file == name and str(path) in str(caught.value)


def change(**values):
    return lambda about: about.update(values)


DESCRIPTIONS = {  # what model.json is changed to → what the error says
    "newer": (change(format_version=2), "format version 2"),
    "older": (change(format_version=0), "format version 0"),
    "no version": (lambda about: about.pop("format_version"), "format version None"),
    "foreign": (change(format="keras"), "must have format"),
    "files missing": (lambda about: about["files"].pop("fusion.skops"), "fusion.skops is missing"),
    "files too many": (lambda about: about["files"].update({"../x": {}}), "is missing or too many"),
    "files no table": (change(files="all"), "'files' must be"),
    "file without size": (lambda about: about["files"].update({"fusion.skops": {}}), "fusion.skops"),
    "no concepts": (lambda about: about.pop("concepts"), "'concepts' is missing"),
    "concepts twice": (change(concepts=["Damage", "Damage", "Demo"]), "concepts"),
    "concepts no names": (change(concepts=[1, 2, 3]), "concepts"),
    "fewer concepts": (change(concepts=["Damage", "Demo"]), "must score 2 concepts"),
    "no options": (lambda about: about.pop("options"), "options"),
    "options foreign": (lambda about: about["options"]["visual"].update(zoom=2), "unknown setting 'zoom'"),
    "options wrong": (lambda about: about["options"]["visual"].update(frames="many"), "frames"),
    "fuse wrong": (lambda about: about["fuse"].update(scores="loud"), "scores"),
    "no provenance": (lambda about: about.pop("provenance"), "provenance"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_does_not_fit_is_refused(copy, name):
    about = load_json(copy / "model.json")
    DESCRIPTIONS[name][0](about)
    describe(copy, about)
    with pytest.raises(ModelError) as caught:
        load_model(copy)
    assert DESCRIPTIONS[name][1] in str(caught.value) and str(copy) in str(caught.value)


NO_DESCRIPTIONS = [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"format": "mmdisaster model"}']


@pytest.mark.parametrize("content", NO_DESCRIPTIONS, ids=range(len(NO_DESCRIPTIONS)))
def test_a_description_that_is_none_is_refused(copy, content):
    spoil(copy / "model.json", content)
    with pytest.raises(ModelError, match="model.json"):
        load_model(copy)


def test_a_changed_description_is_damage(copy):
    text = (copy / "model.json").read_text()
    spoil(copy / "model.json", text.replace("Damage", "Demage").encode())
    with pytest.raises(ModelError, match="is damaged"):
        load_model(copy)


def test_a_folder_that_is_no_model_is_refused(home, tmp_path):
    for folder in (home / "corpus", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelError, match="model.json: (is missing|there is no such folder)"):
            load_model(folder)


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


def forged_parts(change):
    def forge(path):
        parts = load_parts(path)
        change(parts)
        path.unlink()
        save_parts(path, parts)

    return forge


def forged_svc(name, value):
    return forged_parts(lambda parts: setattr(parts["machine"].svc_, name, value(getattr(parts["machine"].svc_, name))))


def foreign(path):
    forest = RandomForestClassifier(2).fit(np.eye(4), [0, 1, 0, 1])
    spoil(path, skops.io.dumps({"scaler": None, "machine": forest}))


def other_scaler(parts):
    parts["scaler"] = StandardScaler().fit(np.eye(3))


def ranking_as_network(path):
    spoil(path, (path.parent / "ranking.safetensors").read_bytes())


def other_arrays(path):
    path.unlink()
    save_arrays(path, {"support": np.ones(3, bool), "order": np.arange(3), "importances": np.ones(3)})


FORGERIES = {  # file → ways to forge it that its digest won't tell, and what the error says
    "pickle": ("fusion.skops", lambda path: spoil(path, pickle.dumps(Trap())), "not a zip file"),
    "forest": ("fusion.skops", foreign, "sklearn.tree._tree.Tree"),
    "no scaler": ("fusion.skops", forged_parts(lambda parts: parts.pop("scaler")), "scaler"),
    "other scaler": ("fusion.skops", forged_parts(other_scaler), "scaler"),
    "no machine": ("fusion.skops", forged_parts(lambda parts: parts.update(machine=3)), "machine must be one of"),
    "svc shorter": ("fusion.skops", forged_svc("_dual_coef_", lambda a: a[:, :1].copy()), "dual_coef_"),
    "svc counts": ("fusion.skops", forged_svc("_n_support", lambda a: a + 1000), "n_support_"),
    "svc intercepts": ("fusion.skops", forged_svc("_intercept_", lambda a: a[:1]), "intercept_"),
    "svc narrower": ("fusion.skops", forged_svc("support_vectors_", lambda a: a[:, :2].copy()), "support_vectors_"),
    "ranking": ("ranking.safetensors", other_arrays, "must rank 24 features"),
    "ranking no arrays": ("ranking.safetensors", lambda path: spoil(path, b"x" * 100), "can't be read"),
    "network no arrays": ("temporal-audio.safetensors", lambda path: spoil(path, b"\0" * 8), "can't be read"),
    "network other": ("temporal-text.safetensors", ranking_as_network, "can't be read"),
    "pickled network": ("temporal-visual.safetensors", lambda path: spoil(path, pickle.dumps(Trap())), "can't be read"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_a_digest_does_not_tell_is_found(copy, name, monkeypatch):
    file, forge, says = FORGERIES[name]
    monkeypatch.chdir(copy)
    forge(copy / file)
    sign(copy)
    with pytest.raises(ModelError) as caught:
        load_model(copy)
    assert caught.value.file == file and says in str(caught.value)
    assert not (copy / "trapped").exists()


def test_saving_is_all_or_nothing(home, model, tmp_path, monkeypatch):
    save_model(tmp_path / "model", model)
    before = digests(tmp_path / "model")
    monkeypatch.setattr(models, "save_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_model(tmp_path / "model", model)
    with pytest.raises(ZeroDivisionError):
        save_model(tmp_path / "other", model)
    assert digests(tmp_path / "model") == before and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_replaces_models_and_nothing_else(home, model, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(FileExistsError, match="won't be replaced"):
            save_model(path, model)
    assert (tmp_path / "notes.txt").read_text() == "precious"
    for _ in range(2):
        assert digests(save_model(tmp_path / "model", model)) == digests(home / "model")


@pytest.mark.filterwarnings("ignore:Label 2 is present in all training examples")
def test_every_kind_of_machine_travels(tmp_path):
    """Scores of a machine that was saved and read are those of `fit_fusion`."""
    random = np.random.default_rng(3)
    Y = (random.random((50, 3)) < 0.5).astype(np.uint8)
    Y[:, 2] = 1  # a concept that every clip has
    parts = np.repeat(["train", "validation", "test"], [30, 10, 10])
    split = Split([str(i) for i in range(50)], ["v"] * 50, parts, CONCEPTS, Y)
    temporal = {m: random.normal(size=(50, 4)) + Y @ random.normal(size=(3, 4)) for m in MODALITIES}
    for change in [{}, {"kernel": "rbf"}, {"machine": "one-vs-rest"}, {"scores": "hard"}, {"scale": False}]:
        settings = FusionSettings(n_trees=10, **change)
        networks, weights = dict.fromkeys(MODALITIES), dict.fromkeys(MODALITIES, "none")
        made = models.fit_model(split, temporal, networks, weights, {}, settings)
        held = load_parts(save_parts(tmp_path / "parts.skops", {"scaler": made.scaler, "machine": made.machine}))
        models.check_machine(held["machine"], int(made.support.sum()), 3)
        made.scaler, made.machine = held["scaler"], held["machine"]
        fused = fit_fusion(temporal, Y, parts, settings)
        found = made.fuse(temporal)
        assert (found["scores"] == fused.scores).all() and (found["decisions"] == fused.decisions).all(), change
