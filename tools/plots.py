"""Let `dvc plots show` work without a network:  python tools/plots.py

DVC's page loads Vega from a content-delivery network. This writes .dvc/plots/page.html, a page that holds Vega, and
names it in .dvc/config.local, which git doesn't see. Run once after installation, by `make`.
"""

import subprocess
from pathlib import Path

import vl_convert

ROOT = Path(__file__).resolve().parents[1]
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>mmdisaster: plots</title>
<style>
  body { font-family: sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
  img { max-width: 100%; height: auto; }
</style>
<script>VEGA</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    page = ROOT / ".dvc" / "plots" / "page.html"
    page.write_text(PAGE.replace("VEGA", vl_convert.javascript_bundle(vl_version="5.20")), encoding="utf-8")
    subprocess.run(["dvc", "config", "--local", "plots.html_template", "plots/page.html"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
