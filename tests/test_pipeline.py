"""The whole pipeline on 60 clips: it repeats itself, reruns what a change touches, survives a kill, leaks nothing."""

import json
import os
import re
import shutil
import signal
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, command, merge, run_together, start
from safetensors.numpy import load_file

from mmdisaster.core import load_json
from mmdisaster.data.manifest import read_manifest
from mmdisaster.data.store import read_store
from mmdisaster.evaluation.metrics import micro_f1
from mmdisaster.paper.tables import NAMES
from mmdisaster.settings import read_settings
from mmdisaster.study.trials import run_trial
from mmdisaster.study.verdicts import WORST_FIRST, plain_word

ROWS = ["visual", "audio", "text", "visual-audio", "visual-text", "text-audio", "early", "late", "proposed"]


@pytest.fixture
def again(first_run, tmp_path):
    """The first run in another place, where nothing can be fetched from a cache."""
    shutil.copytree(first_run, tmp_path / "again", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "again"


AGAIN = {  # stage → as the launcher takes it
    "split": ["split"],
    "weights@visual": ["weights", "modality=visual"],
    "weights@audio": ["weights", "modality=audio"],
    "clips": ["clips"],
    "temporal@visual": ["temporal", "modality=visual"],
}


def contents(path):
    """Every file below a path, or the file that it is."""
    return {file.relative_to(path): file.read_bytes() for file in [path, *path.rglob("*")] if file.is_file()}


def test_the_same_inputs_give_the_same_bytes(first_run, again):
    """What no other test makes twice: those that kill stages make clips and visual features, the one below the rest."""
    lock = yaml.safe_load((again / "dvc.lock").read_text())["stages"]
    outs = [out["path"] for stage in AGAIN for out in lock[stage]["outs"]]
    assert {"data/split.csv", "models/weights-audio.safetensors", "reports/temporal-visual.ipynb"} <= set(outs)
    for out in outs:
        (again / out).unlink()
    run_together(again, AGAIN["split"], AGAIN["weights@visual"], AGAIN["weights@audio"])
    run_together(again, AGAIN["clips"], AGAIN["temporal@visual"])
    for out in outs:
        assert contents(again / out) == contents(first_run / out), f"{out} is something else the second time"


def test_no_result_names_the_place_where_it_was_made(first_run):
    for folder in ["data", "models", "reports", "results"]:
        found = [path for path, content in contents(first_run / folder).items() if str(first_run).encode() in content]
        assert found == [], folder


def test_every_table_and_figure_is_there(first_run):
    results = first_run / "results"
    evaluation = json.loads((results / "evaluate.json").read_text())
    assert list(evaluation["test"]) == ROWS
    table = pd.read_csv(results / "table2.csv")
    kinds = table["Approach"].str.extract("^(Floor|Limit): ", expand=False).fillna("")
    assert kinds.tolist() == [""] * 9 + ["Floor"] * 4 + ["Limit"] * 2 and table["Micro F1 ours"].between(0, 1).all()
    rows = table[kinds == ""]
    assert rows["Micro F1 difference"].to_numpy() == pytest.approx(rows["Micro F1 ours"] - rows["Micro F1 paper"])
    assert "imulated" in (results / "table2.md").read_text()
    for name in ["figure1", "figure2", "path", "curves"]:
        assert (results / f"{name}.svg").stat().st_size > 1000
        assert (results / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_floors_stand_under_the_rows_and_the_page_says_where_they_win(first_run):
    evaluation = json.loads((first_run / "results" / "evaluate.json").read_text())
    floors, proposed = evaluation["floors"]["test"], evaluation["test"]["proposed"]
    assert list(floors) == ["frequent", "words", "sound", "forest"]
    low, high = floors["words"]["micro_f1"]["interval"]
    assert low <= floors["words"]["micro_f1"]["value"] <= high
    split = pd.read_csv(first_run / "data" / "clips.csv")
    train, test = (split[split["part"] == part].iloc[:, 3:].to_numpy() for part in ["train", "test"])
    sets = np.array(list(product([0, 1], repeat=train.shape[1])))[1:]
    best = max(sets, key=lambda chosen: micro_f1(train, np.tile(chosen, (len(train), 1))))
    assert floors["frequent"]["micro_f1"]["value"] == pytest.approx(micro_f1(test, np.tile(best, (len(test), 1))))
    (said,) = re.findall(r"^Floors are .*$", (first_run / "results" / "table2.md").read_text(), re.MULTILINE)
    for metric, title in NAMES.items():
        sign = -1 if metric == "hamming_loss" else 1
        beaten = max(sign * row[metric]["value"] for row in floors.values()) > sign * proposed[metric]["value"]
        assert (f"in {title} (" in said) == beaten


def test_limits_stand_under_the_floors_with_the_learner_that_validation_chose(first_run):
    limits = json.loads((first_run / "results" / "evaluate.json").read_text())["limits"]
    assert list(limits["test"]) == ["oracle", "near_bayes"] and limits["test"]["near_bayes"]["micro_f1"]["value"] > 0.9
    learners = limits["learners"]
    assert len(learners) == 3 and next(iter(learners.values())) == max(learners.values())
    value = limits["test"]["oracle"]["micro_f1"]["value"]
    words = (first_run / "results" / "table2.md").read_text()
    assert f"{next(iter(learners))}, chosen on validation clips) and has a micro F1 of {value:.4f}" in words


def test_table_one_counts_the_manifest(first_run):
    manifest = pd.read_csv(first_run / "data" / "corpus" / "manifest.csv")
    table = pd.read_csv(first_run / "results" / "table1.csv", index_col="Concept")
    for concept, instances in table["Instances"].items():
        assert instances == manifest["labels"].str.split("|").map(lambda names, concept=concept: concept in names).sum()


def changed(folder, **changes):
    """Stages that DVC would rerun after a change of params, and the params put back."""
    params = folder / "params.yaml"
    before = params.read_text()
    values = yaml.safe_load(before)
    merge(values, changes)
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    out = command(folder, "dvc", "repro", "--dry").stdout
    params.write_text(before)
    return {line.split("'")[1].split("@")[0] for line in out.splitlines() if line.startswith("Running stage")}


def test_nothing_to_do_the_second_time(first_run):
    assert changed(first_run) == set()


def test_dvc_shows_table_two_and_draws_without_a_network(first_run, again):
    """Metrics are Table II's test figures; the page of plots holds all that it needs; status is one line."""
    found = json.loads(command(first_run, "dvc", "metrics", "show", "--json").stdout)[""]["data"]
    evaluation = json.loads((first_run / "results" / "evaluate.json").read_text())["test"]
    shown = {Path(name).stem: row["data"] for name, row in found.items()}
    assert shown == {name: {what: row[what]["value"] for what in shown["late"]} for name, row in evaluation.items()}
    assert command(first_run, "dvc", "status").stdout == "Data and pipelines are up to date.\n"
    shutil.copytree(first_run / "tools", again / "tools", dirs_exist_ok=True)
    command(again, "python", "tools/plots.py")
    command(again, "dvc", "plots", "show")
    library, _, body = (again / "dvc_plots" / "index.html").read_text().rpartition("<body>")
    assert "vegaEmbed=" in library and "<script src=" not in library
    assert body.count("vegaEmbed('#") == 3 and body.count("<img") == 4 and not re.search(r'src="?http', body)


def test_what_is_pushed_can_be_pulled_and_nothing_runs_again(first_run, tmp_path):
    command(first_run, "dvc", "remote", "add", "--force", "-d", "store", str(tmp_path / "store"))
    command(first_run, "dvc", "push", "-q")
    made = {"": {"data", "models", "reports", "log"}, ".dvc": {"cache", "tmp"}}  # what git doesn't see
    place = {str(first_run / name): names for name, names in made.items()}
    clone = shutil.copytree(first_run, tmp_path / "clone", ignore=lambda folder, _: place.get(str(folder), ()))
    command(first_run, "dvc", "remote", "remove", "store")
    command(clone, "dvc", "pull", "-q")
    assert command(clone, "dvc", "status").stdout == "Data and pipelines are up to date.\n"
    assert contents(clone / "models") == contents(first_run / "models") and changed(clone) == set()


def test_a_change_reruns_what_it_touches_first(first_run):
    before_fusion = {"corpus", "split", "weights", "words", "features", "temporal", "baseline"}
    assert changed(first_run, figure2={"dpi": 99}) == {"figure2"}
    after_fusion = changed(first_run, fusion={"C": 0.8})
    assert "fusion" in after_fusion and not after_fusion & before_fusion


@pytest.mark.parametrize(
    "stage, sign", [("features@visual", "data/features/visual/*.safetensors"), ("corpus", "data/corpus/media/*.mp4")]
)
def test_a_killed_stage_ends_in_the_same_result(again, stage, sign):
    folder = again
    lock = (folder / "dvc.lock").read_bytes()
    shutil.rmtree(folder / sign.split("*")[0].removesuffix("media/"))
    process = start(folder, "dvc", "repro", "-s", stage, start_new_session=True)
    deadline = time.time() + 90
    while not list(folder.glob(sign)) and process.poll() is None:
        assert time.time() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    command(folder, "dvc", "repro", "-s", stage)
    assert (folder / "dvc.lock").read_bytes() == lock


def learnt(folder):
    """All that was fitted: word vectors, temporal networks, ranking and support; and how the baselines learnt."""
    arrays = {
        f"{path.stem}/{name}": value
        for path in sorted((folder / "models").glob("*.safetensors"))
        for name, value in load_file(path).items()
    }
    fusion = json.loads((folder / "data" / "fusion.json").read_text())
    fusion = {name: fusion[name] for name in ["ranking", "importances", "support", "path", "stops"]}
    histories = {
        path.stem: json.loads(path.read_text()) for path in sorted((folder / "data" / "scores").glob("*.json"))
    }
    return arrays, fusion, histories


def test_nothing_that_is_learnt_has_seen_a_test_clip(first_run, tmp_path):
    """Other sounds, other texts and other labels for the test clips: everything that is fitted stays the same."""
    folder = tmp_path / "project"
    shutil.copytree(first_run, folder, ignore=shutil.ignore_patterns(".dvc"))
    manifest = pd.read_csv(folder / "data" / "corpus" / "manifest.csv")
    split = pd.read_csv(folder / "data" / "split.csv")
    test = (split["part"] == "test").to_numpy()
    before, scores = learnt(folder), load_file(folder / "data" / "scores" / "proposed.safetensors")["scores"]
    other = np.random.default_rng(0).permutation(np.flatnonzero(~test))[: test.sum()]
    for mine, theirs in zip(manifest.loc[test, "media"], manifest.loc[other, "media"], strict=True):
        shutil.copy(folder / "data" / "corpus" / theirs, folder / "data" / "corpus" / mine)
    manifest.loc[test, "text"] = "zebra quagga okapi zebra quagga okapi"
    manifest.to_csv(folder / "data" / "corpus" / "manifest.csv", index=False)
    split.loc[test, split.columns[3:]] = 1 - split.loc[test, split.columns[3:]]
    split.to_csv(folder / "data" / "split.csv", index=False)
    run_together(folder, ["words", "modality=text"], ["features", "modality=audio"])
    run_together(folder, ["features", "modality=text"], ["temporal", "modality=audio"])
    run_together(folder, ["temporal", "modality=text"], ["baseline", "approach=audio"])
    run_together(folder, ["baseline", "approach=late"], ["fusion"])
    after = learnt(folder)
    assert before[0].keys() == after[0].keys()
    assert [name for name in before[0] if not np.array_equal(before[0][name], after[0][name])] == []
    assert before[1:] == after[1:]
    changed_scores = load_file(folder / "data" / "scores" / "proposed.safetensors")["scores"]
    assert np.array_equal(scores[~test], changed_scores[~test])
    assert not np.array_equal(scores[test], changed_scores[test])  # the test would notice


def test_training_by_command_is_the_pipeline(first_run, tmp_path):
    """The same clips and the same params.yaml: the same test metrics, to the digit."""
    given = ["data/corpus/manifest.csv", "--settings", "params.yaml", "--out", tmp_path / "model", "--quiet"]
    result = command(first_run, "mmdisaster", "train", *given)
    assert "simulated clips" in result.stdout and not result.stderr
    trained = json.loads((tmp_path / "model" / "model.json").read_text())["provenance"]
    evaluation = json.loads((first_run / "results" / "evaluate.json").read_text())
    row = evaluation["test"]["proposed"]
    assert trained["test"] == {name: row[name]["value"] for name in ["micro_f1", "hamming_loss", "map"]}
    assert trained["corpus"] == evaluation["provenance"]["corpus"]
    assert trained["clips"] == evaluation["provenance"]["clips"]
    assert trained["features"] == evaluation["provenance"]["features"]


def test_a_trial_is_what_the_pipeline_does(first_run):
    """Bit by bit, in every row: so the audit's seeds repeat the experiment and not something like it."""
    settings = read_settings(first_run / "params.yaml")
    concepts = load_json(first_run / "data" / "corpus" / "concepts.json")
    manifest = read_manifest(first_run / "data" / "corpus" / "manifest.csv", concepts)
    static = {name: read_store(first_run / "data" / "features" / name)[1] for name in ["visual", "audio"]}
    trial = run_trial(manifest, concepts, static, settings)
    for name in ROWS:
        stored = load_file(first_run / "data" / "scores" / f"{name}.safetensors")
        for kind in ["scores", "decisions"]:
            assert np.array_equal(stored[kind], trial.scored[name][kind]), f"{name}, {kind}"


SEEDS = [2019, 2020]
RUN = {"variants": ["stop-full", "late-joint"], "static": ["audio-shift-0"]}


def test_the_audit_runs_on_the_small_corpus(first_run, tmp_path):
    """From trials to the report. Variants that aren't run here get the numbers of one that is, to fill the table."""
    folder = tmp_path / "project"
    shutil.copytree(first_run, folder, ignore=shutil.ignore_patterns(".dvc"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section in ["comparison", "leakage", "sensitivity", "control", "missing", "grid", "tuning"]:
        params[section]["seeds"] = SEEDS
    params["tuning"] |= {"learning_rate": [0.001], "batch_size": [64], "hidden": [128], "units": [2], "C": [0.03]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command(folder, "python", "tools/stage.py", "trials", "by=clip", "seed=2019")  # with processes of its own
    run_together(
        folder, ["trials", "by=clip", "seed=2020"], *(["trials", "by=video", f"seed={seed}"] for seed in SEEDS)
    )
    run_together(folder, *(["variants", f"variant={name}"] for name in RUN["variants"]))
    run_together(folder, ["static", "variant=audio-shift-0"], ["comparison"])
    made = folder / "audit" / "data" / "variants"
    for name in set(params["variants"]) | set(params["static"]):
        if not (made / f"{name}.json").exists():
            shutil.copy(made / "audio-shift-0.json", made / f"{name}.json")
    run_together(folder, ["leakage"], ["control"], ["grid"])
    run_together(folder, ["missing"], ["sensitivity"])
    run_together(folder, *(["tuning", f"seed={seed}"] for seed in SEEDS))
    run_together(folder, ["distillation"], ["tuning_table"])
    for name in ["benchmarks", "views", "tweets"]:  # of public data: nothing of the corpus is in them
        shutil.copy(ROOT / "results" / f"{name}.json", folder / "results")
    command(folder, "python", "tools/costs.py")
    run_together(folder, ["report"])
    results = folder / "results"
    report = (results / "report.md").read_text()
    assert "simulated" in report and "nan" not in report.lower().split("## limits")[0]
    compared = json.loads((results / "comparison.json").read_text())
    assert {plain_word(line["superiority"]) for line in compared["gains"]} <= {*WORST_FIRST}
    assert len(compared["readings"]) == 1 and {line["row"] for line in compared["readings"].popitem()[1]} == {"late"}
    assert {*compared["limits"]} == {"oracle", "near_bayes"}
    first = {line["row"]: line["seeds"][0] for line in compared["rows"] if line["metric"] == "micro_f1"}
    pipeline = json.loads((results / "evaluate.json").read_text())["test"]
    assert {row: found["micro_f1"]["value"] for row, found in pipeline.items()} == first
    assert "simulated" in (results / "distillation.md").read_text()
    tuned = json.loads((results / "tuning.json").read_text())
    first = tuned["found"][0]["late"]
    assert first["untuned"]["test"]["micro_f1"] == next(
        line["seeds"][0] for line in compared["rows"] if line["row"] == "late"
    )
    assert all(
        line["mean"] >= 0 for line in tuned["lines"] if (line["part"], line["metric"]) == ("validation", "micro_f1")
    )
    changes = json.loads((results / "sensitivity.json").read_text())["changes"]
    assert {line["row"] for line in changes if line["variant"] == "stop-full"} == {"proposed"}
    assert {line["row"] for line in changes if line["variant"] == "late-joint"} == {"late"}
