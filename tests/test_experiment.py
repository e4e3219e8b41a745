"""The audit's variants are the register's."""

import re

import pytest
import yaml
from conftest import ROOT

from mmdisaster.audit.register import REGISTER
from mmdisaster.study.trials import ABLATIONS, rows_reached

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
AUDIT = yaml.safe_load((ROOT / "audit" / "dvc.yaml").read_text())["stages"]
VARIED = PARAMS["variants"] | PARAMS["static"]


def value_of(name, params=PARAMS):
    for step in name.split("."):
        params = params[step]
    return params


def test_every_variant_is_a_stage():
    for stage in ["variants", "static"]:
        assert AUDIT[stage]["matrix"]["variant"] == list(PARAMS[stage])


@pytest.mark.parametrize("name", VARIED)
def test_a_variant_changes_what_there_is_to_something_else(name):
    for param, value in VARIED[name].items():
        assert value_of(param) != value and type(value_of(param)) in (type(value), int, str)
    assert rows_reached(VARIED[name])


@pytest.mark.parametrize("gap", REGISTER, ids=lambda gap: gap.param)
def test_every_entry_of_the_register_is_varied(gap):
    """By a variant whose value is one of its readings; or by judging, splitting or scoring the same trials anew."""
    found = [changes[gap.param] for name, changes in VARIED.items() if gap.param in changes and name not in ABLATIONS]
    if gap.param.split(".")[0] not in ("split", "evaluate", "grid"):
        assert found and all(value in gap.readings for value in found)


def test_ablations_are_variants_with_words():
    assert set(ABLATIONS) <= set(PARAMS["variants"])
    entries = {gap.param for gap in REGISTER}
    for name, changes in PARAMS["variants"].items():
        chosen = {param for param in changes if not param.endswith(".sha256")}  # a file's digest goes with its name
        assert (name in ABLATIONS) or (len(chosen) == 1 and chosen <= entries), name


def test_the_trials_of_the_stages_are_the_seeds_that_are_compared():
    assert AUDIT["trials"]["matrix"]["seed"] == PARAMS["comparison"]["seeds"] == PARAMS["leakage"]["seeds"]
    assert set(PARAMS["sensitivity"]["seeds"]) <= set(PARAMS["comparison"]["seeds"])
    assert AUDIT["tuning"]["matrix"]["seed"] == PARAMS["tuning"]["seeds"]
    assert [dep for dep in AUDIT["tuning_table"]["deps"] if dep.startswith("data/tuning/")] == [
        f"data/tuning/{seed}.json" for seed in PARAMS["tuning"]["seeds"]
    ]
    of = {"variants": "sensitivity", "static": "sensitivity", "sensitivity": "sensitivity", "comparison": "comparison"}
    of |= {"missing": "missing", "grid": "grid"}
    for stage, section in of.items():
        seeds = [int(seed) for dep in AUDIT[stage]["deps"] for seed in re.findall(r"data/trials/clip-(\d+)", dep)]
        assert seeds == PARAMS[section]["seeds"], stage
