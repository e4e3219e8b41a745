"""Bring your own clips:  python tools/bring.py [--remote] MANIFEST [SPLIT]

Checks the manifest and everything that it names, then writes into params.yaml, where `dvc repro` finds them, its path,
its folder, its concepts, the modalities that it lacks, the folder of its results, and how its clips are split: as the
manifest, or the table SPLIT beside it, says; else by video where videos have several clips. Makes the graphs of stages
fit. Exit status 1, and params.yaml as it was, when a run could not start. With --remote, media may be addresses
(`corpus.remote`). With the word `simulated` instead of a path, the embedded corpus comes back. Each corpus has results
of its own, and locks of DVC's of its own, so that going there and back changes neither.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString
from stages import FILES, refresh

from mmdisaster.core import atomic_path
from mmdisaster.data.given import given_column
from mmdisaster.data.inspection import format_problems
from mmdisaster.data.manifest import check_manifest, count_concepts
from mmdisaster.settings.reading import read_settings, with_changes
from mmdisaster.settings.sections import Corpus, Split
from mmdisaster.settings.tree import Settings
from mmdisaster.steps.corpus import look_at_corpus
from mmdisaster.steps.split import choose_split, split_corpus

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {"dvc.lock": ROOT / "dvc.lock", "audit.lock": ROOT / "audit" / "dvc.lock"}
KEPT = ROOT / ".dvc" / "tmp" / "corpora"  # locks of other corpora, each in the folder of its results
TAKEN = ["manifest", "watched", "results"]
WHOLE = [*TAKEN, "concepts", "absent", "remote"]


def outputs() -> list[Path]:
    """What the stages make: files, and folders up to the part that a matrix fills in."""
    found = []
    for file in FILES:
        for stage in YAML(typ="safe").load(ROOT / file)["stages"].values():
            names = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
            names = [name.replace("${corpus.results}", "results") for name in names]
            plain = [name.partition("${")[0].rpartition("/")[0] if "${" in name else name for name in names]
            found += [Path(os.path.normpath((ROOT / file).parent / name)) for name in plain]
    shared = [place / name for place in (ROOT, ROOT / "audit") for name in ("data", "models", "reports", "results")]
    return [path for path in found if path not in shared]


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
        for file in FILES:
            subprocess.run(program, cwd=(ROOT / file).parent, stderr=subprocess.DEVNULL)


def bring(manifest: Path, settings: Settings, beside: str | None, remote: bool) -> tuple[dict, Split]:
    """Params of a manifest, once it is checked, and its split; raises `SystemExit` where a run could not start."""
    check_folder(manifest.parent)
    known, kept = list(settings.corpus.concepts), settings.split
    same, first = settings.corpus.manifest == shown(manifest), settings.corpus.manifest == "simulated"
    again = same and not beside
    remote = remote or (settings.corpus.remote and (same or first))  # what was said of another corpus isn't of this one
    settings = with_changes(settings, {"corpus.remote": remote})
    given = kept.file if again else beside
    table = check_manifest(manifest, given=given, remote=settings.corpus.remote)[0]
    named = list(count_concepts(table))
    stated = known if set(named) == set(known) else None  # an order that was stated before stays
    found, absent = look_at_corpus(manifest, settings, stated, given=given)
    print(format_problems(found), file=sys.stderr)
    if not found.can_start:
        raise SystemExit(1)
    if not again or (kept.by == "given" and not given_column(table)):  # else: what was chosen for it before
        kept = choose_split(Split(fractions=kept.fractions, seed=kept.seed, file=given), table)
    split_corpus(table, stated or named, kept)  # refused here, not after hours
    where = {"manifest": shown(manifest), "watched": shown(manifest.parent), "results": place(manifest)}
    taken = {**where, "concepts": stated or named, "absent": absent, "remote": remote}
    with_changes(settings, {f"corpus.{name}": value for name, value in taken.items()})
    for name in absent:
        print(f"{name} takes no part: no clip has {settings.modalities[name].reads}", file=sys.stderr)
    return taken, kept


def write_split(section: dict, split: Split) -> None:
    """Put how clips are split into a section."""
    for name in ["by", "file", "fold"]:
        value = getattr(split, name)
        section[name] = DoubleQuotedScalarString(value) if isinstance(value, str) else value
        if name in section.ca.items:
            section.ca.items[name][2].column = 0


def write(section: dict, taken: dict) -> None:
    """Put what was taken into a section, quoted: `No` and `1:30` are names, too."""
    for name in TAKEN:
        section[name] = DoubleQuotedScalarString(taken[name])
    for name in ["concepts", "absent"]:
        section[name] = CommentedSeq(map(DoubleQuotedScalarString, taken[name]))
        section[name].fa.set_flow_style()
    section["remote"] = taken["remote"]
    for name in taken.keys() & section.ca.items.keys():
        section.ca.items[name][2].column = 0  # comments follow their values


def main(arguments: list[str]) -> int:
    remote = "--remote" in arguments
    arguments = [word for word in arguments if word != "--remote"]
    if len(arguments) not in (1, 2) or arguments[0] == "simulated" != arguments[-1]:
        print(__doc__, file=sys.stderr)
        return 2
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 4096, True
    yaml.representer.add_representer(type(None), lambda to, _: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    taken = {name: getattr(Corpus(), name) for name in WHOLE}
    try:
        settings = read_settings(ROOT / "params.yaml")
        split = settings.split if settings.corpus.manifest == "simulated" else Split()
        if arguments != ["simulated"]:
            given = Path(arguments[0]).expanduser()
            manifest = given.parent.resolve() / given.name  # the name stays: DVC may link it into its cache
            taken, split = bring(manifest, settings, arguments[1] if arguments[1:] else None, remote)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    params = yaml.load(ROOT / "params.yaml") or CommentedMap()
    write(params.setdefault("corpus", CommentedMap()), taken)
    write_split(params.setdefault("split", CommentedMap()), split)
    with atomic_path(ROOT / "params.yaml") as temporary:
        yaml.dump(params, temporary)
    change_locks(settings.corpus.results, taken["results"])
    refresh()
    print(f"params.yaml: corpus.manifest is {taken['manifest']}, concepts are {', '.join(taken['concepts'])}")
    print(f"params.yaml: split.by is {split.by}")
    print(f"Tables and figures go to {taken['results']}/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
