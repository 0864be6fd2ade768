"""Decisions without I/O, as tables: ranges, conditions, options, cursors, errors."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from email.header import decode_header, make_header
from typing import Any

import pytest

import micelio_storage
from micelio_storage import (
    AccessDeniedError,
    AlreadyExistsError,
    AmbiguousWriteError,
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    NotModifiedError,
    ObjectInfo,
    ObjectReplacedError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    StorageError,
    UnavailableError,
)
from micelio_storage._parsing import (
    encode_metadata,
    parse_condition,
    parse_content_type,
    parse_count,
    parse_etag,
    parse_metadata,
)
from micelio_storage._types import (
    IfAbsent,
    IfMatch,
    ReadOptions,
    Span,
    check_read_conditions,
    check_write_condition,
    cursor_after,
    parse_cursor,
    resolve_span,
)

SPANS = [
    # offset, length, size, what is meant
    (0, None, 10, (0, 10)),
    (0, 0, 10, (0, 0)),
    (0, 1, 10, (0, 1)),
    (0, 10, 10, (0, 10)),
    (0, 11, 10, (0, 10)),
    (9, None, 10, (9, 10)),
    (9, 5, 10, (9, 10)),
    (10, None, 10, (10, 10)),
    (10, 5, 10, (10, 10)),
    (-1, None, 10, (9, 10)),
    (-10, None, 10, (0, 10)),
    (-11, None, 10, (0, 10)),
    (-3, 2, 10, (7, 9)),
    (-3, 0, 10, (7, 7)),
    (-11, 3, 10, (0, 3)),
    (0, None, 0, (0, 0)),
    (0, 5, 0, (0, 0)),
    (-5, None, 0, (0, 0)),
]


@pytest.mark.case("O19")
@pytest.mark.parametrize(("offset", "length", "size", "meant"), SPANS)
def test_a_range_is_what_a_slice_would_be(offset: int, length: int | None, size: int, meant: tuple[int, int]) -> None:
    span = resolve_span(offset, length, size)
    assert (span.start, span.stop) == meant
    assert span == Span(*meant)
    assert span.size == meant[1] - meant[0]


@pytest.mark.case("O19")
@pytest.mark.parametrize(("offset", "size"), [(1, 0), (11, 10), (10**18, 10)])
def test_a_range_behind_the_end_is_an_error(offset: int, size: int) -> None:
    with pytest.raises(RangeError, match=f"{offset} is beyond the end"):
        resolve_span(offset, None, size)


def info_of(etag: str) -> ObjectInfo:
    return ObjectInfo(size=3, etag=etag, modified=datetime(2026, 1, 1, tzinfo=UTC), metadata={"a": "b"})


WRITES = [
    # condition, the present ETag, what is raised
    (None, None, None),
    (None, '"a"', None),
    (IfAbsent(), None, None),
    (IfAbsent(), '"a"', AlreadyExistsError),
    (IfMatch('"a"'), '"a"', None),
    (IfMatch('"a"'), '"b"', PreconditionFailedError),
    (IfMatch('"a"'), None, PreconditionFailedError),
]


@pytest.mark.case("O35", "O36", "O37")
@pytest.mark.parametrize(("condition", "etag", "error"), WRITES)
def test_a_write_condition_asks_for_the_present_state(condition: Any, etag: str | None, error: Any) -> None:
    present = info_of(etag) if etag else None
    if error is None:
        check_write_condition(condition, present)
    else:
        with pytest.raises(error) as caught:
            check_write_condition(condition, present)
        assert type(caught.value) is error
        assert caught.value.info is present


@pytest.mark.case("O25")
def test_a_read_condition_asks_for_the_present_etag() -> None:
    check_read_conditions(ReadOptions(if_match='"a"', if_none_match='"b"'), info_of('"a"'))
    with pytest.raises(PreconditionFailedError):
        check_read_conditions(ReadOptions(if_match='"b"'), info_of('"a"'))
    with pytest.raises(NotModifiedError):
        check_read_conditions(ReadOptions(if_none_match='"a"'), info_of('"a"'))


BAD_OPTIONS: list[tuple[Callable[..., object], tuple[object, ...], type[Exception]]] = [
    (parse_etag, ("if_match", "abc"), InvalidArgumentError),
    (parse_etag, ("if_match", 'W/"abc"'), InvalidArgumentError),
    (parse_etag, ("if_match", "*"), InvalidArgumentError),
    (parse_etag, ("if_match", ""), InvalidArgumentError),
    (parse_etag, ("if_match", '""'), InvalidArgumentError),
    (parse_etag, ("if_match", '"a"b"'), InvalidArgumentError),
    (parse_etag, ("if_match", '"a"\n'), InvalidArgumentError),
    (parse_etag, ("if_match", b'"a"'), TypeError),
    (parse_condition, ('"a"', True), InvalidArgumentError),
    (parse_condition, (None, 1), TypeError),
    (parse_content_type, ("text",), InvalidArgumentError),
    (parse_content_type, ("",), InvalidArgumentError),
    (parse_content_type, ("text/plain\r\nX: y",), InvalidArgumentError),
    (parse_content_type, ("text/plän",), InvalidArgumentError),
    (parse_content_type, ("a/" + "b" * 254,), InvalidArgumentError),
    (parse_content_type, (1,), TypeError),
    (parse_metadata, ({"A": "b"},), InvalidArgumentError),
    (parse_metadata, ({"": "b"},), InvalidArgumentError),
    (parse_metadata, ({"ä": "b"},), InvalidArgumentError),
    (parse_metadata, ({"a b": "c"},), InvalidArgumentError),
    (parse_metadata, ({"a": "b\nc"},), InvalidArgumentError),
    (parse_metadata, ({"a": "\ud800"},), InvalidArgumentError),
    (parse_metadata, ({"a": "ü" * 1024},), InvalidArgumentError),
    (parse_metadata, ({"a": 1},), TypeError),
    (parse_metadata, ({1: "a"},), TypeError),
    (parse_metadata, ([("a", "b")],), TypeError),
    (parse_cursor, ("not a cursor!",), InvalidArgumentError),
    (parse_cursor, ("é",), InvalidArgumentError),
]


@pytest.mark.case("O38", "O63", "Z9")
@pytest.mark.parametrize(("parse", "arguments", "error"), BAD_OPTIONS)
def test_a_bad_option_is_refused(parse: Callable[..., object], arguments: tuple[object, ...], error: Any) -> None:
    with pytest.raises(error):
        parse(*arguments)


@pytest.mark.parametrize("value", ["text/plain", "text/html; charset=utf-8", "application/x.y+json", 'a/b;c="d e"'])
def test_a_content_type_is_kept_as_it_is(value: str) -> None:
    assert parse_content_type(value) == value


@pytest.mark.case("O63")
def test_metadata_may_have_2000_bytes_empty_values_and_any_language() -> None:
    for metadata in ({}, {"a": ""}, {"name": "früh 日本"}, {"a": "b" * 1999}):
        assert parse_metadata(metadata) == metadata


@pytest.mark.parametrize("plain", ["a", "a b", "%41", "a=", "text/plain; q=0.5", "?="])
def test_what_any_server_hands_on_is_sent_as_it_is(plain: str) -> None:
    assert encode_metadata(plain) == plain


@pytest.mark.case("O63")
@pytest.mark.parametrize("value", ["", " a", "a ", "a  b", "=?utf-8?q?a?=", "früh", "日本"])
def test_all_else_is_one_encoded_word(value: str) -> None:
    encoded = encode_metadata(value)
    assert re.fullmatch(r"=\?UTF-8\?B\?[A-Za-z0-9+/=]*\?=", encoded)
    assert str(make_header(decode_header(encoded))) == value


def test_counts_have_bounds() -> None:
    assert parse_count("limit", 1, least=1, most=1) == 1
    assert parse_count("limit", None, least=1) is None
    for bad in (0, 3):
        with pytest.raises(InvalidArgumentError, match="limit must be between 1 and 2"):
            parse_count("limit", bad, least=1, most=2)
    for wrong in (True, 1.0, "1"):
        with pytest.raises(TypeError):
            parse_count("limit", wrong, least=1)  # type: ignore[arg-type]


@pytest.mark.case("O50")
@pytest.mark.parametrize("last", ["a", "a/b/", "日本/é", "a" * 1024])
def test_a_cursor_brings_back_where_the_page_ended(last: str) -> None:
    assert parse_cursor(cursor_after(last)) == last


ERRORS = [kind for kind in vars(micelio_storage).values() if isinstance(kind, type) and issubclass(kind, StorageError)]


@pytest.mark.case("O67")
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_pickles_with_all_that_it_knows(kind: type[StorageError]) -> None:
    error = kind("what happened")
    error.add_context("put", "a/b", "local")
    error.add_context("get", "other", "s3")
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is kind
    assert str(copied) == str(error) == "put 'a/b' (local): what happened"
    assert (copied.operation, copied.key, copied.driver) == ("put", "a/b", "local")


@pytest.mark.case("O67")
def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(NotFoundError, FileNotFoundError)
    assert issubclass(AlreadyExistsError, (FileExistsError, PreconditionFailedError))
    assert issubclass(DeadlineError, TimeoutError)


@pytest.mark.case("O67")
def test_what_may_simply_be_done_again_is_retryable_and_nothing_else_is() -> None:
    retryable = {kind for kind in ERRORS if kind.retryable}
    assert retryable == {DeadlineError, ObjectReplacedError, UnavailableError}
    assert issubclass(AmbiguousWriteError, UnavailableError)


@pytest.mark.case("O67")
@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_copied_and_pickled_with_each_field_and_its_causes_words(kind: type[StorageError]) -> None:
    fields: dict[str, object] = {"info": info_of('"a"'), "size": 7}
    error = kind("m", **{name: fields[name] for name in inspect.signature(kind).parameters if name in fields})  # type: ignore[arg-type]
    error.add_context("put", "a/b", "local")
    error.retryable = not kind.retryable
    if isinstance(error, OSError):
        error.errno = errno.EDQUOT
    error.__cause__ = cause = UnpicklableError("disk says no")
    cause.__cause__ = KeyError("deep")
    for again in (
        copy.copy(error),
        pickle.loads(pickle.dumps(error)),
        pickle.loads(pickle.dumps(copy.deepcopy(error))),
    ):
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
        assert getattr(again, "errno", None) == getattr(error, "errno", None)
        shown = "".join(traceback.format_exception(again))
        assert "UnpicklableError: disk says no" in shown
        assert "KeyError: 'deep'" in shown
    assert copy.copy(error).__cause__ is cause


class UnpicklableError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text, lambda: None)
        self.text = text

    def __str__(self) -> str:
        return self.text


@pytest.mark.case("O67")
def test_kinds_of_os_error_have_an_errno() -> None:
    found = {kind: kind("m").errno for kind in ERRORS if issubclass(kind, OSError)}
    assert found == {
        NotFoundError: errno.ENOENT,
        AlreadyExistsError: errno.EEXIST,
        AccessDeniedError: errno.EACCES,
        OutOfSpaceError: errno.ENOSPC,
        DeadlineError: errno.ETIMEDOUT,
    }


@pytest.mark.case("K1", "O67")
def test_a_long_key_is_cut_and_an_odd_one_escaped_in_an_error() -> None:
    error = NotFoundError("no such object")
    error.add_context("get", "é" * 500, "local")
    assert str(error).isascii()
    assert len(str(error)) < 150
    assert "..." in str(error)
