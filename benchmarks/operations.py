"""The workloads that are the same on a disk and on S3. Each prepares outside the clock, lets one contestant do the
work, and checks that all of it was done. What is read was written before and is in the page cache."""

from __future__ import annotations

from collections.abc import Sequence

from .contestants import Contestant
from .contestants.base import FIRST_PAGE
from .data import KIB, MIB, OBJECT, new_items
from .measuring import Figures, Run, Turn, operations, rate, time_taken

EVENT = 200  # bytes, that become 400 characters: a message, or what a tool was called with
READ = 1_000  # small objects that are there to be read
RANGE = 64 * KIB
STEP = 7919 * KIB  # from one range to the next: a prime, so that all of the object is visited


def puts(at_once: int, seconds: float) -> Run:
    async def run(turn: Turn) -> Figures:
        async def do(count: int) -> Figures:
            items = new_items(_own(turn), count)
            return await rate(turn.contestant.puts(items, at_once), count * OBJECT, "op", count)

        return await operations(turn, seconds, at_once, do)

    return run


def appends(at_once: int, seconds: float) -> Run:
    async def run(turn: Turn) -> Figures:
        async def do(count: int) -> Figures:
            events = [data for _, data in new_items(_own(turn), count, EVENT)]
            return await rate(turn.contestant.appends(events, at_once), count * EVENT, "op", count)

        return await operations(turn, seconds, at_once, do)

    return run


def gets(at_once: int, seconds: float) -> Run:
    async def run(turn: Turn) -> Figures:
        names = await turn.place.objects("small", READ)

        async def do(count: int) -> Figures:
            items = [(key, 0, None) for key in _again(names, count)]
            return await rate(turn.contestant.gets(items, at_once), count * OBJECT, "op", count)

        return await operations(turn, seconds, at_once, do)

    return run


def heads(at_once: int, seconds: float) -> Run:
    async def run(turn: Turn) -> Figures:
        names = await turn.place.objects("small", READ)

        async def do(count: int) -> Figures:
            return await rate(turn.contestant.heads(_again(names, count), at_once), count * OBJECT, "op", count)

        return await operations(turn, seconds, at_once, do)

    return run


def ranges(at_once: int, seconds: float, size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        key = await turn.place.large(size)

        async def do(count: int) -> Figures:
            items = [(key, number * STEP % (size - RANGE), RANGE) for number in range(count)]
            return await rate(turn.contestant.gets(items, at_once), count * RANGE, "op", count)

        return await operations(turn, seconds, at_once, do)

    return run


def whole_by_ranges(at_once: int, size: int, part: int) -> Run:
    """One large object in ranges of `part` bytes."""

    async def run(turn: Turn) -> Figures:
        key = await turn.place.large(size)
        items = [(key, start, min(part, size - start)) for start in range(0, size, part)]
        return await rate(turn.contestant.gets(items, at_once), size, "MiB", size / MIB)

    return run


def put_stream(size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        key = f"{_own(turn)}/{turn.number}.bin"
        try:
            return await rate(turn.contestant.put_stream(key, size), size, "MiB", size / MIB)
        finally:
            await turn.place.remove_large(key)

    return run


def get_stream(size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        key = await turn.place.large(size)
        return await rate(turn.contestant.get_stream(key), size, "MiB", size / MIB)

    return run


def listing(count: int, in_a_directory: int = 100) -> Run:
    async def run(turn: Turn) -> Figures:
        await turn.place.objects(f"listed-{count}", count, size=0, directories=max(count // in_a_directory, 1))
        return await time_taken(turn.contestant.list(f"listed-{count}"), count)

    return run


def first_page(count: int, in_a_directory: int = 100) -> Run:
    async def run(turn: Turn) -> Figures:
        await turn.place.objects(f"listed-{count}", count, size=0, directories=max(count // in_a_directory, 1))
        return await time_taken(turn.contestant.first_page(f"listed-{count}"), FIRST_PAGE)

    return run


def deletes(count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        names = await turn.place.objects(f"deleted-{turn.name}", count, again=True)
        return await time_taken(turn.contestant.delete(names), count)

    return run


async def delete_all(contestant: Contestant, top: str, count: int) -> int:
    await contestant.delete_prefix(top)
    return count


def _own(turn: Turn) -> str:
    """Where this contestant's new objects go."""
    return f"new/{turn.name.replace(' ', '-')}"


def _again(names: Sequence[str], count: int) -> list[str]:
    return [names[number % len(names)] for number in range(count)]
