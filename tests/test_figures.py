"""Figures of corpora that aren't ours: many concepts, long names, names in any script."""

import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.font_manager import findfont, get_font

from mmdisaster.data import pictures
from mmdisaster.data.pictures import BOXES, contact_sheet
from mmdisaster.pages.figures import change_plot, concept_bars, save_figure

SHORT = ["Fire", "Flood", "Storm"]
LONG = ["a concept whose name is rather a long one", "another whose name is nearly as long as it"]
SCRIPTS = ["Überschwemmung", "Наводнение", "Πλημμύρα", "فيضان", "cost $5 to $6_x, 50%"]
NONE = "\U0010fffd flood"  # a letter for private use


@pytest.fixture(autouse=True)
def _no_window():
    with mpl.rc_context({"backend": "agg"}):
        yield


def bars(names, note=""):
    models = ["early fusion", "late fusion", "proposed"]
    rows = [(name, model, 0.5) for model in models for name in names]
    scores = pd.DataFrame(rows, columns=["Concept", "Model", "F1"])
    return concept_bars(scores, dict.fromkeys(names, 1000), note)


def changes(names, note=""):
    rows = [(f"{name} (n = 40)", group, 0.1, 0.0, 0.2) for name in names for group in ["early", "late"]]
    return change_plot(pd.DataFrame(rows, columns=["label", "group", "mean", "low", "high"]), "Gain", "F1", note)


def sheet(names):
    return contact_sheet({name: np.zeros((2, 9, 12, 3), np.uint8) for name in names})


def apart(labels):
    """Whether no two labels touch."""
    boxes = [label.get_window_extent() for label in labels]
    return not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize(
    "names", [SHORT, [f"Concept {i}" for i in range(30)], LONG, [f"{LONG[0]}, {i}" for i in range(30)]]
)
@pytest.mark.parametrize("draw", [bars, changes])
def test_names_stand_apart_and_inside(draw, names):
    figure = draw(names)
    figure.canvas.draw()
    ax = figure.axes[0]
    labels = [label for label in [*ax.get_xticklabels(), *ax.get_yticklabels()] if label.get_text()[0].isalpha()]
    assert len(labels) == len(names) and apart(labels)
    titles = [ax.title, ax._left_title, *(text for legend in figure.legends for text in legend.get_texts())]
    assert apart([text for text in titles if text.get_text()])
    assert all(label.get_window_extent().x0 >= 0 for label in labels)
    assert ax.get_window_extent().width > 0.4 * figure.bbox.width, "the axes keep room"


def test_bars_that_lie_show_what_bars_that_stand_show():
    standing, lying = bars(SHORT).axes[0], bars([f"Concept {i}" for i in range(30)]).axes[0]
    assert {bar.get_height() for bar in standing.patches if bar.get_width() < 0.5 and bar.get_height()} == {0.5}
    assert sum(bar.get_width() == 0.5 for bar in lying.patches) == 90
    first, last = (lying.transData.transform((0, place))[1] for place in (0, 29))
    assert first > last, "the first concept is on top"


@pytest.mark.parametrize("draw", [bars, changes, sheet])
def test_names_are_drawn_as_they_are_written(draw, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        svg, _ = save_figure(draw(SCRIPTS), tmp_path / "figure")
    found = svg.read_text()
    assert all(name in found for name in ["Überschwemmung", "Наводнение", "Πλημμύρα", "فيضان", "$5 to $6_x, 50%"])
    assert BOXES[:20] not in found


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_letter_that_no_font_has_is_told(tmp_path):
    found = save_figure(bars([NONE, *SHORT], "A note."), tmp_path / "figure")[0].read_text()
    assert NONE in found and "A note. In a PNG, boxes stand" in found


def test_other_fonts_are_for_letters_that_ours_lacks(tmp_path, monkeypatch):
    """A font that is at hand everywhere stands for those that one machine has."""
    plain = [path.read_bytes() for path in save_figure(bars(SHORT), tmp_path / "plain")]
    known, other = (get_font(findfont(name)).get_charmap() for name in ["DejaVu Sans", "STIXGeneral"])
    letter = next(chr(code) for code in sorted(set(other) - set(known)) if chr(code).isalpha())
    monkeypatch.setattr(pictures, "FALLBACK", ("a font that nobody has", "STIXGeneral"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = bars([f"{letter} flood", *SHORT])
        families = [label.get_fontfamily() for label in figure.axes[0].get_xticklabels()]
        found = save_figure(figure, tmp_path / "other")[0].read_text()
    assert families == [["DejaVu Sans", "STIXGeneral"], *[["DejaVu Sans"]] * 3] and BOXES[:20] not in found
    assert [path.read_bytes() for path in save_figure(bars(SHORT), tmp_path / "again")] == plain
