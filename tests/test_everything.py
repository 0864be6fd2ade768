"""What a run leaves out comes on another day: no test marked `by_turns` is lost, and none is missing on any day."""

from __future__ import annotations

from typing import Any

import pytest
from support import everything
from support.everything import QUARTERS, in_turn, let_rest

NAMES = [
    f"test_a.py::test_{size}[{server}-{number}]" for size in range(1, 30) for server in "xyz" for number in range(size)
]
NAMES += [
    "test_a.py::test_alone",
    "test_b.py::TestGroup::test_1[a]",
    "test_b.py::test_of_two[a]",
    "test_b.py::test_of_two[b]",
]


def functions_of(names: set[str]) -> set[str]:
    return {name.partition("[")[0] for name in names}


def test_in_four_days_each_has_its_turn() -> None:
    days = [in_turn(NAMES, quarter) for quarter in range(QUARTERS)]
    assert set.union(*days) == set(NAMES)
    assert all(days)


def test_a_day_has_a_quarter_of_each_test_and_at_least_one_of_its_parameters() -> None:
    for quarter in range(QUARTERS):
        chosen = in_turn(NAMES, quarter)
        assert functions_of(chosen) == functions_of(set(NAMES))
        for test in functions_of(set(NAMES)):
            of_test = [name for name in NAMES if name.partition("[")[0] == test]
            count = len(chosen.intersection(of_test))
            assert max(1, len(of_test) // QUARTERS) <= count <= len(of_test) // QUARTERS + 1


def test_a_day_has_some_of_each_value_of_many() -> None:
    product = [f"test_a.py::test_it[{server}-{number}]" for server in "abcd" for number in range(100)]
    for quarter in range(QUARTERS):
        chosen = in_turn(product, quarter)
        assert all(10 < sum(f"[{server}-" in name for name in chosen) < 40 for server in "abcd")


class Item:
    def __init__(self, nodeid: str, marker: str) -> None:
        self.nodeid = nodeid
        self.marker = marker

    def get_closest_marker(self, name: str) -> bool:
        return self.marker == name


class Config:
    """What pytest was asked for, and what it is told."""

    def __init__(self, *args: str, keyword: str = "", lf: bool = False) -> None:
        self.args = args
        self.options = {"keyword": keyword, "lf": lf}
        self.hook = self
        self.deselected: set[str] = set()

    def getoption(self, name: str) -> object:
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


def test_only_what_is_marked_and_not_asked_for_by_name_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everything, "_ALL", False)
    assert left_by(Config("tests")) == in_turn(NAMES, everything.QUARTER) != set(NAMES)
    assert left_by(Config("tests"), "every_loop") == set(NAMES)
    assert left_by(Config("tests", "tests/test_a.py::test_2")) == set(NAMES)
    assert left_by(Config("tests", keyword="memory")) == set(NAMES)
    assert left_by(Config("tests", lf=True)) == set(NAMES)
    monkeypatch.setattr(everything, "_ALL", True)
    assert left_by(Config("tests")) == set(NAMES)
