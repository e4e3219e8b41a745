"""What a visitor of the repository, and a citation tool, find."""

import json
import re
import tomllib

import pytest
import yaml
from conftest import ROOT
from jsonschema import Draft7Validator

from mmdisaster import __version__

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
ZENODO = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_file_is_one():
    """By the schema of the Citation File Format 1.2.0, which its authors publish under CC BY 4.0."""
    schema = json.loads((ROOT / "tests/schemas/citation-file-format-1.2.0.json").read_text(encoding="utf-8"))
    assert [error.message for error in Draft7Validator(schema).iter_errors(CITATION)] == []


def test_all_files_name_the_same_thing():
    assert CITATION["version"] == ZENODO["version"] == __version__
    assert CITATION["title"] == ZENODO["title"] and CITATION["keywords"] == ZENODO["keywords"]
    assert CITATION["license"] == ZENODO["license"] == PROJECT["license"]
    assert [author["name"] for author in PROJECT["authors"]] == [author["name"] for author in CITATION["authors"]]
    (paper,) = CITATION["references"]
    entry = (ROOT / "README.md").read_text(encoding="utf-8").partition("@misc")[2]
    assert paper["title"] in entry and all(author["family-names"] in entry for author in paper["authors"])


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []
