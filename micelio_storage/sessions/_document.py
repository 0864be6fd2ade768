"""The JSON document of a session: as it is stored, and as it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from .._errors import IntegrityError, NotFoundError
from .._storage import Storage

METADATA = "metadata.json"
_ENCODER = json.JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
MAX_METADATA_BYTES = 1 << 20  # of the JSON text: parsing that much holds the event loop for about 10 ms

Document: TypeAlias = dict[str, Any]  # JSON: what its values may be, JSON says
"""A session's metadata, as a JSON object."""


async def read_document(session: Storage) -> Document:
    """The document of the session at this place, {} if it has none."""
    try:
        return parse_document(await session.get(METADATA, length=MAX_METADATA_BYTES + 1))
    except NotFoundError:
        return {}


def parse_document(data: bytes) -> Document:
    """What a session's document says. `IntegrityError` if it is no JSON object."""
    if len(data) > MAX_METADATA_BYTES:
        raise IntegrityError(f"metadata.json has more than {MAX_METADATA_BYTES} bytes: it is not a session's metadata")
    try:
        document = json.loads(data, object_pairs_hook=_without_duplicates, **_NUMBERS)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"metadata.json is not a session's metadata: {error}") from error
    if not isinstance(document, dict):
        raise IntegrityError("metadata.json is JSON, but not an object")
    return document


def format_document(document: Mapping[str, Any]) -> bytes:
    """The document for people and programs: indented, sorted, UTF-8, a newline at the end. Lone surrogates, which are
    not text though JSON can say them, are said as JSON does."""
    for name in document:
        if not isinstance(name, str):
            raise TypeError(f"names in a session's metadata must be str, not {type(name).__name__}")
    pieces, size = [], 0
    try:
        for piece in _ENCODER.iterencode(document):  # piece by piece, so that what is too large does not hold the loop
            pieces.append(piece.encode(errors="backslashreplace"))
            size += len(pieces[-1])
            if size >= MAX_METADATA_BYTES:
                raise ValueError(
                    f"a session's metadata must not exceed {MAX_METADATA_BYTES} bytes of JSON:"
                    " store larger things as files"
                )
    except RecursionError:
        raise ValueError("a session's metadata must not be nested so deeply") from None
    return b"".join(pieces) + b"\n"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name appears twice")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


_NUMBERS: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _float}
