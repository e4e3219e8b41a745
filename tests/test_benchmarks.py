"""Public data: the same arrays from OpenML's table as from Mulan's files; folds cover everything."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from mmdisaster.study.benchmarks import folds, from_openml, load_benchmark


@pytest.mark.parametrize("words", [("TRUE", "FALSE"), ("1", "0")])
def test_openml_says_labels_in_words(words):
    X = pd.DataFrame({"f1": [0.5, 0.25], "f2": [1.0, 2.0]})
    target = pd.DataFrame({"a": [words[0], words[1]], "b": [words[0], words[0]]}).astype("category")
    data = from_openml("emotions", fetch=lambda name, **options: Bunch(data=X, target=target))
    assert data.Y.tolist() == [[1, 1], [0, 1]] and data.Y.dtype == np.uint8 and data.labels == ["a", "b"]
    assert data.X.tolist() == X.to_numpy().tolist()


def test_an_unknown_name():
    with pytest.raises(ValueError, match="name must be one of 'emotions', 'scene', 'yeast', 'birds', was 'enron'"):
        load_benchmark("enron")


def test_folds_cover_everything_once():
    Y = (np.random.default_rng(0).random((100, 3)) < 0.4).astype(np.uint8)
    found = folds(Y, 5, seed=1)
    assert sorted(np.concatenate([test for _, test in found]).tolist()) == list(range(100))
    assert all(not set(train) & set(test) for train, test in found)
