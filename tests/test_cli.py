"""What a person at a shell sees: results, exit status, and one line where something is wrong."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, environment

from mmdisaster import cli
from mmdisaster.cli import change_settings, main, read_settings_file
from mmdisaster.models import load_model
from mmdisaster.simulate import SimulationSettings, simulate_corpus

SETTINGS = """
calibration.clips = 2
features.visual = {frames = 2, size = 75}
glove = {dim = 8, epochs = 2}
temporal = {units = 6, dense = 8, max_epochs = 1}
fuse.n_trees = 10
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
    program = "import sys\ntry:\n import mmdisaster.cli as c; c.main(ARGUMENTS)\nfinally:\n print(*sys.modules)"
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
    clip = ["model", "corpus/media/clip-003.mp4", "--text", "water in the streets"]
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
    rows = ["media,text,start,end", "corpus/media/clip-003.mp4,water,,", "gone.mp4,,,"]
    rows += ["corpus/media/clip-004.mp4,,0.1,0.9", ",storm,,"]
    open("clips.csv", "w").write("\n".join(rows) + "\n")
    assert main(["predict", "model", "--manifest", "clips.csv", "--json"]) == 2
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert [row["failure"] for row in found] == [None, "no such file", None, None]
    assert found[2]["missing"] == ["text"] and found[2]["end"] == 0.9 and found[3]["missing"] == ["audio", "visual"]
    assert told(shown.err) == ["mmdisaster: gone.mp4: no such file"]
    assert main(["predict", "model", "corpus/media/clip-003.mp4", "--text", "water", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["scores"] == found[0]["scores"]


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
    "predict model gone.mp4": "gone.mp4: no such file",
    "predict model settings.toml": "settings.toml: can't be decoded",
    "predict model corpus/media/clip-003.mp4 --start 9": "clip-003.mp4: start is 9 s",
    "predict model corpus/media/clip-003.mp4 --start 1 --end 0.5": "clip-003.mp4: end must be after start",
    "predict model": "name at least one clip",
    "predict model a.mp4 b.mp4 --text x": "about one clip, there are 2",
    "predict model --manifest nowhere.csv": "nowhere.csv",
    "predict model --manifest settings.toml": "'.csv', '.parquet'",
    "predict model a.mp4 --device abacus": "abacus",
    "train nowhere.csv --out m": "nowhere.csv",
    "train settings.toml --out m": "settings.toml",
    "train corpus/manifest.csv --out m --concept Damage": "concepts must be two or more",
    "train corpus/manifest.csv --out m --settings nowhere.toml": "nowhere.toml",
    "train corpus/manifest.csv --out m --settings corpus/manifest.csv": "must be a .toml or .json file",
    "train corpus/manifest.csv --out m --set fuse.c=1": "unknown setting 'c'",
    "train corpus/manifest.csv --out m --set fuse=1": "SECTION.NAME=VALUE",
    "train corpus/manifest.csv --out m --set fuse.C": "SECTION.NAME=VALUE",
    "train corpus/manifest.csv --out m --set fuse.C=much": "'C' must be float, was 'much'",
    "train corpus/manifest.csv --out m --set weights.audio.source=sounds.npy": "sounds.npy",
    "train corpus/manifest.csv --out m --set weights.visual.source=imagenet": "mmdisaster weights fetch imagenet",
    "train corpus/manifest.csv --out m --max-failures 2": "max_failures must be a share",
    "train corpus/manifest.csv --out corpus": "won't be replaced",
    "extract nowhere.csv --out w": "nowhere.csv",
    "weights verify imagenet": "mmdisaster weights fetch imagenet",
    "weights path imagnet": "did you mean 'imagenet'?",
    "weights fetch imagnet": "imagnet",
    "weights fetch": "needs a name",
}


@pytest.mark.parametrize("command", WRONG)
def test_an_error_is_told_and_not_traced(command, capsys):
    assert main(command.split()) == 2
    shown = capsys.readouterr()
    assert told(shown.err) and WRONG[command] in shown.err
    assert "Traceback" not in shown.err and not shown.out
    assert not os.path.exists("m")


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(ValueError, match="no such folder"):
        main(["predict", "nowhere", "a.mp4", "--debug"])


def test_a_mistake_of_the_program_is_no_mistake_of_its_user(monkeypatch):
    monkeypatch.setattr("mmdisaster.models.load_model", lambda *_: {}["nothing"])
    with pytest.raises(KeyError):
        main(["predict", "model", "a.mp4"])


def test_an_interruption_is_told(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmdisaster.models.load_model", interrupt)
    assert main(["predict", "model", "a.mp4"]) == 130
    assert capsys.readouterr().err == "mmdisaster: interrupted\n"


def test_settings_from_a_file_and_from_the_command_line():
    open("settings.json", "w").write('{"fuse": {"C": 0.5}}')
    found = change_settings(read_settings_file("settings.json"), ["fuse.C=1", "fuse.stop=full", "split.by=video"])
    assert found == {"fuse": {"C": 1, "stop": "full"}, "split": {"by": "video"}}
    assert read_settings_file("settings.toml")["features"]["visual"] == {"frames": 2, "size": 75}
    for content in ("[1]", "{"):
        open("settings.json", "w").write(content)
        with pytest.raises(ValueError):
            read_settings_file("settings.json")


def test_every_command_explains_each_option(capsys):
    parser = cli.make_parser()
    commands = parser._subparsers._group_actions[0].choices
    assert set(commands) == {"check", "weights", "extract", "train", "predict"}
    for name, command in commands.items():
        assert all(action.help for action in command._actions), name
