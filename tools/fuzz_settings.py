"""Settings that nobody means, and settings at the ends of what is allowed.

`cases` writes files of settings and yields commands that read them; `make fuzz` runs these. By itself:

    python tools/fuzz_settings.py SETTINGS FOLDER

runs the steps of the experiment on a tiny corpus in FOLDER, with the settings in a file laid over tiny ones; what
settings have in common is made once. Exit status 2 and one line a problem where settings are refused.
"""

import json
import math
import random
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmdisaster.core import digest_json
from mmdisaster.runs import held
from mmdisaster.settings import Settings, SettingsError, read_settings
from mmdisaster.settings.reading import merged, read_values
from mmdisaster.settings.sources import MODALITIES

TINY = {
    "corpus": {"clips": 24, "videos": 12, "calibration_clips": 4},
    "modalities": {
        "visual": {"extractor": "inception", "frames": 2, "size": 75, "weights": {"frames": 1, "size": 75}},
        "audio": {"extractor": "soundnet"},
        "text": {"extractor": "glove", "weights": {"dim": 8, "epochs": 2}},
    },
    "temporal": {"max_epochs": 1, "units": 8, "dense": 8},
    "baseline": {"max_epochs": 1},
    "fusion": {"n_trees": 5},
    "evaluate": {"resamples": 20},
}
WRONG: list[Any] = [
    None, "", " ", "x", "a\nb", "\x1b[2J", "é" * 300, "a" * 10**5, "null", "1e5", math.nan, math.inf, -math.inf, 1e300,
    -1e300, 1e-320, 10**9, 10**18, 10**400, -1, 0, 0.5, True, False, [], [1], {}, {"a": 1}, [[]], [None], ["a", "a"],
    [math.nan] * 3, [10**18] * 3,
]  # fmt: skip
FILES = {  # name → what stands in it
    "empty.yaml": b"",
    "tab.yaml": b"split:\n\tby: video\n",
    "tag.yaml": b"split: !!python/object/apply:os.system ['true']\n",
    "latin.yaml": "corpus: {manifest: café}\n".encode("latin-1"),
    "bom.yaml": b"\xef\xbb\xbfsplit: {by: video}\n",
    "utf16.yaml": "split: {by: video}\n".encode("utf-16"),
    "nul.yaml": b"split: {by: vi\0deo}\n",
    "list.yaml": b"- split\n",
    "text.yaml": b"split\n",
    "twice.yaml": b"split: {by: clip}\nsplit: {by: video}\n",
    "documents.yaml": b"split: {by: clip}\n---\nsplit: {by: video}\n",
    "circle.yaml": b"split: &a {by: *a}\n",
    "deep.yaml": b"split: " + b"[" * 50_000,
    "deeper.json": b'{"a":' * 50_000,
    "blocks.yaml": "\n".join(" " * depth + "a:" for depth in range(1000)).encode(),
    "large.yaml": b"# nothing\n" * 10**6,
    "long.yaml": b"split: {seed: " + b"9" * 10_000 + b"}\n",
    "hex.toml": b"split.seed = 0x" + b"f" * 9000 + b"\n",
    "keys.yaml": b"1: 2\nnull: 3\n[a, b]: c\n",
    "mapping.yaml": b"{a: b}: c\n",
    "nan.json": b'{"fusion": {"C": NaN}}',
    "twice.json": b'{"fusion": {"C": 1, "C": 2}}',
    "date.toml": b"split.seed = 2019-01-01\n",
    "set.yaml": b"split: !!set {by, seed}\n",
    "binary.yaml": b"split: {by: !!binary dmlkZW8=}\n",
    "params.txt": b"split: {by: video}\n",
}
LAUGHS = [f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}]" for a, b in pairwise("abcdefghijklm")]
FILES["laughs.yaml"] = "\n".join(["a: &a [ha, ha]", *LAUGHS]).encode()
# Fields whose large values take long by what they mean: these are read, and the steps not run.
LONG = (".clips", ".videos", "_clips", "epochs", "n_trees", "resamples", "seed")
# Errors that a stage tells in their own words; any other is a fault.
SAYS_ALL = {"SettingsError", "ManifestError", "ExtractionError", "MediaError", "WeightsError", "SplitError"}


def fields(section: type[BaseModel] = Settings, place: tuple[str, ...] = ()) -> Iterator[tuple[str, FieldInfo]]:
    """Every field of the settings, and every section, by its dotted name."""
    for name, field in section.model_fields.items():
        yield ".".join([*place, name]), field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, (*place, name))
    for name, source in MODALITIES.items() if section is Settings else ():
        yield from fields(type(source), ("modalities", name))


def limits(field: FieldInfo) -> list[Any]:
    """The least and the largest value that a number may have, both beyond it, and the choices of a word."""
    found: list[Any] = []
    for limit in field.metadata:
        for kind in ("ge", "gt", "le", "lt"):
            bound = getattr(limit, kind, None)
            if isinstance(bound, int | float):
                step = 1 if field.annotation is int else abs(bound) * 1e-6 or 1e-6
                found += [bound, bound + step, bound - step]
    return found + list(get_args(field.annotation) if get_origin(field.annotation) is Literal else ())


def values() -> list[tuple[str, Any]]:
    """Every field with every value that is tried."""
    return [(name, value) for name, field in fields() for value in [*limits(field), *WRONG]]


def at(name: str, value: Any) -> dict[str, Any]:
    """A tree that holds one value at a dotted name."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def write(path: Path, tree: dict[str, Any]) -> Path:
    """Settings as JSON with Python's numbers, which is YAML as well."""
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def accepted(tree: dict[str, Any]) -> bool:
    """Whether settings are taken with the tiny ones."""
    try:
        read_settings(merged(TINY, tree))
    except SettingsError:
        return False
    return True


def cases(seed: int, folder: Path, n: int) -> Iterator[tuple[str, list[str]]]:
    """Files and values in turn: wrong ones through the command line, allowed extremes through the steps."""
    draw, program = random.Random(seed), "import sys; from mmdisaster.cli import main; sys.exit(main())"
    train = [sys.executable, "-c", program, "train", str(folder / "none.csv"), "--out", str(folder / "model")]
    train += ["--settings"]
    for name, content in sorted(FILES.items())[:n]:
        (folder / name).write_bytes(content)
        yield f"settings {name}", [*train, str(folder / name)]
    tried, ends = values(), [(name, value) for name, field in fields() for value in limits(field)]
    draw.shuffle(tried)
    draw.shuffle(ends)
    for number in range(max(n - len(FILES), 0)):
        name, value = (ends if number % 3 == 0 and ends else tried).pop()
        words = f"settings {name} {str(value)[:20]!r}"
        path = write(folder / f"value-{number}.json", at(name, value))
        steps = [sys.executable, str(Path(__file__).resolve()), str(path), str(folder / "tiny")]
        long = name.endswith(LONG) and isinstance(value, int | float) and value > 100
        yield words, steps if accepted(at(name, value)) and not long else [*train, str(path)]


def run(settings: Settings, folder: Path) -> None:
    """The steps of the experiment; what other settings made already is taken from the folder."""
    from mmdisaster.data.corpus import read_corpus
    from mmdisaster.data.sequences import Sequences
    from mmdisaster.data.store import read_store
    from mmdisaster.steps.baselines import score_baseline
    from mmdisaster.steps.corpus import make_calibration, make_corpus
    from mmdisaster.steps.evaluation import measure_rows
    from mmdisaster.steps.fusion import fit_algorithm1, score_algorithm1
    from mmdisaster.steps.split import split_corpus
    from mmdisaster.steps.static import extract_features, get_weights
    from mmdisaster.steps.temporal import learn_temporal
    from mmdisaster.steps.words import fit_weights, training_texts

    made = folder / digest_json(settings.corpus.model_dump())[:16]
    made.mkdir(parents=True, exist_ok=True)
    with held(made / "making.lock", "the tiny corpus"):  # cases run side by side, and share it
        if not (made / "corpus/corpus.json").is_file():
            make_corpus(made / "corpus", settings.corpus)
            make_calibration(made / "calibration", settings.corpus)
    corpus = read_corpus(made / "corpus")
    split = split_corpus(corpus.manifest, corpus.concepts, settings.split)
    texts = training_texts(corpus.manifest, split)
    digest = digest_json(settings.model_dump(include={"modalities"}))[:16]
    static: dict[str, Sequences] = {}
    for modality, source in settings.present.items():
        where, own = made / f"{modality}-{digest}", digest_json(source.model_dump())[:16]
        file = made / f"{modality}-{own}.safetensors"
        if source.fitted:
            fit_weights(modality, source, texts, file)
        elif not file.is_file():
            get_weights(modality, source, made / "calibration", file)
        extract_features(modality, corpus.manifest, corpus.media, file, source, where)
        static[modality] = read_store(where, split.clip_ids)[1]
    networks = {name: learn_temporal(name, found, split, settings.temporal) for name, found in static.items()}
    temporal = {name: network.transform(static[name]) for name, network in networks.items()}
    rows = {row.fusion: row for row in settings.rows.values() if row.fusion != "proposed"}.values()  # one of each kind
    scored = {row.name: score_baseline(row, static, temporal, split, settings.baseline)[0] for row in rows}
    algorithm = fit_algorithm1(temporal, split, settings.fusion, settings.order)
    scored["proposed"] = score_algorithm1(algorithm, temporal, settings.order)
    print(measure_rows(split, scored, settings.evaluate)["test"]["proposed"]["micro_f1"])


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        run(read_settings(merged(TINY, read_values(arguments[0]))), Path(arguments[1]))
    except ValueError as error:
        if type(error).__name__ not in SAYS_ALL:
            raise
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
