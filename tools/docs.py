"""Write the API pages, one a module, from the comments beside parameters:  python nbs/stages/api.py [--check]

Pages go to docs/. With --check, change nothing and exit with status 1 where a page is stale.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from fastcore.docments import docments, empty

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def escaped(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def type_name(annotation: Any) -> str:
    """An annotation as it is written."""
    if annotation is empty or annotation is None:
        return ""
    return (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )


def default_value(value: Any) -> str:
    """A default as it would be written; of a function its name, not its address."""
    if value is empty:
        return ""
    return f"`{escaped(value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value))}`"


def parameters(symbol: Any) -> list[str]:
    """A table of a function's or a class's parameters, and what comes back."""
    found = dict(docments(symbol, full=True, returns=True))
    returned = found.pop("return", None)
    rows = []
    for name, about in found.items():
        cells = [f"`{name}`", escaped(type_name(about["anno"])), default_value(about["default"])]
        cells.append(escaped(about["docment"] or ""))
        shown = name != "self" and not cells[1].startswith("VAR_")  # *args of a class that takes none
        rows += [f"| {' | '.join(cells)} |"] if shown else []
    lines = ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else []
    if returned and (returned["docment"] or type_name(returned["anno"])):
        words = f": {escaped(returned['docment'])}" if returned["docment"] else ""
        lines += [f"Returns `{escaped(type_name(returned['anno']))}`{words}", ""]
    return lines


def methods(symbol: type) -> list[str]:
    """The public methods that a class defines itself."""
    lines = []
    for name, method in vars(symbol).items():
        method = method.__func__ if isinstance(method, classmethod | staticmethod) else method
        if not name.startswith("_") and inspect.isfunction(method) and method.__doc__:
            lines += [f"#### {symbol.__name__}.{name}", "", inspect.getdoc(method) or "", "", *parameters(method)]
    return lines


def page(notebook: Path) -> str:
    """One module's page: what its notebook opens with, then each exported name."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    opening = ["".join(cell["source"]) for cell in cells[:3] if cell["cell_type"] == "markdown"]
    module = importlib.import_module(f"mmdisaster.{notebook.stem[3:]}")
    lines = [f"# {module.__name__}", "", opening[1], "", f"Read it: [{notebook.name}](../nbs/{notebook.name}).", ""]
    for name in module.__all__:
        symbol = getattr(module, name)
        if not (inspect.isfunction(symbol) or inspect.isclass(symbol)):
            continue  # data and types: the notebook shows them
        doc = inspect.getdoc(symbol) if symbol.__doc__ and not symbol.__doc__.startswith(f"{name}(") else ""
        lines += [f"### {name}", "", *([doc, ""] if doc else []), *parameters(symbol)]
        lines += methods(symbol) if inspect.isclass(symbol) else []
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    pages = {f"{path.stem[3:]}.md": page(path) for path in sorted((ROOT / "nbs").glob("*.ipynb"))}
    index = ["# The library, module by module", ""]
    index += [
        f"- [{name.removesuffix('.md')}]({name}): {text.split('> ')[1].splitlines()[0]}" for name, text in pages.items()
    ]
    pages["README.md"] = "\n".join(index) + "\n"
    known = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    stale = [name for name, text in pages.items() if known.get(name) != text]
    stale += [name for name in known if name not in pages]
    if "--check" in arguments:
        print(*(f"docs/{name} is stale: run `make docs`" for name in stale), sep="\n", file=sys.stderr)
        return int(bool(stale))
    DOCS.mkdir(exist_ok=True)
    for name in stale:
        if name in pages:
            (DOCS / name).write_text(pages[name], encoding="utf-8")
        else:
            (DOCS / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
