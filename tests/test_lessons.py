"""Each component notebook runs from top to bottom."""

from conftest import ROOT, command


def test_lessons():
    command(ROOT, "nbdev_test", "--n_workers", "2")
