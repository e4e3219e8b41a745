"""Write the results block of README.md from results/:  python tools/readme.py [--check | show PAGE]

With --check, change nothing and exit with status 1 when the block is stale. With `show`, print a page of the corpus
that params.yaml names, such as table2.md; `show audit` prints what `make audit` made of it.
"""

import sys
from pathlib import Path

from mmdisaster.core import load_json
from mmdisaster.settings.reading import read_settings

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by `make readme`, not by hand -->", "<!-- end of results -->"


def results_block(results: Path) -> str:
    """Verdicts, tables and figures, as the stages wrote them; the audit's where it has run."""
    audited = [
        "### Does the claim hold?\n", (results / "verdicts.md").read_text(encoding="utf-8"),
        "The whole page: [results/report.md](results/report.md).\n",
        "![Gains over each row, and what the paper printed](results/gains.png)\n",
        "### What a split by clip adds\n", "![Leakage, row by row](results/leakage.png)\n",
    ] if (results / "verdicts.md").is_file() else []  # fmt: skip
    return "\n".join([
        *audited,
        "### Table I, counted from the manifest\n", (results / "table1.md").read_text(encoding="utf-8"),
        "### Table II, on the test clips of one split\n", (results / "table2.md").read_text(encoding="utf-8"),
        "### Figure 2\n", "![F1 per concept, by fusion model](results/figure2.png)\n",
        "### The elimination path\n", "![Score against features kept](results/path.png)\n",
    ])  # fmt: skip


def renew(readme: str, block: str) -> str:
    """The README with its results block replaced."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md must hold the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{block}\n{END}{after}"


def main(arguments: list[str]) -> int:
    path, results = ROOT / "README.md", ROOT / "results"
    named = read_settings(ROOT / "params.yaml").corpus.results
    if arguments[:1] == ["show"]:
        audited = ["report.md"] if named == "results" else ["table2.md", "table2_seeds.md", "leakage.md"]
        pages = [ROOT / named / name for name in (audited if arguments[1] == "audit" else arguments[1:])]
        print(*(page.read_text(encoding="utf-8") for page in pages if page.is_file()), sep="\n")
        return 0
    if named != "results" and "--check" not in arguments:
        print(f"{named}/ has the tables and figures of your corpus; README.md keeps the embedded corpus's")
        return 0
    if not load_json(results / "evaluate.json")["provenance"]["corpus"]["simulated"]:
        print("README.md keeps the embedded corpus's tables: those in results/ are another's", file=sys.stderr)
        return 0
    old = path.read_text(encoding="utf-8")
    new = renew(old, results_block(results))
    if "--check" in arguments:
        if new != old:
            print("README.md doesn't show what results/ holds: run `make readme`", file=sys.stderr)
        return int(new != old)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
