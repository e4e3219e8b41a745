"""Machines of all pairs of labelsets: another solver against libsvm, and memory that many labelsets take."""

import sys
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.svm import SVC

from mmdisaster.fusion.elimination import RecursiveElimination
from mmdisaster.fusion.inspection import machine_facts
from mmdisaster.fusion.pairs import PAIR_BYTES, InteriorPointSVC, one_vs_rest
from mmdisaster.fusion.powerset import WeightedPowersetSVC
from mmdisaster.fusion.smo import EXACT, GramSVC


@pytest.fixture(scope="module")
def clips():
    """800 clips with 30 features off the origin and four concepts from frequent to rare, half of them to learn from."""
    random = np.random.default_rng(0)
    hidden = random.normal(size=(800, 4))
    Y = (hidden > [-0.2, 0.6, 1.2, 1.7]).astype(np.uint8)
    X = hidden @ random.normal(size=(4, 30)) / 3 + random.normal(size=(800, 30)) + 2
    return X[:400], Y[:400], X[400:], Y[400:]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalise": "mean"},
        {"weights": "labelset"},  # both sides of a pair cost the same: the offset is a choice
        {"weights": "none", "C": 100},
        {"weights": "none", "C": 1e-5},
    ],
)
def test_the_interior_point_finds_libsvms_machine(clips, settings):
    X, Y, X_other, _ = clips
    libsvm = WeightedPowersetSVC(**settings).fit(X, Y)
    other = WeightedPowersetSVC(**settings, solver="interior-point").fit(X, Y)
    numbers = libsvm.powerset_.transform(Y)
    cost = libsvm.C * libsvm.weights_[numbers]
    planes = [(machine.svc_.coef_, machine.svc_.intercept_) for machine in (other, libsvm)]
    for pair, (first, second) in enumerate(combinations(range(len(libsvm.weights_)), 2)):
        rows = (numbers == first) | (numbers == second)
        signs = np.where(numbers[rows] == first, 1, -1)
        ours, theirs = (
            w[pair] @ w[pair] / 2 + cost[rows] @ np.maximum(1 - signs * (X[rows] @ w[pair] + b[pair]), 0)
            for w, b in planes
        )
        assert ours <= theirs * (1 + 1e-5)
    assert (libsvm.predict(X_other) != other.predict(X_other)).any(axis=1).mean() <= 0.005


def test_weights_of_zero_leave_clips_out(clips):
    X, Y, _, _ = clips
    weight = np.linspace(0, 2, 400) * (np.arange(400) % 3 > 0)
    all_of_them = InteriorPointSVC().fit(X, Y[:, 0], weight)
    some = InteriorPointSVC().fit(X[weight > 0], Y[weight > 0, 0], weight[weight > 0])
    assert np.array_equal(all_of_them.coef_, some.coef_)


@pytest.mark.parametrize("stop", ["full", "algorithm"])
def test_elimination_by_the_interior_point_walks_libsvms_path(clips, stop):
    X, Y, X_val, Y_val = (part[:150, :12] for part in clips)
    libsvm = RecursiveElimination(WeightedPowersetSVC(), ranking=np.arange(12), stop=stop)
    other = clone(libsvm).set_params(estimator__solver="interior-point")
    for walk in (libsvm, other):
        walk.fit(X, Y, validation=(X_val, Y_val))
    assert np.nanmax(np.abs(libsvm.scores_ - other.scores_)) < 0.01


def test_a_gram_path_is_the_path_of_plain_fits_whatever_the_order_of_clips(clips):
    X, Y, X_val, Y_val = (part[:200] for part in clips)
    scores = []
    for rows in (np.arange(200), np.random.default_rng(1).permutation(200)):
        for gram in (True, False):
            walk = RecursiveElimination(WeightedPowersetSVC(), ranking=np.arange(30), stop="full", gram=gram)
            scores.append(walk.fit(X[rows], Y[rows], validation=(X_val, Y_val)).scores_)
    assert np.allclose(scores[0], scores[1], rtol=0, atol=1e-12)
    assert np.allclose(scores[2], scores[3], rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def many_labelsets():
    """A machine of 120 labelsets, two clips each, and 6,000 clips whose margins take 343 MB."""
    random = np.random.default_rng(0)
    Y = np.repeat(np.arange(1, 121)[:, None] >> np.arange(7) & 1, 2, axis=0).astype(np.uint8)
    X = random.normal(size=(240, 5)) + Y[:, :5]
    return WeightedPowersetSVC().fit(X, Y), np.tile(X, (25, 1)), np.tile(Y, (25, 1))


@pytest.mark.parametrize("work", ["predict", "machine_facts"])
def test_decisions_and_errors_take_bounded_memory(many_labelsets, work):
    machine, X, Y = many_labelsets
    whole = 8 * len(X) * 120 * 119 // 2
    tracemalloc.start()
    try:
        _ = machine.predict(X) if work == "predict" else machine_facts(machine, X, Y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert whole > 5 * PAIR_BYTES and peak < 3 * PAIR_BYTES


def test_batches_change_no_bit(many_labelsets):
    machine, X, _ = many_labelsets
    margins = machine.svc_.decision_function(X[:500])
    assert np.array_equal(machine.labelset_scores(X)[:500], one_vs_rest(margins, 120))
    assert isinstance(machine.svc_, SVC)


def odd_clips(kind):
    """Clips of eleven classes, one of them large, that make something of the solver's arithmetic special."""
    random = np.random.default_rng(len(kind))
    classes = np.repeat(np.arange(11), [1, 1, 2, 2, 3, 5, 8, 13, 21, 34, 300])
    X = random.normal(size=(len(classes), 6)) + random.normal(size=(11, 6))[classes]
    shift = {
        "equal clips of different classes": lambda: X[np.arange(len(X)) % 7],
        "no features that differ": lambda: np.ones_like(X),
        "zeros": lambda: np.zeros_like(X),
        "whole numbers": lambda: X.round(),
        "far from the origin": lambda: X + 100,
        "tiny": lambda: X * 1e-8,
        "large": lambda: X * 30,
        "usual": lambda: X,
    }
    return shift[kind](), classes


ON_X86 = pytest.mark.skipif(not EXACT, reason="libsvm's compiler may round otherwise on this processor")


@ON_X86
@pytest.mark.parametrize("C", [1e-4, 0.9])
@pytest.mark.parametrize("shrinking", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        "usual",
        "equal clips of different classes",
        "no features that differ",
        "zeros",
        "whole numbers",
        "far from the origin",
        "tiny",
        "large",
    ],
)
def test_compiled_machines_are_libsvms_to_the_last_bit(kind, shrinking, C):
    X, classes = odd_clips(kind)
    weights = np.linspace(2, 0.1, 11)
    ours = GramSVC(C, shrinking).fit(X @ X.T, classes, weights)
    own = {"C": C, "shrinking": shrinking, "class_weight": dict(enumerate(weights))}
    theirs = SVC(kernel="precomputed", decision_function_shape="ovo", **own).fit(X @ X.T, classes)
    assert np.array_equal(ours.dual_coef_[:, theirs.support_], theirs.dual_coef_)
    assert np.array_equal(ours.intercept_, theirs.intercept_) and np.array_equal(ours.n_iter_, theirs.n_iter_)
    assert np.count_nonzero(ours.dual_coef_) == np.count_nonzero(theirs.dual_coef_)


@ON_X86
def test_a_whole_path_is_the_same_without_numba(clips, monkeypatch):
    made, fit, X = [], GramSVC.fit, np.hstack([clips[0], clips[0][:, ::-1] ** 2])
    monkeypatch.setattr(GramSVC, "fit", lambda *given: made.append(1) or fit(*given))
    walk = RecursiveElimination(WeightedPowersetSVC(), np.arange(60), stop="full")
    compiled = walk.fit(X, clips[1]).scores_
    assert len(made) > 50
    monkeypatch.setitem(sys.modules, "mmdisaster.fusion.smo", None)
    made.clear()
    assert np.array_equal(walk.fit(X, clips[1]).scores_, compiled) and not made


def test_without_elimination_one_round_is_scored(clips):
    """Others would be thrown away, and of many clips each takes minutes."""
    X, Y, *validation = clips

    class Counted(WeightedPowersetSVC):
        fitted = 0

        def fit(self, X, Y):
            Counted.fitted += 1
            return super().fit(X, Y)

    RecursiveElimination(Counted(solver="interior-point"), np.arange(X.shape[1]), "none").fit(X, Y, validation)
    assert Counted.fitted == 2  # to be scored, and to be kept
