"""Clips that lose a modality: what is lost looks as it does everywhere, and test clips tune nothing."""

import numpy as np
import pandas as pd
import pytest

from mmdisaster.data.sequences import Sequences
from mmdisaster.data.split import Split
from mmdisaster.pages.tables import format_table_two, table_two
from mmdisaster.paper.tables import APPROACHES, METRICS
from mmdisaster.settings.audits import Missing
from mmdisaster.settings.reading import SettingsError, read_settings
from mmdisaster.steps.static import features_in_memory
from mmdisaster.steps.words import fit_weights
from mmdisaster.study.comparison import Difference
from mmdisaster.study.distillation import in_words
from mmdisaster.study.missing import kept_after, lose_static, score_patterns
from mmdisaster.study.trials import Trial, fit_row

SETTINGS = read_settings(
    {
        "modalities": {name: {"features": f"{name}/{{clip_id}}.npy"} for name in ["depth", "faces"]},
        "baseline": {"max_epochs": 5},
        "fusion": {"n_trees": 10},
    }
)


@pytest.fixture(scope="module")
def trial():
    """Sixty clips with features from nowhere; temporal features are drawn, for the rows that join them."""
    random = np.random.default_rng(0)
    Y = (random.random((60, 2)) < 0.5).astype(np.uint8)
    parts = np.repeat(["train", "validation", "test"], 20)
    split = Split([f"c{i}" for i in range(60)], ["v"] * 60, parts, ["Flood", "Speech"], Y)
    temporal = {name: random.normal(size=(60, 4)) + 2 * Y[:, [i]] for i, name in enumerate(SETTINGS.present)}
    nothing = {name: np.full(4, 9.0) for name in temporal}
    static = {name: Sequences(values, np.arange(61)) for name, values in temporal.items()}
    scored = {name: fit_row(name, static, temporal, split, SETTINGS)[0] for name in ["depth", "late", "proposed"]}
    return Trial(SETTINGS, split, {}, temporal, scored, nothing, {}), static


def test_a_lost_description_looks_like_an_empty_one(tmp_path):
    source = read_settings({"modalities": {"text": {"extractor": "glove", "weights": {"dim": 4, "epochs": 2}}}})
    source, said = source.modalities["text"], ["water rising", "the mayor speaks"] * 4
    path = tmp_path / "weights.safetensors"
    fit_weights("text", source, said, path, tmp_path)
    whole, empty = (
        features_in_memory("text", pd.DataFrame({"text": texts}), tmp_path, path, source) for texts in (said, [""] * 8)
    )
    lost = lose_static(whole, np.ones(8, bool))
    assert lost.lengths.tolist() == empty.lengths.tolist() == [1] * 8
    assert (lost.values == empty.values).all() and not empty.values.any()


def test_a_fitted_row_does_not_depend_on_what_test_clips_lose(trial):
    trial, static = trial
    test = trial.split.rows("test")
    whole, without = np.array([[True, True]]), np.array([[True, True], [False, True], [True, False], [False, False]])
    for name, found in trial.scored.items():
        few, many = (score_patterns(name, trial, static, patterns) for patterns in (whole, without))
        assert (few[0] == many[0]).all() and (few[0] == found["decisions"][test]).all()
        assert (many[3] == many[3][0]).all()  # with nothing left all clips look alike


def test_who_has_lost_a_modality_does_not_get_it_back_and_keeps_one(trial):
    u = np.random.default_rng(0).random((50, 3))
    for lost in (0, None):
        kept = [kept_after(u, share, lost) for share in Missing().shares]
        assert all((after <= before).all() for before, after in zip(kept[:-1], kept[1:], strict=True))
    assert (kept[-1].sum(axis=1) == 1).all()
    with pytest.raises(SettingsError, match="shares must ascend from 0"):
        read_settings({"missing": {"shares": [0.5, 0.25]}})


def test_a_difference_stands_between_like_quantities_only():
    one = {"value": 0.8, "interval": (0.7, 0.9)}
    rows = {name: dict.fromkeys([*METRICS, "map_decisions"], one) for name in APPROACHES}
    columns = format_table_two(table_two(rows)).columns
    compared = [name.removesuffix(": difference") for name in columns if name.endswith(": difference")]
    assert compared == ["Micro F1", "HL", "MAP of decisions"] and "MAP [95 %]" in columns


def test_two_splits_tell_nothing_of_weights():
    clear = Difference(0.1, 0.01, 0.05, 0.15, 0.001)
    assert "is higher" in in_words("accuracy", clear, splits=5)
    assert "so few can't tell" in in_words("accuracy", clear, splits=2)
