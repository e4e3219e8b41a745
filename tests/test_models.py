"""A model's folder: the same bytes for the same training, the pipeline's scores for the same clip, trust in nothing."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pandas as pd
import pytest
import skops.io
from conftest import ROOT, environment
from safetensors.numpy import load_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from mmdisaster.core import digest_file, digest_json, load_arrays, load_json, load_provenance, save_arrays, save_json
from mmdisaster.data.clips import Clip, read_clips
from mmdisaster.data.manifest import read_manifest
from mmdisaster.data.sequences import Sequences
from mmdisaster.data.split import Split
from mmdisaster.data.store import read_store
from mmdisaster.fusion.saved import load_algorithm1, save_algorithm1
from mmdisaster.media.writing import write_clip
from mmdisaster.model import folder as folders
from mmdisaster.model.folder import load_model, model_files, save_model
from mmdisaster.model.prediction import ModelError, Prediction, clip_vectors, make_model, prediction_table
from mmdisaster.model.training import check_training, prepare_weights, train
from mmdisaster.settings import read_settings
from mmdisaster.settings.reading import merged
from mmdisaster.settings.sections import Fusion
from mmdisaster.settings.tree import Settings
from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus
from mmdisaster.static.extraction import ExtractionError, extract
from mmdisaster.steps.fusion import fit_algorithm1, score_algorithm1
from mmdisaster.steps.split import split_corpus
from mmdisaster.words.tokens import tokenize

CONCEPTS = ["Flood/Storm", "Damage", "Speak/Briefing/Interview"]
SMALL = {
    "split": {"by": "clip"},
    "corpus": {"calibration_clips": 2},
    "modalities": {
        "visual": {"extractor": "inception", "frames": 2, "size": 75, "weights": {"frames": 2, "size": 75}},
        "audio": {"extractor": "soundnet"},
        "text": {"extractor": "glove", "weights": {"dim": 8, "epochs": 2}},
    },
    "temporal": {"units": 6, "dense": 8, "max_epochs": 2},
    "fusion": {"n_trees": 20},
}
MODALITIES = Settings().modalities


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A corpus of 24 clips, a model trained on it, and its folder."""
    folder = tmp_path_factory.mktemp("models")
    counts = {"Flood/Storm": 14, "Damage": 10, "Speak/Briefing/Interview": 12}
    simulate_corpus(folder / "corpus", SimulationSettings(24, 12, counts, 100, 76, seconds=1.2, seed=5), workers=1)
    trained = train(folder / "corpus/manifest.csv", folder / "work", CONCEPTS, SMALL, provenance={"about": "a test"})
    save_model(folder / "model", trained)
    return folder


@pytest.fixture(scope="module")
def model(home):
    return load_model(home / "model")


@pytest.fixture
def copy(home, tmp_path):
    """A copy of the model's folder to spoil; what isn't touched is the same file."""
    return shutil.copytree(home / "model", tmp_path / "copy", copy_function=os.link)


def test_a_description_without_a_known_word_is_none(home, model):
    """It is missing, and said to be; alone, it can't be scored. One known word makes it a description."""
    first = home / "corpus/media/clip-000.mp4"
    strange, silent, known = model.predict([Clip(first, "zzz qqq"), Clip(first), Clip(first, "zzz hurricane")])
    assert strange.scores == silent.scores != known.scores
    assert strange.missing == silent.missing == ["text"] and known.missing == []
    assert strange.notes == ["text: no word of its description is known to the model"]
    assert silent.notes == known.notes == []
    with pytest.raises(ValueError, match="no word of its description is known to the model; has nothing of visual"):
        model.predict(Clip(text="zzz qqq"))


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


def sign(folder, name):
    """Give the folder's description the digest that a file has now, as an intruder would."""
    about = load_json(folder / "model.json")
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
from mmdisaster.data.clips import Clip
from mmdisaster.model.folder import load_model, save_model
from mmdisaster.model.training import train

settings, asked = json.load(open("settings.json")), json.load(open("asked.json"))
made = train("elsewhere/manifest.csv", "work", CONCEPTS, settings, provenance={"about": "a test"})
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
    """Features from the feature store, written for the whole corpus; scores by the step `fusion`, without a model."""
    manifest = read_manifest(home / "corpus/manifest.csv", CONCEPTS)
    settings = read_settings(SMALL)
    split, static = split_corpus(manifest, CONCEPTS, settings.split), {}
    for modality in MODALITIES:
        extract(manifest, home / "corpus", model.extractor(modality), tmp_path / modality)
        static[modality] = read_store(tmp_path / modality)[1]
    batches = {modality: model.networks[modality].transform(static[modality]) for modality in MODALITIES}
    algorithm = fit_algorithm1(batches, split, settings.fusion, settings.order)
    temporal = {modality: clip_vectors(model.networks[modality], static[modality]) for modality in MODALITIES}
    scored = score_algorithm1(algorithm, temporal, settings.order)
    clips = clips_of(home)
    together = model.predict(clips)
    assert [list(p.scores.values()) for p in together] == scored["scores"].tolist()
    assert [[c in p.concepts for c in CONCEPTS] for p in together] == scored["decisions"].astype(bool).tolist()
    for i in (0, 5, 23):  # alone, and beside others in another order
        assert model.predict(clips[i])[0].scores == together[i].scores
        assert model.predict([clips[11], clips[i], clips[2]])[1].scores == together[i].scores


def test_what_is_missing_is_zeros_as_in_the_store(home, model, tmp_path):
    write_clip(tmp_path / "mute.mp4", np.full((10, 76, 100, 3), 90, np.uint8), None)
    found = model.predict([Clip(tmp_path / "mute.mp4", "storm"), Clip(tmp_path / "mute.mp4"), Clip(text="storm")])
    assert [p.missing for p in found] == [["audio"], ["audio", "text"], ["visual", "audio"]]
    zeros = np.zeros((1, model.extractor("audio").dim), np.float32)
    sound = model.networks["audio"].transform(Sequences(zeros, np.array([0, 1])))
    frames = model.extractor("visual").encode([model.extractor("visual").read({"media": "mute.mp4"}, tmp_path)])[0]
    words = model.extractor("text").encode(["storm"])[0]
    steps = {"visual": frames, "text": words}
    temporal = {
        name: clip_vectors(model.networks[name], Sequences(a.astype(np.float16), np.array([0, len(a)])))
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


@pytest.fixture(scope="module")
def other(home):
    """A model that was trained in the same work folder, on other clips and with word vectors of a file."""
    words = ["water", "flood", "storm", "street", "rescue", "damage", "governor", "people"]
    lines = [f"{word} {i} {i % 3} 1.5" for i, word in enumerate(words)]
    (home / "vectors.txt").write_text("\n".join(lines) + "\n")
    source = {"split": {"seed": 1}, "modalities": {"text": {"weights": {"source": str(home / "vectors.txt")}}}}
    return train(home / "corpus/manifest.csv", home / "work", CONCEPTS, merged(SMALL, source))


def test_a_training_goes_on_from_what_is_there_though_another_shares_its_folder(home, other):
    before = {path: path.stat().st_mtime_ns for path in (home / "work").rglob("*.safetensors")}
    again = train(home / "corpus/manifest.csv", home / "work", CONCEPTS, SMALL, provenance={"about": "a test"})
    assert before == {path: path.stat().st_mtime_ns for path in (home / "work").rglob("*.safetensors")}
    assert digests(save_model(home / "again", again)) == digests(home / "model")
    assert other.digests["text"] != again.digests["text"] and other.digests["visual"] == again.digests["visual"]
    assert (other.extractor("text").dim, again.extractor("text").dim) == (3, 8)


def test_a_model_takes_no_weights_of_another(home, copy, other, tmp_path):
    loaded = load_model(copy)
    save_model(copy, other)
    for name in ("model.json", "weights-text.safetensors"):  # where their file was isn't told
        assert str(home).encode() not in (copy / name).read_bytes()
    for ask in (lambda: loaded.extractor("text"), lambda: save_model(tmp_path / "saved", loaded)):
        with pytest.raises(ModelError, match="has changed since the model was made") as caught:
            ask()
        assert caught.value.file == "weights-text.safetensors" and str(copy) in str(caught.value)
    assert not (tmp_path / "saved").exists()


def test_the_share_of_known_words_is_told(home, model, other):
    table = read_manifest(home / "corpus/manifest.csv", CONCEPTS)
    known = {"trained": model, "vectors.txt": other}
    for source, made in known.items():
        split = split_corpus(table, CONCEPTS, made.settings.split)
        texts = table.iloc[split.rows("train")].drop_duplicates("video_id")["text"]
        words = Counter(word for text in texts for word in tokenize(text))
        listed = [line.split()[0] for line in (home / "vectors.txt").read_text().splitlines()]
        have = [word for word in words if (words[word] > 1 if source == "trained" else word in listed)]
        assert made.settings.modalities["text"].weights.source == source
        assert made.provenance["known_words"]["text"] == pytest.approx(
            sum(words[w] for w in have) / words.total(), abs=1e-4
        )


def test_training_leaves_out_what_it_may_and_says_so(home, tmp_path):
    corpus = shutil.copytree(home / "corpus", tmp_path / "corpus")
    (corpus / "media/clip-009.mp4").write_bytes(b"no film")
    (tmp_path / "work").mkdir()
    for weights in (home / "work").glob("weights-[va]*"):
        os.link(weights, tmp_path / "work" / weights.name)
    strict = merged(SMALL, {"modalities": {"visual": {"max_failures": 0.0}}})
    with pytest.raises(ExtractionError, match="clip-009.mp4") as caught:
        train(corpus / "manifest.csv", tmp_path / "work", CONCEPTS, strict)
    assert "clip-009" in (tmp_path / "work/failures.csv").read_text()
    assert "failures.csv" in caught.value.__notes__[0]
    (tmp_path / "work/failures.csv").unlink()
    made = train(corpus / "manifest.csv", tmp_path / "work", CONCEPTS, SMALL)
    assert made.provenance["missing"]["failed"] == 1 and sum(made.provenance["clips"].values()) == 23
    assert "clip-009" in (tmp_path / "work/failures.csv").read_text()


def test_weights_are_those_that_are_asked_for(home, tmp_path):
    """Random ones, a file's, random ones again: never what another asked for, nor damaged ones; nothing beside them."""
    (tmp_path / "work").mkdir()
    (made,) = (home / "work").glob("weights-audio-*")
    shutil.copy2(made, tmp_path / "work")

    def weights(source="random"):
        asked = {
            "corpus": {"calibration_clips": 2},
            "modalities": {"audio": {"extractor": "soundnet", "weights": {"source": str(source)}}},
        }
        path = prepare_weights("audio", check_training(read_settings(asked)), tmp_path / "work")
        return load_arrays(path), path

    def same(a, b):
        return all((a[name] == b[name]).all() for name in a)

    first, path = weights()
    assert path.name == made.name and path.stat().st_mtime_ns == made.stat().st_mtime_ns  # not made twice
    other = save_arrays(tmp_path / "other.safetensors", {name: array + 1 for name, array in first.items()})
    assert same(weights(other)[0], load_arrays(other)) and same(weights()[0], first)
    save_arrays(other, {name: array + 2 for name, array in first.items()})  # the same name, another content
    for _ in range(2):
        arrays, again = weights(other)
        assert same(arrays, load_arrays(other))
        again.write_bytes(again.read_bytes()[:-4] + b"\0\1\2\3")
    assert len({path.name[:14] for path in (tmp_path / "work").iterdir()}) == 1
    assert len(list((tmp_path / "work").iterdir())) == 3


def test_concepts_may_be_called_like_columns():
    concepts = ["media", "failure", "clip_id", "start", "concepts", "score: media"]
    said = Prediction(Clip("a.mp4"), {name: i / 10 for i, name in enumerate(concepts)}, ["media"])
    table = prediction_table([said, Prediction(Clip("b.mp4"), {}, [], [], "no such file")])
    assert table["media"].tolist() == ["a.mp4", "b.mp4"] and table["concepts"].tolist() == ["media", ""]
    assert table.loc[0, [f"score: {name}" for name in concepts]].tolist() == [i / 10 for i in range(6)]
    assert table["failure"][1] == "no such file" and not set(concepts) & set(table.columns) - {
        "media", "failure", "clip_id", "start", "concepts", "score: media"
    }  # fmt: skip
    assert table.columns.is_unique
    failed = prediction_table([Prediction(Clip("b.mp4"), {}, [], [], "no such file"), said])
    assert list(failed) == list(table)


NO_CLIPS = {  # what a clip is made of → what the error says
    "media none": ({"media": None}, "media of a clip must be .*, was None"),
    "media number": ({"media": 5}, "media of a clip must be .*, was 5"),
    "text none": ({"text": None}, "text of a clip must be text, or empty, was None"),
    "text bytes": ({"text": "M\udcfcll"}, "text of a clip must be Unicode"),
    "start time": ({"start": timedelta(seconds=1)}, r"start of a clip must be .*, was datetime.timedelta\(seconds=1\)"),
    "start nan": ({"start": float("nan")}, "start of a clip must be seconds from 0 up, or None, was nan"),
    "start true": ({"start": True}, "start of a clip must be .* was True"),
    "end negative": ({"end": -1}, "end of a clip must be .* was -1"),
    "end infinite": ({"end": float("inf")}, "end of a clip must be .* was inf"),
    "end text": ({"end": "4"}, "end of a clip must be .* was '4'"),
}


@pytest.mark.parametrize("name", NO_CLIPS)
def test_what_is_no_clip_is_refused(name):
    given, says = NO_CLIPS[name]
    with pytest.raises(ValueError, match=says):
        Clip(**{"media": "a.mp4"} | given)


def test_what_can_not_be_asked_is_refused(home, model):
    for wanted in (None, 5, [None], [{"media": "a.mp4"}], b"a.mp4"):
        with pytest.raises(ValueError, match="media of a clip must be"):
            model.predict(wanted)
    for share in (7, -0.1, float("nan"), None, "all"):
        with pytest.raises(ValueError, match="max_failures must be a share between 0 and 1, was"):
            model.predict("a.mp4", share)
    assert model.predict([]) == []


def sound(**settings):
    return {"modalities": {"audio": {"extractor": "soundnet"} | settings}}


NO_SETTINGS = {  # settings → what the error says
    "temporal no section": ({"temporal": 5}, "temporal: must be names and values, was 5"),
    "modalities no section": ({"modalities": 5}, "modalities: must be names and values, was 5"),
    "sections of before": (
        {"glove": {"dim": 5}},
        "glove: is unknown; what stood there is part of each modality's source",
    ),
    "no sections": ([1], r"must hold sections, was \[1\]"),
    "units": ({"temporal": {"units": 0}}, "temporal.units: must be a whole number from 1 to 4,096, was 0"),
    "batch": ({"temporal": {"batch_size": 2.5}}, "temporal.batch_size: must be a whole number .* was 2.5"),
    "memory": ({"temporal": {"units": 10**5}}, "temporal.units: must be .* was 100000"),
    "much memory": ({"temporal": {"units": 4096, "layers": 2}}, "temporal: units 4,096, .* at most"),
    "C nan": ({"fusion": {"C": float("nan")}}, "fusion.C: must be a number from 1e-06 to 1,000, was nan"),
    "kernel": ({"fusion": {"kernel": "precomputed"}}, "fusion.kernel: must be one of .* was 'precomputed'"),
    "shares": ({"split": {"fractions": [0.5, 0.5]}}, "split.fractions"),
    "by": ({"split": {"by": "day"}}, "split.by: must be one of 'clip', 'video', 'given', was 'day'"),
    "device": (sound(device="abacus"), "modalities.audio.device: must be .* was 'abacus'"),
    "no device": ({"temporal": {"device": "cuda:64"}}, "device must be .* was 'cuda:64'"),
    "vectors": ({"modalities": {"text": {"extractor": "glove", "weights": {"source": "gone.txt"}}}}, "gone.txt"),
    "weights": (
        {"modalities": {"a": {"extractor": "inception", "weights": {"source": "imagnet"}}}},
        "did you mean 'imagenet'",
    ),
    "distilled": (sound(weights={"source": "distilled"}), "step of their own"),
    "no part": ({"split": {"fractions": [0.98, 0.01, 0.01]}}, "fractions must leave each part one of 12 videos"),
    "several": ({"fuse": {}, "split": {"sed": 1}}, "2 problems\n  split.sed: .*'seed'.*\n  fuse: .*"),
}


@pytest.mark.parametrize("name", NO_SETTINGS)
def test_settings_are_tried_before_work_begins(home, tmp_path, name):
    settings, says = NO_SETTINGS[name]
    with pytest.raises(ValueError, match=says):
        train(home / "corpus/manifest.csv", tmp_path / "work", CONCEPTS, settings)
    assert not (tmp_path / "work").exists()


def test_a_stated_digest_is_compared(tmp_path):
    (tmp_path / "vectors.txt").write_text("water 1 2\n")
    digest = digest_file(tmp_path / "vectors.txt")
    stated = {"modalities.text.weights.source": str(tmp_path / "vectors.txt")}
    for sha256 in (digest, ""):
        checked = check_training(read_settings(None, stated | {"modalities.text.weights.sha256": sha256}))
        assert checked.modalities["text"].weights.sha256 == digest
    with pytest.raises(ValueError, match="modalities.text.weights.sha256 must be [0-9a-f]{64}"):
        check_training(read_settings(None, stated | {"modalities.text.weights.sha256": "0" * 64}))


def test_what_can_not_be_kept_is_refused_before_work_begins(home, tmp_path):
    for given, says in [
        ({"provenance": {"by": object()}}, "provenance: JSON can't hold"),
        ({"provenance": {"score": float("nan")}}, "provenance: "),
        ({"provenance": 5}, "provenance must hold names and values, was 5"),
        ({"concepts": "Damage"}, "concepts must be"),
        ({"concepts": 5}, "concepts must be"),
    ]:
        with pytest.raises(ValueError, match=says):
            train(home / "corpus/manifest.csv", tmp_path / "work", settings=SMALL, **given)
    assert not (tmp_path / "work").exists()


NO_TABLES = {  # file, content → what the error says, after the file's name
    "no rows": ("t.csv", b"media,text\n", "has no rows; each row must be a clip"),
    "empty": ("t.csv", b"", "is empty"),
    "Latin-1": ("t.csv", "media,text\na.mp4,Müll\n".encode("latin-1"), "row 2: must be UTF-8"),
    "semicolons": ("t.csv", b"media;text\na.mp4;x\n", "separated by commas"),
    "no media": ("t.csv", b"film\na.mp4\n", "row 1, column 'media': is missing; there must be media or text"),
    "capitals": ("t.CSV", b"Media\na.mp4\n", "column 'Media': is unknown; did you mean 'media'"),
    "misspelt": ("t.csv", b"media,txt\na.mp4,x\n", "column 'txt': is unknown; did you mean 'text'"),
    "twice": ("t.csv", b"media,text ,text\na.mp4,x,y\n", "must be there once, is there twice"),
    "start": ("t.csv", b"media,start\na.mp4,soon\n", "row 2, column 'start': must be seconds from 0 up, was 'soon'"),
    "end": ("t.csv", b"media,end\na.mp4,-1\n", "row 2, column 'end': must be seconds from 0 up, was '-1'"),
    "synonym": ("t.csv", b"media,Start time\na.mp4,3\n", "column 'Start time': is unknown; did you mean 'start'?"),
    "stop": ("t.csv", b"media,start,stop\na.mp4,3,4\n", "column 'stop': is unknown; did you mean 'end'?"),
    "description": ("t.csv", b"media,description\na.mp4,x\n", "'description': is unknown; did you mean 'text'?"),
    "end first": ("t.csv", b"media,start,end\na.mp4,4,4\n", "row 2, column 'end': must lie after start (4 s), was 4"),
    "end at once": ("t.csv", b"media,end\na.mp4,0\n", "row 2, column 'end': must lie after start (0 s), was 0"),
    "no table": ("t.toml", b"a = 1\n", "must be a .csv or .parquet file"),
    "no Parquet": ("t.parquet", b"media\na.mp4\n", "must be a Parquet table"),
}


@pytest.mark.parametrize("name", NO_TABLES)
def test_a_table_that_names_no_clips_is_refused(tmp_path, name):
    file, content, says = NO_TABLES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_clips(tmp_path / file)
    assert str(caught.value).startswith(f"{tmp_path / file}: ") and says in str(caught.value)


def test_a_table_in_capitals_and_one_in_parquet_are_read(tmp_path, monkeypatch):
    (tmp_path / "t.CSV").write_text("media,start\na.mp4,2\n,\n")
    assert read_clips(tmp_path / "t.CSV") == [Clip(tmp_path / "a.mp4", start=2.0)]
    pd.DataFrame({"media": ["a.mp4", None], "text": [None, "x"]}).to_parquet(tmp_path / "t.parquet")
    assert read_clips(tmp_path / "t.parquet") == [Clip(tmp_path / "a.mp4"), Clip(text="x")]
    for engine in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        read_clips(tmp_path / "t.parquet")


def test_a_folder_holds_no_pickle_no_path_and_only_float32_networks(home):
    names = {path.suffix for path in (home / "model").iterdir()}
    assert names == {".safetensors", ".skops", ".json", ".md"}
    assert len({path.stat().st_mode for path in (home / "model").iterdir()}) == 1
    with ZipFile(home / "model/algorithm1.skops") as archive:
        assert {name.rpartition(".")[2] for name in archive.namelist()} == {"json", "npy"}
        for name in archive.namelist():
            if name.endswith(".npy"):
                np.load(BytesIO(archive.read(name)), allow_pickle=False)
    for path in (home / "model").glob("[tw]*.safetensors"):
        kinds = {array.dtype.name for name, array in load_file(path).items() if name not in ("words", "cost")}
        assert kinds == {"float32"}, path.name
    for path in (home / "model").glob("*.json"):
        assert str(home) not in path.read_text()
    assert load_json(home / "model/model.json")["provenance"]["about"] == "a test"


@pytest.mark.parametrize("name", model_files(Settings()))
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
    "newer": (change(format_version=4), "format version 4"),
    "older": (change(format_version=2), "format version 2"),
    "no version": (lambda about: about.pop("format_version"), "format version None"),
    "foreign": (change(format="keras"), "must have format"),
    "files missing": (lambda about: about["files"].pop("algorithm1.skops"), "algorithm1.skops is missing"),
    "files too many": (lambda about: about["files"].update({"../x": about["files"]["algorithm1.skops"]}), "too many"),
    "files no table": (change(files="all"), "files: must be names and values, was 'all'"),
    "file without size": (lambda about: about["files"].update({"algorithm1.skops": {}}), "algorithm1.skops"),
    "no concepts": (lambda about: about.pop("concepts"), "concepts: "),
    "concepts twice": (change(concepts=["Damage", "Damage", "Demo"]), "concepts"),
    "concepts no names": (change(concepts=[1, 2, 3]), "concepts"),
    "fewer concepts": (change(concepts=["Damage", "Demo"]), "must score 2 concepts"),
    "no settings": (lambda about: about.pop("settings"), "settings"),
    "settings foreign": (
        lambda about: about["settings"]["modalities"]["visual"].update(zoom=2),
        "modalities.visual.zoom",
    ),
    "settings wrong": (lambda about: about["settings"]["modalities"]["visual"].update(frames="many"), "frames"),
    "fusion wrong": (lambda about: about["settings"]["fusion"].update(scores="loud"), "scores"),
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
    with pytest.raises(ModelError, match="model.json: is a file; the model's folder must be named"):
        load_model(home / "model/model.json")


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


def forged(change):
    """Change the fitted Algorithm 1 in its file."""

    def forge(path):
        width = sum(network.dense for network in load_model(path.parent).networks.values())
        algorithm = load_algorithm1(path, width, len(CONCEPTS))
        change(algorithm)
        path.unlink()
        save_algorithm1(path, algorithm)

    return forge


def machine_of(algorithm):
    """The support vector machine inside."""
    return algorithm.elimination_.estimator_.svc_


def forged_svc(name, value):
    return forged(lambda found: setattr(machine_of(found), name, value(getattr(machine_of(found), name))))


def foreign(path):
    spoil(path, skops.io.dumps(RandomForestClassifier(2).fit(np.eye(4), [0, 1, 0, 1])))


def forged_entry(change):
    """Change the first array inside the archive, with its checksum."""

    def forge(path):
        with ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in files if name.endswith(".npy"))
        buffer = BytesIO()
        with ZipFile(buffer, "w") as archive:
            for other, content in files.items():
                archive.writestr(other, change(content) if other == name else content)
        spoil(path, buffer.getvalue())

    return forge


def other_network(path):
    path.unlink()
    save_arrays(path, {"support": np.ones(3, bool), "order": np.arange(3)})


FORGERIES = {  # file → ways to forge it that its digest doesn't show, and what the error says
    "pickle": ("algorithm1.skops", lambda path: spoil(path, pickle.dumps(Trap())), "not a zip file"),
    "forest": ("algorithm1.skops", foreign, "sklearn.tree._tree.Tree"),
    "other scaler": (
        "algorithm1.skops",
        forged(lambda found: setattr(found, "scaler_", StandardScaler().fit(np.eye(3)))),
        "scaler",
    ),
    "no machine": ("algorithm1.skops", forged(lambda found: setattr(found.elimination_, "estimator_", 3)), "machine"),
    "svc shorter": ("algorithm1.skops", forged_svc("_dual_coef_", lambda a: a[:, :1].copy()), "dual_coef_"),
    "svc counts": ("algorithm1.skops", forged_svc("_n_support", lambda a: a + 1000), "n_support_"),
    "svc intercepts": ("algorithm1.skops", forged_svc("_intercept_", lambda a: a[:1]), "intercept_"),
    "svc nan": ("algorithm1.skops", forged_svc("_intercept_", lambda a: a * np.nan), "must be finite"),
    "svc narrower": ("algorithm1.skops", forged_svc("support_vectors_", lambda a: a[:, :2].copy()), "support_vectors_"),
    "part cut off": ("algorithm1.skops", forged_entry(lambda content: content[:100]), "can't be read"),
    "part empty": ("algorithm1.skops", forged_entry(lambda content: b""), "can't be read"),
    "part's header": ("algorithm1.skops", forged_entry(lambda content: content.replace(b"}", b"(")), "can't be read"),
    "support": (
        "algorithm1.skops",
        forged(lambda found: setattr(found.elimination_, "support_", np.ones(3, bool))),
        "24 features",
    ),
    "network no arrays": ("temporal-audio.safetensors", lambda path: spoil(path, b"\0" * 8), "can't be read"),
    "network other": ("temporal-text.safetensors", other_network, "can't be read"),
    "pickled network": ("temporal-visual.safetensors", lambda path: spoil(path, pickle.dumps(Trap())), "can't be read"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_a_digest_does_not_tell_is_found(copy, name, monkeypatch):
    file, forge, says = FORGERIES[name]
    monkeypatch.chdir(copy)
    forge(copy / file)
    sign(copy, file)
    with pytest.raises(ModelError) as caught:
        load_model(copy)
    assert caught.value.file == file and says in str(caught.value)
    assert not (copy / "trapped").exists()


@pytest.mark.parametrize("name", [name for name in model_files(Settings()) if name.startswith("weights")])
def test_weights_that_are_opened_late_are_named_too(copy, name, monkeypatch):
    """As on a disk that fails: damaged after the digests were compared."""
    loaded = load_model(copy)
    for content in ((copy / name).read_bytes()[:100], b"\0" * 64, b""):
        spoil(copy / name, content)
        with pytest.raises(ModelError, match="has changed since the model was made") as caught:
            loaded.predict(Clip(text="water"))
        assert caught.value.file == name
    (copy / name).unlink()
    with pytest.raises(ModelError, match="can't be read"):
        loaded.predict(Clip(text="water"))


def rewritten(change):
    """Change the arrays of a file of arrays."""

    def rewrite(path):
        arrays, header = load_file(path), load_provenance(path)
        path.unlink()
        save_arrays(path, {name: change(name, array) for name, array in arrays.items()}, header)

    return rewrite


def test_a_network_in_double_precision_scores_as_in_single(copy, home, model):
    for modality in MODALITIES:
        rewritten(lambda name, array: array.astype(np.float64))(copy / f"temporal-{modality}.safetensors")
        sign(copy, f"temporal-{modality}.safetensors")
    clip = clips_of(home)[2]
    assert load_model(copy).predict(clip)[0].scores == model.predict(clip)[0].scores


def test_scores_that_are_no_numbers_are_told(copy, home, model):
    """Weights that overflow, though each is finite; a network that doesn't gives scores again."""
    rewritten(lambda name, array: array * np.float32(1e20))(copy / "temporal-audio.safetensors")
    sign(copy, "temporal-audio.safetensors")
    forged, clip = load_model(copy), clips_of(home)[2]
    with pytest.raises(ValueError, match=f"{clip.media}: its scores are not finite numbers"):
        forged.predict(clip)
    forged.networks["audio"] = model.networks["audio"]
    assert forged.predict(clip)[0].scores == model.predict(clip)[0].scores


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(copy):
    path, buffer = copy / "algorithm1.skops", BytesIO()
    with ZipFile(path) as archive, ZipFile(buffer, "w", ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
        packed.writestr("9999.npy", bytes(2**26))
    spoil(path, buffer.getvalue())
    sign(copy, path.name)
    with pytest.raises(ModelError, match="algorithm1.skops.*unpacks to .* bytes"):
        load_model(copy)


def test_a_device_that_is_not_there_is_told_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("mmdisaster.devices.devices", lambda: ["cpu"])
    with pytest.raises(ValueError, match="device must be one of 'auto', 'cpu', was 'cuda'") as caught:
        load_model(tmp_path / "nowhere", device="cuda")
    assert not isinstance(caught.value, ModelError)


def test_saving_is_all_or_nothing(home, model, tmp_path, monkeypatch):
    save_model(tmp_path / "model", model)
    before = digests(tmp_path / "model")
    monkeypatch.setattr(folders, "save_algorithm1", lambda *_: 1 / 0)
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
    for litter in ([], [".DS_Store", "Thumbs.db", "desktop.ini"]):  # of file managers
        for name in litter:
            (tmp_path / "model" / name).write_bytes(b"looked at")
        assert digests(save_model(tmp_path / "model", model)) == digests(home / "model")
    before = digests(tmp_path / "model")
    for more in ("notes.txt", "results"):  # a file, a folder
        extra = tmp_path / "model" / more
        extra.write_text("precious") if more.endswith("txt") else extra.mkdir()
        with pytest.raises(FileExistsError, match=f"holds '{more}', which is no part of a model"):
            save_model(tmp_path / "model", model)
        extra.unlink() if extra.is_file() else extra.rmdir()
    assert digests(tmp_path / "model") == before


def test_every_kind_of_machine_travels(tmp_path):
    """Scores of a machine that was saved and read are those of the step `fusion`."""
    random = np.random.default_rng(3)
    Y = (random.random((50, 3)) < 0.5).astype(np.uint8)
    parts = np.repeat(["train", "validation", "test"], [30, 10, 10])
    split = Split([str(i) for i in range(50)], ["v"] * 50, parts, CONCEPTS, Y)
    temporal = {m: random.normal(size=(50, 4)) + Y @ random.normal(size=(3, 4)) for m in MODALITIES}
    for change in [{}, {"kernel": "rbf"}, {"machine": "one-vs-rest"}, {"scores": "hard"}, {"scale": False}]:
        fusion = Fusion(n_trees=10, **change)
        settings = Settings(fusion=fusion)
        algorithm = fit_algorithm1(temporal, split, fusion, settings.order)
        held = load_algorithm1(save_algorithm1(tmp_path / "algorithm1.skops", algorithm), 12, 3)
        networks, weights = dict.fromkeys(MODALITIES), dict.fromkeys(MODALITIES, __file__)
        made = make_model(CONCEPTS, settings, weights, networks, held)
        found, scored = made.fuse(temporal), score_algorithm1(algorithm, temporal, settings.order)
        assert (found["scores"] == scored["scores"]).all() and (found["decisions"] == scored["decisions"]).all(), change
