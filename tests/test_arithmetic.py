"""Each extractor's arithmetic has a version, and small inputs must give the values that are known of it.

Where a test here fails, the arithmetic has changed: raise `version` of that extractor (or `MADE`, of weights that are
made), so that features which exist already are computed again, and put the new values here. Tolerances allow for the
rounding of other machines.
"""

import wave

import numpy as np
import pytest

from mmdisaster.media.files import MEDIA_LIMITS
from mmdisaster.media.frames import read_frames
from mmdisaster.media.writing import write_clip
from mmdisaster.settings.sources import BackboneWeights, Glove, LogMelSource, TfidfWeights
from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus
from mmdisaster.static.backbone import Backbone, BackboneExtractor, backbone_arrays
from mmdisaster.static.extractors import MADE, AudioExtractor, TextExtractor, VisualExtractor
from mmdisaster.static.inception import InceptionV3, random_inception
from mmdisaster.static.logmel import LogMelExtractor
from mmdisaster.static.soundnet import RATE, SoundNetFeatures, random_soundnet
from mmdisaster.static.tfidf import TfidfExtractor, fit_tfidf
from mmdisaster.words.vectors import make_vectors

TEXTS = [
    "Water on the street, rescue boats on water",
    "A boat rescues people from the water",
    "The mayor speaks of 911",
]


def summary(array):
    """A dozen values: of each quarter the average, the deviation, and the first."""
    quarters = np.array_split(np.asarray(array, float).ravel(), 4)
    return np.array([value for part in quarters for value in (part.mean(), part.std(), part[0])])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two seconds of a square that moves over a gradient, and a rising tone, in MP4; the tone in a WAV file as well."""
    folder = tmp_path_factory.mktemp("clip")
    frames = np.broadcast_to(np.linspace(0, 200, 96).astype(np.uint8)[None, None, :, None], (20, 96, 96, 3)).copy()
    for i, frame in enumerate(frames):
        frame[30:60, 3 * i : 3 * i + 30] = [250, 120, 30]
    t = np.arange(2 * RATE) / RATE
    sound = (0.4 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)
    write_clip(folder / "clip.mp4", frames, sound)
    with wave.open(str(folder / "clip.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return folder


def random_frames(size):
    return np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)


def inception(clip):
    frames = random_frames(75)
    extractor = VisualExtractor(InceptionV3(random_inception(0, frames)), frames=2, size=75, batch_size=2)
    return extractor, np.concatenate([*extractor.encode([frames[:2], extractor.read({"media": "clip.mp4"}, clip)])])


def soundnet(clip):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 2 * RATE)).astype(np.float32)
    extractor = AudioExtractor(SoundNetFeatures(random_soundnet(0, [*noise])))
    return extractor, np.concatenate(extractor.encode([noise[0], extractor.read({"media": "clip.wav"}, clip)]))


def vectors(clip):
    words = make_vectors(Glove(dim=4, min_count=1, epochs=5, seed=1), TEXTS)
    extractor = TextExtractor(words, 5)
    return extractor, np.concatenate(extractor.encode([*TEXTS, "boats, and 911!"]))


def logmel(clip):
    extractor = LogMelExtractor(LogMelSource())
    return extractor, extractor.read({"media": "clip.wav"}, clip)


def tfidf(clip):
    extractor = TfidfExtractor(fit_tfidf(TfidfWeights(min_count=1, words=2), TEXTS, None, clip / "terms.safetensors"))
    return extractor, np.concatenate(extractor.encode([*TEXTS, "boats, and 911!"]))


def backbone(clip):
    """SqueezeNet with weights by NumPy, as torch's own random numbers are those of one release."""
    settings = BackboneWeights(architecture="squeezenet1_1", source="random")
    arrays = backbone_arrays(settings, [clip / "clip.mp4"], "random")
    random = np.random.default_rng(0)
    for name, array in arrays.items():
        if array.ndim == 4:
            arrays[name] = random.normal(0, np.sqrt(2 / np.prod(array.shape[1:])), array.shape).astype(np.float32)
        elif "bias" in name:
            arrays[name] = np.zeros_like(array)
    extractor = BackboneExtractor(Backbone("squeezenet1_1", arrays, 64), 2, 64, 4, MEDIA_LIMITS)
    clips = [random_frames(64)[:2], extractor.read({"media": "clip.mp4"}, clip)]
    return extractor, np.concatenate(extractor.encode(clips))


KNOWN = {  # extractor, or what is made, and version → `summary` of its values
    ("word vectors", 2): [
        -0.0548,
        0.0928,
        -0.0901,
        0.0201,
        0.051,
        0.0387,
        -0.0004,
        0.1093,
        -0.122,
        -0.0324,
        0.1114,
        -0.1248,
    ],
    ("backbone", 1): [0.9662, 1.2014, 0.0, 0.8767, 1.1021, 0.0, 0.4126, 0.5075, 0.0, 0.3782, 0.4695, 0.0],
    ("inception", 1): [2.044, 1.0462, 3.4838, 2.0167, 1.0328, 2.058, 3.0234, 3.9356, 0.4606, 2.9022, 3.5959, 1.8041],
    ("logmel", 1): [
        -68.064,
        13.7197,
        -76.7514,
        -30.4872,
        83.4737,
        -81.3116,
        17.3291,
        14.5989,
        9.5789,
        13.9085,
        17.412,
        1.6702,
    ],
    ("soundnet", 1): [2.0375, 0.8185, 1.2249, 1.944, 0.8415, 3.1537, 2.3084, 2.1766, 2.0049, 2.4098, 2.8972, 0.0282],
    ("tfidf", 1): [0.1173, 0.1399, 0.0, 0.1095, 0.1461, 0.0, 0.0991, 0.1533, 0.3461, 0.0471, 0.1764, 0.7071],
    ("vectors", 1): [
        0.0355,
        0.1016,
        -0.0714,
        0.0117,
        0.0977,
        -0.1157,
        0.0034,
        0.1278,
        -0.0634,
        -0.0009,
        0.0883,
        0.0242,
    ],
    ("clip", 2): [67.3862, 25.2086, 37.0, 87.8254, 22.8283, 79.0, 57.5728, 21.7017, 32.0, 76.8875, 18.1033, 66.0],
}


@pytest.mark.parametrize("compute", [inception, soundnet, vectors, logmel, tfidf, backbone])
def test_arithmetic_is_that_of_its_version(clip, compute):
    extractor, features = compute(clip)
    known = KNOWN.get((extractor.name, extractor.version))
    shown = f"{extractor.name}, version {extractor.version}: {summary(features).round(4).tolist()}"
    assert known, f"has no values here: {shown}"
    assert np.allclose(summary(features), known, rtol=0.01, atol=0.01 * features.std()), shown


def test_what_is_made_here_is_that_of_its_version(clip, tmp_path):
    """Word vectors, and a simulated clip, which random weights are fitted to; random weights decide features above."""
    counts = {"Flood/Storm": 6, "Damage": 5, "Speak/Briefing/Interview": 5}
    drawn = {"visual_noise": 0.3, "visual_strength": 0.8}
    simulate_corpus(tmp_path, SimulationSettings(10, 5, counts, 100, 76, seconds=0.5, seed=5, **drawn), workers=1)
    frames = read_frames(next(iter(sorted((tmp_path / "media").glob("*.mp4")))), 2, 75)
    made = {
        "word vectors": make_vectors(Glove(dim=4, min_count=1, epochs=5, seed=2), TEXTS).vectors_,
        "clip": frames,
    }
    for name, array in made.items():
        known, shown = KNOWN.get((name, MADE), []), f"{name}, version {MADE}: {summary(array).round(4).tolist()}"
        assert known and np.allclose(summary(array), known, rtol=0.01, atol=0.01 * array.std()), shown
