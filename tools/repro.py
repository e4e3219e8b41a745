"""`dvc repro` that ends with whoever started it, such as make:  python tools/repro.py [TARGET ...]

Before it the graphs are made to fit params.yaml, which says which modalities and rows there are.

DVC writes dvc.lock in place, so that a kill can cut it off, and then refuses to run. What is cut off goes to .dvc/tmp
here: DVC writes another, and takes what was made before from its cache.
"""

import os
import sys
from pathlib import Path

from mmdisaster.runs import end_with_parent

end_with_parent(os.getppid())

from dvc.cli import main  # noqa: E402
from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: E402
from ruamel.yaml import YAML, YAMLError  # noqa: E402
from stages import refresh  # noqa: E402
from voluptuous import Invalid  # noqa: E402

from mmdisaster.settings import SettingsError  # noqa: E402

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


if __name__ == "__main__":
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
    sys.exit(main(["repro", *sys.argv[1:]]))
