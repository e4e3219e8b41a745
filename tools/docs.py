"""Write docs/, a page per module, from the comments beside parameters:  python tools/docs.py [--check | --missing]

With --check, change nothing and exit with status 1 where a page is stale. With --missing, list public parameters
without a meaning, and exit with status 1 where there are any.
"""

import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastcore.docments import docments

from mmdisaster.core import atomic_path
from mmdisaster.settings.reading import describe_schema
from mmdisaster.settings.sections import Section

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTHING = inspect.Parameter.empty
PREFIXES = re.compile(r"\b(typing|collections\.abc|pathlib\w*|numpy|mmdisaster)\.([a-z]\w*\.)*(?=[A-Za-z])")


class Row(NamedTuple):
    """A parameter, or a field, as a line of a table."""

    name: str
    type: str  # or what its value may be
    default: str
    meaning: str


def escaped(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(rows: list[Row], *extra: str, head: str = "parameter | type | default | meaning") -> list[str]:
    """Rows as a Markdown table; `extra` has one more cell for each."""
    if not rows:
        return []
    columns = head.split(" | ")
    body = [f"| {' | '.join([*row, *extra[i : i + 1]])} |" for i, row in enumerate(rows)]
    return [f"| {head} |", f"|{' --- |' * len(columns)}", *body, ""]


def type_name(annotation: Any) -> str:
    """An annotation as it is written."""
    if annotation in (NOTHING, None):
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return escaped(re.sub(PREFIXES, "", text))


def default_value(value: Any) -> str:
    """A default as it would be written; of a function its name, not its address."""
    if value is NOTHING or value is dataclasses.MISSING:
        return ""
    return f"`{escaped(value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value))}`"


def parameters(function: Any) -> list[Row]:
    """Parameters of a function; of a method without the object that it belongs to."""
    function = inspect.unwrap(function)
    comments = docments(function, full=True)
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if name not in ("self", "cls") and not name.startswith("_") and not several:
            meaning = escaped(comments.get(name, {}).get("docment") or "")
            rows.append(Row(f"`{name}`", type_name(parameter.annotation), default_value(parameter.default), meaning))
    return rows


def commented_fields(kind: type) -> dict[str, str]:
    """Annotated names at the top of a class, with the comments beside them."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines, node = source.splitlines(), ast.parse(source).body[0]
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
    return {
        part.target.id: escaped(lines[part.end_lineno - 1].encode()[part.end_col_offset :].decode().strip(" #"))
        for part in fields
    }


def fields(kind: type) -> list[Row]:
    """Fields of a dataclass or a named tuple."""
    comments = {}
    for base in reversed(kind.__mro__):
        ours = base.__module__.startswith("mmdisaster") and (dataclasses.is_dataclass(base) or hasattr(base, "_fields"))
        comments |= commented_fields(base) if ours else {}
    if dataclasses.is_dataclass(kind):
        found = [(field.name, field.type, field.default) for field in dataclasses.fields(kind) if field.init]
    else:
        found = [(name, kind.__annotations__[name], kind._field_defaults.get(name, NOTHING)) for name in kind._fields]
    rows = [(name, type_name(hint), default_value(default)) for name, hint, default in found if name[0] != "_"]
    return [Row(f"`{name}`", hint, default, comments.get(name, "")) for name, hint, default in rows]


def settings(section: type[Section]) -> tuple[list[Row], list[str]]:
    """Settings of a section: what each may be, its default, its meaning; and where it comes from."""
    schema, rows, sources = section.model_json_schema(), [], []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            rows.append(Row(f"`{name}`", f"section `{inner.__name__}`", "", escaped(inner.__doc__)))
            sources.append("")
            continue
        allowed = escaped(describe_schema(schema["properties"][name]))
        default = "see params.yaml" if isinstance(field.default, dict) else default_value(field.default)
        rows.append(Row(f"`{name}`", allowed, default, escaped(field.description or "")))
        sources.append(escaped(field.json_schema_extra["source"]))
    return rows, sources


def own_rows(symbol: Any) -> list[Row]:
    """Parameters or fields of a function or a class itself."""
    if not inspect.isclass(symbol):
        return parameters(symbol)
    if issubclass(symbol, Section):
        return settings(symbol)[0]
    if dataclasses.is_dataclass(symbol) or (issubclass(symbol, tuple) and hasattr(symbol, "_fields")):
        return fields(symbol)
    start = inspect.unwrap(symbol.__init__)
    return parameters(start) if getattr(start, "__module__", "").startswith("mmdisaster") else []


def methods(symbol: type) -> Iterator[tuple[str, Any]]:
    """The public methods that a class defines itself."""
    for name, method in vars(symbol).items():
        method = method.__func__ if isinstance(method, classmethod | staticmethod) else method
        ours = inspect.isfunction(method) and inspect.unwrap(method).__module__.startswith("mmdisaster")
        if ours and not name.startswith("_") and not issubclass(symbol, Section):
            yield name, method


def described(symbol: Any) -> list[str]:
    """Docstring, parameters and what comes back."""
    doc = inspect.getdoc(symbol) if symbol.__doc__ and not symbol.__doc__.startswith(f"{symbol.__name__}(") else ""
    lines = [doc, ""] if doc else []
    if inspect.isclass(symbol) and issubclass(symbol, Section):
        rows, sources = settings(symbol)
        return [*lines, *table(rows, *sources, head="setting | must be | default | meaning | source")]
    lines += table(own_rows(symbol))
    if not inspect.isclass(symbol):
        returned = docments(inspect.unwrap(symbol), full=True, returns=True).get("return") or {}
        kind, words = type_name(returned.get("anno", NOTHING)), returned.get("docment")
        if words or kind not in ("", "None"):
            lines += [f"Returns `{kind}`" + (f": {escaped(words)}" if words else ""), ""]
    return lines


def public(module: Any) -> Iterator[tuple[str, Any]]:
    """Exported functions and classes. Data and types are shown by the notebook."""
    for name in module.__all__:
        symbol = getattr(module, name)
        if inspect.isfunction(symbol) or (inspect.isclass(symbol) and symbol.__module__ == module.__name__):
            yield name, symbol


def notebooks() -> dict[str, Path]:
    """Module, such as fusion.ranking → the notebook that it is exported from, in reading order."""
    found = {}
    for path in sorted((ROOT / "nbs").glob("**/*.ipynb")):
        text = json.loads(path.read_text(encoding="utf-8"))["cells"]
        names = [re.match(r"#\|\s*default_exp\s+(\S+)", "".join(cell["source"])) for cell in text]
        found |= {match[1]: path for match in names if match}
    return found


def page(name: str, notebook: Path) -> str:
    """One module's page: its sentence, its notebook, then each exported name."""
    module = importlib.import_module(f"mmdisaster.{name}")
    up = "../" * (name.count(".") + 1)
    link = f"[{notebook.name}]({up}{notebook.relative_to(ROOT).as_posix()})"
    lines = [f"# {module.__name__}", "", f"> {escaped(module.__doc__)}", "", f"Read it: {link}.", ""]
    for title, symbol in public(module):
        lines += [f"### {title}", "", *described(symbol)]
        for method_name, method in methods(symbol) if inspect.isclass(symbol) else ():
            if method.__doc__:
                lines += [f"#### {title}.{method_name}", "", *described(method)]
    return "\n".join(lines).rstrip() + "\n"


def index(modules: list[str]) -> str:
    """Rooms with their sentences, and the modules in each."""
    lines, rooms = ["# The library, room by room", ""], dict.fromkeys(name.split(".")[0] for name in modules)
    for room in rooms:
        inside = [name for name in modules if name.split(".")[0] == room]
        about = [importlib.import_module(f"mmdisaster.{name}").__doc__ for name in inside]
        if inside == [room]:
            lines += [f"- [{room}]({room}.md): {escaped(about[0])}"]
            continue
        lines += [f"- **{room}**: {escaped(importlib.import_module(f'mmdisaster.{room}').__doc__)}"]
        lines += [
            f"  - [{name.split('.')[1]}]({name.replace('.', '/')}.md): {escaped(words)}"
            for name, words in zip(inside, about, strict=True)
        ]
    return "\n".join(lines) + "\n"


def missing() -> tuple[list[str], int]:
    """Public parameters and fields without a meaning, and how many there are in all."""
    found, count = [], 0
    for name in notebooks():
        module = importlib.import_module(f"mmdisaster.{name}")
        for title, symbol in public(module):
            inner = methods(symbol) if inspect.isclass(symbol) else ()
            tables = [(title, own_rows(symbol)), *((f"{title}.{method}", parameters(part)) for method, part in inner)]
            count += sum(len(rows) for _, rows in tables)
            found += [f"{name}.{place}: {row.name}" for place, rows in tables for row in rows if not row.meaning]
    return found, count


def main(arguments: list[str]) -> int:
    if "--missing" in arguments:
        found, count = missing()
        print(*found, f"{len(found)} of {count} public parameters have no meaning", sep="\n")
        return int(bool(found))
    pages = {f"{name.replace('.', '/')}.md": page(name, path) for name, path in notebooks().items()}
    pages["README.md"] = index(list(notebooks()))
    known = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.glob("**/*.md")}
    stale = [name for name in {**pages, **known} if known.get(name) != pages.get(name)]
    if "--check" in arguments:
        print(*(f"docs/{name} is stale: run `make docs`" for name in stale), sep="\n", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        if name not in pages:
            (DOCS / name).unlink()
            continue
        with atomic_path(DOCS / name) as temporary:
            temporary.write_text(pages[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
