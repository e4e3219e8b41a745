"""Whatever stands in settings is taken, or refused at once in one line a problem: no traceback, no hang, no memory."""

import math
import sys

import pytest
from conftest import ROOT, SMALL

from mmdisaster.settings import Settings, SettingsError, read_settings
from mmdisaster.settings.reading import merged, parse_change, read_values

sys.path.insert(0, str(ROOT / "tools"))
from fuzz_settings import FILES, WRONG, at, fields, limits  # noqa: E402

FIELDS = dict(fields())
NEVER = [math.nan, math.inf, -math.inf, 1e300, -1e300, 10**400, "\x1b[2J", "a\nb", "", [math.nan] * 3, [[]], {"a": 1}]


def told(name, value):
    """The lines with which settings are refused where one has a value."""
    with pytest.raises(SettingsError) as caught:
        read_settings(None, {name: value})
    return str(caught.value).splitlines()[1:]


@pytest.mark.parametrize("name", FIELDS)
def test_what_a_field_can_never_be_is_one_line(name):
    """Generated from the sections, so that a new field is tried as well."""
    for value in NEVER:
        if (value == "" and name.endswith("sha256")) or (value == {"a": 1} and name in ("variants", "static")):
            continue
        lines = told(name, value)
        assert 1 <= len(lines) <= 3 and all(len(line) < 500 and line.isprintable() for line in lines), (value, lines)
        place = name.removesuffix(".extractor")  # another word there is another source
        assert all(line.startswith(f"  {place}") for line in lines), (value, lines)


@pytest.mark.parametrize("name", [name for name in FIELDS if limits(FIELDS[name])])
def test_a_field_is_taken_up_to_its_limits_and_no_further(name):
    """Whether a limit itself is taken depends on other fields; beyond it nothing is."""
    numbers = [value for value in limits(FIELDS[name]) if isinstance(value, int | float)]
    for value in [min(numbers), max(numbers)] if numbers else []:
        line = told(name, value)[0]
        assert line.startswith(f"  {name}: must be a ") and str(value) in line


def test_every_number_has_limits():
    """What a machine can't hold, or would never end, is no setting."""
    for name, field in FIELDS.items():
        if field.annotation in (int, float):
            assert len(limits(field)) >= 6, f"{name} has no upper or no lower limit"


@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_no_value_is_a_traceback(value):
    for name in [
        "corpus.clips",
        "corpus.concepts",
        "modalities",
        "modalities.text.weights.limit",
        "baseline.clock",
        "variants",
        "split",
    ]:
        try:
            read_settings(at(name, value))
        except SettingsError as error:
            assert str(error)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_holds_no_settings(tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    if name in ("empty.yaml", "bom.yaml"):
        assert read_settings(tmp_path / name).split.by in ("clip", "video")
        return
    with pytest.raises(SettingsError) as caught:
        read_settings(tmp_path / name)
    lines = str(caught.value).splitlines()
    assert name in lines[0] and len(lines) <= 4 and all(len(line) < 700 for line in lines), lines


@pytest.mark.parametrize("name", ["none.yaml", "folder.yaml", "a\0b.yaml", "a" * 5000 + ".yaml"])
def test_a_path_that_leads_to_no_file(tmp_path, name):
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(SettingsError, match="can't be read|must be a file"):
        read_settings(str(tmp_path / name))


TOGETHER = {
    "features": (
        {"modalities.visual.frames": 500, "modalities.visual.size": 299},
        "44,700,500 pixels computed together",
    ),
    "calibration": (
        {"modalities.visual.weights.frames": 40, "modalities.visual.weights.size": 299},
        "corpus.calibration_clips (32)",
    ),
    "statistics": (
        {"corpus.calibration_clips": 2, "modalities.visual.weights.frames": 1},
        "must give 4 frames or more",
    ),
    "network": ({"temporal.units": 4096}, "temporal: units 4,096, layers 2 and dense 128 make"),
    "clock": ({"baseline.clock": 2, "baseline.pairs": "early"}, "a pair has two modalities, was 2"),
    "lessons": ({"distillation.batch_size": 1000, "distillation.seconds": 60.0}, "60,000 seconds a batch"),
    "share": ({"distillation.share": 0.01}, "share must be above 1 / k = 0.0312, was 0.01"),
    "parts": ({"corpus.clips": 20, "corpus.videos": 5, "split.fractions": [0.9, 0.05, 0.05]}, "2 clips of 20"),
    "videos": ({"split.by": "video", "corpus.videos": 3}, "2 videos of 3"),
    "seeds": ({"leakage.seeds": [1, 2]}, "leakage.seeds must be among comparison.seeds, 1 isn't"),
    "twice": ({"comparison.seeds": [2019, 2019]}, "comparison.seeds: must name each value once, names 2019 twice"),
    "modalities": (
        {"modalities": ["visual", "smell"]},
        "modalities: must be names and values, was ('visual', 'smell')",
    ),
    "names": ({"corpus.concepts": ["Flood ", "Fire"], "corpus.manifest": "a.csv"}, "was 'Flood '"),
    "file": ({"variants": {"../a": {"fusion.C": 1}}}, "variants.../a: names must be text"),
    "static": (
        {"static": {"loud": {"fusion.C": 1}}},
        "static.loud: must change settings of one modality, visual or audio, was",
    ),
    "both": ({"variants": {"loud": {"fusion": 1, "fusion.C": 2}}}, "fusion is 1 already, and can't hold C"),
}


@pytest.mark.parametrize("kind", TOGETHER)
def test_settings_that_are_wrong_together(kind):
    changes, message = TOGETHER[kind]
    with pytest.raises(SettingsError) as caught:
        read_settings(None, changes)
    assert message in str(caught.value) and len(caught.value.problems) == 1


def test_what_people_use_is_allowed():
    """The paper's scale, a GPU's batches, a hundred thousand clips, a small trial."""
    paper = {
        "modalities.visual.frames": 40,
        "modalities.visual.size": 299,
        "modalities.visual.weights.source": "imagenet",
    }
    paper |= {
        "modalities.visual.weights.size": 299,
        "modalities.visual.device": "cuda",
        "modalities.visual.batch_size": 256,
    }
    large = {
        "modalities.text.weights.dim": 300,
        "corpus.clips": 100_000,
        "temporal.units": 512,
        "fusion.C": 100,
        "fusion.n_trees": 2000,
    }
    assert read_settings(None, paper | large).modalities["text"].weights.dim == 300
    assert read_settings(merged(Settings().model_dump(), SMALL)).corpus.clips == 60
    assert read_settings(None, {"split.seed": 1, "corpus.clips": 10, "corpus.videos": 3}).split.seed == 1


@pytest.mark.parametrize("text", ["fusion.C=NaN", "fusion=1", "fusion.C.x=1", "=1", "a..b=1", "fusion.C=" + "9" * 9000])
def test_changes_of_the_command_line(text):
    with pytest.raises(SettingsError):
        read_settings(None, dict([parse_change(text)]))


def test_what_was_read_once_is_nobody_elses(tmp_path):
    """The same text is parsed once; changing what came of it changes nothing for whoever reads it next."""
    (path := tmp_path / "s.yaml").write_text("fusion: {C: 0.8}")
    read_values(path)["fusion"]["C"] = 2
    assert read_values(path) == {"fusion": {"C": 0.8}}
    path.write_text("fusion: {C: 0.7}")
    assert read_values(path) == {"fusion": {"C": 0.7}}
