"""What a soak may find of sessions: their live files, snapshots and events, by what was asked for and acknowledged.

One task alone works on a session. Before it changes something it says what may then be there, and afterwards what is.
So what was said last is true, wherever its process is killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ._model import Found, Loss, Possible, Value, judge, nothing, possible_in, possible_out, value_in, value_out

HOLD = "soak"  # the reason why no sweeper deletes a session that is worked on
REMEMBERED = 20  # deleted snapshots of a session, which must not come back

Tree: TypeAlias = dict[str, Value]


@dataclass(slots=True, kw_only=True)
class Kept:
    """What is known of the session `name`: what may be in its live `files`; what is in the snapshots that must be there
    (`stands`); which may be there, or not (`doubtful`); which were deleted (`gone`). One that `ends` is no longer held,
    and nothing of it must be there."""

    name: str
    files: dict[str, Possible] = field(default_factory=dict)
    stands: dict[str, Tree] = field(default_factory=dict)
    doubtful: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    ends: bool = False

    def possible(self, path: str) -> Possible:
        """What a live file may be."""
        return self.files.get(path, nothing())

    def doom(self, names: Iterable[str]) -> None:
        """They are about to be deleted."""
        for name in names:
            if self.stands.pop(name, None) is not None:
                self.doubtful.append(name)

    def bury(self, names: Iterable[str]) -> None:
        """They were deleted."""
        for name in set(names).intersection(self.doubtful):
            self.doubtful.remove(name)
            self.gone.append(name)
        del self.gone[:-REMEMBERED]

    def copy(self) -> Kept:
        """To go back to, when nothing was changed."""
        return replace(
            self, files=dict(self.files), stands=dict(self.stands), doubtful=[*self.doubtful], gone=[*self.gone]
        )

    def written(self) -> dict[str, Any]:
        """As a line can hold it."""
        return {
            "name": self.name,
            "files": {path: possible_out(possible) for path, possible in self.files.items()},
            "stands": {name: tree_out(tree) for name, tree in self.stands.items()},
            "doubtful": self.doubtful,
            "gone": self.gone,
            "ends": self.ends,
        }

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Kept:
        """What a line held."""
        return cls(
            name=written["name"],
            files={path: possible_in(possible) or nothing() for path, possible in written["files"].items()},
            stands={name: tree_in(tree) for name, tree in written["stands"].items()},
            doubtful=[*written["doubtful"]],
            gone=[*written["gone"]],
            ends=written["ends"],
        )


def tree_out(tree: Tree) -> dict[str, Any]:
    return {path: value_out(value) for path, value in tree.items()}


def tree_in(written: Mapping[str, Any]) -> Tree:
    values = {path: value_in(value) for path, value in written.items()}
    return {path: value for path, value in values.items() if value is not None}


def certain(files: Mapping[str, Possible]) -> Tree | None:
    """What the files are, if that is known of all of them."""
    if any(len(possible) != 1 for possible in files.values()):
        return None
    return {path: value for path, possible in files.items() for value in possible if value is not None}


def uncertain(tree: Tree) -> dict[str, Possible]:
    """What files may be that are known."""
    return {path: {value} for path, value in tree.items()}


def judge_files(where: str, found: Mapping[str, bytes], wanted: Mapping[str, Possible] | None) -> Iterator[Loss]:
    """What is wrong with files that were found, if these may be there and no others; None: whole ones, whichever."""
    if wanted is None:
        for path, data in found.items():
            if Found(data=data).name() is None:
                text = f"what came of {len(data)} bytes is no version that ever was"
                yield Loss("wrong bytes", f"{where}/{path}", text)
        return
    for path in sorted(found.keys() | wanted.keys()):
        seen = Found(data=found[path]) if path in found else None
        if (loss := judge(f"{where}/{path}", wanted.get(path, nothing()), seen)) is not None:
            yield loss


def judge_snapshots(kept: Kept, listed: Sequence[str]) -> Iterator[Loss]:
    """What is wrong with the ids of the session's snapshots, as they were listed."""
    where = f"{kept.name}/snapshots"
    if [*listed] != sorted(listed, reverse=True):
        yield Loss("listing", where, "snapshots are not listed from the newest to the oldest, or twice")
    for name in kept.stands.keys() - set(listed):
        yield Loss("missing", f"{where}/{name}", "it was acknowledged, and is not listed")
    for name in set(kept.gone) & set(listed):
        yield Loss("back again", f"{where}/{name}", "it was deleted, and is listed")


@dataclass(slots=True)
class Appended:
    """What was told of one event log: ids of events and their numbers; ids of which nobody knows; and the number below
    which events may have been trimmed."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    trimmed: int = 0

    def take(self, said: Mapping[str, Any]) -> None:
        """A line about ids that are being appended, about events, or about a trim."""
        self.doubtful.update(said.get("ids", ()))
        self.acknowledged.update(said.get("events", {}))
        self.trimmed = max(self.trimmed, said.get("before", 0))

    def judge(self, where: str, events: Sequence[tuple[int, str]]) -> Iterator[Loss]:
        """What is wrong with all events that were read."""
        first = events[0][0] if events else self.trimmed
        numbers = {name: number for number, name in events}
        if [number for number, _ in events] != [*range(first, first + len(events))]:
            yield Loss("events", where, "the numbers of the events have a gap, or are out of order")
        if len(numbers) != len(events):
            yield Loss("events", where, "an event stands twice")
        if first > self.trimmed:
            yield Loss("events", where, f"the first event is {first}, and only those below {self.trimmed} were trimmed")
        for name, number in self.acknowledged.items():
            if number >= first and numbers.get(name) != number:
                yield Loss("events", where, f"event {number} ({name}) was acknowledged; it is {numbers.get(name)} now")
        for name in numbers.keys() - self.doubtful - self.acknowledged.keys():
            yield Loss("events", where, f"nobody appended event {numbers[name]} ({name})")
