"""docs/guarantees.md and the tests say the same: every case has its line, and every line tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.cases import NUMBERS, names_of_tests, shown

from micelio_storage.testing import CHECKS

DOCUMENT = Path(__file__).parent.parent / "docs" / "guarantees.md"
ROW = re.compile(r"\| ([A-Z]\d+) \| (.+?) \| (.+) \|")
NOT_HERE = "does not apply: "
LEAST_REASON = 20  # characters

ROWS = [match.groups() for match in map(ROW.fullmatch, DOCUMENT.read_text().splitlines()) if match]
SHOWN = shown()


def named(column: str) -> list[str]:
    """The tests in the third column of a row."""
    return [] if column.startswith(NOT_HERE) else re.findall(r"`([^`]+)`", column)


def test_every_case_has_one_line_in_order() -> None:
    assert [number for number, _, _ in ROWS] == list(NUMBERS)


def test_each_line_names_tests_or_says_why_there_are_none() -> None:
    wrong = {number: problem for number, _, column in ROWS if (problem := problem_with(number, column))}
    assert wrong == {}


def problem_with(number: str, column: str) -> str:
    """What is wrong with the third column of a line, or nothing."""
    if column.startswith(NOT_HERE):
        if len(column) < len(NOT_HERE) + LEAST_REASON:
            return "no reason is given"
        return f"there is a test for it: {SHOWN[number][0]}" if number in SHOWN else ""
    if not named(column):
        return "no test shows it"
    others = set(named(column)) - set(SHOWN.get(number, ()))
    return f"named here, without this number: {', '.join(sorted(others))}" if others else ""


@pytest.mark.parametrize(
    ("number", "column"),
    [
        ("K1", "TO BE SHOWN"),
        ("K1", "does not apply: never mind"),
        ("K1", "does not apply: there is nothing like it in this library"),
        ("K1", "`test_keys.py::test_a_bad_session_id_is_refused`"),
        ("K1", "`kit: no_such_check`"),
    ],
)
def test_a_line_that_is_wrong_would_be_found(number: str, column: str) -> None:
    assert problem_with(number, column)


def test_every_number_of_a_test_is_a_case() -> None:
    assert set(SHOWN) - set(NUMBERS) == set()


def test_every_test_that_is_named_exists() -> None:
    checks = {f"kit: {check.__name__}" for check in CHECKS}
    known = names_of_tests() | checks
    assert {name for names in SHOWN.values() for name in names} - known == set()
    assert {name for _, _, column in ROWS for name in named(column)} - known == set()


def test_every_check_of_the_kit_that_has_a_case_is_in_the_document() -> None:
    text = DOCUMENT.read_text()
    assert [name for names in SHOWN.values() for name in names if name.startswith("kit: ") and name not in text] == []
