"""The audit finds what is there, and doesn't find what isn't."""

import numpy as np
import pytest

from mmdisaster.audit import MAP_CONVENTIONS, RULES, chance_fits, common_sets, convention_table, solve_row

MICRO = next(iter(MAP_CONVENTIONS))
AROUND = range(290, 330)


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


@pytest.mark.parametrize("seed", range(5))
def test_a_planted_test_set_is_found_with_its_counts(seed):
    clips, positives = 300 + seed, 620 + 5 * seed
    printed, counts = table(seed, clips, positives, MICRO)
    first = common_sets(printed, clips=AROUND).iloc[0]
    assert (first["clips"], first["positives"], first["count"]) == (clips, positives, 9)
    for name, row in printed.items():
        assert counts[name] in solve_row(row, clips)


@pytest.mark.parametrize("convention", MAP_CONVENTIONS)
def test_the_meaning_of_map_is_recognised_and_others_are_rejected(convention):
    printed, _ = table(7, 308, 630, convention)
    found = convention_table(printed, AROUND, ["rounded"]).set_index("convention")["best"]
    assert found[convention] == 9
    assert found.drop(convention).max() <= 3


def test_numbers_that_are_cut_off_are_told_from_rounded_ones():
    printed, _ = table(3, 308, 630, MICRO, cut=True)
    cut_off, rounded = (common_sets(printed, clips=AROUND, rule=RULES[name]) for name in ["cut off", "rounded"])
    assert cut_off["count"].max() == 9 and rounded["count"].max() <= 3


@pytest.mark.parametrize("printed", [0.0010, 0.0011])
def test_a_half_may_be_rounded_either_way(printed):
    """147 errors in 7 · 20,000 cells are 0.00105: both neighbours may stand for it."""
    assert (147, 147) in solve_row({"micro_f1": 0.6667, "hamming_loss": printed}, 20000)


def test_one_row_of_another_test_set_is_left_out():
    printed, _ = table(1, 308, 630, MICRO)
    stranger, _ = table(2, 251, 500, MICRO, rows=1)
    first = common_sets({**printed, "stranger": stranger["row 0"]}, clips=AROUND).iloc[0]
    assert first["count"] == 9 and "stranger" not in first["rows"]


def test_random_tables_fit_no_common_test_set():
    """The rate of chance that the report prints is a rate of something rare."""
    printed, _ = table(0, 308, 630, MICRO)
    assert chance_fits(printed, tables=30, seed=1, clips=AROUND).max() <= 3
