"""What the installed library must be able to do, on a corpus of its own making:  python tools/smoke.py

Simulates a few clips, checks them, extracts their features, trains, saves, loads and predicts, in Python and by the
command `mmdisaster`. It needs the library alone, as `pip install .` brings it. Takes half a minute.
"""

import json
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path
from tempfile import TemporaryDirectory

from mmdisaster.core import load_json
from mmdisaster.data.clips import Clip
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform
from mmdisaster.media.survey import probe
from mmdisaster.model.folder import load_model, save_model
from mmdisaster.model.training import train
from mmdisaster.simulate.clips import SimulationSettings, simulate_corpus

COUNTS = {"Flood/Storm": 14, "Damage": 10, "Speak/Briefing/Interview": 12}
SETTINGS = {
    "corpus": {"calibration_clips": 2},
    "modalities": {
        "visual": {"extractor": "inception", "frames": 2, "size": 75, "weights": {"frames": 2, "size": 75}},
        "audio": {"extractor": "soundnet"},
        "text": {"extractor": "glove", "weights": {"dim": 8, "epochs": 2}},
    },
    "temporal": {"units": 6, "dense": 8, "max_epochs": 2},
    "fusion": {"n_trees": 20},
}


def run(folder: Path, *words: str) -> str:
    """Run the installed command; what it prints."""
    program = Path(sys.executable).with_name("mmdisaster")
    done = subprocess.run([program, *words], cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"mmdisaster {' '.join(words)}: exit status {done.returncode}\n{done.stderr}"
    return done.stdout


def check_media(path: Path) -> None:
    """A simulated clip is read back: 30 frames of 160 x 120 pixels, three seconds of sound."""
    about = probe(path)
    assert (about.video, about.audio, about.height, about.width) == ("h264", "aac", 120, 160), about
    assert read_frames(path, 4, 64).shape == (4, 64, 64, 3)
    assert abs(len(read_waveform(path)) / 22050 - about.seconds) < 0.2


def main() -> int:
    with TemporaryDirectory() as place:
        folder = Path(place)
        simulated = SimulationSettings(24, 12, COUNTS, seconds=1.2, seed=5)
        manifest = simulate_corpus(folder / "corpus", simulated, workers=1)
        clip = manifest.parent / "media" / "clip-000.mp4"
        check_media(clip)
        assert "A run can start" in run(folder, "check", str(manifest))
        (folder / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
        given = [str(manifest), "--settings", "settings.json", "--quiet"]
        assert "features of 24 clips" in run(folder, "extract", *given, "--out", "work")
        run(folder, "train", *given, "--work", "work", "--out", "model")
        model = train(manifest, folder / "work", settings=SETTINGS)
        save_model(folder / "again", model)
        trained, again = (load_json(folder / name / "model.json")["files"] for name in ["model", "again"])
        assert trained == again, "the same clips and settings gave two models"
        (spoken,) = json.loads(run(folder, "predict", "model", str(clip), "--text", "a flooded street", "--json"))
        (known,) = load_model(folder / "again").predict([Clip(clip, "a flooded street")])
        assert spoken["scores"] == known.scores and set(known.scores) == set(COUNTS), spoken
    needs = sorted({line.split(";")[0].split(">")[0].split("=")[0].split("<")[0].strip()
                    for line in requires("mmdisaster") or [] if "extra" not in line})  # fmt: skip
    print(f"Python {sys.version.split()[0]}:", ", ".join(f"{name} {version(name)}" for name in needs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
