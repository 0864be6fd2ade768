"""The command: which areas, how much, how often, and where the results go. It installs nothing."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import cold, compare, directories, environment, local, loop, memory, s3, scale, sessions, web
from .areas import Area, Size
from .measuring import Results, Workload, measure_all
from .report import Report

AREAS: Mapping[str, Area] = {
    area.name: area
    for area in (
        *(local.AREA, s3.AREA, loop.AREA, memory.AREA, scale.AREA, sessions.AREA, web.AREA, directories.AREA),
        cold.AREA,
    )
}
ALL = "all"
QUICK_ROUNDS = 1


def main() -> None:
    if sys.argv[1:2] == [compare.NAME]:
        compare.main(sys.argv[2:])
        return
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers and directories go all the same
    size: Size = "quick" if options.quick else "full" if options.full else "usual"
    areas = list(AREAS.values()) if options.area == ALL else [AREAS[options.area]]
    chosen = {area.name: _chosen(area.workloads(size), options.only) for area in areas}
    if not any(chosen.values()):
        known = ", ".join(dict.fromkeys(one.name for area in areas for one in area.workloads(size)))
        raise SystemExit(f"no workload is called {' or '.join(options.only)}: there are {known}")
    for area in areas:
        if chosen[area.name]:
            rounds = options.rounds or (QUICK_ROUNDS if options.quick else area.rounds)
            report = _run(area, chosen[area.name], rounds)
            print(report.as_markdown(), flush=True)
            print(*report.write(options.out), sep="\n", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Only the ratios say anything.",
        epilog=f"`python -m benchmarks {compare.NAME} OLD.json NEW.json` prints the ratios that fell between two runs.",
    )
    parser.add_argument("area", choices=[*AREAS, ALL])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="less of everything: all in under a minute")
    size.add_argument("--full", action="store_true", help="a million keys, 4 GiB objects: far more than ten minutes")
    parser.add_argument("--rounds", type=_count, help=f"default: each area's own; with --quick {QUICK_ROUNDS}")
    parser.add_argument("--only", action="append", metavar="NAME", help="only the workload of this name")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("benchmark-results"), help="default: %(default)s"
    )
    return parser


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _chosen(workloads: Sequence[Workload], names: Sequence[str] | None) -> list[Workload]:
    return [workload for workload in workloads if names is None or workload.name in names]


def _run(area: Area, workloads: Sequence[Workload], rounds: int) -> Report:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has been compiled, and not in each process
    start = time.perf_counter()
    places, notes = area.venues()
    if importlib.util.find_spec("matplotlib") is None:
        notes = [*notes, "matplotlib is not installed: there is no chart"]
    facts = environment.describe()
    results = Results(notes=list(notes))
    for venue in places:
        asyncio.run(measure_all(venue, workloads, rounds, results))
    return Report(
        area=area,
        command=f"python -m benchmarks {' '.join(sys.argv[1:])}",
        environment=facts,
        venues=places,
        workloads=workloads,
        results=results,
        seconds=time.perf_counter() - start,
    )


if __name__ == "__main__":
    main()
