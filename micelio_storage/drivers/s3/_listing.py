"""Pages of keys, in the order that the store has: UTF-8 order on S3. Within a page they are sorted on every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...driver import (
    Entry,
    InvalidKeyError,
    Key,
    ListOptions,
    Page,
    Prefix,
    UnavailableError,
    cursor_after,
    parse_cursor,
)
from .requests import _answers as answers
from .requests._pace import IN_A_TURN, Pace

if TYPE_CHECKING:
    from .requests._client import Answer, Client

MADE_AT_ONCE = 100  # entries: about 0.5 ms


async def list_page(client: Client, prefix: Prefix, options: ListOptions) -> Page:
    """The page that is asked for, or the one behind it if nothing of it is to be shown."""
    start = f"{prefix}\n"  # of each cursor: no key has a line end
    token, after = "", options.start_after or ""
    if options.cursor is not None:
        token, _, after = parse_cursor(options.cursor, start).removeprefix(start).partition("\n")
    passed = {"", token}
    while True:
        answer = await client.call("list_objects_v2", **_parameters(prefix, options, token, after))
        following = answer.get("NextContinuationToken", "") if answer.get("IsTruncated") else None
        if following in passed:
            raise UnavailableError("the listing has no end: the store says that more follows, but not where")
        page = await _page(answer, after, f"{start}{following}\n{after}" if following else None, client.pace)
        if page.entries or page.prefixes or following is None:
            return page
        passed.add(following)
        token = following


def _parameters(prefix: Prefix, options: ListOptions, token: str, after: str) -> answers.Parameters:
    """Beside a token, all that led to it is said again, as the SDK's own paginator does: some stores want it."""
    parameters: answers.Parameters = {"Prefix": str(prefix), "MaxKeys": options.limit}
    optional = {"Delimiter": options.delimiter, "StartAfter": after, "ContinuationToken": token}
    return parameters | {name: value for name, value in optional.items() if value}


async def _page(answer: Answer, after: str, following: str | None, pace: Pace) -> Page:
    lines, entries = answer.get("Contents", []), []
    for start in range(0, len(lines), MADE_AT_ONCE):
        await pace.take(IN_A_TURN)
        entries += [entry for line in lines[start : start + MADE_AT_ONCE] if (entry := _entry(line)) is not None]
    folded = [line["Prefix"] for line in answer.get("CommonPrefixes", [])]
    return Page(
        entries=sorted(entries, key=lambda entry: entry.key),
        prefixes=sorted(name for name in folded if name != after),
        cursor=cursor_after(following) if following else None,
    )


def _entry(line: Answer) -> Entry | None:
    """The line, unless another tool made an object whose name is no key here (a "directory" that ends in "/")."""
    try:
        key = Key.parse(line["Key"])
    except InvalidKeyError:
        return None
    return Entry(
        key=key,
        size=line["Size"],
        etag=answers.etag_of(line),
        modified=answers.whole_seconds(line["LastModified"]),
    )
