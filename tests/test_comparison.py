"""Statistics of the audit, against independent computations and planted effects."""

import itertools

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from mmdisaster.core import load_json
from mmdisaster.data.split import Split, split_clips
from mmdisaster.study.comparison import (
    compare_rows,
    corrected_t_test,
    held_out,
    holm,
    leakage_table,
    permutation_test,
)
from mmdisaster.study.power import detectable, standard_error
from mmdisaster.study.verdicts import UNTESTED, over_all, plain_word, printed_margin, superiority

PRINTED = {
    name: {"micro_f1": f1, "hamming_loss": hl, "map": f1}
    for name, f1, hl in [("proposed", 0.9, 0.05), ("late", 0.8, 0.1)]
}


def parts_of(seed, errors, n=240, by="clip"):
    """Six trials on one made-up corpus; `errors`: row → share of wrong labels."""
    rng = np.random.default_rng(seed)
    Y, videos = (rng.random((n, 4)) < 0.4).astype(np.uint8), np.repeat(np.arange(n // 3), 3).astype(str)
    decided = {row: np.abs(Y - (rng.random(Y.shape) < share)).astype(np.uint8) for row, share in errors.items()}
    scored = {row: {"decisions": d, "scores": d + rng.random(d.shape) / 2} for row, d in decided.items()}
    splits = [split_clips(Y, videos, by=by, seed=s) for s in range(6)]
    return [held_out(Split([f"c{i}" for i in range(n)], videos.tolist(), p, list("abcd"), Y), scored) for p in splits]


def test_the_corrected_interval_is_wider_by_the_known_factor():
    d, level = np.array([0.01, 0.03, 0.02, 0.04, 0.0, 0.02]), 0.95
    plain = stats.t.interval(level, 5, d.mean(), stats.sem(d))
    found = corrected_t_test(d, 924, 308, level)
    assert (found.high - found.low) / (plain[1] - plain[0]) == pytest.approx(np.sqrt(1 + 6 * 308 / 924))


def test_holm_by_brute_force():
    """Closed testing: reject a hypothesis when each set that contains it has some p below alpha / its size."""
    p = np.array([0.004, 0.03, 0.011, 0.2])
    for alpha in [0.01, 0.02, 0.05, 0.1]:
        for one in range(4):
            sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size) if one in s]
            assert (holm(p)[one] <= alpha) == all(min(p[list(s)]) <= alpha / len(s) for s in sets)


@pytest.mark.parametrize(
    "low, high, room, detectable, better, margin",
    [
        (0.01, 0.05, 0.08, 0.02, "supported", "consistent"),
        (0.01, 0.03, 0.08, 0.02, "supported", "excluded"),
        (0.05, 0.09, 0.08, 0.02, "supported", "exceeded"),
        (-0.02, 0.02, 0.08, 0.03, "undecided", "excluded"),
        (-0.02, 0.06, 0.08, 0.03, "undecided", "consistent"),
        (-0.02, 0.06, 0.08, 0.05, "undecided", UNTESTED),  # five splits wouldn't see the printed margin
        (-0.02, 0.06, np.nan, 0.03, "undecided", "consistent"),  # room not known
        (-0.02, 0.02, 0.01, 0.03, UNTESTED, UNTESTED),  # no room
        (-0.05, -0.01, 0.08, 0.02, "not supported", "excluded"),
        (-0.05, -0.01, 0.01, 0.02, "not supported", UNTESTED),  # worse, and nothing could have been better
    ],
)
def test_superiority_and_the_printed_margin_are_judged_apart(low, high, room, detectable, better, margin):
    assert plain_word(superiority(low, high, room, detectable)) == better
    assert plain_word(printed_margin(low, high, 0.04, room, detectable)) == margin


def test_a_claim_about_all_is_as_strong_as_its_weakest_part():
    assert over_all(["supported (interval above 0)"] * 3) == "supported"
    assert over_all(["supported (interval above 0)", "undecided (interval holds 0)"]) == "undecided"
    assert over_all(["supported", "not supported", "undecided", UNTESTED]) == "not supported"


def test_power_by_simulation():
    """Differences of splits that share clips; how often the simultaneous interval lies above zero."""
    rng, rho, level = np.random.default_rng(5), 308 / 1232, 1 - 0.05 / 8
    noise = rng.normal(size=(6000, 1)) * np.sqrt(rho) + rng.normal(size=(6000, 5)) * np.sqrt(1 - rho)
    error = standard_error(np.sqrt(1 - rho), 5, 924, 308)
    for power in (0.5, 0.8):
        d = detectable(error, 5, power, level) + noise
        half = stats.t.ppf((1 + level) / 2, 4) * np.sqrt(1 / 5 + 308 / 924) * d.std(axis=1, ddof=1)
        assert (d.mean(axis=1) > half).mean() == pytest.approx(power, abs=0.02)


def test_a_planted_gain_is_supported_and_none_is_not():
    better = compare_rows(parts_of(0, {"proposed": 0.05, "late": 0.2}), PRINTED)
    assert (better["low"] > 0).all()
    same = compare_rows(parts_of(1, {"proposed": 0.2, "late": 0.2}), PRINTED)
    assert not (same["low"] > 0).any()


def test_swapping_whole_videos_finds_less_than_swapping_clips():
    """Where clips of a video are right or wrong together, clip by clip believes in three times the evidence."""
    part = parts_of(3, {"a": 0.1, "b": 0.1})[0]
    first = {v: i for i, v in reversed(list(enumerate(part.videos[part.clips])))}
    same = np.array([first[v] for v in part.videos[part.clips]])
    part = part._replace(Y=part.Y[same], scored={r: {k: a[same] for k, a in f.items()} for r, f in part.scored.items()})
    by_clip, by_video = (permutation_test(part, "a", "b", unit=unit, seed=0)[1] for unit in ["clip", "video"])
    assert by_clip <= by_video


def test_planted_leakage_is_found():
    clip = parts_of(4, {"text": 0.05, "visual": 0.2})
    video = parts_of(4, {"text": 0.3, "visual": 0.2}, by="video")
    table = leakage_table(clip, video, ["text", "visual"]).set_index(["row", "metric"])
    assert table.loc[("text", "micro_f1"), "mean"] > 0.1 and table.loc[("text", "micro_f1"), "holm"] < 0.05
    assert table.loc[("visual", "micro_f1"), "holm"] > 0.05


def test_the_measured_splits_by_video_share_none_and_keep_proportions():
    """What results/leakage.json says of the splits that its numbers rest on."""
    for facts in load_json(ROOT / "results" / "leakage.json")["splits"]["video"]:
        assert facts["videos_shared"] == 0 and facts["worst_proportion"] <= 2
