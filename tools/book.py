"""The book, a website that needs no network:  python tools/book.py [--open]

Puts notebooks, executed stages, results and pages about the library together in build/book-src, and lets Sphinx make
build/book of them; a warning is an error. Chapters of the experiment as it ran come from reports/, which `make repro`
writes: where they are missing, the book says so.
"""

import ast
import importlib
import itertools
import json
import os
import re
import sys
import webbrowser
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import reference
import yaml

ROOT = Path(__file__).resolve().parents[1]
REPORTS = {"dvc.yaml": ROOT / "reports", "audit/dvc.yaml": ROOT / "audit" / "reports"}  # graph → executed stages
PARTS = {  # folder → title, and what the part is about
    "1_paper": ("The paper", "What the paper prints, as data, and what it leaves open."),
    "2_method": (
        "The method",
        "§III: static features, temporal features, ranking, powerset, elimination, Algorithm 1.",
    ),
    "3_data": (
        "The data",
        "From a table of clips to labels, splits, frames and sound; and the corpus that is simulated.",
    ),
    "4_experiment": ("The experiment", "§IV: metrics, rows, tables and figures; each step; the run with its results."),
    "5_doubt": (
        "Doubt",
        "The printed numbers examined, many seeds, what each choice is worth, data that nobody here made.",
    ),
    "6_use": ("Use it", "Your own clips: weights, training, models that travel, the commands."),
    "7_ground": ("Ground", "Files and seeds, every setting with its range, devices."),
}
SECTIONS = {  # heading in README → page, and what it is about
    "Run it": ("readme/run.md", "What each command does, and how long it takes."),
    "Use it": ("readme/use.md", "From an installation to a prediction on a clip of your own."),
    "Cite it": ("readme/cite.md", "This software, and the paper."),
}
NAMES = {"table1": "Table I", "table2": "Table II", "figure1": "Figure 1", "figure2": "Figure 2"}
NAMES |= {"table2_seeds": "Table II over seeds", "tuning_table": "Tuning, in a table"}
LEADS = {  # pages that no stage is named after
    "table2_seeds": "Table II over several splits and seeds.",
    "verdicts": "Each claim, what the paper printed, what we measured, and what that means.",
    "costs": "Parameters, epochs, seconds and runs behind each row.",
    "bench": "Ratios, seconds and memory, as far as `make bench` has measured them.",
}
TEXTS = {
    "CONTRIBUTING.md": "Where a new modality, extractor, metric, row or stage goes.",
    "CHANGELOG.md": "What moved between versions.",
}
FIGURES = {  # pictures of the main run → what they show
    "figure1": "Figure 1: the framework, as it ran",
    "figure2": "Figure 2: F1 per concept, by fusion model",
    "path": "The elimination path",
    "curves": "Training curves",
}
FOLDED = ["hide-input"]
MANY = 9  # stages that run more often than this show their first run alone
WIDE = 6  # columns of a table; wider ones are split where their headings say how, and scroll otherwise
SAID = re.compile(r"\*\*The paper says\*\* *(\([^)]*\))?:? *")
FORMULA = re.compile(r"^(> \*\*The paper says\*\* *\([^)]*\):?)\n\n(\$\$[^$]+\$\$)(\n\n(?=> \"))?", re.MULTILINE)
CODE = r"```.*?```|`[^`\n]*`"
LINK = re.compile(rf"({CODE})|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s:]+)(#[^)\s]*)?\)", re.DOTALL)


class Page(NamedTuple):
    """A page of the book."""

    origin: Path  # a file of the project: links are relative to it
    content: Any  # a notebook, or Markdown


def title_of(stage: str, *variant: str) -> str:
    """A stage, or a page of results, as a heading."""
    name = NAMES.get(stage, stage.replace("_", " ").capitalize())
    return f"{name}: {', '.join(variant)}" if variant else name


def callouts(text: str) -> str:
    """Quotations of the paper, with their formulas, and what we chose, as boxes that look different."""
    text = FORMULA.sub(lambda m: f"{m[1]}\n>\n> {m[2]}" + ("\n>\n" if m[3] else ""), text)
    blocks = re.split(r"((?:^>.*\n?)+)", text, flags=re.MULTILINE)
    for i, block in enumerate(blocks):
        inner = re.sub(r"^> ?", "", block, flags=re.MULTILINE).strip("\n")
        if not block.startswith(">"):
            continue
        if said := SAID.match(inner):
            title, kind, inner = f"The paper says {said[1] or ''}".strip(), "paper-says", inner[said.end() :]
        elif inner.startswith("**We chose**"):
            title, kind, inner = "Our choice", "we-chose", inner.replace("**We chose**", "We chose", 1)
        else:
            continue
        blocks[i] = f":::{{admonition}} {title}\n:class: {kind}\n\n{inner}\n:::\n"
    return "".join(blocks)


def only_imports(cell: reference.Cell) -> bool:
    """Whether a cell is there for its imports."""
    body = cell.tree.body if cell.tree else []
    count = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in body)
    return bool(body) and isinstance(body[0], ast.Import | ast.ImportFrom) and 2 * count >= len(body)


def markdown_cell(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def links_to_library(cell: reference.Cell, module: str, public: set[str]) -> str:
    """Links from a definition to its page, and the place that the page links to."""
    names = [name for name in reference.defined(cell) if name in public]
    places = [(name, *(reference.label(kind, module, name) for kind in ("def", "api"))) for name in names]
    return "\n\n".join(f"({here})=\n{{.api}}\n[`{name}`](#{there})" for name, here, there in places)


def chapter(path: Path, module: str = "", title: str = "") -> Page:
    """A notebook as it is read: without directives, imports folded, definitions linked to their pages."""
    notebook, cells, public = json.loads(path.read_text(encoding="utf-8")), list[dict](), set[str]()
    if module:
        public = {name for name, _ in reference.docs.public(importlib.import_module(f"mmdisaster.{module}"))}
    for raw in notebook["cells"]:
        if raw["cell_type"] == "markdown":
            cells.append(markdown_cell(callouts("".join(raw["source"]))))
            continue
        cell = reference.code_cell(raw)
        if not cell.source:
            continue
        if links := links_to_library(cell, module, public):
            cells.append(markdown_cell(links))
        if only_imports(cell) and cells[-1]["metadata"].get("tags") == FOLDED:
            cells[-1]["source"] += f"\n\n{cell.source}"  # what the module imports, and what its lessons import
        else:
            cells.append(raw | {"source": cell.source, "metadata": {"tags": FOLDED} if only_imports(cell) else {}})
    if title:
        cells[0]["source"] = re.sub(r"^# .*", f"# {title}", cells[0]["source"])
    if module:
        head, lead, rest = re.match(r"(# .*)\n+(> .*)\n*((?:.|\n)*)", cells[0]["source"]).groups()
        where = f"Module `mmdisaster.{module}` · [its page in the library](/docs/{module.replace('.', '/')}.md)"
        cells[0]["source"] = f"{head}\n\n{lead}\n\n{{.where}}\n{where}\n\n{rest}"
    cells = [cell | {"id": f"cell-{number}"} for number, cell in enumerate(cells)]
    return Page(path, notebook | {"cells": cells, "nbformat_minor": 5})


def split_wide(text: str) -> str:
    """Tables whose headings read "Micro F1: paper" as one table per metric, if they are wide."""

    def parts(match: re.Match) -> str:
        rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in match[0].strip().splitlines()]
        heads = [cell.strip() for cell in rows[0]]
        keys = list(itertools.takewhile(lambda i: ": " not in heads[i], range(len(heads))))
        if len(heads) <= WIDE or not keys or len(keys) == len(heads):
            return match[0]
        groups: dict[str, list[int]] = {}
        for i in range(len(keys), len(heads)):
            groups.setdefault(heads[i].split(": ")[0], []).append(i)
        tables = [
            "\n".join(f"|{'|'.join(row[i] for i in [*keys, *columns])}|" for row in rows) for columns in groups.values()
        ]
        return "\n\n".join(tables) + "\n"

    return re.sub(r"(?:^\|.*\n)+", parts, text, flags=re.MULTILINE)


def lead_of(stage: str) -> str:
    """What a stage, or a page that it makes, is about: in its notebook's words."""
    path = ROOT / "nbs" / "stages" / f"{stage}.ipynb"
    if stage in LEADS or not path.exists():
        return LEADS.get(stage, "Of the last run.")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"][:2]
    return re.search(r"^> (.*)", "\n".join("".join(cell["source"]) for cell in cells), re.MULTILINE)[1]


def with_lead(text: str, title: str, lead: str) -> str:
    """Markdown with a heading and a sentence under it, where it has none."""
    head, _, rest = text.partition("\n\n") if text.startswith("# ") else (f"# {title}", "", text)
    return text if re.search(r"^> ", rest, re.MULTILINE) else f"{head}\n\n> {lead}\n\n{rest}"


def result_page(path: Path) -> Page:
    """A page of results, with a heading, and the picture of its name where it doesn't show it."""
    text = split_wide(path.read_text(encoding="utf-8"))
    text = with_lead(text, title_of(path.stem), lead_of(path.stem))
    if "\n## " not in text:
        text = text.replace("\n### ", "\n## ")
    if path.with_suffix(".png").exists() and f"{path.stem}.png" not in text:
        text += f"\n![{title_of(path.stem)}]({path.stem}.png)\n"
    return Page(path, text)


def stages(file: str, verb: str) -> tuple[dict[str, Page], str, list[str]]:
    """Executed stages of a graph: their pages, a page that lists them all, and names for its table of contents."""
    pages, entries, names = {}, [], []
    for stage, spec in yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["stages"].items():
        variants = list(itertools.product(*(map(str, found) for found in spec.get("matrix", {}).values())))
        there = [(v, path) for v in variants if (path := REPORTS[file] / f"{'-'.join([stage, *v])}.ipynb").exists()]
        shown = there if len(there) <= MANY else there[:1]
        for variant, path in shown:
            pages[f"reports/{path.name}"] = made = chapter(path, title=title_of(stage, *variant))
            for cell in made.content["cells"]:  # the launcher's links start from where the report lies
                if cell["cell_type"] == "markdown":
                    cell["source"] = re.sub(r"\]\((?:\.\./)+(?:nbs/)?", "](/nbs/", cell["source"])
            names.append(f"reports/{path.name}")
        links = [f"[{', '.join(v) or title_of(stage)}]({path.name})" for v, path in shown]
        about = lead_of(stage)
        if not there:
            entries.append(f"{title_of(stage)}\n: {about} *Not in this book: `{verb}` has not run here.*\n")
        elif variants == [()]:
            entries.append(f"[{title_of(stage)}]({there[0][1].name})\n: {about}\n")
        else:
            more = "" if len(shown) == len(there) else f"; {len(there) - 1} more like it in `reports/`"
            entries.append(f"{title_of(stage)}\n: {about} Runs: {' · '.join(links)}{more}.\n")
    return pages, "\n".join(entries), names


def overview(title: str, about: str, body: str, names: list[str]) -> str:
    """A page that leads to others: what it shows of them, and their order for the sidebar."""
    tree = reference.tree([f"/{name.removesuffix('.md').removesuffix('.ipynb')}" for name in names])
    return "\n".join([f"# {title}", "", f"> {about}", "", body, "", *tree])


def first_words(page: Page) -> tuple[str, str]:
    """Title and sentence of a page."""
    text = page.content if isinstance(page.content, str) else "".join(page.content["cells"][0]["source"])
    if not isinstance(page.content, str) and "\n>" not in text:
        text += "\n" + "".join(page.content["cells"][1]["source"])
    lead = re.search(r"^> (.*)", text, re.MULTILINE)
    return re.search(r"^# (.*)", text, re.MULTILINE)[1], lead[1] if lead else ""


def listing(pages: dict[str, Page], names: list[str]) -> str:
    """Pages with their sentences."""
    words = {name: first_words(pages[name]) for name in names}
    return "\n".join(f"[{title}](/{name})\n: {lead or '—'}\n" for name, (title, lead) in words.items())


def readme_sections() -> dict[str, str]:
    """Heading in README → what stands under it; "" → what stands above the first."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.partition("<!-- results")[0] + text.partition("<!-- end of results -->")[2]
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {"": parts[0].split("\n", 1)[1]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def collect() -> dict[str, Page]:
    """All pages: name below the book's source → page."""
    modules = {path: name for name, path in reference.docs.notebooks().items()}
    pages = {"nbs/index.ipynb": chapter(ROOT / "nbs" / "index.ipynb")}
    for path in sorted((ROOT / "nbs").glob("[0-9]*/**/*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            pages[path.relative_to(ROOT).as_posix()] = chapter(path, modules.get(path, ""))
    for path in sorted((ROOT / "results").glob("*.md")):
        pages[path.relative_to(ROOT).as_posix()] = result_page(path)
    for name, text in reference.pages():
        pages[f"docs/{name}"] = Page(ROOT / "docs" / name, text)
    sections = readme_sections()
    for heading, (name, lead) in SECTIONS.items():
        pages[name] = Page(ROOT / "README.md", with_lead(sections[heading].lstrip(), heading, lead))
    for name, lead in TEXTS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        pages[name] = Page(ROOT / name, with_lead(text, name, lead))
    figures = "\n".join(f"## {words}\n\n![{words}]({name}.png)\n" for name, words in FIGURES.items())
    pages["results/figures.md"] = Page(ROOT / "results" / "x", f"# Figures\n\n> What the last run drew.\n\n{figures}")
    add_runs(pages)
    add_parts(pages)
    pages["index.md"] = front(pages, sections[""])
    return pages


def add_runs(pages: dict[str, Page]) -> None:
    """Executed stages, and a page for each graph that lists them."""
    graphs = {
        "main": ("dvc.yaml", "make repro", "The run", "One notebook per stage, as it was executed, in order."),
        "audit": ("audit/dvc.yaml", "make audit", "The audit's run", "The same for what `make audit` runs."),
    }
    for name, (file, verb, title, about) in graphs.items():
        made, listed, names = stages(file, verb)
        pages |= made
        pages[f"runs/{name}.md"] = Page(ROOT / "reports" / "x", overview(title, about, listed, names))


def groups_of(part: str, chapters: list[str], pages: dict[str, Page]) -> dict[str, list[str]]:
    """Heading → names of pages, for one part."""
    groups = {"": ["readme/use.md", *chapters] if part == "6_use" else chapters}
    of_run = [f"results/{name}.md" for name in ("table1", "table2", "figures")]
    if part == "3_data":
        groups["The simulated corpus"] = [name for name in pages if name.startswith(f"nbs/{part}/simulated/")]
    if part == "4_experiment":
        groups["What came out"] = [*of_run, "runs/main.md"]
    if part == "5_doubt":
        others = [name for name in pages if name.startswith("results/") and name not in of_run]
        groups["What came out"] = [*sorted(others, key=lambda name: name != "results/report.md"), "runs/audit.md"]
    return groups


def add_parts(pages: dict[str, Page]) -> None:
    """A page for each part, which lists its chapters; notebooks numbered 90 and up are the appendix."""
    appendix = []
    for part, (title, about) in PARTS.items():
        inside = [name for name in pages if re.fullmatch(rf"nbs/{part}/[^/]+\.ipynb", name)]
        late = [name for name in inside if re.match(r"9\d_", Path(name).name)]
        appendix += late
        groups = groups_of(part, [name for name in inside if name not in late], pages)
        parts = [
            f"## {head}\n\n{listing(pages, names)}" if head else listing(pages, names) for head, names in groups.items()
        ]
        text = overview(title, about, "\n".join(parts), [name for names in groups.values() for name in names])
        pages[f"nbs/{part}/index.md"] = Page(ROOT / "nbs" / part / "x", text)
    appendix += [*TEXTS, "readme/cite.md"]
    about = "Validators, notations and formats; and what changed between versions."
    pages["appendix.md"] = Page(ROOT / "x", overview("Appendix", about, listing(pages, appendix), appendix))


def front(pages: dict[str, Page], opening: str) -> Page:
    """The first page: what this is, the parts, the verdict."""
    parts = {f"nbs/{part}/index": words for part, words in PARTS.items()}
    parts |= {"appendix": first_words(pages["appendix.md"]), "docs/index": first_words(pages["docs/index.md"])}
    lines = [f"[{title}]({name}.md)\n: {about}\n" for name, (title, about) in parts.items()]
    starts = {"One clip, from file to decision": "nbs/index.ipynb", "Run it": "readme/run.md"}
    starts |= {"Does the claim hold?": "results/report.md"}
    buttons = " ".join(f"[{words}]({name}){{.start}}" for words, name in starts.items())
    tree = reference.tree(["Start <nbs/index>", "readme/run", *parts])
    verdicts = (ROOT / "results" / "verdicts.md").read_text(encoding="utf-8")
    body = [
        "# mmdisaster",
        opening,
        buttons,
        "",
        "## Parts",
        "",
        *lines,
        "## Does the claim hold?",
        "",
        verdicts,
        "",
        *tree,
    ]
    return Page(ROOT / "x", "\n".join(body))


def found_page(target: str, origin: Path, pages: dict[str, Page], files: set[Path]) -> str:
    """What a link leads to, below the book's source: a page, or a file, which then travels with it; or empty."""
    place = os.path.relpath(ROOT / target[1:] if target.startswith("/") else origin.parent / target, ROOT)
    place = {"docs/README.md": "docs/index.md", "README.md": "index.md", ".": "index.md"}.get(place, place)
    place = re.sub(r"^(nbs/stages|audit/reports)/(?=.*\.ipynb$)", "reports/", place)
    for option in (place, f"{place}/index.md"):
        if option in pages:
            return option
    if (ROOT / place).is_file():
        files.add(ROOT / place)
        return place
    return ""


def fix_links(text: str, name: str, origin: Path, pages: dict[str, Page], files: set[Path]) -> str:
    """Links that lead to a page of the book, or to a file that travels with it; others become words."""

    def fixed(match: re.Match) -> str:
        code, mark, words, target, place = match.groups("")
        if code:
            return code
        found = found_page(target, origin, pages, files)
        return f"{mark}[{words}]({os.path.relpath(found, Path(name).parent)}{place})" if found else words

    return LINK.sub(fixed, text)


def write(path: Path, data: bytes) -> None:
    """Write what changed, so that Sphinx reads no more than that again."""
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def gather(source: Path) -> None:
    """Write the book's source."""
    pages, files, kept = collect(), set[Path](), set[Path]()
    for name, page in pages.items():
        if isinstance(page.content, str):
            text = fix_links(page.content, name, page.origin, pages, files)
        else:
            shown = ROOT / "results" / "x" if name.startswith("reports/") else page.origin  # what stages show
            for cell in page.content["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = fix_links(cell["source"], name, page.origin, pages, files)
                for data in (output.get("data", {}) for output in cell.get("outputs", [])):
                    if "text/markdown" in data:
                        data["text/markdown"] = fix_links("".join(data["text/markdown"]), name, shown, pages, files)
            text = json.dumps(page.content, ensure_ascii=False)
        write(source / name, text.encode("utf-8"))
        kept.add(source / name)
    mathjax = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax")
    copied = {path: source / path.relative_to(ROOT) for path in files}
    copied |= {
        ROOT / "book" / "conf.py": source / "conf.py",
        ROOT / "book" / "book.css": source / "_static" / "book.css",
    }
    copied |= {Path(str(mathjax)) / "tex-svg-full.js": source / "_static" / "mathjax.js"}
    for path, target in copied.items():
        write(target, path.read_bytes())
        kept.add(target)
    for path in source.glob("**/*"):
        if path.is_file() and path not in kept:
            path.unlink()


def build(folder: Path) -> int:
    """Build the book in `folder`/book, from `folder`/book-src; returns Sphinx's exit status."""
    from sphinx.cmd.build import build_main

    gather(folder / "book-src")
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(folder / "book-doctrees")]
    return build_main([*options, str(folder / "book-src"), str(folder / "book")])


def main(arguments: list[str]) -> int:
    if not any(REPORTS["dvc.yaml"].glob("*.ipynb")):
        print("no executed stages in reports/: the book names those that are missing (`make repro` makes them)")
    folder = ROOT / "build"
    status = build(folder)
    if not status:
        print("build/book/index.html")
    if not status and "--open" in arguments:
        webbrowser.open((folder / "book" / "index.html").as_uri())
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
