"""Params, notebooks, dvc.yaml and library tell the same story."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
from functools import partial

import nbformat
import pytest
import yaml
from conftest import ROOT, read_notebook

sys.path.insert(0, str(ROOT / "nbs" / "stages"))
import run as launcher  # noqa: E402

from mmdisaster.study.trials import SECTIONS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
AUDIT = yaml.safe_load((ROOT / "audit" / "dvc.yaml").read_text())["stages"]
DVC = PIPELINE | AUDIT
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
COMPONENTS = sorted((ROOT / "nbs").glob("*.ipynb"))
STAGE_FOLDER = ROOT / "nbs" / "stages"
STAGES = sorted(STAGE_FOLDER.glob("*.ipynb"))
MODULES = {path.stem: ROOT / "mmdisaster" / f"{path.stem[3:]}.py" for path in COMPONENTS}


def code(path):
    """The code of a notebook, cell by cell."""
    return ["".join(cell["source"]) for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]


def imported(source):
    """Names of the mmdisaster modules and of the other packages that some code imports."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"mmdisaster.{node.module}" if node.level else node.module]
        if names == ["mmdisaster"]:  # from mmdisaster import some_module
            names = [f"mmdisaster.{alias.name}" for alias in node.names if not alias.name.startswith("_")]
        for package, _, rest in (name.partition(".") for name in names):
            (ours if package == "mmdisaster" else others).add(
                rest.split(".")[0] if package == "mmdisaster" else package
            )
    return ours, others


def closure(names):
    """Modules that are reached by imports from some modules."""
    reached, waiting = set(), set(names)
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= imported((ROOT / "mmdisaster" / f"{name}.py").read_text())[0] - reached
    return reached


def variants(stage):
    """Each combination of a stage's matrix, as the launcher receives it."""
    matrix = DVC[stage].get("matrix", {})
    names = [[(name, str(value)) for value in values] for name, values in matrix.items()]
    return [dict(combination) for combination in itertools.product(*names)]


def other_sections(stage):
    """Sections of params.yaml that a stage notebook reads besides its own, which the launcher hands over."""
    source = "\n".join(code(ROOT / "nbs" / "stages" / f"{stage}.ipynb"))
    named = set(re.findall(r'params(?:\.yaml"\).read_text\(\)\))?\["(\w+)"\]', source))
    for names in re.findall(r"params\[name\] for name in \[(.*?)\]", source):
        named |= set(re.findall(r"\w+", names))
    return named | (set(SECTIONS) if "with_seed(" in source else set())


def test_the_heavy_part_of_the_audit_is_not_part_of_the_pipeline():
    assert not set(PIPELINE) & set(AUDIT) and all(spec["wdir"] == ".." for spec in AUDIT.values())
    made = [out if isinstance(out, str) else next(iter(out)) for spec in AUDIT.values() for out in spec["outs"]]
    assert not [dep for spec in PIPELINE.values() for dep in spec["deps"] if dep in made]


def test_stages_notebooks_and_sections_have_the_same_names():
    assert set(DVC) == {path.stem for path in STAGES} == set(PARAMS)


@pytest.mark.parametrize("stage", DVC)
def test_stage_agrees_with_its_notebook_and_its_section(stage):
    notebook = nbformat.read(ROOT / "nbs" / "stages" / f"{stage}.ipynb", as_version=4)
    defaults = launcher.read_parameters(notebook, stage)
    given = [launcher.read_section(stage, variant, ROOT / "params.yaml") for variant in variants(stage)]
    for values in given:
        launcher.check_names(stage, values, defaults)
    assert defaults == given[0], "opened in JupyterLab, the notebook would do something else than the pipeline"


@pytest.mark.parametrize("stage", DVC)
def test_stage_declares_what_it_reads(stage):
    spec = DVC[stage]
    deps = set(spec["deps"])
    modules = closure(
        set().union(*(imported(source)[0] for source in code(ROOT / "nbs" / "stages" / f"{stage}.ipynb")))
    )
    assert {f"mmdisaster/{name}.py" for name in modules} == {dep for dep in deps if dep.startswith("mmdisaster/")}
    assert {"nbs/stages/run.py", f"nbs/stages/{stage}.ipynb"} <= deps
    assert [name.split(".")[0] for name in spec["params"]][0] == stage
    assert {name.split(".")[0] for name in spec["params"][1:]} == other_sections(stage)
    assert f"nbs/stages/run.py {stage}" in spec["cmd"]
    outs = [out if isinstance(out, str) else next(iter(out)) for out in spec["outs"]]
    assert any(re.fullmatch(rf"reports/{stage}(-\$.*)?\.ipynb", out) for out in outs)


ON_REQUEST = {"weights": {"models/distilled-*.safetensors"}}  # made by `make distil` for who asks; its digest is noted


@pytest.mark.parametrize("stage", DVC)
def test_stage_declares_each_file_that_its_notebook_names(stage):
    """Paths below the root that a notebook reads or writes stand among its deps and outs."""
    declared = [out if isinstance(out, str) else next(iter(out)) for out in DVC[stage]["deps"] + DVC[stage]["outs"]]
    declared = [re.sub(r"\$\{.*?\}", "*", path) for path in declared]
    declared += ON_REQUEST.get(stage, set())
    declared += [re.sub(r"-\w+\.", "-*.", path) for path in declared]  # weights-visual, weights-audio, …
    for path in re.findall(r'"((?:data|models|results)/[^"]+)"', "\n".join(code(STAGE_FOLDER / f"{stage}.ipynb"))):
        used = re.sub(r"\{.*?\}", "*", path)
        inside = any(used == other or used.startswith(f"{other}/") for other in declared)
        pattern = re.escape(used).replace(r"\*", "[^/]*")  # a name that the notebook fills in
        assert inside or any(re.match(pattern, other) for other in declared), f"{stage} uses {path}: not in dvc.yaml"


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_stage_notebooks_define_nothing(path):
    for source in code(path):
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        assert not found, f"{path.name} defines {found[0].name}; that belongs in a component notebook"


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.stem)
def test_component_imports_lower_numbers_only_and_no_tool_of_the_pipeline(path):
    number = {other.stem[3:]: int(other.stem[:2]) for other in COMPONENTS}
    ours, others = imported(MODULES[path.stem].read_text())
    assert all(number[name] < int(path.stem[:2]) for name in ours)
    assert not others & {"dvc", "papermill", "nbdev", "fastcore", "jupyterlab", "nbformat", "yaml"}


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.stem)
def test_exported_cells_are_short(path):
    for source in code(path):
        if source.startswith("#| export"):
            assert source.count("\n") <= 50, f"{path.name}: an exported cell of {source.count(chr(10))} lines"


def test_library_is_what_the_notebooks_export(tmp_path):
    from nbdev.export import nb_export

    shutil.copytree(
        ROOT / "nbs", tmp_path / "nbs"
    )  # nbdev writes the way from a module to its notebook into the module
    for path in COMPONENTS:
        nb_export(tmp_path / "nbs" / path.name, tmp_path / "mmdisaster")
    for path in (tmp_path / "mmdisaster").glob("*.py"):
        assert path.read_text() == (ROOT / "mmdisaster" / path.name).read_text(), f"{path.name}: run nbdev_export"


def test_notebooks_are_clean(tmp_path):
    """What nbdev_clean would change is not committed: execution counts, editors' metadata."""
    from nbdev.clean import clean_nb, process_write

    for path in [*COMPONENTS, *STAGES]:
        copy = tmp_path / path.name
        copy.write_text(path.read_text())
        process_write("", partial(clean_nb, allowed_cell_metadata_keys=["tags"]), copy)
        assert copy.read_text() == path.read_text(), f"{path.name}: run nbdev_clean"


def test_register_states_the_params_in_force():
    from mmdisaster.audit.register import REGISTER

    for gap in REGISTER:
        value = PARAMS
        for name in gap.param.split("."):
            value = value[name]
        assert value == gap.default and type(value) is type(gap.default), (
            f"{gap.param} is {value!r}, the register says {gap.default!r}"
        )


def test_readme_shows_the_results():
    result = subprocess.run(
        [sys.executable, ROOT / "nbs" / "stages" / "readme.py", "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_api_pages_say_what_the_library_says():
    program = [sys.executable, ROOT / "nbs" / "stages" / "api.py", "--check"]
    result = subprocess.run(program, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
