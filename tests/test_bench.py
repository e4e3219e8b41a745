"""What `make bench` writes down: every part has its table, and the committed page is that of the committed numbers."""

import json

import bench
import pytest
from conftest import ROOT

RECORD = ROOT / "results" / "bench.json"


def test_every_part_has_a_table():
    assert set(bench.TABLES) == set(bench.PARTS)


def test_the_committed_page_is_that_of_the_committed_numbers():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record and set(record) <= set(bench.PARTS)
    assert RECORD.with_suffix(".md").read_text(encoding="utf-8") == bench.page(record)


def test_the_page_shows_what_was_measured_and_nothing_else():
    commands = {"dvc repro": {"wall": 2.34, "processor": 1.5}, "make repro": {"wall": 4.0, "processor": 3.25}}
    text = bench.page({"nothing": {"machine": "A machine", "found": commands}})
    assert "| dvc repro | 2.34 s | 1.50 s |" in text
    assert "on: A machine." in text
    assert "GiB" not in text


def test_ratios_say_which_way_they_go():
    took = {"extraction": 10.0, "forward": 9.0, "plain loop": 25.0, "clips": 128, "correlation": 0.95}
    lines = bench.lines_of_extraction({"visual": took})
    assert [line[1] for line in lines] == ["0.90", "2.5×"]
    assert "network's passes ÷ whole extraction" in lines[0][0]
    assert "plain loop ÷ extraction" in lines[1][0]


@pytest.mark.skipif(bench.torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there_is_told_at_once(capsys):
    assert bench.main(["card"]) == 2
    assert "card needs an NVIDIA card" in capsys.readouterr().err


def test_an_unknown_part_is_named(capsys):
    assert bench.main(["memroy"]) == 2
    assert "'memroy' is none" in capsys.readouterr().err


@pytest.mark.parametrize("sizes", [["1500", "15000", "150000"], ["15000", "1500", "150000"]])
def test_memory_is_shown_by_size(sizes):
    peaks = {"1500": 2**20, "15000": 2**21, "150000": 2**22}
    found = {"clips": {size: {"training": {"peak_rss": peaks[size]}} for size in sizes}}
    assert bench.lines_of_memory(found) == [["training", "1", "2", "4"]]
