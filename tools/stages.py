"""Keep dvc.yaml and audit/dvc.yaml in step with the notebooks and with params.yaml:  python tools/stages.py [--check]

A stage's description is the sentence under its notebook's title. It depends on the rooms of the library that its
notebook reaches by imports (`mmdisaster/<room>`; top-level modules and the rooms `steps` and `study` by file), and on
the sections of params.yaml that it reads: `settings.<section>` in the notebook, or in a function that it hands
`settings` to. Matrices over modalities, rows and variants, and deps on a file per modality, are those of params.yaml.
Other deps on data, and outs, are written by hand. The audit is a DVC project of its own in audit/: paths of its graph
start there. With --check, change nothing and exit with status 1 where something is stale.
"""

import ast
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from mmdisaster.core import atomic_path
from mmdisaster.settings.reading import read_settings
from mmdisaster.settings.sections import Section
from mmdisaster.settings.tree import Settings

ROOT = Path(__file__).resolve().parents[1]
FILES = ("dvc.yaml", "audit/dvc.yaml")  # graphs of two DVC projects
LAUNCHERS = ["tools/inprocess.py", "tools/ready.py", "tools/stage.py"]
BY_FILE = ("steps", "study")  # they call every room: listed by file, and followed function by function
KEPT = ".settings"  # stands for the attribute of an object
PROPERTIES = dict.fromkeys(
    ["present", "fitted", "rows"], {"modalities", "corpus.absent"}
)  # of Settings → what they read
PROPERTIES |= {"order": {"modalities", "corpus.absent", "fusion.order"}, "restricted": {"modalities", "corpus.absent"}}
PROPERTIES |= {"runnable": {"variants", "static", "corpus.absent"}}
PER_MODALITY = ("models/weights-", "models/temporal-")  # beginnings of deps, one per modality
PER_VARIANT = "data/variants/"  # likewise, one per variant
ALSO = {
    "model": {"split", "temporal", "fusion"}
}  # what a stage reads as a whole: a model keeps the settings of its training

yaml = YAML()
yaml.width, yaml.preserve_quotes = 4096, True
yaml.indent(mapping=2, sequence=4, offset=2)


class Use(NamedTuple):
    """An import of a library module: the whole of it, or one name in it."""

    module: str  # without `mmdisaster.`, such as fusion.ranking
    name: str | None = None


def notebook_code(path: Path) -> str:
    """The code of a notebook, without lines for IPython."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return "\n".join("" if line.startswith(("%", "!")) else line for line in code.splitlines())


def described(path: Path) -> str:
    """The sentence under a notebook's title."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return next(line for line in prose.splitlines() if line.startswith("> ")).removeprefix("> ")


def module_file(module: str) -> Path | None:
    """The file of a library module or of a package; None where there is none."""
    place = ROOT.joinpath("mmdisaster", *module.split(".")) if module else ROOT / "mmdisaster"
    found = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return found[0] if found else None


@cache
def tree(module: str) -> ast.Module:
    """A library module, parsed."""
    file = module_file(module)
    if file is None:
        raise SystemExit(f"mmdisaster.{module} is imported, but isn't there: mend the import, or run nbdev_export")
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(node: ast.AST, module: str | None = None) -> dict[str, Use]:
    """What each name stands for that is imported from the library; `module` is where relative imports start."""
    found = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            modules = [alias.name.split(".", 1)[1] for alias in part.names if alias.name.startswith("mmdisaster.")]
            found |= {name: Use(name) for name in modules}
        if not isinstance(part, ast.ImportFrom):
            continue
        base = (part.module or "").split(".")
        if part.level:
            package = module_file(module).name == "__init__.py"
            steps = module.split(".") + ["__init__"] if package else module.split(".")
            base = ["mmdisaster", *steps[: -part.level], *([part.module] if part.module else [])]
        if base[0] != "mmdisaster":
            continue
        for alias in part.names:
            inner = ".".join([*base[1:], alias.name])
            use = Use(inner) if module_file(inner) else Use(".".join(base[1:]), alias.name)
            found[alias.asname or alias.name] = use
    return found


@cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """The statements at the top of a module that define names."""
    found = {}
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


@cache
def imported_by(module: str) -> dict[str, Use]:
    """What each name in a module stands for that it imports from the library."""
    return imports(tree(module), module)


def uses_of(use: Use) -> Iterator[Use]:
    """What an imported module or name reaches directly."""
    known = imported_by(use.module)
    if use.name is None or use.module.split(".")[0] not in BY_FILE:
        yield from known.values()
        return
    node = definitions(use.module).get(use.name, tree(use.module))
    yield from imports(node, use.module).values()
    for name in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}:
        if name in known:
            yield known[name]
        elif name in definitions(use.module):
            yield Use(use.module, name)


def reached(uses: Iterable[Use]) -> set[str]:
    """Modules that are reached by imports, with the packages they lie in."""
    seen, waiting = set(), set(uses)
    while waiting:
        use = waiting.pop()
        packages = {Use(package) for package in [use.module.rpartition(".")[0]] if package}
        seen.add(use)
        waiting |= ({*uses_of(use)} | packages) - seen
    return {use.module for use in seen}


def rooms(modules: Iterable[str]) -> list[str]:
    """Paths for DVC: folders of rooms, or files. A package that imports nothing is no dep."""
    found = set()
    for module in modules:
        file, room = module_file(module), module.split(".")[0]
        if room not in BY_FILE and file.parent != ROOT / "mmdisaster":
            found.add(f"mmdisaster/{room}")
        elif file.name != "__init__.py" or imported_by(module):
            found.add(file.relative_to(ROOT).as_posix())
    return sorted(found)


def setting_paths(names: Iterable[str]) -> set[str]:
    """The sections or settings that a chain of attributes names: its beginning, or what a property reads."""
    section, path, names = Settings, [], [*names]
    if names and names[0] in PROPERTIES:
        return PROPERTIES[names[0]]
    for name in names:
        if name not in section.model_fields:
            break
        path.append(name)
        kind = section.model_fields[name].annotation
        if not (isinstance(kind, type) and issubclass(kind, Section)):
            break
        section = kind
    return {".".join(path)}


def chains(node: ast.AST, names: set[str]) -> set[str]:
    """Paths of settings that some code names: `settings.temporal.units` is temporal.units."""
    found, parts = set(), list(ast.walk(node))
    inner = {id(part.value) for part in parts if isinstance(part, ast.Attribute)}
    for part in (part for part in parts if id(part) not in inner):
        chain = []
        while isinstance(part, ast.Attribute):
            chain, part = [part.attr, *chain], part.value
        if isinstance(part, ast.Name) and part.id in names:
            found |= setting_paths(chain)
        if "settings" in chain and KEPT in names:
            found |= setting_paths(chain[chain.index("settings") + 1 :])
    return found - {""}


def returns_settings(use: Use | None) -> bool:
    """Whether a name of the library stands for a function that returns settings."""
    function = definitions(use.module).get(use.name) if use and use.name else None
    returns = function.returns if isinstance(function, ast.FunctionDef) else None
    return returns is not None and ast.unparse(returns) == "Settings"


def is_settings(value: ast.expr, known: dict[str, Use], names: set[str]) -> bool:
    """Whether an expression is the settings: a name of theirs, or what a function such as `with_seed` makes of them."""
    if isinstance(value, ast.Name):
        return value.id in names
    if not isinstance(value, ast.Call):
        return False
    use = known.get(ast.unparse(value.func))
    made = use is not None and use.name == "read_settings"
    return returns_settings(use) and (made or any(is_settings(part, known, names) for part in value.args))


def called(call: ast.Call) -> str:
    """Name of the function of a call, also of `delayed(function)(…)`."""
    inner = call.func
    return ast.unparse(inner.args[0] if isinstance(inner, ast.Call) and inner.args else inner)


def wrapped(value: ast.expr) -> str:
    """Name of a function, also inside others, such as `in_worker(function)`."""
    while isinstance(value, ast.Call) and value.args:
        value = value.args[0]
    return ast.unparse(value)


def read_by(node: ast.AST, known: dict[str, Use], names: set[str], seen: set) -> set[str]:
    """Paths of settings that some code reads from `names`, itself or in library functions that it hands these to."""
    aliases = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and isinstance(part.value, ast.Call) and isinstance(part.targets[0], ast.Name):
            if ast.unparse(part.value.func) == "delayed":  # run = delayed(run_trial)
                aliases[part.targets[0].id] = wrapped(part.value.args[0])
            elif is_settings(part.value, known, names):  # changed = with_changes(settings, …)
                names = names | {part.targets[0].id}
    found = chains(node, names)
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            given = {i: arg for i, arg in enumerate(part.args)} | {word.arg: word.value for word in part.keywords}
            handed = frozenset(place for place, arg in given.items() if is_settings(arg, known, names))
            use = known.get(aliases.get(called(part), called(part)))
            if handed and use and use.name:
                found |= read_in(use, handed, seen)
    return found


def read_in(use: Use, handed: frozenset, seen: set) -> set[str]:
    """Paths of settings that a library function reads from its arguments at some places.

    Of an object that is made of settings it is what its module reads from an attribute `settings`.
    """
    definition = definitions(use.module).get(use.name)
    if definition is None or (use, handed) in seen:
        return set()
    seen.add((use, handed))
    local = {name: Use(use.module, name) for name in definitions(use.module)}
    known = local | imported_by(use.module)
    if isinstance(definition, ast.ClassDef):
        return chains(tree(use.module), {KEPT})
    arguments = [argument.arg for argument in definition.args.args]
    names = {arguments[place] if isinstance(place, int) else place for place in handed}
    return read_by(definition, known, names, seen)


def parts_of(section: Any) -> set[str]:
    """Names of the sections in a section, or of the entries in a table."""
    if isinstance(section, Section):
        return set(type(section).model_fields)
    return set(section) if isinstance(section, dict) else set()


def params(stage: str, code: str, matrix: dict[str, Any], settings: Settings) -> list[str]:
    """Params of a stage, its own section first; divided by the matrix where a section has its values as parts."""
    node = ast.parse(code)
    paths = read_by(node, imports(node), {"settings"}, set()) | ALSO.get(stage, set())
    paths = {stage if path.startswith(f"{stage}.") else path for path in paths}
    for path in list(paths):
        for name, values in matrix.items():
            if "." not in path and not isinstance(values, str) and set(values) <= parts_of(getattr(settings, path)):
                paths = paths - {path} | {f"{path}.${{item.{name}}}"}
    whole = {path for path in paths if not any(path.startswith(f"{other}.") for other in paths)}
    order = [stage, *Settings.model_fields]
    return sorted(whole, key=lambda path: (order.index(path.split(".")[0]), path))


def matrices(stage: str, matrix: dict[str, Any], settings: Settings) -> dict[str, list[str]]:
    """What the parts of a stage's matrix must be that follow params.yaml."""
    learnt, present = [*settings.fitted], [*settings.present]
    modality = {"words": learnt, "weights": [name for name in present if name not in learnt]}.get(stage, present)
    rows = [name for name in settings.rows if name != "proposed"]
    wanted = {"modality": modality, "approach": rows}
    wanted |= {"variant": [*settings.runnable(stage)]} if "variant" in matrix else {}
    return {name: wanted[name] for name in matrix if name in wanted}


def per_modality(deps: list[str], settings: Settings, up: str = "") -> list[str]:
    """Deps with one file for each modality, where there was one for some modality, or for each variant.

    `up` leads from the graph's folder to the project's root.
    """
    found = []
    for dep in deps:
        if dep.startswith(PER_VARIANT):
            variants = [*settings.runnable("variants"), *settings.runnable("static")]
            found += [f"{PER_VARIANT}{name}.json" for name in variants if f"{PER_VARIANT}{name}.json" not in found]
            continue
        begin = next((up + name for name in PER_MODALITY if dep.startswith(up + name) and "${" not in dep), None)
        named = [f"{begin}{name}.safetensors" for name in settings.present] if begin else [dep]
        found += [name for name in named if name not in found]
    return found


def renew(stages: dict[str, Any], settings: Settings, up: str = "") -> None:
    """Write what is computed into the stages of a dvc.yaml; `up` leads from its folder to the project's root."""
    ours = tuple(up + name for name in (*LAUNCHERS, "mmdisaster/", "nbs/stages/"))
    for stage, spec in stages.items():
        notebook = f"nbs/stages/{stage}.ipynb"
        code, deps = notebook_code(ROOT / notebook), spec["deps"]
        for name, values in matrices(stage, spec.get("matrix", {}), settings).items():
            spec["matrix"][name] = type(deps)(values)
            spec["matrix"][name].fa.set_flow_style()
        if (renewed := per_modality(deps, settings, up)) != [*deps]:
            deps[:] = renewed
        for i in reversed(range(len(deps))):
            if deps[i].startswith(ours):
                del deps[i]
        for dep in reversed([*LAUNCHERS, notebook, *rooms(reached(imports(ast.parse(code)).values()))]):
            deps.insert(0, up + dep)
        if spec.get("desc") != (words := described(ROOT / notebook)):
            spec.pop("desc", None)
            spec.insert(0, "desc", words)
        found = params(stage, code, spec.get("matrix", {}), settings)
        spec.pop("params", None)
        if found:
            spec.insert(list(spec).index("cmd") + 1, "params", [{f"{up}params.yaml": found}] if up else found)


def stale_files(settings: Settings) -> list[tuple[str, str]]:
    """Names and new texts of graphs that aren't what they must be."""
    stale = []
    for file in FILES:
        old = (ROOT / file).read_text(encoding="utf-8")
        graph, new = yaml.load(old), StringIO()
        renew(graph["stages"], settings, "../" * file.count("/"))
        yaml.dump(graph, new)
        stale += [(file, new.getvalue())] if new.getvalue() != old else []
    return stale


def refresh() -> list[str]:
    """Write the graphs anew where they are stale; the names of those that were."""
    stale = stale_files(read_settings(ROOT / "params.yaml"))
    for file, text in stale:
        with atomic_path(ROOT / file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [file for file, _ in stale]


def main(arguments: list[str]) -> int:
    if "--check" not in arguments:
        refresh()
        return 0
    stale = stale_files(read_settings(ROOT / "params.yaml"))
    print(*(f"{file} is stale: run `python tools/stages.py`" for file, _ in stale), sep="\n", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
