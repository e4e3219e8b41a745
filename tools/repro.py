"""`dvc repro` that ends with whoever started it, such as make:  python tools/repro.py [audit [STAGE ...] | status]

Before it the graphs are made to fit params.yaml, which says which modalities and rows there are.

After the word `audit` the pipeline runs first, then the audit, which is a DVC project of its own: the stages that are
named, or what can be audited of the corpus that params.yaml names: of the embedded one everything, of another what is
about its clips and not about what the paper prints. What is left out is told first. Where MMDISASTER_SCHEDULER names
a scheduler, its workers run the audit's stages ahead (tools/ahead.py).

After the word `status` nothing runs: it tells what would, of both projects.

DVC writes dvc.lock in place, so that a kill can cut it off, and then refuses to run. What is cut off goes to .dvc/tmp
here: DVC writes another, and takes what was made before from its cache.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mmdisaster.runs import end_with_parent

end_with_parent(os.getppid())

from dvc.cli import main  # noqa: E402
from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: E402
from ready import keep_tree_clean, start  # noqa: E402
from ruamel.yaml import YAML, YAMLError  # noqa: E402
from stages import refresh  # noqa: E402
from voluptuous import Invalid  # noqa: E402

from mmdisaster.data.manifest import read_manifest  # noqa: E402
from mmdisaster.settings.reading import SettingsError, read_settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def is_cut_off(path: Path) -> bool:
    """Whether a lock of DVC's is there and isn't what DVC reads; conflicts of git's are for its user to settle."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    if text is None or "<<<<<<< " in text:
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(text))
    except (YAMLError, Invalid):
        return True
    return False


def drop_compiled() -> None:
    """Remove compiled modules: the audit's DVC counts them, as no .dvcignore of its own reaches the library."""
    for folder in (ROOT / "mmdisaster").rglob("__pycache__"):
        shutil.rmtree(folder, ignore_errors=True)


def audit_targets() -> list[str]:
    """Stages of the audit that make sense for the corpus that params.yaml names; says which don't, and why."""
    settings = read_settings(ROOT / "params.yaml")
    corpus = settings.corpus
    if corpus.manifest == "simulated":
        return ["report"]
    manifest = read_manifest(ROOT / corpus.manifest, list(corpus.concepts), remote=corpus.remote)
    stages, videos = ["comparison", "leakage", "sensitivity"], manifest["video_id"].nunique()
    left = ["the paper's printed figures, public benchmarks, verdicts: they are not about these clips"]
    if videos < 3:
        stages, left = (
            stages[:1],
            [*left, f"leakage, sensitivity: they need clips of 3 videos or more, there are {videos}"],
        )
    elif videos == len(manifest):
        stages, left = ["comparison", "sensitivity"], [*left, "leakage: no video has several clips"]
    if len(settings.present) > 1:
        stages = [*stages, "missing"]
    else:
        left = [*left, "missing: there is no second modality"]
    print(f"Audit of {corpus.manifest}: seeds and floors, {', '.join(stages)}; to {corpus.results}/", file=sys.stderr)
    print(*(f"Left out: {words}" for words in left), sep="\n", file=sys.stderr, flush=True)
    return stages


if __name__ == "__main__":
    audited, targets = sys.argv[1:2] == ["audit"], sys.argv[2:]
    if sys.argv[1:] == ["status"]:
        drop_compiled()
        sys.exit(main(["status"]) or main(["--cd", "audit", "status"]))
    if sys.argv[1:] and not audited:
        sys.exit(
            f"the first word must be audit or status, was {sys.argv[1]!r}; one stage alone: dvc repro {sys.argv[1]}"
        )
    if audited and not targets:
        try:
            targets = audit_targets()
        except (SettingsError, ValueError, FileNotFoundError) as error:
            sys.exit(str(error))
    for lock in [ROOT / "dvc.lock", ROOT / "audit" / "dvc.lock"]:
        if is_cut_off(lock):
            aside = lock.replace(ROOT / ".dvc" / "tmp" / "dvc.lock.cut-off")
            print(f"{lock.relative_to(ROOT)} was cut off: moved to {aside.relative_to(ROOT)}", file=sys.stderr)
    try:
        for file in refresh():
            print(f"{file} was written anew, by params.yaml", file=sys.stderr)
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if audited:
        keep_tree_clean()
    lifeline = start(os.environ)  # for the stages of both projects
    failed = main(["repro"])
    drop_compiled()
    if not failed and audited and (address := os.environ.get("MMDISASTER_SCHEDULER")):
        failed = subprocess.call([sys.executable, ROOT / "tools" / "ahead.py", address, *targets])
    sys.exit(failed or (main(["--cd", "audit", "repro", *targets]) if audited else 0))
