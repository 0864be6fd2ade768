"""What a run leaves out comes on another day: no test marked `by_turns` is lost, and none is missing on any day."""

from __future__ import annotations

from typing import Any

import pytest
from support import everything
from support.everything import DAYS, LOOPS, QUARTERS, in_turn, let_rest, loops_of

NAMES = [
    f"test_a.py::test_{size}[{server}-{number}]" for size in range(1, 30) for server in "xyz" for number in range(size)
]
NAMES += [
    "test_a.py::test_alone",
    "test_b.py::TestGroup::test_1[a]",
    "test_b.py::test_of_two[a]",
    "test_b.py::test_of_two[b]",
]

QUARTERLY = dict.fromkeys(NAMES, QUARTERS)


def functions_of(names: set[str]) -> set[str]:
    return {name.partition("[")[0] for name in names}


@pytest.mark.parametrize("turns", [2, 4, 8, 16])
def test_each_has_its_turn(turns: int) -> None:
    days = [in_turn(dict.fromkeys(NAMES, turns), day) for day in range(turns)]
    assert set.union(*days) == set(NAMES)
    assert all(days)


def test_a_day_has_a_quarter_of_each_test_and_at_least_one_of_its_parameters() -> None:
    for day in range(DAYS):
        chosen = in_turn(QUARTERLY, day)
        assert functions_of(chosen) == functions_of(set(NAMES))
        for test in functions_of(set(NAMES)):
            of_test = [name for name in NAMES if name.partition("[")[0] == test]
            count = len(chosen.intersection(of_test))
            assert max(1, len(of_test) // QUARTERS) <= count <= len(of_test) // QUARTERS + 1


def test_a_day_has_some_of_each_value_of_many() -> None:
    product = [f"test_a.py::test_it[{server}-{number}]" for server in "abcd" for number in range(100)]
    for day in range(DAYS):
        chosen = in_turn(dict.fromkeys(product, QUARTERS), day)
        assert all(10 < sum(f"[{server}-" in name for name in chosen) < 40 for server in "abcd")


class Item:
    def __init__(self, nodeid: str, markers: str, config: Any = None) -> None:
        self.nodeid = nodeid
        self.markers = markers.split()
        self.config = config

    def get_closest_marker(self, name: str) -> Any:
        return getattr(pytest.mark, name).mark if name in self.markers else None


class Config:
    """What pytest was asked for, and what it is told."""

    def __init__(self, *args: str, keyword: str = "", lf: bool = False) -> None:
        self.args = args
        self.options = {"keyword": keyword, "lf": lf}
        self.hook = self
        self.deselected: set[str] = set()

    def getoption(self, name: str, default: object = None) -> object:
        return self.options[name]

    def pytest_deselected(self, items: list[Any]) -> None:
        self.deselected = {item.nodeid for item in items}


def left_by(config: Any, marker: str = "by_turns") -> set[str]:
    """What is run; all else is said to be deselected."""
    items: list[Any] = [Item(name, marker) for name in NAMES]
    let_rest(config, items)
    left = {item.nodeid for item in items}
    assert config.deselected == set(NAMES) - left
    return left


def test_a_day_has_two_loops_where_they_matter_and_two_days_have_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "_ALL", False)
    monkeypatch.setattr(everything, "EVERYTHING", False)

    def loops(marker: str, **asked: Any) -> list[set[str]]:
        item: Any = Item("test_a.py::test_it", marker, Config(**asked))
        found = []
        for day in (1, 2):
            monkeypatch.setattr(everything, "DAY", day)
            found.append(set(loops_of(item)))
        return found

    assert loops("every_loop") == [{"asyncio", "uvloop"}, {"asyncio", "debug"}]
    assert loops("every_loop", keyword="test_it") == [set(LOOPS), set(LOOPS)]
    assert loops("every_loop by_turns") == [set(LOOPS), set(LOOPS)]  # the loop is one of its parameters
    assert loops("by_turns") == [{"asyncio"}, {"asyncio"}]


def test_only_what_is_marked_and_not_asked_for_by_name_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "_ALL", False)
    assert left_by(Config("tests")) == in_turn(QUARTERLY, everything.DAY) != set(NAMES)
    assert left_by(Config("tests"), "every_loop") == set(NAMES)
    assert left_by(Config("tests", "tests/test_a.py::test_2")) == set(NAMES)
    assert left_by(Config("tests", keyword="memory")) == set(NAMES)
    assert left_by(Config("tests", lf=True)) == set(NAMES)
    monkeypatch.setattr(everything, "_ALL", True)
    assert left_by(Config("tests")) == set(NAMES)
