"""Take clips of your own:  python nbs/stages/bring.py MANIFEST

Checks the manifest and everything that it names, then writes its path, its folder and its concepts into params.yaml,
where `dvc repro` finds them. Exit status 1, and params.yaml as it was, when a run could not start.
With the word `simulated` instead of a path, the embedded corpus comes back.
"""

import sys
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from mmdisaster.corpus import PAPER_TABLE_ONE, check_manifest, count_concepts
from mmdisaster.inspection import format_problems, inspect_corpus

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = {"manifest": "simulated", "watched": "mmdisaster/__init__.py", "concepts": list(PAPER_TABLE_ONE)}


def shown(path: Path) -> str:
    """A path as params.yaml keeps it: relative to the project where it lies inside."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def bring(manifest: Path, known: list[str], max_failures: float) -> dict:
    """Params of a manifest, once it is checked; raises `SystemExit` where a run could not start."""
    named = list(count_concepts(check_manifest(manifest)[0]))
    stated = known if set(named) <= set(known) else None  # concepts that were stated before, and their order, stay
    found = inspect_corpus(manifest, stated, max_failures=max_failures)
    print(format_problems(found), file=sys.stderr)
    if not found.can_start:
        raise SystemExit(1)
    return {"manifest": shown(manifest), "watched": shown(manifest.parent), "concepts": stated or named}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 200, True
    params = yaml.load(ROOT / "params.yaml")
    section = params["corpus"]
    allowed = min(params["features"][modality]["max_failures"] for modality in ["visual", "audio"])
    try:
        taken = EMBEDDED
        if arguments != ["simulated"]:
            taken = bring(Path(arguments[0]).resolve(), list(section["concepts"]), allowed)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, value in taken.items():
        if section[name] != value:
            section[name] = CommentedSeq(value) if isinstance(value, list) else value
    section["concepts"].fa.set_flow_style()
    yaml.dump(params, ROOT / "params.yaml")
    print(f"params.yaml: corpus.manifest is {taken['manifest']}, concepts are {', '.join(taken['concepts'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
