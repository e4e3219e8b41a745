"""Bring your own clips:  python tools/bring.py MANIFEST

Checks the manifest and everything that it names, then writes its path, its folder, its concepts and the folder of its
results into params.yaml, where `dvc repro` finds them. Exit status 1, and params.yaml as it was, when a run could not
start. With the word `simulated` instead of a path, the embedded corpus comes back. Each corpus has results of its own,
and locks of DVC's of its own, so that going there and back changes neither.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from mmdisaster.core import atomic_path
from mmdisaster.data.inspection import format_problems, inspect_corpus
from mmdisaster.data.manifest import check_manifest, count_concepts
from mmdisaster.settings.reading import read_settings
from mmdisaster.settings.sections import Corpus

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"dvc.lock": ROOT / "dvc.lock", "audit.lock": ROOT / "audit" / "dvc.lock"}
KEPT = ROOT / ".dvc" / "tmp" / "corpora"  # locks of other corpora, each in the folder of its results
TAKEN = ["manifest", "watched", "results"]


def outputs() -> list[Path]:
    """What the stages make: files, and folders up to the part that a matrix fills in."""
    found = []
    for file in ["dvc.yaml", "audit/dvc.yaml"]:
        for stage in YAML(typ="safe").load(ROOT / file)["stages"].values():
            names = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
            names = [name.replace("${corpus.results}", "results") for name in names]
            plain = [name.partition("${")[0].rpartition("/")[0] if "${" in name else name for name in names]
            found += [ROOT / name for name in plain]
    return [path for path in found if path not in (ROOT / "data", ROOT / "models", ROOT / "reports", ROOT / "results")]


def check_folder(folder: Path) -> None:
    """Refuse a folder that DVC could not watch: one that holds the project, or what stages make."""
    crossed = [out for out in outputs() if folder.is_relative_to(out) or out.is_relative_to(folder)]
    if ROOT.is_relative_to(folder) or folder.is_relative_to(ROOT / "results") or crossed:
        raise ValueError(
            f"the manifest must lie in a folder of its own, outside what the project makes, was in {folder}; "
            "put it and its media into another folder, such as one beside the project"
        )


def shown(path: Path) -> str:
    """A path as params.yaml keeps it: relative to the project where it lies inside."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def place(manifest: Path) -> str:
    """Where a corpus's results go: called after its folder and its file."""
    name = re.sub(r"[^\w-]+", "-", f"{manifest.parent.name}-{manifest.stem}").strip("-")
    return f"results/own/{name or 'clips'}"


def change_locks(before: str, after: str) -> None:
    """Keep DVC's locks of the corpus whose results are in `before`; bring back those of `after`, and what they name."""
    back = [name for name in LOCKS if before != after and (KEPT / after / name).is_file()]
    for name, lock in LOCKS.items():
        for source, target in [(lock, KEPT / before / name), (KEPT / after / name, lock)]:
            if before != after and source.is_file():
                with atomic_path(target) as temporary:
                    shutil.copyfile(source, temporary)
    if back:  # what the cache doesn't have is made again
        program = [sys.executable, "-m", "dvc", "checkout", "--force", "--quiet"]
        subprocess.run(program, cwd=ROOT, stderr=subprocess.DEVNULL)


def bring(manifest: Path, known: list[str], max_failures: float) -> dict:
    """Params of a manifest, once it is checked; raises `SystemExit` where a run could not start."""
    check_folder(manifest.parent)
    named = list(count_concepts(check_manifest(manifest)[0]))
    stated = known if set(named) == set(known) else None  # an order that was stated before stays
    found = inspect_corpus(manifest, stated, max_failures=max_failures)
    print(format_problems(found), file=sys.stderr)
    if not found.can_start:
        raise SystemExit(1)
    where = {"manifest": shown(manifest), "watched": shown(manifest.parent), "results": place(manifest)}
    return {**where, "concepts": stated or named}


def write(section: dict, taken: dict) -> None:
    """Put what was taken into a section, quoted: `No` and `1:30` are names, too."""
    for name in TAKEN:
        section[name] = DoubleQuotedScalarString(taken[name])
    concepts = CommentedSeq(map(DoubleQuotedScalarString, taken["concepts"]))
    concepts.fa.set_flow_style()
    section["concepts"] = concepts
    for name in taken.keys() & section.ca.items.keys():
        section.ca.items[name][2].column = 0  # comments follow their values


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    taken = {name: getattr(Corpus(), name) for name in [*TAKEN, "concepts"]}
    try:
        settings = read_settings(ROOT / "params.yaml")
        if arguments != ["simulated"]:
            allowed = min(settings.features.visual.max_failures, settings.features.audio.max_failures)
            given = Path(arguments[0]).expanduser()
            manifest = given.parent.resolve() / given.name  # the name stays: DVC may link it into its cache
            taken = bring(manifest, list(settings.corpus.concepts), allowed)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    params = yaml.load(ROOT / "params.yaml") or CommentedMap()
    write(params.setdefault("corpus", CommentedMap()), taken)
    with atomic_path(ROOT / "params.yaml") as temporary:
        yaml.dump(params, temporary)
    change_locks(settings.corpus.results, taken["results"])
    print(f"params.yaml: corpus.manifest is {taken['manifest']}, concepts are {', '.join(taken['concepts'])}")
    print(f"Tables and figures go to {taken['results']}/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
