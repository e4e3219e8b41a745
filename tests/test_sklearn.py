"""Estimators keep scikit-learn's contract: its own checks, pipelines, searches, data frames."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from mmdisaster.data.sequences import Sequences
from mmdisaster.fusion.elimination import RecursiveElimination, hold_out
from mmdisaster.fusion.powerset import LabelPowerset, WeightedPowersetSVC
from mmdisaster.fusion.ranking import GiniRanking
from mmdisaster.study.benchmarks import MLkNN
from mmdisaster.temporal.classifiers import DenseClassifier, TemporalClassifier

EXPECTED_FAILURES = {
    DenseClassifier: {
        "check_methods_sample_order_invariance": "asks for nine digits, and a network computes in float32: the last "
        "digit of a probability depends on the place of a clip in its batch"
    },
}
CHECKED = [
    GiniRanking(n_trees=5),
    GiniRanking("labelset", n_trees=5),
    WeightedPowersetSVC(),
    WeightedPowersetSVC(kernel="rbf", weights="concept", normalise="paper", scores="hard"),
    RecursiveElimination(ranking=GiniRanking(n_trees=5)),
    RecursiveElimination(LogisticRegression(), ranking=GiniRanking(n_trees=5), stop="full"),
    MLkNN(k=3),  # some checks have ten rows only, and k must be less
    DenseClassifier(learning_rate=0.05, max_epochs=20),  # some checks want a good fit
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # checks try infinite labels
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch warns about the checks' read-only arrays
@parametrize_with_checks(CHECKED, expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator), {}))
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", [LabelPowerset(), TemporalClassifier()])
def test_what_takes_no_feature_array_says_so(estimator):
    """Sets of labels and ragged sequences; scikit-learn treats its own label transformers likewise."""
    assert not get_tags(estimator).input_tags.two_d_array
    with pytest.warns(SkipTestWarning, match="requires input"):
        check_estimator(estimator)
    assert clone(estimator).get_params() == estimator.get_params()


@pytest.fixture(scope="module")
def labelled():
    """120 clips with ten named features; three of them carry three concepts."""
    random = np.random.default_rng(0)
    X = random.normal(size=(120, 10))
    Y = (X[:, :3] + 0.3 * random.normal(size=(120, 3)) > 0.3).astype(np.uint8)
    return pd.DataFrame(X, columns=[f"f{i}" for i in range(10)]), pd.DataFrame(Y, columns=["flood", "rain", "speech"])


def machine():
    return RecursiveElimination(WeightedPowersetSVC(), ranking=GiniRanking(n_trees=10), stop="full")


@pytest.mark.parametrize(
    "estimator", [GiniRanking(n_trees=5), WeightedPowersetSVC(), machine(), MLkNN(), DenseClassifier(max_epochs=2)]
)
def test_data_frames_keep_their_names(estimator, labelled):
    X, Y = labelled
    fitted = clone(estimator).fit(X, Y)
    assert fitted.feature_names_in_.tolist() == X.columns.tolist() and fitted.n_features_in_ == 10
    if not is_classifier(estimator):
        return
    plain = clone(estimator).fit(X.to_numpy(), Y.to_numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(fitted.predict(X), plain.predict(X.to_numpy()))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(X[X.columns[::-1]])


def test_elimination_in_a_pipeline_in_a_search(labelled):
    X, Y = labelled
    grid = {"recursiveelimination__stop": ["text", "full"], "recursiveelimination__estimator__C": [0.1, 0.9]}
    search = GridSearchCV(make_pipeline(StandardScaler(), machine()), grid, scoring="f1_micro", cv=3, refit=True)
    search.fit(X, Y)
    assert len(search.cv_results_["params"]) == 4 and np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_score_ > 0.8 and search.predict(X).shape == Y.shape
    chosen = search.best_estimator_[-1]
    assert search.best_params_["recursiveelimination__estimator__C"] == chosen.estimator_.C
    assert {"f0", "f1", "f2"} <= set(search.best_estimator_[:-1].get_feature_names_out()[chosen.support_])


def test_elimination_gives_data_frames_and_predicts_from_them(labelled):
    X, Y = labelled
    model = make_pipeline(StandardScaler(), machine()).set_output(transform="pandas").fit(X, Y)
    kept = model.transform(X)
    assert isinstance(kept, pd.DataFrame) and kept.columns.tolist() == model[-1].get_feature_names_out().tolist()
    assert kept.shape[1] == model[-1].n_features_ and kept.index.equals(X.index)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decided = model.predict(X)
    plain = make_pipeline(StandardScaler(), machine()).fit(X.to_numpy(), Y.to_numpy())
    assert np.array_equal(decided, plain.predict(X.to_numpy()))


def test_clips_held_out_teach_nothing(labelled):
    """Other features there move nothing but the choice: with `stop="none"`, which chooses nothing, not a byte."""
    X, Y = (frame.to_numpy() for frame in labelled)
    learn, held = hold_out(Y)
    fitted = machine().fit(X, Y)
    assert np.array_equal(fitted.held_out_, held) and not set(learn) & set(held)
    assert len(held) == 30 and abs(Y[held].mean(axis=0) - Y.mean(axis=0)).max() < 0.05
    moved = X.copy()
    moved[held] = 0
    other = machine().set_params(stop="none").fit(moved, Y)
    same = machine().set_params(stop="none").fit(X, Y)
    assert np.array_equal(other.ranking_, same.ranking_)
    assert np.array_equal(other.decision_function(X), same.decision_function(X))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides_which_clips_are_held_out(labelled, seed):
    X, Y = labelled
    once, again, other = (machine().set_params(random_state=s).fit(X, Y) for s in (seed, seed, seed + 2))
    assert np.array_equal(once.held_out_, again.held_out_) and once.path_.equals(again.path_)
    assert not np.array_equal(once.held_out_, other.held_out_)


@pytest.mark.parametrize("fraction", [0, 1, -0.5])
def test_a_share_that_is_none(labelled, fraction):
    with pytest.raises(ValueError, match=f"validation_fraction must lie between 0 and 1, was {fraction}"):
        machine().set_params(validation_fraction=fraction).fit(*labelled)


@pytest.mark.parametrize("labels", [["rain", "siren"], ["rain", "siren", "crowd"], [3, 7], [True, False], ["rain"]])
@pytest.mark.parametrize("estimator", [WeightedPowersetSVC(), machine(), MLkNN(), DenseClassifier(max_epochs=2)])
def test_one_label_a_clip(estimator, labels):
    """Decisions are labels; whatever scores there are belong to `classes_`."""
    random = np.random.default_rng(0)
    X = random.normal(size=(80, 4))
    y = np.array(labels)[np.arange(80) % len(labels)]
    fitted = clone(estimator).fit(X, y)
    assert fitted.classes_.tolist() == sorted(labels) and set(fitted.predict(X)) <= set(labels)
    if hasattr(fitted, "predict_proba"):
        P = fitted.predict_proba(X)
        assert P.shape == (80, len(labels)) and np.allclose(P.sum(axis=1), 1)
        assert np.array_equal(fitted.classes_[P.argmax(axis=1)], fitted.predict(X))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
@pytest.mark.parametrize("estimator", [WeightedPowersetSVC(), machine(), MLkNN(), DenseClassifier(max_epochs=2)])
def test_decisions_have_the_type_of_the_labels(estimator, dtype, labelled):
    X, Y = (frame.to_numpy() for frame in labelled)
    decided = clone(estimator).fit(X, Y.astype(dtype)).predict(X)
    assert decided.dtype == dtype and np.array_equal(decided, clone(estimator).fit(X, Y).predict(X))


def test_sequences_in_a_pipeline():
    """Ragged sequences go through scikit-learn's pipeline, and their features have names."""
    random = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 6, 40))])
    clips = Sequences(random.normal(size=(offsets[-1], 3)).astype(np.float32), offsets)
    Y = random.integers(0, 2, (40, 2))
    temporal = TemporalClassifier(units=4, dense=6, max_epochs=1)
    model = make_pipeline(temporal, StandardScaler(), WeightedPowersetSVC()).fit(clips, Y)
    assert model.predict(clips).shape == (40, 2)
    assert model[:-1].get_feature_names_out().tolist() == [f"temporalclassifier{i}" for i in range(6)]
    with pytest.raises(TypeError, match="X must be Sequences, was ndarray"):
        model.predict(np.ones((2, 3)))
