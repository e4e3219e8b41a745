"""Each component notebook runs from top to bottom."""

from conftest import ROOT, command


def test_lessons():
    command(ROOT, "python", "tools/lessons.py")
