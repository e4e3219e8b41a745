"""The audit finds what is there, and doesn't find what isn't."""

import re

import numpy as np
import pytest
from conftest import ROOT
from sklearn.metrics import average_precision_score, f1_score, hamming_loss

from mmdisaster.audit.bounds import design_effects, map_bounds, paired_evidence, row_counts
from mmdisaster.audit.checks import check_constant, check_table_one, check_text
from mmdisaster.audit.counts import (
    MAP_CONVENTIONS,
    RULES,
    best_convention,
    chance_fits,
    common_sets,
    convention_table,
    solve_row,
)
from mmdisaster.audit.misfits import explain_misfit, free_column
from mmdisaster.paper.tables import APPROACHES, METRICS

MICRO = "AP of 0/1 decisions, all cells at once"
AROUND = range(290, 330)
PAPER = ROOT.parent / "shared" / "paper" / "pouyanfar2019.md"


def table(seed, clips, positives, convention, cut=False, rows=9):
    """A printed table whose counts are known."""
    rng, printed, counts = np.random.default_rng(seed), {}, {}
    for number in range(rows):
        missed, extra = int(rng.integers(20, 250)), int(rng.integers(20, 250))
        hits = positives - missed
        values = {
            "micro_f1": 2 * hits / (2 * hits + missed + extra),
            "hamming_loss": (missed + extra) / (7 * clips),
            "map": MAP_CONVENTIONS[convention](hits, extra, missed, 7 * clips),
        }
        printed[f"row {number}"] = {
            name: float(np.floor(value * 1e4) / 1e4 if cut else round(value, 4)) for name, value in values.items()
        }
        counts[f"row {number}"] = (hits, missed + extra)
    return printed, counts


def classified(seed, average, decide, clips=308, rows=9):
    """A printed table of made-up classifiers on one set of clips, measured by scikit-learn."""
    rng, printed = np.random.default_rng(seed), {}
    truth = (rng.random((clips, 7)) < [0.1, 0.22, 0.63, 0.18, 0.24, 0.2, 0.53]).astype(int)
    truth[truth.sum(axis=1) == 0, 2] = 1
    for number in range(rows):
        scores = truth + rng.normal(0, rng.uniform(0.25, 0.6), truth.shape)
        decided = (scores > 0.5).astype(int)
        value = average_precision_score(truth, decided if decide else scores, average=average)
        exact = f1_score(truth, decided, average="micro"), hamming_loss(truth, decided), value
        printed[f"row {number}"] = dict(zip(METRICS, (round(float(number), 4) for number in exact), strict=True))
    return printed, int(truth.sum())


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_test_set_is_found_with_its_counts(seed):
    clips, positives = 300 + seed, 620 + 5 * seed
    printed, counts = table(seed, clips, positives, MICRO)
    first = common_sets(printed, MICRO, clips=AROUND).iloc[0]
    assert (first["clips"], first["positives"], first["count"]) == (clips, positives, 9)
    for name, row in printed.items():
        assert counts[name] in solve_row(row, clips)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("convention", MAP_CONVENTIONS)
def test_the_meaning_of_map_is_recognised_and_others_are_rejected(convention, seed):
    printed, _ = table(seed, 308, 630, convention)
    found = convention_table(printed, AROUND, ["rounded"])
    assert best_convention(found) == convention
    best = found.set_index("convention")["best"]
    assert best[convention] == 9 and best.drop(convention).max() <= 3


@pytest.mark.parametrize("decide", [False, True])
@pytest.mark.parametrize("average", ["samples", "macro", "weighted"])
def test_tables_of_a_meaning_that_counts_do_not_decide_fit_none(average, decide):
    """The text's own, over instances from scores, among them: had it been used, six rows would not fit by luck."""
    printed, _ = classified(3, average, decide)
    assert convention_table(printed, range(100, 514), ["rounded"])["best"].max() <= 2


def test_classifiers_measured_as_the_digits_say_are_recognised():
    """Not counts put into formulas, but decisions on clips."""
    printed, positives = classified(4, "micro", decide=True)
    first = common_sets(printed, MICRO).iloc[0]
    assert (first["clips"], first["positives"], first["count"]) == (308, positives, 9)


def test_numbers_that_are_cut_off_are_told_from_rounded_ones():
    printed, _ = table(3, 308, 630, MICRO, cut=True)
    cut_off, rounded = (common_sets(printed, MICRO, AROUND, rule=RULES[name]) for name in ["cut off", "rounded"])
    assert cut_off["count"].max() == 9 and rounded["count"].max() <= 3


@pytest.mark.parametrize("printed", [0.0010, 0.0011])
def test_a_half_may_be_rounded_either_way(printed):
    """147 errors in 7 · 20,000 cells are 0.00105: both neighbours may stand for it."""
    assert (147, 147) in solve_row({"micro_f1": 0.6667, "hamming_loss": printed}, 20000)


def test_one_row_of_another_test_set_is_left_out():
    printed, _ = table(1, 308, 630, MICRO)
    stranger, _ = table(2, 251, 500, MICRO, rows=1)
    first = common_sets({**printed, "stranger": stranger["row 0"]}, MICRO, AROUND).iloc[0]
    assert first["count"] == 9 and "stranger" not in first["rows"]


@pytest.mark.parametrize("moved", [METRICS, ["map"]])
def test_random_tables_fit_no_common_test_set(moved):
    """The rate of chance that the report prints is a rate of something rare."""
    printed, _ = table(0, 308, 630, MICRO)
    assert chance_fits(printed, tables=30, seed=1, clips=AROUND, moved=moved).max() <= 4


def test_a_table_that_is_not_moved_is_found_by_the_search_for_chance():
    """So it searches as the audit does, whatever the convention."""
    for convention in MAP_CONVENTIONS:
        printed, _ = table(0, 308, 630, convention)
        assert chance_fits(printed, tables=1, move=0.0, clips=AROUND)[0] == 9


def test_every_solution_of_a_row_is_kept():
    """On a large test set the same digits have several counts."""
    printed, counts = table(5, 12000, 25000, MICRO, rows=2)
    found = row_counts(printed, 12000, 25000, MICRO)
    assert found["row"].value_counts().min() > 1
    for name, (hits, errors) in counts.items():
        mine = found[found["row"] == name]
        assert (hits, errors) in set(zip(mine["TP"], mine["FP"] + mine["FN"], strict=True))
        assert len(mine) == len(mine.drop_duplicates())


@pytest.mark.parametrize("metric", METRICS)
def test_a_wrong_number_in_any_column_is_found_with_what_it_should_be(metric):
    printed, counts = table(6, 308, 630, MICRO, rows=3)
    for name, row in printed.items():
        wrong = row | {metric: round(row[metric] + 0.0137, 4)}
        found = [free for free in free_column(wrong, 308, 630, MICRO)[0] if free.metric == metric]
        assert (counts[name], f"{row[metric]:.4f}") in [((free.TP, free.FP + free.FN), free.instead) for free in found]


def test_a_hamming_loss_is_possible_where_some_count_prints_as_it():
    row, possible = APPROACHES["late"].printed, {round(errors / 2156, 4) for errors in range(2157)}
    for loss in [0.0575, 0.0576, 0.078, 0.0779, 0.1652, 0.1623]:
        found = explain_misfit(row | {"hamming_loss": loss}, 308, 630, MICRO, range(300, 310))
        assert found["possible_loss"] == (loss in possible)


def test_the_rows_that_do_not_fit_do_with_one_column_left_free():
    """Checked without the module: each set of counts gives two columns to the last digit, and not the third."""
    for name in ["audio", "visual-audio", "text-audio"]:
        printed = APPROACHES[name].printed
        found, _ = free_column(printed, 308, 630, MICRO)
        assert len(found) == 1
        _, hits, extra, missed, *_ = found[0]
        assert hits + missed == 630
        truth, decided = (
            np.repeat([1, 0, 1, 0], [hits, extra, missed, 2156 - hits - extra - missed]),
            np.zeros(2156, int),
        )
        decided[: hits + extra] = 1
        ap = average_precision_score(truth, decided)
        values = f1_score(truth, decided), hamming_loss(truth, decided), ap
        fits = [round(float(value), 4) == printed[metric] for value, metric in zip(values, METRICS, strict=True)]
        assert sum(fits) == 2 and not fits[METRICS.index(found[0].metric)]


@pytest.mark.parametrize("concept", range(7))
def test_bounds_hold_where_all_errors_gather_in_one_concept_and_are_ranked_worst(concept):
    rng = np.random.default_rng(concept)
    truth = (rng.random((308, 7)) < [0.1, 0.22, 0.63, 0.18, 0.24, 0.2, 0.53]).astype(int)
    truth[truth.sum(axis=1) == 0, 2] = 1
    decided = truth.copy()
    decided[rng.random(308) < 0.4, concept] ^= 1
    counts = [int(((truth == a) & (decided == b)).sum()) for a, b in [(1, 1), (0, 1), (1, 0)]]
    bounds = map_bounds(*counts, 308, truth.sum(axis=0))
    for name, average in [
        ("over instances", "samples"),
        ("over concepts", "macro"),
        ("over concepts by frequency", "weighted"),
    ]:
        for kind, scores in [("scores", decided + 0.5 * (1 - truth)), ("decisions", decided)]:
            low, high = bounds[f"AP of {kind}, {name}"]
            assert low - 1e-12 <= average_precision_score(truth, scores, average=average) <= high + 1e-12


def test_a_test_part_by_clip_shares_fewer_videos_than_one_by_video():
    effects = design_effects(308)
    assert 1 == effects["cells"] < effects["clips"] < effects["videos"] < effects["whole videos"]
    evidence = paired_evidence(124, 75, 308).set_index("unit")
    assert evidence["p_best"].is_monotonic_increasing and (evidence["p_best"] < evidence["p_worst"]).all()


def test_statements_are_the_papers_own_words():
    if not PAPER.is_file():
        pytest.skip(f"no paper at {PAPER}")
    text = re.sub(r"\s+", " ", PAPER.read_text())
    statements = [
        check for check in [*check_table_one(), *check_constant(), *check_text()] if check.kind == "statement"
    ]
    assert statements
    for check in statements:
        assert check.says in text, check.says


def test_questions_are_told_from_statements():
    for check in [*check_table_one(), *check_constant(), *check_text()]:
        assert (check.kind == "question") == check.says.endswith("?"), check
