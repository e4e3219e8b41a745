"""Measure what size and speed cost, and write them down:  python tools/bench.py [PART ...]

Parts: extraction, networks, predict, nothing (tools/bench_clips.py, on the clips that `make repro` left), machine
(tools/bench_machine.py), memory (tools/memory.py) and card (tools/bench_card.py, the paper's scale on a graphics card);
without a name all of them, card where there is one. Each runs in a
process of its own; what the other parts found before stays. Writes results/bench.json and results/bench.md. Seconds
differ from machine to machine, and from run to run, so no stage makes them; compare ratios, which come from one run.
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmdisaster.core import atomic_path, load_json, save_json
from mmdisaster.pages.tables import markdown_table
from mmdisaster.study.costs import machine_words

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "bench.json"
MEMORY = ["--clips", "1500,15000,150000", "--distinct", "15000", "--network", "narrow", "--batches", "200"]
MIB = 2**20
OPERATIONS = 2 * 5.71e9  # of Inception-V3 at 299 px, two for each multiplication (torchvision's own count)


def by_script(name: str, *words: str) -> Callable[[], dict]:
    """A part that a script of this folder measures; its last argument is where to write."""

    def run() -> dict:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "found.json"
            failed = subprocess.run([sys.executable, ROOT / "tools" / name, *words, out], cwd=ROOT).returncode
            if not out.is_file():
                raise RuntimeError(f"tools/{name} must write what it found; it ended with status {failed}")
            return load_json(out)

    return run


def of_clips(name: str) -> Callable[[], dict]:
    """A part of tools/bench_clips.py, in a new process."""

    def run() -> dict:
        import bench_clips

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(getattr(bench_clips, f"bench_{name}"))

    return run


PARTS: dict[str, Callable[[], dict]] = {
    **{name: of_clips(name) for name in ("extraction", "networks", "predict", "nothing")},
    "machine": by_script("bench_machine.py"),
    "memory": by_script("memory.py", *MEMORY, "--out"),
    "card": by_script("bench_card.py"),
}


def lines_of_extraction(found: dict) -> list[list[str]]:
    """Frames and sound, each beside what it is compared with."""
    lines = []
    for name, took in found.items():
        clips = f"{took['clips']} clips, {name}"
        share = took["forward"] / took["extraction"]
        lines.append([f"network's passes ÷ whole extraction, {clips}", f"{share:.2f}", f"{took['extraction']:.1f} s"])
        if "plain loop" in took:
            times = took["plain loop"] / took["extraction"]
            alike = f"features correlate {took['correlation']:.2f}"
            lines.append([f"plain loop ÷ extraction, {clips}; {alike}", f"{times:.1f}×", f"{took['plain loop']:.1f} s"])
    return lines


def lines_of_machine(found: dict) -> list[list[str]]:
    """Elimination, both solvers, decisions, size."""
    path, size, decisions = found["elimination"], found["size"], found["decisions"]
    words = f"{path['rounds']} rounds of {path['labelsets']} labelsets, 384 features"
    lines = [
        [
            f"plain scikit-learn loop ÷ elimination, {words}",
            f"{path['ratio']:.1f}×, {'equal' if path['equal'] else 'other'} path",
            f"{1000 * path['seconds_per_round']:.0f} ms a round",
        ],
        ["the same without Numba", f"{path['ratio_without_numba']:.1f}×", ""],
    ]
    for each in found["solver"]:
        weights = each["settings"].get("normalise", "none")
        about = (
            f"interior-point beside libsvm, {each['clips']:,} clips, {each['labelsets']} labelsets, normalise={weights}"
        )
        above, other = each["objective_ratio"] - 1, each["decided_otherwise"]
        took = each["seconds"]
        seconds = f"{took['interior-point']:.1f} s; libsvm {took['libsvm']:.1f} s"
        lines.append([about, f"objective {above:+.4%}, {other:.2%} of clips decided otherwise", seconds])
    total = size.get("seconds_estimated", size["seconds"])
    how = "" if size["all_pairs"] else f", estimated from {size['pairs']} pairs"
    about = f"interior-point, {size['clips']:,} clips, {size['labelsets']} labelsets, 384 features"
    lines.append([about, f"{size['peak_gib']:.1f} GiB", f"{total / 60:.0f} min{how}"])
    about = f"decisions of {decisions['labelsets']} labelsets, {decisions['clips']:,} clips"
    return [*lines, [about, f"{decisions['peak_mib']:.0f} MiB beside the machine", ""]]


def lines_of_commands(found: dict) -> list[list[str]]:
    """Commands, on the wall and in processor time."""
    return [[name, f"{took['wall']:.2f} s", f"{took['processor']:.2f} s"] for name, took in found.items()]


def lines_of_networks(found: dict) -> list[list[str]]:
    """Epochs, and how near they are to a plain matrix product."""
    fastest, lines = found["matrix product"], []
    for name, took in found.items():
        if name != "matrix product":
            speed = took.get("per_second")
            share = f"{speed / 1e9:.0f} ({speed / fastest:.0%})" if speed else ""
            lines.append([name, f"{took['seconds']:.2f}", f"{took['steps']:,}" if "steps" in took else "", share])
    return [*lines, ["a plain matrix product, 1,024²", "", "", f"{fastest / 1e9:.0f}"]]


def lines_of_memory(found: dict) -> list[list[str]]:
    """Peak memory of each step, by clips."""
    sizes = sorted(found["clips"], key=int)
    steps = [*found["clips"][sizes[-1]]]
    return [[step, *(f"{found['clips'][size][step]['peak_rss'] / MIB:,.0f}" for size in sizes)] for step in steps]


def lines_of_card(found: dict) -> list[list[str]]:
    """From the first clip to Table II, extraction beside its limits, networks, agreement with the CPU."""
    took, frames, product = found["seconds"], found["frames"], found["product"]
    lines = [[f"the whole: {', '.join(took)}", f"{sum(took.values()) / 60:.1f} min", ""]]
    lines += [[name, f"{seconds:.0f} s", ""] for name, seconds in took.items()]
    for precision in (name for name in frames if name != "cpu"):
        about = frames[precision]
        passes = max(each["there"] for each in about["forward"])
        share = about["frames_per_second"] / passes
        words = f"{about['frames']:,} frames extracted in {precision}, {about['readers']} threads decode"
        lines.append([words, f"{about['frames_per_second']:,.0f} a second", f"{share:.2f} of the passes alone"])
        for each in about["forward"]:
            speed = each["there"] * OPERATIONS / product[precision]
            words = f"Inception-V3's passes in {precision}, {each['together']} frames together"
            limit = f"{speed:.0%} of a plain matrix product; {each['sent']:,.0f} with their way to the card"
            lines.append([words, f"{each['there']:,.0f} a second", limit])
        lines.append([f"features in {precision} beside the CPU's", f"{about['moved']:.4f} standard deviations", ""])
    for name, each in found["networks"].items():
        others = f"step by step {each['step by step']:.2f} s, one core of the CPU {each['cpu']:.2f} s"
        lines.append([f"epoch of the {name} network, all steps at once", f"{each['at once']:.2f} s", others])
    differ = max(each["probabilities_differ"] for each in found["networks"].values())
    lines.append(["probabilities of the card's networks, run on the CPU", f"differ by {differ:.0e} at most", ""])
    rows = ", ".join(f"{name} {found['rows'][name]:.3f}" for name in ("late", "proposed"))
    lines.append([f"micro F1 of test clips: {rows}", "simulated clips, random weights, one split", ""])
    return [*lines, ["most memory of the card", f"{found['peak_gib']:.1f} GiB", ""]]


TABLES: dict[str, tuple[str, Callable[[dict], list[list[str]]], list[str]]] = {  # part → heading, lines, columns
    "extraction": ("Extraction", lines_of_extraction, ["What", "Ratio", "Seconds"]),
    "networks": (
        "An epoch of each network, one core",
        lines_of_networks,
        ["Network", "Seconds", "Steps of the corpus", "GFLOP/s, about"],
    ),
    "machine": ("Algorithm 1, one core", lines_of_machine, ["What", "Found", "Processor time"]),
    "predict": ("Prediction, the whole command", lines_of_commands, ["Command", "On the wall", "Processor"]),
    "nothing": ("The pipeline where nothing changed", lines_of_commands, ["Command", "On the wall", "Processor"]),
    "memory": ("Peak memory, MiB", lines_of_memory, []),
    "card": ("The paper's scale on a graphics card", lines_of_card, ["What", "Found", "Beside it"]),
}


def page(record: dict[str, Any]) -> str:
    """The page, of the parts that were measured."""
    parts = [
        "# What size and speed cost",
        "Measured by `make bench`; seconds differ from machine to machine and from run to run, so no stage makes them. "
        "Ratios come from one run each. What each row of Table II took is on [another page](costs.md).",
    ]
    for name, (heading, lines, columns) in TABLES.items():
        if name not in record:
            continue
        found = record[name]["found"]
        if name == "memory":
            columns = ["Step", *(f"{int(size):,} clips" for size in sorted(found["clips"], key=int))]
        about = f"`python tools/bench.py {name}`, on: {record[name]['machine']}."
        if name == "memory":
            about += (
                f" Clips of {found['steps']} × {found['dim']:,} values on disk, {found['distinct']:,} of them "
                f"distinct; a {found['network']} network; an epoch ends after {found['batches']} batches, features and "
                "scores are of all clips."
            )
        parts += [f"## {heading}", about, markdown_table(pd.DataFrame(lines(found), columns=columns)).rstrip()]
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    if unknown := [name for name in arguments if name not in PARTS]:
        print(f"parts are {', '.join(PARTS)}; {unknown[0]!r} is none", file=sys.stderr)
        return 2
    record = load_json(OUT) if OUT.is_file() else {}
    card = torch.cuda.is_available()
    if "card" in arguments and not card:
        print("card needs an NVIDIA card, which torch doesn't find here", file=sys.stderr)
        return 2
    for name in arguments or [name for name in PARTS if name != "card" or card]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = PARTS[name]()
        machine = f"{found['card']}; {machine_words()}" if name == "card" else machine_words()
        record[name] = {"machine": machine, "found": found}
        print(json.dumps(record[name]["found"], indent=1), file=sys.stderr)
        save_json(OUT, record)
        with atomic_path(OUT.with_suffix(".md")) as temporary:
            temporary.write_text(page(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
