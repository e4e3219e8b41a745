"""Damaged and hostile inputs, by the hundred, each in a process of its own; `make fuzz` runs them.

    python tools/fuzz.py [--fraction 0.1] [--seed 7] [--kinds weights,models] [--only 17] [--keep FOLDER]

Each kind is a module `fuzz_KIND.py` with `cases(seed, folder, n)`, which yields pairs of a name and what to do: a
function, or a command line (of `mmdisaster`, or of Python). What happens is one of

- read: the input was taken after all;
- refused: an error of this library's own, one line that names the file;
- disagreement: two ways to read an input don't agree about it (a function returns "disagreement: …");
- traceback: any other error, and the end of a process by a signal;
- hang: no end within a minute;
- memory: more than 2 GiB at once.

Exit status 1 where anything but the first two happened; what such a case read is kept, with its number and the seed.
"""

import argparse
import faulthandler
import importlib
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {"media": 500, "tables": 200, "models": 250, "weights": 150, "settings": 171}
OUTCOMES = ["read", "refused", "disagreement", "traceback", "hang", "memory"]
FAULTS = OUTCOMES[2:]
SECONDS, BYTES = 60.0, 2 * 2**30
Action = Callable[[], Any] | list[str]


@dataclass
class Case:
    """An input that is being tried in a process of its own."""

    kind: str
    number: int
    name: str
    action: Action
    folder: Path  # where its result and what it prints go
    pid: int = 0
    begun: float = field(default_factory=time.monotonic)
    killed: str = ""
    peak: int = 0  # bytes
    outcome: str = ""
    words: str = ""
    seconds: float = 0.0


# --- in the process of one case --------------------------------------------------------------------------------------


def call(action: Callable[[], Any], name: str) -> tuple[str, str]:
    """Outcome and words of a function."""
    try:
        found = action()
    except (ValueError, OSError) as error:
        words = str(error)
        if "\n" in words.strip() or len(words) > 4000:
            return "traceback", f"not one line: {words[:2000]}"
        if name not in words:
            return "traceback", f"doesn't name {name}: {words}\n{traceback.format_exc()[-2000:]}"
        return "refused", words
    except BaseException:
        return "traceback", traceback.format_exc()[-4000:]
    if isinstance(found, str) and found.startswith("disagreement: "):
        return "disagreement", found
    return "read", ""


def run(command: list[str]) -> int:
    """Run a command line in this process; its exit status."""
    from mmdisaster.cli import main

    if command[0] != sys.executable:
        return main(command[command[0] == "mmdisaster" :])
    try:
        if command[1] == "-c":
            sys.argv = ["-c", *command[3:]]
            exec(command[2], {"__name__": "__main__"})
        else:
            sys.argv = command[1:]
            runpy.run_path(command[1], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def command(action: list[str], folder: Path) -> tuple[str, str]:
    """Outcome and words of a command line."""
    try:
        status = run(action)
    except BaseException:
        return "traceback", traceback.format_exc()[-4000:]
    sys.stdout.flush()
    sys.stderr.flush()
    said = "".join((folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr"))
    if "Traceback (most recent call last)" in said:
        return "traceback", said[-4000:]
    if status and not said.strip():
        return "traceback", f"exit status {status} without a word"
    return ("refused" if status else "read"), said[-2000:]


def child(case: Case) -> None:
    """Try a case and write down what happened; never returns."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # a test's own, which would report where it was started
    for stream, name in [(1, "stdout"), (2, "stderr")]:
        file = os.open(case.folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, stream)
        setattr(sys, name, open(stream, "w", buffering=1, closefd=False, errors="backslashreplace"))
    warnings.simplefilter("ignore")
    callable_ = callable(case.action)
    outcome, words = call(case.action, case.name) if callable_ else command(case.action, case.folder)  # type: ignore[arg-type]
    (case.folder / "result.json").write_text(json.dumps([outcome, words]), encoding="utf-8")
    os._exit(0)


# --- in the process that watches -------------------------------------------------------------------------------------


def memory(pid: int) -> int:
    """Bytes that a process has in memory now; 0 where the system doesn't say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def start(case: Case) -> None:
    """Try a case in a process of its own, a copy of this one with the library loaded."""
    shutil.rmtree(case.folder, ignore_errors=True)
    case.folder.mkdir(parents=True)
    sys.stdout.flush()
    case.begun, case.pid = time.monotonic(), os.fork()
    if not case.pid:
        try:
            child(case)
        finally:
            os._exit(3)


def ended(case: Case) -> bool:
    """Whether a case has ended; what it did then stands in it."""
    if not case.killed:
        late, size = time.monotonic() - case.begun > SECONDS, memory(case.pid)
        case.peak = max(case.peak, size)
        case.killed = "hang" if late else "memory" if size > BYTES else ""
        if case.killed:
            os.kill(case.pid, signal.SIGKILL)  # not its group, which it may not have made yet
    pid, status, used = os.wait4(case.pid, os.WNOHANG)
    if not pid:
        return False
    try:
        os.killpg(case.pid, signal.SIGKILL)  # whatever it has started
    except (ProcessLookupError, PermissionError):
        pass
    case.seconds = time.monotonic() - case.begun
    case.peak = max(case.peak, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    result = case.folder / "result.json"
    if case.killed or case.peak > BYTES:
        case.outcome, case.words = case.killed or "memory", f"{case.seconds:.0f} s, {case.peak / 2**20:.0f} MiB"
    elif result.is_file():
        case.outcome, case.words = json.loads(result.read_text(encoding="utf-8"))
    else:
        said = (case.folder / "stderr").read_text(encoding="utf-8", errors="replace")[-2000:]
        case.outcome, case.words = "traceback", f"ended with status {status}: {said}"
    return True


def inputs(case: Case, folder: Path) -> list[Path]:
    """What a case reads: what is called by its name, and files that its command names."""
    if callable(case.action):
        named = [folder / case.name]
    else:
        named = [Path(word) for word in case.action if word.startswith(str(folder))]
    return [path for path in named if path.exists()]


def finish(case: Case, folder: Path, keep: Path, seed: int) -> None:
    """Tell of a fault, keep its input, and clear up."""
    if case.outcome in FAULTS:
        kept = keep / f"{case.kind}-{seed}-{case.number}"
        kept.mkdir(parents=True, exist_ok=True)
        for path in inputs(case, folder):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, kept / path.name, **({"dirs_exist_ok": True} if path.is_dir() else {}))  # type: ignore[operator]
        shown = case.action if isinstance(case.action, list) else case.name
        (kept / "what.txt").write_text(f"{case.outcome}\n{shown}\n\n{case.words}\n", encoding="utf-8")
        last = next(iter(case.words.strip().splitlines()[-1:]), "")
        print(f"{case.kind} {case.number} {case.name}: {case.outcome}: {last[:300]} → {kept}", flush=True)
    if callable(case.action):
        for path in inputs(case, folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(case.folder, ignore_errors=True)


def every(kind: str, seed: int, folder: Path, n: int, only: int | None) -> Iterator[Case]:
    """The cases of a kind."""
    module = importlib.import_module(f"fuzz_{kind}")
    for number, (name, action) in enumerate(module.cases(seed, folder, n)):
        if only in (None, number):
            yield Case(kind, number, name, action, folder / ".running" / str(number))


def tried(cases: Iterator[Case], jobs: int) -> Iterator[Case]:
    """Cases as they end, some at the same time."""
    running: list[Case] = []
    waiting = True
    while waiting or running:
        while waiting and len(running) < jobs:
            case = next(cases, None)
            waiting = case is not None
            if case:
                start(case)
                running.append(case)
        for case in [case for case in running if ended(case)]:
            running.remove(case)
            yield case
        time.sleep(0.01)


def row(cells: list[Any]) -> str:
    """A row of the table that is printed."""
    return f"{cells[0]:10}" + "".join(f"{cell:>13}" for cell in cells[1:])


def main() -> int:
    """Try all kinds and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the cases, such as 0.1")
    parser.add_argument("--seed", type=int, default=2019)
    parser.add_argument("--kinds", default=",".join(COUNTS), help="separated by commas")
    parser.add_argument("--only", type=int, help="number of one case")
    parser.add_argument("--jobs", type=int, default=2, help="cases at the same time")
    parser.add_argument("--keep", type=Path, default=ROOT / ".fuzz", help="folder for what did not go well")
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
    for name in ("cli", "model.folder", "model.training", "weights.formats", "data.inspection"):
        importlib.import_module(f"mmdisaster.{name}")
    print(row(["", "cases", *OUTCOMES, "seconds", "peak MiB"]), flush=True)
    faults = 0
    for kind in asked.kinds.split(","):
        begun, counts, peak = time.monotonic(), Counter[str](), 0
        with tempfile.TemporaryDirectory(prefix=f"fuzz-{kind}-") as place:
            cases = every(kind, asked.seed, Path(place), max(round(asked.fraction * COUNTS[kind]), 1), asked.only)
            for case in tried(cases, asked.jobs):
                counts[case.outcome] += 1
                peak = max(peak, case.peak)
                finish(case, Path(place), asked.keep, asked.seed)
        took = f"{time.monotonic() - begun:.0f}"
        print(row([kind, counts.total(), *(counts[name] for name in OUTCOMES), took, peak >> 20]), flush=True)
        faults += sum(counts[name] for name in FAULTS)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
