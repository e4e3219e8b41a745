"""Estimators keep scikit-learn's contract: its own checks, pipelines, searches, data frames."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone, is_classifier
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from mmdisaster.data.sequences import Sequences, concatenate
from mmdisaster.fusion.algorithm1 import Algorithm1
from mmdisaster.fusion.elimination import RecursiveElimination, hold_out
from mmdisaster.fusion.powerset import LabelPowerset, WeightedPowersetSVC
from mmdisaster.fusion.ranking import GiniRanking
from mmdisaster.study.benchmarks import MLkNN
from mmdisaster.temporal.classifiers import DenseClassifier, TemporalClassifier, load_classifier, save_classifier

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
    WeightedPowersetSVC(kernel="rbf", weights="labelset", normalise="mean", scores="hard"),
    WeightedPowersetSVC(multiclass="one-vs-rest"),
    WeightedPowersetSVC(multiclass="crammer-singer"),
    WeightedPowersetSVC(solver="interior-point"),
    RecursiveElimination(ranking=GiniRanking(n_trees=5)),
    RecursiveElimination(LogisticRegression(), ranking=GiniRanking(n_trees=5), stop="full"),
    Algorithm1(n_trees=5),
    Algorithm1(n_trees=5, machine="one-vs-rest", stop="full", scale="none"),
    Algorithm1(n_trees=5, multiclass="one-vs-rest", scale="minmax", refit="both", constant="keep", stop="below"),
    Algorithm1(ranked_by="random", scores="hard", stop="none"),  # a random order may drop what matters
    MLkNN(k=3),  # some checks have ten rows only, and k must be less
    DenseClassifier(learning_rate=0.05, max_epochs=20),  # some checks want a good fit
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch warns about the checks' read-only arrays
@parametrize_with_checks(CHECKED, expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator), {}))
def test_scikit_learns_checks(estimator, check, capfd):
    """They pass, and silently."""
    check(estimator)
    assert capfd.readouterr().err == ""


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


def scale_and_eliminate(**changes):
    return Algorithm1(**{"n_trees": 10, "stop": "full"} | changes)


def machine():
    return RecursiveElimination(
        WeightedPowersetSVC(weights="labelset", normalise="mean"), ranking=GiniRanking(n_trees=10), stop="full"
    )


@pytest.mark.parametrize(
    "estimator",
    [
        GiniRanking(n_trees=5),
        WeightedPowersetSVC(),
        machine(),
        scale_and_eliminate(),
        MLkNN(),
        DenseClassifier(max_epochs=2),
    ],
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


def test_clips_held_out_by_algorithm_1_teach_nothing(labelled):
    """Neither the scale nor the ranking, nor the machine."""
    X, Y = (frame.to_numpy() for frame in labelled)
    same = scale_and_eliminate(stop="none").fit(X, Y)
    moved = X.copy()
    moved[same.held_out_] = 100
    other = scale_and_eliminate(stop="none").fit(moved, Y)
    assert len(same.held_out_) == 30 and np.array_equal(other.held_out_, same.held_out_)
    assert np.array_equal(other.scaler_.mean_, same.scaler_.mean_) and np.array_equal(other.ranking_, same.ranking_)
    assert np.array_equal(other.decision_function(X), same.decision_function(X))


@pytest.mark.parametrize("concepts", [2, 3])
def test_cross_validation_treats_the_machine_as_one_vs_rest(concepts, labelled):
    """One array of scores, a column per concept in the order of Y, from each machine; neither has probabilities."""
    X, Y = labelled[0].to_numpy(), labelled[1].to_numpy()[:, :concepts]
    ours, theirs = WeightedPowersetSVC(), OneVsRestClassifier(SVC(kernel="linear"))
    scores = [cross_val_predict(machine, X, Y, method="decision_function", cv=3) for machine in (ours, theirs)]
    assert all(type(each) is np.ndarray and each.shape == Y.shape and each.dtype == float for each in scores)
    assert average_precision_score(Y, scores[0]) > 0.5 and average_precision_score(Y, scores[1]) > 0.5
    for machine in (ours, theirs):
        assert not hasattr(clone(machine).fit(X, Y), "predict_proba")
        with pytest.raises(AttributeError, match="predict_proba"):
            cross_val_predict(machine, X, Y, method="predict_proba", cv=3)


@pytest.mark.parametrize("concepts", [1, 2, 3])
@pytest.mark.parametrize(
    "estimator",
    [WeightedPowersetSVC(), machine(), scale_and_eliminate(), scale_and_eliminate(machine="one-vs-rest"), MLkNN()],
)
def test_scores_of_several_labels_in_cross_validation(estimator, concepts, labelled):
    """One column per concept, also where scikit-learn could take two concepts for two classes."""
    X, Y = labelled[0].to_numpy(), labelled[1].to_numpy()[:, :concepts]
    method = "predict_proba" if isinstance(estimator, MLkNN) else "decision_function"
    assert cross_val_predict(estimator, X, Y, method=method, cv=3).shape == Y.shape
    if concepts > 1:
        scorer = make_scorer(average_precision_score, response_method=method)
        fitted = clone(estimator).fit(X[:80], Y[:80])
        expected = average_precision_score(Y[80:], getattr(fitted, method)(X[80:]))
        assert scorer(fitted, X[80:], Y[80:]) == expected
        assert cross_val_score(estimator, X, Y, scoring=scorer, cv=3).min() > 0.5


@pytest.mark.parametrize("change", [{}, {"machine": "one-vs-rest"}, {"scale": False}, {"scores": "hard"}])
def test_algorithm_1_in_a_file(change, labelled):
    """No class but this library's has to be trusted, and no random forest is in the file."""
    X, Y = (frame.to_numpy() for frame in labelled)
    fitted = scale_and_eliminate(**change).fit(X, Y)
    stored = skops.io.dumps(fitted)
    unknown = skops.io.get_untrusted_types(data=stored)
    assert "mmdisaster.fusion.algorithm1.Algorithm1" in unknown
    assert all(name.startswith("mmdisaster.") for name in unknown)
    read = skops.io.loads(stored, trusted=unknown)
    assert np.array_equal(read.decision_function(X), fitted.decision_function(X))
    assert np.array_equal(read.predict(X), fitted.predict(X)) and read.predict(X).dtype == fitted.predict(X).dtype
    assert read.elimination_.path_.equals(fitted.elimination_.path_) and read.get_params() == fitted.get_params()


def test_a_known_ranking_isnt_made_again(labelled):
    X, Y = (frame.to_numpy() for frame in labelled)
    made = scale_and_eliminate().fit(X, Y)
    given = scale_and_eliminate(ranking=made.ranking_, n_trees=1).fit(X, Y)
    assert given.importances_ is None and given.elimination_.path_.equals(made.elimination_.path_)
    with pytest.raises(ValueError, match="ranking must name each of the columns 0 to 9 once"):
        scale_and_eliminate(ranking=made.ranking_[:5]).fit(X, Y)


def test_algorithm_1_checks_its_parameters_by_the_settings(labelled):
    said = "Algorithm1: 3 problems\n  C: must be .*, was 0\n  stop: must be one of 'text', .*, was 'early'\n  n_trees: "
    with pytest.raises(ValueError, match=said):
        scale_and_eliminate(C=0, stop="early", n_trees=0).fit(*labelled)
    with pytest.raises(ValueError, match="with and without each concept, lacked them for concept 3 of 3"):
        Y = labelled[1].to_numpy() * [1, 1, 0]
        scale_and_eliminate(machine="one-vs-rest").fit(labelled[0], Y)


def test_elimination_is_quiet_unless_asked(labelled, capfd):
    scale_and_eliminate(n_jobs=1).fit(*labelled)
    assert capfd.readouterr() == ("", "")


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
@pytest.mark.parametrize(
    "estimator",
    [WeightedPowersetSVC(), machine(), scale_and_eliminate(), scale_and_eliminate(ranked_by="permutation"), MLkNN(),
     DenseClassifier(max_epochs=2)],
)  # fmt: skip
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
@pytest.mark.parametrize(
    "estimator",
    [
        WeightedPowersetSVC(),
        machine(),
        scale_and_eliminate(machine="one-vs-rest"),
        MLkNN(),
        DenseClassifier(max_epochs=2),
    ],
)
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
    with pytest.raises(TypeError, match=r"X must be Sequences, .*, was ndarray of shape \(2, 3\)"):
        model.predict(np.ones((2, 3)))


def test_a_network_takes_sequences_as_people_have_them():
    """Ragged lists, one array where all are as long, NumPy's arrays of objects; in scikit-learn's searches as well."""
    random = np.random.default_rng(0)
    ragged = [random.normal(size=(n, 3)) for n in random.integers(1, 6, 40)]
    even, Y = random.normal(size=(40, 5, 3)), random.integers(0, 2, (40, 2))
    objects = np.empty(40, object)
    objects[:] = ragged
    network = TemporalClassifier(units=4, dense=6, max_epochs=2)
    for X, same in [(ragged, concatenate(ragged)), (tuple(ragged), objects), (even, concatenate([*even]))]:
        first, second = (clone(network).fit(given, Y, (given, Y)) for given in (X, same))
        assert np.array_equal(first.predict_proba(X), second.predict_proba(same))
        assert np.array_equal(first.transform(same), second.transform(X)) and first.score(X, Y) == second.score(same, Y)
    for X in (ragged, even):
        assert len(cross_val_score(clone(network).set_params(max_epochs=1), X, Y, cv=2)) == 2
    with pytest.raises(ValueError, match=r"X\[1\] must be an array \(steps, 3\), as the first .*, had shape \(2, 4\)"):
        network.fit([np.ones((2, 3)), np.ones((2, 4))], Y[:2])
    with pytest.raises(ValueError, match="X must have no empty sequence, had one at 1"):
        network.fit([np.ones((2, 3)), np.ones((0, 3))], Y[:2])
    with pytest.raises(TypeError, match=r"X must be an array of shape \(n, dim\), was Sequences"):
        DenseClassifier().fit(concatenate(ragged), Y)


def test_networks_check_their_parameters_by_the_settings(labelled):
    X, Y = labelled
    said = r"DenseClassifier: 2 problems\n  max_epochs: must be a whole number .*, was 0\n  dropout: .*, was 1.0"
    with pytest.raises(ValueError, match=said):
        DenseClassifier(max_epochs=0, dropout=1.0).fit(X, Y)
    with pytest.raises(ValueError, match="hidden: must be a whole number from 1 to 16,384, was 0"):
        DenseClassifier(hidden=(8, 0)).fit(X, Y)


def test_networks_are_quiet(labelled, capfd, tmp_path):
    """Progress is shown where `verbose` asks for it, which is nothing that a file keeps."""
    loud = DenseClassifier(max_epochs=2, verbose=True).fit(*labelled)
    assert load_classifier(save_classifier(tmp_path / "d.safetensors", loud)).verbose is False
    capfd.readouterr()
    DenseClassifier(max_epochs=2).fit(*labelled).predict(labelled[0])
    assert capfd.readouterr() == ("", "")


def test_training_imports_no_compiler():
    """`torch.optim`'s classes import it when they are first used, which takes seconds."""
    lines = [
        "import sys, numpy as np",
        "from mmdisaster.temporal.classifiers import DenseClassifier",
        "DenseClassifier(max_epochs=1).fit(np.eye(4), [0, 1, 0, 1])",
        "sys.exit('torch._dynamo' in sys.modules)",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)]).returncode == 0
