"""Measure what each row of Table II takes, once, and write it down:  python tools/costs.py

Trains each temporal network and each row again, on one core, from what `make repro` left in data/ and models/, and
writes results/costs.json and results/costs.md. Seconds differ from run to run and from machine to machine, so that no
stage makes them: the record stays as it is until somebody measures again, and names its machine.
"""

import sys
from pathlib import Path

from mmdisaster.core import atomic_path, load_json, save_json
from mmdisaster.data.corpus import read_corpus
from mmdisaster.data.split import read_split
from mmdisaster.data.store import read_store
from mmdisaster.pages.provenance import describe_run
from mmdisaster.pages.tables import markdown_table
from mmdisaster.settings.reading import read_settings
from mmdisaster.study.costs import costs_table, extraction_table, measure_costs, measure_extraction

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = 64  # clips whose extraction is timed


def main() -> int:
    settings = read_settings(ROOT / "params.yaml")
    results = ROOT / settings.corpus.results
    split = read_split(ROOT / "data/clips.csv")
    manifest, _, media = read_corpus(ROOT / "data/corpus")
    sample = manifest[manifest["clip_id"].isin(split.clip_ids)].head(SAMPLE)
    weights = {name: ROOT / f"models/weights-{name}.safetensors" for name in settings.present}
    static = {name: read_store(ROOT / f"data/features/{name}", split.clip_ids)[1] for name in settings.present}
    extraction = measure_extraction(sample, media, weights, settings)
    record = {**measure_costs(static, split, settings), "extraction": extraction}
    record["note"] = describe_run(load_json(results / "evaluate.json")["provenance"])
    save_json(results / "costs.json", record)
    table, beside = costs_table(record, settings.rows), extraction_table(record, len(split.clip_ids))
    page = (
        f"# What each row costs\n\nMeasured once by `make costs` on: {record['machine']}. Seconds of processor time, "
        "on one core; another machine takes others, and the same one as well. No stage makes them, so that tables and "
        f"figures stay the same from run to run.\n\n{markdown_table(table)}\nParameters: of a network all weights; of "
        "Algorithm 1 the weights and offsets of its hyperplanes. Epochs until training stopped (and which was kept). "
        "Seconds with its temporal networks: as if the row were trained alone; in the pipeline rows share them. Runs: "
        "how often the row is fitted in pipeline, trials, variants and with losses of modalities.\n\n"
        f"What all rows share:\n\n{markdown_table(beside)}\n{record['note']}\n"
    )
    with atomic_path(results / "costs.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
