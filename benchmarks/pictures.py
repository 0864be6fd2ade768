"""The two pictures of the README: the demo's table as a terminal shows it, and a chart of ours beside the peers.

`python -m benchmarks.pictures` makes both anew, in docs/pictures: it runs the demo, and draws the tables "On disk" of
docs/performance.md, so that picture and page say the same. With `--measure` the chart is of a run of now.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from . import charts, local, venues
from .contestants import LOCAL
from .measuring import Results, measure_all
from .records import Record

PLACE, PAGE = Path("docs/pictures"), Path("docs/performance.md")
ALONE = ("raw", "raw durable")  # what no library can have, beside which others look alike
WORKLOADS = {
    "put-64": "put 4 KiB, 64 at once",
    "get-1": "get 4 KiB, one by one",
    "get-64": "get 4 KiB, 64 at once",
    "head-64": "head, 64 at once",
    "range-64": "64 KiB ranges, 64 at once",
    "put-stream": "stream in",
    "get-stream": "stream out",
}
WIDTH = 62  # columns: those of the demo's table
ABOUT_THIS_MACHINE = ("storing ", "removed again from ")  # how the lines begin that name its directories
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, monospace; font-size: {char_height}px }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""  # as rich's own, without the fonts that it would have browsers fetch


def main() -> None:
    pictures: dict[str, Callable[[argparse.Namespace], str]] = {"demo": demo, "peers": peers}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pictures", description="Both pictures of the README.")
    parser.add_argument("--only", choices=pictures, help="this one")
    parser.add_argument("--measure", action="store_true", help="draw a run of now, and not the page")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--out", type=Path, metavar="DIR", default=PLACE, help="default: %(default)s")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures.items():
        if options.only in (None, name):
            path = options.out / f"{name}.svg"
            path.write_text(draw(options))
            print(path)


def demo(options: argparse.Namespace) -> str:
    """What the demo says, on a storage of its own."""
    with tempfile.TemporaryDirectory(prefix="micelio-demo-") as directory:
        command = [sys.executable, "-m", "micelio_storage", "demo", "--storage", f"file://{directory}/storage"]
        smaller = ["--artifact-mib", "16"] if options.quick else []
        done = subprocess.run([*command, *smaller], capture_output=True, text=True, check=True)
    return as_picture(done.stdout.splitlines())


def as_picture(lines: list[str]) -> str:
    """A terminal in which the command has said this, but for what is about this machine."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), markup=False, highlight=False, emoji=False)
    console.print(Text("$ micelio-storage demo", style="bold"))
    for line in lines:
        if not line.startswith(ABOUT_THIS_MACHINE):
            console.print(Text(line))
    return "\n".join(map(str.rstrip, console.export_svg(title="", code_format=FRAME, unique_id="demo").split("\n")))


def peers(options: argparse.Namespace) -> str:
    """How many times as good as the best peer everybody is, on a disk."""
    records = measured(quick=options.quick) if options.measure else published(PAGE.read_text())
    peers_and_ours = [
        replace(record, workload=WORKLOADS[record.workload])
        for record in records
        if record.workload in WORKLOADS and record.contestant not in ALONE
    ]
    chart = charts.beside_the_best(peers_and_ours, {venues.DISK: LOCAL})
    if chart is None:
        raise SystemExit("matplotlib is not installed: pip install '.[bench]'")
    return "\n".join(map(str.rstrip, chart.split("\n")))


def measured(*, quick: bool) -> Sequence[Record]:
    """A run of now."""
    chosen = [one for one in local.workloads("quick" if quick else "usual") if one.name in WORKLOADS]
    results = Results(notes=[])
    for venue in venues.local(venues.DISK):
        asyncio.run(measure_all(venue, chosen, 1 if quick else local.AREA.rounds, results))
    return results.records


def published(page: str) -> Sequence[Record]:
    """The medians in the page's tables of the disk."""
    section = page.partition("### On disk\n")[2].partition("\n### ")[0]
    records = []
    names: list[str] = []
    on_disk = False
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("**"):
            on_disk = "memory" not in line.lower()
        elif line.startswith("| workload"):
            names = cells[2:]
        elif on_disk and line.startswith("| ") and cells[0] in WORKLOADS:
            records += [
                Record(place=venues.DISK, workload=cells[0], contestant=name, unit=cells[1], round=1, value=value)
                for name, text in zip(names, cells[2:], strict=True)
                if name in LOCAL and (value := _number(text)) is not None
            ]
    return records


def _number(text: str) -> float | None:
    return None if text == "-" else float(text.replace(",", ""))


if __name__ == "__main__":
    main()
