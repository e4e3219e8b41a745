"""Look at the book in a browser:  python tools/shots.py CHROMIUM [PAGE ...]

Opens pages of build/book from disk at the width of a desktop and of a phone, writes pictures to build/book-shots, and
exits with status 1 where a page has an error on its console, asks for anything that isn't on disk, is wider than the
screen, or shows an unset equation; or where a search finds nothing. CHROMIUM is a Chromium or its headless shell, such
as the one in the npm package @sparticuz/chromium.
"""

import base64
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import websocket

ROOT = Path(__file__).resolve().parents[1]
HTML, SHOTS = ROOT / "build" / "book", ROOT / "build" / "book-shots"
PAGES = [
    "index",
    "nbs/index",
    "nbs/2_method/index",
    "nbs/2_method/10_resbilstm",
    "nbs/2_method/16_elimination",
    "nbs/3_data/simulated/03_scenes",
    "results/table2",
    "results/report",
    "docs/index",
    "docs/fusion/elimination",
]
WIDTHS = {"desktop": (1280, 1000), "phone": (390, 844)}
SECONDS = 30  # that anything may take
FLAGS = ["--headless=new", "--no-sandbox", "--no-zygote", "--single-process", "--disable-gpu", "--hide-scrollbars"]
FLAGS += ["--allow-file-access-from-files", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]
UNSET = """[...document.querySelectorAll('article p, article li, article td')].some(
  e => !e.closest('pre') && e.innerText.includes('$$'))"""


class Browser:
    """One tab of a browser, driven through its debugging protocol."""

    def __init__(self, program: str, folder: str):
        command = [program, *FLAGS[:-1], f"--user-data-dir={folder}", FLAGS[-1]]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.number, self.events = itertools.count(1), list[dict]()
        port = Path(folder) / "DevToolsActivePort"
        wait_for(lambda: port.exists() and port.read_text(encoding="utf-8").count("\n"))
        number, path = port.read_text(encoding="utf-8").split()
        self.socket = websocket.create_connection(f"ws://127.0.0.1:{number}{path}", timeout=SECONDS)
        self.session = ""
        tab = self.say("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.say("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.say(f"{part}.enable")

    def say(self, method: str, **params: Any) -> dict:
        """Send a command and wait for its answer; events on the way are kept."""
        number = next(self.number)
        message = {"id": number, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while (found := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(found)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        return found["result"]

    def value(self, script: str) -> Any:
        """What a script gives in the page."""
        return self.say("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get(
            "value"
        )

    def open(self, address: str, width: int, height: int) -> None:
        """Open a page and wait until it is there, with its equations."""
        self.events.clear()
        self.say(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.say("Page.navigate", url=address)
        wait_for(lambda: self.value("document.readyState === 'complete'"))
        self.value("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")

    def problems(self) -> list[str]:
        """What went wrong since the page was opened."""
        found = []
        for event in self.events:
            params, method = event.get("params", {}), event.get("method")
            if method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append(str(params["args"]))
            elif method == "Network.requestWillBeSent" and params["request"]["url"].startswith("http"):
                found.append(f"asks for {params['request']['url']}")
        return found

    def shoot(self, path: Path) -> None:
        """Write a picture of what the window shows."""
        path.write_bytes(base64.b64decode(self.say("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


def wait_for(there: Any) -> None:
    """Wait until something holds, for as long as anything may take."""
    end = time.monotonic() + SECONDS
    while not there():
        if time.monotonic() > end:
            raise TimeoutError("the browser does not answer")
        time.sleep(0.1)


def look(browser: Browser, pages: list[str]) -> list[str]:
    """Open pages at each width, take pictures; returns what is wrong."""
    wrong = []
    for name, (kind, size) in itertools.product(pages, WIDTHS.items()):
        name, _, place = name.partition("#")
        browser.open((HTML / f"{name}.html").as_uri() + (f"#{place}" if place else ""), *size)
        found = browser.problems()
        found += ["an equation isn't set"] if browser.value(UNSET) else []
        wide = browser.value("document.documentElement.scrollWidth")
        found += [f"is {wide} pixels wide on a screen of {size[0]}"] if wide > size[0] else []
        browser.shoot(SHOTS / f"{name.replace('/', '-')}{'-' + place if place else ''}-{kind}.png")
        wrong += [f"{name}, {kind}: {problem}" for problem in found]
    return wrong


def search(browser: Browser, words: str) -> list[str]:
    """Search the book; returns what is wrong."""
    browser.open(f"{(HTML / 'search.html').as_uri()}?q={words}", *WIDTHS["desktop"])
    try:
        wait_for(lambda: browser.value("document.querySelectorAll('#search-results li a').length") or 0)
    except TimeoutError:
        return [f"search for {words!r} finds nothing"]
    time.sleep(1)  # the list grows for a moment
    browser.shoot(SHOTS / "search.png")
    return [f"search: {problem}" for problem in browser.problems()]


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    SHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(arguments[0], folder)
        try:
            wrong = look(browser, arguments[1:] or PAGES) + search(browser, "elimination")
        finally:
            browser.close()
    print(*wrong, f"{len(wrong)} problems; pictures are in {SHOTS.relative_to(ROOT)}", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
