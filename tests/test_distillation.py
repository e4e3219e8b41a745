"""SoundNet learns from frames: what has a say in it, and what hasn't."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.utils.estimator_checks import check_estimator

from mmdisaster.core import load_provenance
from mmdisaster.data.sequences import Sequences
from mmdisaster.media.sound import read_waveform
from mmdisaster.settings.audits import Distillation
from mmdisaster.settings.sources import SoundNetSource, SoundNetWeights
from mmdisaster.static.soundnet import HEADS, RATE, SoundNetFeatures, random_soundnet, soundnet_weights
from mmdisaster.static.sources import make_weights
from mmdisaster.study import distillation
from mmdisaster.study.distillation import distil_clips, read_sounds, read_start, save_distilled
from mmdisaster.study.listening import find_recordings, fold_accuracies, layer_means
from mmdisaster.study.student import Lessons, average_divergence, crops, distil_soundnet, kl_divergence, new_student
from mmdisaster.study.teacher import (
    ClusterTeacher,
    choose_temperature,
    class_posteriors,
    mean_perplexity,
    soft_assignment,
)
from mmdisaster.weights.download import WeightsError

QUICK = Distillation(seconds=0.3, batch_size=6, learning_rate=0.001, max_epochs=2, patience=2)
SEED = 1
TEACHER = ClusterTeacher(k=2, components=2, share=0.7, seed=1)
PARTS = np.repeat(["train", "validation", "test"], [12, 6, 6])


@pytest.fixture(scope="module")
def corpus():
    """24 clips of hum or noise, of several lengths, with four values each that an eye would see."""
    random, kind = np.random.default_rng(0), np.arange(24) % 2
    lengths = random.integers(5000, 12000, 24)  # 0.2 to 0.5 s: shorter and longer than a crop
    hum = [np.sin(2 * np.pi * 100 * np.arange(n) / RATE) for n in lengths]
    waves = [h if k else random.uniform(-1, 1, n) for h, k, n in zip(hum, kind, lengths, strict=True)]
    sights = random.standard_normal((24, 4)) + 5 * kind[:, None]
    return [(0.5 * wave).astype(np.float32) for wave in waves], sights.astype(np.float32)


@pytest.fixture(scope="module")
def distilled(corpus):
    return distil_clips(*corpus, PARTS, TEACHER, QUICK, SEED)


def but(settings, **changes):
    """Settings with some of them changed."""
    return settings.model_copy(update=changes)


def same(one, other):
    """Whether two students are equal to the byte, with all they went through."""
    arrays = all(one.arrays[name].tobytes() == other.arrays[name].tobytes() for name in one.arrays)
    return arrays and one.weight.tobytes() == other.weight.tobytes() and one.history == other.history


def changed(corpus, part):
    """The corpus with other clips in one part."""
    waveforms, sights = corpus
    rows = PARTS == part
    other = [-wave[::-1] * np.float32(0.9) if row else wave for wave, row in zip(waveforms, rows, strict=True)]
    return other, np.where(rows[:, None], sights[::-1] * 2 + 1, sights)


def test_the_same_inputs_give_the_same_bytes_whatever_stands_around(corpus, distilled):
    before = torch.get_num_threads()
    torch.manual_seed(99)
    torch.rand(3)
    expected = torch.rand(1).item()
    torch.manual_seed(99)
    torch.rand(3)
    torch.set_num_threads(2)
    try:
        assert same(distil_clips(*corpus, PARTS, TEACHER, QUICK, SEED), distilled)
        assert torch.get_num_threads() == 2, "the caller's number of threads is left as it was"
    finally:
        torch.set_num_threads(before)
    assert torch.rand(1).item() == expected, "torch's own stream is left alone"
    assert not hasattr(TEACHER, "clusters_"), "the teacher that was given is left as it was"


def test_another_seed_gives_another_student(corpus, distilled):
    assert not same(distil_clips(*corpus, PARTS, TEACHER, QUICK, seed=2), distilled)


def test_test_clips_do_nothing(corpus, distilled):
    assert same(distil_clips(*changed(corpus, "test"), PARTS, TEACHER, QUICK, SEED), distilled)
    kept = PARTS != "test"
    waveforms = [wave for wave, stays in zip(corpus[0], kept, strict=True) if stays]
    assert same(distil_clips(waveforms, corpus[1][kept], PARTS[kept], TEACHER, QUICK, SEED), distilled)


def test_validation_clips_only_say_when_to_stop(corpus, distilled):
    """With other validation clips the lessons are the same, epoch by epoch, as far as they go."""
    other = distil_clips(*changed(corpus, "validation"), PARTS, TEACHER, QUICK, SEED)
    losses = [[row["train_loss"] for row in student.history] for student in (distilled, other)]
    assert losses[0] == losses[1]
    examined = [[row["validation_loss"] for row in student.history] for student in (distilled, other)]
    assert examined[0] != examined[1]


def test_training_clips_matter(corpus, distilled):
    assert not same(distil_clips(*changed(corpus, "train"), PARTS, TEACHER, QUICK, SEED), distilled)


def test_early_stopping_keeps_the_best_epoch(corpus):
    """Stopped in the middle, or run on after its best epoch: the weights are the same."""
    settings = but(QUICK, max_epochs=8, patience=2, learning_rate=0.02)
    longer = distil_clips(*corpus, PARTS, TEACHER, settings, SEED)
    losses = [row["validation_loss"] for row in longer.history]
    best = int(np.argmin(losses))
    assert best + 1 < len(losses), "it went on after its best epoch"
    assert len(losses) == min(best + 1 + settings.patience, settings.max_epochs)
    shorter = distil_clips(*corpus, PARTS, TEACHER, but(settings, max_epochs=best + 1), SEED)
    assert all(np.array_equal(longer.arrays[name], shorter.arrays[name]) for name in longer.arrays)


def test_a_control_keeps_its_last_epoch(corpus):
    """It is trained for as long as it is told, whatever validation clips say."""
    settings = but(QUICK, max_epochs=5, patience=2, learning_rate=0.005)
    early, last = (distil_clips(*corpus, PARTS, TEACHER, settings, SEED, early=each) for each in (True, False))
    losses = [row["validation_loss"] for row in last.history]
    stopped = [row["validation_loss"] for row in early.history]
    assert len(stopped) < 5 == len(losses) and losses[: len(stopped)] == stopped and losses[-1] > min(stopped)
    rows = np.flatnonzero(PARTS == "validation")
    posteriors = clone(TEACHER).fit(corpus[1][PARTS == "train"]).predict_proba(corpus[1][rows])
    middles = crops([corpus[0][i] for i in rows], round(settings.seconds * RATE))[:, 0].numpy() / 256
    heard = np.log(last.predict_proba(list(middles)).astype(float).clip(1e-300))
    assert np.mean(np.sum(posteriors * (np.log(posteriors) - heard), axis=1)) == pytest.approx(losses[-1], rel=0.01)


def test_a_control_gets_the_same_posteriors_for_other_clips(corpus, monkeypatch):
    """Each part keeps its own; nothing else changes."""
    found = []
    monkeypatch.setattr(distillation, "distil_soundnet", lambda *inputs: found.append(inputs))
    for shuffle in (None, 4, 4, 5):
        distil_clips(*corpus, PARTS, TEACHER, QUICK, SEED, None, shuffle)
    own, one, again, other = found
    for part in (0, 1):
        assert own[part].waveforms is not one[part].waveforms
        assert all(a is b for a, b in zip(own[part].waveforms, one[part].waveforms, strict=True))
        rows = [np.sort(inputs[part].posteriors, axis=0).tobytes() for inputs in found]
        assert len(set(rows)) == 1, "the same posteriors"
        assert np.array_equal(one[part].posteriors, again[part].posteriors)
        assert not np.array_equal(one[part].posteriors, own[part].posteriors)
        assert not np.array_equal(one[part].posteriors, other[part].posteriors)
    assert own[2:] == one[2:]


def test_lessons_do_not_begin_with_distilled_weights(distilled, tmp_path):
    path = save_distilled(tmp_path / "distilled-audio.safetensors", distilled, {})
    for source in ("distilled", "distilled-audio.safetensors"):  # the param's name, and a path to the same file
        student = SoundNetSource(weights=SoundNetWeights(source=source))
        made = make_weights(student, tmp_path, tmp_path / "weights-audio.safetensors", path)
        with pytest.raises(WeightsError, match=f"weights.source of the network that learns must be .*, was '{source}'"):
            read_start(made)


def test_lessons_begin_where_they_are_told_to(corpus):
    """With steps of next to nothing, what was given comes out."""
    start = random_soundnet(3, [np.resize(wave, 12000) for wave in corpus[0]])
    still = distil_clips(*corpus, PARTS, TEACHER, but(QUICK, learning_rate=1e-12, max_epochs=1), SEED, start)
    learnt = [name for name in start if name.split(".")[0] not in HEADS and "running" not in name]
    assert all(np.allclose(still.arrays[name], start[name], atol=1e-9) for name in learnt)
    with pytest.raises(ValueError, match="weights: 'conv1.conv.weight' is missing"):
        distil_clips(*corpus, PARTS, TEACHER, QUICK, SEED, {})


def test_divergence_against_its_definition():
    random = np.random.default_rng(3)
    g = random.dirichlet(np.full(6, 0.3), 9)
    g[0] = [1, 0, 0, 0, 0, 0]  # 0 log 0 is 0
    s = 3 * random.standard_normal((9, 6))
    logs = np.log(g, where=g > 0, out=np.zeros_like(g))
    expected = (g * (logs - log_softmax(s, axis=1))).sum(axis=1).mean()
    assert kl_divergence(torch.from_numpy(g), torch.from_numpy(s)).item() == pytest.approx(expected, rel=1e-12)
    average = g[:5].mean(axis=0)
    expected = np.mean([sum(p * np.log(p / q) for p, q in zip(row, average, strict=True) if p) for row in g[5:]])
    assert average_divergence(g[:5], g[5:]) == pytest.approx(expected, rel=1e-9)


def test_one_batch_of_one_epoch_is_one_step_of_adam(corpus):
    """Adam's first step has the size of the learning rate wherever there is a gradient."""
    posteriors = np.eye(2, dtype=np.float32)[np.arange(6) % 2]
    lessons = Lessons([wave[:5000] for wave in corpus[0][:6]], posteriors)
    settings = but(QUICK, seconds=5000 / RATE, max_epochs=1, learning_rate=1e-3)
    student = distil_soundnet(lessons, lessons, settings, SEED)
    assert student.history[0]["train_loss"] == pytest.approx(np.log(2), abs=1e-6)  # of one who knows nothing
    moved = np.abs(student.weight[student.weight != 0])
    assert moved.size > 1000 and np.allclose(moved, 1e-3, rtol=0.05)
    assert np.array_equal(np.sign(student.weight[0]), -np.sign(student.weight[1]))  # gradients of a softmax sum to 0


def test_the_file_is_a_soundnet(distilled, tmp_path):
    path = save_distilled(tmp_path / "distilled-audio.safetensors", distilled, {"split": 7})
    arrays = soundnet_weights(path, seed=0, waveforms=[])
    assert set(arrays) == set(distilled.arrays)
    assert all(not arrays[name].any() for name in arrays if name.split(".")[0] in HEADS)
    wave = np.sin(np.arange(40000) / 20).astype(np.float32)
    one, other = (SoundNetFeatures(each).extract([wave])[0] for each in (arrays, distilled.arrays))
    assert one.tobytes() == other.tobytes() and one.std() > 0
    found = load_provenance(path)
    assert found["source"] == "distilled" and found["split"] == 7 and found["history"] == distilled.history
    assert "zero" in found["conv8"] and found["training"]["seconds"] == QUICK.seconds


def test_what_was_examined_is_what_comes_out(corpus, distilled):
    """The kept arrays, used as everybody uses them, give the divergence that training printed."""
    rows = np.flatnonzero(PARTS == "validation")
    posteriors = clone(TEACHER).fit(corpus[1][PARTS == "train"]).predict_proba(corpus[1][rows])
    middles = crops([corpus[0][i] for i in rows], round(QUICK.seconds * RATE))[:, 0].numpy() / 256
    heard = distilled.predict_proba(list(middles))
    found = np.mean(np.sum(posteriors * np.log(posteriors / heard), axis=1))
    assert found == pytest.approx(min(row["validation_loss"] for row in distilled.history), abs=2e-3)


def test_clusters_are_those_of_training_clips(corpus):
    train = corpus[1][PARTS == "train"]
    teacher = clone(TEACHER).fit(train)
    z = (train - train.mean(axis=0)) / train.std(axis=0)
    directions = np.linalg.svd(z, full_matrices=False)[2][:2]
    centres = KMeans(2, n_init=10, random_state=0).fit(z @ directions.T).cluster_centers_
    squared = ((z @ directions.T)[:, None] - centres[None]) ** 2
    expected = soft_assignment(squared.sum(axis=2), teacher.temperature_)
    found = teacher.predict_proba(train)
    agree = min(np.abs(found - expected[:, order]).max() for order in ([0, 1], [1, 0]))
    assert agree < 1e-4 and mean_perplexity(found) == pytest.approx(0.7 * 2, abs=1e-3)


def test_the_teacher_is_an_estimator():
    check_estimator(ClusterTeacher(k=2, components=2, share=0.7))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_temperature_follows_the_scale(scale):
    squared = np.random.default_rng(5).exponential(size=(40, 5))
    assert choose_temperature(scale * squared, 0.5) == pytest.approx(scale * choose_temperature(squared, 0.5), rel=1e-6)


def test_posteriors_that_are_given_are_taken_as_they_are(corpus):
    posteriors = np.random.default_rng(6).dirichlet(np.ones(3), 24)
    lessons = [
        Lessons([corpus[0][i] for i in rows], posteriors[rows].astype(np.float32))
        for rows in (range(12), range(12, 18))
    ]
    assert same(distil_clips(corpus[0], posteriors, PARTS, None, QUICK, SEED), distil_soundnet(*lessons, QUICK, SEED))


def test_a_new_student_says_nothing():
    with torch.no_grad():
        scores = new_student(4, seed=1)(torch.rand(2, 1, 5000))
    assert scores.shape == (2, 4) and not scores.any()


WRONG = {
    "as many": (lambda w, p: (w[:3], p[:2]), r"training: posteriors must have shape \(3, classes\), had \(2, 2\)"),
    "one clip": (lambda w, p: (w[:1], p[:1]), "training: must hold at least 2 clips, held 1"),
    "one class": (lambda w, p: (w[:2], np.ones((2, 1), np.float32)), r"had \(2, 1\)"),
    "no probabilities": (lambda w, p: (w[:2], 2 * p[:2]), "training: posteriors must be probabilities"),
    "not a number": (
        lambda w, p: (w[:2], np.full((2, 2), np.nan, np.float32)),
        "training: posteriors must be probabilities",
    ),
    "too short": (
        lambda w, p: ([w[0], w[1][:99]], p[:2]),
        "training: clip 1: waveform must have at least 4574 samples",
    ),
    "too loud": (lambda w, p: ([w[0], w[1] * 300], p[:2]), "training: clip 1: waveform must lie between -1 and 1"),
    "double": (lambda w, p: ([w[0], w[1].astype(float)], p[:2]), "training: clip 1: waveform must be float32"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_learnt_from(corpus, case):
    spoil, message = WRONG[case]
    posteriors = np.full((6, 2), 0.5, np.float32)
    with pytest.raises(ValueError, match=message):
        distil_soundnet(Lessons(*spoil(corpus[0], posteriors)), Lessons(corpus[0][:6], posteriors), QUICK, SEED)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w, s: distil_clips(w, s[:5], PARTS, TEACHER, QUICK, SEED),
            r"must hold the same clips, had \[24, 5, 24\]",
        ),
        (lambda w, s: distil_clips(w, s, np.full(24, "test"), TEACHER, QUICK, SEED), "Found array with 0 sample"),
        (lambda w, s: ClusterTeacher(k=25).fit(s), "k must be at most n_samples = 24 clips, was 25"),
        (lambda w, s: ClusterTeacher(k=4, share=0.25).fit(s), "share must be above 1 / k = 0.25, was 0.25"),
        (lambda w, s: ClusterTeacher(k=4, share=1.0).fit(s), "share: must be a number above 0 below 1, was 1.0"),
        (
            lambda w, s: distil_clips(w, s, PARTS, TEACHER, but(QUICK, seconds=0.2), SEED),
            "seconds must be at least 0.21",
        ),
        (lambda w, s: class_posteriors(Sequences(s, np.arange(25)), np.eye(3), np.zeros(3)), r"\(classes, 4\)"),
        (lambda w, s: read_sounds(None, ".", longest=0.1), "longest must be at least 0.21"),
        (lambda w, s: fold_accuracies(s, np.arange(24) % 2, np.arange(24) % 2), r"folds must be at least 3.*\[0, 1\]"),
        (lambda w, s: find_recordings(ROOT / "tests"), "folder must hold a folder per class, with .ogg files"),
    ],
)
def test_errors_name_the_argument_and_what_it_was(corpus, call, message):
    with pytest.raises(ValueError, match=message):
        call(*corpus)


def test_real_recordings(distilled):
    """Ten classes in five folds of eighty; each can be read and heard."""
    folder = ROOT.parent / "shared" / "audio" / "ESC-10"
    if not folder.is_dir():
        pytest.skip("ESC-10 is not here; it is optional")
    found = find_recordings(folder)
    assert len(set(found.classes)) == 10 and np.bincount(found.folds).tolist() == [0, 80, 80, 80, 80, 80]
    assert set(zip(found.classes, found.folds, strict=True)) == {
        (name, fold) for name in set(found.classes) for fold in range(1, 6)
    }
    waves = [read_waveform(path, RATE) for path in found.paths[::100]]
    means = layer_means(distilled.arrays, waves)
    assert means["conv5"].shape == (4, 256) and means["conv7"].shape == (4, 1024)
    assert all(np.isfinite(values).all() for values in means.values())
