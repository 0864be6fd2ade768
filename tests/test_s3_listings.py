"""Listings read by a regular expression where they are written as stores write them: that they say what an XML parser
says, whatever is done to them, and that the loop is left to others in between."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any
from xml.etree.ElementTree import ParseError, fromstring

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from micelio_storage import Entry, InvalidKeyError, Key
from micelio_storage._keys import NO_PREFIX
from micelio_storage._types import ListOptions
from micelio_storage.drivers.s3._listing import list_page
from micelio_storage.drivers.s3.requests import _xml
from micelio_storage.drivers.s3.requests._contents import MARK, Lines
from micelio_storage.drivers.s3.requests._failures import NotS3Error
from micelio_storage.drivers.s3.requests._pace import Pace
from micelio_storage.drivers.s3.requests._xml import decode_names, read_listing, receive_listing, token_of

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
HEAD += "<Name>b</Name><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
TAIL = "<CommonPrefixes><Prefix>d%2Fe/</Prefix></CommonPrefixes><NextContinuationToken>t</NextContinuationToken>"
TAIL += "</ListBucketResult>"
AMAZONS = (
    "<Contents><Key>{key}</Key><LastModified>2009-10-12T17:50:{second:02}.000Z</LastModified>"
    "<ETag>&quot;fba9dede5f27731c9771645a39863328&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
    "<ChecksumType>FULL_OBJECT</ChecksumType><Size>434234</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
SEAWEEDFS = (
    "<Contents><Key>{key}</Key><ETag>&#34;d41d8cd98f00b204e9800998ecf8427e-3&#34;</ETag><Size>0</Size>"
    "<StorageClass>STANDARD</StorageClass><LastModified>2026-11-28T18:07:{second:02}Z</LastModified></Contents>"
)
OWNED = (
    '<Contents><Key>{key}</Key><LastModified>2009-10-12T17:50:{second:02}Z</LastModified><ETag>"e"</ETag>'
    "<Size>1</Size><Owner><ID>75aa57f0</ID><DisplayName>me</DisplayName></Owner><Type>Normal</Type></Contents>"
)
ODD = (
    "<Contents >{key}</Contents>",
    (
        "<Contents><Key>{key}&amp;</Key><LastModified>2009-10-12T17:50:{second:02}Z</LastModified><ETag>e</ETag>"
        "<Size>1</Size></Contents>"
    ),
    (
        "<Contents><Key>{key}</Key><Key>again</Key><LastModified>2009-10-12T17:50:{second:02}Z</LastModified>"
        '<ETag>"e"</ETag><Size>1</Size></Contents>'
    ),
    "<!-- " + AMAZONS + " -->",
    "<Other>" + OWNED + "</Other>",
    "<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>",
)
SNIPPETS = (
    *("<", ">", "&", "&amp;", "&quot;", "&#34;", '"', "\x00", "\x01", "\r", "\n", " ", "\x7f", "é", "%2F", "+", "]]>"),
    *("<![CDATA[", "<!--", "-->", "<Contents>", "</Contents>", "<Key>", "</Key>", "<Key/>", "<Size>", "-1", "7" * 25),
    *("24:00", "60", "0000-", "T", "Z", "+01:00", "<?xml version='1.0' encoding='latin-1'?>", "utf-16", f"<{MARK}/>"),
    *("</ListBucketResult>", "<!DOCTYPE a>", "&e;", "standalone='yes'", "<Owner><ID>1</ID></Owner>", ""),
)
KEYS = st.sampled_from(["a", "a/b.txt", "a%20b+c", "%C3%A9", "%FF", ".", "a//b", "", "x" * 300])


@st.composite
def listings(draw: st.DrawFn) -> bytes:
    """A listing of some stores together, with a few things put where they do not belong."""
    kinds = st.sampled_from([AMAZONS, AMAZONS, SEAWEEDFS, OWNED, *ODD])
    lines = draw(st.lists(st.tuples(kinds, KEYS, st.integers(0, 60)), max_size=6))
    text = HEAD + "".join(kind.format(key=key, second=second) for kind, key, second in lines) + TAIL
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 5])))
        text = text[:start] + draw(st.sampled_from(SNIPPETS)) + text[end:]
    return text.encode()


class Content:
    """A body that comes in pieces."""

    def __init__(self, data: bytes, size: int = 1000) -> None:
        self._pieces = [data[start : start + size] for start in range(0, len(data), size)]

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


class Client:
    """One answer."""

    errors = nullcontext

    def __init__(self, content: Content, pace: Pace) -> None:
        self.content = content
        self.pace = pace

    async def call(self, *_: object, **parameters: object) -> Any:
        return await receive_listing(self.content, self.pace)


async def read(data: bytes) -> Any:
    """What a body says."""
    return await read_listing(await receive_listing(Content(data), Pace()), Pace())


def outcome(data: bytes) -> Any:
    """What is read, or None if it is refused."""
    try:
        return asyncio.run(read(data))
    except NotS3Error:
        return None


def outcome_of_the_parser(data: bytes) -> Any:
    """The same with all of it read by an XML parser."""

    async def parse() -> Any:
        answer = await _xml._parse_listing(data, Pace())
        if answer.pop("root", "") != "ListBucketResult":
            return None
        del answer["marks"]
        return decode_names(answer)

    try:
        return asyncio.run(parse())
    except NotS3Error:
        return None


@given(listings())
@example((HEAD + OWNED.format(key="a", second=1) + "<!--" + AMAZONS.format(key="b", second=2) + "-->" + TAIL).encode())
@example((HEAD + "<!--" + AMAZONS.format(key="b", second=2) + "-->" + TAIL).encode())
@example((HEAD + "<a>" + AMAZONS.format(key="b", second=2) + "</a>" + TAIL).encode())
@example((HEAD + AMAZONS.format(key="b\x01", second=2) + TAIL).encode())
@example((HEAD.replace("UTF-8", "cp037") + AMAZONS.format(key="b", second=2) + TAIL).encode())
@example(HEAD.encode() + AMAZONS.format(key="b", second=2).encode() * 3 + TAIL.encode() * 2)
def test_a_listing_says_what_an_xml_parser_says(data: bytes) -> None:
    found = outcome(data)
    assert found == outcome_of_the_parser(data)
    try:
        root = fromstring(data)  # it is ours
    except (ParseError, LookupError, ValueError):
        assert found is None
    else:
        assert found is None or len(found["Contents"]) == sum(part.tag.endswith("}Contents") for part in root)


@pytest.mark.parametrize("kind", [AMAZONS, SEAWEEDFS, OWNED])
def test_what_stores_list_is_left_to_no_parser(kind: str) -> None:
    text = "".join(kind.format(key=f"a/{number:04}", second=number % 60) for number in range(1000))
    lines = Lines((HEAD + text + TAIL).encode())
    assert [line["Key"] for line in lines] == [f"a/{number:04}" for number in range(1000)]
    assert lines.rest() == f"{HEAD}<{MARK}/>{TAIL}".encode()


def test_lines_of_several_kinds_are_taken_as_well() -> None:
    text = "".join((AMAZONS, OWNED)[number % 2].format(key=f"a/{number}", second=1) for number in range(100))
    lines = Lines((HEAD + text + TAIL).encode())
    assert len(list(lines)) == 100


def test_of_lines_that_are_all_different_a_few_are() -> None:
    """Making a pattern takes long."""
    other = "".join(AMAZONS.replace("Checksum", f"T{number}").format(key="a", second=1) for number in range(50))
    data = (HEAD + other + TAIL).encode()
    assert 0 < len(list(Lines(data))) < 20
    assert outcome(data) == outcome_of_the_parser(data)


async def test_a_page_is_read_in_turns() -> None:
    """So that nothing else on the loop waits for all of it."""
    text = "".join(AMAZONS.format(key=f"a/{number:04}", second=1) for number in range(1000))
    pace, turns, is_over = Pace(), 0, False

    async def count() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    client: Any = Client(Content((HEAD + text + TAIL).encode()), pace)
    page = await list_page(client, NO_PREFIX, ListOptions())
    is_over = True
    await counting
    assert len(page.entries) == 1000
    assert page.prefixes == ["d/e/"]
    assert turns > 10
    assert page.entries[7] == Entry(
        key=Key.parse("a/0007"),
        size=434234,
        etag='"fba9dede5f27731c9771645a39863328"',
        modified=page.entries[7].modified,
    )


SEGMENTS = st.sampled_from(["a", "-", "_x", "a.b", ".a", "..", ".", "", ".micelio", "é", "a b", "a" * 255])


@given(st.one_of(st.text(max_size=20), st.lists(SEGMENTS, max_size=8).map("/".join)))
def test_the_short_way_to_a_key_takes_no_other(text: str) -> None:
    """A `str` of another type goes the long way."""
    long = type("Long", (str,), {})(text)
    try:
        expected: Key | None = Key.parse(long)
    except InvalidKeyError:
        expected = None
    try:
        found: Key | None = Key.parse(text)
    except InvalidKeyError:
        found = None
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("change", "token"),
    [
        (("", ""), "t"),
        ((">t<", ">a&amp;b/+=<"), "a&b/+="),
        (("<IsTruncated>true", "<IsTruncated>false"), None),
        (("NextContinuationToken", "Other"), None),
        ((">t<", "><"), None),
        ((">t<", ">&nothing;<"), None),
        (("</NextContinuationToken>", ""), None),
    ],
)
async def test_the_token_of_a_page_is_found_before_the_page_is_read(change: tuple[str, str], token: str | None) -> None:
    text = (HEAD + AMAZONS.format(key="a", second=1) + TAIL).replace(*change)
    answer = await receive_listing(Content(text.encode()), Pace())
    assert "Contents" not in answer
    assert token_of(answer) == token


async def test_what_does_not_begin_as_a_listing_is_refused_with_its_answer() -> None:
    with pytest.raises(NotS3Error):
        await receive_listing(Content(b"<html><NextContinuationToken>t</NextContinuationToken></html>"), Pace())
