"""Pages of the book about the library: signatures, what parameters mean, an example, the way to the source.

`tools/book.py` writes them; `docs/`, which is read without a build, has the same meanings in plain Markdown.
"""

import ast
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import docs
from mmdisaster.settings.sections import Section

# Where most readers start, in this order.
ENTRIES = [
    "model.training.train",
    "model.folder.load_model",
    "model.prediction.Model",
    "data.clips.Clip",
    "fusion.algorithm1.Algorithm1",
    "fusion.elimination.RecursiveElimination",
    "fusion.ranking.GiniRanking",
    "fusion.powerset.WeightedPowersetSVC",
    "temporal.classifiers.TemporalClassifier",
    "evaluation.metrics.score_row",
    "data.inspection.inspect_corpus",
    "settings.reading.read_settings",
    "study.trials.run_trial",
    "model.demo.write_demo",
]
LONGEST = 14  # lines of an example that is shown here; longer ones are read in their chapter


class Cell(NamedTuple):
    """A code cell of a component notebook."""

    source: str
    exported: bool
    tree: ast.Module | None  # None: not Python alone


def parsed(source: str) -> ast.Module | None:
    """Code as a tree, where it is Python alone."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def code_cell(raw: dict) -> Cell:
    """A code cell of a notebook, without directives."""
    source = "".join(raw["source"])
    bare = re.sub(r"^#\|.*\n?", "", source, flags=re.MULTILINE).strip()
    return Cell(bare, bool(re.match(r"#\|\s*export", source)), parsed(bare))


def code_cells(path: Path) -> list[Cell]:
    """Code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [code_cell(cell) for cell in cells if cell["cell_type"] == "code"]


def defined(cell: Cell) -> list[str]:
    """Functions and classes at the top of a cell."""
    body = cell.tree.body if cell.tree and cell.exported else []
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def example(cells: list[Cell], name: str) -> str:
    """The first cell after a definition that uses it and is short; empty where there is none."""
    after = next((i for i, cell in enumerate(cells) if name in defined(cell)), len(cells))
    for cell in cells[after + 1 :]:
        used = {node.id for node in ast.walk(cell.tree) if isinstance(node, ast.Name)} if cell.tree else set()
        if name in used and not cell.exported and cell.source.count("\n") < LONGEST:
            return cell.source
    return ""


@cache
def definitions(module: str) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and methods of a module, as they are written: qualified name → definition."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    inner = [(kind, node) for kind in found.values() for node in kind.body if isinstance(node, ast.FunctionDef)]
    return found | {f"{kind.name}.{node.name}": node for kind, node in inner}


def written(symbol: Any) -> dict[str, str]:
    """Annotations as they stand in the source, which is shorter than what they mean: name → type; "return" too."""
    parts, found = [inspect.unwrap(symbol)], {}
    if inspect.isclass(symbol):
        parts = [base for base in reversed(symbol.__mro__) if base.__module__.startswith("mmdisaster")]
    for part in parts:
        known = definitions(part.__module__)
        node = known[part.__qualname__]
        if isinstance(node, ast.ClassDef):
            lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            found |= {ast.unparse(line.target): ast.unparse(line.annotation) for line in lines}
            node = known.get(f"{part.__qualname__}.__init__")
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            found |= {arg.arg: ast.unparse(arg.annotation) for arg in arguments if arg.annotation}
            found |= {"return": ast.unparse(node.returns)} if node.returns else {}
    return found


def shortened(default: str) -> str:
    """A default for a signature."""
    plain = default.strip("`").replace("\\|", "|")
    return plain if len(plain) <= 24 else "..."


def signature(title: str, rows: list[docs.Row]) -> list[str]:
    """A call with its defaults, as code."""
    parts = [row.name.strip("`") + (f"={shortened(row.default)}" if row.default else "") for row in rows]
    indent = " " * (len(title) + 1)
    line = textwrap.fill(f"{title}({', '.join(parts)})", 92, subsequent_indent=indent, break_long_words=False)
    return ["```python", line, "```", ""]


def listed(rows: list[docs.Row], types: dict[str, str], sources: list[str] | None = None) -> list[str]:
    """Parameters, one entry each: name, type, default; under it what it means."""
    lines = []
    for i, row in enumerate(rows):
        kind = types.get(row.name.strip("`")) or row.type.replace("\\|", "|")
        after = f" {kind}" if "`" in kind else f" `{kind}`{{.type}}" if kind else ""
        plain = row.default.strip("`").replace("\\|", "|")
        default = f" `= {plain}`{{.type}}" if plain else ""
        meaning = (row.meaning or "—").replace("\\|", "|")
        if sources is not None and sources[i]:
            meaning += f" *({sources[i]})*".replace("\\|", "|")
        lines += [f"{row.name}{after}{default}", f": {meaning}", ""]
    return lines


def described(title: str, symbol: Any) -> list[str]:
    """Signature, docstring, parameters and what comes back."""
    doc = inspect.getdoc(symbol) if symbol.__doc__ and not symbol.__doc__.startswith(f"{title}(") else ""
    text = [doc, ""] if doc else []
    if inspect.isclass(symbol) and issubclass(symbol, Section):
        rows, sources = docs.settings(symbol)
        return [*text, *listed(rows, {}, sources)]
    rows, types = docs.own_rows(symbol), written(symbol)
    lines = [*signature(title, rows), *text, *listed(rows, types)]
    if not inspect.isclass(symbol):
        returned = docs.docments(inspect.unwrap(symbol), full=True, returns=True).get("return") or {}
        words, kind = returned.get("docment"), types.get("return", "None")
        if words or kind != "None":
            lines += [f"**Returns** `{kind}`{{.type}}" + (f": {' '.join(words.split())}" if words else ""), ""]
    return lines


def label(kind: str, module: str, name: str) -> str:
    """Where a definition stands: kind "api" for its page here, "def" for its cell in a chapter."""
    return f"{kind}-{module}.{'class-' if name[0].isupper() else ''}{name}".lower()


def first_named(module: str, notebook: Path) -> list[tuple[str, Any]]:
    """What a module exports; first what the notebook's opening names, in its order."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"][:3]
    opening = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    named = re.findall(r"`(\w+)`", opening)
    found = list(docs.public(importlib.import_module(f"mmdisaster.{module}")))
    return sorted(found, key=lambda pair: named.index(pair[0]) if pair[0] in named else len(named))


def page(module: str, notebook: Path, up: str) -> str:
    """One module: its sentence, its chapter, then each exported name."""
    cells = code_cells(notebook)
    places = {name for cell in cells for name in defined(cell)}
    about, chapter = importlib.import_module(f"mmdisaster.{module}").__doc__, f"{up}{docs_path(notebook)}"
    lines = [f"# {module}", "", f"> {docs.escaped(about)}", ""]
    lines += ["{.where}", f"Module `mmdisaster.{module}` · [its chapter]({chapter})", ""]
    for title, symbol in first_named(module, notebook):
        way = ["{.api}", f"[source](#{label('def', module, title)})", ""] if title in places else []
        lines += [f"({label('api', module, title)})=", f"## {title}", "", *way, *described(title, symbol)]
        for name, method in docs.methods(symbol) if inspect.isclass(symbol) else ():
            if method.__doc__:
                lines += [f"### {title}.{name}", "", *described(f"{title}.{name}", method)]
        if shown := example(cells, title):
            lines += ["**Example**", "", "```python", shown, "```", ""]
    return "\n".join(lines)


def docs_path(path: Path) -> str:
    """A path below the project's root."""
    return path.relative_to(docs.ROOT).as_posix()


def rooms(modules: list[str]) -> dict[str, list[str]]:
    """Room → its modules, in reading order."""
    found: dict[str, list[str]] = {}
    for name in modules:
        found.setdefault(name.split(".")[0], []).append(name)
    return found


def entry_lines() -> Iterator[str]:
    """The entry points, each with its first sentence."""
    for place in ENTRIES:
        module, name = place.rsplit(".", 1)
        doc = inspect.getdoc(getattr(importlib.import_module(f"mmdisaster.{module}"), name)) or ""
        yield f"[`{name}`](#{label('api', module, name)})\n: {doc.splitlines()[0]} `mmdisaster.{module}`{{.type}}\n"


def tree(names: list[str]) -> list[str]:
    """A table of contents that shows in the sidebar alone."""
    return ["```{toctree}", ":hidden:", ":maxdepth: 1", "", *names, "```", ""]


def pages() -> Iterator[tuple[str, str]]:
    """Names of pages below docs/, and their text."""
    notebooks = docs.notebooks()
    grouped = rooms(list(notebooks))
    alone = {room: inside == [room] for room, inside in grouped.items()}
    for name, notebook in notebooks.items():
        yield f"{name.replace('.', '/')}.md", page(name, notebook, "../" * (name.count(".") + 1))
    for room, inside in grouped.items():
        if not alone[room]:
            about = docs.escaped(importlib.import_module(f"mmdisaster.{room}").__doc__)
            names = [name.split(".")[1] for name in inside]
            words = [docs.escaped(importlib.import_module(f"mmdisaster.{name}").__doc__) for name in inside]
            entries = [f"[{name}]({name}.md)\n: {sentence}\n" for name, sentence in zip(names, words, strict=True)]
            yield f"{room}/index.md", "\n".join([f"# {room}", "", f"> {about}", "", *entries, "", *tree(names)])
    listing = []
    for room in grouped:
        about = docs.escaped(importlib.import_module(f"mmdisaster.{room}").__doc__)
        listing.append(f"[{room}]({room if alone[room] else f'{room}/index'}.md)\n: {about}\n")
    names = [room if alone[room] else f"{room}/index" for room in grouped]
    opening = "> Every exported function and class, with what its parameters mean."
    yield (
        "index.md",
        "\n".join(
            [
                "# The library",
                "",
                opening,
                "",
                "## Entry points",
                "",
                *entry_lines(),
                "## Rooms",
                "",
                *listing,
                *tree(names),
            ]
        ),
    )
