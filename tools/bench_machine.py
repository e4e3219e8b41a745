"""Measure the machine of labelsets and the walk of elimination:  python tools/bench_machine.py OUT.json [--all-pairs]

Ratios of one run, in processor time, one thread, on data drawn at random with labelsets as rare as a corpus has them.

- elimination: rounds from all over the path, beside the plain loop with scikit-learn (fit `SVC`, score, drop the lowest
  ranked feature), at the paper's size: 924 clips for training, 308 for validation, 384 features, some 70 labelsets;
  whether their scores are equal.
- solver: `interior-point` beside libsvm at 3,000 clips, 384 features, 20 labelsets: both objectives, the share of 3,000
  other clips that they decide otherwise, seconds.
- decisions: peak memory of the decisions for 739 labelsets.
- size: `interior-point` at 60,000 clips, 384 features, 100 labelsets: seconds of all pairs and peak memory. Without
  --all-pairs one in fifty pairs is solved, from small to large, and seconds are estimated from them.
"""

import resource
import sys
import time
import tracemalloc
from itertools import combinations
from unittest.mock import patch

import numpy as np
from sklearn.metrics import f1_score
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from mmdisaster.core import save_json
from mmdisaster.fusion.elimination import LONG, SCORERS, _gram_scores
from mmdisaster.fusion.pairs import solve_pair
from mmdisaster.fusion.powerset import LabelPowerset, WeightedPowersetSVC, labelset_weights
from mmdisaster.fusion.smo import GramSVC
from mmdisaster.study.costs import machine_words

FEATURES = 384


def draw(n, other, k, concepts, seed=2019):
    """Clips with long-tailed labelsets and features that partly tell them: X, Y, and the same of other clips."""
    random = np.random.default_rng(seed)
    sets = np.unique(random.random((60 * k, concepts)) < min(0.5, 2.4 / concepts), axis=0)
    sets = random.permutation(sets)[:k].astype(np.uint8)
    share = 1 / np.arange(1, len(sets) + 1)
    numbers = [*range(len(sets)), *random.choice(len(sets), n + other - len(sets), p=share / share.sum())]
    of_concept, of_set = random.normal(size=(concepts, FEATURES)), random.normal(size=(len(sets), FEATURES)) / 2
    shared = random.normal(size=(40, FEATURES)) / np.sqrt(10)
    X = (sets @ of_concept + of_set)[numbers]
    for rows in np.array_split(np.arange(len(X)), max(1, len(X) // 5000)):  # one after the other, for memory
        noise = random.normal(size=(len(rows), 40)) @ shared + random.normal(size=(len(rows), FEATURES))
        X[rows] = np.tanh((X[rows] + noise) / 2)
    X -= X[:n].mean(axis=0)
    X /= X[:n].std(axis=0)
    Y = sets[numbers]
    return X[:n], Y[:n], X[n:], Y[n:]


def seconds(work, *arguments):
    """What it returns, and the processor time that it took."""
    start = time.process_time()
    found = work(*arguments)
    return found, time.process_time() - start


def peak_gib():
    """Most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plain_loop(data, order, rounds):
    """The loop that one writes with scikit-learn."""
    X, Y, X_val, Y_val = data
    powerset = LabelPowerset().fit(Y)
    weights = dict(enumerate(labelset_weights(Y)))
    scores = []
    for kept in (order[: len(order) - dropped] for dropped in rounds):
        svc = SVC(C=0.9, kernel="linear", class_weight=weights, break_ties=True)
        decided = svc.fit(X[:, kept], powerset.transform(Y)).predict(X_val[:, kept])
        scores.append(f1_score(Y_val, powerset.labelsets_[decided], average="micro"))
    return scores


def bench_elimination(chunks=6):
    """Chunks of rounds from all over the path, each walked both ways."""
    X, Y, X_val, Y_val = data = draw(924, 308, 70, 7)
    order = np.random.default_rng(0).permutation(FEATURES)
    GramSVC().fit(np.eye(3), np.arange(3), np.ones(3))  # compiled once, which takes seconds, and kept
    ours, theirs, libsvm, equal = 0.0, 0.0, 0.0, True
    for first in np.linspace(0, FEATURES - LONG, chunks).astype(int):
        rounds = range(first, first + LONG)
        scores, took = seconds(_gram_scores, WeightedPowersetSVC(), data, order, rounds, SCORERS["micro_f1"])
        with patch.dict(sys.modules, {"mmdisaster.fusion.smo": None}):  # as where there is no Numba
            alike, took_libsvm = seconds(_gram_scores, WeightedPowersetSVC(), data, order, rounds, SCORERS["micro_f1"])
        expected, plain = seconds(plain_loop, data, order, rounds)
        ours, theirs, libsvm = ours + took, theirs + plain, libsvm + took_libsvm
        equal = equal and scores == alike and np.allclose(scores, expected, rtol=0, atol=1e-12)
    scored = chunks * LONG
    return {
        "labelsets": len(np.unique(Y, axis=0)),
        "rounds": scored,
        "seconds_per_round": ours / scored,
        "plain_seconds_per_round": theirs / scored,
        "ratio": theirs / ours,
        "ratio_without_numba": theirs / libsvm,
        "equal": bool(equal),
    }


def objective(coef, offset, X, signs, cost):
    """What both solvers minimise for a pair."""
    return coef @ coef / 2 + cost @ np.maximum(1 - signs * (X @ coef + offset), 0)


def pairs_of(Y):
    """Rows and signs of each pair of labelsets."""
    numbers = LabelPowerset().fit_transform(Y)
    members = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    for first, second in combinations(members, 2):
        yield np.concatenate([first, second]), np.repeat([1.0, -1.0], [len(first), len(second)])


def bench_solver(n=3000, k=20, **settings):
    """Both solvers on the same clips."""
    X, Y, X_other, _ = draw(n, n, k, 6)
    machines, took = {}, {}
    for solver in ["libsvm", "interior-point"]:
        machine = WeightedPowersetSVC(solver=solver, **settings)
        machines[solver], took[solver] = seconds(machine.fit, X, Y)
    cost = machines["libsvm"].C * machines["libsvm"].weights_[LabelPowerset().fit_transform(Y)]
    sums, worst = dict.fromkeys(machines, 0.0), 0.0
    planes = {name: (machine.svc_.coef_, machine.svc_.intercept_) for name, machine in machines.items()}
    for number, (rows, signs) in enumerate(pairs_of(Y)):
        found = {
            name: objective(coef[number], offset[number], X[rows], signs, cost[rows])
            for name, (coef, offset) in planes.items()
        }
        sums = {name: sums[name] + value for name, value in found.items()}
        worst = max(worst, found["interior-point"] / found["libsvm"] - 1)
    decided = [machine.predict(X_other) for machine in machines.values()]
    return {
        "clips": n,
        "labelsets": len(np.unique(Y, axis=0)),
        "settings": settings,
        "objective_ratio": sums["interior-point"] / sums["libsvm"],
        "worst_pair_above_libsvm": worst,
        "decided_otherwise": float((decided[0] != decided[1]).any(axis=1).mean()),
        "seconds": took,
    }


def bench_size(everything, n=60_000, k=100, step=50):
    """The solver at the size that libsvm doesn't reach, all pairs or every so many by size."""
    X, Y, _, _ = draw(n, 1, k, 8)
    about = {"clips": n, "labelsets": len(np.unique(Y, axis=0)), "all_pairs": everything}
    if everything:
        machine, took = seconds(WeightedPowersetSVC(solver="interior-point").fit, X, Y)
        return about | {"seconds": took, "gap": machine.svc_.gap_, "peak_gib": peak_gib()}
    cost = WeightedPowersetSVC().C * labelset_weights(Y)[LabelPowerset().fit_transform(Y)]
    pairs = sorted(pairs_of(Y), key=lambda pair: len(pair[0]))
    taken, total, gap = pairs[step // 2 :: step], 0.0, 0.0
    for rows, signs in taken:
        (_, _, left), took = seconds(solve_pair, X[rows], signs, cost[rows])
        total, gap = total + took, max(gap, left)
    share = sum(len(rows) for rows, _ in taken) / sum(len(rows) for rows, _ in pairs)
    return about | {
        "pairs": len(taken),
        "seconds": total,
        "seconds_estimated": total / share,
        "gap": gap,
        "peak_gib": peak_gib(),
    }


def bench_decisions(k=739, n=1540):
    """What the decisions of very many labelsets take, beyond the machine itself."""
    X, Y, _, _ = draw(n, 1, k, 14)
    machine = WeightedPowersetSVC().fit(X, Y)
    tracemalloc.start()
    machine.predict(X)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return {"labelsets": len(np.unique(Y, axis=0)), "clips": n, "peak_mib": peak}


def main(arguments):
    out, everything = arguments[0], "--all-pairs" in arguments
    record = {"machine": machine_words(), "threads": 1}
    with threadpool_limits(1):
        record["elimination"] = bench_elimination()
        record["solver"] = [bench_solver(), bench_solver(normalise="mean")]
        record["decisions"] = bench_decisions()
        record["size"] = bench_size(everything)
    save_json(out, record)
    for name, found in record.items():
        print(f"{name}: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
