"""Run one stage notebook:  python tools/stage.py STAGE [name=value ...] [--quiet]

Before any work params.yaml is read and checked as a whole: exit status 2 with everything that is wrong with it. The
notebook reads its settings there itself and receives the name=value pairs of the stage's matrix. The executed notebook
goes to reports/STAGE[-value].ipynb, of an audit's stage to audit/reports/, normalised: equal runs give equal bytes.
When a cell fails, its traceback is printed, nothing is written there, and the exit status is 1. Progress is shown on
standard error, unless --quiet. Cells run in this process, which ends with DVC, however that ends; a second launcher of
one stage waits.
"""

import ast
import os
import signal
import sys
from pathlib import Path

from ready import FIGURES, FOREIGN, hand_over, keep_tree_clean, own_environment

if __name__ == "__main__":
    hand_over()  # to a process that has the libraries loaded, where there is one
    if not sys.flags.utf8_mode or os.environ.keys() & set(FOREIGN):
        os.execve(
            sys.executable, [sys.executable, *sys.argv], own_environment(os.environ)
        )  # the same process, begun again

ROOT = Path(__file__).resolve().parents[1]
if Path.cwd() != ROOT:  # a stage of the audit
    keep_tree_clean()

from mmdisaster.runs import clear_leftovers, end_with_parent, held, scratch_folder  # noqa: E402

if "DVC_STAGE" in os.environ:
    end_with_parent(os.getppid())  # before anything that takes time

import nbformat  # noqa: E402
from stages import FILES, matrices  # noqa: E402

from mmdisaster.core import atomic_path  # noqa: E402
from mmdisaster.settings import Settings  # noqa: E402
from mmdisaster.settings.reading import SettingsError, read_settings, read_values  # noqa: E402
from mmdisaster.settings.sources import InceptionSource, SoundNetSource, weights_of  # noqa: E402

STAGES = ROOT / "nbs" / "stages"
PARAMS = "params"  # the line of the parameters cell that names the file of settings
# Errors that say what to do: their message alone is printed, without a traceback.
SAYS_ALL = {"SettingsError", "ManifestError", "ExtractionError", "FeatureError", "MediaError", "WeightsError"}
SAYS_ALL |= {"ModelError", "StoreError", "ChildProcessError"}


# Stages that run trials, or read them.
OF_TRIALS = {
    "trials",
    "comparison",
    "leakage",
    "sensitivity",
    "variants",
    "static",
    "tuning",
    "tuning_table",
    "distillation",
}


class StageError(Exception):
    """What stops a stage before its first cell."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def terminate(*_):
    """Stop what is running, as ^C does, so that it can clear up."""
    raise Terminated


def read_parameters(notebook: nbformat.NotebookNode, name: str) -> dict:
    """Names and values in the one cell tagged `parameters`: the file of settings, and a stage's matrix."""
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
    if not isinstance(found.get(PARAMS), str):
        raise StageError(f"{name}: the parameters cell must name the file of settings, as in {PARAMS} = 'params.yaml'")
    return found


def check_names(given: dict[str, str], wanted: dict) -> None:
    """Refuse a matrix value that the notebook does not know, and a missing one."""
    names = [name for name in wanted if name != PARAMS]
    for name in given:
        if name not in names:
            raise StageError(f"unknown value {name!r}; the notebook takes {', '.join(names) or 'none'}")
    for name in names:
        if name not in given:
            raise StageError(f"{name!r} is missing, as in {name}={wanted[name]}")


def check_here(stage: str, variant: dict[str, str], settings: Settings) -> None:
    """Refuse settings that ask for what this project or this machine hasn't, before the first stage."""
    check_graph(settings)
    check_place(stage, settings)
    sources = settings.present.values()
    named = {found.source for source in sources if (found := weights_of(source))}
    on = {getattr(source, "device", "cpu") for source in sources} | {settings.temporal.device}
    if not named <= {"random", "trained"} or on != {"cpu"} or settings.corpus.manifest != "simulated":
        from mmdisaster.model.training import check_sources  # takes seconds

        check_sources(settings, ROOT)
    if "variant" in variant and variant["variant"] not in (known := getattr(settings, stage, {})):
        raise StageError(f"variant must be one of {', '.join(known)}, was {variant['variant']!r}; run `make stages`")
    check_trials(stage, settings)


def check_graph(settings: Settings) -> None:
    """Refuse a graph that is about other modalities or rows than params.yaml."""
    path = ROOT / "dvc.yaml"
    for name, spec in (read_values(path)["stages"] if path.is_file() else {}).items():
        for part, wanted in matrices(name, spec.get("matrix", {}), settings).items():
            if spec["matrix"][part] != wanted:
                found = ", ".join(map(str, spec["matrix"][part])) or "none"
                expected = f"{', '.join(wanted) or 'none'} by params.yaml"
                raise StageError(
                    f"dvc.yaml is stale: {part} of stage {name} must be {expected}, was {found}; run `make stages`"
                )


def project_of(stage: str) -> Path:
    """The folder of the DVC project, of the two, whose graph has a stage; the root where none has it."""
    graphs = [ROOT / file for file in FILES if (ROOT / file).is_file()]
    return next((path.parent for path in graphs if stage in read_values(path)["stages"]), ROOT)


def check_place(stage: str, settings: Settings) -> None:
    """Refuse results of a corpus of one's own among those of the embedded one, and verdicts on the paper from it."""
    corpus = settings.corpus
    if corpus.manifest == "simulated":
        return
    if Path(corpus.results).as_posix().strip("/") == "results":
        expected = "a folder of its own, such as results/own/clips (`make repro MANIFEST=…` sets it)"
        raise StageError(f"corpus.results must be {expected} where corpus.manifest is {corpus.manifest}, was 'results'")
    if stage == "report":
        advice = "`make audit` makes what is about yours"
        raise StageError(
            f"judges the paper's claims on the embedded corpus, corpus.manifest is {corpus.manifest}; {advice}"
        )


def check_trials(stage: str, settings: Settings) -> None:
    """Refuse seeds that no trial is run with, and lessons that these clips can't give."""
    graph, seeds = ROOT / "audit" / "dvc.yaml", list(settings.comparison.seeds)
    if stage in OF_TRIALS and graph.is_file():
        run = read_values(graph)["stages"]["trials"]["matrix"]["seed"]
        if missing := [seed for seed in seeds if seed not in run]:
            raise StageError(f"comparison.seeds must be among those of audit/dvc.yaml, {run}; {missing[0]} isn't")
    lessons, train = settings.distillation, round(settings.split.fractions[0] * settings.corpus.clips)
    if stage != "distillation":
        return
    if lessons.seeds[0] != settings.split.seed:
        raise StageError(f"distillation.seeds must begin with split.seed, {settings.split.seed}, was {lessons.seeds}")
    wanted = {"student": SoundNetSource, "sights": InceptionSource}
    for part, kind in wanted.items():
        if not isinstance(settings.present.get(getattr(lessons, part)), kind):
            raise StageError(
                f"distillation.{part} must be a modality of {kind.title}'s, was {getattr(lessons, part)!r}"
            )
    if settings.corpus.manifest == "simulated" and lessons.k > train:
        raise StageError(f"distillation.k must be at most the training clips, {train}, was {lessons.k}")


def normalise(notebook: nbformat.NotebookNode, up: str = "..") -> nbformat.NotebookNode:
    """Drop what differs between equal runs: times, random ids, progress on standard error.

    Links that start from nbs/stages/ start from the report instead, from where `up` leads to the project's root.
    """
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",) if key in notebook.metadata}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"
        cell.metadata = {key: cell.metadata[key] for key in ("tags",) if cell.metadata.get(key)}
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", f"]({up}/nbs/")
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for output in cell.outputs:
                output.pop("metadata", None) if output.output_type == "stream" else output.update(metadata={})
    return notebook


def explain(error) -> str:
    """The failed cell and the traceback, or the message alone where it says what to do."""
    if error.ename in SAYS_ALL:
        return error.evalue
    source = "\n".join(f"    {line}" for line in error.source.splitlines())
    return "\n".join([f"cell {error.exec_count} failed:", source, "", *error.traceback])


def use_own_settings(folder: str) -> None:
    """Let cells run without the profile and figure settings of whoever runs them."""
    os.environ |= FIGURES | {"IPYTHONDIR": folder}
    if (ROOT / "matplotlibrc").exists():  # matplotlib prefers one in the current folder: let it be loaded elsewhere
        os.chdir(folder)
        import matplotlib  # noqa: F401

        os.chdir(ROOT)


def run_stage(stage: str, variant: dict[str, str], quiet: bool = False) -> Path:
    """Check, execute, normalise, write; returns the path of the executed notebook."""
    template = STAGES / f"{stage}.ipynb"
    if not template.is_file():
        known = ", ".join(sorted(path.stem for path in STAGES.glob("*.ipynb")))
        raise StageError(f"no stage {stage!r}; stages are {known}")
    notebook = nbformat.read(template, as_version=4)
    parameters = read_parameters(notebook, template.name)
    check_names(variant, parameters)
    check_here(stage, variant, read_settings(parameters[PARAMS]))

    import inprocess  # noqa: F401, after the checks: it takes a second
    import papermill

    project = project_of(stage)
    report = project / "reports" / f"{'-'.join([stage, *variant.values()])}.ipynb"
    report.parent.mkdir(exist_ok=True)
    with held(report.with_name(f".{report.stem}.run.lock"), f"stage {report.stem}"), scratch_folder(report) as folder:
        for folder_of in {ROOT, project}:
            for name in ("data", "models", "reports", "results"):
                clear_leftovers(folder_of / name)
        (own := folder / "ipython").mkdir()
        use_own_settings(str(own))
        raw = folder / "raw.ipynb"
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            papermill.execute_notebook(
                template, raw, variant, "inprocess", kernel_name="python3", cwd=ROOT, progress_bar=False,
                stdout_file=sys.stdout, stderr_file=nowhere if quiet else sys.stderr,
            )  # fmt: skip
        with atomic_path(report) as temporary:
            up = os.path.relpath(ROOT, report.parent)
            nbformat.write(normalise(nbformat.read(raw, as_version=4), up), temporary)
    return report


def main(arguments: list[str]) -> int:
    """Exit status 0: done; 1: a cell failed; 2: refused before the first cell."""
    signal.signal(signal.SIGTERM, terminate)
    words = [word for word in arguments if word != "--quiet"]
    if not words or not all("=" in pair for pair in words[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    stage, variant = words[0], dict(pair.split("=", 1) for pair in words[1:])
    os.chdir(ROOT)
    try:
        run_stage(stage, variant, "--quiet" in arguments)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except StageError as error:
        print(f"stage {stage}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"stage {' '.join(words)}: interrupted", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130
    except Exception as error:
        if type(error).__name__ != "PapermillExecutionError":
            raise
        print(f"stage {' '.join(words)}: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
