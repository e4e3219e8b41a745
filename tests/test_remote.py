"""Media behind addresses: a server that tells versions, fails, lies and stops; buckets; a corpus that lies there."""

import json
import os
import re
import shutil
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from safetensors.numpy import load_file

from mmdisaster.cli import main
from mmdisaster.core import digest_file
from mmdisaster.data import remote
from mmdisaster.data.corpus import read_corpus, save_corpus
from mmdisaster.data.manifest import ManifestError, check_manifest, read_manifest
from mmdisaster.data.remote import RemoteError, ask_ahead, fetched, identity, is_remote, media_cache, media_file, trim
from mmdisaster.media.writing import write_clip
from mmdisaster.settings.reading import read_settings
from mmdisaster.settings.sections import Corpus, Media
from mmdisaster.settings.sources import LogMelSource
from mmdisaster.static.extraction import extract
from mmdisaster.static.logmel import LogMelExtractor

sys.path.insert(0, str(ROOT / "tools"))
import bring  # noqa: E402


class Server(BaseHTTPRequestHandler):
    """Gives files of a dictionary, with what `ways` says of them."""

    protocol_version = "HTTP/1.1"

    def __init__(self, place, *arguments):
        self.place = place
        super().__init__(*arguments)

    def log_message(self, *_):
        pass

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name = self.path.partition("?")[0]
        place, way = self.place, self.place.ways.get(name, "")
        place.asked.append((self.command, name))
        body = place.files.get(name)
        if place.failures.get(name, 0) > 0:
            place.failures[name] -= 1
            return self.answer(503, Content_Length="0")
        if way == "rude":
            self.wfile.write(b"HTTP/1.1 403 \x1b[2J\xe2\x80\xae Forbidden\r\nContent-Length: 0\r\n\r\n")
            return None
        if way in ("403", "404"):
            return self.answer(int(way), Content_Length="0")
        if way.startswith("to "):
            return self.answer(302, Location=way[3:], Content_Length="0")
        if body is None:
            return self.answer(404, Content_Length="0")
        about = {} if way in ("silent", "chunked") else {"ETag": f'"{hash(body)}"'}
        if way == "dated":
            about = {"Last_Modified": place.dates[name]}
        if way == "chunked":  # says neither how long it is nor which version
            self.answer(200, Transfer_Encoding="chunked", **about)
            if self.command == "GET":
                try:
                    for i in range(0, len(body), 1000):
                        part = body[i : i + 1000]
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    self.close_connection = True
            return None
        self.answer(200, Content_Length=str(len(body)), **about)
        if self.command == "GET":
            if way == "cut":
                body, self.close_connection = body[: len(body) // 2], True
            try:
                self.wfile.write(body)
            except OSError:
                self.close_connection = True
        return None


class Place:
    """A server's files and manners."""

    def __init__(self):
        self.files, self.ways, self.failures, self.dates, self.asked = {}, {}, {}, {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, self))
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def address(self, name):
        return f"http://127.0.0.1:{self.server.server_port}{name}"

    def gets(self, name):
        return self.asked.count(("GET", name))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MMDISASTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    remote._told.cache_clear()
    found = Place()
    yield found
    found.server.shutdown()
    found.server.server_close()


def forget():
    """As a process that starts later."""
    remote._told.cache_clear()
    remote._process.cache_clear()


def kept():
    return sorted(path.name for path in media_cache().iterdir())


# --- one file --------------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_kept_for_later_processes(place, tmp_path):
    place.files["/a.mp4"] = os.urandom(300_000)
    address = place.address("/a.mp4")
    paths = {fetched(address) for _ in range(3)}
    forget()
    paths.add(media_file(tmp_path, address))
    (path,) = paths
    assert path.read_bytes() == place.files["/a.mp4"] and path.suffix == ".mp4" and place.gets("/a.mp4") == 1
    assert kept() == [path.name] and media_file(tmp_path, "b.mp4") == tmp_path / "b.mp4"


@pytest.mark.parametrize("way", ["", "dated"])
def test_a_changed_file_is_another_one(place, way):
    place.files["/a.mp4"], place.ways["/a.mp4"] = b"before", way
    place.dates["/a.mp4"] = "Mon, 02 Nov 2026 10:00:00 GMT"
    address = place.address("/a.mp4")
    first = identity(address)
    assert fetched(address).read_bytes() == b"before" and identity(address) == first and place.gets("/a.mp4") == 1
    place.files["/a.mp4"], place.dates["/a.mp4"] = b"behind", "Mon, 02 Nov 2026 10:00:01 GMT"
    forget()
    assert identity(address) != first and fetched(address).read_bytes() == b"behind"


@pytest.mark.parametrize("way", ["silent", "chunked"])
def test_without_versions_the_content_decides_and_each_process_fetches_anew(place, way):
    place.files["/a.mp4"], place.ways["/a.mp4"] = b"before", way
    address = place.address("/a.mp4")
    first, path = identity(address), fetched(address)
    assert first == digest_file(path) and fetched(address) == path
    forget()
    assert identity(address) == first
    place.files["/a.mp4"] = b"behind"
    forget()
    assert identity(address) != first and fetched(address).read_bytes() == b"behind"


def test_a_server_that_fails_for_a_moment_is_asked_again(place):
    place.files["/a.mp4"], place.failures["/a.mp4"] = b"content", 2
    assert fetched(place.address("/a.mp4")).read_bytes() == b"content"
    place.failures["/b.mp4"] = 100
    with pytest.raises(RemoteError, match="b.mp4: can't be fetched, tried 3 times: .*503"):
        fetched(place.address("/b.mp4"))


@pytest.mark.parametrize(
    "way, reason, asked", [("404", "isn't there", 2), ("403", "isn't given: the server says 403", 2)]
)
def test_what_another_try_won_t_mend_is_said_at_once(place, way, reason, asked):
    place.files["/a.mp4"], place.ways["/a.mp4"] = b"content", way
    with pytest.raises(RemoteError, match=re.escape(f"{place.address('/a.mp4')}: {reason}")):
        fetched(place.address("/a.mp4"))
    assert len(place.asked) == asked  # HEAD, and GET for servers that don't know HEAD


def test_a_server_s_words_don_t_reach_the_terminal(place):
    place.ways["/a.mp4"] = "rude"
    with pytest.raises(RemoteError) as caught:
        fetched(place.address("/a.mp4"))
    assert caught.value.reason.isprintable()


def test_half_a_file_is_none(place):
    place.files["/a.mp4"], place.ways["/a.mp4"] = os.urandom(100_000), "cut"
    with pytest.raises(RemoteError, match="can't be fetched, tried 3 times"):
        fetched(place.address("/a.mp4"))
    assert kept() == []


@pytest.mark.parametrize("way", ["", "silent", "chunked"])
def test_nothing_larger_than_allowed_is_kept(place, way):
    place.files["/a.mp4"], place.ways["/a.mp4"] = bytes(10_000_000), way
    with pytest.raises(RemoteError, match="a.mp4: is larger than media.download allows, 10,000 bytes"):
        fetched(place.address("/a.mp4"), Media(download=10_000))
    assert kept() == [] and place.gets("/a.mp4") <= 2


@pytest.mark.parametrize("target", ["file:///etc/hosts", "ftp://127.0.0.1/a"])
def test_a_server_can_t_lead_elsewhere_than_to_servers(place, target):
    place.ways["/a.mp4"] = f"to {target}"
    with pytest.raises(RemoteError):
        fetched(place.address("/a.mp4"))
    place.files["/b.mp4"], place.ways["/a.mp4"] = b"content", f"to {place.address('/b.mp4')}"
    assert fetched(place.address("/a.mp4")).read_bytes() == b"content"


def test_nobody_listening(place):
    place.server.shutdown()
    place.server.server_close()
    with pytest.raises(RemoteError, match="can't be fetched, tried 3 times: .*onnect"):
        fetched(place.address("/a.mp4"))


def test_a_cache_that_can_t_be_written_is_named(place, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMDISASTER_CACHE", str(tmp_path / "file"))
    place.files["/a.mp4"] = b"content"
    with pytest.raises(RemoteError, match=re.escape(f"can't be kept in {tmp_path / 'file' / 'media'}")):
        fetched(place.address("/a.mp4"))


def test_threads_that_want_the_same_file_fetch_it_once(place):
    place.files["/a.mp4"] = os.urandom(3_000_000)
    address, found = place.address("/a.mp4"), []
    threads = [Thread(target=lambda: found.append(fetched(address))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 8 and place.gets("/a.mp4") == 1


def test_the_cache_keeps_what_was_used_last(tmp_path):
    now = time.time()
    for i in range(6):
        (tmp_path / f"{i}").write_bytes(bytes(100))
        os.utime(tmp_path / f"{i}", (now, now - 10_000 + 1000 * i))
    os.utime(tmp_path / "0")  # somebody is about to open it
    assert trim(tmp_path, 1000) == 600 and trim(tmp_path, 350) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "4", "5"]
    assert trim(tmp_path, 0) == 100 and [path.name for path in tmp_path.iterdir()] == ["0"]


def test_many_are_asked_for_at_a_time(place):
    names = [f"/{i}.mp4" for i in range(40)]
    place.files = dict.fromkeys(names, b"content")
    ask_ahead([*map(place.address, names), "local.mp4", "", place.address("/none.mp4")])
    count = len(place.asked)
    assert len({identity(place.address(name)) for name in names}) == 40 and len(place.asked) == count


# --- manifests -------------------------------------------------------------------------------------------------------


def table(tmp_path, *media):
    rows = [{"clip_id": f"c{i}", "media": name, "labels": "A|B" if i % 2 else "A"} for i, name in enumerate(media)]
    pd.DataFrame(rows).to_csv(tmp_path / "clips.csv", index=False)
    return tmp_path / "clips.csv"


@pytest.mark.parametrize(
    "name", ["https://a.org/b.mp4", "HTTPS://a.org/b.mp4", "s3://bucket/b.mp4", "gs://bucket/b.mp4"]
)
def test_nothing_is_fetched_unless_one_says_so(tmp_path, name):
    (problem,) = check_manifest(table(tmp_path, name))[1]
    assert problem.column == "media" and "nothing is fetched unless corpus.remote is true" in str(problem)
    assert is_remote(name) and not media_cache_used(tmp_path)


def media_cache_used(tmp_path):
    return any(tmp_path.glob("cache/*"))


@pytest.mark.parametrize(
    "name",
    ["file:///etc/hosts", "local:///etc/hosts", "memory://a.mp4", "simplecache::https://a.org/b.mp4", "ftp://a.org/b.mp4",
     "zip://a.mp4::https://a.org/b.zip", "https://a.org/b::file:///etc/hosts", "https://", "https://a.org",
     "https://me:secret@a.org/b.mp4", "https://[a/b.mp4", "https://a.org:0x/b.mp4", "https:///etc/hosts", "dir://a"],
)  # fmt: skip
def test_no_address_leads_to_the_machine_itself(tmp_path, name):
    problems = check_manifest(table(tmp_path, name), remote=True)[1]
    assert [problem.column for problem in problems] == ["media"] and "\n" not in str(problems[0])


def test_what_fetches_may_not_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_installed", lambda library: library != "s3fs")
    problems = check_manifest(table(tmp_path, "s3://bucket/b.mp4", "https://a.org/b.mp4"), remote=True)[1]
    assert len(problems) == 1 and "pip install 'mmdisaster[remote]'" in str(problems[0]) and problems[0].row == 2


def test_records_without_addresses_are_as_before():
    assert "remote" not in Corpus().model_dump() and {"download", "cache"}.isdisjoint(Media().model_dump())
    settings = read_settings({"corpus": {"remote": True}, "media": {"download": 5}})
    again = read_settings(settings.model_dump(mode="json"))
    assert again == settings and again.corpus.remote and again.media.download == 5


# --- corpora ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Small clips with sounds of different pitch."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(6):
        sound = 0.3 * np.sin(np.arange(22_050) * (i + 1) / 30).astype(np.float32)
        write_clip(folder / f"{i}.mp4", np.full((10, 32, 32, 3), 40 * i, np.uint8), sound)
    return [path.read_bytes() for path in sorted(folder.glob("*.mp4"))]


def test_features_are_those_of_files_here(place, tmp_path, clips):
    place.files = {f"/{i}.mp4": content for i, content in enumerate(clips)}
    for i, content in enumerate(clips):
        (tmp_path / f"{i}.mp4").write_bytes(content)
    for name, folder in [("there", tmp_path / "1"), ("here", tmp_path)]:
        folder.mkdir(exist_ok=True)
        media = [place.address(f"/{i}.mp4") if name == "there" else f"{i}.mp4" for i in range(6)]
        manifest = read_manifest(table(folder, *media), remote=True)
        extract(manifest, folder, LogMelExtractor(), tmp_path / name)
    values = [[*(tmp_path / name).glob("*.safetensors")] for name in ("there", "here")]
    arrays = [load_file(path)["values"] for (path,) in values]
    assert np.array_equal(*arrays)
    before = len(place.asked)
    forget()
    report = extract(
        read_manifest(tmp_path / "1/clips.csv", remote=True), tmp_path, LogMelExtractor(), tmp_path / "there"
    )
    assert report.computed == 0 and {way for way, _ in place.asked[before:]} == {"HEAD"}
    place.files["/3.mp4"] = clips[0]
    forget()
    report = extract(
        read_manifest(tmp_path / "1/clips.csv", remote=True), tmp_path, LogMelExtractor(), tmp_path / "there"
    )
    assert report.computed == 1


def test_what_can_t_be_fetched_is_a_failure_among_others(place, tmp_path, clips):
    place.files = {f"/{i}.mp4": content for i, content in enumerate(clips)}
    del place.files["/2.mp4"]
    media = [place.address(f"/{i}.mp4") for i in range(6)]
    manifest = read_manifest(table(tmp_path, *media), remote=True)
    report = extract(manifest, tmp_path, LogMelExtractor(), tmp_path / "store", max_failures=0.2)
    (failure,) = report.failures
    assert failure["clip_id"] == "c2" and failure["value"] == media[2] and failure["reason"] == "isn't there"


def test_a_corpus_remembers_that_its_media_are_elsewhere(place, tmp_path, clips):
    place.files = {f"/{i}.mp4": content for i, content in enumerate(clips)}
    path = table(tmp_path, *[place.address(f"/{i}.mp4") for i in range(6)])
    with pytest.raises(ManifestError, match="nothing is fetched"):
        save_corpus(tmp_path / "corpus", path)
    save_corpus(tmp_path / "corpus", path, remote=True)
    first = json.loads((tmp_path / "corpus/corpus.json").read_text(encoding="utf-8"))["digest"]
    assert len(read_corpus(tmp_path / "corpus").manifest) == 6 and {way for way, _ in place.asked} == {"HEAD"}
    place.files["/1.mp4"] += b"more"
    forget()
    save_corpus(tmp_path / "corpus", path, remote=True)
    assert json.loads((tmp_path / "corpus/corpus.json").read_text(encoding="utf-8"))["digest"] != first


def test_check_looks_into_files_on_a_server(place, tmp_path, clips, capsys):
    place.files = {f"/{i}.mp4": content for i, content in enumerate(clips)}
    place.files["/5.mp4"] = b"no video"
    path = table(tmp_path, *[place.address(f"/{i % 6}.mp4") for i in range(60)])
    assert main(["check", str(path), "--json", "--quiet"]) == 1
    assert "nothing is fetched" in capsys.readouterr().out and not place.asked
    assert main(["check", str(path), "--json", "--quiet", "--remote", "--max-failures", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["with"]["sound"] == 50 and found["unreadable"] == 10 and found["seconds"] == pytest.approx(50, abs=1)
    assert {name: place.gets(f"/{name}.mp4") for name in range(6)} == dict.fromkeys(range(6), 1)


def test_bringing_a_corpus_of_addresses_and_going_back(place, tmp_path, clips, monkeypatch, capsys):
    place.files = {f"/{i}.mp4": content for i, content in enumerate(clips)}
    for name in ("params.yaml", "dvc.yaml", "audit/dvc.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(bring, "ROOT", tmp_path)
    (tmp_path / "own").mkdir()
    path = str(table(tmp_path / "own", *[place.address(f"/{i % 6}.mp4") for i in range(60)]))

    def brought(*arguments):
        assert bring.main([*arguments]) == 0
        return read_settings(tmp_path / "params.yaml").corpus.remote

    with pytest.raises(SystemExit):
        bring.main([path])
    assert "nothing is fetched unless corpus.remote is true" in capsys.readouterr().err and not place.asked
    assert brought("--remote", path) and brought(path) and not brought("simulated")
    found, known = (yaml.safe_load((where / "params.yaml").read_text()) for where in (tmp_path, ROOT))
    assert found == known


@pytest.mark.slow
def test_workers_fetch_for_themselves(place, tmp_path, clips):
    """Processes that share neither the manifest's folder nor a cache give the bytes of one process."""
    distributed = pytest.importorskip("distributed", reason="the extra `distributed` isn't installed")
    extraction = pytest.importorskip("mmdisaster.cluster.extraction")
    place.files = {f"/{i}.mp4": content for i, content in enumerate(clips)}
    (tmp_path / "own").mkdir()
    manifest = read_manifest(table(tmp_path / "own", *[place.address(f"/{i}.mp4") for i in range(6)]), remote=True)
    recipe = extraction.Recipe("sound", LogMelSource(), "", "", Media())
    extract(manifest, tmp_path / "own", recipe.make(), tmp_path / "alone", shard_clips=2)
    place.asked.clear()
    caches = [{"MMDISASTER_CACHE": str(tmp_path / name)} for name in ("one", "two")]
    workers = {i: {"cls": distributed.Nanny, "options": {"nthreads": 1, "env": env}} for i, env in enumerate(caches)}
    about = {"cls": distributed.Scheduler, "options": {"dashboard_address": "127.0.0.1:0"}}
    with distributed.SpecCluster(workers=workers, scheduler=about) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        extraction.extract_ahead(client, recipe, manifest, tmp_path / "nowhere", tmp_path / "store", shard_clips=2)
    assert {place.gets(f"/{i}.mp4") for i in range(6)} == {1}
    assert (
        sum(len([*(tmp_path / name / "media").iterdir()]) for name in ("one", "two") if (tmp_path / name).is_dir()) == 6
    )
    parts = {path.name: digest_file(path) for path in (tmp_path / "store.parts").glob("*/*.safetensors")}
    assert (
        parts == {path.name: digest_file(path) for path in (tmp_path / "alone").glob("*.safetensors")}
        and len(parts) == 3
    )


# --- a model ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_and_predictions_from_a_server(place, tmp_path, capsys):
    """The model of clips on a server is that of the same clips here, and scores addresses where one says so."""
    assert main(["demo", str(tmp_path / "demo"), "--quiet"]) == 0
    local = pd.read_csv(tmp_path / "demo/clips.csv", keep_default_na=False)
    for path in (tmp_path / "demo").rglob("*.mp4"):
        place.files[f"/{path.relative_to(tmp_path / 'demo').as_posix()}"] = path.read_bytes()
    table = local.assign(media=[place.address(f"/{name}") for name in local["media"]], video_id=local["video_id"])
    table.to_csv(tmp_path / "clips.csv", index=False)
    sections = {
        "modalities": {"sound": {"extractor": "logmel"}, "words": {"extractor": "tfidf"}},
        "temporal": {"max_epochs": 2},
    }
    (tmp_path / "small.json").write_text(json.dumps(sections), encoding="utf-8")
    small = ["--settings", str(tmp_path / "small.json"), "--quiet"]
    train = ["train", "--out", str(tmp_path / "there"), *small]
    assert main([*train, str(tmp_path / "clips.csv")]) == 2 and "nothing is fetched" in capsys.readouterr().err
    assert main([*train, str(tmp_path / "clips.csv"), "--remote"]) == 0
    assert main(["train", str(tmp_path / "demo/clips.csv"), "--out", str(tmp_path / "here"), *small]) == 0
    same = [name for name in os.listdir(tmp_path / "here") if name.endswith((".skops", ".safetensors"))]
    assert len(same) >= 3
    for name in same:
        assert digest_file(tmp_path / "here" / name) == digest_file(tmp_path / "there" / name), name
    capsys.readouterr()
    new, model = place.address("/new.mp4"), str(tmp_path / "there")
    assert main(["predict", model, str(tmp_path / "demo/new.mp4"), "--json", "--quiet"]) == 0
    expected = json.loads(capsys.readouterr().out)[0]["scores"]
    assert main(["predict", model, new, "--json", "--quiet"]) == 2
    assert "nothing is fetched" in capsys.readouterr().out
    assert main(["predict", model, new, "--json", "--quiet", "--remote"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["scores"] == expected
    pd.DataFrame({"media": [new, place.address("/none.mp4")]}).to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", model, "--manifest", str(tmp_path / "new.csv"), "--json", "--quiet", "--remote"]) == 2
    first, second = json.loads(capsys.readouterr().out)
    assert first["scores"] == expected and second["failure"] == "isn't there"


# --- buckets ---------------------------------------------------------------------------------------------------------


def bucket_of_amazon(monkeypatch, content):
    """A server that speaks as Amazon's does."""
    moto = pytest.importorskip("moto.server", reason="moto isn't installed")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs", reason="the extra `remote` isn't installed")
    for name, value in [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ]:
        monkeypatch.setenv(name, value)
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket="clips")

    def put(content):
        client.put_object(Bucket="clips", Key="some/a.mp4", Body=content)

    put(content)
    return "s3://clips/some/a.mp4", put, server.stop


def bucket_of_google(monkeypatch, content):
    """A server that speaks as Google's does."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator isn't installed")
    requests = pytest.importorskip("requests")
    gcsfs = pytest.importorskip("gcsfs", reason="the extra `remote` isn't installed")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="clips")
    server.start()
    host = f"http://127.0.0.1:{server._api._httpd.server_port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    monkeypatch.setattr("fsspec.config.conf", {"gs": {"token": "anon", "endpoint_url": host}})
    assert gcsfs

    def put(content):
        requests.post(f"{host}/upload/storage/v1/b/clips/o?uploadType=media&name=some/a.mp4", data=content, timeout=30)

    put(content)
    return "gs://clips/some/a.mp4", put, server.stop


@pytest.mark.parametrize("bucket", [bucket_of_amazon, bucket_of_google], ids=["s3", "gs"])
def test_buckets(place, monkeypatch, bucket):
    content = os.urandom(200_000)
    address, put, stop = bucket(monkeypatch, content)
    try:
        first = identity(address)
        assert fetched(address).read_bytes() == content and identity(address) == first
        put(content + b"more")
        forget()
        fsspec.filesystem(address.partition("://")[0]).invalidate_cache()
        assert identity(address) != first and fetched(address).read_bytes() == content + b"more"
        with pytest.raises(RemoteError, match="isn't there"):
            fetched(address.replace("a.mp4", "none.mp4"))
        for path in media_cache().iterdir():
            path.unlink()
        with pytest.raises(RemoteError, match="larger than media.download allows"):
            fetched(address, Media(download=1000))
    finally:
        stop()
