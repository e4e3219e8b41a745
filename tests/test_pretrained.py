"""Weights from elsewhere: each fault of a download, each format against an independent computation, hostile files."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from filelock import FileLock
from gensim.models import KeyedVectors, Word2Vec
from torch.nn import functional as F

from mmdisaster.settings.sources import Glove
from mmdisaster.static.inception import InceptionV3, inception_weights, torchvision_models
from mmdisaster.static.soundnet import SoundNet, SoundNetFeatures, soundnet_weights
from mmdisaster.weights import download
from mmdisaster.weights.download import WeightsError
from mmdisaster.weights.formats import read_soundnet_npy, read_soundnet_pth
from mmdisaster.weights.published import KNOWN, cache_folder, fetch, resolve_source, verify, weights_path
from mmdisaster.words.pickles import unpickle_arrays
from mmdisaster.words.vectors import (
    PretrainedVectors,
    describe_vectors,
    load_vectors,
    make_vectors,
    read_vectors,
    save_vectors,
)

QUICK = {"wait": 0.01, "timeout": 5.0}
CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """One file over HTTP, with the faults that a test asks for. What was asked for is kept in `asked`."""

    def __init__(
        self, content=CONTENT, etag='"1"', ranges=True, cuts=(), statuses=(), length=True, honest=True, drips=(0, 0)
    ):
        self.content, self.etag, self.ranges = content, etag, ranges
        self.cuts, self.statuses = list(cuts), list(statuses)  # of the first requests: bytes sent, answer
        self.length, self.honest, self.hang, self.moved = length, honest, threading.Event(), False
        self.drips = list(drips)  # how many answers come byte by byte: the body's, the head's
        self.hang.set()
        self.asked = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.hang.set()
        self.http.shutdown()
        self.http.server_close()

    def handler(server):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_GET(self):
                if server.moved and self.path == "/file":
                    self.send_response(302)
                    self.send_header("Location", "/elsewhere")
                    return self.end_headers()
                server.asked.append({name: self.headers.get(name) for name in ("Range", "If-Range")})
                status = server.statuses.pop(0) if server.statuses else 200
                if status != 200:
                    return self.send_error(status)
                self.answer(server)

            def drip(self, content):
                """Send a byte every hundredth of a second, until nobody listens."""
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.01)

            def handle(self):
                try:
                    super().handle()
                except OSError:  # nobody listens any more
                    pass

            def answer(self, server):
                if server.drips[1]:
                    server.drips[1] -= 1
                    return self.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + bytes(2000))
                start, size = 0, len(server.content)
                asked = self.headers.get("Range")
                same = not server.honest or self.headers.get("If-Range") == server.etag
                if asked and server.ranges and same:
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if start >= size:
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                else:
                    self.send_response(200)
                if server.etag:
                    self.send_header("ETag", server.etag)
                if server.length:
                    self.send_header("Content-Length", str(size - start))
                self.end_headers()
                body = server.content[start:]
                if server.drips[0]:
                    server.drips[0] -= 1
                    return self.drip(body)
                self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
                self.wfile.flush()
                server.hang.wait(20)
                self.close_connection = True

        return Handler


@pytest.fixture
def serve(monkeypatch):
    """Make a server, whose address and content stand for those of a known file."""
    servers = []

    def make(name="glove-twitter-25", content=CONTENT, digest=None, size=None, read=None, convert=False, **faults):
        server = Server(content, **faults)
        servers.append(server)
        digest = digest or f"sha256:{hashlib.sha256(content).hexdigest()}"
        known = replace(KNOWN[name], urls=(server.url,), digest=digest, size=size, read=read, convert=convert)
        monkeypatch.setitem(KNOWN, name, known)
        return server

    yield make
    for server in servers:
        server.close()


NAME = "glove-twitter-25"
FILE = KNOWN[NAME].file


def left(folder):
    """What a download left behind, the lock apart."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def assert_whole(folder):
    assert (folder / FILE).read_bytes() == CONTENT
    assert left(folder) == [FILE, f"{FILE}.json"]


def test_a_whole_download(serve, tmp_path):
    server = serve()
    assert fetch(NAME, tmp_path, **QUICK) == tmp_path / FILE
    assert_whole(tmp_path)
    assert len(server.asked) == 1 and server.asked[0]["Range"] is None
    assert fetch(NAME, tmp_path, **QUICK) == weights_path(NAME, "glove", tmp_path) == tmp_path / FILE
    assert len(server.asked) == 1, "what is there is not downloaded again"
    assert fetch(NAME, tmp_path, force=True, **QUICK) and len(server.asked) == 2
    assert verify(NAME, tmp_path)["sha256"] == hashlib.sha256(CONTENT).hexdigest()


def test_what_is_there_stays_until_another_is(serve, tmp_path):
    server = serve()
    fetch(NAME, tmp_path, **QUICK)
    server.close()
    with pytest.raises(WeightsError, match="could not be fetched"):
        fetch(NAME, tmp_path, force=True, attempts=1, **QUICK)
    assert_whole(tmp_path)
    assert verify(NAME, tmp_path) and weights_path(NAME, "glove", tmp_path).is_file()


def test_an_interrupted_download_goes_on_where_it_was(serve, tmp_path):
    server = serve(cuts=[100_000, 50_000])
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)
    assert [asked["Range"] for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert [asked["If-Range"] for asked in server.asked] == [None, '"1"', '"1"']


def test_an_interrupted_download_goes_on_in_another_run(serve, tmp_path):
    server = serve(cuts=[100_000])
    with pytest.raises(WeightsError, match="closed after 100,000 of 300,000 bytes") as caught:
        fetch(NAME, tmp_path, attempts=1, **QUICK)
    assert "100,000 bytes are kept" in str(caught.value)
    assert not (tmp_path / FILE).exists()
    with pytest.raises(WeightsError, match="not fetched yet"):
        weights_path(NAME, "glove", tmp_path)
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)
    assert server.asked[-1]["Range"] == "bytes=100000-"


def test_a_killed_download_leaves_no_file_and_goes_on(serve, tmp_path):
    server = serve(cuts=[100_000])
    server.hang.clear()  # half of the file, and then nothing
    call = f"download(({server.url!r},), {str(tmp_path / FILE)!r}, 'md5:')"
    script = f"from mmdisaster.weights.download import download; {call}"
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(ROOT))
    part = tmp_path / f"{FILE}.part"
    for _ in range(600):
        if server.asked and part.is_file():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.hang.set()
    assert not (tmp_path / FILE).exists() and part.is_file()
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)


def test_through_a_redirect_as_well(serve, tmp_path):
    server = serve(cuts=[100_000])
    server.moved = True
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)
    assert server.asked[-1]["Range"] == "bytes=100000-"


@pytest.mark.parametrize("faults", [{"ranges": False}, {"etag": None}, {"etag": 'W/"1"'}], ids=str)
def test_a_server_that_can_not_resume_is_asked_for_the_whole(serve, tmp_path, faults):
    server = serve(cuts=[100_000], **faults)
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)
    if not faults.get("ranges", True):
        return
    assert [asked["Range"] for asked in server.asked] == [None, None], "without a strong validator nothing is resumed"


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changes_while_it_is_fetched(serve, tmp_path, honest):
    """Halves of two versions never become one file, not even where the server says that they belong together."""
    server = serve(content=bytes(300_000), cuts=[100_000], honest=honest)
    with pytest.raises(WeightsError):
        fetch(NAME, tmp_path, attempts=1, **QUICK)
    server.content, server.etag = CONTENT, '"2"'
    known = KNOWN[NAME]
    KNOWN[NAME] = replace(known, digest=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)
    assert len(server.asked) == (2 if honest else 3)


def test_a_file_that_shrinks_while_it_is_fetched(serve, tmp_path):
    server = serve(cuts=[200_000])
    with pytest.raises(WeightsError):
        fetch(NAME, tmp_path, attempts=1, **QUICK)
    server.content = CONTENT[:150_000]
    with pytest.raises(WeightsError, match="not the published file"):
        fetch(NAME, tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_a_download_that_was_whole_but_not_checked_yet(serve, tmp_path):
    server = serve(cuts=[299_999])
    with pytest.raises(WeightsError):
        fetch(NAME, tmp_path, attempts=1, **QUICK)
    with (tmp_path / f"{FILE}.part").open("ab") as file:
        file.write(CONTENT[-1:])
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"url": 3}'])
def test_a_note_that_was_cut_off(serve, tmp_path, damage):
    serve(cuts=[100_000])
    with pytest.raises(WeightsError):
        fetch(NAME, tmp_path, attempts=1, **QUICK)
    (tmp_path / f"{FILE}.part.json").write_bytes(damage)
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)


def test_a_server_that_always_breaks_off(serve, tmp_path):
    server = serve(cuts=[1000] * 50)
    with pytest.raises(WeightsError, match="closed after 4,000 of 300,000 bytes .try 4 of 4") as caught:
        fetch(NAME, tmp_path, attempts=4, **QUICK)
    assert len(server.asked) == 4, "tries are bounded"
    assert not (tmp_path / FILE).exists() and f"mmdisaster weights fetch {NAME}" in str(caught.value)


def test_a_server_that_sends_too_little_and_does_not_say_how_much_it_should_be(serve, tmp_path):
    serve(cuts=[1000], length=False)
    with pytest.raises(WeightsError, match="what came is not the published file"):
        fetch(NAME, tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_a_server_that_falls_silent(serve, tmp_path):
    server = serve(cuts=[1000] * 9)
    server.hang.clear()
    begun = time.monotonic()
    with pytest.raises(WeightsError, match="broke after .* bytes .timed out"):
        fetch(NAME, tmp_path, attempts=2, wait=0.01, timeout=0.3)
    assert time.monotonic() - begun < 5 and not (tmp_path / FILE).exists()


@pytest.mark.parametrize("drips", [(1, 0), (0, 1)], ids=["body", "head"])
def test_a_server_that_trickles_is_given_up_on_and_asked_again(serve, tmp_path, drips):
    """Byte by byte is never silence; the next try goes on where the slow one was."""
    server, begun = serve(drips=drips), time.monotonic()
    fetch(NAME, tmp_path, window=0.3, least=10_000.0, **QUICK)
    assert_whole(tmp_path)
    assert time.monotonic() - begun < 5 and len(server.asked) == 2
    assert (server.asked[1]["Range"] is not None) == bool(drips[0])


def test_a_server_that_always_trickles(serve, tmp_path):
    serve(drips=(9, 0))
    with pytest.raises(WeightsError, match="only [0-9]+ bytes came in 0 seconds .try 2 of 2.*\n.* bytes are kept"):
        fetch(NAME, tmp_path, attempts=2, window=0.2, least=10_000.0, **QUICK)
    assert not (tmp_path / FILE).exists() and (tmp_path / f"{FILE}.part").stat().st_size > 5


def test_a_tampered_file(serve, tmp_path):
    server = serve(digest=f"sha256:{'0' * 64}")
    with pytest.raises(WeightsError, match="sha256 digest must begin with 0000.*, was [0-9a-f]{64}"):
        fetch(NAME, tmp_path, **QUICK)
    assert left(tmp_path) == [] and len(server.asked) == 1


def test_a_file_of_another_size_is_not_even_downloaded(serve, tmp_path):
    serve(size=300_001)
    with pytest.raises(WeightsError, match="has a file of 300,000 bytes, the published one has 300,001"):
        fetch(NAME, tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_the_next_address_is_tried(serve, tmp_path):
    server = serve(statuses=[404])
    KNOWN[NAME] = replace(KNOWN[NAME], urls=(server.url, server.url.replace("file", "copy")))
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)


@pytest.mark.parametrize("status, asked", [(404, 1), (403, 1), (500, 3), (503, 3), (429, 3)])
def test_a_server_that_refuses(serve, tmp_path, status, asked):
    server = serve(statuses=[status] * 9)
    with pytest.raises(WeightsError, match=f"the server answers {status}"):
        fetch(NAME, tmp_path, attempts=3, **QUICK)
    assert len(server.asked) == asked and left(tmp_path) == []


def test_a_server_that_recovers(serve, tmp_path):
    serve(statuses=[503, 500])
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)


def test_no_server_at_all(serve, tmp_path):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve()
    KNOWN[NAME] = replace(KNOWN[NAME], urls=(f"http://127.0.0.1:{port}/file",))
    with pytest.raises(WeightsError, match="no connection") as caught:
        fetch(NAME, tmp_path, attempts=2, **QUICK)
    for part in [f"http://127.0.0.1:{port}/file", str(tmp_path / FILE), f"mmdisaster weights verify {NAME}"]:
        assert part in str(caught.value), "it says what to do: which file, from where, where to put it"
    assert left(tmp_path) == []


def test_two_processes_do_not_write_the_same_file(serve, tmp_path):
    serve()
    with FileLock(tmp_path / f"{FILE}.lock"), pytest.raises(WeightsError, match="by another process"):
        fetch(NAME, tmp_path, **QUICK)
    fetch(NAME, tmp_path, **QUICK)
    assert_whole(tmp_path)


def test_a_folder_that_can_not_be_written(serve, tmp_path):
    serve()
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="MMDISASTER_CACHE"):
        fetch(NAME, tmp_path / "file" / "cache", **QUICK)


def test_a_full_disk(serve, tmp_path, monkeypatch):
    serve()
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(WeightsError, match="300,000 bytes are needed, 1,000 are free"):
        fetch(NAME, tmp_path, **QUICK)
    assert left(tmp_path) == []


def test_a_file_that_was_carried_there_by_hand(serve, tmp_path):
    server = serve()
    (tmp_path / FILE).write_bytes(CONTENT)
    assert weights_path(NAME, "glove", tmp_path) == tmp_path / FILE
    assert verify(NAME, tmp_path)["size"] == 300_000 and not server.asked
    (tmp_path / FILE).write_bytes(CONTENT[:-1] + b"?")
    for use in (fetch, verify, lambda name, folder: weights_path(name, "glove", folder)):
        with pytest.raises(WeightsError, match="is not the published file"):
            use(NAME, tmp_path)


def test_verify_knows_more_than_a_short_digest(serve, tmp_path):
    """Eight digits of a digest can be met by another file; what was there first is remembered in full."""
    serve(digest="sha256:")
    fetch(NAME, tmp_path, **QUICK)
    (tmp_path / FILE).write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(WeightsError, match="has changed since it was first checked"):
        verify(NAME, tmp_path)


def test_the_cache_is_the_users_or_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("MMDISASTER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MMDISASTER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "xdg" / "mmdisaster" / "weights"


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_well_formed(name):
    known = KNOWN[name]
    kind, _, digits = known.digest.partition(":")
    assert len(digits) == {"sha256": 64, "md5": 32, "git": 40}[kind]
    assert all(url.startswith("https://") for url in known.urls)
    assert known.network in ("inception", "soundnet", "glove") and "/" not in known.file


# --- SoundNet -------------------------------------------------------------------------------------------------------


class Python2Pickler(pickle._Pickler):
    """Pickles as Python 2 and its NumPy did: strings of bytes, the old module's name."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        if isinstance(value, str):
            value = value.encode("latin1")
        size = len(value)
        self.write(b"U" + bytes([size]) + value if size < 256 else b"T" + size.to_bytes(4, "little") + value)

    dispatch[bytes] = dispatch[str] = save_bytes

    def save_global(self, value, name=None):
        self.write(f"c{value.__module__}\n{value.__qualname__}\n".replace("numpy._core", "numpy.core").encode())
        self.memoize(value)

    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def write_sound8(path, layers):
    """An .npy file of the dict, as NumPy for Python 2 wrote it."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(len(header) + 11) % 16) + b"\n"
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        array = np.empty((), object)
        array[()] = layers
        Python2Pickler(file, protocol=2).dump(array)


SIZES = {  # channels in and out, kernel, padding, pooling: the authors' table
    1: (1, 16, 64, 32, 8),
    2: (16, 32, 32, 16, 8),
    3: (32, 64, 16, 8, 1),
    4: (64, 128, 8, 4, 1),
    5: (128, 256, 4, 2, 4),
    6: (256, 512, 4, 2, 1),
    7: (512, 1024, 4, 2, 1),
}


@pytest.fixture(scope="module")
def published():
    """A state dict with the names and shapes of soundnet8_final.pth, and random values."""
    random, state = np.random.default_rng(1), {}

    def put(name, *shape, low=None):
        values = random.standard_normal(shape, dtype=np.float32) if low is None else random.uniform(low, 2, shape)
        state[name] = torch.from_numpy(np.asarray(values, np.float32))

    for n, (inside, out, kernel, _, _) in SIZES.items():
        put(f"conv{n}.weight", out, inside, kernel, 1)
        state[f"conv{n}.weight"] *= (2 / (inside * kernel)) ** 0.5
        put(f"conv{n}.bias", out)
        for part, low in [("weight", 0.5), ("bias", None), ("running_mean", None), ("running_var", 0.5)]:
            put(f"batchnorm{n}.{part}", out, low=low)
        state[f"batchnorm{n}.num_batches_tracked"] = torch.tensor(0)
    for name, classes in [("conv8_objs", 1000), ("conv8_scns", 401)]:
        put(f"{name}.weight", classes, 1024, 8, 1)
        state[f"{name}.weight"] /= 8192**0.5
        put(f"{name}.bias", classes)
    return state


def two_dimensional(state, x):
    """The network of pytorch-soundnet, written out, with batch norm by its formula: conv7, objects, scenes."""
    x = x[:, :, :, None]  # (batch, 1, samples, 1)
    for n, (_, _, _, padding, pool) in SIZES.items():
        x = F.conv2d(x, state[f"conv{n}.weight"], state[f"conv{n}.bias"], stride=(2, 1), padding=(padding, 0))
        norm = {part: state[f"batchnorm{n}.{part}"][:, None, None] for part in ("weight", "bias")}
        mean, var = (state[f"batchnorm{n}.running_{part}"][:, None, None] for part in ("mean", "var"))
        x = ((x - mean) / (var + 1e-5).sqrt() * norm["weight"] + norm["bias"]).clamp(min=0)
        x = F.max_pool2d(x, (pool, 1)) if pool > 1 else x
    heads = ("conv8_objs", "conv8_scns")
    scores = [F.conv2d(x, state[f"{head}.weight"], state[f"{head}.bias"], stride=(2, 1)) for head in heads]
    return [found[..., 0] for found in (x, *scores)]


def as_sound8(state):
    """The same values as sound8.npy has them: transposed from (out, in, k, 1) to (k, 1, in, out)."""
    layers = {}
    for n in range(1, 8):
        norm = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
        layers[f"conv{n}"] = {part: state[f"batchnorm{n}.{name}"].numpy() for part, name in norm.items()}
        layers[f"conv{n}"]["biases"] = state[f"conv{n}.bias"].numpy()
        layers[f"conv{n}"]["weights"] = state[f"conv{n}.weight"].numpy().transpose(2, 3, 1, 0)
    for name, here in [("conv8_objs", "conv8"), ("conv8_scns", "conv8_2")]:
        weights, biases = (state[f"{name}.{part}"].numpy() for part in ("weight", "bias"))
        layers[here] = {"weights": weights.transpose(2, 3, 1, 0), "biases": biases}
    return layers


@pytest.fixture(scope="module")
def soundnet_files(published, tmp_path_factory):
    """Both files as they are published, with random values."""
    folder = tmp_path_factory.mktemp("soundnet")
    write_sound8(folder / "sound8.npy", as_sound8(published))
    torch.save(published, folder / "soundnet8_final.pth")
    torch.save(published, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder


def test_the_test_writes_what_python_2_wrote(soundnet_files, published):
    """NumPy itself, trusting the file, reads the same."""
    names = (soundnet_files / "sound8.npy").read_bytes()[:400]
    assert b"numpy.core.multiarray\n_reconstruct" in names and b"_codecs" not in names
    layers = np.load(soundnet_files / "sound8.npy", allow_pickle=True, encoding="latin1").item()
    assert np.array_equal(layers["conv3"]["weights"], as_sound8(published)["conv3"]["weights"])


@pytest.fixture(scope="module")
def sound():
    return np.random.default_rng(2).uniform(-1, 1, 22050 * 16).astype(np.float32)


@pytest.mark.parametrize("name, read", [("sound8.npy", read_soundnet_npy), ("soundnet8_final.pth", read_soundnet_pth)])
def test_soundnets_files_give_the_networks_output(soundnet_files, published, sound, name, read, serve, tmp_path):
    """Fetched from a server, converted, loaded: features and both heads are those of the published network."""
    known = "soundnet" if name.endswith("npy") else "soundnet-pth"
    content = (soundnet_files / name).read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    serve(known, content, digest=f"git:{blob}", read=read, convert=True, cuts=[len(content) // 2])
    path = fetch(known, tmp_path, **QUICK)
    assert path.suffix == ".safetensors" and verify(known, tmp_path)["path"] == path
    arrays = soundnet_weights(resolve_source(known, "soundnet", tmp_path), 0, [])

    conv7, *heads = two_dimensional(published, torch.from_numpy(sound * 256)[None, None])
    features = SoundNetFeatures(arrays).extract([sound])[0]
    assert np.abs(features - conv7[0].T.numpy()).max() < 1e-4 * conv7.std()
    network = SoundNet().eval()
    network.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()}, strict=False)
    with torch.inference_mode():
        for found, expected in zip(network(torch.from_numpy(sound * 256)[None, None]), heads, strict=True):
            assert abs(found - expected).max() < 1e-4 * expected.std()


def test_conv1_of_sound8_against_numpy(soundnet_files, published, sound):
    """y[n, o] = b[o] + Σ w[k, 0, 0, o] x[2n + k − 32], from the file's arrays, by NumPy."""
    arrays = read_soundnet_npy(soundnet_files / "sound8.npy")
    raw = as_sound8(published)["conv1"]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(sound * 256, 32), 64)[::2]
    expected = windows @ raw["weights"][:, 0, 0] + raw["biases"]
    weights = torch.from_numpy(arrays["conv1.conv.weight"]), torch.from_numpy(arrays["conv1.conv.bias"])
    found = F.conv1d(torch.from_numpy(sound * 256)[None, None], *weights, stride=2, padding=32)[0].T
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", ["sound8.npy", "soundnet8_final.pth", "old.pth"])
def test_a_users_own_soundnet_file_is_converted_once(soundnet_files, tmp_path, name):
    path = weights_path(soundnet_files / name, "soundnet", tmp_path)
    stamp = path.stat().st_mtime_ns
    assert weights_path(soundnet_files / name, "soundnet", tmp_path) == path and path.stat().st_mtime_ns == stamp
    assert weights_path(path, "soundnet", tmp_path) == path
    arrays, same = soundnet_weights(path, 0, []), read_soundnet_npy(soundnet_files / "sound8.npy")
    assert all(np.array_equal(arrays[key], array) for key, array in same.items())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda layers: layers.pop("conv5"), "'conv5.conv.weight' is missing"),
        (lambda layers: layers["conv2"].pop("var"), "'conv2.bn.running_var' is missing"),
        (lambda layers: layers["conv2"].update(var=-layers["conv2"]["var"]), "variance of a batch norm is below 0"),
        (lambda layers: layers["conv2"].update(mean="no array"), "conv2 mean must be an array of floats"),
        (lambda layers: layers["conv2"].update(more=np.zeros(3)), "'conv2.more' belongs to no layer"),
        (lambda layers: layers["conv2"].update(weights=np.zeros((32, 16, 32))), "must have shape (k, 1, in, out)"),
        (lambda layers: layers["conv2"].update(weights=np.zeros((32, 1, 32, 16))), "must have shape (32, 16, 32)"),
        (lambda layers: layers["conv2"].update(biases=np.full(32, np.nan)), "'conv2.conv.bias' must be finite"),
        (lambda layers: layers.update(conv9=3), "must hold a dict, layer → arrays"),
    ],
)
def test_a_dict_that_is_not_soundnets(published, tmp_path, change, message):
    layers = {layer: dict(arrays) for layer, arrays in as_sound8(published).items()}
    change(layers)
    np.save(tmp_path / "wrong.npy", layers, allow_pickle=True)
    with pytest.raises(ValueError) as caught:
        read_soundnet_npy(tmp_path / "wrong.npy")
    assert message in str(caught.value) and "wrong.npy" in str(caught.value)


def test_batch_norms_that_were_never_trained(published, tmp_path):
    state = dict(published)
    for n in SIZES:
        state[f"batchnorm{n}.running_mean"] = torch.zeros(SIZES[n][1])
        state[f"batchnorm{n}.running_var"] = torch.ones(SIZES[n][1])
    torch.save(state, tmp_path / "soundnet8_final.pth")
    with pytest.raises(ValueError, match="never trained"):
        read_soundnet_pth(tmp_path / "soundnet8_final.pth")
    assert not read_soundnet_pth(tmp_path / "soundnet8_final.pth", untrained=True)["conv1.bn.running_mean"].any()


def test_a_file_that_was_cut_off_anywhere(soundnet_files, tmp_path):
    content = (soundnet_files / "old.pth").read_bytes()
    for kept in range(4_000, 4_100):
        (tmp_path / "old.pth").write_bytes(content[:kept])
        with pytest.raises(ValueError, match="old.pth"):
            read_soundnet_pth(tmp_path / "old.pth")


@pytest.mark.parametrize("name", ["sound8.npy", "soundnet8_final.pth", "old.pth"])
@pytest.mark.parametrize("kept", [0, 5, 100, 5_000, 1_000_000])
def test_a_file_that_was_cut_off(soundnet_files, tmp_path, name, kept):
    (tmp_path / name).write_bytes((soundnet_files / name).read_bytes()[:kept])
    with pytest.raises(ValueError, match=name):
        (read_soundnet_npy if name.endswith("npy") else read_soundnet_pth)(tmp_path / name)


def test_what_does_not_fit_is_no_weights_in_the_cache(serve, tmp_path):
    """A file with the right digest that holds no network: an error, and nothing that a later run takes for weights."""
    buffer = io.BytesIO()
    np.save(buffer, {"conv1": {"weights": np.zeros((64, 1, 1, 16), np.float32)}}, allow_pickle=True)
    serve("soundnet", buffer.getvalue(), read=read_soundnet_npy, convert=True)
    with pytest.raises(WeightsError, match="soundnet: .*'conv1.conv.bias' is missing"):
        fetch("soundnet", tmp_path, **QUICK)
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(WeightsError, match="missing"):
        weights_path("soundnet", "soundnet", tmp_path)


# --- ImageNet -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception():
    """torchvision's whole network, classes and auxiliary classes included, with random values."""
    random = np.random.default_rng(3)
    network = torchvision_models().inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            drawn = torch.from_numpy(random.standard_normal(tuple(value.shape), dtype=np.float32))
            value.copy_(drawn * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            value.copy_(torch.from_numpy(random.uniform(0.5, 2, value.shape)))
        elif value.dtype == torch.float32:
            value.add_(torch.from_numpy(random.normal(0, 0.1, value.shape)))
    return network


def test_inceptions_file_gives_torchvisions_features(inception, serve, tmp_path):
    """torchvision's whole file, with its own preprocessing, against ours: the normalisation is applied once."""
    buffer = io.BytesIO()
    torch.save(inception.state_dict(), buffer)
    content = buffer.getvalue()
    short = hashlib.sha256(content).hexdigest()[:8]
    serve("imagenet", content, digest=f"sha256:{short}", read=KNOWN["imagenet"].read, cuts=[10**6])
    path = fetch("imagenet", tmp_path, **QUICK)
    assert path == weights_path("imagenet", "inception", tmp_path) and verify("imagenet", tmp_path)["path"] == path

    frames = np.random.default_rng(5).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    preset = torchvision_models().Inception_V3_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    heard = []
    inception.avgpool.register_forward_hook(lambda module, inputs, output: heard.append(output[:, :, 0, 0].numpy()))
    with torch.inference_mode():
        inception((torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / std)
    found = InceptionV3(inception_weights(path, 0, frames)).extract(frames)
    assert np.abs(found - heard[0]).max() < 1e-4 * heard[0].std()


def test_inceptions_file_in_torchs_older_format(inception, tmp_path):
    torch.save(inception.state_dict(), tmp_path / "own.pth", _use_new_zipfile_serialization=False)
    arrays = inception_weights(weights_path(tmp_path / "own.pth", "inception"), 0, np.empty(0))
    assert all(np.array_equal(array, inception.state_dict()[name]) for name, array in arrays.items())


def test_a_file_of_another_network_is_no_inception(serve, tmp_path):
    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(3)}, buffer)
    serve("imagenet", buffer.getvalue(), read=KNOWN["imagenet"].read)
    with pytest.raises(WeightsError, match="imagenet: .* is missing"):
        fetch("imagenet", tmp_path, **QUICK)


# --- word vectors ---------------------------------------------------------------------------------------------------


def glove_lines(words, vectors):
    return [" ".join([word, *(f"{value:.5g}" for value in row)]) for word, row in zip(words, vectors, strict=True)]


def test_glove_as_gensim_publishes_it(serve, tmp_path):
    words, vectors = ["storm", "surge", "café"], np.random.default_rng(4).normal(size=(3, 25))
    content = gzip.compress("\n".join(["3 25", *glove_lines(words, vectors), ""]).encode())
    serve(NAME, content, digest=f"md5:{hashlib.md5(content).hexdigest()}", size=len(content), cuts=[100])
    fetch(NAME, tmp_path, **QUICK)
    settings, file = Glove(source=NAME, restrict=True), weights_path(NAME, "glove", tmp_path)
    found = make_vectors(settings, ["Storm at the café", None], file)
    assert found.words_ == ["storm", "café"]
    np.testing.assert_allclose(found.transform(["café! storm"])[0], vectors[[2, 0]], rtol=1e-4)
    saved = load_vectors(save_vectors(tmp_path / "saved.safetensors", found, describe_vectors(found)))
    assert describe_vectors(saved) == describe_vectors(found) == {
        "source": FILE, "words": 2, "dim": 25, "skipped": 0, "restricted": True,
        "sha256": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip


SUBSET = ROOT.parent / "shared" / "text" / "glove.6B.50d.subset.txt"


@pytest.mark.skipif(not SUBSET.is_file(), reason="the real GloVe vectors are not beside the project")
def test_real_glove_vectors_in_every_format(tmp_path):
    oracle = KeyedVectors.load_word2vec_format(str(SUBSET), no_header=True)
    (tmp_path / "glove.gz").write_bytes(gzip.compress(SUBSET.read_bytes(), 1))
    oracle.save_word2vec_format(str(tmp_path / "vectors.bin"), binary=True)
    (tmp_path / "vectors.bin.gz").write_bytes(gzip.compress((tmp_path / "vectors.bin").read_bytes(), 1))
    oracle.save(str(tmp_path / "one.kv"))
    oracle.save(str(tmp_path / "two.kv"), sep_limit=1000)
    names = ["glove.gz", "vectors.bin", "vectors.bin.gz", "one.kv", "two.kv"]
    for path in [SUBSET, *(tmp_path / name for name in names)]:
        found = read_vectors(path)
        assert found.words == oracle.index_to_key, path.name
        assert found.vectors.tobytes() == oracle.vectors.tobytes(), path.name
    (tmp_path / "two.kv.vectors.npy").unlink()
    with pytest.raises(ValueError, match="put two.kv.vectors.npy beside it"):
        read_vectors(tmp_path / "two.kv")
    vectors = PretrainedVectors(str(SUBSET)).fit()
    lines = {line.split(" ")[0]: line.split(" ")[1:] for line in SUBSET.read_text().splitlines()}
    (steps,) = vectors.transform(["Water and people, people!"])
    np.testing.assert_array_equal(steps, np.array([lines[word] for word in ["water", "people", "people"]], np.float32))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"storm 1 2\n\nsurge 1 2\n", "line 2: has 0 values, must have 2"),
        (b"storm 1 2\nsurge 1\n", "line 2: has 1 values, must have 2"),
        (b"storm 1 2\nsurge 1 2 3\n", "line 2: has 3 values, must have 2"),
        (b"storm 1 2\nsurge\t1\t2\n", "line 2: has 0 values, must have 2"),
        (b"storm 1 2\nsurge 1 2x\n", "line 2: could not convert string to float: b'2x'"),
        (b"storm 1 2\nsurge 1 nan\n", "line 2: b'nan' is not a finite float32 number"),
        (b"storm 1 2\nsurge -inf 1\n", "line 2: b'-inf' is not a finite float32 number"),
        (b"storm 1 2\nsur\xffge 3 4\n", r"line 2: its word is not UTF-8 text: b'sur\xffge'"),
        (b"storm 1 2\n 3 4\n", "line 2: has no word"),
        (b"2 2\nstorm 1 2\nsurge 3\n", "line 3: has 1 values, must have 2"),
        (b"3 2\nstorm 1 2\nsurge 3 4\n", "its header promises 3 words, the file has 2"),
        (b"1 2\nstorm 1 2\nsurge 3 4\n", "its header promises 1 words, the file has 2"),
        (b"1 0\nstorm\n", "length of vectors from 1 to 10000, gave 0"),
        (b"2 2\nstorm " + bytes(8) + b"\nsurge " + bytes(3), "word 2 of 2 has 3 bytes of its 8"),
        (b"2 2\nstorm " + bytes(8) + b"\n", "word 2 of 2 has no end"),
        (b"\x1f\x8b\x08garbage", "is damaged or cut off"),
        (gzip.compress(b"storm 1 2\nsurge 3 4\n", mtime=0)[:-3], "is damaged or cut off"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (pickle.dumps({"index_to_key": []}, 4), "is a pickle that holds no word vectors"),
        (pickle.dumps([1], 4)[:-1], "is a pickle that is damaged"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_word_vectors(tmp_path, content, message):
    (tmp_path / "wrong.vec").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_vectors(tmp_path / "wrong.vec")
    assert message in str(caught.value) and "wrong.vec" in str(caught.value)


def test_lines_may_end_as_on_windows_and_the_last_may_not_end(tmp_path):
    (tmp_path / "glove.txt").write_bytes(b"storm 1 2\r\nsurge 3 4 \r\nflood 5 6")
    assert read_vectors(tmp_path / "glove.txt").vectors.tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_model_of_gensim_is_refused_with_what_to_do(tmp_path):
    Word2Vec([["storm", "surge"]] * 5, vector_size=4, min_count=1, epochs=1).save(str(tmp_path / "word2vec.model"))
    with pytest.raises(ValueError, match="names gensim.models.word2vec.Word2Vec.*save_word2vec_format"):
        read_vectors(tmp_path / "word2vec.model")


def test_few_words_of_a_large_file_take_little_memory(tmp_path):
    line = " ".join(["0.12345"] * 200)
    with (tmp_path / "large.txt").open("w") as file:
        file.writelines(f"word{n} {line}\n" for n in range(10_000))
    tracemalloc.start()
    found = read_vectors(tmp_path / "large.txt", only={"word7", "word9999"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.words == ["word7", "word9999"] and peak < 500_000 < 10_000 * 200 * 4


# --- hostile files --------------------------------------------------------------------------------------------------


class Harm:
    """Runs a command when it is unpickled by a reader that trusts it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def hostile(kind, path, mark):
    if kind == "npy":
        np.save(path, {"conv1": {"weights": Harm(mark)}}, allow_pickle=True)
    elif kind == "kv":
        path.write_bytes(pickle.dumps(Harm(mark), 4))
    else:
        torch.save({"conv1.weight": Harm(mark)}, path, _use_new_zipfile_serialization=kind == "pth")
    return path


READERS = {
    "npy": (read_soundnet_npy, "wrong.npy", "names posix.system"),
    "pth": (read_soundnet_pth, "wrong.pth", "must hold tensors only"),
    "old-pth": (read_soundnet_pth, "wrong.pth", "must hold tensors only"),
    "inception": (lambda path: inception_weights(path, 0, np.empty(0)), "wrong.pth", "must hold tensors only"),
    "kv": (read_vectors, "wrong.kv", "names posix.system"),
}


@pytest.mark.skipif(os.name != "posix", reason="the command is one of a POSIX shell")
@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_would_run_a_command(tmp_path, kind):
    mark = tmp_path / "harm-done"
    read, name, message = READERS[kind]
    path = hostile("pth" if kind == "inception" else kind, tmp_path / name, mark)
    with pytest.raises(ValueError, match=message):
        read(path)
    assert not mark.exists()
    if kind in ("npy", "kv"):  # the file is what it pretends to be: a reader that trusts it does run the command
        np.load(path, allow_pickle=True) if kind == "npy" else pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(V1\ntR.",
        b"cnumpy\nload\n(Vx\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        b"cnumpy\ndtype\n(VO\ntR.",  # an array of objects by another name
        b"cnumpy\ndtype\n(VV99\ntR.",
        b"\x82\x01.",  # a class by its number in a registry
        b"Pid\n.",  # a persistent identity
    ],
)
def test_a_pickle_that_names_what_is_no_array(program):
    with pytest.raises(pickle.UnpicklingError):
        unpickle_arrays(io.BytesIO(program))


def test_a_pickle_can_not_change_the_reader_for_the_next_one():
    spoil = b"\x80\x02cnumpy\ndtype\n(N}X\x0c\x00\x00\x00__setstate__K\x01stb."
    with pytest.raises(pickle.UnpicklingError):
        unpickle_arrays(io.BytesIO(spoil))
    good = np.arange(5.0)
    assert np.array_equal(unpickle_arrays(io.BytesIO(pickle.dumps(good, 4))), good)


def test_a_pickle_that_holds_itself_ends():
    itself = {}
    itself.update({n: itself for n in range(1000)})
    assert unpickle_arrays(io.BytesIO(pickle.dumps(itself, 4)))[0].keys() == itself.keys()
