"""The book is built without warnings, asks for nothing that isn't there, and can be searched."""

import html
import json
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import stage as launcher
from conftest import ROOT

pytest.importorskip("sphinx", reason="requirements-book.txt isn't installed; `make test` and `make book` install it")

import book  # noqa: E402
import docs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Check CHANGES for Sphinx API modifications")
EXECUTED = {"corpus": "corpus", "table2": "table2", "baseline": "baseline-visual"}  # stage → a run of it


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The whole book, with three stages as if they had run."""
    folder = tmp_path_factory.mktemp("book")
    for stage, run in EXECUTED.items():
        (folder / "reports").mkdir(exist_ok=True)
        report = launcher.normalise(nbformat.read(ROOT / "nbs" / "stages" / f"{stage}.ipynb", as_version=4))
        nbformat.write(report, folder / "reports" / f"{run}.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "REPORTS", {"dvc.yaml": folder / "reports", "audit/dvc.yaml": folder / "none"})
        assert book.build(folder) == 0
    return folder / "book"


@pytest.fixture(scope="module")
def pages(built):
    """Address below the book's folder → its HTML."""
    found = {path.relative_to(built).as_posix(): path.read_text(encoding="utf-8") for path in built.glob("**/*.html")}
    return {name: text for name, text in found.items() if not name.startswith("_")}


def words(page):
    """What a reader sees of a page besides code."""
    shown = re.sub(r"<(script|style|pre|code)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", shown))


def test_each_notebook_module_and_result_has_a_page(pages):
    notebooks = [path for path in (ROOT / "nbs").glob("**/*.ipynb") if path.parent.name != "stages"]
    wanted = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in notebooks]
    wanted += [f"results/{path.stem}.html" for path in (ROOT / "results").glob("*.md")]
    wanted += [f"docs/{name.replace('.', '/')}.html" for name in docs.notebooks()]
    assert len(wanted) > 200 and not [name for name in wanted if name not in pages]


def test_nothing_comes_from_the_network(built, pages):
    """Scripts, styles, pictures and fonts lie in the book's folder."""
    loaded = re.compile(
        r"<(?:script|img|iframe|source|audio|video)\b[^>]*?\bsrc=\"([^\"]+)\"|<link\b[^>]*?\bhref=\"([^\"]+)\""
    )
    count = Counter()
    for name, page in pages.items():
        for source, link in loaded.findall(page):
            address = html.unescape(source or link).split("?")[0].split("#")[0]
            assert not re.match(r"(\w+:)?//", address), f"{name} loads {address}"
            if not address.startswith("data:"):
                assert (built / name).parent.joinpath(address).exists(), f"{name} loads {address}, which isn't there"
            count[Path(address).name] += 1
    assert count["mathjax.js"] > 20 and count["book.css"] == len(pages)
    for path in built.glob("**/*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path.name


def test_links_lead_somewhere(built, pages):
    places = {name: set(re.findall(r"\bid=\"([^\"]+)\"", page)) for name, page in pages.items()}
    count = 0
    for name, page in pages.items():
        for address in map(html.unescape, re.findall(r"<a\b[^>]*?\bhref=\"([^\"]+)\"", page)):
            if re.match(r"\w+:", address):
                continue
            file, _, place = address.partition("#")
            target = (built / name).parent.joinpath(file).resolve() if file else (built / name).resolve()
            assert target.is_file(), f"{name} leads to {address}"
            known = places.get(target.relative_to(built.resolve()).as_posix())
            assert not place or known is None or place in known, f"{name} leads to {address}"
            count += 1
    assert count > 10_000


def test_equations_are_set_and_directives_are_gone(pages):
    for name, page in pages.items():
        assert "$$" not in words(page), name
        assert not re.search(
            r"#\|\s*(export|default_exp|slow|notest|hide)\b", html.unescape(re.sub("<[^>]+>", "", page))
        ), name
    assert 'class="math' in pages["nbs/2_method/15_powerset.html"]


def test_a_chapter_shows_what_the_paper_says_what_we_chose_and_where_the_library_is(pages):
    page = pages["nbs/2_method/16_elimination.html"]
    assert re.search(r'class="paper-says admonition".*?13: for r_k.*?22: return S', page, re.DOTALL)
    assert re.search(r'class="we-chose admonition".*?Our choice.*?We chose to build both', page, re.DOTALL)
    assert "paper-says" in pages["nbs/2_method/14_ranking.html"]
    assert page.count("<details") == 1 and "Imports" in page, "imports are folded, in one place"
    there = re.search(r'href="([^"]+)"[^>]*>\s*(?:<span[^>]*>)?<code[^>]*><span class="pre">walk<', page)[1]
    assert there == "../../docs/fusion/elimination.html#api-fusion-elimination-walk"
    library = html.unescape(pages["docs/fusion/elimination.html"])
    assert library.index("<h2>RecursiveElimination<") < library.index("<h2>apply_stop<"), "entry points come first"
    assert "nbs/2_method/16_elimination.html#def-fusion-elimination-walk" in library
    plain = re.sub(r"<[^>]+>", "", library)
    assert "str | Scorer" in plain and "assert apply_stop(scores" in plain


def test_executed_stages_have_titles_and_links_and_missing_ones_are_named(pages):
    page = pages["reports/baseline-visual.html"]
    assert "<h1>Baseline: visual" in page and "../nbs/4_experiment/03_baselines.html" in page
    assert "<h1>Table II" in pages["reports/table2.html"]
    listed = words(pages["runs/main.html"])
    assert "Fusion" in listed and "has not run here" in listed
    assert "Comparison" in words(pages["runs/audit.html"])


def test_wide_tables_are_split(pages):
    heads = re.findall(r"<thead>.*?</thead>", pages["results/table2.html"], re.DOTALL)
    written = (ROOT / "results" / "table2.md").read_text(encoding="utf-8").count("\n| ---")
    assert len(heads) > written and max(head.count("<th ") for head in heads) <= book.WIDE


def test_search_finds_a_word_of_a_chapter(built):
    text = (built / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"]["plateau"]
    numbers = found if isinstance(found, list) else [found]
    assert "nbs/2_method/16_elimination" in {index["docnames"][number] for number in numbers}
