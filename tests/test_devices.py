"""Devices: what `auto` finds, what an absent one says, and agreement with the CPU where there is a card."""

import copy
import warnings

import numpy as np
import pytest
import torch

from mmdisaster.data.sequences import Sequences
from mmdisaster.devices import devices, pick_device, single_precision, torch_stream
from mmdisaster.static.inception import InceptionV3, random_inception
from mmdisaster.static.soundnet import SoundNetFeatures, random_soundnet
from mmdisaster.temporal.classifiers import DenseClassifier, TemporalClassifier, load_classifier, save_classifier
from mmdisaster.temporal.resbilstm import BiLSTM, pack

CARD = next((name for name in devices() if name != "cpu"), None)
needs_card = pytest.mark.skipif(CARD is None, reason="neither CUDA nor MPS is here")
NO_SUCH = "cuda:64"


@pytest.fixture
def pretend(monkeypatch):
    """Let torch say what it would on another machine."""

    def machine(cards, mps):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return machine


@pytest.mark.parametrize(
    "cards, mps, found", [(2, False, "cuda"), (1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_fastest(pretend, cards, mps, found):
    pretend(cards, mps)
    assert pick_device() == pick_device(torch.device(found)) == torch.device(found)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps", "gpu", "CPU", "meta"])
def test_what_is_not_there_is_refused_by_name(pretend, name):
    pretend(2 if name == "cuda:2" else 0, mps=False)
    listed = "'auto', 'cuda', 'cuda:0', 'cuda:1', 'cpu'" if name == "cuda:2" else "'auto', 'cpu'"
    with pytest.raises(ValueError, match=f"device must be one of {listed}, was '{name}'"):
        pick_device(name)


@pytest.fixture(scope="module")
def frames():
    """Eight pictures of stripes, each with its own direction, width and colours."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:75, :75]
    a, b = random.uniform(-0.5, 0.5, (2, 8, 1, 1))
    stripes = np.sin(a * x + b * y)[..., None] > 0
    return np.where(stripes, *random.uniform(0, 255, (2, 8, 1, 1, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def arrays(frames):
    return random_inception(0, frames)


@pytest.fixture(scope="module")
def waveforms():
    random = np.random.default_rng(0)
    return [(0.3 * random.standard_normal(n)).clip(-1, 1).astype(np.float32) for n in (30000, 30000, 60000)]


@pytest.fixture(scope="module")
def clips():
    """60 short sequences and two labels."""
    random = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 9, 60))])
    return Sequences(random.normal(size=(offsets[-1], 5)).astype(np.float32), offsets), random.integers(0, 2, (60, 2))


def test_networks_refuse_an_absent_device(arrays, waveforms, clips, tmp_path):
    path = save_classifier(tmp_path / "t.safetensors", TemporalClassifier(units=2, dense=2, max_epochs=1).fit(*clips))
    for use in [
        lambda: InceptionV3(arrays, NO_SUCH),
        lambda: SoundNetFeatures(random_soundnet(0, waveforms[:2]), NO_SUCH),
        lambda: TemporalClassifier(units=2, dense=2, device=NO_SUCH).fit(*clips),
        lambda: load_classifier(path, NO_SUCH),
    ]:
        with pytest.raises(ValueError, match=f"device must be one of .*, was '{NO_SUCH}'"):
            use()


def test_auto_is_a_setting_and_stays_one(clips, tmp_path):
    """The word is kept, also in the file; another machine may find another device."""
    auto = TemporalClassifier(units=2, dense=2, max_epochs=1, device="auto").fit(*clips)
    assert auto.get_params()["device"] == "auto"
    assert next(auto.network_.parameters()).device.type == pick_device("auto").type
    again = load_classifier(save_classifier(tmp_path / "t.safetensors", auto), "auto")
    assert np.array_equal(again.predict_proba(clips[0]), auto.predict_proba(clips[0]))


@pytest.mark.parametrize("fails", [False, True])
def test_numbers_drawn_on_mps_leave_no_trace(pretend, monkeypatch, fails):
    """There is no such device here: a stand-in records what it is told."""
    pretend(0, mps=True)
    told = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: "before")
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: told.append(seed))
    monkeypatch.setattr(torch.mps, "set_rng_state", told.append)
    try:
        with torch_stream(7, "auto"):
            assert told == [7]
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert told == [7, "before"]


def moved(found, expected):
    """Root mean square difference, in standard deviations."""
    return np.sqrt(np.mean((found - expected) ** 2)) / expected.std()


def test_half_precision_is_another_feature(arrays, frames):
    """Another fingerprint, within the tolerance that the lesson states."""
    exact, half = InceptionV3(arrays), InceptionV3(arrays, precision="float16")
    assert half.digest == f"{exact.digest}-float16"
    found, expected = half.extract(frames, batch_size=4), exact.extract(frames, batch_size=4)
    assert found.dtype == np.float32 and 0 < moved(found, expected) < 0.03


@needs_card
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-3), ("float16", 0.03)])
def test_frames_on_a_card(arrays, frames, precision, tolerance):
    found = InceptionV3(arrays, "auto", precision).extract(frames, batch_size=4)
    assert moved(found, InceptionV3(arrays).extract(frames, batch_size=4)) < tolerance


@needs_card
def test_sounds_on_a_card(waveforms):
    arrays = random_soundnet(0, waveforms[:2])
    found, expected = (SoundNetFeatures(arrays, name).extract(waveforms) for name in ("auto", "cpu"))
    for a, b in zip(found, expected, strict=True):
        assert moved(a, b) < 1e-3


@needs_card
@pytest.mark.parametrize("summary", ["mean", "last", "max"])
def test_a_network_on_a_card_says_what_it_says_on_the_cpu(clips, tmp_path, summary):
    """Trained there: equal seeds give equal networks, and the CPU agrees about what they say."""
    X, Y = clips
    model = TemporalClassifier(units=4, dense=8, max_epochs=2, summary=summary, device="auto")
    before = torch.get_rng_state()
    first, second = (model.fit(X, Y, (X, Y)).predict_proba(X) for _ in range(2))
    assert np.allclose(first, second, atol=1e-4) and torch.equal(torch.get_rng_state(), before)
    moved_here = load_classifier(save_classifier(tmp_path / "t.safetensors", model), "cpu")
    assert np.allclose(moved_here.predict_proba(X), second, atol=1e-4)


@needs_card
@pytest.mark.parametrize("directions", [1, 2])
def test_all_steps_at_once_give_what_the_cpu_gives_step_by_step(clips, directions):
    """States and gradients; and cuDNN has nothing to warn of, such as weights that it must copy together."""
    here, x = BiLSTM(5, 4, directions), pack(clips[0], np.arange(60))
    there, found = copy.deepcopy(here).to(CARD), []
    with warnings.catch_warnings(action="error"), single_precision():
        for layer, batch in [(here, x), (there, x.to(CARD))]:
            states = layer(batch)
            gradients = torch.autograd.grad(states.square().sum(), [*layer.parameters()])
            found.append([value.detach().cpu() for value in (states, *gradients)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@needs_card
def test_vectors_on_a_card(tmp_path):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(100, 6)), random.integers(0, 3, 100)
    model = DenseClassifier(hidden=(8,), max_epochs=2, device="auto").fit(X, y)
    moved_here = load_classifier(save_classifier(tmp_path / "d.safetensors", model), "cpu")
    assert np.allclose(moved_here.predict_proba(X), model.predict_proba(X), atol=1e-4)
