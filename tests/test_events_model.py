"""The protocol of the event log, searched exhaustively: two writers, a trimmer, and answers that get lost anywhere.

In the model a segment is full with two events. Each step is one request to the store; between any two of them anybody
else may do anything, and a writer may sleep for as long as it likes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import pytest

FULL = 2  # events
Store: TypeAlias = tuple[tuple[int, tuple[str, ...]], ...]  # of each segment the first number, and the ids in it
View: TypeAlias = tuple[int, tuple[str, ...]]


class Writer(NamedTuple):
    """What it does next, how many of its events were acknowledged, and the segment that it saw or made last."""

    step: str = "look"
    done: int = 0
    view: View = (0, ())


class State(NamedTuple):
    store: Store = ()
    writers: tuple[Writer, ...] = (Writer(), Writer())
    told: frozenset[tuple[str, int]] = frozenset()  # ids that were acknowledged, with their numbers
    trimmed: tuple[str, ...] = ()  # the ids of the events that were

    def after(
        self, number: int, writer: Writer, store: Store | None = None, told: tuple[str, int] | None = None
    ) -> State:
        writers = (*self.writers[:number], writer, *self.writers[number + 1 :])
        return self._replace(
            writers=writers,
            store=self.store if store is None else store,
            told=self.told if told is None else self.told | {told},
        )


def without_leftovers(store: Store) -> Store:
    """What a reader takes for the log: one that is not full cannot be in front of another."""
    while len(store) > 1 and len(store[0][1]) < FULL and store[0][0] + len(store[0][1]) != store[1][0]:
        store = store[1:]
    return store


def is_violated(state: State) -> bool:
    """A gap, an event twice, or one that was acknowledged with a number that is not its own."""
    history = list(state.trimmed)
    for first, ids in without_leftovers(state.store):
        if first != len(history):
            return True
        history += ids
    return len(set(history)) != len(history) or any(
        history[number : number + 1] != [event] for event, number in state.told
    )


def standing(store: Store, event: str) -> int | None:
    """The number of the event, if it stands."""
    return next((first + ids.index(event) for first, ids in without_leftovers(store) if event in ids), None)


def steps(state: State, events: int, broken: str) -> Iterator[State]:
    """All that may happen next."""
    for number, writer in enumerate(state.writers):
        yield from steps_of(state, number, writer, f"{number}.{writer.done}", events, broken)
    kept = 0 if broken == "trims the last" else 1
    if len(state.store) > kept:
        is_part = without_leftovers(state.store) == state.store
        gone = state.store[0][1] if is_part else ()
        yield state._replace(store=state.store[1:], trimmed=state.trimmed + gone)


def steps_of(state: State, number: int, writer: Writer, event: str, events: int, broken: str) -> Iterator[State]:
    store = state.store
    last = store[-1] if store else (0, ())
    if writer.step == "look" and writer.done < events:
        yield state.after(number, Writer("put", writer.done, last))
    elif writer.step == "what became of it?":
        place = None if broken == "looks for no id" else standing(store, event)
        if place is not None:
            yield state.after(number, Writer("look", writer.done + 1), told=(event, place))
        elif store and store[0][0] > writer.view[0]:
            yield state.after(number, Writer("nobody can tell"))
        else:
            yield state.after(number, Writer("put", writer.done, last))
    elif writer.step == "put":
        yield from puts(state, number, writer, event, broken)
    elif writer.step == "was the one before trimmed?":
        first, _ = writer.view
        if any(first - FULL == each for each, _ in store) or first == last[0] == 0:
            yield state.after(number, Writer("look", writer.done + 1), told=(event, first))
        else:
            yield state.after(number, writer._replace(step="what became of it?"))


def puts(state: State, number: int, writer: Writer, event: str, broken: str) -> Iterator[State]:
    first, ids = writer.view
    expected: tuple[str, ...] | None = ids or None
    if len(ids) >= FULL:
        first, ids, expected = first + len(ids), (), None
    segments = dict(state.store)
    if segments.get(first) != expected and broken != "puts blindly":
        yield state.after(number, Writer("look", writer.done))
        return
    segments[first] = (*ids, event)
    store = tuple(sorted(segments.items()))
    if expected is None and broken != "brings back what was trimmed":
        yield state.after(number, Writer("was the one before trimmed?", writer.done, (first, (event,))), store)
    else:
        yield state.after(number, Writer("look", writer.done + 1), store, (event, first + len(ids)))
    yield state.after(number, Writer("what became of it?", writer.done, (first, ())), store)  # the answer was lost


def search(events: int, broken: str = "") -> tuple[int, int | None]:
    """How many states there are, and in how many steps the first violation is reached."""
    depth: dict[State, int] = {State(): 0}
    waiting = deque(depth)
    while waiting:
        state = waiting.popleft()
        if is_violated(state):
            return len(depth), depth[state]
        for following in steps(state, events, broken):
            if following not in depth:
                depth[following] = depth[state] + 1
                waiting.append(following)
    return len(depth), None


@pytest.mark.case("V2", "V6", "V9")
def test_no_interleaving_breaks_the_log() -> None:
    states, violated = search(5 if os.environ.get("MICELIO_EVERYTHING") == "1" else 4)
    assert violated is None
    assert states > 10_000


@pytest.mark.case("V2", "V6", "V9")
@pytest.mark.parametrize(
    "broken", ["puts blindly", "looks for no id", "trims the last", "brings back what was trimmed"]
)
def test_each_shortcut_is_found_out(broken: str) -> None:
    _, violated = search(3, broken)
    assert violated is not None
