"""JSON that was stored, and is looked at field by field before it is believed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from .._errors import IntegrityError


class Fields:
    """A JSON object of the thing with this name. What is not as it should be is an `IntegrityError` that says so."""

    __slots__ = ("_fields", "name")

    def __init__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.name = name
        self._fields = fields

    @property
    def fields(self) -> Mapping[str, Any]:
        """As they are, and not looked at."""
        return self._fields

    def _wrong(self, key: str) -> IntegrityError:
        return IntegrityError(f"{self.name} is damaged: {key!r} is missing or of another type")

    def text(self, key: str) -> str:
        value = self._fields.get(key)
        if type(value) is not str:
            raise self._wrong(key)
        return value

    def text_or_none(self, key: str) -> str | None:
        return None if self._fields.get(key) is None else self.text(key)

    def count(self, key: str) -> int:
        value = self._fields.get(key)
        if type(value) is not int or value < 0:
            raise self._wrong(key)
        return value

    def count_or_none(self, key: str) -> int | None:
        return None if self._fields.get(key) is None else self.count(key)

    def number(self, key: str) -> float:
        value = self._fields.get(key)
        if not isinstance(value, int | float) or not value >= 0:
            raise self._wrong(key)
        return float(value)

    def integer_or_none(self, key: str) -> int | None:
        value = self._fields.get(key)
        if value is not None and type(value) is not int:
            raise self._wrong(key)
        return value

    def time(self, key: str) -> datetime:
        try:
            moment = datetime.fromisoformat(self.text(key))
        except ValueError as error:
            raise IntegrityError(f"{self.name} is damaged: {error}") from error
        if moment.utcoffset() is None:
            raise IntegrityError(f"{self.name} is damaged: its time has no zone")
        return moment.astimezone(UTC)

    def time_or_none(self, key: str) -> datetime | None:
        return None if self._fields.get(key) is None else self.time(key)

    def flag(self, key: str) -> bool:
        value = self._fields.get(key)
        if type(value) is not bool:
            raise self._wrong(key)
        return value

    def flag_or(self, key: str, *, default: bool) -> bool:
        return default if self._fields.get(key) is None else self.flag(key)

    def one_of(self, key: str, known: Collection[str]) -> str:
        if (value := self.text(key)) not in known:
            raise self._wrong(key)
        return value

    def texts(self, key: str) -> list[str]:
        value = self._fields.get(key)
        if type(value) is not list or not _are_texts(value):
            raise self._wrong(key)
        return value

    def object(self, key: str) -> dict[str, Any]:
        value = self._fields.get(key)
        if type(value) is not dict:
            raise self._wrong(key)
        return value

    def text_map(self, key: str) -> dict[str, str]:
        value = self.object(key)
        if not _are_texts(value.values()):
            raise self._wrong(key)
        return value

    def text_map_or_empty(self, key: str) -> dict[str, str]:
        return {} if self._fields.get(key) is None else self.text_map(key)

    def pair_or_none(self, key: str) -> tuple[int, int] | None:
        value = self._fields.get(key)
        if value is None:
            return None
        if type(value) is not list or [type(each) for each in value] != [int, int]:
            raise self._wrong(key)
        return value[0], value[1]

    def objects(self, key: str) -> list[Fields]:
        value = self._fields.get(key)
        if type(value) is not list or not all(type(each) is dict for each in value):
            raise self._wrong(key)
        return [Fields(self.name, each) for each in value]


def _are_texts(values: Iterable[Any]) -> bool:
    return all(type(each) is str for each in values)


def parse_json(name: str, text: bytes) -> Fields:
    """The JSON object that is the whole text."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{name} is damaged: {error}") from error
    if type(fields) is not dict:
        raise IntegrityError(f"{name} is damaged: it is JSON, but not an object")
    return Fields(name, fields)
