"""What an adapter's interface promises, as checks that also run on what its framework ships: a contract is a class
whose coroutines each take nothing but what makes the things that are judged."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

EVERYWHERE = ("memory", "disk", "seaweedfs")  # `storage_everywhere`: the strict server is left to the core's tests

# What one text must not be taken for another by, or leave its place with.
ODD_IDS = (
    *("", ".", "..", "../x", "/etc/passwd", "a/b", "a%2Fb", "a\\b", "%", "%25", "~", " ", "a ", "A", "a"),
    *(".micelio", "user", "x" * 300, "é" * 200, "é", "e\u0301", "a\nb", "a\x00b", "\x7f", "\uffff"),
    *("https://client.example/cb?x=1&y=2#z", "x-" + "0" * 64, "C:\\x", "con", "a:b", "*"),
)
LONE = ("\ud800", "a\udfff", "\ud800" * 100)  # halves of surrogate pairs, as texts have that were cut


def checks(contract: type) -> Iterator[tuple[str, Callable[..., Awaitable[None]]]]:
    """Those of a class, by name."""
    for name, check in vars(contract).items():
        if inspect.iscoroutinefunction(check) and not name.startswith("_"):
            yield name, check


async def failures(contract: type, make: Callable[[str], Any]) -> dict[str, str]:
    """The checks that fail on what `make(name)` makes, and how each does. The name is another one for each check."""
    failed: dict[str, str] = {}
    for name, check in checks(contract):
        try:
            await check(contract(), make(name))
        except Exception as error:
            failed[name] = "".join(traceback.format_exception(error)[-3:])
    return failed


def sentence(check: Callable[..., Awaitable[None]]) -> str:
    """What the check says, on one line, as the pages have it."""
    return " ".join((check.__doc__ or "").split())


def table(contract: type, results: dict[str, dict[str, str]]) -> str:
    """The checks and who passes them, as a table of Markdown: the pages have it, and a test compares the two."""
    rows = [f"| | {' | '.join(results)} |", f"| --- |{' --- |' * len(results)}"]
    for name, check in checks(contract):
        marks = ["no" if name in failed else "yes" for failed in results.values()]
        rows.append(f"| {sentence(check)} | {' | '.join(marks)} |")
    return "\n".join(rows)
