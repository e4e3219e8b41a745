"""Write params.yaml and its schema from the settings:  python tools/params.py [--defaults | --check]

The values in params.yaml stay, unless --defaults asks for laptop scale. With --check, change nothing and exit with
status 1 where a file isn't what the library's settings say.
"""

import json
import sys
from pathlib import Path

from mmdisaster.core import atomic_path
from mmdisaster.settings.reading import SCHEMA_FILE, SettingsError, read_settings, settings_schema, settings_yaml

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> int:
    try:
        settings = read_settings(None if "--defaults" in arguments else ROOT / "params.yaml")
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    schema = json.dumps(settings_schema(), indent=1, ensure_ascii=False) + "\n"
    wanted = {"params.yaml": settings_yaml(settings), SCHEMA_FILE: schema}
    known = {name: (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).is_file() else "" for name in wanted}
    stale = [name for name in wanted if wanted[name] != known[name]]
    if "--check" in arguments:
        print(*(f"{name} is stale: run `python tools/params.py`" for name in stale), sep="\n", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        with atomic_path(ROOT / name) as temporary:
            temporary.write_text(wanted[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
