"""What a soak takes for a loss: decided by what was said before and after each call, without a storage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from micelio_storage.testing.soak._model import (
    LARGEST,
    Cell,
    Count,
    Found,
    Kind,
    Ledger,
    Value,
    body,
    judge,
    judge_listing,
    judge_move,
    value_out,
)

ONE = Value("0.0.1.1", 1000, "0.0.1.1")
TWO = Value("0.0.1.2", 500_000, "0.0.1.2")


def found(value: Value, **fields: Any) -> Found:
    return replace(Found(size=value.size, label=value.label, data=body(value.name, value.size)), **fields)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def kind_of(possible: set[Value | None], there: Found | None) -> Kind | None:
    loss = judge("k", possible, there)
    return None if loss is None else loss.kind


def test_a_body_is_told_from_every_other() -> None:
    sizes = [0, 1, 10, 1000, LARGEST]
    assert [len(body("a", size)) for size in sizes] == sizes
    assert body("a", 1000) == body("a", 1000)
    assert body("a", 1000) != body("b", 1000)
    assert body("a", 1001)[:1000] != body("a", 1000)


@pytest.mark.parametrize(
    ("possible", "there", "kind"),
    [
        ({ONE}, found(ONE), None),
        ({ONE, TWO, None}, found(TWO), None),
        ({ONE, None}, None, None),
        ({ONE}, Found(size=1000, label=ONE.label), None),
        ({ONE}, Found(data=body(ONE.name, 1000)[10:30], offset=10, length=20), None),
        ({ONE}, Found(), None),
        ({ONE}, None, "missing"),
        ({ONE, TWO}, None, "missing"),
        ({None}, found(ONE), "back again"),
        ({None}, Found(), "back again"),
        ({TWO}, found(ONE), "older version"),
        ({TWO, None}, found(ONE), "older version"),
        ({TWO}, found(TWO, data=flipped(body(TWO.name, TWO.size), 400_000)), "wrong bytes"),
        ({TWO}, found(TWO, data=body(TWO.name, TWO.size)[:100_000]), "wrong bytes"),
        ({TWO}, found(TWO, data=b""), "wrong bytes"),
        ({TWO}, found(TWO, data=body(TWO.name, TWO.size)[:250_000] + body("other", TWO.size)[250_000:]), "wrong bytes"),
        ({TWO}, Found(data=body(TWO.name, TWO.size)[10:30], offset=11, length=20), "wrong bytes"),
        ({TWO}, found(TWO, label=ONE.label), "older version"),
        ({TWO}, Found(size=1000, label=ONE.label), "older version"),
        ({TWO}, Found(size=1000, label=TWO.label, data=b"x" * 1000), "wrong bytes"),
    ],
)
def test_what_was_found_is_judged_by_what_is_possible(
    possible: set[Value | None], there: Found | None, kind: Kind | None
) -> None:
    assert kind_of(possible, there) == kind


def test_a_listing_has_what_stayed_and_nothing_that_never_was() -> None:
    wanted = {"a": {ONE}, "b": {ONE, None}, "c": {None}, "d": None}
    for good in ([("a", 1000)], [("a", 1000), ("b", 1000)], [("a", 1000), ("d", 7)]):
        assert judge_listing(good, wanted) == []
    for bad, key in (
        ([], "a"),
        ([("a", 1001)], "a"),
        ([("a", 1000), ("c", 5)], "c"),
        ([("a", 1000), ("x", 1)], "x"),
        ([("b", 1000), ("a", 1000)], "a"),
        ([("a", 1000), ("a", 1000)], "a"),
    ):
        assert [(loss.kind, loss.key) for loss in judge_listing(bad, wanted)] == [("listing", key)]


def test_a_counter_is_between_what_was_acknowledged_and_what_was_asked_for() -> None:
    count = Count(acknowledged=5, uncertain=2)
    assert [count.judge("c", number) is None for number in (4, 5, 7, 8, None)] == [False, True, True, False, False]


def test_a_moved_object_is_at_one_place_at_least() -> None:
    for there, lost in (((ONE, None), False), ((None, ONE), False), ((ONE, ONE), False), ((None, None), True)):
        places = {key: value and found(value) for key, value in zip("ab", there, strict=True)}
        assert (judge_move("a", "b", ONE, places) is not None) is lost


def test_a_reader_may_see_every_version_that_was_there_while_it_read() -> None:
    cell = Cell("k", {ONE})
    early = cell.watch()
    cell.begin(TWO)
    middle = cell.watch()
    cell.end(TWO, done=True)
    late = cell.watch()
    assert (early.possible, middle.possible, late.possible) == ({ONE, TWO}, {ONE, TWO}, {TWO})
    cell.begin(None)
    cell.end(None, done=None)
    assert cell.possible == {TWO, None}
    cell.begin(ONE)
    cell.end(ONE, done=False)
    assert cell.possible == {TWO, None}


def test_after_a_kill_a_key_has_what_was_acknowledged_or_what_was_on_its_way() -> None:
    counts = {"c": Count()}
    ledger = Ledger(["a", "b", "d"], counts)
    ledger.take({"begin": 1, "operation": "put", "writes": [["a", value_out(ONE)]]})
    ledger.take({"end": 1, "operation": "put", "outcome": "done", "cells": [["a", [value_out(ONE)]]]})
    ledger.take({"begin": 2, "count": "c"})
    ledger.take({"end": 2, "count": "c", "sure": True})
    ledger.take({"begin": 3, "count": "c"})
    ledger.take({"begin": 4, "operation": "put", "writes": [["b", value_out(TWO)]]})
    ledger.take({"begin": 5, "operation": "move", "writes": [["a", None], ["d", value_out(ONE)]]})
    assert ledger.cells == {"a": {ONE}, "b": {None}, "d": {None}}
    ledger.crash()
    assert ledger.cells == {"a": {ONE, None}, "b": {TWO, None}, "d": {ONE, None}}
    assert ledger.moves == [("a", "d", ONE)]
    assert counts["c"] == Count(acknowledged=1, uncertain=1)
    ledger.crash()
    assert counts["c"] == Count(acknowledged=1, uncertain=1)
