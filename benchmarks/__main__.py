"""The command: which workloads, where, how often. Contestants take turns within each round, and each round begins with
another of them, so that a noisy minute is everybody's."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from .contestants import CONTESTANTS, Contestant
from .lateness import ticking
from .report import Record, table
from .workloads import QUICK, WORKLOADS, Scale, Turn, measure

MEMORY_FILE_SYSTEM = Path("/dev/shm")
ROUNDS, QUICK_ROUNDS = 3, 1
FULL_LISTING = 100_000  # keys

_number = itertools.count()  # of turns: no two that write use the same keys


def main() -> None:
    options = _parser().parse_args()
    scale = QUICK if options.quick else Scale()
    if options.full:
        scale = dataclasses.replace(scale, listed=FULL_LISTING)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    names = options.only or list(WORKLOADS)
    records: list[Record] = []
    for place in [options.root] if options.root else _places():
        with tempfile.TemporaryDirectory(prefix="micelio-benchmark-", dir=place) as base:
            records += asyncio.run(_measure_all(Path(base), str(place), names, scale, rounds))
        figures = table(records, str(place), markdown=options.markdown)
        print(f"\n{place}, rounds: {rounds} (streams and memory: 1)\n\n{figures}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(record) for record in records], indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Only the ratios say anything.")
    parser.add_argument("--root", type=Path, help="where to make a directory for it (default: /dev/shm, and on disk)")
    parser.add_argument("--rounds", type=_count, help=f"default {ROUNDS}; with --quick {QUICK_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--full", action="store_true", help=f"list {FULL_LISTING:,} keys")
    parser.add_argument("--only", action="append", choices=WORKLOADS, metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single figure there")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    return parser


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _places() -> list[Path]:
    """A file system in memory, where only the calls cost, and that of temporary files, which should be a disk's."""
    return [place for place in (MEMORY_FILE_SYSTEM, Path(tempfile.gettempdir())) if place.is_dir()]


async def _measure_all(base: Path, place: str, names: Sequence[str], scale: Scale, rounds: int) -> list[Record]:
    wanted = {name for workload in names for name in WORKLOADS[workload].contestants}
    contestants = {name: make(base / name.replace(" ", "-")) for name, make in CONTESTANTS.items() if name in wanted}
    records: list[Record] = []
    async with AsyncExitStack() as stack:
        for contestant in contestants.values():
            await contestant.open()
            stack.push_async_callback(contestant.aclose)
        await _say_idle(place)
        for number in range(rounds):
            for workload in names:
                if number < (WORKLOADS[workload].most_rounds or rounds):
                    print(f"{place}: round {number + 1}, {workload}", file=sys.stderr)
                    records += await _round(contestants, place, workload, scale, number)
    return records


async def _round(
    contestants: Mapping[str, Contestant], place: str, name: str, scale: Scale, number: int
) -> list[Record]:
    """One round of one workload. Before the first, somebody goes in vain: a virtual machine that has not used some of
    its memory yet gets it slowly from its host (a third of the speed was seen), which is no contestant's doing."""
    workload = WORKLOADS[name]
    first = number % len(workload.contestants)
    order = [*workload.contestants[first:], *workload.contestants[:first]]
    records: list[Record] = []

    def turn_of(contestant: str) -> Turn:
        top = name if workload.only_reads else f"{name}-{next(_number)}"
        return Turn(contestant=contestants[contestant], name=contestant, top=top, scale=scale)

    if number == 0:
        await measure(workload, turn_of(order[0]))
    for contestant in order:
        measures = await measure(workload, turn_of(contestant))
        records += [
            Record(place=place, workload=name, contestant=contestant, unit=unit, round=number, value=value)
            for unit, value in measures.items()
        ]
    return records


async def _say_idle(place: str) -> None:
    """The lateness that is nobody's fault."""
    async with ticking() as lateness:
        await asyncio.sleep(1)
    late = " / ".join(f"{lateness.milliseconds(share):.1f}" for share in (0.5, 0.99, 1))
    print(f"{place}: an idle loop's lateness, p50 / p99 / max ms: {late}", file=sys.stderr)


if __name__ == "__main__":
    main()
