"""Is what pyproject.toml states true?  python tools/ranges.py [PYTHON ...]

Builds the wheel; installs it under each Python that this machine has (3.11, 3.12, 3.13, or those named), once with the
lowest stated version of each dependency and once with the newest; runs tools/smoke.py there. Environments are fresh,
one at a time, and removed. Asks pip's index; each environment is up to 6 GB (PyTorch with CUDA) and takes minutes.
Exit status 1 where one fails. A Python that isn't there is skipped with a printed line.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def lowest() -> list[str]:
    """The lowest stated version of each direct dependency, as constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for line in project["dependencies"]:
        need = Requirement(line)
        versions = [part.version for part in need.specifier if part.operator in (">=", "==", "~=")]
        if len(versions) != 1:
            raise ValueError(f"pyproject.toml: {line!r} must state one lowest version")
        found.append(f"{need.name}=={versions[0]}" + (f"; {need.marker}" if need.marker else ""))
    return found


def find_python(version: str) -> str | None:
    """A Python of that version, on the path or among pyenv's; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for program in [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}*/bin/python"))]:
        said = "import sys; print('%d.%d' % sys.version_info[:2])"
        asked = program and subprocess.run([program, "-c", said], capture_output=True, encoding="utf-8")
        if asked and asked.stdout.strip() == version:
            return str(program)
    return None


def call(*words: str | Path, cwd: Path) -> str:
    """Run a program; what it prints. Its errors come out as `RuntimeError`."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip())
    return done.stdout.strip()


def build_wheel(folder: Path) -> Path:
    """The wheel, built from a copy: a build folder of earlier days would go into it."""
    source = folder / "source"
    shutil.copytree(ROOT / "mmdisaster", source / "mmdisaster", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, source)
    call(sys.executable, *PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


def try_wheel(python: str, wheel: Path, constraints: list[str]) -> str:
    """Install the wheel into a fresh environment and run the smoke test there; the versions that it names."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "constraints.txt").write_text("\n".join(constraints), encoding="utf-8")
        call(python, "-m", "venv", folder / "venv", cwd=folder)
        mine = folder / "venv" / "bin" / "python"
        call(mine, *PIP, "install", "--only-binary=:all:", "-c", "constraints.txt", wheel, cwd=folder)
        return call(mine, "-I", ROOT / "tools" / "smoke.py", cwd=folder)


def main(arguments: list[str]) -> int:
    failed = 0
    with TemporaryDirectory() as place:
        wheel = build_wheel(Path(place))
        for version in arguments or PYTHONS:
            python = find_python(version)
            if python is None:
                print(f"Python {version}: not on this machine, skipped", flush=True)
                continue
            for name, constraints in [("lowest", lowest()), ("newest", [])]:
                begin = time.monotonic()
                try:
                    words = try_wheel(python, wheel, constraints)
                except RuntimeError as error:
                    words, failed = f"FAILED\n{error}", failed + 1
                print(f"{name} versions, {time.monotonic() - begin:.0f} s: {words}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
