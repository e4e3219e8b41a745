"""What a person at a shell sees: results, exit status, and one line where something is wrong."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, environment

from mmdisaster import cli
from mmdisaster.cli import main, read_command_line
from mmdisaster.core import load_json
from mmdisaster.data.clips import Clip
from mmdisaster.data.export import NEEDS
from mmdisaster.data.store import read_store
from mmdisaster.model.folder import load_model
from mmdisaster.settings.tree import Settings
from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus

SETTINGS = """
corpus.calibration_clips = 2
modalities.visual = {extractor = "inception", frames = 2, size = 75, weights = {frames = 2, size = 75}}
modalities.audio.extractor = "soundnet"
modalities.text = {extractor = "glove", weights = {dim = 8, epochs = 2}}
temporal = {units = 6, dense = 8, max_epochs = 1}
fusion.n_trees = 10
"""
HEAVY = ["av", "gensim", "numpy", "pandas", "scipy", "sklearn", "skops", "torch", "torchvision"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A corpus, settings, and a model that the command made."""
    folder = tmp_path_factory.mktemp("cli")
    counts = {"Flood/Storm": 14, "Damage": 10, "Speak/Briefing/Interview": 12}
    simulate_corpus(folder / "corpus", SimulationSettings(24, 12, counts, 100, 76, seconds=1.2, seed=5), workers=1)
    (folder / "settings.toml").write_text(SETTINGS)
    before = os.getcwd()
    os.chdir(folder)
    try:
        shared = ["corpus/manifest.csv", "--settings", "settings.toml"]
        assert main(["extract", *shared, "--out", "work"]) == 0
        made = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.safetensors")}
        assert main(["train", *shared, "--out", "model", "--work", "work"]) == 0
        assert all(path.stat().st_mtime_ns == time for path, time in made.items()), "train did not go on from extract"
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def there(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("MMDISASTER_CACHE", str(home / "cache"))


def test_help_is_there_at_once():
    """Neither help nor a misspelt command waits for heavy libraries."""
    program = (
        "import sys\ntry:\n import mmdisaster.cli as c; sys.exit(c.main(ARGUMENTS))\nfinally:\n print(*sys.modules)"
    )
    for arguments in (["--help"], ["predict", "--help"], ["--version"], ["predit"]):
        command = [sys.executable, "-c", program.replace("ARGUMENTS", str(arguments))]
        run = subprocess.run(command, env=environment(ROOT), capture_output=True, text=True)
        assert not set(HEAVY) & set(run.stdout.splitlines()[-1].split()), arguments
        assert run.returncode == (2 if arguments == ["predit"] else 0) and "Traceback" not in run.stderr


def test_the_installed_program_is_main():
    text = (ROOT / "pyproject.toml").read_text()
    assert '[project.scripts]\nmmdisaster = "mmdisaster.cli:main"\n' in text


def test_concepts_are_those_of_the_labels_most_frequent_first():
    assert load_model("model").concepts == ["Flood/Storm", "Speak/Briefing/Interview", "Damage"]


def test_prediction_for_people_and_for_programs(capsys):
    clip = ["model", "corpus/media/clip-003.mp4", "--text", "hurricane in the streets"]
    assert main(["predict", *clip]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert main(["predict", *clip, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 1 and found[0]["media"] == "corpus/media/clip-003.mp4" and found[0]["failure"] is None
    ranked = sorted(found[0]["scores"].items(), key=lambda item: -item[1])
    assert shown[0] == "corpus/media/clip-003.mp4"
    assert [line.split()[:2] for line in shown[1:]] == [[name, f"{score:.3f}"] for name, score in ranked]
    assert {line.split()[0] for line in shown[1:] if line.endswith("*")} == set(found[0]["concepts"])


def told(stderr):
    """What the program says on standard error, without progress, which overwrites its line."""
    return [line for line in stderr.replace("\r", "\n").splitlines() if line.startswith("mmdisaster: ")]


def test_many_clips_from_a_table_where_one_is_broken(capsys):
    rows = ["media,text,start,end", "corpus/media/clip-003.mp4,hurricane,,", "gone.mp4,,,"]
    rows += ["corpus/media/clip-004.mp4,,0.1,0.9", ",storm,,"]
    open("clips.csv", "w").write("\n".join(rows) + "\n")
    assert main(["predict", "model", "--manifest", "clips.csv", "--json"]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [row["failure"] for row in found] == [None, "no such file", None, None]
    assert found[2]["missing"] == ["text"] and found[2]["end"] == 0.9 and found[3]["missing"] == ["visual", "audio"]
    assert told(shown.err) == ["mmdisaster: gone.mp4: no such file"]
    assert main(["predict", "model", "corpus/media/clip-003.mp4", "--text", "hurricane", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["scores"] == found[0]["scores"]


def test_rows_of_a_table_keep_their_ids_and_fail_alone(capsys):
    """Text alone is enough; what is wrong with a row is told beside the others, in JSON and in CSV."""
    rows = ["clip_id,text,start", "a,hurricane,", "b,storm,soon", "c,people", "", "d,storm,", ""]
    open("texts.csv", "w").write("\n".join(rows) + "\n")
    assert main(["predict", "model", "--manifest", "texts.csv", "--json", "--quiet"]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [(row["row"], row["clip_id"]) for row in found] == [(2, "a"), (3, "b"), (4, None), (5, None), (6, "d")]
    assert [row["failure"] for row in found] == [
        None,
        "column 'start': must be seconds from 0 up, was 'soon'",
        "must have 3 cells, as the header has, was 2 cells",
        "must not be empty",
        None,
    ]
    assert [bool(row["scores"]) for row in found] == [row["failure"] is None for row in found]
    assert told(shown.err)[2] == "mmdisaster: row 5: must not be empty"
    assert main(["predict", "model", "--manifest", "texts.csv", "--csv", "--quiet"]) == 2
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    assert table["row"].tolist() == [2, 3, 4, 5, 6] and table["failure"].tolist()[1:4] == [
        row["failure"] for row in found[1:4]
    ]
    for name in load_model("model").concepts:
        assert [float(score) for score in table[f"score: {name}"][[0, 4]]] == [found[i]["scores"][name] for i in (0, 4)]
    assert main(["predict", "model", "--text", "water", "--json", "--csv"]) == 2


def test_predictions_go_to_a_file_and_clips_come_from_standard_input(monkeypatch, capsys, tmp_path):
    table = "clip_id,media,text\na,corpus/media/clip-000.mp4,water in the streets\nb,gone.mp4,\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table.encode())))
    assert main(["predict", "model", "--manifest", "-", "--out", str(tmp_path / "p.parquet"), "--quiet"]) == 2
    assert "gone.mp4" in capsys.readouterr().err
    made = pd.read_parquet(tmp_path / "p.parquet").set_index("clip_id")
    assert [*made.index] == ["a", "b"] and made["failure"]["b"] == "no such file"
    Path("table.csv").write_text(table)
    assert main(["predict", "model", "--manifest", "table.csv", "--csv", "--out", "-", "--quiet"]) == 2
    printed = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index("clip_id")
    scores = [name for name in made if name.startswith("score: ")]
    assert len(scores) == 3 and np.array_equal(made[scores], printed[scores], equal_nan=True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"clip_id,media\n")))
    assert main(["predict", "model", "--manifest", "-", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("mmdisaster: standard input: ")
    assert main(["predict", "model", "--text", "hurricane", "--out", str(tmp_path / "p.txt"), "--quiet"]) == 0
    assert (tmp_path / "p.txt").read_text().startswith("(text)")


def test_a_check_for_programs_lists_each_problem(capsys):
    assert main(["check", "corpus/manifest.csv", "--no-media", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 24
    text = Path("corpus/manifest.csv").read_text()
    Path("corpus/wrong.csv").write_text(text.replace("media/clip-003.mp4", "media/none.mp4"))
    assert main(["check", "corpus/wrong.csv", "--no-media", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    errors = [problem for problem in found["problems"] if problem["severity"] == "error"]
    assert not found["can_start"] and [(error["row"], error["column"], error["value"]) for error in errors] == [
        (5, "media", "media/none.mp4")
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_commands_and_options(shell, capsys):
    assert main(["completion", shell]) == 0
    words = capsys.readouterr().out
    assert all(word in words for word in ["predict", "manifest", "no-media"])


def test_predictions_are_made_as_clips_come(monkeypatch):
    """A million rows need no more memory than a few: none is taken before those before it are scored."""
    monkeypatch.setattr("mmdisaster.model.prediction.PORTION", 3)
    taken = []
    clips = (taken.append(i) or Clip(text="water") for i in range(1_000_000))
    predictions = load_model("model").stream(clips)
    assert len([next(predictions) for _ in range(4)]) == 4 and len(taken) == 6


def test_check_says_whether_a_run_can_start(capsys):
    assert main(["check", "corpus/manifest.csv"]) == 0
    assert "24 clips" in capsys.readouterr().out
    lines = open("corpus/manifest.csv").read().replace("Damage", "Damge", 1)
    open("corpus/misspelt.csv", "w").write(lines)
    assert main(["check", "corpus/misspelt.csv", "--concept", "Damage", "--concept", "Flood/Storm"]) == 1
    assert "did you mean 'Damage'?" in capsys.readouterr().out
    assert main(["check", "nowhere.csv"]) == 1
    assert "nowhere.csv" in capsys.readouterr().out


def test_weights_are_listed_and_named_files_are_found(capsys):
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown][:2] == ["imagenet", "soundnet"]
    assert main(["weights", "path", "settings.toml"]) == 0
    assert capsys.readouterr().out == "settings.toml\n"


WRONG = {  # command → what its one line says
    "predict nowhere a.mp4": "nowhere/model.json: there is no such folder",
    "predict corpus a.mp4": "corpus/model.json: is missing",
    "predict model/model.json a.mp4": "model/model.json: is a file; the model's folder must be named",
    "predict model corpus": "corpus: is a folder, must be a media file",
    "predict model gone.mp4": "gone.mp4: no such file",
    "predict model settings.toml": "settings.toml: can't be decoded",
    "predict model corpus/media/clip-003.mp4 --start 9": "clip-003.mp4: start is 9 s",
    "predict model corpus/media/clip-003.mp4 --start 1 --end 0.5": "clip-003.mp4: end must be after start",
    "predict model": "name at least one clip",
    "predict model --text a --out a.xlsx": "go to a file that ends in .parquet",
    "predict model --text a --csv --out a.csv": "--json and --csv are about what is printed",
    "predict model a.mp4 b.mp4 --text x": "about one clip, there are 2",
    "predict model --manifest nowhere.csv": "nowhere.csv",
    "predict model --manifest settings.toml": "must be a .csv or .parquet file",
    "predict model a.mp4 --start soon": "--start: must be seconds from 0 up, was 'soon'",
    "predict model a.mp4 --start nan": "--start: must be seconds from 0 up, was 'nan'",
    "predict model a.mp4 --end inf": "--end: must be seconds from 0 up, was 'inf'",
    "predict model a.mp4 --start -1": "--start: must be seconds from 0 up, was '-1'",
    "predict model --text x --start 1": "about a CLIP, there is none",
    "predict model --manifest clips.csv --text x": "a table has columns for them",
    "predict nowhere a.mp4 --device abacus": "device must be one of",
    "predict": "MODEL; see `mmdisaster predict --help`",
    "predit": "invalid choice: 'predit'",
    "check corpus/manifest.csv --max-failures 7": "--max-failures: must be a share from 0 to 1, such as 0.05, was '7'",
    "check --max-failures nan corpus/manifest.csv": "must be a share from 0 to 1, such as 0.05, was 'nan'",
    "extract corpus/manifest.csv --out w --max-failures -1": "must be a share from 0 to 1, such as 0.05, was '-1'",
    "predict model a.mp4 --device abacus": "abacus",
    "train nowhere.csv --out m": "nowhere.csv",
    "train settings.toml --out m": "settings.toml",
    "train corpus/manifest.csv --out m --concept Damage": "concepts must be two or more",
    "train corpus/manifest.csv --out m --settings nowhere.toml": "nowhere.toml",
    "train corpus/manifest.csv --out m --settings corpus/manifest.csv": "must be a .yaml, .yml, .toml, .json file",
    "train corpus/manifest.csv --out m --set fusion.c=1": "fusion.c: is unknown; did you mean 'C'?",
    "train corpus/manifest.csv --out m --set modalities.visual.max_failures=2": "must be a number from 0 to 1, was 2",
    "train corpus/manifest.csv --out m --set modalities.audio.weights.sha256=ab": "must be SHA-256 of that file",
    "train corpus/manifest.csv --out m --set split.fractions=[0.98,0.01,0.01]": "must leave each part one of 12 videos",
    "train corpus/manifest.csv --out m --set fuse=1": "fuse: is unknown",
    "train corpus/manifest.csv --out m --set fusion.C": "SECTION.NAME=VALUE",
    "train corpus/manifest.csv --out m --set fusion.C=much": "fusion.C: must be a number from 1e-06 to 1,000, was",
    "train corpus/manifest.csv --out m --set modalities.audio.weights.source=sounds.npy": "sounds.npy",
    "train corpus/manifest.csv --out m --set modalities.visual.weights.source=imagenet": "weights fetch imagenet",
    "train corpus/manifest.csv --out m --max-failures 2": "--max-failures: must be a share",
    "train corpus/manifest.csv --out m --settings broken.toml": "broken.toml: 1 problem",
    "train corpus/manifest.csv --out m --work m": "--work must be a folder outside the model's, m, was m",
    "train corpus/manifest.csv --out m --work m/work": "--work must be a folder outside the model's, m, was m/work",
    "train corpus/manifest.csv": "--out; see `mmdisaster train --help`",
    "train corpus/manifest.csv --out corpus": "won't be replaced",
    "extract nowhere.csv --out w": "nowhere.csv",
    "weights verify imagenet": "mmdisaster weights fetch imagenet",
    "weights path imagnet": "did you mean 'imagenet'?",
    "weights path soundnett": "did you mean 'soundnet'?",
    "weights list foo": "takes no name, was 'foo'",
    "weights verify imagenet --force": "--force is for weights fetch",
    "weights fetch imagnet": "imagnet",
    "weights fetch": "needs a name",
}


@pytest.mark.parametrize("command", WRONG)
def test_an_error_is_told_and_not_traced(command, capsys):
    open("broken.toml", "w").write("fusion = [")
    assert main(command.split()) == 2
    shown = capsys.readouterr()
    assert told(shown.err) and WRONG[command] in shown.err
    assert "Traceback" not in shown.err and not shown.out
    assert not os.path.exists("m")


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(ValueError, match="no such folder"):
        main(["predict", "nowhere", "a.mp4", "--debug"])


def test_a_mistake_of_the_program_is_no_mistake_of_its_user(monkeypatch):
    monkeypatch.setattr("mmdisaster.model.folder.load_model", lambda *_: {}["nothing"])
    with pytest.raises(KeyError):
        main(["predict", "model", "a.mp4"])


MACHINE = [  # what a machine that is too small or too full raises → what is told of it
    (OSError(28, "No space left on device", "work/index.json"), "work/index.json: No space left on device"),
    (MemoryError("Unable to allocate 7 GiB"), "there is not enough memory: Unable to allocate 7 GiB"),
    (MemoryError(), "there is not enough memory: MemoryError"),
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
        "there is not enough memory: CUDA out of memory. Tried",
    ),
]


@pytest.mark.parametrize("error, says", MACHINE, ids=range(len(MACHINE)))
def test_no_space_and_no_memory_are_told(monkeypatch, capsys, error, says):
    def stop(*_):
        raise error

    monkeypatch.setattr("mmdisaster.model.folder.load_model", stop)
    assert main(["predict", "model", "a.mp4"]) == 2
    assert capsys.readouterr().err == f"mmdisaster: {says}\n"


def test_memory_that_torch_asks_for_in_vain_is_told(monkeypatch, capsys):
    monkeypatch.setattr("mmdisaster.model.folder.load_model", lambda *_: torch.empty(2**55))
    assert main(["predict", "model", "a.mp4"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("mmdisaster: there is not enough memory") and shown.count("\n") == 1


def test_weights_are_fetched_again_by_force(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("mmdisaster.weights.published.fetch", lambda *given, verbose: asked.append(given) or "file")
    assert main(["weights", "fetch", "imagenet"]) == main(["weights", "--force", "fetch", "imagenet"]) == 0
    assert asked == [("imagenet", None, False), ("imagenet", None, True)]


def test_options_stand_anywhere():
    clips, rest = ["model", "a.mp4", "b.mp4"], ["--device", "cpu", "--text", "water"]
    orders = [[*clips, *rest], [*rest, *clips], [*clips[:1], *rest, *clips[1:]], [*clips[:2], *rest, *clips[2:]]]
    for read in [vars(read_command_line(["predict", *order])) for order in orders]:
        assert (read["model"], read["clips"], read["device"], read["text"]) == ("model", clips[1:], "cpu", "water")
    assert read_command_line(["predict", "--json", "model", "--", "-a.mp4"]).clips == ["-a.mp4"]
    assert read_command_line(["train", "--out", "m", "a.csv", "--set", "a.b=1", "--set", "a.c=2"]).manifest == "a.csv"


def test_an_unreadable_clip_is_left_out_and_listed_unless_there_are_too_many(home, tmp_path, capsys):
    """`check` and a run go by the same share, 5 % where nothing else is said; 1 clip of 24 is 4.2 %."""
    corpus = shutil.copytree(home / "corpus", tmp_path / "corpus")
    (corpus / "media/clip-009.mp4").write_bytes(b"no film")
    (tmp_path / "work").mkdir()
    for weights in (home / "work").glob("weights-[va]*"):
        os.link(weights, tmp_path / "work" / weights.name)
    given = [str(corpus / "manifest.csv")]
    work = [*given, "--settings", "settings.toml", "--out", str(tmp_path / "work")]
    assert (main(["check", *given]), main(["check", *given, "--max-failures", "0.04"])) == (0, 1)
    assert main(["extract", *work, "--max-failures", "0.04"]) == 2
    shown = capsys.readouterr().err
    assert "1 of 24 clips could not be read" in shown and f"listed in {tmp_path / 'work/failures.csv'}" in shown
    assert main(["extract", *work]) == 0
    assert "features of 23 clips, 1 left out" in capsys.readouterr().out
    assert "clip-009" in (tmp_path / "work/failures.csv").read_text()
    assert main(["extract", *work, "--format", "npy"]) == main(["extract", *work, "--format", "npz"]) == 0
    assert f"{tmp_path / 'work/exported'}: the same as npz" in capsys.readouterr().out
    for store in (tmp_path / "work/features").glob("*-*"):
        exported = tmp_path / "work/exported" / store.name.partition("-")[0]
        clip_ids, found = read_store(store)
        assert sorted(path.stem for path in exported.iterdir()) == clip_ids and "clip-009" not in clip_ids
        with np.load(f"{exported}.npz") as archive:
            for clip_id, steps in zip(clip_ids, found, strict=True):
                assert np.array_equal(np.load(exported / f"{clip_id}.npy"), steps)
                assert np.array_equal(archive[clip_id], steps) and steps.dtype == archive[clip_id].dtype
        record = load_json(f"{exported}.json")
        assert (record["clips"], record["format"], record["failures"][0]["clip_id"]) == (23, "npz", "clip-009")


def test_curves_are_live_and_change_nothing(home, capsys, tmp_path):
    pytest.importorskip("dvclive", reason="the extra `live` isn't installed")
    saved = json.loads(Path("model/model.json").read_text(encoding="utf-8"))
    shared = ["corpus/manifest.csv", "--settings", "settings.toml", "--work", "work"]
    line = ["train", *shared, "--out", str(tmp_path / "model"), "--live", str(tmp_path / "curves")]
    assert main(line) == 0
    found = json.loads((tmp_path / "curves/metrics.json").read_text(encoding="utf-8"))
    for modality, losses in found.items():
        if modality != "step":
            lines = (
                (tmp_path / f"curves/plots/metrics/{modality}/train_loss.tsv").read_text(encoding="utf-8").split("\n")
            )
            assert len(lines) - 2 == found["step"] and np.isfinite(losses["validation_loss"])
    assert {path.name for path in (tmp_path / "curves").iterdir()} == {"metrics.json", "plots"}
    again = json.loads((tmp_path / "model/model.json").read_text(encoding="utf-8"))
    assert again["provenance"]["test"] == saved["provenance"]["test"]
    capsys.readouterr()
    (tmp_path / "curves/notes.txt").touch()
    assert main(line) == 2
    assert "live curves must go to a folder of their own" in capsys.readouterr().err


@pytest.mark.parametrize("kind, name", [("parquet", "pyarrow"), ("hdf5", "h5py")])
def test_a_format_whose_library_is_not_there_is_refused_before_any_work(monkeypatch, capsys, tmp_path, kind, name):
    monkeypatch.setitem(NEEDS, kind, f"{name}_is_not_there")
    assert main(["extract", "corpus/manifest.csv", "--out", str(tmp_path / "work"), "--format", kind]) == 2
    assert f"format '{kind}' needs {name}_is_not_there, which can't be imported" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_an_interruption_is_told(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmdisaster.model.folder.load_model", interrupt)
    assert main(["predict", "model", "a.mp4"]) == 130
    assert capsys.readouterr().err == "mmdisaster: interrupted\n"


def test_settings_from_a_file_and_from_the_command_line():
    """A params.yaml, YAML, TOML and JSON say the same; --set and --device lie over them."""
    open("settings.json", "w").write('{"fusion": {"C": 0.5}}')
    open("settings.yaml", "w").write("fusion: {C: 0.5}\n")
    open("other.toml", "w").write("fusion.C = 0.5\n")
    for file in ("settings.json", "settings.yaml", "other.toml"):
        line = ["train", "a.csv", "--out", "m", "--settings", file, "--set", "fusion.stop=full", "--device", "auto"]
        found = cli._settings(read_command_line([*line, "--set", "split.by=video", "--max-failures", "0.5"]))
        assert (found.fusion.C, found.fusion.stop, found.split.by) == (0.5, "full", "video")
        assert found.temporal.device == found.modalities["visual"].device == "auto"
        assert found.modalities["audio"].max_failures == 0.5
    params = read_command_line(["train", "a.csv", "--out", "m", "--settings", str(ROOT / "params.yaml")])
    assert cli._settings(params) == Settings()


def test_every_command_explains_each_option(capsys):
    parser = cli.make_parser()
    commands = parser._subparsers._group_actions[0].choices
    assert set(commands) == {"demo", "check", "weights", "extract", "train", "folds", "predict", "completion"}
    for name, command in commands.items():
        assert all(action.help for action in command._actions), name
        words = " ".join(command.format_help().split())
        assert name in ("demo", "weights", "predict", "completion") or "(default: as the settings say)" in words
