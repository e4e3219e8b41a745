"""Kill runs at random moments, and start two at once:  python tools/kill.py [kills=100] [pairs=20] [seed=0] [only=…]

`train` and `extract` start in an empty folder, are killed by SIGKILL, SIGTERM or SIGINT, and run again. What
`make repro` and `make audit` run (of the audit: trials, comparison) is killed every few seconds until it gets through.
In the end each file must have the bytes of a run that nobody killed, no file may be left over, and no process alive.
Two `train` in one work folder, of corpora whose clips have equal names, start at random offsets: each model must be the
one made alone. What differs is printed and counted; the exit status is 1 then. `only` names some of train, extract,
repro, audit, pairs, with commas.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml
from smoke import SETTINGS

from mmdisaster.core import digest_file, digest_json, save_json
from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import SMALL, copy_project, environment  # noqa: E402

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
SHARES = {"train": 0.45, "extract": 0.25, "repro": 0.2, "audit": 0.1}
MARK = "MMDISASTER_KILLED_RUN"
TRIMMED = ("params.yaml", "audit/dvc.yaml")
AUDIT = ["python", "tools/repro.py", "audit", "comparison"]
IGNORED = {".dvc", "__pycache__", "log"}


@dataclass
class Tally:
    """What was done, and what went wrong."""

    done: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def expect(self, right: bool, what: str) -> None:
        if not right:
            self.faults.append(what)
            print(f"  WRONG: {what}", flush=True)


def digest_of(path: Path) -> str:
    """The digest of a file; of a lock that of its entries, whose order is that in which DVC came to them."""
    is_lock = path.name == "dvc.lock"
    return digest_json(yaml.safe_load(path.read_text(encoding="utf-8"))) if is_lock else digest_file(path)


def digests(folder: Path) -> dict[str, str]:
    """Path → digest of every file that a run is answerable for."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    parts = ((path, path.relative_to(folder)) for path in found)
    return {str(name): digest_of(path) for path, name in parts if not IGNORED & {*name.parts}}


def differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Names of files that only one has, or that differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


STARTED: list[subprocess.Popen] = []


def start(folder: Path, command: list[str]) -> subprocess.Popen:
    """Start a command in a folder, as the leader of a group; it and its children carry the folder's mark."""
    log = (folder / "log").open("a")
    marked = environment(folder if (folder / "mmdisaster").is_dir() else ROOT) | {MARK: str(folder)}
    STARTED.append(subprocess.Popen(command, cwd=folder, env=marked, stdout=log, stderr=log, start_new_session=True))
    return STARTED[-1]


def alive(folder: Path) -> list[psutil.Process]:
    """Processes that carry a folder's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue  # ended meanwhile, or another user's
    return found


def kill(process: subprocess.Popen, number: int, folder: Path, tally: Tally) -> None:
    """Kill a run, its first process or, as ^C in a terminal, all of them; nothing may live five seconds later."""
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    process.wait(120)
    until = time.time() + 5
    while (left := alive(folder)) and time.time() < until:
        time.sleep(0.1)
    said = [f"{other.pid}: {' '.join(other.cmdline())} ({other.status()})" for other in left if other.is_running()]
    tally.expect(not said, f"alive after {signal.Signals(number).name}: {said}")
    for other in left:
        other.kill()


def finish(folder: Path, command: list[str], tally: Tally) -> float:
    """Run a command to its end; seconds that it took."""
    begun = time.time()
    status = start(folder, command).wait()
    said = (folder / "log").read_text(encoding="utf-8")[-2000:]
    tally.expect(status == 0, f"{' '.join(command)} ended with {status}:\n{said}")
    return time.time() - begun


@contextmanager
def place(fill: Callable[[Path], object]) -> Iterator[Path]:
    """A folder to run in."""
    folder = Path(tempfile.mkdtemp(prefix="mmdisaster-kill-"))
    try:
        fill(folder)
        yield folder
    finally:
        shutil.rmtree(folder)


def corpora(folder: Path) -> None:
    """Two small corpora whose clips have equal names, and settings."""
    counts = {"Flood/Storm": 14, "Damage": 10, "Speak/Briefing/Interview": 12}
    for name, clips, seed in [("one", 24, 5), ("two", 20, 6)]:
        settings = SimulationSettings(clips, 12, counts, 100, 76, seconds=1.2, seed=seed)
        simulate_corpus(folder / name, settings, workers=1)
    save_json(folder / "settings.json", SETTINGS)


def command_of(name: str, corpus: str = "one", out: str = "out", work: str = "work") -> list[str]:
    """`train` or `extract` on a corpus."""
    given = [
        f"{corpus}/manifest.csv",
        "--settings",
        "settings.json",
        "--out",
        out if name == "train" else work,
        "--quiet",
    ]
    return ["mmdisaster", name, *given, *(["--work", work] if name == "train" else [])]


def kill_once(name: str, kills: int, chance: random.Random, tally: Tally) -> None:
    """Kill a command in an empty folder, at a moment anywhere in its time, and run it again."""
    with place(corpora) as empty, place(lambda folder: shutil.copytree(empty, folder, dirs_exist_ok=True)) as whole:
        seconds = finish(whole, command_of(name), tally)
        expected = digests(whole)
        while tally.done[name] < kills:
            with place(lambda folder: shutil.copytree(empty, folder, dirs_exist_ok=True)) as folder:
                process, number = start(folder, command_of(name)), SIGNALS[tally.done[name] % 3]
                time.sleep(chance.uniform(0, 1.05 * seconds))
                if process.poll() is not None:
                    continue
                kill(process, number, folder, tally)
                left = len([path for path in folder.rglob(".*")])
                finish(folder, command_of(name), tally)
                tally.expect(not (wrong := differing(digests(folder), expected)), f"{name} killed: {wrong[:5]}")
                tally.done[name] += 1
                tally.done[f"{name}, files of a killed run that went"] += left
                print(f"{name} {tally.done[name]} of {kills}: {signal.Signals(number).name}", flush=True)


def kill_often(name: str, command: list[str], kills: int, fill: Callable, chance: random.Random, tally: Tally) -> None:
    """Kill a command every few seconds until it gets through, as often as it takes."""
    with place(fill) as whole:
        seconds = finish(whole, command, tally)
        expected = digests(whole)
    while tally.done[name] < kills:
        with place(fill) as folder:
            while tally.done[name] < kills:
                process, number = start(folder, command), SIGNALS[tally.done[name] % 3]
                time.sleep(chance.uniform(0, seconds / 3))
                if process.poll() is not None:
                    break
                kill(process, number, folder, tally)
                tally.done[name] += 1
                print(f"{name} {tally.done[name]} of {kills}: {signal.Signals(number).name}", flush=True)
            finish(folder, command, tally)
            tally.expect(not (wrong := differing(digests(folder), expected)), f"{name} killed: {wrong[:5]}")


def trim(folder: Path) -> None:
    """The audit of two seeds."""
    params, graph = (yaml.safe_load((folder / name).read_text(encoding="utf-8")) for name in TRIMMED)
    kept = graph["stages"]["trials"]["matrix"]["seed"] = [2019, 2020]
    for name in ["comparison", "leakage", "sensitivity", "control", "missing", "grid", "tuning"]:
        params[name]["seeds"] = kept
    compared = graph["stages"]["comparison"]
    compared["deps"] = [
        dep for dep in compared["deps"] if "data/trials/" not in dep or int(dep.rpartition("-")[2]) in kept
    ]
    for name, tree in zip(TRIMMED, (params, graph), strict=True):
        (folder / name).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def run_pairs(pairs: int, chance: random.Random, tally: Tally) -> None:
    """Two trainings in one work folder, at once: of one corpus, or of two, in turns."""
    with place(corpora) as empty, place(lambda folder: shutil.copytree(empty, folder, dirs_exist_ok=True)) as whole:
        seconds = max(
            finish(whole, command_of("train", name, f"out-{name}", f"work-{name}"), tally) for name in ("one", "two")
        )
        alone = {name: digests(whole / f"out-{name}") for name in ("one", "two")}
        for number in range(pairs):
            with place(lambda folder: shutil.copytree(empty, folder, dirs_exist_ok=True)) as folder:
                names = ("one", "two" if number % 2 else "one")
                first = start(folder, command_of("train", names[0], "out-first"))
                time.sleep(chance.uniform(0, seconds))
                second = start(folder, command_of("train", names[1], "out-second"))
                for process, name, out in [(first, names[0], "out-first"), (second, names[1], "out-second")]:
                    tally.expect(process.wait() == 0, f"a pair: {(folder / 'log').read_text('utf-8')[-2000:]}")
                    wrong = differing(digests(folder / out), alone[name])
                    tally.expect(not wrong, f"a model made beside another: {wrong}")
                waited = "waiting for another run" in (folder / "log").read_text(encoding="utf-8")
                tally.done["pairs, the second waited" if waited else "pairs, one after the other"] += 1
                tally.expect(not [*folder.rglob(".*")], "a pair left files over")


def main(arguments: list[str]) -> int:
    """Exit status 0: nothing went wrong; 1: something did."""
    given = {"kills": "100", "pairs": "20", "seed": "0", "only": ",".join([*SHARES, "pairs"])}
    given |= dict(word.split("=", 1) for word in arguments)
    chance, tally, only = random.Random(int(given["seed"])), Tally(), given["only"].split(",")
    shares = {name: share for name, share in SHARES.items() if name in only}
    wanted = {name: max(1, round(int(given["kills"]) * share / sum(shares.values()))) for name, share in shares.items()}
    for name in ("train", "extract"):
        if name in only:
            kill_once(name, wanted[name], chance, tally)
            print(dict(tally.done), flush=True)
    if "repro" in only:
        kill_often("repro", ["python", "tools/repro.py"], wanted["repro"], copy_project, chance, tally)
        print(dict(tally.done), flush=True)
    if "audit" in only:
        with place(copy_project) as ready:
            trim(ready)
            finish(ready, ["dvc", "repro"], tally)
            fill = lambda folder: shutil.copytree(ready, folder, dirs_exist_ok=True)  # noqa: E731
            kill_often("audit", AUDIT, wanted["audit"], fill, chance, tally)
    if "pairs" in only:
        run_pairs(int(given["pairs"]), chance, tally)
    return report(tally, given["seed"])


def report(tally: Tally, seed: str) -> int:
    """Print the counts; the exit status."""
    print("\n".join(f"{count:>5} {what}" for what, count in tally.done.items()))
    print(f"{len(tally.faults):>5} faults, seed {seed}, {SMALL['corpus']['clips']} clips in repro and audit")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        for process in STARTED:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
