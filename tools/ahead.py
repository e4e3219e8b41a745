"""Stages of the audit ahead of `dvc repro`, on the workers of a scheduler:  python tools/ahead.py ADDRESS [STAGE ...]

DVC runs one stage after another. Here each stage that has to run goes to a worker as soon as those that it depends on
are done. A worker has a working tree of its own and shares DVC's cache with this one, where DVC notes what a run took
and gave. `dvc repro` then finds these runs there and doesn't repeat them. What a worker died of is run again by
another; what was done when this is interrupted is found by the next run. Workers must see the project under the same
path. DVC notes no run of stages that write pages, which git keeps instead of its cache, nor of those that go on where
they were interrupted (`persist`): they are left to `dvc repro`.

`make audit SCHEDULER=local` (or an address) does this between the pipeline and the audit.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from mmdisaster.cluster.scheduler import ClusterError, check_workers, scheduler
from mmdisaster.core import digest_file, digest_json, progress
from mmdisaster.runs import end_with_parent

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = (".", "audit")  # folders of DVC projects: what the first makes, the second reads
CACHES = (".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__")
LEFT_OUT = (".git", ".venv", ".fuzz", "build", *CACHES)  # of a working tree
KEPT_LINES = 15  # of the output of a stage that failed


def project_files(root: Path) -> list[Path]:
    """The files of a working tree, relative to it, without what DVC keeps or can make."""
    made = set()
    for project in PROJECTS:
        with Repo(str(root / project)) as repo:
            made |= {Path(out.fs_path) for out in repo.index.outs if out.use_cache}
            made |= {root / project / ".dvc" / name for name in ("cache", "tmp", "config.local")}
    found = []
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(name for name in names if name not in LEFT_OUT and here / name not in made)
        found += [(here / name).relative_to(root) for name in files if here / name not in made]
    return sorted(found)


def pending(project: Path, targets: Sequence[str] = ()) -> dict[str, list[str]]:
    """Stages that have to run and whose runs DVC notes, in order: name → those of them that it waits for."""
    with Repo(str(project)) as repo:
        graph = repo.index.graph  # edges lead to what a stage depends on
        wanted = [stage for stage in graph if not targets or {stage.name, stage.name.split("@")[0]} & {*targets}]
        changed = {name.rsplit(":", 1)[-1] for name, found in repo.status().items() if found}
        order, waits, seen = list[Any](), dict[str, list[str]](), set[Any]()

        def visit(stage: Any) -> None:
            if stage in seen:
                return
            seen.add(stage)
            for before in sorted(graph.successors(stage), key=lambda found: found.name):
                visit(before)
            order.append(stage)

        for stage in sorted(wanted, key=lambda found: found.name):
            visit(stage)
        for stage in order:
            if not all(out.use_cache and not out.persist for out in stage.outs):
                continue
            before = sorted(found.name for found in graph.successors(stage) if found.name in waits)
            if before or stage.name in changed:
                waits[stage.name] = before
        return waits


def own_tree(root: Path, files: list[Path], version: str, place: Path) -> Path:
    """A worker's own working tree of some version, with a shared cache and what the root's stages made.

    Beside it is what is beside the root, as links, so that paths such as ../shared lead there.
    """
    tree = place / f"tree-{version[:16]}" / root.name
    if (done := tree.with_name(f".{root.name}.whole")).exists():
        return tree
    shutil.rmtree(tree.parent, ignore_errors=True)
    tree.mkdir(parents=True)
    for beside in root.parent.iterdir():
        if beside.name != root.name:
            (tree.parent / beside.name).symlink_to(beside)
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / file, tree / file)
    for project in PROJECTS:
        with Repo(str(root / project)) as repo:
            cache = repo.cache.local_cache_dir
        lines = ["[core]", "    no_scm = true", "    analytics = false", "[cache]", f"    dir = {cache}"]
        text = "\n".join([*lines, "    type = reflink,hardlink,copy", ""])
        (tree / project / ".dvc" / "config.local").write_text(text, encoding="utf-8")
    with Repo(str(tree)) as repo:
        repo.checkout(force=True, allow_missing=True)
    done.touch()
    return tree


def run_stage(root: str, files: list[Path], version: str, name: str, *before: str) -> str:
    """On a worker: one stage of the audit, after those before it; its name. Raises `ClusterError` where it fails."""
    from distributed import get_worker

    worker = get_worker()
    tree = own_tree(Path(root), files, version, Path(worker.local_directory))
    env = {key: value for key, value in os.environ.items() if key not in ("MMDISASTER_SCHEDULER", "MMDISASTER_READY")}
    env |= {"PYTHONPATH": str(tree), "LOKY_MAX_CPU_COUNT": str(worker.state.nthreads), "TQDM_DISABLE": "1"}
    line = [sys.executable, str(tree / "tools" / "ahead.py"), "--stage", name]
    done = subprocess.run(line, cwd=tree, env=env, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-KEPT_LINES:]
        raise ClusterError("\n".join([f"stage {name} failed on worker {worker.address}:", *lines]))
    return name


def run_ahead(client: Any, root: Path, targets: Sequence[str] = (), verbose: bool = True) -> list[str]:
    """Let workers run what has to run of the audit; its names. Raises `ClusterError` with the first that failed."""
    from distributed import as_completed

    waits = pending(root / PROJECTS[1], targets)
    if not waits:
        return []
    check_workers(client, ["dvc", "torch", "scikit-learn"], {}, [str(root)])
    files = project_files(root)
    version = digest_json([[str(file), digest_file(root / file)] for file in files])
    futures = dict[str, Any]()
    for name, before in waits.items():
        given = (str(root), files, version, name, *(futures[found] for found in before))
        futures[name] = client.submit(run_stage, *given, pure=False)
    try:
        for future in progress(as_completed(futures.values()), "stages", total=len(futures), verbose=verbose):
            future.result()
    finally:
        client.cancel([*futures.values()], force=True)
    return [*futures]


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--stage"]:
        end_with_parent(os.getppid())
        from dvc.cli import main as dvc

        return dvc(["--cd", PROJECTS[1], "repro", *arguments[1:]])
    try:
        with scheduler(arguments[0], verbose=True) as client:
            run_ahead(client, ROOT, arguments[1:])
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
