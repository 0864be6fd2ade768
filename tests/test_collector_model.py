"""The protocol of snapshots and their collectors, searched exhaustively: writers of which the second builds on the
first, collectors, and people who delete snapshots.

Each step is one request to the store; between any two of them anybody else may do anything. Whoever does not go on was
killed, and who goes on much later was paused: both are among the interleavings.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import pytest

Names: TypeAlias = frozenset[str]
NONE: Names = frozenset()
ROOT = "root"  # the snapshot that is there at the beginning, of the pack "old"; "litter" belongs to none


class Gc(NamedTuple):
    """What gc.json says: condemned names, then those that are deleted; and the pins that are waited for."""

    epoch: int = 0
    state: str = "idle"
    names: Names = NONE
    pins: Names = NONE


class Store(NamedTuple):
    packs: Names = frozenset({"old", "litter"})
    gc: Gc = Gc()
    records: tuple[tuple[str, Names | None], ...] = ((ROOT, frozenset({"old"})),)  # None: open

    def record(self, name: str) -> Names | str | None:
        """What it refers to; None for an open one, "gone" for one that is not there."""
        return next((refs for each, refs in self.records if each == name), "gone")

    def with_record(self, name: str, refs: Names | None) -> Store:
        others = [each for each in self.records if each[0] != name]
        return self._replace(records=tuple(sorted([*others, (name, refs)], key=lambda each: each[0])))

    def without_record(self, name: str) -> Store:
        return self._replace(records=tuple(each for each in self.records if each[0] != name))

    def without_pack(self, name: str) -> Store:
        return self._replace(packs=self.packs - {name})

    @property
    def used(self) -> Names:
        return NONE.union(*(refs for _, refs in self.records if refs is not None))

    @property
    def open(self) -> Names:
        return frozenset(name for name, refs in self.records if refs is None)

    @property
    def condemned(self) -> Names:
        return NONE if self.gc.state == "idle" else self.gc.names


class Writer(NamedTuple):
    """What it does next; what it knows to be condemned, and what its snapshot refers to."""

    step: str = "begin"
    condemned: Names = NONE
    refs: Names = NONE


class Collector(NamedTuple):
    """What it does next; what gc.json was to it; names that it has found, or has still to delete."""

    step: str = "begin"
    gc: Gc = Gc()
    names: Names = NONE


class State(NamedTuple):
    store: Store
    writers: tuple[Writer, ...]
    collectors: tuple[Collector, ...]
    deleted: Names = NONE  # snapshots that people deleted


def is_violated(state: State) -> bool:
    """A snapshot lacks a pack, or one that was acknowledged is gone."""
    store = state.store
    if not store.used <= store.packs:
        return True
    return any(
        writer.step == "acknowledged" and name not in state.deleted and store.record(name) == "gone"
        for name, writer in zip(("first", "second"), state.writers, strict=False)
    )


def steps(state: State, cycles: int, broken: str) -> Iterator[State]:
    """All that may happen next."""
    for number, writer in enumerate(state.writers):
        for after, store in writer_steps(state.store, number, writer, broken):
            writers = (*state.writers[:number], after, *state.writers[number + 1 :])
            yield State(store, writers, state.collectors, state.deleted)
    for number, collector in enumerate(state.collectors):
        for next_one, store in collector_steps(state.store, collector, cycles, broken):
            collectors = (*state.collectors[:number], next_one, *state.collectors[number + 1 :])
            yield State(store, state.writers, collectors, state.deleted)
    for name in (ROOT, "first"):
        if name not in state.deleted and isinstance(state.store.record(name), frozenset):
            yield state._replace(store=state.store.without_record(name), deleted=state.deleted | {name})


# -- writers

ORDER = ("pin", "read gc.json", "read the base", "upload", "commit")
ORDERS = {
    "reads gc.json before the pin": ("read gc.json", "pin", "read the base", "upload", "commit"),
    "reads the base before the pin": ("read the base", "pin", "read gc.json", "upload", "commit"),
    "pins nothing": ("read gc.json", "read the base", "upload", "commit"),
}


def writer_steps(store: Store, number: int, writer: Writer, broken: str) -> Iterator[tuple[Writer, Store]]:
    name, base, own = (("first", ROOT, "new 1"), ("second", "first", "new 2"))[number]
    order = ORDERS.get(broken, ORDER)
    step = order[0] if writer.step == "begin" else writer.step
    if step not in order:
        return
    following = writer._replace(step=(*order, "acknowledged")[order.index(step) + 1])
    if step == "pin":
        yield following, store.with_record(name, None)
    elif step == "read gc.json":
        yield following._replace(condemned=store.condemned), store
    elif step == "read the base":
        refs = store.record(base)
        yield following._replace(refs=refs if isinstance(refs, frozenset) else NONE), store
    elif step == "upload" and broken == "names packs after their content":
        yield following._replace(refs=frozenset({"old"})), store._replace(packs=store.packs | {"old"})
    elif step == "upload":
        refs = writer.refs - writer.condemned
        yield following._replace(refs=refs | {own}), store._replace(packs=store.packs | {own})
    elif store.record(name) is None or broken in ("pins nothing", "commits blindly"):
        yield following, store.with_record(name, writer.refs)
    else:
        yield writer._replace(step="refused"), store


# -- collectors


def collector_steps(store: Store, one: Collector, cycles: int, broken: str) -> Iterator[tuple[Collector, Store]]:
    if one.step == "begin":
        yield from begin(store, cycles, broken)
    elif one.step == "look for what is used":
        names = one.names - store.used
        step = "delete" if broken in HASTY else "condemn"
        yield one._replace(step=step if one.names or store.records else "forget", names=names), store
    elif one.step == "look for pins":
        yield one._replace(step="wait", names=NONE if broken == "waits for nobody" else store.open), store
    elif one.step == "give up":
        yield from give_up(store, one, broken)
    elif one.step == "give up what was seen":
        name, *_ = one.names
        yield one._replace(step="give up", names=NONE), store.without_record(name)
    elif one.step == "publish" and broken == "publishes no list of what dies":
        yield one._replace(step="delete"), store
    elif one.step == "delete":
        yield from delete(store, one, broken)
    elif one.step != "done":
        yield from swaps(store, one)


HASTY = ("goes by age", "announces nothing")


def swaps(store: Store, one: Collector) -> Iterator[tuple[Collector, Store]]:
    """What changes gc.json."""
    if one.step == "condemn":
        yield swapped(store, one, Gc(one.gc.epoch, "condemned", one.names), "look for pins")
    elif one.step == "wait":
        yield swapped(store, one, Gc(one.gc.epoch, "waiting", one.gc.names, one.names), "give up")
    elif one.step == "publish":
        yield swapped(store, one, Gc(one.gc.epoch, "dying", one.names), "delete")
    elif one.step == "forget":  # nothing is left of the family
        yield swapped(store, one, Gc(), "done")


def delete(store: Store, one: Collector, broken: str) -> Iterator[tuple[Collector, Store]]:
    """One name, or the last step."""
    name = min(one.names, default=None)
    if name is not None:
        yield one._replace(names=one.names - {name}), store.without_pack(name)
    elif broken in HASTY:
        yield one._replace(step="done"), store
    else:
        yield Collector(), store._replace(gc=Gc(one.gc.epoch + 1)) if store.gc == one.gc else store


def begin(store: Store, cycles: int, broken: str) -> Iterator[tuple[Collector, Store]]:
    gc = store.gc
    if gc.epoch >= cycles:
        return
    if gc.state == "idle":
        yield Collector("look for what is used", gc, store.packs), store
    elif gc.state == "condemned":
        yield Collector("wait", gc, NONE if broken == "waits for nobody" else store.open), store
    elif gc.state == "waiting":
        yield Collector("give up", gc), store
    else:
        yield Collector("delete", gc, gc.names), store


def swapped(store: Store, one: Collector, gc: Gc, step: str) -> tuple[Collector, Store]:
    """Let gc.json say this, if it is as it was seen."""
    if store.gc != one.gc:
        return Collector(), store
    return Collector(step, gc, gc.names if step == "delete" else NONE), store._replace(gc=gc)


def give_up(store: Store, one: Collector, broken: str) -> Iterator[tuple[Collector, Store]]:
    """One whose lease is over, whenever that is; when none is left, see what dies."""
    waited_for = sorted(one.gc.pins & store.open)
    if not waited_for:
        yield one._replace(step="publish", names=one.gc.names - store.used), store
    elif broken == "aborts blindly":
        yield one._replace(step="give up what was seen", names=frozenset(waited_for[:1])), store
    else:
        yield one, store.without_record(waited_for[0])


# -- the search


def beginning(writers: int, collectors: int) -> State:
    return State(Store(), (Writer(),) * writers, (Collector(),) * collectors)


def search(first: State, cycles: int, broken: str = "") -> tuple[int, int | None]:
    """How many states there are, and in how many steps the first violation is reached."""
    depth: dict[State, int] = {first: 0}
    parts: dict[object, Any] = {}  # kept once each, or millions of states would not fit into memory
    waiting = deque(depth)
    while waiting:
        state = waiting.popleft()
        if is_violated(state):
            return len(depth), depth[state]
        for following in steps(state, cycles, broken):
            if following not in depth:
                kept = State(*(parts.setdefault(part, part) for part in following))
                depth[kept] = depth[state] + 1
                waiting.append(kept)
    return len(depth), None


SMALL = [(1, 1, 2), (2, 1, 1), (1, 2, 1)]
LARGE = [*SMALL, (2, 1, 3), (1, 2, 3), (2, 2, 1), (2, 2, 2)]  # the last has some millions of states


@pytest.mark.case("Q1")
@pytest.mark.timeout(3600)  # for the largest, which takes ten minutes
@pytest.mark.parametrize(
    ("writers", "collectors", "cycles"), LARGE if os.environ.get("MICELIO_EVERYTHING") == "1" else SMALL
)
def test_no_interleaving_takes_a_pack_that_a_snapshot_needs(writers: int, collectors: int, cycles: int) -> None:
    states, violated = search(beginning(writers, collectors), cycles)
    assert violated is None
    assert states > 500


@pytest.mark.case("Q1")
@pytest.mark.parametrize(
    "broken",
    [
        "goes by age", "pins nothing", "announces nothing", "waits for nobody", "reads gc.json before the pin",
        "reads the base before the pin", "commits blindly", "aborts blindly", "names packs after their content",
    ],
)  # fmt: skip
def test_each_shortcut_loses_a_pack_or_a_snapshot(broken: str) -> None:
    _, violated = search(beginning(2, 1), 1, broken)
    assert violated is not None


@pytest.mark.case("Q1")
def test_two_collectors_must_agree_on_what_dies() -> None:
    """One alone may delete what it finds itself, once all pins have ended. Of two, one sleeps before it looks, until
    the other has set the names free again. It begins where the first writer has only to commit, and ROOT stays."""
    broken = "publishes no list of what dies"
    assert search(beginning(2, 1), 1, broken)[1] is None
    store = Store()._replace(packs=frozenset({"old", "litter", "new 1"})).with_record("first", None)
    almost = Writer("commit", refs=frozenset({"old", "new 1"}))
    state = State(store, (almost, Writer()), (Collector(), Collector()), frozenset({ROOT}))
    assert search(state, 1, broken)[1] is not None
