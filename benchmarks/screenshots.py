"""The pictures of the page of `micelio-storage serve`: by day, by night, and on a telephone.

`python -m benchmarks.screenshots` makes them anew, in docs/pictures, with Chromium: it serves a storage of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selenium.webdriver.support.ui import WebDriverWait

from .browser import chromium
from .pictures import PLACE

SHOWN_PLACE = "/srv/micelio"  # in place of the directory of this run
PATIENCE = 60  # seconds
HOUR, DAY = 3600, 86400
SESSION = "survey-2026"

REPORT = """\
# Survey of 2026

1,204 people answered, a third more than last year.
Three groups stand apart:

| group   | answers | score |
|---------|--------:|------:|
| readers |     611 |   7.2 |
| writers |     402 |   6.4 |
| both    |     191 |   8.1 |

## What they ask for

- Search in files, not in their names alone.
- Uploads that survive a train ride.
- A preview that opens at once, of any log.

## How it was done

The answers are in `data/answers.csv`, one a line,
as they came. `src/analyse.py` makes the chart and
this page of them.
"""
CODE = """\
def score(answers):
    return sum(answer.score for answer in answers) / len(answers)
"""
BARS = {"readers": (611, "#448a68"), "writers": (402, "#7fb99b"), "both": (191, "#c4dfd0")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture: the place on the page, how large, by day or by night, and what has to be seen in it."""

    place: str
    size: tuple[int, int]
    dark: bool
    waits_for: str
    folders: tuple[str, ...] = ()


FILE = f"session={SESSION}&file=sessions/{SESSION}/files"
SHOTS = {
    "serve-light": Shot(
        place=f"{FILE}/report.md", size=(1280, 760), dark=False, waits_for="#stage .line", folders=("charts", "data")
    ),
    "serve-dark": Shot(
        place=f"{FILE}/charts/groups.svg",
        size=(1280, 760),
        dark=True,
        waits_for="#stage img",
        folders=("charts", "logs"),
    ),
    "serve-narrow": Shot(
        place=f"session={SESSION}", size=(390, 700), dark=False, waits_for="#tree .row", folders=("charts", "data")
    ),
}


def chart() -> str:
    """A picture for a session to have."""
    bars = "".join(
        f'<rect x="120" y="{40 + 60 * row}" width="{width * 0.7:.0f}" height="36" rx="4" fill="{colour}"/>'
        f'<text x="108" y="{63 + 60 * row}" text-anchor="end">{name}</text>'
        f'<text x="{130 + width * 0.7:.0f}" y="{63 + 60 * row}">{width}</text>'
        for row, (name, (width, colour)) in enumerate(BARS.items())
    )
    style = 'font-family="sans-serif" font-size="15" fill="#33403a"'
    back = '<rect width="620" height="240" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="620" height="240" {style}>{back}{bars}</svg>'


def fill(root: Path) -> None:
    """Sessions as they may be after some days."""
    files: dict[str, tuple[bytes, float]] = {
        f"{SESSION}/files/report.md": (REPORT.encode(), 40 * 60),
        f"{SESSION}/files/report.html": (b"<!doctype html><h1>Survey of 2026</h1>", 38 * 60),
        f"{SESSION}/files/charts/groups.svg": (chart().encode(), 2 * HOUR),
        f"{SESSION}/files/charts/by-month.png": (bytes(48_213), 2 * HOUR),
        f"{SESSION}/files/data/answers.csv": (b"reader,7\n" * 21_400, 3 * DAY),
        f"{SESSION}/files/data/questions.json": (b"{}" * 900, 3 * DAY),
        f"{SESSION}/files/interview.mp4": (bytes(48_300_000), DAY),
        f"{SESSION}/files/logs/analyse.log": (b"read 1000 answers\n" * 700, 2 * HOUR),
        f"{SESSION}/files/logs/collect.log": (b"one more answer\n" * 1204, 3 * DAY),
        f"{SESSION}/files/src/analyse.py": (CODE.encode(), 5 * HOUR),
        f"{SESSION}/metadata.json": (b"{}\n", 40 * 60),
        "agent-7f3a91/files/answer.md": (b"done\n" * 2_000, 4 * 60),
        "agent-9c02de/files/trace.jsonl": (b"{}\n" * 310_000, 26 * 60),
        "build-1842/files/wheel.whl": (bytes(2_240_000), 5 * HOUR),
        "crawl-eu-west/files/pages.tar": (bytes(81_000_000), DAY),
        "notebook-anna/files/week-47.ipynb": (b"[1]" * 61_000, 2 * DAY),
        "review-4711/files/diff.patch": (b"+ line\n" * 3_300, 19 * DAY),
    }
    others = {"agent-9c02de": 41, "build-1842": 7, "crawl-eu-west": 1_204, "notebook-anna": 12}
    files |= {f"{name}/files/part-{n:04}": (bytes(900), 20 * DAY) for name, most in others.items() for n in range(most)}
    for key, (data, age) in files.items():
        path = root / "sessions" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (time.time() - age,) * 2)


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The link of a server of that storage."""
    command = [sys.executable, "-m", "micelio_storage", "serve", f"file://{root}", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            yield json.loads(child.stdout.readline())["url"]
        finally:
            child.terminate()


def take(link: str, shot: Shot) -> bytes:
    """The picture."""
    with chromium(shot.size) as browser:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if shot.dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(link)
        browser.get(f"{link.partition('?')[0]}#{shot.place}")
        see = "return [...document.querySelectorAll(arguments[0])].some((one) => one.checkVisibility())"
        rest = (
            "return !document.body.innerText.includes('…') && document.querySelector('#files-usage').innerText !== ''"
        )
        wait = WebDriverWait(browser, PATIENCE)
        wait.until(lambda _: browser.execute_script(see, "#tree .row") or browser.execute_script(see, shot.waits_for))
        for folder in shot.folders:
            opened = (
                "const row = [...document.querySelectorAll('#tree .directory')]"
                ".find((one) => one.querySelector('.name').innerText === arguments[0]);"
                "row?.click(); return Boolean(row)"
            )
            wait.until(lambda _, folder=folder, opened=opened: browser.execute_script(opened, folder))
            wait.until(lambda _: browser.execute_script(rest))
        wait.until(lambda _: browser.execute_script(see, shot.waits_for) and browser.execute_script(rest))
        browser.execute_script("document.getElementById('place').textContent = arguments[0]", SHOWN_PLACE)
        browser.execute_script("document.querySelectorAll('.active').forEach((row) => row.classList.remove('active'))")
        return browser.get_screenshot_as_png()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description="Pictures of the page.")
    parser.add_argument("--only", choices=SHOTS, help="this one")
    parser.add_argument("--out", type=Path, metavar="DIR", default=PLACE, help="default: %(default)s")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="micelio-page-") as directory:
        root = Path(directory) / "storage"
        fill(root)
        with serving(root) as link:
            for name, shot in SHOTS.items():
                if options.only in (None, name):
                    path = options.out / f"{name}.png"
                    path.write_bytes(take(link, shot))
                    print(path)


if __name__ == "__main__":
    main()
