"""Write the results block of README.md from results/:  python tools/readme.py [--check]

With --check, change nothing and exit with status 1 when the block is stale.
"""

import json
import sys
from pathlib import Path

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
    path = ROOT / "README.md"
    evaluation = json.loads((ROOT / "results" / "evaluate.json").read_text(encoding="utf-8"))
    if not evaluation["provenance"]["corpus"]["simulated"]:
        print("README.md keeps the embedded corpus's tables; yours, and until you go back the figures, are in results/")
        return 0
    old = path.read_text(encoding="utf-8")
    new = renew(old, results_block(ROOT / "results"))
    if "--check" in arguments:
        if new != old:
            print("README.md doesn't show what results/ holds: run `make readme`", file=sys.stderr)
        return int(new != old)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
