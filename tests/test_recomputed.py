"""Committed numbers, computed again by other code: plain NumPy, from what is committed beside them."""

import csv
import json
from functools import cache

import numpy as np
import pytest
from conftest import ROOT

RESULTS = ROOT / "results"
CELLS = 7  # concepts of each clip


def read(name):
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} hasn't been computed")
    return json.loads(path.read_text(encoding="utf-8"))


def t_tail(t, df):
    """Upper tail of Student's t by Simpson's rule, over x = tan(u)."""
    u = np.linspace(np.arctan(t), np.pi / 2, 20_001)
    x = np.tan(u[:-1])
    density = np.append((1 + x**2 / df) ** (-(df + 1) / 2) * (1 + x**2), 0.0 if df > 1 else 1.0)

    def area(values, width):
        return width / 3 * (values[0] + 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum() + values[-1])

    whole = np.linspace(0, np.pi / 2, 20_001)
    y = np.tan(whole[:-1])
    everything = np.append((1 + y**2 / df) ** (-(df + 1) / 2) * (1 + y**2), 0.0 if df > 1 else 1.0)
    return 0.5 * area(density, u[1] - u[0]) / area(everything, whole[1])


@cache
def t_quantile(level, df):
    """The t whose two-sided interval has this level, by bisection."""
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * t_tail(middle, df) > 1 - level else (low, middle)
    return middle


def corrected(d, sizes, level):
    """Mean, ends and p of the corrected resampled t-test."""
    d, (n_train, n_test) = np.array(d), sizes
    error = np.sqrt(((d - d.mean()) ** 2).sum() / (len(d) - 1) * (1 / len(d) + n_test / n_train))
    half = t_quantile(level, len(d) - 1) * error
    return d.mean(), d.mean() - half, d.mean() + half, 2 * t_tail(abs(d.mean()) / error, len(d) - 1)


def stepped_down(p):
    """Holm: each p times the number of those that are at least as large, never below an earlier one."""
    found, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, p[i] * (len(p) - rank)))
        found[i] = highest
    return found


@pytest.fixture(scope="module")
def comparison():
    return read("comparison")


@pytest.fixture(scope="module")
def seeds(comparison):
    """(row, metric) → value of each seed."""
    return {(line["row"], line["metric"]): np.array(line["seeds"]) for line in comparison["rows"]}


@pytest.fixture(scope="module")
def sizes():
    """Clips that train and test, mean over the seeds that are compared."""
    facts = read("leakage")["splits"]["clip"]
    return tuple(round(np.mean([line[part] for line in facts])) for part in ("train", "test"))


def gain(seeds, line):
    sign = -1 if line["metric"] == "hamming_loss" else 1
    return sign * (seeds["proposed", line["metric"]] - seeds[line["row"], line["metric"]])


def test_1_means_and_deviations_of_table_two(seeds):
    for line in csv.DictReader((RESULTS / "table2_seeds.csv").open(encoding="utf-8")):
        values = seeds[line["row"], line["metric"]]
        mean = sum(values) / len(values)
        assert float(line["mean"]) == pytest.approx(mean)
        assert float(line["sd"]) == pytest.approx((sum((values - mean) ** 2) / (len(values) - 1)) ** 0.5)


def test_2_simultaneous_intervals_of_gains(comparison, seeds, sizes):
    rows = {line["row"] for line in comparison["gains"]}
    level = 1 - (1 - comparison["level"]) / len(rows)
    for line in comparison["gains"]:
        found = corrected(gain(seeds, line), sizes, level)
        assert [line[name] for name in ("mean", "low", "high")] == pytest.approx(found[:3], abs=1e-6)


def test_3_p_of_gains(comparison, seeds, sizes):
    for line in comparison["gains"]:
        assert line["p"] == pytest.approx(corrected(gain(seeds, line), sizes, 0.95)[3], rel=1e-3, abs=1e-9)


def test_4_holms_adjustment_over_rows_and_concepts(comparison):
    tables = [
        [g for g in comparison["gains"] if g["metric"] == metric] for metric in ("micro_f1", "hamming_loss", "map")
    ]
    for table in [*tables, *comparison["concepts"].values()]:
        assert [line["holm"] for line in table] == pytest.approx(stepped_down([line["p"] for line in table]))


def test_5_printed_margins_and_the_gain_in_map(comparison, seeds):
    """Margins by the paper's own digits; the difference of MAP between like quantities, seed by seed."""
    printed = {"micro_f1": 0.9414 - 0.9022, "hamming_loss": 0.0575 - 0.0348, "map_decisions": 0.8993 - 0.8409}
    late = {line["metric"]: line for line in comparison["gains"] if line["row"] == "late"}
    for metric, margin in printed.items():
        assert late[metric]["printed"] == pytest.approx(margin)
    mine, theirs = seeds["proposed", "map_decisions"], seeds["late", "map_decisions"]
    assert late["map_decisions"]["mean"] == pytest.approx(np.mean([a - b for a, b in zip(mine, theirs, strict=True)]))


def test_6_one_split_alone(comparison, seeds):
    for i, seed in enumerate(comparison["seeds"]):
        difference = comparison["one_split"][str(seed)]["difference"]
        assert difference == pytest.approx(seeds["proposed", "micro_f1"][i] - seeds["late", "micro_f1"][i])


def test_7_printed_digits_from_counts():
    """Micro F1, Hamming loss and MAP of decisions of the six rows that come from one test set."""
    audit, table = read("audit"), csv.DictReader((RESULTS / "table2.csv").open(encoding="utf-8"))
    printed = {(line["Approach"], line["Features"]): line for line in table}
    named = {"late": ("Three modalities (late fusion)", "visual+audio+text")}
    named["proposed"] = ("Proposed framework", "visual+audio+text")
    cells = audit["test_set"]["clips"] * CELLS
    for counts in audit["counts"]:
        tp, wrong = counts["TP"], counts["FP"] + counts["FN"]
        precision, recall = tp / (tp + counts["FP"]), tp / (tp + counts["FN"])
        share = (tp + counts["FN"]) / cells
        assert round(precision * recall + (1 - recall) * share, 4) == pytest.approx(counts["map"], abs=1.01e-4)
        if counts["row"] in named:
            line = printed[named[counts["row"]]]
            assert float(line["Micro F1 paper"]) == pytest.approx(2 * tp / (2 * tp + wrong), abs=5.1e-5)
            assert float(line["HL paper"]) == pytest.approx(wrong / cells, abs=5.1e-5)


def test_8_what_a_split_by_clip_adds():
    rows = read("leakage")["rows"]
    for metric in {line["metric"] for line in rows}:
        table = [line for line in rows if line["metric"] == metric]
        assert [line["mean"] for line in table] == pytest.approx([a["by_clip"] - a["by_video"] for a in table])
        assert [line["holm"] for line in table] == pytest.approx(stepped_down([line["p"] for line in table]))


def test_9_detectable_margins_by_simulation(comparison):
    """Draws of a noncentral t: a normal over the root of a mean of squares. Four in five lie above the quantile."""
    line = next(g for g in comparison["gains"] if g["row"] == "late" and g["metric"] == "micro_f1")
    if "detectable_80" not in line:
        pytest.skip("comparison.json was computed before it had detectable margins")
    rng, df = np.random.default_rng(0), len(comparison["seeds"]) - 1
    noise, spread = rng.normal(size=200_000), np.sqrt((rng.normal(size=(200_000, df)) ** 2).mean(axis=1))
    for name, power in [("detectable_80", 0.8), ("detectable_50", 0.5)]:
        t = (noise + line[name] / line["error"]) / spread
        assert (t > t_quantile(line["level"], df)).mean() == pytest.approx(power, abs=0.005)


def test_10_words_say_what_intervals_say(comparison):
    lines = [*comparison["gains"], *(line for table in comparison["concepts"].values() for line in table)]
    if "superiority" not in lines[0]:
        pytest.skip("comparison.json was computed before superiority had a word of its own")
    for line in lines:
        word = line["superiority"].split(" (")[0]
        assert (word == "supported") == (line["low"] > 0) and (word == "not supported") == (line["high"] < 0)
        margin = line["margin"].split(" (")[0]
        if line.get("against", "none") == "none":
            assert margin == "no figure printed"
        elif margin in ("excluded", "exceeded", "consistent"):
            inside = line["low"] <= line["printed"] <= line["high"]
            assert inside == (margin == "consistent") and (margin == "excluded") == (line["high"] < line["printed"])
            assert line["room"] is None or line["room"] >= line["printed"]


def test_11_planted_effects():
    found = read("control")
    scores = {(line["problem"], line["planted"], line["method"]): line["seeds"] for line in found["scores"]}
    pairs = {
        "weights to the letter": ("weights to the letter", "no weights, cost to the letter"),
        "weights per labelset": ("weights per labelset", "no weights"),
        "elimination": ("whole path", "all features"),
        "Gini ranking": ("whole path", "whole path, random order"),
    }
    for line in (line for line in found["checks"] if line["part"] in pairs):
        mine, other = (scores[line["problem"], line["planted"], method] for method in pairs[line["part"]])
        d = [a[line["metric"]] - b[line["metric"]] for a, b in zip(mine, other, strict=True)]
        test = corrected(d, (924, 308), 0.95) if np.ptp(d) else (d[0], d[0], d[0], 0)
        assert [line["mean"], line["low"], line["high"]] == pytest.approx(test[:3], abs=1e-6)
        assert line["found"] == (test[1] > 0 and sum(value > 0 for value in d) >= len(d) - 1)
