"""Settings, notebooks, dvc.yaml and library agree."""

import ast
import importlib
import itertools
import os
import re
import shutil
import tomllib
from functools import partial

import lessons
import nbformat
import params
import pytest
import ranges
import readme
import stage as launcher
import stages as graph
import yaml
from conftest import ROOT, command, read_notebook
from pydantic import BaseModel

import docs
from mmdisaster.settings.reading import SettingsError, read_settings
from mmdisaster.settings.sources import MODALITIES
from mmdisaster.settings.tree import Settings

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
AUDIT = yaml.safe_load((ROOT / "audit" / "dvc.yaml").read_text())["stages"]
DVC = PIPELINE | AUDIT
STAGE_FOLDER = ROOT / "nbs" / "stages"
STAGES = sorted(STAGE_FOLDER.glob("*.ipynb"))
COMPONENTS = sorted(path for path in ROOT.glob("nbs/**/*.ipynb") if path.parent != STAGE_FOLDER)
TOOLS = sorted((ROOT / "tools").glob("*.py"))
NOTEBOOKS = docs.notebooks()  # module → component notebook, in reading order
PLACE = {module: number for number, module in enumerate(NOTEBOOKS)}
ROOMS = [  # from low to high: what a room imports stands before it; rooms in one row don't know each other
    {"core"},
    {"runs"},
    {"paper"},
    {"settings"},
    {"devices"},
    {"media"},
    {"data"},
    {"simulate", "words"},
    {"static"},
    {"weights"},
    {"temporal"},
    {"evaluation"},
    {"fusion"},
    {"pages", "audit"},
    {"steps"},
    {"cluster"},
    {"study"},
    {"model"},
    {"cli"},
]
LEVEL = {room: level for level, row in enumerate(ROOMS) for room in row}


def code(path):
    """The code of a notebook, cell by cell."""
    return ["".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]


def matrix_values(stage):
    """Values of each name in a stage's matrix, as text."""
    return {name: [str(value) for value in found] for name, found in DVC[stage].get("matrix", {}).items()}


def outs(stage):
    return [out if isinstance(out, str) else next(iter(out)) for out in DVC[stage]["outs"]]


def leaves(section, place=()):
    """Places of settings that aren't sections."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, (*place, name))
        else:
            yield (*place, name)


def test_the_heavy_part_of_the_audit_is_a_project_of_its_own():
    assert not set(PIPELINE) & set(AUDIT) and (ROOT / "audit" / ".dvc" / "config").is_file()
    made = [out.removeprefix("../") for stage in AUDIT for out in outs(stage)]
    assert not [dep for spec in PIPELINE.values() for dep in spec["deps"] if dep in made]
    read = {dep for spec in AUDIT.values() for dep in spec["deps"] if not dep.startswith("../")}
    made = re.sub(r"\$\{[^}]*\}", ".+", "|".join(out for stage in AUDIT for out in outs(stage)))
    assert read and not [dep for dep in read if not re.fullmatch(made, dep)], "what no stage of the audit makes"
    assert all(dep.startswith(("../", "data/")) for spec in AUDIT.values() for dep in spec["deps"])


def test_stages_notebooks_and_sections_have_the_same_names():
    assert set(DVC) == {path.stem for path in STAGES}
    sections = {name for name, field in Settings.model_fields.items() if name not in ("modalities", "media")}
    assert sections <= set(DVC), "a section that no stage is named after"


def test_dvc_understands_both_graphs():
    for folder, stages in [(ROOT, PIPELINE), (ROOT / "audit", AUDIT)]:
        listed = command(folder, "dvc", "stage", "list", "--all", "--name-only").stdout.split()
        assert {name.split("@")[0] for name in listed} == {*stages}, "one project lists another's stages"
        for stage in stages:
            count = len(list(itertools.product(*matrix_values(stage).values())))
            assert len([name for name in listed if name.split(":")[-1].split("@")[0] == stage]) == count, stage


@pytest.mark.parametrize("stage", DVC)
def test_a_stage_opened_in_jupyter_is_a_stage_of_the_pipeline(stage):
    notebook = nbformat.read(STAGE_FOLDER / f"{stage}.ipynb", as_version=4)
    given = launcher.read_parameters(notebook, stage)
    values = matrix_values(stage)
    assert given.pop(launcher.PARAMS) == "params.yaml"
    assert given == {name: found[0] for name, found in values.items()}
    pairs = "".join(f" {name}=${{item.{name}}}" for name in values)
    assert DVC[stage]["cmd"] == f"python {'../' if stage in AUDIT else ''}tools/stage.py {stage}{pairs}"
    suffix = "".join(f"-${{item.{name}}}" for name in values)
    assert f"reports/{stage}{suffix}.ipynb" in outs(stage)


def test_stages_depend_on_what_they_read(capsys):
    assert graph.main(["--check"]) == 0, capsys.readouterr().err


def test_how_deps_and_params_are_found(tmp_path, monkeypatch):
    """A library of three rooms: imports inside functions and relative ones count, steps are followed by function."""
    library = {
        "core": "",
        "low/__init__": "",
        "low/a": "from ..core import something",
        "low/b": "",
        "high/__init__": "from .c import d",
        "high/c": "def d():\n    from mmdisaster.low import a",
        "steps/__init__": "",
        "steps/one": "from ..low.b import x\nfrom ..high.c import d\n\n"
        "def first(clips, settings):\n    return _help(settings) + settings.split.seed + x\n\n"
        "def _help(values):\n    return values.fusion\n\n"
        "def second():\n    return d\n",
    }
    for name, source in library.items():
        file = tmp_path / "mmdisaster" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    monkeypatch.setattr(graph, "ROOT", tmp_path)
    kept = [graph.tree, graph.definitions, graph.imported_by]
    for function in kept:
        function.cache_clear()

    def found(source):
        node = ast.parse(source)
        return graph.rooms(graph.reached(graph.imports(node).values()))

    def sections(source, **matrix):
        return graph.params("temporal", source, matrix, Settings())

    try:
        assert found("from mmdisaster.low import b") == ["mmdisaster/low"]
        assert found("import mmdisaster.low.a") == ["mmdisaster/core.py", "mmdisaster/low"]
        assert found("from mmdisaster.high.c import d") == ["mmdisaster/core.py", "mmdisaster/high", "mmdisaster/low"]
        assert found("from mmdisaster.steps.one import first") == ["mmdisaster/low", "mmdisaster/steps/one.py"]
        assert "mmdisaster/high" in found("from mmdisaster.steps.one import second")
        assert sections("settings.temporal.units; settings.evaluate.average") == ["temporal", "evaluate.average"]
        assert sections("settings.evaluate; settings.evaluate.average") == ["evaluate"]
        first = "from mmdisaster.steps.one import first\n"
        assert sections(f"{first}first(0, settings)") == ["split.seed", "fusion"]
        assert sections(f"{first}run = delayed(first)\nrun(0, settings=settings)") == ["split.seed", "fusion"]
        modal = {"modality": ["visual", "audio", "text"]}
        assert sections("settings.modalities[modality]", **modal) == ["modalities.${item.modality}"]
        assert sections("settings.present") == ["modalities", "corpus.absent"]
        assert sections("settings.order") == ["modalities", "corpus.absent", "fusion.order"]
        assert sections("settings.modalities", **modal) == ["modalities.${item.modality}"]
    finally:
        for function in kept:
            function.cache_clear()


ON_REQUEST = {"weights": {"models/distilled-*.safetensors"}}  # made by `make distillation`; its digest is noted


@pytest.mark.parametrize("stage", DVC)
def test_stage_declares_each_file_that_its_notebook_names(stage):
    """Paths below the root that a notebook reads or writes stand among its deps and outs."""
    folder = "audit" if stage in AUDIT else "."
    named = [os.path.normpath(f"{folder}/{path}") for path in DVC[stage]["deps"] + outs(stage)]
    named = [path.replace("${corpus.results}", "results") for path in named]
    declared = [re.sub(r"\$\{.*?\}", "*", path) for path in named]
    declared += ON_REQUEST.get(stage, set())
    declared += [re.sub(r"-\w+\.", "-*.", path) for path in declared]  # weights-visual, weights-audio, …
    text = re.sub(r'\bresults / f?"', '"results/', "\n".join(code(STAGE_FOLDER / f"{stage}.ipynb")))
    for path in re.findall(r'"((?:audit/data|data|models|results)/[^"]+)"', text):
        used = re.sub(r"\{.*?\}", "*", path)
        inside = any(used == other or used.startswith(f"{other}/") for other in declared)
        pattern = re.escape(used).replace(r"\*", "[^/]*")  # a name that the notebook fills in
        assert inside or any(re.match(pattern, other) for other in declared), f"{stage} uses {path}: not in dvc.yaml"


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_stage_notebooks_define_nothing(path):
    for source in code(path):
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert not found, f"{path.name} defines {found[0].name}; that belongs in a component notebook"


def test_each_module_lies_in_a_known_room():
    assert {module.split(".")[0] for module in NOTEBOOKS} == set(LEVEL)
    files = {path.relative_to(ROOT / "mmdisaster") for path in (ROOT / "mmdisaster").glob("**/*.py")}
    made = {file for file in files if file.name not in {"__init__.py", "__main__.py", "_modidx.py"}}
    assert {".".join(file.with_suffix("").parts) for file in made} == set(NOTEBOOKS), "modules without a notebook"


@pytest.mark.parametrize("module", NOTEBOOKS)
def test_imports_go_downwards(module):
    """Among rooms, and within a room to notebooks that a reader has seen before, or to appendices (90 and up)."""
    room = module.split(".")[0]
    for use in graph.imports(graph.tree(module), module).values():
        other = use.module.split(".")[0]
        if other and other != room:
            assert LEVEL[other] < LEVEL[room], f"{module} imports {use.module}"
        elif other and use.module in PLACE and NOTEBOOKS[use.module].stem < "90":
            assert PLACE[use.module] < PLACE[module], f"{module} imports {use.module}, which comes later"


@pytest.mark.parametrize("module", NOTEBOOKS)
def test_the_library_needs_no_tool_of_the_pipeline(module):
    found = set()
    for node in ast.walk(graph.tree(module)):
        found |= {alias.name.split(".")[0] for alias in node.names} if isinstance(node, ast.Import) else set()
        found |= {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()
    assert not found & {"dvc", "papermill", "nbdev", "fastcore", "jupyterlab", "nbformat", "yaml"}


def test_rooms_and_modules_say_what_they_are():
    for module in {*NOTEBOOKS, *(name.split(".")[0] for name in NOTEBOOKS)}:
        words = importlib.import_module(f"mmdisaster.{module}").__doc__
        assert words and words.strip().endswith((".", "?")), (
            f"mmdisaster.{module}: a sentence on one line, was {words!r}"
        )


@pytest.mark.parametrize("module", NOTEBOOKS)
def test_functions_and_modules_are_short(module):
    """At most 30 statements in a function, 450 lines in a module."""
    for node in ast.walk(graph.tree(module)):
        if isinstance(node, ast.FunctionDef):
            count = sum(isinstance(part, ast.stmt) for line in node.body for part in ast.walk(line))
            assert count <= 30, f"{module}.{node.name} has {count} statements"
    assert graph.module_file(module).read_text().count("\n") <= 450


def test_library_is_what_the_notebooks_export(tmp_path):
    from nbdev.export import nb_export

    shutil.copytree(
        ROOT / "nbs", tmp_path / "nbs"
    )  # nbdev writes the way from a module to its notebook into the module
    for module, path in NOTEBOOKS.items():
        nb_export(tmp_path / path.relative_to(ROOT), tmp_path / "mmdisaster")
        made = tmp_path.joinpath("mmdisaster", *module.split(".")).with_suffix(".py")
        assert made.read_text() == graph.module_file(module).read_text(), f"{module}: run nbdev_export"


def test_notebooks_are_clean(tmp_path):
    """What nbdev_clean would change is not committed: execution counts, editors' metadata."""
    from nbdev.clean import clean_nb, process_write

    for path in [*COMPONENTS, *STAGES]:
        copy = tmp_path / path.name
        copy.write_text(path.read_text())
        process_write("", partial(clean_nb, allowed_cell_metadata_keys=["tags"]), copy)
        assert copy.read_text() == path.read_text(), f"{path.name}: run nbdev_clean"


NAME = r"`([a-z]\w*(?:\.\w+)+)`"


@pytest.mark.parametrize("path", [*COMPONENTS, *STAGES], ids=lambda path: path.stem)
def test_params_that_a_notebook_names_exist(path):
    """What stands after the word "param": `temporal.units`, or a list of such names."""
    known = {".".join(place) for place in leaves(Settings)}
    for name, source in MODALITIES.items():
        known |= {".".join(place) for place in leaves(type(source), ("modalities", name))}
    for cell in read_notebook(path)["cells"]:
        words = " ".join("".join(cell["source"]).replace("\n>", "\n").split())
        for listed in re.findall(rf"[Pp]arams? ((?:{NAME}(?:, and |, | and | or )?)+)", words):
            for name in re.findall(NAME, listed[0]):
                assert name in known, f"{path.name}: there is no param {name}"


def test_params_yaml_states_the_defaults_and_editors_know_them(capsys):
    assert read_settings(ROOT / "params.yaml") == Settings(), "laptop scale has one home, the settings"
    assert params.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("place", [*leaves(Settings)], ids=".".join)
def test_a_wrong_value_is_refused_by_its_name(place):
    for wrong in [{"no": {"such": "value"}}, [["nested"], None], float("nan")]:
        with pytest.raises(SettingsError, match=re.escape(place[0])):
            read_settings(None, {".".join(place): wrong})


def test_register_states_the_params_in_force():
    from mmdisaster.audit.gaps import in_force
    from mmdisaster.audit.register import REGISTER

    for gap in REGISTER:
        value = in_force(gap, Settings())
        assert value in gap.readings, f"{gap.param} is {value!r}, which is no reading of the register's"


def test_readme_shows_the_results(capsys):
    assert readme.main(["--check"]) == 0, capsys.readouterr().err


def test_pages_say_what_the_library_says(capsys):
    assert docs.main(["--check"]) == 0, capsys.readouterr().err


def test_each_public_parameter_has_a_meaning():
    found, count = docs.missing()
    assert count > 500 and not found, "\n".join(found)


def test_the_changelog_says_where_things_are():
    """Modules and names in the right-hand column of its tables of import paths exist."""
    _, _, words = (ROOT / "CHANGELOG.md").read_text().partition("### Import paths")
    lines = [line.split(" | ")[-1] for line in words.splitlines() if line.startswith("| `")]
    assert len(lines) > 30
    for part in re.split(r"; | \| ", " | ".join(lines)):
        module, *names = re.findall(r"`([\w.]+)`", part.partition("(")[0])
        found = importlib.import_module(f"mmdisaster.{module}")
        assert not [name for name in names if not hasattr(found, name)], part


def test_slow_lessons_exist():
    assert len(lessons.lessons(fast=True)) == len(COMPONENTS) - len(lessons.SLOW)


def text_calls(source):
    """Calls that read or write text, or a program's output as text, and leave the encoding to the locale."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        named = {key.arg: ast.unparse(key.value) for key in call.keywords}
        if name in ("read_text", "write_text") and len(call.args) < 1 + (name == "write_text"):
            yield from [] if "encoding" in named else [ast.unparse(call)]
        elif "True" in (named.get("text"), named.get("universal_newlines")) and "encoding" not in named:
            yield ast.unparse(call)


@pytest.mark.parametrize("path", [*COMPONENTS, *STAGES, *TOOLS], ids=lambda path: path.stem)
def test_no_text_depends_on_the_locale(path):
    """What ruff's PLW1514 doesn't see: paths whose type it can't infer."""
    sources = [path.read_text(encoding="utf-8")] if path.suffix == ".py" else code(path)
    lines = "\n".join(sources).splitlines()
    magic = "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)
    assert [*text_calls(magic)] == []


def test_pins_have_hashes_and_name_no_index():
    """Every file of every pin, as `pip install --require-hashes` wants them."""
    names = []
    for file in ["requirements.txt", "requirements-torch.txt", "requirements-book.txt"]:
        text = (ROOT / file).read_text(encoding="utf-8")
        lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
        for line in lines.splitlines():
            assert re.match(r"[\w.-]+==[\w.]+ ", line) and "--hash=sha256:" in line, line[:80]
            names.append(line.split("==")[0])
        assert "://" not in text and "--index" not in text and "--find-links" not in text
    assert len(names) == len({*names}) > 200
    cpu, torch = ((ROOT / f"requirements-{name}.txt").read_text(encoding="utf-8") for name in ["cpu", "torch"])
    assert re.search(r"\ntorch==([\d.]+)\+cpu .*--hash=", cpu, re.DOTALL)[1] in re.findall(r"\ntorch==([\d.]+)", torch)


def test_ranges_are_stated_and_pythons_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(ranges.lowest()) == len(project["dependencies"])
    named = [line.split(" :: ")[-1] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert tuple(named) == ranges.PYTHONS and project["requires-python"] == f">={ranges.PYTHONS[0]}"


def test_an_archive_without_git_is_a_project(tmp_path):
    """`make scm` tells DVC that there is no git, in both projects, and takes it back where there is one."""
    for place in [".dvc", "audit/.dvc"]:
        shutil.copytree(ROOT / place, tmp_path / place, ignore=lambda *_: {"cache", "tmp", "config.local", "plots"})
    for name in ["Makefile", "dvc.yaml", "params.yaml", "audit/dvc.yaml"]:
        shutil.copy(ROOT / name, tmp_path / name)
    projects = {tmp_path: "corpus", tmp_path / "audit": "trials@clip-2019"}
    for project in projects:
        assert command(project, "dvc", "stage", "list", check=False).returncode
    command(tmp_path, "make", "scm")
    for project, stage in projects.items():
        assert stage in command(project, "dvc", "stage", "list", "--name-only").stdout
    (tmp_path / ".git").mkdir()
    command(tmp_path, "make", "scm")
    for project in projects:
        assert "no_scm" not in (project / ".dvc" / "config.local").read_text(encoding="utf-8")
