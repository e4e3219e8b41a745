"""The heavy part of the audit, stage by stage, on the 60 clips."""

import json
import shutil

import yaml
from conftest import ROOT, run_together

SEEDS = [2019, 2020]
RUN = {"variants": ["stop-full", "late-joint"], "static": ["audio-shift-0"]}


def test_the_audit_runs_on_the_small_corpus(first_run, tmp_path):
    """From trials to the report. Variants that aren't run here get the numbers of one that is, to fill the table."""
    folder = tmp_path / "project"
    shutil.copytree(first_run, folder, ignore=shutil.ignore_patterns(".dvc"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section in ["comparison", "leakage", "sensitivity"]:
        params[section]["seeds"] = SEEDS
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for seed in SEEDS:
        run_together(folder, *(["trials", f"by={by}", f"seed={seed}"] for by in ["clip", "video"]))
    run_together(folder, *(["variants", f"variant={name}"] for name in RUN["variants"]))
    run_together(folder, ["static", "variant=audio-shift-0"], ["comparison"])
    made = folder / "data" / "variants"
    for name in set(params["variants"]) | set(params["static"]):
        if not (made / f"{name}.json").exists():
            shutil.copy(made / "audio-shift-0.json", made / f"{name}.json")
    run_together(folder, ["leakage"], ["sensitivity"])
    run_together(folder, ["distillation"])
    shutil.copy(ROOT / "results" / "benchmarks.json", folder / "results")
    run_together(folder, ["report"])
    results = folder / "results"
    report = (results / "report.md").read_text()
    assert "simulated" in report and "nan" not in report.lower().split("## limits")[0]
    compared = json.loads((results / "comparison.json").read_text())
    assert {line["verdict"] for line in compared["gains"]} <= {"supported", "not supported", "undecided"}
    first = {line["row"]: line["seeds"][0] for line in compared["rows"] if line["metric"] == "micro_f1"}
    pipeline = json.loads((results / "evaluate.json").read_text())["test"]
    assert {row: found["micro_f1"]["value"] for row, found in pipeline.items()} == first
    assert "simulated" in (results / "distillation.md").read_text()
    changes = json.loads((results / "sensitivity.json").read_text())["changes"]
    assert {line["row"] for line in changes if line["variant"] == "stop-full"} == {"proposed"}
    assert {line["row"] for line in changes if line["variant"] == "late-joint"} == {"late"}
