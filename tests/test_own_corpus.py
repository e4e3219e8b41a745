"""From a folder of videos and a table to tables, figures and a model, by `make repro MANIFEST=…` alone."""

import json
import shutil

import numpy as np
import pandas as pd
import yaml
from conftest import ROOT, command, copy_project
from own_corpus import CODECS, CONCEPTS, KINDS
from safetensors.numpy import load_file

BROKEN = ["v10-0", "v10-1", "v31-0", "v31-1"]


def test_the_corpus_is_as_mixed_as_it_should_be():
    assert len({suffix for suffix, *_ in KINDS}) >= 5 and len(CODECS) >= 8


RESULTS = "results/own/own-clips"  # called after the manifest's folder and name


def test_every_table_and_figure_follows(own_run):
    results = own_run / RESULTS
    evaluation = json.loads((results / "evaluate.json").read_text())
    assert set(evaluation["concepts"]) == set(CONCEPTS) and not evaluation["paper"] and len(evaluation["test"]) == 9
    for name in ["table1.csv", "table2.csv", "figure2.csv"]:
        table = pd.read_csv(results / name)
        assert len(table) and not [column for column in table.columns if "aper" in column], name
    for name in ["figure1", "figure2", "path", "curves"]:
        assert (results / f"{name}.svg").stat().st_size > 1000
    words = (results / "table2.md").read_text()
    assert "corpus clips.csv of 82 clips" in words and "simulated" not in words
    assert (
        "Floor: " in words
        and "4 unreadable and left out" in words
        and "without audio" in words
        and "without visual" in words
    )


def test_results_speak_of_that_corpus_and_stay_in_their_place(own_run):
    """Nothing of it lies among the embedded corpus's, whose words none of its pages has."""
    others = [path.name for path in (own_run / "results").iterdir() if path.is_file()]
    assert {name.partition(".")[0] for name in others} <= {"audit"}  # what the paper prints: of no corpus
    for page in [*(own_run / RESULTS).glob("*.md"), own_run / "reports" / "table2.ipynb"]:
        assert "simulated" not in page.read_text().lower(), page.name
    shown = command(own_run, "python", "tools/readme.py", "show", "table2.md").stdout
    assert shown.startswith((own_run / RESULTS / "table2.md").read_text())


def test_an_audit_says_at_once_what_it_leaves_out(own_run):
    program = "import sys; sys.path.insert(0, 'tools'); import repro; print(repro.audit_targets())"
    result = command(own_run, "python", "-c", program)
    stages = ["comparison", "leakage", "sensitivity", "missing"]
    assert result.stdout.strip() == str(stages)
    assert "Left out: the paper's printed figures, public benchmarks, verdicts" in result.stderr
    refused = command(own_run, "python", "tools/stage.py", "report", check=False)
    assert refused.returncode == 2 and "judges the paper's claims on the embedded corpus" in refused.stderr


def test_each_broken_clip_is_reported_and_left_out(own_run):
    failures = pd.read_csv(own_run / "reports" / "failures.csv")
    assert sorted(set(failures["clip_id"])) == BROKEN and failures["reason"].str.len().min() > 10
    split, kept = (pd.read_csv(own_run / "data" / f"{name}.csv") for name in ["split", "clips"])
    assert sorted(set(split["clip_id"]) - set(kept["clip_id"])) == BROKEN


def test_missing_tracks_are_counted(own_run):
    manifest = pd.read_csv(own_run / "own" / "clips.csv").set_index("clip_id").drop(BROKEN)
    presence = pd.read_csv(own_run / "data" / "presence.csv", index_col="clip_id")
    assert presence.index.tolist() == manifest.index.tolist()
    assert (presence["text"] == manifest["text"].notna()).all()
    pictures = ~manifest["media"].fillna("").str.endswith(("mp3",)) & manifest["media"].notna()
    assert (presence["visual"] == pictures).all()
    silent = [kind for kind in range(len(KINDS)) if KINDS[kind][2] is None]
    numbers = [int(name[1:3]) if name.startswith("v") else None for name in presence.index]
    assert presence["audio"].tolist() == [
        number is not None and number % len(KINDS) not in silent for number in numbers
    ]


def test_the_model_says_what_the_pipeline_says(own_run, tmp_path):
    """A clip that the model has never heard of, by the shell command: a copy of a test clip, under another name."""
    kept = pd.read_csv(own_run / "data" / "clips.csv")
    manifest = pd.read_csv(own_run / "own" / "clips.csv", keep_default_na=False).set_index("clip_id")
    row = next(i for i in kept.index[kept["part"] == "test"] if manifest.loc[kept["clip_id"][i], "media"])
    clip = manifest.loc[kept["clip_id"][row]]
    new = shutil.copy(own_run / "own" / clip["media"], tmp_path / f"new{(own_run / clip['media']).suffix}")
    seconds = ["--start", str(clip["start"]), "--end", str(clip["end"])]
    program = ["mmdisaster", "predict", "models/fitted", new, "--text", clip["text"], *seconds, "--json"]
    (answer,) = json.loads(command(own_run, *program).stdout)
    scores = load_file(own_run / "data" / "scores" / "proposed.safetensors")
    concepts = json.loads((own_run / "data" / "corpus" / "concepts.json").read_text())
    assert list(answer["scores"]) == concepts
    assert np.allclose(list(answer["scores"].values()), scores["scores"][row], atol=1e-4)
    assert answer["concepts"] == [name for name, yes in zip(concepts, scores["decisions"][row], strict=True) if yes]


def test_params_name_the_corpus_and_the_readme_stays(own_run):
    section = yaml.safe_load((own_run / "params.yaml").read_text())["corpus"]
    assert section["manifest"] == "own/clips.csv" and section["watched"] == "own"
    assert (own_run / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_a_corpus_that_can_not_start_changes_nothing(own_run, tmp_path):
    """All problems at once, exit status 1, params.yaml as it was."""
    table = pd.read_csv(own_run / "own" / "clips.csv")
    table.loc[3, "labels"], table.loc[5, "media"] = "Fires", "media/gone.mp4"
    (own_run / "own" / "wrong.csv").write_text(table.to_csv(index=False))
    before = (own_run / "params.yaml").read_bytes()
    result = command(own_run, "python", "tools/bring.py", "own/wrong.csv", check=False)
    assert result.returncode == 1 and (own_run / "params.yaml").read_bytes() == before
    assert "row 7, column 'media': must name an existing file, was 'media/gone.mp4'" in result.stderr
    assert "concept 'Fires' looks like concept 'Fire'" in result.stderr and "A run can't start" in result.stderr


def brought(folder, path, concepts):
    """What params.yaml says after a manifest of a dozen descriptions was brought; None where it was refused."""
    path.parent.mkdir(exist_ok=True)
    rows = [[f"c{i}", f"v{i}", "", "water in the street", concepts[i % len(concepts)]] for i in range(12)]
    columns = ["clip_id", "video_id", "media", "text", "labels"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    before = (folder / "params.yaml").read_bytes()
    result = command(folder, "python", "tools/bring.py", path, check=False)
    assert "Traceback" not in result.stderr
    if result.returncode:
        assert (folder / "params.yaml").read_bytes() == before
        return None
    return yaml.safe_load((folder / "params.yaml").read_text())["corpus"]


def test_bringing_manifests(tmp_path):
    """Names that YAML reads as something else stay names; folders that DVC can't watch are refused; and back again."""
    folder = copy_project(tmp_path)
    (folder / "dvc.lock").write_text("of the embedded corpus\n")
    original, graph = yaml.safe_load((folder / "params.yaml").read_text()), (folder / "dvc.yaml").read_text()
    assert brought(folder, folder / "odd" / "clips.csv", ["No", "1:30", "Yes: please"])["concepts"] == [
        "1:30",
        "No",
        "Yes: please",
    ]
    assert brought(folder, folder / "clips.csv", ["Fire", "Water"]) is None
    assert brought(folder, folder / "data" / "clips.csv", ["Fire", "Water"]) is None
    two = brought(folder, folder / "odd" / "two.csv", ["Damage", "Victim"])
    assert two["concepts"] == ["Damage", "Victim"] and two["manifest"] == "odd/two.csv" and two["watched"] == "odd"
    assert two["results"] == "results/own/odd-two"
    assert two["absent"] == ["visual", "audio"]  # and so the stages are those of texts alone
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    assert stages["features"]["matrix"] == {"modality": ["text"]} and stages["weights"]["matrix"] == {"modality": []}
    assert stages["baseline"]["matrix"] == {"approach": ["text", "early", "late"]}
    assert "models/weights-visual.safetensors" not in stages["model"]["deps"]
    assert brought(folder, folder / "results" / "clips.csv", ["Fire", "Water"]) is None
    (folder / "dvc.lock").write_text("of two\n")  # each corpus has a lock of its own, which comes back with it
    command(folder, "python", "tools/bring.py", "simulated")
    assert yaml.safe_load((folder / "params.yaml").read_text()) == original
    assert (folder / "dvc.lock").read_text() == "of the embedded corpus\n"
    assert (folder / "dvc.yaml").read_text() == graph
