"""Tables of clips that were mutated: bytes, cells, separators, encodings, lengths.

`cases` writes them beside a few media files and yields commands that check and read them; `make fuzz` runs these.
"""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

COLUMNS = ["clip_id", "video_id", "media", "start", "end", "text", "labels"]
CELLS = [
    "", " ", "nan", "None", "|", "||", "Flood|", "Flood|Flood", "['Flood', 'Fire']", "“Flood”", "Flood; Fire", "\0",
    "\x1b[2J", "\x85", "a\nb", '"', '""', "'", "\\", "media\\a.mp4", "../a.mp4", "/etc/passwd", "C:\\a.mp4",
    "http://a.org/b.mp4", "a" * 70_000, "é", "e\u0301", "\u202e", "\ufeff", "-1", "1e400", "1e-400", "0x10", "1,5",
    "1:30", "inf", "true", "=1+1", "#REF!", "# no", "Flood|" * 5000 + "Fire", "9" * 5000, "{", "[" * 5000,
    "(" * 5000, "'" * 5000, ";" * 5000, "set(" * 2000, "１２", "😀", "\u2028", "\v",
]  # fmt: skip
PROGRAM = """
import sys
from mmdisaster.cli import main
from mmdisaster.core import refused
from mmdisaster.data.clips import read_clips, stream_clips
from mmdisaster.data.manifest import read_manifest
status = main(["check", sys.argv[1], "--quiet", *sys.argv[2:]])
for read in (read_manifest, read_clips, lambda path: list(stream_clips(path))):
    try:
        read(sys.argv[1])
    except (ValueError, FileNotFoundError) as error:
        if type(error).__name__ not in ("ManifestError", "FileNotFoundError"):
            raise
        print(error)
sys.exit(status)
"""


def good(draw: random.Random) -> list[list[str]]:
    """A table without fault, its header first."""
    rows = [
        [f"c{i}", f"v{i // 3}", f"media/{'abc'[i % 3]}.mp4", str(i), str(i + 1), "rain", draw.choice(["Flood", "Fire"])]
        for i in range(30)
    ]
    return [COLUMNS, *rows]


def written(rows: list[list[str]], mark: str = ",") -> str:
    """Rows as CSV, cells in quotes where they need them."""
    quoted = [
        ['"' + cell.replace('"', '""') + '"' if any(c in cell for c in f'{mark}"\r\n') else cell for cell in row]
        for row in rows
    ]
    return "\n".join(mark.join(row) for row in quoted) + "\n"


def cells(draw: random.Random, rows: list[list[str]]) -> bytes:
    """Some cells, or a whole column, hold something else."""
    rows = [list(row) for row in rows]
    column = draw.randrange(len(COLUMNS))
    for row in draw.sample(rows, draw.choice([1, 1, 3, 30])):
        row[column if draw.random() < 0.7 else draw.randrange(len(COLUMNS))] = draw.choice(CELLS)
    return written(rows).encode("utf-8", "surrogatepass")


def raw(draw: random.Random, rows: list[list[str]]) -> bytes:
    """Bytes are changed, put in, taken out."""
    content = bytearray(written(rows).encode())
    put = [b"", b"\0", b"\xff", b'"', b",", b"\n", b"\r", draw.randbytes(4)]
    for _ in range(draw.choice([1, 3, 20])):
        place = draw.randrange(len(content))
        content[place : place + draw.choice([0, 1, 5])] = draw.choice(put)
    return bytes(content)


def separators(draw: random.Random, rows: list[list[str]]) -> bytes:
    """Other separators and line ends, notes for spreadsheets, comments."""
    text = written(rows, draw.choice(",;\t|:"))
    head = draw.choice(["", "sep=,\n", '"sep=;"\n', "# made by hand\n", "\n\n", "\ufeff", "%"])
    return (head + text).replace("\n", draw.choice(["\n", "\r", "\r\n", "\n\n", "\v", "\x85"])).encode()


def encodings(draw: random.Random, rows: list[list[str]]) -> bytes:
    """Other encodings, with and without byte order marks."""
    rows[draw.randrange(1, 30)][5] = "Überschwemmung 水"
    kinds = ["latin-1", "utf-16", "utf-16-le", "utf-32", "utf-7", "gb18030", "cp1252", "utf-8", "utf-8-sig"]
    return written(rows).encode(draw.choice(kinds), "replace")


def lengths(draw: random.Random, rows: list[list[str]]) -> bytes:
    """Rows and columns are cut, repeated, left out, named in other ways."""
    way = draw.randrange(6)
    if way == 0:
        return written(rows).encode()[: draw.randrange(2000)]
    if way == 1:
        rows = [row[: draw.randrange(1, 8)] if draw.random() < 0.2 else row * draw.choice([1, 1, 2]) for row in rows]
    if way == 2:
        left = [i for i in range(len(COLUMNS)) if draw.random() < 0.7] or [0]
        rows = [[row[i] for i in left] for row in rows]
    if way == 3:
        rows[0] = [draw.choice([name, name.title(), f" {name} ", name.replace("_", " "), "x", ""]) for name in rows[0]]
    if way == 4:
        rows = [[*row, draw.choice(row)] for row in rows]
    if way == 5:
        rows = [rows[0], *rows[1:] * draw.choice([0, 1, 300])]
    return written(rows).encode()


def parquet(draw: random.Random, rows: list[list[str]]) -> bytes:
    """A Parquet file with other types of cells, or damaged."""
    import io

    import pandas as pd

    table = pd.DataFrame(rows[1:], columns=rows[0])
    column = draw.choice(COLUMNS)
    table[column] = draw.choice(
        [range(30), [0.5] * 30, [None] * 30, [["a", "b"]] * 30, [b"\xff"] * 30, pd.Timestamp(0), True, [{"a": 1}] * 30]
    )
    content = bytearray(table.to_parquet() or io.BytesIO().getvalue())
    for _ in range(draw.choice([0, 0, 1, 5])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


MUTATIONS: list[Callable[[random.Random, list[list[str]]], bytes]] = [
    cells, raw, separators, encodings, lengths, parquet, cells, raw,
]  # fmt: skip


def cases(seed: int, folder: Path, n: int) -> Iterator[tuple[str, list[str]]]:
    """Mutated tables and commands that read each as a manifest, and as clips to predict."""
    draw = random.Random(seed)
    (folder / "media").mkdir(parents=True, exist_ok=True)
    for name in "abc":
        (folder / "media" / f"{name}.mp4").write_bytes(b"no film")
    for number in range(n):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        path = folder / f"table-{number}.{'parquet' if mutate is parquet else 'csv'}"
        path.write_bytes(mutate(draw, good(draw)))
        options = ["--concept", "Flood", "--concept", "Fire"] if draw.random() < 0.3 else []
        options += ["--no-media"] if draw.random() < 0.8 else []
        yield f"table {number} {mutate.__name__}", [sys.executable, "-c", PROGRAM, str(path), *options]
