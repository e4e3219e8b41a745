"""What perfect perception reaches on simulated clips, and that only the limits are told."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from mmdisaster.core import save_arrays, save_json
from mmdisaster.data.split import Split, split_clips
from mmdisaster.evaluation.metrics import micro_f1
from mmdisaster.simulate.clips import EVIDENCE, SimulationSettings, corpus_evidence, simulate_labels
from mmdisaster.simulate.posterior import label_posterior, label_table
from mmdisaster.simulate.scenes import visual_evidence
from mmdisaster.simulate.sounds import audio_evidence
from mmdisaster.steps.limits import score_limits


@pytest.fixture(scope="module")
def whole():
    """The embedded corpus without media: settings, clips, videos, video of each clip, labels, evidence."""
    settings = SimulationSettings()
    video, Y = simulate_labels(settings)
    ids, names = [f"clip-{i:04d}" for i in range(len(Y))], [f"video-{v:03d}" for v in range(settings.videos)]
    return settings, ids, names, video, Y, corpus_evidence(settings, ids, names, video, Y)


def test_every_concept_of_a_clip_is_seen_or_heard_and_hardly_any_other(whole):
    *_, Y, evidence = whole
    seen, heard = evidence["visual"] > 0, evidence["audio"] > 0
    assert (seen | heard)[Y == 1].mean() > 0.97
    assert (seen | heard)[Y == 0].mean() < 0.03 and not (seen & heard)[Y == 0].any()
    for alone in (seen, heard):
        assert 0.4 < alone[Y == 1].mean() < 0.85  # neither is enough


def test_evidence_is_what_is_drawn_and_played(whole):
    settings, ids, _, _, Y, evidence = whole
    for i in range(0, 1540, 200):
        present = dict(zip(settings.counts, Y[i].astype(bool), strict=True))
        drawn = visual_evidence(present, ids[i], settings.seed, settings.visual_noise, settings.visual_strength)
        played = audio_evidence(present, ids[i], settings.seed, settings.audio_noise, settings.audio_strength)
        for modality, found in [("visual", drawn), ("audio", played)]:
            expected = [found[name].strength if found[name].shown else 0 for name in settings.counts]
            assert evidence[modality][i].tolist() == expected


def test_perfect_perception_leaves_room_above_the_rows(whole, tmp_path):
    settings, ids, names, video, Y, evidence = whole
    concepts, of = list(settings.counts), np.array(names)[video]
    labels = ["|".join(np.array(concepts)[row == 1]) for row in Y]
    table = pd.DataFrame({"clip_id": ids, "video_id": of, "media": "", "text": "x", "labels": labels})
    table.to_csv(tmp_path / "manifest.csv", index=False)
    save_json(tmp_path / "concepts.json", concepts)
    save_json(tmp_path / "corpus.json", {"simulated": True, "settings": settings})
    save_arrays(tmp_path / EVIDENCE, evidence)
    parts = split_clips(Y, of, "clip", (0.6, 0.2, 0.2), 2019)
    limits, learners = score_limits(tmp_path, Split(ids, of.tolist(), parts, concepts, Y), 2019, corpora=50)
    test = parts == "test"
    reached = {name: micro_f1(Y[test], found["decisions"][test]) for name, found in limits.items()}
    assert len(learners) == 3 and reached["oracle"] >= 0.97 and reached["near_bayes"] >= reached["oracle"] - 0.005


def test_the_posterior_is_that_of_bayes_rule_written_out():
    settings = SimulationSettings(
        60, 20, {"Flood/Storm": 40, "Victim": 30}, visual_noise=0.4, audio_noise=0.7, text_noise=0.3,
        visual_strength=0.8, audio_strength=0.6, text_strength=0.9,
    )  # fmt: skip
    video, Y = simulate_labels(settings)
    ids, names = [f"c{i}" for i in range(60)], [f"v{i}" for i in range(20)]
    evidence = corpus_evidence(settings, ids, names, video, Y)
    prior, r = label_table(settings, 20), 0.02
    noise = {"visual": [0.4, 0.4], "audio": [0.7**1.4, 0.7**0.7], "text": [0.3, 0.3]}
    sigma = {"visual": 0.8, "audio": 0.6, "text": 0.9}

    def rate(modality, c, present):
        nu = noise[modality][c]
        return 1 - nu * (1 - r) if present else nu * r

    def density(modality, c, present, s):
        least = 1 - 0.7 * noise[modality][c] if present else 0.3
        return (s >= sigma[modality] * least - 1e-9) / (sigma[modality] * (1 - least)) if s else 1.0

    def likelihood(i, clip, about):
        total = 1.0
        for c in range(2):
            v, a, t = (evidence[name][i, c] for name in ("visual", "audio", "text"))
            p, q = rate("visual", c, clip[c]), rate("audio", c, clip[c])
            both = max(p + q - 1, 0)
            total *= [[1 - p - q + both, q - both], [p - both, both]][int(v > 0)][int(a > 0)]
            told = rate("text", c, about[c])
            total *= told if t else 1 - told
            total *= (
                density("visual", c, clip[c], v) * density("audio", c, clip[c], a) * density("text", c, about[c], t)
            )
        return total

    sets = list(product([0, 1], repeat=2))  # (first, second concept); a set's number has the first concept as bit 0
    known = label_posterior(evidence, settings, 20)
    for i in range(60):
        weight = {
            clip: sum(prior[clip[0] + 2 * clip[1], m[0] + 2 * m[1]] * likelihood(i, clip, m) for m in sets)
            for clip in sets
        }
        expected = [sum(w for clip, w in weight.items() if clip[c]) / sum(weight.values()) for c in range(2)]
        assert known[i] == pytest.approx(expected, abs=1e-6)


def test_only_the_limits_read_the_evidence():
    told = re.compile(r"\bEVIDENCE\b|evidence\.safetensors|\bcorpus_evidence\b|\bshown_evidence\b")
    library = [path for path in (ROOT / "mmdisaster").rglob("*.py") if path.name != "_modidx.py"]
    stages = [*(ROOT / "nbs" / "stages").glob("*.ipynb"), *(ROOT / "tools").glob("*.py")]
    readers = {path.relative_to(ROOT).as_posix() for path in [*library, *stages] if told.search(path.read_text())}
    removes = {"mmdisaster/model/demo.py"}
    assert readers - removes == {"mmdisaster/simulate/clips.py", "mmdisaster/steps/limits.py"}
    limits = [
        path for path in [*library, *stages] if re.search(r"\bsteps\.limits\b|\bscore_limits\b", path.read_text())
    ]
    assert {path.relative_to(ROOT).as_posix() for path in limits} == {
        "mmdisaster/steps/limits.py",
        "nbs/stages/floors.ipynb",
    }
