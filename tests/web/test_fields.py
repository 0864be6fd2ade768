"""The header fields as tables: the facts of Go's tests, where RFC 9110 wants otherwise, and what nobody may send."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micelio_storage.driver import Span
from micelio_storage.http._fields import (
    MOST_MEMBERS,
    MOST_PARTS,
    EntityTags,
    Fields,
    coalesce,
    content_disposition,
    format_http_date,
    parse_digest,
    parse_etags,
    parse_http_date,
    parse_range,
    satisfiable,
    spans_to_send,
    split_disposition,
)

# -- ranges: the header, the size, and (start, length) of each that can be satisfied; None for a header that is ignored

RANGES = [
    ("", 0, None),
    ("", 1000, None),
    ("foo", 0, None),
    ("bytes=", 0, None),
    ("bytes=7", 10, None),
    ("bytes= 7 ", 10, None),
    ("bytes=1-", 0, []),
    ("bytes=5-4", 10, None),
    ("bytes=0-2,5-4", 10, None),
    ("bytes=2-5,4-3", 10, None),
    ("bytes=--5,4--3", 10, None),
    ("bytes=A-", 10, None),
    ("bytes=A- ", 10, None),
    ("bytes=A-Z", 10, None),
    ("bytes= -Z", 10, None),
    ("bytes=5-Z", 10, None),
    ("bytes=Ran-dom, garbage", 10, None),
    ("bytes=0x01-0x02", 10, None),
    ("bytes=         ", 10, None),
    ("bytes= , , ,   ", 10, None),
    ("bytes=0-9", 10, [(0, 10)]),
    ("bytes=0-", 10, [(0, 10)]),
    ("bytes=5-", 10, [(5, 5)]),
    ("bytes=0-20", 10, [(0, 10)]),
    ("bytes=15-,0-5", 10, [(0, 6)]),
    ("bytes=1-2,5-", 10, [(1, 2), (5, 5)]),
    ("bytes=-2 , 7-", 11, [(9, 2), (7, 4)]),
    ("bytes=0-0 ,2-2, 7-", 11, [(0, 1), (2, 1), (7, 4)]),
    ("bytes=-5", 10, [(5, 5)]),
    ("bytes=-15", 10, [(0, 10)]),
    ("bytes=0-499", 10000, [(0, 500)]),
    ("bytes=500-999", 10000, [(500, 500)]),
    ("bytes=-500", 10000, [(9500, 500)]),
    ("bytes=9500-", 10000, [(9500, 500)]),
    ("bytes=0-0,-1", 10000, [(0, 1), (9999, 1)]),
    ("bytes=500-600,601-999", 10000, [(500, 101), (601, 399)]),
    ("bytes=500-700,601-999", 10000, [(500, 201), (601, 399)]),
    ("bytes=   1 -2   ,  4- 5, 7 - 8 , ,,", 11, [(1, 2), (4, 2), (7, 2)]),
    # what may not stand in a suffix
    ("bytes=--6", 11, None),
    ("bytes=--0", 11, None),
    ("bytes=---6", 11, None),
    ("bytes=-6-", 11, None),
    ("bytes=-", 11, None),
    ("bytes=+6-", 11, None),
    ("bytes=-+6", 11, None),
    ("bytes=6-7-8", 11, None),
    # units have no case and only bytes is one; the last no bytes of an object are none
    ("BYTES=0-1", 10, [(0, 2)]),
    ("bytes =0-1", 10, [(0, 2)]),
    ("octets=0-1", 10, None),
    ("bytes=-0", 10, []),
    ("bytes=0-1,-0", 10, [(0, 2)]),
    # numbers that no object reaches, other digits, other blanks
    ("bytes=0-" + "9" * 5000, 10, [(0, 10)]),
    ("bytes=" + "9" * 5000 + "-", 10, []),
    ("bytes=" + "0" * 5000 + "1-2", 10, [(1, 2)]),
    ("bytes=0-\u0661", 10, None),
    ("bytes=0-1\n", 10, None),
    ("bytes=0-1;bytes=2-3", 10, None),
]


@pytest.mark.parametrize(("text", "size", "expected"), RANGES)
def test_a_range_is_what_it_says_or_ignored(text: str, size: int, expected: list[tuple[int, int]] | None) -> None:
    ranges = parse_range(text)
    found = None if ranges is None else [(span.start, span.size) for span in satisfiable(ranges, size)]
    assert found == expected


SENT = [
    ("bytes=0-0,-1", [(0, 1), (9, 10)]),
    ("bytes=0-4,5-6", [(0, 7)]),
    ("bytes=5-6,0-4", [(0, 7)]),
    ("bytes=8-9,0-1,4-5", [(8, 10), (0, 2), (4, 6)]),  # in the order that was asked for
    ("bytes=8-8,0-1,9-9", [(8, 10), (0, 2)]),
    ("bytes=0-5,2-3", [(0, 6)]),
    ("bytes=12-,3-4", [(3, 5)]),
    ("bytes=12-,13-", []),
    ("bytes=0-,0-", None),  # more than there is
    ("bytes=0-9", [(0, 10)]),
    ("bytes=-0", []),
]


@pytest.mark.parametrize(("text", "expected"), SENT)
def test_ranges_that_touch_are_sent_as_one_where_the_first_of_them_stood(
    text: str, expected: list[tuple[int, int]] | None
) -> None:
    ranges = parse_range(text)
    assert ranges is not None
    sent = spans_to_send(ranges, 10)
    assert (None if sent is None else [(span.start, span.stop) for span in sent]) == expected


def test_too_many_parts_are_the_whole() -> None:
    for count in (MOST_PARTS, MOST_PARTS + 1):
        ranges = parse_range("bytes=" + ",".join(f"{3 * n}-{3 * n}" for n in range(count)))
        assert ranges is not None
        sent = spans_to_send(ranges, 1000)
        assert (sent is None) == (count > MOST_PARTS)


@pytest.mark.case("H3")
def test_a_header_of_ten_thousand_ranges_is_ignored_in_no_time() -> None:
    for text in (
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 20_000, 2)),
        "bytes=" + ",".join("0-" for _ in range(10_000)),
        "bytes=" + "," * 10_000,
        "bytes=" + " " * 30_000 + "x",
        "bytes=" + "1" * 30_000,
    ):
        began = time.process_time()
        assert parse_range(text) is None
        assert time.process_time() - began < 0.005


def test_as_many_ranges_as_are_looked_at_take_no_time_either() -> None:
    ranges = parse_range("bytes=" + ",".join(f"{n}-{n + 5}" for n in range(MOST_MEMBERS)))
    assert ranges is not None
    began = time.process_time()
    assert spans_to_send(ranges, 10**6) == (Span(0, MOST_MEMBERS + 5),)
    assert time.process_time() - began < 0.005


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: Span(pair[0], sum(pair))))


@given(SPANS)
def test_coalesced_spans_cover_the_same_bytes_and_do_not_touch(spans: list[Span]) -> None:
    joined = coalesce(spans)
    covered = {byte for span in spans for byte in range(span.start, span.stop)}
    assert {byte for span in joined for byte in range(span.start, span.stop)} == covered
    assert sum(span.size for span in joined) == len(covered)
    ends = sorted((span.start, span.stop) for span in joined)
    assert all(before[1] < after[0] for before, after in pairwise(ends))


@given(st.text(alphabet="bytes=0123456789-, \t;xW", max_size=40), st.integers(0, 50))
def test_whatever_a_range_says_what_is_sent_lies_in_the_object(text: str, size: int) -> None:
    ranges = parse_range(text)
    for span in (spans_to_send(ranges, size) or ()) if ranges else ():
        assert 0 <= span.start < span.stop <= size


# -- entity tags

TAGS: list[tuple[str, EntityTags]] = [
    ('W/"etag-1"', EntityTags(((True, '"etag-1"'),))),
    ('"etag-2"', EntityTags(((False, '"etag-2"'),))),
    ('"etag-1", "etag-2"', EntityTags(((False, '"etag-1"'), (False, '"etag-2"')))),
    ("", EntityTags()),
    ("W/", EntityTags()),
    ('W/"truc', EntityTags()),
    ('w/"case-sensitive"', EntityTags()),
    ('"spaced etag"', EntityTags()),
    ("*", EntityTags(any=True)),
    (" * ", EntityTags(any=True)),
    ('"a", *', EntityTags(((False, '"a"'),))),
    (',, "a" ,"b"\t,', EntityTags(((False, '"a"'), (False, '"b"')))),
    ('"a,b"', EntityTags(((False, '"a,b"'),))),
    ('""', EntityTags(((False, '""'),))),
    ('"a" "b"', EntityTags()),
    ('"a", b, "c"', EntityTags(((False, '"a"'),))),
    ('"\xe9"', EntityTags(((False, '"\xe9"'),))),
    ('"a\x7f"', EntityTags()),
]


@pytest.mark.parametrize(("text", "expected"), TAGS)
def test_entity_tags_count_up_to_the_first_that_is_malformed(text: str, expected: EntityTags) -> None:
    assert parse_etags(text) == expected


def test_weak_and_strong_comparison_are_those_of_the_rfc() -> None:
    table = {('W/"1"', 'W/"1"'): (False, True), ('W/"1"', 'W/"2"'): (False, False), ('W/"1"', '"1"'): (False, True)}
    table[('"1"', '"1"')] = (True, True)
    for (asked, there), (strongly, weakly) in table.items():
        tags = parse_etags(asked)
        assert tags is not None
        assert (tags.match(there, weakly=False), tags.match(there, weakly=True)) == (strongly, weakly)


def test_a_thousand_thousand_tags_take_linear_time() -> None:
    began = time.process_time()
    parse_etags('"a",' * 20_000)
    parse_etags('W/"' * 20_000)
    assert time.process_time() - began < 0.2


# -- dates

MOMENT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
DATES = [
    ("Sun, 06 Nov 1994 08:49:37 GMT", MOMENT),
    ("Sunday, 06-Nov-94 08:49:37 GMT", MOMENT),
    ("Sun Nov  6 08:49:37 1994", MOMENT),
    ("Sunday, 06-Nov-30 08:49:37 GMT", datetime(2030, 11, 6, 8, 49, 37, tzinfo=UTC)),
    ("Sunday, 06-Nov-77 08:49:37 GMT", datetime(1977, 11, 6, 8, 49, 37, tzinfo=UTC)),
    ("Sun, 06 Nov 1994 08:49:37 UTC", None),
    ("Sun, 06 Nov 1994 08:49:37 +0000", None),
    ("Sun, 06 nov 1994 08:49:37 GMT", None),
    ("Sun, 31 Feb 1994 08:49:37 GMT", None),
    ("Sun, 06 Nov 1994 24:49:37 GMT", None),
    ("Sun, 06 Nov 0000 08:49:37 GMT", None),
    ("Sun, 06 Nov 1994 08:49:37 GMT ", None),
    ("Sun, 0\u0666 Nov 1994 08:49:37 GMT", None),
    ("784111777", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), DATES)
def test_a_date_has_one_of_three_forms(text: str, expected: datetime | None) -> None:
    assert parse_http_date(text, datetime(2026, 1, 1, tzinfo=UTC)) == expected


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_date_that_is_said_is_understood(moment: datetime) -> None:
    assert parse_http_date(format_http_date(moment)) == moment.replace(microsecond=0)


def test_a_date_is_said_in_utc() -> None:
    assert format_http_date(MOMENT + timedelta(microseconds=999_999)) == "Sun, 06 Nov 1994 08:49:37 GMT"


# -- names

NAMES = [
    ("a.txt", 'attachment; filename="a.txt"'),
    ("a b.txt", 'attachment; filename="a b.txt"'),
    ("caf\u00e9.txt", "attachment; filename=\"caf_.txt\"; filename*=UTF-8''caf%C3%A9.txt"),
    ("\u20ac rates", "attachment; filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
    ('a"b', "attachment; filename=\"a_b\"; filename*=UTF-8''a%22b"),
    ("50%41.txt", "attachment; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
    ("it's; a*(b)", 'attachment; filename="it\'s; a*(b)"'),
    ("\U0001f600.png", "attachment; filename=\"_.png\"; filename*=UTF-8''%F0%9F%98%80.png"),
    (
        "\u0645\u0631\u062d\u0628\u0627",
        "attachment; filename=\"_____\"; filename*=UTF-8''%D9%85%D8%B1%D8%AD%D8%A8%D8%A7",
    ),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_a_name_is_said_for_every_client(name: str, expected: str) -> None:
    assert content_disposition("attachment", name) == expected


@given(st.text())
@pytest.mark.case("H5")
def test_no_name_breaks_out_of_its_header(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return  # no key has it
    said = content_disposition("inline", name)
    assert said.isascii()
    assert said.isprintable()
    assert said.partition("; filename*=")[0].count('"') == 2
    assert split_disposition(said) == ("inline", said.removeprefix("inline"))


DISPOSITIONS = [
    ("attachment", ("attachment", "")),
    ("INLINE; filename=a", ("inline", "; filename=a")),
    (" inline ;x", ("inline", ";x")),
    ("", None),
    (";filename=a", None),
    ('"inline"', None),
    ("inline, attachment", None),
]


@pytest.mark.parametrize(("text", "expected"), DISPOSITIONS)
def test_what_a_disposition_says_to_do_stands_before_its_parameters(
    text: str, expected: tuple[str, str] | None
) -> None:
    assert split_disposition(text) == expected


# -- digests

HELLO = "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="
DIGESTS = [
    (f"sha-256=:{HELLO}:", True),
    (f"sha-512=:AAAA:, sha-256=:{HELLO}:", True),
    ("sha-512=:AAAA:", None),
    (None, None),
    ("sha-256=:AAAA:", ValueError),
    (f"sha-256={HELLO}", ValueError),
    (f"sha-256=:{HELLO}", ValueError),
    ("sha-256", ValueError),
    (f"SHA-256=:{HELLO}:", ValueError),
    ("sha-256=:!!!!:", ValueError),
    ("", ValueError),
]


@pytest.mark.parametrize(("text", "expected"), DIGESTS)
def test_a_digest_is_its_sha_256_or_malformed(text: str | None, expected: object) -> None:
    if expected is ValueError:
        with pytest.raises(ValueError, match=r"digest|sha-256|padding"):
            parse_digest(text)
    else:
        assert (parse_digest(text) is not None) == bool(expected)


def test_fields_have_no_case_and_are_lists_where_they_come_twice() -> None:
    fields = Fields([(b"If-Match", b' "a"'), (b"if-match", b'"b" '), (b"X", b"\xe9")])
    assert fields.get("if-match") == '"a", "b"'
    assert fields.get("x") == "\xe9"
    assert fields.get("y") is None
    assert "x" in fields
    assert "X" not in fields
