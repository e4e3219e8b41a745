"""Run component notebooks from top to bottom, as nbdev_test does:  python tools/lessons.py [--fast] [NOTEBOOK ...]

All of them, or those named; with --fast, those that take seconds. Libraries, ours among them, are loaded once: each
notebook runs in a fork of this process. Exit status 1 with the tracebacks of those that fail.
"""

import os
import pkgutil
import sys
import time
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import librosa.feature  # noqa: E402, F401
import matplotlib.pyplot  # noqa: E402, F401
import seaborn  # noqa: E402, F401
import sklearn.ensemble  # noqa: E402, F401
from nbdev.test import test_nb as run_notebook  # noqa: E402

import mmdisaster  # noqa: E402
from mmdisaster.static.inception import torchvision_models  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SLOW = {  # more than seven seconds of a processor
    "index",
    "2_method/01_inception",
    "2_method/02_soundnet",
    "2_method/08_extractors",
    "5_doubt/03_bounds",
    "5_doubt/10_student",
    "5_doubt/11_distillation",
    "6_use/01_formats",
    "6_use/03_published",
    "6_use/05_training",
    "6_use/06_folder",
    "6_use/07_cli",
}


def load_library() -> None:
    """Import every module of the library, and what it imports late."""
    for module in pkgutil.walk_packages(mmdisaster.__path__, "mmdisaster."):
        if not module.name.endswith("_modidx"):
            import_module(module.name)
    torchvision_models()


def lessons(fast: bool) -> list[Path]:
    """Component notebooks in reading order."""
    paths = sorted(path for path in (ROOT / "nbs").glob("**/*.ipynb") if path.parent.name != "stages")
    slow = {ROOT / "nbs" / f"{name}.ipynb" for name in SLOW} if fast else set()
    return [path for path in paths if path not in slow]


def run(path: Path) -> None:
    """Run one notebook, in a process of its own; ends it with status 1 where a cell fails."""
    done, _ = run_notebook(path, skip_flags=["notest", "slow"], basepath=ROOT)
    print(f"{path.relative_to(ROOT)}: {time.process_time():.1f} s", flush=True)
    sys.exit(not done)


def main(arguments: list[str]) -> int:
    load_library()
    named = [Path(name).resolve() for name in arguments if name != "--fast"]
    waiting, running, failed = (named or lessons("--fast" in arguments))[::-1], [], []
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            path = waiting.pop()
            name = path.relative_to(ROOT).as_posix()
            running.append(get_context("fork").Process(target=run, args=(path,), name=name))
            running[-1].start()
        wait([process.sentinel for process in running])
        ended = [process for process in running if not process.is_alive()]
        failed += [process.name for process in ended if process.exitcode]
        running = [process for process in running if process not in ended]
    print(*(f"FAILED {name}" for name in sorted(failed)), sep="\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
