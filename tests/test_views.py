"""Views of public sets: each machine differs from its partner in one thing, and test instances choose nothing."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from mmdisaster.fusion.inspection import equal_cost
from mmdisaster.settings.sections import Fusion
from mmdisaster.settings.tree import Settings
from mmdisaster.study.mulan import Benchmark, read_mulan
from mmdisaster.study.views import (
    MACHINES,
    column_places,
    deal,
    machine_settings,
    run_machines,
    view_sequences,
)

FOLDER = ROOT.parent / "shared" / "benchmarks"
WIDTHS = {"emotions": [8, 64], "yeast": [79, 24], "birds": [153, 98, 7]}


@pytest.mark.parametrize("name", WIDTHS)
def test_the_views_of_the_real_sets(name):
    if not FOLDER.is_dir():
        pytest.skip("Mulan's files are not here; they are optional")
    data, views = read_mulan(FOLDER, name), Settings().views.sets[name]
    places = [column_places(data.columns, wanted) for wanted in views.values()]
    assert [len(found) for found in places] == WIDTHS[name]
    assert len({*np.concatenate(places)}) == sum(WIDTHS[name]), "no column is in two views"


def made(n=90, seed=0):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(n, 6)), np.zeros((n, 3), np.uint8)
    Y[:, 0], Y[:, 1], Y[:, 2] = X[:, 0] > 0, X[:, 1] > 1, X[:, 2] > 0.5
    return Benchmark(X, Y, list("abc"), "generated", tuple(f"f{i}" for i in range(6)))


def test_partners_cost_the_same_on_average():
    Y = made().Y
    for name, machine in MACHINES.items():
        if machine.cost_of:
            cost = equal_cost(machine_settings(machine.cost_of, Fusion(), Y), Y).C
            assert np.isclose(equal_cost(machine_settings(name, Fusion(), Y), Y).C, cost)
    counted = [sum(1 / Y[:, c].sum() for c in np.flatnonzero(row)) / row.sum() for row in Y if row.any()]
    empty = (Y.sum(axis=1) == 0).sum()
    by_hand = 0.9 * (sum(counted) + (empty and 1)) / len(Y)
    assert np.isclose(equal_cost(machine_settings("proposed", Fusion(), Y), Y).C, by_hand)


def test_test_instances_choose_nothing():
    data = made()
    split = deal(data.labels, data.Y, (0.6, 0.2, 0.2), 0)
    views = {name: x.values for name, x in view_sequences(data, {"left": "f0:f2", "right": "f3:f5"}).items()}
    small = Settings().fusion.model_copy(update={"n_trees": 10})
    scored, facts = run_machines(views, split, small)
    test = split.rows("test")
    turned = data.Y.copy()
    turned[test] = 1 - turned[test]
    again, same = run_machines(views, replace(split, Y=turned), small)
    assert all((scored[name]["decisions"] == again[name]["decisions"]).all() for name in MACHINES) and facts == same
