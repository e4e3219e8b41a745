"""Metrics against scikit-learn, and the label powerset with its weights against counting by hand."""

from collections import Counter

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.svm import SVC

from mmdisaster.evaluation.metrics import concept_f1, hamming_loss, mean_average_precision, micro_f1
from mmdisaster.fusion.elimination import RecursiveElimination, apply_stop
from mmdisaster.fusion.powerset import LabelPowerset, WeightedPowersetSVC, labelset_weights
from mmdisaster.fusion.ranking import GiniRanking


@pytest.fixture(params=range(5))
def problem(request):
    """Random labels, decisions and scores; scores have ties."""
    random = np.random.default_rng(request.param)
    Y = (random.random((80, 7)) < random.uniform(0.1, 0.7, 7)).astype(np.uint8)
    Y[Y.sum(axis=1) == 0, 2] = 1
    return Y, (random.random(Y.shape) < 0.4).astype(np.uint8), random.integers(0, 12, Y.shape) / 12


def test_metrics_agree_with_scikit_learn(problem):
    Y, decisions, scores = problem
    assert hamming_loss(Y, decisions) == pytest.approx(sk.hamming_loss(Y, decisions))
    assert micro_f1(Y, decisions) == pytest.approx(sk.f1_score(Y, decisions, average="micro"))
    assert concept_f1(Y, decisions) == pytest.approx(sk.f1_score(Y, decisions, average=None))
    for ours, theirs in [("instances", "samples"), ("concepts", "macro"), ("micro", "micro"), ("weighted", "weighted")]:
        expected = sk.average_precision_score(Y, scores, average=theirs)
        assert mean_average_precision(Y, scores, average=ours) == pytest.approx(expected), ours


def test_powerset_is_a_bijection_on_the_labelsets_seen(problem):
    Y, _, _ = problem
    powerset = LabelPowerset().fit(Y)
    classes = powerset.transform(Y)
    assert len(set(classes)) == len({tuple(row) for row in Y})
    assert (powerset.inverse_transform(classes) == Y).all()


def test_weights_against_counting(problem):
    Y, _, _ = problem
    rows = [tuple(row) for row in Y]
    counts = Counter(rows)
    labelsets = sorted(counts)
    raw = np.array([1 / counts[labelset] for labelset in labelsets])
    mean = sum(raw[labelsets.index(row)] for row in rows) / len(rows)
    assert labelset_weights(Y, "labelset", "mean") == pytest.approx(raw / mean)
    delta = [1 / sum(row[j] for row in rows) for j in range(7)]
    by_concept = np.array([np.mean([delta[j] for j in range(7) if labelset[j]]) for labelset in labelsets])
    mean = sum(by_concept[labelsets.index(row)] for row in rows) / len(rows)
    assert labelset_weights(Y, "concept", "mean") == pytest.approx(by_concept / mean)


def test_classifier_is_a_weighted_svm_on_labelsets(problem):
    Y, _, _ = problem
    X = np.random.default_rng(1).normal(size=(len(Y), 5)) + Y[:, :5]
    rows = [tuple(row) for row in Y]
    labelsets, counts = sorted(set(rows)), Counter(rows)
    weight = np.array([1 / counts[row] for row in rows])
    svm = SVC(kernel="linear", C=0.9, break_ties=True).fit(
        X, [labelsets.index(row) for row in rows], sample_weight=weight / weight.mean()
    )
    expected = np.array([labelsets[k] for k in svm.predict(X)])
    assert (WeightedPowersetSVC(weights="labelset", normalise="mean").fit(X, Y).predict(X) == expected).all()


def test_elimination_against_refitting_each_round():
    random = np.random.default_rng(3)
    X = random.normal(size=(160, 12))
    Y = (X[:, :3] + 0.7 * random.normal(size=(160, 3)) > 0.3).astype(np.uint8)
    train, validation = slice(0, 100), slice(100, 160)
    ranking = GiniRanking(n_trees=50, random_state=0).fit(X[train], Y[train]).ranking_
    scores = []
    for kept in range(12, 0, -1):
        columns = np.sort(ranking[:kept])
        machine = WeightedPowersetSVC().fit(X[train][:, columns], Y[train])
        scores.append(sk.f1_score(Y[validation], machine.predict(X[validation][:, columns]), average="micro"))
    for stop in ["text", "algorithm", "full"]:
        found = RecursiveElimination(ranking=ranking, stop=stop).fit(
            X[train], Y[train], validation=(X[validation], Y[validation])
        )
        assert found.n_features_ == 12 - apply_stop(scores, stop)[0]
        assert set(np.flatnonzero(found.support_)) == set(ranking[: found.n_features_])
        path = found.path_.set_index("n_features")["score"]
        assert path.to_numpy() == pytest.approx([scores[12 - kept] for kept in path.index])
