"""A process that has loaded the libraries, and is forked for each stage:  started by tools/repro.py, which it ends with

Loading torch, scikit-learn and the rest takes a stage longer than most of what it does. Here that is done once, when
the first stage asks. `tools/stage.py`, as DVC starts it, then hands over: its arguments, folder, environment and
standard streams go to a fork, and it ends as that ends. Only installed libraries are loaded before the fork: the
project's own are read by each stage anew, as DVC has just digested them. Where no such process is there, or it has
begun in another environment, a stage runs by itself; the bytes are the same.

Between this process and a stage stands a keeper, that passes signals on, and ends the stage when whoever waits for it
is gone: `tools/stage.py`, or `tools/repro.py`.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NoReturn

# What whoever runs a stage may have set, and what would reach its notebook or change what it prints: start-up code,
# warnings as errors, checks switched off, figure settings, widths and colours.
FOREIGN = (
    "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONIOENCODING", "MPLBACKEND",
    "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR",
)  # fmt: skip
OWN = {"PYTHONUTF8": "1", "LC_ALL": "C", "TZ": "UTC"}  # text is UTF-8 whatever the locale; C is there everywhere
FIGURES = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": os.devnull}

ADDRESS = "MMDISASTER_READY"  # the environment variable with the name of the socket, and the number of who began it
OF_SHELLS = ("_", "SHLVL", "PWD", "OLDPWD", ADDRESS)  # with DVC_…: what differs between stages and reaches no library
ACCEPTED, INTERRUPT = b"+", bytes([signal.SIGINT])
RELAYED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED: list[int] = []  # the exit status of a program that has run here
PATIENCE = 10  # seconds in which a request must be here
LIBRARIES = (
    "IPython.core.interactiveshell", "av", "gensim.models", "librosa", "matplotlib.pyplot", "nbformat", "pandas",
    "papermill", "pydantic.main", "ruamel.yaml", "safetensors.numpy", "scipy.signal", "scipy.stats", "seaborn",
    "sklearn.ensemble", "sklearn.feature_extraction.text", "sklearn.feature_selection", "sklearn.inspection",
    "sklearn.multiclass", "sklearn.svm", "torch",
)  # fmt: skip

# nbformat validates through jsonschema, which loads a checker of internationalised addresses where there is one: 2.5 s
# to build its grammar, for a format that notebooks don't use. Where there is none, jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def keep_tree_clean() -> None:
    """Write no compiled code beside the library's modules: DVC counts it in the audit, which no .dvcignore reaches."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).resolve().parents[1] / ".dvc" / "tmp" / "numba")


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that a stage runs in, where DVC was given another."""
    return {name: value for name, value in environment.items() if name not in FOREIGN} | OWN


def lasting(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment libraries may read when they are loaded: all but what DVC and shells set per stage."""
    return {name: of for name, of in environment.items() if name not in OF_SHELLS and not name.startswith("DVC_")}


def own_user(connection: socket.socket) -> bool:
    """Whether at the other end is a process of this user."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", peer)[1] == os.getuid()


def start(environment: MutableMapping[str, str]) -> socket.socket | None:
    """Start the process for stages that are run with an environment, and note its address there.

    It ends when what is returned is closed, or this process ends.
    """
    if sys.platform != "linux":
        return None
    from mmdisaster.runs import end_with_parent

    (lifeline, end), listening = socket.socketpair(), socket.socket(socket.AF_UNIX)
    listening.bind("")  # to a name that the system chooses and that is no file
    listening.listen()
    with end, listening:
        files = [listening.fileno(), end.fileno()]
        command = [sys.executable, __file__, *map(str, files)]
        own = own_environment(environment)
        ended = partial(end_with_parent, os.getpid())  # also while it loads libraries
        subprocess.Popen(command, pass_fds=files, env=own, stdin=subprocess.DEVNULL, preexec_fn=ended)
        environment[ADDRESS] = f"{listening.getsockname()[1:].decode()} {os.getpid()}"
    return lifeline


def wait_for(server: socket.socket, parent: int) -> None:
    """Wait until there is something to read; end where the parent has gone, as then the stage does."""
    while not select.select([server], [], [], 0.5)[0]:
        if os.getppid() != parent:
            sys.exit(143)


def hand_over() -> None:
    """Let a fork of the process that is ready run this program, and end as it does; return where there is none."""
    if not {ADDRESS, "DVC_STAGE"} <= os.environ.keys():
        return
    server, parent, (name, starter) = socket.socket(socket.AF_UNIX), os.getppid(), os.environ[ADDRESS].split()
    try:
        os.kill(int(starter), 0)  # is it there?
    except ProcessLookupError:  # it ended before this could ask whose child it is
        sys.exit(143)
    try:
        server.connect(f"\0{name}")
        if not own_user(server):
            return
        request = {"program": sys.executable, "arguments": sys.argv, "folder": os.getcwd()}
        request["environment"] = own_environment(os.environ)
        socket.send_fds(server, [b" "], [0, 1, 2])
        server.sendall(f"{json.dumps(request)}\n".encode())
        wait_for(server, parent)
        accepted = server.recv(1) == ACCEPTED
    except OSError:  # it has ended
        return
    if os.getppid() != parent:
        sys.exit(143)
    if not accepted:
        return

    def relay(number, _):
        with suppress(OSError):  # it has ended
            server.send(bytes([number]))

    for number in RELAYED:
        if signal.getsignal(number) != signal.SIG_IGN:  # as in the background
            signal.signal(number, relay)
    wait_for(server, parent)
    status = server.recv(4)
    code = struct.unpack("i", status)[0] if len(status) == 4 else -signal.SIGKILL  # nothing is said by what was killed
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


def load_libraries() -> None:
    """Import what stages use, as in a stage: with its settings of figures, and tables as wide as in a notebook."""
    os.environ |= FIGURES
    os.chdir(Path(__file__).parent)  # where there is no matplotlibrc
    for name in LIBRARIES:
        import_module(name)
    import pandas

    pandas.set_option("display.max_columns", 20)  # its default in a notebook, which it looks for when it is imported
    gc.collect()
    gc.freeze()


def take(connection: socket.socket, environment: dict[str, str]) -> dict | None:
    """The request of a client, with its streams; None where it can't be run here."""
    connection.settimeout(PATIENCE)
    try:
        files = socket.recv_fds(connection, 1, 3)[1]
        with connection.makefile("rb") as lines:
            request = json.loads(lines.readline())
    except (OSError, ValueError):  # it has been killed
        return None
    if not own_user(connection) or request["program"] != sys.executable:
        return None
    if lasting(request["environment"]) != environment:
        return None
    connection.settimeout(None)
    return request | {"files": files}


def keep(connection: socket.socket, lifeline: socket.socket, stage: int) -> NoReturn:
    """Pass signals on to a stage until it ends; end it when nobody waits for it any more. Tells how it ended."""

    def relay() -> None:
        while True:
            ready = select.select([connection, lifeline], [], [])[0]
            number = connection.recv(1) if connection in ready else b""
            with suppress(OSError):  # it has ended
                (os.killpg if number == INTERRUPT else os.kill)(stage, number[0] if number else signal.SIGTERM)
            if not number:
                return

    threading.Thread(target=relay, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    with suppress(OSError):  # who waited for it is gone
        connection.send(struct.pack("i", code))
    os._exit(0)


def begin(request: dict, connection: socket.socket, lifeline: socket.socket) -> None:
    """In a fork: fork the stage and keep it; returns in the stage, as DVC would have started it."""
    keeper = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if stage := os.fork():
        for file in request["files"]:
            os.close(file)
        with suppress(OSError):  # the stage has done so itself, or has ended
            os.setpgid(stage, stage)
        with suppress(OSError):  # who asked is gone, which `keep` sees
            connection.send(ACCEPTED)
        keep(connection, lifeline, stage)
    os.setpgid(0, 0)  # ^C in a terminal comes by way of who waits, once
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for file, stream in enumerate(request["files"]):
        os.dup2(stream, file)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(request["environment"])
    del os.environ[ADDRESS]
    os.chdir(request["folder"])
    sys.argv = request["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    from mmdisaster.runs import end_with_parent

    end_with_parent(keeper)


def serve(listening: socket.socket, lifeline: socket.socket) -> bool:
    """Fork for each request. True in a fork, which is a stage from then on; False when the lifeline has ended."""
    environment, loaded = lasting(os.environ), False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave nothing to wait for
    while lifeline not in select.select([listening, lifeline], [], [])[0]:
        with listening.accept()[0] as connection:
            if (request := take(connection, environment)) is None:
                continue
            if not loaded:
                load_libraries()
                loaded = True
            if os.fork() == 0:
                begin(request, connection, lifeline)
                return True
            for file in request["files"]:
                os.close(file)
    return False


def run(program: str) -> None:
    """Run a program as Python does, but end at once when it is done: libraries needn't be taken apart one by one."""
    try:
        runpy.run_path(os.path.abspath(program), run_name="__main__")
        ENDED.append(0)
    except SystemExit as end:
        ENDED.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


@atexit.register  # before libraries register what they do at the end: it is called after that
def leave() -> None:
    if ENDED:
        sys.stdout.flush()
        os._exit(ENDED[0])


def main(files: list[int]) -> None:
    """Serve on two inherited sockets; in a fork of it, run a program."""
    with socket.socket(fileno=files[0]) as listening, socket.socket(fileno=files[1]) as lifeline:
        is_stage = serve(listening, lifeline)
    if is_stage:
        run(sys.argv[0])


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
