"""Pages of keys, in the order that the store has: UTF-8 order on S3. Within a page they are sorted on every store."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from dataclasses import replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

from ...driver import (
    Ahead,
    Entry,
    InvalidKeyError,
    Key,
    ListOptions,
    Page,
    Prefix,
    UnavailableError,
    Uncounted,
    cursor_after,
    escape_name,
    parse_cursor,
)
from .requests import _answers as answers
from .requests._pace import IN_A_TURN, Pace
from .requests._under_way import Answer, give_up, result_of
from .requests._xml import read_listing, token_of

if TYPE_CHECKING:
    from .requests._client import Client

_LIST = "list_objects_v2"
MADE_AT_ONCE = 200  # entries: about 0.4 ms

_values = itemgetter("Key", "Size", "LastModified")


async def list_page(client: Client, prefix: Prefix, options: ListOptions) -> Page:
    """The page that is asked for, or the one behind it if nothing of it is to be shown."""
    start = f"{prefix}\n"  # of each cursor: no key has a line end
    token, after = "", options.start_after or ""
    if options.cursor is not None:
        token, _, after = parse_cursor(options.cursor, start).removeprefix(start).partition("\n")
    passed = {"", token}
    left_out: list[str] = []
    count = 0
    while True:
        asked = _parameters(prefix, options, token, after)
        answer = await _answer(client, asked, options.ahead)
        if options.ahead is not None and token and (guess := token_of(answer)) and guess not in passed:
            options.ahead.hold(_Next(client, asked | {"ContinuationToken": guess}))
            await asyncio.sleep(0)  # it is sent before this page is read, and not 1.4 of a page's 24 ms later
        answer = await _read(client, answer)
        following = answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else None
        if following in passed:
            raise UnavailableError("the listing never ends: the store says that more follows, but not where")
        page = await _page(answer, prefix, after, f"{start}{following}\n{after}" if following else None, client.pace)
        count += page.skipped
        left_out = [*left_out, *page.foreign] if options.foreign else [*left_out, *page.foreign][:1]
        if page.entries or page.prefixes or following is None or (left_out and options.foreign):
            return replace(page, skipped=count, foreign=left_out)
        passed.add(following)
        token = following


async def ask_page(client: Client, **asked: Any) -> Answer:
    """A page as the SDK gives it."""
    return await _read(client, await client.call(_LIST, **asked))


async def _answer(client: Client, asked: answers.Parameters, ahead: Ahead | None) -> Answer:
    """What the store says, whether it was asked before or is asked now."""
    held = ahead.take() if ahead is not None else None
    if isinstance(held, _Next) and held.is_of(client, asked):
        return await held.answer()
    if held is not None:  # another page was asked for, or the driver was closed and opened again
        await held.aclose()
    return await client.call(_LIST, **asked)


async def _read(client: Client, answer: Answer) -> Answer:
    with client.errors():
        return await read_listing(answer, client.pace)


class _Next:
    """The request for the next page, under way while the page before it is read and looked at: then neither the store
    nor its client waits for the other."""

    def __init__(self, client: Client, asked: answers.Parameters) -> None:
        self._client = client
        self._asked = asked
        self._attempts = Uncounted()
        self._task = copy_context().run(self._begin)

    def _begin(self) -> asyncio.Task[Answer]:
        self._attempts.begin()
        return self._client.begin(_LIST, **self._asked)

    def is_of(self, client: Client, asked: answers.Parameters) -> bool:
        """Whether it asks just that."""
        return self._client is client and self._asked == asked

    async def answer(self) -> Answer:
        """What has come of it, or comes."""
        try:
            return await result_of(self._task)
        finally:
            self._attempts.count()

    async def aclose(self) -> None:
        await give_up(self._task)


def _parameters(prefix: Prefix, options: ListOptions, token: str, after: str) -> answers.Parameters:
    """Beside a token, all that led to it is said again, as the SDK's own paginator does: some stores want it."""
    parameters: answers.Parameters = {"Prefix": str(prefix), "MaxKeys": options.limit, "EncodingType": "url"}
    optional = {"Delimiter": options.delimiter, "StartAfter": after, "ContinuationToken": token}
    return parameters | {name: value for name, value in optional.items() if value}


async def _page(answer: Answer, prefix: Prefix, after: str, following: str | None, pace: Pace) -> Page:
    """The entries and prefixes that are keys here, or begin some; the names of all others. Another tool may have made
    such objects: a "directory" that ends in "/", say.

    A store may show more than was asked for: a SeaweedFS on PostgreSQL takes "%" and "_" at the end of a prefix for
    wildcards. That is left out, or it would be deleted with what begins so."""
    lines, entries, foreign = answer.get("Contents", []), list[Entry](), list[str]()
    for start in range(0, len(lines), MADE_AT_ONCE):
        await pace.take(IN_A_TURN)
        for line in lines[start : start + MADE_AT_ONCE]:
            if not answers.field(line, "Key").startswith(prefix):
                continue
            try:
                entries.append(_entry(line))
            except InvalidKeyError:
                foreign.append(escape_name(line["Key"]))
    prefixes = []
    for line in answer.get("CommonPrefixes", []):
        folded = line["Prefix"]
        try:
            if folded != after and folded.startswith(prefix):
                prefixes.append(Prefix.parse(folded))
        except InvalidKeyError:
            foreign.append(escape_name(folded))
    return Page(
        entries=sorted(entries, key=attrgetter("key")),
        prefixes=sorted(prefixes),
        cursor=cursor_after(following) if following else None,
        skipped=len(foreign),
        foreign=foreign,
    )


def _entry(line: Answer) -> Entry:
    try:
        key, size, modified = _values(line)
    except KeyError as error:
        raise UnavailableError(f"not an S3 response: it has no {error.args[0]}") from error
    if size < 0:
        raise UnavailableError("not an S3 response: it lists a size below 0")
    return Entry(key=Key.parse(key), size=size, etag=answers.etag_of(line), modified=answers.whole_seconds(modified))
