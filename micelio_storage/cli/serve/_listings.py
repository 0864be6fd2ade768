"""What the page asks for as JSON: sessions, one level of a tree, how much there is, and to remove all of it."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias
from urllib.parse import parse_qsl

from ... import InvalidKeyError, Session, Storage
from ...http import Refused

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"

PARAMETERS = {"prefix", "cursor"}
SESSIONS = "sessions/"
PAGE = 1000  # lines: the most that a page of a listing has
MOST_COUNTED = 100_000  # objects that are looked at to say how much there is: some 100 requests to a store


class Query:
    """The parameters of a request; `Refused` where one is unknown, doubled or not text."""

    def __init__(self, text: str) -> None:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
        except ValueError as error:
            raise Refused(400, "the query is malformed") from error
        self._values = dict(pairs)
        if len(self._values) != len(pairs) or not self._values.keys() <= PARAMETERS:
            raise Refused(400, "the query has a parameter that is unknown or there twice")

    def get(self, name: str) -> str | None:
        """The parameter's text, None without one."""
        return self._values.get(name)

    def directory(self) -> str:
        """The `prefix`, which has to be all of a directory's: nothing that only begins like it is meant."""
        prefix = self.get("prefix") or ""
        if not prefix.endswith("/"):
            raise Refused(400, "the prefix has to be that of a directory, with a slash at its end")
        return prefix


async def sessions(storage: Storage, query: Query) -> Json:
    """The ids of sessions that begin with `prefix`, a page of them."""
    begin = SESSIONS + (query.get("prefix") or "")
    page = await storage.list_page(begin, cursor=query.get("cursor"), delimiter="/", limit=PAGE)
    names = [prefix.removeprefix(SESSIONS).removesuffix("/") for prefix in page.prefixes]
    return {"sessions": [name for name in names if _is_session(storage, name)], "cursor": page.cursor}


async def tree(storage: Storage, query: Query) -> Json:
    """One level of what begins with `prefix`, a page of it: files, and directories, whose names end in "/"."""
    prefix = query.get("prefix") or ""
    page = await storage.list_page(prefix, cursor=query.get("cursor"), delimiter="/", limit=PAGE)
    skip = prefix.rfind("/") + 1
    lines: dict[str, Json] = {name[skip:]: {"name": name[skip:]} for name in page.prefixes}
    for entry in page.entries:
        name = entry.key[skip:]
        lines[name] = {"name": name, "size": entry.size, "modified": entry.modified.isoformat(timespec="seconds")}
    return {"lines": [lines[name] for name in sorted(lines)], "cursor": page.cursor, "skipped": page.skipped}


async def usage(storage: Storage, query: Query) -> Json:
    """How many objects are in a directory, their bytes and the time of the last change; `more` if that is not all."""
    prefix, files, size, cursor, more = query.directory(), 0, 0, None, True
    modified: datetime | None = None
    while more and files < MOST_COUNTED:
        page = await storage.list_page(prefix, cursor=cursor)
        files, size = files + len(page.entries), size + sum(entry.size for entry in page.entries)
        modified = max(
            [entry.modified for entry in page.entries] + ([] if modified is None else [modified]), default=None
        )
        cursor, more = page.cursor, page.cursor is not None
    changed = None if modified is None else modified.isoformat(timespec="seconds")
    return {"files": files, "bytes": size, "modified": changed, "more": more}


async def remove(storage: Storage, query: Query) -> Json:
    """Remove all that is in a directory."""
    removed = await storage.delete_prefix(query.directory())
    return {"removed": int(removed), "skipped": removed.skipped}


def _is_session(storage: Storage, name: str) -> bool:
    try:
        return Session(storage, name).id == name
    except InvalidKeyError:
        return False
