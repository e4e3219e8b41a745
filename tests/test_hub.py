"""Models are published on a hub and fetched from it, through Hugging Face's own library and over HTTP."""

import json
import threading

import numpy as np
import pytest
from hub_server import serve

from mmdisaster.fusion.algorithm1 import Algorithm1
from mmdisaster.model.folder import load_model, save_model
from mmdisaster.model.prediction import Model, ModelError, make_model
from mmdisaster.settings.reading import read_settings
from mmdisaster.temporal.classifiers import TemporalClassifier

constants = pytest.importorskip("huggingface_hub.constants", reason="the extra `hub` isn't installed")

SETTINGS = {"modalities": {"faces": {"features": "faces.csv"}}, "temporal": {"units": 64, "dense": 32, "max_epochs": 1}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a small model, some of whose files are large for the server."""
    rng = np.random.default_rng(0)
    Y = np.tile([[1, 0], [0, 1], [1, 1]], (8, 1)).astype(np.uint8)
    X = rng.normal(size=(24, 1, 3))
    network = TemporalClassifier(units=64, dense=32, max_epochs=1).fit(X, Y)
    F = network.transform(X)
    algorithm = Algorithm1(n_trees=5).fit(F, Y, validation=(F, Y))
    model = make_model(["Flood", "Fire"], read_settings(SETTINGS), {}, {"faces": network}, algorithm)
    return save_model(tmp_path_factory.mktemp("models") / "model", model)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that runs; Hugging Face's library speaks with it alone, and begins with an empty cache."""
    hub, server = serve("hf_secret")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    places = {"ENDPOINT": endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(tmp_path / "cache")}
    for name, value in (places | {"HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True}).items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    server.shutdown()
    server.server_close()


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_model_is_published_and_fetched_and_is_the_same(hub, saved, tmp_path):
    address = load_model(saved).push_to_hub("storms/first")
    assert "/storms/first/commit/" in address
    assert hub.private["storms/first"] and hub.large, "private by default; large files went by LFS"
    pushed = hub.repos["storms/first"]["main"]
    assert {name: pushed[name] for name in pushed if name != ".gitattributes"} == contents(saved)
    fetched = Model.from_pretrained("storms/first")
    assert contents(save_model(tmp_path / "again", fetched)) == contents(saved)


def test_only_a_models_files_are_fetched_and_replaced(hub, saved, monkeypatch):
    model = load_model(saved)
    model.push_to_hub("storms/first", private=False)
    old, files = hub.head("storms/first", "main"), hub.repos["storms/first"]["main"]
    others = {"LICENSE": b"MIT", "evil.py": b"1/0", "weights-audio.safetensors": b"of a former model"}
    hub.commit("storms/first", files | others)
    model.push_to_hub("storms/first")
    left = hub.repos["storms/first"]["main"]
    assert left["LICENSE"] == b"MIT" and "weights-audio.safetensors" not in left
    hub.asked.clear()
    monkeypatch.delenv("HF_TOKEN")  # it is public
    Model.from_pretrained("storms/first", old)
    got = {line.rsplit("/", 1)[1] for line in hub.asked if "/resolve/" in line}
    assert got == set(contents(saved))


def test_refusals_are_one_line_that_names_the_repository(hub, saved, monkeypatch):
    model = load_model(saved)
    model.push_to_hub("storms/first")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    for call, words in [
        (lambda: Model.from_pretrained("storms/first"), r"storms/first: can't be fetched from the hub: 40\d"),
        (lambda: model.push_to_hub("storms/other"), r"storms/other: can't be published on the hub: .*401"),
    ]:
        with pytest.raises(OSError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(OSError, match="storms/first at v9: can't be fetched from the hub: .*v9"):
        Model.from_pretrained("storms/first", "v9")
    with pytest.raises(ModelError, match="storms/model.json: there is no such folder"):
        Model.from_pretrained("storms")


def test_a_model_that_was_changed_on_the_way_is_refused(hub, saved):
    load_model(saved).push_to_hub("storms/first")
    files = hub.repos["storms/first"]["main"]
    hub.commit("storms/first", files | {"algorithm1.skops": files["algorithm1.skops"][:-1] + b"?"})
    digest = json.loads(files["model.json"])["files"]["algorithm1.skops"]["sha256"]
    with pytest.raises(ModelError, match=f"algorithm1.skops: is damaged.*{digest}"):
        Model.from_pretrained("storms/first")


def test_a_hub_that_does_not_answer_is_named(hub, saved, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="storms/first: can't be published on the hub: "):
        load_model(saved).push_to_hub("storms/first")
    with pytest.raises(OSError, match="storms/first: can't be fetched from the hub: "):
        Model.from_pretrained("storms/first")
