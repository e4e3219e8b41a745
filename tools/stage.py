"""Run one stage notebook:  python nbs/stages/run.py STAGE [name=value ...]

The notebook receives exactly its section of params.yaml and the name=value pairs of the stage's matrix. Where the
section is divided by a matrix value (features.visual, features.audio, …), it receives that part as one dictionary,
`options`.
The executed notebook goes to reports/STAGE[-value].ipynb, normalised: equal runs give equal bytes. When a cell fails,
its traceback is printed, nothing is written there, and the exit status is 1.
"""

import ast
import os
import signal
import sys
from pathlib import Path

# nbformat validates through jsonschema, which loads a checker of internationalised addresses where there is one: 2.5 s
# to build its grammar, for a format that notebooks don't use. Where there is none, jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

import nbformat  # noqa: E402
import yaml  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
STAGES = ROOT / "nbs" / "stages"


class StageError(Exception):
    """What stops a stage before its first cell."""


def read_section(stage: str, variant: dict[str, str], params: Path) -> dict:
    """The stage's own section of params.yaml, narrowed to the variant where it is divided by one."""
    sections = yaml.safe_load(params.read_text(encoding="utf-8")) or {}
    if stage not in sections:
        raise StageError(f"{params.name} has no section {stage!r}; sections are {', '.join(sections)}")
    section = sections[stage] or {}
    for name, value in variant.items():
        if isinstance(section.get(value), dict):
            return {**variant, "options": section[value]}
        if name in section:
            raise StageError(f"{params.name}, section {stage!r}: {name!r} is given by the stage's matrix, not here")
    return {**section, **variant}


def read_parameters(notebook: nbformat.NotebookNode, name: str) -> dict:
    """Names and defaults in the one cell tagged `parameters`."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise StageError(f"{name} must have exactly one cell tagged 'parameters', has {len(cells)}")
    found = {}
    for statement in ast.parse(cells[0].source).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise StageError(
                f"{name}: the parameters cell may hold only 'name = literal' lines, has {ast.unparse(statement)!r}"
            )
        found[statement.targets[0].id] = ast.literal_eval(statement.value)
    return found


def same_kind(value, default) -> bool:
    """Whether a value may stand where the notebook has its default: the same type, or an int for a float."""
    if type(value) is list and type(default) is list and default:
        return all(same_kind(item, default[0]) for item in value)
    return type(value) is type(default) or (type(value) is int and type(default) is float)


def check_names(stage: str, given: dict, wanted: dict) -> None:
    """Refuse a param that the notebook does not know, one that it misses, and one of another type."""
    where = f"params.yaml, section {stage!r}"
    for name, value in given.items():
        if name not in wanted:
            raise StageError(f"{where}: unknown param {name!r}; the notebook takes {', '.join(wanted)}")
        if not same_kind(value, wanted[name]):
            raise StageError(f"{where}: param {name!r} must be of type {type(wanted[name]).__name__}, was {value!r}")
    for name, default in wanted.items():
        if name not in given:
            raise StageError(f"{where}: param {name!r} is missing; the notebook's default is {default!r}")


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between equal runs: times, random ids, progress on standard error."""
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",) if key in notebook.metadata}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        cell.metadata = {key: cell.metadata[key] for key in ("tags",) if cell.metadata.get(key)}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
    return notebook


SAYS_ALL = {"ManifestError", "ExtractionError", "MediaError", "WeightsError", "ModelError"}  # what users can mend


def explain(error) -> str:
    """The failed cell and the traceback, as a person wants to read it; the message alone where it says what to do."""
    if error.ename in SAYS_ALL:
        return error.evalue
    source = "\n".join(f"    {line}" for line in error.source.splitlines())
    return "\n".join([f"cell {error.exec_count} failed:", source, "", *error.traceback])


def run_stage(stage: str, variant: dict[str, str]) -> Path:
    """Check, execute, normalise, write; returns the path of the executed notebook."""
    template = STAGES / f"{stage}.ipynb"
    if not template.is_file():
        known = ", ".join(sorted(path.stem for path in STAGES.glob("*.ipynb")))
        raise StageError(f"no stage {stage!r}; stages are {known}")
    notebook = nbformat.read(template, as_version=4)
    parameters = read_section(stage, variant, ROOT / "params.yaml")
    check_names(stage, parameters, read_parameters(notebook, template.name))

    import papermill  # after the checks: it takes a second

    report = ROOT / "reports" / f"{'-'.join([stage, *variant.values()])}.ipynb"
    report.parent.mkdir(exist_ok=True)
    raw = report.with_name(f".{report.stem}.{os.getpid()}.tmp.ipynb")
    try:
        papermill.execute_notebook(
            template, raw, parameters, kernel_name="python3", cwd=ROOT, progress_bar=False,
            stdout_file=sys.stdout, stderr_file=sys.stderr, extra_arguments=["--log-level=ERROR"],
        )  # fmt: skip
        nbformat.write(normalise(nbformat.read(raw, as_version=4)), raw)
        os.replace(raw, report)
    finally:
        raw.unlink(missing_ok=True)
    return report


def main(arguments: list[str]) -> int:
    """Exit status 0: done; 1: a cell failed; 2: refused before the first cell."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the notebook's kernel is shut down, too
    if not arguments or not all("=" in pair for pair in arguments[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    stage, variant = arguments[0], dict(pair.split("=", 1) for pair in arguments[1:])
    try:
        run_stage(stage, variant)
    except StageError as error:
        print(f"stage {stage}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        if type(error).__name__ != "PapermillExecutionError":
            raise
        print(f"stage {' '.join(arguments)}: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
